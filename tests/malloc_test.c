/* The contract of malloc.h, function by function, and who may free what when.
 *
 * Would catch: sizes that wrap around, an alignment that is not kept, a failed realloc that touched the block, objects that
 * are lost or handed out twice when their thread or process is gone, slabs that never go back to the page layer, memory
 * that one thread keeps while another is told that there is none. */
#include "hp_malloc.h"

#include <pthread.h>

#define must_fail(expression, error) \
	do { \
		errno = 0; \
		must((expression) == NULL); \
		must_be(errno, error); \
	} while (0)

/* ---- one function after the other ---- */

static void nothing_is_a_size(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	void *a = hp_malloc(pool, 0), *b = hp_malloc(pool, 0), *c = hp_calloc(pool, 0, 7), *d = hp_calloc(pool, 7, 0);
	void *e = hp_realloc(pool, NULL, 0), *f = hp_aligned_alloc(pool, 256, 0);
	void *all[] = {a, b, c, d, e, f};
	for (unsigned i = 0; i < 6; i++) {
		assert_non_null(all[i]);
		assert_true(hp_usable_size(pool, all[i]) >= 16);
		for (unsigned k = 0; k < i; k++) assert_ptr_not_equal(all[i], all[k]);
	}
	assert_int_equal((uintptr_t)f % 256, 0);
	for (unsigned i = 0; i < 6; i++) assert_int_equal(hp_free(pool, all[i]), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void null_is_a_block(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	assert_int_equal(hp_free(pool, NULL), 0);
	assert_int_equal(hp_usable_size(pool, NULL), 0);
	void *none[3] = {NULL, NULL, NULL};
	assert_int_equal(hp_free_bulk(pool, 3, none), 0);
	assert_int_equal(hp_free_bulk(pool, 0, NULL), 0);
	assert_int_equal(hp_malloc_bulk(pool, 8, 0, NULL), 0);
	void *block = hp_realloc(pool, NULL, 100);
	assert_non_null(block);
	assert_int_equal(hp_free(pool, block), 0);
	hp_pool_detach(pool);
}

static void sizes_beyond_all_memory(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	const size_t huge[] = {SIZE_MAX,         SIZE_MAX - 1,           SIZE_MAX - 4094,
	                       SIZE_MAX - 4095,  SIZE_MAX - 4096,        SIZE_MAX / 2,
	                       SIZE_MAX / 2 + 1, SIZE_MAX / 2 + 2,       (size_t)1 << 40,
	                       UINT32_MAX,       (size_t)UINT32_MAX + 1, (size_t)UINT32_MAX + 17,
	                       (size_t)1 << 31,  ((size_t)1 << 32) + 64, MIB + 1,
	                       2 * MIB};
	char *block = hp_malloc(pool, 1000), *pages = hp_malloc(pool, 100000);
	hp_fill(block, 1000, 1);
	hp_fill(pages, 100000, 2);
	uint64_t live = hp_stats(pool).live_blocks;
	for (unsigned i = 0; i < sizeof huge / sizeof *huge; i++) {
		must_fail(hp_malloc(pool, huge[i]), ENOMEM);
		must_fail(hp_calloc(pool, 1, huge[i]), ENOMEM);
		must_fail(hp_calloc(pool, huge[i], 1), ENOMEM);
		must_fail(hp_realloc(pool, NULL, huge[i]), ENOMEM);
		must_fail(hp_realloc(pool, block, huge[i]), ENOMEM);
		must_fail(hp_realloc(pool, pages, huge[i]), ENOMEM);
		for (size_t align = 1; align <= 2 * MIB; align *= 8) must_fail(hp_aligned_alloc(pool, align, huge[i]), ENOMEM);
		void *many[2];
		must_be(hp_malloc_bulk(pool, huge[i], 2, many), -ENOMEM);
	}
	must_be(hp_stats(pool).live_blocks, live);
	must(hp_filled(block, 1000, 1) && hp_filled(pages, 100000, 2));
	must_be(hp_free(pool, block), 0);
	must_be(hp_free(pool, pages), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void products_that_overflow(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	const size_t pair[][2] = {{SIZE_MAX, 2},
	                          {SIZE_MAX / 2 + 1, 2},
	                          {(size_t)1 << 32, (size_t)1 << 32},
	                          {SIZE_MAX / 3 + 1, 3},
	                          {((size_t)1 << 32) + 1, (size_t)1 << 32},
	                          {SIZE_MAX, SIZE_MAX}};
	for (unsigned i = 0; i < sizeof pair / sizeof *pair; i++) {
		must_fail(hp_calloc(pool, pair[i][0], pair[i][1]), ENOMEM);
		must_fail(hp_calloc(pool, pair[i][1], pair[i][0]), ENOMEM);
	}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void calloc_is_zero(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	const size_t sizes[] = {1, 16, 17, 100, 1000, 4096, 5000, 32768, 32769, 300000};
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			unsigned char *block = hp_calloc(pool, round ? sizes[i] : 1, round ? 1 : sizes[i]);
			assert_non_null(block);
			for (size_t k = 0; k < sizes[i]; k++) must_be(block[k], 0);
			memset(block, 0xa5, hp_usable_size(pool, block)); /* for the next round */
			assert_int_equal(hp_free(pool, block), 0);
		}
	hp_pool_detach(pool);
}

static void alignments_that_are_none(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	const size_t none[] = {0, 3, 5, 6, 7, 12, 24, 48, 100, 4095, 4097, 6144, SIZE_MAX, SIZE_MAX - 1};
	for (unsigned i = 0; i < sizeof none / sizeof *none; i++) must_fail(hp_aligned_alloc(pool, none[i], 64), EINVAL);
	/* a power of two that no pool can serve */
	must_fail(hp_aligned_alloc(pool, (size_t)1 << 62, 64), ENOMEM);
	must_fail(hp_aligned_alloc(pool, (size_t)1 << 63, 64), ENOMEM);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void every_alignment_up_to_2_mib(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(136 * MIB, 0); /* so large that a chunk has 2 MiB */
	must_be(hp_stats(pool).unit_size, 2 * MIB);
	const size_t sizes[] = {0,     1,     16,    31,    33,    100,   500,   1000,   1025,   4000, 4096,   4097,
	                        10000, 16384, 16385, 20000, 32767, 32768, 32769, 100000, 300000, MIB,  2 * MIB};
	enum { SIZES = sizeof sizes / sizeof *sizes };
	for (unsigned other = 0; other < 2; other++) {
		/* also at an address that the pool's creator did not choose */
		struct hp_attach_options elsewhere = {.struct_size = sizeof elsewhere, .elsewhere = true};
		int fds[3];
		hp_pool *at = pool;
		must_be(hp_pool_fds(pool, fds), 0);
		if (other) must_be(hp_pool_attach(fds, &elsewhere, &at), 0);
		for (size_t align = 1; align <= 2 * MIB; align *= 2) {
			void *block[SIZES][2];
			for (unsigned i = 0; i < SIZES; i++)
				for (unsigned k = 0; k < 2; k++) {
					size_t size = sizes[i];
					if (!(block[i][k] = hp_aligned_alloc(at, align, size)))
						fail_msg("%zu bytes aligned to %zu: %s", size, align, strerror(errno));
					if ((uintptr_t)block[i][k] % align || (uintptr_t)block[i][k] % 16)
						fail_msg("%zu bytes aligned to %zu at %p", size, align, block[i][k]);
					must(hp_usable_size(at, block[i][k]) >= size);
					hp_fill(block[i][k], hp_usable_size(at, block[i][k]), align + i * 2 + k);
				}
			for (unsigned i = 0; i < SIZES; i++)
				for (unsigned k = 0; k < 2; k++) {
					must(hp_filled(block[i][k], hp_usable_size(at, block[i][k]), align + i * 2 + k));
					must_be(hp_free(at, block[i][k]), 0);
				}
		}
		hp_purge(at);
		hp_must_be_empty(at);
		if (other) hp_pool_detach(at);
	}
	hp_pool_detach(pool);
}

static void usable_size_is_what_may_be_used(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	for (size_t size = 0; size <= 80000; size += size < 40000 ? 1 : 97) {
		char *block = hp_malloc(pool, size), *next = hp_malloc(pool, size);
		must(block && next);
		size_t usable = hp_usable_size(pool, block);
		must(usable >= size && (uintptr_t)block % 16 == 0);
		if (size <= 128)
			must(usable - size < 16 || size == 0);
		else
			must((usable - size) * 8 < usable);
		must(next + hp_usable_size(pool, next) <= block || block + usable <= next);
		block[0] = block[usable - 1] = 1;
		must_be(hp_free(pool, block), 0);
		must_be(hp_usable_size(pool, block), 0);
		must_be(hp_free(pool, next), 0);
	}
	hp_pool_detach(pool);
}

/* ---- realloc ---- */

static void realloc_keeps_what_both_sizes_hold(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	uint64_t random = hp_seed("realloc");
	size_t size = 0;
	char *block = NULL;
	uint64_t in_place = 0, moved = 0;
	for (unsigned i = 0; i < 20000; i++) {
		static const size_t most[] = {64, 300, 5000, 40000, 600000};
		size_t other = hp_below(&random, most[hp_below(&random, 5)]), kept = size < other ? size : other;
		char *was = block;
		if (block) hp_fill(block, size, i);
		block = hp_realloc(pool, block, other);
		must(block && hp_usable_size(pool, block) >= other);
		must(hp_filled(block, kept, i));
		in_place += block == was;
		moved += block != was;
		if (block != was && was) must_be(hp_usable_size(pool, was), 0);
		size = other;
	}
	must(in_place > 100 && moved > 100);
	print_message("%llu in place, %llu moved\n", (unsigned long long)in_place, (unsigned long long)moved);
	must_be(hp_free(pool, block), 0);
	hp_purge(pool);
	hp_must_be_empty(pool); /* none leaked */
	hp_pool_detach(pool);
}

static void realloc_in_place(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	/* within a class */
	char *block = hp_malloc(pool, 1000);
	size_t usable = hp_usable_size(pool, block);
	must(hp_realloc(pool, block, usable) == block);
	must(hp_realloc(pool, block, usable / 2 + 1) == block);
	/* pages, while those behind are free */
	char *pages = hp_malloc(pool, 10 * PAGE);
	must(hp_realloc(pool, pages, 20 * PAGE) == pages);
	must_be(hp_usable_size(pool, pages), 20 * PAGE);
	hp_fill(pages, 20 * PAGE, 3);
	must(hp_realloc(pool, pages, 12 * PAGE) == pages); /* the rest goes back: */
	must_be(hp_usable_size(pool, pages), 12 * PAGE);
	must(hp_filled(pages, 12 * PAGE, 3));
	char *behind = hp_malloc(pool, 9 * PAGE);
	must_be(behind - pages, 12 * (ptrdiff_t)PAGE);
	hp_fill(behind, 9 * PAGE, 4);
	/* and not over who lives there */
	char *moved = hp_realloc(pool, pages, 40 * PAGE);
	must(moved && moved != pages);
	must(hp_filled(moved, 12 * PAGE, 3) && hp_filled(behind, 9 * PAGE, 4));
	must_be(hp_free(pool, pages), -EALREADY);
	must_be(hp_free(pool, behind), 0);
	must_be(hp_free(pool, moved), 0);
	must_be(hp_free(pool, block), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void a_failed_realloc_leaves_the_block(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	void *rest[64];
	unsigned rests = 0;
	char *small = hp_malloc(pool, 100), *large = hp_malloc(pool, 100000);
	hp_fill(small, 100, 1);
	hp_fill(large, 100000, 2);
	while (rests < 64 && (rest[rests] = hp_malloc(pool, 40000))) rests++;
	must(rests < 64);
	must_fail(hp_realloc(pool, small, 50000), ENOMEM);
	must_fail(hp_realloc(pool, large, 300000), ENOMEM);
	must(hp_filled(small, 100, 1) && hp_filled(large, 100000, 2));
	must(hp_usable_size(pool, small) >= 100 && hp_usable_size(pool, large) >= 100000);
	/* smaller always succeeds */
	void *one;
	while (hp_page_alloc(pool, PAGE, 0, &one) == 0) {}
	char *less = hp_realloc(pool, large, 9000);
	must(less && hp_filled(less, 9000, 2));
	must_be(hp_free(pool, less), 0);
	must_be(hp_free(pool, small), 0);
	while (rests) must_be(hp_free(pool, rest[--rests]), 0);
	hp_must_be_sound(pool);
	hp_pool_detach(pool);
}

static void realloc_of_what_is_no_block(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	char *block = hp_malloc(pool, 100), *gone = hp_malloc(pool, 100), *pages = hp_malloc(pool, 50000), here[64];
	hp_fill(block, 100, 1);
	hp_free(pool, gone);
	must_fail(hp_realloc(pool, gone, 200), EINVAL);
	must_fail(hp_realloc(pool, block + 16, 200), EINVAL);
	must_fail(hp_realloc(pool, block + 1, 0), EINVAL);
	must_fail(hp_realloc(pool, pages + PAGE, 200), EINVAL);
	must_fail(hp_realloc(pool, here, 200), EINVAL);
	must(hp_filled(block, 100, 1));
	must_be(hp_free(pool, block), 0);
	must_be(hp_free(pool, pages), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* ---- many at once ---- */

static void bulk_is_all_or_nothing(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(2 * MIB, 0);
	static void *block[70000];
	for (size_t size = 32; size <= 50000; size = size * 5 / 2) {
		size_t fits = MIB / size;
		must_be(hp_malloc_bulk(pool, size, fits, block), 0);
		for (size_t i = 0; i < fits; i++) hp_fill(block[i], size, i);
		uint64_t free = hp_stats(pool).free;
		unsigned objects = hp_count_slabs(pool).objects;
		static void *more[70000];
		must_be(hp_malloc_bulk(pool, size, fits + fits / 2, more), -ENOMEM);
		must_be(hp_count_slabs(pool).objects, objects);
		for (size_t i = 0; i < fits; i++) must(hp_filled(block[i], size, i));
		/* a wrong one in the middle: told, and the others freed all the same */
		void *last = block[fits / 2];
		block[fits / 2] = &block;
		must_be(hp_free_bulk(pool, fits, block), -EINVAL);
		must(hp_filled(last, size, fits / 2));
		must_be(hp_free_bulk(pool, 1, &last), 0);
		must(hp_stats(pool).free >= free);
		hp_purge(pool);
		hp_must_be_empty(pool);
	}
	hp_pool_detach(pool);
}

/* ---- pools, handles ---- */

static void several_pools_in_one_process(void **state)
{
	(void)state;
	enum { POOLS = 5, BLOCKS = 200 };
	hp_pool *pool[POOLS];
	char *block[POOLS][BLOCKS];
	uint64_t random = hp_seed("several pools");
	for (unsigned p = 0; p < POOLS; p++) pool[p] = hp_plain_pool((8 + p) * MIB, p & 1 ? HP_POOL_FENCED : 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		for (unsigned p = 0; p < POOLS; p++) { /* another one at every call */
			size_t size = hp_below(&random, 5000);
			must(block[p][i] = hp_malloc(pool[p], size));
			must(hp_pool_offset(pool[p], block[p][i]) != HP_OFF_NONE);
			hp_fill(block[p][i], hp_usable_size(pool[p], block[p][i]), p * BLOCKS + i);
		}
	for (unsigned i = 0; i < BLOCKS; i++)
		for (unsigned p = 0; p < POOLS; p++) {
			must_be(hp_free(pool[(p + 1) % POOLS], block[p][i]), -EINVAL);
			must_be(hp_usable_size(pool[(p + 1) % POOLS], block[p][i]), 0);
			must(hp_filled(block[p][i], hp_usable_size(pool[p], block[p][i]), p * BLOCKS + i));
			must_be(hp_free(pool[p], block[p][i]), 0);
		}
	for (unsigned p = 0; p < POOLS; p++) {
		hp_purge(pool[p]);
		hp_must_be_empty(pool[p]);
		hp_pool_detach(pool[p]);
	}
}

static void two_handles_of_one_pool(void **state)
{
	(void)state;
	enum { BLOCKS = 3000 };
	hp_pool *pool = hp_plain_pool(8 * MIB, 0), *other = hp_attach_again(pool);
	static char *block[BLOCKS];
	for (unsigned i = 0; i < BLOCKS; i++) {
		must(block[i] = hp_malloc(i & 1 ? other : pool, i % 2000));
		if (i & 1) block[i] = hp_pool_pointer(pool, hp_pool_offset(other, block[i]));
		hp_fill(block[i], hp_usable_size(pool, block[i]), i);
	}
	must_be(hp_free(other, block[0]), -EINVAL); /* the same memory, but not that address */
	for (unsigned i = 0; i < BLOCKS; i++) {
		char *there = hp_pool_pointer(other, hp_pool_offset(pool, block[i]));
		must_be(hp_usable_size(other, there), hp_usable_size(pool, block[i]));
		must(hp_filled(there, hp_usable_size(other, there), i));
		must_be(i & 2 ? hp_free(other, there) : hp_free(pool, block[i]), 0);
		int error = i & 4 ? hp_free(other, there) : hp_free(pool, block[i]);
		must(error == -EALREADY || error == -EINVAL || error == -ENOENT); /* its slab may have gone with it */
	}
	hp_purge(pool);
	hp_purge(other);
	hp_must_be_had_whole(pool);
	hp_pool_detach(other);
	hp_pool_detach(pool);
}

static void a_default_pool(void **state)
{
	(void)state;
	hp_pool *pool = hp_pool_default();
	assert_non_null(pool);
	char *block = hp_malloc(NULL, 1000);
	must(block && hp_pool_offset(pool, block) != HP_OFF_NONE);
	hp_fill(block, 1000, 1);
	must(hp_usable_size(NULL, block) >= 1000);
	must(block = hp_realloc(NULL, block, 100000));
	must(hp_filled(block, 1000, 1));
	char *aligned = hp_aligned_alloc(NULL, 8192, 10), *zero = hp_calloc(NULL, 10, 10), here;
	must(aligned && (uintptr_t)aligned % 8192 == 0 && zero && zero[99] == 0);
	must_be(hp_free(NULL, &here), -EINVAL);
	must_be(hp_free(NULL, block), 0);
	must_be(hp_free(pool, aligned), 0);
	must_be(hp_free(NULL, zero), 0);
	must_be(hp_free(NULL, zero), -EALREADY);
	must_be(hp_free(NULL, NULL), 0);
	must_be(hp_usable_size(NULL, NULL), 0);
}

static void who_only_looks_gets_nothing(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0), *observer;
	int fds[3];
	void *block = hp_malloc(pool, 100);
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_observe(fds, &observer), 0);
	must_fail(hp_malloc(observer, 10), EROFS);
	must_fail(hp_malloc(observer, 100000), EROFS);
	must_fail(hp_calloc(observer, 1, 10), EROFS);
	must_fail(hp_aligned_alloc(observer, 64, 10), EROFS);
	must_fail(hp_aligned_alloc(observer, 65536, 10), EROFS);
	must_be(hp_free(observer, block), -EROFS);
	must_be(hp_free(observer, NULL), 0);
	must_be(hp_pool_detach(observer), 0);
	must_be(hp_free(pool, block), 0);
	hp_pool_detach(pool);
}

static void *one_small_block(void *pool)
{
	void *block = hp_malloc(pool, 10);
	return block ? block : (void *)(uintptr_t)errno;
}

static void a_thread_without_a_slot(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(MIB);
	options.max_threads = 1;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	void *mine = hp_malloc(pool, 10), *result;
	must(mine);
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, one_small_block, pool), 0);
	must_be(pthread_join(thread, &result), 0);
	must_be((uintptr_t)result, EUSERS);
	must_be(hp_free(pool, mine), 0);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_a_size),
		cmocka_unit_test(null_is_a_block),
		cmocka_unit_test(sizes_beyond_all_memory),
		cmocka_unit_test(products_that_overflow),
		cmocka_unit_test(calloc_is_zero),
		cmocka_unit_test(alignments_that_are_none),
		cmocka_unit_test(every_alignment_up_to_2_mib),
		cmocka_unit_test(usable_size_is_what_may_be_used),
		cmocka_unit_test(realloc_keeps_what_both_sizes_hold),
		cmocka_unit_test(realloc_in_place),
		cmocka_unit_test(a_failed_realloc_leaves_the_block),
		cmocka_unit_test(realloc_of_what_is_no_block),
		cmocka_unit_test(bulk_is_all_or_nothing),
		cmocka_unit_test(several_pools_in_one_process),
		cmocka_unit_test(two_handles_of_one_pool),
		cmocka_unit_test(a_default_pool),
		cmocka_unit_test(who_only_looks_gets_nothing),
		cmocka_unit_test(a_thread_without_a_slot),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
