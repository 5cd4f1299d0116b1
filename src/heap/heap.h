/* The heap layer's private side: the handle, the transaction, and finding a value's slab.
 *
 * heap.c: making, opening, ending; type.c: types; run.c: the heap's pages; slab.c: new values; lock.c: who writes; tx.c:
 * transactions and their undoing; mark.c, graph.c, collect.c: the collector; reader.c: sections and guards; layer.c: what the pool
 * asks; image.h and its files: values in raw memory. docs/heap.md has the protocols. */
#ifndef HUGEPOOL_HEAP_INTERNAL_H
#define HUGEPOOL_HEAP_INTERNAL_H

#include "page/page.h"
#include "pool/participant.h"
#include <hugepool/heap.h>

struct heap_type;

/* Free places of one word of a slab. */
struct heap_alloc {
	uint64_t mask; /* not handed out yet */
	char *start;   /* of the place of bit 0 */
	struct heap_bits *bits;
	uint64_t size;
	uint64_t number;                 /* the transaction for which N is ready */
	uint64_t reserved, reserved_for; /* places promised, in which transaction */
	struct heap_slab *slab;
	uint32_t word, page;
};

/* A validated private copy; nothing of it is read from shared memory again. */
struct heap_type {
	/* for the collector */
	uint32_t members, tail_members;
	uint32_t size, element, tail, count;
	uint32_t member[HEAP_MEMBERS], tail_member[HEAP_TAIL_MEMBERS];
	uint32_t align;
	uint32_t extra; /* elements that a value has beyond its count: the zero behind a string */
	uint16_t id;
	uint8_t class;            /* of types without a tail: 0 */
	struct heap_alloc *alloc; /* of each class, or one */
	struct heap_type_shape shape;
};

/* What a program calls a type: its own structure, and ours. */
struct heap_binding {
	const struct hp_type *user;
	struct heap_type *type;
	struct heap_binding *next;
};
#define HEAP_BINDINGS 64u

/* Where values are found; copies of what the pool says. */
struct heap_view {
	char *data;
	uint64_t capacity;
	pool_map *map;
	struct slab *slabs;
	uint64_t word; /* of the map, for the first page of a slab */
	uint64_t tag;  /* at its place in a reference */
};

struct hp_heap {
	uintptr_t base; /* first: hp_heap_deref adds references to it */
	struct heap_view view;
	hp_pool *pool;
	struct heap_entry *entry;
	hp_tx *tx; /* its memory; wiped on fork */
	uint32_t index, generation;
	uint64_t live; /* its entry's word */
	uint64_t tag;  /* at its place in a reference */
	_Atomic(struct heap_binding *) binding[HEAP_BINDINGS];
	struct heap_binding *bindings; /* all of them; changes inside participant_lock */
	_Atomic(struct heap_type *) type[HEAP_TYPES];
	_Atomic(const struct hp_type *) user[HEAP_TYPES]; /* what the program called it last */
	_Atomic uint32_t types;
	struct hp_heap *next; /* of the pool's handles in this process */
	/* the collector's, by the holder of the lock */
	uint64_t *stack;
	uint64_t stack_top, stack_room;
	struct heap_slice *slices;
	uint64_t slice_top, slice_room;
	uint64_t bad; /* references that named nothing, in this collection */
	bool overflown;
};

struct hp_tx {
	hp_heap *heap; /* NULL: none runs, or wiped by fork */
	/* for the fast path of set. Its capacity is 0 where that may not be taken: none runs, an error, pending. */
	struct heap_view view;
	uint64_t number;
	struct heap_log *cursor, *end; /* in the extent that is being written; equal: look */
	uintptr_t first;               /* cursor minus the entries counted */
	_Atomic uint64_t *log_n;
	bool pending;  /* found garbage waits for readers */
	bool changing; /* version is odd */
	bool long_log; /* it has extents that do not stay */
	int error;
	struct participant *me;
	hp_ref *pin;
	uint32_t pins, pin_room;
	uint32_t *born; /* pages of slabs with values born in this transaction */
	uint32_t borns, born_room;
	bool born_all; /* there was no room for one: all slabs are looked at */
	/* what lasts from one transaction to the next */
	uint64_t last; /* the number of the latest on this handle: another one in between makes free masks void */
	uint32_t grace_skips, grace_wait;
	struct heap_graph *graph; /* while marking goes by it */
};

/* ---- finding ---- */

/* Where it says of a run what kind it is of and whose. */
static inline struct heap_slab *heap_mark_at(const hp_pool *pool, uint64_t page)
{
	return (struct heap_slab *)(void *)&pool->slabs[page];
}

#define HEAP_COLOURS 31u
static inline struct heap_slab *heap_slab_coloured(const hp_pool *pool, uint64_t page, uint64_t colour)
{
	return (struct heap_slab *)(void *)((char *)&pool->slabs[page] + colour * 64);
}

/* The slab that begins at that page; its pages' words of the map have been written. */
static inline struct heap_slab *heap_slab_at(const hp_pool *pool, uint64_t page)
{
	uint64_t map = atomic_load_explicit(&pool->map[page], memory_order_relaxed);
	return heap_slab_coloured(pool, page, map >> HEAP_COLOUR_SHIFT & 31);
}

/* The slab that a page is in, if any, and if it does not begin far back; *page becomes its first. */
static inline bool heap_find_page(const struct heap_view *view, uint64_t *page, struct heap_slab **slab)
{
	/* {colour, back}, if the word is one of this heap's: else more */
	uint64_t found = atomic_load_explicit(&view->map[*page], memory_order_relaxed) - view->word;
	uint64_t back = found & HEAP_BACK_END;
	if (unlikely(found >= UINT64_C(1) << 24 || back > *page)) return false;
	*page -= back;
	*slab = (struct heap_slab *)(void *)((char *)&view->slabs[*page] + (found >> HEAP_COLOUR_SHIFT) * 64);
	return true;
}

/* The same however far it is. */
static inline bool heap_find_page_far(const struct heap_view *view, uint64_t *page, struct heap_slab **slab)
{
	uint64_t map = atomic_load_explicit(&view->map[*page], memory_order_relaxed);
	if (heap_map_is_far(map, (uint32_t)(view->word >> 24))) {
		if ((map & 0xffff) * HEAP_STEP > *page) return false;
		*page -= (map & 0xffff) * HEAP_STEP;
	}
	return heap_find_page(view, page, slab);
}

static inline uint64_t heap_load_a(const struct heap_bits *bits)
{
	return atomic_load_explicit(&bits->a, memory_order_relaxed);
}

/* Places have numbers below that; whatever a descriptor says, no bits are looked for beyond it. */
#define HEAP_PLACES 4096u

/* From a value at that offset, inside the data, to the end of its place; whatever its slab says, not beyond the data. */
static inline uint64_t heap_bytes_from(const struct heap_view *view, const struct heap_slab *slab, uint64_t off)
{
	uint64_t size = atomic_load_explicit(&slab->size, memory_order_relaxed), room = view->capacity - off;
	return size < room ? size : room;
}

static inline bool heap_exists(const struct heap_slab *slab, uint32_t i)
{
	return heap_load_a(&slab->bits[i >> 6]) >> (i & 63) & 1;
}

/* Which place of the slab an offset lies in. That there is such a place is seen from its bit in A. Places of 4 GiB at most. */
static inline uint32_t heap_place(const struct heap_slab *slab, uint64_t page, uint64_t off)
{
	uint64_t reciprocal = atomic_load_explicit(&slab->reciprocal, memory_order_relaxed);
	return (uint32_t)((off - (page << 12)) * reciprocal >> 32) % HEAP_PLACES;
}

/* Does a place begin exactly there? Whether a value lives in it is asked apart. */
static inline bool heap_begins(const struct heap_slab *slab, uint64_t page, uint64_t off, uint32_t *i)
{
	uint64_t reciprocal = atomic_load_explicit(&slab->reciprocal, memory_order_relaxed);
	uint64_t product = (off - (page << 12)) * reciprocal;
	*i = (uint32_t)(product >> 32) % HEAP_PLACES;
	return likely((uint32_t)product < reciprocal);
}

static inline uint64_t heap_ref_offset(uint64_t word)
{
	return word & HEAP_OFFSET_MASK;
}

/* The slab and the place that a reference of this heap names, if there are such. */
static inline bool heap_locate(const struct heap_view *view, uint64_t word, uint64_t *page, struct heap_slab **slab,
                               uint32_t *i)
{
	uint64_t off = word - view->tag; /* beyond all capacity for what is no reference of this heap */
	if (unlikely(off >= view->capacity)) return false;
	*page = off >> 12;
	return heap_find_page(view, page, slab) && heap_begins(*slab, *page, off, i);
}

/* The same if a value lives there. */
static inline bool heap_find_in(const struct heap_view *view, uint64_t word, uint64_t *page, struct heap_slab **slab,
                                uint32_t *i)
{
	return heap_locate(view, word, page, slab, i) && likely(heap_exists(*slab, *i));
}

static inline struct heap_slab *heap_find(const hp_heap *heap, uint64_t word, uint64_t *page, uint32_t *i)
{
	struct heap_slab *slab;
	return heap_find_in(&heap->view, word, page, &slab, i) ? slab : NULL;
}

static inline hp_ref heap_ref(const hp_heap *heap, const void *at)
{
	return (hp_ref){heap->tag | (uint64_t)((uintptr_t)at - (uintptr_t)heap->pool->base)};
}

static inline uint64_t heap_place_offset(const struct heap_slab *slab, uint64_t page, uint32_t i)
{
	return (page << 12) + i * atomic_load_explicit(&slab->size, memory_order_relaxed);
}

static inline uint32_t heap_words(const struct heap_slab *slab)
{
	uint32_t objects = atomic_load_explicit(&slab->objects, memory_order_relaxed);
	return ((objects < HEAP_PLACES ? objects : HEAP_PLACES) + 63) / 64;
}

/* Words of free places have no bits beyond the last place. */
static inline uint64_t heap_word_limit(uint32_t objects, uint32_t w)
{
	return objects - w * 64 >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << (objects - w * 64)) - 1;
}

static inline bool heap_is_pending(uint64_t phase)
{
	return heap_phase(phase) == HEAP_BARRIER || heap_phase(phase) == HEAP_CONDEMNED;
}

/* ---- type.c ---- */
/* The type for the program's; in a transaction it is entered where the heap has it not yet. NULL and *error: -EPROTO, ... */
struct heap_type *heap_bind(hp_heap *heap, hp_tx *tx, const struct hp_type *type, int *error);
/* By its number; NULL: there is none, or it makes no sense. */
struct heap_type *heap_type(hp_heap *heap, uint32_t id);
struct heap_type_entry *heap_type_entry(const hp_heap *heap, uint32_t id);
/* Everything that the heap's values are of has been copied; by the holder of the lock, before it marks: of a value whose type
 * is not known nothing that it leads to would be marked. -ENOMEM, -EUCLEAN. */
int heap_types_known(hp_heap *heap);
void heap_types_free(hp_heap *heap);
/* For who has no heap. */
struct heap_type *heap_type_make(const struct hp_type *type, int *error);
void heap_type_free(struct heap_type *type);
/* A program's type in the form in which types are compared: sensible, or -EINVAL. */
int heap_shape_of(const struct hp_type *type, struct heap_type_shape *shape);
bool heap_shape_sensible(const struct heap_type_shape *shape); /* describes something, and is as it was made */
uint32_t heap_name_hash(const char *name);                     /* of a type's; never 0 */
static inline struct heap_type *heap_bound(const hp_heap *heap, const struct hp_type *type)
{
	struct heap_binding *binding = atomic_load_explicit(&heap->binding[((uintptr_t)type >> 5) & (HEAP_BINDINGS - 1)],
	                                                    memory_order_acquire);
	return likely(binding && binding->user == type) ? binding->type : NULL;
}
/* Elements that a value of the type has room for in so many bytes. */
static inline uint64_t heap_room(const struct heap_type *type, uint64_t bytes)
{
	uint64_t n = type->element && bytes > type->tail ? (bytes - type->tail) / type->element : 0;
	return n > type->extra ? n - type->extra : 0;
}
/* Bytes of a value. */
static inline uint64_t heap_bytes(const struct heap_type *type, uint32_t elements)
{
	uint64_t bytes = type->element ? type->tail + ((uint64_t)elements + type->extra) * type->element : type->size;
	return bytes > type->size ? bytes : type->size;
}

/* ---- run.c ---- */
/* A run of pages: its descriptor is what `like` says, and it is named by *cell (page + 1) when this returns 0. A slab's bits
 * are clear. */
struct heap_run {
	uint64_t pages;
	uint8_t kind;
	uint16_t type, class;
	uint32_t reciprocal, objects;
	uint64_t size;
};
int heap_run_take(hp_heap *heap, struct participant *me, const struct heap_run *run, uint64_t *page);
uint64_t heap_run_colour(const struct heap_run *run, uint64_t page);
void heap_run_named(hp_heap *heap); /* the cell is stored */
void heap_run_give(hp_heap *heap, uint64_t page, _Atomic uint32_t *cell32, _Atomic uint64_t *cell64, uint64_t value);
void heap_run_settle(hp_heap *heap); /* one that a dead holder had in hand */
bool heap_run_is(const hp_heap *heap, uint64_t page, uint8_t kind);
void heap_wipe(hp_heap *heap); /* gives everything back */

/* ---- slab.c ---- */
/* Calls fn for each slab, with the cell that names it; fn may give it back. Stops at a value other than 0. */
typedef int heap_slab_fn(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg);
int heap_slabs(hp_heap *heap, heap_slab_fn *fn, void *arg);
void heap_drop_masks(hp_heap *heap); /* and N bits in hand */
unsigned heap_class(const struct heap_type *type, uint64_t bytes, uint64_t *size);
uint64_t heap_class_size(const struct heap_type *type, unsigned class); /* of one whose values are not alone */
int heap_slab_reserve(hp_tx *tx, struct heap_type *type, uint64_t n, uint32_t elements);
uint64_t heap_slab_shape(uint64_t size, bool alone, uint64_t wanted, uint32_t *objects, uint32_t *reciprocal);
/* Slabs for n values of a kind of which there are none yet, and no page more: how many pages, and to have them. Values that
 * are alone get theirs when they are made. */
uint64_t heap_slabs_need(unsigned class, uint64_t size, uint64_t n);
int heap_slabs_exact(hp_tx *tx, struct heap_type *type, unsigned class, uint64_t size, uint64_t n);
hp_ref heap_new(hp_tx *tx, struct heap_type *type, uint32_t elements); /* no elements where the type has no tail */

/* ---- value.c ---- */
/* `exact`: the heap is new, and takes no page more than hp_value_need says. */
/* What others may be storing to is read a word at a time. */
void heap_copy_shared(char *to, const char *from, uint64_t n);
hp_ref heap_value_import(hp_tx *tx, const struct hp_type *type, const void *value, unsigned flags, bool exact);

/* ---- lock.c ---- */
int heap_lock(hp_heap *heap, struct participant *me, int timeout_ms, bool *undo);
void heap_wake(struct heap_entry *entry);
void heap_unlock_fenced(struct heap_entry *entry);
static inline void heap_unlock(hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	if (unlikely(heap->pool->fenced))
		heap_unlock_fenced(entry);
	else
		atomic_store_explicit(&entry->lock, 0, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst); /* the waiters' barrier orders the rest */
	if (unlikely(atomic_load_explicit(&entry->waiters, memory_order_relaxed))) heap_wake(entry);
}
void heap_lock_back(hp_heap *heap,
                    bool orphan); /* as it was found, by whoever finds that it is not the heap's any more */
int heap_writer_pid(const hp_heap *heap);
bool heap_writer_lives(hp_heap *heap);

/* ---- tx.c ---- */
int heap_fail(hp_tx *tx, int error); /* keeps the first; returns it */
struct heap_log *heap_log_entry(const hp_heap *heap, uint64_t n);
/* After taking the lock: undoes what a dead holder left. */
void heap_recover(hp_heap *heap);
static inline void heap_set_pending(hp_tx *tx, bool pending)
{
	tx->pending = pending;
	tx->view.capacity = pending || tx->error ? 0 : tx->heap->view.capacity;
}
int heap_check(const hp_tx *tx);                             /* 0: it runs and has no error */
hp_tx *heap_tx_start(hp_heap *heap, struct participant *me); /* the lock is ours */

/* ---- mark.c ---- */
extern uint64_t heap_stack_most;                      /* entries of the mark stack at most; tests make it small */
void heap_mark(hp_heap *heap, uint64_t word);         /* through everything it reaches */
void heap_mark_members(hp_heap *heap, uint64_t word); /* of a value, whether it is marked or not */
void heap_mark_roots(hp_heap *heap);                  /* root, log, born, pins */
void heap_mark_born(hp_tx *tx);                       /* their members */
void heap_mark_end(hp_heap *heap);                    /* gives the stack back */
void heap_slices_free(hp_heap *heap);
bool heap_stack_grow(hp_heap *heap);
bool heap_grow(void **memory, uint64_t *room, uint64_t used, uint64_t more, size_t size);
uint64_t heap_object_of(const hp_heap *heap, uint64_t off); /* the reference of the live value around an offset, or 0 */

/* ---- graph.c ---- */
/* From begin to end heap_mark goes by a copy of the graph, if that is worth it and there is memory. The marks count from the
 * end on. */
extern uint64_t heap_graph_least; /* bytes that lived last time, from which on it is; 0: always, for tests */
struct heap_graph *heap_graph_begin(hp_heap *heap); /* NULL: it does not */
void heap_graph_mark(struct heap_graph *graph, uint64_t root);
int heap_graph_end(hp_heap *heap, struct heap_graph *graph); /* -EBADF: a child forked meanwhile */

/* ---- collect.c ---- */
/* Under the lock. 0: reclaimed. -EAGAIN: found, and a reader keeps it. */
int heap_collect(hp_heap *heap, uint64_t wait_ns);
/* Reclaims what waits, if the readers allow. */
bool heap_finish(hp_heap *heap, uint64_t wait_ns);
void heap_sweep(hp_heap *heap);
void heap_trim(hp_heap *heap);

/* ---- reader.c ---- */
/* The thread's slot for sections; NULL and *error. */
struct pool_slot *heap_slot(hp_pool *pool, int *error);
bool heap_grace(hp_pool *pool, uint64_t epoch, uint32_t *blocker);
void heap_mark_guards(hp_heap *heap);
void heap_empty_released(hp_heap *heap);
uint64_t heap_guarded(const hp_heap *heap, bool others); /* cells that hold values of this heap */

void heap_recover_cells(hp_pool *pool, struct pool_slot *slot);
static inline uint32_t heap_who(const hp_pool *pool, const struct pool_slot *slot)
{
	return who_make((uint32_t)(slot - pool->slots),
	                slot_generation(atomic_load_explicit(&slot->word, memory_order_relaxed)));
}

/* ---- heap.c ---- */
static inline uint32_t heap_top(const hp_pool *pool)
{
	uint32_t top = atomic_load_explicit(&pool->header->heaps_top, memory_order_acquire);
	return top < HEAPS ? top : HEAPS;
}
void heap_close_all(hp_pool *pool);
void heap_join(hp_pool *pool); /* a forked child has come to be a process of its own: what it inherited is open in it */
bool heap_writes_here(const hp_heap *heap); /* a transaction runs on this or another handle of it in this process */
static inline bool heap_is_live(const hp_heap *heap)
{
	return atomic_load_explicit(&heap->entry->word, memory_order_acquire) == heap->live;
}
/* Not gone: LIVE, or ENDING, which mostly comes to nothing. */
static inline bool heap_is_there(const hp_heap *heap)
{
	_Static_assert(HEAP_ENDING == (HEAP_LIVE | 1), "one mask for both");
	return (atomic_load_explicit(&heap->entry->word, memory_order_acquire) & ~UINT64_C(1)) == heap->live;
}
/* It is not: -ESTALE; or its end was given up meanwhile: 0. What the dead left of making or ending it is ended. */
int heap_revive(hp_heap *heap, struct participant *me);
/* The same for all entries of the pool; true: something went back. */
bool heap_reap(hp_pool *pool, struct participant *me);

#endif
