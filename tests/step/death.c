/* Deaths at every instruction. See harness.h. */
#include "harness.h"
#include "run.h"
#include "slab/class.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct watch {
	struct step_world *world;
	const struct step_case *entry;
	int victim;
	struct step_expect expect;
	uint64_t *changes; /* instructions after which shared memory had changed */
	unsigned count, room;
};

static void expect_of(struct step_world *w, const struct step_case *entry, struct step_expect *expect)
{
	*expect = (struct step_expect){.effect = entry->effect,
	                               .pages = entry->pages ? entry->pages : w->x,
	                               .bytes = entry->bytes ? entry->bytes
	                                                     : step_size(entry->effect == STEP_MALLOCS ? w->x : w->y),
	                               .off = entry->effect == STEP_EMPTIES ? w->y : w->x,
	                               .count = entry->count ? entry->count : 1,
	                               .whole = entry->flags & STEP_WHOLE,
	                               .must = -1,
	                               .files = entry->flags & STEP_FILES,
	                               .takes = entry->flags & STEP_TAKES};
	for (int a = 0; a < STEP_ACTORS; a++)
		if (w->actor[a].alive && !(a == 1 && entry->flags & STEP_BUSY)) expect->alive |= 1u << a;
}

static struct step_world *world_of(const struct step_case *entry)
{
	struct step_world *w = step_open(entry->name, entry->pool);
	w->x = entry->x;
	w->y = entry->y;
	entry->setup(w);
	return w;
}

/* As if the victim had been killed where it is. */
static void death(struct watch *watch)
{
	struct step_world *w = watch->world;
	struct step_expect expect = watch->expect;
	expect.alive &= ~(1u << watch->victim);
	step_remember(w);
	if (watch->count == watch->room) {
		watch->room = watch->room ? watch->room * 2 : 256;
		STEP_NEED(w, watch->changes = realloc(watch->changes, watch->room * sizeof *watch->changes));
	}
	watch->changes[watch->count++] = w->instructions;
	if (step_seen(w, step_state(w))) return;
	w->states++;
	step_owners_alone(w, watch->victim, watch->entry->flags & STEP_BUSY ? 1 : -1);
	int effect = step_verify_copy(w, &expect);
	if (effect >= 0 && effect < w->effect && !(watch->entry->flags & STEP_UNDOES))
		step_fail(w, "what was done is undone");
	if (effect >= 0) w->effect = effect;
}

/* With the victim alive, and the effect known. */
static void alive(struct watch *watch, int must)
{
	struct step_world *w = watch->world;
	struct step_expect expect = watch->expect;
	expect.must = must;
	expect.over = true;
	int effect = step_verify_copy(w, &expect);
	if (effect >= 0 && effect != must)
		step_fail(w, must ? "the operation succeeded, and nothing was done" : "something was done");
}

static int64_t watch_run(struct watch *watch)
{
	struct step_world *w = watch->world;
	const struct step_case *entry = watch->entry;
	w->effect = 0;
	memcpy(w->first, w->control, w->control_size);
	step_begin(w, watch->victim, entry->run, w->x, w->y);
	death(watch);
	while (step_one(w, watch->victim) && !w->failures)
		if (step_changed(w)) death(watch);
	if (!w->failures) death(watch);
	int64_t result = step_finish(w, watch->victim);
	memset(&w->regs, 0, sizeof w->regs);
	return result;
}

/* Into the model, in the place of the one it was made of. */
static void new_block(struct step_world *w, enum step_effect effect, uint64_t bytes, hp_off off)
{
	struct step_block old = {0};
	for (unsigned i = 0; i < w->blocks; i++)
		if (effect != STEP_MALLOCS && w->block[i].off == w->x) old = w->block[i];
	if (effect == STEP_RESIZES && off != w->x) step_fail(w, "the block moved");
	if (effect != STEP_MALLOCS && !step_pattern_at(w, off, w->x, old.bytes < bytes ? old.bytes : bytes))
		step_fail(w, "the block's bytes did not come along");
	if (effect != STEP_MALLOCS) STEP_NEED(w, step_model_remove(w, w->x));
	step_model_add_object(w, off, bytes);
	if (w->y && effect == STEP_MALLOCS && off % w->y) step_fail(w, "the block is not aligned");
}

/* The operation came to its end. */
static void judge(struct watch *watch, int64_t result)
{
	struct step_world *w = watch->world;
	const struct step_case *entry = watch->entry;
	int error = entry->flags & STEP_FAILS ? -ENOMEM : entry->error;
	if (error) {
		if (result != error) step_fail(w, "the operation gives %lld and not %d", (long long)result, error);
		alive(watch, 0);
		return;
	}
	if (result < 0) {
		step_fail(w, "the operation fails with %lld", (long long)result);
		return;
	}
	if (entry->flags & STEP_LEAVES) watch->expect.alive &= ~(1u << watch->victim);
	if (entry->effect == STEP_GETS || (entry->effect == STEP_MALLOCS && entry->count)) {
		const uint64_t one = (uint64_t)result, *list = entry->count ? w->actor[watch->victim].list : &one;
		for (unsigned i = 0; i < watch->expect.count; i++) {
			if (entry->effect == STEP_GETS)
				step_model_add_cached(w, list[i]);
			else
				step_model_add_object(w, list[i], w->x);
		}
		watch->expect.effect = STEP_NONE;
		alive(watch, 0);
	} else if (entry->effect == STEP_PUBLISHES) {
		if (!step_word_value(w)) step_fail(w, "the operation succeeded, and the word is empty");
		step_model_add_object(w, step_word_value(w) & ~UINT64_C(15), w->y);
		watch->expect.effect = STEP_NONE;
		alive(watch, 0);
	} else if (entry->effect == STEP_MALLOCS || entry->effect == STEP_MOVES || entry->effect == STEP_RESIZES) {
		new_block(w, entry->effect, watch->expect.bytes, (hp_off)result);
		watch->expect.effect = STEP_NONE;
		alive(watch, 0);
	} else if (entry->run == step_alloc) {
		step_model_add(w, (hp_off)result, w->x, w->y & HP_PAGE_PROCESS ? watch->victim : -1);
		watch->expect.effect = STEP_NONE;
		alive(watch, 0);
	} else {
		alive(watch, entry->effect != STEP_NONE ? (int)watch->expect.count : 0);
	}
}

/* Steps a fresh victim to `point` and really kills it there. */
static struct step_world *killed_at(const struct step_case *entry, uint64_t point)
{
	struct step_world *w = world_of(entry);
	step_begin(w, 0, entry->run, w->x, w->y);
	while (w->instructions < point && step_one(w, 0)) {}
	step_kill(w, 0);
	w->kills++;
	return w;
}

static void kill_for_real(struct step_world *w, const struct watch *watch, uint64_t instructions)
{
	const struct step_case *entry = watch->entry;
	uint64_t count = instructions * 3 / 100;
	if (count < 2) count = 2;
	uint64_t most = entry->flags & STEP_FEWER || (entry->pool->heaps && instructions > 3000) ? 3
	                : instructions < 30000                                                   ? 10
	                                       : 2; /* each is a walk of its own to the point */
	if (count > most && !step_full()) count = most;
	for (uint64_t i = 0; i < count && !w->failures; i++) {
		/* every second one right after a change of shared memory */
		uint64_t point = i & 1 ? watch->changes[(i + 1) * watch->count / (count + 1)]
		                       : (2 * i + 1) * instructions / (2 * count);
		struct step_world *real = killed_at(entry, point);
		struct step_expect expect;
		for (int a = 1; a < STEP_ACTORS; a++)
			if (entry->flags & STEP_ALONE) step_kill(real, a);
		expect_of(real, entry, &expect);
		step_verify_real(real, &expect);
		w->failures += real->failures;
		w->kills++;
		step_close(real);
	}
}

/* The victim, which recovers another, is killed; actor 1 recovers both and is stepped too. */
static void deeper(struct step_world *w, const struct watch *first)
{
	unsigned step = step_full() ? 1 : first->count / (first->entry->pool->heaps ? 3 : 12) + 1;
	for (unsigned i = 0; i < first->count && !w->failures; i += step) {
		struct step_world *second = killed_at(first->entry, first->changes[i]);
		struct watch watch = {.world = second, .entry = first->entry, .victim = 1};
		expect_of(second, first->entry, &watch.expect);
		int64_t result = watch_run(&watch);
		if (result < 0) step_fail(second, "recovery fails with %lld", (long long)result);
		free(watch.changes);
		w->failures += second->failures;
		w->states += second->states;
		w->instructions += second->instructions;
		w->kills++;
		step_close(second);
	}
}

static int run_case(const void *table, unsigned index)
{
	const struct step_case *entry = (const struct step_case *)table + index;
	if (!run_wanted(entry->name)) return 0;
	if (entry->pool->heaps) step_heap_goals(entry);
	struct step_world *w = world_of(entry);
	struct watch watch = {.world = w, .entry = entry};
	expect_of(w, entry, &watch.expect);
	if (entry->flags & STEP_WITHIN) watch.expect.alive &= ~1u;
	alive(&watch, 0);
	if (entry->flags & STEP_WITHIN) watch.expect.alive |= 1u;
	int64_t result = w->failures ? 0 : watch_run(&watch);
	uint64_t instructions = w->instructions;
	if (!w->failures) judge(&watch, result);
	if (!w->failures && !(entry->flags & STEP_NO_KILLS)) kill_for_real(w, &watch, instructions);
	if (!w->failures && entry->flags & STEP_DEPTH2) deeper(w, &watch);
	run_report("%s: %llu instructions, %llu states, %u real kills", entry->name, (unsigned long long)w->instructions,
	           (unsigned long long)w->states, w->kills);
	int failures = (int)w->failures;
	free(watch.changes);
	step_close(w);
	return failures;
}

int step_run_cases(const struct step_case *cases, unsigned count)
{
	return run_all(run_case, cases, count);
}
