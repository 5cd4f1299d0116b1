/* The checker: every invariant of the pool, page and slab layers, on live pools and on those that nobody uses any more; and
 * every heap (heap_check.c).
 *
 * A live pool moves while it is looked at, so each part is looked at again when something seems wrong, and is a finding
 * only when it stays wrong. Nothing read here is trusted: indexes are checked before they are used, loops are bounded. */
#include "inspect/look.h"
#include "io/pin.h"
#include "pool/record.h"
#include "os/os.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOKS 8

struct check {
	const hp_pool *pool;
	const struct look_names *heap_runs; /* what heaps named when the check began */
	char line[256];                     /* the latest finding of the part being looked at */
	bool wrong;
	unsigned end;     /* first page behind the last run seen */
	unsigned outside; /* first page of the chunk that may lie in no slab */
};

__attribute__((format(printf, 2, 3))) static void wrong(struct check *check, const char *format, ...)
{
	if (check->wrong) return; /* one finding a part: what follows from it is noise */
	check->wrong = true;
	va_list args;
	va_start(args, format);
	vsnprintf(check->line, sizeof check->line, format, args);
	va_end(args);
}

/* The live run at {chunk, page} covers later chunks: they exist, say so, and hold no head in the part covered. */
static void check_span(struct check *check, uint32_t chunk, unsigned page, uint64_t pages)
{
	const hp_pool *pool = check->pool;
	uint64_t cp = pool->chunk_pages, span = atomic_load_explicit(&pool->chunks[chunk].span, memory_order_acquire);
	if (span != pages || page + pages <= cp) {
		wrong(check, "chunk %u: the run at page %u says that it goes on, but is %llu pages long", chunk, page,
		      (unsigned long long)span);
		return;
	}
	uint64_t last = chunk + (page + pages - 1) / cp;
	if (last >= pool_top(pool)) wrong(check, "chunk %u: the run at page %u reaches beyond the pool", chunk, page);
	for (uint32_t i = chunk + 1; i <= last && !check->wrong; i++) {
		uint64_t ctl, left = page + pages - (i - chunk) * cp;
		if (!inspect_committed(pool, i, &ctl))
			wrong(check, "chunk %u: uncommitted under a live run of chunk %u", i, chunk);
		if (page_prefix(pool, i) != (left < cp ? left : cp))
			wrong(check, "chunk %u: does not know that the run at chunk %u, page %u covers it", i, chunk, page);
	}
}

/* Slot or record of a control word: not gone. */
static bool slot_stands(const hp_pool *pool, uint64_t ctl)
{
	uint32_t slot = ctl_owner(ctl) - 1;
	uint64_t word = slot < pool->slot_count ? atomic_load_explicit(&pool->slots[slot].word, memory_order_acquire) : 0;
	return slot_state(word) != SLOT_FREE && (slot_generation(word) & 0xffff) == ctl_generation(ctl);
}

static bool record_stands(const hp_pool *pool, uint32_t record, uint32_t generation)
{
	uint64_t word = record < pool->record_count
	                    ? atomic_load_explicit(&pool->records[record].word, memory_order_acquire)
	                    : 0;
	return record_state(word) != RECORD_FREE && (record_generation(word) & 0xffff) == generation;
}

/* What the map says of the slab's pages: every word right; of one that is being made or ended some may be 0. */
static void check_map(struct check *check, const struct inspect_slab *slab)
{
	const hp_pool *pool = check->pool;
	const struct slab_class *known = slab->class < SLAB_MALLOC_CLASSES ? &pool->classes[slab->class] : NULL;
	bool whole = ctl_state(slab->ctl) != CTL_RECOVERING;
	uint32_t reciprocal = known ? known->reciprocal : 0;
	for (unsigned i = 0; i < slab->pages && !check->wrong; i++) {
		uint64_t map = atomic_load_explicit(&pool->map[slab->page + i], memory_order_acquire);
		if (!map && !whole) continue;
		if (!reciprocal) reciprocal = (uint32_t)(map >> 32);
		int ahead = ((int)(i * HP_PAGE_SIZE) - (int)slab->first) / 16;
		if (!reciprocal || map != map_make(reciprocal, ahead, slab->class, i))
			wrong(check, "slab at page %llu: the map says something else of its page %u",
			      (unsigned long long)slab->page, i);
	}
}

static void check_slab(struct check *check, uint32_t chunk, unsigned page, unsigned len)
{
	const hp_pool *pool = check->pool;
	struct inspect_slab slab;
	inspect_slab(pool, chunk, page, len, &slab);
	unsigned long long at = slab.page;
	switch (ctl_state(slab.ctl)) {
	case CTL_OWNED:
		if (!slot_stands(pool, slab.ctl))
			wrong(check, "slab at page %llu: lost, its owner slot %u generation %u is gone", at,
			      ctl_owner(slab.ctl) - 1, ctl_generation(slab.ctl));
		break;
	case CTL_UNOWNED: break;
	case CTL_RECOVERING:
		if (!(ctl_owner(slab.ctl) & 0x8000) ||
		    !record_stands(pool, (ctl_owner(slab.ctl) & 0x7fff) - 1, ctl_generation(slab.ctl)))
			wrong(check, "slab at page %llu: lost, half made or half ended by a process that is gone", at);
		break;
	default: wrong(check, "slab at page %llu: in no known state", at);
	}
	if (slab.class < SLAB_MALLOC_CLASSES) {
		const struct slab_class *known = &pool->classes[slab.class];
		if (slab.objects > known->objects || slab.pages > known->pages ||
		    slab.first + (uint64_t)slab.objects * known->size > slab.pages * (uint64_t)HP_PAGE_SIZE)
			wrong(check, "slab at page %llu: not cut as its class %u is", at, slab.class);
	}
	if (slab.objects > SLAB_OBJECTS || slab.first % 16)
		wrong(check, "slab at page %llu: %u objects from byte %u on", at, slab.objects, slab.first);
	if (slab.beyond) wrong(check, "slab at page %llu: a live object behind its last one", at);
	check_map(check, &slab);
}

/* Pages outside of slabs and heaps: the map names none. */
static void check_outside(struct check *check, uint32_t chunk, unsigned to)
{
	const hp_pool *pool = check->pool;
	for (unsigned i = check->outside; i < to; i++) {
		uint64_t page = (uint64_t)chunk * pool->chunk_pages + i;
		if (atomic_load_explicit(&pool->map[page], memory_order_acquire))
			wrong(check, "page %llu: the map says that a slab is there", (unsigned long long)page);
	}
}

static int check_run(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct check *check = arg;
	unsigned cp = check->pool->chunk_pages, n = len & PARITY_LEN_MASK;
	if (n == 0 || n > cp - page || (len & PARITY_LEN_SPANS && n != cp - page))
		wrong(check, "chunk %u: the run at page %u has length %u", chunk, page, n);
	if (page < check->end) wrong(check, "chunk %u: the run at page %u lies in another", chunk, page);
	check->end = page + (n ? n : 1);
	if (inspect_is_slab(len)) {
		if (!check->wrong) check_slab(check, chunk, page, len);
		check_outside(check, chunk, page);
		check->outside = check->end;
	} else if (inspect_is_heap(len)) {
		uint64_t at = (uint64_t)chunk * check->pool->chunk_pages + page;
		const char *lost = look_lost(check->pool, check->heap_runs, at, pages);
		if (lost) wrong(check, "run at page %llu: lost, it is %s", (unsigned long long)at, lost);
		check_outside(check, chunk, page); /* its own pages are checked with its heap */
		check->outside = check->end;
	} else if ((len & PARITY_TYPE_MASK) == PAGE_TYPE_PINS) {
		uint64_t at = (uint64_t)chunk * check->pool->chunk_pages + page;
		if (!pin_names(check->pool, at)) wrong(check, "run at page %llu: pins of no ring", (unsigned long long)at);
	} else if (len & PARITY_TYPE_MASK && (len & PARITY_TYPE_MASK) != PAGE_TYPE_LENT && !inspect_is_fifo(len)) {
		wrong(check, "chunk %u: the run at page %u is of no known type", chunk, page);
	}
	if (len & PARITY_LEN_SPANS && !check->wrong) check_span(check, chunk, page, pages);
	return check->wrong;
}

/* The run that reaches into the chunk from before is a heap's. */
static bool covered_by_heap(const hp_pool *pool, uint32_t chunk)
{
	uint64_t cover = atomic_load_explicit(&pool->chunks[chunk].cover, memory_order_acquire);
	uint32_t head = (uint32_t)(cover >> 32) - 1;
	unsigned page = (unsigned)(cover & 0xffff);
	return head < chunk && page < pool->chunk_pages &&
	       inspect_is_heap(atomic_load_explicit(&pool->units[head].len[page], memory_order_acquire));
}

static bool growing(const hp_pool *pool)
{
	return atomic_load_explicit(&pool->header->plan_phase, memory_order_acquire) == PLAN_PUBLISHING;
}

static void check_chunk(struct check *check, uint32_t i)
{
	const hp_pool *pool = check->pool;
	uint64_t ctl, tag = atomic_load_explicit(&pool->chunks[i].tag, memory_order_acquire);
	if (i >= pool_top(pool)) { /* published before the top is raised */
		if (inspect_committed(pool, i, &ctl) && !growing(pool))
			wrong(check, "chunk %u: lost, it lies beyond the last one committed", i);
		return;
	}
	uint8_t node = atomic_load_explicit(&pool->nodes[i], memory_order_relaxed);
	if (node >= HP_MAX_NODES && node != POOL_NODE_ANY) wrong(check, "chunk %u: on node %u, which cannot be", i, node);
	if (atomic_load_explicit(&pool->hints[i], memory_order_relaxed) > page_hint(pool->chunk_pages))
		wrong(check, "chunk %u: a hint that no run can have", i);
	bool heads = !parity_no_heads(&pool->units[i], pool->chunk_pages);
	if (!inspect_committed(pool, i, &ctl)) {
		if (heads) wrong(check, "chunk %u: blocks in memory that is not committed", i);
		return;
	}
	if (ctl_state(ctl) > CTL_QUARANTINED) wrong(check, "chunk %u: in no known state", i);
	if (ctl_state(ctl) == CTL_OWNED && !slot_stands(pool, ctl))
		wrong(check, "chunk %u: lost, its owner slot %u generation %u is gone", i, ctl_owner(ctl) - 1,
		      ctl_generation(ctl));
	if (ctl_state(ctl) == CTL_RECOVERING && !record_stands(pool, ctl_owner(ctl) - 1, ctl_generation(ctl)))
		wrong(check, "chunk %u: lost, its recoverer is gone", i);
	if (tag && heads && page_chunk_over(pool, i, tag)) /* and nothing that the kernel may still write to */
		wrong(check, "chunk %u: blocks of class PROCESS of a process that is gone", i);
	if (ctl_state(ctl) == CTL_QUARANTINED) return;
	check->end = page_prefix(pool, i);
	if (check->end && covered_by_heap(pool, i)) check->outside = check->end;
	inspect_runs(pool, i, check_run, check);
	check_outside(check, i, pool->chunk_pages);
}

static void check_slot(struct check *check, uint32_t i)
{
	const hp_pool *pool = check->pool;
	uint64_t word = atomic_load_explicit(&pool->slots[i].word, memory_order_acquire);
	uint64_t mark = atomic_load_explicit(&pool->slots[i].taker, memory_order_acquire);
	uint32_t in_op = atomic_load_explicit(&pool->slots[i].in_op, memory_order_acquire);
	if (slot_state(word) > SLOT_RECOVERING) wrong(check, "slot %u: in no known state", i);
	if ((in_op && in_op < SLOT_IN_OP - SLOT_NESTED) || (in_op && slot_state(word) == SLOT_FREE))
		wrong(check, "slot %u: inside an operation of nobody", i);
	if (slot_state(word) == SLOT_FREE && (atomic_load_explicit(&pool->slots[i].section, memory_order_acquire) ||
	                                      atomic_load_explicit(&pool->slots[i].waiting, memory_order_acquire)))
		wrong(check, "slot %u: nobody reads heaps, or waits for one", i);
	if (i >= pool_slots_top(pool) && word != 0 && slot_state(word) != SLOT_FREE)
		wrong(check, "slot %u: lost, it lies beyond the last one used", i);
	if (slot_state(word) != SLOT_FREE) {
		uint32_t record = slot_record(word);
		uint64_t of = record < pool->record_count
		                  ? atomic_load_explicit(&pool->records[record].word, memory_order_acquire)
		                  : 0;
		if (record_state(of) == RECORD_FREE || record_generation(of) != slot_record_generation(word))
			wrong(check, "slot %u: lost, its process record %u is gone", i, record);
	}
	if (mark >> 32) {
		uint32_t taker = (uint32_t)(mark >> 48) - 1;
		uint64_t of = taker < pool->slot_count ? atomic_load_explicit(&pool->slots[taker].word, memory_order_acquire)
		                                       : 0;
		if (slot_state(of) == SLOT_FREE || (slot_generation(of) & 0xffff) != ((uint32_t)(mark >> 32) & 0xffff))
			wrong(check, "slot %u: marked by a taker, slot %u, that is gone", i, taker);
	}
}

static void check_record(struct check *check, uint32_t i)
{
	const hp_pool *pool = check->pool;
	uint64_t word = atomic_load_explicit(&pool->records[i].word, memory_order_acquire);
	if (record_state(word) > RECORD_RECOVERING) wrong(check, "process record %u: in no known state", i);
	/* one that is dead itself is found dead by the next; one that cannot exist is not */
	if (record_state(word) == RECORD_RECOVERING && record_recoverer(word) - 1 >= pool->record_count)
		wrong(check, "process record %u: being recovered by record %u, which does not exist", i,
		      record_recoverer(word) - 1);
}

static void check_growth(struct check *check, uint32_t unused)
{
	const hp_pool *pool = check->pool;
	struct pool_header *header = pool->header;
	(void)unused;
	uint64_t lock = atomic_load_explicit(&header->growth_lock, memory_order_acquire);
	uint32_t phase = atomic_load_explicit(&header->plan_phase, memory_order_acquire), holder = (uint32_t)(lock >> 48);
	if (phase > PLAN_TRIMMING) wrong(check, "growth: a plan in no known phase");
	if (phase != PLAN_NONE && holder == 0) wrong(check, "growth: a plan that nobody carries out");
	/* a holder that is gone loses the lock to the next who wants it; one that cannot exist never held it */
	if (holder > pool->record_count)
		wrong(check, "growth: locked by process record %u, which does not exist", holder - 1);
	if (phase != PLAN_NONE && (atomic_load(&header->plan_from) > atomic_load(&header->plan_to) ||
	                           atomic_load(&header->plan_to) > pool->chunk_count))
		wrong(check, "growth: a plan for chunks that do not exist");
	if (atomic_load(&header->committed_top) > pool->chunk_count) wrong(check, "growth: committed beyond the capacity");
}

/* What the header says about all chunks and slots together. */
static void check_totals(struct check *check, uint32_t unused)
{
	const hp_pool *pool = check->pool;
	struct pool_header *header = pool->header;
	(void)unused;
	uint64_t nodes = 0, set_aside = 0, known = atomic_load_explicit(&header->committed_nodes, memory_order_acquire);
	uint32_t top = pool_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		uint64_t ctl;
		if (!inspect_committed(pool, i, &ctl)) continue;
		uint8_t node = atomic_load_explicit(&pool->nodes[i], memory_order_relaxed);
		if (node < HP_MAX_NODES) nodes |= UINT64_C(1) << node;
		if (ctl_state(ctl) == CTL_QUARANTINED) set_aside += pool_chunk_bytes(pool);
	}
	if (nodes & ~known && !growing(pool)) wrong(check, "header: does not know of all nodes that chunks lie on");
	if (set_aside != atomic_load(&header->quarantined))
		wrong(check, "header: says that %llu bytes are set aside, but it is %llu",
		      (unsigned long long)atomic_load(&header->quarantined), (unsigned long long)set_aside);
	if (atomic_load(&header->slots_top) > pool->slot_count) wrong(check, "header: more slots in use than there are");
	if (atomic_load(&header->heaps_top) > HEAPS) wrong(check, "header: more heaps than there can be");
}

typedef void check_part_fn(struct check *check, uint32_t index);

static int check_parts(const struct check *like, check_part_fn *part, uint32_t count, hp_log_fn *finding, void *arg)
{
	int found = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct check check = *like;
		for (unsigned look = 0; look < LOOKS; look++) {
			check.wrong = false;
			check.end = check.outside = 0;
			part(&check, i);
			if (!check.wrong) break;
			os_yield();
		}
		if (!check.wrong) continue;
		found++;
		if (finding) finding(arg, check.line);
	}
	return found;
}

static bool geometry_intact(const hp_pool *pool)
{
	_Static_assert(sizeof pool->geometry % 8 == 0 && _Alignof(struct pool_geometry) == 8, "compared word by word");
	const _Atomic uint64_t *there = (const _Atomic uint64_t *)(const void *)&pool->header->geometry;
	for (size_t i = 0; i < sizeof pool->geometry / 8; i++) {
		uint64_t here;
		memcpy(&here, (const char *)&pool->geometry + 8 * i, 8);
		if (atomic_load_explicit(&there[i], memory_order_relaxed) != here) return false;
	}
	return true;
}

/* What heaps say of themselves. */
static int check_heap(const hp_pool *pool, uint32_t index, hp_log_fn *finding, void *arg)
{
	struct heap_check check = {0};
	char line[320];
	int found = heap_check_run(&check, pool, index, 0);
	for (int k = 0; k < found && finding; k++) {
		snprintf(line, sizeof line, "heap %llu: %s", (unsigned long long)check.look.id, check.kept[k].text);
		finding(arg, line);
	}
	heap_check_end(&check);
	return found;
}

int hp_pool_check(hp_pool *pool, hp_log_fn *finding, void *arg)
{
	if (!pool) return -EINVAL;
	int found = 0;
	struct look_names names;
	const struct check check = {.pool = pool, .heap_runs = &names};
	if (!geometry_intact(pool) || atomic_load_explicit(&pool->header->ready, memory_order_acquire) != POOL_READY) {
		found++;
		if (finding) finding(arg, "header: changed since the pool was made");
	}
	found += check_parts(&check, check_growth, 1, finding, arg);
	found += check_parts(&check, check_totals, 1, finding, arg);
	found += check_parts(&check, check_record, pool->record_count, finding, arg);
	found += check_parts(&check, check_slot, pool->slot_count, finding, arg);
	int error = look_names(pool, &names);
	if (error == 0) found += check_parts(&check, check_chunk, pool->chunk_count, finding, arg);
	free(names.page);
	for (uint32_t i = 1; i < heap_top(pool) && error == 0; i++) {
		int in_heap = check_heap(pool, i, finding, arg);
		if (in_heap < 0)
			error = in_heap;
		else
			found += in_heap;
	}
	return error < 0 ? error : found;
}
