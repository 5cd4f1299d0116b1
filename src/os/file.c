/* Files: memfds with their seals and holes, descriptors, byte locks.
 *
 * Byte locks are those of open file descriptions (F_OFD_*): they end with the last descriptor and mapping of the
 * description, not with the first close by anybody in the process, as POSIX locks do. */
#include <fcntl.h>
#include <linux/magic.h>
#include <os/hook.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* Linux 6.3 */
#endif
#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

int os_memfd_create(const char *name, unsigned huge_shift, int *fd)
{
	int64_t result;
	*fd = -1;
	if (!os_answered(OS_MEMFD_CREATE, &result)) {
		unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
		if (huge_shift) flags |= MFD_HUGETLB | huge_shift << MFD_HUGE_SHIFT;
		result = os_result(memfd_create(name, flags | MFD_NOEXEC_SEAL));
		if (result == -EINVAL) result = os_result(memfd_create(name, flags));
	}
	if (result < 0) return result;
	*fd = result;
	return 0;
}

int os_ftruncate(int fd, uint64_t size)
{
	OS_ASK(OS_FTRUNCATE);
	if (size > INT64_MAX) return -EFBIG;
	int64_t result;
	do {
		result = os_result(ftruncate(fd, size));
	} while (result == -EINTR);
	return result;
}

static int allocate(int fd, int mode, uint64_t from, uint64_t bytes)
{
	if (from > INT64_MAX || bytes > INT64_MAX - from) return -EFBIG;
	int64_t result;
	do {
		result = os_result(fallocate(fd, mode, from, bytes));
	} while (result == -EINTR);
	return result;
}

int os_punch(int fd, uint64_t from, uint64_t bytes)
{
	OS_ASK(OS_PUNCH);
	return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, bytes);
}

int os_allocate(int fd, uint64_t from, uint64_t bytes)
{
	OS_ASK(OS_ALLOCATE);
	return allocate(fd, 0, from, bytes);
}

int os_seal(int fd, int seals)
{
	OS_ASK(OS_SEAL);
	return os_result(fcntl(fd, F_ADD_SEALS, seals));
}

int os_seals(int fd)
{
	OS_ASK(OS_SEALS);
	return os_result(fcntl(fd, F_GET_SEALS));
}

int os_fchmod(int fd, mode_t mode)
{
	OS_ASK(OS_FCHMOD);
	return os_result(fchmod(fd, mode));
}

int os_fstat(int fd, struct stat *st)
{
	OS_ASK(OS_FSTAT);
	return os_result(fstat(fd, st));
}

int64_t os_block_size(int fd)
{
	OS_ASK(OS_BLOCK_SIZE);
	struct statfs fs;
	int64_t result;
	do {
		result = os_result(fstatfs(fd, &fs));
	} while (result == -EINTR);
	if (result < 0) return result;
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC) return -EINVAL;
	return fs.f_bsize;
}

static int64_t open_retried(const char *path, int flags)
{
	int64_t result;
	do {
		result = os_result(open(path, flags | O_CLOEXEC, 0600));
	} while (result == -EINTR);
	return result;
}

int os_open(const char *path, int flags)
{
	OS_ASK(OS_OPEN);
	return open_retried(path, flags);
}

int os_reopen(int fd, int flags)
{
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return os_open(path, flags);
}

int os_close(int fd)
{
	int64_t answer, result = 0;
	bool answered = os_answered(OS_CLOSE, &answer);
	/* Not retried: after EINTR the descriptor is gone, and its number may be somebody else's. */
	if (close(fd) < 0 && errno != EINTR) result = -errno;
	return answered ? answer : result;
}

int os_dup(int fd)
{
	OS_ASK(OS_DUP);
	return os_result(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

int os_cloexec(int fd, bool on)
{
	OS_ASK(OS_CLOEXEC);
	return os_result(fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0));
}

int os_event(void)
{
	OS_ASK(OS_EVENT);
	return os_result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

int os_event_signal(int fd)
{
	OS_ASK(OS_EVENT);
	uint64_t one = 1;
	int64_t result;
	do {
		result = os_result(write(fd, &one, sizeof one));
	} while (result == -EINTR);
	return result < 0 ? result : 0;
}

int64_t os_pread(int fd, void *buf, size_t bytes, uint64_t at)
{
	OS_ASK(OS_PREAD);
	if (at > INT64_MAX) return -EINVAL;
	int64_t result;
	do {
		result = os_result(pread(fd, buf, bytes, at));
	} while (result == -EINTR);
	return result;
}

int64_t os_read(int fd, void *buf, size_t bytes)
{
	OS_ASK(OS_READ);
	int64_t result;
	do {
		result = os_result(read(fd, buf, bytes));
	} while (result == -EINTR);
	return result;
}

int64_t os_write(int fd, const void *buf, size_t bytes)
{
	OS_ASK(OS_WRITE);
	int64_t result;
	do {
		result = os_result(write(fd, buf, bytes));
	} while (result == -EINTR);
	return result;
}

int64_t os_read_file(const char *path, char *buf, size_t size)
{
	if (!size) return -EINVAL;
	buf[0] = 0;
	OS_ASK(OS_READ_FILE);
	int64_t fd = open_retried(path, O_RDONLY);
	if (fd < 0) return fd;
	size_t length = 0;
	int64_t result;
	for (;;) {
		result = os_result(read(fd, buf + length, size - length));
		if (result == -EINTR) continue;
		if (result <= 0) break;
		length += result;
		if (length == size) {
			result = -EFBIG;
			break;
		}
	}
	close(fd);
	if (result < 0) {
		buf[0] = 0;
		return result;
	}
	if (length && buf[length - 1] == '\n') length--;
	buf[length] = 0;
	return length;
}

static int64_t byte_command(int fd, int command, struct flock *lock, uint64_t byte, short type)
{
	if (byte > INT64_MAX - 1) return -EINVAL;
	*lock = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	int64_t result;
	do {
		result = os_result(fcntl(fd, command, lock));
	} while (result == -EINTR);
	return result == -EACCES ? -EAGAIN : result;
}

int os_byte_lock(int fd, uint64_t byte)
{
	OS_ASK(OS_BYTE_LOCK);
	struct flock lock;
	return byte_command(fd, F_OFD_SETLK, &lock, byte, F_WRLCK);
}

int os_byte_unlock(int fd, uint64_t byte)
{
	OS_ASK(OS_BYTE_LOCK);
	struct flock lock;
	return byte_command(fd, F_OFD_SETLK, &lock, byte, F_UNLCK);
}

int os_byte_held(int fd, uint64_t byte)
{
	OS_ASK(OS_BYTE_HELD);
	struct flock lock;
	int64_t result = byte_command(fd, F_OFD_GETLK, &lock, byte, F_WRLCK);
	return result < 0 ? result : lock.l_type != F_UNLCK;
}
