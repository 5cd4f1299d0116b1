/* What the functions of this layer share: looking at one chunk. */
#ifndef HUGEPOOL_INSPECT_INTERNAL_H
#define HUGEPOOL_INSPECT_INTERNAL_H

#include "fifo/layout.h"
#include "page/page.h"
#include "parity/parity.h"
#include "pool/pool.h"
#include "slab/class.h"
#include <hugepool/inspect.h>

/* Calls `each` for every live run headed in the chunk, ascending; stops at a value other than 0 and returns it. */
typedef int inspect_run_fn(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages);
int inspect_runs(const hp_pool *pool, uint32_t chunk, inspect_run_fn *each, void *arg);

/* The control word, and whether memory stands behind the chunk. */
bool inspect_committed(const hp_pool *pool, uint32_t chunk, uint64_t *ctl);

/* Is the run a slab, by its length word? */
static inline bool inspect_is_slab(unsigned len)
{
	return (len & (PARITY_TYPE_MASK | PARITY_LEN_SPANS)) == PAGE_TYPE_SLAB;
}

/* Is it a heap's? */
static inline bool inspect_is_heap(unsigned len)
{
	return (len & PARITY_TYPE_MASK) == PAGE_TYPE_HEAP;
}

/* Is it a fifo? */
static inline bool inspect_is_fifo(unsigned len)
{
	return (len & PARITY_TYPE_MASK) == PAGE_TYPE_FIFO;
}

/* A slab as it reads; nothing in it is believed. */
struct inspect_slab {
	uint64_t page, ctl;
	unsigned pages, class, objects, first, live;
	uint32_t size;             /* of an object; 0: not known yet */
	uint64_t bits[SLAB_WORDS]; /* live objects */
	bool beyond;               /* one behind the last */
};
void inspect_slab(const hp_pool *pool, uint32_t chunk, unsigned page, unsigned len, struct inspect_slab *slab);

#endif
