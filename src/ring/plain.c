/* The other engine: plain system calls, for where there is no io_uring.
 *
 * A request is tried when it is submitted. If it would have to wait it goes to a list, over which ppoll is called by whoever
 * waits for completions or looks for them; what is ready is tried again. Regular files and fsync are done at once, in the
 * caller's time. Requests that are linked hang on the one before them, and begin when that ends well. A request of many has at
 * most one completion waiting to be asked for, so nothing has to be bounded but the requests. */
#include "ring/ring.h"
#include <errno.h>
#include <poll.h>

static int file_of(const hp_ring *ring, const struct ring_request *request)
{
	return request->flags & HP_RING_FILE ? ring->files[request->fd] : request->fd;
}

static uint32_t ended(hp_ring *ring, uint32_t index, int64_t result);
static void start(hp_ring *ring, uint32_t index);

static int64_t receive_object(hp_ring *ring, struct ring_request *request)
{
	uint32_t id = ring_buffer_pick(ring);
	if (id == RING_NONE) return ring->flags & HP_RING_REPORT_EMPTY ? -ENOBUFS : -EAGAIN;
	struct ring_buffers *buffers = &ring->buffers;
	int64_t got = os_recv(file_of(ring, request), buffers->object[id], buffers->size, MSG_DONTWAIT);
	if (got > 0) {
		buffers->laid_count--; /* filled: the ring's until it is delivered */
		request->len = id;
	}
	return got;
}

static int64_t connect_socket(const hp_ring *ring, struct ring_request *request)
{
	int fd = file_of(ring, request);
	if (request->flags & REQUEST_BEGUN) return os_connect_end(fd);
	int64_t result = os_connect_begin(fd, request->addr, request->len);
	if (result != -EINPROGRESS) return result;
	request->flags |= REQUEST_BEGUN;
	return -EAGAIN;
}

static int64_t cancel(hp_ring *ring, uint64_t target)
{
	for (uint32_t i = 0; i < ring->request_count; i++) {
		struct ring_request *request = &ring->requests[i];
		if (request->user != target || request->op == RING_CANCEL) continue;
		if (request->state == REQUEST_WAITING) {
			ring_list_remove(ring, &ring->waiting, i);
			ended(ring, i, -ECANCELED);
			return 0;
		}
		if (request->state == REQUEST_DONE && request->flags & HP_RING_MULTI) {
			request->flags |= REQUEST_CANCELLED;
			return 0;
		}
	}
	return -ENOENT;
}

/* -EAGAIN: not now. */
static int64_t attempt(hp_ring *ring, uint32_t index)
{
	struct ring_request *request = &ring->requests[index];
	int fd = request->op == RING_TIMEOUT || request->op == RING_CANCEL ? 0 : file_of(ring, request);
	switch ((enum ring_op)request->op) {
	case RING_READ: return os_read_at(fd, request->addr, request->len, request->at);
	case RING_WRITE: return os_write_at(fd, request->addr, request->len, request->at);
	case RING_RECV: return os_recv(fd, request->addr, request->len, MSG_DONTWAIT);
	case RING_RECV_OBJECT: return receive_object(ring, request);
	case RING_SEND: return os_send(fd, request->addr, request->len, MSG_DONTWAIT);
	case RING_ACCEPT: return os_accept_now(fd);
	case RING_CONNECT: return connect_socket(ring, request);
	case RING_POLL: {
		int ready = os_ready(fd, request->len);
		return ready ? ready : -EAGAIN;
	}
	case RING_FSYNC: return os_fsync(fd, request->flags & HP_RING_DATA);
	case RING_TIMEOUT:
		if (!(request->flags & REQUEST_BEGUN)) request->at += os_now_ns();
		request->flags |= REQUEST_BEGUN;
		return os_now_ns() >= request->at ? 0 : -EAGAIN;
	case RING_CANCEL: return cancel(ring, request->at);
	}
	return -EINVAL;
}

/* Has it done all that was asked, so that what is linked to it begins? */
static bool well(const struct ring_request *request, int64_t result)
{
	return request->op == RING_READ || request->op == RING_WRITE ? result == request->len : result >= 0;
}

/* Returns what begins now. */
static uint32_t ended(hp_ring *ring, uint32_t index, int64_t result)
{
	struct ring_request *request = &ring->requests[index];
	uint32_t link = request->link;
	request->link = RING_NONE;
	ring_done(ring, index, (int32_t)result);
	if (link == RING_NONE || well(request, result)) return link;
	while (link != RING_NONE) {
		uint32_t behind = ring->requests[link].link;
		ring->requests[link].link = RING_NONE;
		ring_done(ring, link, -ECANCELED);
		link = behind;
	}
	return RING_NONE;
}

static void start(hp_ring *ring, uint32_t index)
{
	while (index != RING_NONE) {
		int64_t result = attempt(ring, index);
		if (result == -EAGAIN) {
			ring->requests[index].state = REQUEST_WAITING;
			ring_list_add(ring, &ring->waiting, index);
			return;
		}
		index = ended(ring, index, result);
	}
}

int plain_submit(hp_ring *ring)
{
	int count = (int)ring->prepared.count;
	for (uint32_t index; (index = ring_list_take(ring, &ring->prepared)) != RING_NONE;) {
		uint32_t at = index;
		ring->requests[at].link = RING_NONE;
		while (ring->requests[at].flags & HP_RING_LINK && ring->prepared.count) {
			uint32_t behind = ring_list_take(ring, &ring->prepared);
			ring->requests[behind].state = REQUEST_LINKED;
			ring->requests[behind].link = RING_NONE;
			ring->requests[at].link = behind;
			at = behind;
		}
		start(ring, index);
	}
	return count;
}

static unsigned events_of(const hp_ring *ring, const struct ring_request *request)
{
	switch ((enum ring_op)request->op) {
	case RING_READ:
	case RING_RECV:
	case RING_ACCEPT: return POLLIN;
	case RING_RECV_OBJECT: return ring->buffers.laid_count ? POLLIN : 0;
	case RING_WRITE:
	case RING_SEND: return POLLOUT;
	case RING_CONNECT: return request->flags & REQUEST_BEGUN ? POLLOUT : 0;
	case RING_POLL: return request->len;
	default: return 0;
	}
}

/* What ppoll is to look at, in the list's order; *ns becomes shorter where something else has to be looked at. */
static unsigned list_polls(hp_ring *ring, uint64_t *ns)
{
	unsigned count = 0;
	for (uint32_t left = ring->waiting.count, index = ring->waiting.first; left--; index = ring->requests[index].next) {
		const struct ring_request *request = &ring->requests[index];
		unsigned events = events_of(ring, request);
		uint64_t most = RING_STALL_NS;
		if (request->op == RING_TIMEOUT) {
			uint64_t now = os_now_ns();
			most = request->at > now ? request->at - now : 0;
		}
		if (events) {
			ring->polls[count] = (struct pollfd){.fd = file_of(ring, request), .events = (short)events};
			ring->polled[count++] = index;
		} else if (most < *ns) {
			*ns = most;
		}
	}
	return count;
}

int plain_drive(hp_ring *ring, uint64_t ns)
{
	ring_refill(ring);
	unsigned count = list_polls(ring, &ns), k = 0;
	if (!count && !ns && !ring->waiting.count) return 0;
	int ready = os_poll(ring->polls, count, ns);
	if (ready < 0) return ready;
	ring_refill(ring);
	for (uint32_t left = ring->waiting.count; left-- && ring->waiting.count;) {
		uint32_t index = ring_list_take(ring, &ring->waiting);
		bool tried = true;
		if (k < count && ring->polled[k] == index) tried = ring->polls[k++].revents;
		if (tried)
			start(ring, index);
		else
			ring_list_add(ring, &ring->waiting, index);
	}
	return 0;
}

void plain_delivered(hp_ring *ring, uint32_t index, struct hp_ring_completion *to)
{
	struct ring_request *request = &ring->requests[index];
	bool more = request->flags & HP_RING_MULTI && !(request->flags & REQUEST_CANCELLED) && to->result >= 0;
	if (request->op == RING_RECV_OBJECT) {
		if (to->result > 0) to->object = ring_buffer_take(ring, request->len);
		more = more && to->result > 0;
	}
	if (!more) {
		ring_retire(ring, index);
		return;
	}
	to->flags = HP_RING_MORE;
	request->state = REQUEST_WAITING;
	ring_list_add(ring, &ring->waiting, index);
}

void plain_end(hp_ring *ring)
{
	for (uint32_t index; (index = ring_list_take(ring, &ring->done)) != RING_NONE;)
		if (ring->requests[index].op == RING_ACCEPT && ring->requests[index].result >= 0)
			os_close(ring->requests[index].result);
	ring_forget_files(ring);
}
