/* Values that go into a heap, and out of it again: whole graphs, compared by a walk of the test's own.
 *
 * Would catch a copy that loses sharing or a cycle, or recurses; a word that is taken for a reference, or not; a private
 * pointer that gets into a heap; a place one byte or one element too small; a heap that a failure has changed; a limit said to
 * be enough that is not, or that could be smaller. */
#include "hp_trap.h"

#include <hugepool/heap.h>
#include <limits.h>
#include <pthread.h>

#include "os/os.h"

struct bunch;
struct item {
	uint64_t id;
	HP_REF(struct item) a;
	HP_REF(struct item) b;
	HP_REF(struct hp_string) name;
};
struct line { /* of cache */
	_Alignas(64) HP_REF(struct bunch) bunch;
	char fill[44];
	uint32_t id;
	HP_REF(struct item) item;
};
struct element {
	uint64_t key;
	HP_REF(struct item) item;
	HP_REF(struct bunch) bunch;
};
struct bunch {
	HP_REF(struct line) line;
	uint32_t id, n;
	HP_REF(struct hp_bytes) bytes;
	struct element e[];
};
struct list {
	HP_REF(struct list) next;
	uint64_t id;
};
struct lines { /* aligned, with a tail */
	_Alignas(64) uint32_t n;
	uint64_t word[];
};
struct any {
	HP_REF(void) value;
	HP_REF(struct any) next;
};
HP_TYPE_DECLARE(bunch_type);
HP_TYPE_DECLARE(item_type);
HP_TYPE_DECLARE(list_type);
HP_TYPE_DECLARE(any_type);
HP_TYPE(item_type, struct item, (a, item_type), (b, item_type), (name, hp_string_type));
HP_TYPE(line_type, struct line, (item, item_type), (bunch, bunch_type)); /* not in the order of their places */
HP_TYPE_FULL(bunch_type, struct bunch, n, e, ((line, line_type), (bytes, hp_bytes_type)),
             ((item, item_type), (bunch, bunch_type)));
HP_TYPE(list_type, struct list, (next, list_type));
HP_TYPE_ARRAY_LEAF(lines_type, struct lines, n, word);
HP_TYPE(any_type, struct any, (value, hp_any), (next, any_type));

#define POOL (HP_TEST_SANITIZER ? 48 * MIB : 64 * MIB)
#define ROUNDS (HP_TEST_SANITIZER ? 15u : 60u)

static hp_pool *pool;
static uint64_t state;

static int set_up(void **unused)
{
	(void)unused;
	state = hp_seed("heap_value");
	pool = hp_plain_pool(POOL, 0);
	return 0;
}

static int tear_down(void **unused)
{
	(void)unused;
	hp_must_be_empty(pool);
	return hp_pool_detach(pool);
}

static hp_heap *heap_with(uint64_t limit, const struct hp_type *type, const void *root)
{
	struct hp_heap_options options = {.struct_size = sizeof options, .limit = limit};
	hp_heap *heap;
	must_be(hp_heap_create(pool, &options, type, root, &heap), 0);
	return heap;
}

static void heap_end(hp_heap *heap)
{
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

static hp_tx *begin(hp_heap *heap)
{
	hp_tx *tx;
	must_be(hp_heap_begin(heap, 1000, &tx), 0);
	return tx;
}

/* A copy of the graph becomes the root. */
static hp_ref import_root(hp_heap *heap, const struct hp_type *type, const void *value, unsigned flags)
{
	hp_tx *tx = begin(heap);
	hp_ref ref = hp_value_import(tx, type, value, flags);
	must_be(hp_heap_set_root(tx, ref), 0);
	must_be(hp_heap_commit(tx), 0);
	must(ref.word);
	return ref;
}

/* The error that a transaction with the import ends with. */
static int import_error(hp_heap *heap, const struct hp_type *type, const void *value, unsigned flags)
{
	hp_tx *tx = begin(heap);
	hp_ref ref = hp_value_import(tx, type, value, flags);
	int error = hp_heap_error(tx);
	must(!ref.word == (error < 0));
	if (ref.word) hp_heap_set_root(tx, ref);
	must_be(hp_heap_commit(tx), error);
	return error;
}

static void *export_root(hp_heap *heap, size_t *bytes)
{
	void *value;
	must_be(hp_heap_read_enter(pool), 0);
	must_be(hp_value_export(heap, hp_heap_root(heap), &value, bytes), 0);
	hp_heap_read_exit(pool);
	return value;
}

static uint64_t held(hp_heap *heap)
{
	struct hp_heap_stat stat;
	must_be(hp_heap_stat(heap, &stat), 0);
	return stat.held;
}

/* ---- the same graph? ---- */

struct pair {
	uint64_t a, b;
	const struct hp_type *type;
};
struct walk {
	hp_heap *heap[2];
	struct pair *pair;
	size_t pairs, room;
	size_t *slot[2]; /* by a, and by b */
	bool same;
};

static size_t *place(const struct walk *w, unsigned side, uint64_t word)
{
	size_t mask = w->room * 2 - 1, i = (word * UINT64_C(0x9e3779b97f4a7c15)) >> 30 & mask;
	for (size_t k; (k = w->slot[side][i]) != 0; i = (i + 1) & mask)
		if ((side ? w->pair[k - 1].b : w->pair[k - 1].a) == word) break;
	return &w->slot[side][i];
}

static void walk_grow(struct walk *w)
{
	w->room = w->room ? w->room * 2 : 64;
	must(w->pair = realloc(w->pair, w->room * sizeof *w->pair));
	for (unsigned side = 0; side < 2; side++) {
		free(w->slot[side]);
		must(w->slot[side] = calloc(w->room * 2, sizeof *w->slot[side]));
		for (size_t k = 0; k < w->pairs; k++) *place(w, side, side ? w->pair[k].b : w->pair[k].a) = k + 1;
	}
}

static void meet(struct walk *w, uint64_t a, uint64_t b, const struct hp_type *type)
{
	if (!a || !b || type == &hp_any) {
		w->same = w->same && a == b;
		return;
	}
	if (w->pairs == w->room) walk_grow(w);
	size_t *at = place(w, 0, a), *bt = place(w, 1, b);
	if (*at || *bt) {
		w->same = w->same && *at == *bt;
		return;
	}
	w->pair[w->pairs++] = (struct pair){a, b, type};
	*at = *bt = w->pairs;
}

/* In a heap it must live, and be of that type. */
static const char *address(const struct walk *w, unsigned side, uint64_t word, const struct hp_type *type)
{
	return word >> 63 ? hp_heap_deref_checked(w->heap[side], (hp_ref){word}, type, NULL)
	                  : (const char *)(uintptr_t)word;
}

static uint64_t word_at(const char *at)
{
	uint64_t word;
	memcpy(&word, at, 8);
	return word;
}

static bool is_member(const struct hp_member *member, uint32_t members, uint64_t off, const struct hp_type **type)
{
	for (uint32_t k = 0; k < members; k++)
		if (member[k].offset == off) {
			*type = member[k].type;
			return true;
		}
	return false;
}

static void compare_part(struct walk *w, const char *a, const char *b, uint64_t bytes, const struct hp_member *member,
                         uint32_t members)
{
	const struct hp_type *type;
	for (uint64_t off = 0; off < bytes;) {
		if (off % 8 == 0 && is_member(member, members, off, &type)) {
			meet(w, word_at(a + off), word_at(b + off), type);
			off += 8;
		} else {
			w->same = w->same && a[off] == b[off];
			off++;
		}
	}
}

/* Either side's references may be of its heap. */
static bool same_graph(const struct hp_type *type, hp_heap *heap_a, uint64_t a, hp_heap *heap_b, uint64_t b,
                       size_t *values)
{
	struct walk w = {.heap = {heap_a, heap_b}, .same = true};
	walk_grow(&w);
	meet(&w, a, b, type);
	for (size_t i = 0; i < w.pairs && w.same; i++) {
		struct pair p = w.pair[i];
		const char *at = address(&w, 0, p.a, p.type), *bt = address(&w, 1, p.b, p.type);
		w.same = at && bt && ((uintptr_t)at | (uintptr_t)bt) % p.type->align == 0;
		if (!w.same) break;
		compare_part(&w, at, bt, p.type->element ? p.type->tail : p.type->size, p.type->member, p.type->members);
		uint32_t n = 0;
		if (p.type->element) memcpy(&n, at + p.type->count, sizeof n);
		if (p.type == &hp_string_type) w.same = w.same && at[4 + n] == 0 && bt[4 + n] == 0;
		for (uint32_t e = 0; e < n && w.same; e++) {
			uint64_t off = p.type->tail + (uint64_t)e * p.type->element;
			if (!p.type->tail_members) {
				w.same = memcmp(at + off, bt + off, (size_t)n * p.type->element) == 0;
				break;
			}
			compare_part(&w, at + off, bt + off, p.type->element, p.type->tail_member, p.type->tail_members);
		}
	}
	if (values) *values = w.pairs;
	free(w.pair);
	free(w.slot[0]);
	free(w.slot[1]);
	return w.same;
}

#define must_be_same(type, heap_a, a, heap_b, b) must(same_graph(type, heap_a, a, heap_b, b, NULL))

static uint64_t word_of(const void *private)
{
	return (uintptr_t) private;
}

/* ---- random graphs ---- */

#define MOST 400
struct graph {
	struct item *item[MOST];
	struct line *line[MOST];
	struct bunch *bunch[MOST];
	struct hp_string *string[MOST];
	struct hp_bytes *bytes[MOST];
	unsigned n;
	struct bunch *root;
};

static void *blank(size_t align, size_t bytes)
{
	void *memory;
	must_be(posix_memalign(&memory, align < 8 ? 8 : align, bytes ? bytes : 1), 0);
	memset(memory, 0, bytes);
	return memory;
}

static uint32_t some_elements(void)
{
	switch (hp_below(&state, 8)) {
	case 0: return 0;
	case 1: return 1;
	case 2: return (uint32_t)hp_below(&state, 2000);
	default: return (uint32_t)hp_below(&state, 30);
	}
}

static void *one_of(void *array, unsigned n)
{
	void **pointer = array;
	return hp_below(&state, 5) ? pointer[hp_below(&state, n)] : NULL;
}

static struct graph *graph_make(unsigned n)
{
	struct graph *g = calloc(1, sizeof *g);
	must(g && n && n <= MOST);
	g->n = n;
	for (unsigned i = 0; i < n; i++) {
		uint32_t elements = some_elements(), len = (uint32_t)hp_below(&state, 40), bytes = some_elements() * 7;
		g->item[i] = blank(8, sizeof **g->item);
		g->line[i] = blank(64, sizeof **g->line);
		g->bunch[i] = blank(8, sizeof **g->bunch + elements * sizeof(struct element));
		g->bunch[i]->n = elements;
		g->string[i] = blank(8, sizeof **g->string + len + 1);
		g->string[i]->len = len;
		memset(g->string[i]->s, 'a' + (int)(i % 26), len);
		g->bytes[i] = blank(8, sizeof **g->bytes + bytes);
		g->bytes[i]->len = bytes;
		memset(g->bytes[i]->data, (int)i, bytes);
	}
	for (unsigned i = 0; i < n; i++) {
		g->item[i]->id = g->bunch[i]->id = g->line[i]->id = i;
		g->item[i]->a.priv = one_of(g->item, n);
		g->item[i]->b.priv = one_of(g->item, n);
		g->item[i]->name.priv = one_of(g->string, n);
		g->line[i]->item.priv = one_of(g->item, n);
		g->line[i]->bunch.priv = one_of(g->bunch, n);
		g->bunch[i]->line.priv = one_of(g->line, n);
		g->bunch[i]->bytes.priv = one_of(g->bytes, n);
		for (uint32_t e = 0; e < g->bunch[i]->n; e++) {
			g->bunch[i]->e[e].key = hp_random(&state); /* like a reference, in half of all cases */
			g->bunch[i]->e[e].item.priv = one_of(g->item, n);
			g->bunch[i]->e[e].bunch.priv = one_of(g->bunch, n);
		}
	}
	g->root = g->bunch[0];
	return g;
}

static void graph_free(struct graph *g)
{
	for (unsigned i = 0; i < g->n; i++) {
		free(g->item[i]);
		free(g->line[i]);
		free(g->bunch[i]);
		free(g->string[i]);
		free(g->bytes[i]);
	}
	free(g);
}

/* ---- tests ---- */

/* T4 */
static void graphs_go_in_and_out_as_they_are(void **unused)
{
	(void)unused;
	hp_heap *heap = heap_with(0, NULL, NULL);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct graph *g = graph_make(1 + (unsigned)hp_below(&state, round % 10 ? 40 : MOST));
		size_t bytes, values;
		hp_ref ref = import_root(heap, &bunch_type, g->root, hp_below(&state, 2));
		must_be_same(&bunch_type, NULL, word_of(g->root), heap, ref.word);
		must_be(hp_heap_gc(heap, HP_GC_WAIT, 1000), 0);
		must(same_graph(&bunch_type, NULL, word_of(g->root), heap, ref.word, &values));
		struct hp_heap_stat stat;
		must_be(hp_heap_stat(heap, &stat), 0);
		must_be(stat.values, values);
		struct bunch *copy = export_root(heap, &bytes);
		must(bytes >= values * 4);
		must_be_same(&bunch_type, NULL, word_of(g->root), NULL, word_of(copy));
		graph_free(g); /* nothing leads back to it */
		hp_ref again = import_root(heap, &bunch_type, copy, 0);
		must(again.word != ref.word);
		must_be_same(&bunch_type, NULL, word_of(copy), heap, again.word);
		free(copy);
	}
	heap_end(heap);
}

static void a_ring_and_a_self_loop(void **unused)
{
	(void)unused;
	struct list ring[3] = {{.id = 1}, {.id = 2}, {.id = 3}}, self = {.id = 4};
	for (unsigned i = 0; i < 3; i++) ring[i].next.priv = &ring[(i + 1) % 3];
	self.next.priv = &self;
	hp_heap *heap = heap_with(0, &list_type, &self);
	struct list *copy = export_root(heap, NULL);
	must(copy->next.priv == copy && copy->id == 4);
	free(copy);
	import_root(heap, &list_type, ring, 0);
	copy = export_root(heap, NULL);
	must(copy->next.priv->next.priv->next.priv == copy && copy->next.priv->next.priv->id == 3);
	free(copy);
	heap_end(heap);
}

/* T4: parts that are there already. */
static void mixed_graphs_share_or_copy_what_is_there(void **unused)
{
	(void)unused;
	for (unsigned share = 0; share < 2; share++) {
		struct graph *g = graph_make(30), *more = graph_make(30);
		hp_heap *heap = heap_with(0, &bunch_type, g->root);
		hp_ref old = hp_heap_root(heap);
		struct bunch *resident = hp_heap_deref(heap, old);
		struct line inner = {.id = 77, .bunch.ref = old, .item.priv = more->item[0]};
		more->root->line.priv = &inner;
		more->item[0]->name.ref = HP_NONE;
		if (resident->line.ref.word) {
			struct line *line = hp_heap_deref(heap, resident->line.ref);
			more->item[0]->a.ref = line->item.ref;
		}
		struct line outer = {.id = 78, .bunch.ref = old, .item.ref = more->item[0]->a.ref};
		more->bunch[1 % more->n]->line.priv = &outer;
		inner.item.priv->b.priv = more->item[2];
		more->item[2]->a.priv = more->item[0];
		hp_tx *tx = begin(heap);
		hp_ref new = hp_value_import(tx, &bunch_type, more->root, share ? HP_VALUE_SHARE : 0);
		must(new.word &&new.word != old.word);
		struct bunch *made = hp_heap_deref(heap, new);
		struct line *line = hp_heap_deref(heap, made->line.ref);
		must((line->bunch.ref.word == old.word) == share);
		must_be_same(&bunch_type, heap, old.word, heap, line->bunch.ref.word);
		must_be_same(&bunch_type, heap, word_of(more->root), heap, new.word);
		must_be(hp_heap_set_root(tx, new), 0);
		must_be(hp_heap_commit(tx), 0);
		must_be(hp_heap_gc(heap, HP_GC_WAIT, 1000), 0);
		must_be_same(&bunch_type, NULL, word_of(g->root), heap, line->bunch.ref.word);
		if (!share) must(!hp_heap_deref_checked(heap, old, NULL, NULL)); /* nothing leads there */
		graph_free(g);
		graph_free(more);
		heap_end(heap);
	}
}

/* A member that does not say what it leads to: none, or what is in the heap already. */
static void what_is_not_said_may_only_be_there_already(void **unused)
{
	(void)unused;
	struct list list = {.id = 5};
	struct any second = {.value.priv = NULL}, first = {.next.priv = &second};
	hp_heap *heap = heap_with(0, &list_type, &list);
	hp_ref old = hp_heap_root(heap);
	second.value.ref = old;
	first.value.ref = old;
	hp_tx *tx = begin(heap);
	hp_ref shared = hp_value_import(tx, &any_type, &first, HP_VALUE_SHARE);
	hp_ref copied = hp_value_import(tx, &any_type, &first, 0);
	must(shared.word && copied.word);
	struct any *value = hp_heap_deref(heap, shared);
	must(value->value.ref.word == old.word);
	value = hp_heap_deref(heap, copied);
	must(value->value.ref.word != old.word);
	must(((struct any *)hp_heap_deref(heap, value->next.ref))->value.ref.word == value->value.ref.word);
	must_be_same(&list_type, heap, old.word, heap, value->value.ref.word);
	must_be(hp_heap_set_root(tx, copied), 0);
	must_be(hp_heap_commit(tx), 0);
	void *copy = &copy;
	must_be(hp_value_export(heap, hp_heap_root(heap), &copy, NULL), -EINVAL);
	must(!copy);
	first.value.priv = &list;
	must_be(import_error(heap, &any_type, &first, HP_VALUE_SHARE), -EINVAL);
	must_be(import_error(heap, &any_type, &first, 0), -EINVAL);
	must_be(hp_value_need(&any_type, &first), -EINVAL);
	first.value.priv = second.value.priv = NULL;
	import_root(heap, &any_type, &first, 0);
	copy = export_root(heap, NULL);
	must_be_same(&any_type, NULL, word_of(&first), NULL, word_of(copy));
	free(copy);
	heap_end(heap);
}

/* Limit and heap agree to the page, whatever else is allowed. */
static void must_need(const struct hp_type *type, const void *value)
{
	int64_t need = hp_value_need(type, value);
	must(need > 0 && need % HP_PAGE_SIZE == 0);
	const uint64_t enough[] = {0, PAGE, hp_below(&state, 40) * PAGE, MIB};
	struct hp_heap_options options = {.struct_size = sizeof options};
	hp_heap *heap;
	for (unsigned i = 0; i < 4; i++) {
		heap = heap_with((uint64_t)need + enough[i], type, value);
		must_be(held(heap), need);
		must_be_same(type, NULL, word_of(value), heap, hp_heap_root(heap).word);
		heap_end(heap);
	}
	options.limit = (uint64_t)need - PAGE;
	if (options.limit) must_be(hp_heap_create(pool, &options, type, value, &heap), -ENOMEM);
	if (options.limit > PAGE) {
		options.limit = PAGE * (1 + hp_below(&state, options.limit / PAGE));
		must_be(hp_heap_create(pool, &options, type, value, &heap), -ENOMEM);
	}
	hp_must_be_empty(pool);
}

static void need_is_exact(void **unused)
{
	(void)unused;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct graph *g = graph_make(1 + (unsigned)hp_below(&state, round % 10 ? 40 : MOST));
		must_need(&bunch_type, g->root);
		must_need(&item_type, g->item[0]);
		graph_free(g);
	}
	must_be(hp_value_need(NULL, NULL), 0);
	must_be(hp_value_need(&item_type, NULL), -EINVAL);
	must_be(hp_value_need(NULL, &state), -EINVAL);
	struct list list = {.next.ref = {UINT64_C(1) << 63 | 4096}};
	must_be(hp_value_need(&list_type, &list), -EXDEV);
}

/* Types of every size: slabs of one page that have no room for their bits, and of values that do not divide a slab. */
static void need_is_exact_for_all_sizes(void **unused)
{
	(void)unused;
	static const struct hp_member next[] = {{0, NULL}};
	char *memory = blank(4096, 70 * 32768);
	for (unsigned k = 0; k < ROUNDS; k++) {
		struct hp_member member = next[0];
		struct hp_type type = {.name = "sized", .members = 1, .member = &member};
		type.align = 1u << hp_below(&state, 13);
		type.size = k < 6 ? 8u << k * 2 : (uint32_t)hp_below(&state, hp_below(&state, 2) ? 32768 - 8 : 400) + 8;
		if (k == 6) type.size = 32768;
		member.type = &type;
		unsigned n = 1 + (unsigned)hp_below(&state, 70);
		uint64_t step = (type.size + type.align - 1) / type.align * type.align, none = 0;
		if (step * n > 70 * 32768) n = (unsigned)(70 * 32768 / step);
		if (n < 1) continue;
		for (unsigned i = 0; i < n; i++) {
			uintptr_t to = i + 1 < n ? (uintptr_t)(memory + (i + 1) * step) : 0;
			memcpy(memory + i * step, &to, 8);
		}
		must_need(&type, memory);
		(void)none;
	}
	free(memory);
}

/* T22 */
static void arrays_of_all_lengths(void **unused)
{
	(void)unused;
	const size_t pages[] = {0, 1, 511, 512, 513, 3 * 512 + 1};
	for (unsigned k = 0; k < sizeof pages / sizeof *pages; k++) {
		for (int more = -1; more <= 1; more++) { /* a byte, and an element, around the border */
			if (pages[k] == 0 && more < 0) continue;
			uint64_t bytes = pages[k] * PAGE + (uint64_t)more;
			uint32_t len = bytes > 4 ? (uint32_t)bytes - 4 : (uint32_t)bytes;
			struct hp_bytes *flat = blank(8, 4 + (size_t)len);
			flat->len = len;
			for (uint32_t i = 0; i < len; i += 509) flat->data[i] = (unsigned char)hp_random(&state);
			must_need(&hp_bytes_type, flat);
			hp_heap *heap = heap_with(0, &hp_bytes_type, flat);
			must(hp_value_capacity(heap, hp_heap_root(heap)) >= len);
			struct hp_bytes *copy = export_root(heap, &bytes);
			must(bytes == len + UINT64_C(4) && copy->len == len && memcmp(copy->data, flat->data, len) == 0);
			free(copy);
			free(flat);

			uint64_t room = pages[k] * PAGE + (uint64_t)((int64_t)more * (int64_t)sizeof(struct element));
			uint32_t n = room > sizeof(struct bunch)
			                 ? (uint32_t)((room - sizeof(struct bunch)) / sizeof(struct element))
			                 : (uint32_t)(more + 1);
			struct bunch *bunch = blank(8, sizeof *bunch + n * sizeof(struct element));
			struct item item = {.id = 9, .a.priv = &item};
			bunch->n = n;
			if (n) bunch->e[n - 1].item.priv = &item; /* in the last word only */
			if (n) bunch->e[n - 1].bunch.priv = bunch;
			import_root(heap, &bunch_type, bunch, 0);
			must_be(hp_heap_gc(heap, HP_GC_WAIT, 1000), 0);
			must_be_same(&bunch_type, NULL, word_of(bunch), heap, hp_heap_root(heap).word);
			struct bunch *other = export_root(heap, NULL);
			must_be_same(&bunch_type, NULL, word_of(bunch), NULL, word_of(other));
			free(other);
			free(bunch);
			heap_end(heap);
		}
	}
}

/* T23: no value touches its neighbour, and each has the room that is said. */
static void classes_and_what_is_a_byte_off(void **unused)
{
	(void)unused;
	hp_heap *heap = heap_with(0, NULL, NULL);
	for (uint32_t size = 16; size <= 40000; size += size < 128 ? 16 : size / 8) {
		for (int more = -1; more <= 1; more++) {
			uint32_t len = size - 4 + (uint32_t)more;
			struct hp_bytes *flat = blank(8, 4 + len);
			struct hp_string *string = blank(8, 4 + len + 1);
			flat->len = string->len = len;
			memset(flat->data, 0xee, len);
			memset(string->s, 'x', len);
			hp_tx *tx = begin(heap);
			hp_ref a = hp_value_import(tx, &hp_bytes_type, flat, 0), b = hp_value_import(tx, &hp_bytes_type, flat, 0);
			hp_ref s = hp_value_import(tx, &hp_string_type, string, 0), t = hp_heap_new_string(tx, string->s, len);
			must(a.word && b.word && s.word && t.word);
			struct hp_bytes *place = hp_heap_deref(heap, a);
			struct hp_string *text = hp_heap_deref(heap, s);
			size_t bytes, text_bytes;
			must(hp_heap_deref_checked(heap, a, &hp_bytes_type, &bytes) == place);
			must(hp_heap_deref_checked(heap, s, &hp_string_type, &text_bytes) == text);
			must_be(hp_value_capacity(heap, a), bytes - 4);
			must_be(hp_value_capacity(heap, s), text_bytes - 4 - 1);
			must(hp_value_capacity(heap, s) >= len && text->len == len && text->s[len] == 0);
			must_be_same(&hp_string_type, heap, s.word, heap, t.word);
			/* all of its place is its own */
			memset(place->data, 0xaa, hp_value_capacity(heap, a));
			must_be_same(&hp_bytes_type, NULL, word_of(flat), heap, b.word);
			must_be_same(&hp_string_type, NULL, word_of(string), heap, s.word);
			hp_heap_abort(tx);
			free(flat);
			free(string);
		}
	}
	heap_end(heap);
}

static void aligned_structs(void **unused)
{
	(void)unused;
	hp_heap *heap = heap_with(0, NULL, NULL);
	for (uint32_t n = 0; n < 300; n += 1 + n / 10) {
		struct lines *lines = blank(64, sizeof *lines + n * 8);
		lines->n = n;
		for (uint32_t i = 0; i < n; i++) lines->word[i] = i;
		hp_ref ref = import_root(heap, &lines_type, lines, 0);
		must((uintptr_t)hp_heap_deref(heap, ref) % 64 == 0);
		struct lines *copy = export_root(heap, NULL);
		must((uintptr_t)copy % 64 == 0);
		must_be_same(&lines_type, NULL, word_of(lines), NULL, word_of(copy));
		free(copy);
		free(lines);
	}
	heap_end(heap);
}

/* T23: programs may lower and raise the count within the place. */
static void counts_at_capacity(void **unused)
{
	(void)unused;
	struct item item = {.id = 3};
	struct bunch *bunch = blank(8, sizeof *bunch + 6 * sizeof(struct element)), *copy;
	bunch->n = 6;
	bunch->e[5].item.priv = &item;
	hp_heap *heap = heap_with(0, &bunch_type, bunch);
	hp_ref root = hp_heap_root(heap);
	uint32_t room = hp_value_capacity(heap, root);
	must(room > 6 && room < 1000);
	must_be(hp_value_capacity(heap, HP_NONE), 0);
	struct bunch *place = hp_heap_deref(heap, root);
	struct any wrap = {.value.ref = root};
	place->n = room;
	copy = export_root(heap, NULL);
	must(copy->n == room && copy->e[5].item.priv->id == 3 && !copy->e[room - 1].item.priv);
	free(copy);
	place->n = 0;
	copy = export_root(heap, NULL);
	must(copy->n == 0);
	free(copy);
	place->n = room;
	must_be(import_error(heap, &any_type, &wrap, 0), 0);
	const struct any *made = hp_heap_deref(heap, hp_heap_root(heap));
	must(((struct bunch *)hp_heap_deref(heap, made->value.ref))->n == room);
	hp_tx *tx = begin(heap);
	must_be(hp_heap_set_root(tx, root), -ESTALE * (hp_heap_deref_checked(heap, root, NULL, NULL) == NULL));
	must_be(hp_heap_commit(tx), 0);
	place->n = room + 1;
	must_be(import_error(heap, &any_type, &wrap, 0), -EINVAL);
	must_be(import_error(heap, &any_type, &wrap, HP_VALUE_SHARE), 0);
	must_be(hp_value_export(heap, root, (void **)&copy, NULL), -EINVAL);
	must(!copy);
	place->n = UINT32_MAX;
	must_be(hp_value_export(heap, root, (void **)&copy, NULL), -EINVAL);
	heap_end(heap);
	free(bunch);
}

/* T21: on a stack on which nothing can recurse a million times, or even a thousand. */
#define DEEP (HP_TEST_SANITIZER ? 100000u : 500000u)
struct deep {
	struct list *list;
	struct item *tree;
};

static void *deep_run(void *arg)
{
	struct deep *deep = arg;
	int64_t need = hp_value_need(&list_type, deep->list);
	must(need >= (int64_t)(DEEP * 16));
	struct hp_heap_options options = {.struct_size = sizeof options, .limit = (uint64_t)need};
	hp_heap *heap;
	struct list *list;
	size_t bytes;
	must_be(hp_heap_create(pool, &options, &list_type, deep->list, &heap), 0);
	must_be(hp_value_export(heap, hp_heap_root(heap), (void **)&list, &bytes), 0);
	must_be(bytes, DEEP * sizeof *list);
	uint64_t id = 0;
	for (struct list *at = list; at; at = at->next.priv) must(at->id == id++);
	must_be(id, DEEP);
	free(list);
	heap_end(heap);
	heap = heap_with(0, NULL, NULL);
	import_root(heap, &item_type, deep->tree, 0);
	struct item *tree = export_root(heap, &bytes);
	must_be(bytes, DEEP * sizeof *tree);
	for (struct item *a = tree, *b = deep->tree; b; a = a->b.priv, b = b->b.priv) {
		must(a->id == b->id && !a->a.priv == !b->a.priv);
		if (b->a.priv) must(a->a.priv->id == b->a.priv->id);
	}
	free(tree);
	heap_end(heap);
	return NULL;
}

static void deep_graphs_on_a_small_stack(void **unused)
{
	(void)unused;
	struct deep deep = {malloc(DEEP * sizeof *deep.list), malloc(DEEP * sizeof *deep.tree)};
	must(deep.list && deep.tree);
	for (unsigned i = 0; i < DEEP; i++) {
		deep.list[i] = (struct list){.id = i, .next.priv = i + 1 < DEEP ? &deep.list[i + 1] : NULL};
		/* a comb: each has a tooth, and leads to the next that has */
		deep.tree[i] = (struct item){.id = i};
		if (i % 2 == 0) {
			deep.tree[i].a.priv = &deep.tree[i + 1];
			deep.tree[i].b.priv = i + 2 < DEEP ? &deep.tree[i + 2] : NULL;
		}
	}
	pthread_attr_t attr;
	pthread_t thread;
	must_be(pthread_attr_init(&attr), 0);
	must_be(pthread_attr_setstacksize(&attr, HP_TEST_SANITIZER ? 512 << 10 : 32 << 10), 0);
	must_be(pthread_create(&thread, &attr, deep_run, &deep), 0);
	must_be(pthread_join(thread, NULL), 0);
	pthread_attr_destroy(&attr);
	free(deep.list);
	free(deep.tree);
}

/* T29: what has the same name elsewhere, and looks otherwise. */
static void types_that_disagree(void **unused)
{
	(void)unused;
	struct hp_type other = item_type;
	struct hp_member moved[3] = {item_type.member[0], item_type.member[1], item_type.member[2]};
	struct item item = {.id = 1};
	struct bunch *bunch = blank(8, sizeof *bunch + 2 * sizeof(struct element));
	bunch->n = 2;
	bunch->e[0].item.priv = &item;
	hp_heap *heap = heap_with(0, &item_type, &item), *none;
	hp_ref root = hp_heap_root(heap);
	for (unsigned k = 0; k < 4; k++) {
		struct hp_member member = {0, &other};
		struct hp_type wrap = {.name = "wrap", .size = 8, .align = 8, .members = 1, .member = &member};
		struct item *in = &item;
		other = item_type;
		memcpy(moved, item_type.member, sizeof moved);
		other.member = moved;
		if (k == 0) other.size += 8;
		if (k == 1) other.align = 64;
		if (k == 2) moved[2].offset = 0;
		if (k == 3) moved[2].type = &item_type;
		hp_tx *tx = begin(heap);
		must(!hp_heap_new(tx, &other, 0).word);
		must_be(hp_heap_error(tx), -EPROTO);
		must_be(hp_heap_commit(tx), -EPROTO);
		must_be(import_error(heap, &other, &item, 0), -EPROTO);
		must_be(import_error(heap, &wrap, &in, 0), -EPROTO); /* met on the way */
		must(!hp_heap_deref_checked(heap, root, &other, NULL));
		/* both in one graph, and no heap that says which is right */
		struct hp_member both[2] = {{0, &other}, {8, &item_type}};
		struct hp_type pair = {.name = "pair", .size = 16, .align = 8, .members = 2, .member = both};
		struct item second = item, *two[2] = {&item, &second};
		must_be(hp_value_need(&pair, two), -EPROTO);
		must_be(hp_heap_create(pool, NULL, &pair, two, &none), -EPROTO);
		must_be_same(&item_type, NULL, word_of(&item), heap, root.word);
	}
	/* an equal one is the same */
	other = item_type;
	must(hp_heap_deref_checked(heap, root, &other, NULL));
	must_be(import_error(heap, &other, &item, 0), 0);
	/* what is not what the member says */
	struct line wrong = {.bunch.ref = hp_heap_root(heap)};
	must_be(import_error(heap, &line_type, &wrong, HP_VALUE_SHARE), -EPROTO);
	must_be(import_error(heap, &line_type, &wrong, 0), -EPROTO);
	wrong = (struct line){.bunch.priv = (struct bunch *)bunch, .item.priv = (struct item *)(void *)bunch};
	must_be(import_error(heap, &line_type, &wrong, 0), -EPROTO);
	must_be(hp_value_need(&line_type, &wrong), -EPROTO);
	heap_end(heap);
	free(bunch);
}

/* T26, T27 */
static void forbidden_values(void **unused)
{
	(void)unused;
	struct list list = {.id = 1}, private = {.id = 2};
	hp_heap *heap = heap_with(0, &list_type, &list), *other = heap_with(0, &list_type, &list);
	hp_ref root = hp_heap_root(heap), foreign = hp_heap_root(other), gone, inside = {root.word + 8};
	struct list *place = hp_heap_deref(heap, root);
	hp_tx *tx = begin(heap);
	gone = hp_heap_new(tx, &list_type, 0);
	must(gone.word);
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_gc(heap, HP_GC_WAIT, 1000), 0);
	hp_ref bad[] = {foreign, gone, inside, {(uintptr_t) & private}, {root.word & UINT64_C(0xffff) << 48}};
	const int set_error[] = {-EXDEV, -ESTALE, -ESTALE, -EINVAL, -ESTALE};
	for (unsigned k = 0; k < sizeof bad / sizeof *bad; k++) {
		struct list wrap = {.id = 9, .next.ref = bad[k]};
		struct any any = {.value.ref = bad[k]};
		tx = begin(heap);
		must_be(hp_heap_set(tx, &place->next.ref, bad[k]), set_error[k]);
		must_be(hp_heap_set(tx, &place->next.ref, HP_NONE), set_error[k]); /* kept */
		must_be(hp_heap_commit(tx), set_error[k]);
		must(!place->next.ref.word);
		tx = begin(heap);
		must_be(hp_heap_set_root(tx, bad[k]), set_error[k]);
		hp_heap_abort(tx);
		must(hp_heap_root(heap).word == root.word);
		void *copy;
		must_be(hp_value_export(heap, bad[k], &copy, NULL), set_error[k]);
		must_be(hp_value_capacity(heap, bad[k]), 0);
		for (unsigned flags = 0; flags < 2; flags++) {
			must_be(import_error(heap, &any_type, &any, flags), set_error[k]);
			if (bad[k].word >> 63) must_be(import_error(heap, &list_type, &wrap, flags), set_error[k]);
		}
	}
	must_be(import_error(heap, &list_type, NULL, 0), -EINVAL);
	must_be(import_error(heap, NULL, &list, 0), -EINVAL);
	must_be(import_error(heap, &hp_any, &list, 0), -EINVAL);
	must_be(import_error(heap, &list_type, &list, 2), -EINVAL);
	must(hp_heap_root(heap).word == root.word);
	/* what somebody wrote there by himself */
	void *copy;
	place->next.ref = foreign;
	must_be(hp_value_export(heap, root, &copy, NULL), -EXDEV);
	place->next.priv = &private;
	must_be(hp_value_export(heap, root, &copy, NULL), -EINVAL);
	place->next.ref = gone;
	must_be(hp_value_export(heap, root, &copy, NULL), -ESTALE);
	must_be(hp_value_export(heap, HP_NONE, &copy, NULL), -EINVAL);
	place->next.ref = HP_NONE;
	heap_end(other);
	other = heap_with(0, &list_type, &list); /* in the place of the one that was ended */
	must_be(hp_value_export(other, foreign, &copy, NULL), -EXDEV);
	heap_end(other);
	heap_end(heap);
}

/* T3: the same values at two addresses. */
static void two_mappings(void **unused)
{
	(void)unused;
	hp_pool *again = hp_attach_again(pool);
	hp_heap *heap[2] = {heap_with(0, NULL, NULL), NULL};
	must_be(hp_heap_open(again, hp_heap_id(heap[0]), &heap[1]), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct graph *g = graph_make(1 + (unsigned)hp_below(&state, 30));
		hp_heap *here = heap[round % 2], *there = heap[(round + 1) % 2];
		hp_ref ref = import_root(here, &bunch_type, g->root, 0);
		must(hp_heap_root(there).word == ref.word);
		must(hp_heap_deref(here, ref) != hp_heap_deref(there, ref));
		must_be_same(&bunch_type, NULL, word_of(g->root), there, ref.word);
		struct bunch *copy;
		must_be(hp_value_export(there, ref, (void **)&copy, NULL), 0);
		must_be_same(&bunch_type, here, ref.word, NULL, word_of(copy));
		free(copy);
		if (g->root->n) { /* the other one changes a member, and takes it back */
			hp_tx *tx = begin(there);
			struct bunch *root = hp_heap_deref(there, ref);
			must_be(hp_heap_set(tx, &root->e[0].bunch.ref, hp_value_import(tx, &bunch_type, g->root, 0)), 0);
			must(((struct bunch *)hp_heap_deref(here, ref))->e[0].bunch.ref.word == root->e[0].bunch.ref.word);
			if (round % 4 == 0) must_be(hp_heap_gc(here, 0, 0), -ETIMEDOUT);
			hp_heap_abort(tx);
		}
		must_be(hp_heap_gc(there, HP_GC_WAIT, 1000), 0);
		must_be_same(&bunch_type, NULL, word_of(g->root), here, ref.word);
		graph_free(g);
	}
	must_be(hp_heap_close(heap[1]), 0);
	heap_end(heap[0]);
	must_be(hp_pool_detach(again), 0);
}

/* ---- failures ---- */

static _Thread_local unsigned allocations, victim; /* victim: the one that fails; 0: none is counted */

static _Thread_local uint32_t *changing; /* a count that becomes another one at each allocation */

static bool fails(void)
{
	if (changing) *changing = *changing == 1 ? 6 : 1;
	return victim && ++allocations == victim;
}

static bool kernel_fails(enum os_call call, int64_t *result)
{
	if (call != OS_MAP || !fails()) return false;
	*result = -ENOMEM;
	return true;
}

#if !HP_TEST_SANITIZER
extern void *__libc_malloc(size_t bytes), *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_realloc(void *old, size_t bytes), *__libc_memalign(size_t align, size_t bytes);
void *malloc(size_t bytes)
{
	return fails() ? NULL : __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes)
{
	return fails() ? NULL : __libc_calloc(n, bytes);
}
void *realloc(void *old, size_t bytes)
{
	return fails() ? NULL : __libc_realloc(old, bytes);
}
int posix_memalign(void **out, size_t align, size_t bytes)
{
	void *memory = fails() ? NULL : __libc_memalign(align, bytes);
	if (memory) *out = memory;
	return memory ? 0 : ENOMEM;
}
#endif

struct shadow {
	struct graph *g;
	hp_heap *heap;
	hp_ref root;
	struct hp_heap_stat stat;
};

static struct shadow shadow_of(hp_heap *heap, struct graph *g)
{
	struct shadow shadow = {.g = g, .heap = heap, .root = hp_heap_root(heap)};
	must_be(hp_heap_gc(heap, HP_GC_WAIT, 1000), 0);
	must_be(hp_heap_stat(heap, &shadow.stat), 0);
	return shadow;
}

static void must_be_unchanged(const struct shadow *s)
{
	struct hp_heap_stat stat;
	must(hp_heap_root(s->heap).word == s->root.word);
	must_be_same(&bunch_type, NULL, word_of(s->g->root), s->heap, s->root.word);
	must_be(hp_heap_gc(s->heap, HP_GC_WAIT, 1000), 0);
	must_be(hp_heap_stat(s->heap, &stat), 0);
	must_be(stat.values, s->stat.values);
	must_be(stat.live, s->stat.live);
	must_be(stat.writer_pid, 0);
	must(!stat.pending);
	must_be_same(&bunch_type, NULL, word_of(s->g->root), s->heap, s->root.word);
	hp_must_be_sound(pool);
}

/* T18 */
static void every_allocation_fails_in_turn(void **unused)
{
	(void)unused;
	if (HP_TEST_SANITIZER) hp_test_skip_one("sanitizers have an allocator of their own");
	struct graph *g = graph_make(20), *more = graph_make(60);
	unsigned failed[5] = {0};
	for (unsigned what = 0; what < 5; what++) {
		bool done = false;
		hp_heap *heap = heap_with(0, &bunch_type, g->root), *fresh = NULL;
		struct shadow shadow = shadow_of(heap, g);
		for (unsigned k = 1; !done; k++) {
			int64_t result = 0;
			void *copy = NULL;
			if (what == 0) { /* with a handle that knows no types yet */
				must_be(hp_heap_open(pool, hp_heap_id(heap), &fresh), 0);
				hp_tx *tx = begin(fresh);
				allocations = 0;
				os_hook = kernel_fails;
				victim = k;
				hp_ref ref = hp_value_import(tx, &bunch_type, more->root, 0);
				victim = 0;
				os_hook = NULL;
				must(!ref.word == (hp_heap_error(tx) < 0));
				must_be(hp_heap_set_root(tx, ref), hp_heap_error(tx));
				result = hp_heap_error(tx);
				if (ref.word) must_be_same(&bunch_type, NULL, word_of(more->root), fresh, ref.word);
				if (result < 0)
					must_be(hp_heap_commit(tx), result);
				else
					hp_heap_abort(tx);
				must_be(hp_heap_close(fresh), 0);
			} else {
				if (what == 4) must_be(hp_heap_open(pool, hp_heap_id(heap), &fresh), 0);
				allocations = 0;
				os_hook = kernel_fails;
				victim = k;
				if (what == 1) result = hp_value_export(heap, shadow.root, &copy, NULL);
				if (what == 2) result = hp_value_need(&bunch_type, more->root);
				if (what == 4) result = hp_heap_gc(fresh, HP_GC_WAIT, 1000);
				if (what == 3) result = hp_heap_create(pool, NULL, &bunch_type, more->root, &fresh);
				victim = 0;
				os_hook = NULL;
				if (what == 1 && result == 0) must_be_same(&bunch_type, NULL, word_of(g->root), NULL, word_of(copy));
				must(!copy == (what != 1 || result < 0));
				free(copy);
				if (what == 4) must_be(hp_heap_close(fresh), 0);
				if (what == 3 && result == 0) {
					must_be_same(&bunch_type, NULL, word_of(more->root), fresh, hp_heap_root(fresh).word);
					heap_end(fresh);
				}
			}
			done = allocations < k;
			failed[what] += result < 0;
			must(result >= 0 || (result == -ENOMEM && !done));
			if (k % 8 == 0 || what == 4 || done) must_be_unchanged(&shadow);
		}
		must_be_unchanged(&shadow);
		heap_end(heap);
	}
	for (unsigned what = 0; what < 5; what++) must(failed[what] > 0); /* how often, the graph decides */
	graph_free(g);
	graph_free(more);
}

/* A writer who cannot learn of all types, for want of memory, links garbage that waits: all of it must come back to life. */
static void memory_is_short_while_garbage_waits(void **unused)
{
	(void)unused;
	if (HP_TEST_SANITIZER) hp_test_skip_one("sanitizers have an allocator of their own");
	hp_pool *again = hp_attach_again(pool);
	struct graph *g = graph_make(20);
	hp_heap *heap = heap_with(0, NULL, NULL), *fresh;
	bool done = false;
	for (unsigned k = 1; !done; k++) {
		hp_ref old = import_root(heap, &bunch_type, g->root, 0);
		must_be(hp_heap_read_enter(again), 0); /* keeps it waiting, and readable */
		hp_tx *tx = begin(heap);
		must_be(hp_heap_set_root(tx, HP_NONE), 0);
		must_be(hp_heap_commit(tx), 0);
		must_be(hp_heap_gc(heap, 0, 1000), -EAGAIN);
		must_be(hp_heap_open(pool, hp_heap_id(heap), &fresh), 0);
		allocations = 0;
		victim = k;
		int error = hp_heap_begin(fresh, 1000, &tx);
		if (error == 0) {
			hp_heap_set_root(tx, old);
			error = hp_heap_commit(tx);
		}
		victim = 0;
		done = allocations < k;
		must(error == 0 || (error == -ENOMEM && !done));
		hp_heap_read_exit(again);
		must_be(hp_heap_close(fresh), 0);
		must_be(hp_heap_gc(heap, HP_GC_WAIT, 1000), 0);
		if (error == 0) must_be_same(&bunch_type, NULL, word_of(g->root), heap, old.word);
		must(k < 1000);
	}
	graph_free(g);
	heap_end(heap);
	must_be(hp_pool_detach(again), 0);
}

/* T18: pages, which a limit, or others, have taken. */
static void pages_run_out(void **unused)
{
	(void)unused;
	struct graph *g = graph_make(10), *more;
	int64_t first = hp_value_need(&bunch_type, g->root);
	must(first > 0);
	hp_heap *roomy = heap_with(0, &bunch_type, g->root);
	struct hp_heap_stat stat;
	must_be(hp_heap_stat(roomy, &stat), 0);
	heap_end(roomy);
	for (unsigned n = 50;; n = n < MOST / 2 ? 2 * n : MOST) { /* one that does not fit beside it without more pages */
		more = graph_make(n);
		int64_t need = hp_value_need(&bunch_type, more->root);
		if (need > first && need > (int64_t)stat.held) break;
		graph_free(more);
	}
	unsigned failed = 0;
	for (uint64_t pages = 0;; pages += 1 + pages / 16) {
		hp_heap *heap = heap_with((uint64_t)first + pages * PAGE, &bunch_type, g->root);
		struct shadow shadow = shadow_of(heap, g);
		int result = import_error(heap, &bunch_type, more->root, 0);
		if (result == 0) {
			must_be_same(&bunch_type, NULL, word_of(more->root), heap, hp_heap_root(heap).word);
			heap_end(heap);
			break;
		}
		must_be(result, -ENOMEM);
		must_be_unchanged(&shadow);
		failed++;
		heap_end(heap);
	}
	must(failed);
	/* the same without a limit, in a pool that is full but for some pages */
	hp_heap *heap = heap_with(0, &bunch_type, g->root);
	struct shadow shadow = shadow_of(heap, g);
	size_t most = POOL / PAGE, n = 0;
	void **block = malloc(most * sizeof *block);
	must(block);
	while (hp_page_alloc(pool, PAGE, 0, &block[n]) == 0) n++;
	int result;
	for (failed = 0; (result = import_error(heap, &bunch_type, more->root, 0)) < 0; failed++) {
		must_be(result, -ENOMEM);
		must_be_unchanged(&shadow);
		for (unsigned i = 0; i < 8 && n; i++) must_be(hp_page_free(pool, block[--n]), 0);
	}
	must(failed);
	must_be_same(&bunch_type, NULL, word_of(more->root), heap, hp_heap_root(heap).word);
	while (n) must_be(hp_page_free(pool, block[--n]), 0);
	free(block);
	heap_end(heap);
	graph_free(g);
	graph_free(more);
}

/* ---- others at work ---- */

/* What is born while garbage waits for a reader leads to what was found to be garbage meanwhile. */
static void importing_while_garbage_waits(void **unused)
{
	(void)unused;
	hp_pool *again = hp_attach_again(pool); /* whose section keeps it waiting */
	hp_heap *heap = heap_with(0, NULL, NULL);
	for (unsigned share = 0; share < 2; share++) {
		struct graph *g = graph_make(20);
		hp_ref old = import_root(heap, &bunch_type, g->root, 0);
		hp_tx *tx = begin(heap);
		must_be(hp_heap_read_enter(again), 0);
		must_be(hp_heap_set_root(tx, HP_NONE), 0);
		must_be(hp_heap_commit(tx), 0);
		must_be(hp_heap_gc(heap, 0, 1000), -EAGAIN);
		struct line line = {.bunch.ref = old};
		hp_ref new = import_root(heap, &line_type, &line, share ? HP_VALUE_SHARE : 0);
		hp_heap_read_exit(again);
		must_be(hp_heap_gc(heap, HP_GC_WAIT, 1000), 0);
		struct line *made = hp_heap_deref_checked(heap, new, &line_type, NULL);
		must(made && (made->bunch.ref.word == old.word) == share);
		must_be_same(&bunch_type, NULL, word_of(g->root), heap, made->bunch.ref.word);
		graph_free(g);
	}
	heap_end(heap);
	must_be(hp_pool_detach(again), 0);
}

#if HP_TRAP
static struct {
	hp_tx *tx;
	struct line line;
	struct item item[2];
	const char *page; /* of the slab that the line goes to */
	hp_ref made;
} stepped;

/* After each instruction. */
static void no_private_pointer(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)info, (void)context;
	steps++;
	for (uint64_t off = 0; off < PAGE; off += 8) {
		uint64_t word = word_at(stepped.page + off);
		must(word < (uintptr_t)&stepped || word >= (uintptr_t)(&stepped + 1));
	}
}
#endif

/* At no instruction is a private pointer in a heap, where a death would leave it. */
static void private_pointers_stay_outside(void **unused)
{
	(void)unused;
#if HP_TRAP
	struct sigaction act = {.sa_sigaction = no_private_pointer, .sa_flags = SA_SIGINFO}, old;
	must_be(sigaction(SIGTRAP, &act, &old), 0);
	stepped.line = (struct line){.id = 1, .item.priv = &stepped.item[0]};
	stepped.item[0].a.priv = stepped.item[0].b.priv = &stepped.item[1];
	hp_heap *heap = heap_with(0, &line_type, &stepped.line);
	stepped.page = (const char *)((uintptr_t)hp_heap_deref(heap, hp_heap_root(heap)) & ~(PAGE - 1));
	stepped.tx = begin(heap);
	steps = 0;
	TRAP_FLAG("orq $0x100, (%%rsp)");
	stepped.made = hp_value_import(stepped.tx, &line_type, &stepped.line, 0);
	TRAP_FLAG("andq $~0x100, (%%rsp)");
	must(steps > 100);
	must(((uintptr_t)hp_heap_deref(heap, stepped.made) & ~(PAGE - 1)) == (uintptr_t)stepped.page);
	hp_heap_abort(stepped.tx);
	must_be(sigaction(SIGTRAP, &old, NULL), 0);
	heap_end(heap);
#else
	hp_test_skip_one("no single steps");
#endif
}

/* A count changes between two looks at it; the copy has as many elements as it says. */
static void exporting_while_the_count_changes(void **unused)
{
	(void)unused;
	if (HP_TEST_SANITIZER) hp_test_skip_one("sanitizers have an allocator of their own");
	struct item item = {.id = 3};
	struct bunch *bunch = blank(8, sizeof *bunch + 6 * sizeof(struct element)), *copy;
	bunch->n = 6;
	for (uint32_t e = 0; e < 6; e++) bunch->e[e].item.priv = &item;
	hp_heap *heap = heap_with(0, &bunch_type, bunch);
	struct bunch *place = hp_heap_deref(heap, hp_heap_root(heap));
	struct any wrap = {.value.ref = hp_heap_root(heap)};
	for (unsigned k = 0; k < 2; k++) {
		for (uint32_t n = 1; n <= 6; n += 5) {
			size_t bytes;
			hp_tx *tx = begin(heap);
			hp_ref ref = HP_NONE;
			place->n = n;
			changing = &place->n;
			int error = k ? hp_value_export(heap, hp_heap_root(heap), (void **)&copy, &bytes) : 0;
			if (!k) ref = hp_value_import(tx, &any_type, &wrap, 0);
			changing = NULL;
			must_be(error, 0);
			if (!k)
				must_be(
					hp_value_export(heap, ((struct any *)hp_heap_deref(heap, ref))->value.ref, (void **)&copy, &bytes),
					0);
			must_be(bytes, sizeof *bunch + copy->n * sizeof *bunch->e + sizeof item);
			for (uint32_t e = 0; e < copy->n; e++) must(copy->e[e].item.priv->id == 3);
			free(copy);
			hp_heap_abort(tx);
		}
	}
	heap_end(heap);
	free(bunch);
}

struct busy {
	hp_heap *heap;
	_Atomic bool stop;
	_Atomic unsigned changes;
};

/* Members change; what is below a member is never changed again. */
static void *change(void *arg)
{
	struct busy *busy = arg;
	uint64_t random = 1;
	while (!atomic_load(&busy->stop)) {
		hp_tx *tx = begin(busy->heap);
		struct bunch *root = hp_heap_deref(busy->heap, hp_heap_root(busy->heap));
		uint64_t id = hp_random(&random) >> 40;
		char name[32];
		struct item below = {.id = id + 1}, item = {.id = id, .a.priv = &below, .b.priv = &below};
		struct hp_string *string = blank(8, sizeof *string + sizeof name);
		string->len = (uint32_t)snprintf(name, sizeof name, "%llu", (unsigned long long)id);
		memcpy(string->s, name, string->len);
		item.name.priv = string;
		hp_ref ref = hp_value_import(tx, &item_type, &item, 0);
		must_be(hp_heap_set(tx, &root->e[hp_below(&random, 4)].item.ref, ref), 0);
		__atomic_store_n(&root->n, (uint32_t)hp_below(&random, 21), __ATOMIC_RELAXED);
		if (id % 3)
			must_be(hp_heap_commit(tx), 0);
		else
			hp_heap_abort(tx);
		if (id % 16 == 0) (void)hp_heap_gc(busy->heap, 0, 1000);
		free(string);
		atomic_fetch_add(&busy->changes, 1);
	}
	return NULL;
}

static void exporting_what_others_change(void **unused)
{
	(void)unused;
	struct bunch *bunch = blank(8, sizeof *bunch + 20 * sizeof(struct element));
	bunch->n = 20;
	struct busy busy = {.heap = heap_with(0, &bunch_type, bunch)};
	hp_ref root = hp_heap_root(busy.heap);
	uint32_t room = hp_value_capacity(busy.heap, root);
	pthread_t thread;
	must_be(room, 20);
	must_be(pthread_create(&thread, NULL, change, &busy), 0);
	for (unsigned k = 0; k < 5000 / (HP_TEST_SANITIZER ? 10 : 1) || atomic_load(&busy.changes) < 200; k++) {
		struct bunch *copy;
		must_be(hp_value_export(busy.heap, root, (void **)&copy, NULL), 0);
		must(copy->n <= room);
		for (uint32_t e = 0; e < copy->n; e++) {
			struct item *item = copy->e[e].item.priv;
			if (!item) continue;
			must(item->a.priv->id == item->id + 1 && item->a.priv == item->b.priv);
			must(strtoull(item->name.priv->s, NULL, 10) == item->id);
		}
		free(copy);
	}
	atomic_store(&busy.stop, true);
	must_be(pthread_join(thread, NULL), 0);
	heap_end(busy.heap);
	free(bunch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(graphs_go_in_and_out_as_they_are),
		cmocka_unit_test(a_ring_and_a_self_loop),
		cmocka_unit_test(mixed_graphs_share_or_copy_what_is_there),
		cmocka_unit_test(what_is_not_said_may_only_be_there_already),
		cmocka_unit_test(need_is_exact),
		cmocka_unit_test(need_is_exact_for_all_sizes),
		cmocka_unit_test(arrays_of_all_lengths),
		cmocka_unit_test(classes_and_what_is_a_byte_off),
		cmocka_unit_test(aligned_structs),
		cmocka_unit_test(counts_at_capacity),
		cmocka_unit_test(deep_graphs_on_a_small_stack),
		cmocka_unit_test(types_that_disagree),
		cmocka_unit_test(forbidden_values),
		cmocka_unit_test(two_mappings),
		cmocka_unit_test(every_allocation_fails_in_turn),
		cmocka_unit_test(memory_is_short_while_garbage_waits),
		cmocka_unit_test(pages_run_out),
		cmocka_unit_test(importing_while_garbage_waits),
		cmocka_unit_test(private_pointers_stay_outside),
		cmocka_unit_test(exporting_while_the_count_changes),
		cmocka_unit_test(exporting_what_others_change),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
