/* Ready-made caches of blocks: 64 KiB, and one page of 4 KiB, the same two for every process of a pool.
 *
 * Blocks begin at a page. They are got and put as from any cache, by all its calls: hp_cache_put from whatever process, a
 * second one fails with -EALREADY.
 *
 * Origin: default_pool and small_pool of Netsys_mem. There a block that was freed early was reused under its user's hands,
 * reclaiming and reporting took no lock, and memory came back after two collections of garbage; here what is free is what
 * was put, and goes back when asked for. Blocks of other sizes are caches of that size with an alignment of 4096. */
#ifndef HUGEPOOL_BLOCK_H
#define HUGEPOOL_BLOCK_H

#include <hugepool/cache.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { HP_BLOCK_64K = 0, HP_BLOCK_PAGE = 1 } hp_block;
#define HP_BLOCKS 2
#define HP_BLOCK_NAME_64K "hugepool.64k" /* reserved: of the caches, in every pool */
#define HP_BLOCK_NAME_PAGE "hugepool.page"

/* The cache, made when the pool has none. The handle is the caller's: hp_cache_close. -EINVAL: no such block. -EPROTO,
 * -EINVAL: the pool has a cache of that name that is something else. Errors as hp_cache_create. */
HP_API int hp_block_cache(hp_pool *pool, hp_block block, hp_cache **cache);

/* Bytes of a block; 0: no such block. */
HP_API size_t hp_block_size(hp_block block);

/* Gives back all memory of both caches in which no block is out, to the pool: bytes, or -errno as hp_cache_reclaim. What
 * is to go on to the kernel: hp_pool_trim. */
HP_API int64_t hp_block_reclaim(hp_pool *pool);

/* One of the caches: what hp_cache_stats says, and how full its slabs (runs of pages that hold some blocks) are. */
struct hp_block_stats {
	int made; /* 0: nobody has asked for it yet, and all below is 0 */
	uint64_t size;
	uint64_t in_use, free; /* blocks that are out, and free in slabs */
	uint64_t slabs, bytes;
	uint64_t full, partial, empty; /* slabs with all, some, none of their blocks out */
	uint64_t fails, waits;
};

struct hp_block_report {
	size_t struct_size; /* sizeof this struct */
	struct hp_block_stats of[HP_BLOCKS];
};

/* Exact on a pool at rest. -EINVAL. Works with a handle of hp_pool_observe too. */
HP_API int hp_block_report(hp_pool *pool, struct hp_block_report *report);

/* The same as text for people: a line for each cache and one for each of its slabs. Returns the length it has, without the
 * closing 0; what has no room in `size` bytes is cut off. -EINVAL. */
HP_API int64_t hp_block_report_text(hp_pool *pool, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
