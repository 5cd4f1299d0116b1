/* How a slab is cut: the number of pages is the largest at which little is left over. */
#include "slab/class.h"
#include <string.h>

bool slab_class_fit(struct slab_class *class, uint32_t size, uint32_t align, uint32_t offset, bool built)
{
	uint32_t lead = (align - offset % align) % align, best = 0, best_objects = 0;
	uint64_t best_waste = UINT64_MAX;
	/* at most 16 pages, or 32 where those hold fewer than 8; above 32 KiB a slab is one object */
	uint32_t most = size > 32768 ? (size + lead + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE : size > 8192 ? 32 : 16;
	if (built && most < 2) most = 2;
	for (uint32_t pages = most < SLAB_PAGES ? most : SLAB_PAGES; pages >= (built ? 2 : 1); pages--) {
		uint32_t bytes = pages * HP_PAGE_SIZE, objects = bytes > lead ? (bytes - lead) / size : 0;
		uint32_t limit = built && (pages - 1) * sizeof(struct slab) < SLAB_OBJECTS ? (pages - 1) * sizeof(struct slab)
		                                                                           : SLAB_OBJECTS;
		if (size > 32768) limit = 1;
		if (objects > limit) objects = limit;
		uint64_t waste = (uint64_t)(bytes - objects * size) * 1024 / bytes;
		if (!objects || waste >= best_waste) continue;
		best = pages;
		best_waste = waste;
		best_objects = objects;
		if (waste <= 16) break; /* under 1.6 % counts as none */
	}
	if (!best) return false;
	class->size = size;
	class->reciprocal = (uint32_t)((UINT64_C(1) << 32) / size + ((UINT64_C(1) << 32) % size != 0));
	class->pages = (uint16_t)best;
	class->objects = (uint16_t)best_objects;
	class->lead = (uint16_t)lead;
	class->magazine = 16;
	class->magazine_most = SLAB_MAGAZINE;
	class->built = built;
	/* the map counts in 16 bytes */
	uint32_t slack = best * HP_PAGE_SIZE - lead - best_objects * size, step = align > 16 ? align : 16;
	class->step = (uint16_t)step;
	class->colours = (uint16_t)(slack / step + 1 < UINT16_MAX / step ? slack / step + 1 : UINT16_MAX / step);
	return true;
}

/* Those of malloc, which are the same everywhere: worked out by the process' first pools. */
static struct slab_class malloc_class[SLAB_MALLOC_CLASSES];
static _Atomic int ready; /* 1: being written, 2: there */

void slab_classes_init(hp_pool *pool)
{
	if (atomic_load_explicit(&ready, memory_order_acquire) == 2) {
		memcpy(pool->classes, malloc_class, sizeof malloc_class);
	} else {
		for (unsigned c = 0; c < SLAB_MALLOC_CLASSES; c++) {
			struct slab_class *class = &pool->classes[c];
			uint32_t size = slab_malloc_size(c), few = size <= 2048 ? 8 : size <= 8192 ? 4 : 2;
			slab_class_fit(class, size, size & (~size + 1), 0, false);
			uint32_t least = (few * size + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE;
			class->least = (uint16_t)(least < class->pages ? least : class->pages);
		}
		int nobody = 0;
		if (!atomic_compare_exchange_strong(&ready, &nobody, 1)) return;
		memcpy(malloc_class, pool->classes, sizeof malloc_class);
		atomic_store_explicit(&ready, 2, memory_order_release);
	}
}
