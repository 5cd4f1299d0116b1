/* Shared heaps under random SIGKILLs: two writers, three readers, any of them killed at any time, in the ordinary run.
 *
 * The n-th transaction is known from n, which it counts up in the heap itself: so whatever was killed, the graph must be what the
 * first n transactions make of it, in a model of private memory. Readers look at everything twice within a section, or under a
 * guard: what was there must still be that very value, whole. Chains go from newer to older values, and values of the
 * second kind have odd numbers, so that a place that was used again does not look right.
 *
 * Besides: a reader that stands still, readers killed with guards, and a guard that goes from process to process while all is
 * collected that nothing keeps.
 *
 * Usage: heap_test [KILLS]. The ordinary run makes 4,000. */
#include "../hp_heap.h"
#include "../hp_process.h"
#include <hugepool/inspect.h>
#include <sched.h>

#define WRITERS 2u
#define READERS 3u
#define WORKERS (WRITERS + READERS)
#define CHAINS 16u
#define LONGEST 24u
#define LIMIT (2 * MIB)
#define PATIENCE_S 60 /* for somebody who does not move: a hang, on the slowest of machines */

static uint64_t kills = HP_TEST_SANITIZER ? 60 : 4000;

struct slot {
	HP_REF(struct node) first;
};
struct table {
	HP_REF(void) blob;
	uint64_t done; /* transactions */
	uint32_t len;
	struct slot slot[]; /* CHAINS heads, then as many values of the second kind */
};
HP_TYPE_FULL(table_type, struct table, len, slot, ((blob, hp_any)), ((first, node_type)));

enum { HEADS = CHAINS, LEAVES = CHAINS };

struct book {
	hp_pool *pool;
	uint64_t id; /* the heap's */
	_Atomic uint64_t turns[WORKERS];
	_Atomic uint64_t seen, guarded, collected, refused;
	pid_t pid[WORKERS];
};

static uint64_t now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

/* ---- the model: what the first n transactions make ---- */

struct model_node {
	uint64_t id;
	uint32_t a, b;  /* 0: none */
	unsigned round; /* in which it was counted last */
};

struct model {
	struct model_node *node;
	uint32_t nodes, room;
	uint32_t slot[HEADS + LEAVES];
	uint64_t done, blob; /* bytes of the blob */
};

static uint32_t model_new(struct model *m, uint64_t id, uint32_t a, uint32_t b)
{
	if (m->nodes + 1 >= m->room) {
		m->room = m->room ? m->room * 2 : 1024;
		must((m->node = realloc(m->node, m->room * sizeof *m->node)) != NULL);
	}
	m->node[++m->nodes] = (struct model_node){id, a, b, 0};
	return m->nodes;
}

/* What the n-th transaction does; the same words for model and heap. */
struct deed {
	enum { PUSH, CUT, LEAF, SHARE, BLOB } what;
	uint32_t chain, other, count, depth;
	uint64_t id; /* of the first new value: even, and its successors by 2; odd for one of the second kind */
	uint64_t bytes;
};

static struct deed deed_of(uint64_t n)
{
	uint64_t random = n * 77;
	uint64_t kind = hp_below(&random, 16);
	struct deed deed = {.chain = (uint32_t)hp_below(&random, CHAINS),
	                    .other = (uint32_t)hp_below(&random, CHAINS),
	                    .count = 1 + (uint32_t)hp_below(&random, 4),
	                    .depth = 1 + (uint32_t)hp_below(&random, LONGEST / 2),
	                    .bytes = hp_below(&random, 8) ? hp_below(&random, 3000) : hp_below(&random, 60000)};
	deed.what = kind < 8 ? PUSH : kind < 11 ? CUT : kind < 13 ? LEAF : kind < 14 ? SHARE : BLOB;
	deed.id = n * 16 + (deed.what == LEAF);
	return deed;
}

static void model_do(struct model *m, uint64_t n)
{
	struct deed deed = deed_of(n);
	uint32_t *head = &m->slot[deed.chain], at = *head;
	m->done = n;
	switch (deed.what) {
	case PUSH:
	case CUT:
		for (uint32_t d = 1; at && d < (deed.what == CUT ? deed.depth : LONGEST); d++) at = m->node[at].a;
		if (at) m->node[at].a = 0;
		for (uint32_t k = 0; deed.what == PUSH && k < deed.count; k++)
			*head = model_new(m, deed.id + 2 * k, *head, m->slot[HEADS + deed.other]);
		break;
	case LEAF: m->slot[HEADS + deed.chain] = model_new(m, deed.id, 0, 0); break;
	case SHARE:
		for (uint32_t d = 1; at && d < deed.depth; d++) at = m->node[at].a;
		m->slot[deed.other] = at;
		break;
	case BLOB: m->blob = deed.bytes; break;
	}
}

/* ---- the same in the heap ---- */

static struct table *table_of(hp_heap *heap)
{
	return hp_heap_deref(heap, hp_heap_root(heap));
}

static unsigned char blob_byte(uint64_t bytes, uint64_t i)
{
	return (unsigned char)(bytes * 31 + i);
}

static void heap_do(hp_tx *tx, uint64_t n)
{
	hp_heap *heap = hp_heap_of(tx);
	struct deed deed = deed_of(n);
	struct table *table = table_of(heap);
	hp_ref *head = &table->slot[deed.chain].first.ref, at = *head, ref;
	switch (deed.what) {
	case PUSH:
	case CUT:
		for (uint32_t d = 1; at.word && d < (deed.what == CUT ? deed.depth : LONGEST); d++)
			at = node_at(heap, at)->a.ref;
		if (at.word) hp_heap_set(tx, &node_at(heap, at)->a.ref, HP_NONE);
		for (uint32_t k = 0; deed.what == PUSH && k < deed.count; k++) {
			if (!(ref = node_make(tx, deed.id + 2 * k)).word) break;
			node_at(heap, ref)->a.ref = *head;
			if (k & 1)
				node_at(heap, ref)->b.ref = table->slot[HEADS + deed.other].first.ref;
			else
				hp_heap_set(tx, &node_at(heap, ref)->b.ref, table->slot[HEADS + deed.other].first.ref);
			hp_heap_set(tx, head, ref);
		}
		break;
	case LEAF: hp_heap_set(tx, &table->slot[HEADS + deed.chain].first.ref, node_make(tx, deed.id)); break;
	case SHARE:
		for (uint32_t d = 1; at.word && d < deed.depth; d++) at = node_at(heap, at)->a.ref;
		hp_heap_set(tx, &table->slot[deed.other].first.ref, at);
		break;
	case BLOB:
		ref = hp_heap_new(tx, &hp_bytes_type, (uint32_t)deed.bytes);
		for (uint64_t i = 0; ref.word && i < deed.bytes; i++)
			((struct hp_bytes *)hp_heap_deref(heap, ref))->data[i] = blob_byte(deed.bytes, i);
		hp_heap_set(tx, &table->blob.ref, ref);
		break;
	}
	hp_heap_write(tx, &table->done, &n, sizeof n);
}

/* As whoever holds the lock sees it. */
static uint64_t compare(hp_heap *heap, struct model *m)
{
	struct table *table = table_of(heap);
	static unsigned round;
	uint64_t values = 1;
	must(table->len == HEADS + LEAVES && table->done >= m->done);
	while (m->done < table->done) model_do(m, m->done + 1);
	round++;
	for (unsigned k = 0; k < HEADS + LEAVES; k++) {
		hp_ref at = table->slot[k].first.ref;
		uint32_t node = m->slot[k];
		for (; at.word && node; at = node_at(heap, at)->a.ref, node = m->node[node].a) {
			must(node_is_whole(heap, at));
			must_be(node_at(heap, at)->id, m->node[node].id);
			hp_ref leaf = node_at(heap, at)->b.ref;
			uint32_t other = m->node[node].b;
			must_be(!leaf.word, !other);
			if (other) must(node_is_whole(heap, leaf));
			if (other) must_be(node_at(heap, leaf)->id, m->node[other].id);
			values += m->node[node].round != round;
			m->node[node].round = round;
			if (!other) continue;
			values += m->node[other].round != round;
			m->node[other].round = round;
		}
		must_be(!at.word, !node);
	}
	const struct hp_bytes *blob = table->blob.ref.word ? hp_heap_deref(heap, table->blob.ref) : NULL;
	must_be(blob ? blob->len : 0, m->blob);
	for (uint64_t i = 0; i < m->blob; i++) must_be(blob->data[i], blob_byte(m->blob, i));
	return values + (blob != NULL);
}

/* ---- workers ---- */

static void write_one(struct book *book, hp_heap *heap, uint64_t *random)
{
	hp_tx *tx;
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	unsigned n = hp_below(random, 8) ? 1 : 4;
	for (unsigned k = 0; k < n; k++) {
		heap_do(tx, table_of(heap)->done + 1);
		if (k + 1 < n && hp_heap_checkpoint(tx) == -ENOMEM) break;
	}
	if (hp_below(random, 8) == 0) {
		hp_heap_abort(tx);
	} else {
		int error = hp_heap_commit(tx);
		must(error == 0 || error == -ENOMEM); /* a reader that stays, or is dead and nobody has seen it yet */
		if (error) atomic_fetch_add(&book->refused, 1);
	}
	if (hp_below(random, 16) == 0) {
		int error = hp_heap_gc(heap, hp_below(random, 4) ? 0 : HP_GC_TRIM, -1);
		must(error == 0 || error == -EAGAIN);
		if (!error) atomic_fetch_add(&book->collected, 1);
	}
}

struct met {
	hp_ref ref;
	uint64_t id;
};

static void still_there(const hp_heap *heap, const struct met *met, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		must(node_is_whole(heap, met[i].ref));
		must_be(node_at(heap, met[i].ref)->id, met[i].id);
	}
}

#define MET (CHAINS * 64)

static unsigned look(hp_heap *heap, struct met *met)
{
	struct table *table = table_of(heap);
	unsigned count = 0;
	for (unsigned k = 0; k < HEADS + LEAVES; k++) {
		uint64_t newer = UINT64_MAX;
		for (hp_ref at = hp_heap_load(&table->slot[k].first.ref); at.word && count + 2 <= MET;
		     at = hp_heap_load(&node_at(heap, at)->a.ref)) {
			const struct node *node = node_at(heap, at);
			must(node->seal == (node->id ^ HP_SEAL) && node->id < newer && (node->id & 1) == (k >= HEADS));
			met[count++] = (struct met){at, newer = node->id};
			hp_ref leaf = hp_heap_load(&node->b.ref);
			if (!leaf.word) continue;
			met[count++] = (struct met){leaf, node_at(heap, leaf)->id};
			must(node_at(heap, leaf)->seal == (met[count - 1].id ^ HP_SEAL) && met[count - 1].id & 1);
		}
	}
	return count;
}

static void read_one(struct book *book, hp_heap *heap, uint64_t *random)
{
	static struct met met[MET], kept[8];
	hp_guard guard;
	hp_ref ref[8];
	unsigned n = 0;
	must_be(hp_heap_read_enter(book->pool), 0);
	unsigned count = look(heap, met);
	for (uint64_t spins = hp_below(random, 3); spins; spins--) sched_yield();
	still_there(heap, met, count);
	for (; n < 8 && count && hp_below(random, 4); n++) {
		kept[n] = met[hp_below(random, count)];
		ref[n] = kept[n].ref;
	}
	if (n) must_be(hp_heap_guard(heap, ref, n, &guard), 0);
	hp_heap_read_exit(book->pool);
	atomic_fetch_add(&book->seen, count);
	atomic_fetch_add(&book->guarded, n);
	if (!n) return;
	for (uint64_t spins = hp_below(random, 5); spins; spins--) {
		sched_yield();
		still_there(heap, kept, n);
	}
	must_be(hp_heap_unguard(&guard), 0);
}

static void spawn(struct book *book, unsigned index, uint64_t random)
{
	hp_heap *heap;
	pid_t pid = hp_fork();
	if (pid) {
		book->pid[index] = pid;
		return;
	}
	must_be(hp_heap_open(book->pool, book->id, &heap), 0);
	for (;;) {
		if (index < WRITERS)
			write_one(book, heap, &random);
		else
			read_one(book, heap, &random);
		atomic_fetch_add(&book->turns[index], 1);
		if (hp_below(&random, 4) == 0) sched_yield();
	}
}

static void kill_one(struct book *book, uint64_t *random)
{
	unsigned i = (unsigned)hp_below(random, WORKERS);
	uint64_t turns = hp_below(random, 4) ? hp_below(random, 20) : 0, since = now_s();
	uint64_t until = atomic_load(&book->turns[i]) + turns;
	while (atomic_load(&book->turns[i]) < until) {
		must(now_s() - since <= PATIENCE_S);
		sched_yield();
	}
	for (uint64_t spin = hp_below(random, hp_below(random, 2) ? 100 : 20000); spin; spin--)
		atomic_signal_fence(memory_order_seq_cst);
	must_be(kill(book->pid[i], SIGKILL), 0);
	must_be(hp_wait_for(book->pid[i]), 128 + SIGKILL);
	spawn(book, i, hp_random(random));
}

static void each_finding(void *arg, const struct hp_heap_finding *finding)
{
	(void)arg;
	fprintf(stderr, "finding: %s\n", finding->text);
}

static void audit(hp_heap *heap, struct model *model)
{
	hp_tx *tx;
	must_be(hp_heap_begin(heap, PATIENCE_S * 1000, &tx), 0);
	compare(heap, model);
	hp_heap_abort(tx);
	must_be(hp_heap_check(heap, 0, each_finding, NULL), 0);
}

static void storm(uint64_t count, unsigned flags)
{
	struct book *book = hp_shared(sizeof *book);
	struct model model = {0};
	hp_heap *heap;
	hp_tx *tx;
	uint64_t random = hp_seed(flags ? "fenced" : "with barriers");
	book->pool = hp_plain_pool(16 * MIB, flags);
	heap = hp_heap_make(book->pool, LIMIT);
	book->id = hp_heap_id(heap);
	tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, hp_heap_new(tx, &table_type, HEADS + LEAVES)), 0);
	must_be(hp_heap_commit(tx), 0);
	for (unsigned i = 0; i < WORKERS; i++) spawn(book, i, hp_random(&random));
	for (uint64_t k = 1; k <= count; k++) {
		kill_one(book, &random);
		if (k % 50 == 0) audit(heap, &model);
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		must_be(kill(book->pid[i], SIGKILL), 0);
		must_be(hp_wait_for(book->pid[i]), 128 + SIGKILL);
	}
	must(hp_pool_recover(book->pool) >= 0);
	audit(heap, &model);
	for (int i = 0; i < 2; i++) hp_heap_clean(heap); /* what the dead have guarded lives for one more */
	tx = hp_heap_start(heap);
	uint64_t values = compare(heap, &model);
	hp_heap_abort(tx);
	struct hp_heap_stat stat = hp_heap_numbers(heap);
	must_be(stat.values, values);
	must_be(stat.guards, 0);
	must(!stat.pending && !stat.writer_pid);
	hp_must_be_sound(book->pool);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
	hp_must_be_empty(book->pool);
	printf(
		"%llu killed: %llu transactions, %llu dead writers undone, %llu collections (%llu to their end by themselves), %llu "
		"refused; %llu values looked at twice, %llu guarded\n",
		(unsigned long long)count, (unsigned long long)model.done, (unsigned long long)stat.recoveries,
		(unsigned long long)stat.collections, (unsigned long long)book->collected, (unsigned long long)book->refused,
		(unsigned long long)book->seen, (unsigned long long)book->guarded);
	free(model.node);
	hp_pool_detach(book->pool);
	munmap(book, sizeof *book);
}

static void kills_leave_what_was_committed(void **state)
{
	(void)state;
	storm(kills - kills / 5, 0);
}

static void kills_in_fenced_mode(void **state)
{
	(void)state;
	storm(kills / 5, HP_POOL_FENCED);
}

/* ---- a reader that stands still ---- */

static void replace(hp_tx *tx, uint64_t id)
{
	hp_ref head = HP_NONE;
	for (uint64_t k = 0; k < 100; k++) {
		hp_ref node = node_make(tx, id * 100 + k);
		if (!node.word) return;
		node_at(hp_heap_of(tx), node)->a.ref = head;
		head = node;
	}
	hp_heap_set_root(tx, head);
}

static int replace_once(hp_heap *heap, uint64_t id)
{
	hp_tx *tx = hp_heap_start(heap);
	replace(tx, id);
	return hp_heap_commit(tx);
}

struct standing {
	hp_pool *pool;
	uint64_t id;
	int how;
};

enum { IN_SECTION, WITH_GUARDS, IN_USE };

static int find_root(hp_heap *heap, hp_ref out[], unsigned max, void *arg)
{
	(void)max, (void)arg;
	out[0] = hp_heap_root(heap);
	return 1;
}

static int stand_in_use(hp_heap *heap, const hp_ref value[], unsigned count, void *arg)
{
	must_be(count, 1);
	child_here(arg);
	return (int)list_length(heap, value[0]);
}

static void stands(const struct child *me, void *arg)
{
	const struct standing *s = arg;
	hp_heap *heap;
	hp_guard guard;
	must_be(hp_heap_open(s->pool, s->id, &heap), 0);
	if (s->how == IN_USE) {
		must_be(hp_heap_with_value(heap, find_root, stand_in_use, (void *)me, 0), 100);
	} else {
		must_be(hp_heap_read_enter(s->pool), 0);
		hp_ref root = hp_heap_root(heap);
		if (s->how == WITH_GUARDS) {
			must_be(hp_heap_guard(heap, &root, 1, &guard), 0);
			hp_heap_read_exit(s->pool);
		}
		child_here(me);
		must_be(list_length(heap, root), 100);
		if (s->how == WITH_GUARDS)
			must_be(hp_heap_unguard(&guard), 0);
		else
			hp_heap_read_exit(s->pool);
	}
	child_here(me);
	must_be(hp_pool_detach(s->pool), 0);
}

static void a_reader_that_stands_still_stops_nobody(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	hp_heap *heap = hp_heap_make(pool, MIB / 4);
	struct standing s = {pool, hp_heap_id(heap), IN_SECTION};
	must_be(replace_once(heap, 0), 0);
	struct child reader = child_start(stands, &s);
	must(child_hear(&reader));
	must_be(kill(reader.pid, SIGSTOP), 0);
	child_await_stop(&reader);
	uint64_t done = 0;
	int error;
	while ((error = replace_once(heap, done + 1)) == 0) must(++done < 10000);
	must_be(error, -ENOMEM);
	struct hp_heap_stat stat = hp_heap_numbers(heap);
	must(done >= MIB / 4 / (100 * sizeof(struct node)) / 2); /* about as many as there is room for */
	must_be(stat.blocked_pid, reader.pid);
	must(stat.held <= stat.limit && stat.pending);
	must_be(node_at(heap, hp_heap_root(heap))->id, done * 100 + 99); /* the last one that went well */
	must_be(list_length(heap, hp_heap_root(heap)), 100);
	must_be(hp_heap_gc(heap, HP_GC_WAIT, 20), -EAGAIN);
	for (hp_ref at = hp_heap_root(heap); at.word; at = node_at(heap, at)->a.ref)
		for (int i = 0; i < 2; i++) { /* others guard more values than there are cells, too */
			hp_guard guard;
			must_be(hp_heap_guard(heap, (hp_ref[]){at, node_at(heap, at)->a.ref}, 2, &guard), 0);
			must_be(hp_heap_unguard(&guard), 0);
		}
	must_be(kill(reader.pid, SIGCONT), 0);
	child_say(&reader); /* it finds its list whole, and leaves */
	must(child_hear(&reader));
	hp_heap_clean(heap);
	stat = hp_heap_numbers(heap);
	must_be(stat.values, 100);
	must_be(stat.blocked_pid, 0);
	for (unsigned i = 0; i < 100; i++) must_be(replace_once(heap, i), 0);
	child_finish(&reader);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void the_dead_keep_nothing(void **state)
{
	(void)state;
	for (int how = IN_SECTION; how <= IN_USE; how++) {
		hp_pool *pool = hp_plain_pool(16 * MIB, 0);
		hp_heap *heap = hp_heap_make(pool, 0);
		struct standing s = {pool, hp_heap_id(heap), how};
		must_be(replace_once(heap, 0), 0);
		struct child reader = child_start(stands, &s);
		must(child_hear(&reader));
		must_be(replace_once(heap, 1), 0);
		must_be(hp_heap_gc(heap, 0, 1000), how == IN_SECTION ? -EAGAIN : 0);
		must_be(hp_heap_numbers(heap).values, 200);
		child_kill(&reader);
		/* the first that comes by recovers it; what it guarded may live for one more */
		must_be(hp_pool_recover(pool), 1);
		must_be(hp_heap_gc(heap, 0, 1000), 0);
		if (how != IN_SECTION) must_be(hp_heap_gc(heap, 0, 1000), 0);
		must_be(hp_heap_numbers(heap).values, 100);
		must_be(hp_heap_destroy(heap, 0, 1000), 0);
		hp_must_be_empty(pool);
		hp_pool_detach(pool);
	}
}

/* ---- a guard that goes round ---- */

#define RING 3u
#define HOPS (HP_TEST_SANITIZER ? 200u : 1000u)

struct ring {
	hp_pool *pool;
	uint64_t id;
	_Atomic uint64_t word[RING]; /* for that one to take over; 0: it has */
	_Atomic uint64_t hops, cycles;
	_Atomic unsigned over;
};

/* Takes over from the one before, moves the guard a few times from cell to cell, and gives the value to the next one. */
static void goes_round(struct ring *ring, unsigned index)
{
	hp_heap *heap;
	hp_guard guard, next;
	must_be(hp_heap_open(ring->pool, ring->id, &heap), 0);
	for (;;) {
		hp_ref ref;
		while (!(ref.word = atomic_load(&ring->word[index])) && !atomic_load(&ring->over)) sched_yield();
		if (!ref.word) break;
		must_be(hp_heap_guard(heap, &ref, 1, &guard), 0);
		atomic_store(&ring->word[index], 0); /* whoever gave it lets go of it now */
		for (int i = 0; i < 3; i++) {
			must_be(hp_heap_guard(heap, &ref, 1, &next), 0);
			must_be(hp_heap_unguard(&guard), 0);
			guard = next;
			must_be(list_length(heap, ref), 5);
			must_be(node_at(heap, ref)->id, 7);
		}
		if (atomic_fetch_add(&ring->hops, 1) + 1 >= HOPS &&
		    atomic_load(&ring->cycles) >= 20) { /* linked again: what was condemned comes back */
			hp_tx *tx = hp_heap_start(heap);
			hp_ref box = hp_heap_box(tx, ref);
			must_be(hp_heap_unguard(&guard), 0);
			must_be(hp_heap_set_root(tx, box), 0);
			must_be(hp_heap_commit(tx), 0);
			atomic_store(&ring->over, 1);
			break;
		}
		unsigned to = (index + 1) % RING;
		atomic_store(&ring->word[to], ref.word);
		while (atomic_load(&ring->word[to])) sched_yield();
		must_be(hp_heap_unguard(&guard), 0);
	}
	must_be(hp_pool_detach(ring->pool), 0);
	_exit(0);
}

static void a_guard_goes_from_process_to_process(void **state)
{
	(void)state;
	struct ring *ring = hp_shared(sizeof *ring);
	pid_t pid[RING];
	hp_guard guard;
	ring->pool = hp_plain_pool(16 * MIB, 0);
	hp_heap *heap = hp_heap_make(ring->pool, 0);
	ring->id = hp_heap_id(heap);
	list_make(heap, 7, 5);
	hp_ref ref = hp_heap_root(heap);
	must_be(hp_heap_guard(heap, &ref, 1, &guard), 0);
	must_be(replace_once(heap, 1), 0);
	for (unsigned i = 0; i < RING; i++)
		if ((pid[i] = hp_fork()) == 0) goes_round(ring, i);
	atomic_store(&ring->word[0], ref.word);
	while (atomic_load(&ring->word[0])) sched_yield();
	must_be(hp_heap_unguard(&guard), 0);
	while (!atomic_load(&ring->over)) {
		int error = hp_heap_gc(heap, 0, -1);
		must(error == 0 || error == -EAGAIN);
		if (!error) atomic_fetch_add(&ring->cycles, 1);
		hp_tx *tx = hp_heap_start(heap);
		for (uint64_t k = 0; k < 50; k++) must(node_make(tx, 1000 + k).word); /* in the places of what was reclaimed */
		hp_heap_abort(tx);
	}
	for (unsigned i = 0; i < RING; i++) must_be(hp_wait_for(pid[i]), 0);
	for (int i = 0; i < 2; i++) hp_heap_clean(heap);
	struct hp_cell *box = hp_heap_deref(heap, hp_heap_root(heap));
	must_be(box->value.ref.word, ref.word);
	must_be(list_length(heap, ref), 5);
	must_be(node_at(heap, ref)->id, 7);
	must_be(hp_heap_numbers(heap).values, 6);
	printf("%llu hops, %llu collections\n", (unsigned long long)ring->hops, (unsigned long long)ring->cycles);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
	hp_must_be_empty(ring->pool);
	hp_pool_detach(ring->pool);
	munmap(ring, sizeof *ring);
}

int main(int argc, char **argv)
{
	if (argc > 2 || (argc == 2 && (kills = strtoull(argv[1], NULL, 10)) == 0)) {
		fprintf(stderr, "usage: heap_test [KILLS]\n");
		return 2;
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reader_that_stands_still_stops_nobody),
		cmocka_unit_test(the_dead_keep_nothing),
		cmocka_unit_test(a_guard_goes_from_process_to_process),
		cmocka_unit_test(kills_leave_what_was_committed),
		cmocka_unit_test(kills_in_fenced_mode),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
