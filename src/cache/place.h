/* The directory of a cache with a hard limit: a place for each slab it may have, so that the limit needs no counter that a
 * death could falsify. The slab of the last place may hold fewer objects than it has room for.
 *
 * A place is 0, claimed by a record that makes a slab for it, or names a page. It is taken as long as a slab begins there
 * that says it has that place; so a slab that goes, however it goes, frees its place. Each change counts up, so that a late
 * one is noticed. */
#ifndef HUGEPOOL_CACHE_PLACE_H
#define HUGEPOOL_CACHE_PLACE_H

#include "cache/layout.h"
#include "pool/pool.h"

/* It is not the one that this process knows: gone, or another has been made in its place. Exact of a slab that begins there
 * when asked after its control word was read, and that still holds. */
bool cache_has_ended(const hp_pool *pool, unsigned class);
/* Is the cache there, for a slab that has been made? One that is being ended is kept by it. */
bool cache_insist(const hp_pool *pool, unsigned class);
/* For a new slab of the class: its place (SLAB_NO_PLACE: there is no limit) and how many objects it may hold. -EAGAIN: all are
 * taken; -ESTALE: the cache is gone. */
int cache_place_claim(hp_pool *pool, unsigned class, unsigned *place, uint16_t *objects);
/* Are these as many as the limit allows? */
bool cache_place_all(const hp_pool *pool, unsigned class, uint64_t objects);
void cache_place_unclaim(hp_pool *pool, unsigned class, unsigned place);
/* The claimed place names its page: `claimed` as long as the slab is being made. */
void cache_place_set(hp_pool *pool, unsigned class, unsigned place, uint32_t page, bool claimed);
/* Is a slab with that place and so many objects within the limit? */
bool cache_place_fits(const hp_pool *pool, unsigned class, unsigned place, uint16_t objects);
/* The same after the slab can be seen by others, and is the cache still there? */
bool cache_place_holds(hp_pool *pool, unsigned class, unsigned place, uint16_t objects);
/* Under the growth lock, after a limit was set: places for the slabs that are there. -EBUSY: they are more than the limit has
 * room for. */
int cache_places_assign(hp_pool *pool, unsigned class);
/* Around the end of a slab: what to hand to cache_place_free once its pages are free. */
uint64_t cache_place_read(hp_pool *pool, unsigned class, unsigned place);
void cache_place_free(hp_pool *pool, unsigned class, unsigned place, uint64_t read);
/* After the limit was raised: the slab that was the last may hold more. */
void cache_places_widen(hp_pool *pool, unsigned class);
int cache_places_populate(hp_pool *pool, unsigned class, uint64_t places);

/* An object of the class is free that was put while I/O on it was in flight: whoever waits for one is woken. */
void cache_given_late(hp_pool *pool, unsigned class);

#endif
