/* Slabs: making and ending them, and finding one with free objects.
 *
 * The order of the search: the rest of the current slab, the thread's list, what the summary names (the thread's own
 * slabs into which others have freed, and those of nobody), a new slab, and when no pages are left every slab there is,
 * also those of owners that do not use them. */
#include "slab/slab.h"
#include "page/page.h"
#include "pool/layers.h"
#include "pool/recover.h"
#include "cache/place.h"
#include "os/os.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define KEEP_PAGES 32u /* in slabs without objects a thread keeps, and an eighth of what it owns */
#define SHORT_ROUNDS 4 /* where memory is short: the page layer has its own patience */
#define ROUNDS \
	256 /* before giving up on owners that are always busy, and on slabs that others are always quicker to take */

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
	/* after R: who sees what was freed under an announcement sees that too, or that it is over */
	if (unlikely(atomic_load_explicit(&slab->announce, memory_order_acquire))) return 0;
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
	return !live && !atomic_load_explicit(&slab->announce, memory_order_acquire); /* as in free_in */
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

static uint32_t pages_of(const hp_pool *pool, const struct slab *slab);

static _Atomic uint8_t *built_of(struct slab *slab)
{
	return (_Atomic uint8_t *)(void *)(slab + 1);
}

/* Constructed objects that are free, in a slab that we hold alone: destroyed, each at most once whenever we die. What is free
 * in a slab of ours is nobody else's to get; no handler of this thread gets it either, since it is held. */
static void destroy_objects(hp_pool *pool, struct slab *slab, uint32_t page)
{
	unsigned objects = objects_of(slab);
	const struct slab_class *known = &pool->classes[atomic_load_explicit(&slab->class, memory_order_relaxed)];
	char *object = pool->base + (uint64_t)page * HP_PAGE_SIZE +
	               atomic_load_explicit(&slab->first, memory_order_relaxed);
	for (unsigned i = 0; i < objects; i++, object += known->size) {
		if (slab_live(slab, i) || !slab_built(slab, i)) continue;
		slab_set_built(slab, i, 0);
		if (known->dtor) known->dtor(known->arg, object);
	}
}

static bool has_built(struct slab *slab)
{
	unsigned objects = objects_of(slab), any = 0;
	for (unsigned i = 0; i < objects; i++) any |= atomic_load_explicit(&built_of(slab)[i], memory_order_relaxed);
	return any;
}

/* Knows how: has the cache open, with the destructor if it was made with one. */
static bool may_destroy(const struct slab_class *known)
{
	return known->built && (known->dtor || !(known->cache->constructed & CACHE_DESTROYED));
}

/* Ends a slab whose control word is `seen`, if that still holds and nothing lives in it: its pages go back. `destroy`: the
 * caller may call destructors; slabs with constructed objects stay otherwise, and where the destructor is not known. */
static bool slab_end(hp_pool *pool, struct slab *slab, uint32_t page, uint64_t seen, bool destroy)
{
	unsigned class = atomic_load_explicit(&slab->class, memory_order_relaxed);
	unsigned extra = atomic_load_explicit(&slab->extra, memory_order_relaxed);
	bool built = extra & SLAB_BUILT && has_built(slab), known = destroy && may_destroy(&pool->classes[class]);
	/* memory of class PROCESS of another process is that one's to give back, or goes back with its record */
	uint64_t tag = atomic_load_explicit(&pool->chunks[page >> pool->page_shift_chunk].tag, memory_order_acquire);
	if (tag && tag != page_tag(pool)) return false;
	/* what a dead one had begun to end ends, with the destructor or without: nobody would come back to it */
	if (built && !known && ctl_state(seen) != CTL_RECOVERING) return false;
	/* commit: nobody's to allocate from any more. The word was read before we looked, so nobody has since. */
	if (!is_empty(slab) || !atomic_compare_exchange_strong(&slab->ctl, &seen, by_record(pool, seen))) return false;
	if (built && known) destroy_objects(pool, slab, page);
	unsigned pages = pages_of(pool, slab);
	for (unsigned i = 0; i < pages; i++) atomic_store_explicit(&pool->map[page + i], 0, memory_order_relaxed);
	uint64_t place = cache_place_read(pool, class, extra & SLAB_NO_PLACE);
	bool freed = page_free_typed(pool, page) == 0;
	if (place) cache_place_free(pool, class, extra & SLAB_NO_PLACE, place);
	return freed;
}

/* Gives a slab to nobody, with what others need to find it; an empty one ends. */
static void slab_release(hp_pool *pool, struct slab *slab, uint32_t page, uint64_t seen, bool destroy)
{
	if (pool->joined == participant_fork_generation() && slab_end(pool, slab, page, seen, destroy)) return;
	if (has_free(slab))
		note_in_summary(pool, slab, page);
	else
		atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	uint64_t nobody = ctl_make(CTL_UNOWNED, 0, 0, seen);
	/* commit: anybody's */
	if (!atomic_compare_exchange_strong(&slab->ctl, &seen, nobody)) return;
	/* Who frees the last object sees that the slab is nobody's, or we see that it was the last. */
	atomic_thread_fence(memory_order_seq_cst);
	if (pool->joined == participant_fork_generation()) slab_end(pool, slab, page, nobody, destroy);
}

/* ---- the magazine ---- */

struct slab_state slab_nothing;

/* Nothing is at hand, nothing is known to be owned. */
static void state_forget(struct slab_state *state)
{
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		state->mag[c].top = state->mag[c].base;
		state->mag[c].current = NULL;
		state->word[c].free = 0;
		state->list[c] = 0;
		state->slabs[c] = 0;
	}
	state->owned = state->empty = 0;
}

static struct slab_state *state_begin(const hp_pool *pool, struct slab_state *state)
{
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		state->mag[c].base = state->entry[c];
		state->mag[c].limit = state->entry[c] + pool->classes[c].magazine;
	}
	state_forget(state);
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

/* Inside an operation, nothing of the class at hand, slab owned: the next of its words that has something free is. */
static bool load_slab(struct participant *me, struct slab_mag *mag, struct slab *slab, uint32_t page, uint32_t size)
{
	struct slab_word *word = &me->slabs->word[mag - me->slabs->mag];
	unsigned objects = objects_of(slab), from = 0;
	if (mag->current == slab && word->a >= slab->a && word->a < slab->a + SLAB_WORDS)
		from = (unsigned)(word->a - slab->a) + 1;
	mag->current = slab;
	atomic_store_explicit(&slab->noted, SLAB_LISTED, memory_order_relaxed); /* the current one needs no list */
	for (unsigned k = 0; k < SLAB_WORDS; k++) {
		unsigned w = from + k < SLAB_WORDS ? from + k : from + k - SLAB_WORDS;
		uint64_t free = free_in(slab, w, objects);
		if (!free) continue;
		word->free = free;
		word->a = &slab->a[w];
		word->base = me->pool->base + (uint64_t)page * HP_PAGE_SIZE +
		             atomic_load_explicit(&slab->first, memory_order_relaxed) + (uint64_t)w * 64 * size;
		word->size = size;
		return true;
	}
	return false;
}

/* Inside an operation: forgets the current slab, which has nothing left. */
static void drop_current(struct participant *me, struct slab_mag *mag)
{
	struct slab *slab = mag->current;
	uint32_t page = (uint32_t)(slab - me->pool->slabs);
	mag->current = NULL;
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

static uint32_t pages_of(const hp_pool *pool, const struct slab *slab)
{
	uint32_t page = (uint32_t)(slab - pool->slabs), i = page & (pool->chunk_pages - 1);
	unsigned len = atomic_load_explicit(&pool->units[page >> pool->page_shift_chunk].len[i], memory_order_relaxed);
	return parity_len(len & PARITY_LEN_MASK, i, pool->chunk_pages);
}

static void count(uint32_t *counter, int32_t more)
{
	*counter = more < 0 && *counter < (uint32_t)-more ? 0 : *counter + (uint32_t)more;
}

static void count_empty(const hp_pool *pool, struct slab_state *state, const struct slab *slab, int sign)
{
	count(&state->empty, sign * (int32_t)pages_of(pool, slab));
}

static void count_owned(const hp_pool *pool, struct slab_state *state, unsigned class, const struct slab *slab,
                        int sign)
{
	count(&state->owned, sign * (int32_t)pages_of(pool, slab));
	if (sign > 0 ? state->slabs[class] < UINT16_MAX : state->slabs[class] > 0)
		state->slabs[class] = (uint16_t)(state->slabs[class] + sign);
}

bool slab_refill_own(struct participant *me, unsigned class)
{
	hp_pool *pool = me->pool;
	struct slab_state *state = me->slabs;
	struct slab_mag *mag = &state->mag[class];
	uint32_t size = pool->classes[class].size;
	if (state == &slab_nothing) return false;
	size_t room = (size_t)(mag->limit - mag->base) * 2, most = pool->classes[class].magazine_most;
	mag->limit = mag->base + (room == 0     ? pool->classes[class].magazine
	                          : room < most ? room
	                                        : most); /* it is used up */
	if (mag->current) {
		if (load_slab(me, mag, mag->current, (uint32_t)(mag->current - pool->slabs), size)) return true;
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
		if (state->empty && is_empty(slab)) count_empty(pool, state, slab, -1);
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
	if (state->mag[class].current == slab || atomic_load_explicit(&slab->noted, memory_order_relaxed) == SLAB_LISTED)
		return;
	atomic_store_explicit(&slab->next, state->list[class], memory_order_relaxed);
	atomic_store_explicit(&slab->noted, SLAB_LISTED, memory_order_relaxed);
	state->list[class] = page1;
}

bool slab_given(struct participant *me, struct slab *slab, unsigned class)
{
	struct slab_state *state = me->slabs;
	if (state->mag[class].current == slab) return false; /* looked at when the magazine has run out */
	list_slab(me, slab, class);
	if (!is_empty(slab)) return false;
	count_empty(me->pool, state, slab, 1);
	state->untidy[class / 64] |= UINT64_C(1) << (class % 64);
	const struct pool_cache *cache = me->pool->classes[class].cache;
	if (cache && atomic_load_explicit(&cache->high, memory_order_relaxed) != UINT64_MAX) return true;
	return state->empty > KEEP_PAGES + state->owned / 8;
}

/* Inside an operation: the objects of a magazine are left to their slabs. */
static void empty_magazine(struct participant *me, unsigned class)
{
	struct slab_mag *mag = &me->slabs->mag[class];
	me->slabs->word[class].free = 0; /* that of the current slab */
	for (; mag->top != mag->base; mag->top--) {
		uint64_t at = (mag->top[-1].where >> 6) - (uintptr_t)me->pool->slabs;
		list_slab(me, &me->pool->slabs[at / sizeof(struct slab)], class);
	}
}

static uint64_t may_go(hp_pool *pool, unsigned class, bool asked);

/* Takes the empty slabs out of the list, and ends them, as far as a cache's marks allow. `asked`: also the current one. */
static void purge(struct participant *me, unsigned class, bool asked)
{
	hp_pool *pool = me->pool;
	uint64_t budget = may_go(pool, class, asked);
	struct slab_state *state = me->slabs;
	struct slab_mag *mag = &state->mag[class];
	uint32_t ending = 0, staying = 0, at, next;
	participant_begin(me);
	/* what ends must have nothing in the magazine */
	empty_magazine(me, class);
	if (mag->current && asked) {
		atomic_store_explicit(&mag->current->next, state->list[class], memory_order_relaxed);
		state->list[class] = (uint32_t)(mag->current - pool->slabs) + 1;
		mag->current = NULL;
	}
	for (at = state->list[class]; at; at = next) {
		struct slab *slab = &pool->slabs[at - 1];
		if (!slab_is_mine(me, slab) || slab->class != class) break;
		next = next_of(pool, slab);
		bool ends = budget && is_empty(slab);
		uint32_t *list = ends ? &ending : &staying;
		if (ends) {
			budget--;
			count_empty(pool, state, slab, -1);
			count_owned(pool, state, class, slab, -1);
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
		slab_release(pool, slab, at - 1, seen, true);
	}
}

void slab_purge(struct participant *me, unsigned class)
{
	if (me->slabs == &slab_nothing) return;
	for (unsigned c = class < SLAB_CLASSES ? class : 0; c < (class < SLAB_CLASSES ? class + 1 : SLAB_CLASSES); c++)
		if (me->slabs->list[c] || me->slabs->mag[c].current || slab_has_any(me->slabs, c)) purge(me, c, true);
	if (class == SLAB_CLASSES) me->slabs->empty = 0;
}

void slab_tidy(struct participant *me, unsigned class)
{
	const struct pool_cache *cache = me->pool->classes[class].cache;
	participant_hold(me);
	if (cache && atomic_load(&cache->high) != UINT64_MAX)
		purge(me, class, false);
	else if (me->slabs->owned < 4 * KEEP_PAGES)
		slab_purge(me, SLAB_CLASSES); /* little is left: all of it */
	else
		for (unsigned w = 0; w < SLAB_CLASSES / 64; w++)
			for (uint64_t rest = me->slabs->untidy[w]; rest; rest &= rest - 1)
				purge(me, w * 64 + (unsigned)__builtin_ctzll(rest), true);
	me->slabs->empty = 0;
	memset(me->slabs->untidy, 0, sizeof me->slabs->untidy);
	participant_let_go(me);
}

static int make_slab(struct participant *me, unsigned class, bool keep);

/* ---- freeing by others ---- */

void slab_flip_remote(hp_pool *pool, struct slab *slab, unsigned index)
{
	_Atomic uint64_t *word = &slab->r[index >> 6];
	/* commit of the free, as in parity_free_remote; that the object is live, and stays so but for us, is the caller's */
	atomic_fetch_xor_explicit(word, UINT64_C(1) << (index & 63), memory_order_release);
	if (atomic_load_explicit(&slab->noted, memory_order_relaxed) == SLAB_UNKNOWN)
		note_in_summary(pool, slab, (uint32_t)(slab - pool->slabs));
}

uint64_t slab_free_remote(hp_pool *pool, struct slab *slab, unsigned w, uint64_t bits)
{
	_Atomic uint64_t *word = &slab->r[w];
	uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_acquire);
	uint64_t r = atomic_load_explicit(word, memory_order_relaxed);
	do {
		bits &= a ^ r;
		if (unlikely(!bits)) return 0;
		/* commit: as in parity_free_remote, for all of them at once */
	} while (!atomic_compare_exchange_weak_explicit(word, &r, r ^ bits, memory_order_release, memory_order_relaxed));
	/* Hints from here on: the slab may be another by now. */
	uint32_t page = (uint32_t)(slab - pool->slabs);
	if (atomic_load_explicit(&slab->noted, memory_order_relaxed) == SLAB_UNKNOWN) note_in_summary(pool, slab, page);
	if (unlikely(((a ^ r) & ~bits) == 0)) {
		atomic_thread_fence(memory_order_seq_cst); /* as in slab_release */
		uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
		if (ctl_state(seen) == CTL_UNOWNED && pool->joined == participant_fork_generation() && is_empty(slab) &&
		    may_go(pool, atomic_load_explicit(&slab->class, memory_order_relaxed), false))
			slab_end(pool, slab, page, seen, false);
	}
	return bits;
}

/* Inside an operation: a run of n objects in one word of a slab of ours, which no magazine holds. */
static char *take_run(struct participant *me, struct slab *slab, unsigned class, unsigned n)
{
	unsigned objects = objects_of(slab);
	for (unsigned w = 0; w * 64 < objects; w++) {
		uint64_t runs = parity_runs(free_in(slab, w, objects), n);
		if (!runs) continue;
		unsigned bit = (unsigned)__builtin_ctzll(runs);
		uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_relaxed);
		/* commit: all of them */
		atomic_store_explicit(&slab->a[w], a ^ parity_mask(bit, n), memory_order_release);
		return me->pool->base + (uint64_t)(slab - me->pool->slabs) * HP_PAGE_SIZE +
		       atomic_load_explicit(&slab->first, memory_order_relaxed) +
		       (uint64_t)(w * 64 + bit) * me->pool->classes[class].size;
	}
	return NULL;
}

int slab_take_run(struct participant *me, unsigned class, unsigned n, char **first)
{
	hp_pool *pool = me->pool;
	if (!slab_state(me)) return -ENOMEM;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct slab_mag *mag = &me->slabs->mag[class];
		participant_begin(me);
		empty_magazine(me, class); /* a run must have no object in it */
		*first = mag->current ? take_run(me, mag->current, class, n) : NULL;
		for (uint32_t at = me->slabs->list[class], steps = 0; at && !*first && steps < page_limit(pool); steps++) {
			struct slab *slab = &pool->slabs[at - 1];
			if (!slab_is_mine(me, slab) || slab->class != class) break;
			*first = take_run(me, slab, class, n);
			at = next_of(pool, slab);
		}
		participant_end(me);
		if (*first) return 0;
		int error = make_slab(me, class, true);
		if (error < 0) return error;
	}
	return -ENOMEM;
}

/* ---- finding, making ---- */

struct wanted {
	struct participant *me;
	unsigned class;
	uint32_t size;
	bool take, others, found;
	unsigned skipped, moved;
	uint64_t out, print; /* objects that were met and cannot be had, and which state of theirs */
	struct take_want *list;
	uint32_t *page;
	unsigned count;
};

#define TAKE_SLABS 64

static void not_to_be_had(struct wanted *want, const struct slab *slab, uint32_t page)
{
	uint64_t print = want->print + page;
	for (unsigned w = 0; w < SLAB_WORDS; w++) {
		print = print * UINT64_C(0x9e3779b97f4a7c15) ^ atomic_load_explicit(&slab->a[w], memory_order_acquire);
		print = print * UINT64_C(0x9e3779b97f4a7c15) ^ atomic_load_explicit(&slab->r[w], memory_order_acquire);
		print ^= print >> 32;
	}
	want->print = print;
	want->out += objects_of(slab);
}

static int try_slab(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct wanted *want = arg;
	struct participant *me = want->me;
	struct slab_mag *mag = &me->slabs->mag[want->class];
	/* first: what is read after it is true of the slab that is adopted at this word, and not of one that was here before */
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (atomic_load_explicit(&slab->class, memory_order_relaxed) != want->class) return 0;
	/* objects of class PROCESS are no other process' */
	bool barred = pool->classes[want->class].process &&
	              atomic_load_explicit(&pool->chunks[page >> pool->page_shift_chunk].tag, memory_order_acquire) !=
	                  page_tag(pool);
	if (barred || !has_free(slab)) {
		not_to_be_had(want, slab, page);
		return 0;
	}
	if (ctl_state(seen) == CTL_OWNED && ctl_who(seen) != me->who) {
		want->others = true;
		if (want->take && want->count < TAKE_SLABS) {
			want->page[want->count] = page;
			want->list[want->count++] = (struct take_want){.ctl = &slab->ctl, .seen = seen};
		}
		return 0;
	}
	if (ctl_state(seen) != CTL_OWNED && ctl_state(seen) != CTL_UNOWNED) {
		want->skipped++; /* being made, or ended */
		return 0;
	}
	participant_begin(me);
	bool mine = slab_is_mine(me, slab);
	if (!mine && ctl_state(seen) == CTL_UNOWNED) {
		uint64_t ours = ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, seen);
		/* commit: the slab is ours */
		mine = atomic_compare_exchange_strong_explicit(&slab->ctl, &seen, ours, memory_order_acq_rel,
		                                               memory_order_relaxed);
		if (mine) count_owned(pool, me->slabs, want->class, slab, 1);
	}
	if (mine) {
		/* a signal handler may have filled the magazine meanwhile, perhaps from this very slab */
		want->found = slab_has_any(me->slabs, want->class) || load_slab(me, mag, slab, page, want->size);
		if (!want->found)
			drop_current(me, mag);
		else
			list_slab(me, slab, want->class);
	}
	participant_end(me);
	want->skipped += !want->found; /* it had something free, which another was quicker to take */
	return want->found;
}

/* Slabs that the summary names, beginning where the thread found something last. */
static bool from_summary(struct wanted *want)
{
	struct participant *me = want->me;
	hp_pool *pool = me->pool;
	uint32_t top = pool_top(pool), *cursor = &me->slabs->cursor[want->class];
	uint64_t bit = UINT64_C(1) << (want->class & 63);
	bool others = false;
	uint8_t *wait = &me->slabs->wait[want->class], *waited = &me->slabs->waited[want->class];
	if (*wait && --*wait) return false;
	for (uint32_t k = 0, at = *cursor < top ? *cursor : 0; k < top; k++, at = at + 1 < top ? at + 1 : 0) {
		if (!(atomic_load_explicit(&pool->summary[at], memory_order_relaxed) & bit)) continue;
		/* cleared before looking: what is noted meanwhile stays noted */
		atomic_fetch_and_explicit(&pool->summary[at], ~bit, memory_order_relaxed);
		want->others = false;
		bool found = visit_slabs(pool, at, at + 1, try_slab, want);
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

/* Every slab there is; with take also those of live owners outside of an operation. */
static bool from_anywhere(struct wanted *want, bool take)
{
	hp_pool *pool = want->me->pool;
	struct take_want list[TAKE_SLABS];
	uint32_t page[TAKE_SLABS];
	bool mine[TAKE_SLABS];
	want->take = take;
	want->skipped = want->moved = 0;
	want->out = want->print = 0;
	want->list = list;
	want->page = page;
	want->count = 0;
	if (visit_slabs(pool, 0, pool_top(pool), try_slab, want)) return true;
	if (!take || !want->count) return false;
	take_units(want->me, list, want->count, mine, &want->skipped);
	for (unsigned k = 0; k < want->count; k++) {
		if (!mine[k]) continue;
		want->moved++;
		uint64_t ours = ctl_make(CTL_OWNED, want->me->who >> 16, want->me->who & 0xffff, list[k].seen);
		slab_release(pool, &pool->slabs[page[k]], page[k], ours, true);
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

struct making {
	unsigned class, place;
	uint16_t objects, pages;
};

/* Where object 0 lies: moved from slab to slab, so that not all of them use the same cache sets. */
static uint16_t colour(const struct slab_class *known, unsigned pages, uint64_t any)
{
	return (uint16_t)(known->lead + (pages == known->pages ? (any >> 4) % known->colours * known->step : 0));
}

/* Right before the run becomes live, inside an operation of the page layer. */
static void prepare(struct participant *me, const struct page_want *want, uint64_t page)
{
	hp_pool *pool = me->pool;
	struct slab *slab = &pool->slabs[page];
	const struct making *making = want->arg;
	unsigned class = making->class;
	const struct slab_class *known = &pool->classes[class];
	populate(pool, (uint32_t)page); /* failing here means a late fault, which is what the kernel then decides about */
	uint64_t old = atomic_load_explicit(&slab->ctl, memory_order_relaxed);
	atomic_store_explicit(&slab->ctl, by_record(pool, old), memory_order_relaxed);
	atomic_store_explicit(&slab->class, (uint8_t) class, memory_order_relaxed);
	atomic_store_explicit(&slab->first, colour(known, making->pages, old), memory_order_relaxed);
	atomic_store_explicit(&slab->objects, making->objects, memory_order_relaxed);
	atomic_store_explicit(&slab->extra, (uint16_t)(making->place | (known->built ? SLAB_BUILT : 0)),
	                      memory_order_relaxed);
	for (unsigned i = 0; known->built && i < known->objects; i++)
		atomic_store_explicit(&built_of(slab)[i], 0, memory_order_relaxed);
	if (making->place != SLAB_NO_PLACE) cache_place_set(pool, class, making->place, (uint32_t)page, true);
	atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	/* the place may have held the bytes of another slab's objects (built_of) */
	atomic_store_explicit(&slab->next, 0, memory_order_relaxed);
	atomic_store_explicit(&slab->announce, 0, memory_order_relaxed);
	for (unsigned w = 0; w < SLAB_WORDS; w++) /* nothing lives, whatever R has come to */
		atomic_store_explicit(&slab->a[w], atomic_load_explicit(&slab->r[w], memory_order_relaxed),
		                      memory_order_relaxed);
}

/* keep: it is not for the magazine. -EAGAIN: the cache's limit, or it has just been given one. */
static int make_slab(struct participant *me, unsigned class, bool keep)
{
	hp_pool *pool = me->pool;
	const struct slab_class *known = &pool->classes[class];
	struct making making = {.class = class, .place = SLAB_NO_PLACE, .objects = known->objects, .pages = known->pages};
	unsigned have = me->slabs->slabs[class];
	if (!known->cache && have < 2) { /* what is little used is to hold little memory */
		unsigned pages = (unsigned)known->least << (2 * have);
		if (pages < known->pages) {
			making.pages = (uint16_t)pages;
			unsigned objects = pages * HP_PAGE_SIZE / known->size;
			making.objects = (uint16_t)(objects < SLAB_OBJECTS ? objects : SLAB_OBJECTS);
		}
	}
	struct page_want want = {.pages = making.pages,
	                         .node = known->on_node ? known->node : -1,
	                         .strict = known->on_node,
	                         .process = known->process,
	                         .type = PAGE_TYPE_SLAB,
	                         .prepare = prepare,
	                         .arg = &making};
	int64_t page;
	int error = known->cache ? cache_place_claim(pool, class, &making.place, &making.objects) : 0;
	if (error < 0) return error;
	error = page_search(me, &want, &page);
	if (error < 0) {
		if (making.place != SLAB_NO_PLACE) cache_place_unclaim(pool, class, making.place);
		return error;
	}
	struct slab *slab = &pool->slabs[page];
	int first = atomic_load_explicit(&slab->first, memory_order_relaxed);
	for (unsigned i = 0; i < making.pages; i++)
		atomic_store_explicit(&pool->map[(uint64_t)page + i],
		                      map_make(known->reciprocal, (int)(i * HP_PAGE_SIZE / 16) - first / 16, class, i),
		                      memory_order_relaxed);
	participant_begin(me);
	uint64_t old = atomic_load_explicit(&slab->ctl, memory_order_relaxed);
	/* commit: a slab, and ours. Before it the run goes back when our record is recovered. */
	atomic_store_explicit(&slab->ctl, ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, old), memory_order_release);
	struct slab_mag *mag = &me->slabs->mag[class];
	/* a cache that has been given a limit, or ended, since we looked: whoever did that sees the slab, or we see it */
	count_owned(pool, me->slabs, class, slab, 1);
	bool wanted = !known->cache || cache_place_holds(pool, class, making.place);
	if (wanted && (keep || slab_has_any(me->slabs, class) || !load_slab(me, mag, slab, (uint32_t)page, known->size)))
		list_slab(me, slab, class); /* or a signal handler was here */
	participant_end(me);
	if (!wanted) slab_release(pool, slab, (uint32_t)page, atomic_load(&slab->ctl), true);
	if (making.place != SLAB_NO_PLACE) cache_place_set(pool, class, making.place, (uint32_t)page, false);
	return wanted ? 0 : -EAGAIN;
}

int slab_refill(struct participant *me, unsigned class)
{
	hp_pool *pool = me->pool;
	struct wanted want = {.me = me, .class = class, .size = pool->classes[class].size};
	if (!slab_state(me)) return -ENOMEM;
	participant_begin(me);
	bool found = slab_has_any(me->slabs, class) || slab_refill_own(me, class);
	participant_end(me);
	if (found || from_summary(&want)) return 0;
	int error = make_slab(me, class, false);
	if (error == 0 || (error != -ENOMEM && error != -EAGAIN)) return error;
	/* empty slabs of other classes are pages, too */
	if (error == -ENOMEM) slab_purge(me, SLAB_CLASSES);
	for (unsigned round = 0; round < ROUNDS; round++) {
		/* at the limit: nobody takes from the dead, and they may have died inside an operation (page_search knows) */
		if (error == -EAGAIN && round % 16 == 0) recover_dead(pool);
		if (from_anywhere(&want, false) || (error = make_slab(me, class, false)) == 0) return 0;
		if (error != -ENOMEM && error != -EAGAIN) return error;
		uint64_t print = want.print;
		if (from_anywhere(&want, true)) return 0;
		/* two looks at the same are one look at all of it; what it does not show is about to be somewhere */
		bool moving = error == -EAGAIN && (want.print != print || !cache_place_all(pool, class, want.out));
		/* what was moved without an object in it has ended, so that there is room for another */
		if (!want.skipped && !want.moved && !moving) break;
		if (error == -ENOMEM && round >= SHORT_ROUNDS) break;
		if (!want.moved) os_yield(); /* owners in the middle of an operation */
	}
	return error;
}

/* ---- what caches ask ---- */

struct census {
	unsigned class;
	struct participant *me;
	struct slab_census *sum;
	struct take_want *list;
	uint32_t *page;
	unsigned count;
};

static bool is_of(const struct slab *slab, unsigned class)
{
	return class == SLAB_CLASSES || atomic_load_explicit(&slab->class, memory_order_relaxed) == class;
}

static int count_slab(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct census *census = arg;
	unsigned objects = objects_of(slab), live = 0;
	if (!is_of(slab, census->class)) return 0;
	for (unsigned w = 0; w * 64 < objects; w++)
		live += (objects - w * 64 < 64 ? objects - w * 64 : 64) -
		        (unsigned)__builtin_popcountll(free_in(slab, w, objects));
	unsigned state = ctl_state(atomic_load_explicit(&slab->ctl, memory_order_acquire));
	if (state != CTL_OWNED && state != CTL_UNOWNED) return 0;
	census->sum->slabs++;
	census->sum->live += live;
	census->sum->free += objects - live;
	if ((atomic_load_explicit(&slab->extra, memory_order_relaxed) & SLAB_NO_PLACE) == SLAB_NO_PLACE)
		census->sum->unplaced++;
	(void)pool;
	(void)page;
	return 0;
}

void slab_census(hp_pool *pool, unsigned class, struct slab_census *sum)
{
	struct census census = {.class = class, .sum = sum};
	*sum = (struct slab_census){0};
	visit_slabs(pool, 0, pool_top(pool), count_slab, &census);
}

static int end_empty(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct census *census = arg;
	if (!is_of(slab, census->class) || !is_empty(slab)) return 0;
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	unsigned class = atomic_load_explicit(&slab->class, memory_order_relaxed);
	uint64_t budget = may_go(pool, class, true);
	for (unsigned k = 0; k < census->count && budget; k++) budget -= is_of(&pool->slabs[census->page[k]], class);
	if (!budget) return 0;
	if (ctl_state(seen) == CTL_UNOWNED) slab_end(pool, slab, page, seen, true);
	if (ctl_state(seen) == CTL_OWNED && ctl_who(seen) != census->me->who && census->count < TAKE_SLABS) {
		census->page[census->count] = page;
		census->list[census->count++] = (struct take_want){.ctl = &slab->ctl, .seen = seen};
	}
	return census->count == TAKE_SLABS;
}

/* Into the list, whatever the notes say. */
static int relist(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct participant *me = arg;
	unsigned class = atomic_load_explicit(&slab->class, memory_order_relaxed);
	(void)pool;
	(void)page;
	if (!slab_is_mine(me, slab) || !has_free(slab)) return 0;
	atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	list_slab(me, slab, class);
	return 0;
}

/* The thread's own slabs without live objects, also those that others have emptied behind its back. */
static void purge_thoroughly(struct participant *me, unsigned class)
{
	struct slab_state *state = me->slabs;
	if (state == &slab_nothing) return;
	participant_begin(me);
	state_forget(state);
	visit_slabs(me->pool, 0, pool_top(me->pool), relist, me);
	participant_end(me);
	slab_purge(me, class);
}

static uint64_t reclaim_class(struct participant *me, unsigned class, unsigned *skipped)
{
	hp_pool *pool = me->pool;
	struct take_want list[TAKE_SLABS];
	uint32_t page[TAKE_SLABS];
	bool mine[TAKE_SLABS];
	struct slab_census sum, before;
	unsigned moved = 1;
	slab_census(pool, class, &before);
	purge_thoroughly(me, class);
	while (moved) { /* until a pass finds nothing that could be had */
		struct census census = {.class = class, .me = me, .sum = &sum, .list = list, .page = page};
		moved = 0;
		visit_slabs(pool, 0, pool_top(pool), end_empty, &census);
		if (!census.count) break;
		take_units(me, list, census.count, mine, skipped);
		for (unsigned k = 0; k < census.count; k++) {
			if (!mine[k]) continue;
			moved++;
			slab_release(pool, &pool->slabs[page[k]], page[k],
			             ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, list[k].seen), true);
		}
	}
	slab_census(pool, class, &sum);
	return before.slabs > sum.slabs ? before.slabs - sum.slabs : 0;
}

uint64_t slab_reclaim(struct participant *me, unsigned class)
{
	unsigned skipped = 0;
	return reclaim_class(me, class, &skipped);
}

int slab_prime(struct participant *me, unsigned class, uint64_t objects)
{
	struct slab_census sum;
	uint64_t last = 0;
	if (!slab_state(me) || objects > me->pool->capacity / me->pool->classes[class].size) return -ENOMEM;
	for (bool again = false;; again = true) {
		slab_census(me->pool, class, &sum);
		if (sum.free >= objects) return 0;
		/* near exhaustion the page layer takes slabs without objects back to make new ones of */
		if (again && sum.free <= last) return -ENOMEM;
		last = sum.free;
		uint64_t slabs = (objects - sum.free + me->pool->classes[class].objects - 1) / me->pool->classes[class].objects;
		for (; slabs; slabs--) {
			int error = make_slab(me, class, true);
			if (error < 0) return error;
		}
	}
}

uint8_t slab_built(struct slab *slab, unsigned index)
{
	return atomic_load_explicit(&built_of(slab)[index], memory_order_acquire);
}

void slab_set_built(struct slab *slab, unsigned index, uint8_t built)
{
	atomic_store_explicit(&built_of(slab)[index], built, memory_order_release);
}

static int raze_slab(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct census *census = arg;
	struct participant *me = census->me;
	if (atomic_load_explicit(&slab->class, memory_order_relaxed) != census->class || !has_built(slab)) return 0;
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	bool was_mine = ctl_state(seen) == CTL_OWNED && ctl_who(seen) == me->who, mine = was_mine;
	uint64_t ours = was_mine ? seen : ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, seen);
	if (ctl_state(seen) == CTL_UNOWNED) {
		mine = atomic_compare_exchange_strong(&slab->ctl, &seen, ours);
	} else if (ctl_state(seen) == CTL_OWNED && !was_mine) {
		struct take_want want = {.ctl = &slab->ctl, .seen = seen};
		unsigned skipped = 0;
		take_units(me, &want, 1, &mine, &skipped);
	}
	if (!mine) return 0;
	destroy_objects(pool, slab, page);
	if (!was_mine) slab_release(pool, slab, page, ours, true);
	return 0;
}

void slab_raze(struct participant *me, unsigned class)
{
	struct census census = {.class = class, .me = me};
	participant_begin(me);
	empty_magazine(me, class); /* handlers of this thread find nothing of it at hand */
	participant_end(me);
	visit_slabs(me->pool, 0, pool_top(me->pool), raze_slab, &census);
}

/* Slabs of a cache that may go without its free objects becoming fewer than a mark. */
static uint64_t may_go(hp_pool *pool, unsigned class, bool asked)
{
	const struct slab_class *known = &pool->classes[class];
	if (!known->cache) return UINT64_MAX;
	uint64_t low = atomic_load(&known->cache->low), high = atomic_load(&known->cache->high);
	uint64_t keep = asked || high == UINT64_MAX ? low : high;
	struct slab_census sum;
	if (keep == 0) return UINT64_MAX;
	slab_census(pool, class, &sum);
	return sum.free > keep ? (sum.free - keep) / known->objects : 0;
}

bool slab_at_place(hp_pool *pool, uint32_t page, unsigned class, unsigned place)
{
	struct slab *slab = page < page_limit(pool) ? slab_at(pool, page) : NULL;
	return slab && atomic_load_explicit(&slab->class, memory_order_relaxed) == class &&
	       (atomic_load_explicit(&slab->extra, memory_order_relaxed) & SLAB_NO_PLACE) == place;
}

/* ---- what the pool asks ---- */

static int release_if_owned(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) == CTL_OWNED && ctl_who(seen) == *(const uint32_t *)arg)
		slab_release(pool, slab, page, seen, false);
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
	state_forget(state);
	visit_slabs(me->pool, 0, pool_top(me->pool), forget_if_owned, &me->who);
}

static int finish_half(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) == CTL_RECOVERING && ctl_who(seen) == *(const uint32_t *)arg)
		slab_end(pool, slab, page, seen, true);
	return 0;
}

static void recover_record_slabs(hp_pool *pool, uint32_t record, uint32_t generation)
{
	uint32_t who = who_make(record, generation) | NOT_A_SLOT << 16;
	visit_slabs(pool, 0, pool_top(pool), finish_half, &who);
}

/* For pages. */
static bool reclaim(struct participant *me, unsigned *skipped)
{
	return reclaim_class(me, SLAB_CLASSES, skipped) > 0;
}

const struct pool_layer slab_layer = {
	.reread = reread, .recover_slot = release_all, .recover_record = recover_record_slabs, .reclaim = reclaim};
