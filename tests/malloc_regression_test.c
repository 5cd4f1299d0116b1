/* The defects of the ancestor's malloc (TSLoad's mempool), each as a test of ours. The numbers are those of the list that
 * was made of them by running it. */
#include "hp_malloc.h"

#include <pthread.h>

static hp_pool *pool;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(2 * MIB, 0); /* the size of its segment */
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
	return 0;
}

static uint64_t used(void)
{
	struct hp_pool_stats stats = hp_stats(pool);
	return stats.committed - stats.free;
}

/* 1: the second malloc(0) aborted. */
static void zero_bytes_many_times(void **state)
{
	(void)state;
	void *block[1000];
	for (unsigned i = 0; i < 1000; i++) {
		must(block[i] = hp_malloc(pool, 0));
		for (unsigned k = i > 8 ? i - 8 : 0; k < i; k++) must(block[k] != block[i]);
	}
	for (unsigned i = 0; i < 1000; i++) must_be(hp_free(pool, block[i]), 0);
}

/* 2: blocks of 8 KiB were never freed: 300 of them, one after the other, killed a segment of 2 MiB. */
static void eight_kib_300_times(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		void *block = hp_malloc(pool, 8192);
		must(block);
		must_be(hp_free(pool, block), 0);
	}
	for (size_t size = 4096; size <= 65536; size += 4096) /* and the sizes around */
		for (unsigned i = 0; i < 600; i++) {
			void *block = hp_malloc(pool, size);
			must(block);
			must_be(hp_free(pool, block), 0);
		}
}

/* 3: several pages took one page too many, which never came back. */
static void pages_and_not_one_more(void **state)
{
	(void)state;
	for (unsigned pages = 9; pages <= 64; pages++) {
		uint64_t before = used();
		void *block = hp_malloc(pool, pages * PAGE);
		must(block);
		must_be(hp_usable_size(pool, block), pages * PAGE);
		must_be(used() - before, pages * PAGE);
		must_be(hp_free(pool, block), 0);
		must_be(used(), before);
	}
}

/* 4: freeing several pages cleared from page 0 on, and so freed others' live blocks. */
static void freeing_pages_frees_no_other(void **state)
{
	(void)state;
	enum { COUNT = 24 };
	char *small[COUNT], *large[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		must(small[i] = hp_malloc(pool, 256));
		must(large[i] = hp_malloc(pool, (9 + i % 5) * PAGE));
		hp_fill(small[i], 256, i);
		hp_fill(large[i], (9 + i % 5) * PAGE, 100 + i);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		must_be(hp_free(pool, large[(i * 7) % COUNT]), 0);
		for (unsigned k = 0; k < COUNT; k++) must(hp_filled(small[k], 256, k));
		for (unsigned k = i + 1; k < COUNT; k++) {
			unsigned left = (k * 7) % COUNT;
			must(hp_filled(large[left], (9 + left % 5) * PAGE, 100 + left));
			must_be(hp_usable_size(pool, large[left]), (9 + left % 5) * PAGE);
		}
		/* and what is allocated now is nobody's */
		char *more = hp_malloc(pool, 9 * PAGE);
		must(more);
		memset(more, 0xff, 9 * PAGE);
		must_be(hp_free(pool, more), 0);
	}
	for (unsigned i = 0; i < COUNT; i++) must_be(hp_free(pool, small[i]), 0);
}

/* 5: every realloc leaked a block. */
static void realloc_leaks_nothing(void **state)
{
	(void)state;
	char *block = hp_malloc(pool, 100);
	for (unsigned i = 0; i < 20000; i++) {
		static const size_t sizes[] = {100, 101, 112, 90, 500, 4000, 33000, 40000, 20000, 100};
		must(block = hp_realloc(pool, block, sizes[i % 10]));
		must(i % 100 || hp_count_slabs(pool).objects + hp_stats(pool).live_blocks == 1);
	}
	must_be(hp_free(pool, block), 0);
}

/* 6: the usable size counted a header that is not the caller's: 104 for 100, and realloc in place ran over the end. */
static void all_that_is_usable_is(void **state)
{
	(void)state;
	enum { COUNT = 500 };
	char *block[COUNT];
	size_t usable[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		must(block[i] = hp_malloc(pool, i + 1));
		usable[i] = hp_usable_size(pool, block[i]);
		must(hp_realloc(pool, block[i], usable[i]) == block[i]); /* so much is there without moving */
		hp_fill(block[i], usable[i], i);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		must(hp_filled(block[i], usable[i], i));
		must_be(hp_free(pool, block[i]), 0);
	}
}

/* 7: pointers were only 4-byte aligned. 8: objects of 200 bytes began at offset 50. */
static void aligned_to_16_at_least(void **state)
{
	(void)state;
	for (size_t size = 0; size < 5000; size++) {
		void *block = hp_malloc(pool, size), *large = hp_malloc(pool, 40000 + size);
		must(block && large);
		must_be((uintptr_t)block % 16, 0);
		must_be((uintptr_t)large % 16, 0);
		must_be(hp_free(pool, block), 0);
		must_be(hp_free(pool, large), 0);
	}
}

/* 8, too: the bitmap of a slab lay over its first object. */
static void nothing_of_ours_lies_in_objects(void **state)
{
	(void)state;
	static char *block[4000];
	unsigned count = 0;
	for (; count < 4000; count++) {
		must(block[count] = hp_malloc(pool, 200));
		hp_fill(block[count], hp_usable_size(pool, block[count]), count);
	}
	for (unsigned i = 0; i < count; i += 2) must_be(hp_free(pool, block[i]), 0);
	for (unsigned i = 1; i < count; i += 2) must(hp_filled(block[i], hp_usable_size(pool, block[i]), i));
	/* nor is anything written into free ones */
	for (unsigned i = 0; i < count; i += 2) must(hp_filled(block[i], 200, i));
	for (unsigned i = 1; i < count; i += 2) must_be(hp_free(pool, block[i]), 0);
}

/* 9: pages of slabs were never returned. */
static void slabs_are_returned(void **state)
{
	(void)state;
	for (unsigned c = 0; c < SLAB_MALLOC_CLASSES; c++) {
		void *block[64];
		for (unsigned i = 0; i < 64; i++) block[i] = hp_malloc(pool, slab_malloc_size(c));
		for (unsigned i = 0; i < 64; i++) must_be(hp_free(pool, block[i]), 0);
	}
	hp_must_be_had_whole(pool);
}

/* 10: free(NULL) was a crash, and realloc(NULL) unknown. */
static void null(void **state)
{
	(void)state;
	must_be(hp_free(pool, NULL), 0);
	void *block = hp_realloc(pool, NULL, 50);
	must(block);
	must_be(hp_free(pool, block), 0);
}

/* 11: only the first free place was tried, so larger holes behind it were not found. */
static void holes_behind_smaller_holes(void **state)
{
	(void)state;
	enum { COUNT = 12 };
	char *block[COUNT], *wall[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		must(block[i] = hp_malloc(pool, (9 + i) * PAGE)); /* ever larger holes */
		must(wall[i] = hp_malloc(pool, 9 * PAGE));
	}
	void *page[512];
	unsigned pages = 0;
	while (hp_page_alloc(pool, PAGE, 0, &page[pages]) == 0) pages++;
	for (unsigned i = 0; i < COUNT; i++) must_be(hp_free(pool, block[i]), 0);
	for (unsigned i = COUNT; i-- > 0;) must(block[i] = hp_malloc(pool, (9 + i) * PAGE));
	must(!hp_malloc(pool, 9 * PAGE));
	for (unsigned i = 0; i < COUNT; i++) {
		must_be(hp_free(pool, block[i]), 0);
		must_be(hp_free(pool, wall[i]), 0);
	}
	while (pages) must_be(hp_page_free(pool, page[--pages]), 0);
}

/* 12: taking back a run that did not fit freed what was in its way; and runs went from the end on to the start. */
static void what_does_not_fit_harms_nobody(void **state)
{
	(void)state;
	enum { COUNT = 20 };
	char *block[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		must(block[i] = hp_malloc(pool, 16 * PAGE));
		hp_fill(block[i], 16 * PAGE, i);
	}
	/* first and last are free: no run over the end */
	for (unsigned i = 0; i < COUNT; i += 2) {
		must_be(hp_free(pool, block[i]), 0);
		for (size_t pages = 17; pages < 512; pages += 45) {
			char *run = hp_malloc(pool, pages * PAGE);
			if (run) {
				must(run + pages * PAGE <= pool->base + 2 * MIB);
				memset(run, 0, pages * PAGE);
				must_be(hp_free(pool, run), 0);
			}
			for (unsigned k = 0; k < COUNT; k++)
				if (k > i || k & 1) must(hp_filled(block[k], 16 * PAGE, k));
		}
	}
	for (unsigned i = 1; i < COUNT; i += 2) must_be(hp_free(pool, block[i]), 0);
}

static _Atomic unsigned refused;

static void *contend(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *block[8] = {0};
	for (unsigned n = 0; n < (HP_TEST_SANITIZER ? 2000u : 20000u); n++) {
		unsigned i = (unsigned)hp_below(&random, 8);
		if (block[i]) must_be(hp_free(pool, block[i]), 0);
		block[i] = hp_malloc(pool, 64);
		refused += !block[i];
	}
	for (unsigned i = 0; i < 8; i++) must_be(hp_free(pool, block[i]), 0);
	return NULL;
}

/* 13: contention looked like exhaustion. 14: frees allocated, could abort, and used what they had freed. */
static void contention_is_no_shortage(void **state)
{
	(void)state;
	pthread_t thread[16];
	refused = 0;
	for (uintptr_t i = 0; i < 16; i++) must_be(pthread_create(&thread[i], NULL, contend, (void *)i), 0);
	for (unsigned i = 0; i < 16; i++) must_be(pthread_join(thread[i], NULL), 0);
	must_be(refused, 0);
}

/* 14: freeing works when there is no memory at all. */
static void freeing_needs_no_memory(void **state)
{
	(void)state;
	static void *block[70000];
	unsigned count = 0;
	while (count < 70000 && (block[count] = hp_malloc(pool, 32))) count++;
	must(count < 70000);
	must_be(hp_stats(pool).free < 8 * PAGE, 1);
	for (unsigned i = 0; i < count; i++) must_be(hp_free(pool, block[(i * 7919ull) % count]), 0);
	must_be(hp_count_slabs(pool).objects, 0);
}

/* 15: 16 MiB were the largest block, and being out of memory the end of the program. */
static void blocks_larger_than_16_mib(void **state)
{
	(void)state;
	hp_pool *large = hp_plain_pool(80 * MIB, 0);
	char *block = hp_malloc(large, 70 * MIB);
	must(block);
	must_be(hp_usable_size(large, block), 70 * MIB);
	block[0] = block[70 * MIB - 1] = 1;
	errno = 0;
	must(!hp_malloc(large, 20 * MIB));
	must_be(errno, ENOMEM);
	must_be(hp_free(large, block), 0);
	hp_must_be_empty(large);
	must_be(hp_pool_detach(large), 0);
}

#define ROW(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ROW(zero_bytes_many_times),      ROW(eight_kib_300_times),
		ROW(pages_and_not_one_more),     ROW(freeing_pages_frees_no_other),
		ROW(realloc_leaks_nothing),      ROW(all_that_is_usable_is),
		ROW(aligned_to_16_at_least),     ROW(nothing_of_ours_lies_in_objects),
		ROW(slabs_are_returned),         ROW(null),
		ROW(holes_behind_smaller_holes), ROW(what_does_not_fit_harms_nobody),
		ROW(contention_is_no_shortage),  ROW(freeing_needs_no_memory),
		ROW(blocks_larger_than_16_mib),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
