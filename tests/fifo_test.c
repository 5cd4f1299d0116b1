/* Fifos: order and number of what comes out, in all four kinds and sizes; calls that take all, or what there is; taking and
 * acknowledging, by those who die in between, too; waiting, and eventfds; who may open, and when it can be ended; and offsets and
 * words that make no sense. */
#include "hp_process.h"
#include "fifo/fifo.h"
#include <pthread.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>

#define SIZE (4 * MIB)
#define LONG_NS (UINT64_C(60) * 1000000000u)
#define KINDS 4u /* of flags */

static hp_fifo *make(hp_pool *pool, uint64_t capacity, unsigned element, unsigned flags)
{
	struct hp_fifo_options options = {
		.struct_size = sizeof options, .capacity = capacity, .element = element, .flags = flags, .handles = 8};
	hp_fifo *fifo;
	must_be(hp_fifo_create(pool, &options, &fifo), 0);
	return fifo;
}

static hp_fifo *again(hp_pool *pool, const hp_fifo *fifo)
{
	hp_fifo *other;
	must_be(hp_fifo_open(pool, hp_fifo_id(fifo), &other), 0);
	return other;
}

static void over(hp_pool *pool, hp_fifo *fifo)
{
	must_be(hp_fifo_destroy(fifo, 0), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void push(hp_fifo *fifo, uint64_t value)
{
	must_be(hp_fifo_push(fifo, &value), 0);
}

static void must_pop(hp_fifo *fifo, uint64_t value)
{
	uint64_t got;
	must_be(hp_fifo_pop(fifo, &got), 0);
	must_be(got, value);
}

struct scene {
	hp_pool *pool;
	hp_off id;
	unsigned handles;
};

static void options_that_make_no_sense(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	const struct hp_fifo_options wrong[] = {
		{.struct_size = sizeof *wrong},
		{.struct_size = sizeof *wrong, .capacity = 3},
		{.struct_size = sizeof *wrong, .capacity = UINT64_C(1) << 33},
		{.struct_size = sizeof *wrong, .capacity = 8, .element = 12},
		{.struct_size = sizeof *wrong, .capacity = 8, .element = 72},
		{.struct_size = sizeof *wrong, .capacity = 8, .flags = 4},
		{.struct_size = sizeof *wrong, .capacity = 8, .handles = 1025},
		{.struct_size = 8, .capacity = 8},
	};
	hp_fifo *fifo = NULL;
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		must_be(hp_fifo_create(pool, &wrong[i], &fifo), -EINVAL);
		must(!fifo);
	}
	must_be(hp_fifo_create(pool, NULL, &fifo), -EINVAL);
	struct hp_fifo_options large = {.struct_size = sizeof large, .capacity = UINT64_C(1) << 32};
	must_be(hp_fifo_create(pool, &large, &fifo), -ENOMEM);
	large.capacity = 1 << 18; /* half of the pool, and then there is no other half in one piece */
	must_be(hp_fifo_create(pool, &large, &fifo), 0);
	hp_fifo *second;
	large.flags = HP_FIFO_MP;
	must_be(hp_fifo_create(pool, &large, &second), -ENOMEM);
	over(pool, fifo);
}

static void comes_out_as_it_went_in(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++)
		for (unsigned words = 1; words <= 8; words++) {
			hp_pool *pool = hp_plain_pool(SIZE, flags & 1 ? HP_POOL_FENCED : 0);
			hp_fifo *fifo = make(pool, 8, words * 8, flags), *other = again(pool, fifo);
			uint64_t in = 0, out = 0, burst[13 * 8];
			must_be(hp_fifo_pop(other, burst), -EAGAIN);
			for (unsigned lap = 0; lap < 40; lap++) {
				for (unsigned i = 0; i < 13 * words; i++) burst[i] = in + i / words + (uint64_t)(i % words) * 1000000;
				uint64_t room = hp_fifo_room(fifo), n = 1 + lap % 13;
				int64_t pushed = hp_fifo_push_burst(fifo, burst, n);
				must_be(pushed, n < room ? n : room);
				in += (uint64_t)pushed;
				must_be(hp_fifo_count(other), in - out);
				if (in - out == 8) must_be(hp_fifo_push(fifo, burst), -EAGAIN);
				memset(burst, 0xff, sizeof burst);
				int64_t popped = hp_fifo_pop_burst(lap % 3 ? other : fifo, burst, 1 + lap * 7 % 11);
				must(popped > 0 && (uint64_t)popped <= in - out);
				for (unsigned i = 0; i < (unsigned)popped * words; i++)
					must_be(burst[i], out + i / words + (uint64_t)(i % words) * 1000000);
				out += (uint64_t)popped;
			}
			while (hp_fifo_pop(other, burst) == 0) must_be(burst[0], out++);
			must_be(out, in);
			hp_fifo_close(other);
			over(pool, fifo);
		}
}

static void bulk_is_all_or_nothing(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++) {
		hp_pool *pool = hp_plain_pool(SIZE, 0);
		hp_fifo *fifo = make(pool, 8, 0, flags);
		const uint64_t five[] = {1, 2, 3, 4, 5};
		uint64_t got[8] = {0};
		must_be(hp_fifo_push_bulk(fifo, five, 9), -EINVAL);
		must_be(hp_fifo_pop_bulk(fifo, got, 9), -EINVAL);
		must_be(hp_fifo_push_bulk(fifo, five, 0), 0);
		must_be(hp_fifo_pop_bulk(fifo, got, 1), -EAGAIN);
		must_be(hp_fifo_push_bulk(fifo, five, 5), 0);
		must_be(hp_fifo_push_bulk(fifo, five, 5), -EAGAIN);
		must_be(hp_fifo_count(fifo), 5);
		must_be(hp_fifo_pop_bulk(fifo, got, 6), -EAGAIN);
		must_be(got[0], 0);
		must_be(hp_fifo_push_bulk(fifo, five, 3), 0);
		must_be(hp_fifo_pop_bulk(fifo, got, 8), 0);
		must_be(got[4], 5);
		must_be(got[7], 3);
		must_be(hp_fifo_pop_burst(fifo, got, 8), 0);
		over(pool, fifo);
	}
}

static void stager(const struct child *me, void *arg)
{
	struct scene *scene = arg;
	hp_fifo *fifo;
	const uint64_t value[] = {1, 2, 3, 4, 5};
	must_be(hp_fifo_open(scene->pool, scene->id, &fifo), 0);
	must_be(hp_fifo_stage(fifo, 0, value, 2), 0);
	must_be(hp_fifo_stage(fifo, 2, value + 2, 3), 0);
	must_be(hp_fifo_publish(fifo, 1), 0);
	child_here(me);
}

/* A successor publishes what a dead one has staged. */
static void staged_is_seen_when_published(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++) {
		hp_pool *pool = hp_plain_pool(SIZE, 0);
		hp_fifo *fifo = make(pool, 8, 0, flags);
		uint64_t got[8];
		if (flags & HP_FIFO_MP) {
			must_be(hp_fifo_stage(fifo, 0, got, 1), -ENOTSUP);
			must_be(hp_fifo_publish(fifo, 1), -ENOTSUP);
			over(pool, fifo);
			continue;
		}
		for (uint64_t i = 0; i < 6; i++) { /* over the end of a lap */
			push(fifo, i);
			must_pop(fifo, i);
		}
		struct scene scene = {.pool = pool, .id = hp_fifo_id(fifo)};
		struct child child = child_start(stager, &scene);
		must(child_hear(&child));
		child_kill(&child);
		must_be(hp_fifo_count(fifo), 1);
		must_be(hp_fifo_publish(fifo, 8), -EINVAL);
		must_be(hp_fifo_stage(fifo, 0, got, 8), -EAGAIN);
		must_be(hp_fifo_stage(fifo, 1, got, 8), -EINVAL);
		must_be(hp_fifo_stage(fifo, UINT64_MAX, got, 1), -EINVAL);
		must_be(hp_fifo_publish(fifo, 0), 0);
		must_be(hp_fifo_publish(fifo, 4), 0);
		must_be(hp_fifo_pop_burst(fifo, got, 8), 5);
		for (uint64_t i = 0; i < 5; i++) must_be(got[i], i + 1);
		over(pool, fifo);
	}
}

/* A stage between two fifos, with a note of how many it has dealt with in all; it dies after so many of its steps. */
struct stage {
	hp_fifo *in, *out;
	_Atomic uint64_t *note;
	unsigned steps;
};

#define STAGE_STEPS 5u

static int passes_three_on(void *arg)
{
	const struct stage *stage = arg;
	uint64_t element[3];
	if (stage->steps > 0) must_be(hp_fifo_take(stage->in, element, 3), 3);
	if (stage->steps > 1) must_be(hp_fifo_stage(stage->out, 0, element, 3), 0);
	if (stage->steps > 2) *stage->note += 3;
	if (stage->steps > 3) must_be(hp_fifo_publish(stage->out, 3), 0);
	if (stage->steps > 4) must_be(hp_fifo_ack(stage->in, 3), 0);
	return raise(SIGKILL);
}

/* Every element comes out once, whenever the stage dies: its successor goes by the note. The stage uses its parent's handles. */
static void a_successor_goes_by_its_note(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	struct stage stage = {.in = make(pool, 8, 0, 0), .out = make(pool, 4, 0, 0)};
	void *note;
	must_be(hp_page_alloc(pool, PAGE, HP_PAGE_ZERO, &note), 0);
	stage.note = note;
	uint64_t next = 0, last = 0, got[3];
	for (unsigned lap = 0; lap < 4 * (STAGE_STEPS + 1); lap++) {
		while (hp_fifo_count(stage.in) < 8) push(stage.in, next++);
		stage.steps = lap % (STAGE_STEPS + 1);
		must_be(hp_test_child(passes_three_on, &stage), 128 + SIGKILL);
		must_be(hp_fifo_publish(stage.out, *stage.note - hp_fifo_pushed(stage.out)), 0);
		uint64_t behind = *stage.note - hp_fifo_popped(stage.in);
		must_be(hp_fifo_take(stage.in, got, behind), behind);
		must_be(hp_fifo_ack(stage.in, behind), 0);
		must_be(hp_fifo_pushed(stage.in), next);
		must_be(hp_fifo_count(stage.out), stage.steps > 2 ? 3 : 0);
		while (hp_fifo_pop(stage.out, got) == 0) must_be(got[0], last++);
		must_be(hp_fifo_popped(stage.out), last);
		must_be(last, *stage.note);
	}
	must_be(last, 4 * 3 * 3);
	must_be(hp_fifo_destroy(stage.in, HP_FIFO_DISCARD), 0);
	must_be(hp_page_free(pool, note), 0);
	over(pool, stage.out);
}

static void a_look_takes_nothing(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++) {
		bool many = flags & HP_FIFO_MC;
		hp_pool *pool = hp_plain_pool(SIZE, 0);
		hp_fifo *fifo = make(pool, 4, 0, flags), *other = again(pool, fifo);
		uint64_t got[8];
		must_be(hp_fifo_peek(other, got, 8), 0);
		for (uint64_t in = 0, out = 0; out < 30; out += 2) {
			while (hp_fifo_room(fifo)) push(fifo, in++);
			must_be(hp_fifo_peek(other, got, 0), 0);
			must_be(hp_fifo_peek(other, got, 3), 3);
			must_be(hp_fifo_peek(fifo, got, 8), 4);
			for (unsigned i = 0; i < 4; i++) must_be(got[i], out + i);
			must_be(hp_fifo_take(fifo, got, 1), 1); /* with one consumer it stays where it is */
			must_be(hp_fifo_peek(other, got, 8), many ? 3 : 4);
			must_be(got[0], many ? out + 1 : out);
			must_be(hp_fifo_peek(fifo, got, 8), 3);
			must_be(got[0], out + 1);
			must_be(hp_fifo_ack(fifo, 1), 0);
			must_pop(fifo, out + 1);
			must_be(hp_fifo_pushed(other), in);
			must_be(hp_fifo_popped(other), out + 2);
		}
		while (hp_fifo_pop(fifo, got) == 0) {}
		hp_fifo_close(other);
		over(pool, fifo);
	}
}

static void taken_stays_until_acknowledged(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++) {
		bool many = flags & HP_FIFO_MC;
		hp_pool *pool = hp_plain_pool(SIZE, 0);
		hp_fifo *fifo = make(pool, 8, 16, flags);
		uint64_t element[2] = {0}, got[16];
		for (uint64_t i = 0; i < 6; i++) {
			element[0] = i;
			must_be(hp_fifo_push(fifo, element), 0);
		}
		must_be(hp_fifo_take(fifo, got, 2), 2);
		must_be(got[2], 1);
		must_be(hp_fifo_pop(fifo, got), -EBUSY);
		must_be(hp_fifo_destroy(fifo, 0), -ENOTEMPTY);
		must_be(hp_fifo_take(fifo, got, 2), many ? -EBUSY : 2);
		if (!many) must_be(got[0], 2);
		must_be(hp_fifo_ack(fifo, 5), -EINVAL);
		must_be(hp_fifo_ack(fifo, 1), 0);
		must_be(hp_fifo_nack(fifo), 0);
		must_be(hp_fifo_nack(fifo), 0);
		must_be(hp_fifo_count(fifo), 5);
		must_be(hp_fifo_take(fifo, got, 1), 1); /* what was handed back comes first */
		must_be(got[0], 1);
		must_be(hp_fifo_ack(fifo, 1), 0);
		must_be(hp_fifo_take(fifo, got, 8), 4);
		must_be(got[6], 5);
		must_be(hp_fifo_ack(fifo, 4), 0);
		must_be(hp_fifo_take(fifo, got, 8), 0);
		must_be(hp_fifo_ack(fifo, 1), -EINVAL);
		over(pool, fifo);
	}
}

/* What a closed handle had taken, and what was taken and is more than a successor asks for. */
static void taken_goes_back_with_its_handle(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	hp_fifo *fifo = make(pool, 16, 0, HP_FIFO_MC), *other = again(pool, fifo);
	uint64_t got[8];
	for (uint64_t i = 0; i < 8; i++) push(fifo, i);
	must_be(hp_fifo_take(other, got, 6), 6);
	must_be(hp_fifo_ack(other, 1), 0);
	must_be(hp_fifo_count(fifo), 2);
	hp_fifo_close(other);
	must_be(hp_fifo_count(fifo), 7);
	must_be(hp_fifo_take(fifo, got, 2), 2);
	must_be(got[0], 1);
	must_be(got[1], 2);
	must_be(hp_fifo_ack(fifo, 2), 0);
	must_pop(fifo, 6);
	must_pop(fifo, 7);
	must_be(hp_fifo_pop_bulk(fifo, got, 3), 0);
	must_be(got[0], 3);
	must_be(got[2], 5);
	over(pool, fifo);
}

static void taker(const struct child *me, void *arg)
{
	struct scene *scene = arg;
	hp_fifo *fifo;
	uint64_t got[3];
	must_be(hp_fifo_open(scene->pool, scene->id, &fifo), 0);
	must_be(hp_fifo_take(fifo, got, 3), 3);
	must_be(hp_fifo_ack(fifo, 1), 0);
	child_here(me);
}

static void dead_takers_leave_it_to_others(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++) {
		hp_pool *pool = hp_plain_pool(SIZE, 0);
		hp_fifo *fifo = make(pool, 8, 0, flags);
		struct scene scene = {.pool = pool, .id = hp_fifo_id(fifo)};
		for (uint64_t i = 0; i < 4; i++) push(fifo, i);
		struct child child = child_start(taker, &scene);
		must(child_hear(&child));
		must_be(hp_fifo_count(fifo), flags & HP_FIFO_MC ? 1 : 3);
		must_be(hp_fifo_destroy(fifo, HP_FIFO_DISCARD), -EBUSY);
		child_kill(&child);
		must_be(hp_fifo_count(fifo), 3);
		uint64_t got, sum = 0;
		must_be(hp_fifo_destroy(fifo, 0), -ENOTEMPTY); /* which has put the dead one's affairs in order */
		while (hp_fifo_pop(fifo, &got) == 0) sum += 10 + got;
		must_be(sum, 36);
		over(pool, fifo);
	}
}

/* Who gets the dead one's place does not get what he had taken. */
static void who_takes_a_dead_ones_place(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	struct hp_fifo_options options = {.struct_size = sizeof options, .capacity = 8, .flags = HP_FIFO_MC, .handles = 2};
	hp_fifo *fifo;
	must_be(hp_fifo_create(pool, &options, &fifo), 0);
	struct scene scene = {.pool = pool, .id = hp_fifo_id(fifo)};
	for (uint64_t i = 0; i < 3; i++) push(fifo, i);
	struct child child = child_start(taker, &scene);
	must(child_hear(&child));
	child_kill(&child);
	hp_fifo *successor = again(pool, fifo);
	must_be(hp_fifo_count(fifo), 2);
	must_be(hp_fifo_count(successor), 2);
	must_pop(fifo, 1);
	must_pop(successor, 2);
	hp_fifo_close(successor);
	over(pool, fifo);
}

static void opener(const struct child *me, void *arg)
{
	struct scene *scene = arg;
	hp_fifo *fifo;
	for (unsigned i = 0; i < scene->handles; i++) must_be(hp_fifo_open(scene->pool, scene->id, &fifo), 0);
	must_be(hp_fifo_open(scene->pool, scene->id, &fifo), -EUSERS);
	child_here(me);
}

static void the_dead_do_not_have_it_open(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	hp_fifo *fifo = make(pool, 8, 0, HP_FIFO_MC), *other = again(pool, fifo);
	struct scene scene = {.pool = pool, .id = hp_fifo_id(fifo), .handles = 6};
	must_be(hp_fifo_destroy(fifo, 0), -EBUSY);
	struct child child = child_start(opener, &scene);
	must(child_hear(&child));
	hp_fifo *none;
	must_be(hp_fifo_open(pool, scene.id, &none), -EUSERS);
	child_kill(&child);
	for (unsigned i = 0; i < 3; i++) hp_fifo_close(again(pool, fifo));
	hp_fifo_close(other);
	over(pool, fifo);
	hp_fifo_close(NULL);
}

/* The child of a fork pushes and pops with what it has inherited; closing that leaves its parent's cell alone. */
static int child_uses_it(void *arg)
{
	hp_fifo *fifo = arg;
	uint64_t got;
	push(fifo, 7);
	must_be(hp_fifo_pop(fifo, &got), 0);
	push(fifo, got + 1);
	must_be(hp_fifo_take(fifo, &got, 1), fifo->flags & HP_FIFO_MC ? -ESTALE : 1);
	must_be(hp_fifo_destroy(fifo, 0), -ESTALE);
	hp_fifo_close(fifo);
	return 0;
}

static void a_forked_child_goes_on(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++) {
		hp_pool *pool = hp_plain_pool(SIZE, 0);
		hp_fifo *fifo = make(pool, 2, 0, flags);
		push(fifo, 1);
		must_be(hp_test_child(child_uses_it, fifo), 0);
		must_pop(fifo, 7);
		must_pop(fifo, 2);
		hp_fifo *other = again(pool, fifo);
		must_be(hp_fifo_destroy(other, 0), -EBUSY);
		hp_fifo_close(other);
		over(pool, fifo);
	}
}

/* ---- what is no fifo ---- */

static void wrong_offsets_are_refused(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	hp_fifo *fifo = make(pool, 512, 0, 0), *other;
	hp_off id = hp_fifo_id(fifo);
	void *block;
	must_be(hp_page_alloc(pool, PAGE, 0, &block), 0);
	memcpy(block, fifo->shared, PAGE); /* looks like one */
	must_be(hp_fifo_open(pool, hp_pool_offset(pool, block), &other), -ESTALE);
	must_be(hp_fifo_open(pool, id + 8, &other), -EINVAL);
	must_be(hp_fifo_open(pool, SIZE, &other), -EINVAL);
	must_be(hp_fifo_open(pool, HP_OFF_NONE, &other), -EINVAL);
	must_be(hp_fifo_open(pool, id + PAGE, &other), -ESTALE);
	must_be(hp_page_free_at(pool, id), -ENOENT);
	must(hp_page_size_at(pool, id) < 0);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_fifo_destroy(fifo, 0), 0);
	must_be(hp_fifo_open(pool, id, &other), -ESTALE);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void wrong_shapes_are_refused(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	hp_fifo *fifo = make(pool, 256, 0, HP_FIFO_MP), *other;
	struct fifo_shared *shared = fifo->shared;
	hp_off id = hp_fifo_id(fifo);
#define REFUSED(member, value) \
	do { \
		__typeof__(shared->member) was_ = shared->member; \
		shared->member = (value); \
		must_be(hp_fifo_open(pool, id, &other), -EINVAL); \
		shared->member = was_; \
	} while (0)
	REFUSED(magic, 1);
	REFUSED(capacity, 0);
	REFUSED(capacity, 255);
	REFUSED(capacity, UINT64_C(1) << 32);
	REFUSED(capacity, UINT64_C(1) << 63);
	REFUSED(capacity, 1024);
	REFUSED(words, 0);
	REFUSED(words, 8);
	REFUSED(words, 9);
	REFUSED(flags, 0xff);
	REFUSED(handles, 0);
	REFUSED(handles, 1025);
	/* what is being ended is refused; what a dead one was ending is not */
	atomic_store(&shared->state, fifo->owner << 8 | FIFO_ENDING);
	must_be(hp_fifo_open(pool, id, &other), -EBUSY);
	must_be(hp_fifo_destroy(fifo, 0), -EBUSY);
	atomic_store(&shared->state, (fifo->owner + 5) << 8 | FIFO_ENDING);
	must_be(hp_fifo_open(pool, id, &other), 0);
	hp_fifo_close(other);
	over(pool, fifo);
}

/* Positions that cannot be: nothing comes out, nothing goes in, nothing is read outside. */
static void wrong_positions_are_not_believed(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++) {
		hp_pool *pool = hp_plain_pool(SIZE, 0);
		hp_fifo *fifo = make(pool, 8, 0, flags);
		uint64_t got[80];
		atomic_store(&fifo->shared->head.a, 9);
		must_be(hp_fifo_pop_burst(fifo, got, 80), 0);
		must_be(hp_fifo_push(fifo, got), -EAGAIN);
		must_be(hp_fifo_take(fifo, got, 80), 0);
		must_be(hp_fifo_peek(fifo, got, 80), 0);
		must_be(hp_fifo_room(fifo), 0);
		atomic_store(&fifo->shared->head.a, UINT64_MAX - 3);
		must_be(hp_fifo_pop_burst(fifo, got, 80), 0);
		atomic_store(&fifo->shared->head.a, 0);
		atomic_store(&fifo->shared->tail.a, 1);
		fifo->tail_seen = 1;
		must_be(hp_fifo_push_burst(fifo, got, 80), 0);
		must_be(hp_fifo_pop_burst(fifo, got, 80), 0);
		atomic_store(&fifo->shared->tail.a, 0);
		if (flags & HP_FIFO_MC) {
			atomic_store(&fifo->shared->takes, 1);
			atomic_store(&fifo->holds[3], hold_make(9, 0xabc, 127, 3, HOLD_TAKEN));
			must_be(hp_fifo_pop_burst(fifo, got, 80), 0);
			atomic_store(&fifo->shared->tail.b, UINT64_MAX);
			fifo->tail_seen = 0;
			push(fifo, 1);
			must_pop(fifo, 1);
			atomic_store(&fifo->holds[3], 0);
		}
		must_be(hp_fifo_destroy(fifo, HP_FIFO_DISCARD), 0);
		hp_must_be_empty(pool);
		must_be(hp_pool_detach(pool), 0);
	}
}

/* ---- those who stand still ---- */

/* A producer that has claimed, and written some of what it wants to push, and does not go on. */
static void a_claim_does_not_keep_others(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	hp_fifo *fifo = make(pool, 4, 0, HP_FIFO_MP | HP_FIFO_MC);
	uint64_t got[4];
	for (uint64_t lap = 0; lap < 9; lap++) {
		struct fifo_pair *head = &fifo->shared->head;
		uint64_t claim = atomic_load(&head->b);
		must_be(claim & 1, 0);
		must(pair_swap(head, lap, claim, lap, claim + 1));
		struct fifo_pair *entry = fifo_entry(fifo, lap);
		uint64_t tag = atomic_load(&entry->a), word = atomic_load(&entry->b);
		must(pair_swap(entry, tag, word, claim + 1, 666));
		must_be(hp_fifo_pop(fifo, got), -EAGAIN);
		push(fifo, lap);
		/* it wakes up: nothing that it does has an effect */
		must(!pair_swap(entry, claim + 1, 666, claim + 1, 667));
		must(!pair_swap(head, lap, claim + 1, lap + 1, claim + 2));
		must_pop(fifo, lap);
	}
	over(pool, fifo);
}

/* A taker that was killed right after its commit: whoever comes next knows. */
static void a_taker_that_was_not_confirmed(void **state)
{
	(void)state;
	for (unsigned committed = 0; committed < 3; committed++) {
		hp_pool *pool = hp_plain_pool(SIZE, 0);
		hp_fifo *fifo = make(pool, 4, 0, HP_FIFO_MC);
		for (uint64_t i = 1; i <= 3; i++) push(fifo, i);
		uint64_t word = hold_make(5, 6, 1, 0, HOLD_TENTATIVE); /* by cell 6, which is nobody's */
		atomic_store(&fifo->shared->takes, 1);
		atomic_store(&fifo->holds[2], word);
		fifo->held[2 * HP_FIFO_TAKE_MAX] = 1;
		if (committed) must(pair_swap(&fifo->shared->tail, 0, 0, 1, hold_name(2, word)));
		if (committed == 2) must_pop(fifo, 2); /* which leaves its name there */
		must_be(hp_fifo_count(fifo), committed == 2 ? 2 : 3);
		uint64_t got, sum = 0;
		while (hp_fifo_pop(fifo, &got) == 0) sum += got;
		must_be(sum, committed == 2 ? 4 : 6);
		over(pool, fifo);
	}
}

/* ---- waiting ---- */

struct waiter {
	hp_pool *pool;
	hp_off id;
	uint64_t want;
	int64_t result;
	uint64_t got[8];
};

static void *pops(void *arg)
{
	struct waiter *waiter = arg;
	hp_fifo *fifo;
	must_be(hp_fifo_open(waiter->pool, waiter->id, &fifo), 0);
	waiter->result = hp_fifo_pop_timed(fifo, waiter->got, waiter->want, LONG_NS);
	hp_fifo_close(fifo);
	return NULL;
}

static void *pushes(void *arg)
{
	struct waiter *waiter = arg;
	hp_fifo *fifo;
	must_be(hp_fifo_open(waiter->pool, waiter->id, &fifo), 0);
	waiter->result = hp_fifo_push_timed(fifo, waiter->got, waiter->want, LONG_NS);
	hp_fifo_close(fifo);
	return NULL;
}

static void await_flag(_Atomic uint32_t *flags)
{
	while (!(atomic_load(flags) & FIFO_SLEEPS)) sched_yield();
}

static void waits_until_there_is_something(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++) {
		hp_pool *pool = hp_plain_pool(SIZE, flags == 2 ? HP_POOL_FENCED : 0);
		hp_fifo *fifo = make(pool, 4, 0, flags);
		uint64_t got[4] = {1, 2, 3, 4};
		must_be(hp_fifo_pop_timed(fifo, got, 4, 0), -ETIMEDOUT);
		must_be(hp_fifo_pop_timed(fifo, got, 0, 0), -EINVAL);
		must_be(hp_fifo_wait(fifo, 1000000), -ETIMEDOUT);
		must_be(hp_fifo_push_timed(fifo, got, 5, 0), -EINVAL);
		struct waiter waiter = {.pool = pool, .id = hp_fifo_id(fifo), .want = 2};
		pthread_t thread;
		must_be(hp_fifo_push_timed(fifo, got, 1, 0), 0);
		must_pop(fifo, 1);
		must_be(pthread_create(&thread, NULL, pops, &waiter), 0);
		await_flag(&fifo->shared->pop_flags);
		push(fifo, 17);
		must_be(pthread_join(thread, NULL), 0);
		must_be(waiter.result, 1);
		must_be(waiter.got[0], 17);
		/* and for room */
		must_be(hp_fifo_push_bulk(fifo, got, 4), 0);
		must_be(hp_fifo_push_timed(fifo, got, 1, 1000), -ETIMEDOUT);
		atomic_store(&fifo->shared->push_flags, 0);
		must_be(pthread_create(&thread, NULL, pushes, &waiter), 0);
		await_flag(&fifo->shared->push_flags);
		must_pop(fifo, 1);
		must_be(hp_fifo_take(fifo, got, 1), 1);
		must_be(hp_fifo_ack(fifo, 1), 0);
		must_be(pthread_join(thread, NULL), 0);
		must_be(waiter.result, 0);
		must_be(hp_fifo_wait(fifo, 0), 0);
		must_be(hp_fifo_count(fifo), 4);
		must_be(hp_fifo_pop_bulk(fifo, got, 4), 0);
		must_be(got[2], 17);
		over(pool, fifo);
	}
}

static void waits_for_ever(const struct child *me, void *arg)
{
	struct scene *scene = arg;
	hp_fifo *fifo;
	uint64_t got;
	must_be(hp_fifo_open(scene->pool, scene->id, &fifo), 0);
	child_say(me);
	hp_fifo_pop_timed(fifo, &got, 1, UINT64_MAX);
	must(false);
}

/* A waiter that was killed in its sleep keeps nothing from those who come after. */
static void dead_waiters_are_harmless(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	hp_fifo *fifo = make(pool, 4, 0, HP_FIFO_MC);
	struct scene scene = {.pool = pool, .id = hp_fifo_id(fifo)};
	struct child child = child_start(waits_for_ever, &scene);
	must(child_hear(&child));
	await_flag(&fifo->shared->pop_flags);
	child_kill(&child);
	must_be(atomic_load(&fifo->shared->pop_flags), FIFO_SLEEPS);
	push(fifo, 1);
	must_be(atomic_load(&fifo->shared->pop_flags), 0);
	must_pop(fifo, 1);
	over(pool, fifo);
}

/* Who waits gets what a taker leaves who dies: nobody wakes him then. */
static void waiters_get_what_the_dead_leave(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	hp_fifo *fifo = make(pool, 8, 0, HP_FIFO_MC);
	struct scene scene = {.pool = pool, .id = hp_fifo_id(fifo)};
	for (uint64_t i = 0; i < 3; i++) push(fifo, i);
	struct child child = child_start(taker, &scene);
	must(child_hear(&child));
	struct waiter waiter = {.pool = pool, .id = hp_fifo_id(fifo), .want = 8};
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, pops, &waiter), 0);
	await_flag(&fifo->shared->pop_flags);
	child_kill(&child);
	must_be(pthread_join(thread, NULL), 0);
	must_be(waiter.result, 2);
	must_be(waiter.got[0], 1);
	over(pool, fifo);
}

static bool readable(int fd)
{
	struct pollfd wanted = {.fd = fd, .events = POLLIN};
	return poll(&wanted, 1, 0) == 1;
}

static void pushes_signal_who_has_armed(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++) {
		hp_pool *pool = hp_plain_pool(SIZE, 0);
		hp_fifo *fifo = make(pool, 4, 0, flags), *deaf = again(pool, fifo);
		int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		uint64_t value;
		must(fd >= 0);
		must_be(hp_fifo_set_eventfd(fifo, 9999), -EBADF);
		must_be(hp_fifo_set_eventfd(fifo, fd), 0);
		push(fifo, 1);
		must(!readable(fd)); /* nobody has asked */
		must_be(hp_fifo_arm(deaf), 1);
		must_pop(deaf, 1);
		must_be(hp_fifo_arm(deaf), 0);
		push(deaf, 2); /* a handle without one leaves that to the next */
		must(!readable(fd));
		push(fifo, 3);
		must(readable(fd));
		push(fifo, 4);
		must_be(read(fd, &value, 8), 8);
		must_be(value, 1);
		must_be(hp_fifo_set_eventfd(fifo, -1), 0);
		must_pop(deaf, 2);
		must_pop(deaf, 3);
		must_pop(deaf, 4);
		close(fd);
		hp_fifo_close(deaf);
		over(pool, fifo);
	}
}

/* ---- many at once ---- */

#define WORKERS 2
#define EACH (HP_TEST_SANITIZER ? 3000u : 30000u)

struct crowd {
	hp_pool *pool;
	hp_off id;
	_Atomic uint32_t popped;
	_Atomic uint8_t seen[WORKERS * 30000];
};

/* Values 0 to EACH - 1 of worker `number`, in bursts, alone, and waiting. */
static void produce(struct crowd *crowd, unsigned number)
{
	hp_fifo *fifo;
	must_be(hp_fifo_open(crowd->pool, crowd->id, &fifo), 0);
	for (uint64_t i = 0; i < EACH;) {
		uint64_t value[7], n = 1 + i % 7;
		if (n > EACH - i) n = EACH - i;
		for (unsigned k = 0; k < n; k++) value[k] = (uint64_t)number << 32 | (i + k);
		if (i % 3)
			must_be(hp_fifo_push_timed(fifo, value, n, LONG_NS), 0);
		else
			n = (uint64_t)hp_fifo_push_burst(fifo, value, n);
		i += n;
	}
	hp_fifo_close(fifo);
}

/* A view of one moment: of each producer, one after the other, with nothing left out. */
static void look(hp_fifo *fifo)
{
	uint64_t value[64], last[WORKERS] = {0};
	int64_t n = hp_fifo_peek(fifo, value, 64);
	for (int64_t i = 0; i < n; i++) {
		uint64_t who = value[i] >> 32, number = value[i] & 0xffffffff;
		must(who < WORKERS && number < EACH);
		must(!last[who] || number == last[who]);
		last[who] = number + 1;
	}
}

/* In the order of each producer, as far as this one gets them; taken or popped. */
static void consume(struct crowd *crowd, uint32_t all, bool takes, bool alone)
{
	hp_fifo *fifo;
	uint64_t next[WORKERS] = {0};
	must_be(hp_fifo_open(crowd->pool, crowd->id, &fifo), 0);
	while (atomic_load(&crowd->popped) < all) {
		uint64_t value[9];
		int64_t n = takes ? hp_fifo_take(fifo, value, 9) : hp_fifo_pop_timed(fifo, value, 9, 2000000);
		look(fifo);
		if (n == -ETIMEDOUT) continue;
		if (takes && n == 0) hp_fifo_wait(fifo, 2000000);
		must(n >= 0);
		for (int64_t i = 0; i < n; i++) {
			uint64_t who = value[i] >> 32, number = value[i] & 0xffffffff;
			must(who < WORKERS && number < EACH);
			must(alone ? number == next[who] : number >= next[who]);
			next[who] = number + 1;
			must_be(atomic_fetch_add(&crowd->seen[who * EACH + number], 1), 0);
		}
		if (takes && n) must_be(hp_fifo_ack(fifo, (size_t)n), 0);
		atomic_fetch_add(&crowd->popped, (uint32_t)n);
	}
	hp_fifo_close(fifo);
}

static void everything_comes_once(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags < KINDS; flags++)
		for (unsigned takes = 0; takes < 2; takes++) {
			hp_pool *pool = hp_plain_pool(SIZE, 0);
			hp_fifo *fifo = make(pool, 64, 0, flags);
			struct crowd *crowd = hp_shared(sizeof *crowd);
			unsigned producers = flags & HP_FIFO_MP ? WORKERS : 1, consumers = flags & HP_FIFO_MC ? WORKERS : 1;
			pid_t pid[2 * WORKERS];
			crowd->pool = pool;
			crowd->id = hp_fifo_id(fifo);
			for (unsigned i = 0; i < producers + consumers; i++) {
				pid[i] = hp_fork();
				if (pid[i]) continue;
				if (i < producers)
					produce(crowd, i);
				else
					consume(crowd, producers * EACH, takes, consumers == 1);
				_exit(0);
			}
			for (unsigned i = 0; i < producers + consumers; i++) must_be(hp_wait_for(pid[i]), 0);
			for (unsigned i = 0; i < producers * EACH; i++) must_be(crowd->seen[i], 1);
			munmap(crowd, sizeof *crowd);
			over(pool, fifo);
		}
}

struct part {
	struct crowd *crowd;
	unsigned number;
	bool produces;
};

static void *part(void *arg)
{
	struct part *mine = arg;
	if (mine->produces)
		produce(mine->crowd, mine->number);
	else
		consume(mine->crowd, WORKERS * EACH, mine->number == 0, false);
	return NULL;
}

/* Threads of one process, each with a handle, where the thread sanitizer sees them. */
static void threads_share_one(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, 0);
	hp_fifo *fifo = make(pool, 32, 0, HP_FIFO_MP | HP_FIFO_MC);
	struct crowd *crowd = hp_shared(sizeof *crowd);
	pthread_t thread[2 * WORKERS];
	struct part parts[2 * WORKERS];
	crowd->pool = pool;
	crowd->id = hp_fifo_id(fifo);
	for (unsigned i = 0; i < 2 * WORKERS; i++) {
		parts[i] = (struct part){crowd, i / 2, i % 2};
		must_be(pthread_create(&thread[i], NULL, part, &parts[i]), 0);
	}
	for (unsigned i = 0; i < 2 * WORKERS; i++) must_be(pthread_join(thread[i], NULL), 0);
	for (unsigned i = 0; i < WORKERS * EACH; i++) must_be(crowd->seen[i], 1);
	munmap(crowd, sizeof *crowd);
	over(pool, fifo);
}

/* Of a private pool a child has a copy, and with it the handle. */
static int child_ends_its_copy(void *arg)
{
	hp_fifo *fifo = arg;
	uint64_t got;
	must_be(hp_fifo_take(fifo, &got, 1), 1);
	must_be(hp_fifo_ack(fifo, 1), 0);
	must_be(hp_fifo_destroy(fifo, 0), 0);
	return got == 5 ? 0 : 1;
}

static void a_private_pool_has_them_too(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(SIZE, HP_POOL_PRIVATE);
	hp_fifo *fifo = make(pool, 8, 0, HP_FIFO_MP | HP_FIFO_MC);
	uint64_t got;
	push(fifo, 5);
	must_be(hp_fifo_take(fifo, &got, 1), 1);
	must_be(hp_fifo_nack(fifo), 0);
	must_be(hp_test_child(child_ends_its_copy, fifo), 0);
	must_pop(fifo, 5);
	over(pool, fifo);
}

int main(void)
{
	if (!FIFO_HAS_PAIRS) hp_test_skip("this processor has no compare-and-swap of 16 bytes");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_that_make_no_sense),
		cmocka_unit_test(comes_out_as_it_went_in),
		cmocka_unit_test(bulk_is_all_or_nothing),
		cmocka_unit_test(staged_is_seen_when_published),
		cmocka_unit_test(a_successor_goes_by_its_note),
		cmocka_unit_test(a_look_takes_nothing),
		cmocka_unit_test(taken_stays_until_acknowledged),
		cmocka_unit_test(taken_goes_back_with_its_handle),
		cmocka_unit_test(dead_takers_leave_it_to_others),
		cmocka_unit_test(who_takes_a_dead_ones_place),
		cmocka_unit_test(the_dead_do_not_have_it_open),
		cmocka_unit_test(a_forked_child_goes_on),
		cmocka_unit_test(wrong_offsets_are_refused),
		cmocka_unit_test(wrong_shapes_are_refused),
		cmocka_unit_test(wrong_positions_are_not_believed),
		cmocka_unit_test(a_claim_does_not_keep_others),
		cmocka_unit_test(a_taker_that_was_not_confirmed),
		cmocka_unit_test(waits_until_there_is_something),
		cmocka_unit_test(dead_waiters_are_harmless),
		cmocka_unit_test(waiters_get_what_the_dead_leave),
		cmocka_unit_test(pushes_signal_who_has_armed),
		cmocka_unit_test(everything_comes_once),
		cmocka_unit_test(threads_share_one),
		cmocka_unit_test(a_private_pool_has_them_too),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
