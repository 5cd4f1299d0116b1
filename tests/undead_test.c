/* Who only looks dead, or only looks alive: stopped, dumping core, without its first thread, under another uid; and that
 * nobody is recovered too early, by anybody, at any time. Would catch a false "dead", which makes two owners. */
#include "hp_scene.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

/* ---- neither here nor there ---- */

static void stopped(void **state)
{
	(void)state;
	struct child child = victim(living, NULL);
	kill(child.pid, SIGSTOP);
	child_await_stop(&child);
	is_alive();
	/* nobody waits for it: all but what it holds can be had */
	pool_must_work(scene.pool, 4 * MIB);
	kill(child.pid, SIGCONT);
	child_finish(&child);
	child = victim(living, NULL);
	kill(child.pid, SIGSTOP);
	child_await_stop(&child);
	child_kill(&child);
	is_dead();
}

static bool status_says(pid_t pid, const char *line)
{
	char path[64], text[4096];
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return false;
	ssize_t got = read(fd, text, sizeof text - 1);
	close(fd);
	if (got < 0) return false;
	text[got] = 0;
	return strstr(text, line) != NULL;
}

#define CORE_BYTES (128 * MIB)

static void dumping_core(const struct child *me, void *arg)
{
	hold(&scene.of[1]);
	must_be(chdir(arg), 0);
	struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
	scene.of[1].result = setrlimit(RLIMIT_CORE, &all);
	char *large = mmap(NULL, CORE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(large != MAP_FAILED);
	memset(large, 1, CORE_BYTES);
	signal(SIGABRT, SIG_DFL);
	child_here(me);
	abort();
}

static void while_it_dumps_core(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("sanitizers see to it that no core is dumped");
	char folder[] = "/tmp/hp-liveness-XXXXXX", command[64];
	assert_non_null(mkdtemp(folder));
	struct child child = victim(dumping_core, folder);
	is_alive();
	child_say(&child);
	bool seen = false;
	siginfo_t info;
	for (;;) {
		info.si_pid = 0;
		assert_int_equal(waitid(P_PID, (id_t)child.pid, &info, WEXITED | WNOWAIT | WNOHANG), 0);
		if (info.si_pid) break;
		if (!status_says(child.pid, "CoreDumping:\t1")) continue;
		int found = hp_pool_recover(scene.pool);
		bool still = status_says(child.pid, "CoreDumping:\t1");
		if (!still) {
			/* it may have died between the two looks: then the answer says nothing */
			if (found) scene.of[1].result = 77;
			break;
		}
		seen = true;
		assert_int_equal(found, 0);
		still_holds(&scene.of[1]);
	}
	child_await_zombie(&child);
	if (scene.of[1].result == 77)
		hp_page_free_at(scene.pool, scene.of[1].kept);
	else
		is_dead();
	child_end(&child);
	snprintf(command, sizeof command, "rm -rf %s", folder);
	assert_int_equal(system(command), 0);
	if (!seen) hp_test_skip_one("no core was dumped here, or too quickly to see it");
}

static void *outliving(void *arg)
{
	const struct child *me = arg;
	/* the leader is gone when its entry in /proc says so */
	while (!status_says(getpid(), "State:\tZ")) sched_yield();
	void *block;
	must_be(hp_page_alloc(scene.pool, PAGE, 0, &block), 0);
	must_be(hp_page_free(scene.pool, block), 0);
	child_here(me);
	let_go(&scene.of[1]);
	must_be(hp_pool_recover(scene.pool), 0);
	_exit(0);
}

static void leader_leaving(const struct child *me, void *arg)
{
	(void)arg;
	static struct child copy;
	copy = *me;
	hold(&scene.of[1]);
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, outliving, &copy), 0);
	pthread_exit(NULL);
}

static void leader_thread_gone_others_live(void **state)
{
	(void)state;
	struct child child = victim(leader_leaving, NULL);
	is_alive();
	child_finish(&child);
	assert_int_equal(hp_pool_recover(scene.pool), 1);

	child = victim(leader_leaving, NULL);
	is_alive();
	child_kill(&child);
	is_dead();
}

#define NOBODY 65534

static void changing_uid(const struct child *me, void *arg)
{
	bool before_it_takes_part = arg != NULL;
	if (!before_it_takes_part) hold(&scene.of[1]);
	must_be(setgid(NOBODY), 0);
	must_be(setuid(NOBODY), 0);
	if (before_it_takes_part) hold(&scene.of[1]);
	must_be(hp_pool_recover(scene.pool), 0);
	child_here(me);
	must_be(hp_pool_recover(scene.pool), 1); /* it can tell, too */
	pid_t pid = fork();                      /* and its children can take part */
	if (pid == 0) {
		void *block;
		must_be(hp_page_alloc(scene.pool, PAGE, HP_PAGE_PROCESS, &block), 0);
		_exit(0);
	}
	must_be(hp_wait_for(pid), 0);
	must_be(hp_pool_recover(scene.pool), 1);
	child_here(me);
	for (;;) pause();
}

static void changed_its_uid(void **state)
{
	(void)state;
	if (getuid() != 0) hp_test_skip_one("only root can change its uid");
	for (int before = 0; before < 2; before++) {
		struct child child = victim(changing_uid, before ? "" : NULL);
		is_alive();
		struct child other = victim(living_elsewhere, NULL);
		child_kill(&other);
		child_say(&child);
		assert_true(child_hear(&child));
		assert_int_equal(hp_page_free_at(scene.pool, scene.of[2].kept), 0);
		is_alive();
		child_kill(&child);
		is_dead();
	}
}

/* ---- not a store after death ---- */

static void *storing(void *arg)
{
	volatile uint64_t *word = arg;
	for (;;) ++*word;
	return NULL;
}

static void storing_for_ever(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[1]);
	pthread_t thread;
	for (int i = 0; i < 2; i++)
		must_be(
			pthread_create(&thread, NULL, storing, (char *)hp_pool_pointer(scene.pool, scene.of[1].own) + 64 + i * 64),
			0);
	child_here(me);
	for (;;) pause();
}

/* Found dead without any other sign: from then on its threads store nothing. */
static void the_dead_store_no_more(void **state)
{
	(void)state;
	for (int round = 0; round < (HP_TEST_SANITIZER ? 10 : 60); round++) {
		struct child child = victim(storing_for_ever, NULL);
		volatile uint64_t *word = (uint64_t *)((char *)hp_pool_pointer(scene.pool, scene.of[1].own) + 64);
		kill(child.pid, SIGKILL);
		int found;
		while ((found = hp_pool_recover(scene.pool)) == 0) {}
		assert_int_equal(found, 1);
		uint64_t one = word[0], two = word[8];
		sched_yield();
		for (volatile int i = 0; i < 20000; i++) {}
		assert_int_equal(word[0], one);
		assert_int_equal(word[8], two);
		assert_int_equal(hp_page_free_at(scene.pool, scene.of[1].kept), 0);
		child_end(&child);
	}
}

/* ---- everybody at once ---- */

static void coming_and_going(const struct child *me, void *arg)
{
	uint64_t random = (uint64_t)(uintptr_t)arg * 77 + 1;
	int fds[3];
	hp_pool_fds(scene.pool, fds);
	child_here(me);
	for (int round = 0; round < (HP_TEST_SANITIZER ? 20 : 150); round++) {
		hp_pool *pool;
		must_be(hp_pool_attach(fds, NULL, &pool), 0);
		void *block;
		must_be(hp_page_alloc(pool, 2 * PAGE, HP_PAGE_PROCESS, &block), 0);
		hp_mark(block, 2, random);
		must(hp_pool_recover(pool) >= 0);
		if (hp_below(&random, 3) == 0) {
			pid_t pid = fork();
			must(pid >= 0);
			if (pid == 0) {
				void *more;
				must_be(hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &more), 0);
				raise(SIGKILL);
			}
			must_be(hp_wait_for(pid), 128 + SIGKILL);
		}
		must_be(hp_page_size(pool, block), 2 * PAGE);
		hp_mark(block, 2, random); /* still ours: whoever got it too would see this */
		must_be(hp_page_free(pool, block), 0);
		must_be(hp_pool_detach(pool), 0);
	}
}

static void nobody_alive_is_ever_recovered(void **state)
{
	(void)state;
	struct child child[3];
	uint64_t recovered = hp_stats(scene.pool).recovered;
	for (uintptr_t i = 0; i < 3; i++) child[i] = victim(coming_and_going, (void *)(i + 1));
	for (int i = 0; i < 3; i++) child_say(&child[i]);
	for (int i = 0; i < 3; i++) assert_int_equal(child_end(&child[i]), 0);
	assert_true(hp_pool_recover(scene.pool) >= 0);
	hp_must_be_sound(scene.pool);
	assert_true(hp_stats(scene.pool).recovered > recovered);
	assert_int_equal(hp_stats(scene.pool).processes, 2);
}

int main(void)
{
	must_be(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* children of the killed can be waited for */
#define ROW(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		ROW(stopped),         ROW(while_it_dumps_core),    ROW(leader_thread_gone_others_live),
		ROW(changed_its_uid), ROW(the_dead_store_no_more), ROW(nobody_alive_is_ever_recovered),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
