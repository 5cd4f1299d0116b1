/* Allocating and freeing, killed at every instruction: blocks of every length, chunks of both sizes, from what the
 * thread owns and from what others own. */
#include "harness.h"
#include "hp_test.h"
#include <errno.h>

static const struct step_pool small = {.pages = 768, .capacity = 768, .flags = HP_POOL_NO_AUTOGROW};  /* 12 chunks of 64 */
static const struct step_pool large = {.pages = 2048, .capacity = 32768, .flags = HP_POOL_NO_AUTOGROW}; /* 4 of 512 */

/* The victim owns a chunk with two blocks in it; somebody else has one too. */
static void owner(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_block(w, 1, 2, 0);
	step_block(w, 0, 3, 0);
	hp_off mine = step_block(w, 0, w->y ? w->y : 1, 0);
	if (!w->x) w->x = mine;
	w->y = 0;
}

static const struct step_case local[] = {
    {"alloc 1, local", &small, owner, step_alloc, .x = 1, .effect = STEP_ALLOCATES},
    {"alloc 3, local", &small, owner, step_alloc, .x = 3, .effect = STEP_ALLOCATES},
    {"free 1, local", &small, owner, step_free, .effect = STEP_FREES},
    {"free 3, local", &small, owner, step_free, .y = 3, .effect = STEP_FREES},
};

static void local_operations(void **state)
{
	(void)state;
	assert_int_equal(step_run_cases(local, sizeof local / sizeof *local), 0);
}

int main(void)
{
	(void)large;
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(local_operations)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
