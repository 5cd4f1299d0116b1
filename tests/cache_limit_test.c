/* The hard limit: never more than n out, in all threads and processes together, and nobody refused while fewer are out.
 *
 * Catches: a limit that threads exceed together, or that a death falsifies; an object that is lost to everybody in the
 * magazine of one who sleeps, or of one who is dead; a refusal because somebody else was busy. How many are out is counted
 * beside the cache, after a get and before a put, so that the count can only err to less. */
#include "hp_cache.h"
#include <cache/cache.h>
#include <pthread.h>
#include <sched.h>

static void the_limit_is_exact(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	static const size_t sizes[] = {16, 100, 1000, 5000, 70000};
	for (unsigned s = 0; s < 5; s++)
		for (size_t limit = 1; limit <= (sizes[s] > 60000 ? 60u : 1000u); limit = limit * 3 + 1) {
			hp_cache *cache = hp_cache_make(pool, "limited", sizes[s], 0);
			void *object[1001];
			must_be(hp_cache_set_hard_limit(cache, limit, NULL, 0), 0);
			must_be(hp_cache_numbers(cache).limit, limit);
			for (unsigned round = 0; round < 3; round++) {
				for (size_t i = 0; i < limit; i++) {
					must(object[i] = hp_cache_get(cache, 0));
					hp_cache_fill(object[i], sizes[s], i);
				}
				must_refuse(hp_cache_get(cache, 0), EAGAIN);
				must(hp_cache_numbers(cache).in_use + hp_cache_numbers(cache).cached <= limit);
				for (size_t i = 0; i < limit; i++) {
					must(hp_cache_filled(object[i], sizes[s], i));
					must_be(hp_cache_put(cache, object[i]), 0);
				}
			}
			must_be(hp_cache_numbers(cache).fails, 3);
			must_be(hp_cache_destroy(cache), 0);
		}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void what_can_be_set(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "limited", 100, 0);
	void *object[200];
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
	must_be(hp_cache_set_hard_limit(cache, 99, NULL, 0), -EINVAL); /* more are out */
	must_be(hp_cache_numbers(cache).limit, 0);
	int busy = hp_cache_set_hard_limit(cache, 100, NULL, 0);
	must(busy == -EBUSY);
	must_be(hp_cache_numbers(cache).limit, 0);
	must_be(hp_cache_put_bulk(cache, 100, object), 0);
	must_be(hp_cache_set_hard_limit(cache, (size_t)1 << 40, NULL, 0), -ENOSPC);
	must_be(hp_cache_set_hard_limit(cache, 100, NULL, 0), 0);
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
	must_refuse(hp_cache_get(cache, 0), EAGAIN);
	/* raised while they are out, in small steps and a large one; then lowered, which has to wait for them */
	for (size_t limit = 101; limit <= 200; limit += limit < 110 ? 1 : 90) {
		must_be(hp_cache_set_hard_limit(cache, limit, NULL, 0), 0);
		while (hp_cache_numbers(cache).in_use < limit)
			must(object[hp_cache_numbers(cache).in_use] = hp_cache_get(cache, 0));
		must_refuse(hp_cache_get(cache, 0), EAGAIN);
	}
	must(hp_cache_set_hard_limit(cache, 10, NULL, 0) < 0);
	must_be(hp_cache_numbers(cache).limit, hp_cache_numbers(cache).in_use);
	must_be(hp_cache_put_bulk(cache, hp_cache_numbers(cache).in_use, object), 0);
	must_be(hp_cache_set_hard_limit(cache, 10, NULL, 0), 0);
	must_be(hp_cache_get_bulk(cache, 0, 11, object), -EAGAIN);
	must_be(hp_cache_get_bulk(cache, 0, 10, object), 0);
	must_be(hp_cache_set_hard_limit(cache, 0, NULL, 0), 0);
	must(object[10] = hp_cache_get(cache, 0));
	must_be(hp_cache_put_bulk(cache, 11, object), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void warnings_are_rare(void **state)
{
	(void)state;
	struct said said = {.lines = 0};
	struct hp_pool_options options = hp_plain_options(4 * MIB);
	hp_pool *pool;
	options.log = said_log;
	options.log_arg = &said;
	must_be(hp_pool_create(&options, &pool), 0);
	unsigned before = said.lines;
	hp_cache *cache = hp_cache_make(pool, "packets", 64, 0);
	void *object[2];
	must_be(hp_cache_set_hard_limit(cache, 2, "the line is too slow", 3600), 0);
	must_be(hp_cache_get_bulk(cache, 0, 2, object), 0);
	must_be(said.lines, before);
	for (unsigned i = 0; i < 100; i++) must_refuse(hp_cache_get(cache, 0), EAGAIN);
	must_be(said.lines, before + 1);
	must(strstr(said.text, "packets"));
	must(strstr(said.text, "the line is too slow"));
	for (unsigned i = 0; i < 5; i++) must_refuse(hp_cache_get_timed(cache, HP_CACHE_WAIT, 1000), ETIMEDOUT);
	must_be(said.lines, before + 1);
	/* the waiting path says it, too; with 0 seconds every time */
	must_be(hp_cache_set_hard_limit(cache, 3, "again", 3600), 0);
	must(object[0] == object[0] && hp_cache_get(cache, 0));
	must_refuse(hp_cache_get_timed(cache, HP_CACHE_WAIT, 1000), ETIMEDOUT);
	must_be(said.lines, before + 2);
	must(strstr(said.text, "again"));
	must_be(hp_cache_set_hard_limit(cache, 3, "often", 0), 0);
	for (unsigned i = 0; i < 5; i++) must_refuse(hp_cache_get(cache, 0), EAGAIN);
	must_be(said.lines, before + 7);
	must_be(hp_cache_set_hard_limit(cache, 3, NULL, 0), 0);
	for (unsigned i = 0; i < 5; i++) must_refuse(hp_cache_get(cache, 0), EAGAIN);
	must_be(said.lines, before + 7);
	hp_pool_detach(pool);
}

/* ---- threads and processes, some of them killed ---- */

#define WORKERS 4 /* processes */
#define THREADS 2
#define EACH 24 /* objects that a thread wants at most */

/* What everybody counts into. The cells of a thread say what it holds, so that after its death it can be told. */
struct cell {
	_Atomic uintptr_t object[EACH];
	_Atomic unsigned long gets, refused;
};

static struct model {
	hp_pool *pool;
	size_t limit;
	_Atomic long at_least;
	_Atomic unsigned stop;
	struct cell cell[WORKERS * THREADS];
} * model;

struct part {
	unsigned number;
	hp_cache *cache;
	uint64_t seed;
};

static void model_put(struct part *part, struct cell *cell, unsigned i)
{
	void *object = hp_pool_pointer(model->pool, atomic_load(&cell->object[i]) - 1);
	must(hp_cache_filled(object, 40, part->number * EACH + i));
	atomic_store(&cell->object[i], 0);
	atomic_fetch_sub(&model->at_least, 1);
	must_be(hp_cache_put(part->cache, object), 0);
}

static void model_get(struct part *part, struct cell *cell, unsigned i)
{
	void *object = hp_cache_get(part->cache, 0);
	if (!object) {
		must_be(errno, EAGAIN);
		atomic_fetch_add(&cell->refused, 1);
		return;
	}
	long out = atomic_fetch_add(&model->at_least, 1) + 1;
	must(out <= (long)model->limit);
	hp_cache_fill(object, 40, part->number * EACH + i);
	atomic_store(&cell->object[i], hp_pool_offset(model->pool, object) + 1);
	atomic_fetch_add(&cell->gets, 1);
}

static void *model_thread(void *arg)
{
	struct part *part = arg;
	struct cell *cell = &model->cell[part->number];
	while (!atomic_load(&model->stop)) {
		unsigned i = (unsigned)hp_below(&part->seed, EACH);
		if (atomic_load(&cell->object[i]))
			model_put(part, cell, i);
		else
			model_get(part, cell, i);
	}
	for (unsigned i = 0; i < EACH; i++)
		if (atomic_load(&cell->object[i])) model_put(part, cell, i);
	return NULL;
}

static void model_process(unsigned worker, uint64_t seed)
{
	struct part part[THREADS];
	pthread_t thread[THREADS];
	hp_cache *cache = hp_cache_opened(model->pool, "limited");
	for (unsigned t = 0; t < THREADS; t++) {
		part[t] = (struct part){.number = worker * THREADS + t, .cache = cache, .seed = seed + t};
		must_be(pthread_create(&thread[t], NULL, model_thread, &part[t]), 0);
	}
	for (unsigned t = 0; t < THREADS; t++) must_be(pthread_join(thread[t], NULL), 0);
	hp_cache_close(cache);
}

static pid_t model_start(unsigned worker, uint64_t seed)
{
	pid_t pid = hp_fork();
	if (pid) return pid;
	model_process(worker, seed);
	_exit(0);
}

static unsigned long model_gets(void)
{
	unsigned long gets = 0;
	for (unsigned i = 0; i < WORKERS * THREADS; i++) gets += atomic_load(&model->cell[i].gets);
	return gets;
}

static void never_more_than_the_limit(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("limits");
	static const size_t limits[] = {1, 7, 60, 150};
	for (unsigned l = 0; l < 4; l++) {
		hp_pool *pool = hp_plain_pool(8 * MIB, 0);
		hp_cache *cache = hp_cache_make(pool, "limited", 40, 0);
		model = hp_shared(sizeof *model);
		model->pool = pool;
		model->limit = limits[l];
		must_be(hp_cache_set_hard_limit(cache, limits[l], NULL, 0), 0);
		pid_t pid[WORKERS];
		for (unsigned w = 0; w < WORKERS; w++) pid[w] = model_start(w, hp_random(&seed));
		while (model_gets() < limits[l] * (HP_TEST_SANITIZER ? 100u : 1000u)) sched_yield();
		atomic_store(&model->stop, 1);
		for (unsigned w = 0; w < WORKERS; w++) must_be(hp_wait_for(pid[w]), 0);
		/* at rest: exactly so many, in whosever magazines they were */
		must_be(atomic_load(&model->at_least), 0);
		must_be(hp_cache_numbers(cache).in_use, 0);
		void **object = calloc(limits[l], sizeof *object);
		must_be(hp_cache_get_bulk(cache, 0, limits[l], object), 0);
		must_refuse(hp_cache_get(cache, 0), EAGAIN);
		must_be(hp_cache_put_bulk(cache, limits[l], object), 0);
		must_be(hp_cache_destroy(cache), 0);
		hp_must_be_empty(pool);
		hp_pool_detach(pool);
		free(object);
		munmap(model, sizeof *model);
	}
}

/* With deaths: what a dead one had got and not written down stays out for good (class POOL), so each death may take one an
 * object a thread along; all others are there. */
static void deaths_do_not_falsify_the_limit(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("deaths");
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "limited", 40, 0);
	enum { LIMIT = 120, DEATHS = HP_TEST_SANITIZER ? 10 : 60 };
	model = hp_shared(sizeof *model);
	model->pool = pool;
	model->limit = LIMIT * 100; /* the count beside goes wrong with the dead: judged below */
	must_be(hp_cache_set_hard_limit(cache, LIMIT, NULL, 0), 0);
	pid_t pid[WORKERS];
	for (unsigned w = 0; w < WORKERS; w++) pid[w] = model_start(w, hp_random(&seed));
	for (unsigned death = 0; death < DEATHS; death++) {
		unsigned w = (unsigned)hp_below(&seed, WORKERS);
		unsigned long gets = model_gets();
		for (unsigned turn = 0; turn < 20000 && model_gets() < gets + hp_below(&seed, 2000); turn++) sched_yield();
		must_be(kill(pid[w], SIGKILL), 0);
		must_be(hp_wait_for(pid[w]), 128 + SIGKILL);
		struct hp_cache_stats stats = hp_cache_numbers(cache);
		must(stats.in_use <= LIMIT);
		/* what it held is put back for it; one that it was about to put may be back already */
		for (unsigned c = w * THREADS; c < (w + 1) * THREADS; c++) {
			struct cell *cell = &model->cell[c];
			for (unsigned i = 0; i < EACH; i++) {
				uintptr_t object = atomic_exchange(&cell->object[i], 0);
				if (object) must_be(hp_cache_put(cache, hp_pool_pointer(pool, object - 1)), 0);
			}
		}
		pid[w] = model_start(w, hp_random(&seed));
	}
	atomic_store(&model->stop, 1);
	for (unsigned w = 0; w < WORKERS; w++) must_be(hp_wait_for(pid[w]), 0);
	must(hp_pool_recover(pool) >= 0);
	/* What is out now was in dead hands: got and not yet written down, or taken off the books and not yet put. */
	uint64_t lost = hp_cache_numbers(cache).in_use;
	must(lost <= DEATHS * THREADS);
	must(lost <= LIMIT);
	void *object[LIMIT];
	must_be(hp_cache_get_bulk(cache, 0, LIMIT - lost, object), 0);
	must_refuse(hp_cache_get(cache, 0), EAGAIN);
	must_be(hp_cache_put_bulk(cache, LIMIT - lost, object), 0);
	must_be(hp_cache_numbers(cache).in_use, lost);
	hp_must_be_sound(pool);
	print_message("%llu in dead hands\n", (unsigned long long)lost);
	hp_pool_detach(pool);
	munmap(model, sizeof *model);
}

/* Free ones are somewhere else, with threads that sleep, or that work on and on: nobody is refused. */

#define SLEEPERS 3
static struct {
	hp_cache *cache;
	pthread_barrier_t step;
} asleep;

static void *get_put_sleep(void *arg)
{
	(void)arg;
	void *object[10];
	must_be(hp_cache_get_bulk(asleep.cache, 0, 10, object), 0);
	must_be(hp_cache_put_bulk(asleep.cache, 10, object), 0);
	pthread_barrier_wait(&asleep.step); /* asleep, with ten in the magazine */
	pthread_barrier_wait(&asleep.step);
	void *one = hp_cache_get(asleep.cache, HP_CACHE_WAIT);
	must(one);
	must_be(hp_cache_put(asleep.cache, one), 0);
	return NULL;
}

static void sleepers_do_not_hoard(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	for (unsigned round = 0; round < 20; round++) {
		hp_cache *cache = hp_cache_make(pool, "slept on", 200, 0);
		pthread_t thread[SLEEPERS];
		void *object[30];
		must_be(hp_cache_set_hard_limit(cache, 30, NULL, 0), 0);
		asleep.cache = cache;
		pthread_barrier_init(&asleep.step, NULL, SLEEPERS + 1);
		for (unsigned i = 0; i < SLEEPERS; i++) must_be(pthread_create(&thread[i], NULL, get_put_sleep, NULL), 0);
		pthread_barrier_wait(&asleep.step);
		for (unsigned i = 0; i < 30; i++) must(object[i] = hp_cache_get(cache, 0));
		must_refuse(hp_cache_get(cache, 0), EAGAIN);
		must_be(hp_cache_put_bulk(cache, 30, object), 0);
		pthread_barrier_wait(&asleep.step);
		for (unsigned i = 0; i < SLEEPERS; i++) must_be(pthread_join(thread[i], NULL), 0);
		pthread_barrier_destroy(&asleep.step);
		must_be(hp_cache_destroy(cache), 0);
	}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* Set, lowered and lifted while objects are out, as long as their slabs have room below it: exact at once. */
static void set_while_objects_are_out(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	static const size_t sizes[] = {64, 1000, 20000};
	static void *object[3000];
	uint64_t seed = hp_seed("set_while_objects_are_out");
	for (unsigned s = 0; s < 3; s++) {
		hp_cache *cache = hp_cache_make(pool, "limited", sizes[s], 0);
		size_t each = (size_t)pool->classes[cache->class].objects, out = 0;
		for (unsigned round = 0; round < 60; round++) {
			/* some come, some go, at random; what is left lies in as many slabs as the limit has room for, or it does not */
			size_t limit = each * (2 + hp_below(&seed, 5)) + hp_below(&seed, 3);
			if (limit * sizes[s] > 8 * MIB || limit > 3000) limit = each * 2;
			for (size_t k = hp_below(&seed, limit); k && out < 3000; k--) {
				void *one = hp_cache_get(cache, 0);
				if (!one) break;
				object[out++] = one;
			}
			for (size_t k = out; k-- > 0;) {
				if (hp_below(&seed, 3)) continue;
				must_be(hp_cache_put(cache, object[k]), 0);
				object[k] = object[--out];
			}
			uint64_t was = hp_cache_numbers(cache).limit;
			int set = hp_cache_set_hard_limit(cache, limit, NULL, 0);
			if (set < 0) {
				must_be(set, out > limit ? -EINVAL : -EBUSY);
				must_be(hp_cache_numbers(cache).limit, was);
				while (out > limit / each) must_be(hp_cache_put(cache, object[--out]), 0);
				must_be(hp_cache_set_hard_limit(cache, limit, NULL, 0), 0); /* each in a slab of its own, at worst */
			}
			must_be(hp_cache_numbers(cache).limit, limit);
			size_t before = out;
			while (out < limit) must(object[out++] = hp_cache_get(cache, 0));
			must_refuse(hp_cache_get(cache, 0), EAGAIN);
			hp_must_be_sound(pool);
			while (out > before) must_be(hp_cache_put(cache, object[--out]), 0);
			if (round % 4 == 3) must_be(hp_cache_set_hard_limit(cache, 0, NULL, 0), 0);
		}
		while (out) must_be(hp_cache_put(cache, object[--out]), 0);
		must_be(hp_cache_destroy(cache), 0);
	}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* The same while threads get and put: once they stop, the limit that was set last holds. */
static _Atomic bool stop_using;

static void *use_some(void *arg)
{
	hp_cache *cache = arg;
	void *object[40];
	unsigned n = 0;
	uint64_t seed = (uintptr_t)&n;
	while (!atomic_load(&stop_using)) {
		if (n < 40 && hp_below(&seed, 2)) {
			if ((object[n] = hp_cache_get(cache, 0))) n++;
		} else if (n) {
			must_be(hp_cache_put(cache, object[--n]), 0);
		}
	}
	while (n > 5) must_be(hp_cache_put(cache, object[--n]), 0);
	return (void *)(uintptr_t)n;
}

static void set_while_others_get(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	uint64_t seed = hp_seed("set_while_others_get");
	unsigned set = 0;
	for (unsigned round = 0; round < 10; round++) {
		hp_cache *cache = hp_cache_make(pool, "limited", round % 2 ? 1000 : 20000, 0);
		size_t each = (size_t)pool->classes[cache->class].objects, out = 0;
		pthread_t thread[3];
		void *object[1000];
		atomic_store(&stop_using, false);
		for (unsigned i = 0; i < 3; i++) must_be(pthread_create(&thread[i], NULL, use_some, cache), 0);
		for (unsigned i = 0; i < (HP_TEST_SANITIZER ? 30 : 300); i++)
			set += hp_cache_set_hard_limit(cache, each * hp_below(&seed, 40), NULL, 0) == 0;
		atomic_store(&stop_using, true);
		for (unsigned i = 0; i < 3; i++) {
			void *left;
			must_be(pthread_join(thread[i], &left), 0);
			out += (uintptr_t)left;
		}
		size_t limit = hp_cache_numbers(cache).limit;
		must_be(hp_cache_numbers(cache).in_use, out);
		must(!limit || out <= limit);
		if (limit && limit <= 1000) {
			size_t mine = 0;
			while (out + mine < limit) must(object[mine++] = hp_cache_get(cache, 0));
			must_refuse(hp_cache_get(cache, 0), EAGAIN);
			must_be(hp_cache_put_bulk(cache, mine, object), 0);
		}
		hp_cache_close(cache);
		hp_must_be_sound(pool);
		hp_pool_detach(pool);
		pool = hp_plain_pool(16 * MIB, 0);
	}
	must(set > 0);
	hp_pool_detach(pool);
}

/* As many threads as there are objects, each of which has one at most: there is always one for who asks. */

enum { USERS = 4, TURNS = HP_TEST_SANITIZER ? 3000 : 100000 };

static void *get_and_put(void *arg)
{
	hp_cache *cache = arg;
	unsigned long refused = 0;
	for (unsigned i = 0; i < TURNS; i++) {
		void *object = hp_cache_get(cache, 0);
		if (!object) {
			must_be(errno, EAGAIN);
			refused++;
			continue;
		}
		*(volatile unsigned *)object = i;
		must_be(hp_cache_put(cache, object), 0);
	}
	return (void *)refused;
}

static void nobody_is_refused_while_fewer_are_out(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	static const size_t sizes[] = {64, 3000, 40000};
	unsigned long refused = 0;
	for (unsigned s = 0; s < 3; s++) {
		hp_cache *cache = hp_cache_make(pool, "enough", sizes[s], 0);
		pthread_t thread[USERS];
		must_be(hp_cache_set_hard_limit(cache, USERS, NULL, 0), 0);
		for (unsigned i = 0; i < USERS; i++) must_be(pthread_create(&thread[i], NULL, get_and_put, cache), 0);
		for (unsigned i = 0; i < USERS; i++) {
			void *result;
			must_be(pthread_join(thread[i], &result), 0);
			refused += (unsigned long)result;
		}
		must_be(hp_cache_destroy(cache), 0);
	}
	print_message("%lu of %u refused\n", refused, 3 * USERS * TURNS);
	/* The exception of the contract: a thread that the kernel stops inside a call, for as long as others look. */
	must(refused <= 3 * USERS * TURNS / 1000);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_limit_is_exact),
		cmocka_unit_test(what_can_be_set),
		cmocka_unit_test(warnings_are_rare),
		cmocka_unit_test(sleepers_do_not_hoard),
		cmocka_unit_test(set_while_objects_are_out),
		cmocka_unit_test(set_while_others_get),
		cmocka_unit_test(nobody_is_refused_while_fewer_are_out),
		cmocka_unit_test(never_more_than_the_limit),
		cmocka_unit_test(deaths_do_not_falsify_the_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
