/* One thread and two pools: in turn, and in a signal handler at every instruction of what the thread does in the other. More
 * pools than a thread's region has places for, and pools that follow each other in one place.
 *
 * Would catch an operation that ends in another pool than it began in, because the handler has made that one the thread's
 * last; an object that two have, or nobody; a pool that a thread cannot come back to without a new slot; a thread that
 * takes what it had in a pool that is gone, or a forked child what its parent has, for its own. */
#include "hp_cache.h"
#include "hp_trap.h"
#include "pool/participant.h"

#include <hugepool/inline.h>
#include <hugepool/malloc.h>
#include <pthread.h>

static hp_pool *pool, *other;
static hp_cache *cache, *other_cache;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(8 * MIB, 0);
	other = hp_plain_pool(8 * MIB, 0);
	cache = hp_cache_make(pool, "here", 64, 0);
	other_cache = hp_cache_make(other, "there", 64, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must_be(hp_cache_destroy(cache), 0);
	must_be(hp_cache_destroy(other_cache), 0);
	hp_must_be_sound(pool);
	hp_must_be_sound(other);
	must_be(hp_stats(pool).threads, 1);
	must_be(hp_stats(other).threads, 1);
	must_be(hp_pool_detach(pool), 0);
	return hp_pool_detach(other);
}

static void in_turn(void **state)
{
	(void)state;
	hp_pool *at[2] = {pool, other};
	hp_cache *of[2] = {cache, other_cache};
	void *block[2][100], *object[2][100], *page[2][4];
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 200; i++) {
			must(block[i % 2][i / 2] = hp_malloc(at[i % 2], 16 + i));
			must(object[i % 2][i / 2] = i % 3 ? hp_cache_get(of[i % 2], 0) : hp_cache_get_inline(of[i % 2], 0));
			hp_cache_fill(object[i % 2][i / 2], 64, i);
			if (i < 8) must_be(hp_page_alloc(at[i % 2], PAGE * (1 + i), 0, &page[i % 2][i / 2]), 0);
		}
		must_be(hp_cache_numbers(cache).in_use, 100);
		must_be(hp_cache_numbers(other_cache).in_use, 100);
		for (unsigned i = 0; i < 200; i++) {
			unsigned k = round % 2 ? i : 199 - i;
			must(hp_cache_filled(object[k % 2][k / 2], 64, k));
			must_be(hp_free(at[k % 2], block[k % 2][k / 2]), 0);
			must_be(hp_free(at[(k + 1) % 2], block[k % 2][k / 2]), -EINVAL);
			must_be(k % 3 ? hp_cache_put(of[k % 2], object[k % 2][k / 2])
			              : hp_cache_put_inline(of[k % 2], object[k % 2][k / 2]),
			        0);
			if (k < 8) must_be(hp_page_free(at[k % 2], page[k % 2][k / 2]), 0);
		}
		must_be(hp_cache_numbers(cache).in_use, 0);
		must_be(hp_cache_numbers(other_cache).in_use, 0);
	}
}

#if HP_TRAP

#define OUT 6
static void *out[OUT], *result, *kept;

static void use_the_other(void)
{
	void *block = hp_malloc(other, 64), *object = hp_cache_get(other_cache, 0), *page;
	must(block && object && hp_page_alloc(other, PAGE, 0, &page) == 0);
	must_be(hp_cache_put(other_cache, object) + hp_free(other, block) + hp_page_free(other, page), 0);
	void *old = kept;
	kept = hp_cache_get(other_cache, 0);
	if (old) must_be(hp_cache_put(other_cache, old), 0);
}

static void get(void)
{
	result = hp_cache_get(cache, 0);
}

static void get_inline(void)
{
	result = hp_cache_get_inline(cache, 0);
}

static void put(void) /* the last one */
{
	must_be(hp_cache_put(cache, out[OUT - 1]), 0);
}

static void put_first(void)
{
	must_be(hp_cache_put(cache, out[0]), 0);
}

static void put_first_inline(void)
{
	must_be(hp_cache_put_inline(cache, out[0]), 0);
}

static void put_twice(void)
{
	must_be(hp_cache_put(cache, out[0]), 0);
	must_be(hp_cache_put(cache, out[0]), -EALREADY);
}

static void get_bulk(void)
{
	void *two[2];
	must_be(hp_cache_get_bulk(cache, 0, 2, two), 0);
	must_be(hp_cache_put_bulk(cache, 2, two), 0);
}

static void allocate(void)
{
	void *block = hp_malloc(pool, 64), *page;
	must(block && hp_page_alloc(pool, 3 * PAGE, 0, &page) == 0);
	must_be(hp_free(pool, block) + hp_page_free(pool, page), 0);
}

static void in_a_handler(void **state)
{
	(void)state;
	static const struct {
		void (*run)(void);
		int gets;
	} operation[] = {{get, 1},        {get_inline, 1}, {put, -1},    {put_first, -1}, {put_first_inline, -1},
	                 {put_twice, -1}, {get_bulk, 0},   {allocate, 0}};
	struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO}, before;
	must_be(sigaction(SIGTRAP, &action, &before), 0);
	interruption = use_the_other;
	for (unsigned o = 0; o < sizeof operation / sizeof operation[0]; o++)
		for (unsigned empty = 0; empty < 2; empty++)
			for (unsigned long n = 1;; n++) {
				for (unsigned i = 0; i < OUT; i++) must(out[i] = hp_cache_get(cache, 0));
				/* nothing at hand, and nothing kept */
				if (empty) must(hp_cache_reclaim(cache) >= 0);
				result = NULL;
				bool more = interrupted_at(n, operation[o].run);
				int expected = OUT + operation[o].gets;
				if ((int)hp_cache_numbers(cache).in_use != expected)
					fail_msg("operation %u, instruction %lu: %d objects are out, not %d", o, n,
					         (int)hp_cache_numbers(cache).in_use, expected);
				for (unsigned i = 0; i < OUT; i++) must(!result || result != out[i]);
				if (result) must_be(hp_cache_put(cache, result), 0);
				for (unsigned i = 0; i < OUT; i++) {
					int error = hp_cache_put(cache, out[i]);
					must(error == 0 || (error == -EALREADY && operation[o].gets < 0));
				}
				must_be(hp_cache_numbers(cache).in_use, 0);
				if (!more) break;
			}
	must_be(hp_cache_put(other_cache, kept), 0);
	must_be(sigaction(SIGTRAP, &before, NULL), 0);
}

#else

static void in_a_handler(void **state)
{
	(void)state;
	print_message("skipped: no single steps here\n");
	skip();
}

#endif

/* The last ones have no place. */
static void more_than_there_are_places_for(void **state)
{
	(void)state;
	enum { POOLS = PARTICIPANT_PLACES + 3, OBJECTS = 100 };
	static void *object[POOLS][OBJECTS];
	hp_pool *many[POOLS];
	hp_cache *of[POOLS];
	for (unsigned i = 0; i < POOLS; i++) {
		many[i] = hp_plain_pool(MIB, 0);
		of[i] = hp_cache_make(many[i], "many", 64, 0);
	}
	must_be(many[POOLS - 1]->place, PARTICIPANT_PLACES);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned k = 0; k < OBJECTS - 4; k++)
			for (unsigned i = 0; i < POOLS; i++) {
				must(object[i][k] = k % 2 ? hp_cache_get(of[i], 0) : hp_cache_get_inline(of[i], 0));
				hp_cache_fill(object[i][k], 64, i * OBJECTS + k);
			}
		for (unsigned i = 0; i < POOLS; i++) {
			must_be(hp_cache_get_bulk(of[i], 0, 4, &object[i][OBJECTS - 4]), 0);
			must_be(hp_cache_numbers(of[i]).in_use, OBJECTS);
		}
		for (unsigned k = 0; k < OBJECTS - 4; k++)
			for (unsigned i = 0; i < POOLS; i++) {
				must(hp_cache_filled(object[i][k], 64, i * OBJECTS + k));
				hp_cache *wrong = of[(i + 1) % POOLS];
				must(k % 2 ? hp_cache_put(wrong, object[i][k]) : hp_cache_put_inline(wrong, object[i][k]));
				must_be(k % 2 ? hp_cache_put(of[i], object[i][k]) : hp_cache_put_inline(of[i], object[i][k]), 0);
				must_be(k % 3 ? hp_cache_put(of[i], object[i][k]) : hp_cache_put_inline(of[i], object[i][k]),
				        -EALREADY);
			}
		for (unsigned i = 0; i < POOLS; i++) must_be(hp_cache_put_bulk(of[i], 4, &object[i][OBJECTS - 4]), 0);
	}
	for (unsigned i = 0; i < POOLS; i++) {
		must_be(hp_cache_numbers(of[i]).in_use, 0);
		must_be(hp_cache_destroy(of[i]), 0);
		must_be(hp_stats(many[i]).threads, 1);
		hp_must_be_empty(many[i]);
		must_be(hp_pool_detach(many[i]), 0);
	}
}

/* A thread that meets pools one after the other, in one place, some of them private. */
static struct meeting {
	pthread_barrier_t there;
	hp_pool *pool;
	hp_cache *cache;
	unsigned place;
} meeting;

static void use_cache(hp_cache *of)
{
	void *object[50];
	for (unsigned k = 0; k < 50; k++) {
		must(object[k] = k % 2 ? hp_cache_get(of, 0) : hp_cache_get_inline(of, 0));
		hp_cache_fill(object[k], 64, k);
	}
	must(hp_cache_numbers(of).in_use >= 50);
	for (unsigned k = 50; k--;) {
		must(hp_cache_filled(object[k], 64, k));
		must_be(k % 2 ? hp_cache_put_inline(of, object[k]) : hp_cache_put(of, object[k]), 0);
	}
}

static void *meet_pools(void *rounds)
{
	for (unsigned round = 0; round < *(unsigned *)rounds; round++) {
		pthread_barrier_wait(&meeting.there);
		use_cache(meeting.cache);
		pthread_barrier_wait(&meeting.there);
	}
	return NULL;
}

static void in_one_place(void **state)
{
	(void)state;
	static const bool private[] = {false, false, true, true, false, true, false};
	unsigned rounds = sizeof private / sizeof *private;
	pthread_t thread;
	must_be(pthread_barrier_init(&meeting.there, NULL, 2), 0);
	must_be(pthread_create(&thread, NULL, meet_pools, &rounds), 0);
	for (unsigned i = 0; i < rounds; i++) {
		meeting.pool = hp_plain_pool(MIB, private[i] ? HP_POOL_PRIVATE : 0);
		meeting.cache = hp_cache_make(meeting.pool, "met", 64, 0);
		must(i == 0 || meeting.pool->place == meeting.place);
		meeting.place = meeting.pool->place;
		use_cache(meeting.cache);
		pthread_barrier_wait(&meeting.there);
		use_cache(meeting.cache);
		pthread_barrier_wait(&meeting.there);
		const struct pool_slot *ours = hp_thread_current->slot;
		void *held = hp_cache_get_inline(meeting.cache, 0);
		hp_cache_fill(held, 64, i);
		pid_t pid = hp_fork();
		if (pid == 0) {
			use_cache(meeting.cache);
			must(hp_cache_filled(held, 64, i));
			must((hp_thread_current->slot == ours) == private[i]);
			must_be(hp_cache_put(meeting.cache, held), 0);
			raise(SIGKILL); /* not _exit, where ThreadSanitizer misses the other thread */
		}
		must_be(hp_wait_for(pid), 128 + SIGKILL);
		use_cache(meeting.cache);
		must_be(hp_cache_put(meeting.cache, held), private[i] ? 0 : -EALREADY);
		must_be(hp_cache_destroy(meeting.cache), 0);
		must_be(hp_pool_detach(meeting.pool), 0);
	}
	must_be(pthread_join(thread, NULL), 0);
	pthread_barrier_destroy(&meeting.there);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(more_than_there_are_places_for),
		cmocka_unit_test(in_one_place),
		cmocka_unit_test_setup_teardown(in_turn, set_up, tear_down),
		cmocka_unit_test_setup_teardown(in_a_handler, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
