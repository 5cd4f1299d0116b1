/* Watches: an eventfd becomes readable when the free objects cross a mark, by whatever process.
 *
 * Catches: a crossing that is not told, or told twice, or told though it is another mark's; a thread or a descriptor that
 * stays behind; a handle or a pool that goes away under the thread; a forked child that waits for a thread it does not
 * have. Nothing here sleeps: poll ends when the descriptor is readable, or says after a second that it is not. */
#include "hp_cache.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>

#define LOW 100
#define HIGH 300
#define MOST 400 /* objects that a test has out */

/* How many crossings; 0: none in that time. */
static uint64_t told(int fd, int ms)
{
	struct pollfd event = {.fd = fd, .events = POLLIN};
	uint64_t count = 0;
	int ready = poll(&event, 1, ms);
	must(ready >= 0);
	if (ready) must_be(read(fd, &count, sizeof count), sizeof count);
	return count;
}

/* No more than what has been read: several counts have passed. */
#define must_be_quiet(fd) must_be(told(fd, 40), 0)

static unsigned threads_now(void)
{
	unsigned count = 0;
	DIR *dir = opendir("/proc/self/task");
	must(dir);
	for (struct dirent *entry; (entry = readdir(dir));) count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

struct scene {
	hp_pool *pool;
	hp_cache *cache;
	int low, high;
	size_t slab; /* objects in one */
};

/* Between the marks. With a limit others can have what we own: else they make slabs of their own. */
static struct scene scene_new(size_t limit)
{
	struct scene s = {.pool = hp_plain_pool(8 * MIB, 0)};
	s.cache = hp_cache_make(s.pool, "watched", 500, 0);
	must_be(hp_cache_set_hard_limit(s.cache, limit, NULL, 0), 0);
	must_be(hp_cache_set_low_watermark(s.cache, LOW), 0);
	must_be(hp_cache_set_high_watermark(s.cache, HIGH), 0);
	must_be(hp_cache_prime(s.cache, 200), 0);
	struct hp_cache_stats stats = hp_cache_numbers(s.cache);
	must(stats.cached >= 200 && stats.cached <= HIGH);
	must((s.low = hp_cache_watch(s.cache, HP_CACHE_WATCH_LOW)) >= 0);
	must((s.high = hp_cache_watch(s.cache, HP_CACHE_WATCH_HIGH)) >= 0);
	return s;
}

static void scene_end(struct scene *s)
{
	must_be(hp_cache_destroy(s->cache), 0);
	hp_must_be_empty(s->pool);
	hp_pool_detach(s->pool);
}

/* Gets until fewer are free than the low mark says. Slabs are made when there are none left, never before. */
static size_t sink(hp_cache *cache, void **object)
{
	size_t n = 0;
	while (hp_cache_numbers(cache).cached >= LOW) {
		must(n < MOST);
		must(object[n++] = hp_cache_get(cache, 0));
	}
	return n;
}

/* The same until it is told: a thread that the kernel lets wait for long may not have seen that there were more between. */
static size_t sink_until_told(const struct scene *s, void **object)
{
	for (unsigned turn = 0; turn < 50; turn++) {
		size_t n = sink(s->cache, object);
		if (told(s->low, 200)) return n;
		must_be(hp_cache_put_bulk(s->cache, n, object), 0);
		must_be_quiet(s->low);
	}
	must(!"told");
	return 0;
}

static void both_marks_tell(void **state)
{
	(void)state;
	struct scene s = scene_new(0);
	void *object[MOST];
	must_be_quiet(s.low);
	must_be_quiet(s.high);
	for (unsigned round = 0; round < 5; round++) {
		size_t n = sink_until_told(&s, object);
		must_be_quiet(s.low);
		must_be_quiet(s.high);
		must_be(hp_cache_put_bulk(s.cache, n, object), 0);
		must_be_quiet(s.low); /* back above it: that is no news */
	}
	/* above: one who has got many puts them back. What is above the mark goes when puts empty slabs, so not all do. */
	size_t n = 0;
	while (n < MOST) must(object[n++] = hp_cache_get(s.cache, 0));
	for (size_t i = 0; i < n; i++)
		if (i % 4) must_be(hp_cache_put(s.cache, object[i]), 0);
	must_be(hp_cache_numbers(s.cache).cached > HIGH, 1);
	must_be(told(s.high, 1000), 1);
	must_be_quiet(s.high);
	for (size_t i = 0; i < n; i += 4) must_be(hp_cache_put(s.cache, object[i]), 0);
	scene_end(&s);
}

static void what_is_so_already_is_told(void **state)
{
	(void)state;
	struct scene s = scene_new(0);
	void *object[MOST];
	size_t n = sink(s.cache, object);
	int later = hp_cache_watch(s.cache, HP_CACHE_WATCH_LOW | HP_CACHE_WATCH_HIGH);
	must(later >= 0);
	must_be(told(later, 1000), 1);
	must_be(told(s.low, 1000), 1);
	/* the marks may be moved instead */
	must_be(hp_cache_set_low_watermark(s.cache, 0), 0);
	must_be_quiet(later);
	must_be(hp_cache_set_high_watermark(s.cache, 1), 0);
	must_be(told(later, 1000), 1);
	must_be(told(s.high, 1000), 1);
	must_be_quiet(s.low);
	must_be(hp_cache_put_bulk(s.cache, n, object), 0);
	scene_end(&s);
}

static void what_cannot_be_watched(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "watched", 500, 0), *other = hp_cache_opened(pool, "watched");
	must_be(hp_cache_watch(NULL, HP_CACHE_WATCH_LOW), -EINVAL);
	must_be(hp_cache_watch(cache, 0), -EINVAL);
	must_be(hp_cache_watch(cache, 4), -EINVAL);
	must_be(hp_cache_unwatch(cache, 5), -ENOENT);
	int fd = hp_cache_watch(cache, HP_CACHE_WATCH_LOW);
	must(fd >= 0);
	must(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	uint64_t none;
	must_be(read(fd, &none, sizeof none), -1); /* and no waiting */
	must_be(errno, EAGAIN);
	must_be(hp_cache_unwatch(other, fd), -ENOENT);
	must_be(hp_cache_unwatch(cache, -1), -ENOENT);
	must_be(hp_cache_unwatch(cache, fd), 0);
	must_be(fcntl(fd, F_GETFD), -1);
	must_be(hp_cache_unwatch(cache, fd), -ENOENT);
	must_be(hp_cache_destroy(other), 0);
	must_be(hp_cache_watch(cache, HP_CACHE_WATCH_LOW), -ESTALE);
	hp_cache_close(cache);
	hp_pool_detach(pool);
}

/* The thread comes with the first watch and goes with the last, however that ends. */
static void nothing_stays_behind(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "watched", 500, 0), *second = hp_cache_opened(pool, "watched");
	must_be(hp_cache_set_low_watermark(cache, 10), 0);
	struct held before = held_now();
	unsigned threads = threads_now();
	for (unsigned round = 0; round < 200; round++) {
		int fd[3];
		for (unsigned i = 0; i < 3; i++) must((fd[i] = hp_cache_watch(i ? second : cache, HP_CACHE_WATCH_LOW)) >= 0);
		if (round % 40 == 0) must_be(threads_now(), threads + 1);
		must_be(hp_cache_unwatch(second, fd[1]), 0);
		must_be(hp_cache_unwatch(cache, fd[0]), 0);
		hp_cache_close(second);
		must_be(fcntl(fd[2], F_GETFD), -1);
		second = hp_cache_opened(pool, "watched");
	}
	/* a thread that was joined may still be listed for a moment */
	while (threads_now() != threads) sched_yield();
	must_hold_no_more(before);
	/* the pool goes, handles and all */
	must(hp_cache_watch(cache, HP_CACHE_WATCH_LOW) >= 0);
	must(hp_cache_watch(second, HP_CACHE_WATCH_LOW) >= 0);
	hp_pool_detach(pool);
	while (threads_now() != threads) sched_yield();
	hp_cache_close(cache);
	hp_cache_close(second);
}

static void the_end_of_the_cache_is_told(void **state)
{
	(void)state;
	struct scene s = scene_new(0);
	hp_cache *other = hp_cache_opened(s.pool, "watched");
	must_be(hp_cache_destroy(other), 0);
	must_be(told(s.low, 1000), 1);
	must_be(told(s.high, 1000), 1);
	must_be_quiet(s.low);
	struct hp_cache_stats stats = {.struct_size = sizeof stats};
	must_be(hp_cache_stats(s.cache, &stats), -ESTALE);
	hp_cache_close(s.cache);
	hp_pool_detach(s.pool);
}

/* ---- other processes ---- */

static struct scene shared_scene;

static void cross_in_a_child(const struct child *me, void *arg)
{
	(void)arg;
	/* attached, not inherited: nothing but the pool in common */
	hp_pool *pool = hp_attach_again(shared_scene.pool);
	hp_cache *cache = hp_cache_opened(pool, "watched");
	void *object[MOST];
	for (;;) {
		child_here(me);
		size_t n = sink(cache, object);
		child_here(me);
		must_be(hp_cache_put_bulk(cache, n, object), 0);
	}
}

static void another_process_crosses(void **state)
{
	(void)state;
	shared_scene = scene_new(200);
	struct scene *s = &shared_scene;
	struct child child = child_start(cross_in_a_child, NULL);
	must(child_hear(&child));
	for (unsigned round = 0, times = 0; times < 4; round++) {
		must(round < 50);
		child_say(&child);
		must(child_hear(&child)); /* it holds what it got */
		times += told(s->low, times ? 200 : 1000) == 1;
		must(times);
		must_be_quiet(s->low);
		if (times == 4) break;
		child_say(&child);
		must(child_hear(&child)); /* it has put all back */
		must_be_quiet(s->low);
	}
	/* its death changes nothing: what it held stays out */
	child_kill(&child);
	must_be_quiet(s->low);
	hp_pool_detach(s->pool);
	hp_cache_close(s->cache);
}

static void watch_in_a_child(const struct child *me, void *arg)
{
	struct scene *s = &shared_scene;
	must_be(threads_now(), 1);
	/* what was inherited goes without a wait for a thread that is not here */
	must_be(hp_cache_unwatch(s->cache, s->low), 0);
	int fd = hp_cache_watch(s->cache, HP_CACHE_WATCH_LOW);
	must(fd >= 0);
	void *object[MOST];
	size_t n = sink(s->cache, object);
	must_be(told(fd, 1000), 1);
	child_here(me);
	must_be(hp_cache_put_bulk(s->cache, n, object), 0);
	must_be_quiet(fd);
	if (arg) hp_cache_close(s->cache); /* or all together */
	hp_pool_detach(s->pool);
	must_be(fcntl(fd, F_GETFD), -1);
	must_be(fcntl(s->high, F_GETFD), -1);
}

/* A forked child has no thread, and does not miss it; its parent's goes on. */
static void a_forked_child_makes_its_own(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("a child of a process with threads that makes one is not for sanitizers");
	void *object[MOST];
	for (unsigned round = 0; round < 6; round++) {
		shared_scene = scene_new(200);
		struct scene *s = &shared_scene;
		struct child child = child_start(watch_in_a_child, round % 2 ? &shared_scene : NULL);
		must(child_hear(&child));
		must_be(told(s->low, 1000), 1); /* the child's crossing is this process', too */
		child_finish(&child);
		size_t n = sink_until_told(s, object);
		must_be(hp_cache_put_bulk(s->cache, n, object), 0);
		scene_end(s);
	}
}

/* ---- while it looks ---- */

static _Atomic unsigned stop;

static void *get_and_put(void *arg)
{
	hp_cache *cache = arg;
	void *object[64];
	while (!atomic_load(&stop)) {
		must_be(hp_cache_get_bulk(cache, 0, 64, object), 0);
		must_be(hp_cache_put_bulk(cache, 64, object), 0);
	}
	return NULL;
}

static void *watch_and_unwatch(void *arg)
{
	hp_cache *cache = arg;
	while (!atomic_load(&stop)) {
		int fd = hp_cache_watch(cache, HP_CACHE_WATCH_HIGH);
		must(fd >= 0);
		must_be(hp_cache_unwatch(cache, fd), 0);
	}
	return NULL;
}

/* Caches that come and go while others get, put, watch and end their watches. */
static void caches_come_and_go(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "watched", 500, 0);
	pthread_t thread[3];
	atomic_store(&stop, 0);
	for (unsigned i = 0; i < 3; i++)
		must_be(pthread_create(&thread[i], NULL, i ? watch_and_unwatch : get_and_put, cache), 0);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 50 : 500); round++) {
		hp_cache *other = hp_cache_make(pool, "other", 64, 0);
		must(hp_cache_watch(other, HP_CACHE_WATCH_LOW) >= 0);
		void *object = hp_cache_get(other, 0);
		must(object);
		must_be(hp_cache_put(other, object), 0);
		must_be(hp_cache_destroy(other), 0);
	}
	atomic_store(&stop, 1);
	for (unsigned i = 0; i < 3; i++) must_be(pthread_join(thread[i], NULL), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_marks_tell),
		cmocka_unit_test(what_is_so_already_is_told),
		cmocka_unit_test(what_cannot_be_watched),
		cmocka_unit_test(nothing_stays_behind),
		cmocka_unit_test(the_end_of_the_cache_is_told),
		cmocka_unit_test(another_process_crosses),
		cmocka_unit_test(a_forked_child_makes_its_own),
		cmocka_unit_test(caches_come_and_go),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
