/* What pins keep in shared memory: see io/pin.h and pool/lent.h. */
#ifndef HUGEPOOL_IO_LAYOUT_H
#define HUGEPOOL_IO_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

#define POOL_RINGS 256u

/* Runs of pages that tables of pins are in, and runs of the application's that are lent. */
#define PAGE_TYPE_PINS (UINT16_C(3) << PARITY_TYPE_SHIFT)
#define PAGE_TYPE_LENT (UINT16_C(4) << PARITY_TYPE_SHIFT)

/* A ring. word = {generation:24, record's generation:24, record + 1:13, state:3}; the record is that of the process whose ring
 * it is, or of the one that closes it. */
enum ring_state { RING_FREE = 0, RING_OPEN = 1, RING_CLOSING = 2 };

struct pool_ring {
	_Alignas(64) _Atomic uint64_t word;
	_Atomic uint64_t table;      /* page of the table of pins + 1; 0: none */
	_Atomic uint32_t pins;       /* in the table */
	_Atomic uint32_t op;         /* the last step that was begun, by who has the ring (pool/lent.h) */
	_Atomic uint32_t done;       /* the last one known to have been done whose mark was overwritten, by others */
	_Atomic uint32_t registered; /* 1: the kernel has the pool's memory registered */
};

#define RING_GENERATIONS 0xffffffu

static inline uint64_t ring_make(enum ring_state state, uint32_t generation, uint32_t record1,
                                 uint32_t record_generation)
{
	return (uint64_t)(generation & RING_GENERATIONS) << 40 | (uint64_t)(record_generation & 0xffffffu) << 16 |
	       (uint64_t)(record1 & 0x1fffu) << 3 | state;
}
static inline enum ring_state ring_state(uint64_t word)
{
	return (enum ring_state)(word & 7);
}
static inline uint32_t ring_record1(uint64_t word)
{
	return (uint32_t)(word >> 3) & 0x1fffu;
}
static inline uint32_t ring_record_generation(uint64_t word)
{
	return (uint32_t)(word >> 16) & 0xffffffu;
}
static inline uint32_t ring_generation(uint64_t word)
{
	return (uint32_t)(word >> 40);
}

/* A pin. ADDING and DROPPING are under way: of `count` objects `progress` are done for certain, and of the next one its marks
 * tell, with step numbers from op + 4 * progress on. */
enum pin_state { PIN_NONE = 0, PIN_ADDING = 1, PIN_HELD = 2, PIN_DROPPING = 3 };

struct pin_entry {
	_Atomic uint64_t
		block; /* {offset of the first object, a multiple of 16 (its last bits left out), state in the low 4 bits} */
	_Atomic uint64_t owned; /* an object of the ring's own, as hp_alloc_into writes it */
	_Atomic uint32_t op;
	_Atomic uint16_t count, progress;
	_Atomic uint64_t natural; /* the bits of R, one an object, that they have while they are not lent (slab/lend.c) */
};

_Static_assert(sizeof(struct pin_entry) == 32, "128 pins a page");

/* A word for every 8 objects of the slab that begins at the page; of a run of pages only the first object's place is used.
 * {ring + 1:10, step:22, 8 times state:4}: the mark of who changed a state last, and the states (pool/lent.h). */
#define LENT_WORDS 64u

struct pool_lent {
	_Atomic uint64_t word[LENT_WORDS];
};

#define LENT_EACH 8u
#define LENT_PAGES (4096 / sizeof(struct pool_lent)) /* whose words fill a page */
#define LENT_PINS_MOST 6u
#define LENT_RETURNING 7u
#define LENT_FREED 8u
#define LENT_STEPS 0x3fffffu

#endif
