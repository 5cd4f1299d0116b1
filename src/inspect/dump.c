/* The pool as text for people: who takes part, and everything allocated. */
#include "inspect/inspect.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct dump {
	const hp_pool *pool;
	hp_write_fn *write;
	void *arg;
};

__attribute__((format(printf, 2, 3))) static int put(const struct dump *dump, const char *format, ...)
{
	char line[256];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	if (length >= (int)sizeof line) length = sizeof line - 1;
	return length > 0 ? dump->write(dump->arg, line, (size_t)length) : 0;
}

static const char *const state_names[] = {"uncommitted", "unowned", "owned", "recovering", "quarantined"};

static const char *state_name(uint64_t ctl)
{
	return ctl_state(ctl) <= CTL_QUARANTINED ? state_names[ctl_state(ctl)] : "in no known state";
}

static int put_slab(const struct dump *dump, uint32_t chunk, unsigned page, unsigned len)
{
	struct inspect_slab slab;
	char owner[32] = "";
	inspect_slab(dump->pool, chunk, page, len, &slab);
	if (ctl_state(slab.ctl) == CTL_OWNED) snprintf(owner, sizeof owner, " by slot %u", ctl_owner(slab.ctl) - 1);
	return put(dump, "  0x%llx: %llu bytes, slab of %s, %u of %u objects of %u bytes live, %s%s\n",
	           (unsigned long long)slab.page * HP_PAGE_SIZE, (unsigned long long)slab.pages * HP_PAGE_SIZE,
	           slab.class < SLAB_MALLOC_CLASSES ? "malloc" : "a cache", slab.live, slab.objects, slab.size,
	           state_name(slab.ctl), owner);
}

static int put_run(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	const struct dump *dump = arg;
	if (inspect_is_slab(len)) return put_slab(dump, chunk, page, len);
	uint64_t at = ((uint64_t)chunk * dump->pool->chunk_pages + page) * HP_PAGE_SIZE;
	return put(dump, "  0x%llx: %llu bytes\n", (unsigned long long)at, (unsigned long long)(pages * HP_PAGE_SIZE));
}

static int put_chunk(const struct dump *dump, uint32_t i)
{
	const hp_pool *pool = dump->pool;
	uint64_t ctl, tag = atomic_load_explicit(&pool->chunks[i].tag, memory_order_relaxed);
	if (!inspect_committed(pool, i, &ctl)) return 0;
	struct parity_view view;
	page_view(pool, i, &view);
	unsigned free = parity_view_count(&view);
	int stop = 0;
	if (free == pool->chunk_pages && ctl_state(ctl) == CTL_UNOWNED) return 0;
	char owner[32] = "", process[32] = "";
	if (ctl_state(ctl) == CTL_OWNED) snprintf(owner, sizeof owner, " by slot %u", ctl_owner(ctl) - 1);
	if (tag) snprintf(process, sizeof process, ", of process record %u", (unsigned)(tag >> 32) - 1);
	stop = put(dump, "chunk %u at 0x%llx: %s%s%s, %u of %u pages free\n", i,
	           (unsigned long long)(i * pool_chunk_bytes(pool)), state_name(ctl), owner, process, free,
	           pool->chunk_pages);
	return stop ? stop : inspect_runs(pool, i, put_run, (void *)dump);
}

int hp_pool_dump(hp_pool *pool, hp_write_fn *write, void *arg)
{
	if (!pool || !write) return -EINVAL;
	struct dump dump = {pool, write, arg};
	struct hp_pool_stats stats = {.struct_size = sizeof stats};
	hp_pool_stats(pool, &stats);
	int stop = put(&dump, "pool %s: %s pages, capacity %llu, committed %llu, free %llu, largest %llu, %llu blocks\n",
	               pool->geometry.name, hp_rung_name((hp_rung)pool->geometry.rung), (unsigned long long)stats.capacity,
	               (unsigned long long)stats.committed, (unsigned long long)stats.free,
	               (unsigned long long)stats.largest, (unsigned long long)stats.live_blocks);
	struct hp_class_stats class[SLAB_CLASSES];
	int classes = hp_pool_class_stats(pool, class, SLAB_CLASSES);
	for (int i = 0; i < classes && !stop; i++)
		stop = put(&dump, "%s %llu bytes: %llu slabs, %llu bytes, %llu of %llu objects live\n",
		           class[i].cache ? "cache objects of" : "malloc's objects of", (unsigned long long)class[i].size,
		           (unsigned long long)class[i].slabs, (unsigned long long)class[i].bytes,
		           (unsigned long long)class[i].live, (unsigned long long)class[i].objects);
	for (uint32_t i = 0; i < pool->record_count && !stop; i++) {
		const struct pool_record *record = &pool->records[i];
		uint64_t word = atomic_load_explicit(&record->word, memory_order_acquire);
		if (record_state(word) == RECORD_FREE) continue;
		char comm[sizeof record->comm + 1] = "";
		for (unsigned k = 0; k < sizeof record->comm && (comm[k] = atomic_load(&record->comm[k])); k++)
			if (comm[k] < ' ' || comm[k] > '~')
				comm[k] = '?'; /* anybody may have written it, and it goes to terminals */
		stop = put(&dump, "process record %u: %s, pid %u, %s\n", i,
		           record_state(word) == RECORD_LIVE ? "live" : "being recovered",
		           atomic_load_explicit(&record->pid, memory_order_relaxed), comm);
	}
	uint32_t top = pool_slots_top(pool);
	for (uint32_t i = 0; i < top && !stop; i++) {
		const struct pool_slot *slot = &pool->slots[i];
		uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
		if (slot_state(word) == SLOT_FREE) continue;
		stop = put(&dump, "slot %u: process record %u, thread %u, node %u%s\n", i, slot_record(word),
		           atomic_load_explicit(&slot->tid, memory_order_relaxed),
		           atomic_load_explicit(&slot->node, memory_order_relaxed),
		           atomic_load_explicit(&slot->in_op, memory_order_relaxed) ? ", inside an operation" : "");
	}
	top = pool_top(pool);
	for (uint32_t i = 0; i < top && !stop; i++) stop = put_chunk(&dump, i);
	return stop;
}
