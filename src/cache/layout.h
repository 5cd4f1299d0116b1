/* What caches keep in shared memory: an entry each, a directory each (cache/place.h), and a cell for each slot that waits. */
#ifndef HUGEPOOL_CACHE_LAYOUT_H
#define HUGEPOOL_CACHE_LAYOUT_H

#include "slab/layout.h"

#define CACHE_FIRST_CLASS 72u /* SLAB_MALLOC_CLASSES */
#define CACHES (SLAB_CLASSES - CACHE_FIRST_CLASS)
#define CACHE_NAME_MAX 40
#define CACHE_WARNING_MAX 96
#define CACHE_PLACES 8064u
#define CACHE_ROOM 0x10000u /* in flags: behind each object lies room for a tag (src/debug) */

enum cache_constructed {
	CACHE_CONSTRUCTED = 1,
	CACHE_DESTROYED = 2
}; /* it was made with a constructor, with a destructor */

/* word = {generation:24, 0:24, state:8}. Changed under the growth lock, so whoever finds MAKING or ENDING there under
 * the lock knows that its process has died. But for one change: who needs a slab of a cache that is ENDING makes it LIVE
 * again, so that nobody is refused by an end that does not come. */
enum cache_state { CACHE_FREE = 0, CACHE_MAKING = 1, CACHE_LIVE = 2, CACHE_ENDING = 3 };

struct pool_cache {
	_Alignas(64) _Atomic uint64_t word;
	/* written before LIVE, never after */
	char name[CACHE_NAME_MAX];
	uint64_t size;
	uint32_t align, align_offset, flags, node, constructed;
	/* the hard limit */
	_Alignas(64) _Atomic uint64_t limit; /* {record + 1 of who is setting it:16, objects:48} */
	_Atomic uint64_t was;                /* holds again should that one die */
	_Atomic uint64_t warned, every;      /* nanoseconds: when last, and how often at most */
	_Atomic uint64_t low, high;          /* marks, in objects; high: UINT64_MAX is none */
	_Atomic uint64_t fails, waits, wakes, retries, gets, puts;
	_Atomic int64_t held;   /* slabs, about: set right whenever somebody counts them */
	_Atomic uint64_t most;  /* of them at once */
	_Atomic uint32_t epoch; /* 1 to 255: objects constructed before the last invalidation have another */
	_Atomic char warning[CACHE_WARNING_MAX]; /* who reads it while it is set may get a mixture */
	/* waiting; read by every put */
	_Alignas(64) _Atomic uint32_t waiting;
	_Alignas(64) _Atomic uint64_t tickets;
};

/* More slabs, or fewer: the most there have been. */
static inline uint64_t cache_count_held(struct pool_cache *cache, int64_t more)
{
	int64_t held = atomic_fetch_add_explicit(&cache->held, more, memory_order_relaxed) + more;
	uint64_t most = atomic_load_explicit(&cache->most, memory_order_relaxed);
	while (held > 0 && (uint64_t)held > most) {
		if (atomic_compare_exchange_weak_explicit(&cache->most, &most, (uint64_t)held, memory_order_relaxed,
		                                          memory_order_relaxed))
			return (uint64_t)held;
	}
	return most;
}

#define CACHE_LIMIT_SHIFT 48

static inline uint64_t cache_limit(const struct pool_cache *cache)
{
	return atomic_load_explicit(&cache->limit, memory_order_acquire) & ((UINT64_C(1) << CACHE_LIMIT_SHIFT) - 1);
}

static inline enum cache_state cache_state(uint64_t word)
{
	return (enum cache_state)(word & 0xff);
}
static inline uint32_t cache_generation(uint64_t word)
{
	return (uint32_t)(word >> 32);
}
static inline uint64_t cache_word(enum cache_state state, uint32_t generation)
{
	return (uint64_t)(generation & 0xffffffu) << 32 | state;
}

/* A slot's cell: what its thread waits for, and what it is about to do to a shared word (malloc/publish.c). */
struct pool_wait {
	_Alignas(64) _Atomic uint64_t ticket; /* 0: does not wait */
	_Atomic uint32_t class;
	_Atomic uint32_t futex;       /* counts the wakes */
	_Atomic uint64_t object, dst; /* offsets */
	_Atomic uint32_t intent;
	_Atomic uint32_t looks; /* counts how often the waiter has looked */
	_Atomic uint32_t run;   /* contiguous objects that it waits for; 0: one */
};

#endif
