/* The inline forms give what the exported functions give, call by call, also compiled as C++ (cache_inlinecpp_test.sh does that
 * with this very file, so it keeps to what both languages have).
 *
 * Catches: a form that goes wrong beside its twin: another object, another error, something forgotten (waking who waits,
 * zeroing, constructing). */
#include <errno.h>
#include <hugepool/hugepool.h>
#include <hugepool/inline.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s: not true: %s (errno %d)\n", __FILE__, __LINE__, __func__, #condition, errno); \
			abort(); \
		} \
	} while (0)

#define OBJECTS 600

static hp_pool *pool_new(unsigned flags)
{
	struct hp_pool_options options;
	hp_pool *pool;
	memset(&options, 0, sizeof options);
	options.struct_size = sizeof options;
	options.size = 32u << 20;
	options.rung = HP_RUNG_4K;
	options.choice = HP_CHOICE_REQUIRE;
	options.flags = flags;
	must(hp_pool_create(&options, &pool) == 0);
	return pool;
}

static hp_cache *cache_new(hp_pool *pool, const char *name, size_t size, unsigned flags)
{
	struct hp_cache_options options;
	hp_cache *cache;
	memset(&options, 0, sizeof options);
	options.struct_size = sizeof options;
	options.size = size;
	options.flags = flags;
	must(hp_cache_create(pool, name, &options, &cache) == 0);
	return cache;
}

static uint64_t in_use(hp_cache *cache)
{
	struct hp_cache_stats stats;
	memset(&stats, 0, sizeof stats);
	stats.struct_size = sizeof stats;
	must(hp_cache_stats(cache, &stats) == 0);
	return stats.in_use;
}

static int error_of(void *object)
{
	return object ? 0 : errno;
}

/* Two caches alike, one used by inline forms, the other by functions, with the same calls: the same results. */
static void same(hp_pool *pool, size_t size, unsigned flags)
{
	hp_cache *one = cache_new(pool, "inline", size, flags), *other = cache_new(pool, "exported", size, flags);
	static void *a[OBJECTS], *b[OBJECTS];
	uint32_t random = 12345;
	for (unsigned turn = 0; turn < 40000; turn++) {
		random = random * 1664525u + 1013904223u;
		unsigned i = (random >> 8) % OBJECTS;
		if (a[i]) {
			must(memcmp(a[i], b[i], size) == 0);
			must(hp_cache_put_inline(one, a[i]) == 0);
			must(hp_cache_put(other, b[i]) == 0);
			int again = hp_cache_put_inline(one, a[i]);
			must(again < 0);
			must(again == hp_cache_put(other, b[i]));
			must(hp_cache_put_inline(one, (char *)a[i] + 1) == hp_cache_put(other, (char *)b[i] + 1));
			a[i] = b[i] = NULL;
		} else {
			must((a[i] = hp_cache_get_inline(one, 0)) && (b[i] = hp_cache_get(other, 0)));
			if (flags & HP_CACHE_ZERO)
				for (size_t k = 0; k < size; k++) must(((char *)a[i])[k] == 0);
			memset(a[i], (int)random, size);
			memset(b[i], (int)random, size);
		}
		if (turn % 1000 == 0) must(in_use(one) == in_use(other));
	}
	for (unsigned i = 0; i < OBJECTS; i++) {
		if (!a[i]) continue;
		must(hp_cache_put_inline(other, a[i]) == -ENOENT);
		must(hp_cache_put_inline(one, a[i]) == 0);
		must(hp_cache_put_inline(other, b[i]) == 0); /* one form gets, the other puts */
		a[i] = b[i] = NULL;
	}
	must(hp_cache_put_inline(one, NULL) == hp_cache_put(one, NULL));
	must(hp_cache_put_inline(one, &random) == -EINVAL);
	must(hp_cache_put_inline(one, hp_pool_base(pool)) == hp_cache_put(one, hp_pool_base(pool)));
	/* the limit */
	must(hp_cache_set_hard_limit(one, 3, NULL, 0) == 0);
	for (unsigned i = 0; i < 3; i++) must((a[i] = hp_cache_get_inline(one, 0)));
	must(error_of(hp_cache_get_inline(one, 0)) == EAGAIN);
	must(error_of(hp_cache_get_inline(one, HP_CACHE_WAIT | HP_CACHE_LIMITFAIL)) == EAGAIN);
	must(error_of(hp_cache_get_inline(one, 4096)) == EINVAL);
	for (unsigned i = 0; i < 3; i++) must(hp_cache_put_inline(one, a[i]) == 0);
	a[0] = a[1] = a[2] = NULL;
	must(hp_cache_destroy(one) == 0);
	must(hp_cache_destroy(other) == 0);
}

static int refuse(void *arg, void *object, unsigned flags)
{
	(void)object;
	(void)flags;
	return ++*(int *)arg % 2 ? 0 : -1;
}

static void constructed(hp_pool *pool)
{
	struct hp_cache_options options;
	hp_cache *cache;
	int calls = 0;
	memset(&options, 0, sizeof options);
	options.struct_size = sizeof options;
	options.size = 80;
	options.ctor = refuse;
	options.arg = &calls;
	must(hp_cache_create(pool, "constructed", &options, &cache) == 0);
	void *object = hp_cache_get_inline(cache, 0);
	must(object && calls == 1);
	must(error_of(hp_cache_get_inline(cache, 0)) == ECANCELED && calls == 2);
	must(hp_cache_put_inline(cache, object) == 0);
	must(hp_cache_destroy(cache) == 0);
}

static void *wait_for_one(void *arg)
{
	hp_cache *cache = (hp_cache *)arg;
	void *object = hp_cache_get_inline(cache, HP_CACHE_WAIT);
	must(object);
	must(hp_cache_put_inline(cache, object) == 0);
	return NULL;
}

/* Put inline wakes; and what another thread got is put inline. */
static void waited_for(hp_pool *pool)
{
	hp_cache *cache = cache_new(pool, "waited for", 100, 0);
	struct hp_cache_stats stats;
	pthread_t thread;
	must(hp_cache_set_hard_limit(cache, 1, NULL, 0) == 0);
	for (unsigned turn = 0; turn < 50; turn++) {
		void *object = hp_cache_get_inline(cache, HP_CACHE_WAIT);
		must(object);
		must(pthread_create(&thread, NULL, wait_for_one, cache) == 0);
		memset(&stats, 0, sizeof stats);
		stats.struct_size = sizeof stats;
		do {
			sched_yield();
			must(hp_cache_stats(cache, &stats) == 0);
		} while (!stats.waiting);
		must(hp_cache_put_inline(cache, object) == 0);
		must(pthread_join(thread, NULL) == 0);
	}
	must(hp_cache_destroy(cache) == 0);
}

static void stale(hp_pool *pool)
{
	hp_cache *cache = cache_new(pool, "stale", 64, 0), *other, *next;
	must(hp_cache_open(pool, "stale", NULL, &other) == 0);
	must(hp_cache_put_inline(other, hp_cache_get_inline(other, 0)) == 0);
	must(hp_cache_destroy(cache) == 0);
	must(error_of(hp_cache_get_inline(other, 0)) == ESTALE);
	next = cache_new(pool, "next", 64, 0);
	must(hp_cache_put_inline(next, hp_cache_get_inline(next, 0)) == 0);
	must(error_of(hp_cache_get_inline(other, 0)) == ESTALE);
	hp_cache_close(other);
	must(hp_cache_destroy(next) == 0);
}

int main(void)
{
	static const unsigned modes[] = {0, HP_POOL_FENCED, HP_POOL_PRIVATE};
	static const size_t sizes[] = {1, 8, 24, 64, 200, 1000, 4096, 12000};
	for (unsigned m = 0; m < 3; m++) {
		hp_pool *pool = pool_new(modes[m]), *second = pool_new(0);
		hp_cache *elsewhere = cache_new(second, "elsewhere", 64, 0);
		for (unsigned s = 0; s < 8; s++) {
			same(pool, sizes[s], 0);
			/* a thread's last used pool is the fast one: the other one in between */
			must(hp_cache_put_inline(elsewhere, hp_cache_get_inline(elsewhere, 0)) == 0);
		}
		same(pool, 100, HP_CACHE_ZERO);
		same(pool, 100, HP_CACHE_NO_MAGAZINES);
		same(pool, 100, HP_CACHE_LARGE_MAGAZINES);
		same(pool, 100, HP_CACHE_PROCESS);
		constructed(pool);
		waited_for(pool);
		stale(pool);
		must(hp_cache_destroy(elsewhere) == 0);
		must(hp_pool_check(pool, NULL, NULL) == 0);
		must(hp_pool_detach(second) == 0);
		must(hp_pool_detach(pool) == 0);
	}
	puts("passed");
	return 0;
}
