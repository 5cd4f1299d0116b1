/* Many objects at once: those of one word change state with one store. */
#include "slab/slab.h"

unsigned slab_take_bulk(struct slab_state *state, unsigned class, unsigned n, void **objects)
{
	struct slab_mag *mag = &state->mag[class];
	struct slab_entry *top = mag->top;
	unsigned have = (unsigned)(top - mag->base), i = 0;
	if (have > n) have = n;
	while (i < have) {
		_Atomic uint64_t *a = top[-1].a;
		uint64_t bits = 0;
		do {
			top--;
			objects[i++] = top->object;
			bits |= top->bit;
		} while (i < have && top[-1].a == a);
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

/* Those at the end that were taken last and lie in one word, from the entries that know them: how many, and which bits. */
static size_t known_at_end(const struct slab_entry *top, size_t n, void *const *objects, uint64_t *bits)
{
	size_t i = 0;
	const _Atomic uint64_t *a = top->a;
	for (*bits = 0; i < n && top->object && top->object == objects[n - 1 - i] && top->a == a && !(*bits & top->bit);
	     i++, top++)
		*bits |= top->bit;
	return i;
}

/* The same for any of slabs that the thread owns, by looking them up; entries are made for as many as there is room. */
static size_t found_at_end(const struct participant *me, unsigned class, uint32_t skew, struct slab_entry *top,
                           const struct slab_entry *limit, size_t n, void *const *objects, uint64_t *bits,
                           _Atomic uint64_t **a)
{
	const hp_pool *pool = me->pool;
	size_t i = 0;
	*a = NULL;
	for (*bits = 0; i < n; i++) {
		struct slab *slab;
		unsigned index, is;
		hp_off off = (hp_off)((uintptr_t)objects[n - 1 - i] - (uintptr_t)pool->base);
		if (off >= pool->capacity || slab_find_skewed(pool, off, skew, &slab, &index, &is) != SLAB_OBJECT ||
		    is != class)
			break;
		_Atomic uint64_t *word = &slab->a[index >> 6];
		uint64_t bit = UINT64_C(1) << (index & 63);
		if (*a ? word != *a || *bits & bit : !slab_is_mine(me, slab)) break;
		*a = word;
		*bits |= bit;
		if (top == limit) continue; /* left to its slab */
		*top++ = (struct slab_entry){objects[n - 1 - i], word, bit};
	}
	return i;
}

size_t slab_give_bulk(struct participant *me, unsigned class, uint32_t skew, size_t n, void *const *objects,
                      bool *untidy)
{
	struct slab_state *state = me->slabs;
	struct slab_mag *mag = &state->mag[class];
	size_t left = n;
	while (left) {
		struct slab_entry *top = mag->top;
		_Atomic uint64_t *a = top->a;
		uint64_t bits;
		size_t room = (size_t)(mag->limit - top), some = known_at_end(top, left, objects, &bits);
		if (!some) some = found_at_end(me, class, skew, top, mag->limit, left, objects, &bits, &a);
		if (!some) break;
		uint64_t old = atomic_load_explicit(a, memory_order_relaxed);
		uint64_t live = old ^ atomic_load_explicit(a + (SLAB_R - SLAB_A), memory_order_relaxed);
		if (unlikely(bits & ~live)) break; /* one of them is not out: one by one will tell which */
		/* commit: all of these are free */
		atomic_store_explicit(a, old ^ bits, memory_order_release);
		mag->top = top + (some < room ? some : room);
		if (mag->known < mag->top) mag->known = mag->top;
		struct slab *slab = slab_of_word(a);
		if (unlikely(live == bits || (mag->top == mag->limit &&
		                              atomic_load_explicit(&slab->noted, memory_order_relaxed) != SLAB_LISTED)))
			*untidy |= slab_given(me, slab, class);
		left -= some;
	}
	return n - left;
}
