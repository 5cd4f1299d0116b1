/* Keys that are bytes: a table of references by their hash, to entries with the key; those of the same hash are a list.
 *
 * An entry's key never changes, and an entry that is taken out of the list still leads on, so a reader in the middle of it
 * comes to its end. */
#include "collections/table.h"
#include <errno.h>

HP_TYPE_DECLARE(hp_table_entry_type);
HP_TYPE_LEAF_TAIL(hp_table_entry_type, struct hp_table_entry, length, key, (value, hp_any),
                  (next, hp_table_entry_type));

static bool is_key(const struct hp_table_entry *entry, const void *key, uint32_t length)
{
	return entry->length == length && memcmp(entry->key, key, length) == 0;
}

struct hp_table_entry *hp_table_find_bytes(const hp_heap *heap, hp_ref ref, const void *key, uint32_t length)
{
	const struct table *table = hp_heap_deref(heap, ref);
	hp_ref at = hp_table_get_ref(heap, ref, table_hash_bytes(key, length, table->seed));
	while (at.word) {
		struct hp_table_entry *entry = hp_heap_deref(heap, at);
		if (is_key(entry, key, length)) return entry;
		at = hp_heap_load(&entry->next.ref);
	}
	return NULL;
}

int hp_table_put_bytes(hp_tx *tx, hp_ref ref, const void *key, uint32_t length, hp_ref value, uint64_t number)
{
	int error;
	hp_heap *heap = hp_heap_of(tx);
	struct table *table = table_of(tx, ref, true, &error);
	if (!table) return error;
	struct hp_table_entry *entry = hp_table_find_bytes(heap, ref, key, length);
	if (entry) {
		if ((error = hp_heap_set(tx, &entry->value.ref, value)) < 0) return error;
		return hp_heap_write(tx, &entry->number, &number, sizeof number);
	}
	if (value.word && !hp_heap_deref_checked(heap, value, NULL, NULL)) return -EINVAL;
	uint64_t hash = table_hash_bytes(key, length, table->seed), count = table->count;
	hp_ref first = hp_table_get_ref(heap, ref, hash), new = hp_heap_new(tx, &hp_table_entry_type, length);
	if (!new.word) return hp_heap_error(tx);
	entry = hp_heap_deref(heap, new);
	memcpy(entry->key, key, length);
	entry->number = number;
	entry->next.ref = first;
	entry->value.ref = value; /* by a store: what a reader finds in it stays when the transaction is undone */
	if ((error = table_put(tx, table, hash, (union table_value){.ref.ref = new})) < 0) return error;
	count++;
	return table->count == count ? 0 : hp_heap_write(tx, &table->count, &count, sizeof count);
}

int hp_table_remove_bytes(hp_tx *tx, hp_ref ref, const void *key, uint32_t length)
{
	int error;
	hp_heap *heap = hp_heap_of(tx);
	struct table *table = table_of(tx, ref, true, &error);
	if (!table) return error;
	uint64_t hash = table_hash_bytes(key, length, table->seed), count = table->count - 1;
	struct hp_table_entry *before = NULL, *entry = NULL;
	hp_ref at = hp_table_get_ref(heap, ref, hash);
	for (; at.word; at = entry->next.ref, before = entry) {
		entry = hp_heap_deref(heap, at);
		if (is_key(entry, key, length)) break;
	}
	if (!at.word) return -ENOENT;
	hp_ref next = entry->next.ref;
	if (!before && !next.word) return table_remove(tx, table, hash);
	error = before ? hp_heap_set(tx, &before->next.ref, next)
	               : table_put(tx, table, hash, (union table_value){.ref.ref = next});
	return error < 0 ? error : hp_heap_write(tx, &table->count, &count, sizeof count);
}
