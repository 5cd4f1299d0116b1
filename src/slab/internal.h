/* What the files of this layer share. slab.c: a slab by itself, and its end; magazine.c: what a thread has at hand and owns;
 * make.c: a new one; search.c: finding free objects; bulk.c: many at once; census.c: all of a class; each.c: one by one;
 * layer.c: what the pool asks. */
#ifndef HUGEPOOL_SLAB_INTERNAL_H
#define HUGEPOOL_SLAB_INTERNAL_H

#include "slab/slab.h"
#include "page/page.h"
#include "pool/recover.h"
#include "cache/place.h"

#define SLAB_TAKES 64 /* slabs wanted of their owners at a time */

static inline unsigned slab_objects(const struct slab *slab)
{
	unsigned objects = atomic_load_explicit(&slab->objects, memory_order_relaxed);
	return objects < SLAB_OBJECTS ? objects : SLAB_OBJECTS;
}

/* The same where objects have been lent (slab/lend.c): of those that `mask` has. */
uint64_t slab_free_unlent(const hp_pool *pool, const struct slab *slab, unsigned w, uint64_t mask);

/* Objects of word w that are free; exact for the owner inside an operation. */
static inline uint64_t slab_free_in(const hp_pool *pool, const struct slab *slab, unsigned w, unsigned objects)
{
	if (objects <= w * 64) return 0;
	uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_acquire);
	uint64_t live = a ^ atomic_load_explicit(&slab->r[w], memory_order_acquire);
	/* after R: who sees what was freed under an announcement sees that too, or that it is over */
	if (unlikely(atomic_load_explicit(&slab->announce, memory_order_acquire))) return 0;
	uint64_t mask = objects - w * 64 >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << (objects - w * 64)) - 1;
	/* likewise: what is lent looks free in R */
	if (unlikely(atomic_load_explicit(&slab->lends, memory_order_acquire)))
		return slab_free_unlent(pool, slab, w, mask);
	return ~live & mask;
}

static inline bool slab_has_free(const hp_pool *pool, const struct slab *slab)
{
	unsigned objects = slab_objects(slab);
	for (unsigned w = 0; w < SLAB_WORDS; w++)
		if (slab_free_in(pool, slab, w, objects)) return true;
	return false;
}

/* Frees those of *bits that have pins, when these go: which. What has none stays in *bits. */
uint64_t slab_free_remote_lent(hp_pool *pool, struct slab *slab, unsigned w, uint64_t *bits);
/* All are free, and none is lent. */
bool slab_none_lent(const hp_pool *pool, const struct slab *slab);

static inline bool slab_is_empty(const hp_pool *pool, const struct slab *slab)
{
	uint64_t live = 0;
	for (unsigned w = 0; w < SLAB_WORDS; w++) {
		uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_acquire);
		live |= a ^ atomic_load_explicit(&slab->r[w], memory_order_acquire);
	}
	if (live || atomic_load_explicit(&slab->announce, memory_order_acquire)) return false; /* as in slab_free_in */
	return likely(!atomic_load_explicit(&slab->lends, memory_order_acquire)) || slab_none_lent(pool, slab);
}

/* Its place in the directory of its cache, or SLAB_NO_PLACE. */
static inline unsigned slab_place(const struct slab *slab)
{
	return atomic_load_explicit(&slab->extra, memory_order_relaxed) & SLAB_NO_PLACE;
}

static inline uint32_t slab_page_limit(const hp_pool *pool)
{
	return pool->chunk_count * pool->chunk_pages;
}

static inline uint32_t slab_next(const hp_pool *pool, const struct slab *slab)
{
	uint32_t next = atomic_load_explicit(&slab->next, memory_order_relaxed);
	return next <= slab_page_limit(pool) ? next : 0;
}

static inline uint32_t slab_pages(const hp_pool *pool, const struct slab *slab)
{
	uint32_t page = (uint32_t)(slab - pool->slabs), i = page & (pool->chunk_pages - 1);
	unsigned len = atomic_load_explicit(&pool->units[page >> pool->page_shift_chunk].len[i], memory_order_relaxed);
	return parity_len(len & PARITY_LEN_MASK, i, pool->chunk_pages);
}

/* In the place of a slot: records are not to be mistaken for them. */
#define NOT_A_SLOT 0x8000u
/* Which of the two it is that a record does with a slab is the lowest bit of the version: in the word that is swapped, so that
 * there is no moment at which it is neither. */
#define SLAB_STAYS (UINT64_C(1) << 4)

/* Held by our record: being made or ended, and no slab of its class. */
static inline uint64_t slab_by_record(const hp_pool *pool, uint64_t old)
{
	uint64_t ctl = ctl_make(CTL_RECOVERING, (pool->record + 1) | NOT_A_SLOT, pool->record_generation, old);
	return ctl & SLAB_STAYS ? ctl_make(CTL_RECOVERING, (pool->record + 1) | NOT_A_SLOT, pool->record_generation, ctl)
	                        : ctl;
}

/* The same while what is free in it is destroyed: a slab of its class, which may stay one when that is over, or we die. */
static inline uint64_t slab_by_destroyer(const hp_pool *pool, uint64_t old)
{
	uint64_t ctl = slab_by_record(pool, old);
	return ctl_make(CTL_RECOVERING, ctl_owner(ctl), ctl_generation(ctl), ctl);
}

/* Is it one of this class (SLAB_CLASSES: of any)? */
static inline bool slab_is_of(const struct slab *slab, unsigned class)
{
	return class == SLAB_CLASSES || atomic_load_explicit(&slab->class, memory_order_relaxed) == class;
}

/* Does a slab with this control word count for its class? One that does not either ends, or becomes its maker's, who looks at
 * cache and limit then. */
static inline bool slab_counts(uint64_t ctl)
{
	enum ctl_state state = ctl_state(ctl);
	return state == CTL_OWNED || state == CTL_UNOWNED || (state == CTL_RECOVERING && ctl & SLAB_STAYS);
}

static inline _Atomic uint8_t *slab_built_of(struct slab *slab)
{
	return (_Atomic uint8_t *)(void *)(slab + 1);
}

/* Hint: somebody who looks for objects of that class may look into that chunk. */
void slab_note(hp_pool *pool, struct slab *slab, uint32_t page);
void slab_freed_remote(hp_pool *pool, struct slab *slab, bool last);
/* The slab that begins at the page, by what the page layer says: NULL where no live run of a slab begins. */
struct slab *slab_at(const hp_pool *pool, uint64_t page);
/* Calls visit for every slab of chunks [from, to) until it returns not 0. */
typedef int slab_visit(hp_pool *pool, struct slab *slab, uint32_t page, void *arg);
int slab_visit_all(hp_pool *pool, uint32_t from, uint32_t to, slab_visit *visit, void *arg);
bool slab_has_built(struct slab *slab);
/* Constructed objects that are free, in a slab that we hold alone: destroyed, each at most once whenever we die. */
void slab_destroy_objects(hp_pool *pool, struct slab *slab);
/* May this process call the destructor of what is in slabs of the class? Asked after their control words are read. */
bool slab_may_destroy(const hp_pool *pool, unsigned class);
/* Ends a slab whose control word is `seen`, if that still holds and nothing lives in it: its pages go back. `destroy`: the
 * caller may call destructors; slabs with constructed objects stay otherwise, and where the destructor is not known. */
bool slab_end(hp_pool *pool, struct slab *slab, uint32_t page, uint64_t seen, bool destroy);
/* Gives a slab to nobody, with what others need to find it; an empty one ends. */
void slab_release(hp_pool *pool, struct slab *slab, uint32_t page, uint64_t seen, bool destroy);

void slab_state_renew(struct participant *me);
/* Nothing is at hand, nothing is known to be owned. */
void slab_state_forget(struct slab_state *state);
/* Inside an operation, nothing of the class at hand, slab owned: the next of its words that has something free is. */
bool slab_load(struct participant *me, unsigned class, struct slab *slab, uint32_t size);
/* Inside an operation: forgets the current slab, which has nothing left. */
void slab_drop_current(struct participant *me, unsigned class);
/* Inside an operation: others than the magazine are to know that the slab has free objects. */
void slab_list(struct participant *me, struct slab *slab, unsigned class);
/* Inside an operation: the objects of a magazine are left to their slabs. */
void slab_empty_magazine(struct participant *me, unsigned class);
/* So many pages are made into a slab. */
void slab_missed(struct slab_state *state, uint32_t pages);
void slab_count_owned(const hp_pool *pool, struct slab_state *state, unsigned class, const struct slab *slab, int sign);

/* A new slab for the thread. keep: it is not for the magazine. -EAGAIN: the cache's limit, or it has just been given one. */
int slab_make(struct participant *me, unsigned class, bool keep);

/* Slabs of a cache that may go without its free objects becoming fewer than a mark. */
uint64_t slab_may_go(hp_pool *pool, unsigned class, bool asked);
/* Ends what is empty: how many slabs; *skipped counts those whose owners are inside an operation. */
uint64_t slab_reclaim_class(struct participant *me, unsigned class, unsigned *skipped);

#endif
