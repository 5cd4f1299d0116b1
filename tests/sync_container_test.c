/* Containers: names, making by several at once, unlinking and what stale handles say, ends, and makers that die. Would catch a
 * name that is made twice, a handle that works on what took its thing's place, an entry that is lost with its maker. */
#include "hp_sync.h"
#include "sync/sync.h"

#define POOL_BYTES (4 * MIB)

static void opens_what_is_there(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0), *other = hp_attach_again(pool);
	hp_container here = hp_sync_container(pool), there = hp_sync_container(other), third;
	must_be(hp_container_id(&here), hp_container_id(&there));
	must_be(hp_container_open(other, hp_container_id(&here), &third), 0);
	must(third.at == there.at && third.entries == HP_CONTAINER_ENTRIES && third.units == HP_CONTAINER_UNITS);
	hp_sem sem = hp_sync_sem(&here, "s", HP_SYNC_NEW, 7), same = hp_sync_sem(&there, "s", HP_SYNC_EXISTING, 0);
	must_be(hp_sem_value(&same), 7);
	must_be(hp_sem_post(&sem), 0);
	must_be(hp_sem_value(&same), 8);
	must_be(hp_pool_detach(other), 0);
	hp_sync_over(pool);
}

static void refuses_what_makes_no_sense(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	hp_container container = hp_sync_container(pool), none;
	hp_mutex mutex;
	hp_sem sem;
	hp_cond cond;
	must_be(hp_mutex_open(&container, "", 0, &mutex), -EINVAL);
	must_be(hp_mutex_open(&container, NULL, 0, &mutex), -EINVAL);
	must_be(hp_mutex_open(&container, "01234567890123456789012345678901", 0, &mutex), -EINVAL);
	must_be(hp_mutex_open(&container, "0123456789012345678901234567890", 0, &mutex), 0);
	must_be(hp_mutex_open(&container, "m", 2, &mutex), -EINVAL);
	must_be(hp_mutex_open(&container, "m", HP_SYNC_NEW | HP_SYNC_EXISTING, &mutex), -EINVAL);
	must_be(hp_mutex_open(NULL, "m", 0, &mutex), -EINVAL);
	must_be(hp_mutex_open(&container, "m", 0, NULL), -EINVAL);
	must_be(hp_mutex_open(&container, "m", HP_SYNC_EXISTING, &mutex), -ENOENT);
	must_be(hp_mutex_open(&container, "m", 0, &mutex), 0);
	must_be(hp_mutex_open(&container, "m", HP_SYNC_NEW, &mutex), -EEXIST);
	must_be(hp_mutex_open(&container, "m", HP_MUTEX_RECURSIVE, &mutex), -EPROTO);
	must_be(hp_sem_open(&container, "m", 0, 0, &sem), -EPROTO);
	must_be(hp_cond_open(&container, "m", 0, &cond), -EPROTO);
	must_be(hp_cond_open(&container, "c", 1, &cond), -EINVAL);
	must_be(hp_sem_open(&container, "s", 0, HP_SEM_MAX + 1, &sem), -EINVAL);
	must_be(hp_sem_open(&container, "s", HP_SEM_UNDO, HP_CONTAINER_UNITS + 1, &sem), -EINVAL);
	must_be(hp_sem_open(&container, "s", 2, 0, &sem), -EINVAL);
	must_be(hp_container_unlink(&container, "nobody"), -ENOENT);
	must_be(hp_container_unlink(&container, ""), -EINVAL);
	must_be(hp_container_create(pool, 0, 0, &none), -EINVAL);
	must_be(hp_container_create(pool, 65537, 0, &none), -EINVAL);
	must_be(hp_container_create(pool, 1, 65537, &none), -EINVAL);
	must_be(hp_container_create(pool, 65536, 65536, &none), -ENOMEM);
	must_be(hp_container_create(NULL, 1, 1, &none), -EINVAL);
	must_be(hp_container_default(NULL, &none), -EINVAL);
	must_be(hp_container_open(pool, hp_container_id(&container) + 64, &none), -EINVAL);
	must_be(hp_container_open(pool, hp_container_id(&container) + 1, &none), -EINVAL);
	must_be(hp_container_open(pool, HP_OFF_NONE, &none), -EINVAL);
	must_be(hp_container_open(pool, 1 << 21, &none), -EINVAL);
	hp_sync_over(pool);
}

static void is_full_when_it_is_full(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	hp_container container, again;
	hp_cond cond;
	char name[32];
	must_be(hp_container_create(pool, 100, 3, &container), 0);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof name, "thing %u", i);
		must_be(hp_cond_open(&container, name, 0, &cond), 0);
	}
	must_be(hp_cond_open(&container, "more", 0, &cond), -ENOSPC);
	must_be(hp_container_destroy(&container), -EBUSY);
	must_be(hp_container_unlink(&container, "thing 57"), 0);
	must_be(hp_cond_open(&container, "more", 0, &cond), 0);
	must_be(hp_container_open(pool, hp_container_id(&container), &again), 0);
	uint32_t cursor = 0, count = 0, found = 0;
	int kind;
	while ((kind = hp_container_next(&again, &cursor, name))) {
		must_be(kind, HP_SYNC_COND);
		count++;
		found += strcmp(name, "more") == 0;
		must(strcmp(name, "thing 57") != 0);
		must_be(hp_container_unlink(&again, name), 0);
	}
	must_be(count, 100);
	must_be(found, 1);
	must_be(hp_container_destroy(&container), 0);
	must_be(hp_container_destroy(&again), -ESTALE);
	must_be(hp_container_open(pool, hp_container_id(&again), &again), -EINVAL);
	hp_sync_over(pool);
}

static void stale_handles_say_so(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	hp_container container;
	must_be(hp_container_create(pool, 1, 4, &container), 0);
	hp_mutex mutex = hp_sync_mutex(&container, "x", 0), newer;
	must_be(hp_container_unlink(&container, "x"), 0);
	must_be(hp_mutex_lock(&mutex), -ESTALE);
	newer = hp_sync_mutex(&container, "x", 0);
	must(newer.entry == mutex.entry);
	must_be(hp_mutex_lock(&mutex), -ESTALE);
	must_be(hp_mutex_lock(&newer), 0);
	must_be(hp_mutex_unlock(&mutex), -ESTALE);
	must_be(hp_container_unlink(&container, "x"), -EBUSY);
	must_be(hp_mutex_unlock(&newer), 0);
	must_be(hp_container_unlink(&container, "x"), 0);
	hp_sem sem = hp_sync_sem(&container, "x", 0, 1);
	must_be(hp_mutex_trylock(&newer), -ESTALE);
	must_be(hp_container_unlink(&container, "x"), 0);
	hp_sem units = hp_sync_sem(&container, "x", HP_SEM_UNDO, 4);
	must_be(hp_sem_trywait(&sem), -ESTALE);
	must_be(hp_sem_post(&sem), -ESTALE);
	must_be(hp_sem_value(&sem), -ESTALE);
	must_be(hp_sem_wait(&units), 0);
	must_be(hp_container_unlink(&container, "x"), 0);
	must_be(hp_sem_post(&units), -ESTALE);
	must_be(hp_sem_trywait(&units), -ESTALE);
	hp_cond cond = hp_sync_cond(&container, "x");
	must_be(hp_sem_post(&units), -ESTALE);
	must_be(hp_sem_wait(&units), -ESTALE);
	must_be(hp_container_unlink(&container, "x"), 0);
	must_be(hp_cond_signal(&cond), -ESTALE);
	must_be(hp_cond_broadcast(&cond), -ESTALE);
	must_be(hp_container_destroy(&container), 0);
	hp_sync_over(pool);
}

/* ---- several at once ---- */

#define MAKERS 4
#define NAMES 3
#define ROUNDS (HP_TEST_SANITIZER ? 300 : 3000)

struct made {
	hp_container container;
	uint64_t seed;
};

/* Each name is one thing, however many make and unlink it: a lock of what it names is held by one at a time. */
static void *makes_and_unlinks(void *arg)
{
	struct made *made = arg;
	static _Atomic uint32_t inside[NAMES];
	const char *names[NAMES] = {"a", "b", "c"};
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned n = (unsigned)hp_below(&made->seed, NAMES);
		hp_mutex mutex;
		int error = hp_mutex_open(&made->container, names[n], 0, &mutex);
		must(error == 0 || error == -ENOSPC);
		if (error < 0) continue;
		error = hp_mutex_lock(&mutex);
		must(error == 0 || error == -ESTALE);
		if (error < 0) continue;
		/* it is locked, so it cannot be unlinked, so whoever has the name has this one */
		must_be(atomic_fetch_add(&inside[n], 1), 0);
		if (hp_below(&made->seed, 8) == 0) sched_yield();
		must_be(atomic_fetch_sub(&inside[n], 1), 1);
		must_be(hp_mutex_unlock(&mutex), 0);
		if (hp_below(&made->seed, 2)) {
			error = hp_container_unlink(&made->container, names[n]);
			must(error == 0 || error == -ENOENT || error == -EBUSY);
		}
	}
	return NULL;
}

static void names_are_made_once(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	hp_container container;
	must_be(hp_container_create(pool, MAKERS, 0, &container), 0);
	pthread_t thread[MAKERS];
	struct made made[MAKERS];
	uint64_t seed = hp_seed(__func__);
	for (unsigned i = 0; i < MAKERS; i++) {
		made[i] = (struct made){.container = container, .seed = seed + i};
		must_be(pthread_create(&thread[i], NULL, makes_and_unlinks, &made[i]), 0);
	}
	for (unsigned i = 0; i < MAKERS; i++) must_be(pthread_join(thread[i], NULL), 0);
	const char *names[NAMES] = {"a", "b", "c"};
	for (unsigned n = 0; n < NAMES; n++) {
		hp_container_unlink(&container, names[n]);
		must_be(hp_container_unlink(&container, names[n]), -ENOENT); /* it was there once at most */
	}
	must_be(hp_container_destroy(&container), 0);
	hp_sync_over(pool);
}

/* At the same moment, as nearly as may be: each comes to the line, and the last one opens it. */
static struct line {
	_Atomic uint32_t come, round, made;
} line;

static void come_to_the_line(uint32_t n)
{
	uint32_t round = atomic_load(&line.round);
	if (atomic_fetch_add(&line.come, 1) + 1 == n) {
		atomic_store(&line.come, 0);
		atomic_store(&line.round, round + 1);
		return;
	}
	for (unsigned spins = 0; atomic_load(&line.round) == round; spins++)
		if (spins > 2000) sched_yield();
}

static void *races(void *arg)
{
	const hp_container *container = arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		hp_cond cond;
		come_to_the_line(2);
		int error = hp_cond_open(container, "x", HP_SYNC_NEW, &cond);
		must(error == 0 || error == -EEXIST);
		if (error == 0) must_be(atomic_fetch_add(&line.made, 1), 0);
		come_to_the_line(2);
		if (error) continue;
		must_be(atomic_exchange(&line.made, 0), 1);
		must_be(hp_container_unlink(container, "x"), 0);
		must_be(hp_container_unlink(container, "x"), -ENOENT);
	}
	return NULL;
}

static void one_of_two_makes_it(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	hp_container container;
	pthread_t thread;
	must_be(hp_container_create(pool, 40, 0, &container), 0);
	must_be(pthread_create(&thread, NULL, races, &container), 0);
	races(&container);
	must_be(pthread_join(thread, NULL), 0);
	must_be(hp_container_destroy(&container), 0); /* and what was claimed in vain is given back */
	hp_sync_over(pool);
}

static void default_is_made_once(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 3 : 20); round++) {
		pid_t pid[3];
		int go[2];
		must_be(pipe(go), 0);
		hp_off *id = hp_shared(PAGE);
		for (unsigned i = 0; i < 3; i++) {
			if ((pid[i] = hp_fork()) == 0) {
				char byte;
				close(go[1]);
				must_be(read(go[0], &byte, 1), 0); /* all at once, when the test closes its end */
				hp_container container = hp_sync_container(pool);
				id[i] = hp_container_id(&container);
				_exit(0);
			}
		}
		close(go[0]);
		close(go[1]);
		for (unsigned i = 0; i < 3; i++) must_be(hp_wait_for(pid[i]), 0);
		must(id[0] == id[1] && id[1] == id[2]);
		hp_container container = hp_sync_container(pool);
		must_be(hp_container_id(&container), id[0]);
		must_be(hp_container_destroy(&container), 0);
		munmap(id, PAGE);
	}
	hp_sync_over(pool);
}

/* ---- those who die ---- */

/* A claim, as one leaves it who dies while he writes down what he makes. */
static void leave_claim(struct sync_entry *entry, uint64_t who)
{
	uint64_t state = atomic_load(&entry->state);
	atomic_store(&entry->state, sync_make(sync_generation(state), SYNC_MAKING, who));
}

static void dies_with_a_claim(const struct child *me, void *arg)
{
	const hp_container *container = arg;
	int error;
	struct participant *participant = sync_participant(container->pool, &error);
	leave_claim(container->at + sizeof(struct sync_container), sync_thread(participant));
	child_here(me);
}

static void claims_of_the_dead_are_taken(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	hp_container container;
	hp_mutex mutex;
	must_be(hp_container_create(pool, 1, 0, &container), 0);
	struct child child = child_start(dies_with_a_claim, &container);
	must(child_hear(&child));
	must_be(hp_mutex_open(&container, "m", 0, &mutex), -ENOSPC); /* it lives */
	child_kill(&child);
	must_be(hp_mutex_open(&container, "m", 0, &mutex), 0);
	must_be(hp_mutex_lock(&mutex), 0);
	must_be(hp_mutex_unlock(&mutex), 0);
	must_be(hp_container_unlink(&container, "m"), 0);
	must_be(hp_container_destroy(&container), 0);
	hp_sync_over(pool);
}

/* In the directory, and its state not yet what it is to be. */
static void dies_before_its_state(const struct child *me, void *arg)
{
	const hp_container *container = arg;
	int error;
	hp_sem sem = hp_sync_sem(container, "s", 0, 5);
	struct sync_entry *entry = sem.entry;
	leave_claim(entry, sync_thread(sync_participant(container->pool, &error)));
	child_here(me);
}

static void what_is_in_the_directory_is_there(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	hp_container container = hp_sync_container(pool);
	struct child child = child_start(dies_before_its_state, &container);
	must(child_hear(&child));
	hp_sem sem = hp_sync_sem(&container, "s", HP_SYNC_EXISTING, 0); /* also while it stands there */
	must_be(hp_sem_value(&sem), 5);
	child_kill(&child);
	hp_sync_over(pool);
}

static void ends_before_it_frees(const struct child *me, void *arg)
{
	const hp_container *container = arg;
	int error;
	struct sync_container *at = container->at;
	uint64_t who = sync_thread(sync_participant(container->pool, &error));
	atomic_store(&at->directory, who << 20 | SYNC_ENDED);
	child_here(me);
}

static void half_ended_ones_are_freed(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	for (int own = 0; own <= 1; own++) {
		hp_container container, again;
		hp_mutex mutex;
		if (own)
			must_be(hp_container_create(pool, 10, 0, &container), 0);
		else
			container = hp_sync_container(pool);
		struct child child = child_start(ends_before_it_frees, &container);
		must(child_hear(&child));
		must_be(hp_mutex_open(&container, "m", 0, &mutex), -ESTALE);
		must_be(hp_container_destroy(&container), -ESTALE);
		child_kill(&child);
		if (own)
			must_be(hp_container_destroy(&container), 0);
		else
			must_be(hp_container_default(pool, &again), 0); /* another one */
	}
	hp_sync_over(pool);
}

/* A forked child has what its parent opened, and is another thread. */
static void goes_on_in_a_child(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(POOL_BYTES, 0);
	hp_container container = hp_sync_container(pool);
	hp_mutex mutex = hp_sync_mutex(&container, "m", 0);
	must_be(hp_mutex_lock(&mutex), 0);
	pid_t pid = hp_fork();
	if (pid == 0) {
		must_be(hp_mutex_unlock(&mutex), -EPERM);
		must_be(hp_mutex_trylock(&mutex), -EBUSY);
		must_be(hp_pool_detach(pool), 0);
		_exit(0);
	}
	must_be(hp_wait_for(pid), 0);
	must_be(hp_mutex_unlock(&mutex), 0);
	hp_sync_over(pool);
}

/* In a private pool the thread that forked holds what it held, in its copy. */
static void works_in_private_pools(void **state)
{
	(void)state;
	struct hp_pool_options options = {.struct_size = sizeof options, .size = 8 * MIB, .flags = HP_POOL_PRIVATE};
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	hp_container container = hp_sync_container(pool);
	hp_mutex mutex = hp_sync_mutex(&container, "m", 0);
	hp_sem sem = hp_sync_sem(&container, "s", HP_SEM_UNDO, 1);
	must_be(hp_mutex_lock(&mutex), 0);
	must_be(hp_sem_wait(&sem), 0);
	pid_t pid = hp_fork();
	if (pid == 0) {
		must_be(hp_mutex_unlock(&mutex), 0);
		must_be(hp_mutex_lock(&mutex), 0);
		must_be(hp_sem_post(&sem), -EPERM); /* units are the parent's, who is nobody here */
		must_be(hp_sem_wait(&sem), 0);
		_exit(0);
	}
	must_be(hp_wait_for(pid), 0);
	must_be(hp_mutex_unlock(&mutex), 0);
	must_be(hp_sem_post(&sem), 0);
	must_be(hp_container_unlink(&container, "m"), 0);
	must_be(hp_container_unlink(&container, "s"), 0);
	must_be(hp_container_destroy(&container), 0);
	must_be(hp_pool_detach(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_what_is_there),
		cmocka_unit_test(refuses_what_makes_no_sense),
		cmocka_unit_test(is_full_when_it_is_full),
		cmocka_unit_test(stale_handles_say_so),
		cmocka_unit_test(names_are_made_once),
		cmocka_unit_test(one_of_two_makes_it),
		cmocka_unit_test(default_is_made_once),
		cmocka_unit_test(claims_of_the_dead_are_taken),
		cmocka_unit_test(what_is_in_the_directory_is_there),
		cmocka_unit_test(half_ended_ones_are_freed),
		cmocka_unit_test(goes_on_in_a_child),
		cmocka_unit_test(works_in_private_pools),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
