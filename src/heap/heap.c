/* Making, opening, ending heaps, and what they say about themselves.
 *
 * All of it happens under the heap's own lock, which names who is at it; so what a dead maker or ender leaves is found by its
 * state and ended by whoever comes by. Model: tests/models/heap_open_model.py. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "pool/recover.h"
#include "os/os.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define OPEN_PATIENCE_NS UINT64_C(100000000)

/* ---- handles ---- */

static void handle_fill(hp_heap *heap, hp_pool *pool, uint32_t index, uint32_t generation)
{
	heap->pool = pool;
	heap->entry = &pool->heaps[index];
	heap->index = index;
	heap->generation = generation;
	heap->live = heap_word(HEAP_LIVE, generation);
	heap->tag = (uint64_t)heap_tag(index, generation) << HEAP_OFFSET_BITS;
	heap->base = (uintptr_t)pool->base - (uintptr_t)heap->tag;
	heap->view = (struct heap_view){.data = pool->base,
	                                .capacity = pool->capacity,
	                                .map = pool->map,
	                                .slabs = pool->slabs,
	                                .word = heap_map_make(index, 0, 0),
	                                .tag = heap->tag};
}

/* The transaction's memory is wiped in a forked child, which has no lock. */
static hp_heap *handle_new(hp_pool *pool, uint32_t index, uint32_t generation)
{
	void *memory;
	hp_heap *heap = calloc(1, sizeof *heap);
	if (!heap) return NULL;
	if (os_map(NULL, sizeof(hp_tx), PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON, -1, 0, &memory) < 0) {
		free(heap);
		return NULL;
	}
	if (os_advise(memory, sizeof(hp_tx), MADV_WIPEONFORK) < 0) {
		os_unmap(memory, sizeof(hp_tx));
		free(heap);
		return NULL;
	}
	heap->tx = memory;
	handle_fill(heap, pool, index, generation);
	return heap;
}

static void handle_free(hp_heap *heap)
{
	free(heap->tx->pin);
	free(heap->tx->born);
	os_unmap(heap->tx, sizeof(hp_tx));
	if (heap->stack) os_unmap(heap->stack, heap->stack_room * sizeof *heap->stack);
	heap_slices_free(heap);
	heap_types_free(heap);
	free(heap);
}

/* Called inside participant_lock: the bit of this process is up exactly while it has a handle of what is in that place now. A
 * forked child that has not joined has no record yet, and what it remembers is its parent's. */
static void set_open(hp_pool *pool, uint32_t index)
{
	if (pool->joined != participant_fork_generation()) return;
	struct heap_entry *entry = &pool->heaps[index];
	_Atomic uint64_t *word = &entry->opened[pool->record / 64];
	uint64_t bit = UINT64_C(1) << (pool->record % 64);
	uint32_t generation = heap_generation(atomic_load(&entry->word));
	for (hp_heap *heap = pool->open_heaps; heap; heap = heap->next)
		if (heap->index == index && heap->generation == generation) {
			atomic_fetch_or(word, bit);
			return;
		}
	atomic_fetch_and(word, ~bit);
}

/* One of its handles in this process. The bit is up before the state is looked at; see hp_heap_destroy. */
static int enlist(hp_heap *heap)
{
	struct participant_guard guard;
	hp_pool *pool = heap->pool;
	int error = participant_lock(&guard);
	if (error < 0) return error;
	heap->next = pool->open_heaps;
	pool->open_heaps = heap;
	set_open(pool, heap->index);
	participant_unlock(&guard);
	return 0;
}

static void delist(hp_heap *heap)
{
	struct participant_guard guard;
	hp_pool *pool = heap->pool;
	if (!pool || participant_lock(&guard) < 0) return;
	for (hp_heap **link = &pool->open_heaps; *link; link = &(*link)->next)
		if (*link == heap) {
			*link = heap->next;
			break;
		}
	set_open(pool, heap->index);
	participant_unlock(&guard);
}

void heap_close_all(hp_pool *pool)
{
	struct participant_guard guard;
	if (participant_lock(&guard) < 0) return;
	for (hp_heap *heap = pool->open_heaps; heap; heap = heap->next) {
		heap->pool = NULL; /* what is left to do is hp_heap_close */
		heap->tx->heap = NULL;
		heap->tx->view.capacity = 0;
	}
	pool->open_heaps = NULL;
	participant_unlock(&guard);
}

void heap_join(hp_pool *pool)
{
	for (hp_heap *heap = pool->open_heaps; heap; heap = heap->next) set_open(pool, heap->index);
}

bool heap_writes_here(const hp_heap *heap)
{
	struct participant_guard guard;
	bool writes = heap->tx->heap != NULL;
	if (writes || participant_lock(&guard) < 0) return true;
	for (hp_heap *other = heap->pool->open_heaps; other; other = other->next)
		writes |= other->index == heap->index && other->tx->heap;
	participant_unlock(&guard);
	return writes;
}

uint64_t hp_heap_id(const hp_heap *heap)
{
	return (uint64_t)heap->generation << 16 | heap->index;
}

hp_pool *hp_heap_pool(const hp_heap *heap)
{
	return heap->pool;
}

hp_ref hp_heap_root(const hp_heap *heap)
{
	return heap_is_there(heap) ? (hp_ref){atomic_load_explicit(&heap->entry->root, memory_order_acquire)} : HP_NONE;
}

/* ---- what the dead have left half made or half ended ---- */

/* The lock is ours. */
static void end_entry(hp_heap *heap)
{
	heap_wipe(heap);
	atomic_store_explicit(&heap->entry->root, 0, memory_order_relaxed);
	atomic_store_explicit(&heap->entry->phase, heap_phase_make(HEAP_IDLE, 0), memory_order_relaxed);
	/* commit: there is no such heap any more. Release: everything has gone back. */
	atomic_store_explicit(&heap->entry->word, heap_word(HEAP_FREE, heap->generation + 1), memory_order_release);
	heap_unlock(heap);
}

static int all_out(hp_heap *heap, int timeout_ms);

/* MAKING: nobody has it. ENDING: nothing has happened yet, and who has it open cannot be told any more: it lives on. GONE: as
 * its ender would have done. True: something went back. */
static bool reap_one(hp_pool *pool, struct participant *me, uint32_t index)
{
	struct heap_entry *entry = &pool->heaps[index];
	uint32_t orphan = HEAP_ORPHAN;
	enum heap_state state = heap_state(atomic_load_explicit(&entry->word, memory_order_acquire));
	if (state != HEAP_MAKING && state != HEAP_ENDING && state != HEAP_GONE) return false;
	if (!atomic_compare_exchange_strong(&entry->lock, &orphan, me->who)) return false;
	hp_heap heap = {0};
	uint64_t word = atomic_load_explicit(&entry->word, memory_order_acquire);
	handle_fill(&heap, pool, index, heap_generation(word));
	state = heap_state(word);
	if (state == HEAP_MAKING || (state == HEAP_GONE && all_out(&heap, 0) == 0)) {
		atomic_store_explicit(&entry->log_n, 0, memory_order_relaxed); /* nothing of it is of use to anybody */
		end_entry(&heap);
		return true;
	}
	if (state == HEAP_ENDING) atomic_store_explicit(&entry->word, heap.live, memory_order_release);
	heap_lock_back(&heap, true);
	return false;
}

bool heap_reap(hp_pool *pool, struct participant *me)
{
	bool some = false;
	for (uint32_t i = 1; i < heap_top(pool); i++) some |= reap_one(pool, me, i);
	return some;
}

int heap_revive(hp_heap *heap, struct participant *me)
{
	uint64_t word = atomic_load_explicit(&heap->entry->word, memory_order_acquire);
	if (heap_generation(word) != heap->generation || heap_state(word) == HEAP_FREE ||
	    reap_one(heap->pool, me, heap->index))
		return -ESTALE;
	return 0; /* somebody alive is ending it, and may have to give that up */
}

/* ---- making ---- */

/* An entry that is nobody's, its lock taken. */
static int entry_take(hp_pool *pool, struct participant *me, uint32_t *index)
{
	for (uint32_t i = 1; i < HEAPS; i++) {
		struct heap_entry *entry = &pool->heaps[i];
		uint32_t top = atomic_load_explicit(&pool->header->heaps_top, memory_order_relaxed), free = 0;
		if (i >= top) {
			int error = pool_control_populate_at(pool, entry, sizeof *entry);
			if (error < 0) return error;
			while (top <= i && !atomic_compare_exchange_weak(&pool->header->heaps_top, &top, i + 1)) {}
		}
		reap_one(pool, me, i);
		if (heap_state(atomic_load_explicit(&entry->word, memory_order_acquire)) != HEAP_FREE) continue;
		if (!atomic_compare_exchange_strong(&entry->lock, &free, me->who)) {
			/* between taking the lock and MAKING its holder may have died */
			if (free != HEAP_ORPHAN || !atomic_compare_exchange_strong(&entry->lock, &free, me->who)) continue;
		}
		if (heap_state(atomic_load_explicit(&entry->word, memory_order_acquire)) == HEAP_FREE) {
			*index = i;
			return 0;
		}
		atomic_store_explicit(&entry->lock, 0, memory_order_release);
	}
	return -ENOSPC;
}

static void entry_fill(hp_heap *heap, const struct hp_heap_options *o)
{
	struct heap_entry *entry = heap->entry;
	uint64_t pages = heap->pool->capacity / HP_PAGE_SIZE;
	atomic_store_explicit(&entry->root, 0, memory_order_relaxed);
	atomic_store_explicit(&entry->phase, heap_phase_make(HEAP_IDLE, 0), memory_order_relaxed);
	entry->limit = o->limit && o->limit / HP_PAGE_SIZE < pages ? o->limit / HP_PAGE_SIZE : pages;
	entry->gc_percent = o->gc_percent ? o->gc_percent : 100;
	entry->grace_ms = o->grace_ms ? o->grace_ms : 10;
	_Atomic uint64_t *const zero[] = {&entry->log_n,        &entry->run,         &entry->pages,      &entry->allocated,
	                                  &entry->live,         &entry->collections, &entry->recoveries, &entry->pause_ns,
	                                  &entry->pause_max_ns, &entry->quarantined};
	for (size_t i = 0; i < sizeof zero / sizeof *zero; i++) atomic_store_explicit(zero[i], 0, memory_order_relaxed);
	atomic_store_explicit(&entry->types, 0, memory_order_relaxed);
	atomic_store_explicit(&entry->version, atomic_load(&entry->version) & ~UINT64_C(1), memory_order_relaxed);
	for (unsigned i = 0; i < HEAP_RECORDS / 64; i++) atomic_store_explicit(&entry->opened[i], 0, memory_order_relaxed);
}

static struct participant *participant_for(hp_pool *pool, int *error)
{
	struct participant *me = hp_thread_current;
	return participant_is_fast(me, pool) ? me : participant_get(pool, error);
}

int hp_heap_create(hp_pool *pool, const struct hp_heap_options *options, const struct hp_type *type, const void *root,
                   hp_heap **out)
{
	struct hp_heap_options o = {0};
	uint32_t index = 0;
	int error;
	if (!pool || !out || (type && !root)) return -EINVAL;
	*out = NULL;
	if (options) {
		size_t size = options->struct_size ? options->struct_size : sizeof o;
		memcpy(&o, options, size < sizeof o ? size : sizeof o);
	}
	struct participant *me = participant_for(pool, &error);
	if (!me) return error;
	if ((error = entry_take(pool, me, &index)) < 0) return error;
	struct heap_entry *entry = &pool->heaps[index];
	uint32_t generation = heap_generation(atomic_load(&entry->word));
	hp_heap *heap = handle_new(pool, index, generation);
	if (!heap) {
		atomic_store_explicit(&entry->lock, 0, memory_order_release);
		return -ENOMEM;
	}
	entry_fill(heap, &o);
	/* from here on a death leaves something to end */
	atomic_store_explicit(&entry->word, heap_word(HEAP_MAKING, generation), memory_order_release);
	error = enlist(heap);
	if (error == 0) {
		hp_tx *tx = heap_tx_start(heap, me);
		if ((error = hp_heap_reserve(tx, 1, NULL, 0, 0)) == 0 && type)
			error = hp_heap_set_root(tx, heap_value_import(tx, type, root, HP_VALUE_SHARE, true));
		if (error == 0) error = hp_heap_checkpoint(tx);
		if (error == 0) {
			/* commit: there is a heap, with its root */
			atomic_store_explicit(&entry->word, heap_word(HEAP_LIVE, generation), memory_order_release);
			hp_heap_commit(tx);
			*out = heap;
			return 0;
		}
		tx->heap = NULL;
		tx->view.capacity = 0;
		delist(heap);
	}
	atomic_store_explicit(&entry->log_n, 0, memory_order_relaxed);
	end_entry(heap);
	handle_free(heap);
	return error;
}

int hp_heap_open(hp_pool *pool, uint64_t id, hp_heap **out)
{
	uint32_t index = (uint32_t)id & 0xffff, generation = (uint32_t)(id >> 16);
	int error;
	if (!pool || !out) return -EINVAL;
	*out = NULL;
	if (index == 0 || index >= HEAPS || id >> 48) return -EINVAL;
	struct participant *me = participant_for(pool, &error);
	if (!me) return error;
	if (index >= heap_top(pool)) return -ESTALE;
	hp_heap *heap = handle_new(pool, index, generation);
	if (!heap) return -ENOMEM;
	if ((error = enlist(heap)) == 0) {
		uint64_t start = os_now_ns();
		atomic_thread_fence(
			memory_order_seq_cst);    /* the bit before the look: who ends it stores and looks the other way round */
		while (!heap_is_live(heap)) { /* ENDING and GONE may both come to nothing */
			error = heap_revive(heap, me);
			if (error == 0 && os_now_ns() - start > OPEN_PATIENCE_NS) error = -EAGAIN;
			if (error < 0) break;
			os_yield();
		}
		if (error == 0) {
			*out = heap;
			return 0;
		}
		delist(heap);
	}
	handle_free(heap);
	return error;
}

int hp_heap_close(hp_heap *heap)
{
	if (!heap) return 0;
	if (heap->tx->heap) return -EBUSY;
	delist(heap);
	handle_free(heap);
	return 0;
}

/* ---- ending ---- */

static bool opened_by_others(const hp_heap *heap)
{
	const hp_pool *pool = heap->pool;
	for (uint32_t i = 0; i < HEAP_RECORDS / 64; i++) {
		uint64_t bits = atomic_load(&heap->entry->opened[i]);
		if (i == pool->record / 64) bits &= ~(UINT64_C(1) << (pool->record % 64));
		if (bits) return true;
	}
	return false;
}

static bool opened_here_again(const hp_heap *heap)
{
	struct participant_guard guard;
	bool again = false;
	if (participant_lock(&guard) < 0) return true;
	for (hp_heap *other = heap->pool->open_heaps; other; other = other->next)
		again |= other != heap && other->index == heap->index && other->generation == heap->generation;
	participant_unlock(&guard);
	return again;
}

/* Readers that may be inside have left, or -EBUSY. */
static int all_out(hp_heap *heap, int timeout_ms)
{
	hp_pool *pool = heap->pool;
	uint64_t epoch = atomic_fetch_add(&pool->header->epoch, 1) + 1, start = os_now_ns();
	uint32_t blocker;
	if (!pool->fenced && os_membarrier() < 0) return -ENOTSUP;
	for (bool recovered = false; !heap_grace(pool, epoch, &blocker);) {
		uint64_t waited = os_now_ns() - start;
		if (!recovered && waited > 1000000) recovered = recover_dead(pool) >= 0;
		if (timeout_ms >= 0 && waited > (uint64_t)timeout_ms * 1000000 + 1000000) {
			atomic_store_explicit(&heap->entry->blocker, blocker, memory_order_relaxed);
			return -EBUSY;
		}
		os_yield();
	}
	return 0;
}

int hp_heap_destroy(hp_heap *heap, unsigned flags, int timeout_ms)
{
	hp_tx *tx;
	if (!heap || flags & ~HP_HEAP_FORCE) return -EINVAL;
	int error = heap->pool ? hp_heap_begin(heap, timeout_ms, &tx) : -ESTALE;
	if (error == -ESTALE) {
		hp_heap_close(heap);
		return error;
	}
	if (error < 0) return error;
	struct heap_entry *entry = heap->entry;
	hp_heap_checkpoint(tx);
	/* who opens it from here on waits for what becomes of it; see hp_heap_open, which stores and looks the other way round */
	atomic_store_explicit(&entry->word, heap_word(HEAP_ENDING, heap->generation), memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	if (!(flags & HP_HEAP_FORCE)) {
		if (opened_by_others(heap)) recover_dead(heap->pool);
		if (opened_by_others(heap) || opened_here_again(heap) || heap_guarded(heap, true)) error = -EBUSY;
	}
	if (error == 0) {
		/* commit: nobody comes in any more, and a death from here on ends it. Those who are in, by their sections, are
		 * waited for; if they do not go it lives again. */
		atomic_store_explicit(&entry->word, heap_word(HEAP_GONE, heap->generation), memory_order_seq_cst);
		error = all_out(heap, timeout_ms);
	}
	if (error < 0) {
		atomic_store_explicit(&entry->word, heap->live, memory_order_release);
		hp_heap_abort(tx);
		return error;
	}
	tx->heap = NULL;
	tx->view.capacity = 0;
	delist(heap);
	end_entry(heap);
	handle_free(heap);
	return 0;
}

/* ---- numbers ---- */

struct walk {
	hp_heap *heap;
	const struct hp_type *user;
	struct heap_type *type; /* the same; NULL: of all types */
	int (*fn)(hp_heap *heap, hp_ref value, void *arg);
	void *arg;
	struct hp_heap_stat *stat;
};

static int count_slab(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)heap, (void)page, (void)cell;
	struct hp_heap_stat *stat = arg;
	uint64_t values = 0;
	for (uint32_t w = 0, words = heap_words(slab); w < words; w++)
		values += (unsigned)__builtin_popcountll(heap_load_a(&slab->bits[w]));
	stat->values += values;
	stat->live += values * atomic_load_explicit(&slab->size, memory_order_relaxed);
	stat->slabs++;
	stat->held += (uint64_t)atomic_load_explicit(&slab->pages, memory_order_relaxed) * HP_PAGE_SIZE;
	return 0;
}

static int pid_of_slot(const hp_pool *pool, uint32_t slot1)
{
	if (slot1 == 0 || slot1 > pool->slot_count) return 0;
	uint32_t record = slot_record(atomic_load_explicit(&pool->slots[slot1 - 1].word, memory_order_acquire));
	return record < pool->record_count ? (int)atomic_load(&pool->records[record].pid) : 0;
}

int hp_heap_stat(hp_heap *heap, struct hp_heap_stat *stat)
{
	if (!heap || !stat) return -EINVAL;
	memset(stat, 0, sizeof *stat);
	if (!heap->pool || !heap_is_there(heap)) return -ESTALE;
	struct heap_entry *entry = heap->entry;
	heap_slabs(heap, count_slab, stat);
	stat->limit = entry->limit * HP_PAGE_SIZE;
	for (unsigned k = 0; k < HEAP_EXTENTS; k++)
		if (atomic_load(&entry->log[k]))
			stat->log += (k ? (uint64_t)HEAP_LOG_FIRST << (k - 1) : HEAP_LOG_FIRST) * sizeof(struct heap_log);
	stat->types = atomic_load(&entry->types);
	stat->collections = atomic_load(&entry->collections);
	stat->recoveries = atomic_load(&entry->recoveries);
	stat->pause_ns = atomic_load(&entry->pause_ns);
	stat->pause_max_ns = atomic_load(&entry->pause_max_ns);
	stat->pending = heap_is_pending(atomic_load(&entry->phase));
	stat->writer_pid = heap_writer_pid(heap);
	stat->blocked_pid = pid_of_slot(heap->pool, atomic_load(&entry->blocker));
	stat->guards = heap_guarded(heap, false);
	return 0;
}

static int walk_slab(hp_heap *heap, struct heap_slab *slab, uint64_t page, _Atomic uint32_t *cell, void *arg)
{
	(void)cell;
	struct walk *walk = arg;
	if (walk->type && atomic_load_explicit(&slab->type, memory_order_relaxed) != walk->type->id) return 0;
	for (uint32_t w = 0, words = heap_words(slab); w < words; w++)
		for (uint64_t a = heap_load_a(&slab->bits[w]); a; a &= a - 1) {
			hp_ref ref = {heap->tag | heap_place_offset(slab, page, w * 64 + (uint32_t)__builtin_ctzll(a))};
			/* whatever the slab says, it is one of ours that lies in the pool */
			int result = hp_heap_deref_checked(heap, ref, walk->user, NULL) ? walk->fn(heap, ref, walk->arg) : 0;
			if (result) return result;
		}
	return 0;
}

int hp_heap_foreach(hp_heap *heap, const struct hp_type *type, int (*fn)(hp_heap *heap, hp_ref value, void *arg),
                    void *arg)
{
	hp_tx *tx;
	struct walk walk = {.heap = heap, .user = type, .fn = fn, .arg = arg};
	if (!heap || !fn) return -EINVAL;
	int result = hp_heap_begin(heap, -1, &tx);
	if (result < 0) return result;
	if (type) walk.type = heap_bind(heap, NULL, type, &result);
	if (!type || walk.type)
		result = heap_slabs(heap, walk_slab, &walk);
	else if (result == -ENOENT)
		result = 0; /* no value has that type */
	hp_heap_abort(tx);
	return result;
}
