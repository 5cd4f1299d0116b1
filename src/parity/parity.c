/* The parts of a unit that are not on the fast path: searching for runs, rebuilding the view. All loops are bounded by
 * the number of granules, whatever shared memory says. */
#include "parity/parity.h"
#include <string.h>

int parity_view_find(struct parity_view *view, unsigned n)
{
	if (n > 1) return parity_view_find_run(view, n);
	for (unsigned k = 0, words = view->granules / 64; k < words; k++) {
		unsigned w = (view->word + k) % words;
		if (!view->free[w]) continue;
		view->word = w;
		return (int)(w * 64 + (unsigned)__builtin_ctzll(view->free[w]));
	}
	return -1;
}

void parity_view_rebuild(const struct parity_unit *unit, unsigned granules, unsigned prefix, struct parity_view *view)
{
	unsigned words = granules / 64;
	view->granules = granules;
	view->word = 0;
	memset(view->free, 0, sizeof view->free);
	for (unsigned w = 0; w < words; w++) view->free[w] = ~UINT64_C(0);
	if (prefix) parity_view_take(view, 0, prefix < granules ? prefix : granules);
	for (unsigned w = 0; w < words; w++) {
		/* A before R, both acquire: a head live all the time is seen live */
		uint64_t a = atomic_load_explicit(&unit->a[w], memory_order_acquire);
		uint64_t heads = a ^ atomic_load_explicit(&unit->r[w], memory_order_acquire);
		while (heads) {
			unsigned i = w * 64 + (unsigned)__builtin_ctzll(heads);
			unsigned len = atomic_load_explicit(&unit->len[i], memory_order_relaxed);
			parity_view_take(view, i, parity_len(len, i, granules));
			heads &= heads - 1;
		}
	}
}

bool parity_no_heads(const struct parity_unit *unit, unsigned granules)
{
	uint64_t any = 0;
	for (unsigned w = 0; w < granules / 64; w++) {
		uint64_t a = atomic_load_explicit(&unit->a[w], memory_order_acquire);
		any |= a ^ atomic_load_explicit(&unit->r[w], memory_order_acquire);
	}
	return any == 0;
}

unsigned parity_count_heads(const struct parity_unit *unit, unsigned granules)
{
	unsigned n = 0;
	for (unsigned w = 0; w < granules / 64; w++) {
		uint64_t a = atomic_load_explicit(&unit->a[w], memory_order_acquire);
		n += (unsigned)__builtin_popcountll(a ^ atomic_load_explicit(&unit->r[w], memory_order_acquire));
	}
	return n;
}

void parity_free_all(struct parity_unit *unit)
{
	for (unsigned w = 0; w < PARITY_WORDS; w++)
		atomic_store_explicit(&unit->a[w], atomic_load_explicit(&unit->r[w], memory_order_acquire),
		                      memory_order_release);
}

int parity_head_of(const struct parity_unit *unit, unsigned granules, unsigned i)
{
	for (int w = (int)(i >> 6); w >= 0; w--) {
		uint64_t a = atomic_load_explicit(&unit->a[w], memory_order_acquire);
		uint64_t heads = a ^ atomic_load_explicit(&unit->r[w], memory_order_acquire);
		if (w == (int)(i >> 6) && (i & 63) != 63) heads &= (UINT64_C(2) << (i & 63)) - 1;
		if (!heads) continue;
		unsigned head = (unsigned)w * 64 + 63 - (unsigned)__builtin_clzll(heads);
		unsigned len = atomic_load_explicit(&unit->len[head], memory_order_relaxed);
		return i - head < parity_len(len, head, granules) ? (int)head : -1;
	}
	return -1;
}

unsigned parity_view_prefix(const struct parity_view *view)
{
	for (unsigned w = 0; w < view->granules / 64; w++)
		if (view->free[w] != ~UINT64_C(0)) return w * 64 + (unsigned)__builtin_ctzll(~view->free[w]);
	return view->granules;
}

unsigned parity_view_suffix(const struct parity_view *view)
{
	for (unsigned w = view->granules / 64; w-- > 0;)
		if (view->free[w] != ~UINT64_C(0))
			return view->granules - (w + 1) * 64 + (unsigned)__builtin_clzll(~view->free[w]);
	return view->granules;
}

unsigned parity_view_longest(const struct parity_view *view)
{
	unsigned longest = 0, run = 0;
	for (unsigned w = 0; w < view->granules / 64; w++) {
		uint64_t m = view->free[w];
		unsigned at = 0;
		while (at < 64) {
			uint64_t rest = m >> at;
			if (rest & 1) {
				unsigned k = ~rest ? (unsigned)__builtin_ctzll(~rest) : 64;
				if (k > 64 - at) k = 64 - at;
				run += k;
				at += k;
				if (run > longest) longest = run;
			} else {
				run = 0;
				if (!rest) break;
				at += (unsigned)__builtin_ctzll(rest);
			}
		}
	}
	return longest;
}

unsigned parity_view_count(const struct parity_view *view)
{
	unsigned n = 0;
	for (unsigned w = 0; w < PARITY_WORDS; w++) n += (unsigned)__builtin_popcountll(view->free[w]);
	return n;
}
