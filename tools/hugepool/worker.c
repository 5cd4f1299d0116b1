/* A worker: says which flow each frame belongs to, counts it, and passes it on.
 *
 * The n-th frame that comes in is the n-th that goes out, so one number is a position in both fifos. There are four, each
 * at most as large as the one before:
 *
 *	what came in    the reader's
 *	counted         in the heap's root, changed by the transaction that changed the flows: its commit is the frames'
 *	shown           what was pushed into the fifo to the sender
 *	acknowledged    to the fifo from the reader: it hands out again what comes behind
 *
 * A burst of frames is taken, staged in the fifo to the sender, counted in one transaction, published, and acknowledged. A
 * successor begins a transaction, by which what the dead one had not committed is undone, and reads the position. What was
 * counted has been staged: so much as is not shown it publishes, so much as is not acknowledged it takes and acknowledges, and
 * from there on it is a worker like any other. So a death at any instruction needs no case of its own: every frame is counted
 * once, by who commits, and shown once, by the publication. */
#include "demo.h"

#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define BATCH 64
#define KILL_STEPS 5
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
	hp_fifo *in, *out;
	unsigned number;
	struct demo_entry entry[BATCH]; /* the burst in hand */
	struct parsed *parsed;          /* BATCH of them */
	uint64_t starving_since;
	uint64_t kill_frame;            /* 0: not to be killed */
	struct parsed elsewhere[BATCH]; /* where the pool has no memory for it */
};

/* With --kill: the first process to come here with the frame waits for its end, at one of five steps. */
static void linger(struct worker *worker, uint64_t frame, unsigned step)
{
	if (frame != worker->kill_frame || frame % KILL_STEPS != step) return;
	atomic_store_explicit(&worker->state->lingering, 1, memory_order_release);
	demo_wake_supervisor(worker->demo);
	while (!demo_stopped(worker->demo)) usleep(1000);
}

/* The same with any frame of a burst. */
static void linger_burst(struct worker *worker, uint64_t count, unsigned step)
{
	for (uint64_t i = 0; i < count && worker->kill_frame; i++) linger(worker, worker->entry[i].frame, step);
}

/* ---- counting ---- */

/* All in one transaction, which the caller ends. */
static int count_in(struct worker *worker, hp_tx *tx, uint64_t count)
{
	struct flow_table *table = flow_table_of(worker->heap);
	if (!table || table->totals.frames != hp_fifo_pushed(worker->out)) return -EUCLEAN;
	struct flow_totals totals = table->totals;
	for (uint64_t i = 0; i < count; i++) {
		const struct demo_entry *entry = &worker->entry[i];
		const struct parsed *parsed = &worker->parsed[i];
		linger(worker, entry->frame, 2);
		if (parsed->flow) {
			int new = flow_count(tx, table, &parsed->key, entry->hash, entry->length);
			if (new < 0) return new;
			totals.flows += (unsigned)new;
		} else {
			totals.other++;
		}
		totals.frames++;
		totals.bytes += entry->length;
		linger(worker, entry->frame, 3);
	}
	return hp_heap_write(tx, &table->totals, &totals, sizeof(totals));
}

/* 0, or -errno and nothing has been counted. */
static int count_burst(struct worker *worker, uint64_t count)
{
	hp_tx *tx;
	int error = hp_heap_begin(worker->heap, LOCK_MS, &tx);
	if (error < 0) return error;
	error = count_in(worker, tx, count);
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

/* So many frames that have been counted: the sender may have them, and the reader the room that they took. */
static bool pass_on(struct worker *worker, uint64_t show, uint64_t acknowledge)
{
	struct demo_shared *shared = worker->demo->shared;
	int error = hp_fifo_publish(worker->out, show); /* commit: these frames are the sender's */
	bell_ring(&shared->sender_bell);
	if (error == 0) error = hp_fifo_ack(worker->in, acknowledge);
	bell_ring(&shared->reader_bell);
	if (error < 0) demo_fail(worker->demo, "worker %u could not pass on: %s", worker->number, strerror(-error));
	return error == 0;
}

/* ---- working ---- */

static bool parse(struct worker *worker, const struct demo_entry *entry, struct parsed *parsed)
{
	const uint8_t *bytes = demo_at(worker->demo, entry->offset, entry->length);
	if (!bytes) {
		demo_fail(worker->demo, "worker %u was given frame %" PRIu64 " outside the pool", worker->number, entry->frame);
		return false;
	}
	parsed->flow = frame_parse(bytes, entry->length, &parsed->key);
	return true;
}

/* Handles `count` frames, that are there and for which there is room. False: stop. */
static bool work(struct worker *worker, uint64_t count)
{
	struct demo_worker *state = worker->state;
	int error = hp_fifo_take(worker->in, worker->entry, count) == (int64_t)count ? 0 : -EUCLEAN;
	for (uint64_t i = 0; i < count && error == 0; i++)
		if (!parse(worker, &worker->entry[i], &worker->parsed[i])) return false;
	linger_burst(worker, count, 0);
	if (error == 0) error = hp_fifo_stage(worker->out, 0, worker->entry, count);
	linger_burst(worker, count, 1);
	uint64_t start = os_now_ns();
	if (error == 0) error = count_burst(worker, count);
	if (error == -ENOMEM) {
		hp_fifo_nack(worker->in);
		return wait_for_memory(worker);
	}
	if (error < 0) {
		demo_fail(worker->demo, "worker %u could not count: %s", worker->number, strerror(-error));
		return false;
	}
	fed(worker);
	demo_set(&state->count_ns, demo_get(&state->count_ns) + os_now_ns() - start);
	linger_burst(worker, count, 4);
	return pass_on(worker, count, count);
}

/* How many frames it can deal with now. */
static uint64_t ready_now(struct worker *worker)
{
	uint64_t ready = hp_fifo_count(worker->in), room = ready ? hp_fifo_room(worker->out) : 0;
	uint64_t most = worker->starving_since ? 1 : BATCH; /* 1: the least that memory may be enough for */
	if (ready > room) ready = room;
	return ready < most ? ready : most;
}

/* Waits while there is nothing to do, or no room to put it; returns how many frames there are to deal with. 0: all is done, or the
 * run has been stopped. */
static uint64_t wait_for_work(struct worker *worker)
{
	struct demo *demo = worker->demo;
	struct bell *bell = &worker->state->bell;
	for (unsigned looks = 0;; looks++) {
		/* In this order: all that was read is in the fifo once this is seen. */
		bool read_all = atomic_load_explicit(&demo->shared->read_all, memory_order_acquire) != 0;
		bool sleep = looks >= demo->spin;
		uint32_t heard = sleep ? bell_listen(bell) : 0;
		uint64_t ready = ready_now(worker);
		bool over = demo_stopped(demo) || (read_all && hp_fifo_count(worker->in) == 0);
		if (over || ready > 0) {
			if (sleep) bell_cancel(bell);
			return over ? 0 : ready;
		}
		if (sleep)
			bell_sleep(bell, heard, DEMO_SLICE_NS);
		else
			bell_pause();
	}
}

/* Passes on what a predecessor had counted and not shown, or shown and not acknowledged. */
static bool take_over(struct worker *worker)
{
	int64_t position = counted(worker);
	if (position < 0) return false;
	uint64_t at = (uint64_t)position, shown = hp_fifo_pushed(worker->out), known = hp_fifo_popped(worker->in);
	if (at < shown || shown < known || at - known > BATCH ||
	    hp_fifo_take(worker->in, worker->entry, at - known) != (int64_t)(at - known)) {
		demo_fail(worker->demo,
		          "worker %u: %" PRIu64 " frames were counted, but %" PRIu64 " passed on and %" PRIu64 " acknowledged",
		          worker->number, at, shown, known);
		return false;
	}
	return pass_on(worker, at - shown, at - known);
}

void worker_run(struct demo *demo, unsigned number, bool successor)
{
	struct demo_shared *shared = demo->shared;
	struct demo_worker *state = &shared->worker[number];
	static struct worker worker; /* too large for a stack, and one a process */
	worker = (struct worker){.demo = demo,
	                         .state = state,
	                         .heap = demo->heap[number],
	                         .in = demo->in[number],
	                         .out = demo->out[number],
	                         .number = number};
	worker.kill_frame = successor ? 0 : shared->kill_frame;
	void *own = demo_own_memory(demo, sizeof(worker.elsewhere));
	worker.parsed = own ? own : worker.elsewhere;
	if (!take_over(&worker)) return;
	for (uint64_t count; (count = wait_for_work(&worker)) > 0;)
		if (!work(&worker, count)) return;
	if (demo_stopped(demo)) return;
	if (own) hp_page_free(demo->pool, own);
	atomic_store_explicit(&state->finished, 1, memory_order_release); /* after the last publication */
	bell_ring(&shared->sender_bell);
}
