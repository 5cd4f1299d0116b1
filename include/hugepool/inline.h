/* hp_cache_get and hp_cache_put for the inner loop: the common case inline, everything else by the exported functions, with
 * the same arguments, results and errors. What a program that includes this is compiled with has to be the version of the
 * library it runs with; hp_cache_create and _open check that.
 *
 * Nothing else in here is for use. */
#ifndef HUGEPOOL_INLINE_H
#define HUGEPOOL_INLINE_H

#include <hugepool/cache.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hp_inline_entry {
	char *object;
	uint64_t where;
};

struct hp_inline_magazine {
	struct hp_inline_entry *top, *base, *limit;
	void *current;
};

struct hp_inline_slot {
	uint32_t in_op, node;
	uint64_t taker;
};

struct hp_inline_thread {
	const void *fast;
	struct hp_inline_slot *slot;
	struct hp_inline_magazine *magazines;
	const void *pool;
	uint64_t seen;
	uint32_t who;
};

struct hp_inline_slab {
	uint32_t version, who;
	uint16_t first, objects;
	uint8_t class_, noted;
	uint16_t reserved;
	uint64_t a[6], r[6];
};

struct hp_inline_cache {
	const void *pool; /* what the thread's `fast` is compared with; of nobody where calls need more */
	char *base;
	uint64_t capacity;
	const uint64_t *map;
	char *slabs;
	const uint32_t *waiting;
	uint32_t class_, skew;
};

extern HP_API __thread struct hp_inline_thread *hp_thread_current __attribute__((tls_model("initial-exec")));

#define HP_INLINE_LIKELY(x) __builtin_expect(!!(x), 1)

static inline void *hp_cache_get_inline(hp_cache *cache, unsigned flags)
{
	const struct hp_inline_cache *c = (const struct hp_inline_cache *)(const void *)cache;
	struct hp_inline_thread *me = hp_thread_current;
	struct hp_inline_slot *slot = me->slot;
	if (HP_INLINE_LIKELY(__atomic_load_n(&me->fast, __ATOMIC_RELAXED) == c->pool) &&
	    HP_INLINE_LIKELY(!__atomic_load_n(&slot->in_op, __ATOMIC_RELAXED))) {
		__atomic_store_n(&slot->in_op, 1, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		if (HP_INLINE_LIKELY(__atomic_load_n(&slot->taker, __ATOMIC_ACQUIRE) == me->seen)) {
			struct hp_inline_magazine *mag = &me->magazines[c->class_];
			struct hp_inline_entry *top = mag->top;
			if (HP_INLINE_LIKELY(top != mag->base)) {
				char *object = top[-1].object;
				uint64_t where = top[-1].where, *a = (uint64_t *)(where >> 6);
				mag->top = top - 1;
				__atomic_store_n(a, __atomic_load_n(a, __ATOMIC_RELAXED) ^ (uint64_t)1 << (where & 63),
				                 __ATOMIC_RELEASE);
				__atomic_store_n(&slot->in_op, 0, __ATOMIC_RELEASE);
				return object;
			}
		}
		__atomic_store_n(&slot->in_op, 0, __ATOMIC_RELEASE);
	}
	return hp_cache_get(cache, flags);
}

static inline int hp_cache_put_inline(hp_cache *cache, void *object)
{
	const struct hp_inline_cache *c = (const struct hp_inline_cache *)(const void *)cache;
	struct hp_inline_thread *me = hp_thread_current;
	struct hp_inline_slot *slot = me->slot;
	uint64_t off = (uint64_t)((char *)object - c->base);
	if (HP_INLINE_LIKELY(__atomic_load_n(&me->fast, __ATOMIC_RELAXED) == c->pool) &&
	    HP_INLINE_LIKELY(off < c->capacity) && HP_INLINE_LIKELY(!__atomic_load_n(&slot->in_op, __ATOMIC_RELAXED))) {
		__atomic_store_n(&slot->in_op, 1, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		if (HP_INLINE_LIKELY(__atomic_load_n(&slot->taker, __ATOMIC_ACQUIRE) == me->seen)) {
			uint64_t map = __atomic_load_n(&c->map[off >> 12], __ATOMIC_RELAXED);
			struct hp_inline_slab *slab =
				(struct hp_inline_slab *)(void *)(c->slabs + (int64_t)((off >> 12) + 1 - (uint8_t)map) * 128);
			uint32_t at = ((uint32_t)off & 4095) + (uint32_t)((int32_t)(int16_t)(map >> 16) * 16);
			uint64_t product = (uint64_t)(at - c->skew) * (uint32_t)(map >> 32);
			uint64_t index = product >> 32;
			if (HP_INLINE_LIKELY((uint8_t)map && (uint8_t)(map >> 8) == c->class_ && index < 384) &&
			    HP_INLINE_LIKELY((uint32_t)product < (uint32_t)(map >> 32)) &&
			    HP_INLINE_LIKELY(__atomic_load_n(&slab->who, __ATOMIC_RELAXED) == me->who)) {
				uint64_t *a = &slab->a[index >> 6], bit = (uint64_t)1 << (index & 63);
				uint64_t old = __atomic_load_n(a, __ATOMIC_RELAXED);
				uint64_t live = old ^ __atomic_load_n(&slab->r[index >> 6], __ATOMIC_RELAXED);
				struct hp_inline_magazine *mag = &me->magazines[c->class_];
				struct hp_inline_entry *top = mag->top;
				if (HP_INLINE_LIKELY(live & bit) && HP_INLINE_LIKELY(top != mag->limit) &&
				    HP_INLINE_LIKELY(live != bit || mag->current == slab)) {
					__atomic_store_n(a, old ^ bit, __ATOMIC_RELEASE);
					top->object = (char *)object;
					top->where = (uint64_t)(uintptr_t)a << 6 | (index & 63);
					mag->top = top + 1;
					__atomic_store_n(&slot->in_op, 0, __ATOMIC_RELEASE);
					if (HP_INLINE_LIKELY(!__atomic_load_n(c->waiting, __ATOMIC_RELAXED))) return 0;
					hp_cache_wake(cache);
					return 0;
				}
			}
		}
		__atomic_store_n(&slot->in_op, 0, __ATOMIC_RELEASE);
	}
	return hp_cache_put(cache, object);
}

#undef HP_INLINE_LIKELY

#ifdef __cplusplus
}
#endif
#endif
