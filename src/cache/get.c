/* Getting and putting: the exported twins of inline.h, and everything that those leave to them. */
#include "cache/cache.h"
#include "cache/region.h"
#include "debug/debug.h"
#include "page/page.h"
#include "slab/batch.h"
#include "os/os.h"
#include <hugepool/inline.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The inline forms see the same structures, under names of their own. */
#define SAME(inside, field, outside, name) \
	_Static_assert(offsetof(struct inside, field) == offsetof(struct outside, name), #outside " is as inline.h says")
SAME(participant_thread, current, hp_inline_thread, current);
SAME(participant_thread, distance, hp_inline_thread, distance);
SAME(participant, fast, hp_inline_participant, fast);
SAME(participant, slot, hp_inline_participant, slot);
SAME(pool_slot, in_op, hp_inline_slot, in_op);
SAME(pool_slot, news, hp_inline_slot, news);
SAME(pool_slot, section, hp_inline_slot, section);
SAME(participant, epoch, hp_inline_participant, epoch);
SAME(slab_mag, top, hp_inline_magazine, top);
SAME(slab_mag, slot, hp_inline_magazine, slot);
SAME(slab, a, hp_inline_slab, a);
SAME(slab, r, hp_inline_slab, r);
SAME(slab, noted, hp_inline_slab, noted);
SAME(hp_cache, waiting, hp_inline_cache, waiting);
SAME(hp_cache, magazine, hp_inline_cache, magazine);
_Static_assert(SLAB_QUIET == 12 && sizeof(struct slab) == 128 && SLAB_STACK == HP_INLINE_STACK,
               "magazines and slabs are as inline.h says");

/* ---- getting ---- */

void *cache_take(hp_cache *cache, unsigned run, int *error)
{
	if (unlikely(cache->regions)) return regions_take(cache, run ? run : 1, error);
	struct participant *me = participant_get(cache->pool, error);
	void *object = NULL;
	if (!me) return NULL;
	participant_hold(me);
	if (run) {
		char *first = NULL;
		*error = slab_take_run(me, cache->class, run, &first);
		participant_let_go(me);
		return *error == 0 ? first : NULL;
	}
	do {
		participant_begin(me);
		object = slab_at_hand(slab_state(me), cache->class);
		participant_end(me);
	} while (!object && (*error = slab_refill(me, cache->class)) == 0);
	participant_let_go(me);
	return object;
}

/* Constructed, zero: what the options promise. NULL: the constructor refused, and the object is back. */
static void *finish(hp_cache *cache, void *object, unsigned flags, int *error)
{
	struct slab *slab;
	unsigned index;
	if (cache->flags & HP_CACHE_ZERO) memset(object, 0, cache->size);
	if (!cache->ctor || cache_find(cache, object, &slab, &index) < 0) return object;
	uint8_t epoch = cache_epoch(cache), built = slab_built(slab, index);
	if (built == epoch) return object;
	if (built) { /* from before an invalidation */
		slab_set_built(slab, index, 0);
		if (cache->dtor) cache->dtor(cache->arg, object);
	}
	if (cache->ctor(cache->arg, object, flags) == 0) {
		slab_set_built(slab, index, epoch);
		return object;
	}
	hp_cache_put(cache, object);
	*error = -ECANCELED;
	return NULL;
}

/* What is said when there is none. */
static void complain(hp_cache *cache, int error, unsigned flags)
{
	struct pool_cache *shared = cache->shared;
	atomic_fetch_add_explicit(&shared->fails, 1, memory_order_relaxed);
	if (error == -EAGAIN && atomic_load_explicit(&shared->warning[0], memory_order_relaxed)) {
		uint64_t last = atomic_load(&shared->warned), now = os_now_ns();
		char text[CACHE_WARNING_MAX];
		for (size_t i = 0; i < sizeof text; i++)
			text[i] = atomic_load_explicit(&shared->warning[i], memory_order_relaxed);
		text[sizeof text - 1] = 0;
		if ((!last || now - last >= atomic_load(&shared->every)) &&
		    atomic_compare_exchange_strong(&shared->warned, &last, now))
			pool_log(cache->pool, "hugepool: cache %s: %s", hp_cache_name(cache), text);
	}
	if (flags & HP_CACHE_URGENT) {
		pool_log(cache->pool, "hugepool: cache %s: no object for a caller that cannot do without (%s)",
		         hp_cache_name(cache), error == -EAGAIN ? "hard limit" : strerror(-error));
		abort();
	}
}

/* By every means there is, and waiting where the flags say so: raw. */
static void *obtain(hp_cache *cache, unsigned run, unsigned flags, uint64_t ns, int *why)
{
	int error = 0;
	if (flags & ~(HP_CACHE_WAIT | HP_CACHE_LIMITFAIL | HP_CACHE_URGENT)) {
		*why = -EINVAL;
		return NULL;
	}
	if (unlikely(debug_on(cache->pool)) && !(flags & (HP_CACHE_WAIT | HP_CACHE_URGENT)) && debug_fails(cache->pool)) {
		*why = -ENOMEM;
		return NULL;
	}
	void *object = cache_is_live(cache) ? cache_take(cache, run, &error) : NULL;
	if (!object && !error) error = -ESTALE;
	if ((error == -ENOMEM || error == -EAGAIN) && cache->drain) {
		cache->drain(cache->drain_arg, flags);
		object = cache_take(cache, run, &error);
	}
	bool may_wait = error == -ENOMEM || (error == -EAGAIN && !(flags & HP_CACHE_LIMITFAIL));
	if (!object && (error == -EAGAIN || error == -ENOMEM)) {
		bool waits = flags & HP_CACHE_WAIT && may_wait && ns;
		complain(cache, error, waits ? 0 : flags);
		if (waits) {
			uint64_t now = os_now_ns();
			object = cache_wait(cache, run, flags, ns > UINT64_MAX - now ? UINT64_MAX : now + ns, &error);
		}
	}
	struct slab *slab;
	unsigned index;
	if (object && unlikely(!cache_is_live(cache))) {
		/* ended and made anew since we looked: what we have is the new one's, which cannot end before we give it back */
		if (cache_find(cache, object, &slab, &index) == 0)
			slab_free_remote(regions_of(cache, slab)->pool, slab, index >> 6, parity_mask(index & 63, run ? run : 1));
		object = NULL;
		error = -ESTALE;
	}
	*why = error;
	return object;
}

static void count(const hp_cache *cache, _Atomic uint64_t *counter, size_t n)
{
	if (cache->flags & HP_CACHE_COUNT) atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static __attribute__((noinline)) void *get_rest(hp_cache *cache, unsigned flags, uint64_t ns, const void *caller)
{
	int error;
	void *object = obtain(cache, 0, flags, ns, &error);
	if (object) count(cache, &cache->shared->gets, 1);
	if (object && unlikely(debug_on(cache->pool))) debug_got(regions_at(cache, object), object, caller);
	if (object) object = finish(cache, object, flags, &error);
	if (!object) errno = -error;
	return object;
}

/* Goes on inside an operation, where the magazine is empty. */
static __attribute__((noinline)) void *get_refill(struct participant *me, hp_cache *cache, unsigned flags, uint64_t ns,
                                                  const void *caller)
{
	char *object = slab_at_hand(slab_state(me), cache->class);
	if (!object && slab_refill_own(me, cache->class)) object = slab_at_hand(slab_state(me), cache->class);
	participant_end_fast(me->slot);
	return likely(object != NULL) ? object : get_rest(cache, flags, ns, caller);
}

/* As cache_begin, in a pool beyond those that have a place in regions. */
static struct participant *begin_unplaced(hp_cache *cache)
{
	if (likely(cache->pool->place < PARTICIPANT_PLACES)) return NULL;
	participant_switch(cache->pool);
	struct participant *me = hp_thread_current;
	if (atomic_load_explicit(&me->fast, memory_order_relaxed) !=
	    atomic_load_explicit(&cache->fast, memory_order_relaxed))
		return NULL;
	return participant_try_begin(me->slot) ? me : NULL;
}

static __attribute__((noinline)) void *get_slow(hp_cache *cache, unsigned flags, uint64_t ns, const void *caller)
{
	struct participant *me = begin_unplaced(cache);
	return me ? get_refill(me, cache, flags, ns, caller) : get_rest(cache, flags, ns, caller);
}

static inline __attribute__((always_inline)) void *get(hp_cache *cache, unsigned flags, uint64_t ns)
{
	struct slab_mag *mag;
	struct pool_slot *slot = cache_enter(cache, &mag);
	if (likely(slot != NULL)) {
		char *object = slab_take(mag);
		if (unlikely(!object))
			return get_refill(cache_participant(cache, mag), cache, flags, ns, __builtin_return_address(0));
		participant_end_fast(slot);
		return object;
	}
	return get_slow(cache, flags, ns, __builtin_return_address(0));
}

void *hp_cache_get(hp_cache *cache, unsigned flags)
{
	return get(cache, flags, UINT64_MAX);
}

void *hp_cache_get_timed(hp_cache *cache, unsigned flags, uint64_t ns)
{
	return get(cache, flags, ns);
}

static __attribute__((noinline)) int get_bulk_rest(hp_cache *cache, unsigned flags, size_t n, void **objects)
{
	size_t have = 0;
	struct participant *me = cache_begin(cache);
	/* as many as the magazine and the thread's slabs give, in one operation */
	if (likely(me != NULL)) {
		while (have < n && (slab_has_any(slab_state(me), cache->class) || slab_refill_own(me, cache->class)))
			have += slab_take_bulk(slab_state(me), cache->class,
			                       n - have < SLAB_MAGAZINE ? (unsigned)(n - have) : SLAB_MAGAZINE, objects + have);
		participant_end_fast(me->slot);
	}
	for (; have < n; have++) {
		objects[have] = get(cache, flags, UINT64_MAX);
		if (objects[have]) continue;
		int error = -errno;
		hp_cache_put_bulk(cache, have, objects);
		return error;
	}
	return 0;
}

int hp_cache_get_bulk(hp_cache *cache, unsigned flags, size_t n, void **objects)
{
	struct slab_mag *mag;
	struct pool_slot *slot = cache_enter(cache, &mag);
	if (unlikely(!slot)) return get_bulk_rest(cache, flags, n, objects);
	bool taken = slab_take_batch(mag, n, objects);
	participant_end_fast(slot);
	return likely(taken) ? 0 : get_bulk_rest(cache, flags, n, objects);
}

/* ---- putting ---- */

int cache_find(const hp_cache *cache, const void *object, struct slab **slab, unsigned *index)
{
	if (unlikely(cache->regions)) return regions_find(cache, object, slab, index);
	unsigned class;
	hp_off off = (hp_off)((uintptr_t)object - (uintptr_t)cache->base);
	if (off >= cache->capacity) return -EINVAL;
	uint64_t map = atomic_load_explicit(&cache->map[off >> 12], memory_order_relaxed);
	if (!(uint8_t)map || (uint8_t)(map >> 8) != cache->class) return -ENOENT;
	/* what the map says of the first object is rounded down to 16 bytes */
	enum slab_found found = slab_find_skewed(cache->pool, off, cache->skew, slab, index, &class);
	return found == SLAB_OBJECT ? 0 : found == SLAB_NONE ? -ENOENT : -EINVAL; /* none: it has ended meanwhile */
}

/* Those of a process are no other's to put back. */
static bool not_ours(const hp_cache *cache, const struct slab *slab)
{
	const hp_pool *pool = cache->pool;
	if (!(cache->flags & HP_CACHE_PROCESS)) return false;
	uint64_t page = (uint64_t)(slab - pool->slabs);
	return atomic_load_explicit(&pool->chunks[page >> pool->page_shift_chunk].tag, memory_order_acquire) !=
	       page_tag(pool);
}

static void served(hp_cache *cache)
{
	if (unlikely(atomic_load_explicit(cache->waiting, memory_order_relaxed))) hp_cache_wake(cache);
}

/* Puts back those objects of one word that `bits` says; which ones were not out is returned. */
static uint64_t put_bits(hp_cache *cache, struct slab *slab, unsigned w, uint64_t bits)
{
	hp_pool *pool = cache->pool;
	struct participant *me = participant_peek(pool);
	uint64_t given = 0;
	bool mine = false, untidy = false;
	if (me && !(debug_flags(pool) & HP_DEBUG_COLD)) {
		participant_begin(me);
		uint32_t size = pool->classes[cache->class].size;
		char *start = slab_start(pool, slab, (w + 1) * 64 - (unsigned)__builtin_clzll(bits | 1), size);
		mine = slab_is_mine(me, slab) && start;
		for (uint64_t rest = mine ? bits : 0; rest; rest &= rest - 1) {
			unsigned index = w * 64 + (unsigned)__builtin_ctzll(rest);
			char *object = start + (uint64_t)index * size;
			enum slab_gave gave = slab_give(&slab_state(me)->mag[cache->class], slab, index, object);
			if (gave == SLAB_RARE) untidy |= slab_given(me, slab, cache->class);
			if (gave != SLAB_NOT) given |= rest & -rest;
		}
		participant_end(me);
		if (untidy) slab_tidy(me, cache->class);
	}
	if (!mine) given = slab_free_remote(pool, slab, w, bits);
	if (given) served(cache);
	return bits & ~given;
}

static int put_word(hp_cache *cache, struct slab *slab, unsigned w, uint64_t bits)
{
	hp_cache *in = regions_of(cache, slab);
	int damage = unlikely(debug_on(cache->pool)) ? debug_putting(in, slab, w, bits) : 0;
	uint64_t left = put_bits(in, slab, w, bits);
	count(cache, &cache->shared->puts, (unsigned)__builtin_popcountll(bits & ~left));
	if (unlikely(in != cache) && left != bits) {
		regions_given(cache, in, (unsigned)__builtin_popcountll(bits & ~left));
		served(cache);
	}
	for (uint64_t rest = left; rest; rest &= rest - 1) {
		int lent = slab_free_lent(cache->pool, slab, w * 64 + (unsigned)__builtin_ctzll(rest));
		if (lent == 0) left ^= rest & -rest;
		if (lent == -EBUSY) damage = -EBUSY;
	}
	return damage ? damage : left ? -EALREADY : 0;
}

static __attribute__((noinline)) int put_rest(hp_cache *cache, void *object)
{
	struct slab *slab;
	unsigned index;
	if (!object) return 0;
	if (cache->pool->observer) return -EROFS;
	if (!cache_is_live(cache)) return -ESTALE;
	int error = cache_find(cache, object, &slab, &index);
	if (error < 0) return error;
	if (not_ours(cache, slab)) return -EPERM;
	return put_word(cache, slab, index >> 6, UINT64_C(1) << (index & 63));
}

/* Go on inside an operation: where the object's slab has to be listed, or may be empty, */
static __attribute__((noinline)) int put_rare(struct participant *me, hp_cache *cache, struct slab *slab)
{
	unsigned class = cache->class;
	if (!slab) slab = slab_of_word(slab_word_at(*slab_at_of(slab_state(me)->mag[class].top - 1)));
	bool untidy = slab_given(me, slab, class);
	participant_end_fast(me->slot);
	if (untidy) slab_tidy(me, class);
	served(cache);
	return 0;
}

/* and where it was not what the fast path is for. */
static __attribute__((noinline)) int put_other(struct participant *me, hp_cache *cache, void *object)
{
	participant_end_fast(me->slot);
	return put_rest(cache, object);
}

static __attribute__((noinline)) int put_served(hp_cache *cache)
{
	hp_cache_wake(cache);
	return 0;
}

int hp_cache_put_begun(hp_cache *cache, void *object, struct hp_inline_magazine *begun)
{
	struct slab_mag *mag = (struct slab_mag *)(void *)begun;
	struct participant *me = cache_participant(cache, mag);
	struct slab *slab;
	unsigned index;
	hp_off off = (hp_off)((uintptr_t)object - (uintptr_t)cache->base);
	if (unlikely(off >= cache->capacity)) return put_other(me, cache, object);
	uint64_t map = atomic_load_explicit(&cache->map[off >> 12], memory_order_relaxed);
	if (unlikely(map_class(map) != cache->class) ||
	    unlikely(!slab_find_in(cache->pool, map, off, cache->skew, &slab, &index)) || unlikely(!slab_is_mine(me, slab)))
		return put_other(me, cache, object);
	enum slab_gave gave = slab_give(mag, slab, index, object);
	if (unlikely(gave == SLAB_NOT)) return put_other(me, cache, object);
	if (unlikely(gave == SLAB_RARE)) return put_rare(me, cache, slab);
	participant_end_fast(me->slot);
	return likely(!atomic_load_explicit(cache->waiting, memory_order_relaxed)) ? 0 : put_served(cache);
}

static __attribute__((noinline)) int put_slow(hp_cache *cache, void *object)
{
	struct participant *me = begin_unplaced(cache);
	if (!me) return put_rest(cache, object);
	return hp_cache_put_begun(cache, object, (struct hp_inline_magazine *)(void *)&slab_state(me)->mag[cache->class]);
}

int hp_cache_put(hp_cache *cache, void *object)
{
	struct slab_mag *mag;
	struct pool_slot *slot = cache_enter(cache, &mag);
	enum slab_gave gave;
	if (unlikely(!slot)) return put_slow(cache, object);
	if (!slab_give_back(mag, object, &gave))
		return hp_cache_put_begun(cache, object, (struct hp_inline_magazine *)(void *)mag);
	if (unlikely(gave == SLAB_NOT)) return put_other(cache_participant(cache, mag), cache, object);
	if (unlikely(gave == SLAB_RARE)) return put_rare(cache_participant(cache, mag), cache, NULL);
	participant_end_fast(slot);
	return likely(!atomic_load_explicit(cache->waiting, memory_order_relaxed)) ? 0 : put_served(cache);
}

/* How many of the first objects are of slabs that the thread owns: those are back, in one operation. */
static size_t put_own(hp_cache *cache, size_t n, void *const *objects)
{
	struct participant *me = cache_begin(cache);
	bool untidy = false;
	if (unlikely(!me)) return 0;
	size_t i = slab_give_bulk(me, cache->class, cache->skew, n, objects, &untidy);
	participant_end_fast(me->slot);
	if (untidy) slab_tidy(me, cache->class);
	if (i) served(cache);
	return i;
}

int hp_cache_destruct_object(hp_cache *cache, void *object)
{
	struct slab *slab;
	unsigned index;
	int error = cache_find(cache, object, &slab, &index);
	if (error < 0) return error;
	if (!slab_live(slab, index)) return slab_out(cache->pool, slab, index) ? hp_cache_put(cache, object) : -EALREADY;
	if (cache->ctor && slab_built(slab, index)) {
		slab_set_built(slab, index, 0); /* before the destructor: at most once, whenever we die */
		if (cache->dtor) cache->dtor(cache->arg, object);
	}
	return hp_cache_put(cache, object);
}

static __attribute__((noinline)) int put_bulk_rest(hp_cache *cache, size_t n, void *const *objects)
{
	struct slab *pending = NULL;
	unsigned word = 0;
	uint64_t bits = 0;
	int error = 0;
	/* Neighbours that follow each other go back with one change of their word. Nothing is put off beyond this call, so
	 * nothing has to be remembered for a caller that dies. */
	for (size_t i = put_own(cache, n, objects); i < n; i++) {
		struct slab *slab;
		unsigned index;
		int one = objects[i] ? cache_find(cache, objects[i], &slab, &index) : 0;
		if (one == 0 && objects[i] && not_ours(cache, slab)) one = -EPERM;
		if (one < 0 || !objects[i]) {
			if (error == 0) error = one;
			continue;
		}
		uint64_t bit = UINT64_C(1) << (index & 63);
		if (slab != pending || word != index >> 6 || bits & bit) {
			int put = bits ? put_word(cache, pending, word, bits) : 0;
			if (error == 0) error = put;
			pending = slab;
			word = index >> 6;
			bits = 0;
		}
		bits |= bit;
	}
	int put = bits ? put_word(cache, pending, word, bits) : 0;
	return error ? error : put;
}

int hp_cache_put_bulk(hp_cache *cache, size_t n, void *const *objects)
{
	struct slab_mag *mag;
	struct pool_slot *slot = cache_enter(cache, &mag);
	if (unlikely(!slot)) return put_bulk_rest(cache, n, objects);
	bool given = slab_give_batch(mag, n, objects);
	participant_end_fast(slot);
	if (unlikely(!given)) return put_bulk_rest(cache, n, objects);
	return likely(!atomic_load_explicit(cache->waiting, memory_order_relaxed)) ? 0 : put_served(cache);
}

/* ---- arrays ---- */

void *hp_cache_get_array_timed(hp_cache *cache, unsigned flags, size_t n, uint64_t ns)
{
	int error = -EINVAL;
	const struct slab_class *class = &cache->pool->classes[cache->class];
	void *first = n == 0 || n > 64 || n > class->objects || cache->ctor ? NULL
	                                                                    : obtain(cache, (unsigned)n, flags, ns, &error);
	if (!first) {
		errno = -error;
		return NULL;
	}
	count(cache, &cache->shared->gets, n);
	if (unlikely(debug_on(cache->pool))) debug_got_array(regions_at(cache, first), first, n);
	if (cache->flags & HP_CACHE_ZERO) memset(first, 0, n * class->size);
	return first;
}

void *hp_cache_get_array(hp_cache *cache, unsigned flags, size_t n)
{
	return hp_cache_get_array_timed(cache, flags, n, UINT64_MAX);
}

int hp_cache_put_array(hp_cache *cache, void *first, size_t n)
{
	struct slab *slab;
	unsigned index;
	if (n == 0 || n > 64) return -EINVAL;
	int error = cache_find(cache, first, &slab, &index);
	if (error < 0) return error;
	if (not_ours(cache, slab)) return -EPERM;
	if ((index & 63) + n > 64) return -EINVAL;
	uint64_t bits = parity_mask(index & 63, (unsigned)n);
	for (unsigned i = 0; i < n; i++)
		if (!slab_out(cache->pool, slab, index + i)) return -EALREADY;
	/* in a slab of one's own, with one store as well */
	void *object[64];
	for (size_t i = 0; i < n; i++) object[i] = (char *)first + i * cache->pool->classes[cache->class].size;
	size_t given = put_own(cache, n, object);
	if (given) bits &= ~parity_mask(index & 63, (unsigned)given);
	return bits ? put_word(cache, slab, index >> 6, bits) : 0;
}
