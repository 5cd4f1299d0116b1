/* What the tests of the keeper share: one in a child for each test, its descriptors counted, users that are nobody, and requests
 * by hand. Every test ends with an empty pool, a keeper that has let go of all, and an empty folder. */
#ifndef HP_KEEP_TEST_H
#define HP_KEEP_TEST_H

#include "hp_process.h"

#include <grp.h>
#include <hugepool/keep.h>
#include <keep/server.h>
#include <os/os.h>
#include <sched.h>

#define OWNER 40001u /* users and groups that nobody is */
#define MEMBER 40002u
#define OTHER 40003u
#define SECOND UINT64_C(1000000000)

static char folder[64], path[128];
static struct child keeper;
static int idle_files; /* of a keeper that keeps nothing */
static hp_pool *pool;

/* What the keeper's calls do; shared with it. */
static struct {
	_Atomic unsigned calls, victim; /* the number of the call that fails; 0: none */
	_Atomic int failure;
	_Atomic bool asked, holding; /* foreign descriptors: their closing waits */
	int gate[2];
} * control;

struct keeper_wish {
	uint64_t idle_ns;
	unsigned uid;
	os_hook_fn *hook;
};

static inline void keeping(const struct child *me, void *arg)
{
	const struct keeper_wish *wish = arg;
	const struct keep_server_options options = {.socket = path, .idle_ns = wish->idle_ns};
	if (wish->uid) must_be(setresuid(wish->uid, wish->uid, wish->uid), 0);
	int before = held_now().files;
	struct keep_server *server;
	must_be(keep_server_open(&options, &server), 0);
	child_say(me);
	os_hook = wish->hook;
	must_be(keep_server_run(server, me->hears), 0);
	os_hook = NULL;
	keep_server_close(server);
	must_be(held_now().files, before);
}

static inline int files_of_keeper(void)
{
	char name[64];
	snprintf(name, sizeof name, "/proc/%d/fd", keeper.pid);
	DIR *dir = opendir(name);
	must(dir);
	int files = 0;
	while (readdir(dir)) files++;
	closedir(dir);
	return files;
}

/* It has noticed all that has happened, and has so many descriptors more than at the beginning. */
static inline void keeper_settles(int more)
{
	for (uint64_t until = os_now_ns() + 20 * SECOND; files_of_keeper() != idle_files + more; sched_yield())
		if (os_now_ns() > until)
			fail_msg("the keeper has %d descriptors, not %d", files_of_keeper(), idle_files + more);
}

static inline void keeper_start(const struct keeper_wish *wish)
{
	static const struct keeper_wish plain;
	keeper = child_start(keeping, (void *)(wish ? wish : &plain));
	must(child_hear(&keeper));
	idle_files = files_of_keeper();
}

static inline void keeper_again(const struct keeper_wish *wish)
{
	child_finish(&keeper);
	keeper_start(wish);
}

static inline int set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof folder, "/tmp/hp-keep-test-XXXXXX");
	if (!control) control = hp_shared(sizeof *control);
	must(mkdtemp(folder));
	must_be(chmod(folder, 0777), 0);
	snprintf(path, sizeof path, "%s/socket", folder);
	must_be(setenv("HUGEPOOL_KEEPER", path, 1), 0);
	keeper_start(NULL);
	pool = hp_plain_pool(MIB, 0);
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	must(hp_pool_recover(pool) >= 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
	child_finish(&keeper);
	must_be(rmdir(folder), 0); /* nothing is left */
	return 0;
}

static inline void need_root(void)
{
	if (geteuid() != 0) hp_test_skip_one("only root can be several users");
}

static inline void become(unsigned uid, unsigned gid, unsigned further)
{
	gid_t groups[] = {60000, further};
	must_be(setgroups(further ? 2 : 0, groups), 0);
	must_be(setresgid(gid, gid, gid), 0);
	must_be(setresuid(uid, uid, uid), 0);
}

static inline int open_for(const char *name, bool observe, hp_pool **got)
{
	const struct hp_keep_options options = {.struct_size = sizeof options, .observe = observe};
	return hp_pool_open(name, &options, got);
}

static inline int count_kept(void *arg, const struct hp_kept *kept)
{
	(void)kept;
	++*(int *)arg;
	return 0;
}

static inline int kept_now(void)
{
	int count = 0;
	must_be(hp_pool_list(NULL, count_kept, &count), 0);
	return count;
}

/* ---- what is no client ---- */

static inline int connected(void)
{
	int socket = os_unix_socket();
	must(socket >= 0);
	must_be(os_unix_connect(socket, path, 10 * SECOND), 0);
	return socket;
}

/* The status of the answer, or 1: there was none. */
static inline int status_of(int socket, const void *message, size_t size, const int *fds, unsigned count)
{
	struct keep_page page;
	int came[3];
	unsigned n;
	if (size) must_be(os_send_fds(socket, message, size, fds, count), size);
	int64_t got = os_recv_fds(socket, &page, sizeof page, came, 3, &n);
	for (unsigned i = 0; i < n; i++) close(came[i]);
	if (got <= 0) return 1;
	must(got >= (int64_t)sizeof page.answer);
	must(page.answer.magic == KEEP_MAGIC && page.answer.version == KEEP_VERSION);
	return page.answer.status;
}

static inline int said_to_keeper(const void *message, size_t size, const int *fds, unsigned count)
{
	int socket = connected();
	int status = status_of(socket, message, size, fds, count);
	close(socket);
	return status;
}

#define KEEP_CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

#endif
