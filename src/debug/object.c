/* Objects of caches in debug modes, around what get and put do without. */
#include "debug/debug.h"
#include "debug/track.h"
#include "cache/cache.h"
#include <errno.h>
#include <string.h>

/* Has each object of the cache a tag's room behind it? */
static bool has_room(const hp_cache *cache)
{
	return cache->flags & CACHE_ROOM;
}

static size_t stride(const hp_cache *cache)
{
	return cache->pool->classes[cache->class].size;
}

static void begin(hp_cache *cache, char *object, unsigned flags)
{
	struct slab *slab;
	unsigned index;
	if (flags & HP_DEBUG_TRACK) track_open(object, stride(cache));
	if (flags & HP_DEBUG_POISON && !cache->shared->constructed && cache_find(cache, object, &slab, &index) == 0)
		debug_unpoison(cache->pool, object, stride(cache), debug_key(cache->pool, slab));
}

void debug_got(hp_cache *cache, char *object, const void *caller)
{
	unsigned flags = debug_flags(cache->pool);
	begin(cache, object, flags);
	if (!has_room(cache)) {
		if (flags & HP_DEBUG_TRACK) track_alloc(object, cache->size, stride(cache), 0);
		return;
	}
	if (debug_wants_tag(cache->pool)) debug_tag_write(cache->pool, object, stride(cache), cache->size, caller);
	if (flags & HP_DEBUG_TRACK) {
		track_alloc(object, cache->size, stride(cache), DEBUG_ROOM);
		if (cache->shared->constructed) track_open(object, cache->size); /* what was constructed is defined */
	}
}

/* The caller may use what lies between the objects, too. */
void debug_got_array(hp_cache *cache, char *first, size_t n)
{
	for (size_t i = 0; i < n; i++) begin(cache, first + i * stride(cache), debug_flags(cache->pool));
}

int debug_putting(hp_cache *cache, struct slab *slab, unsigned w, uint64_t bits)
{
	hp_pool *pool = cache->pool;
	unsigned flags = debug_flags(pool);
	uint64_t key = debug_key(pool, slab);
	int damage = 0;
	for (; bits; bits &= bits - 1) {
		unsigned index = w * 64 + (unsigned)__builtin_ctzll(bits);
		char *object = pool->base + (uint64_t)(slab - pool->slabs) * HP_PAGE_SIZE +
		               atomic_load_explicit(&slab->first, memory_order_relaxed) + (uint64_t)index * stride(cache);
		if (!slab_live(slab, index)) continue; /* not out, or lent: the put says so */
		if (flags & HP_DEBUG_TRACK) track_open(object, stride(cache));
		if (has_room(cache) && debug_tag_end(pool, object, stride(cache)) < 0) damage = -EFAULT;
		if (flags & HP_DEBUG_POISON && !cache->shared->constructed) debug_poison(pool, object, stride(cache), key);
		if (flags & HP_DEBUG_TRACK) {
			track_free(object, stride(cache));
			if (cache->shared->constructed) track_open(object, stride(cache)); /* the destructor may come at any time */
		}
	}
	return damage;
}
