/* The heap's runs of pages: slabs, the undo log, the table of types.
 *
 * A run is the heap's when it is live, of type HEAP, its descriptor has the heap's tag, and a cell names it: the head of a
 * list, another slab, an extent. `run` in the entry names the one that is in hand, so that of a run which is live and
 * unnamed the next holder of the lock knows. Model: tests/models/heap_run_model.py. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "pool/recover.h"
#include "os/os.h"
#include <errno.h>
#include <string.h>

struct taking {
	hp_heap *heap;
	const struct heap_run *run;
};

static void set_map(const hp_pool *pool, uint64_t page, uint64_t pages, uint32_t index, uint64_t colour)
{
	for (uint64_t i = 0; i < pages; i++)
		atomic_store_explicit(&pool->map[page + i], index ? heap_map_make(index, colour, i) : 0, memory_order_relaxed);
}

static size_t descriptor_bytes(const struct heap_run *run)
{
	return sizeof(struct heap_slab) + (run->objects + 63) / 64 * sizeof(struct heap_bits);
}

/* How many lines behind its place the descriptor lies: from slab to slab another number of those that there is room for. */
uint64_t heap_run_colour(const struct heap_run *run, uint64_t page)
{
	uint64_t room = run->kind == HEAP_SLAB && run->objects > 1 ? run->pages * sizeof(struct slab) : 0;
	uint64_t bytes = descriptor_bytes(run), colours = room > bytes ? (room - bytes) / 64 + 1 : 1;
	return page / run->pages * 7 % (colours < HEAP_COLOURS ? colours : HEAP_COLOURS);
}

/* Right before the run becomes live. */
static void prepare(struct participant *me, const struct page_want *want, uint64_t page)
{
	const struct taking *taking = want->arg;
	const struct heap_run *run = taking->run;
	struct heap_entry *entry = taking->heap->entry;
	uint64_t colour = heap_run_colour(run, page);
	struct heap_slab *mark = heap_mark_at(me->pool, page), *slab = heap_slab_coloured(me->pool, page, colour);
	uint32_t words = (run->objects + 63) / 64;
	size_t bytes = descriptor_bytes(run) + colour * 64;
	pool_control_populate_slabs(me->pool, page, (uint32_t)((bytes + sizeof(struct slab) - 1) / sizeof(struct slab)));
	atomic_store_explicit(&mark->tag, (uint16_t)(taking->heap->tag >> HEAP_OFFSET_BITS), memory_order_relaxed);
	atomic_store_explicit(&mark->kind, run->kind, memory_order_relaxed);
	atomic_store_explicit(&slab->tag, (uint16_t)(taking->heap->tag >> HEAP_OFFSET_BITS), memory_order_relaxed);
	atomic_store_explicit(&slab->kind, run->kind, memory_order_relaxed);
	atomic_store_explicit(&slab->flags, 0, memory_order_relaxed);
	atomic_store_explicit(&slab->type, run->type, memory_order_relaxed);
	atomic_store_explicit(&slab->class, run->class, memory_order_relaxed);
	atomic_store_explicit(&slab->reciprocal, run->reciprocal, memory_order_relaxed);
	atomic_store_explicit(&slab->objects, run->objects, memory_order_relaxed);
	atomic_store_explicit(&slab->size, run->size, memory_order_relaxed);
	atomic_store_explicit(&slab->pages, (uint32_t)run->pages, memory_order_relaxed);
	atomic_store_explicit(&slab->next, 0, memory_order_relaxed);
	/* both stamps are current, so that nothing of what stood there before counts */
	atomic_store_explicit(&slab->mark_stamp, atomic_load_explicit(&entry->cycle, memory_order_relaxed),
	                      memory_order_relaxed);
	atomic_store_explicit(&slab->born_stamp, atomic_load_explicit(&entry->number, memory_order_relaxed),
	                      memory_order_relaxed);
	for (uint32_t w = 0; w < words; w++) {
		atomic_store_explicit(&slab->bits[w].a, 0, memory_order_relaxed);
		atomic_store_explicit(&slab->bits[w].m, 0, memory_order_relaxed);
		atomic_store_explicit(&slab->bits[w].n, 0, memory_order_relaxed);
	}
	/* last: before the run becomes live, which is the next store but one */
	atomic_store_explicit(&entry->run, page + 1, memory_order_release);
}

int heap_run_take(hp_heap *heap, struct participant *me, const struct heap_run *run, uint64_t *page)
{
	struct taking taking = {.heap = heap, .run = run};
	struct page_want want = {
		.pages = run->pages, .node = -1, .type = PAGE_TYPE_HEAP, .prepare = prepare, .arg = &taking};
	int64_t at;
	if (run->pages > heap->pool->capacity / HP_PAGE_SIZE || run->pages > UINT32_MAX) return -ENOMEM;
	participant_hold(me);
	int error = page_search(me, &want, &at);
	participant_let_go(me);
	if (error < 0) return error;
	*page = (uint64_t)at;
	if (run->kind == HEAP_SLAB) set_map(heap->pool, *page, run->pages, heap->index, heap_run_colour(run, *page));
	return 0;
}

void heap_run_named(hp_heap *heap)
{
	atomic_store_explicit(&heap->entry->run, 0, memory_order_release);
}

/* Live, of type HEAP, and ours. Live first: whoever makes it live has written the tag before. */
bool heap_run_is(const hp_heap *heap, uint64_t page, uint8_t kind)
{
	const hp_pool *pool = heap->pool;
	uint32_t chunk = (uint32_t)(page >> pool->page_shift_chunk);
	unsigned i = (unsigned)page & (pool->chunk_pages - 1);
	if (chunk >= pool_top(pool) || !parity_live(&pool->units[chunk], i)) return false;
	unsigned len = atomic_load_explicit(&pool->units[chunk].len[i], memory_order_acquire);
	struct heap_slab *slab = heap_mark_at(pool, page);
	return (len & PARITY_TYPE_MASK) == PAGE_TYPE_HEAP &&
	       atomic_load_explicit(&slab->tag, memory_order_acquire) == heap->tag >> HEAP_OFFSET_BITS &&
	       (!kind || atomic_load_explicit(&slab->kind, memory_order_relaxed) == kind);
}

static void give(hp_heap *heap, uint64_t page)
{
	struct heap_slab *slab = heap_mark_at(heap->pool, page);
	uint64_t pages = page_run(heap->pool, (uint32_t)(page >> heap->pool->page_shift_chunk),
	                          (unsigned)page & (heap->pool->chunk_pages - 1));
	if (atomic_load_explicit(&slab->kind, memory_order_relaxed) == HEAP_SLAB) set_map(heap->pool, page, pages, 0, 0);
	/* commit of the page layer: free, and whoever takes it next writes another tag first */
	page_free_typed(heap->pool, page, PAGE_TYPE_HEAP);
}

void heap_run_give(hp_heap *heap, uint64_t page, _Atomic uint32_t *cell32, _Atomic uint64_t *cell64, uint64_t value)
{
	atomic_store_explicit(&heap->entry->run, page + 1, memory_order_release);
	/* commit: nothing names it any more */
	if (cell32)
		atomic_store_explicit(cell32, (uint32_t)value, memory_order_release);
	else
		atomic_store_explicit(cell64, value, memory_order_release);
	give(heap, page);
	atomic_store_explicit(&heap->entry->run, 0, memory_order_release);
}

struct named {
	uint64_t page;
};

static int is_it(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)heap, (void)slab, (void)cell;
	return page == ((struct named *)arg)->page;
}

static int count_pages(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)heap, (void)page, (void)cell;
	*(uint64_t *)arg += atomic_load_explicit(&slab->pages, memory_order_relaxed);
	return 0;
}

void heap_run_settle(hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	uint64_t page = atomic_load_explicit(&entry->run, memory_order_acquire) - 1;
	if (page < heap->pool->capacity / HP_PAGE_SIZE && heap_run_is(heap, page, 0)) {
		bool named = false;
		for (unsigned i = 0; i < HEAP_EXTENTS; i++) named |= atomic_load(&entry->log[i]) == page + 1;
		for (unsigned i = 0; i < HEAP_TYPES / 16; i++) named |= atomic_load(&entry->type_run[i]) == page + 1;
		struct named look = {page};
		named = named || heap_slabs(heap, is_it, &look);
		if (!named) give(heap, page);
	}
	uint64_t pages = 0; /* a dead holder may not have come to counting it, even where it has none in hand any more */
	heap_slabs(heap, count_pages, &pages);
	atomic_store_explicit(&entry->pages, pages, memory_order_relaxed);
	atomic_store_explicit(&entry->run, 0, memory_order_release);
}

static int give_slab(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)arg;
	heap_run_give(heap, page, cell, NULL, atomic_load_explicit(&slab->next, memory_order_relaxed));
	return 0;
}

void heap_wipe(hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	heap_run_settle(heap);
	heap_slabs(heap, give_slab, NULL);
	atomic_store_explicit(&entry->types, 0, memory_order_release);
	_Atomic uint64_t *const cells[] = {entry->log, entry->type_run};
	const unsigned count[] = {HEAP_EXTENTS, HEAP_TYPES / 16};
	for (unsigned k = 0; k < 2; k++)
		for (unsigned i = 0; i < count[k]; i++) {
			uint64_t page1 = atomic_load_explicit(&cells[k][i], memory_order_relaxed);
			if (page1 && page1 <= heap->pool->capacity / HP_PAGE_SIZE && heap_run_is(heap, page1 - 1, 0))
				heap_run_give(heap, page1 - 1, NULL, &cells[k][i], 0);
			atomic_store_explicit(&cells[k][i], 0, memory_order_relaxed);
		}
}
