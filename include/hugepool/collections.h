/* Ready-made structures on the shared heap: a cell, an array that grows, a queue, a hash table, a byte buffer.
 *
 * Each is a value, named by a reference that may hang under any root, and built on hugepool/heap.h alone. Calls that take a
 * transaction change it, and are undone with it; calls that take a heap read it, and run in a section (or in a transaction,
 * or while the structure is guarded). Reading takes no lock and waits for nobody, and checks nothing: the reference must be
 * one of the structure. Like members of any value, what a transaction changes is seen at once; who wants several reads as of
 * one moment uses hp_heap_read_begin_version. A death at any instruction leaves what was committed.
 *
 * Calls that change return 0 or an error: -EINVAL: no such structure, -ENOMEM and others of hp_heap_new and hp_heap_set, which
 * are the transaction's from then on; -ENOENT, -ERANGE, -EINVAL and -EOVERFLOW leave it as it was. Calls that make return none
 * on failure. */
#ifndef HUGEPOOL_COLLECTIONS_H
#define HUGEPOOL_COLLECTIONS_H

#include <hugepool/heap.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Their types, for members that refer to them. */
HP_API_DATA extern const struct hp_type hp_array_type, hp_queue_type, hp_table_type, hp_buffer_type;

/* ---- cell: one reference that all share; hp_heap_box makes one ---- */

HP_API hp_ref hp_cell_get(const hp_heap *heap, hp_ref cell);
HP_API int hp_cell_set(hp_tx *tx, hp_ref cell, hp_ref value);

/* ---- array: references by number; at the end it grows, by doubling ---- */

HP_API hp_ref hp_array_new(hp_tx *tx, uint32_t room); /* for so many, before it has to grow */
HP_API int hp_array_push(hp_tx *tx, hp_ref array, hp_ref value);
HP_API int hp_array_set(hp_tx *tx, hp_ref array, uint32_t i, hp_ref value); /* -ERANGE: it is not so long */
/* Makes it `length` long; what is behind goes. -ERANGE: it is not so long. */
HP_API int hp_array_truncate(hp_tx *tx, hp_ref array, uint32_t length);
HP_API uint32_t hp_array_length(const hp_heap *heap, hp_ref array);
HP_API hp_ref hp_array_get(const hp_heap *heap, hp_ref array, uint32_t i); /* none beyond the end */
/* All of one store, to be read with hp_heap_load: whatever becomes of the array meanwhile, i < *count may be looked at. What
 * has been truncated since is none. NULL: there are none. */
HP_API const hp_ref *hp_array_items(const hp_heap *heap, hp_ref array, uint32_t *count);

/* ---- queue: first in, first out ---- */

HP_API hp_ref hp_queue_new(hp_tx *tx);
HP_API int hp_queue_push(hp_tx *tx, hp_ref queue, hp_ref value);
/* -ENOENT: it is empty. The value stays until the transaction ends, or is guarded or linked before. */
HP_API int hp_queue_pop(hp_tx *tx, hp_ref queue, hp_ref *value);
HP_API uint64_t hp_queue_length(const hp_heap *heap, hp_ref queue);
/* What pop would give. -ENOENT: it is empty. */
HP_API int hp_queue_peek(const hp_heap *heap, hp_ref queue, hp_ref *value);
/* From the first to the last, until fn returns other than 0, which is returned. What is popped or pushed on the way may be
 * among them or not; of the others none is missed. */
HP_API int hp_queue_each(const hp_heap *heap, hp_ref queue, int (*fn)(const hp_heap *heap, hp_ref value, void *arg),
                         void *arg);

/* ---- hash table ---- */

enum hp_table_kind {
	HP_TABLE_NUMBERS =
		1,              /* uint64_t to uint64_t: a look-up is one cache line beside the directory; nothing to collect */
	HP_TABLE_REFS = 2,  /* uint64_t to a reference, other than none */
	HP_TABLE_BYTES = 3, /* byte strings to an entry with a reference and a number */
};

/* seed: of the hash; at random where others choose the keys. */
HP_API hp_ref hp_table_new(hp_tx *tx, enum hp_table_kind kind, uint64_t seed);
HP_API uint64_t hp_table_count(const hp_heap *heap, hp_ref table);

/* Put what was not there, or change it. It grows a part at a time: a call moves at most 765 keys, and sees to it that readers
 * find every key all the while. The directory has a reference for some 400 keys; its doubling copies it. -ENOSPC: keys that
 * hash alike. */
HP_API int hp_table_put(hp_tx *tx, hp_ref table, uint64_t key, uint64_t number);
HP_API int hp_table_put_ref(hp_tx *tx, hp_ref table, uint64_t key, hp_ref value); /* -EINVAL: none */
HP_API int hp_table_remove(hp_tx *tx, hp_ref table, uint64_t key);                /* of either kind. -ENOENT */
HP_API bool hp_table_get(const hp_heap *heap, hp_ref table, uint64_t key, uint64_t *number);
HP_API hp_ref hp_table_get_ref(const hp_heap *heap, hp_ref table, uint64_t key); /* none: it is not there */
/* Where the number of a key lies; NULL: it is not there. An atomic store there is seen by all look-ups and undone by none. To
 * be sure that it is not lost to a call that moves the key, store in a transaction; or have a table of references to values
 * with the numbers, which never move. */
HP_API uint64_t *hp_table_number(const hp_heap *heap, hp_ref table, uint64_t key);

/* By bytes. An entry stays where it is as long as its key is there; `number` is free to be stored to at any time. */
struct hp_table_entry {
	HP_REF(void) value;
	uint64_t number;
	HP_REF(struct hp_table_entry) next; /* of another key with the same hash */
	uint32_t length;
	unsigned char key[];
};
HP_API_DATA extern const struct hp_type hp_table_entry_type;
HP_API int hp_table_put_bytes(hp_tx *tx, hp_ref table, const void *key, uint32_t length, hp_ref value, uint64_t number);
HP_API int hp_table_remove_bytes(hp_tx *tx, hp_ref table, const void *key, uint32_t length); /* -ENOENT */
/* NULL: it is not there. */
HP_API struct hp_table_entry *hp_table_find_bytes(const hp_heap *heap, hp_ref table, const void *key, uint32_t length);

/* Without keys, and as small as a new one; so is a table from which the last key was removed. */
HP_API int hp_table_clear(hp_tx *tx, hp_ref table);

struct hp_table_item {
	uint64_t key, number; /* by the kind of the table */
	hp_ref value;
	const struct hp_table_entry *entry; /* by bytes; else NULL */
};
/* Every key once, until fn returns other than 0, which is returned. Of what others put or remove meanwhile some may be among
 * them; a key that is there all the time is not missed. */
HP_API int hp_table_each(const hp_heap *heap, hp_ref table,
                         int (*fn)(const hp_heap *heap, const struct hp_table_item *item, void *arg), void *arg);

/* ---- byte buffer: grows at the end, by chunks of 4 KiB ---- */

HP_API hp_ref hp_buffer_new(hp_tx *tx);
HP_API int hp_buffer_append(hp_tx *tx, hp_ref buffer, const void *bytes, size_t count);
HP_API int hp_buffer_truncate(hp_tx *tx, hp_ref buffer, uint64_t length); /* -ERANGE: it is not so long */
HP_API uint64_t hp_buffer_length(const hp_heap *heap, hp_ref buffer);
/* Copies up to `count` bytes from `offset` on, all as of one moment; returns how many there were. */
HP_API size_t hp_buffer_read(const hp_heap *heap, hp_ref buffer, uint64_t offset, void *to, size_t count);

#ifdef __cplusplus
}
#endif
#endif
