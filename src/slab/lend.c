/* Lending an object to the kernel: while it may write there, the object is free by its bits, and counted in the lent words of
 * its slab (pool/lent.h). So whoever frees it finds it not live, which every fast path looks at anyhow, and comes to
 * slab_free_lent; and whoever looks for free objects, which is rare, leaves out what is lent.
 *
 * Order: the pin counts, the bit of R flips; and back: the bit flips, the pin counts no more. Whoever finds a pin counted and the
 * object live flips the bit for him who has died between the two, or is about to, unless he is the one who takes the last pin
 * away. */
#include "slab/lend.h"
#include "debug/debug.h"
#include <errno.h>

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

bool slab_lent(const hp_pool *pool, const struct slab *slab, unsigned i)
{
	unsigned state = pool->private ? 0 : lent_state(place_of(pool, slab, i));
	return state && !(state & LENT_FREED);
}

/* Makes the object live, or not: by the bit in R, which everybody but the owner may change, and the owner has no business with an
 * object that is somebody's. */
static void make_live(struct slab *slab, unsigned index, bool live)
{
	_Atomic uint64_t *word = &slab->r[index >> 6];
	uint64_t bit = UINT64_C(1) << (index & 63), r = atomic_load_explicit(word, memory_order_acquire);
	for (;;) {
		uint64_t a = atomic_load_explicit(&slab->a[index >> 6], memory_order_acquire);
		if (((a ^ r) & bit) == (live ? bit : 0)) return;
		if (atomic_compare_exchange_weak_explicit(word, &r, r ^ bit, memory_order_acq_rel, memory_order_acquire))
			return;
	}
}

int slab_lend(hp_pool *pool, struct slab *slab, unsigned index, uint32_t ring, uint32_t step)
{
	struct lent_place at = place_of(pool, slab, index);
	int error = pool_control_populate_lent(pool, (uint64_t)(slab - pool->slabs));
	if (error < 0) return error;
	if (!slab_out(pool, slab, index)) return -EINVAL;
	/* before the bit flips: whoever sees that sees this, and looks at the lent words */
	if (!atomic_load_explicit(&slab->lends, memory_order_relaxed))
		atomic_store_explicit(&slab->lends, 1, memory_order_release);
	if ((error = lent_add(pool, at, ring, step)) < 0) return error == -ENOENT ? -EINVAL : error;
	make_live(slab, index, false);
	return 0;
}

void slab_unlend(hp_pool *pool, struct slab *slab, unsigned index, uint32_t ring, uint32_t step)
{
	struct lent_place at = place_of(pool, slab, index);
	for (;;) {
		uint64_t word = atomic_load_explicit(at.word, memory_order_acquire);
		unsigned state = lent_state_in(word, at.shift), pins = state & LENT_PINS;
		if (pins == 0) return; /* not ours to repair */
		if (pins == 1) make_live(slab, index, !(state & LENT_FREED));
		bool dropped = lent_drop(pool, at, word, ring, step);
		if (dropped && state == (1 | LENT_FREED)) slab_freed_remote(pool, slab, true);
		if (dropped && pins == 1) return;
		slab_unlend_settle(pool, slab, index);
		if (dropped) return;
	}
}

/* Others' pins are on it, also one that was not there when its last holder looked first; or it has been freed since. */
void slab_unlend_settle(const hp_pool *pool, struct slab *slab, unsigned index)
{
	if (lent_state(place_of(pool, slab, index)) & LENT_PINS) make_live(slab, index, false);
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
	return lent_free(at);
}
