// A process' life with a pool: attaching, and what its death costs those who go on.
#include "bench.h"

#include <csignal>
#include <cstring>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace
{

// A pool of 1 GiB on 2 MiB pages, all of it entered into this process' page tables.
void attach(benchmark::State &state)
{
	Pool pool(1 * GiB, HP_RUNG_2M, HP_CHOICE_REQUIRE);
	if (!pool) return state.SkipWithError(pool.why().c_str());
	int fds[3];
	hp_pool_fds(pool, fds);
	for (auto _ : state) {
		hp_pool *other = nullptr;
		int error = hp_pool_attach(fds, nullptr, &other);
		if (error) return state.SkipWithError(std::strerror(-error));
		state.PauseTiming();
		hp_pool_detach(other);
		state.ResumeTiming();
	}
}

constexpr unsigned held = 4096;

// A child that allocates `held` blocks, says so, and waits for its end. What it allocated is left in `blocks`.
pid_t start_holder(hp_pool *pool, unsigned flags, hp_off *blocks)
{
	int ready[2];
	if (pipe(ready) != 0) return -1;
	pid_t pid = fork();
	if (pid == 0) {
		char said = 1;
		for (unsigned i = 0; i < held; i++) {
			void *block;
			if (hp_page_alloc(pool, HP_PAGE_SIZE, flags, &block) != 0) said = 0;
			blocks[i] = hp_pool_offset(pool, block);
		}
		if (write(ready[1], &said, 1) != 1) _exit(1);
		for (;;) pause();
	}
	close(ready[1]);
	char said = 0;
	bool ok = pid > 0 && read(ready[0], &said, 1) == 1 && said == 1;
	close(ready[0]);
	if (pid > 0 && !ok) {
		kill(pid, SIGKILL);
		waitpid(pid, nullptr, 0);
		return -1;
	}
	return pid;
}

// A process that holds 4,096 single pages is killed; timed is the recovery by a survivor.
void recover(benchmark::State &state, unsigned flags)
{
	Pool pool(1 * GiB, HP_RUNG_2M, HP_CHOICE_PREFER);
	if (!pool) return state.SkipWithError(pool.why().c_str());
	state.SetLabel(pool.pages());
	void *shared = mmap(nullptr, held * sizeof(hp_off), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) return state.SkipWithError("no memory");
	hp_off *blocks = (hp_off *)shared;
	const char *error = nullptr;
	for (auto _ : state) {
		state.PauseTiming();
		pid_t pid = start_holder(pool, flags, blocks);
		if (pid < 0) {
			error = "the child could not allocate";
		} else {
			kill(pid, SIGKILL);
			waitpid(pid, nullptr, 0);
		}
		state.ResumeTiming();
		int recovered = hp_pool_recover(pool);
		state.PauseTiming();
		if (recovered < 1 && !error) error = "nothing was recovered";
		if (!(flags & HP_PAGE_PROCESS))
			for (unsigned i = 0; i < held && !error; i++)
				if (hp_page_free_at(pool, blocks[i]) != 0) error = "a block of the dead process was lost";
		state.ResumeTiming();
		if (error) break;
	}
	munmap(shared, held * sizeof(hp_off));
	if (error) state.SkipWithError(error);
}

const Register attaching("attach/hugepool", attach, benchmark::kMillisecond);
const Register pool_class(
	"recover/hugepool/class:pool", [](benchmark::State &state) { recover(state, 0); }, benchmark::kMillisecond);
const Register process_class(
	"recover/hugepool/class:process", [](benchmark::State &state) { recover(state, HP_PAGE_PROCESS); },
	benchmark::kMillisecond);

} // namespace
