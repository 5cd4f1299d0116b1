/* Waiting for elements, or for room.
 *
 * Who waits reads the futex word, puts the flag up, has all processors pass a barrier, and looks; only then it sleeps. Who pushes
 * or pops looks at the flag after its commit, without a barrier of its own; where the flag is up he takes it down, counts the
 * futex word up, and wakes all, who put it up again if they go on waiting. So a waiter that is dead costs one
 * wake, and one that was killed before his wake costs the others a slice. Model: tests/models/fifo_model.py. */
#include "fifo/fifo.h"
#include "os/os.h"
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#define SLICE_NS UINT64_C(5000000)
#define SPINS 64

void fifo_wake_slow(hp_fifo *fifo, bool pushed)
{
	struct fifo_shared *shared = fifo->shared;
	_Atomic uint32_t *flags = pushed ? &shared->pop_flags : &shared->push_flags;
	_Atomic uint32_t *futex = pushed ? &shared->pop_futex : &shared->push_futex;
	uint32_t mine = FIFO_SLEEPS | (pushed && fifo->eventfd >= 0 ? FIFO_ARMED : 0);
	if (!(atomic_load_explicit(flags, memory_order_relaxed) & mine)) return;
	uint32_t were = atomic_fetch_and(flags, ~mine) & mine;
	if (were & FIFO_SLEEPS) {
		atomic_fetch_add(futex, 1);
		os_futex_wake(futex, INT_MAX);
	}
	if (were & FIFO_ARMED) os_event_signal(fifo->eventfd);
}

/* Before the look, after the flag: for the others, who have no barrier between theirs. */
static void barrier(const hp_fifo *fifo)
{
	if (fifo->fenced || os_membarrier() < 0) atomic_thread_fence(memory_order_seq_cst);
}

struct wanted {
	void *elements; /* or const, to be pushed */
	size_t n;
	enum { PUSH, POP, LOOK } what;
};

static int64_t try(hp_fifo *fifo, const struct wanted *wanted)
{
	switch (wanted->what) {
	case PUSH: return hp_fifo_push_bulk(fifo, wanted->elements, wanted->n);
	case POP: {
		int64_t n = hp_fifo_pop_burst(fifo, wanted->elements, wanted->n);
		return n ? n : -EAGAIN;
	}
	case LOOK: break;
	}
	return hp_fifo_count(fifo) ? 0 : -EAGAIN;
}

static int64_t wait_for(hp_fifo *fifo, const struct wanted *wanted, uint64_t ns)
{
	struct fifo_shared *shared = fifo->shared;
	_Atomic uint32_t *flags = wanted->what == PUSH ? &shared->push_flags : &shared->pop_flags;
	_Atomic uint32_t *futex = wanted->what == PUSH ? &shared->push_futex : &shared->pop_futex;
	int64_t result;
	for (unsigned i = 0; i < SPINS; i++)
		if ((result = try(fifo, wanted)) != -EAGAIN) return result;
	uint64_t now = os_now_ns(), deadline = ns < UINT64_MAX - now ? now + ns : UINT64_MAX;
	for (;;) {
		uint32_t turn = atomic_load_explicit(futex, memory_order_acquire);
		atomic_fetch_or(flags, FIFO_SLEEPS);
		barrier(fifo);
		if ((result = try(fifo, wanted)) != -EAGAIN) return result;
		now = os_now_ns();
		if (now >= deadline) return -ETIMEDOUT;
		os_futex_wait(futex, turn, deadline - now < SLICE_NS ? deadline - now : SLICE_NS);
	}
}

int hp_fifo_push_timed(hp_fifo *fifo, const void *elements, size_t n, uint64_t ns)
{
	return (int)wait_for(fifo, &(struct wanted){(void *)(uintptr_t)elements, n, PUSH}, ns);
}

int64_t hp_fifo_pop_timed(hp_fifo *fifo, void *elements, size_t n, uint64_t ns)
{
	if (n == 0) return -EINVAL;
	return wait_for(fifo, &(struct wanted){elements, n, POP}, ns);
}

int hp_fifo_wait(hp_fifo *fifo, uint64_t ns)
{
	return (int)wait_for(fifo, &(struct wanted){.what = LOOK}, ns);
}

int hp_fifo_set_eventfd(hp_fifo *fifo, int fd)
{
	struct stat st;
	if (fd >= 0 && os_fstat(fd, &st) < 0) return -EBADF;
	fifo->eventfd = fd < 0 ? -1 : fd;
	return 0;
}

int hp_fifo_arm(hp_fifo *fifo)
{
	atomic_fetch_or(&fifo->shared->pop_flags, FIFO_ARMED);
	barrier(fifo);
	return hp_fifo_count(fifo) ? 1 : 0;
}
