/* Memory under I/O of a ring: who frees it, trims the pool, or wants it, while the kernel may write to it. On both engines.
 *
 * Catches: memory that is handed out again, or given back to the kernel, before its I/O has ended; a free that is lost, or done twice;
 * bytes that land elsewhere after a trim; a seventh I/O on a block; pins that stay when a request was never submitted, was
 * cancelled, or had an error; rings that outlive what they were for, or their thread. */
#include "hp_uring.h"
#include "hp_malloc.h"
#include "io/layout.h"
#include "ring/ring.h"
#include <hugepool/debug.h>
#include <hugepool/malloc.h>
#include <pthread.h>

#define BLOCK 4096u
#define SIZES 4

/* Blocks of all kinds: pages, an object of a cache, one of hp_malloc's, some bytes inside of pages. */
struct block {
	char *start;
	size_t bytes;
};

static struct {
	hp_pool *pool;
	hp_cache *cache;
	hp_ring *ring;
	int pipe[2];
	struct block block[SIZES];
} with;

/* The first pin in a slab is another way than those that follow, and what follows is most. */
static void pin_each_once(void)
{
	must_be(write(with.pipe[1], "0123", SIZES), SIZES);
	for (unsigned i = 0; i < SIZES; i++) {
		must_be(hp_ring_read(with.ring, with.pipe[0], with.block[i].start, 1, 0, 0, i), 0);
		must_be(hp_ring_result(with.ring, i), 1);
	}
}

static void begin(void **state, unsigned pool_flags, unsigned ring_flags)
{
	with.pool = hp_plain_pool(8 * MIB, HP_POOL_NO_AUTOGROW | pool_flags);
	with.cache = hp_cache_make(with.pool, "objects", 2000, 0);
	with.ring = hp_ring_on(with.pool, state, ring_flags);
	must_be(pipe2(with.pipe, O_CLOEXEC), 0);
	with.block[0] = (struct block){hp_pages(with.pool, 3 * PAGE), 3 * PAGE};
	with.block[1] = (struct block){hp_cache_get(with.cache, 0), 2000};
	with.block[2] = (struct block){hp_malloc(with.pool, 700), 700};
	with.block[3] = (struct block){hp_malloc(with.pool, MIB), MIB};
	for (unsigned i = 0; i < SIZES; i++) must(with.block[i].start);
	pin_each_once();
}

static int free_block(unsigned i)
{
	if (i == 0) return hp_page_free(with.pool, with.block[0].start);
	return i == 1 ? hp_cache_put(with.cache, with.block[1].start) : hp_free(with.pool, with.block[i].start);
}

static void end(void)
{
	must_be(hp_ring_destroy(with.ring), 0);
	close(with.pipe[0]);
	close(with.pipe[1]);
	must_be(hp_cache_destroy(with.cache), 0);
	hp_purge(with.pool);
	hp_must_be_empty(with.pool);
	must_be(hp_pool_detach(with.pool), 0);
}

/* One request on each, which waits for bytes of the pipe. */
static void read_into_all(void)
{
	for (unsigned i = 0; i < SIZES; i++)
		must_be(hp_ring_read(with.ring, with.pipe[0], with.block[i].start + 1, 16, 0, 0, i), 0);
	must_be(hp_ring_submit(with.ring), SIZES);
	must_be(hp_stats(with.pool).pinned_blocks, SIZES);
}

static void complete_all(int32_t result)
{
	unsigned seen = 0;
	for (unsigned i = 0; i < SIZES; i++) {
		struct hp_ring_completion completion = hp_ring_next(with.ring);
		must(completion.user < SIZES);
		must_be(completion.result, result);
		seen |= 1u << completion.user;
	}
	must_be(seen, (1u << SIZES) - 1);
	must_be(hp_stats(with.pool).pinned_blocks, 0);
	hp_ring_must_be_idle(with.ring);
}

/* All memory of the pool that is free, filled; then the I/O, then a look at what was filled. */
static void *taken[8192];
static unsigned taken_count;

static void take_all(void)
{
	static const size_t sizes[] = {MIB, PAGE, 2000, 700, 64};
	taken_count = 0;
	for (unsigned k = 0; k < sizeof sizes / sizeof *sizes; k++)
		while (taken_count < 8192 && (taken[taken_count] = hp_malloc(with.pool, sizes[k]))) {
			memset(taken[taken_count], 't', 64);
			taken_count++;
		}
	must(taken_count);
}

static void give_back_all(void)
{
	while (taken_count) {
		char *block = taken[--taken_count];
		for (unsigned i = 0; i < 64; i++) must(block[i] == 't');
		must_be(hp_free(with.pool, block), 0);
	}
}

static void freed_under_io_is_free_afterwards(void **state)
{
	for (unsigned round = 0; round < 2; round++) {
		begin(state, 0, round ? HP_RING_UNREGISTERED : 0);
		read_into_all();
		for (unsigned i = 0; i < SIZES; i++) {
			must_be(free_block(i), 0);
			must_be(free_block(i), -EALREADY);
			/* no further I/O on what is nobody's */
			must_be(hp_ring_read(with.ring, with.pipe[0], with.block[i].start, 1, 0, 0, 9), -EINVAL);
		}
		take_all();
		must_be(write(with.pipe[1], "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 64), 64);
		complete_all(16);
		give_back_all();
		for (unsigned i = 0; i < SIZES; i++) must(free_block(i) < 0);
		end();
	}
}

static void in_debug_mode_that_is_an_error(void **state)
{
	begin(state, 0, 0);
	must_be(hp_pool_debug(with.pool, HP_DEBUG_POISON), 0);
	struct block page = {hp_pages(with.pool, PAGE), PAGE}, object = {hp_cache_get(with.cache, 0), 2000},
				 small = {hp_malloc(with.pool, 100), 100};
	struct block *block[] = {&page, &object, &small};
	for (unsigned i = 0; i < 3; i++) must_be(hp_ring_read(with.ring, with.pipe[0], block[i]->start, 1, 0, 0, i), 0);
	must_be(hp_ring_submit(with.ring), 3);
	must_be(hp_page_free(with.pool, page.start), -EBUSY);
	must_be(hp_cache_put(with.cache, object.start), -EBUSY);
	must_be(hp_free(with.pool, small.start), -EBUSY);
	must_be(write(with.pipe[1], "xyz", 3), 3);
	for (unsigned i = 0; i < 3; i++) must_be(hp_ring_next(with.ring).result, 1);
	must(strchr("xyz", object.start[0]));
	must_be(hp_page_free(with.pool, page.start), 0);
	must_be(hp_cache_put(with.cache, object.start), 0);
	must_be(hp_free(with.pool, small.start), 0);
	for (unsigned i = 0; i < SIZES; i++) must_be(free_block(i), 0);
	end();
}

/* However a request ends, its pin does, too. */
static void every_end_lets_go(void **state)
{
	begin(state, 0, 0);
	for (unsigned way = 0; way < 4; way++) {
		if (way == 0) { /* cancelled */
			read_into_all();
			for (unsigned i = 0; i < SIZES; i++) must_be(hp_ring_cancel(with.ring, i, 0, 100), 0);
			for (unsigned i = 0; i < 2 * SIZES; i++) {
				struct hp_ring_completion completion = hp_ring_next(with.ring);
				must_be(completion.result, completion.user == 100 ? 0 : -ECANCELED);
			}
		} else if (way == 1) { /* an error */
			for (unsigned i = 0; i < SIZES; i++)
				must_be(hp_ring_read(with.ring, with.pipe[1], with.block[i].start, 8, 0, 0, i), 0);
			complete_all(-EBADF);
		} else if (way == 2) { /* never submitted */
			for (unsigned i = 0; i < SIZES; i++)
				must_be(hp_ring_read(with.ring, with.pipe[0], with.block[i].start, 8, 0, 0, i), 0);
			must_be(hp_stats(with.pool).pinned_blocks, SIZES);
			must_be(hp_ring_destroy(with.ring), 0);
			with.ring = hp_ring_on(with.pool, state, 0);
		} else { /* under way when the ring ends */
			read_into_all();
			must_be(free_block(2), 0);
			must_be(hp_ring_destroy(with.ring), 0);
			with.ring = hp_ring_on(with.pool, state, 0);
			must_be(write(with.pipe[1], "0123", 4), 4); /* nobody's any more */
			must(free_block(2) < 0);
			must(with.block[2].start = hp_malloc(with.pool, 700));
		}
		must_be(hp_stats(with.pool).pinned_blocks, 0);
		hp_must_be_sound(with.pool);
	}
	for (unsigned i = 0; i < SIZES; i++) must_be(free_block(i), 0);
	end();
}

static void six_at_once_on_a_block(void **state)
{
	begin(state, 0, 0);
	for (unsigned k = 0; k < SIZES; k++) {
		for (unsigned i = 0; i < LENT_PINS_MOST; i++)
			must_be(hp_ring_read(with.ring, with.pipe[0], with.block[k].start + i, 1, 0, 0, i), 0);
		must_be(LENT_PINS_MOST, 6); /* as ring.h says */
		must_be(hp_ring_read(with.ring, with.pipe[0], with.block[k].start, 1, 0, 0, 9), -EBUSY);
		must_be(hp_ring_submit(with.ring), 6);
		must_be(hp_ring_read(with.ring, with.pipe[0], with.block[k].start, 1, 0, 0, 9), -EBUSY);
		must_be(write(with.pipe[1], "x", 1), 1);
		must_be(hp_ring_next(with.ring).result, 1);
		must_be(hp_ring_read(with.ring, with.pipe[0], with.block[k].start + 5, 1, 0, 0, 9), 0);
		for (unsigned i = 0; i < 6; i++) must_be(write(with.pipe[1], "x", 1), 1);
		for (unsigned i = 0; i < 6; i++) must_be(hp_ring_next(with.ring).result, 1);
		for (unsigned i = 0; i < 6; i++) must_be(with.block[k].start[i], 'x');
		must_be(free_block(k), 0);
	}
	end();
}

/* A pool that is registered is not trimmed; one that is not is, but for what is under I/O. No byte goes astray: what was to land in the
 * pool does, in memory that others see there. */
static void trimming_leaves_io_alone(void **state)
{
	for (unsigned unregistered = 0; unregistered < 2; unregistered++) {
		bool registered = !unregistered && !hp_ring_is_plain(state);
		struct hp_pool_options options = hp_plain_options(16 * MIB);
		options.flags = HP_POOL_NO_AUTOGROW;
		hp_pool *pool;
		int ends[2];
		must_be(hp_pool_create(&options, &pool), 0);
		hp_pool *again = hp_attach_again(pool);
		hp_ring *ring = hp_ring_on(pool, state, unregistered ? HP_RING_UNREGISTERED : 0);
		must_be(pipe2(ends, O_CLOEXEC), 0);
		char *block = hp_pages(pool, 8 * PAGE), bytes[8 * PAGE];
		hp_off off = hp_pool_offset(pool, block);
		must_be(hp_ring_read(ring, ends[0], block, sizeof bytes, 0, 0, 1), 0);
		must_be(hp_ring_submit(ring), 1);
		int64_t trimmed = hp_pool_trim(pool, 0);
		if (registered)
			must_be(trimmed, -EBUSY);
		else
			must(trimmed > 0 && trimmed < (int64_t)(16 * MIB));
		must_be(hp_stats(pool).committed, registered ? 16 * MIB : 16 * MIB - (uint64_t)trimmed);
		/* freed, it still is not the kernel's to take */
		must_be(hp_page_free(again, hp_pool_pointer(again, off)), 0);
		trimmed = hp_pool_trim(again, 0);
		must(registered ? trimmed == -EBUSY : trimmed == 0);
		hp_cache_fill(bytes, sizeof bytes, 77);
		must_be(write(ends[1], bytes, sizeof bytes), sizeof bytes);
		/* seen through the other mapping before the completion lets go of it */
		must(hp_ring_submit_and_wait(ring, 1, FOREVER) >= 0);
		must(hp_cache_filled(hp_pool_pointer(again, off), sizeof bytes, 77));
		must_be(hp_ring_result(ring, 1), sizeof bytes);
		must_be(hp_ring_destroy(ring), 0);
		must(hp_pool_trim(pool, 0) > 0);
		must_be(hp_stats(pool).committed, 0);
		close(ends[0]);
		close(ends[1]);
		must_be(hp_pool_detach(again), 0);
		must_be(hp_pool_detach(pool), 0);
	}
}

/* ---- rings ---- */

static void *use_from_another_thread(void *arg)
{
	hp_ring *ring = arg;
	static char byte;
	must_be(hp_ring_read(ring, with.pipe[0], &byte, 1, 0, 0, 1), 0);
	must_be(hp_ring_submit(ring), ring->plain ? 1 : -EPERM);
	must_be(hp_ring_destroy(ring), -EPERM);
	return NULL;
}

static void one_thread_is_one(void **state)
{
	pthread_t thread;
	begin(state, 0, HP_RING_ONE_THREAD);
	must_be(pthread_create(&thread, NULL, use_from_another_thread, with.ring), 0);
	must_be(pthread_join(thread, NULL), 0);
	for (unsigned i = 0; i < SIZES; i++) must_be(free_block(i), 0);
	end();
}

/* A thread has places for 16 rings with the kernel, which are given back, also by a ring whose descriptor was closed by somebody. */
static void a_threads_places_are_given_back(void **state)
{
	if (hp_ring_is_plain(state)) hp_test_skip_one("plain system calls have no descriptor of their own");
	begin(state, 0, HP_RING_ONE_THREAD);
	bool registered = with.ring->enter_flags;
	struct held before = held_now();
	for (unsigned round = 0; round < 80; round++) {
		hp_ring *ring = hp_ring_on(with.pool, state, round & 4 ? 0 : HP_RING_ONE_THREAD);
		must_be(!!ring->enter_flags, registered && !(round & 4));
		if (round & 2) {
			must_be(hp_ring_read(ring, with.pipe[0], with.block[round % SIZES].start, 1, 0, 0, 1), 0);
			must_be(hp_ring_submit(ring), 1);
		}
		int number = ring->kernel.ring_fd;
		if (round & 1) must_be(dup2(with.pipe[0], number), number); /* somebody else's now */
		must_be(hp_ring_destroy(ring), 0);
		if (round & 1) must_be(close(number), 0); /* it is still there */
		must_be(hp_stats(with.pool).pinned_blocks, 0);
		must_hold_no_more(before);
	}
	for (unsigned i = 0; i < SIZES; i++) must_be(free_block(i), 0);
	end();
}

static void more_rings_than_a_pool_has_room_for(void **state)
{
	enum { MOST = POOL_RINGS };
	static hp_ring *rings[MOST + 1];
	struct hp_ring_options options = hp_ring_options_of(state, HP_RING_UNREGISTERED);
	unsigned count = 0;
	int error;
	options.depth = options.requests = options.files = options.buffers = 1;
	begin(state, 0, HP_RING_UNREGISTERED);
	while ((error = hp_ring_create(with.pool, &options, &rings[count])) == 0) must(++count < MOST);
	if (error == -EMFILE || error == -ENOMEM) print_message("no more than %u rings here\n", count);
	must(error == -ENOSPC || error == -EMFILE || error == -ENOMEM);
	must(!rings[count]);
	must_be(hp_ring_destroy(rings[--count]), 0);
	must_be(hp_ring_create(with.pool, &options, &rings[count]), 0);
	for (unsigned i = 0; i <= count; i++) must_be(hp_ring_destroy(rings[i]), 0);
	for (unsigned i = 0; i < SIZES; i++) must_be(free_block(i), 0);
	end();
}

static void pools_that_have_no_rings(void **state)
{
	struct hp_ring_options options = hp_ring_options_of(state, 0);
	hp_ring *ring;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0), *observer;
	int fds[3];
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_observe(fds, &observer), 0);
	must_be(hp_ring_create(observer, &options, &ring), -EROFS);
	must(!ring);
	hp_pool_detach(observer);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	struct hp_pool_options private = hp_plain_options(4 * MIB);
	private.flags = HP_POOL_PRIVATE;
	must_be(hp_pool_create(&private, &pool), 0);
	must_be(hp_ring_create(pool, &options, &ring), -ENOTSUP);
	must(!ring);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_both_engines(freed_under_io_is_free_afterwards),
		on_both_engines(in_debug_mode_that_is_an_error),
		on_both_engines(every_end_lets_go),
		on_both_engines(six_at_once_on_a_block),
		on_both_engines(trimming_leaves_io_alone),
		on_both_engines(one_thread_is_one),
		on_both_engines(a_threads_places_are_given_back),
		on_both_engines(more_rings_than_a_pool_has_room_for),
		on_both_engines(pools_that_have_no_rings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
