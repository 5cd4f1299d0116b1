// Boost.Interprocess: the general allocator of a managed shared memory segment, under the lock its users share.
#include "shape_run.h"

#ifdef HAVE_BOOST_INTERPROCESS

#include <boost/interprocess/managed_shared_memory.hpp>
#include <unistd.h>

namespace
{

namespace ipc = boost::interprocess;

struct Boost {
	static inline ipc::managed_shared_memory *segment;
	static inline std::string why;

	static const char *ready()
	{
		static const bool made = [] {
			std::string name = "hugepool_bench_" + std::to_string(getpid());
			try {
				segment = new ipc::managed_shared_memory(ipc::create_only, name.c_str(), 32 * MiB);
				void *most = segment->allocate(31 * MiB);
				std::memset(most, 0, 31 * MiB); // in memory from the start, as ours is
				segment->deallocate(most);
			} catch (const std::exception &error) {
				why = std::string("Boost.Interprocess: ") + error.what();
			}
			ipc::shared_memory_object::remove(name.c_str()); // the mapping stays
			return segment != nullptr && why.empty();
		}();
		return made ? nullptr : why.c_str();
	}
	static void *alloc(size_t bytes)
	{
		return segment->allocate(bytes, std::nothrow);
	}
	static void free(void *at, size_t)
	{
		segment->deallocate(at);
	}
	static uint64_t held()
	{
		return segment->get_size() - segment->get_free_memory();
	}
	static void enter() {}
	static void leave() {}
};

const bool registered = [] {
	register_pairs<Boost>("boost");
	register_batches<Boost>("boost");
	return true;
}();

} // namespace
#else
namespace
{
const bool registered = [] {
	constexpr const char *why = "Boost.Interprocess was missing when this was built (tools/deps bench)";
	register_missing("malloc_pair/boost/bytes:64", why);
	register_missing("malloc_batch/boost/bytes:64", why);
	return true;
}();
} // namespace
#endif
