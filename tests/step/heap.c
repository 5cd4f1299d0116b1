/* Heaps in worlds: what is verified of them. See harness.h.
 *
 * What a heap is, is a hash of its graph: values in the order in which they are met from the root, with types, plain data, and numbers of values where references are. So it is the same wherever the values lie, and in
 * whichever process. */
#include "harness.h"
#include "heap/heap.h"
#include "heap/layout.h"
#include <hugepool/inspect.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GOALS 8
#define VALUES 8192

HP_TYPE(step_part_type, struct step_part, (a, step_part_type), (b, step_part_type), (more, hp_any));

static struct {
	uint64_t goal[GOALS]; /* before, in between, after */
	unsigned goals;
	bool learning; /* the next is what is seen */
} known;

/* ---- the graph ---- */

struct graph {
	const hp_heap *heap;
	uint64_t word[VALUES];      /* in the order in which they were met */
	uint16_t table[VALUES * 2]; /* number + 1 */
	unsigned count;
	uint64_t hash;
};

static void mix(struct graph *graph, const void *bytes, size_t count)
{
	uint64_t word;
	for (size_t i = 0; i < count; i += 8) {
		word = 0;
		memcpy(&word, (const char *)bytes + i, count - i < 8 ? count - i : 8);
		graph->hash = ((graph->hash << 7 | graph->hash >> 57) ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	}
}

/* The number of a value. */
static void meet(struct step_world *w, struct graph *graph, uint64_t word)
{
	unsigned at = (unsigned)(word * UINT64_C(0x9e3779b97f4a7c15) >> 50) % (VALUES * 2);
	uint64_t number = 0;
	uint64_t page;
	uint32_t i;
	if (word && !heap_find(graph->heap, word, &page, &i)) {
		step_fail(w, "a reference to 0x%llx, where nothing lives", (unsigned long long)word);
		word = 0;
	}
	while (word && graph->table[at] && graph->word[graph->table[at] - 1] != word) at = (at + 1) % (VALUES * 2);
	if (word && !graph->table[at]) {
		STEP_NEED(w, graph->count < VALUES);
		graph->word[graph->count] = word;
		graph->table[at] = (uint16_t)++graph->count;
	}
	if (word) number = graph->table[at];
	mix(graph, &number, sizeof number);
}

static void scan(struct step_world *w, struct graph *graph, uint64_t word)
{
	hp_heap *heap = (hp_heap *)graph->heap;
	uint64_t page;
	uint32_t i, elements = 0;
	struct heap_slab *slab = heap_find(heap, word, &page, &i);
	struct heap_type *type = slab ? heap_type(heap, atomic_load(&slab->type)) : NULL;
	if (!type) return;
	const char *at = hp_heap_deref(heap, (hp_ref){word});
	mix(graph, type->shape.name, sizeof type->shape.name);
	if (type->element) memcpy(&elements, at + type->count, sizeof elements);
	uint64_t bytes = heap_bytes(type, elements);
	if (bytes > atomic_load(&slab->size)) {
		step_fail(w, "a value has %u elements, and no room for them", elements);
		return;
	}
	for (uint64_t k = 0; k < bytes; k += 8) {
		bool reference = false;
		uint64_t in = type->element && k >= type->tail ? (k - type->tail) % type->element : 0;
		for (uint32_t m = 0; m < type->members; m++) reference |= type->member[m] == k;
		for (uint32_t m = 0; type->element && k >= type->tail && m < type->tail_members; m++)
			reference |= type->tail_member[m] == in;
		if (reference)
			meet(w, graph, *(const uint64_t *)(const void *)(at + k));
		else
			mix(graph, at + k, bytes - k < 8 ? bytes - k : 8);
	}
	if (strcmp(type->shape.name, step_part_type.name) == 0 && !step_part_whole(heap, (hp_ref){word}))
		step_fail(w, "the part at 0x%llx is not whole", (unsigned long long)word);
}

/* From the root, or also from all guards. */
static uint64_t graph_of(struct step_world *w, hp_heap *heap, bool guards, unsigned *count)
{
	static struct graph graph; /* large */
	const hp_pool *pool = heap->pool;
	memset(&graph, 0, sizeof graph);
	graph.heap = heap;
	meet(w, &graph, hp_heap_root(heap).word);
	for (uint32_t s = 0; guards && s < pool_slots_top(pool); s++)
		for (uint32_t c = 0; c < atomic_load(&pool->slots[s].guards) && c < HEAP_GUARDS; c++) {
			uint64_t word = atomic_load(&pool->guards[s * HEAP_GUARDS + c]);
			if (word >> HEAP_OFFSET_BITS == heap->tag >> HEAP_OFFSET_BITS && !(word & HEAP_RELEASED))
				meet(w, &graph, word);
		}
	for (unsigned k = 0; k < graph.count; k++) scan(w, &graph, graph.word[k]);
	*count = graph.count;
	return graph.hash ? graph.hash : 1;
}

hp_ref step_part(hp_tx *tx, uint64_t id, hp_ref a, hp_ref b)
{
	hp_ref ref = hp_heap_new(tx, &step_part_type, 0);
	if (!ref.word) return ref;
	struct step_part *part = hp_heap_deref(hp_heap_of(tx), ref);
	part->a.ref = a;
	part->b.ref = b;
	part->id = id;
	part->fill[58] = id;
	part->seal = id ^ STEP_SEAL;
	return ref;
}

bool step_part_whole(const hp_heap *heap, hp_ref ref)
{
	const struct step_part *part = hp_heap_deref(heap, ref);
	return part->seal == (part->id ^ STEP_SEAL) && part->fill[58] == part->id;
}

/* ---- verification ---- */

struct seen {
	uint64_t id[STEP_WATCHED_HEAPS];
	unsigned count;
};

static int note(void *arg, const struct hp_heap_seen *heap)
{
	struct seen *seen = arg;
	if (seen->count < STEP_WATCHED_HEAPS) seen->id[seen->count++] = heap->id;
	return 0;
}

static void finding(void *arg, const struct hp_heap_finding *finding)
{
	step_fail(arg, "hp_heap_check: %s", finding->text);
}

static void check(struct step_world *w, hp_heap *heap)
{
	int found = hp_heap_check(heap, 0, finding, w);
	if (found < 0) step_fail(w, "hp_heap_check fails with %d", found);
}

/* As after every transaction that has ended. */
static void at_rest(struct step_world *w, hp_heap *heap)
{
	struct heap_entry *entry = heap->entry;
	hp_tx *tx;
	int error = hp_heap_begin(heap, 1000, &tx);
	if (error < 0) {
		step_fail(w, "the next begin fails with %d", error);
		return;
	}
	if (atomic_load(&entry->log_n)) step_fail(w, "the log has entries");
	if (atomic_load(&entry->version) & 1) step_fail(w, "the version is odd");
	if (atomic_load(&entry->run)) step_fail(w, "a run is in hand");
	if (atomic_load(&entry->quarantined)) step_fail(w, "entries of the log made no sense");
	hp_heap_abort(tx);
}

/* What is garbage goes, and nothing else: also what a cycle before has let live, and what was released. */
static void collects(struct step_world *w, hp_heap *heap)
{
	unsigned count;
	struct hp_heap_stat stat;
	uint64_t hash = graph_of(w, heap, true, &count);
	for (int i = 0; i < 2; i++) {
		int error = hp_heap_gc(heap, HP_GC_WAIT, 5000);
		if (error < 0) step_fail(w, "collecting fails with %d", error);
	}
	check(w, heap);
	if (graph_of(w, heap, true, &count) != hash) step_fail(w, "collecting changes the graph");
	int error = hp_heap_stat(heap, &stat);
	if (error < 0 || stat.values != count || stat.pending)
		step_fail(w, "%llu values are left, and %u are reached", (unsigned long long)stat.values, count);
}

static void writes(struct step_world *w, hp_heap *heap)
{
	hp_tx *tx;
	int error = hp_heap_begin(heap, 1000, &tx);
	if (error < 0) return;
	hp_ref old = hp_heap_root(heap), root = step_part(tx, 999, HP_NONE, HP_NONE);
	if (root.word) hp_heap_set(tx, &((struct step_part *)hp_heap_deref(heap, root))->more.ref, old);
	for (uint64_t i = 0; i < 10; i++) root = step_part(tx, 1000 + i, root, HP_NONE);
	old = hp_heap_new_string(tx, "as before", 9);
	if (root.word) hp_heap_set(tx, &((struct step_part *)hp_heap_deref(heap, root))->more.ref, old);
	hp_heap_set_root(tx, root);
	if ((error = hp_heap_commit(tx)) < 0 && error != -ENOMEM) step_fail(w, "the next transaction fails with %d", error);
	check(w, heap);
}

/* What was half made or half ended goes back when somebody makes a heap in its place, or needs memory. */
static void reap(struct step_world *w, hp_pool *pool)
{
	hp_heap *heap;
	void *block;
	if (w->states & 1) {
		int error = hp_heap_create(pool, NULL, NULL, NULL, &heap);
		if (error == 0) error = hp_heap_destroy(heap, 0, 1000);
		if (error < 0) step_fail(w, "making another heap and ending it fails with %d", error);
	}
	if (hp_page_alloc(pool, w->shape.pages * HP_PAGE_SIZE, 0, &block) == 0) hp_page_free(pool, block);
}

int step_verify_heaps(struct step_world *w, const struct step_expect *expect, hp_pool *pool)
{
	struct seen seen = {.count = 0};
	hp_heap *heap[STEP_WATCHED_HEAPS];
	uint64_t hash, all = 1;
	unsigned heaps = 0, count, goal = 0;
	for (uint32_t i = 1; i < STEP_WATCHED_HEAPS; i++)
		if (atomic_load(&pool->heaps[i].log_n) && !(atomic_load(&pool->heaps[i].version) & 1))
			step_fail(w, "readers are told that nothing is under way, and it may still be undone");
	hp_pool_heaps(pool, note, &seen);
	for (unsigned i = 0; i < seen.count; i++) {
		int error = hp_heap_open(pool, seen.id[i], &heap[heaps]);
		if (error < 0 && error != -ESTALE) step_fail(w, "opening the heap fails with %d", error);
		if (error < 0) continue;
		at_rest(w, heap[heaps]);
		check(w, heap[heaps]);
		hash = graph_of(w, heap[heaps++], false, &count);
		all = step_hash(&hash, 8, all);
	}
	if (known.learning) {
		STEP_NEED(w, known.goals < GOALS);
		if (known.goals == 0 || known.goal[known.goals - 1] != all) known.goal[known.goals++] = all;
		known.learning = false;
		goal = known.goals - 1;
	}
	while (goal < known.goals && known.goal[goal] != all) goal++;
	if (goal == known.goals) {
		step_fail(w, "the graph is none of the %u that it may be", known.goals);
		goal = 0;
	}
	(void)expect;
	for (unsigned i = 0; i < heaps && !w->failures; i++) {
		collects(w, heap[i]);
		writes(w, heap[i]);
	}
	for (unsigned i = 0; i < heaps; i++) {
		int error = hp_heap_destroy(heap[i], expect->alive ? HP_HEAP_FORCE : 0, 1000);
		if (error < 0) step_fail(w, "ending the heap fails with %d", error);
	}
	reap(w, pool);
	return (int)goal;
}

static void learn(struct step_world *w)
{
	struct step_expect expect = {.effect = STEP_NONE};
	known.learning = true;
	step_verify_copy(w, &expect);
	if (w->failures) step_broken(w, __FILE__, __LINE__, "nobody has died, and it is wrong");
}

static struct step_world *world_of(const char *name, const struct step_pool *pool, step_setup_fn *setup, uint64_t x,
                                   uint64_t y)
{
	struct step_world *w = step_open(name, pool);
	w->x = x;
	w->y = y;
	setup(w);
	return w;
}

void step_heap_goals(const struct step_case *entry)
{
	step_fn *run[] = {NULL, entry->middle, entry->effect == STEP_CHANGES ? entry->run : NULL};
	known.goals = 0;
	for (unsigned i = 0; i < 3; i++) {
		if (i && !run[i]) continue;
		struct step_world *w = world_of(entry->name, entry->pool, entry->setup, entry->x, entry->y);
		if (run[i]) step_call(w, 0, run[i], w->x, w->y);
		learn(w);
		step_close(w);
	}
}

/* One after the other, either way round, or one alone, or none. */
void step_heap_pair_goals(const struct step_pair *entry)
{
	static const char order[][2] = {{-1, -1}, {0, -1}, {1, -1}, {0, 1}, {1, 0}};
	known.goals = 0;
	for (unsigned i = 0; i < sizeof order / sizeof *order; i++) {
		struct step_world *w = world_of(entry->name, entry->pool, entry->setup, 0, 0);
		uint64_t x[2] = {entry->a.x ? entry->a.x : w->x, entry->b.x ? entry->b.x : w->y};
		for (unsigned k = 0; k < 2 && order[i][k] >= 0; k++) {
			const struct step_side *side = order[i][k] ? &entry->b : &entry->a;
			step_call(w, order[i][k], side->run, x[(int)order[i][k]], side->y);
		}
		learn(w);
		step_close(w);
	}
}
