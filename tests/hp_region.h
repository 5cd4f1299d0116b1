/* What the tests of private caches share: caches of each kind of memory, and functions that give regions and keep count. */
#ifndef HP_REGION_TEST_H
#define HP_REGION_TEST_H

#include "hp_cache.h"
#include <pthread.h>

/* Memory of the caller's functions: what is out, and what was done. Every region lies `shift` bytes behind a page. */
struct giver {
	pthread_mutex_t lock;
	size_t shift;
	unsigned given, taken, refused;
	unsigned most; /* regions at a time; the next is refused */
	size_t bytes, peak;
	struct {
		char *start;
		size_t bytes;
	} out[1200];
};

static inline void *giver_allocate(void *arg, size_t bytes)
{
	struct giver *giver = (struct giver *)arg;
	char *start = NULL;
	pthread_mutex_lock(&giver->lock);
	if (giver->given - giver->taken >= giver->most) {
		giver->refused++;
	} else {
		char *map = (char *)mmap(NULL, bytes + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		must(map != MAP_FAILED);
		memset(map, 0x5b, PAGE);
		memset(map + bytes + PAGE, 0x5b, PAGE);
		start = map + giver->shift;
		unsigned i = 0;
		while (giver->out[i].start) must(++i < 1200);
		giver->out[i].start = start;
		giver->out[i].bytes = bytes;
		giver->given++;
		giver->bytes += bytes;
		if (giver->bytes > giver->peak) giver->peak = giver->bytes;
	}
	pthread_mutex_unlock(&giver->lock);
	return start;
}

/* Takes back what was given, once, and with nothing written beside it. */
static inline void giver_release(void *arg, void *start, size_t bytes)
{
	struct giver *giver = (struct giver *)arg;
	unsigned i = 0;
	pthread_mutex_lock(&giver->lock);
	while (giver->out[i].start != start) must(++i < 1200);
	must_be(giver->out[i].bytes, bytes);
	giver->out[i].start = NULL;
	giver->taken++;
	giver->bytes -= bytes;
	char *map = (char *)start - giver->shift;
	for (size_t k = 0; k < giver->shift; k++) must_be(map[k], 0x5b);
	for (size_t k = giver->shift + bytes > bytes + PAGE ? giver->shift + bytes : bytes + PAGE; k < bytes + 2 * PAGE;
	     k++)
		must_be(map[k], 0x5b);
	must_be(munmap(map, bytes + 2 * PAGE), 0);
	pthread_mutex_unlock(&giver->lock);
}

#define GIVER \
	{ \
		.lock = PTHREAD_MUTEX_INITIALIZER, .most = 1200 \
	}

static inline struct hp_cache_memory hp_given(struct giver *giver, size_t region, uint64_t most)
{
	return (struct hp_cache_memory){.struct_size = sizeof(struct hp_cache_memory),
	                                .bytes = most,
	                                .allocate = giver_allocate,
	                                .release = giver_release,
	                                .arg = giver,
	                                .region = region};
}

static inline struct hp_cache_memory hp_lent(void *start, size_t bytes)
{
	return (struct hp_cache_memory){.struct_size = sizeof(struct hp_cache_memory), .start = start, .bytes = bytes};
}

static inline void *hp_mapped(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED);
	return memory;
}

#endif
