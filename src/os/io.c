/* I/O that does not wait, but for regular files and fsync.
 *
 * That is asked for by the flag of one call (RWF_NOWAIT; for sockets os_recv and os_send with MSG_DONTWAIT), not by setting the
 * descriptor non-blocking, which everybody who shares it would notice. Only connect has no such flag. */
#include <fcntl.h>
#include <os/hook.h>
#include <os/io.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#define CURRENT UINT64_MAX

int os_ready(int fd, unsigned events)
{
	OS_ASK(OS_POLL);
	struct pollfd poll_fd = {.fd = fd, .events = (short)events};
	if (poll(&poll_fd, 1, 0) < 0) return -errno;
	return poll_fd.revents & POLLNVAL ? -EBADF : poll_fd.revents;
}

/* Without waiting where the file can do that; else once it says that it is ready, as regular files always are. A pipe has no
 * position, and says so. */
static int64_t transfer(int fd, struct iovec *iov, uint64_t at, bool out)
{
	int64_t result;
	for (int flags = RWF_NOWAIT;;) {
		off_t from = at == CURRENT ? -1 : (off_t)at;
		result = os_result(out ? pwritev2(fd, iov, 1, from, flags) : preadv2(fd, iov, 1, from, flags));
		if (result == -ESPIPE && at != CURRENT) {
			at = CURRENT;
		} else if (flags && (result == -EAGAIN || result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL)) {
			int ready = os_ready(fd, out ? POLLOUT : POLLIN);
			if (ready <= 0) return ready ? ready : -EAGAIN;
			flags = 0;
		} else if (result != -EINTR) {
			return result;
		}
	}
}

int64_t os_read_at(int fd, void *buf, size_t bytes, uint64_t at)
{
	OS_ASK(OS_READ_AT);
	if (at != CURRENT && at > INT64_MAX) return -EINVAL;
	return transfer(fd, &(struct iovec){.iov_base = buf, .iov_len = bytes}, at, false);
}

int64_t os_write_at(int fd, const void *buf, size_t bytes, uint64_t at)
{
	OS_ASK(OS_WRITE_AT);
	if (at != CURRENT && at > INT64_MAX) return -EINVAL;
	return transfer(fd, &(struct iovec){.iov_base = (void *)buf, .iov_len = bytes}, at, true);
}

int os_accept_now(int fd)
{
	OS_ASK(OS_SOCKET);
	int64_t result;
	do { /* an error of the socket makes it ready, too */
		result = os_ready(fd, POLLIN);
		if (result == 0) return -EAGAIN;
		if (result > 0) result = os_result(accept4(fd, NULL, NULL, SOCK_CLOEXEC));
	} while (result == -EINTR);
	return result;
}

int os_connect_begin(int fd, const struct sockaddr *address, socklen_t bytes)
{
	OS_ASK(OS_SOCKET);
	/* There is no flag for one call, so the descriptor is non-blocking for a moment. */
	int64_t flags = os_result(fcntl(fd, F_GETFL));
	if (flags < 0) return flags;
	if (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return -errno;
	int64_t result = os_result(connect(fd, address, bytes));
	if (!(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags);
	return result;
}

int os_connect_end(int fd)
{
	OS_ASK(OS_SOCKET);
	int error;
	socklen_t bytes = sizeof error;
	int ready = os_ready(fd, POLLOUT);
	if (ready <= 0) return ready ? ready : -EAGAIN;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0 ? -errno : -error;
}

int os_fsync(int fd, bool data)
{
	OS_ASK(OS_FSYNC);
	int64_t result;
	do {
		result = os_result(data ? fdatasync(fd) : fsync(fd));
	} while (result == -EINTR);
	return result;
}
