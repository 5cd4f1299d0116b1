/* The reader: copies frames into buffers and hands them to the workers.
 *
 * It is the only source of pressure, so it alone holds back: frames may take a budget of buffers (half of the pool), a
 * fifo takes what it takes, and a pool that is short in spite of that is waited for. Before every wait it publishes
 * what it has put, so the rest of the pipeline always can go on, and the wait ends.
 *
 * What it publishes it has staged and committed before, with the number of the last frame: that is there to stay, so that
 * whoever finishes what a dead one had begun publishes it (sweep.c), and a successor reads on with the next frame. */
#include "demo.h"

#include "os/os.h"

#include <errno.h>
#include <hugepool/inline.h>
#include <inttypes.h>
#include <string.h>

#define BATCH 32            /* frames between two looks at the bells */
#define SAMPLE 16           /* one frame in so many is timed, so that the clock does not count */
#define SHORTAGE_SLICES 250 /* of DEMO_SLICE_NS with an empty pipeline, before a block is given up */

struct reader {
	struct demo *demo;
	struct reader_batch {
		uint64_t count, room; /* room: at least so much, behind these */
		struct demo_entry entry[BATCH];
	} batch[DEMO_MAX_WORKERS]; /* since the last publication */
	bool put[LEDGER_FIFOS];    /* there is something in it */
	struct ledger ledger;
	uint64_t committed; /* frames */
	uint64_t clock, samples, get_ns, fill_ns, pass_ns, publish_ns;
};

static void say(const struct reader *reader)
{
	struct demo_shared *shared = reader->demo->shared;
	demo_set(&shared->read, reader->ledger.totals.frames);
	demo_set(&shared->read_bytes, reader->ledger.totals.bytes);
	demo_set(&shared->taken, reader->ledger.totals.room);
	demo_set(&shared->samples, reader->samples);
	demo_set(&shared->get_ns, reader->get_ns);
	demo_set(&shared->fill_ns, reader->fill_ns);
	demo_set(&shared->pass_ns, reader->pass_ns);
	demo_set(&shared->publish_ns, reader->publish_ns);
}

static void publish(struct reader *reader)
{
	struct demo *demo = reader->demo;
	struct demo_shared *shared = demo->shared;
	uint64_t from = os_now_ns();
	int error = 0;
	if (reader->committed == reader->ledger.totals.frames) return;
	for (unsigned i = 0; i < shared->workers && error == 0; i++) {
		if (!reader->put[i]) continue;
		reader->ledger.fifo[i].at += reader->batch[i].count;
		error = hp_fifo_stage(demo->in[i], 0, reader->batch[i].entry, reader->batch[i].count);
	}
	/* commit: these frames have been read */
	if (error == 0) error = ledger_save(demo->reader_heap, &reader->ledger, reader->put, 0);
	if (error < 0) {
		demo_fail(demo, "the reader could not commit: %s", strerror(-error));
		return;
	}
	reader->committed = reader->ledger.totals.frames;
	say(reader);
	for (unsigned i = 0; i < shared->workers; i++) {
		if (!reader->put[i]) continue;
		hp_fifo_publish(demo->in[i], reader->batch[i].count);
		reader->put[i] = false;
		reader->batch[i].count = 0;
		bell_ring(&shared->worker[i].bell);
	}
	reader->publish_ns += os_now_ns() - from;
}

/* Where it holds no buffer that is in no fifo. */
static void stand(struct reader *reader)
{
	publish(reader);
	demo_stand(reader->demo, 0, &reader->demo->shared->reader_bell);
}

static uint64_t out_now(const struct reader *reader)
{
	return reader->ledger.totals.room - atomic_load_explicit(&reader->demo->shared->given, memory_order_acquire);
}

static bool has_room(struct reader *reader, unsigned worker)
{
	struct reader_batch *batch = &reader->batch[worker];
	if (batch->room) return true;
	uint64_t room = hp_fifo_room(reader->demo->in[worker]);
	batch->room = room > batch->count ? room - batch->count : 0;
	return batch->room > 0;
}

static bool may_put(struct reader *reader, unsigned worker, uint64_t room)
{
	const struct demo_shared *shared = reader->demo->shared;
	uint64_t out = out_now(reader);
	return has_room(reader, worker) && (out == 0 || out + room <= shared->budget) &&
	       atomic_load_explicit(&shared->pause, memory_order_relaxed) == 0;
}

/* False: the run has been stopped. */
static bool wait_for_room(struct reader *reader, unsigned worker, uint64_t room)
{
	struct demo *demo = reader->demo;
	if (may_put(reader, worker, room)) return true;
	publish(reader);
	for (unsigned looks = 0; !may_put(reader, worker, room); looks++) {
		if (demo_stopped(demo)) return false;
		if (demo_holds(demo)) stand(reader);
		if (looks < demo->spin) {
			bell_pause();
			continue;
		}
		uint32_t heard = bell_listen(&demo->shared->reader_bell);
		if (may_put(reader, worker, room) || demo_stopped(demo))
			bell_cancel(&demo->shared->reader_bell);
		else
			bell_sleep(&demo->shared->reader_bell, heard, DEMO_SLICE_NS);
	}
	return true;
}

static int try_room(struct demo *demo, uint32_t length, void **room)
{
	if (length > DEMO_BUFFER) return hp_page_alloc(demo->pool, length, 0, room);
	*room = hp_cache_get_inline(demo->buffers, HP_CACHE_NOWAIT);
	return *room ? 0 : -errno;
}

/* A place for the frame, which was not to be had; NULL when the run has been stopped or there is no hope. */
static void *wait_for_place(struct reader *reader, uint32_t length)
{
	struct demo *demo = reader->demo;
	void *place;
	int error = -ENOMEM;
	for (unsigned idle = 0; error == -ENOMEM && idle < SHORTAGE_SLICES; idle++) {
		publish(reader);
		if (demo_holds(demo)) stand(reader);
		if (demo_stopped(demo)) return NULL;
		uint64_t out = out_now(reader);
		uint32_t heard = bell_listen(&demo->shared->reader_bell);
		if (out_now(reader) == out)
			bell_sleep(&demo->shared->reader_bell, heard, DEMO_SLICE_NS);
		else
			bell_cancel(&demo->shared->reader_bell);
		if (out_now(reader) != 0) idle = 0;
		error = try_room(demo, length, &place);
	}
	if (error < 0) {
		demo_fail(demo, "the reader got no place for %u bytes: %s; a larger pool (--size) may help", length,
		          strerror(-error));
		return NULL;
	}
	return place;
}

static uint64_t since(const struct reader *reader, uint64_t from, uint64_t to)
{
	return to - from > reader->clock ? to - from - reader->clock : 0;
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
	uint64_t room = demo_room(frame->length), at[4] = {0};
	if (demo_holds(demo)) stand(reader);
	if (!wait_for_room(reader, worker, room)) return false;
	bool timed = number % SAMPLE == 0;
	void *place;
	if (timed) at[0] = os_now_ns();
	int error = try_room(demo, frame->length, &place);
	if (timed) at[1] = os_now_ns();
	if (error < 0) {
		timed = false;
		if (!(place = wait_for_place(reader, frame->length))) return false;
	}
	memcpy(place, bytes, frame->length);
	if (timed) at[2] = os_now_ns();
	struct reader_batch *batch = &reader->batch[worker];
	batch->entry[batch->count++] = (struct demo_entry){
		.frame = number, .offset = hp_pool_offset(demo->pool, place), .hash = hash, .length = frame->length};
	batch->room--;
	reader->put[worker] = true;
	if (timed) {
		at[3] = os_now_ns();
		reader->get_ns += since(reader, at[0], at[1]);
		reader->fill_ns += since(reader, at[1], at[2]);
		reader->pass_ns += since(reader, at[2], at[3]);
		reader->samples++;
	}
	reader->ledger.fifo[worker].frame = number;
	reader->ledger.totals.frames++;
	reader->ledger.totals.bytes += frame->length;
	reader->ledger.totals.room += room;
	if (number % BATCH == 0) publish(reader);
	return true;
}

/* Goes on where the ledger says; what a predecessor had committed the supervisor has shown. */
static bool take_over(struct reader *reader)
{
	struct demo *demo = reader->demo;
	struct demo_shared *shared = demo->shared;
	int error = ledger_load(demo->reader_heap, &reader->ledger);
	if (error < 0) {
		demo_fail(demo, "the reader cannot see how far it has come: %s", strerror(-error));
		return false;
	}
	reader->committed = reader->ledger.totals.frames;
	reader->samples = demo_get(&shared->samples);
	reader->get_ns = demo_get(&shared->get_ns);
	reader->fill_ns = demo_get(&shared->fill_ns);
	reader->pass_ns = demo_get(&shared->pass_ns);
	reader->publish_ns = demo_get(&shared->publish_ns);
	for (unsigned i = 0; i < shared->workers; i++) {
		if (hp_fifo_pushed(demo->in[i]) == reader->ledger.fifo[i].at) continue;
		demo_fail(demo, "what worker %u is shown is not what was committed", i);
		return false;
	}
	say(reader);
	return true;
}

void reader_run(struct demo *demo)
{
	struct demo_shared *shared = demo->shared;
	static struct reader reader; /* one a process */
	reader.demo = demo;
	reader.clock = demo_clock_ns();
	if (!take_over(&reader)) return;
	if (demo_get(&shared->start_ns) == 0) demo_set(&shared->start_ns, os_now_ns());
	uint64_t at = demo->capture->frames ? reader.committed % demo->capture->frames : 0;
	for (uint64_t number = reader.committed + 1; number <= demo->frames; number++) {
		if (!pass_on(&reader, &demo->capture->frame[at], number)) return;
		if (++at == demo->capture->frames) at = 0;
		if (number % 1024 == 0 && demo_stopped(demo)) return;
	}
	publish(&reader);
	if (demo_stopped(demo)) return;
	demo_set(&shared->publish_ns, reader.publish_ns);
	/* Release: whoever sees it sees all heads. */
	atomic_store_explicit(&shared->read_all, 1, memory_order_release);
	for (unsigned i = 0; i < shared->workers; i++) bell_ring(&shared->worker[i].bell);
}
