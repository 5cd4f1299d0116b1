/* libFuzzer: bytes that claim to be an image.
 *
 * Built by `ninja fuzz` (needs clang), run by hand: build/tests/image_fuzz -max_total_time=600. The first byte of an input
 * chooses what it is:
 *   raw       the rest is the image as it came, with a header put right or not, in a block of just its size
 *   changed   the rest overwrites words of an image that was good, with references and counts that make some sense
 *   made      the rest says how an image is made by hand; it must verify unless a call failed or a reference was wrong
 * What verifies is then visited whole, copied to private memory, written anew and imported: nothing may go wrong with it. */
#include "../hp_image.h"

#include <errno.h>

#define must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

struct input {
	const uint8_t *at, *end;
};

static unsigned byte(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static uint64_t number(struct input *in, unsigned bytes)
{
	uint64_t n = 0;
	while (bytes--) n = n << 8 | byte(in);
	return n;
}

static void *memory_of(size_t bytes)
{
	void *memory;
	must(posix_memalign(&memory, 64, bytes ? bytes : 1) == 0);
	return memory;
}

static hp_heap *heap;

static void close_heap(void)
{
	hp_pool *pool = hp_heap_pool(heap);
	must(hp_heap_destroy(heap, 0, 1000) == 0);
	must(hp_pool_detach(pool) == 0);
}

static void import(const struct hp_image *image, size_t bytes, const struct hp_type *type)
{
	hp_tx *tx;
	if (!heap) {
		struct hp_pool_options options = {
			.struct_size = sizeof options, .size = 16 << 20, .choice = HP_CHOICE_REQUIRE, .rung = HP_RUNG_4K};
		hp_pool *pool;
		must(hp_pool_create(&options, &pool) == 0);
		must(hp_heap_create(pool, NULL, NULL, NULL, &heap) == 0);
		atexit(close_heap);
	}
	must(hp_heap_begin(heap, -1, &tx) == 0);
	hp_ref root = hp_image_import(tx, image, bytes, type);
	must(root.word);
	must(hp_image_need(heap, type, hp_heap_deref(heap, root)) > 0);
	hp_heap_abort(tx);
}

static void look(const struct hp_image *image, size_t bytes, const struct hp_type *type)
{
	struct hp_image *read;
	void *value;
	size_t values, size;
	for (size_t at = 0; at < bytes + 64; at += 8) {
		const struct bag *bag = hp_image_deref_checked(image, bytes, (hp_ref){HP_IMAGE_REF | at}, &bag_type);
		volatile uint64_t sum = 0;
		for (uint32_t i = 0; bag && i < bag->len; i++) sum += bag->item[i].weight;
	}
	int error = hp_image_verify(image, bytes, type);
	must(hp_image_read(image, bytes, type, &read) == error);
	if (error < 0) {
		must(error == -EBADMSG || error == -EPROTO);
		return;
	}
	must(!visit_all(read, type, &values, NULL) && values <= read->values);
	free(read);
	must(hp_image_copy(image, bytes, type, &value, &size) == 0);
	int64_t need = hp_image_need(NULL, type, value);
	if (type != &hp_vector_type) { /* whose references have no said type */
		must(need > 0);
		void *anew = memory_of((size_t)need);
		must(hp_image_write(anew, (size_t)need, NULL, type, value) == need);
		must(hp_image_verify(anew, (size_t)need, type) == 0);
		free(anew);
		import(image, bytes, type);
	}
	free(value);
}

static void make(struct input *in, char *memory, size_t room, const struct hp_type *type, size_t *bytes)
{
	struct hp_image_builder b;
	hp_ref ref[64];
	unsigned refs = 1;
	must(hp_image_begin(&b, memory, room, type, type->element ? 5 : 0) == 0);
	ref[0].word = HP_IMAGE_REF | b.image->root;
	while (in->at < in->end && refs < 64 && !b.error) {
		unsigned op = byte(in), n = byte(in) % 32;
		hp_ref old = ref[op % refs], new = HP_NONE;
		switch (op % 7) {
		case 0: new = hp_image_new_string(&b, "0123456789abcdef0123456789abcdef", n); break;
		case 1: new = hp_image_new_vector(&b, n, old); break;
		case 2: new = hp_image_new_doubles(&b, n, NULL); break;
		case 3: new = hp_image_new(&b, &bag_type, n); break;
		case 4: new = hp_image_new(&b, &node_type, 0); break;
		case 5: {
			struct node left = {.id = n}, right = {.left.priv = &left};
			left.left.ref = old;
			new = hp_image_new_value(&b, NULL, &node_type, &right);
			break;
		}
		default: /* a word of what there is */ ((uint64_t *)hp_image_deref(b.image, old))[n % 2] = ref[n % refs].word;
		}
		if (new.word) ref[refs++] = new;
	}
	*bytes = b.image->bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	unsigned how = byte(&in);
	const struct hp_type *type = how & 4 ? &hp_vector_type : how & 8 ? &bag_type : &node_type;
	if (how % 3 == 0) {
		size_t bytes = (size_t)(in.end - in.at);
		struct hp_image *image = memory_of(bytes);
		memcpy(image, in.at, bytes);
		if (how & 16 && bytes >= sizeof *image) {
			uint32_t align = type == &hp_vector_type ? 8 : 64;
			*image = (struct hp_image){HP_IMAGE_MAGIC, bytes / 8 * 8, align == 8 ? 48 : 64, image->values, align, 0};
		}
		look(image, bytes, type);
		free(image);
		return 0;
	}
	static char room[8192 + 8] __attribute__((aligned(64)));
	size_t bytes;
	struct input script = {in.at, how % 3 == 2 ? in.end : in.at + (in.end - in.at) / 2};
	make(&script, room, sizeof room - 8, type, &bytes);
	char *image = memory_of(bytes);
	memcpy(image, room, bytes);
	for (in.at = script.end; in.end - in.at >= 3;) {
		uint64_t at = number(&in, 2) % bytes, to = number(&in, 2) % (bytes + 64);
		if (how & 32)
			image[at] = (char)to;
		else
			*(uint64_t *)(void *)(image + at / 8 * 8) = HP_IMAGE_REF | to;
	}
	look((struct hp_image *)(void *)image, bytes, type);
	free(image);
	return 0;
}
