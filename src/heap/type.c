/* Types: what programs call by the same name must be the same, or they would read each other's values wrongly.
 *
 * A heap's table of types is only added to, by the holder of the lock: the entry first, then the count. So a death leaves
 * either nothing or the type, and an abort leaves the type. Each process works with its own validated copies. */
#include "heap/heap.h"
#include "heap/layout.h"
#include "os/os.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct hp_type hp_any = {"hp_any", 8, 8, 0, 0, 0, 0, 0, NULL, NULL};
HP_TYPE_ARRAY_LEAF(hp_string_type, struct hp_string, len, s);
HP_TYPE_ARRAY_LEAF(hp_bytes_type, struct hp_bytes, len, data);
HP_TYPE_VECTOR(hp_vector_type, struct hp_vector, len, item, hp_any);
HP_TYPE(hp_cell_type, struct hp_cell, (value, hp_any));

uint32_t heap_name_hash(const char *name)
{
	uint32_t hash = 2166136261u;
	for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619u;
	return hash ? hash : 1;
}

static bool inside(uint32_t offset, uint32_t bytes)
{
	return offset % 8 == 0 && offset < bytes && bytes - offset >= 8;
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

/* Tells a shape that was written over from one that is as it was made. Never 0. */
static uint32_t shape_hash(const struct heap_type_shape *shape)
{
	uint64_t word[sizeof *shape / 8], lane[5] = {1, 2, 3, 4, 5}; /* four at a time, and what becomes of them */
	memcpy(word, shape, sizeof word);
	memset((char *)word + offsetof(struct heap_type_shape, hash), 0, sizeof shape->hash);
	for (size_t i = 0; i < sizeof word / 8; i++) lane[i & 3] = mix(lane[i & 3], word[i]);
	for (size_t i = 0; i < 4; i++) lane[4] = mix(lane[4], lane[i]);
	return (uint32_t)lane[4] ? (uint32_t)lane[4] : 1;
}

static bool describes_something(const struct heap_type_shape *s)
{
	if (s->size > HEAP_SIZE_MAX || s->align == 0 || s->align > HP_PAGE_SIZE || s->align & (s->align - 1)) return false;
	if (s->members > HEAP_MEMBERS || s->tail_members > HEAP_TAIL_MEMBERS) return false;
	if (s->element) {
		if (s->tail > s->size || s->tail < 4 || s->count > s->tail - 4 || s->count % 4) return false;
		if (s->tail_members && (s->element % 8 || s->tail % 8)) return false;
	} else if (s->size == 0 || s->tail_members) {
		return false;
	}
	/* the fixed part may have padding behind the beginning of the tail */
	for (uint32_t i = 0; i < s->members; i++)
		if (!inside(s->member[i].offset, s->element ? s->tail : s->size)) return false;
	for (uint32_t i = 0; i < s->tail_members; i++)
		if (!inside(s->tail_member[i].offset, s->element)) return false;
	return memchr(s->name, 0, sizeof s->name) != NULL;
}

bool heap_shape_sensible(const struct heap_type_shape *s)
{
	return s->hash == shape_hash(s) && describes_something(s);
}

static bool is_any(const struct hp_type *type)
{
	return type == &hp_any || strcmp(type->name, hp_any.name) == 0;
}

int heap_shape_of(const struct hp_type *type, struct heap_type_shape *s)
{
	memset(s, 0, sizeof *s);
	if (!type || !type->name || strlen(type->name) >= HEAP_NAME_MAX || is_any(type)) return -EINVAL;
	if (type->members > HEAP_MEMBERS || type->tail_members > HEAP_TAIL_MEMBERS) return -EINVAL;
	memcpy(s->name, type->name, strlen(type->name));
	s->size = type->size;
	s->align = type->align;
	s->element = type->element;
	s->tail = type->tail;
	s->count = type->count;
	s->members = type->members;
	s->tail_members = type->tail_members;
	for (uint32_t i = 0; i < type->members + type->tail_members; i++) {
		const struct hp_member *m = i < type->members ? &type->member[i] : &type->tail_member[i - type->members];
		uint32_t target = !m->type || is_any(m->type) ? 0 : heap_name_hash(m->type->name);
		if (i < type->members) {
			s->member[i].offset = m->offset;
			s->member[i].target = target;
		} else {
			s->tail_member[i - type->members].offset = m->offset;
			s->tail_member[i - type->members].target = target;
		}
	}
	s->hash = shape_hash(s);
	return describes_something(s) ? 0 : -EINVAL;
}

struct heap_type_entry *heap_type_entry(const hp_heap *heap, uint32_t id)
{
	if (id >= HEAP_TYPES) return NULL;
	uint64_t page1 = atomic_load_explicit(&heap->entry->type_run[id / 16], memory_order_acquire);
	if (!page1 || page1 > heap->pool->capacity / HP_PAGE_SIZE - (HEAP_TYPE_PAGES - 1)) return NULL;
	return (struct heap_type_entry *)(void *)(heap->pool->base + (page1 - 1) * HP_PAGE_SIZE) + id % 16;
}

static struct heap_type *copy_new(const struct heap_type_shape *shape, uint32_t id)
{
	struct heap_type *type = NULL;
	unsigned classes = shape->element ? HEAP_CLASSES : 1;
	if (posix_memalign((void **)&type, 64, sizeof *type)) return NULL;
	memset(type, 0, sizeof *type);
	type->alloc = calloc(classes, sizeof *type->alloc);
	if (!type->alloc) {
		free(type);
		return NULL;
	}
	type->shape = *shape;
	type->id = (uint16_t)id;
	type->size = shape->size;
	type->align = shape->align < 16 ? 16 : shape->align;
	type->element = shape->element;
	type->tail = shape->tail;
	type->count = shape->count;
	type->members = shape->members;
	type->tail_members = shape->tail_members;
	type->extra = strcmp(shape->name, hp_string_type.name) == 0;
	for (uint32_t i = 0; i < shape->members; i++) type->member[i] = shape->member[i].offset;
	for (uint32_t i = 0; i < shape->tail_members; i++) type->tail_member[i] = shape->tail_member[i].offset;
	return type;
}

struct heap_type *heap_type_make(const struct hp_type *user, int *error)
{
	struct heap_type_shape shape;
	if ((*error = heap_shape_of(user, &shape)) < 0) return NULL;
	struct heap_type *type = copy_new(&shape, 0);
	if (!type) *error = -ENOMEM;
	return type;
}

void heap_type_free(struct heap_type *type)
{
	free(type->alloc);
	free(type);
}

/* Copies what the table has and we have not. Called inside participant_lock. */
static int refresh(hp_heap *heap)
{
	uint32_t there = atomic_load_explicit(&heap->entry->types, memory_order_acquire);
	for (uint32_t id = heap->types; id < there && id < HEAP_TYPES; id++) {
		struct heap_type_entry *entry = heap_type_entry(heap, id);
		struct heap_type_shape shape;
		if (!entry) return -EUCLEAN;
		memcpy(&shape, &entry->shape, sizeof shape);
		if (!heap_shape_sensible(&shape)) return -EUCLEAN;
		struct heap_type *type = copy_new(&shape, id);
		if (!type) return -ENOMEM;
		atomic_store_explicit(&heap->type[id], type, memory_order_release);
		atomic_store_explicit(&heap->types, id + 1, memory_order_release);
	}
	return 0;
}

int heap_types_known(hp_heap *heap)
{
	struct participant_guard guard;
	if (likely(atomic_load_explicit(&heap->types, memory_order_acquire) >=
	           atomic_load_explicit(&heap->entry->types, memory_order_acquire)))
		return 0;
	int error = participant_lock(&guard);
	if (error < 0) return error;
	error = refresh(heap);
	participant_unlock(&guard);
	return error;
}

struct heap_type *heap_type(hp_heap *heap, uint32_t id)
{
	if (unlikely(id >= atomic_load_explicit(&heap->types, memory_order_acquire))) {
		struct participant_guard guard;
		if (id >= HEAP_TYPES || participant_lock(&guard) < 0) return NULL;
		refresh(heap);
		participant_unlock(&guard);
		if (id >= heap->types) return NULL;
	}
	return atomic_load_explicit(&heap->type[id], memory_order_acquire);
}

/* A new entry in the table, by the holder of the lock. */
static int enter(hp_heap *heap, hp_tx *tx, const struct heap_type_shape *shape)
{
	struct heap_entry *entry = heap->entry;
	uint32_t id = atomic_load_explicit(&entry->types, memory_order_relaxed);
	if (id >= HEAP_TYPES) return -ENOSPC;
	if (!atomic_load_explicit(&entry->type_run[id / 16], memory_order_relaxed)) {
		struct heap_run run = {.pages = HEAP_TYPE_PAGES, .kind = HEAP_TABLE};
		uint64_t page;
		int error = heap_run_take(heap, tx->me, &run, &page);
		if (error < 0) return error;
		memset(heap->pool->base + page * HP_PAGE_SIZE, 0, HEAP_TYPE_PAGES * HP_PAGE_SIZE);
		/* commit: the table has room. Release: it is zero for whoever sees it. */
		atomic_store_explicit(&entry->type_run[id / 16], page + 1, memory_order_release);
		heap_run_named(heap);
	}
	struct heap_type_entry *new = heap_type_entry(heap, id);
	if (!new) return -EUCLEAN;
	memset(new, 0, sizeof *new);
	memcpy(&new->shape, shape, sizeof *shape);
	/* commit: the type is there. Release: all of it. */
	atomic_store_explicit(&entry->types, id + 1, memory_order_release);
	return 0;
}

static struct heap_type *known_by_name(const hp_heap *heap, const struct heap_type_shape *shape, int *error)
{
	for (uint32_t id = 0; id < heap->types; id++) {
		struct heap_type *type = atomic_load_explicit(&heap->type[id], memory_order_relaxed);
		if (strcmp(type->shape.name, shape->name)) continue;
		if (memcmp(&type->shape, shape, sizeof *shape) == 0) return type;
		*error = -EPROTO;
		return NULL;
	}
	*error = -ENOENT;
	return NULL;
}

struct heap_type *heap_bind(hp_heap *heap, hp_tx *tx, const struct hp_type *user, int *error)
{
	struct heap_type *type = user ? heap_bound(heap, user) : NULL;
	if (likely(type)) return type;
	struct heap_type_shape shape;
	struct participant_guard guard;
	if ((*error = heap_shape_of(user, &shape)) < 0) return NULL;
	struct heap_binding *binding = calloc(1, sizeof *binding);
	if (!binding) {
		*error = -ENOMEM;
		return NULL;
	}
	for (int tries = 0; tries < 2 && !type; tries++) {
		if ((*error = participant_lock(&guard)) < 0) break;
		int incomplete = refresh(heap);
		type = known_by_name(heap, &shape, error);
		participant_unlock(&guard);
		if (!type && *error == -ENOENT && incomplete < 0) *error = incomplete; /* it may be there all the same */
		if (type || *error != -ENOENT || !tx || tries) break;
		if ((*error = enter(heap, tx, &shape)) < 0) break;
	}
	if (!type || participant_lock(&guard) < 0) {
		free(binding);
		return NULL;
	}
	struct heap_binding *same = heap->bindings;
	while (same && same->user != user) same = same->next;
	if (same) {
		free(binding);
		binding = same;
	} else {
		binding->user = user;
		binding->type = type;
		binding->next = heap->bindings;
		heap->bindings = binding;
	}
	atomic_store_explicit(&heap->user[type->id], user, memory_order_release);
	atomic_store_explicit(&heap->binding[((uintptr_t)user >> 5) & (HEAP_BINDINGS - 1)], binding, memory_order_release);
	participant_unlock(&guard);
	*error = 0;
	return type;
}

void heap_types_free(hp_heap *heap)
{
	for (uint32_t id = 0; id < heap->types; id++)
		heap_type_free(atomic_load_explicit(&heap->type[id], memory_order_relaxed));
	for (struct heap_binding *binding = heap->bindings, *next; binding; binding = next) {
		next = binding->next;
		free(binding);
	}
}
