/* What the tests of rubbish in shared memory share: words of the pool's data and of its control file that change under the hands
 * of a child, between its calls, as any process that has the pool can write them. The child may get errors and wrong contents;
 * it may not crash, hang, or touch what is not the pool's. */
#ifndef HP_RUBBISH_TEST_H
#define HP_RUBBISH_TEST_H

#include "hp_process.h"

#include "slab/slab.h"

#define RUBBISH_POOL (4 * MIB)
#define RUBBISH_KNOWN 64u

struct rubbish {
	hp_pool *pool;
	bool control;                  /* not in the data alone */
	uint64_t known[RUBBISH_KNOWN]; /* offsets, and other words, that mean something */
	void *part;                    /* of the control file, of special interest */
	size_t part_bytes;
	uint64_t random;
};

static inline uint64_t rubbish_below(struct rubbish *r, uint64_t n)
{
	return hp_below(&r->random, n);
}

static inline uint64_t rubbish_known(struct rubbish *r)
{
	return r->known[rubbish_below(r, RUBBISH_KNOWN)];
}

static inline void rubbish_know(struct rubbish *r, uint64_t word)
{
	r->known[rubbish_below(r, RUBBISH_KNOWN)] = word;
}

/* Some word, mostly where something is, becomes another. */
static inline void rubbish_write(struct rubbish *r)
{
	uint64_t near = rubbish_known(r) & ((UINT64_C(1) << 48) - 1), value;
	if (near >= RUBBISH_POOL) near = 0;
	uint64_t *from = hp_pool_base(r->pool), words = RUBBISH_POOL / 8, at;
	switch (r->control ? rubbish_below(r, 8) : 8) {
	case 0:
		from = (uint64_t *)(void *)r->pool->slabs;
		words = RUBBISH_POOL / PAGE * sizeof *r->pool->slabs / 8;
		at = near / PAGE / 16 * 16 * sizeof *r->pool->slabs / 8 + rubbish_below(r, 256);
		break;
	case 1:
		from = (uint64_t *)(void *)r->pool->map;
		words = RUBBISH_POOL / PAGE;
		at = near / PAGE / 16 * 16 + rubbish_below(r, 16);
		break;
	case 2:
		from = r->part;
		words = r->part_bytes / 8;
		at = rubbish_below(r, words);
		break;
	case 3:
		from = (uint64_t *)(void *)r->pool->control;
		words = r->pool->control_size / 8;
		at = rubbish_below(r, words);
		break;
	default: at = near && rubbish_below(r, 2) ? near / 8 + rubbish_below(r, 64) : rubbish_below(r, words);
	}
	at %= words;
	for (unsigned tries = 0; tries < 5000 && !from[at]; tries++) at = (at + 1) % words;
	switch (rubbish_below(r, 10)) {
	case 0: value = 0; break;
	case 1: value = hp_random(&r->random); break;
	case 2: value = rubbish_known(r); break;
	case 3: value = rubbish_known(r) + rubbish_below(r, 64); break;
	case 4: value = rubbish_known(r) ^ UINT64_C(1) << rubbish_below(r, 64); break;
	case 5: value = rubbish_below(r, 1100); break;
	case 6: value = UINT64_MAX - rubbish_below(r, 3); break;
	case 7: value = UINT64_C(1) << rubbish_below(r, 64); break;
	case 8: /* 16 bits of it */
		value = UINT64_C(0xffff) << 16 * rubbish_below(r, 4);
		value = (from[at] & ~value) | (hp_random(&r->random) & value);
		break;
	default: value = from[at] ^ UINT64_C(1) << rubbish_below(r, 64);
	}
	__atomic_store_n(&from[at], value, __ATOMIC_RELAXED);
}

/* Children that work, a pool each; every other time where the pool ends. */
static inline void rubbish_does_no_harm(void (*work)(struct rubbish *r), uint64_t seeds, bool control)
{
	const char *only = getenv("HUGEPOOL_SEED");
	for (uint64_t seed = only ? strtoull(only, NULL, 10) : 1; seeds--; seed++) {
		hp_pool *pool = hp_plain_pool(RUBBISH_POOL, 0);
		fflush(NULL);
		pid_t pid = fork();
		must(pid >= 0);
		if (pid == 0) {
			struct rubbish r = {.pool = pool, .control = control, .random = seed};
			r.part = pool->control;
			r.part_bytes = PAGE;
			alarm(20); /* a hang is a failure */
			void *lower;
			if (seed % 2) must_be(hp_page_alloc(pool, RUBBISH_POOL / 8 * 7, 0, &lower), 0);
			work(&r);
			_exit(0);
		}
		int status;
		must_be(waitpid(pid, &status, 0), pid);
		if (status) print_message("HUGEPOOL_SEED=%llu\n", (unsigned long long)seed);
		must_be(status, 0);
		hp_pool_recover(pool);
		hp_pool_detach(pool);
		if (only) break;
	}
}

#endif
