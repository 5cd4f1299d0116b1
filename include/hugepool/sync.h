/* The small shared things: semaphores, mutexes and conditions that processes share, found by name in containers.
 *
 * A container is a block of the pool with places for a fixed number of things. Each pool has a default one; others are known
 * by their offset. A thing is opened by its name, and made if there is none; it stays until it is unlinked, whoever made it
 * and whoever dies. Handles are small structs of the caller's, good for as long as the pool is attached: nothing has to be
 * closed, and copies are as good. What is used after it was unlinked says -ESTALE, also when another thing has taken its
 * place (a million times in between excepted).
 *
 * All of it is words of the library's own, with the owner's name in them; no pthread object, and no pointer. A process
 * that is killed at any instruction leaves the state before its call or the state after it, and blocks nobody: a mutex goes
 * to who wants it next, with -EOWNERDEAD; a semaphore with HP_SEM_UNDO gets its units back; a signal is not lost with a
 * waiter. That somebody has died is seen by who waits, within 16 ms, with no daemon. Nobody waits for who is stopped, but for
 * what that one holds. An uncontended lock, wait or post is one locked instruction, an uncontended unlock none.
 *
 * Timeouts are nanoseconds from now; HP_FOREVER: none. 0 does not wait. Signals do not end a wait. Waiting is not first come,
 * first served. Any thread may call; those that say so also signal handlers. Calls register the thread at its first use
 * (-EUSERS: no slot is left; -EROFS: an observer; -ENOMEM; -EBADF: the pool's descriptors are closed).
 *
 * Origin: Netsys_sem, Netmcore_sem, Netmcore_mutex, Netmcore_condition and the sem_container of Ocamlnet. Unlike there the
 * creator can use them, a dead holder is found (there it locked for ever), EINTR does not leak out, a condition needs no
 * entry for each process, the number of waiters is not limited, and nothing stays behind in a file system. */
#ifndef HUGEPOOL_SYNC_H
#define HUGEPOOL_SYNC_H

#include <hugepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HP_SYNC_NAME_MAX 31 /* bytes of a name, without its 0 */
#define HP_FOREVER UINT64_MAX

/* ---- containers ---- */

/* The members of this and the following structs are the library's. */
typedef struct hp_container {
	hp_pool *pool;
	void *at;
	uint32_t entries, units;
} hp_container;

/* Makes a container for `entries` things (1 to 65,536), whose semaphores with HP_SEM_UNDO have up to `units` units each (0 to
 * 65,536). It takes 64 bytes an entry, and 8 a unit of each; a block of class POOL (hp_malloc).
 * -EINVAL: numbers. -ENOMEM. The death of the caller leaves all or nothing; what is made and not yet returned is the
 * application's block. */
HP_API int hp_container_create(hp_pool *pool, unsigned entries, unsigned units, hp_container *container);

/* The offset that hp_container_open takes, in every process. */
HP_API hp_off hp_container_id(const hp_container *container);

/* -EINVAL: no container begins there. -ESTALE: it has been destroyed. */
HP_API int hp_container_open(hp_pool *pool, hp_off id, hp_container *container);

/* The pool's default container, of HP_CONTAINER_ENTRIES entries with HP_CONTAINER_UNITS units; made, as one block of 32 KiB, when
 * first asked for. Of several who make it one does; a maker that dies leaves nothing, or the container. -ENOMEM. -EAGAIN: a
 * process is stopped between the two instructions that make it, or that destroy it; whoever has died there is no reason. */
#define HP_CONTAINER_ENTRIES 72u
#define HP_CONTAINER_UNITS 48u
HP_API int hp_container_default(hp_pool *pool, hp_container *container);

/* Ends a container without things in it, and frees its block. Nobody may be using or opening the container: as with a
 * block that was freed, that is not detected. -EBUSY: there are things in it. -ESTALE: it has been destroyed. -EAGAIN: as above.
 * If the caller dies on the way the container is there, or ended: then calling this again, with a handle that was there
 * before, frees the block; hp_container_default does so by itself. */
HP_API int hp_container_destroy(const hp_container *container);

/* Forgets the thing of that name: it can be made anew. Who waits for it, and who uses it later, gets -ESTALE. -ENOENT: there is
 * none. -EBUSY: a mutex that a living thread holds. -EINVAL: no name. */
HP_API int hp_container_unlink(const hp_container *container, const char *name);

enum hp_sync_kind { HP_SYNC_MUTEX = 2, HP_SYNC_SEM = 3, HP_SYNC_UNDO = 4, HP_SYNC_COND = 5 };

/* What is there: call it with *cursor 0 and then as it was left; `name` has room for HP_SYNC_NAME_MAX + 1 bytes. Returns an
 * hp_sync_kind, or 0: no more. Things that come or go meanwhile may be seen or not. */
HP_API int hp_container_next(const hp_container *container, uint32_t *cursor, char *name);

/* Opening. `flags`, with those of each kind: */
#define HP_SYNC_EXISTING 0x100u /* only if it is there: -ENOENT */
#define HP_SYNC_NEW 0x200u      /* only if it is not: -EEXIST */
/* For all of them: -EINVAL: no name (1 to 31 bytes), unknown flags, a value out of range. -EPROTO: the name is of a thing of
 * another kind, or made with other flags. -ENOSPC: the container is full. -ESTALE: it was destroyed. Neither waits for anybody.
 * A maker that dies leaves the thing or nothing. */

/* ---- mutexes ---- */

typedef struct hp_mutex {
	hp_pool *pool;
	void *entry;
	uint64_t free;
} hp_mutex;

#define HP_MUTEX_NORMAL 0u
#define HP_MUTEX_ERRORCHECK \
	HP_MUTEX_NORMAL /* the ancestor's normal ones locked themselves out; to check costs nothing */
#define HP_MUTEX_RECURSIVE 1u

HP_API int hp_mutex_open(const hp_container *container, const char *name, unsigned flags, hp_mutex *mutex);

/* Locks; the owner is the thread.
 * -EOWNERDEAD: locked, and who held it has died (its process, or the thread): what it protects may be half changed. Set it
 * right and call hp_mutex_consistent; if the mutex is unlocked before that, it is of no use any more.
 * -ENOTRECOVERABLE: that has happened; unlink it. -EDEADLK: the caller has it (recursive: -EOVERFLOW after 4 billion times).
 * -ETIMEDOUT (hp_mutex_lock_timed). -EBUSY (hp_mutex_trylock): somebody has it. -ESTALE: it was unlinked.
 * Killed in the call, or with the mutex: the next one gets -EOWNERDEAD, or it never was locked. hp_mutex_trylock and
 * hp_mutex_unlock may be called by signal handlers (which are their thread). */
HP_API int hp_mutex_lock(const hp_mutex *mutex);
HP_API int hp_mutex_lock_timed(const hp_mutex *mutex, uint64_t ns);
HP_API int hp_mutex_trylock(const hp_mutex *mutex);

/* -EPERM: the caller does not have it. -ESTALE. */
HP_API int hp_mutex_unlock(const hp_mutex *mutex);

/* After -EOWNERDEAD: what it protects is whole again. -EPERM: the caller does not have it. -EINVAL: nobody had died. */
HP_API int hp_mutex_consistent(const hp_mutex *mutex);

/* ---- semaphores ---- */

typedef struct hp_sem {
	hp_pool *pool;
	void *entry;
	uint64_t free;
	uint32_t units; /* with HP_SEM_UNDO, else 0 */
} hp_sem;

#define HP_SEM_MAX 0x7fffffffu

/* Units belong to the process that waited for them (strictly: to its handle of the pool; in a private pool to this process, not
 * to forked children) until any of its threads posts them. When it dies, execs, exits or detaches, at any instruction, each
 * unit it has is free again: found by a word for each unit, which the wait and the post change by one instruction, so that
 * none is ever lost or free twice. The price: there are never more units than `value` at the making, which is at most the
 * container's units; and who has none cannot post. */
#define HP_SEM_UNDO 1u

/* `value`: what it begins with, if it is made; at most HP_SEM_MAX. */
HP_API int hp_sem_open(const hp_container *container, const char *name, unsigned flags, uint32_t value, hp_sem *sem);

/* Takes a unit, waiting for one. -ETIMEDOUT (hp_sem_wait_timed), -EAGAIN (hp_sem_trywait): there is none. -ESTALE.
 * Killed in the call: the unit is taken or not; without HP_SEM_UNDO a unit that was taken is gone with the process. A dead
 * waiter keeps none from the living. hp_sem_trywait and hp_sem_post may be called by signal handlers. */
HP_API int hp_sem_wait(const hp_sem *sem);
HP_API int hp_sem_wait_timed(const hp_sem *sem, uint64_t ns);
HP_API int hp_sem_trywait(const hp_sem *sem);

/* Gives a unit. -EOVERFLOW: beyond HP_SEM_MAX. -EPERM: HP_SEM_UNDO, and this process has none. -ESTALE. Killed in the call:
 * given or not; who waits gets it in either case, 16 ms later at most. */
HP_API int hp_sem_post(const hp_sem *sem);

/* Units that are free right now; those of the dead that nobody has missed yet are not. -ESTALE. */
HP_API int64_t hp_sem_value(const hp_sem *sem);

/* ---- conditions ---- */

typedef struct hp_cond {
	hp_pool *pool;
	void *entry;
	uint64_t free;
} hp_cond;

HP_API int hp_cond_open(const hp_container *container, const char *name, unsigned flags, hp_cond *cond);

/* Unlocks the mutex (a recursive one wholly), waits for a signal that comes after that, and locks it again as it was. A wait may
 * end without a signal for it, so look at what you wait for in a loop: after a signal at least one of those who wait and live
 * returns at once, and others may within 16 ms (that is how a signal that a dead waiter was woken by is not lost).
 * 0, or -ETIMEDOUT: with the mutex. -EOWNERDEAD: with the mutex, as hp_mutex_lock. Without it: -EPERM: the caller does not have
 * it, and nothing has happened; -ENOTRECOVERABLE; -ESTALE: the mutex was unlinked, or the condition before the call (with the mutex
 * then). -ECANCELED: with the mutex; the condition was unlinked meanwhile. All who wait for a condition at a time use the same mutex. Killed in the call: as killed without the mutex, or with
 * it. (Who gets the mutex with -EOWNERDEAD had better broadcast: the dead one may not have come to that.) */
HP_API int hp_cond_wait(const hp_cond *cond, const hp_mutex *mutex);
HP_API int hp_cond_wait_timed(const hp_cond *cond, const hp_mutex *mutex, uint64_t ns);

/* Wakes one of those who wait, or all of them; with or without the mutex. -ESTALE. Killed in the call: as if it had not been
 * made, or those who wait return within 16 ms. For signal handlers, too. */
HP_API int hp_cond_signal(const hp_cond *cond);
HP_API int hp_cond_broadcast(const hp_cond *cond);

#ifdef __cplusplus
}
#endif
#endif
