/* Is the pool what it should be? See harness.h.
 *
 * Verification attaches, as any process would, to a copy of the pool in which everybody is dead but those whose locks
 * the harness takes; attaching recovers. Then: the checker, every live run against the model, free + live = committed,
 * allocating all that is free page by page, then as runs that fill every gap exactly, then everything as one run. */
#include "harness.h"
#include "inspect/inspect.h"
#include "slab/slab.h"
#include <hugepool/malloc.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_BYTES 64 /* of each page are copied and compared; all of them are compared in the original */

struct step_copy {
	int control, data;
	char *control_map, *data_map;
};

#define LIVES (STEP_BLOCKS * 4)
#define UNIT 16 /* bytes: what objects are made of */

/* A block that is live: a run of pages, or an object in a slab. */
struct run {
	hp_off off;
	uint64_t pages, bytes;
	bool cached;
};

struct look {
	struct step_world *world;
	const struct step_expect *expect;
	hp_pool *pool;
	const char *data;
	unsigned failures_before;
	struct run run[LIVES];
	unsigned runs;
	/* pages; reachable: free and usable for class POOL, or idle: in slabs without objects, which come back before anybody
	 * goes without */
	uint64_t committed, live, reachable, idle;
	unsigned char *used; /* a byte a page: 0 free and usable, 2 taken by the survivor */
	void **block;
	hp_cache *cache; /* the world's, open */
};

/* ---- hashes seen ---- */

struct step_seen {
	uint64_t *table;
	uint64_t size, count;
};

uint64_t step_hash(const void *bytes, size_t count, uint64_t hash)
{
	const uint64_t *word = bytes;
	for (size_t i = 0; i < count / 8; i++) hash = ((hash << 7 | hash >> 57) ^ word[i]) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ? hash : 1;
}

static bool seen_put(struct step_seen *seen, uint64_t hash)
{
	uint64_t i = hash & (seen->size - 1);
	while (seen->table[i] && seen->table[i] != hash) i = (i + 1) & (seen->size - 1);
	if (seen->table[i]) return true;
	seen->table[i] = hash;
	seen->count++;
	return false;
}

bool step_seen(struct step_world *w, uint64_t hash)
{
	if (!w->seen) w->seen = calloc(1, sizeof *w->seen);
	struct step_seen *seen = w->seen, more;
	STEP_NEED(w, seen);
	if (seen->count * 2 >= seen->size) {
		more = (struct step_seen){.size = seen->size ? seen->size * 2 : 1024};
		STEP_NEED(w, more.table = calloc(more.size, 8));
		for (uint64_t i = 0; i < seen->size; i++)
			if (seen->table[i]) seen_put(&more, seen->table[i]);
		free(seen->table);
		*seen = more;
	}
	return seen_put(seen, hash);
}

void step_seen_free(struct step_world *w)
{
	if (w->seen) free(w->seen->table);
	free(w->seen);
	w->seen = NULL;
}

/* ---- the copy ---- */

static int sealed(struct step_world *w, const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	STEP_NEED(w, fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	STEP_NEED(w, fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0);
	return fd;
}

static struct step_copy *copy_of(struct step_world *w)
{
	if (w->copy) return w->copy;
	struct step_copy *copy = w->copy = calloc(1, sizeof *copy);
	STEP_NEED(w, copy);
	copy->control = sealed(w, "step-control", w->geometry.control_size);
	copy->data = sealed(w, "step-data", w->data_size);
	copy->control_map = step_map_control(w, copy->control);
	copy->data_map = mmap(NULL, w->data_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, copy->data, 0);
	STEP_NEED(w, copy->data_map != MAP_FAILED);
	madvise(copy->data_map, w->data_size, MADV_DONTFORK);
	return copy;
}

void step_copy_free(struct step_world *w)
{
	struct step_copy *copy = w->copy;
	if (!copy) return;
	munmap(copy->control_map, w->control_size);
	munmap(copy->data_map, w->data_size);
	close(copy->control);
	close(copy->data);
	free(copy);
	w->copy = NULL;
}

/* The same pages of the data file are there as in the original. */
static void copy_holes(struct step_world *w, const struct step_copy *copy)
{
	STEP_NEED(w, fallocate(copy->data, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)w->data_size) == 0);
	for (off_t at = 0; (at = lseek(w->fds[2], at, SEEK_DATA)) >= 0;) {
		off_t end = lseek(w->fds[2], at, SEEK_HOLE);
		STEP_NEED(w, end > at && fallocate(copy->data, 0, at, end - at) == 0);
		at = end;
	}
}

int step_record(const struct step_world *w, const char *control, int actor)
{
	pid_t pid = w->actor[actor].pid;
	const struct pool_record *record = (const struct pool_record *)(const void *)(control + w->geometry.records_at);
	for (uint32_t i = 0; i < w->geometry.records; i++)
		if (record_state(atomic_load(&record[i].word)) == RECORD_LIVE && atomic_load(&record[i].pid) == (uint32_t)pid)
			return (int)i;
	return -1;
}

/* ---- looking ---- */

static void finding(void *arg, const char *message)
{
	struct look *look = arg;
	step_fail(look->world, "hp_pool_check: %s", message);
}

static int note_live(struct look *look, hp_off off, uint64_t pages, uint64_t bytes, bool cached)
{
	if (look->runs == LIVES) return 1;
	look->run[look->runs++] = (struct run){off, pages, bytes, cached};
	return 0;
}

/* Whoever needs the pages of a slab without objects gets them. */
static bool slab_idle(const struct inspect_slab *slab)
{
	return !slab->live && (ctl_state(slab->ctl) == CTL_OWNED || ctl_state(slab->ctl) == CTL_UNOWNED);
}

static int note_run(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct look *look = arg;
	uint64_t at = (uint64_t)chunk * look->pool->chunk_pages + page;
	look->live += pages;
	if (!inspect_is_slab(len)) return note_live(look, at * HP_PAGE_SIZE, pages, pages * HP_PAGE_SIZE, false);
	struct inspect_slab slab;
	inspect_slab(look->pool, chunk, page, len, &slab);
	if (slab_idle(&slab)) look->idle += pages;
	for (unsigned i = 0; i < slab.objects && i < SLAB_OBJECTS; i++)
		if (slab.bits[i >> 6] >> (i & 63) & 1 &&
		    note_live(look, at * HP_PAGE_SIZE + slab.first + (uint64_t)i * slab.size, 0, slab.size,
		              slab.class >= SLAB_MALLOC_CLASSES))
			return 1;
	return 0;
}

static int mark_idle(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct look *look = arg;
	struct inspect_slab slab;
	if (!inspect_is_slab(len)) return 0;
	inspect_slab(look->pool, chunk, page, len, &slab);
	if (slab_idle(&slab)) memset(look->used + (uint64_t)chunk * look->pool->chunk_pages + page, 0, pages);
	return 0;
}

/* What is committed, used, and usable. */
static void survey(struct look *look)
{
	hp_pool *pool = look->pool;
	look->runs = 0;
	look->committed = look->live = look->reachable = look->idle = 0;
	memset(look->used, 1, pool->chunk_count * pool->chunk_pages);
	for (uint32_t i = 0; i < pool->chunk_count; i++) {
		uint64_t ctl, tag;
		if (i >= pool_top(pool) || !inspect_committed(pool, i, &ctl)) {
			if (look->world->shape.flags & HP_POOL_NO_AUTOGROW) continue;
			memset(look->used + i * pool->chunk_pages, 0, pool->chunk_pages); /* whoever needs them gets them */
			look->reachable += pool->chunk_pages;
			continue;
		}
		tag = atomic_load(&pool->chunks[i].tag);
		look->committed += pool->chunk_pages;
		if (inspect_runs(pool, i, note_run, look)) step_fail(look->world, "more live blocks than there can be");
		struct parity_view view;
		page_view(pool, i, &view);
		bool usable = !tag || parity_no_heads(&pool->units[i], pool->chunk_pages);
		for (unsigned k = 0; k < pool->chunk_pages && usable; k++) {
			bool is_free = view.free[k >> 6] >> (k & 63) & 1;
			look->used[i * pool->chunk_pages + k] = !is_free;
			look->reachable += is_free;
		}
		inspect_runs(pool, i, mark_idle, look);
	}
	look->reachable += look->idle;
}

static uint64_t bytes_of(const struct step_world *w, const struct step_expect *expect)
{
	if (expect->effect == STEP_GETS || expect->effect == STEP_REMAKES) return w->cache.stride;
	return expect->effect == STEP_ALLOCATES ? expect->pages * HP_PAGE_SIZE : expect->bytes;
}

/* One that the model does not have: may be the operation's, once. */
static bool is_new(const struct look *look, const struct run *run, unsigned already)
{
	enum step_effect effect = look->expect->effect;
	bool allocates = effect == STEP_ALLOCATES || effect == STEP_MALLOCS || effect == STEP_MOVES ||
	                 effect == STEP_GETS || effect == STEP_REMAKES || effect == STEP_PUBLISHES;
	unsigned most = look->expect->count > 1 ? look->expect->count : 1;
	if (allocates && already < most && run->bytes == bytes_of(look->world, look->expect) &&
	    run->cached == (effect == STEP_GETS || effect == STEP_REMAKES))
		return true;
	step_fail(look->world, "a block of %llu bytes at 0x%llx that nobody has", (unsigned long long)run->bytes,
	          (unsigned long long)run->off);
	return false;
}

/* The block may be free by now. */
static bool may_be_gone(const struct step_world *w, const struct step_expect *expect, hp_off off)
{
	for (unsigned i = 0; expect->effect == STEP_PUTS && i < w->going; i++)
		if (w->may_go[i] == off) return true;
	return off == expect->off && (expect->effect == STEP_FREES || expect->effect == STEP_MOVES ||
	                              expect->effect == STEP_EMPTIES || (expect->effect == STEP_PUTS && !w->going));
}

/* The word that blocks are published in names one that is live, or none; and it is never left in between. */
static void compare_word(struct look *look, const struct step_expect *expect, unsigned made, unsigned gone)
{
	struct step_world *w = look->world;
	if (!w->word) return;
	uint64_t value = *(const uint64_t *)(const void *)(look->data + w->word);
	unsigned live = 0, named = 0;
	hp_off off = value & ~UINT64_C(15);
	if (value && (value & 15) != 8) step_fail(w, "the word is left with 0x%llx", (unsigned long long)value);
	for (unsigned r = 0; r < look->runs; r++) named += look->run[r].off == off;
	if (value && !named) step_fail(w, "the word names 0x%llx, where nothing lives", (unsigned long long)off);
	if (expect->effect == STEP_PUBLISHES && !made != !value)
		step_fail(w, "a block is there, and the word does not say so");
	for (unsigned b = 0; b < w->blocks; b++) live += w->block[b].off == expect->off;
	if (expect->effect == STEP_EMPTIES && live && !gone != !!value)
		step_fail(w, "a block was freed, and the word is not empty");
}

/* The live blocks are the model's, but for the effect: how much of that is there, or -1. */
static int compare(struct look *look)
{
	struct step_world *w = look->world;
	const struct step_expect *expect = look->expect;
	unsigned r = 0, made = 0, gone = 0, resized = 0;
	for (unsigned b = 0; b < w->blocks; b++) {
		const struct step_block *block = &w->block[b];
		bool its = block->off == expect->off;
		if (block->owner >= 0 && !(expect->alive >> block->owner & 1)) continue; /* its process is dead */
		for (; r < look->runs && look->run[r].off < block->off; r++, made++)
			if (!is_new(look, &look->run[r], made)) return -1;
		if (r == look->runs || look->run[r].off != block->off) {
			if (may_be_gone(w, expect, block->off)) {
				gone++;
				continue;
			}
			step_fail(w, "the block of %llu bytes at 0x%llx is lost", (unsigned long long)block->bytes,
			          (unsigned long long)block->off);
			return -1;
		}
		uint64_t bytes = look->run[r].bytes;
		if (its && expect->effect == STEP_RESIZES && bytes == expect->bytes && bytes != block->bytes) {
			resized = 1;
		} else if (bytes != block->bytes) {
			step_fail(w, "the block at 0x%llx has %llu bytes instead of %llu", (unsigned long long)block->off,
			          (unsigned long long)bytes, (unsigned long long)block->bytes);
			return -1;
		}
		const void *at = hp_pool_pointer(look->pool, block->off);
		if (block->cached != look->run[r].cached)
			step_fail(w, "the object at 0x%llx is of another cache", (unsigned long long)block->off);
		else if (block->cached)
			; /* what its size is only its cache knows */
		else if (block->pages ? hp_page_size_at(look->pool, block->off) != (int64_t)bytes
		                      : hp_usable_size(look->pool, at) != bytes)
			step_fail(w, "the size of the block at 0x%llx is wrong", (unsigned long long)block->off);
		uint64_t least = bytes < block->bytes ? bytes : block->bytes;
		for (uint64_t p = 0; p < least; p += HP_PAGE_SIZE)
			if (memcmp(look->data + block->off + p + (p ? 0 : block->skip),
			           w->data + block->off + p + (p ? 0 : block->skip),
			           (least - p < HEAD_BYTES ? least - p : HEAD_BYTES) - (p ? 0 : block->skip))) {
				step_fail(w, "recovery changed the block at 0x%llx", (unsigned long long)block->off);
				return -1;
			}
		r++;
	}
	for (; r < look->runs; r++, made++)
		if (!is_new(look, &look->run[r], made)) return -1;
	if (gone && expect->effect == STEP_MOVES && !made) {
		step_fail(w, "the block that was to move is lost");
		return -1;
	}
	int effect = (int)(made + gone + resized);
	compare_word(look, expect, made, gone);
	if (expect->whole && effect && effect != (int)expect->count)
		step_fail(w, "%d of %u objects, and they go together", effect, expect->count);
	if (expect->effect == STEP_GROWS || expect->effect == STEP_TRIMS) {
		uint64_t was = w->shape.pages, is = look->committed;
		effect = is != was;
		bool right = expect->effect == STEP_GROWS ? is == was || is == was + expect->pages
		                                          : is <= was && is + expect->pages >= was;
		if (!right)
			step_fail(w, "%llu pages are committed, %llu were", (unsigned long long)is, (unsigned long long)was);
		if (expect->effect == STEP_TRIMS) effect = is + expect->pages == was;
	} else if (look->committed != w->shape.pages && w->shape.flags & HP_POOL_NO_AUTOGROW) {
		step_fail(w, "%llu pages are committed, %llu were", (unsigned long long)look->committed,
		          (unsigned long long)w->shape.pages);
	}
	return effect;
}

/* Takes blocks of `pages` pages each until there are no more; every page of them is marked and was free. */
static uint64_t take_all(struct look *look, uint64_t pages, uint64_t limit)
{
	struct step_world *w = look->world;
	uint64_t count = 0;
	for (; count < limit; count++) {
		int error = hp_page_alloc(look->pool, pages * HP_PAGE_SIZE, 0, &look->block[count]);
		if (error == -ENOMEM) break;
		if (error < 0) {
			step_fail(w, "a survivor's allocation fails with %d", error);
			break;
		}
		uint64_t page = hp_pool_offset(look->pool, look->block[count]) / HP_PAGE_SIZE;
		for (uint64_t p = page; p < page + pages; p++) {
			if (look->used[p]) {
				step_fail(w, "page %llu has two owners", (unsigned long long)p);
				return count + 1;
			}
			look->used[p] = 2;
		}
	}
	return count;
}

static void give_all(struct look *look, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		int error = hp_page_free(look->pool, look->block[i]);
		if (error < 0) step_fail(look->world, "a survivor's free fails with %d", error);
	}
	uint64_t all = (uint64_t)look->pool->chunk_count * look->pool->chunk_pages;
	for (uint64_t p = 0; p < all; p++)
		if (look->used[p] == 2) look->used[p] = 0;
}

static int longer_first(const void *a, const void *b)
{
	const struct run *x = a, *y = b;
	return (x->pages < y->pages) - (x->pages > y->pages);
}

/* The gaps as they are, the longest first: each request fits one gap, exactly. */
static void fill_gaps(struct look *look)
{
	struct step_world *w = look->world;
	uint64_t all = (uint64_t)look->pool->chunk_count * look->pool->chunk_pages, filled = 0;
	struct run *gap = calloc(all / 2 + 1, sizeof *gap);
	unsigned gaps = 0;
	STEP_NEED(w, gap);
	for (uint64_t p = 0, from; p < all; p++) {
		if (look->used[p]) continue;
		for (from = p; p < all && !look->used[p];) p++;
		gap[gaps++] = (struct run){from * HP_PAGE_SIZE, p - from, 0, false};
	}
	qsort(gap, gaps, sizeof *gap, longer_first);
	for (unsigned i = 0; i < gaps; i++) {
		void *block;
		int error = hp_page_alloc(look->pool, gap[i].pages * HP_PAGE_SIZE, 0, &block);
		if (error < 0) {
			step_fail(w, "a survivor gets no run of %llu pages, though one is free (%d)",
			          (unsigned long long)gap[i].pages, error);
			break;
		}
		look->block[filled++] = block;
		uint64_t page = hp_pool_offset(look->pool, block) / HP_PAGE_SIZE;
		for (uint64_t p = page; p < page + gap[i].pages; p++) {
			if (look->used[p]) step_fail(w, "page %llu has two owners", (unsigned long long)p);
			look->used[p] = 2;
		}
	}
	free(gap);
	give_all(look, filled);
}

/* All objects that there are, and can be made, each of them once, and none where something lives. */
static void take_objects(struct look *look)
{
	struct step_world *w = look->world;
	uint64_t bytes = w->object, count = 0, units = look->pool->capacity / UNIT, least;
	if (!bytes) return;
	least = step_free_objects_of(look->pool, bytes);
	unsigned char *unit = calloc(units, 1);
	void **object = calloc(STEP_LIST, sizeof *object);
	STEP_NEED(w, unit && object);
	for (unsigned r = 0; r < look->runs; r++) memset(unit + look->run[r].off / UNIT, 1, look->run[r].bytes / UNIT);
	for (; count < STEP_LIST && (object[count] = hp_malloc(look->pool, bytes)); count++) {
		uint64_t at = hp_pool_offset(look->pool, object[count]) / UNIT;
		for (uint64_t u = at; u < at + bytes / UNIT; u++) {
			if (unit[u]) {
				step_fail(w, "the object at 0x%llx has two owners", (unsigned long long)at * UNIT);
				u = at + bytes / UNIT;
			} else {
				unit[u] = 1;
			}
		}
	}
	if (count < least)
		step_fail(w, "a survivor gets %llu objects, and there are %llu", (unsigned long long)count,
		          (unsigned long long)least);
	for (uint64_t i = 0; i < count; i++) {
		int error = hp_free(look->pool, object[i]);
		if (error < 0) step_fail(w, "a survivor's hp_free fails with %d", error);
	}
	free(unit);
	free(object);
}

/* With everything freed all is one run again (as far as the pool is committed in one piece). */
static void free_everything(struct look *look)
{
	struct step_world *w = look->world;
	bool foreign = false;
	survey(look);
	for (unsigned r = 0; r < look->runs; r++) {
		void *at = hp_pool_pointer(look->pool, look->run[r].off);
		int error = look->run[r].pages    ? hp_page_free_at(look->pool, look->run[r].off)
		            : look->run[r].cached ? hp_cache_put(look->cache, at)
		                                  : hp_free(look->pool, at);
		if (error == -EPERM)
			foreign = true; /* class PROCESS of a living one */
		else if (error < 0)
			step_fail(w, "freeing the block at 0x%llx fails with %d", (unsigned long long)look->run[r].off, error);
	}
	if (foreign) return;
	survey(look);
	uint64_t all = (uint64_t)look->pool->chunk_count * look->pool->chunk_pages, longest = 0, run = 0;
	for (uint64_t p = 0; p < all; p++) {
		run = look->used[p] ? 0 : run + 1;
		if (run > longest) longest = run;
	}
	if (look->live != look->idle || look->reachable != look->committed)
		step_fail(w, "after freeing everything %llu of %llu pages are free", (unsigned long long)look->reachable,
		          (unsigned long long)look->committed);
	void *block;
	int error = longest ? hp_page_alloc(look->pool, longest * HP_PAGE_SIZE, 0, &block) : 0;
	if (error < 0)
		step_fail(w, "after freeing everything there is no run of all %llu pages (%d)", (unsigned long long)longest,
		          error);
	survey(look);
	if (!error && look->idle) step_fail(w, "slabs without objects stayed, though nothing else was free");
	if (!error && longest && (error = hp_page_free(look->pool, block)) < 0)
		step_fail(w, "freeing the run of all pages fails with %d", error);
}

/* The actor that owns what has that control word in `before`, or -1. */
static int owner_of(struct step_world *w, const char *before, uint64_t ctl)
{
	const struct pool_slot *slot = (const struct pool_slot *)(const void *)(before + w->geometry.slots_at);
	if (ctl_state(ctl) != CTL_OWNED || ctl_owner(ctl) - 1 >= w->geometry.slots) return -1;
	int record = (int)slot_record(atomic_load(&slot[ctl_owner(ctl) - 1].word));
	for (int a = 0; a < STEP_ACTORS; a++)
		if (w->actor[a].alive && step_record(w, before, a) == record) return a;
	return -1;
}

/* What living actors own is still theirs. */
static void survivors_unharmed(struct look *look, const char *before)
{
	struct step_world *w = look->world;
	const struct pool_chunk *chunk = (const struct pool_chunk *)(const void *)(before + w->geometry.chunks_at);
	const struct pool_slot *slot = (const struct pool_slot *)(const void *)(before + w->geometry.slots_at);
	for (uint32_t i = 0; i < w->geometry.chunks; i++) {
		uint64_t ctl = atomic_load(&chunk[i].ctl);
		if (ctl_state(ctl) != CTL_OWNED || ctl_owner(ctl) - 1 >= w->geometry.slots) continue;
		uint64_t word = atomic_load(&slot[ctl_owner(ctl) - 1].word);
		for (int a = 0; a < STEP_ACTORS; a++)
			if (w->look_alive >> a & 1 && step_record(w, before, a) == (int)slot_record(word) &&
			    atomic_load(&look->pool->chunks[i].ctl) != ctl)
				step_fail(w, "chunk %u was taken from actor %d, which lives", i, a);
	}
	const struct slab *slab = (const struct slab *)(const void *)(before + w->geometry.slabs_at) + SLAB_GUARD;
	for (uint64_t i = 0; w->shape.slabs && i < (uint64_t)w->geometry.chunks * w->geometry.chunk_pages; i++) {
		uint64_t ctl = atomic_load(&slab[i].ctl);
		int owner = owner_of(w, before, ctl);
		if (owner >= 0 && w->look_alive >> owner & 1 && atomic_load(&look->pool->slabs[i].ctl) != ctl)
			step_fail(w, "the slab at page %llu was taken from actor %d, which lives", (unsigned long long)i, owner);
	}
}

/* The same of slabs: nobody but the owner writes A. */
static void slabs_alone(struct step_world *w, int victim)
{
	const struct slab *was = (const struct slab *)(const void *)(w->first + w->geometry.slabs_at) + SLAB_GUARD;
	const struct slab *is = step_slabs(w);
	bool slabs = w->shape.slabs && !w->shape.heaps; /* whose descriptors lie there, too */
	for (uint64_t i = 0; slabs && i < (uint64_t)w->geometry.chunks * w->geometry.chunk_pages; i++) {
		uint64_t ctl = atomic_load(&was[i].ctl);
		if (!memcmp((const void *)was[i].a, (const void *)is[i].a, sizeof is[i].a)) continue;
		int owner = owner_of(w, w->first, ctl);
		if (owner >= 0 && owner != victim && atomic_load(&is[i].ctl) == ctl)
			step_fail(w, "A of the slab at page %llu, which actor %d owns, was written by another",
			          (unsigned long long)i, owner);
	}
}

void step_owners_alone(struct step_world *w, int victim, int busy)
{
	const struct pool_geometry *g = &w->geometry;
	const struct pool_chunk *was = (const struct pool_chunk *)(const void *)(w->first + g->chunks_at);
	const struct pool_chunk *is = (const struct pool_chunk *)(const void *)(w->control + g->chunks_at);
	const struct parity_unit *unit_was = (const struct parity_unit *)(const void *)(w->first + g->units_at);
	const struct parity_unit *unit_is = (const struct parity_unit *)(const void *)(w->control + g->units_at);
	const struct pool_slot *slot = (const struct pool_slot *)(const void *)(w->first + g->slots_at);
	slabs_alone(w, victim);
	for (uint32_t i = 0; i < g->chunks; i++) {
		uint64_t ctl = atomic_load(&was[i].ctl);
		if (ctl_state(ctl) != CTL_OWNED || ctl_owner(ctl) - 1 >= g->slots) continue;
		int record = (int)slot_record(atomic_load(&slot[ctl_owner(ctl) - 1].word));
		for (int a = 0; a < STEP_ACTORS; a++) {
			if (a == victim || !w->actor[a].alive || step_record(w, w->first, a) != record) continue;
			if (atomic_load(&is[i].ctl) == ctl) {
				if (memcmp((const void *)unit_is[i].a, (const void *)unit_was[i].a, sizeof unit_is[i].a))
					step_fail(w, "A of chunk %u, which actor %d owns, was written by another", i, a);
			} else if (a == busy) {
				step_fail(w, "chunk %u was taken from actor %d, which is inside an operation", i, a);
			}
		}
	}
}

static int compare_cache(struct look *look)
{
	static hp_off object[LIVES];
	unsigned objects = 0;
	for (unsigned r = 0; r < look->runs; r++)
		if (look->run[r].cached) object[objects++] = look->run[r].off;
	return step_verify_cache(look->world, look->expect, look->pool, &look->cache, object, objects);
}

static int verify(struct step_world *w, const struct step_expect *expect, const int fds[3], const char *data,
                  const char *before)
{
	static struct look look; /* large */
	memset(&look, 0, sizeof look);
	look.world = w;
	look.expect = expect;
	look.data = data;
	look.failures_before = w->failures;
	int effect = -1, error = hp_pool_attach(fds, NULL, &look.pool);
	if (error < 0) {
		step_fail(w, "attaching fails with %d", error);
		return -1;
	}
	uint64_t all = (uint64_t)look.pool->chunk_count * look.pool->chunk_pages;
	look.used = malloc(all);
	look.block = malloc(all * sizeof *look.block);
	STEP_NEED(w, look.used && look.block);
	hp_pool_check(look.pool, finding, &look);
	if (before && !expect->takes && !w->shape.heaps) survivors_unharmed(&look, before);
	if ((error = hp_pool_recover(look.pool)) != 0)
		step_fail(w, "recovering again after attaching gives %d instead of 0", error);
	int heaps = w->shape.heaps ? step_verify_heaps(w, expect, look.pool) : 0;
	survey(&look);
	effect = compare(&look) + heaps;
	struct hp_pool_stats stats = {.struct_size = sizeof stats};
	if (hp_pool_stats(look.pool, &stats) < 0 || stats.quarantined)
		step_fail(w, "no statistics, or something was quarantined");
	if (stats.free + look.live * HP_PAGE_SIZE != stats.committed)
		step_fail(w, "free (%llu pages) and live (%llu) make not committed (%llu)",
		          (unsigned long long)stats.free / HP_PAGE_SIZE, (unsigned long long)look.live,
		          (unsigned long long)stats.committed / HP_PAGE_SIZE);
	if (w->shape.caches && w->failures == look.failures_before) {
		effect += compare_cache(&look);
		survey(&look);
	}
	struct stat st;
	if (expect->files && (fstat(fds[2], &st) < 0 || (uint64_t)st.st_blocks * 512 != stats.committed))
		step_fail(w, "the data file holds %llu pages, %llu are committed", (unsigned long long)st.st_blocks / 8,
		          (unsigned long long)stats.committed / HP_PAGE_SIZE);
	if (w->failures == look.failures_before) {
		uint64_t got = take_all(&look, 1, all);
		if (got != look.reachable)
			step_fail(w, "a survivor gets %llu of %llu free pages", (unsigned long long)got,
			          (unsigned long long)look.reachable);
		give_all(&look, got);
		fill_gaps(&look);
		survey(&look);
		take_objects(&look);
		free_everything(&look);
		if (look.cache) step_cache_over(w, expect, look.pool, look.cache);
		hp_pool_check(look.pool, finding, &look);
	}
	free(look.used);
	free(look.block);
	hp_pool_detach(look.pool);
	return effect;
}

void step_rename_files(struct step_world *w, struct pool_geometry *geometry, int lives, int data)
{
	struct stat st;
	STEP_NEED(w, fstat(lives, &st) == 0);
	geometry->lives_file[0] = st.st_dev;
	geometry->lives_file[1] = st.st_ino;
	STEP_NEED(w, fstat(data, &st) == 0);
	geometry->data_file[0] = st.st_dev;
	geometry->data_file[1] = st.st_ino;
	geometry->checksum = pool_geometry_checksum(geometry);
}

/* What is committed is there. */
static void no_holes(struct step_world *w)
{
	const struct pool_chunk *chunk = (const struct pool_chunk *)(const void *)(w->control + w->geometry.chunks_at);
	off_t bytes = (off_t)w->geometry.chunk_pages * HP_PAGE_SIZE;
	for (uint32_t i = 0; i < w->geometry.chunks; i++)
		if (ctl_state(atomic_load(&chunk[i].ctl)) != CTL_UNCOMMITTED &&
		    (lseek(w->fds[2], i * bytes, SEEK_DATA) != i * bytes ||
		     lseek(w->fds[2], i * bytes, SEEK_HOLE) < (i + 1) * bytes))
			step_fail(w, "chunk %u is committed, and there is no memory behind it", i);
}

int step_verify_copy(struct step_world *w, const struct step_expect *expect)
{
	struct step_copy *copy = copy_of(w);
	if (!step_patterns_intact(w)) return -1;
	if (expect->files) no_holes(w);
	memcpy(copy->control_map, w->control, w->control_size);
	if (expect->files) copy_holes(w, copy);
	bool whole = w->shape.caches || w->shape.heaps;
	if (whole) memcpy(copy->data_map, w->data, w->data_size);
	for (unsigned b = 0; b < w->blocks && !whole; b++)
		for (uint64_t p = 0; p < w->block[b].bytes; p += HP_PAGE_SIZE) {
			hp_off at = w->block[b].off + p;
			uint64_t left = w->block[b].bytes - p;
			memcpy(copy->data_map + at, w->data + at, left < HEAD_BYTES ? left : HEAD_BYTES);
		}
	int lives = sealed(w, "step-lives", 0);
	char path[64];
	step_rename_files(w, (struct pool_geometry *)(void *)copy->control_map, lives, copy->data);
	snprintf(path, sizeof path, "/proc/self/fd/%d", lives);
	int locks = open(path, O_RDWR | O_CLOEXEC); /* a description of its own */
	STEP_NEED(w, locks >= 0);
	w->look_alive = 0;
	for (int a = 0; a < STEP_ACTORS; a++) {
		int record = expect->alive >> a & 1 ? step_record(w, w->control, a) : -1;
		if (record < 0) continue;
		struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = record, .l_len = 1};
		STEP_NEED(w, fcntl(locks, F_OFD_SETLK, &lock) == 0);
		w->look_alive |= 1u << a;
	}
	/* a pool knows its files: those of the copy are others */
	struct pool_geometry *geometry = &((struct pool_header *)(void *)copy->control_map)->geometry;
	if (geometry->checksum == pool_geometry_checksum(geometry))
		STEP_NEED(w, pool_geometry_bind(geometry, lives, copy->data) == 0);
	const int fds[3] = {lives, copy->control, copy->data};
	int effect = verify(w, expect, fds, copy->data_map, w->control);
	close(locks);
	close(lives);
	return effect;
}

int step_verify_real(struct step_world *w, const struct step_expect *expect)
{
	w->look_alive = 0;
	return step_patterns_intact(w) ? verify(w, expect, w->fds, w->data, NULL) : -1;
}

/* ---- looking without attaching ---- */

static int count_idle(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct look *look = arg;
	struct inspect_slab slab;
	if (!inspect_is_slab(len)) return 0;
	inspect_slab(look->pool, chunk, page, len, &slab);
	if (slab_idle(&slab)) look->idle += pages;
	return 0;
}

uint64_t step_free_pages(struct step_world *w)
{
	hp_pool *pool = pool_handle_new(&w->geometry, w->control);
	STEP_NEED(w, pool);
	struct look look = {.pool = pool};
	uint64_t count = 0;
	for (uint32_t i = 0; i < pool_top(pool); i++) {
		uint64_t ctl, tag = atomic_load(&pool->chunks[i].tag);
		if (!inspect_committed(pool, i, &ctl)) continue;
		if (tag && !parity_no_heads(&pool->units[i], pool->chunk_pages)) continue;
		struct parity_view view;
		page_view(pool, i, &view);
		count += parity_view_count(&view);
		if (w->shape.slabs) inspect_runs(pool, i, count_idle, &look);
	}
	pool_handle_free(pool);
	return count + look.idle;
}

struct objects {
	hp_pool *pool;
	unsigned class;
	uint64_t free;
	unsigned char used[64 * 8];
};

static int count_objects(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct objects *objects = arg;
	struct inspect_slab slab;
	if (!inspect_is_slab(len)) return 0;
	inspect_slab(objects->pool, chunk, page, len, &slab);
	if (slab.class == objects->class && ctl_state(slab.ctl) != CTL_RECOVERING)
		objects->free += slab.objects - slab.live;
	else if (slab_idle(&slab))
		memset(objects->used + page, 0, pages);
	return 0;
}

/* In slabs of the class, and in those that fit between what is used. */
uint64_t step_free_objects_of(hp_pool *pool, uint64_t bytes)
{
	struct objects objects = {.pool = pool, .class = slab_malloc_class(bytes)};
	const struct slab_class *known = &pool->classes[objects.class];
	for (uint32_t i = 0; i < pool_top(pool); i++) {
		uint64_t ctl;
		struct parity_view view;
		if (!inspect_committed(pool, i, &ctl)) continue;
		if (atomic_load(&pool->chunks[i].tag) && !parity_no_heads(&pool->units[i], pool->chunk_pages)) continue;
		page_view(pool, i, &view);
		for (unsigned k = 0; k < pool->chunk_pages; k++) objects.used[k] = !(view.free[k >> 6] >> (k & 63) & 1);
		inspect_runs(pool, i, count_objects, &objects);
		for (unsigned k = 0, run = 0; k < pool->chunk_pages; k++) {
			run = objects.used[k] ? 0 : run + 1;
			if (run < known->pages) continue;
			objects.free += known->objects;
			run = 0;
		}
	}
	return objects.free;
}

uint64_t step_free_objects(struct step_world *w, uint64_t bytes)
{
	hp_pool *pool = pool_handle_new(&w->geometry, w->control);
	STEP_NEED(w, pool);
	uint64_t count = step_free_objects_of(pool, bytes);
	pool_handle_free(pool);
	return count;
}
