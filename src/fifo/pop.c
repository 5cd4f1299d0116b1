/* Popping.
 *
 * One consumer: copies elements, then moves the tail by one store. Many: each copies first and then moves the tail by a
 * compare-and-swap, which fails when another was faster; then what was copied, perhaps while it was written over, is forgotten. So
 * nobody is ever between a reservation and its end. Where things are also taken, what the tail says of the last taker stays
 * where it is; now and then, and when there is nothing else, what dead takers have left is popped. */
#include "fifo/fifo.h"
#include <errno.h>

#define ORPHANS_EVERY 256u /* pops */

void fifo_read(const hp_fifo *fifo, uint64_t position, void *elements, uint64_t n)
{
	uint64_t at = position & fifo->mask, words = fifo->words;
	char *to = elements;
	if (fifo->flags) {
		unsigned shift = fifo_many_producers(fifo);
		for (uint64_t i = 0; i < n * words; i++) {
			uint64_t k = at * words + i;
			if (k >= fifo->capacity * words) k -= fifo->capacity * words;
			/* the second of a pair */
			uint64_t word = atomic_load_explicit(&fifo->entries[(k << shift) + shift], memory_order_relaxed);
			memcpy(to + i * 8, &word, 8);
		}
		return;
	}
	const char *entries = (const char *)(uintptr_t)fifo->entries;
	uint64_t first = fifo->capacity - at < n ? fifo->capacity - at : n;
	memcpy(to, entries + at * words * 8, first * words * 8);
	if (unlikely(n > first)) memcpy(to + first * words * 8, entries, (n - first) * words * 8);
}

static inline uint64_t pop_alone(hp_fifo *fifo, void *elements, uint64_t n, uint64_t least)
{
	_Atomic uint64_t *tail = &fifo->shared->tail.a;
	uint64_t at = atomic_load_explicit(tail, memory_order_relaxed), ready = fifo_ready(fifo, at, n);
	if (n > ready) n = ready;
	if (n < least || n == 0) return 0;
	fifo_read(fifo, at, elements, n);
	/* commit: they are the caller's. Release: they were read before they are written over. */
	atomic_store_explicit(tail, at + n, memory_order_release);
	return n;
}

static uint64_t pop_shared(hp_fifo *fifo, void *elements, uint64_t n, uint64_t least)
{
	struct fifo_pair *tail = &fifo->shared->tail;
	bool takes = atomic_load_explicit(&fifo->shared->takes, memory_order_relaxed);
	if (takes && ++fifo->pops % ORPHANS_EVERY == 0) {
		uint64_t popped = fifo_pop_orphan(fifo, elements, n, least);
		if (popped) return popped;
	}
	for (;;) {
		uint64_t at = atomic_load_explicit(&tail->a, memory_order_acquire);
		uint64_t ready = fifo_ready(fifo, at, n), some = n < ready ? n : ready;
		if (some < least || some == 0) return takes ? fifo_pop_orphan(fifo, elements, n, least) : 0;
		fifo_read(fifo, at, elements, some);
		/* commit: they are the caller's. Acquire and release: they were read before they are written over. What the tail
		 * says of the last taker stays. */
		if (atomic_compare_exchange_strong(&tail->a, &at, at + some)) return some;
	}
}

uint64_t fifo_pop_some(hp_fifo *fifo, void *elements, uint64_t n, uint64_t least)
{
	bool many = fifo_many_consumers(fifo);
	uint64_t popped = many ? pop_shared(fifo, elements, n, least) : pop_alone(fifo, elements, n, least);
	if (likely(popped)) fifo_wake(fifo, false);
	return popped;
}

int hp_fifo_pop(hp_fifo *fifo, void *element)
{
	if (unlikely(fifo->taken)) return -EBUSY;
	if (likely(fifo->plain)) { /* pop_alone, of one word */
		_Atomic uint64_t *tail = &fifo->shared->tail.a;
		uint64_t at = atomic_load_explicit(tail, memory_order_relaxed);
		if (unlikely(fifo->head_seen - at - 1 > fifo->mask) && !fifo_ready(fifo, at, 1)) return -EAGAIN;
		uint64_t word = atomic_load_explicit(&fifo->entries[at & fifo->mask], memory_order_relaxed);
		memcpy(element, &word, 8);
		/* commit: as there */
		atomic_store_explicit(tail, at + 1, memory_order_release);
		fifo_wake(fifo, false);
		return 0;
	}
	return likely(fifo_pop_some(fifo, element, 1, 1)) ? 0 : -EAGAIN;
}

int hp_fifo_pop_bulk(hp_fifo *fifo, void *elements, size_t n)
{
	if (unlikely(n > fifo->capacity)) return -EINVAL;
	if (unlikely(fifo->taken)) return -EBUSY;
	return n == 0 || fifo_pop_some(fifo, elements, n, n) ? 0 : -EAGAIN;
}

int64_t hp_fifo_pop_burst(hp_fifo *fifo, void *elements, size_t n)
{
	if (unlikely(fifo->taken)) return -EBUSY;
	return (int64_t)fifo_pop_some(fifo, elements, n, 1);
}

int64_t hp_fifo_peek(hp_fifo *fifo, void *elements, size_t n)
{
	const _Atomic uint64_t *tail = &fifo->shared->tail.a;
	bool many = fifo_many_consumers(fifo);
	for (;;) {
		uint64_t at = atomic_load_explicit(tail, memory_order_acquire) + (many ? 0 : fifo->taken);
		uint64_t ready = fifo_ready(fifo, at, n), some = n < ready ? n : ready;
		fifo_read(fifo, at, elements, some);
		if (!many) return (int64_t)some;
		/* this look comes after what was read, which is not written over before the tail has moved */
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(tail, memory_order_relaxed) == at) return (int64_t)some;
	}
}
