// Concurrency Kit's ring, whose calls move one element each.
#include "fifo_stream.h"

#ifdef HAVE_CK
#define false 0 // which it also returns where a pointer is wanted; no C++
#include <ck_ring.h>
#undef false

namespace
{

class Ck
{
  public:
	explicit Ck(bool many) : many_(many)
	{
		ck_ring_init(&memory_->ring, fifo_capacity);
	}
	const char *why() const
	{
		return nullptr;
	}
	bool join()
	{
		memory_.populate();
		return true;
	}
	unsigned push(const uint64_t *words, unsigned n)
	{
		unsigned done = 0;
		while (done < n && (many_ ? ck_ring_enqueue_mpmc(&memory_->ring, memory_->buffer, (const void *)words[done])
		                          : ck_ring_enqueue_spsc(&memory_->ring, memory_->buffer, (const void *)words[done])))
			done++;
		return done;
	}
	unsigned pop(uint64_t *words, unsigned n)
	{
		unsigned done = 0;
		while (done < n && (many_ ? ck_ring_dequeue_mpmc(&memory_->ring, memory_->buffer, (void **)&words[done])
		                          : ck_ring_dequeue_spsc(&memory_->ring, memory_->buffer, (void **)&words[done])))
			done++;
		return done;
	}

  private:
	struct Memory {
		ck_ring ring;
		alignas(64) ck_ring_buffer buffer[fifo_capacity];
	};
	Shared<Memory> memory_;
	bool many_;
};

const bool registered = [] {
	register_fifo<Ck>("ck_ring", false);
	register_fifo<Ck>("ck_ring", true);
	return true;
}();

} // namespace
#else
namespace
{
const bool registered = [] {
	register_fifo_missing("ck_ring", "Concurrency Kit was missing when this was built (tools/deps bench)");
	return true;
}();
} // namespace
#endif
