/* Who is dead, and who is not: each way of ending, and of looking as if, is a test. After a real death a survivor's
 * hp_pool_recover recovers exactly that one: its memory of class PROCESS is free, class POOL stays, and a bystander is
 * unharmed. Would catch the signs that lie: kill(pid, 0) about zombies, POSIX locks after close(dup(fd)), locks that a
 * forked child keeps, pids that come again, descriptors whose numbers now belong to others. */
#include "hp_process.h"

#include <linux/sched.h>
#include <pool/layout.h>
#include <pool/pool.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define KEPT_PAGES 5
#define OWN_PAGES 3

/* What one participant holds, told to all. */
struct holding {
	hp_off kept, own; /* class POOL, class PROCESS */
	pid_t pid;
	int result;
};

static struct {
	hp_pool *pool;
	struct holding *of; /* shared: 0 is the bystander's, 1 the victim's */
	struct child bystander;
} scene;

static void hold(struct holding *of)
{
	void *block;
	must_be(hp_page_alloc(scene.pool, KEPT_PAGES * PAGE, 0, &block), 0);
	hp_mark(block, KEPT_PAGES, (uint64_t)(of - scene.of) + 100);
	of->kept = hp_pool_offset(scene.pool, block);
	must_be(hp_page_alloc(scene.pool, OWN_PAGES * PAGE, HP_PAGE_PROCESS, &block), 0);
	hp_mark(block, OWN_PAGES, (uint64_t)(of - scene.of) + 200);
	of->own = hp_pool_offset(scene.pool, block);
}

static void still_holds(const struct holding *of)
{
	must(hp_marked(hp_pool_pointer(scene.pool, of->kept), KEPT_PAGES, (uint64_t)(of - scene.of) + 100));
	must(hp_marked(hp_pool_pointer(scene.pool, of->own), OWN_PAGES, (uint64_t)(of - scene.of) + 200));
	must_be(hp_page_size_at(scene.pool, of->kept), KEPT_PAGES * PAGE);
	must_be(hp_page_size_at(scene.pool, of->own), OWN_PAGES * PAGE);
}

static void let_go(const struct holding *of)
{
	still_holds(of);
	must_be(hp_page_free_at(scene.pool, of->kept), 0);
	must_be(hp_page_free_at(scene.pool, of->own), 0);
}

static void bystanding(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[0]);
	child_here(me);
	let_go(&scene.of[0]);
	pool_must_work(scene.pool, MIB);
	must_be(hp_pool_detach(scene.pool), 0);
}

static int set_up(void **state)
{
	(void)state;
	scene.pool = hp_plain_pool(8 * MIB, 0);
	scene.of = hp_shared(4096);
	scene.bystander = child_start(bystanding, NULL);
	must(child_hear(&scene.bystander));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	still_holds(&scene.of[0]);
	child_finish(&scene.bystander);
	hp_must_be_empty(scene.pool);
	must_be(hp_pool_detach(scene.pool), 0);
	munmap(scene.of, 4096);
	return 0;
}

/* ---- the two verdicts ---- */

static void is_alive(void)
{
	uint64_t recovered = hp_stats(scene.pool).recovered;
	must_be(hp_pool_recover(scene.pool), 0);
	must_be(hp_stats(scene.pool).recovered, recovered);
	still_holds(&scene.of[1]);
	must_be(hp_page_free_at(scene.pool, scene.of[1].own), -EPERM);
	hp_must_be_sound(scene.pool);
}

static void is_dead(void)
{
	uint64_t recovered = hp_stats(scene.pool).recovered, blocks = hp_stats(scene.pool).live_blocks;
	must_be(hp_pool_recover(scene.pool), 1);
	must_be(hp_stats(scene.pool).recovered, recovered + 1);
	must_be(hp_stats(scene.pool).live_blocks, blocks - 1);
	must(hp_page_size_at(scene.pool, scene.of[1].own) < 0);
	must_be(hp_page_size_at(scene.pool, scene.of[1].kept), KEPT_PAGES * PAGE);
	must(hp_marked(hp_pool_pointer(scene.pool, scene.of[1].kept), KEPT_PAGES, 101));
	must_be(hp_page_free_at(scene.pool, scene.of[1].kept), 0);
	must_be(hp_pool_recover(scene.pool), 0);
	hp_must_be_sound(scene.pool);
}

/* ---- ways to live ---- */

static void living(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[1]);
	child_here(me);
	let_go(&scene.of[1]);
	must_be(hp_pool_detach(scene.pool), 0);
}

static struct child victim(void (*run)(const struct child *me, void *arg), void *arg)
{
	struct child child = child_start(run, arg);
	assert_true(child_hear(&child));
	return child;
}

static void killed_then_a_zombie(void **state)
{
	(void)state;
	struct child child = victim(living, NULL);
	is_alive();
	kill(child.pid, SIGKILL);
	child_await_zombie(&child);
	assert_int_equal(kill(child.pid, 0), 0); /* as this one lies */
	is_dead();
	child_end(&child);
}

static void killed_and_reaped(void **state)
{
	(void)state;
	struct child child = victim(living, NULL);
	child_kill(&child);
	is_dead();
}

static void detached(void **state)
{
	(void)state;
	struct child child = victim(living, NULL);
	child_finish(&child);
	uint64_t recovered = hp_stats(scene.pool).recovered;
	assert_int_equal(hp_pool_recover(scene.pool), 0);
	assert_int_equal(hp_stats(scene.pool).recovered, recovered);
}

static void ending(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[1]);
	child_here(me);
	_exit(0);
}

static void ended_without_detaching(void **state)
{
	(void)state;
	struct child child = victim(ending, NULL);
	child_finish(&child);
	is_dead();
}

/* The victim forks; its child may use the pool itself, which makes it another participant. */
static void forking(const struct child *me, void *arg)
{
	bool child_uses_it = arg != NULL;
	hold(&scene.of[1]);
	pid_t pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		if (child_uses_it) hold(&scene.of[2]);
		child_say(me);
		for (;;) pause();
	}
	scene.of[2].pid = pid;
	child_here(me);
	for (;;) pause();
}

static void killed_while_its_child_lives(void **state)
{
	(void)state;
	for (int uses = 0; uses < 2; uses++) {
		struct child child = victim(forking, uses ? "" : NULL);
		assert_true(child_hear(&child));
		is_alive();
		kill(child.pid, SIGKILL);
		child_await_zombie(&child);
		is_dead();
		if (uses) still_holds(&scene.of[2]);
		child_end(&child);
		kill(scene.of[2].pid, SIGKILL);
		assert_int_equal(hp_wait_for(scene.of[2].pid), 128 + SIGKILL);
		if (uses) {
			assert_int_equal(hp_pool_recover(scene.pool), 1);
			assert_int_equal(hp_page_free_at(scene.pool, scene.of[2].kept), 0);
		}
	}
}

/* ---- exec ---- */

static void executing(const struct child *me, void *arg)
{
	hold(&scene.of[1]);
	if (arg) { /* with a child that goes on living */
		pid_t pid = fork();
		must(pid >= 0);
		if (pid == 0)
			for (;;) pause();
		scene.of[2].pid = pid;
	}
	child_here(me);
	char says[16], hears[16];
	snprintf(says, sizeof says, "%d", me->says);
	snprintf(hears, sizeof hears, "%d", me->hears);
	fcntl(me->says, F_SETFD, 0);
	fcntl(me->hears, F_SETFD, 0);
	execl("/proc/self/exe", "liveness", "after-exec", says, hears, (char *)NULL);
	_exit(1);
}

static int after_exec(char **argument)
{
	struct child me = {.says = atoi(argument[2]), .hears = atoi(argument[3])};
	child_here(&me);
	return 0;
}

static void replaced_by_exec(void **state)
{
	(void)state;
	for (int forks = 0; forks < 2; forks++) {
		struct child child = victim(executing, forks ? "" : NULL);
		is_alive();
		child_say(&child);
		assert_true(child_hear(&child)); /* the new program runs: same pid, same start time, no pool */
		is_dead();
		child_finish(&child);
		if (forks) {
			kill(scene.of[2].pid, SIGKILL);
			assert_int_equal(hp_wait_for(scene.of[2].pid), 128 + SIGKILL);
		}
	}
}

/* ---- descriptors ---- */

static void duplicating(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[1]);
	int fds[3];
	hp_pool_fds(scene.pool, fds);
	for (int i = 0; i < 3; i++) must_be(close(dup(fds[i])), 0);
	int again = open("/proc/self/fd/0", O_RDONLY);
	if (again >= 0) close(again);
	must_be(hp_pool_recover(scene.pool), 0);
	child_here(me);
	let_go(&scene.of[1]);
	must_be(hp_pool_detach(scene.pool), 0);
}

static void closed_a_duplicate(void **state)
{
	(void)state;
	struct child child = victim(duplicating, NULL);
	is_alive();
	child_finish(&child);
}

/* All descriptors closed, then their numbers in use for files of the application. */
static void closing_all(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[1]);
	must_be(hp_pool_export_env(scene.pool, NULL), 0);
	dup2(me->hears, 0);
	dup2(me->says, 1);
	struct child std = {.says = 1, .hears = 0};
	must_be(syscall(SYS_close_range, 3u, ~0u, 0u), 0);
	child_here(&std);
	/* a third one is dead by now: whoever cannot tell must not say so */
	must(hp_pool_recover(scene.pool) < 0);
	for (int i = 3; i < 40; i++) must_be(memfd_create("application", 0), i);
	for (int i = 3; i < 40; i++) must_be(ftruncate(i, 16 * MIB), 0);
	for (int i = 3; i < 40; i++) must_be(pwrite(i, "mine", 4, 7 * MIB), 4);
	must(hp_pool_recover(scene.pool) < 0);
	must(hp_pool_send(scene.pool, 1) < 0);
	child_here(&std);
	/* it goes on using the pool: growing, giving memory back, leaving; the files of the application are not touched */
	must_be(hp_pool_grow(scene.pool, 8 * MIB, NULL, NULL), -ENOSPC);
	must(hp_pool_trim(scene.pool, 0) >= 0);
	hp_pool_grow(scene.pool, 2 * MIB, NULL, NULL);
	let_go(&scene.of[1]);
	must_be(hp_pool_detach(scene.pool), 0);
	for (int i = 3; i < 40; i++) {
		char text[4];
		must_be(pread(i, text, 4, 7 * MIB), 4);
		must(memcmp(text, "mine", 4) == 0);
	}
}

static void closed_every_descriptor(void **state)
{
	(void)state;
	struct child child = victim(closing_all, NULL);
	struct holding of = scene.of[1];
	struct child third = victim(living, NULL); /* tells what it holds under the same heading */
	struct holding of_third = scene.of[1];
	child_kill(&third);
	uint64_t recovered = hp_stats(scene.pool).recovered;
	child_say(&child);
	assert_true(child_hear(&child));
	assert_int_equal(hp_stats(scene.pool).recovered, recovered);
	scene.of[1] = of_third;
	is_dead(); /* the third; had the closed one been taken for dead, there would be two */
	scene.of[1] = of;
	child_finish(&child);
	uint64_t committed = hp_stats(scene.pool).committed;
	if (committed < 8 * MIB) assert_int_equal(hp_pool_grow(scene.pool, 8 * MIB - committed, NULL, NULL), 0);
	data_must_be_exact(scene.pool);
}

/* ---- pids ---- */

static pid_t clone_with_pid(pid_t pid)
{
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1};
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static void pid_used_again(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("a process made by the bare system call is not for sanitizers");
	for (int uses = 0; uses < 2; uses++) {
		struct child child = victim(living, NULL);
		struct holding of = scene.of[1];
		pid_t pid = child.pid;
		child_kill(&child);
		int pipes[2];
		assert_int_equal(pipe(pipes), 0);
		pid_t again = clone_with_pid(pid);
		if (again == 0) {
			if (uses) hold(&scene.of[2]);
			must_be(write(pipes[1], "x", 1), 1);
			for (;;) pause();
		}
		int error = errno;
		close(pipes[1]);
		if (again < 0) {
			close(pipes[0]);
			is_dead();
			hp_test_skip_one("a process with a given pid cannot be made here: %s", strerror(error));
		}
		assert_int_equal(again, pid);
		char byte;
		assert_int_equal(read(pipes[0], &byte, 1), 1);
		scene.of[1] = of;
		is_dead();
		if (uses) still_holds(&scene.of[2]);
		kill(again, SIGKILL);
		assert_int_equal(waitpid(again, NULL, 0), again);
		close(pipes[0]);
		if (uses) {
			assert_int_equal(hp_pool_recover(scene.pool), 1);
			assert_int_equal(hp_page_free_at(scene.pool, scene.of[2].kept), 0);
		}
	}
}

static void in_another_pid_namespace(const struct child *me, void *arg)
{
	(void)arg;
	if (unshare(CLONE_NEWPID) < 0) {
		scene.of[1].result = -errno;
		child_here(me);
		_exit(0);
	}
	scene.of[1].result = 0;
	pid_t pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		must_be(getpid(), 1);
		hold(&scene.of[1]);
		child_here(me); /* somebody outside is killed meanwhile: it can tell from in here */
		must_be(hp_pool_recover(scene.pool), 1);
		child_here(me);
		for (;;) pause();
	}
	scene.of[3].pid = pid; /* as seen from out here */
	waitpid(pid, NULL, 0);
	_exit(0);
}

static void living_elsewhere(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[2]);
	child_here(me);
}

static void pids_of_other_namespaces(void **state)
{
	(void)state;
	struct child child = victim(in_another_pid_namespace, NULL);
	if (scene.of[1].result < 0) {
		child_finish(&child);
		hp_test_skip_one("no pid namespaces here: %s", strerror(-scene.of[1].result));
	}
	is_alive();
	struct child other = victim(living_elsewhere, NULL);
	child_kill(&other);
	child_say(&child);
	assert_true(child_hear(&child));
	assert_int_equal(hp_page_free_at(scene.pool, scene.of[2].kept), 0);
	is_alive();
	assert_int_equal(kill(scene.of[3].pid, SIGKILL), 0);
	assert_int_equal(child_end(&child), 0); /* its parent has reaped it */
	is_dead();
}

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

/* ---- records ---- */

/* Makes a pool with room for one process, hands it to the test, and dies while it leaves. */
static void dying_while_leaving(const struct child *me, void *arg)
{
	struct hp_pool_options options = hp_plain_options(MIB);
	options.max_processes = 1;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	must_be(hp_pool_send(pool, *(int *)arg), 0);
	void *block;
	must_be(hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &block), 0);
	atomic_store(&pool->records[pool->record].word,
	             record_make(RECORD_RECOVERING, pool->record_generation, pool->record + 1, pool->record_generation));
	child_here(me);
}

static void a_pool_full_of_the_half_recovered(void **state)
{
	(void)state;
	int sockets[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	struct child child = victim(dying_while_leaving, &sockets[1]);
	hp_pool *pool;
	child_kill(&child);
	assert_int_equal(hp_pool_receive(sockets[0], NULL, &pool), 0);
	hp_must_be_empty(pool);
	pool_must_work(pool, MIB);
	hp_pool_detach(pool);
	close(sockets[0]);
	close(sockets[1]);
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "after-exec") == 0) return after_exec(argv);
#define ROW(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	must_be(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* children of the killed can be waited for */
	const struct CMUnitTest tests[] = {
		ROW(killed_then_a_zombie),
		ROW(killed_and_reaped),
		ROW(detached),
		ROW(ended_without_detaching),
		ROW(killed_while_its_child_lives),
		ROW(replaced_by_exec),
		ROW(closed_a_duplicate),
		ROW(closed_every_descriptor),
		ROW(pid_used_again),
		ROW(pids_of_other_namespaces),
		ROW(stopped),
		ROW(while_it_dumps_core),
		ROW(leader_thread_gone_others_live),
		ROW(changed_its_uid),
		ROW(the_dead_store_no_more),
		ROW(nobody_alive_is_ever_recovered),
		cmocka_unit_test(a_pool_full_of_the_half_recovered),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
