/* See cache/region.h. */
#include "cache/region.h"
#include "debug/debug.h"
#include "pool/create.h"
#include "os/os.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define REGIONS 1024u
#define HINTS 512u /* of what lies where */
#define FIRST_BYTES (UINT64_C(2) << 20)
#define GONE (UINT64_C(1) << 63)        /* has no memory */
#define BUSY (GONE | UINT64_C(1) << 62) /* and somebody is about to change that */

struct region {
	_Alignas(64) _Atomic uint64_t word;
	_Atomic uintptr_t start, end; /* of its pages; 0 when there is no memory */
	void *given;                  /* by the function, and how much */
	size_t bytes;
	uint64_t pages, objects;
	unsigned number;
	hp_pool *pool;
	hp_cache *cache;
};

struct cache_regions {
	struct hp_cache_memory memory;
	struct hp_cache_options options; /* of the regions' caches */
	struct slab_class class;
	_Atomic(struct region *) region[REGIONS]; /* none ever goes before the cache does */
	_Atomic unsigned top;
	_Atomic unsigned first;       /* a hint: regions before it have no object left */
	_Atomic uint64_t out, room;   /* objects: that are out, and that there is memory for */
	_Atomic uint64_t floor;       /* so many stay when a put empties a region: what was primed */
	_Atomic uint64_t bytes, live; /* memory held, and regions */
	_Atomic uint16_t hint[HINTS];
};

static struct region *region_of(const struct cache_regions *all, unsigned i)
{
	return atomic_load_explicit(&all->region[i], memory_order_acquire);
}

static unsigned top_of(const struct cache_regions *all)
{
	return atomic_load_explicit(&all->top, memory_order_acquire);
}

/* ---- which region ---- */

static bool has_address(const struct region *region, uintptr_t at)
{
	uintptr_t start = atomic_load_explicit(&region->start, memory_order_acquire);
	return start && at >= start && at < atomic_load_explicit(&region->end, memory_order_relaxed);
}

static bool has_slab(const struct region *region, uintptr_t at)
{
	uintptr_t first = (uintptr_t)region->pool->slabs;
	return at >= first && at < first + region->pages * sizeof(struct slab);
}

static struct region *look_up(struct cache_regions *all, uintptr_t at, bool (*has)(const struct region *, uintptr_t))
{
	_Atomic uint16_t *hint = &all->hint[(at >> 21) % HINTS];
	unsigned top = top_of(all), i = atomic_load_explicit(hint, memory_order_relaxed);
	struct region *region = i < top ? region_of(all, i) : NULL;
	if (region && has(region, at)) return region;
	for (i = 0; i < top; i++) {
		region = region_of(all, i);
		if (!region || !has(region, at)) continue;
		atomic_store_explicit(hint, (uint16_t)i, memory_order_relaxed);
		return region;
	}
	return NULL;
}

int regions_find(const hp_cache *cache, const void *object, struct slab **slab, unsigned *index)
{
	struct region *region = look_up(cache->regions, (uintptr_t)object, has_address);
	return region ? cache_find(region->cache, object, slab, index) : -EINVAL;
}

hp_cache *regions_at_address(const hp_cache *cache, const void *object)
{
	return look_up(cache->regions, (uintptr_t)object, has_address)->cache;
}

hp_cache *regions_of_slab(const hp_cache *cache, const struct slab *slab)
{
	return look_up(cache->regions, (uintptr_t)slab, has_slab)->cache;
}

/* ---- memory ---- */

/* By how many pages there are: a slab lies in one chunk. Slabs of a cache all have the same number of pages, so that they
 * leave no holes. */
static uint64_t objects_in(const struct slab_class *class, uint64_t pages, uint64_t chunk)
{
	return (pages / chunk * (chunk / class->pages) + pages % chunk / class->pages) * class->objects;
}

/* What the function is asked for next: larger ones the more there are, unless the caller said. */
static size_t next_bytes(const struct cache_regions *all)
{
	if (all->memory.region) return all->memory.region;
	uint64_t least = (uint64_t)all->class.pages * 8 * HP_PAGE_SIZE, live = atomic_load(&all->live);
	uint64_t bytes = (least > FIRST_BYTES ? least : FIRST_BYTES) << (live / 4 < 5 ? live / 4 : 5);
	uint64_t left = all->memory.bytes ? all->memory.bytes - atomic_load(&all->bytes) : UINT64_MAX;
	if (bytes > left) bytes = left & ~(uint64_t)(HP_PAGE_SIZE - 1);
	return bytes / HP_PAGE_SIZE < all->class.pages ? 0 : bytes;
}

/* Counts the bytes as held, if that many may be. */
static bool hold(struct cache_regions *all, size_t bytes)
{
	uint64_t most = all->memory.bytes ? all->memory.bytes : UINT64_MAX, held = atomic_load(&all->bytes);
	do
		if (!bytes || bytes > most || held > most - bytes) return false;
	while (!atomic_compare_exchange_weak(&all->bytes, &held, held + bytes));
	return true;
}

/* One that has no memory but a pool for that many pages: the caller's alone. */
static struct region *claim_empty(struct cache_regions *all, uint64_t pages)
{
	unsigned top = top_of(all);
	for (unsigned i = 0; i < top; i++) {
		struct region *region = region_of(all, i);
		uint64_t gone = GONE;
		if (region && region->pages == pages && atomic_load(&region->word) == GONE &&
		    atomic_compare_exchange_strong(&region->word, &gone, BUSY))
			return region;
	}
	return NULL;
}

/* The modes of the cache that the caller sees. */
static void follow_debug(const hp_cache *cache, const struct region *region)
{
	unsigned flags = debug_flags(cache->pool);
	if (flags != debug_flags(region->pool)) hp_pool_debug(region->pool, flags);
}

static struct region *make_region(hp_cache *cache, char *start, uint64_t pages, int *error)
{
	struct cache_regions *all = cache->regions;
	const struct hp_pool_options options = {
		.name = "region", .max_threads = POOL_MAX_SLOTS, .log = cache->pool->log, .log_arg = cache->pool->log_arg};
	struct region *region = aligned_alloc(_Alignof(struct region), sizeof *region);
	*error = -ENOMEM;
	if (!region) return NULL;
	*region = (struct region){.pages = pages};
	if ((*error = private_create_lent(&options, start, pages, all->class.pages, &region->pool)) == 0) {
		follow_debug(cache, region);
		*error = hp_cache_create(region->pool, hp_cache_name(cache), &all->options, &region->cache);
		if (*error == 0) {
			region->objects = objects_in(&all->class, pages, region->pool->chunk_pages);
			/* what is constructed stays so until the region goes; its pages are of no use to anybody else */
			if (all->options.ctor) hp_cache_set_high_watermark(region->cache, region->objects);
			return region;
		}
		hp_pool_detach(region->pool);
	}
	free(region);
	return NULL;
}

static void end_region(struct region *region)
{
	cache_forget(region->cache);
	hp_pool_detach(region->pool);
	free(region);
}

/* Into the table, for all to see. */
static bool add(struct cache_regions *all, struct region *region)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		struct region *nobody = NULL;
		region->number = i;
		if (region_of(all, i) || !atomic_compare_exchange_strong(&all->region[i], &nobody, region)) continue;
		unsigned top = top_of(all);
		while (top <= i && !atomic_compare_exchange_weak(&all->top, &top, i + 1)) {}
		return true;
	}
	return false;
}

/* Another region, of which n objects are counted as the caller's. Nothing is held while the function runs, so two threads
 * may each get one. */
static int grow(hp_cache *cache, size_t n, struct region **out)
{
	struct cache_regions *all = cache->regions;
	size_t bytes = next_bytes(all);
	int error = -ENOMEM;
	if (!hold(all, bytes)) return error;
	char *given = all->memory.allocate(all->memory.arg, bytes);
	if (!given) goto none;
	uintptr_t at = (uintptr_t)given, page = HP_PAGE_SIZE - 1;
	uintptr_t start = (at + page) & ~page, end = (at + bytes) & ~page;
	uint64_t pages = start < end ? (end - start) / HP_PAGE_SIZE : 0;
	if (pages < all->class.pages) {
		pool_log(cache->pool, "hugepool: cache %s: a region of %zu bytes holds no object; ask for larger ones",
		         hp_cache_name(cache), bytes);
		goto give_back;
	}
	struct region *region = claim_empty(all, pages);
	bool known = region != NULL;
	if (known) {
		private_move_lent(region->pool, region->cache->base = (char *)start);
		follow_debug(cache, region);
	} else if (!(region = make_region(cache, (char *)start, pages, &error))) {
		goto give_back;
	}
	region->given = given;
	region->bytes = bytes;
	atomic_store_explicit(&region->end, end, memory_order_relaxed);
	atomic_store_explicit(&region->start, start, memory_order_release);
	atomic_fetch_add(&all->room, region->objects);
	atomic_fetch_add(&all->live, 1);
	atomic_store(&region->word, n); /* anybody's from here on */
	if (!known && !add(all, region)) {
		atomic_fetch_sub(&all->room, region->objects);
		atomic_fetch_sub(&all->live, 1);
		end_region(region);
		error = -ENOMEM;
		goto give_back;
	}
	*out = region;
	return 0;

give_back:
	all->memory.release(all->memory.arg, given, bytes);
none:
	atomic_fetch_sub(&all->bytes, bytes);
	return error;
}

/* Gives the region's memory back, if no object is out and at least `keep` others remain free: how many bytes. */
static size_t release(hp_cache *cache, struct region *region, uint64_t keep)
{
	struct cache_regions *all = cache->regions;
	uint64_t nothing = 0;
	if (!atomic_compare_exchange_strong(&region->word, &nothing, BUSY)) return 0;
	uint64_t room = atomic_fetch_sub(&all->room, region->objects) - region->objects;
	/* slabs that a wrong put is looking at just now may stay: another time */
	if (room < atomic_load(&all->out) + keep || cache_reclaim_all(region->cache)) {
		atomic_fetch_add(&all->room, region->objects);
		atomic_store(&region->word, 0);
		return 0;
	}
	void *given = region->given;
	size_t bytes = region->bytes;
	atomic_store(&region->start, 0);
	private_move_lent(region->pool, NULL);
	atomic_store(&region->word, GONE);
	atomic_fetch_sub(&all->live, 1);
	all->memory.release(all->memory.arg, given, bytes);
	atomic_fetch_sub(&all->bytes, bytes);
	return bytes;
}

/* ---- getting ---- */

/* Counts n objects of the region as the caller's. */
static bool pin(struct region *region, size_t n)
{
	uint64_t word = atomic_load_explicit(&region->word, memory_order_relaxed);
	do
		if (word + n > region->objects) return false; /* GONE is more than any number */
	while (!atomic_compare_exchange_weak_explicit(&region->word, &word, word + n, memory_order_acquire,
	                                              memory_order_relaxed));
	return true;
}

static int count_out(hp_cache *cache, size_t n)
{
	_Atomic uint64_t *out = &cache->regions->out;
	uint64_t limit = atomic_load(&cache->shared->limit), old = atomic_load_explicit(out, memory_order_relaxed);
	do
		if (limit && old + n > limit) return -EAGAIN;
	while (!atomic_compare_exchange_weak(out, &old, old + n));
	limit = atomic_load(&cache->shared->limit); /* set meanwhile: regions_limit sees us, or we see it */
	if (!limit || old + n <= limit) return 0;
	atomic_fetch_sub(out, n);
	return -EAGAIN;
}

static void *take_run(hp_cache *cache, size_t n, int *error)
{
	char *first = NULL;
	struct participant *me = participant_get(cache->pool, error);
	if (!me) return NULL;
	participant_hold(me);
	*error = slab_take_run(me, cache->class, (unsigned)n, &first);
	participant_let_go(me);
	return first;
}

static void *take_from(hp_cache *cache, size_t n, int *error)
{
	if (n > 1) return take_run(cache, n, error);
	/* the one at hand, where the thread's last object was of this region */
	struct participant *me = hp_thread_current;
	char *object = NULL;
	if (participant_is_fast(me, cache->pool) && participant_try_begin(me->slot)) {
		object = slab_at_hand(slab_state(me), cache->class);
		participant_end_fast(me->slot);
	}
	return object ? object : cache_take(cache, 0, error);
}

void *regions_take(hp_cache *cache, size_t n, int *error)
{
	struct cache_regions *all = cache->regions;
	unsigned top = top_of(all), from = atomic_load_explicit(&all->first, memory_order_relaxed);
	struct region *region;
	if ((*error = count_out(cache, n)) < 0) return NULL;
	*error = -ENOMEM;
	/* the first that has some, so that the last ones become empty */
	for (unsigned k = 0; k < top && *error == -ENOMEM; k++) {
		unsigned i = from + k < top ? from + k : from + k - top;
		if (i >= top || !(region = region_of(all, i)) || !pin(region, n)) continue;
		void *object = take_from(region->cache, n, error);
		if (object) {
			if (n == 1 && i > from) atomic_store_explicit(&all->first, i, memory_order_relaxed);
			return object;
		}
		atomic_fetch_sub(&region->word, n);
	}
	if (*error == -ENOMEM && (*error = grow(cache, n, &region)) == 0) {
		void *object = take_from(region->cache, n, error);
		if (object) return object;
		atomic_fetch_sub(&region->word, n);
	}
	atomic_fetch_sub(&all->out, n);
	return NULL;
}

/* ---- putting ---- */

/* Another region than this one has no object out. */
static bool another_is_empty(const struct cache_regions *all, const struct region *this)
{
	unsigned top = top_of(all);
	for (unsigned i = 0; i < top; i++) {
		const struct region *region = region_of(all, i);
		if (region && region != this && atomic_load_explicit(&region->word, memory_order_relaxed) == 0) return true;
	}
	return false;
}

void regions_given(hp_cache *cache, const hp_cache *in, size_t n)
{
	struct cache_regions *all = cache->regions;
	struct region *region = look_up(all, (uintptr_t)in->pool->slabs, has_slab);
	unsigned first = atomic_load_explicit(&all->first, memory_order_relaxed);
	if (region->number < first) atomic_store_explicit(&all->first, region->number, memory_order_relaxed);
	/* the number first: from the second on the region may be gone */
	uint64_t out = atomic_fetch_sub(&all->out, n) - n;
	if (atomic_fetch_sub_explicit(&region->word, n, memory_order_release) != n) return;
	uint64_t high = atomic_load(&cache->shared->high), low = atomic_load(&cache->shared->low);
	uint64_t room = atomic_load(&all->room), floor = atomic_load(&all->floor);
	if (high == UINT64_MAX ? !another_is_empty(all, region) : room <= out || room - out <= high) return;
	if (floor > out && floor - out > low) low = floor - out;
	release(cache, region, low);
}

/* ---- everything else ---- */

int regions_prime(hp_cache *cache, size_t n)
{
	struct cache_regions *all = cache->regions;
	uint64_t limit = atomic_load(&cache->shared->limit), out = atomic_load(&all->out);
	bool beyond = limit && n > (limit > out ? limit - out : 0);
	uint64_t want = beyond ? limit : n > UINT64_MAX - out ? UINT64_MAX : out + n, floor = atomic_load(&all->floor);
	/* first: or what is made would be given back by puts meanwhile */
	while (floor < want && !atomic_compare_exchange_weak(&all->floor, &floor, want)) {}
	while (atomic_load(&all->room) < want) {
		struct region *region;
		int error = grow(cache, 0, &region);
		if (error < 0) return error;
	}
	return beyond ? -EAGAIN : 0;
}

int64_t regions_reclaim(hp_cache *cache)
{
	struct cache_regions *all = cache->regions;
	uint64_t low = atomic_load(&cache->shared->low);
	int64_t bytes = 0;
	if (cache->drain) cache->drain(cache->drain_arg, 0);
	atomic_store(&all->floor, 0);
	for (unsigned i = top_of(all); i-- > 0;) {
		struct region *region = region_of(all, i);
		if (region) bytes += (int64_t)release(cache, region, low);
	}
	return bytes;
}

void regions_raze(hp_cache *cache)
{
	struct cache_regions *all = cache->regions;
	unsigned top = top_of(all);
	for (unsigned i = 0; i < top; i++) {
		struct region *region = region_of(all, i);
		uint64_t word = region ? atomic_load(&region->word) : GONE;
		while (!(word & GONE) && !atomic_compare_exchange_weak(&region->word, &word, word + 1)) {}
		if (word & GONE) continue;
		int error;
		struct participant *me = participant_get(region->pool, &error);
		if (me) {
			participant_hold(me);
			slab_raze(me, region->cache->class);
			participant_let_go(me);
		}
		atomic_fetch_sub(&region->word, 1);
	}
}

int regions_limit(hp_cache *cache, size_t n)
{
	if (!cache_is_live(cache)) return -ESTALE;
	uint64_t was = atomic_exchange(&cache->shared->limit, n);
	bool refused = n && atomic_load(&cache->regions->out) > n;
	if (refused) atomic_store(&cache->shared->limit, was);
	if (atomic_load(cache->waiting)) hp_cache_wake(cache);
	return refused ? -EINVAL : 0;
}

uint64_t regions_free(const hp_cache *cache)
{
	uint64_t room = atomic_load(&cache->regions->room), out = atomic_load(&cache->regions->out);
	return room > out ? room - out : 0;
}

void regions_stats(hp_cache *cache, struct hp_cache_stats *stats)
{
	const struct cache_regions *all = cache->regions;
	stats->in_use = atomic_load(&all->out);
	stats->cached = regions_free(cache);
	stats->slabs = atomic_load(&all->live);
	stats->bytes = atomic_load(&all->bytes);
}

int regions_empty(hp_cache *cache)
{
	struct cache_regions *all = cache->regions;
	if (atomic_load(&all->out)) return -EBUSY;
	for (unsigned i = top_of(all); i-- > 0;) {
		struct region *region = region_of(all, i);
		if (region) release(cache, region, 0);
	}
	return atomic_load(&all->live) ? -EBUSY : 0;
}

void regions_end(hp_cache *cache)
{
	struct cache_regions *all = cache->regions;
	for (unsigned i = top_of(all); i-- > 0;) {
		struct region *region = region_of(all, i);
		if (!region) continue;
		void *given = region->given;
		size_t bytes = region->bytes;
		bool gone = atomic_load(&region->word) & GONE;
		end_region(region);
		if (!gone) all->memory.release(all->memory.arg, given, bytes);
	}
	cache->regions = NULL;
	os_unmap(all, sizeof *all);
}

int regions_create(hp_cache *cache, const struct hp_cache_options *options, const struct hp_cache_memory *memory)
{
	struct slab_class class;
	void *room;
	if (!cache_cut(options, &class)) return -EINVAL;
	if (memory->region && memory->region / HP_PAGE_SIZE < class.pages) return -EINVAL;
	if (memory->bytes && memory->bytes / HP_PAGE_SIZE < class.pages) return -EINVAL;
	if (memory->bytes && memory->region > memory->bytes) return -EINVAL;
	/* not from malloc: zero, and little of it is touched */
	int error = os_map(NULL, sizeof(struct cache_regions), PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON, -1, 0, &room);
	if (error < 0) return error;
	struct cache_regions *all = room;
	all->memory = *memory;
	all->options = *options;
	all->class = cache->pool->classes[cache->class];
	cache->regions = all;
	return 0;
}
