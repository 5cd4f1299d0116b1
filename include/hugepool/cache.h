/* Caches: objects of one size, from slabs in the pool, named, the same for every process of the pool.
 *
 * Getting and putting by one thread costs no locked instruction; putting what another thread's slab holds costs one. Every
 * thread has its own magazine of free objects, from its first call on, without registration. A process killed inside any
 * call leaves the object free or out, nothing between. Objects of class POOL (the default) stay out until somebody puts them
 * back; those of class PROCESS go back when the process that got them dies or detaches.
 *
 * Any thread and any signal handler may get (without waiting) and put. Nothing waits for another process, but for
 * HP_CACHE_WAIT, and creating, opening and destroying, which wait like growth (pool.h).
 *
 * Origin: pool(9) and pool_cache(9) of the BSDs; `mp_cache_*` of TSLoad; the block pools of Netsys_mem. What differs from
 * them: nothing is fatal, waiting has a timeout, the limit holds with magazines, and marks are what their names say. */
#ifndef HUGEPOOL_CACHE_H
#define HUGEPOOL_CACHE_H

#include <hugepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_cache hp_cache; /* one process' handle */

/* Options */
#define HP_CACHE_ZERO 1u            /* objects are zero when got */
#define HP_CACHE_LARGE_MAGAZINES 2u /* magazines begin at their full size, 64 objects */
#define HP_CACHE_NO_MAGAZINES 4u    /* and these hold one */
#define HP_CACHE_PROCESS 8u         /* class PROCESS */
#define HP_CACHE_ON_NODE 16u        /* memory of `node` only */
#define HP_CACHE_COUNT 32u          /* gets and puts are counted: a locked instruction each, off the fast path */

/* hp_cache_get */
#define HP_CACHE_NOWAIT 0u    /* fail at once */
#define HP_CACHE_WAIT 1u      /* wait until there is one */
#define HP_CACHE_LIMITFAIL 2u /* with WAIT: fail at the hard limit, wait for memory */
#define HP_CACHE_URGENT 4u /* abort, with a message, when there is none: for callers that could only do so themselves */

/* Called with nothing held, by the process that gets or gives back. Not 0 from the constructor: the object is not given
 * out, and hp_cache_get fails with ECANCELED. */
typedef int hp_ctor_fn(void *arg, void *object, unsigned flags);
typedef void hp_dtor_fn(void *arg, void *object);

struct hp_cache_options {
	size_t struct_size;  /* sizeof this struct */
	size_t size;         /* of an object, in bytes, 1 to 1,044,480, and in small pools to the size of a chunk */
	size_t align;        /* a power of two up to 4096; 0: 16, or 8 where the size is no multiple of 16 */
	size_t align_offset; /* the byte of an object that is aligned; below align */
	int node;            /* with HP_CACHE_ON_NODE */
	unsigned flags;
	/* Each process gives its own. An object is constructed when it is first got, and stays so while it is cached. A process
	 * without the destructor never gives back memory in which objects are constructed. */
	hp_ctor_fn *ctor;
	hp_dtor_fn *dtor;
	void *arg;
};

/* Makes a cache. `name`: 1 to 39 bytes. -EEXIST: there is one of that name. -EINVAL: options make no sense. -ENOSPC: 184
 * caches a pool. -EROFS, -ENOMEM. A death leaves it made or not. */
HP_API int hp_cache_create(hp_pool *pool, const char *name, const struct hp_cache_options *options, hp_cache **cache);

/* Opens the cache of that name. `options` may be NULL: then without constructor and destructor; else only these are looked
 * at, and size when it is not 0. -ENOENT: there is none; -EPROTO: it is of another size; -EINVAL: it was made with (or
 * without) a constructor, and this process gives none (or one). */
HP_API int hp_cache_open(hp_pool *pool, const char *name, const struct hp_cache_options *options, hp_cache **cache);

/* Forgets the handle. The cache stays, unless it is a private one: that ends, whatever is out, and no destructor is called.
 * No other thread may be using it. */
HP_API void hp_cache_close(hp_cache *cache);

/* Ends the cache for everybody, and closes the handle. -EBUSY: objects are out, or another call is just destroying some, and
 * nothing has happened. What other processes do with it later fails with ESTALE. */
HP_API int hp_cache_destroy(hp_cache *cache);

/* An object; undefined content without HP_CACHE_ZERO and constructor. NULL with errno: ENOMEM no memory, EAGAIN the hard
 * limit, ECANCELED the constructor refused, ESTALE the cache was destroyed, EROFS, EUSERS. */
HP_API void *hp_cache_get(hp_cache *cache, unsigned flags);

/* The same, waiting for at most `ns` nanoseconds: then ETIMEDOUT. Those who wait are served in the order they came. */
HP_API void *hp_cache_get_timed(hp_cache *cache, unsigned flags, uint64_t ns);

/* Puts an object back, from whatever process. -EINVAL: no address at which an object of this cache can begin. -ENOENT: an
 * object of no or another cache. -EALREADY: it is not out. On an error nothing changes. */
HP_API int hp_cache_put(hp_cache *cache, void *object);

/* `n` objects: all (0) or none (-errno as hp_cache_get's errno). */
HP_API int hp_cache_get_bulk(hp_cache *cache, unsigned flags, size_t n, void **objects);
/* Puts back `n` objects. Returns 0, or the first error, with all others put back. */
HP_API int hp_cache_put_bulk(hp_cache *cache, size_t n, void *const *objects);

/* `n` contiguous objects, 1 to 64, got and put back as one; without constructor. Flags, waiting and errors as hp_cache_get, with
 * every means it has: what others own without using it, and what the dead have left. EINVAL: a slab does not hold so many,
 * or the cache has a constructor. EAGAIN, ENOMEM and a wait may come although enough objects are free: no n of them lie side by
 * side. Who waits for an array has his turn like others; should it look in vain for more than 20 ms, those behind him look, too. */
HP_API void *hp_cache_get_array(hp_cache *cache, unsigned flags, size_t n);
/* The same, waiting for at most `ns` nanoseconds: then ETIMEDOUT. */
HP_API void *hp_cache_get_array_timed(hp_cache *cache, unsigned flags, size_t n, uint64_t ns);
HP_API int hp_cache_put_array(hp_cache *cache, void *first, size_t n);

/* Makes sure that `n` more objects can be got without more memory: -ENOMEM when there is not enough, EAGAIN beyond the hard
 * limit; what was reserved stays. */
HP_API int hp_cache_prime(hp_cache *cache, size_t n);

/* At most `n` objects are out at any time, in all processes together; 0: no limit. Never exceeded, and nobody is refused
 * while fewer are out, wherever free ones are cached, but for those of a thread that is stopped inside a call. -EINVAL: more than
 * n are out already. -EBUSY: not more than n are out, but they lie spread over slabs that hold more than n together, or
 * another call is just destroying some; nothing has changed, and it succeeds when some are put back, or that call has ended.
 * Raising is possible at any time. -ENOSPC: more than the directory of 8,000 slabs can hold. A death leaves the old limit or the new one. `warning` goes to the pool's log when somebody fails
 * or waits at the limit, at most once in `seconds`; NULL: no warning. */
HP_API int hp_cache_set_hard_limit(hp_cache *cache, size_t n, const char *warning, unsigned seconds);

/* Marks, in objects, of all processes together. Low: memory for so many free objects is kept; it is made when it is not
 * there (-ENOMEM: as much as could be had is), by this call, and not again after gets. High: of more free objects than that
 * the memory is given back, as far as whole slabs are free, when puts empty slabs; without it (HP_CACHE_NO_MARK, the
 * default) a thread keeps up to 256 KiB a cache. Neither changes what can be got. -EINVAL: low above high. */
#define HP_CACHE_NO_MARK SIZE_MAX
HP_API int hp_cache_set_low_watermark(hp_cache *cache, size_t n);
HP_API int hp_cache_set_high_watermark(hp_cache *cache, size_t n);

/* An eventfd of this process that becomes readable when the number of free objects falls below the low mark, or rises above
 * the high one, whichever process did it; also when it is beyond a mark already, and when the cache is destroyed. What is
 * read from it says how often that has happened. Getting and putting pay nothing: a thread of the library counts every
 * 5 ms, or as much more rarely as keeps it below a sixteenth of a CPU's time (in pools beyond some 100 GiB). So it becomes
 * readable that much later, and a crossing that is over before the next count is not seen.
 * Returns the descriptor (non-blocking, close-on-exec), or -EINVAL, -ESTALE, -ENOMEM, -EMFILE, -EAGAIN (no thread is to be
 * had). It stays the library's: hp_cache_unwatch closes it, as do hp_cache_close, hp_cache_destroy and hp_pool_detach. A
 * forked child has no such thread: what it inherits tells of its parent's watches; it can make its own. The death of this or
 * any other process leaves nothing behind. Not for signal handlers.
 * Origin: none; the ancestor's watermarks could only be polled. */
#define HP_CACHE_WATCH_LOW 1u
#define HP_CACHE_WATCH_HIGH 2u
HP_API int hp_cache_watch(hp_cache *cache, unsigned marks);
/* Ends a watch, and closes its descriptor. -ENOENT: no watch of this handle has it. */
HP_API int hp_cache_unwatch(hp_cache *cache, int fd);

/* Called, with nothing held, in this process: when hp_cache_get finds nothing, before it fails or waits, and when
 * hp_cache_reclaim begins. May put objects back; what was wanted is then tried again. NULL: none. */
typedef void hp_drain_fn(void *arg, unsigned flags);
HP_API int hp_cache_set_drain_hook(hp_cache *cache, hp_drain_fn *hook, void *arg);

/* Destroys an object that is out, instead of putting it back constructed: it goes back raw. Errors as hp_cache_put. */
HP_API int hp_cache_destruct_object(hp_cache *cache, void *object);

/* From now on no object is given out that was constructed before. What is cached and can be had at once is destroyed now, in
 * other processes' magazines too; the rest by whoever gets it next. Waits for nobody. -EINVAL: no constructor. */
HP_API int hp_cache_invalidate(hp_cache *cache);

/* Gives back all memory in which no object is out, of this thread, of sleeping and of dead ones: bytes, or -errno. */
HP_API int64_t hp_cache_reclaim(hp_cache *cache);

struct hp_cache_stats {
	size_t struct_size;           /* sizeof this struct */
	size_t size, stride;          /* of an object, and from one to the next */
	uint64_t in_use;              /* objects that are out: exact on a cache at rest */
	uint64_t cached;              /* free objects in slabs */
	uint64_t slabs, bytes;        /* memory held */
	uint64_t fails, waits, wakes; /* since it was made */
	uint64_t waiting;             /* threads right now */
	uint64_t limit, low, high;
	/* Since it was made: how often a slow path looked again, because others were busy, or at the end of a slice of waiting. */
	uint64_t retries;
	/* The most memory it has held at once. Counted when slabs are made and when somebody asks; a death may lose one count. */
	uint64_t most_slabs, most_bytes;
	/* Objects, since it was made, with HP_CACHE_COUNT: else 0. A death between an object and its count loses the count. */
	uint64_t gets, puts;
};
/* -EINVAL: struct_size is none that this or an earlier version knows (those end with `high`). -ESTALE. Exact on a cache at
 * rest; on a busy one every slab is right at the moment it was looked at. */
HP_API int hp_cache_stats(hp_cache *cache, struct hp_cache_stats *stats);

/* The same by who owns the slabs, and by the memory that they lie on. Free objects of an owner's slabs are for that thread to
 * get without a locked instruction; others get them when they have to. */
struct hp_cache_owner {
	int pid, tid; /* 0, 0: nobody's. As the owner sees itself, in its own pid namespace */
	uint64_t slabs, in_use, cached;
};
struct hp_cache_node {
	int node; /* -1: memory not bound to one node */
	uint64_t slabs, in_use, cached;
};
/* Those that have slabs: fills in up to `room`, and returns how many there are, or -EINVAL, -ESTALE, -ENOMEM. Nothing is shown
 * of a private cache whose memory comes from the caller's functions: 0. */
HP_API int hp_cache_owners(hp_cache *cache, struct hp_cache_owner *owners, unsigned room);
HP_API int hp_cache_nodes(hp_cache *cache, struct hp_cache_node *nodes, unsigned room);

/* Wakes the first who waits, when there may be something for him. Puts do that by themselves. */
HP_API void hp_cache_wake(hp_cache *cache);

HP_API const char *hp_cache_name(const hp_cache *cache);

/* ---- private caches ---- */

/* Where the memory of a private cache comes from: `start`, or `allocate` and `release`, or none of them: anonymous memory. */
struct hp_cache_memory {
	size_t struct_size; /* sizeof this struct */
	/* Memory that the caller hands over, of any address and size; whole pages of 4 KiB in it are used. It is not written to
	 * but by who holds the objects, stays the caller's, and has to stay where it is until the cache has ended. For two
	 * processes that both write to it (MAP_SHARED, after fork) it is not: each would give out the same objects. */
	void *start;
	uint64_t bytes; /* of it; with `allocate`: at most so many at a time, 0 for any number; else 0 */
	/* Called, with nothing held, when there is no object left: `bytes` of memory, or NULL when it is not to be had. At most
	 * 1,024 such regions at a time; each costs some 50 KiB beside, so they should be large. Pages of 4 KiB in it are used: a
	 * region that begins at one loses nothing. Threads that run short at the same moment may each get one. */
	void *(*allocate)(void *arg, size_t bytes);
	/* Called, with nothing held, once for each region: when none of its objects is out and a put, hp_cache_reclaim, or the
	 * cache's end gives it back. Neither may use the cache. */
	void (*release)(void *arg, void *start, size_t bytes);
	void *arg;
	size_t region; /* bytes to ask for; 0: from 2 MiB, or eight slabs, growing with what is held to 32 times as much */
	hp_log_fn *log;
	void *log_arg;
};

/* A cache of this process alone, for all the calls above (but hp_cache_open). `memory` NULL: anonymous memory, as it is
 * needed. Names need not differ. Class PROCESS means nothing here; HP_CACHE_ON_NODE is for anonymous memory only. A forked
 * child has a copy, as of all private memory, and its thread goes on; what other threads were about to get or put counts as
 * out.
 *
 * On anonymous memory and on memory handed over it works as in a pool, at the same cost; hp_cache_reclaim gives the former
 * back to the kernel. With `allocate` every get and put costs some 40 ns, also inline, and is not for signal
 * handlers; and this differs:
 * - a constructor is called with flags 0;
 * - hp_cache_prime and the low mark have regions made, which no put gives back until hp_cache_reclaim is called;
 * - of the high mark: a put that leaves a region without objects out gives it back when more objects are free. Without a mark
 *   it does so when another such region is left;
 * - hp_cache_set_hard_limit may be called with objects out (-EINVAL: more than n);
 * - in hp_cache_stats `slabs` and `bytes` are regions and what was asked for, `cached` what they have room for.
 *
 * -EINVAL: options or `memory` make no sense, or the memory (the region) is too small for a slab: that is as many pages as
 * an object has, and for small ones up to 32. -ENOMEM. hp_cache_destroy gives everything back (-EBUSY with objects out), and
 * so does hp_cache_close, whatever is out.
 *
 * Origin: the `palloc` of pool(9): pa_alloc, pa_free, pa_pagesz; mp_cache of TSLoad, which had private memory only. */
HP_API int hp_cache_create_private(const char *name, const struct hp_cache_options *options,
                                   const struct hp_cache_memory *memory, hp_cache **cache);

#ifdef __cplusplus
}
#endif
#endif
