/* Packet sockets and their options, interfaces, programs in the kernel. See packet.h. */
#include <linux/membarrier.h>
#include <net/if.h>
#include <os/hook.h>
#include <os/packet.h>
#include <sys/syscall.h>
#include <unistd.h>

int os_socket(int domain, int type)
{
	OS_ASK(OS_SOCKET);
	return os_result(socket(domain, type | SOCK_CLOEXEC, 0));
}

int os_socket_pair(int fds[2])
{
	OS_ASK(OS_SOCKET);
	return os_result(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
}

int os_socket_option(int socket, int level, int name, const void *value, unsigned bytes)
{
	OS_ASK(OS_SOCKET_OPTION);
	return os_result(setsockopt(socket, level, name, value, bytes));
}

int os_socket_ask(int socket, int level, int name, void *value, unsigned *bytes)
{
	OS_ASK(OS_SOCKET_OPTION);
	return os_result(getsockopt(socket, level, name, value, bytes));
}

int os_bind(int socket, const void *address, unsigned bytes)
{
	OS_ASK(OS_BIND);
	return os_result(bind(socket, address, bytes));
}

int os_interface(const char *name)
{
	OS_ASK(OS_INTERFACE);
	unsigned index = if_nametoindex(name);
	return index ? (int)index : -errno;
}

int os_bpf(int command, void *attributes, unsigned bytes)
{
	OS_ASK(OS_BPF);
	return os_result(syscall(__NR_bpf, command, attributes, bytes));
}

int os_membarrier_all(void)
{
	OS_ASK(OS_MEMBARRIER);
	return os_result(syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
}
