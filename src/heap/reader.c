/* Readers: sections and guards.
 *
 * A section is one word of the thread's slot, {epoch, depth}: two plain stores. Who condemns moves the pool's epoch and has
 * all processors pass a barrier; a section that began before shows an older epoch until it ends, one that begins later finds
 * only what is not condemned. A guard is one store to a cell of the slot. While a heap is pending no guard disappears: taken
 * down it stays as RELEASED, until the sweep has read all cells, so that a value cannot slip from cell to cell, or from thread
 * to thread, behind the sweep's back. Models: tests/models/heap_reader_model.py, heap_several_model.py. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "pool/recover.h"
#include "os/os.h"
#include <errno.h>

#define DEPTH_MASK UINT64_C(0xffff)

/* Where the collector has no barrier that makes all processors pass one. */
static __attribute__((noinline)) void fence(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}

/* The thread's slot for this pool, always the same one: not that of a handler that met its thread inside an operation. */
static __attribute__((noinline)) struct pool_slot *slot_slow(hp_pool *pool, int *error)
{
	if (participant_switch(pool)) return hp_thread_current->slot;
	struct participant *me = participant_first(pool);
	if (!me && !(me = participant_get(pool, error))) return NULL;
	return me->slot;
}

struct pool_slot *heap_slot(hp_pool *pool, int *error)
{
	struct participant *me = hp_thread_current;
	return participant_is_fast(me, pool) ? me->slot : slot_slow(pool, error);
}

static __attribute__((noinline)) int enter_slow(hp_pool *pool)
{
	int error = -EINVAL;
	struct pool_slot *slot = pool ? slot_slow(pool, &error) : NULL;
	if (!slot) return error;
	uint64_t section = atomic_load_explicit(&slot->section, memory_order_relaxed);
	if ((section & DEPTH_MASK) == DEPTH_MASK) return -EOVERFLOW;
	if (!section) section = atomic_load_explicit(&pool->header->epoch, memory_order_acquire) << 16;
	atomic_store_explicit(&slot->section, section + 1, memory_order_relaxed);
	if (unlikely(pool->fenced)) fence();
	return 0;
}

int hp_heap_read_enter(hp_pool *pool)
{
	struct participant *me = hp_thread_current;
	if (unlikely(atomic_load_explicit(&me->fast, memory_order_relaxed) != pool)) return enter_slow(pool);
	struct pool_slot *slot = me->slot;
	uint64_t section = atomic_load_explicit(&slot->section, memory_order_relaxed);
	if (unlikely(section)) return enter_slow(pool);
	uint64_t epoch = atomic_load_explicit(me->epoch, memory_order_acquire);
	atomic_store_explicit(&slot->section, epoch << 16 | 1, memory_order_relaxed);
	/* what is read in the section is read after this store: for the processor the collector's barrier sees to it */
	atomic_signal_fence(memory_order_seq_cst);
	return 0;
}

static __attribute__((noinline)) void exit_slow(hp_pool *pool)
{
	int error;
	struct pool_slot *slot = pool ? slot_slow(pool, &error) : NULL;
	uint64_t section = slot ? atomic_load_explicit(&slot->section, memory_order_relaxed) : 0;
	if (!section) return;
	section = (section & DEPTH_MASK) == 1 ? 0 : section - 1;
	atomic_store_explicit(&slot->section, section, memory_order_release);
}

void hp_heap_read_exit(hp_pool *pool)
{
	struct participant *me = hp_thread_current;
	if (unlikely(atomic_load_explicit(&me->fast, memory_order_relaxed) != pool)) {
		exit_slow(pool);
		return;
	}
	struct pool_slot *slot = me->slot;
	if (unlikely((atomic_load_explicit(&slot->section, memory_order_relaxed) & DEPTH_MASK) != 1)) {
		exit_slow(pool);
		return;
	}
	/* release: what was read in the section was read before */
	atomic_store_explicit(&slot->section, 0, memory_order_release);
}

bool heap_grace(hp_pool *pool, uint64_t epoch, uint32_t *blocker)
{
	uint32_t top = pool_slots_top(pool);
	*blocker = 0;
	for (uint32_t i = 0; i < top; i++) {
		/* acquire: what the section read was read before it ended */
		uint64_t section = atomic_load_explicit(&pool->slots[i].section, memory_order_acquire);
		if (!section || section >> 16 >= epoch) continue;
		*blocker = i + 1;
		return false;
	}
	return true;
}

/* ---- checked reading ---- */

/* The program calls the type by another structure than last time, or it is a value for which there is no room. */
static __attribute__((noinline)) void *checked_slow(hp_heap *heap, hp_ref ref, const struct hp_type *user,
                                                    size_t *bytes)
{
	int error;
	uint64_t page;
	uint32_t i;
	struct heap_type *type = heap_bound(heap, user);
	if (!type) type = heap_bind(heap, NULL, user, &error);
	struct heap_slab *slab = heap_find(heap, ref.word, &page, &i);
	if (!slab || !type || type->id != atomic_load_explicit(&slab->type, memory_order_relaxed)) return NULL;
	uint64_t room = heap_bytes_from(&heap->view, slab, heap_ref_offset(ref.word));
	if (room < type->size) return NULL;
	if (bytes) *bytes = room;
	return heap->view.data + heap_ref_offset(ref.word);
}

void *hp_heap_deref_checked(const hp_heap *heap, hp_ref ref, const struct hp_type *user, size_t *bytes)
{
	uint64_t page;
	uint32_t i;
	struct heap_slab *slab;
	if (unlikely(!heap_find_in(&heap->view, ref.word, &page, &slab, &i))) return NULL;
	uint32_t id = atomic_load_explicit(&slab->type, memory_order_relaxed) % HEAP_TYPES;
	if (user && (unlikely(atomic_load_explicit(&heap->user[id], memory_order_relaxed) != user) ||
	             unlikely(user->size > heap->view.capacity - (ref.word - heap->view.tag))))
		return checked_slow((hp_heap *)heap, ref, user, bytes);
	if (bytes) *bytes = heap_bytes_from(&heap->view, slab, heap_ref_offset(ref.word));
	return hp_heap_deref(heap, ref);
}

int hp_heap_read_begin_version(hp_heap *heap, uint64_t *version)
{
	struct heap_entry *entry = heap->entry;
	*version = atomic_load_explicit(&entry->version, memory_order_acquire);
	if (likely(!(*version & 1))) return 0;
	/* a dead writer's transaction is undone by any writer; one who comes only to read may as well be it */
	hp_tx *tx;
	if (heap_writer_lives(heap) || hp_heap_begin(heap, 0, &tx) < 0) return -EAGAIN;
	hp_heap_abort(tx);
	*version = atomic_load_explicit(&entry->version, memory_order_acquire);
	return *version & 1 ? -EAGAIN : 0;
}

bool hp_heap_read_valid(const hp_heap *heap, uint64_t version)
{
	atomic_thread_fence(memory_order_acquire); /* what was read was read before */
	return atomic_load_explicit(&heap->entry->version, memory_order_relaxed) == version;
}

/* ---- guards ---- */

static _Atomic uint64_t *cells_of(const hp_pool *pool, const struct pool_slot *slot)
{
	return pool->guards + (uint64_t)(slot - pool->slots) * HEAP_GUARDS;
}

static uint64_t phase_of(const hp_pool *pool, uint64_t cell)
{
	return atomic_load_explicit(&pool->heaps[heap_tag_index(cell >> HEAP_OFFSET_BITS)].phase, memory_order_acquire);
}

/* The collector has reached it, so it is not condemned: the next sweep need not find it in a cell. */
static bool is_marked(const hp_heap *heap, uint64_t word)
{
	uint64_t page, cycle = atomic_load_explicit(&heap->entry->cycle, memory_order_acquire);
	uint32_t i;
	const struct heap_slab *slab = heap_find(heap, word, &page, &i);
	/* acquire: what stood in M before has gone */
	return slab && atomic_load_explicit(&slab->mark_stamp, memory_order_acquire) == cycle &&
	       atomic_load_explicit(&slab->bits[i >> 6].m, memory_order_relaxed) >> (i & 63) & 1;
}

/* May the cell be used for that reference? Called inside a section. */
static bool cell_is_free(const hp_heap *heap, uint64_t cell, uint64_t word)
{
	if (cell == 0) return true;
	if (!(cell & HEAP_RELEASED)) return false;
	cell &= ~HEAP_RELEASED;
	return cell == word || !heap_is_pending(phase_of(heap->pool, cell)) || is_marked(heap, cell);
}

static int guard_one(hp_heap *heap, struct pool_slot *slot, uint64_t word, uint8_t *which)
{
	hp_pool *pool = heap->pool;
	_Atomic uint64_t *cells = cells_of(pool, slot);
	uint32_t top = atomic_load_explicit(&slot->guards, memory_order_relaxed);
	unsigned i = 0;
	while (i < top && i < HEAP_GUARDS &&
	       !cell_is_free(heap, atomic_load_explicit(&cells[i], memory_order_relaxed), word))
		i++;
	if (i == HEAP_GUARDS) return -ENOSPC;
	if (i >= top) {
		int error = pool_control_populate_at(pool, cells, HEAP_GUARDS * sizeof *cells);
		if (error < 0) return error;
		/* before the cell: who sweeps reads so many */
		atomic_store_explicit(&slot->guards, i + 1, memory_order_release);
	}
	/* commit: guarded. The section that we are in keeps the value until this is seen. */
	atomic_store_explicit(&cells[i], word, memory_order_release);
	if (unlikely(pool->fenced)) fence();
	*which = (uint8_t)i;
	return 0;
}

/* Only what is condemned stays, or a reader that does not leave its section would soon leave the others without cells. */
static void unguard_one(const hp_heap *heap, _Atomic uint64_t *cell)
{
	uint64_t word = atomic_load_explicit(cell, memory_order_relaxed);
	if (!word || word & HEAP_RELEASED) return;
	bool stays = heap_is_pending(phase_of(heap->pool, word)) && !is_marked(heap, word);
	atomic_store_explicit(cell, stays ? word | HEAP_RELEASED : 0, memory_order_release);
}

static int check_guarded(const hp_heap *heap, hp_ref value)
{
	if (!(value.word & HEAP_REFERENCE) || value.word & 15) return -EINVAL;
	return value.word >> HEAP_OFFSET_BITS == heap->tag >> HEAP_OFFSET_BITS ? 0 : -EXDEV;
}

int hp_heap_guard(hp_heap *heap, const hp_ref *value, unsigned count, hp_guard *guard)
{
	if (!heap || !guard || (count && !value)) return -EINVAL;
	*guard = (hp_guard){.heap = heap};
	if (count > HP_GUARDS) return -ENOSPC;
	if (!heap_is_there(heap)) return -ESTALE;
	int error = hp_heap_read_enter(heap->pool); /* so that no sweep begins between the look at a phase and the store */
	if (error < 0) return error;
	struct pool_slot *slot = heap_slot(heap->pool, &error);
	guard->who = heap_who(heap->pool, slot);
	for (unsigned k = 0; k < count && error == 0; k++) {
		if (!value[k].word) continue;
		if ((error = check_guarded(heap, value[k])) == 0 &&
		    (error = guard_one(heap, slot, value[k].word, &guard->cell[guard->count])) == 0)
			guard->count++;
	}
	if (error < 0) hp_heap_unguard(guard);
	hp_heap_read_exit(heap->pool);
	return error;
}

int hp_heap_unguard(hp_guard *guard)
{
	int error = 0;
	if (!guard || !guard->heap) return 0;
	hp_pool *pool = guard->heap->pool;
	if ((error = hp_heap_read_enter(pool)) < 0) return error;
	struct pool_slot *slot = heap_slot(pool, &error);
	if (guard->who != heap_who(pool, slot)) {
		hp_heap_read_exit(pool);
		return -EPERM;
	}
	_Atomic uint64_t *cells = cells_of(pool, slot);
	for (unsigned k = 0; k < guard->count && k < HP_GUARDS; k++)
		if (guard->cell[k] < HEAP_GUARDS) unguard_one(guard->heap, &cells[guard->cell[k]]);
	guard->count = 0;
	guard->heap = NULL;
	hp_heap_read_exit(pool);
	return 0;
}

/* Every cell there is, of slots in use or not. */
static void each_cell(hp_heap *heap, void (*fn)(hp_heap *heap, _Atomic uint64_t *cell, uint32_t slot, void *arg),
                      void *arg)
{
	hp_pool *pool = heap->pool;
	uint32_t top = pool_slots_top(pool);
	for (uint32_t s = 0; s < top; s++) {
		uint32_t used = atomic_load_explicit(&pool->slots[s].guards, memory_order_acquire);
		_Atomic uint64_t *cells = cells_of(pool, &pool->slots[s]);
		for (uint32_t i = 0; i < used && i < HEAP_GUARDS; i++) {
			uint64_t word = atomic_load_explicit(&cells[i], memory_order_acquire);
			if (word >> HEAP_OFFSET_BITS == heap->tag >> HEAP_OFFSET_BITS) fn(heap, &cells[i], s, arg);
		}
	}
}

static void mark_cell(hp_heap *heap, _Atomic uint64_t *cell, uint32_t slot, void *arg)
{
	(void)slot, (void)arg;
	uint64_t word = atomic_load_explicit(cell, memory_order_acquire);
	if (word) heap_mark(heap, word & ~HEAP_RELEASED);
}

void heap_mark_guards(hp_heap *heap)
{
	each_cell(heap, mark_cell, NULL);
}

static void empty_cell(hp_heap *heap, _Atomic uint64_t *cell, uint32_t slot, void *arg)
{
	(void)heap, (void)slot, (void)arg;
	uint64_t word = atomic_load_explicit(cell, memory_order_relaxed);
	/* its owner may be using it anew */
	if (word & HEAP_RELEASED) atomic_compare_exchange_strong(cell, &word, 0);
}

void heap_empty_released(hp_heap *heap)
{
	each_cell(heap, empty_cell, NULL);
}

struct guarded {
	uint64_t count;
	bool others;
};

static void count_cell(hp_heap *heap, _Atomic uint64_t *cell, uint32_t slot, void *arg)
{
	struct guarded *guarded = arg;
	if (atomic_load_explicit(cell, memory_order_relaxed) & HEAP_RELEASED) return;
	uint64_t word = atomic_load_explicit(&heap->pool->slots[slot].word, memory_order_acquire);
	bool ours = slot_record(word) == heap->pool->record;
	if (!guarded->others || !ours) guarded->count++;
}

uint64_t heap_guarded(const hp_heap *heap, bool others)
{
	struct guarded guarded = {.others = others};
	each_cell((hp_heap *)heap, count_cell, &guarded);
	return guarded.count;
}

/* A slot whose thread is gone: its section is over, and what it guarded has been given up by it as by hp_heap_unguard, so that
 * who was about to take a value over still finds it. */
void heap_recover_cells(hp_pool *pool, struct pool_slot *slot)
{
	uint32_t used = atomic_load_explicit(&slot->guards, memory_order_acquire);
	_Atomic uint64_t *cells = cells_of(pool, slot);
	for (uint32_t i = 0; i < used && i < HEAP_GUARDS; i++) {
		uint64_t word = atomic_load_explicit(&cells[i], memory_order_relaxed);
		if (word && !(word & HEAP_RELEASED)) atomic_compare_exchange_strong(&cells[i], &word, word | HEAP_RELEASED);
	}
	atomic_store_explicit(&slot->waiting, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->section, 0, memory_order_release); /* after the cells */
}

int hp_heap_with_value(hp_heap *heap, int (*find)(hp_heap *heap, hp_ref out[], unsigned max, void *arg),
                       int (*use)(hp_heap *heap, const hp_ref value[], unsigned count, void *arg), void *arg,
                       unsigned flags)
{
	hp_ref value[HP_GUARDS];
	hp_guard guard;
	hp_tx *tx = NULL;
	if (!heap || !find || !use || flags & ~HP_HEAP_LOCKED) return -EINVAL;
	int error = flags & HP_HEAP_LOCKED ? hp_heap_begin(heap, -1, &tx) : hp_heap_read_enter(heap->pool);
	if (error < 0) return error;
	int found = heap_is_there(heap) ? find(heap, value, HP_GUARDS, arg) : -ESTALE;
	if (found > (int)HP_GUARDS) found = -ENOSPC;
	error = found < 0 ? found : hp_heap_guard(heap, value, (unsigned)found, &guard);
	if (tx)
		hp_heap_abort(tx);
	else
		hp_heap_read_exit(heap->pool);
	if (error < 0) return error;
	int result = use(heap, value, (unsigned)found, arg);
	hp_heap_unguard(&guard);
	return result;
}
