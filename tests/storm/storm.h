/* The storm: processes that allocate, free and hand blocks over, pages and objects of hp_malloc, killed at random.
 *
 * What is live is known from outside the pool: one shared word a page, or cell, says who holds what begins there, and
 * changes hands by compare-and-swap; every thread writes down what it is about to do before it does it. So after each kill,
 * with the survivors paused between two operations, every live block of the pool must be in the books, every block in
 * the books must be live, and only what the dead had in hand may be in between. */
#ifndef HP_STORM_H
#define HP_STORM_H

#include "../hp_page.h"

#define STORM_WORKERS 4
#define STORM_THREADS 2 /* of a worker, at most */
#define STORM_PAGES 8192
#define STORM_CELL 512 /* bytes: objects have that many at least, so no two begin in one cell */
#define STORM_CELLS 32768

enum storm_intent { STORM_NONE = 0, STORM_ALLOC = 1, STORM_FREE = 2, STORM_MALLOC = 3, STORM_MFREE = 4 };

struct storm_thread {
	_Atomic uint64_t turns;  /* operations done */
	_Atomic uint64_t intent; /* {offset:60, intent:4} */
	_Atomic unsigned paused;
	uint64_t allocs, frees, mallocs, mfrees, taken_over, refused;
};

struct storm {
	hp_pool *pool;
	uint64_t seed;
	_Atomic unsigned pause;               /* futex */
	_Atomic uint64_t owner[STORM_PAGES];  /* see storm.c */
	_Atomic uint64_t object[STORM_CELLS]; /* the same for objects of hp_malloc, by the cell that they begin in */
	struct storm_thread thread[STORM_WORKERS][STORM_THREADS];
	pid_t pid[STORM_WORKERS];
	unsigned threads[STORM_WORKERS]; /* running in it */
	uint64_t kills, in_hand, audits, blocks_seen, objects_seen, grown;
};

/* Runs until `kills` processes were killed; aborts with a message at the first thing that is wrong. */
void storm_run(uint64_t kills, unsigned flags, uint64_t seed);

#endif
