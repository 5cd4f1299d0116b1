/* Waiting for what a state says, and who lives.
 *
 * As for the lock of a heap (heap/lock.c): who waits puts the entry's flag up, has all processors pass a barrier, looks once
 * more, and sleeps on the flag. Who lets something go does so first, sees the flag, takes it down and wakes one, who puts it up
 * again before he sleeps once more, and on his way out if others wait. So an unlock is a plain store; and a flag that is up with nobody asleep costs a
 * system call, no more. Sleep is in slices of 16 ms: their ends are when the death of a holder is noticed, and
 * when a wake is made good that went to a waiter who died. Model: tests/models/sync_model.py. */
#include "sync/sync.h"
#include "pool/record.h"
#include "pool/recover.h"
#include "os/os.h"
#include <errno.h>

#define SLICE_NS \
	UINT64_C(16000000) /* longer than the kernel's tick: a timer that is the next one costs more than the wake */
#define SPINS 50

struct participant *sync_participant_slow(hp_pool *pool, int *error)
{
	struct participant *me = pool->observer ? NULL : participant_first(pool);
	if (!me && !(me = participant_get(pool, error))) return NULL;
	/* the next call finds it at once; not while this is a signal handler and the thread is inside an operation */
	if (!me->busy && !atomic_load_explicit(&me->slot->in_op, memory_order_relaxed)) hp_thread_current = me;
	return me;
}

bool sync_thread_lives(hp_pool *pool, uint64_t low)
{
	uint32_t slot = sync_name_index(low);
	if (slot >= pool->slot_count) return false;
	uint64_t word = atomic_load_explicit(&pool->slots[slot].word, memory_order_acquire);
	return slot_generation(word) == sync_name_generation(low) && slot_lives(pool, &pool->slots[slot], word);
}

bool sync_process_lives(hp_pool *pool, uint64_t low)
{
	uint32_t record = sync_name_index(low);
	if (record_is_over(pool, record, sync_name_generation(low))) return false;
	return record_alive(pool, record) != 0;
}

uint64_t sync_end(uint64_t ns)
{
	uint64_t now = ns == HP_FOREVER ? 0 : os_now_ns();
	return ns < UINT64_MAX - now ? now + ns : UINT64_MAX;
}

uint64_t sync_slice(uint64_t now, uint64_t end)
{
	return end - now < SLICE_NS ? end - now : SLICE_NS;
}

void sync_wake(struct sync_entry *entry, int count)
{
	atomic_store(&entry->futex, 0);
	os_futex_wake(&entry->futex, count);
}

int sync_wait(struct sync_entry *entry, bool barrier, sync_try_fn *try, void *arg, uint64_t ns)
{
	int error = -EAGAIN;
	uint64_t end = sync_end(ns);
	for (unsigned i = 0; i < SPINS && error == -EAGAIN; i++) {
		error = try(arg);
#ifdef __x86_64__
		__builtin_ia32_pause();
#endif
	}
	if (error != -EAGAIN) return error;
	atomic_fetch_add(&entry->waiters, 1);
	for (;;) {
		atomic_store(&entry->futex, 1);
		if (!barrier || os_membarrier() < 0) atomic_thread_fence(memory_order_seq_cst);
		if ((error = try(arg)) != -EAGAIN) break;
		uint64_t now = os_now_ns();
		if (now >= end) {
			error = -ETIMEDOUT;
			break;
		}
		os_futex_wait(&entry->futex, 1, sync_slice(now, end));
		/* woken: there is something, so the look comes before the flag */
		if ((error = try(arg)) != -EAGAIN) break;
	}
	/* others may be asleep, and the flag down since somebody woke us */
	if (atomic_fetch_sub(&entry->waiters, 1) > 1) atomic_store(&entry->futex, 1);
	return error;
}
