/* The types that the root's type of an image leads to, numbered, with their references. */
#include "heap/image.h"
#include "heap/layout.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TYPES_MAX HEAP_TYPES

HP_TYPE_ARRAY_LEAF(hp_doubles_type, struct hp_doubles, len, item);

int image_shape_make(const struct hp_type *type, struct image_shape *shape)
{
	struct heap_type_shape description;
	int error = heap_shape_of(type, &description);
	if (error < 0) return error;
	*shape = (struct image_shape){.type = type, .kind = description.hash, .align = type->align < 8 ? 8 : type->align};
	shape->extra = strcmp(type->name, hp_string_type.name) == 0;
	return 0;
}

static bool is_any(const struct hp_type *type)
{
	return !type || type == &hp_any || strcmp(type->name, hp_any.name) == 0;
}

bool image_more(void *array, uint32_t used, uint32_t *room, size_t size)
{
	if (used < *room) return true;
	uint32_t wanted = *room ? *room * 2 : 16;
	void *grown = realloc(*(void **)array, wanted * size);
	if (!grown) return false;
	*(void **)array = grown;
	*room = wanted;
	return true;
}

/* Its number, or -errno. */
static int64_t plan_add(struct image_plan *plan, const struct hp_type *type)
{
	struct image_shape new;
	for (uint32_t i = 0; i < plan->shapes; i++)
		if (plan->shape[i].type == type) return i;
	int error = image_shape_make(type, &new);
	if (error < 0) return error;
	for (uint32_t i = 0; i < plan->shapes; i++)
		if (plan->shape[i].kind == new.kind) return i; /* another copy of the same description */
	if (plan->shapes == TYPES_MAX) return -EINVAL;
	if (!image_more(&plan->shape, plan->shapes, &plan->shape_room, sizeof *plan->shape)) return -ENOMEM;
	if (new.align > plan->align) plan->align = new.align;
	plan->shape[plan->shapes] = new;
	return plan->shapes++;
}

static int plan_members(struct image_plan *plan, const struct hp_member *member, uint32_t members)
{
	for (uint32_t k = 0; k < members; k++) {
		int64_t target = IMAGE_ANY;
		if (is_any(member[k].type))
			plan->any = true;
		else if ((target = plan_add(plan, member[k].type)) < 0)
			return (int)target;
		if (!image_more(&plan->edge, plan->edges, &plan->edge_room, sizeof *plan->edge)) return -ENOMEM;
		plan->edge[plan->edges++] = (struct image_edge){member[k].offset, (uint32_t)target};
	}
	return 0;
}

static int plan_index(struct image_plan *plan)
{
	for (plan->kinds = 16; plan->kinds < 2 * plan->shapes;) plan->kinds *= 2;
	plan->by_kind = calloc(plan->kinds, sizeof *plan->by_kind);
	if (!plan->by_kind) return -ENOMEM;
	for (uint32_t i = 0; i < plan->shapes; i++) {
		uint32_t at = plan->shape[i].kind & (plan->kinds - 1);
		while (plan->by_kind[at]) at = (at + 1) & (plan->kinds - 1);
		plan->by_kind[at] = i + 1;
	}
	return 0;
}

void image_plan_free(struct image_plan *plan)
{
	free(plan->shape);
	free(plan->edge);
	free(plan->by_kind);
}

int image_plan_make(struct image_plan *plan, const struct hp_type *root)
{
	static const struct hp_type *const ready[] = {&hp_string_type, &hp_bytes_type, &hp_vector_type, &hp_cell_type,
	                                              &hp_doubles_type};
	*plan = (struct image_plan){.align = 8};
	int64_t error = plan_add(plan, root);
	bool added = false;
	for (uint32_t i = 0; error >= 0 && i < plan->shapes; i++) {
		const struct hp_type *type = plan->shape[i].type;
		plan->shape[i].edges = plan->edges;
		if ((error = plan_members(plan, type->member, type->members)) < 0) break;
		if ((error = plan_members(plan, type->tail_member, type->tail_members)) < 0) break;
		if (!plan->any || added) continue;
		added = true;
		for (unsigned k = 0; error >= 0 && k < sizeof ready / sizeof *ready; k++) error = plan_add(plan, ready[k]);
	}
	return error < 0 ? (int)error : plan_index(plan);
}

const struct image_shape *image_plan_kind(const struct image_plan *plan, uint32_t kind)
{
	for (uint32_t at = kind & (plan->kinds - 1); plan->by_kind[at]; at = (at + 1) & (plan->kinds - 1)) {
		const struct image_shape *shape = &plan->shape[plan->by_kind[at] - 1];
		if (shape->kind == kind) return shape;
	}
	return NULL;
}
