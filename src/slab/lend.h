/* Objects under I/O; see lend.c. */
#ifndef HUGEPOOL_SLAB_LEND_H
#define HUGEPOOL_SLAB_LEND_H

#include "pool/lent.h"
#include "slab/internal.h"

/* The bit in R that an object that is out has while it is not lent. */
uint64_t slab_natural(const struct slab *slab, unsigned index);
/* One pin more on an object, by a ring's step. -EINVAL: it is nobody's; -EBUSY. */
int slab_lend(hp_pool *pool, struct slab *slab, unsigned index, uint64_t natural, struct lent_step step);
/* One less, of those there are; or the rest of that, for one who has died on the way. */
void slab_unlend(hp_pool *pool, struct slab *slab, unsigned index, uint64_t natural, struct lent_step step);

#endif
