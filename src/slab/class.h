/* Classes: sizes of objects, and how a slab is cut for one. Those of malloc are the same in every pool; the others belong
 * to caches, as far as the process has opened them. */
#ifndef HUGEPOOL_SLAB_CLASS_H
#define HUGEPOOL_SLAB_CLASS_H

#include "pool/pool.h"

struct pool_cache;

/* What is known of a class: private memory. size 0: nothing. */
struct slab_class {
	uint32_t size;       /* from one object to the next */
	uint32_t reciprocal; /* 2^32 / size, rounded up */
	uint16_t pages, objects;
	uint16_t least;         /* pages of a thread's first slab of the class; malloc's only */
	uint16_t lead;          /* where object 0 lies in a slab of the first colour, in bytes */
	uint16_t step, colours; /* bytes from colour to colour, and how many there are */
	uint8_t magazine;       /* objects in a magazine at first */
	uint8_t magazine_most;
	bool process, on_node;
	uint8_t node;
	/* of caches */
	struct pool_cache *cache;
	uint32_t generation;
	void (*dtor)(void *arg, void *object);
	void *arg;
	bool built; /* has a byte an object that says whether it is constructed */
};

/* Cuts slabs for objects `size` apart, of which byte `offset` is aligned to `align`. False: none can be cut. */
bool slab_class_fit(struct slab_class *class, uint32_t size, uint32_t align, uint32_t offset, bool built);

/* Of malloc: 16 bytes apart up to 128, then eight for each doubling, so that under an eighth is wasted. */
#define SLAB_MAGAZINE 64u /* objects in a magazine at most */
#define SLAB_MALLOC_CLASSES 72u
#define SLAB_MALLOC_MAX 32768u

/* By 16 bytes up to 1 KiB, where most sizes are. */
static const uint8_t slab_small_class[65] = {
	0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 16, 17, 17, 18,
	18, 19, 19, 20, 20, 21, 21, 22, 22, 23, 23, 24, 24, 24, 24, 25, 25, 25, 25, 26, 26, 26,
	26, 27, 27, 27, 27, 28, 28, 28, 28, 29, 29, 29, 29, 30, 30, 30, 30, 31, 31, 31, 31,
};

static inline unsigned slab_malloc_class(size_t size)
{
	if (likely(size <= 1024)) return slab_small_class[(size + 15) >> 4];
	unsigned shift = 60u - (unsigned)__builtin_clzll(size - 1); /* log2 of what classes here are apart */
	return (unsigned)((size - 1) >> shift) + (shift - 4) * 8;
}

static inline uint32_t slab_malloc_size(unsigned class)
{
	return class < 8 ? (class + 1) * 16 : (9 + (class - 8) % 8) << (4 + (class - 8) / 8);
}

void slab_classes_init(hp_pool *pool);

#endif
