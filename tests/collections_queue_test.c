/* Queues.
 *
 * Would catch: a value lost, doubled or out of order, by a kill between the stores of a push or a pop as well; a node that is
 * used for something else while a reader stands on it; popped values that are kept. */
#include "hp_collections.h"

struct model {
	uint64_t first, next; /* the numbers in it */
};

/* Values are consecutive numbers; `extra` is the next one. */
static void push(struct storm *s, hp_tx *tx)
{
	uint64_t number = storm_root(s)->extra;
	must_be(hp_queue_push(tx, storm_it(s), seal(tx, number)), 0);
	storm_extra(s, tx, number + 1);
}

static void change(struct storm *s, hp_tx *tx, uint64_t *random, void *model)
{
	struct model *m = model;
	for (uint64_t n = 1 + hp_below(random, 6); n--;) {
		uint64_t length = tx ? hp_queue_length(s->heap, storm_it(s)) : m->next - m->first, r = hp_below(random, 300);
		if (tx && m) must_be(length, m->next - m->first);
		if (r < 150 && r < 300 - length) {
			if (tx) push(s, tx);
			if (m) m->next++;
			continue;
		}
		hp_ref value;
		int result = tx ? hp_queue_pop(tx, storm_it(s), &value) : 0;
		if (tx) must_be(result, length ? 0 : -ENOENT);
		if (tx && length && m) must_be(unsealed(s->heap, value), m->first);
		if (m && length) m->first++;
	}
}

static int next_number(const hp_heap *heap, hp_ref value, void *arg)
{
	uint64_t *last = arg, number = unsealed(heap, value);
	if (*last != UINT64_MAX) must_be(number, *last + 1);
	*last = number;
	return 0;
}

static void verify(struct storm *s, hp_ref it, uint64_t *random)
{
	uint64_t last = UINT64_MAX;
	hp_ref value;
	(void)random;
	must_be(hp_queue_each(s->heap, it, next_number, &last), 0);
	if (hp_queue_peek(s->heap, it, &value) == 0) unsealed(s->heap, value);
}

static void compare(struct storm *s, hp_ref it, const void *model)
{
	const struct model *m = model;
	hp_ref value;
	uint64_t last = UINT64_MAX;
	must_be(hp_queue_length(s->heap, it), m->next - m->first);
	must_be(hp_queue_peek(s->heap, it, &value), m->next == m->first ? -ENOENT : 0);
	if (m->next == m->first) return;
	must_be(unsealed(s->heap, value), m->first);
	must_be(hp_queue_each(s->heap, it, next_number, &last), 0);
	must_be(last, m->next - 1);
}

static void survives_kills(void **state)
{
	(void)state;
	struct model m = {0};
	struct storm s = {.model = &m, .make = hp_queue_new, .change = change, .verify = verify, .compare = compare};
	storm_begin(&s, 8 * MIB);
	storm_run(&s, "queue");
	must_be(live_values(s.heap), 2 + 2 * (m.next - m.first));
	hp_ref value;
	for (hp_tx *tx = must_begin(s.heap);;) {
		if (hp_queue_pop(tx, storm_it(&s), &value) == 0) continue;
		must_be(hp_heap_commit(tx), 0);
		break;
	}
	must_be(live_values(s.heap), 2);
	must(held_bytes(s.heap) <= 3 * PAGE); /* a slab each */
	storm_end(&s);
}

static int stop_at_third(const hp_heap *heap, hp_ref value, void *arg)
{
	return unsealed(heap, value) == 2 ? -*(int *)arg : 0;
}

static void first_in_first_out(void **state)
{
	(void)state;
	struct storm s = {.make = hp_queue_new};
	int why = 77;
	hp_ref value;
	storm_begin(&s, 8 * MIB);
	hp_tx *tx = must_begin(s.heap);
	must_be(hp_queue_pop(tx, storm_it(&s), &value), -ENOENT);
	must_be(hp_queue_peek(s.heap, storm_it(&s), &value), -ENOENT);
	must_be(hp_queue_push(tx, hp_heap_root(s.heap), HP_NONE), -EINVAL);
	for (unsigned i = 0; i < 5; i++) push(&s, tx);
	must_be(hp_queue_each(s.heap, storm_it(&s), stop_at_third, &why), -77);
	must_be(hp_heap_checkpoint(tx), 0);
	for (unsigned i = 0; i < 5; i++) {
		must_be(hp_queue_pop(tx, storm_it(&s), &value), 0);
		must_be(unsealed(s.heap, value), i);
	}
	must_be(hp_queue_pop(tx, storm_it(&s), &value), -ENOENT);
	must_be(hp_queue_length(s.heap, storm_it(&s)), 0);
	push(&s, tx);
	hp_heap_abort(tx);
	must_be(hp_queue_length(s.heap, storm_it(&s)), 5);
	tx = must_begin(s.heap);
	must_be(hp_queue_pop(tx, storm_it(&s), &value), 0);
	must_be(unsealed(s.heap, value), 0);
	hp_heap_abort(tx);
	storm_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(survives_kills),
		cmocka_unit_test(first_in_first_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
