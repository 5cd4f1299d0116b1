/* The table of one worker's flows: open addressing in one block of the pool, one cache line a flow.
 *
 * The table belongs to the worker's place in the pipeline, not to its process, so it is in shared memory, holds no
 * pointers, and is changed by absolute values only: a successor can repeat what the dead worker had begun. A slot is in
 * use when its frames are not 0; the key is written before that. Tables grow by filling a larger block from scratch
 * and replacing one shared word, so growth, too, can be repeated. */
#ifndef HUGEPOOL_TOOL_FLOWS_H
#define HUGEPOOL_TOOL_FLOWS_H

#include "frame.h"

#include <stdatomic.h>

#define FLOWS_FIRST_LOG2 10 /* slots of a fresh table */
#define FLOWS_NO_SLOT UINT64_MAX

struct flow_slot {
	struct flow_key key;
	uint64_t hash;
	_Atomic uint64_t frames, bytes;
};
_Static_assert(sizeof(struct flow_slot) == 64, "one cache line a flow");

/* Where a table is: the offset of its block, which is a multiple of a page, and log2 of its slots in the low bits, so
 * that one store replaces a table by another. 0: none. */
typedef uint64_t flow_place;

static inline flow_place flow_place_make(uint64_t offset, unsigned log2)
{
	return offset | log2;
}

static inline uint64_t flow_place_offset(flow_place place)
{
	return place & ~(uint64_t)0xfff;
}

static inline unsigned flow_place_log2(flow_place place)
{
	return place & 0x3f;
}

/* A process' view. */
struct flow_table {
	struct flow_slot *slot;
	uint64_t slots;
};

struct flow_sum {
	uint64_t flows, frames, bytes, largest_bytes;
};

static inline size_t flow_table_bytes(unsigned log2)
{
	return sizeof(struct flow_slot) << log2;
}

/* The slot of a flow, or the free one that it would take; FLOWS_NO_SLOT when it has none and none is free. */
uint64_t flow_find(const struct flow_table *table, const struct flow_key *key, uint64_t hash);

/* Fills `to` with what is in `from`, whatever was in it before. False: it does not fit. */
bool flow_rehash(const struct flow_table *from, const struct flow_table *to);

/* Adds what is in the table. */
void flow_add_up(const struct flow_table *table, struct flow_sum *sum);

#endif
