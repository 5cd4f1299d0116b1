/* Short of memory: what a heap finds before it says -ENOMEM.
 *
 * Would catch a heap that is refused memory though garbage has it: garbage found while a reader was in the way, garbage of later,
 * or slabs of another kind that are empty; and a promise of hp_heap_reserve that a collection forgets. */
#include "hp_heap.h"

#include "heap/heap.h"

#define LIMIT (64 * PAGE)

struct large {
	uint64_t fill[100];
};
HP_TYPE_LEAF(large_type, struct large);

static hp_pool *pool;
static hp_heap *heap;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(8 * MIB, 0);
	heap = hp_heap_make(pool, LIMIT);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
	hp_must_be_empty(pool);
	return hp_pool_detach(pool);
}

/* As many nodes as there is room for, kept or not. */
static uint64_t fill(bool kept)
{
	hp_tx *tx = hp_heap_start(heap);
	uint64_t n = 0;
	hp_ref head = HP_NONE, node;
	for (; (node = node_make(tx, n)).word; n++) {
		node_at(heap, node)->a.ref = head;
		head = node;
		if (kept) must_be(hp_heap_set_root(tx, head), 0);
		if (n % 64 == 63) hp_heap_checkpoint(tx);
		if (!kept && n == 10 * LIMIT / sizeof(struct node)) break;
	}
	hp_heap_abort(tx);
	return n;
}

static int get_large(void)
{
	hp_tx *tx = hp_heap_start(heap);
	hp_ref large = hp_heap_new(tx, &large_type, 0);
	must_be(!large.word, hp_heap_error(tx) < 0);
	return hp_heap_commit(tx);
}

static void slabs_of_another_kind(void **state)
{
	(void)state;
	must(fill(true) >= LIMIT / sizeof(struct node) / 2);
	must_be(get_large(), -ENOMEM); /* all of it lives */
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(get_large(), 0);
	must(hp_heap_numbers(heap).held <= LIMIT);
}

static void *reader(void *arg)
{
	_Atomic int *turn = arg;
	must_be(hp_heap_read_enter(pool), 0);
	atomic_store(turn, 1);
	while (atomic_load(turn) == 1) {}
	struct timespec short_time = {.tv_nsec = 300000}; /* longer than a heap waits before it is extended instead */
	nanosleep(&short_time, NULL);
	hp_heap_read_exit(pool);
	return NULL;
}

static void garbage_of_before_and_of_later(void **state)
{
	(void)state;
	_Atomic int turn = 0;
	pthread_t thread;
	hp_tx *tx;
	list_make(heap, 0, 10);
	list_make(heap, 0, 10); /* a little garbage, found, and kept back */
	must_be(pthread_create(&thread, NULL, reader, &turn), 0);
	while (!atomic_load(&turn)) {}
	must_be(hp_heap_gc(heap, 0, -1), -EAGAIN);
	tx = hp_heap_start(heap);
	uint64_t n = 0;
	for (hp_ref node; n < LIMIT / sizeof *node_at(heap, node) / 2; n++) { /* a lot more, of which nobody knows yet */
		if (!(node = node_make(tx, n)).word) break;
	}
	hp_heap_abort(tx);
	atomic_store(&turn, 2);
	tx = hp_heap_start(heap);
	for (uint64_t k = 0; k < 60; k++) must(hp_heap_new(tx, &hp_bytes_type, 2000).word);
	must_be(hp_heap_commit(tx), 0);
	must_be(pthread_join(thread, NULL), 0);
}

static void promises_outlive_collections(void **state)
{
	(void)state;
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_reserve(tx, 10, &hp_bytes_type, 1, 40000), 0);
	must_be(hp_heap_reserve(tx, 0, &node_type, 200, 0), 0);
	for (int i = 0; i < 20; i++) must(hp_heap_new(tx, &hp_bytes_type, 4000).word);
	must_be(heap_collect(heap, 1000000000), 0);
	heap_trim(heap);
	while (hp_heap_numbers(heap).held + PAGE <= LIMIT && hp_heap_new(tx, &hp_bytes_type, 3000).word) {
	} /* nothing left */
	must(hp_heap_new(tx, &hp_bytes_type, 40000).word);
	for (uint64_t i = 0; i < 200; i++) must(node_make(tx, i).word);
	must_be(hp_heap_commit(tx), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(slabs_of_another_kind, set_up, tear_down),
		cmocka_unit_test_setup_teardown(garbage_of_before_and_of_later, set_up, tear_down),
		cmocka_unit_test_setup_teardown(promises_outlive_collections, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
