/* A pool of N pages hands out all N, whoever asks, and takes them all back into one run.
 *
 * Catches: memory that sleeping threads or processes hoard; memory lost when many race for the last page; a run of
 * the whole pool that cannot be made although everything is free; fragments left after everything came back; a cap on
 * the number of live blocks; blocks that two hold (the content of every page says whose it is). */
#include "hp_page.h"
#include <pthread.h>

#define MANY 64
#define MAX_PAGES 4096

/* Threads and processes do the same: the work is a function over a shared struct. */
struct crowd {
	hp_pool *pool;
	unsigned flags, count;
	size_t keep; /* pages each takes before it sleeps, and how many of them it frees again */
	size_t give;
	pthread_barrier_t barrier;
	_Atomic size_t got;
	_Atomic unsigned next;
	_Atomic unsigned first[MAX_PAGES]; /* who was given the page */
	hp_off kept[MANY][MAX_PAGES / 8];
};

static struct crowd *crowd_new(uint64_t size, unsigned count, unsigned flags)
{
	struct crowd *crowd = hp_shared(sizeof *crowd);
	crowd->pool = hp_plain_pool(size, 0);
	crowd->count = count;
	crowd->flags = flags;
	must(hp_stats(crowd->pool).committed / PAGE <= MAX_PAGES);
	pthread_barrierattr_t shared;
	pthread_barrierattr_init(&shared);
	pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	must_be(pthread_barrier_init(&crowd->barrier, &shared, count + 1), 0);
	return crowd;
}

static void crowd_end(struct crowd *crowd)
{
	hp_pool_detach(crowd->pool);
	pthread_barrier_destroy(&crowd->barrier);
	munmap(crowd, sizeof *crowd);
}

struct crew {
	bool processes;
	pthread_t thread[MANY];
	pid_t pid[MANY];
	unsigned count;
};

static void crew_start(struct crew *crew, struct crowd *crowd, void *(*work)(void *), bool processes)
{
	*crew = (struct crew){.processes = processes, .count = crowd->count};
	for (unsigned i = 0; i < crowd->count; i++) {
		if (!processes) {
			must_be(pthread_create(&crew->thread[i], NULL, work, crowd), 0);
		} else if ((crew->pid[i] = hp_fork()) == 0) {
			work(crowd);
			_exit(0);
		}
	}
}

static void crew_end(struct crew *crew)
{
	for (unsigned i = 0; i < crew->count; i++)
		if (crew->processes)
			must_be(hp_wait_for(crew->pid[i]), 0);
		else
			must_be(pthread_join(crew->thread[i], NULL), 0);
}

static void note(struct crowd *crowd, void *block, unsigned me)
{
	size_t page = hp_pool_offset(crowd->pool, block) / PAGE;
	must_be(atomic_exchange(&crowd->first[page], me + 1), 0);
	hp_mark(block, 1, me + 1);
	atomic_fetch_add(&crowd->got, 1);
}

/* All race for single pages until there are none, wait for each other, and free what they got. */
static void *grab_all(void *arg)
{
	struct crowd *crowd = arg;
	unsigned me = atomic_fetch_add(&crowd->next, 1);
	void **mine = calloc(MAX_PAGES + 1, sizeof *mine);
	size_t n = 0;
	int error;
	pthread_barrier_wait(&crowd->barrier);
	while ((error = hp_page_alloc(crowd->pool, PAGE, crowd->flags, &mine[n])) == 0) note(crowd, mine[n++], me);
	must_be(error, -ENOMEM);
	pthread_barrier_wait(&crowd->barrier); /* the last page is gone */
	pthread_barrier_wait(&crowd->barrier); /* and counted */
	for (size_t i = 0; i < n; i++) {
		must(hp_marked(mine[i], 1, me + 1));
		must_be(hp_page_free(crowd->pool, mine[i]), 0);
	}
	free(mine);
	pthread_barrier_wait(&crowd->barrier); /* all is free, and we sleep */
	pthread_barrier_wait(&crowd->barrier);
	return NULL;
}

static void all_pages_are_handed_out(uint64_t size, unsigned count, unsigned flags, bool processes)
{
	struct crowd *crowd = crowd_new(size, count, flags);
	hp_pool *pool = crowd->pool;
	struct crew crew;
	crew_start(&crew, crowd, grab_all, processes);
	pthread_barrier_wait(&crowd->barrier);
	pthread_barrier_wait(&crowd->barrier);
	struct hp_pool_stats stats = hp_stats(pool);
	must_be(crowd->got, stats.committed / PAGE);
	must_be(stats.free, 0);
	must_be(stats.live_blocks, stats.committed / PAGE);
	hp_must_be_sound(pool);
	pthread_barrier_wait(&crowd->barrier);
	pthread_barrier_wait(&crowd->barrier);
	/* everybody sleeps, everything is free: one run, in either class */
	for (unsigned class = 0; class <= HP_PAGE_PROCESS; class ++) {
		void *whole;
		must_be(hp_page_alloc(pool, stats.committed, class, &whole), 0);
		must_be(hp_page_size(pool, whole), stats.committed);
		must_be(hp_page_free(pool, whole), 0);
	}
	hp_must_be_empty(pool);
	pthread_barrier_wait(&crowd->barrier);
	crew_end(&crew);
	hp_must_be_empty(pool);
	crowd_end(crowd);
}

static const unsigned counts[] = {1, 2, 8, MANY};

static void threads_are_handed_all_pages(void **state)
{
	(void)state;
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 1 : 3); round++)
		for (unsigned i = 0; i < 4; i++)
			for (uint64_t size = MIB; size <= 16 * MIB; size *= 4) all_pages_are_handed_out(size, counts[i], 0, false);
}

static void threads_are_handed_all_pages_of_class_process(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		for (uint64_t size = MIB; size <= 16 * MIB; size *= 4)
			all_pages_are_handed_out(size, counts[i], HP_PAGE_PROCESS, false);
}

static void processes_are_handed_all_pages(void **state)
{
	(void)state;
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 1 : 3); round++)
		for (unsigned i = 0; i < (HP_TEST_SANITIZER ? 3 : 4); i++)
			for (uint64_t size = MIB; size <= 16 * MIB; size *= 4) all_pages_are_handed_out(size, counts[i], 0, true);
}

/* Each takes some, gives some back, and sleeps: it owns an active and a spare chunk then. */
static void *hold_and_sleep(void *arg)
{
	struct crowd *crowd = arg;
	unsigned me = atomic_fetch_add(&crowd->next, 1);
	for (size_t i = 0; i < crowd->keep; i++) {
		void *block;
		must_be(hp_page_alloc(crowd->pool, PAGE, crowd->flags, &block), 0);
		note(crowd, block, me);
		crowd->kept[me][i] = hp_pool_offset(crowd->pool, block);
	}
	for (size_t i = 0; i < crowd->give; i++) {
		size_t k = crowd->keep - 1 - i;
		crowd->first[crowd->kept[me][k] / PAGE] = 0; /* before the free: after it another may have noted the page */
		must_be(hp_page_free_at(crowd->pool, crowd->kept[me][k]), 0);
		atomic_fetch_sub(&crowd->got, 1);
	}
	pthread_barrier_wait(&crowd->barrier); /* asleep, while one takes all the rest */
	pthread_barrier_wait(&crowd->barrier);
	for (size_t i = 0; i < crowd->keep - crowd->give; i++) {
		void *block = hp_pool_pointer(crowd->pool, crowd->kept[me][i]);
		must(hp_marked(block, 1, me + 1));
		must_be(hp_page_free(crowd->pool, block), 0);
	}
	pthread_barrier_wait(&crowd->barrier); /* asleep again, with nothing allocated */
	pthread_barrier_wait(&crowd->barrier);
	void *block; /* and goes on */
	int error = hp_page_alloc(crowd->pool, PAGE, crowd->flags, &block);
	must(error == 0 || error == -ENOMEM);
	if (error == 0) {
		hp_mark(block, 1, me + 1000);
		must(hp_marked(block, 1, me + 1000));
		must_be(hp_page_free(crowd->pool, block), 0);
	}
	return NULL;
}

static void one_awake_gets_all_the_rest(uint64_t size, unsigned sleepers, size_t keep, size_t give, unsigned flags,
                                        bool processes)
{
	struct crowd *crowd = crowd_new(size, sleepers, flags);
	hp_pool *pool = crowd->pool;
	struct crew crew;
	crowd->keep = keep;
	crowd->give = give;
	crew_start(&crew, crowd, hold_and_sleep, processes);
	pthread_barrier_wait(&crowd->barrier);
	size_t all = hp_stats(pool).committed / PAGE, rest = all - crowd->got, n = 0;
	void **mine = calloc(MAX_PAGES + 1, sizeof *mine);
	while (hp_page_alloc(pool, PAGE, flags, &mine[n]) == 0) note(crowd, mine[n++], MANY);
	must_be(n, rest);
	must_be(crowd->got, all);
	must_be(hp_stats(pool).free, 0);
	hp_must_be_sound(pool);
	for (size_t i = 0; i < n; i++) {
		must(hp_marked(mine[i], 1, MANY + 1));
		must_be(hp_page_free(pool, mine[i]), 0);
	}
	pthread_barrier_wait(&crowd->barrier);
	pthread_barrier_wait(&crowd->barrier);
	void *whole;
	must_be(hp_page_alloc(pool, all * PAGE, flags, &whole), 0);
	must_be(hp_page_free(pool, whole), 0);
	hp_must_be_empty(pool);
	pthread_barrier_wait(&crowd->barrier);
	crew_end(&crew);
	hp_must_be_empty(pool);
	free(mine);
	crowd_end(crowd);
}

static void sleepers_of_all_kinds(bool processes)
{
	for (unsigned i = 0; i < 4; i++) {
		unsigned n = counts[i] > 1 ? counts[i] - 1 : 1;
		for (unsigned class = 0; class <= (processes ? 0 : HP_PAGE_PROCESS); class ++) {
			one_awake_gets_all_the_rest(MIB, n, 1, 0, class, processes);
			one_awake_gets_all_the_rest(MIB, n, 3, 2, class, processes);
			one_awake_gets_all_the_rest(MIB, n, 4, 4, class, processes);
			one_awake_gets_all_the_rest(16 * MIB, n, 63, 30, class, processes);
			if (n < 31) one_awake_gets_all_the_rest(16 * MIB, n, 130, 129, class, processes); /* three chunks each */
			if (n < 8) one_awake_gets_all_the_rest(16 * MIB, n, 500, 250, class, processes);
		}
	}
}

static void sleeping_threads_do_not_hoard(void **state)
{
	(void)state;
	sleepers_of_all_kinds(false);
}

static void sleeping_processes_do_not_hoard(void **state)
{
	(void)state;
	sleepers_of_all_kinds(true);
}

/* No cap on live blocks, and a failed allocation takes nothing with it. */
static void every_page_can_be_a_block(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	size_t all = hp_stats(pool).committed / PAGE;
	void **block = calloc(all, sizeof *block), *none;
	for (unsigned round = 0; round < 3; round++) {
		for (size_t i = 0; i < all; i++) must_be(hp_page_alloc(pool, PAGE, 0, &block[i]), 0);
		for (unsigned i = 0; i < 10; i++) must_be(hp_page_alloc(pool, PAGE, 0, &none), -ENOMEM);
		must_be(hp_stats(pool).live_blocks, all);
		hp_must_be_sound(pool);
		for (size_t i = round; i < all + round; i++) must_be(hp_page_free(pool, block[i * 7 % all]), 0);
		hp_must_be_empty(pool);
	}
	free(block);
	hp_pool_detach(pool);
}

/* ---- the ancestor's own test, with the assertions that it lacked ---- */

#define BLOCKS 84
#define BLOCK_BYTES 9000

struct scenario {
	hp_pool *pool;
	hp_off block[BLOCKS];
	_Atomic unsigned next;
	uint64_t seed;
};

static void shuffle(uint64_t *seed, hp_off *block, unsigned n)
{
	for (unsigned i = n; i > 1; i--) {
		unsigned k = (unsigned)hp_below(seed, i);
		hp_off other = block[k];
		block[k] = block[i - 1];
		block[i - 1] = other;
	}
}

static void eighty_four_blocks_of_9000_bytes(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	hp_pool *pool = hp_plain_pool(MIB, 0);
	struct hp_pool_stats first = hp_stats(pool);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 50 : 1000); round++) {
		hp_off block[BLOCKS];
		for (unsigned i = 0; i < BLOCKS; i++) {
			void *at;
			must_be(hp_page_alloc(pool, BLOCK_BYTES, 0, &at), 0);
			block[i] = hp_pool_offset(pool, at);
			if (round % 10 == 0) hp_mark(at, 3, i * 1000);
		}
		must_be(hp_stats(pool).free, first.committed - BLOCKS * 3 * PAGE);
		shuffle(&seed, block, BLOCKS);
		for (unsigned i = 0; i < BLOCKS; i++) must_be(hp_page_free_at(pool, block[i]), 0);
		struct hp_pool_stats last = hp_stats(pool);
		must_be(last.free, first.free);
		must_be(last.largest, first.largest);
		if (round % 10 == 0) hp_must_be_empty(pool);
	}
	hp_pool_detach(pool);
}

static void scenario_fill(struct scenario *s)
{
	for (unsigned i; (i = atomic_fetch_add(&s->next, 1)) < BLOCKS;) {
		void *at;
		must_be(hp_page_alloc(s->pool, BLOCK_BYTES, 0, &at), 0);
		hp_mark(at, 3, i * 1000);
		s->block[i] = hp_pool_offset(s->pool, at);
	}
}

static void scenario_free(struct scenario *s)
{
	for (unsigned i; (i = atomic_fetch_add(&s->next, 1)) < BLOCKS;) must_be(hp_page_free_at(s->pool, s->block[i]), 0);
}

static void scenario_run(struct scenario *s, unsigned processes, void (*work)(struct scenario *))
{
	pid_t pid[8];
	s->next = 0;
	for (unsigned p = 0; p < processes; p++)
		if ((pid[p] = hp_fork()) == 0) {
			work(s);
			_exit(0);
		}
	for (unsigned p = 0; p < processes; p++) must_be(hp_wait_for(pid[p]), 0);
}

/* Some processes fill the pool, others empty it, in an order that has nothing to do with who allocated. Blocks of three
 * pages do not go into chunks of 64 without a rest, so runs over two chunks are needed for the last ones. */
static void eighty_four_blocks_across_processes(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	struct scenario *s = hp_shared(sizeof *s);
	s->pool = hp_plain_pool(MIB, 0);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 5 : 40); round++) {
		scenario_run(s, round % 2 ? 1 : 4, scenario_fill);
		must_be(hp_stats(s->pool).live_blocks, BLOCKS);
		hp_must_be_sound(s->pool);
		for (unsigned i = 0; i < BLOCKS; i++) must(hp_marked(hp_pool_pointer(s->pool, s->block[i]), 3, i * 1000));
		shuffle(&seed, s->block, BLOCKS);
		scenario_run(s, 4, scenario_free);
		hp_must_be_empty(s->pool);
	}
	hp_pool_detach(s->pool);
	munmap(s, sizeof *s);
}

/* ---- 64 threads on few CPUs ---- */

#define BOXES 256

struct parcel { /* at the start of a block while it lies in a box */
	uint64_t whose, pages;
};

struct market {
	hp_pool *pool;
	unsigned rounds;
	_Atomic hp_off box[BOXES]; /* offset + 1, or 0: whoever swaps it out owns the block */
	_Atomic unsigned next;
	_Atomic uint64_t refused, served;
};

static void unpack(struct market *market, hp_off off)
{
	if (!off) return;
	char *block = hp_pool_pointer(market->pool, off - 1);
	struct parcel parcel = *(struct parcel *)(void *)(block + 64);
	must_be(hp_page_size(market->pool, block), parcel.pages * PAGE);
	must(hp_marked(block, parcel.pages, parcel.whose));
	must_be(hp_page_free(market->pool, block), 0);
}

static void *trade(void *arg)
{
	struct market *market = arg;
	unsigned me = atomic_fetch_add(&market->next, 1);
	uint64_t seed = me * 77 + 5;
	for (unsigned k = 0; k < market->rounds; k++) {
		uint64_t pages = 1 + hp_below(&seed, hp_below(&seed, 8) ? 4 : hp_below(&seed, 8) ? 40 : 300);
		void *block;
		int error = hp_page_alloc(market->pool, pages * PAGE, 0, &block);
		must(error == 0 || error == -ENOMEM);
		if (error) {
			atomic_fetch_add(&market->refused, 1);
			unpack(market, atomic_exchange(&market->box[hp_below(&seed, BOXES)], 0));
			continue;
		}
		atomic_fetch_add(&market->served, 1);
		uint64_t whose = (uint64_t)me << 40 | (uint64_t)k << 10;
		hp_mark(block, pages, whose);
		*(struct parcel *)(void *)((char *)block + 64) = (struct parcel){whose, pages};
		unpack(market, atomic_exchange(&market->box[hp_below(&seed, BOXES)], hp_pool_offset(market->pool, block) + 1));
	}
	return NULL;
}

static void many_threads_trade(unsigned flags)
{
	struct market *market = hp_shared(sizeof *market);
	pthread_t thread[MANY];
	market->pool = hp_plain_pool(4 * MIB, flags);
	market->rounds = HP_TEST_SANITIZER ? 300 : 3000;
	for (unsigned i = 0; i < MANY; i++) must_be(pthread_create(&thread[i], NULL, trade, market), 0);
	for (unsigned i = 0; i < MANY; i++) pthread_join(thread[i], NULL);
	hp_must_be_sound(market->pool);
	for (unsigned i = 0; i < BOXES; i++) unpack(market, market->box[i]);
	hp_must_be_empty(market->pool);
	print_message("%llu blocks traded, %llu refused\n", (unsigned long long)market->served,
	              (unsigned long long)market->refused);
	hp_pool_detach(market->pool);
	munmap(market, sizeof *market);
}

static void sixty_four_threads_hand_blocks_over(void **state)
{
	(void)state;
	many_threads_trade(0);
}

static void sixty_four_threads_hand_blocks_over_fenced(void **state)
{
	(void)state;
	many_threads_trade(HP_POOL_FENCED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_are_handed_all_pages),
		cmocka_unit_test(threads_are_handed_all_pages_of_class_process),
		cmocka_unit_test(processes_are_handed_all_pages),
		cmocka_unit_test(sleeping_threads_do_not_hoard),
		cmocka_unit_test(sleeping_processes_do_not_hoard),
		cmocka_unit_test(every_page_can_be_a_block),
		cmocka_unit_test(eighty_four_blocks_of_9000_bytes),
		cmocka_unit_test(eighty_four_blocks_across_processes),
		cmocka_unit_test(sixty_four_threads_hand_blocks_over),
		cmocka_unit_test(sixty_four_threads_hand_blocks_over_fenced),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
