// Patterns of allocation that programs show, each a template over an allocator (allocators.h), so that every allocator runs the very
// same code. They are the well-known ones of allocator benchmarks, rebuilt: what each is after stands before it.
//
// A shape has `workers` in each of its `generations`; work() is what one of them does. It lies in shared memory, is all
// zero at first, and holds everything its workers share, so a worker may be a thread or a process. `operations` is what
// the time is divided by: pairs of allocate and free, unless the shape says something else. In the end everything is
// freed. Sizes are 8 bytes at least.
#ifndef HUGEPOOL_SHAPES_H
#define HUGEPOOL_SHAPES_H

#include "bench.h"

#include <cstring>
#include <new>

namespace shape
{

class Random
{
  public:
	explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
	uint32_t next()
	{
		state_ ^= state_ << 13;
		state_ ^= state_ >> 7;
		state_ ^= state_ << 17;
		return (uint32_t)(state_ >> 32);
	}
	uint32_t below(uint32_t limit)
	{
		return (uint32_t)((uint64_t)next() * limit >> 32);
	}
	uint32_t between(uint32_t least, uint32_t most)
	{
		return least + below(most - least + 1);
	}

  private:
	uint64_t state_;
};

template <class Heap> void *take(size_t bytes)
{
	void *at = Heap::alloc(bytes);
	if (!at) throw std::bad_alloc();
	benchmark::DoNotOptimize(at);
	return at;
}

// A block whose user writes it, its size for instance; so whoever frees it need not be told.
template <class Heap> void *make(uint32_t bytes)
{
	void *at = take<Heap>(bytes);
	*(uint32_t *)at = bytes;
	return at;
}
template <class Heap> void unmake(void *at)
{
	Heap::free(at, *(uint32_t *)at);
}

// From one writer to one reader.
template <typename T, uint32_t slots> class Ring
{
  public:
	T *room() // where the next goes, or null
	{
		uint32_t tail = tail_.load(std::memory_order_relaxed);
		return tail - head_.load(std::memory_order_acquire) == slots ? nullptr : &slot_[tail % slots];
	}
	void put()
	{
		tail_.store(tail_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
	}
	T *front() // the oldest, or null
	{
		uint32_t head = head_.load(std::memory_order_relaxed);
		return tail_.load(std::memory_order_acquire) == head ? nullptr : &slot_[head % slots];
	}
	void drop()
	{
		head_.store(head_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
	}

  private:
	alignas(64) std::atomic<uint32_t> head_;
	alignas(64) std::atomic<uint32_t> tail_;
	alignas(64) T slot_[slots];
};

struct Shape {
	alignas(64) std::atomic<uint32_t> given_up;

	// Until `ready` says so; a failure elsewhere ends the wait with an exception.
	template <typename Ready> void await(Ready ready)
	{
		for (unsigned spins = 0; !ready(); spins++) {
			if (given_up.load(std::memory_order_relaxed)) throw std::bad_alloc();
			Turns::relax(spins);
		}
	}
};

// 1,024 blocks allocated, then freed in the same order. bytes 0: of 8 to 1,000 bytes.
template <class Heap, uint32_t bytes> struct Batch : Shape {
	static constexpr unsigned workers = 1, generations = 1;
	static constexpr uint32_t blocks = 1024, rounds = 2048;
	static constexpr uint64_t operations = (uint64_t)blocks * rounds;
	void *block[blocks];
	uint32_t size[blocks];

	void work(unsigned, unsigned)
	{
		Random random(1);
		for (uint32_t &one : size) one = bytes ? bytes : random.between(8, 1000);
		for (uint32_t round = 0; round < rounds; round++) {
			for (uint32_t i = 0; i < blocks; i++) block[i] = take<Heap>(size[i]);
			for (uint32_t i = 0; i < blocks; i++) Heap::free(block[i], size[i]);
		}
	}
};
template <class Heap> using Batch64 = Batch<Heap, 64>;
template <class Heap> using BatchMixed = Batch<Heap, 0>;

// Among 4,096 blocks of 8 to 1,000 bytes a random one is freed and another of another size takes its place.
template <class Heap> struct Replace : Shape {
	static constexpr unsigned workers = 1, generations = 1;
	static constexpr uint32_t blocks = 4096, rounds = 2000000;
	static constexpr uint64_t operations = blocks + rounds;
	void *block[blocks];
	uint32_t size[blocks];

	void work(unsigned, unsigned)
	{
		Random random(2);
		for (uint32_t i = 0; i < blocks; i++) block[i] = take<Heap>(size[i] = random.between(8, 1000));
		for (uint32_t round = 0; round < rounds; round++) {
			uint32_t i = random.below(blocks);
			Heap::free(block[i], size[i]);
			block[i] = take<Heap>(size[i] = random.between(8, 1000));
		}
		for (uint32_t i = 0; i < blocks; i++) Heap::free(block[i], size[i]);
	}
};

// larson: a server. Each worker replaces blocks of 8 to 1,000 bytes at random in a table of 5,000; then it ends, and a
// new one inherits the table. Blocks outlive who allocated them.
template <class Heap> struct Larson : Shape {
	static constexpr unsigned workers = 2, generations = 5;
	static constexpr uint32_t blocks = 5000, rounds = 200000;
	static constexpr uint64_t operations = (uint64_t)workers * (generations * rounds + blocks);
	void *block[workers][blocks];

	void work(unsigned generation, unsigned worker)
	{
		Random random(generation * workers + worker);
		void **mine = block[worker];
		if (generation == 0)
			for (uint32_t i = 0; i < blocks; i++) mine[i] = make<Heap>(random.between(8, 1000));
		for (uint32_t round = 0; round < rounds; round++) {
			uint32_t i = random.below(blocks);
			unmake<Heap>(mine[i]);
			mine[i] = make<Heap>(random.between(8, 1000));
		}
		if (generation == generations - 1)
			for (uint32_t i = 0; i < blocks; i++) unmake<Heap>(mine[i]);
	}
};

// xmalloc: one worker allocates 64-byte blocks in batches of 4,096, the other frees them, with at most 100 batches
// between them. Nothing is ever freed by who allocated it.
template <class Heap> struct Xmalloc : Shape {
	static constexpr unsigned workers = 2, generations = 1;
	static constexpr uint32_t batches = 400, batch = 4096, bytes = 64;
	static constexpr uint64_t operations = (uint64_t)batches * batch;
	struct Blocks {
		void *block[batch];
	};
	Ring<Blocks, 100> ring;

	void work(unsigned, unsigned worker)
	{
		Blocks *now;
		for (uint32_t i = 0; i < batches; i++) {
			if (worker == 0) {
				await([&] { return (now = ring.room()) != nullptr; });
				for (void *&block : now->block) block = take<Heap>(bytes);
				ring.put();
			} else {
				await([&] { return (now = ring.front()) != nullptr; });
				for (void *block : now->block) Heap::free(block, bytes);
				ring.drop();
			}
		}
	}
};

// sh6, sh8: many small blocks of one size, freed partly in reverse order, partly in order; some live a round longer. In
// sh6 those are freed by who allocated them, in sh8 by the other worker.
template <class Heap, bool passed> struct Sh : Shape {
	static constexpr unsigned workers = 2, generations = 1;
	static constexpr uint32_t blocks = 1024, rounds = 1500, kept_of = 8, sizes = 31;
	static constexpr uint64_t operations = (uint64_t)workers * blocks * rounds;
	void *block[workers][blocks], *kept[workers][blocks / kept_of];
	Ring<void *, 8 * blocks / kept_of> ring[workers]; // to this worker
	std::atomic<uint32_t> finished;

	void receive(unsigned worker)
	{
		for (void **at; (at = ring[worker].front());) {
			unmake<Heap>(*at);
			ring[worker].drop();
		}
	}
	void keep(unsigned worker, uint32_t number, void *at)
	{
		if (passed) {
			auto &other = ring[1 - worker];
			await([&] {
				receive(worker);
				return other.room();
			});
			*other.room() = at;
			other.put();
		} else {
			if (kept[worker][number]) unmake<Heap>(kept[worker][number]);
			kept[worker][number] = at;
		}
	}
	void work(unsigned, unsigned worker)
	{
		void **mine = block[worker];
		for (uint32_t round = 0; round < rounds; round++) {
			uint32_t bytes = 16 + round * 7 % sizes * 16;
			for (uint32_t i = 0; i < blocks; i++) mine[i] = make<Heap>(bytes);
			for (uint32_t i = 0; i < blocks; i += kept_of) keep(worker, i / kept_of, mine[i]);
			for (uint32_t i = blocks; i-- > blocks / 2;)
				if (i % kept_of) unmake<Heap>(mine[i]);
			for (uint32_t i = 0; i < blocks / 2; i++)
				if (i % kept_of) unmake<Heap>(mine[i]);
			if (passed) receive(worker);
		}
		for (void *at : kept[worker])
			if (at) unmake<Heap>(at);
		finished.fetch_add(1, std::memory_order_acq_rel);
		if (passed)
			await([&] {
				bool last = finished.load(std::memory_order_acquire) == workers;
				receive(worker);
				return last;
			});
	}
};
template <class Heap> using Sh6 = Sh<Heap, false>;
template <class Heap> using Sh8 = Sh<Heap, true>;

// mstress: sizes near powers of two, now and then a large one; blocks wander through a table that all share; and all
// workers are replaced again and again. An operation is a step: an allocation, a free or an exchange.
template <class Heap> struct Mstress : Shape {
	static constexpr unsigned workers = 2, generations = 12;
	static constexpr uint32_t steps = 40000, most = 2000, places = 1000;
	static constexpr uint64_t operations = (uint64_t)workers * generations * steps;
	void *block[workers][most];
	std::atomic<void *> exchange[places];
	std::atomic<uint32_t> finished;

	static uint32_t size(Random &random)
	{
		uint32_t chance = random.below(1000);
		uint32_t low = chance == 0 ? 14 : chance < 10 ? 10 : 3, powers = chance == 0 ? 4 : chance < 10 ? 4 : 7;
		uint32_t power = UINT32_C(1) << (low + random.below(powers));
		return power + random.below(power / 4 + 1);
	}
	void work(unsigned generation, unsigned worker)
	{
		Random random(generation * workers + worker + 100);
		void **mine = block[worker];
		uint32_t count = 0;
		for (uint32_t step = 0; step < steps; step++) {
			uint32_t what = random.below(8);
			if (count == 0 || (what < 4 && count < most)) {
				mine[count++] = make<Heap>(size(random));
				continue;
			}
			uint32_t i = random.below(count);
			if (what == 7)
				mine[i] = exchange[random.below(places)].exchange(mine[i], std::memory_order_acq_rel);
			else
				unmake<Heap>(mine[i]);
			if (what != 7 || !mine[i]) mine[i] = mine[--count];
		}
		while (count) unmake<Heap>(mine[--count]);
		if (finished.fetch_add(1, std::memory_order_acq_rel) + 1 == workers * generations)
			for (auto &place : exchange)
				if (void *at = place.load(std::memory_order_relaxed)) unmake<Heap>(at);
	}
};

// rptest: sizes of 8 to 16,000 bytes, the larger the rarer; each loop replaces 100 random blocks of a table of 1,000;
// every second loop a set of 50 goes to the other worker, who frees it.
template <class Heap> struct Rptest : Shape {
	static constexpr unsigned workers = 2, generations = 1;
	static constexpr uint32_t blocks = 1000, loops = 4000, replaced = 100, set = 50;
	static constexpr uint64_t operations = (uint64_t)workers * (blocks + loops * replaced + loops / 2 * set);
	struct Set {
		void *block[set];
	};
	void *block[workers][blocks];
	Ring<Set, 16> ring[workers]; // to this worker
	std::atomic<uint32_t> finished;

	static uint32_t size(Random &random)
	{
		uint32_t a = random.between(8, 16000), b = random.between(8, 16000);
		return a < b ? a : b;
	}
	void receive(unsigned worker)
	{
		for (Set *now; (now = ring[worker].front());) {
			for (void *at : now->block) unmake<Heap>(at);
			ring[worker].drop();
		}
	}
	void work(unsigned, unsigned worker)
	{
		Random random(worker + 200);
		void **mine = block[worker];
		for (uint32_t i = 0; i < blocks; i++) mine[i] = make<Heap>(size(random));
		for (uint32_t loop = 0; loop < loops; loop++) {
			for (uint32_t i = 0; i < replaced; i++) {
				void *&at = mine[random.below(blocks)];
				unmake<Heap>(at);
				at = make<Heap>(size(random));
			}
			receive(worker);
			if (loop % 2 == 0) continue;
			Set *now;
			await([&] {
				receive(worker);
				return (now = ring[1 - worker].room()) != nullptr;
			});
			for (void *&at : now->block) at = make<Heap>(size(random));
			ring[1 - worker].put();
		}
		for (uint32_t i = 0; i < blocks; i++) unmake<Heap>(mine[i]);
		finished.fetch_add(1, std::memory_order_acq_rel);
		await([&] {
			bool last = finished.load(std::memory_order_acquire) == workers;
			receive(worker);
			return last;
		});
	}
};

// cache-scratch: one worker allocates a small block for each; then each frees its own, and allocates, writes 200 times
// and frees one of the same size, again and again. An allocator that hands out what came back puts both workers on one
// cache line.
template <class Heap> struct CacheScratch : Shape {
	static constexpr unsigned workers = 2, generations = 1;
	static constexpr uint32_t rounds = 400000, writes = 200, bytes = 8;
	static constexpr uint64_t operations = (uint64_t)workers * rounds;
	std::atomic<void *> first[workers];

	static void scratch(void *at)
	{
		volatile uint32_t *word = (volatile uint32_t *)at;
		for (uint32_t i = 0; i < writes; i++) *word = *word + i;
	}
	void work(unsigned, unsigned worker)
	{
		if (worker == 0)
			for (auto &one : first) one.store(take<Heap>(bytes), std::memory_order_release);
		void *at;
		await([&] { return (at = first[worker].load(std::memory_order_acquire)) != nullptr; });
		scratch(at);
		Heap::free(at, bytes);
		for (uint32_t round = 0; round < rounds; round++) {
			at = take<Heap>(bytes);
			*(volatile uint32_t *)at = 0;
			scratch(at);
			Heap::free(at, bytes);
		}
	}
};

// glibc-simple: 25 to 1,600 blocks of one size, all allocated, then freed in order or in reverse.
template <class Heap> struct GlibcSimple : Shape {
	static constexpr unsigned workers = 1, generations = 1;
	static constexpr uint32_t most = 1600, rounds = 200;
	static constexpr uint64_t operations = (uint64_t)most * 4 * 3 * rounds;
	void *block[most];

	void work(unsigned, unsigned)
	{
		for (uint32_t round = 0; round < rounds; round++)
			for (uint32_t bytes : {16, 128, 1024})
				for (uint32_t count : {25, 100, 400, 1600})
					for (uint32_t turn = 0; turn < most / count; turn++) {
						for (uint32_t i = 0; i < count; i++) block[i] = make<Heap>(bytes);
						for (uint32_t i = 0; i < count; i++) Heap::free(block[turn % 2 ? i : count - 1 - i], bytes);
					}
	}
};

// glibc-thread: random replacement among 1,024 blocks of 8 bytes to 32 KiB, each size as rare as its square, each worker
// for itself.
template <class Heap> struct GlibcThread : Shape {
	static constexpr unsigned workers = 2, generations = 1;
	static constexpr uint32_t blocks = 1024, rounds = 1500000, sizes = 4096;
	static constexpr uint64_t operations = (uint64_t)workers * (blocks + rounds);
	void *block[workers][blocks];
	uint32_t size[workers][sizes];

	void work(unsigned, unsigned worker)
	{
		Random random(worker + 300);
		void **mine = block[worker];
		constexpr double least = 8, largest = 32768;
		for (uint32_t &one : size[worker])
			one = (uint32_t)(least / (1 - random.below(1u << 24) / (double)(1u << 24) * (1 - least / largest)));
		for (uint32_t i = 0; i < blocks; i++) mine[i] = make<Heap>(size[worker][random.below(sizes)]);
		for (uint32_t round = 0; round < rounds; round++) {
			void *&at = mine[random.below(blocks)];
			unmake<Heap>(at);
			at = make<Heap>(size[worker][random.below(sizes)]);
		}
		for (uint32_t i = 0; i < blocks; i++) unmake<Heap>(mine[i]);
	}
};

} // namespace shape

#endif
