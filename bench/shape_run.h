// Runs shapes (shapes.h) as benchmarks named SHAPE/IMPLEMENTATION[/threads:2 or /processes:2], and measures what memory
// they cost: the counters peak_ratio, the most bytes that the heap held over the most live bytes, and after_ratio, what
// it still holds over the same when everything is freed and the workers sleep; and live_bytes, the most that were live.
//
// Memory is measured in a process of its own (this program again, with the benchmark's name in the environment), where
// nothing has been allocated before, and while the shape runs once on a counting heap; so time is not disturbed.
// HUGEPOOL_BENCH_MEMORY=0 leaves it out.
#ifndef HUGEPOOL_SHAPE_RUN_H
#define HUGEPOOL_SHAPE_RUN_H

#include "crew.h"
#include "allocators.h"
#include "shapes.h"

#include <map>
#include <optional>
#include <string>

struct MemoryRatios {
	double peak, after, live;
};

// Those that can be asked for by name, and how each is measured.
using MemoryRun = std::function<std::optional<MemoryRatios>()>;
std::map<std::string, MemoryRun> &memory_runs();

// In the other process: samples while `run` runs, and then waits until what is held no longer changes.
std::optional<MemoryRatios> measure_memory(uint64_t (*held)(), const std::function<bool()> &run);
// The main function of that process.
int memory_main(const char *name);
// Runs that process, once for each name.
std::optional<MemoryRatios> memory_ratios(const std::string &name);

template <class S> Crew::Plan plan_of(Shared<S> &shape, Crew::Kind kind, void (*enter)(), void (*leave)())
{
	Crew::Plan plan;
	plan.kind = kind;
	plan.workers = S::workers;
	plan.generations = S::generations;
	plan.prepare = [&shape, kind, enter] {
		if (kind != Crew::PROCESSES) return;
		shape.populate();
		enter();
	};
	plan.work = [&shape](unsigned generation, unsigned worker) { shape->work(generation, worker); };
	plan.leave = leave;
	plan.give_up = [&shape] { shape->given_up.store(1, std::memory_order_relaxed); };
	return plan;
}

template <class S> std::string run_once(benchmark::State &state, Crew::Kind kind, void (*enter)(), void (*leave)())
{
	Shared<S> shape;
	if (S::workers == 1) { // this thread, so that the heap is as warm as the last round left it
		state.ResumeTiming();
		std::string error;
		try {
			shape->work(0, 0);
		} catch (const std::bad_alloc &) {
			error = "allocation failed";
		}
		state.PauseTiming();
		return error;
	}
	Crew crew(plan_of(shape, kind, enter, leave));
	state.ResumeTiming();
	crew.run();
	state.PauseTiming();
	crew.dismiss();
	return crew.error();
}

template <template <class> class S, class Heap>
void run_shape(benchmark::State &state, const std::string &name, Crew::Kind kind)
{
	if (const char *why = Heap::ready()) return state.SkipWithError(why);
	while (state.KeepRunningBatch((benchmark::IterationCount)S<Heap>::operations)) {
		state.PauseTiming();
		std::string error = run_once<S<Heap>>(state, kind, Heap::enter, Heap::leave);
		if (!error.empty()) return state.SkipWithError(error.c_str());
		state.ResumeTiming();
	}
	if (kind == Crew::PROCESSES) return; // the same memory as with threads
	if (std::optional<MemoryRatios> ratios = memory_ratios(name)) {
		state.counters["peak_ratio"] = ratios->peak;
		state.counters["after_ratio"] = ratios->after;
		state.counters["live_bytes"] = ratios->live;
	}
}

template <template <class> class S, class Heap> std::optional<MemoryRatios> run_for_memory()
{
	using Measured = S<Counted<Heap>>;
	if (Heap::ready()) return {};
	Shared<Measured> shape;
	Crew crew(plan_of(shape, Crew::THREADS, Heap::enter, Heap::leave));
	return measure_memory(Heap::held, [&] {
		crew.run();
		return crew.error().empty();
	});
}

// `parameters` may be empty.
template <template <class> class S, class Heap>
void register_shape(const std::string &topic, const std::string &implementation, const std::string &parameters = "",
                    Crew::Kind kind = Crew::THREADS)
{
	std::string name = topic + "/" + implementation + (parameters.empty() ? "" : "/" + parameters);
	if (kind == Crew::THREADS) memory_runs()[name] = run_for_memory<S, Heap>;
	Register(name, [=](benchmark::State &state) { run_shape<S, Heap>(state, name, kind); })->UseRealTime();
}

template <class Heap> void pair_of_calls(benchmark::State &state, size_t bytes)
{
	if (const char *why = Heap::ready()) return state.SkipWithError(why);
	for (unsigned i = 0; i < 20000; i++) { // the first after another size pays for what that left
		void *block = Heap::alloc(bytes);
		benchmark::DoNotOptimize(block);
		Heap::free(block, bytes);
	}
	for (auto _ : state) {
		void *block = Heap::alloc(bytes);
		if (!block) return state.SkipWithError("allocation failed");
		benchmark::DoNotOptimize(block);
		Heap::free(block, bytes);
	}
}

template <class Heap> void register_pairs(const std::string &implementation)
{
	for (size_t bytes = 16; bytes <= 65536; bytes *= 2)
		Register("malloc_pair/" + implementation + "/bytes:" + std::to_string(bytes),
		         [bytes](benchmark::State &state) { pair_of_calls<Heap>(state, bytes); });
}

template <class Heap> void register_batches(const std::string &implementation)
{
	register_shape<shape::Batch64, Heap>("malloc_batch", implementation, "bytes:64");
	register_shape<shape::BatchMixed, Heap>("malloc_batch", implementation, "bytes:mixed");
}

// Those with several workers.
template <class Heap>
void register_crews(const std::string &implementation, const std::string &parameters, Crew::Kind kind)
{
	register_shape<shape::Larson, Heap>("larson", implementation, parameters, kind);
	register_shape<shape::Xmalloc, Heap>("xmalloc", implementation, parameters, kind);
	register_shape<shape::Sh6, Heap>("sh6", implementation, parameters, kind);
	register_shape<shape::Sh8, Heap>("sh8", implementation, parameters, kind);
	register_shape<shape::Mstress, Heap>("mstress", implementation, parameters, kind);
	register_shape<shape::Rptest, Heap>("rptest", implementation, parameters, kind);
	register_shape<shape::CacheScratch, Heap>("cache-scratch", implementation, parameters, kind);
	register_shape<shape::GlibcThread, Heap>("glibc-thread", implementation, parameters, kind);
}

template <class Heap> void register_all(const std::string &implementation)
{
	register_pairs<Heap>(implementation);
	register_batches<Heap>(implementation);
	register_shape<shape::Replace, Heap>("malloc_replace", implementation);
	register_shape<shape::GlibcSimple, Heap>("glibc-simple", implementation);
	register_crews<Heap>(implementation, "threads:2", Crew::THREADS);
}

#endif
