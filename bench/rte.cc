// DPDK's allocator, rte_malloc: shared huge pages, one lock a heap. DPDK is set up when the first of its benchmarks
// runs, in this process; it pins the thread that does so, and that is undone.
#ifdef HAVE_DPDK
#include <rte_eal.h>
#include <rte_malloc.h>

#include "rte.h"
#include "shape_run.h"

#include <sched.h>
#include <thread>
#include <vector>

namespace
{

// A heap that is one free piece costs a microsecond a free: rte_free looks at every huge page of the piece to see
// whether it can be returned. So every other MiB is kept allocated, as if by a program at work.
void break_up_heap()
{
	std::vector<void *> pieces;
	for (unsigned i = 0; i < 480; i++) pieces.push_back(rte_malloc(nullptr, MiB - 4 * KiB, 0)); // of the 512 at start
	for (size_t i = 0; i < pieces.size(); i += 2) rte_free(pieces[i]);
}

} // namespace

const char *rte_ready()
{
	static const bool ready = [] {
		cpu_set_t before;
		sched_getaffinity(0, sizeof before, &before);
		const char *words[] = {
			"hugepool_bench", "--in-memory", "--no-pci", "--no-telemetry", "-m", "512", "-l", "0", "--log-level", "3"};
		std::vector<char *> args;
		for (const char *word : words) args.push_back(const_cast<char *>(word));
		bool ok = rte_eal_init((int)args.size(), args.data()) >= 0;
		sched_setaffinity(0, sizeof before, &before);
		if (ok) break_up_heap();
		return ok;
	}();
	return ready ? nullptr : "DPDK cannot start here: it needs 512 MiB of free 2 MiB pages, and CPU 0";
}

namespace
{

struct Rte {
	static const char *ready()
	{
		return rte_ready();
	}
	static void *alloc(size_t bytes)
	{
		return rte_malloc(nullptr, bytes, 0);
	}
	static void free(void *at, size_t)
	{
		rte_free(at);
	}
	static uint64_t held()
	{
		rte_malloc_socket_stats stats;
		return rte_malloc_get_socket_stats(0, &stats) == 0 ? stats.heap_allocsz_bytes : 0;
	}
	static void enter() {}
	static void leave() {}
};

void page_remote_free(benchmark::State &state)
{
	if (const char *why = rte_ready()) return state.SkipWithError(why);
	constexpr size_t batch = 16384;
	std::vector<void *> blocks(batch);
	Turns turns;
	bool ok = true;
	enum { REST, FILL, FILLED, STOP };
	std::thread worker([&] {
		while (turns.await_either(FILL, STOP) == FILL) {
			for (void *&block : blocks) {
				block = rte_malloc(nullptr, HP_PAGE_SIZE, 0);
				ok &= block != nullptr;
			}
			turns.give(FILLED);
		}
	});
	while (state.KeepRunningBatch(batch)) {
		state.PauseTiming();
		turns.give(FILL);
		turns.await(FILLED);
		state.ResumeTiming();
		for (void *block : blocks) rte_free(block);
	}
	turns.give(STOP);
	worker.join();
	if (!ok) state.SkipWithError("allocation failed");
}

const bool registered = [] {
	Register("page_pair/rte_malloc/bytes:4096",
	         [](benchmark::State &state) { pair_of_calls<Rte>(state, HP_PAGE_SIZE); });
	Register("page_remote_free/rte_malloc", page_remote_free);
	register_pairs<Rte>("rte_malloc");
	register_batches<Rte>("rte_malloc");
	return true;
}();

} // namespace
#else
#include "bench.h"

namespace
{
const bool registered = [] {
	for (const char *name :
	     {"page_pair/rte_malloc/bytes:4096", "page_remote_free/rte_malloc", "malloc_pair/rte_malloc/bytes:64",
	      "malloc_batch/rte_malloc/bytes:64", "cache_pair/rte_mempool", "cache_bulk/rte_mempool/n:32"})
		register_missing(name, "DPDK was missing when this was built (tools/deps bench)");
	return true;
}();
} // namespace
#endif
