/* The scene of the tests of liveness: a pool, a bystander, and a victim of whom a survivor must know whether it lives.
 *
 * is_alive and is_dead are the two verdicts, with all that must follow: after a real death hp_pool_recover recovers exactly
 * that one, its memory of class PROCESS is free, class POOL stays, and the bystander is unharmed. */
#ifndef HP_SCENE_TEST_H
#define HP_SCENE_TEST_H

#include "hp_process.h"

#include <sys/prctl.h>

#define KEPT_PAGES 5
#define OWN_PAGES 3

/* What one participant holds, told to all. */
struct holding {
	hp_off kept, own; /* class POOL, class PROCESS */
	pid_t pid;
	int result;
};

static struct {
	hp_pool *pool;
	struct holding *of; /* shared: 0 is the bystander's, 1 the victim's */
	struct child bystander;
} scene;

static inline void hold(struct holding *of)
{
	void *block;
	must_be(hp_page_alloc(scene.pool, KEPT_PAGES * PAGE, 0, &block), 0);
	hp_mark(block, KEPT_PAGES, (uint64_t)(of - scene.of) + 100);
	of->kept = hp_pool_offset(scene.pool, block);
	must_be(hp_page_alloc(scene.pool, OWN_PAGES * PAGE, HP_PAGE_PROCESS, &block), 0);
	hp_mark(block, OWN_PAGES, (uint64_t)(of - scene.of) + 200);
	of->own = hp_pool_offset(scene.pool, block);
}

static inline void still_holds(const struct holding *of)
{
	must(hp_marked(hp_pool_pointer(scene.pool, of->kept), KEPT_PAGES, (uint64_t)(of - scene.of) + 100));
	must(hp_marked(hp_pool_pointer(scene.pool, of->own), OWN_PAGES, (uint64_t)(of - scene.of) + 200));
	must_be(hp_page_size_at(scene.pool, of->kept), KEPT_PAGES * PAGE);
	must_be(hp_page_size_at(scene.pool, of->own), OWN_PAGES * PAGE);
}

static inline void let_go(const struct holding *of)
{
	still_holds(of);
	must_be(hp_page_free_at(scene.pool, of->kept), 0);
	must_be(hp_page_free_at(scene.pool, of->own), 0);
}

static inline void bystanding(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[0]);
	child_here(me);
	let_go(&scene.of[0]);
	pool_must_work(scene.pool, MIB);
	must_be(hp_pool_detach(scene.pool), 0);
}

static inline int set_up(void **state)
{
	(void)state;
	scene.pool = hp_plain_pool(8 * MIB, 0);
	scene.of = hp_shared(4096);
	scene.bystander = child_start(bystanding, NULL);
	must(child_hear(&scene.bystander));
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	still_holds(&scene.of[0]);
	child_finish(&scene.bystander);
	hp_must_be_empty(scene.pool);
	must_be(hp_pool_detach(scene.pool), 0);
	munmap(scene.of, 4096);
	return 0;
}

static inline void is_alive(void)
{
	uint64_t recovered = hp_stats(scene.pool).recovered;
	must_be(hp_pool_recover(scene.pool), 0);
	must_be(hp_stats(scene.pool).recovered, recovered);
	still_holds(&scene.of[1]);
	must_be(hp_page_free_at(scene.pool, scene.of[1].own), -EPERM);
	hp_must_be_sound(scene.pool);
}

static inline void is_dead(void)
{
	uint64_t recovered = hp_stats(scene.pool).recovered, blocks = hp_stats(scene.pool).live_blocks;
	must_be(hp_pool_recover(scene.pool), 1);
	must_be(hp_stats(scene.pool).recovered, recovered + 1);
	must_be(hp_stats(scene.pool).live_blocks, blocks - 1);
	must(hp_page_size_at(scene.pool, scene.of[1].own) < 0);
	must_be(hp_page_size_at(scene.pool, scene.of[1].kept), KEPT_PAGES * PAGE);
	must(hp_marked(hp_pool_pointer(scene.pool, scene.of[1].kept), KEPT_PAGES, 101));
	must_be(hp_page_free_at(scene.pool, scene.of[1].kept), 0);
	must_be(hp_pool_recover(scene.pool), 0);
	hp_must_be_sound(scene.pool);
}

static inline void living(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[1]);
	child_here(me);
	let_go(&scene.of[1]);
	must_be(hp_pool_detach(scene.pool), 0);
}

static inline struct child victim(void (*run)(const struct child *me, void *arg), void *arg)
{
	struct child child = child_start(run, arg);
	assert_true(child_hear(&child));
	return child;
}

/* A third one. */
static inline void living_elsewhere(const struct child *me, void *arg)
{
	(void)arg;
	hold(&scene.of[2]);
	child_here(me);
}

#endif
