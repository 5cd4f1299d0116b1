// What this machine charges anyway: two empty calls, in the program or in a shared library (under any called pair of allocate and free, or of enter and leave), one
// locked instruction, and memset.
#include "bench.h"

#include <cstring>
#include <vector>

extern "C" { // of a shared library (empty.c), called as the headers of ours ask for it
__attribute__((noplt)) void *bench_empty_alloc(size_t size);
__attribute__((noplt)) void bench_empty_free(void *block);
}

namespace
{

__attribute__((noipa)) void *empty_alloc(size_t size)
{
	return (void *)size;
}
__attribute__((noipa)) void empty_free(void *block)
{
	benchmark::DoNotOptimize(block);
}

void empty_calls(benchmark::State &state)
{
	for (auto _ : state) empty_free(empty_alloc(HP_PAGE_SIZE));
}

void empty_calls_shared(benchmark::State &state)
{
	for (auto _ : state) bench_empty_free(bench_empty_alloc(HP_PAGE_SIZE));
}

void locked(benchmark::State &state)
{
	alignas(64) std::atomic<uint64_t> word{0};
	for (auto _ : state) benchmark::DoNotOptimize(word.fetch_add(1, std::memory_order_relaxed));
}

void memory_set(benchmark::State &state)
{
	std::vector<char> buffer(256 * MiB, 1);
	for (auto _ : state) {
		std::memset(buffer.data(), 0, buffer.size());
		benchmark::ClobberMemory();
	}
	state.SetBytesProcessed((int64_t)(state.iterations() * buffer.size()));
}

const Register calls("floor/empty_calls", empty_calls);
const Register shared_calls("floor/empty_calls/shared", empty_calls_shared);
const Register section("read_section/empty", empty_calls);
const Register shared_section("read_section/empty_shared", empty_calls_shared);
const Register lock("floor/locked", locked);
const Register set("floor/memset", memory_set, benchmark::kMillisecond);

} // namespace
