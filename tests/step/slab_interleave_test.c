/* Pairs of operations on the same slab: A stopped at every instruction, the whole of B, the rest of A. */
#include "harness.h"
#include "pool/layers.h"
#include "pool/participant.h"
#include "hp_test.h"

static const struct step_pool one = {.pages = 64, .capacity = 64, .flags = HP_POOL_NO_AUTOGROW, .slabs = true};
static const struct step_pool two = {.pages = 128, .capacity = 128, .flags = HP_POOL_NO_AUTOGROW, .slabs = true};
static const struct step_pool fenced = {
	.pages = 64, .capacity = 64, .flags = HP_POOL_NO_AUTOGROW | HP_POOL_FENCED, .slabs = true};

#define COUNT(table) (sizeof(table) / sizeof *(table))
extern const struct pool_layer slab_layer; /* as in layers.c */

#define SIZE 8192

static hp_off objects(struct step_world *w, int a, unsigned count)
{
	hp_off first = step_object(w, a, SIZE);
	for (unsigned i = 1; i < count; i++) step_object(w, a, SIZE);
	return first;
}

static void both(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
}

/* A owns a slab with objects x and y. */
static void a_owns(struct step_world *w)
{
	both(w);
	hp_off off = objects(w, 0, 3);
	if (!w->x) w->x = off;
	w->y = off + SIZE;
}

static void b_owns(struct step_world *w)
{
	both(w);
	hp_off off = objects(w, 1, 3);
	w->x = off;
	w->y = off + SIZE;
}

static void a_owns_the_same(struct step_world *w)
{
	a_owns(w);
	w->y = w->x;
}

/* A's slab is full. */
static void a_is_full(struct step_world *w)
{
	both(w);
	step_use_up(w, 0, SIZE);
	w->y = w->block[w->blocks - 1].off;
}

static void b_is_full(struct step_world *w)
{
	both(w);
	step_use_up(w, 1, SIZE);
	w->x = w->block[w->blocks - 1].off;
}

/* One object, its slab's only one. */
static void a_owns_one(struct step_world *w)
{
	both(w);
	w->x = w->y = objects(w, 0, 1);
}

static void a_third_owns(struct step_world *w)
{
	both(w);
	step_join(w, 2);
	w->x = objects(w, 2, 3);
	w->y = w->x + SIZE;
}

static void a_third_owns_the_same(struct step_world *w)
{
	a_third_owns(w);
	w->y = w->x;
}

/* Nobody owns a slab with `count` objects, from w->x on. */
static void nobody_owns(struct step_world *w, unsigned count)
{
	both(w);
	step_join(w, 2);
	w->x = w->y = objects(w, 2, count);
	STEP_NEED(w, step_call(w, 2, step_detach, 0, 0) == 0);
	step_kill(w, 2);
}

static void nobody_owns_one(struct step_world *w)
{
	nobody_owns(w, 1);
}

static void nobody_owns_two(struct step_world *w)
{
	nobody_owns(w, 2);
	w->y = w->x + SIZE;
}

static void a_dead_one_owns(struct step_world *w)
{
	both(w);
	step_join(w, 2);
	w->x = w->y = objects(w, 2, 1);
	step_kill(w, 2);
}

static void a_dead_one_owns_two(struct step_world *w)
{
	both(w);
	step_join(w, 2);
	w->x = w->y = objects(w, 2, 1);
	step_unobject(w, 2, step_object(w, 2, 100)); /* a slab without objects, and so nobody's business */
	step_kill(w, 2);
}

/* All pages are in slabs of one of them, which has objects left. */
static void owns_all(struct step_world *w, int a)
{
	both(w);
	step_fill(w, a, SIZE);
	for (int i = 0; i < 3; i++) step_unobject(w, a, w->block[w->blocks / 2].off);
	w->x = w->y = w->block[w->blocks / 2].off;
}

static void a_owns_all(struct step_world *w)
{
	owns_all(w, 0);
}

static void b_owns_all(struct step_world *w)
{
	owns_all(w, 1);
}

/* There is room for one slab. */
static void room_for_one(struct step_world *w)
{
	both(w);
	step_join(w, 2);
	step_block(w, 2, 54, 0);
}

/* The same in slabs without objects, but for one. */
static void owns_empties(struct step_world *w, int a)
{
	both(w);
	step_fill(w, a, SIZE);
	while (w->blocks > 1) step_unobject(w, a, w->block[w->blocks - 1].off);
	w->x = w->y = w->block[0].off;
}

static void a_owns_empties(struct step_world *w)
{
	owns_empties(w, 0);
}

static void b_owns_empties(struct step_world *w)
{
	owns_empties(w, 1);
}

/* Frees the last object of a slab, makes a slab for another size in its place, and gives that to nobody. */
static int64_t remake(struct step_env *env, uint64_t x, uint64_t y)
{
	int error;
	struct participant *me = participant_get(env->pool, &error);
	int64_t freed = step_mfree(env, x, 0), off = step_malloc(env, y, 0);
	participant_begin(me);
	slab_layer.reread(me, true); /* as if somebody had taken from us: the slab is nobody's */
	participant_end(me);
	return freed < 0 ? freed : off;
}

#define MALLOC(n) \
	{ \
		.run = step_malloc, .x = n, .effect = STEP_MALLOCS \
	}
#define MFREE \
	{ \
		.run = step_mfree, .effect = STEP_FREES \
	}
#define REMAKE(n) \
	{ \
		.run = remake, .y = n, .effect = STEP_MOVES \
	}
#define PAGES(n) \
	{ \
		.run = step_alloc, .x = n, .effect = STEP_ALLOCATES \
	}
#define RECOVER \
	{ \
		.run = step_recover, .x = 1 \
	}
#define DETACH \
	{ \
		.run = step_detach, .x = 1 \
	}
#define PAIR(text, which, set_up, first, second, allowed) \
	{ \
		.name = text, .pool = &which, .setup = set_up, .a = first, .b = second, .flags = allowed \
	}

static const struct step_pair frees[] = {
	PAIR("owner's malloc, remote free", two, a_owns, MALLOC(SIZE), MFREE, 0),
	PAIR("remote free, owner's malloc", two, b_owns, MFREE, MALLOC(SIZE), 0),
	PAIR("owner's free, remote free of a neighbour", two, a_owns, MFREE, MFREE, 0),
	PAIR("remote free, owner's free of a neighbour", two, b_owns, MFREE, MFREE, 0),
	PAIR("owner's free, remote free of the same", two, a_owns_the_same, MFREE, MFREE, STEP_SAME_FREE | STEP_RACES),
	PAIR("owner's free, remote free of its last", two, a_owns_one, MFREE, MFREE, STEP_SAME_FREE | STEP_RACES),
	PAIR("two remote frees in one word", two, a_third_owns, MFREE, MFREE, 0),
	PAIR("two remote frees of the same", two, a_third_owns_the_same, MFREE, MFREE, STEP_SAME_FREE),
	PAIR("malloc from a full slab, remote free", two, a_is_full, MALLOC(SIZE), MFREE, 0),
	PAIR("remote free, malloc from a full slab", two, b_is_full, MFREE, MALLOC(SIZE), 0),
};

static const struct step_pair nobodys[] = {
	PAIR("the last free of nobody's slab, adopt", one, nobody_owns_one, MFREE, MALLOC(SIZE), 0),
	PAIR("adopt, the last free of nobody's slab", one, nobody_owns_one, MALLOC(SIZE), MFREE, 0),
	PAIR("the last two frees of nobody's slab", one, nobody_owns_two, MFREE, MFREE, 0),
	PAIR("the last free of nobody's slab twice", one, nobody_owns_one, MFREE, MFREE, STEP_SAME_FREE),
	PAIR("the last free of nobody's slab, pages", one, nobody_owns_one, MFREE, PAGES(50), STEP_MAY_FAIL),
	PAIR("adopt, end and make for another size", one, nobody_owns_one, MALLOC(SIZE), REMAKE(5000), 0),
	PAIR("adopt, adopt", one, nobody_owns_two, MALLOC(SIZE), MALLOC(SIZE), 0),
	PAIR("making a slab, making a slab", two, both, MALLOC(SIZE), MALLOC(SIZE), 0),
	PAIR("making a slab, pages", one, both, MALLOC(SIZE), PAGES(60), STEP_MAY_FAIL),
	PAIR("recovery of an owner, its slab's last free", one, a_dead_one_owns, RECOVER, MFREE, 0),
	PAIR("the last free, recovery of the owner", one, a_dead_one_owns, MFREE, RECOVER, 0),
	PAIR("recovery, recovery", one, a_dead_one_owns_two, RECOVER, RECOVER, 0),
	PAIR("recovery, malloc", one, a_dead_one_owns_two, RECOVER, MALLOC(SIZE), 0),
	PAIR("detach of an owner, its slab's last free", one, a_owns_one, DETACH, MFREE, STEP_FRESH),
};

static const struct step_pair taking[] = {
	PAIR("making the only slab, take", one, room_for_one, MALLOC(SIZE), MALLOC(SIZE), STEP_MAY_FAIL | STEP_RARE),
	PAIR("take, owner's malloc", one, b_owns_all, MALLOC(SIZE), MALLOC(SIZE), STEP_MAY_FAIL),
	PAIR("take, owner's free", one, b_owns_all, MALLOC(SIZE), MFREE, STEP_MAY_FAIL),
	PAIR("owner's malloc, take", one, a_owns_all, MALLOC(SIZE), MALLOC(SIZE), STEP_MAY_FAIL),
	PAIR("owner's free, take", one, a_owns_all, MFREE, MALLOC(SIZE), STEP_MAY_FAIL),
	PAIR("owner's malloc, take, fenced", fenced, a_owns_all, MALLOC(SIZE), MALLOC(SIZE), STEP_MAY_FAIL),
	PAIR("owner's free, take, fenced", fenced, a_owns_all, MFREE, MALLOC(SIZE), STEP_MAY_FAIL),
	PAIR("pages from empty slabs, owner's malloc", one, b_owns_empties, PAGES(30), MALLOC(SIZE), STEP_MAY_FAIL),
	PAIR("pages from empty slabs, owner's free", one, b_owns_empties, PAGES(30), MFREE, STEP_MAY_FAIL),
	PAIR("owner's malloc, pages from empty slabs", one, a_owns_empties, MALLOC(SIZE), PAGES(30), STEP_MAY_FAIL),
	PAIR("owner's free, pages from empty slabs", one, a_owns_empties, MFREE, PAGES(30), STEP_MAY_FAIL),
	PAIR("owner's other size, remote free", one, a_owns_empties, MALLOC(5000), MFREE, 0),
	PAIR("remote free, owner's other size", one, b_owns_empties, MFREE, MALLOC(5000), 0),
};

#define TEST(table) \
	static void table##_pairs(void **state) \
	{ \
		(void)state; \
		assert_int_equal(step_run_pairs(table, COUNT(table)), 0); \
	}
TEST(frees)
TEST(nobodys)
TEST(taking)

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(frees_pairs), cmocka_unit_test(nobodys_pairs),
	                                   cmocka_unit_test(taking_pairs)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
