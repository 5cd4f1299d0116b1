/* What memcheck (Valgrind) and the address sanitizer are told about blocks. Compiled to nothing without either; and active
 * for private pools only, by the mode TRACK, because what other processes do in a shared pool neither can know.
 *
 * Memory of the pool is accessible unless it is an object that was freed through a handle with the mode on, or room behind
 * a block. Whoever gets such memory by another way (pages) has to say so: track_pages. */
#ifndef HUGEPOOL_TRACK_H
#define HUGEPOOL_TRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define TRACK_ASAN 1
#elif defined(__has_include)
#if __has_include(<valgrind/memcheck.h>) && !defined(__SANITIZE_THREAD__)
#include <valgrind/memcheck.h>
#define TRACK_MEMCHECK 1
#endif
#endif

static inline bool track_is_compiled(void)
{
#if defined(TRACK_ASAN) || defined(TRACK_MEMCHECK)
	return true;
#else
	return false;
#endif
}

/* Reads what may be closed to everybody: the bytes that would be a tag or a header, if there is one. */
#if defined(TRACK_ASAN)
__attribute__((no_sanitize_address))
#endif
static inline void
track_peek(void *to, const void *from, size_t bytes)
{
#if defined(TRACK_ASAN)
	for (size_t i = 0; i < bytes; i++) ((volatile char *)to)[i] = ((const volatile char *)from)[i];
#elif defined(TRACK_MEMCHECK)
	VALGRIND_DISABLE_ERROR_REPORTING;
	memcpy(to, from, bytes);
	VALGRIND_ENABLE_ERROR_REPORTING;
	(void)VALGRIND_MAKE_MEM_DEFINED(to, bytes);
#else
	memcpy(to, from, bytes);
#endif
}

/* Before we look at a block or write behind it: all of it may be touched. */
static inline void track_open(const void *block, size_t raw)
{
	(void)block, (void)raw;
#if defined(TRACK_ASAN)
	__asan_unpoison_memory_region(block, raw);
#elif defined(TRACK_MEMCHECK)
	(void)VALGRIND_MAKE_MEM_DEFINED(block, raw);
#endif
}

/* A block begins a life: `size` bytes of `raw`, of which the last `tag` are ours. */
static inline void track_alloc(const void *block, size_t size, size_t raw, size_t tag)
{
	(void)block, (void)size, (void)raw, (void)tag;
#if defined(TRACK_ASAN)
	__asan_unpoison_memory_region(block, raw);
	if (raw - tag > size) __asan_poison_memory_region((const char *)block + size, raw - tag - size);
#elif defined(TRACK_MEMCHECK)
	(void)VALGRIND_MAKE_MEM_NOACCESS(block, raw);
	VALGRIND_MALLOCLIKE_BLOCK(block, size, 0, 0);
	if (tag) (void)VALGRIND_MAKE_MEM_DEFINED((const char *)block + raw - tag, tag);
#endif
}

/* It ends: nobody may touch it. */
static inline void track_free(const void *block, size_t raw)
{
	(void)block, (void)raw;
#if defined(TRACK_ASAN)
	__asan_poison_memory_region(block, raw);
#elif defined(TRACK_MEMCHECK)
	VALGRIND_FREELIKE_BLOCK(block, 0);
	(void)VALGRIND_MAKE_MEM_NOACCESS(block, raw);
#endif
}

/* Pages for another use. */
static inline void track_pages(const void *start, size_t bytes)
{
	(void)start, (void)bytes;
#if defined(TRACK_ASAN)
	__asan_unpoison_memory_region(start, bytes);
#elif defined(TRACK_MEMCHECK)
	(void)VALGRIND_MAKE_MEM_UNDEFINED(start, bytes);
#endif
}

static inline void track_forget(const void *start, size_t bytes)
{
#if defined(TRACK_ASAN)
	__asan_unpoison_memory_region(start, bytes);
#elif defined(TRACK_MEMCHECK)
	(void)VALGRIND_MAKE_MEM_DEFINED(start, bytes);
#else
	(void)start, (void)bytes;
#endif
}

#endif
