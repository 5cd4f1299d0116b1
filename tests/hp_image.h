/* What the test and the fuzzer of images share: types that refer to each other in every way, and a reader that visits all of
 * an image through the public calls. */
#ifndef HP_IMAGE_TEST_H
#define HP_IMAGE_TEST_H

#include <hugepool/hugepool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bag;
struct wide;
struct node {
	uint64_t id;
	HP_REF(struct node) left, right;
	HP_REF(struct hp_string) name;
	HP_REF(struct bag) bag;
	HP_REF(struct hp_doubles) numbers;
	HP_REF(struct wide) wide;
};
struct bag {
	uint32_t len, seed;
	struct item {
		uint64_t weight;
		HP_REF(struct node) node;
		HP_REF(struct hp_bytes) bytes;
	} item[];
};
struct wide {
	_Alignas(64) uint64_t x[5];
	HP_REF(struct node) back;
	uint64_t y[2];
};
/* The tail begins inside of what the compiler counts as the fixed part. */
struct early {
	HP_REF(struct early) next;
	uint32_t len;
	unsigned char data[];
};

HP_TYPE_DECLARE(node_type);
HP_TYPE_DECLARE(bag_type);
HP_TYPE_DECLARE(wide_type);
HP_TYPE_DECLARE(early_type);
HP_TYPE(node_type, struct node, (left, node_type), (right, node_type), (name, hp_string_type), (bag, bag_type),
        (numbers, hp_doubles_type), (wide, wide_type));
HP_TYPE_ARRAY(bag_type, struct bag, len, item, (node, node_type), (bytes, hp_bytes_type));
HP_TYPE(wide_type, struct wide, (back, node_type));
static const struct hp_member early_members[] = {{0, &early_type}};
const struct hp_type early_type = {"early_type",
                                   sizeof(struct early),
                                   _Alignof(struct early),
                                   1,
                                   offsetof(struct early, data),
                                   offsetof(struct early, len),
                                   1,
                                   0,
                                   early_members,
                                   NULL};

/* The ready-made types, which a reference to hp_any may lead to. */
static const struct hp_type *const image_ready[] = {&hp_string_type, &hp_bytes_type, &hp_vector_type, &hp_cell_type,
                                                    &hp_doubles_type};

struct visit {
	const struct hp_image *image;
	uint8_t *seen; /* by offset / 8: the number of the type + 1, 0: not yet */
	struct visit_one {
		uint64_t at;
		const struct hp_type *type;
	} * stack;
	size_t top, room, values;
	uint64_t sum;
	const char *bad; /* what is wrong with it */
};

static inline void visit_push(struct visit *v, hp_ref ref, const struct hp_type *type)
{
	uint64_t at = ref.word & ~HP_IMAGE_REF;
	const struct hp_type *found = NULL;
	if (!ref.word) return;
	if (type == &hp_any) {
		for (size_t i = 0; i < sizeof image_ready / sizeof *image_ready && !found; i++)
			if (hp_image_deref_checked(v->image, v->image->bytes, ref, image_ready[i])) found = image_ready[i];
		type = found;
	}
	if (!type || hp_image_deref_checked(v->image, v->image->bytes, ref, type) != hp_image_deref(v->image, ref)) {
		v->bad = "a reference that the checked call refuses";
		return;
	}
	if (v->seen[at / 8]) return;
	v->seen[at / 8] = 1;
	if (v->top == v->room) {
		v->room = v->room ? v->room * 2 : 64;
		v->stack = realloc(v->stack, v->room * sizeof *v->stack);
		if (!v->stack) abort();
	}
	v->stack[v->top++] = (struct visit_one){at, type};
}

/* Every byte of every value is read, and every reference followed as one does with a verified image. */
static inline void visit_value(struct visit *v, struct visit_one one)
{
	const struct hp_type *t = one.type;
	const char *value = hp_image_deref(v->image, (hp_ref){HP_IMAGE_REF | one.at});
	uint32_t n = 0;
	size_t bytes = t->size;
	if (t->element) {
		memcpy(&n, value + t->count, sizeof n);
		bytes = t->tail + (size_t)n * t->element;
		if (bytes < t->size) bytes = t->size;
	}
	if ((uintptr_t)value % t->align) v->bad = "not aligned";
	if (t == &hp_string_type && strlen(((const struct hp_string *)(const void *)value)->s) > n)
		v->bad = "a string without an end";
	for (size_t i = 0; i < bytes; i++) v->sum = v->sum * 31 + (unsigned char)value[i];
	for (uint32_t k = 0; k < t->members; k++)
		visit_push(v, *(const hp_ref *)(const void *)(value + t->member[k].offset), t->member[k].type);
	for (uint32_t e = 0; t->tail_members && e < n; e++)
		for (uint32_t k = 0; k < t->tail_members; k++) {
			const char *at = value + t->tail + (size_t)e * t->element + t->tail_member[k].offset;
			visit_push(v, *(const hp_ref *)(const void *)at, t->tail_member[k].type);
		}
	v->values++;
}

/* Of an image that was verified as one of `type`. NULL: all is well; else what is wrong. */
static inline const char *visit_all(const struct hp_image *image, const struct hp_type *type, size_t *values,
                                    uint64_t *sum)
{
	struct visit v = {.image = image, .seen = calloc(image->bytes / 8 + 1, 1)};
	if (!v.seen) abort();
	visit_push(&v, (hp_ref){HP_IMAGE_REF | image->root}, type);
	if (v.top && v.stack[0].at != (uint64_t)((char *)hp_image_root(image) - (const char *)image)) v.bad = "the root";
	while (v.top) visit_value(&v, v.stack[--v.top]);
	free(v.stack);
	free(v.seen);
	if (values) *values = v.values;
	if (sum) *sum = v.sum;
	return v.bad;
}

#endif
