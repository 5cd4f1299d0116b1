/* Views: ranges, blits, comparison, sub-views, and what their lengths are found from.
 *
 * Catches: a check that overflows or is off by one, a refused blit that wrote, overlap copied in the wrong direction, bytes
 * compared as signed, an exported twin that differs from the inline form, a mapping that goes away under a sub-view or stays
 * when all are dropped, a copy that unmaps twice, a length that is not the block's, a view of what is no live block. */
#include <hugepool/buf.h>

#include <pthread.h>

#include "hp_cache.h"
#include "hp_heap.h"
#include "hp_malloc.h"
#include "io/pin.h"

/* The exported functions: an address is always theirs. */
static const struct {
	typeof(hp_buf_blit) *blit;
	typeof(hp_buf_blit_unchecked) *blit_unchecked;
	typeof(hp_buf_blit_to_bytes) *to_bytes;
	typeof(hp_buf_blit_to_bytes_unchecked) *to_bytes_unchecked;
	typeof(hp_buf_blit_from_bytes) *from_bytes;
	typeof(hp_buf_blit_from_bytes_unchecked) *from_bytes_unchecked;
	typeof(hp_buf_blit_to_string) *to_string;
	typeof(hp_buf_blit_to_string_unchecked) *to_string_unchecked;
	typeof(hp_buf_blit_from_string) *from_string;
	typeof(hp_buf_blit_from_string_unchecked) *from_string_unchecked;
	typeof(hp_buf_compare) *compare;
	typeof(hp_buf_holds) *holds;
	typeof(hp_buf_of) *of;
	typeof(hp_buf_sub_unchecked) *sub_unchecked;
} volatile twin = {
	hp_buf_blit,
	hp_buf_blit_unchecked,
	hp_buf_blit_to_bytes,
	hp_buf_blit_to_bytes_unchecked,
	hp_buf_blit_from_bytes,
	hp_buf_blit_from_bytes_unchecked,
	hp_buf_blit_to_string,
	hp_buf_blit_to_string_unchecked,
	hp_buf_blit_from_string,
	hp_buf_blit_from_string_unchecked,
	hp_buf_compare,
	hp_buf_holds,
	hp_buf_of,
	hp_buf_sub_unchecked,
};

static void must_be_none(hp_buf buf)
{
	must(!buf.start && !buf.len && !buf.pool && !buf.owner && !buf.whole);
}

/* ---- ranges ---- */

enum { LENGTH = 100 };
static const struct {
	size_t off, len;
} bad[] = {
	{0, LENGTH + 1},      {1, LENGTH},          {LENGTH, 1},          {LENGTH + 1, 0},
	{LENGTH + 1, 1},      {SIZE_MAX, 0},        {SIZE_MAX, 1},        {1, SIZE_MAX},
	{0, SIZE_MAX},        {LENGTH, SIZE_MAX},   {SIZE_MAX, SIZE_MAX}, {SIZE_MAX - 9, 10},
	{SIZE_MAX - 9, 20},   {50, SIZE_MAX - 49},  {50, SIZE_MAX - 20},  {SIZE_MAX / 2 + 1, SIZE_MAX / 2 + 1},
	{(size_t)1 << 32, 1}, {0, (size_t)1 << 32}, {(size_t)1 << 31, 1},
};

static void every_bad_range_is_refused_and_nothing_touched(void **state)
{
	(void)state;
	char memory[3 * LENGTH], before[3 * LENGTH], bytes[8] = "0123456", text[3 * LENGTH] = "";
	memset(memory, 0x5a, sizeof memory);
	memcpy(before, memory, sizeof memory);
	hp_buf buf = hp_buf_of(memory + LENGTH, LENGTH), other = hp_buf_of(memory, LENGTH), sub;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		size_t off = bad[i].off, len = bad[i].len;
		must(!hp_buf_holds(buf, off, len));
		must(!twin.holds(buf, off, len));
		must_be(hp_buf_blit(buf, off, other, 0, len), -EINVAL);
		must_be(hp_buf_blit(other, 0, buf, off, len), -EINVAL);
		must_be(twin.blit(buf, off, other, 0, len), -EINVAL);
		must_be(twin.blit(other, 0, buf, off, len), -EINVAL);
		must_be(hp_buf_blit_to_bytes(buf, off, bytes, len), -EINVAL);
		must_be(twin.to_bytes(buf, off, bytes, len), -EINVAL);
		must_be(hp_buf_blit_from_bytes(buf, off, bytes, len), -EINVAL);
		must_be(twin.from_bytes(buf, off, bytes, len), -EINVAL);
		must_be(hp_buf_blit_to_string(buf, off, len, text, SIZE_MAX), -EINVAL);
		must_be(twin.to_string(buf, off, len, text, SIZE_MAX), -EINVAL);
		sub = buf;
		must_be(hp_buf_sub(buf, off, len, &sub), -EINVAL);
		must_be_none(sub);
		must_be(hp_buf_zero_pages(buf, off, len), -EINVAL);
		if (off > LENGTH - 3) {
			must_be(hp_buf_blit_from_string(buf, off, "four"), -EINVAL);
			must_be(twin.from_string(buf, off, "four"), -EINVAL);
		}
	}
	must_be(memcmp(memory, before, sizeof memory), 0);
	must_be(memcmp(bytes, "0123456", 8), 0);
	must_be(text[0], 0);
	static const size_t good[][2] = {{0, LENGTH}, {0, 0}, {LENGTH, 0}, {LENGTH - 1, 1}, {50, 50}};
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		must(hp_buf_holds(buf, good[i][0], good[i][1]));
		must_be(hp_buf_blit(buf, good[i][0], other, 0, good[i][1]), 0);
		must_be(hp_buf_sub(buf, good[i][0], good[i][1], &sub), 0);
		must(sub.start == buf.start + good[i][0] && sub.len == good[i][1]);
		must_be(hp_buf_drop(&sub), 0);
	}
	must_be(hp_buf_sub(buf, 0, 1, NULL), -EINVAL);
	hp_buf empty = hp_buf_of(NULL, 0);
	must_be(hp_buf_blit(empty, 0, empty, 0, 0), 0);
	must_be(hp_buf_blit(empty, 0, buf, LENGTH, 0), 0);
	must_be(hp_buf_blit_from_bytes(empty, 0, "", 0), 0);
	must_be(hp_buf_blit(empty, 0, buf, 0, 1), -EINVAL);
}

/* ---- blits ---- */

/* Views into one memory, so that they overlap, and a model that copies byte by byte by way of another place. */
static void blits_do_what_a_model_does(void **state)
{
	(void)state;
	enum { SIZE = 700, ROUNDS = HP_TEST_SANITIZER ? 20000 : 200000 };
	uint64_t seed = hp_seed("blits");
	static unsigned char memory[SIZE], model[SIZE], bytes[SIZE], model_bytes[SIZE], between[SIZE];
	unsigned refused = 0;
	for (unsigned i = 0; i < SIZE; i++) memory[i] = model[i] = (unsigned char)hp_random(&seed);
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t from = hp_below(&seed, SIZE), to = hp_below(&seed, SIZE);
		size_t from_len = hp_below(&seed, SIZE - from + 1), to_len = hp_below(&seed, SIZE - to + 1);
		size_t src_off = hp_below(&seed, from_len + 2), dst_off = hp_below(&seed, to_len + 2);
		size_t len = hp_below(&seed, 4) ? hp_below(&seed, 70) : hp_below(&seed, SIZE);
		hp_buf src = hp_buf_of(memory + from, from_len), dst = hp_buf_of(memory + to, to_len);
		bool reads = src_off + len <= from_len, writes = dst_off + len <= to_len, exported = hp_below(&seed, 2);
		refused += !reads || !writes;
		int got;
		switch (hp_below(&seed, 3)) {
		case 0:
			if (reads && writes) {
				for (size_t i = 0; i < len; i++) between[i] = model[from + src_off + i];
				for (size_t i = 0; i < len; i++) model[to + dst_off + i] = between[i];
			}
			if (reads && writes && hp_below(&seed, 2)) {
				(exported ? twin.blit_unchecked(src, src_off, dst, dst_off, len)
				          : hp_buf_blit_unchecked(src, src_off, dst, dst_off, len));
				break;
			}
			got = exported ? twin.blit(src, src_off, dst, dst_off, len) : hp_buf_blit(src, src_off, dst, dst_off, len);
			must_be(got, reads && writes ? 0 : -EINVAL);
			break;
		case 1:
			for (size_t i = 0; reads && i < len; i++) model_bytes[i] = model[from + src_off + i];
			if (reads && hp_below(&seed, 2)) {
				(exported ? twin.to_bytes_unchecked(src, src_off, bytes, len)
				          : hp_buf_blit_to_bytes_unchecked(src, src_off, bytes, len));
				break;
			}
			got = exported ? twin.to_bytes(src, src_off, bytes, len) : hp_buf_blit_to_bytes(src, src_off, bytes, len);
			must_be(got, reads ? 0 : -EINVAL);
			break;
		default:
			bytes[hp_below(&seed, SIZE)] = (unsigned char)round;
			memcpy(model_bytes, bytes, SIZE);
			for (size_t i = 0; writes && i < len; i++) model[to + dst_off + i] = model_bytes[i];
			if (writes && hp_below(&seed, 2)) {
				(exported ? twin.from_bytes_unchecked(dst, dst_off, bytes, len)
				          : hp_buf_blit_from_bytes_unchecked(dst, dst_off, bytes, len));
				break;
			}
			got = exported ? twin.from_bytes(dst, dst_off, bytes, len)
			               : hp_buf_blit_from_bytes(dst, dst_off, bytes, len);
			must_be(got, writes ? 0 : -EINVAL);
		}
		must(memcmp(memory, model, SIZE) == 0);
		must(memcmp(bytes, model_bytes, SIZE) == 0);
	}
	must(refused > ROUNDS / 10 && refused < ROUNDS - ROUNDS / 10);
}

static void strings(void **state)
{
	(void)state;
	char memory[8], text[8];
	hp_buf buf = hp_buf_of(memory, sizeof memory);
	for (unsigned exported = 0; exported < 2; exported++) {
		memset(memory, '.', sizeof memory);
		must_be(exported ? twin.from_string(buf, 2, "abc") : hp_buf_blit_from_string(buf, 2, "abc"), 3);
		must_be(memcmp(memory, "..abc...", 8), 0); /* no closing 0 */
		must_be(exported ? twin.from_string(buf, 5, "xyz") : hp_buf_blit_from_string(buf, 5, "xyz"), 3);
		must_be(exported ? twin.from_string(buf, 6, "xyz") : hp_buf_blit_from_string(buf, 6, "xyz"), -EINVAL);
		must_be(exported ? twin.from_string(buf, 8, "") : hp_buf_blit_from_string(buf, 8, ""), 0);
		must_be(memcmp(memory, "..abcxyz", 8), 0);
		must_be(exported ? twin.from_string_unchecked(buf, 0, "01") : hp_buf_blit_from_string_unchecked(buf, 0, "01"),
		        2);
		memset(text, '!', sizeof text);
		must_be(exported ? twin.to_string(buf, 1, 4, text, 5) : hp_buf_blit_to_string(buf, 1, 4, text, 5), 0);
		must_be(memcmp(text, "1abc\0!!!", 8), 0);
		must_be(exported ? twin.to_string(buf, 1, 4, text, 4) : hp_buf_blit_to_string(buf, 1, 4, text, 4), -EINVAL);
		must_be(exported ? twin.to_string(buf, 1, 0, text, 0) : hp_buf_blit_to_string(buf, 1, 0, text, 0), -EINVAL);
		must_be(memcmp(text, "1abc\0!!!", 8), 0);
		must_be(exported ? twin.to_string(buf, 8, 0, text, 1) : hp_buf_blit_to_string(buf, 8, 0, text, 1), 0);
		must_be(memcmp(text, "\0abc\0!!!", 8), 0);
		if (exported)
			twin.to_string_unchecked(buf, 5, 3, text);
		else
			hp_buf_blit_to_string_unchecked(buf, 5, 3, text);
		must_be(strcmp(text, "xyz"), 0);
	}
}

static int sign(int order)
{
	return (order > 0) - (order < 0);
}

static void comparing_is_by_unsigned_bytes_then_by_length(void **state)
{
	(void)state;
	static const struct {
		const char *a, *b;
		size_t a_len, b_len;
		int order;
	} cases[] = {
		{"abc", "abc", 3, 3, 0},        {"abc", "abd", 3, 3, -1},  {"abc", "ab", 3, 2, 1},
		{"b", "abc", 1, 3, 1},          {"\x80", "\x7f", 1, 1, 1}, {"\xff", "\0", 1, 1, 1},
		{"a\0b", "a\0c", 3, 3, -1},     {"", "", 0, 0, 0},         {"", "a", 0, 1, -1},
		{NULL, NULL, 0, 0, 0},          {NULL, "a", 0, 1, -1},     {"a\0", "a", 2, 1, 1},
		{"\x7f\xff", "\x80", 2, 1, -1},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		hp_buf a = hp_buf_of(cases[i].a, cases[i].a_len), b = twin.of(cases[i].b, cases[i].b_len);
		must_be(sign(hp_buf_compare(a, b)), cases[i].order);
		must_be(sign(hp_buf_compare(b, a)), -cases[i].order);
		must_be(sign(twin.compare(a, b)), cases[i].order);
	}
}

/* ---- sub-views ---- */

static void nothing_is_unmapped_under_a_sub_view(void **state)
{
	(void)state;
	size_t page = hp_buf_page_size();
	hp_buf buf, copy, sub, deeper, again;
	must_be(hp_buf_alloc_pages(NULL, 4 * page, 0, &buf), 0);
	copy = buf;
	must_be(hp_buf_sub(buf, page, 2 * page, &sub), 0);
	must_be(hp_buf_sub(sub, 1, 10, &deeper), 0);
	must(deeper.start == buf.start + page + 1);
	must_be(hp_buf_blit_from_string(deeper, 0, "still here"), 10);
	must_be(hp_buf_sub(sub, 2 * page, 1, &again), -EINVAL); /* its bounds are its own */
	must_be(hp_buf_unmap(&buf), -EBUSY);
	must_be(hp_buf_unmap(&sub), -EINVAL);
	must_be(hp_buf_drop(&buf), -EINVAL);
	must_be(hp_buf_drop(&sub), 0);
	must_be_none(sub);
	must_be(hp_buf_unmap(&buf), -EBUSY);
	must_be(hp_buf_unmap(&copy), -EBUSY);
	must_be(buf.start[page + 1], 's');
	again = deeper;
	must_be(hp_buf_drop(&deeper), 0);
	must_be(hp_buf_drop(&again), -ESTALE); /* counted once */
	hp_buf uncounted = hp_buf_sub_unchecked(buf, 3, 4);
	must(uncounted.start == buf.start + 3 && uncounted.len == 4 && !uncounted.owner);
	must_be(twin.sub_unchecked(buf, 3, 4).start - uncounted.start, 0);
	must_be(hp_buf_drop(&uncounted), 0);
	must_be(hp_buf_unmap(&buf), 0);
	must_be_none(buf);
	must_be(hp_buf_unmap(&buf), -EINVAL);
	must_be(hp_buf_unmap(NULL), -EINVAL);
	must_be(hp_buf_drop(NULL), -EINVAL);
	must_be(hp_buf_unmap(&copy), -ESTALE);
	must_be(hp_buf_sub(copy, 0, 1, &sub), -ESTALE);
	must_be_none(sub);
	must_be(hp_buf_zero_pages(copy, 0, page), -ESTALE);

	/* what was unmapped has nothing to do with what took its place, even with the same bookkeeping */
	hp_buf next;
	must_be(hp_buf_alloc_pages(copy.start, 4 * page, 0, &next), 0);
	must(next.owner == copy.owner);
	must_be(hp_buf_unmap(&copy), -ESTALE);
	must_be(hp_buf_sub(copy, 0, 1, &sub), -ESTALE);
	next.start[0] = 1;
	must_be(hp_buf_unmap(&next), 0);

	hp_buf local = hp_buf_of("local", 5);
	must_be(hp_buf_sub(local, 1, 2, &sub), 0);
	must_be(hp_buf_unmap(&local), -EINVAL);
	must_be(hp_buf_drop(&sub), 0);
}

enum { THREADS = 3, TURNS = HP_TEST_SANITIZER ? 2000 : 20000 };

static void *counts(void *arg)
{
	hp_buf mine = *(hp_buf *)arg, sub, deeper;
	for (unsigned i = 0; i < TURNS; i++) {
		must_be(hp_buf_sub(mine, i % 64, 8, &sub), 0);
		must_be(hp_buf_sub(sub, 1, 2, &deeper), 0);
		must_be(hp_buf_drop(&sub), 0);
		must_be(hp_buf_drop(&deeper), 0);
	}
	must_be(hp_buf_drop(&mine), 0);
	return NULL;
}

static void sub_views_of_many_threads_are_counted(void **state)
{
	(void)state;
	hp_buf buf, given[THREADS];
	pthread_t thread[THREADS];
	must_be(hp_buf_alloc_pages(NULL, 1, 0, &buf), 0);
	for (unsigned i = 0; i < THREADS; i++) must_be(hp_buf_sub(buf, 0, 100, &given[i]), 0);
	for (unsigned i = 0; i < THREADS; i++) must_be(pthread_create(&thread[i], NULL, counts, &given[i]), 0);
	int error; /* the last of them ends it, and not earlier: their calls never fail */
	while ((error = hp_buf_unmap(&buf)) == -EBUSY) sched_yield();
	must_be(error, 0);
	for (unsigned i = 0; i < THREADS; i++) must_be(pthread_join(thread[i], NULL), 0);
}

static void *maps(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < TURNS / 20; i++) {
		hp_buf buf[3];
		for (unsigned k = 0; k < 3; k++) {
			must_be(hp_buf_alloc_aligned(64, 100 + k, &buf[k]), 0);
			hp_buf copy = buf[k];
			memset(buf[k].start, (int)k, buf[k].len);
			must_be(hp_buf_sub(copy, k, 1, &copy), 0);
			must_be(hp_buf_unmap(&buf[k]), -EBUSY);
			must_be(hp_buf_drop(&copy), 0);
		}
		for (unsigned k = 0; k < 3; k++) {
			hp_buf copy = buf[k];
			must_be(buf[k].start[99], k);
			must_be(hp_buf_unmap(&buf[k]), 0);
			must_be(hp_buf_unmap(&copy), -ESTALE);
		}
	}
	return NULL;
}

static void owners_of_many_threads_are_not_mixed_up(void **state)
{
	(void)state;
	pthread_t thread[THREADS];
	for (unsigned i = 0; i < THREADS; i++) must_be(pthread_create(&thread[i], NULL, maps, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++) must_be(pthread_join(thread[i], NULL), 0);
}

/* ---- what is there ---- */

static void ranges_of_addresses(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	char *base = hp_pool_base(pool), local[10];
	uint64_t capacity = hp_pool_capacity(pool);
	hp_buf buf;
	must_be(hp_buf_grab(pool, base, capacity, &buf), 0);
	must(buf.start == base && buf.len == capacity && buf.pool == pool && !buf.owner);
	must_be(hp_buf_grab(pool, base + capacity - 1, 1, &buf), 0);
	must_be(hp_buf_grab(pool, base + capacity - 1, 2, &buf), -EINVAL);
	must_be_none(buf);
	must_be(hp_buf_grab(pool, base + capacity, 0, &buf), -EINVAL);
	must_be(hp_buf_grab(pool, base - 1, 2, &buf), -EINVAL);
	must_be(hp_buf_grab(pool, base + 1, SIZE_MAX, &buf), -EINVAL);
	must_be(hp_buf_grab(pool, local, 1, &buf), -EINVAL);
	must_be(hp_buf_grab(pool, NULL, 0, &buf), -EINVAL);
	must_be(hp_buf_grab(NULL, local, sizeof local, &buf), 0);
	must(buf.start == local && buf.len == sizeof local && !buf.pool);
	must_be(hp_buf_grab(NULL, local, SIZE_MAX - (uintptr_t)local, &buf), 0);
	must_be(hp_buf_grab(NULL, local, SIZE_MAX - (uintptr_t)local + 1, &buf), -EINVAL);
	must_be(hp_buf_grab(NULL, NULL, 1, &buf), -EINVAL);
	must_be(hp_buf_grab(NULL, NULL, 0, &buf), 0);
	must_be(hp_buf_grab(NULL, local, 1, NULL), -EINVAL);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void must_grab(hp_pool *pool, void *block, size_t len)
{
	hp_buf buf, sub;
	must_be(hp_buf_grab_block(pool, block, &buf), 0);
	must(buf.start == block && buf.len == len && buf.pool == pool && !buf.owner);
	must_be(hp_buf_sub(buf, len - 1, 1, &sub), 0);
	must(sub.pool == pool);
	must_be(hp_buf_grab_block(pool, (char *)block + 1, &buf), -EINVAL);
	must_be_none(buf);
	must_be(hp_buf_grab_block(pool, (char *)block + (len + 1) / 2, &buf), -EINVAL);
}

static void must_not_grab(hp_pool *pool, const void *block)
{
	hp_buf buf = hp_buf_of("x", 1);
	must_be(hp_buf_grab_block(pool, block, &buf), -EINVAL);
	must_be_none(buf);
}

static void blocks_know_their_length(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(32 * MIB, 0), *other = hp_plain_pool(4 * MIB, 0), *again = hp_attach_again(pool);
	void *block;
	static const size_t pages[] = {1, 3, 64, 700};
	for (unsigned i = 0; i < 4; i++) {
		must_be(hp_page_alloc(pool, pages[i] * PAGE - (i & 1), i == 1 ? HP_PAGE_PROCESS : 0, &block), 0);
		must_grab(pool, block, pages[i] * PAGE);
		must_grab(again, hp_pool_pointer(again, hp_pool_offset(pool, block)), pages[i] * PAGE);
		must_not_grab(pool, (char *)block + PAGE);
		must_not_grab(other, block);
		must_be(hp_page_free(pool, block), 0);
		must_not_grab(pool, block);
	}
	static const size_t sizes[] = {0, 1, 16, 17, 100, 500, 1000, 4096, 5000, 32768, 32769, 300000};
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		block = hp_malloc(pool, sizes[i]);
		must(block);
		must_grab(pool, block, hp_usable_size(pool, block));
		must_be(hp_free(pool, block), 0);
		must_not_grab(pool, block);
	}
	static const struct {
		size_t size, align, offset;
	} kinds[] = {{1, 0, 0},    {8, 8, 0},        {24, 8, 0},      {40, 8, 3},        {100, 64, 20},
	             {200, 0, 0},  {200, 128, 8},    {1000, 16, 1},   {2048, 4096, 100}, {4096, 0, 0},
	             {5000, 8, 7}, {65536, 4096, 0}, {100000, 32, 31}};
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		struct hp_cache_options options = hp_cache_of(kinds[i].size, i == 2 ? HP_CACHE_PROCESS : 0);
		options.align = kinds[i].align;
		options.align_offset = kinds[i].offset;
		hp_cache *cache;
		must_be(hp_cache_create(pool, "buf", &options, &cache), 0);
		void *object[70];
		for (unsigned k = 0; k < 70; k++) { /* of more than one slab, and so of other colours */
			must(object[k] = hp_cache_get(cache, 0));
			must_grab(pool, object[k], kinds[i].size);
			must_grab(again, hp_pool_pointer(again, hp_pool_offset(pool, object[k])), kinds[i].size);
		}
		for (unsigned k = 0; k < 70; k++) {
			must_be(hp_cache_put(cache, object[k]), 0);
			must_not_grab(pool, object[k]);
		}
		if (kinds[i].size <= 1000) {
			char *array = hp_cache_get_array(cache, 0, 5);
			must(array);
			hp_buf first;
			must_be(hp_buf_grab_block(pool, array, &first), 0);
			must_be(first.len, kinds[i].size);
			must_be(hp_cache_put_array(cache, array, 5), 0);
		}
		must_be(hp_cache_destroy(cache), 0);
		for (unsigned k = 0; k < 70; k++) must_not_grab(pool, object[k]);
	}
	must_not_grab(pool, NULL);
	must_not_grab(pool, &block);
	must_not_grab(pool, hp_pool_base(pool));
	must_not_grab(NULL, &block);
	must_be(hp_buf_grab_block(pool, &block, NULL), -EINVAL);
	must_be(hp_pool_detach(again), 0);
	hp_must_be_empty(other);
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(other), 0);
	must_be(hp_pool_detach(pool), 0);
}

static void values_of_heaps_and_pools_only_looked_at_have_no_blocks(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0), *observer;
	int fds[3];
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_observe(fds, &observer), 0);
	hp_heap *heap = hp_heap_make(pool, 4 * MIB);
	hp_tx *tx = hp_heap_start(heap);
	hp_ref ref = node_make(tx, 1);
	must(ref.word);
	must_not_grab(pool, node_at(heap, ref));
	must_not_grab(pool, (void *)((uintptr_t)node_at(heap, ref) & ~(uintptr_t)(PAGE - 1)));
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_destroy(heap, 0, 10000), 0);
	void *block;
	must_be(hp_page_alloc(pool, PAGE, 0, &block), 0);
	must_not_grab(observer, block);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_pool_detach(observer), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

/* While the kernel may write to a block it looks free (io/pin.h). */
static void a_block_under_io_is_a_block_until_it_is_freed(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "buf", 1000, 0);
	struct pin_table *table;
	int life;
	must_be(pin_open(pool, 4, &table, &life), 0);
	void *block[3] = {hp_cache_get(cache, 0), hp_malloc(pool, 100)};
	must_be(hp_page_alloc(pool, 3 * PAGE, 0, &block[2]), 0);
	for (unsigned i = 0; i < 3; i++) must_be(pin_add(table, i, hp_pool_offset(pool, block[i]), 10), 0);
	must_grab(pool, block[0], 1000);
	must_grab(pool, block[1], hp_usable_size(pool, block[1]));
	must_grab(pool, block[2], 3 * PAGE);
	must_be(hp_cache_put(cache, block[0]), 0);
	must_be(hp_free(pool, block[1]), 0);
	must_be(hp_page_free(pool, block[2]), 0);
	for (unsigned i = 0; i < 3; i++) {
		if (i < 2) must_not_grab(pool, block[i]); /* of pages: when the pin is off */
		pin_drop(table, i);
		must_not_grab(pool, block[i]);
	}
	pin_close(table);
	must_be(close(life), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

/* With a tag behind it a block is exactly as long as was asked for. */
static void lengths_in_debug_modes(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	must_be(hp_pool_debug(pool, HP_DEBUG_CANARY), 0);
	for (size_t size = 1; size < 100000; size = size * 3 + 1) {
		hp_buf buf;
		void *block = hp_malloc(pool, size);
		must(block);
		must_be(hp_buf_grab_block(pool, block, &buf), 0);
		must_be(buf.len, size);
		memset(buf.start, 1, buf.len);
		must_be(hp_free(pool, block), 0);
	}
	if (hp_pool_debug(pool, HP_DEBUG_GUARD) == 0) {
		hp_buf buf;
		void *block = hp_malloc(pool, 100);
		must_be(hp_buf_grab_block(pool, block, &buf), 0);
		must(buf.start == block && buf.len == 100);
		must_be(hp_free(pool, block), 0);
		must_not_grab(pool, block);
		must_be(hp_pool_debug(pool, HP_DEBUG_CANARY), 0);
	}
	hp_cache *cache = hp_cache_make(pool, "buf", 100, 0);
	void *object = hp_cache_get(cache, 0);
	must_grab(pool, object, 100);
	memset(object, 1, 100);
	must_be(hp_cache_put(cache, object), 0);
	must_be(hp_cache_destroy(cache), 0);
	must_be(hp_pool_debug(pool, 0), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_bad_range_is_refused_and_nothing_touched),
		cmocka_unit_test(blits_do_what_a_model_does),
		cmocka_unit_test(strings),
		cmocka_unit_test(comparing_is_by_unsigned_bytes_then_by_length),
		cmocka_unit_test(nothing_is_unmapped_under_a_sub_view),
		cmocka_unit_test(sub_views_of_many_threads_are_counted),
		cmocka_unit_test(owners_of_many_threads_are_not_mixed_up),
		cmocka_unit_test(ranges_of_addresses),
		cmocka_unit_test(blocks_know_their_length),
		cmocka_unit_test(values_of_heaps_and_pools_only_looked_at_have_no_blocks),
		cmocka_unit_test(a_block_under_io_is_a_block_until_it_is_freed),
		cmocka_unit_test(lengths_in_debug_modes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
