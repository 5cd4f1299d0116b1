/* Recovery, whose recoverer is killed at every instruction; then, at a sample of those, the recovery of that recoverer by
 * a third, itself killed at every instruction. The first dead one dies in every awkward place. */
#include "harness.h"
#include "hp_test.h"

static const struct step_pool fixed = {.pages = 768, .capacity = 768, .flags = HP_POOL_NO_AUTOGROW};
static const struct step_pool growing = {.pages = 512, .capacity = 1024, .flags = HP_POOL_NO_AUTOGROW};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* Actors 0 and 1 recover, 2 dies, 3 looks on and owns something. */
static void company(struct step_world *w)
{
	for (int a = 0; a <= 3; a++) step_join(w, a);
	step_block(w, 3, 3, 0);
	step_block(w, 3, 2, HP_PAGE_PROCESS);
	step_block(w, 0, 1, 0);
	step_block(w, 2, 5, 0);
	step_block(w, 2, 63, 0);
}

static void holder(struct step_world *w)
{
	company(w);
	step_block(w, 2, 4, HP_PAGE_PROCESS);
	step_block(w, 2, 70, HP_PAGE_PROCESS);
	step_kill(w, 2);
}

static void dies_at(struct step_world *w, step_fn *fn, uint64_t x, uint64_t y, bool (*there)(struct step_world *, int))
{
	step_begin(w, 2, fn, x, y);
	step_until(w, 2, there);
	step_kill(w, 2);
}

/* It has claimed some chunks of a run of four or five. */
static bool has_claimed(struct step_world *w, int a)
{
	int record = step_record(w, w->control, a);
	unsigned owned = 0;
	for (uint32_t i = 0; i < w->geometry.chunks; i++) {
		uint64_t ctl = atomic_load(&step_chunks(w)[i].ctl);
		owned += ctl_state(ctl) == CTL_OWNED &&
		         (int)slot_record(atomic_load(&step_slots(w)[ctl_owner(ctl) - 1].word)) == record;
	}
	return owned >= 4;
}

static void claimer(struct step_world *w)
{
	company(w);
	dies_at(w, step_alloc, 250, 0, has_claimed);
}

/* It has marked another, to take from it. */
static bool has_marked(struct step_world *w, int a)
{
	(void)a;
	for (uint32_t i = 0; i < w->geometry.slots; i++)
		if (atomic_load(&step_slots(w)[i].taker) >> 32) return true;
	return false;
}

static void taker(struct step_world *w)
{
	hp_off off[4];
	for (int a = 0; a <= 3; a++) {
		step_join(w, a);
		off[a] = step_block(w, a, 1, 0);
	}
	for (int a = 0; a <= 3; a++) step_unblock(w, a, off[a]);
	dies_at(w, step_alloc, 768, 0, has_marked);
}

/* It was leaving by itself. */
static bool is_leaving(struct step_world *w, int a)
{
	(void)a;
	for (uint32_t i = 0; i < w->geometry.records; i++)
		if (record_state(atomic_load(&step_records(w)[i].word)) == RECORD_RECOVERING) return true;
	return false;
}

static void leaver(struct step_world *w)
{
	company(w);
	step_block(w, 2, 4, HP_PAGE_PROCESS);
	dies_at(w, step_detach, 0, 0, is_leaving);
}

/* It was recovering another: chunks of class PROCESS, in the middle. */
static bool is_freeing(struct step_world *w, int a)
{
	(void)a;
	for (uint32_t i = 0; i < w->geometry.chunks; i++)
		if (ctl_state(atomic_load(&step_chunks(w)[i].ctl)) == CTL_RECOVERING) return true;
	return false;
}

static void recoverer(struct step_world *w)
{
	company(w);
	step_join(w, 4);
	step_block(w, 4, 4, HP_PAGE_PROCESS);
	step_block(w, 4, 130, HP_PAGE_PROCESS);
	step_kill(w, 4);
	dies_at(w, step_recover, 0, 0, is_freeing);
}

/* It was growing. */
static bool has_locked(struct step_world *w, int a)
{
	(void)a;
	return atomic_load(&step_header(w)->growth_lock) >> 48;
}

static bool populates(struct step_world *w, int a)
{
	(void)a;
	return atomic_load(&step_header(w)->plan_phase) == PLAN_POPULATING;
}

static bool has_populated(struct step_world *w, int a)
{
	(void)a;
	off_t end = (off_t)(512 + 128) * HP_PAGE_SIZE;
	return populates(w, a) && lseek(w->fds[2], end - HP_PAGE_SIZE, SEEK_DATA) == end - HP_PAGE_SIZE;
}

static bool publishes(struct step_world *w, int a)
{
	(void)a;
	return atomic_load(&step_header(w)->plan_phase) == PLAN_PUBLISHING;
}

static bool has_published_one(struct step_world *w, int a)
{
	return publishes(w, a) && ctl_state(atomic_load(&step_chunks(w)[8].ctl)) != CTL_UNCOMMITTED;
}

static void grower(struct step_world *w, bool (*there)(struct step_world *, int), uint64_t grown)
{
	company(w);
	const void *word[] = {&step_header(w)->growth_lock, (char *)&step_header(w)->growth_futex, &step_chunks(w)[8].ctl};
	step_begin(w, 2, step_grow, 128 * HP_PAGE_SIZE, 0);
	step_until_written(w, 2, there, word, there == has_populated ? 0 : 3);
	step_kill(w, 2);
	w->shape.pages += grown;
}

#define GROWER(name, there, grown) \
	static void name(struct step_world *w) \
	{ \
		grower(w, there, grown); \
	}
GROWER(locker, has_locked, 0)
GROWER(populater, populates, 0)
GROWER(populated, has_populated, 0)
GROWER(publisher, publishes, 128)
GROWER(half_publisher, has_published_one, 128)

/* It was trimming. */
static bool trims(struct step_world *w, int a)
{
	(void)a;
	return atomic_load(&step_header(w)->plan_phase) == PLAN_TRIMMING;
}

static bool has_trimmed(struct step_world *w, int a)
{
	uint32_t at = atomic_load(&step_header(w)->plan_from);
	return trims(w, a) && ctl_state(atomic_load(&step_chunks(w)[at].ctl)) == CTL_UNCOMMITTED;
}

static void trimmer(struct step_world *w)
{
	company(w);
	dies_at(w, step_trim, (512 - 64) * HP_PAGE_SIZE, 0, trims);
}

static void has_been_trimmer(struct step_world *w)
{
	company(w);
	dies_at(w, step_trim, (512 - 64) * HP_PAGE_SIZE, 0, has_trimmed);
	w->shape.pages -= 64;
}

#define RECOVER(text, pool, setup, more) \
	{ \
		"recover " text, pool, setup, step_recover, .flags = STEP_DEPTH2 | (more) \
	}
static const struct step_case cases[] = {
	RECOVER("a holder of blocks of both classes", &fixed, holder, 0),
	RECOVER("one that had claimed half a run", &fixed, claimer, 0),
	RECOVER("one that had marked an owner", &fixed, taker, STEP_TAKES),
	RECOVER("one that was detaching", &fixed, leaver, 0),
	RECOVER("a recoverer of class PROCESS", &fixed, recoverer, 0),
	RECOVER("one that had locked growth", &growing, locker, STEP_FILES),
	RECOVER("one that was to populate", &growing, populater, STEP_FILES),
	RECOVER("one that had populated", &growing, populated, STEP_FILES),
	RECOVER("one that was to publish", &growing, publisher, STEP_FILES),
	RECOVER("one that had published a part", &growing, half_publisher, STEP_FILES),
	RECOVER("one that was trimming", &growing, trimmer, STEP_FILES | STEP_TAKES),
	RECOVER("one that had trimmed", &growing, has_been_trimmer, STEP_FILES | STEP_TAKES),
};

static void recovery_survives_its_recoverer(void **state)
{
	(void)state;
	assert_int_equal(step_run_cases(cases, COUNT(cases)), 0);
}

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(recovery_survives_its_recoverer)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
