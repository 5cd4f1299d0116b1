/* Fork at any time, by any means. A child goes on with the handle it inherits and is a participant of its own; what its
 * parent owned stays the parent's. Would catch a child that goes on writing its parent's bits, locks that stay locked in
 * the child, slots shared by two processes, and a child that takes its parent's liveness along. */
#include "hp_process.h"

#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>

extern char **environ;

static hp_pool *pool;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(8 * MIB, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must(hp_pool_recover(pool) >= 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
	return 0;
}

/* The child's part: everything that a participant can do, with blocks of its own and of its parent. */
static void use_it(void *of_parent, void *of_parents_process)
{
	void *block[40];
	for (int i = 0; i < 40; i++) {
		must_be(hp_page_alloc(pool, (1 + (size_t)i % 5) * PAGE, i & 1 ? HP_PAGE_PROCESS : 0, &block[i]), 0);
		hp_mark(block[i], 1 + (size_t)i % 5, (uint64_t)getpid() + (unsigned)i);
	}
	if (of_parents_process) must_be(hp_page_free(pool, of_parents_process), -EPERM);
	if (of_parent) must_be(hp_page_free(pool, of_parent), 0);
	for (int i = 0; i < 40; i++) {
		must(hp_marked(block[i], 1 + (size_t)i % 5, (uint64_t)getpid() + (unsigned)i));
		must_be(hp_page_free(pool, block[i]), 0);
	}
	hp_must_be_sound(pool);
}

static void a_child_is_a_participant_of_its_own(void **state)
{
	(void)state;
	void *shared, *own;
	must_be(hp_page_alloc(pool, 2 * PAGE, 0, &shared), 0);
	must_be(hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &own), 0);
	hp_mark(own, 1, 1);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		use_it(shared, own);
		must_be(hp_stats(pool).processes, 2);
		pid_t grandchild = fork();
		if (grandchild == 0) {
			use_it(NULL, own);
			must_be(hp_stats(pool).processes, 3);
			must_be(hp_pool_detach(pool), 0);
			_exit(0);
		}
		must_be(hp_wait_for(grandchild), 0);
		must_be(hp_stats(pool).processes, 2);
		use_it(NULL, own);
		_exit(0); /* without detaching: dies */
	}
	assert_int_equal(hp_wait_for(pid), 0);
	assert_int_equal(hp_pool_recover(pool), 1);
	assert_int_equal(hp_stats(pool).processes, 1);
	assert_int_equal(hp_page_size(pool, shared), -EALREADY);
	assert_true(hp_marked(own, 1, 1));
	assert_int_equal(hp_page_free(pool, own), 0);
}

/* The parent's blocks of class PROCESS end with the parent, whatever its children do. */
static void parents(const struct child *me, void *arg)
{
	hp_off *own = arg;
	void *block;
	must_be(hp_page_alloc(pool, 3 * PAGE, HP_PAGE_PROCESS, &block), 0);
	*own = hp_pool_offset(pool, block);
	pid_t pid = fork();
	if (pid > 0) own[1] = (hp_off)pid;
	if (pid == 0) {
		must_be(hp_page_free(pool, block), -EPERM);
		child_say(me);
		for (;;) pause();
	}
	child_here(me);
}

static void blocks_of_the_process_are_the_parents(void **state)
{
	(void)state;
	hp_off *own = hp_shared(4096);
	struct child child = child_start(parents, own);
	assert_true(child_hear(&child));
	assert_true(child_hear(&child));
	assert_int_equal(hp_page_size_at(pool, *own), 3 * PAGE);
	kill(child.pid, SIGKILL);
	child_await_zombie(&child);
	assert_int_equal(hp_pool_recover(pool), 1);
	assert_int_equal(hp_page_size_at(pool, *own), -EALREADY);
	hp_must_be_sound(pool);
	child_end(&child);
	kill((pid_t)own[1], SIGKILL);
	assert_int_equal(hp_wait_for((pid_t)own[1]), 128 + SIGKILL);
	munmap(own, 4096);
}

/* ---- while other threads are at it ---- */

static _Atomic bool over;

static void *allocate_all_the_time(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *block[8] = {0};
	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		unsigned k = (unsigned)hp_below(&random, 8);
		if (block[k]) {
			must(hp_marked(block[k], 1, (uintptr_t)block[k]));
			must_be(hp_page_free(pool, block[k]), 0);
			block[k] = NULL;
		} else {
			size_t pages = hp_below(&random, 16) ? 1 : 1 + hp_below(&random, 80);
			must_be(hp_page_alloc(pool, pages * PAGE, random & 32 ? HP_PAGE_PROCESS : 0, &block[k]), 0);
			hp_mark(block[k], 1, (uintptr_t)block[k]);
		}
		if (hp_below(&random, 500) == 0) must(hp_pool_recover(pool) >= 0);
	}
	for (int k = 0; k < 8; k++) must_be(hp_page_free(pool, block[k]), 0);
	return NULL;
}

/* Registers and leaves all the time: the lock that fork must not find held. */
static void *come_and_go(void *arg)
{
	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		pthread_t thread;
		must_be(pthread_create(&thread, NULL, arg, NULL), 0);
		must_be(pthread_join(thread, NULL), 0);
	}
	return NULL;
}

static void *pair(void *arg)
{
	void *block;
	must_be(hp_page_alloc(pool, PAGE, 0, &block), 0);
	must_be(hp_page_free(pool, block), 0);
	return arg;
}

typedef pid_t fork_fn(void);

static void fork_while_threads_work(fork_fn *fork_it, int rounds)
{
	pthread_t thread[3];
	void *own;
	must_be(hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &own), 0);
	atomic_store(&over, false);
	for (uintptr_t i = 0; i < 2; i++)
		must_be(pthread_create(&thread[i], NULL, allocate_all_the_time, (void *)(i + 1)), 0);
	must_be(pthread_create(&thread[2], NULL, come_and_go, (void *)(uintptr_t)pair), 0);
	for (int i = 0; i < rounds; i++) {
		pid_t pid = fork_it();
		must(pid >= 0);
		if (pid == 0) {
			if (i % 4 == 3) { /* killed in the middle of it */
				for (int k = 0;; k++) {
					void *block;
					if (hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &block) < 0 || k == i) raise(SIGKILL);
				}
			}
			use_it(NULL, own);
			if (i & 1) must_be(hp_pool_detach(pool), 0);
			_exit(0);
		}
		must_be(hp_wait_for(pid), i % 4 == 3 ? 128 + SIGKILL : 0);
	}
	atomic_store(&over, true);
	for (int i = 0; i < 3; i++) must_be(pthread_join(thread[i], NULL), 0);
	must_be(hp_page_free(pool, own), 0);
}

static pid_t plain_fork(void)
{
	return fork();
}

static void while_other_threads_allocate(void **state)
{
	(void)state;
	fork_while_threads_work(plain_fork, HP_TEST_SANITIZER ? 12 : 80);
}

/* Neither runs any fork handler. */
static pid_t bare_fork(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

static void by_the_bare_system_call(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("a fork that the sanitizer does not see");
	fork_while_threads_work(bare_fork, 80);
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 34)
	fork_while_threads_work(_Fork, 80);
#endif
}

/* ---- vfork, exec, spawn ---- */

static void vfork_and_spawn(void **state)
{
	(void)state;
	void *own;
	must_be(hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &own), 0);
	hp_mark(own, 1, 3);
	for (int i = 0; i < 10; i++) {
		char *const argument[] = {"/bin/true", NULL};
		pid_t pid = vfork();
		if (pid == 0) {
			execv(argument[0], argument);
			_exit(127);
		}
		must(pid > 0);
		pair(NULL);
		must_be(hp_wait_for(pid), 0);
		must_be(posix_spawn(&pid, argument[0], NULL, NULL, argument, environ), 0);
		pair(NULL);
		must_be(hp_wait_for(pid), 0);
	}
	assert_int_equal(hp_pool_recover(pool), 0);
	assert_true(hp_marked(own, 1, 3));
	assert_int_equal(hp_page_free(pool, own), 0);
}

/* ---- from a signal handler in the middle of an operation ---- */

static _Atomic int forks, lost, served, harmed;

/* The child may find the pool gone (SIGSEGV), or usable where its parent was not inside; it returns from the handler and
 * goes on with the call that its parent was making, now in its own name, or gets an error. Whatever becomes of it, the
 * parent's pool stays sound. All blocks are of class PROCESS: those of the child go with it, those of the parent it
 * cannot free. */
static _Atomic bool in_child, inside;

static void fork_here(int number)
{
	(void)number;
	if (atomic_load(&in_child) || !atomic_load(&inside)) return;
	int saved = errno;
	pid_t pid = fork();
	if (pid == 0) {
		atomic_store(&in_child, true);
		signal(SIGSEGV, SIG_DFL); /* cmocka catches it */
		alarm(10);
		errno = saved;
		return;
	}
	if (pid > 0) {
		int status;
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
		atomic_fetch_add(&forks, 1);
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV)
			atomic_fetch_add(&lost, 1);
		else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			atomic_fetch_add(&served, 1);
		else
			atomic_fetch_add(&harmed, 1);
	}
	errno = saved;
}

static void go_on_in_the_child(void)
{
	for (int i = 0; i < 20; i++) {
		void *block;
		int error = hp_page_alloc(pool, (1 + (size_t)i) * PAGE, i & HP_PAGE_PROCESS, &block);
		must(error == 0 || error == -ENOMEM);
		must_be(hp_page_free(pool, block), 0);
	}
	must(hp_pool_recover(pool) >= 0);
	_exit(0);
}

static void forked_by_a_signal_handler(void **state)
{
	static void *block[64];
	static size_t pages[64];
	memset(block, 0, sizeof block);
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("sanitizers hold locks that a handler's fork needs");
	forks = lost = served = harmed = 0;
	atomic_store(&in_child, false);
	struct sigaction action = {.sa_handler = fork_here, .sa_flags = SA_RESTART}, old;
	sigaction(SIGPROF, &action, &old);
	struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
	setitimer(ITIMER_PROF, &often, NULL);
	uint64_t random = 5;
	for (unsigned round = 0; atomic_load(&forks) < 150; round++) {
		unsigned k = (unsigned)hp_below(&random, 64);
		int error = 0;
		if (round % 4096 == 0) {
			atomic_store(&inside, true);
			error = hp_pool_recover(pool);
			atomic_store(&inside, false);
		} else if (round % 4096 == 32) {
			atomic_store(&inside, true);
			error = (int)hp_pool_trim(pool, 4 * MIB);
			atomic_store(&inside, false);
		} else if (block[k]) {
			must(hp_marked(block[k], 1, (uintptr_t)block[k]));
			int before = atomic_load(&forks);
			atomic_store(&inside, true);
			error = hp_page_free(pool, block[k]);
			atomic_store(&inside, false);
			/* the child may have been first with what both were about to do */
			if (error == -EALREADY && atomic_load(&forks) != before) error = 0;
			block[k] = NULL;
		} else {
			pages[k] = 1 + hp_below(&random, 3) * 30;
			atomic_store(&inside, true);
			error = hp_page_alloc(pool, pages[k] * PAGE, HP_PAGE_PROCESS, &block[k]);
			atomic_store(&inside, false);
			if (error == 0) hp_mark(block[k], 1, (uintptr_t)block[k]);
			if (error == -ENOMEM) error = 0;
		}
		if (!atomic_load(&in_child)) must_be(error < 0 ? error : 0, 0);
		if (atomic_load(&in_child)) go_on_in_the_child();
	}
	setitimer(ITIMER_PROF, &never, NULL);
	sigaction(SIGPROF, &old, NULL);
	print_message("%d forks: %d children lost the pool, %d went on, %d came to harm\n", forks, lost, served, harmed);
	for (int k = 0; k < 64; k++) {
		if (!block[k]) continue;
		must(hp_marked(block[k], 1, (uintptr_t)block[k]));
		must_be(hp_page_size(pool, block[k]), pages[k] * PAGE);
		must_be(hp_page_free(pool, block[k]), 0);
	}
	must(hp_pool_recover(pool) >= 0);
	hp_must_be_sound(pool);
	assert_int_equal(hp_stats(pool).live_blocks, 0);
	assert_int_equal(harmed, 0);
	uint64_t missing = 8 * MIB - hp_stats(pool).committed;
	if (missing) assert_int_equal(hp_pool_grow(pool, missing, NULL, NULL), 0);
}

int main(void)
{
	must_be(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* children of the killed can be waited for */
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(a_child_is_a_participant_of_its_own),
		CASE(blocks_of_the_process_are_the_parents),
		CASE(while_other_threads_allocate),
		CASE(by_the_bare_system_call),
		CASE(vfork_and_spawn),
		CASE(forked_by_a_signal_handler),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
