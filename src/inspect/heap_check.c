/* The checker of shared heaps: everything that docs/heap.md promises, from the entry to the last reference.
 *
 * First the bookkeeping, which look.c takes private copies of; if that is sound, everything that root, undo log and guards
 * reach, value by value, with a stack of its own that no graph can overflow, since a value is put on it once. On a heap that
 * is written meanwhile one look is of several moments: so findings that only hold for a heap at rest are kept only if the
 * number of the transaction and the lock are the same before and after, and the others only if the next looks find them,
 * too. */
#include "inspect/look.h"
#include "os/os.h"
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LOOKS 5u

/* ---- findings ---- */

__attribute__((format(printf, 3, 0))) static void keep(struct heap_check *check, const struct hp_heap_finding *finding,
                                                       const char *format, va_list args)
{
	check->broken |= finding->code <= HP_HEAP_BAD_LOG;
	if (check->count == HEAP_FINDINGS) return;
	struct heap_kept *kept = &check->kept[check->count++];
	kept->finding = *finding;
	kept->finding.struct_size = sizeof *finding;
	kept->still = check->still;
	vsnprintf(kept->text, sizeof kept->text, format, args);
}

__attribute__((format(printf, 5, 6))) static void wrong(struct look *look, enum hp_heap_wrong code, uint64_t page,
                                                        uint64_t word, const char *format, ...)
{
	const struct hp_heap_finding finding = {.code = code, .slab = page * HP_PAGE_SIZE, .word = word};
	va_list args;
	va_start(args, format);
	keep((struct heap_check *)look, &finding, format, args);
	va_end(args);
}

void heap_check_value(struct heap_check *check, enum hp_heap_wrong code, const struct look_slab *slab, uint32_t object,
                      uint64_t offset, uint64_t word, const char *format, ...)
{
	uint64_t at = look_offset(slab, object);
	const struct hp_heap_finding finding = {.code = code,
	                                        .slab = slab->page * HP_PAGE_SIZE,
	                                        .object = {check->look.tag << HEAP_OFFSET_BITS | at},
	                                        .offset = offset,
	                                        .word = word};
	va_list args;
	va_start(args, format);
	keep(check, &finding, format, args);
	va_end(args);
}

static bool same(const struct hp_heap_finding *a, const struct hp_heap_finding *b)
{
	return a->code == b->code && a->slab == b->slab && a->object.word == b->object.word && a->offset == b->offset &&
	       a->word == b->word;
}

/* ---- the entry ---- */

static void check_lock(struct heap_check *check)
{
	struct look *look = &check->look;
	const hp_pool *pool = look->pool;
	uint32_t lock = look->lock, slot = (lock >> 16) - 1;
	if (lock == 0 || lock == HEAP_ORPHAN) return;
	uint64_t word = lock >> 16 && slot < pool->slot_count
	                    ? atomic_load_explicit(&pool->slots[slot].word, memory_order_acquire)
	                    : 0;
	if (slot_state(word) == SLOT_FREE || (slot_generation(word) & 0xffff) != (lock & 0xffff))
		wrong(look, HP_HEAP_BAD_ENTRY, 0, lock, "locked by slot %d generation %u, which is gone", (int)slot,
		      lock & 0xffff);
}

static void check_opened(struct heap_check *check)
{
	struct look *look = &check->look;
	const hp_pool *pool = look->pool;
	for (uint32_t w = 0; w < HEAP_RECORDS / 64; w++)
		for (uint64_t bits = atomic_load(&look->entry->opened[w]); bits; bits &= bits - 1) {
			uint32_t record = w * 64 + (uint32_t)__builtin_ctzll(bits);
			if (record >= pool->record_count ||
			    record_state(atomic_load_explicit(&pool->records[record].word, memory_order_acquire)) == RECORD_FREE)
				wrong(look, HP_HEAP_BAD_ENTRY, 0, record, "opened by process record %u, which is gone", record);
		}
}

static void check_entry(struct heap_check *check)
{
	struct look *look = &check->look;
	const struct heap_entry *entry = look->entry;
	enum heap_phase phase = heap_phase(look->phase);
	uint64_t pages = look->pool->capacity / HP_PAGE_SIZE, epoch = heap_phase_epoch(look->phase);
	check_lock(check);
	check_opened(check);
	if (look->word >> 40) wrong(look, HP_HEAP_BAD_ENTRY, 0, look->word, "in no known state");
	if (entry->limit == 0 || entry->limit > pages)
		wrong(look, HP_HEAP_BAD_ENTRY, 0, entry->limit, "a limit of %llu pages", (unsigned long long)entry->limit);
	if (entry->gc_percent == 0 || entry->grace_ms == 0)
		wrong(look, HP_HEAP_BAD_ENTRY, 0, 0, "no percentage of garbage, or no time for readers");
	if (phase > HEAP_SWEEP) wrong(look, HP_HEAP_BAD_ENTRY, 0, look->phase, "in no known phase");
	if (phase == HEAP_CONDEMNED && (epoch == 0 || epoch > atomic_load(&look->pool->header->epoch)))
		wrong(look, HP_HEAP_BAD_ENTRY, 0, look->phase, "condemned in epoch %llu, which has not come",
		      (unsigned long long)epoch);
	if (look->run > pages) wrong(look, HP_HEAP_BAD_ENTRY, 0, look->run, "a run in hand that lies outside of the pool");
	check->still = true;
	if (look_is_free(look)) {
		if (heap_state(look->word) != HEAP_LIVE) wrong(look, HP_HEAP_BAD_ENTRY, 0, look->word, "being ended by nobody");
		if (look->log_n)
			wrong(look, HP_HEAP_BAD_ENTRY, 0, look->log_n, "nobody writes, and %llu stores are to be undone",
			      (unsigned long long)look->log_n);
		if (look->version & 1)
			wrong(look, HP_HEAP_BAD_ENTRY, 0, look->version, "nobody writes, and the version is odd");
		if (phase == HEAP_BARRIER || phase == HEAP_SWEEP)
			wrong(look, HP_HEAP_BAD_ENTRY, 0, look->phase, "nobody writes, and a collection is half done");
	}
	check->still = false;
}

/* Not live: being made or ended by somebody, or free. */
static void check_other(struct heap_check *check)
{
	struct look *look = &check->look;
	enum heap_state state = heap_state(look->word);
	if (state > HEAP_GONE || look->word >> 40)
		wrong(look, HP_HEAP_BAD_ENTRY, 0, look->word, "in no known state");
	else if (state != HEAP_FREE && look->lock == 0)
		wrong(look, HP_HEAP_BAD_ENTRY, 0, look->word, "being made or ended by nobody");
	else if (state != HEAP_FREE)
		check_lock(check);
}

/* ---- the undo log ---- */

static uint64_t extent_entries(unsigned k)
{
	return (uint64_t)HEAP_LOG_FIRST << (k ? k - 1 : 0);
}

static void check_log(struct heap_check *check)
{
	struct look *look = &check->look;
	uint64_t entries = 0, page1[HEAP_EXTENTS];
	for (unsigned k = 0; k < HEAP_EXTENTS; k++) {
		uint64_t pages, wanted = extent_entries(k) * sizeof(struct heap_log) / HP_PAGE_SIZE;
		page1[k] = atomic_load_explicit(&look->entry->log[k], memory_order_acquire);
		if (!page1[k]) {
			if (k == 0) wrong(look, HP_HEAP_BAD_LOG, 0, 0, "no undo log");
			continue;
		}
		const char *why = look_run(look, page1[k], HEAP_LOG, &pages);
		if (!why && pages != wanted) why = "is not as long as it should be";
		if (!why && k && !page1[k - 1]) why = "comes after one that is not there";
		for (unsigned other = 0; other < k && !why; other++)
			if (page1[other] == page1[k]) why = "is another one, too";
		if (why)
			wrong(look, HP_HEAP_BAD_LOG, 0, page1[k], "the undo log's extent %u %s", k, why);
		else
			entries += extent_entries(k);
	}
	if (look->log_n > entries)
		wrong(look, HP_HEAP_BAD_LOG, 0, look->log_n, "%llu stores to be undone, and room for %llu",
		      (unsigned long long)look->log_n, (unsigned long long)entries);
}

/* ---- slabs ---- */

static void check_bits(struct heap_check *check, const struct look_slab *slab)
{
	struct look *look = &check->look;
	const struct heap_slab *there = look_descriptor(look, slab);
	unsigned long long page = slab->page;
	uint64_t mark = atomic_load_explicit(&there->mark_stamp, memory_order_acquire);
	uint64_t born = atomic_load_explicit(&there->born_stamp, memory_order_acquire);
	/* looked at afterwards: they are never behind */
	if (mark > atomic_load(&look->entry->cycle))
		wrong(look, HP_HEAP_BAD_SLAB, slab->page, mark, "slab at page %llu: marked in collection %llu to come", page,
		      (unsigned long long)mark);
	if (born > atomic_load(&look->entry->number))
		wrong(look, HP_HEAP_BAD_SLAB, slab->page, born, "slab at page %llu: with values of transaction %llu to come",
		      page, (unsigned long long)born);
	uint32_t last = (slab->objects - 1) / 64;
	const struct heap_bits *bits = &there->bits[last];
	uint64_t beyond = ~heap_word_limit(slab->objects, last) &
	                  (heap_load_a(bits) | atomic_load_explicit(&bits->m, memory_order_relaxed) |
	                   atomic_load_explicit(&bits->n, memory_order_relaxed));
	if (beyond)
		wrong(look, HP_HEAP_BAD_SLAB, slab->page, beyond, "slab at page %llu: bits behind the last value", page);
}

static void check_map(struct heap_check *check, const struct look_slab *slab)
{
	struct look *look = &check->look;
	bool in_hand = look->run == slab->page + 1;
	for (uint32_t i = 0; i < slab->pages; i++) {
		uint64_t map = atomic_load_explicit(&look->pool->map[slab->page + i], memory_order_acquire);
		if (map == heap_map_make(look->index, slab->colour, i) || (map == 0 && in_hand)) continue;
		wrong(look, HP_HEAP_BAD_MAP, slab->page, map, "slab at page %llu: the map says something else of its page %u",
		      (unsigned long long)slab->page, i);
		return;
	}
}

static void check_slabs(struct heap_check *check)
{
	struct look *look = &check->look;
	uint64_t pages = 0;
	for (size_t k = 0; k < look->slabs; k++) {
		const struct look_slab *slab = &look->slab[k];
		check_bits(check, slab);
		check_map(check, slab);
		pages += slab->pages;
	}
	check->still = true;
	if (pages != look->pages)
		wrong(look, HP_HEAP_BAD_COUNT, 0, look->pages, "says that its slabs have %llu pages, and they have %llu",
		      (unsigned long long)look->pages, (unsigned long long)pages);
	else if (pages > look->entry->limit)
		wrong(look, HP_HEAP_BAD_COUNT, 0, look->pages, "%llu pages, and a limit of %llu", (unsigned long long)pages,
		      (unsigned long long)look->entry->limit);
	check->still = false;
}

/* ---- what is reached ---- */

static bool is_reached(const struct look *look, const struct look_slab *slab, uint32_t object)
{
	uint64_t bit = slab->first + object;
	return look->reached[bit / 64] >> (bit % 64) & 1;
}

static void reached(struct heap_check *check, struct look_slab *slab, uint32_t object)
{
	struct look *look = &check->look;
	uint64_t bit = slab->first + object;
	if (is_reached(look, slab, object)) return;
	look->reached[bit / 64] |= UINT64_C(1) << (bit % 64);
	look->type[slab->type].reached++;
	check->stack[check->top++] = (uint64_t)(slab - look->slab) << 32 | object;
}

struct value {
	struct heap_check *check;
	struct look_slab *slab;
	uint32_t object, count;
};

static int member(void *arg, uint64_t offset, uint64_t word, uint32_t target, int64_t element)
{
	struct value *value = arg;
	struct heap_check *check = value->check;
	struct look *look = &check->look;
	const char *name = look->type[value->slab->type].shape.name, *why;
	unsigned long long at = look_offset(value->slab, value->object);
	uint32_t object;
	if (!word) return 0;
	struct look_slab *slab = look_find(look, word, &object, &why);
	if (!slab) {
		heap_check_value(check, HP_HEAP_BAD_REFERENCE, value->slab, value->object, offset, word,
		                 "%s at 0x%llx: 0x%llx at offset %llu %s", name, at, (unsigned long long)word,
		                 (unsigned long long)offset, why);
		return 0;
	}
	if (target && look->type[slab->type].name != target)
		heap_check_value(check, HP_HEAP_BAD_TARGET, value->slab, value->object, offset, word,
		                 "%s at 0x%llx: the reference at offset %llu is not meant for %s", name, at,
		                 (unsigned long long)offset, look->type[slab->type].shape.name);
	if (element >= value->count) {
		check->still = true;
		heap_check_value(check, HP_HEAP_BAD_TAIL, value->slab, value->object, offset, word,
		                 "%s at 0x%llx: a reference in element %lld of %u", name, at, (long long)element, value->count);
		check->still = false;
	}
	reached(check, slab, object);
	return 0;
}

/* What the value says of its tail. */
static void check_tail(struct heap_check *check, struct look_slab *slab, uint32_t object, uint32_t count)
{
	struct look *look = &check->look;
	const struct look_type *type = &look->type[slab->type];
	unsigned long long at = look_offset(slab, object);
	uint64_t room = (slab->size - type->shape.tail) / type->shape.element;
	char end;
	check->still = true;
	if (!look_is_string(type)) {
		if (count > room)
			heap_check_value(check, HP_HEAP_BAD_TAIL, slab, object, type->shape.count, count,
			                 "%s at 0x%llx: %u elements, and room for %llu", type->shape.name, at, count,
			                 (unsigned long long)room);
	} else if (count >= room) {
		heap_check_value(check, HP_HEAP_BAD_STRING, slab, object, type->shape.count, count,
		                 "string at 0x%llx: %u long, and room for %llu with its 0", at, count,
		                 (unsigned long long)room);
	} else {
		const char *there = look_at(look, at + type->shape.tail + count, 1, &end);
		if (there && *(const volatile char *)there)
			heap_check_value(check, HP_HEAP_BAD_STRING, slab, object, type->shape.tail + count, count,
			                 "string at 0x%llx: no 0 at its end", at);
	}
	check->still = false;
}

static void drain(struct heap_check *check)
{
	struct look *look = &check->look;
	while (check->top && !look->error) {
		uint64_t next = check->stack[--check->top];
		struct value value = {check, &look->slab[next >> 32], (uint32_t)next, 0};
		if (look->type[value.slab->type].shape.element) {
			value.count = look_count(look, value.slab, value.object);
			check_tail(check, value.slab, value.object, value.count);
		}
		look_members(look, value.slab, value.object, member, &value);
		if (check->flags & HP_HEAP_AUDIT) heap_audit_value(check, value.slab, value.object);
	}
}

/* A reference from outside of the values. */
static void root(struct heap_check *check, enum hp_heap_wrong code, uint64_t word, const char *what, unsigned which)
{
	uint32_t object;
	const char *why;
	if (!word) return;
	struct look_slab *slab = look_find(&check->look, word, &object, &why);
	if (slab)
		reached(check, slab, object);
	else
		wrong(&check->look, code, 0, word, "%s %u: 0x%llx %s", what, which, (unsigned long long)word, why);
}

/* Only what the root reaches: guards are marked when the time for readers is over. */
static void check_marks(struct heap_check *check)
{
	struct look *look = &check->look;
	if (heap_phase(look->phase) != HEAP_CONDEMNED || !look_is_free(look)) return;
	check->still = true;
	for (size_t k = 0; k < look->slabs; k++) {
		const struct look_slab *slab = &look->slab[k];
		const struct heap_slab *there = look_descriptor(look, slab);
		bool valid = atomic_load_explicit(&there->mark_stamp, memory_order_relaxed) == look->cycle;
		for (uint32_t i = 0; i < slab->objects; i++)
			if (is_reached(look, slab, i) &&
			    !(valid && atomic_load_explicit(&there->bits[i / 64].m, memory_order_relaxed) >> (i % 64) & 1)) {
				heap_check_value(check, HP_HEAP_BAD_MARK, slab, i, 0, 0, "%s at 0x%llx: in use, and condemned",
				                 look->type[slab->type].shape.name, (unsigned long long)look_offset(slab, i));
				break; /* one of a slab */
			}
	}
	check->still = false;
}

static void check_log_entries(struct heap_check *check)
{
	struct look *look = &check->look;
	uint64_t n = 0;
	for (unsigned k = 0; k < HEAP_EXTENTS && n < look->log_n && !look->error; k++) {
		uint64_t page1 = atomic_load_explicit(&look->entry->log[k], memory_order_acquire);
		uint64_t start = (page1 - 1) * HP_PAGE_SIZE;
		if (!page1) return; /* given back meanwhile, or that is a finding already */
		for (uint64_t i = 0; i < extent_entries(k) && n < look->log_n; i++, n++) {
			struct heap_log copy;
			const struct heap_log *log = look_at(look, start + i * sizeof copy, sizeof copy, &copy);
			if (!log) return;
			uint64_t what = atomic_load_explicit(&log->what, memory_order_relaxed), off = heap_ref_offset(what);
			uint64_t old = atomic_load_explicit(&log->old, memory_order_relaxed);
			unsigned code = (unsigned)(what >> HEAP_OFFSET_BITS);
			bool known = code == HEAP_LOG_ROOT || code == HEAP_LOG_REF || (code >= 1 && code <= 8);
			if (!known || (code != HEAP_LOG_ROOT && !look_slab_of(look, off)))
				wrong(look, HP_HEAP_BAD_LOG, 0, what, "entry %llu of the undo log is for no value of the heap",
				      (unsigned long long)n);
			if (code == HEAP_LOG_ROOT || code == HEAP_LOG_REF)
				root(check, HP_HEAP_BAD_LOG, old, "entry of the undo log", (unsigned)n);
		}
	}
}

static void check_guards(struct heap_check *check)
{
	struct look *look = &check->look;
	const hp_pool *pool = look->pool;
	uint32_t top = pool_slots_top(pool);
	for (uint32_t s = 0; s < top; s++) {
		uint32_t used = atomic_load_explicit(&pool->slots[s].guards, memory_order_acquire);
		for (uint32_t i = 0; i < used && i < HEAP_GUARDS; i++) {
			uint64_t cell = atomic_load_explicit(&pool->guards[(uint64_t)s * HEAP_GUARDS + i], memory_order_acquire);
			if (cell >> HEAP_OFFSET_BITS != look->tag) continue;
			root(check, HP_HEAP_BAD_GUARD, cell & ~HEAP_RELEASED, "guard of slot", s);
			if (!(cell & HEAP_RELEASED) &&
			    slot_state(atomic_load_explicit(&pool->slots[s].word, memory_order_acquire)) == SLOT_FREE)
				wrong(look, HP_HEAP_BAD_GUARD, 0, cell, "guard of slot %u, which is nobody's", s);
		}
	}
}

static void check_values(struct heap_check *check)
{
	struct look *look = &check->look;
	void *stack;
	uint64_t bytes = (look->objects + 1) * sizeof *check->stack;
	if (os_map(NULL, bytes, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &stack) < 0) {
		look->error = -ENOMEM;
		return;
	}
	check->stack = stack;
	check->top = 0;
	root(check, HP_HEAP_BAD_REFERENCE, look->root, "root of heap", look->index);
	drain(check);
	if (!look->error) check_marks(check);
	check_log_entries(check);
	check_guards(check);
	drain(check);
	if (!look->error && check->flags & HP_HEAP_LEAKS) heap_audit_leaks(check);
	if (!look->error && check->flags & HP_HEAP_AUDIT) heap_audit_report(check);
	os_unmap(stack, bytes);
}

/* ---- looking, and looking again ---- */

static int look_once(struct heap_check *check)
{
	struct look *look = &check->look;
	check->count = 0;
	check->broken = check->still = false;
	if (look_begin(look)) {
		check_entry(check);
		check_log(check);
		check_slabs(check);
		if (!check->broken && !check->structure) check_values(check);
	} else if (!look->error) {
		check_other(check);
	}
	heap_audit_free(check);
	look_end(look);
	if (look->error) return look->error;
	if (atomic_load_explicit(&look->entry->word, memory_order_acquire) != look->word) {
		check->count = 0; /* it is another one by now */
	} else if (!look_is_calm(look)) {
		unsigned kept = 0;
		for (unsigned k = 0; k < check->count; k++)
			if (!check->kept[k].still) check->kept[kept++] = check->kept[k];
		check->count = kept;
	}
	return 0;
}

/* Keeps what both found. */
static void cross(struct heap_check *check, const struct heap_kept *before, unsigned count)
{
	unsigned kept = 0;
	for (unsigned k = 0; k < check->count; k++)
		for (unsigned i = 0; i < count; i++)
			if (same(&check->kept[k].finding, &before[i].finding)) {
				check->kept[kept++] = check->kept[k];
				break;
			}
	check->count = kept;
}

int heap_check_run(struct heap_check *check, const hp_pool *pool, uint32_t index, uint32_t writer)
{
	struct heap_kept *two = malloc(2 * HEAP_FINDINGS * sizeof *two);
	if (!two) return -ENOMEM;
	*check = (struct heap_check){.look = {.pool = pool, .index = index, .writer = writer, .wrong = wrong},
	                             .flags = check->flags,
	                             .structure = check->structure,
	                             .kept = two};
	int error = look_once(check);
	for (unsigned k = 1; k < LOOKS && (error == -EIO || (error == 0 && check->count)); k++) {
		struct heap_kept *before = check->kept;
		unsigned count = error == 0 ? check->count : UINT_MAX;
		check->kept = before == two ? two + HEAP_FINDINGS : two;
		os_yield();
		error = look_once(check);
		if (error == 0 && count != UINT_MAX) cross(check, before, count);
	}
	for (unsigned k = 0; k < check->count && error == 0; k++) check->kept[k].finding.text = check->kept[k].text;
	if (check->kept != two) { /* so that it can be freed */
		memcpy(two, check->kept, check->count * sizeof *two);
		check->kept = two;
		for (unsigned k = 0; k < check->count; k++) two[k].finding.text = two[k].text;
	}
	return error < 0 ? error : (int)check->count;
}

void heap_check_end(struct heap_check *check)
{
	free(check->kept);
	check->kept = NULL;
}

static int tell(struct heap_check *check, int found, hp_heap_finding_fn *finding, void *arg)
{
	for (int k = 0; k < found && finding; k++) finding(arg, &check->kept[k].finding);
	heap_check_end(check);
	return found;
}

int hp_pool_heap_check(hp_pool *pool, uint64_t id, unsigned flags, hp_heap_finding_fn *finding, void *arg)
{
	uint32_t index = (uint32_t)id & 0xffff, generation = (uint32_t)(id >> 16);
	struct heap_check check = {.flags = flags};
	if (!pool || index == 0 || index >= HEAPS || id >> 48 || flags & ~(HP_HEAP_AUDIT | HP_HEAP_LEAKS)) return -EINVAL;
	if (index >= heap_top(pool)) return -ESTALE;
	uint64_t word = atomic_load_explicit(&pool->heaps[index].word, memory_order_acquire);
	if (!look_is_there(word) || heap_generation(word) != generation) return -ESTALE;
	return tell(&check, heap_check_run(&check, pool, index, 0), finding, arg);
}

int hp_heap_check(hp_heap *heap, unsigned flags, hp_heap_finding_fn *finding, void *arg)
{
	struct heap_check check = {.flags = flags, .structure = true};
	hp_tx *tx;
	if (!heap || flags & ~(HP_HEAP_AUDIT | HP_HEAP_LEAKS)) return -EINVAL;
	if (!heap->pool || !heap_is_there(heap)) return -ESTALE;
	/* The writer walks what is looked at here first, and believes it. */
	int found = heap_check_run(&check, heap->pool, heap->index, 0);
	if (found) return tell(&check, found, finding, arg);
	heap_check_end(&check);
	int error = hp_heap_begin(heap, 1000, &tx);
	if (error < 0) return error;
	check.structure = false;
	found = heap_check_run(&check, heap->pool, heap->index, tx->me->who);
	hp_heap_abort(tx);
	return tell(&check, found, finding, arg);
}
