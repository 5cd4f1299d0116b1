/* Counting in the shared heap; flows.h has the design. */
#include "flows.h"

#define PATIENCE_MS 5000

HP_TYPE(flow_type, struct flow, (next[0], flow_type), (next[1], flow_type), (next[2], flow_type), (next[3], flow_type),
        (next[4], flow_type), (next[5], flow_type), (next[6], flow_type), (next[7], flow_type));
HP_TYPE_VECTOR(flow_table_type, struct flow_table, slots, slot, flow_type);

static int make_table(hp_tx *tx, void *arg)
{
	(void)arg;
	hp_heap_set_root(tx, hp_heap_new(tx, &flow_table_type, 1u << FLOWS_LOG2));
	hp_heap_reserve(tx, 0, &flow_type, 1, 0); /* the type is known, so that nobody has to look for it under way */
	return hp_heap_error(tx);
}

int flow_heap_create(hp_pool *pool, hp_heap **heap)
{
	int error = hp_heap_create(pool, NULL, NULL, NULL, heap);
	if (error == 0 && (error = hp_heap_modify(*heap, PATIENCE_MS, make_table, NULL)) < 0) {
		hp_heap_destroy(*heap, 0, PATIENCE_MS);
		*heap = NULL;
	}
	return error;
}

struct flow_table *flow_table_of(const hp_heap *heap)
{
	size_t bytes;
	struct flow_table *table = hp_heap_deref_checked(heap, hp_heap_root(heap), &flow_table_type, &bytes);
	bool whole = table && bytes >= sizeof(*table) + (sizeof(hp_ref) << FLOWS_LOG2);
	return whole ? table : NULL;
}

/* The reference to the flow, or the empty one where it belongs. */
static hp_ref *find(const hp_heap *heap, struct flow_table *table, const struct flow_key *key, uint64_t hash)
{
	uint64_t rest = hash >> FLOWS_LOG2;
	hp_ref *at = &table->slot[hash & ((1u << FLOWS_LOG2) - 1)];
	for (;; rest >>= 3) {
		hp_ref ref = hp_heap_load(at);
		if (!ref.word) return at;
		struct flow *flow = hp_heap_deref(heap, ref);
		if (flow->hash == hash && flow_key_same(&flow->key, key)) return at;
		at = &flow->next[rest & 7].ref;
	}
}

int flow_count(hp_tx *tx, struct flow_table *table, const struct flow_key *key, uint64_t hash, uint32_t bytes)
{
	const hp_heap *heap = hp_heap_of(tx);
	hp_ref *at = find(heap, table, key, hash), ref = hp_heap_load(at);
	if (ref.word) {
		struct flow *flow = hp_heap_deref(heap, ref);
		const uint64_t now[2] = {flow->frames + 1, flow->bytes + bytes};
		return hp_heap_write(tx, &flow->frames, now, sizeof(now));
	}
	ref = hp_heap_new(tx, &flow_type, 0);
	if (!ref.word) return hp_heap_error(tx);
	struct flow *flow = hp_heap_deref(heap, ref);
	flow->key = *key;
	flow->hash = hash;
	flow->frames = 1;
	flow->bytes = bytes;
	int error = hp_heap_set(tx, at, ref);
	return error < 0 ? error : 1;
}

static int add(hp_heap *heap, hp_ref value, void *arg)
{
	struct flow_sum *sum = arg;
	const struct flow *flow = hp_heap_deref(heap, value);
	sum->flows++;
	sum->frames += flow->frames;
	sum->bytes += flow->bytes;
	if (flow->bytes > sum->largest_bytes) sum->largest_bytes = flow->bytes;
	return 0;
}

int flow_add_up(hp_heap *heap, struct flow_sum *sum)
{
	int error = hp_heap_gc(heap, HP_GC_WAIT, PATIENCE_MS);
	return error < 0 ? error : hp_heap_foreach(heap, &flow_type, add, sum);
}
