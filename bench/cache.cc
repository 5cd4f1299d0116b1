// hp_cache: called (the exported functions) and inlined, while another process is attached to the pool and uses it.
#include "cache_patterns.h"

#if defined HAVE_HP_CACHE
#include <hugepool/cache.h>
#ifdef HAVE_HP_CACHE_INLINE
#include <hugepool/inline.h>
#endif

#include <csignal>
#include <cstring>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace
{

constexpr unsigned caches = 8;
hp_cache *made[caches];

// Attached by itself, with a page and a slot of its own, until this process ends.
const char *start_companion(hp_pool *pool)
{
	int ready[2], fds[3];
	if (pipe(ready) != 0 || hp_pool_fds(pool, fds) != 0) return "no second process";
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		hp_pool *mine;
		void *block;
		char said = hp_pool_attach(fds, nullptr, &mine) == 0 && hp_page_alloc(mine, HP_PAGE_SIZE, 0, &block) == 0;
		if (getppid() != parent || write(ready[1], &said, 1) != 1) _exit(1);
		for (;;) pause();
	}
	close(ready[1]);
	char said = 0;
	bool ok = pid > 0 && read(ready[0], &said, 1) == 1 && said;
	close(ready[0]);
	return ok ? nullptr : "the second process could not attach";
}

const char *ready()
{
	Pool &pool = object_pool();
	if (!pool) return kept(pool.why());
	static const char *companion = start_companion(pool);
	if (companion) return companion;
	for (unsigned i = 0; i < caches; i++) {
		if (made[i]) continue;
		hp_cache_options options{};
		options.struct_size = sizeof options;
		options.size = cache_object;
		int error = hp_cache_create(pool, ("bench" + std::to_string(i)).c_str(), &options, &made[i]);
		if (error) return kept(std::string("hp_cache_create: ") + std::strerror(-error));
	}
	return nullptr;
}

struct Called {
	hp_cache *cache;

	[[gnu::always_inline]] void *get()
	{
		return hp_cache_get(cache, 0);
	}
	[[gnu::always_inline]] void put(void *object)
	{
		hp_cache_put(cache, object);
	}
	bool get_bulk(unsigned n, void **objects)
	{
		return hp_cache_get_bulk(cache, 0, n, objects) == 0;
	}
	void put_bulk(unsigned n, void *const *objects)
	{
		hp_cache_put_bulk(cache, n, objects);
	}
};

#ifdef HAVE_HP_CACHE_INLINE
struct Inline {
	hp_cache *cache;

	[[gnu::always_inline]] void *get()
	{
		return hp_cache_get_inline(cache, 0);
	}
	[[gnu::always_inline]] void put(void *object)
	{
		hp_cache_put_inline(cache, object);
	}
};
#endif

template <class Cache> Cache cache(unsigned number)
{
	return {made[number]};
}

const bool registered = [] {
	register_cache_patterns<Called>("hugepool", ready, cache<Called>);
	register_cache_bulk<Called>("hugepool", ready, cache<Called>);
#ifdef HAVE_HP_CACHE_INLINE
	register_cache_patterns<Inline>("hugepool_inline", ready, cache<Inline>);
#endif
	return true;
}();

} // namespace
#endif
