/* Unix sockets that have a path, and waiting for descriptors: what a server and its clients need of the kernel.
 *
 * All are SOCK_SEQPACKET: a message is there as a whole or not at all, so neither end has to remember half of one. As in os.h:
 * -errno, and os_hook is asked first (OS_SOCKET unless said otherwise). */
#ifndef HUGEPOOL_OS_SOCKET_H
#define HUGEPOOL_OS_SOCKET_H

#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define OS_PATH_MAX sizeof(((struct sockaddr_un *)0)->sun_path) /* bytes of a socket's path, with its 0 */

int os_unix_socket(void); /* close-on-exec */
/* Binds, lets everybody connect (mode 0666), listens; non-blocking. -EADDRINUSE, -ENAMETOOLONG, -EACCES, ... */
int os_unix_listen(int socket, const char *path);
/* Waits for `ns` at most for a place in the queue of who listens: then -EAGAIN. -ECONNREFUSED: nobody listens; -EINTR. */
int os_unix_connect(int socket, const char *path, uint64_t ns);
int os_unix_accept(int socket); /* close-on-exec and non-blocking */

/* Who the other end was when it connected, and its supplementary groups: how many, or -ERANGE. */
int os_peer(int socket, struct ucred *peer);
int os_peer_groups(int socket, gid_t *groups, unsigned room);
int os_unread(int socket); /* bytes (and some) of what was sent that the other end has not read */

/* How many are ready, 0 after `ns`, -EINTR. OS_POLL. */
int os_poll(struct pollfd *fds, unsigned count, uint64_t ns);

/* Files. */
int os_lstat(const char *path, struct stat *st); /* OS_FSTAT */
int os_unlink(const char *path);                 /* OS_UNLINK */
int os_access_mode(int fd);                      /* O_RDONLY, O_WRONLY, O_RDWR; OS_CLOEXEC */
uint64_t os_raise_descriptors(void);             /* RLIMIT_NOFILE to its hard limit; what it is then. OS_SOCKET: 0 */
unsigned os_uid(void);                           /* effective */

#endif
