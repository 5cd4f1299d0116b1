/* Slabs and the malloc on them, killed at every instruction: objects that the thread's magazine has, that have to be found,
 * or made room for; freed by their owner, by others, as the last of their slab; slabs that nobody owns, that the dead and
 * the sleeping own; and their recovery. Most objects have 8 KiB, so that a pool has few. */
#include "harness.h"
#include "hp_test.h"

#define NO_GROWTH .flags = HP_POOL_NO_AUTOGROW, .slabs = true
static const struct step_pool one = {.pages = 64, .capacity = 64, NO_GROWTH};
static const struct step_pool two = {.pages = 128, .capacity = 128, NO_GROWTH};
static const struct step_pool fenced = {
	.pages = 128, .capacity = 128, .flags = HP_POOL_NO_AUTOGROW | HP_POOL_FENCED, .slabs = true};

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define KIB 1024

/* Objects of 8 KiB; the first one's offset. */
static hp_off objects(struct step_world *w, int a, unsigned count)
{
	hp_off first = step_object(w, a, 8 * KIB);
	for (unsigned i = 1; i < count; i++) step_object(w, a, 8 * KIB);
	return first;
}

/* ---- one owner ---- */

/* The victim has a slab with objects in it; x: one of them where it is to be freed. Somebody else has one, too. */
static void owner(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	objects(w, 1, 2);
	hp_off off = objects(w, 0, 3);
	if (!w->x) w->x = off;
}

/* Its slab is full. */
static void owner_of_a_full_slab(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	objects(w, 1, 2);
	step_use_up(w, 0, 8 * KIB);
	hp_off off = w->block[w->blocks - 1].off;
	if (!w->x) w->x = off;
}

/* Half a KiB each, 128 to a slab: count of them, their offsets in off. */
static void small_objects(struct step_world *w, int a, unsigned count, hp_off *off)
{
	for (unsigned i = 0; i < count; i++) off[i] = step_object(w, a, KIB / 2);
}

/* Its magazine is empty, and the current slab has more. */
static void owner_with_an_empty_magazine(struct step_world *w)
{
	step_join(w, 0);
	step_object(w, 0, KIB / 2);
	for (int i = 0; i < 40; i++) step_object(w, 0, KIB / 2); /* past the first, small slabs */
	step_use_up(w, 0, KIB / 2);
}

/* Its magazine has the 64 objects it can have at most. */
static void owner_with_a_full_magazine(struct step_world *w)
{
	hp_off off[120];
	step_join(w, 0);
	small_objects(w, 0, 120, off);
	for (int i = 0; i < 100 && step_call(w, 0, step_at_hand, KIB / 2, 1) > 0; i++) step_unobject(w, 0, off[i]);
	STEP_NEED(w, step_call(w, 0, step_at_hand, KIB / 2, 1) == 0);
	w->x = off[110];
}

/* The same; the object to be freed lies in a slab that was full, and forgotten. */
static void owner_with_a_full_slab_behind(struct step_world *w)
{
	hp_off off[256];
	step_join(w, 0);
	small_objects(w, 0, 256, off);
	for (int i = 0; i < 64; i++) step_unobject(w, 0, off[192 + i]);
	STEP_NEED(w, step_call(w, 0, step_at_hand, KIB / 2, 1) == 0);
	w->x = off[60];
}

/* Its magazine and its current word have nothing; another slab is in the list. */
static void owner_with_a_list(struct step_world *w)
{
	hp_off off[256];
	step_join(w, 0);
	small_objects(w, 0, 256, off);
	for (int i = 0; i < 84; i++) step_unobject(w, 0, off[i]);
	step_use_up(w, 0, KIB / 2);
}

/* Objects of a slab that it has forgotten were freed by another: the summary knows. */
static void owner_freed_by_another(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	hp_off off = objects(w, 0, 3);
	for (int i = 0; i < 12; i++) step_object(w, 0, 8 * KIB);
	step_use_up(w, 0, 8 * KIB);
	step_unobject(w, 1, off);
}

static void owner_of_one(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	w->x = objects(w, 0, 1);
}

/* Nearly all of the pool is in slabs of its own without objects. */
static void owner_of_many_empty(struct step_world *w)
{
	step_join(w, 0);
	int64_t count = step_call(w, 0, step_malloc_all, KIB / 2, 0);
	STEP_NEED(w, count > 900 && step_call(w, 0, step_mfree_list, 24, (uint64_t)count - 24) == 0);
	for (int i = 0; i < 24; i++) step_model_add_object(w, w->actor[0].list[i], KIB / 2);
	w->x = w->actor[0].list[10];
}

static void freed_already(struct step_world *w)
{
	owner(w);
	step_unobject(w, 0, w->x);
}

static int64_t free_again(struct step_env *env, uint64_t x, uint64_t y)
{
	return step_mfree(env, x, y) < 0 ? 0 : -1; /* -EALREADY */
}

static void newcomer(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	objects(w, 1, 2);
}

static void unregistered(struct step_world *w)
{
	step_start(w, 0);
	STEP_NEED(w, step_call(w, 0, step_attach, 0, 0) == 0);
	step_join(w, 1);
	objects(w, 1, 2);
}

static const struct step_case local[] = {
	{"malloc, magazine", &one, owner, step_malloc, .x = 8 * KIB, .effect = STEP_MALLOCS},
	{"malloc, refill from the current slab", &one, owner_with_an_empty_magazine, step_malloc, .x = 512,
     .effect = STEP_MALLOCS},
	{"malloc, refill from the list", &two, owner_with_a_list, step_malloc, .x = 512, .effect = STEP_MALLOCS},
	{"malloc, refill from the summary", &one, owner_freed_by_another, step_malloc, .x = 8 * KIB, .effect = STEP_MALLOCS,
     .flags = STEP_TAKES},
	{"malloc, making a slab", &two, owner_of_a_full_slab, step_malloc, .x = 8 * KIB, .effect = STEP_MALLOCS},
	{"malloc, the first slab", &two, newcomer, step_malloc, .x = 100, .effect = STEP_MALLOCS},
	{"malloc, registration", &two, unregistered, step_malloc, .x = 100, .effect = STEP_MALLOCS},
	{"malloc, fenced", &fenced, owner, step_malloc, .x = 8 * KIB, .effect = STEP_MALLOCS},
	{"malloc_bulk, magazine and current slab", &two, owner_with_an_empty_magazine, step_malloc_bulk, .x = 512, .y = 40,
     .effect = STEP_MALLOCS, .count = 40},
	{"malloc_bulk, making a slab", &two, newcomer, step_malloc_bulk, .x = 512, .y = 12, .effect = STEP_MALLOCS,
     .count = 12},
	{"free", &one, owner, step_mfree, .effect = STEP_FREES},
	{"free, of a full slab", &one, owner_of_a_full_slab, step_mfree, .effect = STEP_FREES},
	{"free, full magazine", &one, owner_with_a_full_magazine, step_mfree, .effect = STEP_FREES},
	{"free, full magazine, of a full slab", &two, owner_with_a_full_slab_behind, step_mfree, .effect = STEP_FREES},
	{"free, the last object", &one, owner_of_one, step_mfree, .effect = STEP_FREES},
	{"free, many empty slabs", &two, owner_of_many_empty, step_mfree, .effect = STEP_FREES},
	{"free, fenced", &fenced, owner, step_mfree, .effect = STEP_FREES},
	{"free again", &one, freed_already, free_again, .effect = STEP_NONE},
};

/* ---- others' ---- */

static void owned_by_another(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	objects(w, 0, 1);
	w->x = objects(w, 1, 3);
}

static void full_slab_of_another(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	step_use_up(w, 1, 8 * KIB);
	w->x = w->block[w->blocks - 1].off;
	objects(w, 1, 1);
}

/* Its owner is gone; the object is its slab's last. */
static void last_of_nobody(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	objects(w, 0, 1);
	w->x = objects(w, 1, 1);
	STEP_NEED(w, step_call(w, 1, step_detach, 0, 0) == 0);
	step_kill(w, 1);
}

static void last_of_a_dead_one(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	objects(w, 0, 1);
	w->x = objects(w, 1, 1);
	step_kill(w, 1);
}

/* All pages are in slabs of actor `a`, which has a few objects left. */
static void owns_all(struct step_world *w, int a)
{
	step_fill(w, a, 8 * KIB);
	for (int i = 0; i < 3; i++) step_unobject(w, a, w->block[w->blocks / 2].off);
}

/* It is dead and recovered. */
static void abandoned(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	owns_all(w, 1);
	step_kill(w, 1);
	STEP_NEED(w, step_call(w, 0, step_recover, 0, 0) == 1);
}

/* The same, and nobody has noticed yet. */
static void owner_dead(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	owns_all(w, 1);
	step_kill(w, 1);
}

static void owner_asleep(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	owns_all(w, 1);
}

/* Half of the pages are in slabs of an owner without objects: they go back for pages, or for objects of another size. */
static void empties(struct step_world *w, int a)
{
	for (int i = 0; i < 3; i++) step_join(w, i);
	objects(w, 2, 14);
	int64_t count = step_call(w, a, step_malloc_all, 8 * KIB, 0);
	STEP_NEED(w, count > 0 && step_call(w, a, step_mfree_list, 0, (uint64_t)count) == 0);
}

static void empties_asleep(struct step_world *w)
{
	empties(w, 1);
}

static void own_empties(struct step_world *w)
{
	empties(w, 0);
}

static void nothing_left(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	step_fill(w, 1, 8 * KIB);
}

static const struct step_case others[] = {
	{"free, remote", &one, owned_by_another, step_mfree, .effect = STEP_FREES},
	{"free, remote, full slab", &one, full_slab_of_another, step_mfree, .effect = STEP_FREES},
	{"free, the last of nobody's slab", &one, last_of_nobody, step_mfree, .effect = STEP_FREES},
	{"free, the last of a dead one's slab", &one, last_of_a_dead_one, step_mfree, .effect = STEP_FREES},
	{"malloc, adopting an abandoned slab", &one, abandoned, step_malloc, .x = 8 * KIB, .effect = STEP_MALLOCS},
	{"malloc, of a dead owner", &one, owner_dead, step_malloc, .x = 8 * KIB, .effect = STEP_MALLOCS,
     .flags = STEP_TAKES},
	{"malloc, of a sleeping owner", &one, owner_asleep, step_malloc, .x = 8 * KIB, .effect = STEP_MALLOCS,
     .flags = STEP_TAKES},
	{"malloc, of others' empty slabs", &one, empties_asleep, step_malloc, .x = 5 * KIB, .effect = STEP_MALLOCS,
     .flags = STEP_TAKES},
	{"malloc, of own empty slabs", &one, own_empties, step_malloc, .x = 5 * KIB, .effect = STEP_MALLOCS,
     .flags = STEP_TAKES},
	{"pages, of others' empty slabs", &one, empties_asleep, step_alloc, .x = 20, .effect = STEP_ALLOCATES,
     .flags = STEP_TAKES},
	{"malloc, nothing left", &one, nothing_left, step_malloc, .x = 8 * KIB, .effect = STEP_NONE,
     .flags = STEP_FAILS | STEP_TAKES},
};

/* ---- resizing, aligned ---- */

static void has_pages(struct step_world *w)
{
	step_join(w, 0);
	step_join(w, 1);
	objects(w, 1, 2);
	w->x = step_object(w, 0, 48 * KIB);
}

static const struct step_case resizing[] = {
	{"realloc, longer in place", &two, has_pages, step_realloc, .y = 80 * KIB, .effect = STEP_RESIZES},
	{"realloc, shorter in place", &two, has_pages, step_realloc, .y = 36 * KIB, .effect = STEP_RESIZES},
	{"realloc, pages to an object", &two, has_pages, step_realloc, .y = 5 * KIB, .effect = STEP_MOVES},
	{"realloc, an object to pages", &two, owner, step_realloc, .y = 40 * KIB, .effect = STEP_MOVES},
	{"realloc, to a larger object", &two, owner, step_realloc, .y = 9 * KIB, .effect = STEP_MOVES},
	{"realloc, to a smaller object", &two, owner, step_realloc, .y = 1 * KIB, .effect = STEP_MOVES},
	{"aligned_alloc, in a slab", &two, owner, step_malloc, .x = 3000, .y = 2048, .effect = STEP_MALLOCS, .bytes = 4096},
	{"aligned_alloc, 4 pages", &two, newcomer, step_malloc, .x = 8 * KIB, .y = 16 * KIB, .effect = STEP_ALLOCATES,
     .pages = 2},
};

/* ---- recovery ---- */

/* Actors 0 and 1 recover, 2 dies, 3 looks on and owns a slab. */
static void company(struct step_world *w)
{
	for (int a = 0; a <= 3; a++) step_join(w, a);
	objects(w, 3, 1);
	objects(w, 2, 10);
}

static void holder(struct step_world *w)
{
	company(w);
	hp_off off = step_object(w, 2, 100); /* a slab that will be empty */
	step_unobject(w, 2, off);
	step_kill(w, 2);
}

/* And its first page is in the map: or, ending, is not any more. */
static bool first_page(struct step_world *w, bool there)
{
	const pool_map *map = (const pool_map *)(const void *)(w->control + w->geometry.map_at);
	for (uint64_t i = 0; i < (uint64_t)w->geometry.chunks * w->geometry.chunk_pages; i++)
		if (ctl_state(atomic_load(&step_slabs(w)[i].ctl)) == CTL_RECOVERING && !!atomic_load(&map[i]) == there)
			return step_slab_held(w, 2);
	return false;
}

static bool has_mapped(struct step_world *w, int a)
{
	(void)a;
	return first_page(w, true);
}

static bool has_unmapped(struct step_world *w, int a)
{
	(void)a;
	return first_page(w, false);
}

static void dies_at(struct step_world *w, step_fn *fn, uint64_t x, uint64_t y, bool (*there)(struct step_world *, int))
{
	step_begin(w, 2, fn, x, y);
	step_until(w, 2, there);
	step_kill(w, 2);
}

static void maker(struct step_world *w)
{
	company(w);
	dies_at(w, step_malloc, 100, 0, step_slab_held);
}

static void mapper(struct step_world *w)
{
	company(w);
	dies_at(w, step_malloc, 100, 0, has_mapped);
}

static void ender(struct step_world *w)
{
	company(w);
	step_join(w, 4);
	hp_off off = objects(w, 4, 1);
	STEP_NEED(w, step_call(w, 4, step_detach, 0, 0) == 0);
	step_kill(w, 4);
	STEP_NEED(w, step_model_remove(w, off));
	dies_at(w, step_mfree, off, 0, step_slab_held);
}

static void unmapper(struct step_world *w)
{
	company(w);
	step_join(w, 4);
	hp_off off = objects(w, 4, 1);
	STEP_NEED(w, step_call(w, 4, step_detach, 0, 0) == 0);
	step_kill(w, 4);
	STEP_NEED(w, step_model_remove(w, off));
	dies_at(w, step_mfree, off, 0, has_unmapped);
}

/* It had found the dead one's empty slab, and was ending it. */
static void recoverer(struct step_world *w)
{
	company(w);
	step_join(w, 4);
	hp_off off = step_object(w, 4, 100);
	step_unobject(w, 4, off);
	objects(w, 4, 2);
	step_kill(w, 4);
	dies_at(w, step_recover, 0, 0, step_slab_held);
}

#define RECOVER(text, setup) \
	{ \
		"recover " text, &two, setup, step_recover, .flags = STEP_DEPTH2 \
	}
static const struct step_case recovery[] = {
	RECOVER("an owner of slabs", holder),
	RECOVER("one that was to make a slab", maker),
	RECOVER("one that had half made a slab", mapper),
	RECOVER("one that was to end a slab", ender),
	RECOVER("one that had half ended a slab", unmapper),
	RECOVER("one that was recovering slabs", recoverer),
	{"detach, owning slabs", &two, owner, step_detach, .flags = STEP_LEAVES},
};

#define TEST(table) \
	static void table##_operations(void **state) \
	{ \
		(void)state; \
		assert_int_equal(step_run_cases(table, COUNT(table)), 0); \
	}
TEST(local)
TEST(others)
TEST(resizing)
TEST(recovery)

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(local_operations), cmocka_unit_test(others_operations),
	                                   cmocka_unit_test(resizing_operations), cmocka_unit_test(recovery_operations)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
