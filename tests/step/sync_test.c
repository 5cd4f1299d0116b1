/* The small shared things, killed at every instruction: making, unlinking and opening by name, the default container's making
 * and end, locks, waits, posts, signals. After every instruction that changes control or the container a process is really
 * killed there, and others go on with what it left: no name is lost or made twice, no entry is lost, a mutex says that its
 * holder has died exactly where one has, units with undo are all there, a signal is somebody's; and in the end the pool is
 * empty. */
#include "harness.h"
#include "hp_test.h"
#include "run.h"
#include "sync/sync.h"
#include <hugepool/sync.h>
#include <errno.h>
#include <sched.h>
#include <string.h>

static const struct step_pool one = {
	.pages = 64, .capacity = 64, .flags = HP_POOL_NO_AUTOGROW, .slabs = true, .caches = true};

#define MOST_POINTS 512
#define CHANGES 24 /* of those that change something at most, unless HP_STEP_FULL */
#define SAMPLE 4   /* and others */
#define MS UINT64_C(1000000)
#define UNITS 4u

/* An actor's check: the line where it failed, as an error. */
#define NEED(what) \
	do { \
		if (!(what)) return -__LINE__ - 1000; \
	} while (0)

/* ---- what actors do ---- */

struct things {
	hp_container container;
	hp_mutex mutex;
	hp_sem plain, undo, token;
	hp_cond cond;
};

static int64_t open_all(struct step_env *env, struct things *t)
{
	NEED(hp_container_default(env->pool, &t->container) == 0);
	NEED(hp_mutex_open(&t->container, "mutex", 0, &t->mutex) == 0);
	NEED(hp_sem_open(&t->container, "plain", 0, 2, &t->plain) == 0);
	NEED(hp_sem_open(&t->container, "token", 0, 0, &t->token) == 0);
	NEED(hp_sem_open(&t->container, "undo", HP_SEM_UNDO, UNITS, &t->undo) == 0);
	NEED(hp_cond_open(&t->container, "cond", 0, &t->cond) == 0);
	return 0;
}

static struct things mine; /* of the actor, opened by prepare */

static int64_t prepare(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	return open_all(env, &mine);
}

static int64_t make_default(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	return hp_container_default(env->pool, &mine.container);
}

static int64_t make_thing(struct step_env *env, uint64_t undo, uint64_t y)
{
	(void)env, (void)y;
	hp_sem sem;
	hp_mutex mutex;
	return undo ? hp_sem_open(&mine.container, "new", HP_SEM_UNDO, UNITS, &sem)
	            : hp_mutex_open(&mine.container, "new", 0, &mutex);
}

static int64_t unlink_thing(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	return hp_container_unlink(&mine.container, "new");
}

static int64_t destroy(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	return hp_container_destroy(&mine.container);
}

static int64_t lock(struct step_env *env, uint64_t ns, uint64_t y)
{
	(void)env, (void)y;
	return hp_mutex_lock_timed(&mine.mutex, ns ? ns : HP_FOREVER);
}

static int64_t unlock(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	return hp_mutex_unlock(&mine.mutex);
}

static int64_t consistent(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	return hp_mutex_consistent(&mine.mutex);
}

static int64_t wait_plain(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	return hp_sem_wait(&mine.plain);
}

static int64_t post_plain(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	return hp_sem_post(&mine.plain);
}

static int64_t wait_undo(struct step_env *env, uint64_t times, uint64_t y)
{
	(void)env, (void)y;
	int error = 0;
	do error = hp_sem_wait(&mine.undo);
	while (error == 0 && times-- > 1);
	return error;
}

static int64_t post_undo(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	return hp_sem_post(&mine.undo);
}

/* Produces a token, and signals. */
static int64_t produce(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	int error = hp_mutex_lock(&mine.mutex);
	if (error == -EOWNERDEAD) error = hp_mutex_consistent(&mine.mutex);
	if (error == 0) error = hp_sem_post(&mine.token);
	if (error == 0) error = hp_cond_signal(&mine.cond);
	return error ? error : hp_mutex_unlock(&mine.mutex);
}

/* Waits for a token; ns: for one wait, and then it is enough. */
static int64_t consume(struct step_env *env, uint64_t ns, uint64_t y)
{
	(void)env, (void)y;
	int error = hp_mutex_lock(&mine.mutex);
	if (error == -EOWNERDEAD) error = hp_mutex_consistent(&mine.mutex);
	while (error == 0 && hp_sem_trywait(&mine.token) == -EAGAIN) {
		error = hp_cond_wait_timed(&mine.cond, &mine.mutex, ns ? ns : HP_FOREVER);
		if (error == -EOWNERDEAD) error = hp_mutex_consistent(&mine.mutex);
	}
	if (error && error != -ETIMEDOUT) return error;
	return hp_mutex_unlock(&mine.mutex);
}

/* ---- what survivors find ---- */

/* All entries are to be had, each once, after which nothing is left. */
static int64_t over(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	hp_container container;
	char name[HP_SYNC_NAME_MAX + 1];
	NEED(hp_container_default(env->pool, &container) == 0);
	uint32_t cursor = 0, there = 0, made = 0, news = 0;
	while (hp_container_next(&container, &cursor, name) > 0) {
		there++;
		news += strcmp(name, "new") == 0;
	}
	NEED(news <= 1);
	for (;; made++) {
		hp_cond cond;
		snprintf(name, sizeof name, "filler %u", made);
		int error = hp_cond_open(&container, name, HP_SYNC_NEW, &cond);
		if (error == -ENOSPC) break;
		NEED(error == 0);
	}
	NEED(there + made == container.entries);
	for (cursor = 0; hp_container_next(&container, &cursor, name) > 0;) {
		int error = hp_container_unlink(&container, name);
		NEED(error == 0);
	}
	NEED(hp_container_destroy(&container) == 0);
	NEED(hp_pool_recover(env->pool) >= 0);
	void *whole;
	NEED(hp_page_alloc(env->pool, hp_pool_capacity(env->pool), 0, &whole) == 0);
	NEED(hp_page_free(env->pool, whole) == 0);
	return 0;
}

/* Whatever was there works, or can be made. */
static int64_t works(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	struct things t;
	hp_sem sem;
	int64_t error = open_all(env, &t);
	if (error) return error;
	int got = hp_sem_open(&t.container, "new", HP_SEM_UNDO, UNITS, &sem);
	if (got == -EPROTO) { /* the victim has made it as a mutex */
		hp_mutex mutex;
		NEED(hp_mutex_open(&t.container, "new", HP_SYNC_EXISTING, &mutex) == 0);
		NEED(hp_mutex_lock(&mutex) == 0);
		NEED(hp_mutex_unlock(&mutex) == 0);
		return 0;
	}
	NEED(got == 0 && sem.units == UNITS);
	for (unsigned i = 0; i < UNITS; i++) NEED(hp_sem_trywait(&sem) == 0);
	NEED(hp_sem_trywait(&sem) == -EAGAIN);
	for (unsigned i = 0; i < UNITS; i++) NEED(hp_sem_post(&sem) == 0);
	return 0;
}

/* `dead`: whatever the victim did, somebody has died with it. */
static int64_t mutex_after(struct step_env *env, uint64_t dead, uint64_t y)
{
	(void)env, (void)y;
	struct sync_entry *entry = mine.mutex.entry;
	uint64_t state = atomic_load(&entry->state) & SYNC_LOW;
	int error = hp_mutex_lock(&mine.mutex);
	if (state == SYNC_BROKEN) {
		NEED(error == -ENOTRECOVERABLE);
		NEED(hp_container_unlink(&mine.container, "mutex") == 0);
		return 0;
	}
	NEED(error == (state ? -EOWNERDEAD : 0));
	NEED(!dead || error == -EOWNERDEAD);
	NEED(hp_mutex_consistent(&mine.mutex) == (state ? 0 : -EINVAL));
	NEED(hp_mutex_unlock(&mine.mutex) == 0);
	NEED(hp_mutex_lock(&mine.mutex) == 0);
	NEED(hp_mutex_unlock(&mine.mutex) == 0);
	return 0;
}

/* The value was 2, and one less or more since the victim began, or not. */
static int64_t plain_after(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)y;
	int64_t value = hp_sem_value(&mine.plain);
	NEED(value == 2 || value == (x ? 3 : 1));
	for (int64_t i = 0; i < value; i++) NEED(hp_sem_trywait(&mine.plain) == 0);
	NEED(hp_sem_trywait(&mine.plain) == -EAGAIN);
	return 0;
}

static int64_t undo_after(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	for (unsigned i = 0; i < UNITS; i++) NEED(hp_sem_wait_timed(&mine.undo, 1000 * MS) == 0);
	NEED(hp_sem_trywait(&mine.undo) == -EAGAIN);
	for (unsigned i = 0; i < UNITS; i++) NEED(hp_sem_post(&mine.undo) == 0);
	NEED(hp_sem_post(&mine.undo) == -EPERM);
	return 0;
}

/* Who died with the mutex may not have come to the signal, so whoever gets it from him signals. */
static int64_t token_after(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	int error = hp_mutex_lock(&mine.mutex);
	NEED(error == 0 || error == -EOWNERDEAD);
	if (error) {
		NEED(hp_mutex_consistent(&mine.mutex) == 0);
		NEED(hp_cond_broadcast(&mine.cond) == 0);
	}
	if (hp_sem_value(&mine.token) == 0) {
		NEED(hp_sem_post(&mine.token) == 0);
		NEED(hp_cond_signal(&mine.cond) == 0);
	}
	return hp_mutex_unlock(&mine.mutex);
}

static int64_t await_waiter(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	const struct sync_entry *entry = mine.cond.entry;
	while (atomic_load(&entry->waiters) == 0) sched_yield();
	return 0;
}

/* ---- scenes ---- */

struct scene {
	const char *name;
	step_fn *run;
	uint64_t x;
	step_fn *before; /* by the victim, at full speed, y: its argument */
	uint64_t y;
	step_fn *by_dead; /* by actor 2 before, which then dies; z: its argument */
	uint64_t z;
	step_fn *by_other; /* by actor 1 before, with 0; `undone` by it before it looks */
	step_fn *undone;
	step_fn *after;
	uint64_t after_x;
	bool bare;      /* nothing is there yet */
	bool waiting;   /* actor 2 waits for a token */
	int64_t result; /* of an undisturbed run */
};

static struct step_world *begin(const struct scene *scene)
{
	struct step_world *w = step_open(scene->name, &one);
	for (int a = 0; a < 3; a++) step_join(w, a);
	for (int a = 0; a < 3 && !scene->bare; a++) STEP_NEED(w, step_call(w, a, prepare, 0, 0) == 0);
	if (scene->by_dead) {
		STEP_NEED(w, step_call(w, 2, scene->by_dead, scene->z, 0) == 0);
		step_kill(w, 2);
	}
	if (scene->by_other) STEP_NEED(w, step_call(w, 1, scene->by_other, 0, 0) == 0);
	if (scene->before) {
		int64_t error = step_call(w, 0, scene->before, scene->y, 0);
		STEP_NEED(w, error == 0 || error == -EOWNERDEAD);
	}
	if (scene->waiting) {
		step_send(w, 2, consume, 0, 0);
		STEP_NEED(w, step_call(w, 1, await_waiter, 0, 0) == 0);
	}
	return w;
}

/* The container's bytes: the default one's block, where it is published. */
static uint64_t container_hash(struct step_world *w)
{
	uint64_t word = atomic_load(&step_header(w)->container), off = word & ~UINT64_C(15);
	if ((word & 15) != 8 || off + 32768 > w->data_size) return word;
	return step_hash(w->data + off, 32768, word);
}

static void point(const struct scene *scene, uint64_t at, struct step_world *sum)
{
	struct step_world *w = begin(scene);
	step_begin(w, 0, scene->run, scene->x, 0);
	while (w->instructions < at && step_one(w, 0)) {}
	uint64_t stopped = w->instructions;
	step_kill(w, 0);
	int64_t error = 0;
	if (scene->undone) error = step_call(w, 1, scene->undone, 0, 0);
	if (!error) error = step_call(w, 1, scene->after, scene->after_x, 0);
	w->instructions = stopped;
	if (error) step_fail(w, "after it the survivor finds %lld (lines of this file are below -1000)", (long long)error);
	if (scene->waiting && !error) {
		int64_t served = step_receive(w, 2);
		if (served) step_fail(w, "who waits for a token gets %lld", (long long)served);
	}
	step_kill(w, 2);
	if (!w->failures && (error = step_call(w, 1, over, 0, 0)) != 0)
		step_fail(w, "at the end the survivor finds %lld (lines of this file are below -1000)", (long long)error);
	step_kill(w, 1);
	struct step_expect expect = {.must = -1};
	if (!w->failures) step_verify_real(w, &expect);
	sum->failures += w->failures;
	sum->kills++;
	step_close(w);
}

static int run_scene(const void *table, unsigned index)
{
	const struct scene *scene = (const struct scene *)table + index;
	if (!run_wanted(scene->name)) return 0;
	struct step_world *w = begin(scene);
	uint64_t change[MOST_POINTS];
	unsigned count = 0;
	step_begin(w, 0, scene->run, scene->x, 0);
	step_remember(w);
	uint64_t hash = container_hash(w);
	while (step_one(w, 0)) {
		uint64_t now = container_hash(w);
		if ((!step_changed(w) && now == hash) || count == MOST_POINTS) continue;
		step_remember(w);
		hash = now;
		change[count++] = w->instructions;
	}
	uint64_t length = w->instructions, stride = step_full() ? 1 : length / SAMPLE + 1;
	int64_t result = step_finish(w, 0);
	if (result != scene->result) step_fail(w, "it gives %lld", (long long)result);
	for (uint64_t at = 0; at <= length && !w->failures; at += stride) point(scene, at, w);
	for (unsigned i = 0; i < count && !w->failures; i += step_full() ? 1 : count / CHANGES + 1)
		point(scene, change[i], w);
	run_report("%s: %llu instructions, %u changes, %u real kills", scene->name, (unsigned long long)length, count,
	           w->kills);
	int failures = (int)w->failures;
	step_close(w);
	return failures;
}

static const struct scene scenes[] = {
	{"make the default container", make_default, .bare = true, .after = works},
	{"make a mutex", make_thing, .after = works},
	{"make a semaphore with undo", make_thing, .x = 1, .after = works},
	{"unlink a mutex", unlink_thing, .before = make_thing, .after = works},
	{"destroy the default container", destroy, .bare = true, .before = make_default, .after = works},
	{"lock", lock, .after = mutex_after},
	{"lock a dead one's", lock, .by_dead = lock, .after = mutex_after, .after_x = 1, .result = -EOWNERDEAD},
	{"call it consistent", consistent, .by_dead = lock, .before = lock, .after = mutex_after, .after_x = 1},
	{"unlock", unlock, .before = lock, .after = mutex_after},
	{"unlock an inconsistent one", unlock, .by_dead = lock, .before = lock, .after = mutex_after},
	{"wait for a lock", lock, .x = 1, .by_other = lock, .undone = unlock, .after = mutex_after, .result = -ETIMEDOUT},
	{"wait for a unit", wait_plain, .after = plain_after},
	{"post a unit", post_plain, .after = plain_after, .after_x = 1},
	{"wait for a unit with undo", wait_undo, .after = undo_after},
	{"post a unit with undo", post_undo, .before = wait_undo, .after = undo_after},
	{"wait for a dead one's unit", wait_undo, .by_dead = wait_undo, .z = UNITS, .after = undo_after},
	{"produce a token and signal", produce, .waiting = true, .after = token_after},
	{"wait for a signal", consume, .x = 1, .waiting = true, .after = token_after},
};

static void whoever_dies(void **state)
{
	(void)state;
	assert_int_equal(run_all(run_scene, scenes, sizeof scenes / sizeof *scenes), 0);
}

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(whoever_dies)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
