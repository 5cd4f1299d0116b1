/* Random use of caches by threads of several processes, against books kept beside it.
 *
 * Catches: an object given out twice, of another size, over another one; contents that the allocator touched; a cache that
 * does not come back to nothing. A thread keeps what it got, gives it to a box that all share, and puts back what it finds
 * there, so that most objects are put by somebody else; every object says whose it is, to its last byte. */
#include "hp_cache.h"
#include <pthread.h>

#define CACHES 5
#define PROCESSES 3
#define THREADS 3
#define OWN 40
#define BOX 256
#define TURNS (HP_TEST_SANITIZER ? 4000 : 40000)

static const struct {
	size_t size;
	unsigned flags;
	size_t limit;
} kinds[CACHES] = {{24, 0, 0},
                   {200, HP_CACHE_ZERO, 300},
                   {1500, HP_CACHE_LARGE_MAGAZINES, 0},
                   {64, HP_CACHE_NO_MAGAZINES, 500},
                   {9000, 0, 60}};

/* In the box: {stamp:24, cache:8, offset:32}; 0: nothing. */
static struct books {
	hp_pool *pool;
	_Atomic uint64_t box[BOX];
	_Atomic unsigned long refused;
} * books;

struct user {
	hp_pool *pool;
	hp_cache *cache[CACHES];
	uint64_t seed;
	struct {
		char *object;
		unsigned cache;
		uint64_t stamp;
	} own[OWN];
};

static void user_put(struct user *u, unsigned c, char *object, uint64_t stamp)
{
	must(hp_cache_filled(object, kinds[c].size, stamp));
	must_be(hp_cache_put(u->cache[c], object), 0);
}

static void user_get(struct user *u, unsigned i)
{
	unsigned c = (unsigned)hp_below(&u->seed, CACHES);
	char *object = hp_below(&u->seed, 8) ? hp_cache_get(u->cache[c], 0)
	                                     : hp_cache_get_timed(u->cache[c], HP_CACHE_WAIT, 100000);
	if (!object) {
		must(errno == ENOMEM || errno == EAGAIN || errno == ETIMEDOUT);
		atomic_fetch_add(&books->refused, 1);
		return;
	}
	if (kinds[c].flags & HP_CACHE_ZERO)
		for (size_t k = 0; k < kinds[c].size; k++) must(object[k] == 0);
	u->own[i].object = object;
	u->own[i].cache = c;
	u->own[i].stamp = hp_random(&u->seed) & 0xffffff;
	hp_cache_fill(object, kinds[c].size, u->own[i].stamp);
}

static void user_bulk(struct user *u)
{
	void *object[32];
	unsigned c = (unsigned)hp_below(&u->seed, CACHES);
	size_t n = 1 + hp_below(&u->seed, 32);
	if (hp_cache_get_bulk(u->cache[c], 0, n, object) < 0) return;
	for (size_t i = 0; i < n; i++) hp_cache_fill(object[i], kinds[c].size, n * 64 + i);
	for (size_t i = 0; i < n; i++) must(hp_cache_filled(object[i], kinds[c].size, n * 64 + i));
	must_be(hp_cache_put_bulk(u->cache[c], n, object), 0);
}

static void user_array(struct user *u)
{
	unsigned c = (unsigned)hp_below(&u->seed, CACHES);
	size_t n = 1 + hp_below(&u->seed, 5), stride = hp_cache_numbers(u->cache[c]).stride;
	char *first = hp_cache_get_array(u->cache[c], 0, n);
	if (!first) return;
	for (size_t i = 0; i < n; i++) hp_cache_fill(first + i * stride, kinds[c].size, n * 8 + i);
	for (size_t i = 0; i < n; i++) must(hp_cache_filled(first + i * stride, kinds[c].size, n * 8 + i));
	must_be(hp_cache_put_array(u->cache[c], first, n), 0);
}

/* Swaps with the box: what was in there is put back by us. */
static void user_swap(struct user *u, unsigned i)
{
	uint64_t mine = 0;
	if (u->own[i].object)
		mine = u->own[i].stamp << 40 | (uint64_t)u->own[i].cache << 32 | hp_pool_offset(u->pool, u->own[i].object);
	if (u->own[i].object && hp_pool_offset(u->pool, u->own[i].object) == 0) return; /* would look like nothing */
	uint64_t theirs = atomic_exchange(&books->box[hp_below(&u->seed, BOX)], mine);
	u->own[i].object = NULL;
	if (!theirs) return;
	user_put(u, (unsigned)(theirs >> 32) & 0xff, hp_pool_pointer(u->pool, theirs & 0xffffffff), theirs >> 40);
}

static void *use(void *arg)
{
	struct user *u = arg;
	for (unsigned turn = 0; turn < TURNS; turn++) {
		unsigned i = (unsigned)hp_below(&u->seed, OWN), what = (unsigned)hp_below(&u->seed, 1000);
		if (what < 2) {
			must(hp_cache_reclaim(u->cache[what]) >= 0);
		} else if (what < 4) {
			int error = hp_cache_prime(u->cache[what], 20);
			must(error == 0 || error == -EAGAIN || error == -ENOMEM);
		} else if (what < 30) {
			user_bulk(u);
		} else if (what < 40) {
			user_array(u);
		} else if (what < 300) {
			user_swap(u, i);
		} else if (u->own[i].object) {
			user_put(u, u->own[i].cache, u->own[i].object, u->own[i].stamp);
			u->own[i].object = NULL;
		} else {
			user_get(u, i);
		}
	}
	for (unsigned i = 0; i < OWN; i++)
		if (u->own[i].object) user_put(u, u->own[i].cache, u->own[i].object, u->own[i].stamp);
	free(u);
	return NULL;
}

/* Threads of one process; every second one over a handle of its own. */
static void use_by_threads(uint64_t seed)
{
	pthread_t thread[THREADS];
	hp_pool *again = hp_attach_again(books->pool);
	for (unsigned t = 0; t < THREADS; t++) {
		struct user *u = calloc(1, sizeof *u);
		must(u);
		u->pool = t % 2 ? again : books->pool;
		u->seed = seed + t;
		for (unsigned c = 0; c < CACHES; c++) {
			char name[16];
			snprintf(name, sizeof name, "kind %u", c);
			u->cache[c] = hp_cache_opened(u->pool, name);
		}
		must_be(pthread_create(&thread[t], NULL, use, u), 0);
	}
	for (unsigned t = 0; t < THREADS; t++) must_be(pthread_join(thread[t], NULL), 0);
	hp_pool_detach(again);
}

static void used_at_random(unsigned mode, unsigned processes)
{
	uint64_t seed = hp_seed("random");
	hp_pool *pool = hp_plain_pool(4 * MIB, mode);
	hp_cache *cache[CACHES];
	pid_t pid[PROCESSES];
	books = hp_shared(sizeof *books);
	books->pool = pool;
	for (unsigned c = 0; c < CACHES; c++) {
		char name[16];
		snprintf(name, sizeof name, "kind %u", c);
		cache[c] = hp_cache_make(pool, name, kinds[c].size, kinds[c].flags);
		if (kinds[c].limit) must_be(hp_cache_set_hard_limit(cache[c], kinds[c].limit, NULL, 0), 0);
	}
	for (unsigned p = 1; p < processes; p++) {
		uint64_t own = hp_random(&seed);
		pid[p] = hp_fork();
		if (pid[p] == 0) {
			use_by_threads(own);
			_exit(0);
		}
	}
	use_by_threads(hp_random(&seed));
	for (unsigned p = 1; p < processes; p++) must_be(hp_wait_for(pid[p]), 0);
	uint64_t boxed[CACHES] = {0};
	for (unsigned i = 0; i < BOX; i++) boxed[(books->box[i] >> 32) & 0xff] += books->box[i] != 0;
	for (unsigned c = 0; c < CACHES; c++) must_be(hp_cache_numbers(cache[c]).in_use, boxed[c]);
	for (unsigned i = 0; i < BOX; i++) {
		uint64_t left = books->box[i];
		if (!left) continue;
		unsigned c = (unsigned)(left >> 32) & 0xff;
		char *object = hp_pool_pointer(pool, left & 0xffffffff);
		must(hp_cache_filled(object, kinds[c].size, left >> 40));
		must_be(hp_cache_put(cache[c], object), 0);
	}
	hp_must_be_sound(pool);
	for (unsigned c = 0; c < CACHES; c++) must_be(hp_cache_destroy(cache[c]), 0);
	hp_pool_recover(pool);
	hp_must_be_empty(pool);
	print_message("%lu refused\n", atomic_load(&books->refused));
	hp_pool_detach(pool);
	munmap(books, sizeof *books);
}

static void by_threads_of_one_process(void **state)
{
	(void)state;
	used_at_random(0, 1);
	used_at_random(HP_POOL_FENCED, 1);
}

static void by_several_processes(void **state)
{
	(void)state;
	used_at_random(0, PROCESSES);
	used_at_random(HP_POOL_FENCED, PROCESSES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_threads_of_one_process),
		cmocka_unit_test(by_several_processes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
