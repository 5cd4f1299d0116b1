/* Byte buffers.
 *
 * Would catch: bytes that a reader sees change under the length it has read (an append over what was truncated or undone), a
 * chunk that is missing or another's, chunks that are not given back.
 *
 * The buffer is words {check:32, salt:8, epoch:24} behind three bytes, so that words lie over the ends of chunks. Truncating
 * begins a new epoch; epochs only go up from the front to the end. What will be undone has another salt, and nothing of the
 * epoch's own salt comes after it. */
#include "hp_collections.h"

#define HEAD 3u
#define MOST 6000u /* words */

struct model {
	uint64_t words, epoch;
	uint64_t word[MOST];
};

static uint64_t word_make(uint64_t i, uint64_t epoch, uint64_t salt)
{
	uint64_t low = (salt & 0xff) << 24 | epoch, check = (low * 0x9e3779b97f4a7c15u) ^ i * 0xc2b2ae3d27d4eb4fu;
	return low | (check >> 32) << 32;
}

static hp_ref make(hp_tx *tx)
{
	hp_ref buffer = hp_buffer_new(tx);
	must_be(hp_buffer_append(tx, buffer, "abc", HEAD), 0);
	return buffer;
}

static void append(hp_tx *tx, hp_ref it, struct model *m, uint64_t words, uint64_t n, uint64_t epoch, uint64_t salt)
{
	uint64_t some[MOST];
	if (n > MOST - words) n = MOST - words;
	for (uint64_t i = 0; i < n; i++) some[i] = word_make(words + i, epoch, salt);
	if (tx) must_be(hp_buffer_append(tx, it, some, n * 8), 0);
	if (m) memcpy(&m->word[words], some, n * 8);
	if (m) m->words += n;
}

static void change(struct storm *s, hp_tx *tx, uint64_t *random, void *model)
{
	struct model *m = model;
	hp_ref it = tx ? storm_it(s) : HP_NONE;
	for (uint64_t n = 1 + hp_below(random, 3); n--;) {
		uint64_t what = hp_below(random, 10), r = hp_random(random);
		uint64_t words = tx ? (hp_buffer_length(s->heap, it) - HEAD) / 8 : m->words;
		uint64_t epoch = tx ? storm_root(s)->extra : m->epoch, own = epoch * 7 & 0xff;
		if (tx && m) must_be(words, m->words);
		if (what < 3) {
			words = r % (words + 1);
			if (tx) must_be(hp_buffer_truncate(tx, it, HEAD + words * 8), 0);
			if (tx) storm_extra(s, tx, epoch + 1);
			if (m) m->words = words;
			if (m) m->epoch++;
		} else {
			append(tx, it, m, words, 1 + r % (m && what < 9 ? 100 : 2000), epoch, m ? own : own + 1 + r % 255);
		}
	}
}

static uint64_t read_words(struct storm *s, hp_ref it, uint64_t word[MOST])
{
	static unsigned char bytes[HEAD + MOST * 8 + 1];
	size_t n = hp_buffer_read(s->heap, it, 0, bytes, sizeof bytes);
	must(n >= HEAD && (n - HEAD) % 8 == 0 && memcmp(bytes, "abc", HEAD) == 0);
	memcpy(word, bytes + HEAD, n - HEAD);
	return (n - HEAD) / 8;
}

static void verify(struct storm *s, hp_ref it, uint64_t *random)
{
	static uint64_t word[MOST];
	uint64_t n = read_words(s, it, word), last = 0;
	bool foreign = false;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t epoch = word[i] & 0xffffff, salt = word[i] >> 24 & 0xff;
		must_be(word[i], word_make(i, epoch, salt));
		must(epoch >= last);
		if (epoch > last)
			must(!foreign || salt != (epoch * 7 & 0xff)); /* what follows what will be undone will be, too */
		if (epoch == last && foreign) must(salt != (epoch * 7 & 0xff));
		foreign = foreign || salt != (epoch * 7 & 0xff);
		last = epoch;
	}
	/* a piece, from somewhere */
	uint64_t at = hp_below(random, MOST), piece;
	if (hp_buffer_read(s->heap, it, HEAD + at * 8, &piece, 8) == 8)
		must_be(piece, word_make(at, piece & 0xffffff, piece >> 24 & 0xff));
}

static void compare(struct storm *s, hp_ref it, const void *model)
{
	static uint64_t word[MOST];
	const struct model *m = model;
	must_be(hp_buffer_length(s->heap, it), HEAD + m->words * 8);
	must_be(read_words(s, it, word), m->words);
	must_be(memcmp(word, m->word, m->words * 8), 0);
}

static void survives_kills(void **state)
{
	(void)state;
	static struct model m;
	struct storm s = {.model = &m, .make = make, .change = change, .verify = verify, .compare = compare};
	storm_begin(&s, 16 * MIB);
	storm_run(&s, "buffer");
	uint64_t chunks = (HEAD + m.words * 8 + 4079) / 4080;
	must_be(live_values(s.heap), 4 + chunks); /* root, buffer, state, list */
	hp_tx *tx = must_begin(s.heap);
	must_be(hp_buffer_truncate(tx, storm_it(&s), 0), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(live_values(s.heap), 2);
	must(held_bytes(s.heap) <= 3 * PAGE); /* a slab each */
	storm_end(&s);
}

static void reads_ranges(void **state)
{
	(void)state;
	struct storm s = {.make = hp_buffer_new};
	char text[10000], got[10000];
	storm_begin(&s, 8 * MIB);
	hp_tx *tx = must_begin(s.heap);
	hp_ref it = storm_it(&s);
	for (size_t i = 0; i < sizeof text; i++) text[i] = (char)(i * 7 + i / 256);
	must_be(hp_buffer_read(s.heap, it, 0, got, 10), 0);
	must_be(hp_buffer_append(tx, it, "", 0), 0);
	must_be(hp_buffer_truncate(tx, it, 1), -ERANGE);
	must_be(hp_buffer_append(tx, hp_heap_root(s.heap), "x", 1), -EINVAL);
	for (size_t n = 0, step = 1; n < sizeof text; n += step, step = step * 3 % 1009) {
		if (step > sizeof text - n) step = sizeof text - n;
		must_be(hp_buffer_append(tx, it, text + n, step), 0);
	}
	must_be(hp_buffer_length(s.heap, it), sizeof text);
	for (size_t from = 0; from < sizeof text; from += 777)
		for (size_t n = 0; n < sizeof text; n += 1501) {
			size_t want = n < sizeof text - from ? n : sizeof text - from;
			must_be(hp_buffer_read(s.heap, it, from, got, n), want);
			must_be(memcmp(got, text + from, want), 0);
		}
	must_be(hp_buffer_read(s.heap, it, sizeof text, got, 1), 0);
	must_be(hp_buffer_read(s.heap, it, UINT64_MAX, got, 1), 0);
	/* what another text follows upon is not the text of before */
	must_be(hp_heap_checkpoint(tx), 0);
	must_be(hp_buffer_truncate(tx, it, 5000), 0);
	must_be(hp_buffer_append(tx, it, text, 2000), 0);
	must_be(hp_buffer_read(s.heap, it, 4000, got, 9000), 3000);
	must(memcmp(got, text + 4000, 1000) == 0 && memcmp(got + 1000, text, 2000) == 0);
	hp_heap_abort(tx);
	must_be(hp_buffer_read(s.heap, it, 0, got, sizeof got), sizeof text);
	must_be(memcmp(got, text, sizeof text), 0);
	storm_end(&s);
}

/* By the inside, since a reader would have to be met between two instructions: the list of a state that was undone does not
 * become another's. */
static void lists_that_were_seen_stay(void **state)
{
	(void)state;
	struct storm s = {.make = hp_buffer_new};
	char text[5000] = {1};
	storm_begin(&s, 8 * MIB);
	hp_tx *tx = must_begin(s.heap);
	for (unsigned i = 0; i < 3; i++) must_be(hp_buffer_append(tx, storm_it(&s), text, 4080), 0); /* room for four */
	must_be(hp_heap_checkpoint(tx), 0);
	must_be(hp_buffer_append(tx, storm_it(&s), text, sizeof text), 0);
	hp_heap_abort(tx);
	const hp_ref *first = hp_heap_deref(s.heap, *(hp_ref *)hp_heap_deref(s.heap, storm_it(&s)));
	const hp_ref *chunk = (const hp_ref *)hp_heap_deref(s.heap, *first) + 1;
	must(chunk[2].word && !chunk[3].word);
	tx = must_begin(s.heap);
	must_be(hp_buffer_append(tx, storm_it(&s), text, 100), 0);
	must_be(hp_heap_commit(tx), 0);
	must(!chunk[3].word);
	storm_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_that_were_seen_stay),
		cmocka_unit_test(survives_kills),
		cmocka_unit_test(reads_ranges),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
