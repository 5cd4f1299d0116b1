/* Packet sockets and their options, interfaces, programs in the kernel. Each asks os_hook, as os.h has it. */
#ifndef HUGEPOOL_OS_PACKET_H
#define HUGEPOOL_OS_PACKET_H

#include "os/os.h"

int os_socket(int domain, int type); /* close-on-exec, as is the pair: of AF_UNIX, with records; same hook id */
int os_socket_pair(int fds[2]);
int os_socket_option(int socket, int level, int name, const void *value, unsigned bytes);
int os_socket_ask(int socket, int level, int name, void *value, unsigned *bytes); /* same hook id */
int os_bind(int socket, const void *address, unsigned bytes);
int os_interface(const char *name); /* its index, or -errno */
int os_membarrier_all(void);        /* every CPU has left what it did in the kernel under RCU; hook id OS_MEMBARRIER */
int os_bpf(int command, void *attributes, unsigned bytes); /* bpf(2): 0, a descriptor (close-on-exec), or -errno */

#endif
