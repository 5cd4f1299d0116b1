// Reads of 4 KiB at random places of a file that lies in the page cache: into objects of a cache by a ring, and beside it by
// liburing into buffers that it has registered itself, on pages as large; the file is registered with both, and both rings
// are set up alike; what a ring does by itself beyond that (it registers itself with its thread) liburing would do when told.
// So many reads as `depth` says are submitted by one call, and their completions looked at together; with pread it is one after
// the other, whatever the depth. Timed is one read.
#include "bench.h"

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <liburing.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace
{

constexpr size_t block = 4096, file_bytes = 256 * MiB;
constexpr unsigned depth_most = 32;

// A file without a name, all of it in the page cache; -1: none on a file system that has one.
int file()
{
	static const int made = [] {
		const char *folder = std::getenv("TMPDIR");
		struct statfs system;
		int fd = -1;
		for (const char *at : {folder ? folder : "/tmp", "/tmp", "/var/tmp"}) {
			if (statfs(at, &system) || system.f_type == TMPFS_MAGIC) continue;
			std::string name = std::string(at) + "/hugepool-bench-XXXXXX";
			if ((fd = mkostemp(&name[0], O_CLOEXEC)) < 0) continue;
			unlink(name.c_str());
			break;
		}
		std::string bytes(MiB, 'x');
		for (size_t at = 0; fd >= 0 && at < file_bytes; at += MiB)
			if (pwrite(fd, &bytes[0], MiB, (off_t)at) != (ssize_t)MiB) return -1;
		if (fd >= 0) fsync(fd); // nothing of it is written back later
		for (size_t at = 0; fd >= 0 && at < file_bytes; at += MiB)
			if (pread(fd, &bytes[0], MiB, (off_t)at) != (ssize_t)MiB) return -1;
		return fd;
	}();
	return made;
}

class Places
{
  public:
	uint64_t next()
	{
		x_ ^= x_ << 13, x_ ^= x_ >> 7, x_ ^= x_ << 17;
		return x_ % (file_bytes / block) * block;
	}

  private:
	uint64_t x_ = 88172645463325252u;
};

void ours(benchmark::State &state, unsigned depth)
{
	if (file() < 0) return state.SkipWithError("no folder for a file that is not in memory alone");
	if (!page_pool()) return state.SkipWithError(kept(page_pool().why()));
	struct hp_ring_report report {
	};
	report.struct_size = sizeof report;
	hp_ring_options options{};
	options.struct_size = sizeof options;
	options.depth = depth_most;
	options.flags = HP_RING_REQUIRE | HP_RING_ONE_THREAD;
	options.report = &report;
	hp_cache_options cut{};
	cut.struct_size = sizeof cut;
	cut.size = cut.align = block;
	hp_ring *ring;
	hp_cache *cache;
	void *object[depth_most];
	if (hp_ring_create(page_pool(), &options, &ring)) return state.SkipWithError(kept(report.cause));
	if (hp_cache_create(page_pool(), "read", &cut, &cache) || hp_cache_get_bulk(cache, 0, depth_most, object))
		return state.SkipWithError("no objects");
	int place = hp_ring_register_file(ring, file());
	Places places;
	while (state.KeepRunningBatch(depth)) {
		for (unsigned i = 0; i < depth; i++)
			hp_ring_read(ring, place, object[i], block, places.next(), HP_RING_FILE, i);
		unsigned left = depth;
		while (left) {
			hp_ring_completion done[depth_most];
			if (hp_ring_submit_and_wait(ring, left, UINT64_MAX) < 0) return state.SkipWithError("a submission failed");
			int got = hp_ring_poll(ring, done, left);
			for (int i = 0; i < got; i++)
				if (done[i].result != (int)block) return state.SkipWithError("a read failed");
			left -= (unsigned)got;
		}
	}
	if (report.error) state.SetLabel(report.cause);
	hp_cache_put_bulk(cache, depth_most, object);
	hp_ring_destroy(ring);
	hp_cache_destroy(cache);
}

// As many bytes on pages like the pool's.
void *area(size_t bytes)
{
	hp_rung rung = page_pool() ? page_pool().report().rung_got : HP_RUNG_4K;
	const int flags = MAP_SHARED | MAP_ANONYMOUS;
	void *memory = MAP_FAILED;
	if (rung == HP_RUNG_2M || rung == HP_RUNG_1G)
		memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED) {
		memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
		if (memory == MAP_FAILED) return nullptr;
		if (rung == HP_RUNG_THP) madvise(memory, bytes, MADV_HUGEPAGE);
		std::memset(memory, 0, bytes);
	}
	return memory;
}

void liburing(benchmark::State &state, unsigned depth)
{
	if (file() < 0) return state.SkipWithError("no folder for a file that is not in memory alone");
	constexpr size_t bytes = 2 * MiB;
	auto *memory = static_cast<char *>(area(bytes));
	if (!memory) return state.SkipWithError("no memory");
	io_uring ring;
	io_uring_params params{};
	params.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
	               IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
	params.cq_entries = 2 * depth_most;
	if (io_uring_queue_init_params(depth_most, &ring, &params)) return state.SkipWithError("no io_uring");
	iovec registered = {memory, bytes};
	const int fd = file();
	if (io_uring_register_buffers(&ring, &registered, 1) || io_uring_register_files(&ring, &fd, 1))
		return state.SkipWithError("registration failed");
	Places places;
	while (state.KeepRunningBatch(depth)) {
		for (unsigned i = 0; i < depth; i++) {
			io_uring_sqe *sqe = io_uring_get_sqe(&ring);
			io_uring_prep_read_fixed(sqe, 0, memory + i * block, block, places.next(), 0);
			sqe->flags |= IOSQE_FIXED_FILE;
			io_uring_sqe_set_data64(sqe, i);
		}
		unsigned left = depth;
		while (left) {
			io_uring_cqe *done[depth_most];
			if (io_uring_submit_and_wait(&ring, left) < 0) return state.SkipWithError("a submission failed");
			unsigned got = io_uring_peek_batch_cqe(&ring, done, left);
			for (unsigned i = 0; i < got; i++)
				if (done[i]->res != (int)block) return state.SkipWithError("a read failed");
			io_uring_cq_advance(&ring, got);
			left -= got;
		}
	}
	io_uring_queue_exit(&ring);
	munmap(memory, bytes);
}

void plain(benchmark::State &state, unsigned depth)
{
	if (file() < 0) return state.SkipWithError("no folder for a file that is not in memory alone");
	constexpr size_t bytes = 2 * MiB;
	auto *memory = static_cast<char *>(area(bytes));
	if (!memory) return state.SkipWithError("no memory");
	Places places;
	while (state.KeepRunningBatch(depth))
		for (unsigned i = 0; i < depth; i++)
			if (pread(file(), memory + i * block, block, (off_t)places.next()) != (ssize_t)block)
				return state.SkipWithError("a read failed");
	munmap(memory, bytes);
}

const bool registered = [] {
	for (unsigned depth : {1u, 8u, 32u}) {
		const std::string end = "/depth:" + std::to_string(depth);
		Register("uring_read/hugepool" + end, [=](benchmark::State &state) { ours(state, depth); });
		Register("uring_read/liburing" + end, [=](benchmark::State &state) { liburing(state, depth); });
		Register("uring_read/pread" + end, [=](benchmark::State &state) { plain(state, depth); });
	}
	return true;
}();

} // namespace
