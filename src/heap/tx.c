/* Transactions: every store to a value that others can see is noted down before it is made, and undone from these notes by
 * the writer itself or by the next one.
 *
 * Order of a store: entry, count, value; and before the first one the version becomes odd. Commit: the count becomes 0. What
 * was born in the transaction needs no notes, since nobody reaches it any more once what led to it is undone. Entries are
 * absolute, so undoing may be interrupted and begun again. Model: tests/models/heap_tx_model.py. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "pool/recover.h"
#include "os/os.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOG_KEPT 4u /* the last extent that stays when a transaction ends */

/* ---- the log ---- */

static unsigned extent_of(uint64_t n)
{
	return n < HEAP_LOG_FIRST ? 0 : 64 - (unsigned)__builtin_clzll(n / HEAP_LOG_FIRST);
}
static uint64_t extent_start(unsigned k)
{
	return k ? (uint64_t)HEAP_LOG_FIRST << (k - 1) : 0;
}
static uint64_t extent_entries(unsigned k)
{
	return k ? extent_start(k) : HEAP_LOG_FIRST;
}

struct heap_log *heap_log_entry(const hp_heap *heap, uint64_t n)
{
	unsigned k = extent_of(n);
	uint64_t page1 = k < HEAP_EXTENTS ? atomic_load_explicit(&heap->entry->log[k], memory_order_acquire) : 0;
	uint64_t off = (page1 - 1) * HP_PAGE_SIZE;
	if (!page1 || off >= heap->pool->capacity ||
	    extent_entries(k) * sizeof(struct heap_log) > heap->pool->capacity - off)
		return NULL;
	return (struct heap_log *)(void *)(heap->pool->base + off) + (n - extent_start(k));
}

static int extent_have(hp_heap *heap, struct participant *me, unsigned k)
{
	if (k >= HEAP_EXTENTS) return -ENOMEM;
	heap->tx->long_log |= k > LOG_KEPT;
	if (atomic_load_explicit(&heap->entry->log[k], memory_order_relaxed)) return 0;
	struct heap_run run = {.pages = extent_entries(k) * sizeof(struct heap_log) / HP_PAGE_SIZE, .kind = HEAP_LOG};
	uint64_t page;
	int error = heap_run_take(heap, me, &run, &page);
	if (error < 0) return error;
	/* commit: the log has the extent */
	atomic_store_explicit(&heap->entry->log[k], page + 1, memory_order_release);
	heap_run_named(heap);
	return 0;
}

/* What a transaction has made long is given back when it ends. */
static void shorten(hp_heap *heap)
{
	for (unsigned k = HEAP_EXTENTS - 1; k > LOG_KEPT; k--) {
		uint64_t page1 = atomic_load_explicit(&heap->entry->log[k], memory_order_relaxed);
		if (page1) heap_run_give(heap, page1 - 1, NULL, &heap->entry->log[k], 0);
	}
}

int heap_fail(hp_tx *tx, int error)
{
	if (!tx->error) tx->error = error;
	tx->view.capacity = 0; /* set does nothing any more */
	return tx->error;
}

int heap_check(const hp_tx *tx)
{
	if (unlikely(!tx || !tx->heap)) return -EBADF;
	return tx->error;
}

/* Room for one more entry, and the version odd. */
static int log_more(hp_tx *tx)
{
	hp_heap *heap = tx->heap;
	if (!tx->changing) {
		uint64_t version = atomic_load_explicit(&heap->entry->version, memory_order_relaxed);
		/* release: what was stored before is not seen as part of it; and see version_begin */
		atomic_store_explicit(&heap->entry->version, version | 1, memory_order_release);
		atomic_signal_fence(memory_order_seq_cst);
		tx->changing = true;
	}
	uint64_t logged = atomic_load_explicit(tx->log_n, memory_order_relaxed);
	unsigned k = extent_of(logged);
	int error = extent_have(heap, tx->me, k);
	if (error < 0) return heap_fail(tx, error);
	tx->cursor = heap_log_entry(heap, logged);
	if (!tx->cursor) return heap_fail(tx, -EUCLEAN);
	tx->end = tx->cursor + (extent_start(k) + extent_entries(k) - logged);
	tx->first = (uintptr_t)tx->cursor - logged * sizeof(struct heap_log);
	return 0;
}

static inline void log_entry(hp_tx *tx, struct heap_log *cursor, uint64_t what, uint64_t old)
{
	atomic_store_explicit(&cursor->what, what, memory_order_relaxed);
	atomic_store_explicit(&cursor->old, old, memory_order_relaxed);
	tx->cursor = ++cursor;
	/* commit of the entry: counted before the value is stored */
	atomic_store_explicit(tx->log_n, ((uintptr_t)cursor - tx->first) / sizeof *cursor, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
}

static int log_one(hp_tx *tx, uint64_t what, uint64_t old)
{
	if (unlikely(tx->cursor == tx->end)) {
		int error = log_more(tx);
		if (error < 0) return error;
	}
	log_entry(tx, tx->cursor, what, old);
	return 0;
}

/* ---- undoing ---- */

/* In a live value's slab of this heap. */
static bool in_slab(const hp_heap *heap, uint64_t off, unsigned bytes)
{
	if (off > heap->pool->capacity - bytes) return false;
	uint64_t page = off >> 12, last = (off + bytes - 1) >> 12;
	struct heap_slab *slab;
	return heap_find_page_far(&heap->view, &page, &slab) &&
	       last < page + atomic_load_explicit(&slab->pages, memory_order_relaxed);
}

/* Up to the next multiple of 8. A word of 1, 2, 4 or 8 bytes that lies at a multiple of its size is stored whole, for readers
 * see it at any time. Release: whoever sees it sees what was stored before. */
static void store_plain(char *to, const void *from, size_t bytes)
{
	uint64_t word = 0;
	memcpy(&word, from, bytes);
	if ((uintptr_t)to % bytes) {
		memcpy(to, from, bytes);
		return;
	}
	switch (bytes) {
	case 1: __atomic_store_n((uint8_t *)(void *)to, (uint8_t)word, __ATOMIC_RELEASE); break;
	case 2: __atomic_store_n((uint16_t *)(void *)to, (uint16_t)word, __ATOMIC_RELEASE); break;
	case 4: __atomic_store_n((uint32_t *)(void *)to, (uint32_t)word, __ATOMIC_RELEASE); break;
	case 8: __atomic_store_n((uint64_t *)(void *)to, word, __ATOMIC_RELEASE); break;
	default: memcpy(to, from, bytes);
	}
}

/* Of a value that came to be in the transaction that is undone. It stays as it is: it is garbage, but readers who have met it
 * must not see it come apart. */
static bool in_born(const hp_heap *heap, uint64_t off)
{
	uint64_t page = off >> 12, number = atomic_load_explicit(&heap->entry->number, memory_order_relaxed);
	struct heap_slab *slab;
	if (!heap_find_page_far(&heap->view, &page, &slab)) return false;
	if (atomic_load_explicit(&slab->born_stamp, memory_order_relaxed) != number) return false;
	uint32_t i = heap_place(slab, page, off);
	return atomic_load_explicit(&slab->bits[i >> 6].n, memory_order_relaxed) >> (i & 63) & 1;
}

static void undo_one(hp_heap *heap, const struct heap_log *entry)
{
	uint64_t what = atomic_load_explicit(&entry->what, memory_order_relaxed), off = heap_ref_offset(what);
	uint64_t old = atomic_load_explicit(&entry->old, memory_order_relaxed);
	unsigned code = (unsigned)(what >> HEAP_OFFSET_BITS);
	char *at = heap->pool->base + off;
	if (code == HEAP_LOG_ROOT) {
		atomic_store_explicit(&heap->entry->root, old, memory_order_release);
	} else if (code == HEAP_LOG_REF && off % 8 == 0 && in_slab(heap, off, 8)) {
		if (!in_born(heap, off)) __atomic_store_n((uint64_t *)(void *)at, old, __ATOMIC_RELEASE);
	} else if (code >= 1 && code <= 8 && in_slab(heap, off, code)) {
		store_plain(at, &old, code);
	} else {
		atomic_fetch_add_explicit(&heap->entry->quarantined, 1, memory_order_relaxed);
	}
}

static void version_even(struct heap_entry *entry)
{
	uint64_t version = atomic_load_explicit(&entry->version, memory_order_relaxed);
	atomic_store_explicit(&entry->version, version + (version & 1), memory_order_release);
}

static void roll_back(hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	uint64_t n = atomic_load_explicit(&entry->log_n, memory_order_acquire);
	uint64_t most = heap->pool->capacity / sizeof(struct heap_log); /* whatever it says, that many there can be */
	if (n > most) n = most;
	while (n-- > 0) {
		const struct heap_log *log = heap_log_entry(heap, n);
		if (log) undo_one(heap, log);
	}
	/* commit: undone. Release: all of it. */
	atomic_store_explicit(&entry->log_n, 0, memory_order_release);
	version_even(entry);
}

void heap_recover(hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	roll_back(heap);
	heap_run_settle(heap);
	uint64_t phase = atomic_load_explicit(&entry->phase, memory_order_acquire);
	/* nothing was freed by this cycle yet, and its marks may be half done: void */
	if (heap_is_pending(phase))
		atomic_store_explicit(&entry->phase, heap_phase_make(HEAP_IDLE, 0), memory_order_release);
	if (heap_phase(phase) == HEAP_SWEEP) heap_sweep(heap);
	atomic_fetch_add_explicit(&entry->recoveries, 1, memory_order_relaxed);
}

/* ---- begin, commit, abort ---- */

static inline void number_next(hp_tx *tx, struct heap_entry *entry)
{
	tx->number = atomic_load_explicit(&entry->number, memory_order_relaxed) + 1;
	atomic_store_explicit(&entry->number, tx->number, memory_order_release);
	tx->cursor = tx->end = NULL;
	tx->changing = false;
	tx->borns = 0;
	tx->born_all = false;
}

static inline hp_tx *start(hp_heap *heap, struct participant *me)
{
	struct heap_entry *entry = heap->entry;
	hp_tx *tx = heap->tx;
	if (unlikely(!tx->log_n)) { /* the first of the handle, or of a forked child */
		tx->view = heap->view;
		tx->log_n = &entry->log_n;
	}
	tx->me = me;
	tx->error = 0;
	tx->pins = 0;
	tx->heap = heap;
	/* masks of free places are good as long as nobody else has written */
	if (unlikely(atomic_load_explicit(&entry->number, memory_order_relaxed) != tx->last)) heap_drop_masks(heap);
	number_next(tx, entry);
	heap_set_pending(tx, heap_is_pending(atomic_load_explicit(&entry->phase, memory_order_relaxed)));
	return tx;
}

hp_tx *heap_tx_start(hp_heap *heap, struct participant *me)
{
	return start(heap, me);
}

/* Garbage that was found earlier: have the readers left? Not asked by each transaction while one of them does not. */
static __attribute__((noinline)) void look_for_grace(hp_heap *heap, hp_tx *tx)
{
	if (heap_types_known(heap) < 0) { /* marks would be half: void, as after a death; nothing was freed yet */
		atomic_store_explicit(&heap->entry->phase, heap_phase_make(HEAP_IDLE, 0), memory_order_release);
		heap_set_pending(tx, false);
		return;
	}
	if (tx->grace_skips-- != 0) return;
	if (heap_finish(heap, 0))
		tx->grace_wait = 0;
	else
		tx->grace_wait = tx->grace_wait < 512 ? tx->grace_wait * 2 + 1 : 1023;
	tx->grace_skips = tx->grace_wait;
}

static __attribute__((noinline)) int begin_slow(hp_heap *heap, int timeout_ms, hp_tx **out)
{
	int error;
	bool undo;
	if (!heap || !out) return -EINVAL;
	*out = NULL;
	hp_pool *pool = heap->pool;
	if (!pool) return -ESTALE;
	struct participant *me = hp_thread_current;
	if (!participant_is_fast(me, pool) && !(me = participant_get(pool, &error))) return error;
	struct pool_slot *slot = heap_slot(pool, &error);
	if (!slot) return error;
	if (atomic_load_explicit(&slot->section, memory_order_relaxed)) return -EDEADLK;
	if (!heap_is_there(heap) && (error = heap_revive(heap, me)) < 0) return error;
	if ((error = heap_lock(heap, me, timeout_ms, &undo)) < 0) return error;
	if (!heap_is_there(heap)) { /* it may even be another heap's lock by now */
		heap_lock_back(heap, undo);
		return -ESTALE;
	}
	/* who was about to end it has died before that */
	if (!heap_is_live(heap)) atomic_store_explicit(&heap->entry->word, heap->live, memory_order_release);
	if (undo) heap_recover(heap);
	hp_tx *tx = start(heap, me);
	if (tx->pending) look_for_grace(heap, tx);
	*out = tx;
	return 0;
}

int hp_heap_begin(hp_heap *heap, int timeout_ms, hp_tx **out)
{
	struct participant *me = hp_thread_current;
	if (unlikely(!heap || !out || !participant_is_fast(me, heap->pool))) return begin_slow(heap, timeout_ms, out);
	struct heap_entry *entry = heap->entry;
	uint32_t lock = 0;
	if (unlikely(atomic_load_explicit(&me->slot->section, memory_order_relaxed)) || unlikely(!heap_is_live(heap)) ||
	    unlikely(!atomic_compare_exchange_strong_explicit(&entry->lock, &lock, me->who, memory_order_acq_rel,
	                                                      memory_order_relaxed)))
		return begin_slow(heap, timeout_ms, out);
	if (unlikely(!heap_is_live(heap))) {
		heap_lock_back(heap, false);
		return begin_slow(heap, timeout_ms, out);
	}
	hp_tx *tx = start(heap, me);
	if (unlikely(tx->pending)) look_for_grace(heap, tx);
	*out = tx;
	return 0;
}

/* What has been stored is there to stay. */
static void settle(hp_tx *tx)
{
	struct heap_entry *entry = tx->heap->entry;
	if (unlikely(tx->pending)) heap_mark_born(tx);
	if (tx->cursor) {
		/* commit: the transaction has happened. Before it a death undoes all of it. */
		atomic_store_explicit(&entry->log_n, 0, memory_order_release);
		version_even(entry);
	}
}

static void undo(hp_tx *tx)
{
	if (unlikely(tx->pending)) heap_mark_born(tx);
	roll_back(tx->heap);
}

static inline void finish(hp_tx *tx)
{
	hp_heap *heap = tx->heap;
	tx->last = tx->number;
	if (unlikely(tx->long_log)) {
		shorten(heap);
		tx->long_log = false;
	}
	tx->heap = NULL;
	tx->view.capacity = 0; /* so that set refuses everything */
	heap_unlock(heap);
}

static __attribute__((noinline)) int commit_slow(hp_tx *tx)
{
	if (!tx || !tx->heap) return -EBADF;
	int error = tx->error;
	if (error)
		undo(tx);
	else
		settle(tx);
	finish(tx);
	return error;
}

int hp_heap_commit(hp_tx *tx)
{
	/* what has a log, or an error, or waits for readers */
	if (unlikely(!tx || !tx->view.capacity || tx->cursor || tx->long_log)) return commit_slow(tx);
	finish(tx);
	return 0;
}

void hp_heap_abort(hp_tx *tx)
{
	if (!tx || !tx->heap) return;
	undo(tx);
	finish(tx);
}

int hp_heap_checkpoint(hp_tx *tx)
{
	if (unlikely(!tx || !tx->heap)) return -EBADF;
	int error = tx->error;
	if (error)
		undo(tx);
	else
		settle(tx);
	number_next(tx, tx->heap->entry);
	tx->error = 0;
	heap_set_pending(tx, tx->pending);
	return error;
}

int hp_heap_modify(hp_heap *heap, int timeout_ms, int (*fn)(hp_tx *tx, void *arg), void *arg)
{
	hp_tx *tx;
	if (!fn) return -EINVAL;
	int error = hp_heap_begin(heap, timeout_ms, &tx);
	if (error < 0) return error;
	if ((error = fn(tx, arg)) >= 0) {
		int result = hp_heap_commit(tx);
		return result < 0 ? result : error;
	}
	hp_heap_abort(tx);
	return error;
}

int hp_heap_error(const hp_tx *tx)
{
	return heap_check(tx);
}

hp_heap *hp_heap_of(const hp_tx *tx)
{
	return tx ? tx->heap : NULL;
}

/* ---- stores ---- */

static int why_not(const hp_heap *heap, hp_ref value)
{
	if (!(value.word & HEAP_REFERENCE)) return -EINVAL; /* a private pointer */
	return value.word >> HEAP_OFFSET_BITS != heap->tag >> HEAP_OFFSET_BITS ? -EXDEV : -ESTALE;
}

static bool names_value(const hp_heap *heap, hp_ref value)
{
	uint64_t page;
	uint32_t i;
	return heap_find(heap, value.word, &page, &i) != NULL;
}

static inline bool is_born(const hp_tx *tx, const struct heap_slab *slab, uint32_t i)
{
	return atomic_load_explicit(&slab->born_stamp, memory_order_relaxed) == tx->number &&
	       atomic_load_explicit(&slab->bits[i >> 6].n, memory_order_relaxed) >> (i & 63) & 1;
}

/* Everything that is not the common case, with the reason for what is refused. */
static __attribute__((noinline)) int set_slow(hp_tx *tx, hp_ref *member, hp_ref value)
{
	int error = heap_check(tx);
	if (error < 0) return error;
	hp_heap *heap = tx->heap;
	uint64_t off = (uint64_t)((uintptr_t)member - (uintptr_t)heap->view.data), page = off >> 12;
	if (off >= heap->view.capacity || off & 7) return heap_fail(tx, -EINVAL);
	struct heap_slab *slab;
	if (!heap_find_page_far(&heap->view, &page, &slab)) return heap_fail(tx, -EINVAL);
	uint32_t i = heap_place(slab, page, off);
	if (!heap_exists(slab, i)) return heap_fail(tx, -EINVAL);
	if (value.word && !names_value(heap, value)) return heap_fail(tx, why_not(heap, value));
	_Atomic uint64_t *word = (_Atomic uint64_t *)&member->word;
	uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
	if (!is_born(tx, slab, i) && (error = log_one(tx, off | (uint64_t)HEAP_LOG_REF << HEAP_OFFSET_BITS, old)) < 0)
		return error;
	if (tx->pending) {
		heap_mark(heap, value.word);
		heap_mark(heap, old);
	}
	atomic_store_explicit(word, value.word, memory_order_release); /* as below */
	return 0;
}

int hp_heap_set(hp_tx *tx, hp_ref *member, hp_ref value)
{
	const struct heap_view *view = &tx->view;
	uint64_t off = (uint64_t)((uintptr_t)member - (uintptr_t)view->data), page = off >> 12;
	struct heap_slab *slab;
	uint32_t i;
	/* what is born in this transaction would need no entry, but finding that out costs more than the entry */
	struct heap_log *cursor = tx->cursor;
	if (unlikely(off >= view->capacity || off & 7 || cursor == tx->end) ||
	    unlikely((atomic_load_explicit(&view->map[page], memory_order_relaxed) - view->word) >> 24) ||
	    (value.word && unlikely(!heap_find_in(view, value.word, &page, &slab, &i))))
		return set_slow(tx, member, value);
	_Atomic uint64_t *word = (_Atomic uint64_t *)&member->word;
	log_entry(tx, cursor, off | (uint64_t)HEAP_LOG_REF << HEAP_OFFSET_BITS,
	          atomic_load_explicit(word, memory_order_relaxed));
	/* release: whoever finds the value finds it whole */
	atomic_store_explicit(word, value.word, memory_order_release);
	return 0;
}

int hp_heap_set_root(hp_tx *tx, hp_ref value)
{
	int error = heap_check(tx);
	if (error < 0) return error;
	hp_heap *heap = tx->heap;
	if (value.word && !names_value(heap, value)) return heap_fail(tx, why_not(heap, value));
	_Atomic uint64_t *root = &heap->entry->root;
	uint64_t old = atomic_load_explicit(root, memory_order_relaxed);
	if ((error = log_one(tx, (uint64_t)HEAP_LOG_ROOT << HEAP_OFFSET_BITS, old)) < 0) return error;
	if (tx->pending) {
		heap_mark(heap, value.word);
		heap_mark(heap, old);
	}
	atomic_store_explicit(root, value.word, memory_order_release); /* as in set */
	return 0;
}

/* Does the range [from, to) of a value touch a reference? */
static bool touches(const struct heap_type *type, uint64_t from, uint64_t to)
{
	for (uint32_t k = 0; k < type->members; k++)
		if (type->member[k] < to && from < type->member[k] + 8u) return true;
	if (!type->tail_members || to <= type->tail) return false;
	uint64_t first = from > type->tail ? (from - type->tail) / type->element : 0;
	uint64_t last = (to - 1 - type->tail) / type->element;
	if (last > first + 1) last = first + 1; /* a whole element is among them */
	for (uint64_t e = first; e <= last; e++)
		for (uint32_t k = 0; k < type->tail_members; k++) {
			uint64_t at = type->tail + e * type->element + type->tail_member[k];
			if (at < to && from < at + 8) return true;
		}
	return false;
}

int hp_heap_write(hp_tx *tx, void *to, const void *from, size_t bytes)
{
	int error = heap_check(tx);
	if (error < 0) return error;
	if (bytes == 0) return 0;
	hp_heap *heap = tx->heap;
	uint64_t off = (uint64_t)((uintptr_t)to - (uintptr_t)heap->view.data), page = off >> 12;
	if (off >= heap->view.capacity || bytes > heap->view.capacity - off) return heap_fail(tx, -EINVAL);
	struct heap_slab *slab;
	if (!heap_find_page_far(&heap->view, &page, &slab)) return heap_fail(tx, -EINVAL);
	uint32_t i = heap_place(slab, page, off);
	uint64_t start = heap_place_offset(slab, page, i), size = atomic_load_explicit(&slab->size, memory_order_relaxed);
	struct heap_type *type = heap_type(heap, atomic_load_explicit(&slab->type, memory_order_relaxed));
	if (!type || off - start > size || bytes > size - (off - start) || !heap_exists(slab, i) ||
	    touches(type, off - start, off - start + bytes))
		return heap_fail(tx, -EINVAL);
	bool born = is_born(tx, slab, i);
	if (born) {
		memcpy(to, from, bytes);
		return 0;
	}
	for (size_t done = 0, n; done < bytes; done += n) {
		/* to the next multiple of 8, so that words are undone as words */
		n = 8 - ((off + done) & 7);
		if (n > bytes - done) n = bytes - done;
		uint64_t old = 0;
		memcpy(&old, (char *)to + done, n);
		if ((error = log_one(tx, (off + done) | (uint64_t)n << HEAP_OFFSET_BITS, old)) < 0) return error;
		store_plain((char *)to + done, (const char *)from + done, n);
	}
	return 0;
}

int hp_heap_pin(hp_tx *tx, hp_ref value)
{
	int error = heap_check(tx);
	if (error < 0) return error;
	if (!value.word) return 0;
	if (!names_value(tx->heap, value)) return heap_fail(tx, why_not(tx->heap, value));
	if (tx->pins == tx->pin_room) {
		uint32_t room = tx->pin_room ? tx->pin_room * 2 : 16;
		hp_ref *more = realloc(tx->pin, room * sizeof *more);
		if (!more) return heap_fail(tx, -ENOMEM);
		tx->pin = more;
		tx->pin_room = room;
	}
	tx->pin[tx->pins++] = value;
	if (tx->pending) heap_mark(tx->heap, value.word);
	return 0;
}

int hp_heap_reserve(hp_tx *tx, size_t stores, const struct hp_type *user, size_t n, uint32_t elements)
{
	int error = heap_check(tx);
	if (error < 0) return error;
	hp_heap *heap = tx->heap;
	if (stores) {
		if (stores > UINT64_C(1) << 40) return heap_fail(tx, -ENOMEM);
		for (unsigned k = 0, last = extent_of(atomic_load(tx->log_n) + stores - 1); k <= last; k++)
			if ((error = extent_have(heap, tx->me, k)) < 0) return heap_fail(tx, error);
	}
	if (!n) return 0;
	struct heap_type *type = heap_bind(heap, tx, user, &error);
	if (!type) return heap_fail(tx, error);
	return heap_slab_reserve(tx, type, n, elements);
}
