/* A queue: a list of nodes, with references to the first and the last.
 *
 * A node's value never changes, and its `next` only from none to another, so whoever has come to a node finds the way on, even
 * when the node has been popped since. */
#include <hugepool/collections.h>
#include <errno.h>

struct queue_node {
	HP_REF(struct queue_node) next;
	HP_REF(void) value;
};
struct queue {
	HP_REF(struct queue_node) first;
	HP_REF(struct queue_node) last;
	uint64_t length;
};

HP_TYPE_DECLARE(hp_queue_node);
HP_TYPE(hp_queue_node, struct queue_node, (next, hp_queue_node), (value, hp_any));
HP_TYPE(hp_queue_type, struct queue, (first, hp_queue_node), (last, hp_queue_node));

static struct queue *queue_of(hp_tx *tx, hp_ref ref, int *error)
{
	if ((*error = hp_heap_error(tx)) < 0) return NULL;
	struct queue *queue = hp_heap_deref_checked(hp_heap_of(tx), ref, &hp_queue_type, NULL);
	if (!queue) *error = -EINVAL;
	return queue;
}

hp_ref hp_queue_new(hp_tx *tx)
{
	return hp_heap_new(tx, &hp_queue_type, 0);
}

int hp_queue_push(hp_tx *tx, hp_ref ref, hp_ref value)
{
	int error;
	hp_heap *heap = hp_heap_of(tx);
	struct queue *queue = queue_of(tx, ref, &error);
	if (!queue) return error;
	if (value.word && !hp_heap_deref_checked(heap, value, NULL, NULL)) return -EINVAL;
	hp_ref new = hp_heap_new(tx, &hp_queue_node, 0);
	if (!new.word) return hp_heap_error(tx);
	struct queue_node *node = hp_heap_deref(heap, new);
	node->value.ref = value; /* by a store, which stays when the transaction is undone: a reader may be here by then */
	hp_ref *link = &queue->first.ref;
	if (queue->last.ref.word) link = &((struct queue_node *)hp_heap_deref(heap, queue->last.ref))->next.ref;
	uint64_t length = queue->length + 1;
	if ((error = hp_heap_set(tx, link, new)) < 0) return error;
	if ((error = hp_heap_set(tx, &queue->last.ref, new)) < 0) return error;
	return hp_heap_write(tx, &queue->length, &length, sizeof length);
}

int hp_queue_pop(hp_tx *tx, hp_ref ref, hp_ref *value)
{
	int error;
	struct queue *queue = queue_of(tx, ref, &error);
	if (!queue) return error;
	if (!queue->first.ref.word) return -ENOENT;
	const struct queue_node *node = hp_heap_deref(hp_heap_of(tx), queue->first.ref);
	hp_ref next = node->next.ref;
	uint64_t length = queue->length - 1;
	*value = node->value.ref;
	if ((error = hp_heap_set(tx, &queue->first.ref, next)) < 0) return error;
	if (!next.word && (error = hp_heap_set(tx, &queue->last.ref, HP_NONE)) < 0) return error;
	return hp_heap_write(tx, &queue->length, &length, sizeof length);
}

uint64_t hp_queue_length(const hp_heap *heap, hp_ref ref)
{
	const struct queue *queue = hp_heap_deref(heap, ref);
	return __atomic_load_n(&queue->length, __ATOMIC_ACQUIRE);
}

int hp_queue_peek(const hp_heap *heap, hp_ref ref, hp_ref *value)
{
	const struct queue *queue = hp_heap_deref(heap, ref);
	hp_ref first = hp_heap_load(&queue->first.ref);
	if (!first.word) return -ENOENT;
	*value = hp_heap_load(&((const struct queue_node *)hp_heap_deref(heap, first))->value.ref);
	return 0;
}

int hp_queue_each(const hp_heap *heap, hp_ref ref, int (*fn)(const hp_heap *heap, hp_ref value, void *arg), void *arg)
{
	const struct queue *queue = hp_heap_deref(heap, ref);
	int result = 0;
	for (hp_ref at = hp_heap_load(&queue->first.ref); at.word && result == 0;) {
		const struct queue_node *node = hp_heap_deref(heap, at);
		result = fn(heap, hp_heap_load(&node->value.ref), arg);
		at = hp_heap_load(&node->next.ref);
	}
	return result;
}
