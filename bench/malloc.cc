// Peers that are ordinary allocators: mimalloc, linked, and whatever tools/bench preloads (private memory, so they do
// less than we do).
#include "bench.h"

#include <cstdlib>
#ifdef HAVE_MIMALLOC
#include <mimalloc.h>
#endif

namespace
{

template <typename Alloc, typename Free> void pair(benchmark::State &state, Alloc alloc, Free free)
{
	for (auto _ : state) {
		void *block = alloc(HP_PAGE_SIZE);
		benchmark::DoNotOptimize(block);
		free(block);
	}
}

const bool registered = [] {
#ifdef HAVE_MIMALLOC
	Register("page_pair/mimalloc/bytes:4096", [](benchmark::State &state) { pair(state, mi_malloc, mi_free); });
#endif
	// Set by tools/bench in the process that preloads a peer; it puts the peer's name in place of "preload".
	if (std::getenv("HUGEPOOL_BENCH_PRELOAD"))
		Register("page_pair/preload/bytes:4096", [](benchmark::State &state) { pair(state, std::malloc, std::free); });
	return true;
}();

} // namespace
