/* bell.h has the design. */
#include "bell.h"

#include "os/os.h"

#include <limits.h>

void bell_ring(struct bell *bell)
{
	/* Orders what was published before the look at `sleeping`, as bell_listen orders the mark before its look at
	 * what is published: one of the two sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&bell->sleeping, memory_order_relaxed) == 0) return;
	atomic_store_explicit(&bell->sleeping, 0, memory_order_relaxed); /* one wake is enough */
	atomic_fetch_add_explicit(&bell->count, 1, memory_order_release);
	os_futex_wake(&bell->count, INT_MAX);
}

uint32_t bell_listen(struct bell *bell)
{
	uint32_t heard = atomic_load_explicit(&bell->count, memory_order_acquire);
	atomic_store_explicit(&bell->sleeping, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst); /* the other half of bell_ring's */
	return heard;
}

void bell_sleep(struct bell *bell, uint32_t heard, uint64_t ns)
{
	os_futex_wait(&bell->count, heard, ns);
	bell_cancel(bell);
}

void bell_cancel(struct bell *bell)
{
	atomic_store_explicit(&bell->sleeping, 0, memory_order_relaxed);
}
