/* Watching the marks: an eventfd that becomes readable when the number of free objects has crossed one.
 *
 * Getting and putting know nothing of it. One thread of the process, which begins with the first watch and ends with the
 * last, counts the free objects of each watched cache in slices like those of waiting, whoever has got or put them, and
 * writes to the eventfd where a mark was crossed since it last looked. It takes no part in the pool, so there is nothing
 * of it to recover.
 *
 * Watches are private memory, in a list under a lock of its own: threads are made under it, which may allocate. The thread
 * looks at a cache without the lock, for counting takes long; who ends a watch waits until the thread has left it. A forked
 * child inherits the list, whole, since one store puts a watch in or takes it out, but no thread. What it inherits is of an
 * older generation: those watches nobody looks after, and a lock held in such a generation is free. */
#include "cache/cache.h"
#include "cache/region.h"
#include "pool/layers.h"
#include "os/os.h"
#include <errno.h>
#include <stdlib.h>

#define SLICE_NS UINT64_C(5000000)
#define SHARE 16 /* of its time the thread spends one part in so many, however large the pools are */
#define GONE 4u  /* beside the marks: the cache was destroyed */

struct watch {
	hp_cache *cache;
	unsigned marks, crossed; /* HP_CACHE_WATCH_*: wanted, and on whose far side the number was last */
	int fd;
	uint32_t generation; /* participant_fork_generation() it was made in */
	struct watch *next;
};

struct watcher {
	unsigned long thread;
	uint32_t generation;
	bool stops;
	struct watch *looking;  /* it is at that one, without the lock */
	_Atomic uint32_t turns; /* futex of the thread: something is new */
	_Atomic uint32_t looks; /* futex of those who wait for it: it has left one */
};

static struct watch *watches;
static struct watcher *watcher;
static _Atomic bool used;     /* there has been a watch */
static _Atomic uint32_t lock; /* 0, or the generation of the process that holds it */

static uint32_t lock_list(void)
{
	uint32_t generation = participant_fork_generation(), holder = atomic_load(&lock);
	while (holder == generation || !atomic_compare_exchange_strong(&lock, &holder, generation)) {
		os_futex_wait(&lock, generation, SLICE_NS);
		holder = atomic_load(&lock);
	}
	return generation;
}

static void unlock_list(void)
{
	atomic_store(&lock, 0);
	os_futex_wake(&lock, 1);
}

static void look(struct watch *watch)
{
	const hp_cache *cache = watch->cache;
	struct slab_census sum;
	unsigned crossed = GONE;
	if (cache_is_live(cache)) {
		uint64_t low = atomic_load_explicit(&cache->shared->low, memory_order_relaxed);
		uint64_t high = atomic_load_explicit(&cache->shared->high, memory_order_relaxed);
		slab_census(cache->pool, cache->class, &sum);
		if (cache->regions) sum.free = regions_free(cache);
		crossed = (sum.free < low ? HP_CACHE_WATCH_LOW : 0) | (sum.free > high ? HP_CACHE_WATCH_HIGH : 0);
	}
	if (crossed & ~watch->crossed & (watch->marks | GONE)) os_event_signal(watch->fd);
	watch->crossed = crossed;
}

static struct watch *of_generation(struct watch *watch, uint32_t generation)
{
	while (watch && watch->generation != generation) watch = watch->next;
	return watch;
}

/* One look at everything. False: the thread is to end. */
static bool look_at_all(struct watcher *me)
{
	lock_list();
	bool goes_on = !me->stops;
	for (struct watch *watch = goes_on ? of_generation(watches, me->generation) : NULL; watch;
	     watch = of_generation(watch->next, me->generation)) {
		me->looking = watch; /* stays in the list until we have left it */
		unlock_list();
		look(watch);
		lock_list();
		me->looking = NULL;
		atomic_fetch_add(&me->looks, 1);
		os_futex_wake(&me->looks, 1 << 20);
	}
	unlock_list();
	return goes_on;
}

static void *watch_run(void *arg)
{
	struct watcher *me = arg;
	for (;;) {
		uint32_t turn = atomic_load(&me->turns);
		uint64_t began = os_now_ns();
		if (!look_at_all(me)) return NULL;
		uint64_t rest = (os_now_ns() - began) * (SHARE - 1);
		os_futex_wait(&me->turns, turn, rest > SLICE_NS ? rest : SLICE_NS);
	}
}

static void nudge(struct watcher *who)
{
	atomic_fetch_add(&who->turns, 1);
	os_futex_wake(&who->turns, 1);
}

/* Under the lock. */
static int watcher_start(uint32_t generation)
{
	if (watcher && watcher->generation == generation) return 0;
	struct watcher *new = calloc(1, sizeof *new);
	if (!new) return -ENOMEM;
	new->generation = generation;
	int error = os_thread(watch_run, new, &new->thread);
	if (error < 0) {
		free(new);
		return error;
	}
	free(watcher); /* the parent's: there is no such thread here */
	watcher = new;
	return 0;
}

int hp_cache_watch(hp_cache *cache, unsigned marks)
{
	if (!cache || !marks || marks & ~(HP_CACHE_WATCH_LOW | HP_CACHE_WATCH_HIGH)) return -EINVAL;
	if (!cache_is_live(cache)) return -ESTALE;
	struct watch *watch = calloc(1, sizeof *watch);
	int fd = watch ? os_event() : -ENOMEM;
	if (fd < 0) {
		free(watch);
		return fd;
	}
	uint32_t generation = lock_list();
	int error = watcher_start(generation);
	if (error == 0) {
		atomic_store(&used, true);
		*watch = (struct watch){.cache = cache, .marks = marks, .fd = fd, .generation = generation, .next = watches};
		watches = watch;
		nudge(watcher);
	}
	unlock_list();
	if (error == 0) return fd;
	os_close(fd);
	free(watch);
	return error;
}

static bool is_one(const struct watch *watch, const hp_pool *pool, const hp_cache *cache, int fd)
{
	return (!pool || watch->cache->pool == pool) && (!cache || watch->cache == cache) && (fd < 0 || watch->fd == fd);
}

/* Ends those of the pool, the cache, the descriptor (NULL, NULL, -1: whichever): how many. */
static unsigned end_watches(const hp_pool *pool, const hp_cache *cache, int fd)
{
	struct watcher *ended = NULL;
	unsigned count = 0;
	if (!atomic_load(&used)) return 0;
	uint32_t generation = lock_list();
	bool lives = watcher && watcher->generation == generation;
	for (struct watch **link = &watches, *watch; (watch = *link);) {
		if (!is_one(watch, pool, cache, fd)) {
			link = &watch->next;
		} else if (lives && watcher->looking == watch) {
			_Atomic uint32_t *looks = &watcher->looks; /* it does not end as long as there is a watch */
			uint32_t seen = atomic_load(looks);
			unlock_list();
			os_futex_wait(looks, seen, SLICE_NS);
			lock_list();
			lives = watcher && watcher->generation == generation;
			link = &watches;
		} else {
			*link = watch->next;
			os_close(watch->fd);
			free(watch);
			count++;
		}
	}
	if (lives && !of_generation(watches, generation)) {
		ended = watcher;
		watcher = NULL;
		ended->stops = true;
		nudge(ended);
	}
	unlock_list();
	if (ended) os_join(ended->thread);
	free(ended);
	return count;
}

int hp_cache_unwatch(hp_cache *cache, int fd)
{
	return cache && fd >= 0 && end_watches(NULL, cache, fd) ? 0 : -ENOENT;
}

void cache_end_watches(const hp_cache *cache)
{
	end_watches(NULL, cache, -1);
}

static void forget_pool(hp_pool *pool)
{
	end_watches(pool, NULL, -1);
}

const struct pool_layer watch_layer = {.detach = forget_pool};
