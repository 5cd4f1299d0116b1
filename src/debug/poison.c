/* Poison: a pattern in free objects, different in each word, and bound to the slab and its control word. That word
 * changes whenever the slab changes hands, ends or begins, so memory that was used meanwhile in a way that knows nothing of poison
 * (by a process without the mode, as pages, in other slabs) does not look like poison that somebody has damaged: to use it
 * it had to change hands. What does match in one word was poisoned in all of them. */
#include "debug/debug.h"
#include "slab/slab.h"
#include <string.h>

#define BLANK 0xa5

uint64_t debug_key(const hp_pool *pool, const struct slab *slab)
{
	uint64_t ctl = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	return (ctl ^ (uint64_t)(slab - pool->slabs) * UINT64_C(0xd6e8feb86659fd93)) | 1;
}

static uint64_t start_of(const hp_pool *pool, const char *object, uint64_t key)
{
	uint64_t epoch = atomic_load_explicit(&pool->debug->epoch, memory_order_relaxed);
	uint64_t off = (uint64_t)(object - pool->base), value = (key ^ epoch << 56) * UINT64_C(0x9fb21c651e98df25) ^ off;
	return (value ^ value >> 29) * UINT64_C(0xd6e8feb86659fd93) | 1;
}

static uint64_t word_of(uint64_t start, size_t i)
{
	return start + i * UINT64_C(0x9e3779b97f4a7c15);
}

void debug_poison(hp_pool *pool, char *object, size_t raw, uint64_t key)
{
	uint64_t start = start_of(pool, object, key);
	for (size_t i = 0; i < raw / 8; i++) {
		uint64_t word = word_of(start, i);
		memcpy(object + i * 8, &word, 8);
	}
}

void debug_unpoison(hp_pool *pool, char *object, size_t raw, uint64_t key)
{
	uint64_t start = start_of(pool, object, key);
	size_t same = 0, first = SIZE_MAX, words = raw / 8;
	for (size_t i = 0; i < words; i++) {
		uint64_t word;
		memcpy(&word, object + i * 8, 8);
		if (word == word_of(start, i)) {
			same++;
			continue;
		}
		if (first != SIZE_MAX) continue;
		uint64_t differ = word ^ word_of(start, i);
		first = i * 8;
		for (unsigned byte = 0; byte < 8; byte++) /* memory's order, whatever the machine's */
			if (((const unsigned char *)&differ)[byte]) {
				first += byte;
				break;
			}
	}
	if (same && same < words)
		debug_report(pool,
		             "hugepool: poison: byte %zu of the object of %zu bytes at offset 0x%llx was written after the "
		             "object was freed (%zu of its words are not as the free left them): look for who still uses it",
		             first, raw, (unsigned long long)(object - pool->base), words - same);
	memset(object, BLANK, raw);
}
