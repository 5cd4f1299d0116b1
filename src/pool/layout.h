/* Everything the pool layer keeps in shared memory: the control file. Nothing else of it is shared.
 *
 * The control file is an array of arrays whose places are computed from the geometry in the header; attachers copy the
 * geometry once, after validating it, and never read it from shared memory again. Indexes only, no pointers. Grouped by
 * who writes: what is written once, what everybody may write, what one thread alone writes. */
#ifndef HUGEPOOL_POOL_LAYOUT_H
#define HUGEPOOL_POOL_LAYOUT_H

#include "parity/layout.h"
#include "cache/layout.h"
#include "heap/layout.h"
#include "io/layout.h"
#include "slab/layout.h"
#include <stddef.h>

#define POOL_MAGIC UINT64_C(0x31306c6f6f706568) /* "hepool01" */
#define POOL_LAYOUT_VERSION 1u
#define POOL_NAME_MAX 64
#define POOL_READY UINT32_C(0x52454459)
#define POOL_LAZY UINT32_C(0x80000000) /* in the geometry's flags: populated at the first touch */

/* Written by the creator before `ready`, never after. */
struct pool_geometry {
	uint64_t magic;
	uint32_t version;
	uint32_t page_granule; /* 4096 */
	uint64_t layout_hash;
	uint64_t id[2]; /* random */
	uint64_t capacity, control_size, page_size;
	uint64_t base; /* preferred address of the data */
	uint32_t rung, flags;
	uint32_t chunk_pages, chunks; /* pages of 4 KiB in a chunk: 64, 128, 256 or 512 */
	uint32_t slots, records;
	uint32_t numa_policy, numa_strict;
	uint64_t numa_nodes;
	/* bytes from the start of control */
	uint64_t records_at, slots_at, chunks_at, hints_at, nodes_at, units_at, map_at, summary_at, slabs_at;
	uint64_t caches_at, waits_at, places_at, heaps_at, guards_at, rings_at, lent_at;
	uint64_t lives_file[2], data_file[2]; /* device and inode: the files of one pool belong together */
	char name[POOL_NAME_MAX];
	uint64_t checksum; /* of all before it */
};

/* What a grower or trimmer is about to do, written down before it does it. */
enum plan_phase {
	PLAN_NONE = 0,
	PLAN_POPULATING = 1, /* [from, to) is being populated and none of it is committed */
	PLAN_PUBLISHING = 2, /* it is populated and verified; its chunks become UNOWNED */
	PLAN_TRIMMING = 3    /* its chunks become UNCOMMITTED, then it is punched */
};

struct pool_header {
	struct pool_geometry geometry;
	_Alignas(64) _Atomic uint32_t ready; /* POOL_READY, stored last */

	/* growth, by the holder of the growth lock */
	_Alignas(64) _Atomic uint64_t growth_lock; /* {record + 1:16, record generation:24, count:24}; 0 record: free */
	_Atomic uint32_t growth_futex;             /* counts every unlock */
	_Atomic uint32_t plan_phase;
	_Atomic uint32_t plan_from, plan_to; /* chunks */
	_Atomic uint64_t plan_progress;      /* changes while the holder makes progress */
	_Atomic uint32_t committed_top;      /* no chunk at or above it was ever committed */
	_Atomic uint64_t committed_nodes;    /* nodes that ranges were bound to */

	/* sections of heaps (heap/reader.c): read by all that enter, moved by who collects */
	_Alignas(64) _Atomic uint64_t epoch;
	_Atomic uint32_t heaps_top; /* no heap at or above it was ever made */
	_Atomic uint32_t rings_top; /* no ring at or above it was ever opened */

	/* rare events, by anybody */
	_Alignas(64) _Atomic uint64_t recovered;
	_Atomic uint64_t taken;
	_Atomic uint64_t quarantined;
	_Atomic uint32_t slots_top; /* no slot at or above it was ever used */
	_Atomic uint64_t container; /* the pool's default container, as a word of hp_published (sync/container.c) */
};

/* One a process (strictly: one a handle). word = {recoverer + 1:13, recoverer's generation:24, generation:24,
 * state:3}. The lock on its byte of the lives file says whether its process lives. */
enum record_state { RECORD_FREE = 0, RECORD_LIVE = 1, RECORD_RECOVERING = 2 };

struct pool_record {
	_Alignas(64) _Atomic uint64_t word;
	_Atomic uint32_t pid; /* as its process sees itself; for people only */
	_Atomic uint32_t uid;
	_Atomic uint64_t since; /* monotonic ns; for people only */
	_Atomic char comm[16];
};

#define RECORD_GENERATIONS 0xffffffu

static inline uint64_t record_make(enum record_state state, uint32_t generation, uint32_t recoverer,
                                   uint32_t recoverer_generation)
{
	return (uint64_t)(recoverer & 0x1fffu) << 51 | (uint64_t)(recoverer_generation & RECORD_GENERATIONS) << 27 |
	       (uint64_t)(generation & RECORD_GENERATIONS) << 3 | state;
}
static inline enum record_state record_state(uint64_t word)
{
	return (enum record_state)(word & 7);
}
static inline uint32_t record_generation(uint64_t word)
{
	return (uint32_t)(word >> 3) & RECORD_GENERATIONS;
}
static inline uint32_t record_recoverer(uint64_t word)
{
	return (uint32_t)(word >> 51);
}
static inline uint32_t record_recoverer_generation(uint64_t word)
{
	return (uint32_t)(word >> 27) & RECORD_GENERATIONS;
}

/* One a thread. word = {record's generation:24, record:13, generation:24, state:3}. Control words, marks and locks of heaps
 * name a slot with the low 16 bits of its generation, since recovery finds them; mutexes, which it does not, with all of it. */
enum slot_state { SLOT_FREE = 0, SLOT_LIVE = 1, SLOT_RECOVERING = 2 };

#define SLOT_IN_OP UINT32_MAX
#define SLOT_GENERATIONS 0xffffffu
#define SLOT_NESTED 64u /* and so much below it, while signal handlers find that out */

struct pool_slot {
	/* by its thread alone, in every operation */
	_Alignas(64) _Atomic uint32_t in_op; /* not 0: inside an operation, its units are not to be moved */
	/* by takers, read in every operation: not 0 after a mark, until the thread has looked at `taker` */
	_Atomic uint32_t news;
	_Atomic uint64_t taker; /* {slot + 1:16, generation:16, sequence:32}; slot 0: no mark */
	/* counters, by its thread alone; they outlive it and go on with the slot's next user */
	_Atomic uint64_t allocs, frees, remote_frees;
	_Atomic uint32_t tid;
	_Atomic uint32_t guards;  /* cells at and above were never used (heap) */
	_Atomic uint64_t section; /* {epoch:48, depth:16} of the section of heaps that it is in; 0: none */
	_Atomic uint64_t waiting; /* {heap:16, count:48}: the lock it waits for; heap 0: none */
	/* by registration and recovery */
	_Alignas(64) _Atomic uint64_t word;
	_Atomic uint32_t node;
};

_Static_assert(sizeof(struct pool_slot) == 128, "a slot is two cache lines");

static inline uint64_t slot_make(enum slot_state state, uint32_t generation, uint32_t record,
                                 uint32_t record_generation)
{
	return (uint64_t)(record_generation & RECORD_GENERATIONS) << 40 | (uint64_t)(record & 0x1fffu) << 27 |
	       (uint64_t)(generation & SLOT_GENERATIONS) << 3 | state;
}
static inline enum slot_state slot_state(uint64_t word)
{
	return (enum slot_state)(word & 7);
}
static inline uint32_t slot_generation(uint64_t word)
{
	return (uint32_t)(word >> 3) & SLOT_GENERATIONS;
}
static inline uint32_t slot_record(uint64_t word)
{
	return (uint32_t)(word >> 27) & 0x1fffu;
}
static inline uint32_t slot_record_generation(uint64_t word)
{
	return (uint32_t)(word >> 40);
}

/* {slot + 1, generation}, as in ctl words and takers' marks. */
static inline uint32_t who_make(uint32_t slot, uint32_t generation)
{
	return (slot + 1) << 16 | (generation & 0xffffu);
}

/* One chunk of pages: a unit (in the units array) and what the page layer keeps beside it. cover and span belong to
 * runs that do not lie within one chunk, see page/long.c. tag = {record + 1:16, its generation:24} while the chunk
 * holds, or held last, blocks of class PROCESS. */
struct pool_chunk {
	_Atomic uint64_t ctl;
	_Atomic uint64_t cover; /* {head chunk + 1:32, head page:16}: the run that may reach in from before */
	_Atomic uint64_t span;  /* total pages of the run that reaches out of this chunk */
	_Atomic uint64_t tag;
};

_Static_assert(sizeof(struct pool_chunk) == 32, "two chunks a cache line");

/* A hint a chunk: 0 nothing free, k: the longest free run has 2^(k-1) pages or more. May be stale both ways. */
typedef _Atomic uint8_t pool_hint;

/* A word a chunk: a bit for each class of which a slab in it may have free objects. May be stale both ways. */
typedef _Atomic uint64_t pool_summary;

#define POOL_NODE_ANY 255 /* nodes array: bound to no single node */

/* Changes whenever a shared structure does: attaching to a pool of another layout is refused. */
static inline uint64_t pool_layout_hash(void)
{
	const uint64_t parts[] = {
		POOL_LAYOUT_VERSION,
		sizeof(struct pool_geometry),
		offsetof(struct pool_geometry, name),
		offsetof(struct pool_geometry, checksum),
		sizeof(struct pool_header),
		offsetof(struct pool_header, growth_lock),
		offsetof(struct pool_header, recovered),
		offsetof(struct pool_header, plan_progress),
		offsetof(struct pool_header, slots_top),
		offsetof(struct pool_header, container),
		sizeof(struct pool_record),
		sizeof(struct pool_slot),
		offsetof(struct pool_slot, news),
		offsetof(struct pool_slot, taker),
		offsetof(struct pool_slot, allocs),
		offsetof(struct pool_slot, section),
		sizeof(struct pool_ring),
		sizeof(struct pin_entry),
		sizeof(struct pool_lent),
		sizeof(struct heap_entry),
		offsetof(struct heap_entry, lock),
		offsetof(struct heap_entry, log),
		sizeof(struct heap_slab),
		sizeof(struct heap_type_entry),
		offsetof(struct pool_slot, word),
		sizeof(struct pool_chunk),
		offsetof(struct pool_chunk, tag),
		sizeof(struct parity_unit),
		sizeof(struct slab),
		offsetof(struct slab, r),
		offsetof(struct slab, next),
		offsetof(struct slab, lends),
		sizeof(struct pool_cache),
		sizeof(struct pool_wait),
		offsetof(struct pool_wait, run),
		offsetof(struct pool_cache, held),
		CACHES,
		CACHE_PLACES,
		SLAB_OBJECTS,
		offsetof(struct parity_unit, r),
		offsetof(struct parity_unit, len),
		PARITY_GRANULES,
		PARITY_LEN_SPANS,
		PARITY_TYPE_SHIFT,
		RECORD_GENERATIONS,
		SLOT_GENERATIONS,
	};
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) hash = (hash ^ parts[i]) * UINT64_C(0x100000001b3);
	return hash;
}

#endif
