/* Publication for other layers; see publish.c. */
#ifndef HUGEPOOL_PUBLISH_H
#define HUGEPOOL_PUBLISH_H

#include "pool/pool.h"

#define PUBLISH_VALUE UINT64_C(8) /* with the offset of a block, which is a multiple of 16 */

/* hp_alloc_into, of any class of slabs whose objects begin at multiples of 16. size: what debug modes see of it, or 0. */
int publish_into(hp_pool *pool, unsigned class, size_t size, uint64_t *dst);

#endif
