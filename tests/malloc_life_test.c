/* Blocks that outlive who allocated them, memory that goes back, and memory that runs out.
 *
 * Would catch: objects that are lost or handed out twice when their thread or process is gone, a slab of a dead owner that
 * nobody takes over, slabs that never go back to the page layer, memory that one thread keeps unused while another is
 * told that there is none. */
#include "hp_malloc.h"

#include <pthread.h>

#define BLOCKS 2000

/* What one process tells another about its blocks. */
struct told {
	hp_off off[BLOCKS];
	uint32_t size[BLOCKS];
};

static size_t size_of(unsigned i)
{
	static const size_t sizes[] = {0, 16, 40, 100, 333, 1000, 3000, 9000, 32768, 33000};
	return sizes[i % 10];
}

static hp_pool *pool;
static struct told *told;

static void allocate_all(unsigned from, unsigned step)
{
	for (unsigned i = from; i < BLOCKS; i += step) {
		void *block = hp_malloc(pool, size_of(i));
		must(block);
		told->size[i] = (uint32_t)hp_usable_size(pool, block);
		must(told->size[i] >= size_of(i));
		hp_fill(block, told->size[i], i);
		told->off[i] = hp_pool_offset(pool, block);
	}
}

static void *at(unsigned i)
{
	void *block = hp_pool_pointer(pool, told->off[i]);
	must_be(hp_usable_size(pool, block), told->size[i]);
	must(hp_filled(block, told->size[i], i));
	return block;
}

static void free_all(unsigned from, unsigned step)
{
	for (unsigned i = from; i < BLOCKS; i += step) {
		void *block = at(i);
		must_be(hp_free(pool, block), 0);
		must_be(hp_usable_size(pool, block), 0);
	}
}

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(24 * MIB, 0);
	told = hp_shared(sizeof *told);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hp_purge(pool);
	hp_must_be_empty(pool); /* nothing is lost, and nothing kept */
	must_be(hp_pool_detach(pool), 0);
	munmap(told, sizeof *told);
	return 0;
}

/* ---- other processes ---- */

static void allocating(const struct child *me, void *arg)
{
	(void)arg;
	allocate_all(0, 1);
	child_here(me);
}

static void freeing(const struct child *me, void *arg)
{
	(void)arg;
	child_here(me);
	free_all(0, 1);
	child_here(me);
}

static void freed_by_a_forked_child(void **state)
{
	(void)state;
	allocate_all(0, 1);
	struct child child = child_start(freeing, NULL);
	must(child_hear(&child));
	child_say(&child);
	must(child_hear(&child));
	child_finish(&child);
	must_be(hp_count_slabs(pool).objects, 0);
	must_be(hp_free(pool, hp_pool_pointer(pool, told->off[1])), -EALREADY);
	/* our own slabs are empty by others' doing: they serve us again, and go back */
	allocate_all(0, 1);
	free_all(0, 1);
	hp_must_be_had_whole(pool);
}

static int attached[3];

static void attaching(const struct child *me, void *arg)
{
	struct hp_attach_options elsewhere = {.struct_size = sizeof elsewhere, .elsewhere = true};
	must_be(hp_pool_attach(attached, &elsewhere, &pool), 0); /* a handle of its own, at another address */
	freeing(me, arg);
}

static void freed_by_a_process_that_attached(void **state)
{
	(void)state;
	must_be(hp_pool_fds(pool, attached), 0);
	allocate_all(0, 1);
	struct child child = child_start(attaching, NULL);
	must(child_hear(&child));
	child_say(&child);
	must(child_hear(&child));
	child_finish(&child);
	must_be(hp_count_slabs(pool).objects, 0);
	hp_must_be_had_whole(pool);
}

static void freed_after_its_process_was_killed(void **state)
{
	(void)state;
	struct child child = child_start(allocating, NULL);
	must(child_hear(&child));
	child_kill(&child);
	/* its slabs are still its own; then they are nobody's */
	free_all(0, 2);
	must_be(hp_pool_recover(pool), 1);
	hp_must_be_sound(pool);
	free_all(1, 2);
	struct hp_slabs left = hp_count_slabs(pool);
	must_be(left.objects, 0);
	must_be(left.slabs, 0); /* of those of nobody, the last free ends each */
}

static void slabs_of_a_killed_process_serve_others(void **state)
{
	(void)state;
	struct child child = child_start(allocating, NULL);
	must(child_hear(&child));
	child_kill(&child);
	must_be(hp_pool_recover(pool), 1);
	/* what is free in them is had by who asks for it, without new pages */
	unsigned i = 2, slabs = hp_count_slabs(pool).slabs;
	void *block = hp_malloc(pool, size_of(i));
	must(block);
	must_be(hp_count_slabs(pool).slabs, slabs);
	must_be(hp_free(pool, block), 0);
	free_all(0, 1);
}

/* ---- threads ---- */

static void *allocate_and_leave(void *arg)
{
	(void)arg;
	allocate_all(0, 1);
	return NULL;
}

static void *free_and_leave(void *arg)
{
	(void)arg;
	free_all(0, 1);
	return NULL;
}

static void in_a_thread(void *(*run)(void *arg))
{
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, run, NULL), 0);
	must_be(pthread_join(thread, NULL), 0);
}

static void objects_outlive_their_thread(void **state)
{
	(void)state;
	in_a_thread(allocate_and_leave);
	unsigned slabs = hp_count_slabs(pool).slabs;
	for (uint64_t page = 0; page < pool->capacity / PAGE; page++)
		if ((atomic_load(&pool->map[page]) & 0xff) == 1)
			must_be(ctl_state(atomic_load(&pool->slabs[page].ctl)), CTL_UNOWNED);
	/* adopted: an object of every class, from what is there (of 32 KiB all slabs are full) */
	void *block[10];
	for (unsigned i = 0; i < 8; i++) must(block[i] = hp_malloc(pool, size_of(i)));
	must_be(hp_count_slabs(pool).slabs, slabs);
	for (unsigned i = 0; i < 8; i++) must_be(hp_free(pool, block[i]), 0);
	free_all(0, 1);
}

static void nothing_of_a_thread_without_objects_stays(void **state)
{
	(void)state;
	allocate_all(0, 1);
	in_a_thread(free_and_leave); /* ours, freed remotely */
	in_a_thread(allocate_and_leave);
	free_all(0, 1);
	hp_purge(pool);
	in_a_thread(allocate_and_leave);
	in_a_thread(free_and_leave);
	must_be(hp_count_slabs(pool).objects, 0);
	hp_must_be_had_whole(pool);
}

static _Atomic bool thread_stop;
static _Atomic unsigned thread_rounds;

static void *churn(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *block[100] = {0};
	while (!thread_stop) {
		unsigned i = (unsigned)hp_below(&random, 100);
		if (block[i]) must_be(hp_free(pool, block[i]), 0);
		must(block[i] = hp_malloc(pool, hp_below(&random, 3000)));
		thread_rounds++;
	}
	for (unsigned i = 0; i < 100; i++)
		if (block[i]) must_be(hp_free(pool, block[i]), 0);
	return NULL;
}

static void forked(const struct child *me, void *arg)
{
	(void)arg;
	int error;
	struct participant *mine = participant_get(pool, &error);
	must(mine);
	told->size[BLOCKS - 1] = mine->who;
	for (unsigned round = 0; round < 3; round++) {
		allocate_all(0, 4);
		free_all(0, 4);
	}
	free_all(1, 4); /* the parent's */
	child_here(me);
}

/* The child has a slot of its own, whatever the parent's threads were doing. */
static void forked_from_a_program_with_threads(void **state)
{
	(void)state;
	pthread_t thread[2];
	int error;
	thread_stop = false;
	for (uintptr_t i = 0; i < 2; i++) must_be(pthread_create(&thread[i], NULL, churn, (void *)(i + 1)), 0);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 3 : 30); round++) {
		unsigned from = thread_rounds;
		while (thread_rounds < from + 100) sched_yield();
		allocate_all(1, 4);
		struct child child = child_start(forked, NULL);
		must(child_hear(&child));
		must(told->size[BLOCKS - 1] != participant_get(pool, &error)->who);
		child_finish(&child);
	}
	thread_stop = true;
	for (unsigned i = 0; i < 2; i++) must_be(pthread_join(thread[i], NULL), 0);
	must(hp_pool_recover(pool) >= 0);
	must_be(hp_count_slabs(pool).objects, 0);
	hp_must_be_had_whole(pool);
}

/* ---- going back ---- */

static void empty_slabs_go_back(void **state)
{
	(void)state;
	uint64_t most = 0;
	for (unsigned c = 0; c < SLAB_MALLOC_CLASSES; c++) {
		enum { COUNT = 100 };
		static void *block[COUNT * SLAB_OBJECTS];
		unsigned count = 0;
		size_t size = slab_malloc_size(c);
		for (; count < COUNT * SLAB_OBJECTS && count * size < 12 * MIB; count++)
			must(block[count] = hp_malloc(pool, size));
		uint64_t used = hp_stats(pool).committed - hp_stats(pool).free;
		must(used >= count * size);
		while (count) must_be(hp_free(pool, block[--count]), 0);
		/* without being asked: all but a few, those it has missed before, and those with objects in the magazine */
		uint64_t kept = (hp_stats(pool).committed - hp_stats(pool).free) / PAGE;
		const struct slab_class *class = &pool->classes[c];
		if (kept > most) most = kept;
		if (kept > (c ? 64u + 256u : 64u) + (SLAB_MAGAZINE / class->objects + 3u) * class->pages)
			fail_msg("%zu bytes: %llu pages kept", size, (unsigned long long)kept);
		hp_purge(pool);
		must_be(hp_stats(pool).live_blocks, 0);
		must_be(hp_stats(pool).free, hp_stats(pool).committed);
	}
	print_message("after everything is freed a thread keeps at most %llu pages of a class\n", (unsigned long long)most);
}

/* ---- running out ---- */

struct filled {
	void **block;
	size_t count, room;
};

static void fill_up(hp_pool *in, struct filled *filled, size_t size)
{
	void *block;
	while (errno = 0, block = hp_malloc(in, size)) {
		must(filled->count < filled->room);
		hp_fill(block, size < 64 ? size : 64, filled->count);
		filled->block[filled->count++] = block;
	}
	must_be(errno, ENOMEM);
}

static void empty_again(hp_pool *in, struct filled *filled, size_t size, uint64_t *random)
{
	for (size_t i = 0; i < filled->count; i++) must(hp_filled(filled->block[i], size < 64 ? size : 64, i));
	while (filled->count) {
		size_t i = hp_below(random, filled->count);
		must_be(hp_free(in, filled->block[i]), 0);
		filled->block[i] = filled->block[--filled->count];
	}
}

static struct filled filled_for(hp_pool *in)
{
	struct filled filled = {.room = hp_pool_capacity(in) / 16 + 1};
	must(filled.block = calloc(filled.room, sizeof *filled.block));
	return filled;
}

static void until_there_is_no_more(void **state)
{
	(void)state;
	hp_pool *small = hp_plain_pool(2 * MIB, 0);
	struct filled filled = filled_for(small);
	uint64_t random = hp_seed("until_there_is_no_more");
	size_t worst = 100;
	for (unsigned c = 0; c < SLAB_MALLOC_CLASSES; c++) {
		size_t size = slab_malloc_size(c), held;
		fill_up(small, &filled, size);
		held = filled.count * size * 100 / (2 * MIB);
		if (held < worst) worst = held;
		/* at least all slabs of full size that the pool's units have room for, each full */
		uint64_t unit = hp_stats(small).unit_size, slabs = unit / PAGE / small->classes[c].pages * (2 * MIB / unit);
		must(filled.count >= slabs * small->classes[c].objects || hp_stats(small).free * 8 < 2 * MIB);
		must_be(hp_count_slabs(small).room, filled.count);
		must(hp_count_slabs(small).empty == 0);
		/* one more when one is freed, and not two */
		must_be(hp_free(small, filled.block[--filled.count]), 0);
		must(filled.block[filled.count] = hp_malloc(small, size));
		hp_fill(filled.block[filled.count], size < 64 ? size : 64, filled.count);
		filled.count++;
		must(!hp_malloc(small, size));
		empty_again(small, &filled, size, &random);
		hp_must_be_had_whole(small);
	}
	print_message("objects fill at least %zu %% of a pool of units of 64 pages\n", worst);
	free(filled.block);
	must_be(hp_pool_detach(small), 0);
}

struct keeper {
	hp_pool *pool;
	size_t size;
	pthread_barrier_t *barrier;
};

/* Fills the pool, frees everything and sleeps, with all that it keeps. */
static void *keep_what_is_free(void *arg)
{
	struct keeper *keeper = arg;
	struct filled filled = filled_for(keeper->pool);
	uint64_t random = keeper->size;
	fill_up(keeper->pool, &filled, keeper->size);
	/* half of the last ones first, so that magazines are full of objects of many slabs */
	empty_again(keeper->pool, &filled, keeper->size, &random);
	free(filled.block);
	pthread_barrier_wait(keeper->barrier);
	pthread_barrier_wait(keeper->barrier);
	return NULL;
}

static size_t most_blocks(size_t size)
{
	hp_pool *fresh = hp_plain_pool(2 * MIB, 0);
	struct filled filled = filled_for(fresh);
	fill_up(fresh, &filled, size);
	free(filled.block);
	must_be(hp_pool_detach(fresh), 0);
	return filled.count;
}

static void what_sleeping_threads_keep_is_had(void **state)
{
	(void)state;
	static const size_t sizes[] = {16, 48, 512, 1000, 4096, 10000, 32768};
	enum { SIZES = sizeof sizes / sizeof *sizes };
	unsigned scenes = 0;
	for (unsigned flags = 0; flags <= HP_POOL_FENCED; flags += HP_POOL_FENCED) {
		for (unsigned k = 0; k < SIZES; k++) {
			hp_pool *small = hp_plain_pool(2 * MIB, flags);
			struct filled filled = filled_for(small);
			pthread_barrier_t barrier;
			pthread_t thread;
			struct keeper keeper = {small, sizes[k], &barrier};
			uint64_t random = k;
			pthread_barrier_init(&barrier, NULL, 2);
			must_be(pthread_create(&thread, NULL, keep_what_is_free, &keeper), 0);
			pthread_barrier_wait(&barrier);
			scenes += hp_count_slabs(small).slabs > 0;
			/* the same size, from what is free in its slabs; and others, from its pages */
			for (unsigned i = k; i < k + SIZES; i += 3) {
				size_t size = sizes[i % SIZES];
				fill_up(small, &filled, size);
				/* slabs of that size and full are all there is; other sizes may have left pages in odd places */
				struct hp_slabs slabs = hp_count_slabs(small);
				must_be(slabs.objects, filled.count);
				must_be(slabs.room, filled.count);
				must(filled.count * 4 >= most_blocks(size) * 3);
				empty_again(small, &filled, size, &random);
			}
			hp_must_be_had_whole(small);
			pthread_barrier_wait(&barrier);
			must_be(pthread_join(thread, NULL), 0);
			hp_must_be_empty(small);
			free(filled.block);
			pthread_barrier_destroy(&barrier);
			must_be(hp_pool_detach(small), 0);
		}
	}
	must(scenes > SIZES); /* most of them keep something */
}

/* A page run of the whole pool, right after a sleeping thread has freed everything. */
static void pages_that_sleeping_threads_keep_are_had(void **state)
{
	(void)state;
	for (size_t size = 16; size <= SLAB_MALLOC_MAX; size *= 2) {
		hp_pool *small = hp_plain_pool(2 * MIB, 0);
		pthread_barrier_t barrier;
		pthread_t thread;
		struct keeper keeper = {small, size, &barrier};
		pthread_barrier_init(&barrier, NULL, 2);
		must_be(pthread_create(&thread, NULL, keep_what_is_free, &keeper), 0);
		pthread_barrier_wait(&barrier);
		hp_must_be_had_whole(small);
		pthread_barrier_wait(&barrier);
		must_be(pthread_join(thread, NULL), 0);
		pthread_barrier_destroy(&barrier);
		must_be(hp_pool_detach(small), 0);
	}
}

/* Objects that others have freed in slabs whose owner sleeps. */
static void what_was_freed_behind_a_sleeping_owner_is_had(void **state)
{
	(void)state;
	hp_pool *small = hp_plain_pool(2 * MIB, 0), *other = hp_attach_again(small);
	struct filled filled = filled_for(small);
	for (size_t size = 32; size <= SLAB_MALLOC_MAX; size *= 4) {
		fill_up(small, &filled, size);
		for (size_t i = 0; i < filled.count; i++) {
			char *there = hp_pool_pointer(other, hp_pool_offset(small, filled.block[i]));
			must_be(hp_free(other, there), 0);
		}
		size_t count = filled.count;
		filled.count = 0;
		fill_up(other, &filled, size);
		must(filled.count >= count);
		uint64_t random = size;
		empty_again(other, &filled, size, &random);
	}
	free(filled.block);
	hp_must_be_had_whole(small);
	must_be(hp_pool_detach(other), 0);
	must_be(hp_pool_detach(small), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(freed_by_a_forked_child, set_up, tear_down),
		cmocka_unit_test_setup_teardown(freed_by_a_process_that_attached, set_up, tear_down),
		cmocka_unit_test_setup_teardown(freed_after_its_process_was_killed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(slabs_of_a_killed_process_serve_others, set_up, tear_down),
		cmocka_unit_test_setup_teardown(objects_outlive_their_thread, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_of_a_thread_without_objects_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(forked_from_a_program_with_threads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(empty_slabs_go_back, set_up, tear_down),
		cmocka_unit_test(until_there_is_no_more),
		cmocka_unit_test(what_sleeping_threads_keep_is_had),
		cmocka_unit_test(pages_that_sleeping_threads_keep_are_had),
		cmocka_unit_test(what_was_freed_behind_a_sleeping_owner_is_had),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
