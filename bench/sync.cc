// Locking and unlocking a mutex that nobody else wants, waiting for and posting a unit that is there; and two processes that
// hand two units to each other, which is what waking costs. Beside them pthread's process-shared mutexes, robust and not, and
// sem_t, in shared memory.
#include "bench.h"
#include "crew.h"

#include <csignal>
#include <pthread.h>
#include <semaphore.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace
{

hp_container container()
{
	static hp_container made = [] {
		hp_container at{};
		Pool &pool = object_pool();
		if (pool && hp_container_default(pool, &at) < 0) at.pool = nullptr;
		return at;
	}();
	return made;
}

void lock(benchmark::State &state)
{
	hp_container at = container();
	hp_mutex mutex;
	if (!at.pool || hp_mutex_open(&at, "mutex", 0, &mutex) < 0) return state.SkipWithError("no mutex");
	for (auto _ : state)
		if (hp_mutex_lock(&mutex) < 0 || hp_mutex_unlock(&mutex) < 0) return state.SkipWithError("a call failed");
}

void lock_pthread(benchmark::State &state, bool robust)
{
	Shared<pthread_mutex_t> mutex;
	pthread_mutexattr_t how;
	pthread_mutexattr_init(&how);
	pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
	if (robust) pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&*mutex, &how);
	for (auto _ : state)
		if (pthread_mutex_lock(&*mutex) || pthread_mutex_unlock(&*mutex)) return state.SkipWithError("a call failed");
	pthread_mutex_destroy(&*mutex);
	pthread_mutexattr_destroy(&how);
}

void wait_and_post(benchmark::State &state, unsigned flags)
{
	hp_container at = container();
	hp_sem sem;
	if (!at.pool || hp_sem_open(&at, flags ? "undo" : "sem", flags, 4, &sem) < 0)
		return state.SkipWithError("no semaphore");
	for (auto _ : state)
		if (hp_sem_wait(&sem) < 0 || hp_sem_post(&sem) < 0) return state.SkipWithError("a call failed");
}

void wait_and_post_libc(benchmark::State &state)
{
	Shared<sem_t> sem;
	sem_init(&*sem, 1, 4);
	for (auto _ : state)
		if (sem_wait(&*sem) || sem_post(&*sem)) return state.SkipWithError("a call failed");
	sem_destroy(&*sem);
}

// There and back: a unit for the other process, and one from it.
template <typename Post, typename Wait> void hand_over(benchmark::State &state, Post post, Wait wait)
{
	pid_t parent = getpid(), pid = fork();
	if (pid < 0) return state.SkipWithError("no second process");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) _exit(1);
		for (;;) {
			wait(0);
			post(1);
		}
	}
	for (auto _ : state) {
		post(0);
		wait(1);
	}
	kill(pid, SIGKILL);
	waitpid(pid, nullptr, 0);
}

void hand_over_ours(benchmark::State &state)
{
	hp_container at = container();
	hp_sem sem[2];
	if (!at.pool || hp_sem_open(&at, "there", 0, 0, &sem[0]) < 0 || hp_sem_open(&at, "back", 0, 0, &sem[1]) < 0)
		return state.SkipWithError("no semaphores");
	hand_over(
		state, [&](int i) { hp_sem_post(&sem[i]); }, [&](int i) { hp_sem_wait(&sem[i]); });
}

void hand_over_libc(benchmark::State &state)
{
	struct Pair {
		sem_t sem[2];
	};
	Shared<Pair> pair;
	for (sem_t &one : pair->sem) sem_init(&one, 1, 0);
	hand_over(
		state, [&](int i) { sem_post(&pair->sem[i]); }, [&](int i) { sem_wait(&pair->sem[i]); });
}

const bool registered = [] {
	Register("sync_lock/hugepool", lock);
	Register("sync_lock/pthread_robust", [](benchmark::State &state) { lock_pthread(state, true); });
	Register("sync_lock/pthread", [](benchmark::State &state) { lock_pthread(state, false); });
	Register("sync_sem/hugepool", [](benchmark::State &state) { wait_and_post(state, 0); });
	Register("sync_sem/sem_t", wait_and_post_libc);
	Register("sync_sem_undo/hugepool", [](benchmark::State &state) { wait_and_post(state, HP_SEM_UNDO); });
	Register("sync_hand_over/hugepool", hand_over_ours, benchmark::kMicrosecond)->UseRealTime();
	Register("sync_hand_over/sem_t", hand_over_libc, benchmark::kMicrosecond)->UseRealTime();
	return true;
}();

} // namespace
