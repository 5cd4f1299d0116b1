/* What was taken in one call comes back in one call, as a rule. So a magazine remembers the entries that were taken together last,
 * where they are all of one word, with that word's bits: then taking them again is a flip and a copy, and giving them back
 * a comparison and a store. As soon as one of the entries is written nothing is remembered any more. */
#ifndef HUGEPOOL_SLAB_BATCH_H
#define HUGEPOOL_SLAB_BATCH_H

#include "slab/slab.h"

/* Two at a time, which is what every processor has registers for. */
typedef uint64_t slab_pair __attribute__((vector_size(16), aligned(8), may_alias));

#define SLAB_STRIDE 8 /* entries at a time, with one test for the end */

static inline uint64_t slab_or_of(slab_pair two)
{
	return two[0] | two[1];
}

/* Less than a call of memcpy takes: they are few. */
static inline void slab_copy(void **objects, char *const *entry, size_t n)
{
	for (; n >= SLAB_STRIDE; n -= SLAB_STRIDE, objects += SLAB_STRIDE, entry += SLAB_STRIDE)
#pragma GCC unroll 8
		for (size_t k = 0; k < SLAB_STRIDE; k += 2)
			*(slab_pair *)(void *)(objects + k) = *(const slab_pair *)(const void *)(entry + k);
	for (; n; n--) *objects++ = *entry++;
}

static inline bool slab_same(void *const *objects, char *const *entry, size_t n)
{
	slab_pair other = {0};
	uint64_t last = 0;
	for (; n >= SLAB_STRIDE; n -= SLAB_STRIDE, objects += SLAB_STRIDE, entry += SLAB_STRIDE)
#pragma GCC unroll 8
		for (size_t k = 0; k < SLAB_STRIDE; k += 2)
			other |= *(const slab_pair *)(const void *)(objects + k) ^ *(const slab_pair *)(const void *)(entry + k);
	for (; n; n--) last |= (uintptr_t)*objects++ ^ (uintptr_t)*entry++;
	return !(slab_or_of(other) | last);
}

/* Inside an operation: takes n objects, if these are the batch. */
static inline bool slab_take_batch(struct slab_mag *mag, size_t n, void **objects)
{
	char **first = mag->batch;
	if (unlikely(mag->batch_n != n) || unlikely(!n) || unlikely(mag->top != first + n)) return false;
	mag->top = first;
	/* commit: all of these are the caller's */
	parity_flip(slab_word_at(*slab_at_of(first)), mag->batch_bits);
	slab_copy(objects, first, n);
	return true;
}

/* Inside an operation: gives n objects back, if these are the batch, all of them out, and nobody need be told. */
static inline bool slab_give_batch(struct slab_mag *mag, size_t n, void *const *objects)
{
	char **top = mag->top;
	uint64_t bits = mag->batch_bits;
	if (unlikely(mag->batch_n != n) || unlikely(!n) || unlikely(mag->batch != top)) return false;
	if (unlikely(!slab_same(objects, top, n))) return false;
	_Atomic uint64_t *a = slab_word_at(*slab_at_of(top));
	uint64_t old = atomic_load_explicit(a, memory_order_relaxed);
	uint64_t live = old ^ atomic_load_explicit(a + (SLAB_R - SLAB_A), memory_order_relaxed);
	if (unlikely(bits & ~live) || (unlikely(live == bits) && !slab_is_quiet(slab_of_word(a)))) return false;
	/* commit: all of these are free. Release, as in slab_give_back. */
	atomic_store_explicit(a, old ^ bits, memory_order_release);
	mag->top = top + n;
	return true;
}

#endif
