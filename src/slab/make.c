/* Making slabs. */
#include "slab/internal.h"
#include <errno.h>

struct making {
	unsigned class, place;
	uint16_t objects, pages;
};

/* Where object 0 lies: moved from slab to slab, so that not all of them use the same cache sets. */
static uint16_t colour(const struct slab_class *known, unsigned pages, uint64_t any)
{
	return (uint16_t)(known->lead + (pages == known->pages ? (any >> 4) % known->colours * known->step : 0));
}

/* Right before the run becomes live, inside an operation of the page layer. */
static void prepare(struct participant *me, const struct page_want *want, uint64_t page)
{
	hp_pool *pool = me->pool;
	struct slab *slab = &pool->slabs[page];
	const struct making *making = want->arg;
	unsigned class = making->class;
	const struct slab_class *known = &pool->classes[class];
	pool_control_populate_slabs(pool, page,
	                            1); /* failing here means a late fault, which is what the kernel then decides about */
	uint64_t old = atomic_load_explicit(&slab->ctl, memory_order_relaxed);
	atomic_store_explicit(&slab->ctl, slab_by_record(pool, old), memory_order_relaxed);
	atomic_store_explicit(&slab->class, (uint8_t) class, memory_order_relaxed);
	atomic_store_explicit(&slab->first, colour(known, making->pages, old), memory_order_relaxed);
	atomic_store_explicit(&slab->objects, making->objects, memory_order_relaxed);
	atomic_store_explicit(&slab->extra, (uint16_t)(making->place | (known->built ? SLAB_BUILT : 0)),
	                      memory_order_relaxed);
	for (unsigned i = 0; known->built && i < known->objects; i++)
		atomic_store_explicit(&slab_built_of(slab)[i], 0, memory_order_relaxed);
	if (making->place != SLAB_NO_PLACE) cache_place_set(pool, class, making->place, (uint32_t)page, true);
	atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	/* the place may have held the bytes of another slab's objects (slab_built_of) */
	atomic_store_explicit(&slab->next, 0, memory_order_relaxed);
	atomic_store_explicit(&slab->announce, 0, memory_order_relaxed);
	atomic_store_explicit(&slab->lends, 0, memory_order_relaxed); /* nor is anything lent of a slab that ends */
	for (unsigned w = 0; w < SLAB_WORDS; w++)                     /* nothing lives, whatever R has come to */
		atomic_store_explicit(&slab->a[w], atomic_load_explicit(&slab->r[w], memory_order_relaxed),
		                      memory_order_relaxed);
}

/* keep: it is not for the magazine. -EAGAIN: the cache's limit, or it has just been given one. */
int slab_make(struct participant *me, unsigned class, bool keep)
{
	hp_pool *pool = me->pool;
	const struct slab_class *known = &pool->classes[class];
	struct making making = {.class = class, .place = SLAB_NO_PLACE, .objects = known->objects, .pages = known->pages};
	unsigned have = slab_state(me)->slabs[class];
	if (!known->cache && have < 5) { /* what is little used is to hold little memory */
		unsigned pages = (unsigned)known->least << have;
		if (pages < known->pages) {
			making.pages = (uint16_t)pages;
			unsigned objects = pages * HP_PAGE_SIZE / known->size;
			making.objects = (uint16_t)(objects < SLAB_OBJECTS ? objects : SLAB_OBJECTS);
		}
	}
	struct page_want want = {.pages = making.pages,
	                         .node = known->on_node ? known->node : -1,
	                         .strict = known->on_node,
	                         .process = known->process,
	                         .type = PAGE_TYPE_SLAB,
	                         .in_chunk = true,
	                         .prepare = prepare,
	                         .arg = &making};
	int64_t page;
	int error = known->cache ? cache_place_claim(pool, class, &making.place, &making.objects) : 0;
	if (error < 0) return error;
	error = page_search(me, &want, &page);
	if (error < 0) {
		if (making.place != SLAB_NO_PLACE) cache_place_unclaim(pool, class, making.place);
		return error;
	}
	struct slab *slab = &pool->slabs[page];
	int first = atomic_load_explicit(&slab->first, memory_order_relaxed);
	for (unsigned i = 0; i < making.pages; i++)
		atomic_store_explicit(&pool->map[(uint64_t)page + i],
		                      map_make(known->reciprocal, (int)(i * HP_PAGE_SIZE / 16) - first / 16, class, i),
		                      memory_order_relaxed);
	participant_begin(me);
	uint64_t old = atomic_load_explicit(&slab->ctl, memory_order_relaxed);
	/* commit: a slab, and ours. Before it the run goes back when our record is recovered. */
	atomic_store_explicit(&slab->ctl, ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, old), memory_order_release);
	/* a cache that has been given a limit, or ended, since we looked: whoever did that sees the slab, or we see it */
	slab_count_owned(pool, slab_state(me), class, slab, 1);
	if (known->cache) cache_count_held(known->cache, 1);
	slab_missed(slab_state(me), making.pages);
	bool wanted = !known->cache || cache_place_holds(pool, class, making.place, making.objects);
	if (wanted && (keep || slab_has_any(slab_state(me), class) || !slab_load(me, class, slab, known->size)))
		slab_list(me, slab, class); /* or a signal handler was here */
	participant_end(me);
	if (!wanted) slab_release(pool, slab, (uint32_t)page, atomic_load(&slab->ctl), true);
	if (making.place != SLAB_NO_PLACE) cache_place_set(pool, class, making.place, (uint32_t)page, false);
	return wanted ? 0 : -EAGAIN;
}

int slab_prime(struct participant *me, unsigned class, uint64_t objects)
{
	struct slab_census sum;
	uint64_t last = 0;
	if (objects > me->pool->capacity / me->pool->classes[class].size) return -ENOMEM;
	for (bool again = false;; again = true) {
		slab_census(me->pool, class, &sum);
		if (sum.free >= objects) return 0;
		/* near exhaustion the page layer takes slabs without objects back to make new ones of */
		if (again && sum.free <= last) return -ENOMEM;
		last = sum.free;
		uint64_t slabs = (objects - sum.free + me->pool->classes[class].objects - 1) / me->pool->classes[class].objects;
		for (; slabs; slabs--) {
			int error = slab_make(me, class, true);
			if (error < 0) return error;
		}
	}
}
