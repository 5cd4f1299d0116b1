// Workers of a benchmark with several threads or processes: the same code either way. All of them are made before the
// clock starts and wait; those of a later generation begin when all of the one before have finished, so that threads or
// processes come and go without their making being timed. What workers share lies in a Shared, which is shared memory,
// and they wait for each other without any object of pthread. Who waits for long sleeps, so that two workers have two
// CPUs to themselves.
#ifndef HUGEPOOL_CREW_H
#define HUGEPOOL_CREW_H

#include <atomic>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <vector>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

// A zeroed T that forked processes share, all of it in memory from the start.
template <typename T> class Shared
{
  public:
	Shared()
	{
		void *at = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (at == MAP_FAILED) throw std::bad_alloc();
		object_ = new (at) T;
	}
	~Shared()
	{
		munmap(object_, sizeof(T));
	}
	Shared(const Shared &) = delete;
	Shared &operator=(const Shared &) = delete;

	T *operator->() const
	{
		return object_;
	}
	T &operator*() const
	{
		return *object_;
	}
	// A forked process begins with empty page tables for shared memory.
	void populate() const
	{
		madvise(object_, sizeof(T), MADV_POPULATE_WRITE);
	}

  private:
	T *object_;
};

class Crew
{
  public:
	enum Kind { THREADS, PROCESSES };
	struct Plan {
		Kind kind;
		unsigned workers, generations;
		std::function<void()> prepare; // by every worker before the clock starts
		std::function<void(unsigned generation, unsigned worker)> work;
		std::function<void()> leave;   // by every process when it ends
		std::function<void()> give_up; // after a failure: whoever waits for another worker must go on
	};

	explicit Crew(Plan plan); // returns when all of them wait
	~Crew();
	Crew(const Crew &) = delete;
	Crew &operator=(const Crew &) = delete;

	void run();     // returns when all have finished; those of the last generation then sleep until dismissed
	void dismiss(); // returns when all have ended
	const std::string &error() const
	{
		return error_;
	}

  private:
	struct Control {
		std::atomic<uint32_t> ready, go, done, failed, leave;
	};

	void worker(unsigned generation, unsigned worker);
	void await(std::atomic<uint32_t> &word, uint32_t at_least);
	void watch();

	Plan plan_;
	Shared<Control> control_;
	std::vector<std::thread> threads_;
	std::vector<int> pids_; // 0 once waited for
	std::string error_;
};

#endif
