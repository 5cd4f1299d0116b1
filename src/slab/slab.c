/* A slab by itself: who knows of it, freeing into it by others than its owner, and its end. */
#include "slab/internal.h"

/* Hint: somebody who looks for objects of that class may look into that chunk. */
void slab_note(hp_pool *pool, struct slab *slab, uint32_t page)
{
	unsigned class = atomic_load_explicit(&slab->class, memory_order_relaxed);
	pool_summary *summary = &pool->summary[page >> pool->page_shift_chunk];
	uint64_t bit = UINT64_C(1) << (class & 63);
	atomic_store_explicit(&slab->noted, SLAB_IN_SUMMARY, memory_order_relaxed);
	if (!(atomic_load_explicit(summary, memory_order_relaxed) & bit))
		atomic_fetch_or_explicit(summary, bit, memory_order_relaxed);
}

/* The slab that begins at the page, by what the page layer says: NULL where no live run of a slab begins. */
struct slab *slab_at(const hp_pool *pool, uint64_t page)
{
	const struct parity_unit *unit = &pool->units[page >> pool->page_shift_chunk];
	unsigned i = (unsigned)page & (pool->chunk_pages - 1);
	if (!parity_live(unit, i)) return NULL;
	unsigned len = atomic_load_explicit(&unit->len[i], memory_order_acquire);
	return (len & PARITY_TYPE_MASK) == PAGE_TYPE_SLAB ? &pool->slabs[page] : NULL;
}

int slab_visit_all(hp_pool *pool, uint32_t from, uint32_t to, slab_visit *visit, void *arg)
{
	for (uint32_t chunk = from; chunk < to; chunk++) {
		const struct parity_unit *unit = &pool->units[chunk];
		for (unsigned w = 0; w < pool->chunk_pages / 64; w++) {
			uint64_t a = atomic_load_explicit(&unit->a[w], memory_order_acquire);
			uint64_t heads = a ^ atomic_load_explicit(&unit->r[w], memory_order_acquire);
			for (; heads; heads &= heads - 1) {
				uint32_t page = (uint32_t)(chunk * pool->chunk_pages + w * 64 + (unsigned)__builtin_ctzll(heads));
				struct slab *slab = slab_at(pool, page);
				int stop = slab ? visit(pool, slab, page, arg) : 0;
				if (stop) return stop;
			}
		}
	}
	return 0;
}

/* Constructed objects that are free, in a slab that we hold alone: destroyed, each at most once whenever we die. What is free
 * in a slab of ours is nobody else's to get; no handler of this thread gets it either, since it is held. */
void slab_destroy_objects(hp_pool *pool, struct slab *slab)
{
	unsigned objects = slab_objects(slab);
	const struct slab_class *known = &pool->classes[atomic_load_explicit(&slab->class, memory_order_relaxed)];
	char *object = slab_start(pool, slab, objects, known->size);
	for (unsigned i = 0; i < objects && likely(object != NULL); i++, object += known->size) {
		if (slab_out(pool, slab, i) || !slab_built(slab, i)) continue;
		slab_set_built(slab, i, 0);
		if (known->dtor) known->dtor(known->arg, object);
	}
}

bool slab_has_built(struct slab *slab)
{
	unsigned objects = slab_objects(slab), any = 0;
	for (unsigned i = 0; i < objects; i++) any |= atomic_load_explicit(&slab_built_of(slab)[i], memory_order_relaxed);
	return any;
}

/* Has the cache open, this one and not one that was there before, with the destructor if it was made with one. */
bool slab_may_destroy(const hp_pool *pool, unsigned class)
{
	const struct slab_class *known = &pool->classes[class];
	return known->built && (known->dtor || !(known->cache->constructed & CACHE_DESTROYED)) &&
	       !cache_has_ended(pool, class);
}

/* Ends a slab whose control word is `seen`, if that still holds and nothing lives in it: its pages go back. `destroy`: the
 * caller may call destructors; slabs with constructed objects stay otherwise, and where the destructor is not known. */
bool slab_end(hp_pool *pool, struct slab *slab, uint32_t page, uint64_t seen, bool destroy)
{
	unsigned class = atomic_load_explicit(&slab->class, memory_order_relaxed);
	unsigned extra = atomic_load_explicit(&slab->extra, memory_order_relaxed);
	bool built = extra & SLAB_BUILT && slab_has_built(slab), known = destroy && slab_may_destroy(pool, class);
	/* what stands there while the slab is one is its own: later it may be the claim of the next cache */
	uint64_t place = cache_place_read(pool, class, extra & SLAB_NO_PLACE);
	/* memory of class PROCESS of another process is that one's to give back, or goes back with its record */
	uint64_t tag = atomic_load_explicit(&pool->chunks[page >> pool->page_shift_chunk].tag, memory_order_acquire);
	if (tag && tag != page_tag(pool)) return false;
	if (built && !known) return false;
	/* commit: nobody's to allocate from any more. The word was read before we looked, so nobody has since. */
	uint64_t ours = built ? slab_by_destroyer(pool, seen) : slab_by_record(pool, seen);
	if (!slab_is_empty(pool, slab) || !atomic_compare_exchange_strong(&slab->ctl, &seen, ours)) return false;
	if (built) {
		slab_destroy_objects(pool, slab);
		/* commit: it is none any more. Should we die before, recovery may have no destructor, and gives it to nobody. */
		if (!atomic_compare_exchange_strong(&slab->ctl, &ours, slab_by_record(pool, ours))) return false;
	}
	if (class >= CACHE_FIRST_CLASS) cache_count_held(&pool->caches[class - CACHE_FIRST_CLASS], -1);
	unsigned pages = slab_pages(pool, slab);
	for (unsigned i = 0; i < pages; i++) atomic_store_explicit(&pool->map[page + i], 0, memory_order_relaxed);
	bool freed = page_free_typed(pool, page, PAGE_TYPE_SLAB) == 0;
	if (place) cache_place_free(pool, class, extra & SLAB_NO_PLACE, place);
	return freed;
}

/* Gives a slab to nobody, with what others need to find it; an empty one ends. */
void slab_release(hp_pool *pool, struct slab *slab, uint32_t page, uint64_t seen, bool destroy)
{
	if (pool->joined == participant_fork_generation() && slab_end(pool, slab, page, seen, destroy)) return;
	if (slab_has_free(pool, slab))
		slab_note(pool, slab, page);
	else
		atomic_store_explicit(&slab->noted, SLAB_UNKNOWN, memory_order_relaxed);
	uint64_t nobody = ctl_make(CTL_UNOWNED, 0, 0, seen);
	/* commit: anybody's */
	if (!atomic_compare_exchange_strong(&slab->ctl, &seen, nobody)) return;
	/* Who frees the last object sees that the slab is nobody's, or we see that it was the last. */
	atomic_thread_fence(memory_order_seq_cst);
	if (pool->joined == participant_fork_generation()) slab_end(pool, slab, page, nobody, destroy);
}

uint8_t slab_built(struct slab *slab, unsigned index)
{
	return atomic_load_explicit(&slab_built_of(slab)[index], memory_order_acquire);
}

void slab_set_built(struct slab *slab, unsigned index, uint8_t built)
{
	atomic_store_explicit(&slab_built_of(slab)[index], built, memory_order_release);
}

void slab_flip_remote(hp_pool *pool, struct slab *slab, unsigned index)
{
	_Atomic uint64_t *word = &slab->r[index >> 6];
	/* commit of the free, as in parity_free_remote; that the object is live, and stays so but for us, is the caller's */
	atomic_fetch_xor_explicit(word, UINT64_C(1) << (index & 63), memory_order_release);
	if (atomic_load_explicit(&slab->noted, memory_order_relaxed) == SLAB_UNKNOWN)
		slab_note(pool, slab, (uint32_t)(slab - pool->slabs));
}

/* Somebody else than the owner has freed something, perhaps the last. Hints only: the slab may be another by now. */
void slab_freed_remote(hp_pool *pool, struct slab *slab, bool last)
{
	uint32_t page = (uint32_t)(slab - pool->slabs);
	if (atomic_load_explicit(&slab->noted, memory_order_relaxed) == SLAB_UNKNOWN) slab_note(pool, slab, page);
	if (likely(!last)) return;
	atomic_thread_fence(memory_order_seq_cst); /* as in slab_release */
	uint64_t seen = atomic_load_explicit(&slab->ctl, memory_order_acquire);
	if (ctl_state(seen) == CTL_UNOWNED && pool->joined == participant_fork_generation() && slab_is_empty(pool, slab) &&
	    slab_may_go(pool, atomic_load_explicit(&slab->class, memory_order_relaxed), false))
		slab_end(pool, slab, page, seen, false);
}

uint64_t slab_free_remote(hp_pool *pool, struct slab *slab, unsigned w, uint64_t bits)
{
	_Atomic uint64_t *word = &slab->r[w];
	uint64_t a = atomic_load_explicit(&slab->a[w], memory_order_acquire), later = 0;
	if (unlikely(atomic_load_explicit(&slab->lends, memory_order_acquire)))
		later = slab_free_remote_lent(pool, slab, w, &bits);
	uint64_t r = atomic_load_explicit(word, memory_order_relaxed);
	do {
		bits &= a ^ r;
		if (unlikely(!bits)) return later;
		/* commit: as in parity_free_remote, for all of them at once */
	} while (!atomic_compare_exchange_weak_explicit(word, &r, r ^ bits, memory_order_release, memory_order_relaxed));
	slab_freed_remote(pool, slab, ((a ^ r) & ~bits) == 0);
	return bits | later;
}
