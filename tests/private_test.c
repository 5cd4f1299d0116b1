/* Private pools: a process' own memory, and what a forked child finds of it.
 *
 * Catches: a child that loses its thread's slot or shares it with somebody, memory that threads which did not come along
 * keep for ever, a lock that one of them held, a copy that is not the child's own, memory that stays after a trim, and
 * a descriptor where there should be none. */
#include "hp_process.h"

#include <hugepool/malloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "os/os.h"
#include "pool/recover.h"

static hp_pool *pool;

static struct hp_pool_options private_options(uint64_t size, uint64_t capacity, hp_prefault prefault)
{
	return (struct hp_pool_options){.struct_size = sizeof(struct hp_pool_options),
	                                .size = size,
	                                .capacity = capacity,
	                                .prefault = prefault,
	                                .flags = HP_POOL_PRIVATE};
}

static hp_pool *private_pool(uint64_t size, uint64_t capacity, hp_prefault prefault)
{
	struct hp_pool_options options = private_options(size, capacity, prefault);
	hp_pool *made;
	must_be(hp_pool_create(&options, &made), 0);
	return made;
}

static int set_up(void **state)
{
	(void)state;
	pool = private_pool(16 * MIB, 256 * MIB, HP_PREFAULT_LAZY);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must_be(hp_pool_detach(pool), 0);
	return 0;
}

/* Pages and blocks of many sizes, marked, looked at, freed. */
static void use_it(void)
{
	enum { MANY = 100 };
	void *block[MANY];
	for (unsigned i = 0; i < MANY; i++) {
		if (i % 2) {
			must_be(hp_page_alloc(pool, (1 + i) * PAGE, 0, &block[i]), 0);
			hp_mark(block[i], 1 + i, i);
		} else {
			must(block[i] = hp_malloc(pool, 1 + i * 70));
			memset(block[i], (int)i, 1 + i * 70);
		}
	}
	for (unsigned i = 0; i < MANY; i++) {
		if (i % 2) must(hp_marked(block[i], 1 + i, i));
		for (unsigned k = 0; !(i % 2) && k < 1 + i * 70; k++) must(((unsigned char *)block[i])[k] == i);
		must_be(i % 2 ? hp_page_free(pool, block[i]) : hp_free(pool, block[i]), 0);
	}
}

static void is_used_like_any_pool(void **state)
{
	(void)state;
	use_it();
	assert_int_equal(hp_pool_recover(pool), 0);
	hp_must_be_sound(pool);
	struct hp_pool_stats stats = hp_stats(pool);
	assert_int_equal(stats.processes, 1);
	assert_int_equal(stats.capacity, 256 * MIB);
}

static void has_no_descriptors(void **state)
{
	(void)state;
	struct held before = held_now();
	hp_pool *another = private_pool(16 * MIB, 64 * MIB, HP_PREFAULT_NOW);
	assert_int_equal(held_now().files, before.files);
	int fds[3];
	assert_int_equal(hp_pool_fds(another, fds), -ENOTSUP);
	assert_int_equal(hp_pool_send(another, 0), -ENOTSUP);
	assert_int_equal(hp_pool_export_env(another, NULL), -ENOTSUP);
	assert_int_equal(hp_pool_detach(another), 0);
	struct held after = held_now();
	assert_int_equal(after.files, before.files);
	assert_int_equal(after.address_space, before.address_space);
}

static uint64_t resident(void)
{
	unsigned long long size, pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	must(file && fscanf(file, "%llu %llu", &size, &pages) == 2);
	fclose(file);
	return pages * PAGE;
}

static void capacity_costs_nothing_until_it_is_used(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("a sanitizer's own memory counts as well");
	uint64_t before = resident();
	hp_pool *large = private_pool(64 * MIB, UINT64_C(1) << 38, HP_PREFAULT_LAZY);
	uint64_t made = resident();
	assert_true(made - before < 2 * MIB);
	void *block;
	assert_int_equal(hp_page_alloc(large, 512 * MIB, 0, &block), 0); /* grows */
	assert_true(resident() - before < 8 * MIB);
	memset(block, 1, 64 * MIB);
	assert_true(resident() - before >= 64 * MIB);
	assert_int_equal(hp_page_free(large, block), 0);
	assert_true(hp_pool_trim(large, 0) > 0);
	assert_true(resident() - before < 16 * MIB);
	assert_int_equal(hp_page_alloc(large, 512 * MIB, 0, &block), 0);
	assert_int_equal(*(volatile char *)block, 0); /* what came back is not what went */
	hp_must_be_sound(large);
	assert_int_equal(hp_pool_detach(large), 0);
}

static void grows_to_its_capacity_and_no_further(void **state)
{
	(void)state;
	void *block;
	assert_int_equal(hp_page_alloc(pool, 257 * MIB, 0, &block), -ENOMEM);
	assert_int_equal(hp_page_alloc(pool, 256 * MIB, 0, &block), 0);
	assert_int_equal(hp_page_free(pool, block), 0);
	hp_must_be_empty(pool);
	assert_int_equal(hp_pool_trim(pool, 0), 256 * MIB);
	assert_int_equal(hp_stats(pool).committed, 0);
	use_it();
	assert_int_equal(hp_pool_grow(pool, 2 * MIB, NULL, NULL), 0);
	hp_must_be_sound(pool);
}

static void class_process_is_the_childs_as_well(void **state)
{
	(void)state;
	void *block;
	assert_int_equal(hp_page_alloc(pool, 3 * PAGE, HP_PAGE_PROCESS, &block), 0);
	hp_mark(block, 3, 9);
	pid_t pid = fork();
	if (pid == 0) {
		must_be(hp_pool_recover(pool), 0);
		use_it();
		must(hp_marked(block, 3, 9));
		must_be(hp_page_size(pool, block), 3 * PAGE);
		must_be(hp_page_free(pool, block), 0);
		_exit(0);
	}
	assert_int_equal(hp_wait_for(pid), 0);
	assert_true(hp_marked(block, 3, 9));
	assert_int_equal(hp_page_free(pool, block), 0);
}

/* NULL is the default pool: before it is there, from several threads at once, after another pool was used,
 * and in a child. */
static void use_default(void)
{
	void *block = hp_malloc(NULL, 1000), *another = hp_calloc(NULL, 10, 10), *aligned = hp_aligned_alloc(NULL, 64, 10);
	must(block && another && aligned);
	must(hp_pool_offset(hp_pool_default(), block) != HP_OFF_NONE);
	must(block = hp_realloc(NULL, block, 100000));
	must(hp_usable_size(NULL, block) >= 100000);
	must_be(hp_free(NULL, another), 0);
	must_be(hp_free(NULL, aligned), 0);
	must_be(hp_free(NULL, block), 0);
	must_be(hp_free(NULL, &block), -EINVAL);
}

static void *use_default_thread(void *arg)
{
	use_default();
	return arg;
}

static void there_is_a_default_pool(void **state)
{
	(void)state;
	use_it();
	pthread_t thread[8];
	for (unsigned i = 0; i < 8; i++) assert_int_equal(pthread_create(&thread[i], NULL, use_default_thread, NULL), 0);
	for (unsigned i = 0; i < 8; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
	use_default();
	assert_ptr_equal(hp_pool_default(), hp_pool_default());
	hp_pool *shared = hp_plain_pool(8 * MIB, 0);
	void *block = hp_malloc(shared, 10);
	assert_int_equal(hp_free(shared, block), 0);
	pid_t pid = fork();
	if (pid == 0) {
		use_default();
		use_it();
		_exit(0);
	}
	assert_int_equal(hp_wait_for(pid), 0);
	use_default();
	assert_int_equal(hp_pool_detach(shared), 0);
	use_default();
	use_it();
}

/* ---- fork ---- */

/* What the parent has, changed by a child, a grandchild, and the parent meanwhile: each sees its own. */
static void each_has_its_own_copy(void **state)
{
	(void)state;
	char *text = hp_malloc(pool, 100);
	char *page;
	assert_int_equal(hp_page_alloc(pool, PAGE, 0, (void **)&page), 0);
	strcpy(text, "parent");
	strcpy(page, "parent");
	int go[2];
	assert_int_equal(pipe(go), 0);
	pid_t pid = fork();
	if (pid == 0) {
		char byte;
		must_be(read(go[0], &byte, 1), 1);
		must(!strcmp(text, "parent") && !strcmp(page, "parent"));
		strcpy(text, "child");
		must_be(hp_free(pool, page), 0);
		use_it();
		pid_t grandchild = fork();
		if (grandchild == 0) {
			must(!strcmp(text, "child"));
			must_be(hp_free(pool, page), -EALREADY);
			strcpy(text, "grandchild");
			use_it();
			must_be(hp_pool_recover(pool), 0);
			must_be(hp_free(pool, text), 0);
			hp_must_be_sound(pool);
			must_be(hp_pool_detach(pool), 0);
			_exit(0);
		}
		must_be(hp_wait_for(grandchild), 0);
		must(!strcmp(text, "child"));
		use_it();
		hp_must_be_sound(pool);
		_exit(0);
	}
	strcpy(text, "other");
	strcpy(page, "other");
	assert_int_equal(write(go[1], "x", 1), 1);
	assert_int_equal(hp_wait_for(pid), 0);
	close(go[0]);
	close(go[1]);
	assert_string_equal(text, "other");
	assert_string_equal(page, "other");
	assert_int_equal(hp_free(pool, text), 0);
	assert_int_equal(hp_free(pool, page), 0);
	hp_must_be_sound(pool);
}

/* The child's thread goes on with the parent's slot: no second one, and the same blocks still count as its own. */
static void the_thread_keeps_its_slot(void **state)
{
	(void)state;
	use_it();
	uint32_t slots = hp_stats(pool).threads;
	uint64_t remote = hp_stats(pool).remote_frees;
	void *block = hp_malloc(pool, 64);
	pid_t pid = fork();
	if (pid == 0) {
		must_be(hp_free(pool, block), 0);
		must_be(hp_stats(pool).remote_frees, remote);
		use_it();
		must_be(hp_stats(pool).threads, slots);
		must_be(hp_pool_recover(pool), 0);
		hp_must_be_sound(pool);
		_exit(0);
	}
	assert_int_equal(hp_wait_for(pid), 0);
	assert_int_equal(hp_free(pool, block), 0);
}

#define THREADS 4
static _Atomic bool stop;
static _Atomic unsigned ready;

static void *churn(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg;
	enum { MANY = 64 };
	void *block[MANY] = {0};
	size_t size[MANY] = {0};
	for (uint64_t turn = 0; !atomic_load(&stop); turn++) {
		unsigned i = (unsigned)hp_below(&seed, MANY);
		if (block[i]) {
			must(*(unsigned char *)block[i] == (unsigned char)i &&
			     ((unsigned char *)block[i])[size[i] - 1] == (unsigned char)i);
			must_be(hp_free(pool, block[i]), 0);
		}
		size[i] = 1 + hp_below(&seed, hp_below(&seed, 8) ? 2000 : 300000);
		block[i] = hp_malloc(pool, size[i]);
		must(block[i]);
		*(unsigned char *)block[i] = ((unsigned char *)block[i])[size[i] - 1] = (unsigned char)i;
		if (turn == MANY) atomic_fetch_add(&ready, 1);
	}
	for (unsigned i = 0; i < MANY; i++)
		if (block[i]) must_be(hp_free(pool, block[i]), 0);
	return NULL;
}

/* A child of a process whose threads are in the middle of everything: it recovers what they left, all that the thread
 * which forked had is there, and there is room for what fits. Then threads of its own, and a grandchild. */
static void forked_child(void *kept, int depth)
{
	use_it();
	must(hp_marked(kept, 5, 77));
	if (depth) {
		pthread_t thread;
		atomic_store(&ready, 0);
		must_be(pthread_create(&thread, NULL, churn, (void *)(uintptr_t)123), 0);
		while (!atomic_load(&ready)) sched_yield();
		pid_t pid = fork();
		if (pid == 0) {
			forked_child(kept, depth - 1);
			_exit(0);
		}
		must_be(hp_wait_for(pid), 0);
		atomic_store(&stop, true);
		must_be(pthread_join(thread, NULL), 0);
	}
	must(hp_pool_recover(pool) >= 0);
	must_be(hp_stats(pool).threads, 1);
	hp_must_be_sound(pool);
	must_be(hp_page_free(pool, kept), 0);
	use_it();
}

static void forks_while_threads_allocate(void **state)
{
	(void)state;
	pthread_t thread[THREADS];
	void *kept;
	assert_int_equal(hp_page_alloc(pool, 5 * PAGE, 0, &kept), 0);
	hp_mark(kept, 5, 77);
	atomic_store(&stop, false);
	atomic_store(&ready, 0);
	for (uintptr_t i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, churn, (void *)i), 0);
	while (atomic_load(&ready) < THREADS) sched_yield();
	for (unsigned i = 0; i < (HP_TEST_SANITIZER ? 20 : 50); i++) {
		pid_t pid = fork();
		if (pid == 0) {
			forked_child(kept, i % 10 == 0 && !HP_TEST_SANITIZER ? 2 : 0); /* they start no threads there */
			_exit(0);
		}
		assert_int_equal(hp_wait_for(pid), 0);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(hp_page_free(pool, kept), 0);
	hp_must_be_sound(pool);
}

/* What threads that did not come along owned and did not use is had by the child: it can allocate all there is. */
static void *own_a_chunk(void *arg)
{
	void *block;
	must_be(hp_page_alloc(pool, PAGE, 0, &block), 0);
	must_be(hp_page_free(pool, block), 0);
	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&stop)) sched_yield();
	return arg;
}

static void nothing_stays_with_threads_that_are_gone(void **state)
{
	(void)state;
	pthread_t thread[THREADS];
	atomic_store(&stop, false);
	atomic_store(&ready, 0);
	for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, own_a_chunk, NULL), 0);
	while (atomic_load(&ready) < THREADS) sched_yield();
	pid_t pid = fork();
	if (pid == 0) {
		void *block;
		must_be(hp_page_alloc(pool, 256 * MIB, 0, &block), 0);
		must_be(hp_page_free(pool, block), 0);
		must_be(hp_stats(pool).threads, 1);
		hp_must_be_empty(pool);
		_exit(0);
	}
	assert_int_equal(hp_wait_for(pid), 0);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
}

/* The growth lock, held by a thread that did not come along, is no obstacle. */
static void *hold_growth(void *arg)
{
	must_be(growth_lock(pool), 0);
	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&stop)) sched_yield();
	growth_unlock(pool);
	return arg;
}

static void a_lock_held_at_the_fork_is_free_in_the_child(void **state)
{
	(void)state;
	pthread_t thread;
	atomic_store(&stop, false);
	atomic_store(&ready, 0);
	use_it();
	assert_int_equal(pthread_create(&thread, NULL, hold_growth, NULL), 0);
	while (!atomic_load(&ready)) sched_yield();
	pid_t pid = fork();
	if (pid == 0) {
		must_be(hp_pool_grow(pool, 2 * MIB, NULL, NULL), 0);
		use_it();
		_exit(0);
	}
	assert_int_equal(hp_wait_for(pid), 0);
	atomic_store(&stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(hp_pool_grow(pool, 2 * MIB, NULL, NULL), 0);
}

/* A child that no fork handler knows of. */
static void forks_without_handlers(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("a fork that the sanitizer does not see");
	pthread_t thread;
	atomic_store(&stop, false);
	atomic_store(&ready, 0);
	use_it();
	assert_int_equal(pthread_create(&thread, NULL, churn, (void *)(uintptr_t)5), 0);
	while (!atomic_load(&ready)) sched_yield();
	for (unsigned i = 0; i < 20; i++) {
		pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
		if (pid == 0) {
			use_it();
			must(hp_pool_recover(pool) >= 0);
			must_be(hp_stats(pool).threads, 1);
			_exit(0);
		}
		assert_int_equal(hp_wait_for(pid), 0);
	}
	atomic_store(&stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

/* A handler forks while its thread is inside an operation: both go on as if nothing had been. */
static _Atomic int forked;

static void fork_here(int signal)
{
	(void)signal;
	if (atomic_load(&forked)) return;
	pid_t pid = fork();
	atomic_store(&forked, pid ? pid : -1);
}

static void a_handler_forks_anywhere(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("sanitizers hold locks that a handler's fork needs");
	struct sigaction action = {.sa_handler = fork_here}, before;
	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	for (unsigned round = 0; round < 50; round++) {
		struct itimerval soon = {.it_value = {.tv_usec = 50 + round % 50}};
		atomic_store(&forked, 0);
		setitimer(ITIMER_REAL, &soon, NULL);
		while (!atomic_load(&forked)) {
			void *block[20];
			for (unsigned i = 0; i < 20; i++) must(block[i] = hp_malloc(pool, 100 + i * 300));
			for (unsigned i = 0; i < 20; i++) must_be(hp_free(pool, block[i]), 0);
		}
		int child = atomic_load(&forked);
		use_it();
		must(hp_pool_recover(pool) >= 0);
		hp_must_be_sound(pool);
		if (child == -1) _exit(0);
		assert_int_equal(hp_wait_for(child), 0);
	}
	sigaction(SIGALRM, &before, NULL);
}

static void hugetlb_is_copied_by_the_child(void **state)
{
	(void)state;
	if (!hp_test_has_huge(HP_HUGE_2M, 8)) hp_test_skip_one("8 huge pages of 2 MiB are not to be had");
	struct hp_pool_options options = private_options(8 * MIB, 64 * MIB, HP_PREFAULT_NOW);
	struct hp_report report;
	options.choice = HP_CHOICE_REQUIRE;
	options.rung = HP_RUNG_2M;
	options.report = &report;
	hp_pool *huge;
	assert_int_equal(hp_pool_create(&options, &huge), 0);
	assert_int_equal(report.rung_got, HP_RUNG_2M);
	void *block;
	assert_int_equal(hp_page_alloc(huge, 700 * PAGE, 0, &block), 0);
	hp_mark(block, 700, 3);
	pid_t pid = fork();
	if (pid == 0) {
		must(hp_marked(block, 700, 3));
		hp_mark(block, 700, 4);
		void *more;
		must_be(hp_page_alloc(huge, 40 * MIB, 0, &more), 0); /* ordinary pages: more than there are huge ones */
		memset(more, 1, 40 * MIB);
		must(hp_marked(block, 700, 4));
		must_be(hp_page_free(huge, more), 0);
		_exit(0);
	}
	assert_int_equal(hp_wait_for(pid), 0);
	assert_true(hp_marked(block, 700, 3));
	assert_int_equal(hp_page_free(huge, block), 0);
	assert_int_equal(hp_pool_trim(huge, 0), 8 * MIB);
	assert_int_equal(hp_pool_grow(huge, 2 * MIB, NULL, NULL), 0);
	assert_int_equal(hp_pool_detach(huge), 0);
}

static void says_what_pages_it_has(void **state)
{
	(void)state;
	struct hp_report report;
	struct hp_pool_options options = private_options(4 * MIB, 8 * MIB, HP_PREFAULT_NOW);
	hp_pool *made;
	options.report = &report;
	options.choice = HP_CHOICE_PREFER;
	options.rung = HP_RUNG_2M; /* preferred is not required */
	assert_int_equal(hp_pool_create(&options, &made), 0);
	assert_true(report.rung_got == HP_RUNG_THP || report.rung_got == HP_RUNG_4K);
	assert_false(report.rung[1].tried);
	assert_true(report.rung[1].cause[0]);
	assert_int_equal(hp_pool_detach(made), 0);
	options.choice = HP_CHOICE_REQUIRE;
	options.rung = HP_RUNG_4K;
	assert_int_equal(hp_pool_create(&options, &made), 0);
	assert_int_equal(report.rung_got, HP_RUNG_4K);
	assert_int_equal(hp_pool_page_size(made), PAGE);
	assert_int_equal(hp_pool_detach(made), 0);
	options.rung = HP_RUNG_2M;
	options.prefault = HP_PREFAULT_LAZY;
	assert_int_equal(hp_pool_create(&options, &made), -EINVAL);
}

/* Every call of the kernel that creating one makes, failed in turn: an error, and nothing left. */
static unsigned fail_at, calls;

static bool fail_one(enum os_call call, int64_t *result)
{
	if (call == OS_CLOSE || call == OS_UNMAP || calls++ != fail_at) return false;
	*result = call == OS_CPU ? 0 : -ENOMEM;
	return true;
}

static void a_failed_creation_leaves_nothing(void **state)
{
	(void)state;
	struct held before = held_now();
	struct hp_pool_options options = private_options(16 * MIB, 64 * MIB, HP_PREFAULT_NOW);
	unsigned failed = 0;
	for (fail_at = 0; fail_at < 200; fail_at++) {
		hp_pool *made;
		calls = 0;
		os_hook = fail_one;
		int error = hp_pool_create(&options, &made);
		os_hook = NULL;
		failed += error != 0;
		if (error == 0) must_be(hp_pool_detach(made), 0);
		struct held after = held_now();
		assert_int_equal(after.files, before.files);
		assert_int_equal(after.address_space, before.address_space);
		if (calls <= fail_at) break;
	}
	assert_true(failed >= 3);
}

#define ROW(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ROW(is_used_like_any_pool),
		ROW(has_no_descriptors),
		ROW(capacity_costs_nothing_until_it_is_used),
		ROW(grows_to_its_capacity_and_no_further),
		ROW(there_is_a_default_pool),
		ROW(class_process_is_the_childs_as_well),
		ROW(each_has_its_own_copy),
		ROW(the_thread_keeps_its_slot),
		ROW(forks_while_threads_allocate),
		ROW(nothing_stays_with_threads_that_are_gone),
		ROW(a_lock_held_at_the_fork_is_free_in_the_child),
		ROW(forks_without_handlers),
		ROW(a_handler_forks_anywhere),
		ROW(hugetlb_is_copied_by_the_child),
		ROW(says_what_pages_it_has),
		ROW(a_failed_creation_leaves_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
