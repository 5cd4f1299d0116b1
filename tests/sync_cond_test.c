/* Conditions: what each call returns, that no signal is lost, to the living in place of the dead neither, and that waits end
 * with the mutex as it was. Would catch a signal that goes with a killed waiter, or one that comes between unlock and sleep. */
#include "hp_sync.h"

#define POOL_BYTES (4 * MIB)
#define MS UINT64_C(1000000)

static hp_pool *pool;
static hp_container container;

/* What is waited for: tokens, under the mutex. */
struct scene {
	hp_mutex mutex;
	hp_cond cond;
	struct tokens {
		uint64_t there, taken;
		_Atomic uint32_t waiting;
	} * tokens;
};

static struct scene scene;

static int begins(void **state)
{
	(void)state;
	pool = hp_plain_pool(POOL_BYTES, 0);
	container = hp_sync_container(pool);
	scene = (struct scene){.mutex = hp_sync_mutex(&container, "mutex", HP_MUTEX_RECURSIVE),
	                       .cond = hp_sync_cond(&container, "cond"),
	                       .tokens = hp_shared(PAGE)};
	return 0;
}

static int ends(void **state)
{
	(void)state;
	munmap(scene.tokens, PAGE);
	hp_sync_over(pool);
	return 0;
}

static void says_what_is_wrong(void **state)
{
	(void)state;
	must_be(hp_cond_wait(&scene.cond, &scene.mutex), -EPERM);
	must_be(hp_mutex_lock(&scene.mutex), 0);
	must_be(hp_cond_wait_timed(&scene.cond, &scene.mutex, 0), -ETIMEDOUT);
	must_be(hp_cond_wait_timed(&scene.cond, &scene.mutex, 3 * MS), -ETIMEDOUT);
	must_be(hp_cond_signal(&scene.cond), 0); /* for nobody */
	must_be(hp_cond_wait_timed(&scene.cond, &scene.mutex, 3 * MS), -ETIMEDOUT);
	must_be(hp_container_unlink(&container, "cond"), 0);
	must_be(hp_cond_wait(&scene.cond, &scene.mutex), -ESTALE);
	must_be(hp_mutex_unlock(&scene.mutex), 0);
	must_be(hp_mutex_unlock(&scene.mutex), -EPERM); /* each wait left it locked once */
}

static void lock(void)
{
	int error = hp_mutex_lock(&scene.mutex);
	if (error == -EOWNERDEAD) error = hp_mutex_consistent(&scene.mutex);
	must_be(error, 0);
}

/* The mutex is held. */
static void wait_for_token(void)
{
	atomic_fetch_add(&scene.tokens->waiting, 1);
	while (scene.tokens->there == scene.tokens->taken) {
		int error = hp_cond_wait(&scene.cond, &scene.mutex);
		if (error == -EOWNERDEAD) error = hp_mutex_consistent(&scene.mutex);
		must_be(error, 0);
	}
	scene.tokens->taken++;
	atomic_fetch_sub(&scene.tokens->waiting, 1);
}

static void *consumes(void *arg)
{
	for (uintptr_t n = (uintptr_t)arg; n; n--) {
		lock();
		wait_for_token();
		must_be(hp_mutex_unlock(&scene.mutex), 0);
	}
	return NULL;
}

static void produce(uint64_t n)
{
	for (; n; n--) {
		lock();
		scene.tokens->there++;
		if (n & 1) must_be(hp_cond_signal(&scene.cond), 0);
		must_be(hp_mutex_unlock(&scene.mutex), 0);
		if (!(n & 1)) must_be(hp_cond_signal(&scene.cond), 0);
	}
}

#define WORKERS 3
#define ROUNDS (HP_TEST_SANITIZER ? 300 : 3000)

static void every_token_is_taken(void **state)
{
	(void)state;
	pthread_t thread[WORKERS];
	for (unsigned i = 0; i < WORKERS; i++)
		must_be(pthread_create(&thread[i], NULL, consumes, (void *)(uintptr_t)ROUNDS), 0);
	produce(WORKERS * ROUNDS);
	for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_join(thread[i], NULL), 0);
	pid_t pid[WORKERS];
	for (unsigned i = 0; i < WORKERS; i++)
		if ((pid[i] = hp_fork()) == 0) {
			consumes((void *)(uintptr_t)ROUNDS);
			_exit(0);
		}
	produce(WORKERS * ROUNDS);
	for (unsigned i = 0; i < WORKERS; i++) must_be(hp_wait_for(pid[i]), 0);
	must_be(scene.tokens->taken, 2 * WORKERS * ROUNDS);
}

/* All who wait, at once; they had the mutex twice, and have it twice again. */
static void *waits_for_all(void *arg)
{
	(void)arg;
	lock();
	lock();
	atomic_fetch_add(&scene.tokens->waiting, 1);
	while (!scene.tokens->there) must_be(hp_cond_wait(&scene.cond, &scene.mutex), 0);
	must_be(hp_mutex_unlock(&scene.mutex), 0);
	must_be(hp_mutex_trylock(&scene.mutex), 0); /* still ours */
	must_be(hp_mutex_unlock(&scene.mutex), 0);
	must_be(hp_mutex_unlock(&scene.mutex), 0);
	must_be(hp_mutex_unlock(&scene.mutex), -EPERM);
	return NULL;
}

static void broadcasts_wake_all(void **state)
{
	(void)state;
	pthread_t thread[WORKERS];
	for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_create(&thread[i], NULL, waits_for_all, NULL), 0);
	while (atomic_load(&scene.tokens->waiting) < WORKERS) sched_yield();
	lock(); /* so all of them have let go of it */
	scene.tokens->there = 1;
	must_be(hp_cond_broadcast(&scene.cond), 0);
	must_be(hp_mutex_unlock(&scene.mutex), 0);
	for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_join(thread[i], NULL), 0);
}

static void *is_cancelled(void *arg)
{
	*(int *)arg = 1;
	lock();
	atomic_fetch_add(&scene.tokens->waiting, 1);
	*(int *)arg = hp_cond_wait(&scene.cond, &scene.mutex);
	must_be(hp_mutex_unlock(&scene.mutex), 0);
	return NULL;
}

static void unlinking_ends_waits(void **state)
{
	(void)state;
	int got;
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, is_cancelled, &got), 0);
	while (!atomic_load(&scene.tokens->waiting)) sched_yield();
	lock();
	must_be(hp_mutex_unlock(&scene.mutex), 0);
	must_be(hp_container_unlink(&container, "cond"), 0);
	must_be(pthread_join(thread, NULL), 0);
	must_be(got, -ECANCELED);
}

/* ---- death ---- */

static void waits_and_dies(const struct child *me, void *arg)
{
	(void)arg;
	lock();
	child_say(me);
	wait_for_token();
	must_be(hp_mutex_unlock(&scene.mutex), 0);
}

/* The first who waits is stopped, so that the signal's wake goes to him, and killed: the other gets the token. */
static void the_dead_keep_no_signal(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 10; round++) {
		struct child first = child_start(waits_and_dies, NULL), second;
		must(child_hear(&first));
		lock(); /* it waits */
		must_be(hp_mutex_unlock(&scene.mutex), 0);
		must_be(kill(first.pid, SIGSTOP), 0);
		child_await_stop(&first);
		second = child_start(waits_and_dies, NULL);
		must(child_hear(&second));
		lock();
		scene.tokens->there++;
		must_be(hp_mutex_unlock(&scene.mutex), 0);
		must_be(hp_cond_signal(&scene.cond), 0);
		child_kill(&first);
		must_be(child_end(&second), 0);
		must_be(scene.tokens->there, scene.tokens->taken);
	}
}

/* Who dies with the mutex that the others wait to have back. */
static void waits_end_with_owners_dead(void **state)
{
	(void)state;
	struct child waiter = child_start(waits_and_dies, NULL), holder;
	must(child_hear(&waiter));
	lock();
	must_be(hp_mutex_unlock(&scene.mutex), 0);
	holder = child_start(waits_and_dies, NULL);
	must(child_hear(&holder));
	lock();
	scene.tokens->there = 2;
	must_be(hp_cond_broadcast(&scene.cond), 0);
	pid_t pid = hp_fork(); /* with the mutex of this thread: not its own */
	if (pid == 0) {
		must_be(hp_cond_wait(&scene.cond, &scene.mutex), -EPERM);
		_exit(0);
	}
	must_be(hp_wait_for(pid), 0);
	must_be(hp_mutex_unlock(&scene.mutex), 0);
	must_be(child_end(&waiter), 0);
	must_be(child_end(&holder), 0);
}

/* ---- storm ---- */

#define KILLS (HP_TEST_SANITIZER ? 10 : 100)

static pid_t stormer(void)
{
	pid_t pid = hp_fork();
	if (pid == 0) consumes((void *)UINTPTR_MAX);
	return pid;
}

static void storm_of_kills(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	pid_t pid[WORKERS];
	for (unsigned i = 0; i < WORKERS; i++) pid[i] = stormer();
	for (unsigned k = 0; k < KILLS; k++) {
		unsigned tokens = 1 + (unsigned)hp_below(&seed, 20);
		produce(tokens);
		unsigned i = (unsigned)hp_below(&seed, WORKERS);
		must_be(kill(pid[i], SIGKILL), 0);
		must_be(hp_wait_for(pid[i]), 128 + SIGKILL);
		/* the living take what is there, whoever was woken for it */
		for (bool through = false; !through; sched_yield()) {
			lock();
			through = scene.tokens->taken == scene.tokens->there;
			must_be(hp_mutex_unlock(&scene.mutex), 0);
		}
		pid[i] = stormer();
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		must_be(kill(pid[i], SIGKILL), 0);
		must_be(hp_wait_for(pid[i]), 128 + SIGKILL);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begins, ends)
	const struct CMUnitTest tests[] = {
		TEST(says_what_is_wrong),   TEST(every_token_is_taken),    TEST(broadcasts_wake_all),
		TEST(unlinking_ends_waits), TEST(the_dead_keep_no_signal), TEST(waits_end_with_owners_dead),
		TEST(storm_of_kills),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
