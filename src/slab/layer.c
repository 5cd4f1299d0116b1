/* What the pool asks of slabs: giving up, recovering, reclaiming. */
#include "slab/internal.h"
#include "pool/layers.h"

static int release_if_owned(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) == CTL_OWNED && ctl_who(seen) == *(const uint32_t *)arg)
		slab_release(pool, slab, page, seen, false);
	return 0;
}

static void release_all(hp_pool *pool, uint32_t who)
{
	slab_visit_all(pool, 0, pool_top(pool), release_if_owned, &who);
}

/* Somebody takes, or has taken, slabs of ours. Which ones are ours is known to the slabs only, so all of them are given
 * back; rare, since only those take who find no memory otherwise. Inside an operation, and pages may not be freed here. */
static int forget_if_owned(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) != CTL_OWNED || ctl_who(seen) != *(const uint32_t *)arg) return 0;
	if (slab_has_free(pool, slab))
		slab_note(pool, slab, page);
	else
		atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	atomic_compare_exchange_strong(&slab->ctl, &seen, ctl_make(CTL_UNOWNED, 0, 0, seen));
	return 0;
}

static void reread(struct participant *me, bool marked)
{
	(void)marked;
	struct slab_state *state = slab_state(me);
	if (!state->used) return;
	slab_state_forget(state);
	slab_visit_all(me->pool, 0, pool_top(me->pool), forget_if_owned, &me->who);
}

static int finish_half(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) != CTL_RECOVERING || ctl_who(seen) != *(const uint32_t *)arg) return 0;
	/* half made or half ended; or held while what is free in it was destroyed */
	slab_release(pool, slab, page, seen, true);
	return 0;
}

static void recover_record_slabs(hp_pool *pool, uint32_t record, uint32_t generation)
{
	uint32_t who = who_make(record, generation) | NOT_A_SLOT << 16;
	slab_visit_all(pool, 0, pool_top(pool), finish_half, &who);
}

/* For pages. */
static bool reclaim(struct participant *me, unsigned *skipped)
{
	return slab_reclaim_class(me, SLAB_CLASSES, skipped) > 0;
}

static void fast(struct participant *me, struct pool_slot *slot)
{
	for (unsigned c = 0; c < SLAB_CLASSES; c++)
		atomic_store_explicit(&slab_state(me)->mag[c].slot, slot, memory_order_relaxed);
}

const struct pool_layer slab_layer = {.begin = slab_state_renew,
                                      .fast = fast,
                                      .reread = reread,
                                      .recover_slot = release_all,
                                      .recover_record = recover_record_slabs,
                                      .reclaim = reclaim};
