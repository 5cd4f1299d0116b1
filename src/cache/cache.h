/* A process' handle of a cache. */
#ifndef HUGEPOOL_CACHE_INTERNAL_H
#define HUGEPOOL_CACHE_INTERNAL_H

#include "cache/place.h"
#include "slab/slab.h"
#include <hugepool/cache.h>

struct cache_regions;

struct hp_cache {
	/* struct hp_inline_cache of the public header */
	_Atomic(char *)
		magazine; /* of nobody (pool/participant.h); in no pool's place where calls need more than the common case */
	_Atomic uint32_t *waiting;

	_Atomic(void *) fast; /* the pool, or this handle itself where calls need more */
	char *base;
	uint64_t capacity;
	pool_map *map;
	uint32_t class, skew;
	hp_pool *pool;
	struct pool_cache *shared;
	uint32_t generation, flags;
	uint64_t size;
	hp_ctor_fn *ctor;
	hp_dtor_fn *dtor;
	void *arg;
	hp_drain_fn *drain;
	void *drain_arg;
	hp_cache *next;                /* of the process' handles */
	bool owns_pool;                /* a private cache: the pool goes with it (cache/private.c) */
	struct cache_regions *regions; /* one whose memory comes from the caller's functions, or NULL (cache/region.h) */
};

#define CACHE_MAGAZINE_AT(class) \
	(offsetof(struct participant, slab_state) + offsetof(struct slab_state, mag) + (class) * sizeof(struct slab_mag))

/* The thread's magazine, when its slot is not NULL; fast paths begin by that. */
static inline struct slab_mag *cache_magazine(hp_cache *cache)
{
	return participant_of_thread(atomic_load_explicit(&cache->magazine, memory_order_relaxed));
}

static inline struct participant *cache_participant(const hp_cache *cache, struct slab_mag *mag)
{
	return (struct participant *)(void *)((char *)mag - CACHE_MAGAZINE_AT(cache->class));
}

/* Begins an operation with the thread's magazine: its slot; NULL, and nothing has begun: not a case for fast paths. */
static inline struct pool_slot *cache_enter(hp_cache *cache, struct slab_mag **mag)
{
	*mag = cache_magazine(cache);
	struct pool_slot *slot = atomic_load_explicit(&(*mag)->slot, memory_order_relaxed);
	return likely(slot != NULL) && likely(participant_try_begin(slot)) ? slot : NULL;
}

/* The same: the thread's participant. */
static inline struct participant *cache_begin(hp_cache *cache)
{
	struct slab_mag *mag;
	return likely(cache_enter(cache, &mag) != NULL) ? cache_participant(cache, mag) : NULL;
}

/* From now on: calls need more than the common case. */
void cache_set_slow(hp_cache *cache);

static inline uint8_t cache_epoch(const hp_cache *cache)
{
	uint8_t epoch = (uint8_t)atomic_load_explicit(&cache->shared->epoch, memory_order_acquire);
	return epoch ? epoch : 1;
}

/* What objects of a cache with these options are; false: there can be none. */
bool cache_cut(const struct hp_cache_options *options, struct slab_class *class);
/* Forgets the handle, and nothing else. */
void cache_forget(hp_cache *cache);
/* All that has no object out, the low mark notwithstanding: what slabs are left. */
uint64_t cache_reclaim_all(hp_cache *cache);
/* Ends a private cache with all its objects, and the handle. */
void cache_end_private(hp_cache *cache);
/* An object, or `run` contiguous ones, without waiting and without the constructor: NULL and *error. Not inside an operation. */
void *cache_take(hp_cache *cache, unsigned run, int *error);
/* The same, in the order of those who wait, until the deadline (os_now_ns; UINT64_MAX: for ever). */
void *cache_wait(hp_cache *cache, unsigned run, unsigned flags, uint64_t deadline, int *error);
/* Which object it is; -errno where it is none of this cache. */
int cache_find(const hp_cache *cache, const void *object, struct slab **slab, unsigned *index);

/* Ends the watches of a handle (watch.c). */
void cache_end_watches(const hp_cache *cache);

/* A limit that a dead one was setting (record + 1; 0: whoever) is what it was before. */
void cache_limit_settle(struct pool_cache *shared, uint64_t record1);

static inline bool cache_is_live(const hp_cache *cache)
{
	uint64_t word = atomic_load_explicit(&cache->shared->word, memory_order_acquire);
	return (cache_state(word) == CACHE_LIVE || cache_state(word) == CACHE_ENDING) &&
	       cache_generation(word) == cache->generation;
}

#endif
