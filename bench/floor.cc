// What this machine charges anyway: two empty calls (under any called pair of allocate and free, or of enter and leave), one
// locked instruction, and memset.
#include "bench.h"

#include <cstring>
#include <vector>

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
const Register section("read_section/empty", empty_calls);
const Register lock("floor/locked", locked);
const Register set("floor/memset", memory_set, benchmark::kMillisecond);

} // namespace
