/* Finding a slab with free objects. The order: the rest of the current slab, the thread's list, what the summary names (the
 * thread's own slabs into which others have freed, and those of nobody), a new slab, and when no pages are left every slab
 * there is, also those of owners that do not use them. */
#include "slab/internal.h"
#include "os/os.h"
#include <errno.h>

#define SHORT_ROUNDS 4 /* where memory is short: the page layer has its own patience */
#define ROUNDS \
	256 /* before giving up on owners that are always busy, and on slabs that others are always quicker to take */

struct wanted {
	struct participant *me;
	unsigned class;
	uint32_t size;
	unsigned run; /* so many contiguous objects, as one; 0: something for the magazine */
	char *first;  /* of them, once they are taken */
	bool take, others, found;
	unsigned skipped, moved;
	uint64_t out, print; /* objects that were met and cannot be had, and which state of theirs */
	struct take_want *list;
	uint32_t *page;
	unsigned count;
};

static void not_to_be_had(struct wanted *want, const struct slab *slab, uint32_t page)
{
	uint64_t print = want->print + page;
	for (unsigned w = 0; w < SLAB_WORDS; w++) {
		print = print * UINT64_C(0x9e3779b97f4a7c15) ^ atomic_load_explicit(&slab->a[w], memory_order_acquire);
		print = print * UINT64_C(0x9e3779b97f4a7c15) ^ atomic_load_explicit(&slab->r[w], memory_order_acquire);
		print ^= print >> 32;
	}
	want->print = print;
	want->out += slab_objects(slab);
}

/* Inside an operation: a run of n objects in one word of a slab of ours, which no magazine holds. */
static char *take_run(struct participant *me, struct slab *slab, unsigned class, unsigned n)
{
	uint32_t size = me->pool->classes[class].size;
	unsigned objects = slab_objects(slab);
	char *start = slab_start(me->pool, slab, objects, size);
	for (unsigned w = 0; w * 64 < objects; w++) {
		uint64_t runs = parity_runs(slab_free_in(me->pool, slab, w, objects), n);
		if (!runs || unlikely(!start)) continue;
		unsigned bit = (unsigned)__builtin_ctzll(runs);
		uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_relaxed);
		/* commit: all of them */
		atomic_store_explicit(&slab->a[w], a ^ parity_mask(bit, n), memory_order_release);
		return start + (uint64_t)(w * 64 + bit) * size;
	}
	return NULL;
}

/* Has it what is wanted? */
static bool has_wanted(const struct wanted *want, const struct slab *slab)
{
	unsigned objects = slab_objects(slab);
	if (!want->run) return slab_has_free(want->me->pool, slab);
	for (unsigned w = 0; w * 64 < objects; w++)
		if (parity_runs(slab_free_in(want->me->pool, slab, w, objects), want->run)) return true;
	return false;
}

/* Inside an operation, slab owned. */
static bool take_from(struct wanted *want, struct slab *slab)
{
	struct participant *me = want->me;
	if (want->run) {
		slab_empty_magazine(me, want->class); /* a run must have no object in it */
		want->first = take_run(me, slab, want->class, want->run);
		slab_list(me, slab, want->class);
		return want->first != NULL;
	}
	/* a signal handler may have filled the magazine meanwhile, perhaps from this very slab */
	bool found = slab_has_any(slab_state(me), want->class) || slab_load(me, want->class, slab, want->size);
	if (!found)
		slab_drop_current(me, want->class);
	else
		slab_list(me, slab, want->class);
	return found;
}

static int try_slab(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct wanted *want = arg;
	struct participant *me = want->me;
	/* first: what is read after it is true of the slab that is adopted at this word, and not of one that was here before */
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (atomic_load_explicit(&slab->class, memory_order_relaxed) != want->class) return 0;
	/* objects of class PROCESS are no other process' */
	bool barred = pool->classes[want->class].process &&
	              atomic_load_explicit(&pool->chunks[page >> pool->page_shift_chunk].tag, memory_order_acquire) !=
	                  page_tag(pool);
	if (barred || !has_wanted(want, slab)) {
		not_to_be_had(want, slab, page);
		/* what is free there is for others: the summary has to go on naming it */
		want->others |= want->run && slab_has_free(pool, slab);
		return 0;
	}
	if (ctl_state(seen) == CTL_OWNED && ctl_who(seen) != me->who) {
		want->others = true;
		if (want->take && want->count < SLAB_TAKES) {
			want->page[want->count] = page;
			want->list[want->count++] = (struct take_want){.ctl = &slab->ctl, .seen = seen};
		}
		return 0;
	}
	if (ctl_state(seen) != CTL_OWNED && ctl_state(seen) != CTL_UNOWNED) {
		want->skipped++; /* being made, or ended */
		return 0;
	}
	if (pool->classes[want->class].cache &&
	    !cache_place_fits(pool, want->class, slab_place(slab),
	                      atomic_load_explicit(&slab->objects, memory_order_relaxed))) {
		want->skipped++; /* about to get a place, or to end: the limit is new */
		return 0;
	}
	participant_begin(me);
	bool mine = slab_is_mine(me, slab);
	if (!mine && ctl_state(seen) == CTL_UNOWNED) {
		uint64_t ours = ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, seen);
		/* commit: the slab is ours */
		mine = atomic_compare_exchange_strong_explicit(&slab->ctl, &seen, ours, memory_order_acq_rel,
		                                               memory_order_relaxed);
		if (mine) slab_count_owned(pool, slab_state(me), want->class, slab, 1);
	}
	if (mine) want->found = take_from(want, slab);
	participant_end(me);
	want->skipped += !want->found; /* it had something free, which another was quicker to take */
	return want->found;
}

/* Slabs that the summary names, beginning where the thread found something last. */
static bool from_summary(struct wanted *want)
{
	struct participant *me = want->me;
	hp_pool *pool = me->pool;
	uint32_t top = pool_top(pool), *cursor = &slab_state(me)->cursor[want->class];
	uint64_t bit = UINT64_C(1) << (want->class & 63);
	bool others = false;
	uint8_t *wait = &slab_state(me)->wait[want->class], *waited = &slab_state(me)->waited[want->class];
	if (*wait && --*wait) return false;
	for (uint32_t k = 0, at = *cursor < top ? *cursor : 0; k < top; k++, at = at + 1 < top ? at + 1 : 0) {
		if (!(atomic_load_explicit(&pool->summary[at], memory_order_relaxed) & bit)) continue;
		/* cleared before looking: what is noted meanwhile stays noted */
		atomic_fetch_and_explicit(&pool->summary[at], ~bit, memory_order_relaxed);
		want->others = false;
		bool found = slab_visit_all(pool, at, at + 1, try_slab, want);
		if (found || want->others) atomic_fetch_or_explicit(&pool->summary[at], bit, memory_order_relaxed);
		if (found) {
			*cursor = at;
			*wait = *waited = 0;
			return true;
		}
		others |= want->others;
	}
	/* what is there is others': each search that finds nothing else makes the next one rarer */
	*wait = *waited = others ? (*waited < 16 ? (uint8_t)(*waited * 2 + 1) : 31) : 0;
	return false;
}

/* Every slab there is, also those of live owners outside of an operation. */
static bool from_anywhere(struct wanted *want)
{
	hp_pool *pool = want->me->pool;
	struct take_want list[SLAB_TAKES];
	uint32_t page[SLAB_TAKES];
	bool mine[SLAB_TAKES];
	want->take = true;
	want->skipped = want->moved = 0;
	want->out = want->print = 0;
	want->list = list;
	want->page = page;
	want->count = 0;
	if (slab_visit_all(pool, 0, pool_top(pool), try_slab, want)) return true;
	if (!want->count) return false;
	take_units(want->me, list, want->count, mine, &want->skipped);
	for (unsigned k = 0; k < want->count; k++) {
		if (!mine[k]) continue;
		want->moved++;
		uint64_t ours = ctl_make(CTL_OWNED, want->me->who >> 16, want->me->who & 0xffff, list[k].seen);
		slab_release(pool, &pool->slabs[page[k]], page[k], ours, true);
	}
	want->take = false;
	return slab_visit_all(pool, 0, pool_top(pool), try_slab, want);
}

/* What the thread has at hand, or in its list. */
static bool from_own(struct wanted *want)
{
	struct participant *me = want->me;
	unsigned class = want->class;
	participant_begin(me);
	if (!want->run) {
		want->found = slab_has_any(slab_state(me), class) || slab_refill_own(me, class);
	} else {
		slab_empty_magazine(me, class); /* a run must have no object in it */
		struct slab *current = slab_state(me)->current[class];
		want->first = current ? take_run(me, current, class, want->run) : NULL;
		uint32_t at = slab_state(me)->list[class];
		for (uint32_t steps = 0; at && !want->first && steps < slab_page_limit(me->pool); steps++) {
			struct slab *slab = &me->pool->slabs[at - 1];
			if (!slab_is_mine(me, slab) || slab->class != class) break;
			want->first = take_run(me, slab, class, want->run);
			at = slab_next(me->pool, slab);
		}
		want->found = want->first != NULL;
	}
	participant_end(me);
	return want->found;
}

/* A new slab, and what is wanted from it. The last one that a limit allows may be too small for a run. */
static int from_new(struct wanted *want)
{
	int error = slab_make(want->me, want->class, want->run != 0);
	return error == 0 && want->run && !from_own(want) ? -EAGAIN : error;
}

/* Owners in the middle of an operation go on, or come to. A refusal at a limit while one of them was merely not running would be
 * wrong, so it comes after some 20 ms of that; and they need the processor, which yielding alone does not always give them. */
static void let_run(unsigned round)
{
	static _Atomic uint32_t nothing;
	if (round < 32)
		os_yield();
	else
		os_futex_wait(&nothing, 0, 50000);
}

static int search(struct wanted *want)
{
	struct participant *me = want->me;
	hp_pool *pool = me->pool;
	struct pool_cache *cache = pool->classes[want->class].cache;
	if (from_own(want) || from_summary(want)) return 0;
	int error = from_new(want);
	if (error == 0 || (error != -ENOMEM && error != -EAGAIN)) return error;
	/* empty slabs of other classes are pages, too */
	if (error == -ENOMEM) slab_purge(me, SLAB_CLASSES);
	uint64_t print = 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		if (round && cache) atomic_fetch_add_explicit(&cache->retries, 1, memory_order_relaxed);
		/* at the limit: nobody takes from the dead, and they may have died inside an operation (page_search knows) */
		if (error == -EAGAIN && round % 16 == 2) recover_dead(pool);
		if (round && (error = from_new(want)) == 0) return 0;
		if (error != -ENOMEM && error != -EAGAIN) return error;
		if (from_anywhere(want)) return 0;
		/* two looks at the same are one look at all of it; what it does not show is about to be somewhere */
		bool moving = error == -EAGAIN && (want->print != print || !cache_place_all(pool, want->class, want->out));
		print = want->print;
		/* what was moved without an object in it has ended, so that there is room for another */
		if (!want->skipped && !want->moved && !moving && round >= (error == -EAGAIN ? 2 : 1)) break;
		if (error == -ENOMEM && round >= SHORT_ROUNDS) break;
		if (!want->moved && (want->skipped || moving)) let_run(round);
	}
	return error;
}

int slab_refill(struct participant *me, unsigned class)
{
	struct wanted want = {.me = me, .class = class, .size = me->pool->classes[class].size};
	return search(&want);
}

int slab_take_run(struct participant *me, unsigned class, unsigned n, char **first)
{
	struct wanted want = {.me = me, .class = class, .size = me->pool->classes[class].size, .run = n};
	int error = search(&want);
	*first = want.first;
	return error;
}
