/* hp_cache_get and hp_cache_put for the inner loop: the common case inline, everything else by the exported functions, with
 * the same arguments, results and errors. What a program that includes this is compiled with has to be the version of the
 * library it runs with; the linker checks that, also the dynamic one at the start: it misses the symbol hp_inline_N.
 *
 * Nothing else in here is for use. */
#ifndef HUGEPOOL_INLINE_H
#define HUGEPOOL_INLINE_H

#include <hugepool/cache.h>
#include <hugepool/heap.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HP_INLINE_STACK 66 /* objects, and where their bits are: {address of the word:58, number of the bit:6} */

struct hp_inline_slot {
	uint32_t in_op, news;
	uint64_t taker, counters[3];
	uint32_t tid, guards;
	uint64_t section;
};

struct hp_inline_magazine {
	char **top;
	struct hp_inline_slot *slot; /* NULL: not for what is in here */
};

struct hp_inline_participant {
	const void *fast;
	struct hp_inline_slot *slot;
	const void *pool;
	uint64_t seen;
	const uint64_t *epoch;
};

struct hp_inline_slab {
	uint32_t version, who;
	uint16_t first, objects;
	uint8_t class_, noted;
	uint16_t reserved;
	uint64_t a[6], r[6];
};

struct hp_inline_cache {
	uintptr_t magazine; /* of nobody; the thread's own is at its distance from there */
	const uint32_t *waiting;
};

struct hp_inline_thread {
	struct hp_inline_participant *current;
	uintptr_t distance;
};

/* Counts up whenever anything in here comes to mean something else. */
#define HP_INLINE_SYMBOL "hp_inline_4"
extern HP_API_DATA __thread struct hp_inline_thread hp_inline_this __asm__(HP_INLINE_SYMBOL)
	__attribute__((tls_model("initial-exec")));

#define HP_INLINE_LIKELY(x) __builtin_expect(!!(x), 1)
#define HP_INLINE_FORCED static inline __attribute__((always_inline)) /* or compilers call it where it is used often */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define HP_INLINE_X86 1 /* one instruction where compilers make two or three of it, and of its accesses to memory */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef HP_INLINE_X86
#endif
#endif
#endif

HP_INLINE_FORCED int hp_inline_enter(struct hp_inline_slot *slot)
{
#ifdef HP_INLINE_X86
	unsigned char was_0;
	__asm__ volatile("subl $1, %0" : "+m"(slot->in_op), "=@ccc"(was_0) : : "memory");
	if (!HP_INLINE_LIKELY(was_0)) __asm__ volatile("addl $1, %0" : "+m"(slot->in_op) : : "memory", "cc");
	return was_0;
#else
	if (!HP_INLINE_LIKELY(!__atomic_load_n(&slot->in_op, __ATOMIC_RELAXED))) return 0;
	__atomic_store_n(&slot->in_op, UINT32_MAX, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return 1;
#endif
}

HP_INLINE_FORCED void hp_inline_flip(uint64_t *a, uint64_t bits)
{
#ifdef HP_INLINE_X86
	__asm__ volatile("xorq %1, %0" : "+m"(*a) : "r"(bits) : "memory", "cc");
#else
	__atomic_store_n(a, __atomic_load_n(a, __ATOMIC_RELAXED) ^ bits, __ATOMIC_RELEASE);
#endif
}

HP_INLINE_FORCED struct hp_inline_magazine *hp_inline_magazine_of(const struct hp_inline_cache *cache)
{
	return (struct hp_inline_magazine *)(__atomic_load_n(&cache->magazine, __ATOMIC_RELAXED) + hp_inline_this.distance);
}

HP_INLINE_FORCED void *hp_cache_get_inline(hp_cache *cache, unsigned flags)
{
	const struct hp_inline_cache *c = (const struct hp_inline_cache *)(const void *)cache;
	struct hp_inline_magazine *mag = hp_inline_magazine_of(c);
	struct hp_inline_slot *slot = __atomic_load_n(&mag->slot, __ATOMIC_RELAXED);
	if (HP_INLINE_LIKELY(slot != NULL) && HP_INLINE_LIKELY(hp_inline_enter(slot))) {
		if (HP_INLINE_LIKELY(!__atomic_load_n(&slot->news, __ATOMIC_ACQUIRE))) {
			char **top = mag->top - 1, *object = *top;
			if (HP_INLINE_LIKELY(object != NULL)) {
				uint64_t at = (uint64_t)(uintptr_t)top[HP_INLINE_STACK];
				mag->top = top;
				hp_inline_flip((uint64_t *)(uintptr_t)(at >> 6), UINT64_C(1) << (at & 63));
				__atomic_store_n(&slot->in_op, 0, __ATOMIC_RELEASE);
				return object;
			}
		}
		__atomic_store_n(&slot->in_op, 0, __ATOMIC_RELEASE);
	}
	return hp_cache_get(cache, flags);
}

/* hp_cache_put, where the inline form has begun it. */
HP_API int hp_cache_put_begun(hp_cache *cache, void *object, struct hp_inline_magazine *mag);

/* Inline is what was got last, so that it need not be looked up. */
HP_INLINE_FORCED int hp_cache_put_inline(hp_cache *cache, void *object)
{
	const struct hp_inline_cache *c = (const struct hp_inline_cache *)(const void *)cache;
	struct hp_inline_magazine *mag = hp_inline_magazine_of(c);
	struct hp_inline_slot *slot = __atomic_load_n(&mag->slot, __ATOMIC_RELAXED);
	if (HP_INLINE_LIKELY(slot != NULL) && HP_INLINE_LIKELY(hp_inline_enter(slot))) {
		if (HP_INLINE_LIKELY(!__atomic_load_n(&slot->news, __ATOMIC_ACQUIRE))) {
			char **top = mag->top;
			if (*top != (char *)object || !object) return hp_cache_put_begun(cache, object, mag);
			uint64_t at = (uint64_t)(uintptr_t)top[HP_INLINE_STACK], bit = UINT64_C(1) << (at & 63);
			uint64_t *a = (uint64_t *)(uintptr_t)(at >> 6);
			uint64_t old = __atomic_load_n(a, __ATOMIC_RELAXED), live = old ^ __atomic_load_n(a + 6, __ATOMIC_RELAXED);
			const struct hp_inline_slab *slab = (const struct hp_inline_slab *)((uintptr_t)a & ~(uintptr_t)127);
			if (HP_INLINE_LIKELY(live & bit) && HP_INLINE_LIKELY(live != bit || slab->noted & 12)) {
				__atomic_store_n(a, old ^ bit, __ATOMIC_RELEASE);
				mag->top = top + 1;
				__atomic_store_n(&slot->in_op, 0, __ATOMIC_RELEASE);
				if (HP_INLINE_LIKELY(!__atomic_load_n(c->waiting, __ATOMIC_RELAXED))) return 0;
				hp_cache_wake(cache);
				return 0;
			}
		}
		__atomic_store_n(&slot->in_op, 0, __ATOMIC_RELEASE);
	}
	return hp_cache_put(cache, object);
}

/* hp_heap_read_enter and hp_heap_read_exit. */
HP_INLINE_FORCED int hp_heap_read_enter_inline(hp_pool *pool)
{
	struct hp_inline_participant *me = hp_inline_this.current;
	if (!HP_INLINE_LIKELY(__atomic_load_n(&me->fast, __ATOMIC_RELAXED) == pool)) return hp_heap_read_enter(pool);
	struct hp_inline_slot *slot = me->slot;
	if (!HP_INLINE_LIKELY(!__atomic_load_n(&slot->section, __ATOMIC_RELAXED))) return hp_heap_read_enter(pool);
	__atomic_store_n(&slot->section, __atomic_load_n(me->epoch, __ATOMIC_ACQUIRE) << 16 | 1, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* what is read comes later: the collector's barrier sees to it */
	return 0;
}

HP_INLINE_FORCED void hp_heap_read_exit_inline(hp_pool *pool)
{
	struct hp_inline_participant *me = hp_inline_this.current;
	struct hp_inline_slot *slot = me->slot;
	if (HP_INLINE_LIKELY(__atomic_load_n(&me->fast, __ATOMIC_RELAXED) == pool) &&
	    HP_INLINE_LIKELY((uint16_t)__atomic_load_n(&slot->section, __ATOMIC_RELAXED) == 1))
		__atomic_store_n(&slot->section, 0, __ATOMIC_RELEASE);
	else
		hp_heap_read_exit(pool);
}

#undef HP_INLINE_FORCED
#undef HP_INLINE_X86
#undef HP_INLINE_LIKELY

#ifdef __cplusplus
}
#endif
#endif
