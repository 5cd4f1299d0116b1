/* Fifos, killed and stopped at every instruction.
 *
 * Deaths: a child does one operation on a fresh fifo, is single-stepped to an instruction, and killed there, really; then what the fifo
 * holds must be what it held before the operation or after it, and once it was after it, it stays so for all later instructions.
 * Pairs: a child stands still at an instruction of its operation while another does its whole one, without waiting; then the
 * first goes on to its end, or is killed. Together they must have lost nothing and doubled nothing.
 * Every instruction is taken that changed something in the fifo's pages, and of the others a sample, or, with
 * HP_STEP_FULL=1, all. */
#include "harness.h"
#include "hp_page.h"
#include "fifo/fifo.h"
#include <sched.h>
#include <sys/ptrace.h>

#define CAPACITY 8u
#define SAMPLES (step_full() ? 1000000u : 30u) /* of an operation */
#define CHANGES 2048
#define FIFO_BYTES (4 * PAGE) /* of it at most, looked at */

struct report {
	_Atomic uint32_t done;
	int64_t result;
	uint64_t got[64];
	hp_off made;
};

static hp_pool *pool;
static struct report *report;
static uint64_t next_value;

/* ---- what the fifo holds ---- */

struct list {
	uint64_t value[64];
	unsigned count;
};

static void add(struct list *list, uint64_t value)
{
	must(list->count < 64);
	list->value[list->count++] = value;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static bool same(struct list a, struct list b, bool sorted)
{
	if (!sorted) {
		qsort(a.value, a.count, 8, by_value);
		qsort(b.value, b.count, 8, by_value);
	}
	return a.count == b.count && memcmp(a.value, b.value, a.count * 8) == 0;
}

/* Without the first n. */
static struct list without(const struct list *list, unsigned n)
{
	struct list rest = {.count = list->count - n};
	memcpy(rest.value, list->value + n, rest.count * 8);
	return rest;
}

static struct list drained(hp_fifo *fifo)
{
	struct list list = {0};
	uint64_t got[5];
	int64_t n;
	while ((n = hp_fifo_pop_burst(fifo, got, 5)) > 0)
		for (int64_t i = 0; i < n; i++) add(&list, got[i]);
	must_be(n, 0);
	return list;
}

/* ---- operations ---- */

struct op {
	const char *name;
	unsigned flags; /* of the fifo */
	int64_t (*run)(hp_fifo *fifo);
	unsigned pushes, pops;          /* how many; all or none */
	void (*prepare)(hp_fifo *fifo); /* in the child, before the steps */
	void (*setup)(hp_fifo *fifo);   /* by others, before the child */
	bool unordered;                 /* what dead takers leave comes late */
	bool takes;                     /* what it got is still there when it dies */
};

static void filled(hp_fifo *fifo, uint64_t *value, unsigned n)
{
	(void)fifo;
	for (unsigned i = 0; i < n; i++) value[i] = 1000 + i;
}

static int64_t push_one(hp_fifo *fifo)
{
	uint64_t value[1];
	filled(fifo, value, 1);
	return hp_fifo_push(fifo, value);
}

static int64_t push_three(hp_fifo *fifo)
{
	uint64_t value[3];
	filled(fifo, value, 3);
	return hp_fifo_push_bulk(fifo, value, 3);
}

static void have_staged(hp_fifo *fifo)
{
	uint64_t value[3];
	filled(fifo, value, 3);
	must_be(hp_fifo_stage(fifo, 0, value, 3), 0);
}

static int64_t publish_three(hp_fifo *fifo)
{
	return hp_fifo_publish(fifo, 3);
}

static int64_t pop_one(hp_fifo *fifo)
{
	int error = hp_fifo_pop(fifo, report->got);
	return error ? error : 1;
}

static int64_t pop_three(hp_fifo *fifo)
{
	int error = hp_fifo_pop_bulk(fifo, report->got, 3);
	return error ? error : 3;
}

static int64_t take_three(hp_fifo *fifo)
{
	return hp_fifo_take(fifo, report->got, 3);
}

static void have_taken(hp_fifo *fifo)
{
	must_be(hp_fifo_take(fifo, report->got, 3), 3);
}

static int64_t ack_two(hp_fifo *fifo)
{
	return hp_fifo_ack(fifo, 2);
}

static int64_t ack_three(hp_fifo *fifo)
{
	return hp_fifo_ack(fifo, 3);
}

static int64_t nack(hp_fifo *fifo)
{
	return hp_fifo_nack(fifo);
}

static int64_t close_it(hp_fifo *fifo)
{
	hp_fifo_close(fifo);
	return 0;
}

static int64_t open_it(hp_fifo *fifo)
{
	hp_fifo *other;
	return hp_fifo_open(pool, hp_fifo_id(fifo), &other);
}

static hp_fifo *another(const hp_fifo *fifo)
{
	hp_fifo *other;
	must_be(hp_fifo_open(pool, hp_fifo_id(fifo), &other), 0);
	return other;
}

/* ---- stepping ---- */

static void stopped_or(pid_t pid, int *status)
{
	pid_t got;
	while ((got = waitpid(pid, status, 0)) < 0 && errno == EINTR) {}
	must_be(got, pid);
}

/* The child, stopped right before the operation, with a handle of its own. */
static pid_t begin(hp_fifo *fifo, const struct op *op)
{
	int status;
	memset(report, 0, sizeof *report);
	pid_t pid = hp_fork();
	if (pid == 0) {
		void *block;
		hp_fifo *mine = fifo ? another(fifo) : NULL;
		/* with a slot, and all that is done once done */
		must_be(hp_page_alloc(pool, PAGE, 0, &block), 0);
		must_be(hp_page_free(pool, block), 0);
		if (op->prepare) op->prepare(mine);
		must_be(ptrace(PTRACE_TRACEME, 0, NULL, NULL), 0);
		raise(SIGSTOP);
		report->result = op->run(mine);
		atomic_store(&report->done, 1);
		_exit(0);
	}
	stopped_or(pid, &status);
	must(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	return pid;
}

/* One instruction; false: it is done. */
static bool step(pid_t pid)
{
	int status;
	if (atomic_load(&report->done)) return false;
	must_be(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
	stopped_or(pid, &status);
	must(WIFSTOPPED(status));
	must_be(WSTOPSIG(status), SIGTRAP);
	return !atomic_load(&report->done);
}

static void end(pid_t pid)
{
	int status;
	must_be(kill(pid, SIGKILL), 0);
	do stopped_or(pid, &status);
	while (!WIFSIGNALED(status));
}

static void go_on(pid_t pid)
{
	int status;
	must_be(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
	stopped_or(pid, &status);
	must(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- where to stop ---- */

static uint64_t points[CHANGES + 1000];
static unsigned point_count;

static int by_number(const void *a, const void *b)
{
	return by_value(a, b);
}

/* Runs through it once: the instructions after which it is to be stopped. `look`: memory that is watched. */
static void find_points(hp_fifo *fifo, const struct op *op, const void *look, size_t bytes)
{
	static char last[FIFO_BYTES];
	uint64_t length = 0, changes = 0;
	pid_t pid = begin(fifo, op);
	must(bytes <= sizeof last);
	memcpy(last, look, bytes);
	point_count = 0;
	points[point_count++] = 0;
	while (step(pid)) {
		length++;
		if (memcmp(last, look, bytes) == 0) continue;
		memcpy(last, look, bytes);
		must(changes++ < CHANGES / 2);
		points[point_count++] = length - 1;
		points[point_count++] = length;
	}
	end(pid);
	must(report->result >= 0);
	uint64_t stride = length / (length > 4000 ? SAMPLES / 5 : SAMPLES) + 1;
	for (uint64_t at = stride; at <= length && point_count < CHANGES + 999; at += stride) points[point_count++] = at;
	points[point_count++] = length + 1;
	qsort(points, point_count, sizeof *points, by_number);
	unsigned kept = 0;
	for (unsigned i = 0; i < point_count; i++)
		if (!kept || points[i] != points[kept - 1]) points[kept++] = points[i];
	point_count = kept;
	print_message("  %s: %llu instructions, %llu changes, %u points\n", op->name, (unsigned long long)length,
	              (unsigned long long)changes, point_count);
}

static pid_t stop_at(hp_fifo *fifo, const struct op *op, uint64_t point)
{
	pid_t pid = begin(fifo, op);
	for (uint64_t i = 0; i < point; i++) step(pid);
	return pid;
}

/* ---- scenes ---- */

static hp_fifo *fresh(unsigned flags, unsigned handles, struct list *inside)
{
	struct hp_fifo_options options = {
		.struct_size = sizeof options, .capacity = CAPACITY, .flags = flags, .handles = handles};
	hp_fifo *fifo;
	must_be(hp_fifo_create(pool, &options, &fifo), 0);
	/* not at the beginning of a lap: the operation goes over its end */
	uint64_t got;
	for (unsigned i = 0; i < CAPACITY - 2; i++) {
		must_be(hp_fifo_push(fifo, &next_value), 0);
		must_be(hp_fifo_pop(fifo, &got), 0);
	}
	*inside = (struct list){0};
	for (next_value = 1; next_value <= 5; next_value++) {
		must_be(hp_fifo_push(fifo, &next_value), 0);
		add(inside, next_value);
	}
	return fifo;
}

static void over(hp_fifo *fifo)
{
	must_be(hp_fifo_destroy(fifo, 0), 0);
	hp_must_be_empty(pool);
}

/* A child takes two, and is killed: before its take is confirmed by itself, or with it taken. */
static void dead_taker(hp_fifo *fifo, bool confirmed)
{
	memset(report, 0, sizeof *report);
	pid_t pid = hp_fork();
	int status;
	if (pid == 0) {
		uint64_t got[2];
		hp_fifo *mine = another(fifo);
		must_be(ptrace(PTRACE_TRACEME, 0, NULL, NULL), 0);
		raise(SIGSTOP);
		must_be(hp_fifo_take(mine, got, 2), 2);
		raise(SIGSTOP);
	}
	stopped_or(pid, &status);
	if (confirmed) {
		must_be(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
		stopped_or(pid, &status);
	} else {
		uint64_t tail = atomic_load(&fifo->shared->tail.a);
		while (atomic_load(&fifo->shared->tail.a) == tail) step(pid);
	}
	end(pid);
}

static void left_taken(hp_fifo *fifo)
{
	dead_taker(fifo, true);
}

static void left_unconfirmed(hp_fifo *fifo)
{
	dead_taker(fifo, false);
}

/* A child claims the head, writes, and is killed. */
static void left_claimed(hp_fifo *fifo)
{
	static const struct op claims = {.name = "a claim", .run = push_three};
	pid_t pid = begin(fifo, &claims);
	struct fifo_pair *entry = fifo_entry(fifo, atomic_load(&fifo->shared->head.a));
	uint64_t tag = atomic_load(&entry->a);
	while (atomic_load(&entry->a) == tag) step(pid);
	end(pid);
	must_be(atomic_load(&fifo->shared->head.b) & 1, 1);
}

#define MP HP_FIFO_MP
#define MC HP_FIFO_MC

static const struct op ops[] = {
	{"push", 0, push_one, .pushes = 1},
	{"push three", 0, push_three, .pushes = 3},
	{"push three, many consumers", MC, push_three, .pushes = 3},
	{"publish what is staged", 0, publish_three, .pushes = 3, .prepare = have_staged},
	{"push, many producers", MP, push_one, .pushes = 1},
	{"push three, many producers", MP | MC, push_three, .pushes = 3},
	{"push three, a dead one's claim", MP | MC, push_three, .pushes = 3, .setup = left_claimed},
	{"pop", 0, pop_one, .pops = 1},
	{"pop three", 0, pop_three, .pops = 3},
	{"pop three, many producers", MP, pop_three, .pops = 3},
	{"pop, many consumers", MC, pop_one, .pops = 1},
	{"pop three, many", MP | MC, pop_three, .pops = 3},
	{"pop, after one who was not confirmed", MC, pop_one, .pops = 1, .setup = left_unconfirmed, .unordered = true},
	{"take", 0, take_three, .takes = true},
	{"take, many consumers", MC, take_three, .takes = true, .unordered = true},
	{"take what a dead one left", MC, take_three, .takes = true, .setup = left_taken, .unordered = true},
	{"take what was not confirmed", MC, take_three, .takes = true, .setup = left_unconfirmed, .unordered = true},
	{"acknowledge", 0, ack_two, .pops = 2, .prepare = have_taken},
	{"acknowledge, many consumers", MC, ack_two, .pops = 2, .prepare = have_taken, .unordered = true},
	{"acknowledge all", MC, ack_three, .pops = 3, .prepare = have_taken, .unordered = true},
	{"hand back", MC, nack, .prepare = have_taken, .unordered = true},
	{"close", MC, close_it, .prepare = have_taken, .unordered = true},
	{.name = "open", .run = open_it},
	{"open, a dead one's place", MC, open_it, .setup = left_taken, .unordered = true},
};

static void killed_at(const struct op *op, uint64_t point, bool *effective)
{
	struct list before;
	hp_fifo *fifo = fresh(op->flags, 3, &before);
	if (op->setup) op->setup(fifo);
	pid_t pid = stop_at(fifo, op, point);
	bool done = atomic_load(&report->done);
	end(pid);
	struct list after = without(&before, op->pops), is;
	for (unsigned i = 0; i < op->pushes; i++) add(&after, 1000 + i);
	uint64_t count = hp_fifo_count(fifo);
	is = drained(fifo);
	bool none = same(is, before, !op->unordered), all = same(is, after, !op->unordered);
	if (op->unordered && op->pops && !op->prepare && !none) {
		/* one of the others may have come before */
		struct list rest = is;
		if (!done) all = rest.count == before.count - op->pops;
		for (unsigned i = 0; done && i < op->pops; i++) add(&rest, report->got[i]);
		if (done) all = same(rest, before, false);
	}
	bool changes = op->pushes || op->pops;
	if ((!none && !all) || count != is.count || (changes && *effective && !all) || (changes && done && !all)) {
		fprintf(stderr, "%s, killed after instruction %llu:", op->name, (unsigned long long)point);
		for (unsigned i = 0; i < is.count; i++) fprintf(stderr, " %llu", (unsigned long long)is.value[i]);
		fprintf(stderr, " are there, %llu were said to be\n", (unsigned long long)count);
		fail();
	}
	*effective = changes && all;
	/* a successor on the same end */
	uint64_t value = 77;
	must_be(hp_fifo_push(fifo, &value), 0);
	must_be(hp_fifo_take(fifo, &value, 1), 1);
	must_be(hp_fifo_ack(fifo, 1), 0);
	/* there is room for as many handles as ever */
	hp_fifo *one = another(fifo), *two = another(fifo);
	hp_fifo_close(one);
	hp_fifo_close(two);
	over(fifo);
}

static void deaths(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) {
		if (getenv("HP_STEP_ONLY") && !strstr(ops[i].name, getenv("HP_STEP_ONLY"))) continue;
		struct list before;
		hp_fifo *fifo = fresh(ops[i].flags, 3, &before);
		if (ops[i].setup) ops[i].setup(fifo);
		find_points(fifo, &ops[i], fifo->shared, PAGE);
		drained(fifo);
		over(fifo);
		bool effective = false;
		for (unsigned k = 0; k < point_count; k++) killed_at(&ops[i], points[k], &effective);
	}
}

/* ---- making and ending ---- */

static int64_t make_one(hp_fifo *fifo)
{
	(void)fifo;
	struct hp_fifo_options options = {
		.struct_size = sizeof options, .capacity = CAPACITY, .flags = MP | MC, .handles = 2};
	hp_fifo *made;
	return hp_fifo_create(pool, &options, &made);
}

static int64_t destroy_it(hp_fifo *fifo)
{
	return hp_fifo_destroy(fifo, HP_FIFO_DISCARD);
}

/* All fifos that there are, ended; how many. */
static unsigned end_all(unsigned elements)
{
	unsigned count = 0;
	for (hp_off off = 0; off < hp_pool_capacity(pool); off += PAGE) {
		hp_fifo *fifo;
		if (hp_fifo_open(pool, off, &fifo) < 0) continue;
		must_be(drained(fifo).count, elements);
		must_be(hp_fifo_destroy(fifo, 0), 0);
		count++;
	}
	return count;
}

static void deaths_in_making_and_ending(void **state)
{
	(void)state;
	static const struct op makes = {.name = "make", .run = make_one}, ends = {.name = "end", .run = destroy_it};
	for (unsigned ending = 0; ending < 2; ending++) {
		const struct op *op = ending ? &ends : &makes;
		struct list inside;
		hp_fifo *fifo = ending ? fresh(MP | MC, 0, &inside) : NULL;
		hp_off id = fifo ? hp_fifo_id(fifo) : 0;
		if (fifo) hp_fifo_close(fifo);
		if (fifo) must_be(hp_fifo_open(pool, id, &fifo), 0);
		/* the one who makes the child must not have it open, or it could not be ended */
		hp_fifo *given = fifo;
		if (fifo) atomic_store(&fifo->shared->cell[fifo->cell], 0);
		find_points(given, op, pool->units, PAGE);
		if (given) hp_fifo_close(given);
		must_be(end_all(0), ending ? 0 : 1);
		hp_must_be_empty(pool);
		bool was = false;
		for (unsigned k = 0; k < point_count; k++) {
			fifo = ending ? fresh(MP | MC, 0, &inside) : NULL;
			if (fifo) atomic_store(&fifo->shared->cell[fifo->cell], 0);
			end(stop_at(fifo, op, points[k]));
			must_be(hp_pool_recover(pool) >= 0, 1);
			hp_must_be_sound(pool);
			unsigned there = end_all(ending ? 5 : 0);
			bool effective = there == (ending ? 0u : 1u);
			must(there <= 1 && (effective || !was));
			was = effective;
			free(fifo);
			hp_must_be_empty(pool);
		}
		must(was);
	}
}

/* ---- pairs ---- */

struct pair {
	const char *name;
	unsigned flags;
	int64_t (*a)(hp_fifo *fifo), (*b)(hp_fifo *fifo);
};

/* B's values are others than A's. */
static struct list b_got;
static int64_t b_result;

static int64_t b_pushes(hp_fifo *fifo)
{
	const uint64_t value[] = {2000, 2001};
	return hp_fifo_push_bulk(fifo, value, 2);
}

static int64_t b_pops(hp_fifo *fifo)
{
	uint64_t got[2];
	int64_t n = hp_fifo_pop_burst(fifo, got, 2);
	for (int64_t i = 0; i < n; i++) add(&b_got, got[i]);
	return n;
}

static int64_t b_pops_all(hp_fifo *fifo)
{
	b_got = drained(fifo);
	return b_got.count;
}

static int64_t b_takes(hp_fifo *fifo)
{
	uint64_t got[2];
	int64_t n = hp_fifo_take(fifo, got, 2);
	for (int64_t i = 0; i < n; i++) add(&b_got, got[i]);
	if (n > 0) must_be(hp_fifo_ack(fifo, (size_t)n), 0);
	return n;
}

/* A lap: what A has read is written over. */
static int64_t b_goes_round(hp_fifo *fifo)
{
	const uint64_t value[] = {2000, 2001, 2002, 2003, 2004};
	b_got = drained(fifo);
	return hp_fifo_push_bulk(fifo, value, 5);
}

static int64_t a_takes_and_acks(hp_fifo *fifo)
{
	int64_t n = hp_fifo_take(fifo, report->got, 3);
	return n > 0 ? hp_fifo_ack(fifo, (size_t)n) < 0 ? -EIO : n : n;
}

/* What it sees is of one moment. */
static int64_t a_looks(hp_fifo *fifo)
{
	int64_t n = hp_fifo_peek(fifo, report->got, 8);
	for (int64_t i = 0; i < n; i++)
		if (report->got[i] != report->got[0] + (uint64_t)i) return -EIO;
	return n;
}

static const struct pair pairs[] = {
	{"push, pop", 0, push_three, b_pops},
	{"push, pop all", 0, push_three, b_pops_all},
	{"pop, push", 0, pop_three, b_pushes},
	{"take and acknowledge, push", 0, a_takes_and_acks, b_pushes},
	{"push, push", MP, push_three, b_pushes},
	{"push, pop all, many producers", MP, push_three, b_pops_all},
	{"push, a lap", MP | MC, push_three, b_goes_round},
	{"pop, pop", MC, pop_three, b_pops},
	{"pop, pop all", MP | MC, pop_three, b_pops_all},
	{"pop, a lap", MP | MC, pop_three, b_goes_round},
	{"pop, take", MC, pop_three, b_takes},
	{"take, pop", MC, a_takes_and_acks, b_pops},
	{"take, pop all", MP | MC, a_takes_and_acks, b_pops_all},
	{"take, take", MC, a_takes_and_acks, b_takes},
	{"take and die, take", MC, take_three, b_takes},
	{"take and die, pop", MC, take_three, b_pops},
	{"take, a lap", MP | MC, a_takes_and_acks, b_goes_round},
	{"look, pop", MC, a_looks, b_pops},
	{"look, a lap", MP | MC, a_looks, b_goes_round},
};

/* Nothing twice, nothing missing but what a dead A may have popped; each producer's in order. */
static void sum_up(const struct pair *pair, uint64_t point, const struct list *before, struct list is, bool killed)
{
	unsigned seen[3][5] = {{0}}, pushed[3] = {before->count, 0, 0};
	/* what is taken and not acknowledged is there again when A has ended */
	bool a_pops = pair->a != push_three && pair->a != take_three && pair->a != a_looks;
	bool wrong = !killed && report->result == -EIO;
	int64_t a_popped = !killed && a_pops && report->result > 0 ? report->result : 0;
	if (pair->b == b_pushes && b_result == 0) pushed[2] = 2;
	if (pair->b == b_goes_round && b_result == 0) pushed[2] = 5;
	for (unsigned i = 0; i < b_got.count; i++) add(&is, b_got.value[i]);
	for (int64_t i = 0; i < a_popped; i++) add(&is, report->got[i]);
	for (unsigned i = 0; i < is.count; i++) {
		uint64_t who = is.value[i] / 1000, number = is.value[i] % 1000 - (who == 0);
		wrong |= who > 2 || number > 4;
		if (!wrong) wrong |= seen[who][number]++ > 0;
	}
	/* A's are all there or none */
	unsigned of_a = seen[1][0] + seen[1][1] + seen[1][2], missing = 0;
	wrong |= of_a != 0 && of_a != 3;
	if (pair->a == push_three && !killed) wrong |= of_a != (report->result == 0 ? 3u : 0u);
	for (unsigned who = 0; who < 3; who += 2)
		for (unsigned i = 0; i < pushed[who]; i++) missing += !seen[who][i];
	wrong |= missing != 0 && !(killed && a_pops && missing <= 3);
	if (!wrong) return;
	fprintf(stderr, "%s, stopped after instruction %llu%s:", pair->name, (unsigned long long)point,
	        killed ? ", and killed" : "");
	for (unsigned i = 0; i < is.count; i++) fprintf(stderr, " %llu", (unsigned long long)is.value[i]);
	fprintf(stderr, " have come; A: %lld\n", (long long)report->result);
	fail();
}

static void one_stands_still(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		const struct pair *pair = &pairs[i];
		const struct op op = {.name = pair->name, .run = pair->a};
		struct list before;
		if (getenv("HP_STEP_ONLY") && !strstr(pair->name, getenv("HP_STEP_ONLY"))) continue;
		hp_fifo *fifo = fresh(pair->flags, 3, &before);
		find_points(fifo, &op, fifo->shared, PAGE);
		drained(fifo);
		over(fifo);
		for (unsigned k = 0; k < point_count * 2; k++) {
			bool killed = k % 2;
			fifo = fresh(pair->flags, 3, &before);
			pid_t pid = stop_at(fifo, &op, points[k / 2]);
			bool done = atomic_load(&report->done);
			b_got.count = 0;
			b_result = pair->b(fifo);
			must(b_result >= 0 || (b_result == -EAGAIN && pair->a == push_three)); /* it may find no room */
			if (killed)
				end(pid);
			else
				go_on(pid);
			sum_up(pair, points[k / 2], &before, drained(fifo), killed && !done);
			over(fifo);
		}
	}
}

/* ---- waking ---- */

static void who_waits_is_served(void **state)
{
	(void)state;
	static const struct op op = {.name = "push while one waits", .run = push_one};
	for (unsigned round = 0, count = 1; round < count; round++) {
		struct list before;
		hp_fifo *fifo = fresh(MP | MC, 3, &before);
		drained(fifo);
		pid_t waiter = hp_fork();
		if (waiter == 0) {
			uint64_t got;
			_exit(hp_fifo_pop_timed(another(fifo), &got, 1, UINT64_C(20000000000)) == 1 ? 0 : 1);
		}
		while (!atomic_load(&fifo->shared->pop_flags)) sched_yield();
		if (round == 0) {
			find_points(fifo, &op, fifo->shared, PAGE);
			count = point_count;
			/* that one has served him */
		} else {
			uint64_t value = 1, head = atomic_load(&fifo->shared->head.a);
			end(stop_at(fifo, &op, points[round]));
			if (atomic_load(&fifo->shared->head.a) == head) must_be(hp_fifo_push(fifo, &value), 0);
		}
		must_be(hp_wait_for(waiter), 0);
		over(fifo);
	}
}

int main(void)
{
	cpu_set_t set, one;
	if (!FIFO_HAS_PAIRS) hp_test_skip("this processor has no compare-and-swap of 16 bytes");
	step_need_ptrace();
	/* a tracer and its tracee take turns */
	sched_getaffinity(0, sizeof set, &set);
	CPU_ZERO(&one);
	for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--)
		if (CPU_ISSET(cpu, &set) && !CPU_COUNT(&one)) CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof one, &one);
	pool = hp_plain_pool(MIB, HP_POOL_NO_AUTOGROW);
	report = hp_shared(sizeof *report);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deaths),
		cmocka_unit_test(deaths_in_making_and_ending),
		cmocka_unit_test(one_stands_still),
		cmocka_unit_test(who_waits_is_served),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (!failed) hp_must_be_empty(pool);
	hp_pool_detach(pool);
	return failed;
}
