/* Cells: a reference that one process sets and others read.
 *
 * Would catch: a value that is reclaimed while a reader has it from the cell, a set that a kill leaves half done, one that an
 * abort does not undo. */
#include "hp_collections.h"

static hp_ref make(hp_tx *tx)
{
	return hp_heap_box(tx, seal(tx, 0));
}

static void change(struct storm *s, hp_tx *tx, uint64_t *random, void *model)
{
	uint64_t what = hp_random(random), *now = model;
	if (tx) {
		if (now) must_be(unsealed(s->heap, hp_cell_get(s->heap, storm_it(s))), *now);
		must_be(hp_cell_set(tx, storm_it(s), seal(tx, what)), 0);
		must_be(unsealed(s->heap, hp_cell_get(s->heap, storm_it(s))), what);
	}
	if (now) *now = what;
}

static void verify(struct storm *s, hp_ref it, uint64_t *random)
{
	(void)random;
	unsealed(s->heap, hp_cell_get(s->heap, it));
}

static void compare(struct storm *s, hp_ref it, const void *model)
{
	must_be(unsealed(s->heap, hp_cell_get(s->heap, it)), *(const uint64_t *)model);
}

static void survives_kills(void **state)
{
	(void)state;
	uint64_t now = 0;
	struct storm s = {.model = &now, .make = make, .change = change, .verify = verify, .compare = compare};
	storm_begin(&s, 8 * MIB);
	storm_run(&s, "cell");
	must_be(live_values(s.heap), 3); /* root, cell, value */
	storm_end(&s);
}

static void refuses(void **state)
{
	(void)state;
	struct storm s = {.make = make};
	storm_begin(&s, 8 * MIB);
	hp_tx *tx = must_begin(s.heap);
	hp_ref value = hp_cell_get(s.heap, storm_it(&s));
	must_be(hp_cell_set(tx, value, value), -EINVAL); /* no cell */
	must_be(hp_cell_set(tx, HP_NONE, value), -EINVAL);
	must_be(hp_heap_error(tx), 0);
	must_be(hp_cell_set(tx, storm_it(&s), HP_NONE), 0);
	must_be(hp_cell_get(s.heap, storm_it(&s)).word, 0);
	must_be(hp_heap_set(tx, NULL, value), -EINVAL); /* an error of the transaction: nothing is done any more */
	must_be(hp_cell_set(tx, storm_it(&s), value), -EINVAL);
	must_be(hp_heap_commit(tx), -EINVAL);
	must_be(hp_cell_get(s.heap, storm_it(&s)).word, value.word);
	storm_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(survives_kills),
		cmocka_unit_test(refuses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
