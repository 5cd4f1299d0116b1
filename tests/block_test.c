/* The ready-made caches of blocks, and their report.
 *
 * Catches: two caches where there is to be one, blocks of another size or not at a page, a cache of the reserved name that
 * is taken for one of blocks, memory that reclaiming leaves or takes with blocks in it, a report that does not agree with
 * what is out, a text that writes beyond its room. */
#include "hp_cache.h"
#include <hugepool/block.h>
#include <sched.h>

static struct hp_block_report report_of(hp_pool *pool)
{
	struct hp_block_report report = {.struct_size = sizeof report};
	must_be(hp_block_report(pool, &report), 0);
	return report;
}

static void one_of_each_for_all(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(32 * MIB, 0), *again = hp_attach_again(pool);
	struct hp_block_report report = report_of(pool);
	must_be(report.of[HP_BLOCK_64K].made + report.of[HP_BLOCK_PAGE].made, 0);
	must_be(hp_block_reclaim(pool), 0);
	static const size_t sizes[HP_BLOCKS] = {65536, 4096};
	for (hp_block block = HP_BLOCK_64K; block < HP_BLOCKS; block++) {
		hp_cache *mine, *yours;
		must_be(hp_block_size(block), sizes[block]);
		must_be(hp_block_cache(pool, block, &mine), 0);
		must_be(hp_block_cache(again, block, &yours), 0);
		must_be(hp_cache_numbers(mine).size, sizes[block]);
		char *got[40];
		for (unsigned i = 0; i < 40; i++) {
			must(got[i] = hp_cache_get(mine, 0));
			must_be((uintptr_t)got[i] % PAGE, 0);
			hp_cache_fill(got[i], sizes[block], i);
		}
		must_be(hp_cache_numbers(yours).in_use, 40);
		for (unsigned i = 0; i < 40; i++) { /* put where it was not got */
			char *there = (char *)hp_pool_pointer(again, hp_pool_offset(pool, got[i]));
			must(hp_cache_filled(there, sizes[block], i));
			must_be(hp_cache_put(yours, there), 0);
			must_be(hp_cache_put(yours, there), -EALREADY);
		}
		must_be(hp_cache_numbers(mine).in_use, 0);
		hp_cache_close(yours);
		must_be(hp_cache_destroy(mine), 0);
	}
	must_be(hp_pool_detach(again), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void reclaiming_and_reporting(void **state)
{
	(void)state;
	enum { MANY = 100 };
	hp_pool *pool = hp_plain_pool(32 * MIB, 0), *observer;
	int fds[3];
	char text[20000], small[50];
	hp_cache *large, *page;
	char *of_large[MANY], *of_page[MANY];
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_observe(fds, &observer), 0);
	must(hp_block_report_text(observer, text, sizeof text) > 0);
	must(strstr(text, "blocks of 65536 bytes: none\n"));
	must_be(hp_block_cache(pool, HP_BLOCK_64K, &large), 0);
	must_be(hp_block_cache(pool, HP_BLOCK_PAGE, &page), 0);
	must_be(hp_cache_get_bulk(large, 0, MANY, (void **)of_large), 0);
	must_be(hp_cache_get_bulk(page, 0, MANY, (void **)of_page), 0);
	struct hp_block_report report = report_of(observer);
	for (unsigned i = 0; i < HP_BLOCKS; i++) {
		const struct hp_block_stats *of = &report.of[i];
		must_be(of->made, 1);
		must_be(of->size, hp_block_size((hp_block)i));
		must_be(of->in_use, MANY);
		must_be(of->slabs, of->full + of->partial + of->empty);
		must_be(of->bytes, (of->in_use + of->free) * of->size); /* nothing is wasted */
	}
	must(report.of[HP_BLOCK_PAGE].full > 0);
	must_be(hp_cache_put_bulk(large, MANY - 1, (void **)of_large), 0);
	for (unsigned i = 0; i < MANY; i++)
		if (i != 50) must_be(hp_cache_put(page, of_page[i]), 0);
	hp_cache_fill(of_page[50], 4096, 1);
	hp_cache_fill(of_large[MANY - 1], 65536, 2);
	must(hp_block_reclaim(pool) >= 0);
	report = report_of(pool);
	must_be(report.of[HP_BLOCK_64K].slabs, 1);
	must_be(report.of[HP_BLOCK_64K].full, 1);
	must_be(report.of[HP_BLOCK_PAGE].slabs, 1);
	must_be(report.of[HP_BLOCK_PAGE].partial, 1);
	must(hp_cache_filled(of_page[50], 4096, 1));
	must(hp_cache_filled(of_large[MANY - 1], 65536, 2));
	int64_t length = hp_block_report_text(pool, text, sizeof text);
	must_be(length, strlen(text));
	must(strstr(text,
	            "blocks of 65536 bytes: 1 out, 0 free, in 1 slabs (1 full, 0 partly, 0 not at all out); 65536 bytes"));
	must(strstr(text, "blocks of 4096 bytes: 1 out"));
	char line[100];
	snprintf(line, sizeof line, "  at 0x%llx: 1 of 1 out",
	         (unsigned long long)hp_pool_offset(pool, of_large[MANY - 1]));
	must(strstr(text, line));
	memset(small, 0x11, sizeof small);
	must_be(hp_block_report_text(pool, small, 30), length);
	must_be(strlen(small), 29);
	must_be(small[30], 0x11);
	must_be(hp_block_report_text(pool, NULL, 0), length);
	must_be(hp_cache_put(large, of_large[MANY - 1]), 0);
	must_be(hp_cache_put(page, of_page[50]), 0);
	must(hp_block_reclaim(pool) >= 0);
	report = report_of(pool);
	must_be(report.of[HP_BLOCK_64K].bytes + report.of[HP_BLOCK_PAGE].bytes, 0);
	hp_must_be_empty(pool);
	must_be(hp_block_reclaim(pool), 0);
	hp_cache_close(large);
	hp_cache_close(page);
	must_be(hp_pool_detach(observer), 0);
	must_be(hp_pool_detach(pool), 0);
}

static void what_makes_no_sense(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	struct hp_block_report report = {.struct_size = 8};
	hp_cache *cache, *other;
	must_be(hp_block_cache(pool, (hp_block)2, &cache), -EINVAL);
	must_be(hp_block_cache(pool, (hp_block)-1, &cache), -EINVAL);
	must_be(hp_block_cache(NULL, HP_BLOCK_PAGE, &cache), -EINVAL);
	must_be(hp_block_size((hp_block)2), 0);
	must_be(hp_block_report(pool, &report), -EINVAL);
	must_be(hp_block_report(pool, NULL), -EINVAL);
	must_be(hp_block_reclaim(NULL), -EINVAL);
	must_be(hp_block_report_text(NULL, NULL, 0), -EINVAL);
	/* somebody's own cache of that name */
	other = hp_cache_make(pool, HP_BLOCK_NAME_PAGE, 100, 0);
	must_be(hp_block_cache(pool, HP_BLOCK_PAGE, &cache), -EPROTO);
	must(!cache);
	must_be(hp_block_reclaim(pool), 0);
	must_be(report_of(pool).of[HP_BLOCK_PAGE].made, 0);
	must_be(hp_cache_destroy(other), 0);
	other = hp_cache_make(pool, HP_BLOCK_NAME_64K, 65536, 0); /* of blocks that need not begin at a page */
	must_be(hp_block_cache(pool, HP_BLOCK_64K, &cache), -EPROTO);
	must_be(hp_cache_destroy(other), 0);
	must_be(hp_block_cache(pool, HP_BLOCK_64K, &cache), 0);
	must_be(hp_cache_destroy(cache), 0);
	must_be(hp_pool_detach(pool), 0);
}

/* Processes that ask at the same time get the same cache. */
static void asked_for_at_once(void **state)
{
	(void)state;
	enum { CHILDREN = 6 };
	_Atomic uint64_t *at = hp_shared(PAGE);
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	for (unsigned round = 0; round < 10; round++) {
		pid_t pid[CHILDREN];
		atomic_store(&at[0], 0);
		for (unsigned i = 0; i < CHILDREN; i++) {
			if ((pid[i] = hp_fork())) continue;
			hp_cache *cache;
			atomic_fetch_add(&at[0], 1);
			while (atomic_load(&at[0]) < CHILDREN) sched_yield();
			must_be(hp_block_cache(pool, HP_BLOCK_PAGE, &cache), 0);
			char *block = hp_cache_get(cache, HP_CACHE_WAIT);
			must(block);
			memset(block, (int)i + 1, PAGE);
			atomic_store(&at[1 + i], hp_pool_offset(pool, block));
			_exit(0);
		}
		for (unsigned i = 0; i < CHILDREN; i++) must_be(hp_wait_for(pid[i]), 0);
		hp_cache *cache;
		must_be(hp_block_cache(pool, HP_BLOCK_PAGE, &cache), 0);
		must_be(hp_cache_numbers(cache).in_use, CHILDREN);
		for (unsigned i = 0; i < CHILDREN; i++) {
			char *block = hp_pool_pointer(pool, atomic_load(&at[1 + i]));
			must_be(block[0], i + 1);
			must_be(block[PAGE - 1], i + 1);
			must_be(hp_cache_put(cache, block), 0);
		}
		must_be(hp_cache_destroy(cache), 0);
	}
	must_be(hp_pool_detach(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_of_each_for_all),
		cmocka_unit_test(reclaiming_and_reporting),
		cmocka_unit_test(what_makes_no_sense),
		cmocka_unit_test(asked_for_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
