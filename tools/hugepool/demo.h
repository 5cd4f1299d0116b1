/* The demonstration: what its processes share, and what its files call each other for.
 *
 *	reader --fifo--> worker 0..N-1 --fifo--> sender          supervisor (the command itself)
 *
 * A frame lies in a buffer of a cache, or in a run of pages where it is longer than a buffer; fifos carry its offset. The
 * reader gets the buffer, the worker counts, the sender puts it back. A fifo has one producer and one consumer at a time:
 * a stage, or whoever finishes what it had begun when it was killed.
 *
 * What a stage has done lies in a shared heap, one for each worker's place, one for the reader and one for the sender, and with
 * it how far it has come: a transaction does a burst of frames and moves the position behind it. A stage that a SIGKILL ends
 * has done the burst in hand, or none of it, and its successor goes on there (worker.c, ledger.h). Blocks that were known
 * to the dead alone are found, because nothing else names them, and put back (sweep.c); what stages allocate for themselves is
 * of class PROCESS, and comes back by recovery. */
#ifndef HUGEPOOL_TOOL_DEMO_H
#define HUGEPOOL_TOOL_DEMO_H

#include "bell.h"
#include "capture.h"
#include "flows.h"
#include "ledger.h"

#include <hugepool/hugepool.h>
#include <jansson.h>
#include <stdint.h>

#define DEMO_MAX_WORKERS 64
#define DEMO_MAX_DEATHS 10000
#define DEMO_BUFFER 2048u
#define DEMO_ALIGN 64u
#define DEMO_SLICE_NS 20000000u /* the longest sleep without a look at what has changed */

struct demo_options {
	const char *path; /* of the capture; NULL: generated */
	unsigned workers;
	uint64_t loop;
	uint64_t frames; /* of the generated mix */
	bool kill, json, quiet, strict;
	uint64_t kill_frame; /* 0: half-way */
	uint64_t size;       /* of the pool */
	hp_rung rung;        /* HP_RUNG_BEST: any */
};

/* What fifos carry. */
struct demo_entry {
	uint64_t frame;  /* number of the frame, from 1 */
	uint64_t offset; /* of its block in the pool */
	uint64_t hash;   /* of its flow */
	uint32_t length; /* bytes */
	uint32_t zero;
};
_Static_assert(sizeof(struct demo_entry) == 32, "two entries a cache line");

/* A worker's place in the pipeline. One line each for who writes. */
struct demo_worker {
	/* the worker */
	_Alignas(BELL_LINE) _Atomic uint64_t count_ns; /* what counting took, of all frames */
	_Atomic uint32_t starving;                     /* it waits for memory for its flows */
	_Atomic uint32_t lingering;                    /* it stands where --kill wants it killed */
	_Atomic uint32_t finished;
	struct bell bell;
};

struct demo_shared {
	/* the supervisor */
	uint64_t workers, budget;                   /* budget: what frames may take, in buffers */
	uint64_t free_at_start, committed_at_start; /* bytes, before anything was allocated */
	uint64_t kill_frame;                        /* 0: nobody is killed */
	uint64_t own_memory;                        /* not 0: the pool is large enough for memory of class PROCESS */
	_Atomic uint32_t stop, go;
	_Atomic uint32_t pause; /* the reader shall hold, so that the pool drains */
	_Atomic uint32_t hold;  /* not 0: reader and sender shall stand still, and say so by its number */
	_Atomic uint32_t standing[2];
	/* the reader */
	_Alignas(BELL_LINE) _Atomic uint64_t read, read_bytes, taken, start_ns;
	_Atomic uint64_t samples, get_ns, fill_ns, pass_ns; /* of so many frames; pass_ns without what publishing costs */
	_Atomic uint64_t publish_ns;                        /* of all */
	_Atomic uint32_t read_all;
	struct bell reader_bell;
	/* the sender */
	_Alignas(BELL_LINE) _Atomic uint64_t sent, sent_bytes, given, end_ns;
	_Atomic uint64_t put_ns;   /* of all */
	_Atomic uint64_t disorder; /* frames that came twice or out of order */
	struct bell sender_bell;
	/* whoever fails first */
	_Alignas(BELL_LINE) _Atomic uint32_t failed; /* 0 none, 1 being written, 2 written */
	char failure[256];
	struct demo_worker worker[];
};

/* What every process has privately. */
struct demo {
	hp_pool *pool;
	hp_cache *buffers;
	union { /* forked children use these handles */
		hp_heap *heaps[DEMO_MAX_WORKERS + 2];
		struct {
			hp_heap *heap[DEMO_MAX_WORKERS]; /* of each worker's flows */
			hp_heap *reader_heap, *sender_heap;
		};
	};
	hp_fifo *in[DEMO_MAX_WORKERS], *out[DEMO_MAX_WORKERS]; /* of each worker; inherited, too */
	uint64_t known[8];                                     /* offsets of runs of pages that are no frames */
	size_t known_count;
	struct demo_shared *shared;
	const struct capture *capture;
	const struct demo_options *options;
	uint64_t frames; /* to send in all */
	int bell_fd;     /* eventfd: wakes the supervisor */
	unsigned spin;   /* looks before a sleep */
};

struct demo_result {
	struct hp_report report;
	char pool_name[64];
	uint64_t frames, bytes, flows, other, largest_flow_bytes;
	uint64_t allocs; /* of the reader */
	uint64_t in_dead_hands, taken_over, swept, deaths;
	uint64_t recovered; /* participants, by the pool's own count */
	int64_t pages_leaked;
	uint64_t recovery_ns, recovery_worst_ns; /* hp_pool_recover: in all, and the longest */
	uint64_t outage_ns;                      /* from the notice of a death to the successor's start, the longest */
	uint64_t findings;                       /* of hp_pool_check, at the end */
	uint64_t run_ns;
	double got_ns, filled_ns, passed_ns, put_ns, counted_ns; /* of one packet */
	bool interrupted;
	char error[512]; /* empty: all went well */
};

/* What a frame takes, in buffers. */
static inline uint64_t demo_room(uint32_t length)
{
	uint64_t pages = ((uint64_t)length + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE;
	return length <= DEMO_BUFFER ? 1 : pages * (HP_PAGE_SIZE / DEMO_BUFFER);
}

static inline uint64_t demo_get(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void demo_set(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

/* A place in the pool, with room for `bytes`; NULL when there is none. */
void *demo_at(const struct demo *demo, uint64_t offset, uint64_t bytes);

/* Notes why the run ends, and makes everybody stop. */
__attribute__((format(printf, 2, 3))) void demo_fail(struct demo *demo, const char *format, ...);
bool demo_stopped(const struct demo *demo);

/* What a look at the clock costs, in ns. */
uint64_t demo_clock_ns(void);

/* Memory of class PROCESS; NULL where the pool is too small for every process to take a chunk for itself. */
void *demo_own_memory(const struct demo *demo, size_t bytes);
void demo_wake_supervisor(const struct demo *demo);

/* While the supervisor looks for what the dead held, reader (0) and sender (1) stand still where they hold nothing. */
void demo_stand(struct demo *demo, unsigned who, struct bell *bell);
static inline bool demo_holds(const struct demo *demo)
{
	return atomic_load_explicit(&demo->shared->hold, memory_order_relaxed) != 0;
}

/* The stages, in their processes: return when there is no more to do, or on demo_stopped. */
void reader_run(struct demo *demo);
void worker_run(struct demo *demo, unsigned number, bool successor);
void sender_run(struct demo *demo);

/* What the supervisor does with the pool: makes it and the structures in it, holds the reader while a worker is short of
 * memory, counts and frees everything at the end. 0 or -1 with result->error. */
int plant_make(struct demo *demo, struct demo_result *result);
bool plant_mail(struct demo *demo);                          /* true: a worker waits for memory, call again soon */
uint64_t plant_in_hands(struct demo *demo, unsigned worker); /* frames it was given and has not shown to the sender */
void plant_ring_bells(struct demo *demo);
void plant_clear(struct demo *demo, struct demo_result *result);
void plant_leave(struct demo *demo); /* closes everything, whatever is left */

/* Finishes what reader and sender, who stand still or are dead, had begun, and puts back what the dead held. Returns how many
 * buffers, or -errno. Before the first frame: notes down what is none. */
int64_t sweep_dead(struct demo *demo);
int sweep_know(struct demo *demo);

void summary_text(const struct demo *demo, const struct demo_result *result);
json_t *summary_json(const struct demo *demo, const struct demo_result *result);

#endif
