/* Requests: what each is, checked, pinned, and written down for the engine.
 *
 * A request's memory is told by its address. In the ring's pool it is pinned, and named by the number of its slice where it is
 * registered, so that the kernel does not have to look for its pages; elsewhere it is the caller's, unless another pool of this
 * process is there: that one would not know of the I/O. Which memory others have is kept, and looked up again when pools have
 * come or gone.
 *
 * The pin comes before the kernel can see the request. A death between the two leaves a pin without I/O, which ends with the
 * ring. */
#include "ring/ring.h"
#include "pool/participant.h"
#include <errno.h>
#include <stdlib.h>

#define LEN_MOST 0x7fffffffu

void ring_note_pools(hp_ring *ring)
{
	struct participant_guard guard;
	if (participant_lock(&guard) < 0) return;
	uint32_t changes = atomic_load_explicit(&participant_pool_changes, memory_order_acquire), count = 0;
	for (hp_pool *pool = participant_pools(); pool; pool = pool->next) count++;
	struct ring_range *others = realloc(ring->others, (count + 1) * sizeof *others);
	if (others) {
		ring->others = others;
		ring->other_count = 0;
		for (hp_pool *pool = participant_pools(); pool; pool = pool->next)
			if (pool != ring->pool && !pool->private)
				others[ring->other_count++] = (struct ring_range){.start = (uintptr_t)pool->base,
				                                                  .end = (uintptr_t)pool->base + pool->capacity};
		ring->pools_seen = changes;
	}
	participant_unlock(&guard);
}

/* Memory that is not, or not wholly, the pool's. */
static int check_private(hp_ring *ring, uintptr_t start, uintptr_t end)
{
	if (start < (uintptr_t)ring->base + ring->capacity && end > (uintptr_t)ring->base) return -EINVAL;
	if (unlikely(ring->pools_seen != atomic_load_explicit(&participant_pool_changes, memory_order_relaxed)))
		ring_note_pools(ring);
	for (uint32_t i = 0; i < ring->other_count; i++)
		if (start < ring->others[i].end && end > ring->others[i].start) return -EXDEV;
	return 0;
}

/* Pins it, or finds that it needs no pin. Returns its registered buffer + 1, or 0: it goes by address. */
static inline int take_memory(hp_ring *ring, uint32_t index, struct ring_request *request, const void *buf,
                              size_t bytes)
{
	uintptr_t start = (uintptr_t)buf;
	if (unlikely(!bytes || bytes > LEN_MOST || !buf || start + bytes < start)) return -EINVAL;
	hp_off off = start - (uintptr_t)ring->base;
	if (unlikely(off >= ring->capacity || bytes > ring->capacity - off))
		return check_private(ring, start, start + bytes);
	int error = pin_add(ring->pins, index, off, bytes);
	if (unlikely(error < 0)) return error;
	request->flags |= REQUEST_PINNED;
	uint64_t slice = off >> RING_SLICE_SHIFT, in = off & (RING_SLICE - 1);
	/* a range over the end of a slice goes by address */
	return likely(in + bytes <= ring->registered[slice]) ? (int)slice + 1 : 0;
}

/* ---- the kernel's form ---- */

static inline void fill_transfer(struct io_uring_sqe *sqe, enum ring_op op, int fd, const void *buf, unsigned bytes,
                                 uint64_t at, int slice1)
{
	const int fixed = op == RING_READ ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
	const int by_address = op == RING_READ ? IORING_OP_READ : IORING_OP_WRITE;
	io_uring_prep_rw(slice1 ? fixed : by_address, sqe, fd, buf, bytes, at);
	sqe->buf_index = (uint16_t)(slice1 - !!slice1);
}

static void fill(const hp_ring *ring, struct io_uring_sqe *sqe, struct ring_request *request)
{
	void *addr = request->addr;
	unsigned len = request->len;
	int fd = request->fd;
	switch ((enum ring_op)request->op) {
	case RING_READ:
	case RING_WRITE: fill_transfer(sqe, request->op, fd, addr, len, request->at, request->slice1); break;
	case RING_RECV: io_uring_prep_recv(sqe, fd, addr, len, 0); break;
	case RING_RECV_OBJECT:
		io_uring_prep_recv(sqe, fd, NULL, 0, 0);
		sqe->flags = IOSQE_BUFFER_SELECT;
		sqe->buf_group = 0;
		if (request->flags & HP_RING_MULTI && ring->zero_copy) sqe->ioprio = IORING_RECV_MULTISHOT;
		break;
	case RING_SEND:
		if (request->flags & HP_RING_ZEROCOPY) {
			io_uring_prep_send_zc(sqe, fd, addr, len, MSG_NOSIGNAL, request->slice1 ? IORING_RECVSEND_FIXED_BUF : 0);
			if (request->slice1) sqe->buf_index = (uint16_t)(request->slice1 - 1);
		} else {
			io_uring_prep_send(sqe, fd, addr, len, MSG_NOSIGNAL);
		}
		break;
	case RING_ACCEPT:
		if (request->flags & HP_RING_MULTI)
			io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
		else
			io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
		break;
	case RING_CONNECT: io_uring_prep_connect(sqe, fd, addr, len); break;
	case RING_POLL: io_uring_prep_poll_add(sqe, fd, len); break;
	case RING_FSYNC: io_uring_prep_fsync(sqe, fd, request->flags & HP_RING_DATA ? IORING_FSYNC_DATASYNC : 0); break;
	case RING_TIMEOUT: io_uring_prep_timeout(sqe, &request->time, 0, IORING_TIMEOUT_ETIME_SUCCESS); break;
	case RING_CANCEL: io_uring_prep_cancel64(sqe, len, 0); break;
	}
}

/* Without a thread of the kernel's that takes entries by itself, only we move the head, by entering. */
static inline bool has_room(const hp_ring *ring)
{
	const struct io_uring_sq *sq = &ring->kernel.sq;
	return sq->sqe_tail - IO_URING_READ_ONCE(*sq->khead) < sq->ring_entries;
}

static inline struct io_uring_sqe *next_entry(hp_ring *ring)
{
	struct io_uring_sq *sq = &ring->kernel.sq;
	return &sq->sqes[sq->sqe_tail++ & sq->ring_mask];
}

static inline void label(struct io_uring_sqe *sqe, uint32_t index, unsigned flags)
{
	sqe->flags |= (flags & HP_RING_FILE ? IOSQE_FIXED_FILE : 0) | (flags & HP_RING_LINK ? IOSQE_IO_LINK : 0);
	sqe->user_data = index;
}

static void give(hp_ring *ring, uint32_t index)
{
	struct ring_request *request = &ring->requests[index];
	struct io_uring_sqe *sqe = next_entry(ring);
	request->state = REQUEST_WITH_KERNEL;
	fill(ring, sqe, request);
	label(sqe, index, request->flags);
}

bool ring_give(hp_ring *ring, uint32_t index)
{
	if (!has_room(ring)) return false;
	give(ring, index);
	return true;
}

/* ---- one request after the other ---- */

static inline int begin(hp_ring *ring, enum ring_op op, int fd, unsigned flags, unsigned possible, uint64_t user,
                        uint32_t *index)
{
	if (unlikely(!ring)) return -EINVAL;
	int error = ring_usable(ring);
	if (unlikely(error < 0)) return error;
	if (unlikely(flags & ~(possible | HP_RING_LINK | HP_RING_FILE))) return -EINVAL;
	if (unlikely(flags & HP_RING_LINK && flags & (HP_RING_MULTI | HP_RING_ZEROCOPY))) return -EINVAL;
	if (unlikely(fd < 0)) return -EBADF;
	if (unlikely(flags & HP_RING_FILE && ((uint32_t)fd >= ring->file_count || ring->files[fd] < 0))) return -EBADF;
	if (unlikely(!ring->free_count)) return -EAGAIN;
	if (unlikely(ring->plain ? ring->prepared.count >= ring->depth : !has_room(ring))) return -EAGAIN;
	*index = ring->free[ring->free_count - 1];
	struct ring_request *request = &ring->requests[*index];
	request->user = user;
	request->fd = fd;
	request->op = (uint8_t)op;
	request->flags = flags;
	return 0;
}

/* Nothing fails any more. */
static int finish(hp_ring *ring, uint32_t index)
{
	ring->free_count--;
	if (likely(!ring->plain)) {
		give(ring, index);
	} else {
		ring->requests[index].state = REQUEST_PREPARED;
		ring_list_add(ring, &ring->prepared, index);
	}
	return 0;
}

static inline __attribute__((always_inline)) int with_memory(hp_ring *ring, enum ring_op op, int fd, const void *buf,
                                                             size_t bytes, uint64_t at, unsigned flags,
                                                             unsigned possible, uint64_t user)
{
	uint32_t index;
	int error = begin(ring, op, fd, flags, possible, user, &index);
	if (unlikely(error < 0)) return error;
	struct ring_request *request = &ring->requests[index];
	int slice1 = take_memory(ring, index, request, buf, bytes);
	if (unlikely(slice1 < 0)) return slice1;
	if (likely(!ring->plain) && (op == RING_READ || op == RING_WRITE)) { /* the kernel gets these once */
		struct io_uring_sqe *sqe = next_entry(ring);
		request->state = REQUEST_WITH_KERNEL;
		ring->free_count--;
		fill_transfer(sqe, op, fd, buf, (unsigned)bytes, at, slice1);
		label(sqe, index, flags);
		return 0;
	}
	request->addr = (void *)(uintptr_t)buf;
	request->len = (uint32_t)bytes;
	request->at = at;
	request->slice1 = (uint16_t)slice1;
	return finish(ring, index);
}

int hp_ring_read(hp_ring *ring, int fd, void *buf, size_t bytes, uint64_t at, unsigned flags, uint64_t user)
{
	return with_memory(ring, RING_READ, fd, buf, bytes, at, flags, 0, user);
}

int hp_ring_write(hp_ring *ring, int fd, const void *buf, size_t bytes, uint64_t at, unsigned flags, uint64_t user)
{
	return with_memory(ring, RING_WRITE, fd, buf, bytes, at, flags, 0, user);
}

int hp_ring_recv(hp_ring *ring, int fd, void *buf, size_t bytes, unsigned flags, uint64_t user)
{
	return with_memory(ring, RING_RECV, fd, buf, bytes, 0, flags, 0, user);
}

int hp_ring_send(hp_ring *ring, int fd, const void *buf, size_t bytes, unsigned flags, uint64_t user)
{
	if (ring && !ring->zero_copy) flags &= ~HP_RING_ZEROCOPY;
	return with_memory(ring, RING_SEND, fd, buf, bytes, 0, flags, HP_RING_ZEROCOPY, user);
}

static int without_memory(hp_ring *ring, enum ring_op op, int fd, uint32_t len, unsigned flags, unsigned possible,
                          uint64_t user)
{
	uint32_t index;
	int error = begin(ring, op, fd, flags, possible, user, &index);
	if (error < 0) return error;
	struct ring_request *request = &ring->requests[index];
	request->addr = NULL;
	request->at = 0;
	request->len = len;
	return finish(ring, index);
}

int hp_ring_recv_object(hp_ring *ring, int fd, unsigned flags, uint64_t user)
{
	if (!ring || flags & HP_RING_LINK) return -EINVAL;
	if (!ring->buffers.cache) return -ENOBUFS;
	return without_memory(ring, RING_RECV_OBJECT, fd, 0, flags, HP_RING_MULTI, user);
}

int hp_ring_accept(hp_ring *ring, int fd, unsigned flags, uint64_t user)
{
	return without_memory(ring, RING_ACCEPT, fd, 0, flags, HP_RING_MULTI, user);
}

int hp_ring_connect(hp_ring *ring, int fd, const struct sockaddr *address, socklen_t bytes, unsigned flags,
                    uint64_t user)
{
	uint32_t index;
	if (!address || bytes < sizeof address->sa_family || bytes > sizeof(struct sockaddr_storage)) return -EINVAL;
	int error = begin(ring, RING_CONNECT, fd, flags, 0, user, &index);
	if (error < 0) return error;
	struct ring_request *request = &ring->requests[index];
	request->addr = (void *)(uintptr_t)address;
	request->at = 0;
	request->len = bytes;
	return finish(ring, index);
}

int hp_ring_poll_add(hp_ring *ring, int fd, unsigned events, unsigned flags, uint64_t user)
{
	if (!events || events > 0xffff) return -EINVAL;
	return without_memory(ring, RING_POLL, fd, events, flags, 0, user);
}

int hp_ring_fsync(hp_ring *ring, int fd, unsigned flags, uint64_t user)
{
	return without_memory(ring, RING_FSYNC, fd, 0, flags, HP_RING_DATA, user);
}

int hp_ring_timeout(hp_ring *ring, uint64_t ns, unsigned flags, uint64_t user)
{
	uint32_t index;
	if (flags & HP_RING_FILE || ns > INT64_MAX) return -EINVAL;
	int error = begin(ring, RING_TIMEOUT, 0, flags, 0, user, &index);
	if (error < 0) return error;
	struct ring_request *request = &ring->requests[index];
	request->len = 0;
	request->time.tv_sec = (int64_t)(ns / 1000000000u);
	request->time.tv_nsec = (long long)(ns % 1000000000u);
	if (ring->plain) request->at = ns;
	return finish(ring, index);
}

/* What carries the word, if it can still be cancelled. */
static uint32_t find(const hp_ring *ring, uint64_t user)
{
	for (uint32_t i = 0; i < ring->request_count; i++) {
		const struct ring_request *request = &ring->requests[i];
		if (request->state != REQUEST_FREE && request->state != REQUEST_DONE && request->user == user &&
		    request->op != RING_CANCEL)
			return i;
	}
	return RING_NONE;
}

int hp_ring_cancel(hp_ring *ring, uint64_t target, unsigned flags, uint64_t user)
{
	uint32_t index;
	if (flags & (HP_RING_FILE | HP_RING_LINK)) return -EINVAL;
	int error = begin(ring, RING_CANCEL, 0, flags, 0, user, &index);
	if (error < 0) return error;
	struct ring_request *request = &ring->requests[index];
	request->addr = NULL;
	request->at = target;
	if (ring->plain) return finish(ring, index);

	uint32_t found = find(ring, target);
	if (found != RING_NONE && ring->requests[found].state == REQUEST_WITH_KERNEL) {
		ring->requests[found].flags |= REQUEST_CANCELLED;
		request->len = found;
		return finish(ring, index);
	}
	/* not with the kernel: done here */
	ring->free_count--;
	if (found == RING_NONE || ring->requests[found].state != REQUEST_AGAIN) {
		ring_done(ring, index, -ENOENT);
	} else {
		ring_list_remove(ring, &ring->again, found);
		ring_done(ring, found, -ECANCELED);
		ring_done(ring, index, 0);
	}
	return 0;
}

void ring_list_remove(hp_ring *ring, struct ring_list *list, uint32_t index)
{
	for (uint32_t left = list->count; left--;) {
		uint32_t at = ring_list_take(ring, list);
		if (at != index) ring_list_add(ring, list, at);
	}
}
