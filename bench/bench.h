// What the benchmarks share. A file registers its benchmarks itself, by static objects of Register; names are
// TOPIC/IMPLEMENTATION/parameters, and tools/bench puts implementations of one topic and parameters side by side.
// Real time is what counts. Work that is not to be timed stands between PauseTiming and ResumeTiming, in batches large
// enough that the half microsecond they cost is lost in them.
#ifndef HUGEPOOL_BENCH_H
#define HUGEPOOL_BENCH_H

#include <benchmark/benchmark.h>
#include <hugepool/hugepool.h>

#include <atomic>
#include <cstdint>
#include <string>

constexpr uint64_t KiB = 1024, MiB = 1024 * KiB, GiB = 1024 * MiB;

struct Register {
	template <typename Run>
	Register(const std::string &name, Run run, benchmark::TimeUnit unit = benchmark::kNanosecond)
		: benchmark(benchmark::RegisterBenchmark(name.c_str(), run)->Unit(unit))
	{
	}
	// For UseRealTime, without which a benchmark whose own thread sleeps would never end, UseManualTime and Iterations.
	// What they append to the name, tools/bench takes off again.
	benchmark::internal::Benchmark *operator->() const
	{
		return benchmark;
	}
	benchmark::internal::Benchmark *benchmark;
};

// Stands in for a peer that was not there when the program was built.
inline void register_missing(const std::string &name, const char *why)
{
	Register(name, [=](benchmark::State &state) { state.SkipWithError(why); });
}

// A pool for one benchmark. Without one, why() says why not.
class Pool
{
  public:
	Pool(uint64_t size, hp_rung rung, hp_rung_choice choice);
	~Pool()
	{
		hp_pool_detach(pool_);
	}
	Pool(const Pool &) = delete;
	Pool &operator=(const Pool &) = delete;

	operator hp_pool *() const
	{
		return pool_;
	}
	explicit operator bool() const
	{
		return pool_ != nullptr;
	}
	std::string why() const;
	const hp_report &report() const
	{
		return report_;
	}
	std::string pages() const
	{
		return std::string("pages of ") + hp_rung_name(report_.rung_got);
	}

  private:
	hp_pool *pool_ = nullptr;
	int error_;
	hp_report report_{};
};

// The pools of the page benchmarks, and of those of caches and malloc: 256 MiB on 2 MiB pages if they are to be had.
// Made at first use, kept.
Pool &page_pool();
Pool &object_pool();

// What is said of it, however often it is asked.
const char *kept(const std::string &text);

// Two threads that take turns without the kernel: the worker runs what the caller hands it.
class Turns
{
  public:
	void give(uint32_t turn)
	{
		turn_.store(turn, std::memory_order_release);
	}
	void await(uint32_t turn) const
	{
		for (unsigned spins = 0; turn_.load(std::memory_order_acquire) != turn; spins++) relax(spins);
	}
	// Whichever of the two values comes first.
	uint32_t await_either(uint32_t a, uint32_t b) const
	{
		for (unsigned spins = 0;; spins++) {
			uint32_t now = turn_.load(std::memory_order_acquire);
			if (now == a || now == b) return now;
			relax(spins);
		}
	}

	static void relax(unsigned spins);

  private:
	alignas(64) std::atomic<uint32_t> turn_{0};
};

#endif
