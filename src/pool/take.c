/* Taking units from live owners that do not use them.
 *
 * Everything wanted is listed before anything is marked (the caller does that); then every owner concerned is marked,
 * one barrier makes all processors see the news or shows us their in_op, and what belongs to owners outside of an
 * operation is moved by compare-and-swap at the version that was listed. An owner that comes back finds the mark, or a
 * higher sequence, and looks again at what it owns before it touches anything. Nobody waits. */
#include "pool/recover.h"
#include "os/os.h"

#define TAKE_SLOTS 256u /* owners marked at once; what is left over counts as skipped and is tried again */

unsigned take_units(struct participant *me, const struct take_want *want, unsigned count, bool *got, unsigned *skipped)
{
	hp_pool *pool = me->pool;
	uint32_t marked[TAKE_SLOTS];
	uint64_t mark[TAKE_SLOTS];
	bool idle[TAKE_SLOTS];
	unsigned marks = 0, moved = 0;
	participant_busy++;
	for (unsigned i = 0; i < count; i++) {
		got[i] = false;
		uint32_t slot = ctl_owner(want[i].seen) - 1;
		if (slot >= pool->slot_count || ctl_who(want[i].seen) == me->who) continue;
		unsigned k = 0;
		while (k < marks && marked[k] != slot) k++;
		if (k < marks || marks == TAKE_SLOTS) continue;
		uint64_t word = atomic_load_explicit(&pool->slots[slot].taker, memory_order_acquire);
		if (word >> 32) continue; /* another taker is at it; recovery displaces the marks of the dead */
		uint64_t mine = (uint64_t)me->who << 32 | (uint32_t)word;
		if (!atomic_compare_exchange_strong(&pool->slots[slot].taker, &word, mine)) continue;
		/* after the mark: who clears this looks at the mark then */
		atomic_store_explicit(&pool->slots[slot].news, 1, memory_order_release);
		marked[marks] = slot;
		mark[marks++] = mine;
	}
	if (marks) {
		/* pairs with participant_begin: an owner that is not yet seen inside sees the news when it enters */
		bool passed = true;
		if (pool->fenced)
			atomic_thread_fence(memory_order_seq_cst);
		else
			passed = os_membarrier() == 0; /* without it in_op says nothing */
		for (unsigned k = 0; k < marks; k++)
			idle[k] = passed && atomic_load_explicit(&pool->slots[marked[k]].in_op, memory_order_acquire) == 0;
	}
	for (unsigned i = 0; i < count; i++) {
		uint32_t slot = ctl_owner(want[i].seen) - 1;
		unsigned k = 0;
		while (k < marks && marked[k] != slot) k++;
		if (k == marks || !idle[k]) {
			++*skipped;
			continue;
		}
		uint64_t seen = want[i].seen;
		/* commit: the unit is ours; its old owner notices by the sequence */
		got[i] = atomic_compare_exchange_strong_explicit(want[i].ctl, &seen,
		                                                 ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, seen),
		                                                 memory_order_acq_rel, memory_order_relaxed);
		moved += got[i];
	}
	for (unsigned k = 0; k < marks; k++)
		atomic_compare_exchange_strong_explicit(&pool->slots[marked[k]].taker, &mark[k], (uint32_t)(mark[k] + 1),
		                                        memory_order_acq_rel, memory_order_relaxed);
	if (moved) atomic_fetch_add_explicit(&pool->header->taken, moved, memory_order_relaxed);
	participant_busy--;
	return moved;
}
