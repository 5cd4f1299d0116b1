/* The slab layer's private side: which slabs a thread allocates from, and the operations on one.
 *
 * A magazine is the free objects of one word of one slab, up to 64, withdrawn from nobody: in shared memory they are
 * simply free. A thread has one for each class, and owns any number of slabs; what it owns beyond the current one and
 * knows to have free objects is in a list. Whether an object's slab is the thread's own is read from the slab itself, so
 * freeing into any of them needs no locked instruction. All lists, notes and summaries are hints. */
#ifndef HUGEPOOL_SLAB_H
#define HUGEPOOL_SLAB_H

#include "pool/participant.h"
#include "slab/class.h"

struct slab_mag {
	uint64_t free;       /* objects that may be handed out: bits of *a */
	_Atomic uint64_t *a; /* the word of the current slab */
	char *base;          /* where the object of bit 0 lies */
	uint32_t size;
	uint32_t slab1; /* page of the current slab + 1; 0: none, and free is 0 */
};

struct slab_state {
	struct slab_mag mag[SLAB_CLASSES];
	uint32_t list[SLAB_CLASSES];   /* page + 1 of the first slab with free objects, linked by `next` */
	uint8_t empties[SLAB_CLASSES]; /* how many in the list had no live object when last seen */
	uint32_t cursor[SLAB_CLASSES]; /* chunk where the summary was looked at last */
};

_Static_assert(sizeof(struct slab_state) <= PARTICIPANT_SLAB_STATE, "the participant has room for the slab layer");

static inline struct slab_state *slab_state(struct participant *me)
{
	return (struct slab_state *)(void *)me->slab_state;
}

/* What ctl reads, but for its version, in a slab that this thread owns. */
#define SLAB_KEY (UINT64_C(0xffffffff00000000) | 0xf)
static inline uint64_t slab_key(const struct participant *me)
{
	return (uint64_t)me->who << 32 | CTL_OWNED;
}
static inline bool slab_is_mine(const struct participant *me, const struct slab *slab)
{
	return (atomic_load_explicit(&slab->ctl, memory_order_relaxed) & SLAB_KEY) == slab_key(me);
}

/* Which object of which slab an offset is: SLAB_NONE where the page is not a slab's, SLAB_WRONG where no object can
 * begin. Believes nothing: whatever the map and the descriptor say, index is below SLAB_OBJECTS. */
enum slab_found { SLAB_NONE, SLAB_WRONG, SLAB_OBJECT };
struct slab_place {
	struct slab *slab;
	uint32_t page, index;
};
static inline enum slab_found slab_find(const hp_pool *pool, hp_off off, struct slab_place *place)
{
	uint64_t page = off >> 12;
	uint64_t back = atomic_load_explicit(&pool->map[page], memory_order_relaxed);
	if (!back || unlikely(back > page + 1)) return SLAB_NONE;
	page -= back - 1;
	struct slab *slab = &pool->slabs[page];
	uint32_t at = (uint32_t)(off - (page << 12)) - atomic_load_explicit(&slab->first, memory_order_relaxed) * 16u;
	uint32_t reciprocal = atomic_load_explicit(&slab->reciprocal, memory_order_relaxed);
	/* exact for all sizes and slabs there are: the low half is below the reciprocal only for multiples of the size */
	uint64_t product = (uint64_t)at * reciprocal;
	place->slab = slab;
	place->page = (uint32_t)page;
	place->index = (uint32_t)(product >> 32);
	return likely((uint32_t)product < reciprocal && place->index < SLAB_OBJECTS) ? SLAB_OBJECT : SLAB_WRONG;
}

static inline bool slab_live(const struct slab *slab, unsigned i)
{
	uint64_t a = atomic_load_explicit(&slab->a[i >> 6], memory_order_acquire);
	return ((a ^ atomic_load_explicit(&slab->r[i >> 6], memory_order_acquire)) >> (i & 63)) & 1;
}

/* Inside an operation: an object of the class' magazine, or NULL when that is empty. */
static inline char *slab_take(struct slab_mag *mag)
{
	uint64_t free = mag->free;
	if (unlikely(!free)) return NULL;
	_Atomic uint64_t *a = mag->a;
	mag->free = free & (free - 1);
	char *object = mag->base + (size_t)(unsigned)__builtin_ctzll(free) * mag->size;
	/* commit: before it the object is free, after it it is the caller's */
	atomic_store_explicit(a, atomic_load_explicit(a, memory_order_relaxed) ^ (free & -free), memory_order_release);
	return object;
}

/* Inside an operation, slab owned: SLAB_NOT when the object is not live. SLAB_UNTIDY: given, and slab_tidy is to be called
 * after the operation. */
enum slab_gave { SLAB_NOT, SLAB_GAVE, SLAB_UNTIDY };
enum slab_gave slab_given(struct participant *me, const struct slab_place *place, bool empty_word); /* the rare part */
static inline enum slab_gave slab_give(struct participant *me, const struct slab_place *place)
{
	struct slab *slab = place->slab;
	_Atomic uint64_t *a = &slab->a[place->index >> 6];
	uint64_t bit = UINT64_C(1) << (place->index & 63), old = atomic_load_explicit(a, memory_order_relaxed);
	uint64_t live = old ^ atomic_load_explicit(&slab->r[place->index >> 6], memory_order_relaxed);
	struct slab_mag *mag = &slab_state(me)->mag[atomic_load_explicit(&slab->class, memory_order_relaxed) % SLAB_CLASSES];
	if (unlikely(!(live & bit))) return SLAB_NOT;
	/* commit: after it the object is free. Release: whoever reuses it comes after the caller's last access. */
	atomic_store_explicit(a, old ^ bit, memory_order_release);
	if (likely(mag->a == a))
		mag->free |= bit;
	else if (unlikely(live == bit || atomic_load_explicit(&slab->noted, memory_order_relaxed) == SLAB_UNKNOWN))
		return slab_given(me, place, live == bit);
	return SLAB_GAVE;
}

/* By anybody, outside of operations, with one compare-and-swap: false when the object is not live. */
bool slab_free_remote(hp_pool *pool, const struct slab_place *place);

/* Outside of operations: fills the class' magazine, by every means there is. 0 or -errno. */
int slab_refill(struct participant *me, unsigned class);

/* Gives back slabs without live objects that this thread keeps, all of them (SLAB_CLASSES) or those of a class. */
void slab_purge(struct participant *me, unsigned class);
/* The same down to a few, of the class of that place. */
void slab_tidy(struct participant *me, const struct slab_place *place);

#endif
