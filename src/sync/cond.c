/* Conditions: a word that counts signals.
 *
 * A waiter reads it while it has the mutex, unlocks, and sleeps as long as the word is the same. A signal counts up first, then
 * wakes one. Nothing is handed over: whoever waited when the signal came sees that the count has changed, when it is woken, or
 * at the end of a slice. So a waiter that dies with the wake takes nothing along, and neither does one who signals and dies
 * before it has woken anybody; what it costs is that the others may return for nothing. How many wait is kept only to save the
 * system call; the dead stay in it, which costs a call that wakes nobody. Model: tests/models/sync_model.py. */
#include "sync/sync.h"
#include "os/os.h"
#include <errno.h>
#include <limits.h>

static struct sync_entry *entry_of(const hp_cond *cond)
{
	return cond->entry;
}

static bool is_there(const hp_cond *cond)
{
	return atomic_load_explicit(&entry_of(cond)->state, memory_order_acquire) == cond->free;
}

int hp_cond_open(const hp_container *container, const char *name, unsigned flags, hp_cond *cond)
{
	struct sync_entry *entry;
	uint64_t free;
	if (!container || !cond || flags & ~(HP_SYNC_EXISTING | HP_SYNC_NEW)) return -EINVAL;
	int error = sync_open(container, name, SYNC_COND, flags, 0, &entry, &free);
	if (error == 0) *cond = (hp_cond){.pool = container->pool, .entry = entry, .free = free};
	return error;
}

int hp_cond_wait_timed(const hp_cond *cond, const hp_mutex *mutex, uint64_t ns)
{
	struct sync_entry *entry = entry_of(cond);
	uint64_t end = sync_end(ns);
	if (cond->pool->observer) return -EROFS;
	uint32_t depth, seen = atomic_load_explicit(&entry->futex, memory_order_acquire);
	/* before the mutex is free: who then changes what is waited for counts up after we have looked, and sees that we wait */
	atomic_fetch_add(&entry->waiters, 1);
	int error = is_there(cond) ? sync_mutex_drop(mutex, &depth) : -ESTALE;
	if (error < 0) {
		atomic_fetch_sub(&entry->waiters, 1);
		return error;
	}
	while (error == 0 && atomic_load_explicit(&entry->futex, memory_order_acquire) == seen) {
		uint64_t now = os_now_ns();
		if (!is_there(cond))
			error = -ECANCELED;
		else if (now >= end)
			error = -ETIMEDOUT;
		else
			os_futex_wait(&entry->futex, seen, sync_slice(now, end));
	}
	if (!is_there(cond))
		error = -ECANCELED;
	else
		atomic_fetch_sub(&entry->waiters, 1);
	int regained = sync_mutex_regain(mutex, depth);
	return regained < 0 ? regained : error;
}

int hp_cond_wait(const hp_cond *cond, const hp_mutex *mutex)
{
	return hp_cond_wait_timed(cond, mutex, HP_FOREVER);
}

static int wake(const hp_cond *cond, int count)
{
	struct sync_entry *entry = entry_of(cond);
	if (cond->pool->observer) return -EROFS;
	if (!is_there(cond)) return -ESTALE;
	/* commit: all who wait now will see it. In one order with the count of those, which is looked at next. */
	atomic_fetch_add(&entry->futex, 1);
	if (atomic_load(&entry->waiters)) os_futex_wake(&entry->futex, count);
	return 0;
}

int hp_cond_signal(const hp_cond *cond)
{
	return wake(cond, 1);
}

int hp_cond_broadcast(const hp_cond *cond)
{
	return wake(cond, INT_MAX);
}
