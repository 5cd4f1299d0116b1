/* The inside of fifos: the handle, where things lie, and the compare-and-swap of two words. */
#ifndef HUGEPOOL_FIFO_INTERNAL_H
#define HUGEPOOL_FIFO_INTERNAL_H

#include "fifo/layout.h"
#include "pool/participant.h"
#include <hugepool/fifo.h>
#include <string.h>

struct hp_fifo {
	/* a validated copy of the shape: what shared memory says about it later does not matter */
	struct fifo_shared *shared;
	_Atomic uint64_t *entries;
	uint64_t capacity, mask;
	uint32_t words, flags, handles;
	bool plain;  /* one producer, one consumer, one word */
	bool fenced; /* of the pool: who pushes or pops passes a barrier, not who waits */
	int eventfd;
	uint32_t cell; /* ours */
	uint64_t owner;
	uint32_t generation; /* participant_fork_generation() it was opened in */
	hp_pool *pool;
	hp_off id;
	_Atomic uint64_t *holds; /* one for each handle, where there are many consumers */
	uint64_t *held;          /* HP_FIFO_TAKE_MAX elements for each of them */

	/* the producing thread's */
	_Alignas(FIFO_LINE) uint64_t tail_seen; /* never beyond the tail */
	uint64_t patience;

	/* the consuming thread's */
	_Alignas(FIFO_LINE) uint64_t head_seen; /* never beyond the head */
	uint64_t taken;                         /* elements */
	uint64_t hold_word;                     /* as it was taken */
	uint32_t hold;                          /* with many consumers: which */
	uint32_t pops;
};

#if defined(__x86_64__) || defined(__aarch64__)
#define FIFO_HAS_PAIRS 1
#else
#define FIFO_HAS_PAIRS 0
#endif

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *at);
void __tsan_release(void *at);
#define PAIR_ACQUIRED(at) __tsan_acquire(at)
#define PAIR_RELEASED(at) __tsan_release(at)
#else
#define PAIR_ACQUIRED(at) ((void)0)
#define PAIR_RELEASED(at) ((void)0)
#endif

/* Acquire and release. Not by the compiler's own, which may come to a lock in private memory. */
static inline bool pair_swap(struct fifo_pair *pair, uint64_t a, uint64_t b, uint64_t new_a, uint64_t new_b)
{
	bool done = false;
	PAIR_RELEASED(&pair->a);
#if defined(__x86_64__)
	__asm__ volatile("lock cmpxchg16b %1"
	                 : "=@ccz"(done), "+m"(*pair), "+a"(a), "+d"(b)
	                 : "b"(new_a), "c"(new_b)
	                 : "memory");
#elif defined(__aarch64__)
	uint64_t was_a, was_b;
	uint32_t failed;
	do {
		__asm__ volatile("ldaxp %0, %1, %2" : "=&r"(was_a), "=&r"(was_b) : "Q"(*pair) : "memory");
		done = was_a == a && was_b == b;
		/* what was read is written back where it differs: only so have both halves been read as one */
		__asm__ volatile("stlxp %w0, %2, %3, %1"
		                 : "=&r"(failed), "=Q"(*pair)
		                 : "r"(done ? new_a : was_a), "r"(done ? new_b : was_b)
		                 : "memory");
	} while (failed);
#else
	(void)a, (void)b, (void)new_a, (void)new_b;
#endif
	if (done) PAIR_ACQUIRED(&pair->a);
	return done;
}

/* Not a forked child's copy, whose cell is its parent's. Of a private pool the child has a copy of all, cells included. */
static inline bool fifo_is_ours(const hp_fifo *fifo)
{
	return fifo->pool->private || fifo->generation == participant_fork_generation();
}

static inline bool fifo_many_producers(const hp_fifo *fifo)
{
	return fifo->flags & HP_FIFO_MP;
}

static inline bool fifo_many_consumers(const hp_fifo *fifo)
{
	return fifo->flags & HP_FIFO_MC;
}

static inline struct fifo_pair *fifo_entry(const hp_fifo *fifo, uint64_t position)
{
	return (struct fifo_pair *)(void *)fifo->entries + (position & fifo->mask) * fifo->words;
}

/* Room for so many behind the head; looks at the tail only where it knows of less than is wanted. What makes no sense
 * is no room. */
static inline uint64_t fifo_room(hp_fifo *fifo, uint64_t head, uint64_t wanted)
{
	uint64_t used = head - fifo->tail_seen;
	if (used > fifo->capacity || fifo->capacity - used < wanted) {
		/* acquire: what is written over has been read */
		fifo->tail_seen = atomic_load_explicit(&fifo->shared->tail.a, memory_order_acquire);
		used = head - fifo->tail_seen;
	}
	return used > fifo->capacity ? 0 : fifo->capacity - used;
}

/* The same for what can be popped from the tail on. */
static inline uint64_t fifo_ready(hp_fifo *fifo, uint64_t tail, uint64_t wanted)
{
	uint64_t ready = fifo->head_seen - tail;
	if (ready > fifo->capacity || ready < wanted) {
		/* acquire: the elements were written before the head showed them */
		fifo->head_seen = atomic_load_explicit(&fifo->shared->head.a, memory_order_acquire);
		ready = fifo->head_seen - tail;
	}
	return ready > fifo->capacity ? 0 : ready;
}

/* Copies `n` elements from the position on. Where others may be writing over them meanwhile they are not believed until the
 * tail has been moved. */
void fifo_read(const hp_fifo *fifo, uint64_t position, void *elements, uint64_t n);

/* Up to n, at least `least` (1 or n), or none. */
uint64_t fifo_push_some(hp_fifo *fifo, const void *elements, uint64_t n, uint64_t least);
uint64_t fifo_pop_some(hp_fifo *fifo, void *elements, uint64_t n, uint64_t least);

/* Holds (take.c). Pops from what the dead have left. */
uint64_t fifo_pop_orphan(hp_fifo *fifo, void *elements, uint64_t n, uint64_t least);
/* Elements that the dead have left. */
uint64_t fifo_orphans(hp_fifo *fifo);
/* Lets go of what is held by a cell whose owner was that one, who is dead. */
void fifo_let_go(hp_fifo *fifo, uint32_t cell, uint64_t owner);
/* Is whoever wrote that {record, generation} dead, or gone? */
bool fifo_is_over(hp_pool *pool, uint64_t owner);

/* Wakes who waits (wait.c): those who pop, after a push, or those who push, after a pop. */
void fifo_wake_slow(hp_fifo *fifo, bool pushed);

static inline void fifo_wake(hp_fifo *fifo, bool pushed)
{
	struct fifo_shared *shared = fifo->shared;
	/* The look at the flags comes after the commit: for the compiler; for the processor the barrier of who waits sees to it,
	 * which all processors pass. */
	if (unlikely(fifo->fenced))
		atomic_thread_fence(memory_order_seq_cst);
	else
		atomic_signal_fence(memory_order_seq_cst);
	if (unlikely(atomic_load_explicit(pushed ? &shared->pop_flags : &shared->push_flags, memory_order_relaxed)))
		fifo_wake_slow(fifo, pushed);
}

#endif
