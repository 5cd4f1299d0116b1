/* The pool: one shared memory object that many processes map.
 *
 * A pool is three memfds: *lives* (empty; byte locks on it tell which processes live), *control* (the library's own
 * structures) and *data* (users' bytes). It lives exactly as long as somebody holds its descriptors or its mapping;
 * nothing is left behind, whoever is killed. Offsets are valid in every process, pointers only in the one that got them.
 *
 * Threads need no registration: any thread of any attached process may call at any time, and gets a slot at its first
 * call. A forked child goes on with its parent's handle and gets slots of its own; blocks of class PROCESS stay the
 * parent's. A process that dies, at any instruction, loses nothing of the pool and blocks nobody: what it owned is
 * recovered by whoever needs it next.
 *
 * Errors are negative errno values. Unless said otherwise functions may be called by any thread, and those that only
 * compute may be called from signal handlers too.
 *
 * Origin: Ocamlnet's Netmcore_mempool. Unlike there the creator can use its own pool, it can grow, any process can
 * attach at any time and at any address, and there is no lock that a dead process can leave locked. */
#ifndef HUGEPOOL_POOL_H
#define HUGEPOOL_POOL_H

#include <hugepool/backing.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_pool hp_pool;

/* A place in a pool: bytes from the start of its data. */
typedef uint64_t hp_off;
#define HP_OFF_NONE UINT64_MAX

/* Called with a message of one line, without a newline: cause and cure of what went wrong, or a trace (below). May be
 * called by any thread that uses the handle; must not call the library. */
typedef void hp_log_fn(void *arg, const char *message);

#define HP_POOL_FENCED \
	1u                         /* no membarrier: every operation pays a locked instruction instead, and CPUs are
                                  never interrupted. Chosen by itself where the kernel has no membarrier. */
#define HP_POOL_NO_AUTOGROW 2u /* only hp_pool_grow grows */
#define HP_POOL_PRIVATE \
	4u /* anonymous memory of this process alone, without descriptors, for what is shared with nobody: hp_pool_fds,
	      hp_pool_send and hp_pool_export_env say -ENOTSUP. A forked child has a copy of everything as it was, and its
	      thread goes on where it was; pages of class PROCESS are like those of class POOL. Transparent huge pages where
	      the kernel has them, else 4 KiB; hugetlb pages only by HP_CHOICE_REQUIRE, and a forked child copies those to
	      ordinary memory first (while it does, writes of the parent need as many free huge pages as they touch).
	      HP_PREFAULT_LAZY is possible on all but hugetlb pages. Creating and using it calls no malloc. */

#define HP_TRACE_ALLOC 1u /* a line to the log for every allocation and free */
#define HP_TRACE_ALL 2u   /* and for registration, growth, taking and recovery */

struct hp_pool_options {
	size_t struct_size; /* sizeof this struct; 0 means the size it had in version 0.1 */
	const char *name;   /* 1 to 63 bytes, no '/'; NULL: one is made up */
	uint64_t size;      /* bytes committed at creation, rounded up to pages of the rung; 0: 64 MiB */
	uint64_t capacity;  /* bytes it may ever grow to, rounded up likewise; 0: size. Costs address space, and 1/400
	                       of it in control memory once committed; slabs take 1/32 of theirs in addition */
	hp_rung_choice choice;
	hp_rung rung;
	struct hp_numa numa; /* of the memory committed at creation, and the default for growth */
	hp_prefault prefault;
	unsigned prefault_threads; /* 0: one for each CPU of the nodes concerned that the caller may run on; a private pool
	                              is populated by the caller alone */
	hp_progress_fn *progress;
	void *progress_arg;
	unsigned max_threads;   /* slots, in all processes together; 0: 1024; at most 16384 */
	unsigned max_processes; /* 0: 256; at most 4096; 1 in a private pool */
	unsigned flags;         /* HP_POOL_* */
	hp_log_fn *log;
	void *log_arg;
	unsigned trace;           /* HP_TRACE_*; needs log */
	struct hp_report *report; /* filled, on failure too; NULL: not wanted */
};

/* Makes a pool and attaches to it. `options` NULL is {0}.
 * -EINVAL: bad options (the log says which). -ENOMEM: the memory is not to be had; the report says why for each rung.
 * -ECANCELED: the progress callback said so. -EMFILE, -ENFILE: descriptors. -EPERM, -ENOSYS: memfd_create is denied.
 * Blocks while it populates. A caller that dies on the way leaves nothing. */
HP_API int hp_pool_create(const struct hp_pool_options *options, hp_pool **pool);

/* The descriptors of a pool, in the order in which hp_pool_attach wants them: lives, control, data. They stay the
 * handle's; duplicate what you want to keep. -ENOTSUP: a private pool has none; so say the functions below. */
HP_API int hp_pool_fds(const hp_pool *pool, int fds[3]);

struct hp_attach_options {
	size_t struct_size;
	bool elsewhere; /* do not try the creator's address */
	hp_log_fn *log;
	void *log_arg;
	unsigned trace;
};

/* Attaches by descriptors, which stay the caller's (duplicates are kept). `options` may be NULL. Everything is checked
 * before anything is mapped, and nothing waits for a creator that has died:
 * -EINVAL: not the three memfds of one pool. -EPROTO: made by another version or layout of the library.
 * -EBADMSG: truncated, or the header makes no sense. -ENODATA: its creator died before it was ready.
 * -EACCES: the descriptors are not writable. -EUSERS: as many processes as it has room for. -ENOTSUP: the pool needs
 * membarrier and this kernel refuses it. -ENOMEM.
 * Recovers what dead processes left. Attaching twice gives two handles, at different addresses. */
HP_API int hp_pool_attach(const int fds[3], const struct hp_attach_options *options, hp_pool **pool);

/* Sends the pool's descriptors over a connected unix socket (SCM_RIGHTS), with one message of a few bytes. Blocks as
 * the socket does. -errno of sendmsg. Origin: none; the ancestor could only inherit. */
HP_API int hp_pool_send(const hp_pool *pool, int socket);

/* Receives what hp_pool_send sent, and attaches. -EPROTO: the message is something else; -EPIPE: the peer is gone;
 * otherwise as hp_pool_attach. */
HP_API int hp_pool_receive(int socket, const struct hp_attach_options *options, hp_pool **pool);

/* Puts the pool's descriptors into the environment under `variable` (NULL: HUGEPOOL_POOL) so that a program started by
 * exec finds them there with hp_pool_from_env. The descriptors inherited are duplicates that belong to the handle.
 * Not safe against other threads that use the environment, as setenv is not. -EINVAL, -ENOMEM, -EMFILE. */
HP_API int hp_pool_export_env(hp_pool *pool, const char *variable);

/* -ENOENT: no such variable. -EBADF: the descriptors it names are not open. Otherwise as hp_pool_attach. The inherited
 * descriptors are set close-on-exec. */
HP_API int hp_pool_from_env(const char *variable, const struct hp_attach_options *options, hp_pool **pool);

/* Ends this process' use of the pool through this handle: gives back slots and blocks of class PROCESS, unmaps,
 * closes. No other thread may be inside a call with it, or use it later. Always 0, also for NULL. The death of the
 * caller at any point leaves what any death leaves: nothing is lost. */
HP_API int hp_pool_detach(hp_pool *pool);

/* Commits `bytes` more (rounded up to pages of the pool's rung), on `numa` (NULL: as the pool was made), filling first
 * what hp_pool_trim gave back. Every process sees the memory without a call of its own. `report` may be NULL.
 * -EINVAL: 0. -ENOSPC: more than the capacity. -ENOMEM: not to be had, or another process is growing the pool and
 * makes no progress. Blocks while it populates, and for another grower that lives and makes progress. A caller that
 * dies leaves the pool as it was; its half-populated memory is given back by the next who grows, attaches or recovers. */
HP_API int hp_pool_grow(hp_pool *pool, uint64_t bytes, const struct hp_numa *numa, struct hp_report *report);

/* Gives wholly free memory back to the kernel as long as `keep` bytes stay committed, highest offsets first. Returns
 * the bytes given back or -errno; 0 when nothing is free. -EBUSY: all that is free is pinned by I/O. */
HP_API int64_t hp_pool_trim(hp_pool *pool, uint64_t keep);

/* Recovers what dead processes (and threads of this one) left behind. Nobody needs to call it: it happens at attach,
 * before any -ENOMEM, and now and then. Returns how many participants were recovered, or -errno. */
HP_API int hp_pool_recover(hp_pool *pool);

/* The name given at creation, or made up. Valid while the handle is. */
HP_API const char *hp_pool_name(const hp_pool *pool);

/* Trace switches at run time: HP_TRACE_*, for this handle. */
HP_API int hp_pool_trace(hp_pool *pool, unsigned trace);

/* Start of the data in this process, its capacity in bytes, and the size of the pages it stands on. */
HP_API void *hp_pool_base(const hp_pool *pool);
HP_API uint64_t hp_pool_capacity(const hp_pool *pool);
HP_API uint64_t hp_pool_page_size(const hp_pool *pool);

/* Pointer to offset and back. An address outside the pool gives HP_OFF_NONE, an offset outside it NULL. */
HP_API hp_off hp_pool_offset(const hp_pool *pool, const void *ptr);
HP_API void *hp_pool_pointer(const hp_pool *pool, hp_off off);

#ifdef __cplusplus
}
#endif
#endif
