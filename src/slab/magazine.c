/* What a thread has at hand, and the slabs it knows to own: all of it private, and only a view. */
#include "slab/internal.h"
#include <string.h>

#define KEEP_PAGES 32u /* in slabs without objects a thread keeps, and an eighth of what it owns, */
#define KEEP_MOST 256u /* and at most so many more, as it has turned out to need */

static void forget_known(struct slab_mag *mag)
{
	while (mag->known != mag->top) *--mag->known = NULL;
	mag->batch_n = 0;
}

/* Nothing is at hand, nothing is known to be owned. */
void slab_state_forget(struct slab_state *state)
{
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		state->mag[c].top = state->mag[c].base;
		forget_known(&state->mag[c]);
		state->current[c] = NULL;
		state->word[c].free = 0;
		state->list[c] = 0;
		state->slabs[c] = 0;
	}
	state->owned = state->empty = 0;
}

/* Magazines get room when they are filled for the first time: caches are made meanwhile. */
void slab_state_renew(struct participant *me)
{
	struct slab_state *state = slab_state(me);
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		state->mag[c].base = state->stack[c].object + 1;
		if (!state->mag[c].known) state->mag[c].known = state->mag[c].base;
		state->mag[c].limit = state->mag[c].base;
	}
	slab_state_forget(state);
	state->used = false;
	state->recent = &state->mag[0];
}

/* Inside an operation, nothing of the class at hand, slab owned: the next of its words that has something free is. */
bool slab_load(struct participant *me, unsigned class, struct slab *slab, uint32_t size)
{
	struct slab_state *state = slab_state(me);
	struct slab_word *word = &state->word[class];
	unsigned objects = slab_objects(slab), from = 0;
	if (state->current[class] == slab && word->a >= slab->a && word->a < slab->a + SLAB_WORDS)
		from = (unsigned)(word->a - slab->a) + 1;
	state->current[class] = slab;
	/* the current one needs no list */
	atomic_store_explicit(&slab->noted, SLAB_LISTED | SLAB_CURRENT, memory_order_relaxed);
	char *start = slab_start(me->pool, slab, objects, size);
	for (unsigned k = 0; k < SLAB_WORDS && likely(start != NULL); k++) {
		unsigned w = from + k < SLAB_WORDS ? from + k : from + k - SLAB_WORDS;
		uint64_t free = slab_free_in(me->pool, slab, w, objects);
		if (!free) continue;
		word->free = free;
		word->a = &slab->a[w];
		word->base = start + (uint64_t)w * 64 * size;
		word->size = size;
		return true;
	}
	return false;
}

/* Inside an operation: forgets the current slab, which has nothing left. */
void slab_drop_current(struct participant *me, unsigned class)
{
	struct slab *slab = slab_state(me)->current[class];
	uint32_t page = (uint32_t)(slab - me->pool->slabs);
	slab_state(me)->current[class] = NULL;
	atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	/* what was freed remotely right before that store has told nobody */
	if (slab_has_free(me->pool, slab)) slab_note(me->pool, slab, page);
}

static void count(uint32_t *counter, int32_t more)
{
	*counter = more < 0 && *counter < (uint32_t)-more ? 0 : *counter + (uint32_t)more;
}

/* Each slab is counted once, until it is looked at again: objects taken from it meanwhile do not matter. */
static void count_empty(const hp_pool *pool, struct slab_state *state, struct slab *slab)
{
	atomic_store_explicit(&slab->noted, SLAB_LISTED | SLAB_COUNTED, memory_order_relaxed);
	count(&state->empty, (int32_t)slab_pages(pool, slab));
}

static void uncount_empty(const hp_pool *pool, struct slab_state *state, struct slab *slab)
{
	if (!(atomic_load_explicit(&slab->noted, memory_order_relaxed) & SLAB_COUNTED)) return;
	atomic_store_explicit(&slab->noted, SLAB_LISTED, memory_order_relaxed);
	count(&state->empty, -(int32_t)slab_pages(pool, slab));
}

void slab_count_owned(const hp_pool *pool, struct slab_state *state, unsigned class, const struct slab *slab, int sign)
{
	count(&state->owned, sign * (int32_t)slab_pages(pool, slab));
	state->used = true;
	if (sign > 0 ? state->slabs[class] < UINT16_MAX : state->slabs[class] > 0)
		state->slabs[class] = (uint16_t)(state->slabs[class] + sign);
}

bool slab_refill_own(struct participant *me, unsigned class)
{
	hp_pool *pool = me->pool;
	struct slab_state *state = slab_state(me);
	struct slab_mag *mag = &state->mag[class];
	uint32_t size = pool->classes[class].size;
	size_t room = (size_t)(mag->limit - mag->base) * 2, most = pool->classes[class].magazine_most;
	mag->limit = mag->base + (room == 0     ? pool->classes[class].magazine
	                          : room < most ? room
	                                        : most); /* it is used up */
	struct slab *current = state->current[class];
	if (current) {
		if (slab_load(me, class, current, size)) return true;
		slab_drop_current(me, class);
	}
	while (state->list[class]) {
		uint32_t page = state->list[class] - 1;
		struct slab *slab = &pool->slabs[page];
		/* taken from us, or spoilt: what was behind it is found by the summary, or the last search */
		if (!slab_is_mine(me, slab) || slab->class != class) {
			state->list[class] = 0;
			return false;
		}
		state->list[class] = slab_next(pool, slab);
		atomic_store_explicit(&slab->next, 0, memory_order_relaxed); /* no loop can be followed for ever */
		uncount_empty(pool, state, slab);
		if (slab_load(me, class, slab, size)) return true;
		slab_drop_current(me, class);
	}
	return false;
}

/* Inside an operation: others than the magazine are to know that the slab has free objects. */
void slab_list(struct participant *me, struct slab *slab, unsigned class)
{
	struct slab_state *state = slab_state(me);
	uint32_t page1 = (uint32_t)(slab - me->pool->slabs) + 1;
	if (state->current[class] == slab || atomic_load_explicit(&slab->noted, memory_order_relaxed) & SLAB_LISTED) return;
	atomic_store_explicit(&slab->next, state->list[class], memory_order_relaxed);
	atomic_store_explicit(&slab->noted, SLAB_LISTED, memory_order_relaxed);
	state->list[class] = page1;
}

bool slab_given(struct participant *me, struct slab *slab, unsigned class)
{
	struct slab_state *state = slab_state(me);
	if (state->current[class] == slab) return false; /* looked at when the magazine has run out */
	slab_list(me, slab, class);
	if (atomic_load_explicit(&slab->noted, memory_order_relaxed) & SLAB_COUNTED || !slab_is_empty(me->pool, slab))
		return false;
	count_empty(me->pool, state, slab);
	state->untidy[class / 64] |= UINT64_C(1) << (class % 64);
	const struct pool_cache *cache = me->pool->classes[class].cache;
	if (cache && atomic_load_explicit(&cache->high, memory_order_relaxed) != UINT64_MAX) return true;
	return state->empty > KEEP_PAGES + state->keep + state->owned / 8;
}

/* Inside an operation: the objects of a magazine are left to their slabs. */
void slab_empty_magazine(struct participant *me, unsigned class)
{
	struct slab_mag *mag = &slab_state(me)->mag[class];
	slab_state(me)->word[class].free = 0; /* that of the current slab */
	for (; mag->top != mag->base; mag->top--)
		slab_list(me, slab_of_word(slab_word_at(*slab_at_of(mag->top - 1))), class);
	forget_known(mag); /* who empties it is about to give slabs up */
}

/* Takes the empty slabs out of the list, and ends them, as far as a cache's marks allow. `asked`: also the current one. */
static void purge(struct participant *me, unsigned class, bool asked)
{
	hp_pool *pool = me->pool;
	uint64_t budget = slab_may_go(pool, class, asked);
	struct slab_state *state = slab_state(me);
	uint32_t ending = 0, staying = 0, at, next;
	participant_begin(me);
	/* what ends must have nothing in the magazine */
	slab_empty_magazine(me, class);
	struct slab *current = state->current[class];
	if (current && asked) {
		atomic_store_explicit(&current->next, state->list[class], memory_order_relaxed);
		atomic_store_explicit(&current->noted, SLAB_LISTED, memory_order_relaxed);
		state->list[class] = (uint32_t)(current - pool->slabs) + 1;
		state->current[class] = NULL;
	}
	for (at = state->list[class]; at; at = next) {
		struct slab *slab = &pool->slabs[at - 1];
		if (!slab_is_mine(me, slab) || slab->class != class) break;
		next = slab_next(pool, slab);
		uncount_empty(pool, state, slab);
		bool ends = budget && slab_is_empty(me->pool, slab);
		uint32_t *list = ends ? &ending : &staying;
		if (ends) {
			budget--;
			slab_count_owned(pool, state, class, slab, -1);
		}
		atomic_store_explicit(&slab->next, *list, memory_order_relaxed);
		*list = at;
		if (next == at) break;
	}
	state->list[class] = staying;
	state->untidy[class / 64] &= ~(UINT64_C(1) << (class % 64));
	participant_end(me);
	for (at = ending; at; at = next) {
		struct slab *slab = &pool->slabs[at - 1];
		next = slab_next(pool, slab);
		uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
		if (ctl_state(seen) != CTL_OWNED || ctl_who(seen) != me->who) break;
		slab_release(pool, slab, at - 1, seen, true);
	}
}

void slab_purge(struct participant *me, unsigned class)
{
	if (!slab_state(me)->used) return;
	for (unsigned c = class < SLAB_CLASSES ? class : 0; c < (class < SLAB_CLASSES ? class + 1 : SLAB_CLASSES); c++)
		if (slab_state(me)->list[c] || slab_state(me)->current[c] || slab_has_any(slab_state(me), c))
			purge(me, c, true);
}

/* What was given back and is made again shows that too little was kept; what was not, too much. */
void slab_missed(struct slab_state *state, uint32_t pages)
{
	if (pages > state->gone) pages = state->gone;
	state->gone -= pages;
	state->keep = state->keep + pages < KEEP_MOST ? state->keep + pages : KEEP_MOST;
}

void slab_tidy(struct participant *me, unsigned class)
{
	const struct pool_cache *cache = me->pool->classes[class].cache;
	struct slab_state *state = slab_state(me);
	uint32_t owned = state->owned;
	participant_hold(me);
	state->keep -= state->gone < state->keep ? state->gone : state->keep;
	if (cache && atomic_load(&cache->high) != UINT64_MAX)
		purge(me, class, false);
	else if (slab_state(me)->owned < 4 * KEEP_PAGES)
		slab_purge(me, SLAB_CLASSES); /* little is left: all of it */
	else
		for (unsigned w = 0; w < SLAB_CLASSES / 64; w++)
			for (uint64_t rest = slab_state(me)->untidy[w]; rest; rest &= rest - 1)
				purge(me, w * 64 + (unsigned)__builtin_ctzll(rest), true);
	state->gone = owned > state->owned ? owned - state->owned : 0;
	participant_let_go(me);
}
