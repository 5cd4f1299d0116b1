/* Mutexes: what each call returns, that one at a time has it, in threads and processes, and what becomes of it when its holder
 * dies: killed, as a thread, stopped, detached. Would catch two owners, a dead one's lock that stays, or one that is taken from
 * the living. */
#include "hp_sync.h"

#define POOL_BYTES (4 * MIB)
#define MS UINT64_C(1000000)

static hp_pool *pool;
static hp_container container;

static int begins(void **state)
{
	(void)state;
	pool = hp_plain_pool(POOL_BYTES, 0);
	container = hp_sync_container(pool);
	return 0;
}

static int ends(void **state)
{
	(void)state;
	hp_sync_over(pool);
	return 0;
}

static void locks_and_unlocks(void **state)
{
	(void)state;
	hp_mutex mutex = hp_sync_mutex(&container, "m", HP_MUTEX_ERRORCHECK);
	must_be(hp_mutex_unlock(&mutex), -EPERM);
	must_be(hp_mutex_consistent(&mutex), -EPERM);
	must_be(hp_mutex_lock(&mutex), 0);
	must_be(hp_mutex_lock(&mutex), -EDEADLK);
	must_be(hp_mutex_trylock(&mutex), -EDEADLK);
	must_be(hp_mutex_lock_timed(&mutex, MS), -EDEADLK);
	must_be(hp_mutex_consistent(&mutex), -EINVAL);
	must_be(hp_mutex_unlock(&mutex), 0);
	must_be(hp_mutex_unlock(&mutex), -EPERM);
	must_be(hp_mutex_trylock(&mutex), 0);
	must_be(hp_mutex_unlock(&mutex), 0);
	must_be(hp_mutex_lock_timed(&mutex, 0), 0);
	must_be(hp_mutex_unlock(&mutex), 0);
}

static void *is_refused(void *arg)
{
	const hp_mutex *mutex = arg;
	must_be(hp_mutex_unlock(mutex), -EPERM);
	must_be(hp_mutex_trylock(mutex), -EBUSY);
	must_be(hp_mutex_lock_timed(mutex, 0), -ETIMEDOUT);
	must_be(hp_mutex_lock_timed(mutex, 3 * MS), -ETIMEDOUT);
	must_be(hp_mutex_consistent(mutex), -EPERM);
	return NULL;
}

static void recursive_ones_count(void **state)
{
	(void)state;
	hp_mutex mutex = hp_sync_mutex(&container, "r", HP_MUTEX_RECURSIVE);
	for (int i = 0; i < 3; i++) must_be(i & 1 ? hp_mutex_trylock(&mutex) : hp_mutex_lock(&mutex), 0);
	pthread_t thread;
	for (int i = 0; i < 3; i++) {
		must_be(pthread_create(&thread, NULL, is_refused, &mutex), 0);
		must_be(pthread_join(thread, NULL), 0);
		must_be(hp_mutex_unlock(&mutex), 0);
	}
	must_be(hp_mutex_unlock(&mutex), -EPERM);
}

/* ---- one at a time ---- */

#define WORKERS 4
#define ROUNDS (HP_TEST_SANITIZER ? 2000 : 20000)

struct work {
	hp_mutex mutex;
	volatile uint64_t *count; /* not atomic: that is the point */
};

static void *counts(void *arg)
{
	const struct work *work = arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		must_be(hp_mutex_lock(&work->mutex), 0);
		work->count[0] = work->count[0] + 1;
		work->count[64] = work->count[64] + 1;
		must_be(hp_mutex_unlock(&work->mutex), 0);
	}
	return NULL;
}

static void threads_take_turns(void **state)
{
	(void)state;
	uint64_t count[65] = {0};
	struct work work = {.mutex = hp_sync_mutex(&container, "turns", 0), .count = count};
	pthread_t thread[WORKERS];
	for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_create(&thread[i], NULL, counts, &work), 0);
	for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_join(thread[i], NULL), 0);
	must_be(count[0], WORKERS * ROUNDS);
	must_be(count[64], WORKERS * ROUNDS);
}

static void processes_take_turns(void **state)
{
	(void)state;
	uint64_t *count = hp_shared(PAGE);
	struct work work = {.mutex = hp_sync_mutex(&container, "turns", 0), .count = count};
	pid_t pid[WORKERS];
	for (unsigned i = 0; i < WORKERS; i++)
		if ((pid[i] = hp_fork()) == 0) {
			hp_pool *mine = hp_attach_again(pool); /* at another address */
			hp_container there = hp_sync_container(mine);
			struct work own = {.mutex = hp_sync_mutex(&there, "turns", 0), .count = count};
			counts(i & 1 ? &own : &work);
			must_be(hp_pool_detach(mine), 0);
			_exit(0);
		}
	for (unsigned i = 0; i < WORKERS; i++) must_be(hp_wait_for(pid[i]), 0);
	must_be(count[0], WORKERS * ROUNDS);
	munmap(count, PAGE);
}

/* A pool without membarrier orders by locked instructions. */
static void fenced_pools_take_turns(void **state)
{
	(void)state;
	hp_pool *fenced = hp_plain_pool(POOL_BYTES, HP_POOL_FENCED);
	hp_container there = hp_sync_container(fenced);
	uint64_t count[65] = {0};
	struct work work = {.mutex = hp_sync_mutex(&there, "turns", 0), .count = count};
	pthread_t thread[WORKERS];
	for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_create(&thread[i], NULL, counts, &work), 0);
	for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_join(thread[i], NULL), 0);
	must_be(count[0], WORKERS * ROUNDS);
	hp_sync_over(fenced);
}

/* ---- death ---- */

static void holds(const struct child *me, void *arg)
{
	const hp_mutex *mutex = arg;
	int error = hp_mutex_lock(mutex);
	must(error == 0 || error == -EOWNERDEAD);
	if (error == 0) {
		error = hp_mutex_lock(mutex); /* recursive ones once more */
		must(error == 0 || error == -EDEADLK);
	}
	child_here(me);
	must_be(hp_mutex_unlock(mutex), 0);
}

static void dies_holding(hp_mutex *mutex)
{
	struct child child = child_start(holds, mutex);
	must(child_hear(&child));
	must_be(hp_mutex_trylock(mutex), -EBUSY);
	child_kill(&child);
}

static void goes_to_the_next(void **state)
{
	(void)state;
	const unsigned flags[] = {0, HP_MUTEX_RECURSIVE};
	for (int k = 0; k < 2; k++) {
		hp_mutex mutex = hp_sync_mutex(&container, k ? "rd" : "d", flags[k]);
		dies_holding(&mutex);
		must_be(hp_mutex_trylock(&mutex), -EOWNERDEAD);
		must_be(hp_mutex_consistent(&mutex), 0);
		must_be(hp_mutex_consistent(&mutex), -EINVAL);
		must_be(hp_mutex_unlock(&mutex), 0);
		must_be(hp_mutex_unlock(&mutex), -EPERM); /* how often the dead one had locked it is forgotten */
		must_be(hp_mutex_lock(&mutex), 0);
		must_be(hp_mutex_unlock(&mutex), 0);
	}
}

static void goes_from_the_dead_to_the_dead(void **state)
{
	(void)state;
	hp_mutex mutex = hp_sync_mutex(&container, "dd", 0);
	dies_holding(&mutex);
	dies_holding(&mutex);              /* who had got -EOWNERDEAD, and was not through */
	must_be(hp_pool_recover(pool), 2); /* slots and records have gone on, the name in the mutex has not */
	must_be(hp_mutex_lock(&mutex), -EOWNERDEAD);
	must_be(hp_mutex_consistent(&mutex), 0);
	must_be(hp_mutex_unlock(&mutex), 0);
}

static void breaks_when_it_is_left_inconsistent(void **state)
{
	(void)state;
	hp_mutex mutex = hp_sync_mutex(&container, "broken", 0);
	dies_holding(&mutex);
	must_be(hp_mutex_lock_timed(&mutex, HP_FOREVER), -EOWNERDEAD);
	must_be(hp_mutex_lock(&mutex), -EDEADLK);
	must_be(hp_mutex_unlock(&mutex), 0);
	must_be(hp_mutex_lock(&mutex), -ENOTRECOVERABLE);
	must_be(hp_mutex_trylock(&mutex), -ENOTRECOVERABLE);
	must_be(hp_mutex_unlock(&mutex), -EPERM);
	must_be(hp_mutex_consistent(&mutex), -EPERM);
	must_be(hp_container_unlink(&container, "broken"), 0);
	mutex = hp_sync_mutex(&container, "broken", HP_SYNC_NEW);
	must_be(hp_mutex_lock(&mutex), 0);
	must_be(hp_mutex_unlock(&mutex), 0);
}

static void unlinks_what_the_dead_hold(void **state)
{
	(void)state;
	hp_mutex mutex = hp_sync_mutex(&container, "u", 0);
	struct child child = child_start(holds, &mutex);
	must(child_hear(&child));
	must_be(hp_container_unlink(&container, "u"), -EBUSY);
	child_kill(&child);
	must_be(hp_container_unlink(&container, "u"), 0);
	must_be(hp_mutex_lock(&mutex), -ESTALE);
}

/* Who waits already when the holder dies, when it lets go, when it breaks. */
struct waiter {
	hp_mutex mutex;
	int want, got;
};

static void *waits(void *arg)
{
	struct waiter *waiter = arg;
	waiter->got = hp_mutex_lock(&waiter->mutex);
	if (waiter->got == 0) must_be(hp_mutex_unlock(&waiter->mutex), 0);
	if (waiter->got == -EOWNERDEAD && waiter->want == -EOWNERDEAD) {
		must_be(hp_mutex_consistent(&waiter->mutex), 0);
		must_be(hp_mutex_unlock(&waiter->mutex), 0);
	}
	return NULL;
}

static void waiters_learn_of_it(void **state)
{
	(void)state;
	const int want[] = {0, -EOWNERDEAD, -ENOTRECOVERABLE};
	for (unsigned k = 0; k < 3; k++) {
		struct waiter waiter = {.mutex = hp_sync_mutex(&container, "w", 0), .want = want[k]};
		pthread_t thread;
		struct child child = {0};
		if (want[k] == -EOWNERDEAD) {
			child = child_start(holds, &waiter.mutex);
			must(child_hear(&child));
		} else if (want[k] == -ENOTRECOVERABLE) {
			dies_holding(&waiter.mutex);
			must_be(hp_mutex_lock(&waiter.mutex), -EOWNERDEAD);
		} else {
			must_be(hp_mutex_lock(&waiter.mutex), 0);
		}
		atomic_store(&((struct sync_entry *)waiter.mutex.entry)->futex, 0);
		must_be(pthread_create(&thread, NULL, waits, &waiter), 0);
		hp_sync_await_flag(waiter.mutex.entry);
		if (want[k] == -EOWNERDEAD) {
			child_kill(&child);
		} else {
			must_be(hp_mutex_unlock(&waiter.mutex), 0);
		}
		must_be(pthread_join(thread, NULL), 0);
		must_be(waiter.got, want[k]);
		if (want[k] == -ENOTRECOVERABLE) must_be(hp_container_unlink(&container, "w"), 0);
	}
}

/* A thread of this process that ends with the mutex; and a handle that goes. */
static void *locks_and_ends(void *arg)
{
	must_be(hp_mutex_lock(arg), 0);
	return NULL;
}

static void ends_of_threads_and_handles_are_deaths(void **state)
{
	(void)state;
	hp_mutex mutex = hp_sync_mutex(&container, "t", 0);
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, locks_and_ends, &mutex), 0);
	must_be(pthread_join(thread, NULL), 0);
	must_be(hp_mutex_lock(&mutex), -EOWNERDEAD);
	must_be(hp_mutex_consistent(&mutex), 0);
	must_be(hp_mutex_unlock(&mutex), 0);

	hp_pool *other = hp_attach_again(pool);
	hp_container there = hp_sync_container(other);
	hp_mutex same = hp_sync_mutex(&there, "t", 0);
	must_be(hp_mutex_lock(&same), 0);
	must_be(hp_mutex_trylock(&mutex), -EBUSY); /* another handle is another owner */
	must_be(hp_pool_detach(other), 0);
	must_be(hp_mutex_lock(&mutex), -EOWNERDEAD);
	must_be(hp_mutex_consistent(&mutex), 0);
	must_be(hp_mutex_unlock(&mutex), 0);
}

static void stopped_ones_keep_it(void **state)
{
	(void)state;
	hp_mutex mutex = hp_sync_mutex(&container, "stopped", 0);
	struct child child = child_start(holds, &mutex);
	must(child_hear(&child));
	must_be(kill(child.pid, SIGSTOP), 0);
	child_await_stop(&child);
	must_be(hp_mutex_lock_timed(&mutex, 40 * MS), -ETIMEDOUT);
	must_be(kill(child.pid, SIGCONT), 0);
	child_finish(&child);
	must_be(hp_mutex_lock(&mutex), 0);
	must_be(hp_mutex_unlock(&mutex), 0);
}

/* ---- storm ---- */

#define KILLS (HP_TEST_SANITIZER ? 10 : 60)
#define STORMERS 3

/* Two numbers that are equal whenever the mutex is free or consistent; and who is inside. */
struct arena {
	_Atomic uint64_t a, b, deaths, rounds;
	_Atomic uint32_t inside;
};

static void storms(const hp_mutex *mutex, struct arena *arena)
{
	for (;;) {
		int error = hp_mutex_lock(mutex);
		must(error == 0 || error == -EOWNERDEAD);
		uint32_t before = atomic_exchange(&arena->inside, (uint32_t)getpid());
		if (error == 0) must_be(before, 0);
		if (error) {
			atomic_store(&arena->b, atomic_load(&arena->a)); /* the repair */
			atomic_fetch_add(&arena->deaths, 1);
			must_be(hp_mutex_consistent(mutex), 0);
		}
		must_be(atomic_load(&arena->a), atomic_load(&arena->b));
		atomic_fetch_add(&arena->a, 1);
		atomic_fetch_add(&arena->b, 1);
		atomic_fetch_add(&arena->rounds, 1);
		atomic_store(&arena->inside, 0);
		must_be(hp_mutex_unlock(mutex), 0);
	}
}

static pid_t stormer(const hp_mutex *mutex, struct arena *arena)
{
	pid_t pid = hp_fork();
	if (pid == 0) storms(mutex, arena);
	return pid;
}

static void storm_of_kills(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	struct arena *arena = hp_shared(PAGE);
	hp_mutex mutex = hp_sync_mutex(&container, "storm", 0);
	pid_t pid[STORMERS];
	for (unsigned i = 0; i < STORMERS; i++) pid[i] = stormer(&mutex, arena);
	for (unsigned k = 0; k < KILLS; k++) {
		uint64_t from = atomic_load(&arena->rounds);
		/* at least so much has happened since the last kill: nobody is blocked */
		while (atomic_load(&arena->rounds) < from + 1 + hp_below(&seed, 200)) sched_yield();
		unsigned i = (unsigned)hp_below(&seed, STORMERS);
		must_be(kill(pid[i], SIGKILL), 0);
		must_be(hp_wait_for(pid[i]), 128 + SIGKILL); /* and not by its own assertions */
		pid[i] = stormer(&mutex, arena);
	}
	for (unsigned i = 0; i < STORMERS; i++) {
		must_be(kill(pid[i], SIGKILL), 0);
		must_be(hp_wait_for(pid[i]), 128 + SIGKILL);
	}
	int error = hp_mutex_lock(&mutex);
	must(error == 0 || error == -EOWNERDEAD);
	if (error)
		must_be(hp_mutex_consistent(&mutex), 0);
	else
		must_be(atomic_load(&arena->a), atomic_load(&arena->b));
	must_be(hp_mutex_unlock(&mutex), 0);
	print_message("%llu rounds, %llu of %u killed with the mutex\n", (unsigned long long)atomic_load(&arena->rounds),
	              (unsigned long long)atomic_load(&arena->deaths), KILLS);
	munmap(arena, PAGE);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begins, ends)
	const struct CMUnitTest tests[] = {
		TEST(locks_and_unlocks),
		TEST(recursive_ones_count),
		TEST(threads_take_turns),
		TEST(processes_take_turns),
		TEST(fenced_pools_take_turns),
		TEST(goes_to_the_next),
		TEST(goes_from_the_dead_to_the_dead),
		TEST(breaks_when_it_is_left_inconsistent),
		TEST(unlinks_what_the_dead_hold),
		TEST(waiters_learn_of_it),
		TEST(ends_of_threads_and_handles_are_deaths),
		TEST(stopped_ones_keep_it),
		TEST(storm_of_kills),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
