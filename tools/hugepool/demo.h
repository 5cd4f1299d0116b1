/* The demonstration: what its processes share, and what its files call each other for.
 *
 *	reader --ring--> worker 0..N-1 --ring--> sender          supervisor (the command itself)
 *
 * A frame lies in a buffer of a cache, or in a run of pages where it is longer than a buffer; rings carry its offset. The
 * reader gets the buffer, the worker counts, the sender puts it back.
 * Everything of a worker that must outlive it (position, flow table, what it was about to do) is in struct demo_worker,
 * so that a successor goes on where a SIGKILL ended it, without losing, counting or sending a frame twice.
 *
 * Order of stores. A killed process leaves exactly the stores that it had retired, in the order of its program. So what
 * a successor reads only needs the compiler to keep that order: relaxed atomics with demo_order() between. What a live
 * process reads beside the writer is published with release stores (rings, mailboxes).
 *
 * Only the supervisor, which is never killed here, allocates and frees what a worker needs for long; a worker asks it
 * through the mailbox. So there is no moment at which a block is known to a dead worker alone. What a worker allocates
 * itself is of class PROCESS, and comes back by recovery. */
#ifndef HUGEPOOL_TOOL_DEMO_H
#define HUGEPOOL_TOOL_DEMO_H

#include "capture.h"
#include "flows.h"
#include "ring.h"

#include <hugepool/hugepool.h>
#include <jansson.h>
#include <stdint.h>

#define DEMO_MAX_WORKERS 64
#define DEMO_MAX_DEATHS 10000
#define DEMO_BUFFER 2048u
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

/* What a worker is about to do for one frame, as absolute values, so that doing it twice does no harm. */
struct demo_intent {
	_Atomic uint64_t frame;                   /* written last: the frame whose effects these are */
	_Atomic uint64_t slot;                    /* in the flow table, or FLOWS_NO_SLOT for a frame of no flow */
	_Atomic uint64_t flow_frames, flow_bytes; /* the flow's new numbers */
	_Atomic uint64_t flows, bytes, other;     /* the worker's */
};

/* A worker's place in the pipeline. One line each for who writes. */
struct demo_worker {
	/* the worker */
	_Alignas(RING_LINE) _Atomic uint64_t done; /* frames passed on: its position in both of its rings */
	_Atomic uint64_t flows, bytes, other;      /* of these frames */
	struct demo_intent intent;
	_Alignas(RING_LINE) _Atomic flow_place table;
	_Atomic flow_place retired; /* the table before; the supervisor frees it once it differs from `table` */
	_Atomic uint64_t want;      /* log2 of the slots that a larger table is to have; 0: none wanted */
	_Atomic uint32_t lingering; /* it stands where --kill wants it killed */
	_Atomic uint32_t finished;
	/* the supervisor */
	_Alignas(RING_LINE) _Atomic flow_place spare; /* answer to `want`; taken away (0) by the worker */
	_Atomic uint64_t in, out;                     /* offsets of its rings */
	_Atomic uint64_t refused_since;               /* when the larger table was first not to be had; 0: it was */
	struct bell bell;
};

struct demo_shared {
	/* the supervisor */
	uint64_t workers, ring_capacity, budget;    /* budget: what frames may take, in buffers */
	uint64_t free_at_start, committed_at_start; /* bytes, before anything was allocated */
	uint64_t kill_frame;                        /* 0: nobody is killed */
	uint64_t own_memory;                        /* not 0: the pool is large enough for memory of class PROCESS */
	uint64_t reserve;                           /* offset of a run kept for flow tables, or HP_OFF_NONE */
	_Atomic uint32_t stop, go;
	_Atomic uint32_t pause; /* the reader shall hold, so that the pool drains */
	/* the reader */
	_Alignas(RING_LINE) _Atomic uint64_t read, read_bytes, taken, start_ns;
	_Atomic uint64_t samples, get_ns, fill_ns, pass_ns; /* of so many frames; pass_ns without what publishing costs */
	_Atomic uint64_t publish_ns;                        /* of all */
	_Atomic uint32_t read_all;
	struct bell reader_bell;
	/* the sender */
	_Alignas(RING_LINE) _Atomic uint64_t sent, sent_bytes, given, end_ns;
	_Atomic uint64_t put_ns;   /* of all */
	_Atomic uint64_t disorder; /* frames that came twice or out of order */
	struct bell sender_bell;
	/* whoever fails first */
	_Alignas(RING_LINE) _Atomic uint32_t failed; /* 0 none, 1 being written, 2 written */
	char failure[256];
	struct demo_worker worker[];
};

/* What every process has privately. */
struct demo {
	hp_pool *pool;
	hp_cache *buffers;
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
	uint64_t in_dead_hands, deaths;
	uint64_t recovered; /* participants, by the pool's own count */
	int64_t pages_leaked;
	uint64_t recovery_ns, recovery_worst_ns; /* hp_pool_recover: in all, and the longest */
	uint64_t outage_ns;                      /* from the notice of a death to the successor's start, the longest */
	uint64_t findings;                       /* of hp_pool_check, at the end */
	uint64_t run_ns;
	double got_ns, filled_ns, passed_ns, put_ns; /* of one packet */
	bool interrupted;
	char error[512]; /* empty: all went well */
};

/* What a frame takes, in buffers. */
static inline uint64_t demo_room(uint32_t length)
{
	uint64_t pages = ((uint64_t)length + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE;
	return length <= DEMO_BUFFER ? 1 : pages * (HP_PAGE_SIZE / DEMO_BUFFER);
}

static inline void demo_order(void)
{
	atomic_signal_fence(memory_order_seq_cst);
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

/* The stages, in their processes: return when there is no more to do, or on demo_stopped. */
void reader_run(struct demo *demo);
void worker_run(struct demo *demo, unsigned number, bool successor);
void sender_run(struct demo *demo);

/* What the supervisor does with the pool: makes it and the structures in it, answers the workers' mailboxes, counts
 * and frees everything at the end. 0 or -1 with result->error. */
int plant_make(struct demo *demo, struct demo_result *result);
bool plant_mail(struct demo *demo); /* true: a worker's wish could not be met yet, call again soon */
uint64_t plant_in_hands(struct demo *demo, unsigned worker); /* frames it was given and has not shown to the sender */
void plant_ring_all(struct demo *demo);
void plant_clear(struct demo *demo, struct demo_result *result);

void summary_text(const struct demo *demo, const struct demo_result *result);
json_t *summary_json(const struct demo *demo, const struct demo_result *result);

#endif
