/* The hash table's inside: for its two files and its test. */
#ifndef COLLECTIONS_TABLE_H
#define COLLECTIONS_TABLE_H

#include <hugepool/collections.h>
#include <string.h>

#define TABLE_SLOTS 3u
#define TABLE_LEAST 3u  /* lines of a segment; each size is twice the one before, and one */
#define TABLE_MOST 255u /* beyond, segments become more, not larger */

struct table_line {
	uint8_t present; /* slots whose keys are there */
	uint8_t claimed; /* slots that have a key, there or not */
	uint8_t more;    /* keys that belong here may lie further on */
	uint8_t reserved[13];
	uint64_t key[TABLE_SLOTS];
	union table_value {
		HP_REF(void) ref;
		uint64_t number;
	} value[TABLE_SLOTS];
};
struct table_segment {
	_Alignas(64) uint32_t lines;
	uint32_t depth; /* so many bits of the hash are the same for all its keys */
	uint64_t reserved[7];
	struct table_line line[];
};
struct table_directory {
	uint32_t count; /* power of two */
	uint32_t lines; /* of each segment */
	hp_ref segment[];
};
struct table {
	HP_REF(struct table_directory) directory;
	uint64_t count, seed;
	uint32_t kind, most; /* lines of a segment, at most */
};

/* Every bit of the word bears on every other, and no two words give the same. */
static inline uint64_t table_hash(uint64_t word, uint64_t seed)
{
	word = (word ^ seed) * UINT64_C(0x9fb21c651e98df25);
	word = (word ^ word >> 32) * UINT64_C(0xd1342543de82ef95);
	return word ^ word >> 29;
}

static inline uint64_t table_hash_bytes(const void *key, uint32_t length, uint64_t seed)
{
	const unsigned char *at = key;
	uint64_t hash = seed ^ length, word;
	for (; length >= 8; length -= 8, at += 8) {
		memcpy(&word, at, 8);
		hash = table_hash(word, hash);
	}
	word = 0;
	memcpy(&word, at, length);
	return table_hash(word, hash);
}

hp_ref table_make(hp_tx *tx, enum hp_table_kind kind, uint64_t seed, uint32_t most);
struct table *table_of(hp_tx *tx, hp_ref ref, bool bytes, int *error);
int table_put(hp_tx *tx, struct table *table, uint64_t key, union table_value value);
int table_remove(hp_tx *tx, struct table *table, uint64_t key);

#endif
