/* Marking by a copy of the graph: what a collection of much that lives goes by.
 *
 * Marking in place takes a miss of the cache for each value, and nearly nothing of the line that comes is needed. So the
 * references of a slab are copied, all of them and in the order of addresses, which the processor fetches ahead, when the first
 * of its values is reached: a cell of eight bytes for each value, with the numbers of the cells of two others. What follows
 * goes from cell to cell, in memory that is an eighth as large as the values. Values with more references have several cells
 * in a row; those with long tails are scanned where they lie. At the end the marks go from the cells to M.
 *
 * Whose marks are these? Nobody's before that: the memory is private, and goes with its process or with a fork. The holder of
 * the lock is the only one who changes references, so that the copy stays true while the roots are marked. Every reference is
 * checked when it is copied; what names nothing leads to cell 0, which counts it if it is ever reached. Garbage is copied, too,
 * if it lies in one slab with what lives: so this is done only where last time there was enough that lives. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "os/os.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* A cell: {marked:1, wanted:1, number:30} and above it {more:1, scan:1, number:30}. 0: its slab has not been copied yet. */
#define NUMBER ((UINT64_C(1) << 30) - 1)
#define MARKED (UINT64_C(1) << 31)
#define WANTED (UINT64_C(1) << 30)      /* there was no room in the stack for it */
#define MORE (UINT64_C(1) << 63)        /* the next cell is its, too */
#define SCAN (UINT64_C(1) << 62)        /* where it lies: numbers are those of the slab and of the place */
#define DEAD MARKED                     /* no value: it names nothing, not even none */
enum { NOWHERE = 0, NONE = 1, FIRST = 2 }; /* numbers: names no value; no reference; the first that may name one */

#define COPIED 16u  /* references of a value at most */
#define AHEAD 16u   /* cells that are being fetched */
#define TOGETHER 8u /* values that are scanned where they lie */
#define LINES 10u   /* fetched ahead of copying */

uint64_t heap_graph_least = UINT64_C(1) << 20;

struct part {
	uint64_t start, size; /* offset of the first value; of each, in bytes */
	uint32_t reciprocal, objects;
	uint32_t first, cells; /* number of its first cell; of each value. A multiple of 64, and what that takes, more or less */
	uint32_t references;   /* of each value */
	bool scan, copied;
	struct heap_slab *slab;
	const struct heap_type *type;
};

struct heap_graph {
	hp_heap *heap;
	uint64_t *cell;
	uint32_t *part_of; /* by page; 0: none */
	struct part *part; /* the first names nothing */
	uint64_t tag, low, pages, bytes;
	uint32_t parts, cells;
	bool overflown;
	const char *data;
	/* values that are to be scanned: their cells' numbers */
	uint64_t *scan;
	uint64_t scans, scan_room;
	uint32_t ahead[AHEAD];
	uint32_t oldest, waiting;
};

/* ---- laying it out ---- */

struct extent {
	struct heap_graph *graph;
	uint64_t low, high, cells;
	uint32_t parts;
	bool unknown;
};

/* A value of so many references takes so many cells: 0, it is scanned. */
static uint32_t shape_of(hp_heap *heap, const struct heap_slab *slab, const struct heap_type **type, uint32_t *references)
{
	*type = heap_type(heap, atomic_load_explicit(&slab->type, memory_order_relaxed));
	if (!*type) return 0;
	uint64_t n = heap_room(*type, atomic_load_explicit(&slab->size, memory_order_relaxed)) * (*type)->tail_members;
	n = n > COPIED ? n : n + (*type)->members;
	*references = (uint32_t)(n > COPIED ? 0 : n);
	return n > COPIED ? 0 : n < 2 ? 1 : (uint32_t)(n + 1) / 2;
}

static int count_slab(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)cell;
	struct extent *extent = arg;
	const struct heap_type *type;
	uint32_t references, cells = shape_of(heap, slab, &type, &references);
	extent->unknown |= !type;
	uint64_t pages = atomic_load_explicit(&slab->pages, memory_order_relaxed);
	if (page < extent->low) extent->low = page;
	if (page + pages > extent->high) extent->high = page + pages;
	extent->cells += (uint64_t)heap_words(slab) * 64 * (cells ? cells : 1);
	extent->parts++;
	return 0;
}

static int add_slab(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)cell;
	struct extent *extent = arg;
	struct heap_graph *graph = extent->graph;
	struct part *part = &graph->part[graph->parts];
	const struct heap_type *type;
	uint32_t references, cells = shape_of(heap, slab, &type, &references), words = heap_words(slab);
	uint32_t objects = atomic_load_explicit(&slab->objects, memory_order_relaxed);
	*part = (struct part){
		.start = page << 12,
		.size = atomic_load_explicit(&slab->size, memory_order_relaxed),
		.reciprocal = atomic_load_explicit(&slab->reciprocal, memory_order_relaxed),
		.objects = objects < words * 64 ? objects : words * 64,
		.first = graph->cells,
		.cells = cells ? cells : 1,
		.references = references,
		.scan = !cells,
		.slab = slab,
		.type = type,
	};
	/* whatever a descriptor says: as it was counted, and inside of the data */
	uint64_t pages = atomic_load_explicit(&slab->pages, memory_order_relaxed), data = heap->view.capacity - part->start;
	if (!type || graph->parts > extent->parts || pages > graph->low + graph->pages - page ||
	    (uint64_t)words * 64 * part->cells > extent->cells - graph->cells || !part->objects || part->size > data ||
	    part->objects > data / part->size) {
		extent->unknown = true;
		return 1;
	}
	/* of a single value nothing but its first page is ever named */
	for (uint64_t p = 0; p < (objects == 1 ? 1 : pages); p++) graph->part_of[page - graph->low + p] = graph->parts;
	graph->cells += words * 64 * part->cells;
	graph->parts++;
	return 0;
}

static uint64_t lines(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

void heap_graph_begin(hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	uint64_t live = atomic_load_explicit(&entry->live, memory_order_relaxed);
	uint64_t held = atomic_load_explicit(&entry->pages, memory_order_relaxed) * HP_PAGE_SIZE;
	struct extent extent = {.low = UINT64_MAX, .cells = 64};
	void *memory;
	heap->tx->graph = NULL;
	if (heap_graph_least &&
	    (live < heap_graph_least || atomic_load_explicit(&entry->allocated, memory_order_relaxed) / 2 > live))
		return;
	heap_slabs(heap, count_slab, &extent);
	if (!extent.parts || extent.unknown || extent.cells > NUMBER || extent.high > heap->view.capacity / HP_PAGE_SIZE) return;
	/* of small values the cells would be as large as they are */
	if (heap_graph_least && extent.cells * sizeof(uint64_t) > held / 4) return;
	uint64_t cells = lines(extent.cells * sizeof(uint64_t)), pages = extent.high - extent.low;
	uint64_t parts = lines((extent.parts + UINT64_C(1)) * sizeof(struct part)), graph_bytes = lines(sizeof(struct heap_graph));
	uint64_t bytes = cells + parts + graph_bytes + lines(pages * sizeof(uint32_t));
	bytes = (bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE * HP_PAGE_SIZE;
	if (os_map(NULL, bytes, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &memory) < 0) return;
	os_advise(memory, bytes, MADV_DONTFORK);
	os_advise(memory, cells, MADV_HUGEPAGE); /* no harm where there are none */
	struct heap_graph *graph = (struct heap_graph *)(void *)((char *)memory + cells);
	graph->heap = heap;
	graph->cell = memory;
	graph->part = (struct part *)(void *)((char *)graph + graph_bytes);
	graph->part_of = (uint32_t *)(void *)((char *)graph->part + parts);
	graph->tag = heap->view.tag;
	graph->data = heap->view.data;
	graph->low = extent.low;
	graph->pages = pages;
	graph->bytes = bytes;
	graph->parts = 1;
	graph->cells = 64;
	graph->cell[NOWHERE] = DEAD;
	extent.graph = graph;
	heap_slabs(heap, add_slab, &extent);
	if (extent.unknown)
		os_unmap(memory, bytes);
	else
		heap->tx->graph = graph;
}

/* ---- copying ---- */

/* The number of the cell that a reference leads to. */
static inline uint64_t number_of(const struct heap_graph *graph, uint64_t word)
{
	if (word == 0) return NONE;
	uint64_t off = word - graph->tag, at = (off >> 12) - graph->low; /* far beyond for what is no reference of this heap */
	if (unlikely(at >= graph->pages)) return NOWHERE;
	const struct part *part = &graph->part[graph->part_of[at]];
	uint64_t product = (off - part->start) * part->reciprocal, i = product >> 32;
	if (unlikely((uint32_t)product >= part->reciprocal || i >= part->objects)) return NOWHERE;
	return part->first + i * part->cells;
}

static inline uint64_t number_at(const struct heap_graph *graph, const char *at)
{
	return number_of(graph, __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED));
}

/* Where the k-th reference of a value lies. */
static uint32_t offset_of(const struct heap_type *type, uint32_t k)
{
	if (k < type->members) return type->member[k];
	k -= type->members;
	return type->tail + k / type->tail_members * type->element + type->tail_member[k % type->tail_members];
}

static void copy_long(const struct heap_graph *graph, const struct part *part, uint64_t *cell, const char *at)
{
	for (uint32_t k = 0; k < part->references; k += 2) {
		uint64_t one = number_at(graph, at + offset_of(part->type, k)), two = NONE;
		if (k + 1 < part->references) two = number_at(graph, at + offset_of(part->type, k + 1));
		cell[k / 2] = one | two << 32 | (k + 2 < part->references ? MORE : 0);
	}
}

static __attribute__((noinline)) void copy_slab(struct heap_graph *graph, uint32_t which)
{
	struct part *part = &graph->part[which];
	uint64_t *cell = graph->cell + part->first;
	const char *at = graph->data + part->start;
	uint32_t cells = part->cells, references = part->references;
	uint64_t size = part->size;
	uint32_t first = references ? offset_of(part->type, 0) : 0, second = references > 1 ? offset_of(part->type, 1) : first;
	part->copied = true;
	for (uint32_t i = 0; i < part->objects; i += 64) {
		uint64_t a = heap_load_a(&part->slab->bits[i / 64]);
		for (uint32_t n = part->objects - i < 64 ? part->objects - i : 64, b = 0; b < n;
		     b++, a >>= 1, at += size, cell += cells) {
			if (!(a & 1)) {
				*cell = DEAD;
			} else if (part->scan) {
				*cell = which | (uint64_t)(i + b) << 32 | SCAN;
			} else if (references == 2) {
				__builtin_prefetch(at + LINES * 64);
				uint64_t one = number_at(graph, at + first);
				*cell = one | number_at(graph, at + second) << 32;
			} else if (references < 2) {
				*cell = (references ? number_at(graph, at + first) : NONE) | (uint64_t)NONE << 32;
			} else {
				copy_long(graph, part, cell, at);
			}
		}
	}
}

/* The slab that the cell is of. */
static __attribute__((noinline)) void copy_slab_of(struct heap_graph *graph, uint32_t number)
{
	uint32_t low = 1, high = graph->parts;
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;
		if (graph->part[middle].first <= number)
			low = middle;
		else
			high = middle;
	}
	copy_slab(graph, low);
}

/* ---- going through it ---- */

static __attribute__((noinline)) void want(struct heap_graph *graph, uint32_t number)
{
	if (!graph->cell[number]) copy_slab_of(graph, number);
	graph->cell[number] |= WANTED;
	graph->overflown = true;
}

static inline void add(struct heap_graph *graph, uint32_t number)
{
	hp_heap *heap = graph->heap;
	if (number == NONE) return;
	if (likely(graph->waiting < AHEAD)) {
		__builtin_prefetch(&graph->cell[number]);
		graph->ahead[(graph->oldest + graph->waiting++) % AHEAD] = number;
	} else if (likely(heap->stack_top < heap->stack_room) || heap_stack_grow(heap)) {
		heap->stack[heap->stack_top++] = number;
	} else {
		want(graph, number);
	}
}

/* More references than two, or a tail. */
static __attribute__((noinline)) void reach_long(struct heap_graph *graph, uint32_t number)
{
	uint64_t word = graph->cell[number];
	while (!(word & SCAN)) {
		add(graph, word & NUMBER);
		add(graph, word >> 32 & NUMBER);
		if (!(word & MORE)) return;
		word = graph->cell[++number];
	}
	if (graph->scans < graph->scan_room ||
	    heap_grow((void **)&graph->scan, &graph->scan_room, graph->scans, graph->scan_room ? graph->scan_room * 2 : 512,
	              sizeof *graph->scan)) {
		graph->scan[graph->scans++] = number;
		return;
	}
	graph->cell[number] &= ~MARKED;
	want(graph, number);
}

/* Until nothing waits but values that are to be scanned. */
static void drain(struct heap_graph *graph)
{
	hp_heap *heap = graph->heap;
	uint64_t *cell = graph->cell;
	for (;;) {
		while (heap->stack_top && graph->waiting < AHEAD) add(graph, (uint32_t)heap->stack[--heap->stack_top]);
		if (!graph->waiting) return;
		uint32_t number = graph->ahead[graph->oldest];
		graph->oldest = (graph->oldest + 1) % AHEAD;
		graph->waiting--;
		for (;;) {
			uint64_t word = cell[number];
			if (unlikely(!word)) {
				copy_slab_of(graph, number);
				word = cell[number];
			}
			if (word & MARKED) {
				heap->bad += word == DEAD;
				break;
			}
			cell[number] = word | MARKED;
			if (unlikely(word & (MORE | SCAN))) {
				reach_long(graph, number);
				break;
			}
			uint32_t one = word & NUMBER, two = word >> 32 & NUMBER;
			add(graph, two);
			if (graph->waiting || heap->stack_top || one == NONE) {
				add(graph, one);
				break;
			}
			number = one; /* a list: there is nothing else to do meanwhile */
		}
	}
}

static void scan(struct heap_graph *graph, uint64_t number)
{
	uint64_t word = graph->cell[number];
	const struct part *part = &graph->part[word & NUMBER];
	const struct heap_type *type = part->type;
	const char *at = graph->data + part->start + (word >> 32 & NUMBER) * part->size;
	for (uint32_t k = 0; k < type->members; k++) add(graph, (uint32_t)number_at(graph, at + type->member[k]));
	uint64_t elements = type->tail_members ? heap_room(type, part->size) : 0;
	at += type->tail;
	for (uint64_t e = 0; e < elements; e++, at += type->element) {
		for (uint32_t k = 0; k < type->tail_members; k++) add(graph, (uint32_t)number_at(graph, at + type->tail_member[k]));
		if (graph->heap->stack_top) drain(graph); /* so that a long one does not make the stack long */
	}
}

static void drain_all(struct heap_graph *graph)
{
	for (drain(graph); graph->scans; drain(graph)) {
		uint64_t some[TOGETHER], n = 0;
		for (; n < TOGETHER && graph->scans; n++) {
			some[n] = graph->scan[--graph->scans];
			uint64_t word = graph->cell[some[n]];
			const struct part *part = &graph->part[word & NUMBER];
			__builtin_prefetch(graph->data + part->start + (word >> 32 & NUMBER) * part->size);
		}
		for (uint64_t k = 0; k < n; k++) scan(graph, some[k]);
	}
}

void heap_graph_mark(struct heap_graph *graph, uint64_t root)
{
	add(graph, (uint32_t)number_of(graph, root));
	drain_all(graph);
	while (graph->overflown) {
		graph->overflown = false;
		for (uint32_t number = FIRST; number < graph->cells; number++) {
			uint64_t word = graph->cell[number];
			if (likely(!(word & WANTED))) continue;
			graph->cell[number] = word & ~WANTED;
			add(graph, number);
			drain_all(graph);
		}
	}
}

/* ---- marks for all ---- */

/* To M, from the cells; then the slab's stamp says that they count. Those that nothing leads to keep their old one. */
static void publish(const struct heap_graph *graph, const struct part *part, uint64_t cycle)
{
	const uint64_t *cell = graph->cell + part->first;
	struct heap_slab *slab = part->slab;
	for (uint32_t i = 0; i < part->objects; i += 64) {
		uint64_t m = 0;
		for (uint32_t b = 0; b < 64; b++) m |= (cell[(uint64_t)b * part->cells] / MARKED & 1) << b;
		cell += (uint64_t)part->cells * 64;
		struct heap_bits *bits = &slab->bits[i / 64];
		atomic_store_explicit(&bits->m, m & heap_load_a(bits), memory_order_relaxed);
	}
	atomic_store_explicit(&slab->flags,
	                      atomic_load_explicit(&slab->flags, memory_order_relaxed) & (uint8_t)~HEAP_RESCAN,
	                      memory_order_relaxed);
	atomic_store_explicit(&slab->mark_stamp, cycle, memory_order_release);
}

void heap_graph_end(hp_heap *heap)
{
	struct heap_graph *graph = heap->tx->graph;
	uint64_t cycle = atomic_load_explicit(&heap->entry->cycle, memory_order_relaxed);
	if (!graph) return;
	for (uint32_t k = 1; k < graph->parts; k++)
		if (graph->part[k].copied) publish(graph, &graph->part[k], cycle);
	heap->tx->graph = NULL;
	if (graph->scan) os_unmap(graph->scan, graph->scan_room * sizeof *graph->scan);
	os_unmap(graph->cell, graph->bytes);
}
