/* The barrier between readers and the collector, alone, as a litmus: a section is a plain store and the loads after it; the
 * collector unlinks, has all processors pass a barrier, and looks at the section.
 *
 * Would catch a kernel or a processor on which the barrier is not what sections rely on. The same without the barrier shows that
 * the outcome is there to be seen: where it is not, the machine has one processor or hides it, and this proves little. */
#include "hp_page.h"

#include <pthread.h>
#include <stdatomic.h>

#include "os/os.h"

static struct {
	_Alignas(128) _Atomic uint64_t section; /* the reader's */
	_Alignas(128) _Atomic uint64_t linked;  /* the root: is the value there? */
	_Alignas(128) _Atomic uint64_t freed;
} at;

static _Atomic bool over;
static uint64_t seen_freed;

/* Stores that miss every cache keep the one to the section in the processor's buffer for a while. */
#define FAR (UINT64_C(64) << 20)
static _Atomic uint64_t *far;

static void *read_all_the_time(void *arg)
{
	uint64_t used = 0, random = 1;
	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		for (int i = 0; i < 6; i++)
			atomic_store_explicit(&far[hp_below(&random, FAR / 64) * 8], used, memory_order_relaxed);
		atomic_store_explicit(&at.section, 1, memory_order_relaxed);
		atomic_signal_fence(memory_order_seq_cst);
		if (atomic_load_explicit(&at.linked, memory_order_acquire)) {
			/* in the section, and found: it may not be freed before the section ends */
			for (int i = 0; i < 100; i++) seen_freed += atomic_load_explicit(&at.freed, memory_order_acquire);
			used++;
		}
		atomic_store_explicit(&at.section, 0, memory_order_release);
	}
	*(uint64_t *)arg = used;
	return NULL;
}

/* Rounds in which the value was freed while the section that had found it went on. */
static uint64_t litmus(bool barrier, int rounds)
{
	pthread_t reader;
	uint64_t used = 0;
	atomic_store(&over, false);
	seen_freed = 0;
	atomic_store(&at.freed, 0);
	atomic_store(&at.linked, 1);
	must_be(pthread_create(&reader, NULL, read_all_the_time, &used), 0);
	for (int i = 0; i < rounds; i++) {
		atomic_store_explicit(&at.linked, 0, memory_order_release);
		if (barrier) must_be(os_membarrier(), 0);
		atomic_signal_fence(memory_order_seq_cst);
		if (atomic_load_explicit(&at.section, memory_order_acquire) == 0) {
			atomic_store_explicit(&at.freed, 1, memory_order_release);
			for (int k = 0; k < 20; k++) atomic_signal_fence(memory_order_seq_cst);
			atomic_store_explicit(&at.freed, 0, memory_order_release);
		}
		/* no section of before may see it freed next time */
		while (atomic_load_explicit(&at.section, memory_order_acquire)) {}
		atomic_store_explicit(&at.linked, 1, memory_order_release);
	}
	atomic_store(&over, true);
	must_be(pthread_join(reader, NULL), 0);
	must(used > 0);
	return seen_freed;
}

static void the_barrier_holds(void **state)
{
	(void)state;
	if (os_membarrier_register() < 0) hp_test_skip_one("this kernel has no membarrier");
	if (HP_TEST_SANITIZER) hp_test_skip_one("a sanitizer orders what is to be tried");
	far = calloc(1, FAR);
	must(far);
	must_be(litmus(true, 300000), 0);
	uint64_t without = litmus(false, 3000000);
	free((void *)far);
	print_message("without the barrier it was seen %llu times\n", (unsigned long long)without);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_barrier_holds)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
