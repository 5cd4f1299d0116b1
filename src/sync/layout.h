/* What containers look like in the pool's data: a line about the container, then entries.
 *
 * An entry's state is one word, {generation:20, kind:4, inconsistent:1, slot + 1:15, slot's generation:24}, and every operation
 * commits by changing it alone: so an entry that was unlinked and made anew is never taken for what it was, and who holds a
 * mutex, and what for, is one load. What the low 40 bits say depends on the kind:
 *   FREE    0
 *   MAKING  who makes it, in the form of a mutex's holder; nobody else looks at it
 *   MUTEX   its holder; 0: nobody; SYNC_BROKEN: was unlocked before it was consistent again
 *   SEM     its value
 *   UNDO    how many units it has; each is a word of the same form: {.., record + 1, record's generation}, 0: free
 *   COND    0
 * A slot's and a record's generations have 24 bits, so that a name comes again after 16 million threads of one slot only. */
#ifndef HUGEPOOL_SYNC_LAYOUT_H
#define HUGEPOOL_SYNC_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SYNC_MAGIC UINT64_C(0x31636e7973706568) /* "hepsync1" */
#define SYNC_MOST 65536u                        /* entries, units */
#define SYNC_NAME_WORDS 4

enum sync_kind { SYNC_FREE = 0, SYNC_MAKING = 1, SYNC_MUTEX = 2, SYNC_SEM = 3, SYNC_UNDO = 4, SYNC_COND = 5 };

#define SYNC_KIND_SHIFT 40
#define SYNC_GENERATION_SHIFT 44
#define SYNC_GENERATIONS 0xfffffu
#define SYNC_LOW ((UINT64_C(1) << SYNC_KIND_SHIFT) - 1)
#define SYNC_INCONSISTENT (UINT64_C(1) << 39)
#define SYNC_HOLDER (SYNC_INCONSISTENT - 1)
#define SYNC_BROKEN UINT64_C(1) /* no slot, a generation */

static inline uint64_t sync_make(uint32_t generation, enum sync_kind kind, uint64_t low)
{
	return (uint64_t)(generation & SYNC_GENERATIONS) << SYNC_GENERATION_SHIFT | (uint64_t)kind << SYNC_KIND_SHIFT | low;
}
static inline enum sync_kind sync_kind(uint64_t state)
{
	return (enum sync_kind)(state >> SYNC_KIND_SHIFT & 0xf);
}
static inline uint32_t sync_generation(uint64_t state)
{
	return (uint32_t)(state >> SYNC_GENERATION_SHIFT);
}
static inline uint64_t sync_name_make(uint32_t index1, uint32_t generation)
{
	return (uint64_t)index1 << 24 | generation;
}
static inline uint32_t sync_name_index(uint64_t low) /* slot or record; UINT32_MAX: none */
{
	return (uint32_t)((low & SYNC_HOLDER) >> 24) - 1;
}
static inline uint32_t sync_name_generation(uint64_t low)
{
	return (uint32_t)low & 0xffffffu;
}

struct sync_entry {
	_Alignas(64) _Atomic uint64_t state;
	_Atomic uint32_t futex;   /* mutex, semaphore: 1 while somebody may sleep; condition: counts signals */
	_Atomic uint32_t waiters; /* and those who died at it: to spare system calls, no more */
	/* by the maker, before it is there; never after */
	_Atomic uint64_t first; /* its state when it is made */
	_Atomic uint64_t name[SYNC_NAME_WORDS];
	_Atomic uint32_t flags;
	_Atomic uint32_t depth;               /* by the holder of a mutex: locked so many times beyond the first */
	_Alignas(64) _Atomic uint64_t unit[]; /* UNDO */
};

_Static_assert(sizeof(struct sync_entry) == 64, "an entry without its units is a cache line");

/* What is made: the directory names the entry made last, {version:24, its generation:20, its index + 1:20}. Making an entry is to
 * change it; whoever comes next gives the entry its state, if its maker has not. */
#define SYNC_ENDED \
	0xfffffu /* in place of the index: there is no container any more; above it who is about to free it */

static inline uint64_t sync_directory(uint64_t before, uint32_t generation, uint32_t index1)
{
	return ((before >> 40) + 1) << 40 | (uint64_t)(generation & SYNC_GENERATIONS) << 20 | index1;
}
static inline uint32_t sync_directory_index1(uint64_t directory)
{
	return (uint32_t)directory & 0xfffffu;
}
static inline uint32_t sync_directory_generation(uint64_t directory)
{
	return (uint32_t)(directory >> 20) & SYNC_GENERATIONS;
}

struct sync_container {
	_Alignas(64) _Atomic uint64_t magic;
	_Atomic uint32_t entries, units; /* never changed */
	_Atomic uint64_t directory;
	_Alignas(64) unsigned char first[]; /* entries, each with its units, rounded up to lines */
};

static inline uint64_t sync_stride(uint32_t units)
{
	return sizeof(struct sync_entry) + ((uint64_t)units * sizeof(uint64_t) + 63) / 64 * 64;
}

#endif
