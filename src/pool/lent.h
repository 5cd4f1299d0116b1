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

/* One pin more. -EBUSY: there are as many as there can be, or the last one is being taken off. -EINVAL: it has been freed. */
int lent_add(hp_pool *pool, struct lent_place at, struct lent_step step);
/* From state `from` to `to`, as step number + `which`; false: the state is another by now. */
bool lent_change(hp_pool *pool, struct lent_place at, unsigned from, unsigned to, struct lent_step step,
                 unsigned which);
/* Has that been done? By whoever has the ring. */
bool lent_done(const hp_pool *pool, struct lent_place at, struct lent_step step, unsigned which);
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
