/* Publication: allocating into, and freeing from, a shared word as one step, whenever the caller dies.
 * Model: tests/models/publication_model.py.
 *
 * The word is 0, or an offset with the bit PUBLISHED. Into: the intent is written into the slot's cell; the word is claimed
 * with PENDING, which readers take as empty; the object's bit flips; the word gets its value. Recovery looks at the bit, which
 * nobody else can have changed, since the slab is the dead one's. From: intent; the word is claimed with the cell's name; the
 * object is freed; the word becomes 0. Recovery acts only where the word has that cell's name. It must be able to tell
 * whether the object has been freed, so nobody may reuse it meanwhile: where the slab is the dead one's nobody can, and
 * where it is another's the freer has announced itself in the slab, and nothing of an announced slab is reused (free_in) nor
 * does it end. */
#include "malloc/publish.h"
#include "debug/debug.h"
#include "slab/slab.h"
#include "pool/layers.h"
#include "pool/record.h"
#include "pool/recover.h"
#include "os/os.h"
#include <hugepool/malloc.h>
#include <errno.h>

#define PUBLISHED PUBLISH_VALUE
#define PENDING UINT64_C(1)
#define FREEING UINT64_C(2)
#define PATIENCE 1000 /* tries for an announced slab */

enum { INTENT_NONE = 0, INTENT_INTO = 1, INTENT_FROM = 2 };

static uint64_t name_of(uint32_t slot)
{
	return (uint64_t)(slot + 1) << 4 | FREEING;
}

/* In place of an offset: the word of the header that names the default container, which is not for the application. */
#define CONTAINER UINT64_MAX

static uint64_t offset_of(const hp_pool *pool, const void *word)
{
	uint64_t off = (uint64_t)((uintptr_t)word - (uintptr_t)pool->base);
	return off == CONTAINER ? CONTAINER - 1 : off;
}

static _Atomic uint64_t *word_at(hp_pool *pool, uint64_t off)
{
	return off == CONTAINER ? &pool->header->container : (_Atomic uint64_t *)(void *)(pool->base + off);
}

/* In memory of the pool that is there. */
static bool usable(hp_pool *pool, uint64_t off)
{
	if (off == CONTAINER) return true;
	if (off >= pool->capacity || off & 7) return false;
	uint64_t chunk = (off >> 12) >> pool->page_shift_chunk;
	return ctl_state(atomic_load_explicit(&pool->chunks[chunk].ctl, memory_order_acquire)) != CTL_UNCOMMITTED;
}

/* The intent, with all that recovery needs, before anything is done. Inside an operation. */
static void intend(struct pool_wait *cell, uint32_t kind, uint64_t object, uint64_t dst)
{
	atomic_store_explicit(&cell->object, object, memory_order_relaxed);
	atomic_store_explicit(&cell->dst, dst, memory_order_relaxed);
	atomic_store_explicit(&cell->intent, kind, memory_order_release);
}

static void done(struct pool_wait *cell)
{
	atomic_store_explicit(&cell->intent, INTENT_NONE, memory_order_release);
}

static struct participant *participant_with_cell(hp_pool *pool, struct pool_wait **cell, int *error)
{
	struct participant *me = participant_get(pool, error);
	if (!me) return NULL;
	*cell = &pool->waits[me->slot - pool->slots];
	if (!me->cell) {
		*error = pool_control_populate_at(pool, *cell, sizeof **cell);
		if (*error < 0) return NULL;
		me->cell = true;
	}
	return me;
}

static int into(hp_pool *pool, unsigned class, size_t size, uint64_t at, publish_fill_fn *fill)
{
	int error;
	struct pool_wait *cell;
	if (!usable(pool, at)) return -EINVAL;
	struct participant *me = participant_with_cell(pool, &cell, &error);
	if (!me) return error;
	_Atomic uint64_t *word = word_at(pool, at);
	bool tried = false;
	participant_hold(me);
	for (error = 0; error == 0 && !tried;) {
		participant_begin(me);
		if (slab_has_any(slab_state(me), class)) {
			uint64_t object = (uint64_t)(slab_next_at_hand(slab_state(me), class) - pool->base),
					 value = object | PUBLISHED, old = 0;
			tried = true;
			if (unlikely(debug_on(pool)) && size) debug_blank(pool, slab_next_at_hand(slab_state(me), class), size);
			if (fill) fill(pool->base + object);
			intend(cell, INTENT_INTO, object, at);
			/* release, too: it is filled */
			if (atomic_compare_exchange_strong(word, &old, value | PENDING)) {
				slab_at_hand(slab_state(me), class);
				/* commit: the block is there for everybody. A death since its bit was flipped comes to the same. */
				atomic_store_explicit(word, value, memory_order_release);
			} else {
				error = -EBUSY;
			}
			done(cell);
		}
		participant_end(me);
		if (!tried) error = slab_refill(me, class);
	}
	participant_let_go(me);
	return error;
}

int hp_alloc_into(hp_pool *pool, size_t size, uint64_t *dst)
{
	if (!pool && !(pool = hp_pool_default())) return -errno;
	if (pool->observer) return -EROFS;
	if (size > SLAB_MALLOC_MAX) return -EINVAL;
	return into(pool, slab_malloc_class(size), size, offset_of(pool, dst), NULL);
}

int publish_into(hp_pool *pool, unsigned class, size_t size, uint64_t *dst)
{
	return into(pool, class, size, offset_of(pool, dst), NULL);
}

int publish_container(hp_pool *pool, size_t size, publish_fill_fn *fill)
{
	return into(pool, slab_malloc_class(size), size, CONTAINER, fill);
}

/* Inside an operation, slab another's: the right to free something in it so that recovery can see whether it was freed. */
static bool announce(struct slab *slab, uint32_t slot)
{
	uint32_t nobody = 0;
	return atomic_compare_exchange_strong(&slab->announce, &nobody, slot + 1);
}

static int free_claimed(struct participant *me, struct pool_wait *cell, uint64_t at, uint64_t value, struct slab *slab,
                        unsigned index, unsigned class, bool *untidy)
{
	hp_pool *pool = me->pool;
	uint32_t slot = (uint32_t)(me->slot - pool->slots);
	_Atomic uint64_t *word = word_at(pool, at);
	bool mine = slab_is_mine(me, slab);
	int error = 0;
	intend(cell, INTENT_FROM, value & ~PUBLISHED, at);
	if (!mine && !announce(slab, slot)) { /* after the intent, by which recovery finds it */
		done(cell);
		return -EAGAIN;
	}
	if (!atomic_compare_exchange_strong(word, &value, name_of(slot))) {
		error = -ENOENT;
	} else {
		char *object = pool->base + (value & ~PUBLISHED);
		enum slab_gave gave = mine ? slab_give(&slab_state(me)->mag[class], slab, index, object) : SLAB_NOT;
		if (gave == SLAB_RARE) *untidy = slab_given(me, slab, class);
		if (!mine) slab_flip_remote(pool, slab, index);
		/* commit: the word is empty, the block free. A death since the claim comes to the same. */
		atomic_store_explicit(word, 0, memory_order_release);
	}
	done(cell);
	if (!mine) atomic_store_explicit(&slab->announce, 0, memory_order_release);
	return error;
}

static int from(hp_pool *pool, uint64_t at)
{
	int error;
	struct pool_wait *cell;
	if (pool->observer) return -EROFS;
	if (!usable(pool, at)) return -EINVAL;
	struct participant *me = participant_with_cell(pool, &cell, &error);
	if (!me) return error;
	_Atomic uint64_t *word = word_at(pool, at);
	for (unsigned round = 0; round < PATIENCE; round++) {
		struct slab *slab;
		unsigned index, class;
		bool untidy = false;
		uint64_t value = atomic_load_explicit(word, memory_order_acquire);
		if (!(value & PUBLISHED) || value & PENDING) return -ENOENT;
		if ((value & ~PUBLISHED) >= pool->capacity ||
		    slab_find(pool, value & ~PUBLISHED, &slab, &index, &class) != SLAB_OBJECT || class >= SLAB_MALLOC_CLASSES)
			return -EINVAL;
		participant_begin(me);
		error = free_claimed(me, cell, at, value, slab, index, class, &untidy);
		participant_end(me);
		if (untidy) slab_tidy(me, class);
		if (error != -EAGAIN) return error;
		if (round % 64 == 63) recover_dead(pool); /* whoever announced himself may have died */
		os_yield();
	}
	return -EAGAIN;
}

int hp_free_from(hp_pool *pool, uint64_t *dst)
{
	if (!pool && !(pool = hp_pool_default())) return -errno;
	return from(pool, offset_of(pool, dst));
}

int unpublish_container(hp_pool *pool)
{
	return from(pool, CONTAINER);
}

/* ---- what the pool asks ---- */

/* First of all that a slot leaves, while its slabs are still its own. Idempotent: what it does depends on the word alone. */
static void recover_cell(hp_pool *pool, uint32_t who)
{
	uint32_t slot = (who >> 16) - 1;
	struct pool_wait *cell = &pool->waits[slot];
	uint32_t intent = atomic_load_explicit(&cell->intent, memory_order_acquire);
	uint64_t object = atomic_load(&cell->object), at = atomic_load(&cell->dst);
	struct slab *slab;
	unsigned index, class;
	if (!intent && !object && !at) return;
	bool known = object < pool->capacity && slab_find(pool, object, &slab, &index, &class) == SLAB_OBJECT;
	if (known && usable(pool, at)) {
		_Atomic uint64_t *word = word_at(pool, at);
		uint64_t claimed = intent == INTENT_INTO ? object | PUBLISHED | PENDING : name_of(slot);
		if (intent == INTENT_INTO)
			atomic_compare_exchange_strong(word, &claimed, slab_live(slab, index) ? object | PUBLISHED : 0);
		if (intent == INTENT_FROM && atomic_load_explicit(word, memory_order_acquire) == claimed) {
			if (slab_live(slab, index)) slab_flip_remote(pool, slab, index);
			atomic_compare_exchange_strong(word, &claimed, 0);
		}
	}
	done(cell);
	uint32_t mine = slot + 1;
	if (known) atomic_compare_exchange_strong(&slab->announce, &mine, 0);
	atomic_store(&cell->object, 0);
	atomic_store(&cell->dst, 0);
}

const struct pool_layer publish_layer = {.recover_slot = recover_cell};
