/* Objects under I/O; see lend.c. */
#ifndef HUGEPOOL_SLAB_LEND_H
#define HUGEPOOL_SLAB_LEND_H

#include "pool/lent.h"
#include "slab/internal.h"

/* The bit in R that an object that is out has while it is not lent. */
static inline uint64_t slab_natural(const struct slab *slab, unsigned index)
{
	return ~atomic_load_explicit(&slab->a[index >> 6], memory_order_acquire) >> (index & 63) & 1;
}

/* The bit of an object in R. */
static inline void slab_set_bit(struct slab *slab, unsigned index, uint64_t value)
{
	_Atomic uint64_t *word = &slab->r[index >> 6];
	uint64_t r = atomic_load_explicit(word, memory_order_acquire);
	while (likely((r >> (index & 63) & 1) != (value & 1)))
		if (likely(atomic_compare_exchange_weak_explicit(word, &r, r ^ UINT64_C(1) << (index & 63),
		                                                 memory_order_acq_rel, memory_order_acquire)))
			break;
}

/* One pin more on an object, by a ring's step. -EINVAL: it is nobody's; -EBUSY. */
static inline int slab_lend(hp_pool *pool, struct slab *slab, unsigned index, uint64_t natural, struct lent_step step)
{
	if (unlikely(!slab_out(pool, slab, index))) return -EINVAL;
	/* before the bit changes: whoever sees that sees this, and looks at the states */
	if (unlikely(!atomic_load_explicit(&slab->lends, memory_order_relaxed)))
		atomic_store_explicit(&slab->lends, 1, memory_order_release);
	int error = lent_add(pool, lent_place(pool, (uint64_t)(slab - pool->slabs), index), step);
	if (likely(error == 0)) slab_set_bit(slab, index, !natural);
	return error;
}

/* One less, of those there are; or the rest of that, for one who has died on the way. */
void slab_unlend(hp_pool *pool, struct slab *slab, unsigned index, uint64_t natural, struct lent_step step);

#endif
