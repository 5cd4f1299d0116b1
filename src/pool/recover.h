/* Recovery of dead participants, taking from live ones, growth: what a slow path does before it says -ENOMEM. */
#ifndef HUGEPOOL_RECOVER_H
#define HUGEPOOL_RECOVER_H

#include "pool/participant.h"

/* Recovers what is dead. Returns how many records and slots, or -errno. */
int recover_dead(hp_pool *pool);

/* Somebody alive is recovering something right now: what it gives back may be what we look for. */
bool recover_pending(hp_pool *pool);

/* Gives back what a record's process left: its slots, then what is of class PROCESS. The caller holds the claim on the
 * record. Idempotent. */
void recover_record(hp_pool *pool, uint32_t record, uint32_t generation);

/* Once the record is over: what somebody alive held of it while it was recovered, and has put back since. */
void recover_leftovers(hp_pool *pool, uint32_t record, uint32_t generation);

/* A private pool in a forked child: what threads that did not come along held in the name of the process goes back. */
void private_settle(hp_pool *pool);

/* Lives the thread that the slot's word, as it was read, names? Errs on the side of yes. */
bool slot_lives(hp_pool *pool, const struct pool_slot *slot, uint64_t word);

/* Gives back all that the slot owns, and the slot. The caller holds the claim on it: its own thread, its process'
 * detaching thread, or the recoverer of its record. */
void recover_slot(hp_pool *pool, uint32_t slot, uint64_t word);

/* Units wanted from live owners. */
struct take_want {
	_Atomic uint64_t *ctl;
	uint64_t seen; /* OWNED by somebody else */
};

/* Moves them to `me` where their owners are not inside an operation; got[i] tells which. Returns how many were moved;
 * *skipped counts those whose owner was busy or marked by another. Not to be called inside an operation. */
unsigned take_units(struct participant *me, const struct take_want *want, unsigned count, bool *got, unsigned *skipped);

/* Growth by whoever finds too little: enough for `bytes` more, or what is left of the capacity; numa NULL: as the pool
 * was made. -ENOSPC: at capacity. */
int grow_for(hp_pool *pool, uint64_t bytes, const struct hp_numa *numa);

int growth_lock(hp_pool *pool);
/* In a forked child, private pool: the lock stays this thread's if it was. */
void growth_follow_fork(hp_pool *pool);
void growth_unlock(hp_pool *pool);
/* A dead holder's plan is finished or undone. Called with the lock held. */
void growth_settle(hp_pool *pool);
/* If the lock's holder is dead, takes it over, settles, unlocks. */
void growth_recover(hp_pool *pool);

#endif
