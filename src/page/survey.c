/* Finding a run beyond what the thread owns: in one chunk, or over any number of neighbouring ones.
 *
 * There is one mechanism for both: own every chunk that the run touches (ascending, so that of two who want the same ones
 * the later gives up), look again under ownership, write what belongs to the run, flip the head's bit. Until that flip
 * nothing has happened; a maker that fails or dies leaves ownership only, which goes back like any other. The chunks after
 * the first are told by `cover` where the head is, and believe it only while that head is live and long enough; so
 * freeing a run of any length is the flip of one bit and writes nothing into the chunks it covered. */
#include "page/page.h"
#include "pool/layers.h"
#include "pool/recover.h"

#define TAKE_BATCH 64

struct reach {
	uint32_t first, last; /* chunks */
	unsigned head;        /* page in the first chunk */
	uint64_t pages;
};

static struct reach reach_of(const hp_pool *pool, uint64_t start, uint64_t pages)
{
	uint32_t cp = pool->chunk_pages;
	return (struct reach){.first = (uint32_t)(start / cp),
	                      .last = (uint32_t)((start + pages - 1) / cp),
	                      .head = (unsigned)(start % cp),
	                      .pages = pages};
}

/* The part of chunk i that the run wants: [*from, returned). */
static unsigned reach_in(const hp_pool *pool, const struct reach *run, uint32_t i, unsigned *from)
{
	uint64_t cp = pool->chunk_pages, end = (run->first * cp + run->head + run->pages) - i * cp;
	*from = i == run->first ? run->head : 0;
	return end < cp ? (unsigned)end : (unsigned)cp;
}

static bool owned_by(const hp_pool *pool, uint32_t who, uint32_t chunk, uint64_t *ctl)
{
	*ctl = atomic_load_explicit(&pool->chunks[chunk].ctl, memory_order_acquire);
	return ctl_state(*ctl) == CTL_OWNED && ctl_who(*ctl) == who;
}

/* Gives back what the run made us own, except what lies in the thread's own places. */
static void release_reach(struct participant *me, const struct reach *run)
{
	for (uint32_t i = run->first; i <= run->last; i++)
		if (!page_find_owned(me, i)) page_release(me->pool, me->who, i);
}

/* A chunk that the thread holds for its other class changes sides only by way of nobody. */
static void give_back_other_class(struct participant *me, const struct page_want *want, uint32_t chunk)
{
	struct page_owned *owned = page_find_owned(me, chunk);
	if (!owned || (owned == &page_state(me)->own[PAGE_PROCESS]) == want->process) return;
	participant_begin(me);
	if (owned->chunk1 == chunk + 1) page_give_back(me, owned);
	participant_end(me);
}

/* Owns all chunks of the run, or none more than before. *obstacle: the chunk that could not be had. */
static bool own_reach(struct participant *me, const struct page_want *want, const struct reach *run, uint32_t rereads,
                      bool take, unsigned *skipped, uint32_t *obstacle)
{
	hp_pool *pool = me->pool;
	for (uint32_t i = run->first; i <= run->last; i++) {
		uint64_t ctl;
		give_back_other_class(me, want, i);
		bool got = owned_by(pool, me->who, i, &ctl) ? page_keep(me, i, want->process, rereads)
		                                            : page_adopt(me, i, want->process, &ctl);
		if (got) continue;
		if (take && ctl_state(ctl) == CTL_OWNED && ctl_who(ctl) != me->who) {
			/* list what else the run needs of live owners, so that one barrier serves for many */
			struct take_want list[TAKE_BATCH];
			bool mine[TAKE_BATCH];
			unsigned count = 0;
			for (uint32_t k = i; k <= run->last && count < TAKE_BATCH; k++) {
				uint64_t word = k == i ? ctl : atomic_load_explicit(&pool->chunks[k].ctl, memory_order_acquire);
				if (ctl_state(word) == CTL_OWNED && ctl_who(word) != me->who)
					list[count++] = (struct take_want){.ctl = &pool->chunks[k].ctl, .seen = word};
			}
			take_units(me, list, count, mine, skipped);
			got = mine[0];
			for (unsigned k = 0; k < count; k++) {
				uint32_t chunk = (uint32_t)((struct pool_chunk *)(void *)list[k].ctl - pool->chunks);
				/* its owner may have put blocks of class PROCESS into it since we looked: back it goes */
				if (mine[k] && !page_keep(me, chunk, want->process, rereads)) {
					page_release(pool, me->who, chunk);
					if (k == 0) got = false;
				}
			}
		} else if (ctl_state(ctl) == CTL_UNOWNED) {
			got = page_adopt(me, i, want->process, &ctl); /* given back between the two looks */
		}
		if (!got) {
			*obstacle = i;
			struct reach part = *run;
			part.last = run->last; /* a batch may have brought chunks behind the obstacle */
			release_reach(me, &part);
			return false;
		}
	}
	return true;
}

/* Owning all of it: is it really free? If so the run becomes live. Returns its first page or -1. */
static int64_t commit_reach(struct participant *me, const struct page_want *want, const struct reach *run,
                            uint32_t rereads, uint32_t *obstacle)
{
	hp_pool *pool = me->pool;
	struct parity_view view;
	uint64_t ctl, first_ctl = 0, others = 0, tag = want->process ? page_tag(pool) : 0;
	int64_t page = -1;
	*obstacle = run->first;
	participant_begin(me);
	if (me->rereads != rereads) goto end;                 /* a taker may be moving what we own: begin again */
	for (uint32_t i = run->last + 1; i-- > run->first;) { /* descending: the view left over is the first chunk's */
		unsigned from, to = reach_in(pool, run, i, &from);
		*obstacle = i;
		if (!owned_by(pool, me->who, i, &ctl)) goto end;
		if (atomic_load_explicit(&pool->chunks[i].tag, memory_order_relaxed) != tag) goto end;
		others = page_others(pool, i);
		page_view(pool, i, &view);
		struct parity_view rest = view;
		parity_view_take(&rest, from, to - from);
		if (parity_view_count(&view) - parity_view_count(&rest) != to - from) goto end;
		first_ctl = ctl;
	}
	if (run->last == run->first) {
		/* the chunk stays with us as the active one */
		struct page_owned *owned = page_find_owned(me, run->first);
		if (owned)
			owned->view = view;
		else
			page_install(me, run->first, first_ctl, others, &view, want->process);
		owned = page_find_owned(me, run->first);
		if (want->prepare) want->prepare(me, want, (uint64_t)run->first * pool->chunk_pages + run->head);
		parity_allocate_local(&pool->units[run->first], run->head, (unsigned)run->pages | want->type);
		parity_view_take(&owned->view, run->head, (unsigned)run->pages);
	} else {
		for (uint32_t i = run->first + 1; i <= run->last; i++)
			atomic_store_explicit(&pool->chunks[i].cover, (uint64_t)(run->first + 1) << 32 | run->head,
			                      memory_order_relaxed);
		atomic_store_explicit(&pool->chunks[run->first].span, run->pages, memory_order_relaxed);
		if (want->prepare) want->prepare(me, want, (uint64_t)run->first * pool->chunk_pages + run->head);
		/* commit, in here: all covers and the span are written, no chunk of the run is anybody else's */
		parity_allocate_local(&pool->units[run->first], run->head,
		                      (pool->chunk_pages - run->head) | want->type | PARITY_LEN_SPANS);
		for (uint32_t i = run->first; i <= run->last; i++) {
			struct page_owned *owned = page_find_owned(me, i);
			if (owned) page_view(pool, i, &owned->view);
		}
	}
	page = (int64_t)((uint64_t)run->first * pool->chunk_pages + run->head);
end:
	participant_end(me);
	return page;
}

/* `rereads`: as it was before any chunk of the run became ours, so that news of a taker since then is not overlooked,
 * whoever (a signal handler on this thread) has met it. */
static int64_t make_run(struct participant *me, const struct page_want *want, uint64_t start, uint32_t rereads,
                        bool take, unsigned *skipped, uint32_t *obstacle)
{
	struct reach run = reach_of(me->pool, start, want->pages);
	if (!own_reach(me, want, &run, rereads, take, skipped, obstacle)) return -1;
	int64_t page = commit_reach(me, want, &run, rereads, obstacle);
	release_reach(me, &run);
	return page;
}

int64_t page_from_chunk(struct participant *me, uint32_t chunk, const struct page_want *want)
{
	hp_pool *pool = me->pool;
	uint64_t ctl;
	uint32_t rereads = me->rereads;
	if (!page_adopt(me, chunk, want->process, &ctl)) return -1;
	struct parity_view view;
	page_view(pool, chunk, &view);
	int i = page_place(want, &view);
	if (i < 0) {
		page_release(pool, me->who, chunk); /* the hint was wrong, and is right now */
		return -1;
	}
	unsigned skipped = 0;
	uint32_t obstacle;
	return make_run(me, want, (uint64_t)chunk * pool->chunk_pages + (unsigned)i, rereads, false, &skipped, &obstacle);
}

/* Could the chunk be ours, by what can be seen from here? */
static bool usable(struct participant *me, const struct page_want *want, uint32_t chunk, uint64_t ctl, bool take)
{
	hp_pool *pool = me->pool;
	bool state = ctl_state(ctl) == CTL_UNOWNED || (ctl_state(ctl) == CTL_OWNED && (take || ctl_who(ctl) == me->who));
	if (!state || !page_node_fits(pool, chunk, want->node)) return false;
	uint64_t tag = atomic_load_explicit(&pool->chunks[chunk].tag, memory_order_acquire);
	return tag == (want->process ? page_tag(pool) : 0) || parity_no_heads(&pool->units[chunk], pool->chunk_pages);
}

/* The first page from there on whose address is aligned. */
static uint64_t aligned_up(const hp_pool *pool, uint64_t page, uint64_t align)
{
	if (align <= 1) return page;
	uint64_t base = (uintptr_t)pool->base / HP_PAGE_SIZE;
	return ((base + page + align - 1) & ~(align - 1)) - base;
}

int64_t page_survey(struct participant *me, const struct page_want *want, bool take, unsigned *skipped,
                    uint64_t *versions)
{
	hp_pool *pool = me->pool;
	uint32_t top = pool_top(pool), cp = pool->chunk_pages;
	uint64_t carry = 0; /* free pages right before chunk i */
	for (uint32_t i = 0; i < top; i++) {
		uint64_t ctl = atomic_load_explicit(&pool->chunks[i].ctl, memory_order_acquire);
		*versions = (*versions ^ ctl) * UINT64_C(0x100000001b3);
		if (ctl_state(ctl) == CTL_UNOWNED && page_chunk_over(pool, i, atomic_load(&pool->chunks[i].tag))) {
			page_recover_chunk(pool, i, ctl);
			ctl = atomic_load_explicit(&pool->chunks[i].ctl, memory_order_acquire);
		}
		if (!usable(me, want, i, ctl, take)) {
			carry = 0;
			continue;
		}
		if (parity_count_heads(&pool->units[i], cp) == cp) { /* single pages, all taken */
			carry = 0;
			continue;
		}
		struct parity_view view;
		page_view(pool, i, &view);
		/* what single frees could not know: that together they made longer runs */
		if (ctl_state(ctl) == CTL_UNOWNED)
			atomic_store_explicit(&pool->hints[i], page_hint(parity_view_longest(&view)), memory_order_relaxed);
		uint64_t start;
		int at;
		uint64_t room = aligned_up(pool, (uint64_t)i * cp - carry, want->align);
		if (room + want->pages <= (uint64_t)i * cp + parity_view_prefix(&view) && !page_in_one_chunk(pool, want))
			start = room;
		else if (want->pages <= cp && want->align <= cp && (at = page_place(want, &view)) >= 0)
			start = (uint64_t)i * cp + (unsigned)at;
		else {
			unsigned suffix = parity_view_suffix(&view);
			carry = suffix == cp ? carry + cp : suffix;
			continue;
		}
		uint32_t obstacle = i;
		int64_t page = make_run(me, want, start, me->rereads, take, skipped, &obstacle);
		if (page >= 0) return page;
		++*skipped; /* there was something, and somebody was quicker */
		/* go on behind what was in the way; what lies before it has been looked at */
		carry = 0;
		if (obstacle < i) i = obstacle; /* the loop steps over it */
	}
	return -1;
}
