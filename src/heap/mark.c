/* Marking: everything that the roots reach gets its bit in M.
 *
 * No recursion: what has been marked and has references goes to a stack in private memory, and between the stack and its
 * scanning through a queue of a few values, whose memory is fetched meanwhile. A stack that cannot grow only costs time: the
 * slab of a value that found no room is flagged, and when the stack is empty flagged slabs are gone through. Every reference
 * is checked in full before it is followed; what names no live value is counted and passed over. No count that a program
 * writes is believed: a value's place is scanned to its end, which is zeros. Marks are valid only in slabs that carry the
 * number of the cycle, so an interrupted cycle leaves nothing to clean. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "os/os.h"
#include <string.h>
#include <sys/mman.h>

#define QUEUE 32u
#define OFFERED 16u
#define SLICE 16384u                    /* elements of a large value that are scanned at a time */
#define STACK_LEAST (UINT64_C(1) << 17) /* entries */
#define TYPE_SLICE 0xffffu

struct heap_slice {
	uint64_t off, next; /* element */
};

uint64_t heap_stack_most = UINT64_MAX;

static uint64_t entry_make(uint64_t off, uint32_t type)
{
	return (uint64_t)type << HEAP_OFFSET_BITS | off;
}

bool heap_grow(void **memory, uint64_t *room, uint64_t used, uint64_t more, size_t size)
{
	void *new;
	if (os_map(NULL, more * size, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &new) < 0)
		return false;
	if (*memory) {
		memcpy(new, *memory, used * size);
		os_unmap(*memory, *room * size);
	}
	*memory = new;
	*room = more;
	return true;
}

/* At most 1/32 of the heap; entries for the smallest values are half as large as they are. */
__attribute__((noinline)) bool heap_stack_grow(hp_heap *heap)
{
	uint64_t most = atomic_load_explicit(&heap->entry->pages, memory_order_relaxed) * (HP_PAGE_SIZE / 32 / 8);
	uint64_t more = heap->stack_room ? heap->stack_room * 2 : STACK_LEAST;
	if (heap->stack_room && more > most) return false;
	if (more > heap_stack_most) more = heap_stack_most;
	if (more <= heap->stack_room) return false;
	return heap_grow((void **)&heap->stack, &heap->stack_room, heap->stack_top, more, sizeof *heap->stack);
}

void heap_mark_end(hp_heap *heap)
{
	if (heap->stack_room > STACK_LEAST) {
		os_unmap(heap->stack, heap->stack_room * sizeof *heap->stack);
		heap->stack = NULL;
		heap->stack_room = 0;
	}
}

static inline void push(hp_heap *heap, struct heap_slab *slab, uint64_t entry)
{
	if (unlikely(heap->stack_top == heap->stack_room) && !heap_stack_grow(heap)) {
		atomic_store_explicit(&slab->flags, atomic_load_explicit(&slab->flags, memory_order_relaxed) | HEAP_RESCAN,
		                      memory_order_relaxed);
		heap->overflown = true;
		return;
	}
	heap->stack[heap->stack_top++] = entry;
}

static __attribute__((noinline)) void stamp(struct heap_slab *slab, uint64_t cycle)
{
	for (uint32_t w = 0, words = heap_words(slab); w < words; w++)
		atomic_store_explicit(&slab->bits[w].m, 0, memory_order_relaxed);
	atomic_store_explicit(&slab->flags,
	                      atomic_load_explicit(&slab->flags, memory_order_relaxed) & (uint8_t)~HEAP_RESCAN,
	                      memory_order_relaxed);
	atomic_store_explicit(&slab->mark_stamp, cycle, memory_order_release);
}

/* What marking needs of a heap, at hand. */
struct marker {
	hp_heap *heap;
	struct heap_view view;
	uint64_t cycle;
	/* references that have been found; their bits are being fetched */
	struct offered {
		struct heap_slab *slab;
		uint64_t off;
		uint32_t i;
	} offered[OFFERED];
	unsigned first, waiting;
};

/* The reference that was found longest ago: is the value it names marked yet? True: it was not, and there
 * is something to scan. */
static inline bool visit_oldest(struct marker *m, struct heap_slab **in, uint64_t *entry)
{
	struct offered *o = &m->offered[m->first];
	struct heap_slab *slab = *in = o->slab;
	struct heap_bits *bits = &slab->bits[o->i >> 6];
	uint64_t bit = UINT64_C(1) << (o->i & 63);
	m->first = (m->first + 1) % OFFERED;
	m->waiting--;
	if (unlikely(!(heap_load_a(bits) & bit))) {
		m->heap->bad++;
		return false;
	}
	if (unlikely(atomic_load_explicit(&slab->mark_stamp, memory_order_relaxed) != m->cycle)) stamp(slab, m->cycle);
	uint64_t old = atomic_load_explicit(&bits->m, memory_order_relaxed);
	if (old & bit) return false;
	atomic_store_explicit(&bits->m, old | bit, memory_order_relaxed);
	uint32_t id = atomic_load_explicit(&slab->type, memory_order_relaxed);
	const struct heap_type *type = likely(id < HEAP_TYPES)
	                                   ? atomic_load_explicit(&m->heap->type[id], memory_order_acquire)
	                                   : NULL;
	if (unlikely(!type) && !(type = heap_type(m->heap, id))) {
		m->heap->bad++;
		return false;
	}
	*entry = entry_make(o->off, id);
	return type->members | type->tail_members;
}

static inline void push_oldest(struct marker *m)
{
	struct heap_slab *slab;
	uint64_t entry;
	if (visit_oldest(m, &slab, &entry)) push(m->heap, slab, entry);
}

static inline void visit(struct marker *m, uint64_t word)
{
	uint64_t page;
	if (word == 0) return;
	if (unlikely(m->waiting == OFFERED)) push_oldest(m);
	struct offered *o = &m->offered[(m->first + m->waiting) % OFFERED];
	if (unlikely(!heap_locate(&m->view, word, &page, &o->slab, &o->i))) {
		m->heap->bad++;
		return;
	}
	o->off = heap_ref_offset(word);
	__builtin_prefetch(&o->slab->bits[o->i >> 6]);
	m->waiting++;
}

static void scan_tail(struct marker *m, const struct heap_type *type, uint64_t off, uint64_t from)
{
	hp_heap *heap = m->heap;
	uint64_t page = off >> 12;
	struct heap_slab *slab;
	if (!heap_find_page(&m->view, &page, &slab)) return;
	uint64_t elements = heap_room(type, heap_bytes_from(&m->view, slab, off)), to = elements;
	if (from >= elements) return;
	if (to - from > SLICE) {
		to = from + SLICE;
		/* the rest first, so that what these elements lead to is done before it, and the stack stays short */
		if (heap->slice_top < heap->slice_room ||
		    heap_grow((void **)&heap->slices, &heap->slice_room, heap->slice_top,
		              heap->slice_room ? heap->slice_room * 2 : 512, sizeof *heap->slices)) {
			if (heap->stack_top < heap->stack_room || heap_stack_grow(heap)) {
				heap->slices[heap->slice_top++] = (struct heap_slice){off, to};
				heap->stack[heap->stack_top++] = entry_make(off, TYPE_SLICE);
			} else {
				to = elements;
			}
		} else {
			to = elements;
		}
	}
	const char *at = m->view.data + off + type->tail + from * type->element;
	for (uint64_t e = from; e < to; e++, at += type->element)
		for (uint32_t k = 0; k < type->tail_members; k++)
			visit(m, __atomic_load_n((const uint64_t *)(const void *)(at + type->tail_member[k]), __ATOMIC_RELAXED));
}

static inline void scan(struct marker *m, uint64_t entry)
{
	uint64_t off = heap_ref_offset(entry);
	uint32_t id = (uint32_t)(entry >> HEAP_OFFSET_BITS);
	hp_heap *heap = m->heap;
	uint64_t from = 0;
	if (unlikely(id == TYPE_SLICE)) {
		struct heap_slice slice = heap->slices[--heap->slice_top];
		uint64_t page = slice.off >> 12;
		struct heap_slab *slab;
		const struct heap_type *type = heap_find_page(&m->view, &page, &slab)
		                                   ? heap_type(heap, atomic_load(&slab->type))
		                                   : NULL;
		if (type) scan_tail(m, type, slice.off, slice.next);
		return;
	}
	const struct heap_type *type = atomic_load_explicit(&heap->type[id], memory_order_relaxed);
	if (unlikely(off >= m->view.capacity || type->size > m->view.capacity - off)) {
		heap->bad++;
		return;
	}
	const char *at = m->view.data + off;
	for (uint32_t k = 0; k < type->members; k++)
		visit(m, __atomic_load_n((const uint64_t *)(const void *)(at + type->member[k]), __ATOMIC_RELAXED));
	if (type->tail_members) scan_tail(m, type, off, from);
}

static void drain(struct marker *m)
{
	hp_heap *heap = m->heap;
	uint64_t queue[QUEUE];
	unsigned first = 0, waiting = 0;
	for (;;) {
		while (heap->stack_top && waiting < QUEUE) {
			uint64_t entry = heap->stack[--heap->stack_top];
			__builtin_prefetch(m->view.data + heap_ref_offset(entry));
			queue[(first + waiting++) % QUEUE] = entry;
		}
		if (!waiting) {
			if (!m->waiting) return;
			/* a list: there is nothing else to do meanwhile */
			struct heap_slab *slab;
			uint64_t only;
			if (visit_oldest(m, &slab, &only)) scan(m, only);
			continue;
		}
		uint64_t entry = queue[first];
		first = (first + 1) % QUEUE;
		waiting--;
		scan(m, entry);
	}
}

static int rescan(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)cell;
	struct marker *m = arg;
	uint8_t flags = atomic_load_explicit(&slab->flags, memory_order_relaxed);
	if (!(flags & HEAP_RESCAN) || atomic_load_explicit(&slab->mark_stamp, memory_order_relaxed) != m->cycle) return 0;
	/* first, so that what overflows meanwhile is not forgotten */
	atomic_store_explicit(&slab->flags, flags & (uint8_t)~HEAP_RESCAN, memory_order_relaxed);
	uint32_t id = atomic_load_explicit(&slab->type, memory_order_relaxed);
	if (!heap_type(heap, id)) return 0;
	for (uint32_t w = 0; w < heap_words(slab); w++)
		for (uint64_t marked = atomic_load(&slab->bits[w].m) & heap_load_a(&slab->bits[w]); marked;
		     marked &= marked - 1) {
			scan(m, entry_make(heap_place_offset(slab, page, w * 64 + (uint32_t)__builtin_ctzll(marked)), id));
			drain(m);
		}
	return 0;
}

static struct marker marker_of(hp_heap *heap)
{
	return (struct marker){
		.heap = heap, .view = heap->view, .cycle = atomic_load_explicit(&heap->entry->cycle, memory_order_relaxed)};
}

static void complete(struct marker *m)
{
	drain(m);
	while (m->heap->overflown) {
		m->heap->overflown = false;
		heap_slabs(m->heap, rescan, m);
	}
}

void heap_mark(hp_heap *heap, uint64_t word)
{
	if (heap->tx->graph) {
		heap_graph_mark(heap->tx->graph, word);
		return;
	}
	struct marker m = marker_of(heap);
	visit(&m, word);
	complete(&m);
}

void heap_mark_members(hp_heap *heap, uint64_t word)
{
	if (heap->tx->graph) return; /* nothing is stored while it is gone by */
	struct marker m = marker_of(heap);
	uint64_t page;
	uint32_t i;
	struct heap_slab *slab = heap_find(heap, word, &page, &i);
	uint32_t id = slab ? atomic_load_explicit(&slab->type, memory_order_relaxed) : 0;
	if (!slab || !heap_type(heap, id)) return;
	scan(&m, entry_make(heap_ref_offset(word), id));
	complete(&m);
}

uint64_t heap_object_of(const hp_heap *heap, uint64_t off)
{
	uint64_t page = off >> 12;
	if (off >= heap->view.capacity) return 0;
	struct heap_slab *slab;
	return heap_find_page_far(&heap->view, &page, &slab)
	           ? heap->tag | heap_place_offset(slab, page, heap_place(slab, page, off))
	           : 0;
}

static void mark_born_in(hp_heap *heap, struct heap_slab *slab, uint64_t page, bool members)
{
	uint64_t number = atomic_load_explicit(&heap->entry->number, memory_order_relaxed);
	if (atomic_load_explicit(&slab->born_stamp, memory_order_relaxed) != number) return;
	for (uint32_t w = 0; w < heap_words(slab); w++)
		for (uint64_t born = atomic_load(&slab->bits[w].n) & heap_load_a(&slab->bits[w]); born; born &= born - 1) {
			uint64_t word = heap->tag | heap_place_offset(slab, page, w * 64 + (uint32_t)__builtin_ctzll(born));
			heap_mark(heap, word);
			if (members) heap_mark_members(heap, word); /* it may be marked and hold what was stored since */
		}
}

static int born_in(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)cell;
	mark_born_in(heap, slab, page, *(bool *)arg);
	return 0;
}

static void mark_all_born(hp_tx *tx, bool members)
{
	hp_heap *heap = tx->heap;
	for (uint32_t k = 0; k < tx->borns && !tx->born_all; k++)
		if (heap_run_is(heap, tx->born[k], HEAP_SLAB))
			mark_born_in(heap, heap_slab_at(heap->pool, tx->born[k]), tx->born[k], members);
	if (tx->born_all) heap_slabs(heap, born_in, &members);
}

void heap_mark_born(hp_tx *tx)
{
	mark_all_born(tx, true);
}

void heap_mark_roots(hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	hp_tx *tx = heap->tx;
	heap_mark(heap, atomic_load_explicit(&entry->root, memory_order_relaxed));
	/* a rollback brings back the old values, and stores to the values that the entries lie in */
	uint64_t n = atomic_load_explicit(&entry->log_n, memory_order_relaxed);
	for (uint64_t k = 0; k < n; k++) {
		const struct heap_log *log = heap_log_entry(heap, k);
		if (!log) break;
		uint64_t what = atomic_load_explicit(&log->what, memory_order_relaxed);
		unsigned code = (unsigned)(what >> HEAP_OFFSET_BITS);
		if (code == HEAP_LOG_REF || code == HEAP_LOG_ROOT)
			heap_mark(heap, atomic_load_explicit(&log->old, memory_order_relaxed));
		if (code != HEAP_LOG_ROOT) heap_mark(heap, heap_object_of(heap, heap_ref_offset(what)));
	}
	if (!tx->heap) return;
	for (uint32_t k = 0; k < tx->pins; k++) heap_mark(heap, tx->pin[k].word);
	mark_all_born(tx, true);
}

void heap_slices_free(hp_heap *heap)
{
	if (heap->slices) os_unmap(heap->slices, heap->slice_room * sizeof *heap->slices);
}
