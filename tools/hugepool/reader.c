/* The reader: copies frames into blocks of the pool and hands them to the workers.
 *
 * It is the only source of pressure, so it alone holds back: frames may take a budget of pages (half of the pool), a
 * ring takes what it takes, and a pool that is short in spite of that is waited for. Before every wait it publishes
 * what it has put, so the rest of the pipeline always can go on, and the wait ends. */
#include "demo.h"

#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define BATCH 32            /* frames between two looks at the bells */
#define SHORTAGE_SLICES 250 /* of DEMO_SLICE_NS with an empty pipeline, before a block is given up */

struct reader {
	struct demo *demo;
	struct ring_producer ring[DEMO_MAX_WORKERS];
	bool put[DEMO_MAX_WORKERS]; /* something since the last publication */
	uint64_t frames, bytes, pages;
};

static void publish(struct reader *reader)
{
	struct demo_shared *shared = reader->demo->shared;
	demo_set(&shared->read, reader->frames);
	demo_set(&shared->read_bytes, reader->bytes);
	demo_set(&shared->pages_taken, reader->pages);
	for (unsigned i = 0; i < shared->workers; i++) {
		if (!reader->put[i]) continue;
		reader->put[i] = false;
		ring_publish(&reader->ring[i]);
		bell_ring(&shared->worker[i].bell);
	}
}

static uint64_t pages_out(const struct reader *reader)
{
	return reader->pages - atomic_load_explicit(&reader->demo->shared->pages_given, memory_order_acquire);
}

static bool may_put(struct reader *reader, unsigned worker, uint64_t pages)
{
	const struct demo_shared *shared = reader->demo->shared;
	uint64_t out = pages_out(reader);
	return ring_room(&reader->ring[worker]) > 0 && (out == 0 || out + pages <= shared->budget) &&
	       atomic_load_explicit(&shared->pause, memory_order_relaxed) == 0;
}

/* False: the run has been stopped. */
static bool wait_for_room(struct reader *reader, unsigned worker, uint64_t pages)
{
	struct demo *demo = reader->demo;
	if (may_put(reader, worker, pages)) return true;
	publish(reader);
	for (unsigned looks = 0; !may_put(reader, worker, pages); looks++) {
		if (demo_stopped(demo)) return false;
		if (looks < demo->spin) {
			ring_pause();
			continue;
		}
		uint32_t heard = bell_listen(&demo->shared->reader_bell);
		if (may_put(reader, worker, pages) || demo_stopped(demo))
			bell_cancel(&demo->shared->reader_bell);
		else
			bell_sleep(&demo->shared->reader_bell, heard, DEMO_SLICE_NS);
	}
	return true;
}

/* A block for the frame; NULL when the run has been stopped or there is no hope. */
static void *take_block(struct reader *reader, size_t bytes)
{
	struct demo *demo = reader->demo;
	void *block;
	int error = hp_page_alloc(demo->pool, bytes, 0, &block);
	for (unsigned idle = 0; error == -ENOMEM && idle < SHORTAGE_SLICES; idle++) {
		publish(reader);
		if (demo_stopped(demo)) return NULL;
		uint64_t out = pages_out(reader);
		uint32_t heard = bell_listen(&demo->shared->reader_bell);
		if (pages_out(reader) == out)
			bell_sleep(&demo->shared->reader_bell, heard, DEMO_SLICE_NS);
		else
			bell_cancel(&demo->shared->reader_bell);
		if (pages_out(reader) != 0) idle = 0;
		error = hp_page_alloc(demo->pool, bytes, 0, &block);
	}
	if (error < 0) {
		demo_fail(demo, "the reader got no block of %zu bytes: %s; a larger pool (--size) may help", bytes,
		          strerror(-error));
		return NULL;
	}
	return block;
}

static bool pass_on(struct reader *reader, const struct capture_frame *frame, uint64_t number)
{
	struct demo *demo = reader->demo;
	struct demo_shared *shared = demo->shared;
	const uint8_t *bytes = demo->capture->bytes + frame->at;
	struct flow_key key;
	bool flow = frame_parse(bytes, frame->length, &key);
	uint64_t hash = flow ? flow_hash(&key) : 0;
	/* The upper half chooses the worker, the lower one the slot in its table. */
	unsigned worker = (unsigned)((flow ? hash >> 32 : number) % shared->workers);
	size_t room = frame->length ? frame->length : 1;
	uint64_t pages = (room + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE;
	if (!wait_for_room(reader, worker, pages)) return false;
	void *block = take_block(reader, room);
	if (!block) return false;
	memcpy(block, bytes, frame->length);
	struct ring_producer *ring = &reader->ring[worker];
	*ring_slot(ring) = (struct ring_entry){
		.frame = number, .offset = hp_pool_offset(demo->pool, block), .hash = hash, .length = frame->length};
	ring->head++;
	reader->put[worker] = true;
	reader->frames++;
	reader->bytes += frame->length;
	reader->pages += pages;
	if (number % BATCH == 0) publish(reader);
	return true;
}

void reader_run(struct demo *demo)
{
	struct demo_shared *shared = demo->shared;
	struct reader reader = {.demo = demo};
	for (unsigned i = 0; i < shared->workers; i++) {
		struct ring *ring = demo_at(demo, demo_get(&shared->worker[i].in), ring_bytes(shared->ring_capacity));
		if (!ring) {
			demo_fail(demo, "the reader finds no ring of worker %u", i);
			return;
		}
		ring_open_producer(ring, shared->ring_capacity, 0, &reader.ring[i]);
	}
	demo_set(&shared->start_ns, os_now_ns());
	uint64_t at = 0;
	for (uint64_t number = 1; number <= demo->frames; number++) {
		if (!pass_on(&reader, &demo->capture->frame[at], number)) return;
		if (++at == demo->capture->frames) at = 0;
		if (number % 1024 == 0 && demo_stopped(demo)) return;
	}
	publish(&reader);
	/* Release: whoever sees it sees all heads. */
	atomic_store_explicit(&shared->read_all, 1, memory_order_release);
	for (unsigned i = 0; i < shared->workers; i++) bell_ring(&shared->worker[i].bell);
}
