/* Many objects at once: those of one word change state with one store. */
#include "slab/batch.h"

/* Do all entries lie in one word? Then their bits. */
static inline __attribute__((always_inline)) bool in_one_word(char **entry, size_t n, uint64_t *bits)
{
	const uint64_t *at = slab_at_of(entry), *bit = slab_bit_of(entry);
	uint64_t word = at[0], rest = 0, last = 0;
	slab_pair other = {0}, all = {0};
	/* without a branch: they often do */
	for (; n >= SLAB_STRIDE; n -= SLAB_STRIDE, at += SLAB_STRIDE, bit += SLAB_STRIDE)
#pragma GCC unroll 8
		for (size_t k = 0; k < SLAB_STRIDE; k += 2) {
			other |= *(const slab_pair *)(const void *)(at + k) ^ word;
			all |= *(const slab_pair *)(const void *)(bit + k);
		}
	for (; n; n--) {
		last |= *at++ ^ word;
		rest |= *bit++;
	}
	*bits = slab_or_of(all) | rest;
	return (slab_or_of(other) | last) < 64; /* nothing but the numbers of the bits differs */
}

/* The first entries that lie in the word of the first one, each once: how many. */
static inline size_t in_a_word(char **entry, size_t n, uint64_t *bits)
{
	const uint64_t *at = slab_at_of(entry), *bit = slab_bit_of(entry);
	size_t i = 0;
	for (*bits = 0; i < n && (at[i] ^ at[0]) < 64 && !(*bits & bit[i]); i++) *bits |= bit[i];
	return i;
}

unsigned slab_take_bulk(struct slab_state *state, unsigned class, unsigned n, void **objects)
{
	struct slab_mag *mag = &state->mag[class];
	unsigned i = 0, have = (unsigned)(mag->top - mag->base);
	if (have > n) have = n;
	char **first = mag->top - have;
	mag->top = first;
	slab_copy(objects, first, have);
	bool one = have && in_one_word(first, have, &mag->batch_bits);
	if (have) mag->batch = first;
	if (have) mag->batch_n = one ? have : 0;
	while (i < have) {
		uint64_t bits = mag->batch_bits;
		_Atomic uint64_t *a = slab_word_at(*slab_at_of(first + i));
		i += one ? have : (unsigned)in_a_word(first + i, have - i, &bits);
		/* commit: all of these are the caller's. A death leaves some to it, and the rest free. */
		parity_flip(a, bits);
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
		parity_flip(word->a, bits);
	}
	return i;
}

/* Without the call that the builtin is where the processor is not known to count. */
static unsigned count(uint64_t bits)
{
	bits -= bits >> 1 & UINT64_C(0x5555555555555555);
	bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
	return (unsigned)(((bits + (bits >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f)) * UINT64_C(0x0101010101010101) >> 56);
}

/* The first ones that are those that were taken last: how many. */
static size_t known(const struct slab_mag *mag, size_t n, void *const *objects)
{
	char **top = mag->top;
	if (n > (size_t)(mag->known - top)) n = (size_t)(mag->known - top);
	if (likely(slab_same(objects, top, n))) return n;
	for (n = 0; objects[n] == top[n];) n++;
	return n;
}

/* The first ones that lie in one word of a slab that the thread owns, by looking them up; entries are made for as many as
 * there is room. */
static size_t found(const struct participant *me, unsigned class, uint32_t skew, struct slab_mag *mag, size_t n,
                    void *const *objects, uint64_t *bits, _Atomic uint64_t **a)
{
	const hp_pool *pool = me->pool;
	char **top = mag->top;
	size_t i = 0;
	mag->batch_n = 0;
	*a = NULL;
	for (*bits = 0; i < n; i++) {
		struct slab *slab;
		unsigned index, is;
		hp_off off = (hp_off)((uintptr_t)objects[i] - (uintptr_t)pool->base);
		if (off >= pool->capacity || slab_find_skewed(pool, off, skew, &slab, &index, &is) != SLAB_OBJECT ||
		    is != class)
			break;
		_Atomic uint64_t *word = &slab->a[index >> 6];
		uint64_t bit = UINT64_C(1) << (index & 63);
		if (*a ? word != *a || *bits & bit : !slab_is_mine(me, slab)) break;
		*a = word;
		*bits |= bit;
		if (top == mag->limit) continue; /* left to its slab */
		*top = objects[i];
		*slab_at_of(top) = slab_at_make(word, index);
		*slab_bit_of(top) = bit;
		top++;
	}
	return i;
}

/* Objects of one word, with entries at the top for as many as there is room: false when one of them is not out. */
static bool give_word(struct participant *me, unsigned class, _Atomic uint64_t *a, uint64_t bits, size_t n,
                      bool *untidy)
{
	struct slab_mag *mag = &slab_state(me)->mag[class];
	uint64_t old = atomic_load_explicit(a, memory_order_relaxed);
	uint64_t live = old ^ atomic_load_explicit(a + (SLAB_R - SLAB_A), memory_order_relaxed);
	if (unlikely(bits & ~live)) return false;
	size_t room = (size_t)(mag->limit - mag->top);
	/* commit: all of these are free */
	atomic_store_explicit(a, old ^ bits, memory_order_release);
	mag->top += n < room ? n : room;
	struct slab *slab = slab_of_word(a);
	bool left = mag->top == mag->limit && !(atomic_load_explicit(&slab->noted, memory_order_relaxed) & SLAB_LISTED);
	if (unlikely((live == bits && !slab_is_quiet(slab)) || left)) *untidy |= slab_given(me, slab, class);
	return true;
}

/* Those that entries know: how many. */
static size_t give_known(struct participant *me, unsigned class, size_t n, void *const *objects, bool *untidy)
{
	const struct slab_mag *mag = &slab_state(me)->mag[class];
	size_t i = 0;
	uint64_t bits;
	n = known(mag, n, objects);
	if (n > 1 && in_one_word(mag->top, n, &bits) && likely(count(bits) == n)) /* fewer: one is there twice */
		return give_word(me, class, slab_word_at(*slab_at_of(mag->top)), bits, n, untidy) ? n : 0;
	while (i < n) {
		size_t some = in_a_word(mag->top, n - i, &bits);
		if (!give_word(me, class, slab_word_at(*slab_at_of(mag->top)), bits, some, untidy)) break;
		i += some;
	}
	return i;
}

size_t slab_give_bulk(struct participant *me, unsigned class, uint32_t skew, size_t n, void *const *objects,
                      bool *untidy)
{
	struct slab_mag *mag = &slab_state(me)->mag[class];
	size_t given = give_known(me, class, n, objects, untidy);
	while (given < n) {
		uint64_t bits;
		_Atomic uint64_t *a;
		size_t room = (size_t)(mag->limit - mag->top);
		size_t some = found(me, class, skew, mag, n - given, objects + given, &bits, &a);
		/* what was written there is true, whatever follows */
		if (mag->known < mag->top + (some < room ? some : room)) mag->known = mag->top + (some < room ? some : room);
		if (!some || !give_word(me, class, a, bits, some, untidy)) break; /* one by one will tell which is not out */
		given += some;
	}
	return given;
}
