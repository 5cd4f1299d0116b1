/* Memory of buffers' own: pages, aligned memory, mapped files, zeroing.
 *
 * Catches: lengths cut to 32 bits, a hint that is ignored, a position that is rounded wrongly, private writes that reach the
 * file or shared ones that do not, a file that another process makes longer meanwhile and we cut, a hole that ends in SIGBUS
 * on a full disk, a failure that leaves a mapping or a descriptor, an unmapping that failed and was forgotten, zeroing that
 * un-shares, shows the file's bytes again, or takes away the right to execute. */
#include <hugepool/buf.h>

#include <os/os.h>
#include <sched.h>
#include <sys/mount.h>

#include "hp_process.h"

static size_t page;

static void must_be_none(hp_buf buf)
{
	must(!buf.start && !buf.len && !buf.pool && !buf.owner && !buf.whole);
}

static bool all_are(const char *from, size_t len, char value)
{
	for (size_t i = 0; i < len; i++)
		if (from[i] != value) return false;
	return true;
}

/* A file of `size` bytes: byte i is byte_at(i). */
static char byte_at(uint64_t i)
{
	return (char)(i * 31 + i / 251 + 1);
}

static int file_of(uint64_t size)
{
	int fd = memfd_create("buf_test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(fd >= 0);
	for (uint64_t i = 0; i < size; i++) {
		char byte = byte_at(i);
		must_be(pwrite(fd, &byte, 1, (off_t)i), 1);
	}
	return fd;
}

static uint64_t size_of(int fd)
{
	struct stat st;
	must_be(fstat(fd, &st), 0);
	return (uint64_t)st.st_size;
}

static uint64_t held_by(int fd)
{
	struct stat st;
	must_be(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static int open_again(int fd, int flags)
{
	char path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int again = open(path, flags | O_CLOEXEC);
	must(again >= 0);
	return again;
}

/* An address where there is nothing, and where the kernel puts nothing by itself: amid a large gap. */
static char *free_place(size_t bytes)
{
	hp_buf buf;
	must_be(hp_buf_alloc_pages(NULL, 64 * MIB + bytes, HP_BUF_LAZY, &buf), 0);
	char *place = buf.start + 16 * MIB;
	must_be(hp_buf_unmap(&buf), 0);
	return place;
}

#ifdef __SANITIZE_THREAD__
#define HINTS false /* its mmap takes none */
#else
#define HINTS true
#endif

/* ---- pages and aligned memory ---- */

static void pages(void **state)
{
	(void)state;
	struct held before = held_now();
	hp_buf buf, at;
	must_be(page & (page - 1), 0);
	must_be(page, getpagesize());
	static const size_t sizes[] = {1, 4095, 4096, 4097, 100000};
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		must_be(hp_buf_alloc_pages(NULL, sizes[i], 0, &buf), 0);
		must_be(buf.len, (sizes[i] + page - 1) / page * page);
		must_be((uintptr_t)buf.start % page, 0);
		must(!buf.pool && buf.whole);
		must(all_are(buf.start, buf.len, 0));
		memset(buf.start, 1, buf.len);
		must_be(hp_buf_unmap(&buf), 0);
		char *hint = free_place(sizes[i]);
		must_be(hp_buf_alloc_pages(hint, sizes[i], 0, &at), 0);
		if (HINTS) must(at.start == hint);
		must(all_are(at.start, at.len, 0));
		must_be(hp_buf_alloc_pages(at.start, sizes[i], 0, &buf), 0); /* taken: elsewhere */
		must(buf.start != at.start);
		must_be(hp_buf_unmap(&buf), 0);
		must_be(hp_buf_unmap(&at), 0);
	}
	must_be(hp_buf_alloc_pages(NULL, 0, 0, &buf), -EINVAL);
	must_be_none(buf);
	must_be(hp_buf_alloc_pages(NULL, 1, HP_BUF_SHARED, &buf), -EINVAL);
	must_be(hp_buf_alloc_pages(NULL, 1, 1u << 31, &buf), -EINVAL);
	must_be(hp_buf_alloc_pages(NULL, 1, 0, NULL), -EINVAL);
	must_be(hp_buf_alloc_pages(NULL, SIZE_MAX, HP_BUF_LAZY, &buf), -ENOMEM);
	must_be(hp_buf_alloc_pages(NULL, SIZE_MAX - page + 1, HP_BUF_LAZY, &buf), -ENOMEM);
	must_be(hp_buf_alloc_pages(NULL, SIZE_MAX / 2, HP_BUF_LAZY, &buf), -ENOMEM);
	must_be_none(buf);
	must_hold_no_more(before);
}

static void more_than_four_gigabytes(void **state)
{
	(void)state;
	hp_buf buf, sub;
	size_t size = ((size_t)5 << 30) + 3 * page;
	int error = hp_buf_alloc_pages(NULL, size, HP_BUF_LAZY, &buf);
	if (error == -ENOMEM) hp_test_skip_one("no address space for 5 GiB");
	must_be(error, 0);
	must_be(buf.len, size);
	must_be(hp_buf_blit_from_bytes(buf, size - 5, "last!", 5), 0);
	must_be(hp_buf_blit_from_bytes(buf, size - 4, "last!", 5), -EINVAL);
	must_be(hp_buf_sub(buf, (size_t)1 << 32, size - ((size_t)1 << 32), &sub), 0);
	must_be(sub.start[sub.len - 1], '!');
	must_be(sub.start[0], 0);
	must_be(hp_buf_blit(buf, size - 5, buf, 0, 5), 0);
	must_be(memcmp(buf.start, "last!", 5), 0);
	must_be(hp_buf_zero_pages(sub, 0, sub.len), 0);
	must_be(buf.start[size - 1], 0);
	must_be(buf.start[0], 'l');
	must_be(hp_buf_drop(&sub), 0);
	must_be(hp_buf_unmap(&buf), 0);
}

#if defined(__x86_64__)
static const unsigned char return_42[] = {0xb8, 42, 0, 0, 0, 0xc3};
#elif defined(__aarch64__)
static const unsigned char return_42[] = {0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6};
#else
static const unsigned char return_42[] = {0};
#endif

static void code_in_pages_can_be_run_also_after_zeroing(void **state)
{
	(void)state;
	hp_buf buf;
	if (sizeof return_42 == 1) hp_test_skip_one("no code for this machine");
	int error = hp_buf_alloc_pages(NULL, 2 * page, HP_BUF_EXEC, &buf);
	if (error == -EACCES || error == -EPERM) hp_test_skip_one("no memory here may be written and executed");
	must_be(error, 0);
	for (unsigned round = 0; round < 2; round++) {
		must_be(hp_buf_blit_from_bytes(buf, page, return_42, sizeof return_42), 0);
		__builtin___clear_cache(buf.start + page, buf.start + page + sizeof return_42);
		int (*function)(void);
		void *at = buf.start + page;
		memcpy(&function, &at, sizeof at);
		must_be(function(), 42);
		must_be(hp_buf_zero_pages(buf, page, page), 0);
		must(all_are(buf.start, buf.len, 0));
	}
	must_be(hp_buf_unmap(&buf), 0);
}

static void aligned_memory(void **state)
{
	(void)state;
	hp_buf buf;
	for (size_t align = 8; align <= 2 * MIB; align *= 2)
		for (size_t size = 1; size < 100000; size = size * 7 + 3) {
			must_be(hp_buf_alloc_aligned(align, size, &buf), 0);
			must_be((uintptr_t)buf.start % align, 0);
			must_be(buf.len, size);
			memset(buf.start, 1, size);
			must_be(hp_buf_unmap(&buf), 0);
			must_be_none(buf);
		}
#if !HP_TEST_SANITIZER /* its malloc ends the process for them */
	static const size_t bad[] = {0, 1, 2, 4, 7, 9, 24, 100, SIZE_MAX};
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		must_be(hp_buf_alloc_aligned(bad[i], 10, &buf), -EINVAL);
		must_be_none(buf);
	}
	volatile size_t most = SIZE_MAX;
	must_be(hp_buf_alloc_aligned(64, most - 1000, &buf), -ENOMEM);
	must_be_none(buf);
#endif
	must_be(hp_buf_alloc_aligned(64, 0, &buf), -EINVAL);
	must_be(hp_buf_alloc_aligned(64, 1, NULL), -EINVAL);
}

/* ---- files ---- */

static void any_position_of_a_file(void **state)
{
	(void)state;
	struct held before = held_now();
	uint64_t size = 3 * page + 100;
	int fd = file_of(size);
	const uint64_t positions[] = {0, 1, 100, page - 1, page, page + 1, 2 * page + 7, 3 * page, 3 * page + 99};
	for (unsigned i = 0; i < sizeof positions / sizeof *positions; i++) {
		uint64_t pos = positions[i];
		for (unsigned flags = 0; flags < 16; flags += 4) { /* shared or not, sparse or not */
			for (uint64_t len = 1; pos + len <= size; len = len < 5 ? len + 1 : len * 3) {
				hp_buf buf;
				must_be(hp_buf_map_file(fd, pos, len, NULL, flags, &buf), 0);
				must_be(buf.len, len);
				must_be((uintptr_t)buf.start % page, pos % page);
				for (uint64_t k = 0; k < len; k++) must_be(buf.start[k], byte_at(pos + k));
				char byte = (char)~byte_at(pos + len - 1), got;
				must_be(hp_buf_blit_from_bytes(buf, len - 1, &byte, 1), 0);
				must_be(pread(fd, &got, 1, (off_t)(pos + len - 1)), 1);
				must_be(got, flags & HP_BUF_SHARED ? byte : (char)~byte);
				byte = (char)~byte;
				must_be(hp_buf_blit_from_bytes(buf, len - 1, &byte, 1), 0);
				must_be(hp_buf_unmap(&buf), 0);
			}
			hp_buf end;
			must_be(hp_buf_map_file(fd, pos, HP_BUF_TO_END, NULL, flags, &end), 0);
			must_be(end.len, size - pos);
			must_be(end.start[end.len - 1], byte_at(size - 1));
			must_be(hp_buf_unmap(&end), 0);
		}
	}
	must_be(size_of(fd), size);
	hp_buf buf, other;
	must_be(hp_buf_map_file(fd, 1, (uint64_t)-1, NULL, HP_BUF_SHARED, &buf), 0);
	must_be(hp_buf_map_file(fd, page + 5, 10, buf.start, HP_BUF_SHARED, &other), 0); /* the place is taken */
	must(other.start != buf.start);
	must_be(hp_buf_blit_from_string(other, 0, "shared"), 6);
	must_be(memcmp(buf.start + page + 4, "shared", 6), 0);
	must_be(close(fd), 0); /* not needed any more */
	must_be(memcmp(other.start, "shared", 6), 0);
	must_be(hp_buf_unmap(&other), 0);
	must_be(hp_buf_unmap(&buf), 0);
	fd = file_of(10);
	char *hint = free_place(page);
	must_be(hp_buf_map_file(fd, 3, 4, hint, 0, &buf), 0);
	if (HINTS) must(buf.start == hint + 3);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(close(fd), 0);
	must_hold_no_more(before);
}

static void a_short_file_grows(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < 16; flags += 4) {
		int fd = file_of(10);
		hp_buf buf;
		must_be(hp_buf_map_file(fd, 5, 6, NULL, flags, &buf), 0); /* by one */
		must_be(size_of(fd), 11);
		must_be(buf.start[4], byte_at(9));
		must_be(buf.start[5], 0);
		must_be(hp_buf_unmap(&buf), 0);
		must_be(hp_buf_map_file(fd, 5 * page + 1, 3 * page, NULL, flags, &buf), 0); /* begins behind its end */
		must_be(size_of(fd), 8 * page + 1);
		must(all_are(buf.start, buf.len, 0));
		memset(buf.start, 7, buf.len);
		char got;
		must_be(pread(fd, &got, 1, (off_t)(8 * page)), 1);
		must_be(got, flags & HP_BUF_SHARED ? 7 : 0);
		must_be(hp_buf_unmap(&buf), 0);
		must_be(hp_buf_map_file(fd, 0, 1, NULL, flags, &buf), 0);
		must_be(size_of(fd), 8 * page + 1); /* never becomes shorter */
		must_be(hp_buf_unmap(&buf), 0);
		must_be(close(fd), 0);
	}
	int fd = file_of(10);
	hp_buf buf;
	uint64_t far = (UINT64_C(5) << 30) + 3;
	must_be(hp_buf_map_file(fd, far, 100, NULL, HP_BUF_SHARED | HP_BUF_SPARSE, &buf), 0);
	must_be(size_of(fd), far + 100);
	must_be(hp_buf_blit_from_string(buf, 0, "far"), 3);
	char got[3];
	must_be(pread(fd, got, 3, (off_t)far), 3);
	must_be(memcmp(got, "far", 3), 0);
	must_be(hp_buf_unmap(&buf), 0);
	if (hp_buf_map_file(fd, 0, HP_BUF_TO_END, NULL, 0, &buf) == 0) { /* where there is room for so much */
		must_be(buf.len, far + 100);
		must_be(memcmp(buf.start + far, "far", 3), 0);
		must_be(hp_buf_unmap(&buf), 0);
	}
	must_be(close(fd), 0);
}

/* Another process makes the file longer between our look at its size and our call: nothing of it is cut off. */
static int raced_fd;
static uint64_t raced_size;
static bool refuse_allocate;

static bool somebody_grows_it(enum os_call call, int64_t *result)
{
	if (call != OS_ALLOCATE) return false;
	if (raced_size) must_be(ftruncate(raced_fd, (off_t)raced_size), 0);
	*result = -EOPNOTSUPP;
	return refuse_allocate;
}

static void growing_never_cuts_what_others_append(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < 16; flags += 4) {
		hp_buf buf;
		raced_fd = file_of(10);
		raced_size = 5 * page;
		os_hook = somebody_grows_it;
		must_be(hp_buf_map_file(raced_fd, 0, 2 * page, NULL, flags, &buf), 0);
		os_hook = NULL;
		must_be(size_of(raced_fd), 5 * page);
		must_be(hp_buf_unmap(&buf), 0);
		must_be(close(raced_fd), 0);

		/* a file system without fallocate: grows all the same, and where there is nothing to grow nothing is done */
		raced_fd = file_of(10);
		raced_size = 0;
		refuse_allocate = true;
		os_hook = somebody_grows_it;
		must_be(hp_buf_map_file(raced_fd, 5, 2 * page, NULL, flags, &buf), 0);
		must_be(size_of(raced_fd), 2 * page + 5);
		buf.start[buf.len - 1] = 1;
		must_be(hp_buf_unmap(&buf), 0);
		must_be(hp_buf_map_file(raced_fd, 5, 10, NULL, flags, &buf), 0);
		must_be(size_of(raced_fd), 2 * page + 5);
		must_be(hp_buf_unmap(&buf), 0);
		int reader = open_again(raced_fd, O_RDONLY);
		must_be(hp_buf_map_file(reader, 0, 3 * page, NULL, flags, &buf), -EACCES);
		os_hook = NULL;
		refuse_allocate = false;
		must_be(size_of(raced_fd), 2 * page + 5);
		must_be(close(reader), 0);
		must_be(close(raced_fd), 0);
	}
}

static void shared_ranges_have_their_place_on_the_disk(void **state)
{
	(void)state;
	hp_buf buf;
	int fd = file_of(0);
	must_be(ftruncate(fd, (off_t)(64 * page)), 0);
	must_be(hp_buf_map_file(fd, 0, HP_BUF_TO_END, NULL, HP_BUF_SHARED | HP_BUF_SPARSE, &buf), 0);
	must_be(held_by(fd), 0);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(hp_buf_map_file(fd, 0, HP_BUF_TO_END, NULL, 0, &buf), 0);
	must_be(held_by(fd), 0);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(hp_buf_map_file(fd, 10 * page, 5 * page, NULL, HP_BUF_SHARED, &buf), 0);
	must_be(held_by(fd), 5 * page);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(hp_buf_map_file(fd, 100 * page - 1, 1, NULL, HP_BUF_SPARSE, &buf), 0); /* grows by one page */
	must(held_by(fd) <= 6 * page);
	must_be(size_of(fd), 100 * page);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(close(fd), 0);
}

/* A disk of 1 MiB, in a namespace of the child's own. */
static int on_a_small_disk(void *arg)
{
	(void)arg;
	char folder[] = "/tmp/buf_test_XXXXXX";
	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) return 77;
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !mkdtemp(folder)) return 77;
	if (mount("buf_test", folder, "tmpfs", 0, "size=1m") < 0) {
		rmdir(folder);
		return 77;
	}
	char path[sizeof folder + 5];
	snprintf(path, sizeof path, "%s/file", folder);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0);
	hp_buf buf;
	must_be(hp_buf_map_file(fd, 0, 4 * MIB, NULL, HP_BUF_SHARED, &buf), -ENOSPC);
	must_be_none(buf);
	must_be(ftruncate(fd, 4 * MIB), 0);
	must_be(hp_buf_map_file(fd, 0, HP_BUF_TO_END, NULL, HP_BUF_SHARED, &buf), -ENOSPC);
	must_be(hp_buf_map_file(fd, MIB, 512 * 1024, NULL, HP_BUF_SHARED, &buf), 0);
	/* somebody else fills the disk */
	snprintf(path, sizeof path, "%s/else", folder);
	int other = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(other >= 0);
	while (write(other, &(char[4096]){0}, 4096) > 0) {}
	must_be(errno, ENOSPC);
	memset(buf.start, 1, buf.len); /* and what we were given can be written all the same */
	must_be(hp_buf_unmap(&buf), 0);
	must_be(umount2(folder, MNT_DETACH), 0);
	must_be(rmdir(folder), 0);
	return 0;
}

static void a_full_disk_is_an_error_and_no_signal(void **state)
{
	(void)state;
	int status = hp_test_child(on_a_small_disk, NULL);
	if (status == 77) hp_test_skip_one("no file system can be mounted here, not in a namespace either");
	must_be(status, 0);
}

static int touches_what_is_gone(void *arg)
{
	hp_buf buf = *(hp_buf *)arg;
	signal(SIGBUS, SIG_DFL);
	return ((volatile char *)buf.start)[page];
}

/* What the header says of truncation: SIGBUS, and of system calls EFAULT; a sealed memfd has no such end. */
static void what_truncation_does(void **state)
{
	(void)state;
	int fd = file_of(2 * page), pipes[2];
	hp_buf buf;
	must_be(hp_buf_map_file(fd, 0, 2 * page, NULL, HP_BUF_SHARED, &buf), 0);
	must_be(ftruncate(fd, (off_t)page), 0);
	must_be(buf.start[page - 1], byte_at(page - 1));
	if (!HP_TEST_SANITIZER) must_be(hp_test_child(touches_what_is_gone, &buf), 128 + SIGBUS);
	must_be(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	must_be(hp_buf_write(pipes[1], buf, page, 10), -EFAULT);
	must_be(close(pipes[0]), 0);
	must_be(close(pipes[1]), 0);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	must_be(hp_buf_map_file(fd, 0, 3 * page, NULL, HP_BUF_SHARED, &buf), 0);
	must_be(ftruncate(fd, (off_t)page), -1);
	must_be(errno, EPERM);
	memset(buf.start, 1, buf.len);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(close(fd), 0);
}

static void what_cannot_be_mapped(void **state)
{
	(void)state;
	struct held before = held_now();
	int fd = file_of(100), pipes[2], folder = open("/proc", O_RDONLY | O_CLOEXEC),
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
	hp_buf buf;
	must_be(pipe2(pipes, O_CLOEXEC), 0);
	for (unsigned shared = 0; shared <= HP_BUF_SHARED; shared += HP_BUF_SHARED) {
#define REFUSED(error, ...) \
	do { \
		buf = hp_buf_of("x", 1); \
		must_be(hp_buf_map_file(__VA_ARGS__, &buf), error); \
		must_be_none(buf); \
		must_be(size_of(fd), 100); \
	} while (0)
		REFUSED(-EINVAL, fd, 0, 0, NULL, shared);
		REFUSED(-EINVAL, fd, 0, 1, NULL, shared | HP_BUF_EXEC);
		REFUSED(-EINVAL, fd, 0, 1, NULL, shared | 1u << 31);
		REFUSED(-EINVAL, fd, UINT64_MAX, 1, NULL, shared);
		REFUSED(-EINVAL, fd, (uint64_t)INT64_MAX + 1, 1, NULL, shared);
		REFUSED(-EINVAL, fd, INT64_MAX, 1, NULL, shared);
		REFUSED(-EINVAL, fd, 1, INT64_MAX, NULL, shared);
		REFUSED(-EINVAL, fd, 1, UINT64_MAX - 1, NULL, shared);
		REFUSED(-EINVAL, fd, INT64_MAX, INT64_MAX, NULL, shared);
		REFUSED(-ENODATA, fd, 100, HP_BUF_TO_END, NULL, shared);
		REFUSED(-ENODATA, fd, INT64_MAX, HP_BUF_TO_END, NULL, shared);
		REFUSED(-EBADF, -1, 0, 1, NULL, shared);
		REFUSED(-ENODEV, pipes[0], 0, 1, NULL, shared);
		REFUSED(-ENODEV, folder, 0, 1, NULL, shared);
		REFUSED(-ENODEV, null, 0, 1, NULL, shared);
	}
	must_be(hp_buf_map_file(fd, 0, 1, NULL, 0, NULL), -EINVAL);
	int reader = open_again(fd, O_RDONLY), writer = open_again(fd, O_WRONLY);
	REFUSED(-EACCES, reader, 0, 1, NULL, HP_BUF_SHARED);
	REFUSED(-EACCES, reader, 0, 1, NULL, HP_BUF_SHARED | HP_BUF_SPARSE);
	REFUSED(-EACCES, reader, 0, 101, NULL, 0);
	REFUSED(-EACCES, writer, 0, 1, NULL, 0);
	must_be(hp_buf_map_file(reader, 0, 100, NULL, 0, &buf), 0); /* a copy needs no right to write */
	memset(buf.start, 0, 100);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	REFUSED(-EPERM, fd, 0, 101, NULL, 0);
	REFUSED(-EPERM, fd, 0, 101, NULL, HP_BUF_SHARED);
	must_be(hp_buf_map_file(fd, 0, 100, NULL, HP_BUF_SHARED, &buf), 0);
	must_be(buf.start[99], byte_at(99));
	must_be(hp_buf_unmap(&buf), 0);
	must_be(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	REFUSED(-EPERM, fd, 0, 100, NULL, HP_BUF_SHARED);
	int files[] = {fd, pipes[0], pipes[1], folder, null, reader, writer};
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++) must_be(close(files[i]), 0);
	must_hold_no_more(before);
}

static void files_on_huge_pages(void **state)
{
	(void)state;
	size_t huge = 2 * MIB;
	if (!hp_test_has_huge(HP_HUGE_2M, 4)) hp_test_skip_one("no 4 free huge pages of 2 MiB");
	int fd = memfd_create("buf_test", MFD_CLOEXEC | MFD_HUGETLB | 21u << 26);
	if (fd < 0) hp_test_skip_one("no memfd on huge pages");
	hp_buf buf, end;
	must_be(hp_buf_map_file(fd, huge + 100, 10, NULL, HP_BUF_SHARED, &buf), 0);
	must_be(size_of(fd), 2 * huge);
	must_be(buf.len, 10);
	must_be((uintptr_t)buf.start % huge, 100);
	memcpy(buf.start, "0123456789", 10);
	must_be(hp_buf_map_file(fd, huge + 109, HP_BUF_TO_END, NULL, HP_BUF_SHARED, &end), 0);
	must_be(end.len, huge - 109);
	must_be(end.start[0], '9');
	must_be(end.start[end.len - 1], 0);
	must_be(hp_buf_unmap(&end), 0);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(close(fd), 0);
}

/* ---- failures ---- */

static unsigned calls, failing;

static bool fails_once(enum os_call call, int64_t *result)
{
	*result = call == OS_MAP ? -ENOMEM : -EIO;
	return calls++ == failing && call != OS_BLOCK_SIZE; /* of which a failure is an answer */
}

static void whatever_fails_leaves_nothing(void **state)
{
	(void)state;
	hp_buf warm; /* the owner's own memory */
	must_be(hp_buf_alloc_pages(NULL, 1, 0, &warm), 0);
	must_be(hp_buf_unmap(&warm), 0);
	int fd = file_of(10);
	struct held before = held_now();
	for (unsigned kind = 0; kind < 3; kind++) {
		unsigned failed = 0;
		for (failing = 0;; failing++) {
			hp_buf buf = hp_buf_of("x", 1);
			calls = 0;
			os_hook = fails_once;
			int error = kind == 0 ? hp_buf_alloc_pages(NULL, 10, 0, &buf)
			                      : hp_buf_map_file(fd, 3, 10 * page, NULL, kind == 1 ? HP_BUF_SHARED : 0, &buf);
			os_hook = NULL;
			if (error == 0) {
				must_be(hp_buf_unmap(&buf), 0);
				if (calls <= failing) break;
				continue;
			}
			must(error == -EIO || error == -ENOMEM);
			must_be_none(buf);
			failed++;
		}
		must(failed >= (kind == 0 ? 1 : 2));
		must_hold_no_more(before);
	}
	must_be(close(fd), 0);
}

static bool unmap_fails(enum os_call call, int64_t *result)
{
	*result = -ENOMEM;
	return call == OS_UNMAP;
}

static void an_unmapping_that_failed_can_be_repeated(void **state)
{
	(void)state;
	hp_buf buf, sub;
	must_be(hp_buf_alloc_pages(NULL, 1, 0, &buf), 0);
	os_hook = unmap_fails;
	must_be(hp_buf_unmap(&buf), -ENOMEM);
	os_hook = NULL;
	must_be(hp_buf_blit_from_string(buf, 0, "there"), 5);
	must_be(hp_buf_sub(buf, 0, 5, &sub), 0);
	must_be(hp_buf_unmap(&buf), -EBUSY);
	must_be(hp_buf_drop(&sub), 0);
	must_be(hp_buf_unmap(&buf), 0);
}

static int unmaps_its_copy(void *arg)
{
	hp_buf *buf = arg;
	must_be(buf[0].start[0], 'p');
	must_be(hp_buf_unmap(&buf[0]), -EBUSY);
	must_be(hp_buf_drop(&buf[1]), 0);
	must_be(hp_buf_unmap(&buf[0]), 0);
	return 0;
}

static void a_forked_child_has_a_copy(void **state)
{
	(void)state;
	hp_buf buf[2];
	must_be(hp_buf_alloc_pages(NULL, 1, 0, &buf[0]), 0);
	must_be(hp_buf_blit_from_string(buf[0], 0, "parent"), 6);
	must_be(hp_buf_sub(buf[0], 0, 6, &buf[1]), 0);
	must_be(hp_test_child(unmaps_its_copy, buf), 0);
	must_be(hp_buf_unmap(&buf[0]), -EBUSY);
	must_be(memcmp(buf[1].start, "parent", 6), 0);
	must_be(hp_buf_drop(&buf[1]), 0);
	must_be(hp_buf_unmap(&buf[0]), 0);
}

/* ---- zeroing ---- */

/* Pages 1 and 2 of four become zero, and the others stay. */
static void zero_the_middle(hp_buf buf)
{
	memset(buf.start, 9, 4 * page);
	must_be(hp_buf_zero_pages(buf, page, 2 * page), 0);
	must(all_are(buf.start, page, 9));
	must(all_are(buf.start + page, 2 * page, 0));
	must(all_are(buf.start + 3 * page, page, 9));
	must_be(hp_buf_zero_pages(buf, page + 1, page), -EINVAL);
	must_be(hp_buf_zero_pages(buf, page, page - 1), -EINVAL);
	must_be(hp_buf_zero_pages(buf, 4 * page, page), -EINVAL);
	must_be(hp_buf_zero_pages(buf, 3 * page, 2 * page), -EINVAL);
	must_be(hp_buf_zero_pages(buf, page, SIZE_MAX - page + 1), -EINVAL);
	must_be(hp_buf_zero_pages(buf, 4 * page, 0), 0);
	must(all_are(buf.start + 3 * page, page, 9));
}

static int must_be_zero_here(void *arg)
{
	char *memory = arg;
	must(all_are(memory + page, 2 * page, 0));
	memory[page] = 5;
	return 0;
}

static bool advice_fails(enum os_call call, int64_t *result)
{
	*result = -EINVAL; /* as for locked memory */
	return call == OS_ADVISE;
}

static void zeroing_keeps_memory_what_it_is(void **state)
{
	(void)state;
	hp_buf buf, other, sub;
	must_be(hp_buf_alloc_pages(NULL, 4 * page, 0, &buf), 0);
	memset(buf.start, 9, 4 * page);
	must_be(hp_buf_zero_pages(buf, page, 2 * page), 0);
	unsigned char there[4];
	must_be(mincore(buf.start, 4 * page, there), 0);
	must((there[0] & 1) && !(there[1] & 1) && !(there[2] & 1) && (there[3] & 1)); /* given back */
	zero_the_middle(buf);
	must_be(hp_buf_sub(buf, page, 2 * page, &sub), 0);
	memset(sub.start, 3, sub.len);
	must_be(hp_buf_zero_pages(sub, page, page), 0);
	must(all_are(sub.start, page, 3));
	must(all_are(sub.start + page, page, 0));
	must_be(hp_buf_drop(&sub), 0);
	os_hook = advice_fails;
	zero_the_middle(buf);
	os_hook = NULL;
	must_be(hp_buf_unmap(&buf), 0);

	/* a file's bytes become zero where it is shared, and stay where it is not */
	int fd = file_of(4 * page);
	must_be(hp_buf_map_file(fd, 0, HP_BUF_TO_END, NULL, HP_BUF_SHARED, &buf), 0);
	must_be(hp_buf_map_file(fd, 0, HP_BUF_TO_END, NULL, 0, &other), 0);
	zero_the_middle(other);
	must_be(buf.start[page], byte_at(page));
	must_be(hp_buf_unmap(&other), 0);
	must_be(hp_buf_map_file(fd, 0, HP_BUF_TO_END, NULL, HP_BUF_SHARED, &other), 0);
	zero_the_middle(buf);
	must(all_are(other.start + page, 2 * page, 0));
	other.start[page] = 1;
	must_be(buf.start[page], 1);
	must_be(hp_buf_unmap(&other), 0);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(hp_buf_map_file(fd, 1, 2 * page, NULL, HP_BUF_SHARED, &buf), 0);
	must_be(hp_buf_zero_pages(buf, page - 1, page), 0); /* it is the memory that lies at pages, not the view */
	must_be(hp_buf_zero_pages(buf, 0, page), -EINVAL);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(close(fd), 0);

	/* memory of others stays shared */
	char *shared = hp_shared(4 * page);
	zero_the_middle(hp_buf_of(shared, 4 * page));
	must_be(hp_test_child(must_be_zero_here, shared), 0);
	must_be(shared[page], 5);
	must_be(munmap(shared, 4 * page), 0);
}

static void zeroing_in_a_pool(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0), *again = hp_attach_again(pool);
	void *block;
	hp_buf buf, there;
	must_be(hp_page_alloc(pool, 4 * PAGE, 0, &block), 0);
	must_be(hp_buf_grab_block(pool, block, &buf), 0);
	must_be(hp_buf_grab_block(again, hp_pool_pointer(again, hp_pool_offset(pool, block)), &there), 0);
	memset(buf.start, 9, buf.len);
	must_be(hp_buf_zero_pages(buf, PAGE, 2 * PAGE), 0);
	must(all_are(there.start, PAGE, 9));
	must(all_are(there.start + PAGE, 2 * PAGE, 0));
	must(all_are(there.start + 3 * PAGE, PAGE, 9));
	must_be(hp_buf_zero_pages(buf, 1, PAGE), -EINVAL);
	must_be(hp_buf_zero_pages(buf, 0, 5 * PAGE), -EINVAL);
	must_be(hp_buf_blit_from_string(there, PAGE, "still shared"), 12);
	must_be(memcmp(buf.start + PAGE, "still shared", 12), 0);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_buf_zero_pages(buf, 0, PAGE), -ENOENT);
	must_be(hp_pool_detach(again), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

int main(void)
{
	page = hp_buf_page_size();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages),
		cmocka_unit_test(more_than_four_gigabytes),
		cmocka_unit_test(code_in_pages_can_be_run_also_after_zeroing),
		cmocka_unit_test(aligned_memory),
		cmocka_unit_test(any_position_of_a_file),
		cmocka_unit_test(a_short_file_grows),
		cmocka_unit_test(growing_never_cuts_what_others_append),
		cmocka_unit_test(shared_ranges_have_their_place_on_the_disk),
		cmocka_unit_test(a_full_disk_is_an_error_and_no_signal),
		cmocka_unit_test(what_truncation_does),
		cmocka_unit_test(what_cannot_be_mapped),
		cmocka_unit_test(files_on_huge_pages),
		cmocka_unit_test(whatever_fails_leaves_nothing),
		cmocka_unit_test(an_unmapping_that_failed_can_be_repeated),
		cmocka_unit_test(a_forked_child_has_a_copy),
		cmocka_unit_test(zeroing_keeps_memory_what_it_is),
		cmocka_unit_test(zeroing_in_a_pool),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
