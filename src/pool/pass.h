/* Descriptors of a pool on their way: what goes out, and what came in. */
#ifndef HUGEPOOL_PASS_H
#define HUGEPOOL_PASS_H

#include "pool/pool.h"

/* The descriptors to send, still the handle's. -EINVAL, -ENOTSUP (private), -EROFS (an observer's), -EBADF: they were closed
 * behind our back, and something else would be sent under their numbers. */
int pool_passable(const hp_pool *pool, int fds[3]);

/* Attaches to, or observes, what came, which has to be the pool of this id: -EPROTO. The descriptors stay the caller's. */
int pool_adopt(const int fds[3], const uint64_t id[2], const struct hp_attach_options *options, bool observe,
               hp_pool **pool);

/* The three memfds of one pool: type, size, seals, header. Maps nothing, trusts nothing, and waits for nothing: no file but
 * a memfd is asked anything that somebody else would have to answer. Errors and messages as hp_pool_attach. */
int pool_verify(const int fds[3], const struct hp_attach_options *options, struct pool_geometry *geometry);

#endif
