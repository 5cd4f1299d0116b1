/* What heaps keep in shared memory: an entry each, slabs, types, the undo log, and guard cells for each slot. docs/heap.md
 * says who writes what, and in which order. */
#ifndef HUGEPOOL_HEAP_LAYOUT_H
#define HUGEPOOL_HEAP_LAYOUT_H

#include "parity/layout.h"
#include "slab/layout.h"
#include <stdbool.h>

#define HEAPS 256u /* the first is not used, so that a reference of it is none */
#define HEAP_GUARDS 128u
#define HEAP_RECORDS 4096u
#define HEAP_TYPES 1024u
#define HEAP_EXTENTS 26u /* of the log; each but the first two as long as all before it */

/* Runs of this type in the length words of the page layer are a heap's. */
#define PAGE_TYPE_HEAP (UINT16_C(2) << PARITY_TYPE_SHIFT)

/* ---- references: {1, generation:7, heap:8, offset:48} ---- */

#define HEAP_OFFSET_BITS 48
#define HEAP_OFFSET_MASK ((UINT64_C(1) << HEAP_OFFSET_BITS) - 1)
#define HEAP_REFERENCE (UINT64_C(1) << 63)
#define HEAP_RELEASED UINT64_C(1) /* in guard cells; values begin at multiples of 16 */

static inline uint16_t heap_tag(uint32_t index, uint32_t generation)
{
	return (uint16_t)(0x8000u | (generation & 0x7fu) << 8 | index);
}
static inline uint32_t heap_tag_index(uint64_t tag)
{
	return (uint32_t)tag & 0xff;
}

/* ---- the map: {0:32, heap:8, colour:5, back + 1:19}. No reciprocal, so for the slab layer no object begins there. Pages of
 * single values that lie too far back for that: {0:40, heap:8, steps:16}, of so many pages each. ---- */

#define HEAP_BACK_BITS 19
#define HEAP_COLOUR_SHIFT HEAP_BACK_BITS
#define HEAP_BACK_END ((UINT64_C(1) << HEAP_BACK_BITS) - 1)
#define HEAP_STEP (UINT64_C(1) << 18)

static inline uint64_t heap_map_make(uint32_t index, uint64_t colour, uint64_t back)
{
	if (back >= HEAP_BACK_END) return (uint64_t)index << 16 | back / HEAP_STEP;
	return (uint64_t)index << 24 | colour << HEAP_COLOUR_SHIFT | (back + 1);
}
static inline bool heap_map_is_far(uint64_t map, uint32_t index)
{
	return map >> 16 == index && map & 0xffff;
}

/* ---- the entry ---- */

/* ENDING: it may be ended, if nobody has it open; for all others it lives. GONE: it is being ended. */
enum heap_state { HEAP_FREE = 0, HEAP_MAKING = 1, HEAP_LIVE = 2, HEAP_ENDING = 3, HEAP_GONE = 4 };

static inline uint64_t heap_word(enum heap_state state, uint32_t generation)
{
	return (uint64_t)generation << 8 | state;
}
static inline enum heap_state heap_state(uint64_t word)
{
	return (enum heap_state)(word & 0xff);
}
static inline uint32_t heap_generation(uint64_t word)
{
	return (uint32_t)(word >> 8);
}

#define HEAP_ORPHAN UINT32_MAX /* in `lock`: its holder is dead */

/* {epoch:48, phase:16} */
enum heap_phase { HEAP_IDLE = 0, HEAP_BARRIER = 1, HEAP_CONDEMNED = 2, HEAP_SWEEP = 3 };
static inline enum heap_phase heap_phase(uint64_t word)
{
	return (enum heap_phase)(word & 0xffff);
}
static inline uint64_t heap_phase_epoch(uint64_t word)
{
	return word >> 16;
}
static inline uint64_t heap_phase_make(enum heap_phase phase, uint64_t epoch)
{
	return epoch << 16 | phase;
}

struct heap_entry {
	/* read by readers */
	_Alignas(64) _Atomic uint64_t word; /* {generation:32, state:8} */
	_Atomic uint64_t root;
	_Atomic uint64_t phase;
	uint64_t limit; /* pages; this and what follows: written before LIVE */
	uint32_t gc_percent, grace_ms;
	_Atomic uint32_t types; /* entries that count */
	/* by the holder of the lock */
	_Alignas(64) _Atomic uint32_t lock; /* 0, who, HEAP_ORPHAN */
	_Atomic uint32_t waiters;           /* somebody may be waiting */
	_Atomic uint64_t log_n;             /* entries of the undo log that count; 0 stored here commits */
	_Atomic uint64_t version;           /* odd: visible values are being changed */
	_Atomic uint64_t number;            /* of the transaction */
	_Atomic uint64_t run;               /* page + 1 of the run in hand; 0: none */
	_Atomic uint64_t cycle;
	_Atomic uint64_t pages; /* of slabs: exact when nothing is in hand */
	/* policy and numbers, by the holder of the lock */
	_Alignas(64) _Atomic uint64_t allocated; /* bytes handed out to free masks since the last collection */
	_Atomic uint64_t live;                   /* bytes that the last sweep left */
	_Atomic uint64_t collections, recoveries, pause_ns, pause_max_ns, quarantined;
	_Atomic uint32_t blocker; /* slot + 1 whose section kept the grace period from ending, when last looked */
	_Alignas(64) _Atomic uint64_t log[HEAP_EXTENTS];         /* page + 1 of each extent */
	_Atomic uint64_t type_run[HEAP_TYPES / 16];              /* page + 1 of 16 types each */
	_Alignas(64) _Atomic uint64_t opened[HEAP_RECORDS / 64]; /* a bit for each record whose process has it open */
};

/* ---- slabs: in the descriptor places of the run's pages ---- */

struct heap_bits {
	_Atomic uint64_t a; /* exists */
	_Atomic uint64_t m; /* reached by the collector: if mark_stamp is the heap's cycle */
	_Atomic uint64_t n; /* born in transaction born_stamp */
};

enum heap_kind { HEAP_SLAB = 1, HEAP_LOG = 2, HEAP_TABLE = 3 };

/* It lies so many lines (its colour, from the map) behind the descriptor place of its first page: all at the same distance
 * would share few sets of the processor's caches. At that place itself, too, stand tag and kind, by which runs are known. */
struct heap_slab {
	_Atomic uint64_t reserved; /* where the slab layer keeps its control word, whose versions go on */
	_Atomic uint16_t tag;
	_Atomic uint8_t kind;
	_Atomic uint8_t flags; /* HEAP_RESCAN, HEAP_WAS_EMPTY */
	_Atomic uint16_t type, class;
	_Atomic uint32_t reciprocal; /* 2^32 divided by the size, rounded up; 1: a single value */
	_Atomic uint32_t objects;
	_Atomic uint64_t size; /* of an object, in bytes */
	_Atomic uint32_t pages;
	_Atomic uint32_t next; /* page + 1 of the next slab of its type and class */
	_Atomic uint64_t mark_stamp, born_stamp, spare;
	struct heap_bits bits[];
};

#define HEAP_RESCAN 1u
#define HEAP_WAS_EMPTY 2u

_Static_assert(sizeof(struct heap_slab) == 64, "what every look at a slab reads is one line");

#define HEAP_SLAB_PAGES 16u                /* of a slab of several values */
#define HEAP_SIZE_MAX 32768u               /* of values that share a slab */
#define HEAP_VALUE_MAX (UINT64_C(1) << 32) /* of any; see heap_place */
#define HEAP_CLASSES 48u /* sizes of types with a tail: four to a doubling, and the last: single values */
#define HEAP_ALONE (HEAP_CLASSES - 1)

/* ---- types ---- */

#define HEAP_MEMBERS 48u
#define HEAP_TAIL_MEMBERS 16u
#define HEAP_NAME_MAX 48

struct heap_type_shape {
	char name[HEAP_NAME_MAX];
	uint32_t size, align, element, tail, count, members, tail_members, hash; /* of the shape */
	struct {
		uint32_t offset, target; /* hash of the target's name; 0: any */
	} member[HEAP_MEMBERS], tail_member[HEAP_TAIL_MEMBERS];
};

struct heap_type_entry {
	struct heap_type_shape shape;                     /* written before it counts */
	_Alignas(64) _Atomic uint32_t list[HEAP_CLASSES]; /* page + 1 of the first slab */
	_Atomic uint32_t at[HEAP_CLASSES]; /* of the one to allocate from: those before it are full; a hint */
};

_Static_assert(sizeof(struct heap_type_entry) == 1024, "four pages hold sixteen types");

#define HEAP_TYPE_PAGES 4u

/* ---- the undo log ---- */

enum { HEAP_LOG_REF = 0x10, HEAP_LOG_ROOT = 0x11 }; /* 1 to 8: so many bytes */
struct heap_log {
	_Atomic uint64_t what; /* {code:16, offset:48} */
	_Atomic uint64_t old;
};
#define HEAP_LOG_FIRST 256u /* entries of the first extent, a page; the second has as many, then each doubles */

#endif
