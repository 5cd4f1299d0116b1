/* Numbers, counted from the bitmaps: no counter is shared, and none can drift. */
#include "inspect/look.h"
#include "io/pin.h"
#include "slab/slab.h"
#include <errno.h>
#include <string.h>

bool inspect_committed(const hp_pool *pool, uint32_t chunk, uint64_t *ctl)
{
	*ctl = atomic_load_explicit(&pool->chunks[chunk].ctl, memory_order_acquire);
	return ctl_state(*ctl) != CTL_UNCOMMITTED;
}

int inspect_runs(const hp_pool *pool, uint32_t chunk, inspect_run_fn *each, void *arg)
{
	const struct parity_unit *unit = &pool->units[chunk];
	for (unsigned w = 0; w < pool->chunk_pages / 64; w++) {
		uint64_t a = atomic_load_explicit(&unit->a[w], memory_order_acquire);
		uint64_t heads = a ^ atomic_load_explicit(&unit->r[w], memory_order_acquire);
		for (; heads; heads &= heads - 1) {
			unsigned i = w * 64 + (unsigned)__builtin_ctzll(heads);
			unsigned len = atomic_load_explicit(&unit->len[i], memory_order_acquire);
			uint64_t pages = page_run(pool, chunk, i);
			if (!pages && !parity_live(unit, i)) continue; /* freed while we looked */
			int stop = each(arg, chunk, i, len, pages);
			if (stop) return stop;
		}
	}
	return 0;
}

void inspect_slab(const hp_pool *pool, uint32_t chunk, unsigned page, unsigned len, struct inspect_slab *out)
{
	uint64_t at = (uint64_t)chunk * pool->chunk_pages + page;
	const struct slab *slab = &pool->slabs[at];
	*out = (struct inspect_slab){
		.page = at,
		.ctl = atomic_load_explicit(&slab->ctl, memory_order_acquire),
		.pages = parity_len(len & PARITY_LEN_MASK, page, pool->chunk_pages),
		.class = atomic_load_explicit(&slab->class, memory_order_relaxed),
		.objects = atomic_load_explicit(&slab->objects, memory_order_relaxed),
		.first = atomic_load_explicit(&slab->first, memory_order_relaxed),
	};
	for (unsigned w = 0; w < SLAB_WORDS; w++) {
		uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_acquire);
		uint64_t live = a ^ atomic_load_explicit(&slab->r[w], memory_order_acquire);
		live |= slab_lent_in(pool, slab, w);
		unsigned in = out->objects <= w * 64 ? 0 : out->objects - w * 64;
		uint64_t mask = in >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << in) - 1;
		out->beyond |= (live & ~mask) != 0;
		out->bits[w] = live & mask;
		out->live += (unsigned)__builtin_popcountll(live & mask);
	}
	/* caches' classes need not be known here: the map has 2^32 divided by the size, rounded up */
	uint32_t reciprocal = (uint32_t)(atomic_load_explicit(&pool->map[at], memory_order_relaxed) >> 32);
	if (out->class < SLAB_MALLOC_CLASSES)
		out->size = pool->classes[out->class].size;
	else if (reciprocal)
		out->size = (uint32_t)(((UINT64_C(1) << 32) + reciprocal - 1) / reciprocal);
}

static struct hp_node_stats *node_entry(struct hp_pool_stats *stats, int node)
{
	for (unsigned i = 0; i < stats->nodes; i++)
		if (stats->node[i].node == node) return &stats->node[i];
	if (stats->nodes == HP_MAX_NODES + 1) return &stats->node[HP_MAX_NODES];
	stats->node[stats->nodes] = (struct hp_node_stats){.node = node};
	return &stats->node[stats->nodes++];
}

static void count_chunks(const hp_pool *pool, struct hp_pool_stats *stats)
{
	uint64_t carry = 0, cp = pool->chunk_pages, largest = 0;
	uint32_t top = pool_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		uint64_t ctl;
		if (!inspect_committed(pool, i, &ctl) || ctl_state(ctl) == CTL_QUARANTINED) {
			carry = 0;
			continue;
		}
		struct parity_view view;
		page_view(pool, i, &view);
		uint8_t node = atomic_load_explicit(&pool->nodes[i], memory_order_relaxed);
		struct hp_node_stats *at = node_entry(stats, node < HP_MAX_NODES ? node : -1);
		uint64_t free = parity_view_count(&view);
		at->committed += cp * HP_PAGE_SIZE;
		at->free += free * HP_PAGE_SIZE;
		stats->committed += cp * HP_PAGE_SIZE;
		stats->free += free * HP_PAGE_SIZE;
		stats->live_blocks += parity_count_heads(&pool->units[i], pool->chunk_pages);
		uint64_t inside = parity_view_longest(&view), joined = carry + parity_view_prefix(&view);
		if (inside > largest) largest = inside;
		if (joined > largest) largest = joined;
		carry = free == cp ? carry + cp : parity_view_suffix(&view);
	}
	stats->largest = largest * HP_PAGE_SIZE;
}

struct class_sums {
	const hp_pool *pool;
	uint64_t heap_runs, heap_bytes;
	uint64_t pin_runs, pinned_runs, pinned_bytes; /* tables of pins; runs under I/O */
	struct hp_class_stats of[SLAB_CLASSES];
};

static int count_slab(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct class_sums *sums = arg;
	struct inspect_slab slab;
	if (inspect_is_heap(len)) {
		sums->heap_runs++;
		sums->heap_bytes += pages * HP_PAGE_SIZE;
	}
	sums->pin_runs += (len & PARITY_TYPE_MASK) == PAGE_TYPE_PINS;
	if ((len & PARITY_TYPE_MASK) == PAGE_TYPE_LENT) {
		sums->pinned_runs++;
		sums->pinned_bytes += pages * HP_PAGE_SIZE;
	}
	if (!inspect_is_slab(len)) return 0;
	inspect_slab(sums->pool, chunk, page, len, &slab);
	struct hp_class_stats *of = &sums->of[slab.class % SLAB_CLASSES];
	of->cache = slab.class >= SLAB_MALLOC_CLASSES;
	if (slab.size) of->size = slab.size;
	of->slabs++;
	of->bytes += pages * HP_PAGE_SIZE;
	of->objects += slab.objects;
	of->live += slab.live;
	for (unsigned w = 0; w < SLAB_WORDS; w++) {
		unsigned pinned = (unsigned)__builtin_popcountll(slab_lent_in(sums->pool, &sums->pool->slabs[slab.page], w));
		sums->pinned_runs += pinned;
		sums->pinned_bytes += (uint64_t)pinned * slab.size;
	}
	return 0;
}

static void count_classes(const hp_pool *pool, struct class_sums *sums)
{
	*sums = (struct class_sums){.pool = pool};
	uint32_t top = pool_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		uint64_t ctl;
		if (inspect_committed(pool, i, &ctl) && ctl_state(ctl) != CTL_QUARANTINED)
			inspect_runs(pool, i, count_slab, sums);
	}
}

int hp_pool_class_stats(hp_pool *pool, struct hp_class_stats *of, unsigned room)
{
	struct class_sums sums;
	if (!pool || (!of && room)) return -EINVAL;
	count_classes(pool, &sums);
	int count = 0;
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		if (!sums.of[c].slabs) continue;
		if ((unsigned)count < room) of[count] = sums.of[c];
		count++;
	}
	return count;
}

static void count_objects(const hp_pool *pool, struct hp_pool_stats *stats)
{
	struct class_sums sums;
	count_classes(pool, &sums);
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		stats->slabs += sums.of[c].slabs;
		stats->slab_bytes += sums.of[c].bytes;
		stats->objects += sums.of[c].live;
		stats->object_bytes += sums.of[c].live * sums.of[c].size;
	}
	stats->heap_bytes = sums.heap_bytes;
	for (uint32_t i = 1; i < heap_top(pool); i++)
		stats->heaps += look_is_there(atomic_load_explicit(&pool->heaps[i].word, memory_order_acquire));
	for (uint32_t i = 0; i < pin_rings_top(pool); i++)
		stats->rings += ring_state(atomic_load_explicit(&pool->rings[i].word, memory_order_acquire)) != RING_FREE;
	stats->pinned_blocks = sums.pinned_runs;
	stats->pinned_bytes = sums.pinned_bytes;
	/* slabs, heaps' runs and tables of pins are no blocks of the application's */
	uint64_t others = stats->slabs + sums.heap_runs + sums.pin_runs;
	stats->live_blocks -= others < stats->live_blocks ? others : stats->live_blocks;
}

int hp_pool_stats(hp_pool *pool, struct hp_pool_stats *out)
{
	if (!pool || !out) return -EINVAL;
	size_t size = out->struct_size ? out->struct_size : sizeof *out;
	if (size > sizeof *out) return -EINVAL;
	struct hp_pool_stats stats = {.struct_size = size,
	                              .capacity = pool->capacity,
	                              .page_size = pool->geometry.page_size,
	                              .unit_size = pool_chunk_bytes(pool)};
	count_chunks(pool, &stats);
	count_objects(pool, &stats);
	uint32_t top = pool_slots_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		const struct pool_slot *slot = &pool->slots[i];
		stats.allocs += atomic_load_explicit(&slot->allocs, memory_order_relaxed);
		stats.frees += atomic_load_explicit(&slot->frees, memory_order_relaxed);
		stats.remote_frees += atomic_load_explicit(&slot->remote_frees, memory_order_relaxed);
		stats.threads += slot_state(atomic_load_explicit(&slot->word, memory_order_relaxed)) == SLOT_LIVE;
	}
	for (uint32_t i = 0; i < pool->record_count; i++)
		stats.processes += record_state(atomic_load_explicit(&pool->records[i].word, memory_order_relaxed)) ==
		                   RECORD_LIVE;
	stats.taken = atomic_load_explicit(&pool->header->taken, memory_order_relaxed);
	stats.recovered = atomic_load_explicit(&pool->header->recovered, memory_order_relaxed);
	stats.quarantined = atomic_load_explicit(&pool->header->quarantined, memory_order_relaxed);
	memcpy(out, &stats, size);
	return 0;
}
