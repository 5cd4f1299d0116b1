/* Unix sockets and waiting for descriptors. See socket.h. */
#include <fcntl.h>
#include <linux/sockios.h>
#include <os/hook.h>
#include <os/socket.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 512

int os_unix_socket(void)
{
	OS_ASK(OS_SOCKET);
	return os_result(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
}

static int address(const char *path, struct sockaddr_un *to)
{
	*to = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof to->sun_path) return -ENAMETOOLONG;
	if (!*path) return -ENOENT; /* for the kernel it would be an abstract socket, which has no owner */
	memcpy(to->sun_path, path, strlen(path));
	return 0;
}

int os_unix_listen(int socket, const char *path)
{
	OS_ASK(OS_SOCKET);
	struct sockaddr_un to;
	int error = address(path, &to);
	if (error < 0) return error;
	if ((error = os_result(bind(socket, (struct sockaddr *)&to, sizeof to))) < 0) return error;
	error = os_result(chmod(path, 0666));
	if (error == 0) error = os_result(fcntl(socket, F_SETFL, O_NONBLOCK));
	if (error == 0) error = os_result(listen(socket, BACKLOG));
	if (error < 0) unlink(path);
	return error;
}

int os_unix_connect(int socket, const char *path, uint64_t ns)
{
	OS_ASK(OS_SOCKET);
	struct sockaddr_un to;
	int error = address(path, &to);
	if (error < 0) return error;
	/* the time for sending is that for connecting, too; 0 would be for ever */
	struct timeval limit = {.tv_sec = (time_t)(ns / 1000000000), .tv_usec = (suseconds_t)(ns % 1000000000 / 1000) | 1};
	error = os_result(setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
	return error < 0 ? error : os_result(connect(socket, (struct sockaddr *)&to, sizeof to));
}

int os_unix_accept(int socket)
{
	OS_ASK(OS_SOCKET);
	int64_t result;
	do {
		result = os_result(accept4(socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
	} while (result == -EINTR);
	return result;
}

int os_peer(int socket, struct ucred *peer)
{
	OS_ASK(OS_SOCKET);
	socklen_t size = sizeof *peer;
	return os_result(getsockopt(socket, SOL_SOCKET, SO_PEERCRED, peer, &size));
}

int os_peer_groups(int socket, gid_t *groups, unsigned room)
{
	OS_ASK(OS_SOCKET);
	socklen_t size = room * sizeof *groups;
	int error = os_result(getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &size));
	return error < 0 ? error : (int)(size / sizeof *groups);
}

int os_unread(int socket)
{
	OS_ASK(OS_SOCKET);
	int bytes = 0, error = os_result(ioctl(socket, SIOCOUTQ, &bytes));
	return error < 0 ? error : bytes;
}

int os_poll(struct pollfd *fds, unsigned count, uint64_t ns)
{
	OS_ASK(OS_POLL);
	struct timespec limit = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
	return os_result(ppoll(fds, count, &limit, NULL));
}

int os_lstat(const char *path, struct stat *st)
{
	OS_ASK(OS_FSTAT);
	return os_result(lstat(path, st));
}

int os_unlink(const char *path)
{
	OS_ASK(OS_UNLINK);
	return os_result(unlink(path));
}

int os_access_mode(int fd)
{
	OS_ASK(OS_CLOEXEC);
	int flags = os_result(fcntl(fd, F_GETFL));
	return flags < 0 ? flags : flags & O_ACCMODE;
}

uint64_t os_raise_descriptors(void)
{
	int64_t answer;
	struct rlimit limit;
	if (os_answered(OS_SOCKET, &answer) || getrlimit(RLIMIT_NOFILE, &limit) < 0) return 0;
	struct rlimit most = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
	return setrlimit(RLIMIT_NOFILE, &most) == 0 ? most.rlim_cur : limit.rlim_cur;
}

unsigned os_uid(void)
{
	return geteuid();
}
