/* The private side of the small shared things: handles, who the caller is, and waiting. */
#ifndef HUGEPOOL_SYNC_INTERNAL_H
#define HUGEPOOL_SYNC_INTERNAL_H

#include "pool/participant.h"
#include "sync/layout.h"
#include <hugepool/sync.h>

/* The thread's first participant, which its signal handlers have too; NULL and *error. */
struct participant *sync_participant_slow(hp_pool *pool, int *error);
static inline struct participant *sync_participant(hp_pool *pool, int *error)
{
	struct participant *me = hp_thread_current;
	return likely(participant_is_fast(me, pool) && !me->nested) ? me : sync_participant_slow(pool, error);
}

/* The calling thread, and its process, as the low part of a state. */
static inline uint64_t sync_thread(const struct participant *me)
{
	uint64_t word = atomic_load_explicit(&me->slot->word, memory_order_relaxed);
	return sync_name_make(me->who >> 16, slot_generation(word));
}
static inline uint64_t sync_process(const hp_pool *pool)
{
	return sync_name_make(pool->record + 1, pool->record_generation);
}
/* Both err on the side of yes. */
bool sync_thread_lives(hp_pool *pool, uint64_t low);
bool sync_process_lives(hp_pool *pool, uint64_t low);

/* Is the state one of the thing that has this state with nothing in it? */
static inline bool sync_is(uint64_t state, uint64_t free)
{
	return ((state ^ free) & ~SYNC_LOW) == 0;
}

/* Opens or makes; *free: its state with nothing in it. `low`: of its first state. */
int sync_open(const hp_container *container, const char *name, enum sync_kind kind, unsigned flags, uint64_t low,
              struct sync_entry **entry, uint64_t *free);

/* Waits until `try` says something else than -EAGAIN, or -ETIMEDOUT. The entry's flag is put up before a try that is followed by
 * sleep; who changes what is tried for looks at the flag afterwards, and calls sync_wake. `barrier`: that one does it by a plain
 * store, so all processors have to pass a barrier in between. */
typedef int sync_try_fn(void *arg);
int sync_wait(struct sync_entry *entry, bool barrier, sync_try_fn *try, void *arg, uint64_t ns);
void sync_wake(struct sync_entry *entry, int count);
/* How long to sleep before looking who lives. */
uint64_t sync_slice(uint64_t now, uint64_t end);
uint64_t sync_end(uint64_t ns); /* the time when it is over */

/* For conditions: wholly unlocks a mutex that the thread holds, and locks it again. */
int sync_mutex_drop(const hp_mutex *mutex, uint32_t *depth);
int sync_mutex_regain(const hp_mutex *mutex, uint32_t depth);

#endif
