/* What the tests of malloc share: contents that tell whose they are, and a pool at rest.
 *
 * A block is filled to its last usable byte with numbers made from a stamp, so that any two blocks that overlap, and any
 * store of the allocator into one, are seen. */
#ifndef HP_MALLOC_TEST_H
#define HP_MALLOC_TEST_H

#include <hugepool/malloc.h>

#include "hp_process.h"
#include "page/page.h"
#include "slab/slab.h"

static inline uint64_t hp_stamp_word(uint64_t stamp, size_t i)
{
	return (stamp + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;
}

static inline void hp_fill(void *block, size_t bytes, uint64_t stamp)
{
	uint64_t *word = block, last = hp_stamp_word(stamp, bytes / 8);
	for (size_t i = 0; i < bytes / 8; i++) word[i] = hp_stamp_word(stamp, i);
	memcpy(word + bytes / 8, &last, bytes % 8);
}

/* The first `bytes` bytes are as hp_fill left them. */
static inline bool hp_filled(const void *block, size_t bytes, uint64_t stamp)
{
	const uint64_t *word = block;
	uint64_t last = hp_stamp_word(stamp, bytes / 8), wrong = 0;
	for (size_t i = 0; i < bytes / 8; i++) wrong |= word[i] ^ hp_stamp_word(stamp, i);
	return !wrong && memcmp(word + bytes / 8, &last, bytes % 8) == 0;
}

/* The calling thread gives back slabs without live objects. */
static inline void hp_purge(hp_pool *pool)
{
	int error;
	struct participant *me = participant_get(pool, &error);
	must(me);
	participant_hold(me);
	slab_purge(me, SLAB_CLASSES);
	participant_let_go(me);
}

/* All of the pool is to be had as one run, whatever threads keep for themselves; and after that it is empty. */
static inline void hp_must_be_had_whole(hp_pool *pool)
{
	void *whole;
	uint64_t committed = hp_stats(pool).committed;
	must_be(hp_page_alloc(pool, committed, 0, &whole), 0);
	must_be(hp_stats(pool).free, 0);
	must_be(hp_stats(pool).live_blocks, 1);
	must_be(hp_page_free(pool, whole), 0);
	hp_must_be_empty(pool);
}

/* The objects of a slab that are live, as its bitmaps say; for a pool at rest. */
static inline unsigned hp_live_objects(const struct slab *slab)
{
	unsigned live = 0;
	for (unsigned i = 0; i < SLAB_OBJECTS; i++) live += slab_live(slab, i);
	return live;
}

struct hp_slabs {
	unsigned slabs, empty, objects, room; /* objects: live ones; room: for how many */
	uint64_t pages;
};

/* All slabs there are, found by the map; for a pool at rest. */
static inline struct hp_slabs hp_count_slabs(hp_pool *pool)
{
	struct hp_slabs count = {0};
	for (uint64_t page = 0; page < pool->capacity / PAGE; page++) {
		uint64_t map = atomic_load(&pool->map[page]);
		if (!map) continue;
		count.pages++;
		if ((map & 0xff) != 1) continue;
		unsigned live = hp_live_objects(&pool->slabs[page]);
		count.slabs++;
		count.empty += live == 0;
		count.objects += live;
		count.room += atomic_load(&pool->slabs[page].objects);
	}
	return count;
}

#endif
