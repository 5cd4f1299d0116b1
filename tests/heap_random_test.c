/* Random operations beside a shadow of what should be there: by one process, and by several in turn.
 *
 * The shadow is a table of nodes in memory that the processes share. Whoever is the writer of the heap changes it, too, in the
 * same transaction, so it needs no lock of its own. Would catch whatever makes the graph another than the calls have made it:
 * an abort that undoes too little or too much, a value reclaimed that is reachable, one kept that is not, a mask of free places
 * that is used after somebody else's transaction. */
#include "hp_heap.h"
#include "hp_process.h"

#include "heap/heap.h"

#include <sys/mman.h>

#define NODES 400
#define GUARDS 4

struct shadow {
	int root, a[NODES], b[NODES]; /* -1: none */
	uint64_t ref[NODES];          /* 0: there is no such node */
	uint64_t id[NODES];
};
static struct shadow *truth; /* what is committed */
static uint64_t *ids;

static hp_pool *pool;
static hp_heap *heap;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(16 * MIB, 0);
	truth = mmap(NULL, sizeof *truth + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(truth != MAP_FAILED);
	ids = (uint64_t *)(truth + 1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hp_must_be_sound(pool);
	munmap(truth, sizeof *truth + 4096);
	return hp_pool_detach(pool);
}

static void start(void)
{
	static uint64_t least = UINT64_MAX;
	heap_graph_least = least = ~least; /* one is marked by a copy, the next in place */
	heap = hp_heap_make(pool, 256 * 1024);
	memset(truth, 0, sizeof *truth);
	truth->root = -1;
	for (int i = 0; i < NODES; i++) truth->a[i] = truth->b[i] = -1;
}

/* What the root and the given nodes reach. */
static int reach(const struct shadow *s, const int *from, int count, bool *seen)
{
	int stack[NODES * 2 + GUARDS + 1], top = 0, n = 0;
	memset(seen, 0, NODES * sizeof *seen);
	if (s->root >= 0) stack[top++] = s->root;
	for (int i = 0; i < count; i++)
		if (from[i] >= 0) stack[top++] = from[i];
	while (top) {
		int i = stack[--top];
		if (seen[i]) continue;
		seen[i] = true;
		n++;
		if (s->a[i] >= 0 && !seen[s->a[i]]) stack[top++] = s->a[i];
		if (s->b[i] >= 0 && !seen[s->b[i]]) stack[top++] = s->b[i];
	}
	return n;
}

static uint64_t ref_of(const struct shadow *s, int i)
{
	return i < 0 ? 0 : s->ref[i];
}

/* The heap is what the shadow says. In a transaction, or a section in which nobody writes. */
static void compare(const struct shadow *s)
{
	bool seen[NODES];
	reach(s, NULL, 0, seen);
	must_be(hp_heap_root(heap).word, ref_of(s, s->root));
	for (int i = 0; i < NODES; i++) {
		if (!seen[i]) continue;
		hp_ref ref = {s->ref[i]};
		must(node_is_whole(heap, ref));
		struct node *node = node_at(heap, ref);
		must_be(node->id, s->id[i]);
		must_be(node->a.ref.word, ref_of(s, s->a[i]));
		must_be(node->b.ref.word, ref_of(s, s->b[i]));
	}
}

/* One that may be used: reachable from the root as it is now, or made in this transaction; -1 when there is none. */
static int pick(const struct shadow *s, const bool *seen, const bool *born, uint64_t *random)
{
	(void)s;
	int i = (int)hp_below(random, NODES);
	for (int k = 0; k < NODES; k++, i = (i + 1) % NODES)
		if (seen[i] || born[i]) return i;
	return -1;
}

static void transact(uint64_t *random)
{
	struct shadow now;
	bool seen[NODES], born[NODES] = {false};
	hp_tx *tx = hp_heap_start(heap);
	now = *truth;
	compare(&now);
	unsigned ops = (unsigned)hp_below(random, 20);
	bool pinned = false;
	for (unsigned k = 0; k < ops; k++) {
		reach(&now, NULL, 0, seen);
		int i = pick(&now, seen, born, random), j = pick(&now, seen, born, random);
		switch (hp_below(random, 12)) {
		case 0:
		case 1:
		case 2:
		case 3: { /* a new one, in the place of one that nobody reaches any more */
			bool kept[NODES];
			reach(truth, NULL, 0, kept);
			int at = (int)hp_below(random, NODES);
			if (seen[at] || kept[at] || born[at]) break;
			uint64_t id = ++*ids;
			hp_ref ref = node_make(tx, id);
			must(ref.word);
			now.ref[at] = ref.word;
			now.id[at] = id;
			now.a[at] = now.b[at] = -1;
			born[at] = true;
			if (i >= 0 && hp_below(random, 2)) { /* plain stores are allowed, as long as it is not linked */
				node_at(heap, ref)->a.ref.word = now.ref[i];
				now.a[at] = i;
			}
			if (hp_below(random, 3)) {
				must_be(hp_heap_set_root(tx, ref), 0);
				if (now.root >= 0) {
					must_be(hp_heap_set(tx, &node_at(heap, ref)->b.ref, (hp_ref){now.ref[now.root]}), 0);
					now.b[at] = now.root;
				}
				now.root = at;
			}
			break;
		}
		case 4:
		case 5:
		case 6:
		case 7: {
			if (i < 0) break;
			bool first = hp_below(random, 2), none = hp_below(random, 3) == 0;
			struct node *node = node_at(heap, (hp_ref){now.ref[i]});
			must_be(hp_heap_set(tx, first ? &node->a.ref : &node->b.ref, (hp_ref){none ? 0 : now.ref[j]}), 0);
			*(first ? &now.a[i] : &now.b[i]) = none ? -1 : j;
			break;
		}
		case 8:
			if (hp_below(random, 8)) break;
			must_be(hp_heap_set_root(tx, (hp_ref){i < 0 ? 0 : now.ref[i]}), 0);
			now.root = i;
			break;
		case 9: {
			if (i < 0) break;
			uint64_t both[2] = {++*ids, *ids ^ HP_SEAL};
			must_be(hp_heap_write(tx, &node_at(heap, (hp_ref){now.ref[i]})->id, both, 16), 0);
			now.id[i] = both[0];
			break;
		}
		case 10:
			if (hp_below(random, 4)) break;
			must_be(hp_heap_checkpoint(tx), 0);
			*truth = now;
			memset(born, 0, sizeof born); /* what is linked nowhere is garbage from now on */
			break;
		default:
			if (i < 0 || pinned) break;
			must_be(hp_heap_pin(tx, (hp_ref){now.ref[i]}), 0);
			pinned = true;
		}
	}
	compare(&now);
	if (hp_below(random, 4) == 0) {
		hp_heap_abort(tx);
	} else {
		*truth = now; /* before the lock goes */
		must_be(hp_heap_commit(tx), 0);
	}
}

/* Guards something for a while, and looks at it. */
struct kept {
	hp_guard guard;
	hp_ref ref;
	uint64_t id;
	bool on;
};

static void keep_or_let_go(struct kept *kept, uint64_t *random)
{
	if (kept->on) {
		must(node_is_whole(heap, kept->ref));
		if (hp_below(random, 3)) return;
		must_be(hp_heap_unguard(&kept->guard), 0);
		kept->on = false;
		return;
	}
	must_be(hp_heap_read_enter(pool), 0);
	hp_ref at = hp_heap_root(heap);
	for (uint64_t steps = hp_below(random, 10); steps && at.word; steps--) {
		must(node_is_whole(heap, at) || hp_heap_deref_checked(heap, at, &node_type, NULL));
		hp_ref next = hp_heap_load(hp_below(random, 2) ? &node_at(heap, at)->a.ref : &node_at(heap, at)->b.ref);
		if (next.word) at = next;
	}
	if (at.word) {
		must_be(hp_heap_guard(heap, &at, 1, &kept->guard), 0);
		kept->ref = at;
		kept->on = true;
	}
	hp_heap_read_exit(pool);
}

static void operate(uint64_t seed, int rounds)
{
	uint64_t random = seed;
	struct kept kept[GUARDS] = {0};
	for (int i = 0; i < rounds; i++) {
		transact(&random);
		if (hp_below(&random, 4) == 0) keep_or_let_go(&kept[hp_below(&random, GUARDS)], &random);
		if (hp_below(&random, 20) == 0) {
			int error = hp_heap_gc(heap, hp_below(&random, 2) ? HP_GC_WAIT : 0, 60000);
			must(error == 0 || error == -EAGAIN);
		}
	}
	for (int k = 0; k < GUARDS; k++)
		if (kept[k].on) must_be(hp_heap_unguard(&kept[k].guard), 0);
}

static void only_what_is_reached_is_left(void)
{
	bool seen[NODES];
	hp_heap_clean(heap);
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, reach(truth, NULL, 0, seen));
	must_be(hp_heap_numbers(heap).guards, 0);
	compare(truth);
}

static void one_process(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= (HP_TEST_SANITIZER ? 3 : 12); seed++) {
		start();
		for (int part = 0; part < 4; part++) {
			operate(seed * 4 + (uint64_t)part, HP_TEST_SANITIZER ? 200 : 4000);
			only_what_is_reached_is_left();
		}
		must_be(hp_heap_destroy(heap, 0, 100), 0);
		hp_must_be_empty(pool);
	}
}

static void run_child(const struct child *me, void *arg)
{
	child_here(me);
	operate((uintptr_t)arg, HP_TEST_SANITIZER ? 300 : 10000);
	_exit(0);
}

static void several_processes(void **state)
{
	(void)state;
	for (uintptr_t seed = 1; seed <= 3; seed++) {
		struct child child[4];
		start();
		for (uintptr_t i = 0; i < 4; i++) {
			child[i] = child_start(run_child, (void *)(seed * 1000 + i));
			must(child_hear(&child[i]));
		}
		for (int i = 0; i < 4; i++) child_say(&child[i]);
		for (int i = 0; i < 4; i++) must_be(child_end(&child[i]), 0);
		hp_pool_recover(pool);
		only_what_is_reached_is_left();
		must_be(hp_heap_destroy(heap, 0, 100), 0);
		hp_must_be_empty(pool);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_process),
		cmocka_unit_test(several_processes),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
