/* Pushing.
 *
 * One producer: elements, then the head, by one store. Of the tail it looks at a copy, which is never beyond it, and only at the
 * tail itself when that says that there is no room; the head is read where it lies, so that a successor, or another
 * handle, goes on where the last one has stopped.
 *
 * Many producers: who wants to push claims the head, writes behind it, and moves it, in one compare-and-swap for all of its
 * elements. A claim that does not come to an end is taken over, whether its owner is dead, stopped or slow: he may go on
 * writing, but each entry is swapped from what he read there before he last saw his claim, and bears the claim of who wrote it,
 * which is never the same again. So he changes nothing that a later claim has written; and his head does not move. Model: tests/models/fifo_model.py. */
#include "fifo/fifo.h"
#include <errno.h>

#define FETCH 64u     /* elements that are asked for at once */
#define PATIENCE 128u /* looks at somebody's claim, before it is taken over */
#define PATIENCE_MAX \
	(1u << 20) /* it doubles whenever one was taken over: two who do that to each other do not go on for ever */

static inline void pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* By a producer that is alone. */
static inline void write_alone(const hp_fifo *fifo, uint64_t position, const void *elements, uint64_t n)
{
	uint64_t at = position & fifo->mask, words = fifo->words;
	const char *from = elements;
	if (fifo_many_consumers(fifo)) {
		/* one of them may be reading what is written over, which it does not believe then; but that is no race */
		for (uint64_t i = 0; i < n * words; i++) {
			uint64_t word;
			memcpy(&word, from + i * 8, 8);
			uint64_t k = at * words + i;
			if (k >= fifo->capacity * words) k -= fifo->capacity * words;
			atomic_store_explicit(&fifo->entries[k], word, memory_order_relaxed);
		}
		return;
	}
	char *entries = (char *)(uintptr_t)fifo->entries;
	uint64_t first = fifo->capacity - at < n ? fifo->capacity - at : n;
	memcpy(entries + at * words * 8, from, first * words * 8);
	if (unlikely(n > first)) memcpy(entries, from + first * words * 8, (n - first) * words * 8);
}

static inline uint64_t push_alone(hp_fifo *fifo, const void *elements, uint64_t n, uint64_t least)
{
	struct fifo_pair *head = &fifo->shared->head;
	uint64_t at = atomic_load_explicit(&head->a, memory_order_relaxed), room = fifo_room(fifo, at, n);
	if (n > room) n = room;
	if (n < least || n == 0) return 0;
	write_alone(fifo, at, elements, n);
	/* commit: all of them are there. Before it they are nothing. */
	atomic_store_explicit(&head->a, at + n, memory_order_release);
	return n;
}

/* One word of an entry; false: the claim is not ours any more. */
static bool write_claimed(struct fifo_pair *head, struct fifo_pair *entry, uint64_t claim, uint64_t word)
{
	for (;;) {
		/* what is there is read before the look at the claim: acquire */
		uint64_t tag = atomic_load_explicit(&entry->a, memory_order_acquire);
		uint64_t old = atomic_load_explicit(&entry->b, memory_order_acquire);
		if (atomic_load_explicit(&head->b, memory_order_acquire) != claim) return false;
		if (pair_swap(entry, tag, old, claim, word)) return true;
	}
}

static bool write_all(hp_fifo *fifo, uint64_t position, uint64_t claim, const void *elements, uint64_t n)
{
	const char *from = elements;
	for (uint64_t i = 0; i < n; i++) {
		struct fifo_pair *entry = fifo_entry(fifo, position + i);
		for (uint32_t k = 0; k < fifo->words; k++, from += 8) {
			uint64_t word;
			memcpy(&word, from, 8);
			if (!write_claimed(&fifo->shared->head, entry + k, claim, word)) return false;
		}
	}
	return true;
}

/* Whether the claim is still the same after a while. */
static bool lasts(const hp_fifo *fifo, uint64_t claim)
{
	for (uint64_t i = 0; i < fifo->patience; i++) {
		if (atomic_load_explicit(&fifo->shared->head.b, memory_order_relaxed) != claim) return false;
		pause();
	}
	return true;
}

/* Asks for entries, which were last read on another processor, to be written: nothing passes a locked instruction, so without that
 * their lines would come one by one. */
static void fetch(const hp_fifo *fifo, uint64_t position, uint64_t n)
{
	const struct fifo_pair *entries = (const void *)(uintptr_t)fifo->entries;
	uint64_t pairs = fifo->capacity * fifo->words, at = (position & fifo->mask) * fifo->words;
	n = n < FETCH ? n * fifo->words : FETCH * fifo->words;
	for (uint64_t i = 0; i < n; i += 64 / sizeof *entries) { /* a line */
		const struct fifo_pair *entry = entries + (at + i < pairs ? at + i : at + i - pairs);
#if defined(__x86_64__)
		__asm__ volatile("prefetchw %0" : : "m"(*entry));
#else
		__builtin_prefetch(entry, 1);
#endif
	}
}

static uint64_t push_claimed(hp_fifo *fifo, const void *elements, uint64_t n, uint64_t least)
{
	struct fifo_pair *head = &fifo->shared->head;
	fifo->patience = PATIENCE;
	for (;;) {
		uint64_t at = atomic_load_explicit(&head->a, memory_order_acquire);
		uint64_t claim = atomic_load_explicit(&head->b, memory_order_acquire);
		uint64_t room = fifo_room(fifo, at, n), some = n < room ? n : room;
		if (some < least || some == 0) return 0;
		bool others = claim & 1;
		if (others && !lasts(fifo, claim)) continue;
		fetch(fifo, at, some);
		uint64_t mine = claim + (others ? 2 : 1);
		if (!pair_swap(head, at, claim, at, mine)) continue;
		/* commit: all of them are there, by the swap of the head. Before it they are nothing, and others take the claim over. */
		if (write_all(fifo, at, mine, elements, some) && pair_swap(head, at, mine, at + some, mine + 1)) return some;
		if (fifo->patience < PATIENCE_MAX) fifo->patience *= 2;
	}
}

uint64_t fifo_push_some(hp_fifo *fifo, const void *elements, uint64_t n, uint64_t least)
{
	uint64_t pushed = fifo_many_producers(fifo) ? push_claimed(fifo, elements, n, least)
	                                            : push_alone(fifo, elements, n, least);
	if (likely(pushed)) fifo_wake(fifo, true);
	return pushed;
}

int hp_fifo_push(hp_fifo *fifo, const void *element)
{
	if (likely(fifo->plain)) { /* push_alone, of one word */
		_Atomic uint64_t *head = &fifo->shared->head.a;
		uint64_t at = atomic_load_explicit(head, memory_order_relaxed), word;
		if (unlikely(at - fifo->tail_seen > fifo->mask) && !fifo_room(fifo, at, 1)) return -EAGAIN;
		memcpy(&word, element, 8);
		atomic_store_explicit(&fifo->entries[at & fifo->mask], word, memory_order_relaxed);
		/* commit: as there */
		atomic_store_explicit(head, at + 1, memory_order_release);
		fifo_wake(fifo, true);
		return 0;
	}
	return likely(fifo_push_some(fifo, element, 1, 1)) ? 0 : -EAGAIN;
}

int hp_fifo_push_bulk(hp_fifo *fifo, const void *elements, size_t n)
{
	if (unlikely(n > fifo->capacity)) return -EINVAL;
	return n == 0 || fifo_push_some(fifo, elements, n, n) ? 0 : -EAGAIN;
}

int64_t hp_fifo_push_burst(hp_fifo *fifo, const void *elements, size_t n)
{
	return (int64_t)fifo_push_some(fifo, elements, n, 1);
}

int hp_fifo_stage(hp_fifo *fifo, uint64_t skip, const void *elements, size_t n)
{
	if (fifo_many_producers(fifo)) return -ENOTSUP;
	if (n > fifo->capacity || skip > fifo->capacity - n) return -EINVAL;
	uint64_t at = atomic_load_explicit(&fifo->shared->head.a, memory_order_relaxed);
	if (fifo_room(fifo, at, skip + n) < skip + n) return -EAGAIN;
	write_alone(fifo, at + skip, elements, n);
	return 0;
}

int hp_fifo_publish(hp_fifo *fifo, size_t n)
{
	_Atomic uint64_t *head = &fifo->shared->head.a;
	if (fifo_many_producers(fifo)) return -ENOTSUP;
	uint64_t at = atomic_load_explicit(head, memory_order_relaxed);
	if (n > fifo_room(fifo, at, n)) return -EINVAL;
	if (n == 0) return 0;
	/* commit: all of them are there. Release: also what a dead one has written. */
	atomic_store_explicit(head, at + n, memory_order_release);
	fifo_wake(fifo, true);
	return 0;
}
