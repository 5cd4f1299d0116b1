/* Blocks of hp_malloc in debug modes: more is asked for, and tag and poison are set and looked at around what malloc does
 * without modes. Everything happens to live blocks, by their holder: before the commit of the free, after that of the
 * allocation. So a wrong free is malloc's to refuse, and no block that is somebody else's by then is written to. */
#include "debug/debug.h"
#include "debug/track.h"
#include "page/page.h"
#include "slab/slab.h"
#include <errno.h>
#include <string.h>

/* What malloc took for a live block. key: of its slab, 0 where it is a run of pages. */
static size_t room_of(hp_pool *pool, const void *block, uint64_t *key)
{
	struct slab *slab;
	unsigned index, class;
	hp_off off = (hp_off)((uintptr_t)block - (uintptr_t)pool->base);
	*key = 0;
	if (off >= pool->capacity) return 0;
	enum slab_found found = slab_find(pool, off, &slab, &index, &class);
	if (found == SLAB_NONE) {
		int64_t bytes = hp_page_size(pool, block);
		if (bytes <= 0) return 0;
		/* pages of another process are its own: malloc refuses them */
		uint64_t tag = atomic_load_explicit(&pool->chunks[(off >> 12) >> pool->page_shift_chunk].tag,
		                                    memory_order_acquire);
		return tag && tag != page_tag(pool) ? 0 : (size_t)bytes;
	}
	if (found == SLAB_WRONG || class >= SLAB_MALLOC_CLASSES || !slab_live(slab, index)) return 0;
	*key = debug_key(pool, slab);
	return pool->classes[class].size;
}

void *debug_alloc(hp_pool *pool, size_t align, size_t size, const void *caller, debug_alloc_fn *plain)
{
	unsigned flags = debug_flags(pool);
	bool tag = debug_wants_tag(pool);
	uint64_t key;
	if (!size) size = 1;
	if (debug_fails(pool) || size > pool->capacity) {
		errno = ENOMEM;
		return NULL;
	}
	if (flags & HP_DEBUG_GUARD && align <= HP_PAGE_SIZE / 2) {
		void *guarded = debug_guard_alloc(pool, align, size, caller);
		if (guarded) return guarded;
	}
	/* for the sanitizer at least a few bytes that nobody may touch */
	size_t room = tag ? DEBUG_ROOM + (flags & HP_DEBUG_TRACK ? 16 : 0) : 0;
	char *block = plain(pool, align, size + room);
	if (!block) return NULL;
	size_t raw = room_of(pool, block, &key);
	if (flags & HP_DEBUG_TRACK) track_open(block, raw);
	if (flags & HP_DEBUG_POISON) {
		if (key)
			debug_unpoison(pool, block, raw, key);
		else
			memset(block, 0xa5, raw);
	}
	if (tag) debug_tag_write(pool, block, raw, size, caller);
	if (flags & HP_DEBUG_TRACK) track_alloc(block, size, raw, DEBUG_ROOM);
	return block;
}

int debug_free(hp_pool *pool, void *block, debug_free_fn *plain)
{
	unsigned flags = debug_flags(pool);
	uint64_t key;
	if (pool->observer) return -EROFS;
	size_t raw = room_of(pool, block, &key);
	if (raw && !key && debug_guard_heads(pool, block)) return -ENOENT; /* its run, not the block */
	if (!raw) return debug_guard_size(pool, block) ? debug_guard_free(pool, block) : plain(pool, block);
	if (flags & HP_DEBUG_TRACK) track_open(block, raw);
	int damage = debug_tag_end(pool, block, raw);
	if (flags & HP_DEBUG_POISON) debug_poison(pool, block, raw, key);
	if (flags & HP_DEBUG_TRACK) track_free(block, raw);
	int error = plain(pool, block);
	return error < 0 ? error : damage;
}

size_t debug_size(hp_pool *pool, const void *block, size_t raw)
{
	return raw ? debug_tag_size(pool, block, raw) : debug_guard_size(pool, block);
}

void debug_blank(hp_pool *pool, char *object, size_t size)
{
	size_t raw = pool->classes[slab_malloc_class(size)].size;
	if (debug_flags(pool) & HP_DEBUG_TRACK) track_pages(object, raw);
	memset(object, 0xa5, raw);
}
