/* Rubbish in a heap's data (values, the undo log, the table of types) and in what the pool says of it (slabs, the map, the heap's
 * own entry), as any process that has the pool mapped can write it.
 *
 * A child works on a heap while words of the pool change under its hands, between its calls. It may get errors and wrong
 * values; it may not crash, hang, or touch what is not the pool's. Would catch a word of shared data that is used as an index,
 * a pointer or a count without being looked at. */
#include "hp_heap.h"
#include "hp_rubbish.h"

#include <hugepool/inspect.h>

#include "heap/heap.h"
#include "heap/layout.h"

static uint64_t read_of;

static int read_all(hp_heap *heap, hp_ref value, void *arg)
{
	(void)arg;
	size_t bytes;
	const char *at = hp_heap_deref_checked(heap, value, NULL, &bytes);
	for (size_t i = 0; at && i < bytes; i += PAGE / 2) read_of += ((const volatile char *)at)[i];
	return at ? 0 : 1;
}

static void quiet(void *arg, const char *line)
{
	(void)arg, (void)line;
}

static void work(struct rubbish *r)
{
	hp_pool *pool = r->pool;
	hp_heap *heap, *other;
	hp_guard guard = {0};
	if (rubbish_below(r, 2)) heap_graph_least = 0; /* collections go by a copy */
	if (hp_heap_create(pool, &(struct hp_heap_options){.limit = 256 * 1024}, NULL, NULL, &heap)) _exit(0);
	r->part = pool->heaps;
	r->part_bytes = 4 * sizeof *pool->heaps;
	hp_tx *tx = NULL;
	for (int i = 0; i < 400; i++) {
		if (i > 20 && rubbish_below(r, 3) == 0) rubbish_write(r);
		hp_ref some = {rubbish_known(r)}, more = {rubbish_known(r)};
		struct node *node = hp_heap_deref_checked(heap, some, &node_type, NULL);
		if (node) read_of += node->id;
		if (!tx) {
			void *copy;
			uint64_t id = hp_heap_id(heap);
			switch (rubbish_below(r, 8)) {
			case 0: hp_heap_gc(heap, HP_GC_WAIT | (rubbish_below(r, 2) ? HP_GC_TRIM : 0), 20); break;
			case 1:
				if (hp_heap_read_enter(pool) == 0) {
					hp_heap_unguard(&guard);
					hp_heap_guard(heap, &some, 1, &guard);
					if (hp_value_export(heap, some, &copy, NULL) == 0) free(copy);
					hp_value_capacity(heap, some);
					hp_heap_read_exit(pool);
				}
				break;
			case 2: hp_heap_foreach(heap, rubbish_below(r, 2) ? &node_type : NULL, read_all, NULL); break;
			case 3: hp_pool_heap_check(pool, id, HP_HEAP_AUDIT | HP_HEAP_LEAKS, NULL, NULL); break;
			case 4:
				if (hp_heap_open(pool, id, &other) == 0) hp_heap_close(other);
				break;
			case 5: hp_pool_check(pool, quiet, NULL); break;
			default:
				if (hp_heap_begin(heap, 100, &tx)) tx = NULL;
			}
			continue;
		}
		switch (rubbish_below(r, 10)) {
		case 0:
		case 1:
		case 2: {
			hp_ref new = rubbish_below(r, 3) ? hp_heap_new(tx, &node_type, 0)
			                                 : hp_heap_new_vector(tx, (uint32_t)rubbish_below(r, 3000), HP_NONE);
			if (new.word) rubbish_know(r, new.word);
			if (new.word && rubbish_below(r, 2)) hp_heap_set_root(tx, new);
			break;
		}
		case 3:
		case 4:
			if (node) hp_heap_set(tx, rubbish_below(r, 2) ? &node->a.ref : &node->b.ref, more);
			break;
		case 5:
			if (node) hp_heap_write(tx, &node->id, &r->random, 8);
			break;
		case 6: hp_heap_reserve(tx, rubbish_below(r, 1000), &node_type, rubbish_below(r, 100), 0); break;
		case 7:
			if (rubbish_below(r, 3) == 0) hp_heap_checkpoint(tx);
			break;
		default:
			if (rubbish_below(r, 2))
				hp_heap_commit(tx);
			else
				hp_heap_abort(tx);
			tx = NULL;
		}
	}
	if (tx && rubbish_below(r, 2)) _exit(0); /* dies in it: the next one undoes what rubbish the log holds */
	if (tx) hp_heap_abort(tx);
	hp_heap_unguard(&guard);
	hp_heap_destroy(heap, HP_HEAP_FORCE, 100);
}

#define SEEDS (HP_TEST_SANITIZER ? 25 : 80)

static void in_data(void **state)
{
	(void)state;
	rubbish_does_no_harm(work, SEEDS, false);
}

static void in_control(void **state)
{
	(void)state;
	rubbish_does_no_harm(work, SEEDS, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(in_data), cmocka_unit_test(in_control)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
