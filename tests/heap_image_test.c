/* Images: exact sizes, sharing and cycles kept, the same bytes at any address, readable in place by another process at another
 * address; and nothing from outside that is cut off, overwritten or made to mislead is believed. The mutations are of use under
 * the address sanitizer: what verifies is then walked whole, copied and written anew. */
#include "hp_image.h"
#include "hp_process.h"

#include <pthread.h>

#define LIMIT 128u /* nodes of a graph, at most */

/* ---- random graphs, in blocks of exactly their size ---- */

struct graph {
	struct node *node[LIMIT];
	void *other[4 * LIMIT];
	unsigned nodes, others;
};

static void *part(struct graph *g, size_t bytes, size_t align)
{
	void *memory;
	must_be(posix_memalign(&memory, align < 16 ? 16 : align, bytes), 0);
	memset(memory, 0, bytes);
	must(g->others < 4 * LIMIT);
	return g->other[g->others++] = memory;
}

static struct hp_string *new_string(struct graph *g, uint64_t *seed)
{
	uint32_t len = (uint32_t)hp_below(seed, 40);
	struct hp_string *s = part(g, sizeof *s + len + 1, 1);
	s->len = len;
	for (uint32_t i = 0; i < len; i++) s->s[i] = (char)('a' + hp_below(seed, 26));
	return s;
}

static struct hp_bytes *new_bytes(struct graph *g, uint64_t *seed)
{
	uint32_t len = (uint32_t)hp_below(seed, 20);
	struct hp_bytes *b = part(g, sizeof *b + len, 1);
	b->len = len;
	for (uint32_t i = 0; i < len; i++) b->data[i] = (unsigned char)hp_random(seed);
	return b;
}

static struct node *any_node(struct graph *g, uint64_t *seed)
{
	return hp_below(seed, 5) ? g->node[hp_below(seed, g->nodes)] : NULL;
}

static struct bag *new_bag(struct graph *g, uint64_t *seed)
{
	uint32_t len = (uint32_t)hp_below(seed, 5);
	struct bag *bag = part(g, sizeof *bag + len * sizeof *bag->item, 8);
	bag->len = len;
	bag->seed = (uint32_t)hp_random(seed);
	for (uint32_t i = 0; i < len; i++) {
		bag->item[i].weight = hp_random(seed);
		bag->item[i].node.priv = any_node(g, seed);
		if (hp_below(seed, 2)) bag->item[i].bytes.priv = new_bytes(g, seed);
	}
	return bag;
}

static struct wide *new_wide(struct graph *g, uint64_t *seed)
{
	struct wide *wide = part(g, sizeof *wide, 64);
	for (int i = 0; i < 5; i++) wide->x[i] = hp_random(seed);
	wide->back.priv = any_node(g, seed);
	return wide;
}

static struct hp_doubles *new_doubles(struct graph *g, uint64_t *seed)
{
	uint32_t len = (uint32_t)hp_below(seed, 6);
	struct hp_doubles *d = part(g, sizeof *d + len * sizeof(double), 8);
	d->len = len;
	for (uint32_t i = 0; i < len; i++) d->item[i] = (double)hp_below(seed, 1000) / 7;
	return d;
}

/* What a node refers to is sometimes what the one before it refers to. */
static void new_parts(struct graph *g, unsigned i, bool wides, uint64_t *seed)
{
	struct node *n = g->node[i], *before = i && hp_below(seed, 3) == 0 ? g->node[i - 1] : NULL;
	n->id = hp_random(seed);
	n->left.priv = any_node(g, seed);
	n->right.priv = any_node(g, seed);
	if (before) {
		n->name = before->name;
		n->bag = before->bag;
		n->numbers = before->numbers;
		n->wide = before->wide;
		return;
	}
	if (g->others + 10 > 4 * LIMIT) return;
	if (hp_below(seed, 2)) n->name.priv = new_string(g, seed);
	if (hp_below(seed, 3) == 0) n->bag.priv = new_bag(g, seed);
	if (hp_below(seed, 3) == 0) n->numbers.priv = new_doubles(g, seed);
	if (wides && hp_below(seed, 4) == 0) n->wide.priv = new_wide(g, seed);
}

static void graph_make(struct graph *g, unsigned nodes, bool wides, uint64_t *seed)
{
	*g = (struct graph){.nodes = nodes};
	for (unsigned i = 0; i < nodes; i++) {
		g->node[i] = calloc(1, sizeof *g->node[i]);
		must(g->node[i]);
	}
	for (unsigned i = 0; i < nodes; i++) new_parts(g, i, wides, seed);
}

static void graph_free(struct graph *g)
{
	for (unsigned i = 0; i < g->nodes; i++) free(g->node[i]);
	for (unsigned i = 0; i < g->others; i++) free(g->other[i]);
}

/* ---- is the image that graph? ---- */

struct pair {
	const char *private, *image;
	const struct hp_type *type;
};

struct compare {
	const struct hp_image *image;
	struct pair pair[8 * LIMIT];
	unsigned pairs;
};

static void compare_ref(struct compare *c, const char *private, const char *image, const struct hp_type *type)
{
	const char *p = *(void *const *)(const void *)private;
	hp_ref ref = *(const hp_ref *)(const void *)image;
	must(!p == !ref.word);
	if (!p) return;
	const char *i = hp_image_deref(c->image, ref);
	/* each to one and only one */
	for (unsigned k = 0; k < c->pairs; k++) {
		must((c->pair[k].private == p) == (c->pair[k].image == i));
		if (c->pair[k].private == p) return;
	}
	must(c->pairs < 8 * LIMIT);
	c->pair[c->pairs++] = (struct pair){p, i, type};
}

static bool is_ref(const struct hp_member *m, uint32_t members, uint32_t at)
{
	for (uint32_t k = 0; k < members; k++)
		if (at >= m[k].offset && at < m[k].offset + 8) return true;
	return false;
}

static void compare_part(struct compare *c, struct pair p, uint64_t base, uint32_t bytes, const struct hp_member *m,
                         uint32_t members)
{
	for (uint32_t at = 0; at < bytes; at++)
		if (!is_ref(m, members, at)) must_be(p.private[base + at], p.image[base + at]);
	for (uint32_t k = 0; k < members; k++)
		compare_ref(c, p.private + base + m[k].offset, p.image + base + m[k].offset, m[k].type);
}

/* How many values: all that can be reached. */
static unsigned must_be_graph(const struct hp_image *image, const struct hp_type *type, const void *value)
{
	struct compare c = {.image = image, .pair = {{value, hp_image_root(image), type}}, .pairs = 1};
	for (unsigned k = 0; k < c.pairs; k++) {
		const struct hp_type *t = c.pair[k].type;
		uint32_t n = 0;
		if (t->element) memcpy(&n, c.pair[k].private + t->count, sizeof n);
		compare_part(&c, c.pair[k], 0, t->element ? t->tail : t->size, t->member, t->members);
		for (uint32_t e = 0; e < n; e++)
			compare_part(&c, c.pair[k], t->tail + (uint64_t)e * t->element, t->element, t->tail_member,
			             t->tail_members);
	}
	return c.pairs;
}

static struct hp_image *image_of(const struct hp_type *type, const void *value, size_t *bytes)
{
	int64_t need = hp_image_need(NULL, type, value);
	void *memory;
	must(need > 0);
	must_be(posix_memalign(&memory, 64, (size_t)need), 0);
	memset(memory, 0xa5, (size_t)need);
	must_be(hp_image_write(memory, (size_t)need, NULL, type, value), need);
	*bytes = (size_t)need;
	return memory;
}

/* ---- the tests ---- */

static void sizes_are_exact_and_graphs_survive(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("graphs");
	for (int round = 0; round < (HP_TEST_SANITIZER ? 200 : 1000); round++) {
		struct graph g;
		size_t bytes, size, again, values;
		void *value;
		graph_make(&g, 1 + (unsigned)hp_below(&seed, round % 10 ? 20 : LIMIT), round % 2, &seed);
		struct hp_image *image = image_of(&node_type, g.node[0], &bytes);
		assert_int_equal(image->bytes, bytes);
		assert_int_equal(hp_image_verify(image, bytes, &node_type), 0);
		unsigned count = must_be_graph(image, &node_type, g.node[0]);
		assert_int_equal(image->values, count);
		assert_null(visit_all(image, &node_type, &values, NULL));
		assert_int_equal(values, count);

		/* back to a private graph, and from there the same bytes */
		assert_int_equal(hp_image_copy(image, bytes, &node_type, &value, &size), 0);
		assert_true(size < bytes);
		assert_int_equal(must_be_graph(image, &node_type, value), count);
		struct hp_image *twice = image_of(&node_type, value, &again);
		assert_int_equal(again, bytes);
		assert_memory_equal(image, twice, bytes);
		free(twice);
		free(value);
		free(image);
		graph_free(&g);
	}
}

/* What the header says of the layout, reckoned by hand. */
static void sizes_are_those_of_the_layout(void **state)
{
	(void)state;
	struct hp_string *s = calloc(1, sizeof *s + 100);
	struct node n = {.name.priv = s};
	char *early = calloc(1, offsetof(struct early, data) + 1);
	for (uint32_t len = 0; len < 99; len++) {
		memset(s->s, 'x', len);
		s->s[len] = 0;
		s->len = len;
		assert_int_equal(hp_image_need(NULL, &hp_string_type, s), 48 + (4 + len + 1 + 7) / 8 * 8);
		assert_int_equal(hp_image_size(&hp_string_type, len), 48 + (4 + len + 1 + 7) / 8 * 8);
		/* the types' greatest alignment is 64: of that the root's place is a multiple */
		assert_int_equal(hp_image_need(NULL, &node_type, &n), 64 + 56 + 8 + (4 + len + 1 + 7) / 8 * 8);
	}
	free(s);
	/* a block that ends before the struct does: only what its count tells is read */
	memcpy(early + offsetof(struct early, len), &(uint32_t){1}, 4);
	early[offsetof(struct early, data)] = 7;
	assert_int_equal(hp_image_need(NULL, &early_type, early), 48 + 16);
	size_t bytes;
	struct hp_image *image = image_of(&early_type, early, &bytes);
	assert_int_equal(((struct early *)hp_image_root(image))->data[0], 7);
	assert_int_equal(hp_image_verify(image, bytes, &early_type), 0);
	free(image);
	free(early);

	static const double numbers[3] = {1, 2, 3};
	assert_int_equal(hp_image_size(&hp_doubles_type, 3), 48 + 8 + sizeof numbers);
	assert_int_equal(hp_image_size(&hp_vector_type, 3), 48 + 8 + 3 * 8);
	assert_int_equal(hp_image_size(&node_type, 0), 64 + 56);
	assert_int_equal(hp_image_size(&node_type, 1), -EINVAL);
	assert_int_equal(hp_image_size(&hp_any, 0), -EINVAL);
	assert_int_equal(hp_image_size(&hp_string_type, UINT32_MAX), 48 + (UINT64_C(4) + (UINT64_C(1) << 32) + 7) / 8 * 8);
}

static void the_same_bytes_at_every_address(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("offsets");
	struct graph g;
	size_t bytes;
	graph_make(&g, 40, true, &seed);
	struct hp_image *image = image_of(&node_type, g.node[0], &bytes), *read;
	size_t room = bytes + 192;
	unsigned char *buffer;
	must_be(posix_memalign((void **)&buffer, 64, room), 0);
	for (size_t at = 0; at < 64; at++) {
		memset(buffer, 0xee, room);
		assert_int_equal(hp_image_write(buffer + at, bytes, NULL, &node_type, g.node[0]), bytes);
		assert_memory_equal(buffer + at, image, bytes);
		for (size_t i = 0; i < room; i++)
			if (i < at || i >= at + bytes) assert_int_equal(buffer[i], 0xee);
		assert_int_equal(hp_image_verify(buffer + at, bytes, &node_type), at ? -EINVAL : 0);
		assert_int_equal(hp_image_read(buffer + at, room - at, &node_type, &read), 0);
		assert_memory_equal(read, image, bytes);
		must_be_graph(read, &node_type, g.node[0]);
		free(read);
	}
	for (size_t less = 0; less < bytes; less++) {
		memset(buffer, 0xee, room);
		assert_int_equal(hp_image_write(buffer + 1, less, NULL, &node_type, g.node[0]), -ENOSPC);
		for (size_t i = less + 1; i < room; i++) assert_int_equal(buffer[i], 0xee);
		if (less >= sizeof *image) assert_int_equal(hp_image_read(buffer + 1, bytes, &node_type, &read), -EBADMSG);
	}
	/* nor is what stood there before taken for one, however little of it was written over */
	for (size_t less = sizeof *image; less < bytes; less++) {
		memcpy(buffer, image, bytes);
		assert_int_equal(hp_image_write(buffer, less, NULL, &node_type, g.node[0]), -ENOSPC);
		assert_int_equal(hp_image_verify(buffer, bytes, &node_type), -EBADMSG);
	}
	free(buffer);
	free(image);
	graph_free(&g);
}

struct message {
	int fd;
	size_t bytes;
	const void *written_at;
	uint64_t sum;
	size_t values;
};

static void reader(const struct child *me, void *arg)
{
	const struct message *m = arg;
	uint64_t sum;
	size_t values;
	(void)me;
	const struct hp_image *image = mmap(NULL, m->bytes, PROT_READ, MAP_SHARED, m->fd, 0);
	must(image != MAP_FAILED && (const void *)image != m->written_at);
	must_be(munmap((void *)m->written_at, m->bytes), 0); /* so that a pointer into it would fault */
	must_be(hp_image_verify(image, m->bytes, &node_type), 0);
	must(!visit_all(image, &node_type, &values, &sum));
	must_be(values, m->values);
	must(sum == m->sum);
	child_here(me);
}

static void another_process_reads_it_in_place_elsewhere(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("processes");
	struct graph g;
	struct message m;
	graph_make(&g, LIMIT, true, &seed);
	m.bytes = (size_t)hp_image_need(NULL, &node_type, g.node[0]);
	m.fd = memfd_create("image", MFD_CLOEXEC);
	must(m.fd >= 0 && ftruncate(m.fd, (off_t)m.bytes) == 0);
	void *memory = mmap(NULL, m.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
	must(memory != MAP_FAILED);
	m.written_at = memory;
	assert_int_equal(hp_image_write(memory, m.bytes, NULL, &node_type, g.node[0]), m.bytes);
	assert_null(visit_all(memory, &node_type, &m.values, &m.sum));
	struct child child = child_start(reader, &m);
	assert_true(child_hear(&child));
	child_finish(&child);
	munmap(memory, m.bytes);
	close(m.fd);
	graph_free(&g);
}

/* Every image that is shorter by some bytes, in a block of just that size. */
static void truncated_images_are_refused(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("truncation");
	struct graph g;
	size_t bytes;
	void *value;
	struct hp_image *read;
	graph_make(&g, 30, true, &seed);
	struct hp_image *image = image_of(&node_type, g.node[0], &bytes);
	for (size_t less = 0; less < bytes; less++) {
		void *cut;
		must_be(posix_memalign(&cut, 64, less ? less : 1), 0);
		memcpy(cut, image, less);
		assert_int_equal(hp_image_verify(cut, less, &node_type), -EBADMSG);
		assert_int_equal(hp_image_read(cut, less, &node_type, &read), -EBADMSG);
		assert_int_equal(hp_image_copy(cut, less, &node_type, &value, NULL), -EBADMSG);
		if (less >= sizeof *image && less % 8 == 0) { /* it says so itself, too */
			((struct hp_image *)cut)->bytes = less;
			assert_true(hp_image_verify(cut, less, &node_type) < 0);
		}
		free(cut);
	}
	free(image);
	graph_free(&g);
}

/* The image is whatever it says it is: then nothing that reads it may notice. */
static void must_be_harmless(const struct hp_image *image, size_t bytes, const struct hp_type *type)
{
	size_t values, size, again;
	void *value;
	struct hp_image *read;
	int error = hp_image_verify(image, bytes, type);
	must_be(hp_image_read(image, bytes, type, &read), error);
	if (error < 0) {
		must(error == -EBADMSG || error == -EPROTO);
		must(!read);
		return;
	}
	const char *bad = visit_all(image, type, &values, NULL);
	if (bad) fprintf(stderr, "%s\n", bad);
	must(!bad && values <= image->values);
	free(read);
	must_be(hp_image_copy(image, bytes, type, &value, &size), 0);
	struct hp_image *anew = image_of(type, value, &again);
	must_be(anew->values, values); /* in another order perhaps, so not always of the same size */
	free(anew);
	free(value);
}

static void mutate(unsigned char *image, size_t bytes, const unsigned char *other, uint64_t *seed)
{
	for (uint64_t n = 1 + hp_below(seed, hp_below(seed, 4) ? 1 : 6); n--;) {
		size_t at = hp_below(seed, bytes), word = at / 8 * 8, from = hp_below(seed, bytes / 8) * 8;
		switch (hp_below(seed, 7)) {
		case 0: image[at] = (unsigned char)hp_random(seed); break;
		case 1: image[at] ^= (unsigned char)(1u << hp_below(seed, 8)); break;
		case 2: memcpy(image + word, other + from, 8); break; /* a word from elsewhere in it */
		case 3: memset(image + word, 0, 8); break;
		case 4: memset(image + word, 0xff, 8); break;
		case 5: image[at]++; break;
		default: *(uint64_t *)(void *)(image + word) = HP_IMAGE_REF | hp_below(seed, bytes + 64) / 8 * 8;
		}
	}
}

static void mutated_images_are_refused_or_harmless(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("mutations");
	unsigned refused = 0, rounds = HP_TEST_SANITIZER ? 100000 : 200000, per_graph = 2000;
	for (unsigned round = 0; round < rounds; round += per_graph) {
		struct graph g;
		size_t bytes;
		graph_make(&g, 1 + (unsigned)hp_below(&seed, 12), round / per_graph % 2, &seed);
		struct hp_image *image = image_of(&node_type, g.node[0], &bytes), *mutant;
		must_be(posix_memalign((void **)&mutant, 64, bytes), 0);
		for (unsigned i = 0; i < per_graph; i++) {
			memcpy(mutant, image, bytes);
			mutate((unsigned char *)mutant, bytes, (const unsigned char *)image, &seed);
			must_be_harmless(mutant, bytes, &node_type);
			refused += hp_image_verify(mutant, bytes, &node_type) < 0;
			/* the checked call is safe without any verification */
			for (unsigned k = 0; k < 4; k++) {
				hp_ref ref = {HP_IMAGE_REF | hp_below(&seed, bytes + 64) / 8 * 8};
				struct bag *bag = hp_image_deref_checked(mutant, bytes, ref, &bag_type);
				for (uint32_t e = 0; bag && e < bag->len; e++) seed += bag->item[e].weight;
			}
		}
		free(mutant);
		free(image);
		graph_free(&g);
	}
	assert_true(refused > rounds / 4 && refused < rounds);
}

/* ---- one lie each ---- */

static struct hp_image *small(size_t *bytes)
{
	static struct hp_string *name;
	static struct bag *bag;
	if (!name) {
		name = calloc(1, sizeof *name + 8);
		bag = calloc(1, sizeof *bag + 2 * sizeof *bag->item);
		name->len = 3;
		memcpy(name->s, "abc", 4);
		bag->len = 2;
	}
	struct node n = {.id = 1, .name.priv = name, .bag.priv = bag};
	n.left.priv = &n;
	bag->item[1].node.priv = &n;
	return image_of(&node_type, &n, bytes);
}

#define LIE(expected, ...) \
	do { \
		size_t bytes; \
		struct hp_image *image = small(&bytes); \
		struct node *node = hp_image_root(image); \
		struct hp_string *name = hp_image_deref(image, node->name.ref); \
		struct bag *bag = hp_image_deref(image, node->bag.ref); \
		assert_int_equal(hp_image_verify(image, bytes, &node_type), 0); \
		(void)name, (void)bag; \
		__VA_ARGS__; \
		assert_int_equal(hp_image_verify(image, bytes, &node_type), expected); \
		free(image); \
	} while (0)

static void each_lie_is_found(void **state)
{
	(void)state;
	const uint64_t kind = 1; /* no type has that */
	LIE(0, node->id = ~UINT64_C(0));
	LIE(0, node->left.ref.word = 0);
	/* the header */
	LIE(-EBADMSG, image->magic++);
	LIE(-EBADMSG, image->bytes += 8);
	LIE(-EBADMSG, image->bytes -= 8);
	LIE(-EBADMSG, image->bytes -= 4);
	LIE(-EBADMSG, image->bytes = 0);
	LIE(-EBADMSG, image->bytes = ~UINT64_C(7));
	LIE(-EBADMSG, image->values++);
	LIE(-EBADMSG, image->values--);
	LIE(-EBADMSG, image->root += 8);
	LIE(-EBADMSG, image->root = ~UINT64_C(0));
	LIE(-EBADMSG, image->align = 0);
	LIE(-EBADMSG, image->align = 24);
	LIE(-EBADMSG, image->align = 1u << 31);
	LIE(-EBADMSG, image->align = 4);
	LIE(-EPROTO, image->align = 16; image->root = 48);
	LIE(-EBADMSG, image->reserved = 1);
	/* references */
	LIE(-EBADMSG, node->left.ref.word += 8); /* into a value */
	LIE(-EBADMSG, node->left.ref.word += 1);
	LIE(-EBADMSG, node->left.ref.word -= 8); /* what stands before it */
	LIE(-EBADMSG, node->left.ref.word = HP_IMAGE_REF);
	LIE(-EBADMSG, node->left.ref.word = HP_IMAGE_REF | bytes);
	LIE(-EBADMSG, node->left.ref.word = HP_IMAGE_REF | (bytes + 4096));
	LIE(-EBADMSG, node->left.ref.word = HP_IMAGE_REF | (HP_IMAGE_REF - 8));
	LIE(-EBADMSG, node->left.ref.word &= ~HP_IMAGE_REF);
	LIE(-EBADMSG, node->left.ref.word |= UINT64_C(1) << 63);
	LIE(-EBADMSG, node->left.priv = node);
	LIE(-EBADMSG, node->left.ref = node->bag.ref); /* of another type */
	LIE(-EBADMSG, node->name.ref = node->left.ref);
	LIE(-EBADMSG, bag->item[1].node.ref.word += 8);
	LIE(-EBADMSG, bag->item[1].bytes.ref = node->name.ref);
	/* counts */
	LIE(-EBADMSG, bag->len++);
	LIE(-EBADMSG, bag->len--);
	LIE(-EBADMSG, bag->len = UINT32_MAX);
	LIE(-EBADMSG, bag->len = UINT32_MAX; ((uint32_t *)bag)[-1] = UINT32_MAX);
	LIE(-EBADMSG, bag->len = 3; ((uint32_t *)bag)[-1] = 3); /* true to each other, beyond the end */
	LIE(-EBADMSG, ((uint32_t *)node)[-1] = 1);
	LIE(-EBADMSG, name->len = 4; ((uint32_t *)(void *)name)[-1] = 4; name->s[4] = 'x');
	LIE(0, name->len = 2; ((uint32_t *)(void *)name)[-1] = 2; name->s[2] = 0);
	LIE(-EBADMSG, name->s[3] = 'd');
	LIE(0, name->s[1] = 0);
	/* types */
	LIE(-EPROTO, memcpy((char *)name - 8, &kind, 4));
	LIE(-EPROTO, memcpy((char *)node - 8, (char *)bag - 8, 4); ((uint32_t *)node)[-1] = 0; node->id = 0);
	LIE(-EPROTO, memcpy((char *)name - 8, "\0\0\0\0\0\0\0\0", 8));
}

/* Values that lie where they must not: what they would do to those who read or copy them would be seen much later. */
static void places_are_checked(void **state)
{
	(void)state;
	_Alignas(64) char memory[512] = {0};
	struct hp_image *image = (struct hp_image *)(void *)memory;
	struct wide wide = {.x = {1}};
	struct node n = {.id = 1}, *root;
	size_t bytes = (size_t)hp_image_write(memory, sizeof memory, NULL, &node_type, &n);
	uint32_t string_mark[2], no_end[2] = {3, 0x64636261};
	assert_int_equal(bytes, 64 + 56);

	/* the root 8 bytes further on: not where a block aligned for all types would have it */
	memmove(memory + 64, memory + 56, 64);
	memset(memory + 56, 0, 8);
	image->bytes += 8;
	image->root += 8;
	assert_int_equal(hp_image_verify(memory, sizeof memory, &node_type), -EBADMSG);

	/* a value before the root */
	struct hp_string s = {0};
	must(hp_image_write(memory + 256, 128, NULL, &hp_string_type, &s) > 0);
	memcpy(string_mark, memory + 256 + 40, 8);
	must(hp_image_write(memory, 256, NULL, &node_type, &n) > 0);
	string_mark[1] = 3;
	no_end[1] &= 0xffffff;
	memcpy(memory + 40, string_mark, 8);
	memcpy(memory + 48, no_end, 8);
	image->values++;
	assert_int_equal(hp_image_verify(memory, sizeof memory, &node_type), -EBADMSG);

	/* a value that is not aligned: neither verified, nor found by the checked call */
	n.wide.priv = &wide;
	memset(memory, 0, sizeof memory);
	bytes = (size_t)hp_image_write(memory, sizeof memory, NULL, &node_type, &n);
	root = hp_image_root(image);
	uint64_t at = root->wide.ref.word & ~HP_IMAGE_REF;
	assert_ptr_equal(hp_image_deref_checked(image, bytes, root->wide.ref, &wide_type), memory + at);
	assert_null(hp_image_deref_checked(image, bytes - 1, root->wide.ref, &wide_type));
	memmove(memory + at, memory + at - 8, bytes - at + 8);
	memset(memory + at - 8, 0, 8);
	root->wide.ref.word += 8;
	image->bytes += 8;
	assert_int_equal(hp_image_verify(memory, sizeof memory, &node_type), -EBADMSG);
	assert_null(hp_image_deref_checked(image, image->bytes, root->wide.ref, &wide_type));

	/* references to any type lead to the start of a value, too; and a count beyond the end is not believed */
	struct hp_image_builder b;
	assert_int_equal(hp_image_begin(&b, memory, sizeof memory, &hp_vector_type, 1), 0);
	struct hp_vector *v = hp_image_root(b.image);
	hp_ref string = hp_image_new_string(&b, "a string with some letters", 26);
	for (uint64_t off = 0; off < 64; off++) {
		v->item[0].word = string.word + off;
		assert_int_equal(hp_image_verify(memory, sizeof memory, &hp_vector_type), off ? -EBADMSG : 0);
		assert_true(!hp_image_deref_checked(b.image, b.image->bytes, v->item[0], &hp_string_type) == !!off);
	}
	for (uint32_t len = 27; len < 100; len++) {
		uint32_t *count = hp_image_deref(b.image, string);
		count[0] = count[-1] = len; /* the place ends with the image, at 28 */
		assert_true(!hp_image_deref_checked(b.image, b.image->bytes, string, &hp_string_type) == (len > 27));
	}
}

/* The same name, another layout; another type at the root; a type that the reader does not know. */
static void types_must_agree(void **state)
{
	(void)state;
	struct other_wide {
		_Alignas(64) uint64_t x[6];
		HP_REF(struct node) back;
	};
	static const struct hp_member back[] = {{offsetof(struct other_wide, back), &node_type}};
	static const struct hp_type other_wide = {"wide_type", sizeof(struct other_wide), 64, 0, 0, 0, 1, 0, back, NULL};
	static const struct hp_type renamed = {"renamed", sizeof(struct wide), 64, 0, 0, 0, 1, 0, back, NULL};
	static const struct hp_type bad[] = {
		{NULL, 8, 8, 0, 0, 0, 0, 0, NULL, NULL},      {"size", 0, 8, 0, 0, 0, 0, 0, NULL, NULL},
		{"align", 8, 3, 0, 0, 0, 0, 0, NULL, NULL},   {"large", 40000, 8, 0, 0, 0, 0, 0, NULL, NULL},
		{"member", 48, 8, 0, 0, 0, 1, 0, back, NULL}, {"count", 8, 8, 8, 8, 5, 0, 0, NULL, NULL},
		{"tail", 8, 8, 8, 16, 0, 0, 0, NULL, NULL},   {"hp_any", 8, 8, 0, 0, 0, 0, 0, NULL, NULL},
	};
	struct wide wide = {.x = {1}};
	size_t bytes, again;
	struct hp_image *image = image_of(&wide_type, &wide, &bytes);
	void *value;
	assert_int_equal(hp_image_verify(image, bytes, &wide_type), 0);
	assert_int_equal(hp_image_verify(image, bytes, &other_wide), -EPROTO);
	assert_int_equal(hp_image_verify(image, bytes, &renamed), -EPROTO);
	assert_int_equal(hp_image_verify(image, bytes, &node_type), -EPROTO);
	assert_int_equal(hp_image_verify(image, bytes, &hp_string_type), -EPROTO);
	assert_null(hp_image_deref_checked(image, bytes, (hp_ref){HP_IMAGE_REF | image->root}, &other_wide));
	assert_ptr_equal(hp_image_deref_checked(image, bytes, (hp_ref){HP_IMAGE_REF | image->root}, &wide_type),
	                 hp_image_root(image));
	static const struct hp_type leaf = {"leaf", 16, 8, 0, 0, 0, 0, 0, NULL, NULL};
	static const struct hp_type shorter = {"leaf", 8, 8, 0, 0, 0, 0, 0, NULL, NULL};
	struct hp_image *of_leaf = image_of(&leaf, &wide, &again);
	assert_int_equal(hp_image_verify(of_leaf, again, &leaf), 0);
	assert_int_equal(hp_image_verify(of_leaf, again, &shorter), -EPROTO);
	free(of_leaf);
	/* one address cannot be two values */
	struct node n = {.id = 1};
	n.wide.priv = (struct wide *)(void *)&n;
	assert_int_equal(hp_image_need(NULL, &node_type, &n), -EPROTO);
	/* another copy of the same description is the same type */
	struct hp_type copy = wide_type;
	assert_int_equal(hp_image_verify(image, bytes, &copy), 0);
	struct hp_image *same = image_of(&copy, &wide, &again);
	assert_memory_equal(image, same, bytes);
	free(same);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(hp_image_verify(image, bytes, &bad[i]), -EINVAL);
		assert_int_equal(hp_image_need(NULL, &bad[i], &wide), -EINVAL);
		assert_null(hp_image_deref_checked(image, bytes, (hp_ref){HP_IMAGE_REF | image->root}, &bad[i]));
	}
	assert_int_equal(hp_image_verify(NULL, bytes, &wide_type), -EINVAL);
	assert_int_equal(hp_image_verify(image, bytes, NULL), -EINVAL);
	assert_int_equal(hp_image_copy(image, bytes, &hp_string_type, &value, NULL), -EPROTO);
	assert_null(value);
	free(image);
}

/* Very many values in a row, and a thread with hardly any stack. */
#define LONG 200000u

static void *long_list(void *arg)
{
	struct node *nodes = arg;
	size_t bytes, size;
	void *value;
	struct hp_image *image = image_of(&node_type, nodes, &bytes);
	must_be(image->values, LONG);
	must_be(hp_image_verify(image, bytes, &node_type), 0);
	must_be(hp_image_copy(image, bytes, &node_type, &value, &size), 0);
	const struct node *n = value;
	for (uint64_t i = 0; i < LONG; i++, n = n->left.priv) must_be(n->id, i);
	must(n == value); /* a ring */
	free(value);
	free(image);
	return NULL;
}

static void lists_take_no_stack(void **state)
{
	(void)state;
	struct node *nodes = calloc(LONG, sizeof *nodes);
	pthread_attr_t attr;
	pthread_t thread;
	for (uint64_t i = 0; i < LONG; i++) {
		nodes[i].id = i;
		nodes[i].left.priv = &nodes[(i + 1) % LONG];
	}
	must_be(pthread_attr_init(&attr), 0);
	must_be(pthread_attr_setstacksize(&attr, HP_TEST_SANITIZER ? 256 << 10 : 64 << 10), 0);
	must_be(pthread_create(&thread, &attr, long_list, nodes), 0);
	must_be(pthread_join(thread, NULL), 0);
	pthread_attr_destroy(&attr);
	free(nodes);
}

/* ---- with heaps ---- */

static void heaps_and_images(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("heaps");
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	hp_heap *heap, *other;
	hp_tx *tx;
	must_be(hp_heap_create(pool, NULL, NULL, NULL, &heap), 0);
	must_be(hp_heap_create(pool, NULL, NULL, NULL, &other), 0);
	for (int round = 0; round < 50; round++) {
		struct graph g;
		size_t bytes;
		graph_make(&g, 1 + (unsigned)hp_below(&seed, LIMIT), round % 2, &seed);
		struct hp_image *image = image_of(&node_type, g.node[0], &bytes), *again = malloc(bytes + 64);
		must_be(hp_heap_begin(heap, -1, &tx), 0);
		hp_ref root = hp_image_import(tx, image, bytes, &node_type);
		assert_int_equal(hp_heap_error(tx), 0);
		assert_int_equal(hp_heap_set_root(tx, root), 0);
		assert_int_equal(hp_heap_commit(tx), 0);
		assert_int_equal(hp_heap_gc(heap, HP_GC_WAIT, -1), 0);

		must_be(hp_heap_read_enter(pool), 0);
		void *value = hp_heap_deref_checked(heap, hp_heap_root(heap), &node_type, NULL);
		assert_non_null(value);
		assert_int_equal(hp_image_need(heap, &node_type, value), bytes);
		assert_int_equal(hp_image_write((char *)again + 3, bytes, heap, &node_type, value), bytes);
		assert_memory_equal((char *)again + 3, image, bytes);
		/* a private value with parts in the heap */
		struct node mixed = {.left.ref = root, .right.priv = value};
		struct hp_image *both = malloc(bytes + 128);
		int64_t need = hp_image_need(heap, &node_type, &mixed);
		assert_true(need > (int64_t)bytes && need <= (int64_t)bytes + 128);
		assert_int_equal(hp_image_write(both, (size_t)need, heap, &node_type, &mixed), need);
		const struct node *n = hp_image_root(both);
		assert_true(n->left.ref.word == n->right.ref.word);
		assert_int_equal(both->values, image->values + 1);
		free(both);
		assert_int_equal(hp_image_need(NULL, &node_type, &mixed), -EXDEV);
		assert_int_equal(hp_image_need(other, &node_type, &mixed), -EXDEV);
		assert_int_equal(hp_image_need(heap, &wide_type, value), -EPROTO);
		assert_int_equal(hp_image_need(heap, &node_type, (char *)value + 8), -ESTALE);
		/* what is of the pool, and not of the heap, is private memory */
		struct node *block = hp_calloc(pool, 1, sizeof *block);
		block->left.priv = g.node[0];
		assert_true(hp_image_need(heap, &node_type, block) > 0);
		assert_int_equal(hp_free(pool, block), 0);
		hp_heap_read_exit(pool);
		free(again);
		free(image);
		graph_free(&g);
	}
	/* an image that is none leaves the transaction with the error, and a count beyond its place is not followed */
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	assert_int_equal(hp_image_import(tx, "no image of anything here, of no type at all....", 48, &node_type).word, 0);
	assert_int_equal(hp_heap_commit(tx), -EBADMSG);
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	hp_ref ref = hp_heap_new(tx, &bag_type, 3);
	struct bag *bag = hp_heap_deref(heap, ref);
	bag->len = 1u << 30;
	assert_int_equal(hp_image_need(heap, &bag_type, bag), -EINVAL);
	ref = hp_heap_new_vector(tx, 1, ref);
	assert_int_equal(hp_image_need(heap, &hp_vector_type, hp_heap_deref(heap, ref)), -EINVAL);
	hp_heap_abort(tx);
	must_be(hp_heap_destroy(other, 0, 1000), 0);
	hp_heap *again;
	struct node n = {.id = 1};
	must_be(hp_heap_open(pool, hp_heap_id(heap), &again), 0);
	assert_true(hp_image_need(again, &node_type, &n) > 0);
	must_be(hp_heap_destroy(heap, HP_HEAP_FORCE, 1000), 0);
	assert_int_equal(hp_image_need(again, &node_type, &n), -ESTALE);
	must_be(hp_heap_close(again), 0);
	hp_must_be_sound(pool);
	must_be(hp_pool_detach(pool), 0);
}

/* ---- by hand ---- */

static void images_made_by_hand(void **state)
{
	(void)state;
	_Alignas(64) char memory[1024];
	struct hp_image_builder b;
	static const double numbers[3] = {1.5, 2.5, -3};
	memset(memory, 0xee, sizeof memory);
	assert_int_equal(hp_image_begin(&b, memory, sizeof memory, &node_type, 0), 0);
	struct node *n = hp_image_root(b.image);
	n->id = 7;
	assert_int_equal(hp_image_verify(memory, sizeof memory, &node_type), 0); /* complete after each call */
	n->name.ref = hp_image_new_string(&b, "seven", 5);
	n->numbers.ref = hp_image_new_doubles(&b, 3, numbers);
	n->bag.ref = hp_image_new(&b, &bag_type, 2);
	n->wide.ref = hp_image_new(&b, &wide_type, 0);
	assert_int_equal(b.error, 0);
	struct bag *bag = hp_image_deref(b.image, n->bag.ref);
	assert_int_equal(bag->len, 2);
	/* a graph that refers to what is there: nothing of it is copied */
	struct hp_string *name = calloc(1, sizeof *name + 8);
	struct node left = {.name.ref = n->name.ref}, right = {.left.priv = &left, .name.priv = name};
	left.right.priv = &right;
	name->len = 2;
	memcpy(name->s, "ok", 3);
	uint64_t values = b.image->values;
	bag->item[0].node.ref = hp_image_new_value(&b, NULL, &node_type, &right);
	assert_int_equal(b.error, 0);
	assert_int_equal(b.image->values, values + 3);
	const struct node *r = hp_image_deref(b.image, bag->item[0].node.ref);
	const struct node *l = hp_image_deref(b.image, r->left.ref);
	assert_true(l->name.ref.word == n->name.ref.word);
	assert_ptr_equal(hp_image_deref(b.image, l->right.ref), r);
	assert_string_equal(((struct hp_string *)hp_image_deref(b.image, r->name.ref))->s, "ok");
	size_t reached;
	assert_int_equal(hp_image_verify(memory, sizeof memory, &node_type), 0);
	assert_null(visit_all(b.image, &node_type, &reached, NULL));
	assert_int_equal(reached, b.image->values);
	/* in another image that reference means nothing, and one of another type is refused */
	assert_int_equal(hp_image_need(NULL, &node_type, &left), -EXDEV);
	left.name.ref = n->bag.ref;
	struct hp_image_builder copy = b;
	assert_int_equal(hp_image_new_value(&copy, NULL, &node_type, &left).word, 0);
	assert_int_equal(copy.error, -EPROTO);
	left.name.ref.word = HP_IMAGE_REF | b.image->bytes;
	copy = b;
	assert_int_equal(hp_image_new_value(&copy, NULL, &node_type, &left).word, 0);
	assert_int_equal(copy.error, -EXDEV);
	assert_int_equal(hp_image_verify(memory, sizeof memory, &node_type), 0);
	/* full: the error stays, the image is as it was */
	uint64_t bytes = b.image->bytes;
	assert_int_equal(hp_image_new_doubles(&b, 1000, NULL).word, 0);
	assert_int_equal(b.error, -ENOSPC);
	assert_int_equal(hp_image_new_string(&b, "x", 1).word, 0);
	assert_int_equal(b.image->bytes, bytes);
	assert_int_equal(hp_image_verify(memory, sizeof memory, &node_type), 0);
	free(name);
}

static void arrays_and_strings_by_hand(void **state)
{
	(void)state;
	_Alignas(64) char memory[512];
	struct hp_image_builder b;
	void *value;
	/* a vector of whatever: the ready-made types may be in it */
	size_t room = (size_t)hp_image_size(&hp_vector_type, 4);
	assert_int_equal(hp_image_begin(&b, memory, room - 1, &hp_vector_type, 4), -ENOSPC);
	assert_int_equal(hp_image_verify(memory, room, &hp_vector_type), -EBADMSG);
	assert_int_equal(hp_image_begin(&b, memory, room, &hp_vector_type, 4), 0);
	assert_int_equal(b.image->bytes, room);
	assert_int_equal(hp_image_new(&b, &hp_cell_type, 0).word, 0);
	assert_int_equal(b.error, -ENOSPC);
	assert_int_equal(hp_image_begin(&b, memory, sizeof memory, &hp_vector_type, 4), 0);
	struct hp_vector *v = hp_image_root(b.image);
	v->item[0] = hp_image_new_string(&b, "zero", 4);
	v->item[1] = hp_image_new_doubles(&b, 2, NULL);
	v->item[2] = hp_image_new_vector(&b, 3, v->item[0]);
	v->item[3] = hp_image_new(&b, &hp_cell_type, 0);
	((struct hp_cell *)hp_image_deref(b.image, v->item[3]))->value.ref = (hp_ref){HP_IMAGE_REF | b.image->root};
	assert_int_equal(b.error, 0);
	assert_int_equal(hp_image_verify(memory, sizeof memory, &hp_vector_type), 0);
	assert_null(visit_all(b.image, &hp_vector_type, NULL, NULL));
	assert_non_null(hp_image_deref_checked(b.image, b.image->bytes, v->item[0], &hp_string_type));
	assert_null(hp_image_deref_checked(b.image, b.image->bytes, v->item[0], &hp_bytes_type));
	assert_int_equal(hp_image_copy(memory, sizeof memory, &hp_vector_type, &value, NULL), 0);
	struct {
		uint32_t len, reserved;
		void *item[4];
	} *p = value;
	assert_string_equal(((struct hp_string *)p->item[0])->s, "zero");
	assert_ptr_equal(((struct hp_cell *)p->item[3])->value.priv, value);
	free(value);
	/* a type that the reader's do not lead to */
	hp_image_new(&b, &bag_type, 0);
	assert_int_equal(b.error, 0);
	assert_int_equal(hp_image_verify(memory, sizeof memory, &hp_vector_type), -EPROTO);
	/* an alignment that the image has not */
	hp_image_new(&b, &wide_type, 0);
	assert_int_equal(b.error, -EINVAL);
	assert_int_equal(hp_image_begin(&b, memory + 4, 100, &hp_string_type, 4), -EINVAL);
	assert_int_equal(hp_image_new_string(&b, "x", 1).word, 0);

	for (uint32_t len = 0; len < 40; len++) {
		room = (size_t)hp_image_size(&hp_string_type, len);
		memset(memory, 'x', sizeof memory);
		assert_int_equal(hp_image_begin(&b, memory, room, &hp_string_type, len), 0);
		struct hp_string *s = hp_image_root(b.image);
		memset(s->s, 'y', len);
		assert_int_equal(strlen(s->s), len);
		assert_int_equal(memory[room], 'x');
		assert_int_equal(hp_image_verify(memory, room, &hp_string_type), 0);
	}
}

/* ---- a sender that goes on changing it ---- */

struct scribble {
	_Atomic uint64_t stop;
	_Alignas(64) unsigned char memory[8192];
};

static void scribbler(const struct child *me, void *arg)
{
	struct scribble *s = arg;
	uint64_t seed = 1;
	struct hp_image *image = (struct hp_image *)(void *)s->memory;
	size_t bytes = image->bytes;
	unsigned char *whole = malloc(bytes);
	memcpy(whole, s->memory, bytes);
	child_say(me);
	while (!atomic_load(&s->stop)) {
		mutate(s->memory, bytes, whole, &seed);
		if (hp_below(&seed, 4) == 0) memcpy(s->memory, whole, bytes);
		if (hp_below(&seed, 8) == 0) image->bytes = 8192 - 8 * hp_below(&seed, 900);
	}
	free(whole);
}

static void a_copy_is_good_whatever_the_sender_does(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("scribble");
	struct graph g;
	struct scribble *s = hp_shared(sizeof *s);
	graph_make(&g, 20, true, &seed);
	must(hp_image_write(s->memory, sizeof s->memory, NULL, &node_type, g.node[0]) > 0);
	struct child child = child_start(scribbler, s);
	must(child_hear(&child));
	unsigned good = 0;
	for (unsigned i = 0; i < 20000 || (good == 0 && i < 2000000); i++) {
		struct hp_image *image;
		hp_image_verify(s->memory, sizeof s->memory, &node_type); /* worth nothing, and harmless */
		if (hp_image_read(s->memory, sizeof s->memory, &node_type, &image) < 0) continue;
		good++;
		must(!visit_all(image, &node_type, NULL, NULL));
		free(image);
	}
	atomic_store(&s->stop, 1);
	must_be(child_end(&child), 0);
	assert_true(good > 0);
	munmap(s, sizeof *s);
	graph_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_exact_and_graphs_survive),
		cmocka_unit_test(sizes_are_those_of_the_layout),
		cmocka_unit_test(the_same_bytes_at_every_address),
		cmocka_unit_test(another_process_reads_it_in_place_elsewhere),
		cmocka_unit_test(truncated_images_are_refused),
		cmocka_unit_test(mutated_images_are_refused_or_harmless),
		cmocka_unit_test(each_lie_is_found),
		cmocka_unit_test(places_are_checked),
		cmocka_unit_test(types_must_agree),
		cmocka_unit_test(lists_take_no_stack),
		cmocka_unit_test(heaps_and_images),
		cmocka_unit_test(images_made_by_hand),
		cmocka_unit_test(arrays_and_strings_by_hand),
		cmocka_unit_test(a_copy_is_good_whatever_the_sender_does),
	};
	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
