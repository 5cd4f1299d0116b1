/* What the pool asks of heaps. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "pool/layers.h"

/* A thread is gone: the locks it held are the next writer's to take, who undoes; see lock.c. */
static void recover_slot_of(hp_pool *pool, uint32_t who)
{
	struct pool_slot *slot = &pool->slots[(who >> 16) - 1];
	for (uint32_t i = 1; i < heap_top(pool); i++) {
		uint32_t holder = atomic_load_explicit(&pool->heaps[i].lock, memory_order_acquire);
		if (holder == who) atomic_compare_exchange_strong(&pool->heaps[i].lock, &holder, HEAP_ORPHAN);
	}
	heap_recover_cells(pool, slot);
}

/* A process is gone: nothing is open in it. */
static void recover_record_of(hp_pool *pool, uint32_t record, uint32_t generation)
{
	uint64_t word = atomic_load_explicit(&pool->records[record].word, memory_order_acquire);
	/* called once more when the record is free, and may be another's by then */
	if (record_state(word) != RECORD_RECOVERING || record_generation(word) != (generation & RECORD_GENERATIONS)) return;
	for (uint32_t i = 1; i < heap_top(pool); i++) {
		_Atomic uint64_t *opened = &pool->heaps[i].opened[record / 64];
		if (atomic_load_explicit(opened, memory_order_relaxed) >> (record % 64) & 1)
			atomic_fetch_and(opened, ~(UINT64_C(1) << (record % 64)));
	}
}

static bool reclaim(struct participant *me, unsigned *skipped)
{
	(void)skipped;
	return heap_reap(me->pool, me);
}

static void detach(hp_pool *pool)
{
	heap_close_all(pool);
}

static void joined(hp_pool *pool)
{
	heap_join(pool);
}

const struct pool_layer heap_layer = {.joined = joined,
                                      .recover_slot = recover_slot_of,
                                      .recover_record = recover_record_of,
                                      .reclaim = reclaim,
                                      .detach = detach};
