/* Who writes: the heap's lock word, waiting for it, and rings of writers that wait for each other.
 *
 * The word is 0, {slot + 1, generation} of the holder, or HEAP_ORPHAN. Recovery of a slot turns its word into HEAP_ORPHAN and
 * does nothing else; whoever takes the lock undoes what there is to undo (tx.c). Letting go is a plain store: a waiter has all
 * processors pass a barrier between saying that it waits and looking once more, so that the holder either sees that it waits
 * or has let go before. Sleep is in slices, at whose end the waiter sees whether the holder lives. Models:
 * tests/models/heap_lock_model.py, heap_tx_model.py. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "pool/recover.h"
#include "os/os.h"
#include <errno.h>

#define SLICE_NS UINT64_C(1000000)
#define SPINS 100
#define RING 64 /* longest ring of writers that is looked for */

#define WAITING_COUNT_BITS 48

static uint64_t waiting_make(uint32_t index, uint64_t count)
{
	return (uint64_t)index << WAITING_COUNT_BITS | (count & ((UINT64_C(1) << WAITING_COUNT_BITS) - 1));
}

static struct pool_slot *holder_slot(const hp_pool *pool, uint32_t lock)
{
	uint32_t slot = (lock >> 16) - 1;
	return lock && lock != HEAP_ORPHAN && slot < pool->slot_count ? &pool->slots[slot] : NULL;
}

/* Does whoever holds it live? Otherwise the word has changed, mostly to HEAP_ORPHAN. */
static bool holder_lives(hp_heap *heap, uint32_t lock)
{
	hp_pool *pool = heap->pool;
	struct pool_slot *slot = holder_slot(pool, lock);
	if (slot) {
		uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
		if ((slot_generation(word) & 0xffff) == (lock & 0xffff) && slot_lives(pool, slot, word)) return true;
	}
	recover_dead(pool);
	/* the slot has a new user, or none, and the word still names the old one: its recovery has passed */
	if (atomic_load_explicit(&heap->entry->lock, memory_order_acquire) != lock) return false;
	uint64_t word = slot ? atomic_load_explicit(&slot->word, memory_order_acquire) : 0;
	if (slot && slot_state(word) != SLOT_FREE && (slot_generation(word) & 0xffff) == (lock & 0xffff)) return true;
	atomic_compare_exchange_strong(&heap->entry->lock, &lock, HEAP_ORPHAN);
	return false;
}

/* Does the ring of who waits for whom come back to us, and are we the one who gives up: the highest slot of it? */
static bool must_give_up(hp_heap *heap, uint32_t me)
{
	hp_pool *pool = heap->pool;
	struct {
		struct heap_entry *entry;
		struct pool_slot *slot;
		uint32_t lock;
		uint64_t waiting;
	} ring[RING];
	unsigned n = 0;
	uint32_t highest = me >> 16;
	struct heap_entry *entry = heap->entry;
	for (;; n++) {
		if (n == RING) return false;
		uint32_t lock = atomic_load(&entry->lock);
		struct pool_slot *slot = holder_slot(pool, lock);
		ring[n].entry = entry;
		ring[n].lock = lock;
		ring[n].slot = slot;
		if (lock == me) break;
		if (!slot) return false;
		ring[n].waiting = atomic_load(&slot->waiting);
		if (lock >> 16 > highest) highest = lock >> 16;
		uint32_t index = (uint32_t)(ring[n].waiting >> WAITING_COUNT_BITS);
		if (index == 0 || index >= HEAPS) return false;
		entry = &pool->heaps[index];
	}
	if (highest != me >> 16) return false;
	for (unsigned i = n + 1; i-- > 0;) {
		if (atomic_load(&ring[i].entry->lock) != ring[i].lock) return false;
		if (i < n && atomic_load(&ring[i].slot->waiting) != ring[i].waiting) return false;
	}
	return true;
}

static bool take(struct heap_entry *entry, uint32_t me, bool *undo)
{
	uint32_t lock = atomic_load_explicit(&entry->lock, memory_order_relaxed);
	if (lock != 0 && lock != HEAP_ORPHAN) return false;
	*undo = lock == HEAP_ORPHAN;
	/* commit: we are the writer. Acquire: we see what the one before us did. */
	return atomic_compare_exchange_strong_explicit(&entry->lock, &lock, me, memory_order_acq_rel, memory_order_relaxed);
}

static int wait_for_it(hp_heap *heap, struct participant *me, int timeout_ms, bool *undo)
{
	struct heap_entry *entry = heap->entry;
	hp_pool *pool = heap->pool;
	static _Atomic uint64_t waits;
	uint64_t start = os_now_ns(), end = timeout_ms < 0 ? UINT64_MAX : start + (uint64_t)timeout_ms * 1000000;
	int error = 0;
	for (unsigned i = 0; i < SPINS; i++) {
		if (take(entry, me->who, undo)) return 0;
#ifdef __x86_64__
		__builtin_ia32_pause();
#endif
	}
	atomic_store(&me->slot->waiting, waiting_make(heap->index, atomic_fetch_add(&waits, 1) + 1));
	for (;;) {
		atomic_store(&entry->waiters, 1); /* whoever lets go takes it down, and wakes one of us */
		if (pool->fenced || os_membarrier() < 0) atomic_thread_fence(memory_order_seq_cst);
		if (take(entry, me->who, undo)) break;
		uint32_t lock = atomic_load_explicit(&entry->lock, memory_order_acquire);
		if (lock == 0 || lock == HEAP_ORPHAN) continue;
		if (!holder_lives(heap, lock)) continue;
		if (must_give_up(heap, me->who)) {
			error = -EDEADLK;
			break;
		}
		uint64_t now = os_now_ns();
		if (now >= end) {
			error = -ETIMEDOUT;
			break;
		}
		/* on the flag: it is down where somebody has let go since, whoever has the lock by now */
		os_futex_wait(&entry->waiters, 1, end - now < SLICE_NS ? end - now : SLICE_NS);
	}
	atomic_store(&me->slot->waiting, 0);
	atomic_store(&entry->waiters, 1); /* there may be others */
	return error;
}

int heap_lock(hp_heap *heap, struct participant *me, int timeout_ms, bool *undo)
{
	uint32_t lock = 0;
	*undo = false;
	if (likely(atomic_compare_exchange_strong_explicit(&heap->entry->lock, &lock, me->who, memory_order_acq_rel,
	                                                   memory_order_acquire)))
		return 0;
	if (lock == me->who) {
		/* in the child of a fork in a transaction, private pool: the slot came along, the transaction was wiped. It is undone
		 * as a dead one's. */
		*undo = !heap_writes_here(heap);
		return *undo ? 0 : -EDEADLK;
	}
	if (take(heap->entry, me->who, undo)) return 0;
	if (lock != HEAP_ORPHAN && lock != 0 && !holder_lives(heap, lock) && take(heap->entry, me->who, undo)) return 0;
	if (timeout_ms == 0) return -ETIMEDOUT;
	return wait_for_it(heap, me, timeout_ms, undo);
}

void heap_unlock_fenced(struct heap_entry *entry)
{
	atomic_exchange(&entry->lock, 0);
}

void heap_wake(struct heap_entry *entry)
{
	atomic_store_explicit(&entry->waiters, 0, memory_order_relaxed);
	os_futex_wake(&entry->waiters, 1);
}

void heap_lock_back(hp_heap *heap, bool orphan)
{
	if (orphan)
		atomic_store(&heap->entry->lock, HEAP_ORPHAN);
	else
		heap_unlock(heap);
}

bool heap_writer_lives(hp_heap *heap)
{
	uint32_t lock = atomic_load_explicit(&heap->entry->lock, memory_order_acquire);
	return lock != HEAP_ORPHAN && lock != 0 && holder_lives(heap, lock);
}

int heap_writer_pid(const hp_heap *heap)
{
	hp_pool *pool = heap->pool;
	struct pool_slot *slot = holder_slot(pool, atomic_load_explicit(&heap->entry->lock, memory_order_acquire));
	if (!slot) return 0;
	uint32_t record = slot_record(atomic_load_explicit(&slot->word, memory_order_acquire));
	return record < pool->record_count ? (int)atomic_load(&pool->records[record].pid) : 0;
}
