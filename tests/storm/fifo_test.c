/* Producers and consumers of one fifo, killed and stopped at random moments, and followed by others. Every element has a number, and
 * a count of how often it was dealt with: never twice; and not at all only what a dead producer was pushing, or a dead consumer was
 * popping, or had acknowledged, right then. While one is stopped, wherever that may be, all others go on. */
#include "../hp_page.h"
#include "fifo/fifo.h"
#include <sched.h>

#define PRODUCERS 2u
#define CONSUMERS 2u
#define WORKERS (PRODUCERS + CONSUMERS)
#define NUMBERS (1u << 24) /* of a producer; what is not used costs no memory */
#define BURST 7u
#define KILLS (getenv("HP_STORM_KILLS") ? strtoull(getenv("HP_STORM_KILLS"), NULL, 0) : 150)

struct worker {
	_Atomic uint64_t turns;
	_Atomic uint64_t intent; /* producer: how many from `next` on; consumer: how many it is popping */
	_Atomic uint64_t next;   /* producer: number */
	_Atomic uint64_t hand;   /* consumer: how many of `taken` it is acknowledging, or counting */
	_Atomic uint64_t taken[BURST];
};

struct storm {
	hp_pool *pool;
	hp_off id;
	_Atomic uint32_t stop; /* 1: producers; 2: consumers too */
	struct worker worker[WORKERS];
	_Atomic uint8_t dealt[PRODUCERS][NUMBERS], unsure[PRODUCERS][NUMBERS];
};

static struct storm *storm;

static void deal_with(uint64_t value)
{
	must(value >> 32 < PRODUCERS && (uint32_t)value < NUMBERS);
	must_be(atomic_fetch_add(&storm->dealt[value >> 32][(uint32_t)value], 1), 0);
}

static void be_unsure(uint64_t value)
{
	atomic_store(&storm->unsure[value >> 32][(uint32_t)value], 1);
}

static void produce(hp_fifo *fifo, unsigned number, uint64_t random)
{
	struct worker *me = &storm->worker[number];
	while (!atomic_load(&storm->stop)) {
		uint64_t value[BURST], n = 1 + hp_below(&random, BURST), next = atomic_load(&me->next);
		if (next + n > NUMBERS) break;
		for (uint64_t i = 0; i < n; i++) value[i] = (uint64_t)number << 32 | (next + i);
		atomic_store(&me->intent, n);
		int error = hp_fifo_push_timed(fifo, value, n, 2000000);
		must(error == 0 || error == -ETIMEDOUT);
		if (error == 0) atomic_store(&me->next, next + n);
		atomic_store(&me->intent, 0);
		atomic_fetch_add(&me->turns, 1);
	}
}

static void consume(hp_fifo *fifo, unsigned number, uint64_t random)
{
	struct worker *me = &storm->worker[number];
	while (atomic_load(&storm->stop) < 2) {
		uint64_t value[BURST], n = 1 + hp_below(&random, BURST);
		bool pops = hp_below(&random, 4) == 0;
		hp_fifo_wait(fifo, 1000000);
		if (pops) atomic_store(&me->intent, n);
		int64_t got = pops ? hp_fifo_pop_burst(fifo, value, n) : hp_fifo_take(fifo, value, n);
		must(got >= 0);
		for (int64_t i = 0; i < got; i++) atomic_store(&me->taken[i], value[i]);
		atomic_store(&me->hand, (uint64_t)got);
		atomic_store(&me->intent, 0);
		if (!pops && got) must_be(hp_fifo_ack(fifo, (size_t)got), 0);
		for (int64_t i = 0; i < got; i++) deal_with(value[i]);
		atomic_store(&me->hand, 0);
		atomic_fetch_add(&me->turns, 1);
	}
}

static pid_t begin(unsigned number, uint64_t seed)
{
	pid_t pid = hp_fork();
	if (pid) return pid;
	hp_fifo *fifo;
	must_be(hp_fifo_open(storm->pool, storm->id, &fifo), 0);
	if (number < PRODUCERS)
		produce(fifo, number, seed);
	else
		consume(fifo, number, seed);
	hp_fifo_close(fifo);
	_exit(0);
}

/* Until it has done so many more. */
static void await_turns(unsigned number, uint64_t more)
{
	uint64_t want = atomic_load(&storm->worker[number].turns) + more;
	struct timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (atomic_load(&storm->worker[number].turns) < want) {
		sched_yield();
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec > 60) {
			fprintf(stderr, "worker %u does not go on\n", number);
			abort();
		}
	}
}

/* What the dead one was doing may have happened, or not. Returns how many may have gone with it. */
static uint64_t bury(unsigned number)
{
	struct worker *dead = &storm->worker[number];
	uint64_t lost = 0, n = atomic_load(&dead->intent);
	if (number < PRODUCERS) {
		/* all or none of it is in */
		uint64_t next = atomic_load(&dead->next);
		for (uint64_t i = 0; i < n; i++) be_unsure((uint64_t)number << 32 | (next + i));
		atomic_store(&dead->next, next + n);
	} else {
		lost = n;
		n = atomic_load(&dead->hand);
		for (uint64_t i = 0; i < n; i++) be_unsure(atomic_load(&dead->taken[i]));
	}
	atomic_store(&dead->intent, 0);
	atomic_store(&dead->hand, 0);
	return lost;
}

static void killed_and_stopped(void **state)
{
	(void)state;
	uint64_t random = hp_seed("fifo storm"), may_be_lost = 0, missing = 0, unsure = 0, stops = 0, kills = KILLS;
	pid_t pid[WORKERS];
	hp_fifo *fifo;
	storm = hp_shared(sizeof *storm);
	storm->pool = hp_plain_pool(4 * MIB, 0);
	struct hp_fifo_options options = {
		.struct_size = sizeof options, .capacity = 32, .flags = HP_FIFO_MP | HP_FIFO_MC, .handles = WORKERS + 2};
	must_be(hp_fifo_create(storm->pool, &options, &fifo), 0);
	storm->id = hp_fifo_id(fifo);
	for (unsigned i = 0; i < WORKERS; i++) pid[i] = begin(i, hp_random(&random));
	for (uint64_t i = 0; i < kills; i++) {
		unsigned victim = (unsigned)hp_below(&random, WORKERS);
		await_turns(victim, hp_below(&random, 60));
		if (hp_below(&random, 3) == 0) { /* it stands still first, and all others go on */
			int status;
			must_be(kill(pid[victim], SIGSTOP), 0);
			must_be(waitpid(pid[victim], &status, WUNTRACED), pid[victim]);
			must(WIFSTOPPED(status));
			for (unsigned k = 0; k < WORKERS; k++)
				if (k != victim) await_turns(k, 20);
			stops++;
			if (hp_below(&random, 2)) {
				must_be(kill(pid[victim], SIGCONT), 0);
				continue;
			}
		}
		must_be(kill(pid[victim], SIGKILL), 0);
		must_be(hp_wait_for(pid[victim]), 128 + SIGKILL);
		may_be_lost += bury(victim);
		pid[victim] = begin(victim, hp_random(&random));
	}
	atomic_store(&storm->stop, 1);
	for (unsigned i = 0; i < PRODUCERS; i++) must_be(hp_wait_for(pid[i]), 0);
	atomic_store(&storm->stop, 2);
	for (unsigned i = PRODUCERS; i < WORKERS; i++) must_be(hp_wait_for(pid[i]), 0);
	uint64_t value, all = 0;
	while (hp_fifo_pop(fifo, &value) == 0) deal_with(value);
	for (unsigned p = 0; p < PRODUCERS; p++) {
		uint64_t next = atomic_load(&storm->worker[p].next);
		all += next;
		for (uint64_t i = 0; i < next; i++) {
			unsure += storm->unsure[p][i];
			missing += !storm->dealt[p][i] && !storm->unsure[p][i];
		}
		for (uint64_t i = next; i < next + 1000 && i < NUMBERS; i++) must_be(storm->dealt[p][i], 0);
	}
	print_message("%llu elements, %llu unsure; %llu missing of %llu that may be; %llu stops\n", (unsigned long long)all,
	              (unsigned long long)unsure, (unsigned long long)missing, (unsigned long long)may_be_lost,
	              (unsigned long long)stops);
	must(missing <= may_be_lost);
	must_be(hp_fifo_destroy(fifo, 0), 0);
	hp_must_be_empty(storm->pool);
	must_be(hp_pool_detach(storm->pool), 0);
	munmap(storm, sizeof *storm);
}

int main(void)
{
	if (!FIFO_HAS_PAIRS) hp_test_skip("this processor has no compare-and-swap of 16 bytes");
	const struct CMUnitTest tests[] = {cmocka_unit_test(killed_and_stopped)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
