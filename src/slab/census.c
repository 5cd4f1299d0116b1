/* What caches ask of all slabs of a class: numbers, giving back, destroying. */
#include "slab/internal.h"

struct census {
	unsigned class;
	struct participant *me;
	struct take_want *list;
	uint32_t *page;
	unsigned count;
};

static void add(void *arg, uint32_t page, uint64_t ctl, unsigned live, unsigned free)
{
	struct slab_census *sum = arg;
	(void)page, (void)ctl;
	sum->slabs++;
	sum->live += live;
	sum->free += free;
}

void slab_census(hp_pool *pool, unsigned class, struct slab_census *sum)
{
	*sum = (struct slab_census){0};
	slab_each(pool, class, add, sum);
}

static int end_empty(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct census *census = arg;
	if (!slab_is_of(slab, census->class) || !slab_is_empty(pool, slab)) return 0;
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	unsigned class = atomic_load_explicit(&slab->class, memory_order_relaxed);
	uint64_t budget = slab_may_go(pool, class, true);
	for (unsigned k = 0; k < census->count && budget; k++) budget -= slab_is_of(&pool->slabs[census->page[k]], class);
	if (!budget) return 0;
	if (ctl_state(seen) == CTL_UNOWNED) slab_end(pool, slab, page, seen, true);
	if (ctl_state(seen) == CTL_OWNED && ctl_who(seen) != census->me->who && census->count < SLAB_TAKES) {
		census->page[census->count] = page;
		census->list[census->count++] = (struct take_want){.ctl = &slab->ctl, .seen = seen};
	}
	return census->count == SLAB_TAKES;
}

/* Into the list, whatever the notes say. */
static int relist(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct census *census = arg;
	(void)pool;
	(void)page;
	if (!slab_is_of(slab, census->class) || !slab_is_mine(census->me, slab)) return 0;
	atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	if (slab_has_free(pool, slab))
		slab_list(census->me, slab, atomic_load_explicit(&slab->class, memory_order_relaxed));
	return 0;
}

/* The thread's own slabs without live objects, also those that others have emptied behind its back. */
static void purge_thoroughly(struct participant *me, unsigned class)
{
	struct census all = {.class = SLAB_CLASSES, .me = me};
	if (!slab_state(me)->used) return;
	participant_begin(me);
	slab_state_forget(slab_state(me));
	slab_visit_all(me->pool, 0, pool_top(me->pool), relist, &all);
	participant_end(me);
	slab_purge(me, class);
}

uint64_t slab_reclaim_class(struct participant *me, unsigned class, unsigned *skipped)
{
	hp_pool *pool = me->pool;
	struct take_want list[SLAB_TAKES];
	uint32_t page[SLAB_TAKES];
	bool mine[SLAB_TAKES];
	struct slab_census sum, before;
	unsigned moved = 1;
	slab_census(pool, class, &before);
	purge_thoroughly(me, class);
	while (moved) { /* until a pass finds nothing that could be had */
		struct census census = {.class = class, .me = me, .list = list, .page = page};
		moved = 0;
		slab_visit_all(pool, 0, pool_top(pool), end_empty, &census);
		if (!census.count) break;
		take_units(me, list, census.count, mine, skipped);
		for (unsigned k = 0; k < census.count; k++) {
			if (!mine[k]) continue;
			moved++;
			slab_release(pool, &pool->slabs[page[k]], page[k],
			             ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, list[k].seen), true);
		}
	}
	slab_census(pool, class, &sum);
	return before.slabs > sum.slabs ? before.slabs - sum.slabs : 0;
}

uint64_t slab_reclaim(struct participant *me, unsigned class)
{
	unsigned skipped = 0;
	return slab_reclaim_class(me, class, &skipped);
}

static int raze_slab(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct census *census = arg;
	struct participant *me = census->me;
	if (atomic_load_explicit(&slab->class, memory_order_relaxed) != census->class || !slab_has_built(slab)) return 0;
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (cache_has_ended(pool, census->class)) return 1;
	if (ctl_state(seen) == CTL_OWNED && ctl_who(seen) != me->who) {
		struct take_want want = {.ctl = &slab->ctl, .seen = seen};
		unsigned skipped = 0;
		bool taken;
		take_units(me, &want, 1, &taken, &skipped);
		if (!taken) return 0;
		seen = ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, seen);
	} else if (ctl_state(seen) == CTL_OWNED) {
		slab_count_owned(pool, slab_state(me), census->class, slab, -1);
	} else if (ctl_state(seen) != CTL_UNOWNED) {
		return 0;
	}
	/* commit: nobody gets what is free in it, nobody takes it. Should we die, recovery gives it to nobody. */
	uint64_t held = slab_by_destroyer(pool, seen);
	if (!atomic_compare_exchange_strong(&slab->ctl, &seen, held)) return 0;
	slab_destroy_objects(pool, slab);
	slab_release(pool, slab, page, held, true);
	return 0;
}

void slab_raze(struct participant *me, unsigned class)
{
	struct census census = {.class = class, .me = me};
	hp_pool *pool = me->pool;
	participant_begin(me);
	slab_empty_magazine(me, class); /* handlers of this thread find nothing of it at hand */
	slab_state(me)->list[class] = 0;
	slab_state(me)->current[class] = NULL;
	participant_end(me);
	slab_visit_all(pool, 0, pool_top(pool), raze_slab, &census);
	participant_begin(me);
	slab_visit_all(pool, 0, pool_top(pool), relist, &census);
	participant_end(me);
}

/* Slabs of a cache that may go without its free objects becoming fewer than a mark. */
uint64_t slab_may_go(hp_pool *pool, unsigned class, bool asked)
{
	const struct slab_class *known = &pool->classes[class];
	if (!known->cache) return UINT64_MAX;
	uint64_t low = atomic_load(&known->cache->low), high = atomic_load(&known->cache->high);
	uint64_t keep = asked || high == UINT64_MAX ? low : high;
	struct slab_census sum;
	if (keep == 0) return UINT64_MAX;
	slab_census(pool, class, &sum);
	return sum.free > keep ? (sum.free - keep) / known->objects : 0;
}

bool slab_at_place(hp_pool *pool, uint32_t page, unsigned class, unsigned place)
{
	struct slab *slab = page < slab_page_limit(pool) ? slab_at(pool, page) : NULL;
	return slab && atomic_load_explicit(&slab->class, memory_order_relaxed) == class && slab_place(slab) == place;
}
