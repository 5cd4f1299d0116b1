/* A cell: struct hp_cell of the heap, with calls. */
#include <hugepool/collections.h>
#include <errno.h>

hp_ref hp_cell_get(const hp_heap *heap, hp_ref cell)
{
	return hp_heap_load(&((const struct hp_cell *)hp_heap_deref(heap, cell))->value.ref);
}

int hp_cell_set(hp_tx *tx, hp_ref ref, hp_ref value)
{
	int error = hp_heap_error(tx);
	if (error < 0) return error;
	struct hp_cell *cell = hp_heap_deref_checked(hp_heap_of(tx), ref, &hp_cell_type, NULL);
	return cell ? hp_heap_set(tx, &cell->value.ref, value) : -EINVAL;
}
