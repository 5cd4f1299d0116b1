/* Images: graphs of values in raw memory.
 *
 * Writing is one walk, breadth first, without recursion: a value that is met gets its place at the end of the image, in the order
 * of meeting, and is copied when its turn comes; a table from addresses to places keeps sharing and cycles. Where values come
 * from a heap that changes, nothing has to be read twice: the count of a value is read when it is met, its references when it
 * is copied. Telling the size is the same walk without the copying.
 *
 * Reading from outside is never a walk through references: values lie one behind the other, each with its type and count before
 * it. So verifying goes through the bytes once to see that values follow each other without gaps and to note where they begin (a
 * bit for 8 bytes), and once more to see that every reference leads to such a beginning, of the right type. Cycles cost
 * nothing, and what does not fit is found before it is used. */
#include "heap/heap.h"
#include "heap/layout.h"
#include <hugepool/image.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_MAX (UINT64_C(1) << 48)
#define VALUES_MAX (UINT32_MAX - 1)
#define TYPES_MAX HEAP_TYPES
#define ANY UINT32_MAX /* as a target */

HP_TYPE_ARRAY_LEAF(hp_doubles_type, struct hp_doubles, len, item);

struct mark { /* before each value */
	uint32_t kind, elements;
};

_Static_assert(sizeof(struct hp_image) == 40 && sizeof(struct mark) == 8, "the root of most images begins at 48");

static uint64_t up(uint64_t n, uint64_t align)
{
	return (n + align - 1) / align * align;
}

/* ---- types ---- */

struct edge {
	uint32_t offset, target; /* in plan.shape, or ANY */
};

struct shape {
	const struct hp_type *type;
	uint32_t kind, align; /* not 0; at least 8 */
	uint32_t edges;       /* the first of members, then of tail members */
	uint32_t extra;       /* elements beyond the count: the 0 of a string */
};

/* The types that an image may have: what the root's type leads to. */
struct plan {
	struct shape *shape;
	struct edge *edge;
	uint32_t *by_kind; /* shape + 1 */
	uint32_t shapes, shape_room, edges, edge_room, kinds, align;
	bool any;
};

static int shape_make(const struct hp_type *type, struct shape *shape)
{
	struct heap_type_shape description;
	int error = heap_shape_of(type, &description);
	if (error < 0) return error;
	*shape = (struct shape){.type = type, .kind = description.hash, .align = type->align < 8 ? 8 : type->align};
	shape->extra = strcmp(type->name, hp_string_type.name) == 0;
	return 0;
}

static bool is_any(const struct hp_type *type)
{
	return !type || type == &hp_any || strcmp(type->name, hp_any.name) == 0;
}

/* Room for one more, doubling. */
static bool more(void *array, uint32_t used, uint32_t *room, size_t size)
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
static int64_t plan_add(struct plan *plan, const struct hp_type *type)
{
	struct shape new;
	for (uint32_t i = 0; i < plan->shapes; i++)
		if (plan->shape[i].type == type) return i;
	int error = shape_make(type, &new);
	if (error < 0) return error;
	for (uint32_t i = 0; i < plan->shapes; i++)
		if (plan->shape[i].kind == new.kind) return i; /* another copy of the same description */
	if (plan->shapes == TYPES_MAX) return -EINVAL;
	if (!more(&plan->shape, plan->shapes, &plan->shape_room, sizeof *plan->shape)) return -ENOMEM;
	if (new.align > plan->align) plan->align = new.align;
	plan->shape[plan->shapes] = new;
	return plan->shapes++;
}

static int plan_members(struct plan *plan, const struct hp_member *member, uint32_t members)
{
	for (uint32_t k = 0; k < members; k++) {
		int64_t target = ANY;
		if (is_any(member[k].type))
			plan->any = true;
		else if ((target = plan_add(plan, member[k].type)) < 0)
			return (int)target;
		if (!more(&plan->edge, plan->edges, &plan->edge_room, sizeof *plan->edge)) return -ENOMEM;
		plan->edge[plan->edges++] = (struct edge){member[k].offset, (uint32_t)target};
	}
	return 0;
}

static int plan_index(struct plan *plan)
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

static void plan_free(struct plan *plan)
{
	free(plan->shape);
	free(plan->edge);
	free(plan->by_kind);
}

/* To be freed in any case. */
static int plan_make(struct plan *plan, const struct hp_type *root)
{
	static const struct hp_type *const ready[] = {&hp_string_type, &hp_bytes_type, &hp_vector_type, &hp_cell_type,
	                                              &hp_doubles_type};
	*plan = (struct plan){.align = 8};
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

static const struct shape *plan_kind(const struct plan *plan, uint32_t kind)
{
	for (uint32_t at = kind & (plan->kinds - 1); plan->by_kind[at]; at = (at + 1) & (plan->kinds - 1)) {
		const struct shape *shape = &plan->shape[plan->by_kind[at] - 1];
		if (shape->kind == kind) return shape;
	}
	return NULL;
}

/* From here to there nothing overflows: 2^32 elements of 2^32 - 1 bytes and a fixed part. */
static uint64_t tail_bytes(const struct shape *shape, uint64_t elements)
{
	return shape->type->tail + elements * shape->type->element;
}

/* Of a value in an image: the whole struct, the tail, up to a multiple of 8. */
static uint64_t value_bytes(const struct shape *shape, uint32_t elements)
{
	uint64_t bytes = shape->type->element ? tail_bytes(shape, (uint64_t)elements + shape->extra) : 0;
	return up(bytes > shape->type->size ? bytes : shape->type->size, 8);
}

static uint32_t load32(const char *at)
{
	return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_RELAXED);
}

static uint64_t load64(const char *at)
{
	return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
}

/* Calls for each reference of a value: `at` is its offset in it, `target` its plan's number. */
struct edges {
	const struct edge *edge;
	uint64_t base;
	uint32_t k, members, element, elements, tail_members;
};

static struct edges edges_of(const struct plan *plan, const struct shape *shape, uint32_t elements)
{
	const struct hp_type *t = shape->type;
	return (struct edges){.edge = plan->edge + shape->edges,
	                      .base = t->tail,
	                      .members = t->members,
	                      .element = t->element,
	                      .elements = t->tail_members ? elements : 0,
	                      .tail_members = t->tail_members};
}

static bool edges_next(struct edges *e, uint64_t *at, uint32_t *target)
{
	if (e->k < e->members) {
		*at = e->edge[e->k].offset;
		*target = e->edge[e->k++].target;
		return true;
	}
	if (!e->elements) return false;
	const struct edge *edge = &e->edge[e->k++];
	*at = e->base + edge->offset;
	*target = edge->target;
	if (e->k == e->members + e->tail_members) {
		e->k = e->members;
		e->base += e->element;
		e->elements--;
	}
	return true;
}

/* ---- writing ---- */

struct node {
	uintptr_t from;
	uint64_t at;
	uint32_t elements;
	uint16_t shape;
	bool shared; /* in the heap */
};

struct walk {
	struct plan plan;
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
static int resolve(const struct walk *walk, uint64_t word, const struct shape *shape, uintptr_t *from, size_t *place)
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
	const struct shape *shape = &walk->plan.shape[target];
	uintptr_t from;
	size_t place;
	int error = resolve(walk, word, shape, &from, &place);
	if (error < 0) return error;
	if (!slots_more(walk) || !more(&walk->node, walk->nodes, &walk->node_room, sizeof *walk->node)) return -ENOMEM;
	uint32_t *slot = slot_find(walk, from), elements = 0;
	if (!*slot) {
		if (walk->nodes == VALUES_MAX) return -EOVERFLOW;
		if (shape->type->element) {
			elements = load32((const char *)from + shape->type->count);
			if (tail_bytes(shape, elements) > place) return -EINVAL;
		}
		/* the root's place is good for any alignment in the image */
		uint64_t align = walk->end == sizeof(struct hp_image) ? walk->plan.align : shape->align;
		uint64_t at = up(walk->end + sizeof(struct mark), align), bytes = value_bytes(shape, elements);
		if (at > BYTES_MAX || bytes > BYTES_MAX - at) return -EOVERFLOW;
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
		if (!walk->first || at % 8 || at < sizeof(struct hp_image) + sizeof(struct mark) || at >= walk->first)
			return -EXDEV;
		bool right = target == ANY || load32(walk->to + at - sizeof(struct mark)) == walk->plan.shape[target].kind;
		return right ? 0 : -EPROTO;
	}
	return target == ANY ? -EINVAL : meet_value(walk, word, target, ref);
}

/* Copies one, and meets what it refers to. `to` may have any alignment. */
static int copy(struct walk *walk, const struct node *node, uint64_t *end)
{
	const struct shape *shape = &walk->plan.shape[node->shape];
	const struct hp_type *type = shape->type;
	const char *from = (const char *)node->from;
	char *to = walk->to ? walk->to + node->at : NULL;
	if (to) {
		struct mark mark = {shape->kind, node->elements};
		uint64_t bytes = type->element ? tail_bytes(shape, node->elements) : type->size;
		memset(walk->to + *end, 0, node->at - sizeof mark - *end);
		memcpy(to - sizeof mark, &mark, sizeof mark);
		if (node->shared)
			heap_copy_shared(to, from, bytes);
		else
			memcpy(to, from, bytes);
		*end = node->at + value_bytes(shape, node->elements);
		memset(to + bytes, 0, *end - node->at - bytes);
		if (type->element) memcpy(to + type->count, &node->elements, sizeof node->elements);
	}
	struct edges edges = edges_of(&walk->plan, shape, node->elements);
	uint64_t at, ref;
	for (uint32_t target; edges_next(&edges, &at, &target);) {
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
	int error = plan_make(&walk->plan, type);
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
	plan_free(&walk->plan);
	free(walk->node);
	free(walk->slot);
}

int64_t hp_image_need(const hp_heap *heap, const struct hp_type *type, const void *value)
{
	struct walk walk = {.heap = heap, .end = sizeof(struct hp_image), .room = BYTES_MAX};
	int error = walk_all(&walk, type, value);
	walk_free(&walk);
	return error < 0 ? error : (int64_t)walk.end;
}

int64_t hp_image_write(void *to, size_t room, const hp_heap *heap, const struct hp_type *type, const void *value)
{
	struct hp_image image = {0};
	if (!to) return -EINVAL;
	if (room < sizeof image) return -ENOSPC;
	struct walk walk = {.heap = heap, .to = to, .end = sizeof image, .room = room < BYTES_MAX ? room : BYTES_MAX};
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

/* ---- verifying ---- */

struct value {
	const struct shape *shape;
	uint64_t at;
	uint32_t elements;
};

static int header_check(const struct hp_image *h, size_t bytes)
{
	if (h->magic != HP_IMAGE_MAGIC || h->bytes > bytes || h->bytes > BYTES_MAX || h->bytes % 8) return -EBADMSG;
	if (h->align < 8 || h->align > HP_PAGE_SIZE || h->align & (h->align - 1) || h->reserved) return -EBADMSG;
	if (h->root != up(sizeof *h + sizeof(struct mark), h->align) || h->root >= h->bytes) return -EBADMSG;
	return 0;
}

/* The value behind *end, and where it ends. 0: there is none. */
static int value_next(const struct plan *plan, const char *image, uint64_t bytes, uint64_t *end, struct value *value)
{
	uint64_t at = *end;
	if (at == bytes) return 0;
	while (at < bytes && load64(image + at) == 0) at += 8;
	if (at >= bytes) return -EBADMSG;
	value->shape = plan_kind(plan, load32(image + at));
	value->elements = load32(image + at + 4);
	value->at = at += sizeof(struct mark);
	if (!value->shape) return -EPROTO;
	const struct hp_type *type = value->shape->type;
	uint64_t size = value_bytes(value->shape, value->elements);
	if (at % value->shape->align || size > bytes - at) return -EBADMSG;
	if (!type->element) {
		if (value->elements) return -EBADMSG;
	} else if (load32(image + at + type->count) != value->elements) {
		return -EBADMSG;
	}
	if (value->shape->extra && image[at + tail_bytes(value->shape, value->elements)]) return -EBADMSG;
	*end = at + size;
	return 1;
}

static bool begins(const uint64_t *starts, uint64_t bytes, uint64_t at)
{
	return at % 8 == 0 && at < bytes && starts[at / 512] >> (at / 8 % 64) & 1;
}

static bool leads_well(const struct plan *plan, const char *image, uint64_t bytes, const uint64_t *starts,
                       uint64_t word, uint32_t target)
{
	uint64_t at = word & ~HP_IMAGE_REF;
	if (!word) return true;
	return word >> 62 == 1 && begins(starts, bytes, at) &&
	       (target == ANY || load32(image + at - sizeof(struct mark)) == plan->shape[target].kind);
}

/* *h is a private copy of the header. */
static int verify(const struct plan *plan, const char *image, const struct hp_image *h, uint64_t *starts)
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
		struct edges edges = edges_of(plan, value.shape, value.elements);
		for (uint32_t target; edges_next(&edges, &at, &target);)
			if (!leads_well(plan, image, h->bytes, starts, load64(image + value.at + at), target)) return -EBADMSG;
	}
	return got;
}

static int verify_as(const struct plan *plan, const void *image, size_t bytes, struct hp_image *h)
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
	struct plan plan;
	struct hp_image header;
	if (!image) return -EINVAL;
	int error = plan_make(&plan, type);
	if (error == 0) error = verify_as(&plan, image, bytes, &header);
	plan_free(&plan);
	return error;
}

/* ---- reading ---- */

void *hp_image_deref_checked(const struct hp_image *image, size_t bytes, hp_ref ref, const struct hp_type *type)
{
	struct shape shape;
	uint64_t at = ref.word & ~HP_IMAGE_REF;
	if (!image || ref.word >> 62 != 1 || shape_make(type, &shape) < 0) return NULL;
	if (at < sizeof *image + sizeof(struct mark) || at >= bytes) return NULL;
	const char *value = (const char *)image + at;
	if ((uintptr_t)value % shape.align || load32(value - sizeof(struct mark)) != shape.kind) return NULL;
	uint32_t elements = load32(value - 4);
	if (value_bytes(&shape, elements) > bytes - at) return NULL;
	return type->element && load32(value + type->count) != elements ? NULL : (void *)(uintptr_t)value;
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
static int copy_out(const struct plan *plan, const char *image, const struct hp_image *h, char *block)
{
	uint64_t end = sizeof *h, at;
	struct value value;
	int got;
	while ((got = value_next(plan, image, h->bytes, &end, &value)) > 0) {
		struct edges edges = edges_of(plan, value.shape, value.elements);
		for (uint32_t target; edges_next(&edges, &at, &target);) {
			char *member = block + (value.at - h->root) + at;
			uint64_t word = load64(member);
			void *pointer = word ? block + ((word & ~HP_IMAGE_REF) - h->root) : NULL;
			memcpy(member, &pointer, sizeof pointer);
		}
	}
	return got;
}

int hp_image_copy(const void *image, size_t bytes, const struct hp_type *type, void **value, size_t *size)
{
	struct plan plan;
	struct hp_image h;
	void *block = NULL;
	if (!value) return -EINVAL;
	*value = NULL;
	if (!image) return -EINVAL;
	int error = plan_make(&plan, type);
	if (error == 0) error = verify_as(&plan, image, bytes, &h);
	if (error == 0 && posix_memalign(&block, h.align, h.bytes - h.root)) error = -ENOMEM;
	if (error == 0) {
		memcpy(block, (const char *)image + h.root, h.bytes - h.root);
		error = copy_out(&plan, image, &h, block);
	}
	plan_free(&plan);
	if (error < 0) {
		free(block);
		return error;
	}
	*value = block;
	if (size) *size = h.bytes - h.root;
	return 0;
}

/* Every value first, so that each has its reference (at its offset / 8 in `new`) when the members are stored. */
static int import_all(hp_tx *tx, const struct plan *plan, const char *image, const struct hp_image *h, uint64_t *new)
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
		memcpy(to, image + value.at, type->element ? tail_bytes(value.shape, value.elements) : type->size);
		struct edges edges = edges_of(plan, value.shape, value.elements);
		for (uint32_t target; edges_next(&edges, &at, &target);) {
			uint64_t word = load64(to + at) & ~HP_IMAGE_REF;
			__atomic_store_n((uint64_t *)(void *)(to + at), word ? new[word / 8] : 0, __ATOMIC_RELAXED);
		}
	}
	return got;
}

hp_ref hp_image_import(hp_tx *tx, const void *image, size_t bytes, const struct hp_type *type)
{
	struct plan plan;
	struct hp_image h;
	uint64_t *new = NULL;
	hp_ref root = HP_NONE;
	int error = heap_check(tx);
	if (error < 0) return HP_NONE;
	if (!image) {
		heap_fail(tx, -EINVAL);
		return HP_NONE;
	}
	error = plan_make(&plan, type);
	if (error == 0) error = verify_as(&plan, image, bytes, &h);
	if (error == 0 && !(new = calloc(h.bytes / 8, sizeof *new))) error = -ENOMEM;
	if (error == 0 && (error = import_all(tx, &plan, image, &h, new)) == 0) root.word = new[h.root / 8];
	if (error < 0) heap_fail(tx, error);
	free(new);
	plan_free(&plan);
	return root;
}

/* ---- by hand ---- */

int64_t hp_image_size(const struct hp_type *type, uint32_t elements)
{
	struct plan plan;
	int64_t bytes = plan_make(&plan, type);
	if (bytes == 0 && !type->element && elements) bytes = -EINVAL;
	if (bytes == 0) {
		uint64_t root = up(sizeof(struct hp_image) + sizeof(struct mark), plan.align);
		uint64_t size = value_bytes(&plan.shape[0], elements);
		bytes = size > BYTES_MAX - root ? -EOVERFLOW : (int64_t)(root + size);
	}
	plan_free(&plan);
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
	struct plan plan;
	if (!builder) return -EINVAL;
	*builder = (struct hp_image_builder){.error = -EINVAL};
	if (!to) return -EINVAL;
	int error = plan_make(&plan, type);
	if (error == 0 && (uintptr_t)to % plan.align) error = -EINVAL;
	if (error == 0 && room < sizeof *builder->image) error = -ENOSPC;
	if (error == 0) {
		*builder = (struct hp_image_builder){.image = to, .room = room < BYTES_MAX ? room : BYTES_MAX};
		uint64_t root = up(sizeof(struct hp_image) + sizeof(struct mark), plan.align);
		*builder->image = (struct hp_image){.bytes = sizeof *builder->image, .root = root, .align = plan.align};
		hp_image_new(builder, type, elements);
		if ((error = builder->error) == 0) builder->image->magic = HP_IMAGE_MAGIC;
	}
	plan_free(&plan);
	return builder->error = error;
}

hp_ref hp_image_new(struct hp_image_builder *builder, const struct hp_type *type, uint32_t elements)
{
	struct shape shape;
	if (builder->error) return HP_NONE;
	struct hp_image *image = builder->image;
	if (shape_make(type, &shape) < 0 || shape.align > image->align || (!type->element && elements))
		return fail(builder, -EINVAL);
	uint64_t at = image->values ? up(image->bytes + sizeof(struct mark), shape.align) : image->root;
	uint64_t bytes = value_bytes(&shape, elements);
	if (at > builder->room || bytes > builder->room - at) return fail(builder, -ENOSPC);
	char *value = (char *)image + at;
	memset((char *)image + image->bytes, 0, at - image->bytes);
	memset(value, 0, bytes);
	struct mark mark = {shape.kind, elements};
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
