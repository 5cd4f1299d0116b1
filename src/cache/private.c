/* Private caches: on anonymous memory, on memory that the caller hands over, or on what its functions give (region.h). Each
 * is a cache in a private pool that nobody else knows, and that goes with it. On the first two kinds it is a cache like any
 * other, inline forms included. */
#include "cache/region.h"
#include "pool/create.h"
#include "os/os.h"
#include <errno.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (MIB << 10)

/* Address space costs nothing, but where it is counted: as much as the machine has memory, or what can be had. */
static int make_anonymous(const struct hp_pool_options *given, hp_pool **pool)
{
	struct hp_pool_options options = *given;
	uint64_t limit = os_address_space_limit();
	int error;
	options.prefault = HP_PREFAULT_LAZY;
	options.size = 64 * MIB;
	options.capacity = os_memory_total() > GIB ? os_memory_total() : GIB;
	if (limit != UINT64_MAX && options.capacity > limit / 4) options.capacity = limit / 4;
	if (options.size > options.capacity) options.size = options.capacity;
	while ((error = hp_pool_create(&options, pool)) == -ENOMEM && options.capacity / 2 >= options.size)
		options.capacity /= 2;
	return error;
}

/* Whole pages of what was handed over. */
static int make_lent(const struct hp_pool_options *options, const struct hp_cache_memory *memory,
                     const struct slab_class *class, hp_pool **pool)
{
	uintptr_t page = HP_PAGE_SIZE - 1, at = (uintptr_t)memory->start;
	if (memory->bytes > UINTPTR_MAX - page - at || memory->bytes > UINT64_C(1) << 46) return -EINVAL;
	uintptr_t start = (at + page) & ~page, end = (at + memory->bytes) & ~page;
	uint64_t pages = start < end ? (end - start) / HP_PAGE_SIZE : 0;
	if (pages < class->pages) return -EINVAL;
	return private_create_lent(options, (void *)start, pages, class->pages, pool);
}

/* For a cache with regions: large enough for any object, and never touched. */
static int make_empty(const struct hp_pool_options *given, hp_pool **pool)
{
	struct hp_pool_options options = *given;
	options.flags |= HP_POOL_NO_AUTOGROW;
	options.choice = HP_CHOICE_REQUIRE;
	options.rung = HP_RUNG_4K;
	options.prefault = HP_PREFAULT_LAZY;
	options.size = 2 * MIB;
	options.capacity = 128 * MIB;
	return hp_pool_create(&options, pool);
}

int hp_cache_create_private(const char *name, const struct hp_cache_options *options,
                            const struct hp_cache_memory *memory, hp_cache **cache)
{
	static const struct hp_cache_memory anonymous = {.struct_size = sizeof anonymous};
	struct slab_class class;
	hp_pool *pool;
	if (!memory) memory = &anonymous;
	if (!cache || !options || options->struct_size < sizeof *options || memory->struct_size < sizeof *memory)
		return -EINVAL;
	*cache = NULL;
	bool lent = memory->start != NULL, regions = memory->allocate != NULL;
	if (!memory->allocate != !memory->release || (lent && regions) || (!regions && memory->region) ||
	    (!lent && !regions && memory->bytes))
		return -EINVAL;
	struct hp_cache_options own = *options;
	if (!cache_cut(&own, &class)) return -EINVAL;
	struct hp_pool_options wish = {.struct_size = sizeof wish,
	                               .name = "private cache",
	                               .max_threads = POOL_MAX_SLOTS,
	                               .flags = HP_POOL_PRIVATE,
	                               .log = memory->log,
	                               .log_arg = memory->log_arg};
	if (own.flags & HP_CACHE_ON_NODE) {
		if (lent || regions) return -EINVAL; /* where that lies is the caller's affair */
		wish.numa = (struct hp_numa){HP_NUMA_BIND, 0, UINT64_C(1) << own.node};
	}
	own.flags &= ~(HP_CACHE_ON_NODE | HP_CACHE_PROCESS); /* all of it is, anyway */
	int error = lent      ? make_lent(&wish, memory, &class, &pool)
	            : regions ? make_empty(&wish, &pool)
	                      : make_anonymous(&wish, &pool);
	if (error < 0) return error;
	if ((error = hp_cache_create(pool, name, &own, cache)) < 0) {
		hp_pool_detach(pool);
		return error;
	}
	(*cache)->owns_pool = true;
	if (!regions) return 0;
	if ((error = regions_create(*cache, &own, memory)) < 0) {
		cache_end_private(*cache);
		*cache = NULL;
		return error;
	}
	/* no address is its own, and no call may take what lies in its pool */
	cache_set_slow(*cache);
	(*cache)->base = NULL;
	(*cache)->capacity = 0;
	return 0;
}

void cache_end_private(hp_cache *cache)
{
	hp_pool *pool = cache->pool;
	if (cache->regions) regions_end(cache);
	cache_forget(cache);
	hp_pool_detach(pool);
}
