/* Allocating into a shared word and freeing from it, killed at every instruction; and pairs of them, one stopped in
 * the other: the word names a block that is live, or none, and no block is lost, or freed twice. */
#include "harness.h"
#include "hp_test.h"
#include <errno.h>

static const struct step_pool one = {
	.pages = 64, .capacity = 64, .flags = HP_POOL_NO_AUTOGROW, .slabs = true, .caches = true};

/* Two chunks: who needs the other's pages makes it give up its slabs. */
static const struct step_pool two = {
	.pages = 128, .capacity = 128, .flags = HP_POOL_NO_AUTOGROW, .slabs = true, .caches = true};

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define SIZE 8192

static void word_of(struct step_world *w, int a)
{
	for (int i = 0; i < 2; i++) step_join(w, i);
	step_word(w, a);
	w->x = w->word;
}

/* The victim has a slab with objects; the word is empty, or names one of actor a's. */
static void empty_word(struct step_world *w)
{
	word_of(w, 1);
	for (int i = 0; i < 3; i++) step_object(w, 0, SIZE);
	w->y = SIZE;
}

static void first_object(struct step_world *w)
{
	word_of(w, 1);
	w->y = SIZE;
}

static void published(struct step_world *w, int a, unsigned beside)
{
	word_of(w, 1);
	for (unsigned i = 0; i < beside; i++) step_object(w, a, SIZE);
	STEP_NEED(w, step_call(w, a, step_into, w->word, SIZE) == 0);
	w->y = step_word_value(w) & ~UINT64_C(15);
	step_model_add_object(w, w->y, SIZE);
}

static void full_word(struct step_world *w)
{
	published(w, 0, 3);
	w->y = SIZE;
}

static void own_block(struct step_world *w)
{
	published(w, 0, 3);
}

static void own_last_block(struct step_world *w)
{
	published(w, 0, 0);
}

static void others_block(struct step_world *w)
{
	published(w, 1, 3);
	step_object(w, 0, SIZE);
}

static void others_last_block(struct step_world *w)
{
	published(w, 1, 0);
}

static void nobodys_block(struct step_world *w)
{
	published(w, 1, 2);
	STEP_NEED(w, step_call(w, 1, step_detach, 0, 0) == 0);
	step_kill(w, 1);
}

static void nobodys_last_block(struct step_world *w)
{
	published(w, 1, 0);
	STEP_NEED(w, step_call(w, 1, step_detach, 0, 0) == 0);
	step_kill(w, 1);
}

static void dead_ones_block(struct step_world *w)
{
	published(w, 1, 2);
	step_kill(w, 1);
}

/* Actor 1 was freeing from the word, of actor 0's or of its own slab, and died in the middle. */
static bool word_is_claimed(struct step_world *w, int a)
{
	(void)a;
	return (step_word_value(w) & 15) == 2;
}

static bool word_is_pending(struct step_world *w, int a)
{
	(void)a;
	return (step_word_value(w) & 15) == 9;
}

static void died_freeing(struct step_world *w, int owner)
{
	published(w, owner, 2);
	step_join(w, 2);
	step_begin(w, 1, step_from, w->word, 0);
	step_until(w, 1, word_is_claimed);
	step_kill(w, 1);
	STEP_NEED(w, step_model_remove(w, w->y)); /* freed by recovery, whoever recovers */
}

static void died_freeing_others(struct step_world *w)
{
	died_freeing(w, 0);
}

static void died_freeing_own(struct step_world *w)
{
	died_freeing(w, 1);
}

static void died_publishing(struct step_world *w)
{
	word_of(w, 0);
	step_join(w, 2);
	step_object(w, 1, SIZE);
	step_begin(w, 1, step_into, w->word, SIZE);
	step_until(w, 1, word_is_pending);
	step_kill(w, 1);
}

static const struct step_case deaths[] = {
	{"into", &one, empty_word, step_into, .effect = STEP_PUBLISHES},
	{"into, making a slab", &one, first_object, step_into, .effect = STEP_PUBLISHES},
	{"into, not empty", &one, full_word, step_into, .error = -EBUSY},
	{"from, own", &one, own_block, step_from, .effect = STEP_EMPTIES},
	{"from, own, the last", &one, own_last_block, step_from, .effect = STEP_EMPTIES},
	{"from, another's", &one, others_block, step_from, .effect = STEP_EMPTIES},
	{"from, another's last", &one, others_last_block, step_from, .effect = STEP_EMPTIES},
	{"from, nobody's", &one, nobodys_block, step_from, .effect = STEP_EMPTIES},
	{"from, nobody's last", &one, nobodys_last_block, step_from, .effect = STEP_EMPTIES},
	{"from, a dead one's", &one, dead_ones_block, step_from, .effect = STEP_EMPTIES},
	{"recover one that was freeing another's", &one, died_freeing_others, step_recover, .x = 1},
	{"recover one that was freeing its own", &one, died_freeing_own, step_recover, .x = 1},
	{"recover one that was publishing", &one, died_publishing, step_recover, .x = 1},
};

/* ---- pairs ---- */

static void pair_empty(struct step_world *w)
{
	empty_word(w);
	for (int i = 0; i < 3; i++) step_object(w, 1, SIZE);
	w->y = w->x;
}

static void pair_of(struct step_world *w, int a)
{
	published(w, a, 2);
	step_object(w, !a, SIZE);
	w->y = w->x;
}

static void pair_own(struct step_world *w)
{
	pair_of(w, 0);
}

static void pair_others(struct step_world *w)
{
	pair_of(w, 1);
}

static void pair_thirds(struct step_world *w)
{
	for (int i = 0; i < 3; i++) step_join(w, i);
	step_word(w, 0);
	w->x = w->y = w->word;
	for (int i = 0; i < 3; i++) step_object(w, i, SIZE);
	STEP_NEED(w, step_call(w, 2, step_into, w->word, SIZE) == 0);
	step_model_add_object(w, step_word_value(w) & ~UINT64_C(15), SIZE);
}

/* B's slab is full but for what is in the word. */
static void pair_others_full(struct step_world *w)
{
	for (int i = 0; i < 2; i++) step_join(w, i);
	step_word(w, 0);
	w->x = w->word;
	step_use_up(w, 1, SIZE);
	hp_off off = w->block[w->blocks - 1].off;
	step_unobject(w, 1, off);
	STEP_NEED(w, step_call(w, 1, step_into, w->word, SIZE) == 0);
	step_model_add_object(w, step_word_value(w) & ~UINT64_C(15), SIZE);
}

#define INTO \
	{ \
		.run = step_into, .y = SIZE, .effect = STEP_PUBLISHES \
	}
#define FROM \
	{ \
		.run = step_from, .effect = STEP_EMPTIES \
	}
#define MALLOC \
	{ \
		.run = step_malloc, .x = SIZE, .effect = STEP_MALLOCS \
	}
#define PAGES(n) \
	{ \
		.run = step_alloc, .x = n, .effect = STEP_ALLOCATES \
	}
#define PAIR(text, which, set_up, first, second, allowed) \
	{ \
		.name = text, .pool = &which, .setup = set_up, .a = first, .b = second, .flags = allowed \
	}

static const struct step_pair pairs[] = {
	PAIR("into, from", two, pair_empty, INTO, FROM, STEP_EITHER),
	PAIR("into, into", two, pair_empty, INTO, INTO, STEP_ONE),
	PAIR("from, into", two, pair_own, FROM, INTO, STEP_EITHER),
	PAIR("from, from", two, pair_own, FROM, FROM, STEP_ONE),
	PAIR("from another's, into", two, pair_others, FROM, INTO, STEP_EITHER),
	PAIR("from another's, owner's from", two, pair_others, FROM, FROM, STEP_ONE),
	PAIR("owner's from, from another's", two, pair_own, FROM, FROM, STEP_ONE),
	PAIR("from a third's, from a third's", two, pair_thirds, FROM, FROM, STEP_ONE),
	PAIR("from another's, owner's malloc", two, pair_others_full, FROM, MALLOC, 0),
	PAIR("from another's, pages", one, pair_others, FROM, PAGES(20), STEP_MAY_FAIL),
};

static void deaths_in_publication(void **state)
{
	(void)state;
	assert_int_equal(step_run_cases(deaths, COUNT(deaths)), 0);
}

static void pairs_on_one_word(void **state)
{
	(void)state;
	assert_int_equal(step_run_pairs(pairs, COUNT(pairs)), 0);
}

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(deaths_in_publication), cmocka_unit_test(pairs_on_one_word)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
