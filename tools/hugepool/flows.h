/* The table of one worker's flows: values in a shared heap, changed in its transactions.
 *
 * The root has the worker's totals and 512 slots. What hashes to a slot is a tree: a flow refers to up to eight others, and the
 * next three bits of the hash say which. So nothing is ever moved or made larger, a new flow is one new value and one reference
 * stored, and what a transaction undoes is as little as what it does. A flow that was new in a transaction that was undone is
 * garbage, and collected. */
#ifndef HUGEPOOL_TOOL_FLOWS_H
#define HUGEPOOL_TOOL_FLOWS_H

#include "frame.h"

#include <hugepool/heap.h>

#define FLOWS_LOG2 9 /* slots of a table */

struct flow {
	_Alignas(64) struct flow_key key;
	uint64_t hash;
	uint64_t frames, bytes;
	HP_REF(struct flow) next[8]; /* other flows, by the next three bits of the hash */
};
_Static_assert(sizeof(struct flow) == 128, "what is compared is one cache line, what is followed the other");

/* What has been counted. `frames` is also the position in the worker's rings: frames before it have been counted. */
struct flow_totals {
	uint64_t frames, bytes, flows, other;
};

struct flow_table {
	struct flow_totals totals;
	uint32_t slots, zero;
	hp_ref slot[];
};

HP_TYPE_DECLARE(flow_type);
HP_TYPE_DECLARE(flow_table_type);

struct flow_sum {
	uint64_t flows, frames, bytes, largest_bytes;
};

/* A heap with an empty table as its root. 0 or -errno. */
int flow_heap_create(hp_pool *pool, hp_heap **heap);

/* The root; NULL when it is none. In a transaction, or where nobody writes. */
struct flow_table *flow_table_of(const hp_heap *heap);

/* Counts a frame for its flow: 1, or 0 when the flow was known, or what is wrong with the transaction. */
int flow_count(hp_tx *tx, struct flow_table *table, const struct flow_key *key, uint64_t hash, uint32_t bytes);

/* Adds what is in the heap; nobody else writes to it. Garbage is collected before, so what is added is what the root reaches. */
int flow_add_up(hp_heap *heap, struct flow_sum *sum);

#endif
