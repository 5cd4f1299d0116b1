/* Lending an object to the kernel: while it may write there, the object is free by its bits, and counted in the lent words of
 * its slab (pool/lent.h). So whoever frees it finds it not live, which every fast path looks at anyhow, and comes to
 * slab_free_lent; and whoever looks for free objects, which is rare, leaves out what has a state.
 *
 * The bit in R is the one that an object that is out has, its natural one, or the other, where it is lent; while it has a
 * state only those who have pins on it change it (whoever frees remotely sees the state, and changes that). So it can be stored
 * absolutely, and by whoever goes on for one who has died, although an object may be freed and got again by its owner as soon as it is
 * live.
 *
 * A pin put on: the state counts up, then the bit is not the natural one. Taken off: the state counts down; the last one says
 * RETURNING, so that nobody else pins it, the bit becomes the natural one, the state 0. Where it has been freed the
 * bit stays, and the state becomes 0. */
#include "slab/lend.h"
#include "debug/debug.h"
#include <errno.h>

#define OUT_TRIES 64 /* of a word that seven others have pins on, too */

static struct lent_place place_of(const hp_pool *pool, const struct slab *slab, unsigned index)
{
	return lent_place(pool, (uint64_t)(slab - pool->slabs), index);
}

uint64_t slab_lent_in(const hp_pool *pool, const struct slab *slab, unsigned w)
{
	uint64_t bits = 0;
	if (likely(!atomic_load_explicit(&slab->lends, memory_order_acquire)) || pool->private) return 0;
	const struct pool_lent *lent = &pool->lent[slab - pool->slabs];
	for (unsigned k = 0; k < 64 / LENT_EACH; k++)
		bits |= (uint64_t)lent_bits(atomic_load_explicit(&lent->word[w * (64 / LENT_EACH) + k], memory_order_acquire))
		        << k * LENT_EACH;
	return bits;
}

/* R between two looks at the lent words: where they read the same, marks included, nobody has lent or taken back meanwhile, so
 * that what R says is free and they do not count is free. */
uint64_t slab_free_unlent(const hp_pool *pool, const struct slab *slab, unsigned w, uint64_t mask)
{
	enum { WORDS = 64 / LENT_EACH };
	if (pool->private) return 0;
	const struct pool_lent *lent = &pool->lent[slab - pool->slabs];
	uint64_t before[WORDS], sure = 0, free = 0;
	for (unsigned tries = 0; tries < 8 && sure != mask; tries++) {
		for (unsigned k = 0; k < WORDS; k++)
			before[k] = atomic_load_explicit(&lent->word[w * WORDS + k], memory_order_acquire);
		uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_acquire);
		uint64_t live = a ^ atomic_load_explicit(&slab->r[w], memory_order_acquire);
		if (atomic_load_explicit(&slab->announce, memory_order_acquire)) return 0;
		for (unsigned k = 0; k < WORDS; k++) {
			uint64_t eight = (UINT64_C(255) << k * LENT_EACH) & mask & ~sure;
			if (!eight || atomic_load_explicit(&lent->word[w * WORDS + k], memory_order_acquire) != before[k]) continue;
			sure |= eight;
			free |= eight & ~live & ~((uint64_t)lent_bits(before[k]) << k * LENT_EACH);
		}
	}
	return free;
}

bool slab_none_lent(const hp_pool *pool, const struct slab *slab)
{
	for (unsigned w = 0; w * 64 < slab_objects(slab); w++)
		if (slab_lent_in(pool, slab, w)) return false;
	return true;
}

/* Its bit and its state are two words, and a pin that goes between two looks, or comes, changes both. Where the word of the states,
 * mark included, is the same before and after, they were so together. */
bool slab_out_lent(const hp_pool *pool, const struct slab *slab, unsigned i)
{
	if (pool->private) return false;
	struct lent_place at = place_of(pool, slab, i);
	uint64_t word = atomic_load_explicit(at.word, memory_order_acquire), before;
	for (unsigned tries = 0; tries < OUT_TRIES; tries++) {
		if (lent_is_held(lent_state_in(word, at.shift)) || slab_live(slab, i)) return true;
		before = word;
		word = atomic_load_explicit(at.word, memory_order_acquire);
		if (word == before) return false;
	}
	return false;
}

void slab_unlend(hp_pool *pool, struct slab *slab, unsigned index, uint64_t natural, struct lent_step step)
{
	struct lent_place at = place_of(pool, slab, index);
	if (lent_done(pool, at, step, LENT_FIRST) || lent_done(pool, at, step, LENT_ENDS)) return;
	bool returning = lent_done(pool, at, step, LENT_RETURNS);
	for (;;) {
		unsigned state = lent_state(at), pins = state & ~LENT_FREED;
		if (pins == 0 || (pins == LENT_RETURNING && !returning)) return; /* not ours to repair */
		if (pins > 1 && pins <= LENT_PINS_MOST) {
			if (lent_change(pool, at, state, state - 1, step, LENT_FIRST)) return;
		} else if (state == 1) {
			returning = lent_change(pool, at, 1, LENT_RETURNING, step, LENT_RETURNS);
		} else {
			slab_set_bit(slab, index, state & LENT_FREED ? !natural : natural);
			/* commit: its holder's, or free */
			if (!lent_change(pool, at, state, 0, step, LENT_ENDS)) continue;
			if (!(state & LENT_FREED)) return;
			slab_freed_remote(pool, slab, true);
			cache_given_late(pool, atomic_load_explicit(&slab->class, memory_order_relaxed));
			return;
		}
	}
}

int slab_free_lent(hp_pool *pool, struct slab *slab, unsigned index)
{
	if (likely(!atomic_load_explicit(&slab->lends, memory_order_acquire)) || pool->private ||
	    index >= slab_objects(slab))
		return -ENOENT;
	struct lent_place at = place_of(pool, slab, index);
	if (unlikely(debug_on(pool)) && lent_state(at)) {
		debug_say(
			pool,
			"hugepool: an object at offset %llu is freed while I/O on it is in flight: free it when that has ended",
			(unsigned long long)((uint64_t)(slab - pool->slabs) * HP_PAGE_SIZE +
		                         atomic_load_explicit(&slab->first, memory_order_relaxed) +
		                         (uint64_t)index * pool->classes[slab->class].size));
		return -EBUSY;
	}
	int error = lent_free(at);
	if (error != -ENOENT || !slab_live(slab, index)) return error;
	/* its I/O has ended between the look at its bit and this */
	return slab_free_remote(pool, slab, index >> 6, UINT64_C(1) << (index & 63)) ? 0 : -EALREADY;
}

uint64_t slab_free_remote_lent(hp_pool *pool, struct slab *slab, unsigned w, uint64_t *bits)
{
	uint64_t freed = 0;
	for (uint64_t rest = *bits & slab_lent_in(pool, slab, w); rest; rest &= rest - 1) {
		unsigned index = w * 64 + (unsigned)__builtin_ctzll(rest);
		int error = unlikely(debug_on(pool)) ? -EBUSY : lent_free(place_of(pool, slab, index));
		if (error != -ENOENT) *bits &= ~(rest & -rest);
		if (error == 0) freed |= rest & -rest;
	}
	return freed;
}
