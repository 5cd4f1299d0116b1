/* The flow table of the demonstration, in its heap: every flow is found again, however many there are and whatever their hashes
 * have in common; what is undone leaves nothing in the sums; a heap that is full says so and has lost nothing. */
#include "../tools/hugepool/flows.c"
#include "../tools/hugepool/frame.c"

#include "hp_page.h"

static struct flow_key key_of(unsigned number)
{
	return (struct flow_key){.family = 4, .protocol = 6, .port = {(uint16_t)number, (uint16_t)(number >> 16)}};
}

static hp_heap *make_heap(hp_pool *pool)
{
	hp_heap *heap;
	must_be(flow_heap_create(pool, &heap), 0);
	return heap;
}

static struct flow_sum sum_of(hp_heap *heap)
{
	struct flow_sum sum = {0};
	must_be(flow_add_up(heap, &sum), 0);
	return sum;
}

/* Counts a frame of each flow in [from, to); `hash` NULL: as the demonstration hashes. The first error. */
static int count_all(hp_tx *tx, unsigned from, unsigned to, uint64_t (*hash)(unsigned number), unsigned *new)
{
	struct flow_table *table = flow_table_of(hp_heap_of(tx));
	for (unsigned number = from; number < to; number++) {
		struct flow_key key = key_of(number);
		int was_new = flow_count(tx, table, &key, hash ? hash(number) : flow_hash(&key), number);
		if (was_new < 0) return was_new;
		*new += (unsigned)was_new;
	}
	return 0;
}

static uint64_t all_the_same(unsigned number)
{
	(void)number;
	return 42;
}

static uint64_t only_high_bits(unsigned number)
{
	return (uint64_t)number << 56;
}

static void every_flow_is_found_again(void **state)
{
	(void)state;
	const struct {
		uint64_t (*hash)(unsigned number);
		unsigned flows;
	} tries[] = {{NULL, 20000}, {all_the_same, 300}, {only_high_bits, 2000}};
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	for (unsigned i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		hp_heap *heap = make_heap(pool);
		unsigned flows = tries[i].flows, new = 0;
		hp_tx *tx;
		for (unsigned turn = 0; turn < 3; turn++) {
			must_be(hp_heap_begin(heap, 0, &tx), 0);
			must_be(count_all(tx, 0, flows, tries[i].hash, &new), 0);
			must_be(hp_heap_commit(tx), 0);
			must_be(new, flows);
		}
		struct flow_sum sum = sum_of(heap);
		must_be(sum.flows, flows);
		must_be(sum.frames, 3 * flows);
		must_be(sum.bytes, 3 * (uint64_t)flows * (flows - 1) / 2);
		must_be(sum.largest_bytes, 3 * (flows - 1));
		must_be(hp_heap_destroy(heap, 0, 1000), 0);
	}
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void what_is_undone_does_not_count(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	hp_heap *heap = make_heap(pool);
	hp_tx *tx;
	unsigned new = 0;
	must_be(sum_of(heap).flows, 0); /* of a type that the heap has not seen yet */
	must_be(hp_heap_begin(heap, 0, &tx), 0);
	must_be(count_all(tx, 0, 500, NULL, &new), 0);
	must_be(hp_heap_commit(tx), 0);
	for (unsigned turn = 0; turn < 5; turn++) {
		must_be(hp_heap_begin(heap, 0, &tx), 0);
		must_be(count_all(tx, 250, 1000, NULL, &new), 0);
		hp_heap_abort(tx);
		struct flow_sum sum = sum_of(heap);
		must_be(sum.flows, 500);
		must_be(sum.frames, 500);
		must_be(sum.bytes, 500 * 499 / 2);
	}
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void a_full_pool_loses_nothing(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB / 2, HP_POOL_NO_AUTOGROW);
	hp_heap *heap = make_heap(pool);
	hp_tx *tx;
	unsigned flows = 0, new = 0, step = 64;
	int error = 0;
	while (error == 0) {
		must(flows < 10000);
		must_be(hp_heap_begin(heap, 0, &tx), 0);
		error = count_all(tx, flows, flows + step, NULL, &new);
		if (error == 0) {
			must_be(hp_heap_commit(tx), 0);
			flows += step;
		} else {
			hp_heap_abort(tx);
			must_be(error, -ENOMEM);
			must_be(sum_of(heap).flows, flows);
		}
	}
	must(flows > 1000);
	must_be(sum_of(heap).frames, flows);
	/* known flows are counted as before: what a burst notes down has its place already */
	for (unsigned from = 0; from < flows; from += step) {
		must_be(hp_heap_begin(heap, 0, &tx), 0);
		must_be(count_all(tx, from, from + step, NULL, &new), 0);
		must_be(hp_heap_commit(tx), 0);
	}
	must_be(sum_of(heap).frames, 2 * flows);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_flow_is_found_again),
		cmocka_unit_test(what_is_undone_does_not_count),
		cmocka_unit_test(a_full_pool_loses_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
