/* The checker of shared heaps: it is silent about heaps that are sound, at rest, under way and after deaths; and it finds what
 * was written behind the heap's back. What it does not find of random faults must be without consequence: a process that works
 * with the heap afterwards sees the graph as it was, and everything goes on. */
#include "hp_process.h"

#include "heap/heap.h"
#include "heap/layout.h"

struct flow {
	uint64_t key[2];
	HP_REF(struct flow) next;
	HP_REF(struct hp_string) name;
};
struct table {
	uint32_t n;
	struct {
		HP_REF(struct flow) head;
	} bucket[];
};
HP_TYPE_DECLARE(flow_type);
HP_TYPE(flow_type, struct flow, (next, flow_type), (name, hp_string_type));
HP_TYPE_ARRAY(table_type, struct table, n, bucket, (head, flow_type));

/* Programs forget members. */
struct forgetful {
	HP_REF(struct forgetful) next;
	uint64_t number;
	HP_REF(struct hp_string) hidden;
};
HP_TYPE_DECLARE(forgetful_type);
HP_TYPE(forgetful_type, struct forgetful, (next, forgetful_type));

#define BUCKETS 48u

static struct {
	hp_pool *pool;
	hp_heap *heap;
} here;

/* ---- findings ---- */

static struct {
	struct hp_heap_finding last;
	char text[256];
	unsigned of[16];
} told;

static void tell(void *arg, const struct hp_heap_finding *finding)
{
	(void)arg;
	must(finding->code >= 1 && finding->code < 16 && finding->text && finding->struct_size == sizeof *finding);
	told.of[finding->code]++;
	told.last = *finding;
	snprintf(told.text, sizeof told.text, "%s", finding->text);
}

static void complain(void *arg, const struct hp_heap_finding *finding)
{
	fprintf(stderr, "finding %d: %s\n", (int)finding->code, finding->text);
	tell(arg, finding);
}

static int findings(unsigned flags)
{
	memset(&told, 0, sizeof told);
	return hp_pool_heap_check(here.pool, hp_heap_id(here.heap), flags, tell, NULL);
}

static void must_be_clean(hp_heap *heap)
{
	must_be(hp_pool_heap_check(hp_heap_pool(heap), hp_heap_id(heap), 0, complain, NULL), 0);
	must_be(hp_heap_check(heap, HP_HEAP_AUDIT, complain, NULL), 0);
	hp_must_be_sound(hp_heap_pool(heap));
}

/* ---- a heap with something of everything ---- */

static struct table *table_of(hp_heap *heap)
{
	return hp_heap_deref(heap, hp_heap_root(heap));
}

static void put(hp_tx *tx, unsigned bucket, uint64_t key, unsigned length)
{
	hp_heap *heap = hp_heap_of(tx);
	static const char letters[] = "the quick brown fox jumps over the lazy dog, and again over the lazy dog, and again";
	hp_ref name = hp_heap_new_string(tx, letters, length % sizeof letters);
	hp_ref ref = hp_heap_new(tx, &flow_type, 0);
	if (!ref.word) return;
	struct flow *flow = hp_heap_deref(heap, ref);
	flow->key[0] = key;
	flow->key[1] = ~key;
	flow->name.ref = name;
	flow->next.ref = table_of(heap)->bucket[bucket].head.ref;
	hp_heap_set(tx, &table_of(heap)->bucket[bucket].head.ref, ref);
}

static void drop(hp_tx *tx, unsigned bucket)
{
	struct table *table = table_of(hp_heap_of(tx));
	hp_ref head = table->bucket[bucket].head.ref;
	if (head.word)
		hp_heap_set(tx, &table->bucket[bucket].head.ref,
		            ((struct flow *)hp_heap_deref(hp_heap_of(tx), head))->next.ref);
}

static hp_heap *make_heap(hp_pool *pool)
{
	hp_heap *heap;
	hp_tx *tx;
	must_be(hp_heap_create(pool, NULL, NULL, NULL, &heap), 0);
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	must_be(hp_heap_set_root(tx, hp_heap_new(tx, &table_type, BUCKETS)), 0);
	for (unsigned i = 0; i < 4 * BUCKETS; i++) put(tx, i % BUCKETS, i, i);
	must_be(hp_heap_commit(tx), 0);
	return heap;
}

static int setup(void **state)
{
	(void)state;
	here.pool = hp_plain_pool(4 * MIB, 0);
	here.heap = make_heap(here.pool);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	must_be(hp_heap_destroy(here.heap, HP_HEAP_FORCE, 1000), 0);
	hp_must_be_empty(here.pool);
	must_be(hp_pool_detach(here.pool), 0);
	return 0;
}

/* Of everything that the root reaches, as it reads; -1: it cannot be read. */
static uint64_t digest(hp_heap *heap)
{
	uint64_t sum = 0, steps = 0;
	struct table *table = hp_heap_deref_checked(heap, hp_heap_root(heap), &table_type, NULL);
	if (!table || table->n != BUCKETS) return UINT64_MAX;
	for (unsigned b = 0; b < BUCKETS; b++)
		for (hp_ref at = hp_heap_load(&table->bucket[b].head.ref); at.word;) {
			struct flow *flow = hp_heap_deref_checked(heap, at, &flow_type, NULL);
			size_t room;
			if (!flow || flow->key[1] != ~flow->key[0] || ++steps > 100000) return UINT64_MAX;
			struct hp_string *name = hp_heap_deref_checked(heap, flow->name.ref, &hp_string_type, &room);
			if (!name || name->len + 5 > room) return UINT64_MAX;
			sum = (sum ^ flow->key[0] ^ (uint64_t)b << 32) * UINT64_C(0x100000001b3);
			for (uint32_t k = 0; k <= name->len; k++) sum = (sum ^ (uint8_t)name->s[k]) * UINT64_C(0x100000001b3);
			at = hp_heap_load(&flow->next.ref);
		}
	return sum >> 1;
}

/* ---- silence ---- */

static void says_nothing_of_heaps_that_are_sound(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("clean");
	hp_heap *heap = here.heap;
	hp_guard guard[4] = {{0}};
	must_be_clean(heap);
	for (int round = 0; round < (HP_TEST_SANITIZER ? 150 : 600); round++) {
		hp_tx *tx;
		hp_ref value = table_of(heap)->bucket[hp_below(&seed, BUCKETS)].head.ref;
		hp_guard *cell = &guard[hp_below(&seed, 4)];
		switch (hp_below(&seed, 8)) {
		case 0: hp_heap_gc(heap, hp_below(&seed, 2) ? HP_GC_TRIM : 0, 100); break;
		case 1:
			if (!cell->heap)
				must_be(hp_heap_guard(heap, &value, 1, cell), 0);
			else
				must_be(hp_heap_unguard(cell), 0);
			break;
		case 2: /* garbage that waits for us */
			must_be(hp_heap_read_enter(here.pool), 0);
			hp_heap_read_exit(here.pool);
			break;
		default:
			must_be(hp_heap_begin(heap, -1, &tx), 0);
			for (uint64_t n = hp_below(&seed, 40); n; n--) {
				unsigned bucket = (unsigned)hp_below(&seed, BUCKETS);
				switch (hp_below(&seed, 5)) {
				case 0: drop(tx, bucket); break;
				case 1: hp_heap_new_vector(tx, (uint32_t)hp_below(&seed, 9000), hp_heap_root(heap)); break;
				case 2:
					if (hp_below(&seed, 10) == 0) must_be(hp_heap_checkpoint(tx), 0);
					/* fall through */
				default: put(tx, bucket, hp_random(&seed), (unsigned)hp_below(&seed, 80)); break;
				}
			}
			if (hp_below(&seed, 3))
				must(hp_heap_commit(tx) == 0);
			else
				hp_heap_abort(tx);
		}
		if (round % 10 == 0) must_be_clean(heap);
	}
	for (int i = 0; i < 4; i++) hp_heap_unguard(&guard[i]);
	must_be_clean(heap);
}

/* A run over several chunks: every page's word of the map is the heap's, and the chunks that it covers know. */
static void says_nothing_of_values_longer_than_a_chunk(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	hp_heap *heap = make_heap(pool);
	const uint32_t n = 5 * MIB / 8;
	hp_tx *tx;
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	hp_ref root = hp_heap_root(heap), big = hp_heap_new_vector(tx, n, root);
	must_be(hp_heap_set_root(tx, big), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be_clean(heap);
	struct hp_vector *vector = hp_heap_deref(heap, big);
	uint64_t page = hp_pool_offset(pool, vector) / PAGE, last = page + 5 * MIB / PAGE, map = pool->map[last];
	must(last / pool->chunk_pages > page / pool->chunk_pages + 1);
	pool->map[last] = 0;
	must_be(hp_pool_check(pool, NULL, NULL), 1);
	pool->map[last] = map;
	vector->item[n - 1].word ^= 64;
	must_be(hp_pool_check(pool, NULL, NULL), 1);
	vector->item[n - 1] = root;
	must_be_clean(heap);
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	must_be(hp_heap_set_root(tx, root), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_gc(heap, HP_GC_WAIT | HP_GC_TRIM, 1000), 0);
	must_be_clean(heap);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

struct shared {
	uint64_t id;
	_Atomic uint32_t go;
};
static struct shared *shared;

static void write_and_write(const struct child *me, void *arg)
{
	(void)arg;
	hp_heap *heap;
	uint64_t seed = 7;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	must_be(hp_heap_open(here.pool, shared->id, &heap), 0);
	hp_guard guard;
	hp_ref kept = table_of(heap)->bucket[0].head.ref;
	must_be(hp_heap_guard(heap, &kept, 1, &guard), 0);
	child_say(me);
	for (;;) {
		hp_tx *tx;
		must_be(hp_heap_begin(heap, -1, &tx), 0);
		for (int n = 0; n < 30; n++) {
			unsigned bucket = (unsigned)hp_below(&seed, BUCKETS);
			if (hp_below(&seed, 2))
				put(tx, bucket, hp_random(&seed), (unsigned)hp_below(&seed, 80));
			else
				drop(tx, bucket);
			if (hp_below(&seed, 20) == 0) hp_heap_new_vector(tx, 5000, hp_heap_root(heap));
		}
		if (hp_below(&seed, 3))
			must_be(hp_heap_commit(tx), 0);
		else
			hp_heap_abort(tx);
		if (hp_below(&seed, 8) == 0) hp_heap_gc(heap, HP_GC_TRIM, 0);
	}
}

/* Stopped and killed anywhere: nothing is a finding, before the recovery and after it. */
static void says_nothing_of_heaps_in_motion(void **state)
{
	(void)state;
	shared->id = hp_heap_id(here.heap);
	for (int round = 0; round < (HP_TEST_SANITIZER ? 6 : 15); round++) {
		struct child child = child_start(write_and_write, NULL);
		must(child_hear(&child));
		for (int i = 0; i < 6; i++) hp_must_be_sound(here.pool);
		must_be(kill(child.pid, SIGSTOP), 0);
		child_await_stop(&child);
		hp_must_be_sound(here.pool);
		must_be(hp_pool_heap_check(here.pool, shared->id, HP_HEAP_AUDIT, complain, NULL), 0);
		must_be(kill(child.pid, SIGKILL), 0);
		child_end(&child);
		hp_must_be_sound(here.pool);
		must_be(hp_pool_recover(here.pool), 1);
		hp_must_be_sound(here.pool);
		must_be_clean(here.heap);
		must(digest(here.heap) != UINT64_MAX);
	}
}

/* ---- what is found ---- */

static struct heap_slab *slab_of(const void *value, uint64_t *page)
{
	*page = hp_pool_offset(here.pool, value) / PAGE;
	*page -= (here.pool->map[*page] & HEAP_BACK_END) - 1;
	return heap_slab_at(here.pool, *page);
}

/* Something is there instead, that code is told, and the pool's checker tells it, too. */
#define must_find(word, instead, expected) \
	do { \
		__typeof__(*(word) + 0) was_ = *(word); \
		*(word) = (__typeof__(was_))(instead); \
		int found_ = findings(0); \
		if (found_ < 1 || !told.of[expected]) { \
			fprintf(stderr, "%s = %s: %d findings, the last %d: %s\n", #word, #instead, found_, (int)told.last.code, \
			        told.text); \
			abort(); \
		} \
		must(hp_pool_check(here.pool, NULL, NULL) >= 1); \
		*(word) = was_; \
		must_be(findings(0), 0); \
	} while (0)

static void finds_every_kind_of_fault(void **state)
{
	(void)state;
	must_be(hp_heap_gc(here.heap, HP_GC_WAIT, 1000), 0);
	struct heap_entry *entry = here.heap->entry;
	struct table *table = table_of(here.heap);
	struct flow *flow = hp_heap_deref(here.heap, table->bucket[3].head.ref);
	struct hp_string *name = hp_heap_deref(here.heap, flow->name.ref);
	uint64_t page, string_page, table_page;
	struct heap_slab *slab = slab_of(flow, &page);
	slab_of(name, &string_page);
	struct heap_slab *tables = slab_of(table, &table_page);
	struct heap_type_entry *types = heap_type_entry(here.heap, 0), *flows = &types[atomic_load(&slab->type)];
	uint32_t i = (uint32_t)((hp_pool_offset(here.pool, flow) - page * PAGE) / atomic_load(&slab->size));
	uint64_t slot = (uint64_t)(hp_thread_current->slot - here.pool->slots);
	hp_guard guard;

	must_find(&entry->log_n, 1, HP_HEAP_BAD_ENTRY);
	must_find(&entry->log_n, 1000000, HP_HEAP_BAD_LOG);
	must_find(&entry->version, entry->version + 1, HP_HEAP_BAD_ENTRY);
	must_find(&entry->lock, 0x7ff0001, HP_HEAP_BAD_ENTRY);
	must_find(&entry->phase, HEAP_SWEEP, HP_HEAP_BAD_ENTRY);
	must_find(&entry->phase, 9, HP_HEAP_BAD_ENTRY);
	must_find(&entry->phase, heap_phase_make(HEAP_CONDEMNED, 1000), HP_HEAP_BAD_ENTRY);
	must_find(&entry->run, 1u << 30, HP_HEAP_BAD_ENTRY);
	must_find(&entry->limit, 0, HP_HEAP_BAD_ENTRY);
	must_find(&entry->limit, 1, HP_HEAP_BAD_COUNT);
	must_find(&entry->opened[60], 4, HP_HEAP_BAD_ENTRY);
	must_find(&entry->pages, entry->pages + 1, HP_HEAP_BAD_COUNT);
	must_find(&entry->types, 2000, HP_HEAP_BAD_ENTRY);
	must_find(&entry->types, entry->types + 1, HP_HEAP_BAD_TYPE);
	must_find(&entry->types, entry->types - 1, HP_HEAP_BAD_COUNT);
	must_find(&entry->type_run[0], page + 1, HP_HEAP_BAD_RUN);
	must_find(&entry->type_run[5], 7, HP_HEAP_BAD_TYPE);
	must_find(&entry->log[0], 0, HP_HEAP_BAD_LOG);
	must_find(&entry->log[1], entry->log[0], HP_HEAP_BAD_LOG);
	must_find(&entry->log[1], page + 1, HP_HEAP_BAD_LOG);
	must_find(&entry->root, entry->root + 16, HP_HEAP_BAD_REFERENCE);
	must_find(&entry->cycle, atomic_load(&slab->mark_stamp) - 1, HP_HEAP_BAD_SLAB);
	must_find(&entry->number, atomic_load(&slab->born_stamp) - 1, HP_HEAP_BAD_SLAB);

	must_find(&types[0].shape.size, types[0].shape.size + 8, HP_HEAP_BAD_TYPE);
	must_find(&types[0].shape.name[1], '!', HP_HEAP_BAD_TYPE);
	must_find(&flows->list[0], 0, HP_HEAP_BAD_COUNT);
	must_find(&flows->list[0], string_page + 1, HP_HEAP_BAD_RUN);
	must_find(&flows->list[0], UINT32_MAX, HP_HEAP_BAD_RUN);
	must_find(&flows->list[3], page + 1, HP_HEAP_BAD_SLAB);

	must_find(&heap_mark_at(here.pool, page)->tag, slab->tag ^ 0x100, HP_HEAP_BAD_RUN);
	must_find(&heap_mark_at(here.pool, page)->kind, HEAP_LOG, HP_HEAP_BAD_RUN);
	must_find(&slab->type, slab->type + 1, HP_HEAP_BAD_SLAB);
	must_find(&slab->class, 4, HP_HEAP_BAD_SLAB);
	must_find(&slab->objects, slab->objects + 1, HP_HEAP_BAD_SLAB);
	must_find(&slab->objects, UINT32_MAX, HP_HEAP_BAD_SLAB);
	must_find(&slab->reciprocal, slab->reciprocal + 1, HP_HEAP_BAD_SLAB);
	must_find(&slab->size, slab->size + 16, HP_HEAP_BAD_SLAB);
	must_find(&slab->size, 0, HP_HEAP_BAD_SLAB);
	must_find(&slab->pages, slab->pages + 1, HP_HEAP_BAD_RUN);
	must_find(&slab->next, page + 1, HP_HEAP_BAD_RUN);                  /* a ring */
	must_find(&tables->bits[0].n, UINT64_C(1) << 63, HP_HEAP_BAD_SLAB); /* has nine values */
	must_find(&tables->bits[0].a, UINT64_C(1) << 9 | 1, HP_HEAP_BAD_SLAB);
	must_find(&slab->bits[i / 64].a, slab->bits[i / 64].a & ~(UINT64_C(1) << i % 64), HP_HEAP_BAD_REFERENCE);
	must_find(&here.pool->map[string_page + 1], 0, HP_HEAP_BAD_MAP);
	must_find(&here.pool->map[page], here.pool->map[page] | UINT64_C(31) << HEAP_COLOUR_SHIFT, HP_HEAP_BAD_MAP);
	must_find(&here.pool->map[page], here.pool->map[page] + 1, HP_HEAP_BAD_MAP);

	must_find(&flow->next.ref.word, (uintptr_t)name, HP_HEAP_BAD_REFERENCE);
	must_find(&flow->next.ref.word, flow->next.ref.word ^ UINT64_C(1) << 50, HP_HEAP_BAD_REFERENCE);
	must_find(&flow->next.ref.word, flow->next.ref.word + 8, HP_HEAP_BAD_REFERENCE);
	must_find(&flow->next.ref.word, here.heap->tag | 0xffffffffff0, HP_HEAP_BAD_REFERENCE);
	must_find(&flow->next.ref.word, flow->name.ref.word, HP_HEAP_BAD_TARGET);
	must_find(&table->n, BUCKETS - 1, HP_HEAP_BAD_TAIL);
	must_find(&table->n, 1u << 31, HP_HEAP_BAD_TAIL);
	must_find(&name->len, 1000, HP_HEAP_BAD_STRING);
	must_find(&name->s[name->len], 'x', HP_HEAP_BAD_STRING);
	must_be(hp_heap_guard(here.heap, &table->bucket[3].head.ref, 1, &guard), 0);
	must_find(&here.pool->guards[slot * HEAP_GUARDS], here.heap->tag | 64, HP_HEAP_BAD_GUARD);
	must_be(hp_heap_unguard(&guard), 0);
}

/* Runs that no heap names; a free slot's guard; a condemned value. */
static void finds_what_only_the_whole_shows(void **state)
{
	(void)state;
	struct heap_entry *entry = here.heap->entry;
	uint64_t page, word = entry->word;
	struct heap_slab *slab = slab_of(table_of(here.heap), &page);
	entry->word = heap_word(HEAP_FREE, here.heap->generation + 1);
	must(hp_pool_check(here.pool, NULL, NULL) > 0); /* all its runs are lost */
	entry->word = heap_word(HEAP_ENDING, here.heap->generation);
	must(hp_pool_check(here.pool, NULL, NULL) > 0);
	entry->word = heap_word(HEAP_GONE, here.heap->generation);
	must(hp_pool_check(here.pool, NULL, NULL) > 0);
	entry->word = heap_word((enum heap_state)7, here.heap->generation);
	must(hp_pool_check(here.pool, NULL, NULL) > 0);
	entry->word = word;
	hp_must_be_sound(here.pool);

	uint32_t i = pool_slots_top(here.pool);
	atomic_store(&here.pool->header->slots_top, i + 1);
	here.pool->slots[i].guards = 1;
	here.pool->guards[i * HEAP_GUARDS] = hp_heap_root(here.heap).word;
	must_be(findings(0), 1);
	must_be(told.last.code, HP_HEAP_BAD_GUARD);
	here.pool->guards[i * HEAP_GUARDS] |= HEAP_RELEASED; /* that is how the dead leave them */
	must_be(findings(0), 0);
	here.pool->guards[i * HEAP_GUARDS] = 0;

	/* found garbage waits for a reader, and somebody takes a mark away */
	hp_tx *tx;
	struct flow *flow = hp_heap_deref(here.heap, table_of(here.heap)->bucket[0].head.ref);
	must_be(hp_heap_begin(here.heap, 0, &tx), 0);
	struct pool_slot *reader = &here.pool->slots[i];
	reader->word = slot_make(SLOT_LIVE, 1, here.pool->record, here.pool->record_generation);
	reader->section = 1; /* another thread, in a section since long ago */
	must_be(heap_collect(here.heap, 0), -EAGAIN);
	must_be(hp_heap_commit(tx), 0);
	must_be(findings(0), 0);
	slab = slab_of(flow, &page);
	uint32_t object = (uint32_t)((hp_pool_offset(here.pool, flow) - page * PAGE) / slab->size);
	must_find(&slab->bits[object / 64].m, slab->bits[object / 64].m & ~(UINT64_C(1) << object % 64), HP_HEAP_BAD_MARK);
	must_find(&slab->mark_stamp, 0, HP_HEAP_BAD_MARK);
	reader->section = 0;
	reader->word = slot_make(SLOT_FREE, 1, 0, 0);
	must_be(hp_heap_gc(here.heap, HP_GC_WAIT, 1000), 0);
	must_be_clean(here.heap);
}

/* A heap that is broken is not locked, and the report is bounded. */
static void bounds_what_it_does(void **state)
{
	(void)state;
	hp_tx *tx;
	uint64_t page;
	must_be(hp_heap_begin(here.heap, -1, &tx), 0);
	hp_ref big = hp_heap_new_vector(tx, 3000, hp_heap_root(here.heap));
	must_be(hp_heap_set_root(tx, big), 0);
	must_be(hp_heap_commit(tx), 0);
	struct hp_vector *vector = hp_heap_deref(here.heap, big);
	hp_ref was = vector->item[0];
	for (uint32_t i = 0; i < vector->len; i++) vector->item[i].word = 5;
	must_be(findings(0), 1000);
	must_be(told.of[HP_HEAP_BAD_REFERENCE], 1000);
	for (uint32_t i = 0; i < vector->len; i++) vector->item[i] = was;
	must_be_clean(here.heap);
	struct heap_slab *slab = slab_of(vector, &page);
	uint64_t number = here.heap->entry->number;
	slab->objects = UINT32_MAX; /* a writer would look for so many bits */
	must(hp_heap_check(here.heap, 0, tell, NULL) > 0);
	slab->objects = 1;
	must_be(here.heap->entry->number, number);
	must_be(hp_pool_heap_check(here.pool, hp_heap_id(here.heap) + (1 << 16), 0, NULL, NULL), -ESTALE);
	must_be(hp_pool_heap_check(here.pool, 0, 0, NULL, NULL), -EINVAL);
	must_be(hp_heap_check(here.heap, 64, NULL, NULL), -EINVAL);
	must_be(hp_heap_begin(here.heap, -1, &tx), 0);
	must_be(hp_heap_check(here.heap, 0, NULL, NULL), -EDEADLK);
	/* what a writer may be at is not looked at */
	vector->len--;
	here.heap->entry->pages++;
	must_be(findings(0), 0);
	here.heap->entry->pages--;
	vector->len++;
	hp_heap_abort(tx);
	must_be(findings(0), 0);
}

/* A member that the type does not list shows as one line, with its share of the values. */
static void audit_finds_a_forgotten_member(void **state)
{
	(void)state;
	hp_tx *tx;
	hp_ref list = HP_NONE;
	must_be(hp_heap_begin(here.heap, -1, &tx), 0);
	for (int i = 0; i < 12; i++) {
		hp_ref new = hp_heap_new(tx, &forgetful_type, 0);
		struct forgetful *value = hp_heap_deref(here.heap, new);
		value->next.ref = list;
		value->number = (uint64_t)i;
		value->hidden.ref = hp_heap_new_string(tx, "kept by nobody", 14);
		list = new;
	}
	must_be(hp_heap_set_root(tx, list), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(findings(0), 0);
	must_be(findings(HP_HEAP_AUDIT), 1);
	must_be(told.last.code, HP_HEAP_UNLISTED);
	must_be(told.last.offset, offsetof(struct forgetful, hidden));
	if (!strstr(told.text, "offset 16 of forgetful_type looks like an unlisted reference in 100 %"))
		fail_msg("says: %s", told.text);
	/* and as the writer; and in elements of a tail */
	must_be(hp_heap_check(here.heap, HP_HEAP_AUDIT, tell, NULL), 1);
	must_be(hp_heap_begin(here.heap, -1, &tx), 0);
	hp_ref bytes = hp_heap_new(tx, &hp_bytes_type, 4000);
	memcpy((char *)hp_heap_deref(here.heap, bytes) + 160, &list, sizeof list);
	must_be(hp_heap_set_root(tx, hp_heap_box(tx, bytes)), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(findings(HP_HEAP_AUDIT), 1);
	must_be(told.last.code, HP_HEAP_UNLISTED);
	must_be(told.last.offset, 160);
	/* what nothing reaches is counted by type: the table and what it had, and the list */
	must_be(findings(HP_HEAP_LEAKS), 4);
	must_be(told.of[HP_HEAP_UNREACHED], 4);
	must_be(hp_heap_gc(here.heap, HP_GC_WAIT, 1000), 0);
	must_be(findings(HP_HEAP_LEAKS), 0);
}

/* A reference of another heap: refused; written behind our back it is passed over, and the other heap has no harm. */
static void another_heap_is_not_touched(void **state)
{
	(void)state;
	hp_heap *other = make_heap(here.pool);
	uint64_t before = digest(other);
	hp_tx *tx;
	struct flow *flow = hp_heap_deref(here.heap, table_of(here.heap)->bucket[5].head.ref);
	must_be(hp_heap_begin(here.heap, -1, &tx), 0);
	must_be(hp_heap_set(tx, &flow->next.ref, hp_heap_root(other)), -EXDEV);
	hp_heap_abort(tx);
	hp_ref was = flow->next.ref;
	flow->next.ref = table_of(other)->bucket[7].head.ref;
	must_be(findings(0), 1);
	must_be(told.last.code, HP_HEAP_BAD_REFERENCE);
	must(strstr(told.text, "another heap"));
	must_be(told.last.word, flow->next.ref.word);
	must_be(told.last.offset, offsetof(struct flow, next));
	must_be(hp_heap_gc(here.heap, HP_GC_WAIT, 1000), 0);
	must(here.heap->bad >= 1);
	must_be(hp_heap_gc(other, HP_GC_WAIT, 1000), 0);
	must_be(digest(other), before);
	must_be(hp_pool_heap_check(here.pool, hp_heap_id(other), 0, complain, NULL), 0);
	flow->next.ref = HP_NONE; /* what it named has been reclaimed, since nothing else did */
	(void)was;
	must_be_clean(here.heap);
	must_be(hp_heap_destroy(other, 0, 1000), 0);
	must_be_clean(here.heap);
}

/* ---- random faults ---- */

struct part {
	void *start;
	size_t bytes;
};

/* All that a working process changes of a pool, to be put back. */
static unsigned parts_of(hp_pool *pool, struct part part[16])
{
	uint32_t slots = 64;
	const struct part all[] = {
		{pool->header, sizeof *pool->header},
		{pool->records, 64 * sizeof *pool->records},
		{pool->slots, slots * sizeof *pool->slots},
		{pool->chunks, pool->chunk_count * sizeof *pool->chunks},
		{(void *)pool->hints, pool->chunk_count},
		{pool->units, pool->chunk_count * sizeof *pool->units},
		{(void *)pool->map, pool->capacity / PAGE * sizeof *pool->map},
		{(void *)pool->summary, pool->chunk_count * sizeof *pool->summary},
		{pool->slabs, pool->capacity / PAGE * sizeof *pool->slabs},
		{pool->heaps, 4 * sizeof *pool->heaps},
		{(void *)pool->guards, (size_t)slots * HEAP_GUARDS * 8},
		{pool->base, MIB}, /* what is in use of it */
	};
	memcpy(part, all, sizeof all);
	return sizeof all / sizeof *all;
}

static char *save(hp_pool *pool, char *to, bool back)
{
	struct part part[16];
	unsigned n = parts_of(pool, part);
	size_t bytes = 0;
	for (unsigned i = 0; i < n; i++) bytes += part[i].bytes;
	if (!to) must(to = malloc(bytes));
	bytes = 0;
	for (unsigned i = 0; i < n; i++) {
		if (back)
			memcpy(part[i].start, to + bytes, part[i].bytes);
		else
			memcpy(to + bytes, part[i].start, part[i].bytes);
		bytes += part[i].bytes;
	}
	return to;
}

enum where { IN_ENTRY, IN_DESCRIPTOR, IN_BITS, IN_MAP, IN_TYPES, IN_REFERENCE, IN_GUARD, PLACES };
static const char *const where_names[PLACES] = {"entry", "descriptor", "bits", "map", "types", "reference", "guard"};

struct fault {
	enum where where;
	uint64_t *word;
	uint64_t was, is;
	const struct hp_type *target; /* of a reference */
};

static struct fault choose(uint64_t *seed)
{
	struct table *table = table_of(here.heap);
	struct flow *flow;
	do flow = hp_heap_deref_checked(here.heap, table->bucket[hp_below(seed, BUCKETS)].head.ref, &flow_type, NULL);
	while (!flow);
	struct hp_string *name = hp_heap_deref(here.heap, flow->name.ref);
	const void *const some[] = {table, flow, name};
	uint64_t page, which = hp_below(seed, 3);
	struct heap_slab *slab = slab_of(some[which], &page);
	struct fault fault = {.where = (enum where)hp_below(seed, PLACES)};
	switch (fault.where) {
	case IN_ENTRY: fault.word = (uint64_t *)here.heap->entry + hp_below(seed, sizeof(struct heap_entry) / 8); break;
	case IN_DESCRIPTOR: fault.word = (uint64_t *)(void *)slab + hp_below(seed, 8); break;
	case IN_BITS: fault.word = (uint64_t *)(void *)slab->bits + hp_below(seed, heap_words(slab) * 3); break;
	case IN_MAP: fault.word = (uint64_t *)(void *)&here.pool->map[page + hp_below(seed, slab->pages)]; break;
	case IN_TYPES:
		fault.word = (uint64_t *)(void *)heap_type_entry(here.heap, (uint32_t)hp_below(seed, here.heap->entry->types)) +
		             hp_below(seed, sizeof(struct heap_type_entry) / 8);
		break;
	case IN_REFERENCE:
		fault.target = which == 2 ? &hp_string_type : &flow_type;
		fault.word = which == 0   ? &table->bucket[hp_below(seed, BUCKETS)].head.ref.word
		             : which == 1 ? &flow->next.ref.word
		                          : &flow->name.ref.word;
		break;
	default:
		fault.word =
			(uint64_t *)(void *)&here.pool->guards[(size_t)(hp_thread_current->slot - here.pool->slots) * HEAP_GUARDS];
	}
	fault.was = *fault.word;
	do switch (hp_below(seed, 4)) {
		case 0: fault.is = fault.was ^ UINT64_C(1) << hp_below(seed, 64); break;
		case 1: fault.is = fault.was + (hp_below(seed, 2) ? 1 : 16); break;
		case 2: fault.is = hp_below(seed, 2) ? 0 : hp_random(seed); break;
		default: fault.is = fault.was ^ hp_random(seed) << 32 * hp_below(seed, 2) >> 32 * hp_below(seed, 2);
		}
	while (fault.is == fault.was);
	return fault;
}

/* Works with the heap as a process that knows nothing of the fault. same: the graph must read as before. */
static int goes_on(const struct fault *fault, uint64_t before)
{
	hp_heap *heap;
	hp_tx *tx;
	/* a root, or reference, that names another value of its type says something else, and breaks nothing */
	bool same = fault->where != IN_REFERENCE && fault->word != (uint64_t *)(void *)&here.heap->entry->root;
	uint64_t id = (uint64_t)heap_generation(here.heap->entry->word) << 16 |
	              here.heap->index; /* it may be called otherwise */
	alarm(20);
	must_be(hp_heap_open(here.pool, id, &heap), 0);
	if (same) must_be(digest(heap), before);
	must_be(hp_heap_begin(heap, 1000, &tx), 0);
	if (same) {
		put(tx, 1, 77, 20);
		drop(tx, 1);
		put(tx, 2, 78, 30);
	}
	hp_heap_new_vector(tx, 2000, HP_NONE);
	hp_heap_abort(tx);
	if (same) must_be(digest(heap), before);
	must_be(hp_heap_gc(heap, HP_GC_WAIT | HP_GC_TRIM, 1000), 0);
	if (same) must_be(digest(heap), before);
	must_be(hp_heap_check(heap, 0, complain, NULL), 0);
	hp_must_be_sound(here.pool);
	return 0;
}

static int ignore_text(void *arg, const char *text, size_t length)
{
	(void)arg, (void)text, (void)length;
	return 0;
}

static void finds_faults_or_they_are_harmless(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("faults"), before = digest(here.heap);
	hp_guard guard;
	hp_ref root = hp_heap_root(here.heap);
	unsigned found[PLACES] = {0}, harmless[PLACES] = {0}, all = 0;
	must_be(hp_heap_guard(here.heap, &root, 1, &guard), 0);
	must_be(hp_heap_gc(here.heap, HP_GC_WAIT, 1000), 0);
	must_be_clean(here.heap);
	shared->id = hp_heap_id(here.heap);
	char *saved = save(here.pool, NULL, false);
	for (int k = 0; k < 400; k++) {
		struct fault fault = choose(&seed);
		*fault.word = fault.is;
		int n = hp_pool_check(here.pool, NULL, NULL);
		must(n >= 0);
		int in_heap = hp_pool_heap_check(here.pool, shared->id, HP_HEAP_AUDIT | HP_HEAP_LEAKS, tell, NULL);
		must(in_heap >= 0 || in_heap == -ESTALE);
		hp_heap_dump(here.pool, shared->id, 200, ignore_text, NULL);
		hp_pool_dump(here.pool, ignore_text, NULL);
		if (n > 0) {
			found[fault.where]++;
		} else {
			pid_t pid = hp_fork();
			if (pid == 0) _exit(goes_on(&fault, before));
			int status = hp_wait_for(pid);
			if (status)
				fail_msg("not found, and it did harm (%d): %s word %zu: 0x%llx instead of 0x%llx", status,
				         where_names[fault.where],
				         (size_t)(fault.word -
				                  (uint64_t *)(fault.where == IN_ENTRY ? (void *)here.heap->entry : here.pool->base)),
				         (unsigned long long)fault.is, (unsigned long long)fault.was);
			harmless[fault.where]++;
		}
		all++;
		save(here.pool, saved, true);
	}
	free(saved);
	for (int i = 0; i < PLACES; i++) {
		print_message("%s: %u found, %u harmless\n", where_names[i], found[i], harmless[i]);
		assert_true(found[i] > 0);
	}
	assert_true(all >= 200);
	must_be_clean(here.heap);
	must_be(digest(here.heap), before);
	must_be(hp_heap_unguard(&guard), 0);
}

/* ---- looking from outside ---- */

struct text {
	char text[1 << 16];
	size_t length;
	int lines, stop_at;
};

static int write_text(void *arg, const char *text, size_t length)
{
	struct text *to = arg;
	must(to->length + length < sizeof to->text);
	memcpy(to->text + to->length, text, length);
	to->length += length;
	to->text[to->length] = 0;
	to->lines++;
	return to->stop_at && to->lines == to->stop_at ? 42 : 0;
}

static int see(void *arg, const struct hp_heap_seen *heap)
{
	*(struct hp_heap_seen *)arg = *heap;
	return 0;
}

/* The graph as text; and all of it through an observer, who has no data mapped. */
static void dumps_the_graph(void **state)
{
	(void)state;
	static struct text text;
	int fds[3];
	hp_pool *observer;
	struct hp_heap_stat stat;
	struct hp_heap_seen seen;
	must_be(hp_pool_fds(here.pool, fds), 0);
	must_be(hp_pool_observe(fds, &observer), 0);
	hp_pool *const pools[] = {here.pool, observer};
	for (int i = 0; i < 2; i++) {
		memset(&text, 0, sizeof text);
		must_be(hp_heap_dump(pools[i], hp_heap_id(here.heap), 100, write_text, &text), 0);
		must_be(text.lines, 101);
		must(strstr(text.text, "type flow_type: 32 bytes, 192 values\n  +16 -> flow_type\n  +24 -> hp_string_type\n"));
		must(strstr(text.text, "table_type of 448 bytes, 48 elements\n  [0] +8 -> 0x"));
		must(strstr(text.text, "and more\n"));
		memset(&text, 0, sizeof text);
		text.stop_at = 3;
		must_be(hp_heap_dump(pools[i], hp_heap_id(here.heap), 1000, write_text, &text), 42);
		must_be(text.lines, 3);
		memset(&text, 0, sizeof text);
		must_be(hp_heap_dump(pools[i], hp_heap_id(here.heap), 1000, write_text, &text), 0);
		must(strstr(text.text, "\"the quick brown fox jumps over the lazy \"..."));
		must(!strstr(text.text, "and more"));
		memset(&text, 0, sizeof text);
		must_be(hp_pool_dump(pools[i], write_text, &text), 0);
		must(strstr(text.text, "heap 1: root 0x"));
		must(strstr(text.text, "undo log of heap 1"));
		must(strstr(text.text, "values of type"));
		must_be(hp_pool_heaps(pools[i], see, &seen), 0);
		must_be(hp_pool_check(pools[i], hp_print_finding, NULL), 0);
		must_be(hp_pool_heap_check(pools[i], hp_heap_id(here.heap), HP_HEAP_AUDIT, complain, NULL), 0);
		must_be(hp_heap_dump(pools[i], hp_heap_id(here.heap) + 1, 1, write_text, &text), -ESTALE);
	}
	must_be(hp_heap_stat(here.heap, &stat), 0);
	must_be(seen.id, hp_heap_id(here.heap));
	must_be(seen.root.word, hp_heap_root(here.heap).word);
	must_be(seen.values, stat.values);
	must_be(seen.live, stat.live);
	must_be(seen.held, stat.held);
	must_be(seen.slabs, stat.slabs);
	must_be(seen.log, stat.log);
	must_be(seen.limit, stat.limit);
	must_be(seen.types, 3);
	must_be(hp_stats(here.pool).heaps, 1);
	must_be(hp_stats(here.pool).live_blocks, 0);
	must_be(hp_stats(here.pool).heap_bytes, stat.held + stat.log + HEAP_TYPE_PAGES * PAGE);
	must_be(hp_stats(here.pool).committed - hp_stats(here.pool).free, hp_stats(here.pool).heap_bytes);
	must_be(hp_pool_detach(observer), 0);
}

int main(void)
{
	shared = hp_shared(4096);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(says_nothing_of_heaps_that_are_sound, setup, teardown),
		cmocka_unit_test(says_nothing_of_values_longer_than_a_chunk),
		cmocka_unit_test_setup_teardown(says_nothing_of_heaps_in_motion, setup, teardown),
		cmocka_unit_test_setup_teardown(finds_every_kind_of_fault, setup, teardown),
		cmocka_unit_test_setup_teardown(finds_what_only_the_whole_shows, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_what_it_does, setup, teardown),
		cmocka_unit_test_setup_teardown(audit_finds_a_forgotten_member, setup, teardown),
		cmocka_unit_test_setup_teardown(another_heap_is_not_touched, setup, teardown),
		cmocka_unit_test_setup_teardown(finds_faults_or_they_are_harmless, setup, teardown),
		cmocka_unit_test_setup_teardown(dumps_the_graph, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
