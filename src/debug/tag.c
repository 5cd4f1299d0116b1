/* The tag at the end of a block's room: what was asked for, by whom, and whether anything behind it was overwritten. */
#include "debug/debug.h"
#include "debug/track.h"
#include "os/os.h"
#include <errno.h>
#include <string.h>

#define BEGIN UINT64_C(0xd1b54a32d192ed03)
#define END UINT64_C(0x8cb92ba72f3d8dd7)
#define FILL 0xcb

static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return (value ^ value >> 32) * UINT64_C(0xd6e8feb86659fd93);
}

static uint64_t sum_of(const struct debug_tag *tag, hp_off end)
{
	return mix(mix(mix(end ^ tag->size) ^ tag->caller) ^ ((uint64_t)tag->pid << 32 | tag->tid));
}

enum debug_tagged debug_tag_read(const struct debug_tag *tag, hp_off end, uint64_t raw)
{
	bool begins = tag->begin == mix(end ^ BEGIN), ends = tag->end == mix(end ^ END);
	bool sums = tag->sum == sum_of(tag, end) && tag->size <= raw - DEBUG_ROOM;
	if (begins && ends && sums) return DEBUG_TAGGED;
	return begins || ends || sums ? DEBUG_DAMAGED : DEBUG_UNTAGGED;
}

bool debug_wants_tag(const hp_pool *pool)
{
	return debug_flags(pool) & (HP_DEBUG_CANARY | HP_DEBUG_CALLER | HP_DEBUG_TRACK);
}

static hp_off end_of(const hp_pool *pool, const char *block, size_t raw)
{
	return (hp_off)(block + raw - pool->base);
}

void debug_tag_write(hp_pool *pool, char *block, size_t raw, size_t size, const void *caller)
{
	hp_off end = end_of(pool, block, raw);
	struct debug_tag tag = {.begin = mix(end ^ BEGIN),
	                        .size = size,
	                        .caller = (uintptr_t)caller,
	                        .pid = (uint32_t)os_pid(),
	                        .tid = (uint32_t)os_tid(),
	                        .end = mix(end ^ END)};
	tag.sum = sum_of(&tag, end);
	memset(block + size, FILL, raw - DEBUG_ROOM - size);
	memcpy(block + raw - DEBUG_ROOM, &tag, sizeof tag);
}

size_t debug_tag_size(const hp_pool *pool, const char *block, size_t raw)
{
	struct debug_tag tag;
	if (raw < DEBUG_ROOM) return raw;
	track_peek(&tag, block + raw - DEBUG_ROOM, sizeof tag);
	return debug_tag_read(&tag, end_of(pool, block, raw), raw) == DEBUG_TAGGED ? tag.size : raw;
}

int debug_tag_end(hp_pool *pool, char *block, size_t raw)
{
	struct debug_tag tag;
	if (raw < DEBUG_ROOM) return 0;
	track_peek(&tag, block + raw - DEBUG_ROOM, sizeof tag);
	enum debug_tagged tagged = debug_tag_read(&tag, end_of(pool, block, raw), raw);
	if (tagged == DEBUG_UNTAGGED) return 0;
	memset(block + raw - DEBUG_ROOM, 0, DEBUG_ROOM);
	unsigned long long at = (unsigned long long)(block - pool->base);
	if (tagged == DEBUG_DAMAGED) {
		if (debug_flags(pool) & HP_DEBUG_CANARY)
			debug_report(pool,
			             "hugepool: canary: the tag of the block at offset 0x%llx was overwritten, which lies at byte "
			             "%zu of it: look for who writes beyond its end",
			             at, raw - DEBUG_ROOM);
		return debug_flags(pool) & HP_DEBUG_CANARY ? -EFAULT : 0;
	}
	size_t i = tag.size;
	if (!(debug_flags(pool) & HP_DEBUG_CANARY)) return 0;
	while (i < raw - DEBUG_ROOM && (unsigned char)block[i] == FILL) i++;
	if (i == raw - DEBUG_ROOM) return 0;
	debug_report(pool,
	             "hugepool: canary: byte %zu of the block at offset 0x%llx was overwritten, which has %llu bytes; it "
	             "was allocated by thread %u of process %u at 0x%llx: look for who writes beyond its end",
	             i, at, (unsigned long long)tag.size, tag.tid, tag.pid, (unsigned long long)tag.caller);
	return -EFAULT;
}
