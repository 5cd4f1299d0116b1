/* How a slab is cut: the number of pages is the largest at which little is left over. */
#include "slab/class.h"

void slab_class_fit(struct slab_class *class)
{
	uint32_t size = class->size, best = 1;
	uint64_t best_waste = UINT64_MAX;
	/* the largest that the words can describe up to 16 pages, or 32 where that holds fewer than 8; the least waste */
	uint32_t most = size > 8192 ? SLAB_PAGES : SLAB_PAGES / 2;
	for (uint32_t pages = 1; pages <= most; pages++) {
		uint32_t objects = pages * HP_PAGE_SIZE / size;
		if (!objects || objects > SLAB_OBJECTS) continue;
		uint64_t waste = (uint64_t)(pages * HP_PAGE_SIZE - objects * size) * 1024 / (pages * HP_PAGE_SIZE);
		if (waste > best_waste && waste > 16) continue; /* under 1.6 % it does not count */
		best = pages;
		best_waste = waste;
	}
	class->reciprocal = (uint32_t)((UINT64_C(1) << 32) / size + ((UINT64_C(1) << 32) % size != 0));
	class->pages = (uint16_t)best;
	class->objects = (uint16_t)(best * HP_PAGE_SIZE / size);
	/* colours keep the alignment that the size has by itself */
	uint32_t slack = (best * HP_PAGE_SIZE - class->objects * size) / 16, step = size / 16;
	step &= ~step + 1;
	class->step = (uint16_t)step;
	class->colours = (uint16_t)(slack / step + 1);
}

void slab_classes_init(hp_pool *pool)
{
	for (unsigned c = 0; c < SLAB_MALLOC_CLASSES; c++) {
		pool->classes[c].size = slab_malloc_size(c);
		slab_class_fit(&pool->classes[c]);
	}
}
