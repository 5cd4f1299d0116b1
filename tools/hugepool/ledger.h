/* How far the reader and the sender have come: the root of a heap for each, changed in one transaction a batch.
 *
 * What the one has read up to its commit is in the rings, and what lies behind it is read again by a successor. What the other
 * has taken out of the rings up to its commit has been sent. So what no ring names between the two is nobody's: buffers that
 * a dead reader had got for frames not committed yet, and those that a dead sender had taken and not put back. The
 * supervisor puts them back (sweep.c). */
#ifndef HUGEPOOL_TOOL_LEDGER_H
#define HUGEPOOL_TOOL_LEDGER_H

#include <hugepool/heap.h>

#define LEDGER_RINGS 64
#define LEDGER_LOCK_MS 10000 /* nobody else writes, but for the supervisor, who undoes the dead */

struct ledger_totals {
	uint64_t frames, bytes;
	uint64_t room; /* buffers taken for them, or given back */
	uint64_t disorder;
};

/* `at`: position in each worker's ring, of the reader the head of the one, of the sender the tail of the other; `frame`: the
 * number of the frame before it. */
struct ledger {
	struct ledger_totals totals;
	struct ledger_ring {
		uint64_t at, frame;
	} ring[LEDGER_RINGS];
};

/* A heap whose root is an empty ledger. 0 or -errno. */
int ledger_create(hp_pool *pool, hp_heap **heap);

/* Copies what was committed last; what a dead writer had not committed is undone. */
int ledger_load(hp_heap *heap, struct ledger *ledger);

/* Commits the totals, and of the rings those of which `ring` is true; NULL: just ring number `only`. */
int ledger_save(hp_heap *heap, const struct ledger *ledger, const bool *ring, unsigned only);

#endif
