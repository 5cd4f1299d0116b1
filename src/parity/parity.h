/* Operations on a unit. See parity/layout.h for the shared form.
 *
 * The owner keeps a private view of what is free, so that allocating reads no shared word: the view is rebuilt from
 * A ^ R and len when a unit is adopted, and refreshed when it runs out, which is how remote frees are noticed. The
 * view may believe a freed granule occupied (a remote free not yet seen), never a live one free. */
#ifndef HUGEPOOL_PARITY_H
#define HUGEPOOL_PARITY_H

#include "parity/layout.h"
#include <stdbool.h>
#include <stddef.h>

struct parity_view {
	uint64_t free[PARITY_WORDS]; /* bit set: free for the owner to hand out */
	uint32_t word;               /* where single granules are taken from: no search while free[word] lasts */
	uint32_t granules;           /* of this unit, a multiple of 64; 0: an empty view */
};

static inline uint64_t parity_bit(unsigned i)
{
	return UINT64_C(1) << (i & 63);
}

/* By the owner of A, who alone stores there: flips bits, whatever they are. Release. */
static inline void parity_flip(_Atomic uint64_t *a, uint64_t bits)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	/* one instruction, which compilers do not make of atomics; as in slot_enter */
	__asm__ volatile("xorq %1, %0" : "+m"(*a) : "r"(bits) : "memory", "cc");
#else
	atomic_store_explicit(a, atomic_load_explicit(a, memory_order_relaxed) ^ bits, memory_order_release);
#endif
}

/* acquire: what the freer did with the memory happens before its reuse. */
static inline bool parity_live(const struct parity_unit *unit, unsigned i)
{
	uint64_t a = atomic_load_explicit(&unit->a[i >> 6], memory_order_acquire);
	uint64_t r = atomic_load_explicit(&unit->r[i >> 6], memory_order_acquire);
	return ((a ^ r) >> (i & 63)) & 1;
}

/* Bits b to b + n - 1 of a word, n 1 to 64 - b. */
static inline uint64_t parity_mask(unsigned b, unsigned n)
{
	return ~UINT64_C(0) >> (64 - n) << b;
}

/* Marks granules in the view, 1 or more, over any number of words. */
static inline void parity_view_take(struct parity_view *view, unsigned i, unsigned n)
{
	unsigned w = i >> 6, b = i & 63;
	if (n == PARITY_GRANULES) {
		for (w = 0; w < PARITY_WORDS; w++) view->free[w] = 0;
		return;
	}
	for (; b + n > 64; w++, b = 0) {
		view->free[w] &= ~parity_mask(b, 64 - b);
		n -= 64 - b;
	}
	view->free[w] &= ~parity_mask(b, n);
}

static inline void parity_view_give(struct parity_view *view, unsigned i, unsigned n)
{
	unsigned w = i >> 6, b = i & 63;
	if (n == PARITY_GRANULES) {
		for (w = 0; w < PARITY_WORDS; w++) view->free[w] = ~UINT64_C(0);
		return;
	}
	for (; b + n > 64; w++, b = 0) {
		view->free[w] |= parity_mask(b, 64 - b);
		n -= 64 - b;
	}
	view->free[w] |= parity_mask(b, n);
}

/* Where n free granules in a row begin within a word: a bit for each place. */
static inline uint64_t parity_runs(uint64_t free, unsigned n)
{
	/* a bit stays where n bits in a row are set: by doubling the distance covered */
	for (unsigned left = n - 1, step = 1; left && free; step <<= 1) {
		unsigned k = step < left ? step : left;
		free &= free >> k;
		left -= k;
	}
	return free;
}

/* First run of n free granules, or -1. */
static inline int parity_view_find_run(const struct parity_view *view, unsigned n)
{
	unsigned words = view->granules / 64, carry = 0; /* carry: free granules right before word w */
	if (n == PARITY_GRANULES) {
		uint64_t all = ~UINT64_C(0);
		for (unsigned w = 0; w < PARITY_WORDS; w++) all &= view->free[w];
		return all == ~UINT64_C(0) ? 0 : -1;
	}
	for (unsigned w = 0; w < words; w++) {
		uint64_t m = view->free[w];
		if (m == ~UINT64_C(0)) {
			carry += 64;
			if (carry >= n) return (int)((w + 1) * 64 - carry);
			continue;
		}
		if (carry + (unsigned)__builtin_ctzll(~m) >= n) return (int)(w * 64 - carry);
		if (n < 64) {
			uint64_t run = parity_runs(m, n);
			if (run) return (int)(w * 64 + (unsigned)__builtin_ctzll(run));
		}
		carry = (unsigned)__builtin_clzll(~m);
	}
	return -1;
}

/* The same for any n, going to the next word that has something where n is 1. */
int parity_view_find(struct parity_view *view, unsigned n);

/* The owner makes the run at i live. `len` as in layout.h. */
static inline void parity_allocate_local(struct parity_unit *unit, unsigned i, unsigned len)
{
	_Atomic uint64_t *a = &unit->a[i >> 6];
	atomic_store_explicit(&unit->len[i], (uint16_t)len, memory_order_relaxed);
	/* commit: before it the run is free and len means nothing, after it the run is live and the caller's.
	 * Release: len, and what the layer above wrote about the run, are visible to whoever sees it live. */
	parity_flip(a, parity_bit(i));
}

/* The owner makes one granule of the view's current word live: which, or -1 when the word has none left. The two above in
 * one, without taking the bit's number apart again. */
static inline ptrdiff_t parity_allocate_near(struct parity_unit *unit, struct parity_view *view)
{
	size_t w = view->word;
	uint64_t free = view->free[w];
	if (__builtin_expect(!free, 0)) return -1;
	size_t i = w * 64 + (unsigned)__builtin_ctzll(free);
	view->free[w] = free & (free - 1);
	atomic_store_explicit(&unit->len[i], 1, memory_order_relaxed);
	/* commit, as in parity_allocate_local */
	parity_flip(&unit->a[w], free & -free);
	return (ptrdiff_t)i;
}

/* The same for a run of n granules, 2 to 64, at the word's first free place; -1 when that is shorter. No search. */
static inline ptrdiff_t parity_allocate_run_near(struct parity_unit *unit, struct parity_view *view, unsigned n)
{
	size_t w = view->word;
	uint64_t free = view->free[w], mask = ~UINT64_C(0) >> (64 - n);
	if (__builtin_expect(!free, 0)) return -1;
	unsigned b = (unsigned)__builtin_ctzll(free);
	if (__builtin_expect(~(free >> b) & mask, 0)) return -1;
	size_t i = w * 64 + b;
	view->free[w] = free & ~(mask << b);
	atomic_store_explicit(&unit->len[i], (uint16_t)n, memory_order_relaxed);
	/* commit, as in parity_allocate_local */
	parity_flip(&unit->a[w], free & -free);
	return (ptrdiff_t)i;
}

/* The owner frees the run at i; returns its len word, or 0 when no live run begins there. */
static inline unsigned parity_free_local(struct parity_unit *unit, unsigned i)
{
	_Atomic uint64_t *a = &unit->a[i >> 6];
	uint64_t bits = atomic_load_explicit(a, memory_order_relaxed);
	uint64_t others = atomic_load_explicit(&unit->r[i >> 6], memory_order_relaxed);
	if (__builtin_expect(!((bits ^ others) & parity_bit(i)), 0)) return 0;
	unsigned len = atomic_load_explicit(&unit->len[i], memory_order_relaxed);
	/* commit: after it the run is free. Release: a later owner's reuse comes after the caller's last access. */
	atomic_store_explicit(a, bits ^ parity_bit(i), memory_order_release);
	return len;
}

/* The same for a live run of a single granule, with the view brought up to date; false, and nothing has happened, where i
 * is anything else. */
static inline bool parity_free_one(struct parity_unit *unit, struct parity_view *view, size_t i)
{
	if (__builtin_expect(atomic_load_explicit(&unit->len[i], memory_order_relaxed) != 1, 0)) return false;
	uint64_t live = atomic_load_explicit(&unit->a[i >> 6], memory_order_relaxed);
	live ^= atomic_load_explicit(&unit->r[i >> 6], memory_order_relaxed);
	if (__builtin_expect(!(live >> (i & 63) & 1), 0)) return false;
	/* commit, as in parity_free_local */
	parity_flip(&unit->a[i >> 6], parity_bit((unsigned)i));
	view->free[i >> 6] |= parity_bit((unsigned)i);
	return true;
}

/* The same for a run of 2 to 64 granules that lies in one word. */
static inline bool parity_free_run_near(struct parity_unit *unit, struct parity_view *view, size_t i)
{
	uint64_t live = atomic_load_explicit(&unit->a[i >> 6], memory_order_relaxed);
	live ^= atomic_load_explicit(&unit->r[i >> 6], memory_order_relaxed);
	unsigned len = atomic_load_explicit(&unit->len[i], memory_order_relaxed), b = i & 63;
	if (__builtin_expect(len < 2 || len > 64 - b, 0) || __builtin_expect(!(live >> b & 1), 0)) return false;
	/* commit, as in parity_free_local */
	parity_flip(&unit->a[i >> 6], UINT64_C(1) << b);
	view->free[i >> 6] |= ~UINT64_C(0) >> (64 - len) << b;
	return true;
}

/* The granules of this unit that a len word stands for, whatever rubbish it may be: 1 to granules - i. */
static inline unsigned parity_len(unsigned len, unsigned i, unsigned granules)
{
	unsigned n = len & PARITY_LEN_MASK;
	if (n == 0) n = 1;
	if (n > granules - i || len & PARITY_LEN_SPANS) n = granules - i;
	return n;
}

/* The same for any run; false when no live run begins at i. */
static inline bool parity_free_run(struct parity_unit *unit, struct parity_view *view, unsigned i)
{
	unsigned len = parity_free_local(unit, i);
	if (__builtin_expect(!len, 0)) return false;
	parity_view_give(view, i, parity_len(len, i, view->granules));
	return true;
}

/* Anybody but the owner frees the run at i, with one compare-and-swap: its len word, or 0 when no live run begins
 * there. */
static inline unsigned parity_free_remote(struct parity_unit *unit, unsigned i)
{
	uint64_t a = atomic_load_explicit(&unit->a[i >> 6], memory_order_acquire);
	uint64_t r = atomic_load_explicit(&unit->r[i >> 6], memory_order_relaxed);
	unsigned len = atomic_load_explicit(&unit->len[i], memory_order_relaxed);
	do {
		if (__builtin_expect(!((a ^ r) & parity_bit(i)), 0)) return 0;
		/* commit: after it the run is free. Release as in parity_free_local. The loop goes round only when another
		 * free in the same word has succeeded. */
	} while (!atomic_compare_exchange_weak_explicit(&unit->r[i >> 6], &r, r ^ parity_bit(i), memory_order_release,
	                                                memory_order_relaxed));
	return len;
}

/* Fills the view from A ^ R and len: `prefix` granules at the start are occupied by a run of an earlier unit. Exact
 * for the owner; for anybody else a snapshot that may be wrong in either direction. */
void parity_view_rebuild(const struct parity_unit *unit, unsigned granules, unsigned prefix, struct parity_view *view);

/* No live run begins in the unit. */
bool parity_no_heads(const struct parity_unit *unit, unsigned granules);
unsigned parity_count_heads(const struct parity_unit *unit, unsigned granules);

/* Frees everything in a unit that the caller holds alone: A := R, an absolute value, so a caller that dies is simply
 * repeated. */
void parity_free_all(struct parity_unit *unit);

/* The live run that granule i belongs to: its head, or -1. */
int parity_head_of(const struct parity_unit *unit, unsigned granules, unsigned i);

/* Granules free at the start, at the end, and in the longest run. */
unsigned parity_view_prefix(const struct parity_view *view);
unsigned parity_view_suffix(const struct parity_view *view);
unsigned parity_view_longest(const struct parity_view *view);
unsigned parity_view_count(const struct parity_view *view);

#endif
