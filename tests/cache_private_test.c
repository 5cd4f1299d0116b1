/* Private caches: on anonymous memory, on memory handed over, on what the caller's functions give.
 *
 * Catches: a kind on which a call of caches does not work, objects outside of what was handed over or over each other, bytes
 * written beside them, memory too small that is taken all the same, an address at the edge taken for an object, a wrong put
 * that changes something, memory that stays behind when the cache ends, an inline form that takes what is not its own, a
 * child that does not go on with its copy. */
#include "hp_region.h"
#include <hugepool/inline.h>

#include "slab/class.h"

/* of cache/cache.h, which cannot stand beside inline.h */
bool cache_cut(const struct hp_cache_options *options, struct slab_class *class);

enum kind { ANONYMOUS, LENT, GIVEN, KINDS };

#define LENT_BYTES (8 * MIB)
static char *lent;
static struct giver giver = GIVER;

static hp_cache *made(enum kind kind, const struct hp_cache_options *options)
{
	struct hp_cache_memory memory = kind == LENT ? hp_lent(lent, LENT_BYTES) : hp_given(&giver, 0, 0);
	hp_cache *cache;
	must_be(hp_cache_create_private("private", options, kind == ANONYMOUS ? NULL : &memory, &cache), 0);
	return cache;
}

static hp_cache *made_of(enum kind kind, size_t size, unsigned flags)
{
	struct hp_cache_options options = hp_cache_of(size, flags);
	return made(kind, &options);
}

static int set_up(void **state)
{
	(void)state;
	lent = hp_mapped(LENT_BYTES);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must_be(giver.given, giver.taken);
	must_be(giver.bytes, 0);
	memset(lent, 1, LENT_BYTES); /* it is still the caller's */
	return munmap(lent, LENT_BYTES);
}

static void objects_of_many_sizes(void **state)
{
	(void)state;
	static const size_t sizes[] = {1, 16, 24, 100, 1000, 4096, 5000, 32768, 65536, 300000, 1044480};
	for (enum kind kind = 0; kind < KINDS; kind++)
		for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++) {
			enum { MANY = 5000 };
			static void *object[MANY];
			unsigned count = sizes[s] > 1000 ? 6 : MANY;
			hp_cache *cache = made_of(kind, sizes[s], 0);
			for (unsigned round = 0; round < 2; round++) {
				for (unsigned i = 0; i < count; i++) {
					must(object[i] = hp_cache_get(cache, 0));
					must_be((uintptr_t)object[i] % (sizes[s] % 16 ? 8 : 16), 0);
					if (kind == LENT)
						must((char *)object[i] >= lent && (char *)object[i] + sizes[s] <= lent + LENT_BYTES);
					hp_cache_fill(object[i], sizes[s], i);
				}
				must_be(hp_cache_numbers(cache).in_use, count);
				must_be(hp_cache_destroy(cache), -EBUSY);
				for (unsigned i = 0; i < count; i++) {
					must(hp_cache_filled(object[i], sizes[s], i));
					must_be(hp_cache_put(cache, object[i]), 0);
				}
				must_be(hp_cache_numbers(cache).in_use, 0);
			}
			must_be(hp_cache_destroy(cache), 0);
		}
}

static void memory_of_odd_sizes_and_places(void **state)
{
	(void)state;
	enum { PAGES = 70, ROUNDS = 400 };
	static void *object[PAGES * 256 + 1];
	uint64_t seed = hp_seed("places");
	unsigned refused = 0;
	char *arena = hp_mapped(PAGES * PAGE);
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t at = hp_below(&seed, 3 * PAGE), bytes = hp_below(&seed, (PAGES - 3) * PAGE);
		if (round % 3 == 0) at -= at % PAGE;
		if (round % 4 == 0) bytes = hp_below(&seed, 12 * PAGE);
		struct hp_cache_options options = hp_cache_of(1 + hp_below(&seed, round % 2 ? 300 : 40000), 0);
		options.align = UINT64_C(1) << (3 + hp_below(&seed, 10));
		struct hp_cache_memory memory = hp_lent(arena + at, bytes);
		struct slab_class class;
		must(cache_cut(&options, &class));
		memset(arena, 0x77, PAGES * PAGE);
		size_t first = (at + PAGE - 1) / PAGE, end = (at + bytes) / PAGE, pages = end > first ? end - first : 0;
		hp_cache *cache = (hp_cache *)1;
		int error = hp_cache_create_private("odd", &options, &memory, &cache);
		if (pages < class.pages) {
			must_be(error, -EINVAL);
			must(!cache);
			refused++;
			continue;
		}
		must_be(error, 0);
		unsigned count = 0;
		while ((object[count] = hp_cache_get(cache, 0))) {
			char *start = object[count];
			must(start >= arena + at && start + options.size <= arena + at + bytes);
			must_be((uintptr_t)start % options.align, 0);
			memset(start, (int)count, options.size);
			count++;
		}
		must_be(errno, ENOMEM);
		if (pages <= 64) must_be(count, pages / class.pages * class.objects);
		must(count);
		for (size_t i = 0; i < PAGES * PAGE; i++)
			if (i < first * PAGE || i >= end * PAGE) must_be(arena[i], 0x77);
		for (unsigned i = 0; i < count; i++) {
			for (size_t k = 0; k < options.size; k++) must_be(((unsigned char *)object[i])[k], i % 256);
			must_be(hp_cache_put(cache, object[i]), 0);
		}
		must_be(hp_cache_put(cache, arena + at + bytes), -EINVAL);
		must_be(hp_cache_put(cache, arena + end * PAGE), -EINVAL);
		must_be(hp_cache_put(cache, arena + first * PAGE - 1), -EINVAL);
		must_be(hp_cache_destroy(cache), 0);
	}
	must(refused > 10);
	must_be(munmap(arena, PAGES * PAGE), 0);
}

static void what_makes_no_sense(void **state)
{
	(void)state;
	struct hp_cache_options options = hp_cache_of(100, 0);
	struct hp_cache_memory both = hp_given(&giver, 0, 0), half = both, small = both, untold = both, old = both,
						   much = both;
	struct hp_cache_memory region = {.struct_size = sizeof region, .region = MIB};
	struct hp_cache_memory bytes = {.struct_size = sizeof bytes, .bytes = MIB};
	struct hp_cache_memory none = hp_lent(lent, 0), wraps = hp_lent(lent, UINT64_MAX - 10);
	both.start = lent;
	half.release = NULL;
	small.region = 100;
	untold.bytes = 4095;
	old.struct_size = 8;
	much.bytes = MIB;
	much.region = 2 * MIB;
	const struct hp_cache_memory *wrong[] = {&both, &half,   &small, &untold, &old,
	                                         &much, &region, &bytes, &none,   &wraps};
	hp_cache *cache;
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
		must_be(hp_cache_create_private("wrong", &options, wrong[i], &cache), -EINVAL);
	must_be(hp_cache_create_private("", &options, NULL, &cache), -EINVAL);
	must_be(hp_cache_create_private("wrong", NULL, NULL, &cache), -EINVAL);
	must_be(hp_cache_create_private("wrong", &options, NULL, NULL), -EINVAL);
	options.flags = HP_CACHE_ON_NODE; /* where the memory lies is not the library's affair */
	struct hp_cache_memory here = hp_lent(lent, LENT_BYTES), there = hp_given(&giver, 0, 0);
	must_be(hp_cache_create_private("wrong", &options, &here, &cache), -EINVAL);
	must_be(hp_cache_create_private("wrong", &options, &there, &cache), -EINVAL);
	options = hp_cache_of(0, 0);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		const struct hp_cache_memory *memory[] = {NULL, &here, &there};
		must_be(hp_cache_create_private("wrong", &options, memory[kind], &cache), -EINVAL);
	}
	/* class PROCESS is what all of it is */
	hp_cache *one = made_of(ANONYMOUS, 64, HP_CACHE_PROCESS);
	void *object = hp_cache_get(one, 0);
	must(object);
	must_be(hp_cache_put(one, object), 0);
	must_be(hp_cache_destroy(one), 0);
}

static void wrong_puts_harm_nothing(void **state)
{
	(void)state;
	int local;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *shared = hp_cache_make(pool, "other", 128, 0);
	char *foreign = hp_cache_get(shared, 0);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		hp_cache *cache = made_of(kind, 128, 0), *other = made_of(kind == LENT ? GIVEN : kind, 128, 0);
		char *object = hp_cache_get(cache, 0), *kept = hp_cache_get(cache, 0), *others = hp_cache_get(other, 0);
		must(object && kept && others);
		hp_cache_fill(kept, 128, 7);
		must_be(hp_cache_put(cache, NULL), 0);
		char *const wrong[] = {(char *)&local, foreign, others, (char *)1, (char *)UINTPTR_MAX, (char *)cache};
		for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
			must_be(hp_cache_put(cache, wrong[i]), -EINVAL);
			must_be(hp_cache_put_inline(cache, wrong[i]), -EINVAL);
			must_be(hp_cache_destruct_object(cache, wrong[i]), -EINVAL);
			must_be(hp_cache_put_array(cache, wrong[i], 2), -EINVAL);
		}
		for (unsigned k = 1; k < 128; k++) must_be(hp_cache_put(cache, object + k), -EINVAL);
		void *mixed[] = {others, object, foreign};
		must_be(hp_cache_put_bulk(cache, 3, mixed), -EINVAL); /* and the middle one is back */
		must_be(hp_cache_numbers(cache).in_use, 1);
		must_be(hp_cache_put(cache, object), -EALREADY);
		must_be(hp_cache_put_inline(cache, object), -EALREADY);
		must_be(hp_cache_put_bulk(cache, 1, (void **)&object), -EALREADY);
		must_be(hp_cache_numbers(cache).in_use, 1);
		must_be(hp_cache_numbers(other).in_use, 1);
		if (kind == LENT) {
			must_be(hp_cache_put(cache, lent - 1), -EINVAL);
			must_be(hp_cache_put(cache, lent + LENT_BYTES), -EINVAL);
			must_be(hp_cache_put(cache, lent + LENT_BYTES - 4096), -ENOENT);
		}
		must(hp_cache_filled(kept, 128, 7));
		must_be(hp_cache_put(cache, kept), 0);
		must_be(hp_cache_put(other, others), 0);
		must_be(hp_cache_destroy(cache), 0);
		must_be(hp_cache_destroy(other), 0);
	}
	must_be(hp_cache_put(shared, foreign), 0);
	must_be(hp_pool_detach(pool), 0);
}

static void inline_forms(void **state)
{
	(void)state;
	enum { MANY = 3000 };
	static void *object[MANY];
	uint64_t seed = hp_seed("inline");
	/* two of each kind in turn, with one of a shared pool: whose turn it is must not be taken for another's */
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	hp_cache *cache[KINDS * 2], *of[MANY] = {0};
	for (unsigned i = 0; i < KINDS * 2; i++)
		cache[i] = i == KINDS + LENT ? hp_cache_make(pool, "shared", 64, 0) : made_of(i % KINDS, 64, 0);
	for (unsigned i = 0; i < 60000; i++) {
		unsigned k = (unsigned)hp_below(&seed, MANY);
		if (of[k]) {
			must(hp_cache_filled(object[k], 64, k));
			must_be(hp_cache_put_inline(of[k], object[k]), 0);
			of[k] = NULL;
		} else {
			of[k] = cache[i / 7 % (KINDS * 2)];
			must(object[k] = hp_cache_get_inline(of[k], 0));
			hp_cache_fill(object[k], 64, k);
		}
	}
	for (unsigned k = 0; k < MANY; k++)
		if (of[k]) must_be(hp_cache_put_inline(of[k], object[k]), 0);
	for (unsigned i = 0; i < KINDS * 2; i++) {
		must_be(hp_cache_numbers(cache[i]).in_use, 0);
		must_be(hp_cache_destroy(cache[i]), 0);
	}
	must_be(hp_pool_detach(pool), 0);
}

static void bulks_arrays_and_zero(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		void *bulk[200], *array[50];
		hp_cache *cache = made_of(kind, 200, HP_CACHE_ZERO);
		for (unsigned round = 0; round < 3; round++) {
			must_be(hp_cache_get_bulk(cache, 0, 200, bulk), 0);
			for (unsigned i = 0; i < 50; i++) {
				must(array[i] = hp_cache_get_array(cache, 0, 1 + i % 16));
				size_t stride = hp_cache_numbers(cache).stride, bytes = stride * (1 + i % 16);
				for (size_t k = 0; k < bytes; k++) must_be(((char *)array[i])[k], 0);
				memset(array[i], 0x33, bytes);
			}
			for (unsigned i = 0; i < 200; i++) {
				for (unsigned k = 0; k < 200; k++) must_be(((char *)bulk[i])[k], 0);
				memset(bulk[i], 0x44, 200);
			}
			for (unsigned i = 0; i < 50; i++) must_be(hp_cache_put_array(cache, array[i], 1 + i % 16), 0);
			must_be(hp_cache_put_array(cache, array[0], 1), -EALREADY);
			must_be(hp_cache_numbers(cache).in_use, 200);
			must_be(hp_cache_put_bulk(cache, 200, bulk), 0);
			must_be(hp_cache_numbers(cache).in_use, 0);
		}
		must_refuse(hp_cache_get_array(cache, 0, 65), EINVAL);
		must_be(hp_cache_destroy(cache), 0);
	}
}

struct counts {
	int constructed, destroyed;
	bool refuse;
};

static int construct(void *arg, void *object, unsigned flags)
{
	struct counts *counts = arg;
	(void)flags;
	if (counts->refuse) return 1;
	memset(object, 0x21, 100);
	counts->constructed++;
	return 0;
}

static void destroy(void *arg, void *object)
{
	struct counts *counts = arg;
	for (unsigned i = 0; i < 100; i++) must_be(((char *)object)[i], 0x21);
	counts->destroyed++;
}

static void constructors(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		enum { MANY = 8000 };
		static void *object[MANY];
		struct counts counts = {0};
		struct hp_cache_options options = hp_cache_of(100, 0);
		options.ctor = construct;
		options.dtor = destroy;
		options.arg = &counts;
		hp_cache *cache = made(kind, &options);
		if (kind != GIVEN) must_be(hp_cache_set_high_watermark(cache, 100000), 0); /* there the region stays anyway */
		for (unsigned i = 0; i < MANY; i++) must(object[i] = hp_cache_get(cache, 0));
		must_be(counts.constructed, MANY);
		for (unsigned i = 0; i < MANY; i++) must_be(hp_cache_put(cache, object[i]), 0);
		must_be(counts.destroyed, 0);
		must(object[0] = hp_cache_get(cache, 0));
		must_be(counts.constructed, MANY); /* what is cached stays constructed */
		must_be(hp_cache_destruct_object(cache, object[0]), 0);
		must_be(counts.destroyed, 1);
		must_be(hp_cache_invalidate(cache), 0);
		must_be(counts.destroyed, MANY);
		counts.refuse = true;
		must_refuse(hp_cache_get(cache, 0), ECANCELED);
		must_be(hp_cache_numbers(cache).in_use, 0);
		counts.refuse = false;
		must_be(hp_cache_get_bulk(cache, 0, 10, object), 0);
		must_be(hp_cache_put_bulk(cache, 10, object), 0);
		must_be(hp_cache_destroy(cache), 0);
		must_be(counts.destroyed, counts.constructed);
	}
}

static void limits_and_reserves(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		enum { LIMIT = 700 };
		void *object[LIMIT + 1];
		hp_cache *cache = made_of(kind, 500, 0);
		must_be(hp_cache_set_hard_limit(cache, LIMIT, "enough", 0), 0);
		for (unsigned round = 0; round < 2; round++) {
			for (unsigned i = 0; i < LIMIT; i++) must(object[i] = hp_cache_get(cache, 0));
			must_refuse(hp_cache_get(cache, 0), EAGAIN);
			must_refuse(hp_cache_get(cache, HP_CACHE_WAIT | HP_CACHE_LIMITFAIL), EAGAIN);
			must_refuse(hp_cache_get_timed(cache, HP_CACHE_WAIT, 8000000), ETIMEDOUT);
			must_be(hp_cache_get_bulk(cache, 0, 1, &object[LIMIT]), -EAGAIN);
			must_be(hp_cache_put_bulk(cache, LIMIT, object), 0);
		}
		must_be(hp_cache_set_hard_limit(cache, 0, NULL, 0), 0);
		must_be(hp_cache_prime(cache, 1000), 0);
		must(hp_cache_numbers(cache).cached >= 1000);
		uint64_t held = hp_cache_numbers(cache).bytes;
		for (unsigned i = 0; i < LIMIT; i++) must(object[i] = hp_cache_get(cache, 0));
		must_be(hp_cache_numbers(cache).bytes, held);
		must_be(hp_cache_put_bulk(cache, LIMIT, object), 0);
		must_be(hp_cache_set_low_watermark(cache, 900), 0);
		must_be(hp_cache_set_high_watermark(cache, 800), -EINVAL);
		must(hp_cache_reclaim(cache) >= 0);
		must(hp_cache_numbers(cache).cached >= 900);
		must_be(hp_cache_set_low_watermark(cache, 0), 0);
		must(hp_cache_reclaim(cache) > 0);
		must_be(hp_cache_numbers(cache).bytes, 0);
		must(object[0] = hp_cache_get(cache, 0)); /* and it can be had again */
		must_be(hp_cache_put(cache, object[0]), 0);
		must(!strcmp(hp_cache_name(cache), "private"));
		must_be(hp_cache_destroy(cache), 0);
	}
}

/* A waiter gets what another thread puts. */
struct waiting {
	hp_cache *cache;
	void *got;
};

static void *wait_for_one(void *arg)
{
	struct waiting *waiting = arg;
	waiting->got = hp_cache_get_timed(waiting->cache, HP_CACHE_WAIT, UINT64_C(4000000000));
	return NULL;
}

static void waiting_is_served(void **state)
{
	(void)state;
	enum { ROUNDS = 8 };
	for (enum kind kind = 0; kind < KINDS; kind++) {
		hp_cache *cache = made_of(kind, 64, 0);
		must_be(hp_cache_set_hard_limit(cache, 1, NULL, 0), 0);
		for (unsigned i = 0; i < ROUNDS; i++) {
			struct waiting waiting = {.cache = cache};
			pthread_t thread;
			void *object = hp_cache_get(cache, 0);
			must(object);
			must_be(pthread_create(&thread, NULL, wait_for_one, &waiting), 0);
			while (!hp_cache_numbers(cache).waiting) sched_yield();
			must_be(hp_cache_put(cache, object), 0);
			must_be(pthread_join(thread, NULL), 0);
			must(waiting.got);
			must_be(hp_cache_put(cache, waiting.got), 0);
		}
		/* by the puts, and not all of them by the end of a slice */
		must(hp_cache_numbers(cache).wakes > 0);
		must_be(hp_cache_destroy(cache), 0);
	}
}

static void drain(void *arg, unsigned flags)
{
	void **object = arg;
	(void)flags;
	if (!object[0]) return;
	must_be(hp_cache_put(object[1], object[0]), 0);
	object[0] = NULL;
}

static void a_hook_is_asked_first(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		hp_cache *cache = made_of(kind, 64, 0);
		void *held[2] = {hp_cache_get(cache, 0), cache}, *object;
		must(held[0]);
		must_be(hp_cache_set_hard_limit(cache, 0, NULL, 0), 0);
		must_be(hp_cache_put(cache, held[0]), 0);
		must_be(hp_cache_set_hard_limit(cache, 1, NULL, 0), 0);
		must(held[0] = hp_cache_get(cache, 0));
		must_be(hp_cache_set_drain_hook(cache, drain, held), 0);
		must(object = hp_cache_get(cache, 0));
		must_refuse(hp_cache_get(cache, 0), EAGAIN);
		must_be(hp_cache_put(cache, object), 0);
		must_be(hp_cache_destroy(cache), 0);
	}
}

/* A child has its own copy of everything, and its objects are its to put. */
static void a_child_goes_on(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		enum { MANY = 500 };
		void *object[MANY * 2];
		hp_cache *cache = made_of(kind, 256, 0);
		for (unsigned i = 0; i < MANY; i++) {
			must(object[i] = hp_cache_get(cache, 0));
			hp_cache_fill(object[i], 256, i);
		}
		pid_t pid = hp_fork();
		for (unsigned i = MANY; i < MANY * 2; i++) {
			must(object[i] = hp_cache_get(cache, 0));
			hp_cache_fill(object[i], 256, i + (pid ? 0 : 1000));
		}
		for (unsigned i = 0; i < MANY * 2; i++) {
			must(hp_cache_filled(object[i], 256, i + (pid || i < MANY ? 0 : 1000)));
			if (!pid) memset(object[i], 0, 256);
		}
		if (!pid) {
			must_be(hp_cache_numbers(cache).in_use, MANY * 2);
			must_be(hp_cache_put_bulk(cache, MANY * 2, object), 0);
			must_be(hp_cache_destroy(cache), 0);
			if (kind == GIVEN) must_be(giver.bytes, 0);
			_exit(0);
		}
		must_be(hp_wait_for(pid), 0);
		for (unsigned i = 0; i < MANY * 2; i++) must(hp_cache_filled(object[i], 256, i));
		must_be(hp_cache_put_bulk(cache, MANY * 2, object), 0);
		must_be(hp_cache_destroy(cache), 0);
	}
}

static void closing_ends_it(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 20; round++)
		for (enum kind kind = 0; kind < KINDS; kind++) {
			hp_cache *cache = made_of(kind, 5000, 0);
			for (unsigned i = 0; i < 1000; i++) must(hp_cache_get(cache, 0));
			hp_cache_close(cache);
		}
	must_be(giver.given, giver.taken);
	hp_cache_close(NULL);
}

static long resident(void)
{
	long pages, all;
	FILE *file = fopen("/proc/self/statm", "r");
	must(file);
	must_be(fscanf(file, "%ld %ld", &all, &pages), 2);
	fclose(file);
	return pages;
}

static void reclaiming_gives_back_to_the_kernel(void **state)
{
	(void)state;
	enum { MANY = 512 };
	void *object[MANY];
	hp_cache *cache = made_of(ANONYMOUS, 65536, 0);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < MANY; i++) {
			must(object[i] = hp_cache_get(cache, 0));
			memset(object[i], 1, 65536);
		}
		long full = resident();
		must_be(hp_cache_put_bulk(cache, MANY, object), 0);
		must(hp_cache_reclaim(cache) >= 0);
		must_be(hp_cache_numbers(cache).bytes, 0);
		must(resident() < full - MANY * 14);
	}
	must_be(hp_cache_destroy(cache), 0);
}

/* What is made and ended leaves nothing behind. */
static void nothing_is_left(void **state)
{
	(void)state;
	struct held before = {0};
	for (unsigned round = 0; round < 30; round++) {
		for (enum kind kind = 0; kind < KINDS; kind++) {
			hp_cache *cache = made_of(kind, 3000, 0);
			void *object[100];
			must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
			must_be(hp_cache_put_bulk(cache, 100, object), 0);
			must_be(hp_cache_destroy(cache), 0);
		}
		if (round == 9) before = held_now();
	}
	struct held after = held_now();
	must_be(after.files, before.files);
	must(HP_TEST_SANITIZER || after.address_space <= before.address_space + MIB);
}

/* The modes are the process', by its environment. */
static void debug_modes_work(void **state)
{
	(void)state;
	must_be(setenv("HUGEPOOL_DEBUG", HP_TEST_SANITIZER ? "canary,caller" : "poison,canary,caller", 1), 0);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		hp_cache *cache = made_of(kind, 100, 0);
		unsetenv("HUGEPOOL_DEBUG");
		char *object = hp_cache_get(cache, 0), *array = hp_cache_get_array(cache, 0, 3);
		must(object && array);
		hp_cache_fill(object, 100, 1);
		object[100] ^= 1; /* behind it */
		fprintf(stderr, "a report of an overwritten byte is meant to follow:\n");
		must_be(hp_cache_put(cache, object), -EFAULT);
		must_be(hp_cache_put_array(cache, array, 3), 0);
		for (unsigned i = 0; i < 3000; i++) {
			must(object = hp_cache_get(cache, 0));
			memset(object, 3, 100);
			must_be(hp_cache_put(cache, object), 0);
		}
		must_be(hp_cache_destroy(cache), 0);
		setenv("HUGEPOOL_DEBUG", HP_TEST_SANITIZER ? "canary,caller" : "poison,canary,caller", 1);
	}
	unsetenv("HUGEPOOL_DEBUG");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_of_many_sizes),
		cmocka_unit_test(memory_of_odd_sizes_and_places),
		cmocka_unit_test(what_makes_no_sense),
		cmocka_unit_test(wrong_puts_harm_nothing),
		cmocka_unit_test(inline_forms),
		cmocka_unit_test(bulks_arrays_and_zero),
		cmocka_unit_test(constructors),
		cmocka_unit_test(limits_and_reserves),
		cmocka_unit_test(waiting_is_served),
		cmocka_unit_test(a_hook_is_asked_first),
		cmocka_unit_test(a_child_goes_on),
		cmocka_unit_test(closing_ends_it),
		cmocka_unit_test(reclaiming_gives_back_to_the_kernel),
		cmocka_unit_test(nothing_is_left),
		cmocka_unit_test(debug_modes_work),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
