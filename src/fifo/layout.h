/* What a fifo keeps in its pages: its shape, the words of those who wait, head and tail, the cells of those who have it
 * open, holds of what they have taken, and the entries. Grouped by who writes. Positions only grow; that of an element
 * modulo the capacity is its entry. */
#ifndef HUGEPOOL_FIFO_LAYOUT_H
#define HUGEPOOL_FIFO_LAYOUT_H

#include "parity/layout.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* The type of its run of pages. */
#define PAGE_TYPE_FIFO (UINT16_C(9) << PARITY_TYPE_SHIFT)

#define FIFO_MAGIC UINT64_C(0x316f666966706568) /* "hepfifo1" */
#define FIFO_LINE 128 /* two cache lines: the neighbour is fetched along with the one asked for */
#define FIFO_HANDLES 1024u
#define FIFO_WORDS 8u

/* Two words that are changed as one. Head: position, and claim of a producer, odd while it is somebody's (push.c). Tail:
 * position, and the hold for which it was moved last (take.c). Entry, where there are many producers: the claim by which it
 * was written, and the word. */
struct fifo_pair {
	_Alignas(16) _Atomic uint64_t a;
	_Atomic uint64_t b;
};

#define FIFO_LIVE 1u /* `state`; or {record + 1:16, generation:24, FIFO_ENDING:8} */
#define FIFO_ENDING 2u

#define FIFO_SLEEPS 1u /* flags of those who wait */
#define FIFO_ARMED 2u

struct fifo_shared {
	/* written before the run is live */
	uint64_t magic, capacity;
	uint32_t words, flags, handles, zero;
	_Atomic uint64_t state;
	/* read by every push and pop, written when somebody waits, or first takes */
	_Alignas(FIFO_LINE) _Atomic uint32_t pop_flags;
	_Atomic uint32_t pop_futex, push_flags, push_futex;
	_Atomic uint32_t takes; /* something has been taken */
	/* by producers */
	_Alignas(FIFO_LINE) struct fifo_pair head;
	/* by consumers */
	_Alignas(FIFO_LINE) struct fifo_pair tail;
	/* {record + 1:16, generation:24} of who has it open; then, with many consumers, as many holds and what is in them;
	 * then the entries */
	_Alignas(FIFO_LINE) _Atomic uint64_t cell[];
};

_Static_assert(offsetof(struct fifo_shared, head) == 2 * FIFO_LINE, "head");
_Static_assert(offsetof(struct fifo_shared, tail) == 3 * FIFO_LINE, "tail");
_Static_assert(offsetof(struct fifo_shared, cell) == 4 * FIFO_LINE, "cells");

/* A hold: {sequence:36, holder:12, count:7, first:7, state:2}. Elements [first, count) of it are taken. */
enum hold_state { HOLD_FREE = 0, HOLD_TENTATIVE = 1, HOLD_TAKEN = 2 };
#define HOLD_NOBODY 0xfffu

static inline uint64_t hold_make(uint64_t sequence, uint32_t holder, unsigned count, unsigned first,
                                 enum hold_state state)
{
	return sequence << 28 | (uint64_t)(holder & 0xfff) << 16 | (uint64_t)(count & 0x7f) << 9 | (first & 0x7f) << 2 |
	       state;
}
static inline enum hold_state hold_state(uint64_t word)
{
	return (enum hold_state)(word & 3);
}
static inline unsigned hold_first(uint64_t word)
{
	return (unsigned)(word >> 2) & 0x7f;
}
static inline unsigned hold_count(uint64_t word)
{
	return (unsigned)(word >> 9) & 0x7f;
}
static inline uint32_t hold_holder(uint64_t word)
{
	return (uint32_t)(word >> 16) & 0xfff;
}
static inline uint64_t hold_sequence(uint64_t word)
{
	return word >> 28;
}

/* How the tail names a hold: {sequence:36, hold + 1:28}; 0: none. */
static inline uint64_t hold_name(uint32_t hold, uint64_t word)
{
	return hold_sequence(word) << 28 | (hold + 1);
}

#endif
