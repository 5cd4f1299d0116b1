/* The build option HUGEPOOL_MALLOC_LIBC: hp_malloc and its relatives are libc's, so that a program can be compared with and
 * without this malloc by another library alone. Pools are there for all else. A block then belongs to no pool, means nothing
 * to other processes, and wrong frees are what libc makes of them. hp_alloc_into goes on giving blocks of the pool, which
 * hp_free_from frees, and hp_free refuses.
 *
 * Origin: TSLoad's mempool has the same option. */
#ifdef HUGEPOOL_MALLOC_LIBC
#include "debug/debug.h"
#include <hugepool/malloc.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

static void *served(hp_pool *pool, void *block, size_t size)
{
	if (block || !pool || !pool->aborts || errno != ENOMEM) return block;
	debug_say(pool, "hugepool: libc has no memory for a block of %zu bytes, and hp_malloc_abort_on_shortage is set",
	          size);
	abort();
}

void *hp_malloc(hp_pool *pool, size_t size)
{
	return served(pool, malloc(size ? size : 1), size);
}

void *hp_calloc(hp_pool *pool, size_t count, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return served(pool, calloc(1, bytes ? bytes : 1), bytes);
}

void *hp_realloc(hp_pool *pool, void *block, size_t size)
{
	return served(pool, realloc(block, size ? size : 1), size);
}

void *hp_aligned_alloc(hp_pool *pool, size_t align, size_t size)
{
	void *block;
	if (align == 0 || align & (align - 1)) {
		errno = EINVAL;
		return NULL;
	}
	int error = posix_memalign(&block, align < 16 ? 16 : align, size ? size : 1);
	if (error) errno = error;
	return served(pool, error ? NULL : block, size);
}

int hp_free(hp_pool *pool, void *block)
{
	if (pool && hp_pool_offset(pool, block) != HP_OFF_NONE) return -EINVAL;
	free(block);
	return 0;
}

size_t hp_usable_size(hp_pool *pool, const void *block)
{
	(void)pool;
	return malloc_usable_size((void *)block);
}

int hp_malloc_bulk(hp_pool *pool, size_t size, size_t count, void **blocks)
{
	for (size_t i = 0; i < count; i++) {
		if ((blocks[i] = hp_malloc(pool, size))) continue;
		hp_free_bulk(pool, i, blocks);
		return -ENOMEM;
	}
	return 0;
}

int hp_free_bulk(hp_pool *pool, size_t count, void *const *blocks)
{
	int error = 0;
	for (size_t i = 0; i < count; i++) {
		int one = hp_free(pool, blocks[i]);
		if (error == 0) error = one;
	}
	return error;
}

int hp_malloc_abort_on_shortage(hp_pool *pool, bool aborts)
{
	if (!pool && !(pool = hp_pool_default())) return -errno;
	pool->aborts = aborts;
	return 0;
}
#else
typedef int malloc_is_not_libc;
#endif
