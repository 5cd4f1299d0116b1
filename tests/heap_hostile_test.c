/* Rubbish in a heap's data (values, the undo log, the table of types) and in what the pool says of it (slabs, the map, the heap's
 * own entry), as any process that has the pool mapped can write it.
 *
 * A child works on a heap while words of the pool change under its hands, between its calls. It may get errors and wrong
 * values; it may not crash, hang, or touch what is not the pool's. Would catch a word of shared data that is used as an index,
 * a pointer or a count without being looked at. */
#include "hp_heap.h"
#include "hp_process.h"

#include <hugepool/inspect.h>

#include "heap/heap.h"
#include "heap/layout.h"

#define WORDS 64

static hp_pool *pool;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(4 * MIB, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return hp_pool_detach(pool);
}

/* Some word, mostly where something is, becomes another. */
static void scribble(uint64_t *random, const uint64_t *known, bool control)
{
	/* near a value, or anywhere: the log and the types are where the first pages were free */
	uint64_t near = known[hp_below(random, WORDS)] & ((UINT64_C(1) << 48) - 1), words = 4 * MIB / 8, value;
	uint64_t *data = hp_pool_base(pool), *at = data + hp_below(random, words);
	if (control) {
		uint64_t page = near < 4 * MIB ? near / PAGE / 16 * 16 : 0;
		switch (hp_below(random, 4)) {
		case 0:
			data = (uint64_t *)(void *)pool->slabs;
			words = 4 * MIB / PAGE * sizeof *pool->slabs / 8;
			at = data + page * sizeof *pool->slabs / 8 + hp_below(random, 256);
			break;
		case 1:
			data = (uint64_t *)(void *)pool->map;
			words = 4 * MIB / PAGE;
			at = data + page + hp_below(random, 16);
			break;
		case 2:
			data = (uint64_t *)(void *)pool->heaps;
			words = 8 * sizeof *pool->heaps / 8;
			at = data + hp_below(random, words);
			break;
		default:
			data = (uint64_t *)(void *)pool->control;
			words = pool->control_size / 8;
			at = data + hp_below(random, words);
		}
		if (at >= data + words) at = data;
	} else if (near && near < 4 * MIB && hp_below(random, 2)) {
		at = data + (near / 8 + hp_below(random, 64)) % words;
	}
	for (uint64_t tries = 0; tries < words && !*at; tries++) at = at + 1 == data + words ? data : at + 1;
	switch (hp_below(random, 8)) {
	case 0: value = 0; break;
	case 1: value = hp_below(random, UINT64_MAX); break;
	case 2: value = known[hp_below(random, WORDS)]; break;
	case 3: value = known[hp_below(random, WORDS)] + hp_below(random, 64); break;
	case 4: value = known[hp_below(random, WORDS)] ^ UINT64_C(1) << hp_below(random, 64); break;
	case 5: value = hp_below(random, 1100); break;
	case 6: value = UINT64_MAX - hp_below(random, 3); break;
	default: value = *at ^ UINT64_C(1) << hp_below(random, 64);
	}
	*at = value;
}

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

static void work(uint64_t seed, bool control)
{
	uint64_t random = seed, known[WORDS] = {0};
	hp_heap *heap, *other;
	hp_guard guard = {0};
	if (hp_below(&random, 2)) heap_graph_least = 0; /* collections go by a copy */
	if (hp_heap_create(pool, &(struct hp_heap_options){.limit = 256 * 1024}, NULL, NULL, &heap)) _exit(0);
	hp_tx *tx = NULL;
	for (int i = 0; i < 400; i++) {
		if (i > 20 && hp_below(&random, 3) == 0) scribble(&random, known, control && hp_below(&random, 2));
		hp_ref some = {known[hp_below(&random, WORDS)]}, more = {known[hp_below(&random, WORDS)]};
		struct node *node = hp_heap_deref_checked(heap, some, &node_type, NULL);
		if (node) read_of += node->id;
		if (!tx) {
			void *copy;
			uint64_t id = hp_heap_id(heap);
			switch (hp_below(&random, 8)) {
			case 0: hp_heap_gc(heap, HP_GC_WAIT | (hp_below(&random, 2) ? HP_GC_TRIM : 0), 20); break;
			case 1:
				if (hp_heap_read_enter(pool) == 0) {
					hp_heap_unguard(&guard);
					hp_heap_guard(heap, &some, 1, &guard);
					if (hp_value_export(heap, some, &copy, NULL) == 0) free(copy);
					hp_value_capacity(heap, some);
					hp_heap_read_exit(pool);
				}
				break;
			case 2: hp_heap_foreach(heap, hp_below(&random, 2) ? &node_type : NULL, read_all, NULL); break;
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
		switch (hp_below(&random, 10)) {
		case 0:
		case 1:
		case 2: {
			hp_ref new = hp_below(&random, 3) ? hp_heap_new(tx, &node_type, 0)
			                                  : hp_heap_new_vector(tx, (uint32_t)hp_below(&random, 3000), HP_NONE);
			if (new.word) known[hp_below(&random, WORDS)] = new.word;
			if (new.word && hp_below(&random, 2)) hp_heap_set_root(tx, new);
			break;
		}
		case 3:
		case 4:
			if (node) hp_heap_set(tx, hp_below(&random, 2) ? &node->a.ref : &node->b.ref, more);
			break;
		case 5:
			if (node) hp_heap_write(tx, &node->id, &random, 8);
			break;
		case 6: hp_heap_reserve(tx, hp_below(&random, 1000), &node_type, hp_below(&random, 100), 0); break;
		case 7:
			if (hp_below(&random, 3) == 0) hp_heap_checkpoint(tx);
			break;
		default:
			if (hp_below(&random, 2))
				hp_heap_commit(tx);
			else
				hp_heap_abort(tx);
			tx = NULL;
		}
	}
	if (tx && hp_below(&random, 2)) _exit(0); /* dies in it: the next one undoes what rubbish the log holds */
	if (tx) hp_heap_abort(tx);
	hp_heap_unguard(&guard);
	hp_heap_destroy(heap, HP_HEAP_FORCE, 100);
	_exit(0);
}

static void seeds(uint64_t from, uint64_t to, bool control)
{
	for (uint64_t seed = from; seed < to; seed++) {
		fflush(NULL);
		pid_t pid = fork();
		must(pid >= 0);
		if (pid == 0) {
			alarm(20); /* a hang is a failure */
			work(seed, control);
		}
		int status;
		must_be(waitpid(pid, &status, 0), pid);
		if (status) print_message("seed %llu\n", (unsigned long long)seed);
		must_be(status, 0);
		hp_pool_recover(pool);
		if (control || seed % 50 == 0) { /* heaps that were given up with their lists in pieces fill it */
			hp_pool_detach(pool);
			pool = hp_plain_pool(4 * MIB, 0);
		}
	}
}

static void in_data(void **state)
{
	(void)state;
	seeds(1, HP_TEST_SANITIZER ? 26 : 81, false);
}

static void in_control(void **state)
{
	(void)state;
	seeds(1, HP_TEST_SANITIZER ? 26 : 81, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(in_data, set_up, tear_down),
		cmocka_unit_test_setup_teardown(in_control, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
