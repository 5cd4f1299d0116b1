/* Making, opening, ending caches; limits and numbers. What changes the table of caches does so under the growth lock, which
 * is taken over from the dead: an entry found half made or half ended under the lock is one of a dead process. */
#include "cache/cache.h"
#include "cache/region.h"
#include "pool/recover.h"
#include "debug/debug.h"
#include "os/os.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FLAGS \
	(HP_CACHE_ZERO | HP_CACHE_LARGE_MAGAZINES | HP_CACHE_NO_MAGAZINES | HP_CACHE_PROCESS | HP_CACHE_ON_NODE | \
	 HP_CACHE_COUNT | CACHE_ROOM)

static size_t name_length(const char *name)
{
	size_t length = name ? strnlen(name, CACHE_NAME_MAX) : 0;
	return length < CACHE_NAME_MAX ? length : 0;
}

static bool same_name(const struct pool_cache *shared, const char *name)
{
	return strncmp(shared->name, name, CACHE_NAME_MAX) == 0;
}

/* Checks the options, and says how objects of that cache lie. */
static bool fit(struct slab_class *class, uint64_t size, uint32_t align, uint32_t offset, uint32_t flags, uint32_t node,
                bool constructed)
{
	if (size == 0 || size > 255 * 4096 || flags & ~FLAGS || align & (align - 1) || align > 4096 || align < 8)
		return false;
	if (offset >= align || (flags & HP_CACHE_ON_NODE && node >= HP_MAX_NODES)) return false;
	if ((flags & HP_CACHE_LARGE_MAGAZINES && flags & HP_CACHE_NO_MAGAZINES)) return false;
	if (flags & CACHE_ROOM) size += DEBUG_ROOM;
	uint64_t apart = (size + align - 1) / align * align;
	if (apart < 16) apart = 16;
	*class = (struct slab_class){0};
	if (apart > 255 * 4096 || !slab_class_fit(class, (uint32_t)apart, align, offset, constructed)) return false;
	class->process = flags & HP_CACHE_PROCESS;
	class->on_node = flags & HP_CACHE_ON_NODE;
	class->node = (uint8_t)node;
	if (flags & HP_CACHE_LARGE_MAGAZINES) class->magazine = SLAB_MAGAZINE;
	if (flags & HP_CACHE_NO_MAGAZINES) class->magazine = class->magazine_most = 1;
	return true;
}

void cache_set_slow(hp_cache *cache)
{
	atomic_store_explicit(&cache->magazine, participant_nobodys(NULL, 0), memory_order_relaxed);
	atomic_store_explicit(&cache->fast, cache, memory_order_relaxed);
}

static hp_cache *handles; /* of this process; looked at inside participant_lock */

/* Handles of what was in this place before are stale: what is in magazines from now on is not theirs to take. */
static void enlist(hp_cache *cache)
{
	struct participant_guard guard;
	if (participant_lock(&guard) < 0) return;
	for (hp_cache *other = handles; other; other = other->next)
		if (other->pool == cache->pool && other->class == cache->class && other->generation != cache->generation)
			cache_set_slow(other);
	cache->next = handles;
	handles = cache;
	participant_unlock(&guard);
}

static void delist(hp_cache *cache)
{
	struct participant_guard guard;
	if (participant_lock(&guard) < 0) return;
	for (hp_cache **link = &handles; *link; link = &(*link)->next)
		if (*link == cache) {
			*link = cache->next;
			break;
		}
	participant_unlock(&guard);
}

/* This process' view of a live entry. */
static int handle_new(hp_pool *pool, unsigned i, const struct hp_cache_options *options, hp_cache **out)
{
	struct pool_cache *shared = &pool->caches[i];
	struct slab_class class;
	hp_cache *cache = calloc(1, sizeof *cache);
	if (!cache) return -ENOMEM;
	if (!fit(&class, shared->size, shared->align, shared->align_offset, shared->flags, shared->node,
	         shared->constructed)) {
		free(cache);
		return -EBADMSG;
	}
	*cache = (struct hp_cache){.base = pool->base,
	                           .capacity = pool->capacity,
	                           .map = pool->map,
	                           .waiting = &shared->waiting,
	                           .class = CACHE_FIRST_CLASS + i,
	                           .skew = class.lead & 15,
	                           .pool = pool,
	                           .shared = shared,
	                           .generation = cache_generation(atomic_load(&shared->word)),
	                           .flags = shared->flags,
	                           .size = shared->size};
	cache_set_slow(cache);
	class.cache = shared;
	class.generation = cache->generation;
	if (options) {
		cache->ctor = options->ctor;
		cache->dtor = options->dtor;
		cache->arg = options->arg;
		class.dtor = options->dtor;
		class.arg = options->arg;
	}
	if (!cache->ctor && !(cache->flags & (HP_CACHE_ZERO | HP_CACHE_PROCESS | HP_CACHE_COUNT))) {
		atomic_store_explicit(&cache->magazine, participant_nobodys(pool, CACHE_MAGAZINE_AT(cache->class)),
		                      memory_order_relaxed);
		atomic_store_explicit(&cache->fast, pool, memory_order_relaxed);
	}
	enlist(cache);
	/* threads may be using the cache through another handle: what they know is not written again */
	struct slab_class *known = &pool->classes[cache->class];
	if (known->cache != shared || known->generation != class.generation)
		*known = class;
	else if (class.dtor != known->dtor || class.arg != known->arg) {
		known->dtor = class.dtor;
		known->arg = class.arg;
	}
	*out = cache;
	return 0;
}

void cache_limit_settle(struct pool_cache *shared, uint64_t record1)
{
	uint64_t limit = atomic_load(&shared->limit), by = limit >> CACHE_LIMIT_SHIFT, was = atomic_load(&shared->was);
	/* who sets another one has settled this first, so a late one of us finds another word */
	if (by && (!record1 || by == record1)) atomic_compare_exchange_strong(&shared->limit, &limit, was);
}

/* Under the lock: what the dead left half done is nothing. */
static void settle(struct pool_cache *shared)
{
	uint64_t word = atomic_load(&shared->word);
	if (cache_state(word) == CACHE_MAKING)
		atomic_store(&shared->word, cache_word(CACHE_FREE, cache_generation(word) + 1));
	if (cache_state(word) == CACHE_ENDING) atomic_store(&shared->word, cache_word(CACHE_LIVE, cache_generation(word)));
	cache_limit_settle(shared, 0);
}

/* Under the lock: the entry of that name, or -1; a free one in *room, or -1. */
static int find(hp_pool *pool, const char *name, int *room)
{
	int found = -1;
	*room = -1;
	for (unsigned i = 0; i < CACHES; i++) {
		struct pool_cache *shared = &pool->caches[i];
		settle(shared);
		enum cache_state state = cache_state(atomic_load(&shared->word));
		if (state == CACHE_LIVE && same_name(shared, name)) found = (int)i;
		if (state == CACHE_FREE && *room < 0) *room = (int)i;
	}
	return found;
}

static int lock(hp_pool *pool)
{
	int error;
	if (pool->observer) return -EROFS;
	if (!participant_get(pool, &error)) return error;
	if ((error = pool_control_populate_at(pool, pool->caches, CACHES * sizeof *pool->caches)) < 0) return error;
	return growth_lock(pool) < 0 ? -ENOMEM : 0;
}

/* Slabs that the dead have in hand, or own in the middle of an operation, would be taken for somebody's who is just at it. */
static void recover_slabs(hp_pool *pool)
{
	int error;
	if (!pool->observer && participant_get(pool, &error)) recover_dead(pool);
}

static uint32_t align_of(const struct hp_cache_options *options)
{
	return options->align ? (uint32_t)options->align : options->size % 16 ? 8 : 16;
}

/* What does not depend on the pool. */
static bool makes_sense(const struct hp_cache_options *options)
{
	if (options->align > 4096 || options->align_offset > 4096 || (options->dtor && !options->ctor)) return false;
	if (options->flags & HP_CACHE_ON_NODE && (options->node < 0 || options->node >= HP_MAX_NODES)) return false;
	return !(options->flags & CACHE_ROOM);
}

bool cache_cut(const struct hp_cache_options *options, struct slab_class *class)
{
	return makes_sense(options) && fit(class, options->size, align_of(options), (uint32_t)options->align_offset,
	                                   options->flags, (uint32_t)options->node, options->ctor != NULL);
}

static bool fits(const hp_pool *pool, const struct hp_cache_options *options, uint32_t align, uint32_t flags)
{
	struct slab_class class;
	return fit(&class, options->size, align, (uint32_t)options->align_offset, flags, (uint32_t)options->node,
	           options->ctor != NULL) &&
	       class.pages <= pool->chunk_pages; /* a slab lies in one chunk */
}

int hp_cache_create(hp_pool *pool, const char *name, const struct hp_cache_options *options, hp_cache **cache)
{
	if (!pool || !cache || !options || !name_length(name) || options->struct_size < sizeof *options) return -EINVAL;
	uint32_t align = align_of(options);
	if (!makes_sense(options) || !fits(pool, options, align, options->flags)) return -EINVAL;
	bool roomy = debug_wants_tag(pool) && fits(pool, options, align, options->flags | CACHE_ROOM);
	uint32_t flags = options->flags | (roomy ? CACHE_ROOM : 0);
	int room, error = lock(pool);
	if (error < 0) return error;
	if (find(pool, name, &room) >= 0)
		error = -EEXIST;
	else if (room < 0)
		error = -ENOSPC;
	if (error == 0) {
		struct pool_cache *shared = &pool->caches[room];
		uint32_t generation = cache_generation(atomic_load(&shared->word));
		atomic_store(&shared->word, cache_word(CACHE_MAKING, generation));
		memset(shared->name, 0, sizeof shared->name);
		memcpy(shared->name, name, name_length(name));
		shared->size = options->size;
		shared->align = align;
		shared->align_offset = (uint32_t)options->align_offset;
		shared->flags = flags;
		shared->node = (uint32_t)options->node;
		shared->constructed = (options->ctor ? CACHE_CONSTRUCTED : 0) | (options->dtor ? CACHE_DESTROYED : 0);
		atomic_store(&shared->limit, 0);
		atomic_store(&shared->low, 0);
		atomic_store(&shared->high, UINT64_MAX);
		atomic_store(&shared->epoch, 1);
		atomic_store(&shared->fails, 0);
		atomic_store(&shared->gets, 0);
		atomic_store(&shared->puts, 0);
		atomic_store(&shared->waits, 0);
		atomic_store(&shared->wakes, 0);
		atomic_store(&shared->retries, 0);
		atomic_store(&shared->held, 0);
		atomic_store(&shared->most, 0);
		atomic_store(&shared->waiting, 0);
		shared->warning[0] = 0;
		/* commit: the cache is there. A death before it leaves MAKING, which is nothing. */
		atomic_store(&shared->word, cache_word(CACHE_LIVE, generation));
		error = handle_new(pool, (unsigned)room, options, cache);
		if (error < 0) atomic_store(&shared->word, cache_word(CACHE_FREE, generation + 1));
	}
	growth_unlock(pool);
	return error;
}

int hp_cache_open(hp_pool *pool, const char *name, const struct hp_cache_options *options, hp_cache **cache)
{
	if (!pool || !cache || !name_length(name) || (options && options->struct_size < sizeof *options)) return -EINVAL;
	int room, error = lock(pool);
	if (error < 0) return error;
	int i = find(pool, name, &room);
	if (i < 0)
		error = -ENOENT;
	else if (options && options->size && options->size != pool->caches[i].size)
		error = -EPROTO;
	else if (!pool->caches[i].constructed != !(options && options->ctor))
		error = -EINVAL;
	else
		error = handle_new(pool, (unsigned)i, options, cache);
	growth_unlock(pool);
	return error;
}

void cache_forget(hp_cache *cache)
{
	delist(cache);
	free(cache);
}

void hp_cache_close(hp_cache *cache)
{
	if (!cache) return;
	cache_end_watches(cache);
	if (cache->owns_pool)
		cache_end_private(cache);
	else
		cache_forget(cache);
}

/* A death on the way leaves the mark at 0. */
uint64_t cache_reclaim_all(hp_cache *cache)
{
	int error;
	struct slab_census sum;
	struct participant *me = participant_get(cache->pool, &error);
	if (me) {
		uint64_t low = atomic_exchange(&cache->shared->low, 0);
		participant_hold(me);
		slab_reclaim(me, cache->class);
		participant_let_go(me);
		atomic_store(&cache->shared->low, low);
	}
	slab_census(cache->pool, cache->class, &sum);
	return sum.slabs;
}

int hp_cache_destroy(hp_cache *cache)
{
	if (!cache) return -EINVAL;
	hp_pool *pool = cache->pool;
	recover_slabs(pool);
	/* destructors first, as long as nothing is held */
	if (cache->dtor && !pool->observer && cache_is_live(cache)) cache_reclaim_all(cache);
	int error = cache->regions ? regions_empty(cache) : 0;
	if (error == 0) error = lock(pool);
	if (error < 0) return error;
	struct pool_cache *shared = cache->shared;
	settle(shared);
	if (cache_is_live(cache)) {
		/* What is empty ends, wherever it is. Who makes a slab from here on makes the cache live again (cache_insist); then,
		 * and if anything is left, it goes on living as if nothing had been. */
		uint64_t ending = cache_word(CACHE_ENDING, cache->generation);
		atomic_store(&shared->word, ending);
		atomic_thread_fence(memory_order_seq_cst);
		bool gone = cache_reclaim_all(cache) == 0;
		/* commit: it is gone */
		gone = gone &&
		       atomic_compare_exchange_strong(&shared->word, &ending, cache_word(CACHE_FREE, cache->generation + 1));
		if (!gone) atomic_store(&shared->word, cache_word(CACHE_LIVE, cache->generation));
		error = gone ? 0 : -EBUSY;
	}
	growth_unlock(pool);
	if (error == 0) hp_cache_close(cache);
	return error;
}

int hp_cache_prime(hp_cache *cache, size_t n)
{
	int error;
	if (!cache_is_live(cache)) return -ESTALE;
	if (cache->regions) return regions_prime(cache, n);
	struct participant *me = participant_get(cache->pool, &error);
	if (!me) return error;
	participant_hold(me);
	error = slab_prime(me, cache->class, n);
	participant_let_go(me);
	return error;
}

int64_t hp_cache_reclaim(hp_cache *cache)
{
	int error;
	hp_pool *pool = cache->pool;
	if (!cache_is_live(cache)) return -ESTALE; /* as in hp_cache_invalidate */
	if (cache->regions) return regions_reclaim(cache);
	struct participant *me = participant_get(pool, &error);
	if (!me) return error;
	if (cache->drain) cache->drain(cache->drain_arg, 0);
	participant_hold(me);
	recover_dead(pool);
	uint64_t slabs = slab_reclaim(me, cache->class);
	participant_let_go(me);
	if (cache->owns_pool && !pool->data.lent) hp_pool_trim(pool, 0); /* nobody else has a use for it */
	return (int64_t)(slabs * pool->classes[cache->class].pages * HP_PAGE_SIZE);
}

int hp_cache_set_low_watermark(hp_cache *cache, size_t n)
{
	if (!cache_is_live(cache)) return -ESTALE; /* the marks are another's */
	if (n > atomic_load(&cache->shared->high)) return -EINVAL;
	atomic_store(&cache->shared->low, n);
	return n ? hp_cache_prime(cache, n) : 0;
}

int hp_cache_set_high_watermark(hp_cache *cache, size_t n)
{
	if (!cache_is_live(cache)) return -ESTALE;
	if (n < atomic_load(&cache->shared->low)) return -EINVAL;
	atomic_store(&cache->shared->high, n);
	return 0;
}

int hp_cache_set_drain_hook(hp_cache *cache, hp_drain_fn *hook, void *arg)
{
	cache->drain = hook;
	cache->drain_arg = arg;
	return 0;
}

int hp_cache_invalidate(hp_cache *cache)
{
	int error;
	struct pool_cache *shared = cache->shared;
	if (!cache->ctor) return -EINVAL;
	if (!cache_is_live(cache)) return -ESTALE; /* what is there now is another's, with another destructor */
	struct participant *me = participant_get(cache->pool, &error);
	if (!me) return error;
	/* commit: what was constructed before is nothing to be given out */
	uint32_t epoch = atomic_load(&shared->epoch);
	while (!atomic_compare_exchange_weak(&shared->epoch, &epoch, epoch % 255 + 1)) {}
	if (cache->regions) {
		regions_raze(cache);
		return 0;
	}
	participant_hold(me);
	slab_raze(me, cache->class);
	participant_let_go(me);
	return 0;
}

static void note_warning(struct pool_cache *shared, const char *warning, unsigned seconds)
{
	size_t length = warning ? strlen(warning) : 0;
	for (size_t i = 0; i < CACHE_WARNING_MAX; i++)
		atomic_store_explicit(&shared->warning[i], i < length && i < CACHE_WARNING_MAX - 1 ? warning[i] : 0,
		                      memory_order_relaxed);
	atomic_store(&shared->every, (uint64_t)seconds * 1000000000u);
	atomic_store(&shared->warned, 0);
}

int hp_cache_set_hard_limit(hp_cache *cache, size_t n, const char *warning, unsigned seconds)
{
	if (cache->regions) {
		int refused = regions_limit(cache, n);
		if (refused == 0) note_warning(cache->shared, warning, seconds);
		return refused;
	}
	hp_pool *pool = cache->pool;
	struct pool_cache *shared = cache->shared;
	uint64_t each = pool->classes[cache->class].objects, places = n / each + (n % each != 0);
	struct slab_census sum;
	if (places > CACHE_PLACES) return -ENOSPC;
	if (n) recover_slabs(pool);
	int error = lock(pool);
	if (error < 0) return error;
	settle(shared);
	uint64_t was = cache_limit(shared);
	bool anew = n && (!was || n < was);
	if (!cache_is_live(cache)) error = -ESTALE;
	if (error == 0 && n) error = cache_places_populate(pool, cache->class, places);
	if (error == 0) {
		atomic_store(&shared->was, was);
		/* Until the slabs there are have places it is by us only: should we die, the old one holds. */
		atomic_store(&shared->limit, n | (anew ? (uint64_t)(pool->record + 1) << CACHE_LIMIT_SHIFT : 0));
		atomic_thread_fence(memory_order_seq_cst); /* a slab made under the old one is seen here, or sees the new one */
		if (anew) {
			/* what is there was made for another limit: it goes, or gets a place */
			cache_reclaim_all(cache);
			slab_census(pool, cache->class, &sum);
			if (sum.live > n) error = -EINVAL;
			if (sum.slabs && error == 0) error = cache_places_assign(pool, cache->class);
			/* commit: the limit is set, or has never been */
			atomic_store(&shared->limit, error < 0 ? was : n);
		} else if (n) {
			cache_places_widen(pool, cache->class);
		}
	}
	if (error == 0) note_warning(shared, warning, seconds);
	growth_unlock(pool);
	if (error == 0 && atomic_load(cache->waiting)) hp_cache_wake(cache);
	return error;
}

const char *hp_cache_name(const hp_cache *cache)
{
	return cache->shared->name;
}
