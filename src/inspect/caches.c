/* Caches as anybody sees them who looks, also read-only: counted from the slabs, like all numbers here, and who waits for
 * what. Nothing read here is trusted; a name goes to terminals, so that what cannot be printed is replaced. */
#include "inspect/inspect.h"
#include "slab/slab.h"
#include "pool/record.h"
#include <errno.h>
#include <string.h>

struct sum {
	uint64_t slabs, bytes, live, free;
};

/* By class: malloc's, and those of caches. */
struct sums {
	const hp_pool *pool;
	struct sum of[SLAB_CLASSES];
};

static int count_slab(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct sums *sums = arg;
	if ((len & PARITY_TYPE_MASK) != PAGE_TYPE_SLAB) return 0;
	const struct slab *slab = &sums->pool->slabs[(uint64_t)chunk * sums->pool->chunk_pages + page];
	struct sum *sum = &sums->of[atomic_load_explicit(&slab->class, memory_order_relaxed)];
	unsigned objects = atomic_load_explicit(&slab->objects, memory_order_relaxed), live = 0;
	if (objects > SLAB_OBJECTS) objects = SLAB_OBJECTS;
	for (unsigned w = 0; w * 64 < objects; w++) {
		uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_acquire);
		uint64_t bits = a ^ atomic_load_explicit(&slab->r[w], memory_order_acquire);
		bits |= slab_lent_in(sums->pool, slab, w);
		live += (unsigned)__builtin_popcountll(
			objects - w * 64 >= 64 ? bits : bits & ((UINT64_C(1) << (objects - w * 64)) - 1));
	}
	sum->slabs++;
	sum->bytes += pages * HP_PAGE_SIZE;
	sum->live += live;
	sum->free += objects - live;
	return 0;
}

/* False: there is no such cache. */
static bool name_of(const hp_pool *pool, unsigned i, char name[CACHE_NAME_MAX])
{
	const struct pool_cache *shared = &pool->caches[i];
	if (cache_state(atomic_load_explicit(&shared->word, memory_order_acquire)) != CACHE_LIVE) return false;
	memcpy(name, shared->name, CACHE_NAME_MAX);
	name[CACHE_NAME_MAX - 1] = 0;
	for (char *at = name; *at; at++)
		if (*at < ' ' || *at > '~') *at = '?';
	return true;
}

/* The cache that the slot's thread waits for, or -1. */
static int waits_for(const hp_pool *pool, uint32_t slot)
{
	if (!atomic_load_explicit(&pool->waits[slot].ticket, memory_order_acquire)) return -1;
	uint32_t class = atomic_load_explicit(&pool->waits[slot].class, memory_order_relaxed);
	if (class < CACHE_FIRST_CLASS || class >= SLAB_CLASSES) return -1;
	return slot_state(atomic_load_explicit(&pool->slots[slot].word, memory_order_acquire)) == SLOT_FREE
	           ? -1
	           : (int)(class - CACHE_FIRST_CLASS);
}

int hp_pool_caches(hp_pool *pool, hp_cache_seen_fn *each, void *arg)
{
	if (!pool || !each) return -EINVAL;
	struct sums sums = {.pool = pool};
	uint64_t waiting[CACHES] = {0};
	uint32_t top = pool_top(pool), slots = pool_slots_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		uint64_t ctl;
		if (inspect_committed(pool, i, &ctl) && ctl_state(ctl) != CTL_QUARANTINED)
			inspect_runs(pool, i, count_slab, &sums);
	}
	for (uint32_t i = 0; i < slots; i++) {
		int cache = waits_for(pool, i);
		if (cache >= 0) waiting[cache]++;
	}
	for (unsigned i = 0; i < CACHES; i++) {
		const struct pool_cache *shared = &pool->caches[i];
		const struct sum *sum = &sums.of[CACHE_FIRST_CLASS + i];
		struct hp_cache_seen seen = {.struct_size = sizeof seen};
		if (!name_of(pool, i, seen.name)) continue;
		seen.size = shared->size;
		seen.in_use = sum->live;
		seen.cached = sum->free;
		seen.slabs = sum->slabs;
		seen.bytes = sum->bytes;
		seen.limit = cache_limit(shared);
		seen.fails = atomic_load_explicit(&shared->fails, memory_order_relaxed);
		seen.waits = atomic_load_explicit(&shared->waits, memory_order_relaxed);
		seen.waiting = waiting[i];
		seen.retries = atomic_load_explicit(&shared->retries, memory_order_relaxed);
		seen.gets = atomic_load_explicit(&shared->gets, memory_order_relaxed);
		seen.puts = atomic_load_explicit(&shared->puts, memory_order_relaxed);
		uint64_t most = atomic_load_explicit(&shared->most, memory_order_relaxed);
		if (most < sum->slabs) most = sum->slabs;
		if (most < pool->capacity / HP_PAGE_SIZE && sum->slabs) seen.most_bytes = sum->bytes / sum->slabs * most;
		int stop = each(arg, &seen);
		if (stop) return stop;
	}
	return 0;
}

int hp_pool_waiters(hp_pool *pool, hp_waiter_seen_fn *each, void *arg)
{
	if (!pool || !each) return -EINVAL;
	uint32_t slots = pool_slots_top(pool);
	for (uint32_t i = 0; i < slots; i++) {
		int cache = waits_for(pool, i);
		uint32_t record = slot_record(atomic_load_explicit(&pool->slots[i].word, memory_order_acquire));
		struct hp_waiter_seen seen = {.struct_size = sizeof seen};
		if (cache < 0 || record >= pool->record_count || !name_of(pool, (unsigned)cache, seen.cache)) continue;
		seen.pid = (int)atomic_load_explicit(&pool->records[record].pid, memory_order_relaxed);
		seen.tid = (int)atomic_load_explicit(&pool->slots[i].tid, memory_order_relaxed);
		int stop = each(arg, &seen);
		if (stop) return stop;
	}
	return 0;
}
