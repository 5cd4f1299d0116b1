// What memory an allocator holds: the process that runs one shape for that, and the one that asks it (shape_run.h).
#include "shape_run.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace
{

constexpr const char *variable = "HUGEPOOL_BENCH_MEMORY_OF";
constexpr unsigned cells = 64;
constexpr uint64_t least_live = 32 * KiB; // with less, a single page more or less would decide

struct Cells {
	struct alignas(64) {
		std::atomic<int64_t> live;
	} cell[cells];
};

Cells &live_cells()
{
	static auto *shared = new Shared<Cells>; // for ever: threads may end late
	return **shared;
}

} // namespace

std::atomic<int64_t> &Live::mine()
{
	static std::atomic<unsigned> next;
	thread_local std::atomic<int64_t> &live =
		live_cells().cell[next.fetch_add(1, std::memory_order_relaxed) % cells].live;
	return live;
}

int64_t Live::now()
{
	int64_t sum = 0;
	for (unsigned i = 0; i < cells; i++) sum += live_cells().cell[i].live.load(std::memory_order_relaxed);
	return sum;
}

// Exact, unlike the resident size in /proc/self/statm, which lags behind by some hundred KiB; and without the shared
// memory of the benchmark itself.
uint64_t anonymous_memory()
{
	static int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
	char text[2048];
	ssize_t length = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
	if (length <= 0) return 0;
	text[length] = 0;
	uint64_t kib = 0, part;
	for (const char *name : {"\nAnonymous:", "\nPrivate_Hugetlb:"})
		if (const char *at = std::strstr(text, name))
			if (std::sscanf(at + std::strlen(name), "%" SCNu64, &part) == 1) kib += part;
	return kib * KiB;
}

std::map<std::string, MemoryRun> &memory_runs()
{
	static std::map<std::string, MemoryRun> runs;
	return runs;
}

std::optional<MemoryRatios> measure_memory(uint64_t (*held)(), const std::function<bool()> &run)
{
	std::atomic<uint64_t> before{0}, most{0}, most_live{0};
	std::atomic<bool> started{false}, stop{false};
	Live::now();
	std::thread sampler([&] {
		timespec pause = {0, 200000};
		before.store(held());
		started.store(true);
		do {
			most.store(std::max(most.load(), held()));
			most_live.store((uint64_t)std::max((int64_t)most_live.load(), Live::now()));
			nanosleep(&pause, nullptr);
		} while (!stop.load());
	});
	while (!started.load()) std::this_thread::yield();
	bool ok = run();
	stop.store(true);
	sampler.join();
	uint64_t after = held();
	for (unsigned same = 0, i = 0; same < 4 && i < 50; i++) {
		timespec pause = {0, 20000000};
		nanosleep(&pause, nullptr);
		uint64_t now = held();
		same = now == after ? same + 1 : 0;
		after = now;
	}
	if (!ok || most_live.load() < least_live || Live::now() != 0) return {};
	auto over = [&](uint64_t bytes) {
		return (double)(bytes > before.load() ? bytes - before.load() : 0) / (double)most_live.load();
	};
	return MemoryRatios{over(std::max(most.load(), after)), over(after), (double)most_live.load()};
}

int memory_main(const char *name)
{
	auto found = memory_runs().find(name);
	if (found == memory_runs().end()) return 1;
	std::optional<MemoryRatios> ratios = found->second();
	if (!ratios) return 1;
	std::printf("%.6f %.6f %.0f\n", ratios->peak, ratios->after, ratios->live);
	return 0;
}

std::optional<MemoryRatios> memory_ratios(const std::string &name)
{
	static std::map<std::string, std::optional<MemoryRatios>> known;
	const char *wanted = std::getenv("HUGEPOOL_BENCH_MEMORY");
	if (wanted && std::strcmp(wanted, "0") == 0) return {};
	auto at = known.find(name);
	if (at != known.end()) return at->second;
	std::optional<MemoryRatios> &result = known[name];

	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0) return result;
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	setenv(variable, name.c_str(), 1);
	pid_t pid;
	char program[] = "/proc/self/exe";
	char *arguments[] = {program, nullptr};
	int error = posix_spawn(&pid, program, &actions, nullptr, arguments, environ);
	unsetenv(variable);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	if (!error) {
		char text[128];
		ssize_t length = read(ends[0], text, sizeof text - 1), more;
		while (length > 0 && length < (ssize_t)sizeof text - 1 &&
		       (more = read(ends[0], text + length, sizeof text - 1 - (size_t)length)) > 0)
			length += more;
		int status;
		MemoryRatios ratios;
		text[length < 0 ? 0 : length] = 0;
		if (waitpid(pid, &status, 0) == pid && status == 0 &&
		    std::sscanf(text, "%lf %lf %lf", &ratios.peak, &ratios.after, &ratios.live) == 3)
			result = ratios;
	}
	close(ends[0]);
	return result;
}
