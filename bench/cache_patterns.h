// How objects of one size are taken and put back: patterns over a cache of 64-byte objects with get(), put(object),
// get_bulk(n, objects) and put_bulk(n, objects), the same for every implementation.
#ifndef HUGEPOOL_CACHE_PATTERNS_H
#define HUGEPOOL_CACHE_PATTERNS_H

#include "bench.h"

#include <thread>
#include <vector>

constexpr size_t cache_object = 64;

// `count` caches in turn, a power of two; get returns null when it fails.
template <class Cache, unsigned count> void cache_pairs(benchmark::State &state, Cache *caches)
{
	unsigned i = 0;
	for (auto _ : state) {
		Cache &cache = caches[count == 1 ? 0 : i++ % count];
		void *object = cache.get();
		if (__builtin_expect(!object, 0)) return state.SkipWithError("get failed");
		benchmark::DoNotOptimize(object);
		cache.put(object);
	}
}

// 256 objects are out; a random one is put back and another is taken.
template <class Cache> void cache_random(benchmark::State &state, Cache &cache)
{
	constexpr unsigned out = 256, turns = 4096;
	void *object[out];
	std::vector<uint8_t> order(turns);
	uint32_t random = 1;
	for (uint8_t &one : order) one = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
	for (void *&one : object)
		if (!(one = cache.get())) return state.SkipWithError("get failed");
	unsigned turn = 0;
	for (auto _ : state) {
		void *&one = object[order[turn++ % turns]];
		cache.put(one);
		one = cache.get();
		if (__builtin_expect(!one, 0)) return state.SkipWithError("get failed");
		benchmark::DoNotOptimize(one);
	}
	for (void *one : object) cache.put(one);
}

// One iteration takes and puts back n.
template <class Cache> void cache_bulks(benchmark::State &state, Cache &cache, unsigned n)
{
	void *object[64];
	for (auto _ : state) {
		if (__builtin_expect(!cache.get_bulk(n, object), 0)) return state.SkipWithError("get failed");
		benchmark::DoNotOptimize(object);
		cache.put_bulk(n, object);
	}
}

// `cache(i)` is the Cache number i, made at its first use; `ready()` is null, or why there is none.
template <class Cache, typename Ready>
void register_cache_patterns(const std::string &implementation, Ready ready, Cache (*cache)(unsigned))
{
	Register("cache_pair/" + implementation, [=](benchmark::State &state) {
		if (const char *why = ready()) return state.SkipWithError(why);
		Cache one = cache(0);
		cache_pairs<Cache, 1>(state, &one);
	});
	Register("cache_pair/" + implementation + "/caches:8", [=](benchmark::State &state) {
		if (const char *why = ready()) return state.SkipWithError(why);
		std::vector<Cache> eight;
		for (unsigned i = 0; i < 8; i++) eight.push_back(cache(i));
		cache_pairs<Cache, 8>(state, eight.data());
	});
	Register("cache_pair/" + implementation + "/order:random", [=](benchmark::State &state) {
		if (const char *why = ready()) return state.SkipWithError(why);
		Cache one = cache(0);
		cache_random(state, one);
	});
	// By a thread that nobody was told of.
	Register("cache_pair_pthread/" + implementation, [=](benchmark::State &state) {
		if (const char *why = ready()) return state.SkipWithError(why);
		Cache one = cache(0);
		std::thread([&] { cache_pairs<Cache, 1>(state, &one); }).join();
	})->UseRealTime();
}

template <class Cache, typename Ready>
void register_cache_bulk(const std::string &implementation, Ready ready, Cache (*cache)(unsigned))
{
	Register("cache_bulk/" + implementation + "/n:32", [=](benchmark::State &state) {
		if (const char *why = ready()) return state.SkipWithError(why);
		Cache one = cache(0);
		cache_bulks(state, one, 32);
	});
}

#endif
