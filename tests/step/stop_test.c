/* A victim stopped at every instruction of an operation stops nobody: while it stands still three others finish a
 * thousand pairs of alloc and free each, and one of them all the memory that is left; then the victim goes on. (It is
 * stopped by ptrace, which stops a process as SIGSTOP does: it keeps its lock, and runs no instruction.) */
#include "harness.h"
#include "hp_test.h"

static const struct step_pool small = {.pages = 768, .capacity = 768, .flags = HP_POOL_NO_AUTOGROW};

#define COUNT(table) (sizeof(table) / sizeof *(table))

static void four(struct step_world *w)
{
	for (int a = 0; a <= 3; a++) {
		step_join(w, a);
		step_block(w, a, (uint64_t)a + 1, 0);
	}
	hp_off block = step_block(w, 0, 2, 0);
	if (!w->x) w->x = block;
}

static void remote(struct step_world *w)
{
	for (int a = 0; a <= 3; a++) step_join(w, a);
	step_block(w, 1, 1, 0);
	w->x = step_block(w, 1, 2, 0);
}

/* The victim must take another chunk. */
static void newcomer(struct step_world *w)
{
	for (int a = 0; a <= 3; a++) step_join(w, a);
	for (int a = 1; a <= 3; a++) step_block(w, a, 1, 0);
}

#define STOPPED(text, set_up, function, arg, what) \
	{ \
		.name = text, .pool = &small, .setup = set_up, .a = {.run = function, .x = arg, .effect = what}, \
		.b = {.run = step_churn, .x = 1000, .y = 1}, .flags = STEP_STOPS \
	}

static const struct step_pair pairs[] = {
	STOPPED("stopped in alloc 1", four, step_alloc, 1, STEP_ALLOCATES),
	STOPPED("stopped in alloc 3", four, step_alloc, 3, STEP_ALLOCATES),
	STOPPED("stopped in a local free", four, step_free, 0, STEP_FREES),
	STOPPED("stopped in a remote free", remote, step_free, 0, STEP_FREES),
	STOPPED("stopped in taking a chunk", newcomer, step_alloc, 1, STEP_ALLOCATES),
	STOPPED("stopped in making a run of 4 chunks", newcomer, step_alloc, 200, STEP_ALLOCATES),
};

static void the_stopped_stop_nobody(void **state)
{
	(void)state;
	assert_int_equal(step_run_pairs(pairs, COUNT(pairs)), 0);
}

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_stopped_stop_nobody)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
