/* Sockets: bytes, and messages that carry descriptors (SCM_RIGHTS).
 *
 * What arrives is not trusted. The kernel installs descriptors before anybody has looked at them, so the control buffer
 * has room for the most that one message can carry, everything that came is seen, and what is too much is closed. */
#include <os/hook.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST_SENT 16u    /* descriptors a message of ours carries at most */
#define MOST_COMING 253u /* SCM_MAX_FD */
#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif

int64_t os_send(int socket, const void *buf, size_t bytes, int flags)
{
	OS_ASK(OS_SEND);
	int64_t result;
	do {
		result = os_result(send(socket, buf, bytes, flags | MSG_NOSIGNAL));
	} while (result == -EINTR);
	return result;
}

int64_t os_recv(int socket, void *buf, size_t bytes, int flags)
{
	OS_ASK(OS_RECV);
	int64_t result;
	do {
		result = os_result(recv(socket, buf, bytes, flags));
	} while (result == -EINTR);
	return result;
}

int64_t os_send_fds(int socket, const void *msg, size_t bytes, const int *fds, unsigned count)
{
	OS_ASK(OS_SEND);
	/* Without a byte of payload a stream socket drops the descriptors. */
	if (!bytes || count > MOST_SENT) return -EINVAL;
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(MOST_SENT * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (void *)msg, .iov_len = bytes};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	if (count) {
		memset(&control, 0, sizeof control);
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
	}
	int64_t result;
	do {
		result = os_result(sendmsg(socket, &header, MSG_NOSIGNAL));
	} while (result == -EINTR);
	return result;
}

int64_t os_recv_fds(int socket, void *msg, size_t bytes, int *fds, unsigned max, unsigned *count)
{
	*count = 0;
	OS_ASK(OS_RECV);
	if (!bytes) return -EINVAL;
	union {
		struct cmsghdr align;
		/* Credentials, time stamps and the like may come too when the application switched them on. */
		char space[CMSG_SPACE(MOST_COMING * sizeof(int)) + 1024];
	} control;
	struct iovec iov = {.iov_base = msg, .iov_len = bytes};
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof control,
	};
	int64_t result;
	do {
		result = os_result(recvmsg(socket, &header, MSG_CMSG_CLOEXEC));
	} while (result == -EINTR);
	if (result < 0) return result;

	bool bad = header.msg_flags & (MSG_CTRUNC | MSG_TRUNC);
	unsigned got = 0;
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header); cmsg; cmsg = CMSG_NXTHDR(&header, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET || (cmsg->cmsg_type != SCM_RIGHTS && cmsg->cmsg_type != SCM_PIDFD)) continue;
		size_t here = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < here; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
			if (fd < 0) continue;
			if (cmsg->cmsg_type == SCM_RIGHTS && got < max) {
				fds[got++] = fd;
			} else {
				close(fd);
				bad |= cmsg->cmsg_type == SCM_RIGHTS;
			}
		}
	}
	if (bad) {
		for (unsigned i = 0; i < got; i++) close(fds[i]);
		return -EPROTO;
	}
	*count = got;
	return result;
}
