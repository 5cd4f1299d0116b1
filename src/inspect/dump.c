/* The pool as text for people: who takes part, and everything allocated. */
#include "inspect/look.h"
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

static int put_heap_run(const struct dump *dump, uint64_t page, uint64_t pages)
{
	uint8_t colour;
	const struct heap_slab *mark = heap_mark_at(dump->pool, page);
	const struct heap_slab *slab = look_descriptor_at(dump->pool, page, pages, &colour);
	uint32_t index = heap_tag_index(atomic_load_explicit(&mark->tag, memory_order_relaxed)), live = 0;
	uint64_t word = atomic_load_explicit(&dump->pool->heaps[index].word, memory_order_relaxed);
	unsigned long long at = page * HP_PAGE_SIZE, bytes = pages * HP_PAGE_SIZE;
	unsigned long long id = (uint64_t)heap_generation(word) << 16 | index;
	unsigned kind = atomic_load_explicit(&mark->kind, memory_order_relaxed);
	const char *what = kind == HEAP_LOG ? "undo log" : kind == HEAP_TABLE ? "types" : "something";
	if (kind != HEAP_SLAB || !slab) return put(dump, "  0x%llx: %llu bytes, %s of heap %llu\n", at, bytes, what, id);
	/* the bits lie in the descriptors of its pages, or nowhere */
	uint64_t room = (pages * sizeof(struct slab) - sizeof *slab - colour * 64u) / sizeof *slab->bits;
	for (uint32_t w = 0; w < room && w < heap_words(slab); w++)
		live += (uint32_t)__builtin_popcountll(heap_load_a(&slab->bits[w]));
	return put(dump, "  0x%llx: %llu bytes, slab of heap %llu, %u of %u values of type %u live, of %llu bytes\n", at,
	           bytes, id, live, atomic_load_explicit(&slab->objects, memory_order_relaxed),
	           atomic_load_explicit(&slab->type, memory_order_relaxed),
	           (unsigned long long)atomic_load_explicit(&slab->size, memory_order_relaxed));
}

static int put_run(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	const struct dump *dump = arg;
	if (inspect_is_slab(len)) return put_slab(dump, chunk, page, len);
	uint64_t first = (uint64_t)chunk * dump->pool->chunk_pages + page, at = first * HP_PAGE_SIZE;
	if (inspect_is_heap(len)) return put_heap_run(dump, first, pages);
	const char *what = (len & PARITY_TYPE_MASK) == PAGE_TYPE_PINS   ? ", pins of a ring"
	                   : (len & PARITY_TYPE_MASK) == PAGE_TYPE_LENT ? ", under I/O"
	                   : inspect_is_fifo(len)                       ? ", a fifo"
	                                                                : "";
	return put(dump, "  0x%llx: %llu bytes%s\n", (unsigned long long)at, (unsigned long long)(pages * HP_PAGE_SIZE),
	           what);
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

static int put_heap(void *arg, const struct hp_heap_seen *heap)
{
	const struct dump *dump = arg;
	return put(dump, "heap %llu: root 0x%llx, %llu values of %llu types, %llu bytes live, %llu held, %s%s\n",
	           (unsigned long long)heap->id, (unsigned long long)heap_ref_offset(heap->root.word),
	           (unsigned long long)heap->values, (unsigned long long)heap->types, (unsigned long long)heap->live,
	           (unsigned long long)heap->held, heap->writer_pid ? "being written" : "nobody writes",
	           heap->pending ? ", garbage waits for readers" : "");
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
	if (!stop) stop = hp_pool_heaps(pool, put_heap, &dump);
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
