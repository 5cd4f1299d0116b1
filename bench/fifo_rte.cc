// DPDK's ring. It needs nothing else of DPDK, and lies in plain shared memory.
#include "fifo_stream.h"

#ifdef HAVE_DPDK
#include <rte_ring.h>

namespace
{

class Rte
{
  public:
	explicit Rte(bool many)
	{
		ssize_t bytes = rte_ring_get_memsize(fifo_capacity);
		if (bytes > 0 && (size_t)bytes <= sizeof(Memory) &&
		    rte_ring_init((rte_ring *)memory_->bytes, "bench", fifo_capacity,
		                  many ? 0 : RING_F_SP_ENQ | RING_F_SC_DEQ) == 0)
			ring_ = (rte_ring *)memory_->bytes;
	}
	const char *why() const
	{
		return ring_ ? nullptr : "rte_ring_init fails";
	}
	bool join()
	{
		memory_.populate();
		return true;
	}
	unsigned push(const uint64_t *words, unsigned n)
	{
		if (n == 1) return rte_ring_enqueue(ring_, (void *)words[0]) == 0;
		return rte_ring_enqueue_burst(ring_, (void *const *)words, n, nullptr);
	}
	unsigned pop(uint64_t *words, unsigned n)
	{
		if (n == 1) return rte_ring_dequeue(ring_, (void **)words) == 0;
		return rte_ring_dequeue_burst(ring_, (void **)words, n, nullptr);
	}

  private:
	struct Memory {
		alignas(4096) char bytes[64 * KiB];
	};
	Shared<Memory> memory_;
	rte_ring *ring_ = nullptr;
};

const bool registered = [] {
	register_fifo<Rte>("rte_ring", false);
	register_fifo<Rte>("rte_ring", true);
	return true;
}();

} // namespace
#else
namespace
{
const bool registered = [] {
	register_fifo_missing("rte_ring", "DPDK was missing when this was built (tools/deps bench)");
	return true;
}();
} // namespace
#endif
