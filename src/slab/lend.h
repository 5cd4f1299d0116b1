/* Objects under I/O; see lend.c. */
#ifndef HUGEPOOL_SLAB_LEND_H
#define HUGEPOOL_SLAB_LEND_H

#include "pool/lent.h"
#include "slab/internal.h"

/* One pin more on an object, by a ring's step (pool/lent.h). -EINVAL: it is nobody's; -EBUSY; -ENOMEM. */
int slab_lend(hp_pool *pool, struct slab *slab, unsigned index, uint32_t ring, uint32_t step);
/* One less, of those there are; with the last one it is its holder's again, or free. */
/* What follows: where it was done, and who did it has died. */
void slab_unlend_settle(const hp_pool *pool, struct slab *slab, unsigned index);
void slab_unlend(hp_pool *pool, struct slab *slab, unsigned index, uint32_t ring, uint32_t step);

#endif
