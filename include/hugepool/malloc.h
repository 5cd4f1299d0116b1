/* A general malloc on a pool, of which every process may free what any process has allocated.
 *
 * Up to 32 KiB objects come from slabs of their size class, which a thread owns, so that a pair of malloc and free by one
 * thread costs no locked instruction; above, runs of pages. What size classes waste is under 12.5 % from 64 bytes up;
 * below, classes are 16 bytes apart. Every block is aligned to 16 bytes at least.
 *
 * A process killed inside any of these calls leaves the block allocated or free, nothing between; what it had allocated
 * stays allocated until somebody frees it (class POOL). Any thread may call; signal handlers as well, which no libc
 * promises. Nothing waits for another process, but for what growth waits (pool.h).
 *
 * `pool` NULL is the process' default pool, made at the first use. It is a private one (HP_POOL_PRIVATE): its memory is the
 * process' own and shared with nobody, and a forked child has a copy. HUGEPOOL_SIZE says how much it may become (bytes, or
 * with K, M, G, T; else four times the machine's memory), HUGEPOOL_PAGES on which pages (1g, 2m, thp, 4k; else transparent
 * huge pages where the kernel has them), HUGEPOOL_NODE on which node (else any). Memory is committed as it is needed, from
 * the first touch on; huge pages of 1g and 2m before they are handed out. libhugepool_malloc.so is malloc on this pool, in
 * programs that know nothing of it.
 *
 * Origin: `mp_malloc`, `mp_realloc`, `mp_free` of TSLoad's mempool, which aborted when memory ran out. */
#ifndef HUGEPOOL_MALLOC_H
#define HUGEPOOL_MALLOC_H

#include <hugepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* `size` bytes, of undefined content; 0 is a block as well. NULL with errno: ENOMEM (also for any size over the pool's
 * capacity), EROFS, EUSERS, as hp_page_alloc. */
HP_API void *hp_malloc(hp_pool *pool, size_t size);

/* `count` times `size` bytes of zeros; ENOMEM when the product overflows. */
HP_API void *hp_calloc(hp_pool *pool, size_t count, size_t size);

/* Another size for a block, in place where it can be; what both sizes hold is kept. `block` NULL is hp_malloc; size 0
 * gives a block of the smallest size. On failure NULL, and the old block is as it was. EINVAL: not a live block. A death
 * on the way leaves the old block, or both. */
HP_API void *hp_realloc(hp_pool *pool, void *block, size_t size);

/* Aligned to `align`, a power of two. EINVAL: it is none. */
HP_API void *hp_aligned_alloc(hp_pool *pool, size_t align, size_t size);

/* Frees a block; NULL is nothing. -EINVAL: not an address of this pool, or not one where a block can begin. -ENOENT: no
 * block begins there. -EALREADY: one did, and has been freed. On an error nothing changes. Not detected: a second free
 * after the memory was handed out again, or at the same moment as the first. */
HP_API int hp_free(hp_pool *pool, void *block);

/* Bytes that may be used, at least what was asked for; 0 when no block begins there. */
HP_API size_t hp_usable_size(hp_pool *pool, const void *block);

/* `count` blocks of `size` bytes: all (0), or none (-ENOMEM; blocks is then undefined). */
HP_API int hp_malloc_bulk(hp_pool *pool, size_t size, size_t count, void **blocks);

/* Frees `count` blocks; those of one slab that another thread owns at once, exactly once whenever the caller dies. Returns
 * 0, or the first error, with all the others freed. */
HP_API int hp_free_bulk(hp_pool *pool, size_t count, void *const *blocks);

/* Allocation and publication in one step: `dst`, 8 bytes in this pool that are 0, comes to name a new block of `size` bytes,
 * up to 32 KiB. Whenever the caller dies, either both has happened or neither. -EBUSY: the word was not empty. -EINVAL:
 * size, or not a word of this pool. -ENOMEM. Others read the word with hp_published only. */
HP_API int hp_alloc_into(hp_pool *pool, size_t size, uint64_t *dst);

/* The reverse: the word becomes empty and the block that it named is free. Of several who try one succeeds. -ENOENT: it was
 * empty. -EAGAIN: somebody is doing the same in that slab, and does not come to an end. */
HP_API int hp_free_from(hp_pool *pool, uint64_t *dst);

/* The block that a word names, as an offset, or HP_OFF_NONE: empty, or about to be. */
static inline hp_off hp_published(const uint64_t *word)
{
	uint64_t value = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	return (value & 15) == 8 ? value & ~(uint64_t)15 : HP_OFF_NONE;
}

/* From now on a shortage in hp_malloc, hp_calloc, hp_realloc, hp_aligned_alloc and hp_malloc_bulk through this handle (ENOMEM)
 * is the end of the process: a message to the log, or to standard error without one, and abort(). For programs that could
 * do nothing else. Off by default. Products that overflow, and what hp_realloc can serve in place, are no shortage. -EROFS: an
 * observer.
 * Origin: TSLoad's mempool, which did nothing else. */
HP_API int hp_malloc_abort_on_shortage(hp_pool *pool, bool aborts);

/* The default pool, made when it is not there yet; NULL with errno when it cannot be made: EINVAL when the environment asks
 * for what makes no sense, else as hp_pool_create. */
HP_API hp_pool *hp_pool_default(void);

#ifdef __cplusplus
}
#endif
#endif
