/* Rings: I/O straight into and out of a pool's memory, by io_uring.
 *
 * A ring is one process' queue of requests. They are prepared, many at a time, handed to the kernel by one call, and come back
 * as completions, each with the word that was given with it and a result as the system call of that name has it (bytes, a
 * descriptor, 0, or -errno). The pool's memory is registered once, in slices of 1 GiB, so that reading and writing any block of
 * it costs the kernel no look at page tables; private memory may be used as well, and is told apart by its address.
 *
 * Where there is no io_uring (an old kernel, a container, a setting) the same calls are carried out by ordinary system calls,
 * executed when requests are submitted or waited for; a message to the pool's log says why, and what to do about it.
 *
 * Memory in a request is pinned until its completion: freed meanwhile, by whomever, it becomes free after that. It is not
 * handed out again, nor given back to the kernel, while an I/O may touch it, also when the process has died: the kernel ends
 * the I/O of the dead a little later, and only then does their memory come back.
 *
 * One thread at a time may use a ring. Nothing here is for signal handlers. A forked child has nothing of its parent's rings:
 * calls return -ESRCH in it, and hp_ring_destroy frees its copy of the handle. A child made without the fork handlers of the C
 * library (by clone) keeps the kernel's side of them open, so pins of a dead parent last until that child ends, too.
 *
 * The death of the caller, at any point of any call, leaves: no pin after the kernel has ended the I/O, every object that
 * waited to be filled back in its cache, and data in blocks exactly as far as the kernel has written it.
 *
 * Origin: Netsys_mem's I/O on memory, which went through read, write, recv and send. */
#ifndef HUGEPOOL_RING_H
#define HUGEPOOL_RING_H

#include <hugepool/cache.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_ring hp_ring;

/* What is there, and why not more. */
struct hp_ring_report {
	size_t struct_size;      /* sizeof this struct */
	bool io_uring;           /* false: plain system calls */
	bool zero_copy;          /* HP_RING_ZEROCOPY is more than a hint */
	bool cloned;             /* the registration is that of another ring of the process: nothing was charged for it */
	int error;               /* why there is no io_uring, or not all memory is registered: -errno; 0: all is well */
	uint64_t registered;     /* bytes of the pool */
	uint64_t committed;      /* bytes of the pool that could be */
	uint64_t memlock_needed; /* what RLIMIT_MEMLOCK has to be for it; it counts for all processes of a user together */
	uint64_t memlock_limit;  /* what it is; UINT64_MAX: none, or the process is exempt */
	char cause[192], cure[192];
};

/* Flags of a ring. */
#define HP_RING_PLAIN 1u   /* plain system calls, whatever the kernel has */
#define HP_RING_REQUIRE 2u /* io_uring, or fail */
#define HP_RING_UNREGISTERED \
	4u /* the pool's memory is not registered: nothing is charged, and the pool can be trimmed */
#define HP_RING_ONE_THREAD \
	8u /* only the thread that makes the ring ever uses it: the kernel then does less, and has -EPERM for others */
#define HP_RING_REPORT_EMPTY \
	16u /* hp_ring_recv_object fails with -ENOBUFS while the cache is empty, instead of waiting */

struct hp_ring_options {
	size_t struct_size; /* sizeof this struct */
	unsigned
		depth; /* requests that can be prepared before they are submitted, 1 to 32768, rounded up to a power of two; 0: 128 */
	unsigned requests; /* that can be under way together, likewise to 65536; 0, or less than depth: twice the depth */
	unsigned flags;    /* HP_RING_* */
	unsigned files;    /* descriptors that can be registered, to 16384; 0: 64 */
	unsigned buffers;  /* objects that hp_ring_buffers can lay out, likewise to 32768; 0: as many as requests */
	hp_log_fn *log;    /* NULL: the pool's */
	void *log_arg;
	struct hp_ring_report *report; /* filled, on failure too; NULL: not wanted */
};

/* Makes a ring; `pool` NULL: for private memory only; `options` NULL: {0}. Further rings on a handle share the registration of
 * the first where the kernel can do that (Linux 6.12). Memory that cannot be registered is used all the same, at the
 * cost of one look at the page tables each time; the report says why.
 * -EINVAL: bad options. -ENOTSUP: a private pool; use NULL. -ENOSPC: the pool has room for no more rings. -ENOMEM, -EMFILE.
 * With HP_RING_REQUIRE also -EPERM: io_uring is forbidden here; -ENOSYS: the kernel lacks it, or what is needed of it (Linux 5.19). */
HP_API int hp_ring_create(hp_pool *pool, const struct hp_ring_options *options, hp_ring **ring);

/* Ends a ring: what was prepared is dropped, what is under way is cancelled and waited for, completions that nobody has asked
 * for are lost, but not what came with them: objects go back to their cache. Before hp_pool_detach of its pool. NULL is nothing.
 * -EBUSY: called back by hp_ring_run of this ring. -EPERM: HP_RING_ONE_THREAD, and another thread. Nothing has happened then. */
HP_API int hp_ring_destroy(hp_ring *ring);

/* What a ring on this pool (or NULL) would have, found by making one; logs nothing. Returns report->error. */
HP_API int hp_ring_preflight(hp_pool *pool, struct hp_ring_report *report);
/* What this one has. */
HP_API int hp_ring_report(const hp_ring *ring, struct hp_ring_report *report);

/* Registers what the pool has grown by since it was registered last, for this ring. Possible at any time. 0 also when all of it
 * is registered; -ENOMEM: more than RLIMIT_MEMLOCK; -ENOTSUP: a ring without registration. */
HP_API int hp_ring_register(hp_ring *ring);

/* Registers a descriptor, which may be closed then: its place, for requests with HP_RING_FILE. -EBADF: it is not open; -ENFILE: no
 * place is left; others as the kernel's. The kernel saves a look into the process' table of descriptors for each request. */
HP_API int hp_ring_register_file(hp_ring *ring, int fd);
/* Requests under way go on. -EBADF: nothing is registered there. -EBUSY: with plain system calls, when some are under way. */
HP_API int hp_ring_unregister_file(hp_ring *ring, int file);

/* Lays out `count` objects of a cache of the ring's pool (rounded up to a power of two; at most options.buffers) into which
 * hp_ring_recv_object receives. What is used up is got from the cache again, an eighth at a time, or at once where a request waits
 * for it, by every call that submits, waits or polls. Once a ring. -EEXIST: there is one; -ENOTSUP: a cache with a constructor;
 * -EXDEV: the cache is not of the ring's pool; -ENOMEM: RLIMIT_MEMLOCK, too, which counts a few pages of each ring; -EINVAL. An
 * empty cache is no error. */
HP_API int hp_ring_buffers(hp_ring *ring, hp_cache *cache, unsigned count);

/* ---- requests ----
 *
 * Each function prepares one; nothing happens before it is submitted. `user` is any word. `fd` is a descriptor that stays open
 * until the completion, or with HP_RING_FILE the place of a registered one. `buf` is memory of the ring's pool, inside one block, or
 * private memory, which has to stay.
 * -EAGAIN: the ring is full: submit what is prepared, or wait for completions. -EINVAL: a length of 0, or of 2 GiB and
 * more; memory of the pool that is not inside one live block, or only in part inside the pool; flags. -EXDEV: memory of
 * another pool. -EBADF: no descriptor, or none registered there; or the ring's own was closed by somebody. -EBUSY: six
 * I/Os are under way on that block already. -ESRCH: a forked child. On an error nothing was prepared. */

#define HP_RING_FILE 1u /* fd is the place of a registered descriptor */
#define HP_RING_LINK \
	2u /* the request prepared next, and submitted together, begins when this one has ended well; when it fails, or
                               reads or writes less than asked, that one is -ECANCELED. Not with HP_RING_MULTI and HP_RING_ZEROCOPY */
#define HP_RING_MULTI 4u /* goes on after its completion, until one has no HP_RING_MORE */
#define HP_RING_ZEROCOPY \
	8u /* hp_ring_send: the network takes the bytes from where they are, where it can; the completion comes
                               when it is done with them */
#define HP_RING_DATA 16u /* hp_ring_fsync: as fdatasync */

#define HP_RING_CURRENT UINT64_MAX /* instead of a position: the file's own, and for what has none */

HP_API int hp_ring_read(hp_ring *ring, int fd, void *buf, size_t bytes, uint64_t at, unsigned flags, uint64_t user);
HP_API int hp_ring_write(hp_ring *ring, int fd, const void *buf, size_t bytes, uint64_t at, unsigned flags,
                         uint64_t user);
HP_API int hp_ring_recv(hp_ring *ring, int fd, void *buf, size_t bytes, unsigned flags, uint64_t user);
HP_API int hp_ring_send(hp_ring *ring, int fd, const void *buf, size_t bytes, unsigned flags, uint64_t user);

/* Receives into an object of hp_ring_buffers, which comes with the completion and is the application's from then on (hp_cache_put).
 * With HP_RING_MULTI again and again, until the result is 0 or an error. While there is no object it waits, for those that this or
 * any process puts back (or fails: HP_RING_REPORT_EMPTY). -ENOBUFS: no hp_ring_buffers. Not with HP_RING_LINK. */
HP_API int hp_ring_recv_object(hp_ring *ring, int fd, unsigned flags, uint64_t user);

/* Result: a descriptor, close-on-exec. With HP_RING_MULTI one after the other. */
HP_API int hp_ring_accept(hp_ring *ring, int fd, unsigned flags, uint64_t user);
/* `address` has to stay until it is submitted. */
HP_API int hp_ring_connect(hp_ring *ring, int fd, const struct sockaddr *address, socklen_t bytes, unsigned flags,
                           uint64_t user);
/* Waits until one of `events` of poll(2) is there, once. Result: which. */
HP_API int hp_ring_poll_add(hp_ring *ring, int fd, unsigned events, unsigned flags, uint64_t user);
HP_API int hp_ring_fsync(hp_ring *ring, int fd, unsigned flags, uint64_t user);
/* Completes with 0 after `ns` nanoseconds. */
HP_API int hp_ring_timeout(hp_ring *ring, uint64_t ns, unsigned flags, uint64_t user);
/* Cancels a request that is under way and was given the word `target`: one of them, when several were. It completes with -ECANCELED, or
 * as if nothing had been. Result: 0; -ENOENT: there is none; -EALREADY: it cannot be stopped any more. */
HP_API int hp_ring_cancel(hp_ring *ring, uint64_t target, unsigned flags, uint64_t user);

/* ---- submission and completion ---- */

#define HP_RING_MORE 1u /* this request will complete again */

struct hp_ring_completion {
	uint64_t user;  /* what was given with the request */
	void *object;   /* hp_ring_recv_object: what it was received into, or NULL */
	int32_t result; /* bytes, a descriptor, 0, or -errno */
	uint32_t flags; /* HP_RING_MORE */
};

/* Hands over what is prepared: how many requests. Errors only when none was: -EAGAIN, -EBUSY: the kernel is short of memory, or has too many
 * completions waiting: poll, and try again. -EBADF: the ring's descriptor was closed by somebody; -EPERM: HP_RING_ONE_THREAD; -ESRCH. */
HP_API int hp_ring_submit(hp_ring *ring);

/* The same, and waits until `wait` completions are there, for at most `ns` nanoseconds (UINT64_MAX: for ever). May come back
 * earlier: also -EINTR, when a signal came. -ETIME: it was too short, and nothing was submitted. */
HP_API int hp_ring_submit_and_wait(hp_ring *ring, unsigned wait, uint64_t ns);

/* Takes up to `room` completions that are there: how many. Never waits. -ESRCH, -EINVAL. */
HP_API int hp_ring_poll(hp_ring *ring, struct hp_ring_completion *completions, unsigned room);

/* Submits, waits for at least `wait` completions for at most `ns` nanoseconds, and calls back for each that is there: how many. What is
 * called back may prepare and submit. -ETIME, -EINTR, errors of hp_ring_submit: only when there was none. */
typedef void hp_ring_fn(void *arg, const struct hp_ring_completion *completion);
HP_API int hp_ring_run(hp_ring *ring, hp_ring_fn *call, void *arg, unsigned wait, uint64_t ns);

/* Requests that are prepared or under way. */
HP_API unsigned hp_ring_pending(const hp_ring *ring);

#ifdef __cplusplus
}
#endif
#endif
