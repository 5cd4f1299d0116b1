/* The slab layer's private side: what a thread has at hand, and the operations on a slab.
 *
 * A magazine is a stack of free objects of slabs that the thread owns, one for each class, private: in shared memory its
 * objects are simply free, and getting or putting one flips its A bit. So there is nothing to recover, and every double free
 * is seen. A thread owns any number of slabs; what it owns and knows to have free objects that are in no magazine is in a
 * list. Whether an object's slab is the thread's own is read from the slab, so freeing into any of them needs no locked
 * instruction. A magazine is filled only when it is empty; before that, what is free in a slab may be in it. All lists,
 * notes and summaries are hints. */
#ifndef HUGEPOOL_SLAB_H
#define HUGEPOOL_SLAB_H

#include "pool/participant.h"
#include "parity/parity.h"
#include "slab/class.h"

/* Objects, for each where its bit of A lies, {address of the word:58, number of the bit:6}, and the bit itself: for one
 * object it is made from the number, since a load costs more, for many it is at hand. A list each, so that many are looked
 * at together. */
#define SLAB_STACK (SLAB_MAGAZINE + 2) /* with one below, and one above */
struct slab_stack {
	char *object[SLAB_STACK];
	uint64_t at[SLAB_STACK];
	uint64_t bit[SLAB_STACK];
};

static inline uint64_t *slab_at_of(char **entry)
{
	return (uint64_t *)(void *)((char *)entry + offsetof(struct slab_stack, at));
}

static inline uint64_t *slab_bit_of(char **entry)
{
	return (uint64_t *)(void *)((char *)entry + offsetof(struct slab_stack, bit));
}

static inline uint64_t slab_at_make(_Atomic uint64_t *a, unsigned index)
{
	return (uint64_t)(uintptr_t)a << 6 | (index & 63);
}

static inline _Atomic uint64_t *slab_word_at(uint64_t at)
{
	return (_Atomic uint64_t *)(uintptr_t)(at >> 6);
}

static inline uint64_t slab_bit_at(uint64_t at)
{
	return UINT64_C(1) << (at & 63);
}

/* What was taken last and comes back first need not be looked up: entries from top up to `known` were taken, and as long as
 * the thread has given up no slab of the class they still say where their objects lie. Below base, and from known on, the
 * objects are NULL, so that one comparison tells. */
struct slab_mag {
	char **top;                       /* above the last one, in the objects of a stack */
	_Atomic(struct pool_slot *) slot; /* the participant's, or NULL: not for fast paths of caches */
	char **base;                      /* empty: top == base */
	char **known;                     /* top or above */
	char **limit;                     /* full: top == limit */
	char **batch;                     /* the first of those that were taken together last (slab/batch.h), */
	size_t batch_n;                   /* how many; 0: there are none, or one of the entries has been written, */
	uint64_t batch_bits;              /* and their bits in their word */
};

/* What a magazine is filled up from: the free objects of one word of the current slab, which are in no magazine. */
struct slab_word {
	uint64_t free; /* bits of *a */
	_Atomic uint64_t *a;
	char *base; /* where the object of bit 0 lies */
	uint64_t size;
};

struct slab_state {
	struct slab_mag mag[SLAB_CLASSES];
	struct slab_mag *recent; /* that hp_malloc took something from last: what comes back next is often that */
	struct slab *current[SLAB_CLASSES]; /* the one that words are taken from, which is in no list; or NULL */
	struct slab_word word[SLAB_CLASSES];
	uint32_t list[SLAB_CLASSES];   /* page + 1 of the first slab with free objects, linked by `next` */
	uint16_t slabs[SLAB_CLASSES];  /* owned, about */
	uint32_t cursor[SLAB_CLASSES]; /* chunk where the summary was looked at last */
	uint32_t owned, empty;         /* pages of all, and of those without live objects, about */
	uint32_t keep, gone; /* pages of them that are kept beyond the least; given back last, and not missed yet */
	uint64_t untidy[SLAB_CLASSES / 64]; /* classes with such */
	bool used;                          /* the thread has had a slab */
	uint8_t wait[SLAB_CLASSES];   /* how often the summary is not looked at any more, since it held nothing for us, */
	uint8_t waited[SLAB_CLASSES]; /* and how often it was not last time */
	struct slab_stack stack[SLAB_CLASSES];
};

_Static_assert(sizeof(struct slab_state) <= PARTICIPANT_SLAB_STATE, "the participant has room for the slab layer");

static inline struct slab_state *slab_state(struct participant *me)
{
	return (struct slab_state *)(void *)me->slab_state;
}

static inline bool slab_is_mine(const struct participant *me, const struct slab *slab)
{
	/* what else stands there are no slots, and never read the same (by_record) */
	return ctl_who(atomic_load_explicit(&slab->ctl, memory_order_relaxed)) == me->who;
}

/* Which object of which slab an offset is (skew: of object 0, in bytes beyond 16): SLAB_NONE where the page is not a slab's, SLAB_WRONG where no object can
 * begin. Believes nothing: whatever the map says, the descriptor lies in the control file, and index is below
 * SLAB_OBJECTS. */
enum slab_found { SLAB_NONE, SLAB_WRONG, SLAB_OBJECT };
static inline enum slab_found slab_find_skewed(const hp_pool *pool, hp_off off, uint32_t skew, struct slab **slab,
                                               unsigned *index, unsigned *class)
{
	uint64_t map = atomic_load_explicit(&pool->map[off >> 12], memory_order_relaxed);
	uint32_t back1 = (uint8_t)map, reciprocal = (uint32_t)(map >> 32);
	if (unlikely(!back1)) return SLAB_NONE;
	uint32_t at = ((uint32_t)off & (HP_PAGE_SIZE - 1)) + (uint32_t)((int32_t)(int16_t)(map >> 16) * 16) - skew;
	/* exact for all sizes and slabs there are: the low half is below the reciprocal only for multiples of the size */
	uint64_t product = (uint64_t)at * reciprocal;
	*slab = pool->slabs + (int64_t)((off >> 12) + 1 - back1);
	*index = (unsigned)(product >> 32);
	*class = (uint8_t)(map >> 8);
	return likely((uint32_t)product < reciprocal && product >> 32 < SLAB_OBJECTS) ? SLAB_OBJECT : SLAB_WRONG;
}

static inline enum slab_found slab_find(const hp_pool *pool, hp_off off, struct slab **slab, unsigned *index,
                                        unsigned *class)
{
	return slab_find_skewed(pool, off, 0, slab, index, class);
}

/* The same for fast paths, with the page's word of the map: false for whatever is no object. A word that is 0 fails by its
 * reciprocal. */
static inline bool slab_find_in(const hp_pool *pool, uint64_t map, hp_off off, uint32_t skew, struct slab **slab,
                                unsigned *index)
{
	uint32_t at = ((uint32_t)off & (HP_PAGE_SIZE - 1)) + (uint32_t)((int32_t)(int16_t)(map >> 16) * 16) - skew;
	uint64_t product = (map >> 32) * at;
	*index = (unsigned)(product >> 32);
	*slab = pool->slabs + (int64_t)((off >> 12) - (uint8_t)(map - 1));
	return likely((uint32_t)product < map >> 32) && likely(*index < SLAB_OBJECTS);
}

/* Where its objects begin. NULL: so many of them would not lie in the pool, so others have written there who should not. */
static inline char *slab_start(const hp_pool *pool, const struct slab *slab, unsigned objects, uint32_t size)
{
	uint64_t at = (uint64_t)(slab - pool->slabs) * HP_PAGE_SIZE +
	              atomic_load_explicit(&slab->first, memory_order_relaxed);
	return likely(at + (uint64_t)objects * size <= pool->capacity) ? pool->base + at : NULL;
}

static inline bool slab_live(const struct slab *slab, unsigned i)
{
	uint64_t a = atomic_load_explicit(&slab->a[i >> 6], memory_order_acquire);
	return ((a ^ atomic_load_explicit(&slab->r[i >> 6], memory_order_acquire)) >> (i & 63)) & 1;
}

/* Of one that looked free, where some have been lent (slab/lend.c): is it somebody's all the same? */
bool slab_out_lent(const hp_pool *pool, const struct slab *slab, unsigned i);

/* Objects of word w that have pins. */
uint64_t slab_lent_in(const hp_pool *pool, const struct slab *slab, unsigned w);

/* Is the object somebody's? */
static inline bool slab_out(const hp_pool *pool, const struct slab *slab, unsigned i)
{
	return slab_live(slab, i) ||
	       (unlikely(atomic_load_explicit(&slab->lends, memory_order_acquire)) && slab_out_lent(pool, slab, i));
}

/* An object that is not live is freed, by its own holder if there is one: 0 when it was lent, and will be free. -ENOENT: it was
 * not lent. -EALREADY; -EBUSY: in debug mode that is an error. */
int slab_free_lent(hp_pool *pool, struct slab *slab, unsigned index);

/* Inside an operation: an object of the magazine, or NULL. */
static inline char *slab_take(struct slab_mag *mag)
{
	char **top = mag->top - 1, *object = *top;
	if (unlikely(!object)) return NULL;
	uint64_t at = *slab_at_of(top);
	mag->top = top;
	/* commit: before it the object is free, after it it is the caller's */
	parity_flip(slab_word_at(at), slab_bit_at(at));
	return object;
}

/* The same from the word, not empty, where the magazine is. */
static inline char *slab_take_word(struct slab_word *word)
{
	uint64_t free = word->free, bit = free & -free;
	_Atomic uint64_t *a = word->a;
	char *object = word->base + (unsigned)__builtin_ctzll(free) * word->size;
	word->free = free ^ bit;
	/* commit, as in slab_take */
	parity_flip(a, bit);
	return object;
}

/* Inside an operation: an object that is at hand, or NULL. */
static inline char *slab_at_hand(struct slab_state *state, unsigned class)
{
	char *object = slab_take(&state->mag[class]);
	if (likely(object != NULL)) return object;
	return likely(state->word[class].free) ? slab_take_word(&state->word[class]) : NULL;
}

/* The same for hp_malloc. */
static inline char *slab_at_hand_recent(struct slab_state *state, unsigned class)
{
	state->recent = &state->mag[class];
	return slab_at_hand(state, class);
}

/* The one that slab_at_hand would hand out, where there is one. */
static inline char *slab_next_at_hand(const struct slab_state *state, unsigned class)
{
	const struct slab_mag *mag = &state->mag[class];
	const struct slab_word *word = &state->word[class];
	return mag->top != mag->base ? mag->top[-1] : word->base + (unsigned)__builtin_ctzll(word->free) * word->size;
}

static inline bool slab_has_any(const struct slab_state *state, unsigned class)
{
	return state->mag[class].top != state->mag[class].base || state->word[class].free;
}

static inline struct slab *slab_of_word(_Atomic uint64_t *a)
{
	return (struct slab *)((uintptr_t)a & ~(uintptr_t)(sizeof(struct slab) - 1));
}

static inline bool slab_is_quiet(const struct slab *slab)
{
	return atomic_load_explicit(&slab->noted, memory_order_relaxed) & SLAB_QUIET;
}

/* SLAB_NOT: the object is not live. SLAB_RARE: given, and slab_given is to be called before the operation ends. */
enum slab_gave { SLAB_NOT, SLAB_GAVE, SLAB_RARE };

/* Inside an operation: is the object the one that was taken last? Then its slab is still ours, and *gave says what became
 * of it. */
static inline bool slab_give_back(struct slab_mag *mag, const void *object, enum slab_gave *gave)
{
	char **top = mag->top;
	if (*top != object || unlikely(!object)) return false;
	uint64_t at = *slab_at_of(top), bit = slab_bit_at(at);
	_Atomic uint64_t *a = slab_word_at(at);
	uint64_t old = atomic_load_explicit(a, memory_order_relaxed);
	uint64_t live = old ^ atomic_load_explicit(a + (SLAB_R - SLAB_A), memory_order_relaxed);
	*gave = SLAB_NOT;
	if (unlikely(!(live & bit))) return true;
	/* commit: after it the object is free. Release: whoever reuses it comes after the caller's last access. */
	atomic_store_explicit(a, old ^ bit, memory_order_release);
	mag->top = top + 1;
	*gave = likely(live != bit || slab_is_quiet(slab_of_word(a))) ? SLAB_GAVE : SLAB_RARE;
	return true;
}

/* Inside an operation, slab owned. When the magazine is full the object is left to its slab. */
static inline enum slab_gave slab_give(struct slab_mag *mag, struct slab *slab, unsigned index, char *object)
{
	_Atomic uint64_t *a = &slab->a[index >> 6];
	uint64_t old = atomic_load_explicit(a, memory_order_relaxed), bit = UINT64_C(1) << (index & 63);
	uint64_t live = old ^ atomic_load_explicit(a + (SLAB_R - SLAB_A), memory_order_relaxed);
	/* loaded before the store: the two often have the same place in their pages, which makes a later load wait */
	char **top = mag->top, **limit = mag->limit;
	if (unlikely(!(live & bit))) return SLAB_NOT;
	/* commit, as above */
	atomic_store_explicit(a, old ^ bit, memory_order_release);
	if (likely(top != limit)) {
		*top = object;
		*slab_at_of(top) = slab_at_make(a, index);
		*slab_bit_of(top) = bit;
		mag->batch_n = 0;
		if (top == mag->known) mag->known = top + 1;
		mag->top = top + 1;
		return likely(live != bit || slab_is_quiet(slab)) ? SLAB_GAVE : SLAB_RARE;
	}
	bool listed = atomic_load_explicit(&slab->noted, memory_order_relaxed) & SLAB_LISTED;
	return likely(live != bit && listed) ? SLAB_GAVE : SLAB_RARE;
}

/* The slab has something free again, or perhaps nothing else: true when slab_tidy is to be called after the operation. */
bool slab_given(struct participant *me, struct slab *slab, unsigned class);

/* By anybody, outside of operations, with one compare-and-swap: frees those objects of word w that are live, and says which. */
uint64_t slab_free_remote(hp_pool *pool, struct slab *slab, unsigned w, uint64_t bits);
/* Inside an operation (slab/bulk.c): up to n objects that are at hand, and how many. */
unsigned slab_take_bulk(struct slab_state *state, unsigned class, unsigned n, void **objects);
/* Inside an operation: gives the first ones that are out and lie in slabs the thread owns, and says how many. *untidy is set
 * when slab_tidy is to be called after the operation. */
size_t slab_give_bulk(struct participant *me, unsigned class, uint32_t skew, size_t n, void *const *objects,
                      bool *untidy);

/* Frees one that is live, by one who is not the owner. */
void slab_flip_remote(hp_pool *pool, struct slab *slab, unsigned index);
/* Outside of operations: n contiguous objects, 1 to 64, as one, by every means there is. 0 or -errno. */
int slab_take_run(struct participant *me, unsigned class, unsigned n, char **first);

/* Inside an operation: fills the class' magazine, which is empty, from what the thread owns and knows of. */
bool slab_refill_own(struct participant *me, unsigned class);

/* Outside of operations: fills the class' magazine, by every means there is. 0 or -errno. */
int slab_refill(struct participant *me, unsigned class);

/* Gives back slabs without live objects that this thread keeps, all of them (SLAB_CLASSES) or those of a class. */
void slab_purge(struct participant *me, unsigned class);
/* The same down to a few. */
void slab_tidy(struct participant *me, unsigned class);
/* For caches; outside of operations. */
struct slab_census {
	uint64_t slabs, live, free;
};
void slab_census(hp_pool *pool, unsigned class, struct slab_census *sum);
/* Every slab of the class (SLAB_CLASSES: of all), with its control word (each.c). */
typedef void slab_each_fn(void *arg, uint32_t page, uint64_t ctl, unsigned live, unsigned free);
void slab_each(hp_pool *pool, unsigned class, slab_each_fn *call, void *arg);
/* Ends all slabs of a class (SLAB_CLASSES: of all) without live objects that are anybody's to be had: how many. */
uint64_t slab_reclaim(struct participant *me, unsigned class);
/* Makes slabs until so many objects are free. */
int slab_prime(struct participant *me, unsigned class, uint64_t objects);
uint8_t slab_built(struct slab *slab, unsigned index);                 /* what is noted of its construction; 0: raw */
void slab_set_built(struct slab *slab, unsigned index, uint8_t built); /* by who holds the object */
/* Destroys the constructed objects that are free, in all slabs that can be had. */
void slab_raze(struct participant *me, unsigned class);
/* Does a slab of that class begin there that has that place in the directory? */
bool slab_at_place(hp_pool *pool, uint32_t page, unsigned class, unsigned place);

#endif
