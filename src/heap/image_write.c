/* Images of value graphs in raw memory: writing them.
 *
 * Writing is one walk, breadth first, without recursion: a value that is met gets its place at the end of the image, in the order
 * of meeting, and is copied when its turn comes; a table from addresses to places keeps sharing and cycles. Where values come
 * from a heap that changes, nothing has to be read twice: the count of a value is read when it is met, its references when it
 * is copied. Telling the size is the same walk without the copying. */
#include "heap/image.h"
#include "heap/layout.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VALUES_MAX (UINT32_MAX - 1)

struct node {
	uintptr_t from;
	uint64_t at;
	uint32_t elements;
	uint16_t shape;
	bool shared; /* in the heap */
};

struct walk {
	struct image_plan plan;
	const hp_heap *heap;
	char *to;                  /* NULL: only the size is wanted */
	uint64_t first, end, room; /* what was there before ends at first */
	struct node *node;
	uint32_t nodes, node_room;
	uint32_t *slot; /* node + 1 */
	uint32_t slots;
};

/* The slot where the value is, or is to be. */
static uint32_t *slot_find(const struct walk *walk, uintptr_t from)
{
	uint32_t at = (uint32_t)(from * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (walk->slots - 1);
	while (walk->slot[at] && walk->node[walk->slot[at] - 1].from != from) at = (at + 1) & (walk->slots - 1);
	return &walk->slot[at];
}

static bool slots_more(struct walk *walk)
{
	if (walk->nodes < walk->slots / 2) return true;
	if (walk->slots > UINT32_MAX / 2) return false;
	uint32_t slots = walk->slots ? walk->slots * 2 : 64;
	uint32_t *slot = calloc(slots, sizeof *slot);
	if (!slot) return false;
	free(walk->slot);
	walk->slot = slot;
	walk->slots = slots;
	for (uint32_t i = 0; i < walk->nodes; i++) *slot_find(walk, walk->node[i].from) = i + 1;
	return true;
}

/* A pointer to a value of the heap says the same as its reference. Other memory of the pool is private memory here. */
static bool in_heap(const hp_heap *heap, uint64_t word)
{
	uint64_t off = word - (uintptr_t)heap->pool->base, page = off >> 12;
	struct heap_slab *slab;
	return off < heap->pool->capacity && heap_find_page(&heap->view, &page, &slab);
}

/* The address of what a member refers to, and the bytes of its place, where they are known. */
static int resolve(const struct walk *walk, uint64_t word, const struct image_shape *shape, uintptr_t *from,
                   size_t *place)
{
	const hp_heap *heap = walk->heap;
	*place = SIZE_MAX;
	if (heap && !(word & HEAP_REFERENCE) && in_heap(heap, word))
		word = heap_ref(heap, (const void *)(uintptr_t)word).word;
	if (word & HEAP_REFERENCE) {
		if (!heap || word >> HEAP_OFFSET_BITS != heap->tag >> HEAP_OFFSET_BITS) return -EXDEV;
		hp_ref ref = {word};
		void *at = hp_heap_deref_checked(heap, ref, shape->type, place);
		if (!at) return hp_heap_deref_checked(heap, ref, NULL, NULL) ? -EPROTO : -ESTALE;
		word = (uintptr_t)at;
	}
	*from = (uintptr_t)word;
	return 0;
}

/* A value that is referred to gets its place, once. */
static int meet_value(struct walk *walk, uint64_t word, uint32_t target, uint64_t *ref)
{
	const struct image_shape *shape = &walk->plan.shape[target];
	uintptr_t from;
	size_t place;
	int error = resolve(walk, word, shape, &from, &place);
	if (error < 0) return error;
	if (!slots_more(walk) || !image_more(&walk->node, walk->nodes, &walk->node_room, sizeof *walk->node))
		return -ENOMEM;
	uint32_t *slot = slot_find(walk, from), elements = 0;
	if (!*slot) {
		if (walk->nodes == VALUES_MAX) return -EOVERFLOW;
		if (shape->type->element) {
			elements = image_load32((const char *)from + shape->type->count);
			if (image_tail_bytes(shape, elements) > place) return -EINVAL;
		}
		/* the root's place is good for any alignment in the image */
		uint64_t align = walk->end == sizeof(struct hp_image) ? walk->plan.align : shape->align;
		uint64_t at = image_up(walk->end + sizeof(struct image_mark), align),
				 bytes = image_value_bytes(shape, elements);
		if (at > IMAGE_BYTES_MAX || bytes > IMAGE_BYTES_MAX - at) return -EOVERFLOW;
		if (at + bytes > walk->room) return -ENOSPC;
		walk->end = at + bytes;
		walk->node[walk->nodes++] = (struct node){from, at, elements, (uint16_t)target, place != SIZE_MAX};
		*slot = walk->nodes;
	}
	*ref = HP_IMAGE_REF | walk->node[*slot - 1].at;
	return walk->node[*slot - 1].shape == target ? 0 : -EPROTO; /* no value lies in another one */
}

static int meet(struct walk *walk, uint64_t word, uint32_t target, uint64_t *ref)
{
	*ref = word;
	if (!word) return 0;
	if (word >> 62 == 1) { /* of the image that this is added to */
		uint64_t at = word & ~HP_IMAGE_REF;
		if (!walk->first || at % 8 || at < sizeof(struct hp_image) + sizeof(struct image_mark) || at >= walk->first)
			return -EXDEV;
		bool right = target == IMAGE_ANY ||
		             image_load32(walk->to + at - sizeof(struct image_mark)) == walk->plan.shape[target].kind;
		return right ? 0 : -EPROTO;
	}
	return target == IMAGE_ANY ? -EINVAL : meet_value(walk, word, target, ref);
}

/* Copies one, and meets what it refers to. `to` may have any alignment. */
static int copy(struct walk *walk, const struct node *node, uint64_t *end)
{
	const struct image_shape *shape = &walk->plan.shape[node->shape];
	const struct hp_type *type = shape->type;
	const char *from = (const char *)node->from;
	char *to = walk->to ? walk->to + node->at : NULL;
	if (to) {
		struct image_mark mark = {shape->kind, node->elements};
		uint64_t bytes = type->element ? image_tail_bytes(shape, node->elements) : type->size;
		memset(walk->to + *end, 0, node->at - sizeof mark - *end);
		memcpy(to - sizeof mark, &mark, sizeof mark);
		if (node->shared)
			heap_copy_shared(to, from, bytes);
		else
			memcpy(to, from, bytes);
		*end = node->at + image_value_bytes(shape, node->elements);
		memset(to + bytes, 0, *end - node->at - bytes);
		if (type->element) memcpy(to + type->count, &node->elements, sizeof node->elements);
	}
	struct image_edges edges = image_edges_of(&walk->plan, shape, node->elements);
	uint64_t at, ref;
	for (uint32_t target; image_edges_next(&edges, &at, &target);) {
		/* acquire: the value is there as whoever linked it had made it */
		uint64_t word = __atomic_load_n((const uint64_t *)(const void *)(from + at), __ATOMIC_ACQUIRE);
		int error = meet(walk, word, target, &ref);
		if (error < 0) return error;
		if (to) memcpy(to + at, &ref, sizeof ref);
	}
	return 0;
}

/* What `value` reaches is placed from walk->end on. */
static int walk_all(struct walk *walk, const struct hp_type *type, const void *value)
{
	uint64_t ref, end = walk->end;
	if (!value) return -EINVAL;
	if (walk->heap && (!walk->heap->pool || !heap_is_live(walk->heap))) return -ESTALE;
	int error = image_plan_make(&walk->plan, type);
	if (error == 0 && walk->first && walk->plan.align > ((const struct hp_image *)(const void *)walk->to)->align)
		error = -EINVAL;
	if (error == 0) error = meet_value(walk, (uintptr_t)value, 0, &ref);
	for (uint32_t i = 0; error == 0 && i < walk->nodes; i++) {
		struct node node = walk->node[i];
		error = copy(walk, &node, &end);
	}
	return error;
}

static void walk_free(struct walk *walk)
{
	image_plan_free(&walk->plan);
	free(walk->node);
	free(walk->slot);
}

int64_t hp_image_need(const hp_heap *heap, const struct hp_type *type, const void *value)
{
	struct walk walk = {.heap = heap, .end = sizeof(struct hp_image), .room = IMAGE_BYTES_MAX};
	int error = walk_all(&walk, type, value);
	walk_free(&walk);
	return error < 0 ? error : (int64_t)walk.end;
}

int64_t hp_image_write(void *to, size_t room, const hp_heap *heap, const struct hp_type *type, const void *value)
{
	struct hp_image image = {0};
	if (!to) return -EINVAL;
	if (room < sizeof image) return -ENOSPC;
	struct walk walk = {
		.heap = heap, .to = to, .end = sizeof image, .room = room < IMAGE_BYTES_MAX ? room : IMAGE_BYTES_MAX};
	memcpy(to, &image, sizeof image); /* none, until it is complete */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	int error = walk_all(&walk, type, value);
	if (error == 0) {
		image = (struct hp_image){.magic = HP_IMAGE_MAGIC,
		                          .bytes = walk.end,
		                          .root = walk.node[0].at,
		                          .values = walk.nodes,
		                          .align = walk.plan.align};
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		memcpy(to, &image, sizeof image);
	}
	walk_free(&walk);
	return error < 0 ? error : (int64_t)walk.end;
}

/* ---- by hand ---- */

int64_t hp_image_size(const struct hp_type *type, uint32_t elements)
{
	struct image_plan plan;
	int64_t bytes = image_plan_make(&plan, type);
	if (bytes == 0 && !type->element && elements) bytes = -EINVAL;
	if (bytes == 0) {
		uint64_t root = image_up(sizeof(struct hp_image) + sizeof(struct image_mark), plan.align);
		uint64_t size = image_value_bytes(&plan.shape[0], elements);
		bytes = size > IMAGE_BYTES_MAX - root ? -EOVERFLOW : (int64_t)(root + size);
	}
	image_plan_free(&plan);
	return bytes;
}

static hp_ref fail(struct hp_image_builder *builder, int error)
{
	if (!builder->error) builder->error = error;
	return HP_NONE;
}

int hp_image_begin(struct hp_image_builder *builder, void *to, size_t room, const struct hp_type *type,
                   uint32_t elements)
{
	struct image_plan plan;
	if (!builder) return -EINVAL;
	*builder = (struct hp_image_builder){.error = -EINVAL};
	if (!to) return -EINVAL;
	int error = image_plan_make(&plan, type);
	if (error == 0 && (uintptr_t)to % plan.align) error = -EINVAL;
	if (error == 0 && room < sizeof *builder->image) error = -ENOSPC;
	if (error == 0) {
		*builder = (struct hp_image_builder){.image = to, .room = room < IMAGE_BYTES_MAX ? room : IMAGE_BYTES_MAX};
		uint64_t root = image_up(sizeof(struct hp_image) + sizeof(struct image_mark), plan.align);
		*builder->image = (struct hp_image){.bytes = sizeof *builder->image, .root = root, .align = plan.align};
		hp_image_new(builder, type, elements);
		if ((error = builder->error) == 0) builder->image->magic = HP_IMAGE_MAGIC;
	}
	image_plan_free(&plan);
	return builder->error = error;
}

hp_ref hp_image_new(struct hp_image_builder *builder, const struct hp_type *type, uint32_t elements)
{
	struct image_shape shape;
	if (builder->error) return HP_NONE;
	struct hp_image *image = builder->image;
	if (image_shape_make(type, &shape) < 0 || shape.align > image->align || (!type->element && elements))
		return fail(builder, -EINVAL);
	uint64_t at = image->values ? image_up(image->bytes + sizeof(struct image_mark), shape.align) : image->root;
	uint64_t bytes = image_value_bytes(&shape, elements);
	if (at > builder->room || bytes > builder->room - at) return fail(builder, -ENOSPC);
	char *value = (char *)image + at;
	memset((char *)image + image->bytes, 0, at - image->bytes);
	memset(value, 0, bytes);
	struct image_mark mark = {shape.kind, elements};
	memcpy(value - sizeof mark, &mark, sizeof mark);
	if (type->element) memcpy(value + type->count, &elements, sizeof elements);
	image->bytes = at + bytes;
	image->values++;
	return (hp_ref){HP_IMAGE_REF | at};
}

hp_ref hp_image_new_string(struct hp_image_builder *builder, const char *s, size_t len)
{
	if (len >= UINT32_MAX) return fail(builder, builder->error ? builder->error : -EINVAL);
	hp_ref ref = hp_image_new(builder, &hp_string_type, (uint32_t)len);
	if (ref.word && s) memcpy(((struct hp_string *)hp_image_deref(builder->image, ref))->s, s, len);
	return ref;
}

hp_ref hp_image_new_vector(struct hp_image_builder *builder, uint32_t n, hp_ref uniform)
{
	hp_ref ref = hp_image_new(builder, &hp_vector_type, n);
	if (!ref.word) return ref;
	struct hp_vector *vector = hp_image_deref(builder->image, ref);
	for (uint32_t i = 0; i < n; i++) vector->item[i] = uniform;
	return ref;
}

hp_ref hp_image_new_doubles(struct hp_image_builder *builder, uint32_t n, const double *item)
{
	hp_ref ref = hp_image_new(builder, &hp_doubles_type, n);
	if (!ref.word) return ref;
	struct hp_doubles *doubles = hp_image_deref(builder->image, ref);
	if (item) memcpy(doubles->item, item, n * sizeof *item);
	return ref;
}

hp_ref hp_image_new_value(struct hp_image_builder *builder, const hp_heap *heap, const struct hp_type *type,
                          const void *value)
{
	if (builder->error) return HP_NONE;
	struct hp_image *image = builder->image;
	struct walk walk = {
		.heap = heap, .to = (char *)image, .first = image->bytes, .end = image->bytes, .room = builder->room};
	int error = walk_all(&walk, type, value);
	hp_ref ref = HP_NONE;
	if (error == 0) {
		ref.word = HP_IMAGE_REF | walk.node[0].at;
		image->bytes = walk.end;
		image->values += walk.nodes;
	}
	walk_free(&walk);
	return error < 0 ? fail(builder, error) : ref;
}
