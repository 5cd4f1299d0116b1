/* What the tests of the collections share: a heap whose root is the structure under test beside a serial number, and the storm:
 * writers that are killed one after the other, readers that verify all the while, and a model kept beside it.
 *
 * What transaction number n does follows from n and the seed. It stores n into the root, so after a kill the root says how far
 * the structure has come, and the model is brought there and compared. Between these transactions a writer makes others, and
 * aborts them. */
#ifndef HP_COLLECTIONS_TEST_H
#define HP_COLLECTIONS_TEST_H

#include "hp_page.h"
#include <hugepool/collections.h>

#define STORM_READERS 2
#define STORM_KILLS (HP_TEST_SANITIZER ? 40 : 200)

struct storm_root {
	HP_REF(void) it;
	uint64_t serial, extra; /* the latter is the structure's own */
};
HP_TYPE(storm_root_type, struct storm_root, (it, hp_any));

/* A value that says whose it is, so that memory used for something else by now is told. */
struct sealed {
	uint64_t what, seal;
};
HP_TYPE_LEAF(sealed_type, struct sealed);

static inline hp_ref seal(hp_tx *tx, uint64_t what)
{
	hp_ref ref = hp_heap_new(tx, &sealed_type, 0);
	struct sealed *sealed = hp_heap_deref(hp_heap_of(tx), ref);
	must_be(hp_heap_error(tx), 0);
	*sealed = (struct sealed){what, what * 31 ^ UINT64_C(0x5ea1ed)};
	return ref;
}

static inline uint64_t unsealed(const hp_heap *heap, hp_ref ref)
{
	must(ref.word);
	const struct sealed *sealed = hp_heap_deref(heap, ref);
	must_be(sealed->what * 31 ^ UINT64_C(0x5ea1ed), sealed->seal);
	return sealed->what;
}

/* In memory of its own; fork copies it. */
struct storm {
	hp_pool *pool;
	hp_heap *heap;
	uint64_t seed;
	unsigned kills; /* 0: STORM_KILLS */
	void *model;
	hp_ref (*make)(hp_tx *tx);
	/* A transaction's work: on the structure, unless tx is NULL, and on the model, unless that is NULL (it will be undone);
	 * on both, what the calls say is compared. */
	void (*change)(struct storm *s, hp_tx *tx, uint64_t *random, void *model);
	void (*verify)(struct storm *s, hp_ref it, uint64_t *random);   /* in a section, beside a writer */
	void (*compare)(struct storm *s, hp_ref it, const void *model); /* in a transaction: exactly */
	struct storm_said {
		_Atomic uint64_t rounds[STORM_READERS];
		_Atomic bool end;
	} * said;
};

static inline struct storm_root *storm_root(const struct storm *s)
{
	return hp_heap_deref(s->heap, hp_heap_root(s->heap));
}

static inline hp_ref storm_it(const struct storm *s)
{
	return hp_heap_load(&storm_root(s)->it.ref);
}

static inline void storm_extra(const struct storm *s, hp_tx *tx, uint64_t extra)
{
	must_be(hp_heap_write(tx, &storm_root(s)->extra, &extra, sizeof extra), 0);
}

static inline uint64_t storm_random(const struct storm *s, uint64_t serial)
{
	uint64_t random = s->seed + serial * UINT64_C(0x2545f4914f6cdd1d);
	hp_random(&random);
	return random;
}

static inline hp_tx *must_begin(hp_heap *heap)
{
	hp_tx *tx;
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	return tx;
}

static inline void storm_begin(struct storm *s, uint64_t bytes)
{
	s->pool = hp_plain_pool(bytes, 0);
	/* a reader may lose its processor in a section for longer than a writer is patient */
	struct hp_heap_options options = {.struct_size = sizeof options, .grace_ms = 10000};
	must_be(hp_heap_create(s->pool, &options, NULL, NULL, &s->heap), 0);
	s->said = hp_shared(sizeof *s->said);
	hp_tx *tx = must_begin(s->heap);
	must_be(hp_heap_set_root(tx, hp_heap_new(tx, &storm_root_type, 0)), 0);
	must_be(hp_heap_set(tx, &storm_root(s)->it.ref, s->make(tx)), 0);
	must_be(hp_heap_commit(tx), 0);
}

static inline void storm_end(struct storm *s)
{
	must_be(hp_heap_destroy(s->heap, 0, 1000), 0);
	hp_pool_recover(s->pool);
	hp_must_be_empty(s->pool);
	must_be(hp_pool_detach(s->pool), 0);
	munmap(s->said, sizeof *s->said);
}

/* Transaction number serial + 1, on the structure and on the model. */
static inline void storm_step(struct storm *s)
{
	hp_tx *tx = must_begin(s->heap);
	uint64_t serial = storm_root(s)->serial + 1, random = storm_random(s, serial);
	s->change(s, tx, &random, s->model);
	must_be(hp_heap_write(tx, &storm_root(s)->serial, &serial, sizeof serial), 0);
	must_be(hp_heap_commit(tx), 0);
}

static inline void storm_abort(struct storm *s, uint64_t *random)
{
	hp_tx *tx = must_begin(s->heap);
	for (unsigned n = 1 + (unsigned)hp_below(random, 3); n--;) s->change(s, tx, random, NULL);
	hp_heap_abort(tx);
}

/* The timer's signal cannot be caught, so the death may be at any instruction. */
static inline void storm_die_within(uint64_t ns)
{
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
	struct itimerspec when = {.it_value = {.tv_nsec = (long)ns + 1}};
	must_be(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	must_be(timer_settime(timer, 0, &when, NULL), 0);
}

static inline void storm_write(struct storm *s, uint64_t random)
{
	uint64_t life = hp_below(&random, 3000000);
	storm_step(s); /* what a first call needs is there before the clock runs */
	storm_die_within(life);
	for (;;) {
		if (hp_below(&random, 4) == 0) storm_abort(s, &random);
		storm_step(s);
		if (hp_below(&random, 500) == 0) hp_heap_gc(s->heap, HP_GC_TRIM, -1);
	}
}

static inline void storm_read(struct storm *s, unsigned reader)
{
	must(nice(5) != -1 || errno == 0); /* the writers' turns are what is waited for */
	uint64_t random = s->seed + reader;
	while (!atomic_load(&s->said->end)) {
		must_be(hp_heap_read_enter(s->pool), 0);
		s->verify(s, storm_it(s), &random);
		hp_heap_read_exit(s->pool);
		atomic_fetch_add(&s->said->rounds[reader], 1);
	}
}

/* The model comes to where the structure is, and both are the same. */
static inline void storm_catch_up(struct storm *s, uint64_t *done)
{
	hp_tx *tx = must_begin(s->heap); /* undoes what the dead one has left */
	for (; *done < storm_root(s)->serial; ++*done) {
		uint64_t random = storm_random(s, *done + 1);
		s->change(s, NULL, &random, s->model);
	}
	s->compare(s, storm_it(s), s->model);
	hp_heap_abort(tx);
}

static inline void storm_run(struct storm *s, const char *name)
{
	pid_t reader[STORM_READERS];
	uint64_t done = storm_root(s)->serial, random;
	s->seed = hp_seed(name);
	random = s->seed ^ 1;
	for (unsigned r = 0; r < STORM_READERS; r++)
		if ((reader[r] = hp_fork()) == 0) {
			storm_read(s, r);
			_exit(0);
		}
	for (unsigned kill = 0, kills = s->kills ? s->kills : STORM_KILLS; kill < kills; kill++) {
		uint64_t own = hp_random(&random);
		pid_t pid = hp_fork();
		if (pid == 0) storm_write(s, own);
		must_be(hp_wait_for(pid), 128 + SIGKILL);
		storm_catch_up(s, &done);
	}
	atomic_store(&s->said->end, true);
	for (unsigned r = 0; r < STORM_READERS; r++) must_be(hp_wait_for(reader[r]), 0);
	struct hp_heap_stat stat;
	must_be(hp_heap_stat(s->heap, &stat), 0);
	print_message("%s: %llu transactions, %llu undone, %llu collections, %llu and %llu looks\n", name,
	              (unsigned long long)done, (unsigned long long)stat.recoveries, (unsigned long long)stat.collections,
	              (unsigned long long)s->said->rounds[0], (unsigned long long)s->said->rounds[1]);
	must(stat.recoveries > 0 && s->said->rounds[0] > 0 && s->said->rounds[1] > 0);
}

/* What lives when everything else has been given back. */
static inline uint64_t live_values(hp_heap *heap)
{
	struct hp_heap_stat stat;
	must_be(hp_heap_gc(heap, HP_GC_WAIT | HP_GC_TRIM, 10000), 0);
	must_be(hp_heap_stat(heap, &stat), 0);
	return stat.values;
}

static inline uint64_t held_bytes(hp_heap *heap)
{
	struct hp_heap_stat stat;
	must_be(hp_heap_stat(heap, &stat), 0);
	return stat.held;
}

#endif
