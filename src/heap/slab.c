/* Slabs of values, and new values.
 *
 * A slab has values of one type and one size; only who holds the heap's lock makes, gives and fills slabs, so a value is made
 * by plain stores: its bit in N, its bit in A. A transaction takes the free places of a word at a time (struct heap_alloc).
 * The slabs of a type and class are a list in the order in which they were made; what lies before `at` is full since the last
 * sweep, so that each slab is looked at once between two sweeps. */
#include "heap/heap.h"
#include "heap/layout.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_NS UINT64_C(50000) /* for readers, before the heap is extended instead */
#define COLLECT_LEAST (UINT64_C(1) << 20)

/* ---- sizes ---- */

/* Four sizes to a doubling, from 16 bytes on; the class of values that have a run of pages each is the last. */
static uint64_t class_size(unsigned class)
{
	return class < 4 ? 16u * (class + 1) : (uint64_t)(4 + class % 4 + 1) << (class / 4 - 1 + 4);
}

uint64_t heap_class_size(const struct heap_type *type, unsigned class)
{
	return type->element ? class_size(class) : (type->size + type->align - 1) / type->align * type->align;
}

unsigned heap_class(const struct heap_type *type, uint64_t bytes, uint64_t *size)
{
	uint64_t align = type->align;
	bytes = (bytes + align - 1) / align * align;
	if (!type->element) {
		*size = bytes;
		return 0;
	}
	unsigned class = 0;
	while (class < HEAP_ALONE && (class_size(class) < bytes || class_size(class) % align)) class ++;
	if (class_size(class) > HEAP_SIZE_MAX) class = HEAP_ALONE;
	*size = class == HEAP_ALONE ? (bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE * HP_PAGE_SIZE : class_size(class);
	return class;
}

/* Pages of a slab, `wanted` if they are enough for one value, and for the bits, in the descriptors of its own pages. */
uint64_t heap_slab_shape(uint64_t size, bool alone, uint64_t wanted, uint32_t *objects, uint32_t *reciprocal)
{
	if (alone) {
		*objects = 1;
		*reciprocal = 1;
		return size / HP_PAGE_SIZE;
	}
	uint64_t pages = wanted;
	for (;; pages++) {
		*objects = (uint32_t)(pages * HP_PAGE_SIZE / size);
		uint64_t bytes = sizeof(struct heap_slab) + (*objects + 63) / 64 * sizeof(struct heap_bits);
		if (*objects && bytes <= pages * sizeof(struct slab)) break;
	}
	*reciprocal = (uint32_t)(((UINT64_C(1) << 32) + size - 1) / size);
	return pages;
}

/* Pages of the next slab when room for n more values is wanted, and no more: all that a slab may have, if it takes those. */
static uint64_t exact_slab(uint64_t size, uint64_t n, uint32_t *objects)
{
	uint32_t reciprocal, most;
	heap_slab_shape(size, false, HEAP_SLAB_PAGES, &most, &reciprocal);
	uint64_t bytes = (n < most ? n : most) * size;
	return heap_slab_shape(size, false, (bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE, objects, &reciprocal);
}

uint64_t heap_slabs_need(unsigned class, uint64_t size, uint64_t n)
{
	uint32_t objects;
	if (class == HEAP_ALONE) return n * (size / HP_PAGE_SIZE);
	uint64_t full = exact_slab(size, n, &objects), slabs = n / objects, rest = n % objects;
	return slabs * full + (rest ? exact_slab(size, rest, &objects) : 0);
}

/* ---- walking ---- */

static bool belongs(const hp_heap *heap, uint64_t page1, uint32_t type, unsigned class)
{
	if (!page1 || page1 > heap->pool->capacity / HP_PAGE_SIZE || !heap_run_is(heap, page1 - 1, HEAP_SLAB)) return false;
	const struct heap_slab *slab = heap_slab_at(heap->pool, page1 - 1);
	return atomic_load_explicit(&slab->type, memory_order_relaxed) == type &&
	       atomic_load_explicit(&slab->class, memory_order_relaxed) == class;
}

int heap_slabs(hp_heap *heap, heap_slab_fn *fn, void *arg)
{
	uint32_t types = atomic_load_explicit(&heap->entry->types, memory_order_acquire);
	uint64_t left = heap->pool->capacity / HP_PAGE_SIZE; /* however the links may lead */
	for (uint32_t id = 0; id < types && id < HEAP_TYPES; id++) {
		struct heap_type_entry *entry = heap_type_entry(heap, id);
		for (unsigned class = 0; entry && class < HEAP_CLASSES; class ++) {
			_Atomic uint32_t *cell = &entry->list[class];
			for (uint32_t page1; (page1 = atomic_load_explicit(cell, memory_order_acquire)) && left; left--) {
				if (!belongs(heap, page1, id, class)) break;
				struct heap_slab *slab = heap_slab_at(heap->pool, page1 - 1);
				int result = fn(heap, slab, page1 - 1, cell, arg);
				if (result) return result;
				/* given back: the cell names the next */
				if (atomic_load_explicit(cell, memory_order_acquire) == page1) cell = &slab->next;
			}
		}
	}
	return 0;
}

void heap_drop_masks(hp_heap *heap)
{
	for (uint32_t id = 0; id < heap->types; id++) {
		struct heap_type *type = atomic_load_explicit(&heap->type[id], memory_order_relaxed);
		for (unsigned class = 0; class < (type->element ? HEAP_CLASSES : 1); class ++)
			type->alloc[class] = (struct heap_alloc){.reserved = type->alloc[class].reserved,
			                                         .reserved_for = type->alloc[class].reserved_for};
	}
}

/* ---- free places ---- */

static void note_born(hp_tx *tx, uint64_t page)
{
	if (tx->borns == tx->born_room) {
		uint32_t room = tx->born_room ? tx->born_room * 2 : 64;
		uint32_t *more = realloc(tx->born, room * sizeof *more);
		if (!more) {
			tx->born_all = true;
			return;
		}
		tx->born = more;
		tx->born_room = room;
	}
	tx->born[tx->borns++] = (uint32_t)page;
}

/* N says who is born in this transaction. */
static void ready_n(hp_tx *tx, struct heap_slab *slab, uint64_t page)
{
	if (atomic_load_explicit(&slab->born_stamp, memory_order_relaxed) != tx->number) {
		for (uint32_t w = 0, words = heap_words(slab); w < words; w++)
			atomic_store_explicit(&slab->bits[w].n, 0, memory_order_relaxed);
		/* release: a death in between leaves the old number, of which nothing is born any more */
		atomic_store_explicit(&slab->born_stamp, tx->number, memory_order_release);
		note_born(tx, page);
	}
}

/* What comes to be while garbage waits is not garbage. Before its bit in A. */
static void ready_m(hp_heap *heap, struct heap_slab *slab)
{
	uint64_t cycle = atomic_load_explicit(&heap->entry->cycle, memory_order_relaxed);
	if (atomic_load_explicit(&slab->mark_stamp, memory_order_relaxed) == cycle) return;
	for (uint32_t w = 0, words = heap_words(slab); w < words; w++)
		atomic_store_explicit(&slab->bits[w].m, 0, memory_order_relaxed);
	atomic_store_explicit(&slab->mark_stamp, cycle, memory_order_release);
}

/* The free places of the first word from w on that has some. None where the slab is not what it was made as. */
static bool take_word(hp_tx *tx, struct heap_alloc *alloc, uint64_t page, uint64_t size, uint32_t w)
{
	hp_heap *heap = tx->heap;
	struct heap_slab *slab = heap_slab_at(heap->pool, page);
	uint32_t objects = atomic_load_explicit(&slab->objects, memory_order_relaxed), words = heap_words(slab);
	uint64_t room = heap->pool->capacity - page * HP_PAGE_SIZE;
	if (unlikely(atomic_load_explicit(&slab->size, memory_order_relaxed) != size || (uint64_t)objects * size > room))
		return false;
	for (; w < words; w++) {
		uint64_t free = ~heap_load_a(&slab->bits[w]) & heap_word_limit(objects, w);
		if (!free) continue;
		ready_n(tx, slab, page);
		if (tx->pending) {
			ready_m(heap, slab);
			uint64_t m = atomic_load_explicit(&slab->bits[w].m, memory_order_relaxed);
			atomic_store_explicit(&slab->bits[w].m, m | free, memory_order_relaxed);
		}
		*alloc = (struct heap_alloc){
			.reserved = alloc->reserved,
			.reserved_for = alloc->reserved_for,
			.mask = free,
			.start = heap->pool->base + page * HP_PAGE_SIZE + w * 64 * size,
			.bits = &slab->bits[w],
			.size = size,
			.number = tx->number,
			.slab = slab,
			.word = w,
			.page = (uint32_t)page,
		};
		uint64_t handed = (uint64_t)__builtin_popcountll(free) * size;
		atomic_store_explicit(&heap->entry->allocated,
		                      atomic_load_explicit(&heap->entry->allocated, memory_order_relaxed) + handed,
		                      memory_order_relaxed);
		return true;
	}
	return false;
}

/* A single value's run that was promised. */
static bool take_promised(hp_tx *tx, struct heap_alloc *alloc, struct heap_type *type, struct heap_type_entry *entry,
                          uint64_t size)
{
	hp_heap *heap = tx->heap;
	uint32_t at = atomic_load_explicit(&entry->list[HEAP_ALONE], memory_order_relaxed);
	for (uint64_t left = heap->pool->capacity / HP_PAGE_SIZE; at && left; left--) {
		if (!belongs(heap, at, type->id, HEAP_ALONE)) return false;
		struct heap_slab *slab = heap_slab_at(heap->pool, at - 1);
		if (take_word(tx, alloc, at - 1, size, 0)) return true;
		at = atomic_load_explicit(&slab->next, memory_order_relaxed);
	}
	return false;
}

/* From the slabs that there are, from `at` on. *last: the cell that a new one would be named by. */
static bool take_listed(hp_tx *tx, struct heap_type *type, struct heap_type_entry *entry, unsigned class,
                        struct heap_alloc *alloc, uint64_t size, _Atomic uint32_t **last)
{
	hp_heap *heap = tx->heap;
	uint64_t left = heap->pool->capacity / HP_PAGE_SIZE;
	uint32_t at = atomic_load_explicit(&entry->at[class], memory_order_relaxed);
	_Atomic uint32_t *cell = &entry->list[class];
	if (class == HEAP_ALONE) { /* no two have the same size; a new one becomes the first of the list */
		*last = cell;
		return alloc->reserved && alloc->reserved_for == tx->number && take_promised(tx, alloc, type, entry, size);
	}
	if (!belongs(heap, at, type->id, class)) at = atomic_load_explicit(cell, memory_order_relaxed);
	while (at && left--) {
		if (!belongs(heap, at, type->id, class)) return false;
		struct heap_slab *slab = heap_slab_at(heap->pool, at - 1);
		atomic_store_explicit(&entry->at[class], at, memory_order_relaxed);
		uint32_t w = alloc->slab == slab ? alloc->word : 0;
		if (take_word(tx, alloc, at - 1, size, w)) return true;
		cell = &slab->next;
		at = atomic_load_explicit(cell, memory_order_relaxed);
	}
	*last = cell;
	return false;
}

/* Pages of the next slab: twice those of the one before. */
static uint64_t growth(hp_heap *heap, const struct heap_type *type, const struct heap_type_entry *entry, unsigned class)
{
	uint32_t at = atomic_load_explicit(&entry->at[class], memory_order_relaxed);
	if (class == HEAP_ALONE || !belongs(heap, at, type->id, class)) return 1;
	uint64_t pages = atomic_load_explicit(&heap_slab_at(heap->pool, at - 1)->pages, memory_order_relaxed);
	return pages < HEAP_SLAB_PAGES / 2 ? pages * 2 : HEAP_SLAB_PAGES;
}

/* Another slab, at *page. */
static int extend(hp_tx *tx, struct heap_type *type, struct heap_type_entry *shared, unsigned class, uint64_t size,
                  uint64_t wanted, _Atomic uint32_t *last, uint64_t *page)
{
	hp_heap *heap = tx->heap;
	struct heap_entry *entry = heap->entry;
	bool alone = class == HEAP_ALONE;
	uint64_t held = atomic_load_explicit(&entry->pages, memory_order_relaxed);
	int error = -ENOMEM;
	for (;; wanted = 1) {
		struct heap_run run = {.kind = HEAP_SLAB, .type = type->id, .class = (uint16_t) class, .size = size};
		run.pages = heap_slab_shape(size, alone, wanted, &run.objects, &run.reciprocal);
		if (held + run.pages <= entry->limit && (error = heap_run_take(heap, tx->me, &run, page)) == 0) {
			atomic_store_explicit(&entry->pages, held + run.pages, memory_order_relaxed);
			struct heap_slab *slab = heap_slab_at(heap->pool, *page);
			atomic_store_explicit(&slab->next, atomic_load_explicit(last, memory_order_relaxed), memory_order_relaxed);
			/* commit: the heap has the slab */
			atomic_store_explicit(last, (uint32_t)*page + 1, memory_order_release);
			heap_run_named(heap);
			if (!alone) atomic_store_explicit(&shared->at[class], (uint32_t)*page + 1, memory_order_relaxed);
			note_born(tx, *page); /* its born stamp is ours already */
			return 0;
		}
		if (wanted == 1 || alone) return error;
	}
}

/* Short of memory: garbage that was found waits for readers as long as the heap says; then there may be more, found since; then
 * slabs of other kinds may be empty. False: all of that has been tried. */
struct shortage {
	bool waited, collected, trimmed;
};

static bool get_more(hp_tx *tx, struct shortage *tried)
{
	hp_heap *heap = tx->heap;
	uint64_t patience = heap->entry->grace_ms * UINT64_C(1000000);
	if (tx->pending) {
		if (tried->waited) return false;
		tried->waited = true;
		heap_finish(heap, patience);
	} else if (!tried->collected) {
		tried->collected = tried->waited = true;
		heap_collect(heap, patience);
	} else {
		if (tried->trimmed) return false;
		tried->trimmed = true;
		heap_trim(heap);
	}
	return true;
}

/* A free place in alloc, by every means. What is tried: places in slabs that there are; garbage that waited; collecting, when
 * enough has been allocated since; another slab; and, short of memory, all of that with patience. */
static int refill(hp_tx *tx, struct heap_type *type, unsigned class, uint64_t size, struct heap_alloc *alloc)
{
	hp_heap *heap = tx->heap;
	struct heap_entry *entry = heap->entry;
	struct heap_type_entry *shared = heap_type_entry(heap, type->id);
	struct shortage tried = {.waited = false};
	bool tried_finish = false;
	for (;;) {
		_Atomic uint32_t *last = NULL;
		uint64_t made;
		if (shared && take_listed(tx, type, shared, class, alloc, size, &last)) return 0;
		if (!last) return -EUCLEAN;
		alloc->slab = NULL;
		if (tx->pending && !tried_finish) {
			tried_finish = true;
			if (heap_finish(heap, GRACE_NS)) continue;
		}
		uint64_t live = atomic_load_explicit(&entry->live, memory_order_relaxed), due = live / 100 * entry->gc_percent;
		if (!tx->pending && !tried.collected &&
		    atomic_load_explicit(&entry->allocated, memory_order_relaxed) >=
		        (due > COLLECT_LEAST ? due : COLLECT_LEAST)) {
			tried.collected = tried_finish = true;
			heap_collect(heap, GRACE_NS);
			continue;
		}
		int error = extend(tx, type, shared, class, size, growth(heap, type, shared, class), last, &made);
		if (error == 0 && !take_word(tx, alloc, made, size, 0)) return -EUCLEAN;
		if (error != -ENOMEM) return error;
		if (!get_more(tx, &tried)) return -ENOMEM;
	}
}

struct places {
	hp_tx *tx;
	uint32_t type;
	unsigned class;
	uint64_t size, free;
};

/* Free places of that kind. They stay with the transaction: what it has stamped the collector does not give back. */
static int count_free(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)heap, (void)cell;
	struct places *places = arg;
	uint64_t free = 0;
	if (atomic_load_explicit(&slab->type, memory_order_relaxed) != places->type ||
	    atomic_load_explicit(&slab->class, memory_order_relaxed) != places->class ||
	    atomic_load_explicit(&slab->size, memory_order_relaxed) != places->size)
		return 0;
	uint32_t objects = atomic_load_explicit(&slab->objects, memory_order_relaxed);
	for (uint32_t w = 0; w < heap_words(slab); w++)
		free += (unsigned)__builtin_popcountll(~heap_load_a(&slab->bits[w]) & heap_word_limit(objects, w));
	if (free) ready_n(places->tx, slab, page);
	places->free += free;
	return 0;
}

int heap_slab_reserve(hp_tx *tx, struct heap_type *type, uint64_t n, uint32_t elements)
{
	hp_heap *heap = tx->heap;
	struct places places = {.tx = tx, .type = type->id};
	struct heap_type_entry *entry = heap_type_entry(heap, type->id);
	struct shortage tried = {.waited = false};
	uint64_t page;
	if (!entry) return heap_fail(tx, -EUCLEAN);
	places.class = heap_class(type, heap_bytes(type, elements), &places.size);
	struct heap_alloc *alloc = &type->alloc[places.class];
	uint64_t promised = alloc->reserved_for == tx->number ? alloc->reserved : 0;
	if (n > heap->pool->capacity / places.size) return heap_fail(tx, -ENOMEM);
	for (_Atomic uint32_t *last = NULL;;) {
		if (!last) { /* what there is; slabs that are added are counted one by one */
			places.free = 0;
			heap_slabs(heap, count_free, &places);
			last = &entry->list[places.class];
			uint64_t left = heap->pool->capacity / HP_PAGE_SIZE;
			for (uint32_t at; places.class != HEAP_ALONE && left-- && (at = atomic_load(last)) != 0;) {
				if (!belongs(heap, at, type->id, places.class)) return heap_fail(tx, -EUCLEAN);
				last = &heap_slab_at(heap->pool, at - 1)->next;
				atomic_store_explicit(&entry->at[places.class], at, memory_order_relaxed);
			}
		}
		if (places.free >= promised + n) break;
		uint64_t pages = growth(heap, type, entry, places.class);
		int error = extend(tx, type, entry, places.class, places.size, pages, last, &page);
		if (error == 0) {
			struct heap_slab *slab = heap_slab_at(heap->pool, page);
			places.free += atomic_load_explicit(&slab->objects, memory_order_relaxed);
			if (places.class != HEAP_ALONE) last = &slab->next;
		} else if (error == -ENOMEM && get_more(tx, &tried)) {
			last = NULL;
		} else {
			return heap_fail(tx, error);
		}
	}
	/* what is free may lie before the place that was looked at last */
	*alloc = (struct heap_alloc){.reserved = promised + n, .reserved_for = tx->number};
	atomic_store_explicit(&entry->at[places.class], 0, memory_order_relaxed);
	return 0;
}

int heap_slabs_exact(hp_tx *tx, struct heap_type *type, unsigned class, uint64_t size, uint64_t n)
{
	hp_heap *heap = tx->heap;
	struct heap_type_entry *entry = heap_type_entry(heap, type->id);
	if (class == HEAP_ALONE) return 0;
	if (!entry) return -EUCLEAN;
	for (_Atomic uint32_t *last = &entry->list[class]; n;) {
		uint32_t objects;
		uint64_t page, pages = exact_slab(size, n, &objects);
		int error = extend(tx, type, entry, class, size, pages, last, &page);
		if (error < 0) return error;
		struct heap_slab *slab = heap_slab_at(heap->pool, page);
		objects = atomic_load_explicit(&slab->objects, memory_order_relaxed);
		n -= n < objects ? n : objects;
		last = &slab->next;
	}
	atomic_store_explicit(&entry->at[class], 0, memory_order_relaxed); /* from the first */
	return 0;
}

/* ---- new values ---- */

/* Places are multiples of 16 bytes, mostly few: a call would cost more. */
static inline void zero(char *at, uint64_t bytes)
{
	typedef uint64_t pair __attribute__((vector_size(16), may_alias));
	if (unlikely(bytes > 512)) {
		memset(at, 0, bytes);
		return;
	}
	for (char *end = at + bytes; at < end; at += 16) {
		*(pair *)(void *)at = (pair){0, 0};
		__asm__ volatile("" : "+r"(at)); /* or compilers make the call of it */
	}
}

static inline hp_ref hand_out(hp_heap *heap, struct heap_alloc *alloc)
{
	uint64_t mask = alloc->mask, bit = mask & -mask;
	char *at = alloc->start + (unsigned)__builtin_ctzll(mask) * alloc->size;
	alloc->mask = mask ^ bit;
	struct heap_bits *bits = alloc->bits;
	atomic_store_explicit(&bits->n, atomic_load_explicit(&bits->n, memory_order_relaxed) | bit, memory_order_relaxed);
	zero(at, alloc->size);
	/* commit: the value exists. A death from here on leaves it to the collector. Release: zeros, for whoever looks. */
	atomic_store_explicit(&bits->a, heap_load_a(bits) | bit, memory_order_release);
	return heap_ref(heap, at);
}

hp_ref heap_new(hp_tx *tx, struct heap_type *type, uint32_t elements)
{
	hp_heap *heap = tx->heap;
	uint64_t size;
	int error;
	if (unlikely(heap_bytes(type, elements) > HEAP_VALUE_MAX)) {
		heap_fail(tx, -EINVAL);
		return HP_NONE;
	}
	unsigned class = heap_class(type, heap_bytes(type, elements), &size);
	struct heap_alloc *alloc = &type->alloc[class];
	if (alloc->mask && alloc->number != tx->number) { /* left over from the transaction before */
		ready_n(tx, alloc->slab, alloc->page);
		alloc->number = tx->number;
	}
	if (!alloc->mask && (error = refill(tx, type, class, size, alloc)) < 0) {
		heap_fail(tx, error);
		return HP_NONE;
	}
	hp_ref ref = hand_out(heap, alloc);
	if (type->element) memcpy((char *)hp_heap_deref(heap, ref) + type->count, &elements, sizeof elements);
	return ref;
}

static __attribute__((noinline)) hp_ref new_slow(hp_tx *tx, const struct hp_type *user, uint32_t elements)
{
	int error = heap_check(tx);
	if (error < 0) return HP_NONE;
	struct heap_type *type = heap_bind(tx->heap, tx, user, &error);
	if (type && !type->element && elements) error = -EINVAL;
	if (error == 0) return heap_new(tx, type, elements);
	heap_fail(tx, error);
	return HP_NONE;
}

hp_ref hp_heap_new(hp_tx *tx, const struct hp_type *user, uint32_t elements)
{
	hp_heap *heap = tx->heap;
	struct heap_type *type = likely(heap) ? heap_bound(heap, user) : NULL;
	if (likely(type && !type->element && !elements && !tx->error)) {
		struct heap_alloc *alloc = type->alloc;
		if (likely(alloc->mask && alloc->number == tx->number)) return hand_out(heap, alloc);
	}
	return new_slow(tx, user, elements);
}

hp_ref hp_heap_new_string(hp_tx *tx, const char *s, size_t len)
{
	if (len >= UINT32_MAX) {
		heap_fail(tx, -EINVAL);
		return HP_NONE;
	}
	hp_ref ref = hp_heap_new(tx, &hp_string_type, (uint32_t)len);
	if (ref.word && s) memcpy(((struct hp_string *)hp_heap_deref(tx->heap, ref))->s, s, len);
	return ref;
}

hp_ref hp_heap_new_vector(hp_tx *tx, uint32_t n, hp_ref uniform)
{
	hp_ref ref = hp_heap_new(tx, &hp_vector_type, n);
	if (!ref.word) return ref;
	struct hp_vector *vector = hp_heap_deref(tx->heap, ref);
	for (uint32_t i = 0; i < n && uniform.word; i++)
		if (hp_heap_set(tx, &vector->item[i], uniform) < 0) return HP_NONE;
	return ref;
}

hp_ref hp_heap_new_vector_by(hp_tx *tx, uint32_t n, int (*fn)(hp_tx *tx, uint32_t i, hp_ref *item, void *arg),
                             void *arg)
{
	hp_ref ref = hp_heap_new(tx, &hp_vector_type, n);
	for (uint32_t i = 0; ref.word && i < n; i++) {
		hp_ref item = HP_NONE;
		int error = fn(tx, i, &item, arg);
		if (error < 0) heap_fail(tx, error);
		if (heap_check(tx) < 0) return HP_NONE;
		struct hp_vector *vector = hp_heap_deref(tx->heap, ref);
		if (hp_heap_set(tx, &vector->item[i], item) < 0) return HP_NONE;
	}
	return ref;
}

hp_ref hp_heap_box(hp_tx *tx, hp_ref value)
{
	hp_ref ref = hp_heap_new(tx, &hp_cell_type, 0);
	if (!ref.word) return ref;
	struct hp_cell *cell = hp_heap_deref(tx->heap, ref);
	return hp_heap_set(tx, &cell->value.ref, value) < 0 ? HP_NONE : ref;
}
