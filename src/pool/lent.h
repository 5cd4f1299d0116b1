/* How many pins are on a block, in words that tell afterwards who changed them.
 *
 * A pin is counted by one compare-and-swap, and its table says that it is about to be. A process killed between the two leaves
 * the question whether it was counted; the count alone cannot tell, since others count as well. So the word carries the mark of
 * who changed it last {ring, step}, and whoever overwrites a mark first notes in that ring's entry that its step was done.
 * A ring makes one step at a time, so one note is enough: a step is done iff its mark stands in the word or its number in the
 * note. Model: tests/models/pin_model.py.
 *
 * A block's state is 0, or its pins, 1 to 6, or RETURNING: its last pin is being taken off, by one who alone may do that and
 * go on with it (or whoever closes that one's ring, when he has died). With FREED: its holder has freed it meanwhile, and with the
 * last pin it is free. */
#ifndef HUGEPOOL_LENT_H
#define HUGEPOOL_LENT_H

#include "pool/pool.h"
#include <errno.h>

/* Where the state of a block is: of an object of the slab, or of the run, that begins at the page. */
struct lent_place {
	_Atomic uint64_t *word;
	unsigned shift;
};

/* Who counts: a ring, and the first of the numbers of its steps. Of a pin that is taken off these may be done, in this order; of
 * one that is put on LENT_FIRST alone. */
struct lent_step {
	uint32_t ring, number;
};
enum { LENT_FIRST = 0, LENT_RETURNS = 1, LENT_GOES = 2, LENT_ENDS = 3, LENT_STEPS_EACH = 4 };

static inline struct lent_place lent_place(const hp_pool *pool, uint64_t page, unsigned index)
{
	return (struct lent_place){&pool->lent[page].word[index / LENT_EACH], index % LENT_EACH * 4};
}

static inline unsigned lent_state_in(uint64_t word, unsigned shift)
{
	return word >> shift & 15;
}

static inline unsigned lent_state(struct lent_place at)
{
	return lent_state_in(atomic_load_explicit(at.word, memory_order_acquire), at.shift);
}

/* Is it a block that somebody holds, by its state alone? */
static inline bool lent_is_held(unsigned state)
{
	return state && !(state & LENT_FREED);
}

/* ---- the mark ---- */

static inline uint32_t lent_ring1(uint64_t word)
{
	return (uint32_t)(word >> 54);
}

static inline uint32_t lent_step_in(uint64_t word)
{
	return (uint32_t)(word >> 32) & LENT_STEPS;
}

static inline uint64_t lent_with(uint64_t word, unsigned shift, unsigned state, struct lent_step step, unsigned which)
{
	uint32_t states = (uint32_t)((word & ~(UINT64_C(15) << shift)) | (uint64_t)state << shift);
	return (uint64_t)(step.ring + 1) << 54 | (uint64_t)((step.number + which) & LENT_STEPS) << 32 | states;
}

/* The mark in the word, of another ring, is about to be overwritten. */
void lent_note(hp_pool *pool, uint64_t word);

/* From state `from` to `to`, as step number + `which`; false: the state is another by now. */
static inline bool lent_change(hp_pool *pool, struct lent_place at, unsigned from, unsigned to, struct lent_step step,
                               unsigned which)
{
	uint64_t word = atomic_load_explicit(at.word, memory_order_acquire);
	while (likely(lent_state_in(word, at.shift) == from)) {
		if (unlikely(lent_ring1(word) != step.ring + 1)) lent_note(pool, word);
		/* commit of the step; the word tells that it was done */
		if (likely(atomic_compare_exchange_weak_explicit(at.word, &word, lent_with(word, at.shift, to, step, which),
		                                                 memory_order_acq_rel, memory_order_acquire)))
			return true;
	}
	return false;
}

/* One pin more. -EBUSY: there are as many as there can be, or the last one is being taken off. -EINVAL: it has been freed. */
static inline int lent_add(hp_pool *pool, struct lent_place at, struct lent_step step)
{
	for (;;) {
		unsigned state = lent_state(at);
		if (unlikely(state & LENT_FREED)) return -EINVAL;
		if (unlikely(state >= LENT_PINS_MOST)) return -EBUSY;
		if (likely(lent_change(pool, at, state, state + 1, step, LENT_FIRST))) return 0;
	}
}

/* Of the `count` steps from that one on: the number of the last that seems to have been done, counted from 1; 0: none. Of the
 * ring's own, by whoever has it. The word was read before: when the mark is gone from it, the note was there. */
static inline unsigned lent_seen_in(const hp_pool *pool, uint64_t word, struct lent_step step, unsigned count)
{
	uint32_t done = atomic_load_explicit(&pool->rings[step.ring].done, memory_order_acquire);
	uint32_t in_word = (lent_step_in(word) - step.number) & LENT_STEPS, noted = (done - step.number) & LENT_STEPS;
	unsigned last = noted < count ? noted + 1 : 0;
	return lent_ring1(word) == step.ring + 1 && in_word < count && in_word >= last ? in_word + 1 : last;
}

static inline unsigned lent_seen(const hp_pool *pool, struct lent_place at, struct lent_step step, unsigned count)
{
	return lent_seen_in(pool, atomic_load_explicit(at.word, memory_order_acquire), step, count);
}

/* Has that been done? */
static inline bool lent_done(const hp_pool *pool, struct lent_place at, struct lent_step step, unsigned which)
{
	step.number += which;
	return lent_seen(pool, at, step, 1);
}

/* Somebody frees it: 0, and it is free when its last pin goes; -EALREADY: it has been freed. -ENOENT: no pin is on it. */
int lent_free(struct lent_place at);

/* The eight that a word has the states of: bit k set where object k has one. */
static inline unsigned lent_bits(uint64_t word)
{
	unsigned bits = 0;
	for (unsigned k = 0; k < LENT_EACH; k++) bits |= (unsigned)(lent_state_in(word, k * 4) != 0) << k;
	return bits;
}

#endif
