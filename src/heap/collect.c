/* A collection: mark, condemn, wait for the readers without waiting, sweep.
 *
 * What is not marked is condemned, not freed: readers that are in a section may still be using it. It is reclaimed when every
 * section that was open has ended, by whoever holds the lock then and looks. Until that the heap is pending: whatever is linked
 * again, or guarded, is marked again. A death at any point frees nothing, or leaves a sweep that is done once more.
 * Model: tests/models/heap_reader_model.py, heap_several_model.py. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "pool/recover.h"
#include "os/os.h"
#include <errno.h>

struct sweep {
	uint64_t cycle, live, number;
	bool trim;
};

static void set_flags(struct heap_slab *slab, uint8_t set, uint8_t clear)
{
	uint8_t flags = atomic_load_explicit(&slab->flags, memory_order_relaxed);
	atomic_store_explicit(&slab->flags, (flags & (uint8_t)~clear) | set, memory_order_relaxed);
}

static int sweep_one(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)heap, (void)page, (void)cell;
	struct sweep *sweep = arg;
	bool marked = atomic_load_explicit(&slab->mark_stamp, memory_order_relaxed) == sweep->cycle;
	uint64_t live = 0;
	for (uint32_t w = 0, words = heap_words(slab); w < words; w++) {
		uint64_t a = heap_load_a(&slab->bits[w]);
		if (!a) continue;
		uint64_t m = marked ? a & atomic_load_explicit(&slab->bits[w].m, memory_order_relaxed) : 0;
		/* commit: what was condemned is free. Again after a death, with the same result: the marks stay. */
		if (m != a) atomic_store_explicit(&slab->bits[w].a, m, memory_order_relaxed);
		live += (unsigned)__builtin_popcountll(m);
	}
	sweep->live += live * atomic_load_explicit(&slab->size, memory_order_relaxed);
	return 0;
}

/* Slabs without values: those of single values at once; others when they were so at the last sweep already, and are not the
 * only one of their kind. */
static int give_empty(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	const struct sweep *sweep = arg;
	struct heap_entry *entry = heap->entry;
	for (uint32_t w = 0, words = heap_words(slab); w < words; w++)
		if (heap_load_a(&slab->bits[w])) {
			set_flags(slab, 0, HEAP_WAS_EMPTY);
			return 0;
		}
	if (atomic_load_explicit(&slab->born_stamp, memory_order_relaxed) == sweep->number) return 0; /* at work with it */
	bool alone = atomic_load_explicit(&slab->class, memory_order_relaxed) == HEAP_ALONE, trim = alone || sweep->trim;
	if (!trim && !(atomic_load_explicit(&slab->flags, memory_order_relaxed) & HEAP_WAS_EMPTY)) {
		set_flags(slab, HEAP_WAS_EMPTY, 0);
		return 0;
	}
	uint32_t next = atomic_load_explicit(&slab->next, memory_order_relaxed);
	struct heap_type_entry *type = heap_type_entry(heap, atomic_load_explicit(&slab->type, memory_order_relaxed));
	if (!trim && (!type || (cell == &type->list[atomic_load_explicit(&slab->class, memory_order_relaxed)] && !next)))
		return 0;
	uint32_t pages = atomic_load_explicit(&slab->pages, memory_order_relaxed);
	heap_run_give(heap, page, cell, NULL, next);
	atomic_store_explicit(&entry->pages, atomic_load_explicit(&entry->pages, memory_order_relaxed) - pages,
	                      memory_order_relaxed);
	return 0;
}

static void start_over(hp_heap *heap)
{
	for (uint32_t id = 0; id < atomic_load(&heap->entry->types); id++) {
		struct heap_type_entry *type = heap_type_entry(heap, id);
		for (unsigned class = 0; type && class < HEAP_CLASSES; class ++)
			atomic_store_explicit(&type->at[class], 0, memory_order_relaxed);
	}
	if (heap->tx->heap) heap_drop_masks(heap);
	heap->tx->last = 0; /* masks of the transaction before */
}

/* Phase is SWEEP: nobody uses what is not marked. */
void heap_sweep(hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	struct sweep sweep = {.cycle = atomic_load_explicit(&entry->cycle, memory_order_relaxed),
	                      .number = heap->tx->heap ? heap->tx->number : 0};
	heap_slabs(heap, sweep_one, &sweep);
	/* commit: over. Release: all of it is free. */
	atomic_store_explicit(&entry->phase, heap_phase_make(HEAP_IDLE, 0), memory_order_release);
	heap_empty_released(heap);
	heap_slabs(heap, give_empty, &sweep);
	start_over(heap);
	atomic_store_explicit(&entry->live, sweep.live, memory_order_relaxed);
	atomic_store_explicit(&entry->allocated, 0, memory_order_relaxed);
	atomic_store_explicit(&entry->blocker, 0, memory_order_relaxed);
}

void heap_trim(hp_heap *heap)
{
	struct sweep sweep = {.trim = true, .number = heap->tx->heap ? heap->tx->number : 0};
	if (heap_phase(atomic_load_explicit(&heap->entry->phase, memory_order_relaxed)) != HEAP_IDLE) return;
	heap_slabs(heap, give_empty, &sweep);
	start_over(heap);
}

bool heap_finish(hp_heap *heap, uint64_t wait_ns)
{
	struct heap_entry *entry = heap->entry;
	uint64_t phase = atomic_load_explicit(&entry->phase, memory_order_acquire), start = 0;
	uint32_t blocker;
	if (heap_phase(phase) != HEAP_CONDEMNED) return heap_phase(phase) == HEAP_IDLE;
	for (bool recovered = false; !heap_grace(heap->pool, heap_phase_epoch(phase), &blocker);) {
		uint64_t now = os_now_ns();
		if (!start) start = now;
		if (now - start >= wait_ns || now - start > 1000000) {
			/* a dead reader's section has no end */
			if (!recovered) {
				recovered = true;
				if (recover_dead(heap->pool) > 0) continue;
			}
		}
		if (now - start >= wait_ns) {
			atomic_store_explicit(&entry->blocker, blocker, memory_order_relaxed);
			return false;
		}
		os_yield();
	}
	uint64_t began = os_now_ns();
	/* all that could be moved or guarded since the mark is in a cell, in the log, or was marked by set */
	heap_mark_roots(heap);
	heap_mark_guards(heap);
	atomic_store_explicit(&entry->phase, heap_phase_make(HEAP_SWEEP, 0), memory_order_release);
	heap_sweep(heap);
	heap_mark_end(heap);
	if (heap->tx->heap) heap_set_pending(heap->tx, false);
	uint64_t pause = atomic_load_explicit(&entry->pause_ns, memory_order_relaxed) + os_now_ns() - began;
	atomic_store_explicit(&entry->pause_ns, pause, memory_order_relaxed);
	if (pause > atomic_load_explicit(&entry->pause_max_ns, memory_order_relaxed))
		atomic_store_explicit(&entry->pause_max_ns, pause, memory_order_relaxed);
	return true;
}

int heap_collect(hp_heap *heap, uint64_t wait_ns)
{
	struct heap_entry *entry = heap->entry;
	hp_pool *pool = heap->pool;
	if (heap_phase(atomic_load_explicit(&entry->phase, memory_order_acquire)) != HEAP_IDLE)
		return heap_finish(heap, wait_ns) ? 0 : -EAGAIN;
	int error = heap_types_known(heap);
	if (error < 0) return error;
	uint64_t began = os_now_ns();
	heap->bad = 0;
	heap->stack_top = heap->slice_top = 0;
	heap->overflown = false;
	atomic_store_explicit(&entry->cycle, atomic_load_explicit(&entry->cycle, memory_order_relaxed) + 1,
	                      memory_order_release);
	struct heap_graph *graph = heap_graph_begin(heap);
	heap_mark_roots(heap);
	if ((error = heap_graph_end(heap, graph)) < 0) return error;
	atomic_fetch_add_explicit(&entry->collections, 1, memory_order_relaxed);
	/* From here on the heap is pending, for all who guard and unguard; then the epoch moves, so that sections that begin
	 * later can be told; then every processor passes a barrier, so that none has begun one with the old epoch unseen. */
	atomic_store(&entry->phase, heap_phase_make(HEAP_BARRIER, 0));
	uint64_t epoch = atomic_fetch_add(&pool->header->epoch, 1) + 1;
	if (!pool->fenced && os_membarrier() < 0) {
		atomic_store(&entry->phase, heap_phase_make(HEAP_IDLE, 0));
		return -ENOTSUP;
	}
	atomic_store_explicit(&entry->phase, heap_phase_make(HEAP_CONDEMNED, epoch), memory_order_release);
	atomic_store_explicit(&entry->pause_ns, os_now_ns() - began, memory_order_relaxed);
	if (heap->tx->heap) {
		heap_set_pending(heap->tx, true);
		heap_drop_masks(heap); /* what comes from them would not be marked */
	}
	return heap_finish(heap, wait_ns) ? 0 : -EAGAIN;
}

int hp_heap_gc(hp_heap *heap, unsigned flags, int timeout_ms)
{
	hp_tx *tx;
	if (flags & ~(HP_GC_WAIT | HP_GC_TRIM)) return -EINVAL;
	int error = hp_heap_begin(heap, timeout_ms, &tx);
	if (error < 0) return error;
	uint64_t wait = flags & HP_GC_WAIT ? (timeout_ms < 0 ? UINT64_MAX / 2 : (uint64_t)timeout_ms * 1000000) : 0;
	/* what waits since before was found with what was garbage then */
	if (!tx->pending || heap_finish(heap, wait)) error = heap_collect(heap, wait);
	if (tx->pending) error = -EAGAIN;
	if (error == 0 && flags & HP_GC_TRIM) heap_trim(heap);
	hp_heap_commit(tx);
	return error;
}
