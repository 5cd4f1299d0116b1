/* Slots: every thread gets one at its first call and gives it back at its end, however it ends and however late it calls
 * once more. Would catch a slot that leaks with a thread, one that is taken from the living, an allocation that waits for
 * a slot, and a free that needs one. */
#include "hp_process.h"

#include <pool/layout.h>
#include <pool/pool.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

static hp_pool *pool;

static int set_up(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(8 * MIB);
	options.max_threads = 8;
	must_be(hp_pool_create(&options, &pool), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hp_pool_recover(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
	return 0;
}

static void run_thread(void *(*run)(void *), void *arg)
{
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, run, arg), 0);
	must_be(pthread_join(thread, NULL), 0);
}

static void *pair(void *arg)
{
	void *block;
	must_be(hp_page_alloc(pool, PAGE, 0, &block), 0);
	must_be(hp_page_free(pool, block), 0);
	return arg;
}

static void threads_give_their_slots_back(void **state)
{
	(void)state;
	int threads = HP_TEST_SANITIZER ? 500 : 5000;
	struct held before = {0};
	for (int i = 0; i < threads; i++) {
		run_thread(pair, NULL);
		if (i == 10) before = held_now();
	}
	must_hold_no_more(before);
	must(hp_stats(pool).threads <= 1);
	must_be(hp_stats(pool).recovered, 0); /* they left by themselves */
	/* their counters stay */
	must_be(hp_stats(pool).allocs, threads);
	must_be(hp_stats(pool).frees + hp_stats(pool).remote_frees, threads);
}

/* Blocks of class PROCESS belong to the process, not to the thread. */
static void *allocate_for_the_process(void *arg)
{
	must_be(hp_page_alloc(pool, 2 * PAGE, HP_PAGE_PROCESS, arg), 0);
	hp_mark(*(void **)arg, 2, 5);
	return NULL;
}

static void blocks_outlive_their_thread(void **state)
{
	(void)state;
	void *block;
	run_thread(allocate_for_the_process, &block);
	must_be(hp_pool_recover(pool), 0);
	must_be(hp_page_size(pool, block), 2 * PAGE);
	pool_must_work(pool, 4 * MIB);
	must(hp_marked(block, 2, 5));
	must_be(hp_page_free(pool, block), 0);
}

/* ---- slots run out ---- */

struct crowd {
	pthread_barrier_t here, go;
	void *block;
};

static void *hold_a_slot(void *arg)
{
	struct crowd *crowd = arg;
	pair(NULL);
	pthread_barrier_wait(&crowd->here);
	pthread_barrier_wait(&crowd->go);
	return NULL;
}

static void *come_too_late(void *arg)
{
	struct crowd *crowd = arg;
	void *block = crowd;
	must_be(hp_page_alloc(pool, PAGE, 0, &block), -EUSERS);
	must(!block);
	must_be(hp_pool_grow(pool, MIB, NULL, NULL), -EUSERS);
	must_be(hp_page_free(pool, crowd->block), 0); /* needs none */
	must_be(hp_page_free(pool, crowd->block), -EALREADY);
	return NULL;
}

static void slots_run_out(void **state)
{
	(void)state;
	static struct crowd crowd;
	pthread_t thread[7];
	must_be(hp_page_alloc(pool, 3 * PAGE, 0, &crowd.block), 0);
	pthread_barrier_init(&crowd.here, NULL, 8);
	pthread_barrier_init(&crowd.go, NULL, 8);
	for (int i = 0; i < 7; i++) must_be(pthread_create(&thread[i], NULL, hold_a_slot, &crowd), 0);
	pthread_barrier_wait(&crowd.here);
	must_be(hp_stats(pool).threads, 8);
	run_thread(come_too_late, &crowd);
	pair(NULL);
	pthread_barrier_wait(&crowd.go);
	for (int i = 0; i < 7; i++) must_be(pthread_join(thread[i], NULL), 0);
	pthread_barrier_destroy(&crowd.here);
	pthread_barrier_destroy(&crowd.go);
	run_thread(pair, NULL);
}

/* ---- more threads than processors ---- */

static void *work(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *block[16] = {0};
	size_t pages[16];
	for (int i = 0; i < (HP_TEST_SANITIZER ? 300 : 3000); i++) {
		unsigned k = (unsigned)hp_below(&random, 16);
		if (block[k]) {
			must(hp_marked(block[k], pages[k], (uintptr_t)arg + k));
			must_be(hp_page_free(pool, block[k]), 0);
			block[k] = NULL;
			continue;
		}
		pages[k] = 1 + hp_below(&random, 9);
		int error = hp_page_alloc(pool, pages[k] * PAGE, 0, &block[k]);
		must(error == 0 || error == -ENOMEM);
		if (error == 0) hp_mark(block[k], pages[k], (uintptr_t)arg + k);
	}
	for (int k = 0; k < 16; k++) {
		if (!block[k]) continue;
		must(hp_marked(block[k], pages[k], (uintptr_t)arg + (unsigned)k));
		must_be(hp_page_free(pool, block[k]), 0);
	}
	return NULL;
}

static void sixty_four_threads(void **state)
{
	(void)state;
	hp_pool *small = pool;
	pool = hp_plain_pool(16 * MIB, 0);
	pthread_t thread[64];
	for (uintptr_t i = 0; i < 64; i++) must_be(pthread_create(&thread[i], NULL, work, (void *)((i + 1) << 16)), 0);
	for (int i = 0; i < 64; i++) must_be(pthread_join(thread[i], NULL), 0);
	must(hp_stats(pool).threads <= 1);
	pool_must_work(pool, 16 * MIB);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	pool = small;
}

/* ---- late calls ---- */

static pthread_key_t late_key;
static _Atomic int late_calls;

/* Runs after the library's destructor in each round (its key is younger), and asks for more rounds as long as there are
 * any: in the last ones no destructor of the library follows. */
static void late(void *arg)
{
	pair(NULL);
	atomic_fetch_add(&late_calls, 1);
	pthread_setspecific(late_key, arg);
}

static void *call_late(void *arg)
{
	pair(NULL);
	pthread_setspecific(late_key, "");
	return arg;
}

static void calls_from_destructors(void **state)
{
	(void)state;
	must_be(pthread_key_create(&late_key, late), 0);
	for (int i = 0; i < 100; i++) run_thread(call_late, NULL);
	must(atomic_load(&late_calls) >= 200);
	pthread_key_delete(late_key);
	/* the last is joined a moment before the kernel says that it is gone */
	while (hp_stats(pool).threads > 1) {
		hp_pool_recover(pool);
		sched_yield();
	}
}

/* ---- ends without destructors ---- */

static void *vanish(void *arg)
{
	void **block = arg;
	must_be(hp_page_alloc(pool, PAGE, 0, &block[0]), 0);
	hp_mark(block[0], 1, 9);
	must_be(hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &block[1]), 0);
	hp_mark(block[1], 1, 10);
	syscall(SYS_exit, 0);
	return NULL;
}

static void threads_that_vanish_are_recovered(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("a thread that ends by the bare system call is not for sanitizers");
	void *block[2];
	run_thread(vanish, block);
	/* it is joined a moment before the kernel says that it is gone */
	while (hp_pool_recover(pool) == 0) sched_yield();
	must_be(hp_stats(pool).threads, 1); /* this one */
	for (int i = 0; i < 2; i++) {       /* its process lives, so its blocks do */
		must(hp_marked(block[i], 1, 9u + (unsigned)i));
		must_be(hp_page_free(pool, block[i]), 0);
	}
	/* by the way, where slots are short; and by a new thread with the same number */
	for (int i = 0; i < 100; i++) {
		run_thread(vanish, block);
		must_be(hp_page_free(pool, block[0]), 0);
		must_be(hp_page_free(pool, block[1]), 0);
	}
}

/* Another thread takes and leaves slots all the time while this one recovers: nobody alive may be found gone. */
static _Atomic bool over;

static void *come_and_go(void *arg)
{
	while (!atomic_load(&over)) {
		void *block[2];
		run_thread(allocate_for_the_process, &block[0]);
		must_be(hp_page_free(pool, block[0]), 0);
	}
	return arg;
}

static void the_living_are_not_recovered(void **state)
{
	(void)state;
	pthread_t thread[2];
	atomic_store(&over, false);
	for (int i = 0; i < 2; i++) must_be(pthread_create(&thread[i], NULL, come_and_go, NULL), 0);
	for (int i = 0; i < (HP_TEST_SANITIZER ? 200 : 5000); i++) must_be(hp_pool_recover(pool), 0);
	atomic_store(&over, true);
	for (int i = 0; i < 2; i++) must_be(pthread_join(thread[i], NULL), 0);
	must_be(hp_pool_recover(pool), 0);
}

/* Pools that come and go under a thread that has a slot in each. What the first round takes for the thread's part in them
 * is there for the next ones. */
static void one_thread_in_many_pools(void **state)
{
	(void)state;
	struct held before = {0};
	for (int round = 0; round < 4; round++) {
		hp_pool *many[20];
		void *block[20];
		for (int i = 0; i < 20; i++) many[i] = hp_plain_pool(MIB, 0);
		for (int i = 0; i < 20; i++) must_be(hp_page_alloc(many[i], PAGE, 0, &block[i]), 0);
		for (int i = 19; i >= 0; i--) must_be(hp_page_free(many[i], block[i]), 0);
		for (int i = 0; i < 20; i++) {
			must_be(hp_stats(many[i]).threads, 1);
			hp_must_be_empty(many[i]);
		}
		for (int i = 0; i < 20; i++) must_be(hp_pool_detach(many[i * 7 % 20]), 0);
		pair(NULL);
		if (round == 0) before = held_now();
	}
	must_hold_no_more(before);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(threads_give_their_slots_back),
		CASE(blocks_outlive_their_thread),
		CASE(slots_run_out),
		CASE(sixty_four_threads),
		CASE(calls_from_destructors),
		CASE(threads_that_vanish_are_recovered),
		CASE(the_living_are_not_recovered),
		CASE(one_thread_in_many_pools),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
