/* An AF_XDP socket on the pool's memory, its four rings, and what tells others how long the kernel has it. */
#ifndef HUGEPOOL_XDP_SOCKET_H
#define HUGEPOOL_XDP_SOCKET_H

#include "pool/pool.h"
#include <linux/if_xdp.h>

/* One end is the kernel's, in memory of the kernel. */
struct xdp_ring {
	_Atomic uint32_t *producer, *consumer, *flags;
	void *entries;
	uint32_t mask, mine; /* our end, as far as we have come */
};

struct xdp_setup {
	const char *name; /* of the interface */
	int interface;
	uint32_t queue, chunk, headroom, frames, sends; /* the last two powers of two */
	uint16_t flags;                                 /* of sockaddr_xdp */
	uint64_t bytes;                                 /* of the pool, from its start */
};

struct xdp_socket {
	int fd;
	int keeper; /* a socket in which the life descriptor lies */
	char *area; /* a page of the life descriptor, then the rings */
	size_t bytes;
	struct xdp_ring fill, done, receive, send;
	bool zero_copy;
};

/* The socket alone; its fd is -1 until then. */
int xdp_socket_make(hp_pool *pool, struct xdp_socket *socket);
/* Registers, maps, binds; takes over `life`, and sees to it that it stays open as long as the kernel may write. On failure
 * (-errno, with a message) all is as after xdp_socket_close. */
int xdp_socket_bind(hp_pool *pool, const struct xdp_setup *setup, int life, struct xdp_socket *socket);
/* Closes the socket, and nothing else. */
void xdp_socket_end(struct xdp_socket *socket);
/* And this lets go of the life descriptor. */
void xdp_socket_close(struct xdp_socket *socket);
/* Can the queue be bound to? 0; -EBUSY: a socket has it, or the kernel has not yet torn down that of one that is gone. */
int xdp_queue_free(int interface, uint32_t queue);

static inline uint32_t xdp_load(const _Atomic uint32_t *index)
{
	return atomic_load_explicit(index, memory_order_acquire); /* the entries before it are there, or done with */
}
static inline void xdp_publish(_Atomic uint32_t *index, uint32_t value)
{
	atomic_store_explicit(index, value, memory_order_release); /* after the entries, or after they were read */
}

#endif
