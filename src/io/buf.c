/* Views, and who keeps their memory mapped.
 *
 * The blits of the public header are compiled here once more, as what is exported. A view of a pool's block asks the layers
 * below for its length; everything read from shared memory for that is clamped to the pool. Owners are the process' own
 * memory: nothing of them is shared, and nothing of them outlives the process. */
#define HP_BUF_INLINE /* defined here */
#include "io/buf.h"
#include "cache/layout.h"
#include "debug/debug.h"
#include "os/os.h"
#include "slab/slab.h"
#include <stdlib.h>

static hp_buf none(void)
{
	return hp_buf_of(NULL, 0);
}

/* ---- views of what is there ---- */

int hp_buf_grab(hp_pool *pool, const void *start, size_t len, hp_buf *buf)
{
	if (!buf) return -EINVAL;
	*buf = none();
	if (pool) {
		hp_off off = hp_pool_offset(pool, start);
		if (off == HP_OFF_NONE || len > pool->capacity - off) return -EINVAL;
	} else if ((!start && len) || len > UINTPTR_MAX - (uintptr_t)start) {
		return -EINVAL;
	}
	*buf = hp_buf_of(start, len);
	buf->pool = pool;
	return 0;
}

/* Bytes of the live object that begins there, or 0; *slab: whether it lies in a slab at all. */
static uint64_t object_size(hp_pool *pool, hp_off off, bool *in_slab)
{
	struct slab *slab;
	unsigned index, class;
	*in_slab = slab_find(pool, off, &slab, &index, &class) != SLAB_NONE;
	if (!*in_slab) return 0;
	/* what the map says of object 0 is rounded down; the descriptor has the rest */
	uint32_t skew = atomic_load_explicit(&slab->first, memory_order_relaxed) & 15;
	if (slab_find_skewed(pool, off, skew, &slab, &index, &class) != SLAB_OBJECT || !slab_out(pool, slab, index))
		return 0;
	if (class < CACHE_FIRST_CLASS) return pool->classes[class].size;
	const struct pool_cache *cache = &pool->caches[class - CACHE_FIRST_CLASS];
	unsigned state = cache_state(atomic_load_explicit(&cache->word, memory_order_acquire));
	return state == CACHE_LIVE || state == CACHE_ENDING ? cache->size : 0;
}

int hp_buf_grab_block(hp_pool *pool, const void *block, hp_buf *buf)
{
	if (!buf) return -EINVAL;
	*buf = none();
	hp_off off = pool && !pool->observer ? hp_pool_offset(pool, block) : HP_OFF_NONE;
	if (off == HP_OFF_NONE) return -EINVAL;
	bool in_slab;
	uint64_t size = object_size(pool, off, &in_slab);
	if (!in_slab) {
		int64_t bytes = hp_page_size(pool, block);
		size = bytes > 0 ? (uint64_t)bytes : 0;
	}
	if (unlikely(debug_on(pool))) size = debug_size(pool, block, size);
	if (!size || size > pool->capacity - off) return -EINVAL;
	*buf = hp_buf_of(block, size);
	buf->pool = pool;
	return 0;
}

/* ---- owners ---- */

static _Atomic(struct hp_buf_owner *) spare; /* owners without memory */

static void owner_put(struct hp_buf_owner *first)
{
	struct hp_buf_owner *last = first;
	while (last->next) last = last->next;
	struct hp_buf_owner *head = atomic_load_explicit(&spare, memory_order_relaxed);
	do {
		last->next = head;
	} while (!atomic_compare_exchange_weak_explicit(&spare, &head, first, memory_order_release, memory_order_relaxed));
}

/* The whole list is taken and what is not needed put back: nobody can see an owner come back under his hands. */
static struct hp_buf_owner *owner_get(void)
{
	struct hp_buf_owner *owner = atomic_exchange_explicit(&spare, NULL, memory_order_acquire);
	if (!owner) return calloc(1, sizeof *owner);
	if (owner->next) owner_put(owner->next);
	owner->next = NULL;
	return owner;
}

static inline uint64_t word_of(uint32_t generation, uint32_t count)
{
	return (uint64_t)generation << 32 | count;
}

int buf_own(enum buf_kind kind, char *start, size_t bytes, size_t lead, size_t len, hp_buf *buf)
{
	struct hp_buf_owner *owner = owner_get();
	if (!owner) return -ENOMEM;
	owner->kind = kind;
	owner->start = start;
	owner->bytes = bytes;
	*buf = hp_buf_of(start + lead, len);
	buf->owner = owner;
	buf->generation = (uint32_t)(atomic_load_explicit(&owner->word, memory_order_relaxed) >> 32);
	buf->whole = 1;
	return 0;
}

/* Moves the count of the view's owner from what it is to one more or less. 0, or why not. */
static int count(const hp_buf *buf, int by)
{
	uint64_t word = atomic_load_explicit(&buf->owner->word, memory_order_relaxed);
	do {
		uint32_t alive = (uint32_t)word;
		if (word >> 32 != buf->generation || alive == BUF_CLOSING || (by < 0 && !alive)) return -ESTALE;
		if (by > 0 && alive == BUF_CLOSING - 1) return -EOVERFLOW;
		/* release: who unmaps comes after all that was done with the view */
	} while (!atomic_compare_exchange_weak_explicit(&buf->owner->word, &word, word + (uint64_t)(int64_t)by,
	                                                memory_order_acq_rel, memory_order_relaxed));
	return 0;
}

int hp_buf_sub(hp_buf buf, size_t off, size_t len, hp_buf *sub)
{
	if (!sub) return -EINVAL;
	*sub = none();
	if (!hp_buf_holds(buf, off, len)) return -EINVAL;
	int error = buf.owner ? count(&buf, 1) : 0;
	if (error < 0) return error;
	*sub = hp_buf_sub_unchecked(buf, off, len);
	sub->owner = buf.owner;
	sub->generation = buf.generation;
	return 0;
}

int hp_buf_drop(hp_buf *sub)
{
	if (!sub || sub->whole) return -EINVAL;
	int error = sub->owner ? count(sub, -1) : 0;
	*sub = none();
	return error;
}

int hp_buf_unmap(hp_buf *buf)
{
	if (!buf || !buf->owner || !buf->whole) return -EINVAL;
	struct hp_buf_owner *owner = buf->owner;
	uint64_t word = word_of(buf->generation, 0);
	/* commit: before it the memory is there and may be counted; after it no view of it counts any more */
	if (!atomic_compare_exchange_strong_explicit(&owner->word, &word, word_of(buf->generation, BUF_CLOSING),
	                                             memory_order_acq_rel, memory_order_relaxed))
		return word >> 32 == buf->generation && (uint32_t)word != BUF_CLOSING ? -EBUSY : -ESTALE;
	int error = 0;
	if (owner->kind == BUF_ALIGNED)
		free(owner->start);
	else
		error = os_unmap(owner->start, owner->bytes);
	if (error < 0) {
		atomic_store_explicit(&owner->word, word_of(buf->generation, 0), memory_order_release);
		return error;
	}
	atomic_store_explicit(&owner->word, word_of(buf->generation + 1, 0), memory_order_release);
	owner_put(owner);
	*buf = none();
	return 0;
}
