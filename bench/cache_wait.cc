// How long it takes until another process, asleep because a cache is at its limit, has the object that is put back:
// from the put to the return of its get, the median of many. Beside it a bare futex in shared memory, which is the least
// that waking anybody costs.
#include "bench.h"
#include "crew.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef HAVE_HP_CACHE_LIMIT
#include <hugepool/cache.h>
#endif

namespace
{

constexpr unsigned wakeups = 25; // of which the median counts
constexpr unsigned batches = 8;  // in a repetition: each wakeup waits for a process to fall asleep

int64_t now()
{
	timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

bool sleeps(pid_t pid)
{
	char path[64], text[256] = {0}, state = 0;
	std::snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	FILE *file = std::fopen(path, "r");
	if (!file) return false;
	if (std::fgets(text, sizeof text, file)) std::sscanf(text, "%*d (%*[^)]) %c", &state);
	std::fclose(file);
	return state == 'S';
}

struct Waiter {
	std::atomic<uint32_t> round, woken, failed; // round: it is to wait; woken: it has been
	std::atomic<int64_t> woken_at;
};

void pause_until(std::atomic<uint32_t> &word, uint32_t value)
{
	while (word.load(std::memory_order_acquire) < value) usleep(20);
}

// Each wakeup: the other process is told to wait, and does so by wait(); when it sleeps, wake() is called here; it then
// undoes its part by again(). prepare() comes before each. False is failure.
template <typename Prepare, typename Wait, typename Wake, typename Again>
void measure(benchmark::State &state, Prepare prepare, Wait wait, Wake wake, Again again)
{
	Shared<Waiter> waiter;
	pid_t parent = getpid(), pid = fork();
	if (pid < 0) return state.SkipWithError("no second process");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) _exit(1);
		for (uint32_t round = 1;; round++) {
			pause_until(waiter->round, round);
			if (!wait(round)) waiter->failed.store(1, std::memory_order_relaxed);
			waiter->woken_at.store(now(), std::memory_order_relaxed);
			if (!again()) waiter->failed.store(1, std::memory_order_relaxed);
			waiter->woken.store(round, std::memory_order_release);
		}
	}
	uint32_t round = 0;
	for (auto _ : state) {
		int64_t took[wakeups];
		for (int64_t &one : took) {
			if (!prepare() || waiter->failed.load()) {
				state.SkipWithError("a call failed");
				break;
			}
			waiter->round.store(++round, std::memory_order_release);
			for (unsigned seen = 0; seen < 5;) { // it sleeps between looks at `round` too, but not for as long
				usleep(100);
				seen = sleeps(pid) ? seen + 1 : 0;
			}
			int64_t start = now();
			wake(round);
			for (unsigned i = 0; waiter->woken.load(std::memory_order_acquire) != round; i++) {
				usleep(50);
				if (i < 40000) continue;
				state.SkipWithError("the waiter was not woken within two seconds");
				break;
			}
			one = waiter->woken_at.load(std::memory_order_relaxed) - start;
		}
		std::sort(took, took + wakeups);
		state.SetIterationTime((double)took[wakeups / 2] * 1e-9);
	}
	kill(pid, SIGKILL);
	waitpid(pid, nullptr, 0);
}

void bare_futex(benchmark::State &state)
{
	Shared<std::atomic<uint32_t>> word;
	measure(
		state, [] { return true; },
		[&](uint32_t round) {
			while (word->load(std::memory_order_acquire) < round)
				syscall(SYS_futex, &*word, FUTEX_WAIT, round - 1, nullptr, nullptr, 0);
			return true;
		},
		[&](uint32_t round) {
			word->store(round, std::memory_order_release);
			syscall(SYS_futex, &*word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
		},
		[] { return true; });
}

#ifdef HAVE_HP_CACHE_LIMIT
void cache_wakeup(benchmark::State &state)
{
	Pool &pool = object_pool();
	if (!pool) return state.SkipWithError(pool.why().c_str());
	static hp_cache *cache;
	if (!cache) {
		hp_cache_options options{};
		options.struct_size = sizeof options;
		options.size = 64;
		if (hp_cache_create(pool, "wakeup", &options, &cache) != 0 ||
		    hp_cache_set_hard_limit(cache, 1, nullptr, 0) != 0)
			return state.SkipWithError("no cache with a limit of one object");
	}
	void *object = nullptr, *theirs = nullptr;
	measure(
		state, [&] { return (object = hp_cache_get(cache, 0)) != nullptr; },
		[&](uint32_t) { return (theirs = hp_cache_get(cache, HP_CACHE_WAIT)) != nullptr; },
		[&](uint32_t) { hp_cache_put(cache, object); }, [&] { return hp_cache_put(cache, theirs) == 0; });
}
#endif

const bool registered = [] {
	Register("cache_wakeup/futex", bare_futex, benchmark::kMicrosecond)->Iterations(batches)->UseManualTime();
#ifdef HAVE_HP_CACHE_LIMIT
	Register("cache_wakeup/hugepool", cache_wakeup, benchmark::kMicrosecond)->Iterations(batches)->UseManualTime();
#endif
	return true;
}();

} // namespace
