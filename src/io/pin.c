/* See io/pin.h. A table belongs to one process at a time: the ring's, or the one that closes it after that has died. A step of
 * it is written down before it is made, and its mark tells afterwards whether it was (pool/lent.h), so that whoever takes over
 * goes on where it was. */
#include "io/pin.h"
#include "cache/cache.h"
#include "malloc/publish.h"
#include "os/os.h"
#include "page/page.h"
#include "pool/create.h"
#include "pool/layers.h"
#include "pool/lent.h"
#include "pool/record.h"
#include "pool/recover.h"
#include "slab/lend.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define RUN 0xfffu /* in the place of an object's number: a run of pages */
#define BUSY_TRIES 3
#define NEAR (UINT64_C(1) << 20) /* no slab is larger */
#define CLOSE_NS 1000000000      /* the kernel lets go of a ring within milliseconds; if not, others see to it later */

struct pin_table {
	hp_pool *pool;
	struct pool_ring *ring;
	uint32_t number, pins;
	struct pin_entry *entry;
};

/* {page:48, object:12, state:4} */
static uint64_t block_make(uint64_t page, unsigned index, enum pin_state state)
{
	return page << 16 | (uint64_t)index << 4 | state;
}
static uint64_t block_page(uint64_t block)
{
	return block >> 16;
}
static unsigned block_index(uint64_t block)
{
	return block >> 4 & 0xfff;
}
static enum pin_state block_state(uint64_t block)
{
	return (enum pin_state)(block & 15);
}

/* Others can write where it stands. */
static bool sensible(const hp_pool *pool, uint64_t block, unsigned count)
{
	return block_page(block) < pool->capacity / HP_PAGE_SIZE && count <= 64 &&
	       (block_index(block) == RUN ? count <= 1 : block_index(block) + count <= SLAB_OBJECTS);
}

static uint32_t life_byte(uint32_t ring)
{
	return POOL_MAX_RECORDS + ring;
}

uint32_t pin_rings_top(const hp_pool *pool)
{
	uint32_t top = atomic_load_explicit(&pool->header->rings_top, memory_order_acquire);
	return top < POOL_RINGS ? top : POOL_RINGS;
}

/* ---- the table's pages ---- */

/* In the descriptor of its first page: whose table it is. */
static uint64_t tag_of(uint32_t number, uint32_t generation)
{
	return UINT64_C(0x70696e) << 40 | (uint64_t)number << 24 | generation;
}

struct making {
	struct pool_ring *ring;
	uint32_t number, generation;
	size_t bytes;
};

static void prepare(struct participant *me, const struct page_want *want, uint64_t page)
{
	const struct making *making = want->arg;
	pool_control_populate_slabs(me->pool, page, 1);
	memset(me->pool->base + page * HP_PAGE_SIZE, 0, making->bytes);
	atomic_store_explicit(&me->pool->slabs[page].a[0], tag_of(making->number, making->generation),
	                      memory_order_relaxed);
	/* commit: if the run becomes live, it is the ring's */
	atomic_store_explicit(&making->ring->table, page + 1, memory_order_release);
}

static int make_table(struct pin_table *table, uint32_t generation)
{
	int error;
	int64_t page;
	hp_pool *pool = table->pool;
	struct participant *me = participant_get(pool, &error);
	struct making making = {table->ring, table->number, generation, table->pins * sizeof(struct pin_entry)};
	struct page_want want = {.pages = (making.bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE,
	                         .node = -1,
	                         .type = PAGE_TYPE_PINS,
	                         .prepare = prepare,
	                         .arg = &making};
	if (!me) return error;
	if (want.pages > pool->capacity / HP_PAGE_SIZE) return -ENOMEM;
	participant_hold(me);
	error = page_search(me, &want, &page);
	participant_let_go(me);
	if (error == 0) table->entry = (struct pin_entry *)(void *)(pool->base + page * HP_PAGE_SIZE);
	return error;
}

/* Of the ring that has that generation; false: it never got one. */
static bool find_table(struct pin_table *table, uint32_t generation)
{
	hp_pool *pool = table->pool;
	uint64_t page1 = atomic_load_explicit(&table->ring->table, memory_order_acquire), page = page1 - 1;
	uint32_t chunk = (uint32_t)(page >> pool->page_shift_chunk);
	unsigned i = (unsigned)page & (pool->chunk_pages - 1);
	if (!page1 || page >= pool->capacity / HP_PAGE_SIZE || chunk >= pool_top(pool) ||
	    !parity_live(&pool->units[chunk], i))
		return false;
	unsigned len = atomic_load_explicit(&pool->units[chunk].len[i], memory_order_acquire);
	table->entry = (struct pin_entry *)(void *)(pool->base + page * HP_PAGE_SIZE);
	table->pins = atomic_load_explicit(&table->ring->pins, memory_order_relaxed);
	return (len & PARITY_TYPE_MASK) == PAGE_TYPE_PINS &&
	       atomic_load_explicit(&pool->slabs[page].a[0], memory_order_acquire) == tag_of(table->number, generation) &&
	       table->pins <= page_run(pool, chunk, i) * (HP_PAGE_SIZE / sizeof(struct pin_entry));
}

/* ---- pins ---- */

static struct lent_place place_of(const hp_pool *pool, uint64_t block, unsigned i)
{
	return lent_place(pool, block_page(block), block_index(block) == RUN ? 0 : block_index(block) + i);
}

/* Of the i-th object. */
static struct lent_step step_of(struct lent_step first, unsigned i)
{
	return (struct lent_step){first.ring, first.number + i * LENT_STEPS_EACH};
}

static struct lent_step noted_step(const struct pin_table *table, const struct pin_entry *entry)
{
	return (struct lent_step){table->number, atomic_load_explicit(&entry->op, memory_order_relaxed)};
}

static int lend(hp_pool *pool, uint64_t block, unsigned i, uint64_t natural, struct lent_step first)
{
	uint64_t page = block_page(block);
	struct lent_step step = step_of(first, i);
	return block_index(block) == RUN
	           ? page_lend(pool, page, step)
	           : slab_lend(pool, &pool->slabs[page], block_index(block) + i, natural >> i & 1, step);
}

static void unlend(hp_pool *pool, uint64_t block, unsigned i, uint64_t natural, struct lent_step first)
{
	uint64_t page = block_page(block);
	struct lent_step step = step_of(first, i);
	if (block_index(block) == RUN)
		page_unlend(pool, page, step);
	else
		slab_unlend(pool, &pool->slabs[page], block_index(block) + i, natural >> i & 1, step);
}

/* Numbers for the steps on these objects that nothing in sight can be mistaken for: the first. */
static struct lent_step number(struct pin_table *table, struct pin_entry *entry, uint64_t block, unsigned count)
{
	struct lent_step first = {table->number, atomic_load_explicit(&table->ring->op, memory_order_relaxed) + 1};
	for (unsigned i = 0; i < count;) {
		unsigned seen = lent_seen(table->pool, place_of(table->pool, block, i), step_of(first, i), LENT_STEPS_EACH);
		first.number += seen ? i * LENT_STEPS_EACH + seen : 0;
		i = unlikely(seen) ? 0 : i + 1; /* again from the first */
	}
	atomic_store_explicit(&table->ring->op, first.number + count * LENT_STEPS_EACH - 1, memory_order_relaxed);
	atomic_store_explicit(&entry->op, first.number, memory_order_relaxed);
	return first;
}

static void set_state(struct pin_entry *entry, uint64_t block, enum pin_state state)
{
	atomic_store_explicit(&entry->block, (block & ~UINT64_C(15)) | state, memory_order_release);
}

static void set_progress(struct pin_entry *entry, unsigned i)
{
	atomic_store_explicit(&entry->progress, (uint16_t)i, memory_order_release);
}

static void clear(struct pin_entry *entry)
{
	atomic_store_explicit(&entry->block, 0, memory_order_release);
}

/* The first that could not be lent decides; those before it stay to be dropped. That the last one was, its marks tell. */
static int add(struct pin_table *table, struct pin_entry *entry, uint64_t block, unsigned count)
{
	hp_pool *pool = table->pool;
	uint64_t natural = 0;
	unsigned i = 0;
	int error = 0;
	for (; i < count && block_index(block) != RUN; i++)
		natural |= slab_natural(&pool->slabs[block_page(block)], block_index(block) + i) << i;
	struct lent_step first = number(table, entry, block, count);
	atomic_store_explicit(&entry->natural, natural, memory_order_relaxed);
	atomic_store_explicit(&entry->count, (uint16_t)count, memory_order_relaxed);
	set_progress(entry, 0);
	set_state(entry, block, PIN_ADDING);
	for (i = 0; i < count && (error = lend(pool, block, i, natural, first)) == 0; i++)
		if (unlikely(i + 1 < count)) set_progress(entry, i + 1);
	if (unlikely(i < count)) atomic_store_explicit(&entry->count, (uint16_t)i, memory_order_release);
	set_state(entry, block, PIN_HELD);
	return error;
}

/* Those from the i-th on; each may have been begun by one who has died. */
static void drop_from(struct pin_table *table, struct pin_entry *entry, unsigned i, struct lent_step first)
{
	uint64_t block = atomic_load_explicit(&entry->block, memory_order_relaxed),
			 natural = atomic_load_explicit(&entry->natural, memory_order_relaxed);
	unsigned count = atomic_load_explicit(&entry->count, memory_order_relaxed);
	for (; i < count; i++) {
		unlend(table->pool, block, i, natural, first);
		if (unlikely(i + 1 < count)) set_progress(entry, i + 1);
	}
	clear(entry);
}

static void drop(struct pin_table *table, struct pin_entry *entry)
{
	uint64_t block = atomic_load_explicit(&entry->block, memory_order_relaxed);
	set_progress(entry, 0);
	struct lent_step first = number(table, entry, block, atomic_load_explicit(&entry->count, memory_order_relaxed));
	set_state(entry, block, PIN_DROPPING);
	drop_from(table, entry, 0, first);
}

/* The objects that the bytes lie in, by the map's word of their page: false where there are none. Believes nothing. */
static inline bool objects_at(const hp_pool *pool, uint64_t map, hp_off off, uint64_t len, uint64_t *head,
                              uint64_t *first, uint64_t *last)
{
	uint64_t page = off / HP_PAGE_SIZE;
	unsigned back = (uint8_t)(map - 1);
	*head = page - back;
	if (unlikely(page < back || len > NEAR)) return false;
	uint64_t at = off - *head * HP_PAGE_SIZE - atomic_load_explicit(&pool->slabs[*head].first, memory_order_relaxed);
	*first = (at * (map >> 32)) >> 32;
	*last = ((at + len - 1) * (map >> 32)) >> 32;
	return likely(at <= NEAR && *last < SLAB_OBJECTS);
}

/* The block that the bytes lie in; -EINVAL: in none, or not in one. */
static int locate(const hp_pool *pool, hp_off off, uint64_t len, uint64_t *block, unsigned *count)
{
	uint64_t head, pages, first, last;
	if (len == 0 || off >= pool->capacity || len > pool->capacity - off) return -EINVAL;
	uint64_t page = off / HP_PAGE_SIZE, map = atomic_load_explicit(&pool->map[page], memory_order_acquire);
	if (!(uint8_t)map) {
		pages = page_block(pool, page, &head);
		if (!pages || off + len > (head + pages) * HP_PAGE_SIZE) return -EINVAL;
		*block = block_make(head, RUN, PIN_NONE);
		*count = 1;
		return 0;
	}
	if (unlikely(!objects_at(pool, map, off, len, &head, &first, &last))) return -EINVAL;
	const struct slab *slab = &pool->slabs[head];
	if (unlikely(last >= slab_objects(slab) || last - first >= 64)) return -EINVAL;
	/* where something lives there is a slab; what is lent already may be so by rubbish */
	if (unlikely(!slab_live(slab, (unsigned)first)) && slab_at(pool, head) != slab) return -EINVAL;
	*block = block_make(head, (unsigned)first, PIN_NONE);
	*count = (unsigned)(last - first) + 1;
	return 0;
}

static __attribute__((noinline)) int add_any(struct pin_table *table, struct pin_entry *entry, hp_off off, uint64_t len)
{
	uint64_t block;
	unsigned count;
	int error = locate(table->pool, off, len, &block, &count);
	if (error == 0) error = pool_control_populate_lent(table->pool, block_page(block));
	for (unsigned tries = 0; error == 0 || (error == -EBUSY && tries < BUSY_TRIES); tries++) {
		if ((error = add(table, entry, block, count)) == 0) return 0;
		drop(table, entry);
		if (error == -EBUSY && tries == 0) recover_dead(table->pool); /* one who was taking the last pin off, perhaps */
	}
	return error;
}

/* An object that one pin at most is on, as most are: what add and drop do, by one look at its word and without a loop. */
struct single {
	struct lent_place at;
	uint64_t word;
	struct lent_step step;
};

/* False: it has other pins than these, or the numbers of its steps have to be looked for. */
static inline bool single(struct pin_table *table, uint64_t page, unsigned index, unsigned pins, struct single *one)
{
	one->at = lent_place(table->pool, page, index);
	one->step = (struct lent_step){table->number, atomic_load_explicit(&table->ring->op, memory_order_relaxed) + 1};
	one->word = atomic_load_explicit(one->at.word, memory_order_acquire);
	return likely(lent_state_in(one->word, one->at.shift) == pins) &&
	       likely(!lent_seen_in(table->pool, one->word, one->step, LENT_STEPS_EACH));
}

static inline void single_begin(struct pin_table *table, struct pin_entry *entry, const struct single *one)
{
	atomic_store_explicit(&table->ring->op, one->step.number + LENT_STEPS_EACH - 1, memory_order_relaxed);
	atomic_store_explicit(&entry->op, one->step.number, memory_order_relaxed);
	set_progress(entry, 0);
	if (unlikely(lent_ring1(one->word) != table->number + 1)) lent_note(table->pool, one->word);
}

static inline bool single_step(struct single *one, unsigned state, unsigned which)
{
	uint64_t to = lent_with(one->word, one->at.shift, state, one->step, which);
	/* commit of the step; the word tells that it was done */
	bool done = atomic_compare_exchange_strong_explicit(one->at.word, &one->word, to, memory_order_acq_rel,
	                                                    memory_order_acquire);
	one->word = to;
	return likely(done);
}

int pin_add(struct pin_table *table, uint32_t index, hp_off off, uint64_t len)
{
	hp_pool *pool = table->pool;
	struct pin_entry *entry = &table->entry[index];
	if (unlikely(index >= table->pins)) return -EINVAL;
	if (unlikely(pool->private)) return 0;
	if (unlikely(len == 0 || off >= pool->capacity || len > pool->capacity - off)) return -EINVAL;
	uint64_t map = atomic_load_explicit(&pool->map[off / HP_PAGE_SIZE], memory_order_acquire), page, object, last;
	struct single one;
	if (unlikely(!(uint8_t)map || !objects_at(pool, map, off, len, &page, &object, &last) || object != last))
		return add_any(table, entry, off, len);
	struct slab *slab = &pool->slabs[page];
	if (unlikely(!slab_live(slab, (unsigned)object) || pool_control_populate_lent(pool, page) < 0 ||
	             !atomic_load_explicit(&slab->lends, memory_order_relaxed) ||
	             !single(table, page, (unsigned)object, 0, &one)))
		return add_any(table, entry, off, len);
	uint64_t block = block_make(page, (unsigned)object, PIN_NONE), natural = slab_natural(slab, (unsigned)object);
	single_begin(table, entry, &one);
	atomic_store_explicit(&entry->natural, natural, memory_order_relaxed);
	atomic_store_explicit(&entry->count, 1, memory_order_relaxed);
	set_state(entry, block, PIN_ADDING);
	if (!single_step(&one, 1, LENT_FIRST)) { /* nothing has been done */
		clear(entry);
		return add_any(table, entry, off, len);
	}
	slab_set_bit(slab, (unsigned)object, !natural);
	set_state(entry, block, PIN_HELD);
	return 0;
}

void pin_drop(struct pin_table *table, uint32_t index)
{
	struct pin_entry *entry = &table->entry[index];
	hp_pool *pool = table->pool;
	if (unlikely(pool->private || index >= table->pins)) return;
	uint64_t block = atomic_load_explicit(&entry->block, memory_order_relaxed), page = block_page(block);
	unsigned object = block_index(block), count = atomic_load_explicit(&entry->count, memory_order_relaxed);
	struct single one;
	if (unlikely(block_state(block) != PIN_HELD)) return;
	if (unlikely(!sensible(pool, block, count))) {
		clear(entry);
		return;
	}
	if (unlikely(object == RUN || count != 1 || !single(table, page, object, 1, &one))) {
		drop(table, entry);
		return;
	}
	struct slab *slab = &pool->slabs[page];
	uint64_t natural = atomic_load_explicit(&entry->natural, memory_order_relaxed) & 1;
	single_begin(table, entry, &one);
	set_state(entry, block, PIN_DROPPING);
	bool done = single_step(&one, LENT_RETURNING, LENT_RETURNS);
	if (done) {
		slab_set_bit(slab, object, natural);
		done = single_step(&one, 0, LENT_ENDS); /* commit: its holder's */
	}
	if (unlikely(!done)) slab_unlend(pool, slab, object, natural, one.step); /* another pin has come, or a free */
	clear(entry);
}

int pin_get(struct pin_table *table, uint32_t index, hp_cache *cache, hp_off *off)
{
	if (index >= table->pins) return -EINVAL;
	if (cache->pool != table->pool || cache->ctor || cache->skew || cache->regions) return -ENOTSUP;
	uint64_t *owned = (uint64_t *)(uintptr_t)&table->entry[index].owned;
	int error = publish_into(table->pool, cache->class, 0, owned);
	if (error == 0) *off = *owned & ~PUBLISH_VALUE;
	return error;
}

int pin_own(struct pin_table *table, uint32_t index, hp_cache *cache, hp_off off)
{
	struct slab *slab;
	unsigned at;
	if (index >= table->pins || off >= table->pool->capacity) return -EINVAL;
	if (cache->pool != table->pool || cache->ctor || cache->skew || cache->regions) return -ENOTSUP;
	int error = cache_find(cache, cache->base + off, &slab, &at);
	if (error < 0) return error;
	if (!slab_out(table->pool, slab, at)) return -EALREADY;
	/* commit: the ring's, which puts it back, whoever dies now */
	atomic_store_explicit(&table->entry[index].owned, off | PUBLISH_VALUE, memory_order_release);
	return 0;
}

void pin_release(struct pin_table *table, uint32_t index)
{
	/* commit: the application's, whoever dies now */
	if (index < table->pins) atomic_store_explicit(&table->entry[index].owned, 0, memory_order_release);
}

/* An object of the ring's own goes back: it is pinned, freed like any that is under I/O, and when it belongs to the ring no more
 * the pin goes. Each of these may be repeated. */
static void put_owned(struct pin_table *table, struct pin_entry *entry)
{
	uint64_t off = atomic_load_explicit(&entry->owned, memory_order_relaxed), block;
	unsigned count;
	if (!off) return;
	if (block_state(atomic_load_explicit(&entry->block, memory_order_relaxed)) == PIN_NONE &&
	    locate(table->pool, off & ~PUBLISH_VALUE, 1, &block, &count) == 0 &&
	    pool_control_populate_lent(table->pool, block_page(block)) == 0)
		add(table, entry, block, count);
	block = atomic_load_explicit(&entry->block, memory_order_relaxed);
	if (block_state(block) == PIN_HELD) lent_free(place_of(table->pool, block, 0));
	/* commit: nobody's but the pin's */
	atomic_store_explicit(&entry->owned, 0, memory_order_release);
	if (block_state(block) == PIN_HELD) drop(table, entry);
}

void pin_put(struct pin_table *table, uint32_t index)
{
	if (index >= table->pins) return;
	struct pin_entry *entry = &table->entry[index];
	if (!table->pool->private) {
		put_owned(table, entry);
		return;
	}
	hp_off off = atomic_exchange(&entry->owned, 0);
	struct slab *slab;
	unsigned at, class;
	if (off && slab_find(table->pool, off & ~PUBLISH_VALUE, &slab, &at, &class) == SLAB_OBJECT)
		slab_free_remote(table->pool, slab, at >> 6, UINT64_C(1) << (at & 63));
}

/* ---- rings ---- */

/* What was half done is done, or has not been. What makes no sense is forgotten. */
static void settle(struct pin_table *table, struct pin_entry *entry)
{
	const hp_pool *pool = table->pool;
	uint64_t block = atomic_load_explicit(&entry->block, memory_order_acquire);
	unsigned i = atomic_load_explicit(&entry->progress, memory_order_relaxed),
			 count = atomic_load_explicit(&entry->count, memory_order_relaxed);
	if (!sensible(pool, block, count) || i > count) {
		clear(entry);
	} else if (block_state(block) == PIN_ADDING) {
		bool done = i < count &&
		            lent_done(pool, place_of(pool, block, i), step_of(noted_step(table, entry), i), LENT_FIRST);
		atomic_store_explicit(&entry->count, (uint16_t)(i + done), memory_order_release);
		if (i + done)
			set_state(entry, block, PIN_HELD);
		else
			clear(entry);
	} else if (block_state(block) == PIN_DROPPING) {
		drop_from(table, entry, i, noted_step(table, entry));
	}
}

/* All that is in the table goes. First what was half done: the next step may hide what the last one's mark tells. */
static void empty(struct pin_table *table)
{
	for (uint32_t k = 0; k < table->pins && !table->pool->private; k++) settle(table, &table->entry[k]);
	for (uint32_t k = 0; k < table->pins; k++) {
		pin_put(table, k);
		pin_drop(table, k);
	}
}

/* With a table whose ring is ours to close, and the kernel gone. */
static void give_back(struct pin_table *table, uint64_t word)
{
	struct pool_ring *ring = table->ring;
	uint64_t page1 = atomic_load_explicit(&ring->table, memory_order_acquire);
	if (find_table(table, ring_generation(word))) {
		empty(table);
		page_free_typed(table->pool, page1 - 1, PAGE_TYPE_PINS);
	}
	page_recover_over(table->pool); /* its process' pages, which were not to be touched */
	atomic_store_explicit(&ring->table, 0, memory_order_relaxed);
	atomic_store_explicit(&ring->registered, 0, memory_order_relaxed);
	/* commit: the next ring's */
	atomic_compare_exchange_strong(&ring->word, &word, ring_make(RING_FREE, ring_generation(word) + 1, 0, 0));
}

static bool claim(hp_pool *pool, struct pool_ring *ring, uint64_t *word)
{
	uint64_t mine = ring_make(RING_CLOSING, ring_generation(*word), pool->record + 1, pool->record_generation);
	if (!atomic_compare_exchange_strong(&ring->word, word, mine)) return false;
	*word = mine;
	return true;
}

/* Whose process is dead and recovered, or gave it up, and which the kernel has let go of. */
static void recover_rings(hp_pool *pool)
{
	if (pool->observer) return;
	for (uint32_t i = 0; i < pin_rings_top(pool); i++) {
		struct pool_ring *ring = &pool->rings[i];
		uint64_t word = atomic_load_explicit(&ring->word, memory_order_acquire);
		uint32_t record1 = ring_record1(word);
		if (ring_state(word) == RING_FREE) continue;
		if (record1 && !record_is_over(pool, record1 - 1, ring_record_generation(word))) continue;
		if (!pool->private && os_byte_held(pool->lives.fd, life_byte(i)) != 0) continue;
		if (record_trust(pool) < 0) return; /* or "free" says nothing */
		struct pin_table table = {.pool = pool, .ring = ring, .number = i};
		if (claim(pool, ring, &word)) give_back(&table, word);
	}
}

const struct pool_layer pin_layer = {.recover_rest = recover_rings};

static int open_ring(hp_pool *pool, uint32_t pins, struct pin_table *table, uint32_t *generation)
{
	if (pin_rings_top(pool) == 0) recover_dead(pool);
	for (uint32_t i = 0; i < POOL_RINGS; i++) {
		struct pool_ring *ring = &pool->rings[i];
		int error = pool_control_populate_at(pool, ring, sizeof *ring);
		if (error < 0) return error;
		uint64_t word = atomic_load_explicit(&ring->word, memory_order_acquire);
		if (ring_state(word) != RING_FREE) continue;
		uint32_t top = pin_rings_top(pool);
		while (top <= i && !atomic_compare_exchange_weak(&pool->header->rings_top, &top, i + 1)) {}
		*generation = ring_generation(word);
		/* commit: ours, and whoever finds us dead closes it */
		if (!atomic_compare_exchange_strong(
				&ring->word, &word, ring_make(RING_OPEN, *generation, pool->record + 1, pool->record_generation)))
			continue;
		atomic_store_explicit(&ring->pins, pins, memory_order_relaxed);
		table->ring = ring;
		table->number = i;
		return 0;
	}
	return -ENOSPC;
}

int pin_open(hp_pool *pool, uint32_t pins, struct pin_table **out, int *life)
{
	int error;
	uint32_t generation;
	*life = -1;
	if (pool->observer) return -EROFS;
	if (pins == 0 || pins > UINT32_MAX / sizeof(struct pin_entry)) return -EINVAL;
	if (!participant_get(pool, &error)) return error;
	struct pin_table *table = calloc(1, sizeof *table);
	if (!table) return -ENOMEM;
	*table = (struct pin_table){.pool = pool, .pins = pins};
	error = open_ring(pool, pins, table, &generation);
	if (error == -ENOSPC) { /* those of the dead, perhaps */
		recover_dead(pool);
		error = open_ring(pool, pins, table, &generation);
	}
	if (error < 0) {
		free(table);
		return error;
	}
	if (!pool->private && (*life = os_reopen(pool->lives.fd, O_RDWR)) < 0) error = *life;
	if (error == 0 && !pool->private) error = os_byte_lock(*life, life_byte(table->number));
	if (error == 0) error = make_table(table, generation);
	if (error < 0) {
		if (*life >= 0) os_close(*life);
		*life = -1;
		pin_close(table);
		return error;
	}
	*out = table;
	return 0;
}

void pin_close(struct pin_table *table)
{
	if (!table) return;
	hp_pool *pool = table->pool;
	struct pool_ring *ring = table->ring;
	uint64_t word = atomic_load_explicit(&ring->word, memory_order_acquire), until = os_now_ns() + CLOSE_NS;
	static _Atomic uint32_t nothing;
	bool ours = pool->joined == participant_fork_generation() && ring_state(word) == RING_OPEN &&
	            ring_record1(word) == pool->record + 1 && ring_record_generation(word) == pool->record_generation;
	/* the kernel closes descriptions after it has answered; there is nothing to wait on but the byte */
	while (ours && !pool->private && os_byte_held(pool->lives.fd, life_byte(table->number)) > 0 && os_now_ns() < until)
		os_futex_wait(&nothing, 0, 200000);
	if (ours && !pool->private && os_byte_held(pool->lives.fd, life_byte(table->number)) != 0)
		/* commit: whoever finds the byte free closes it */
		atomic_compare_exchange_strong(&ring->word, &word, ring_make(RING_OPEN, ring_generation(word), 0, 0));
	else if (ours && claim(pool, ring, &word))
		give_back(table, word);
	free(table);
}

void pin_registered(struct pin_table *table)
{
	/* under the lock that trimming holds: either it sees this, or has ended */
	bool locked = growth_lock(table->pool) == 0;
	atomic_store(&table->ring->registered, 1);
	if (locked) growth_unlock(table->pool);
}

bool pin_any_registered(hp_pool *pool)
{
	for (uint32_t i = 0; i < pin_rings_top(pool); i++)
		if (ring_state(atomic_load(&pool->rings[i].word)) != RING_FREE && atomic_load(&pool->rings[i].registered))
			return true;
	return false;
}

bool pin_any(hp_pool *pool)
{
	for (uint32_t i = 0; i < pin_rings_top(pool); i++)
		if (ring_state(atomic_load(&pool->rings[i].word)) != RING_FREE) return true;
	return false;
}

bool pin_names(const hp_pool *pool, uint64_t page)
{
	for (uint32_t i = 0; i < pin_rings_top(pool); i++)
		if (ring_state(atomic_load(&pool->rings[i].word)) != RING_FREE &&
		    atomic_load(&pool->rings[i].table) == page + 1)
			return true;
	return false;
}
