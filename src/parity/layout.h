/* The shared form of a unit: up to 512 granules, each with a bit in A and a bit in R.
 *
 * A run of granules is live iff the bits of its first granule differ. A is written by the unit's owner alone, R by
 * everybody else, so that one store or one compare-and-swap decides over a run of any length, and a process killed
 * before or after it leaves the state before or after. len[i] belongs to the run headed at granule i; it is written
 * before the run becomes live and means nothing where the head is not live (except to tell a double free from an
 * address that never was a head). */
#ifndef HUGEPOOL_PARITY_LAYOUT_H
#define HUGEPOOL_PARITY_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

#define PARITY_GRANULES 512u
#define PARITY_WORDS (PARITY_GRANULES / 64u)

/* len[i]: granules of the run that lie in this unit (1 to 512), whether it goes on into the next unit, and a type that
 * the layer above gives it. 0: no run ever began here. */
#define PARITY_LEN_MASK 0x03ffu
#define PARITY_LEN_SPANS 0x8000u
#define PARITY_TYPE_SHIFT 10
#define PARITY_TYPE_MASK 0x7c00u

struct parity_unit {
	_Alignas(64) _Atomic uint64_t a[PARITY_WORDS]; /* owner: plain release stores */
	_Alignas(64) _Atomic uint64_t r[PARITY_WORDS]; /* all others: compare-and-swap */
	_Alignas(64) _Atomic uint16_t len[PARITY_GRANULES];
};

_Static_assert(sizeof(struct parity_unit) == 1152, "A, R and len of a unit are 18 cache lines");

/* The control word of a unit says who owns it: {owner:16, generation:16, version:28, state:4}. Every change is a
 * compare-and-swap that counts the version up, so a word seen twice means that nothing happened in between. */
enum ctl_state {
	CTL_UNCOMMITTED = 0, /* no memory behind it; zeroed control memory means this */
	CTL_UNOWNED = 1,
	CTL_OWNED = 2,      /* owner: slot + 1, generation: the slot's */
	CTL_RECOVERING = 3, /* owner: process record + 1, generation: the record's, low 16 bits */
	CTL_QUARANTINED = 4 /* its bookkeeping made no sense; nobody touches it again */
};

static inline uint64_t ctl_make(enum ctl_state state, uint32_t owner, uint32_t generation, uint64_t old)
{
	uint64_t version = ((old >> 4) + 1) & 0x0fffffffu;
	return (uint64_t)(owner & 0xffffu) << 48 | (uint64_t)(generation & 0xffffu) << 32 | version << 4 | state;
}

static inline enum ctl_state ctl_state(uint64_t ctl)
{
	return (enum ctl_state)(ctl & 0xf);
}

static inline uint32_t ctl_owner(uint64_t ctl)
{
	return (uint32_t)(ctl >> 48);
}

static inline uint32_t ctl_generation(uint64_t ctl)
{
	return (uint32_t)(ctl >> 32) & 0xffffu;
}

/* Who: owner and generation in one comparable number. */
static inline uint32_t ctl_who(uint64_t ctl)
{
	return (uint32_t)(ctl >> 32);
}

#endif
