/* AF_XDP on the pool: a frame received on an interface is an object of a cache, and an object can be sent as a frame,
 * without a copy in user space.
 *
 * The pool's memory is the UMEM, the cache's objects are its chunks: 2048 or 4096 bytes, aligned to their size. What is
 * received is the application's; any process of the pool may use it, hand it on (to a file by way of hp_ring, say), and put it
 * back into the cache. The kernel is kept in empty objects by hp_xdp_receive itself.
 *
 * When the process dies, at any instruction: objects that lay in the rings, waiting to be filled or to be sent, go back to
 * their cache, and not before the kernel has closed the socket, which is when it stops writing to them; that is some
 * milliseconds after the death, and whoever needs memory next sees to it. Frames that hp_xdp_receive had handed out are the
 * application's, like all that it got; entries of `frames` are written before their objects are handed out, so an array in
 * shared memory tells which. Nothing stays behind on the interface: the program that leads frames to the socket goes with the
 * last process that uses it. A frame that was being sent may, where the driver takes it from where it lies, go out with what
 * its object holds by then. In mode HP_XDP_ZERO_COPY the driver may go on writing for as long as the kernel takes to tear
 * down the queue behind the dead process' back, which is not waited for: use it where what may die is the whole application.
 *
 * A handle belongs to the process that opened it, not to forked children (one that keeps the descriptors keeps the socket, and
 * what lies in its rings), and is used by one thread at a time; several threads open several queues. Nothing waits but
 * hp_xdp_open and hp_xdp_close, and nothing is for signal handlers.
 *
 * Needs CAP_NET_RAW; with a program of its own also CAP_NET_ADMIN and CAP_BPF, and CAP_SYS_ADMIN where a second process opens
 * another queue of the same interface; without CAP_IPC_LOCK an RLIMIT_MEMLOCK of the pool's size. Origin: none. */
#ifndef HUGEPOOL_XDP_H
#define HUGEPOOL_XDP_H

#include <hugepool/cache.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_xdp hp_xdp;

typedef enum {
	HP_XDP_COPY = 0,      /* the kernel copies between driver and pool: any interface */
	HP_XDP_ZERO_COPY = 1, /* the driver uses the pool's memory itself: few can */
	HP_XDP_ANY = 2        /* the latter where the driver can, else the former */
} hp_xdp_mode;

#define HP_XDP_KEEP \
	1u /* what is sent stays the application's, which learns by hp_xdp_completed when it is free to use */

struct hp_xdp_options {
	size_t struct_size;    /* sizeof this struct */
	const char *interface; /* in the network namespace of the caller */
	uint32_t queue;
	hp_xdp_mode mode;
	uint32_t frames;   /* objects that wait in the kernel to be filled, at most 65,536; 0: 2048 */
	uint32_t sends;    /* objects being sent, at most 65,536; 0: 2048 */
	uint32_t headroom; /* bytes kept free before a received frame, beside 256 that the kernel keeps */
	unsigned flags;    /* HP_XDP_* */
	int xsk_map; /* a map of type XSKMAP, of a program that the caller has attached; the socket is put there under the
	                      number of its queue. 0: the library's own program, which leads all frames of the queue here */
};

/* Opens queue `queue` of an interface for objects of the cache, which must be 2048 or 4096 bytes from one to the next, with
 * an `align` of as much, without constructor. What was committed of the pool so far can be used; after hp_pool_grow open
 * anew. While a queue is open nothing of the pool is trimmed.
 * -EINVAL: options or cache make no sense, or the interface has no such queue. -EPERM: a capability is missing (above).
 * -ENODEV: no such interface. -EBUSY: another socket has the queue (waits half a second first, since
 * a queue is free some 20 ms after it was closed), or another XDP program is on the interface. -EOPNOTSUPP: zero-copy that the
 * driver cannot do, or no XDP at all. -ENOBUFS: RLIMIT_MEMLOCK. -ENOTSUP: a cache with a constructor, or a private pool.
 * -EAFNOSUPPORT: a kernel without AF_XDP. -ENOSPC: as many rings as a pool has room for (256). -ENOMEM, -EMFILE. Each with a
 * message in the pool's log. */
HP_API int hp_xdp_open(hp_cache *cache, const struct hp_xdp_options *options, hp_xdp **xdp);

struct hp_xdp_frame {
	hp_off object;   /* where it begins in the pool */
	uint32_t offset; /* of the frame in it, */
	uint32_t length; /* and its bytes, both with the Ethernet header */
};

/* Takes up to `n` frames, and gives the kernel as many empty objects. Returns how many; 0: none has come. -ENOBUFS: none has
 * come and none can, for the kernel has no empty object and the cache gave none; call again when objects were put back.
 * Longer frames than an object has room for (its size less 256 and headroom) are dropped. */
HP_API int hp_xdp_receive(hp_xdp *xdp, struct hp_xdp_frame *frames, unsigned n);

/* Sends up to `n` frames: objects of the cache, of whatever process. They belong to the library from here on, and go
 * back to the cache when the interface is done with them, which a later call notices. Returns how many were taken: fewer
 * than `n` where there is no room now. With n 0 it only sees to what is under way.
 * Nothing was taken: -EINVAL: not inside an object, or of another pool; -ERANGE: in memory that was committed later than the
 * queue was opened; -ENOENT, -EALREADY: no object of the cache, or not out; -EBUSY: it lies in a ring of this queue already, or
 * (with HP_XDP_KEEP) as much other I/O as possible is under way on it; -ENETDOWN (also of what was taken earlier). With
 * HP_XDP_KEEP any memory of the pool can be sent that does not cross a multiple of the object's size. */
HP_API int hp_xdp_send(hp_xdp *xdp, const struct hp_xdp_frame *frames, unsigned n);

/* With HP_XDP_KEEP: up to `n` objects (their starts, as they were given) that have been sent; how many. -EINVAL: without it. */
HP_API int hp_xdp_completed(hp_xdp *xdp, hp_off *objects, unsigned n);

/* For poll and its relatives: POLLIN when frames are there, POLLOUT when there is room to send. */
HP_API int hp_xdp_fd(const hp_xdp *xdp);

struct hp_xdp_stats {
	size_t struct_size;    /* sizeof this struct */
	uint64_t received;     /* frames handed out */
	uint64_t sent, done;   /* frames taken to be sent, and done with */
	uint64_t waiting;      /* objects in the kernel's hands for receiving, or received and not yet handed out */
	uint64_t no_object;    /* times the cache had none to give to the kernel */
	uint64_t outside;      /* objects that it gave and that could not be used, being outside of `bytes` */
	uint64_t wakeups;      /* system calls */
	uint64_t bytes;        /* of the pool that the kernel has, from its start */
	uint64_t dropped;      /* by the kernel: too long, or otherwise unfit; */
	uint64_t ring_full;    /* hp_xdp_receive was not called in time; */
	uint64_t none_to_fill; /* no empty object was there */
	uint64_t bad_to_send;  /* refused by the kernel: longer than the interface takes, say */
	bool zero_copy;
};
/* -EINVAL: struct_size. */
HP_API int hp_xdp_stats(hp_xdp *xdp, struct hp_xdp_stats *stats);

/* Closes it: sends what was taken (waiting for at most 200 ms), and puts every object that lies in its rings back into the
 * cache when the kernel has let go of it. What was received and not taken is lost, as frames are. With HP_XDP_KEEP what was
 * sent is the application's. NULL is nothing. -EBUSY: in zero-copy mode the kernel has not let go of the queue within a
 * second, or somebody else has it already: all stays with the handle, for another call. */
HP_API int hp_xdp_close(hp_xdp *xdp);

#ifdef __cplusplus
}
#endif
#endif
