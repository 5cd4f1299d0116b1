/* Containers: finding things by name, making and unlinking them, without a lock.
 *
 * Who makes a thing claims a free entry with his own name, writes everything down in it, and then changes the container's
 * directory word to name the entry: of those who have looked at the same directory one succeeds, so no name is made twice, and
 * from then on the thing is there. Its state follows: its maker, or whoever looks next, gives the entry the state that is written
 * in it. Nobody changes the directory before that is done. A claim that its maker did not come to the end of is taken by who
 * needs an entry, once the maker is dead; it is not in the directory, or it would have got its state. Unlinking changes the
 * state alone. Model: tests/models/sync_model.py.
 *
 * The default container's block is published in the pool's header (malloc/publish.c), filled before anybody sees it. */
#include "sync/sync.h"
#include "malloc/publish.h"
#include "pool/recover.h"
#include "os/os.h"
#include <hugepool/malloc.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#define DEFAULT_BYTES 32704u /* as much as fits a block of 32 KiB in the debug modes, too */
#define PATIENCE 1000u       /* looks at a default container that is being made or freed */

_Static_assert(64 + sizeof(struct sync_container) + HP_CONTAINER_ENTRIES * (64 + 8 * HP_CONTAINER_UNITS) <=
                   DEFAULT_BYTES,
               "wherever the block begins, the lines fit");

static struct sync_container *lines_of(void *block)
{
	return (struct sync_container *)(void *)(((uintptr_t)block + 63) & ~(uintptr_t)63);
}

static struct sync_container *at(const hp_container *container)
{
	return container->at;
}

static struct sync_entry *entry_at(const hp_container *container, uint32_t i)
{
	return (struct sync_entry *)(void *)(at(container)->first + i * sync_stride(container->units));
}

static uint64_t bytes_of(uint32_t entries, uint32_t units)
{
	return sizeof(struct sync_container) + entries * sync_stride(units);
}

/* Names as words, so that they can be compared while somebody writes. */
struct name {
	uint64_t word[SYNC_NAME_WORDS];
};
_Static_assert(sizeof(struct name) == HP_SYNC_NAME_MAX + 1, "a name and its 0");

static bool name_make(struct name *name, const char *text)
{
	size_t length = text ? strnlen(text, HP_SYNC_NAME_MAX + 1) : 0;
	if (length == 0 || length > HP_SYNC_NAME_MAX) return false;
	memset(name, 0, sizeof *name);
	memcpy(name, text, length);
	return true;
}

static struct name name_of(const struct sync_entry *entry)
{
	struct name name;
	for (unsigned i = 0; i < SYNC_NAME_WORDS; i++)
		name.word[i] = atomic_load_explicit(&entry->name[i], memory_order_relaxed);
	return name;
}

/* ---- entries ---- */

/* Gives the entry that was made last its state. Returns the directory, in which that is done. */
static uint64_t settle(const hp_container *container)
{
	for (;;) {
		uint64_t directory = atomic_load(&at(container)->directory);
		uint32_t index = sync_directory_index1(directory) - 1;
		if (index >= container->entries) return directory; /* none yet, or it has ended */
		struct sync_entry *entry = entry_at(container, index);
		uint64_t state = atomic_load(&entry->state);
		/* of another generation: it has been unlinked since, and claimed again, and that claim is not in the directory */
		if (sync_kind(state) != SYNC_MAKING || sync_generation(state) != sync_directory_generation(directory))
			return directory;
		uint64_t first = atomic_load_explicit(&entry->first, memory_order_relaxed);
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load(&at(container)->directory) != directory) continue;
		atomic_compare_exchange_strong(&entry->state, &state, first);
		return directory;
	}
}

/* The entry of a thing that is there, with its state; NULL: none has the name. */
static struct sync_entry *find(const hp_container *container, const struct name *name, uint64_t *state)
{
	for (uint32_t i = 0; i < container->entries; i++) {
		struct sync_entry *entry = entry_at(container, i);
		uint64_t before = atomic_load_explicit(&entry->state, memory_order_acquire);
		if (sync_kind(before) <= SYNC_MAKING) continue;
		struct name have = name_of(entry);
		if (memcmp(&have, name, sizeof have) != 0) continue;
		atomic_thread_fence(memory_order_acquire);
		*state = atomic_load_explicit(&entry->state, memory_order_relaxed);
		if (sync_is(*state, before)) return entry; /* the name is this one's, whatever has happened to what it holds */
	}
	return NULL;
}

/* An entry that is nobody's, now ours; *state: with our claim. */
static struct sync_entry *claim(const hp_container *container, uint64_t me, uint64_t *state)
{
	for (int dead_too = 0; dead_too <= 1; dead_too++)
		for (uint32_t i = 0; i < container->entries; i++) {
			struct sync_entry *entry = entry_at(container, i);
			uint64_t old = atomic_load_explicit(&entry->state, memory_order_acquire);
			bool dead = dead_too && sync_kind(old) == SYNC_MAKING &&
			            !sync_thread_lives(container->pool, old & SYNC_LOW);
			if (sync_kind(old) != SYNC_FREE && !dead) continue;
			if (dead) settle(container); /* dead, so it has made it by now or never will */
			*state = sync_make(sync_generation(old) + dead, SYNC_MAKING, me);
			/* commit: nobody else looks at it, until we die */
			if (atomic_compare_exchange_strong(&entry->state, &old, *state)) return entry;
		}
	return NULL;
}

static void unclaim(struct sync_entry *entry, uint64_t state)
{
	/* of the next generation: who settles may be about to swap a state that it has had */
	atomic_compare_exchange_strong(&entry->state, &state, sync_make(sync_generation(state) + 1, SYNC_FREE, 0));
}

static void fill(const hp_container *container, struct sync_entry *entry, const struct name *name, uint32_t flags,
                 uint64_t first)
{
	for (unsigned i = 0; i < SYNC_NAME_WORDS; i++)
		atomic_store_explicit(&entry->name[i], name->word[i], memory_order_relaxed);
	atomic_store_explicit(&entry->futex, 0, memory_order_relaxed);
	atomic_store_explicit(&entry->waiters, 0, memory_order_relaxed);
	atomic_store_explicit(&entry->flags, flags, memory_order_relaxed);
	atomic_store_explicit(&entry->depth, 0, memory_order_relaxed);
	atomic_store_explicit(&entry->first, first, memory_order_relaxed);
	if (sync_kind(first) != SYNC_UNDO) return;
	for (uint32_t i = 0; i < container->units; i++)
		atomic_store_explicit(&entry->unit[i], first & ~SYNC_LOW, memory_order_relaxed);
}

static int open_existing(struct sync_entry *entry, uint64_t state, enum sync_kind kind, unsigned flags)
{
	if (flags & HP_SYNC_NEW) return -EEXIST;
	bool same = sync_kind(state) == kind && atomic_load_explicit(&entry->flags, memory_order_relaxed) ==
	                                            (flags & ~(HP_SYNC_EXISTING | HP_SYNC_NEW));
	return same ? 0 : -EPROTO;
}

int sync_open(const hp_container *container, const char *text, enum sync_kind kind, unsigned flags, uint64_t low,
              struct sync_entry **out, uint64_t *free)
{
	int error = 0;
	struct name name;
	if (!name_make(&name, text) || (flags & HP_SYNC_NEW && flags & HP_SYNC_EXISTING)) return -EINVAL;
	struct participant *me = sync_participant(container->pool, &error);
	if (!me) return error;
	struct sync_entry *claimed = NULL;
	uint64_t state = 0, claim_state = 0;
	for (;;) {
		uint64_t directory = settle(container);
		if (sync_directory_index1(directory) == SYNC_ENDED) {
			error = -ESTALE;
			break;
		}
		struct sync_entry *entry = find(container, &name, &state);
		if (entry) {
			error = open_existing(entry, state, kind, flags);
			*out = entry;
			*free = state & ~SYNC_LOW;
			break;
		}
		if (flags & HP_SYNC_EXISTING) {
			error = -ENOENT;
			break;
		}
		if (!claimed) {
			if (!(claimed = claim(container, sync_thread(me), &claim_state))) {
				error = -ENOSPC;
				break;
			}
			*free = sync_make(sync_generation(claim_state), kind, 0);
			fill(container, claimed, &name, flags & ~(HP_SYNC_EXISTING | HP_SYNC_NEW), *free | low);
		}
		uint32_t index = (uint32_t)(((char *)claimed - (char *)at(container)->first) / sync_stride(container->units));
		/* commit: it is there. Nothing has been made since we looked, so the name is nobody else's. Release: all that is in it. */
		if (atomic_compare_exchange_strong(&at(container)->directory, &directory,
		                                   sync_directory(directory, sync_generation(claim_state), index + 1))) {
			*out = claimed;
			*free = sync_make(sync_generation(claim_state), kind, 0);
			claimed = NULL;
			settle(container);
			break;
		}
	}
	if (claimed) unclaim(claimed, claim_state);
	return error;
}

int hp_container_unlink(const hp_container *container, const char *text)
{
	struct name name;
	uint64_t state = 0;
	int error;
	if (!container || !name_make(&name, text)) return -EINVAL;
	if (!sync_participant(container->pool, &error)) return error;
	settle(container);
	struct sync_entry *entry = find(container, &name, &state);
	if (!entry) return -ENOENT;
	uint64_t thing = state & ~SYNC_LOW;
	do {
		uint64_t holder = state & SYNC_HOLDER;
		if (!sync_is(state, thing)) return -ENOENT; /* somebody else has */
		if (sync_kind(state) == SYNC_MUTEX && holder && holder != SYNC_BROKEN &&
		    sync_thread_lives(container->pool, holder))
			return -EBUSY;
		/* commit: there is no such thing any more */
	} while (!atomic_compare_exchange_weak(&entry->state, &state, sync_make(sync_generation(state) + 1, SYNC_FREE, 0)));
	/* whoever sleeps for it wakes, or sees it at the end of a slice; as does, for nothing, who sleeps for what is here by now */
	atomic_fetch_add(&entry->futex, 1);
	os_futex_wake(&entry->futex, INT_MAX);
	return 0;
}

int hp_container_next(const hp_container *container, uint32_t *cursor, char *text)
{
	if (!container || !cursor) return -EINVAL;
	if (!container->pool->observer) settle(container);
	while (*cursor < container->entries) {
		const struct sync_entry *entry = entry_at(container, (*cursor)++);
		uint64_t state = atomic_load_explicit(&entry->state, memory_order_acquire);
		struct name name = name_of(entry);
		atomic_thread_fence(memory_order_acquire);
		if (sync_kind(state) <= SYNC_MAKING ||
		    !sync_is(atomic_load(&((struct sync_entry *)(uintptr_t)entry)->state), state))
			continue;
		if (text) memcpy(text, &name, sizeof name);
		if (text) text[HP_SYNC_NAME_MAX] = 0;
		return (int)sync_kind(state);
	}
	return 0;
}

/* ---- containers ---- */

static void begin(void *block, uint32_t entries, uint32_t units)
{
	struct sync_container *lines = lines_of(block);
	memset(lines, 0, bytes_of(entries, units));
	atomic_store_explicit(&lines->entries, entries, memory_order_relaxed);
	atomic_store_explicit(&lines->units, units, memory_order_relaxed);
	atomic_store_explicit(&lines->magic, SYNC_MAGIC, memory_order_release);
}

static void begin_default(void *block)
{
	begin(block, HP_CONTAINER_ENTRIES, HP_CONTAINER_UNITS);
}

int hp_container_create(hp_pool *pool, unsigned entries, unsigned units, hp_container *container)
{
	if (!pool || !container || entries == 0 || entries > SYNC_MOST || units > SYNC_MOST) return -EINVAL;
	if (pool->observer) return -EROFS;
	/* rounded up to a line by hand: the block's own start is what frees it, and its offset what names it */
	void *block = hp_aligned_alloc(pool, 64, bytes_of(entries, units));
	if (!block) return -errno;
	begin(block, entries, units);
	*container = (hp_container){.pool = pool, .at = block, .entries = entries, .units = units};
	return 0;
}

hp_off hp_container_id(const hp_container *container)
{
	return hp_pool_offset(container->pool, container->at);
}

/* Copies what the block says of itself, after making sure that it makes sense. room: from the lines on */
static int look(hp_pool *pool, struct sync_container *lines, uint64_t room, hp_container *container)
{
	if (room < sizeof *lines || atomic_load_explicit(&lines->magic, memory_order_acquire) != SYNC_MAGIC) return -EINVAL;
	uint32_t entries = atomic_load_explicit(&lines->entries, memory_order_relaxed),
			 units = atomic_load_explicit(&lines->units, memory_order_relaxed);
	if (entries == 0 || entries > SYNC_MOST || units > SYNC_MOST || bytes_of(entries, units) > room) return -EINVAL;
	*container = (hp_container){.pool = pool, .at = lines, .entries = entries, .units = units};
	return sync_directory_index1(atomic_load(&lines->directory)) == SYNC_ENDED ? -ESTALE : 0;
}

/* The block that the header names; HP_OFF_NONE: none, or not now. */
static hp_off default_block(hp_pool *pool)
{
	return hp_published((const uint64_t *)(void *)&pool->header->container);
}

static int open_default(hp_pool *pool, hp_off block, hp_container *container)
{
	if (block >= pool->capacity || pool->capacity - block < DEFAULT_BYTES) return -EINVAL;
	struct sync_container *lines = lines_of(pool->base + block);
	return look(pool, lines, DEFAULT_BYTES - 64, container);
}

int hp_container_open(hp_pool *pool, hp_off id, hp_container *container)
{
	if (!pool || !container || id % 64 || id >= pool->capacity) return -EINVAL;
	hp_off block = default_block(pool);
	if (block != HP_OFF_NONE && ((block + 63) & ~UINT64_C(63)) == id) return open_default(pool, block, container);
	size_t room = hp_usable_size(pool, pool->base + id);
	return look(pool, (struct sync_container *)(void *)(pool->base + id), room, container);
}

/* Ended before anything is freed: whoever is about to make something in it fails to change the directory. 0: it is the
 * caller's to free, who may have ended it, or comes after one who has died. -ESTALE: another thread is at it. */
static int end(const hp_container *container, const struct participant *me)
{
	for (;;) {
		uint64_t directory = settle(container);
		if (sync_directory_index1(directory) == SYNC_ENDED) {
			uint64_t ender = directory >> 20;
			if (ender != sync_thread(me) && sync_thread_lives(container->pool, ender)) return -ESTALE;
		} else {
			for (uint32_t i = 0; i < container->entries; i++)
				if (sync_kind(atomic_load(&entry_at(container, i)->state)) > SYNC_MAKING) return -EBUSY;
		}
		/* commit: nothing has been made since we looked, and nothing will be */
		if (atomic_compare_exchange_strong(&at(container)->directory, &directory, sync_thread(me) << 20 | SYNC_ENDED))
			return 0;
	}
}

int hp_container_default(hp_pool *pool, hp_container *container)
{
	int error;
	if (!pool || !container) return -EINVAL;
	struct participant *me = sync_participant(pool, &error);
	if (!me) return error;
	for (unsigned round = 0; round < PATIENCE; round++) {
		hp_off block = default_block(pool);
		if (block != HP_OFF_NONE) {
			if ((error = open_default(pool, block, container)) != -ESTALE) return error;
			/* ended, and not freed */
			if ((error = end(container, me)) == 0) error = unpublish_container(pool);
		} else {
			error = publish_container(pool, DEFAULT_BYTES, begin_default);
		}
		if (error < 0 && error != -EBUSY && error != -ENOENT && error != -ESTALE) return error;
		if (error == 0 || default_block(pool) != HP_OFF_NONE) continue;
		if (round % 64 == 63) recover_dead(pool); /* whoever was making or freeing it may have died */
		os_yield();
	}
	return -EAGAIN;
}

int hp_container_destroy(const hp_container *container)
{
	if (!container || !container->pool) return -EINVAL;
	hp_pool *pool = container->pool;
	int error;
	struct participant *me = sync_participant(pool, &error);
	if (!me) return error;
	hp_off block = default_block(pool), id = hp_container_id(container);
	bool ours = block != HP_OFF_NONE && ((block + 63) & ~UINT64_C(63)) == id;
	hp_container now;
	error = hp_container_open(pool, id, &now); /* -EINVAL: it is not there */
	if (error < 0 && error != -ESTALE) return -ESTALE;
	if ((error = end(&now, me)) < 0) return error;
	if (!ours) return hp_free(pool, container->at);
	error = unpublish_container(pool);
	return error == -ENOENT ? -ESTALE : error; /* somebody else has done it */
}
