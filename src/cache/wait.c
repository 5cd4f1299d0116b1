/* Waiting for objects. Model: tests/models/waiting_model.py.
 *
 * No object is ever on its way to a waiter: a put frees first, then, where the flag says that somebody waits, wakes the one
 * with the lowest ticket, who looks for himself, in everything there is. A waiter has its ticket and the flag out before it
 * looks. Whoever leaves, served or not, wakes the next; the last one takes the flag down, and looks at the tickets again.
 * Sleep is in slices, at whose end the first in the queue looks: that is how memory is noticed that another cache or the
 * page layer has given back. The others look when the first has died, or has not looked for some slices: so is a wake made
 * good that went to one who was stopped. If they looked as well, they would often be quicker than the one who is woken. */
#include "cache/cache.h"
#include "pool/record.h"
#include "pool/layers.h"
#include "os/os.h"
#include <errno.h>

#define SLICE_NS UINT64_C(5000000)
#define PATIENCE 4 /* slices in which the first has not looked */

/* Lives the process of the slot? */
static bool is_alive(hp_pool *pool, uint32_t slot)
{
	uint64_t word = atomic_load_explicit(&pool->slots[slot].word, memory_order_acquire);
	return slot_state(word) == SLOT_LIVE && record_alive(pool, slot_record(word)) != 0;
}

/* The slot with the lowest ticket above *behind, which becomes *behind; or -1. */
static int64_t next_waiter(hp_pool *pool, unsigned class, uint64_t *behind)
{
	uint32_t top = pool_slots_top(pool);
	uint64_t lowest = UINT64_MAX;
	int64_t slot = -1;
	for (uint32_t i = 0; i < top; i++) {
		uint64_t ticket = atomic_load(&pool->waits[i].ticket);
		if (ticket <= *behind || ticket >= lowest || atomic_load(&pool->waits[i].class) != class) continue;
		lowest = ticket;
		slot = i;
	}
	*behind = lowest;
	return slot;
}

/* The slot that has waited longest and is not dead, or -1. */
static int64_t first_waiter(hp_pool *pool, unsigned class, int64_t me)
{
	int64_t slot;
	uint64_t behind = 0;
	do slot = next_waiter(pool, class, &behind);
	while (slot >= 0 && slot != me && !is_alive(pool, (uint32_t)slot));
	return slot;
}

static void wake(hp_pool *pool, unsigned class, struct pool_cache *shared)
{
	uint64_t behind = 0;
	int64_t slot;
	while ((slot = next_waiter(pool, class, &behind)) >= 0) {
		atomic_fetch_add_explicit(&pool->waits[slot].futex, 1, memory_order_release);
		atomic_fetch_add_explicit(&shared->wakes, 1, memory_order_relaxed);
		/* who does not sleep is about to look, or dead */
		if (os_futex_wake(&pool->waits[slot].futex, 1) > 0 || is_alive(pool, (uint32_t)slot)) return;
	}
}

void hp_cache_wake(hp_cache *cache)
{
	wake(cache->pool, cache->class, cache->shared);
}

void cache_given_late(hp_pool *pool, unsigned class)
{
	if (class < CACHE_FIRST_CLASS || class >= SLAB_CLASSES) return;
	struct pool_cache *shared = &pool->caches[class - CACHE_FIRST_CLASS];
	if (atomic_load(&shared->waiting)) wake(pool, class, shared);
}

static void leave(hp_cache *cache, struct pool_wait *wait)
{
	atomic_store(&wait->ticket, 0);
	if (first_waiter(cache->pool, cache->class, -1) >= 0) {
		hp_cache_wake(cache);
		return;
	}
	atomic_store(cache->waiting, 0);
	atomic_thread_fence(memory_order_seq_cst);
	if (first_waiter(cache->pool, cache->class, -1) < 0) return;
	atomic_store(cache->waiting, 1); /* somebody has come meanwhile, and may have put it up before we took it down */
	hp_cache_wake(cache);
}

/* The first, as seen at the end of the latest slice. */
struct first {
	int64_t slot;
	uint64_t ticket;
	uint32_t looks;
	unsigned slices;
};

static bool my_turn(const hp_cache *cache, int64_t me, struct first *last)
{
	int64_t slot = first_waiter(cache->pool, cache->class, me);
	if (slot < 0 || slot == me) return true;
	const struct pool_wait *wait = &cache->pool->waits[slot];
	uint64_t ticket = atomic_load(&wait->ticket);
	uint32_t looks = atomic_load(&wait->looks);
	/* who wants many may look in vain for long, while there is something for those who want one */
	bool same = slot == last->slot && ticket == last->ticket;
	if (same && (looks == last->looks || atomic_load(&wait->run))) return ++last->slices > PATIENCE;
	*last = (struct first){slot, ticket, looks, 0};
	return false;
}

void *cache_wait(hp_cache *cache, unsigned run, unsigned flags, uint64_t deadline, int *error)
{
	hp_pool *pool = cache->pool;
	int found = *error; /* by the caller: who is not the first has nothing newer */
	struct participant *me = participant_get(pool, error);
	if (!me) return NULL;
	struct pool_wait *wait = &pool->waits[me->slot - pool->slots];
	if ((*error = pool_control_populate_at(pool, wait, sizeof *wait)) < 0) return NULL;
	*error = found;
	void *object = NULL;
	struct first first = {.slot = -1};
	atomic_fetch_add_explicit(&cache->shared->waits, 1, memory_order_relaxed);
	atomic_store(&wait->class, cache->class);
	atomic_store(&wait->run, run);
	atomic_store(&wait->ticket, atomic_fetch_add(&cache->shared->tickets, 1) + 1);
	uint32_t before = atomic_load(&wait->looks);
	for (bool woken = false;;) {
		uint32_t turn = atomic_load_explicit(&wait->futex, memory_order_acquire);
		if (!woken) {
			atomic_store(cache->waiting, 1);
			/* the flag before the look: for puts, which read it without a fence, all processors pass one here */
			if (pool->fenced || os_membarrier() < 0) atomic_thread_fence(memory_order_seq_cst);
		}
		if (!cache_is_live(cache)) {
			*error = -ESTALE;
		} else if (my_turn(cache, me->slot - pool->slots, &first)) {
			if (atomic_fetch_add(&wait->looks, 1) != before)
				atomic_fetch_add_explicit(&cache->shared->retries, 1, memory_order_relaxed);
			*error = 0;
			object = cache_take(cache, run, error);
		}
		if (object || (*error != -ENOMEM && *error != -EAGAIN)) break;
		if (*error == -EAGAIN && flags & HP_CACHE_LIMITFAIL) break;
		uint64_t now = os_now_ns();
		if (now >= deadline) {
			*error = -ETIMEDOUT;
			break;
		}
		/* woken: there is something, so the look comes first, and only when it was in vain what is done before sleeping */
		if (woken) {
			woken = false;
			continue;
		}
		os_futex_wait(&wait->futex, turn, deadline - now < SLICE_NS ? deadline - now : SLICE_NS);
		woken = atomic_load_explicit(&wait->futex, memory_order_acquire) != turn;
	}
	leave(cache, wait);
	return object;
}

/* ---- what the pool asks ---- */

static void forget_waiter(hp_pool *pool, uint32_t who)
{
	struct pool_wait *wait = &pool->waits[(who >> 16) - 1];
	if (atomic_load(&wait->ticket)) atomic_store(&wait->ticket, 0);
}

static void settle_limits(hp_pool *pool, uint32_t record, uint32_t generation)
{
	(void)generation; /* another life of the record cannot have begun: it is being recovered */
	for (unsigned i = 0; i < CACHES; i++) cache_limit_settle(&pool->caches[i], (uint64_t)record + 1);
}

const struct pool_layer cache_layer = {.recover_slot = forget_waiter, .recover_record = settle_limits};
