/* Images of value graphs in raw memory: verifying and reading them.
 *
 * Reading from outside is never a walk through references: values lie one behind the other, each with its type and count before
 * it. So verifying goes through the bytes once to see that values follow each other without gaps and to note where they begin (a
 * bit for 8 bytes), and once more to see that every reference leads to such a beginning, of the right type. Cycles cost
 * nothing, and what does not fit is found before it is used. */
#include "heap/image.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- verifying ---- */

struct value {
	const struct image_shape *shape;
	uint64_t at;
	uint32_t elements;
};

static int header_check(const struct hp_image *h, size_t bytes)
{
	if (h->magic != HP_IMAGE_MAGIC || h->bytes > bytes || h->bytes > IMAGE_BYTES_MAX || h->bytes % 8) return -EBADMSG;
	if (h->align < 8 || h->align > HP_PAGE_SIZE || h->align & (h->align - 1) || h->reserved) return -EBADMSG;
	if (h->root != image_up(sizeof *h + sizeof(struct image_mark), h->align) || h->root >= h->bytes) return -EBADMSG;
	return 0;
}

/* The value behind *end, and where it ends. 0: there is none. */
static int value_next(const struct image_plan *plan, const char *image, uint64_t bytes, uint64_t *end,
                      struct value *value)
{
	uint64_t at = *end;
	if (at == bytes) return 0;
	while (at < bytes && image_load64(image + at) == 0) at += 8;
	if (at >= bytes) return -EBADMSG;
	value->shape = image_plan_kind(plan, image_load32(image + at));
	value->elements = image_load32(image + at + 4);
	value->at = at += sizeof(struct image_mark);
	if (!value->shape) return -EPROTO;
	const struct hp_type *type = value->shape->type;
	uint64_t size = image_value_bytes(value->shape, value->elements);
	if (at % value->shape->align || size > bytes - at) return -EBADMSG;
	if (!type->element) {
		if (value->elements) return -EBADMSG;
	} else if (image_load32(image + at + type->count) != value->elements) {
		return -EBADMSG;
	}
	if (value->shape->extra && image[at + image_tail_bytes(value->shape, value->elements)]) return -EBADMSG;
	*end = at + size;
	return 1;
}

static bool begins(const uint64_t *starts, uint64_t bytes, uint64_t at)
{
	return at % 8 == 0 && at < bytes && starts[at / 512] >> (at / 8 % 64) & 1;
}

static bool leads_well(const struct image_plan *plan, const char *image, uint64_t bytes, const uint64_t *starts,
                       uint64_t word, uint32_t target)
{
	uint64_t at = word & ~HP_IMAGE_REF;
	if (!word) return true;
	return word >> 62 == 1 && begins(starts, bytes, at) &&
	       (target == IMAGE_ANY || image_load32(image + at - sizeof(struct image_mark)) == plan->shape[target].kind);
}

/* *h is a private copy of the header. */
static int verify(const struct image_plan *plan, const char *image, const struct hp_image *h, uint64_t *starts)
{
	uint64_t end = sizeof *h, count = 0, at;
	struct value value;
	int got;
	while ((got = value_next(plan, image, h->bytes, &end, &value)) > 0) {
		if (count++ == 0) {
			if (value.at != h->root) return -EBADMSG;
			if (value.shape != plan->shape) return -EPROTO;
		}
		starts[value.at / 512] |= UINT64_C(1) << (value.at / 8 % 64);
	}
	if (got < 0 || count == 0 || count != h->values) return got < 0 ? got : -EBADMSG;
	for (end = sizeof *h; (got = value_next(plan, image, h->bytes, &end, &value)) > 0;) {
		struct image_edges edges = image_edges_of(plan, value.shape, value.elements);
		for (uint32_t target; image_edges_next(&edges, &at, &target);)
			if (!leads_well(plan, image, h->bytes, starts, image_load64(image + value.at + at), target))
				return -EBADMSG;
	}
	return got;
}

static int verify_as(const struct image_plan *plan, const void *image, size_t bytes, struct hp_image *h)
{
	uint64_t few[128];
	if (bytes < sizeof *h) return -EBADMSG;
	memcpy(h, image, sizeof *h);
	int error = header_check(h, bytes);
	if (error < 0) return error;
	if (h->align != plan->align) return -EPROTO;
	if ((uintptr_t)image % h->align) return -EINVAL;
	size_t words = h->bytes / 512 + 1;
	uint64_t *starts = words <= 128 ? memset(few, 0, sizeof few) : calloc(words, sizeof *starts);
	if (!starts) return -ENOMEM;
	error = verify(plan, image, h, starts);
	if (starts != few) free(starts);
	return error;
}

int hp_image_verify(const void *image, size_t bytes, const struct hp_type *type)
{
	struct image_plan plan;
	struct hp_image header;
	if (!image) return -EINVAL;
	int error = image_plan_make(&plan, type);
	if (error == 0) error = verify_as(&plan, image, bytes, &header);
	image_plan_free(&plan);
	return error;
}

/* ---- reading ---- */

void *hp_image_deref_checked(const struct hp_image *image, size_t bytes, hp_ref ref, const struct hp_type *type)
{
	struct image_shape shape;
	uint64_t at = ref.word & ~HP_IMAGE_REF;
	if (!image || ref.word >> 62 != 1 || image_shape_make(type, &shape) < 0) return NULL;
	if (at < sizeof *image + sizeof(struct image_mark) || at >= bytes) return NULL;
	const char *value = (const char *)image + at;
	if ((uintptr_t)value % shape.align || image_load32(value - sizeof(struct image_mark)) != shape.kind) return NULL;
	uint32_t elements = image_load32(value - 4);
	if (image_value_bytes(&shape, elements) > bytes - at) return NULL;
	return type->element && image_load32(value + type->count) != elements ? NULL : (void *)(uintptr_t)value;
}

int hp_image_read(const void *from, size_t bytes, const struct hp_type *type, struct hp_image **image)
{
	struct hp_image h;
	void *copy = NULL;
	if (!image) return -EINVAL;
	*image = NULL;
	if (!from) return -EINVAL;
	if (bytes < sizeof h) return -EBADMSG;
	memcpy(&h, from, sizeof h);
	int error = header_check(&h, bytes);
	if (error < 0) return error;
	if (posix_memalign(&copy, h.align, h.bytes)) return -ENOMEM;
	memcpy((char *)copy + sizeof h, (const char *)from + sizeof h, h.bytes - sizeof h);
	memcpy(copy, &h, sizeof h); /* as it was when its size was taken from it */
	if ((error = hp_image_verify(copy, h.bytes, type)) < 0) {
		free(copy);
		return error;
	}
	*image = copy;
	return 0;
}

/* The references of the copy become pointers: the root is where the block begins, the rest lies as in the image. */
static int copy_out(const struct image_plan *plan, const char *image, const struct hp_image *h, char *block)
{
	uint64_t end = sizeof *h, at;
	struct value value;
	int got;
	while ((got = value_next(plan, image, h->bytes, &end, &value)) > 0) {
		struct image_edges edges = image_edges_of(plan, value.shape, value.elements);
		for (uint32_t target; image_edges_next(&edges, &at, &target);) {
			char *member = block + (value.at - h->root) + at;
			uint64_t word = image_load64(member);
			void *pointer = word ? block + ((word & ~HP_IMAGE_REF) - h->root) : NULL;
			memcpy(member, &pointer, sizeof pointer);
		}
	}
	return got;
}

int hp_image_copy(const void *image, size_t bytes, const struct hp_type *type, void **value, size_t *size)
{
	struct image_plan plan;
	struct hp_image h;
	void *block = NULL;
	if (!value) return -EINVAL;
	*value = NULL;
	if (!image) return -EINVAL;
	int error = image_plan_make(&plan, type);
	if (error == 0) error = verify_as(&plan, image, bytes, &h);
	if (error == 0 && posix_memalign(&block, h.align, h.bytes - h.root)) error = -ENOMEM;
	if (error == 0) {
		memcpy(block, (const char *)image + h.root, h.bytes - h.root);
		error = copy_out(&plan, image, &h, block);
	}
	image_plan_free(&plan);
	if (error < 0) {
		free(block);
		return error;
	}
	*value = block;
	if (size) *size = h.bytes - h.root;
	return 0;
}

/* Every value first, so that each has its reference (at its offset / 8 in `new`) when the members are stored. */
static int import_all(hp_tx *tx, const struct image_plan *plan, const char *image, const struct hp_image *h,
                      uint64_t *new)
{
	uint64_t end = sizeof *h, at;
	struct value value;
	int got;
	while ((got = value_next(plan, image, h->bytes, &end, &value)) > 0) {
		new[value.at / 8] = hp_heap_new(tx, value.shape->type, value.elements).word;
		if (!new[value.at / 8]) return hp_heap_error(tx);
	}
	for (end = sizeof *h; got == 0 && (got = value_next(plan, image, h->bytes, &end, &value)) > 0; got = 0) {
		const struct hp_type *type = value.shape->type;
		char *to = hp_heap_deref(tx->heap, (hp_ref){new[value.at / 8]});
		memcpy(to, image + value.at, type->element ? image_tail_bytes(value.shape, value.elements) : type->size);
		struct image_edges edges = image_edges_of(plan, value.shape, value.elements);
		for (uint32_t target; image_edges_next(&edges, &at, &target);) {
			uint64_t word = image_load64(to + at) & ~HP_IMAGE_REF;
			__atomic_store_n((uint64_t *)(void *)(to + at), word ? new[word / 8] : 0, __ATOMIC_RELAXED);
		}
	}
	return got;
}

hp_ref hp_image_import(hp_tx *tx, const void *image, size_t bytes, const struct hp_type *type)
{
	struct image_plan plan;
	struct hp_image h;
	uint64_t *new = NULL;
	hp_ref root = HP_NONE;
	int error = heap_check(tx);
	if (error < 0) return HP_NONE;
	if (!image) {
		heap_fail(tx, -EINVAL);
		return HP_NONE;
	}
	error = image_plan_make(&plan, type);
	if (error == 0) error = verify_as(&plan, image, bytes, &h);
	if (error == 0 && !(new = calloc(h.bytes / 8, sizeof *new))) error = -ENOMEM;
	if (error == 0 && (error = import_all(tx, &plan, image, &h, new)) == 0) root.word = new[h.root / 8];
	if (error < 0) heap_fail(tx, error);
	free(new);
	image_plan_free(&plan);
	return root;
}
