/* Who is dead, and who is not: each way of ending is a test (see hp_scene.h for what must follow). Would catch the signs
 * that lie: kill(pid, 0) about zombies, POSIX locks after close(dup(fd)), locks that a forked child keeps, pids that come
 * again, descriptors whose numbers now belong to others. */
#include "hp_scene.h"

#include <linux/sched.h>
#include <pool/layout.h>
#include <pool/pool.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>

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
		cmocka_unit_test(a_pool_full_of_the_half_recovered),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
