/* A hash table whose look-ups take no lock: extendible hashing, with keys and values in the lines of its segments.
 *
 * A directory refers to segments by the low bits of the hash; its high bits choose a line of the segment, of three keys and
 * three values, and what finds no room there goes to the next line. A look-up is: table, directory, which stay in the cache;
 * the line.
 *
 * A slot belongs to one key as long as its segment lives, whatever is removed or undone: the key and `claimed` are stored
 * before anybody can find the key, and undone by nobody; so is `more`. Whether the key is there says its bit in `present`, the
 * only thing that a transaction notes down. So a reader that has seen key and bit has, behind them, a value of that key.
 *
 * When a key finds no room near its line the segment is replaced: by a larger one, while there is only one; by two, each with
 * the keys of one more bit of the hash; by one of the same size, when most slots have keys that are gone. The new ones are
 * filled before they are linked, and the old one stays what it was. So every key is found all the time, and a death in the
 * middle is an old segment that stays. */
#include "collections/table.h"
#include <errno.h>

#define NEAR 4u       /* lines that a key may go on to before the segment is too full */
#define DEPTH_MAX 28u /* bits of the hash that the directory uses */

HP_TYPE_ARRAY_LEAF(hp_table_segment_numbers, struct table_segment, lines, line);
HP_TYPE_ARRAY(hp_table_segment_refs, struct table_segment, lines, line, (value[0], hp_any), (value[1], hp_any),
              (value[2], hp_any));
HP_TYPE_VECTOR(hp_table_directory, struct table_directory, count, segment, hp_any);
HP_TYPE(hp_table_type, struct table, (directory, hp_table_directory));

_Static_assert(sizeof(struct table_line) == 64 && sizeof(struct table_segment) == 64, "a line is a cache line");
_Static_assert((TABLE_MOST + 1) * 64 <= 32768, "a segment's place is none of its own");

/* ---- looking ---- */

static uint64_t load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline unsigned slots_with(const struct table_line *line, uint64_t key, unsigned among)
{
	unsigned same = (load(&line->key[0]) == key) | (unsigned)(load(&line->key[1]) == key) << 1 |
	                (unsigned)(load(&line->key[2]) == key) << 2;
	return same & among;
}

static inline uint32_t line_of(uint64_t hash, uint32_t lines)
{
	return (uint32_t)((hash >> 32) * lines >> 32);
}

static inline const struct table_directory *directory_of(const hp_heap *heap, const struct table *table)
{
	return hp_heap_deref(heap, hp_heap_load(&table->directory.ref));
}

static inline struct table_segment *segment_of(const hp_heap *heap, const struct table_directory *directory,
                                               uint64_t hash)
{
	return hp_heap_deref(heap, hp_heap_load(&directory->segment[hash & (directory->count - 1)]));
}

/* The value of a key that is there. */
static inline union table_value *find(const hp_heap *heap, const struct table *table, uint64_t key)
{
	uint64_t hash = table_hash(key, table->seed);
	const struct table_directory *directory = directory_of(heap, table);
	struct table_segment *segment = segment_of(heap, directory, hash);
	uint32_t lines = directory->lines, at = line_of(hash, lines);
	for (uint32_t n = 0; n < lines; n++) {
		struct table_line *line = &segment->line[at];
		/* acquire: the keys of these slots, and their values */
		unsigned slots = slots_with(line, key, __atomic_load_n(&line->present, __ATOMIC_ACQUIRE));
		if (slots) return &line->value[__builtin_ctz(slots)];
		if (!__atomic_load_n(&line->more, __ATOMIC_RELAXED)) return NULL;
		at = at + 1 == lines ? 0 : at + 1;
	}
	return NULL;
}

bool hp_table_get(const hp_heap *heap, hp_ref table, uint64_t key, uint64_t *number)
{
	const union table_value *value = find(heap, hp_heap_deref(heap, table), key);
	if (!value) return false;
	*number = __atomic_load_n(&value->number, __ATOMIC_ACQUIRE);
	return true;
}

uint64_t *hp_table_number(const hp_heap *heap, hp_ref table, uint64_t key)
{
	union table_value *value = find(heap, hp_heap_deref(heap, table), key);
	return value ? &value->number : NULL;
}

hp_ref hp_table_get_ref(const hp_heap *heap, hp_ref table, uint64_t key)
{
	const union table_value *value = find(heap, hp_heap_deref(heap, table), key);
	return value ? hp_heap_load(&value->ref.ref) : HP_NONE; /* none, too, when it has been removed meanwhile */
}

uint64_t hp_table_count(const hp_heap *heap, hp_ref ref)
{
	const struct table *table = hp_heap_deref(heap, ref);
	return __atomic_load_n(&table->count, __ATOMIC_ACQUIRE);
}

/* ---- slots ---- */

struct slot {
	struct table_line *line; /* NULL: none */
	unsigned i;
};

/* The slot that the key has, there or not. */
static struct slot slot_claimed(struct table_segment *segment, uint64_t hash, uint64_t key)
{
	uint32_t at = line_of(hash, segment->lines);
	for (uint32_t n = 0; n < segment->lines; n++) {
		struct table_line *line = &segment->line[at];
		unsigned slots = slots_with(line, key, line->claimed);
		if (slots) return (struct slot){line, (unsigned)__builtin_ctz(slots)};
		if (!line->more) break;
		at = at + 1 == segment->lines ? 0 : at + 1;
	}
	return (struct slot){0};
}

/* A slot for a key that has none, in one of the first `near` lines. */
static struct slot slot_claim(struct table_segment *segment, uint64_t hash, uint64_t key, uint32_t near)
{
	uint32_t home = line_of(hash, segment->lines), at = home;
	unsigned free = 0;
	for (uint32_t n = 0; n < near && n < segment->lines; n++) {
		free = ~segment->line[at].claimed & ((1u << TABLE_SLOTS) - 1);
		if (free) break;
		at = at + 1 == segment->lines ? 0 : at + 1;
	}
	if (!free) return (struct slot){0};
	for (uint32_t passed = home; passed != at; passed = passed + 1 == segment->lines ? 0 : passed + 1)
		__atomic_store_n(&segment->line[passed].more, 1, __ATOMIC_RELAXED);
	struct slot slot = {&segment->line[at], (unsigned)__builtin_ctz(free)};
	__atomic_store_n(&slot.line->key[slot.i], key, __ATOMIC_RELAXED);
	/* commit: the slot is the key's. Release: a death before it leaves a key that is none, and is stored over. */
	__atomic_store_n(&slot.line->claimed, (uint8_t)(slot.line->claimed | 1u << slot.i), __ATOMIC_RELEASE);
	return slot;
}

/* ---- segments ---- */

static struct table_segment *segment_new(hp_tx *tx, const struct table *table, uint32_t lines, uint32_t depth,
                                         hp_ref *ref)
{
	const struct hp_type *type = table->kind == HP_TABLE_NUMBERS ? &hp_table_segment_numbers : &hp_table_segment_refs;
	*ref = hp_heap_new(tx, type, lines);
	if (!ref->word) return NULL;
	struct table_segment *segment = hp_heap_deref(hp_heap_of(tx), *ref);
	segment->depth = depth;
	return segment;
}

/* Into one that nobody sees yet, and that has as many lines as this one. */
static void segment_copy(const struct table *table, const struct table_segment *from, struct table_segment *const to[2],
                         uint32_t bit)
{
	for (uint32_t l = 0; l < from->lines; l++)
		for (unsigned slots = from->line[l].present; slots; slots &= slots - 1) {
			unsigned i = (unsigned)__builtin_ctz(slots);
			uint64_t key = from->line[l].key[i], hash = table_hash(key, table->seed);
			struct table_segment *half = to[hash >> bit & 1];
			struct slot slot = slot_claim(half, hash, key, half->lines);
			slot.line->value[slot.i].number = __atomic_load_n(&from->line[l].value[i].number, __ATOMIC_RELAXED);
			slot.line->present |= (uint8_t)(1u << slot.i);
		}
}

static hp_ref directory_new(hp_tx *tx, uint32_t count, uint32_t lines)
{
	hp_ref ref = hp_heap_new(tx, &hp_table_directory, count);
	if (ref.word) ((struct table_directory *)hp_heap_deref(hp_heap_of(tx), ref))->lines = lines;
	return ref;
}

/* A directory with one empty segment. */
static hp_ref directory_least(hp_tx *tx, const struct table *table)
{
	hp_ref ref = directory_new(tx, 1, TABLE_LEAST), segment;
	if (!ref.word || !segment_new(tx, table, TABLE_LEAST, 0, &segment)) return HP_NONE;
	((struct table_directory *)hp_heap_deref(hp_heap_of(tx), ref))->segment[0] = segment;
	return ref;
}

/* The only segment becomes one of so many lines. */
static int segment_grow(hp_tx *tx, struct table *table, const struct table_segment *old, uint32_t lines)
{
	hp_ref segment, ref = directory_new(tx, 1, lines);
	if (!ref.word) return hp_heap_error(tx);
	struct table_segment *new = segment_new(tx, table, lines, 0, &segment);
	if (!new) return hp_heap_error(tx);
	segment_copy(table, old, (struct table_segment *[]){new, new}, 0);
	((struct table_directory *)hp_heap_deref(hp_heap_of(tx), ref))->segment[0] = segment;
	return hp_heap_set(tx, &table->directory.ref, ref);
}

/* Wherever the directory refers to a segment of that depth it does so to half[0] or half[1], by the next bit. */
static int directory_set(hp_tx *tx, struct table_directory *directory, uint64_t hash, uint32_t depth,
                         const hp_ref half[2])
{
	int error = 0;
	for (uint32_t i = (uint32_t)hash & ((1u << depth) - 1); i < directory->count && error == 0; i += 1u << depth)
		error = hp_heap_set(tx, &directory->segment[i], half[i >> depth & 1]);
	return error;
}

/* Two of a depth one more. */
static int segment_split(hp_tx *tx, struct table *table, struct table_directory *directory,
                         const struct table_segment *old, uint64_t hash)
{
	uint32_t depth = old->depth;
	hp_ref half[2], ref = HP_NONE;
	struct table_segment *new[2];
	if (depth == DEPTH_MAX) return -ENOSPC;
	for (unsigned k = 0; k < 2; k++)
		if (!(new[k] = segment_new(tx, table, old->lines, depth + 1, &half[k]))) return hp_heap_error(tx);
	segment_copy(table, old, new, depth);
	if (UINT32_C(1) << depth == directory->count) {
		ref = directory_new(tx, directory->count * 2, directory->lines);
		if (!ref.word) return hp_heap_error(tx);
		struct table_directory *twice = hp_heap_deref(hp_heap_of(tx), ref);
		for (uint32_t i = 0; i < twice->count; i++) twice->segment[i] = directory->segment[i & (directory->count - 1)];
		directory = twice;
	}
	int error = directory_set(tx, directory, hash, depth, half);
	return error < 0 || !ref.word ? error : hp_heap_set(tx, &table->directory.ref, ref);
}

/* Without the keys that are gone. */
static int segment_clean(hp_tx *tx, const struct table *table, struct table_directory *directory,
                         const struct table_segment *old, uint64_t hash)
{
	hp_ref ref;
	struct table_segment *new = segment_new(tx, table, old->lines, old->depth, &ref);
	if (!new) return hp_heap_error(tx);
	segment_copy(table, old, (struct table_segment *[]){new, new}, 0);
	return directory_set(tx, directory, hash, old->depth, (hp_ref[]){ref, ref});
}

/* A key found no room near its line. */
static int make_room(hp_tx *tx, struct table *table, uint64_t hash)
{
	struct table_directory *directory = (struct table_directory *)directory_of(hp_heap_of(tx), table);
	const struct table_segment *segment = segment_of(hp_heap_of(tx), directory, hash);
	uint32_t slots = segment->lines * TABLE_SLOTS, claimed = 0, present = 0;
	for (uint32_t l = 0; l < segment->lines; l++) {
		claimed += (unsigned)__builtin_popcount(segment->line[l].claimed);
		present += (unsigned)__builtin_popcount(segment->line[l].present);
	}
	if (claimed <= slots / 2) return 0; /* a crowd by chance: it goes further on */
	if (present <= slots / 3) return segment_clean(tx, table, directory, segment, hash);
	if (directory->count == 1 && segment->lines < table->most)
		return segment_grow(tx, table, segment, segment->lines * 2 + 1);
	return segment_split(tx, table, directory, segment, hash);
}

/* ---- changing ---- */

struct table *table_of(hp_tx *tx, hp_ref ref, bool bytes, int *error)
{
	if ((*error = hp_heap_error(tx)) < 0) return NULL;
	struct table *table = hp_heap_deref_checked(hp_heap_of(tx), ref, &hp_table_type, NULL);
	if (table && (table->kind == HP_TABLE_BYTES) == bytes) return table;
	*error = -EINVAL;
	return NULL;
}

hp_ref table_make(hp_tx *tx, enum hp_table_kind kind, uint64_t seed, uint32_t most)
{
	hp_ref ref = kind >= HP_TABLE_NUMBERS && kind <= HP_TABLE_BYTES ? hp_heap_new(tx, &hp_table_type, 0) : HP_NONE;
	if (!ref.word) return ref;
	struct table *table = hp_heap_deref(hp_heap_of(tx), ref);
	table->kind = kind;
	table->seed = seed;
	table->most = most;
	table->directory.ref = directory_least(tx, table);
	return table->directory.ref.word ? ref : HP_NONE;
}

hp_ref hp_table_new(hp_tx *tx, enum hp_table_kind kind, uint64_t seed)
{
	return table_make(tx, kind, seed, TABLE_MOST);
}

static int count_by(hp_tx *tx, struct table *table, int64_t by)
{
	uint64_t count = table->count + (uint64_t)by;
	return hp_heap_write(tx, &table->count, &count, sizeof count);
}

static int set_present(hp_tx *tx, struct slot slot, bool there)
{
	uint8_t present = (uint8_t)((slot.line->present & ~(1u << slot.i)) | (unsigned)there << slot.i);
	return hp_heap_write(tx, &slot.line->present, &present, sizeof present);
}

/* The number of a key that is not there is not noted down: undone, it would be seen by a reader who has still seen the key.
 * Was the key removed in this transaction, it has been noted then. A reference that is undone becomes none, which says it. */
static int set_value(hp_tx *tx, const struct table *table, struct slot slot, union table_value value)
{
	union table_value *to = &slot.line->value[slot.i];
	if (table->kind != HP_TABLE_NUMBERS) return hp_heap_set(tx, &to->ref.ref, value.ref.ref);
	if (slot.line->present >> slot.i & 1) return hp_heap_write(tx, &to->number, &value.number, sizeof value.number);
	__atomic_store_n(&to->number, value.number, __ATOMIC_RELAXED);
	return 0;
}

int table_put(hp_tx *tx, struct table *table, uint64_t key, union table_value value)
{
	const hp_heap *heap = hp_heap_of(tx);
	uint64_t hash = table_hash(key, table->seed);
	int error;
	struct table_segment *segment = segment_of(heap, directory_of(heap, table), hash);
	struct slot slot = slot_claimed(segment, hash, key);
	if (!slot.line) slot = slot_claim(segment, hash, key, NEAR);
	while (!slot.line) {
		if ((error = make_room(tx, table, hash)) < 0) return error;
		segment = segment_of(heap, directory_of(heap, table), hash);
		slot = slot_claim(segment, hash, key, segment->lines);
	}
	if ((error = set_value(tx, table, slot, value)) < 0) return error;
	if (slot.line->present >> slot.i & 1) return 0;
	if ((error = set_present(tx, slot, true)) < 0) return error;
	return count_by(tx, table, 1);
}

int table_remove(hp_tx *tx, struct table *table, uint64_t key)
{
	const hp_heap *heap = hp_heap_of(tx);
	uint64_t hash = table_hash(key, table->seed);
	int error;
	struct slot slot = slot_claimed(segment_of(heap, directory_of(heap, table), hash), hash, key);
	if (!slot.line || !(slot.line->present >> slot.i & 1)) return -ENOENT;
	if (table->kind == HP_TABLE_NUMBERS) { /* as it is; see set_value */
		uint64_t number = load(&slot.line->value[slot.i].number);
		if ((error = hp_heap_write(tx, &slot.line->value[slot.i].number, &number, sizeof number)) < 0) return error;
	}
	if ((error = set_present(tx, slot, false)) < 0) return error;
	if (table->kind != HP_TABLE_NUMBERS && (error = hp_heap_set(tx, &slot.line->value[slot.i].ref.ref, HP_NONE)) < 0)
		return error;
	if (table->count == 1 && directory_of(heap, table)->lines > TABLE_LEAST) {
		hp_ref directory = directory_least(tx, table);
		if (!directory.word) return hp_heap_error(tx);
		if ((error = hp_heap_set(tx, &table->directory.ref, directory)) < 0) return error;
	}
	return count_by(tx, table, -1);
}

int hp_table_put(hp_tx *tx, hp_ref ref, uint64_t key, uint64_t number)
{
	int error;
	struct table *table = table_of(tx, ref, false, &error);
	if (!table) return error;
	if (table->kind != HP_TABLE_NUMBERS) return -EINVAL;
	return table_put(tx, table, key, (union table_value){.number = number});
}

int hp_table_put_ref(hp_tx *tx, hp_ref ref, uint64_t key, hp_ref value)
{
	int error;
	struct table *table = table_of(tx, ref, false, &error);
	if (!table) return error;
	if (table->kind != HP_TABLE_REFS || !value.word) return -EINVAL;
	return table_put(tx, table, key, (union table_value){.ref.ref = value});
}

int hp_table_remove(hp_tx *tx, hp_ref ref, uint64_t key)
{
	int error;
	struct table *table = table_of(tx, ref, false, &error);
	return table ? table_remove(tx, table, key) : error;
}

int hp_table_clear(hp_tx *tx, hp_ref ref)
{
	int error = hp_heap_error(tx);
	if (error < 0) return error;
	struct table *table = hp_heap_deref_checked(hp_heap_of(tx), ref, &hp_table_type, NULL);
	if (!table) return -EINVAL;
	hp_ref directory = directory_least(tx, table);
	if (!directory.word) return hp_heap_error(tx);
	if ((error = hp_heap_set(tx, &table->directory.ref, directory)) < 0) return error;
	return count_by(tx, table, -(int64_t)table->count);
}

/* ---- all of it ---- */

typedef int each_fn(const hp_heap *heap, const struct hp_table_item *item, void *arg);

/* One key, or those whose bytes have the same hash. */
static int each_slot(const hp_heap *heap, uint32_t kind, uint64_t key, const union table_value *value, each_fn *fn,
                     void *arg)
{
	struct hp_table_item item = {.key = key};
	int result = 0;
	if (kind == HP_TABLE_NUMBERS) {
		item.number = load(&value->number);
		return fn(heap, &item, arg);
	}
	hp_ref ref = hp_heap_load(&value->ref.ref);
	if (kind == HP_TABLE_REFS) {
		item.value = ref;
		return ref.word ? fn(heap, &item, arg) : 0;
	}
	while (ref.word && result == 0) {
		item.entry = hp_heap_deref(heap, ref);
		item.value = hp_heap_load(&item.entry->value.ref);
		item.number = load(&item.entry->number);
		ref = hp_heap_load(&item.entry->next.ref);
		result = fn(heap, &item, arg);
	}
	return result;
}

int hp_table_each(const hp_heap *heap, hp_ref ref, each_fn *fn, void *arg)
{
	const struct table *table = hp_heap_deref(heap, ref);
	const struct table_directory *directory = directory_of(heap, table);
	int result = 0;
	for (uint32_t i = 0; i < directory->count && result == 0; i++) {
		const struct table_segment *segment = segment_of(heap, directory, i);
		for (uint32_t l = 0; l < segment->lines && result == 0; l++) {
			const struct table_line *line = &segment->line[l];
			unsigned slots = __atomic_load_n(&line->present, __ATOMIC_ACQUIRE);
			for (; slots && result == 0; slots &= slots - 1) {
				unsigned s = (unsigned)__builtin_ctz(slots);
				uint64_t key = load(&line->key[s]), hash = table_hash(key, table->seed);
				/* the others come where the directory has them, which may be the same segment or not */
				if ((hash & (directory->count - 1)) == i)
					result = each_slot(heap, table->kind, key, &line->value[s], fn, arg);
			}
		}
	}
	return result;
}
