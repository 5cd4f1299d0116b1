/* Taking memory from owners that do not use it.
 *
 * Catches: memory that a sleeping thread or process keeps for ever; an owner that goes on with what was taken from it;
 * an owner, or anybody, that waits for a taker; a taker that dies half-way and leaves marks that nobody can remove. All
 * of it with barriers and in fenced mode. */
#include "hp_page.h"
#include "pool/participant.h"
#include <pthread.h>

static const unsigned modes[] = {0, HP_POOL_FENCED};

static size_t pages_of(hp_pool *pool)
{
	return hp_stats(pool).committed / PAGE;
}

/* A thread or a process that does what it is told, one step at a time, and sleeps in between. */
struct sleeper {
	hp_pool *pool;
	pthread_barrier_t step;
	hp_off block[8];
	unsigned pages[8], count;
	bool processes;
	pid_t pid;
	pthread_t thread;
};

static struct sleeper *sleeper_new(hp_pool *pool, bool process)
{
	struct sleeper *s = hp_shared(sizeof *s);
	pthread_barrierattr_t shared;
	s->pool = pool;
	s->processes = process;
	pthread_barrierattr_init(&shared);
	pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&s->step, &shared, 2);
	return s;
}

static void sleeper_start(struct sleeper *s, void *(*work)(void *))
{
	fflush(NULL);
	if (!s->processes) {
		must_be(pthread_create(&s->thread, NULL, work, s), 0);
		return;
	}
	pid_t pid = hp_fork();
	if (pid == 0) {
		work(s);
		_exit(0);
	}
	s->pid = pid;
}

static void sleeper_end(struct sleeper *s)
{
	if (s->processes)
		must_be(hp_wait_for(s->pid), 0);
	else
		pthread_join(s->thread, NULL);
	munmap(s, sizeof *s);
}

static void step(struct sleeper *s)
{
	pthread_barrier_wait(&s->step);
}

/* Owns an active and a spare chunk with something in each, sleeps, goes on. */
static void *own_sleep_go_on(void *arg)
{
	struct sleeper *s = arg;
	size_t unit = hp_stats(s->pool).unit_size / PAGE;
	const unsigned pages[] = {(unsigned)unit - 10, (unsigned)unit - 10, 1, 3};
	for (unsigned i = 0; i < 4; i++) {
		void *block;
		must_be(hp_page_alloc(s->pool, pages[i] * PAGE, 0, &block), 0);
		hp_mark(block, pages[i], (i + 1) << 20);
		s->block[s->count] = hp_pool_offset(s->pool, block);
		s->pages[s->count++] = pages[i];
	}
	step(s); /* asleep, while its chunks are taken */
	step(s);
	for (unsigned i = 0; i < 4; i++) must(hp_marked(hp_pool_pointer(s->pool, s->block[i]), pages[i], (i + 1) << 20));
	void *block;
	must_be(hp_page_alloc(s->pool, PAGE, 0, &block), -ENOMEM); /* all is taken, and it knows */
	must_be(hp_page_free_at(s->pool, s->block[0]), 0);
	must_be(hp_page_free_at(s->pool, s->block[0]), -EALREADY);
	must_be(hp_page_alloc(s->pool, pages[0] * PAGE, 0, &block), 0);
	hp_mark(block, pages[0], 9 << 20);
	step(s); /* asleep again, while the taker frees */
	step(s);
	must(hp_marked(block, pages[0], 9 << 20));
	must_be(hp_page_free(s->pool, block), 0);
	for (unsigned i = 1; i < 4; i++) must_be(hp_page_free_at(s->pool, s->block[i]), 0);
	step(s); /* asleep with all freed */
	step(s);
	for (unsigned i = 0; i < 100; i++) {
		must_be(hp_page_alloc(s->pool, (i % 7 + 1) * PAGE, 0, &block), 0);
		must_be(hp_page_free(s->pool, block), 0);
	}
	return NULL;
}

static void a_sleeper_is_taken_from(bool process, unsigned mode)
{
	hp_pool *pool = hp_plain_pool(MIB, mode);
	size_t all = pages_of(pool), n = 0;
	struct sleeper *s = sleeper_new(pool, process);
	sleeper_start(s, own_sleep_go_on);
	step(s);
	uint64_t taken = hp_stats(pool).taken;
	void **mine = calloc(all, sizeof *mine), *whole;
	while (hp_page_alloc(pool, PAGE, 0, &mine[n]) == 0) {
		hp_mark(mine[n], 1, n);
		n++;
	}
	must_be(hp_stats(pool).free, 0);
	must(hp_stats(pool).taken > taken);
	hp_must_be_sound(pool);
	step(s);
	step(s);
	hp_must_be_sound(pool);
	for (size_t i = 0; i < n; i++) {
		must(hp_marked(mine[i], 1, i));
		must_be(hp_page_free(pool, mine[i]), 0);
	}
	step(s);
	step(s);
	must_be(hp_page_alloc(pool, all * PAGE, 0, &whole), 0);
	must_be(hp_page_free(pool, whole), 0);
	hp_must_be_empty(pool);
	step(s);
	sleeper_end(s);
	hp_must_be_empty(pool);
	free(mine);
	hp_pool_detach(pool);
}

static void a_sleeping_thread_is_taken_from_and_goes_on(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 2; m++) a_sleeper_is_taken_from(false, modes[m]);
}

static void a_sleeping_process_is_taken_from_and_goes_on(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 2; m++) a_sleeper_is_taken_from(true, modes[m]);
}

/* Stopped, not just asleep: nothing in it can answer. */
static void *own_and_stop(void *arg)
{
	struct sleeper *s = arg;
	void *block;
	must_be(hp_page_alloc(s->pool, PAGE, 0, &block), 0);
	must_be(hp_page_free(s->pool, block), 0);
	step(s);
	step(s);
	for (unsigned i = 0; i < 1000; i++) {
		must_be(hp_page_alloc(s->pool, PAGE, 0, &block), 0);
		must_be(hp_page_free(s->pool, block), 0);
	}
	return NULL;
}

static void a_stopped_process_is_taken_from(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 2; m++) {
		hp_pool *pool = hp_plain_pool(MIB, modes[m]);
		size_t all = pages_of(pool);
		struct sleeper *s = sleeper_new(pool, true);
		int status;
		void *whole;
		sleeper_start(s, own_and_stop);
		step(s);
		kill(s->pid, SIGSTOP);
		must_be(waitpid(s->pid, &status, WUNTRACED), s->pid);
		must(WIFSTOPPED(status));
		must_be(hp_page_alloc(pool, all * PAGE, 0, &whole), 0);
		must_be(hp_page_free(pool, whole), 0);
		hp_must_be_empty(pool);
		kill(s->pid, SIGCONT);
		step(s);
		sleeper_end(s);
		hp_must_be_empty(pool);
		hp_pool_detach(pool);
	}
}

/* The whole pool wanders between participants: each takes it from the one before, which sleeps. */
static void the_whole_pool_wanders(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 2; m++) {
		hp_pool *handle[4];
		handle[0] = hp_plain_pool(MIB, modes[m]);
		for (unsigned i = 1; i < 4; i++) handle[i] = hp_attach_again(handle[0]);
		size_t all = pages_of(handle[0]);
		void *block, *single[4] = {0};
		for (unsigned round = 0; round < 400; round++) {
			hp_pool *pool = handle[round * 7 % 4];
			must_be(hp_page_alloc(pool, all * PAGE, round % 3 ? 0 : HP_PAGE_PROCESS, &block), 0);
			must_be(hp_page_free(pool, block), 0);
			if (round % 2)
				for (unsigned i = 0; i < 4; i++)
					must_be(hp_page_alloc(handle[i], PAGE, i % 2 ? HP_PAGE_PROCESS : 0, &single[i]), 0);
			if (round % 2)
				for (unsigned i = 0; i < 4; i++) must_be(hp_page_free(handle[i], single[i]), 0);
		}
		hp_must_be_empty(handle[0]);
		for (unsigned i = 4; i-- > 0;) hp_pool_detach(handle[i]);
	}
}

/* ---- takers that die ---- */

static unsigned marks_in(hp_pool *pool)
{
	unsigned n = 0;
	for (uint32_t i = 0; i < pool_slots_top(pool); i++) n += atomic_load(&pool->slots[i].taker) >> 32 != 0;
	return n;
}

/* Dies with its mark on everybody and, by `moved`, one of the chunks already moved: the very middle of taking. */
static void *mark_and_die(void *arg)
{
	struct sleeper *s = arg;
	hp_pool *pool = s->pool;
	int error;
	struct participant *me = participant_get(pool, &error);
	must(me);
	for (uint32_t i = 0; i < pool_slots_top(pool); i++) {
		if (&pool->slots[i] == me->slot) continue;
		uint64_t word = atomic_load(&pool->slots[i].taker);
		must_be(word >> 32, 0);
		must(atomic_compare_exchange_strong(&pool->slots[i].taker, &word, (uint64_t)me->who << 32 | (uint32_t)word));
		atomic_store(&pool->slots[i].news, 1);
	}
	if (s->count)
		for (uint32_t i = 0; i < pool_top(pool); i++) {
			uint64_t word = atomic_load(&pool->chunks[i].ctl);
			if (ctl_state(word) != CTL_OWNED || ctl_who(word) == me->who) continue;
			must(atomic_compare_exchange_strong(&pool->chunks[i].ctl, &word,
			                                    ctl_make(CTL_OWNED, me->who >> 16, me->who & 0xffff, word)));
			break;
		}
	kill(getpid(), SIGKILL);
	return NULL;
}

static void marks_of_a_dead_taker_are_displaced(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 2; m++)
		for (unsigned moved = 0; moved < 2; moved++)
			for (unsigned owner_first = 0; owner_first < 2; owner_first++) {
				hp_pool *pool = hp_plain_pool(MIB, modes[m]), *other = hp_attach_again(pool);
				size_t all = pages_of(pool);
				void *mine, *theirs, *block;
				must_be(hp_page_alloc(pool, PAGE, 0, &mine), 0);
				must_be(hp_page_alloc(other, PAGE, 0, &theirs), 0);
				hp_mark(mine, 1, 1);
				hp_mark(theirs, 1, 2);
				struct sleeper *s = sleeper_new(pool, true);
				s->count = moved;
				sleeper_start(s, mark_and_die);
				must_be(hp_wait_for(s->pid), 128 + SIGKILL);
				must(marks_in(pool) >= 2);
				if (owner_first) { /* the owner finds the mark of a dead one, and goes on at once */
					must_be(hp_page_alloc(pool, PAGE, 0, &block), 0);
					must_be(hp_page_free(pool, block), 0);
					must_be(hp_page_alloc(other, 2 * PAGE, 0, &block), 0);
					must_be(hp_page_free(other, block), 0);
				}
				must(hp_marked(mine, 1, 1));
				must_be(hp_page_free(other, hp_pool_pointer(other, hp_pool_offset(pool, mine))), 0);
				must_be(hp_page_free_at(pool, hp_pool_offset(other, theirs)), 0);
				/* whoever needs the memory clears the marks */
				must_be(hp_page_alloc(other, all * PAGE, 0, &block), 0);
				must_be(hp_page_free(other, block), 0);
				must_be(hp_pool_recover(pool) >= 0, 1);
				must_be(marks_in(pool), 0);
				hp_must_be_empty(pool);
				munmap(s, sizeof *s);
				hp_pool_detach(other);
				hp_pool_detach(pool);
			}
}

/* A taker that is alive but stands still in the middle: its mark must not stop the owner. */
static void an_owner_does_not_wait_for_a_taker(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 2; m++) {
		hp_pool *pool = hp_plain_pool(MIB, modes[m]), *other = hp_attach_again(pool);
		size_t all = pages_of(pool), n = 0;
		void *mine, *block, **rest = calloc(all, sizeof *rest);
		int error;
		must_be(hp_page_alloc(pool, PAGE, 0, &mine), 0);
		struct participant *me = participant_get(pool, &error), *taker = participant_get(other, &error);
		must(me && taker);
		uint64_t word = atomic_load(&me->slot->taker), mark = (uint64_t)taker->who << 32 | (uint32_t)word;
		must(atomic_compare_exchange_strong(&me->slot->taker, &word, mark));
		atomic_store(&me->slot->news, 1);
		/* the taker listed this chunk before it marked */
		uint32_t chunk = (uint32_t)(hp_pool_offset(pool, mine) / hp_stats(pool).unit_size);
		uint64_t listed = atomic_load(&pool->chunks[chunk].ctl);
		hp_must_be_sound(pool);
		for (unsigned i = 0; i < 50; i++) {
			must_be(hp_page_alloc(pool, PAGE, 0, &block), 0);
			must_be(hp_page_free(pool, block), 0);
		}
		/* and what it listed it does not get any more, since the owner gave it back when it found the mark */
		must(!atomic_compare_exchange_strong(&pool->chunks[chunk].ctl, &listed,
		                                     ctl_make(CTL_OWNED, taker->who >> 16, taker->who & 0xffff, listed)));
		while (hp_page_alloc(pool, PAGE, 0, &rest[n]) == 0) n++;
		must_be(n, all - 1);
		while (n) must_be(hp_page_free(pool, rest[--n]), 0);
		must(atomic_compare_exchange_strong(&me->slot->taker, &mark, (uint32_t)(mark + 1)));
		must_be(hp_page_free(pool, mine), 0);
		must_be(hp_page_alloc(other, all * PAGE, 0, &block), 0);
		must_be(hp_page_free(other, block), 0);
		hp_must_be_empty(pool);
		free(rest);
		hp_pool_detach(other);
		hp_pool_detach(pool);
	}
}

/* An owner inside an operation keeps what it owns; -ENOMEM is the answer for as long as it stands there, no more. */
static void an_owner_inside_an_operation_is_left_alone(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 2; m++) {
		hp_pool *pool = hp_plain_pool(MIB, modes[m]), *other = hp_attach_again(pool);
		size_t all = pages_of(pool), unit = hp_stats(pool).unit_size / PAGE, n = 0;
		void *mine, **rest = calloc(all, sizeof *rest), *block;
		int error;
		must_be(hp_page_alloc(pool, PAGE, 0, &mine), 0);
		struct participant *me = participant_get(pool, &error);
		must(me);
		participant_begin(me);
		while (hp_page_alloc(other, PAGE, 0, &rest[n]) == 0) n++;
		must_be(n, all - unit);
		participant_end(me);
		while (hp_page_alloc(other, PAGE, 0, &rest[n]) == 0) n++;
		must_be(n, all - 1);
		must_be(marks_in(pool), 0);
		must_be(hp_page_alloc(pool, PAGE, 0, &block), -ENOMEM);
		while (n) must_be(hp_page_free(other, rest[--n]), 0);
		must_be(hp_page_free(pool, mine), 0);
		hp_must_be_empty(pool);
		free(rest);
		hp_pool_detach(other);
		hp_pool_detach(pool);
	}
}

/* Takes the whole pool again and again until it is killed. */
static void *take_for_ever(void *arg)
{
	struct sleeper *s = arg;
	size_t all = pages_of(s->pool);
	void *block;
	step(s);
	for (;;) {
		if (hp_page_alloc(s->pool, (all - 20) * PAGE, 0, &block) == 0) must_be(hp_page_free(s->pool, block), 0);
		atomic_fetch_add((_Atomic unsigned *)&s->pages[0], 1);
	}
	return NULL;
}

/* Owners at work, a taker that is killed at a random instruction: nothing is lost but at most the block in its hands. */
static void a_taker_killed_anywhere_leaves_nothing(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 10 : 150); round++) {
		hp_pool *pool = hp_plain_pool(MIB, modes[round % 2]), *other = hp_attach_again(pool);
		size_t all = pages_of(pool);
		struct sleeper *s = sleeper_new(pool, true);
		void *mine, *theirs, *block;
		sleeper_start(s, take_for_ever);
		step(s);
		/* by its own count of turns and a random number of ours: anywhere, without a clock */
		unsigned turns = (unsigned)hp_below(&seed, 20), spins = (unsigned)hp_below(&seed, 300);
		unsigned ours = 0;
		while (atomic_load((_Atomic unsigned *)&s->pages[0]) < turns || ours < spins) {
			if (hp_page_alloc(pool, PAGE, 0, &mine) == 0) hp_mark(mine, 1, ours);
			if (hp_page_alloc(other, 2 * PAGE, 0, &theirs) == 0) {
				hp_mark(theirs, 2, ours + 1000);
				must(hp_marked(theirs, 2, ours + 1000));
				must_be(hp_page_free(other, theirs), 0);
			}
			if (mine) {
				must(hp_marked(mine, 1, ours));
				must_be(hp_page_free(pool, mine), 0);
			}
			ours++;
		}
		kill(s->pid, SIGKILL);
		must_be(hp_wait_for(s->pid), 128 + SIGKILL);
		must(hp_pool_recover(pool) >= 0);
		hp_must_be_sound(pool);
		must_be(marks_in(pool), 0);
		struct hp_pool_stats stats = hp_stats(pool);
		must(stats.live_blocks <= 1); /* the one in its hands is the application's */
		if (stats.live_blocks) {
			must_be(stats.free, 20 * PAGE);
			for (hp_off off = 0; off < all * PAGE; off += PAGE)
				if (hp_page_size_at(pool, off) > 0) must_be(hp_page_free_at(pool, off), 0);
		}
		must_be(hp_page_alloc(other, all * PAGE, 0, &block), 0);
		must_be(hp_page_free(other, block), 0);
		hp_must_be_empty(pool);
		munmap(s, sizeof *s);
		hp_pool_detach(other);
		hp_pool_detach(pool);
	}
}

/* ---- everybody takes from everybody ---- */

struct fight {
	hp_pool *pool;
	unsigned rounds;
	size_t all;
	_Atomic unsigned next, won;
};

static void *fight_for_it(void *arg)
{
	struct fight *fight = arg;
	unsigned me = atomic_fetch_add(&fight->next, 1) + 1;
	uint64_t seed = me;
	for (unsigned i = 0; i < fight->rounds; i++) {
		size_t pages = hp_below(&seed, 3) ? 1 + hp_below(&seed, 30) : fight->all / (1 + hp_below(&seed, 3));
		void *block;
		if (hp_page_alloc(fight->pool, pages * PAGE, 0, &block) < 0) continue;
		uint64_t whose = (uint64_t)me << 40 | (uint64_t)i << 12;
		hp_mark(block, pages, whose);
		must(hp_marked(block, pages, whose));
		must_be(hp_page_free(fight->pool, block), 0);
		fight->won++;
	}
	return NULL;
}

static void all_take_from_all(bool processes, unsigned mode)
{
	enum { FIGHTERS = 6 };
	struct fight *fight = hp_shared(sizeof *fight);
	fight->pool = hp_plain_pool(2 * MIB, mode);
	fight->all = pages_of(fight->pool);
	fight->rounds = HP_TEST_SANITIZER ? 200 : 2000;
	pthread_t thread[FIGHTERS];
	pid_t pid[FIGHTERS];
	for (unsigned i = 0; i < FIGHTERS; i++) {
		if (!processes) {
			must_be(pthread_create(&thread[i], NULL, fight_for_it, fight), 0);
		} else if ((pid[i] = hp_fork()) == 0) {
			fight_for_it(fight);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < FIGHTERS; i++)
		if (processes)
			must_be(hp_wait_for(pid[i]), 0);
		else
			pthread_join(thread[i], NULL);
	must(fight->won > fight->rounds);
	hp_must_be_empty(fight->pool);
	hp_pool_detach(fight->pool);
	munmap(fight, sizeof *fight);
}

static void threads_take_from_each_other(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 2; m++) all_take_from_all(false, modes[m]);
}

static void processes_take_from_each_other(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 2; m++) all_take_from_all(true, modes[m]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sleeping_thread_is_taken_from_and_goes_on),
		cmocka_unit_test(a_sleeping_process_is_taken_from_and_goes_on),
		cmocka_unit_test(a_stopped_process_is_taken_from),
		cmocka_unit_test(the_whole_pool_wanders),
		cmocka_unit_test(marks_of_a_dead_taker_are_displaced),
		cmocka_unit_test(an_owner_does_not_wait_for_a_taker),
		cmocka_unit_test(an_owner_inside_an_operation_is_left_alone),
		cmocka_unit_test(a_taker_killed_anywhere_leaves_nothing),
		cmocka_unit_test(threads_take_from_each_other),
		cmocka_unit_test(processes_take_from_each_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
