/* Publication for other layers; see publish.c. */
#ifndef HUGEPOOL_PUBLISH_H
#define HUGEPOOL_PUBLISH_H

#include "pool/pool.h"

#define PUBLISH_VALUE UINT64_C(8) /* with the offset of a block, which is a multiple of 16 */

/* hp_alloc_into, of any class of slabs whose objects begin at multiples of 16. size: what debug modes see of it, or 0. */
int publish_into(hp_pool *pool, unsigned class, size_t size, uint64_t *dst);

/* The same for the word of the header that names the pool's default container. `fill`: called with the block before anybody can
 * see it, inside an operation. */
typedef void publish_fill_fn(void *block);
int publish_container(hp_pool *pool, size_t size, publish_fill_fn *fill);
int unpublish_container(hp_pool *pool); /* as hp_free_from */

#endif
