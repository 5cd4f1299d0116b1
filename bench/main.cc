// The benchmark program. It takes the huge pages that the benchmarks want before anything else runs, gives them back
// however it ends, and says on which pages it measures.
#include "bench.h"

#include "hp_huge.h"
#include "shape_run.h"

#include <cstring>
#include <sched.h>
#include <set>

namespace
{

// 1 GiB for the largest pool of a benchmark, 256 MiB for the page pool, as much for the object pool and for that of the
// process that measures memory, 512 MiB for DPDK, and some for control memory.
constexpr long wanted_2m = 512 + 3 * 128 + 256 + 32;

void take_huge_pages()
{
	struct {
		unsigned long kib;
		long pages;
		const char *context;
	} wanted[] = {{HP_HUGE_2M, wanted_2m, "pages_2m"}, {HP_HUGE_1G, 1, "pages_1g"}};
	for (auto &size : wanted) {
		int error = hp_huge_take(size.kib, size.pages);
		if (error) {
			const char *why = hp_huge_why(size.kib, size.pages, error);
			std::fprintf(stderr, "%s\n", why);
			benchmark::AddCustomContext(size.context, why);
		} else {
			benchmark::AddCustomContext(size.context, std::to_string(size.pages) + " free");
		}
	}
}

} // namespace

Pool::Pool(uint64_t size, hp_rung rung, hp_rung_choice choice)
{
	hp_pool_options options{};
	options.struct_size = sizeof options;
	options.size = size;
	options.rung = rung;
	options.choice = choice;
	options.report = &report_;
	error_ = hp_pool_create(&options, &pool_);
}

std::string Pool::why() const
{
	for (unsigned i = 0; i < report_.rungs; i++)
		if (report_.rung[i].error && report_.rung[i].cause[0]) {
			std::string text = std::string(hp_rung_name(report_.rung[i].rung)) + " pages: " + report_.rung[i].cause;
			if (report_.rung[i].cure[0]) text += std::string(" (") + report_.rung[i].cure + ")";
			return text;
		}
	return std::string("no pool: ") + std::strerror(-error_);
}

Pool &page_pool()
{
	static Pool pool(256 * MiB, HP_RUNG_2M, HP_CHOICE_PREFER);
	return pool;
}

Pool &object_pool()
{
	static Pool pool(256 * MiB, HP_RUNG_2M, HP_CHOICE_PREFER);
	return pool;
}

const char *kept(const std::string &text)
{
	static std::set<std::string> texts;
	return texts.insert(text).first->c_str();
}

void Turns::relax(unsigned spins)
{
	if (spins > 10000)
		sched_yield(); // the two share a CPU
	else
		__builtin_ia32_pause();
}

int main(int argc, char **argv)
{
	if (const char *name = std::getenv("HUGEPOOL_BENCH_MEMORY_OF")) return memory_main(name);
	bool list = false;
	for (int i = 1; i < argc; i++) list |= std::strncmp(argv[i], "--benchmark_list_tests", 22) == 0;
	benchmark::Initialize(&argc, argv);
	if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
	if (!list) take_huge_pages();
	benchmark::RunSpecifiedBenchmarks();
	benchmark::Shutdown();
	return 0;
}
