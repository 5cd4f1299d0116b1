/* Pins: memory of the pool that the kernel may touch until an I/O ends.
 *
 * A ring (io_uring, or the rings of an AF_XDP socket) has an entry in the control file, a table of pins in pages of the pool,
 * and a lock byte of the lives file. The byte is locked through a description of its own, which is handed to the kernel with the
 * ring (registered with it) and closed by us: so it is free only when the kernel has torn the ring down, which for a process
 * that was killed is later than its death. Until then what the table names stays as it is; then whoever recovers the dead
 * lets go of it.
 *
 * A pinned block is lent: free by its bits, or of another type by its length, so that everybody who frees it leaves the fast
 * path, and comes to lend_free, which notes that it is to be free when the last pin on it ends (src/slab/lend.h,
 * src/page/lend.h). Blocks: objects of caches and of hp_malloc, arrays of them, and runs of pages. */
#ifndef HUGEPOOL_PIN_H
#define HUGEPOOL_PIN_H

#include "pool/pool.h"
#include <hugepool/cache.h>

struct pin_table; /* private to the process */

/* Takes an entry and pages for `pins` pins. *life: a descriptor to register with the kernel's ring as a file, and then to close
 * (whoever has no such ring keeps it open as long as the kernel may be at work). -ENOSPC: as many rings as a pool has room
 * for; -ENOMEM; -EMFILE. A death at any point leaves nothing. */
int pin_open(hp_pool *pool, uint32_t pins, struct pin_table **table, int *life);

/* The kernel has let go of the ring and all its I/O: drops what is still pinned, gives everything back. */
void pin_close(struct pin_table *table);

/* The kernel has memory registered, by its pages: from here on nothing of it is trimmed while the ring lives. Before the
 * registration. */
void pin_registered(struct pin_table *table);

/* Pin number `index` (0 to pins - 1, of the caller's choice, not in use): bytes [off, off + len) of one block, len > 0. Before the
 * I/O is submitted. -EINVAL: not inside one live block, or memory of a heap; -EBUSY: 6 pins are on the block already. By one thread
 * at a time per index. */
int pin_add(struct pin_table *table, uint32_t index, hp_off off, uint64_t len);
/* After the I/O has ended. A block that was freed meanwhile is free now. */
void pin_drop(struct pin_table *table, uint32_t index);

/* An object of the cache that belongs to the ring itself from the moment it is got, waiting to be filled by the kernel: it is
 * not lent, and goes back to its cache when the ring is closed or its process dies, once the kernel has let go; got and noted
 * in one step, so that no death loses it. -ENOMEM, -EAGAIN (its hard limit): none is to be had; -ENOTSUP: a cache with a
 * constructor, or one that is not in this pool. It never waits. */
int pin_get(struct pin_table *table, uint32_t index, hp_cache *cache, hp_off *off);
/* The same with one that the application has, and gives away: whoever frees it from here on does so twice. Errors as
 * hp_cache_put's: -EINVAL, -ENOENT, -EALREADY; and -ENOTSUP. */
int pin_own(struct pin_table *table, uint32_t index, hp_cache *cache, hp_off off);
/* It is the application's from here on: somebody else's death does not matter to it any more. Its address was *off. */
void pin_release(struct pin_table *table, uint32_t index);
/* It goes back to its cache; the kernel has not got it, or is done with it. */
void pin_put(struct pin_table *table, uint32_t index);

/* No ring at or above it was ever opened. */
uint32_t pin_rings_top(const hp_pool *pool);
/* Is there a ring, of the living or the dead, that the kernel has this pool's memory registered with? */
bool pin_any_registered(hp_pool *pool);
/* Has some ring its pins in the run that begins at the page? */
bool pin_names(const hp_pool *pool, uint64_t page);
/* Is there a ring at all? */
bool pin_any(hp_pool *pool);

#endif
