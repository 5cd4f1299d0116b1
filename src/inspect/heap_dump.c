/* Heaps as anybody sees them who looks, also read-only: their numbers, and the graph under the root as text. Nothing read
 * here is trusted; names and strings go to terminals, so that what cannot be printed is replaced. */
#include "inspect/look.h"
#include "os/os.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- numbers ---- */

static int pid_of(const hp_pool *pool, uint32_t slot1)
{
	if (slot1 == 0 || slot1 > pool->slot_count) return 0;
	uint32_t record = slot_record(atomic_load_explicit(&pool->slots[slot1 - 1].word, memory_order_acquire));
	return record < pool->record_count ? (int)atomic_load(&pool->records[record].pid) : 0;
}

static uint64_t guards_of(const struct look *look)
{
	const hp_pool *pool = look->pool;
	uint64_t count = 0;
	for (uint32_t s = 0; s < pool_slots_top(pool); s++) {
		uint32_t used = atomic_load_explicit(&pool->slots[s].guards, memory_order_acquire);
		for (uint32_t i = 0; i < used && i < HEAP_GUARDS; i++) {
			uint64_t cell = atomic_load(&pool->guards[(uint64_t)s * HEAP_GUARDS + i]);
			count += cell >> HEAP_OFFSET_BITS == look->tag && !(cell & HEAP_RELEASED);
		}
	}
	return count;
}

static uint64_t live_in(const struct look *look, const struct look_slab *slab)
{
	uint64_t live = 0;
	for (uint32_t w = 0; w < (slab->objects + 63) / 64; w++)
		live += (unsigned)__builtin_popcountll(heap_load_a(&look_descriptor(look, slab)->bits[w]));
	return live;
}

static struct hp_heap_seen seen_of(const struct look *look)
{
	const struct heap_entry *entry = look->entry;
	struct hp_heap_seen seen = {.struct_size = sizeof seen,
	                            .id = look->id,
	                            .root = {look->root},
	                            .limit = entry->limit * HP_PAGE_SIZE,
	                            .types = look->types,
	                            .slabs = look->slabs,
	                            .collections = atomic_load(&entry->collections),
	                            .recoveries = atomic_load(&entry->recoveries),
	                            .pause_ns = atomic_load(&entry->pause_ns),
	                            .pause_max_ns = atomic_load(&entry->pause_max_ns),
	                            .pending = heap_is_pending(look->phase),
	                            .writer_pid = look->lock == HEAP_ORPHAN ? -1 : pid_of(look->pool, look->lock >> 16),
	                            .blocked_pid = pid_of(look->pool, atomic_load(&entry->blocker)),
	                            .guards = guards_of(look)};
	for (size_t k = 0; k < look->slabs; k++) {
		uint64_t live = live_in(look, &look->slab[k]);
		seen.values += live;
		seen.live += live * look->slab[k].size;
		seen.held += look->slab[k].pages * (uint64_t)HP_PAGE_SIZE;
	}
	for (unsigned k = 0; k < HEAP_EXTENTS; k++)
		if (atomic_load(&entry->log[k]))
			seen.log += ((uint64_t)HEAP_LOG_FIRST << (k ? k - 1 : 0)) * sizeof(struct heap_log);
	return seen;
}

int hp_pool_heaps(hp_pool *pool, hp_heap_seen_fn *each, void *arg)
{
	if (!pool || !each) return -EINVAL;
	int stop = 0;
	for (uint32_t index = 1; index < heap_top(pool) && !stop; index++) {
		struct look look = {.pool = pool, .index = index};
		struct hp_heap_seen seen;
		bool there = look_begin(&look);
		if (there) seen = seen_of(&look);
		if (look.error == -ENOMEM) stop = look.error;
		look_end(&look);
		if (there) stop = each(arg, &seen);
	}
	return stop;
}

/* ---- the graph ---- */

struct text {
	struct look look;
	hp_write_fn *write;
	void *arg;
	uint64_t lines; /* left */
	int stop;
	uint64_t *queue, first, last; /* {slab:32, object:32}: met, in the order in which they are written */
	uint64_t left_out;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *text, const char *format, ...)
{
	char line[256];
	va_list args;
	if (text->stop) return;
	if (text->lines == 0) {
		text->left_out++;
		return;
	}
	va_start(args, format);
	int length = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	if (length >= (int)sizeof line) {
		length = sizeof line - 1;
		line[length - 1] = '\n';
	}
	if (length > 0) text->stop = text->write(text->arg, line, (size_t)length);
	text->lines--;
}

static const char *name_of(const struct look *look, uint32_t hash)
{
	for (uint32_t id = 0; id < look->types && hash; id++)
		if (look->type[id].sound && look->type[id].name == hash) return look->type[id].shape.name;
	return hash ? "a type not seen yet" : "anything";
}

static void put_types(struct text *text)
{
	struct look *look = &text->look;
	for (size_t k = 0; k < look->slabs; k++) look->type[look->slab[k].type].values += live_in(look, &look->slab[k]);
	for (uint32_t id = 0; id < look->types && !text->stop; id++) {
		const struct heap_type_shape *shape = &look->type[id].shape;
		if (!look->type[id].sound) {
			put(text, "type %u makes no sense\n", id);
			continue;
		}
		if (shape->element)
			put(text, "type %s: %u bytes, elements of %u from %u on, %" PRIu64 " values\n", shape->name, shape->size,
			    shape->element, shape->tail, look->type[id].values);
		else
			put(text, "type %s: %u bytes, %" PRIu64 " values\n", shape->name, shape->size, look->type[id].values);
		for (uint32_t k = 0; k < shape->members; k++)
			put(text, "  +%u -> %s\n", shape->member[k].offset, name_of(look, shape->member[k].target));
		for (uint32_t k = 0; k < shape->tail_members; k++)
			put(text, "  [] +%u -> %s\n", shape->tail_member[k].offset, name_of(look, shape->tail_member[k].target));
	}
}

static void meet(struct text *text, struct look_slab *slab, uint32_t object)
{
	struct look *look = &text->look;
	uint64_t bit = slab->first + object, *word = &look->reached[bit / 64];
	if (*word >> (bit % 64) & 1) return;
	*word |= UINT64_C(1) << (bit % 64);
	text->queue[text->last++] = (uint64_t)(slab - look->slab) << 32 | object;
}

static int put_member(void *arg, uint64_t offset, uint64_t word, uint32_t target, int64_t element)
{
	struct text *text = arg;
	uint32_t object;
	const char *why;
	char where[48];
	(void)target;
	if (!word) return 0;
	struct look_slab *slab = look_find(&text->look, word, &object, &why);
	if (element >= 0)
		snprintf(where, sizeof where, "[%lld] +%llu", (long long)element, (unsigned long long)offset);
	else
		snprintf(where, sizeof where, "+%llu", (unsigned long long)offset);
	if (slab) {
		meet(text, slab, object);
		put(text, "  %s -> 0x%" PRIx64 " %s\n", where, heap_ref_offset(word), text->look.type[slab->type].shape.name);
	} else {
		put(text, "  %s -> 0x%" PRIx64 ", which %s\n", where, word, why);
	}
	return text->stop || text->lines == 0;
}

static void put_string(struct text *text, const struct look_slab *slab, uint64_t at, uint32_t count)
{
	char copy[41], *s = copy;
	const struct heap_type_shape *shape = &text->look.type[slab->type].shape;
	uint64_t room = slab->size - shape->tail, n = count < room ? count : room;
	if (n > sizeof copy - 1) n = sizeof copy - 1;
	const char *there = n ? look_at(&text->look, at + shape->tail, n, copy) : NULL;
	if (there) memmove(copy, there, n);
	copy[there ? n : 0] = 0;
	for (; *s; s++)
		if (*s < ' ' || *s > '~') *s = '?';
	put(text, "0x%" PRIx64 " %s of %" PRIu64 " bytes, %u long: \"%s\"%s\n", at, shape->name, slab->size, count, copy,
	    n < count ? "..." : "");
}

static void put_value(struct text *text, struct look_slab *slab, uint32_t object)
{
	struct look *look = &text->look;
	const struct look_type *type = &look->type[slab->type];
	uint64_t at = look_offset(slab, object);
	uint32_t count = look_count(look, slab, object);
	if (look_is_string(type))
		put_string(text, slab, at, count);
	else if (type->shape.element)
		put(text, "0x%" PRIx64 " %s of %" PRIu64 " bytes, %u elements\n", at, type->shape.name, slab->size, count);
	else
		put(text, "0x%" PRIx64 " %s of %" PRIu64 " bytes\n", at, type->shape.name, slab->size);
	look_members(look, slab, object, put_member, text);
}

static void put_graph(struct text *text)
{
	struct look *look = &text->look;
	void *queue;
	uint64_t bytes = (look->objects + 1) * sizeof *text->queue;
	uint32_t object;
	const char *why;
	if (os_map(NULL, bytes, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &queue) < 0) {
		look->error = -ENOMEM;
		return;
	}
	text->queue = queue;
	struct look_slab *root = look->root ? look_find(look, look->root, &object, &why) : NULL;
	if (root)
		meet(text, root, object);
	else if (look->root)
		put(text, "the root: 0x%" PRIx64 " %s\n", look->root, why);
	while (text->first < text->last && text->lines && !text->stop && !look->error) {
		uint64_t next = text->queue[text->first++];
		put_value(text, &look->slab[next >> 32], (uint32_t)next);
	}
	if ((text->first < text->last || text->left_out || text->lines == 0) && !text->stop) {
		static const char more[] = "... and more\n";
		text->stop = text->write(text->arg, more, sizeof more - 1);
	}
	os_unmap(queue, bytes);
}

int hp_heap_dump(hp_pool *pool, uint64_t id, uint64_t lines, hp_write_fn *write, void *arg)
{
	uint32_t index = (uint32_t)id & 0xffff;
	struct text text = {.look = {.pool = pool, .index = index}, .write = write, .arg = arg, .lines = lines};
	if (!pool || !write || index == 0 || index >= HEAPS || id >> 48) return -EINVAL;
	if (index >= heap_top(pool)) return -ESTALE;
	bool there = look_begin(&text.look) && text.look.id == id;
	if (there) {
		struct hp_heap_seen seen = seen_of(&text.look);
		put(&text, "heap %" PRIu64 ": root 0x%" PRIx64 ", %" PRIu64 " values, %" PRIu64 " bytes\n", id,
		    heap_ref_offset(seen.root.word), seen.values, seen.live);
		put_types(&text);
		put_graph(&text);
	}
	look_end(&text.look);
	return text.look.error ? text.look.error : there ? text.stop : -ESTALE;
}
