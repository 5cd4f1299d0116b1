/* Arrays by every means that single objects have: what sleepers own, what the dead have left, waiting.
 *
 * Catches: an array that is refused although its objects lie free side by side, in slabs that somebody else owns; a waiter
 * for an array that is never woken, or not in its turn, or not by its timeout; one that keeps those behind it from what it
 * has no use for; a summary that forgets the free objects which were of no use for an array. */
#include "hp_cache.h"
#include <hugepool/debug.h>
#include <pthread.h>
#include <sched.h>

#define LIMIT 30

struct scene {
	hp_pool *pool;
	hp_cache *cache;
	char *object[LIMIT]; /* in their order */
	size_t stride;
};

static unsigned debug_modes;

static struct scene scene_new(void)
{
	struct scene s = {.pool = hp_plain_pool(4 * MIB, 0)};
	if (debug_modes) must_be(hp_pool_debug(s.pool, debug_modes), 0);
	s.cache = hp_cache_make(s.pool, "arrays", 200, 0);
	must_be(hp_cache_set_hard_limit(s.cache, LIMIT, NULL, 0), 0);
	s.stride = hp_cache_numbers(s.cache).stride;
	return s;
}

static void take_all(struct scene *s)
{
	must(s->object[0] = hp_cache_get_array(s->cache, 0, LIMIT));
	for (unsigned i = 1; i < LIMIT; i++) s->object[i] = s->object[0] + i * s->stride;
	must_refuse(hp_cache_get_array(s->cache, 0, 1), EAGAIN);
}

static void put_all(struct scene *s)
{
	must_be(hp_cache_put_array(s->cache, s->object[0], LIMIT), 0);
}

static void scene_end(struct scene *s)
{
	must_be(hp_cache_numbers(s->cache).waiting, 0);
	must_be(hp_cache_numbers(s->cache).in_use, 0);
	must_be(hp_cache_destroy(s->cache), 0);
	if (!debug_modes) hp_must_be_empty(s->pool);
	hp_pool_detach(s->pool);
}

static pthread_barrier_t step;

static void *get_put_sleep(void *arg)
{
	void *object[10];
	must_be(hp_cache_get_bulk(arg, 0, 10, object), 0);
	must_be(hp_cache_put_bulk(arg, 10, object), 0);
	pthread_barrier_wait(&step); /* asleep, and owns what there is */
	pthread_barrier_wait(&step);
	void *one = hp_cache_get_array(arg, 0, 10); /* what was taken it has forgotten */
	must(one);
	must_be(hp_cache_put_array(arg, one, 10), 0);
	return NULL;
}

static void sleepers_do_not_hoard(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 10; round++) {
		struct scene s = scene_new();
		pthread_t thread;
		pthread_barrier_init(&step, NULL, 2);
		must_be(pthread_create(&thread, NULL, get_put_sleep, s.cache), 0);
		pthread_barrier_wait(&step);
		take_all(&s);
		put_all(&s);
		pthread_barrier_wait(&step);
		must_be(pthread_join(thread, NULL), 0);
		pthread_barrier_destroy(&step);
		scene_end(&s);
	}
}

static struct scene shared_scene;

static void get_put_die(const struct child *me, void *arg)
{
	hp_cache *cache = hp_cache_opened(shared_scene.pool, "arrays");
	(void)arg;
	void *array = hp_cache_get_array(cache, 0, 10);
	must(array);
	must_be(hp_cache_put_array(cache, array, 10), 0);
	child_here(me);
}

static void the_dead_do_not_hoard(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 5; round++) {
		shared_scene = scene_new();
		struct scene *s = &shared_scene;
		struct child child = child_start(get_put_die, NULL);
		must(child_hear(&child));
		child_kill(&child);
		take_all(s);
		put_all(s);
		scene_end(s);
	}
}

/* Memory that is short, not the limit: what others own must do. */
static void memory_is_short(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
	hp_cache *cache = hp_cache_make(pool, "arrays", 200, 0);
	pthread_t thread;
	void *block[1025];
	unsigned n = 0;
	pthread_barrier_init(&step, NULL, 2);
	must_be(pthread_create(&thread, NULL, get_put_sleep, cache), 0);
	pthread_barrier_wait(&step);
	/* one object keeps the slab from going when pages run out */
	void *one = hp_cache_get(cache, 0);
	must(one);
	while (hp_page_alloc(pool, PAGE, 0, &block[n]) == 0) n++;
	void *array[100];
	unsigned got = 0;
	while (got < 100 && (array[got] = hp_cache_get_array(cache, 0, 10))) got++;
	must(got > 0);
	must_be(errno, ENOMEM);
	must_refuse(hp_cache_get_array_timed(cache, HP_CACHE_WAIT, 64, 2000000), ETIMEDOUT);
	while (got) must_be(hp_cache_put_array(cache, array[--got], 10), 0);
	must_be(hp_cache_put(cache, one), 0);
	pthread_barrier_wait(&step);
	must_be(pthread_join(thread, NULL), 0);
	pthread_barrier_destroy(&step);
	while (n) must_be(hp_page_free(pool, block[--n]), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_pool_detach(pool);
}

/* ---- waiting ---- */

struct waiter {
	hp_cache *cache;
	unsigned n, flags; /* n 0: a single one, not as an array */
	char *got;
	int error;
	_Atomic bool done;
	pthread_t thread;
};

static void *wait_once(void *arg)
{
	struct waiter *w = arg;
	w->got = w->n ? hp_cache_get_array(w->cache, HP_CACHE_WAIT | w->flags, w->n)
	              : hp_cache_get(w->cache, HP_CACHE_WAIT);
	w->error = w->got ? 0 : errno;
	atomic_store(&w->done, true);
	return NULL;
}

static void waiter_start(struct waiter *w, hp_cache *cache, unsigned n, unsigned place)
{
	*w = (struct waiter){.cache = cache, .n = n};
	must_be(pthread_create(&w->thread, NULL, wait_once, w), 0);
	while (hp_cache_numbers(cache).waiting != place) sched_yield();
}

static void an_array_is_waited_for(void **state)
{
	(void)state;
	struct scene s = scene_new();
	struct waiter first, second;
	take_all(&s);
	must_refuse(hp_cache_get_array_timed(s.cache, HP_CACHE_WAIT, 4, 3000000), ETIMEDOUT);
	must_refuse(hp_cache_get_array_timed(s.cache, HP_CACHE_WAIT, 4, 0), EAGAIN);
	must_refuse(hp_cache_get_array(s.cache, HP_CACHE_WAIT | HP_CACHE_LIMITFAIL, 4), EAGAIN);
	must_refuse(hp_cache_get_array(s.cache, 64, 4), EINVAL);
	must_refuse(hp_cache_get_array_timed(s.cache, HP_CACHE_WAIT, 65, 1), EINVAL);
	uint64_t retries = hp_cache_numbers(s.cache).retries;
	waiter_start(&first, s.cache, 4, 1);
	waiter_start(&second, s.cache, 3, 2);
	/* not side by side: none of them is served, but both look again and again */
	for (unsigned i = 0; i < 10; i += 2) must_be(hp_cache_put(s.cache, s.object[i]), 0);
	while (hp_cache_numbers(s.cache).retries < retries + 5) sched_yield();
	must(!atomic_load(&first.done) && !atomic_load(&second.done));
	/* four are: the first one's, though the second would have use for three */
	must_be(hp_cache_put(s.cache, s.object[11]), 0);
	must_be(hp_cache_put(s.cache, s.object[14]), 0);
	must_be(hp_cache_put_array(s.cache, s.object[12], 2), 0);
	must_be(pthread_join(first.thread, NULL), 0);
	must(first.got == s.object[11]);
	must_be(hp_cache_put(s.cache, s.object[1]), 0); /* 0, 1, 2 */
	must_be(pthread_join(second.thread, NULL), 0);
	must(second.got == s.object[0]);
	must_be(hp_cache_put_array(s.cache, first.got, 4), 0);
	must_be(hp_cache_put_array(s.cache, second.got, 3), 0);
	for (unsigned i = 0; i < LIMIT; i++) {
		bool back = i < 4 || (i < 10 && i % 2 == 0) || (i >= 11 && i < 15);
		must_be(hp_cache_put(s.cache, s.object[i]), back && i != 3 ? -EALREADY : 0);
	}
	scene_end(&s);
}

/* Who waits for more than there will be does not keep one object from those behind it. */
static void those_behind_are_served(void **state)
{
	(void)state;
	struct scene s = scene_new();
	struct waiter first, second;
	take_all(&s);
	waiter_start(&first, s.cache, 20, 1);
	waiter_start(&second, s.cache, 0, 2);
	must_be(hp_cache_put(s.cache, s.object[7]), 0);
	must_be(pthread_join(second.thread, NULL), 0);
	must(second.got == s.object[7]);
	must(!atomic_load(&first.done));
	put_all(&s);
	must_be(pthread_join(first.thread, NULL), 0);
	must(first.got);
	must_be(hp_cache_put_array(s.cache, first.got, 20), 0);
	scene_end(&s);
}

/* What was of no use for an array others find still, without a search of all there is: they make no slab for it. */
static void the_rest_is_not_forgotten(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "arrays", 4000, 0);
	void *object[64], *array;
	must_be(hp_cache_get_bulk(cache, 0, 64, object), 0);
	uint64_t slabs = hp_cache_numbers(cache).slabs;
	unsigned back = 0;
	for (unsigned i = 0; i < 64; i += 4, back++) must_be(hp_cache_put(cache, object[i]), 0);
	must(array = hp_cache_get_array(cache, 0, 2));
	slabs = hp_cache_numbers(cache).slabs > slabs ? hp_cache_numbers(cache).slabs : slabs;
	for (unsigned i = 0; i < 64; i += 4) must(object[i] = hp_cache_get(cache, 0));
	must_be(hp_cache_numbers(cache).slabs, slabs);
	must_be(hp_cache_put_array(cache, array, 2), 0);
	must_be(hp_cache_put_bulk(cache, 64, object), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* The same in pools that look at every object. */
static void with_debug_modes(void **state)
{
	debug_modes = HP_DEBUG_POISON | HP_DEBUG_COLD;
	sleepers_do_not_hoard(state);
	the_dead_do_not_hoard(state);
	those_behind_are_served(state);
	debug_modes = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sleepers_do_not_hoard),   cmocka_unit_test(the_dead_do_not_hoard),
		cmocka_unit_test(memory_is_short),         cmocka_unit_test(an_array_is_waited_for),
		cmocka_unit_test(those_behind_are_served), cmocka_unit_test(the_rest_is_not_forgotten),
		cmocka_unit_test(with_debug_modes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
