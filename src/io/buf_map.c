/* Memory of our own for buffers: pages, aligned memory, mapped files; and zeroing.
 *
 * What is handed out does not end in SIGBUS as far as that lies with us. A file is grown before it is mapped, by fallocate:
 * that takes the place on the disk which a later write would miss, and it makes a file longer but never shorter, whatever
 * another process does with it meanwhile. ftruncate would cut off what another has appended between our look and our call;
 * it is used only where the file system has no fallocate. */
#include "io/buf.h"
#include "os/os.h"
#include <hugepool/page.h>
#include <stdlib.h>
#include <sys/mman.h>

size_t hp_buf_page_size(void)
{
	return os_page_size();
}

/* Rounded up to a power of two; 0 when that is more than there can be. */
static uint64_t round_up(uint64_t bytes, uint64_t to)
{
	return bytes > UINT64_MAX - (to - 1) ? 0 : (bytes + to - 1) & ~(to - 1);
}

int hp_buf_alloc_pages(void *hint, size_t bytes, unsigned flags, hp_buf *buf)
{
	if (!buf) return -EINVAL;
	*buf = hp_buf_of(NULL, 0);
	if (!bytes || flags & ~(HP_BUF_EXEC | HP_BUF_LAZY)) return -EINVAL;
	bytes = round_up(bytes, os_page_size());
	if (!bytes) return -ENOMEM;
	void *start;
	int error = os_map(hint, bytes, PROT_READ | PROT_WRITE | (flags & HP_BUF_EXEC ? PROT_EXEC : 0),
	                   OS_MAP_PRIVATE_ANON | (flags & HP_BUF_LAZY ? OS_MAP_NORESERVE : 0), -1, 0, &start);
	if (error < 0) return error;
	error = buf_own(BUF_PAGES, start, bytes, 0, bytes, buf);
	if (error < 0) os_unmap(start, bytes);
	return error;
}

int hp_buf_alloc_aligned(size_t align, size_t bytes, hp_buf *buf)
{
	void *start = NULL;
	if (!buf) return -EINVAL;
	*buf = hp_buf_of(NULL, 0);
	if (!bytes) return -EINVAL;
	int error = -posix_memalign(&start, align, bytes);
	if (error < 0) return error;
	error = buf_own(BUF_ALIGNED, start, bytes, 0, bytes, buf);
	if (error < 0) free(start);
	return error;
}

/* ---- files ---- */

/* Makes sure that the file has [pos, end), and, where it is to be filled, its place on the disk. */
static int make_room(int fd, const struct stat *st, uint64_t pos, uint64_t end, bool fill)
{
	bool grows = end > (uint64_t)st->st_size;
	if (!fill && !grows) return 0;
	/* commit: of growth, the file's size, which only becomes larger; a death leaves the old size or the new one */
	int error = fill ? os_allocate(fd, pos, end - pos) : os_allocate(fd, end - 1, 1);
	if (error == -EOPNOTSUPP) {
		error = grows ? os_ftruncate(fd, end) : 0;
		if (error == -EINVAL) error = -EACCES; /* so it says what fallocate says with -EBADF */
	}
	/* that the descriptor is open was seen before, so it is not open for writing */
	return error == -EBADF ? -EACCES : error;
}

int hp_buf_map_file(int fd, uint64_t pos, uint64_t len, void *hint, unsigned flags, hp_buf *buf)
{
	struct stat st;
	if (!buf) return -EINVAL;
	*buf = hp_buf_of(NULL, 0);
	if (!len || flags & ~(HP_BUF_SHARED | HP_BUF_SPARSE) || pos > INT64_MAX) return -EINVAL;
	if (len != HP_BUF_TO_END && len > INT64_MAX - pos) return -EINVAL;
	int error = os_fstat(fd, &st);
	if (error < 0) return error;
	if (!S_ISREG(st.st_mode)) return -ENODEV;
	if (len == HP_BUF_TO_END) {
		if (pos >= (uint64_t)st.st_size) return -ENODATA;
		len = (uint64_t)st.st_size - pos;
	}
	bool shared = flags & HP_BUF_SHARED;
	error = make_room(fd, &st, pos, pos + len, shared && !(flags & HP_BUF_SPARSE));
	if (error < 0) return error;
	/* files on huge pages are mapped by these, and mmap makes them as long */
	int64_t block = os_block_size(fd);
	uint64_t unit = block > (int64_t)os_page_size() ? (uint64_t)block : os_page_size();
	uint64_t from = pos & ~(unit - 1), bytes = round_up(pos + len, unit) - from;
	void *start;
	error = os_map(hint, bytes, PROT_READ | PROT_WRITE, shared ? 0 : OS_MAP_PRIVATE, fd, from, &start);
	if (error < 0) return error;
	error = buf_own(BUF_FILE, start, bytes, pos - from, len, buf);
	if (error < 0) os_unmap(start, bytes);
	return error;
}

/* ---- zeroing ---- */

int hp_buf_zero_pages(hp_buf buf, size_t off, size_t len)
{
	size_t page = buf.pool ? HP_PAGE_SIZE : os_page_size();
	if (!hp_buf_holds(buf, off, len) || (((uintptr_t)buf.start + off) | len) & (page - 1)) return -EINVAL;
	if (!len) return 0;
	if (buf.pool) return hp_page_zero(buf.pool, buf.start + off, len);
	if (buf.owner) {
		uint64_t word = atomic_load_explicit(&buf.owner->word, memory_order_acquire);
		if (word >> 32 != buf.generation || (uint32_t)word == BUF_CLOSING) return -ESTALE;
		/* not what is locked in memory, nor in processes whose kernel forbids it */
		if (buf.owner->kind == BUF_PAGES && os_advise(buf.start + off, len, MADV_DONTNEED) == 0) return 0;
	}
	memset(buf.start + off, 0, len);
	return 0;
}
