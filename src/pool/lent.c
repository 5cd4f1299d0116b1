/* See pool/lent.h. */
#include "pool/lent.h"
#include <errno.h>

static uint64_t with(uint64_t word, unsigned shift, unsigned state, uint32_t ring, uint32_t step)
{
	uint32_t states = (uint32_t)((word & ~(UINT64_C(15) << shift)) | (uint64_t)state << shift);
	return (uint64_t)(ring + 1) << 54 | (uint64_t)(step & LENT_STEPS) << 32 | states;
}

static uint32_t mark_ring1(uint64_t word)
{
	return (uint32_t)(word >> 54);
}

static uint32_t mark_step(uint64_t word)
{
	return (uint32_t)(word >> 32) & LENT_STEPS;
}

/* The mark is about to be overwritten by another ring: its step is noted as done. Never back to an earlier one: who is slow may
 * come with a mark that is long gone. */
static void note(hp_pool *pool, uint64_t word, uint32_t ring)
{
	uint32_t ring1 = mark_ring1(word), step = mark_step(word);
	if (ring1 == 0 || ring1 == ring + 1 || ring1 > POOL_RINGS) return;
	_Atomic uint32_t *done = &pool->rings[ring1 - 1].done;
	uint32_t known = atomic_load_explicit(done, memory_order_acquire);
	while (((step - known) & LENT_STEPS) - 1 < LENT_STEPS / 2)
		if (atomic_compare_exchange_weak_explicit(done, &known, step, memory_order_acq_rel, memory_order_acquire))
			break;
}

int lent_add(hp_pool *pool, struct lent_place at, struct lent_step step)
{
	for (;;) {
		unsigned state = lent_state(at);
		if (state & LENT_FREED) return -EINVAL;
		if (state >= LENT_PINS_MOST) return -EBUSY;
		if (lent_change(pool, at, state, state + 1, step, LENT_FIRST)) return 0;
	}
}

bool lent_change(hp_pool *pool, struct lent_place at, unsigned from, unsigned to, struct lent_step step, unsigned which)
{
	uint64_t word = atomic_load_explicit(at.word, memory_order_acquire);
	while (lent_state_in(word, at.shift) == from) {
		note(pool, word, step.ring);
		/* commit of the step; the word tells that it was done */
		if (atomic_compare_exchange_weak_explicit(at.word, &word,
		                                          with(word, at.shift, to, step.ring, step.number + which),
		                                          memory_order_acq_rel, memory_order_acquire))
			return true;
	}
	return false;
}

bool lent_done(const hp_pool *pool, struct lent_place at, struct lent_step step, unsigned which)
{
	uint32_t number = (step.number + which) & LENT_STEPS;
	/* the word first: when the mark is gone from it, the note was there before */
	uint64_t word = atomic_load_explicit(at.word, memory_order_acquire);
	return (mark_ring1(word) == step.ring + 1 && mark_step(word) == number) ||
	       atomic_load_explicit(&pool->rings[step.ring].done, memory_order_acquire) == number;
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
