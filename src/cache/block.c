/* The ready-made caches of blocks. A block of 64 KiB is a slab by itself, so what is put is free memory; pages come in slabs
 * of sixteen. */
#include "cache/cache.h"
#include <hugepool/block.h>
#include <errno.h>

#define TRIES 8 /* against somebody who makes and destroys it all the time */

static const struct {
	const char *name;
	size_t size;
} blocks[HP_BLOCKS] = {
	[HP_BLOCK_64K] = {HP_BLOCK_NAME_64K, 65536}, [HP_BLOCK_PAGE] = {HP_BLOCK_NAME_PAGE, HP_PAGE_SIZE}};

size_t hp_block_size(hp_block block)
{
	return (unsigned)block < HP_BLOCKS ? blocks[block].size : 0;
}

static int open_block(hp_pool *pool, hp_block block, hp_cache **cache)
{
	struct hp_cache_options size = {.struct_size = sizeof size, .size = blocks[block].size};
	int error = hp_cache_open(pool, blocks[block].name, &size, cache);
	if (error < 0 || (*cache)->shared->align == HP_PAGE_SIZE) return error;
	hp_cache_close(*cache);
	*cache = NULL;
	return -EPROTO;
}

int hp_block_cache(hp_pool *pool, hp_block block, hp_cache **cache)
{
	if (!pool || !cache || !hp_block_size(block)) return -EINVAL;
	const struct hp_cache_options options = {
		.struct_size = sizeof options, .size = blocks[block].size, .align = HP_PAGE_SIZE};
	int error = -ENOENT;
	*cache = NULL;
	for (unsigned i = 0; i < TRIES && error == -ENOENT; i++) {
		error = open_block(pool, block, cache);
		if (error == -ENOENT) error = hp_cache_create(pool, blocks[block].name, &options, cache);
		if (error == -EEXIST) error = -ENOENT;
	}
	return error;
}

int64_t hp_block_reclaim(hp_pool *pool)
{
	int64_t sum = 0;
	if (!pool) return -EINVAL;
	for (unsigned i = 0; i < HP_BLOCKS; i++) {
		hp_cache *cache;
		int error = open_block(pool, (hp_block)i, &cache);
		if (error == -ENOENT || error == -EPROTO || error == -EINVAL) continue; /* none of ours */
		if (error < 0) return error;
		int64_t bytes = hp_cache_reclaim(cache);
		hp_cache_close(cache);
		if (bytes == -ESTALE) continue; /* ended since we opened it */
		if (bytes < 0) return bytes;
		sum += bytes;
	}
	return sum;
}
