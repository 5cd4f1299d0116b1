/* Hash tables.
 *
 * Would catch: a key that is not found while its segment is replaced or the directory doubles, or after a kill in the middle of
 * that; a value of another key, in a slot that was removed from or undone; a key that comes twice; counts that are wrong; keys
 * with one hash that are taken for each other; memory that is kept.
 *
 * In the storm segments stay small, so that most of what a kill meets is their replacement. */
#include "collections/table.h"
#include "hp_collections.h"

#define STABLE 200u /* keys that are always there */
#define KEYS 3000u
#define STORM_LINES 15u

struct model {
	uint64_t count;
	bool there[KEYS];
	uint64_t number[KEYS];
};

/* Neighbours in number have nothing in common. */
static uint64_t key_of(uint64_t k)
{
	return (k + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

/* The upper half is the key's. */
static uint64_t number_of(uint64_t k, uint64_t random)
{
	return (key_of(k) & UINT64_C(0xffffffff00000000)) | (uint32_t)random;
}

static void must_fit(uint64_t k, uint64_t number)
{
	must_be(number >> 32, key_of(k) >> 32);
}

static uint32_t text_of(uint64_t k, char text[64])
{
	return (uint32_t)snprintf(text, 64, "%*llu", (int)(k % 40), (unsigned long long)k);
}

/* ---- numbers by numbers, and references by bytes, with the same calls ---- */

struct form {
	int (*put)(hp_tx *tx, hp_ref it, uint64_t k, uint64_t number);
	int (*remove)(hp_tx *tx, hp_ref it, uint64_t k);
	bool (*get)(const hp_heap *heap, hp_ref it, uint64_t k, uint64_t *number);
	enum hp_table_kind kind;
};

static int put_number(hp_tx *tx, hp_ref it, uint64_t k, uint64_t number)
{
	return hp_table_put(tx, it, key_of(k), number);
}

static int remove_number(hp_tx *tx, hp_ref it, uint64_t k)
{
	return hp_table_remove(tx, it, key_of(k));
}

static bool get_number(const hp_heap *heap, hp_ref it, uint64_t k, uint64_t *number)
{
	return hp_table_get(heap, it, key_of(k), number);
}

static int put_ref(hp_tx *tx, hp_ref it, uint64_t k, uint64_t number)
{
	return hp_table_put_ref(tx, it, key_of(k), seal(tx, number));
}

static bool get_ref(const hp_heap *heap, hp_ref it, uint64_t k, uint64_t *number)
{
	hp_ref value = hp_table_get_ref(heap, it, key_of(k));
	if (value.word) *number = unsealed(heap, value);
	return value.word != 0;
}

static int put_bytes(hp_tx *tx, hp_ref it, uint64_t k, uint64_t number)
{
	char text[64];
	uint32_t length = text_of(k, text);
	return hp_table_put_bytes(tx, it, text, length, seal(tx, number), number);
}

static int remove_bytes(hp_tx *tx, hp_ref it, uint64_t k)
{
	char text[64];
	uint32_t length = text_of(k, text);
	return hp_table_remove_bytes(tx, it, text, length);
}

static bool get_bytes(const hp_heap *heap, hp_ref it, uint64_t k, uint64_t *number)
{
	char text[64];
	uint32_t length = text_of(k, text);
	const struct hp_table_entry *entry = hp_table_find_bytes(heap, it, text, length);
	if (!entry) return false;
	must(entry->length == length && memcmp(entry->key, text, length) == 0);
	must_fit(k, __atomic_load_n(&entry->number, __ATOMIC_RELAXED));
	*number = unsealed(heap, hp_heap_load(&entry->value.ref));
	return true;
}

static const struct form numbers = {put_number, remove_number, get_number, HP_TABLE_NUMBERS};
static const struct form refs = {put_ref, remove_number, get_ref, HP_TABLE_REFS};
static const struct form bytes = {put_bytes, remove_bytes, get_bytes, HP_TABLE_BYTES};
static const struct form *form;

/* ---- the storm ---- */

static hp_ref make(hp_tx *tx)
{
	hp_ref table = table_make(tx, form->kind, 42, STORM_LINES);
	for (uint64_t k = 0; k < STABLE; k++) must_be(form->put(tx, table, k, number_of(k, 0)), 0);
	return table;
}

/* A new table with what must always be there takes the place of the old one. */
static void renew(struct storm *s, hp_tx *tx, struct model *m)
{
	if (tx) must_be(hp_heap_set(tx, &storm_root(s)->it.ref, make(tx)), 0);
	for (uint64_t k = 0; m && k < KEYS; k++) {
		m->there[k] = k < STABLE;
		m->number[k] = number_of(k, 0);
	}
	if (m) m->count = STABLE;
}

static void put(struct storm *s, hp_tx *tx, struct model *m, uint64_t k, uint64_t number)
{
	uint64_t got;
	if (tx) {
		must_be(form->put(tx, storm_it(s), k, number), 0);
		must(form->get(s->heap, storm_it(s), k, &got) && got == number);
	}
	if (!m) return;
	m->count += !m->there[k];
	m->there[k] = true;
	m->number[k] = number;
}

static void take_out(struct storm *s, hp_tx *tx, struct model *m, uint64_t k)
{
	uint64_t got;
	int result = tx ? form->remove(tx, storm_it(s), k) : 0;
	if (tx && m) must_be(result, m->there[k] ? 0 : -ENOENT);
	if (tx) must(!form->get(s->heap, storm_it(s), k, &got));
	if (!m) return;
	m->count -= m->there[k];
	m->there[k] = false;
}

static void change(struct storm *s, hp_tx *tx, uint64_t *random, void *model)
{
	for (uint64_t n = 1 + hp_below(random, 12); n--;) {
		uint64_t what = hp_below(random, 1000), r = hp_random(random), k = hp_below(random, KEYS);
		if (what == 0)
			renew(s, tx, model);
		else if (what < 600 || k < STABLE)
			put(s, tx, model, k, number_of(k, r));
		else
			take_out(s, tx, model, k);
	}
}

struct seen {
	uint8_t times[KEYS];
	unsigned keys;
};

static int see(const hp_heap *heap, const struct hp_table_item *item, void *arg)
{
	struct seen *seen = arg;
	uint64_t k, number = form->kind == HP_TABLE_REFS ? unsealed(heap, item->value) : item->number;
	if (form->kind == HP_TABLE_BYTES) {
		char text[64] = {0};
		must(item->entry->length < sizeof text);
		memcpy(text, item->entry->key, item->entry->length);
		k = strtoull(text, NULL, 10);
	} else {
		k = item->key * UINT64_C(0xf1de83e19937733d) - 1; /* the inverse of key_of */
	}
	must(k < KEYS);
	must_fit(k, number);
	seen->times[k]++;
	seen->keys++;
	return 0;
}

static void verify(struct storm *s, hp_ref it, uint64_t *random)
{
	uint64_t number;
	for (unsigned n = 0; n < 100; n++) {
		uint64_t k = hp_below(random, STABLE);
		must(form->get(s->heap, it, k, &number));
		must_fit(k, number);
		k = STABLE + hp_below(random, KEYS - STABLE);
		if (form->get(s->heap, it, k, &number)) must_fit(k, number);
		must(!form->get(s->heap, it, KEYS + k, &number));
	}
	if (hp_below(random, 50)) return;
	struct seen seen = {0};
	must_be(hp_table_each(s->heap, it, see, &seen), 0);
	for (unsigned k = 0; k < STABLE; k++) must(seen.times[k] > 0);
}

static void compare(struct storm *s, hp_ref it, const void *model)
{
	const struct model *m = model;
	struct seen seen = {0};
	uint64_t number;
	must_be(hp_table_count(s->heap, it), m->count);
	must_be(hp_table_each(s->heap, it, see, &seen), 0);
	for (uint64_t k = 0; k < KEYS; k++) {
		must_be(form->get(s->heap, it, k, &number), m->there[k]);
		must_be(seen.times[k], m->there[k]);
		if (m->there[k]) must_be(number, m->number[k]);
	}
}

static void storm_of(const struct form *which, const char *name, unsigned kills)
{
	static struct model m;
	form = which;
	renew(NULL, NULL, &m);
	struct storm s = {
		.kills = kills, .model = &m, .make = make, .change = change, .verify = verify, .compare = compare};
	storm_begin(&s, 24 * MIB);
	storm_run(&s, name);
	hp_tx *tx = must_begin(s.heap);
	must_be(hp_table_clear(tx, storm_it(&s)), 0);
	must_be(hp_table_count(s.heap, storm_it(&s)), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(live_values(s.heap), 4);       /* root, table, directory, segment */
	must(held_bytes(s.heap) <= 64 * PAGE); /* each in a slab of 16 at most */
	storm_end(&s);
}

static void numbers_survive_kills(void **state)
{
	(void)state;
	storm_of(&numbers, "numbers", STORM_KILLS);
}

static void refs_survive_kills(void **state)
{
	(void)state;
	storm_of(&refs, "references", STORM_KILLS / 4);
}

static void bytes_survive_kills(void **state)
{
	(void)state;
	storm_of(&bytes, "bytes", STORM_KILLS / 4);
}

/* ---- one process ---- */

static void grows_and_empties(void **state)
{
	(void)state;
	struct storm s = {.make = hp_queue_new};
	const uint64_t n = HP_TEST_SANITIZER ? 20000 : 200000;
	uint64_t number;
	storm_begin(&s, 64 * MIB);
	hp_tx *tx = must_begin(s.heap);
	hp_ref it = hp_table_new(tx, HP_TABLE_NUMBERS, 0);
	must_be(hp_heap_set(tx, &storm_root(&s)->it.ref, it), 0);
	/* keys one after the other, as programs have them */
	for (uint64_t k = 0; k < n; k++) must_be(hp_table_put(tx, it, k, k * 3), 0);
	must_be(hp_table_count(s.heap, it), n);
	must_be(hp_heap_checkpoint(tx), 0);
	for (uint64_t k = 0; k < n; k++) must(hp_table_get(s.heap, it, k, &number) && number == k * 3);
	must(!hp_table_get(s.heap, it, n, &number));
	*hp_table_number(s.heap, it, 77) = 12345;
	must(!hp_table_number(s.heap, it, n));
	must(hp_table_get(s.heap, it, 77, &number) && number == 12345);
	for (uint64_t k = 0; k < n; k++) must_be(hp_table_remove(tx, it, k), 0);
	must_be(hp_table_remove(tx, it, 1), -ENOENT);
	must_be(hp_table_count(s.heap, it), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(live_values(s.heap), 4);
	must(held_bytes(s.heap) <= 64 * PAGE); /* each in a slab of 16 at most */
	storm_end(&s);
}

/* Keys that come and go, few at a time, are no reason to grow for ever. */
static void stays_small(void **state)
{
	(void)state;
	struct storm s = {.make = hp_queue_new};
	storm_begin(&s, 8 * MIB);
	hp_tx *tx = must_begin(s.heap);
	hp_ref it = hp_table_new(tx, HP_TABLE_NUMBERS, 1);
	must_be(hp_heap_set(tx, &storm_root(&s)->it.ref, it), 0);
	for (uint64_t k = 0; k < 100000; k++) {
		must_be(hp_table_put(tx, it, k, k), 0);
		if (k >= 100) must_be(hp_table_remove(tx, it, k - 100), 0);
		if (k % 64 == 0) must_be(hp_heap_checkpoint(tx), 0);
	}
	must_be(hp_heap_commit(tx), 0);
	must_be(live_values(s.heap), 4);
	must(held_bytes(s.heap) <= 64 * PAGE);
	storm_end(&s);
}

static void refuses(void **state)
{
	(void)state;
	struct storm s = {.make = hp_queue_new};
	storm_begin(&s, 8 * MIB);
	hp_tx *tx = must_begin(s.heap);
	hp_ref n = hp_table_new(tx, HP_TABLE_NUMBERS, 0), r = hp_table_new(tx, HP_TABLE_REFS, 0);
	hp_ref b = hp_table_new(tx, HP_TABLE_BYTES, 0), value = seal(tx, 1);
	must_be(hp_table_new(tx, (enum hp_table_kind)7, 0).word, 0);
	must_be(hp_table_put(tx, r, 1, 1), -EINVAL);
	must_be(hp_table_put(tx, b, 1, 1), -EINVAL);
	must_be(hp_table_put(tx, value, 1, 1), -EINVAL);
	must_be(hp_table_put_ref(tx, n, 1, value), -EINVAL);
	must_be(hp_table_put_ref(tx, r, 1, HP_NONE), -EINVAL);
	must_be(hp_table_put_bytes(tx, n, "x", 1, value, 0), -EINVAL);
	must_be(hp_table_put_bytes(tx, b, "x", 1, (hp_ref){value.word + 16}, 0), -EINVAL);
	must_be(hp_table_remove(tx, b, 1), -EINVAL);
	must_be(hp_table_remove_bytes(tx, n, "x", 1), -EINVAL);
	must_be(hp_table_remove_bytes(tx, b, "x", 1), -ENOENT);
	must_be(hp_table_clear(tx, value), -EINVAL);
	must_be(hp_heap_error(tx), 0);
	must_be(hp_table_put_bytes(tx, b, "", 0, HP_NONE, 5), 0); /* an empty key, no reference */
	must_be(hp_table_find_bytes(s.heap, b, "", 0)->number, 5);
	hp_heap_abort(tx);
	storm_end(&s);
}

/* A value that was changed, removed and put again in one transaction is what it was before, when that is undone. */
static void undone_whole(void **state)
{
	(void)state;
	struct storm s = {.make = hp_queue_new};
	storm_begin(&s, 8 * MIB);
	for (unsigned f = 0; f < 3; f++) {
		form = (const struct form *[]){&numbers, &refs, &bytes}[f];
		hp_tx *tx = must_begin(s.heap);
		hp_ref it = hp_table_new(tx, form->kind, 3);
		uint64_t number;
		must_be(hp_heap_set(tx, &storm_root(&s)->it.ref, it), 0);
		for (uint64_t k = 0; k < 5; k++) must_be(form->put(tx, it, k, number_of(k, k)), 0);
		must_be(hp_heap_checkpoint(tx), 0);
		must_be(form->put(tx, it, 1, number_of(1, 99)), 0);
		must_be(form->remove(tx, it, 1), 0);
		must_be(form->put(tx, it, 1, number_of(1, 98)), 0);
		must_be(form->remove(tx, it, 2), 0);
		for (uint64_t k = 5; k < 300; k++) must_be(form->put(tx, it, k, number_of(k, k)), 0);
		must_be(form->remove(tx, it, 3), 0);
		hp_heap_abort(tx);
		must_be(hp_table_count(s.heap, it), 5);
		for (uint64_t k = 0; k < 300; k++) {
			must_be(form->get(s.heap, it, k, &number), k < 5);
			if (k < 5) must_be(number, number_of(k, k));
		}
	}
	storm_end(&s);
}

/* Other bytes with the same hash: the first word is anything, the second follows from it. */
static void one_hash(void **state)
{
	(void)state;
	struct storm s = {.make = hp_queue_new};
	enum { N = 20 };
	uint64_t key[N][2], after[N];
	storm_begin(&s, 8 * MIB);
	hp_tx *tx = must_begin(s.heap);
	hp_ref it = hp_table_new(tx, HP_TABLE_BYTES, 9);
	must_be(hp_heap_set(tx, &storm_root(&s)->it.ref, it), 0);
	for (uint64_t i = 0; i < N; i++) {
		key[i][0] = i;
		after[i] = table_hash(i, 9 ^ 16);
		key[i][1] = after[i] ^ after[0];
		must_be(table_hash_bytes(key[i], 16, 9), table_hash_bytes(key[0], 16, 9));
		must_be(hp_table_put_bytes(tx, it, key[i], 16, seal(tx, i), i), 0);
	}
	must_be(hp_table_count(s.heap, it), N);
	/* the last put is the first of the list: out of its front, its end and its middle */
	for (uint64_t out = 0, order[] = {N - 1, 0, 7, 8, N - 2}; out < 5; out++) {
		must_be(hp_table_remove_bytes(tx, it, key[order[out]], 16), 0);
		must_be(hp_table_remove_bytes(tx, it, key[order[out]], 16), -ENOENT);
		must(!hp_table_find_bytes(s.heap, it, key[order[out]], 16));
		must_be(hp_table_count(s.heap, it), N - 1 - out);
	}
	for (uint64_t i = 1; i < N - 2; i++)
		if (i != 7 && i != 8) must_be(hp_table_find_bytes(s.heap, it, key[i], 16)->number, i);
	for (uint64_t i = 1; i < N - 2; i++)
		if (i != 7 && i != 8) must_be(hp_table_remove_bytes(tx, it, key[i], 16), 0);
	must_be(hp_table_count(s.heap, it), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(live_values(s.heap), 4);
	storm_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_survive_kills), cmocka_unit_test(refs_survive_kills),
		cmocka_unit_test(bytes_survive_kills),   cmocka_unit_test(grows_and_empties),
		cmocka_unit_test(stays_small),           cmocka_unit_test(refuses),
		cmocka_unit_test(undone_whole),          cmocka_unit_test(one_hash),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
