/* The collector: shapes of all kinds, small stacks, shortage, thrift; marking in place, and by a copy of the graph.
 *
 * Would catch a value that is lost or kept by some shape of graph; a mark stack that overflows without anybody noticing, or a
 * recursion; an array whose slices are scanned short by one; memory that is not had although garbage holds it, or that is
 * given back and wanted again all the time; a reference that has no place in the copy, or one that is copied and names nothing. */
#include "hp_heap.h"

#include "heap/heap.h"
#include "heap/layout.h"
#include "os/os.h"
#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static hp_pool *pool;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(256 * MIB, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	heap_stack_most = UINT64_MAX;
	os_hook = NULL;
	hp_must_be_empty(pool);
	hp_must_be_sound(pool);
	return hp_pool_detach(pool);
}

static uint64_t scale(uint64_t n)
{
	return HP_TEST_SANITIZER ? n / 10 : n;
}

/* Collects; exactly so many values are left. Then all goes. */
static void must_keep(hp_heap *heap, uint64_t values)
{
	for (int i = 0; i < 2; i++) {
		hp_heap_clean(heap);
		must_be(hp_heap_numbers(heap).values, values);
	}
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, 0);
	must_be(hp_heap_gc(heap, HP_GC_TRIM, 0), 0);
	must_be(hp_heap_numbers(heap).held, 0);
}

typedef uint64_t shape_fn(hp_heap *heap, hp_tx *tx, uint64_t n); /* sets the root; values that it reaches */

static uint64_t shape_list(hp_heap *heap, hp_tx *tx, uint64_t n)
{
	hp_ref head = HP_NONE;
	for (uint64_t i = 0; i < n; i++) {
		hp_ref node = node_make(tx, i);
		node_at(heap, node)->a.ref = head;
		head = node;
	}
	must_be(hp_heap_set_root(tx, head), 0);
	return n;
}

/* Every node of a list has a leaf, and the list goes by the member that is scanned first. */
static uint64_t shape_comb(hp_heap *heap, hp_tx *tx, uint64_t n)
{
	hp_ref head = HP_NONE;
	for (uint64_t i = 0; i < n / 2; i++) {
		hp_ref node = node_make(tx, i), leaf = node_make(tx, i);
		node_at(heap, node)->a.ref = head;
		node_at(heap, node)->b.ref = leaf;
		head = node;
	}
	must_be(hp_heap_set_root(tx, head), 0);
	return n / 2 * 2;
}

static hp_ref tree(hp_heap *heap, hp_tx *tx, unsigned depth)
{
	hp_ref node = node_make(tx, depth);
	if (depth) {
		hp_ref a = tree(heap, tx, depth - 1), b = tree(heap, tx, depth - 1);
		node_at(heap, node)->a.ref = a;
		node_at(heap, node)->b.ref = b;
	}
	return node;
}

static uint64_t shape_tree(hp_heap *heap, hp_tx *tx, uint64_t n)
{
	unsigned depth = 0;
	while ((UINT64_C(4) << depth) - 1 <= n) depth++;
	must_be(hp_heap_set_root(tx, tree(heap, tx, depth)), 0);
	return (UINT64_C(2) << depth) - 1;
}

static uint64_t shape_star(hp_heap *heap, hp_tx *tx, uint64_t n)
{
	hp_ref star = hp_heap_new_vector(tx, (uint32_t)n, HP_NONE);
	for (uint64_t i = 0; i < n; i++) {
		hp_ref node = node_make(tx, i);
		((struct hp_vector *)hp_heap_deref(heap, star))->item[i] = node;
		node_at(heap, node)->b.ref = star;
	}
	must_be(hp_heap_set_root(tx, star), 0);
	return n + 1;
}

/* Everybody knows everybody. */
static uint64_t shape_clique(hp_heap *heap, hp_tx *tx, uint64_t n)
{
	uint32_t few = 1;
	while ((uint64_t)few * few < n) few++;
	hp_ref *member = calloc(few, sizeof *member);
	must(member);
	for (uint32_t i = 0; i < few; i++) member[i] = hp_heap_new_vector(tx, few, HP_NONE);
	for (uint32_t i = 0; i < few; i++)
		memcpy(((struct hp_vector *)hp_heap_deref(heap, member[i]))->item, member, few * sizeof *member);
	must_be(hp_heap_set_root(tx, member[0]), 0);
	free(member);
	return few;
}

static uint64_t shape_ring(hp_heap *heap, hp_tx *tx, uint64_t n)
{
	hp_ref first = node_make(tx, 0), last = first;
	for (uint64_t i = 1; i < n; i++) {
		hp_ref node = node_make(tx, i);
		node_at(heap, last)->a.ref = node;
		node_at(heap, node)->b.ref = node; /* and itself */
		last = node;
	}
	node_at(heap, last)->a.ref = first;
	must_be(hp_heap_set_root(tx, last), 0);
	return n;
}

static uint64_t shape_diamonds(hp_heap *heap, hp_tx *tx, uint64_t n)
{
	hp_ref top = node_make(tx, 0);
	uint64_t count = 1;
	for (; count + 3 <= n; count += 3) { /* 2^(n/3) ways through it */
		hp_ref left = node_make(tx, 1), right = node_make(tx, 2), next = node_make(tx, 3);
		node_at(heap, left)->a.ref = node_at(heap, right)->b.ref = top;
		node_at(heap, next)->a.ref = left;
		node_at(heap, next)->b.ref = right;
		top = next;
	}
	must_be(hp_heap_set_root(tx, top), 0);
	return count;
}

static uint64_t shape_random(hp_heap *heap, hp_tx *tx, uint64_t n)
{
	uint64_t random = 7;
	hp_ref *node = calloc(n, sizeof *node);
	must(node);
	for (uint64_t i = 0; i < n; i++) node[i] = node_make(tx, i);
	for (uint64_t i = n - 1; i > 0; i--) {
		uint64_t k = hp_below(&random, i + 1);
		hp_ref swap = node[i];
		node[i] = node[k];
		node[k] = swap;
	}
	for (uint64_t i = 0; i < n; i++) {
		if (i + 1 < n) node_at(heap, node[i])->a.ref = node[i + 1];
		node_at(heap, node[i])->b.ref = node[hp_below(&random, n)];
	}
	must_be(hp_heap_set_root(tx, node[0]), 0);
	free(node);
	return n;
}

static shape_fn *const shapes[] = {shape_list,   shape_comb, shape_tree,     shape_star,
                                   shape_clique, shape_ring, shape_diamonds, shape_random};

static void all_shapes(uint64_t n)
{
	hp_heap *heap = hp_heap_make(pool, 0);
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		hp_tx *tx = hp_heap_start(heap);
		uint64_t values = shapes[i](heap, tx, n);
		for (int k = 0; k < 1000; k++) must(node_make(tx, 1).word); /* garbage among them */
		must_be(hp_heap_commit(tx), 0);
		must_keep(heap, values);
	}
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void shapes_of_all_kinds(void **state)
{
	(void)state;
	all_shapes(scale(1000000));
}

/* The same with a stack of a few entries: the collector has to come back to flagged slabs all the time. */
static void shapes_with_small_stacks(void **state)
{
	(void)state;
	for (uint64_t most = 1; most <= 4096; most *= 16) {
		heap_stack_most = most;
		all_shapes(scale(20000));
	}
	heap_stack_most = UINT64_MAX;
}

static void *collect_on_a_small_stack(void *arg)
{
	hp_heap_clean(arg);
	return NULL;
}

static void no_recursion(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("sanitizers need more stack themselves");
	hp_heap *heap = hp_heap_make(pool, 0);
	hp_tx *tx = hp_heap_start(heap);
	uint64_t values = shape_comb(heap, tx, 1000000);
	must_be(hp_heap_commit(tx), 0);
	pthread_attr_t attr;
	pthread_t thread;
	pthread_attr_init(&attr);
	must_be(pthread_attr_setstacksize(&attr, 64 * 1024), 0);
	must_be(pthread_create(&thread, &attr, collect_on_a_small_stack, heap), 0);
	must_be(pthread_join(thread, NULL), 0);
	pthread_attr_destroy(&attr);
	must_keep(heap, values);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

/* ---- arrays and sizes ---- */

/* A reference in the last word alone keeps what it names, wherever pages and slices end. */
static void last_elements_count(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	const uint64_t slice = 16384, page = 512;
	const uint64_t around[] = {1,          2,          31,    page - 1,  8 * page,
	                           511 * page, 512 * page, slice, 2 * slice, 3 * 512 * page + page};
	for (size_t k = 0; k < sizeof around / sizeof *around; k++)
		for (int d = -2; d <= 2; d++) {
			if ((int64_t)around[k] + d <= 0) continue;
			uint32_t n = (uint32_t)((int64_t)around[k] + d);
			hp_tx *tx = hp_heap_start(heap);
			hp_ref vector = hp_heap_new_vector(tx, n, HP_NONE), node = node_make(tx, n);
			must(vector.word && node.word);
			must_be(hp_heap_set(tx, &((struct hp_vector *)hp_heap_deref(heap, vector))->item[n - 1], node), 0);
			must_be(hp_heap_set_root(tx, vector), 0);
			must_be(hp_heap_commit(tx), 0);
			must(hp_value_capacity(heap, vector) >= n);
			hp_heap_clean(heap);
			must(node_is_whole(heap, node));
			must_be(hp_heap_numbers(heap).values, 2);
			/* to the last word again, as a store to a visible value; and undone */
			tx = hp_heap_start(heap);
			must_be(hp_heap_set(tx, &((struct hp_vector *)hp_heap_deref(heap, vector))->item[n - 1], HP_NONE), 0);
			hp_heap_abort(tx);
			hp_heap_clean(heap);
			must(node_is_whole(heap, node));
		}
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void every_size(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	hp_tx *tx = hp_heap_start(heap);
	uint32_t count = 0;
	for (uint32_t n = 0; n < 70000; n += n < 600 ? 1 : n / 7) count++;
	hp_ref all = hp_heap_new_vector(tx, count, HP_NONE);
	must_be(hp_heap_set_root(tx, all), 0);
	must_be(hp_heap_commit(tx), 0);
	tx = hp_heap_start(heap);
	uint32_t i = 0;
	for (uint32_t n = 0; n < 70000; n += n < 600 ? 1 : n / 7) {
		hp_ref ref = hp_heap_new(tx, &hp_bytes_type, n);
		must(ref.word);
		struct hp_bytes *bytes = hp_heap_deref(heap, ref);
		must_be(bytes->len, n);
		for (uint32_t k = 0; k < n; k++) must_be(bytes->data[k], 0);
		memset(bytes->data, (int)(n & 0xff), n);
		must(hp_value_capacity(heap, ref) >= n);
		must_be(hp_heap_set(tx, &((struct hp_vector *)hp_heap_deref(heap, all))->item[i++], ref), 0);
	}
	must_be(hp_heap_commit(tx), 0);
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, count + 1);
	i = 0;
	for (uint32_t n = 0; n < 70000; n += n < 600 ? 1 : n / 7) {
		struct hp_bytes *bytes = hp_heap_deref_checked(heap, ((struct hp_vector *)hp_heap_deref(heap, all))->item[i++],
		                                               &hp_bytes_type, NULL);
		must(bytes && bytes->len == n);
		for (uint32_t k = 0; k < n; k++) must_be(bytes->data[k], n & 0xff);
	}
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

/* ---- the copy ---- */

/* Values of every number of references, in members and in tails: each of them keeps what it names, and nothing else is kept. */
static void every_number_of_references(void **state)
{
	(void)state;
	/* what a heap has seen stays as it is */
	static struct kind {
		struct hp_type type;
		char name[32];
		struct hp_member member[24], tail_member[2];
	} kinds[32];
	struct kind *kind = kinds;
	hp_heap *heap = hp_heap_make(pool, 0);
	for (uint32_t fixed = 0; fixed <= 24; fixed += fixed < 6 ? 1 : 6)
		for (uint32_t tail = 0; tail <= 2; tail++, kind++) {
			uint32_t bytes = 8 + 16 * fixed;
			for (uint32_t k = 0; k < fixed; k++) kind->member[k] = (struct hp_member){8 + 16 * k, &hp_any};
			for (uint32_t k = 0; k < tail; k++) kind->tail_member[k] = (struct hp_member){8 * k, &hp_any};
			snprintf(kind->name, sizeof kind->name, "of_%u_and_%u", fixed, tail);
			kind->type = (struct hp_type){kind->name, bytes, 8,    tail * 8,     tail ? bytes : 0,
			                              0,          fixed, tail, kind->member, kind->tail_member};
			hp_tx *tx = hp_heap_start(heap);
			uint64_t values = 0;
			hp_ref last = HP_NONE;
			for (uint32_t elements = 0; elements <= (tail ? 12u : 0); elements++) {
				hp_ref ref = hp_heap_new(tx, &kind->type, elements);
				must(ref.word);
				char *at = hp_heap_deref(heap, ref);
				for (uint32_t k = 0; k < fixed + elements * tail; k++) {
					/* some none, some to two of them, the last one on to the value before */
					hp_ref to = k + 1 == fixed + elements * tail ? last : k % 5 == 3 ? HP_NONE : node_make(tx, k);
					values += to.word && k + 1 != fixed + elements * tail;
					memcpy(at + (k < fixed ? 8 + 16 * k : bytes + 8 * (k - fixed)), &to, sizeof to);
				}
				node_make(tx, 0);
				if (fixed + elements * tail == 0) continue;
				last = ref;
				values++;
			}
			must_be(hp_heap_set_root(tx, last), 0);
			must_be(hp_heap_commit(tx), 0);
			must_keep(heap, values);
		}
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void what_names_nothing_is_passed_over(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 0, 1000);
	hp_ref root = hp_heap_root(heap);
	const uint64_t end = heap->view.capacity, off = heap_ref_offset(root.word);
	const uint64_t wrong[] = {1,
	                          HEAP_OFFSET_MASK,
	                          UINT64_MAX,
	                          root.word + 8,
	                          root.word & ~HEAP_REFERENCE,
	                          root.word ^ UINT64_C(1) << HEAP_OFFSET_BITS,
	                          heap->tag | 0,
	                          heap->tag | (end - 64),
	                          heap->tag | (off + UINT64_C(100) * HP_PAGE_SIZE)};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		node_at(heap, root)->b.ref.word = wrong[i];
		hp_heap_clean(heap);
		must_be(heap->bad, 1);
		must_be(hp_heap_numbers(heap).values, 1000);
	}
	node_at(heap, root)->b.ref = HP_NONE;
	must_keep(heap, 1000);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static bool no_memory(enum os_call call, int64_t *result)
{
	if (call != OS_MAP) return false;
	*result = -ENOMEM;
	return true;
}

/* Neither for the copy nor for any stack. */
static void collects_without_memory(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	hp_tx *tx = hp_heap_start(heap);
	uint64_t values = shape_tree(heap, tx, scale(20000));
	for (int k = 0; k < 1000; k++) must(node_make(tx, 1).word);
	must_be(hp_heap_commit(tx), 0);
	os_hook = no_memory;
	hp_heap_clean(heap);
	os_hook = NULL;
	must_be(hp_heap_numbers(heap).values, values);
	must_keep(heap, values);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static pid_t forked;

/* At the first growth of the stack. */
static bool fork_once(enum os_call call, int64_t *result)
{
	(void)result;
	if (call != OS_MAP || !forked++) return false; /* the first is the copy's own */
	os_hook = NULL;
	must((forked = fork()) >= 0);
	return false;
}

/* A handler of a signal forks, and the child returns into the collection, whose lock is the parent's. */
static void a_child_of_a_collector_collects_nothing(void **state)
{
	(void)state;
	uint64_t least = heap_graph_least;
	heap_graph_least = 0;
	hp_heap *heap = hp_heap_make(pool, 0);
	hp_tx *tx = hp_heap_start(heap);
	uint64_t values = shape_tree(heap, tx, 20000);
	must_be(hp_heap_commit(tx), 0);
	forked = 0;
	os_hook = fork_once;
	int error = hp_heap_gc(heap, HP_GC_WAIT, 5000);
	if (!forked) _exit(error != -EBADF);
	int status;
	must_be(waitpid(forked, &status, 0), forked);
	must_be(status, 0);
	must_be(error, 0);
	must_be(hp_heap_numbers(heap).values, values);
	must_keep(heap, values);
	heap_graph_least = least;
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

/* ---- memory ---- */

/* Half of it garbage, and nothing more to be had: room is made by collecting. */
static void garbage_makes_room(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 512 * 1024);
	uint64_t held = 0;
	for (int round = 0; round < 20; round++) {
		hp_tx *tx = hp_heap_start(heap);
		hp_ref head = HP_NONE;
		for (int i = 0; i < 7000; i++) { /* 224 KiB: less than half */
			hp_ref node = node_make(tx, 1);
			must(node.word);
			node_at(heap, node)->a.ref = head;
			head = node;
		}
		must_be(hp_heap_set_root(tx, head), 0);
		must_be(hp_heap_commit(tx), 0);
		if (round < 3) held = hp_heap_numbers(heap).held;
		must(hp_heap_numbers(heap).held <= 512 * 1024);
		if (round >= 3) must_be(hp_heap_numbers(heap).held, held);
	}
	must_be(list_length(heap, hp_heap_root(heap)), 7000);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

/* The pool is full but for what the heap has. */
static void garbage_makes_room_in_a_full_pool(void **state)
{
	(void)state;
	hp_pool *small = hp_plain_pool(2 * MIB, 0);
	hp_heap *heap = hp_heap_make(small, 0);
	list_make(heap, 1, 5000);
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	void *block, *blocks = NULL;
	while (hp_page_alloc(small, HP_PAGE_SIZE, 0, &block) == 0) {
		memcpy(block, &blocks, sizeof blocks);
		blocks = block;
	}
	for (int round = 0; round < 5; round++) list_make(heap, 1, 2500);
	must_be(list_length(heap, hp_heap_root(heap)), 2500);
	while (blocks) {
		block = blocks;
		memcpy(&blocks, block, sizeof blocks);
		must_be(hp_page_free(small, block), 0);
	}
	must_be(hp_heap_destroy(heap, 0, 0), 0);
	hp_must_be_empty(small);
	must_be(hp_pool_detach(small), 0);
}

/* Up and down by one value at the border of a slab. */
static void no_slab_comes_and_goes(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 4096 / 32 * 31); /* slabs of 1, 2, 4, 8 and 16 pages are full */
	hp_heap_clean(heap);
	uint64_t changes = 0, slabs = hp_heap_numbers(heap).slabs;
	for (int i = 0; i < (int)scale(10000); i++) {
		hp_tx *tx = hp_heap_start(heap);
		hp_ref root = hp_heap_root(heap);
		if (i % 2) {
			must_be(hp_heap_set_root(tx, hp_heap_load(&node_at(heap, root)->a.ref)), 0);
		} else {
			hp_ref node = node_make(tx, 1);
			must_be(hp_heap_set(tx, &node_at(heap, node)->a.ref, root), 0);
			must_be(hp_heap_set_root(tx, node), 0);
		}
		must_be(hp_heap_commit(tx), 0);
		if (i % 10 == 0) hp_heap_clean(heap);
		uint64_t now = hp_heap_numbers(heap).slabs;
		changes += now != slabs;
		slabs = now;
	}
	must(changes <= 2 + scale(10000) / 500);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void empty_slabs_go_back(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 100000);
	hp_heap_clean(heap);
	uint64_t held = hp_heap_numbers(heap).held;
	list_make(heap, 1, 10);
	for (int i = 0; i < 3; i++) hp_heap_clean(heap);
	must(hp_heap_numbers(heap).held < held / 10);
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	hp_heap_clean(heap);
	must_be(hp_heap_gc(heap, HP_GC_TRIM, 0), 0);
	must_be(hp_heap_numbers(heap).held, 0);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void garbage_stays_in_proportion(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	uint64_t live = scale(200000) * 32;
	list_make(heap, 1, scale(200000));
	hp_heap_clean(heap);
	for (int i = 0; i < 20; i++) { /* each as much as lives */
		hp_tx *tx = hp_heap_start(heap);
		for (uint64_t k = 0; k < scale(200000); k++) {
			must(node_make(tx, 1).word);
			if (k % 1000 == 0) must_be(hp_heap_checkpoint(tx), 0);
		}
		must_be(hp_heap_commit(tx), 0);
		must(hp_heap_numbers(heap).held <= live * 22 / 10 + 3 * MIB);
	}
	must(hp_heap_numbers(heap).collections < 60);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shapes_of_all_kinds),
		cmocka_unit_test(shapes_with_small_stacks),
		cmocka_unit_test(no_recursion),
		cmocka_unit_test(last_elements_count),
		cmocka_unit_test(every_size),
		cmocka_unit_test(every_number_of_references),
		cmocka_unit_test(what_names_nothing_is_passed_over),
		cmocka_unit_test(collects_without_memory),
		cmocka_unit_test(a_child_of_a_collector_collects_nothing),
		cmocka_unit_test(garbage_makes_room),
		cmocka_unit_test(garbage_makes_room_in_a_full_pool),
		cmocka_unit_test(no_slab_comes_and_goes),
		cmocka_unit_test(empty_slabs_go_back),
		cmocka_unit_test(garbage_stays_in_proportion),
	};
	/* as programs have it; in place; by a copy */
	const uint64_t least[] = {heap_graph_least, UINT64_MAX, 0};
	int failed = 0;
	for (unsigned i = 0; i < 3; i++) {
		heap_graph_least = least[i];
		failed += cmocka_run_group_tests(tests, set_up, tear_down);
	}
	return failed;
}
