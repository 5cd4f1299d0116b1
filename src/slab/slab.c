/* Slabs: making and ending them, and finding one with free objects.
 *
 * The order of the search: the rest of the current slab, the thread's list, what the summary names (the thread's own
 * slabs into which others have freed, and those of nobody), a new slab, and when no pages are left every slab there is,
 * also those of owners that do not use them. */
#include "slab/slab.h"
#include "page/page.h"
#include "pool/layers.h"
#include "pool/recover.h"
#include "os/os.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define KEEP_PAGES 16u   /* in slabs without objects that a thread keeps of a class, */
#define UNTIDY_PAGES 64u /* once it has had so many */

/* ---- one slab ---- */

static unsigned objects_of(const struct slab *slab)
{
	unsigned objects = atomic_load_explicit(&slab->objects, memory_order_relaxed);
	return objects < SLAB_OBJECTS ? objects : SLAB_OBJECTS;
}

/* Objects of word w that are free; exact for the owner inside an operation. */
static uint64_t free_in(const struct slab *slab, unsigned w, unsigned objects)
{
	if (objects <= w * 64) return 0;
	uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_acquire);
	uint64_t live = a ^ atomic_load_explicit(&slab->r[w], memory_order_acquire);
	return ~live & (objects - w * 64 >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << (objects - w * 64)) - 1);
}

static bool has_free(const struct slab *slab)
{
	unsigned objects = objects_of(slab);
	for (unsigned w = 0; w < SLAB_WORDS; w++)
		if (free_in(slab, w, objects)) return true;
	return false;
}

static bool is_empty(const struct slab *slab)
{
	uint64_t live = 0;
	for (unsigned w = 0; w < SLAB_WORDS; w++) {
		uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_acquire);
		live |= a ^ atomic_load_explicit(&slab->r[w], memory_order_acquire);
	}
	return !live;
}

/* Hint: somebody who looks for objects of that class may look into that chunk. */
static void note_in_summary(hp_pool *pool, struct slab *slab, uint32_t page)
{
	unsigned class = atomic_load_explicit(&slab->class, memory_order_relaxed);
	pool_summary *summary = &pool->summary[page >> pool->page_shift_chunk];
	uint64_t bit = UINT64_C(1) << (class & 63);
	atomic_store_explicit(&slab->noted, SLAB_IN_SUMMARY, memory_order_relaxed);
	if (!(atomic_load_explicit(summary, memory_order_relaxed) & bit))
		atomic_fetch_or_explicit(summary, bit, memory_order_relaxed);
}

/* The slab that begins at the page, by what the page layer says: NULL where no live run of a slab begins. */
static struct slab *slab_at(const hp_pool *pool, uint64_t page)
{
	const struct parity_unit *unit = &pool->units[page >> pool->page_shift_chunk];
	unsigned i = (unsigned)page & (pool->chunk_pages - 1);
	if (!parity_live(unit, i)) return NULL;
	unsigned len = atomic_load_explicit(&unit->len[i], memory_order_acquire);
	return (len & PARITY_TYPE_MASK) == PAGE_TYPE_SLAB ? &pool->slabs[page] : NULL;
}

/* Calls visit for every slab of chunks [from, to) until it returns not 0. */
typedef int slab_visit(hp_pool *pool, struct slab *slab, uint32_t page, void *arg);
static int visit_slabs(hp_pool *pool, uint32_t from, uint32_t to, slab_visit *visit, void *arg)
{
	for (uint32_t chunk = from; chunk < to; chunk++) {
		const struct parity_unit *unit = &pool->units[chunk];
		for (unsigned w = 0; w < pool->chunk_pages / 64; w++) {
			uint64_t a = atomic_load_explicit(&unit->a[w], memory_order_acquire);
			uint64_t heads = a ^ atomic_load_explicit(&unit->r[w], memory_order_acquire);
			for (; heads; heads &= heads - 1) {
				uint32_t page = (uint32_t)(chunk * pool->chunk_pages + w * 64 + (unsigned)__builtin_ctzll(heads));
				struct slab *slab = slab_at(pool, page);
				int stop = slab ? visit(pool, slab, page, arg) : 0;
				if (stop) return stop;
			}
		}
	}
	return 0;
}

/* In the place of a slot: records are not to be mistaken for them. */
#define NOT_A_SLOT 0x8000u

static uint64_t by_record(const hp_pool *pool, uint64_t old)
{
	return ctl_make(CTL_RECOVERING, (pool->record + 1) | NOT_A_SLOT, pool->record_generation, old);
}

/* Ends a slab whose control word is `seen`, if that still holds and nothing lives in it: its pages go back. */
static bool slab_end(hp_pool *pool, struct slab *slab, uint32_t page, uint64_t seen)
{
	/* commit: nobody's to allocate from any more. The word was read before we looked, so nobody has since. */
	if (!is_empty(slab) || !atomic_compare_exchange_strong(&slab->ctl, &seen, by_record(pool, seen))) return false;
	unsigned len = atomic_load_explicit(&pool->units[page >> pool->page_shift_chunk].len[page & (pool->chunk_pages - 1)],
	                                    memory_order_relaxed);
	unsigned pages = parity_len(len & PARITY_LEN_MASK, (unsigned)page & (pool->chunk_pages - 1), pool->chunk_pages);
	for (unsigned i = 0; i < pages; i++) atomic_store_explicit(&pool->map[page + i], 0, memory_order_relaxed);
	return page_free_typed(pool, page) == 0;
}

/* Gives a slab to nobody, with what others need to find it; an empty one ends. */
static void slab_release(hp_pool *pool, struct slab *slab, uint32_t page, uint64_t seen)
{
	if (pool->joined == participant_fork_generation() && slab_end(pool, slab, page, seen)) return;
	if (has_free(slab))
		note_in_summary(pool, slab, page);
	else
		atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	/* commit: anybody's */
	atomic_compare_exchange_strong(&slab->ctl, &seen, ctl_make(CTL_UNOWNED, 0, 0, seen));
}

/* ---- the magazine ---- */

struct slab_state slab_nothing;

static struct slab_state *state_begin(const hp_pool *pool, struct slab_state *state)
{
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		struct slab_mag *mag = &state->mag[c];
		mag->top = mag->base = state->entry[c];
		mag->limit = mag->base + pool->classes[c].magazine;
		mag->slab1 = 0;
		state->list[c] = 0;
		state->empties[c] = 0;
	}
	return state;
}

struct slab_state *slab_state_renew(const hp_pool *pool, struct slab_state *left)
{
	return left && left != &slab_nothing ? state_begin(pool, left) : &slab_nothing;
}

struct slab_state *slab_state(struct participant *me)
{
	if (likely(me->slabs != &slab_nothing)) return me->slabs;
	void *memory;
	if (os_map(NULL, sizeof(struct slab_state), PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0,
	           &memory) < 0)
		return NULL;
	return me->slabs = state_begin(me->pool, memory);
}

/* Inside an operation, magazine empty, slab owned: fills it with what the slab has free, as far as there is room. Lower
 * addresses come out first. */
static bool load_slab(struct participant *me, struct slab_mag *mag, struct slab *slab, uint32_t page, uint32_t size)
{
	uint64_t free[SLAB_WORDS];
	unsigned objects = objects_of(slab), room = (unsigned)(mag->limit - mag->base), count = 0, words = 0;
	for (; words < SLAB_WORDS && count < room; words++) {
		free[words] = free_in(slab, words, objects);
		count += (unsigned)__builtin_popcountll(free[words]);
	}
	struct slab_entry *at = mag->base + (count < room ? count : room);
	char *base = me->pool->base + (uint64_t)page * HP_PAGE_SIZE +
	             atomic_load_explicit(&slab->first, memory_order_relaxed);
	mag->top = at;
	mag->slab1 = page + 1;
	atomic_store_explicit(&slab->noted, SLAB_LISTED, memory_order_relaxed); /* the current one needs no list */
	for (unsigned w = 0; w < words; w++) {
		uint64_t where = (uint64_t)(uintptr_t)&slab->a[w] << 6;
		for (; free[w] && at != mag->base; free[w] &= free[w] - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(free[w]);
			--at;
			at->object = base + (uint64_t)(w * 64 + bit) * size;
			at->where = where | bit;
		}
	}
	return count != 0;
}

/* Inside an operation: forgets the current slab, which has nothing left. */
static void drop_current(struct participant *me, struct slab_mag *mag)
{
	uint32_t page = mag->slab1 - 1;
	struct slab *slab = &me->pool->slabs[page];
	mag->slab1 = 0;
	atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	/* what was freed remotely right before that store has told nobody */
	if (has_free(slab)) note_in_summary(me->pool, slab, page);
}

static uint32_t page_limit(const hp_pool *pool)
{
	return pool->chunk_count * pool->chunk_pages;
}

static uint32_t next_of(const hp_pool *pool, const struct slab *slab)
{
	uint32_t next = atomic_load_explicit(&slab->next, memory_order_relaxed);
	return next <= page_limit(pool) ? next : 0;
}

bool slab_refill_own(struct participant *me, unsigned class)
{
	hp_pool *pool = me->pool;
	struct slab_state *state = me->slabs;
	struct slab_mag *mag = &state->mag[class];
	uint32_t size = pool->classes[class].size;
	if (state == &slab_nothing) return false;
	size_t room = (size_t)(mag->limit - mag->base) * 2, most = pool->classes[class].magazine_most;
	mag->limit = mag->base + (room == 0 ? pool->classes[class].magazine : room < most ? room : most); /* it is used up */
	if (mag->slab1) {
		if (load_slab(me, mag, &pool->slabs[mag->slab1 - 1], mag->slab1 - 1, size)) return true;
		drop_current(me, mag);
	}
	while (state->list[class]) {
		uint32_t page = state->list[class] - 1;
		struct slab *slab = &pool->slabs[page];
		/* taken from us, or spoilt: what was behind it is found by the summary, or the last search */
		if (!slab_is_mine(me, slab) || slab->class != class) {
			state->list[class] = 0;
			return false;
		}
		state->list[class] = next_of(pool, slab);
		atomic_store_explicit(&slab->next, 0, memory_order_relaxed); /* no loop can be followed for ever */
		if (state->empties[class] && is_empty(slab))
			state->empties[class] -= pool->classes[class].pages < state->empties[class] ? pool->classes[class].pages
			                                                                            : state->empties[class];
		if (load_slab(me, mag, slab, page, size)) return true;
		drop_current(me, mag);
	}
	return false;
}

/* Inside an operation: others than the magazine are to know that the slab has free objects. */
static void list_slab(struct participant *me, struct slab *slab, unsigned class)
{
	struct slab_state *state = me->slabs;
	uint32_t page1 = (uint32_t)(slab - me->pool->slabs) + 1;
	if (state->mag[class].slab1 == page1 || atomic_load_explicit(&slab->noted, memory_order_relaxed) == SLAB_LISTED) return;
	atomic_store_explicit(&slab->next, state->list[class], memory_order_relaxed);
	atomic_store_explicit(&slab->noted, SLAB_LISTED, memory_order_relaxed);
	state->list[class] = page1;
}

bool slab_given(struct participant *me, struct slab *slab, unsigned class)
{
	struct slab_state *state = me->slabs;
	list_slab(me, slab, class);
	if (is_empty(slab) && state->empties[class] < UINT16_MAX - SLAB_PAGES)
		state->empties[class] = (uint16_t)(state->empties[class] + me->pool->classes[class].pages);
	return state->empties[class] >= UNTIDY_PAGES;
}

/* Inside an operation: the objects of a magazine are left to their slabs. */
static void empty_magazine(struct participant *me, unsigned class)
{
	struct slab_mag *mag = &me->slabs->mag[class];
	for (; mag->top != mag->base; mag->top--) {
		uint64_t at = (mag->top[-1].where >> 6) - (uintptr_t)me->pool->slabs;
		list_slab(me, &me->pool->slabs[at / sizeof(struct slab)], class);
	}
}

/* Takes the empty slabs, but for `keep` pages of them, out of the list, and ends them. */
static void purge(struct participant *me, unsigned class, unsigned keep)
{
	hp_pool *pool = me->pool;
	struct slab_state *state = me->slabs;
	struct slab_mag *mag = &state->mag[class];
	uint32_t ending = 0, staying = 0, at, next, pages = pool->classes[class].pages;
	participant_begin(me);
	/* what ends must have nothing in the magazine */
	if (mag->slab1 && !keep) {
		uint32_t page = mag->slab1 - 1;
		mag->slab1 = 0;
		atomic_store_explicit(&pool->slabs[page].next, state->list[class], memory_order_relaxed);
		state->list[class] = page + 1;
	}
	empty_magazine(me, class);
	at = state->list[class];
	state->empties[class] = 0;
	for (; at; at = next) {
		struct slab *slab = &pool->slabs[at - 1];
		if (!slab_is_mine(me, slab) || slab->class != class) break;
		next = next_of(pool, slab);
		bool empty = is_empty(slab);
		uint32_t *list = empty && keep < pages ? &ending : &staying;
		if (empty && keep >= pages) {
			keep -= pages;
			state->empties[class] = (uint16_t)(state->empties[class] + pages);
		}
		atomic_store_explicit(&slab->next, *list, memory_order_relaxed);
		*list = at;
		if (next == at) break;
	}
	state->list[class] = staying;
	participant_end(me);
	for (at = ending; at; at = next) {
		struct slab *slab = &pool->slabs[at - 1];
		next = next_of(pool, slab);
		uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
		if (ctl_state(seen) != CTL_OWNED || ctl_who(seen) != me->who) break;
		slab_release(pool, slab, at - 1, seen);
	}
}

void slab_purge(struct participant *me, unsigned class)
{
	if (me->slabs == &slab_nothing) return;
	for (unsigned c = class < SLAB_CLASSES ? class : 0; c < (class < SLAB_CLASSES ? class + 1 : SLAB_CLASSES); c++)
		if (me->slabs->list[c] || me->slabs->mag[c].slab1) purge(me, c, 0);
}

void slab_tidy(struct participant *me, unsigned class)
{
	participant_hold(me);
	if (me->slabs->empties[class] >= UNTIDY_PAGES) purge(me, class, KEEP_PAGES);
	participant_let_go(me);
}

/* ---- freeing by others ---- */

bool slab_free_remote(hp_pool *pool, struct slab *slab, unsigned index)
{
	_Atomic uint64_t *word = &slab->r[index >> 6];
	uint64_t a = atomic_load_explicit(&slab->a[index >> 6], memory_order_acquire);
	uint64_t r = atomic_load_explicit(word, memory_order_relaxed), bit = UINT64_C(1) << (index & 63);
	do {
		if (unlikely(!((a ^ r) & bit))) return false;
		/* commit: as in parity_free_remote */
	} while (!atomic_compare_exchange_weak_explicit(word, &r, r ^ bit, memory_order_release, memory_order_relaxed));
	/* Hints from here on: the slab may be another by now. */
	uint32_t page = (uint32_t)(slab - pool->slabs);
	if (atomic_load_explicit(&slab->noted, memory_order_relaxed) == SLAB_UNKNOWN) note_in_summary(pool, slab, page);
	if (unlikely(((a ^ r) & ~bit) == 0)) {
		uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
		if (ctl_state(seen) == CTL_UNOWNED && pool->joined == participant_fork_generation() && is_empty(slab))
			slab_end(pool, slab, page, seen);
	}
	return true;
}

/* ---- finding, making ---- */

struct wanted {
	struct participant *me;
	unsigned class;
	uint32_t size;
	bool take, others, found;
	struct take_want *list;
	uint32_t *page;
	unsigned count;
};

#define TAKE_SLABS 64

static int try_slab(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	(void)pool;
	struct wanted *want = arg;
	struct participant *me = want->me;
	struct slab_mag *mag = &me->slabs->mag[want->class];
	if (atomic_load_explicit(&slab->class, memory_order_relaxed) != want->class || !has_free(slab)) return 0;
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) == CTL_OWNED && ctl_who(seen) != me->who) {
		want->others = true;
		if (want->take && want->count < TAKE_SLABS) {
			want->page[want->count] = page;
			want->list[want->count++] = (struct take_want){.ctl = &slab->ctl, .seen = seen};
		}
		return 0;
	}
	if (ctl_state(seen) != CTL_OWNED && ctl_state(seen) != CTL_UNOWNED) return 0;
	participant_begin(me);
	bool mine = slab_is_mine(me, slab);
	if (!mine && ctl_state(seen) == CTL_UNOWNED) {
		uint64_t ours = ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, seen);
		/* commit: the slab is ours */
		mine = atomic_compare_exchange_strong_explicit(&slab->ctl, &seen, ours, memory_order_acq_rel,
		                                               memory_order_relaxed);
	}
	if (mine) {
		/* a signal handler may have filled the magazine meanwhile, perhaps from this very slab */
		want->found = mag->top != mag->base || load_slab(me, mag, slab, page, want->size);
		if (!want->found)
			drop_current(me, mag);
		else
			list_slab(me, slab, want->class);
	}
	participant_end(me);
	return want->found;
}

/* Slabs that the summary names, beginning where the thread found something last. */
static bool from_summary(struct wanted *want)
{
	struct participant *me = want->me;
	hp_pool *pool = me->pool;
	uint32_t top = pool_top(pool), *cursor = &me->slabs->cursor[want->class];
	uint64_t bit = UINT64_C(1) << (want->class & 63);
	for (uint32_t k = 0, at = *cursor < top ? *cursor : 0; k < top; k++, at = at + 1 < top ? at + 1 : 0) {
		if (!(atomic_load_explicit(&pool->summary[at], memory_order_relaxed) & bit)) continue;
		/* cleared before looking: what is noted meanwhile stays noted */
		atomic_fetch_and_explicit(&pool->summary[at], ~bit, memory_order_relaxed);
		want->others = false;
		bool found = visit_slabs(pool, at, at + 1, try_slab, want);
		if (found || want->others) atomic_fetch_or_explicit(&pool->summary[at], bit, memory_order_relaxed);
		if (found) {
			*cursor = at;
			return true;
		}
	}
	return false;
}

/* Every slab there is; with take also those of live owners outside of an operation. */
static bool from_anywhere(struct wanted *want, bool take)
{
	hp_pool *pool = want->me->pool;
	struct take_want list[TAKE_SLABS];
	uint32_t page[TAKE_SLABS];
	bool mine[TAKE_SLABS];
	unsigned skipped = 0;
	want->take = take;
	want->list = list;
	want->page = page;
	want->count = 0;
	if (visit_slabs(pool, 0, pool_top(pool), try_slab, want)) return true;
	if (!take || !want->count) return false;
	take_units(want->me, list, want->count, mine, &skipped);
	for (unsigned k = 0; k < want->count; k++) {
		if (!mine[k]) continue;
		uint64_t ours = ctl_make(CTL_OWNED, want->me->who >> 16, want->me->who & 0xffff, list[k].seen);
		slab_release(pool, &pool->slabs[page[k]], page[k], ours);
	}
	want->take = false;
	return visit_slabs(pool, 0, pool_top(pool), try_slab, want);
}

/* The descriptors of a range of pages, so that touching them cannot fail. */
static int populate(hp_pool *pool, uint32_t page)
{
	uint32_t chunk = page >> pool->page_shift_chunk, each = HP_PAGE_SIZE / sizeof(struct slab);
	uint16_t bit = (uint16_t)(1u << ((page & (pool->chunk_pages - 1)) / each));
	if (atomic_load_explicit(&pool->slabs_populated[chunk], memory_order_relaxed) & bit) return 0;
	int error = pool_control_populate_slabs(pool, page / each * each, each);
	if (error == 0) atomic_fetch_or_explicit(&pool->slabs_populated[chunk], bit, memory_order_relaxed);
	return error;
}

/* Right before the run becomes live, inside an operation of the page layer. */
static void prepare(struct participant *me, const struct page_want *want, uint64_t page)
{
	hp_pool *pool = me->pool;
	struct slab *slab = &pool->slabs[page];
	unsigned class = *(const unsigned *)want->arg;
	const struct slab_class *known = &pool->classes[class];
	populate(pool, (uint32_t)page); /* failing here means a late fault, which is what the kernel then decides about */
	uint64_t old = atomic_load_explicit(&slab->ctl, memory_order_relaxed);
	atomic_store_explicit(&slab->ctl, by_record(pool, old), memory_order_relaxed);
	atomic_store_explicit(&slab->class, (uint8_t)class, memory_order_relaxed);
	atomic_store_explicit(&slab->first, (uint16_t)((old >> 4) % known->colours * known->step * 16), memory_order_relaxed);
	atomic_store_explicit(&slab->objects, known->objects, memory_order_relaxed);
	atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	for (unsigned w = 0; w < SLAB_WORDS; w++) /* nothing lives, whatever R has come to */
		atomic_store_explicit(&slab->a[w], atomic_load_explicit(&slab->r[w], memory_order_relaxed), memory_order_relaxed);
}

static int make_slab(struct participant *me, unsigned class)
{
	hp_pool *pool = me->pool;
	const struct slab_class *known = &pool->classes[class];
	struct page_want want = {
		.pages = known->pages, .node = -1, .type = PAGE_TYPE_SLAB, .prepare = prepare, .arg = &class};
	int64_t page;
	int error = page_search(me, &want, &page);
	if (error < 0) return error;
	struct slab *slab = &pool->slabs[page];
	int first = atomic_load_explicit(&slab->first, memory_order_relaxed);
	for (unsigned i = 0; i < known->pages; i++)
		atomic_store_explicit(&pool->map[(uint64_t)page + i],
		                      map_make(known->reciprocal, ((int)(i * HP_PAGE_SIZE) - first) / 16, class, i),
		                      memory_order_relaxed);
	participant_begin(me);
	uint64_t old = atomic_load_explicit(&slab->ctl, memory_order_relaxed);
	/* commit: a slab, and ours. Before it the run goes back when our record is recovered. */
	atomic_store_explicit(&slab->ctl, ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, old), memory_order_release);
	struct slab_mag *mag = &me->slabs->mag[class];
	if (mag->top != mag->base || !load_slab(me, mag, slab, (uint32_t)page, known->size))
		list_slab(me, slab, class); /* a signal handler was here */
	participant_end(me);
	return 0;
}

int slab_refill(struct participant *me, unsigned class)
{
	hp_pool *pool = me->pool;
	struct wanted want = {.me = me, .class = class, .size = pool->classes[class].size};
	if (!slab_state(me)) return -ENOMEM;
	participant_begin(me);
	bool found = me->slabs->mag[class].top != me->slabs->mag[class].base || slab_refill_own(me, class);
	participant_end(me);
	if (found) return 0;
	if (from_summary(&want)) return 0;
	int error = make_slab(me, class);
	if (error == 0) return 0;
	slab_purge(me, SLAB_CLASSES); /* empty slabs of other classes are pages, too */
	if (from_anywhere(&want, false) || make_slab(me, class) == 0 || from_anywhere(&want, true)) return 0;
	return make_slab(me, class) == 0 ? 0 : error;
}

/* ---- what the pool asks ---- */

static int release_if_owned(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) == CTL_OWNED && ctl_who(seen) == *(const uint32_t *)arg) slab_release(pool, slab, page, seen);
	return 0;
}

static void release_all(hp_pool *pool, uint32_t who)
{
	visit_slabs(pool, 0, pool_top(pool), release_if_owned, &who);
}

/* Somebody takes, or has taken, slabs of ours. Which ones are ours is known to the slabs only, so all of them are given
 * back; rare, since only those take who find no memory otherwise. Inside an operation, and pages may not be freed here. */
static int forget_if_owned(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) != CTL_OWNED || ctl_who(seen) != *(const uint32_t *)arg) return 0;
	if (has_free(slab))
		note_in_summary(pool, slab, page);
	else
		atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	atomic_compare_exchange_strong(&slab->ctl, &seen, ctl_make(CTL_UNOWNED, 0, 0, seen));
	return 0;
}

static void reread(struct participant *me, bool marked)
{
	(void)marked;
	struct slab_state *state = me->slabs;
	if (state == &slab_nothing) return;
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		state->mag[c].top = state->mag[c].base;
		state->mag[c].slab1 = 0;
		state->list[c] = 0;
		state->empties[c] = 0;
	}
	visit_slabs(me->pool, 0, pool_top(me->pool), forget_if_owned, &me->who);
}

static int finish_half(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) == CTL_RECOVERING && ctl_who(seen) == *(const uint32_t *)arg) slab_end(pool, slab, page, seen);
	return 0;
}

static void recover_record_slabs(hp_pool *pool, uint32_t record, uint32_t generation)
{
	uint32_t who = who_make(record, generation) | NOT_A_SLOT << 16;
	visit_slabs(pool, 0, pool_top(pool), finish_half, &who);
}

const struct pool_layer slab_layer = {
	.reread = reread, .recover_slot = release_all, .recover_record = recover_record_slabs};
