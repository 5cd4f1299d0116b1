/* How far the reader and the sender have come: the root of a heap for each, changed in one transaction a batch.
 *
 * What the one has read up to its commit is in the fifos, and what lies behind it is read again by a successor. What the other
 * has taken out of the fifos up to its commit has been sent. So what no fifo names between the two is nobody's: buffers that
 * a dead reader had got for frames not committed yet, and those that a dead sender had taken and not put back. The
 * supervisor puts them back (sweep.c). */
#ifndef HUGEPOOL_TOOL_LEDGER_H
#define HUGEPOOL_TOOL_LEDGER_H

#include <hugepool/heap.h>

#define LEDGER_FIFOS 64
#define LEDGER_LOCK_MS 10000 /* nobody else writes, but for the supervisor, who undoes the dead */

struct ledger_totals {
	uint64_t frames, bytes;
	uint64_t room; /* buffers taken for them, or given back */
	uint64_t disorder;
};

/* `at`: of the reader how many it has staged for each worker in all, of the sender how many it has taken from each; `frame`: the
 * number of the last of them. */
struct ledger {
	struct ledger_totals totals;
	struct ledger_fifo {
		uint64_t at, frame;
	} fifo[LEDGER_FIFOS];
};

/* A heap whose root is an empty ledger. 0 or -errno. */
int ledger_create(hp_pool *pool, hp_heap **heap);

/* Copies what was committed last; what a dead writer had not committed is undone. */
int ledger_load(hp_heap *heap, struct ledger *ledger);

/* Commits the totals, and of the fifos those of which `which` is true; NULL: just number `only`. */
int ledger_save(hp_heap *heap, const struct ledger *ledger, const bool *which, unsigned only);

#endif
