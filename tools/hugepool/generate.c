/* The generated mix: what a link carries, made up. Frame n is a function of n alone, so every run sends the same.
 *
 * At most MIX_FRAMES different frames are made; longer runs repeat them. */
#include "capture.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MIX_FRAMES 16384
#define MIX_FLOWS 4096

static uint64_t scramble(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* Shares of sizes of 1,000 frames: mostly the shortest and the longest, as on a real link. */
static uint32_t pick_length(uint64_t random)
{
	static const struct {
		uint16_t below, length;
	} shares[] = {{380, 64}, {470, 66}, {540, 128}, {600, 256}, {680, 594}, {730, 1024}, {990, 1518}, {1000, 9018}};
	uint32_t share = (uint32_t)(random % 1000), i = 0;
	while (share >= shares[i].below) i++;
	return shares[i].length;
}

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* Ethernet with 0, 1 or 2 tags. Returns where the next header goes. */
static uint32_t put_ethernet(uint8_t *bytes, unsigned tags, uint16_t type)
{
	uint32_t at = 12;
	memcpy(bytes, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02", 12);
	for (unsigned i = 0; i < tags; i++, at += 4) {
		put16(bytes + at, tags == 2 && i == 0 ? 0x88a8 : 0x8100);
		put16(bytes + at + 2, (uint16_t)(100 + i));
	}
	put16(bytes + at, type);
	return at + 2;
}

/* What a conversation looks like. */
struct look {
	bool six;
	uint8_t protocol;
	unsigned tags;
	uint16_t peer;
	uint32_t headers; /* bytes */
};

static struct look look_of(uint64_t flow)
{
	uint64_t traits = scramble(flow);
	struct look look = {.six = traits % 4 == 0, .protocol = traits >> 8 & 1 ? 6 : 17, .peer = (uint16_t)(traits >> 24)};
	look.tags = (traits >> 16 & 7) > 2 ? 0 : traits >> 16 & 7;
	look.headers = 14 + 4 * look.tags + (look.six ? 40 : 20) + (look.protocol == 6 ? 20 : 8);
	return look;
}

/* TCP or UDP of one of the conversations, in either direction. */
static void put_conversation(uint8_t *bytes, uint32_t length, uint64_t flow, bool back)
{
	struct look look = look_of(flow);
	uint32_t at = put_ethernet(bytes, look.tags, look.six ? 0x86dd : 0x0800), from = at;
	uint8_t ends[2][16] = {{0x20, 0x01, 0x0d, 0xb8}, {0x20, 0x01, 0x0d, 0xb8, 1}};
	uint8_t *source = ends[back], *target = ends[!back];
	put16(ends[0] + 14, (uint16_t)flow);
	put16(ends[1] + 14, look.peer);
	if (look.six) {
		bytes[at] = 0x60;
		put16(bytes + at + 4, (uint16_t)(length - at - 40));
		bytes[at + 6] = look.protocol;
		bytes[at + 7] = 64;
		memcpy(bytes + at + 8, source, 16);
		memcpy(bytes + at + 24, target, 16);
		at += 40;
	} else {
		bytes[at] = 0x45;
		put16(bytes + at + 2, (uint16_t)(length - from));
		bytes[at + 8] = 64;
		bytes[at + 9] = look.protocol;
		memcpy(bytes + at + 12, "\x0a\x00", 2);
		memcpy(bytes + at + 14, source + 14, 2);
		memcpy(bytes + at + 16, "\x0a\x00", 2);
		memcpy(bytes + at + 18, target + 14, 2);
		at += 20;
	}
	uint16_t ports[2] = {(uint16_t)(1024 + flow), 443};
	put16(bytes + at, ports[back]);
	put16(bytes + at + 2, ports[!back]);
	if (look.protocol == 6)
		bytes[at + 12] = 0x50;
	else
		put16(bytes + at + 4, (uint16_t)(length - at));
}

/* ARP, ICMP, a later fragment of UDP. */
static void put_other(uint8_t *bytes, uint32_t length, uint64_t kind)
{
	uint32_t at = put_ethernet(bytes, 0, kind % 3 == 0 ? 0x0806 : 0x0800);
	if (kind % 3 == 0) return;
	bytes[at] = 0x45;
	put16(bytes + at + 2, (uint16_t)(length - at));
	put16(bytes + at + 6, kind % 3 == 1 ? 0 : 185);
	bytes[at + 9] = kind % 3 == 1 ? 1 : 17;
}

int capture_generate(size_t frames, struct capture *capture, char *error, size_t size)
{
	*capture = (struct capture){0};
	if (frames > MIX_FRAMES) frames = MIX_FRAMES;
	for (size_t i = 0; i < frames; i++) {
		uint64_t random = scramble(i);
		uint32_t length = pick_length(random);
		bool other = (random >> 32) % 50 == 0;
		/* some conversations carry far more than others */
		uint64_t flow = (random >> 16) % ((random >> 44) % 2 ? MIX_FLOWS : 64);
		if (!other && length < look_of(flow).headers) length = look_of(flow).headers;
		uint8_t *bytes = capture_add(capture, length);
		if (!bytes) {
			snprintf(error, size, "no memory to generate %zu frames", frames);
			capture_free(capture);
			return -1;
		}
		for (uint32_t at = 0; at < length; at++) bytes[at] = (uint8_t)(at + i);
		memset(bytes, 0, length < 96 ? length : 96);
		if (other)
			put_other(bytes, length, random >> 40);
		else
			put_conversation(bytes, length, flow, random >> 63);
	}
	return 0;
}
