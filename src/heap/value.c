#include "heap/heap.h"
hp_ref hp_value_import(hp_tx *tx, const struct hp_type *type, const void *value, unsigned flags)
{
	(void)tx, (void)type, (void)value, (void)flags;
	return HP_NONE;
}
uint32_t hp_value_capacity(const hp_heap *heap, hp_ref ref)
{
	uint64_t page;
	uint32_t i;
	struct heap_slab *slab = heap_find(heap, ref.word, &page, &i);
	struct heap_type *type = slab ? heap_type((hp_heap *)heap, atomic_load_explicit(&slab->type, memory_order_relaxed))
	                              : NULL;
	return type ? (uint32_t)heap_room(type, atomic_load_explicit(&slab->size, memory_order_relaxed)) : 0;
}
