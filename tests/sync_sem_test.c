/* Semaphores: what each call returns, that no unit is lost or made between threads and processes, and that with undo the units of
 * the dead, and only those, are free again. Would catch a unit that goes with its holder, is free twice, or is taken from the
 * living; a post whose waiter sleeps on. */
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

static void counts(void **state)
{
	(void)state;
	hp_sem sem = hp_sync_sem(&container, "s", 0, 2);
	must_be(hp_sem_wait(&sem), 0);
	must_be(hp_sem_wait_timed(&sem, 0), 0);
	must_be(hp_sem_value(&sem), 0);
	must_be(hp_sem_trywait(&sem), -EAGAIN);
	must_be(hp_sem_wait_timed(&sem, 0), -ETIMEDOUT);
	must_be(hp_sem_wait_timed(&sem, 3 * MS), -ETIMEDOUT);
	for (int i = 0; i < 5; i++) must_be(hp_sem_post(&sem), 0);
	must_be(hp_sem_value(&sem), 5);
	hp_sem most = hp_sync_sem(&container, "most", 0, HP_SEM_MAX);
	must_be(hp_sem_post(&most), -EOVERFLOW);
	must_be(hp_sem_trywait(&most), 0);
	must_be(hp_sem_post(&most), 0);
	must_be(hp_sem_value(&most), HP_SEM_MAX);
}

static void units_belong_to_processes(void **state)
{
	(void)state;
	hp_sem sem = hp_sync_sem(&container, "u", HP_SEM_UNDO, 3);
	must_be(hp_sem_post(&sem), -EPERM); /* has none */
	for (int i = 0; i < 3; i++) must_be(hp_sem_wait(&sem), 0);
	must_be(hp_sem_trywait(&sem), -EAGAIN);
	must_be(hp_sem_wait_timed(&sem, 3 * MS), -ETIMEDOUT);
	must_be(hp_sem_value(&sem), 0);
	hp_pool *other = hp_attach_again(pool); /* as another process */
	hp_container there = hp_sync_container(other);
	hp_sem same = hp_sync_sem(&there, "u", HP_SEM_UNDO, 0);
	must_be(hp_sem_post(&same), -EPERM);
	must_be(hp_sem_post(&sem), 0);
	must_be(hp_sem_wait(&same), 0);
	must_be(hp_sem_trywait(&sem), -EAGAIN);
	must_be(hp_pool_detach(other), 0); /* gives it back */
	must_be(hp_sem_trywait(&sem), 0);
	for (int i = 0; i < 3; i++) must_be(hp_sem_post(&sem), 0);
	must_be(hp_sem_post(&sem), -EPERM);
	must_be(hp_sem_value(&sem), 3);
	hp_sem none = hp_sync_sem(&container, "none", HP_SEM_UNDO, 0);
	must_be(hp_sem_trywait(&none), -EAGAIN);
	must_be(hp_sem_post(&none), -EPERM);
}

static void *posts_one(void *arg)
{
	must_be(hp_sem_post(arg), 0);
	return NULL;
}

static void threads_share_their_process_units(void **state)
{
	(void)state;
	hp_sem sem = hp_sync_sem(&container, "t", HP_SEM_UNDO, 1);
	pthread_t thread;
	must_be(hp_sem_wait(&sem), 0);
	must_be(pthread_create(&thread, NULL, posts_one, &sem), 0);
	must_be(pthread_join(thread, NULL), 0);
	must_be(hp_sem_value(&sem), 1);
}

/* ---- conservation ---- */

#define WORKERS 4
#define UNITS 2
#define ROUNDS (HP_TEST_SANITIZER ? 1000 : 10000)

struct work {
	hp_sem sem;
	_Atomic uint32_t *inside;
};

static void *takes_and_gives(void *arg)
{
	const struct work *work = arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		must_be(i % 3 ? hp_sem_wait(&work->sem) : hp_sem_wait_timed(&work->sem, HP_FOREVER - 1), 0);
		must(atomic_fetch_add(work->inside, 1) < UNITS);
		if (i % 16 == 0) sched_yield();
		atomic_fetch_sub(work->inside, 1);
		must_be(hp_sem_post(&work->sem), 0);
	}
	return NULL;
}

static void so_many_at_a_time(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags <= HP_SEM_UNDO; flags++) {
		_Atomic uint32_t *inside = hp_shared(PAGE);
		struct work work = {.sem = hp_sync_sem(&container, flags ? "undo" : "plain", flags, UNITS), .inside = inside};
		pthread_t thread[WORKERS];
		for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_create(&thread[i], NULL, takes_and_gives, &work), 0);
		for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_join(thread[i], NULL), 0);
		pid_t pid[WORKERS];
		for (unsigned i = 0; i < WORKERS; i++)
			if ((pid[i] = hp_fork()) == 0) {
				takes_and_gives(&work);
				_exit(0);
			}
		for (unsigned i = 0; i < WORKERS; i++) must_be(hp_wait_for(pid[i]), 0);
		must_be(hp_sem_value(&work.sem), UNITS);
		munmap((void *)inside, PAGE);
	}
}

/* Posts that come together wake as many as there are units, though the flag is up for the first only. */
static void *waits_once(void *arg)
{
	must_be(hp_sem_wait(arg), 0);
	return NULL;
}

static void every_post_is_somebodys(void **state)
{
	(void)state;
	hp_sem sem = hp_sync_sem(&container, "each", 0, 0);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 5 : 50); round++) {
		pthread_t thread[WORKERS];
		for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_create(&thread[i], NULL, waits_once, &sem), 0);
		if (round & 1) hp_sync_await_flag(sem.entry);
		for (unsigned i = 0; i < WORKERS; i++) must_be(hp_sem_post(&sem), 0);
		for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_join(thread[i], NULL), 0);
		must_be(hp_sem_value(&sem), 0);
	}
}

/* ---- death ---- */

static void takes_two(const struct child *me, void *arg)
{
	must_be(hp_sem_wait(arg), 0);
	must_be(hp_sem_wait(arg), 0);
	child_here(me);
	must_be(hp_sem_post(arg), 0);
	must_be(hp_sem_post(arg), 0);
}

static void the_dead_give_back(void **state)
{
	(void)state;
	hp_sem sem = hp_sync_sem(&container, "d", HP_SEM_UNDO, 3);
	for (int recovered = 0; recovered <= 1; recovered++) {
		struct child child = child_start(takes_two, &sem), other;
		must(child_hear(&child));
		must_be(hp_sem_value(&sem), 1);
		must_be(hp_sem_wait(&sem), 0);
		must_be(hp_sem_trywait(&sem), -EAGAIN);
		child_kill(&child);
		if (recovered) must(hp_pool_recover(pool) > 0);
		if (recovered) { /* its record has a new process by now, whose units these are not */
			other = child_start(takes_two, &sem);
			must(child_hear(&other));
			must_be(hp_sem_trywait(&sem), -EAGAIN);
			child_finish(&other);
		} else {
			must_be(hp_sem_wait(&sem), 0);
			must_be(hp_sem_trywait(&sem), 0);
			must_be(hp_sem_trywait(&sem), -EAGAIN);
			must_be(hp_sem_post(&sem), 0);
			must_be(hp_sem_post(&sem), 0);
		}
		must_be(hp_sem_post(&sem), 0);
		must_be(hp_sem_value(&sem), 3);
	}
}

static void waiters_get_what_the_dead_had(void **state)
{
	(void)state;
	hp_sem sem = hp_sync_sem(&container, "dw", HP_SEM_UNDO, 2);
	struct child child = child_start(takes_two, &sem);
	pthread_t thread[2];
	must(child_hear(&child));
	for (int i = 0; i < 2; i++) must_be(pthread_create(&thread[i], NULL, waits_once, &sem), 0);
	hp_sync_await_flag(sem.entry);
	child_kill(&child);
	for (int i = 0; i < 2; i++) must_be(pthread_join(thread[i], NULL), 0);
	must_be(hp_sem_post(&sem), 0);
	must_be(hp_sem_post(&sem), 0);
}

static void without_undo_they_are_gone(void **state)
{
	(void)state;
	hp_sem sem = hp_sync_sem(&container, "gone", 0, 3);
	struct child child = child_start(takes_two, &sem);
	must(child_hear(&child));
	child_kill(&child);
	must_be(hp_sem_wait(&sem), 0);
	must_be(hp_sem_wait_timed(&sem, 5 * MS), -ETIMEDOUT);
}

/* ---- storm ---- */

#define KILLS (HP_TEST_SANITIZER ? 10 : 60)
#define STORMERS 3

static pid_t stormer(const hp_sem *sem, _Atomic uint64_t *rounds, uint64_t seed)
{
	pid_t pid = hp_fork();
	if (pid) return pid;
	for (;;) {
		unsigned n = 1 + (unsigned)hp_below(&seed, 2);
		for (unsigned i = 0; i < n; i++)
			if (hp_sem_wait_timed(sem, MS) < 0) n = i;
		for (unsigned i = 0; i < n; i++) must_be(hp_sem_post(sem), 0);
		must_be(hp_sem_post(sem), -EPERM);
		atomic_fetch_add(rounds, n > 0);
	}
}

static void storm_of_kills(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	_Atomic uint64_t *rounds = hp_shared(PAGE);
	hp_sem sem = hp_sync_sem(&container, "storm", HP_SEM_UNDO, 2);
	pid_t pid[STORMERS];
	for (unsigned i = 0; i < STORMERS; i++) pid[i] = stormer(&sem, rounds, hp_random(&seed));
	for (unsigned k = 0; k < KILLS; k++) {
		uint64_t from = atomic_load(rounds);
		while (atomic_load(rounds) < from + 1 + hp_below(&seed, 100)) sched_yield();
		unsigned i = (unsigned)hp_below(&seed, STORMERS);
		must_be(kill(pid[i], SIGKILL), 0);
		must_be(hp_wait_for(pid[i]), 128 + SIGKILL);
		pid[i] = stormer(&sem, rounds, hp_random(&seed));
	}
	for (unsigned i = 0; i < STORMERS; i++) {
		must_be(kill(pid[i], SIGKILL), 0);
		must_be(hp_wait_for(pid[i]), 128 + SIGKILL);
	}
	must_be(hp_sem_trywait(&sem), 0); /* both, whoever had them */
	must_be(hp_sem_trywait(&sem), 0);
	must_be(hp_sem_trywait(&sem), -EAGAIN);
	munmap((void *)rounds, PAGE);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begins, ends)
	const struct CMUnitTest tests[] = {
		TEST(counts),
		TEST(units_belong_to_processes),
		TEST(threads_share_their_process_units),
		TEST(so_many_at_a_time),
		TEST(every_post_is_somebodys),
		TEST(the_dead_give_back),
		TEST(waiters_get_what_the_dead_had),
		TEST(without_undo_they_are_gone),
		TEST(storm_of_kills),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
