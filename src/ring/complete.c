/* Submitting, waiting, and what the kernel has to say.
 *
 * Every entry of the completion queue is copied and given back to the kernel before anybody is called, so nothing depends on
 * what they do. Some entries are between the kernel and us: the first of the two of a zero-copy send, a receive that found no
 * object, a receive of many that the kernel has ended for reasons of its own. Such requests are given to it again, as soon as
 * there is an object, by every call that submits, waits or polls. The kernel keeps what has no room in the queue
 * (IORING_FEAT_NODROP), and is asked for it. */
#include "ring/ring.h"
#include "pool/participant.h"
#include <errno.h>

#define NOBODY UINT64_MAX /* the word of requests of our own */

/* Requests that wait for objects, or room. True: there is something to submit. */
static bool give_again(hp_ring *ring)
{
	bool given = false;
	for (uint32_t left = ring->again.count, objects = ring_refill(ring); left--;) {
		uint32_t index = ring_list_take(ring, &ring->again);
		if ((ring->requests[index].op == RING_RECV_OBJECT && !objects) || !ring_give(ring, index))
			ring_list_add(ring, &ring->again, index);
		else
			given = true;
	}
	return given;
}

/* Objects are got several at a time, or at once when a request waits for one. */
static inline bool wants_more(const hp_ring *ring)
{
	return ring->again.count || ring->buffers.missing > ring->buffers.count / 8;
}

static void to_again(hp_ring *ring, uint32_t index)
{
	ring->requests[index].state = REQUEST_AGAIN;
	ring_list_add(ring, &ring->again, index);
}

/* ---- the kernel's completions ---- */

/* A receive into an object. True: to be told, and *last whether it was its last. */
static bool received(hp_ring *ring, uint32_t index, const struct io_uring_cqe *cqe, struct hp_ring_completion *to,
                     bool *last)
{
	struct ring_request *request = &ring->requests[index];
	bool more = cqe->flags & IORING_CQE_F_MORE, ended = request->flags & REQUEST_CANCELLED;
	if (cqe->flags & IORING_CQE_F_BUFFER) {
		uint32_t id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
		if (cqe->res > 0)
			to->object = ring->draining ? NULL : ring_buffer_take(ring, id); /* else it goes back with the pins */
		else
			ring_buffer_return(ring, id);
	}
	*last = !more;
	if (cqe->res == -ENOBUFS && !more && !(ring->flags & HP_RING_REPORT_EMPTY)) {
		if (ended) {
			to->result = -ECANCELED;
			return true;
		}
		to_again(ring, index);
		return false;
	}
	if (request->flags & HP_RING_MULTI && cqe->res > 0) {
		if (!more && !ended) {
			to_again(ring, index);
			*last = false;
		}
		if (!*last) to->flags = HP_RING_MORE;
	}
	return true;
}

/* False: there is nothing to tell. */
static inline bool complete(hp_ring *ring, const struct io_uring_cqe *cqe, struct hp_ring_completion *to)
{
	if (!(cqe->flags & IORING_CQE_F_MORE)) ring->with_kernel--;
	if (unlikely(cqe->user_data >= ring->request_count)) return false;
	uint32_t index = (uint32_t)cqe->user_data;
	struct ring_request *request = &ring->requests[index];
	bool last = true;
	*to = (struct hp_ring_completion){.user = request->user, .result = cqe->res};
	if (likely(request->op <= RING_RECV)) { /* most */
		ring_retire(ring, index);
		return true;
	}
	switch ((enum ring_op)request->op) {
	case RING_RECV_OBJECT:
		if (!received(ring, index, cqe, to, &last)) return false;
		break;
	case RING_SEND:
		if (!(request->flags & HP_RING_ZEROCOPY)) break;
		if (cqe->flags & IORING_CQE_F_NOTIF) to->result = request->result;
		request->result = to->result;
		if (cqe->flags & IORING_CQE_F_MORE) return false; /* its memory is still in use */
		if (to->result == -EOPNOTSUPP) {                  /* not on such a socket */
			request->flags &= ~HP_RING_ZEROCOPY;
			to_again(ring, index);
			return false;
		}
		break;
	case RING_ACCEPT:
		if (ring->draining && cqe->res >= 0) os_close(cqe->res);
		last = !(cqe->flags & IORING_CQE_F_MORE);
		if (request->flags & HP_RING_MULTI && cqe->res >= 0 && last && !(request->flags & REQUEST_CANCELLED)) {
			to_again(ring, index);
			last = false;
		}
		if (!last) to->flags = HP_RING_MORE;
		break;
	case RING_TIMEOUT:
		if (cqe->res == -ETIME) to->result = 0;
		break;
	default: break;
	}
	if (likely(last)) ring_retire(ring, index);
	return true;
}

/* The next that there is to tell. */
static inline bool next(hp_ring *ring, struct hp_ring_completion *to)
{
	if (unlikely(ring->done.count)) {
		uint32_t index = ring_list_take(ring, &ring->done);
		struct ring_request *request = &ring->requests[index];
		*to = (struct hp_ring_completion){.user = request->user, .result = request->result};
		if (ring->plain)
			plain_delivered(ring, index, to);
		else
			ring_retire(ring, index);
		return true;
	}
	if (ring->plain) return false;
	struct io_uring_cq *cq = &ring->kernel.cq;
	unsigned head = *cq->khead;
	/* acquire: the entry is written before the tail */
	while (head != io_uring_smp_load_acquire(cq->ktail)) {
		struct io_uring_cqe cqe = cq->cqes[head & cq->ring_mask];
		io_uring_smp_store_release(cq->khead, ++head); /* release: it is copied before the kernel uses it again */
		if (likely(complete(ring, &cqe, to))) return true;
	}
	return false;
}

/* ---- entering the kernel ---- */

/* The kernel finds a ring that is registered with its thread among those of the thread that calls: another's may have the place. */
static inline bool is_anothers(const hp_ring *ring)
{
	return ring->enter_flags && unlikely(ring->thread != &hp_thread);
}

/* Hands over what is prepared, and waits for so many completions. How many were handed over, or -errno. */
static inline int ring_enter(hp_ring *ring, unsigned wait, uint64_t ns)
{
	struct io_uring_sq *sq = &ring->kernel.sq;
	unsigned submit = sq->sqe_tail - *sq->khead, flags = 0;
	io_uring_smp_store_release(sq->ktail, sq->sqe_tail); /* release: after the entries */
	struct __kernel_timespec time = {.tv_sec = (int64_t)(ns / 1000000000u), .tv_nsec = (long long)(ns % 1000000000u)};
	struct io_uring_getevents_arg arg = {.ts = (uintptr_t)&time};
	const void *extra = NULL;
	size_t bytes = 0;
	if (wait || IO_URING_READ_ONCE(*sq->kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN))
		flags = IORING_ENTER_GETEVENTS;
	if (wait && ns != UINT64_MAX) {
		flags |= IORING_ENTER_EXT_ARG;
		extra = &arg;
		bytes = sizeof arg;
	}
	if (!submit && !flags) return 0;
	if (is_anothers(ring)) return -EPERM;
	int result = os_uring_enter(ring->enter_fd, submit, wait, flags | ring->enter_flags, extra, bytes);
	if (likely(result >= 0)) {
		ring->with_kernel += (uint32_t)result;
		return result;
	}
	if (result == -EEXIST) return -EPERM;
	/* closed, or another file has its number now */
	if (result == -EBADF || result == -EOPNOTSUPP || result == -ENXIO) result = ring->error = -EBADF;
	return result;
}

/* Everything that is prepared; the kernel may take it in parts. */
static int submit(hp_ring *ring)
{
	int sum = 0, result;
	do {
		result = ring_enter(ring, 0, 0);
		if (result > 0) sum += result;
	} while (result > 0 && ring->kernel.sq.sqe_tail != *ring->kernel.sq.khead);
	return sum ? sum : result;
}

int hp_ring_submit(hp_ring *ring)
{
	int error = ring ? ring_usable(ring) : -EINVAL;
	if (error < 0) return error;
	if (ring->plain) return plain_submit(ring);
	if (unlikely(wants_more(ring))) give_again(ring);
	return submit(ring);
}

/* Submits, and waits until there are as many completions, or entries of the queue that may be some; for objects, in slices. Of
 * more than is under way nothing is to be waited for: that may be yet to be prepared, by whom they are told. */
static inline __attribute__((always_inline)) int submit_and_wait(hp_ring *ring, unsigned wait, uint64_t ns)
{
	int sum = 0, result;
	if (ring->plain) sum = plain_submit(ring);
	if (wait > hp_ring_pending(ring)) wait = hp_ring_pending(ring);
	for (uint64_t until = 0;;) {
		unsigned have = ring->done.count;
		uint64_t most = ns;
		if (ring->plain) {
			if (have >= wait) return sum;
			result = plain_drive(ring, most);
			have = ring->done.count;
		} else {
			if (unlikely(wants_more(ring))) give_again(ring);
			if (unlikely(ring->again.count && most > RING_STALL_NS)) most = RING_STALL_NS;
			result = ring_enter(ring, wait > have ? wait - have : 0, most);
			if (result > 0) sum += result;
			have += io_uring_cq_ready(&ring->kernel);
			/* a part that was taken is submitted, and the rest is with the next call */
			if (most == ns) break;
		}
		if (have >= wait || (result < 0 && result != -ETIME)) break;
		if (ns != UINT64_MAX) {
			uint64_t now = os_now_ns();
			if (!until) until = now + ns - (most < ns ? most : 0);
			if (now >= until) {
				result = -ETIME;
				break;
			}
			ns = until - now;
		}
	}
	return sum ? sum : result;
}

int hp_ring_submit_and_wait(hp_ring *ring, unsigned wait, uint64_t ns)
{
	int error = ring ? ring_usable(ring) : -EINVAL;
	return error < 0 ? error : submit_and_wait(ring, wait, ns);
}

/* For calls that look without waiting: what the kernel keeps back until it is asked, and what is to be given to it again. */
static void nudge(hp_ring *ring)
{
	if (ring->plain) {
		plain_drive(ring, 0);
		return;
	}
	if (unlikely(wants_more(ring)) && give_again(ring)) {
		submit(ring);
		return;
	}
	/* first what is there; what comes meanwhile comes with the next call */
	if (!io_uring_cq_ready(&ring->kernel) && !is_anothers(ring) &&
	    unlikely(IO_URING_READ_ONCE(*ring->kernel.sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)))
		os_uring_enter(ring->enter_fd, 0, 0, IORING_ENTER_GETEVENTS | ring->enter_flags, NULL, 0);
}

int hp_ring_poll(hp_ring *ring, struct hp_ring_completion *completions, unsigned room)
{
	if (unlikely(!ring || (room && !completions))) return -EINVAL;
	if (ring_is_inherited(ring)) return -ESRCH;
	if (likely(ring->error == 0)) nudge(ring);
	unsigned count = 0;
	while (count < room && next(ring, &completions[count])) count++;
	return (int)count;
}

int hp_ring_run(hp_ring *ring, hp_ring_fn *call, void *arg, unsigned wait, uint64_t ns)
{
	int error = ring && call ? ring_usable(ring) : -EINVAL;
	if (error < 0) return error;
	struct hp_ring_completion completion;
	unsigned count = 0, most = ring->request_count;
	bool calling = ring->calling;
	uint64_t until = wait && ns != UINT64_MAX ? os_now_ns() + ns : UINT64_MAX;
	for (;;) {
		error = hp_ring_submit_and_wait(ring, count < wait ? wait - count : 0, ns);
		ring->calling = true;
		/* a callback may go on for ever, this call does not */
		while (count < most && next(ring, &completion)) {
			count++;
			call(arg, &completion);
		}
		ring->calling = calling;
		if (error < 0 || count >= wait || count >= most || !hp_ring_pending(ring)) break;
		if (until != UINT64_MAX) {
			uint64_t now = os_now_ns();
			if (now >= until) {
				error = -ETIME;
				break;
			}
			ns = until - now;
		}
	}
	return count || error > 0 ? (int)count : error;
}

/* ---- the end ---- */

void ring_drain(hp_ring *ring)
{
	struct io_uring_sq *sq = &ring->kernel.sq;
	struct hp_ring_completion completion;
	ring->draining = true;
	sq->sqe_tail = *sq->khead; /* what the kernel has not seen it never will */
	while (ring->again.count) ring_retire(ring, ring_list_take(ring, &ring->again));
	while (ring->with_kernel && ring->error == 0) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->kernel);
		if (sqe) {
			io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
			sqe->user_data = NOBODY;
		}
		ring_enter(ring, 1, RING_STALL_NS);
		while (next(ring, &completion)) {}
		while (ring->again.count) ring_retire(ring, ring_list_take(ring, &ring->again));
	}
}
