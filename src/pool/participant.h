/* Participants: a thread's part in a pool.
 *
 * A thread gets a slot at its first call. Its private state (struct participant) lies in MADV_WIPEONFORK memory and is
 * found through one thread-local word, so that a forked child, however it was forked, finds zeros where its parent's
 * state was and takes a slot of its own. (For private pools it is ordinary memory, and the child goes on: private.c.)
 *
 * Every operation that touches what the slot owns is bracketed: in_op = 1, look at `news`, work, in_op = 0. Whoever
 * wants memory that a sleeping owner holds marks `taker`, says so in `news`, makes every CPU pass a barrier, and moves
 * units only if in_op is 0 (pool/take.c). So the owner's side costs two plain stores and a load, and the owner never waits. */
#ifndef HUGEPOOL_PARTICIPANT_H
#define HUGEPOOL_PARTICIPANT_H

#include "pool/pool.h"

#define PARTICIPANT_PAGE_STATE 384 /* bytes for the page layer */

#define PARTICIPANT_SLAB_STATE 438272 /* and for the slab layer, little of which is ever touched */

/* Those of up to so many pools of a process lie in one region a thread, each in a place of its pool. So what a fast path needs
 * of any of them has an address that is at the same distance from that in the region of nobody, all of whose bytes are 0
 * for ever, as are those of a place that the thread has no participant in, and all of a child that was just forked. A
 * handle says where that is, a thread-local word says how far: no pool is compared. A thread that has no region yet has
 * distance 0. */
#define PARTICIPANT_PLACES 16u

struct participant {
	_Atomic(hp_pool *) fast; /* the pool, when neither traced nor fenced: what the fast paths compare with */
	struct pool_slot *slot;
	hp_pool *pool;                 /* NULL: not in use, or wiped by fork */
	uint64_t seen;                 /* the taker word as of the last look */
	const _Atomic uint64_t *epoch; /* the pool's, for sections of heaps */
	uint32_t who;                  /* {slot + 1, generation} */
	uint32_t rereads;
	bool fenced;
	bool nested; /* taken by a signal handler that met its thread inside an operation */
	bool busy;   /* its thread is in a slow path, between operations: not for its signal handlers */
	uint8_t node;
	bool cell;           /* its waiting cell has memory */
	uint32_t cursor;     /* where the page layer looked last */
	uint32_t generation; /* participant_fork_generation() that the entry is valid in */
	/* what outlives its pool */
	struct participant *next; /* of the same thread */
	bool used;                /* the entry belongs to a thread */
	bool placed;              /* in the region of a thread */
	bool kept;                /* in memory that forked children keep */
	uint32_t listed[2]; /* placed: generation of the arena (of shared pools, of private ones) that it is an entry of */
	_Alignas(64) unsigned char page_state[PARTICIPANT_PAGE_STATE];
	_Alignas(64) unsigned char slab_state[PARTICIPANT_SLAB_STATE];
};

/* What programs that were compiled with hugepool/inline.h see of it is called by the version of that. */
struct participant_thread {
	struct participant *current; /* the last used */
	uintptr_t distance;          /* of the thread's region from that of nobody */
};
extern HP_API_DATA _Thread_local struct participant_thread hp_thread __asm__("hp_inline_4")
	__attribute__((tls_model("initial-exec")));
#define hp_thread_current hp_thread.current

/* Where in the region of nobody the byte at `offset` of the pool's participants is; NULL for the pool: of none. */
char *participant_nobodys(const hp_pool *pool, size_t offset);

/* The same of this thread. */
static inline void *participant_of_thread(const char *nobodys)
{
	return (void *)((uintptr_t)nobodys + hp_thread.distance);
}

/* Not 0: the thread is at work on shared memory outside of an operation, in a way that a child forked in the middle by a
 * signal handler must not go on with: growing, recovering, taking. */
extern _Thread_local unsigned participant_busy __attribute__((tls_model("initial-exec")));

/* The thread's participant in the pool, not inside an operation; registers where needed. NULL and *error: -EUSERS,
 * -EROFS, -EBADF, ... */
struct participant *participant_get(hp_pool *pool, int *error);

/* The same without registering: NULL when the thread has none, or is inside an operation. */
struct participant *participant_peek(hp_pool *pool);

/* The thread has used another pool meanwhile: true, and its participant in this one is hp_thread_current again, a case for
 * fast paths. False: it was already, or that is not all. */
bool participant_switch(const hp_pool *pool);

/* The first that the thread took in the pool, inside an operation or not; NULL: it has none. Always the same one. */
struct participant *participant_first(hp_pool *pool);

void participant_reread(struct participant *me);

static inline void participant_begin(struct participant *me)
{
	if (unlikely(me->fenced)) {
		atomic_exchange_explicit(&me->slot->in_op, SLOT_IN_OP, memory_order_seq_cst);
#ifndef __x86_64__ /* where a locked instruction does not keep a later load behind it */
		atomic_thread_fence(memory_order_seq_cst);
#endif
	} else {
		atomic_store_explicit(&me->slot->in_op, SLOT_IN_OP, memory_order_relaxed);
	}
	/* the store must be before the load below, for the compiler; for the processor the taker's membarrier sees to it */
	atomic_signal_fence(memory_order_seq_cst);
	if (unlikely(atomic_load_explicit(&me->slot->news, memory_order_acquire))) participant_reread(me);
}

static inline void participant_end(struct participant *me)
{
	/* release: all the operation's stores are visible to a taker that sees 0 */
	atomic_store_explicit(&me->slot->in_op, 0, memory_order_release);
}

/* Is this the thread's last used pool, and a case for fast paths? */
static inline bool participant_is_fast(struct participant *me, hp_pool *pool)
{
	return likely(atomic_load_explicit(&me->fast, memory_order_relaxed) == pool);
}

/* in_op from 0 to SLOT_IN_OP; false, and it stays what it is, where it is not 0. */
static inline bool slot_enter(struct pool_slot *slot)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	/* Looking and storing is one instruction, and one access less for the processor's units that make addresses: there
	 * are three of them, and they are what the fast paths wait for. */
	bool was_0;
	__asm__ volatile("subl $1, %0" : "+m"(slot->in_op), "=@ccc"(was_0) : : "memory");
	if (unlikely(!was_0)) __asm__ volatile("addl $1, %0" : "+m"(slot->in_op) : : "memory", "cc");
	return was_0;
#else
	if (unlikely(atomic_load_explicit(&slot->in_op, memory_order_relaxed))) return false;
	atomic_store_explicit(&slot->in_op, SLOT_IN_OP, memory_order_relaxed);
	return true;
#endif
}

/* Fast entry, without a call: false, and nothing has begun, when the thread is inside an operation already (this is a
 * signal handler) or there is news of a taker; the slow path deals with both. */
static inline bool participant_try_begin(struct pool_slot *slot)
{
	if (unlikely(!slot_enter(slot))) return false;
	atomic_signal_fence(memory_order_seq_cst); /* as in participant_begin */
	if (likely(!atomic_load_explicit(&slot->news, memory_order_acquire))) return true;
	atomic_store_explicit(&slot->in_op, 0, memory_order_release);
	return false;
}

static inline void participant_end_fast(struct pool_slot *slot)
{
	atomic_store_explicit(&slot->in_op, 0, memory_order_release); /* as in participant_end */
}

/* Around slow paths that hold chunks between operations. A signal handler of this thread that needs more than a fast path
 * takes another slot, and a child that it forks loses the pool. */
static inline void participant_hold(struct participant *me)
{
	me->busy = true;
	participant_busy++;
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void participant_let_go(struct participant *me)
{
	atomic_signal_fence(memory_order_seq_cst);
	participant_busy--;
	me->busy = false;
}

/* Counters have one writer. */
static inline void participant_count(_Atomic uint64_t *counter)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	/* the same in one instruction, which compilers do not make of atomics */
	__asm__("incq %0" : "+m"(*counter));
	return;
#endif
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* Process-wide. Changes in every forked child; never 0. */
uint32_t participant_fork_generation(void);
/* A word that is 0 in every child of this process from now on, and not 0 in it. NULL: no memory. */
const _Atomic uint32_t *participant_fork_word(void);

/* The same for work in the name of the process: growing and recovering. False in a child that was forked by a signal handler
 * right before and comes here instead of its parent: it has no business in the pool. */
static inline bool participant_enter(const hp_pool *pool)
{
	participant_busy++;
	atomic_signal_fence(memory_order_seq_cst); /* busy first: a child forked after the look loses the pool */
	if (likely(atomic_load_explicit(&pool->joined, memory_order_relaxed) == participant_fork_generation())) return true;
	participant_busy--;
	return false;
}

static inline void participant_exit(void)
{
	atomic_signal_fence(memory_order_seq_cst);
	participant_busy--;
}

/* Registration excludes fork and signal handlers of this thread. */
struct participant_guard {
	unsigned char saved_signals[128];
};
int participant_lock(struct participant_guard *guard);
void participant_unlock(struct participant_guard *guard);

/* After a change of `slow`: lets the participants of the handle, in all threads, use fast paths or not. Called inside
 * participant_lock. */
void participant_set_fast(hp_pool *pool);

/* Detach: forget all participants of the handle, in all threads. Called inside participant_lock. */
void participant_forget(hp_pool *pool);

/* The region of nobody, and room for participants of private pools; before a pool is joined, inside participant_lock. */
int participant_reserve(bool private);

/* For a process that has private pools only: fork does not wait for threads that register. A malloc needs that, because
 * fork itself waits for locks of libc, whose holders may be about to register. */
void participant_fork_unlocked(void);

/* The handles of this process, for the fork handlers, and their places. Called inside participant_lock. */
void participant_add_pool(hp_pool *pool);
void participant_remove_pool(hp_pool *pool);
/* The first, linked by `next`; and a number that is another one when some came or went. */
hp_pool *participant_pools(void);
extern _Atomic uint32_t participant_pool_changes;

#endif
