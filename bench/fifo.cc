// Our fifos; fifo_rte.cc and fifo_ck.cc have their peers.
#include "fifo_stream.h"

#include <hugepool/fifo.h>

namespace
{

class Ours
{
  public:
	explicit Ours(bool many)
	{
		hp_fifo_options options = {};
		options.struct_size = sizeof options;
		options.capacity = fifo_capacity;
		options.flags = many ? HP_FIFO_MP | HP_FIFO_MC : 0;
		if (page_pool()) hp_fifo_create(page_pool(), &options, &fifo_);
	}
	~Ours()
	{
		if (other_) hp_fifo_close(other_);
		if (fifo_) hp_fifo_destroy(fifo_, HP_FIFO_DISCARD);
	}
	Ours(const Ours &) = delete;
	Ours &operator=(const Ours &) = delete;
	const char *why() const
	{
		return fifo_ ? nullptr : page_pool() ? "no fifo is to be had" : kept(page_pool().why());
	}
	bool join()
	{
		return hp_fifo_open(page_pool(), hp_fifo_id(fifo_), &other_) == 0;
	}
	unsigned push(const uint64_t *words, unsigned n)
	{
		if (n == 1) return hp_fifo_push(fifo_, words) == 0;
		return (unsigned)hp_fifo_push_burst(fifo_, words, n);
	}
	unsigned pop(uint64_t *words, unsigned n)
	{
		hp_fifo *fifo = other_ ? other_ : fifo_;
		if (n == 1) return hp_fifo_pop(fifo, words) == 0;
		return (unsigned)hp_fifo_pop_burst(fifo, words, n);
	}

  private:
	hp_fifo *fifo_ = nullptr, *other_ = nullptr;
};

const bool registered = [] {
	register_fifo<Ours>("hugepool", false);
	register_fifo<Ours>("hugepool", true);
	return true;
}();

} // namespace
