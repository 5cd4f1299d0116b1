/* The shared heap, its writer killed at every instruction: of transactions that make and change values, collect, and end in
 * every way; of making, opening, ending a heap; of guards and sections. Then the next writer, who undoes that, killed likewise.
 * Afterwards the graph is as it was before or as it is after, the next transaction works, nothing is lost, and all goes back. */
#include "harness.h"
#include "heap/heap.h"
#include "heap/layout.h"
#include "hp_test.h"
#include <errno.h>
#include <string.h>

static const struct step_pool one = {
	.pages = 64, .capacity = 64, .flags = HP_POOL_NO_AUTOGROW, .slabs = true, .heaps = true};

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define EACH 8 /* parts in a slab of a page, the first of its type */

/* ---- what actors do ---- */

/* Of a pair B does not wait for A, which stands still. */
#define HASTE 2
static int patience(const struct step_env *env)
{
	return env->list[HASTE] ? 0 : 1000;
}

/* x: 1: with a root of some parts. y: pages at most, or 0. */
static int64_t make(struct step_env *env, uint64_t x, uint64_t y)
{
	struct step_part part[3] = {{.id = 0}};
	struct hp_heap_options options = {.limit = y * HP_PAGE_SIZE};
	for (uint64_t i = 0; i < 3; i++) {
		part[i].id = part[i].fill[58] = 7 + i;
		part[i].seal = part[i].id ^ STEP_SEAL;
		part[i].a.priv = &part[(i + 1) % 3];
		part[i].b.priv = i ? &part[0] : NULL;
	}
	int error = hp_heap_create(env->pool, &options, x ? &step_part_type : NULL, x ? part : NULL, &env->heap);
	if (error == 0) env->list[0] = hp_heap_id(env->heap);
	return error;
}

static int64_t opens(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_heap_open(env->pool, x, &env->heap);
}

static int64_t closes(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	int error = hp_heap_close(env->heap);
	env->heap = NULL;
	return error;
}

static int64_t destroys(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	int error = hp_heap_destroy(env->heap, (unsigned)x, patience(env));
	if (error == 0) env->heap = NULL;
	return error;
}

static struct step_part *part_at(const hp_heap *heap, hp_ref ref)
{
	return hp_heap_deref(heap, ref);
}

/* A list of x more parts, from y on, before what there is. */
static void more_parts(hp_tx *tx, uint64_t x, uint64_t y)
{
	hp_ref root = hp_heap_root(hp_heap_of(tx));
	for (uint64_t i = 0; i < x; i++) root = step_part(tx, y + i, root, HP_NONE);
	hp_heap_set_root(tx, root);
}

static int64_t fills(struct step_env *env, uint64_t x, uint64_t y)
{
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	more_parts(env->tx, x, y);
	return hp_heap_commit(env->tx);
}

/* Nothing refers to parts from the x-th of the list on any more. */
static int64_t cuts(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	hp_ref at = hp_heap_root(env->heap);
	for (uint64_t i = 1; i < x; i++) at = part_at(env->heap, at)->a.ref;
	if (x)
		hp_heap_set(env->tx, &part_at(env->heap, at)->a.ref, HP_NONE);
	else
		hp_heap_set_root(env->tx, HP_NONE);
	return hp_heap_commit(env->tx);
}

enum { COMMITS, ABORTS, FAILS };

/* Some of everything: a new part, words of visible ones, plain data, the root. */
static void change(hp_tx *tx, uint64_t id)
{
	hp_heap *heap = hp_heap_of(tx);
	uint64_t data[2] = {id, ~id};
	hp_ref root = hp_heap_root(heap), next = part_at(heap, root)->a.ref, new = step_part(tx, id + 1, next, root);
	if (!new.word) return;
	hp_heap_set(tx, &part_at(heap, root)->b.ref, new);
	hp_heap_set(tx, &part_at(heap, root)->a.ref, HP_NONE);
	hp_heap_write(tx, (char *)part_at(heap, root)->fill + 4, data, sizeof data);
	hp_heap_set(tx, &part_at(heap, new)->more.ref, new);
	hp_heap_set_root(tx, new);
}

static int64_t changes(struct step_env *env, uint64_t x, uint64_t y)
{
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	if (y) hp_heap_set_root(env->tx, HP_NONE);
	if (y) hp_heap_set_root(env->tx, hp_heap_new_string(env->tx, "gone again", 10));
	if (!y) change(env->tx, 100);
	if (x == FAILS && hp_heap_set_root(env->tx, (hp_ref){1}) != -EINVAL) return -EBADMSG;
	if (x == ABORTS)
		hp_heap_abort(env->tx);
	else
		error = hp_heap_commit(env->tx);
	return x == FAILS && error == -EINVAL ? 0 : error;
}

static int64_t changes_twice(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	change(env->tx, 100);
	if ((error = hp_heap_checkpoint(env->tx)) < 0) return error;
	change(env->tx, 200);
	return hp_heap_commit(env->tx);
}

/* Begins, and stores x words; the transaction goes on. */
static int64_t begins(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	struct step_part *part = part_at(env->heap, hp_heap_root(env->heap));
	for (uint64_t i = 0; i < x; i++) hp_heap_set(env->tx, &part->b.ref, i & 1 ? hp_heap_root(env->heap) : HP_NONE);
	return hp_heap_error(env->tx);
}

static int64_t goes_on(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	change(env->tx, 100);
	if (x == COMMITS) return hp_heap_commit(env->tx);
	hp_heap_abort(env->tx);
	return 0;
}

/* Room for x stores and y parts, and one of it used. */
static int64_t reserves(struct step_env *env, uint64_t x, uint64_t y)
{
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	error = hp_heap_reserve(env->tx, x, &step_part_type, y, 0);
	more_parts(env->tx, 1, 50);
	int result = hp_heap_commit(env->tx);
	return error < 0 ? error : result;
}

/* A value of x bytes, of a type that the heap does not know yet, under the root. */
static int64_t new_bytes(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	hp_ref bytes = hp_heap_new(env->tx, &hp_bytes_type, (uint32_t)x);
	hp_heap_set(env->tx, &part_at(env->heap, hp_heap_root(env->heap))->more.ref, bytes);
	return hp_heap_commit(env->tx);
}

static int64_t less_bytes(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	hp_heap_set(env->tx, &part_at(env->heap, hp_heap_root(env->heap))->more.ref, HP_NONE);
	return hp_heap_commit(env->tx);
}

static int64_t collects(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_heap_gc(env->heap, (unsigned)x, env->list[HASTE] ? 0 : 10);
}

static int64_t collects_by_a_copy(struct step_env *env, uint64_t x, uint64_t y)
{
	heap_graph_least = 0;
	return collects(env, x, y);
}

/* Collects while everything hangs on the log, and what is new on nothing but its being new; and stores over what was free. */
static int64_t collects_inside(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	hp_ref new = step_part(env->tx, 300, HP_NONE, HP_NONE);
	hp_heap_set_root(env->tx, HP_NONE);
	if (heap_collect(env->heap, 1000000000) != 0) return -EBADMSG;
	for (uint64_t i = 0; i < 2 * EACH; i++) step_part(env->tx, 400 + i, HP_NONE, HP_NONE);
	hp_heap_set_root(env->tx, new);
	if (!step_part_whole(env->heap, new) || part_at(env->heap, new)->id != 300) return -EILSEQ;
	if (x == COMMITS) return hp_heap_commit(env->tx);
	hp_heap_abort(env->tx);
	return 0;
}

static int64_t enters(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	return hp_heap_read_enter(env->pool);
}

static int64_t exits(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	hp_heap_read_exit(env->pool);
	return 0;
}

/* Everything that it reaches along `a` is whole, and nothing that has come to be in its place: how many. */
#define JUNK 1000000
static int64_t walk(struct step_env *env, hp_ref at)
{
	int64_t count = 0;
	for (; at.word && count < 1000; count++) {
		if (!step_part_whole(env->heap, at) || part_at(env->heap, at)->id >= JUNK) return -EILSEQ;
		at = hp_heap_load(&part_at(env->heap, at)->a.ref);
	}
	return count;
}

static int64_t reads(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	int error = hp_heap_read_enter(env->pool);
	if (error < 0) return error;
	int64_t count = walk(env, hp_heap_root(env->heap));
	hp_heap_read_exit(env->pool);
	return count;
}

/* The x-th of the list. */
static int64_t guards(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	int error = hp_heap_read_enter(env->pool);
	if (error < 0) return error;
	env->kept = hp_heap_root(env->heap);
	hp_ref next = env->kept;
	for (uint64_t i = 0; i < x && (next = hp_heap_load(&part_at(env->heap, next)->a.ref)).word; i++) env->kept = next;
	error = hp_heap_guard(env->heap, &env->kept, 1, &env->guard);
	hp_heap_read_exit(env->pool);
	return error;
}

static int64_t unguards(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	return hp_heap_unguard(&env->guard);
}

static int64_t guards_and_not(struct step_env *env, uint64_t x, uint64_t y)
{
	int64_t error = guards(env, x, y);
	if (error == 0) error = walk(env, env->kept);
	if (error < 0) return error;
	return unguards(env, 0, 0);
}

/* What is guarded, by us, comes under the root again. */
static int64_t links_back(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	int error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error < 0) return error;
	if (x) {
		hp_ref new = step_part(env->tx, 500, env->kept, HP_NONE); /* by a plain store into what is new */
		hp_heap_unguard(&env->guard);
		hp_heap_set(env->tx, &part_at(env->heap, hp_heap_root(env->heap))->b.ref, new);
	} else {
		hp_heap_set(env->tx, &part_at(env->heap, hp_heap_root(env->heap))->b.ref, env->kept);
		hp_heap_unguard(&env->guard);
	}
	return hp_heap_commit(env->tx);
}

static int found(hp_heap *heap, hp_ref out[], unsigned max, void *arg)
{
	(void)max, (void)arg;
	out[0] = hp_heap_root(heap);
	return 1;
}

static int used(hp_heap *heap, const hp_ref value[], unsigned count, void *arg)
{
	struct step_env *env = arg;
	(void)count;
	if (!step_part_whole(heap, value[0])) return -EILSEQ;
	return (int)changes(env, COMMITS, 0);
}

static int64_t with_value(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_heap_with_value(env->heap, found, used, env, (unsigned)x);
}

/* The next writer: undoes what a dead one has left, and changes nothing. */
static int64_t begins_and_aborts(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	int error = env->heap ? 0 : hp_heap_open(env->pool, env->list[1], &env->heap);
	if (error == 0) error = hp_heap_begin(env->heap, patience(env), &env->tx);
	if (error == -ESTALE) return 0; /* it was being ended */
	if (error < 0) return error;
	hp_heap_abort(env->tx);
	return 0;
}

static int64_t version(struct step_env *env, uint64_t x, uint64_t y)
{
	uint64_t seen;
	(void)x, (void)y;
	int error = hp_heap_read_begin_version(env->heap, &seen);
	return error < 0 ? error : hp_heap_read_valid(env->heap, seen) ? 0 : -EBADMSG;
}

/* ---- set-ups: actor 0 is the victim, actor 1 looks on ---- */

#define MUST(w, actor, fn, x, y) STEP_NEED(w, step_call(w, actor, fn, x, y) >= 0)

static void open_all(struct step_world *w)
{
	for (int a = 0; a < STEP_ACTORS; a++) {
		if (!w->actor[a].alive) continue;
		w->actor[a].list[1] = w->actor[1].list[0];
		if (a != 1) MUST(w, a, opens, w->actor[1].list[0], 0);
	}
}

static void company(struct step_world *w, int actors)
{
	for (int a = 0; a < actors; a++) step_join(w, a);
	MUST(w, 1, make, 0, 0);
}

static void nothing(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
}

/* Actor 1 has made it, actor 0 has not opened it. */
static void made(struct step_world *w)
{
	company(w, 2);
	MUST(w, 1, fills, 3, 10);
	w->x = w->actor[1].list[0];
}

static void few(struct step_world *w)
{
	company(w, 2);
	open_all(w);
	MUST(w, 1, fills, 3, 10);
}

/* The victim has written before, so that it has free places at hand. */
static void at_hand(struct step_world *w)
{
	few(w);
	MUST(w, 0, fills, 1, 20);
}

static void full_slab(struct step_world *w)
{
	company(w, 2);
	open_all(w);
	MUST(w, 0, fills, EACH, 10);
}

/* It becomes garbage when there is another. */
static void one_alone(struct step_world *w)
{
	at_hand(w);
	MUST(w, 1, new_bytes, 40000, 0);
}

static void alone(struct step_world *w)
{
	nothing(w);
	MUST(w, 0, make, 0, 0);
	MUST(w, 0, fills, 4, 10);
}

static void log_full(struct step_world *w)
{
	at_hand(w);
	MUST(w, 0, begins, HEAP_LOG_FIRST, 0);
}

/* Garbage of all kinds: places among others, a slab, a value alone. Actor 1 guards some of it. */
static void garbage(struct step_world *w)
{
	few(w);
	MUST(w, 0, fills, 2 * EACH, 30);
	MUST(w, 0, new_bytes, 40000, 0);
	MUST(w, 1, guards, 3 * EACH - 8, 0);
	MUST(w, 0, less_bytes, 0, 0);
	MUST(w, 0, cuts, 3, 0);
}

/* The same found already, and a reader, actor 1, in a section. */
static void waiting(struct step_world *w)
{
	garbage(w);
	MUST(w, 1, unguards, 0, 0);
	MUST(w, 1, enters, 0, 0);
	STEP_NEED(w, step_call(w, 0, collects, 0, 0) == -EAGAIN);
}

/* The reader has left. */
static void waited(struct step_world *w)
{
	waiting(w);
	MUST(w, 1, exits, 0, 0);
}

/* The victim guards what is condemned. */
static void waiting_guarded(struct step_world *w)
{
	few(w);
	MUST(w, 0, fills, 2 * EACH, 30);
	MUST(w, 0, guards, EACH, 0);
	MUST(w, 0, cuts, 3, 0);
	MUST(w, 1, enters, 0, 0);
	STEP_NEED(w, step_call(w, 0, collects, 0, 0) == -EAGAIN);
}

static void waited_guarded(struct step_world *w)
{
	waiting_guarded(w);
	MUST(w, 1, exits, 0, 0);
}

/* All that it may have is garbage, but three parts. */
static void no_memory(struct step_world *w)
{
	for (int a = 0; a < 2; a++) step_join(w, a);
	MUST(w, 1, make, 0, 7);
	open_all(w);
	MUST(w, 0, fills, 7 * EACH, 10);
	MUST(w, 0, cuts, 3, 0);
	MUST(w, 0, begins, 0, 0);
	MUST(w, 0, goes_on, COMMITS, 0);
}

static void empty_slabs(struct step_world *w)
{
	garbage(w);
	MUST(w, 1, unguards, 0, 0);
	MUST(w, 0, collects, HP_GC_WAIT, 0);
}

static void guarding(struct step_world *w)
{
	few(w);
	MUST(w, 0, guards, 1, 0);
}

/* ---- writers that are dead: actor 2; 0 and 1 come after it ---- */

static struct heap_entry *entry(struct step_world *w)
{
	return (struct heap_entry *)(void *)(w->control + w->geometry.heaps_at) + 1;
}

static void before_death(struct step_world *w)
{
	company(w, 3);
	open_all(w);
	MUST(w, 2, fills, 2 * EACH, 10);
	MUST(w, 0, guards, 5, 0);
	MUST(w, 0, unguards, 0, 0);
}

static void dies_at(struct step_world *w, step_fn *fn, uint64_t x, uint64_t y, bool (*there)(struct step_world *, int))
{
	step_begin(w, 2, fn, x, y);
	step_until(w, 2, there);
	step_kill(w, 2);
	memset(&w->regs, 0, sizeof w->regs);
	w->instructions = 0;
}

static bool has_logged(struct step_world *w, int a)
{
	(void)a;
	return atomic_load(&entry(w)->log_n) >= 6;
}

static bool has_logged_one(struct step_world *w, int a)
{
	(void)a;
	return atomic_load(&entry(w)->log_n) != 0;
}

static bool is_sweeping(struct step_world *w, int a)
{
	(void)a;
	return heap_phase(atomic_load(&entry(w)->phase)) == HEAP_SWEEP;
}

static bool has_swept(struct step_world *w, int a)
{
	static uint64_t since;
	if (!is_sweeping(w, a)) since = w->instructions;
	return is_sweeping(w, a) && w->instructions > since + 300;
}

static bool has_condemned(struct step_world *w, int a)
{
	(void)a;
	return heap_phase(atomic_load(&entry(w)->phase)) == HEAP_CONDEMNED;
}

static bool has_a_run(struct step_world *w, int a)
{
	(void)a;
	return atomic_load(&entry(w)->run) != 0;
}

/* It is live, and nothing names it. */
static bool has_taken_a_run(struct step_world *w, int a)
{
	const struct parity_unit *unit = (const struct parity_unit *)(const void *)(w->control + w->geometry.units_at);
	uint64_t page = atomic_load(&entry(w)->run) - 1;
	return has_a_run(w, a) && parity_live(unit, (unsigned)page);
}

/* What it has given back is free, and still in its hand. */
static bool has_given(struct step_world *w, int a)
{
	static bool lived;
	bool lives = has_taken_a_run(w, a);
	lived = has_a_run(w, a) && (lived || lives);
	return lived && !lives;
}

static bool is_making(struct step_world *w, int a)
{
	return heap_state(atomic_load(&entry(w)->word)) == HEAP_MAKING && has_taken_a_run(w, a);
}

static bool is_ending(struct step_world *w, int a)
{
	(void)a;
	return heap_state(atomic_load(&entry(w)->word)) == HEAP_ENDING;
}

static bool is_gone(struct step_world *w, int a)
{
	return heap_state(atomic_load(&entry(w)->word)) == HEAP_GONE && has_a_run(w, a);
}

#define DEAD(name, fn, x, y, there) \
	static void name(struct step_world *w) \
	{ \
		before_death(w); \
		dies_at(w, fn, x, y, there); \
	}
DEAD(died_changing, changes, COMMITS, 0, has_logged)
DEAD(died_with_a_run, fills, 2 * EACH, 50, has_taken_a_run)
DEAD(died_with_a_long_value, new_bytes, 40000, 0, has_taken_a_run)
DEAD(died_reserving, reserves, 3000, 2 * EACH, has_taken_a_run)
DEAD(died_ending, destroys, HP_HEAP_FORCE, 0, is_ending)
DEAD(died_gone, destroys, HP_HEAP_FORCE, 0, is_gone)

static void died_collecting(struct step_world *w, step_fn *fn, uint64_t x, bool (*there)(struct step_world *, int))
{
	before_death(w);
	MUST(w, 2, new_bytes, 40000, 0);
	MUST(w, 2, less_bytes, 0, 0);
	MUST(w, 2, cuts, 3, 0);
	dies_at(w, fn, x, 0, there);
}

static void died_condemning(struct step_world *w)
{
	died_collecting(w, collects, 0, has_condemned);
}

static void died_sweeping(struct step_world *w)
{
	died_collecting(w, collects, 0, is_sweeping);
}

static void died_having_swept(struct step_world *w)
{
	died_collecting(w, collects, 0, has_swept);
}

static void died_giving(struct step_world *w)
{
	died_collecting(w, collects, HP_GC_TRIM, has_a_run);
}

/* And is another heap's by now. */
static void died_having_given(struct step_world *w)
{
	died_collecting(w, collects, HP_GC_TRIM, has_given);
	unsigned page = (unsigned)atomic_load(&entry(w)->run) - 1;
	MUST(w, 1, make, 1, 0);
	STEP_NEED(w, parity_live((const struct parity_unit *)(const void *)(w->control + w->geometry.units_at), page));
}

static void died_sweeping_inside(struct step_world *w)
{
	died_collecting(w, collects_inside, ABORTS, has_swept);
}

static void died_making(struct step_world *w)
{
	for (int a = 0; a < 3; a++) step_join(w, a);
	dies_at(w, make, 1, 0, is_making);
}

static void died_making_late(struct step_world *w)
{
	for (int a = 0; a < 3; a++) step_join(w, a);
	step_begin(w, 2, make, 1, 0);
	step_until(w, 2, has_logged_one);
	step_kill(w, 2);
}

#define CHANGES .effect = STEP_CHANGES
#define CASE(text, set_up, op, ...) \
	{ \
		.name = text, .pool = &one, .setup = set_up, .run = op, ##__VA_ARGS__ \
	}
#define NEXT(text, set_up) CASE(text, set_up, begins_and_aborts, .flags = STEP_DEPTH2 | STEP_FEWER)

static const struct step_case writing[] = {
	CASE("change", at_hand, changes, CHANGES),
	CASE("change with nothing at hand", few, changes, CHANGES),
	CASE("change and abort", at_hand, changes, .x = ABORTS),
	CASE("change and fail", at_hand, changes, .x = FAILS),
	CASE("change, checkpoint, change", at_hand, changes_twice, CHANGES, .count = 2, .middle = changes),
	CASE("new slab", full_slab, fills, .x = 2, .y = 50, CHANGES),
	CASE("new string of a new type, and abort", at_hand, changes, .x = ABORTS, .y = 1),
	CASE("new string of a new type", at_hand, changes, .x = COMMITS, .y = 1, CHANGES, .count = 1),
	CASE("new value of a size of its own", at_hand, new_bytes, .x = 200, CHANGES),
	CASE("new value alone", at_hand, new_bytes, .x = 40000, CHANGES),
	CASE("another value alone", one_alone, new_bytes, .x = 50000, CHANGES),
	CASE("new value, short of memory", no_memory, new_bytes, .x = 2000, CHANGES),
	CASE("change, checkpoint, change, while garbage waits", waiting, changes_twice, CHANGES, .count = 2,
         .middle = changes, .flags = STEP_BUSY | STEP_ALONE),
	CASE("log longer", log_full, goes_on, CHANGES, .flags = STEP_WITHIN),
	CASE("log longer, and abort", log_full, goes_on, .x = ABORTS, .flags = STEP_WITHIN),
	CASE("reserve", full_slab, reserves, .x = 100, .y = 10, CHANGES),
	CASE("reserve much, and shorten", few, reserves, .x = 5000, .y = 1, CHANGES, .flags = STEP_FEWER),
	CASE("change while garbage waits", waiting, changes, CHANGES, .flags = STEP_BUSY | STEP_ALONE),
	CASE("abort while garbage waits", waiting, changes, .x = ABORTS, .flags = STEP_BUSY | STEP_ALONE),
	CASE("link back while garbage waits", waiting_guarded, links_back, CHANGES, .flags = STEP_BUSY | STEP_ALONE),
	CASE("link back by what is new", waiting_guarded, links_back, .x = 1, CHANGES, .flags = STEP_BUSY | STEP_ALONE),
	CASE("with a value", at_hand, with_value, CHANGES),
	CASE("with a value, locked", at_hand, with_value, .x = HP_HEAP_LOCKED, CHANGES),
};

static const struct step_case collecting[] = {
	CASE("collect", garbage, collects),
	CASE("collect by a copy", garbage, collects_by_a_copy),
	CASE("collect and trim", garbage, collects, .x = HP_GC_TRIM),
	CASE("collect again", empty_slabs, collects),
	CASE("collect what waited", waited, collects, .flags = STEP_FEWER),
	CASE("begin with what waited", waited, changes, CHANGES, .flags = STEP_FEWER),
	CASE("link back what waited", waited_guarded, links_back, CHANGES, .flags = STEP_FEWER),
	CASE("collect in vain", waiting_guarded, collects, .error = -EAGAIN, .flags = STEP_BUSY | STEP_ALONE),
	CASE("collect inside and commit", at_hand, collects_inside, CHANGES),
	CASE("collect inside and abort", at_hand, collects_inside, .x = ABORTS),
};

static const struct step_case living[] = {
	CASE("create", nothing, make, CHANGES),
	CASE("create with a root", nothing, make, .x = 1, CHANGES),
	CASE("open", made, opens),
	CASE("close", few, closes),
	CASE("destroy", alone, destroys, CHANGES),
	CASE("destroy what another has open", few, destroys, .error = -EBUSY),
	CASE("destroy by force", few, destroys, .x = HP_HEAP_FORCE, CHANGES),
	CASE("enter, read, exit", few, reads),
	CASE("guard and unguard", few, guards_and_not, .x = 1),
	CASE("guard", few, guards, .x = 1),
	CASE("unguard", guarding, unguards),
	CASE("unguard while garbage waits", waiting_guarded, unguards, .flags = STEP_BUSY | STEP_ALONE),
	CASE("guard while garbage waits", waiting, guards, .x = 1, .flags = STEP_BUSY | STEP_ALONE),
	CASE("version", few, version),
};

static const struct step_case next[] = {
	NEXT("after one that was changing", died_changing),
	NEXT("after one that had a run", died_with_a_run),
	NEXT("after one that had a long value", died_with_a_long_value),
	NEXT("after one that was reserving", died_reserving),
	NEXT("after one that was condemning", died_condemning),
	NEXT("after one that was sweeping", died_sweeping),
	NEXT("after one that had swept", died_having_swept),
	NEXT("after one that was giving a slab back", died_giving),
	NEXT("after one whose run is another heap's", died_having_given),
	NEXT("after one that was sweeping in a transaction", died_sweeping_inside),
	NEXT("after one that was ending", died_ending),
	NEXT("after one that had ended", died_gone),
	CASE("make after one that was making", died_making, make, CHANGES, .flags = STEP_FEWER),
	CASE("make after one that was making, late", died_making_late, make, CHANGES, .flags = STEP_FEWER),
};

/* ---- pairs ---- */

/* The x-th of the list, in the last of many cells in use, of which only the first is free. */
static int64_t guards_late(struct step_env *env, uint64_t x, uint64_t y)
{
	hp_guard first = {0};
	for (int i = 0; i < 100; i++) {
		int64_t error = guards(env, 0, y);
		if (error < 0) return error;
		if (i == 0) first = env->guard;
	}
	int64_t error = guards(env, x, y);
	return error < 0 ? error : hp_heap_unguard(&first);
}

/* To that first cell; and what is free by then is used for something else. */
static int64_t moves_guard(struct step_env *env, uint64_t x, uint64_t y)
{
	hp_guard last = env->guard, other;
	(void)x, (void)y;
	int error = hp_heap_guard(env->heap, &env->kept, 1, &env->guard);
	if (error == 0) error = hp_heap_unguard(&last);
	if (error == 0) error = hp_heap_read_enter(env->pool);
	if (error < 0) return error;
	hp_ref root = hp_heap_root(env->heap);
	error = hp_heap_guard(env->heap, &root, 1, &other);
	hp_heap_read_exit(env->pool);
	return error < 0 ? error : walk(env, env->kept);
}

/* Garbage from the x-th of the list on, found, and its places used for something else. */
static int64_t cuts_and_reuses(struct step_env *env, uint64_t x, uint64_t y)
{
	int64_t error = cuts(env, x, y);
	if (error == 0) error = collects(env, 0, 0);
	int begun = hp_heap_begin(env->heap, 0, &env->tx);
	if (begun < 0) return begun;
	for (uint64_t i = 0; i < 3 * EACH; i++) step_part(env->tx, JUNK + i, HP_NONE, HP_NONE);
	hp_heap_abort(env->tx);
	return error;
}

static int64_t reads_twice(struct step_env *env, uint64_t x, uint64_t y)
{
	int64_t count = reads(env, x, y);
	return count < 0 ? count : reads(env, x, y);
}

/* 0 and 1 have the heap open, and what they need at hand; actor 2 is there, too. */
static void three(struct step_world *w)
{
	company(w, 3);
	open_all(w);
	MUST(w, 1, fills, 3, 10);
	for (int a = 0; a < 2; a++) {
		MUST(w, a, fills, EACH, 30);
		MUST(w, a, changes, COMMITS, 0);
		MUST(w, a, changes, COMMITS, 0);
		MUST(w, a, fills, 2, 50);
		MUST(w, a, collects, 0, 0);
	}
	w->actor[1].list[HASTE] = 1;
}

/* B guards, in its last cell, what A has found to be garbage. */
static void pair_guarded(struct step_world *w)
{
	three(w);
	MUST(w, 1, guards_late, 2, 0);
	MUST(w, 0, cuts, 1, 0);
	MUST(w, 2, enters, 0, 0);
	STEP_NEED(w, step_call(w, 0, collects, 0, 0) == -EAGAIN);
	MUST(w, 2, exits, 0, 0);
}

static void pair_guarded_by_a(struct step_world *w)
{
	three(w);
	MUST(w, 0, guards, 2, 0);
}

static void pair_garbage(struct step_world *w)
{
	three(w);
	MUST(w, 0, cuts, 2, 0);
}

static void pair_dead_reader(struct step_world *w)
{
	three(w);
	MUST(w, 2, guards, 2, 0);
	MUST(w, 2, enters, 0, 0);
	MUST(w, 0, cuts, 1, 0);
	STEP_NEED(w, step_call(w, 0, collects, 0, 0) == -EAGAIN);
	step_kill(w, 2);
}

/* B has it open alone, A will. */
static void pair_to_open(struct step_world *w)
{
	nothing(w);
	MUST(w, 1, make, 0, 0);
	MUST(w, 1, fills, 3, 10);
	w->x = w->actor[1].list[0];
	w->actor[1].list[HASTE] = 1;
}

static void pair_to_destroy(struct step_world *w)
{
	alone(w);
	w->y = w->actor[0].list[0];
	w->actor[1].list[HASTE] = 1;
}

#define SIDE(fn, with) \
	{ \
		.run = fn, .x = with, .effect = STEP_NONE \
	}
#define PAIR(text, set_up, first, second, allowed) \
	{ \
		.name = text, .pool = &one, .setup = set_up, .a = first, .b = second, .flags = allowed \
	}

static const struct step_pair pairs[] = {
	PAIR("sweep, move a guard", pair_guarded, SIDE(collects, 0), SIDE(moves_guard, 0), STEP_MAY_FAIL | STEP_SLOW),
	PAIR("collect, read", pair_garbage, SIDE(collects, 0), SIDE(reads, 0), STEP_MAY_FAIL | STEP_SLOW),
	PAIR("collect, guard", pair_garbage, SIDE(collects, 0), SIDE(guards, 1), STEP_MAY_FAIL | STEP_SLOW),
	PAIR("collect, recover a reader", pair_dead_reader, SIDE(collects, 0), SIDE(step_recover, 0),
         STEP_MAY_FAIL | STEP_SLOW),
	PAIR("change, recover a reader", pair_dead_reader, SIDE(changes, 0), SIDE(step_recover, 0),
         STEP_MAY_FAIL | STEP_SLOW),
	PAIR("change, read", three, SIDE(changes, 0), SIDE(reads, 0), STEP_MAY_FAIL | STEP_SLOW),
	PAIR("change, change", three, SIDE(changes, 0), SIDE(changes, 0), STEP_MAY_FAIL | STEP_SLOW),
	PAIR("read, cut and use again", three, SIDE(reads_twice, 0), SIDE(cuts_and_reuses, 1), STEP_MAY_FAIL | STEP_SLOW),
	PAIR("guard, cut and use again", three, SIDE(guards_and_not, 2), SIDE(cuts_and_reuses, 1),
         STEP_MAY_FAIL | STEP_SLOW),
	PAIR("link back, cut and use again", pair_guarded_by_a, SIDE(links_back, 1), SIDE(cuts_and_reuses, 1),
         STEP_MAY_FAIL | STEP_SLOW),
	PAIR("open, destroy", pair_to_open, SIDE(opens, 0), SIDE(destroys, 0), STEP_ONE | STEP_FRESH),
	PAIR("destroy, open", pair_to_destroy, SIDE(destroys, 0), SIDE(opens, 0), STEP_ONE | STEP_FRESH),
};

static void pairs_on_one_heap(void **state)
{
	(void)state;
	assert_int_equal(step_run_pairs(pairs, COUNT(pairs)), 0);
}

static void writers_die(void **state)
{
	(void)state;
	assert_int_equal(step_run_cases(writing, COUNT(writing)), 0);
}

static void collectors_die(void **state)
{
	(void)state;
	assert_int_equal(step_run_cases(collecting, COUNT(collecting)), 0);
}

static void openers_and_readers_die(void **state)
{
	(void)state;
	assert_int_equal(step_run_cases(living, COUNT(living)), 0);
}

static void the_next_writer_dies(void **state)
{
	(void)state;
	assert_int_equal(step_run_cases(next, COUNT(next)), 0);
}

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(writers_die), cmocka_unit_test(collectors_die),
	                                   cmocka_unit_test(openers_and_readers_die),
	                                   cmocka_unit_test(the_next_writer_dies), cmocka_unit_test(pairs_on_one_heap)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
