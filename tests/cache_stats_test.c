/* Numbers of a cache: by owner, by node, the most it held, how often slow paths looked again.
 *
 * Catches: sums that do not add up to the whole; slabs of a thread or a process that has gone and are still shown as its;
 * a high-water that goes down, or that a death falsifies for good; writing beyond the room, or beyond an older struct. */
#include "hp_cache.h"
#include <hugepool/inline.h>
#include <pthread.h>

static int tid_now(void)
{
	return (int)gettid();
}

struct whole {
	uint64_t slabs, in_use, cached;
};

static struct whole by_owner(hp_cache *cache, struct hp_cache_owner *owner, unsigned room, unsigned expected)
{
	struct whole whole = {0};
	must_be(hp_cache_owners(cache, owner, room), expected);
	for (unsigned i = 0; i < expected && i < room; i++) {
		whole.slabs += owner[i].slabs;
		whole.in_use += owner[i].in_use;
		whole.cached += owner[i].cached;
	}
	return whole;
}

static void must_add_up(hp_cache *cache, struct whole whole)
{
	struct hp_cache_stats stats = hp_cache_numbers(cache);
	must_be(whole.slabs, stats.slabs);
	must_be(whole.in_use, stats.in_use);
	must_be(whole.cached, stats.cached);
}

static pthread_barrier_t step;

static void *own_some(void *arg)
{
	void *object[10];
	must_be(hp_cache_get_bulk(arg, 0, 10, object), 0);
	pthread_barrier_wait(&step);
	pthread_barrier_wait(&step);
	must_be(hp_cache_put_bulk(arg, 9, object), 0); /* one stays out, so that its slab stays */
	return object[9];
}

static void owners_add_up(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "counted", 300, 0);
	struct hp_cache_owner owner[4];
	pthread_t thread[2];
	void *kept[2], *mine;
	must_be(hp_cache_owners(cache, NULL, 0), 0);
	must_be(hp_cache_owners(cache, NULL, 1), -EINVAL);
	must_be(hp_cache_nodes(NULL, NULL, 0), -EINVAL);
	must(mine = hp_cache_get(cache, 0));
	pthread_barrier_init(&step, NULL, 3);
	for (unsigned i = 0; i < 2; i++) must_be(pthread_create(&thread[i], NULL, own_some, cache), 0);
	pthread_barrier_wait(&step);
	must_add_up(cache, by_owner(cache, owner, 4, 3));
	unsigned found = 0;
	for (unsigned i = 0; i < 3; i++) {
		must_be(owner[i].pid, getpid());
		must_be(owner[i].slabs, 1);
		must(owner[i].cached > 0);
		if (owner[i].tid == tid_now()) {
			must_be(owner[i].in_use, 1);
			found++;
		} else {
			must_be(owner[i].in_use, 10);
		}
	}
	must_be(found, 1);
	/* no more than there is room for */
	memset(owner, 0xab, sizeof owner);
	by_owner(cache, owner, 1, 3);
	must(owner[0].slabs == 1 && owner[1].tid == (int)0xabababab);
	pthread_barrier_wait(&step);
	for (unsigned i = 0; i < 2; i++) must_be(pthread_join(thread[i], &kept[i]), 0);
	/* theirs are nobody's now */
	must_add_up(cache, by_owner(cache, owner, 4, 2));
	for (unsigned i = 0; i < 2; i++) must(owner[i].tid == tid_now() || (owner[i].tid == 0 && owner[i].slabs == 2));
	struct hp_cache_node node[2];
	must_be(hp_cache_nodes(cache, node, 2), 1); /* one part, whatever this machine calls it */
	must(node[0].node >= -1);
	must_add_up(cache, (struct whole){node[0].slabs, node[0].in_use, node[0].cached});
	for (unsigned i = 0; i < 2; i++) must_be(hp_cache_put(cache, kept[i]), 0);
	must_be(hp_cache_put(cache, mine), 0);
	pthread_barrier_destroy(&step);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static hp_pool *shared_pool;

static void fill_and_die(const struct child *me, void *arg)
{
	hp_cache *cache = hp_cache_opened(shared_pool, "counted");
	(void)arg;
	must_be(hp_cache_prime(cache, 1000), 0);
	child_here(me);
}

static void the_most_is_kept(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "counted", 300, 0);
	must_be(hp_cache_numbers(cache).most_slabs, 0);
	must_be(hp_cache_prime(cache, 1000), 0);
	uint64_t slabs = hp_cache_numbers(cache).slabs, bytes = hp_cache_numbers(cache).bytes;
	must(slabs > 1);
	must(hp_cache_reclaim(cache) > 0);
	struct hp_cache_stats stats = hp_cache_numbers(cache);
	must_be(stats.slabs, 0);
	must_be(stats.most_slabs, slabs);
	must_be(stats.most_bytes, bytes);
	/* as many again are not more, whoever made them, and dies */
	shared_pool = pool;
	for (unsigned round = 0; round < 3; round++) {
		struct child child = child_start(fill_and_die, NULL);
		must(child_hear(&child));
		child_kill(&child);
		must(hp_cache_reclaim(cache) >= 0); /* recovery may have ended them all */
		must_be(hp_cache_numbers(cache).slabs, 0);
		must_be(hp_cache_numbers(cache).most_slabs, slabs);
	}
	/* without anybody asking meanwhile */
	must_be(hp_cache_prime(cache, 2000), 0);
	must(hp_cache_reclaim(cache) > 0);
	must(hp_cache_numbers(cache).most_slabs > slabs);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* Each way to get and to put, by two processes; what is refused does not count. */
static void gets_and_puts(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "counted", 300, HP_CACHE_COUNT),
			 *plain = hp_cache_make(pool, "plain", 300, 0);
	void *object[20];
	for (unsigned i = 0; i < 3; i++) must(object[i] = hp_cache_get(cache, 0));
	must(object[3] = hp_cache_get_inline(cache, 0));
	must_be(hp_cache_get_bulk(cache, 0, 10, object + 4), 0);
	void *array = hp_cache_get_array(cache, 0, 5);
	must(array);
	must_be(hp_cache_numbers(cache).gets, 19);
	must_be(hp_cache_numbers(cache).puts, 0);
	pid_t pid = hp_fork();
	if (pid == 0) {
		must_be(hp_cache_put(cache, object[0]), 0);
		must_be(hp_cache_put_bulk(cache, 4, object + 4), 0);
		_exit(0);
	}
	must_be(hp_wait_for(pid), 0);
	must_be(hp_cache_put(cache, object[0]), -EALREADY);
	must_be(hp_cache_put_inline(cache, object[1]), 0);
	must_be(hp_cache_put(cache, object[2]), 0);
	must_be(hp_cache_put(cache, object[3]), 0);
	must_be(hp_cache_put_bulk(cache, 6, object + 8), 0);
	must_be(hp_cache_put_array(cache, array, 5), 0);
	must_be(hp_cache_numbers(cache).gets, 19);
	must_be(hp_cache_numbers(cache).puts, 19);
	must_be(hp_cache_put(plain, hp_cache_get(plain, 0)), 0);
	must_be(hp_cache_numbers(plain).gets, 0);
	must_be(hp_cache_destroy(cache), 0);
	must_be(hp_cache_destroy(plain), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void retries_and_older_structs(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "counted", 300, 0);
	must_be(hp_cache_set_hard_limit(cache, 1, NULL, 0), 0);
	void *object = hp_cache_get(cache, 0);
	must(object);
	must_be(hp_cache_numbers(cache).retries, 0);
	must_refuse(hp_cache_get_timed(cache, HP_CACHE_WAIT, 12000000), ETIMEDOUT);
	must(hp_cache_numbers(cache).retries > 0);
	union {
		struct hp_cache_stats stats;
		unsigned char bytes[sizeof(struct hp_cache_stats) + 8];
	} u;
	size_t older = offsetof(struct hp_cache_stats, retries);
	memset(&u, 0xab, sizeof u);
	u.stats.struct_size = older;
	must_be(hp_cache_stats(cache, &u.stats), 0);
	must_be(u.stats.in_use, 1);
	must_be(u.stats.limit, 1);
	for (size_t i = older; i < sizeof u; i++) must_be(u.bytes[i], 0xab);
	u.stats.struct_size = older - 1;
	must_be(hp_cache_stats(cache, &u.stats), -EINVAL);
	must_be(hp_cache_stats(cache, NULL), -EINVAL);
	u.stats.struct_size = sizeof u;
	must_be(hp_cache_stats(cache, &u.stats), 0);
	must_be(u.bytes[sizeof(struct hp_cache_stats)], 0xab);
	must_be(hp_cache_put(cache, object), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(owners_add_up),
		cmocka_unit_test(the_most_is_kept),
		cmocka_unit_test(gets_and_puts),
		cmocka_unit_test(retries_and_older_structs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
