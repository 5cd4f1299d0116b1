/* Waiting for objects: who is served, when, and what no death can lose.
 *
 * Catches: a wake that is missed, wherever the object or the memory comes from; service out of order; a waiter that dies
 * and takes a turn along; a timeout that is none; a limit that is exceeded on the way. Nothing here sleeps: a test goes on
 * when the numbers say that so many wait. */
#include "hp_cache.h"
#include <pthread.h>
#include <sched.h>

struct scene {
	hp_pool *pool;
	hp_cache *cache;
	void *object[64];
	unsigned count; /* all that the limit allows, in our hands */
};

static struct scene scene_new(unsigned limit, size_t size)
{
	struct scene s = {.pool = hp_plain_pool(8 * MIB, 0), .count = limit};
	s.cache = hp_cache_make(s.pool, "wanted", size, 0);
	must_be(hp_cache_set_hard_limit(s.cache, limit, NULL, 0), 0);
	must_be(hp_cache_get_bulk(s.cache, 0, limit, s.object), 0);
	must_refuse(hp_cache_get(s.cache, 0), EAGAIN);
	return s;
}

static void scene_end(struct scene *s)
{
	must_be(hp_cache_numbers(s->cache).waiting, 0);
	must_be(hp_cache_numbers(s->cache).in_use, 0);
	must_be(hp_cache_destroy(s->cache), 0);
	hp_must_be_empty(s->pool);
	hp_pool_detach(s->pool);
}

static void await_waiting(hp_cache *cache, unsigned n)
{
	while (hp_cache_numbers(cache).waiting != n) sched_yield();
}

struct waiter {
	hp_cache *cache;
	unsigned flags;
	uint64_t ns;
	void *object;
	int error;
	_Atomic unsigned *turn;
	unsigned served;
	pthread_t thread;
};

static void *wait_once(void *arg)
{
	struct waiter *w = arg;
	w->object = w->ns ? hp_cache_get_timed(w->cache, w->flags, w->ns) : hp_cache_get(w->cache, w->flags);
	w->error = w->object ? 0 : errno;
	if (w->turn) w->served = atomic_fetch_add(w->turn, 1);
	return NULL;
}

static void waiter_start(struct waiter *w, hp_cache *cache, unsigned flags, uint64_t ns)
{
	w->cache = cache;
	w->flags = flags;
	w->ns = ns;
	must_be(pthread_create(&w->thread, NULL, wait_once, w), 0);
}

static void a_put_serves_those_who_wait_in_order(void **state)
{
	(void)state;
	struct scene s = scene_new(8, 100);
	_Atomic unsigned turn = 0;
	struct waiter w[5] = {{0}};
	for (unsigned i = 0; i < 5; i++) {
		w[i].turn = &turn;
		waiter_start(&w[i], s.cache, HP_CACHE_WAIT, 0);
		await_waiting(s.cache, i + 1);
	}
	for (unsigned i = 0; i < 5; i++) {
		must_be(hp_cache_put(s.cache, s.object[i]), 0);
		must_be(pthread_join(w[i].thread, NULL), 0); /* the first who came: the others wait */
		must(w[i].object);
		must_be(w[i].served, i);
		must_be(hp_cache_numbers(s.cache).waiting, 4 - i);
		must_be(hp_cache_numbers(s.cache).in_use, 8);
	}
	must_be(hp_cache_numbers(s.cache).waits, 5);
	for (unsigned i = 0; i < 5; i++) must_be(hp_cache_put(s.cache, w[i].object), 0);
	for (unsigned i = 5; i < 8; i++) must_be(hp_cache_put(s.cache, s.object[i]), 0);
	scene_end(&s);
}

static void all_ways_of_putting_wake(void **state)
{
	(void)state;
	struct scene s = scene_new(8, 100);
	for (unsigned way = 0; way < 4; way++) {
		struct waiter w[2] = {{0}};
		for (unsigned i = 0; i < 2; i++) {
			waiter_start(&w[i], s.cache, HP_CACHE_WAIT, 0);
			await_waiting(s.cache, i + 1);
		}
		switch (way) {
		case 0: must_be(hp_cache_put_bulk(s.cache, 2, s.object), 0); break;
		case 1:
			must_be(hp_cache_put(s.cache, s.object[1]), 0);
			must_be(hp_cache_put(s.cache, s.object[0]), 0);
			break;
		case 2: must_be(hp_cache_set_hard_limit(s.cache, 10, NULL, 0), 0); break;
		default: must_be(hp_cache_set_hard_limit(s.cache, 0, NULL, 0), 0); break;
		}
		for (unsigned i = 0; i < 2; i++) {
			must_be(pthread_join(w[i].thread, NULL), 0);
			must(w[i].object);
			s.object[way < 2 ? i : s.count++] = w[i].object;
		}
	}
	must_be(hp_cache_put_bulk(s.cache, s.count, s.object), 0);
	scene_end(&s);
}

static void a_wait_ends_by_its_timeout(void **state)
{
	(void)state;
	struct scene s = scene_new(4, 100);
	must_refuse(hp_cache_get_timed(s.cache, HP_CACHE_WAIT, 3000000), ETIMEDOUT);
	must_refuse(hp_cache_get_timed(s.cache, HP_CACHE_WAIT, 1), ETIMEDOUT);
	must_refuse(hp_cache_get_timed(s.cache, HP_CACHE_WAIT | HP_CACHE_LIMITFAIL, 3000000), EAGAIN);
	must_refuse(hp_cache_get(s.cache, HP_CACHE_WAIT | HP_CACHE_LIMITFAIL), EAGAIN);
	must_refuse(hp_cache_get(s.cache, HP_CACHE_LIMITFAIL), EAGAIN);
	must_refuse(hp_cache_get(s.cache, 64), EINVAL);
	must_be(hp_cache_numbers(s.cache).waiting, 0);
	/* who times out passes the turn on */
	struct waiter first = {0}, second = {0};
	waiter_start(&first, s.cache, HP_CACHE_WAIT, 30000000);
	waiter_start(&second, s.cache, HP_CACHE_WAIT, 0);
	must_be(pthread_join(first.thread, NULL), 0);
	must_be(first.error, ETIMEDOUT);
	await_waiting(s.cache, 1);
	must_be(hp_cache_put(s.cache, s.object[0]), 0);
	must_be(pthread_join(second.thread, NULL), 0);
	must(s.object[0] = second.object);
	must_be(hp_cache_put_bulk(s.cache, 4, s.object), 0);
	scene_end(&s);
}

/* ---- other processes ---- */

static struct scene shared_scene;
static _Atomic(uintptr_t) *told; /* what a child got */

static void wait_in_a_child(const struct child *me, void *arg)
{
	hp_cache *cache = hp_cache_opened(shared_scene.pool, "wanted");
	(void)arg;
	child_say(me);
	void *object = hp_cache_get(cache, HP_CACHE_WAIT);
	must(object);
	atomic_store(told, (uintptr_t)object);
	child_say(me);
}

static void put_in_a_child(const struct child *me, void *arg)
{
	hp_cache *cache = hp_cache_opened(shared_scene.pool, "wanted");
	await_waiting(cache, 1);
	must_be(hp_cache_put(cache, arg), 0);
	(void)me;
}

static void a_put_in_another_process_wakes(void **state)
{
	(void)state;
	struct scene *s = &shared_scene;
	*s = scene_new(4, 100);
	told = hp_shared(4096);
	for (unsigned round = 0; round < 20; round++) {
		struct child child = child_start(wait_in_a_child, NULL);
		must(child_hear(&child));
		await_waiting(s->cache, 1);
		must_be(hp_cache_put(s->cache, s->object[0]), 0);
		must(child_hear(&child));
		must_be(child_end(&child), 0);
		s->object[0] = (void *)atomic_load(told);
		/* and the other way about */
		child = child_start(put_in_a_child, s->object[0]);
		must(s->object[0] = hp_cache_get(s->cache, HP_CACHE_WAIT));
		must_be(child_end(&child), 0);
		must_be(hp_cache_numbers(s->cache).in_use, 4);
	}
	must_be(hp_cache_put_bulk(s->cache, 4, s->object), 0);
	scene_end(s);
	munmap((void *)told, 4096);
}

static void a_waiter_that_is_killed_takes_no_turn_along(void **state)
{
	(void)state;
	struct scene *s = &shared_scene;
	*s = scene_new(4, 100);
	told = hp_shared(4096);
	for (unsigned round = 0; round < 10; round++) {
		struct child dead[3];
		struct waiter alive = {0};
		for (unsigned i = 0; i < 3; i++) {
			dead[i] = child_start(wait_in_a_child, NULL);
			must(child_hear(&dead[i]));
			await_waiting(s->cache, i + 1);
		}
		waiter_start(&alive, s->cache, HP_CACHE_WAIT, 0);
		await_waiting(s->cache, 4);
		for (unsigned i = 0; i < 3; i++) child_kill(&dead[i]);
		must_be(hp_cache_put(s->cache, s->object[0]), 0);
		must_be(pthread_join(alive.thread, NULL), 0);
		must(s->object[0] = alive.object);
		must_be(hp_pool_recover(s->pool) >= 0, 1);
		must_be(hp_cache_numbers(s->cache).waiting, 0);
		must_be(hp_cache_numbers(s->cache).in_use, 4);
	}
	must_be(hp_cache_put_bulk(s->cache, 4, s->object), 0);
	scene_end(s);
	munmap((void *)told, 4096);
}

/* The first in the queue is stopped right when it is woken: the next is served all the same. */
static void a_waiter_that_is_stopped_holds_nobody_up(void **state)
{
	(void)state;
	struct scene *s = &shared_scene;
	*s = scene_new(4, 100);
	told = hp_shared(4096);
	struct child first = child_start(wait_in_a_child, NULL);
	must(child_hear(&first));
	await_waiting(s->cache, 1);
	must_be(kill(first.pid, SIGSTOP), 0);
	child_await_stop(&first);
	struct waiter second = {0};
	waiter_start(&second, s->cache, HP_CACHE_WAIT, 0);
	await_waiting(s->cache, 2);
	must_be(hp_cache_put(s->cache, s->object[0]), 0);
	must_be(pthread_join(second.thread, NULL), 0);
	must(second.object);
	must_be(kill(first.pid, SIGCONT), 0);
	must_be(hp_cache_put(s->cache, second.object), 0);
	must(child_hear(&first));
	must_be(child_end(&first), 0);
	s->object[0] = (void *)atomic_load(told);
	must_be(hp_cache_put_bulk(s->cache, 4, s->object), 0);
	scene_end(s);
	munmap((void *)told, 4096);
}

static void destroy_ends_the_wait(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "short of memory", 4096, 0),
			 *other = hp_cache_opened(pool, "short of memory");
	void *block[1025]; /* one for the refusal */
	unsigned n = 0;
	while (hp_page_alloc(pool, PAGE, 0, &block[n]) == 0) n++;
	struct waiter w = {0};
	waiter_start(&w, other, HP_CACHE_WAIT, 0);
	await_waiting(cache, 1);
	must_be(hp_cache_destroy(cache), 0);
	must_be(pthread_join(w.thread, NULL), 0);
	must_be(w.error, ESTALE);
	hp_cache_close(other);
	while (n) must_be(hp_page_free(pool, block[--n]), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* ---- memory that comes from elsewhere ---- */

static void pages_that_come_free_end_a_wait(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "short of memory", 3000, 0);
	void *block[1025]; /* one for the refusal */
	unsigned n = 0;
	while (hp_page_alloc(pool, PAGE, 0, &block[n]) == 0) n++;
	must_refuse(hp_cache_get(cache, 0), ENOMEM);
	must_refuse(hp_cache_get_timed(cache, HP_CACHE_WAIT, 2000000), ETIMEDOUT);
	struct waiter w = {0}, limitfail = {0};
	waiter_start(&w, cache, HP_CACHE_WAIT, 0);
	waiter_start(&limitfail, cache, HP_CACHE_WAIT | HP_CACHE_LIMITFAIL, 0); /* memory is what it waits for */
	await_waiting(cache, 2);
	while (n) must_be(hp_page_free(pool, block[--n]), 0);
	must_be(pthread_join(w.thread, NULL), 0);
	must_be(pthread_join(limitfail.thread, NULL), 0);
	must_be(hp_cache_put(cache, w.object), 0);
	must_be(hp_cache_put(cache, limitfail.object), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static struct {
	hp_pool *pool;
	void **of_a;
	size_t count;
} ancestor;

static void free_into_a(const struct child *me, void *arg)
{
	hp_cache *a = hp_cache_opened(ancestor.pool, "A"), *b = hp_cache_opened(ancestor.pool, "B");
	(void)arg;
	(void)me;
	await_waiting(b, 1);
	for (size_t i = 0; i < ancestor.count; i++) must_be(hp_cache_put(a, ancestor.of_a[i]), 0);
}

/* The ancestor's own: cache B exhausts the pool; a process frees into cache A, whose slabs empty; B's blocked get succeeds;
 * and neither the pool nor the limit was ever exceeded. */
static void a_free_into_another_cache_ends_a_wait(void **state)
{
	(void)state;
	for (unsigned limited = 0; limited < 2; limited++) {
		hp_pool *pool = hp_plain_pool(4 * MIB, HP_POOL_NO_AUTOGROW);
		hp_cache *a = hp_cache_make(pool, "A", 512, 0), *b = hp_cache_make(pool, "B", 2048, 0);
		void *of_a[1000], **of_b = calloc(4096, sizeof *of_b);
		size_t n = 0, limit = limited ? 2000 : 0;
		if (limited) must_be(hp_cache_set_hard_limit(b, limit, NULL, 0), 0);
		must_be(hp_cache_get_bulk(a, 0, 1000, of_a), 0);
		while ((of_b[n] = hp_cache_get(b, 0))) n++;
		must_be(errno, ENOMEM);
		ancestor.pool = pool;
		ancestor.of_a = of_a;
		ancestor.count = 1000;
		struct child child = child_start(free_into_a, NULL);
		for (unsigned i = 0; i < 100; i++) {
			must(of_b[n] = hp_cache_get(b, HP_CACHE_WAIT));
			*(uint64_t *)of_b[n] = n;
			n++;
			must(hp_cache_numbers(b).in_use <= (limit ? limit : 4 * MIB / 2048));
			must(hp_cache_numbers(a).bytes + hp_cache_numbers(b).bytes <= 4 * MIB);
		}
		must_be(child_end(&child), 0);
		must_be(hp_cache_numbers(a).in_use, 0);
		must_be(hp_stats(pool).committed, 4 * MIB);
		must_be(hp_cache_put_bulk(b, n, of_b), 0);
		must_be(hp_cache_destroy(a), 0);
		must_be(hp_cache_destroy(b), 0);
		hp_must_be_empty(pool);
		hp_pool_detach(pool);
		free(of_b);
	}
}

/* ---- many who wait for few ---- */

#define THREADS 4
#define TURNS (HP_TEST_SANITIZER ? 300 : 2000)

static _Atomic int out, most;

static void *get_wait_put(void *arg)
{
	hp_cache *cache = arg;
	for (unsigned i = 0; i < TURNS; i++) {
		void *object = hp_cache_get(cache, HP_CACHE_WAIT);
		must(object);
		int now = atomic_fetch_add(&out, 1) + 1, seen = atomic_load(&most);
		while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now)) {}
		*(volatile uint64_t *)object = i;
		if (i % 7 == 0) sched_yield();
		atomic_fetch_sub(&out, 1);
		must_be(hp_cache_put(cache, object), 0);
	}
	return NULL;
}

static void nobody_waits_for_ever(void **state)
{
	(void)state;
	for (unsigned limit = 1; limit <= 3; limit += 2) {
		hp_pool *pool = hp_plain_pool(4 * MIB, 0);
		hp_cache *cache = hp_cache_make(pool, "few", 64, 0);
		pthread_t thread[THREADS];
		must_be(hp_cache_set_hard_limit(cache, limit, NULL, 0), 0);
		atomic_store(&most, 0);
		for (unsigned i = 0; i < THREADS; i++) must_be(pthread_create(&thread[i], NULL, get_wait_put, cache), 0);
		for (unsigned i = 0; i < THREADS; i++) must_be(pthread_join(thread[i], NULL), 0);
		must(atomic_load(&most) <= (int)limit);
		must_be(hp_cache_numbers(cache).waiting, 0);
		must_be(hp_cache_destroy(cache), 0);
		hp_must_be_empty(pool);
		hp_pool_detach(pool);
	}
}

/* Who cannot do without says so and aborts. */
static int urgent(void *arg)
{
	struct scene *s = arg;
	struct sigaction usual = {.sa_handler = SIG_DFL};
	sigaction(SIGABRT, &usual, NULL);
	hp_cache_get(s->cache, HP_CACHE_URGENT);
	return 0;
}

static void urgent_aborts(void **state)
{
	(void)state;
	struct scene s = scene_new(4, 100);
	must_be(hp_test_child(urgent, &s), 128 + SIGABRT);
	must_be(hp_cache_put_bulk(s.cache, 4, s.object), 0);
	must_be(hp_test_child(urgent, &s), 0); /* there is one; and it stays out */
	must_be(hp_cache_numbers(s.cache).in_use, 1);
	must_be(hp_cache_destroy(s.cache), -EBUSY);
	hp_pool_detach(s.pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_put_serves_those_who_wait_in_order),
		cmocka_unit_test(all_ways_of_putting_wake),
		cmocka_unit_test(a_wait_ends_by_its_timeout),
		cmocka_unit_test(a_put_in_another_process_wakes),
		cmocka_unit_test(a_waiter_that_is_killed_takes_no_turn_along),
		cmocka_unit_test(a_waiter_that_is_stopped_holds_nobody_up),
		cmocka_unit_test(destroy_ends_the_wait),
		cmocka_unit_test(pages_that_come_free_end_a_wait),
		cmocka_unit_test(a_free_into_another_cache_ends_a_wait),
		cmocka_unit_test(nobody_waits_for_ever),
		cmocka_unit_test(urgent_aborts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
