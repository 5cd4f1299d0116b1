/* Every slab of a class, one by one, for who counts by other things than the sum. */
#include "slab/internal.h"

struct each {
	unsigned class;
	slab_each_fn *call;
	void *arg;
};

static int call_each(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct each *each = arg;
	unsigned objects = slab_objects(slab), free = 0;
	uint64_t ctl = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	(void)pool;
	if (atomic_load_explicit(&slab->class, memory_order_relaxed) != each->class) return 0;
	for (unsigned w = 0; w * 64 < objects; w++) free += (unsigned)__builtin_popcountll(slab_free_in(slab, w, objects));
	/* being made or ended, unless somebody destroys what is free in it */
	if (ctl_state(ctl) != CTL_OWNED && ctl_state(ctl) != CTL_UNOWNED && free == objects) return 0;
	each->call(each->arg, page, ctl, objects - free, free);
	return 0;
}

void slab_each(hp_pool *pool, unsigned class, slab_each_fn *call, void *arg)
{
	struct each each = {.class = class, .call = call, .arg = arg};
	slab_visit_all(pool, 0, pool_top(pool), call_each, &each);
}
