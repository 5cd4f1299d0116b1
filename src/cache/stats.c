/* Numbers of a cache: counted from its slabs whenever somebody asks, so that getting and putting count nothing and no death
 * falsifies them. What is kept are counters of slow paths. */
#include "cache/region.h"
#include "pool/record.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE offsetof(struct hp_cache_stats, retries) /* of the struct when it ended there */

int hp_cache_stats(hp_cache *cache, struct hp_cache_stats *stats)
{
	hp_pool *pool = cache->pool;
	struct pool_cache *shared = cache->shared;
	struct slab_census sum;
	size_t size = stats ? stats->struct_size : 0;
	if (size < FIRST_SIZE) return -EINVAL;
	if (!cache_is_live(cache)) return -ESTALE;
	slab_census(pool, cache->class, &sum);
	const struct slab_class *class = &pool->classes[cache->class];
	struct hp_cache_stats now = {.struct_size = size,
	                             .size = cache->size,
	                             .stride = class->size,
	                             .in_use = sum.live,
	                             .cached = sum.free,
	                             .slabs = sum.slabs,
	                             .bytes = sum.slabs * class->pages * HP_PAGE_SIZE,
	                             .fails = atomic_load(&shared->fails),
	                             .waits = atomic_load(&shared->waits),
	                             .wakes = atomic_load(&shared->wakes),
	                             .limit = cache_limit(shared),
	                             .low = atomic_load(&shared->low),
	                             .high = atomic_load(&shared->high),
	                             .retries = atomic_load(&shared->retries),
	                             .gets = atomic_load(&shared->gets),
	                             .puts = atomic_load(&shared->puts)};
	uint32_t top = pool_slots_top(pool);
	for (uint32_t i = 0; i < top; i++)
		now.waiting += atomic_load(&pool->waits[i].ticket) && atomic_load(&pool->waits[i].class) == cache->class;
	if (cache->regions) regions_stats(cache, &now);
	atomic_store_explicit(&shared->held, (int64_t)now.slabs, memory_order_relaxed);
	now.most_slabs = cache_count_held(shared, 0);
	now.most_bytes = now.slabs && cache->regions ? now.bytes / now.slabs * now.most_slabs
	                                             : now.most_slabs * class->pages * HP_PAGE_SIZE;
	memcpy(stats, &now, size < sizeof now ? size : sizeof now);
	return 0;
}

struct sums {
	const hp_pool *pool;
	struct slab_census *of; /* by slot, the last one nobody's; or by node, the last one that of no one node */
	unsigned count;
	bool nodes;
};

static void count_slab(void *arg, uint32_t page, uint64_t ctl, unsigned live, unsigned free)
{
	struct sums *sums = arg;
	unsigned i = sums->nodes ? atomic_load_explicit(&sums->pool->nodes[page >> sums->pool->page_shift_chunk],
	                                                memory_order_relaxed)
	             : ctl_state(ctl) == CTL_OWNED ? ctl_owner(ctl) - 1
	                                           : sums->count;
	struct slab_census *sum = &sums->of[i < sums->count ? i : sums->count];
	sum->slabs++;
	sum->live += live;
	sum->free += free;
}

/* NULL: no memory. To be freed. */
static struct slab_census *count_by(hp_cache *cache, unsigned count, bool nodes)
{
	struct sums sums = {.pool = cache->pool, .of = calloc(count + 1, sizeof *sums.of), .count = count, .nodes = nodes};
	if (sums.of && !cache->regions) slab_each(cache->pool, cache->class, count_slab, &sums);
	return sums.of;
}

int hp_cache_owners(hp_cache *cache, struct hp_cache_owner *owners, unsigned room)
{
	if (!cache || (room && !owners)) return -EINVAL;
	if (!cache_is_live(cache)) return -ESTALE;
	hp_pool *pool = cache->pool;
	uint32_t top = pool_slots_top(pool);
	struct slab_census *of = count_by(cache, top, false);
	unsigned count = 0;
	if (!of) return -ENOMEM;
	for (uint32_t i = 0; i <= top; i++) {
		if (!of[i].slabs || count++ >= room) continue;
		struct hp_cache_owner *owner = &owners[count - 1];
		*owner = (struct hp_cache_owner){.slabs = of[i].slabs, .in_use = of[i].live, .cached = of[i].free};
		if (i == top) continue;
		uint32_t record = slot_record(atomic_load_explicit(&pool->slots[i].word, memory_order_acquire));
		if (record < pool->record_count)
			owner->pid = (int)atomic_load_explicit(&pool->records[record].pid, memory_order_relaxed);
		owner->tid = (int)atomic_load_explicit(&pool->slots[i].tid, memory_order_relaxed);
	}
	free(of);
	return (int)count;
}

int hp_cache_nodes(hp_cache *cache, struct hp_cache_node *nodes, unsigned room)
{
	if (!cache || (room && !nodes)) return -EINVAL;
	if (!cache_is_live(cache)) return -ESTALE;
	struct slab_census *of = count_by(cache, HP_MAX_NODES, true);
	unsigned count = 0;
	if (!of) return -ENOMEM;
	for (unsigned i = 0; i <= HP_MAX_NODES; i++)
		if (of[i].slabs && count++ < room)
			nodes[count - 1] = (struct hp_cache_node){.node = i < HP_MAX_NODES ? (int)i : -1,
			                                          .slabs = of[i].slabs,
			                                          .in_use = of[i].live,
			                                          .cached = of[i].free};
	free(of);
	return (int)count;
}
