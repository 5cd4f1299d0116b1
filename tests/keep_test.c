/* The keeper: names that outlive their users, who may do what, and clients and keepers that are hostile, stopped or killed.
 * Would catch a right that is not looked at, a descriptor for looking that can be written, a client that makes the keeper
 * wait, leak or end, two keepers on one path, and a call that waits for ever or leaves something behind. */
#include "hp_process.h"

#include <grp.h>
#include <hugepool/keep.h>
#include <keep/server.h>
#include <os/os.h>
#include <sched.h>
#include <sys/resource.h>

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

static void keeping(const struct child *me, void *arg)
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

static int files_of_keeper(void)
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
static void keeper_settles(int more)
{
	for (uint64_t until = os_now_ns() + 20 * SECOND; files_of_keeper() != idle_files + more; sched_yield())
		if (os_now_ns() > until)
			fail_msg("the keeper has %d descriptors, not %d", files_of_keeper(), idle_files + more);
}

static void keeper_start(const struct keeper_wish *wish)
{
	static const struct keeper_wish plain;
	keeper = child_start(keeping, (void *)(wish ? wish : &plain));
	must(child_hear(&keeper));
	idle_files = files_of_keeper();
}

static void keeper_again(const struct keeper_wish *wish)
{
	child_finish(&keeper);
	keeper_start(wish);
}

static int set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof folder, "/tmp/hp-keep-test-XXXXXX");
	must(mkdtemp(folder));
	must_be(chmod(folder, 0777), 0);
	snprintf(path, sizeof path, "%s/socket", folder);
	must_be(setenv("HUGEPOOL_KEEPER", path, 1), 0);
	keeper_start(NULL);
	pool = hp_plain_pool(MIB, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must(hp_pool_recover(pool) >= 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
	child_finish(&keeper);
	must_be(rmdir(folder), 0); /* nothing is left */
	return 0;
}

static void need_root(void)
{
	if (geteuid() != 0) hp_test_skip_one("only root can be several users");
}

static void become(unsigned uid, unsigned gid, unsigned further)
{
	gid_t groups[] = {60000, further};
	must_be(setgroups(further ? 2 : 0, groups), 0);
	must_be(setresgid(gid, gid, gid), 0);
	must_be(setresuid(uid, uid, uid), 0);
}

static int open_for(const char *name, bool observe, hp_pool **got)
{
	const struct hp_keep_options options = {.struct_size = sizeof options, .observe = observe};
	return hp_pool_open(name, &options, got);
}

static int count_kept(void *arg, const struct hp_kept *kept)
{
	(void)kept;
	++*(int *)arg;
	return 0;
}

static int kept_now(void)
{
	int count = 0;
	must_be(hp_pool_list(NULL, count_kept, &count), 0);
	return count;
}

/* ---- names ---- */

static int see_sorted(void *arg, const struct hp_kept *kept)
{
	char *last = arg;
	must(strcmp(last, kept->name) < 0);
	must_be(kept->struct_size, sizeof *kept);
	must_be(kept->owner, geteuid());
	must_be(kept->group, getegid());
	must_be(kept->mode, 0640);
	must_be(kept->capacity, hp_pool_capacity(pool));
	must_be(kept->page_size, PAGE);
	must_be(kept->rung, HP_RUNG_4K);
	strcpy(last, kept->name);
	return 0;
}

static void as_many_names_as_one_likes(void **state)
{
	(void)state;
	const int names = geteuid() == 0 ? 150 : 60; /* more than a page of the list */
	char name[64];
	for (int i = 0; i < names; i++) {
		snprintf(name, sizeof name, "name %d", i * 89 % names);
		assert_int_equal(hp_pool_publish(pool, name, 0640, NULL), 0);
		assert_int_equal(hp_pool_publish(pool, name, 0640, NULL), -EEXIST);
	}
	keeper_settles(3 * names);
	char last[64] = "";
	assert_int_equal(hp_pool_list(NULL, see_sorted, last), 0);
	assert_int_equal(kept_now(), names);
	for (int i = 0; i < names; i++) {
		snprintf(name, sizeof name, "name %d", i);
		hp_pool *got;
		struct held before = held_now();
		if (i % 10 == 0) {
			assert_int_equal(hp_pool_open(name, NULL, &got), 0);
			hp_pool_detach(got);
			must_hold_no_more(before);
		}
		assert_int_equal(hp_pool_unlink(name, NULL), 0);
		assert_int_equal(hp_pool_unlink(name, NULL), -ENOENT);
		assert_int_equal(hp_pool_open(name, NULL, &got), -ENOENT);
		assert_null(got);
		assert_int_equal(kept_now(), names - 1 - i);
	}
	keeper_settles(0);
}

static void opening(const struct child *me, void *arg)
{
	hp_pool *got;
	hp_off off = *(hp_off *)arg;
	must_be(hp_pool_open("it", NULL, &got), 0);
	must(hp_marked(hp_pool_pointer(got, off), 3, 77));
	child_here(me);
	must_be(hp_page_free_at(got, off), 0);
	void *block;
	must_be(hp_page_alloc(got, PAGE, 0, &block), 0); /* unlinked by now, and of use as before */
	must_be(hp_page_free(got, block), 0);
	hp_must_be_empty(got);
	must_be(hp_pool_detach(got), 0);
}

static void a_pool_outlives_its_users(void **state)
{
	(void)state;
	hp_pool *mine = hp_plain_pool(MIB, 0), *got;
	void *block;
	assert_int_equal(hp_page_alloc(mine, 3 * PAGE, 0, &block), 0);
	hp_mark(block, 3, 77);
	hp_off off = hp_pool_offset(mine, block);
	assert_int_equal(hp_pool_publish(mine, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_detach(mine), 0);
	for (int i = 0; i < 2; i++) { /* nobody has it but the keeper; killed users leave it as well */
		struct child child = child_start(opening, &off);
		assert_true(child_hear(&child));
		child_kill(&child);
	}
	assert_int_equal(open_for("it", true, &got), 0);
	assert_int_equal(hp_stats(got).live_blocks, 1);
	hp_must_be_sound(got);
	hp_pool_detach(got);
	struct child child = child_start(opening, &off);
	assert_true(child_hear(&child));
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	assert_int_equal(hp_pool_open("it", NULL, &got), -ENOENT);
	child_finish(&child);
	keeper_settles(0);
}

/* ---- who may do what ---- */

static void publishing_all_modes(const struct child *me, void *arg)
{
	(void)arg;
	become(OWNER, OWNER, 0);
	hp_pool *mine = hp_plain_pool(MIB, 0);
	for (unsigned i = 0; i < 64; i++) {
		char name[16];
		snprintf(name, sizeof name, "%02u", i);
		must_be(hp_pool_publish(mine, name, (i >> 4 & 3) << 7 | (i >> 2 & 3) << 4 | (i & 3) << 1, NULL), 0);
	}
	must_be(hp_pool_publish(mine, "one too many", 0600, NULL), -EDQUOT);
	must_be(hp_pool_unlink("63", NULL), 0);
	must_be(hp_pool_publish(mine, "63", 0666, NULL), 0);
	child_here(me);
	must_be(hp_pool_detach(mine), 0);
}

/* What an observer has can be written in no way. */
static void must_be_read_only(hp_pool *watcher, bool maker)
{
	int fds[3];
	must_be(hp_pool_fds(watcher, fds), 0);
	must_be(fds[0], -1);
	for (int i = 1; i < 3; i++) {
		char name[64];
		must_be(fcntl(fds[i], F_GETFL) & O_ACCMODE, O_RDONLY);
		must(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0) == MAP_FAILED && errno == EACCES);
		void *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fds[i], 0);
		must(map != MAP_FAILED);
		must(mprotect(map, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
		munmap(map, PAGE);
		must(pwrite(fds[i], "x", 1, 0) == -1 && errno == EBADF);
		snprintf(name, sizeof name, "/proc/self/fd/%d", fds[i]);
		int again = open(name, O_RDWR | O_CLOEXEC);
		if (!maker) must(again == -1 && errno == EACCES);
		if (again >= 0) close(again);
	}
}

struct one_asker {
	unsigned uid, gid, further;
	unsigned shift; /* of his bits in i above */
};

static void asking(const struct child *me, void *arg)
{
	(void)me;
	const struct one_asker *asker = arg;
	become(asker->uid, asker->gid, asker->further);
	for (unsigned i = 0; i < 64; i++) {
		char name[16];
		unsigned bits = asker->uid ? i >> asker->shift & 3 : 3;
		snprintf(name, sizeof name, "%02u", i);
		hp_pool *got;
		must_be(open_for(name, false, &got), bits & 1 ? 0 : -EACCES);
		must(!got == !(bits & 1));
		must_be(hp_pool_detach(got), 0);
		must_be(open_for(name, true, &got), bits & 2 ? 0 : -EACCES);
		if (got) {
			must_be(hp_stats(got).processes, 1);
			hp_must_be_sound(got);
			if (asker->uid) must_be_read_only(got, asker->uid == OWNER);
			must_be(hp_pool_publish(got, "mine", 0666, NULL), -EROFS);
		}
		must_be(hp_pool_detach(got), 0);
		if (asker->uid && asker->uid != OWNER) must_be(hp_pool_unlink(name, NULL), -EACCES);
	}
	must_be(kept_now(), 64);
	struct hp_keep_options options = {.struct_size = sizeof options, .owned = true, .owner = OWNER + 7};
	hp_pool *got;
	must_be(hp_pool_open("63", &options, &got), -EPERM);
	options.owner = OWNER;
	must_be(hp_pool_open("63", &options, &got), 0);
	must_be(hp_pool_detach(got), 0);
}

static void modes_are_those_of_files(void **state)
{
	(void)state;
	need_root();
	struct child owner = child_start(publishing_all_modes, NULL);
	assert_true(child_hear(&owner));
	struct one_asker askers[] = {{OWNER, OTHER, 0, 4},      {MEMBER, OWNER, 0, 2}, {MEMBER, MEMBER, OWNER, 2},
	                             {OTHER, OTHER, MEMBER, 0}, {OWNER, OWNER, 0, 4},  {0, 0, 0, 0}};
	for (unsigned i = 0; i < sizeof askers / sizeof *askers; i++) {
		struct child child = child_start(asking, &askers[i]);
		assert_int_equal(child_end(&child), 0);
	}
	child_finish(&owner);
	for (unsigned i = 0; i < 64; i++) { /* root may */
		char name[16];
		snprintf(name, sizeof name, "%02u", i);
		assert_int_equal(hp_pool_unlink(name, NULL), 0);
	}
	keeper_settles(0);
}

/* What was got for looking is not made into more by publishing it. */
static void publishing_what_is_for_looking(const struct child *me, void *arg)
{
	(void)me;
	(void)arg;
	become(OTHER, OTHER, 0);
	hp_pool *watcher;
	must_be(open_for("looked at", true, &watcher), 0);
	int fds[3], none;
	must_be(hp_pool_fds(watcher, fds), 0);
	fds[0] = fds[1];
	struct keep_request request = {KEEP_MAGIC, KEEP_VERSION, KEEP_PUBLISH, 0666, 0, "stolen"};
	struct keep_answer answer;
	unsigned count;
	for (int i = 0; i < 2; i++) {
		if (i) { /* with a lives file of the right kind, too */
			hp_pool *mine = hp_plain_pool(MIB, 0);
			int own[3];
			must_be(hp_pool_fds(mine, own), 0);
			must((fds[0] = dup(own[0])) >= 0);
			must_be(hp_pool_detach(mine), 0);
		}
		int socket = os_unix_socket();
		must_be(os_unix_connect(socket, path, SECOND), 0);
		must_be(os_send_fds(socket, &request, sizeof request, fds, 3), sizeof request);
		must_be(os_recv_fds(socket, &answer, sizeof answer, &none, 1, &count), sizeof answer);
		must(answer.status == -EINVAL || answer.status == -EACCES);
		close(socket);
	}
	must_be(hp_pool_detach(watcher), 0);
}

static void looking_cannot_be_made_into_writing(void **state)
{
	(void)state;
	need_root();
	assert_int_equal(hp_pool_publish(pool, "looked at", 0604, NULL), 0);
	struct child child = child_start(publishing_what_is_for_looking, NULL);
	assert_int_equal(child_end(&child), 0);
	/* with all three descriptors, but not for writing: whoever asks, root too */
	int fds[3], weak[3], none;
	unsigned count;
	hp_pool_fds(pool, fds);
	for (int which = 0; which < 3; which++) {
		for (int i = 0; i < 3; i++) {
			weak[i] = i == which ? os_reopen(fds[i], O_RDONLY) : dup(fds[i]);
			assert_true(weak[i] >= 0);
		}
		struct keep_request request = {KEEP_MAGIC, KEEP_VERSION, KEEP_PUBLISH, 0666, 0, "weak"};
		struct keep_answer answer;
		int socket = os_unix_socket();
		assert_int_equal(os_unix_connect(socket, path, SECOND), 0);
		assert_int_equal(os_send_fds(socket, &request, sizeof request, weak, 3), sizeof request);
		assert_int_equal(os_recv_fds(socket, &answer, sizeof answer, &none, 1, &count), sizeof answer);
		assert_int_equal(answer.status, -EACCES);
		close(socket);
		for (int i = 0; i < 3; i++) close(weak[i]);
	}
	assert_int_equal(kept_now(), 1);
	assert_int_equal(hp_pool_unlink("looked at", NULL), 0);
	keeper_settles(0);
}

static void publishing_for_all(const struct child *me, void *arg)
{
	(void)me;
	(void)arg;
	become(OWNER, OWNER, 0);
	hp_pool *mine = hp_plain_pool(MIB, 0);
	must_be(hp_pool_publish(mine, "it", 0666, NULL), 0);
	must_be(hp_pool_detach(mine), 0);
}

/* A keeper without rights passes on what it has, and says so where that is not enough. */
static void a_keeper_that_is_not_root(void **state)
{
	(void)state;
	need_root();
	keeper_again(&(struct keeper_wish){.uid = MEMBER});
	struct child child = child_start(publishing_for_all, NULL);
	assert_int_equal(child_end(&child), 0);
	hp_pool *got;
	assert_int_equal(open_for("it", true, &got), -ENOTSUP);
	assert_null(got);
	assert_int_equal(open_for("it", false, &got), 0);
	hp_must_be_empty(got);
	hp_pool_detach(got);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

/* ---- hostile clients ---- */

static int connected(void)
{
	int socket = os_unix_socket();
	must(socket >= 0);
	must_be(os_unix_connect(socket, path, 10 * SECOND), 0);
	return socket;
}

/* The status of the answer, or 1: there was none. */
static int status_of(int socket, const void *message, size_t size, const int *fds, unsigned count)
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

static int said_to_keeper(const void *message, size_t size, const int *fds, unsigned count)
{
	int socket = connected();
	int status = status_of(socket, message, size, fds, count);
	close(socket);
	return status;
}

static void rubbish(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("keep");
	const struct keep_request good = {KEEP_MAGIC, KEEP_VERSION, KEEP_ATTACH, 0, 0, "it"};
	struct keep_request r;
	static unsigned char bytes[100000];
	int fds[3];
	hp_pool_fds(pool, fds);
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	keeper_settles(3);
	assert_int_equal(said_to_keeper(&good, sizeof good, NULL, 0), 0);
	/* sizes */
	for (size_t size = 1; size < 200; size++) {
		memset(bytes, 0, sizeof bytes);
		memcpy(bytes, &good, sizeof good);
		assert_int_equal(said_to_keeper(bytes, size, fds, size % 4), size == sizeof good ? 0 : -EPROTO);
	}
	assert_int_equal(said_to_keeper(bytes, sizeof bytes, fds, 3), -EPROTO);
	int socket = connected();
	assert_int_equal(send(socket, "", 0, 0), 0); /* a message of no bytes, which reads like an end */
	assert_int_equal(status_of(socket, NULL, 0, NULL, 0), 1);
	close(socket);
	/* every field */
#define WRONG(error, change) \
	do { \
		r = good; \
		change; \
		assert_int_equal(said_to_keeper(&r, sizeof r, NULL, 0), error); \
	} while (0)
	WRONG(-EPROTO, r.magic++);
	WRONG(-EPROTO, r.version++);
	WRONG(-EPROTO, r.reserved = 1);
	WRONG(-EPROTO, r.what = 0);
	WRONG(-EPROTO, r.what = KEEP_LIST + 1);
	WRONG(-EPROTO, r.what = UINT32_MAX);
	WRONG(-EPROTO, memset(r.name, 'x', sizeof r.name));
	WRONG(-EPROTO, r.what = KEEP_LIST; memset(r.name, 'x', sizeof r.name));
	WRONG(-EPROTO, r.name[0] = 0);
	WRONG(-EPROTO, r.name[1] = '/');
	WRONG(-EPROTO, r.name[1] = '\n');
	WRONG(-ENOENT, r.name[1] = 'x');
	WRONG(-EPROTO, r.what = KEEP_PUBLISH; r.name[0] = 'x'); /* without descriptors */
	for (int i = 0; i < (HP_TEST_SANITIZER ? 200 : 2000); i++) {
		r = good;
		for (uint64_t n = hp_below(&seed, 4) + 1; n; n--)
			((unsigned char *)&r)[hp_below(&seed, sizeof r)] ^= (unsigned char)(1u << hp_below(&seed, 8));
		int status = said_to_keeper(&r, sizeof r, fds, (unsigned)hp_below(&seed, 4));
		if (status == 0 && r.what == KEEP_PUBLISH) hp_pool_unlink(r.name, NULL);
		if (status == 0 && r.what == KEEP_UNLINK) hp_pool_publish(pool, "it", 0600, NULL);
		for (unsigned k = 0; k < 2 * sizeof r; k++) bytes[k] = (unsigned char)hp_random(&seed);
		assert_int_equal(said_to_keeper(bytes, 1 + hp_below(&seed, 2 * sizeof r), NULL, 0), -EPROTO);
	}
	keeper_settles(3);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

static void wrong_descriptors(void **state)
{
	(void)state;
	hp_pool *other = hp_plain_pool(MIB, 0);
	int a[3], b[3], pipes[2], many[16];
	hp_pool_fds(pool, a);
	hp_pool_fds(other, b);
	must_be(pipe(pipes), 0);
	struct keep_request r = {KEEP_MAGIC, KEEP_VERSION, KEEP_PUBLISH, 0600, 0, "it"};
	for (unsigned count = 0; count <= 16; count++) {
		for (unsigned i = 0; i < count; i++) many[i] = a[i % 3];
		if (count != 3) assert_int_equal(said_to_keeper(&r, sizeof r, many, count), -EPROTO);
	}
	int unsealed = memfd_create("hp-keep-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int passing = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	const int wrong[] = {pipes[0], pipes[1], unsealed, file, passing, b[0], b[1], b[2]};
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		for (int place = 0; place < 3; place++) {
			int fds[3] = {a[0], a[1], a[2]};
			fds[place] = wrong[i];
			int status; /* busy: what was sent before is being closed by a thread */
			while ((status = said_to_keeper(&r, sizeof r, fds, 3)) == -EBUSY) sched_yield();
			assert_true(status == -EINVAL || status == -EBADMSG || status == -ENODATA || status == -EBADF);
		}
	}
	const int orders[][3] = {{a[0], a[2], a[1]}, {a[1], a[0], a[2]}, {a[2], a[1], a[0]}, {a[1], a[1], a[2]}};
	for (unsigned i = 0; i < 4; i++) {
		int status;
		while ((status = said_to_keeper(&r, sizeof r, orders[i], 3)) == -EBUSY) sched_yield();
		assert_true(status < 0);
	}
	r.mode = 0700;
	assert_int_equal(said_to_keeper(&r, sizeof r, a, 3), -EINVAL);
	r.mode = 0600;
	keeper_settles(0);
	assert_int_equal(said_to_keeper(&r, sizeof r, a, 3), 0);
	assert_int_equal(said_to_keeper(&r, sizeof r, a, 3), -EEXIST);
	keeper_settles(3);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	for (int i = 0; i < 2; i++) close(pipes[i]);
	close(unsealed);
	close(file);
	close(passing);
	hp_pool_detach(other);
	keeper_settles(0);
}

/* Waits in who closes a foreign descriptor: in a thread of its own, or (what must not be) before the answer is sent. */
static bool closing_waits(enum os_call call, int64_t *result)
{
	(void)result;
	if (call == OS_RECV) control->asked = true;
	if (call == OS_SEND) control->asked = false;
	if (call == OS_CLOSE && control->holding && (control->asked || os_tid() != os_pid())) {
		char byte;
		while (read(control->gate[0], &byte, 1) < 0 && errno == EINTR) {}
	}
	return false;
}

/* A file whose server never answers keeps who closes it waiting; and nobody else. */
static void a_descriptor_that_cannot_be_closed(void **state)
{
	(void)state;
	must_be(pipe2(control->gate, O_CLOEXEC), 0);
	keeper_again(&(struct keeper_wish){.hook = closing_waits});
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fds[3] = {null, null, null};
	struct keep_request r = {KEEP_MAGIC, KEEP_VERSION, KEEP_PUBLISH, 0600, 0, "it"};
	control->holding = true;
	assert_int_equal(said_to_keeper(&r, sizeof r, fds, 3), -EINVAL);
	assert_int_equal(kept_now(), 0);
	for (int i = 0; i < 100; i++) /* of one user one at a time: no more threads than that */
		assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), -EBUSY);
	assert_int_equal(kept_now(), 0);
	keeper_settles(3); /* the connection is over, and they are still there */
	control->holding = false;
	must_be(write(control->gate[1], "x", 1), 1);
	keeper_settles(0);
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
	for (int i = 0; i < 2; i++) close(control->gate[i]);
	close(null);
}

/* One after another until it is enough, by another user than the test's; they stay open. */
static void flooding(const struct child *me, void *arg)
{
	(void)arg;
	become(OTHER, OTHER, 0);
	struct rlimit limit = {.rlim_cur = 4096, .rlim_max = 4096};
	setrlimit(RLIMIT_NOFILE, &limit);
	const struct keep_request list = {KEEP_MAGIC, KEEP_VERSION, KEEP_LIST, 0, 0, ""};
	int open_ones = 0, refused = 0;
	for (; refused < 200 && open_ones < 600; open_ones++) {
		int socket = os_unix_socket();
		if (socket < 0) break;
		must_be(os_unix_connect(socket, path, 10 * SECOND), 0);
		struct pollfd answer = {.fd = socket, .events = POLLIN};
		if (open_ones % 3 == 0) /* some ask, and do not read */
			for (int i = 0; i < 50 && send(socket, &list, sizeof list, MSG_DONTWAIT | MSG_NOSIGNAL) > 0; i++) {}
		if (open_ones >= 64 && poll(&answer, 1, open_ones % 3 ? 0 : 1000) == 1) refused++;
	}
	child_here(me);
}

static void one_user_floods(void **state)
{
	(void)state;
	need_root();
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	for (int turn = 0; turn < 2; turn++) {
		struct child child = child_start(flooding, NULL);
		for (int i = 0; i < 100; i++) { /* meanwhile */
			hp_pool *got;
			assert_int_equal(open_for("it", i % 2, &got), 0);
			hp_pool_detach(got);
		}
		assert_true(child_hear(&child));
		while (files_of_keeper() > idle_files + 3 + 64) sched_yield(); /* it notices who has gone, and has no more */
		for (int i = 0; i < 100; i++) assert_int_equal(kept_now(), 1);
		turn ? child_kill(&child) : child_finish(&child);
		keeper_settles(3);
	}
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

static bool goes_on_when_asked(enum os_call call, int64_t *result)
{
	(void)result;
	if (call != OS_POLL) return false;
	os_hook = NULL;
	must_be(kill(keeper.pid, SIGCONT), 0);
	return false;
}

/* As many as one user may have; then it is said, and over when one goes. */
static void too_many_of_ones_own(void **state)
{
	(void)state;
	int sockets[600], n = 0, refused = 0;
	struct rlimit before, more;
	must_be(getrlimit(RLIMIT_NOFILE, &before), 0);
	more = (struct rlimit){before.rlim_max, before.rlim_max};
	setrlimit(RLIMIT_NOFILE, &more);
	while (n < 600 && !refused) {
		sockets[n++] = connected();
		int error = n < 16 ? 0 : hp_pool_list(NULL, count_kept, &(int){0});
		assert_true(error == 0 || error == -EBUSY);
		refused = error;
	}
	assert_true(refused);
	/* the request is there before it is refused, unread */
	must_be(kill(keeper.pid, SIGSTOP), 0);
	child_await_stop(&keeper);
	os_hook = goes_on_when_asked;
	assert_int_equal(hp_pool_list(NULL, count_kept, &(int){0}), -EBUSY);
	close(sockets[--n]);
	while (hp_pool_list(NULL, count_kept, &(int){0}) == -EBUSY) sched_yield();
	while (n) close(sockets[--n]);
	setrlimit(RLIMIT_NOFILE, &before);
	keeper_settles(0);
}

static void who_never_asks_is_dropped(void **state)
{
	(void)state;
	keeper_again(&(struct keeper_wish){.idle_ns = SECOND / 50});
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	keeper_settles(3);
	const struct keep_request open_it = {KEEP_MAGIC, KEEP_VERSION, KEEP_ATTACH, 0, 0, "it"};
	int unread = connected(), shut = connected(), read_it = connected();
	assert_int_equal(send(unread, &open_it, sizeof open_it, 0), sizeof open_it);
	assert_int_equal(send(shut, &open_it, sizeof open_it, 0), sizeof open_it);
	struct pollfd answered = {.fd = shut, .events = POLLIN};
	assert_int_equal(poll(&answered, 1, -1), 1);
	assert_int_equal(shutdown(shut, SHUT_RDWR), 0);
	assert_int_equal(status_of(read_it, &open_it, sizeof open_it, NULL, 0), 0);
	assert_int_equal(status_of(read_it, NULL, 0, NULL, 0), 1); /* closed by the keeper, some time after it was read */
	for (int i = 0; i < 3; i++) {
		int silent = connected();
		assert_int_equal(status_of(silent, NULL, 0, NULL, 0), 1);
		close(silent);
	}
	/* descriptors in flight are on the keeper's account, so it keeps those in mind */
	keeper_settles(3 + 2);
	assert_int_equal(status_of(unread, NULL, 0, NULL, 0), 0);
	assert_int_equal(status_of(shut, NULL, 0, NULL, 0), 0);
	keeper_settles(3);
	close(unread);
	close(shut);
	close(read_it);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

/* ---- deaths ---- */

static void (*doomed)(void);
static unsigned doomed_at, doomed_calls;

static bool killed_there(enum os_call call, int64_t *result)
{
	(void)call;
	(void)result;
	if (++doomed_calls == doomed_at) kill(getpid(), SIGKILL);
	return false;
}

static void dying(const struct child *me, void *arg)
{
	(void)me;
	(void)arg;
	doomed_calls = 0;
	os_hook = killed_there;
	doomed();
	os_hook = NULL;
}

static void publish_new(void)
{
	must_be(hp_pool_publish(pool, "new", 0600, NULL), 0);
}
static void open_it(void)
{
	hp_pool *got;
	must_be(hp_pool_open("it", NULL, &got), 0);
	must_be(hp_pool_detach(got), 0);
}
static void observe_it(void)
{
	hp_pool *got;
	must_be(open_for("it", true, &got), 0);
	must_be(hp_pool_detach(got), 0);
}
static void unlink_gone(void)
{
	must_be(hp_pool_unlink("gone", NULL), 0);
}
static void list_all(void)
{
	must(kept_now() >= 1);
}

/* A client dies before each of its calls of the kernel: what it asked for is done or not. */
static void clients_die_everywhere(void **state)
{
	(void)state;
	void (*const operations[])(void) = {publish_new, open_it, observe_it, unlink_gone, list_all};
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	for (unsigned o = 0; o < sizeof operations / sizeof *operations; o++) {
		bool done = false, undone = false;
		doomed = operations[o];
		for (doomed_at = 1;; doomed_at++) {
			assert_int_equal(hp_pool_publish(pool, "gone", 0600, NULL), 0);
			struct child child = child_start(dying, NULL);
			int status = child_end(&child);
			int error = hp_pool_unlink("new", NULL);
			assert_true(error == 0 || error == -ENOENT);
			done |= error == 0;
			undone |= error != 0;
			error = hp_pool_unlink("gone", NULL);
			assert_true(error == 0 || (error == -ENOENT && doomed == unlink_gone));
			assert_int_equal(kept_now(), 1);
			keeper_settles(3);
			if (status == 0) break;
			assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		}
		assert_true(doomed_at > 5);
		if (doomed == publish_new) assert_true(done && undone);
		assert_true(hp_pool_recover(pool) >= 0);
		hp_must_be_empty(pool);
	}
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

static bool one_call_fails(enum os_call call, int64_t *result)
{
	if (call == OS_CLOSE || !control->victim || ++control->calls != control->victim) return false;
	*result = call == OS_POLL ? -ENOMEM : control->failure;
	return true;
}

static int all_operations(void)
{
	hp_pool *got;
	int error = hp_pool_publish(pool, "new", 0600, NULL), worst = error;
	if ((error = hp_pool_open("new", NULL, &got)) < 0) worst = error;
	hp_pool_detach(got);
	if ((error = open_for("new", true, &got)) < 0) worst = error;
	hp_pool_detach(got);
	if ((error = hp_pool_list(NULL, count_kept, &(int){0})) < 0) worst = error;
	if ((error = hp_pool_unlink("new", NULL)) < 0) worst = error;
	return worst;
}

/* Whatever the kernel refuses to the keeper: a client hears of it, and that is all. */
static void every_call_of_the_keeper_fails(void **state)
{
	(void)state;
	keeper_again(&(struct keeper_wish){.hook = one_call_fails, .idle_ns = SECOND});
	const int failures[] = {-ENOMEM, -EMFILE};
	for (int f = 0; f < 2; f++) {
		unsigned failed = 0;
		bool met = true;
		for (unsigned victim = 1; met; victim++) {
			control->failure = failures[f];
			control->calls = 0;
			control->victim = victim;
			failed += all_operations() < 0;
			met = control->calls >= victim;
			control->victim = 0;
			hp_pool_unlink("new", NULL);
			keeper_settles(0);
		}
		assert_true(failed > 5);
	}
	assert_int_equal(all_operations(), 0);
}

static unsigned calls_made, call_to_fail;

static bool own_call_fails(enum os_call call, int64_t *result)
{
	if (call == OS_CLOSE || call == OS_UNMAP || ++calls_made != call_to_fail) return false;
	*result = -ENOMEM;
	return true;
}

static void every_call_of_a_client_fails(void **state)
{
	(void)state;
	void (*const operations[])(void) = {publish_new, open_it, observe_it, unlink_gone, list_all};
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_publish(pool, "gone", 0600, NULL), 0);
	for (unsigned o = 0; o < sizeof operations / sizeof *operations; o++) {
		for (call_to_fail = 1;; call_to_fail++) {
			struct held before = held_now();
			hp_pool *got = NULL;
			int error;
			calls_made = 0;
			os_hook = own_call_fails;
			if (o == 0) error = hp_pool_publish(pool, "new", 0600, NULL);
			if (o == 1 || o == 2) error = open_for("it", o == 2, &got);
			if (o == 3) error = hp_pool_unlink("gone", NULL);
			if (o == 4) error = hp_pool_list(NULL, count_kept, &(int){0});
			os_hook = NULL;
			if (got) hp_pool_detach(got);
			if (error < 0) must_hold_no_more(before);
			if (o == 0) hp_pool_unlink("new", NULL);
			if (o == 3) hp_pool_publish(pool, "gone", 0600, NULL);
			if (calls_made < call_to_fail) {
				assert_int_equal(error, 0);
				break;
			}
		}
		assert_true(call_to_fail > 5);
	}
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	assert_int_equal(hp_pool_unlink("gone", NULL), 0);
	keeper_settles(0);
}

static void the_keeper_dies(void **state)
{
	(void)state;
	hp_pool *got, *none;
	void *block;
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_open("it", NULL, &got), 0);
	child_kill(&keeper);
	/* who is attached goes on */
	assert_int_equal(hp_page_alloc(got, 5 * PAGE, 0, &block), 0);
	assert_int_equal(hp_page_free_at(pool, hp_pool_offset(got, block)), 0);
	struct said said = {0};
	struct hp_keep_options options = {.struct_size = sizeof options, .log = said_log, .log_arg = &said};
	struct held before = held_now();
	assert_int_equal(hp_pool_open("it", &options, &none), -ECONNREFUSED);
	assert_non_null(strstr(said.text, "start `hugepool keep`"));
	assert_non_null(strstr(said.text, path));
	assert_int_equal(said.lines, 1);
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), -ECONNREFUSED);
	assert_int_equal(hp_pool_unlink("it", NULL), -ECONNREFUSED);
	assert_int_equal(hp_pool_list(NULL, count_kept, NULL), -ECONNREFUSED);
	must_hold_no_more(before);
	/* its successor takes the path, and begins with nothing */
	keeper_start(NULL);
	assert_int_equal(kept_now(), 0);
	assert_int_equal(hp_pool_publish(got, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_detach(got), 0);
	assert_int_equal(hp_pool_open("it", NULL, &got), 0);
	assert_int_equal(hp_pool_detach(got), 0);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

static void competing(const struct child *me, void *arg)
{
	const struct keep_server_options options = {.socket = arg};
	struct keep_server *server;
	child_here(me);
	int error = keep_server_open(&options, &server);
	if (error == -EADDRINUSE) _exit(42);
	must_be(error, 0);
	child_say(me);
	must_be(keep_server_run(server, me->hears), 0);
	keep_server_close(server);
}

static bool another_takes_its_place(enum os_call call, int64_t *result)
{
	(void)result;
	if (call != OS_BYTE_LOCK) return false;
	os_hook = NULL;
	keeper_again(NULL);
	return false;
}

/* Many begin at once where a dead one has left its path: one has it. */
static void one_keeper_a_path(void **state)
{
	(void)state;
	struct keep_server_options options = {.socket = path};
	struct keep_server *server = (void *)1;
	struct said said = {0};
	options.log = said_log;
	options.log_arg = &said;
	assert_int_equal(keep_server_open(&options, &server), -EADDRINUSE);
	assert_null(server);
	assert_int_equal(kept_now(), 0); /* the first one is as well as before */
	/* one goes and the next comes, between this one's opening of the lock file and its locking it */
	os_hook = another_takes_its_place;
	assert_int_equal(keep_server_open(&options, &server), -EADDRINUSE);
	os_hook = NULL;
	assert_int_equal(kept_now(), 0);
	assert_int_equal(said.lines, 2);
	char other[160];
	snprintf(other, sizeof other, "%s/other", folder);
	must_be(setenv("HUGEPOOL_KEEPER", other, 1), 0);
	for (int turn = 0; turn < (HP_TEST_SANITIZER ? 5 : 25); turn++) {
		struct child children[6];
		for (int i = 0; i < 6; i++) children[i] = child_start(competing, other);
		for (int i = 0; i < 6; i++) assert_true(child_hear(&children[i]));
		for (int i = 0; i < 6; i++) child_say(&children[i]);
		int winner = -1;
		for (int i = 0; i < 6; i++) {
			if (child_hear(&children[i])) {
				assert_int_equal(winner, -1);
				winner = i;
			} else {
				int status = child_end(&children[i]);
				assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
			}
		}
		assert_true(winner >= 0);
		assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
		assert_int_equal(kept_now(), 1);
		if (turn % 2)
			child_finish(&children[winner]);
		else
			child_kill(&children[winner]);
		assert_int_equal(hp_pool_list(NULL, count_kept, NULL), -ECONNREFUSED);
	}
	/* what is no socket stays */
	options.socket = other;
	unlink(other);
	snprintf(said.text, sizeof said.text, "%s.lock", other);
	unlink(said.text);
	int file = open(other, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(file >= 0);
	said.text[0] = 0;
	struct held before = held_now();
	assert_int_equal(keep_server_open(&options, &server), -ENOTSOCK);
	must_hold_no_more(before);
	assert_int_equal(hp_pool_list(NULL, count_kept, NULL), -ECONNREFUSED);
	assert_int_equal(unlink(other), 0);
	close(file);
	options.socket = "/nonexistent/folder/socket";
	assert_int_equal(keep_server_open(&options, &server), -ENOENT);
	must_be(setenv("HUGEPOOL_KEEPER", path, 1), 0);
}

static void racing(const struct child *me, void *arg)
{
	(void)arg;
	hp_pool *mine = hp_plain_pool(MIB, 0);
	child_here(me);
	int error = hp_pool_publish(mine, "one", 0600, NULL);
	must(error == 0 || error == -EEXIST);
	hp_pool_detach(mine);
	_exit(error == 0 ? 1 : 2);
}

static void two_publish_one_name(void **state)
{
	(void)state;
	for (int turn = 0; turn < (HP_TEST_SANITIZER ? 10 : 50); turn++) {
		struct child two[2];
		int sum = 0;
		for (int i = 0; i < 2; i++) two[i] = child_start(racing, NULL);
		for (int i = 0; i < 2; i++) assert_true(child_hear(&two[i]));
		for (int i = 0; i < 2; i++) child_say(&two[i]);
		for (int i = 0; i < 2; i++) sum += WEXITSTATUS(child_end(&two[i]));
		assert_int_equal(sum, 3);
		keeper_settles(3);
		hp_pool *got;
		assert_int_equal(hp_pool_open("one", NULL, &got), 0);
		hp_must_be_empty(got);
		hp_pool_detach(got);
		assert_int_equal(hp_pool_unlink("one", NULL), 0);
	}
	keeper_settles(0);
}

/* ---- keepers that do not answer, or answer wrongly ---- */

static void the_keeper_stands_still(void **state)
{
	(void)state;
	hp_pool *got;
	struct hp_keep_options options = {.struct_size = sizeof options, .timeout_ns = SECOND / 50};
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	keeper_settles(3);
	must_be(kill(keeper.pid, SIGSTOP), 0);
	child_await_stop(&keeper);
	struct held before = held_now();
	assert_int_equal(hp_pool_publish(pool, "late", 0600, &options), -ETIMEDOUT);
	assert_int_equal(hp_pool_unlink("it", &options), -ETIMEDOUT);
	assert_int_equal(hp_pool_open("it", &options, &got), -ETIMEDOUT);
	assert_int_equal(hp_pool_list(&options, count_kept, NULL), -ETIMEDOUT);
	must_hold_no_more(before);
	must_be(kill(keeper.pid, SIGCONT), 0);
	assert_int_equal(kept_now(), 1); /* whose time was up has not got it later */
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

/* Answers each of `n` connections with the same bytes and descriptors; 0 bytes: closes it. */
struct false_answer {
	int listener;
	const void *bytes;
	size_t size;
	const int *fds;
	unsigned count;
};

static void answering(const struct child *me, void *arg)
{
	(void)me;
	const struct false_answer *a = arg;
	int one = accept(a->listener, NULL, NULL);
	must(one >= 0);
	char request[256];
	must(read(one, request, sizeof request) > 0);
	if (a->size) must_be(os_send_fds(one, a->bytes, a->size, a->fds, a->count), a->size);
}

static void answers_of_strangers(void **state)
{
	(void)state;
	char other[160];
	snprintf(other, sizeof other, "%s/other", folder);
	int listener = os_unix_socket(), fds[3], no_fds[4];
	hp_pool_fds(pool, fds);
	assert_int_equal(os_unix_listen(listener, other), 0);
	fcntl(listener, F_SETFL, 0);
	must_be(setenv("HUGEPOOL_KEEPER", other, 1), 0);
	for (int i = 0; i < 4; i++) no_fds[i] = listener;
	const struct keep_answer good = {KEEP_MAGIC, KEEP_VERSION, 0, {0}, 0, 0};
	struct keep_answer magic = good, version = good, above = good, below = good, more = good;
	magic.magic++;
	version.version++;
	above.status = 1;
	below.status = -5000;
	more.entries = KEEP_PAGE + 1;
	struct keep_page page = {.answer = good};
	page.answer.entries = KEEP_PAGE;
	for (unsigned i = 0; i < KEEP_PAGE; i++) strcpy(page.entry[i].name, "again and again");
	const struct {
		struct false_answer answer;
		int error, list_error;
	} cases[] = {
		{{listener, NULL, 0, NULL, 0}, -ECONNRESET, -ECONNRESET},
		{{listener, "x", 1, NULL, 0}, -EPROTO, -EPROTO},
		{{listener, "x", 1, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &magic, sizeof magic, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &version, sizeof version, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &above, sizeof above, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &below, sizeof below, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &good, sizeof good, NULL, 0}, -EPROTO, 0},
		{{listener, &good, sizeof good, fds, 2}, -EPROTO, 0},
		{{listener, &good, sizeof good, no_fds, 4}, -EPROTO, -EPROTO},
		{{listener, &good, sizeof good, no_fds, 3}, -EINVAL, 0},
		{{listener, &good, sizeof good, fds, 3}, -EPROTO, 0}, /* another pool's id */
		{{listener, &more, sizeof more, NULL, 0}, -EPROTO, -EPROTO},
		{{listener, &page, sizeof page, NULL, 0}, -EPROTO, -EPROTO},
		{{listener, &page, sizeof page - 1, NULL, 0}, -EPROTO, -EPROTO},
	};
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		for (int what = 0; what < 2; what++) {
			struct child child = child_start(answering, (void *)&cases[i].answer);
			struct held before = held_now();
			hp_pool *got = NULL;
			int error = what ? hp_pool_list(NULL, count_kept, &(int){0}) : hp_pool_open("it", NULL, &got);
			int wanted = what ? cases[i].list_error : cases[i].error;
			if (error != wanted) fail_msg("case %u, call %d: %d and not %d", i, what, error, wanted);
			assert_null(got);
			must_hold_no_more(before);
			assert_int_equal(child_end(&child), 0);
		}
	}
	/* nobody takes from the queue, and it is full */
	must_be(listen(listener, 0), 0);
	int waiting[4], n = 0, error;
	do {
		waiting[n] = os_unix_socket();
		error = os_unix_connect(waiting[n++], other, SECOND / 100);
	} while (error == 0 && n < 4);
	assert_int_equal(error, -EAGAIN);
	struct hp_keep_options options = {.struct_size = sizeof options, .timeout_ns = SECOND / 50};
	assert_int_equal(hp_pool_list(&options, count_kept, NULL), -ETIMEDOUT);
	while (n) close(waiting[--n]);
	close(listener);
	unlink(other);
	/* a socket of another kind */
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	strcpy(to.sun_path, other);
	int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must_be(bind(stream, (struct sockaddr *)&to, sizeof to), 0);
	must_be(listen(stream, 1), 0);
	assert_int_equal(hp_pool_list(NULL, count_kept, NULL), -EPROTO);
	close(stream);
	unlink(other);
	must_be(setenv("HUGEPOOL_KEEPER", path, 1), 0);
}

/* ---- arguments ---- */

static void arguments(void **state)
{
	(void)state;
	hp_pool *got = pool, *observer, *own;
	char longest[65];
	memset(longest, 'n', sizeof longest);
	longest[63] = 0;
	assert_int_equal(hp_pool_publish(pool, longest, 0600, NULL), 0);
	assert_int_equal(hp_pool_unlink(longest, NULL), 0);
	longest[63] = 'n';
	longest[64] = 0;
	const char *const bad[] = {"", "/", "a/b", "a\nb", "\x7f", longest};
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(hp_pool_publish(pool, bad[i], 0600, NULL), -EINVAL);
		assert_int_equal(hp_pool_open(bad[i], NULL, &got), -EINVAL);
		assert_null(got);
		assert_int_equal(hp_pool_unlink(bad[i], NULL), -EINVAL);
	}
	assert_int_equal(hp_pool_open(NULL, NULL, &got), -EINVAL);
	assert_int_equal(hp_pool_open("it", NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_unlink(NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_list(NULL, NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_publish(NULL, "it", 0600, NULL), -EINVAL);
	assert_int_equal(hp_pool_publish(pool, "it", 0700, NULL), -EINVAL);
	assert_int_equal(hp_pool_publish(pool, "it", 01600, NULL), -EINVAL);
	struct {
		struct hp_keep_options options;
		uint64_t later;
	} newer = {.options = {.struct_size = sizeof newer}, .later = 0};
	assert_int_equal(hp_pool_list(&newer.options, count_kept, &(int){0}), 0);
	newer.later = 1;
	assert_int_equal(hp_pool_list(&newer.options, count_kept, &(int){0}), -EINVAL);
	char far[200];
	memset(far, 'f', sizeof far - 1);
	far[0] = '/';
	far[199] = 0;
	struct said said = {0};
	struct hp_keep_options options = {.struct_size = sizeof options, .socket = far, .log = said_log, .log_arg = &said};
	assert_int_equal(hp_pool_list(&options, count_kept, NULL), -ENAMETOOLONG);
	assert_int_equal(said.lines, 1);
	options.socket = "";
	assert_int_equal(hp_pool_list(&options, count_kept, NULL), -ECONNREFUSED);
	options.socket = path; /* and not what the environment says */
	setenv("HUGEPOOL_KEEPER", "/nonexistent", 1);
	assert_int_equal(hp_pool_publish(pool, NULL, 0600, &options), 0);
	assert_int_equal(hp_pool_unlink(hp_pool_name(pool), &options), 0);
	setenv("HUGEPOOL_KEEPER", path, 1);
	/* pools that cannot be published */
	struct hp_pool_options private = {.struct_size = sizeof private, .size = MIB, .flags = HP_POOL_PRIVATE};
	must_be(hp_pool_create(&private, &own), 0);
	assert_int_equal(hp_pool_publish(own, "it", 0600, NULL), -ENOTSUP);
	hp_pool_detach(own);
	int fds[3];
	hp_pool_fds(pool, fds);
	must_be(hp_pool_observe(fds, &observer), 0);
	assert_int_equal(hp_pool_publish(observer, "it", 0600, NULL), -EROFS);
	hp_pool_detach(observer);
	own = hp_plain_pool(MIB, 0);
	hp_pool_fds(own, fds);
	close(fds[1]);
	assert_int_equal(hp_pool_publish(own, "it", 0600, NULL), -EBADF);
	hp_pool_detach(own);
	assert_int_equal(kept_now(), 0);
}

int main(void)
{
	control = hp_shared(sizeof *control);
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(as_many_names_as_one_likes),
		CASE(a_pool_outlives_its_users),
		CASE(modes_are_those_of_files),
		CASE(looking_cannot_be_made_into_writing),
		CASE(a_keeper_that_is_not_root),
		CASE(rubbish),
		CASE(wrong_descriptors),
		CASE(a_descriptor_that_cannot_be_closed),
		CASE(one_user_floods),
		CASE(too_many_of_ones_own),
		CASE(who_never_asks_is_dropped),
		CASE(clients_die_everywhere),
		CASE(every_call_of_the_keeper_fails),
		CASE(every_call_of_a_client_fails),
		CASE(the_keeper_dies),
		CASE(one_keeper_a_path),
		CASE(two_publish_one_name),
		CASE(the_keeper_stands_still),
		CASE(answers_of_strangers),
		CASE(arguments),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
