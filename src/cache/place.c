/* See cache/place.h. A word of the directory: {claim:1, count:15, generation:7, record + 1:13, page + 1:28}. */
#include "cache/place.h"
#include "pool/participant.h"
#include "pool/record.h"
#include "slab/slab.h"
#include <errno.h>
#include <string.h>

#define CLAIM (UINT64_C(1) << 63)
#define RECUT_TRIES 8

static _Atomic uint64_t *place_of(hp_pool *pool, unsigned class, unsigned place)
{
	return &pool->places[(uint64_t)(class - CACHE_FIRST_CLASS) * CACHE_PLACES + place];
}

static uint64_t word_make(const hp_pool *pool, uint64_t old, bool claim, uint64_t page1)
{
	uint64_t count = ((old >> 48) + 1) & 0x7fff, by = 0;
	if (claim) by = CLAIM | (uint64_t)(pool->record_generation & 0x7f) << 41 | (uint64_t)(pool->record + 1) << 28;
	return by | count << 48 | (page1 & 0xfffffff);
}

static uint32_t page1_of(uint64_t word)
{
	return (uint32_t)(word & 0xfffffff);
}

/* Nobody's claim any more, and no slab's place. */
static bool is_over(hp_pool *pool, unsigned class, unsigned place, uint64_t word)
{
	if (word & CLAIM) {
		uint32_t record = (uint32_t)(word >> 28 & 0x1fff) - 1;
		uint64_t now = record < pool->record_count ? atomic_load(&pool->records[record].word) : 0;
		bool same = record_state(now) == RECORD_LIVE && (record_generation(now) & 0x7f) == (word >> 41 & 0x7f);
		if (same && record_alive(pool, record) != 0) return false;
	}
	return !page1_of(word) || !slab_at_place(pool, page1_of(word) - 1, class, place);
}

static uint64_t limit_of(const hp_pool *pool, unsigned class)
{
	const struct pool_cache *cache = pool->classes[class].cache;
	return cache_limit(cache);
}

static uint64_t places_for(const hp_pool *pool, unsigned class, uint64_t limit)
{
	uint64_t each = pool->classes[class].objects, places = limit / each + (limit % each != 0);
	return places < CACHE_PLACES ? places : CACHE_PLACES;
}

static uint16_t objects_at(const hp_pool *pool, unsigned class, uint64_t limit, uint64_t place)
{
	uint64_t each = pool->classes[class].objects, left = limit - place * each;
	return (uint16_t)(left < each ? left : each);
}

bool cache_has_ended(const hp_pool *pool, unsigned class)
{
	const struct slab_class *known = &pool->classes[class];
	uint64_t word = atomic_load(&known->cache->word);
	return cache_generation(word) != known->generation || cache_state(word) == CACHE_FREE;
}

bool cache_insist(const hp_pool *pool, unsigned class)
{
	const struct slab_class *known = &pool->classes[class];
	uint64_t word = atomic_load(&known->cache->word);
	while (cache_generation(word) == known->generation) {
		if (cache_state(word) == CACHE_LIVE) return true;
		if (cache_state(word) != CACHE_ENDING) return false;
		/* commit: it goes on; who was about to end it finds it busy */
		if (atomic_compare_exchange_strong(&known->cache->word, &word, cache_word(CACHE_LIVE, known->generation)))
			return true;
	}
	return false;
}

int cache_place_claim(hp_pool *pool, unsigned class, unsigned *place, uint16_t *objects)
{
	if (cache_has_ended(pool, class))
		return -ESTALE; /* one that is being ended is kept by a slab, not by a wish for one */
	uint64_t limit = limit_of(pool, class);
	*place = SLAB_NO_PLACE;
	*objects = pool->classes[class].objects;
	if (!limit) return 0;
	uint64_t places = places_for(pool, class, limit);
	for (unsigned i = 0; i < places; i++) {
		_Atomic uint64_t *word = place_of(pool, class, i);
		uint64_t old = atomic_load_explicit(word, memory_order_acquire);
		if (!is_over(pool, class, i, old)) continue;
		/* commit: ours to make a slab for */
		if (!atomic_compare_exchange_strong(word, &old, word_make(pool, old, true, 0))) continue;
		*place = i;
		*objects = objects_at(pool, class, limit, i);
		return 0;
	}
	/* whoever raised the limit may have died before he said so to the slab that was the last */
	cache_places_widen(pool, class);
	return -EAGAIN;
}

bool cache_place_all(const hp_pool *pool, unsigned class, uint64_t objects)
{
	return objects >= limit_of(pool, class);
}

void cache_place_unclaim(hp_pool *pool, unsigned class, unsigned place)
{
	_Atomic uint64_t *word = place_of(pool, class, place);
	uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
	atomic_compare_exchange_strong(word, &old, word_make(pool, old, false, 0));
}

void cache_place_set(hp_pool *pool, unsigned class, unsigned place, uint32_t page, bool claimed)
{
	_Atomic uint64_t *word = place_of(pool, class, place);
	uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
	uint32_t record = (uint32_t)(old >> 28 & 0x1fff) - 1;
	if (!(old & CLAIM) || record != pool->record) return; /* the slab has gone again, and its place with it */
	if (!claimed && page1_of(old) != page + 1) return;
	atomic_compare_exchange_strong(word, &old, word_make(pool, old, claimed, (uint64_t)page + 1));
}

bool cache_place_fits(const hp_pool *pool, unsigned class, unsigned place, uint16_t objects)
{
	/* one that was made in its place has slabs only from its beginning on, and they are cut for that one */
	if (cache_has_ended(pool, class)) return false;
	uint64_t limit = limit_of(pool, class);
	return !limit || (place < places_for(pool, class, limit) && objects <= objects_at(pool, class, limit, place));
}

bool cache_place_holds(hp_pool *pool, unsigned class, unsigned place, uint16_t objects)
{
	atomic_thread_fence(memory_order_seq_cst); /* after the slab's ctl; pairs with cache_end and set_hard_limit */
	return cache_insist(pool, class) && cache_place_fits(pool, class, place, objects);
}

uint64_t cache_place_read(hp_pool *pool, unsigned class, unsigned place)
{
	return class >= CACHE_FIRST_CLASS && place < CACHE_PLACES
	           ? atomic_load_explicit(place_of(pool, class, place), memory_order_acquire)
	           : 0;
}

void cache_place_free(hp_pool *pool, unsigned class, unsigned place, uint64_t read)
{
	if (class < CACHE_FIRST_CLASS || place >= CACHE_PLACES) return;
	atomic_compare_exchange_strong(place_of(pool, class, place), &read, word_make(pool, read, false, 0));
}

/* How a slab is cut, whose class and which place it has: a word with the number of its objects. */
struct cut {
	uint16_t first, objects;
	uint8_t class, noted;
	uint16_t extra;
};
_Static_assert(sizeof(struct cut) == sizeof(uint64_t) &&
                   offsetof(struct slab, extra) == offsetof(struct slab, first) + 6 &&
                   offsetof(struct slab, first) % 8 == 0,
               "they lie in one word");

/* Changes the cut of the slab that is at the place now, and not of another that begins there meanwhile: to another place,
 * and to as many objects if it holds fewer. False: it has gone. */
static bool recut(hp_pool *pool, struct slab *slab, unsigned class, unsigned place, unsigned other, uint16_t objects)
{
	_Atomic uint64_t *word = (_Atomic uint64_t *)(void *)&slab->first;
	uint64_t seen = atomic_load_explicit(word, memory_order_acquire), wanted;
	for (unsigned tries = 0; tries < RECUT_TRIES; tries++) { /* others change `noted` */
		struct cut cut;
		memcpy(&cut, &seen, sizeof cut);
		if (cut.class != class || (cut.extra & SLAB_NO_PLACE) != place) return false;
		if (!slab_at_place(pool, (uint32_t)(slab - pool->slabs), class, place)) return false;
		if (cut.objects >= objects && place == other) return true;
		if (cut.objects < objects) cut.objects = objects;
		cut.extra = (uint16_t)((cut.extra & ~SLAB_NO_PLACE) | other);
		memcpy(&wanted, &cut, sizeof wanted);
		if (atomic_compare_exchange_strong(word, &seen, wanted)) return true;
	}
	return false;
}

void cache_places_widen(hp_pool *pool, unsigned class)
{
	uint64_t limit = limit_of(pool, class), places = places_for(pool, class, limit);
	for (unsigned i = 0; i < places; i++) {
		uint32_t page1 = page1_of(atomic_load_explicit(place_of(pool, class, i), memory_order_acquire));
		if (!page1 || !slab_at_place(pool, page1 - 1, class, i)) continue;
		recut(pool, &pool->slabs[page1 - 1], class, i, i, objects_at(pool, class, limit, i));
	}
}

struct assigning {
	hp_pool *pool;
	unsigned class;
	uint64_t full, next; /* places for slabs with all their objects, and where one may be free */
	bool busy;
};

static bool has_place(const struct assigning *to, uint32_t page)
{
	const struct slab *slab = &to->pool->slabs[page];
	unsigned place = atomic_load_explicit(&slab->extra, memory_order_relaxed) & SLAB_NO_PLACE;
	uint16_t objects = atomic_load_explicit(&slab->objects, memory_order_relaxed);
	return cache_place_fits(to->pool, to->class, place, objects) &&
	       page1_of(atomic_load_explicit(place_of(to->pool, to->class, place), memory_order_acquire)) == page + 1;
}

/* As in making a slab: the place is claimed and names the page, then the slab says that it has it, then the claim goes. Whoever
 * dies in between leaves a place that is taken if the slab says so, and otherwise free. */
static void assign(void *arg, uint32_t page, uint64_t ctl, unsigned live, unsigned free)
{
	struct assigning *to = arg;
	hp_pool *pool = to->pool;
	struct slab *slab = &pool->slabs[page];
	unsigned place = atomic_load_explicit(&slab->extra, memory_order_relaxed) & SLAB_NO_PLACE;
	(void)ctl, (void)live, (void)free;
	if (has_place(to, page)) return;
	for (; to->next < to->full; to->next++) {
		unsigned other = (unsigned)to->next;
		_Atomic uint64_t *word = place_of(pool, to->class, other);
		uint64_t old = atomic_load_explicit(word, memory_order_acquire);
		if (!is_over(pool, to->class, other, old) ||
		    !atomic_compare_exchange_strong(word, &old, word_make(pool, old, true, (uint64_t)page + 1)))
			continue;
		/* commit: the slab has this place */
		if (recut(pool, slab, to->class, place, other, 0))
			cache_place_set(pool, to->class, other, page, false);
		else /* it has ended, or somebody is always quicker: if it is still there, the next look finds it */
			cache_place_unclaim(pool, to->class, other);
		to->next++;
		return;
	}
	to->busy = true;
}

static void look_at(void *arg, uint32_t page, uint64_t ctl, unsigned live, unsigned free)
{
	struct assigning *to = arg;
	(void)ctl, (void)live, (void)free;
	to->busy |= !has_place(to, page);
}

int cache_places_assign(hp_pool *pool, unsigned class)
{
	struct assigning to = {.pool = pool, .class = class, .full = limit_of(pool, class) / pool->classes[class].objects};
	slab_each(pool, class, assign, &to);
	if (!to.busy) slab_each(pool, class, look_at, &to);
	return to.busy ? -EBUSY : 0;
}

int cache_places_populate(hp_pool *pool, unsigned class, uint64_t places)
{
	return pool_control_populate_at(pool, (char *)place_of(pool, class, 0), places * sizeof(uint64_t));
}
