// DPDK's rte_mempool with its cache for each registered thread, over a shared ring: what packet processors use today.
#ifdef HAVE_DPDK
#include <rte_mempool.h>

#include "cache_patterns.h"
#include "rte.h"

namespace
{

struct Mempool {
	rte_mempool *pool;

	[[gnu::always_inline]] void *get()
	{
		void *object;
		return rte_mempool_get(pool, &object) == 0 ? object : nullptr;
	}
	[[gnu::always_inline]] void put(void *object)
	{
		rte_mempool_put(pool, object);
	}
	bool get_bulk(unsigned n, void **objects)
	{
		return rte_mempool_get_bulk(pool, objects, n) == 0;
	}
	void put_bulk(unsigned n, void *const *objects)
	{
		rte_mempool_put_bulk(pool, objects, n);
	}
};

constexpr unsigned pools = 8;
rte_mempool *made[pools];

const char *ready()
{
	if (const char *why = rte_ready()) return why;
	for (unsigned i = 0; i < pools; i++) {
		if (made[i]) continue;
		std::string name = "bench" + std::to_string(i);
		made[i] = rte_mempool_create(name.c_str(), 8191, cache_object, 512, 0, nullptr, nullptr, nullptr, nullptr,
		                             SOCKET_ID_ANY, 0);
		if (!made[i]) return "rte_mempool_create failed";
	}
	return nullptr;
}

Mempool cache(unsigned number)
{
	return {made[number]};
}

const bool registered = [] {
	register_cache_patterns<Mempool>("rte_mempool", ready, cache);
	register_cache_bulk<Mempool>("rte_mempool", ready, cache);
	return true;
}();

} // namespace
#endif
