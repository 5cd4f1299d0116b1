/* Deep copies between private memory and a heap.
 *
 * A graph is walked breadth first, without recursion: the values that have been met are nodes in an array, which is its own
 * queue, and a hash table finds a node by the address or reference it was met at; so sharing and cycles are kept, and the
 * C stack stays small. Importing walks three times: over the source, to meet all that is to be copied and to find whatever
 * cannot be; over the nodes, to make their values; over both, to copy. So no word of private memory is ever seen in a heap,
 * and nothing is made for a graph that is refused. The first walk alone is hp_value_need. What it met is looked at again
 * before it is copied, since making values may collect. Exporting walks once: each word of the heap is read once, in a
 * section, and goes to a block that grows; members are numbers of nodes until the block has its place. */
#include "heap/heap.h"
#include "heap/layout.h"
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define FEW_SLOTS 32u
#define FEW (FEW_SLOTS / 8 * 5)
#define LAYOUTS UINT16_MAX
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/* How many values of a type there are, by class. */
struct kind {
	struct heap_type *type;
	struct kind *next;
	uint64_t alone; /* pages of those that have a run each */
	uint64_t count[HEAP_CLASSES];
};

/* A reference in a struct. */
struct edge {
	uint32_t offset, target; /* hash of the declared type's name; 0: any */
	const struct hp_type *user;
	struct layout *to;            /* the layout of private values that it leads to, once known */
	const struct heap_type *seen; /* the latest type of this heap that it was found to lead to, and may */
};

/* How values are walked: of a program's type in private memory, or of one of the heap's types in the heap. */
struct layout {
	const struct hp_type *user; /* NULL: in the heap */
	struct heap_type *type;
	struct kind *kind;
	uint32_t number, edges, tail_edges;
	struct edge edge[]; /* by offset: of the fixed part, then of an element */
};

struct node {
	uint64_t from; /* private address, or reference */
	uint64_t to;   /* {number of the layout:16, offset of the copy:48} */
};

struct graph {
	hp_heap *heap; /* NULL: hp_value_need */
	hp_tx *tx;     /* NULL: not importing */
	bool share, count;
	struct layout **layout;
	uint32_t layouts, layout_room;
	struct kind *kinds;
	struct node *node;
	uint64_t nodes, room;
	uint64_t next;  /* the first node that the third walk has not met */
	uint64_t *slot; /* {part of where it is from:32, number of the node + 1:32}; 0: free */
	uint64_t slots; /* at most five of eight are used */
	struct node few[FEW];
	uint64_t few_slot[FEW_SLOTS];
	/* exporting */
	char *block;
	uint64_t used, block_room, align;
};

static bool resident(uint64_t from)
{
	return from & HEAP_REFERENCE;
}

/* ---- copying ---- */

void heap_copy_shared(char *to, const char *from, uint64_t n)
{
	for (; n && (uintptr_t)from & 7; n--) *to++ = (char)__atomic_load_n(from++, __ATOMIC_RELAXED);
	for (; n >= 8; n -= 8, to += 8, from += 8) {
		uint64_t word = __atomic_load_n((const uint64_t *)(const void *)from, __ATOMIC_RELAXED);
		memcpy(to, &word, 8);
	}
	for (; n; n--) *to++ = (char)__atomic_load_n(from++, __ATOMIC_RELAXED);
}

static void copy(char *to, const char *from, uint64_t n, bool shared)
{
	if (shared)
		heap_copy_shared(to, from, n);
	else if (n)
		memcpy(to, from, n);
}

/* All but the references. */
static void copy_around(char *to, const char *from, uint64_t n, const struct edge *edge, uint32_t edges, bool shared)
{
	uint64_t done = 0;
	for (uint32_t k = 0; k < edges; k++) {
		if (edge[k].offset > done) copy(to + done, from + done, edge[k].offset - done, shared);
		done = edge[k].offset + 8;
	}
	if (n > done) copy(to + done, from + done, n - done, shared);
}

static uint64_t fixed_bytes(const struct heap_type *type)
{
	return type->element ? type->tail : type->size;
}

static void copy_plain(const struct layout *layout, char *to, const char *from, uint32_t n, bool shared)
{
	const struct heap_type *type = layout->type;
	uint64_t element = type->element;
	copy_around(to, from, fixed_bytes(type), layout->edge, layout->edges, shared);
	if (!element) return;
	memcpy(to + type->count, &n, sizeof n); /* as it was when the copy got its place */
	to += type->tail;
	from += type->tail;
	if (!layout->tail_edges) {
		copy(to, from, n * element, shared);
	} else if (layout->tail_edges * UINT64_C(8) < element) {
		for (uint64_t e = 0; e < n; e++, to += element, from += element)
			copy_around(to, from, element, layout->edge + layout->edges, layout->tail_edges, shared);
	}
}

static uint64_t load_word(const char *at, bool shared)
{
	uint64_t word;
	if (shared) return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_ACQUIRE);
	memcpy(&word, at, sizeof word);
	return word;
}

static uint32_t load_count(const struct heap_type *type, const char *at, bool shared)
{
	uint32_t n = 0;
	if (!type->element) return 0;
	if (shared) return __atomic_load_n((const uint32_t *)(const void *)(at + type->count), __ATOMIC_RELAXED);
	memcpy(&n, at + type->count, sizeof n);
	return n;
}

/* ---- layouts ---- */

/* The type of the program's without a heap; what has the same name must look the same. */
static struct heap_type *type_without_heap(struct graph *g, const struct hp_type *user, int *error)
{
	struct heap_type *type = heap_type_make(user, error);
	uint32_t kinds = 0;
	if (!type) return NULL;
	for (struct kind *kind = g->kinds; kind; kind = kind->next, kinds++) {
		if (strcmp(kind->type->shape.name, type->shape.name)) continue;
		*error = memcmp(&kind->type->shape, &type->shape, sizeof type->shape) ? -EPROTO : 0;
		heap_type_free(type);
		return *error ? NULL : kind->type;
	}
	if (kinds < HEAP_TYPES) return type;
	*error = -ENOSPC;
	heap_type_free(type);
	return NULL;
}

static struct kind *kind_of(struct graph *g, struct heap_type *type)
{
	struct kind *kind = g->kinds;
	while (kind && kind->type != type) kind = kind->next;
	if (kind || !(kind = calloc(1, sizeof *kind))) return kind;
	kind->type = type;
	kind->next = g->kinds;
	g->kinds = kind;
	return kind;
}

static void edges_fill(struct edge *edge, uint32_t n, const struct heap_type_shape *shape, bool tail,
                       const struct hp_member *member)
{
	for (uint32_t k = 0; k < n; k++) {
		struct edge new = {.offset = tail ? shape->tail_member[k].offset : shape->member[k].offset,
		                   .target = tail ? shape->tail_member[k].target : shape->member[k].target,
		                   .user = member ? member[k].type : NULL};
		uint32_t i = k;
		for (; i > 0 && edge[i - 1].offset > new.offset; i--) edge[i] = edge[i - 1];
		edge[i] = new;
	}
}

static int layout_new(struct graph *g, const struct hp_type *user, struct heap_type *type, struct layout **out)
{
	if (g->layouts == LAYOUTS) return -ENOSPC;
	if (g->layouts == g->layout_room) {
		uint32_t room = g->layout_room ? g->layout_room * 2 : 8;
		struct layout **more = realloc(g->layout, room * sizeof *more);
		if (!more) return -ENOMEM;
		g->layout = more;
		g->layout_room = room;
	}
	struct layout *layout = calloc(1, sizeof *layout + (type->members + type->tail_members) * sizeof(struct edge));
	if (!layout) return -ENOMEM;
	if (g->count && !(layout->kind = kind_of(g, type))) {
		free(layout);
		return -ENOMEM;
	}
	layout->user = user;
	layout->type = type;
	layout->edges = type->members;
	layout->tail_edges = type->tail_members;
	edges_fill(layout->edge, layout->edges, &type->shape, false, user ? user->member : NULL);
	edges_fill(layout->edge + layout->edges, layout->tail_edges, &type->shape, true, user ? user->tail_member : NULL);
	layout->number = g->layouts;
	g->layout[g->layouts++] = layout;
	*out = layout;
	return 0;
}

/* Of private values. */
static int layout_private(struct graph *g, const struct hp_type *user, struct layout **out)
{
	int error = 0;
	for (uint32_t i = 0; i < g->layouts; i++)
		if (g->layout[i]->user == user && user) {
			*out = g->layout[i];
			return 0;
		}
	struct heap_type *type = g->heap ? heap_bind(g->heap, g->tx, user, &error) : type_without_heap(g, user, &error);
	if (!type) return error;
	error = layout_new(g, user, type, out);
	if (error < 0 && !g->heap) {
		struct kind *kind = g->kinds;
		while (kind && kind->type != type) kind = kind->next;
		if (!kind) heap_type_free(type);
	}
	return error;
}

/* Of values in the heap. */
static int layout_resident(struct graph *g, struct heap_type *type, struct layout **out)
{
	for (uint32_t i = 0; i < g->layouts; i++)
		if (!g->layout[i]->user && g->layout[i]->type == type) {
			*out = g->layout[i];
			return 0;
		}
	return layout_new(g, NULL, type, out);
}

/* ---- nodes ---- */

static uint64_t node_to(const struct layout *layout, uint64_t off)
{
	return (uint64_t)layout->number << HEAP_OFFSET_BITS | off;
}

static struct layout *node_layout(const struct graph *g, const struct node *node)
{
	return g->layout[node->to >> HEAP_OFFSET_BITS];
}

static uint64_t slot_of(uint64_t from, uint64_t number)
{
	return from >> 3 << 32 | (number + 1);
}

/* Where its number is, or would be. */
static uint64_t *find(const struct graph *g, uint64_t from)
{
	/* what lies side by side, within 128 bytes, has neighbouring slots */
	uint64_t mask = g->slots - 1, tag = slot_of(from, 0) >> 32;
	uint64_t i = (((from >> 7) * GOLDEN >> 29 & ~UINT64_C(7)) + (from >> 4 & 7)) & mask;
	while (g->slot[i] && (g->slot[i] >> 32 != tag || g->node[(uint32_t)g->slot[i] - 1].from != from))
		i = (i + 1) & mask;
	return &g->slot[i];
}

static int grow(struct graph *g)
{
	uint64_t slots = g->slots * 2, room = slots / 8 * 5;
	if (room > UINT32_MAX / 2) return -ENOMEM;
	bool few = g->node == g->few;
	uint64_t *slot = calloc(slots, sizeof *slot);
	struct node *node = slot ? realloc(few ? NULL : g->node, room * sizeof *node) : NULL;
	if (!node) {
		free(slot);
		return -ENOMEM;
	}
	if (few)
		memcpy(node, g->few, sizeof g->few);
	else
		free(g->slot);
	g->node = node;
	g->slot = slot;
	g->slots = slots;
	g->room = room;
	for (uint64_t i = 0; i < g->nodes; i++) *find(g, node[i].from) = slot_of(node[i].from, i);
	return 0;
}

/* The number of what is there, a new one when it has not been met. */
static int meet(struct graph *g, uint64_t from, const struct layout *layout, uint64_t *number)
{
	uint64_t *slot = find(g, from);
	int error;
	if (*slot) {
		*number = (uint32_t)*slot - 1;
		/* no value lies in another one, so one place cannot be two */
		return node_layout(g, &g->node[*number])->type == layout->type ? 0 : -EPROTO;
	}
	if (g->nodes == g->room) {
		if ((error = grow(g)) < 0) return error;
		slot = find(g, from);
	}
	*number = g->nodes++;
	*slot = slot_of(from, *number);
	g->node[*number] = (struct node){from, node_to(layout, 0)};
	return 0;
}

static void begin(struct graph *g)
{
	g->node = g->few;
	g->slot = g->few_slot;
	g->slots = FEW_SLOTS;
	g->room = FEW;
}

static void end(struct graph *g)
{
	for (struct kind *kind = g->kinds, *next; kind; kind = next) {
		next = kind->next;
		if (!g->heap) heap_type_free(kind->type);
		free(kind);
	}
	for (uint32_t i = 0; i < g->layouts; i++) free(g->layout[i]);
	free(g->layout);
	if (g->node == g->few) return;
	free(g->node);
	free(g->slot);
}

/* ---- references ---- */

/* A live value of this heap, and where its place ends. */
static int look_up(const struct graph *g, uint64_t word, struct heap_type **type, uint64_t *bytes)
{
	hp_heap *heap = g->heap;
	uint64_t page;
	uint32_t i;
	int error;
	if (!heap || word >> HEAP_OFFSET_BITS != heap->tag >> HEAP_OFFSET_BITS) return -EXDEV;
	struct heap_slab *slab = heap_find(heap, word, &page, &i);
	if (!slab) return -ESTALE;
	*bytes = atomic_load_explicit(&slab->size, memory_order_relaxed);
	*type = heap_type(heap, atomic_load_explicit(&slab->type, memory_order_relaxed));
	if (!*type && (error = heap_types_known(heap)) < 0) return error;
	if (!*type || *bytes > heap->pool->capacity - heap_ref_offset(word)) return -EUCLEAN;
	return heap_bytes(*type, 0) <= *bytes ? 0 : -EUCLEAN;
}

/* The type of the value that a reference names is the one that the member says. */
static int check_reference(const struct graph *g, struct edge *edge, uint64_t word, struct heap_type **type)
{
	uint64_t bytes;
	int error = look_up(g, word, type, &bytes);
	if (error < 0 || *type == edge->seen) return error;
	if (edge->target && heap_name_hash((*type)->shape.name) != edge->target) return -EPROTO;
	edge->seen = *type;
	return 0;
}

/* Does the word, of a member in the heap or not, lead to something that is to be copied? 1: with that layout. */
static int leads(struct graph *g, struct edge *edge, uint64_t word, bool in_heap, struct layout **layout)
{
	struct heap_type *type;
	int error;
	if (!word) return 0;
	if (resident(word)) {
		if ((error = check_reference(g, edge, word, &type)) < 0 || g->share) return error;
		if (!g->tx && !edge->target) return -EINVAL; /* exporting */
		return (error = layout_resident(g, type, layout)) < 0 ? error : 1;
	}
	if (in_heap || !edge->target) return -EINVAL;
	if (!edge->to && (error = layout_private(g, edge->user, &edge->to)) < 0) return error;
	*layout = edge->to;
	return 1;
}

/* Calls fn for every reference of a value with n elements; `to` moves along in its copy. Stops at an error. */
typedef int edge_fn(struct graph *g, struct edge *edge, const char *at, char *to, bool in_heap);

static int each_edge(struct graph *g, struct layout *layout, const char *at, char *to, uint32_t n, bool in_heap,
                     edge_fn *fn)
{
	int error = 0;
	struct edge *edge = layout->edge;
	for (uint32_t k = 0; k < layout->edges && error == 0; k++)
		error = fn(g, &edge[k], at + edge[k].offset, to ? to + edge[k].offset : NULL, in_heap);
	if (!layout->tail_edges) return error;
	edge += layout->edges;
	uint64_t element = layout->type->element, off = layout->type->tail;
	for (uint32_t e = 0; e < n && error == 0; e++, off += element)
		for (uint32_t k = 0; k < layout->tail_edges && error == 0; k++)
			error = fn(g, &edge[k], at + off + edge[k].offset, to ? to + off + edge[k].offset : NULL, in_heap);
	return error;
}

/* The value of a node, and how many elements it has. */
static int source(const struct graph *g, const struct node *node, const char **at, uint32_t *n)
{
	const struct heap_type *type = node_layout(g, node)->type;
	if (resident(node->from)) {
		struct heap_type *now;
		uint64_t bytes;
		int error = look_up(g, node->from, &now, &bytes);
		if (error < 0) return error;
		if (now != type) return -ESTALE;
		*at = g->heap->pool->base + heap_ref_offset(node->from);
		*n = load_count(type, *at, true);
		return *n <= heap_room(type, bytes) ? 0 : -EINVAL;
	}
	*at = (const char *)(uintptr_t)node->from;
	*n = load_count(type, *at, false);
	return 0;
}

/* ---- the first walk ---- */

static int meet_edge(struct graph *g, struct edge *edge, const char *at, char *to, bool in_heap)
{
	struct layout *layout;
	uint64_t number, word = load_word(at, in_heap);
	(void)to;
	int error = leads(g, edge, word, in_heap, &layout);
	return error == 1 ? meet(g, word, layout, &number) : error;
}

static void count_one(const struct layout *layout, uint32_t n)
{
	uint64_t size;
	unsigned class = heap_class(layout->type, heap_bytes(layout->type, n), &size);
	if (class == HEAP_ALONE)
		layout->kind->alone += heap_slabs_need(class, size, 1);
	else
		layout->kind->count[class]++;
}

static int discover(struct graph *g, const struct hp_type *type, const void *value)
{
	struct layout *layout;
	uint64_t number;
	int error = layout_private(g, type, &layout);
	if (error == 0) error = meet(g, (uintptr_t)value, layout, &number);
	for (uint64_t i = 0; i < g->nodes && error == 0; i++) {
		struct node node = g->node[i];
		const char *at;
		uint32_t n;
		layout = node_layout(g, &node);
		if ((error = source(g, &node, &at, &n)) < 0) return error;
		if (g->count) count_one(layout, n);
		error = each_edge(g, layout, at, NULL, n, resident(node.from), meet_edge);
	}
	return error;
}

int64_t hp_value_need(const struct hp_type *type, const void *value)
{
	struct graph g = {.count = true};
	uint64_t pages = 0;
	if (!type) return value ? -EINVAL : 0;
	if (!value) return -EINVAL;
	begin(&g);
	int error = discover(&g, type, value);
	for (const struct kind *kind = g.kinds; kind && error == 0; kind = kind->next) {
		pages += kind->alone;
		for (unsigned class = 0; class < HEAP_ALONE; class ++)
			if (kind->count[class])
				pages += heap_slabs_need(class, heap_class_size(kind->type, class), kind->count[class]);
	}
	end(&g);
	return error < 0 ? error : (int64_t)(pages * HP_PAGE_SIZE);
}

/* ---- importing ---- */

static int make_slabs(struct graph *g)
{
	for (const struct kind *kind = g->kinds; kind; kind = kind->next)
		for (unsigned class = 0; class < HEAP_ALONE; class ++) {
			uint64_t n = kind->count[class];
			int error = n ? heap_slabs_exact(g->tx, kind->type, class, heap_class_size(kind->type, class), n) : 0;
			if (error < 0) return error;
		}
	return 0;
}

static int make_values(struct graph *g)
{
	for (uint64_t i = 0; i < g->nodes; i++) {
		struct node *node = &g->node[i];
		const struct layout *layout = node_layout(g, node);
		const char *at;
		uint32_t n;
		int error = source(g, node, &at, &n);
		if (error < 0) return error;
		hp_ref ref = heap_new(g->tx, layout->type, n);
		if (!ref.word) return g->tx->error;
		node->to = node_to(layout, heap_ref_offset(ref.word));
	}
	return 0;
}

static int fill_edge(struct graph *g, struct edge *edge, const char *at, char *to, bool in_heap)
{
	uint64_t word = load_word(at, in_heap);
	struct heap_type *type;
	int error = 0;
	if (word && resident(word) && g->share) {
		error = check_reference(g, edge, word, &type);
	} else if (word) {
		/* most values are met only once, and in the same order as in the first walk */
		uint64_t i = g->next;
		if (i < g->nodes && g->node[i].from == word) {
			g->next++;
		} else {
			uint64_t slot = *find(g, word);
			if (!slot) return -EINVAL; /* somebody changes the private graph */
			i = (uint32_t)slot - 1;
		}
		word = g->heap->tag | heap_ref_offset(g->node[i].to);
	}
	if (error == 0) __atomic_store_n((uint64_t *)(void *)to, word, __ATOMIC_RELAXED);
	return error;
}

static int fill_values(struct graph *g)
{
	int error = 0;
	g->next = 1;
	for (uint64_t i = 0; i < g->nodes && error == 0; i++) {
		struct node *node = &g->node[i];
		struct layout *layout = node_layout(g, node);
		char *to = g->heap->pool->base + heap_ref_offset(node->to);
		const char *at;
		uint32_t n, room = load_count(layout->type, to, false);
		bool in_heap = resident(node->from);
		if ((error = source(g, node, &at, &n)) < 0) return error;
		if (n > room) n = room; /* it has grown since its copy was made */
		copy_plain(layout, to, at, n, in_heap);
		error = each_edge(g, layout, at, to, n, in_heap, fill_edge);
	}
	return error;
}

hp_ref heap_value_import(hp_tx *tx, const struct hp_type *type, const void *value, unsigned flags, bool exact)
{
	int error = heap_check(tx);
	if (error < 0) return HP_NONE;
	struct graph g = {.heap = tx->heap, .tx = tx, .share = flags & HP_VALUE_SHARE, .count = exact};
	begin(&g);
	error = !type || !value || flags & ~HP_VALUE_SHARE ? -EINVAL : discover(&g, type, value);
	if (error == 0 && exact) error = make_slabs(&g);
	if (error == 0) error = make_values(&g);
	if (error == 0) error = fill_values(&g);
	hp_ref ref = {error ? 0 : tx->heap->tag | heap_ref_offset(g.node[0].to)};
	end(&g);
	if (error < 0) heap_fail(tx, error);
	return ref;
}

hp_ref hp_value_import(hp_tx *tx, const struct hp_type *type, const void *value, unsigned flags)
{
	return heap_value_import(tx, type, value, flags, false);
}

/* ---- exporting ---- */

/* Room for a value in the block, from `off` on. */
static int block_more(struct graph *g, uint64_t align, uint64_t bytes, uint64_t *off)
{
	*off = (g->used + align - 1) / align * align;
	if (align > g->align) g->align = align;
	if (*off + bytes > g->block_room) {
		uint64_t room = g->block_room * 2 > *off + bytes ? g->block_room * 2 : *off + bytes;
		char *more = realloc(g->block, room);
		if (!more) return -ENOMEM;
		g->block = more;
		g->block_room = room;
	}
	memset(g->block + g->used, 0, *off - g->used);
	g->used = *off + bytes;
	return 0;
}

static int take_edge(struct graph *g, struct edge *edge, const char *at, char *to, bool in_heap)
{
	struct layout *layout;
	uint64_t word = load_word(at, in_heap), number = 0;
	int error = leads(g, edge, word, in_heap, &layout);
	if (error == 1 && (error = meet(g, word, layout, &number)) == 0) number++;
	memcpy(to, &number, sizeof number);
	return error;
}

static int take_values(struct graph *g)
{
	int error = 0;
	for (uint64_t i = 0; i < g->nodes && error == 0; i++) {
		struct node node = g->node[i];
		struct layout *layout = node_layout(g, &node);
		const struct heap_type *type = layout->type;
		uint64_t off, bytes;
		const char *at;
		uint32_t n;
		if ((error = source(g, &node, &at, &n)) < 0) return error;
		bytes = heap_bytes(type, n);
		if ((error = block_more(g, type->shape.align, bytes, &off)) < 0) return error;
		g->node[i].to = node_to(layout, off);
		uint64_t copied = fixed_bytes(type) + (uint64_t)n * type->element;
		memset(g->block + off + copied, 0, bytes - copied); /* the zero behind a string, padding */
		copy_plain(layout, g->block + off, at, n, true);
		error = each_edge(g, layout, at, g->block + off, n, true, take_edge);
	}
	return error;
}

/* The block at its end: as large as it must be, and aligned. */
static int block_settle(struct graph *g)
{
	void *block;
	if (g->align <= _Alignof(max_align_t)) {
		if ((block = realloc(g->block, g->used)) != NULL) g->block = block;
		return 0;
	}
	if (posix_memalign(&block, g->align, g->used)) return -ENOMEM;
	memcpy(block, g->block, g->used);
	free(g->block);
	g->block = block;
	return 0;
}

static int point_edge(struct graph *g, struct edge *edge, const char *at, char *to, bool in_heap)
{
	uint64_t number = load_word(at, false);
	(void)edge, (void)in_heap;
	uintptr_t address = number ? (uintptr_t)g->block + heap_ref_offset(g->node[number - 1].to) : 0;
	memcpy(to, &address, sizeof address);
	return 0;
}

static void point(struct graph *g)
{
	for (uint64_t i = 0; i < g->nodes; i++) {
		struct layout *layout = node_layout(g, &g->node[i]);
		char *at = g->block + heap_ref_offset(g->node[i].to);
		each_edge(g, layout, at, at, load_count(layout->type, at, false), false, point_edge);
	}
}

int hp_value_export(hp_heap *heap, hp_ref value, void **out, size_t *bytes)
{
	struct graph g = {.heap = heap};
	struct heap_type *type;
	struct layout *layout;
	uint64_t room, number;
	if (!heap || !out) return -EINVAL;
	*out = NULL;
	if (!resident(value.word)) return -EINVAL;
	if (!heap->pool || !heap_is_live(heap)) return -ESTALE;
	/* what a guard keeps may only be walked in a section */
	int error = hp_heap_read_enter(heap->pool);
	if (error < 0) return error;
	begin(&g);
	if ((error = look_up(&g, value.word, &type, &room)) == 0 && (error = layout_resident(&g, type, &layout)) == 0 &&
	    (error = meet(&g, value.word, layout, &number)) == 0)
		error = take_values(&g);
	hp_heap_read_exit(heap->pool);
	if (error == 0) error = block_settle(&g);
	if (error == 0) {
		point(&g);
		*out = g.block;
		if (bytes) *bytes = g.used;
	} else {
		free(g.block);
	}
	end(&g);
	return error;
}

uint32_t hp_value_capacity(const hp_heap *heap, hp_ref ref)
{
	struct graph g = {.heap = (hp_heap *)heap};
	struct heap_type *type;
	uint64_t bytes;
	if (!heap || look_up(&g, ref.word, &type, &bytes) < 0) return 0;
	uint64_t room = heap_room(type, bytes);
	return room < UINT32_MAX ? (uint32_t)room : UINT32_MAX;
}
