/* Allocating and freeing, killed at every instruction: blocks of every length, chunks of both sizes, in chunks that the
 * thread owns, that nobody owns, that others own or owned, and at the limits of the pool. */
#include "harness.h"
#include "hp_test.h"
#include <errno.h>

static const struct step_pool small = {
	.pages = 768, .capacity = 768, .flags = HP_POOL_NO_AUTOGROW}; /* 12 chunks of 64 */
static const struct step_pool middle = {.pages = 5120, .capacity = 5120, .flags = HP_POOL_NO_AUTOGROW}; /* 80 of 64 */
static const struct step_pool large = {.pages = 2560, .capacity = 32768, .flags = HP_POOL_NO_AUTOGROW}; /* 5 of 512 */
static const struct step_pool fenced = {.pages = 768, .capacity = 768, .flags = HP_POOL_NO_AUTOGROW | HP_POOL_FENCED};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* The victim owns a chunk with a block in it, and has the block to be freed (y pages), or a free chunk's worth. Somebody
 * else owns a chunk too. */
static void owner(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_block(w, 1, 2, 0);
	if (w->x) {
		/* the place had a block of another length before */
		hp_off room = step_block(w, 0, w->x + (w->x <= 60 || w->x == 500), 0);
		step_block(w, 0, 3, 0);
		step_unblock(w, 0, room);
		return;
	}
	w->x = step_block(w, 0, w->y, 0);
	w->y = 0;
}

/* The block to be freed belongs to a chunk that another process owns. */
static void owned_by_another(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_block(w, 0, 3, 0);
	step_block(w, 1, 2, 0);
	w->x = step_block(w, 1, w->y, 0);
	w->y = 0;
}

/* Its owner is dead. */
static void owned_by_a_dead_one(struct step_world *w)
{
	owned_by_another(w);
	step_kill(w, 1);
}

/* The victim has a slot, and owns nothing. */
static void newcomer(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_block(w, 1, 2, 0);
}

static void unregistered(struct step_world *w)
{
	step_start(w, 0);
	STEP_NEED(w, step_call(w, 0, step_attach, 0, 0) == 0);
	step_join(w, 1);
	step_block(w, 1, 2, 0);
}

/* The victim's active chunk is full, so that the next allocation makes another the active one, and its second such
 * allocation gives the spare one up. */
static void full_chunks(struct step_world *w)
{
	step_join(w, 0);
	for (int i = 0; i < 2; i++) step_block(w, 0, 64, 0);
	step_block(w, 0, 62, 0);
}

/* Chunks that were used before and have no owner, partly used, none wholly free. */
static void abandoned(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	for (int i = 0; i < 11; i++) {
		step_block(w, 1, 40 + (uint64_t)i % 3, 0);
		if (i % 2) step_block(w, 1, 5, 0);
	}
	step_kill(w, 1);
	STEP_NEED(w, step_call(w, 0, step_recover, 0, 0) == 1);
	step_join(w, 1);
	step_block(w, 1, 30, 0);
}

/* The same, but nobody has noticed yet that the owner is dead, and there is nothing else. */
static void dead_owner_of_all(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_block(w, 1, 40, 0);
	step_block(w, 1, 60, 0);
	step_join(w, 2);
	for (int i = 0; i < 10; i++) step_block(w, 2, 64, 0);
	step_kill(w, 1);
}

/* A sleeping owner has what is left. */
static void sleeping_owner(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_block(w, 1, 40, 0);
	step_block(w, 1, 60, 0);
	step_join(w, 2);
	for (int i = 0; i < 10; i++) step_block(w, 2, 64, 0);
}

/* Three sleeping owners have chunks where the run must go. */
static void sleeping_owners(struct step_world *w)
{
	hp_off freed[3];
	step_join(w, 0);
	for (int a = 1; a <= 3; a++) {
		step_join(w, a);
		freed[a - 1] = step_block(w, a, 1, 0);
	}
	for (int a = 1; a <= 3; a++) step_unblock(w, a, freed[a - 1]);
}

/* Nothing is left but less than what is asked for. */
static void nearly_full(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	for (int i = 0; i < 11; i++) step_block(w, i & 1, 64, 0);
	step_block(w, 1, 60, 0);
}

static void own_process_block(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_block(w, 1, 4, HP_PAGE_PROCESS);
	step_block(w, 1, 4, 0);
	step_block(w, 0, 2, HP_PAGE_PROCESS);
	step_block(w, 0, 3, 0);
	if (!w->x) {
		w->x = step_block(w, 0, w->y, HP_PAGE_PROCESS);
		w->y = 0;
	}
}

static const struct step_case local[] = {
	{"alloc 1, local", &small, owner, step_alloc, .x = 1, .effect = STEP_ALLOCATES},
	{"alloc 3, local", &small, owner, step_alloc, .x = 3, .effect = STEP_ALLOCATES},
	{"alloc 60, local", &small, owner, step_alloc, .x = 60, .effect = STEP_ALLOCATES},
	{"free 1, local", &small, owner, step_free, .y = 1, .effect = STEP_FREES},
	{"free 3, local", &small, owner, step_free, .y = 3, .effect = STEP_FREES},
	{"free 64, local", &small, owner, step_free, .y = 64, .effect = STEP_FREES},
	{"alloc 1, local, chunks of 512", &large, owner, step_alloc, .x = 1, .effect = STEP_ALLOCATES},
	{"alloc 3, local, chunks of 512", &large, owner, step_alloc, .x = 3, .effect = STEP_ALLOCATES},
	{"alloc 500, local, chunks of 512", &large, owner, step_alloc, .x = 500, .effect = STEP_ALLOCATES},
	{"free 1, local, chunks of 512", &large, owner, step_free, .y = 1, .effect = STEP_FREES},
	{"free 512, local, chunks of 512", &large, owner, step_free, .y = 512, .effect = STEP_FREES},
	{"alloc 1, local, fenced", &fenced, owner, step_alloc, .x = 1, .effect = STEP_ALLOCATES},
	{"free 1, local, fenced", &fenced, owner, step_free, .y = 1, .effect = STEP_FREES},
	{"alloc 1 page zeroed, local", &small, owner, step_alloc, .x = 1, .y = HP_PAGE_ZERO, .effect = STEP_ALLOCATES},
};

static const struct step_case remote[] = {
	{"free 1, remote", &small, owned_by_another, step_free, .y = 1, .effect = STEP_FREES},
	{"free 3, remote", &small, owned_by_another, step_free, .y = 3, .effect = STEP_FREES},
	{"free 512, remote, 9 chunks", &middle, owned_by_another, step_free, .y = 512, .effect = STEP_FREES},
	{"free 513, remote, 9 chunks", &middle, owned_by_another, step_free, .y = 513, .effect = STEP_FREES},
	{"free 1500, remote, 24 chunks", &middle, owned_by_another, step_free, .y = 1500, .effect = STEP_FREES},
	{"free 3, remote, chunks of 512", &large, owned_by_another, step_free, .y = 3, .effect = STEP_FREES},
	{"free 512, remote, chunks of 512", &large, owned_by_another, step_free, .y = 512, .effect = STEP_FREES},
	{"free 1500, remote, chunks of 512", &large, owned_by_another, step_free, .y = 1500, .effect = STEP_FREES},
	{"free 3 of a dead owner", &small, owned_by_a_dead_one, step_free, .y = 3, .effect = STEP_FREES},
	{"free 1500 of a dead owner", &middle, owned_by_a_dead_one, step_free, .y = 1500, .effect = STEP_FREES},
	{"free 513, own run", &middle, owner, step_free, .y = 513, .effect = STEP_FREES},
};

static const struct step_case chunks[] = {
	{"slot registration", &small, unregistered, step_touch, .effect = STEP_NONE},
	{"registration and alloc 1", &small, unregistered, step_alloc, .x = 1, .effect = STEP_ALLOCATES},
	{"free 3 without a slot", &small, owned_by_another, step_free, .y = 3, .effect = STEP_FREES},
	{"alloc 1, taking an unowned chunk", &small, newcomer, step_alloc, .x = 1, .effect = STEP_ALLOCATES},
	{"alloc 64, taking an unowned chunk", &small, newcomer, step_alloc, .x = 64, .effect = STEP_ALLOCATES},
	{"alloc 512, taking an unowned chunk of 512", &large, newcomer, step_alloc, .x = 512, .effect = STEP_ALLOCATES},
	{"alloc 3, giving up a full chunk", &small, full_chunks, step_alloc, .x = 3, .effect = STEP_ALLOCATES},
	{"alloc 10, adopting an abandoned chunk", &small, abandoned, step_alloc, .x = 10, .effect = STEP_ALLOCATES},
	{"alloc 24, adopting an abandoned chunk", &small, abandoned, step_alloc, .x = 24, .effect = STEP_ALLOCATES},
	{"alloc 20, recovering a dead owner", &small, dead_owner_of_all, step_alloc, .x = 20, .effect = STEP_ALLOCATES},
	{"alloc 20, taking from a sleeping owner", &small, sleeping_owner, step_alloc, .x = 20, .effect = STEP_ALLOCATES,
     .flags = STEP_TAKES},
	{"alloc 600, taking from three sleeping owners", &small, sleeping_owners, step_alloc, .x = 600,
     .effect = STEP_ALLOCATES, .flags = STEP_TAKES},
	{"alloc 768, taking everything", &small, sleeping_owners, step_alloc, .x = 768, .effect = STEP_ALLOCATES,
     .flags = STEP_TAKES},
	{"alloc 20, out of memory", &small, nearly_full, step_alloc, .x = 20, .effect = STEP_NONE,
     .flags = STEP_FAILS | STEP_TAKES},
};

static const struct step_case runs[] = {
	{"alloc 65", &small, owner, step_alloc, .x = 65, .effect = STEP_ALLOCATES},
	{"alloc 512, 8 chunks", &middle, newcomer, step_alloc, .x = 512, .effect = STEP_ALLOCATES},
	{"alloc 513, 9 chunks", &middle, newcomer, step_alloc, .x = 513, .effect = STEP_ALLOCATES},
	{"alloc 1500, 24 chunks", &middle, newcomer, step_alloc, .x = 1500, .effect = STEP_ALLOCATES},
	{"alloc 1500, 24 chunks, some its own", &middle, owner, step_alloc, .x = 1500, .effect = STEP_ALLOCATES},
	{"alloc 513, chunks of 512", &large, newcomer, step_alloc, .x = 513, .effect = STEP_ALLOCATES},
	{"alloc 1500, chunks of 512", &large, newcomer, step_alloc, .x = 1500, .effect = STEP_ALLOCATES},
};

static const struct step_case process[] = {
	{"alloc 1, class PROCESS, local", &small, own_process_block, step_alloc, .x = 1, .y = HP_PAGE_PROCESS},
	{"alloc 64, class PROCESS", &small, own_process_block, step_alloc, .x = 64, .y = HP_PAGE_PROCESS},
	{"alloc 200, class PROCESS", &small, own_process_block, step_alloc, .x = 200, .y = HP_PAGE_PROCESS},
	{"free 2, class PROCESS", &small, own_process_block, step_free, .y = 2, .effect = STEP_FREES},
	{"free 200, class PROCESS", &small, own_process_block, step_free, .y = 200, .effect = STEP_FREES},
};

/* A run of 6 chunks is wanted of a pool of 13. Actor 1 owns chunk y, which lies where the run would begin, is free, and
 * cannot be taken, since actor 1 is stopped inside an operation; the run must go elsewhere, and there take two chunks
 * of actor 2. So the victim owns y chunks and rolls back, whatever y, and nothing of actor 1 may change. */
static void in_the_way(struct step_world *w)
{
	hp_off block[13], chunk = 64 * HP_PAGE_SIZE;
	uint64_t y = w->y;
	step_join(w, 3);
	for (unsigned i = 0; i < 13; i++) step_block(w, 3, 64, 0);
	for (unsigned i = 0; i < 13; i++) block[i] = i * chunk;
	if (y > 0) { /* the run begins in a chunk that somebody has a block in */
		step_unblock(w, 3, block[0]);
		STEP_NEED(w, step_block(w, 3, 10, 0) == 0);
	}
	for (int a = 1; a <= 2; a++) step_join(w, a);
	step_unblock(w, 3, block[y]);
	hp_off bait = step_block(w, 1, 1, 0);
	STEP_NEED(w, bait / chunk == y);
	step_unblock(w, 3, block[6]);
	hp_off first = step_block(w, 2, 64, 0);
	step_unblock(w, 3, block[7]);
	hp_off second = step_block(w, 2, 64, 0);
	STEP_NEED(w, first / chunk == 6 && second / chunk == 7);
	step_unblock(w, 2, first);
	step_unblock(w, 2, second);
	step_unblock(w, 1, bait);
	for (unsigned i = 0; i < 13; i++)
		if (i != y && i != 6 && i != 7 && (y == 0 || i > 0)) step_unblock(w, 3, block[i]);
	step_kill(w, 3);
	step_join(w, 0); /* and recovers */
	step_begin(w, 1, step_alloc, 1, 0);
	while (!step_inside(w, 1)) STEP_NEED(w, step_one(w, 1));
	w->y = 0;
}

static const struct step_pool thirteen = {.pages = 832, .capacity = 832, .flags = HP_POOL_NO_AUTOGROW};
#define IN_THE_WAY(chunk) \
	{ \
		"run of 6 chunks, chunk " #chunk " is somebody's", &thirteen, in_the_way, step_alloc, \
			.x = 384, .y = chunk, .effect = STEP_ALLOCATES, .flags = STEP_BUSY | STEP_TAKES | STEP_ALONE \
	}

static const struct step_case conflicts[] = {
	IN_THE_WAY(0), IN_THE_WAY(1), IN_THE_WAY(2), IN_THE_WAY(3), IN_THE_WAY(4), IN_THE_WAY(5),
};

#define TEST(table) \
	static void table##_operations(void **state) \
	{ \
		(void)state; \
		assert_int_equal(step_run_cases(table, COUNT(table)), 0); \
	}
TEST(local)
TEST(remote)
TEST(chunks)
TEST(runs)
TEST(process)
TEST(conflicts)

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(local_operations),   cmocka_unit_test(remote_operations),
		cmocka_unit_test(chunks_operations),  cmocka_unit_test(runs_operations),
		cmocka_unit_test(process_operations), cmocka_unit_test(conflicts_operations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
