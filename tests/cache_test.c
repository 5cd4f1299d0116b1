/* The contract of caches within one process, function by function.
 *
 * Catches: an object outside of its slab, or over another one, at any size, alignment and offset; constructors that run
 * twice or not at all; a bulk of which a part stays behind when it fails; limits and reservations that do not hold; an
 * error that is another than the header says; memory that stays behind when a cache ends. */
#include "hp_cache.h"
#include <pthread.h>
#include <hugepool/malloc.h>

#define MAX_OUT 64

/* One cache of those options: objects that do not overlap, each aligned, filled to the last byte. False: refused. */
static bool try_options(hp_pool *pool, struct hp_cache_options options, unsigned count)
{
	hp_cache *cache;
	void *object[MAX_OUT];
	int error = hp_cache_create(pool, "tried", &options, &cache);
	if (error == -EINVAL) return false;
	must_be(error, 0);
	size_t align = options.align ? options.align : options.size % 16 ? 8 : 16;
	char *base = hp_pool_base(pool);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < count; i++) {
			object[i] = hp_cache_get(cache, 0);
			must(object[i]);
			must_be(((uintptr_t)object[i] - (uintptr_t)base + options.align_offset) % align, 0);
			must((char *)object[i] >= base && (char *)object[i] + options.size <= base + hp_pool_capacity(pool));
			hp_cache_fill(object[i], options.size, i);
		}
		must_be(hp_cache_numbers(cache).in_use, count);
		must(hp_cache_numbers(cache).stride >= options.size);
		for (unsigned i = 0; i < count; i++) {
			must(hp_cache_filled(object[i], options.size, i));
			must_be(hp_cache_put(cache, object[i]), 0);
		}
	}
	must_be(hp_cache_numbers(cache).in_use, 0);
	must_be(hp_cache_destroy(cache), 0);
	return true;
}

static void objects_of_every_size_and_alignment(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(128 * MIB, 0);
	static const size_t sizes[] = {1,     7,     8,     9,     15,     16,     17,      24,      100,    500,
	                               512,   1000,  2048,  4095,  4096,   4097,   5000,    9000,    20000,  32768,
	                               32769, 40000, 65536, 99999, 262144, 524288, 1000000, 1044479, 1044480};
	static const size_t aligns[] = {0, 8, 16, 32, 128, 1024, 4096};
	uint64_t seed = hp_seed("sizes");
	for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++)
		for (unsigned a = 0; a < sizeof aligns / sizeof *aligns; a++) {
			const size_t offsets[] = {0, 1, 8, 12, aligns[a] ? aligns[a] - 1 : 0};
			for (unsigned o = 0; o < 5; o++) {
				struct hp_cache_options options = hp_cache_of(sizes[s], 0);
				options.align = aligns[a];
				options.align_offset = offsets[o];
				bool may = offsets[o] < (aligns[a] ? aligns[a] : sizes[s] % 16 ? 8u : 16u);
				bool made = try_options(pool, options, sizes[s] > 40000 ? 8 : MAX_OUT);
				/* with an offset, the largest ones do not fit any more */
				if (made != may && (made || sizes[s] + (aligns[a] ? aligns[a] : 16) <= 1044480))
					fail_msg("size %zu, align %zu, offset %zu: %d", sizes[s], aligns[a], offsets[o], made);
			}
		}
	for (unsigned i = 0; i < (HP_TEST_SANITIZER ? 100 : 600); i++) {
		struct hp_cache_options options = hp_cache_of(1 + hp_below(&seed, i % 4 ? 3000 : 300000), 0);
		options.align = (size_t)8 << hp_below(&seed, 10);
		options.align_offset = hp_below(&seed, options.align);
		if (i % 3 == 0) options.flags = HP_CACHE_NO_MAGAZINES;
		if (i % 3 == 1) options.flags = HP_CACHE_LARGE_MAGAZINES;
		must(try_options(pool, options, options.size > 40000 ? 8 : 32));
	}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void options_that_make_no_sense(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache;
	const struct hp_cache_options good = hp_cache_of(64, 0);
	struct hp_cache_options bad[11];
	for (unsigned i = 0; i < 11; i++) bad[i] = good;
	bad[0].size = 0;
	bad[1].size = 1044481;
	bad[2].align = 24;
	bad[3].align = 8192;
	bad[4].align_offset = 16;
	bad[5].flags = 1u << 20;
	bad[6].flags = HP_CACHE_LARGE_MAGAZINES | HP_CACHE_NO_MAGAZINES;
	bad[7].flags = HP_CACHE_ON_NODE;
	bad[7].node = 64;
	bad[8].struct_size = 8;
	bad[9].size = SIZE_MAX;
	bad[10].size = hp_stats(pool).unit_size + 1; /* nowhere in this pool is there room for one */
	for (unsigned i = 0; i < 11; i++) must_be(hp_cache_create(pool, "bad", &bad[i], &cache), -EINVAL);
	must_be(hp_cache_create(pool, "", &good, &cache), -EINVAL);
	must_be(hp_cache_create(pool, NULL, &good, &cache), -EINVAL);
	must_be(hp_cache_create(pool, "a name of forty bytes, that is one more.", &good, &cache), -EINVAL);
	must_be(hp_cache_create(pool, "bad", NULL, &cache), -EINVAL);
	must_be(hp_cache_create(NULL, "bad", &good, &cache), -EINVAL);
	must_be(hp_cache_open(pool, "bad", NULL, &cache), -ENOENT);
	must_be(hp_cache_create(pool, "a name of thirty-nine bytes, the most..", &good, &cache), 0);
	assert_string_equal(hp_cache_name(cache), "a name of thirty-nine bytes, the most..");
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static int never(void *arg, void *object, unsigned flags)
{
	(void)arg;
	(void)object;
	(void)flags;
	return -1;
}

static void names_and_handles(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	struct hp_cache_options options = hp_cache_of(64, 0), larger = hp_cache_of(65, 0), with = hp_cache_of(64, 0);
	hp_cache *cache, *twin, *other;
	with.ctor = never;
	must_be(hp_cache_create(pool, "one", &options, &cache), 0);
	must_be(hp_cache_create(pool, "one", &larger, &other), -EEXIST);
	must_be(hp_cache_open(pool, "one", &larger, &other), -EPROTO);
	must_be(hp_cache_open(pool, "one", &with, &other), -EINVAL);
	must_be(hp_cache_open(pool, "two", NULL, &other), -ENOENT);
	must_be(hp_cache_open(pool, "one", NULL, &twin), 0);
	/* two handles, one cache */
	void *object = hp_cache_get(cache, 0);
	must_be(hp_cache_numbers(twin).in_use, 1);
	must_be(hp_cache_destroy(twin), -EBUSY);
	must_be(hp_cache_put(twin, object), 0);
	must_be(hp_cache_put(cache, object), -EALREADY);
	/* closing a handle leaves the cache */
	hp_cache_close(twin);
	object = hp_cache_get(cache, 0);
	must(object);
	must_be(hp_cache_put(cache, object), 0);
	must_be(hp_cache_create(pool, "with", &with, &other), 0);
	must_be(hp_cache_open(pool, "with", NULL, &twin), -EINVAL);
	must_be(hp_cache_destroy(other), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void as_many_caches_as_there_is_room_for(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	hp_cache *cache[200];
	void *object[200];
	unsigned count = 0;
	int error;
	struct hp_cache_options options = hp_cache_of(16, 0);
	for (;;) {
		char name[16];
		snprintf(name, sizeof name, "cache %u", count);
		options.size = 16 + count * 8;
		error = hp_cache_create(pool, name, &options, &cache[count]);
		if (error < 0) break;
		object[count] = hp_cache_get(cache[count], 0);
		must(object[count]);
		hp_cache_fill(object[count], options.size, count);
		count++;
		must(count < 200);
	}
	must_be(error, -ENOSPC);
	must_be(count, 184);
	for (unsigned i = 0; i < count; i++) {
		must(hp_cache_filled(object[i], 16 + i * 8, i));
		must_be(hp_cache_put(cache[(i + 1) % count], object[i]), -ENOENT);
		must_be(hp_cache_put(cache[i], object[i]), 0);
	}
	/* the place of one that ended is another's */
	must_be(hp_cache_destroy(cache[77]), 0);
	must_be(hp_cache_create(pool, "late", &options, &cache[77]), 0);
	for (unsigned i = 0; i < count; i++) must_be(hp_cache_destroy(cache[i]), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* All of the pool, in objects of one size; then ENOMEM, and everything can be had again. */
static void the_whole_pool_in_objects(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	static const size_t sizes[] = {16, 64, 1500, 4096, 65536};
	for (unsigned s = 0; s < 5; s++) {
		hp_cache *cache = hp_cache_make(pool, "all", sizes[s], 0);
		size_t most = 4 * MIB / sizes[s] + 1, n = 0, again = 0;
		void **object = calloc(most, sizeof *object), *one;
		for (; (one = hp_cache_get(cache, 0)); n++) {
			must(n < most);
			*(uint64_t *)(object[n] = one) = n;
		}
		must_be(errno, ENOMEM);
		must(n * sizes[s] >= 4 * MIB * 85 / 100);
		must_be(hp_cache_numbers(cache).in_use, n);
		must_be(hp_cache_numbers(cache).fails, 1);
		for (size_t i = 0; i < n; i++) must_be(*(uint64_t *)object[i], i);
		for (size_t i = 0; i < n; i++) must_be(hp_cache_put(cache, object[i]), 0);
		for (; (one = hp_cache_get(cache, 0)); again++) object[again] = one;
		must_be(again, n);
		for (size_t i = n; i-- > 0;) must_be(hp_cache_put(cache, object[i]), 0);
		must_be(hp_cache_destroy(cache), 0);
		free(object);
		hp_must_be_empty(pool);
	}
	hp_pool_detach(pool);
}

/* ---- constructors ---- */

#define BUILT UINT64_C(0xc0457c7ed)

struct builder {
	unsigned built, destroyed, refuse; /* refuse: one in so many; 0: none */
	unsigned asked;
	uint64_t flags;
};

static int build(void *arg, void *object, unsigned flags)
{
	struct builder *builder = arg;
	builder->flags |= flags;
	if (builder->refuse && ++builder->asked % builder->refuse == 0) return -1;
	must(*(uint64_t *)object != BUILT);
	*(uint64_t *)object = BUILT;
	builder->built++;
	return 0;
}

static void destroy(void *arg, void *object)
{
	struct builder *builder = arg;
	must(*(uint64_t *)object == BUILT);
	*(uint64_t *)object = 0;
	builder->destroyed++;
}

static hp_cache *built_cache(hp_pool *pool, const char *name, struct builder *builder)
{
	struct hp_cache_options options = hp_cache_of(200, 0);
	options.ctor = build;
	options.dtor = destroy;
	options.arg = builder;
	hp_cache *cache;
	must_be(hp_cache_create(pool, name, &options, &cache), 0);
	return cache;
}

static void objects_are_constructed_once_and_stay_so(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	void *all;
	must_be(hp_page_alloc(pool, 8 * MIB, HP_PAGE_ZERO, &all), 0);
	must_be(hp_page_free(pool, all), 0);
	struct builder builder = {0};
	hp_cache *cache = built_cache(pool, "built", &builder);
	void *object[1000];
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < 1000; i++) {
			must(object[i] = hp_cache_get(cache, round == 0 ? HP_CACHE_URGENT : 0));
			must_be(*(uint64_t *)object[i], BUILT);
		}
		for (unsigned i = 0; i < 1000; i++) must_be(hp_cache_put(cache, object[(i * 7) % 1000]), 0);
	}
	must(builder.built >= 1000 && builder.built - builder.destroyed <= hp_cache_numbers(cache).cached);
	must_be(builder.flags, HP_CACHE_URGENT);
	unsigned before = builder.destroyed;
	must(hp_cache_reclaim(cache) > 0);
	must(builder.destroyed > before);
	must_be(builder.destroyed, builder.built); /* none is out: all of it has gone */
	must(object[0] = hp_cache_get(cache, 0));
	must_be(*(uint64_t *)object[0], BUILT);
	must_be(hp_cache_put(cache, object[0]), 0);
	must_be(hp_cache_destroy(cache), 0);
	must_be(builder.destroyed, builder.built);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void a_constructor_may_refuse(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	void *all;
	must_be(hp_page_alloc(pool, 8 * MIB, HP_PAGE_ZERO, &all), 0);
	must_be(hp_page_free(pool, all), 0);
	struct builder builder = {.refuse = 1};
	hp_cache *cache = built_cache(pool, "built", &builder);
	for (unsigned i = 0; i < 100; i++) must_refuse(hp_cache_get(cache, i % 2 ? HP_CACHE_WAIT : 0), ECANCELED);
	must_be(hp_cache_numbers(cache).in_use, 0);
	/* a bulk of which one is refused is none at all */
	void *object[100];
	builder.refuse = 70;
	must_be(hp_cache_get_bulk(cache, 0, 100, object), -ECANCELED);
	must_be(hp_cache_numbers(cache).in_use, 0);
	builder.refuse = 0;
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
	for (unsigned i = 0; i < 100; i++) must_be(*(uint64_t *)object[i], BUILT);
	must_be(hp_cache_put_bulk(cache, 100, object), 0);
	must_refuse(hp_cache_get_array(cache, 0, 4), EINVAL); /* of constructed objects there are no arrays */
	must_be(hp_cache_destroy(cache), 0);
	must_be(builder.built, builder.destroyed);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void zero_when_got(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	static const char none[5000];
	for (size_t size = 1; size <= 5000; size = size * 3 + 1) {
		hp_cache *cache = hp_cache_make(pool, "zero", size, HP_CACHE_ZERO);
		void *object[32];
		for (unsigned round = 0; round < 3; round++) {
			must_be(hp_cache_get_bulk(cache, 0, 16, object), 0);
			for (unsigned i = 16; i < 32; i++) must(object[i] = hp_cache_get(cache, 0));
			for (unsigned i = 0; i < 32; i++) {
				must(memcmp(object[i], none, size) == 0);
				memset(object[i], 0xa5, size);
			}
			must_be(hp_cache_put_bulk(cache, 32, object), 0);
			char *array = hp_cache_get_array(cache, 0, 3);
			if (array) {
				size_t stride = hp_cache_numbers(cache).stride;
				for (unsigned i = 0; i < 3; i++) must(memcmp(array + i * stride, none, size) == 0);
				memset(array, 0x5a, 2 * stride + size);
				must_be(hp_cache_put_array(cache, array, 3), 0);
			}
		}
		must_be(hp_cache_destroy(cache), 0);
	}
	hp_pool_detach(pool);
}

/* ---- many at once ---- */

static void *put_one(void *what)
{
	void **cache_and_object = what;
	return (void *)(intptr_t)hp_cache_put(cache_and_object[0], cache_and_object[1]);
}

static void all_out_are_back(hp_cache *cache, size_t n, void *const *object)
{
	must_be(hp_cache_numbers(cache).in_use, n);
	for (size_t i = 0; i < n; i++) must_be(hp_cache_put(cache, object[i]), 0);
	must_be(hp_cache_numbers(cache).in_use, 0);
}

/* What comes back together is taken for what was taken together, where it is that, and nowhere else. */
static void a_bulk_is_what_was_taken_together_or_not(void **state)
{
	(void)state;
	enum { N = 8 };
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "together", 64, 0);
	void *a[2 * N], *b[N], *c[N], *none[N] = {NULL}, *one, *error;
	for (unsigned round = 0; round < 9; round++) {
		must_be(hp_cache_get_bulk(cache, 0, 2 * N, a), 0);
		must_be(hp_cache_put_bulk(cache, 2 * N, a), 0);
		switch (round) {
		case 0: /* it is */
			for (unsigned i = 0; i < 10; i++) {
				must_be(hp_cache_get_bulk(cache, 0, N, a), 0);
				must_be(hp_cache_numbers(cache).in_use, N);
				must_be(hp_cache_put_bulk(cache, N, a), 0);
				must_be(hp_cache_numbers(cache).in_use, 0);
				must_be(hp_cache_put_bulk(cache, N, a), -EALREADY);
			}
			break;
		case 1: /* as many others */
			must_be(hp_cache_get_bulk(cache, 0, N, a), 0);
			must_be(hp_cache_get_bulk(cache, 0, N, b), 0);
			must_be(hp_cache_put_bulk(cache, N, a), 0);
			all_out_are_back(cache, N, b);
			break;
		case 2: /* another one, and all but the last */
			must_be(hp_cache_get_bulk(cache, 0, N, a + 1), 0);
			a[0] = hp_cache_get(cache, 0);
			must_be(hp_cache_put_bulk(cache, N, a), 0);
			all_out_are_back(cache, 1, a + N);
			break;
		case 3: /* one was put by somebody else */
			must_be(hp_cache_get_bulk(cache, 0, N, a), 0);
			void *what[] = {cache, a[3]};
			pthread_t thread;
			must_be(pthread_create(&thread, NULL, put_one, what), 0);
			must_be(pthread_join(thread, &error), 0);
			must(error == NULL);
			must_be(hp_cache_put_bulk(cache, N, a), -EALREADY);
			must_be(hp_cache_numbers(cache).in_use, 0);
			break;
		case 4: /* others came to lie in their place */
			must_be(hp_cache_get_bulk(cache, 0, N, a), 0);
			must_be(hp_cache_get_bulk(cache, 0, N, b), 0);
			must_be(hp_cache_put_bulk(cache, N, a), 0);
			must_be(hp_cache_get_bulk(cache, 0, N, c), 0);
			must_be(hp_cache_put_bulk(cache, N, b), 0);
			all_out_are_back(cache, N, c);
			break;
		case 5: /* the same, one by one */
			must_be(hp_cache_get_bulk(cache, 0, N, a), 0);
			must_be(hp_cache_get_bulk(cache, 0, N, b), 0);
			for (unsigned i = 0; i < N; i++) must_be(hp_cache_put(cache, a[i]), 0);
			must_be(hp_cache_get_bulk(cache, 0, N, c), 0);
			must_be(hp_cache_put_bulk(cache, N, b), 0);
			all_out_are_back(cache, N, c);
			break;
		case 6: /* nothing at all, when nothing is remembered any more */
			hp_cache_reclaim(cache);
			one = hp_cache_get(cache, 0);
			for (unsigned i = 0; i < 2; i++) {
				must_be(hp_cache_get_bulk(cache, 0, N, a), 0);
				if (i == 0) must_be(hp_cache_put_bulk(cache, N, a), 0);
			}
			hp_cache_reclaim(cache);
			must_be(hp_cache_put_bulk(cache, N, none), 0);
			must_be(hp_cache_put(cache, one), 0);
			all_out_are_back(cache, N, a);
			break;
		case 7: /* one of them is out still */
			must_be(hp_cache_get_bulk(cache, 0, N, a), 0);
			must_be(hp_cache_put_bulk(cache, N, a), 0);
			one = hp_cache_get(cache, 0);
			must_be(hp_cache_get_bulk(cache, 0, N, b), 0);
			for (unsigned i = 0; i < N; i++) must(b[i] != one);
			must_be(hp_cache_put_bulk(cache, N, b), 0);
			all_out_are_back(cache, 1, &one);
			break;
		case 8: /* of several words */
			must_be(hp_cache_prime(cache, 1000), 0);
			for (unsigned i = 0; i < 1000; i++) {
				must_be(hp_cache_get_bulk(cache, 0, N, i % 2 ? b : a), 0);
				if (i % 2) must_be(hp_cache_put_bulk(cache, N, a), 0);
				if (i % 2) memcpy(a, b, sizeof b);
				if (i % 2) must_be(hp_cache_numbers(cache).in_use, N);
				if (i % 2) must_be(hp_cache_put_bulk(cache, N, a), 0);
			}
			break;
		}
	}
	must_be(hp_cache_numbers(cache).in_use, 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void a_bulk_is_all_or_nothing(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "bulk", 100, 0);
	size_t most = 4 * MIB / 100;
	void **object = calloc(most, sizeof *object);
	for (size_t n = 0; n <= 2000; n = n * 2 + 1) {
		must_be(hp_cache_get_bulk(cache, 0, n, object), 0);
		must_be(hp_cache_numbers(cache).in_use, n);
		for (size_t i = 0; i < n; i++) hp_cache_fill(object[i], 100, i);
		for (size_t i = 0; i < n; i++) must(hp_cache_filled(object[i], 100, i));
		must_be(hp_cache_put_bulk(cache, n, object), 0);
		must_be(hp_cache_numbers(cache).in_use, 0);
	}
	must_be(hp_cache_get_bulk(cache, 0, most, object), -ENOMEM);
	must_be(hp_cache_numbers(cache).in_use, 0);
	must_be(hp_cache_set_hard_limit(cache, 50, NULL, 0), 0);
	must_be(hp_cache_get_bulk(cache, 0, 51, object), -EAGAIN);
	must_be(hp_cache_numbers(cache).in_use, 0);
	must_be(hp_cache_get_bulk(cache, 0, 50, object), 0);
	/* wrong ones among them: the first error, and all others are back */
	void *wrong[54];
	memcpy(wrong, object, 50 * sizeof *object);
	wrong[50] = wrong[10];
	wrong[51] = NULL;
	wrong[52] = &seteuid;
	wrong[53] = (char *)wrong[20] + 1;
	int error = hp_cache_put_bulk(cache, 54, wrong);
	must(error == -EALREADY || error == -EINVAL);
	must_be(hp_cache_numbers(cache).in_use, 0);
	must_be(hp_cache_put_bulk(cache, 50, object), -EALREADY);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	free(object);
	hp_pool_detach(pool);
}

static void arrays_are_contiguous(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	static const size_t sizes[] = {1, 40, 500, 4096, 20000};
	uint64_t seed = hp_seed("arrays");
	for (unsigned s = 0; s < 5; s++) {
		hp_cache *cache = hp_cache_make(pool, "array", sizes[s], 0);
		size_t stride = hp_cache_numbers(cache).stride, size = sizes[s];
		struct {
			char *at;
			size_t n;
		} held[100] = {{0}};
		for (unsigned turn = 0; turn < 5000; turn++) {
			unsigned i = (unsigned)hp_below(&seed, 100);
			if (held[i].at) {
				for (size_t k = 0; k < held[i].n; k++) must(hp_cache_filled(held[i].at + k * stride, size, i * 64 + k));
				if (held[i].n > 1 && hp_below(&seed, 2)) {
					/* one by one is as good */
					for (size_t k = 0; k < held[i].n; k++) must_be(hp_cache_put(cache, held[i].at + k * stride), 0);
					must(hp_cache_put_array(cache, held[i].at, held[i].n) < 0);
				} else {
					must_be(hp_cache_put_array(cache, held[i].at, held[i].n), 0);
				}
				held[i].at = NULL;
				continue;
			}
			held[i].n = 1 + hp_below(&seed, size > 4000 ? 3 : 64);
			held[i].at = held[i].n == 1 && turn % 2 ? hp_cache_get(cache, 0) : hp_cache_get_array(cache, 0, held[i].n);
			if (!held[i].at) {
				must(errno == ENOMEM || errno == EINVAL);
				continue;
			}
			for (size_t k = 0; k < held[i].n; k++) hp_cache_fill(held[i].at + k * stride, size, i * 64 + k);
		}
		for (unsigned i = 0; i < 100; i++)
			if (held[i].at) must_be(hp_cache_put_array(cache, held[i].at, held[i].n), 0);
		must_be(hp_cache_numbers(cache).in_use, 0);
		must_refuse(hp_cache_get_array(cache, 0, 0), EINVAL);
		must_refuse(hp_cache_get_array(cache, 0, 65), EINVAL);
		must_be(hp_cache_destroy(cache), 0);
	}
	hp_cache *one = hp_cache_make(pool, "one in a slab", 100000, 0);
	must_refuse(hp_cache_get_array(one, 0, 2), EINVAL);
	/* half of an array is not put back twice */
	hp_cache *cache = hp_cache_make(pool, "half", 64, 0);
	char *array = hp_cache_get_array(cache, 0, 8);
	must_be(hp_cache_put(cache, array + 3 * 64), 0);
	must_be(hp_cache_put_array(cache, array, 8), -EALREADY);
	must_be(hp_cache_numbers(cache).in_use, 7);
	must_be(hp_cache_put_array(cache, array + 1, 2), -EINVAL);
	must_be(hp_cache_put_array(cache, array, 3), 0);
	must_be(hp_cache_put_array(cache, array + 4 * 64, 4), 0);
	must_be(hp_cache_destroy(cache), 0);
	must_be(hp_cache_destroy(one), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* ---- memory ---- */

static void primed_objects_need_no_memory(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "primed", 300, 0);
	void *object[1000];
	must_be(hp_cache_prime(cache, 1000), 0);
	uint64_t bytes = hp_cache_numbers(cache).bytes;
	must(hp_cache_numbers(cache).cached >= 1000);
	for (unsigned i = 0; i < 1000; i++) must(object[i] = hp_cache_get(cache, 0));
	must_be(hp_cache_numbers(cache).bytes, bytes);
	must_be(hp_cache_prime(cache, 1000000), -ENOMEM);
	must_be(hp_cache_put_bulk(cache, 1000, object), 0);
	must_be(hp_cache_set_hard_limit(cache, 100, NULL, 0), 0);
	must_be(hp_cache_prime(cache, 100), 0);
	must_be(hp_cache_prime(cache, 101), -EAGAIN);
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
	must_be(hp_cache_put_bulk(cache, 100, object), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void reclaim_gives_back_what_nobody_has_out(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "reclaimed", 1000, 0);
	void *object[2000], *whole;
	must_be(hp_cache_get_bulk(cache, 0, 2000, object), 0);
	must_be(hp_cache_put_bulk(cache, 1000, object), 0);
	must_be(hp_cache_put_bulk(cache, 999, object + 1000), 0);
	uint64_t held = hp_cache_numbers(cache).bytes;
	int64_t back = hp_cache_reclaim(cache);
	must(back >= 0);
	must_be(hp_cache_numbers(cache).bytes, held - (uint64_t)back);
	must_be(hp_cache_numbers(cache).slabs, 1);
	must_be(hp_cache_put(cache, object[1999]), 0);
	must(hp_cache_reclaim(cache) > 0);
	must_be(hp_cache_numbers(cache).bytes, 0);
	must_be(hp_cache_reclaim(cache), 0);
	/* not needed: pages come back by themselves when somebody wants them */
	must_be(hp_cache_get_bulk(cache, 0, 2000, object), 0);
	must_be(hp_cache_put_bulk(cache, 2000, object), 0);
	must_be(hp_page_alloc(pool, 8 * MIB, 0, &whole), 0);
	must_be(hp_page_free(pool, whole), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void no_magazines_and_large_ones(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	static const unsigned kinds[] = {HP_CACHE_NO_MAGAZINES, HP_CACHE_LARGE_MAGAZINES, 0};
	for (unsigned k = 0; k < 3; k++) {
		hp_cache *cache = hp_cache_make(pool, "magazines", 48, kinds[k]);
		void *object[500];
		for (unsigned round = 0; round < 20; round++) {
			for (unsigned i = 0; i < 500; i++) {
				must(object[i] = hp_cache_get(cache, 0));
				hp_cache_fill(object[i], 48, i);
			}
			for (unsigned i = 0; i < 500; i++) {
				must(hp_cache_filled(object[i], 48, i));
				must_be(hp_cache_put(cache, object[i]), 0);
				int again = hp_cache_put(cache, object[i]);
				must(again == -EALREADY || again == -ENOENT); /* its slab may have gone back */
			}
		}
		must_be(hp_cache_numbers(cache).in_use, 0);
		must_be(hp_cache_destroy(cache), 0);
	}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* ---- wrong puts ---- */

static void a_wrong_put_harms_nothing(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0), *foreign = hp_plain_pool(MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "right", 72, 0), *other = hp_cache_make(pool, "other", 72, 0);
	hp_cache *abroad = hp_cache_make(foreign, "right", 72, 0);
	uint64_t seed = hp_seed("wrong puts");
	void *mine[500], *theirs[100], *freed[100], *block[20], *page, *far;
	must_be(hp_cache_get_bulk(cache, 0, 500, mine), 0);
	must_be(hp_cache_get_bulk(other, 0, 100, theirs), 0);
	must_be(hp_cache_get_bulk(cache, 0, 100, freed), 0);
	for (unsigned i = 0; i < 20; i++) must(block[i] = hp_malloc(pool, 10 + i * 1000));
	must_be(hp_page_alloc(pool, 8 * PAGE, 0, &page), 0);
	must(far = hp_cache_get(abroad, 0));
	for (unsigned i = 0; i < 500; i++) hp_cache_fill(mine[i], 72, i);
	for (unsigned i = 0; i < 100; i++) hp_cache_fill(theirs[i], 72, i + 1000);
	for (unsigned i = 0; i < 20; i++) hp_cache_fill(block[i], 10 + i * 1000, i);
	must_be(hp_cache_put_bulk(cache, 100, freed), 0);
	char *base = hp_pool_base(pool);
	for (unsigned long n = 0; n < (HP_TEST_SANITIZER ? 100000 : 1000000); n++) {
		unsigned i = (unsigned)hp_below(&seed, 100);
		switch (n % 8) {
		case 0: {
			int again = hp_cache_put(cache, freed[i]);
			must(again == -EALREADY || again == -ENOENT); /* its slab may have gone back */
			break;
		}
		case 1: must_be(hp_cache_put(cache, (char *)mine[i * 5] + 1 + hp_below(&seed, 71)), -EINVAL); break;
		case 2: must_be(hp_cache_put(cache, theirs[i]), -ENOENT); break;
		case 3: must_be(hp_cache_put(cache, (char *)block[i % 20] + (i < 40 ? 0 : i)), -ENOENT); break;
		case 4: must_be(hp_cache_put(cache, (char *)page + hp_below(&seed, 8 * PAGE)), -ENOENT); break;
		case 5: must_be(hp_cache_put(cache, n % 16 == 5 ? far : (void *)(uintptr_t)hp_random(&seed)), -EINVAL); break;
		case 6: must_be(hp_cache_put(other, mine[i * 5]), -ENOENT); break;
		default: {
			/* anywhere: never right, but for what happens to begin there and is out */
			char *any = base + hp_below(&seed, 16 * MIB);
			bool right = false;
			for (unsigned k = 0; k < 500; k++) right |= mine[k] == any;
			if (!right) must(hp_cache_put(cache, any) < 0);
		}
		}
	}
	must_be(hp_cache_numbers(cache).in_use, 500);
	must_be(hp_cache_numbers(other).in_use, 100);
	for (unsigned i = 0; i < 500; i++) {
		must(hp_cache_filled(mine[i], 72, i));
		must_be(hp_cache_put(cache, mine[i]), 0);
	}
	for (unsigned i = 0; i < 100; i++) {
		must(hp_cache_filled(theirs[i], 72, i + 1000));
		must_be(hp_cache_put(other, theirs[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		must(hp_cache_filled(block[i], 10 + i * 1000, i));
		hp_free(pool, block[i]);
	}
	must_be(hp_page_free(pool, page), 0);
	must_be(hp_cache_put(abroad, far), 0);
	must_be(hp_cache_destroy(cache), 0);
	must_be(hp_cache_destroy(other), 0);
	must_be(hp_cache_destroy(abroad), 0);
	hp_must_be_sound(pool);
	hp_pool_detach(foreign);
	hp_pool_detach(pool);
}

static void an_observer_gets_no_cache(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0), *observer;
	hp_cache *cache = hp_cache_make(pool, "seen", 64, 0), *none;
	struct hp_cache_options options = hp_cache_of(64, 0);
	int fds[3];
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_observe(fds, &observer), 0);
	must_be(hp_cache_open(observer, "seen", NULL, &none), -EROFS);
	must_be(hp_cache_create(observer, "new", &options, &none), -EROFS);
	must_be(hp_cache_destroy(cache), 0);
	hp_pool_detach(observer);
	hp_pool_detach(pool);
}

/* A handle of a cache that has ended says so, also when another cache has come to its place. */
static void a_handle_of_what_ended_is_stale(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "first", 64, 0), *stale = hp_cache_opened(pool, "first");
	struct hp_cache_stats stats = {.struct_size = sizeof stats};
	void *object[10];
	must_be(hp_cache_get_bulk(stale, 0, 10, object), 0);
	must_be(hp_cache_put_bulk(stale, 10, object), 0);
	must_be(hp_cache_destroy(cache), 0);
	for (unsigned round = 0; round < 2; round++) {
		must_refuse(hp_cache_get(stale, 0), ESTALE);
		must_refuse(hp_cache_get(stale, HP_CACHE_WAIT), ESTALE);
		must_refuse(hp_cache_get_array(stale, 0, 2), ESTALE);
		must_be(hp_cache_get_bulk(stale, 0, 3, object), -ESTALE);
		must_be(hp_cache_prime(stale, 3), -ESTALE);
		must_be(hp_cache_set_hard_limit(stale, 3, NULL, 0), -ESTALE);
		must_be(hp_cache_stats(stale, &stats), -ESTALE);
		if (round) continue;
		cache = hp_cache_make(pool, "second", 64, 0);
		must_be(hp_cache_get_bulk(cache, 0, 10, object), 0);
		must_be(hp_cache_put_bulk(cache, 10, object), 0);
	}
	must(object[0] = hp_cache_get(cache, 0));
	must(hp_cache_put(stale, object[0]) < 0);
	must_be(hp_cache_numbers(cache).in_use, 1);
	must_be(hp_cache_put(cache, object[0]), 0);
	hp_cache_close(stale);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_of_every_size_and_alignment),
		cmocka_unit_test(options_that_make_no_sense),
		cmocka_unit_test(names_and_handles),
		cmocka_unit_test(as_many_caches_as_there_is_room_for),
		cmocka_unit_test(the_whole_pool_in_objects),
		cmocka_unit_test(objects_are_constructed_once_and_stay_so),
		cmocka_unit_test(a_constructor_may_refuse),
		cmocka_unit_test(zero_when_got),
		cmocka_unit_test(a_bulk_is_all_or_nothing),
		cmocka_unit_test(a_bulk_is_what_was_taken_together_or_not),
		cmocka_unit_test(arrays_are_contiguous),
		cmocka_unit_test(primed_objects_need_no_memory),
		cmocka_unit_test(reclaim_gives_back_what_nobody_has_out),
		cmocka_unit_test(no_magazines_and_large_ones),
		cmocka_unit_test(a_wrong_put_harms_nothing),
		cmocka_unit_test(an_observer_gets_no_cache),
		cmocka_unit_test(a_handle_of_what_ended_is_stale),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
