/* Private caches whose memory comes from the caller's functions.
 *
 * Catches: a region that is released twice, never, or with objects out; one that is asked for while others have room, or
 * beyond what may be held; objects of one region over those of another; a function that fails and leaves something
 * behind; a limit or a reservation that counts only one region; an address of memory that is gone taken for an object; a
 * region that comes again, elsewhere, with what threads remember of the old one; a waiter who does not notice memory. */
#include "hp_region.h"

#include <hugepool/inline.h>
#include <sched.h>

#include "os/os.h"

enum { REGION = 1 << 20, SIZE = 1000, OBJECTS = 12000 };

static struct giver giver;
static void *object[OBJECTS];

static int set_up(void **state)
{
	(void)state;
	giver = (struct giver)GIVER;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must_be(giver.given, giver.taken);
	must_be(giver.bytes, 0);
	return 0;
}

static hp_cache *made(size_t size, size_t region, uint64_t most)
{
	struct hp_cache_options options = hp_cache_of(size, 0);
	struct hp_cache_memory memory = hp_given(&giver, region, most);
	hp_cache *cache;
	must_be(hp_cache_create_private("regions", &options, &memory, &cache), 0);
	return cache;
}

static unsigned live(void)
{
	return giver.given - giver.taken;
}

static void take(hp_cache *cache, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		must(object[i] = hp_cache_get(cache, 0));
		hp_cache_fill(object[i], SIZE, i);
	}
}

static void give(hp_cache *cache, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		must(hp_cache_filled(object[i], SIZE, i));
		must_be(hp_cache_put(cache, object[i]), 0);
	}
}

/* What a full region holds, by trying. */
static unsigned region_holds(hp_cache *cache)
{
	unsigned n = 0;
	while (live() < 2) must(object[n++] = hp_cache_get(cache, 0));
	for (unsigned i = 0; i < n; i++) must_be(hp_cache_put(cache, object[i]), 0);
	return n - 1;
}

static void regions_come_and_go(void **state)
{
	(void)state;
	hp_cache *cache = made(SIZE, REGION, 0);
	must_be(live(), 0); /* nothing is asked for before it is needed */
	for (unsigned round = 0; round < 4; round++) {
		take(cache, 0, OBJECTS);
		must_be(live(), (OBJECTS + 1023) / 1024 + (round ? 0 : 0));
		must_be(hp_cache_numbers(cache).slabs, live());
		must_be(hp_cache_numbers(cache).bytes, (uint64_t)live() * REGION);
		must_be(hp_cache_numbers(cache).in_use, OBJECTS);
		/* one is kept for what comes next */
		give(cache, 0, OBJECTS);
		must_be(live(), 1);
		must_be(hp_cache_numbers(cache).in_use, 0);
		if (round % 2) {
			must_be(hp_cache_reclaim(cache), REGION);
			must_be(live(), 0);
			must_be(hp_cache_reclaim(cache), 0);
		}
	}
	must_be(hp_cache_destroy(cache), 0);
}

/* Memory that lies anywhere, at any place within a page. */
static void regions_of_odd_places(void **state)
{
	(void)state;
	static const size_t shifts[] = {8, 16, 1000, 4095, 0};
	for (unsigned s = 0; s < 5; s++) {
		giver.shift = shifts[s];
		hp_cache *cache = made(SIZE, REGION + (s == 3 ? 777 : 0), 0);
		for (unsigned round = 0; round < 2; round++) {
			take(cache, 0, 5000);
			give(cache, 0, 5000);
			must(hp_cache_reclaim(cache) > 0);
			giver.shift = shifts[s]; /* the giver looks at what lies around each region when it comes back */
		}
		must_be(hp_cache_destroy(cache), 0);
	}
	/* one that has not a single object's room, because of where it lies, is given back at once */
	giver.shift = 16;
	hp_cache *cache = made(PAGE, 16 * PAGE, 0);
	must_refuse(hp_cache_get(cache, 0), ENOMEM);
	must_be(giver.bytes, 0);
	must_be(hp_cache_destroy(cache), 0);
}

static void without_a_size_they_grow(void **state)
{
	(void)state;
	hp_cache *cache = made(65536, 0, 0);
	unsigned n = 0;
	while (giver.bytes < 256 * MIB) must(object[n++] = hp_cache_get(cache, 0));
	must(live() < 40);
	must(hp_cache_numbers(cache).bytes == giver.bytes);
	must_be(hp_cache_put_bulk(cache, n, object), 0);
	must_be(hp_cache_destroy(cache), 0);
	must_be(giver.given, giver.taken);
	/* and no more than may be held */
	cache = made(65536, 0, 20 * MIB);
	n = 0;
	while ((object[n] = hp_cache_get(cache, 0))) n++;
	must_be(errno, ENOMEM);
	must(n > 19 * 16);
	must(giver.peak >= 20 * MIB);
	giver.peak = giver.bytes;
	must(giver.peak <= 20 * MIB);
	must_be(hp_cache_put_bulk(cache, n, object), 0);
	must_be(hp_cache_destroy(cache), 0);
	cache = made(SIZE, REGION, 3 * REGION + 100);
	n = 0;
	while ((object[n] = hp_cache_get(cache, 0))) n++;
	must_be(live(), 3);
	must_be(giver.refused, 0); /* it was not even asked */
	must_be(hp_cache_put_bulk(cache, n, object), 0);
	must_be(hp_cache_destroy(cache), 0);
}

static void a_function_that_fails(void **state)
{
	(void)state;
	void *bulk[3000];
	giver.most = 0;
	hp_cache *cache = made(SIZE, REGION, 0);
	must_refuse(hp_cache_get(cache, 0), ENOMEM);
	must_refuse(hp_cache_get_array(cache, 0, 4), ENOMEM);
	must_be(hp_cache_prime(cache, 1), -ENOMEM);
	must(hp_cache_numbers(cache).fails >= 2);
	giver.most = 2;
	unsigned n = 0;
	while ((object[n] = hp_cache_get(cache, 0))) hp_cache_fill(object[n], SIZE, n), n++;
	must_be(errno, ENOMEM);
	must_be(live(), 2);
	must_be(hp_cache_numbers(cache).in_use, n);
	must_be(hp_cache_get_bulk(cache, 0, 3, bulk), -ENOMEM); /* all or none */
	must_be(hp_cache_numbers(cache).in_use, n);
	give(cache, n - 10, n);
	must_be(hp_cache_get_bulk(cache, 0, 11, bulk), -ENOMEM);
	must_be(hp_cache_numbers(cache).in_use, n - 10);
	must_be(hp_cache_get_bulk(cache, 0, 10, bulk), 0);
	must_be(hp_cache_put_bulk(cache, 10, bulk), 0);
	giver.most = 3;
	must_be(hp_cache_get_bulk(cache, 0, 500, bulk), 0);
	must_be(hp_cache_put_bulk(cache, 500, bulk), 0);
	give(cache, 0, n - 10);
	must_be(hp_cache_destroy(cache), 0);
}

struct waiting {
	hp_cache *cache;
	void *got;
};

static void *wait_for_one(void *arg)
{
	struct waiting *waiting = arg;
	waiting->got = hp_cache_get_timed(waiting->cache, HP_CACHE_WAIT | HP_CACHE_LIMITFAIL, UINT64_C(4000000000));
	return NULL;
}

static void a_waiter_notices_memory(void **state)
{
	(void)state;
	hp_cache *cache = made(SIZE, REGION, 0);
	for (unsigned round = 0; round < 2; round++) {
		giver.most = 0;
		struct waiting waiting = {.cache = cache};
		pthread_t thread;
		if (round) { /* by a put, where the functions have none */
			giver.most = 1;
			unsigned n = 0;
			while ((object[n] = hp_cache_get(cache, 0))) n++;
			must_be(pthread_create(&thread, NULL, wait_for_one, &waiting), 0);
			while (!hp_cache_numbers(cache).waiting) sched_yield();
			must_be(hp_cache_put(cache, object[0]), 0);
			must_be(pthread_join(thread, NULL), 0);
			must(waiting.got == object[0]);
			must_be(hp_cache_put_bulk(cache, n, object), 0);
		} else {
			must_be(pthread_create(&thread, NULL, wait_for_one, &waiting), 0);
			while (!hp_cache_numbers(cache).waiting) sched_yield();
			pthread_mutex_lock(&giver.lock);
			giver.most = 1;
			pthread_mutex_unlock(&giver.lock);
			must_be(pthread_join(thread, NULL), 0);
			must(waiting.got);
			must_be(hp_cache_put(cache, waiting.got), 0);
			must_be(hp_cache_reclaim(cache), REGION);
		}
	}
	must_be(hp_cache_destroy(cache), 0);
}

static void marks_and_reserves(void **state)
{
	(void)state;
	hp_cache *cache = made(SIZE, REGION, 0);
	unsigned each = region_holds(cache);
	must_be(hp_cache_reclaim(cache) / REGION, 1);
	/* what was primed is kept by puts */
	must_be(hp_cache_prime(cache, each * 3 + 1), 0);
	must_be(live(), 4);
	for (unsigned i = 0; i < 5; i++) {
		take(cache, 0, each * 4);
		must_be(live(), 4);
		give(cache, 0, each * 4);
		must_be(live(), 4);
	}
	must_be(hp_cache_reclaim(cache), 4 * REGION);
	/* low: what reclaiming leaves */
	must_be(hp_cache_set_low_watermark(cache, each + 1), 0);
	must_be(live(), 2);
	must_be(hp_cache_reclaim(cache), 0);
	must_be(hp_cache_set_low_watermark(cache, 1), 0);
	must_be(hp_cache_reclaim(cache), REGION);
	must_be(hp_cache_set_low_watermark(cache, 0), 0);
	/* high: so many stay free */
	must_be(hp_cache_reclaim(cache), REGION);
	must_be(hp_cache_set_high_watermark(cache, each * 3), 0);
	take(cache, 0, each * 6);
	give(cache, 0, each * 6);
	must_be(live(), 3);
	must_be(hp_cache_set_high_watermark(cache, 0), 0);
	take(cache, 0, 1);
	give(cache, 0, 1);
	must(live() < 3);
	must_be(hp_cache_set_high_watermark(cache, HP_CACHE_NO_MARK), 0);
	must_be(hp_cache_destroy(cache), 0);
}

static void a_limit_over_all_regions(void **state)
{
	(void)state;
	hp_cache *cache = made(SIZE, REGION, 0);
	unsigned each = region_holds(cache), limit = each * 2 + 5;
	must_be(hp_cache_set_hard_limit(cache, limit, "limit", 0), 0);
	take(cache, 0, limit);
	must_refuse(hp_cache_get(cache, 0), EAGAIN);
	must_refuse(hp_cache_get_array(cache, 0, 2), EAGAIN);
	must_be(hp_cache_prime(cache, 1), -EAGAIN);
	give(cache, limit - 3, limit);
	must_refuse(hp_cache_get_array(cache, 0, 4), EAGAIN);
	void *array = hp_cache_get_array(cache, 0, 3);
	must(array);
	must_refuse(hp_cache_get(cache, 0), EAGAIN);
	must_be(hp_cache_put_array(cache, array, 3), 0);
	/* with objects out too, but not below what is out */
	must_be(hp_cache_set_hard_limit(cache, limit - 4, NULL, 0), -EINVAL);
	must_be(hp_cache_numbers(cache).limit, limit);
	must_be(hp_cache_set_hard_limit(cache, limit - 3, NULL, 0), 0);
	must_refuse(hp_cache_get(cache, 0), EAGAIN);
	must_be(hp_cache_set_hard_limit(cache, 0, NULL, 0), 0);
	take(cache, limit - 3, limit + 10);
	give(cache, 0, limit + 10);
	must_be(hp_cache_destroy(cache), 0);
}

static void addresses_that_are_no_objects(void **state)
{
	(void)state;
	giver.shift = 48;
	hp_cache *cache = made(SIZE, REGION, 0);
	take(cache, 0, 3000);
	unsigned regions = live();
	uint64_t in_use = hp_cache_numbers(cache).in_use;
	for (unsigned i = 0; i < regions; i++) { /* the edges of what was given, and what of it is no whole page */
		char *start = giver.out[i].start, *end = start + giver.out[i].bytes;
		char *wrong[] = {start - 1, start, start + 100, end, end - 1, end + 5000};
		for (unsigned k = 0; k < 6; k++) must_be(hp_cache_put(cache, wrong[k]), -EINVAL);
	}
	must_be(hp_cache_numbers(cache).in_use, in_use);
	void *was = object[2999];
	give(cache, 0, 3000);
	for (unsigned i = 0; i < 3000; i++) {
		int error = hp_cache_put(cache, object[i]);
		must(error == -EINVAL || error == -EALREADY || error == -ENOENT);
	}
	must(hp_cache_reclaim(cache) > 0);
	must_be(hp_cache_put(cache, was), -EINVAL); /* of memory that is gone */
	must_be(hp_cache_put_inline(cache, was), -EINVAL);
	must_be(hp_cache_destroy(cache), 0);
}

static int refuse_some(void *arg, void *at, unsigned flags)
{
	unsigned *count = arg;
	(void)at;
	(void)flags;
	return ++*count % 3 == 0;
}

static void a_constructor_that_refuses_leaves_nothing(void **state)
{
	(void)state;
	unsigned count = 0, got = 0;
	struct hp_cache_options options = hp_cache_of(SIZE, 0);
	struct hp_cache_memory memory = hp_given(&giver, REGION, 0);
	hp_cache *cache;
	options.ctor = refuse_some;
	options.arg = &count;
	must_be(hp_cache_create_private("refusing", &options, &memory, &cache), 0);
	for (unsigned i = 0; i < 3000; i++)
		if ((object[got] = hp_cache_get(cache, 0)))
			got++;
		else
			must_be(errno, ECANCELED);
	must(got < 3000);
	must_be(hp_cache_numbers(cache).in_use, got);
	must_be(hp_cache_put_bulk(cache, got, object), 0);
	must_be(hp_cache_destroy(cache), 0);
}

static void busy_or_closed(void **state)
{
	(void)state;
	hp_cache *cache = made(SIZE, REGION, 0);
	take(cache, 0, 3000);
	must_be(hp_cache_destroy(cache), -EBUSY);
	give(cache, 0, 2999);
	must_be(hp_cache_destroy(cache), -EBUSY);
	must(hp_cache_filled(object[2999], SIZE, 2999));
	take(cache, 0, 2999);  /* it goes on */
	hp_cache_close(cache); /* and closing asks nobody */
	must_be(live(), 0);
}

/* ---- threads ---- */

struct worker {
	pthread_t thread;
	hp_cache *cache;
	uint64_t seed;
	unsigned number, rounds;
	bool limited;
};

static _Atomic unsigned out;
#define WORKERS 4
#define MINE 1500
#define LIMIT 2500

static void *work(void *arg)
{
	struct worker *worker = arg;
	void *mine[MINE];
	unsigned n = 0;
	for (unsigned i = 0; i < worker->rounds; i++) {
		unsigned what = (unsigned)hp_below(&worker->seed, 100);
		unsigned phase = i / 2000 % 2 ? 20 : 80; /* more gets than puts, and then the other way round */
		if (what < phase && n + 20 < MINE) {
			unsigned want = what % 10 == 0 ? 20 : 1;
			int error = want > 1 ? hp_cache_get_bulk(worker->cache, 0, want, &mine[n])
			            : (mine[n] = hp_cache_get_inline(worker->cache, 0)) ? 0
			                                                                : -errno;
			if (error < 0) {
				must_be(error, worker->limited ? -EAGAIN : 0);
				continue;
			}
			must(atomic_fetch_add(&out, want) + want <= LIMIT || !worker->limited);
			for (unsigned k = n; k < n + want; k++) hp_cache_fill(mine[k], SIZE, worker->number * 100000 + k);
			n += want;
		} else if (what >= phase && n) {
			unsigned want = what % 10 == 9 && n >= 10 ? 10 : 1;
			for (unsigned k = n - want; k < n; k++) must(hp_cache_filled(mine[k], SIZE, worker->number * 100000 + k));
			n -= want;
			atomic_fetch_sub(&out, want);
			must_be(want > 1 ? hp_cache_put_bulk(worker->cache, want, &mine[n])
			                 : hp_cache_put_inline(worker->cache, mine[n]),
			        0);
		} else if (what == 50) {
			must(hp_cache_reclaim(worker->cache) >= 0);
		}
	}
	atomic_fetch_sub(&out, n);
	must_be(hp_cache_put_bulk(worker->cache, n, mine), 0);
	return NULL;
}

static void many_threads(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("threads");
	for (unsigned limited = 0; limited < 2; limited++) {
		hp_cache *cache = made(SIZE, REGION / 2, 0);
		struct worker worker[WORKERS];
		if (limited) must_be(hp_cache_set_hard_limit(cache, LIMIT, NULL, 0), 0);
		for (unsigned i = 0; i < WORKERS; i++) {
			worker[i] = (struct worker){.cache = cache, .seed = hp_random(&seed), .number = i, .limited = limited};
			worker[i].rounds = HP_TEST_SANITIZER ? 8000 : 40000;
			must_be(pthread_create(&worker[i].thread, NULL, work, &worker[i]), 0);
		}
		for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_join(worker[i].thread, NULL), 0);
		must(giver.taken > 0 && live() < giver.given); /* they went as the last objects did */
		must_be(hp_cache_numbers(cache).in_use, 0);
		must_be(hp_cache_destroy(cache), 0);
		must_be(giver.given, giver.taken);
	}
}

/* Addresses of regions that are, were, and will be, at which no object begins, put while regions come and go. */
static _Atomic uintptr_t aim;
static _Atomic bool over;

static void *put_wrongly(void *arg)
{
	hp_cache *cache = arg;
	uint64_t seed = 1;
	while (!atomic_load(&over)) {
		uintptr_t at = atomic_load(&aim) + (hp_below(&seed, 4 * REGION) - 2 * REGION) * 8 + 1 + hp_below(&seed, 7);
		int error = hp_cache_put(cache, (void *)at);
		must(error == -EINVAL || error == -ENOENT);
	}
	return NULL;
}

static void wrong_puts_while_regions_come_and_go(void **state)
{
	(void)state;
#ifdef __SANITIZE_THREAD__
	hp_test_skip_one("who puts a wrong address may read what is being written, and takes it for what it is");
#endif
	pthread_t thread;
	hp_cache *cache = made(SIZE, REGION, 0);
	must_be(hp_cache_prime(cache, 1), 0);
	take(cache, 0, 1);
	atomic_store(&aim, (uintptr_t)object[0] & ~(uintptr_t)7);
	atomic_store(&over, false);
	must_be(pthread_create(&thread, NULL, put_wrongly, cache), 0);
	for (unsigned i = 0; i < 150; i++) {
		take(cache, 1, 3000);
		atomic_store(&aim, (uintptr_t)object[2999] & ~(uintptr_t)7);
		give(cache, 1, 3000);
		must(hp_cache_reclaim(cache) >= 0);
	}
	atomic_store(&over, true);
	must_be(pthread_join(thread, NULL), 0);
	give(cache, 0, 1);
	must_be(hp_cache_destroy(cache), 0);
}

/* One gets, another puts: the memory comes back all the same, and is used again at another place. */
static hp_cache *handed;

static void *put_all(void *arg)
{
	(void)arg;
	give(handed, 0, 6000);
	return NULL;
}

static void what_another_thread_puts(void **state)
{
	(void)state;
	handed = made(SIZE, REGION, 0);
	for (unsigned round = 0; round < 5; round++) {
		pthread_t thread;
		take(handed, 0, 6000);
		must_be(pthread_create(&thread, NULL, put_all, NULL), 0);
		must_be(pthread_join(thread, NULL), 0);
		must_be(hp_cache_numbers(handed).in_use, 0);
		must(live() <= 1);
		must(hp_cache_reclaim(handed) >= 0);
		must_be(live(), 0);
		must(mmap(NULL, PAGE * (round * 100 + 1), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
	}
	must_be(hp_cache_destroy(handed), 0);
}

static void as_many_regions_as_there_may_be(void **state)
{
	(void)state;
	hp_cache *cache = made(4000, 64 * 1024, 0);
	unsigned n = 0;
	while (n < 12000 && live() < 300) must(object[n++] = hp_cache_get(cache, 0));
	must_be(live(), 300);
	for (unsigned i = 0; i < n; i++) hp_cache_fill(object[i], 4000, i);
	for (unsigned i = 0; i < n; i++) {
		must(hp_cache_filled(object[i], 4000, i));
		must_be(hp_cache_put(cache, object[i]), 0);
	}
	must_be(hp_cache_destroy(cache), 0);
}

static void await_event(int fd)
{
	uint64_t times;
	must(fd >= 0);
	for (unsigned i = 0; read(fd, &times, sizeof times) != sizeof times; i++) {
		must(i < 4000);
		usleep(1000);
	}
}

static void watched(void **state)
{
	(void)state;
	hp_cache *cache = made(SIZE, REGION, 0);
	giver.most = 1;
	must_be(hp_cache_prime(cache, 2), 0);
	unsigned free = (unsigned)hp_cache_numbers(cache).cached;
	must_be(hp_cache_set_high_watermark(cache, free - 1), 0);
	int high = hp_cache_watch(cache, HP_CACHE_WATCH_HIGH);
	await_event(high); /* beyond it already */
	must_be(hp_cache_set_low_watermark(cache, 5), 0);
	int low = hp_cache_watch(cache, HP_CACHE_WATCH_LOW);
	take(cache, 0, free - 4);
	await_event(low);
	give(cache, 0, free - 4);
	must_be(hp_cache_destroy(cache), 0);
}

/* Every system call made to fail in turn: said or done without, and nothing stays. */
static unsigned calls, victim;

static bool fail_one(enum os_call call, int64_t *result)
{
	bool may = call != OS_CLOSE && call != OS_UNMAP && call != OS_THREAD_EXISTS && call != OS_FUTEX_WAKE &&
	           call != OS_CPU;
	if (!may || ++calls != victim) return false;
	*result = -ENOMEM;
	return true;
}

static int a_life(const struct hp_cache_memory *memory)
{
	struct hp_cache_options options = hp_cache_of(SIZE, 0);
	hp_cache *cache;
	int error = hp_cache_create_private("faulty", &options, memory, &cache);
	if (error < 0) return error;
	unsigned n = 0;
	while (n < 2500 && (object[n] = hp_cache_get(cache, 0))) n++;
	if (n < 2500) error = -errno;
	for (unsigned i = 0; i < n; i++) must_be(hp_cache_put(cache, object[i]), 0);
	hp_cache_reclaim(cache);
	os_hook = NULL;
	must_be(hp_cache_destroy(cache), 0);
	must_be(giver.bytes, 0);
	return error;
}

static void each_system_call_fails(void **state)
{
	(void)state;
	char *lent = hp_mapped(4 * MIB);
	struct hp_cache_memory on_lent = hp_lent(lent, 4 * MIB), on_regions = hp_given(&giver, REGION, 0);
	const struct hp_cache_memory *memory[] = {NULL, &on_lent, &on_regions};
	for (unsigned kind = 0; kind < 3; kind++) {
		unsigned failed = 0;
		must_be(a_life(memory[kind]), 0);
		for (victim = 1;; victim++) {
			struct held before = held_now();
			calls = 0;
			os_hook = fail_one;
			int error = a_life(memory[kind]);
			os_hook = NULL;
			must_hold_no_more(before);
			if (calls < victim) break;
			failed += error < 0;
			must_be(a_life(memory[kind]), 0);
		}
		must(victim > 5 && failed > 0);
	}
	must_be(munmap(lent, 4 * MIB), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(regions_come_and_go, set_up, tear_down),
		cmocka_unit_test_setup_teardown(regions_of_odd_places, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_a_size_they_grow, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_function_that_fails, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_waiter_notices_memory, set_up, tear_down),
		cmocka_unit_test_setup_teardown(marks_and_reserves, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_limit_over_all_regions, set_up, tear_down),
		cmocka_unit_test_setup_teardown(addresses_that_are_no_objects, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_constructor_that_refuses_leaves_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(busy_or_closed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(many_threads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(wrong_puts_while_regions_come_and_go, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_another_thread_puts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(as_many_regions_as_there_may_be, set_up, tear_down),
		cmocka_unit_test_setup_teardown(watched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(each_system_call_fails, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
