// Making memory real: a pool's creation beside the bare system calls, with the same size, page size and threads.
#include "bench.h"

#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif

namespace
{

constexpr uint64_t bytes = 512 * MiB;

unsigned threads()
{
	return std::thread::hardware_concurrency() > 1 ? 2 : 1;
}

// Whether pools stand on 2 MiB pages here; else both measure 4 KiB pages.
bool huge()
{
	static const bool got = (bool)Pool(bytes, HP_RUNG_2M, HP_CHOICE_REQUIRE);
	return got;
}

void label(benchmark::State &state)
{
	state.SetBytesProcessed((int64_t)(state.iterations() * bytes));
	state.SetLabel(std::string(huge() ? "2 MiB" : "4 KiB") + " pages, " + std::to_string(threads()) + " threads");
}

void prefault_hugepool(benchmark::State &state)
{
	bool on_huge = huge();
	for (auto _ : state) {
		hp_report report{};
		hp_pool_options options{};
		options.struct_size = sizeof options;
		options.size = bytes;
		options.choice = HP_CHOICE_REQUIRE;
		options.rung = on_huge ? HP_RUNG_2M : HP_RUNG_4K;
		options.prefault_threads = threads();
		options.report = &report;
		hp_pool *pool = nullptr;
		int error = hp_pool_create(&options, &pool);
		if (error) return state.SkipWithError((std::string("no pool: ") + std::strerror(-error)).c_str());
		state.PauseTiming();
		hp_pool_detach(pool);
		state.ResumeTiming();
	}
	label(state);
}

void prefault_raw(benchmark::State &state)
{
	bool on_huge = huge();
	for (auto _ : state) {
		int fd = memfd_create("raw", MFD_CLOEXEC | (on_huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
		if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) return state.SkipWithError("no memfd");
		char *base = (char *)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
		if (base == MAP_FAILED) return state.SkipWithError("no mapping");
		bool ok = true;
		uint64_t part = bytes / threads();
		auto populate = [&](unsigned i) {
			if (madvise(base + i * part, part, MADV_POPULATE_WRITE) != 0)
				__atomic_store_n(&ok, false, __ATOMIC_RELAXED);
		};
		std::vector<std::thread> workers;
		for (unsigned i = 1; i < threads(); i++) workers.emplace_back(populate, i);
		populate(0);
		for (std::thread &worker : workers) worker.join();
		state.PauseTiming();
		munmap(base, bytes);
		close(fd);
		state.ResumeTiming();
		if (!ok) return state.SkipWithError("MADV_POPULATE_WRITE failed (kernel older than 5.14, or memory is short)");
	}
	label(state);
}

const Register ours("prefault/hugepool", prefault_hugepool, benchmark::kMillisecond);
const Register raw("prefault/raw", prefault_raw, benchmark::kMillisecond);

} // namespace
