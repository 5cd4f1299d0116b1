/* Arrays that grow.
 *
 * Would catch: an item that is missing while the array moves to a larger or smaller store, one at another's place, a reader
 * that has the count of one store and the items of another, items of an undone push, stores that are not given back. */
#include "hp_collections.h"

#define STABLE 40u /* items that are always there */
#define MOST 3000u

struct model {
	uint32_t length;
	uint64_t what[MOST];
};

/* {index:32, anything:32} */
static uint64_t what_at(uint32_t i, uint64_t random)
{
	return (uint64_t)i << 32 | (uint32_t)random;
}

static hp_ref make(hp_tx *tx)
{
	hp_ref array = hp_array_new(tx, 0);
	for (uint32_t i = 0; i < STABLE; i++) must_be(hp_array_push(tx, array, seal(tx, what_at(i, 0))), 0);
	return array;
}

static void change(struct storm *s, hp_tx *tx, uint64_t *random, void *model)
{
	struct model *m = model;
	hp_ref it = tx ? storm_it(s) : HP_NONE;
	for (uint64_t n = 1 + hp_below(random, 20); n--;) {
		uint64_t what = hp_below(random, 100), r = hp_random(random);
		uint32_t length = tx ? hp_array_length(s->heap, it) : m->length;
		if (tx && m) must_be(length, m->length);
		if (what < 3) {
			length = STABLE + (uint32_t)(r % (length - STABLE + 1));
			if (r >> 62 == 0) length = STABLE;
			if (tx) must_be(hp_array_truncate(tx, it, length), 0);
			if (m) m->length = length;
		} else if (what < 25) {
			uint32_t i = (uint32_t)(r % length);
			if (tx) must_be(hp_array_set(tx, it, i, seal(tx, what_at(i, r))), 0);
			if (m) m->what[i] = what_at(i, r);
		} else if (length < MOST) {
			if (tx) must_be(hp_array_push(tx, it, seal(tx, what_at(length, r))), 0);
			if (m) m->what[m->length++] = what_at(length, r);
		}
	}
}

static void verify(struct storm *s, hp_ref it, uint64_t *random)
{
	uint32_t count;
	const hp_ref *item = hp_array_items(s->heap, it, &count);
	must(count >= STABLE);
	for (uint32_t i = 0; i < count; i++) {
		hp_ref value = hp_heap_load(&item[i]);
		if (value.word || i < STABLE) must_be(unsealed(s->heap, value) >> 32, i);
	}
	uint32_t i = (uint32_t)hp_below(random, STABLE);
	must_be(unsealed(s->heap, hp_array_get(s->heap, it, i)) >> 32, i);
}

static void compare(struct storm *s, hp_ref it, const void *model)
{
	const struct model *m = model;
	must_be(hp_array_length(s->heap, it), m->length);
	for (uint32_t i = 0; i < m->length; i++) must_be(unsealed(s->heap, hp_array_get(s->heap, it, i)), m->what[i]);
	must_be(hp_array_get(s->heap, it, m->length).word, 0);
}

static void survives_kills(void **state)
{
	(void)state;
	static struct model m = {.length = STABLE};
	for (uint32_t i = 0; i < STABLE; i++) m.what[i] = what_at(i, 0);
	struct storm s = {.model = &m, .make = make, .change = change, .verify = verify, .compare = compare};
	storm_begin(&s, 16 * MIB);
	storm_run(&s, "array");
	must_be(live_values(s.heap), 3 + m.length); /* root, array, store */
	hp_tx *tx = must_begin(s.heap);
	must_be(hp_array_truncate(tx, storm_it(&s), 0), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(live_values(s.heap), 2);
	must(held_bytes(s.heap) <= 3 * PAGE); /* a slab each */
	storm_end(&s);
}

static void grows_and_shrinks(void **state)
{
	(void)state;
	struct storm s = {.make = hp_queue_new};
	storm_begin(&s, 64 * MIB);
	hp_tx *tx = must_begin(s.heap);
	hp_ref array = hp_array_new(tx, 5), value = seal(tx, 7);
	must_be(hp_heap_set(tx, &storm_root(&s)->it.ref, array), 0);
	uint32_t count;
	must(!hp_array_items(s.heap, array, &count));
	must_be(count, 0);
	must_be(hp_array_set(tx, array, 0, value), -ERANGE);
	must_be(hp_array_truncate(tx, array, 1), -ERANGE);
	must_be(hp_array_push(tx, value, value), -EINVAL);
	must_be(hp_heap_error(tx), 0);
	must_be(hp_array_push(tx, array, HP_NONE), 0); /* none is a value like others */
	must_be(hp_array_length(s.heap, array), 1);
	const uint32_t n = HP_TEST_SANITIZER ? 20000 : 200000;
	for (uint32_t i = 1; i < n; i++) must_be(hp_array_push(tx, array, value), 0);
	const hp_ref *item = hp_array_items(s.heap, array, &count);
	must_be(count, n);
	for (uint32_t i = 0; i < n; i++) must_be(item[i].word, i ? value.word : 0);
	must_be(hp_heap_checkpoint(tx), 0);
	uint64_t most = held_bytes(s.heap);
	must_be(hp_array_truncate(tx, array, n / 100), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(live_values(s.heap), 4);
	must(held_bytes(s.heap) <= 48 * PAGE && most > 64 * PAGE); /* three types */
	storm_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(survives_kills),
		cmocka_unit_test(grows_and_shrinks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
