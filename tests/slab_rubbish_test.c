/* Rubbish in slabs' descriptors, as any process that has the pool can write it: nothing beyond the pool is handed out, destroyed
 * or put back.
 *
 * Would catch an object's address that is made of what a descriptor says without a look at where the pool ends. */
#include "hp_cache.h"
#include "hp_malloc.h"

#include "slab/internal.h"

#define SIZE 9000u

static hp_pool *pool;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(MIB, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return hp_pool_detach(pool);
}

static int spoil(hp_pool *of, struct slab *slab, uint32_t page, void *arg)
{
	(void)of, (void)page;
	uint64_t *random = arg;
	if (hp_below(random, 4) == 0)
		atomic_store(&slab->objects, (uint16_t)(hp_below(random, 2) ? hp_below(random, 100) : UINT16_MAX));
	if (hp_below(random, 2)) atomic_store(&slab->first, (uint16_t)hp_random(random));
	return 0;
}

static void spoil_all(uint64_t *random)
{
	slab_visit_all(pool, 0, pool_top(pool), spoil, random);
}

static bool inside(const void *block, size_t size)
{
	return (uintptr_t)block - (uintptr_t)pool->base <= pool->capacity - size;
}

static void blocks(void **state)
{
	(void)state;
	uint64_t random = hp_seed("blocks");
	void *block, *many[16];
	for (unsigned got = 0; (block = hp_malloc(pool, SIZE)) && got < 10000; got++) {
		must(inside(block, SIZE));
		spoil_all(&random);
		if (hp_malloc_bulk(pool, SIZE, 16, many) < 0) continue;
		for (unsigned i = 0; i < 16; i++) must(inside(many[i], SIZE));
	}
}

#define OBJECT 1000u
#define MOST (MIB / OBJECT)
#define RUN 3u

static unsigned destroyed, outside;

static int construct(void *arg, void *object, unsigned flags)
{
	(void)arg, (void)flags;
	memset(object, 1, OBJECT);
	return 0;
}

static void destroy(void *arg, void *object)
{
	(void)arg;
	destroyed++;
	outside += !inside(object, OBJECT);
}

static char *of[MOST + RUN];
static unsigned runs, count; /* objects of runs come first */

/* All of the pool, in runs where there are such, and then one by one. */
static void get_all(hp_cache *cache, size_t stride, uint64_t *spoiling)
{
	char *first;
	for (unsigned i = 0; spoiling && i < 10 * MOST && (first = hp_cache_get_array(cache, HP_CACHE_NOWAIT, RUN)); i++) {
		must(inside(first, (RUN - 1) * stride + OBJECT)); /* and lost: some are there twice */
		spoil_all(spoiling);
	}
	for (runs = count = 0; count < MOST && (first = hp_cache_get_array(cache, HP_CACHE_NOWAIT, RUN));)
		for (unsigned i = 0; i < RUN; i++) must(inside(of[count++] = first + i * stride, OBJECT));
	runs = count;
	while (count < MOST && (of[count] = hp_cache_get(cache, HP_CACHE_NOWAIT))) must(inside(of[count++], OBJECT));
}

static void put_all(hp_cache *cache)
{
	while (count > runs) hp_cache_put(cache, of[--count]); /* where it lies may be no object */
	while (count) hp_cache_put_array(cache, of[count -= RUN], RUN);
}

/* In runs, or one by one with a destructor; what is written comes while they are got, when they are out, or when they are back. */
static void objects(void **state)
{
	(void)state;
	uint64_t random = hp_seed("objects");
	for (unsigned round = 0; round < 120; round++) {
		struct hp_cache_options options = hp_cache_of(OBJECT, 0);
		unsigned spoilt = round / 2 % 3;
		if (round % 2) {
			options.ctor = construct;
			options.dtor = destroy;
		}
		hp_cache *cache;
		must_be(hp_cache_create(pool, "spoilt", &options, &cache), 0);
		size_t stride = hp_cache_numbers(cache).stride;
		get_all(cache, stride, spoilt == 0 ? &random : NULL);
		must(spoilt == 0 || (round % 2 ? count > 0 : runs > 0));
		if (spoilt == 1) spoil_all(&random);
		put_all(cache);
		if (spoilt == 1) get_all(cache, stride, NULL);
		if (spoilt == 2) spoil_all(&random);
		hp_cache_invalidate(cache);
		must_be(hp_pool_detach(pool), 0);
		pool = hp_plain_pool(MIB, 0);
	}
	must(destroyed > 0);
	must_be(outside, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(blocks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(objects, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
