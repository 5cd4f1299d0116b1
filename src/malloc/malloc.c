/* The general malloc: which layer serves a size, and the public functions.
 *
 * Up to 32 KiB slabs, above runs of pages. Which of the two a block is, freeing reads from the map of pages. */
#include "debug/debug.h"
#include "slab/slab.h"
#include "page/page.h"
#include <hugepool/malloc.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- allocating ---- */

static __attribute__((noinline, cold)) void *failed(intptr_t error)
{
	errno = (int)-error;
	return NULL;
}

/* With what debug modes ask for on top already in `size`; align is 16 here. */
static void *alloc_plain(hp_pool *pool, size_t align, size_t size)
{
	int error;
	(void)align;
	if (size > SLAB_MALLOC_MAX) {
		if (size > pool->capacity) return failed(-ENOMEM);
		intptr_t block = hp_page_alloc_address(pool, size, 0);
		return likely(block > 0) ? (void *)block : failed(block);
	}
	struct participant *me = participant_get(pool, &error);
	if (!me) return failed(error);
	unsigned class = slab_malloc_class(size);
	void *block = NULL;
	participant_hold(me);
	do {
		participant_begin(me);
		block = slab_at_hand(slab_state(me), class);
		participant_end(me);
	} while (!block && (error = slab_refill(me, class)) == 0);
	participant_let_go(me);
	return block ? block : failed(error);
}

/* Nothing is to be had: the end, where that is what the pool was told. */
static __attribute__((noinline, cold)) void *shortage(hp_pool *pool, size_t size)
{
	if (!pool->aborts || errno != ENOMEM) return NULL;
	debug_say(pool,
	          "hugepool: pool %s has no memory for a block of %zu bytes, and hp_malloc_abort_on_shortage is set: make "
	          "it with more size or capacity",
	          pool->geometry.name, size);
	abort();
}

static __attribute__((noinline)) void *alloc_slow(hp_pool *pool, size_t size, const void *caller)
{
	if (!pool && !(pool = hp_pool_default())) return NULL;
	if (participant_switch(pool)) return hp_malloc(pool, size);
	void *block = unlikely(debug_on(pool)) ? debug_alloc(pool, 16, size, caller, alloc_plain)
	                                       : alloc_plain(pool, 16, size);
	return likely(block != NULL) ? block : shortage(pool, size);
}

/* Goes on inside an operation, where the magazine is empty. */
static __attribute__((noinline)) void *alloc_refill(struct participant *me, size_t size)
{
	struct pool_slot *slot = me->slot;
	unsigned class = slab_malloc_class(size);
	void *block = slab_refill_own(me, class) ? slab_at_hand(slab_state(me), class) : NULL;
	participant_end_fast(slot);
	return likely(block != NULL) ? block : alloc_slow(me->pool, size, NULL);
}

static __attribute__((noinline)) void *alloc_pages(hp_pool *pool, size_t size, const void *caller)
{
	if (participant_is_fast(hp_thread_current, pool)) {
		intptr_t block = hp_page_alloc_address(pool, size, 0);
		if (likely(block > 0)) return (void *)block;
	}
	return alloc_slow(pool, size, caller);
}

static inline __attribute__((always_inline)) void *alloc(hp_pool *pool, size_t size)
{
	struct participant *me = hp_thread_current;
	struct pool_slot *slot = me->slot;
	if (unlikely(size > SLAB_MALLOC_MAX)) return alloc_pages(pool, size, __builtin_return_address(0));
	if (participant_is_fast(me, pool) && likely(participant_try_begin(slot))) {
		char *block = slab_at_hand_recent(slab_state(me), slab_malloc_class(size));
		if (unlikely(!block)) return alloc_refill(me, size);
		participant_end_fast(slot);
		return block;
	}
	return alloc_slow(pool, size, __builtin_return_address(0)); /* of the function that this is inlined into */
}

void *hp_malloc(hp_pool *pool, size_t size)
{
	return alloc(pool, size);
}

void *hp_calloc(hp_pool *pool, size_t count, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(count, size, &bytes)) return failed(-ENOMEM);
	void *block = alloc(pool, bytes);
	return likely(block != NULL) ? memset(block, 0, bytes) : NULL;
}

static void *aligned_plain(hp_pool *pool, size_t align, size_t size)
{
	if (align <= 16) return alloc_plain(pool, 16, size);
	if (align < HP_PAGE_SIZE && size <= SLAB_MALLOC_MAX) {
		/* objects lie at multiples of their class' size, so that has to be a multiple of the alignment */
		size_t room = (size + align - 1) & ~(align - 1);
		if (room < align) room = align;
		while (slab_malloc_size(slab_malloc_class(room)) % align) room += align;
		return debug_on(pool) ? alloc_plain(pool, 16, room) : alloc(pool, room);
	}
	if (align <= HP_PAGE_SIZE) return alloc_plain(pool, 16, size > SLAB_MALLOC_MAX ? size : SLAB_MALLOC_MAX + 1);
	int error;
	struct participant *me = participant_get(pool, &error);
	if (!me) return failed(error);
	if (align / HP_PAGE_SIZE > UINT16_MAX || size > pool->capacity) return failed(-ENOMEM);
	struct page_want want = {.pages = size ? (size + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE : 1,
	                         .node = -1,
	                         .align = (uint16_t)(align / HP_PAGE_SIZE)};
	int64_t page;
	participant_hold(me);
	error = page_search(me, &want, &page);
	participant_let_go(me);
	return error < 0 ? failed(error) : pool->base + page * HP_PAGE_SIZE;
}

void *hp_aligned_alloc(hp_pool *pool, size_t align, size_t size)
{
	const void *caller = __builtin_return_address(0);
	if (align == 0 || align & (align - 1)) return failed(-EINVAL);
	if (align <= 16) return alloc(pool, size);
	if (size > SIZE_MAX - align) return failed(-ENOMEM);
	if (!pool && !(pool = hp_pool_default())) return NULL;
	void *block = unlikely(debug_on(pool)) ? debug_alloc(pool, align, size, caller, aligned_plain)
	                                       : aligned_plain(pool, align, size);
	return likely(block != NULL) ? block : shortage(pool, size);
}

int hp_malloc_abort_on_shortage(hp_pool *pool, bool aborts)
{
	if (!pool && !(pool = hp_pool_default())) return -errno;
	if (pool->observer) return -EROFS;
	pool->aborts = aborts;
	return 0;
}

int hp_malloc_bulk(hp_pool *pool, size_t size, size_t count, void **blocks)
{
	for (size_t i = 0; i < count; i++) {
		blocks[i] = alloc(pool, size);
		if (unlikely(!blocks[i])) {
			int error = -errno;
			hp_free_bulk(pool, i, blocks);
			return error;
		}
	}
	return 0;
}

/* ---- freeing ---- */

static int not_an_object(hp_pool *pool, struct slab *slab, unsigned index)
{
	int lent = slab_free_lent(pool, slab, index);
	if (lent != -ENOENT) return lent;
	if (index >= atomic_load_explicit(&slab->objects, memory_order_relaxed)) return -EINVAL; /* what is left over */
	unsigned state = ctl_state(atomic_load_explicit(&slab->ctl, memory_order_relaxed));
	return state == CTL_OWNED || state == CTL_UNOWNED ? -EALREADY : -ENOENT;
}

static int free_plain(hp_pool *pool, void *block)
{
	struct slab *slab;
	unsigned index, class;
	hp_off off = (hp_off)((uintptr_t)block - (uintptr_t)pool->base);
	if (pool->observer) return -EROFS;
	if (off >= pool->capacity) return -EINVAL;
	enum slab_found found = slab_find(pool, off, &slab, &index, &class);
	if (found == SLAB_NONE) return hp_page_free(pool, block);
	if (found == SLAB_WRONG) return -EINVAL;
	if (class >= SLAB_MALLOC_CLASSES) return -ENOENT; /* an object of a cache */
	struct participant *me = participant_peek(pool);
	if (me && !(debug_flags(pool) & HP_DEBUG_COLD)) {
		participant_begin(me);
		bool mine = slab_is_mine(me, slab), untidy = false;
		enum slab_gave gave = mine ? slab_give(&slab_state(me)->mag[class], slab, index, block) : SLAB_NOT;
		if (gave == SLAB_RARE) untidy = slab_given(me, slab, class);
		participant_end(me);
		if (untidy) slab_tidy(me, class);
		if (mine) return gave != SLAB_NOT ? 0 : not_an_object(pool, slab, index);
	}
	return slab_free_remote(pool, slab, index >> 6, UINT64_C(1) << (index & 63)) ? 0 : not_an_object(pool, slab, index);
}

static __attribute__((noinline)) int free_slow(hp_pool *pool, void *block)
{
	if (!block) return 0;
	if (!pool && !(pool = hp_pool_default())) return -errno;
	if (participant_switch(pool)) return hp_free(pool, block);
	return unlikely(debug_on(pool)) ? debug_free(pool, block, free_plain) : free_plain(pool, block);
}

/* Goes on inside an operation, where the object's slab has to be listed, or may be empty. */
static __attribute__((noinline)) int free_rare(struct participant *me, struct slab *slab, const struct slab_mag *mag)
{
	unsigned class = (unsigned)(mag - slab_state(me)->mag);
	bool untidy = slab_given(me, slab, class);
	participant_end_fast(me->slot);
	if (untidy) slab_tidy(me, class);
	return 0;
}

/* The same for the last one in a magazine. */
static __attribute__((noinline)) int free_rare_last(struct participant *me, const struct slab_mag *mag)
{
	return free_rare(me, slab_of_word(slab_word_at(*slab_at_of(mag->top - 1))), mag);
}

/* And where it was not what the fast path is for. */
static __attribute__((noinline)) int free_other(struct participant *me, void *block)
{
	participant_end_fast(me->slot);
	return free_slow(me->pool, block);
}

static __attribute__((noinline)) int free_page(struct participant *me, uint64_t map, void *block)
{
	if (map) return free_other(me, block);
	return page_free_begun(me, block);
}

/* Goes on inside an operation, with a block that was not taken last from the magazine that was. */
static __attribute__((noinline)) int free_found(hp_pool *pool, void *block, struct participant *me)
{
	struct slab *slab;
	unsigned index;
	hp_off off = (hp_off)((uintptr_t)block - (uintptr_t)pool->base);
	if (unlikely(off >= pool->capacity)) return free_other(me, block);
	uint64_t map = atomic_load_explicit(&pool->map[off >> 12], memory_order_relaxed);
	size_t class = map_class(map);
	if (unlikely(class >= SLAB_MALLOC_CLASSES)) return free_other(me, block);
	struct slab_mag *mag = &slab_state(me)->mag[class];
	if (unlikely(!slab_find_in(pool, map, off, 0, &slab, &index))) return free_page(me, map, block);
	if (unlikely(!slab_is_mine(me, slab))) return free_other(me, block);
	enum slab_gave gave = slab_give(mag, slab, index, block);
	if (unlikely(gave == SLAB_RARE)) return free_rare(me, slab, mag);
	if (unlikely(gave == SLAB_NOT)) return free_other(me, block);
	participant_end_fast(me->slot);
	return 0;
}

int hp_free(hp_pool *pool, void *block)
{
	struct participant *me = hp_thread_current;
	struct pool_slot *slot = me->slot;
	enum slab_gave gave;
	if (unlikely(!participant_is_fast(me, pool)) || unlikely(!participant_try_begin(slot)))
		return free_slow(pool, block);
	/* first of all without asking the map whose block it is, which the next hp_malloc would have to wait for */
	struct slab_mag *mag = slab_state(me)->recent;
	if (!slab_give_back(mag, block, &gave)) return free_found(pool, block, me);
	if (unlikely(gave == SLAB_NOT)) return free_other(me, block);
	if (unlikely(gave == SLAB_RARE)) return free_rare_last(me, mag);
	participant_end_fast(slot);
	return 0;
}

int hp_free_bulk(hp_pool *pool, size_t count, void *const *blocks)
{
	int error = 0;
	if (!pool && !(pool = hp_pool_default())) return -errno;
	for (size_t i = 0; i < count; i++) {
		struct slab *slab;
		unsigned index, class;
		hp_off off = (hp_off)((uintptr_t)blocks[i] - (uintptr_t)pool->base);
		struct participant *me = hp_thread_current;
		bool others = off < pool->capacity && !pool->observer && !debug_on(pool) &&
		              slab_find(pool, off, &slab, &index, &class) == SLAB_OBJECT && class < SLAB_MALLOC_CLASSES &&
		              (me->pool != pool || !slab_is_mine(me, slab));
		int one = 0;
		if (others) {
			/* with those that follow and lie in the same word, by one change of it. Nothing is put off beyond this call,
			 * so nothing has to be remembered for a caller that dies. */
			uint64_t bits = UINT64_C(1) << (index & 63);
			unsigned word = index >> 6, other;
			for (; i + 1 < count; i++) {
				struct slab *next;
				hp_off at = (hp_off)((uintptr_t)blocks[i + 1] - (uintptr_t)pool->base);
				if (at >= pool->capacity || slab_find(pool, at, &next, &other, &class) != SLAB_OBJECT || next != slab ||
				    other >> 6 != word || bits >> (other & 63) & 1)
					break;
				bits |= UINT64_C(1) << (other & 63);
			}
			for (bits &= ~slab_free_remote(pool, slab, word, bits); bits; bits &= bits - 1) {
				int left = not_an_object(pool, slab, word * 64 + (unsigned)__builtin_ctzll(bits));
				if (one == 0) one = left;
			}
		} else {
			one = hp_free(pool, blocks[i]);
		}
		if (error == 0) error = one;
	}
	return error;
}

/* ---- asking, resizing ---- */

/* Bytes of the live block, or 0. */
static size_t size_of(hp_pool *pool, const void *block, bool *object)
{
	struct slab *slab;
	unsigned index, class;
	hp_off off = (hp_off)((uintptr_t)block - (uintptr_t)pool->base);
	if (!block || off >= pool->capacity) return 0;
	enum slab_found found = slab_find(pool, off, &slab, &index, &class);
	*object = found != SLAB_NONE;
	if (found == SLAB_NONE) {
		int64_t bytes = hp_page_size(pool, block);
		return bytes > 0 ? (size_t)bytes : 0;
	}
	if (found == SLAB_WRONG || class >= SLAB_MALLOC_CLASSES || !slab_out(pool, slab, index)) return 0;
	return pool->classes[class].size;
}

size_t hp_usable_size(hp_pool *pool, const void *block)
{
	bool object;
	if (!block || (!pool && !(pool = hp_pool_default()))) return 0;
	size_t size = size_of(pool, block, &object);
	return unlikely(debug_on(pool)) ? debug_size(pool, block, size) : size;
}

void *hp_realloc(hp_pool *pool, void *block, size_t size)
{
	bool object;
	if (!block) return alloc(pool, size);
	if (!pool && !(pool = hp_pool_default())) return NULL;
	size_t was = size_of(pool, block, &object);
	bool debug = debug_on(pool);
	if (unlikely(debug)) was = debug_size(pool, block, was);
	if (was == 0) return failed(-EINVAL);
	/* in place: while it fits and half of it would not do */
	if (!debug && object && size <= was && (size > was / 2 || was <= 32)) return block;
	if (!debug && !object && size > SLAB_MALLOC_MAX && size <= SIZE_MAX - HP_PAGE_SIZE) {
		uint64_t pages = (size + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE;
		hp_off off = (hp_off)((uintptr_t)block - (uintptr_t)pool->base);
		if (pages * HP_PAGE_SIZE == was || page_resize(pool, off / HP_PAGE_SIZE, pages)) return block;
	}
	void *other = alloc(pool, size);
	if (!other) {
		if (size <= was) return block; /* too much, but it serves */
		return NULL;
	}
	memcpy(other, block, size < was ? size : was);
	if (unlikely(hp_free(pool, block) == -EPERM)) { /* guarded, and another process' */
		hp_free(pool, other);
		return failed(-EPERM);
	}
	return other;
}
