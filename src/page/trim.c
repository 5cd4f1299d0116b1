/* Trimming: wholly free memory goes back to the kernel.
 *
 * Under the growth lock, one page of the backing at a time: own all its chunks, see under ownership that they are free,
 * write the plan, make them UNCOMMITTED one by one, punch. A trimmer that dies on the way has either taken all chunks of
 * the page, then whoever settles the plan punches, or not, then they become usable again. */
#include "page/page.h"
#include "io/pin.h"
#include "pool/create.h"
#include "pool/recover.h"
#include <errno.h>

/* Owns the chunk, whoever has it, if nothing in it is in use. */
static bool own_free_chunk(struct participant *me, uint32_t chunk)
{
	hp_pool *pool = me->pool;
	_Atomic uint64_t *word = &pool->chunks[chunk].ctl;
	uint32_t rereads = me->rereads;
	uint64_t ctl;
	if (!page_adopt(me, chunk, false, &ctl)) {
		struct take_want want = {.ctl = word, .seen = atomic_load_explicit(word, memory_order_acquire)};
		unsigned skipped = 0;
		bool got = false;
		if (ctl_state(want.seen) != CTL_OWNED || ctl_who(want.seen) == me->who || !page_chunk_free(pool, chunk))
			return false;
		if (!take_units(me, &want, 1, &got, &skipped)) return false;
		if (!page_keep(me, chunk, false, rereads)) {
			page_release(pool, me->who, chunk);
			return false;
		}
	}
	if (page_chunk_free(pool, chunk)) return true;
	page_release(pool, me->who, chunk);
	return false;
}

/* One page of the backing, `group` chunks from `first`. */
static bool trim_group(struct participant *me, uint32_t first, uint32_t group)
{
	hp_pool *pool = me->pool;
	uint32_t owned = 0;
	uint64_t ctl;
	while (owned < group && own_free_chunk(me, first + owned)) owned++;
	if (owned < group) {
		for (uint32_t i = first; i < first + owned; i++) page_release(pool, me->who, i);
		return false;
	}
	growth_plan_trim(pool, first, first + group);
	bool all = true;
	for (uint32_t i = first; i < first + group && all; i++) {
		_Atomic uint64_t *word = &pool->chunks[i].ctl;
		ctl = atomic_load_explicit(word, memory_order_acquire);
		/* looked at again: a taker may have had it, used it and given it up since */
		all = ctl_state(ctl) == CTL_OWNED && ctl_who(ctl) == me->who && page_chunk_free(pool, i);
		if (!all) break;
		atomic_store_explicit(&pool->hints[i], 0, memory_order_relaxed);
		/* commit, a chunk at a time: nobody can own it any more */
		all = atomic_compare_exchange_strong_explicit(word, &ctl, ctl_make(CTL_UNCOMMITTED, 0, 0, ctl),
		                                              memory_order_acq_rel, memory_order_relaxed);
	}
	growth_settle(pool); /* punches, or takes back what was only half trimmed */
	for (uint32_t i = first; i < first + group && !all; i++) page_release(pool, me->who, i);
	return all;
}

int64_t hp_pool_trim(hp_pool *pool, uint64_t keep)
{
	if (!pool) return -EINVAL;
	int error;
	struct participant *me = participant_get(pool, &error);
	if (!me) return error;
	if ((error = growth_lock(pool)) < 0) return -ENOMEM;
	/* what is given back and committed anew would be another memory for the kernel than for us */
	if (pin_any_registered(pool)) {
		growth_unlock(pool);
		return -EBUSY;
	}
	participant_hold(me);
	participant_begin(me);
	for (unsigned k = 0; k < PAGE_OWNED; k++) page_give_back(me, &page_state(me)->own[k]);
	participant_end(me);
	uint32_t group = growth_group(pool);
	uint64_t bytes = group * pool_chunk_bytes(pool), given = 0;
	uint64_t committed = (pool->chunk_count - growth_left(pool)) * pool_chunk_bytes(pool);
	for (uint32_t i = pool->chunk_count / group; i-- > 0 && committed >= keep && committed - keep >= bytes;) {
		if (!trim_group(me, i * group, group)) continue;
		committed -= bytes;
		given += bytes;
	}
	participant_let_go(me);
	growth_unlock(pool);
	return (int64_t)given;
}
