/* Named pools: the keeper (`hugepool keep`) is a small process that holds the descriptors of pools under names, so that a
 * pool outlives its users until it is unlinked, and a process that knows just the name can attach.
 *
 * The keeper is asked over a Unix socket, and only at these calls: who is attached needs it no more, and its death takes
 * nothing away from them. A pool that nobody else has ends with it. It maps no pool, and trusts nobody.
 *
 * Every name has an owner and a group, those of the process that published it (effective, as it connected), and a mode, like
 * a file's: the bits of the owner, of the group (supplementary groups count), or of others decide. Bit r: may look, as with
 * hp_pool_observe, by descriptors that cannot be written. Bit w: may attach, which is reading and writing. Root may do
 * everything; only owner and root may unlink. Names belong to who comes first: options.owner guards against somebody else.
 *
 * Errors common to all calls: -EINVAL: a bad name (1 to 63 bytes, no '/', no control characters) or bad options.
 * -ECONNREFUSED: no keeper there; -ECONNRESET: it ended meanwhile; -EBUSY: too many calls by this user at once;
 * -ETIMEDOUT: the keeper did not answer: nothing has happened, unless it was just answering; -EPROTO: what is there is
 * no keeper, or one of another version; -EACCES; -ENAMETOOLONG: the socket's path has more than 107 bytes; -EMFILE, -ENFILE,
 * -ENOMEM. The message to the log says what to do.
 *
 * All calls block, for options.timeout_ns at most. Any thread may call; not for signal handlers. A forked child may call
 * like anybody. The death of the caller leaves nothing: what it asked for is done or not.
 *
 * Origin: the ancestor's pools lived in named shared memory objects of the kernel, until their name was unlinked; what nobody
 * unlinked stayed behind until the machine was rebooted. */
#ifndef HUGEPOOL_KEEP_H
#define HUGEPOOL_KEEP_H

#include <hugepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hp_keep_options {
	size_t struct_size; /* sizeof this struct */
	/* The keeper's socket; NULL: what HUGEPOOL_KEEPER says; else for root /run/hugepool.sock, for others
	 * $XDG_RUNTIME_DIR/hugepool.sock. */
	const char *socket;
	uint64_t timeout_ns; /* of the call; 0: 5 seconds */
	/* hp_pool_open: */
	bool observe;   /* for looking only: the handle is one of hp_pool_observe, and bit r is enough */
	bool owned;     /* only a pool that `owner` published, or root: else -EPERM */
	unsigned owner; /* a user id */
	const struct hp_attach_options *attach; /* of hp_pool_attach; may be NULL */
	hp_log_fn *log;
	void *log_arg;
};

/* Attaches to the pool of that name. `options` may be NULL. -ENOENT: there is none. -EACCES: its mode does not let this user.
 * -ENOTSUP: observing is for those who may write, too, because the keeper is neither root nor the user who made the pool. -EAGAIN: somebody
 * has a lease (fcntl) on the pool's files. Errors of hp_pool_attach. */
HP_API int hp_pool_open(const char *name, const struct hp_keep_options *options, hp_pool **pool);

/* Has the keeper hold the pool under `name` (NULL: the pool's own), with `mode` (bits of 0666). The pool may be known by
 * several names. Its owner is this process' user, whoever made it: whoever has a pool for writing may pass it on.
 * -EEXIST: there is one of that name, which stays as it is. -EDQUOT: 64 pools are there by this user (not for root); -ENOSPC: as
 * many as it holds. -ENOTSUP: a private pool; -EROFS: an observer's handle; -EBADF: the pool's descriptors were closed. */
HP_API int hp_pool_publish(const hp_pool *pool, const char *name, unsigned mode, const struct hp_keep_options *options);

/* Takes the name away. Who is attached stays so; the pool ends with its last user. -ENOENT; -EACCES: neither owner nor
 * root. */
HP_API int hp_pool_unlink(const char *name, const struct hp_keep_options *options);

/* A pool that the keeper holds. */
struct hp_kept {
	size_t struct_size; /* set by the library: the size that it knows */
	char name[64];
	unsigned owner, group, mode;
	uint64_t capacity, page_size; /* bytes */
	hp_rung rung;
};

/* Calls `each` for every name, in their order; everybody sees all of them. Not 0 ends it, and is returned. What is published and
 * unlinked meanwhile may be seen or not. */
typedef int hp_kept_fn(void *arg, const struct hp_kept *pool);
HP_API int hp_pool_list(const struct hp_keep_options *options, hp_kept_fn *each, void *arg);

#ifdef __cplusplus
}
#endif
#endif
