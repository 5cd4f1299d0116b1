/* The handle: one process' view of a pool, private memory. Geometry is a validated copy; what shared memory says about
 * it later does not matter. */
#ifndef HUGEPOOL_POOL_INTERNAL_H
#define HUGEPOOL_POOL_INTERNAL_H

#include "backing/backing.h"
#include "pool/layout.h"
#include <hugepool/pool.h>
#include <hugepool/page.h>
#include <sys/types.h>

#define POOL_MAX_SLOTS 16384u
#define POOL_MAX_RECORDS 4096u
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A descriptor may be closed and its number reused behind our back, so it is known by its file, not by its number. */
struct pool_fd {
	int fd;
	dev_t dev;
	ino_t ino;
};

struct slab_class;
struct debug;

struct hp_pool {
	/* read in every operation */
	char *base;
	uint64_t capacity;
	uint32_t page_shift_chunk; /* log2 of pages in a chunk */
	uint32_t slow;             /* not 0: traced, observed, debugged; operations leave the fast path */
	struct parity_unit *units;
	struct pool_chunk *chunks;
	pool_hint *hints;
	pool_map *map;
	struct slab *slabs;
	pool_summary *summary;
	struct pool_cache *caches;
	struct pool_wait *waits;
	_Atomic uint64_t *places;
	struct heap_entry *heaps;
	_Atomic uint64_t *guards;
	struct pool_ring *rings;
	struct pool_lent *lent;            /* one a page */
	struct hp_heap *open_heaps;        /* handles of this process; inside participant_lock */
	struct slab_class *classes;        /* SLAB_CLASSES of them */
	_Atomic uint16_t *slabs_populated; /* a word a chunk, a bit for each page of its descriptors */
	_Atomic uint64_t *lent_populated;  /* the same of its lent words */
	uint64_t table_bytes;              /* of all three */

	struct pool_header *header;
	struct pool_record *records;
	struct pool_slot *slots;
	_Atomic uint8_t *nodes;
	uint32_t chunk_count, chunk_pages, slot_count, record_count;
	bool fenced, observer, single_node;
	bool private; /* anonymous memory of this process (pool/private.c) */
	struct backing data;
	char *control;
	uint64_t control_size;
	struct pool_fd lives, control_fd, data_fd;
	int exported[3]; /* inherited by exec, or -1 */
	struct hp_numa numa;
	struct pool_geometry geometry;

	/* this process' record: valid for the fork generation it was taken in */
	_Atomic uint32_t joined; /* participant_fork_generation() it is valid in; 0: none */
	uint32_t record, record_generation;
	int pid;          /* whose threads our slots belong to; not what getpid() says in a child of vfork */
	uint32_t settled; /* private: generations before it have left nothing half-done; see private_settle */
	_Atomic uint32_t settling;
	void *life; /* the mapping that holds our lock */
	unsigned forked_in_op;
	unsigned place; /* of its participants in the regions of threads (pool/participant.h) */

	_Atomic(struct debug *) debug; /* NULL: never had a debug mode (src/debug) */
	bool aborts;                   /* hp_malloc: when memory is short */
	hp_log_fn *log;
	void *log_arg;
	unsigned trace;
	void *background;     /* thread that goes on populating, or NULL */
	struct hp_pool *next; /* all handles of the process, for fork */
};

/* Sizes and places of the arrays for a geometry whose capacity, chunk_pages, slots and records are set. */
void pool_geometry_place(struct pool_geometry *geometry);
uint64_t pool_geometry_checksum(const struct pool_geometry *geometry);
/* Notes down which files go with it, and its checksum. */
int pool_geometry_bind(struct pool_geometry *geometry, int lives, int data);

/* A handle around mapped control memory; frees with pool_handle_free. */
hp_pool *pool_handle_new(const struct pool_geometry *geometry, char *control);
void pool_handle_free(hp_pool *pool);
int pool_fd_note(struct pool_fd *note, int fd); /* remembers which file it is */
bool pool_fd_intact(const struct pool_fd *note);

/* A part of control that is used from now on, so that touching it cannot fail. */
int pool_control_populate_at(hp_pool *pool, const void *start, uint64_t bytes);
/* The descriptors of `count` pages, so that touching them cannot fail. */
int pool_control_populate_slabs(hp_pool *pool, uint64_t page, uint32_t count);
/* The lent words of a page, likewise. */
int pool_control_populate_lent_of(hp_pool *pool, uint64_t page, _Atomic uint64_t *done, uint64_t bit);
static inline int pool_control_populate_lent(hp_pool *pool, uint64_t page)
{
	_Atomic uint64_t *done = &pool->lent_populated[page >> pool->page_shift_chunk];
	uint64_t bit = UINT64_C(1) << ((page & (pool->chunk_pages - 1)) / LENT_PAGES);
	if (likely(atomic_load_explicit(done, memory_order_relaxed) & bit)) return 0;
	return pool_control_populate_lent_of(pool, page, done, bit);
}
/* Populates the parts of control that chunks [from, to) need. */
int pool_control_populate(char *control, const struct pool_geometry *geometry, uint32_t from, uint32_t to);
int pool_control_populate_fixed(char *control, const struct pool_geometry *geometry);

__attribute__((format(printf, 2, 3))) void pool_log(const hp_pool *pool, const char *format, ...);

static inline uint64_t pool_chunk_bytes(const hp_pool *pool)
{
	return (uint64_t)pool->chunk_pages * HP_PAGE_SIZE;
}

/* Chunks that may be committed: a clamped copy of what the header says. */
static inline uint32_t pool_top(const hp_pool *pool)
{
	uint32_t top = atomic_load_explicit(&pool->header->committed_top, memory_order_acquire);
	return top < pool->chunk_count ? top : pool->chunk_count;
}

static inline uint32_t pool_slots_top(const hp_pool *pool)
{
	uint32_t top = atomic_load_explicit(&pool->header->slots_top, memory_order_acquire);
	return top < pool->slot_count ? top : pool->slot_count;
}

#endif
