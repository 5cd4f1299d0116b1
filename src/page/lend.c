/* Lending a run of pages to the kernel: while it may write there, the run's length says LENT, which every fast path that frees
 * takes for no block of the application's. The pins on it are counted in the lent words of its first page (pool/lent.h).
 *
 * A pin put on: the state counts up, then the type is LENT. Taken off: the state counts down; the last one says RETURNING, so that
 * nobody else pins it, the type changes back, the state becomes 0. Where it has been freed the type is LENT (again); the
 * step GOES, after which only a run that is live and LENT is still to be freed; it is freed; the state becomes 0. */
#include "page/page.h"
#include "debug/debug.h"
#include "pool/lent.h"
#include <errno.h>

static _Atomic uint16_t *len_of(const hp_pool *pool, uint64_t head)
{
	return &pool->units[head >> pool->page_shift_chunk].len[head & (pool->chunk_pages - 1)];
}

static bool set_type(const hp_pool *pool, uint64_t head, bool lent)
{
	_Atomic uint16_t *len = len_of(pool, head);
	uint16_t from = lent ? 0 : PAGE_TYPE_LENT, to = lent ? PAGE_TYPE_LENT : 0, old = atomic_load(len);
	while ((old & PARITY_TYPE_MASK) == from)
		if (atomic_compare_exchange_weak(len, &old, (uint16_t)((old & ~PARITY_TYPE_MASK) | to))) return true;
	return (old & PARITY_TYPE_MASK) == to;
}

uint64_t page_block(const hp_pool *pool, uint64_t page, uint64_t *head)
{
	uint32_t chunk = (uint32_t)(page >> pool->page_shift_chunk);
	unsigned i = (unsigned)page & (pool->chunk_pages - 1);
	if (chunk >= pool_top(pool)) return 0;
	int at = parity_head_of(&pool->units[chunk], pool->chunk_pages, i);
	if (at < 0 && i < page_prefix(pool, chunk)) {
		uint64_t cover = atomic_load_explicit(&pool->chunks[chunk].cover, memory_order_acquire);
		chunk = (uint32_t)(cover >> 32) - 1;
		at = (int)(cover & 0xffff);
	}
	if (at < 0 || chunk >= pool_top(pool) || (unsigned)at >= pool->chunk_pages) return 0;
	*head = (uint64_t)chunk * pool->chunk_pages + (unsigned)at;
	unsigned type = atomic_load_explicit(len_of(pool, *head), memory_order_acquire) & PARITY_TYPE_MASK;
	uint64_t pages = type && type != PAGE_TYPE_LENT ? 0 : page_run(pool, chunk, (unsigned)at);
	return page - *head < pages ? pages : 0;
}

int page_lend(hp_pool *pool, uint64_t head, struct lent_step step)
{
	int error = lent_add(pool, lent_place(pool, head, 0), step);
	if (error == 0) set_type(pool, head, true);
	return error;
}

static bool is_lent(const hp_pool *pool, uint64_t head)
{
	return parity_live(&pool->units[head >> pool->page_shift_chunk], (unsigned)head & (pool->chunk_pages - 1)) &&
	       (atomic_load(len_of(pool, head)) & PARITY_TYPE_MASK) == PAGE_TYPE_LENT;
}

void page_unlend(hp_pool *pool, uint64_t head, struct lent_step step)
{
	struct lent_place at = lent_place(pool, head, 0);
	if (lent_done(pool, at, step, LENT_FIRST) || lent_done(pool, at, step, LENT_ENDS)) return;
	bool goes = lent_done(pool, at, step, LENT_GOES), returning = goes || lent_done(pool, at, step, LENT_RETURNS);
	for (;;) {
		unsigned state = lent_state(at), pins = state & ~LENT_FREED;
		if (pins == 0 || (pins == LENT_RETURNING && !returning)) return; /* not ours to repair */
		if (pins > 1 && pins <= LENT_PINS_MOST) {
			if (lent_change(pool, at, state, state - 1, step, LENT_FIRST)) return;
		} else if (state == 1) {
			returning = lent_change(pool, at, 1, LENT_RETURNING, step, LENT_RETURNS);
		} else if (state == LENT_RETURNING) {
			set_type(pool, head, false);
			/* commit: its holder's */
			if (lent_change(pool, at, state, 0, step, LENT_ENDS)) return;
		} else if (!goes) {
			set_type(pool, head, true);
			returning = goes = lent_change(pool, at, state, LENT_RETURNING | LENT_FREED, step, LENT_GOES);
		} else {
			if (is_lent(pool, head)) page_free_typed(pool, head, PAGE_TYPE_LENT);
			/* commit: nobody's */
			if (lent_change(pool, at, state, 0, step, LENT_ENDS)) return;
		}
	}
}

int page_free_lent(hp_pool *pool, uint64_t head)
{
	uint64_t tag = atomic_load_explicit(&pool->chunks[head >> pool->page_shift_chunk].tag, memory_order_acquire);
	if (pool->private) return -ENOENT;
	if (tag && tag != page_tag(pool)) return -EPERM;
	if (unlikely(debug_on(pool))) {
		debug_say(
			pool,
			"hugepool: pages at offset %llu are freed while I/O on them is in flight: free them when that has ended",
			(unsigned long long)(head * HP_PAGE_SIZE));
		return -EBUSY;
	}
	return lent_free(lent_place(pool, head, 0));
}

bool page_freed_lent(const hp_pool *pool, uint64_t head)
{
	return !pool->private && lent_state(lent_place(pool, head, 0)) & LENT_FREED;
}

bool page_chunk_lent(const hp_pool *pool, uint32_t chunk)
{
	const struct parity_unit *unit = &pool->units[chunk];
	if (pool->private) return false;
	for (unsigned w = 0; w < pool->chunk_pages / 64; w++) {
		uint64_t a = atomic_load_explicit(&unit->a[w], memory_order_acquire);
		uint64_t heads = a ^ atomic_load_explicit(&unit->r[w], memory_order_acquire);
		for (; heads; heads &= heads - 1) {
			unsigned i = w * 64 + (unsigned)__builtin_ctzll(heads);
			unsigned type = atomic_load_explicit(&unit->len[i], memory_order_acquire) & PARITY_TYPE_MASK;
			uint64_t page = (uint64_t)chunk * pool->chunk_pages + i;
			if (type == PAGE_TYPE_LENT && lent_state(lent_place(pool, page, 0))) return true;
			if (type != PAGE_TYPE_SLAB || !atomic_load_explicit(&pool->slabs[page].lends, memory_order_acquire))
				continue;
			for (unsigned k = 0; k < LENT_WORDS; k++)
				if (lent_bits(atomic_load_explicit(&pool->lent[page].word[k], memory_order_acquire))) return true;
		}
	}
	return false;
}
