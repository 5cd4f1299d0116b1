/* Who owns a chunk: adopting, giving back, looking again, recovering.
 *
 * Class PROCESS: a chunk whose tag names a process record holds blocks of that process only. A chunk changes its tag only
 * when it holds no blocks, by its owner. So a chunk tagged by a record that is over holds nothing that anybody may
 * still use: whoever adopts it frees what is in it. */
#include "page/page.h"
#include "pool/layers.h"
#include "pool/record.h"

static struct pool_chunk *chunk_of(const hp_pool *pool, uint32_t chunk)
{
	return &pool->chunks[chunk];
}

unsigned page_prefix(const hp_pool *pool, uint32_t chunk)
{
	uint64_t cover = atomic_load_explicit(&chunk_of(pool, chunk)->cover, memory_order_acquire);
	if (!cover) return 0;
	uint32_t head = (uint32_t)(cover >> 32) - 1;
	unsigned i = (unsigned)(cover & 0xffff);
	if (head >= chunk || i >= pool->chunk_pages) return 0;
	/* Liveness first, then length: a length newer than the liveness can only belong to a run made after the one that was
	 * live was freed, and no run made since can reach into a chunk that its maker did not own. */
	uint64_t run = page_run(pool, head, i);
	uint64_t end = (uint64_t)head * pool->chunk_pages + i + run, start = (uint64_t)chunk * pool->chunk_pages;
	if (end <= start) return 0;
	return end - start < pool->chunk_pages ? (unsigned)(end - start) : pool->chunk_pages;
}

uint64_t page_run(const hp_pool *pool, uint32_t chunk, unsigned i)
{
	const struct parity_unit *unit = &pool->units[chunk];
	if (!parity_live(unit, i)) return 0;
	unsigned len = atomic_load_explicit(&unit->len[i], memory_order_acquire);
	if (!(len & PARITY_LEN_SPANS)) return parity_len(len, i, pool->chunk_pages);
	uint64_t span = atomic_load_explicit(&chunk_of(pool, chunk)->span, memory_order_acquire);
	uint64_t room = (uint64_t)(pool->chunk_count - chunk) * pool->chunk_pages - i;
	return span < room ? span : room;
}

void page_view(const hp_pool *pool, uint32_t chunk, struct parity_view *view)
{
	parity_view_rebuild(&pool->units[chunk], pool->chunk_pages, page_prefix(pool, chunk), view);
}

bool page_chunk_free(const hp_pool *pool, uint32_t chunk)
{
	return parity_no_heads(&pool->units[chunk], pool->chunk_pages) && page_prefix(pool, chunk) == 0;
}

uint64_t page_others(const hp_pool *pool, uint32_t chunk)
{
	const struct parity_unit *unit = &pool->units[chunk];
	uint64_t sum = 0;
	for (unsigned w = 0; w < pool->chunk_pages / 64; w++)
		sum = (sum + atomic_load_explicit(&unit->r[w], memory_order_acquire)) * UINT64_C(0x9e3779b97f4a7c15);
	return sum;
}

bool page_chunk_over(const hp_pool *pool, uint32_t chunk, uint64_t tag)
{
	return tag && record_is_over(pool, (uint32_t)(tag >> 32) - 1, (uint32_t)tag) && !page_chunk_lent(pool, chunk);
}

/* May a chunk with this tag be used for that class? Only if it holds nothing of another class or process. */
static bool tag_fits(const hp_pool *pool, uint32_t chunk, bool process)
{
	uint64_t tag = atomic_load_explicit(&chunk_of(pool, chunk)->tag, memory_order_acquire);
	return tag == (process ? page_tag(pool) : 0) || page_chunk_over(pool, chunk, tag) ||
	       parity_no_heads(&pool->units[chunk], pool->chunk_pages);
}

void page_wipe(hp_pool *pool, uint32_t chunk)
{
	pool_map *map = &pool->map[(uint64_t)chunk * pool->chunk_pages];
	for (unsigned i = 0; i < pool->chunk_pages; i++) atomic_store_explicit(&map[i], 0, memory_order_relaxed);
	parity_free_all(&pool->units[chunk]);
}

bool page_tag_settle(struct participant *me, uint32_t chunk, bool process)
{
	hp_pool *pool = me->pool;
	_Atomic uint64_t *tag = &chunk_of(pool, chunk)->tag;
	uint64_t old = atomic_load_explicit(tag, memory_order_acquire), want = process ? page_tag(pool) : 0;
	if (old == want) return true;
	if (!parity_no_heads(&pool->units[chunk], pool->chunk_pages)) {
		if (!page_chunk_over(pool, chunk, old)) return false;
		page_wipe(pool, chunk); /* before the tag: if we die in between, the next does it again */
	}
	atomic_store_explicit(tag, want, memory_order_release);
	return true;
}

bool page_adopt(struct participant *me, uint32_t chunk, bool process, uint64_t *ctl)
{
	hp_pool *pool = me->pool;
	_Atomic uint64_t *word = &chunk_of(pool, chunk)->ctl;
	/* An operation around the swap and the tag: nobody takes the chunk from us between the two. */
	participant_begin(me);
	/* The word is read before the tag and the heads: a swap that succeeds says that nobody owned the chunk in between,
	 * so heads can only have become fewer. */
	uint64_t old = atomic_load_explicit(word, memory_order_acquire);
	bool got = ctl_state(old) == CTL_UNOWNED && tag_fits(pool, chunk, process);
	uint64_t mine = ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, old);
	/* commit: the chunk is ours */
	got = got && atomic_compare_exchange_strong_explicit(word, &old, mine, memory_order_acq_rel, memory_order_relaxed);
	bool fits = got && page_tag_settle(me, chunk, process);
	participant_end(me);
	*ctl = got ? mine : old;
	if (got && !fits) page_release(pool, me->who, chunk);
	return fits;
}

bool page_keep(struct participant *me, uint32_t chunk, bool process, uint32_t rereads)
{
	participant_begin(me);
	uint64_t ctl = atomic_load_explicit(&chunk_of(me->pool, chunk)->ctl, memory_order_acquire);
	/* news of a taker since the chunk became ours: it may be moving the chunk this very moment */
	bool mine = me->rereads == rereads && ctl_state(ctl) == CTL_OWNED && ctl_who(ctl) == me->who &&
	            page_tag_settle(me, chunk, process);
	participant_end(me);
	return mine;
}

/* With the hint brought up to date. Somebody may have taken it meanwhile: then it is not ours to release. */
void page_release(hp_pool *pool, uint32_t who, uint32_t chunk)
{
	_Atomic uint64_t *word = &chunk_of(pool, chunk)->ctl;
	uint64_t old = atomic_load_explicit(word, memory_order_acquire);
	if (ctl_state(old) != CTL_OWNED || ctl_who(old) != who) return;
	struct parity_view view;
	page_view(pool, chunk, &view);
	atomic_store_explicit(&pool->hints[chunk], page_hint(parity_view_longest(&view)), memory_order_relaxed);
	uint64_t nobody = ctl_make(CTL_UNOWNED, 0, 0, old);
	/* seq_cst, here and where a record ends: either we see that it is over or its recoverer sees the chunk */
	if (!atomic_compare_exchange_strong(word, &old, nobody)) return;
	/* A process whose blocks are in it may have died, and been recovered, while it was not to be had. */
	if (page_chunk_over(pool, chunk, atomic_load_explicit(&chunk_of(pool, chunk)->tag, memory_order_acquire)))
		page_recover_chunk(pool, chunk, nobody);
}

bool page_refresh(struct participant *me, struct page_owned *owned)
{
	hp_pool *pool = me->pool;
	uint32_t chunk = owned->chunk1 - 1;
	uint64_t now = page_others(pool, chunk);
	if (now == owned->others && !atomic_load_explicit(&chunk_of(pool, chunk)->cover, memory_order_relaxed))
		return false;
	owned->others = now;
	page_view(pool, chunk, &owned->view);
	return true;
}

static void forget(struct page_owned *owned)
{
	*owned = (struct page_owned){0};
}

void page_give_back(struct participant *me, struct page_owned *owned)
{
	if (!owned->chunk1) return;
	hp_pool *pool = me->pool;
	uint32_t chunk = owned->chunk1 - 1;
	page_refresh(me, owned);
	atomic_store_explicit(&pool->hints[chunk], page_hint(parity_view_longest(&owned->view)), memory_order_relaxed);
	uint64_t old = owned->ctl;
	forget(owned);
	/* commit: anybody's. Fails when it was taken from us: then it is another's already. */
	atomic_compare_exchange_strong_explicit(&chunk_of(pool, chunk)->ctl, &old, ctl_make(CTL_UNOWNED, 0, 0, old),
	                                        memory_order_acq_rel, memory_order_relaxed);
}

struct page_owned *page_find_owned(struct participant *me, uint32_t chunk)
{
	struct page_state *state = page_state(me);
	for (unsigned k = 0; k < PAGE_OWNED; k++)
		if (state->own[k].chunk1 == chunk + 1) return &state->own[k];
	return NULL;
}

void page_install(struct participant *me, uint32_t chunk, uint64_t ctl, uint64_t others, const struct parity_view *view,
                  bool process)
{
	struct page_state *state = page_state(me);
	struct page_owned *place = &state->own[process ? PAGE_PROCESS : PAGE_ACTIVE];
	if (process) {
		page_give_back(me, place);
	} else if (place->chunk1) {
		page_give_back(me, &state->own[PAGE_SPARE]);
		state->own[PAGE_SPARE] = *place;
	}
	place->others = others;
	place->bytes = (uint32_t)pool_chunk_bytes(me->pool);
	place->start = me->pool->base + (uint64_t)chunk * place->bytes;
	place->unit = &me->pool->units[chunk];
	place->chunk1 = chunk + 1;
	place->ctl = ctl;
	place->view = *view;
}

/* ---- what the pool asks ---- */

static void reread(struct participant *me, bool marked)
{
	struct page_state *state = page_state(me);
	for (unsigned k = 0; k < PAGE_OWNED; k++) {
		struct page_owned *owned = &state->own[k];
		if (!owned->chunk1) continue;
		/* A taker is at work: give back what it may want and compete for it like anybody. Else keep what is still ours. */
		if (marked)
			page_give_back(me, owned);
		else if (atomic_load_explicit(&chunk_of(me->pool, owned->chunk1 - 1)->ctl, memory_order_acquire) != owned->ctl)
			forget(owned);
	}
}

static void recover_slot_chunks(hp_pool *pool, uint32_t who)
{
	uint32_t top = pool_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		uint64_t ctl = atomic_load_explicit(&chunk_of(pool, i)->ctl, memory_order_acquire);
		if (ctl_state(ctl) == CTL_OWNED && ctl_who(ctl) == who) page_release(pool, who, i);
	}
}

/* Frees all of a chunk of a dead process: claimed for the record that recovers, because that may have no slot. */
void page_recover_chunk(hp_pool *pool, uint32_t chunk, uint64_t ctl)
{
	_Atomic uint64_t *word = &chunk_of(pool, chunk)->ctl;
	uint64_t mine = ctl_make(CTL_RECOVERING, pool->record + 1, pool->record_generation, ctl);
	if (!atomic_compare_exchange_strong_explicit(word, &ctl, mine, memory_order_acq_rel, memory_order_relaxed)) return;
	page_wipe(pool, chunk); /* absolute: a recoverer that dies is repeated */
	atomic_store_explicit(&chunk_of(pool, chunk)->tag, 0, memory_order_release);
	page_hint_raise(pool, chunk, pool->chunk_pages - page_prefix(pool, chunk));
	/* commit: the chunk can be owned again */
	atomic_compare_exchange_strong_explicit(word, &mine, ctl_make(CTL_UNOWNED, 0, 0, mine), memory_order_acq_rel,
	                                        memory_order_relaxed);
}

static void recover_record_chunks(hp_pool *pool, uint32_t record, uint32_t generation)
{
	uint64_t tag = (uint64_t)(record + 1) << 32 | (generation & RECORD_GENERATIONS);
	uint32_t who = who_make(record, generation), top = pool_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		uint64_t ctl = atomic_load_explicit(&chunk_of(pool, i)->ctl, memory_order_acquire);
		/* left half-way by the record when it was recovering another: what it claimed was a dead one's */
		bool half = ctl_state(ctl) == CTL_RECOVERING && ctl_who(ctl) == who;
		/* owned by somebody alive: that one took it when it held nothing, and will change the tag */
		bool its = ctl_state(ctl) == CTL_UNOWNED &&
		           atomic_load_explicit(&chunk_of(pool, i)->tag, memory_order_acquire) == tag;
		/* what the kernel may still write to stays until its ring is gone; then whoever meets the chunk frees it */
		if (half || (its && !page_chunk_lent(pool, i))) page_recover_chunk(pool, i, ctl);
	}
}

void page_recover_over(hp_pool *pool)
{
	for (uint32_t i = 0, top = pool_top(pool); i < top; i++) {
		uint64_t ctl = atomic_load_explicit(&chunk_of(pool, i)->ctl, memory_order_acquire);
		if (ctl_state(ctl) == CTL_UNOWNED &&
		    page_chunk_over(pool, i, atomic_load_explicit(&chunk_of(pool, i)->tag, memory_order_acquire)))
			page_recover_chunk(pool, i, ctl);
	}
}

const struct pool_layer page_layer = {
	.reread = reread, .recover_slot = recover_slot_chunks, .recover_record = recover_record_chunks};
