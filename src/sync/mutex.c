/* Mutexes: the state names the thread that holds it.
 *
 * Locking is a compare-and-swap from nobody to oneself, unlocking a plain store, since nobody else changes the word of a
 * holder that lives. Of one that is dead, whoever wants the mutex puts his own name in the place of the dead one's, with the bit
 * that it is inconsistent: no recovery has to come first, and no list of what the dead held is needed, because the name does
 * not come again. The bit goes with the mutex from one dead holder to the next, until one takes it off; who unlocks with the
 * bit breaks the mutex. How often a recursive one is locked beyond the first time is the holder's alone, and set to 0 by who
 * takes it from the dead. Model: tests/models/sync_model.py. */
#include "sync/sync.h"
#include <errno.h>
#include <limits.h>

static struct sync_entry *entry_of(const hp_mutex *mutex)
{
	return mutex->entry;
}

int hp_mutex_open(const hp_container *container, const char *name, unsigned flags, hp_mutex *mutex)
{
	struct sync_entry *entry;
	uint64_t free;
	if (!container || !mutex || flags & ~(HP_MUTEX_RECURSIVE | HP_SYNC_EXISTING | HP_SYNC_NEW)) return -EINVAL;
	int error = sync_open(container, name, SYNC_MUTEX, flags, 0, &entry, &free);
	if (error == 0) *mutex = (hp_mutex){.pool = container->pool, .entry = entry, .free = free};
	return error;
}

struct trying {
	const hp_mutex *mutex;
	uint64_t mine;
};

/* 0 and -EOWNERDEAD: it is ours. -EAGAIN: a living thread has it. */
static int try(void *arg)
{
	const struct trying *trying = arg;
	hp_pool *pool = trying->mutex->pool;
	struct sync_entry *entry = entry_of(trying->mutex);
	uint64_t state = atomic_load_explicit(&entry->state, memory_order_acquire);
	for (;;) {
		if (!sync_is(state, trying->mutex->free)) return -ESTALE;
		uint64_t holder = state & SYNC_HOLDER, want = trying->mine;
		int result = 0;
		if (holder == (trying->mine & SYNC_HOLDER)) {
			if (!(atomic_load_explicit(&entry->flags, memory_order_relaxed) & HP_MUTEX_RECURSIVE)) return -EDEADLK;
			uint32_t depth = atomic_load_explicit(&entry->depth, memory_order_relaxed);
			if (depth == UINT32_MAX) return -EOVERFLOW;
			atomic_store_explicit(&entry->depth, depth + 1, memory_order_relaxed);
			return 0;
		}
		if (holder == SYNC_BROKEN) return -ENOTRECOVERABLE;
		if (holder) {
			if (sync_thread_lives(pool, holder)) return -EAGAIN;
			want |= SYNC_INCONSISTENT;
			result = -EOWNERDEAD;
		}
		/* commit: it is ours. Acquire: we see what the one before us did, a dead one too. */
		if (!atomic_compare_exchange_strong_explicit(&entry->state, &state, want, memory_order_seq_cst,
		                                             memory_order_acquire))
			continue;
		if (result) atomic_store_explicit(&entry->depth, 0, memory_order_relaxed);
		return result;
	}
}

static inline int lock(const hp_mutex *mutex, uint64_t ns, bool waits)
{
	int error;
	struct participant *me = sync_participant(mutex->pool, &error);
	if (unlikely(!me)) return error;
	uint64_t state = mutex->free;
	struct trying trying = {.mutex = mutex, .mine = mutex->free | sync_thread(me)};
	/* commit: it is ours. Acquire: as above. */
	if (likely(atomic_compare_exchange_strong_explicit(&entry_of(mutex)->state, &state, trying.mine,
	                                                   memory_order_acquire, memory_order_relaxed)))
		return 0;
	if (waits) return sync_wait(entry_of(mutex), !mutex->pool->fenced, try, &trying, ns);
	error = try(&trying);
	return error == -EAGAIN ? -EBUSY : error;
}

int hp_mutex_lock(const hp_mutex *mutex)
{
	return lock(mutex, HP_FOREVER, true);
}

int hp_mutex_lock_timed(const hp_mutex *mutex, uint64_t ns)
{
	return lock(mutex, ns, true);
}

int hp_mutex_trylock(const hp_mutex *mutex)
{
	return lock(mutex, 0, false);
}

/* Held by the thread, and how: the state; or 0 and *error. */
static inline uint64_t held(const hp_mutex *mutex, int *error)
{
	struct participant *me = sync_participant(mutex->pool, error);
	if (unlikely(!me)) return 0;
	uint64_t state = atomic_load_explicit(&entry_of(mutex)->state, memory_order_relaxed);
	if (likely((state & ~SYNC_INCONSISTENT) == (mutex->free | sync_thread(me)))) return state;
	*error = sync_is(state, mutex->free) ? -EPERM : -ESTALE;
	return 0;
}

/* By its holder. */
static inline void let_go(const hp_mutex *mutex, uint64_t state)
{
	struct sync_entry *entry = entry_of(mutex);
	bool breaks = unlikely((state & SYNC_INCONSISTENT) != 0);
	uint64_t to = mutex->free | (breaks ? SYNC_BROKEN : 0);
	/* commit: it is nobody's. Release: the next one sees what we did. */
	if (unlikely(mutex->pool->fenced))
		atomic_exchange(&entry->state, to);
	else
		atomic_store_explicit(&entry->state, to, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst); /* the waiters' barrier orders the rest */
	if (unlikely(atomic_load_explicit(&entry->futex, memory_order_relaxed))) sync_wake(entry, breaks ? INT_MAX : 1);
}

int hp_mutex_unlock(const hp_mutex *mutex)
{
	int error;
	uint64_t state = held(mutex, &error);
	if (unlikely(!state)) return error;
	uint32_t depth = atomic_load_explicit(&entry_of(mutex)->depth, memory_order_relaxed);
	if (unlikely(depth)) {
		atomic_store_explicit(&entry_of(mutex)->depth, depth - 1, memory_order_relaxed);
		return 0;
	}
	let_go(mutex, state);
	return 0;
}

int hp_mutex_consistent(const hp_mutex *mutex)
{
	int error;
	uint64_t state = held(mutex, &error);
	if (!state) return error;
	if (!(state & SYNC_INCONSISTENT)) return -EINVAL;
	/* commit: whole again. Release: if we die the next one sees all of it. */
	atomic_store_explicit(&entry_of(mutex)->state, state & ~SYNC_INCONSISTENT, memory_order_release);
	return 0;
}

int sync_mutex_drop(const hp_mutex *mutex, uint32_t *depth)
{
	int error;
	uint64_t state = held(mutex, &error);
	if (!state) return error;
	*depth = atomic_load_explicit(&entry_of(mutex)->depth, memory_order_relaxed);
	atomic_store_explicit(&entry_of(mutex)->depth, 0, memory_order_relaxed);
	let_go(mutex, state);
	return 0;
}

int sync_mutex_regain(const hp_mutex *mutex, uint32_t depth)
{
	int error = hp_mutex_lock(mutex);
	if (error == 0 || error == -EOWNERDEAD) atomic_store_explicit(&entry_of(mutex)->depth, depth, memory_order_relaxed);
	return error;
}
