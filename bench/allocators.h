// The allocators under the shapes of shapes.h, each as a type with the same static functions:
//
//   ready()          null, or why it cannot be measured here; sets it up at its first call
//   alloc(bytes)     null when there is no memory
//   free(at, bytes)
//   held()           bytes of memory that it keeps from everybody else
//   enter()          by a forked process before it uses the heap
//   leave()          and when it has done with it; a thread just ends
//
// Calls go through the dynamic linker's table for everybody, as a user's do. Peers that replace malloc are one type:
// tools/bench preloads them.
#ifndef HUGEPOOL_ALLOCATORS_H
#define HUGEPOOL_ALLOCATORS_H

#include "bench.h"

#include <cstddef>
#include <cstdlib>

#include <hugepool/malloc.h>

// Anonymous memory of this process in bytes: stacks and all, so only differences mean anything.
uint64_t anonymous_memory();

struct Libc {
	static const char *ready()
	{
		return nullptr;
	}
	static void *alloc(size_t bytes)
	{
		return std::malloc(bytes);
	}
	static void free(void *at, size_t)
	{
		std::free(at);
	}
	static uint64_t held()
	{
		return anonymous_memory();
	}
	static void enter() {}
	static void leave() {}
};

#ifdef HAVE_HP_MALLOC
// A shared pool of 256 MiB. What it holds are the pages that the page layer has handed out. Not counted: the control
// file, 1/1700 of the pool whatever is in it.
struct Hugepool {
	static const char *ready();
	static void *alloc(size_t bytes)
	{
		return hp_malloc(pool, bytes);
	}
	static void free(void *at, size_t)
	{
		hp_free(pool, at);
	}
	static uint64_t held();
	static void enter();
	static void leave();

	static hp_pool *pool;
};
#endif

// Bytes that a Counted heap has handed out and not got back, in all threads and forked processes together.
class Live
{
  public:
	static void add(int64_t bytes)
	{
		mine().fetch_add(bytes, std::memory_order_relaxed);
	}
	static int64_t now();

  private:
	static std::atomic<int64_t> &mine();
};

// The same heap with the live bytes counted and every page touched: what memory costs is measured apart from time.
template <class Heap> struct Counted : Heap {
	static void *alloc(size_t bytes)
	{
		char *at = (char *)Heap::alloc(bytes);
		if (!at) return nullptr;
		Live::add((int64_t)bytes);
		for (size_t i = 0; i < bytes; i += 4096) ((volatile char *)at)[i] = 1;
		((volatile char *)at)[bytes - 1] = 1;
		return at;
	}
	static void free(void *at, size_t bytes)
	{
		Live::add(-(int64_t)bytes);
		Heap::free(at, bytes);
	}
};

#endif
