/* The sender: the end of the pipeline. It takes what the workers pass on, makes sure that each worker's frames come in
 * the order in which they were read and none twice, and puts the buffers back, as many at once as there are. */
#include "demo.h"

#include "os/os.h"

#include <inttypes.h>
#include <string.h>

#define BATCH 64

struct sender {
	struct demo *demo;
	struct ledger ledger;
	uint64_t put_ns;
};

/* Returns how many it took from this worker, or -1. */
static int64_t take_from(struct sender *sender, unsigned worker)
{
	struct demo *demo = sender->demo;
	hp_fifo *fifo = demo->out[worker];
	struct demo_entry entries[BATCH];
	int64_t count = hp_fifo_take(fifo, entries, BATCH);
	if (count == 0) return 0;
	void *buffer[BATCH];
	hp_off run[BATCH];
	size_t buffers = 0, runs = 0;
	struct ledger_totals *totals = &sender->ledger.totals;
	struct ledger_fifo *at = &sender->ledger.fifo[worker];
	for (int64_t i = 0; i < count; i++) {
		struct demo_entry entry = entries[i];
		if (entry.frame <= at->frame) totals->disorder++;
		at->frame = entry.frame;
		if (entry.length > DEMO_BUFFER)
			run[runs++] = entry.offset;
		else
			buffer[buffers++] = hp_pool_pointer(demo->pool, entry.offset);
		totals->frames++;
		totals->bytes += entry.length;
		totals->room += demo_room(entry.length);
	}
	at->at += (uint64_t)count;
	/* commit: they have been sent. From here on no fifo names them, and until they are put back nobody but us. */
	int error = ledger_save(demo->sender_heap, &sender->ledger, NULL, worker);
	if (error < 0) {
		demo_fail(demo, "the sender could not commit: %s", strerror(-error));
		return -1;
	}
	uint64_t from = os_now_ns();
	error = hp_cache_put_bulk(demo->buffers, buffers, buffer);
	for (size_t i = 0; i < runs && error == 0; i++) error = hp_page_free_at(demo->pool, run[i]);
	sender->put_ns += os_now_ns() - from;
	if (error < 0) {
		demo_fail(demo, "the sender could not free a frame of worker %u: %s", worker, strerror(-error));
		return -1;
	}
	hp_fifo_ack(fifo, (size_t)count);
	bell_ring(&demo->shared->worker[worker].bell);
	return count;
}

static void publish(struct sender *sender)
{
	struct demo_shared *shared = sender->demo->shared;
	demo_set(&shared->sent, sender->ledger.totals.frames);
	demo_set(&shared->sent_bytes, sender->ledger.totals.bytes);
	demo_set(&shared->disorder, sender->ledger.totals.disorder);
	demo_set(&shared->put_ns, sender->put_ns);
	/* Release: what is given back is free before the reader counts on it. */
	atomic_store_explicit(&shared->given, sender->ledger.totals.room, memory_order_release);
	bell_ring(&shared->reader_bell);
}

static bool anything(struct sender *sender)
{
	for (unsigned i = 0; i < sender->demo->shared->workers; i++)
		if (hp_fifo_count(sender->demo->out[i]) > 0) return true;
	return false;
}

/* True: no worker will ever put anything more. Looked at before the fifos. */
static bool all_finished(const struct demo_shared *shared)
{
	for (unsigned i = 0; i < shared->workers; i++)
		if (atomic_load_explicit(&shared->worker[i].finished, memory_order_acquire) == 0) return false;
	return true;
}

static bool wait_for_frames(struct sender *sender)
{
	struct demo *demo = sender->demo;
	struct bell *bell = &demo->shared->sender_bell;
	for (unsigned looks = 0;; looks++) {
		if (demo_holds(demo)) demo_stand(demo, 1, bell);
		bool finished = all_finished(demo->shared), sleep = looks >= demo->spin;
		uint32_t heard = sleep ? bell_listen(bell) : 0;
		bool some = anything(sender), over = demo_stopped(demo) || (finished && !some);
		if (over || some) {
			if (sleep) bell_cancel(bell);
			return !over;
		}
		if (sleep)
			bell_sleep(bell, heard, DEMO_SLICE_NS);
		else
			bell_pause();
	}
}

void sender_run(struct demo *demo)
{
	struct demo_shared *shared = demo->shared;
	static struct sender elsewhere;
	void *own = demo_own_memory(demo, sizeof(elsewhere));
	struct sender *sender = own ? own : &elsewhere;
	*sender = (struct sender){.demo = demo};
	sender->put_ns = demo_get(&shared->put_ns);
	int error = ledger_load(demo->sender_heap, &sender->ledger);
	if (error < 0) {
		demo_fail(demo, "the sender cannot see how far it has come: %s", strerror(-error));
		return;
	}
	for (unsigned i = 0; i < shared->workers; i++) {
		if (hp_fifo_popped(demo->out[i]) == sender->ledger.fifo[i].at) continue;
		demo_fail(demo, "what was taken from worker %u is not what was committed", i);
		return;
	}
	publish(sender); /* what a predecessor had committed; the supervisor has acknowledged it and put it back */
	while (wait_for_frames(sender)) {
		for (unsigned i = 0; i < shared->workers; i++)
			if (take_from(sender, i) < 0) return;
		publish(sender);
	}
	demo_set(&shared->end_ns, os_now_ns());
	if (own) hp_page_free(demo->pool, own);
}
