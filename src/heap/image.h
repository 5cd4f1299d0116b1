/* Images of value graphs in raw memory, inside: which types one may have, how its values lie. image_write.c makes them,
 * image_read.c believes nothing of them. */
#ifndef HUGEPOOL_HEAP_IMAGE_H
#define HUGEPOOL_HEAP_IMAGE_H

#include "heap/heap.h"
#include <hugepool/image.h>

#define IMAGE_BYTES_MAX (UINT64_C(1) << 48)
#define IMAGE_ANY UINT32_MAX /* as a target */

struct image_mark { /* before each value */
	uint32_t kind, elements;
};

_Static_assert(sizeof(struct hp_image) == 40 && sizeof(struct image_mark) == 8, "the root of most images begins at 48");

/* ---- types (image_plan.c) ---- */

struct image_edge {
	uint32_t offset, target; /* in plan.shape, or IMAGE_ANY */
};

struct image_shape {
	const struct hp_type *type;
	uint32_t kind, align; /* not 0; at least 8 */
	uint32_t edges;       /* the first of members, then of tail members */
	uint32_t extra;       /* elements beyond the count: the 0 of a string */
};

/* The types that an image may have: what the root's type leads to. */
struct image_plan {
	struct image_shape *shape;
	struct image_edge *edge;
	uint32_t *by_kind; /* shape + 1 */
	uint32_t shapes, shape_room, edges, edge_room, kinds, align;
	bool any;
};

int image_shape_make(const struct hp_type *type, struct image_shape *shape);

/* To be freed in any case. */
int image_plan_make(struct image_plan *plan, const struct hp_type *root);
void image_plan_free(struct image_plan *plan);
/* NULL: no such type. */
const struct image_shape *image_plan_kind(const struct image_plan *plan, uint32_t kind);

/* Room for one more in an array that doubles. */
bool image_more(void *array, uint32_t used, uint32_t *room, size_t size);

/* ---- values ---- */

static inline uint64_t image_up(uint64_t n, uint64_t align)
{
	return (n + align - 1) / align * align;
}

/* From here to there nothing overflows: 2^32 elements of 2^32 - 1 bytes and a fixed part. */
static inline uint64_t image_tail_bytes(const struct image_shape *shape, uint64_t elements)
{
	return shape->type->tail + elements * shape->type->element;
}

/* Of a value in an image: the whole struct, the tail, up to a multiple of 8. */
static inline uint64_t image_value_bytes(const struct image_shape *shape, uint32_t elements)
{
	uint64_t bytes = shape->type->element ? image_tail_bytes(shape, (uint64_t)elements + shape->extra) : 0;
	return image_up(bytes > shape->type->size ? bytes : shape->type->size, 8);
}

static inline uint32_t image_load32(const char *at)
{
	return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_RELAXED);
}

static inline uint64_t image_load64(const char *at)
{
	return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
}

/* Calls for each reference of a value: `at` is its offset in it, `target` its plan's number. */
struct image_edges {
	const struct image_edge *edge;
	uint64_t base;
	uint32_t k, members, element, elements, tail_members;
};

static inline struct image_edges image_edges_of(const struct image_plan *plan, const struct image_shape *shape,
                                                uint32_t elements)
{
	const struct hp_type *t = shape->type;
	return (struct image_edges){.edge = plan->edge + shape->edges,
	                            .base = t->tail,
	                            .members = t->members,
	                            .element = t->element,
	                            .elements = t->tail_members ? elements : 0,
	                            .tail_members = t->tail_members};
}

static inline bool image_edges_next(struct image_edges *e, uint64_t *at, uint32_t *target)
{
	if (e->k < e->members) {
		*at = e->edge[e->k].offset;
		*target = e->edge[e->k++].target;
		return true;
	}
	if (!e->elements) return false;
	const struct image_edge *edge = &e->edge[e->k++];
	*at = e->base + edge->offset;
	*target = edge->target;
	if (e->k == e->members + e->tail_members) {
		e->k = e->members;
		e->base += e->element;
		e->elements--;
	}
	return true;
}

#endif
