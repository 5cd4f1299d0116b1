/* What the debug modes ask of malloc and caches: a few calls from their slow paths, where `debug_on` says that the handle
 * has, or once had, a mode. The state lies in memory of its own, so that a handle without modes pays one pointer.
 *
 * Behind a block lies a tag of 48 bytes at the very end of the room it was given, whose place follows from the block alone;
 * three of its words cannot be there by chance. So a block is known to carry one whoever allocated it, and a damaged tag is
 * told from none. Between the bytes asked for and the tag lie bytes of one value. Freeing wipes the tag. */
#ifndef HUGEPOOL_DEBUG_INTERNAL_H
#define HUGEPOOL_DEBUG_INTERNAL_H

#include "pool/pool.h"
#include <hugepool/debug.h>

struct debug {
	_Atomic uint32_t flags;
	_Atomic uint32_t fail;  /* one in so many */
	_Atomic uint32_t epoch; /* counts how often POISON was switched on: what was poisoned before is not looked at */
	_Atomic uint64_t asked; /* allocations since `fail` was set */
	_Atomic uint64_t findings;
};

static inline bool debug_on(const hp_pool *pool)
{
	return atomic_load_explicit(&pool->debug, memory_order_acquire) != NULL;
}

static inline unsigned debug_flags(const hp_pool *pool)
{
	const struct debug *debug = atomic_load_explicit(&pool->debug, memory_order_acquire);
	return debug ? atomic_load_explicit(&debug->flags, memory_order_relaxed) : 0;
}

/* A handle begins: what HUGEPOOL_DEBUG says. A handle ends. */
void debug_begin(hp_pool *pool);
void debug_end(hp_pool *pool);
/* Pages that are handed out as such: accessible, whatever they were. */
void debug_pages(const hp_pool *pool, void *start, size_t bytes);
/* Is this the allocation that fails? */
bool debug_fails(hp_pool *pool);
/* One line to the log, or standard error. */
__attribute__((format(printf, 2, 3))) void debug_say(const hp_pool *pool, const char *format, ...);
/* The same, counted. */
#define debug_report(pool, ...) \
	(atomic_fetch_add_explicit(&(pool)->debug->findings, 1, memory_order_relaxed), debug_say(pool, __VA_ARGS__))

/* ---- tags (tag.c) ---- */

#define DEBUG_ROOM 48u

struct debug_tag {
	uint64_t begin;
	uint64_t size; /* asked for */
	uint64_t caller;
	uint32_t pid, tid;
	uint64_t sum, end;
};
_Static_assert(sizeof(struct debug_tag) == DEBUG_ROOM, "the tag is as large as the room that is asked for");

/* Reads a tag that ends at offset `end`, of a block of `raw` bytes. */
enum debug_tagged { DEBUG_UNTAGGED, DEBUG_TAGGED, DEBUG_DAMAGED };
enum debug_tagged debug_tag_read(const struct debug_tag *tag, hp_off end, uint64_t raw);
bool debug_wants_tag(const hp_pool *pool);
void debug_tag_write(hp_pool *pool, char *block, size_t raw, size_t size, const void *caller);
/* 0, or -EFAULT when something behind the block was overwritten, which is reported; the tag is gone then. */
int debug_tag_end(hp_pool *pool, char *block, size_t raw);
/* The exact size; `raw` where there is no tag. */
size_t debug_tag_size(const hp_pool *pool, const char *block, size_t raw);

/* ---- poison (poison.c) ---- */

struct slab;
uint64_t debug_key(const hp_pool *pool,
                   const struct slab *slab); /* not 0; another one for each time that it changes hands */
void debug_poison(hp_pool *pool, char *object, size_t raw, uint64_t key);
void debug_unpoison(hp_pool *pool, char *object, size_t raw, uint64_t key); /* looks, reports, fills with 0xa5 */

/* ---- blocks of malloc (block.c) ---- */

typedef void *debug_alloc_fn(hp_pool *pool, size_t align, size_t size);
typedef int debug_free_fn(hp_pool *pool, void *block);
void *debug_alloc(hp_pool *pool, size_t align, size_t size, const void *caller, debug_alloc_fn *plain);
int debug_free(hp_pool *pool, void *block, debug_free_fn *plain);
/* Bytes asked for; 0: no live block. raw: what malloc knows, or 0. */
size_t debug_size(hp_pool *pool, const void *block, size_t raw);
void debug_blank(hp_pool *pool, char *object, size_t size); /* a block that takes no part */

/* ---- guard pages (guard.c) ---- */

void *debug_guard_alloc(hp_pool *pool, size_t align, size_t size, const void *caller);
size_t debug_guard_size(const hp_pool *pool, const void *block); /* 0: has none */
int debug_guard_free(hp_pool *pool, void *block);
bool debug_guard_heads(const hp_pool *pool, const void *block); /* begins a guarded block's run there? */
void debug_follow_fork(hp_pool *pool);                          /* in the child */
bool debug_guard_possible(const hp_pool *pool);

/* In the first page of the run of a guarded block. */
struct debug_guard {
	uint64_t magic;
	uint64_t block, size, pages; /* offset, bytes, of the run */
	uint64_t caller;
	uint32_t pid, tid;
	uint32_t record, record_generation;
	uint64_t sum;
};
bool debug_guard_read(const struct debug_guard *guard, hp_off run);

/* ---- objects of caches (object.c) ---- */

struct hp_cache;
/* An object that was got; raw: from one object to the next. */
void debug_got(struct hp_cache *cache, char *object, const void *caller);
void debug_got_array(struct hp_cache *cache, char *first, size_t n);
/* Before objects of one word go back: 0 or -EFAULT. */
int debug_putting(struct hp_cache *cache, struct slab *slab, unsigned w, uint64_t bits);

#endif
