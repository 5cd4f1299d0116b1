/* Pairs of operations on the same unit: A stopped at every instruction, the whole of B, the rest of A. */
#include "harness.h"
#include "hp_test.h"

static const struct step_pool small = {.pages = 768, .capacity = 768, .flags = HP_POOL_NO_AUTOGROW};
static const struct step_pool one = {.pages = 64, .capacity = 64, .flags = HP_POOL_NO_AUTOGROW};
static const struct step_pool one_fenced = {.pages = 64, .capacity = 64, .flags = HP_POOL_NO_AUTOGROW | HP_POOL_FENCED};
static const struct step_pool two = {.pages = 128, .capacity = 128, .flags = HP_POOL_NO_AUTOGROW};
static const struct step_pool growing = {.pages = 128, .capacity = 256, .flags = HP_POOL_NO_AUTOGROW};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* A owns a chunk with two blocks; world->x, world->y: its blocks to free. B has a slot. */
static void owner_and_other(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	hp_off x = step_block(w, 0, 3, 0);
	hp_off y = step_block(w, 0, 2, 0);
	if (!w->x) w->x = x;
	w->y = y;
}

static void other_and_owner(struct step_world *w)
{
	step_join(w, 1);
	step_join(w, 0);
	w->y = step_block(w, 1, 3, 0);
	w->x = step_block(w, 1, 2, 0);
}

static void same_block(struct step_world *w)
{
	owner_and_other(w);
	w->y = w->x;
}

static void same_block_of_a_third(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_join(w, 2);
	w->x = w->y = step_block(w, 2, 3, 0);
	step_block(w, 2, 1, 0);
}

static void blocks_of_a_third(struct step_world *w)
{
	same_block_of_a_third(w);
	w->y = step_block(w, 2, 2, 0);
}

/* A's chunks are full; B frees one of A's blocks. */
static void owner_is_full(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_block(w, 0, 61, 0);
	w->y = step_block(w, 0, 3, 0);
}

/* A chunk with no owner, partly used; nothing else is left. */
static void one_abandoned(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_join(w, 2);
	step_block(w, 2, 30, 0);
	step_kill(w, 2);
	STEP_NEED(w, step_call(w, 0, step_recover, 0, 0) == 1);
}

static void one_dead(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_join(w, 2);
	step_block(w, 2, 30, 0);
	step_kill(w, 2);
}

static void one_dead_of_both_classes(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_join(w, 2);
	step_block(w, 2, 30, 0);
	step_block(w, 2, 5, HP_PAGE_PROCESS);
	step_block(w, 2, 70, HP_PAGE_PROCESS);
	step_block(w, 1, 2, 0);
	step_kill(w, 2);
}

/* The only chunk is A's; B must take it. */
static void a_owns_all(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	w->x = step_block(w, 0, 3, 0);
}

static void b_owns_all(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	w->y = step_block(w, 1, 3, 0);
}

static void both_own_nothing(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
}

/* Two chunks, both full but for what B frees; A gives one up when it makes another its own. */
static void giving_up(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_block(w, 0, 64, 0);
	w->y = step_block(w, 0, 64, 0);
	step_block(w, 0, 63, 0);
}

static void long_run(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_join(w, 2);
	w->y = step_block(w, 2, 500, 0);
	step_block(w, 2, 1, 0);
}

static void own_run(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	w->x = step_block(w, 0, 500, 0);
	step_block(w, 0, 1, 0);
}

/* A pool that came and went: the memory that the thread's part in it took is there for its next one. */
static int64_t had_a_pool(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	struct hp_pool_options options = {.struct_size = sizeof options, .size = 1 << 18, .rung = HP_RUNG_4K};
	hp_pool *pool;
	void *block;
	int error = hp_pool_create(&options, &pool);
	if (error == 0) error = hp_page_alloc(pool, HP_PAGE_SIZE, 0, &block);
	return error == 0 ? hp_pool_detach(pool) : error;
}

/* Attached, and no slot yet. What registering maps was mapped before: memory that comes while A is stepped cannot be put
 * back. */
static void not_yet_registered(struct step_world *w)
{
	for (int a = 0; a < 2; a++) {
		step_start(w, a);
		STEP_NEED(w, step_call(w, a, had_a_pool, 0, 0) == 0);
		STEP_NEED(w, step_call(w, a, step_attach, 0, 0) == 0);
	}
}

static void member_and_other(struct step_world *w)
{
	owner_and_other(w);
	step_block(w, 0, 4, HP_PAGE_PROCESS);
}

#define ALLOC(n) \
	{ \
		.run = step_alloc, .x = n, .effect = STEP_ALLOCATES \
	}
#define ALLOC_PROCESS(n) \
	{ \
		.run = step_alloc, .x = n, .y = HP_PAGE_PROCESS, .effect = STEP_ALLOCATES \
	}
#define FREE \
	{ \
		.run = step_free, .effect = STEP_FREES \
	}
#define RECOVER \
	{ \
		.run = step_recover, .x = 1 \
	}
#define TOUCH \
	{ \
		.run = step_touch, .x = 1 \
	}
#define DETACH \
	{ \
		.run = step_detach, .x = 1 \
	}
#define GROW(n) \
	{ \
		.run = step_grow, .x = (n)*HP_PAGE_SIZE, .effect = STEP_GROWS, .pages = n \
	}
#define TRIM(keep, n) \
	{ \
		.run = step_trim, .x = (keep)*HP_PAGE_SIZE, .effect = STEP_TRIMS, .pages = n \
	}

#define PAIR(text, which, set_up, first, second, allowed) \
	{ \
		.name = text, .pool = &which, .setup = set_up, .a = first, .b = second, .flags = allowed \
	}

static const struct step_pair local[] = {
	PAIR("local alloc 1, remote free", small, owner_and_other, ALLOC(1), FREE, 0),
	PAIR("local alloc 3, remote free", small, owner_and_other, ALLOC(3), FREE, 0),
	PAIR("local free, remote free of a neighbour", small, owner_and_other, FREE, FREE, 0),
	PAIR("local free, remote free of the same", small, same_block, FREE, FREE, STEP_SAME_FREE | STEP_RACES),
	PAIR("remote free, local alloc 1", small, other_and_owner, FREE, ALLOC(1), 0),
	PAIR("remote free, local alloc 3", small, other_and_owner, FREE, ALLOC(3), 0),
	PAIR("remote free, local free of a neighbour", small, other_and_owner, FREE, FREE, 0),
	PAIR("two remote frees of one word", small, blocks_of_a_third, FREE, FREE, 0),
	PAIR("two remote frees of the same", small, same_block_of_a_third, FREE, FREE, STEP_SAME_FREE),
	PAIR("remote free, the owner's alloc of 600", small, other_and_owner, FREE, ALLOC(600), 0),
	PAIR("alloc 2 in a full chunk, remote free", one, owner_is_full, ALLOC(2), FREE, STEP_MAY_FAIL),
};

static const struct step_pair chunks[] = {
	PAIR("two registrations", small, not_yet_registered, TOUCH, TOUCH, 0),
	PAIR("two first allocs", two, not_yet_registered, ALLOC(1), ALLOC(1), 0),
	PAIR("adopt, adopt", one, one_abandoned, ALLOC(10), ALLOC(10), STEP_MAY_FAIL),
	PAIR("adopt, remote free", small, blocks_of_a_third, ALLOC(600), FREE, 0),
	PAIR("owner's alloc, take", one, a_owns_all, ALLOC(1), ALLOC(10), STEP_MAY_FAIL),
	PAIR("owner's free, take", one, a_owns_all, FREE, ALLOC(10), STEP_MAY_FAIL),
	PAIR("owner's alloc, take all", one, a_owns_all, ALLOC(1), ALLOC(61), STEP_MAY_FAIL),
	PAIR("take, owner's alloc", one, b_owns_all, ALLOC(10), ALLOC(1), STEP_MAY_FAIL),
	PAIR("take, owner's free", one, b_owns_all, ALLOC(10), FREE, STEP_MAY_FAIL),
	PAIR("take, owner's free, fenced", one_fenced, b_owns_all, ALLOC(10), FREE, STEP_MAY_FAIL),
	PAIR("take, owner's alloc, fenced", one_fenced, b_owns_all, ALLOC(10), ALLOC(1), STEP_MAY_FAIL),
	PAIR("owner's alloc, take, fenced", one_fenced, a_owns_all, ALLOC(1), ALLOC(10), STEP_MAY_FAIL),
	PAIR("giving a chunk up, remote free", small, giving_up, ALLOC(10), FREE, 0),
	PAIR("giving a chunk up, adopt", small, giving_up, ALLOC(10), ALLOC(40), 0),
	PAIR("class PROCESS, class POOL", two, both_own_nothing, ALLOC_PROCESS(5), ALLOC(70), STEP_MAY_FAIL),
	PAIR("class POOL, class PROCESS", two, both_own_nothing, ALLOC(70), ALLOC_PROCESS(5), STEP_MAY_FAIL),
	PAIR("class PROCESS, take", one, a_owns_all, ALLOC_PROCESS(5), ALLOC(10), STEP_MAY_FAIL),
};

static const struct step_pair runs[] = {
	PAIR("run of 8 chunks, alloc 1", small, both_own_nothing, ALLOC(512), ALLOC(1), STEP_MAY_FAIL),
	PAIR("alloc 1, run of 8 chunks", small, both_own_nothing, ALLOC(1), ALLOC(512), 0),
	PAIR("run of 8 chunks, run of 8 chunks", small, both_own_nothing, ALLOC(512), ALLOC(512),
         STEP_MAY_FAIL | STEP_SLOW),
	PAIR("run of 12 chunks, alloc 1", small, both_own_nothing, ALLOC(768), ALLOC(1), STEP_MAY_FAIL | STEP_SLOW),
	PAIR("run of 12 chunks, owner's alloc", small, other_and_owner, ALLOC(600), ALLOC(3), STEP_MAY_FAIL),
	PAIR("run of 3 chunks, free of a run", small, long_run, ALLOC(192), FREE, 0),
	PAIR("run of 11 chunks, free of a run", small, long_run, ALLOC(640), FREE, STEP_MAY_FAIL),
	PAIR("free of a run, alloc 300", small, own_run, FREE, ALLOC(200), 0),
	PAIR("free of a run, alloc 1", small, own_run, FREE, ALLOC(1), 0),
};

static const struct step_pair rare[] = {
	PAIR("recover, recover", small, one_dead_of_both_classes, RECOVER, RECOVER, 0),
	PAIR("recover, alloc 600", small, one_dead_of_both_classes, RECOVER, ALLOC(600), STEP_MAY_FAIL),
	PAIR("recover, alloc from the dead", one, one_dead, RECOVER, ALLOC(20), STEP_MAY_FAIL),
	PAIR("alloc from the dead, recover", one, one_dead, ALLOC(20), RECOVER, STEP_MAY_FAIL),
	PAIR("alloc from the dead, the same", one, one_dead, ALLOC(10), ALLOC(10), STEP_MAY_FAIL),
	PAIR("trim, alloc", small, owner_and_other, TRIM(640, 128), ALLOC(1), 0),
	PAIR("trim, run of 8 chunks", small, both_own_nothing, TRIM(704, 64), ALLOC(512), STEP_MAY_FAIL),
	PAIR("trim, free", two, owner_and_other, TRIM(64, 64), FREE, 0),
	PAIR("alloc 70, trim", small, owner_and_other, ALLOC(70), TRIM(128, 640), STEP_MAY_FAIL),
	PAIR("alloc 1, trim", two, a_owns_all, ALLOC(1), TRIM(64, 64), 0),
	PAIR("detach, alloc", small, member_and_other, DETACH, ALLOC(70), STEP_FRESH),
	PAIR("detach, free", small, member_and_other, DETACH, FREE, STEP_FRESH),
	PAIR("detach, recover", small, member_and_other, DETACH, RECOVER, STEP_FRESH),
	PAIR("grow, alloc", growing, a_owns_all, GROW(64), ALLOC(10), STEP_FRESH),
};

#define TEST(table) \
	static void table##_pairs(void **state) \
	{ \
		(void)state; \
		assert_int_equal(step_run_pairs(table, COUNT(table)), 0); \
	}
TEST(local)
TEST(chunks)
TEST(runs)
TEST(rare)

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(local_pairs), cmocka_unit_test(chunks_pairs),
	                                   cmocka_unit_test(runs_pairs), cmocka_unit_test(rare_pairs)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
