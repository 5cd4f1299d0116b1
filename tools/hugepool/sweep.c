/* What the dead held: buffers that no fifo names.
 *
 * Called when reader and sender stand still or are dead, so nobody gets or puts a buffer. First what they had begun is
 * finished: what a dead reader had committed is published, what a dead sender had committed is acknowledged (ledger.h). Then a
 * frame is somebody's if it stands in a fifo, and everything else that can be put back is. What cannot, because it is free, or
 * no buffer, the cache says. Workers go on meanwhile: a frame comes into the fifo to the sender before it leaves the one
 * from the reader, so that one is looked at first. */
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

/* Reader and sender had committed so many frames of a worker's. */
static int finish(struct demo *demo, unsigned number, uint64_t read, uint64_t sent)
{
	hp_fifo *in = demo->in[number], *out = demo->out[number];
	struct demo_entry entry;
	uint64_t shown = hp_fifo_pushed(in), taken = hp_fifo_popped(out);
	if (shown > read || taken > sent) return -EUCLEAN;
	int error = hp_fifo_publish(in, read - shown); /* commit: these frames are the worker's */
	for (; taken < sent && error == 0; taken++) error = hp_fifo_pop(out, &entry);
	bell_ring(&demo->shared->worker[number].bell);
	return error;
}

static int name_all_of(struct sweep *sweep, hp_fifo *fifo)
{
	struct demo_entry *entry = malloc(hp_fifo_capacity(fifo) * sizeof(*entry));
	if (!entry) return -ENOMEM;
	int64_t count = hp_fifo_peek(fifo, entry, hp_fifo_capacity(fifo));
	for (int64_t i = 0; i < count; i++) name(sweep, entry[i].offset);
	free(entry);
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
	for (unsigned i = 0; i < demo->shared->workers && error == 0; i++) {
		error = finish(demo, i, read.fifo[i].at, sent.fifo[i].at);
		if (error == 0) error = name_all_of(sweep, demo->in[i]);
		if (error == 0) error = name_all_of(sweep, demo->out[i]);
	}
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
