/* Marking by a copy of the graph: how a collection of much that lives is done.
 *
 * Marking in place takes a miss of the caches for each value, and two words of the line that comes are of use. Here the
 * references of a whole slab are copied when the first of its values is reached, in the order of addresses, which the
 * processor fetches ahead: a value becomes a cell, two numbers of other cells in 32 bits each. What follows goes from cell
 * to cell, in memory of an eighth of the size, or of a sixteenth where values have one reference: the other halves of their
 * cells are not looked at. Values with more references have several cells in a row; those with long tails are scanned where
 * they lie. At the end the marks go from the cells to M.
 *
 * The copy is private, and goes with its process; it stays true because only the holder of the lock, who is marking,
 * changes references. Every reference is checked when it is copied; what names nothing leads to a cell of its own, and is
 * counted if that is reached. Garbage that lies among what lives is copied with it, so this is done only if there was as
 * much that lived last time; and without memory for it marking is done in place. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "os/os.h"
#include <errno.h>
#include <sys/mman.h>

/* Half of a cell: flags, and the number of a cell. 0: its slab has not been copied yet. */
#define NUMBER ((UINT32_C(1) << 29) - 1)
#define MARKED (UINT32_C(1) << 31)
#define OTHER (UINT32_C(1) << 30)  /* the other half counts, too */
#define WANTED (UINT32_C(1) << 29) /* there was no room in the stack for it */
#define DEAD MARKED                /* no value: it names nothing, not even none */
/* in the other half */
#define MORE (UINT32_C(1) << 31) /* the next cell is its, too */
#define SCAN (UINT32_C(1) << 30) /* where it lies: numbers are those of the slab and of the place */
/* numbers: no reference; one that names no value; the first that may name one */
enum { NONE = 1, NOWHERE = 2, FIRST = 64 };

#define COPIED 16u  /* references of a value at most */
#define AHEAD 32u   /* cells that are being fetched */
#define TOGETHER 8u /* values that are scanned where they lie */
#define LINES 24u   /* fetched ahead of copying */

#define CELL (2 * sizeof(uint32_t))
#define HUGE (UINT64_C(2) << 20)

uint64_t heap_graph_least = UINT64_C(1) << 20;

struct part {
	uint64_t start, size; /* offset of the first value; of each, in bytes */
	uint32_t reciprocal, objects;
	uint32_t first, cells; /* number of its first cell, a multiple of 64; cells of each value */
	uint32_t references;   /* of each value */
	bool scan, copied;
	struct heap_slab *slab;
	const struct heap_type *type;
};

struct heap_graph {
	hp_heap *heap;
	uint32_t *one, *two; /* the halves of the cells */
	uint32_t *part_of;   /* by page; 0: none */
	struct part *part;   /* the first names nothing */
	uint64_t tag, low, pages, bytes;
	uint32_t parts, cells;
	bool overflown;
	const char *data;
	/* values that are to be scanned: their cells' numbers */
	uint32_t *scan;
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
static uint32_t shape_of(hp_heap *heap, const struct heap_slab *slab, const struct heap_type **type,
                         uint32_t *references)
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
	const struct heap_type *type;
	uint32_t references, cells = shape_of(heap, slab, &type, &references), words = heap_words(slab);
	uint32_t objects = atomic_load_explicit(&slab->objects, memory_order_relaxed);
	uint64_t pages = atomic_load_explicit(&slab->pages, memory_order_relaxed), at = page - graph->low;
	struct part part = {
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
	uint64_t room = heap->view.capacity - part.start, needed = (uint64_t)words * 64 * part.cells;
	/* whatever a descriptor says: it is as when it was counted, and its values lie inside of the data */
	if (!type || graph->parts > extent->parts || at >= graph->pages || pages > graph->pages - at ||
	    needed > extent->cells - graph->cells || !part.objects || part.size < type->size || part.size > room ||
	    part.objects > room / part.size) {
		extent->unknown = true;
		return 1;
	}
	/* of a single value nothing but its first page is ever named */
	for (uint64_t p = 0; p < (objects == 1 ? 1 : pages); p++) graph->part_of[at + p] = graph->parts;
	graph->part[graph->parts++] = part;
	graph->cells += (uint32_t)needed;
	return 0;
}

static uint64_t lines(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

/* So much lives that it does not stay in the caches, and about half of what there is to copy, or more. */
static bool is_worth_it(const struct heap_entry *entry)
{
	uint64_t live = atomic_load_explicit(&entry->live, memory_order_relaxed);
	uint64_t allocated = atomic_load_explicit(&entry->allocated, memory_order_relaxed);
	return live >= heap_graph_least && allocated <= live + live / 4;
}

struct heap_graph *heap_graph_begin(hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	uint64_t held = atomic_load_explicit(&entry->pages, memory_order_relaxed) * HP_PAGE_SIZE;
	struct extent extent = {.low = UINT64_MAX, .cells = FIRST};
	void *memory;
	heap->tx->graph = NULL;
	if (heap_graph_least && !is_worth_it(entry)) return NULL;
	heap_slabs(heap, count_slab, &extent);
	if (!extent.parts || extent.unknown || extent.cells > NUMBER || extent.high > heap->view.capacity / HP_PAGE_SIZE)
		return NULL;
	/* of small values the cells would be as large as they are */
	if (heap_graph_least && extent.cells * CELL > held / 4) return NULL;
	uint64_t cells = extent.cells * CELL, pages = extent.high - extent.low;
	uint64_t parts = lines((extent.parts + UINT64_C(1)) * sizeof(struct part)), head = lines(sizeof(struct heap_graph));
	uint64_t bytes = cells + head + parts + pages * sizeof(uint32_t);
	/* whole huge pages, or the kernel does not let it begin where one does */
	uint64_t step = bytes < HUGE ? HP_PAGE_SIZE : HUGE;
	bytes = (bytes + step - 1) / step * step;
	if (os_map(NULL, bytes, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &memory) < 0)
		return NULL;
	os_advise(memory, bytes, MADV_HUGEPAGE); /* no harm where it fails */
	struct heap_graph *graph = (struct heap_graph *)(void *)((char *)memory + cells);
	graph->heap = heap;
	graph->one = memory;
	graph->two = graph->one + extent.cells;
	graph->part = (struct part *)(void *)((char *)graph + head);
	graph->part_of = (uint32_t *)(void *)((char *)graph->part + parts);
	graph->tag = heap->view.tag;
	graph->data = heap->view.data;
	graph->low = extent.low;
	graph->pages = pages;
	graph->bytes = bytes;
	graph->parts = 1;
	graph->cells = FIRST;
	graph->one[NOWHERE] = DEAD;
	graph->one[NONE] = MARKED | NONE;
	extent.graph = graph;
	heap_slabs(heap, add_slab, &extent);
	if (extent.unknown) {
		os_unmap(memory, bytes);
		return NULL;
	}
	return heap->tx->graph = graph;
}

/* ---- copying ---- */

/* The number of the cell that a reference leads to. */
static inline uint32_t number_of(const struct heap_graph *graph, uint64_t word)
{
	if (word == 0) return NONE;
	uint64_t off = word - graph->tag,
			 at = (off >> 12) - graph->low; /* far beyond for what is no reference of this heap */
	if (unlikely(at >= graph->pages)) return NOWHERE;
	const struct part *part = &graph->part[graph->part_of[at]];
	uint64_t product = (off - part->start) * part->reciprocal, i = product >> 32;
	if (unlikely((uint32_t)product >= part->reciprocal || i >= part->objects)) return NOWHERE;
	return part->first + (uint32_t)i * part->cells;
}

static inline uint32_t number_at(const struct heap_graph *graph, const char *at)
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

static void copy_long(struct heap_graph *graph, const struct part *part, uint32_t number, const char *at)
{
	for (uint32_t k = 0; k < part->references; k += 2, number++) {
		bool last = k + 1 == part->references;
		graph->one[number] = number_at(graph, at + offset_of(part->type, k)) | OTHER;
		graph->two[number] = last ? NONE : number_at(graph, at + offset_of(part->type, k + 1));
		if (k + 2 < part->references) graph->two[number] |= MORE;
	}
}

static __attribute__((noinline)) void copy_slab(struct heap_graph *graph, uint32_t which)
{
	struct part *part = &graph->part[which];
	const char *at = graph->data + part->start;
	uint32_t *one = graph->one, *two = graph->two;
	uint32_t number = part->first, cells = part->cells, references = part->references;
	uint64_t size = part->size;
	uint32_t first = references ? offset_of(part->type, 0) : 0,
			 second = references > 1 ? offset_of(part->type, 1) : first;
	part->copied = true;
	for (uint32_t i = 0; i < part->objects; i += 64) {
		uint64_t a = heap_load_a(&part->slab->bits[i / 64]);
		for (uint32_t n = part->objects - i < 64 ? part->objects - i : 64, b = 0; b < n;
		     b++, a >>= 1, at += size, number += cells) {
			if (!(a & 1)) {
				one[number] = DEAD;
			} else if (part->scan) {
				one[number] = which | OTHER;
				two[number] = (i + b) | SCAN;
			} else if (references == 2) {
				__builtin_prefetch(at + LINES * 64, 0, 0); /* past the caches, which are for the cells */
				uint32_t to = number_at(graph, at + first), other = number_at(graph, at + second);
				if (other == NONE) {
					one[number] = to;
				} else if (to == NONE) {
					one[number] = other;
				} else {
					one[number] = to | OTHER;
					two[number] = other;
				}
			} else if (references < 2) {
				one[number] = references ? number_at(graph, at + first) : NONE;
			} else {
				copy_long(graph, part, number, at);
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
	if (!graph->one[number]) copy_slab_of(graph, number);
	graph->one[number] |= WANTED;
	graph->overflown = true;
}

static inline void add(struct heap_graph *graph, uint32_t number)
{
	hp_heap *heap = graph->heap;
	if (number == NONE) return;
	if (likely(graph->waiting < AHEAD)) {
		__builtin_prefetch(&graph->one[number]);
		__builtin_prefetch(&graph->two[number]);
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
	uint32_t other = graph->two[number];
	while (!(other & SCAN)) {
		add(graph, graph->one[number] & NUMBER);
		add(graph, other & NUMBER);
		if (!(other & MORE)) return;
		other = graph->two[++number];
	}
	if (graph->scans < graph->scan_room ||
	    heap_grow((void **)&graph->scan, &graph->scan_room, graph->scans, graph->scan_room ? graph->scan_room * 2 : 512,
	              sizeof *graph->scan)) {
		graph->scan[graph->scans++] = number;
		return;
	}
	graph->one[number] &= ~MARKED;
	want(graph, number);
}

/* The oldest, while so much waits that the stack has something to fetch for each cell that is visited. Without branches on
 * whether it was marked and what it has, which no processor can predict. Ends at one that is not simple; as many wait as
 * before. */
static void visit_many(struct heap_graph *graph)
{
	hp_heap *heap = graph->heap;
	uint32_t *one = graph->one, *two = graph->two, at = graph->oldest;
	uint64_t *stack = heap->stack, top = heap->stack_top, bad = 0;
	while (top && top + 2 <= heap->stack_room) {
		uint32_t number = graph->ahead[at], word = one[number], other = two[number], next = word & NUMBER;
		if (unlikely(!word) || unlikely(word & OTHER && other >= SCAN)) break;
		uint32_t fresh = word < MARKED;
		bad += word == DEAD;
		one[number] = word | MARKED;
		stack[top] = other & NUMBER;
		top += fresh & word / OTHER;
		stack[top] = next;
		top += fresh & (next != NONE);
		number = (uint32_t)stack[--top];
		__builtin_prefetch(&one[number]);
		__builtin_prefetch(&two[number]);
		graph->ahead[at] = number;
		at = (at + 1) % AHEAD;
	}
	graph->oldest = at;
	heap->stack_top = top;
	heap->bad += bad;
}

/* Until nothing waits but values that are to be scanned. */
static void drain(struct heap_graph *graph)
{
	hp_heap *heap = graph->heap;
	uint32_t *one = graph->one;
	for (;;) {
		while (heap->stack_top && graph->waiting < AHEAD) add(graph, (uint32_t)heap->stack[--heap->stack_top]);
		if (!graph->waiting) return;
		if (graph->waiting == AHEAD) visit_many(graph);
		uint32_t number = graph->ahead[graph->oldest];
		graph->oldest = (graph->oldest + 1) % AHEAD;
		graph->waiting--;
		for (;;) {
			uint32_t word = one[number];
			if (unlikely(!word)) {
				copy_slab_of(graph, number);
				word = one[number];
			}
			if (word & MARKED) {
				heap->bad += word == DEAD;
				break;
			}
			one[number] = word | MARKED;
			if (word & OTHER) {
				uint32_t other = graph->two[number];
				if (unlikely(other & (MORE | SCAN))) {
					reach_long(graph, number);
					break;
				}
				add(graph, other);
			}
			uint32_t next = word & NUMBER;
			if (graph->waiting || heap->stack_top || next == NONE) {
				add(graph, next);
				break;
			}
			number = next; /* a list: there is nothing else to do meanwhile */
		}
	}
}

/* The place of a value that is scanned. */
static const char *place_of(const struct heap_graph *graph, uint32_t number, const struct part **part)
{
	*part = &graph->part[graph->one[number] & NUMBER];
	return graph->data + (*part)->start + (graph->two[number] & NUMBER) * (*part)->size;
}

static void scan(struct heap_graph *graph, uint32_t number)
{
	const struct part *part;
	const char *at = place_of(graph, number, &part);
	const struct heap_type *type = part->type;
	for (uint32_t k = 0; k < type->members; k++) add(graph, number_at(graph, at + type->member[k]));
	uint64_t elements = type->tail_members ? heap_room(type, part->size) : 0;
	at += type->tail;
	for (uint64_t e = 0; e < elements; e++, at += type->element) {
		for (uint32_t k = 0; k < type->tail_members; k++) add(graph, number_at(graph, at + type->tail_member[k]));
		if (graph->heap->stack_top) drain(graph); /* so that a long one does not make the stack long */
	}
}

static void drain_all(struct heap_graph *graph)
{
	for (drain(graph); graph->scans; drain(graph)) {
		uint32_t some[TOGETHER], n = 0;
		const struct part *part;
		for (; n < TOGETHER && graph->scans; n++) {
			some[n] = graph->scan[--graph->scans];
			__builtin_prefetch(place_of(graph, some[n], &part));
		}
		for (uint32_t k = 0; k < n; k++) scan(graph, some[k]);
	}
}

void heap_graph_mark(struct heap_graph *graph, uint64_t root)
{
	add(graph, number_of(graph, root));
	drain_all(graph);
	while (graph->overflown) {
		graph->overflown = false;
		for (uint32_t number = FIRST; number < graph->cells; number++) {
			if (likely(!(graph->one[number] & WANTED))) continue;
			graph->one[number] &= ~WANTED;
			add(graph, number);
			drain_all(graph);
		}
	}
}

/* ---- marks for all ---- */

/* To M, from the cells; then the slab's stamp says that they count. Those that nothing leads to keep their old one. */
static void publish(const struct heap_graph *graph, const struct part *part, uint64_t cycle)
{
	const uint32_t *one = graph->one + part->first;
	struct heap_slab *slab = part->slab;
	for (uint32_t i = 0; i < part->objects; i += 64) {
		uint64_t m = 0;
		for (uint32_t b = 0; b < 64; b++) m |= (uint64_t)(one[(uint64_t)b * part->cells] / MARKED) << b;
		one += (uint64_t)part->cells * 64;
		struct heap_bits *bits = &slab->bits[i / 64];
		atomic_store_explicit(&bits->m, m & heap_load_a(bits), memory_order_relaxed);
	}
	atomic_store_explicit(&slab->flags,
	                      atomic_load_explicit(&slab->flags, memory_order_relaxed) & (uint8_t)~HEAP_RESCAN,
	                      memory_order_relaxed);
	atomic_store_explicit(&slab->mark_stamp, cycle, memory_order_release);
}

int heap_graph_end(hp_heap *heap, struct heap_graph *graph)
{
	uint64_t cycle = atomic_load_explicit(&heap->entry->cycle, memory_order_relaxed);
	if (heap->tx->graph != graph) return -EBADF; /* wiped: a forked child, which holds no lock */
	if (!graph) return 0;
	for (uint32_t k = 1; k < graph->parts; k++)
		if (graph->part[k].copied) publish(graph, &graph->part[k], cycle);
	heap->tx->graph = NULL;
	if (graph->scan) os_unmap(graph->scan, graph->scan_room * sizeof *graph->scan);
	os_unmap(graph->one, graph->bytes);
	return 0;
}
