/* Rings: their entries in the control file, the pages of their tables, and closing them, by their own process or, once the kernel
 * has let go, by whoever recovers it. */
#include "io/pin_table.h"
#include "os/os.h"
#include "page/page.h"
#include "pool/create.h"
#include "pool/layers.h"
#include "pool/record.h"
#include "pool/recover.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define CLOSE_NS 1000000000 /* the kernel lets go of a ring within milliseconds; if not, others see to it later */

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

/* ---- their ends ---- */

/* With a table whose ring is ours to close, and the kernel gone. */
static void give_back(struct pin_table *table, uint64_t word)
{
	struct pool_ring *ring = table->ring;
	uint64_t page1 = atomic_load_explicit(&ring->table, memory_order_acquire);
	if (find_table(table, ring_generation(word))) {
		pin_empty(table);
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

/* ---- opening and closing ---- */

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
