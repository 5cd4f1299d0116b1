/* The page layer's private side: which chunks a thread owns, and what it knows of them.
 *
 * A thread owns at most an active and a spare chunk for blocks of class POOL, and one for class PROCESS. It allocates
 * from its private view of them and frees into it without a locked instruction; every other free goes through R. All
 * runs are made by owners: one that touches several chunks owns all of them while it is made (page/survey.c). */
#ifndef HUGEPOOL_PAGE_INTERNAL_H
#define HUGEPOOL_PAGE_INTERNAL_H

#include "parity/parity.h"
#include "pool/participant.h"

struct page_owned {
	uint32_t chunk1; /* chunk + 1; 0: none, and then bytes is 0 and the view is empty */
	uint32_t bytes;
	char *start; /* of the chunk, in this process */
	struct parity_unit *unit;
	uint64_t ctl;    /* the control word it was taken with */
	uint64_t others; /* a digest of R when the view was made: unchanged means that nobody has freed */
	struct parity_view view;
};

enum { PAGE_ACTIVE = 0, PAGE_SPARE = 1, PAGE_PROCESS = 2, PAGE_OWNED = 3 };

struct page_state {
	struct page_owned own[PAGE_OWNED];
};

_Static_assert(sizeof(struct page_state) <= PARTICIPANT_PAGE_STATE, "the participant has room for the page layer");

static inline struct page_state *page_state(struct participant *me)
{
	return (struct page_state *)(void *)me->page_state;
}

/* What a caller wants, resolved. */
struct page_want {
	uint64_t pages;
	int node; /* -1: any */
	bool process;
	bool strict; /* that node or none */
	uint16_t
		type; /* into the length word: whose run it is, of the layers above; those of type 0 are the application's */
	bool in_chunk;  /* never over the end of a chunk */
	uint16_t align; /* in pages, a power of two; 0 or 1: none */
	/* Called inside the operation, right before the run becomes live. */
	void (*prepare)(struct participant *me, const struct page_want *want, uint64_t page);
	const void *arg;
};

/* A run, by every means there is; the caller holds (participant_hold). 0 or -ENOMEM. */
int page_search(struct participant *me, struct page_want *want, int64_t *page);
/* hp_page_free, by the thread whose operation has begun, which this ends; block: not NULL. */
int page_free_begun(struct participant *me, void *block);
/* Frees a run of a layer above, if it is of that type. */
int page_free_typed(hp_pool *pool, uint64_t page, unsigned type);
/* Runs under I/O (page/lend.c). The head of the live run that the page lies in, which is the application's: its pages, or 0. */
uint64_t page_block(const hp_pool *pool, uint64_t page, uint64_t *head);
struct lent_step;
int page_lend(hp_pool *pool, uint64_t head, struct lent_step step);
void page_unlend(hp_pool *pool, uint64_t head, struct lent_step step);
/* Whoever frees a run of type LENT: 0, and it goes back with its last pin; -EALREADY; -EBUSY in debug mode. */
int page_free_lent(hp_pool *pool, uint64_t head);
bool page_freed_lent(const hp_pool *pool, uint64_t head); /* somebody has */
/* What was kept of the dead because it was under I/O, and is not any more, goes back. */
void page_recover_over(hp_pool *pool);
/* Is anything in the chunk under I/O? */
bool page_chunk_lent(const hp_pool *pool, uint32_t chunk);

/* Makes a live run of the application's shorter or longer where it lies; false where that cannot be. */
bool page_resize(hp_pool *pool, uint64_t page, uint64_t pages);
/* Where in the view a run that is wanted may be, or -1. */
int page_place(const struct page_want *want, struct parity_view *view);
/* Frees all that is in a chunk which the caller holds alone. */
void page_wipe(hp_pool *pool, uint32_t chunk);

/* The hint for a longest free run of n pages, and the least that a search for n pages may accept. */
static inline uint8_t page_hint(unsigned n)
{
	return n ? (uint8_t)(32 - __builtin_clz(n)) : 0;
}

static inline void page_hint_raise(const hp_pool *pool, uint32_t chunk, unsigned pages)
{
	uint8_t hint = page_hint(pages);
	if (atomic_load_explicit(&pool->hints[chunk], memory_order_relaxed) < hint)
		atomic_store_explicit(&pool->hints[chunk], hint, memory_order_relaxed);
}

static inline uint64_t page_tag(const hp_pool *pool)
{
	return (uint64_t)(pool->record + 1) << 32 | pool->record_generation;
}

/* Pages at the start of a chunk that a run from an earlier chunk occupies. */
unsigned page_prefix(const hp_pool *pool, uint32_t chunk);

/* Snapshot of what is free; exact for the owner. */
void page_view(const hp_pool *pool, uint32_t chunk, struct parity_view *view);

/* Wholly free: no head in it and nothing that reaches in. */
bool page_chunk_free(const hp_pool *pool, uint32_t chunk);

/* Pages of the live run headed at page i, its part in later chunks included; 0 when there is none. */
uint64_t page_run(const hp_pool *pool, uint32_t chunk, unsigned i);

/* Ownership (page/own.c). Outside of an operation: */
bool page_adopt(struct participant *me, uint32_t chunk, bool process, uint64_t *ctl);
/* A chunk that became ours otherwise: is it still, and may it serve that class? `rereads` as it was before it became ours;
 * when that has changed the chunk has to go back by page_release. */
bool page_keep(struct participant *me, uint32_t chunk, bool process, uint32_t rereads);
void page_release(hp_pool *pool, uint32_t who, uint32_t chunk);
/* Frees what is in a chunk of a dead process, if nothing has happened to it since it had that control word. */
void page_recover_chunk(hp_pool *pool, uint32_t chunk, uint64_t ctl);
/* Its tag names a process that is dead and recovered, and the kernel writes nowhere in it. */
bool page_chunk_over(const hp_pool *pool, uint32_t chunk, uint64_t tag);
/* Inside an operation: */
bool page_tag_settle(struct participant *me, uint32_t chunk, bool process);
void page_give_back(struct participant *me, struct page_owned *owned);
bool page_refresh(struct participant *me, struct page_owned *owned); /* notices remote frees */
struct page_owned *page_find_owned(struct participant *me, uint32_t chunk);
void page_install(struct participant *me, uint32_t chunk, uint64_t ctl, uint64_t others, const struct parity_view *view,
                  bool process); /* others: page_others from before the view was made */
uint64_t page_others(const hp_pool *pool, uint32_t chunk);

/* A run anywhere (page/survey.c): its first page, or -ENOMEM. take: also from live owners that are not inside an
 * operation; *skipped counts chunks that could not be had, *versions changes when any chunk changed hands. */
int64_t page_survey(struct participant *me, const struct page_want *want, bool take, unsigned *skipped,
                    uint64_t *versions);
int64_t page_from_chunk(struct participant *me, uint32_t chunk, const struct page_want *want); /* outside, too */

/* Slabs, and aligned runs that fit, never go over the end of a chunk. */
static inline bool page_in_one_chunk(const hp_pool *pool, const struct page_want *want)
{
	return want->in_chunk || (want->align > 1 && want->align <= pool->chunk_pages && want->pages <= pool->chunk_pages);
}

static inline bool page_node_fits(const hp_pool *pool, uint32_t chunk, int node)
{
	return node < 0 || atomic_load_explicit(&pool->nodes[chunk], memory_order_relaxed) == node;
}

#endif
