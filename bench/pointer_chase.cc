// What the page size is good for: dependent loads in random order over 1 GiB of a pool, with the TLB misses counted.
#include "bench.h"

#include <linux/perf_event.h>
#include <random>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace
{

int open_tlb_counter()
{
	perf_event_attr attr{};
	attr.size = sizeof attr;
	attr.type = PERF_TYPE_HW_CACHE;
	attr.config = PERF_COUNT_HW_CACHE_DTLB | PERF_COUNT_HW_CACHE_OP_READ << 8 | PERF_COUNT_HW_CACHE_RESULT_MISS << 16;
	attr.disabled = 1;
	attr.exclude_kernel = 1;
	attr.exclude_hv = 1;
	return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}

// One cycle through all steps of 256 bytes (Sattolo's shuffle), each at a random line of its step, so that every set of
// the caches is used. Each place holds the address of the next.
void **make_cycle(char *base, uint64_t bytes)
{
	constexpr uint64_t step = 256, line = 64;
	std::mt19937_64 random(1);
	std::vector<uint32_t> order(bytes / step);
	for (size_t i = 0; i < order.size(); i++) order[i] = (uint32_t)(i * (step / line) + random() % (step / line));
	for (size_t i = order.size() - 1; i > 0; i--) std::swap(order[i], order[random() % i]);
	for (size_t i = 0; i < order.size(); i++)
		*(void **)(base + order[i] * line) = base + order[(i + 1) % order.size()] * line;
	return (void **)(base + order[0] * line);
}

void pointer_chase(benchmark::State &state, hp_rung rung)
{
	Pool pool(1 * GiB, rung, HP_CHOICE_REQUIRE);
	if (!pool) return state.SkipWithError(pool.why().c_str());
	void *block;
	if (hp_page_alloc(pool, 1 * GiB, 0, &block) != 0) return state.SkipWithError("no run of 1 GiB");
	void **at = make_cycle((char *)block, 1 * GiB);
	int counter = open_tlb_counter();
	if (counter >= 0) ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
	for (auto _ : state) at = (void **)*at;
	benchmark::DoNotOptimize(at);
	uint64_t misses;
	if (counter >= 0 && read(counter, &misses, sizeof misses) == sizeof misses)
		state.counters["dTLB_misses"] = benchmark::Counter((double)misses, benchmark::Counter::kAvgIterations);
	else
		state.SetLabel("no TLB counter here (perf_event_paranoid, or a virtual machine without)");
	if (counter >= 0) close(counter);
	hp_page_free(pool, block);
}

const Register small("pointer_chase/hugepool/page:4k", [](benchmark::State &s) { pointer_chase(s, HP_RUNG_4K); });
const Register medium("pointer_chase/hugepool/page:2m", [](benchmark::State &s) { pointer_chase(s, HP_RUNG_2M); });
const Register large("pointer_chase/hugepool/page:1g", [](benchmark::State &s) { pointer_chase(s, HP_RUNG_1G); });

} // namespace
