/* One cache in several processes, and through several handles of one.
 *
 * Catches: objects that another process cannot put back; constructors and destructors that run in the wrong process, twice
 * or never; what a killed process held in class PROCESS and did not come back; a cache half made or half ended by a dead
 * creator; several who make, open and end the same cache at once. */
#include "hp_cache.h"
#include <pthread.h>
#include <sched.h>

static struct {
	hp_pool *pool;
	hp_cache *cache;
	void *object[200];
	unsigned count;
} shared;

static void two_handles_of_a_pool(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0), *again = hp_attach_again(pool);
	hp_cache *here = hp_cache_make(pool, "shared", 120, 0), *there = hp_cache_opened(again, "shared");
	void *object[300];
	must(hp_pool_base(pool) != hp_pool_base(again));
	for (unsigned round = 0; round < 10; round++) {
		must_be(hp_cache_get_bulk(here, 0, 300, object), 0);
		for (unsigned i = 0; i < 300; i++) hp_cache_fill(object[i], 120, i);
		for (unsigned i = 0; i < 300; i++) {
			void *same = hp_pool_pointer(again, hp_pool_offset(pool, object[i]));
			must(hp_cache_filled(same, 120, i));
			must_be(hp_cache_put(there, object[i]), -EINVAL); /* an address of the other mapping */
			must_be(hp_cache_put(there, same), 0);
			must_be(hp_cache_put(here, object[i]) < 0, 1);
		}
		must_be(hp_cache_numbers(here).in_use, 0);
	}
	hp_cache_close(there);
	must_be(hp_cache_destroy(here), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(again);
	hp_pool_detach(pool);
}

/* The child attaches by descriptors, or goes on with what it inherited. */
static void swap_objects(const struct child *me, void *arg)
{
	bool attach = arg != NULL;
	hp_pool *pool = attach ? hp_attach_again(shared.pool) : shared.pool;
	hp_cache *cache = attach ? hp_cache_opened(pool, "shared") : shared.cache;
	void *own[100];
	for (unsigned i = 0; i < shared.count; i++) {
		void *theirs = hp_pool_pointer(pool, hp_pool_offset(shared.pool, shared.object[i]));
		must(hp_cache_filled(theirs, 64, i));
		must_be(hp_cache_put(cache, theirs), 0);
	}
	must_be(hp_cache_get_bulk(cache, 0, 100, own), 0);
	for (unsigned i = 0; i < 100; i++) hp_cache_fill(own[i], 64, i + 500);
	hp_off off[100];
	for (unsigned i = 0; i < 100; i++) off[i] = hp_pool_offset(pool, own[i]);
	must_be(write(me->says, off, sizeof off), sizeof off);
	if (attach) hp_pool_detach(pool);
}

static void what_one_gets_another_puts(void **state)
{
	(void)state;
	shared.pool = hp_plain_pool(8 * MIB, 0);
	shared.cache = hp_cache_make(shared.pool, "shared", 64, 0);
	for (unsigned round = 0; round < 20; round++) {
		shared.count = 150;
		must_be(hp_cache_get_bulk(shared.cache, 0, shared.count, shared.object), 0);
		for (unsigned i = 0; i < shared.count; i++) hp_cache_fill(shared.object[i], 64, i);
		struct child child = child_start(swap_objects, round % 2 ? &shared : NULL);
		hp_off off[100];
		size_t got = 0;
		while (got < sizeof off) {
			ssize_t n = read(child.hears, (char *)off + got, sizeof off - got);
			must(n > 0);
			got += (size_t)n;
		}
		must_be(child_end(&child), 0);
		must_be(hp_cache_numbers(shared.cache).in_use, 100); /* class POOL: they outlive who got them */
		for (unsigned i = 0; i < 100; i++) {
			must(hp_cache_filled(hp_pool_pointer(shared.pool, off[i]), 64, i + 500));
			must_be(hp_cache_put(shared.cache, hp_pool_pointer(shared.pool, off[i])), 0);
		}
		must_be(hp_cache_numbers(shared.cache).in_use, 0);
	}
	must_be(hp_cache_destroy(shared.cache), 0);
	hp_pool_recover(shared.pool);
	hp_must_be_empty(shared.pool);
	hp_pool_detach(shared.pool);
}

/* ---- class PROCESS ---- */

static void hold_own(const struct child *me, void *arg)
{
	hp_cache *cache = hp_cache_opened(shared.pool, "own");
	void *object[100];
	(void)arg;
	must_be(hp_cache_put(cache, shared.object[0]), -EPERM);
	must_be(hp_cache_put_bulk(cache, 5, shared.object), -EPERM);
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
	hp_off off = hp_pool_offset(shared.pool, object[50]);
	must_be(write(me->says, &off, sizeof off), sizeof off);
	if (!child_hear(me)) _exit(0);
	/* told to end well: what it has not put goes back when it detaches */
	must_be(hp_cache_put_bulk(cache, 50, object), 0);
	must_be(hp_pool_detach(shared.pool), 0);
}

static void class_process_goes_back_with_its_process(void **state)
{
	(void)state;
	shared.pool = hp_plain_pool(8 * MIB, 0);
	shared.cache = hp_cache_make(shared.pool, "own", 64, HP_CACHE_PROCESS);
	must_be(hp_cache_get_bulk(shared.cache, 0, 10, shared.object), 0);
	for (unsigned round = 0; round < 10; round++) {
		struct child child = child_start(hold_own, NULL);
		hp_off off;
		must_be(read(child.hears, &off, sizeof off), sizeof off);
		must_be(hp_cache_numbers(shared.cache).in_use, 110);
		must_be(hp_cache_put(shared.cache, hp_pool_pointer(shared.pool, off)), -EPERM);
		must_be(hp_cache_destroy(shared.cache), -EBUSY);
		if (round % 2)
			child_kill(&child);
		else
			child_finish(&child);
		must(hp_pool_recover(shared.pool) >= 0);
		must_be(hp_cache_numbers(shared.cache).in_use, 10);
		must(hp_cache_put(shared.cache, hp_pool_pointer(shared.pool, off)) < 0);
	}
	must_be(hp_cache_put_bulk(shared.cache, 10, shared.object), 0);
	must_be(hp_cache_destroy(shared.cache), 0);
	hp_must_be_empty(shared.pool);
	hp_pool_detach(shared.pool);
}

/* ---- constructors ---- */

struct books {
	_Atomic unsigned built, destroyed, wrong;
};
static struct books *books;

#define BUILT UINT64_C(0x0b1ec7)

static int build(void *arg, void *object, unsigned flags)
{
	(void)arg;
	(void)flags;
	if (*(uint64_t *)object == BUILT) atomic_fetch_add(&books->wrong, 1);
	*(uint64_t *)object = BUILT;
	atomic_fetch_add(&books->built, 1);
	return 0;
}

static void destroy(void *arg, void *object)
{
	(void)arg;
	if (*(uint64_t *)object != BUILT) atomic_fetch_add(&books->wrong, 1);
	*(uint64_t *)object = 0;
	atomic_fetch_add(&books->destroyed, 1);
}

static struct hp_cache_options with_both(void)
{
	struct hp_cache_options options = hp_cache_of(500, 0);
	options.ctor = build;
	options.dtor = destroy;
	return options;
}

static void use_built(const struct child *me, void *arg)
{
	struct hp_cache_options options = with_both();
	hp_cache *cache;
	void *object[150];
	(void)me;
	if (arg) options.dtor = NULL;
	must_be(hp_cache_open(shared.pool, "built", &options, &cache), 0);
	must_be(hp_cache_get_bulk(cache, 0, 150, object), 0);
	for (unsigned i = 0; i < 150; i++) must_be(*(uint64_t *)object[i], BUILT);
	must_be(hp_cache_put_bulk(cache, 150, object), 0);
	if (!arg) return;
	/* without the destructor it gives back nothing in which objects are constructed */
	unsigned destroyed = atomic_load(&books->destroyed);
	uint64_t bytes = hp_cache_numbers(cache).bytes;
	must_be(hp_cache_reclaim(cache), 0);
	must_be(hp_cache_numbers(cache).bytes, bytes);
	must_be(atomic_load(&books->destroyed), destroyed);
	must_be(hp_cache_destroy(cache), -EBUSY);
}

static void constructed_across_processes(void **state)
{
	(void)state;
	shared.pool = hp_plain_pool(8 * MIB, 0);
	void *all;
	must_be(hp_page_alloc(shared.pool, 8 * MIB, HP_PAGE_ZERO, &all), 0);
	must_be(hp_page_free(shared.pool, all), 0);
	books = hp_shared(sizeof *books);
	struct hp_cache_options options = with_both();
	must_be(hp_cache_create(shared.pool, "built", &options, &shared.cache), 0);
	void *object[150];
	must_be(hp_cache_get_bulk(shared.cache, 0, 150, object), 0);
	must_be(hp_cache_put_bulk(shared.cache, 150, object), 0);
	unsigned built = atomic_load(&books->built);
	struct child child = child_start(use_built, NULL);
	must_be(child_end(&child), 0);
	must_be(atomic_load(&books->wrong), 0);
	must(atomic_load(&books->built) >= built);
	child = child_start(use_built, &shared);
	must_be(child_end(&child), 0);
	must_be(hp_pool_recover(shared.pool) >= 0, 1);
	/* here are both */
	hp_cache_reclaim(shared.cache);
	must_be(hp_cache_numbers(shared.cache).bytes, 0);
	must_be(atomic_load(&books->built), atomic_load(&books->destroyed));
	must_be(atomic_load(&books->wrong), 0);
	must_be(hp_cache_destroy(shared.cache), 0);
	hp_must_be_empty(shared.pool);
	hp_pool_detach(shared.pool);
	munmap(books, sizeof *books);
}

/* ---- making and ending ---- */

static void outlive(const struct child *me, void *arg)
{
	hp_cache *cache = hp_cache_opened(shared.pool, "ending");
	(void)arg;
	void *object = hp_cache_get(cache, 0);
	must(object);
	child_here(me); /* the other finds it busy */
	must_be(hp_cache_put(cache, object), 0);
	child_here(me); /* the other ends it, with objects in our magazine */
	must_refuse(hp_cache_get(cache, 0), ESTALE);
	must_refuse(hp_cache_get(cache, HP_CACHE_WAIT), ESTALE);
	must(hp_cache_put(cache, object) < 0);
	must_be(hp_cache_set_hard_limit(cache, 5, NULL, 0), -ESTALE);
	child_here(me); /* and makes another of that name */
	must_refuse(hp_cache_get(cache, 0), ESTALE);
	hp_cache *other = hp_cache_opened(shared.pool, "ending");
	must(object = hp_cache_get(other, 0));
	must_refuse(hp_cache_get(cache, 0), ESTALE);
	must_be(hp_cache_put(cache, object), -ESTALE);
	must_be(hp_cache_put(other, object), 0);
}

static void what_ended_elsewhere_is_stale(void **state)
{
	(void)state;
	shared.pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(shared.pool, "ending", 64, 0);
	struct child child = child_start(outlive, NULL);
	must(child_hear(&child));
	must_be(hp_cache_destroy(cache), -EBUSY);
	must_be(hp_cache_numbers(cache).in_use, 1); /* as if nothing had been */
	child_say(&child);
	must(child_hear(&child));
	must_be(hp_cache_destroy(cache), 0);
	child_say(&child);
	must(child_hear(&child));
	cache = hp_cache_make(shared.pool, "ending", 64, 0);
	child_finish(&child);
	must_be(hp_cache_destroy(cache), 0);
	hp_pool_recover(shared.pool);
	hp_must_be_empty(shared.pool);
	hp_pool_detach(shared.pool);
}

#define RACERS 4

struct race {
	_Atomic unsigned created, opened, destroyed, busy, stop;
	_Atomic unsigned long turns[RACERS];
};
static struct race *race;

static void racer(unsigned number, uint64_t seed)
{
	struct hp_cache_options options = hp_cache_of(64, 0);
	hp_cache *cache;
	void *object[8];
	while (!atomic_load(&race->stop)) {
		char name[8];
		atomic_fetch_add(&race->turns[number], 1);
		snprintf(name, sizeof name, "race %u", (unsigned)hp_below(&seed, 2));
		int error = hp_cache_create(shared.pool, name, &options, &cache);
		if (error == 0)
			atomic_fetch_add(&race->created, 1);
		else {
			must_be(error, -EEXIST);
			error = hp_cache_open(shared.pool, name, &options, &cache);
			if (error == 0) atomic_fetch_add(&race->opened, 1);
		}
		if (error < 0) {
			must_be(error, -ENOENT);
			continue;
		}
		/* all or nothing, whenever another ends it */
		error = hp_cache_get_bulk(cache, 0, 8, object);
		if (error != -ESTALE) must_be(error, 0);
		if (error == 0) {
			for (unsigned i = 0; i < 8; i++) hp_cache_fill(object[i], 64, number * 8 + i);
			for (unsigned i = 0; i < 8; i++) must(hp_cache_filled(object[i], 64, number * 8 + i));
			if (hp_below(&seed, 4) == 0) must_be(hp_cache_destroy(cache), -EBUSY);
			must_be(hp_cache_put_bulk(cache, 8, object), 0);
		}
		if (hp_below(&seed, 2)) {
			error = hp_cache_destroy(cache);
			must(error == 0 || error == -EBUSY);
			atomic_fetch_add(error ? &race->busy : &race->destroyed, 1);
			if (error == 0) continue;
		}
		hp_cache_close(cache);
	}
}

static pid_t racer_start(unsigned number, uint64_t seed)
{
	pid_t pid = hp_fork();
	if (pid) return pid;
	racer(number, seed);
	_exit(0);
}

static unsigned long race_turns(void)
{
	unsigned long turns = 0;
	for (unsigned i = 0; i < RACERS; i++) turns += atomic_load(&race->turns[i]);
	return turns;
}

/* All at once, and some of them killed in the middle of whatever they do. */
static void made_opened_ended_by_several(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("race");
	for (unsigned deadly = 0; deadly < 2; deadly++) {
		shared.pool = hp_plain_pool(8 * MIB, 0);
		race = hp_shared(sizeof *race);
		pid_t pid[RACERS];
		for (unsigned i = 0; i < RACERS; i++) pid[i] = racer_start(i, hp_random(&seed));
		for (unsigned death = 0; deadly && death < (HP_TEST_SANITIZER ? 8 : 40); death++) {
			unsigned i = (unsigned)hp_below(&seed, RACERS);
			unsigned long turns = race_turns(), more = hp_below(&seed, 300);
			while (race_turns() < turns + more) sched_yield();
			must_be(kill(pid[i], SIGKILL), 0);
			must_be(hp_wait_for(pid[i]), 128 + SIGKILL);
			pid[i] = racer_start(i, hp_random(&seed));
		}
		while (race_turns() < (HP_TEST_SANITIZER ? 1000u : 10000u)) sched_yield();
		atomic_store(&race->stop, 1);
		for (unsigned i = 0; i < RACERS; i++) must_be(hp_wait_for(pid[i]), 0);
		if (!deadly) must(atomic_load(&race->destroyed) > 10 && atomic_load(&race->created) > 10);
		hp_pool_recover(shared.pool);
		hp_must_be_sound(shared.pool);
		for (unsigned i = 0; i < 2; i++) {
			char name[8];
			hp_cache *cache;
			snprintf(name, sizeof name, "race %u", i);
			if (hp_cache_open(shared.pool, name, NULL, &cache) < 0) continue;
			struct hp_cache_stats stats = hp_cache_numbers(cache);
			if (!deadly) must_be(stats.in_use, 0);
			if (stats.in_use == 0)
				must_be(hp_cache_destroy(cache), 0);
			else
				must_be(hp_cache_destroy(cache), -EBUSY); /* in dead hands: theirs to lose */
		}
		hp_pool_detach(shared.pool);
		munmap(race, sizeof *race);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_handles_of_a_pool),
		cmocka_unit_test(what_one_gets_another_puts),
		cmocka_unit_test(class_process_goes_back_with_its_process),
		cmocka_unit_test(constructed_across_processes),
		cmocka_unit_test(what_ended_elsewhere_is_stale),
		cmocka_unit_test(made_opened_ended_by_several),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
