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
	atomic_store(&slab->objects, (uint16_t)(hp_below(random, 4) ? hp_below(random, 100) : UINT16_MAX));
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

/* All of the pool, one by one and in runs, again and again. */
static void objects(void **state)
{
	(void)state;
	struct hp_cache_options options = {
		.struct_size = sizeof options, .size = OBJECT, .ctor = construct, .dtor = destroy};
	uint64_t random = hp_seed("objects");
	hp_cache *cache;
	must_be(hp_cache_create(pool, "spoilt", &options, &cache), 0);
	size_t stride = hp_cache_numbers(cache).stride;
	char *of[MOST + 3];
	for (unsigned round = 0; round < 100; round++) {
		unsigned count = 0, left = 2;
		while (left && count < MOST) {
			unsigned n = left == 2 && hp_below(&random, 2) ? 3 : 1;
			char *first = n == 1 ? hp_cache_get(cache, HP_CACHE_NOWAIT) : hp_cache_get_array(cache, HP_CACHE_NOWAIT, n);
			if (!first) left = n == 1 ? 0 : 1;
			for (unsigned i = 0; first && i < n; i++) must(inside(of[count++] = first + i * stride, OBJECT));
			if (hp_below(&random, 20) == 0) spoil_all(&random);
		}
		must(round > 0 || count > 0);
		while (count) hp_cache_put(cache, of[--count]); /* where it lies may be no object any more */
		hp_cache_invalidate(cache);
	}
	must(destroyed > 0);
	must_be(outside, 0);
	hp_cache_close(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(blocks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(objects, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
