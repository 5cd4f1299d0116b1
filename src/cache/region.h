/* Private caches whose memory comes from the caller's functions.
 *
 * The function's pieces of memory, regions, may lie anywhere, so each is a private pool of its own (pool/private.c) with one
 * cache in it. The cache that the caller sees lies in a pool whose memory is never touched; it has name, limit, marks and
 * the queue of those who wait, and none of its calls takes the fast path. Everything here belongs to one process.
 *
 * A region's word counts the objects that are out of it and the calls that are about to get some. Whoever swaps it from 0
 * to GONE has the region alone: it holds no object, and nobody can get one any more. Its memory goes back, but not its pool,
 * which is put on the next region's memory: so whoever is late with a wrong address still reads what is there. */
#ifndef HUGEPOOL_CACHE_REGION_H
#define HUGEPOOL_CACHE_REGION_H

#include "cache/cache.h"

int regions_create(hp_cache *cache, const struct hp_cache_options *options, const struct hp_cache_memory *memory);
/* n contiguous objects, counted as out, or NULL and *error. */
void *regions_take(hp_cache *cache, size_t n, int *error);
int regions_find(const hp_cache *cache, const void *object, struct slab **slab, unsigned *index);
hp_cache *regions_at_address(const hp_cache *cache, const void *object);
hp_cache *regions_of_slab(const hp_cache *cache, const struct slab *slab);
/* n objects are back in the region of that cache. */
void regions_given(hp_cache *cache, const hp_cache *in, size_t n);
int regions_prime(hp_cache *cache, size_t n);
int64_t regions_reclaim(hp_cache *cache);
void regions_raze(hp_cache *cache);
int regions_limit(hp_cache *cache, size_t n);
uint64_t regions_free(const hp_cache *cache); /* objects that there is memory for */
void regions_stats(hp_cache *cache, struct hp_cache_stats *stats);
/* Before the end: gives all memory back, or -EBUSY. */
int regions_empty(hp_cache *cache);
/* The end, whatever is out. */
void regions_end(hp_cache *cache);

/* The cache that an object that is out, or a slab, belongs to: of its region, where there are regions. */
static inline hp_cache *regions_at(hp_cache *cache, const void *object)
{
	return likely(!cache->regions) ? cache : regions_at_address(cache, object);
}

static inline hp_cache *regions_of(hp_cache *cache, const struct slab *slab)
{
	return likely(!cache->regions) ? cache : regions_of_slab(cache, slab);
}

#endif
