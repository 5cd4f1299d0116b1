/* An array that grows: a value that refers to a store of twice the size whenever the old one is full.
 *
 * How many items there are is said by the store itself, so a reader that has loaded the reference to it has items and count of
 * the same store, the old or the new one. An item is there before the count says so, and goes after. */
#include <hugepool/collections.h>
#include <errno.h>

struct array_store {
	uint32_t room, used;
	hp_ref item[];
};
struct array {
	HP_REF(struct array_store) store; /* none: of no room */
};

HP_TYPE_VECTOR(hp_array_store, struct array_store, room, item, hp_any);
HP_TYPE(hp_array_type, struct array, (store, hp_array_store));

#define LEAST 4u

static struct array *array_of(hp_tx *tx, hp_ref ref, int *error)
{
	if ((*error = hp_heap_error(tx)) < 0) return NULL;
	struct array *array = hp_heap_deref_checked(hp_heap_of(tx), ref, &hp_array_type, NULL);
	if (!array) *error = -EINVAL;
	return array;
}

static struct array_store *store_of(const hp_heap *heap, hp_ref ref)
{
	const struct array *array = hp_heap_deref(heap, ref);
	hp_ref store = hp_heap_load(&array->store.ref);
	return store.word ? hp_heap_deref(heap, store) : NULL;
}

/* acquire: the items that are counted are there */
static uint32_t used(const struct array_store *store)
{
	return store ? __atomic_load_n(&store->used, __ATOMIC_ACQUIRE) : 0;
}

/* Another store with the first `keep` items; nobody sees it before it is linked, so its words are stored to freely. */
static int move(hp_tx *tx, struct array *array, const struct array_store *old, uint32_t keep, uint32_t room)
{
	hp_ref ref = hp_heap_new(tx, &hp_array_store, room);
	if (!ref.word) return hp_heap_error(tx);
	struct array_store *store = hp_heap_deref(hp_heap_of(tx), ref);
	for (uint32_t i = 0; i < keep; i++) store->item[i] = old->item[i];
	store->used = keep;
	return hp_heap_set(tx, &array->store.ref, ref);
}

hp_ref hp_array_new(hp_tx *tx, uint32_t room)
{
	hp_ref ref = hp_heap_new(tx, &hp_array_type, 0);
	if (!ref.word || !room) return ref;
	return move(tx, hp_heap_deref(hp_heap_of(tx), ref), NULL, 0, room) < 0 ? HP_NONE : ref;
}

int hp_array_push(hp_tx *tx, hp_ref ref, hp_ref value)
{
	int error;
	struct array *array = array_of(tx, ref, &error);
	if (!array) return error;
	struct array_store *store = store_of(hp_heap_of(tx), ref);
	uint32_t n = used(store);
	if (!store || n == store->room) {
		if (n > UINT32_MAX / 2) return -EOVERFLOW;
		if ((error = move(tx, array, store, n, n ? 2 * n : LEAST)) < 0) return error;
		store = store_of(hp_heap_of(tx), ref);
	}
	if ((error = hp_heap_set(tx, &store->item[n], value)) < 0) return error;
	n++;
	return hp_heap_write(tx, &store->used, &n, sizeof n);
}

int hp_array_set(hp_tx *tx, hp_ref ref, uint32_t i, hp_ref value)
{
	int error;
	if (!array_of(tx, ref, &error)) return error;
	struct array_store *store = store_of(hp_heap_of(tx), ref);
	return i < used(store) ? hp_heap_set(tx, &store->item[i], value) : -ERANGE;
}

int hp_array_truncate(hp_tx *tx, hp_ref ref, uint32_t length)
{
	int error;
	struct array *array = array_of(tx, ref, &error);
	if (!array) return error;
	struct array_store *store = store_of(hp_heap_of(tx), ref);
	uint32_t n = used(store);
	if (length > n) return -ERANGE;
	if (length == 0) return hp_heap_set(tx, &array->store.ref, HP_NONE);
	if (length <= store->room / 4) return move(tx, array, store, length, 2 * length);
	if ((error = hp_heap_write(tx, &store->used, &length, sizeof length)) < 0) return error;
	while (n-- > length && error == 0) error = hp_heap_set(tx, &store->item[n], HP_NONE);
	return error;
}

uint32_t hp_array_length(const hp_heap *heap, hp_ref array)
{
	return used(store_of(heap, array));
}

const hp_ref *hp_array_items(const hp_heap *heap, hp_ref array, uint32_t *count)
{
	const struct array_store *store = store_of(heap, array);
	*count = used(store);
	return *count ? store->item : NULL;
}

hp_ref hp_array_get(const hp_heap *heap, hp_ref array, uint32_t i)
{
	const struct array_store *store = store_of(heap, array);
	return i < used(store) ? hp_heap_load(&store->item[i]) : HP_NONE;
}
