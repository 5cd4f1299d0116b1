/* A ring: what it has under way, and its two engines.
 *
 * Every request has an entry in a table from when it is prepared until its last completion, and the index of that entry is its
 * pin's index and the kernel's word for it. So there are never more requests than the kernel has room for completions, and
 * what the kernel gives back is an index that can be checked. Which engine a ring has is decided when it is made: the kernel's
 * (prepare.c, complete.c) or plain system calls (plain.c). All of it is private memory; what is shared is in the pins. */
#ifndef HUGEPOOL_RING_INTERNAL_H
#define HUGEPOOL_RING_INTERNAL_H

#include "io/pin.h"
#include "os/io.h"
#include "os/os.h"
#include <hugepool/ring.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>

#define RING_NONE UINT32_MAX
#define RING_SLICE_SHIFT 30 /* the kernel registers at most 1 GiB at a time */
#define RING_SLICE (UINT64_C(1) << RING_SLICE_SHIFT)
#define RING_STALL_NS UINT64_C(5000000) /* how often an empty cache is looked at by who waits */

enum ring_op {
	RING_READ,
	RING_WRITE,
	RING_RECV,
	RING_RECV_OBJECT,
	RING_SEND,
	RING_ACCEPT,
	RING_CONNECT,
	RING_POLL,
	RING_FSYNC,
	RING_TIMEOUT,
	RING_CANCEL
};

enum request_state {
	REQUEST_FREE,
	REQUEST_WITH_KERNEL, /* or prepared for it */
	REQUEST_AGAIN,       /* to be given to the kernel (once more), when there is an object for it */
	REQUEST_PREPARED,    /* plain: until these, and here in `prepared` */
	REQUEST_LINKED,      /* behind another one that has not ended */
	REQUEST_WAITING,     /* tried, would have to wait */
	REQUEST_DONE         /* has its result, which nobody has asked for yet */
};

/* Flags of a request beside the public ones. */
#define REQUEST_PINNED 0x100u
#define REQUEST_CANCELLED 0x200u /* asked to end: goes on no more by itself */
#define REQUEST_BEGUN 0x400u     /* plain: a connect has begun */

struct ring_request {
	_Alignas(64) uint64_t user;
	union {
		struct {
			void *addr;  /* memory or address */
			uint64_t at; /* position; cancel: the target's word; plain timeout: when it ends */
		};
		struct __kernel_timespec time;
	};
	uint32_t len;    /* bytes; poll: events */
	int32_t fd;      /* or the place of a registered one */
	int32_t result;  /* of what is done, or of a zero-copy send that has yet to be let go */
	uint32_t next;   /* in the list that it is in */
	uint32_t link;   /* plain: what begins after it */
	uint32_t flags;  /* HP_RING_*, REQUEST_* */
	uint16_t slice1; /* registered buffer + 1 */
	uint8_t op, state;
};

/* First in, first out; through `next`. */
struct ring_list {
	uint32_t first, last, count;
};

/* Objects for the kernel to fill (buffers.c). */
struct ring_buffers {
	hp_cache *cache;
	void **object;   /* by buffer id; NULL: wanted */
	uint32_t *empty; /* ids that are wanted, a stack */
	uint32_t *laid;  /* plain: ids that can be received into, a stack */
	uint32_t count, missing, laid_count;
	uint32_t size;                  /* bytes of an object */
	struct io_uring_buf_ring *ring; /* shared with the kernel; NULL: plain */
	size_t ring_bytes;
};

/* Another pool's memory in this process. */
struct ring_range {
	uintptr_t start, end;
};

struct hp_ring {
	/* read for every request */
	char *base; /* of the pool; NULL: none */
	uint64_t capacity;
	struct ring_request *requests;
	uint32_t *free; /* a stack of indexes */
	uint32_t free_count, request_count;
	const _Atomic uint32_t *live; /* participant_fork_word() */
	uint32_t pools_seen;          /* participant_pool_changes that `others` is right for */
	int error;                    /* not 0: the ring's descriptor is gone */
	bool plain;
	unsigned flags;
	struct pin_table *pins;
	struct ring_range *others;
	uint32_t other_count, file_count;
	int *files;           /* by place: -1 none; else plain: a duplicate, kernel: 0 */
	uint64_t *registered; /* by slice: bytes from its start */
	uint32_t slices;

	struct io_uring kernel;
	int enter_fd; /* by which the kernel is entered: the ring's descriptor, or what it is registered as with its thread */
	unsigned enter_flags;
	const struct participant_thread *thread; /* whose it is then */
	uint32_t with_kernel;                    /* submitted, last completion not seen */
	struct ring_list again;                  /* REQUEST_AGAIN */
	struct ring_list done, prepared, waiting;
	struct pollfd *polls; /* plain: room for all requests */
	uint32_t *polled;
	int life; /* plain: the pins' descriptor */
	struct ring_buffers buffers;

	hp_pool *pool;
	unsigned depth;
	int tid; /* that made it */
	uint32_t buffer_most;
	bool zero_copy, calling, draining;
	struct hp_ring *next; /* of the process */
	struct hp_ring_report report;
	hp_log_fn *log;
	void *log_arg;
};

/* In a child it is not. */
static inline bool ring_is_inherited(const hp_ring *ring)
{
	return unlikely(!atomic_load_explicit(ring->live, memory_order_relaxed));
}

static inline int ring_usable(const hp_ring *ring)
{
	return ring_is_inherited(ring) ? -ESRCH : ring->error;
}

/* ---- ring.c ---- */

/* Inside participant_lock. */
hp_ring *ring_first(void);

/* ---- preflight.c ---- */

/* Makes the kernel's side. 0, or -errno with cause and cure in the ring's report. */
int ring_setup(hp_ring *ring, const struct hp_ring_options *options);
/* The same for memory that could not be registered. */
void ring_explain_memory(hp_ring *ring, int error);

/* ---- register.c ---- */

int ring_register_memory(hp_ring *ring); /* into a new ring: clone, or all of it */
int ring_register_life(hp_ring *ring, int life);
void ring_register_self(hp_ring *ring); /* where one thread alone uses it */
void ring_unregister_self(hp_ring *ring);
void ring_unregister(hp_ring *ring); /* at the end, so that it is not left to the kernel's own time */
void ring_forget_files(hp_ring *ring);

/* ---- prepare.c ---- */

/* Gives request `index` to the kernel, once more. False: no room. */
bool ring_give(hp_ring *ring, uint32_t index);
/* Pools came or went. */
void ring_note_pools(hp_ring *ring);

/* ---- complete.c ---- */

/* Cancels all and waits for the kernel. */
void ring_drain(hp_ring *ring);

/* ---- buffers.c ---- */

/* Gets what is missing from the cache; returns how many objects there are. */
uint32_t ring_refill(hp_ring *ring);
/* Plain: the next to be filled, which stays laid out; RING_NONE: there is none. */
uint32_t ring_buffer_pick(hp_ring *ring);
/* The kernel has used that buffer: its object is the application's (taken), or is laid out again. */
void *ring_buffer_take(hp_ring *ring, uint32_t id);
void ring_buffer_return(hp_ring *ring, uint32_t id);
void ring_buffers_end(hp_ring *ring);

/* ---- plain.c ---- */

int plain_submit(hp_ring *ring);
/* Tries what waits, once something is ready, for at most ns. -EINTR. */
int plain_drive(hp_ring *ring, uint64_t ns);
/* Of the request that is done: what is to be said of it. */
void plain_delivered(hp_ring *ring, uint32_t index, struct hp_ring_completion *completion);
void plain_end(hp_ring *ring);

/* ---- lists ---- */

static inline void ring_list_add(hp_ring *ring, struct ring_list *list, uint32_t index)
{
	ring->requests[index].next = RING_NONE;
	if (list->count++)
		ring->requests[list->last].next = index;
	else
		list->first = index;
	list->last = index;
}

static inline uint32_t ring_list_take(hp_ring *ring, struct ring_list *list)
{
	uint32_t index = list->first;
	if (!list->count) return RING_NONE;
	list->first = ring->requests[index].next;
	list->count--;
	return index;
}

void ring_list_remove(hp_ring *ring, struct ring_list *list, uint32_t index);

/* The request's last completion was delivered, or it never began. */
static inline void ring_retire(hp_ring *ring, uint32_t index)
{
	struct ring_request *request = &ring->requests[index];
	if (request->flags & REQUEST_PINNED) pin_drop(ring->pins, index);
	request->state = REQUEST_FREE;
	ring->free[ring->free_count++] = index;
}

static inline void ring_done(hp_ring *ring, uint32_t index, int32_t result)
{
	ring->requests[index].result = result;
	ring->requests[index].state = REQUEST_DONE;
	ring_list_add(ring, &ring->done, index);
}

#endif
