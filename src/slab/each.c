/* Every slab of a class, one by one: whoever counts them, or is to have something done with all of them, goes this way, so that
 * all of them see the same ones. */
#include "slab/internal.h"

struct each {
	unsigned class;
	slab_each_fn *call;
	void *arg;
};

static int call_each(hp_pool *pool, struct slab *slab, uint32_t page, void *arg)
{
	struct each *each = arg;
	uint64_t ctl = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	unsigned objects = slab_objects(slab), free = 0;
	(void)pool;
	if (!slab_is_of(slab, each->class) || !slab_counts(ctl)) return 0;
	for (unsigned w = 0; w * 64 < objects; w++)
		free += (unsigned)__builtin_popcountll(slab_free_in(pool, slab, w, objects));
	each->call(each->arg, page, ctl, objects - free, free);
	return 0;
}

void slab_each(hp_pool *pool, unsigned class, slab_each_fn *call, void *arg)
{
	struct each each = {.class = class, .call = call, .arg = arg};
	slab_visit_all(pool, 0, pool_top(pool), call_each, &each);
}
