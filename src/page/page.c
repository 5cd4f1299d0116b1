/* Allocating and freeing runs of pages: the public functions.
 *
 * The fast path is a handful of plain loads and stores between participant_try_begin and participant_end_fast. When the active
 * chunk does not serve, the slow path tries in this order: what else the thread owns (noticing remote frees), chunks that
 * the hints name, all chunks there are, recovery of the dead, growth, taking from owners that do not use what they own,
 * what the layers above keep without using it.
 * Only when a pass over everything found nothing, skipped nothing and nothing changed hands meanwhile is it -ENOMEM. */
#include "page/page.h"
#include "debug/debug.h"
#include "pool/create.h"
#include "pool/layers.h"
#include "pool/recover.h"
#include "os/os.h"
#include "backing/backing.h"
#include <errno.h>

#define ROUNDS 256       /* of the slow path, before it gives up on owners that are always busy */
#define GROWTHS 64       /* that others used up before we came to it */
#define HINT_WINDOW 4096 /* chunks looked at beyond the first that would do */

static const unsigned known_flags = HP_PAGE_PROCESS | HP_PAGE_ZERO | HP_PAGE_STRICT_NODE;

/* ---- allocating ---- */

int page_place(const struct page_want *want, struct parity_view *view)
{
	if (want->align <= 1) return parity_view_find(view, (unsigned)want->pages);
	for (unsigned i = 0; i + want->pages <= view->granules; i += want->align) {
		struct parity_view rest = *view;
		parity_view_take(&rest, i, (unsigned)want->pages);
		if (parity_view_count(view) - parity_view_count(&rest) == want->pages) return (int)i;
	}
	return -1;
}

/* From what the thread owns. */
static int64_t from_own(struct participant *me, const struct page_want *want)
{
	hp_pool *pool = me->pool;
	struct page_state *state = page_state(me);
	int64_t page = -1;
	if (want->pages > pool->chunk_pages || want->align > pool->chunk_pages) return -1;
	participant_begin(me);
	for (unsigned k = want->process ? PAGE_PROCESS : PAGE_ACTIVE; k <= (want->process ? PAGE_PROCESS : PAGE_SPARE);
	     k++) {
		struct page_owned *owned = &state->own[k];
		if (!owned->chunk1 || !page_node_fits(pool, owned->chunk1 - 1, want->node)) continue;
		int i = page_place(want, &owned->view);
		if (i < 0 && page_refresh(me, owned)) i = page_place(want, &owned->view);
		if (i < 0) continue;
		page = (int64_t)(owned->chunk1 - 1) * pool->chunk_pages + i;
		if (want->prepare) want->prepare(me, want, (uint64_t)page);
		parity_allocate_local(&pool->units[owned->chunk1 - 1], (unsigned)i, (unsigned)want->pages | want->type);
		parity_view_take(&owned->view, (unsigned)i, (unsigned)want->pages);
		if (k == PAGE_SPARE) {
			struct page_owned spare = *owned;
			*owned = state->own[PAGE_ACTIVE];
			state->own[PAGE_ACTIVE] = spare;
		}
		break;
	}
	participant_end(me);
	return page;
}

/* From the chunk that the hints call fullest while still good enough, first found from where the thread looked last. */
static int64_t from_hints(struct participant *me, const struct page_want *want)
{
	hp_pool *pool = me->pool;
	uint32_t top = pool_top(pool);
	if (want->pages > pool->chunk_pages || want->align > pool->chunk_pages || top == 0) return -1;
	uint8_t least = page_hint((unsigned)want->pages);
	for (unsigned tries = 0; tries < 8; tries++) {
		uint32_t best = UINT32_MAX, after = 0, at = me->cursor % top;
		uint8_t best_hint = UINT8_MAX;
		for (uint32_t k = 0; k < top && after < HINT_WINDOW; k++, at = at + 1 == top ? 0 : at + 1) {
			uint8_t hint = atomic_load_explicit(&pool->hints[at], memory_order_relaxed);
			after += best != UINT32_MAX;
			if (hint < least || hint >= best_hint) continue;
			if (ctl_state(atomic_load_explicit(&pool->chunks[at].ctl, memory_order_relaxed)) != CTL_UNOWNED ||
			    !page_node_fits(pool, at, want->node))
				continue;
			best = at;
			best_hint = hint;
			if (hint == least) break;
		}
		if (best == UINT32_MAX) return -1;
		me->cursor = best;
		int64_t page = page_from_chunk(me, best, want);
		if (page >= 0) return page;
		me->cursor = best + 1;
	}
	return -1;
}

static int64_t from_anywhere(struct participant *me, const struct page_want *want)
{
	unsigned skipped = 0;
	uint64_t versions = 0;
	int64_t page = from_own(me, want);
	if (page < 0) page = from_hints(me, want);
	if (page < 0) page = page_survey(me, want, false, &skipped, &versions);
	return page;
}

/* Nodes with memory of this pool, nearest first, at most HP_MAX_NODES. */
static unsigned nodes_by_distance(const hp_pool *pool, int node, int order[HP_MAX_NODES])
{
	uint64_t nodes = atomic_load_explicit(&pool->header->committed_nodes, memory_order_relaxed);
	unsigned count = 0;
	for (; nodes; nodes &= nodes - 1) {
		int n = __builtin_ctzll(nodes), d = n == node ? 0 : os_node_distance(node, n);
		unsigned k = count++;
		for (; k > 0 && (order[k - 1] == node ? 0 : os_node_distance(node, order[k - 1])) > d; k--)
			order[k] = order[k - 1];
		order[k] = n;
	}
	return count;
}

/* Own node, then by distance, then whatever there is (memory of no single node, runs over several nodes). */
static int64_t from_near(struct participant *me, const struct page_want *want)
{
	bool strict = want->strict;
	struct page_want here = *want;
	if (want->node < 0 && me->pool->single_node) return from_anywhere(me, want);
	int node = want->node >= 0 ? want->node : me->node, order[HP_MAX_NODES];
	unsigned count = strict ? 1 : nodes_by_distance(me->pool, node, order);
	if (strict) order[0] = node;
	int64_t page = -1;
	for (unsigned k = 0; k < count && page < 0; k++) {
		here.node = order[k];
		page = from_anywhere(me, &here);
	}
	here.node = -1;
	return page < 0 && !strict ? from_anywhere(me, &here) : page;
}

static int grow_here(hp_pool *pool, const struct page_want *want)
{
	bool strict = want->strict;
	struct hp_numa here = {.policy = HP_NUMA_BIND, .strict = 1, .nodes = strict ? UINT64_C(1) << want->node : 0};
	uint64_t slack = want->align > 1 && !page_in_one_chunk(pool, want) ? want->align : 0;
	return grow_for(pool, (want->pages + slack) * HP_PAGE_SIZE, strict && !pool->single_node ? &here : NULL);
}

/* What the layers above keep without using it. */
static bool reclaim(struct participant *me, unsigned *skipped)
{
	bool some = false;
	for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
		if ((*layer)->reclaim) some |= (*layer)->reclaim(me, skipped);
	return some;
}

int page_search(struct participant *me, struct page_want *want, int64_t *page)
{
	hp_pool *pool = me->pool;
	uint64_t last = 0;
	if (want->in_chunk && (want->pages > pool->chunk_pages || want->align > pool->chunk_pages)) return -ENOMEM;
	for (unsigned round = 0; round < ROUNDS; round++) {
		if ((*page = from_near(me, want)) >= 0) return 0;
		if (round % 16 == 0 && recover_dead(pool) > 0 && (*page = from_near(me, want)) >= 0) return 0;
		for (unsigned k = 0; round == 0 && k < GROWTHS && grow_here(pool, want) == 0; k++)
			if ((*page = from_near(me, want)) >= 0) return 0;
		unsigned skipped = 0;
		uint64_t versions = 0;
		struct page_want any = *want;
		if (!want->strict) any.node = -1;
		if ((*page = page_survey(me, &any, true, &skipped, &versions)) >= 0) return 0;
		if (reclaim(me, &skipped) && (*page = from_near(me, want)) >= 0) return 0;
		bool waiting = skipped || recover_pending(pool);
		if (!waiting && round > 0 && versions == last) break;
		last = versions;
		if (waiting) os_yield();
	}
	return -ENOMEM;
}

static int alloc_slow(hp_pool *pool, int node, size_t bytes, unsigned flags, int64_t *page)
{
	if (pool->observer) return -EROFS;
	if (bytes == 0 || bytes > SIZE_MAX - HP_PAGE_SIZE || flags & ~known_flags || node >= HP_MAX_NODES) return -EINVAL;
	if (bytes > pool->capacity) return -ENOMEM;
	struct page_want want = {
		.pages = (bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE,
		.node = node,
		.process = flags & HP_PAGE_PROCESS && !pool->private, /* there, the process is all there is */
		.strict = flags & HP_PAGE_STRICT_NODE,
	};
	int error;
	struct participant *me = participant_get(pool, &error);
	if (!me) return error;
	if (want.strict && node < 0) want.node = me->node;
	if (want.strict && node >= 0 && !(atomic_load(&pool->header->committed_nodes) >> node & 1)) return -EINVAL;
	participant_hold(me);
	error = page_search(me, &want, page);
	participant_let_go(me);
	if (error == 0) participant_count(&me->slot->allocs);
	return error;
}

static __attribute__((noinline)) intptr_t alloc_finish(hp_pool *pool, int node, size_t bytes, unsigned flags)
{
	int64_t page = -1;
	int error = alloc_slow(pool, node, bytes, flags, &page);
	if (pool->trace)
		pool_log(pool, "hugepool: alloc %zu bytes, node %d, flags %x: %lld", bytes, node, flags,
		         error < 0 ? (long long)error : (long long)page * HP_PAGE_SIZE);
	if (error < 0) return error;
	char *block = pool->base + page * HP_PAGE_SIZE;
	if (unlikely(debug_on(pool))) debug_pages(pool, block, bytes);
	if (flags & HP_PAGE_ZERO) backing_zero(block, (bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE * HP_PAGE_SIZE);
	return (intptr_t)block;
}

/* What the active chunk has not where it was looked for, and all the rest. */
static __attribute__((noinline)) intptr_t alloc_other(hp_pool *pool, size_t bytes, unsigned flags)
{
	if (participant_switch(pool)) return hp_page_alloc_address(pool, bytes, flags);
	struct participant *me = hp_thread_current;
	struct pool_slot *slot = me->slot;
	uint64_t pages = (bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE;
	if (participant_is_fast(me, pool) && pages - 1 < PARITY_GRANULES && !flags && participant_try_begin(slot)) {
		struct page_owned *own = &page_state(me)->own[PAGE_ACTIVE];
		int i = pages > 1 ? parity_view_find_run(&own->view, (unsigned)pages) : parity_view_find(&own->view, 1);
		if (likely(i >= 0)) {
			parity_allocate_local(own->unit, (unsigned)i, (unsigned)pages);
			parity_view_take(&own->view, (unsigned)i, (unsigned)pages);
			own->view.word = (unsigned)i >> 6;            /* where the next of that length is found at once */
			char *block = own->start + ((size_t)i << 12); /* before the end: a signal handler may change what we own */
			participant_count(&slot->allocs);
			participant_end_fast(slot);
			return (intptr_t)block;
		}
		participant_end_fast(slot);
	}
	return alloc_finish(pool, -1, bytes, flags);
}

/* 2 to 64 pages at the first free place of the current word. */
static __attribute__((noinline)) intptr_t alloc_run(hp_pool *pool, size_t bytes, unsigned flags)
{
	struct participant *me = hp_thread_current;
	struct pool_slot *slot = me->slot;
	if (participant_is_fast(me, pool) && likely(bytes - 1 < 64 * HP_PAGE_SIZE && !flags) &&
	    likely(participant_try_begin(slot))) {
		struct page_owned *own = &page_state(me)->own[PAGE_ACTIVE];
		unsigned pages = (unsigned)(bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE;
		ptrdiff_t i = parity_allocate_run_near(own->unit, &own->view, pages);
		if (likely(i >= 0)) {
			char *block = own->start + (i << 12); /* before the end: a signal handler may change what we own */
			participant_count(&slot->allocs);
			participant_end_fast(slot);
			return (intptr_t)block;
		}
		participant_end_fast(slot);
	}
	return alloc_other(pool, bytes, flags);
}

intptr_t hp_page_alloc_address(hp_pool *pool, size_t bytes, unsigned flags)
{
	struct participant *me = hp_thread_current;
	struct pool_slot *slot = me->slot;
	if (unlikely(bytes > HP_PAGE_SIZE)) return alloc_run(pool, bytes, flags);
	if (participant_is_fast(me, pool) && likely(bytes != 0 && !flags) && likely(participant_try_begin(slot))) {
		struct page_owned *own = &page_state(me)->own[PAGE_ACTIVE];
		ptrdiff_t i = parity_allocate_near(own->unit, &own->view);
		if (likely(i >= 0)) {
			char *block = own->start + (i << 12); /* before the end: a signal handler may change what we own */
			participant_count(&slot->allocs);
			participant_end_fast(slot);
			return (intptr_t)block;
		}
		participant_end_fast(slot);
	}
	return alloc_other(pool, bytes, flags);
}

int hp_page_alloc_on(hp_pool *pool, int node, size_t bytes, unsigned flags, void **block)
{
	intptr_t at = node < 0 ? -EINVAL : alloc_finish(pool, node, bytes, flags);
	*block = at < 0 ? NULL : (void *)at;
	return at < 0 ? (int)at : 0;
}

/* ---- freeing ---- */

/* Why no live block begins there. */
static int not_a_block(const hp_pool *pool, uint32_t chunk, unsigned i)
{
	const struct parity_unit *unit = &pool->units[chunk];
	if (parity_head_of(unit, pool->chunk_pages, i) >= 0 || i < page_prefix(pool, chunk)) return -ENOENT;
	return atomic_load_explicit(&unit->len[i], memory_order_relaxed) ? -EALREADY : -ENOENT;
}

/* Offset to chunk and page, or an error. */
static int locate(const hp_pool *pool, hp_off off, uint32_t *chunk, unsigned *i)
{
	if (off >= pool->capacity || off & (HP_PAGE_SIZE - 1)) return -EINVAL;
	uint64_t page = off >> 12;
	*chunk = (uint32_t)(page >> pool->page_shift_chunk);
	*i = (unsigned)page & (pool->chunk_pages - 1);
	return *chunk < pool_top(pool) ? 0 : -ENOENT;
}

/* What kind of run begins there; not 0 is not the application's to free. */
static unsigned type_of(const hp_pool *pool, uint32_t chunk, unsigned i)
{
	return atomic_load_explicit(&pool->units[chunk].len[i], memory_order_relaxed) & PARITY_TYPE_MASK;
}

/* Of another type than what is to be freed: under I/O perhaps. */
static int refuse(hp_pool *pool, uint32_t chunk, unsigned i, unsigned type)
{
	if (!type && type_of(pool, chunk, i) == PAGE_TYPE_LENT && parity_live(&pool->units[chunk], i))
		return page_free_lent(pool, (uint64_t)chunk * pool->chunk_pages + i);
	return not_a_block(pool, chunk, i);
}

static int free_remote(hp_pool *pool, uint32_t chunk, unsigned i, unsigned type)
{
	struct parity_unit *unit = &pool->units[chunk];
	if (unlikely(type_of(pool, chunk, i) != type)) return refuse(pool, chunk, i, type);
	uint64_t tag = atomic_load_explicit(&pool->chunks[chunk].tag, memory_order_acquire);
	if (unlikely(tag && (pool->joined != participant_fork_generation() || tag != page_tag(pool)) &&
	             parity_live(unit, i)))
		return -EPERM;
	uint64_t span = atomic_load_explicit(&pool->chunks[chunk].span, memory_order_relaxed);
	unsigned len = parity_free_remote(unit, i);
	if (unlikely(len == 0)) return not_a_block(pool, chunk, i);
	page_hint_raise(pool, chunk, parity_len(len, i, pool->chunk_pages));
	if (unlikely(len & PARITY_LEN_SPANS)) {
		uint64_t end = i + span; /* in pages from the start of the chunk */
		for (uint32_t k = 1; k < pool->chunk_count - chunk && (uint64_t)k * pool->chunk_pages < end; k++) {
			uint64_t left = end - (uint64_t)k * pool->chunk_pages;
			page_hint_raise(pool, chunk + k, left < pool->chunk_pages ? (unsigned)left : pool->chunk_pages);
		}
	}
	return 0;
}

static int free_slow(hp_pool *pool, hp_off off, unsigned type)
{
	uint32_t chunk;
	unsigned i;
	if (pool->observer) return -EROFS;
	int error = locate(pool, off, &chunk, &i);
	if (error < 0) return error;
	struct participant *me = participant_peek(pool);
	struct page_owned *own = me ? page_find_owned(me, chunk) : NULL;
	if (own) {
		participant_begin(me);
		if (own->chunk1 == chunk + 1) {
			bool done = type_of(pool, chunk, i) == type && parity_free_run(&pool->units[chunk], &own->view, i);
			participant_end(me);
			error = done ? 0 : refuse(pool, chunk, i, type);
			if (error == 0) participant_count(&me->slot->frees);
			return error;
		}
		participant_end(me);
	}
	/* needs no slot: where the process has no record yet (a forked child) it only cannot free class PROCESS */
	error = free_remote(pool, chunk, i, type);
	if (error == 0 && me) participant_count(&me->slot->remote_frees);
	return error;
}

/* What is not in the active chunk. */
static __attribute__((noinline)) int free_other(hp_pool *pool, hp_off off)
{
	participant_switch(pool);
	struct participant *me = hp_thread_current;
	struct pool_slot *slot = me->slot;
	if (participant_is_fast(me, pool) && !(off & (HP_PAGE_SIZE - 1)) && off < pool->capacity) {
		uint64_t page = off >> 12;
		uint32_t chunk = (uint32_t)(page >> pool->page_shift_chunk);
		unsigned i = (unsigned)page & (pool->chunk_pages - 1);
		struct page_owned *own = page_find_owned(me, chunk);
		if (own) {
			if (likely(participant_try_begin(slot))) {
				/* looked at again: a signal handler may have changed what we own before the operation began */
				if (likely(own->chunk1 == chunk + 1 && !type_of(pool, chunk, i) &&
				           parity_free_run(own->unit, &own->view, i))) {
					participant_count(&slot->frees);
					participant_end_fast(slot);
					return 0;
				}
				participant_end_fast(slot);
			}
		} else if (likely(chunk < pool_top(pool))) {
			int error = free_remote(pool, chunk, i, 0);
			if (likely(error == 0)) participant_count(&me->slot->remote_frees);
			return error;
		}
	}
	int error = free_slow(pool, off, 0);
	if (pool->trace) pool_log(pool, "hugepool: free %llu: %d", (unsigned long long)off, error);
	return error;
}

static inline uint64_t offset_of(const hp_pool *pool, const void *block)
{
	return (uint64_t)((uintptr_t)block - (uintptr_t)pool->base);
}

/* Go on inside an operation: where the block in the active chunk is neither a single live page nor a run in one word, */
static __attribute__((noinline)) int free_long(struct participant *me, char *block)
{
	struct page_owned *own = &page_state(me)->own[PAGE_ACTIVE];
	struct pool_slot *slot = me->slot;
	size_t i = (size_t)(block - own->start) >> 12;
	bool plain = !(atomic_load_explicit(&own->unit->len[i], memory_order_relaxed) & PARITY_TYPE_MASK);
	if (plain && parity_free_run(own->unit, &own->view, (unsigned)i)) {
		participant_count(&slot->frees);
		participant_end_fast(slot);
		return 0;
	}
	participant_end_fast(slot);
	return free_other(me->pool, offset_of(me->pool, block));
}

/* and where it is no single page. */
static __attribute__((noinline)) int free_run(struct participant *me, char *block)
{
	struct page_owned *own = &page_state(me)->own[PAGE_ACTIVE];
	struct pool_slot *slot = me->slot;
	if (unlikely(!parity_free_run_near(own->unit, &own->view, (size_t)(block - own->start) >> 12)))
		return free_long(me, block);
	participant_count(&slot->frees);
	participant_end_fast(slot);
	return 0;
}

int hp_page_free(hp_pool *pool, void *block)
{
	struct participant *me = hp_thread_current;
	struct page_owned *own = &page_state(me)->own[PAGE_ACTIVE];
	struct pool_slot *slot = me->slot;
	if (participant_is_fast(me, pool) && likely(participant_try_begin(slot))) {
		uintptr_t at = (uintptr_t)block - (uintptr_t)own->start;
		if (likely(at < own->bytes && !(at & (HP_PAGE_SIZE - 1)))) {
			size_t i = at >> 12;
			if (unlikely(!parity_free_one(own->unit, &own->view, i))) return free_run(me, block);
			participant_count(&slot->frees);
			participant_end_fast(slot);
			return 0;
		}
		participant_end_fast(slot);
	}
	return block ? free_other(pool, offset_of(pool, block)) : 0;
}

int page_free_begun(struct participant *me, void *block)
{
	struct page_owned *own = &page_state(me)->own[PAGE_ACTIVE];
	uintptr_t at = (uintptr_t)block - (uintptr_t)own->start;
	if (likely(at < own->bytes && !(at & (HP_PAGE_SIZE - 1)))) return free_run(me, block);
	participant_end_fast(me->slot);
	return free_other(me->pool, offset_of(me->pool, block));
}

int page_free_typed(hp_pool *pool, uint64_t page, unsigned type)
{
	return free_slow(pool, page * HP_PAGE_SIZE, type);
}

bool page_resize(hp_pool *pool, uint64_t page, uint64_t pages)
{
	struct participant *me = participant_peek(pool);
	uint32_t chunk = (uint32_t)(page >> pool->page_shift_chunk);
	unsigned i = (unsigned)page & (pool->chunk_pages - 1);
	struct page_owned *own = me ? page_find_owned(me, chunk) : NULL;
	bool done = false;
	if (!own || pages - 1 >= pool->chunk_pages - i) return false;
	participant_begin(me);
	struct parity_unit *unit = &pool->units[chunk];
	unsigned len = own->chunk1 == chunk + 1 && parity_live(unit, i) ? atomic_load(&unit->len[i]) : 0;
	if (len && !(len & (PARITY_LEN_SPANS | PARITY_TYPE_MASK))) {
		unsigned was = parity_len(len, i, pool->chunk_pages), is = (unsigned)pages;
		struct parity_view rest = own->view;
		if (is > was) parity_view_take(&rest, i + was, is - was);
		done = is <= was || parity_view_count(&own->view) - parity_view_count(&rest) == is - was;
		if (done) {
			/* commit: what is added was free, and is ours to give as its chunk's owner; what is cut off is free */
			atomic_store_explicit(&unit->len[i], (uint16_t)is, memory_order_release);
			own->view = rest;
			if (is < was) parity_view_give(&own->view, i + is, was - is);
		}
	}
	participant_end(me);
	return done;
}

int hp_page_free_at(hp_pool *pool, hp_off block)
{
	return free_other(pool, block);
}

/* ---- asking ---- */

int64_t hp_page_size_at(hp_pool *pool, hp_off block)
{
	uint32_t chunk;
	unsigned i;
	if (pool->observer) return -EROFS;
	int error = locate(pool, block, &chunk, &i);
	if (error < 0) return error;
	unsigned type = type_of(pool, chunk, i);
	if (type == PAGE_TYPE_LENT && page_freed_lent(pool, block / HP_PAGE_SIZE)) return -EALREADY;
	uint64_t pages = type && type != PAGE_TYPE_LENT ? 0 : page_run(pool, chunk, i);
	return pages ? (int64_t)(pages * HP_PAGE_SIZE) : not_a_block(pool, chunk, i);
}

int64_t hp_page_size(hp_pool *pool, const void *block)
{
	return hp_page_size_at(pool, (hp_off)((uintptr_t)block - (uintptr_t)pool->base));
}

int hp_page_zero(hp_pool *pool, void *start, size_t bytes)
{
	uint32_t chunk;
	unsigned i;
	if (pool->observer) return -EROFS;
	hp_off off = (hp_off)((uintptr_t)start - (uintptr_t)pool->base);
	int error = locate(pool, off, &chunk, &i);
	if (error < 0) return error;
	if (bytes & (HP_PAGE_SIZE - 1)) return -EINVAL;
	/* the block it lies in: headed in this chunk, or reaching in from before */
	int head = parity_head_of(&pool->units[chunk], pool->chunk_pages, i);
	uint32_t first = chunk;
	if (head < 0) {
		if (i >= page_prefix(pool, chunk)) return -ENOENT;
		uint64_t cover = atomic_load_explicit(&pool->chunks[chunk].cover, memory_order_acquire);
		first = (uint32_t)(cover >> 32) - 1;
		head = (int)(cover & 0xffff);
		if (first >= chunk || (unsigned)head >= pool->chunk_pages) return -ENOENT;
	}
	uint64_t begin = ((uint64_t)first * pool->chunk_pages + (unsigned)head) * HP_PAGE_SIZE;
	uint64_t size = page_run(pool, first, (unsigned)head) * HP_PAGE_SIZE;
	if (off - begin > size || bytes > size - (off - begin)) return -ENOENT;
	backing_zero(start, bytes);
	return 0;
}
