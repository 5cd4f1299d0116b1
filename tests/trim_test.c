/* Giving memory back: only what is wholly free, down to what is to be kept, from the end; what is left is untouched and
 * what was given back can be had again. Would catch a page of a live block that becomes zero, memory that sleeping owners
 * keep from being given back, and memory that is given back on paper only. */
#include "hp_process.h"

#include <pthread.h>
#include <sched.h>

static hp_pool *pool;
static struct said said;
static uint64_t unit;

static int set_up(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(8 * MIB);
	options.capacity = 16 * MIB;
	options.flags = HP_POOL_NO_AUTOGROW;
	options.log = said_log;
	options.log_arg = &said;
	memset(&said, 0, sizeof said);
	must_be(hp_pool_create(&options, &pool), 0);
	unit = hp_stats(pool).unit_size;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must(hp_pool_recover(pool) >= 0);
	data_must_be_exact(pool);
	struct hp_pool_stats stats = hp_stats(pool);
	must_be(stats.live_blocks, 0);
	must_be(stats.free, stats.committed);
	hp_must_be_sound(pool);
	must_be(hp_pool_detach(pool), 0);
	return 0;
}

static void down_to_what_is_kept(void **state)
{
	(void)state;
	assert_int_equal(hp_pool_trim(NULL, 0), -EINVAL);
	assert_int_equal(hp_pool_trim(pool, UINT64_MAX), 0);
	assert_int_equal(hp_pool_trim(pool, 8 * MIB), 0);
	assert_int_equal(hp_pool_trim(pool, 6 * MIB), 2 * MIB);
	data_must_be_exact(pool);
	assert_int_equal(hp_stats(pool).committed, 6 * MIB);
	assert_int_equal(hp_stats(pool).capacity, 16 * MIB);
	assert_int_equal(hp_stats(pool).largest, 6 * MIB); /* the end was given back */
	assert_int_equal(hp_pool_trim(pool, 6 * MIB), 0);
	assert_int_equal(hp_pool_trim(pool, 0), 6 * MIB);
	assert_int_equal(data_held(pool), 0);
	assert_int_equal(hp_pool_trim(pool, 0), 0);
	void *block = pool;
	assert_int_equal(hp_page_alloc(pool, PAGE, 0, &block), -ENOMEM);
	assert_null(block);
	assert_int_equal(hp_pool_grow(pool, 16 * MIB, NULL, NULL), 0);
	pool_must_work(pool, 16 * MIB);
	hp_must_be_empty(pool);
	assert_null(strstr(said.text, "dead")); /* nobody died */
}

static void what_is_in_use_stays(void **state)
{
	(void)state;
	uint64_t random = hp_seed("what_is_in_use_stays");
	size_t chunk = unit / PAGE;
	for (int round = 0; round < (HP_TEST_SANITIZER ? 5 : 40); round++) {
		void *block[64];
		size_t pages[64];
		unsigned count = 0;
		for (unsigned i = 0; i < 64; i++) {
			pages[count] = hp_below(&random, 4) ? 1 + hp_below(&random, 20) : 1 + hp_below(&random, 3 * chunk);
			if (hp_page_alloc(pool, pages[count] * PAGE, hp_below(&random, 4) ? 0 : HP_PAGE_PROCESS, &block[count]) < 0)
				continue;
			hp_mark(block[count], pages[count], round * 1000u + i);
			pages[count] |= (size_t)(round * 1000u + i) << 32; /* the mark */
			count++;
		}
		/* most of them go, so that there is something to give back between the others */
		for (unsigned i = 0; i < count;) {
			if (hp_below(&random, 10) == 0) {
				i++;
				continue;
			}
			must_be(hp_page_free(pool, block[i]), 0);
			block[i] = block[--count];
			pages[i] = pages[count];
		}
		uint64_t keep = hp_below(&random, 2) ? 0 : hp_below(&random, 8 * MIB), before = hp_stats(pool).committed;
		int64_t given = hp_pool_trim(pool, keep);
		assert_true(given >= 0);
		struct hp_pool_stats stats = hp_stats(pool);
		assert_int_equal(stats.committed, before - (uint64_t)given);
		data_must_be_exact(pool);
		hp_must_be_sound(pool);
		assert_int_equal(stats.live_blocks, count);
		for (unsigned i = 0; i < count; i++) {
			size_t n = pages[i] & 0xffffffffu;
			assert_int_equal(hp_page_size(pool, block[i]), n * PAGE);
			assert_true(hp_marked(block[i], n, pages[i] >> 32));
		}
		/* wholly free units are all gone when nothing is kept: what is left holds something */
		if (keep == 0) assert_true(stats.committed <= (uint64_t)count * 4 * unit);
		if (stats.committed < 8 * MIB) assert_int_equal(hp_pool_grow(pool, 8 * MIB - stats.committed, NULL, NULL), 0);
		for (unsigned i = 0; i < count; i++) {
			size_t n = pages[i] & 0xffffffffu;
			assert_true(hp_marked(block[i], n, pages[i] >> 32));
			assert_int_equal(hp_page_free(pool, block[i]), 0);
		}
	}
	/* what had holes is whole again */
	uint64_t missing = 16 * MIB - hp_stats(pool).committed;
	assert_int_equal(hp_pool_grow(pool, missing, NULL, NULL), 0);
	hp_must_be_empty(pool);
}

/* The freer's stale knowledge: a block's address, freed, and its memory given back. */
static void addresses_without_memory(void **state)
{
	(void)state;
	void *block;
	assert_int_equal(hp_page_alloc(pool, MIB, 0, &block), 0);
	assert_int_equal(hp_page_free(pool, block), 0);
	assert_int_equal(hp_pool_trim(pool, 0), 8 * MIB);
	assert_true(hp_page_free(pool, block) < 0);
	assert_true(hp_page_size(pool, block) < 0);
	assert_true(hp_page_zero(pool, block, PAGE) < 0);
	assert_int_equal(data_held(pool), 0); /* none of these touched it */
	hp_must_be_sound(pool);
}

/* ---- beside others ---- */

static void sleeping(const struct child *me, void *arg)
{
	void *block[3];
	(void)arg;
	for (int i = 0; i < 3; i++) must_be(hp_page_alloc(pool, PAGE, i == 2 ? HP_PAGE_PROCESS : 0, &block[i]), 0);
	for (int i = 0; i < 3; i++) must_be(hp_page_free(pool, block[i]), 0);
	child_here(me); /* owns units, uses none */
	must_be(hp_page_alloc(pool, PAGE, 0, &block[0]), -ENOMEM);
	child_here(me);
	for (int i = 0; i < 3; i++) must_be(hp_page_alloc(pool, PAGE, i == 2 ? HP_PAGE_PROCESS : 0, &block[i]), 0);
	for (int i = 0; i < 3; i++) must_be(hp_page_free(pool, block[i]), 0);
	must_be(hp_pool_detach(pool), 0);
}

static void sleeping_owners_do_not_hold_it_up(void **state)
{
	(void)state;
	struct child child[4];
	for (int i = 0; i < 4; i++) {
		child[i] = child_start(sleeping, NULL);
		assert_true(child_hear(&child[i]));
	}
	assert_int_equal(hp_pool_trim(pool, 0), 8 * MIB);
	assert_int_equal(data_held(pool), 0);
	for (int i = 0; i < 4; i++) {
		child_say(&child[i]);
		assert_true(child_hear(&child[i]));
	}
	assert_int_equal(hp_pool_grow(pool, 8 * MIB, NULL, NULL), 0);
	for (int i = 0; i < 4; i++) child_finish(&child[i]);
	hp_must_be_empty(pool);
}

static _Atomic bool over;

static void *allocate_and_check(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *block[16] = {0};
	size_t pages[16];
	unsigned got = 0;
	for (unsigned round = 0; !atomic_load_explicit(&over, memory_order_relaxed); round++) {
		unsigned k = (unsigned)hp_below(&random, 16);
		if (block[k]) {
			must(hp_marked(block[k], pages[k], (uintptr_t)block[k]));
			must_be(hp_page_free(pool, block[k]), 0);
			block[k] = NULL;
			continue;
		}
		pages[k] = hp_below(&random, 8) ? 1 + hp_below(&random, 4) : 1 + hp_below(&random, 2 * unit / PAGE);
		int error = hp_page_alloc(pool, pages[k] * PAGE, round & 8 ? HP_PAGE_PROCESS : 0, &block[k]);
		must(error == 0 || error == -ENOMEM);
		if (error == 0) {
			hp_mark(block[k], pages[k], (uintptr_t)block[k]);
			got++;
		}
	}
	for (int k = 0; k < 16; k++) {
		if (!block[k]) continue;
		must(hp_marked(block[k], pages[k], (uintptr_t)block[k]));
		must_be(hp_page_free(pool, block[k]), 0);
	}
	must(got > 0);
	return NULL;
}

static void at_work(const struct child *me, void *arg)
{
	pthread_t thread;
	child_say(me);
	must_be(pthread_create(&thread, NULL, allocate_and_check, arg), 0);
	child_hear(me);
	atomic_store(&over, true);
	must_be(pthread_join(thread, NULL), 0);
	must_be(hp_pool_detach(pool), 0);
}

/* Two trim and grow all the time; nobody's block is hurt, in this process or another. */
static void while_others_allocate(void **state)
{
	(void)state;
	struct child child[2];
	atomic_store(&over, false);
	for (uintptr_t i = 0; i < 2; i++) {
		child[i] = child_start(at_work, (void *)(i + 1));
		assert_true(child_hear(&child[i]));
	}
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, allocate_and_check, (void *)77), 0);
	uint64_t random = 3, given = 0;
	for (int round = 0; round < (HP_TEST_SANITIZER ? 30 : 200); round++) {
		int64_t result = hp_pool_trim(pool, hp_below(&random, 8 * MIB));
		assert_true(result >= 0);
		given += (uint64_t)result;
		uint64_t committed = hp_stats(pool).committed;
		if (committed < 8 * MIB) assert_int_equal(hp_pool_grow(pool, 8 * MIB - committed, NULL, NULL), 0);
	}
	assert_true(given > 8 * MIB);
	atomic_store(&over, true);
	must_be(pthread_join(thread, NULL), 0);
	for (int i = 0; i < 2; i++) child_finish(&child[i]);
	data_must_be_exact(pool);
}

/* Where the pages of the backing are larger than a unit, a page goes as a whole or not at all. */
static void huge_pages_go_as_a_whole(void **state)
{
	(void)state;
	if (!hp_test_has_huge(HP_HUGE_2M, 8)) hp_test_skip_one("no huge pages here");
	struct hp_pool_options options = {
		.size = 16 * MIB, .choice = HP_CHOICE_REQUIRE, .rung = HP_RUNG_2M, .flags = HP_POOL_NO_AUTOGROW};
	hp_pool *huge;
	assert_int_equal(hp_pool_create(&options, &huge), 0);
	assert_true(hp_stats(huge).unit_size < 2 * MIB);
	void *block[2];
	assert_int_equal(hp_page_alloc(huge, 3 * PAGE, 0, &block[0]), 0);
	assert_int_equal(hp_page_alloc(huge, 3 * MIB, 0, &block[1]), 0);
	hp_mark(block[0], 3, 1);
	hp_mark(block[1], 3 * MIB / PAGE, 2);
	int64_t given = hp_pool_trim(huge, 0);
	assert_true(given >= (int64_t)(8 * MIB) && given <= (int64_t)(12 * MIB) && given % (int64_t)(2 * MIB) == 0);
	data_must_be_exact(huge);
	assert_true(hp_marked(block[0], 3, 1));
	assert_true(hp_marked(block[1], 3 * MIB / PAGE, 2));
	hp_must_be_sound(huge);
	assert_int_equal(hp_pool_grow(huge, (uint64_t)given, NULL, NULL), 0);
	assert_int_equal(hp_page_free(huge, block[0]), 0);
	assert_int_equal(hp_page_free(huge, block[1]), 0);
	pool_must_work(huge, 16 * MIB);
	hp_must_be_empty(huge);
	assert_int_equal(hp_pool_trim(huge, 0), 16 * MIB);
	assert_int_equal(data_held(huge), 0);
	hp_pool_detach(huge);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(down_to_what_is_kept),     CASE(what_is_in_use_stays),
		CASE(addresses_without_memory), CASE(sleeping_owners_do_not_hold_it_up),
		CASE(while_others_allocate),    cmocka_unit_test(huge_pages_go_as_a_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
