/* libhugepool_malloc.so: malloc for programs that know nothing of it.
 *
 * The whole family over the process' default pool, which is private memory: a thin layer, because hp_malloc does what
 * malloc promises. The pool is in one static pointer, and the calls are jumps.
 *
 * What is here is the time before there is a pool. The dynamic linker calls malloc before libc has an environment; making
 * the pool may call malloc itself (pthread_atfork, when its table grows); and other threads, or a signal handler, may come
 * along meanwhile. All those get pieces of a static area that are never used again. After that none of it is reached.
 *
 * free() of anything that is not a block of the pool is nothing, which is what pieces of that area need. errno: where
 * POSIX says ENOMEM it is ENOMEM; a free changes it only when something goes wrong in the kernel. */
#include "malloc/default.h"
#include "pool/participant.h"
#include <errno.h>
#include <hugepool/malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define EARLY_BYTES (1u << 20)
#define PAGE ((size_t)HP_PAGE_SIZE)

extern char **environ;

static _Atomic(hp_pool *) pool;
static bool constructed; /* so that an empty environment is one */

/* ---- before there is a pool ---- */

static _Alignas(4096) char early[EARLY_BYTES];
static _Atomic size_t early_used;

static bool is_early(const void *block)
{
	return (uintptr_t)block - (uintptr_t)early < EARLY_BYTES;
}

/* The size lies before the piece. */
static void *early_take(size_t align, size_t size)
{
	size_t used = atomic_load_explicit(&early_used, memory_order_relaxed), at, end;
	if (align < 16) align = 16;
	do {
		at = (used + 16 + align - 1) & ~(align - 1);
		if (size > EARLY_BYTES || align > EARLY_BYTES || (end = at + ((size + 15) & ~(size_t)15)) > EARLY_BYTES) {
			errno = ENOMEM;
			return NULL;
		}
	} while (
		!atomic_compare_exchange_weak_explicit(&early_used, &used, end, memory_order_relaxed, memory_order_relaxed));
	memcpy(early + at - 16, &size, sizeof size);
	return early + at;
}

static size_t early_size(const void *block)
{
	size_t size = 0;
	if ((const char *)block - early >= 16) memcpy(&size, (const char *)block - 16, sizeof size);
	return size;
}

static void say(const char *text)
{
	char line[640];
	int length = snprintf(line, sizeof line, "libhugepool_malloc: %s\n", text);
	if (length > 0 && write(STDERR_FILENO, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1) < 0)
		errno = 0; /* nobody to tell */
}

static __attribute__((noinline, cold)) hp_pool *pool_make(void)
{
	if (!environ && !constructed) return NULL;
	int before = errno;
	participant_fork_unlocked();
	hp_pool *made = default_pool_try(say);
	if (made) {
		atomic_store_explicit(&pool, made, memory_order_release);
		errno = before;
	}
	return made;
}

__attribute__((constructor)) static void begin(void)
{
	constructed = true;
	pool_make();
}

static inline hp_pool *pool_here(void)
{
	return atomic_load_explicit(&pool, memory_order_relaxed); /* what it points to comes with the address */
}

static __attribute__((noinline, cold)) void *early_malloc(size_t align, size_t size)
{
	hp_pool *made = pool_make();
	if (!made) return early_take(align, size);
	return align > 16 ? hp_aligned_alloc(made, align, size) : hp_malloc(made, size);
}

/* ---- the family ---- */

EXPORT void *malloc(size_t size)
{
	hp_pool *here = pool_here();
	if (unlikely(!here)) return early_malloc(0, size);
	return hp_malloc(here, size);
}

EXPORT void free(void *block)
{
	hp_pool *here = pool_here();
	if (likely(here != NULL)) hp_free(here, block);
}

EXPORT void cfree(void *block)
{
	free(block);
}

EXPORT void *calloc(size_t count, size_t size)
{
	hp_pool *here = pool_here();
	if (likely(here != NULL)) return hp_calloc(here, count, size);
	if (__builtin_mul_overflow(count, size, &size)) {
		errno = ENOMEM;
		return NULL;
	}
	void *block = early_malloc(0, size);
	return block ? memset(block, 0, size) : NULL;
}

static __attribute__((noinline, cold)) void *early_realloc(void *block, size_t size)
{
	void *moved = malloc(size);
	size_t old = early_size(block);
	return moved ? memcpy(moved, block, old < size ? old : size) : NULL;
}

EXPORT void *realloc(void *block, size_t size)
{
	hp_pool *here = pool_here();
	if (!block) return malloc(size);
	if (unlikely(size == 0)) { /* as glibc does, on which programs rely */
		free(block);
		return NULL;
	}
	if (unlikely(!here || is_early(block))) return early_realloc(block, size);
	return hp_realloc(here, block, size);
}

EXPORT void *reallocarray(void *block, size_t count, size_t size)
{
	if (__builtin_mul_overflow(count, size, &size)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(block, size);
}

/* A power of two, or errno. */
static void *aligned(size_t align, size_t size)
{
	hp_pool *here = pool_here();
	return likely(here != NULL) ? hp_aligned_alloc(here, align, size) : early_malloc(align, size);
}

/* What is no power of two is rounded up to one, as glibc does. */
EXPORT void *memalign(size_t align, size_t size)
{
	if (align > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	size_t power = 16;
	while (power < align) power *= 2;
	return aligned(power, size);
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
	if (align == 0 || align & (align - 1)) {
		errno = EINVAL;
		return NULL;
	}
	return aligned(align, size);
}

EXPORT int posix_memalign(void **block, size_t align, size_t size)
{
	if (align < sizeof(void *) || align & (align - 1)) return EINVAL;
	int before = errno;
	void *got = aligned(align, size);
	errno = before;
	if (!got) return ENOMEM;
	*block = got;
	return 0;
}

EXPORT void *valloc(size_t size)
{
	return aligned(PAGE, size);
}

EXPORT void *pvalloc(size_t size)
{
	if (size > SIZE_MAX - PAGE) {
		errno = ENOMEM;
		return NULL;
	}
	return aligned(PAGE, size ? (size + PAGE - 1) & ~(PAGE - 1) : PAGE);
}

EXPORT size_t malloc_usable_size(void *block)
{
	hp_pool *here = pool_here();
	if (unlikely(is_early(block))) return early_size(block);
	return block && here ? hp_usable_size(here, block) : 0;
}

/* Keeps `pad` bytes free, and tells whether memory went back. */
EXPORT int malloc_trim(size_t pad)
{
	hp_pool *here = pool_here();
	(void)pad;
	return here && hp_pool_trim(here, 0) > 0;
}
