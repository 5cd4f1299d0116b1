/* Making and opening rings, and the bells; ring.h has the design and what is called for every entry. */
#include "ring.h"

#include "os/os.h"

#include <limits.h>

size_t ring_bytes(uint64_t capacity)
{
	return sizeof(struct ring) + capacity * sizeof(struct ring_entry);
}

void ring_init(struct ring *ring, uint64_t capacity)
{
	ring->capacity = capacity;
	atomic_init(&ring->head, 0);
	atomic_init(&ring->tail, 0);
	for (uint64_t i = 0; i < capacity; i++) ring->entry[i] = (struct ring_entry){0};
}

void ring_open_producer(struct ring *ring, uint64_t capacity, uint64_t head, struct ring_producer *producer)
{
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
	*producer = (struct ring_producer){.ring = ring, .mask = capacity - 1, .head = head, .tail = tail};
	producer->published = atomic_load_explicit(&ring->head, memory_order_relaxed); /* only this end writes it */
}

void ring_open_consumer(struct ring *ring, uint64_t capacity, uint64_t tail, struct ring_consumer *consumer)
{
	*consumer = (struct ring_consumer){.ring = ring, .mask = capacity - 1, .tail = tail, .head = tail};
}

uint64_t ring_held(struct ring *ring)
{
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
	return atomic_load_explicit(&ring->head, memory_order_acquire) - tail;
}

void bell_ring(struct bell *bell)
{
	/* Orders what was published before the look at `sleeping`, as bell_listen orders the mark before its look at
	 * what is published: one of the two sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&bell->sleeping, memory_order_relaxed) == 0) return;
	atomic_store_explicit(&bell->sleeping, 0, memory_order_relaxed); /* one wake is enough */
	atomic_fetch_add_explicit(&bell->count, 1, memory_order_release);
	os_futex_wake(&bell->count, INT_MAX);
}

uint32_t bell_listen(struct bell *bell)
{
	uint32_t heard = atomic_load_explicit(&bell->count, memory_order_acquire);
	atomic_store_explicit(&bell->sleeping, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst); /* the other half of bell_ring's */
	return heard;
}

void bell_sleep(struct bell *bell, uint32_t heard, uint64_t ns)
{
	os_futex_wait(&bell->count, heard, ns);
	bell_cancel(bell);
}

void bell_cancel(struct bell *bell)
{
	atomic_store_explicit(&bell->sleeping, 0, memory_order_relaxed);
}
