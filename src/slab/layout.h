/* The shared form of a slab: a run of pages cut into objects of one size.
 *
 * Its descriptor lies out of line, in the control file: one place for every page of the pool, of which that of the slab's
 * first page is used. So a slab needs no allocation but its pages. A word of the map for each page says how the slab is cut
 * that it lies in, so that from any address the object is found with one load.
 *
 * An object is live iff its bits in A and R differ, as in a unit of pages (parity/layout.h). A slab exists iff its page
 * run is live and its length says SLAB; ctl then tells whose it is. Order: RECOVERING, run live, map, OWNED; and back:
 * RECOVERING, map cleared, run freed. So whoever recovers a record finds what it had half made, or half ended, by walking
 * the live runs. */
#ifndef HUGEPOOL_SLAB_LAYOUT_H
#define HUGEPOOL_SLAB_LAYOUT_H

#include "parity/layout.h"
#include <stddef.h>

#define SLAB_OBJECTS 384u
#define SLAB_WORDS (SLAB_OBJECTS / 64u)
#define SLAB_PAGES 255u /* at most: what the map can point back; more than 32 only for a single object */

/* Runs of this type in the length words of the page layer are slabs. */
#define PAGE_TYPE_SLAB (UINT16_C(1) << PARITY_TYPE_SHIFT)

#define SLAB_BUILT \
	0x8000u /* a byte an object, in the descriptor places of the pages after the first: it is constructed */
#define SLAB_NO_PLACE 0x3fffu
#define SLAB_CLASSES 256u /* of sizes: those of malloc first, then caches */

/* Hints about who knows that a slab has free objects, in `noted`. */
enum slab_noted {
	SLAB_UNKNOWN = 0,
	SLAB_LISTED = 1,
	SLAB_IN_SUMMARY = 2,
	SLAB_COUNTED = 4, /* as listed, and as one without objects out */
	SLAB_CURRENT = 8  /* as the one that the owner's magazine is filled from */
};
/* Nobody needs to know when its last object is put back. */
#define SLAB_QUIET (SLAB_COUNTED | SLAB_CURRENT)

/* A word of the map: 0, or {reciprocal:32, ahead:16, class:8, back + 1:8}. The slab begins that many pages back; the page
 * begins `ahead` times 16 bytes after object 0 (or before, when it is negative); the reciprocal is 2^32 divided by the size
 * of an object, rounded up. */
typedef _Atomic uint64_t pool_map;

static inline uint64_t map_make(uint32_t reciprocal, int ahead, unsigned class, unsigned back)
{
	return (uint64_t)reciprocal << 32 | (uint64_t)(uint16_t)(int16_t)ahead << 16 | (uint64_t)(class & 0xff) << 8 |
	       (back + 1);
}

static inline unsigned map_class(uint64_t map)
{
	return (uint8_t)(map >> 8);
}

/* Before the first descriptor lie as many unused ones as the map can point back. */
#define SLAB_GUARD 255u
#define SLAB_BEHIND 32u /* and as many behind the last as bits of a heap's slab may be looked for in (heap/heap.h) */

struct slab {
	/* by the owner; all others read it when they free */
	_Alignas(64) _Atomic uint64_t ctl; /* as in parity/layout.h */
	_Atomic uint16_t first;            /* where object 0 lies, in bytes from the start of the run */
	_Atomic uint16_t objects;
	_Atomic uint8_t class;
	_Atomic uint8_t noted;  /* a hint: enum slab_noted */
	_Atomic uint16_t extra; /* SLAB_BUILT, and its place in the cache's directory, or SLAB_NO_PLACE */
	_Atomic uint64_t a[SLAB_WORDS];
	/* by all others */
	_Alignas(64) _Atomic uint64_t r[SLAB_WORDS];
	_Atomic uint32_t next;     /* the owner's list: page of the next slab with free objects + 1 */
	_Atomic uint32_t announce; /* slot + 1 of who frees here from a shared word (malloc/publish.c): nothing is reused */
	_Atomic uint32_t lends;    /* not 0: some of its objects have been lent (slab/lend.c) */
};

_Static_assert(sizeof(struct slab) == 128, "a slab is two cache lines");

/* In words from the start of a slab */
#define SLAB_A 2
#define SLAB_R 8
_Static_assert(offsetof(struct slab, a) == SLAB_A * 8 && offsetof(struct slab, r) == SLAB_R * 8, "where A and R lie");

#endif
