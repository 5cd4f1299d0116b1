/* Caches in worlds: what actors do with them, and what is verified of them. See harness.h.
 *
 * Constructors mark the first word of an object, destructors mark it otherwise, and both look at what is there. So
 * an object that is given out raw, or destroyed twice, is seen by whoever meets it, whatever the byte in the slab
 * says. */
#include "harness.h"
#include "cache/cache.h"
#include "pool/layers.h"
#include <hugepool/malloc.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME "objects"
#define MARK_BUILT UINT64_C(0xb0117b0117b01170)
#define MARK_ENDED UINT64_C(0xe4dede4dede4dee0)

extern const struct pool_layer slab_layer; /* as in layers.c */

struct builder {
	hp_pool *pool;
	uint64_t who;          /* 1: an actor, 2: who looks */
	unsigned again, wrong; /* constructed what was so already; destroyed what was not */
};

static struct builder builder[2] = {{.who = 1}, {.who = 2}}; /* of this process as an actor; as one who looks */

static bool is_built(hp_pool *pool, const void *object, uint64_t *who)
{
	uint64_t mark = *(const uint64_t *)object ^ MARK_BUILT ^ hp_pool_offset(pool, object);
	*who = mark;
	return mark == 1 || mark == 2;
}

static int build(void *arg, void *object, unsigned flags)
{
	struct builder *by = arg;
	uint64_t who;
	(void)flags;
	by->again += is_built(by->pool, object, &who);
	*(volatile uint64_t *)object = MARK_BUILT ^ hp_pool_offset(by->pool, object) ^ by->who;
	return 0;
}

static void unbuild(void *arg, void *object)
{
	struct builder *by = arg;
	uint64_t who;
	by->wrong += !is_built(by->pool, object, &who);
	*(volatile uint64_t *)object = MARK_ENDED ^ hp_pool_offset(by->pool, object);
}

static int open_by(struct builder *by, hp_pool *pool, bool built, hp_cache **cache)
{
	struct hp_cache_options options = {.struct_size = sizeof options, .ctor = build, .dtor = unbuild, .arg = by};
	by->pool = pool;
	by->again = by->wrong = 0;
	return hp_cache_open(pool, NAME, built ? &options : NULL, cache);
}

/* ---- functions of actors ---- */

int64_t step_cache_create(struct step_env *env, uint64_t x, uint64_t y)
{
	struct hp_cache_options options = {.struct_size = sizeof options, .size = x, .flags = (unsigned)y};
	if (y & STEP_BUILT) {
		options.ctor = build;
		options.dtor = unbuild;
		options.arg = &builder[0];
	}
	builder[0].pool = env->pool;
	return hp_cache_create(env->pool, NAME, &options, &env->cache);
}

int64_t step_cache_make(struct step_env *env, uint64_t x, uint64_t y)
{
	struct hp_cache_options options = {.struct_size = sizeof options, .size = x};
	hp_cache *cache;
	(void)y;
	int error = hp_cache_create(env->pool, "made", &options, &cache);
	if (error == 0) hp_cache_close(cache);
	return error;
}

int64_t step_cache_open(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return open_by(&builder[0], env->pool, x != 0, &env->cache);
}

int64_t step_cache_reopen(struct step_env *env, uint64_t x, uint64_t y)
{
	hp_cache *cache;
	(void)y;
	int error = open_by(&builder[0], env->pool, x != 0, &cache);
	if (error == 0) hp_cache_close(cache);
	return error;
}

int64_t step_cache_destroy(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	int error = hp_cache_destroy(env->cache);
	if (error == 0) env->cache = NULL;
	return builder[0].wrong ? -EBADMSG : error;
}

int64_t step_cache_remake(struct step_env *env, uint64_t x, uint64_t y)
{
	int none;
	int64_t error = step_cache_destroy(env, 0, 0);
	if (error == 0 && x) error = step_free(env, x, 0);
	if (error == 0) error = step_cache_create(env, (uint32_t)y, y & STEP_BUILT);
	struct participant *me = error == 0 ? participant_get(env->pool, &none) : NULL;
	if (!me) return error;
	/* more than one: the first of a slab lies at the same place whatever their size */
	error = step_cache_get_bulk(env, 2, 0);
	if (error == -ENOMEM) return 0; /* all pages may be another's, who stands still */
	if (error == 0) error = step_cache_put_bulk(env, 0, 2);
	if (error < 0) return error;
	/* as if somebody had taken from us: the slab is nobody's, so that whoever looks for an object of that class meets it */
	participant_begin(me);
	slab_layer.reread(me, true);
	participant_end(me);
	return 0;
}

int64_t step_cache_limit(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_cache_set_hard_limit(env->cache, x, NULL, 0);
}

/* It is constructed where it should be, and nothing went wrong on the way. */
static int64_t offset_of(struct step_env *env, void *object)
{
	uint64_t who;
	if (!object) return -errno;
	if (builder[0].wrong || (env->cache->ctor && !is_built(env->pool, object, &who))) return -EBADMSG;
	return (int64_t)hp_pool_offset(env->pool, object);
}

int64_t step_cache_get(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x;
	if (!env->cache) return -ESTALE;
	return offset_of(env, y ? hp_cache_get_timed(env->cache, HP_CACHE_WAIT, y) : hp_cache_get(env->cache, 0));
}

/* As another thread of the process might: from here on the process knows the cache of that name that is there now. */
static void open_anew(void *arg, unsigned flags)
{
	struct step_env *env = arg;
	(void)flags;
	if (!cache_is_live(env->cache)) step_cache_reopen(env, env->cache->ctor ? STEP_BUILT : 0, 0);
}

int64_t step_cache_get_anew(struct step_env *env, uint64_t x, uint64_t y)
{
	hp_cache_set_drain_hook(env->cache, open_anew, env);
	return step_cache_get(env, x, y);
}

int64_t step_cache_put(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	if (!env->cache) return -ESTALE;
	int error = hp_cache_put(env->cache, hp_pool_pointer(env->pool, x));
	return builder[0].wrong ? -EBADMSG : error;
}

int64_t step_cache_get_bulk(struct step_env *env, uint64_t x, uint64_t y)
{
	void *object[64];
	(void)y;
	if (x > 64) return -EINVAL;
	int error = hp_cache_get_bulk(env->cache, 0, x, object);
	for (uint64_t i = 0; i < x && error == 0; i++) env->list[i] = hp_pool_offset(env->pool, object[i]);
	return error;
}

int64_t step_cache_put_bulk(struct step_env *env, uint64_t x, uint64_t y)
{
	void *object[64];
	if (y > 64) return -EINVAL;
	for (uint64_t i = 0; i < y; i++) object[i] = hp_pool_pointer(env->pool, env->list[x + i]);
	return hp_cache_put_bulk(env->cache, y, object);
}

int64_t step_cache_get_array(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	void *first = hp_cache_get_array(env->cache, 0, x);
	if (!first) return -errno;
	for (uint64_t i = 0; i < x; i++)
		env->list[i] = hp_pool_offset(env->pool, first) + i * env->pool->classes[env->cache->class].size;
	return 0;
}

int64_t step_cache_put_array(struct step_env *env, uint64_t x, uint64_t y)
{
	return hp_cache_put_array(env->cache, hp_pool_pointer(env->pool, x), y);
}

int64_t step_cache_prime(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_cache_prime(env->cache, x);
}

/* Begun when the cache is gone it says so: what has its place by now is another. */
static int64_t begun(bool live, int64_t result)
{
	return builder[0].wrong || (!live && result != -ESTALE) ? -EBADMSG : result;
}

int64_t step_cache_reclaim(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	bool live = cache_is_live(env->cache);
	return begun(live, hp_cache_reclaim(env->cache));
}

int64_t step_cache_invalidate(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	bool live = cache_is_live(env->cache);
	return begun(live, hp_cache_invalidate(env->cache));
}

int64_t step_cache_get_all(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	if (!env->cache) return -ESTALE;
	for (int64_t count = 0; count < STEP_LIST; count++) {
		int64_t off = step_cache_get(env, 0, 0);
		if (off == -ENOMEM || off == -EAGAIN) return count;
		if (off < 0) return off;
		env->list[count] = (uint64_t)off;
	}
	return -E2BIG;
}

int64_t step_cache_put_list(struct step_env *env, uint64_t x, uint64_t y)
{
	for (uint64_t i = x; i < x + y; i++) {
		int64_t error = step_cache_put(env, env->list[i], 0);
		if (error < 0) return error;
	}
	return 0;
}

int64_t step_room(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	int error;
	struct participant *me = participant_get(env->pool, &error);
	if (!me) return error;
	const struct slab_mag *mag = &slab_state(me)->mag[env->cache->class];
	return mag->limit - mag->top;
}

int64_t step_into(struct step_env *env, uint64_t x, uint64_t y)
{
	return hp_alloc_into(env->pool, y, hp_pool_pointer(env->pool, x));
}

int64_t step_from(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_free_from(env->pool, hp_pool_pointer(env->pool, x));
}

/* ---- set-ups ---- */

void step_cache(struct step_world *w, int a, uint64_t size, uint64_t flags)
{
	STEP_NEED(w, step_call(w, a, step_cache_create, size, flags) == 0);
	w->cache = (struct step_cache){.there = true, .built = flags & STEP_BUILT, .stride = (size + 15) / 16 * 16};
}

void step_opens(struct step_world *w, int a)
{
	STEP_NEED(w, step_call(w, a, step_cache_open, w->cache.built, 0) == 0);
}

void step_limit(struct step_world *w, int a, uint64_t n)
{
	STEP_NEED(w, step_call(w, a, step_cache_limit, n, 0) == 0);
	w->cache.limit = n;
}

void step_model_add_cached(struct step_world *w, hp_off off)
{
	step_model_add_block(w, &(struct step_block){off, 0, w->cache.stride, -1, STEP_SKIP, true});
}

hp_off step_get(struct step_world *w, int a)
{
	int64_t off = step_call(w, a, step_cache_get, 0, 0);
	STEP_NEED(w, off >= 0);
	step_model_add_cached(w, (hp_off)off);
	return (hp_off)off;
}

void step_put(struct step_world *w, int a, hp_off off)
{
	STEP_NEED(w, step_call(w, a, step_cache_put, off, 0) == 0 && step_model_remove(w, off));
}

void step_get_all(struct step_world *w, int a)
{
	int64_t count = step_call(w, a, step_cache_get_all, 0, 0);
	STEP_NEED(w, count >= 0);
	for (int64_t i = 0; i < count; i++) step_model_add_cached(w, w->actor[a].list[i]);
}

void step_word(struct step_world *w, int a)
{
	int64_t off = step_call(w, a, step_malloc, 48, 0);
	STEP_NEED(w, off >= 0);
	step_model_add_block(w, &(struct step_block){(hp_off)off, 0, step_size(48), -1, STEP_SKIP, false});
	w->word = (hp_off)off + 8;
	*(uint64_t *)(void *)(w->data + w->word) = 0;
}

bool step_marks_intact(struct step_world *w)
{
	for (unsigned i = 0; i < w->blocks && w->cache.built; i++) {
		uint64_t off = w->block[i].off, mark = *(const uint64_t *)(const void *)(w->data + off) ^ MARK_BUILT ^ off;
		if (!w->block[i].cached || w->block[i].off == w->giving || mark == 1 || mark == 2) continue;
		step_fail(w, "the object at 0x%llx was destroyed, and somebody has it", (unsigned long long)off);
		return false;
	}
	return true;
}

/* ---- verification ---- */

static const struct pool_cache *entry_of(const struct step_world *w, const char *control, const hp_cache *cache)
{
	return (const struct pool_cache *)(const void *)(control + w->geometry.caches_at) +
	       (cache->shared - cache->pool->caches);
}

/* All that there is, each once, none where something lives, none raw; and back. */
static void all_of_it(struct step_world *w, const struct step_expect *expect, hp_pool *pool, hp_cache *cache,
                      const hp_off *object, unsigned objects)
{
	uint64_t units = pool->capacity / 16, each = w->cache.stride / 16, count = 0, who;
	struct hp_cache_stats stats = {.struct_size = sizeof stats};
	unsigned char *unit = calloc(units, 1);
	void **got = calloc(STEP_LIST, sizeof *got);
	STEP_NEED(w, unit && got && hp_cache_stats(cache, &stats) == 0);
	uint32_t was = atomic_load(&entry_of(w, w->first, cache)->epoch);
	bool renewed = expect->effect == STEP_RENEWS && was && was != atomic_load(&cache->shared->epoch);
	for (unsigned i = 0; i < objects; i++) memset(unit + object[i] / 16, 1, each);
	for (; count < STEP_LIST && (got[count] = hp_cache_get(cache, 0)); count++) {
		hp_off off = hp_pool_offset(pool, got[count]);
		for (uint64_t u = off / 16; u < off / 16 + each; u++) {
			if (unit[u]) {
				step_fail(w, "the cache's object at 0x%llx has two owners", (unsigned long long)off);
				u = off / 16 + each;
			} else {
				unit[u] = 1;
			}
		}
		if (!w->cache.built) continue;
		if (!is_built(pool, got[count], &who))
			step_fail(w, "the object at 0x%llx is given out, and is not constructed", (unsigned long long)off);
		else if (renewed && who != builder[1].who)
			step_fail(w, "the object at 0x%llx is from before the invalidation", (unsigned long long)off);
	}
	if (errno != (stats.limit ? EAGAIN : ENOMEM)) step_fail(w, "a survivor's get fails with %d", errno);
	if (stats.limit ? count + stats.in_use != stats.limit : count < stats.cached)
		step_fail(w, "a survivor gets %llu objects: %llu were out, %llu cached, the limit is %llu",
		          (unsigned long long)count, (unsigned long long)stats.in_use, (unsigned long long)stats.cached,
		          (unsigned long long)stats.limit);
	/* a slab without a place holds what nobody may get, and each refusal looks at it again and again */
	STEP_NEED(w, hp_cache_stats(cache, &stats) == 0);
	if (stats.limit && stats.cached)
		step_fail(w, "%llu are cached when all that the limit of %llu allows are out", (unsigned long long)stats.cached,
		          (unsigned long long)stats.limit);
	for (uint64_t i = 0; i < count; i++) {
		int error = hp_cache_put(cache, got[i]);
		if (error < 0) step_fail(w, "a survivor's put fails with %d", error);
	}
	free(unit);
	free(got);
}

static int others(struct step_world *w, const struct step_expect *expect, hp_pool *pool)
{
	struct hp_cache_options options = {.struct_size = sizeof options, .size = 100};
	hp_cache *cache;
	int made = hp_cache_open(pool, "made", NULL, &cache), error;
	if (made != 0 && made != -ENOENT) step_fail(w, "opening a cache that may be there fails with %d", made);
	if (made == 0 && expect->effect != STEP_MAKES) step_fail(w, "a cache that nobody made");
	if (made == 0 && (error = hp_cache_destroy(cache)) < 0) step_fail(w, "ending what was made fails with %d", error);
	if ((error = hp_cache_create(pool, "another", &options, &cache)) < 0 || (error = hp_cache_destroy(cache)) < 0)
		step_fail(w, "a survivor cannot make and end a cache (%d)", error);
	return made == 0;
}

/* Constructed objects, and no cache that could destroy them. */
static void left_behind(struct step_world *w, const hp_pool *pool)
{
	for (hp_off off = 0; off < pool->capacity && w->cache.built; off += 16) {
		uint64_t mark = *(const uint64_t *)(const void *)(pool->base + off) ^ MARK_BUILT ^ off;
		if (mark == 1 || mark == 2)
			step_fail(w, "the object at 0x%llx was constructed, and not destroyed", (unsigned long long)off);
	}
}

int step_verify_cache(struct step_world *w, const struct step_expect *expect, hp_pool *pool, hp_cache **cache,
                      const hp_off *object, unsigned objects)
{
	int effect = others(w, expect, pool);
	*cache = NULL;
	int error = open_by(&builder[1], pool, w->cache.built, cache);
	if (error == -ENOENT && (!w->cache.there || expect->effect == STEP_ENDS || expect->effect == STEP_REMAKES)) {
		if (objects) step_fail(w, "objects of a cache that is gone");
		if (expect->over) left_behind(w, pool);
		return effect + w->cache.there;
	}
	if (error < 0 || !w->cache.there) {
		step_fail(w, w->cache.there ? "the cache is lost (%d)" : "the cache should be gone (%d)", error);
		return effect;
	}
	struct hp_cache_stats stats = {.struct_size = sizeof stats};
	STEP_NEED(w, hp_cache_stats(*cache, &stats) == 0);
	if (stats.in_use != objects)
		step_fail(w, "%llu objects are said to be out, %u are", (unsigned long long)stats.in_use, objects);
	if (expect->effect == STEP_LIMITS && stats.limit == expect->bytes && stats.limit != w->cache.limit)
		effect++;
	else if (stats.limit != w->cache.limit)
		step_fail(w, "the limit is %llu", (unsigned long long)stats.limit);
	uint32_t was = atomic_load(&entry_of(w, w->first, *cache)->epoch);
	if (expect->effect == STEP_RENEWS) effect += was && was != atomic_load(&(*cache)->shared->epoch);
	if (stats.limit && stats.in_use > stats.limit) step_fail(w, "more are out than the limit allows");
	if (stats.waiting) step_fail(w, "the dead wait");
	if (!w->failures) all_of_it(w, expect, pool, *cache, object, objects);
	return effect;
}

void step_cache_over(struct step_world *w, const struct step_expect *expect, hp_pool *pool, hp_cache *cache)
{
	all_of_it(w, expect, pool, cache, NULL, 0);
	int error = hp_cache_destroy(cache);
	if (error < 0) {
		step_fail(w, "ending the cache fails with %d, though nothing is out", error);
		hp_cache_close(cache);
	}
	/* one in the middle of whose construction or destruction the victim has died may be constructed once more */
	if (builder[1].again > !expect->over) step_fail(w, "what was constructed is constructed again");
	if (builder[1].wrong) step_fail(w, "what was not constructed, or destroyed already, is destroyed");
	if (expect->over) left_behind(w, pool);
}
