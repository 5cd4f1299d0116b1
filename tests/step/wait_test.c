/* Waiting, killed at every instruction: who waits takes no turn along, whether he dies before his ticket is seen,
 * before he sleeps, woken, or on his way out; and who puts and dies before he has woken anybody leaves the object to
 * those who wait, within a few slices. Processes really wait and really die here, so of the instructions a sample is
 * taken besides all that change something. */
#include "harness.h"
#include "pool/participant.h"
#include "run.h"
#include "hp_test.h"
#include <errno.h>
#include <sched.h>

static const struct step_pool one = {
	.pages = 64, .capacity = 64, .flags = HP_POOL_NO_AUTOGROW, .slabs = true, .caches = true};

#define SIZE 4096
#define LIMIT 5
#define SECONDS UINT64_C(1000000000)
#define STRIDES 60 /* points besides those that change something, unless HP_STEP_FULL */

/* All that the limit allows is out, of a slab of actor 2's. Actor 0 is the victim, actor 1 waits. */
static void all_out(struct step_world *w)
{
	for (int a = 0; a < 3; a++) step_join(w, a);
	step_cache(w, 2, SIZE, 0);
	step_opens(w, 0);
	step_opens(w, 1);
	step_limit(w, 2, LIMIT);
	step_get_all(w, 2);
	STEP_NEED(w, w->blocks == LIMIT);
	w->x = w->block[2].off;
}

static bool has_ticket(struct step_world *w, int a)
{
	const struct pool_wait *wait = (const struct pool_wait *)(const void *)(w->control + w->geometry.waits_at);
	int record = step_record(w, w->control, a);
	for (uint32_t i = 0; i < w->geometry.slots; i++) {
		uint64_t word = atomic_load(&step_slots(w)[i].word);
		if (slot_state(word) == SLOT_LIVE && (int)slot_record(word) == record && atomic_load(&wait[i].ticket))
			return true;
	}
	return false;
}

static unsigned objects_out(struct step_world *w)
{
	unsigned count = 0;
	for (uint64_t i = 0; i < w->geometry.capacity / HP_PAGE_SIZE; i++) {
		const struct slab *slab = &step_slabs(w)[i];
		const pool_map *map = (const pool_map *)(const void *)(w->control + w->geometry.map_at);
		if ((uint8_t)atomic_load(&map[i]) != 1) continue;
		for (unsigned k = 0; k < SLAB_WORDS; k++)
			count += (unsigned)__builtin_popcountll(atomic_load(&slab->a[k]) ^ atomic_load(&slab->r[k]));
	}
	return count;
}

static void waits(struct step_world *w, int a)
{
	step_send(w, a, step_cache_get, 0, 15 * SECONDS);
	while (!has_ticket(w, a)) sched_yield();
}

static void served(struct step_world *w, int a)
{
	int64_t off = step_receive(w, a);
	if (off == INT64_MIN)
		step_fail(w, "actor %d waits, though there is an object", a);
	else if (off < 0)
		step_fail(w, "who waits gets %lld", (long long)off);
	else
		step_model_add_cached(w, (hp_off)off);
}

struct scene {
	const char *name;
	step_fn *run;
	uint64_t y;
	bool waiting; /* actor 1 waits before the victim begins; otherwise where it stands */
	bool before;  /* the object is put before the victim is killed */
};

static void point(const struct scene *scene, uint64_t at, struct step_world *sum)
{
	struct step_world *w = step_open(scene->name, &one);
	all_out(w);
	if (scene->waiting) waits(w, 1);
	step_begin(w, 0, scene->run, w->x, scene->y);
	while (w->instructions < at && step_one(w, 0)) {}
	uint64_t stopped = w->instructions;
	if (!scene->waiting) waits(w, 1);
	hp_off mine = w->x, other = w->block[0].off;
	if (scene->before) step_put(w, 2, other);
	step_kill(w, 0);
	if (scene->run == step_cache_put) { /* freed or not: if not, somebody else puts one */
		if (objects_out(w) < LIMIT || !has_ticket(w, 1))
			STEP_NEED(w, step_model_remove(w, mine));
		else
			step_put(w, 2, other);
	} else if (!scene->before) {
		step_put(w, 2, other);
	}
	served(w, 1);
	w->instructions = stopped;
	if (!w->failures && objects_out(w) != LIMIT) step_fail(w, "%u objects are out, and the limit is 5", objects_out(w));
	for (int a = 1; a < STEP_ACTORS; a++) step_kill(w, a);
	struct step_expect expect = {.must = -1};
	if (!w->failures) step_verify_real(w, &expect);
	sum->failures += w->failures;
	sum->kills++;
	step_close(w);
}

/* First what it does alone, and where it changes something. */
static int run_scene(const void *table, unsigned index)
{
	const struct scene *scene = (const struct scene *)table + index;
	if (!run_wanted(scene->name)) return 0;
	struct step_world *w = step_open(scene->name, &one);
	uint64_t change[512], length;
	unsigned count = 0;
	all_out(w);
	if (scene->waiting) waits(w, 1);
	step_begin(w, 0, scene->run, w->x, scene->y);
	step_remember(w);
	while (step_one(w, 0)) {
		if (!step_changed(w) || count == 512) continue;
		step_remember(w);
		change[count++] = w->instructions;
	}
	length = w->instructions;
	uint64_t stride = step_full() ? 1 : length / STRIDES + 1;
	for (uint64_t at = 0; at <= length && !w->failures; at += stride) point(scene, at, w);
	for (unsigned i = 0; i < count && !w->failures; i += step_full() ? 1 : count / STRIDES + 1)
		point(scene, change[i], w);
	run_report("%s: %llu instructions, %u changes, %u real kills", scene->name, (unsigned long long)length, count,
	           w->kills);
	int failures = (int)w->failures;
	step_close(w);
	return failures;
}

/* A millisecond is over when the first look is, so that the way out is among what is stepped. */
static const struct scene scenes[] = {
	{"the putter dies, one waits", step_cache_put, .waiting = true},
	{"the first who waits dies, then a put", step_cache_get, .y = 1000000},
	{"a put, then the first who waits dies", step_cache_get, .y = 1000000, .before = true},
	{"the second who waits dies, then a put", step_cache_get, .y = 1000000, .waiting = true},
};

static void others_are_served(void **state)
{
	(void)state;
	assert_int_equal(run_all(run_scene, scenes, sizeof scenes / sizeof *scenes), 0);
}

/* In a copy, where nobody else waits: the ticket goes with its holder. */
static void victims(struct step_world *w)
{
	all_out(w);
	w->x = 0;
}

static const struct step_case deaths[] = {
	{"wait at the limit", &one, victims, step_cache_get, .y = 200000000, .flags = STEP_TAKES | STEP_FEWER,
     .error = -ETIMEDOUT},
};

static void tickets_go(void **state)
{
	(void)state;
	assert_int_equal(step_run_cases(deaths, 1), 0);
}

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(others_are_served), cmocka_unit_test(tickets_go)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
