/* Two operations, one stopped in the other. See harness.h.
 *
 * Trials begin from images (image.h), so each costs about a millisecond however long A's way to the point was. What a
 * trial leaves is known by a hash of the shared memory, the results and the two participants' private states, and
 * verified once. */
#include "harness.h"
#include "image.h"
#include "run.h"
#include "pool/participant.h"
#include "slab/slab.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/uio.h>

#define A 0
#define B 1
#define TRIALS \
	500 /* a pair, unless HP_STEP_FULL: with longer operations not every instruction, but each that changes
                       something */

struct pair {
	struct step_world *world;
	const struct step_pair *entry;
	struct step_side a, b; /* with their arguments */
	unsigned living;       /* actors */
	struct step_image *image[STEP_ACTORS];
	char *control; /* at the point */
	char *data;    /* the same, where there are caches */
	struct step_block block[STEP_BLOCKS];
	unsigned blocks;
	uint64_t pages, trials, outcomes;
	unsigned char *used;
	bool freed;     /* A's free is done, as B's block shows */
	bool succeeded; /* B */
	int named;      /* blocks that the word should name; at the point none, or one that is not in the model */
	int names;
	uint64_t *changes, length;
	unsigned count;
};

static int64_t step_where(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)env, (void)x, (void)y;
	return (int64_t)(uintptr_t)hp_thread_current;
}

static uint64_t bytes_of(const struct step_side *side)
{
	return side->effect == STEP_MALLOCS                                   ? step_size(side->x)
	       : side->effect == STEP_MOVES || side->effect == STEP_PUBLISHES ? step_size(side->y)
	       : side->effect == STEP_LIMITS                                  ? side->x
	                                                                      : side->pages * HP_PAGE_SIZE;
}

static bool may_fail(const struct pair *pair, int64_t error)
{
	unsigned flags = pair->entry->flags;
	bool shortage = error == -ENOMEM || error == -EAGAIN || error == -ESTALE || error == -EBUSY || error == -ETIMEDOUT;
	if (flags & (STEP_MAY_FAIL | STEP_EITHER | STEP_ONE) && (shortage || error == -ENOENT)) return true;
	return flags & STEP_SAME_FREE && (error == -EALREADY || error == -ENOENT);
}

/* What an actor got: of nobody else. */
static void got(struct pair *pair, int actor, hp_off off)
{
	struct step_world *w = pair->world;
	for (unsigned i = 0; i < w->blocks; i++) {
		if (off >= w->block[i].off + w->block[i].bytes || w->block[i].off >= off + w->cache.stride) continue;
		if (actor == B && pair->a.effect == STEP_PUTS && w->block[i].off == pair->a.x) {
			pair->freed = step_model_remove(w, pair->a.x); /* A has committed */
			break;
		}
		step_fail(w, "%s gets 0x%llx, which somebody has", actor == A ? "A" : "B", (unsigned long long)off);
		return;
	}
	step_model_add_cached(w, off);
}

/* Of a result that came without an error: what the model says now. */
static bool apply(struct pair *pair, int actor, const struct step_side *side, int64_t result)
{
	struct step_world *w = pair->world;
	const char *who = actor == A ? "A" : "B";
	if (result < 0 && may_fail(pair, result)) return false;
	if (result < 0) {
		step_fail(w, "%s fails with %lld", who, (long long)result);
		return false;
	}
	if (actor == B) pair->succeeded = true;
	if (actor == A && pair->succeeded && pair->entry->flags & STEP_RACES) return true;
	switch (side->effect) {
	case STEP_ALLOCATES:
	case STEP_MALLOCS:
		for (unsigned i = 0; i < w->blocks; i++)
			if (w->block[i].off < (hp_off)result + bytes_of(side) &&
			    (hp_off)result < w->block[i].off + w->block[i].bytes) {
				if (actor == B && pair->a.effect == STEP_FREES && w->block[i].off == pair->a.x) {
					pair->freed = step_model_remove(w, pair->a.x); /* A has committed */
					i--;
					continue;
				}
				if (w->block[i].owner >= 0 && (!w->actor[w->block[i].owner].alive || pair->a.run == step_detach)) {
					step_model_remove(w, w->block[i].off); /* given back by recovery */
					i--;
					continue;
				}
				step_fail(w, "%s gets 0x%llx, which lies in a live block", who, (unsigned long long)result);
				return false;
			}
		if (side->effect == STEP_MALLOCS)
			step_model_add_object(w, (hp_off)result, side->x);
		else
			step_model_add(w, (hp_off)result, side->pages, side->y & HP_PAGE_PROCESS ? actor : -1);
		break;
	case STEP_FREES:
		if (!(actor == A && pair->freed) && !step_model_remove(w, side->x)) step_fail(w, "both could free the block");
		break;
	case STEP_PUTS:
		if (!(actor == A && pair->freed) && !step_model_remove(w, side->x)) step_fail(w, "both could put the object");
		break;
	case STEP_GETS:
		if (!side->count) got(pair, actor, (hp_off)result);
		for (unsigned i = 0; i < side->count && !w->failures; i++) got(pair, actor, w->actor[actor].list[i]);
		break;
	case STEP_ENDS: w->cache.there = false; break;
	case STEP_REMAKES:
		w->cache.stale = ~(1u << actor);
		w->cache.stride = (uint32_t)side->y;
		if (side->x) step_model_remove(w, side->x);
		break;
	case STEP_LIMITS: w->cache.limit = side->x; break;
	case STEP_PUBLISHES: pair->named++; break; /* settle */
	case STEP_EMPTIES: pair->named--; break;
	case STEP_MOVES: /* the old block goes, and there is another */
		if (!step_model_remove(w, side->x)) step_fail(w, "%s could free what was not there", who);
		step_model_add_object(w, (hp_off)result, side->y);
		break;
	case STEP_GROWS: w->shape.pages += side->pages; break;
	case STEP_TRIMS: w->shape.pages -= (uint64_t)result / HP_PAGE_SIZE; break;
	default: break;
	}
	return true;
}

static void mark(struct pair *pair, hp_off off, uint64_t pages, const char *who)
{
	struct step_world *w = pair->world;
	for (uint64_t p = off / HP_PAGE_SIZE; p < off / HP_PAGE_SIZE + pages; p++) {
		if (p < w->geometry.capacity / HP_PAGE_SIZE && !pair->used[p])
			pair->used[p] = 1;
		else
			step_fail(w, "%s gets page %llu, which has an owner", who, (unsigned long long)p);
	}
}

/* The actor, with whatever it believes by now, can have all that is free. `spare`: pages it need not get. */
static void has_all(struct pair *pair, int actor, uint64_t spare)
{
	struct step_world *w = pair->world;
	char who[16];
	uint64_t there = step_free_pages(w);
	int64_t got = step_call(w, actor, step_exhaust, 1, 0);
	snprintf(who, sizeof who, "actor %d", actor);
	if (got < 0 || (uint64_t)got > there || (uint64_t)got + spare < there) {
		step_fail(w, "%s gets %lld of %llu free pages", who, (long long)got, (unsigned long long)there);
		return;
	}
	memset(pair->used, 0, w->geometry.capacity / HP_PAGE_SIZE);
	for (unsigned i = 0; i < w->blocks; i++) {
		int owner = w->block[i].owner;
		bool over = owner >= 0 && (!w->actor[owner].alive || (owner == A && pair->a.run == step_detach));
		if (!over) mark(pair, w->block[i].off, w->block[i].pages, "the model");
		if (!w->block[i].pages) pair->used[w->block[i].off / HP_PAGE_SIZE] = 1;
	}
	for (int64_t i = 0; i < got && !w->failures; i++) mark(pair, w->actor[actor].list[i], 1, who);
	int64_t error = step_call(w, actor, step_free_list, 0, (uint64_t)got);
	if (error < 0) step_fail(w, "%s cannot free what it got (%lld)", who, (long long)error);
}

/* The same of objects of hp_malloc: none where something lives, and none twice. */
static void has_objects(struct pair *pair, int actor)
{
	struct step_world *w = pair->world;
	uint64_t bytes = w->object, unit = 16, units = w->geometry.capacity / unit;
	if (!bytes) return;
	uint64_t there = step_free_objects(w, bytes);
	int64_t got = step_call(w, actor, step_malloc_all, bytes, 0);
	if (got < 0 || (uint64_t)got < there) {
		step_fail(w, "actor %d gets %lld objects, and there are %llu", actor, (long long)got,
		          (unsigned long long)there);
		return;
	}
	unsigned char *used = calloc(units, 1);
	STEP_NEED(w, used);
	for (unsigned i = 0; i < w->blocks; i++) memset(used + w->block[i].off / unit, 1, w->block[i].bytes / unit);
	for (int64_t i = 0; i < got && !w->failures; i++) {
		uint64_t at = w->actor[actor].list[i] / unit;
		for (uint64_t u = at; u < at + bytes / unit && !w->failures; u++) {
			if (used[u])
				step_fail(w, "actor %d gets the object at 0x%llx, which has an owner", actor,
				          (unsigned long long)at * unit);
			used[u] = 1;
		}
	}
	free(used);
	int64_t error = w->failures ? 0 : step_call(w, actor, step_mfree_list, 0, (uint64_t)got);
	if (error < 0) step_fail(w, "actor %d cannot free an object that it got (%lld)", actor, (long long)error);
}

/* The same of the world's cache, up to its limit. */
static void has_cached(struct pair *pair, int actor)
{
	struct step_world *w = pair->world;
	uint64_t out = 0, unit = 16, units = w->geometry.capacity / unit;
	bool gone = !w->cache.there || w->cache.stale >> actor & 1;
	int64_t got = step_call(w, actor, gone ? step_cache_get : step_cache_get_all, 0, 0);
	if (gone) {
		if (got != -ESTALE) step_fail(w, "actor %d's get gives %lld, and its cache is gone", actor, (long long)got);
		return;
	}
	for (unsigned i = 0; i < w->blocks; i++) out += w->block[i].cached;
	if (got < 0 || (w->cache.limit && (uint64_t)got + out != w->cache.limit)) {
		step_fail(w, "actor %d gets %lld objects of the cache, %llu were out, and the limit is %llu", actor,
		          (long long)got, (unsigned long long)out, (unsigned long long)w->cache.limit);
		return;
	}
	unsigned char *used = calloc(units, 1);
	STEP_NEED(w, used);
	for (unsigned i = 0; i < w->blocks; i++) memset(used + w->block[i].off / unit, 1, w->block[i].bytes / unit);
	for (int64_t i = 0; i < got && !w->failures; i++) {
		uint64_t at = w->actor[actor].list[i] / unit;
		if (used[at])
			step_fail(w, "actor %d gets the cache's object at 0x%llx, which has an owner", actor,
			          (unsigned long long)at * unit);
		memset(used + at, 1, w->cache.stride / unit);
	}
	free(used);
	int64_t error = w->failures ? 0 : step_call(w, actor, step_cache_put_list, 0, (uint64_t)got);
	if (error < 0) step_fail(w, "actor %d cannot put an object that it got (%lld)", actor, (long long)error);
}

/* What the word names, if anything, is in the model from here on. */
static void settle(struct pair *pair)
{
	struct step_world *w = pair->world;
	uint64_t value = step_word_value(w);
	if (!w->word) return;
	if (value && (value & 15) != 8) step_fail(w, "the word is left with 0x%llx", (unsigned long long)value);
	if (pair->named != (value != 0))
		step_fail(w, "%d blocks should be published, and the word has 0x%llx", pair->named, (unsigned long long)value);
	if (value && !w->failures) {
		bool of_a = pair->a.effect == STEP_PUBLISHES, of_b = pair->b.effect == STEP_PUBLISHES;
		step_model_add_object(w, value & ~UINT64_C(15), of_a ? pair->a.y : of_b ? pair->b.y : w->object);
	}
}

/* What the magazines hold, not what lies in them from before. */
static uint64_t magazines_hash(const struct slab_state *state, uint64_t hash)
{
	hash = step_hash(state, offsetof(struct slab_state, stack), hash);
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		size_t bytes = (size_t)((char *)state->mag[c].known - (char *)state->mag[c].base);
		hash = step_hash(state->stack[c].object, bytes, hash);
		hash = step_hash(state->stack[c].at, bytes, hash);
		hash = step_hash(state->stack[c].bit, bytes, hash);
	}
	return hash;
}

static uint64_t private_hash(struct pair *pair, int actor, uint64_t hash)
{
	static struct participant state; /* large */
	struct step_world *w = pair->world;
	uint64_t where = (uint64_t)step_call(w, actor, step_where, 0, 0);
	size_t head = offsetof(struct participant, slab_state), bytes = w->shape.slabs ? sizeof state : head;
	struct iovec here = {&state, bytes}, there = {(void *)where, bytes};
	STEP_NEED(w, process_vm_readv(w->actor[actor].pid, &here, 1, &there, 1, 0) == (ssize_t)bytes);
	hash = step_hash(&state, head, hash);
	return w->shape.slabs ? magazines_hash(slab_state(&state), hash) : hash;
}

/* Where A stands: killed there, with B alive, nothing is lost either. */
static void a_dies(struct pair *pair, int64_t b)
{
	struct step_world *w = pair->world;
	uint64_t key[2] = {(uint64_t)b, 1};
	uint64_t word = step_word_value(w),
			 state = step_hash(&word, sizeof word, step_hash(w->control, w->control_size, 0));
	if (step_seen(w, step_hash(key, sizeof key, state))) return;
	pair->outcomes++;
	const struct step_side *side = &pair->a;
	bool gone = pair->freed || (pair->entry->flags & STEP_SAME_FREE && b == 0); /* B has freed A's block */
	bool process = side->effect == STEP_ALLOCATES && side->y & HP_PAGE_PROCESS;
	struct step_expect expect = {.effect = gone || process ? STEP_NONE : side->effect,
	                             .pages = side->pages,
	                             .bytes = bytes_of(side),
	                             .off = side->x,
	                             .count = side->count,
	                             .alive = pair->living & ~(1u << A),
	                             .takes = true};
	if (w->word && (pair->a.effect == STEP_EMPTIES || pair->b.effect == STEP_PUBLISHES)) {
		expect.effect = STEP_PUBLISHES; /* what the word names is there, and nothing else */
		expect.bytes = w->object;
	}
	struct step_cache cache = w->cache;
	if (side->effect == STEP_ENDS && b < 0) w->cache.there = true;
	step_verify_copy(w, &expect);
	w->cache = cache;
}

/* Pages in which objects are constructed that the actor cannot destroy. */
static uint64_t not_to_be_had(struct pair *pair, int actor)
{
	const struct step_cache *cache = &pair->world->cache;
	return cache->built && cache->stale >> actor & 1 ? pair->world->geometry.chunk_pages : 0;
}

/* A and B are done. */
static void both_done(struct pair *pair, int64_t a, int64_t b)
{
	struct step_world *w = pair->world;
	uint64_t key[2] = {(uint64_t)a, (uint64_t)b};
	uint64_t word = step_word_value(w), hash = step_hash(&word, sizeof word, step_hash(w->control, w->control_size, 0));
	hash = step_hash(key, sizeof key, hash);
	bool leaves = pair->a.run == step_detach;
	if (!leaves) hash = private_hash(pair, A, hash);
	if (step_seen(w, private_hash(pair, B, hash))) return;
	pair->outcomes++;
	if (w->shape.slabs && !leaves) has_objects(pair, A);
	if (w->shape.slabs && !w->failures) has_objects(pair, B);
	if (w->shape.caches && !leaves && !w->failures) has_cached(pair, A);
	if (w->shape.caches && !w->failures) has_cached(pair, B);
	if (!leaves && !w->failures) has_all(pair, A, not_to_be_had(pair, A));
	if (!w->failures) has_all(pair, B, not_to_be_had(pair, B));
	if (!w->failures && !leaves) has_all(pair, A, not_to_be_had(pair, A));
	struct step_expect expect = {
		.effect = STEP_NONE, .alive = leaves ? pair->living & ~1u : pair->living, .takes = true, .over = true};
	if (!w->failures) step_verify_copy(w, &expect);
	expect.alive = 0;
	if (!w->failures) step_verify_copy(w, &expect);
}

/* Actors 1 to 3 do their work, all at once, though A stands still; then each can have the memory that A does not own. */
static int64_t others_work(struct pair *pair)
{
	struct step_world *w = pair->world;
	int64_t result = 0;
	for (int a = 1; a <= 3; a++) step_send(w, a, pair->b.run, pair->b.x, pair->b.y);
	for (int a = 1; a <= 3; a++) {
		int64_t one = step_receive(w, a);
		if (one < 0) step_fail(w, "actor %d: %lld while another is stopped", a, (long long)one);
		if (one < 0) result = one;
	}
	uint64_t spare = 4 * w->geometry.chunk_pages;
	int64_t got = w->failures ? 0 : step_call(w, 1, step_exhaust, 1, 0);
	if (got < 0 || (uint64_t)got + spare < step_free_pages(w))
		step_fail(w, "near exhaustion actor 1 gets %lld pages", (long long)got);
	if (got > 0 && step_call(w, 1, step_free_list, 0, (uint64_t)got) < 0) step_fail(w, "actor 1 cannot free");
	return result;
}

/* Objects of the cache that are out, as the slabs say. */
static uint64_t out_now(struct step_world *w)
{
	uint64_t count = 0;
	for (uint64_t i = 0; i < (uint64_t)w->geometry.chunks * w->geometry.chunk_pages; i++) {
		const struct slab *slab = &step_slabs(w)[i];
		unsigned state = ctl_state(atomic_load(&slab->ctl));
		const pool_map *map = (const pool_map *)(const void *)(w->control + w->geometry.map_at);
		uint64_t of = atomic_load(&map[i]);
		if ((uint8_t)of != 1 || (uint8_t)(of >> 8) < SLAB_MALLOC_CLASSES) continue;
		for (unsigned k = 0; k < SLAB_OBJECTS && (state == CTL_OWNED || state == CTL_UNOWNED); k++)
			count += slab_live(slab, k);
	}
	return count;
}

/* The cell of an actor that has looked while it waits: whoever puts from here on has to wake it. NULL: it does not, or has
 * not. */
static struct pool_wait *who_waits(struct step_world *w, int actor)
{
	struct pool_wait *wait = (struct pool_wait *)(void *)(w->control + w->geometry.waits_at);
	const struct pool_wait *first = (const struct pool_wait *)(const void *)(w->first + w->geometry.waits_at);
	int record = step_record(w, w->control, actor);
	for (uint32_t i = 0; w->shape.caches && i < w->geometry.slots; i++) {
		uint64_t word = atomic_load(&step_slots(w)[i].word);
		if (slot_state(word) != SLOT_LIVE || (int)slot_record(word) != record || !atomic_load(&wait[i].ticket))
			continue;
		if (atomic_load(&wait[i].looks) != atomic_load(&first[i].looks)) return &wait[i];
	}
	return NULL;
}

static void trial(struct pair *pair)
{
	struct step_world *w = pair->world;
	bool refused = pair->a.effect == STEP_PUTS && w->cache.limit && (step_inside(w, A) || out_now(w) >= w->cache.limit);
	struct pool_wait *waits = who_waits(w, A);
	uint32_t turn = waits ? atomic_load(&waits->futex) : 0;
	int64_t b = pair->entry->flags & STEP_STOPS ? others_work(pair)
	                                            : step_call(w, B, pair->b.run, pair->b.x, pair->b.y);
	if (waits && pair->b.effect == STEP_PUTS && b == 0 && atomic_load(&waits->futex) == turn)
		step_fail(w, "A has looked and waits, and B does not wake it");
	pair->trials++;
	pair->freed = pair->succeeded = false;
	if (b == INT64_MIN || w->failures) return;
	if (pair->a.effect == STEP_PUTS && b == -EAGAIN && w->cache.limit && !refused)
		step_fail(w, "B is refused, though fewer are out than the limit allows");
	bool done = apply(pair, B, &pair->b, b);
	if (!w->failures) a_dies(pair, b);
	if (w->failures) return;
	struct user_regs_struct regs = w->regs;
	int64_t a = step_finish(w, A);
	w->regs = regs; /* for messages: where A was stopped */
	done |= apply(pair, A, &pair->a, a);
	if (pair->entry->flags & STEP_RACES && a == 0 && b == 0) return; /* see README.md: not told, the caller's fault */
	if (pair->entry->flags & STEP_SAME_FREE && !done) step_fail(w, "neither could free the block");
	if (pair->entry->flags & (STEP_EITHER | STEP_ONE) && a < 0 && b < 0)
		step_fail(w, "neither succeeds: %lld, %lld", (long long)a, (long long)b);
	if (pair->entry->flags & STEP_ONE && a >= 0 && b >= 0) step_fail(w, "both succeed");
	if (!w->failures) settle(pair);
	if (!w->failures && !step_patterns_intact(w)) return;
	if (!w->failures) both_done(pair, a, b);
}

static void trial_and_back(struct pair *pair)
{
	struct step_world *w = pair->world;
	pair->image[A] = image_take(w, A, true, pair->image[A]);
	memcpy(pair->control, w->control, w->control_size);
	struct step_cache cache = w->cache;
	if (pair->data) memcpy(pair->data, w->data, w->data_size);
	trial(pair);
	if (w->failures) return;
	for (int a = 0; a < STEP_ACTORS; a++)
		if (pair->image[a]) image_put(w, a, pair->image[a]);
	memcpy(w->control, pair->control, w->control_size);
	w->blocks = 0;
	for (unsigned i = 0; i < pair->blocks; i++) /* with their patterns: one may have been freed, and used */
		step_model_add_block(w, &pair->block[i]);
	if (pair->data) memcpy(w->data, pair->data, w->data_size);
	w->cache = cache;
	pair->named = pair->names;
	w->shape.pages = pair->pages;
}

static void pair_open(struct pair *pair, const struct step_pair *entry)
{
	struct step_world *w = step_open(entry->name, entry->pool);
	*pair = (struct pair){.world = w, .entry = entry, .a = entry->a, .b = entry->b};
	entry->setup(w);
	if (!pair->a.x) pair->a.x = w->x;
	if (!pair->b.x) pair->b.x = w->y;
	if (!pair->a.pages) pair->a.pages = pair->a.x;
	if (!pair->b.pages) pair->b.pages = pair->b.x;
	if (pair->a.effect == STEP_PUTS) w->giving = pair->a.x;
	if (step_word_value(w)) {
		STEP_NEED(w, step_model_remove(w, step_word_value(w) & ~UINT64_C(15)));
		pair->named = pair->names = 1;
	}
	if (w->shape.caches || w->shape.heaps) STEP_NEED(w, pair->data = malloc(w->data_size));
	pair->pages = w->shape.pages;
	pair->blocks = w->blocks;
	memcpy(pair->block, w->block, sizeof pair->block);
	STEP_NEED(w,
	          (pair->control = malloc(w->control_size)) && (pair->used = malloc(w->geometry.capacity / HP_PAGE_SIZE)));
	for (int a = 0; a < STEP_ACTORS; a++) {
		if (!w->actor[a].alive) continue;
		pair->living |= 1u << a;
		if (a != A) pair->image[a] = image_take(w, a, false, NULL);
	}
}

static void pair_close(struct pair *pair)
{
	for (int a = 0; a < STEP_ACTORS; a++) image_free(pair->image[a]);
	free(pair->control);
	free(pair->data);
	free(pair->used);
	step_close(pair->world);
}

/* How many instructions A has alone, and which of them change something. */
static void walk(struct pair *all, const struct step_pair *entry)
{
	struct pair pair;
	pair_open(&pair, entry);
	struct step_world *w = pair.world;
	STEP_NEED(w, all->changes = malloc(1024 * sizeof *all->changes));
	step_begin(w, A, pair.a.run, pair.a.x, pair.a.y);
	step_remember(w);
	while (step_one(w, A)) {
		if (!step_changed(w) || all->count == 1024) continue;
		step_remember(w);
		all->changes[all->count++] = w->instructions;
	}
	all->length = w->instructions;
	pair_close(&pair);
}

/* A trial from a fresh start, for what cannot be put back. */
static void fresh(struct pair *all, uint64_t point)
{
	struct pair pair;
	pair_open(&pair, all->entry);
	step_begin(pair.world, A, pair.a.run, pair.a.x, pair.a.y);
	while (pair.world->instructions < point && step_one(pair.world, A)) {}
	trial(&pair);
	all->world->failures += pair.world->failures;
	all->trials++;
	all->outcomes += pair.outcomes;
	pair_close(&pair);
}

/* In the kernel's page of code: reading the clock begins again whenever a tick comes, and a trial takes longer. */
static bool reads_clock(const struct step_world *w)
{
#ifdef __x86_64__
	unsigned long page = getauxval(AT_SYSINFO_EHDR);
	return w->regs.rip >= page && w->regs.rip < page + 0x4000;
#else
	return false;
#endif
}

static int run_pair(const void *table, unsigned index)
{
	const struct step_pair *entry = (const struct step_pair *)table + index;
	if (!run_wanted(entry->name)) return 0;
	struct pair pair, all = {0};
	if (entry->pool->heaps) step_heap_pair_goals(entry);
	walk(&all, entry);
	uint64_t length = all.length, next = 0;
	uint64_t stride = step_full() ? 1
	                              : length / (entry->flags & STEP_STOPS  ? 60
	                                          : entry->flags & STEP_RARE ? 10
	                                          : entry->flags & STEP_SLOW ? 100
	                                                                     : TRIALS) +
	                                    1;
	pair_open(&pair, entry);
	struct step_world *w = pair.world;
	if (entry->flags & STEP_FRESH) {
		uint64_t most = length > 30000 ? 3 : 40;
		stride = step_full() ? 1 : length / (w->shape.heaps ? 8 : most) + 1;
		for (uint64_t point = 0; point < length && !w->failures; point += stride) fresh(&pair, point);
		uint64_t skip = step_full() ? 1 : all.count / most + 1;
		for (unsigned i = 0; i < all.count && !w->failures; i += skip) {
			fresh(&pair, all.changes[i]);
			if (w->shape.heaps) fresh(&pair, all.changes[i] - 1);
		}
	} else {
		memcpy(w->first, w->control, w->control_size);
		step_begin(w, A, pair.a.run, pair.a.x, pair.a.y);
		step_remember(w);
		do {
			bool changed = step_changed(w);
			if ((!changed && w->instructions < next) || reads_clock(w)) continue;
			step_remember(w);
			next = w->instructions + stride;
			trial_and_back(&pair);
		} while (!w->failures && step_one(w, A));
	}
	run_report("%s: %llu instructions, stopped at %llu, %llu outcomes", entry->name, (unsigned long long)length,
	           (unsigned long long)pair.trials, (unsigned long long)pair.outcomes);
	int failures = (int)w->failures;
	free(all.changes);
	pair_close(&pair);
	return failures;
}

int step_run_pairs(const struct step_pair *pairs, unsigned count)
{
	return run_all(run_pair, pairs, count);
}
