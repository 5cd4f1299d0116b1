/* How many pins are on a block, in words that tell afterwards who changed them.
 *
 * A pin is counted by one compare-and-swap, and its table says that it is about to be. A process killed between the two leaves
 * the question whether it was counted; the count alone cannot tell, since others count as well. So the word carries the mark of
 * who changed it last {ring, step}, and whoever overwrites a mark first notes in that ring's entry that its step was done.
 * A ring makes one step at a time, so one note is enough: a step is done iff its mark stands in the word or its number in the
 * note. Model: tests/models/pin_model.py. */
#ifndef HUGEPOOL_LENT_H
#define HUGEPOOL_LENT_H

#include "pool/pool.h"

/* Where the state of an object is: of the slab, or run, that begins at the page. */
struct lent_place {
	_Atomic uint64_t *word;
	unsigned shift;
};

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

/* Pins, by ring `ring` with its step number: one more, -EBUSY when there are 7, -ENOENT when the object has been freed; or one
 * less, with *was the state before (0: there was none, and nothing was done). */
int lent_add(hp_pool *pool, struct lent_place at, uint32_t ring, uint32_t step);
/* Takes the pin off a state that is `was`; false: it is another by now. With the last pin the object's state is 0, freed or not. */
bool lent_drop(hp_pool *pool, struct lent_place at, uint64_t word, uint32_t ring, uint32_t step);
/* Has this step been done? By whoever has the ring. */
bool lent_done(hp_pool *pool, struct lent_place at, uint32_t ring, uint32_t step);
/* Somebody frees a lent object: 0, and it is free when its last pin goes; -EALREADY: it has been freed. -ENOENT: no pin is on it. */
int lent_free(struct lent_place at);
/* The eight that a word has bits for: bit k set where object k has a pin. */
static inline unsigned lent_bits(uint64_t word)
{
	unsigned bits = 0;
	for (unsigned k = 0; k < LENT_EACH; k++) bits |= (unsigned)(lent_state_in(word, k * 4) != 0) << k;
	return bits;
}

#endif
