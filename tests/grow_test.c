/* Growing, and giving memory back: seen by everybody without a call, exact to the page, whoever is killed or stopped on
 * the way. "Exact" means that the data file holds just what is committed: a page more is memory that nobody has, a page
 * less a fault to come. Would catch a plan that is not undone, one that is undone twice, a lock that dies with its
 * holder, and a page of a live block given back. */
#include "hp_process.h"

#include <os/os.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>

static struct hp_pool_options growing_options(uint64_t size, uint64_t capacity, unsigned flags)
{
	struct hp_pool_options options = hp_plain_options(size);
	options.capacity = capacity;
	options.flags = flags;
	options.prefault_threads = 1;
	return options;
}

static hp_pool *growing_pool(uint64_t size, uint64_t capacity, unsigned flags)
{
	struct hp_pool_options options = growing_options(size, capacity, flags);
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	return pool;
}

static uint64_t unit;

/* ---- seen by everybody ---- */

struct seen {
	hp_pool *pool;
	hp_off off;
};

static void looking(const struct child *me, void *arg)
{
	struct seen *seen = arg;
	hp_pool *pool = hp_attach_again(seen->pool);
	child_here(me);
	for (uint64_t at = seen->off; at < seen->off + 8 * MIB; at += PAGE) {
		volatile uint64_t *word = hp_pool_pointer(pool, at);
		must_be(*word, at);
		*word = ~at;
	}
	must_be(hp_stats(pool).committed, 10 * MIB);
	must_be(hp_page_free_at(pool, seen->off), 0);
	must_be(hp_pool_detach(pool), 0);
}

static void growth_is_seen_by_everybody(void **state)
{
	(void)state;
	hp_pool *pool = growing_pool(2 * MIB, 64 * MIB, HP_POOL_NO_AUTOGROW);
	struct seen *seen = hp_shared(sizeof *seen);
	seen->pool = pool;
	struct child child = child_start(looking, seen);
	assert_true(child_hear(&child));
	assert_int_equal(hp_pool_grow(pool, 8 * MIB, NULL, NULL), 0);
	data_must_be_exact(pool);
	void *block;
	assert_int_equal(hp_page_alloc(pool, 8 * MIB, 0, &block), 0);
	seen->off = hp_pool_offset(pool, block);
	for (uint64_t at = 0; at < 8 * MIB; at += PAGE) *(volatile uint64_t *)((char *)block + at) = seen->off + at;
	child_finish(&child);
	for (uint64_t at = 0; at < 8 * MIB; at += PAGE)
		assert_int_equal(*(volatile uint64_t *)((char *)block + at), ~(seen->off + at));
	assert_int_equal(hp_page_free(pool, block), -EALREADY);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	munmap(seen, sizeof *seen);
}

static void up_to_the_capacity_and_no_further(void **state)
{
	(void)state;
	hp_pool *pool = growing_pool(2 * MIB, 8 * MIB, HP_POOL_NO_AUTOGROW);
	struct hp_report report;
	assert_int_equal(hp_pool_grow(pool, 0, NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_grow(NULL, PAGE, NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_grow(pool, 6 * MIB + 1, NULL, NULL), -ENOSPC);
	assert_int_equal(hp_pool_grow(pool, UINT64_MAX, NULL, NULL), -ENOSPC);
	assert_int_equal(hp_stats(pool).committed, 2 * MIB);
	assert_int_equal(hp_pool_grow(pool, 1, NULL, &report), 0); /* rounded up */
	assert_int_equal(hp_stats(pool).committed, 2 * MIB + unit);
	assert_int_equal(report.bytes_got, unit);
	assert_int_equal(report.rung_got, HP_RUNG_4K);
	assert_int_equal(hp_pool_grow(pool, 6 * MIB - unit, NULL, NULL), 0);
	assert_int_equal(hp_pool_grow(pool, 1, NULL, NULL), -ENOSPC);
	data_must_be_exact(pool);
	pool_must_work(pool, 8 * MIB);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void allocations_grow_the_pool(void **state)
{
	(void)state;
	hp_pool *pool = growing_pool(2 * MIB, 8 * MIB, 0);
	void *block[2048], *more;
	for (int i = 0; i < 2048; i++) {
		assert_int_equal(hp_page_alloc(pool, PAGE, 0, &block[i]), 0);
		hp_mark(block[i], 1, (uint64_t)i);
	}
	assert_int_equal(hp_page_alloc(pool, PAGE, 0, &more), -ENOMEM);
	assert_int_equal(hp_stats(pool).committed, 8 * MIB);
	data_must_be_exact(pool);
	for (int i = 0; i < 2048; i++) {
		assert_true(hp_marked(block[i], 1, (uint64_t)i));
		assert_int_equal(hp_page_free(pool, block[i]), 0);
	}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);

	/* a run longer than all there is, at once */
	pool = growing_pool(2 * MIB, 8 * MIB, 0);
	assert_int_equal(hp_page_alloc(pool, 7 * MIB, HP_PAGE_ZERO, &more), 0);
	assert_int_equal(hp_page_free(pool, more), 0);
	hp_pool_detach(pool);

	pool = growing_pool(2 * MIB, 8 * MIB, HP_POOL_NO_AUTOGROW);
	assert_int_equal(hp_page_alloc(pool, 2 * MIB, 0, &more), 0);
	assert_int_equal(hp_page_alloc(pool, PAGE, 0, &block[0]), -ENOMEM);
	assert_int_equal(hp_stats(pool).committed, 2 * MIB);
	assert_int_equal(hp_page_free(pool, more), 0);
	hp_pool_detach(pool);
}

/* ---- many at once ---- */

static void *growing_by_units(void *arg)
{
	uintptr_t grown = 0;
	int error;
	while ((error = hp_pool_grow(arg, unit, NULL, NULL)) == 0) grown++;
	must_be(error, -ENOSPC);
	return (void *)grown;
}

static void growing_too(const struct child *me, void *arg)
{
	child_here(me);
	pthread_t thread;
	void *a, *b;
	must_be(pthread_create(&thread, NULL, growing_by_units, arg), 0);
	a = growing_by_units(arg);
	must_be(pthread_join(thread, &b), 0);
	uint64_t grown = (uintptr_t)a + (uintptr_t)b;
	must_be(write(me->says, &grown, sizeof grown), sizeof grown);
}

static void growers_at_once(void **state)
{
	(void)state;
	hp_pool *pool = growing_pool(unit, 24 * MIB, HP_POOL_NO_AUTOGROW);
	struct child child[3];
	uint64_t grown = 1, more;
	for (int i = 0; i < 3; i++) {
		child[i] = child_start(growing_too, pool);
		assert_true(child_hear(&child[i]));
	}
	for (int i = 0; i < 3; i++) child_say(&child[i]);
	grown += (uintptr_t)growing_by_units(pool);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(read(child[i].hears, &more, sizeof more), sizeof more);
		grown += more;
		assert_int_equal(child_end(&child[i]), 0);
	}
	assert_int_equal(grown * unit, 24 * MIB); /* each unit was grown once */
	data_must_be_exact(pool);
	assert_int_equal(hp_pool_recover(pool), 3);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* ---- growers and trimmers that die ---- */

static int call_number, signal_at, signal_sent;

static bool at_a_call(enum os_call call, int64_t *result)
{
	(void)call;
	(void)result;
	if (__atomic_add_fetch(&call_number, 1, __ATOMIC_RELAXED) == signal_at) raise(signal_sent);
	return false;
}

struct death {
	hp_pool *pool;
	int at;
	bool trims;
};

static void dying(const struct child *me, void *arg)
{
	const struct death *death = arg;
	(void)me;
	hp_pool_recover(death->pool); /* takes part first */
	call_number = 0;
	signal_at = death->at;
	signal_sent = SIGKILL;
	os_hook = at_a_call;
	if (death->trims)
		must(hp_pool_trim(death->pool, 2 * MIB) > 0);
	else
		must_be(hp_pool_grow(death->pool, 3 * MIB, NULL, NULL), 0);
	os_hook = NULL;
}

/* Who comes after: somebody who grows, recovers, attaches, or trims. */
static void come_after(hp_pool *pool, int how)
{
	if (how == 0) {
		must_be(hp_pool_recover(pool), 1);
	} else if (how == 1) {
		hp_pool *other = hp_attach_again(pool);
		must_be(hp_pool_detach(other), 0);
		must_be(hp_pool_recover(pool), 0);
	} else if (how == 2) {
		must_be(hp_pool_grow(pool, unit, NULL, NULL), 0);
	} else {
		must(hp_pool_trim(pool, 6 * MIB) >= 0);
	}
}

static void killed_at_every_call(bool trims, int how)
{
	int points = 0;
	for (int at = 1;; at++) {
		hp_pool *pool = growing_pool(2 * MIB, 8 * MIB, HP_POOL_NO_AUTOGROW);
		if (trims) must_be(hp_pool_grow(pool, 3 * MIB, NULL, NULL), 0);
		void *block;
		must_be(hp_page_alloc(pool, 3 * PAGE, 0, &block), 0);
		hp_mark(block, 3, 5);
		struct death death = {pool, at, trims};
		struct child child = child_start(dying, &death);
		int status = child_end(&child);
		come_after(pool, how);
		uint64_t committed = hp_stats(pool).committed;
		must(committed >= 2 * MIB && committed <= 5 * MIB + unit);
		data_must_be_exact(pool);
		hp_must_be_sound(pool);
		must(hp_marked(block, 3, 5));
		must_be(hp_page_free(pool, block), 0);
		/* and it can be grown, to the last page */
		must_be(hp_pool_grow(pool, 8 * MIB - committed, NULL, NULL), 0);
		must(hp_pool_recover(pool) >= 0);
		pool_must_work(pool, 8 * MIB);
		data_must_be_exact(pool);
		must_be(hp_pool_detach(pool), 0);
		if (status == 0) break;
		must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		points++;
	}
	print_message("killed at %d calls\n", points);
	assert_true(points > 5);
}

static void growers_killed_at_every_call(void **state)
{
	(void)state;
	for (int how = 0; how < 4; how++) killed_at_every_call(false, how);
}

static void trimmers_killed_at_every_call(void **state)
{
	(void)state;
	for (int how = 0; how < 4; how++) killed_at_every_call(true, how);
}

static void growing_and_trimming(const struct child *me, void *arg)
{
	child_say(me);
	for (;;) {
		hp_pool_grow(arg, 4 * MIB, NULL, NULL);
		hp_pool_trim(arg, 2 * MIB);
	}
}

static void killed_anywhere(hp_pool *pool, int rounds)
{
	uint64_t random = hp_seed("killed_anywhere");
	void *block;
	must_be(hp_page_alloc(pool, 5 * PAGE, 0, &block), 0);
	hp_mark(block, 5, 11);
	for (int round = 0; round < rounds; round++) {
		struct child child[2];
		for (int i = 0; i < 2; i++) {
			child[i] = child_start(growing_and_trimming, pool);
			must(child_hear(&child[i]));
		}
		for (uint64_t wait = hp_below(&random, 400000); wait; wait--) __asm__ volatile("");
		child_kill(&child[0]);
		for (uint64_t wait = hp_below(&random, 100000); wait; wait--) __asm__ volatile("");
		child_kill(&child[1]);
		must(hp_pool_recover(pool) >= 0);
		must(hp_marked(block, 5, 11));
		data_must_be_exact(pool);
		hp_must_be_sound(pool);
	}
	must_be(hp_page_free(pool, block), 0);
}

static void growers_killed_anywhere(void **state)
{
	(void)state;
	hp_pool *pool = growing_pool(2 * MIB, 16 * MIB, HP_POOL_NO_AUTOGROW);
	killed_anywhere(pool, HP_TEST_SANITIZER ? 20 : 200);
	hp_pool_detach(pool);
}

/* ---- a grower that stands still ---- */

static void standing_still(const struct child *me, void *arg)
{
	const struct death *death = arg;
	hp_pool_recover(death->pool);
	call_number = 0;
	signal_at = death->at;
	signal_sent = SIGSTOP;
	os_hook = at_a_call;
	must_be(hp_pool_grow(death->pool, 2 * MIB, NULL, NULL), 0);
	os_hook = NULL;
	child_say(me);
}

static void nobody_waits_long_for_a_stopped_grower(void **state)
{
	(void)state;
	for (int killed = 0; killed < 2; killed++) {
		hp_pool *pool = growing_pool(2 * MIB, 16 * MIB, 0);
		struct death death = {pool, 12, false}; /* somewhere behind the lock, as is seen below */
		struct child child = child_start(standing_still, &death);
		child_await_stop(&child);
		/* what there is can be had */
		void *block[2], *more;
		assert_int_equal(hp_page_alloc(pool, MIB, 0, &block[0]), 0);
		assert_int_equal(hp_page_alloc(pool, MIB, 0, &block[1]), 0);
		/* what there is not is refused after a while; a hang is the test's time limit */
		assert_int_equal(hp_page_alloc(pool, MIB, 0, &more), -ENOMEM);
		assert_int_equal(hp_pool_grow(pool, MIB, NULL, NULL), -ENOMEM);
		assert_int_equal(hp_pool_trim(pool, 0), -ENOMEM);
		hp_pool *other = hp_attach_again(pool); /* nor does attaching wait long */
		hp_pool_detach(other);
		assert_int_equal(hp_pool_recover(pool), 0);
		if (killed) {
			child_kill(&child);
		} else {
			kill(child.pid, SIGCONT);
			assert_true(child_hear(&child));
			assert_int_equal(hp_stats(pool).committed, 4 * MIB);
			assert_int_equal(child_end(&child), 0);
		}
		assert_int_equal(hp_page_alloc(pool, 3 * MIB, 0, &more), 0);
		assert_int_equal(hp_page_free(pool, more), 0);
		assert_int_equal(hp_page_free(pool, block[0]), 0);
		assert_int_equal(hp_page_free(pool, block[1]), 0);
		hp_pool_recover(pool);
		data_must_be_exact(pool);
		hp_must_be_sound(pool);
		hp_pool_detach(pool);
	}
}

/* ---- in the background, and lazily ---- */

static void await_committed(hp_pool *pool, uint64_t bytes)
{
	while (hp_stats(pool).committed < bytes) sched_yield();
	must_be(hp_stats(pool).committed, bytes);
}

static void background_killed(const struct child *me, void *arg)
{
	struct hp_pool_options options = growing_options(256 * MIB, 0, 0);
	options.prefault = HP_PREFAULT_BACKGROUND;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	must_be(hp_pool_send(pool, *(int *)arg), 0);
	child_here(me);
}

static void populated_in_the_background(void **state)
{
	(void)state;
	struct hp_pool_options options = growing_options(192 * MIB, 256 * MIB, HP_POOL_NO_AUTOGROW);
	options.prefault = HP_PREFAULT_BACKGROUND;
	hp_pool *pool;
	assert_int_equal(hp_pool_create(&options, &pool), 0);
	void *block; /* it can be used at once */
	assert_int_equal(hp_page_alloc(pool, PAGE, 0, &block), 0);
	await_committed(pool, 192 * MIB);
	data_must_be_exact(pool);
	assert_int_equal(hp_page_free(pool, block), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	struct held before = held_now(); /* the stack of a thread that is gone is kept for the next one */

	/* detached in the middle of it; forked in the middle of it */
	assert_int_equal(hp_pool_create(&options, &pool), 0);
	hp_pool_detach(pool);
	must_hold_no_more(before);
	assert_int_equal(hp_pool_create(&options, &pool), 0);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		must_be(hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &block), 0);
		must_be(hp_pool_detach(pool), 0);
		_exit(0);
	}
	assert_int_equal(hp_wait_for(pid), 0);
	await_committed(pool, 192 * MIB);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	must_hold_no_more(before);

	/* and killed: what was not committed is given back */
	int sockets[2];
	must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	struct child child = child_start(background_killed, &sockets[1]);
	assert_true(child_hear(&child));
	child_kill(&child);
	assert_int_equal(hp_pool_receive(sockets[0], NULL, &pool), 0);
	data_must_be_exact(pool);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	close(sockets[0]);
	close(sockets[1]);
}

static void populated_at_the_first_touch(void **state)
{
	(void)state;
	struct hp_pool_options options = growing_options(64 * MIB, 0, 0);
	options.prefault = HP_PREFAULT_LAZY;
	hp_pool *pool;
	assert_int_equal(hp_pool_create(&options, &pool), 0);
	assert_int_equal(hp_stats(pool).committed, 64 * MIB);
	uint64_t held = data_held(pool);
	assert_true(held < MIB);
	hp_pool *other = hp_attach_again(pool); /* who attaches does not touch it all */
	hp_pool_detach(other);
	assert_int_equal(data_held(pool), held);
	pool_must_work(pool, 2 * MIB);
	assert_true(data_held(pool) >= 2 * MIB && data_held(pool) < 8 * MIB);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	options.choice = HP_CHOICE_ANY; /* which then is the rung of 4 KiB */
	assert_int_equal(hp_pool_create(&options, &pool), 0);
	assert_int_equal(hp_pool_page_size(pool), PAGE);
	hp_pool_detach(pool);
}

/* ---- a shortage ---- */

static void a_shortage_of_huge_pages_is_an_error(void **state)
{
	(void)state;
	if (!hp_test_has_huge(HP_HUGE_2M, 8)) hp_test_skip_one("no huge pages here");
	struct hp_pool_options options = {.size = 4 * MIB,
	                                  .capacity = UINT64_C(1) << 40,
	                                  .choice = HP_CHOICE_REQUIRE,
	                                  .rung = HP_RUNG_2M,
	                                  .flags = HP_POOL_NO_AUTOGROW};
	hp_pool *pool;
	assert_int_equal(hp_pool_create(&options, &pool), 0);
	long free_pages = hp_huge_read(HP_HUGE_2M, "free_hugepages");
	struct hp_report report;
	assert_int_equal(hp_pool_grow(pool, UINT64_C(1) << 39, NULL, &report), -ENOMEM);
	assert_true(report.rungs == 1 && report.rung[0].error == -ENOMEM && report.rung[0].cause[0] &&
	            report.rung[0].cure[0]);
	data_must_be_exact(pool);
	/* two more than there are: found out only while populating, or before */
	assert_int_equal(hp_pool_grow(pool, (uint64_t)(free_pages + 2) * 2 * MIB, NULL, NULL), -ENOMEM);
	data_must_be_exact(pool);
	assert_int_equal(hp_stats(pool).committed, 4 * MIB);
	hp_must_be_empty(pool);
	killed_anywhere(pool, HP_TEST_SANITIZER ? 5 : 30);
	assert_int_equal(hp_pool_trim(pool, 0) >= 0, true);
	assert_int_equal(hp_stats(pool).committed, 0);
	assert_int_equal(data_held(pool), 0);
	hp_pool_detach(pool);
}

int main(void)
{
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	unit = hp_stats(pool).unit_size;
	hp_pool_detach(pool);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(growth_is_seen_by_everybody),
		cmocka_unit_test(up_to_the_capacity_and_no_further),
		cmocka_unit_test(allocations_grow_the_pool),
		cmocka_unit_test(growers_at_once),
		cmocka_unit_test(growers_killed_at_every_call),
		cmocka_unit_test(trimmers_killed_at_every_call),
		cmocka_unit_test(growers_killed_anywhere),
		cmocka_unit_test(nobody_waits_long_for_a_stopped_grower),
		cmocka_unit_test(populated_in_the_background),
		cmocka_unit_test(populated_at_the_first_touch),
		cmocka_unit_test(a_shortage_of_huge_pages_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
