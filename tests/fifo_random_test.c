/* Fifos beside a model: random operations through several handles, on a fifo of random kind, size and capacity; the model is a queue,
 * and what each handle has taken. With many consumers what is handed back comes sooner or later, and for the rest order
 * is what the queue says. */
#include "hp_page.h"
#include "fifo/fifo.h"

#define HANDLES 4
#define MAX_CAPACITY 64u
#define STEPS (HP_TEST_SANITIZER ? 4000u : 40000u)
#define ROUNDS 24u

struct model {
	uint64_t queue[MAX_CAPACITY], count;
	/* with many consumers: batches handed back, each as it was taken, first one first */
	struct batch {
		uint64_t value[HP_FIFO_TAKE_MAX], count;
	} back[HANDLES + 1];
	unsigned backs;
	struct batch taken[HANDLES];
	uint64_t asked[HANDLES]; /* of an adopted batch, how many the handle has seen */
};

struct run {
	hp_pool *pool;
	hp_fifo *handle[HANDLES];
	hp_off id;
	unsigned flags, words;
	uint64_t capacity, next, random;
	struct model model;
};

static void fill(const struct run *run, uint64_t *words, uint64_t value)
{
	for (unsigned k = 0; k < run->words; k++) words[k] = value * 10 + k;
}

static uint64_t value_of(const struct run *run, const uint64_t *words)
{
	for (unsigned k = 0; k < run->words; k++) must_be(words[k], words[0] + k);
	return words[0] / 10;
}

static void drop_front(uint64_t *value, uint64_t *count, uint64_t n)
{
	memmove(value, value + n, (*count - n) * sizeof *value);
	*count -= n;
}

/* One consumer: what is taken lies in the queue still. */
static uint64_t in_the_way(const struct run *run)
{
	uint64_t sum = 0;
	if (!(run->flags & HP_FIFO_MC))
		for (unsigned i = 0; i < HANDLES; i++) sum += run->model.taken[i].count;
	return sum;
}

static void pushes(struct run *run, hp_fifo *fifo)
{
	uint64_t words[80 * 8], n = 1 + hp_below(&run->random, hp_below(&run->random, 4) ? 8 : 80);
	uint64_t room = run->capacity - run->model.count;
	for (uint64_t i = 0; i < n; i++) fill(run, words + i * run->words, run->next + i);
	uint64_t done;
	switch (hp_below(&run->random, 3)) {
	case 0:
		done = n > run->capacity ? 0 : room >= n ? n : 0;
		must_be(hp_fifo_push_bulk(fifo, words, n), done ? 0 : n > run->capacity ? -EINVAL : -EAGAIN);
		break;
	case 1:
		done = n < room ? n : room;
		must_be(hp_fifo_push_burst(fifo, words, n), done);
		break;
	default: done = room > 0; must_be(hp_fifo_push(fifo, words), done ? 0 : -EAGAIN);
	}
	for (uint64_t i = 0; i < done; i++) run->model.queue[run->model.count++] = run->next++;
}

static void must_be_values(const struct run *run, const uint64_t *words, const uint64_t *value, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) must_be(value_of(run, words + i * run->words), value[i]);
}

static void remove_back(struct model *model, unsigned i)
{
	memmove(&model->back[i], &model->back[i + 1], (--model->backs - i) * sizeof *model->back);
}

/* The batch among those handed back that begins with that value, or -1. */
static int find_back(const struct run *run, uint64_t value)
{
	for (unsigned i = 0; i < run->model.backs; i++)
		if (run->model.back[i].value[0] == value) return (int)i;
	return -1;
}

static void pops(struct run *run, hp_fifo *fifo, unsigned who)
{
	struct model *model = &run->model;
	uint64_t words[80 * 8], n = 1 + hp_below(&run->random, hp_below(&run->random, 4) ? 8 : 80);
	if (model->taken[who].count) {
		must_be(hp_fifo_pop_burst(fifo, words, n), -EBUSY);
		return;
	}
	if (!(run->flags & HP_FIFO_MC) && in_the_way(run)) return; /* another consumer is at work */
	bool bulk = hp_below(&run->random, 2) && n <= run->capacity;
	int64_t got;
	if (bulk) {
		int error = hp_fifo_pop_bulk(fifo, words, n);
		must(error == 0 || error == -EAGAIN);
		got = error ? 0 : (int64_t)n;
	} else {
		got = hp_fifo_pop_burst(fifo, words, n);
	}
	must(got >= 0 && (uint64_t)got <= n);
	if (got == 0) {
		must(bulk ? model->count < n : model->count == 0);
		for (unsigned i = 0; i < model->backs; i++) must(bulk && model->back[i].count < n);
		return;
	}
	int back = find_back(run, value_of(run, words));
	struct batch *batch = back < 0 ? NULL : &model->back[back];
	uint64_t there = batch ? batch->count : model->count;
	must_be(got, n < there ? n : there);
	must_be_values(run, words, batch ? batch->value : model->queue, (uint64_t)got);
	if (batch) {
		drop_front(batch->value, &batch->count, (uint64_t)got);
		if (batch->count == 0) remove_back(model, (unsigned)back);
	} else {
		drop_front(model->queue, &model->count, (uint64_t)got);
	}
}

static void takes(struct run *run, hp_fifo *fifo, unsigned who)
{
	struct model *model = &run->model;
	struct batch *mine = &model->taken[who];
	uint64_t words[80 * 8], n = 1 + hp_below(&run->random, 80);
	if (run->flags & HP_FIFO_MC) {
		int64_t got = hp_fifo_take(fifo, words, n);
		if (mine->count) {
			must_be(got, -EBUSY);
			return;
		}
		if (n > HP_FIFO_TAKE_MAX) n = HP_FIFO_TAKE_MAX;
		if (model->backs) { /* that comes first */
			must(got > 0);
			int back = find_back(run, value_of(run, words));
			must(back >= 0);
			*mine = model->back[back];
			remove_back(model, (unsigned)back);
			model->asked[who] = n < mine->count ? n : mine->count;
		} else {
			mine->count = model->asked[who] = n < model->count ? n : model->count;
			memcpy(mine->value, model->queue, mine->count * 8);
			drop_front(model->queue, &model->count, mine->count);
		}
		must_be(got, model->asked[who]);
		must_be_values(run, words, mine->value, (uint64_t)got);
		return;
	}
	uint64_t before = in_the_way(run), there = model->count - before;
	if (before != mine->count) return;
	if (n > there) n = there;
	must_be(hp_fifo_take(fifo, words, n), n);
	must_be_values(run, words, model->queue + before, n);
	mine->count += n;
	model->asked[who] = mine->count;
}

static void hand_back(struct run *run, unsigned who)
{
	struct model *model = &run->model;
	if (run->flags & HP_FIFO_MC && model->taken[who].count) model->back[model->backs++] = model->taken[who];
	model->taken[who].count = model->asked[who] = 0;
}

static void acks(struct run *run, hp_fifo *fifo, unsigned who)
{
	struct model *model = &run->model;
	struct batch *mine = &model->taken[who];
	uint64_t n = hp_below(&run->random, model->asked[who] + 2);
	if (n > model->asked[who]) {
		must_be(hp_fifo_ack(fifo, n), -EINVAL);
		return;
	}
	must_be(hp_fifo_ack(fifo, n), 0);
	if (run->flags & HP_FIFO_MC)
		drop_front(mine->value, &mine->count, n);
	else {
		drop_front(model->queue, &model->count, n);
		mine->count -= n;
	}
	model->asked[who] -= n;
	if (n && model->asked[who] == 0) hand_back(run, who); /* the rest of an adopted batch */
}

/* What a handle sees and leaves: what would come next, but for what the dead and those who handed back have left. */
static void peeks(struct run *run, unsigned who)
{
	const struct model *model = &run->model;
	uint64_t words[80 * 8], n = hp_below(&run->random, 81);
	uint64_t from = run->flags & HP_FIFO_MC ? 0 : model->taken[who].count, there = model->count - from;
	int64_t got = hp_fifo_peek(run->handle[who], words, n);
	must_be(got, n < there ? n : there);
	must_be_values(run, words, model->queue + from, (uint64_t)got);
	must_be(hp_fifo_pushed(run->handle[who]), run->next);
	must_be(hp_fifo_popped(run->handle[who]), run->next - model->count);
}

static void step(struct run *run)
{
	unsigned who = (unsigned)hp_below(&run->random, HANDLES);
	hp_fifo *fifo = run->handle[who];
	switch (hp_below(&run->random, 12)) {
	case 0:
	case 1:
	case 2:
	case 3: pushes(run, fifo); break;
	case 4:
	case 5:
	case 6: pops(run, fifo, who); break;
	case 7:
	case 8: takes(run, fifo, who); break;
	case 9: acks(run, fifo, who); break;
	case 10:
		must_be(hp_fifo_nack(fifo), 0);
		hand_back(run, who);
		break;
	default:
		if (hp_below(&run->random, 8)) break;
		must_be(hp_fifo_destroy(fifo, 0), -EBUSY);
		hp_fifo_close(fifo);
		hand_back(run, who);
		must_be(hp_fifo_open(run->pool, run->id, &run->handle[who]), 0);
	}
	uint64_t count = run->model.count - in_the_way(run);
	for (unsigned i = 0; i < run->model.backs; i++) count += run->model.back[i].count;
	unsigned asker = (unsigned)hp_below(&run->random, HANDLES);
	/* a handle that holds nothing does not know what another, that is alone, has taken */
	if (run->flags & HP_FIFO_MC || in_the_way(run) == run->model.taken[asker].count)
		must_be(hp_fifo_count(run->handle[asker]), count);
	must_be(hp_fifo_room(run->handle[asker]), run->capacity - run->model.count);
	peeks(run, asker);
}

static void one_round(uint64_t seed, unsigned round)
{
	struct run *run = calloc(1, sizeof *run);
	must(run);
	run->random = seed + round * UINT64_C(0x1234567);
	run->pool = hp_plain_pool(4 * MIB, 0);
	run->flags = round % 4;
	run->words = 1 + (unsigned)hp_below(&run->random, 8);
	run->capacity = UINT64_C(1) << hp_below(&run->random, 7);
	struct hp_fifo_options options = {.struct_size = sizeof options,
	                                  .capacity = run->capacity,
	                                  .element = run->words * 8,
	                                  .handles = HANDLES,
	                                  .flags = run->flags};
	must_be(hp_fifo_create(run->pool, &options, &run->handle[0]), 0);
	run->id = hp_fifo_id(run->handle[0]);
	for (unsigned i = 1; i < HANDLES; i++) must_be(hp_fifo_open(run->pool, run->id, &run->handle[i]), 0);
	for (unsigned i = 0; i < STEPS / ROUNDS * 4; i++) step(run);
	for (unsigned i = 1; i < HANDLES; i++) hp_fifo_close(run->handle[i]);
	must_be(hp_fifo_destroy(run->handle[0], HP_FIFO_DISCARD), 0);
	hp_must_be_empty(run->pool);
	must_be(hp_pool_detach(run->pool), 0);
	free(run);
}

static void as_the_model(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("fifo_random");
	for (unsigned round = 0; round < ROUNDS; round++) one_round(seed, round);
}

int main(void)
{
	if (!FIFO_HAS_PAIRS) hp_test_skip("this processor has no compare-and-swap of 16 bytes");
	const struct CMUnitTest tests[] = {cmocka_unit_test(as_the_model)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
