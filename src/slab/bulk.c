/* Many objects at once: those of one word change state with one store. */
#include "slab/slab.h"

unsigned slab_take_bulk(struct slab_state *state, unsigned class, unsigned n, void **objects)
{
	struct slab_mag *mag = &state->mag[class];
	struct slab_entry *top = mag->top;
	unsigned have = (unsigned)(top - mag->base), i = 0;
	if (have > n) have = n;
	while (i < have) {
		uint64_t word = top[-1].where >> 6, bits = 0;
		for (; i < have && top[-1].where >> 6 == word; i++, top--) {
			objects[i] = top[-1].object;
			bits |= UINT64_C(1) << (top[-1].where & 63);
		}
		_Atomic uint64_t *a = (_Atomic uint64_t *)word;
		mag->top = top;
		/* commit: all of these are the caller's. A death leaves some to it, and the rest free. */
		atomic_store_explicit(a, atomic_load_explicit(a, memory_order_relaxed) ^ bits, memory_order_release);
	}
	struct slab_word *word = &state->word[class];
	uint64_t free = word->free, bits = 0;
	for (; i < n && free; i++) {
		uint64_t bit = free & -free;
		objects[i] = word->base + (unsigned)__builtin_ctzll(free) * word->size;
		bits |= bit;
		free ^= bit;
	}
	if (bits) {
		word->free = free;
		/* commit, as above */
		atomic_store_explicit(word->a, atomic_load_explicit(word->a, memory_order_relaxed) ^ bits,
		                      memory_order_release);
	}
	return i;
}

size_t slab_give_bulk(struct participant *me, unsigned class, uint32_t skew, size_t n, void *const *objects,
                      bool *untidy)
{
	hp_pool *pool = me->pool;
	struct slab_mag *mag = &me->slabs->mag[class];
	struct slab *slab;
	unsigned index, is;
	size_t i = 0;
	while (i < n) {
		hp_off off = (hp_off)((uintptr_t)objects[i] - (uintptr_t)pool->base);
		if (off >= pool->capacity || slab_find_skewed(pool, off, skew, &slab, &index, &is) != SLAB_OBJECT ||
		    is != class || !slab_is_mine(me, slab))
			break;
		/* with those that follow and lie in the same word; what the magazine has no room for is left to the slab */
		_Atomic uint64_t *a = &slab->a[index >> 6];
		struct slab_entry *top = mag->top;
		unsigned word = index >> 6;
		uint64_t bits = 0;
		size_t first = i;
		for (;;) {
			bits |= UINT64_C(1) << (index & 63);
			if (top != mag->limit) {
				top->object = objects[i];
				top->where = (uint64_t)(uintptr_t)a << 6 | (index & 63);
				top++;
			}
			if (++i == n) break;
			struct slab *next;
			off = (hp_off)((uintptr_t)objects[i] - (uintptr_t)pool->base);
			if (off >= pool->capacity || slab_find_skewed(pool, off, skew, &next, &index, &is) != SLAB_OBJECT ||
			    next != slab || index >> 6 != word || bits >> (index & 63) & 1)
				break;
		}
		uint64_t old = atomic_load_explicit(a, memory_order_relaxed);
		uint64_t live = old ^ atomic_load_explicit(&slab->r[word], memory_order_relaxed);
		if (unlikely(bits & ~live)) return first; /* one of them is not out: one by one will tell which */
		/* commit: all of these are free */
		atomic_store_explicit(a, old ^ bits, memory_order_release);
		mag->top = top;
		if (unlikely(live == bits ||
		             (top == mag->limit && atomic_load_explicit(&slab->noted, memory_order_relaxed) != SLAB_LISTED)))
			*untidy |= slab_given(me, slab, class);
	}
	return i;
}
