/* What the tests of caches share: caches with few options, their numbers, and objects that know whose they are. */
#ifndef HP_CACHE_TEST_H
#define HP_CACHE_TEST_H

#include <hugepool/cache.h>

#include "hp_process.h"

static inline struct hp_cache_options hp_cache_of(size_t size, unsigned flags)
{
	return (struct hp_cache_options){.struct_size = sizeof(struct hp_cache_options), .size = size, .flags = flags};
}

static inline hp_cache *hp_cache_make(hp_pool *pool, const char *name, size_t size, unsigned flags)
{
	struct hp_cache_options options = hp_cache_of(size, flags);
	hp_cache *cache;
	must_be(hp_cache_create(pool, name, &options, &cache), 0);
	return cache;
}

static inline hp_cache *hp_cache_opened(hp_pool *pool, const char *name)
{
	hp_cache *cache;
	must_be(hp_cache_open(pool, name, NULL, &cache), 0);
	return cache;
}

static inline struct hp_cache_stats hp_cache_numbers(hp_cache *cache)
{
	struct hp_cache_stats stats = {.struct_size = sizeof stats};
	must_be(hp_cache_stats(cache, &stats), 0);
	return stats;
}

/* Objects of a page and more are marked at both ends of each page, small ones everywhere. */
static inline void hp_cache_fill(void *object, size_t size, uint64_t whose)
{
	unsigned char *at = (unsigned char *)object;
	for (size_t i = 0; i<size; i += size> 8192 && i % 512 > 64 ? 61 : 1) at[i] = (unsigned char)(whose * 31 + i * 7);
}

static inline bool hp_cache_filled(const void *object, size_t size, uint64_t whose)
{
	const unsigned char *at = (const unsigned char *)object;
	for (size_t i = 0; i<size; i += size> 8192 && i % 512 > 64 ? 61 : 1)
		if (at[i] != (unsigned char)(whose * 31 + i * 7)) return false;
	return true;
}

/* NULL, and why. */
#define must_refuse(call, error) \
	do { \
		errno = 0; \
		must((call) == NULL); \
		must_be(errno, error); \
	} while (0)

#endif
