// One process pushes, another pops, each on a CPU of its own: the time of an element, from one end of the ring to the other, as long
// as both go as fast as they can. And both ends in one thread, where nothing but the instructions counts. The memory is shared;
// of the peers it is plain shared memory.
#ifndef HUGEPOOL_FIFO_STREAM_H
#define HUGEPOOL_FIFO_STREAM_H

#include "bench.h"
#include "crew.h"

#include <csignal>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

constexpr unsigned fifo_capacity = 1024; // of which peers may use one less
constexpr unsigned fifo_burst = 32;

// The nth CPU that this process may run on; false: it has none.
inline bool fifo_pin(unsigned n, cpu_set_t *before)
{
	cpu_set_t set, one;
	sched_getaffinity(0, sizeof set, &set);
	if (before) *before = set;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &set) || n--) continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		return sched_setaffinity(0, sizeof one, &one) == 0;
	}
	return false;
}

// Ring: why(), push(words, n) and pop(words, n) for up to n of them, join() for the process that pops.
template <typename Ring> void fifo_stream(benchmark::State &state, Ring &ring, unsigned burst)
{
	if (const char *why = ring.why()) return state.SkipWithError(why);
	cpu_set_t before;
	if (!fifo_pin(1, &before)) return state.SkipWithError("one CPU only");
	sched_setaffinity(0, sizeof before, &before);
	pid_t parent = getpid(), pid = fork();
	if (pid < 0) return state.SkipWithError("no second process");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent || !fifo_pin(1, nullptr) || !ring.join()) _exit(1);
		uint64_t words[fifo_burst], sum = 0;
		for (unsigned spins = 0;;) {
			unsigned n = ring.pop(words, burst);
			if (n == 0) {
				Turns::relax(spins++);
				continue;
			}
			spins = 0;
			for (unsigned i = 0; i < n; i++) sum += words[i];
			if (words[n - 1] == UINT64_MAX) _exit(sum == 0); // never 0
		}
	}
	fifo_pin(0, nullptr);
	uint64_t words[fifo_burst] = {};
	auto push = [&](unsigned n) {
		for (unsigned done = 0, spins = 0; done < n;) {
			unsigned now = ring.push(words + done, n - done);
			if (now == 0) Turns::relax(spins++);
			done += now;
		}
	};
	uint64_t next = 1;
	constexpr unsigned batch = 4096;
	while (state.KeepRunningBatch(batch))
		for (unsigned i = 0; i < batch; i += burst) {
			for (unsigned k = 0; k < burst; k++) words[k] = next++;
			push(burst);
		}
	words[0] = UINT64_MAX;
	push(1);
	int status = -1;
	waitpid(pid, &status, 0);
	sched_setaffinity(0, sizeof before, &before);
	if (status) state.SkipWithError("the process that pops has failed");
}

template <typename Ring> void fifo_pair(benchmark::State &state, Ring &ring, unsigned burst)
{
	if (const char *why = ring.why()) return state.SkipWithError(why);
	uint64_t words[fifo_burst] = {1};
	bool ok = true;
	for (auto _ : state) {
		ok &= ring.push(words, burst) == burst;
		ok &= ring.pop(words, burst) == burst;
		benchmark::DoNotOptimize(words);
	}
	if (!ok) state.SkipWithError("a call failed");
}

// All of one implementation. many: whether it is made for many producers and consumers.
template <typename Ring> void register_fifo(const std::string &name, bool many)
{
	std::string kind = many ? "_mpmc" : "";
	for (unsigned burst : {1u, fifo_burst}) {
		std::string rest = "/" + name + "/n:" + std::to_string(burst);
		Register("fifo" + kind + rest, [=](benchmark::State &state) {
			Ring ring(many);
			fifo_stream(state, ring, burst);
		})->UseRealTime();
		Register("fifo_pair" + kind + rest, [=](benchmark::State &state) {
			Ring ring(many);
			fifo_pair(state, ring, burst);
		});
	}
}

inline void register_fifo_missing(const std::string &name, const char *why)
{
	for (const char *kind : {"fifo/", "fifo_mpmc/", "fifo_pair/", "fifo_pair_mpmc/"})
		for (const char *burst : {"/n:1", "/n:32"}) register_missing(kind + name + burst, why);
}

#endif
