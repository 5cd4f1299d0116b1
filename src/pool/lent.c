/* See pool/lent.h. */
#include "pool/lent.h"
#include <errno.h>

/* The mark is about to be overwritten by another ring: its step is noted as done. Never back to an earlier one: who is slow may
 * come with a mark that is long gone. */
void lent_note(hp_pool *pool, uint64_t word)
{
	uint32_t ring1 = lent_ring1(word), step = lent_step_in(word);
	if (ring1 == 0 || ring1 > POOL_RINGS) return;
	_Atomic uint32_t *done = &pool->rings[ring1 - 1].done;
	uint32_t known = atomic_load_explicit(done, memory_order_acquire);
	while (((step - known) & LENT_STEPS) - 1 < LENT_STEPS / 2)
		if (atomic_compare_exchange_weak_explicit(done, &known, step, memory_order_acq_rel, memory_order_acquire))
			break;
}

int lent_free(struct lent_place at)
{
	uint64_t word = atomic_load_explicit(at.word, memory_order_acquire);
	for (;;) {
		unsigned state = lent_state_in(word, at.shift);
		if (!state) return -ENOENT;
		if (state & LENT_FREED) return -EALREADY;
		/* commit: free when its last pin goes. The mark stays, and with it what it tells. */
		if (atomic_compare_exchange_weak_explicit(at.word, &word, word | (uint64_t)LENT_FREED << at.shift,
		                                          memory_order_acq_rel, memory_order_acquire))
			return 0;
	}
}
