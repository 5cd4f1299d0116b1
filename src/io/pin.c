/* See io/pin.h. A table belongs to one process at a time: the ring's, or the one that closes it after that has died. A step of
 * it is written down before it is made, and its mark tells afterwards whether it was (pool/lent.h), so that whoever takes over
 * goes on where it was. */
#include "cache/cache.h"
#include "io/pin_table.h"
#include "malloc/publish.h"
#include "page/page.h"
#include "pool/lent.h"
#include "pool/recover.h"
#include "slab/lend.h"
#include <errno.h>

#define RUN 0xfffu /* in the place of an object's number: a run of pages */
#define BUSY_TRIES 3
#define NEAR (UINT64_C(1) << 20) /* no slab is larger */

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

/* First what was half done: the next step may hide what the last one's mark tells. */
void pin_empty(struct pin_table *table)
{
	for (uint32_t k = 0; k < table->pins && !table->pool->private; k++) settle(table, &table->entry[k]);
	for (uint32_t k = 0; k < table->pins; k++) {
		pin_put(table, k);
		pin_drop(table, k);
	}
}
