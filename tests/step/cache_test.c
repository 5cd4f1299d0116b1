/* Caches, killed at every instruction: making, opening, ending, limiting; getting and putting, singly, in bulk and
 * in arrays, own, others' and nobody's, at a limit, constructed; priming, reclaiming, invalidating. After each death
 * the limit holds, all it allows can be had, and nothing is destroyed twice. Objects have 4 KiB, 16 to a slab, so
 * that a pool has few. */
#include "harness.h"
#include "hp_test.h"
#include <errno.h>

#define NO_GROWTH .flags = HP_POOL_NO_AUTOGROW, .slabs = true, .caches = true
static const struct step_pool one = {.pages = 64, .capacity = 64, NO_GROWTH};
static const struct step_pool two = {.pages = 128, .capacity = 128, NO_GROWTH};

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define SIZE 4096
#define EACH 16 /* to a slab */

/* Actors 0 and 1 have the cache open, and each a slab of its own, with `mine` and `others` objects out. */
static void cache_of(struct step_world *w, uint64_t flags, unsigned mine, unsigned others)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_cache(w, 1, SIZE, flags);
	step_opens(w, 0);
	for (int a = 1; a >= 0; a--) {
		unsigned count = a ? others : mine;
		if (count == 0) step_put(w, a, step_get(w, a)); /* one slab, and nothing out */
		while (count--) step_get(w, a);
	}
}

static hp_off last(struct step_world *w)
{
	return w->block[w->blocks - 1].off;
}

/* ---- the table of caches ---- */

static void no_caches(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
}

static void one_cache(struct step_world *w)
{
	cache_of(w, 0, 1, 1);
}

static void one_built(struct step_world *w)
{
	cache_of(w, STEP_BUILT, 1, 1);
	w->x = STEP_BUILT;
}

static void idle_cache(struct step_world *w)
{
	cache_of(w, 0, 0, 0);
}

static void idle_built(struct step_world *w)
{
	cache_of(w, STEP_BUILT, 0, 0);
}

static void new_cache(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_cache(w, 0, SIZE, 0);
}

static void one_object_out(struct step_world *w)
{
	cache_of(w, 0, 0, 1);
}

static void one_built_out(struct step_world *w)
{
	cache_of(w, STEP_BUILT, 0, 1);
}

static void owner_gone(struct step_world *w)
{
	cache_of(w, 0, 0, 1);
	step_put(w, 1, w->block[0].off);
	step_kill(w, 1);
}

/* One who was destroying what is free in a slab without objects out has died. */
static void dead_destroyer(struct step_world *w)
{
	cache_of(w, STEP_BUILT, 0, 0);
	step_begin(w, 1, step_cache_invalidate, 0, 0);
	step_until(w, 1, step_slab_held);
	step_kill(w, 1);
}

static const struct step_case table[] = {
	{"create", &one, one_cache, step_cache_make, .x = 100, .effect = STEP_MAKES},
	{"create, the first", &one, no_caches, step_cache_make, .x = 100, .effect = STEP_MAKES},
	{"open", &one, one_cache, step_cache_reopen, .effect = STEP_NONE},
	{"open, constructed", &one, one_built, step_cache_reopen, .flags = STEP_FEWER},
	{"destroy, never used", &one, new_cache, step_cache_destroy, .effect = STEP_ENDS},
	{"destroy, with slabs", &one, idle_cache, step_cache_destroy, .effect = STEP_ENDS, .flags = STEP_TAKES},
	{"destroy, of a dead owner", &one, owner_gone, step_cache_destroy, .effect = STEP_ENDS, .flags = STEP_TAKES},
	{"destroy, constructed", &one, idle_built, step_cache_destroy, .effect = STEP_ENDS, .flags = STEP_TAKES},
	{"destroy, of a dead destroyer", &one, dead_destroyer, step_cache_destroy, .effect = STEP_ENDS,
     .flags = STEP_TAKES},
	{"destroy, one is out", &one, one_object_out, step_cache_destroy, .flags = STEP_TAKES, .error = -EBUSY},
	{"destroy, constructed, one is out", &one, one_built_out, step_cache_destroy, .flags = STEP_TAKES | STEP_FEWER,
     .error = -EBUSY},
};

/* ---- the limit ---- */

static void unlimited(struct step_world *w)
{
	cache_of(w, 0, 0, 0);
}

/* One object of each actor is out. */
static void some_out(struct step_world *w)
{
	cache_of(w, 0, 1, 1);
}

/* The same, at a limit that leaves room for four slabs. */
static void some_out_limited(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_cache(w, 0, SIZE, 0);
	step_opens(w, 1);
	step_limit(w, 0, EACH * 4);
	for (int a = 0; a < 2; a++) step_get(w, a);
}

/* All 5 are out. */
static void at_five(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_cache(w, 0, SIZE, 0);
	step_opens(w, 1);
	step_limit(w, 0, 5);
	step_get_all(w, 1);
	STEP_NEED(w, w->blocks == 5);
}

/* Another's slab has one left. */
static void all_but_one(struct step_world *w)
{
	at_five(w);
	step_put(w, 1, last(w));
}

/* The same; its owner has died. */
static void all_but_one_dead(struct step_world *w)
{
	all_but_one(w);
	step_kill(w, 1);
}

/* One slab is full, and there is a place for another. */
static void room_for_another(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_cache(w, 0, SIZE, 0);
	step_opens(w, 1);
	step_limit(w, 0, EACH + 3);
	for (unsigned i = 0; i < EACH; i++) step_get(w, 0);
}

/* The same, but all places are taken by slabs without objects. */
static void empty_at_limit(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_cache(w, 0, SIZE, 0);
	step_opens(w, 1);
	step_limit(w, 0, 5);
	step_put(w, 1, step_get(w, 1));
}

static const struct step_case limits[] = {
	{"set a limit", &one, unlimited, step_cache_limit, .x = 5, .effect = STEP_LIMITS, .flags = STEP_TAKES, .bytes = 5},
	{"set a limit, never used", &one, new_cache, step_cache_limit, .x = EACH + 3, .effect = STEP_LIMITS,
     .bytes = EACH + 3},
	{"set a limit, objects are out", &one, some_out, step_cache_limit, .x = EACH * 2 + 3, .effect = STEP_LIMITS,
     .flags = STEP_TAKES, .bytes = EACH * 2 + 3},
	{"lower the limit, objects are out", &one, some_out_limited, step_cache_limit, .x = EACH * 2, .effect = STEP_LIMITS,
     .flags = STEP_TAKES, .bytes = EACH * 2},
	{"set a limit, too many slabs", &one, some_out, step_cache_limit, .x = EACH, .flags = STEP_TAKES, .error = -EBUSY},
	{"set a limit, of a dead destroyer", &one, dead_destroyer, step_cache_limit, .x = 5, .effect = STEP_LIMITS,
     .flags = STEP_TAKES, .bytes = 5},
	{"raise the limit", &one, at_five, step_cache_limit, .x = EACH + 3, .effect = STEP_LIMITS, .bytes = EACH + 3},
	{"get at the limit, another's", &one, all_but_one, step_cache_get, .effect = STEP_GETS, .flags = STEP_TAKES},
	{"get at the limit, a dead one's", &one, all_but_one_dead, step_cache_get, .effect = STEP_GETS,
     .flags = STEP_TAKES},
	{"get at the limit, place and slab", &one, room_for_another, step_cache_get, .effect = STEP_GETS},
	{"get at the limit, another's empty slab", &one, empty_at_limit, step_cache_get, .effect = STEP_GETS,
     .flags = STEP_TAKES},
	{"get at the limit, refused", &one, at_five, step_cache_get, .flags = STEP_TAKES, .error = -EAGAIN},
	{"prime beyond the limit", &one, room_for_another, step_cache_prime, .x = EACH, .error = -EAGAIN},
};

/* ---- one object ---- */

static void has_one(struct step_world *w)
{
	cache_of(w, 0, 3, 1);
	if (!w->x) w->x = last(w);
}

static void others_one(struct step_world *w)
{
	cache_of(w, 0, 1, 3);
	w->x = w->block[0].off == 0 ? w->block[1].off : w->block[0].off;
}

static void last_of_nobodys(struct step_world *w)
{
	cache_of(w, 0, 1, 1);
	w->x = w->block[0].off; /* actor 1's: the first that was got */
	STEP_NEED(w, step_call(w, 1, step_detach, 0, 0) == 0);
	step_kill(w, 1);
}

/* Next is an object that was constructed. */
static void built_before(struct step_world *w)
{
	cache_of(w, STEP_BUILT, 3, 1);
	step_put(w, 0, last(w));
}

static void built_raw(struct step_world *w)
{
	cache_of(w, STEP_BUILT, 3, 1);
}

static void built_first(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_cache(w, 1, SIZE, STEP_BUILT);
	step_opens(w, 0);
}

static void built_out(struct step_world *w)
{
	cache_of(w, STEP_BUILT, 3, 1);
	if (!w->x) w->x = last(w);
}

/* What is next was constructed before an invalidation, and was out then. */
static void built_long_ago(struct step_world *w)
{
	cache_of(w, STEP_BUILT, 3, 1);
	hp_off off = last(w);
	STEP_NEED(w, step_call(w, 0, step_cache_invalidate, 0, 0) == 0);
	for (unsigned i = 0; i < EACH - 1; i++) step_get(w, 0); /* or another would be next */
	step_put(w, 0, off);
}

static void built_cached(struct step_world *w)
{
	cache_of(w, STEP_BUILT, 3, 3);
	step_put(w, 0, last(w));
	step_put(w, 1, w->block[0].off);
}

static const struct step_case singles[] = {
	{"get", &one, has_one, step_cache_get, .effect = STEP_GETS},
	{"put", &one, has_one, step_cache_put, .effect = STEP_PUTS},
	{"put, another's", &one, others_one, step_cache_put, .effect = STEP_PUTS},
	{"put, the last of nobody's slab", &one, last_of_nobodys, step_cache_put, .effect = STEP_PUTS},
	{"get, constructed", &one, built_before, step_cache_get, .effect = STEP_GETS},
	{"get, constructing", &one, built_raw, step_cache_get, .effect = STEP_GETS},
	{"get, constructing, the first slab", &one, built_first, step_cache_get, .effect = STEP_GETS},
	{"get, destroying and constructing", &one, built_long_ago, step_cache_get, .effect = STEP_GETS},
	{"put, constructed", &one, built_out, step_cache_put, .effect = STEP_PUTS},
	{"invalidate", &one, built_cached, step_cache_invalidate, .effect = STEP_RENEWS, .flags = STEP_TAKES},
	{"reclaim", &one, idle_cache, step_cache_reclaim, .flags = STEP_TAKES},
	{"reclaim, constructed", &one, idle_built, step_cache_reclaim, .flags = STEP_TAKES},
	{"reclaim, of a dead owner", &one, owner_gone, step_cache_reclaim, .flags = STEP_TAKES},
	{"prime", &two, has_one, step_cache_prime, .x = 3 * EACH},
	{"prime, constructed", &two, built_out, step_cache_prime, .x = 2 * EACH},
};

/* ---- many ---- */

/* Small ones, 256 to a slab. */
static void small_of(struct step_world *w, unsigned mine, unsigned others)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_cache(w, 1, 256, 0);
	step_opens(w, 0);
	for (unsigned i = 0; i < others; i++) step_get(w, 1);
	for (unsigned i = 0; i < mine; i++) step_get(w, 0);
}

/* Beyond what is at hand, into the next word. */
static void small_ones(struct step_world *w)
{
	small_of(w, 50, 1);
}

/* The list has objects of `mine` of the victim's and then of `others` of the other's. */
static void to_be_put(struct step_world *w, unsigned mine, unsigned others)
{
	hp_off of[2][80];
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_cache(w, 1, 256, 0);
	step_opens(w, 0);
	for (unsigned i = 0; i < 80; i++) of[1][i] = step_get(w, 1);
	for (unsigned i = 0; i < 80; i++) of[0][i] = step_get(w, 0);
	/* across the border of two words, which lies at 64 */
	for (unsigned i = 0; i < mine; i++) w->may_go[w->going++] = of[0][70 - i];
	for (unsigned i = 0; i < others; i++) w->may_go[w->going++] = of[1][60 + i];
	for (unsigned i = 0; i < w->going; i++) w->actor[0].list[i] = w->may_go[i];
	w->y = w->going;
	w->x = 0;
}

/* The victim has taken 12 by one call, from entries of its magazine, and put and got them once more; three others of the
 * same word live. */
static void got_together(struct step_world *w)
{
	small_of(w, 0, 1);
	STEP_NEED(w, step_call(w, 0, step_cache_get_bulk, 40, 0) == 0);
	STEP_NEED(w, step_call(w, 0, step_cache_put_bulk, 0, 40) == 0);
	for (int i = 0; i < 3; i++) step_get(w, 0);
	for (int i = 0; i < 2; i++) {
		STEP_NEED(w, step_call(w, 0, step_cache_get_bulk, 12, 0) == 0);
		if (i == 0) STEP_NEED(w, step_call(w, 0, step_cache_put_bulk, 0, 12) == 0);
	}
}

static void together_to_get(struct step_world *w)
{
	got_together(w);
	STEP_NEED(w, step_call(w, 0, step_cache_put_bulk, 0, 12) == 0);
}

static void together_to_put(struct step_world *w)
{
	got_together(w);
	for (unsigned i = 0; i < 12; i++) {
		w->may_go[w->going++] = w->actor[0].list[i];
		step_model_add_cached(w, w->actor[0].list[i]);
	}
	w->x = 0;
	w->y = w->going;
}

static void own_to_put(struct step_world *w)
{
	to_be_put(w, 12, 0);
}

static void others_to_put(struct step_world *w)
{
	to_be_put(w, 0, 12);
}

static void all_sorts_to_put(struct step_world *w)
{
	to_be_put(w, 9, 9);
}

/* By turns, so that no two that follow each other lie in one word. */
static void by_turns_to_put(struct step_world *w)
{
	to_be_put(w, 6, 6);
	for (unsigned i = 0; i < 6; i++) {
		w->actor[0].list[2 * i] = w->may_go[6 + i];
		w->actor[0].list[2 * i + 1] = w->may_go[i];
	}
}

static void array_of(struct step_world *w, int a, unsigned count)
{
	small_of(w, a == 0 ? 5 : 1, a ? 5 : 1);
	STEP_NEED(w, step_call(w, a, step_cache_get_array, count, 0) == 0);
	for (unsigned i = 0; i < count; i++) {
		step_model_add_cached(w, w->actor[a].list[i]);
		w->may_go[w->going++] = w->actor[a].list[i];
	}
	w->x = w->may_go[0];
	w->y = count;
}

static void own_array(struct step_world *w)
{
	array_of(w, 0, 7);
}

static void others_array(struct step_world *w)
{
	array_of(w, 1, 7);
}

static void newcomers(struct step_world *w)
{
	small_of(w, 0, 1);
}

static const struct step_case many[] = {
	{"get_bulk", &one, small_ones, step_cache_get_bulk, .x = 40, .effect = STEP_GETS, .count = 40},
	{"get_bulk, the first slab", &one, newcomers, step_cache_get_bulk, .x = 20, .effect = STEP_GETS, .count = 20},
	{"get_bulk, what was together", &one, together_to_get, step_cache_get_bulk, .x = 12, .effect = STEP_GETS,
     .count = 12},
	{"get_bulk, beyond the limit", &one, all_but_one, step_cache_get_bulk, .x = 3, .effect = STEP_GETS, .count = 1,
     .flags = STEP_TAKES | STEP_UNDOES, .error = -EAGAIN},
	{"put_bulk, what was together", &one, together_to_put, step_cache_put_bulk, .effect = STEP_PUTS, .count = 12},
	{"put_bulk, own", &one, own_to_put, step_cache_put_bulk, .effect = STEP_PUTS, .count = 12},
	{"put_bulk, another's", &one, others_to_put, step_cache_put_bulk, .effect = STEP_PUTS, .count = 12},
	{"put_bulk, mixed", &one, all_sorts_to_put, step_cache_put_bulk, .effect = STEP_PUTS, .count = 18},
	{"put_bulk, by turns", &one, by_turns_to_put, step_cache_put_bulk, .effect = STEP_PUTS, .count = 12},
	{"get_array", &one, small_ones, step_cache_get_array, .x = 10, .effect = STEP_GETS, .count = 10,
     .flags = STEP_WHOLE},
	{"get_array, making a slab", &one, newcomers, step_cache_get_array, .x = 33, .effect = STEP_GETS, .count = 33,
     .flags = STEP_WHOLE},
	{"put_array", &one, own_array, step_cache_put_array, .effect = STEP_PUTS, .count = 7, .flags = STEP_WHOLE},
	{"put_array, another's", &one, others_array, step_cache_put_array, .effect = STEP_PUTS, .count = 7,
     .flags = STEP_WHOLE},
};

#define TEST(name) \
	static void name##_operations(void **state) \
	{ \
		(void)state; \
		assert_int_equal(step_run_cases(name, COUNT(name)), 0); \
	}
TEST(table)
TEST(limits)
TEST(singles)
TEST(many)

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(table_operations), cmocka_unit_test(limits_operations),
	                                   cmocka_unit_test(singles_operations), cmocka_unit_test(many_operations)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
