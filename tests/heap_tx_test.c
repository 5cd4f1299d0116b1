/* Transactions: what is undone, what stays, who waits for whom.
 *
 * Would catch a store that an abort does not undo, or undoes wrongly; a transaction that fails in the middle and leaves
 * something; a promise of room that is not kept; a ring of writers that hangs, or in which nobody or everybody gives up; a
 * waiter who waits for the dead, or longer than it said. */
#include "hp_heap.h"
#include "hp_process.h"

#include "os/os.h"
#include <time.h>

static hp_pool *pool;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(32 * MIB, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hp_must_be_empty(pool);
	hp_must_be_sound(pool);
	return hp_pool_detach(pool);
}

struct plain {
	HP_REF(struct plain) next;
	unsigned char byte[120];
};
HP_TYPE_DECLARE(plain_type);
HP_TYPE(plain_type, struct plain, (next, plain_type));

/* ---- undoing ---- */

static void writes_of_any_length_are_undone(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	hp_tx *tx = hp_heap_start(heap);
	hp_ref ref = hp_heap_new(tx, &plain_type, 0);
	struct plain *plain = hp_heap_deref(heap, ref);
	unsigned char before[sizeof plain->byte], bytes[sizeof plain->byte];
	for (size_t i = 0; i < sizeof before; i++) before[i] = plain->byte[i] = (unsigned char)(i * 7 + 1);
	must_be(hp_heap_set_root(tx, ref), 0);
	must_be(hp_heap_commit(tx), 0);
	memset(bytes, 0xee, sizeof bytes);
	for (size_t from = 0; from < 20; from++)
		for (size_t n = 0; from + n <= sizeof bytes; n += n < 20 ? 1 : 33) {
			tx = hp_heap_start(heap);
			must_be(hp_heap_write(tx, plain->byte + from, bytes, n), 0);
			must(memcmp(plain->byte + from, bytes, n) == 0);
			must_be(hp_heap_write(tx, plain->byte + from / 2, before, n / 2), 0); /* over it */
			hp_heap_abort(tx);
			must(memcmp(plain->byte, before, sizeof before) == 0);
		}
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void aborts_bring_back_references(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 1000);
	for (int round = 0; round < 3; round++) {
		hp_tx *tx = hp_heap_start(heap);
		/* turns the list round, and collects in the middle of it */
		hp_ref at = hp_heap_root(heap), before = HP_NONE;
		for (int i = 0; at.word; i++) {
			hp_ref next = node_at(heap, at)->a.ref;
			must_be(hp_heap_set(tx, &node_at(heap, at)->a.ref, before), 0);
			before = at;
			at = next;
		}
		must_be(hp_heap_set_root(tx, round == 2 ? HP_NONE : before), 0);
		if (round == 1) must_be(hp_heap_checkpoint(tx), 0);
		hp_heap_abort(tx);
		must_be(list_length(heap, hp_heap_root(heap)), 1000);
		must_be(node_at(heap, hp_heap_root(heap))->id, round == 0 ? 1 : 1000);
	}
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static int make_many(hp_tx *tx, void *arg)
{
	hp_heap *heap = hp_heap_of(tx);
	for (int i = 0; i < 20000; i++) { /* more than is collected at */
		hp_ref node = node_make(tx, 1);
		if (!node.word) return hp_heap_error(tx);
		if (i % 100) continue;
		must_be(hp_heap_set(tx, &node_at(heap, node)->a.ref, hp_heap_root(heap)), 0);
		must_be(hp_heap_set_root(tx, node), 0);
	}
	return *(int *)arg;
}

/* What the undoing needs is not collected, however often the transaction itself makes it collect. */
static void collections_inside_keep_what_an_abort_needs(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 4 * MIB);
	list_make(heap, 1, 1000);
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	for (int i = 0; i < 100000; i++) must(node_make(tx, 5).word); /* born here, so they stay as well */
	must(hp_heap_numbers(heap).collections > 0);
	hp_heap_abort(tx);
	must_be(list_length(heap, hp_heap_root(heap)), 1000);
	int fails = -ECANCELED, goes = 5;
	must_be(hp_heap_modify(heap, -1, make_many, &fails), -ECANCELED);
	must_be(list_length(heap, hp_heap_root(heap)), 1000);
	must_be(hp_heap_modify(heap, -1, make_many, &goes), 5);
	must_be(list_length(heap, hp_heap_root(heap)), 1200);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void checkpoints_let_go_and_pins_keep(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	hp_tx *tx = hp_heap_start(heap);
	hp_ref pinned = node_make(tx, 1), loose = node_make(tx, 2), linked = node_make(tx, 3);
	must_be(hp_heap_set_root(tx, linked), 0);
	must_be(hp_heap_pin(tx, pinned), 0);
	must_be(hp_heap_pin(tx, HP_NONE), 0);
	must_be(hp_heap_checkpoint(tx), 0);
	for (int i = 0; i < 100000; i++) must(node_make(tx, 5).word);
	must(node_is_whole(heap, pinned) && node_is_whole(heap, linked));
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_numbers(heap).collections > 0, 1);
	hp_heap_clean(heap);
	must(!hp_heap_deref_checked(heap, loose, NULL, NULL) && !hp_heap_deref_checked(heap, pinned, NULL, NULL));
	must_be(hp_heap_numbers(heap).values, 1);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void long_transactions(void **state)
{
	(void)state;
	uint64_t stores = HP_TEST_SANITIZER ? 20000 : 300000;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 10);
	uint64_t log = hp_heap_numbers(heap).log;
	hp_tx *tx = hp_heap_start(heap);
	hp_ref root = hp_heap_root(heap);
	for (uint64_t i = 0; i < stores; i++)
		must_be(hp_heap_set(tx, &node_at(heap, root)->b.ref, i % 2 ? root : HP_NONE), 0);
	must(hp_heap_numbers(heap).log >= stores * 16);
	hp_heap_abort(tx);
	must_be(node_at(heap, root)->b.ref.word, 0);
	must(hp_heap_numbers(heap).log <= log + 64 * 1024); /* given back */
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

/* ---- failures ---- */

static unsigned calls, fail_at;

static bool fail_maps(enum os_call call, int64_t *result)
{
	if (call != OS_MAP && call != OS_ADVISE && call != OS_MEMBARRIER) return false;
	if (++calls != fail_at) return false;
	*result = call == OS_MEMBARRIER ? -EPERM : -ENOMEM;
	return true;
}

/* At the limit, at every length of what fits: nothing has changed, and what fits afterwards is what fitted before. */
static void shortage_changes_nothing(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 64 * 1024);
	list_make(heap, 1, 100);
	uint64_t fitted = 0;
	for (int round = 0; round < 5; round++) {
		hp_tx *tx = hp_heap_start(heap);
		uint64_t n = 0;
		for (hp_ref node; (node = node_make(tx, 2)).word; n++) {
			must_be(hp_heap_set(tx, &node_at(heap, node)->a.ref, hp_heap_root(heap)), 0);
			must_be(hp_heap_set_root(tx, node), 0);
		}
		must_be(hp_heap_error(tx), -ENOMEM);
		must_be(hp_heap_commit(tx), -ENOMEM);
		must_be(list_length(heap, hp_heap_root(heap)), 100);
		if (round) must_be(n, fitted);
		fitted = n;
	}
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void every_call_fails_in_turn(void **state)
{
	(void)state;
	for (fail_at = 1; fail_at < 60; fail_at++) {
		hp_heap *heap;
		calls = 0;
		os_hook = fail_maps;
		int error = hp_heap_create(pool, NULL, NULL, NULL, &heap);
		if (error == 0) {
			hp_tx *tx = hp_heap_start(heap);
			hp_ref root = HP_NONE;
			for (int i = 0; i < 3000; i++) {
				hp_ref node = node_make(tx, 1);
				if (!node.word) break;
				node_at(heap, node)->a.ref = root;
				root = node;
			}
			hp_heap_set_root(tx, root);
			error = hp_heap_commit(tx);
			int collected = hp_heap_gc(heap, HP_GC_WAIT, 1000);
			must(collected == 0 || collected == -ENOTSUP);
			os_hook = NULL;
			must_be(list_length(heap, hp_heap_root(heap)), error ? 0 : 3000);
			must_be(hp_heap_destroy(heap, 0, 100), 0);
		}
		os_hook = NULL;
		hp_must_be_empty(pool);
		if (calls < fail_at) break;
	}
	must(fail_at > 3);
}

static void promises_are_kept(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 1 * MIB);
	list_make(heap, 1, 10);
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_reserve(tx, 100000, &node_type, 10000, 0), 0);
	must_be(hp_heap_reserve(tx, 0, &node_type, 10000, 0), 0); /* they add up */
	must_be(hp_heap_reserve(tx, 0, &hp_bytes_type, 5, 40000), 0);
	/* what else there is goes away */
	while (hp_heap_reserve(tx, 0, &plain_type, 1, 0) == 0) must(hp_heap_new(tx, &plain_type, 0).word);
	must_be(hp_heap_checkpoint(tx), -ENOMEM);
	hp_heap_abort(tx);

	tx = hp_heap_start(heap);
	must_be(hp_heap_reserve(tx, 100000, &node_type, 10000, 0), 0);
	must_be(hp_heap_reserve(tx, 0, &node_type, 10000, 0), 0);
	must_be(hp_heap_reserve(tx, 0, &hp_bytes_type, 5, 40000), 0);
	hp_ref root = hp_heap_root(heap);
	for (int i = 0; i < 5; i++) must(hp_heap_new(tx, &hp_bytes_type, 40000).word);
	for (int i = 0; i < 20000; i++) must(node_make(tx, 3).word);
	for (int i = 0; i < 100000; i++) must_be(hp_heap_set(tx, &node_at(heap, root)->b.ref, root), 0);
	must_be(hp_heap_commit(tx), 0);
	tx = hp_heap_start(heap);
	must_be(hp_heap_reserve(tx, 0, &node_type, 1 << 20, 0), -ENOMEM);
	hp_heap_abort(tx);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

/* ---- who waits for whom ---- */

static void waiting_ends_in_time(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0), *same;
	must_be(hp_heap_open(pool, hp_heap_id(heap), &same), 0);
	hp_tx *tx = hp_heap_start(heap), *again;
	must_be(hp_heap_begin(heap, -1, &again), -EDEADLK);
	must_be(hp_heap_begin(same, -1, &again), -EDEADLK); /* by whichever handle */
	must_be(hp_heap_close(heap), -EBUSY);
	must_be(hp_heap_set_root(tx, node_make(tx, 1)), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(list_length(same, hp_heap_root(same)), 1);
	must_be(hp_heap_close(same), 0);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void write_on(const struct child *me, void *arg)
{
	hp_heap *heap = arg;
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, node_make(tx, 8)), 0);
	child_say(me);
	raise(SIGSTOP);
	must_be(hp_heap_commit(tx), 0);
	_exit(0);
}

static uint64_t ms_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void the_stopped_are_waited_for_and_the_dead_are_not(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0), *other = hp_heap_make(pool, 0);
	list_make(heap, 1, 3);
	struct child child = child_start(write_on, heap);
	must(child_hear(&child));
	child_await_stop(&child);
	hp_tx *tx;
	uint64_t start = ms_now();
	must_be(hp_heap_begin(heap, 30, &tx), -ETIMEDOUT);
	must(ms_now() - start >= 29);
	must_be(hp_heap_begin(heap, 0, &tx), -ETIMEDOUT);
	must_be(hp_heap_numbers(heap).writer_pid, child.pid);
	/* others are not concerned */
	must_be(hp_heap_begin(other, 0, &tx), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_read_enter(pool), 0);
	must_be(list_length(heap, hp_heap_root(heap)), 1); /* new values are seen at once */
	hp_heap_read_exit(pool);
	must_be(kill(child.pid, SIGCONT), 0);
	must_be(hp_heap_begin(heap, -1, &tx), 0); /* woken */
	must_be(list_length(heap, hp_heap_root(heap)), 1);
	must_be(hp_heap_commit(tx), 0);
	must_be(child_end(&child), 0);

	list_make(heap, 1, 3);
	child = child_start(write_on, heap);
	must(child_hear(&child));
	child_await_stop(&child);
	must_be(kill(child.pid, SIGKILL), 0);
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	must_be(list_length(heap, hp_heap_root(heap)), 3);
	must_be(hp_heap_commit(tx), 0);
	child_end(&child);
	must_be(hp_heap_destroy(other, 0, 0), 0);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

/* A ring: each holds one heap and wants the next. */
#define RING_MOST 8
static hp_heap *ring_heap[RING_MOST];
static pthread_barrier_t ring_here;
static _Atomic int gave_up;
static int ring_size;

static void *hold_and_want(void *arg)
{
	int i = (int)(intptr_t)arg;
	hp_tx *mine = hp_heap_start(ring_heap[i]), *next;
	pthread_barrier_wait(&ring_here);
	int error = hp_heap_begin(ring_heap[(i + 1) % ring_size], -1, &next);
	if (error == 0)
		must_be(hp_heap_commit(next), 0);
	else {
		must_be(error, -EDEADLK);
		atomic_fetch_add(&gave_up, 1);
	}
	must_be(hp_heap_commit(mine), 0);
	return NULL;
}

static void one_of_a_ring_gives_up(void **state)
{
	(void)state;
	for (int i = 0; i < RING_MOST; i++) ring_heap[i] = hp_heap_make(pool, 0);
	for (int n = 2; n <= RING_MOST; n++)
		for (int round = 0; round < (HP_TEST_SANITIZER ? 3 : 20); round++) {
			pthread_t thread[RING_MOST];
			ring_size = n;
			atomic_store(&gave_up, 0);
			pthread_barrier_init(&ring_here, NULL, (unsigned)n);
			for (int i = 0; i < n; i++)
				must_be(pthread_create(&thread[i], NULL, hold_and_want, (void *)(intptr_t)i), 0);
			for (int i = 0; i < n; i++) must_be(pthread_join(thread[i], NULL), 0);
			pthread_barrier_destroy(&ring_here);
			must_be(atomic_load(&gave_up), 1);
		}
	for (int i = 0; i < RING_MOST; i++) must_be(hp_heap_destroy(ring_heap[i], 0, 0), 0);
}

/* Always the smaller one first: nobody may give up, however they jostle. */
static void *in_order(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	for (int i = 0; i < (HP_TEST_SANITIZER ? 300 : 3000); i++) {
		unsigned a = (unsigned)hp_below(&random, 3);
		hp_tx *first = hp_heap_start(ring_heap[a]), *second;
		must_be(hp_heap_begin(ring_heap[a + 1], -1, &second), 0);
		uint64_t *counter = &node_at(ring_heap[a], hp_heap_root(ring_heap[a]))->id, one = *counter + 1,
				 seal = one ^ HP_SEAL;
		must_be(hp_heap_write(first, counter, &one, 8), 0);
		must_be(hp_heap_write(first, counter + 1, &seal, 8), 0);
		must_be(hp_heap_commit(second), 0);
		if (i % 5)
			must_be(hp_heap_commit(first), 0);
		else
			hp_heap_abort(first);
	}
	return NULL;
}

static void nobody_gives_up_without_a_ring(void **state)
{
	(void)state;
	pthread_t thread[4];
	uint64_t sum = 0;
	for (int i = 0; i < 4; i++) {
		ring_heap[i] = hp_heap_make(pool, 0);
		list_make(ring_heap[i], 0, 1);
	}
	for (uintptr_t i = 0; i < 4; i++) must_be(pthread_create(&thread[i], NULL, in_order, (void *)((i + 1) * 77)), 0);
	for (int i = 0; i < 4; i++) must_be(pthread_join(thread[i], NULL), 0);
	for (int i = 0; i < 4; i++) sum += node_at(ring_heap[i], hp_heap_root(ring_heap[i]))->id;
	must_be(sum, 4 * (HP_TEST_SANITIZER ? 300 : 3000) * 4 / 5);
	for (int i = 0; i < 4; i++) must_be(hp_heap_destroy(ring_heap[i], 0, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_of_any_length_are_undone),
		cmocka_unit_test(aborts_bring_back_references),
		cmocka_unit_test(collections_inside_keep_what_an_abort_needs),
		cmocka_unit_test(checkpoints_let_go_and_pins_keep),
		cmocka_unit_test(long_transactions),
		cmocka_unit_test(shortage_changes_nothing),
		cmocka_unit_test(every_call_fails_in_turn),
		cmocka_unit_test(promises_are_kept),
		cmocka_unit_test(waiting_ends_in_time),
		cmocka_unit_test(the_stopped_are_waited_for_and_the_dead_are_not),
		cmocka_unit_test(one_of_a_ring_gives_up),
		cmocka_unit_test(nobody_gives_up_without_a_ring),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
