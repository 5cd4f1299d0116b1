/* An AF_XDP socket on the pool's memory.
 *
 * The kernel stops writing to the pool when the socket is released, which for a process that was killed is after its death:
 * the file is closed with its last descriptor and its last mapping, the rings'. A socket cannot hold another file, so the
 * life descriptor, whose lock says that the kernel is at work, is placed where it is let go of later than the socket, however
 * the process ends. For descriptors: it lies in the queue of a Unix socket. The files of a dying process are released in
 * one pass over all of them, and what lies in a queue is released in the pass after that. For mappings, which somebody who looks
 * at the process at that moment can keep alive beyond its descriptors: it is mapped too, below the rings; of mappings that end
 * together the kernel releases the files last to first. A forked child that keeps the socket keeps the queue as well; the
 * mappings it does not get. In copy mode the release of the socket waits for all receiving that is under way; in
 * zero-copy mode the driver is stopped by a worker a little later, for which only xdp_queue_free can tell. */
#include "xdp/socket.h"
#include "os/packet.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif

#define PATIENCE UINT64_C(500000000) /* ns: a queue that was closed is free after some 20 ms */

int xdp_socket_make(hp_pool *pool, struct xdp_socket *socket)
{
	*socket = (struct xdp_socket){.fd = -1, .keeper = -1};
	int fd = os_socket(AF_XDP, SOCK_RAW);
	if (fd >= 0) {
		socket->fd = fd;
		return 0;
	}
	if (fd == -EPERM)
		pool_log(pool, "xdp: AF_XDP sockets are not allowed to this process: run as root, or with CAP_NET_RAW (setcap "
		               "cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep PROGRAM)");
	else
		pool_log(pool, "xdp: no AF_XDP socket: error %d%s", -fd,
		         fd == -EAFNOSUPPORT ? " (the kernel is built without CONFIG_XDP_SOCKETS)" : "");
	return fd;
}

/* Where the rings are in the area, after the page of the life descriptor. */
struct plan {
	struct xdp_ring *ring;
	const struct xdp_ring_offset *offset;
	int option;
	uint64_t at;
	uint32_t entries, entry;
};

static size_t plan_bytes(const struct plan *plan)
{
	size_t bytes = plan->offset->desc + (size_t)plan->entries * plan->entry;
	return (bytes + HP_PAGE_SIZE - 1) & ~(size_t)(HP_PAGE_SIZE - 1);
}

static int hold(struct xdp_socket *socket, int life)
{
	void *at;
	int ends[2], error = os_map(socket->area, HP_PAGE_SIZE, PROT_NONE, OS_MAP_FIXED, life, 0, &at);
	if (error < 0) return error;
	error = os_socket_pair(ends);
	if (error < 0) return error;
	int64_t sent = os_send_fds(ends[0], "", 1, &life, 1);
	os_close(ends[0]);
	socket->keeper = ends[1];
	return sent < 0 ? (int)sent : 0;
}

static int map(struct xdp_socket *socket, struct plan *plan, unsigned count, int life)
{
	void *at;
	size_t bytes = HP_PAGE_SIZE;
	for (unsigned i = 0; i < count; i++) bytes += plan_bytes(&plan[i]);
	int error = os_map(NULL, bytes, PROT_NONE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &at);
	if (error < 0) return error;
	socket->area = at;
	socket->bytes = bytes;
	if ((error = hold(socket, life)) < 0) return error;
	char *next = socket->area + HP_PAGE_SIZE;
	for (unsigned i = 0; i < count; i++) {
		struct xdp_ring *ring = plan[i].ring;
		error = os_socket_option(socket->fd, SOL_XDP, plan[i].option, &plan[i].entries, sizeof plan[i].entries);
		if (error < 0) return error;
		error = os_map(next, plan_bytes(&plan[i]), PROT_READ | PROT_WRITE, OS_MAP_FIXED, socket->fd, plan[i].at, &at);
		if (error < 0) return error;
		ring->producer = (_Atomic uint32_t *)(void *)(next + plan[i].offset->producer);
		ring->consumer = (_Atomic uint32_t *)(void *)(next + plan[i].offset->consumer);
		ring->flags = (_Atomic uint32_t *)(void *)(next + plan[i].offset->flags);
		ring->entries = next + plan[i].offset->desc;
		ring->mask = plan[i].entries - 1;
		next += plan_bytes(&plan[i]);
	}
	return os_advise(socket->area, bytes, MADV_DONTFORK);
}

static int bind_to(int fd, int interface, uint32_t queue, uint16_t flags, uint64_t patience)
{
	struct sockaddr_xdp address = {
		.sxdp_family = AF_XDP, .sxdp_flags = flags, .sxdp_ifindex = (uint32_t)interface, .sxdp_queue_id = queue};
	for (uint64_t deadline = os_now_ns() + patience;;) {
		_Atomic uint32_t nothing = 0;
		int error = os_bind(fd, &address, sizeof address);
		if (error != -EBUSY || os_now_ns() >= deadline) return error;
		os_futex_wait(&nothing, 0, 1000000);
	}
}

static int refused(hp_pool *pool, const struct xdp_setup *setup, int error)
{
	switch (error) {
	case -EBUSY:
		pool_log(pool, "xdp: queue %u of %s has another AF_XDP socket: end that one, or open another queue",
		         setup->queue, setup->name);
		break;
	case -EINVAL:
		pool_log(pool, "xdp: %s has no queue %u (ethtool -l %s says how many there are)", setup->name, setup->queue,
		         setup->name);
		break;
	case -EOPNOTSUPP:
		pool_log(pool, "xdp: the driver of %s cannot do zero-copy: use HP_XDP_ANY or HP_XDP_COPY", setup->name);
		break;
	default: pool_log(pool, "xdp: queue %u of %s cannot be bound to: error %d", setup->queue, setup->name, -error);
	}
	return error;
}

int xdp_socket_bind(hp_pool *pool, const struct xdp_setup *setup, int life, struct xdp_socket *socket)
{
	struct xdp_mmap_offsets offsets;
	memset(&offsets, 0, sizeof offsets);
	unsigned bytes = sizeof offsets;
	struct plan plan[] = {
		{&socket->fill, &offsets.fr, XDP_UMEM_FILL_RING, XDP_UMEM_PGOFF_FILL_RING, setup->frames, sizeof(uint64_t)},
		{&socket->done, &offsets.cr, XDP_UMEM_COMPLETION_RING, XDP_UMEM_PGOFF_COMPLETION_RING, setup->sends,
	     sizeof(uint64_t)},
		{&socket->receive, &offsets.rx, XDP_RX_RING, XDP_PGOFF_RX_RING, setup->frames, sizeof(struct xdp_desc)},
		{&socket->send, &offsets.tx, XDP_TX_RING, XDP_PGOFF_TX_RING, setup->sends, sizeof(struct xdp_desc)},
	};
	struct xdp_umem_reg memory = {
		.addr = (uintptr_t)pool->base, .len = setup->bytes, .chunk_size = setup->chunk, .headroom = setup->headroom};
	int error = os_socket_ask(socket->fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &bytes);
	if (error == 0 && bytes != sizeof offsets) error = -EPROTO; /* before Linux 5.4: no flags */
	if (error == 0) error = os_socket_option(socket->fd, SOL_XDP, XDP_UMEM_REG, &memory, sizeof memory);
	if (error == -ENOBUFS)
		pool_log(
			pool,
			"xdp: RLIMIT_MEMLOCK is too small for the pool's memory, %llu KiB: raise it (ulimit -l, LimitMEMLOCK=), or "
			"run with CAP_IPC_LOCK",
			(unsigned long long)(setup->bytes >> 10));
	else if (error < 0)
		pool_log(pool, "xdp: the kernel does not take the pool's memory (%llu KiB in chunks of %u): error %d",
		         (unsigned long long)(setup->bytes >> 10), setup->chunk, -error);
	if (error == 0) {
		error = map(socket, plan, sizeof plan / sizeof *plan, life);
		if (error < 0) pool_log(pool, "xdp: the rings cannot be made: error %d", -error);
	}
	os_close(life);
	if (error == 0) {
		error = bind_to(socket->fd, setup->interface, setup->queue, setup->flags, PATIENCE);
		if (error < 0) refused(pool, setup, error);
	}
	if (error < 0) {
		xdp_socket_close(socket);
		return error;
	}
	struct xdp_options options = {0};
	bytes = sizeof options;
	socket->zero_copy = os_socket_ask(socket->fd, SOL_XDP, XDP_OPTIONS, &options, &bytes) == 0 &&
	                    (options.flags & XDP_OPTIONS_ZEROCOPY) != 0;
	return 0;
}

void xdp_socket_end(struct xdp_socket *socket)
{
	if (socket->bytes > HP_PAGE_SIZE) {
		os_unmap(socket->area + HP_PAGE_SIZE, socket->bytes - HP_PAGE_SIZE);
		socket->bytes = HP_PAGE_SIZE;
	}
	if (socket->fd >= 0) os_close(socket->fd);
	socket->fd = -1;
}

void xdp_socket_close(struct xdp_socket *socket)
{
	xdp_socket_end(socket);
	if (socket->bytes) os_unmap(socket->area, socket->bytes);
	if (socket->keeper >= 0) os_close(socket->keeper);
	*socket = (struct xdp_socket){.fd = -1, .keeper = -1};
}

int xdp_queue_free(int interface, uint32_t queue)
{
	void *page;
	int error = os_map(NULL, HP_PAGE_SIZE, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON, -1, 0, &page);
	if (error < 0) return error;
	struct xdp_umem_reg memory = {.addr = (uintptr_t)page, .len = HP_PAGE_SIZE, .chunk_size = HP_PAGE_SIZE};
	const int options[] = {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING};
	uint32_t entries = 1;
	int fd = os_socket(AF_XDP, SOCK_RAW);
	error = fd < 0 ? fd : os_socket_option(fd, SOL_XDP, XDP_UMEM_REG, &memory, sizeof memory);
	for (unsigned i = 0; error == 0 && i < 3; i++)
		error = os_socket_option(fd, SOL_XDP, options[i], &entries, sizeof entries);
	if (error == 0) error = bind_to(fd, interface, queue, XDP_COPY, 0);
	if (fd >= 0) os_close(fd);
	os_unmap(page, HP_PAGE_SIZE);
	return error;
}
