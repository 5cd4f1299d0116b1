/* Pairs of operations on one cache: A stopped at every instruction, the whole of B, the rest of A. What is looked
 * for: an object with two owners, one that is put twice, a limit that is exceeded or that refuses too early, a cache
 * that is ended under who needs it, an object that is destroyed while somebody has it. */
#include "harness.h"
#include "hp_test.h"
#include <errno.h>

#define NO_GROWTH .flags = HP_POOL_NO_AUTOGROW, .slabs = true, .caches = true
static const struct step_pool one = {.pages = 64, .capacity = 64, NO_GROWTH};
static const struct step_pool two = {.pages = 128, .capacity = 128, NO_GROWTH};

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define SIZE 4096
#define EACH 16
#define BUILT (SIZE | STEP_BUILT)

static void both(struct step_world *w, uint64_t flags)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_cache(w, 1, SIZE, flags);
	step_opens(w, 0);
}

/* x and y: objects of A's slab. */
static void a_has(struct step_world *w)
{
	both(w, 0);
	w->x = step_get(w, 0);
	w->y = step_get(w, 0);
	step_get(w, 1);
}

static void a_has_the_same(struct step_world *w)
{
	a_has(w);
	w->y = w->x;
}

static void b_has_the_same(struct step_world *w)
{
	both(w, 0);
	step_get(w, 0);
	step_get(w, 1);
	w->x = w->y = step_get(w, 1);
}

static void a_third_has(struct step_world *w)
{
	both(w, 0);
	step_join(w, 2);
	step_opens(w, 2);
	step_get(w, 2);
	w->x = w->y = step_get(w, 2);
}

/* Nobody owns the slab whose last object it is. */
static void nobody_has(struct step_world *w)
{
	a_third_has(w);
	step_put(w, 2, w->block[0].off == w->x ? w->block[1].off : w->block[0].off);
	STEP_NEED(w, step_call(w, 2, step_detach, 0, 0) == 0);
	step_kill(w, 2);
}

/* Nothing is out; A, or both of them, have slabs. */
static void idle(struct step_world *w)
{
	both(w, 0);
	step_put(w, 0, step_get(w, 0));
}

static void idle_both(struct step_world *w)
{
	idle(w);
	step_put(w, 1, step_get(w, 1));
}

/* Each has one out, of a slab of its own. */
static void out_of_both(struct step_world *w)
{
	both(w, 0);
	step_get(w, 0);
	step_get(w, 1);
}

static void unused(struct step_world *w)
{
	both(w, 0);
}

/* y: what B frees to have memory for a slab. */
static void no_memory(struct step_world *w)
{
	both(w, 0);
	hp_off off[2] = {step_block(w, 1, 32, 0), step_block(w, 1, 32, 0)};
	w->y = off[off[0] == 0];
}

static void idle_built(struct step_world *w)
{
	both(w, STEP_BUILT);
	step_put(w, 0, step_get(w, 0));
	step_put(w, 1, step_get(w, 1));
}

/* All of B's slab is out. */
static void b_is_full(struct step_world *w)
{
	both(w, 0);
	for (unsigned i = 0; i < EACH; i++) step_get(w, 1);
}

/* All that the limit allows is out, of a slab of actor `owner`; x, y: one of them. */
static void at_limit(struct step_world *w, int owner, unsigned limit)
{
	both(w, 0);
	step_limit(w, 1, limit);
	step_get_all(w, owner);
	STEP_NEED(w, w->blocks == limit);
	w->x = w->y = w->block[limit / 2].off;
}

static void a_at_limit(struct step_world *w)
{
	at_limit(w, 0, 5);
}

static void b_at_limit(struct step_world *w)
{
	at_limit(w, 1, 5);
}

static void a_third_at_limit(struct step_world *w)
{
	both(w, 0);
	step_join(w, 2);
	step_opens(w, 2);
	step_limit(w, 1, 5);
	step_get_all(w, 2);
	w->x = w->y = w->block[3].off;
}

/* One is left, and nobody has it at hand. */
static void one_left(struct step_world *w)
{
	a_third_at_limit(w);
	step_put(w, 2, w->x);
}

/* The last place is free. */
static void one_place_left(struct step_world *w)
{
	both(w, 0);
	step_join(w, 2);
	step_opens(w, 2);
	step_limit(w, 1, EACH + 2);
	for (unsigned i = 0; i < EACH; i++) step_get(w, 2);
}

/* A has objects at hand, which B has to take. */
static void b_needs_what_a_has(struct step_world *w)
{
	both(w, 0);
	step_limit(w, 1, 12);
	for (unsigned i = 0; i < 4; i++) step_get(w, 0);
	w->x = w->y = w->block[0].off;
}

static void a_needs_what_b_has(struct step_world *w)
{
	both(w, 0);
	step_limit(w, 1, 12);
	for (unsigned i = 0; i < 4; i++) step_get(w, 1);
	w->x = w->y = w->block[0].off;
}

/* Constructed objects are at hand of both, and each has one out. */
static void built(struct step_world *w)
{
	both(w, STEP_BUILT);
	hp_off off[2][3];
	for (int a = 0; a < 2; a++)
		for (int i = 0; i < 3; i++) off[a][i] = step_get(w, a);
	for (int a = 0; a < 2; a++)
		for (int i = 0; i < 2; i++) step_put(w, a, off[a][i]);
	w->x = off[0][2];
	w->y = off[1][2];
}

/* Constructed objects in A's slab only: B has to take them. */
static void built_limited(struct step_world *w)
{
	both(w, STEP_BUILT);
	step_limit(w, 1, 4);
	hp_off off[3];
	for (int i = 0; i < 3; i++) off[i] = step_get(w, 0);
	for (int i = 0; i < 2; i++) step_put(w, 0, off[i]);
	w->x = w->y = off[2];
}

static void built_limited_of_b(struct step_world *w)
{
	both(w, STEP_BUILT);
	step_limit(w, 1, 4);
	hp_off off[3];
	for (int i = 0; i < 3; i++) off[i] = step_get(w, 1);
	for (int i = 0; i < 2; i++) step_put(w, 1, off[i]);
	w->x = w->y = off[2];
}

#define GET \
	{ \
		.run = step_cache_get, .effect = STEP_GETS \
	}
#define WAIT(ns) \
	{ \
		.run = step_cache_get, .y = ns, .effect = STEP_GETS \
	}
#define BULK(n) \
	{ \
		.run = step_cache_get_bulk, .x = n, .effect = STEP_GETS, .count = n \
	}
#define ARRAY(n) \
	{ \
		.run = step_cache_get_array, .x = n, .effect = STEP_GETS, .count = n \
	}
#define PUT \
	{ \
		.run = step_cache_put, .effect = STEP_PUTS \
	}
#define DESTROY \
	{ \
		.run = step_cache_destroy, .effect = STEP_ENDS \
	}
#define GET_ANEW \
	{ \
		.run = step_cache_get_anew, .effect = STEP_GETS \
	}
#define REMAKE(size) \
	{ \
		.run = step_cache_remake, .y = size, .effect = STEP_REMAKES, .count = 2 \
	}
#define LIMIT(n) \
	{ \
		.run = step_cache_limit, .x = n, .effect = STEP_LIMITS \
	}
#define INVALIDATE \
	{ \
		.run = step_cache_invalidate, .effect = STEP_NONE \
	}
#define RECLAIM \
	{ \
		.run = step_cache_reclaim, .effect = STEP_NONE \
	}
#define PAGES(n) \
	{ \
		.run = step_alloc, .x = n, .effect = STEP_ALLOCATES \
	}
#define PAIR(text, which, set_up, first, second, allowed) \
	{ \
		.name = text, .pool = &which, .setup = set_up, .a = first, .b = second, .flags = allowed \
	}

static const struct step_pair putting[] = {
	PAIR("put, remote put of a neighbour", two, a_has, PUT, PUT, 0),
	PAIR("put, remote put of the same", two, a_has_the_same, PUT, PUT, STEP_SAME_FREE | STEP_RACES),
	PAIR("remote put, owner's put of the same", two, b_has_the_same, PUT, PUT, STEP_SAME_FREE | STEP_RACES),
	PAIR("two remote puts of the same", two, a_third_has, PUT, PUT, STEP_SAME_FREE),
	PAIR("two last puts of nobody's", one, nobody_has, PUT, PUT, STEP_SAME_FREE),
	PAIR("the last put of nobody's, get", one, nobody_has, PUT, GET, 0),
	PAIR("put, reclaim", one, a_has, PUT, RECLAIM, 0),
};

static const struct step_pair limits[] = {
	PAIR("get at the limit, put", one, b_at_limit, GET, PUT, STEP_MAY_FAIL | STEP_SLOW),
	PAIR("get at the limit, a third's put", one, a_third_at_limit, GET, PUT, STEP_MAY_FAIL | STEP_SLOW),
	PAIR("put, get at the limit", one, a_at_limit, PUT, GET, STEP_MAY_FAIL),
	PAIR("remote put, get at the limit", one, a_third_at_limit, PUT, GET, STEP_MAY_FAIL),
	PAIR("remote put, owner's get at the limit", one, b_at_limit, PUT, GET, STEP_MAY_FAIL),
	PAIR("get of the last, get of the last", one, one_left, GET, GET, STEP_ONE | STEP_SLOW),
	PAIR("get of the last place, the same", one, one_place_left, GET, GET, STEP_EITHER | STEP_SLOW),
	PAIR("wait at the limit, put", one, b_at_limit, WAIT(1000000), PUT, STEP_MAY_FAIL | STEP_SLOW),
	PAIR("wait at the limit, a third's put", one, a_third_at_limit, WAIT(1000000), PUT, STEP_MAY_FAIL | STEP_SLOW),
	PAIR("put, take", one, b_needs_what_a_has, PUT, GET, STEP_MAY_FAIL),
	PAIR("get, take", one, b_needs_what_a_has, GET, GET, STEP_MAY_FAIL),
	PAIR("get_bulk, take", one, b_needs_what_a_has, BULK(6), GET, STEP_MAY_FAIL),
	PAIR("get_bulk, bulk take", one, b_needs_what_a_has, BULK(3), BULK(3), STEP_MAY_FAIL),
	PAIR("take, put", one, a_needs_what_b_has, GET, PUT, STEP_MAY_FAIL),
	PAIR("take, get_bulk", one, a_needs_what_b_has, GET, BULK(6), STEP_MAY_FAIL | STEP_SLOW),
	PAIR("get_array, take", one, b_needs_what_a_has, ARRAY(3), GET, STEP_MAY_FAIL),
};

static const struct step_pair ends[] = {
	PAIR("get, destroy", one, idle, GET, DESTROY, STEP_ONE),
	PAIR("get, destroy, unused", one, unused, GET, DESTROY, STEP_ONE | STEP_SLOW),
	PAIR("get, destroy, slabs of both", one, idle_both, GET, DESTROY, STEP_ONE),
	PAIR("destroy, get", one, idle, DESTROY, GET, STEP_ONE | STEP_SLOW),
	PAIR("destroy, get, unused", one, unused, DESTROY, GET, STEP_ONE | STEP_SLOW),
	PAIR("destroy, get, slabs of both", one, idle_both, DESTROY, GET, STEP_ONE | STEP_SLOW),
	PAIR("destroy, get, constructed", one, idle_built, DESTROY, GET, STEP_ONE | STEP_SLOW),
	PAIR("get, destroy, constructed", one, idle_built, GET, DESTROY, STEP_ONE | STEP_SLOW),
	PAIR("destroy in vain, get", one, b_is_full, DESTROY, GET, STEP_EITHER | STEP_SLOW),
	PAIR("put, destroy", one, a_has, PUT, DESTROY, STEP_EITHER),
};

/* Who still has the old handle gets nothing of the new one: now, or when he goes on. */
static const struct step_pair anew[] = {
	PAIR("get, destroy and make anew", one, idle, GET, REMAKE(SIZE), STEP_ONE),
	PAIR("get, destroy and make anew, another size", one, unused, GET, REMAKE(SIZE / 2), STEP_ONE | STEP_SLOW),
	PAIR("get, destroy and make anew, slabs of both", one, idle_both, GET, REMAKE(SIZE), STEP_ONE | STEP_SLOW),
	PAIR("get, destroy and make anew, open", one, no_memory, GET_ANEW, REMAKE(SIZE), STEP_ONE | STEP_SLOW),
	PAIR("get_array, destroy and make anew", one, unused, ARRAY(3), REMAKE(SIZE), STEP_ONE | STEP_RARE),
	PAIR("destroy and make anew, get", one, idle_both, REMAKE(SIZE), GET, STEP_ONE | STEP_RARE),
	PAIR("get, destroy and make anew, constructed", one, idle_built, GET, REMAKE(BUILT), STEP_ONE | STEP_SLOW),
	PAIR("invalidate, destroy and make anew", one, idle_built, INVALIDATE, REMAKE(BUILT - SIZE / 2),
         STEP_EITHER | STEP_SLOW),
	PAIR("destroy and make anew, invalidate", one, idle_built, REMAKE(BUILT), INVALIDATE, STEP_EITHER | STEP_RARE),
	PAIR("destroy and make anew, reclaim", one, idle_built, REMAKE(BUILT), RECLAIM, STEP_EITHER | STEP_RARE),
};

static const struct step_pair constructed[] = {
	PAIR("invalidate, destroy", one, idle_built, INVALIDATE, DESTROY, STEP_EITHER | STEP_SLOW),
	PAIR("reclaim, destroy", one, idle_built, RECLAIM, DESTROY, STEP_EITHER | STEP_RARE),
	PAIR("destroy, invalidate", one, idle_built, DESTROY, INVALIDATE, STEP_EITHER | STEP_SLOW),
	PAIR("get, invalidate", one, built, GET, INVALIDATE, 0),
	PAIR("get, invalidate, the only slab", one, built_limited, GET, INVALIDATE, 0),
	PAIR("put, invalidate", one, built, PUT, INVALIDATE, 0),
	PAIR("invalidate, get", one, built, INVALIDATE, GET, STEP_SLOW),
	PAIR("invalidate, take", one, built_limited, INVALIDATE, GET, STEP_MAY_FAIL),
	PAIR("invalidate, get, of its owner", one, built_limited_of_b, INVALIDATE, GET, STEP_MAY_FAIL),
	PAIR("invalidate, invalidate", one, built, INVALIDATE, INVALIDATE, STEP_SLOW),
	PAIR("invalidate, put", one, built, INVALIDATE, PUT, STEP_SLOW),
	PAIR("invalidate, pages", one, built, INVALIDATE, PAGES(20), STEP_MAY_FAIL | STEP_SLOW),
	PAIR("reclaim, get", one, idle_built, RECLAIM, GET, STEP_SLOW),
	PAIR("get, reclaim", one, idle_built, GET, RECLAIM, 0),
};

static const struct step_pair setting[] = {
	PAIR("set a limit, get", one, idle, LIMIT(5), GET, STEP_EITHER | STEP_SLOW),
	PAIR("get, set a limit", one, idle, GET, LIMIT(5), STEP_EITHER),
	PAIR("get, set a limit, unused", one, unused, GET, LIMIT(5), STEP_EITHER | STEP_SLOW),
	PAIR("set a limit, get, unused", one, unused, LIMIT(5), GET, STEP_EITHER | STEP_SLOW),
	PAIR("set a limit, get, objects are out", one, out_of_both, LIMIT(EACH * 2), GET, STEP_EITHER | STEP_SLOW),
	PAIR("get, set a limit, objects are out", one, out_of_both, GET, LIMIT(EACH * 2), STEP_EITHER | STEP_SLOW),
	PAIR("raise the limit, get", one, b_at_limit, LIMIT(EACH + 2), GET, STEP_MAY_FAIL),
	PAIR("get, raise the limit", one, b_at_limit, GET, LIMIT(EACH + 2), STEP_MAY_FAIL | STEP_SLOW),
	/* whose free objects are being destroyed has no object out, and may stay: it needs a place, or keeps the limit away */
	PAIR("invalidate, set a limit", one, idle_built, INVALIDATE, LIMIT(5), STEP_EITHER | STEP_SLOW),
	PAIR("invalidate, set a limit with room", one, idle_built, INVALIDATE, LIMIT(EACH * 2), STEP_SLOW),
	PAIR("invalidate, set a limit, objects are out", one, built, INVALIDATE, LIMIT(EACH * 2), STEP_SLOW),
	PAIR("reclaim, set a limit", one, idle_built, RECLAIM, LIMIT(5), STEP_EITHER | STEP_SLOW),
	PAIR("set a limit, invalidate", one, built, LIMIT(EACH * 2), INVALIDATE, STEP_EITHER | STEP_SLOW),
};

#define TEST(table) \
	static void table##_pairs(void **state) \
	{ \
		(void)state; \
		assert_int_equal(step_run_pairs(table, COUNT(table)), 0); \
	}
TEST(putting)
TEST(limits)
TEST(ends)
TEST(anew)
TEST(constructed)
TEST(setting)

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(putting_pairs),     cmocka_unit_test(limits_pairs),
	                                   cmocka_unit_test(ends_pairs),        cmocka_unit_test(anew_pairs),
	                                   cmocka_unit_test(constructed_pairs), cmocka_unit_test(setting_pairs)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
