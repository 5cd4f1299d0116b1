/* Pins: memory that the kernel may write to stays what it is, whoever frees it, and whoever dies.
 *
 * Catches: objects or pages handed out, wiped or given back to the kernel while I/O on them is in flight; frees that are lost
 * meanwhile, or done twice; pins that stay when their ring is gone. The kernel's part, to hold the ring's descriptor for longer
 * than its process lives, is played by a child of it. */
#include "hp_cache.h"
#include "hp_malloc.h"
#include "hp_page.h"
#include "hp_process.h"
#include "io/pin.h"
#include "page/page.h"
#include "slab/slab.h"
#include <hugepool/cache.h>
#include <hugepool/debug.h>
#include <hugepool/inspect.h>
#include <hugepool/malloc.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

static struct pin_table *table_of(hp_pool *pool, uint32_t pins)
{
	struct pin_table *table;
	int life;
	must_be(pin_open(pool, pins, &table, &life), 0);
	close(life); /* there is no kernel that needs it */
	return table;
}

static hp_cache *cache_of(hp_pool *pool, size_t size)
{
	const struct hp_cache_options options = {.struct_size = sizeof(options), .size = size};
	hp_cache *cache;
	must_be(hp_cache_create(pool, "buffers", &options, &cache), 0);
	return cache;
}

/* All objects of that size there are; is one of them at that offset? */
static bool is_to_be_had(hp_pool *pool, hp_off off, size_t size)
{
	enum { MOST = 4096 };
	static void *block[MOST];
	unsigned count = 0;
	bool found = false;
	while (count < MOST && (block[count] = hp_malloc(pool, size))) {
		hp_off at = hp_pool_offset(pool, block[count++]);
		found |= off >= at && off < at + size;
	}
	while (count) must_be(hp_free(pool, block[--count]), 0);
	return found;
}

static void what_is_freed_under_io_is_free_afterwards(void **state)
{
	(void)state;
	const size_t sizes[] = {64, 2048, 16384, 40000, 3000000};
	for (unsigned i = 0; i < 10; i++) {
		const size_t size = sizes[i % 5];
		hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
		struct pin_table *table = table_of(pool, 8);
		char *block = hp_malloc(pool, size);
		hp_off off = hp_pool_offset(pool, block);
		if (i >= 5) { /* the first pin in a slab is another way than those that follow */
			must_be(pin_add(table, 0, off, 1), 0);
			pin_drop(table, 0);
		}
		must_be(pin_add(table, 3, off + 5, size - 9), 0);
		must(hp_usable_size(pool, block) >= size);
		hp_must_be_sound(pool);
		must_be(hp_free(pool, block), 0);
		must_be(hp_free(pool, block), -EALREADY);
		must_be(hp_usable_size(pool, block), 0);
		must(!is_to_be_had(pool, off, size));
		pin_drop(table, 3);
		must(is_to_be_had(pool, off, size));
		pin_close(table);
		hp_purge(pool);
		hp_must_be_empty(pool);
		must_be(hp_pool_detach(pool), 0);
	}
}

static void what_is_not_freed_is_its_holders_again(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
	struct pin_table *table = table_of(pool, 8), *other = table_of(pool, 8);
	hp_cache *cache = cache_of(pool, 1000);
	for (unsigned round = 0; round < 3; round++) {
		char *object = hp_cache_get(cache, 0), *array = hp_cache_get_array(cache, 0, 5), *kept = hp_cache_get(cache, 0);
		void *pages;
		must_be(hp_page_alloc(pool, 3 * PAGE, 0, &pages), 0);
		hp_off off = hp_pool_offset(pool, object), run = hp_pool_offset(pool, pages);
		must_be(pin_add(table, 0, off, 1000), 0);
		must_be(pin_add(other, 0, off + 999, 1), 0);
		must_be(pin_add(table, 1, run + PAGE + 17, PAGE), 0);
		must_be(pin_add(other, 1, run, 3 * PAGE), 0);
		must_be(pin_add(table, 2, hp_pool_offset(pool, array), 5 * 1000), 0);
		must_be(hp_page_size(pool, pages), 3 * PAGE);
		must_be(hp_stats(pool).rings, 2);
		must_be(hp_stats(pool).pinned_blocks, 1 + 1 + 5);
		must(hp_stats(pool).pinned_bytes >= 3 * PAGE + 6 * 1000);
		must_be(hp_stats(pool).live_blocks, 1);
		hp_must_be_sound(pool);
		pin_drop(round & 1 ? table : other, 0);
		pin_drop(round & 1 ? other : table, 1);
		if (round == 2) {
			must_be(hp_cache_put(cache, object), 0);
			must_be(hp_page_free(pool, pages), 0);
			must_be(hp_page_free(pool, pages), -EALREADY);
			must_be(hp_cache_put_array(cache, array, 5), 0);
		}
		pin_drop(table, 0), pin_drop(other, 0), pin_drop(table, 1), pin_drop(other, 1), pin_drop(table, 2);
		must_be(hp_cache_put(cache, object), round == 2 ? -EALREADY : 0);
		must_be(hp_page_free(pool, pages), round == 2 ? -EALREADY : 0);
		must_be(hp_cache_put_array(cache, array, 5), round == 2 ? -EALREADY : 0);
		must_be(hp_cache_put(cache, kept), 0);
	}
	pin_close(table), pin_close(other);
	must_be(hp_cache_destroy(cache), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void only_what_is_somebodys_can_be_pinned(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
	struct pin_table *table = table_of(pool, 16);
	char *block = hp_malloc(pool, 1024), *next = hp_malloc(pool, 1024);
	hp_off off = hp_pool_offset(pool, block);
	void *pages;
	must_be(hp_page_alloc(pool, 2 * PAGE, 0, &pages), 0);
	hp_off run = hp_pool_offset(pool, pages);
	must_be(pin_add(table, 16, off, 1), -EINVAL);
	must_be(pin_add(table, 0, off, 0), -EINVAL);
	must_be(pin_add(table, 0, 4 * MIB, 1), -EINVAL);
	must_be(pin_add(table, 0, UINT64_MAX, 2), -EINVAL);
	must_be(pin_add(table, 0, run, 2 * PAGE + 1), -EINVAL);
	must_be(pin_add(table, 0, run + PAGE, UINT64_MAX), -EINVAL);
	must_be(pin_add(table, 0, 4 * MIB - 10, 5), -EINVAL); /* free pages */
	must_be(hp_free(pool, next), 0);
	must_be(pin_add(table, 0, hp_pool_offset(pool, next), 8), -EINVAL);
	must_be(pin_add(table, 0, off + 1000, 100), -EINVAL); /* into the next one, which is free */
	for (unsigned i = 0; i < 6; i++) must_be(pin_add(table, i, off + i, 1), 0);
	must_be(pin_add(table, 7, off, 1), -EBUSY);
	pin_drop(table, 3);
	must_be(pin_add(table, 7, off, 1), 0);
	must_be(hp_free(pool, block), 0);
	must_be(pin_add(table, 3, off, 1), -EINVAL); /* freed */
	pin_close(table);                            /* drops what is left */
	must_be(hp_free(pool, block), -EALREADY);
	must_be(hp_page_free(pool, pages), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void in_debug_mode_a_free_under_io_is_an_error(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
	must_be(hp_pool_debug(pool, HP_DEBUG_POISON), 0);
	struct pin_table *table = table_of(pool, 8);
	hp_cache *cache = cache_of(pool, 500);
	char *block = hp_malloc(pool, 100), *object = hp_cache_get(cache, 0);
	void *pages;
	must_be(hp_page_alloc(pool, PAGE, 0, &pages), 0);
	must_be(pin_add(table, 0, hp_pool_offset(pool, block), 100), 0);
	must_be(pin_add(table, 1, hp_pool_offset(pool, object), 500), 0);
	must_be(pin_add(table, 2, hp_pool_offset(pool, pages), PAGE), 0);
	memset(object, 7, 500);
	must_be(hp_free(pool, block), -EBUSY);
	must_be(hp_cache_put(cache, object), -EBUSY);
	must_be(hp_page_free(pool, pages), -EBUSY);
	must_be(object[0], 7);
	for (unsigned i = 0; i < 3; i++) pin_drop(table, i);
	must_be(hp_free(pool, block), 0);
	must_be(hp_cache_put(cache, object), 0);
	must_be(hp_page_free(pool, pages), 0);
	pin_close(table);
	must_be(hp_cache_destroy(cache), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void registered_memory_is_not_trimmed(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
	struct pin_table *table = table_of(pool, 8);
	pin_registered(table);
	must_be(hp_pool_trim(pool, MIB), -EBUSY);
	must_be(hp_stats(pool).committed, 4 * MIB);
	pin_close(table);
	must_be(hp_pool_trim(pool, MIB), 3 * MIB);
	must_be(hp_pool_detach(pool), 0);
}

static void a_rings_own_objects_go_back_with_it(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
	struct pin_table *table = table_of(pool, 8);
	hp_cache *cache = cache_of(pool, 2048);
	hp_off off[3];
	for (unsigned i = 0; i < 3; i++) must_be(pin_get(table, i, cache, &off[i]), 0);
	must(off[0] != off[1] && off[1] != off[2]);
	pin_put(table, 0);
	pin_release(table, 1);
	must_be(hp_cache_put(cache, hp_pool_pointer(pool, off[0])), -EALREADY);
	must_be(hp_cache_put(cache, hp_pool_pointer(pool, off[1])), 0);
	pin_close(table);
	must_be(hp_cache_put(cache, hp_pool_pointer(pool, off[2])), -EALREADY);
	must_be(hp_cache_destroy(cache), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void rings_can_be_opened_again_and_again(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
	for (unsigned i = 0; i < 3 * POOL_RINGS; i++) pin_close(table_of(pool, 100));
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

/* Two rings, whose objects have one word for their states: each changes it under the other's hands. */
static struct {
	hp_pool *pool;
	hp_off off[8];
	_Atomic unsigned ready;
} neighbours;

static void *pin_again_and_again(void *arg)
{
	enum { ROUNDS = HP_TEST_SANITIZER ? 3000 : 100000 };
	struct pin_table *table = arg;
	atomic_fetch_add(&neighbours.ready, 1);
	while (atomic_load(&neighbours.ready) < 2) sched_yield();
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < 8; i++) {
			int error = pin_add(table, i, neighbours.off[i] + i, 1);
			if (error != -EBUSY) must_be(error, 0); /* the last pin of the other is just being taken off */
		}
		for (unsigned i = 0; i < 8; i++) pin_drop(table, i);
	}
	return NULL;
}

static void two_rings_pin_at_once(void **state)
{
	(void)state;
	hp_pool *pool = neighbours.pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
	struct pin_table *table[] = {table_of(pool, 8), table_of(pool, 8)};
	hp_cache *cache = cache_of(pool, 512);
	void *object[8];
	pthread_t thread[2];
	atomic_store(&neighbours.ready, 0);
	must_be(hp_cache_get_bulk(cache, 0, 8, object), 0);
	for (unsigned i = 0; i < 8; i++) neighbours.off[i] = hp_pool_offset(pool, object[i]);
	for (unsigned i = 0; i < 2; i++) must_be(pthread_create(&thread[i], NULL, pin_again_and_again, table[i]), 0);
	for (unsigned i = 0; i < 2; i++) must_be(pthread_join(thread[i], NULL), 0);
	must_be(hp_stats(pool).pinned_blocks, 0);
	for (unsigned i = 0; i < 8; i++) must_be(hp_cache_put(cache, object[i]), 0);
	pin_close(table[0]), pin_close(table[1]);
	must_be(hp_cache_destroy(cache), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

/* ---- deaths ---- */

struct shared {
	hp_off object, pages, process, slab_process, owned;
	pid_t kernel;
};

/* The victim: pins all kinds of memory, and has a child that keeps its ring's descriptor. */
static void die_with_io(hp_pool *pool, hp_cache *cache, struct shared *shared)
{
	const struct hp_cache_options options = {.struct_size = sizeof(options), .size = 512, .flags = HP_CACHE_PROCESS};
	struct pin_table *table;
	int life;
	void *pages;
	hp_cache *own;
	must_be(pin_open(pool, 8, &table, &life), 0);
	must_be(hp_page_alloc(pool, 5 * PAGE, HP_PAGE_PROCESS, &pages), 0);
	shared->process = hp_pool_offset(pool, pages);
	must_be(hp_cache_create(pool, "own", &options, &own), 0);
	shared->slab_process = hp_pool_offset(pool, hp_cache_get(own, 0));
	must_be(pin_add(table, 0, shared->object, 10), 0);
	must_be(pin_add(table, 1, shared->pages, PAGE), 0);
	must_be(pin_add(table, 2, shared->process, PAGE), 0);
	must_be(pin_add(table, 3, shared->slab_process, 512), 0);
	must_be(pin_get(table, 4, cache, &shared->owned), 0);
	pid_t kernel = fork();
	if (kernel == 0) {
		alarm(60); /* should the test fail */
		pause();
		_exit(0);
	}
	must(kernel > 0);
	shared->kernel = kernel;
	raise(SIGKILL);
}

static void the_kernel_outlives_the_process(void **state)
{
	(void)state;
	for (unsigned freed = 0; freed < 2; freed++) {
		hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
		struct shared *shared = hp_shared(sizeof *shared);
		hp_cache *cache = cache_of(pool, 2048);
		char *object = hp_malloc(pool, 3000);
		void *pages, *process;
		must_be(hp_page_alloc(pool, PAGE, 0, &pages), 0);
		shared->object = hp_pool_offset(pool, object);
		shared->pages = hp_pool_offset(pool, pages);
		pid_t pid = hp_fork();
		if (pid == 0) die_with_io(pool, cache, shared);
		must_be(hp_wait_for(pid), 128 + SIGKILL);
		must_be(hp_pool_recover(pool), 1);
		hp_must_be_sound(pool);
		if (freed) {
			must_be(hp_free(pool, object), 0);
			must_be(hp_page_free(pool, pages), 0);
		}
		/* the process is gone, but not what its ring may write to */
		must(!is_to_be_had(pool, shared->object, 3000));
		must(!is_to_be_had(pool, shared->pages, 40000));
		must(!is_to_be_had(pool, shared->process, 40000));
		must(!is_to_be_had(pool, shared->slab_process, 40000));
		must(!is_to_be_had(pool, shared->owned, 40000));
		must(hp_stats(pool).live_blocks > 0);
		must_be(kill(shared->kernel, SIGKILL), 0);
		/* it is init's, or ours: gone when its lock is */
		for (unsigned i = 0; i < 100000 && pin_any(pool); i++) {
			must(hp_pool_recover(pool) >= 0);
			sched_yield();
		}
		must(is_to_be_had(pool, shared->process, 40000));
		if (!freed) {
			must_be(hp_free(pool, object), 0);
			must_be(hp_page_free(pool, pages), 0);
		}
		must_be(hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &process), 0);
		must_be(hp_page_free(pool, process), 0);
		hp_cache *own;
		must_be(hp_cache_open(pool, "own", NULL, &own), 0);
		must_be(hp_cache_destroy(own), 0);
		must_be(hp_cache_destroy(cache), 0);
		hp_purge(pool);
		hp_must_be_empty(pool);
		must_be(hp_pool_detach(pool), 0);
		munmap(shared, sizeof *shared);
	}
}

static void *get_one(void *cache)
{
	return hp_cache_get(cache, HP_CACHE_WAIT);
}

static void who_waits_is_woken_by_the_last_pin(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	struct pin_table *table = table_of(pool, 8);
	hp_cache *cache = cache_of(pool, 2048);
	must_be(hp_cache_set_hard_limit(cache, 1, NULL, 0), 0);
	void *object = hp_cache_get(cache, 0), *got;
	must_be(pin_add(table, 0, hp_pool_offset(pool, object), 2048), 0);
	must_be(hp_cache_put(cache, object), 0);
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, get_one, cache), 0);
	while (hp_cache_numbers(cache).waiting == 0) sched_yield();
	must_be(hp_cache_numbers(cache).wakes, 0);
	pin_drop(table, 0);
	must_be(pthread_join(thread, &got), 0);
	must(got);
	must_be(hp_cache_numbers(cache).wakes, 1);
	must_be(hp_cache_put(cache, got), 0);
	must_be(hp_cache_destroy(cache), 0);
	pin_close(table);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_freed_under_io_is_free_afterwards),
		cmocka_unit_test(what_is_not_freed_is_its_holders_again),
		cmocka_unit_test(only_what_is_somebodys_can_be_pinned),
		cmocka_unit_test(in_debug_mode_a_free_under_io_is_an_error),
		cmocka_unit_test(registered_memory_is_not_trimmed),
		cmocka_unit_test(a_rings_own_objects_go_back_with_it),
		cmocka_unit_test(rings_can_be_opened_again_and_again),
		cmocka_unit_test(two_rings_pin_at_once),
		cmocka_unit_test(who_waits_is_woken_by_the_last_pin),
		cmocka_unit_test(the_kernel_outlives_the_process),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
