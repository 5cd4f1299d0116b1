/* Who holds what: the tags of live blocks (src/debug), summed by process and caller. Where the data is not mapped, in an
 * observer, tags are read from the file, one call each, so that nothing here can fault on memory that has just gone. */
#include "inspect/inspect.h"
#include "cache/layout.h"
#include "debug/debug.h"
#include "debug/track.h"
#include "os/os.h"
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct table {
	hp_pool *pool;
	struct hp_holder *entry; /* `room` of them, a power of two, found by hash; blocks 0: empty */
	size_t room, used;
	bool short_of_memory;
};

/* Where the holder is, or belongs. */
static struct hp_holder *place(struct hp_holder *entry, size_t room, int pid, uint64_t caller)
{
	size_t i = (size_t)((caller ^ (uint64_t)(uint32_t)pid << 40) * UINT64_C(0x9fb21c651e98df25) >> 20) & (room - 1);
	while (entry[i].blocks && (entry[i].pid != pid || entry[i].caller != caller)) i = (i + 1) & (room - 1);
	return &entry[i];
}

static void grow(struct table *table)
{
	size_t room = table->room ? table->room * 2 : 256;
	struct hp_holder *entry = calloc(room, sizeof *entry);
	if (!entry) {
		table->short_of_memory = true;
		return;
	}
	for (size_t i = 0; i < table->room; i++)
		if (table->entry[i].blocks) *place(entry, room, table->entry[i].pid, table->entry[i].caller) = table->entry[i];
	free(table->entry);
	table->entry = entry;
	table->room = room;
}

static void add(struct table *table, int pid, int tid, uint64_t caller, uint64_t bytes)
{
	if (table->used * 2 >= table->room) grow(table);
	if (table->short_of_memory) return;
	struct hp_holder *holder = place(table->entry, table->room, pid, caller);
	if (!holder->blocks) {
		*holder = (struct hp_holder){.pid = pid, .tid = tid, .caller = caller};
		table->used++;
	}
	if (holder->tid != tid) holder->tid = 0;
	holder->blocks++;
	holder->bytes += bytes;
}

static bool read_at(const hp_pool *pool, hp_off off, void *to, size_t bytes)
{
	if (off > pool->capacity || bytes > pool->capacity - off) return false;
	if (pool->base) {
		track_peek(to, pool->base + off, bytes);
		return true;
	}
	return pool->data.fd >= 0 && os_pread(pool->data.fd, to, bytes, off) == (int64_t)bytes;
}

static bool add_tagged(struct table *table, hp_off end, uint64_t raw)
{
	struct debug_tag tag;
	if (raw < DEBUG_ROOM || end < DEBUG_ROOM || !read_at(table->pool, end - DEBUG_ROOM, &tag, sizeof tag)) return false;
	if (debug_tag_read(&tag, end, raw) != DEBUG_TAGGED) return false;
	add(table, (int)tag.pid, (int)tag.tid, tag.caller, tag.size);
	return true;
}

static int add_run(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct table *table = arg;
	hp_pool *pool = table->pool;
	hp_off at = ((hp_off)chunk * pool->chunk_pages + page) * HP_PAGE_SIZE;
	/* what is in these has no caller, and may look like anything */
	if (inspect_is_heap(len) || (len & PARITY_TYPE_MASK) == PAGE_TYPE_PINS) return 0;
	if (!inspect_is_slab(len)) {
		struct debug_guard guard;
		if (pages >= 3 && read_at(pool, at, &guard, sizeof guard) && debug_guard_read(&guard, at))
			add(table, (int)guard.pid, (int)guard.tid, guard.caller, guard.size);
		else
			add_tagged(table, at + pages * HP_PAGE_SIZE, pages * HP_PAGE_SIZE);
		return table->short_of_memory;
	}
	struct inspect_slab slab;
	inspect_slab(pool, chunk, page, len, &slab);
	bool roomy = slab.class < SLAB_MALLOC_CLASSES ||
	             (slab.class < SLAB_CLASSES && pool->caches[slab.class - CACHE_FIRST_CLASS].flags & CACHE_ROOM);
	for (unsigned w = 0; w < SLAB_WORDS; w++)
		for (uint64_t bits = slab.bits[w]; bits; bits &= bits - 1) {
			uint64_t index = w * 64 + (unsigned)__builtin_ctzll(bits);
			if (!roomy || !add_tagged(table, at + slab.first + (index + 1) * slab.size, slab.size))
				add(table, 0, 0, 0, slab.size);
		}
	return table->short_of_memory;
}

static int most_bytes_first(const void *a, const void *b)
{
	const struct hp_holder *x = a, *y = b;
	if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
	if (x->blocks != y->blocks) return x->blocks < y->blocks ? 1 : -1;
	return x->caller < y->caller ? -1 : x->caller > y->caller;
}

int hp_pool_holders(hp_pool *pool, struct hp_holder *holders, unsigned room)
{
	if (!pool || (!holders && room)) return -EINVAL;
	struct table table = {.pool = pool};
	uint32_t top = pool_top(pool);
	for (uint32_t i = 0; i < top && !table.short_of_memory; i++) {
		uint64_t ctl;
		if (inspect_committed(pool, i, &ctl) && ctl_state(ctl) != CTL_QUARANTINED)
			inspect_runs(pool, i, add_run, &table);
	}
	int count = table.short_of_memory ? -ENOMEM : 0;
	if (count == 0 && table.used) {
		qsort(table.entry, table.room, sizeof *table.entry, most_bytes_first); /* what is empty comes last */
		count = (int)table.used;
		if (room) memcpy(holders, table.entry, (table.used < room ? table.used : room) * sizeof *holders);
	}
	free(table.entry);
	return count;
}

int hp_holder_name(const struct hp_holder *holder, char *text, size_t size)
{
	Dl_info info;
	if (!holder->pid) return snprintf(text, size, "(no tag)");
	if (holder->pid == os_pid() && dladdr((void *)(uintptr_t)(holder->caller - 1), &info)) {
		if (info.dli_sname)
			return snprintf(text, size, "%s+0x%llx", info.dli_sname,
			                (unsigned long long)(holder->caller - (uintptr_t)info.dli_saddr));
		if (info.dli_fname) {
			const char *name = strrchr(info.dli_fname, '/');
			return snprintf(text, size, "%s+0x%llx", name ? name + 1 : info.dli_fname,
			                (unsigned long long)(holder->caller - (uintptr_t)info.dli_fbase));
		}
	}
	return snprintf(text, size, "0x%llx", (unsigned long long)holder->caller);
}
