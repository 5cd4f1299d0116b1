/* Watermarks, the drain hook, invalidation, and objects that are destroyed instead of put.
 *
 * Catches: a mark that is not what its name says; memory below the low mark given back, above the high one kept; a hook that is
 * called with something held (then what it calls would hang or fail), or not at all; an object given out that was constructed
 * before the invalidation; a destructor that is left out, or called twice. */
#include "hp_cache.h"
#include <pthread.h>
#include <sched.h>

#define BUILT UINT64_C(0xb0117)

struct books {
	_Atomic unsigned built, destroyed;
	_Atomic unsigned era; /* written into every object that is constructed */
};
static struct books *books;

static int build(void *arg, void *object, unsigned flags)
{
	(void)arg;
	(void)flags;
	uint64_t *at = object;
	must(at[0] != BUILT);
	at[0] = BUILT;
	at[1] = atomic_load(&books->era);
	atomic_fetch_add(&books->built, 1);
	return 0;
}

static void destroy(void *arg, void *object)
{
	(void)arg;
	uint64_t *at = object;
	must(at[0] == BUILT);
	at[0] = 0;
	atomic_fetch_add(&books->destroyed, 1);
}

static hp_pool *pool;

static hp_cache *built_cache(void)
{
	struct hp_cache_options options = hp_cache_of(200, 0);
	hp_cache *cache;
	void *all;
	pool = hp_plain_pool(8 * MIB, 0);
	must_be(hp_page_alloc(pool, 8 * MIB, HP_PAGE_ZERO, &all), 0);
	must_be(hp_page_free(pool, all), 0);
	books = hp_shared(sizeof *books);
	options.ctor = build;
	options.dtor = destroy;
	must_be(hp_cache_create(pool, "built", &options, &cache), 0);
	return cache;
}

static void built_end(hp_cache *cache)
{
	must_be(hp_cache_destroy(cache), 0);
	must_be(atomic_load(&books->built), atomic_load(&books->destroyed));
	hp_pool_recover(pool);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	munmap(books, sizeof *books);
}

static void an_object_is_destroyed_instead_of_put(void **state)
{
	(void)state;
	hp_cache *cache = built_cache();
	void *object[100];
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
	for (unsigned i = 0; i < 100; i++) must_be(hp_cache_destruct_object(cache, object[i]), 0);
	must_be(atomic_load(&books->destroyed), 100);
	must_be(hp_cache_numbers(cache).in_use, 0);
	must(hp_cache_destruct_object(cache, object[0]) < 0);
	must_be(hp_cache_destruct_object(cache, (char *)hp_pool_base(pool) + 8 * MIB), -EINVAL);
	must_be(atomic_load(&books->destroyed), 100);
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0); /* constructed anew */
	for (unsigned i = 0; i < 100; i++) must_be(*(uint64_t *)object[i], BUILT);
	must_be(hp_cache_put_bulk(cache, 100, object), 0);
	built_end(cache);
}

static void caching(const struct child *me, void *arg)
{
	struct hp_cache_options options = hp_cache_of(200, 0);
	hp_cache *cache;
	void *object[100];
	(void)arg;
	options.ctor = build;
	options.dtor = destroy;
	must_be(hp_cache_open(pool, "built", &options, &cache), 0);
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
	must_be(hp_cache_put_bulk(cache, 100, object), 0);
	child_here(me); /* the cache is invalidated, with a hundred objects in our magazine */
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
	for (unsigned i = 0; i < 100; i++) must_be(((uint64_t *)object[i])[1], atomic_load(&books->era));
	must_be(hp_cache_put_bulk(cache, 100, object), 0);
}

static void nothing_is_given_out_that_was_constructed_before(void **state)
{
	(void)state;
	hp_cache *cache = built_cache();
	void *object[300];
	for (unsigned round = 0; round < 5; round++) {
		struct child child = child_start(caching, NULL), asleep = child_start(caching, NULL);
		must(child_hear(&child));
		must(child_hear(&asleep));
		must_be(kill(asleep.pid, SIGSTOP), 0); /* it does not run, and is not waited for */
		child_await_stop(&asleep);
		must_be(hp_cache_get_bulk(cache, 0, 300, object), 0);
		must_be(hp_cache_put_bulk(cache, 150, object), 0);
		unsigned destroyed = atomic_load(&books->destroyed);
		atomic_fetch_add(&books->era, 1);
		must_be(hp_cache_invalidate(cache), 0);
		must(atomic_load(&books->destroyed) > destroyed);
		/* what is out is put back as it is, and is not given out again like that */
		must_be(hp_cache_put_bulk(cache, 150, object + 150), 0);
		must_be(hp_cache_get_bulk(cache, 0, 300, object), 0);
		for (unsigned i = 0; i < 300; i++) must_be(((uint64_t *)object[i])[1], atomic_load(&books->era));
		must_be(hp_cache_put_bulk(cache, 300, object), 0);
		must_be(kill(asleep.pid, SIGCONT), 0);
		child_finish(&asleep);
		child_finish(&child);
	}
	must(hp_pool_recover(pool) >= 0);
	built_end(cache);
	pool = hp_plain_pool(4 * MIB, 0);
	cache = hp_cache_make(pool, "plain", 64, 0);
	must_be(hp_cache_invalidate(cache), -EINVAL);
	must_be(hp_cache_destroy(cache), 0);
	hp_pool_detach(pool);
}

/* ---- marks ---- */

static void the_low_mark_keeps_memory(void **state)
{
	(void)state;
	pool = hp_plain_pool(8 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "marked", 1000, 0);
	void *object[2000];
	must_be(hp_cache_numbers(cache).low, 0);
	must_be(hp_cache_set_low_watermark(cache, 500), 0);
	must(hp_cache_numbers(cache).cached >= 500);
	must_be(hp_cache_numbers(cache).low, 500);
	must_be(hp_cache_get_bulk(cache, 0, 2000, object), 0);
	must_be(hp_cache_put_bulk(cache, 2000, object), 0);
	must(hp_cache_reclaim(cache) >= 0);
	must(hp_cache_numbers(cache).cached >= 500); /* also where all that is possible goes back */
	must(hp_cache_numbers(cache).cached < 2000);
	must_be(hp_cache_set_low_watermark(cache, 1000000), -ENOMEM);
	must_be(hp_cache_set_low_watermark(cache, 0), 0);
	hp_cache_reclaim(cache);
	must_be(hp_cache_numbers(cache).cached, 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void the_high_mark_gives_memory_back(void **state)
{
	(void)state;
	pool = hp_plain_pool(8 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "marked", 500, 0);
	static void *object[8000];
	must_be(hp_cache_set_high_watermark(cache, 100), 0);
	must_be(hp_cache_numbers(cache).high, 100);
	must_be(hp_cache_set_low_watermark(cache, 101), -EINVAL);
	must_be(hp_cache_set_low_watermark(cache, 50), 0);
	must_be(hp_cache_set_high_watermark(cache, 49), -EINVAL);
	for (unsigned round = 0; round < 3; round++) {
		must_be(hp_cache_get_bulk(cache, 0, 8000, object), 0); /* it is no limit */
		for (unsigned i = 0; i < 8000; i++) must_be(hp_cache_put(cache, object[i]), 0);
		/* as far as whole slabs are free: the last ones may hold some */
		struct hp_cache_stats stats = hp_cache_numbers(cache);
		if (stats.cached > 100 + 3 * (stats.cached / (stats.slabs ? stats.slabs : 1)))
			fail_msg("%llu cached above the mark of 100", (unsigned long long)stats.cached);
	}
	must_be(hp_cache_set_high_watermark(cache, HP_CACHE_NO_MARK), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* ---- the hook ---- */

struct hook {
	hp_cache *cache, *other;
	void *kept[10];
	unsigned count, calls;
};

/* With nothing held, everything works in here. */
static void drain(void *arg, unsigned flags)
{
	struct hook *hook = arg;
	void *page;
	(void)flags;
	hook->calls++;
	if (hook->count) must_be(hp_cache_put(hook->cache, hook->kept[--hook->count]), 0);
	void *object = hp_cache_get(hook->other, 0);
	must(object);
	must_be(hp_cache_put(hook->other, object), 0);
	must_be(hp_page_alloc(pool, 3 * PAGE, 0, &page), 0);
	must_be(hp_page_free(pool, page), 0);
	must_be(hp_pool_recover(pool) >= 0, 1);
}

static void the_hook_is_called_before_a_get_fails(void **state)
{
	(void)state;
	pool = hp_plain_pool(4 * MIB, 0);
	struct hook hook = {.cache = hp_cache_make(pool, "drained", 64, 0), .other = hp_cache_make(pool, "other", 64, 0)};
	void *object[10];
	must_be(hp_cache_set_hard_limit(hook.cache, 10, NULL, 0), 0);
	must_be(hp_cache_set_drain_hook(hook.cache, drain, &hook), 0);
	must_be(hp_cache_get_bulk(hook.cache, 0, 10, hook.kept), 0);
	must_be(hook.calls, 0);
	hook.count = 10;
	for (unsigned i = 0; i < 10; i++) must(object[i] = hp_cache_get(hook.cache, i % 2 ? HP_CACHE_WAIT : 0));
	must_be(hook.calls, 10);
	must_refuse(hp_cache_get(hook.cache, 0), EAGAIN);
	must_refuse(hp_cache_get_timed(hook.cache, HP_CACHE_WAIT, 1000), ETIMEDOUT);
	must_be(hook.calls, 12);
	must_be(hp_cache_put_bulk(hook.cache, 10, object), 0);
	hp_cache_reclaim(hook.cache);
	must_be(hook.calls, 13);
	must_be(hp_cache_set_drain_hook(hook.cache, NULL, NULL), 0);
	hp_cache_reclaim(hook.cache);
	must_be(hook.calls, 13);
	must_be(hp_cache_destroy(hook.cache), 0);
	must_be(hp_cache_destroy(hook.other), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* Constructors and destructors, too, are called with nothing held. */
static int build_with_calls(void *arg, void *object, unsigned flags)
{
	struct hook *hook = arg;
	drain(hook, flags);
	*(uint64_t *)object = BUILT;
	return 0;
}

static void destroy_with_calls(void *arg, void *object)
{
	must(*(uint64_t *)object == BUILT);
	*(uint64_t *)object = 0;
	drain(arg, 0);
	void *pages;
	must_be(hp_page_alloc(pool, 40 * PAGE, 0, &pages), 0);
	must_be(hp_page_free(pool, pages), 0);
}

static void constructors_may_call(void **state)
{
	(void)state;
	struct hp_cache_options options = hp_cache_of(5000, 0);
	struct hp_pool_options lazy = hp_plain_options(2 * MIB);
	lazy.capacity = 32 * MIB;
	must_be(hp_pool_create(&lazy, &pool), 0);
	struct hook hook = {.other = hp_cache_make(pool, "other", 64, 0)};
	void *object[200];
	options.ctor = build_with_calls;
	options.dtor = destroy_with_calls;
	options.arg = &hook;
	must_be(hp_cache_create(pool, "calling", &options, &hook.cache), 0);
	for (unsigned round = 0; round < 3; round++) {
		must_be(hp_cache_get_bulk(hook.cache, 0, 200, object), 0);
		must_be(hp_cache_put_bulk(hook.cache, 200, object), 0);
		if (round) must(hp_cache_reclaim(hook.cache) > 0);
	}
	must_be(hp_cache_get_bulk(hook.cache, 0, 50, object), 0);
	must_be(hp_cache_put_bulk(hook.cache, 50, object), 0);
	must_be(hp_cache_destroy(hook.cache), 0);
	must(hook.calls > 200);
	must_be(hp_cache_destroy(hook.other), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_object_is_destroyed_instead_of_put),
		cmocka_unit_test(nothing_is_given_out_that_was_constructed_before),
		cmocka_unit_test(the_low_mark_keeps_memory),
		cmocka_unit_test(the_high_mark_gives_memory_back),
		cmocka_unit_test(the_hook_is_called_before_a_get_fails),
		cmocka_unit_test(constructors_may_call),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
