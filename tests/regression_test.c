/* What went wrong in other allocators of pages must not go wrong here. Each test is named after the promise that was
 * broken, and says by whom and how.
 *
 * Where a conflict had to happen at a certain place, it is made to happen at every place: another participant holds the
 * page, or the chunk, at each position of the run in turn. */
#include "hp_page.h"
#include "page/page.h"
#include "pool/participant.h"
#include <pthread.h>
#include <sched.h>
#include <sys/time.h>

static size_t pages_of(hp_pool *pool)
{
	return hp_stats(pool).committed / PAGE;
}

static void *must_alloc(hp_pool *pool, size_t pages)
{
	void *block;
	must_be(hp_page_alloc(pool, pages * PAGE, 0, &block), 0);
	return block;
}

/* Every page of the pool as a block of its own, in order of address, each with its mark. */
static void fill(hp_pool *pool)
{
	size_t all = pages_of(pool);
	for (size_t i = 0; i < all; i++) hp_mark(must_alloc(pool, 1), 1, 0);
	for (size_t i = 0; i < all; i++) hp_mark((char *)hp_pool_base(pool) + i * PAGE, 1, i);
}

static void free_pages(hp_pool *pool, size_t from, size_t n)
{
	for (size_t i = from; i < from + n; i++) must_be(hp_page_free_at(pool, i * PAGE), 0);
}

static void others_are_untouched(hp_pool *pool, size_t from, size_t n)
{
	size_t all = pages_of(pool);
	for (size_t i = 0; i < all; i++) {
		if (i >= from && i < from + n) continue;
		must_be(hp_page_size_at(pool, i * PAGE), PAGE);
		must(hp_marked((char *)hp_pool_base(pool) + i * PAGE, 1, i));
	}
}

/* LLFree (C): an allocation of several huge pages that failed at its second child freed somebody else's, by an index
 * that was off by one in the roll-back. Here the obstacle stands at every page of a run over three chunks. */
static void an_allocation_that_fails_half_way_frees_nothing_of_others(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0), *other = hp_attach_again(pool);
	size_t all = pages_of(pool), unit = hp_stats(pool).unit_size / PAGE, n = 2 * unit + 6, from = unit - 3;
	void *block;
	fill(pool);
	free_pages(pool, from, n);
	for (size_t at = 0; at < n; at++) {
		/* take the whole hole, and give back all of it but one page */
		block = must_alloc(other, n);
		must_be(hp_pool_offset(other, block), from * PAGE);
		must_be(hp_page_free(other, block), 0);
		for (size_t i = 0; i < n; i++) must_alloc(other, 1);
		for (size_t i = 0; i < n; i++)
			if (i != at) must_be(hp_page_free_at(pool, (from + i) * PAGE), 0);
		for (unsigned k = 0; k < 3; k++) must_be(hp_page_alloc(k == 1 ? other : pool, n * PAGE, 0, &block), -ENOMEM);
		must_be(hp_page_size_at(pool, (from + at) * PAGE), PAGE);
		must_be(hp_stats(pool).free, (n - 1) * PAGE);
		others_are_untouched(pool, from, n);
		hp_must_be_sound(pool);
		must_be(hp_page_free_at(pool, (from + at) * PAGE), 0);
	}
	block = must_alloc(pool, n);
	must_be(hp_page_free(other, hp_pool_pointer(other, hp_pool_offset(pool, block))), 0);
	for (size_t i = 0; i < from; i++) must_be(hp_page_free_at(other, i * PAGE), 0);
	for (size_t i = from + n; i < all; i++) must_be(hp_page_free_at(other, i * PAGE), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(other);
	hp_pool_detach(pool);
}

/* The same with a chunk that cannot be owned at each position: its owner stands inside an operation. Nothing is to be
 * had of it, nothing may be taken from it, and the chunks claimed on the way go back. */
static void a_chunk_in_use_in_the_middle_of_a_run_keeps_all_it_has(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0), *other = hp_attach_again(pool);
	size_t all = pages_of(pool), unit = hp_stats(pool).unit_size / PAGE;
	uint32_t chunks = (uint32_t)(all / unit);
	for (uint32_t at = 0; at < chunks; at++) {
		fill(pool);
		free_pages(pool, at * unit, unit);
		void *held = must_alloc(other, 1); /* only that chunk has anything */
		must_be(hp_pool_offset(other, held) / PAGE / unit, at);
		for (uint32_t c = 0; c < chunks; c++)
			if (c != at) free_pages(pool, c * unit, unit);
		int error;
		struct participant *me = participant_get(other, &error);
		must(me);
		uint64_t ctl = atomic_load(&pool->chunks[at].ctl);
		must_be(ctl_who(ctl), me->who);
		participant_begin(me);
		void *block;
		must_be(hp_page_alloc(pool, (chunks - 1) * unit * PAGE + PAGE, 0, &block), -ENOMEM);
		size_t before = at * unit, after = all - before - unit;
		size_t most = before > after ? before : after;
		must_be(hp_page_alloc(pool, (most + 1) * PAGE, 0, &block), -ENOMEM);
		block = must_alloc(pool, most);
		must_be(atomic_load(&pool->chunks[at].ctl), ctl); /* untouched */
		participant_end(me);
		must_be(hp_page_size(other, held), PAGE);
		must_be(hp_page_free(pool, block), 0);
		must_be(hp_page_free(other, held), 0);
		hp_must_be_empty(pool);
		block = must_alloc(pool, all);
		must_be(hp_page_free(pool, block), 0);
	}
	hp_pool_detach(other);
	hp_pool_detach(pool);
}

/* TSLoad: freeing a block of several pages cleared bits from the start of the cell instead of its own index, and so
 * released other live blocks; and allocating one took a page too many. */
static void freeing_several_pages_releases_exactly_those(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	size_t all = pages_of(pool);
	for (size_t n = 2; n <= 80; n += n < 10 ? 1 : 13) {
		fill(pool);
		for (size_t from = 0; from + n <= all; from += n < 5 ? 1 : 5) {
			free_pages(pool, from, n);
			void *block = must_alloc(pool, n);
			must_be(hp_pool_offset(pool, block), from * PAGE);
			must_be(hp_stats(pool).free, 0);
			must_be(hp_page_free(pool, block), 0);
			must_be(hp_stats(pool).free, n * PAGE);
			must_be(hp_stats(pool).live_blocks, all - n);
			for (size_t i = 0; i < n; i++) hp_mark(must_alloc(pool, 1), 1, 0);
			for (size_t i = from; i < from + n; i++) hp_mark((char *)hp_pool_base(pool) + i * PAGE, 1, i);
		}
		others_are_untouched(pool, 0, 0);
		free_pages(pool, 0, all);
		hp_must_be_empty(pool);
	}
	hp_pool_detach(pool);
}

/* TSLoad: 300 blocks of 8 KiB, each freed at once, used up a segment of 2 MiB: a mask of 32 bits shifted by 32. */
static void blocks_of_any_size_come_back_for_ever(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(2 * MIB, 0), *other = hp_attach_again(pool);
	for (size_t bytes = PAGE; bytes <= MIB; bytes *= 2)
		for (unsigned i = 0; i < 2000; i++) {
			void *block = must_alloc(pool, bytes / PAGE);
			must_be(i % 2 ? hp_page_free(pool, block) : hp_page_free_at(other, hp_pool_offset(pool, block)), 0);
			if (i % 500 == 0) hp_must_be_empty(pool);
		}
	hp_must_be_empty(pool);
	hp_pool_detach(other);
	hp_pool_detach(pool);
}

/* TSLoad: the search of a region tested only the first zero bit, and so missed a larger hole behind a smaller one. */
static void a_hole_behind_smaller_ones_is_found(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	size_t all = pages_of(pool);
	for (size_t n = 2; n <= 60; n += 3) {
		fill(pool);
		/* holes of 1, 2, ... n - 1 pages where they fit, and one of n at the very end */
		size_t at = 0;
		for (size_t hole = 1; hole < n && at + hole + 1 < all - n; at += hole + 1, hole++) free_pages(pool, at, hole);
		free_pages(pool, all - n, n);
		void *block = must_alloc(pool, n);
		must_be(hp_pool_offset(pool, block), (all - n) * PAGE);
		void *none;
		must_be(hp_page_alloc(pool, n * PAGE, 0, &none), -ENOMEM);
		for (size_t i = 0; i < all; i++) hp_page_free_at(pool, i * PAGE);
		hp_must_be_empty(pool);
	}
	hp_pool_detach(pool);
}

/* TSLoad: a run could wrap from the end of the segment to its start. */
static void a_run_does_not_wrap_from_the_end_to_the_start(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	size_t all = pages_of(pool), unit = hp_stats(pool).unit_size / PAGE;
	for (size_t head = 1; head <= unit; head += 7)
		for (size_t tail = 1; tail <= unit; tail += 9) {
			void *none, *block;
			size_t most = head > tail ? head : tail;
			fill(pool);
			free_pages(pool, 0, head);
			free_pages(pool, all - tail, tail);
			must_be(hp_page_alloc(pool, (most + 1) * PAGE, 0, &none), -ENOMEM);
			must_be(hp_page_alloc(pool, (head + tail) * PAGE, 0, &none), -ENOMEM);
			block = must_alloc(pool, most);
			hp_off off = hp_pool_offset(pool, block);
			must(off + most * PAGE <= all * PAGE);
			must_be(hp_page_free(pool, block), 0);
			free_pages(pool, head, all - head - tail);
			hp_must_be_empty(pool);
		}
	hp_pool_detach(pool);
}

/* TSLoad: the roll-back of an allocation over several cells zeroed the cell that it had failed on, which was another's.
 * Here the other's bits change while the allocation looks: the model test has no such moments, so threads must do. */
struct conflict {
	hp_pool *pool;
	_Atomic bool stop;
	_Atomic uint64_t failed, made;
	size_t run;
};

static void *want_long_runs(void *arg)
{
	struct conflict *c = arg;
	while (!atomic_load(&c->stop)) {
		void *block;
		if (hp_page_alloc(c->pool, c->run * PAGE, 0, &block) < 0) {
			atomic_fetch_add(&c->failed, 1);
			continue;
		}
		atomic_fetch_add(&c->made, 1);
		hp_mark(block, c->run, 5 << 20);
		must(hp_marked(block, c->run, 5 << 20));
		must_be(hp_page_free(c->pool, block), 0);
	}
	return NULL;
}

static void a_roll_back_leaves_foreign_cells_alone(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	struct conflict c = {.pool = hp_plain_pool(MIB, 0)};
	pthread_t thread[2];
	enum { HELD = 60 };
	void *held[HELD] = {0};
	size_t pages[HELD], unit = hp_stats(c.pool).unit_size / PAGE;
	c.run = 2 * unit - 8;
	for (unsigned i = 0; i < 2; i++) must_be(pthread_create(&thread[i], NULL, want_long_runs, &c), 0);
	unsigned enough = HP_TEST_SANITIZER ? 30 : 1000;
	for (unsigned round = 0; atomic_load(&c.made) < enough || atomic_load(&c.failed) < enough; round++) {
		unsigned i = (unsigned)hp_below(&seed, HELD);
		if (held[i]) {
			must(hp_marked(held[i], pages[i], i + 1));
			must_be(hp_page_size(c.pool, held[i]), pages[i] * PAGE);
			must_be(hp_page_free(c.pool, held[i]), 0);
			held[i] = NULL;
		} else {
			pages[i] = 1 + hp_below(&seed, 5);
			if (hp_page_alloc(c.pool, pages[i] * PAGE, 0, &held[i]) == 0) hp_mark(held[i], pages[i], i + 1);
		}
		if (round % 500 == 0) /* an empty stretch now and then, so that long runs succeed too */
			for (unsigned k = 0; k < HELD; k++) {
				if (held[k]) must_be(hp_page_free(c.pool, held[k]), 0);
				held[k] = NULL;
			}
		if (round % 50 == 0) sched_yield();
	}
	c.stop = true;
	for (unsigned i = 0; i < 2; i++) pthread_join(thread[i], NULL);
	for (unsigned i = 0; i < HELD; i++) {
		if (held[i]) must(hp_marked(held[i], pages[i], i + 1));
		must_be(hp_page_free(c.pool, held[i]), 0);
	}
	print_message("%llu long runs made, %llu refused\n", (unsigned long long)c.made, (unsigned long long)c.failed);
	hp_must_be_empty(c.pool);
	hp_pool_detach(c.pool);
}

/* Netmcore_mempool: live blocks were capped at 64 + pages/4, and hitting the cap lost the pages of that allocation. */
static void live_blocks_have_no_cap_and_a_refusal_costs_nothing(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	size_t all = pages_of(pool);
	for (unsigned round = 0; round < 3; round++) {
		void *none;
		fill(pool);
		must_be(hp_stats(pool).live_blocks, all);
		must(all > 64 + all / 4);
		for (size_t n = 1; n <= all; n += 5) must_be(hp_page_alloc(pool, n * PAGE, 0, &none), -ENOMEM);
		must_be(hp_page_alloc(pool, 2 * MIB, 0, &none), -ENOMEM);
		others_are_untouched(pool, 0, 0);
		free_pages(pool, 0, all);
		hp_must_be_empty(pool);
	}
	hp_pool_detach(pool);
}

/* Netmcore_mempool: a signal made an allocation fail (EINTR from its lock). Here a timer fires all the while, in the
 * thread that allocates, and the handler allocates and frees as well. */
static hp_pool *signal_pool;
static _Atomic unsigned signals;
static void *_Atomic signal_block;

static void on_timer(int number)
{
	(void)number;
	int saved = errno;
	void *block;
	if (hp_page_alloc(signal_pool, PAGE, 0, &block) == 0) {
		hp_mark(block, 1, 0x5160);
		must(hp_marked(block, 1, 0x5160));
		must_be(hp_page_free(signal_pool, block), 0);
	}
	void *given = atomic_exchange(&signal_block, NULL); /* by the code that was interrupted */
	if (given) must_be(hp_page_free(signal_pool, given), 0);
	atomic_fetch_add(&signals, 1);
	errno = saved;
}

static void a_signal_does_not_make_an_allocation_fail(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	signal_pool = hp_plain_pool(4 * MIB, 0);
	signals = 0;
	struct sigaction action = {.sa_handler = on_timer}, old;
	struct itimerval timer = {.it_interval = {0, 200}, .it_value = {0, 200}}, off = {0};
	sigaction(SIGALRM, &action, &old);
	must_be(setitimer(ITIMER_REAL, &timer, NULL), 0);
	void *block[50] = {0};
	size_t pages[50];
	unsigned wanted = HP_TEST_SANITIZER ? 50 : 1000;
	for (unsigned round = 0; atomic_load(&signals) < wanted; round++) {
		unsigned i = round % 50;
		if (block[i]) {
			must(hp_marked(block[i], pages[i], i + 1));
			must_be(hp_page_free(signal_pool, block[i]), 0);
		}
		pages[i] = 1 + hp_below(&seed, hp_below(&seed, 20) ? 5 : 150);
		/* the pool is large enough for all of it: there is no reason to fail */
		must_be(hp_page_alloc(signal_pool, (pages[i] > 5 && round % 7 ? 5 : pages[i]) * PAGE, 0, &block[i]), 0);
		pages[i] = (size_t)hp_page_size(signal_pool, block[i]) / PAGE;
		hp_mark(block[i], pages[i], i + 1);
		if (pages[i] > 5) {
			must_be(hp_page_free(signal_pool, block[i]), 0);
			block[i] = NULL;
		}
		if (round % 11 == 0) {
			void *given;
			must_be(hp_page_alloc(signal_pool, PAGE, 0, &given), 0);
			given = atomic_exchange(&signal_block, given);
			if (given) must_be(hp_page_free(signal_pool, given), 0);
		}
	}
	setitimer(ITIMER_REAL, &off, NULL);
	sigaction(SIGALRM, &old, NULL);
	for (unsigned i = 0; i < 50; i++) must_be(hp_page_free(signal_pool, block[i]), 0);
	must_be(hp_page_free(signal_pool, atomic_exchange(&signal_block, NULL)), 0);
	hp_must_be_empty(signal_pool);
	hp_pool_detach(signal_pool);
}

/* Netmcore_mempool, Boost.Interprocess, Firedancer: a process killed inside left the pool locked, or every survivor
 * hanging, for ever. (Every single instruction is in the stepping harness; this is the same from outside.) */
struct victim {
	hp_pool *pool;
	_Atomic uint64_t turns;
};

static void work_until_killed(struct victim *victim)
{
	uint64_t seed = (uint64_t)getpid();
	void *block[4] = {0};
	for (;; atomic_fetch_add(&victim->turns, 1)) {
		unsigned i = (unsigned)hp_below(&seed, 4);
		if (block[i]) must_be(hp_page_free(victim->pool, block[i]), 0);
		hp_page_alloc(victim->pool, (1 + hp_below(&seed, 100)) * PAGE, HP_PAGE_PROCESS, &block[i]);
	}
}

static void a_process_killed_inside_locks_nobody_out(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	struct victim *victim = hp_shared(sizeof *victim);
	victim->pool = hp_plain_pool(MIB, 0);
	size_t all = pages_of(victim->pool), joined = 0;
	must_be(hp_page_free(victim->pool, must_alloc(victim->pool, 1)), 0);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 10 : 200); round++) {
		victim->turns = 0;
		pid_t pid = hp_fork();
		if (pid == 0) work_until_killed(victim);
		uint64_t until = hp_below(&seed, 60);
		while (atomic_load(&victim->turns) < until) sched_yield();
		for (uint64_t spin = hp_below(&seed, 3000); spin; spin--) atomic_signal_fence(memory_order_seq_cst);
		kill(pid, SIGKILL);
		must_be(hp_wait_for(pid), 128 + SIGKILL);
		joined += atomic_load(&victim->turns) > 0;
		/* at once, with no call to recover: the allocation that needs the memory finds the dead */
		must_be(hp_page_free(victim->pool, must_alloc(victim->pool, all)), 0);
		hp_must_be_empty(victim->pool);
	}
	must(hp_stats(victim->pool).recovered >= joined); /* some died before they had taken part */
	hp_pool_detach(victim->pool);
	munmap(victim, sizeof *victim);
}

/* Firedancer's fd_alloc: a double free handed out a live block. */
static void a_double_free_hands_out_no_live_block(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0), *other = hp_attach_again(pool);
	for (size_t n = 1; n < 150; n += 3)
		for (unsigned who = 0; who < 4; who++) {
			void *block = must_alloc(pool, n), *a, *b;
			must_be(hp_page_free_at(who & 1 ? other : pool, hp_pool_offset(pool, block)), 0);
			must_be(hp_page_free_at(who & 2 ? other : pool, hp_pool_offset(pool, block)), -EALREADY);
			must_be(hp_page_free_at(who & 1 ? other : pool, hp_pool_offset(pool, block)), -EALREADY);
			a = must_alloc(pool, n);
			b = must_alloc(other, 1);
			size_t ao = hp_pool_offset(pool, a), bo = hp_pool_offset(other, b);
			must(bo < ao || bo >= ao + n * PAGE);
			must_be(hp_page_free(pool, a), 0);
			must_be(hp_page_free(other, b), 0);
			hp_must_be_empty(pool);
		}
	hp_pool_detach(other);
	hp_pool_detach(pool);
}

/* DPDK: only registered threads had the fast path, and needed a call at their start and end. */
static void *call_without_introduction(void *arg)
{
	void *block;
	for (unsigned i = 0; i < 50; i++) {
		must_be(hp_page_alloc(arg, PAGE, 0, &block), 0);
		must_be(hp_page_free(arg, block), 0);
	}
	return NULL;
}

static void threads_need_no_registration_and_leave_nothing(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(MIB);
	options.max_threads = 4;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	for (unsigned i = 0; i < (HP_TEST_SANITIZER ? 50 : 500);
	     i++) { /* far more than there are slots, though not at once */
		pthread_t thread;
		must_be(pthread_create(&thread, NULL, call_without_introduction, pool), 0);
		pthread_join(thread, NULL);
	}
	must(hp_stats(pool).threads <= 1);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_allocation_that_fails_half_way_frees_nothing_of_others),
		cmocka_unit_test(a_chunk_in_use_in_the_middle_of_a_run_keeps_all_it_has),
		cmocka_unit_test(freeing_several_pages_releases_exactly_those),
		cmocka_unit_test(blocks_of_any_size_come_back_for_ever),
		cmocka_unit_test(a_hole_behind_smaller_ones_is_found),
		cmocka_unit_test(a_run_does_not_wrap_from_the_end_to_the_start),
		cmocka_unit_test(a_roll_back_leaves_foreign_cells_alone),
		cmocka_unit_test(live_blocks_have_no_cap_and_a_refusal_costs_nothing),
		cmocka_unit_test(a_signal_does_not_make_an_allocation_fail),
		cmocka_unit_test(a_process_killed_inside_locks_nobody_out),
		cmocka_unit_test(a_double_free_hands_out_no_live_block),
		cmocka_unit_test(threads_need_no_registration_and_leave_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
