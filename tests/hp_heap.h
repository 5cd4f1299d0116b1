/* What tests of the shared heap share: values with a seal that shows whether memory is still theirs, and short forms. */
#ifndef HP_HEAP_TEST_H
#define HP_HEAP_TEST_H

#include "hp_page.h"

#include <hugepool/heap.h>
#include <pthread.h>

#define HP_SEAL UINT64_C(0x5ea1edf10aef10a7)

struct node {
	HP_REF(struct node) a;
	HP_REF(struct node) b;
	uint64_t id, seal;
};
HP_TYPE_DECLARE(node_type);
HP_TYPE(node_type, struct node, (a, node_type), (b, node_type));

static inline void run_thread(void *(*run)(void *), void *arg)
{
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, run, arg), 0);
	must_be(pthread_join(thread, NULL), 0);
}

static inline hp_heap *hp_heap_make(hp_pool *pool, uint64_t limit)
{
	hp_heap *heap = NULL;
	must_be(hp_heap_create(pool, &(struct hp_heap_options){.limit = limit}, NULL, NULL, &heap), 0);
	return heap;
}

static inline hp_tx *hp_heap_start(hp_heap *heap)
{
	hp_tx *tx = NULL;
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	return tx;
}

static inline struct node *node_at(const hp_heap *heap, hp_ref ref)
{
	return hp_heap_deref(heap, ref);
}

static inline hp_ref node_make(hp_tx *tx, uint64_t id)
{
	hp_ref ref = hp_heap_new(tx, &node_type, 0);
	if (!ref.word) return ref;
	struct node *node = node_at(hp_heap_of(tx), ref);
	must(node->a.ref.word == 0 && node->b.ref.word == 0 && node->id == 0 && node->seal == 0);
	node->id = id;
	node->seal = id ^ HP_SEAL;
	return ref;
}

static inline bool node_is_whole(const hp_heap *heap, hp_ref ref)
{
	const struct node *node = hp_heap_deref_checked(heap, ref, &node_type, NULL);
	return node && node->seal == (node->id ^ HP_SEAL);
}

static inline struct hp_heap_stat hp_heap_numbers(hp_heap *heap)
{
	struct hp_heap_stat stat;
	must_be(hp_heap_stat(heap, &stat), 0);
	return stat;
}

/* Collects until nothing waits: no reader may be in a section. */
static inline void hp_heap_clean(hp_heap *heap)
{
	must_be(hp_heap_gc(heap, HP_GC_WAIT, 5000), 0);
}

/* A list of `n` nodes, ids from `first` on, as the root; one transaction. */
static inline void list_make(hp_heap *heap, uint64_t first, uint64_t n)
{
	hp_tx *tx = hp_heap_start(heap);
	hp_ref head = HP_NONE;
	for (uint64_t k = n; k-- > 0;) {
		hp_ref node = node_make(tx, first + k);
		must(node.word);
		node_at(heap, node)->a.ref = head;
		head = node;
	}
	must_be(hp_heap_set_root(tx, head), 0);
	must_be(hp_heap_commit(tx), 0);
}

/* Nodes from there on along `a`, all whole. */
static inline uint64_t list_length(const hp_heap *heap, hp_ref at)
{
	uint64_t n = 0;
	for (; at.word; n++) {
		must(node_is_whole(heap, at));
		at = hp_heap_load(&node_at(heap, at)->a.ref);
	}
	return n;
}

#endif
