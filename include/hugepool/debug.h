/* Debug modes of hp_malloc and of caches, switched on at run time for one handle of a pool.
 *
 * A mode that is off costs nothing. With any mode on, all calls of the handle take the slow paths (tens of nanoseconds and
 * more), and so it stays when the modes are switched off again. Other processes of the pool need not know: each may free
 * what the other has allocated, nobody is harmed, and what carries no tag is not checked.
 *
 * By the environment: HUGEPOOL_DEBUG, read when a pool is created or attached and when the default pool is made; words with
 * commas between them: poison, canary, cold, caller, guard, track, fail=N. What makes no sense is reported and left out.
 * Programs that run with other privileges than their caller's ignore the variable.
 *
 * Reports go to the log of the handle, or to standard error where it has none; each is one line.
 *
 * What each mode does, and where it cannot:
 *
 * POISON  An object is filled with a pattern when it is freed, and looked at when it is got again: what was written in
 *         between is reported, and the get goes on. What is got holds 0xa5 bytes (but for calloc, and caches that promise
 *         zeros). Not looked at: blocks over 32 KiB, which are only filled; objects whose slab has changed hands
 *         meanwhile; objects that were overwritten as a whole. Caches with a constructor are left alone: their objects
 *         keep their contents while they are cached.
 * CANARY  Behind the bytes asked for lie at least 48 more. When the block is freed and these have changed, that is reported
 *         and the free returns -EFAULT; the block is freed all the same. hp_usable_size says exactly what was asked for,
 *         and hp_realloc always moves. Caches: only those that were made by a handle with CANARY, CALLER or TRACK on have
 *         room behind their objects (for every process; 48 bytes rounded up to the alignment). Arrays
 *         (hp_cache_get_array) are not checked. A process without the mode that resizes such a block in place, uses all of
 *         hp_usable_size, or frees a block and gets it again, makes the next free by a process with it report what was no
 *         fault; and an overrun over all of the room looks like a block without tag.
 * COLD    A freed object is left to its slab: it is not got again before the thread's other free objects at hand are used
 *         up (up to 64). Errors of use after free thus have time to show.
 * CALLER  With each block and object: who called, by address, thread and process; listed by hp_pool_holders and by
 *         `hugepool show --holders`. Needs room like CANARY.
 * GUARD   hp_malloc only: each block ends, rounded up to 16 bytes, at the end of a page, and the page behind it cannot be
 *         touched by this process: an overrun is a SIGSEGV at the very instruction. Costs at least three pages a block.
 *         Only the process that allocated such a block can free or resize it, or whoever has a mode on after its death;
 *         others, a forked child too, get -EPERM, or without modes -EINVAL or -ENOENT. Not on huge pages of 1 GiB and 2 MiB. Alignments over
 *         2048, and blocks for which the kernel has no more mappings (vm.max_map_count), are served without guard page.
 * TRACK   Private pools only: tells Valgrind's memcheck, or the address sanitizer in a library built with it, what is
 *         allocated and what is free. Costs room like CANARY. Nothing, where the library was built without either.
 *
 * hp_alloc_into and hp_free_from take no part. */
#ifndef HUGEPOOL_DEBUG_H
#define HUGEPOOL_DEBUG_H

#include <hugepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HP_DEBUG_POISON 1u
#define HP_DEBUG_CANARY 2u
#define HP_DEBUG_COLD 4u
#define HP_DEBUG_CALLER 8u
#define HP_DEBUG_GUARD 16u
#define HP_DEBUG_TRACK 32u

/* Exactly these modes, for this handle in all threads. -EINVAL: unknown flag. -ENOTSUP: GUARD on huge pages, TRACK in a pool
 * that is not private; nothing has changed then. -EROFS: an observer. -ENOMEM. */
HP_API int hp_pool_debug(hp_pool *pool, unsigned flags);

/* Every n-th allocation (hp_malloc and its relatives, hp_cache_get without HP_CACHE_WAIT and HP_CACHE_URGENT) through this
 * handle fails with ENOMEM, as if there were no memory; the first n - 1 from now on do not. 0: none. Errors as above. */
HP_API int hp_pool_debug_fail(hp_pool *pool, unsigned n);

/* How many faults this handle has reported. */
HP_API uint64_t hp_pool_debug_findings(const hp_pool *pool);

/* Who holds what: one entry for each place that called, of each process. */
struct hp_holder {
	int pid, tid;    /* tid 0: several threads; pid 0: what carries no tag */
	uint64_t caller; /* address in that process; 0 with pid 0 */
	uint64_t blocks; /* live ones */
	uint64_t bytes;  /* as asked for; of what carries no tag, as taken */
};

/* Fills in up to `room` entries, the most bytes first, and returns how many there are, or -errno (-ENOMEM). Works on any
 * handle, an observer's too, and needs no mode; what carries no tag is the objects of slabs without one. Exact on a pool at
 * rest. Anybody who can write to the pool can put anything there. */
HP_API int hp_pool_holders(hp_pool *pool, struct hp_holder *holders, unsigned room);

/* "symbol+0x12", as far as the dynamic linker knows it and the holder is this process; else the address. Returns the length
 * as snprintf does. */
HP_API int hp_holder_name(const struct hp_holder *holder, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
