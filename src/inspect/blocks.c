/* The report of the ready-made caches of blocks: counted from the slabs, and changing nothing. */
#include "inspect/inspect.h"
#include <hugepool/block.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct report {
	const hp_pool *pool;
	unsigned class[HP_BLOCKS]; /* 0: has none */
	struct hp_block_report *sums;
	char *text; /* NULL: not wanted */
	size_t size;
	int64_t length;
	unsigned listed; /* the block whose slabs are written down */
};

__attribute__((format(printf, 2, 3))) static void put(struct report *to, const char *format, ...)
{
	size_t left = (size_t)to->length < to->size ? to->size - (size_t)to->length : 0;
	va_list args;
	va_start(args, format);
	int length = vsnprintf(left ? to->text + to->length : NULL, left, format, args);
	va_end(args);
	if (length > 0) to->length += length;
}

static int count(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct report *report = arg;
	struct inspect_slab slab;
	(void)pages;
	if (!inspect_is_slab(len)) return 0;
	inspect_slab(report->pool, chunk, page, len, &slab);
	for (unsigned i = 0; i < HP_BLOCKS; i++) {
		struct hp_block_stats *sum = &report->sums->of[i];
		if (!report->class[i] || slab.class != report->class[i]) continue;
		unsigned objects = slab.objects < SLAB_OBJECTS ? slab.objects : SLAB_OBJECTS;
		sum->slabs++;
		sum->bytes += (uint64_t)slab.pages * HP_PAGE_SIZE;
		sum->in_use += slab.live;
		sum->free += objects - slab.live;
		sum->full += slab.live == objects;
		sum->empty += slab.live == 0;
		sum->partial += slab.live && slab.live < objects;
		if (!report->text || report->listed != i) continue;
		put(report, "  at 0x%llx: %u of %u out", (unsigned long long)(slab.page * HP_PAGE_SIZE), slab.live, objects);
		if (ctl_state(slab.ctl) == CTL_OWNED) put(report, ", slot %u", ctl_owner(slab.ctl) - 1);
		put(report, "\n");
	}
	return 0;
}

static void walk(struct report *report)
{
	uint32_t top = pool_top(report->pool);
	memset(report->sums->of, 0, sizeof report->sums->of);
	for (unsigned i = 0; i < HP_BLOCKS; i++) {
		struct hp_block_stats *sum = &report->sums->of[i];
		if (!report->class[i]) continue;
		const struct pool_cache *shared = &report->pool->caches[report->class[i] - CACHE_FIRST_CLASS];
		sum->made = 1;
		sum->size = hp_block_size((hp_block)i);
		sum->fails = atomic_load_explicit(&shared->fails, memory_order_relaxed);
		sum->waits = atomic_load_explicit(&shared->waits, memory_order_relaxed);
	}
	for (uint32_t chunk = 0; chunk < top; chunk++) {
		uint64_t ctl;
		if (inspect_committed(report->pool, chunk, &ctl) && ctl_state(ctl) != CTL_QUARANTINED)
			inspect_runs(report->pool, chunk, count, report);
	}
}

static struct report begin(hp_pool *pool, struct hp_block_report *sums)
{
	static const char *const names[HP_BLOCKS] = {
		[HP_BLOCK_64K] = HP_BLOCK_NAME_64K, [HP_BLOCK_PAGE] = HP_BLOCK_NAME_PAGE};
	struct report report = {.pool = pool, .sums = sums};
	for (unsigned i = 0; i < CACHES; i++) {
		const struct pool_cache *shared = &pool->caches[i];
		if (cache_state(atomic_load_explicit(&shared->word, memory_order_acquire)) != CACHE_LIVE) continue;
		for (unsigned k = 0; k < HP_BLOCKS; k++)
			if (!strncmp(shared->name, names[k], CACHE_NAME_MAX) && shared->size == hp_block_size((hp_block)k))
				report.class[k] = CACHE_FIRST_CLASS + i;
	}
	return report;
}

int hp_block_report(hp_pool *pool, struct hp_block_report *sums)
{
	if (!pool || !sums || sums->struct_size < sizeof *sums) return -EINVAL;
	struct report report = begin(pool, sums);
	walk(&report);
	return 0;
}

int64_t hp_block_report_text(hp_pool *pool, char *text, size_t size)
{
	char nothing[1];
	struct hp_block_report sums;
	if (!pool || (!text && size)) return -EINVAL;
	struct report report = begin(pool, &sums);
	report.text = NULL;
	if (size) *text = 0;
	for (unsigned i = 0; i < HP_BLOCKS; i++) {
		const struct hp_block_stats *sum = &sums.of[i];
		report.text = NULL;
		walk(&report);
		report.text = text ? text : nothing;
		report.size = size;
		report.listed = i;
		if (!sum->made) {
			put(&report, "blocks of %zu bytes: none\n", hp_block_size((hp_block)i));
			continue;
		}
		put(&report,
		    "blocks of %llu bytes: %llu out, %llu free, in %llu slabs (%llu full, %llu partly, %llu not at all out); "
		    "%llu bytes; %llu gets failed, %llu waited\n",
		    (unsigned long long)sum->size, (unsigned long long)sum->in_use, (unsigned long long)sum->free,
		    (unsigned long long)sum->slabs, (unsigned long long)sum->full, (unsigned long long)sum->partial,
		    (unsigned long long)sum->empty, (unsigned long long)sum->bytes, (unsigned long long)sum->fails,
		    (unsigned long long)sum->waits);
		walk(&report);
	}
	return report.length;
}
