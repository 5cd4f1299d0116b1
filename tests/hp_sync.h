/* What the tests of the small shared things share: a pool with its default container, which ends empty, and things opened. */
#ifndef HP_SYNC_TEST_H
#define HP_SYNC_TEST_H

#include <hugepool/sync.h>
#include <pthread.h>
#include <sched.h>

#include "hp_malloc.h"
#include "sync/layout.h"

static inline hp_container hp_sync_container(hp_pool *pool)
{
	hp_container container;
	must_be(hp_container_default(pool, &container), 0);
	return container;
}

static inline hp_mutex hp_sync_mutex(const hp_container *container, const char *name, unsigned flags)
{
	hp_mutex mutex;
	must_be(hp_mutex_open(container, name, flags, &mutex), 0);
	return mutex;
}

static inline hp_sem hp_sync_sem(const hp_container *container, const char *name, unsigned flags, uint32_t value)
{
	hp_sem sem;
	must_be(hp_sem_open(container, name, flags, value, &sem), 0);
	return sem;
}

static inline hp_cond hp_sync_cond(const hp_container *container, const char *name)
{
	hp_cond cond;
	must_be(hp_cond_open(container, name, 0, &cond), 0);
	return cond;
}

/* Everything is unlinked, the container destroyed, and the pool empty; then it is detached. */
static inline void hp_sync_over(hp_pool *pool)
{
	hp_container container = hp_sync_container(pool);
	char name[HP_SYNC_NAME_MAX + 1];
	uint32_t cursor = 0;
	while (hp_container_next(&container, &cursor, name) > 0) must_be(hp_container_unlink(&container, name), 0);
	must_be(hp_container_destroy(&container), 0);
	hp_pool_recover(pool);
	hp_purge(pool);
	hp_must_be_had_whole(pool);
	must_be(hp_pool_detach(pool), 0);
}

/* Until somebody sleeps for it, or is about to. */
static inline void hp_sync_await_flag(void *entry)
{
	while (atomic_load(&((struct sync_entry *)entry)->futex) != 1) sched_yield();
}

#endif
