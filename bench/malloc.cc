// hp_malloc beside ordinary allocators, which work in private memory and so do less. Without a preloaded library malloc
// is glibc's; what tools/bench preloads (bench/preload) is called "preload" here, and tools/bench puts in its name.
#include "shape_run.h"

#ifdef HAVE_HP_MALLOC
#include <sys/mman.h>

hp_pool *Hugepool::pool;

const char *Hugepool::ready()
{
	Pool &object = object_pool();
	if (!object) return kept(object.why());
	pool = object;
	return nullptr;
}

uint64_t Hugepool::held()
{
	struct hp_pool_stats stats {
	};
	stats.struct_size = sizeof stats;
	return hp_pool_stats(pool, &stats) == 0 ? stats.committed - stats.free : 0;
}

void Hugepool::enter()
{
	madvise(hp_pool_base(pool), hp_pool_capacity(pool), MADV_POPULATE_WRITE);
}

void Hugepool::leave()
{
	hp_pool_detach(pool);
}
#endif

namespace
{

const bool registered = [] {
	const char *libc = std::getenv("HUGEPOOL_BENCH_PRELOAD") ? "preload" : "glibc";
	register_all<Libc>(libc);
	Register(std::string("page_pair/") + libc + "/bytes:4096",
	         [](benchmark::State &state) { pair_of_calls<Libc>(state, HP_PAGE_SIZE); });
#ifdef HAVE_HP_MALLOC
	register_all<Hugepool>("hugepool");
	register_crews<Hugepool>("hugepool", "processes:2", Crew::PROCESSES);
#endif
	return true;
}();

} // namespace
