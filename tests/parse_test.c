/* The frame parser of the demonstration: what makes a conversation, and that no header leads beyond the captured
 * bytes. The captures in tests/data hold one frame of every form; here are the properties that a count does not show. */
#include "../tools/hugepool/frame.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* Ethernet, IPv4, TCP: 10.0.0.1:1000 to 10.0.0.2:80. */
static const uint8_t whole[54] = {
	2, 0, 0, 0,  0, 1, 2, 0, 0,    0, 0,  2, 8, 0, 0x45, 0, 0, 40, 0, 0,    0, 0, 64, 6, 0, 0, 10,
	0, 0, 1, 10, 0, 0, 2, 3, 0xe8, 0, 80, 0, 0, 0, 0,    0, 0, 0,  0, 0x50, 0, 0, 0,  0, 0, 0, 0,
};

static void both_directions_are_one_flow(void **state)
{
	(void)state;
	uint8_t back[sizeof(whole)];
	struct flow_key there, here;
	memcpy(back, whole, sizeof(back));
	back[29] = 2;
	back[33] = 1;
	memcpy(back + 34, "\0\x50\x03\xe8", 4);
	assert_true(frame_parse(whole, sizeof(whole), &there));
	assert_true(frame_parse(back, sizeof(back), &here));
	assert_true(flow_key_same(&there, &here));
	assert_int_equal(flow_hash(&there), flow_hash(&here));
	assert_int_equal(there.port[0], 1000);
	assert_int_equal(there.port[1], 80);
	assert_int_equal(there.family, 4);
	assert_int_equal(there.protocol, 6);
}

/* The ports stay with their addresses: exchanging only the ports makes another flow. */
static void ports_belong_to_addresses(void **state)
{
	(void)state;
	uint8_t other[sizeof(whole)];
	struct flow_key a, b;
	memcpy(other, whole, sizeof(other));
	memcpy(other + 34, "\0\x50\x03\xe8", 4);
	assert_true(frame_parse(whole, sizeof(whole), &a));
	assert_true(frame_parse(other, sizeof(other), &b));
	assert_false(flow_key_same(&a, &b));
	assert_true(flow_hash(&a) != flow_hash(&b));
}

static void every_byte_of_the_key_counts(void **state)
{
	(void)state;
	struct flow_key key, changed;
	assert_true(frame_parse(whole, sizeof(whole), &key));
	uint64_t hash = flow_hash(&key);
	for (size_t i = 0; i < sizeof(key); i++) {
		changed = key;
		((uint8_t *)&changed)[i] ^= 1;
		assert_false(flow_key_same(&key, &changed));
		assert_true(flow_hash(&changed) != hash);
	}
}

static void cut_anywhere_it_is_other(void **state)
{
	(void)state;
	struct flow_key key;
	for (size_t length = 0; length < sizeof(whole); length++) assert_false(frame_parse(whole, length, &key));
}

/* Bytes behind the end of the packet, as its own header states it, are padding and no header. */
static void padding_is_no_header(void **state)
{
	(void)state;
	uint8_t padded[sizeof(whole)];
	struct flow_key key;
	memcpy(padded, whole, sizeof(padded));
	padded[17] = 39; /* one byte of TCP's header is outside */
	assert_false(frame_parse(padded, sizeof(padded), &key));
	padded[17] = 0; /* no length stated: as captured */
	assert_true(frame_parse(padded, sizeof(padded), &key));
	padded[17] = 19; /* shorter than the header that says so */
	assert_false(frame_parse(padded, sizeof(padded), &key));
}

/* Frames of random bytes, with the places that steer the parser set to what leads deep into it, end at a page that
 * cannot be read: any read behind the frame kills the test. */
static void never_reads_behind_the_frame(void **state)
{
	(void)state;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(memory != MAP_FAILED);
	assert_int_equal(mprotect(memory + page, page, PROT_NONE), 0);
	static const uint8_t next[] = {0, 6, 17, 43, 44, 51, 60};
	unsigned long flows = 0;
	srandom(1);
	for (int round = 0; round < 300000; round++) {
		size_t length = (size_t)random() % 160;
		uint8_t *frame = memory + page - length;
		struct flow_key key;
		for (size_t i = 0; i < length; i++) frame[i] = (uint8_t)random();
		size_t at = 12;
		for (int tags = (int)(random() % 4); tags > 0 && at + 4 < length; tags--, at += 4)
			memcpy(frame + at, random() % 2 ? "\x81\x00" : "\x88\xa8", 2);
		bool six = random() % 2;
		if (at + 3 < length) {
			memcpy(frame + at, six ? "\x86\xdd" : "\x08\x00", 2);
			frame[at + 2] = six ? 0x60 : (uint8_t)(0x40 | random() % 16);
		}
		if (at + 10 < length && six) frame[at + 8] = next[(size_t)random() % sizeof(next)];
		for (size_t i = at + 42; six && i < length; i += 8) {
			frame[i] = next[(size_t)random() % sizeof(next)];
			if (i + 1 < length) frame[i + 1] = (uint8_t)(random() % 3);
		}
		if (at + 12 < length && !six) frame[at + 11] = random() % 2 ? 6 : 17;
		flows += frame_parse(frame, length, &key);
	}
	assert_true(flows > 1000); /* otherwise nothing was tried */
	munmap(memory, 2 * page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_directions_are_one_flow), cmocka_unit_test(ports_belong_to_addresses),
		cmocka_unit_test(every_byte_of_the_key_counts), cmocka_unit_test(cut_anywhere_it_is_other),
		cmocka_unit_test(padding_is_no_header),         cmocka_unit_test(never_reads_behind_the_frame),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
