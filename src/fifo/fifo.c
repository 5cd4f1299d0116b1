/* Fifos come and go: making, opening, closing, ending.
 *
 * A fifo is a run of pages of a type of its own, so that neither hp_page_free nor a wrong offset is taken for it. It is
 * complete before the run becomes live, which is the commit of making it, and its end is the free of the run. Who has it
 * open has a cell in it with {record, generation}, by which others see that he lives. The one who ends it says so in `state`,
 * with his name, before he looks at the cells; who opens it has his cell before he looks at `state`: one sees the other. A name of
 * a dead one in `state` means nothing. */
#include "fifo/fifo.h"
#include "os/os.h"
#include "page/page.h"
#include "parity/parity.h"
#include "pool/record.h"
#include <errno.h>
#include <stdlib.h>

#define CAPACITY_MAX (UINT64_C(1) << 32)
#define HANDLES 32u

struct shape {
	uint64_t capacity;
	uint32_t words, flags, handles;
	uint64_t holds_at, held_at, entries_at, bytes; /* from the start */
};

static uint64_t up_to_line(uint64_t bytes)
{
	return (bytes + FIFO_LINE - 1) & ~(uint64_t)(FIFO_LINE - 1);
}

/* Places what the shape's first line says; false: that makes no sense. */
static bool shape_place(struct shape *shape)
{
	bool many = shape->flags & HP_FIFO_MC;
	if (shape->flags & ~(HP_FIFO_MP | HP_FIFO_MC) || shape->words == 0 || shape->words > FIFO_WORDS) return false;
	if (shape->handles == 0 || shape->handles > FIFO_HANDLES) return false;
	if (shape->capacity == 0 || shape->capacity > CAPACITY_MAX || shape->capacity & (shape->capacity - 1)) return false;
	uint64_t element = shape->words * 8;
	shape->holds_at = up_to_line(offsetof(struct fifo_shared, cell) + shape->handles * 8);
	shape->held_at = shape->holds_at + (many ? up_to_line(shape->handles * 8) : 0);
	shape->entries_at = shape->held_at + (many ? shape->handles * HP_FIFO_TAKE_MAX * element : 0);
	shape->bytes = shape->entries_at + shape->capacity * element * (shape->flags & HP_FIFO_MP ? 2 : 1);
	return true;
}

/* ---- who has it open ---- */

static uint64_t owner_make(uint32_t record, uint32_t generation)
{
	return (uint64_t)(record + 1) << 24 | (generation & RECORD_GENERATIONS);
}

bool fifo_is_over(hp_pool *pool, uint64_t owner)
{
	uint32_t record = (uint32_t)(owner >> 24) - 1, generation = (uint32_t)owner & RECORD_GENERATIONS;
	if (owner == 0 || record_is_over(pool, record, generation)) return true;
	return record != pool->record && record_alive(pool, record) == 0;
}

static int take_cell(hp_fifo *fifo)
{
	for (int dead_too = 0; dead_too <= 1; dead_too++)
		for (uint32_t i = 0; i < fifo->handles; i++) {
			_Atomic uint64_t *cell = &fifo->shared->cell[i];
			uint64_t owner = atomic_load_explicit(cell, memory_order_acquire);
			if (owner && !(dead_too && fifo_is_over(fifo->pool, owner))) continue;
			/* what he held goes first: whoever holds something by this cell is then its new owner */
			if (owner) fifo_let_go(fifo, i, owner);
			/* commit: the cell is ours; it is everybody's again when we are dead */
			if (!atomic_compare_exchange_strong(cell, &owner, fifo->owner)) continue;
			fifo->cell = i;
			return 0;
		}
	return -EUSERS;
}

static void leave_cell(hp_fifo *fifo)
{
	atomic_store_explicit(&fifo->shared->cell[fifo->cell], 0, memory_order_release);
}

/* ---- handles ---- */

static hp_fifo *handle_new(hp_pool *pool, hp_off id, const struct shape *shape)
{
	hp_fifo *fifo = aligned_alloc(_Alignof(hp_fifo), sizeof *fifo);
	if (!fifo) return NULL;
	char *start = pool->base + id;
	*fifo = (hp_fifo){.shared = (struct fifo_shared *)(void *)start,
	                  .entries = (_Atomic uint64_t *)(void *)(start + shape->entries_at),
	                  .capacity = shape->capacity,
	                  .mask = shape->capacity - 1,
	                  .words = shape->words,
	                  .flags = shape->flags,
	                  .handles = shape->handles,
	                  .plain = !shape->flags && shape->words == 1,
	                  .fenced = pool->fenced,
	                  .eventfd = -1,
	                  .owner = owner_make(pool->record, pool->record_generation),
	                  .generation = participant_fork_generation(),
	                  .pool = pool,
	                  .id = id};
	if (shape->flags & HP_FIFO_MC) {
		fifo->holds = (_Atomic uint64_t *)(void *)(start + shape->holds_at);
		fifo->held = (uint64_t *)(void *)(start + shape->held_at);
	}
	fifo->tail_seen = atomic_load_explicit(&fifo->shared->tail.a, memory_order_acquire);
	fifo->head_seen = fifo->tail_seen;
	return fifo;
}

/* Right before the run becomes live. */
static void prepare(struct participant *me, const struct page_want *want, uint64_t page)
{
	const struct shape *shape = want->arg;
	struct fifo_shared *shared = (struct fifo_shared *)(void *)(me->pool->base + page * HP_PAGE_SIZE);
	memset(shared, 0, shape->bytes);
	shared->magic = FIFO_MAGIC;
	shared->capacity = shape->capacity;
	shared->words = shape->words;
	shared->flags = shape->flags;
	shared->handles = shape->handles;
	atomic_store_explicit(&shared->state, FIFO_LIVE, memory_order_relaxed);
	atomic_store_explicit(&shared->cell[0], owner_make(me->pool->record, me->pool->record_generation),
	                      memory_order_relaxed);
}

int hp_fifo_create(hp_pool *pool, const struct hp_fifo_options *options, hp_fifo **fifo)
{
	if (!fifo) return -EINVAL;
	*fifo = NULL;
	if (!pool || !options || options->struct_size < sizeof *options || options->element % 8) return -EINVAL;
	struct shape shape = {.capacity = options->capacity,
	                      .words = options->element ? options->element / 8 : 1,
	                      .flags = options->flags,
	                      .handles = options->handles ? options->handles : HANDLES};
	if (!shape_place(&shape)) {
		pool_log(
			pool,
			"hugepool: no fifo of %llu elements of %u bytes for %u handles: the capacity has to be a power of two, "
			"an element 8 to 64 bytes, a multiple of 8",
			(unsigned long long)options->capacity, options->element, options->handles);
		return -EINVAL;
	}
	if (shape.flags && !FIFO_HAS_PAIRS) return -ENOTSUP;
	int error;
	struct participant *me = participant_get(pool, &error);
	if (!me) return error;
	uint64_t pages = (shape.bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE;
	if (pages > pool->capacity / HP_PAGE_SIZE) return -ENOMEM;
	struct page_want want = {.pages = pages, .node = -1, .type = PAGE_TYPE_FIFO, .prepare = prepare, .arg = &shape};
	int64_t page;
	participant_hold(me);
	/* commit: in there, of the page layer; the fifo is complete by then */
	error = page_search(me, &want, &page);
	participant_let_go(me);
	if (error < 0) return error;
	*fifo = handle_new(pool, (hp_off)page * HP_PAGE_SIZE, &shape);
	if (*fifo) return 0;
	page_free_typed(pool, (uint64_t)page, PAGE_TYPE_FIFO);
	return -ENOMEM;
}

/* The shape of the fifo there. */
static int find(hp_pool *pool, hp_off id, struct shape *shape)
{
	uint64_t page = id / HP_PAGE_SIZE;
	if (id % HP_PAGE_SIZE || id >= pool->capacity) return -EINVAL;
	uint32_t chunk = (uint32_t)(page >> pool->page_shift_chunk);
	unsigned i = (unsigned)page & (pool->chunk_pages - 1);
	if (chunk >= pool_top(pool) || !parity_live(&pool->units[chunk], i)) return -ESTALE;
	unsigned len = atomic_load_explicit(&pool->units[chunk].len[i], memory_order_acquire);
	if ((len & PARITY_TYPE_MASK) != PAGE_TYPE_FIFO) return -ESTALE;
	const struct fifo_shared *shared = (const struct fifo_shared *)(const void *)(pool->base + id);
	*shape = (struct shape){
		.capacity = shared->capacity, .words = shared->words, .flags = shared->flags, .handles = shared->handles};
	if (shared->magic != FIFO_MAGIC || !shape_place(shape) || (shape->flags && !FIFO_HAS_PAIRS)) return -EINVAL;
	return shape->bytes <= page_run(pool, chunk, i) * HP_PAGE_SIZE ? 0 : -EINVAL;
}

int hp_fifo_open(hp_pool *pool, hp_off id, hp_fifo **fifo)
{
	if (!fifo) return -EINVAL;
	*fifo = NULL;
	if (!pool) return -EINVAL;
	struct shape shape;
	int error;
	if (!participant_get(pool, &error)) return error;
	if ((error = find(pool, id, &shape)) < 0) {
		if (error == -EINVAL)
			pool_log(pool,
			         "hugepool: at 0x%llx no fifo can be: its offset is what hp_fifo_id says to the one who made it",
			         (unsigned long long)id);
		return error;
	}
	hp_fifo *handle = handle_new(pool, id, &shape);
	if (!handle) return -ENOMEM;
	if ((error = take_cell(handle)) < 0) {
		pool_log(
			pool,
			"hugepool: %u handles have the fifo at 0x%llx open, and it has room for no more: `handles` when it is made",
			shape.handles, (unsigned long long)id);
		free(handle);
		return error;
	}
	/* the cell before the look, as who ends it says so before he looks */
	uint64_t state = atomic_load(&handle->shared->state);
	if (state != FIFO_LIVE) {
		/* of a dead one: it lives on */
		if ((state & 0xff) == FIFO_ENDING && fifo_is_over(pool, state >> 8) &&
		    atomic_compare_exchange_strong(&handle->shared->state, &state, FIFO_LIVE))
			state = FIFO_LIVE;
		else
			error = state == FIFO_LIVE ? 0 : -EBUSY;
	}
	if (error < 0) {
		leave_cell(handle);
		free(handle);
		return error;
	}
	*fifo = handle;
	return 0;
}

void hp_fifo_close(hp_fifo *fifo)
{
	if (!fifo) return;
	if (fifo_is_ours(fifo)) {
		if (fifo->taken) hp_fifo_nack(fifo);
		leave_cell(fifo);
	}
	free(fifo);
}

/* Does somebody else have it open? */
static bool is_used(hp_fifo *fifo)
{
	for (uint32_t i = 0; i < fifo->handles; i++) {
		uint64_t owner = atomic_load(&fifo->shared->cell[i]);
		if (!owner || i == fifo->cell) continue;
		if (!fifo_is_over(fifo->pool, owner)) return true;
		fifo_let_go(fifo, i, owner);
	}
	return false;
}

static bool is_empty(const hp_fifo *fifo)
{
	for (uint32_t i = 0; fifo->holds && i < fifo->handles; i++)
		if (hold_state(atomic_load(&fifo->holds[i])) != HOLD_FREE) return false;
	return atomic_load(&fifo->shared->head.a) == atomic_load(&fifo->shared->tail.a);
}

int hp_fifo_destroy(hp_fifo *fifo, unsigned flags)
{
	if (!fifo || flags & ~HP_FIFO_DISCARD) return -EINVAL;
	if (!fifo_is_ours(fifo)) return -ESTALE;
	uint64_t state = FIFO_LIVE, ending = fifo->owner << 8 | FIFO_ENDING;
	if (!atomic_compare_exchange_strong(&fifo->shared->state, &state, ending)) {
		if (!fifo_is_over(fifo->pool, state >> 8)) return -EBUSY;
		if (!atomic_compare_exchange_strong(&fifo->shared->state, &state, ending)) return -EBUSY;
	}
	int error = is_used(fifo) ? -EBUSY : !(flags & HP_FIFO_DISCARD) && !is_empty(fifo) ? -ENOTEMPTY : 0;
	/* commit: in there, of the page layer; before it, it lives on as soon as we are dead */
	if (error == 0) error = page_free_typed(fifo->pool, fifo->id / HP_PAGE_SIZE, PAGE_TYPE_FIFO);
	if (error == 0)
		free(fifo);
	else
		atomic_store_explicit(&fifo->shared->state, FIFO_LIVE, memory_order_release);
	return error;
}

/* ---- asking ---- */

hp_off hp_fifo_id(const hp_fifo *fifo)
{
	return fifo->id;
}

uint64_t hp_fifo_capacity(const hp_fifo *fifo)
{
	return fifo->capacity;
}

uint64_t hp_fifo_count(hp_fifo *fifo)
{
	/* the tail first: it is never beyond a head that is read later */
	uint64_t tail = atomic_load_explicit(&fifo->shared->tail.a, memory_order_acquire);
	uint64_t count = atomic_load_explicit(&fifo->shared->head.a, memory_order_acquire) - tail;
	if (count > fifo->capacity) count = fifo->capacity;
	if (!fifo_many_consumers(fifo)) return count > fifo->taken ? count - fifo->taken : 0;
	return count + fifo_orphans(fifo);
}

uint64_t hp_fifo_room(hp_fifo *fifo)
{
	uint64_t tail = atomic_load_explicit(&fifo->shared->tail.a, memory_order_acquire);
	uint64_t count = atomic_load_explicit(&fifo->shared->head.a, memory_order_acquire) - tail;
	return count > fifo->capacity ? 0 : fifo->capacity - count;
}

uint64_t hp_fifo_pushed(const hp_fifo *fifo)
{
	return atomic_load_explicit(&fifo->shared->head.a, memory_order_acquire);
}

uint64_t hp_fifo_popped(const hp_fifo *fifo)
{
	return atomic_load_explicit(&fifo->shared->tail.a, memory_order_acquire);
}
