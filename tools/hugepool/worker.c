/* A worker: says which flow each frame belongs to, counts it, and passes it on.
 *
 * The n-th frame that comes in is the n-th that goes out, so one number, `done`, is the position in both rings, and its
 * store is the commit of a frame. Between two commits stand, in this order:
 *
 *	the intent   absolute new numbers, and last the frame's number: from here on the frame counts as counted
 *	the effects  flow slot and totals, from the intent
 *	the entry    in the ring to the sender, beyond what is published
 *	done         commit: the frame has been passed on
 *
 * A successor starts at `done`. The frame it finds there has the number of the intent: the dead one had counted it, so
 * the effects are written again, to the same values. Or it has not, and is counted now. The same with the ring's entry:
 * it is compared before the frame is forwarded. Positions are published in batches; a successor begins with that. */
#include "demo.h"

#include "os/os.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define BATCH 64
#define KILL_STEPS 6

/* What the parser said of one frame; a batch of them is the worker's own memory. */
struct parsed {
	struct flow_key key;
	bool flow, bad;
};

struct worker {
	struct demo *demo;
	struct demo_worker *state;
	unsigned number;
	struct ring_consumer in;
	struct ring_producer out;
	struct flow_table table;
	struct parsed *parsed;          /* BATCH of them */
	uint64_t kill_frame;            /* 0: not to be killed */
	struct parsed elsewhere[BATCH]; /* where the pool has no memory for it */
};

/* With --kill: the first process to come here with the frame waits for its end, at one of the steps above. */
static void linger(struct worker *worker, uint64_t frame, unsigned step)
{
	if (frame != worker->kill_frame || frame % KILL_STEPS != step) return;
	atomic_store_explicit(&worker->state->lingering, 1, memory_order_release);
	demo_wake_supervisor(worker->demo);
	while (!demo_stopped(worker->demo)) usleep(1000);
}

static bool open_table(struct worker *worker)
{
	flow_place place = demo_get(&worker->state->table);
	worker->table.slots = (uint64_t)1 << flow_place_log2(place);
	worker->table.slot = demo_at(worker->demo, flow_place_offset(place), flow_table_bytes(flow_place_log2(place)));
	if (!worker->table.slot) demo_fail(worker->demo, "worker %u finds no flow table", worker->number);
	return worker->table.slot != NULL;
}

/* Moves into the larger table that the supervisor gave. Whatever a death leaves of it is done again from the start. */
static bool take_spare(struct worker *worker, flow_place spare)
{
	struct demo_worker *state = worker->state;
	flow_place old = demo_get(&state->table);
	if (spare != old) {
		struct flow_table larger = {.slots = (uint64_t)1 << flow_place_log2(spare)};
		larger.slot = demo_at(worker->demo, flow_place_offset(spare), flow_table_bytes(flow_place_log2(spare)));
		if (!larger.slot || !flow_rehash(&worker->table, &larger)) {
			demo_fail(worker->demo, "worker %u could not enlarge its flow table", worker->number);
			return false;
		}
		atomic_store_explicit(&state->retired, old, memory_order_release);
		atomic_store_explicit(&state->table, spare, memory_order_release); /* commit: the new table holds */
	}
	/* In this order: a wish without an answer would be answered once more. */
	atomic_store_explicit(&state->want, 0, memory_order_release);
	atomic_store_explicit(&state->spare, 0, memory_order_release);
	demo_wake_supervisor(worker->demo);
	return open_table(worker);
}

/* Room for one flow more. Asks in time, at half, and waits only when seven of eight slots are taken. */
static bool make_room(struct worker *worker)
{
	struct demo_worker *state = worker->state;
	for (;;) {
		flow_place spare = atomic_load_explicit(&state->spare, memory_order_acquire);
		if (spare && !take_spare(worker, spare)) return false;
		uint64_t flows = demo_get(&state->flows);
		if (flows < worker->table.slots / 2) return true;
		if (demo_get(&state->want) == 0) {
			unsigned log2 = flow_place_log2(demo_get(&state->table)) + 2;
			atomic_store_explicit(&state->want, log2, memory_order_release);
			demo_wake_supervisor(worker->demo);
		}
		if (flows < worker->table.slots / 8 * 7) return true;
		if (demo_stopped(worker->demo)) return false;
		uint32_t heard = bell_listen(&state->bell);
		if (atomic_load_explicit(&state->spare, memory_order_acquire))
			bell_cancel(&state->bell);
		else
			bell_sleep(&state->bell, heard, DEMO_SLICE_NS);
	}
}

/* Writes down what counting the frame will change. False: no room. */
static bool intend(struct worker *worker, const struct ring_entry *entry, const struct parsed *parsed)
{
	struct demo_worker *state = worker->state;
	struct demo_intent *intent = &state->intent;
	uint64_t at = FLOWS_NO_SLOT, flows = demo_get(&state->flows), other = demo_get(&state->other);
	if (parsed->flow) {
		at = flow_find(&worker->table, &parsed->key, entry->hash);
		if (at == FLOWS_NO_SLOT) {
			demo_fail(worker->demo, "worker %u found its flow table full", worker->number);
			return false;
		}
		const struct flow_slot *slot = &worker->table.slot[at];
		uint64_t frames = demo_get(&slot->frames);
		demo_set(&intent->flow_frames, frames + 1);
		demo_set(&intent->flow_bytes, (frames ? demo_get(&slot->bytes) : 0) + entry->length);
		flows += frames == 0;
	} else {
		other++;
	}
	demo_set(&intent->slot, at);
	demo_set(&intent->flows, flows);
	demo_set(&intent->other, other);
	demo_set(&intent->bytes, demo_get(&state->bytes) + entry->length);
	linger(worker, entry->frame, 1);
	demo_order();
	demo_set(&intent->frame, entry->frame); /* commit: counted, by whoever writes the effects */
	return true;
}

/* Does what the intent says; any number of times. */
static bool effect(struct worker *worker, const struct ring_entry *entry, const struct parsed *parsed)
{
	struct demo_worker *state = worker->state;
	const struct demo_intent *intent = &state->intent;
	uint64_t at = demo_get(&intent->slot);
	linger(worker, entry->frame, 2);
	if (at != FLOWS_NO_SLOT) {
		if (at >= worker->table.slots || !parsed->flow) {
			demo_fail(worker->demo, "worker %u was left an intent that makes no sense", worker->number);
			return false;
		}
		struct flow_slot *slot = &worker->table.slot[at];
		if (demo_get(&slot->frames) == 0) {
			slot->key = parsed->key;
			slot->hash = entry->hash;
			demo_order();
		}
		demo_set(&slot->bytes, demo_get(&intent->flow_bytes));
		demo_order();
		linger(worker, entry->frame, 3);
		demo_set(&slot->frames, demo_get(&intent->flow_frames));
	} else {
		linger(worker, entry->frame, 3);
	}
	demo_set(&state->flows, demo_get(&intent->flows));
	demo_set(&state->other, demo_get(&intent->other));
	demo_set(&state->bytes, demo_get(&intent->bytes));
	return true;
}

/* Writes the ring's entry, unless a predecessor has. The number comes last: with it, all of the entry is there. */
static void forward(struct ring_entry *to, const struct ring_entry *entry)
{
	if (to->frame == entry->frame) return;
	to->offset = entry->offset;
	to->hash = entry->hash;
	to->length = entry->length;
	demo_order();
	to->frame = entry->frame;
	demo_order();
}

static bool handle(struct worker *worker, const struct ring_entry *entry, const struct parsed *parsed)
{
	struct demo_worker *state = worker->state;
	linger(worker, entry->frame, 0);
	if (demo_get(&state->intent.frame) != entry->frame && (!make_room(worker) || !intend(worker, entry, parsed)))
		return false;
	demo_order();
	if (!effect(worker, entry, parsed)) return false;
	demo_order();
	linger(worker, entry->frame, 4);
	forward(ring_slot(&worker->out), entry);
	worker->out.head++;
	linger(worker, entry->frame, 5);
	demo_order();
	demo_set(&state->done, worker->out.head); /* commit: passed on */
	return true;
}

static void publish(struct worker *worker)
{
	struct demo_shared *shared = worker->demo->shared;
	uint64_t done = demo_get(&worker->state->done);
	ring_publish(&worker->out);
	bell_ring(&shared->sender_bell);
	ring_release(&worker->in, done);
	bell_ring(&shared->reader_bell);
}

static void parse(struct worker *worker, const struct ring_entry *entry, struct parsed *parsed)
{
	const uint8_t *bytes = demo_at(worker->demo, entry->offset, entry->length);
	parsed->bad = bytes == NULL;
	parsed->flow = bytes && frame_parse(bytes, entry->length, &parsed->key);
}

/* Handles up to a batch of `ready` frames. False: stop. */
static bool work(struct worker *worker, uint64_t ready)
{
	uint64_t from = worker->in.tail, count = ring_room(&worker->out);
	if (count > ready) count = ready;
	if (count > BATCH) count = BATCH;
	for (uint64_t i = 0; i < count; i++) parse(worker, ring_entry_at(&worker->in, from + i), &worker->parsed[i]);
	for (uint64_t i = 0; i < count; i++) {
		struct ring_entry entry = *ring_entry_at(&worker->in, from + i);
		if (worker->parsed[i].bad) {
			demo_fail(worker->demo, "worker %u was given frame %" PRIu64 " outside the pool", worker->number,
			          entry.frame);
			return false;
		}
		if (!handle(worker, &entry, &worker->parsed[i])) return false;
	}
	publish(worker);
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

void worker_run(struct demo *demo, unsigned number, bool successor)
{
	struct demo_shared *shared = demo->shared;
	struct demo_worker *state = &shared->worker[number];
	static struct worker worker; /* too large for a stack, and one a process */
	worker = (struct worker){.demo = demo, .state = state, .number = number};
	worker.kill_frame = successor ? 0 : shared->kill_frame;
	size_t bytes = ring_bytes(shared->ring_capacity);
	struct ring *in = demo_at(demo, demo_get(&state->in), bytes), *out = demo_at(demo, demo_get(&state->out), bytes);
	if (!in || !out) {
		demo_fail(demo, "worker %u finds no rings", number);
		return;
	}
	void *own = demo_own_memory(demo, sizeof(worker.elsewhere));
	worker.parsed = own ? own : worker.elsewhere;
	uint64_t done = demo_get(&state->done);
	ring_open_consumer(in, shared->ring_capacity, done, &worker.in);
	ring_open_producer(out, shared->ring_capacity, done, &worker.out);
	if (!open_table(&worker)) return;
	publish(&worker); /* what a predecessor had committed and not shown */
	while (wait_for_work(&worker))
		if (!work(&worker, ring_ready(&worker.in))) return;
	if (demo_stopped(demo)) return;
	if (own) hp_page_free(demo->pool, own);
	atomic_store_explicit(&state->finished, 1, memory_order_release); /* after the last publication */
	bell_ring(&shared->sender_bell);
}
