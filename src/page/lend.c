/* Lending a run of pages to the kernel: while it may write there, the run's length says LENT, which every fast path that frees
 * takes for no block of the application's. The pins on it are counted in the lent words of its first page (pool/lent.h).
 *
 * Order: the pin counts, the type changes; and back: the type changes, the pin counts no more. For a run that was freed
 * meanwhile: the pin counts no more, the run is freed; whoever recovers the ring of one who died between the two finds the type
 * without a pin. */
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

int page_lend(hp_pool *pool, uint64_t head, uint32_t ring, uint32_t step)
{
	int error = pool_control_populate_lent(pool, head);
	if (error < 0) return error;
	if ((error = lent_add(pool, lent_place(pool, head, 0), ring, step)) < 0) return error == -ENOENT ? -EINVAL : error;
	set_type(pool, head, true);
	return 0;
}

void page_unlend(hp_pool *pool, uint64_t head, uint32_t ring, uint32_t step)
{
	struct lent_place at = lent_place(pool, head, 0);
	for (;;) {
		uint64_t word = atomic_load_explicit(at.word, memory_order_acquire);
		unsigned state = lent_state_in(word, at.shift), pins = state & LENT_PINS;
		if (pins == 0) break;
		if (pins == 1) set_type(pool, head, state & LENT_FREED);
		bool dropped = lent_drop(pool, at, word, ring, step);
		if (dropped && pins == 1 && !(state & LENT_FREED)) return;
		if (dropped) break;
		if (lent_state(at) & LENT_PINS) set_type(pool, head, true);
	}
	page_unlend_settle(pool, head);
}

/* What follows a pin that has been taken off. A type without a pin says that the run was freed meanwhile. */
void page_unlend_settle(hp_pool *pool, uint64_t head)
{
	struct lent_place at = lent_place(pool, head, 0);
	if (lent_state(at) & LENT_PINS)
		set_type(pool, head, true);
	else if ((atomic_load(len_of(pool, head)) & PARITY_TYPE_MASK) == PAGE_TYPE_LENT)
		page_free_typed(pool, head, PAGE_TYPE_LENT);
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
