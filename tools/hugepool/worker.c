/* A worker: says which flow each frame belongs to, counts it, and passes it on.
 *
 * The n-th frame that comes in is the n-th that goes out, so one number is a position in both rings. There are four, each
 * at most as large as the one before:
 *
 *	what came in    the reader's
 *	counted         in the heap's root, changed by the transaction that changed the flows: its commit is the frames'
 *	shown           the head of the ring to the sender; entries below are written
 *	taken           the tail of the ring from the reader; entries from here on are still there to be read
 *
 * A burst of frames is counted in one transaction, then copied into the ring to the sender, shown, and taken. A successor
 * begins a transaction, by which what the dead one had not committed is undone, and reads the position. What was counted and
 * not shown it copies, again or not, the same bytes to the same places; from there on it is a worker like any other. So a
 * death at any instruction needs no case of its own: every frame is counted once, by who commits, and shown once, by the
 * store of the head. */
#include "demo.h"

#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define BATCH 64
#define KILL_STEPS 6
#define LOCK_MS 10000           /* nobody else writes to the heap */
#define PATIENCE_NS 2000000000u /* how long memory for a flow may be missing, with the reader at rest */

/* What the parser said of one frame; a batch of them is the worker's own memory. */
struct parsed {
	struct flow_key key;
	bool flow, bad;
};

struct worker {
	struct demo *demo;
	struct demo_worker *state;
	hp_heap *heap;
	unsigned number;
	struct ring_consumer in;
	struct ring_producer out;
	struct parsed *parsed; /* BATCH of them */
	uint64_t starving_since;
	uint64_t kill_frame;            /* 0: not to be killed */
	struct parsed elsewhere[BATCH]; /* where the pool has no memory for it */
};

/* With --kill: the first process to come here with the frame waits for its end, at one of six steps. */
static void linger(struct worker *worker, uint64_t frame, unsigned step)
{
	if (frame != worker->kill_frame || frame % KILL_STEPS != step) return;
	atomic_store_explicit(&worker->state->lingering, 1, memory_order_release);
	demo_wake_supervisor(worker->demo);
	while (!demo_stopped(worker->demo)) usleep(1000);
}

/* The same with any frame of a burst. */
static void linger_burst(struct worker *worker, uint64_t from, uint64_t count, unsigned step)
{
	for (uint64_t i = 0; i < count && worker->kill_frame; i++)
		linger(worker, ring_entry_at(&worker->in, from + i)->frame, step);
}

/* ---- counting ---- */

/* All in one transaction, which the caller ends. */
static int count_in(struct worker *worker, hp_tx *tx, uint64_t from, uint64_t count)
{
	struct flow_table *table = flow_table_of(worker->heap);
	if (!table || table->totals.frames != from) return -EUCLEAN;
	struct flow_totals totals = table->totals;
	for (uint64_t i = 0; i < count; i++) {
		const struct ring_entry *entry = ring_entry_at(&worker->in, from + i);
		const struct parsed *parsed = &worker->parsed[i];
		linger(worker, entry->frame, 1);
		if (parsed->flow) {
			int new = flow_count(tx, table, &parsed->key, entry->hash, entry->length);
			if (new < 0) return new;
			totals.flows += (unsigned)new;
		} else {
			totals.other++;
		}
		totals.frames++;
		totals.bytes += entry->length;
		linger(worker, entry->frame, 2);
	}
	return hp_heap_write(tx, &table->totals, &totals, sizeof(totals));
}

/* 0, or -errno and nothing has been counted. */
static int count_burst(struct worker *worker, uint64_t from, uint64_t count)
{
	hp_tx *tx;
	int error = hp_heap_begin(worker->heap, LOCK_MS, &tx);
	if (error < 0) return error;
	error = count_in(worker, tx, from, count);
	if (error == 0) return hp_heap_commit(tx); /* commit: all of them have been counted */
	hp_heap_abort(tx);
	return error;
}

/* How many frames this place has counted; -1: the heap cannot be used. What a dead predecessor had begun is undone. */
static int64_t counted(struct worker *worker)
{
	hp_tx *tx;
	int error = hp_heap_begin(worker->heap, LOCK_MS, &tx);
	if (error < 0) {
		demo_fail(worker->demo, "worker %u cannot write to its flow table: %s", worker->number, strerror(-error));
		return -1;
	}
	const struct flow_table *table = flow_table_of(worker->heap);
	int64_t frames = table ? (int64_t)table->totals.frames : -1;
	hp_heap_abort(tx);
	if (frames < 0) demo_fail(worker->demo, "worker %u finds no flow table", worker->number);
	return frames;
}

/* Sleeps a slice while the reader holds and the pool drains. False: there is no hope. */
static bool wait_for_memory(struct worker *worker)
{
	struct demo_worker *state = worker->state;
	uint64_t now = os_now_ns();
	if (worker->starving_since == 0) {
		worker->starving_since = now;
		atomic_store_explicit(&state->starving, 1, memory_order_release);
		demo_wake_supervisor(worker->demo);
	} else if (now - worker->starving_since > PATIENCE_NS) {
		demo_fail(worker->demo, "no memory for the flows of a worker; give the pool more with --size");
		return false;
	}
	bell_sleep(&state->bell, bell_listen(&state->bell), DEMO_SLICE_NS);
	return true;
}

static void fed(struct worker *worker)
{
	/* it may be a dead predecessor's mark */
	if (atomic_load_explicit(&worker->state->starving, memory_order_relaxed) == 0) return;
	worker->starving_since = 0;
	atomic_store_explicit(&worker->state->starving, 0, memory_order_release);
	demo_wake_supervisor(worker->demo);
}

/* ---- passing on ---- */

static void publish(struct worker *worker)
{
	struct demo_shared *shared = worker->demo->shared;
	ring_publish(&worker->out); /* commit: these frames are the sender's */
	bell_ring(&shared->sender_bell);
	ring_release(&worker->in, worker->out.head);
	bell_ring(&shared->reader_bell);
}

/* Frames that have been counted go on to the sender, up to that position. */
static void forward(struct worker *worker, uint64_t to)
{
	uint64_t from = worker->out.head;
	while (worker->out.head < to) {
		const struct ring_entry *entry = ring_entry_at(&worker->in, worker->out.head);
		*ring_slot(&worker->out) = *entry;
		worker->out.head++;
		linger(worker, entry->frame, 4);
	}
	linger_burst(worker, from, to - from, 5);
	publish(worker);
}

/* ---- working ---- */

static bool parse(struct worker *worker, const struct ring_entry *entry, struct parsed *parsed)
{
	const uint8_t *bytes = demo_at(worker->demo, entry->offset, entry->length);
	if (!bytes) {
		demo_fail(worker->demo, "worker %u was given frame %" PRIu64 " outside the pool", worker->number, entry->frame);
		return false;
	}
	parsed->flow = frame_parse(bytes, entry->length, &parsed->key);
	return true;
}

/* Handles up to a batch of `ready` frames. False: stop. */
static bool work(struct worker *worker, uint64_t ready)
{
	struct demo_worker *state = worker->state;
	uint64_t from = worker->in.tail, count = ring_room(&worker->out);
	if (count > ready) count = ready;
	if (count > BATCH) count = BATCH;
	if (worker->starving_since) count = 1; /* the least that memory may be enough for */
	for (uint64_t i = 0; i < count; i++)
		if (!parse(worker, ring_entry_at(&worker->in, from + i), &worker->parsed[i])) return false;
	linger_burst(worker, from, count, 0);
	uint64_t start = os_now_ns();
	int error = count_burst(worker, from, count);
	if (error == -ENOMEM) return wait_for_memory(worker);
	if (error < 0) {
		demo_fail(worker->demo, "worker %u could not count: %s", worker->number, strerror(-error));
		return false;
	}
	fed(worker);
	demo_set(&state->count_ns, demo_get(&state->count_ns) + os_now_ns() - start);
	linger_burst(worker, from, count, 3);
	forward(worker, from + count);
	return true;
}

/* Nothing to do, or no room to put it. False: all is done, or the run has been stopped. */
static bool wait_for_work(struct worker *worker)
{
	struct demo *demo = worker->demo;
	struct bell *bell = &worker->state->bell;
	for (unsigned looks = 0;; looks++) {
		/* In this order: all that was read is in the ring once this is seen. */
		bool read_all = atomic_load_explicit(&demo->shared->read_all, memory_order_acquire) != 0;
		bool sleep = looks >= demo->spin;
		uint32_t heard = sleep ? bell_listen(bell) : 0;
		uint64_t ready = ring_ready(&worker->in);
		bool over = demo_stopped(demo) || (read_all && ready == 0);
		if (over || (ready > 0 && ring_room(&worker->out) > 0)) {
			if (sleep) bell_cancel(bell);
			return !over;
		}
		if (sleep)
			bell_sleep(bell, heard, DEMO_SLICE_NS);
		else
			ring_pause();
	}
}

/* Opens both rings where the position says, and passes on what a predecessor had counted and not shown. */
static bool take_over(struct worker *worker)
{
	struct demo_shared *shared = worker->demo->shared;
	size_t bytes = ring_bytes(shared->ring_capacity);
	struct ring *in = demo_at(worker->demo, demo_get(&worker->state->in), bytes);
	struct ring *out = demo_at(worker->demo, demo_get(&worker->state->out), bytes);
	if (!in || !out) {
		demo_fail(worker->demo, "worker %u finds no rings", worker->number);
		return false;
	}
	int64_t position = counted(worker);
	if (position < 0) return false;
	uint64_t shown = atomic_load_explicit(&out->head, memory_order_relaxed); /* only this end writes it */
	if ((uint64_t)position < shown || (uint64_t)position - shown > BATCH) {
		demo_fail(worker->demo, "worker %u: %" PRId64 " frames were counted, but %" PRIu64 " passed on", worker->number,
		          position, shown);
		return false;
	}
	ring_open_consumer(in, shared->ring_capacity, (uint64_t)position, &worker->in);
	ring_open_producer(out, shared->ring_capacity, shown, &worker->out);
	forward(worker, (uint64_t)position);
	return true;
}

void worker_run(struct demo *demo, unsigned number, bool successor)
{
	struct demo_shared *shared = demo->shared;
	struct demo_worker *state = &shared->worker[number];
	static struct worker worker; /* too large for a stack, and one a process */
	worker = (struct worker){.demo = demo, .state = state, .heap = demo->heap[number], .number = number};
	worker.kill_frame = successor ? 0 : shared->kill_frame;
	void *own = demo_own_memory(demo, sizeof(worker.elsewhere));
	worker.parsed = own ? own : worker.elsewhere;
	if (!take_over(&worker)) return;
	while (wait_for_work(&worker))
		if (!work(&worker, ring_ready(&worker.in))) return;
	if (demo_stopped(demo)) return;
	if (own) hp_page_free(demo->pool, own);
	atomic_store_explicit(&state->finished, 1, memory_order_release); /* after the last publication */
	bell_ring(&shared->sender_bell);
}
