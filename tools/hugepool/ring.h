/* Rings between two processes, one that puts and one that takes, living in the pool.
 *
 * In shared memory there are two positions that only ever grow, and entries; no pointers. Position p stands in entry
 * p % capacity. Each end keeps a private view and publishes its position in batches, so a cache line moves between two
 * CPUs once a batch and not once a frame. The end itself has no state that only its process knows: whoever continues
 * for a dead process opens the same end again and starts at a position of its choice (stages.c says which).
 *
 * Waiting is by a bell, one for each process that waits: a futex word and a mark that somebody sleeps. Sleeps are in
 * slices, so a bell that was never rung (its ringer died) costs a slice and no more. */
#ifndef HUGEPOOL_TOOL_RING_H
#define HUGEPOOL_TOOL_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_LINE 128 /* two cache lines: the neighbour is fetched along with the one that is asked for */

struct ring_entry {
	uint64_t frame;  /* number of the frame, from 1 */
	uint64_t offset; /* of its block in the pool */
	uint64_t hash;   /* of its flow */
	uint32_t length; /* bytes */
	uint32_t zero;
};
_Static_assert(sizeof(struct ring_entry) == 32, "two entries a cache line");

struct ring {
	uint64_t capacity;                         /* a power of two; written once */
	_Alignas(RING_LINE) _Atomic uint64_t head; /* the producer: positions below are there to be taken */
	_Alignas(RING_LINE) _Atomic uint64_t tail; /* the consumer: positions below have been taken */
	_Alignas(RING_LINE) struct ring_entry entry[];
};

struct ring_producer {
	struct ring *ring;
	uint64_t mask, head;      /* head: the next position to be put, from `published` on not yet to be seen */
	uint64_t published, tail; /* tail: as last looked at */
};

struct ring_consumer {
	struct ring *ring;
	uint64_t mask, tail; /* the next position to be taken */
	uint64_t head;       /* as last looked at */
};

struct bell {
	_Alignas(RING_LINE) _Atomic uint32_t count;
	_Atomic uint32_t sleeping;
};

size_t ring_bytes(uint64_t capacity);
void ring_init(struct ring *ring, uint64_t capacity);

/* Opens an end at a position; `capacity` as the ring was made, since what shared memory says is not trusted. */
void ring_open_producer(struct ring *ring, uint64_t capacity, uint64_t head, struct ring_producer *producer);
void ring_open_consumer(struct ring *ring, uint64_t capacity, uint64_t tail, struct ring_consumer *consumer);

/* Positions in the ring now, as far as published. */
uint64_t ring_held(struct ring *ring);

/* Rings for whoever sleeps; costs a fence and a load when nobody does. */
void bell_ring(struct bell *bell);

/* To wait: listen, look whether there is anything to do, and sleep only if not. */
uint32_t bell_listen(struct bell *bell);
void bell_sleep(struct bell *bell, uint32_t heard, uint64_t ns);
void bell_cancel(struct bell *bell);

/* Between two looks of a short spin. */
static inline void ring_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Room for how many entries more. */
static inline uint64_t ring_room(struct ring_producer *producer)
{
	uint64_t capacity = producer->mask + 1;
	if (producer->head - producer->tail >= capacity) {
		uint64_t tail = atomic_load_explicit(&producer->ring->tail, memory_order_acquire);
		if (tail - producer->tail <= producer->head - producer->tail) producer->tail = tail;
	}
	return capacity - (producer->head - producer->tail);
}

static inline struct ring_entry *ring_slot(struct ring_producer *producer)
{
	return &producer->ring->entry[producer->head & producer->mask];
}

/* Release: the entries are written before the position that shows them. */
static inline void ring_publish(struct ring_producer *producer)
{
	if (producer->published == producer->head) return;
	producer->published = producer->head;
	atomic_store_explicit(&producer->ring->head, producer->head, memory_order_release);
}

/* How many entries can be taken. */
static inline uint64_t ring_ready(struct ring_consumer *consumer)
{
	if (consumer->head == consumer->tail) {
		uint64_t head = atomic_load_explicit(&consumer->ring->head, memory_order_acquire);
		if (head - consumer->tail <= consumer->mask + 1) consumer->head = head;
	}
	return consumer->head - consumer->tail;
}

static inline const struct ring_entry *ring_entry_at(const struct ring_consumer *consumer, uint64_t position)
{
	return &consumer->ring->entry[position & consumer->mask];
}

/* Release: the entries are read before they may be written again. */
static inline void ring_release(struct ring_consumer *consumer, uint64_t tail)
{
	consumer->tail = tail;
	atomic_store_explicit(&consumer->ring->tail, tail, memory_order_release);
}

#endif
