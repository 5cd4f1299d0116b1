/* Semaphores: a value in the state; or, with undo, a word for each unit that says which process has it.
 *
 * Plain ones are a compare-and-swap of the state, up or down, by anybody. With undo the value is not kept at all: a unit is
 * free, or names a process, and taking and giving one is a compare-and-swap of its word. So there is no moment at which a unit
 * has been taken and nobody is known to have it, and the units of the dead are found by who misses some: those are put back by
 * the same instruction, once however many find them. Searching 48 words costs less than a locked instruction. */
#include "sync/sync.h"
#include <errno.h>

static struct sync_entry *entry_of(const hp_sem *sem)
{
	return sem->entry;
}

int hp_sem_open(const hp_container *container, const char *name, unsigned flags, uint32_t value, hp_sem *sem)
{
	struct sync_entry *entry;
	uint64_t free;
	bool undo = flags & HP_SEM_UNDO;
	if (!container || !sem || flags & ~(HP_SEM_UNDO | HP_SYNC_EXISTING | HP_SYNC_NEW)) return -EINVAL;
	if (value > (undo ? container->units : HP_SEM_MAX)) return -EINVAL;
	int error = sync_open(container, name, undo ? SYNC_UNDO : SYNC_SEM, flags, value, &entry, &free);
	if (error < 0) return error;
	uint64_t state = atomic_load_explicit(&entry->state, memory_order_relaxed), units = undo ? state & SYNC_LOW : 0;
	if (!sync_is(state, free)) return -ESTALE;
	if (units > container->units) units = container->units; /* whatever somebody has written there */
	*sem = (hp_sem){.pool = container->pool, .entry = entry, .free = free, .units = (uint32_t)units};
	return 0;
}

struct trying {
	const hp_sem *sem;
	uint64_t mine; /* a unit that this process has */
	uint32_t begin;
};

static int try_plain(void *arg)
{
	const struct trying *trying = arg;
	const hp_sem *sem = trying->sem;
	_Atomic uint64_t *word = &entry_of(sem)->state;
	uint64_t state = atomic_load_explicit(word, memory_order_relaxed);
	do {
		if (unlikely(!sync_is(state, sem->free))) return -ESTALE;
		if ((state & SYNC_LOW) == 0) return -EAGAIN;
		/* commit: a unit is ours. Acquire: we see what whoever gave it did before. */
	} while (unlikely(
		!atomic_compare_exchange_weak_explicit(word, &state, state - 1, memory_order_seq_cst, memory_order_relaxed)));
	return 0;
}

static int try_units(const struct trying *trying)
{
	const hp_sem *sem = trying->sem;
	_Atomic uint64_t *unit = entry_of(sem)->unit;
	if (!sync_is(atomic_load_explicit(&entry_of(sem)->state, memory_order_acquire), sem->free)) return -ESTALE;
	for (uint32_t i = trying->begin, n = 0; n < sem->units; n++, i = i + 1 < sem->units ? i + 1 : 0) {
		uint64_t free = sem->free;
		if (atomic_load_explicit(&unit[i], memory_order_relaxed) != free) continue;
		/* commit: this unit is ours, and will be found if we die. Acquire: as above. */
		if (!atomic_compare_exchange_strong(&unit[i], &free, trying->mine)) continue;
		/* unlinked just now: it is a unit of nothing */
		return sync_is(atomic_load(&entry_of(sem)->state), sem->free) ? 0 : -ESTALE;
	}
	return -EAGAIN;
}

/* Gives back what the dead have; how many. */
static int undo(const hp_sem *sem)
{
	int count = 0;
	for (uint32_t i = 0; i < sem->units; i++) {
		uint64_t unit = atomic_load_explicit(&entry_of(sem)->unit[i], memory_order_acquire);
		if (!sync_is(unit, sem->free) || unit == sem->free || sync_process_lives(sem->pool, unit)) continue;
		/* commit: free. Of several who find it one does this. */
		count += atomic_compare_exchange_strong(&entry_of(sem)->unit[i], &unit, sem->free);
	}
	return count;
}

static int try_undo(void *arg)
{
	const struct trying *trying = arg;
	int error = try_units(trying), count;
	if (error != -EAGAIN || (count = undo(trying->sem)) == 0) return error;
	if (count > 1 && atomic_load(&entry_of(trying->sem)->futex)) sync_wake(entry_of(trying->sem), count - 1);
	return try_units(trying);
}

/* There is a unit. */
static bool is_free(const hp_sem *sem)
{
	if (!sem->units) return atomic_load(&entry_of(sem)->state) & SYNC_LOW;
	for (uint32_t i = 0; i < sem->units; i++)
		if (atomic_load(&entry_of(sem)->unit[i]) == sem->free) return true;
	return false;
}

static sync_try_fn *try_of(const hp_sem *sem)
{
	return sync_kind(sem->free) == SYNC_UNDO ? try_undo : try_plain;
}

static inline int try_now(struct trying *trying)
{
	return sync_kind(trying->sem->free) == SYNC_UNDO ? try_undo(trying) : try_plain(trying);
}

static inline int trying_begin(struct trying *trying, const hp_sem *sem)
{
	int error;
	*trying = (struct trying){.sem = sem};
	if (sync_kind(sem->free) != SYNC_UNDO) return 0;
	struct participant *me = sync_participant(sem->pool, &error);
	if (!me) return error;
	trying->mine = sem->free | sync_process(sem->pool);
	trying->begin = sem->units ? (me->who >> 16) * 7 % sem->units : 0; /* away from others, and where one's own are */
	return 0;
}

int hp_sem_trywait(const hp_sem *sem)
{
	struct trying trying;
	int error = sem->pool->observer ? -EROFS : trying_begin(&trying, sem);
	return error < 0 ? error : try_now(&trying);
}

int hp_sem_wait_timed(const hp_sem *sem, uint64_t ns)
{
	struct trying trying;
	int error = sem->pool->observer ? -EROFS : trying_begin(&trying, sem);
	if (error < 0) return error;
	error = try_now(&trying);
	if (likely(error != -EAGAIN)) return error;
	error = sync_wait(entry_of(sem), false, try_of(sem), &trying, ns);
	/* the flag was down while we were on our way, and who gave another unit meanwhile has not woken anybody for it */
	if (error == 0 && atomic_load(&entry_of(sem)->futex) && is_free(sem)) sync_wake(entry_of(sem), 1);
	return error;
}

int hp_sem_wait(const hp_sem *sem)
{
	return hp_sem_wait_timed(sem, HP_FOREVER);
}

static int post_plain(const hp_sem *sem)
{
	_Atomic uint64_t *word = &entry_of(sem)->state;
	uint64_t state = atomic_load_explicit(word, memory_order_relaxed);
	do {
		if (unlikely(!sync_is(state, sem->free))) return -ESTALE;
		if (unlikely((state & SYNC_LOW) >= HP_SEM_MAX)) return -EOVERFLOW;
		/* commit: one more. In one order with the flag, which is looked at next. */
	} while (unlikely(
		!atomic_compare_exchange_weak_explicit(word, &state, state + 1, memory_order_seq_cst, memory_order_relaxed)));
	return 0;
}

static int post_undo(const hp_sem *sem)
{
	struct trying trying;
	int error = trying_begin(&trying, sem);
	if (error < 0) return error;
	if (!sync_is(atomic_load_explicit(&entry_of(sem)->state, memory_order_relaxed), sem->free)) return -ESTALE;
	for (uint32_t i = trying.begin, n = 0; n < sem->units; n++, i = i + 1 < sem->units ? i + 1 : 0) {
		uint64_t mine = trying.mine;
		if (atomic_load_explicit(&entry_of(sem)->unit[i], memory_order_relaxed) != mine) continue;
		/* commit: it is nobody's. A swap, since another thread of the process may be giving the same one. */
		if (atomic_compare_exchange_strong(&entry_of(sem)->unit[i], &mine, sem->free)) return 0;
	}
	return -EPERM;
}

int hp_sem_post(const hp_sem *sem)
{
	if (unlikely(sem->pool->observer)) return -EROFS;
	int error = sync_kind(sem->free) == SYNC_UNDO ? post_undo(sem) : post_plain(sem);
	if (likely(error == 0) && unlikely(atomic_load(&entry_of(sem)->futex))) sync_wake(entry_of(sem), 1);
	return error;
}

int64_t hp_sem_value(const hp_sem *sem)
{
	uint64_t state = atomic_load_explicit(&entry_of(sem)->state, memory_order_acquire);
	int64_t count = 0;
	if (!sync_is(state, sem->free)) return -ESTALE;
	if (sync_kind(sem->free) != SYNC_UNDO) return (int64_t)(state & SYNC_LOW);
	for (uint32_t i = 0; i < sem->units; i++) count += atomic_load(&entry_of(sem)->unit[i]) == sem->free;
	return count;
}
