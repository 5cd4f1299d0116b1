/* Looking into a pool: numbers, a dump, the checker. Nothing here changes a pool or makes anybody wait.
 *
 * Origin: `stats` and `debug_info` of Netmcore_mempool, which stopped everybody with the pool's lock. */
#ifndef HUGEPOOL_INSPECT_H
#define HUGEPOOL_INSPECT_H

#include <hugepool/heap.h>
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
	uint64_t live_blocks;                 /* allocated runs; those of slabs and of heaps not counted */
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
	uint64_t heaps, heap_bytes;     /* shared heaps, and all that they have of the pool: slabs, undo logs, types */
	uint64_t
		rings; /* of I/O, also of the dead, as long as the kernel has not let go of them: nothing is trimmed then */
	uint64_t pinned_blocks, pinned_bytes; /* objects and runs that the kernel may write to */
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

/* Everything allocated, chunk by chunk, heaps, and who takes part, as text for people. */
HP_API int hp_pool_dump(hp_pool *pool, hp_write_fn *write, void *arg);

/* Verifies every invariant of the pool, page and slab layers, on a live pool too, and every heap as hp_pool_heap_check does;
 * findings go to `finding`, one line each (may be NULL). Returns how many there are, or -errno. What is in motion while it
 * looks is looked at again before it is called a finding. */
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

/* ---- shared heaps ---- */

/* A heap as seen from outside; the names of hp_heap_stat. */
struct hp_heap_seen {
	size_t struct_size; /* set by the library: the size that it knows */
	uint64_t id;
	hp_ref root;
	uint64_t live, held, limit, log, values, slabs, types, collections, recoveries;
	uint64_t pause_ns, pause_max_ns, guards;
	bool pending;
	int writer_pid, blocked_pid; /* 0: nobody; -1: a writer that is dead and not undone yet */
};

/* Calls `each` for every heap of the pool that is there. Not 0 ends it, and is returned. Exact on a heap at rest. -ENOMEM. */
typedef int hp_heap_seen_fn(void *arg, const struct hp_heap_seen *heap);
HP_API int hp_pool_heaps(hp_pool *pool, hp_heap_seen_fn *each, void *arg);

/* What is wrong with a heap. Up to HP_HEAP_BAD_LOG its own bookkeeping: then nothing is said of its values. */
enum hp_heap_wrong {
	HP_HEAP_BAD_ENTRY = 1,     /* the entry: state, lock, phase, ... */
	HP_HEAP_BAD_TYPE = 2,      /* the table of types */
	HP_HEAP_BAD_RUN = 3,       /* pages: lists, page layer and descriptor do not agree whose they are */
	HP_HEAP_BAD_SLAB = 4,      /* a slab is not cut as its type wants */
	HP_HEAP_BAD_MAP = 5,       /* the map says something else of a slab's page */
	HP_HEAP_BAD_LOG = 6,       /* the undo log */
	HP_HEAP_BAD_COUNT = 7,     /* numbers do not add up */
	HP_HEAP_BAD_REFERENCE = 8, /* names no live value of this heap */
	HP_HEAP_BAD_TARGET = 9,    /* names a value of another type than its member is declared for */
	HP_HEAP_BAD_MARK = 10,     /* a value in use is condemned */
	HP_HEAP_BAD_TAIL = 11,     /* more elements than there is room for, or references behind the last one */
	HP_HEAP_BAD_STRING = 12,   /* a string without its 0 */
	HP_HEAP_BAD_GUARD = 13,    /* a guard of no live value, or of nobody */
	HP_HEAP_UNLISTED = 14,     /* HP_HEAP_AUDIT: what looks like a reference, and is not declared as one */
	HP_HEAP_UNREACHED = 15     /* HP_HEAP_LEAKS: values that the next collection reclaims */
};

struct hp_heap_finding {
	size_t struct_size; /* set by the library */
	enum hp_heap_wrong code;
	uint64_t slab;   /* offset in the pool; 0: none */
	hp_ref object;   /* or none */
	uint64_t offset; /* of the word in the object */
	uint64_t word;   /* what stands there */
	const char *text;
};

typedef void hp_heap_finding_fn(void *arg, const struct hp_heap_finding *finding);

/* Words outside of the declared members that look like references in any value: the first one of each type and offset, with
 * the share of the values. Such a word keeps nothing alive. */
#define HP_HEAP_AUDIT 1u
/* Values that nothing reaches, by type. Garbage is nothing wrong; it is counted as a finding all the same. */
#define HP_HEAP_LEAKS 2u

/* Verifies everything that docs/heap.md says of a heap, as its writer, so that it stands still: lock, lists, types, pages, undo
 * log, marks, guards, and every word of every value that is reached. Findings go to `finding` (may be NULL) and live as
 * long as its call. Returns how many there are (1,000 at most), or -errno as hp_heap_begin, which waits for a second. Bounded
 * whatever the memory says; a heap whose bookkeeping is wrong is not locked. */
HP_API int hp_heap_check(hp_heap *heap, unsigned flags, hp_heap_finding_fn *finding, void *arg);

/* The same without the lock, on a live or dead pool, observed ones too: what a writer may be at is left out while one is, and
 * what is found is looked at again. -ESTALE: there is no such heap. -EINVAL, -ENOMEM, -EIO. */
HP_API int hp_pool_heap_check(hp_pool *pool, uint64_t id, unsigned flags, hp_heap_finding_fn *finding, void *arg);

/* Types, and what the root reaches, value by value with its references, as text of at most `lines` lines. Without the lock.
 * Not 0 from write ends it, and is returned. -ESTALE, -EINVAL, -ENOMEM, -EIO. */
HP_API int hp_heap_dump(hp_pool *pool, uint64_t id, uint64_t lines, hp_write_fn *write, void *arg);

/* Opens a pool for looking only, by its descriptors (lives may be -1): the control file is mapped read-only, the data not at all,
 * and no process record is taken. Only hp_pool_stats, _caches, _waiters, _heaps, _heap_check,
 * _dump, _check, _name, _capacity, _page_size and _detach, and hp_heap_dump, work with such a handle; the others return
 * -EROFS. Errors as hp_pool_attach. */
HP_API int hp_pool_observe(const int fds[3], hp_pool **pool);

#ifdef __cplusplus
}
#endif
#endif
