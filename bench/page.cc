// The page layer: a pair of allocate and free, half a pool at once, and frees by another thread.
#include "bench.h"

#include <thread>
#include <vector>

namespace
{

void page_pair(benchmark::State &state, size_t pages)
{
	Pool &pool = page_pool();
	if (!pool) return state.SkipWithError(pool.why().c_str());
	state.SetLabel(pool.pages());
	for (auto _ : state) {
		void *block;
		if (hp_page_alloc(pool, pages * HP_PAGE_SIZE, 0, &block) != 0) return state.SkipWithError("allocation failed");
		benchmark::DoNotOptimize(block);
		if (hp_page_free(pool, block) != 0) return state.SkipWithError("free failed");
	}
}

// Allocates or frees `count` single pages; false when a call fails.
bool bulk(hp_pool *pool, std::vector<void *> &blocks, size_t count, bool alloc)
{
	int failed = 0;
	if (alloc)
		for (size_t i = 0; i < count; i++) failed |= hp_page_alloc(pool, HP_PAGE_SIZE, 0, &blocks[i]);
	else
		for (size_t i = 0; i < count; i++) failed |= hp_page_free(pool, blocks[i]);
	return failed == 0;
}

// Half the pool page by page, then all of it back; only one of the two is timed. Every thread does its share at the
// same time as the others, and the time is that of the slowest, for each page of its share.
void page_bulk(benchmark::State &state, bool time_alloc, unsigned threads)
{
	Pool &pool = page_pool();
	if (!pool) return state.SkipWithError(pool.why().c_str());
	state.SetLabel(pool.pages());
	size_t share = hp_pool_capacity(pool) / HP_PAGE_SIZE / 2 / threads;
	std::vector<void *> mine(share), others(share);
	std::atomic<bool> ok{true};
	Turns turns, done;
	enum { REST, ALLOC, FREE, STOP };
	std::thread worker;
	if (threads > 1)
		worker = std::thread([&] {
			for (uint32_t turn = REST;;) {
				turn = turn == ALLOC ? turns.await_either(FREE, STOP) : turns.await_either(ALLOC, STOP);
				if (turn == STOP) return;
				if (!bulk(pool, others, share, turn == ALLOC)) ok = false;
				done.give(turn);
			}
		});
	auto both = [&](uint32_t turn) {
		turns.give(turn);
		if (!bulk(pool, mine, share, turn == ALLOC)) ok = false;
		if (threads > 1) done.await(turn);
	};
	while (state.KeepRunningBatch((benchmark::IterationCount)share)) {
		if (time_alloc) {
			both(ALLOC);
			state.PauseTiming();
			both(FREE);
			state.ResumeTiming();
		} else {
			state.PauseTiming();
			both(ALLOC);
			state.ResumeTiming();
			both(FREE);
		}
	}
	turns.give(STOP);
	if (worker.joinable()) worker.join();
	if (!ok) state.SkipWithError("a call failed");
}

// Another thread allocates a batch, this one frees it; only the frees are timed.
void page_remote_free(benchmark::State &state)
{
	Pool &pool = page_pool();
	if (!pool) return state.SkipWithError(pool.why().c_str());
	state.SetLabel(pool.pages());
	constexpr size_t batch = 16384;
	std::vector<void *> blocks(batch);
	std::atomic<bool> ok{true};
	Turns turns;
	enum { REST, FILL, FILLED, STOP };
	std::thread worker([&] {
		while (turns.await_either(FILL, STOP) == FILL) {
			if (!bulk(pool, blocks, batch, true)) ok = false;
			turns.give(FILLED);
		}
	});
	while (state.KeepRunningBatch(batch)) {
		state.PauseTiming();
		turns.give(FILL);
		turns.await(FILLED);
		state.ResumeTiming();
		if (!bulk(pool, blocks, batch, false)) ok = false;
	}
	turns.give(STOP);
	worker.join();
	if (!ok) state.SkipWithError("a call failed");
}

const bool registered = [] {
	for (size_t pages : {1, 8, 64, 512})
		Register("page_pair/hugepool/pages:" + std::to_string(pages),
		         [pages](benchmark::State &state) { page_pair(state, pages); });
	for (unsigned threads : {1, 2})
		for (bool alloc : {true, false})
			Register(std::string("page_bulk/hugepool/") + (alloc ? "alloc" : "free") +
			             "/threads:" + std::to_string(threads),
			         [=](benchmark::State &state) { page_bulk(state, alloc, threads); });
	Register("page_remote_free/hugepool", page_remote_free);
	return true;
}();

} // namespace
