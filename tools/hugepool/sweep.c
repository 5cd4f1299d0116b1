/* What the dead held: buffers that no ring names.
 *
 * Called when reader and sender stand still or are dead, so nobody gets or puts a buffer. A frame is somebody's from the
 * reader's commit to the sender's (ledger.h): its number in its worker's rings lies between their positions. Up to what the
 * worker has shown it stands in the ring to the sender, from there on in the ring from the reader; the worker may go on
 * meanwhile, since what it takes is not written over without the reader. Everything else that can be put back is. What
 * cannot, because it is free, or no buffer, the cache says. */
#include "demo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sweep {
	struct demo *demo;
	uint64_t step, steps; /* buffers begin at multiples of `step` bytes, and so do runs of pages */
	uint8_t *named;       /* a bit for each step */
};

static void name(struct sweep *sweep, uint64_t offset)
{
	uint64_t at = offset / sweep->step;
	if (at < sweep->steps) sweep->named[at / 8] |= (uint8_t)(1u << (at % 8));
}

/* What lives in a ring, by positions. */
static void name_entries(struct sweep *sweep, struct ring *ring, uint64_t from, uint64_t to)
{
	struct ring_consumer view;
	ring_open_consumer(ring, sweep->demo->shared->ring_capacity, from, &view);
	for (uint64_t at = from; at < to; at++) name(sweep, ring_entry_at(&view, at)->offset);
}

static int name_worker(struct sweep *sweep, unsigned number, uint64_t taken, uint64_t put)
{
	struct demo_shared *shared = sweep->demo->shared;
	size_t bytes = ring_bytes(shared->ring_capacity);
	struct ring *in = demo_at(sweep->demo, demo_get(&shared->worker[number].in), bytes);
	struct ring *out = demo_at(sweep->demo, demo_get(&shared->worker[number].out), bytes);
	if (!in || !out) return -EUCLEAN;
	uint64_t shown = atomic_load_explicit(&out->head, memory_order_acquire);
	if (taken > shown || shown > put || put - taken > 2 * shared->ring_capacity) return -EUCLEAN;
	name_entries(sweep, out, taken, shown);
	name_entries(sweep, in, shown, put);
	return 0;
}

/* Blocks of whole pages, beside frames: what was there before the first frame. */
static void name_known(struct sweep *sweep)
{
	for (size_t i = 0; i < sweep->demo->known_count; i++) name(sweep, sweep->demo->known[i]);
}

static int name_all(struct sweep *sweep)
{
	struct demo *demo = sweep->demo;
	static struct ledger read, sent;
	int error = ledger_load(demo->reader_heap, &read);
	if (error == 0) error = ledger_load(demo->sender_heap, &sent);
	for (unsigned i = 0; i < demo->shared->workers && error == 0; i++)
		error = name_worker(sweep, i, sent.ring[i].at, read.ring[i].at);
	name_known(sweep);
	return error;
}

/* How many were put back. */
static int64_t put_back(struct sweep *sweep)
{
	struct demo *demo = sweep->demo;
	int64_t swept = 0;
	bool runs = demo->capture->longest > DEMO_BUFFER;
	for (uint64_t at = 0; at < sweep->steps; at++) {
		if (sweep->named[at / 8] >> (at % 8) & 1) continue;
		uint64_t offset = at * sweep->step;
		if (hp_cache_put(demo->buffers, hp_pool_pointer(demo->pool, offset)) == 0)
			swept++;
		else if (runs && offset % HP_PAGE_SIZE == 0 && hp_page_size_at(demo->pool, offset) > 0)
			swept += hp_page_free_at(demo->pool, offset) == 0; /* not those of class PROCESS of the living */
	}
	return swept;
}

int64_t sweep_dead(struct demo *demo)
{
	struct hp_cache_stats stats = {.struct_size = sizeof(stats)};
	int error = hp_cache_stats(demo->buffers, &stats);
	if (error < 0) return error;
	/* where a tag lies behind each buffer (hugepool/debug.h), they are only aligned */
	struct sweep sweep = {.demo = demo, .step = stats.stride == DEMO_BUFFER ? DEMO_BUFFER : DEMO_ALIGN};
	sweep.steps = hp_pool_capacity(demo->pool) / sweep.step;
	sweep.named = calloc(sweep.steps / 8 + 1, 1);
	if (!sweep.named) return -ENOMEM;
	int64_t result = name_all(&sweep);
	if (result == 0) result = put_back(&sweep);
	free(sweep.named);
	return result;
}

int sweep_know(struct demo *demo)
{
	uint64_t capacity = hp_pool_capacity(demo->pool);
	for (uint64_t offset = 0; offset < capacity; offset += HP_PAGE_SIZE) {
		if (hp_page_size_at(demo->pool, offset) <= 0) continue;
		if (demo->known_count == sizeof(demo->known) / sizeof(demo->known[0])) return -ENOSPC;
		demo->known[demo->known_count++] = offset;
	}
	return 0;
}
