/* I/O that does not wait, and io_uring. */
#ifndef HUGEPOOL_OS_IO_H
#define HUGEPOOL_OS_IO_H

#include "os/socket.h"

/* -EAGAIN: it would have to wait. `at` UINT64_MAX: the current position; what has none takes any. */
int64_t os_read_at(int fd, void *buf, size_t bytes, uint64_t at);
int64_t os_write_at(int fd, const void *buf, size_t bytes, uint64_t at);
int os_accept_now(int fd);                                                     /* close-on-exec */
int os_connect_begin(int fd, const struct sockaddr *address, socklen_t bytes); /* -EINPROGRESS: os_connect_end tells */
int os_connect_end(int fd);                                                    /* same hook id */
int os_ready(int fd, unsigned events);                                         /* which of them, at once; 0: none */
int os_fsync(int fd, bool data);                                               /* waits */

struct io_uring_params;
int os_uring_setup(unsigned entries, struct io_uring_params *params);
int os_uring_register(int fd, unsigned op, const void *arg, unsigned count);
int os_uring_enter(int fd, unsigned submit, unsigned wait, unsigned flags, const void *arg, size_t bytes);

#endif
