/* Looking into a pool: numbers, a dump, the checker. Nothing here changes a pool or makes anybody wait.
 *
 * Origin: `stats` and `debug_info` of Netmcore_mempool, which stopped everybody with the pool's lock. */
#ifndef HUGEPOOL_INSPECT_H
#define HUGEPOOL_INSPECT_H

#include <hugepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hp_node_stats {
	int node;           /* -1: memory not bound to one node */
	uint64_t committed; /* bytes */
	uint64_t free;
};

/* All sizes in bytes. Exact on a pool at rest; on a busy one every unit is right at the moment it was looked at. */
struct hp_pool_stats {
	size_t struct_size; /* set by the caller: sizeof this struct */
	uint64_t capacity;
	uint64_t committed;
	uint64_t free;
	uint64_t largest;                     /* longest contiguous free run */
	uint64_t live_blocks;                 /* allocated runs, slabs not counted */
	uint64_t allocs, frees, remote_frees; /* since the pool was made; a death may lose one of each */
	uint64_t taken;                       /* chunks taken from owners that did not use them */
	uint64_t recovered;                   /* participants recovered after their death */
	uint64_t quarantined;                 /* bytes set aside because their bookkeeping made no sense */
	uint64_t page_size;
	uint64_t unit_size; /* bytes of a chunk */
	unsigned processes, threads;
	unsigned nodes; /* entries of node[] */
	struct hp_node_stats node[HP_MAX_NODES + 1];
	uint64_t slabs, slab_bytes;     /* of hp_malloc and of caches */
	uint64_t objects, object_bytes; /* live in them */
};

HP_API int hp_pool_stats(hp_pool *pool, struct hp_pool_stats *stats);

/* The slabs of one class: of a size of hp_malloc's, or of a cache. */
struct hp_class_stats {
	uint64_t size; /* from one object to the next; 0: just being made */
	uint64_t slabs, bytes;
	uint64_t objects, live; /* that the slabs have room for, and that are allocated */
	int cache;              /* not 0: a cache's */
};

/* The classes that have slabs: fills in up to `room`, and returns how many there are, or -EINVAL. */
HP_API int hp_pool_class_stats(hp_pool *pool, struct hp_class_stats *classes, unsigned room);

/* Receives text; `length` bytes, without a closing 0. Not 0 ends the dump, which then returns that value. */
typedef int hp_write_fn(void *arg, const char *text, size_t length);

/* Everything allocated, chunk by chunk, and who takes part, as text for people. */
HP_API int hp_pool_dump(hp_pool *pool, hp_write_fn *write, void *arg);

/* Verifies every invariant of the pool, page and slab layers, on a live pool too; findings go to `finding`, one line each
 * (may be NULL). Returns how many there are, or -errno. What is in motion while it looks is looked at again before it
 * is called a finding. */
HP_API int hp_pool_check(hp_pool *pool, hp_log_fn *finding, void *arg);

/* What is seen of a cache from outside; the names of hp_cache_stats. */
struct hp_cache_seen {
	size_t struct_size; /* set by the library: the size that it knows */
	char name[40];
	uint64_t size; /* of an object, in bytes */
	uint64_t in_use, cached, slabs, bytes, limit;
	uint64_t fails, waits; /* since it was made */
	uint64_t waiting;      /* threads right now */
	uint64_t retries, most_bytes;
	uint64_t gets, puts; /* with HP_CACHE_COUNT */
};

/* Calls `each` for every cache of the pool. Not 0 ends it, and is returned. Exact on a pool at rest. */
typedef int hp_cache_seen_fn(void *arg, const struct hp_cache_seen *cache);
HP_API int hp_pool_caches(hp_pool *pool, hp_cache_seen_fn *each, void *arg);

/* A thread that waits for an object. The process may see itself under another pid (as it is in its own pid namespace). */
struct hp_waiter_seen {
	size_t struct_size;
	char cache[40]; /* for whose objects */
	int pid, tid;
};

typedef int hp_waiter_seen_fn(void *arg, const struct hp_waiter_seen *waiter);
HP_API int hp_pool_waiters(hp_pool *pool, hp_waiter_seen_fn *each, void *arg);

/* Opens a pool for looking only, by its descriptors (lives may be -1): the control file is mapped read-only, the data not at all,
 * and no process record is taken. Only hp_pool_stats, _caches, _waiters, _dump, _check, _name, _capacity, _page_size and _detach work with such a
 * handle; the others return -EROFS. Errors as hp_pool_attach. */
HP_API int hp_pool_observe(const int fds[3], hp_pool **pool);

#ifdef __cplusplus
}
#endif
#endif
