/* Pages: contiguous runs of 4 KiB, from one page to the whole pool.
 *
 * Lock-free: a pair of allocate and free by one thread costs no locked instruction up to the size of a chunk (2 MiB;
 * smaller in pools under 128 MiB), a free by another thread or process costs one, whatever the length. A process
 * killed inside any of these calls leaves the state before or the state after; a block that was allocated but not yet
 * returned to the application counts as the application's. Any thread and any signal handler may call; no call waits
 * for another process (growth, which happens only when nothing else helps, waits for a live grower that makes
 * progress).
 *
 * Origin: `alloc_mem`, `free_mem`, `size_mem` of Netmcore_mempool and the page level of TSLoad's mempool; without
 * their cap on live blocks and with all that can be wrong about a free told apart. */
#ifndef HUGEPOOL_PAGE_H
#define HUGEPOOL_PAGE_H

#include <hugepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HP_PAGE_SIZE 4096u

#define HP_PAGE_PROCESS \
	1u                         /* class PROCESS: given back when the process dies or detaches; only it may free.
                                  Without the flag class POOL: lives until freed by anybody */
#define HP_PAGE_ZERO 2u        /* filled with zeros */
#define HP_PAGE_STRICT_NODE 4u /* -ENOMEM rather than another node */

/* Allocates `bytes`, rounded up to 4 KiB, contiguous and 4 KiB aligned; the content is undefined without HP_PAGE_ZERO.
 * Prefers memory of the node that the thread runs on, then by distance.
 * -EINVAL: 0 bytes, more than the capacity can express, unknown flags. -ENOMEM: no contiguous run is left, after
 * recovery, taking back what others hold unused, and growth up to the capacity. -EUSERS: no slot is left for this
 * thread. On failure *block is NULL. */
static inline int hp_page_alloc(hp_pool *pool, size_t bytes, unsigned flags, void **block);

/* The exported function behind it: the address, or -errno, in one register (addresses are positive). That is what other
 * languages call; and the reason is speed: a result through memory would cost a tenth of the whole call. */
HP_API intptr_t hp_page_alloc_address(hp_pool *pool, size_t bytes, unsigned flags);

static inline int hp_page_alloc(hp_pool *pool, size_t bytes, unsigned flags, void **block)
{
	intptr_t at = hp_page_alloc_address(pool, bytes, flags);
	*block = at < 0 ? NULL : (void *)at;
	return at < 0 ? (int)at : 0;
}

/* The same on `node` (0 to 63); memory of other nodes only when it has none, and never with HP_PAGE_STRICT_NODE.
 * -EINVAL: no memory of the pool was ever bound to that node, and the flag is given. */
HP_API int hp_page_alloc_on(hp_pool *pool, int node, size_t bytes, unsigned flags, void **block);

/* Frees a block; NULL is nothing. Anybody may free what anybody allocated (class POOL).
 * -EINVAL: not an address of this pool, or not page aligned. -ENOENT: not the start of a live block.
 * -EALREADY: it was, and has been freed. -EPERM: class PROCESS of another process. On an error nothing changes.
 * Not detected: a second free after the memory was handed out again with the same start, or at the same moment as the
 * first. */
HP_API int hp_page_free(hp_pool *pool, void *block);
HP_API int hp_page_free_at(hp_pool *pool, hp_off block);

/* Bytes of the block that starts there, rounded up as allocated; errors as hp_page_free. */
HP_API int64_t hp_page_size(hp_pool *pool, const void *block);
HP_API int64_t hp_page_size_at(hp_pool *pool, hp_off block);

/* Makes `bytes` from `start` zero, both multiples of 4 KiB and inside one live block. The memory stays shared, in
 * place, and populated. -EINVAL: not aligned; -ENOENT: not inside one live block.
 * Origin: `zero_pages` of Netsys_mem, which silently replaced shared by private memory. */
HP_API int hp_page_zero(hp_pool *pool, void *start, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
