/* The debug modes: each finds its fault, says where, and says nothing where there is none; and nobody is harmed by modes
 * that others have not.
 *
 * Catches: a mode that sees nothing, or sees ghosts (memory that changed hands, arrays, published words, caches with
 * constructors), a wrong free that writes into a block, sizes that are off by the room that tags take, and guard pages that
 * stay closed. */
#include "hp_malloc.h"
#include <hugepool/hugepool.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "cache/cache.h"
#include "debug/debug.h"
#include "debug/track.h"

static hp_pool *pool;
static char said[64][512]; /* the log */
static unsigned lines;

static void note(void *arg, const char *line)
{
	(void)arg;
	snprintf(said[lines++ % 64], sizeof said[0], "%s", line);
}

static bool was_said(const char *text)
{
	for (unsigned i = 0; i < lines && i < 64; i++)
		if (strstr(said[i], text)) return true;
	return false;
}

static hp_pool *make(unsigned flags)
{
	struct hp_pool_options options = {.struct_size = sizeof options,
	                                  .size = 16 * MIB,
	                                  .rung = HP_RUNG_4K,
	                                  .choice = flags & HP_POOL_PRIVATE ? HP_CHOICE_ANY : HP_CHOICE_REQUIRE,
	                                  .flags = flags,
	                                  .log = note};
	hp_pool *made;
	must_be(hp_pool_create(&options, &made), 0);
	lines = 0;
	return made;
}

static int set_up(void **state)
{
	(void)state;
	pool = make(0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must_be(hp_pool_check(pool, hp_print_finding, NULL), 0);
	must_be(hp_pool_detach(pool), 0);
	return 0;
}

static void use_freely(void)
{
	enum { MANY = 500 };
	static char *block[MANY];
	static size_t size[MANY];
	unsigned seed = 7;
	memset(block, 0, sizeof block);
	for (unsigned i = 0; i < 20000; i++) {
		seed = seed * 1103515245u + 12345u;
		unsigned k = seed >> 8 & 0xffff, at = k % MANY;
		if (block[at]) {
			must(hp_filled(block[at], size[at], at));
			must(hp_usable_size(pool, block[at]) >= size[at]);
		}
		if (block[at] && k & 1) {
			must_be(hp_free(pool, block[at]), 0);
			block[at] = NULL;
			continue;
		}
		size_t now = (seed >> 20) % 40 ? (seed >> 4) % 700 : (seed >> 4) % 50000;
		if (block[at] && k & 2) {
			block[at] = hp_realloc(pool, block[at], now);
			must(block[at]);
			must(hp_filled(block[at], now < size[at] ? now / 8 * 8 : size[at] / 8 * 8, at));
		} else {
			if (block[at]) must_be(hp_free(pool, block[at]), 0);
			block[at] = k & 4 ? hp_aligned_alloc(pool, (size_t)16 << k % 9, now) : hp_malloc(pool, now);
			must(block[at]);
			must_be(((uintptr_t)block[at] & (((k & 4) ? (size_t)16 << k % 9 : 16) - 1)), 0);
		}
		size[at] = now;
		hp_fill(block[at], now, at);
	}
	for (unsigned i = 0; i < MANY; i++) must_be(hp_free(pool, block[i]), 0);
}

/* All at once, on a program without fault: nothing is reported, and nothing lost. */
static void nothing_is_said_without_a_fault(void **state)
{
	(void)state;
	static const unsigned modes[] = {HP_DEBUG_POISON,
	                                 HP_DEBUG_CANARY,
	                                 HP_DEBUG_COLD,
	                                 HP_DEBUG_CALLER,
	                                 HP_DEBUG_GUARD,
	                                 HP_DEBUG_POISON | HP_DEBUG_CANARY | HP_DEBUG_COLD | HP_DEBUG_CALLER,
	                                 0};
	for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++) {
		must_be(hp_pool_debug(pool, modes[i]), 0);
		use_freely();
		must_be(hp_pool_debug_findings(pool), 0);
		must_be(lines, 0);
	}
	hp_purge(pool);
	must_be(hp_stats(pool).objects, 0);
}

static void bad_flags_are_refused(void **state)
{
	(void)state;
	must_be(hp_pool_debug(NULL, 0), -EINVAL);
	must_be(hp_pool_debug(pool, 1u << 20), -EINVAL);
	must_be(hp_pool_debug(pool, HP_DEBUG_TRACK), -ENOTSUP);
	must_be(hp_pool_debug(pool, 0), 0);
	must(!pool->debug && !pool->slow); /* and no handle is slow that never had a mode */
	must_be(hp_pool_debug(pool, HP_DEBUG_COLD), 0);
	must(pool->slow);
	must_be(hp_pool_trace(pool, 0), 0);
	must(pool->slow);
}

static void poison_finds_what_is_written_after_free(void **state)
{
	(void)state;
	must_be(hp_pool_debug(pool, HP_DEBUG_POISON), 0);
	for (size_t size = 16; size <= 32768; size = size * 3 / 2) {
		volatile char *block = hp_malloc(pool, size), *again;
		must(block);
		must_be(block[0] & 0xff, 0xa5);
		must_be(hp_free(pool, (void *)block), 0);
		uint64_t before = hp_pool_debug_findings(pool);
		lines = 0;
		block[size / 2 + 1] ^= 1;
		must((again = hp_malloc(pool, size)) == block); /* the magazine's last one comes first */
		must_be(hp_pool_debug_findings(pool), before + 1);
		char text[64];
		snprintf(text, sizeof text, "byte %zu of the object", size / 2 + 1);
		must(was_said(text));
		must_be(hp_free(pool, (void *)again), 0);
		must(hp_malloc(pool, size) == again); /* and once only */
		must_be(hp_pool_debug_findings(pool), before + 1);
	}
}

static void *free_it(void *block)
{
	must_be(hp_free(pool, block), 0);
	return NULL;
}

/* Freed by another thread: found all the same, as long as the owner is the same. */
static void poison_of_another_thread(void **state)
{
	(void)state;
	must_be(hp_pool_debug(pool, HP_DEBUG_POISON), 0);
	enum { MANY = 2000 };
	static volatile char *block[MANY];
	pthread_t thread;
	for (unsigned i = 0; i < MANY; i++) must(block[i] = hp_malloc(pool, 200));
	must_be(pthread_create(&thread, NULL, free_it, (void *)block[7]), 0);
	must_be(pthread_join(thread, NULL), 0);
	block[7][20] ^= 4;
	for (unsigned i = 0; i < MANY && !hp_pool_debug_findings(pool); i++) must(hp_malloc(pool, 200));
	must_be(hp_pool_debug_findings(pool), 1);
}

/* What was poisoned, and used meanwhile by who knows nothing of it, is no finding. */
static void poison_sees_no_ghosts(void **state)
{
	(void)state;
	enum { MANY = 1000 };
	static char *block[MANY];
	int fds[3];
	hp_pool *other;
	must_be(hp_pool_debug(pool, HP_DEBUG_POISON), 0);
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_attach(fds, NULL, &other), 0);
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < MANY; i++) must(block[i] = hp_malloc(pool, 256));
		for (unsigned i = 0; i < MANY; i++) must_be(hp_free(pool, block[i]), 0);
		if (round == 0) hp_purge(pool);
		if (round == 1) { /* off and on again */
			must_be(hp_pool_debug(pool, 0), 0);
			for (unsigned i = 0; i < MANY; i++) memset(block[i] = hp_malloc(pool, 256), 1, 100);
			for (unsigned i = 0; i < MANY; i++) must_be(hp_free(pool, block[i]), 0);
			must_be(hp_pool_debug(pool, HP_DEBUG_POISON), 0);
		}
		if (round == 2) { /* as pages */
			hp_purge(pool);
			void *pages;
			must_be(hp_page_alloc(pool, 4 * MIB, 0, &pages), 0);
			for (size_t at = 0; at < 4 * MIB; at += 512) memset((char *)pages + at, 2, 100);
			must_be(hp_page_free(pool, pages), 0);
		}
		if (round == 3) { /* by a handle without the mode */
			hp_purge(pool);
			for (unsigned i = 0; i < MANY; i++) memset(block[i] = hp_malloc(other, 256), 3, 100);
			for (unsigned i = 0; i < MANY; i++) must_be(hp_free(other, block[i]), 0);
			hp_purge(other);
		}
	}
	for (unsigned i = 0; i < MANY; i++) must(block[i] = hp_malloc(pool, 256));
	uint64_t *word = hp_calloc(pool, 1, 8);
	for (unsigned i = 0; i < 50; i++) {
		must_be(hp_alloc_into(pool, 100, word), 0);
		memset(hp_pool_pointer(pool, hp_published(word)), 4, 50);
		must_be(hp_free_from(pool, word), 0);
		must_be(hp_free(pool, hp_malloc(pool, 100)), 0);
	}
	must_be(hp_pool_debug_findings(pool), 0);
	must_be(hp_pool_detach(other), 0);
}

static void canary_finds_what_is_written_behind(void **state)
{
	(void)state;
	must_be(hp_pool_debug(pool, HP_DEBUG_CANARY), 0);
	for (size_t size = 1; size <= 100000; size = size * 5 / 3 + 1) {
		char *block = hp_malloc(pool, size);
		must(block);
		must_be(hp_usable_size(pool, block), size);
		uint64_t before = hp_pool_debug_findings(pool);
		lines = 0;
		block[size] ^= 1;
		must_be(hp_free(pool, block), -EFAULT);
		must_be(hp_pool_debug_findings(pool), before + 1);
		must(was_said("canary"));
		must_be(hp_usable_size(pool, block), 0); /* it is free all the same */
		block = hp_malloc(pool, size);
		memset(block, 0, size);
		must_be(hp_free(pool, block), 0);
	}
}

/* Room, tag and all: what lies in the tag is found too, and what has no tag at all is not checked. */
static void canary_of_a_long_overrun(void **state)
{
	(void)state;
	must_be(hp_pool_debug(pool, HP_DEBUG_CANARY), 0);
	char *block = hp_malloc(pool, 80); /* 128 with the tag */
	memset(block, 0, 81 + 20);
	must_be(hp_free(pool, block), -EFAULT);
	must(was_said("tag"));
	block = hp_malloc(pool, 80);
	memset(block, 0, 128);
	must_be(hp_free(pool, block), 0);
}

static void *free_all(void *blocks)
{
	must_be(hp_free_bulk(pool, 20, blocks), -EFAULT);
	return NULL;
}

/* Also where many are freed at once, and in the name of another thread. */
static void canary_in_bulk(void **state)
{
	(void)state;
	void *blocks[20];
	pthread_t thread;
	must_be(hp_pool_debug(pool, HP_DEBUG_CANARY), 0);
	for (unsigned round = 0; round < 2; round++) {
		must_be(hp_malloc_bulk(pool, 50, 20, blocks), 0);
		((char *)blocks[13])[50] ^= 1;
		if (round) {
			must_be(pthread_create(&thread, NULL, free_all, blocks), 0);
			must_be(pthread_join(thread, NULL), 0);
		} else {
			free_all(blocks);
		}
		must_be(hp_pool_debug_findings(pool), round + 1);
	}
	must_be(hp_stats(pool).objects, 0);
}

static void wrong_frees_touch_nothing(void **state)
{
	(void)state;
	hp_pool *second = make(0);
	must_be(hp_pool_debug(pool, HP_DEBUG_CANARY | HP_DEBUG_POISON | HP_DEBUG_CALLER), 0);
	char *block = hp_malloc(pool, 1000), *gone = hp_malloc(pool, 1000), *large = hp_malloc(pool, 100000);
	hp_fill(block, 1000, 1);
	hp_fill(large, 100000, 2);
	must_be(hp_free(pool, gone), 0);
	must_be(hp_free(pool, gone), -EALREADY);
	must_be(hp_free(pool, block + 16), -EINVAL);
	must_be(hp_free(pool, block + 1), -EINVAL);
	must(hp_free(pool, large + 4096) < 0);
	must_be(hp_free(second, block), -EINVAL);
	must_be(hp_free(pool, &block), -EINVAL);
	must(hp_filled(block, 1000, 1) && hp_filled(large, 100000, 2));
	must_be(hp_free(pool, block), 0);
	must_be(hp_free(pool, large), 0);
	must_be(hp_pool_debug_findings(pool), 0);
	must_be(hp_pool_detach(second), 0);
}

/* Without the mode a freed block is the next one got; with it not before the other free ones at hand. */
static void cold_puts_off_reuse(void **state)
{
	(void)state;
	void *many[8], *block;
	must_be(hp_malloc_bulk(pool, 64, 8, many), 0);
	must_be(hp_free_bulk(pool, 8, many), 0);
	must_be(hp_free(pool, block = hp_malloc(pool, 64)), 0);
	must(hp_malloc(pool, 64) == block);
	must_be(hp_pool_debug(pool, HP_DEBUG_COLD), 0);
	int error;
	struct participant *me = participant_get(pool, &error);
	const struct slab_mag *mag = &slab_state(me)->mag[slab_malloc_class(64)];
	must(mag->top - mag->base > 2);
	for (ptrdiff_t left = mag->top - mag->base; left > 0; left--) {
		must_be(hp_free(pool, block), 0);
		void *next = hp_malloc(pool, 64);
		must(next != block);
		block = next;
	}
}

static __attribute__((noinline)) void *held_here(size_t size)
{
	void *block = hp_malloc(pool, size);
	__asm__ volatile("" ::: "memory"); /* no tail call: this function is the caller */
	return block;
}

static void *hold_from_a_thread(void *size)
{
	return held_here(*(size_t *)size);
}

static const struct hp_holder *find_holder(const struct hp_holder *holders, int count, void *(*function)(size_t))
{
	for (int i = 0; i < count; i++)
		if (holders[i].caller - (uintptr_t)function < 64) return &holders[i];
	return NULL;
}

static void holders_by_caller(void **state)
{
	(void)state;
	struct hp_holder holders[16];
	void *block[10], *untagged = hp_malloc(pool, 64);
	must_be(hp_pool_debug(pool, HP_DEBUG_CALLER), 0);
	for (unsigned i = 0; i < 10; i++) block[i] = held_here(i == 9 ? 100000 : 100);
	void *other = hp_malloc(pool, 10);
	int count = hp_pool_holders(pool, holders, 16);
	must_be(count, 3);
	const struct hp_holder *here = find_holder(holders, count, held_here);
	must(here == holders); /* the most bytes first */
	must_be(here->blocks, 10);
	must_be(here->bytes, 9 * 100 + 100000);
	must_be(here->pid, getpid());
	must_be(here->tid, gettid());
	must_be(hp_pool_holders(pool, NULL, 0), 3);
	for (int i = 0; i < count; i++)
		if (!holders[i].pid) must_be(holders[i].bytes, 64);

	pthread_t thread;
	size_t size = 50;
	must_be(pthread_create(&thread, NULL, hold_from_a_thread, &size), 0);
	must_be(pthread_join(thread, NULL), 0);
	count = hp_pool_holders(pool, holders, 16);
	here = find_holder(holders, count, held_here);
	must_be(here->blocks, 11);
	must_be(here->tid, 0);

	for (unsigned i = 0; i < 10; i++) must_be(hp_free(pool, block[i]), 0);
	must_be(hp_free(pool, other), 0);
	must_be(hp_free(pool, untagged), 0);
	count = hp_pool_holders(pool, holders, 16);
	must_be(count, 1);
	must_be(holders[0].blocks, 1);

	int fds[3];
	hp_pool *observer;
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_observe(fds, &observer), 0);
	must_be(hp_pool_debug(observer, HP_DEBUG_COLD), -EROFS);
	struct hp_holder seen[2];
	must_be(hp_pool_holders(observer, seen, 2), 1);
	must_be(seen[0].caller, holders[0].caller);
	must_be(hp_pool_detach(observer), 0);
	char text[100];
	struct hp_holder in_libc = {.pid = getpid(), .caller = (uintptr_t)strtol + 4};
	must(hp_holder_name(&in_libc, text, sizeof text) > 0 && strstr(text, "+0x4"));
}

static void one_in_n_fails(void **state)
{
	(void)state;
	struct hp_cache_options options = {.struct_size = sizeof options, .size = 100};
	hp_cache *cache;
	must_be(hp_cache_create(pool, "cache", &options, &cache), 0);
	must_be(hp_pool_debug_fail(pool, 3), 0);
	for (unsigned i = 1; i <= 30; i++) {
		errno = 0;
		void *block = hp_malloc(pool, 100);
		must_be(block == NULL, i % 3 == 0);
		if (!block) must_be(errno, ENOMEM);
		must_be(hp_free(pool, block), 0);
	}
	for (unsigned i = 1; i <= 30; i++) {
		void *object = hp_cache_get(cache, 0);
		must_be(object == NULL, i % 3 == 0);
		must_be(hp_cache_put(cache, object), 0);
	}
	for (unsigned i = 0; i < 30; i++) must_be(hp_cache_put(cache, hp_cache_get(cache, HP_CACHE_WAIT)), 0);
	char *block = hp_malloc(pool, 16);
	must(hp_malloc(pool, 16));
	hp_fill(block, 16, 1);
	must(!hp_realloc(pool, block, 5000) && hp_filled(block, 16, 1)); /* the old one is as it was */
	must_be(hp_pool_debug_fail(pool, 0), 0);
	for (unsigned i = 0; i < 30; i++) must_be(hp_free(pool, hp_malloc(pool, 100)), 0);
	must_be(hp_cache_destroy(cache), 0);
}

static sigjmp_buf touched;

static void caught(int signal)
{
	siglongjmp(touched, signal);
}

/* The signal that touching a byte ends in, or 0. */
static int touch(volatile char *at)
{
	struct sigaction action = {.sa_handler = caught}, before;
	must_be(sigaction(SIGSEGV, &action, &before), 0);
	volatile int got = sigsetjmp(touched, 1);
	if (got == 0) *at = 1;
	must_be(sigaction(SIGSEGV, &before, NULL), 0);
	return got;
}

static int free_as_other(void *block)
{
	return -hp_free(pool, block);
}

static void guard_page_behind_each_block(void **state)
{
	(void)state;
	must_be(hp_pool_debug(pool, HP_DEBUG_GUARD), 0);
	for (size_t size = 1; size < 20000; size = size * 3 + 1) {
		char *block = hp_malloc(pool, size);
		must(block);
		must_be((uintptr_t)(block + (size + 15) / 16 * 16) % 4096, 0);
		must_be(hp_usable_size(pool, block), size);
		memset(block, 1, size);
		must_be(touch(block + size - 1), 0);
		must_be(touch(block + (size + 15) / 16 * 16), SIGSEGV);
		must_be(hp_test_child(free_as_other, block), EPERM);
		must(hp_free(pool, block + 16) < 0);
		char *run = (char *)((uintptr_t)block / 4096 * 4096) - 4096;
		must_be(hp_free(pool, run), -ENOENT); /* where its pages begin */
		must_be(hp_free(pool, block), 0);
		must(hp_free(pool, block) < 0);
	}
	char *aligned = hp_aligned_alloc(pool, 1024, 100);
	must_be((uintptr_t)aligned % 1024, 0);
	must_be((uintptr_t)aligned % 4096, 3072);
	must_be(hp_pool_debug_findings(pool), 0);
	aligned[-1] = 1;
	must_be(hp_free(pool, aligned), -EFAULT);
	char *odd = hp_malloc(pool, 10);
	odd[10] = 1;
	must_be(hp_free(pool, odd), -EFAULT);
	must_be(hp_pool_debug_findings(pool), 2);
	char *block = hp_malloc(pool, 3000);
	hp_fill(block, 3000, 1);
	must((block = hp_realloc(pool, block, 6000)) && hp_filled(block, 3000, 1));
	must_be(hp_usable_size(pool, block), 6000);

	/* every page can be touched again */
	must_be(hp_free(pool, block), 0);
	must_be(hp_pool_debug(pool, 0), 0);
	void *whole;
	uint64_t committed = hp_stats(pool).committed;
	must_be(hp_page_alloc(pool, committed, 0, &whole), 0);
	memset(whole, 1, committed);
	must_be(hp_page_free(pool, whole), 0);
}

static int wait_and_touch(void *arg)
{
	int *ends = arg;
	char *block, byte;
	if (read(ends[0], &block, sizeof block) != sizeof block) return 1;
	byte = block[4096]; /* closed in the parent when we were forked, and pages of anybody by now */
	block[4096] = (char)(byte + 1);
	return 0;
}

/* A child forked while a guard page is closed can touch that page when it is something else. */
static void guard_pages_stay_with_their_process(void **state)
{
	(void)state;
	int ends[2];
	must_be(pipe(ends), 0);
	must_be(hp_pool_debug(pool, HP_DEBUG_GUARD), 0);
	char *block = hp_malloc(pool, 4096);
	pid_t child = fork();
	must(child >= 0);
	if (child == 0) _exit(wait_and_touch(ends));
	must_be(hp_free(pool, block), 0);
	must_be(write(ends[1], &block, sizeof block), sizeof block);
	int status;
	must_be(waitpid(child, &status, 0), child);
	must_be(status, 0);
	close(ends[0]);
	close(ends[1]);
}

static int leave_a_block(void *word)
{
	if (hp_pool_debug(pool, HP_DEBUG_GUARD) < 0) return 1;
	void *block = hp_malloc(pool, 100);
	*(hp_off *)word = hp_pool_offset(pool, block);
	kill(getpid(), SIGKILL);
	return 0;
}

/* Others get an error that harms nobody, and after its owner's death whoever has a mode on can free it. */
static void guarded_blocks_of_others(void **state)
{
	(void)state;
	hp_off *word = hp_malloc(pool, 8);
	must_be(hp_test_child(leave_a_block, word), 128 + SIGKILL);
	void *block = hp_pool_pointer(pool, *word);
	must(hp_free(pool, block) < 0);
	must_be(hp_usable_size(pool, block), 0);
	must_be(hp_pool_recover(pool), 1);
	must_be(hp_pool_debug(pool, HP_DEBUG_CANARY), 0);
	must_be(hp_usable_size(pool, block), 100);
	must_be(hp_free(pool, block), 0);
	must_be(hp_pool_debug_findings(pool), 0);
	must_be(hp_free(pool, word), 0);
}

/* A handle with modes and one without, in the same pool. */
static void handles_with_and_without_modes(void **state)
{
	(void)state;
	int fds[3];
	hp_pool *other;
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_attach(fds, NULL, &other), 0);
	must_be(hp_pool_debug(pool, HP_DEBUG_CANARY | HP_DEBUG_POISON | HP_DEBUG_CALLER | HP_DEBUG_COLD), 0);
	for (size_t size = 1; size < 100000; size = size * 2 + 1) {
		for (unsigned i = 0; i < 50; i++) {
			char *ours = hp_malloc(pool, size), *theirs = hp_malloc(other, size);
			must(ours && theirs);
			must(hp_usable_size(other, hp_pool_pointer(other, hp_pool_offset(pool, ours))) >= size);
			must(hp_usable_size(pool, hp_pool_pointer(pool, hp_pool_offset(other, theirs))) >= size);
			memset(theirs, 0, hp_usable_size(other, theirs));
			memset(ours, 0, size);
			must_be(hp_free(other, hp_pool_pointer(other, hp_pool_offset(pool, ours))), 0);
			must_be(hp_free(pool, hp_pool_pointer(pool, hp_pool_offset(other, theirs))), 0);
		}
	}
	char *block = hp_malloc(pool, 100);
	hp_fill(block, 100, 1);
	char *there = hp_realloc(other, hp_pool_pointer(other, hp_pool_offset(pool, block)), 2000);
	must(there && hp_filled(there, 96, 1));
	must_be(hp_free(other, there), 0);
	must_be(hp_pool_debug_findings(pool), 0);
	must_be(hp_pool_detach(other), 0);
}

/* ---- caches ---- */

static hp_cache *make_cache(size_t size, unsigned flags, hp_ctor_fn *ctor)
{
	struct hp_cache_options options = {.struct_size = sizeof options, .size = size, .flags = flags, .ctor = ctor};
	hp_cache *cache;
	must_be(hp_cache_create(pool, "cache", &options, &cache), 0);
	return cache;
}

static int construct(void *arg, void *object, unsigned flags)
{
	(void)arg;
	(void)flags;
	memset(object, 42, 60);
	return 0;
}

static void caches_poison_and_canary(void **state)
{
	(void)state;
	struct hp_holder holders[8];
	must_be(hp_pool_debug(pool, HP_DEBUG_POISON | HP_DEBUG_CANARY | HP_DEBUG_CALLER), 0);
	for (size_t size = 8; size < 100000; size = size * 3 - 5) {
		hp_cache *cache = make_cache(size, 0, NULL);
		struct hp_cache_stats stats = {.struct_size = sizeof stats};
		must_be(hp_cache_stats(cache, &stats), 0);
		must_be(stats.size, size);
		must(stats.stride >= size + DEBUG_ROOM);
		uint64_t before = hp_pool_debug_findings(pool);
		volatile char *object = hp_cache_get(cache, 0);
		must(object);
		must_be(hp_pool_holders(pool, holders, 8), 1);
		must_be(holders[0].bytes, size);
		must_be(hp_cache_put(cache, (void *)object), 0);
		object[size / 2] ^= 1;
		must(hp_cache_get(cache, 0) == object);
		must_be(hp_pool_debug_findings(pool), before + 1);
		object[size] ^= 1;
		must_be(hp_cache_put(cache, (void *)object), -EFAULT);
		must_be(hp_pool_debug_findings(pool), before + 2);
		must_be(hp_cache_put(cache, (void *)object), -EALREADY);
		must_be(hp_cache_put(cache, hp_cache_get(cache, 0)), 0);

		/* bulk and arrays, and their whole room */
		void *many[100];
		must_be(hp_cache_get_bulk(cache, 0, 100, many), 0);
		for (unsigned i = 0; i < 100; i++) memset(many[i], 1, size);
		must_be(hp_cache_put_bulk(cache, 100, many), 0);
		unsigned n = pool->classes[cache->class].objects < 4 ? 1 : 4;
		for (unsigned i = 0; i < 3; i++) {
			char *array = hp_cache_get_array(cache, 0, n);
			must(array);
			memset(array, 1, n * stats.stride / 2);
			must_be(hp_cache_put_array(cache, array, n), 0);
			must_be(hp_cache_get_bulk(cache, 0, 10, many), 0);
			must_be(hp_cache_put_bulk(cache, 10, many), 0);
		}
		must_be(hp_pool_debug_findings(pool), before + 2);
		must_be(hp_cache_get_bulk(cache, 0, 3, many), 0);
		((char *)many[1])[size] ^= 1;
		must_be(hp_cache_put_bulk(cache, 3, many), -EFAULT);
		must_be(hp_cache_destroy(cache), 0);
	}
}

/* Arrays are looked at when they are got. */
static void caches_poison_of_arrays(void **state)
{
	(void)state;
	must_be(hp_pool_debug(pool, HP_DEBUG_POISON), 0);
	hp_cache *cache = make_cache(100, 0, NULL);
	volatile char *array = hp_cache_get_array(cache, 0, 4);
	must(array);
	must_be(hp_cache_put_array(cache, (void *)array, 4), 0);
	array[250] ^= 1;
	enum { MANY = 2000 };
	static void *many[MANY];
	unsigned got = 0;
	while (got < MANY && !hp_pool_debug_findings(pool)) must(many[got++] = hp_cache_get_array(cache, 0, 4));
	must_be(hp_pool_debug_findings(pool), 1);
	while (got--) must_be(hp_cache_put_array(cache, many[got], 4), 0);
	must_be(hp_cache_destroy(cache), 0);
}

static void caches_put_off_reuse(void **state)
{
	(void)state;
	hp_cache *cache = make_cache(100, 0, NULL);
	void *many[8], *object;
	must_be(hp_cache_get_bulk(cache, 0, 8, many), 0);
	must_be(hp_cache_put_bulk(cache, 8, many), 0);
	must_be(hp_cache_put(cache, object = hp_cache_get(cache, 0)), 0);
	must(hp_cache_get(cache, 0) == object);
	must_be(hp_pool_debug(pool, HP_DEBUG_COLD), 0);
	for (unsigned i = 0; i < 5; i++) {
		must_be(hp_cache_put(cache, object), 0);
		void *next = hp_cache_get(cache, 0);
		must(next != object);
		object = next;
	}
	must_be(hp_cache_put(cache, object), 0);
	must_be(hp_cache_destroy(cache), 0);
}

/* Zeros are promised, and constructed objects stay as they are. */
static void caches_keep_their_promises(void **state)
{
	(void)state;
	must_be(hp_pool_debug(pool, HP_DEBUG_POISON | HP_DEBUG_CANARY | HP_DEBUG_COLD), 0);
	hp_cache *cache = make_cache(60, HP_CACHE_ZERO, NULL);
	for (unsigned i = 0; i < 100; i++) {
		char *object = hp_cache_get(cache, 0);
		for (unsigned k = 0; k < 60; k++) must_be(object[k], 0);
		memset(object, 1, 60);
		must_be(hp_cache_put(cache, object), 0);
	}
	must_be(hp_cache_destroy(cache), 0);
	cache = make_cache(60, 0, construct);
	for (unsigned i = 0; i < 100; i++) {
		char *object = hp_cache_get(cache, 0);
		must_be(object[59], 42);
		must_be(hp_cache_put(cache, object), 0);
		object[0] = 42; /* not looked at */
	}
	must_be(hp_pool_debug_findings(pool), 0);
	must_be(hp_cache_destroy(cache), 0);
}

/* A cache made without modes has no room: no tags, and no wrong reports. */
static void caches_from_before(void **state)
{
	(void)state;
	hp_cache *cache = make_cache(64, 0, NULL);
	must_be(hp_pool_debug(pool, HP_DEBUG_CANARY | HP_DEBUG_CALLER), 0);
	void *object[100];
	must_be(hp_cache_get_bulk(cache, 0, 100, object), 0);
	for (unsigned i = 0; i < 100; i++) memset(object[i], (int)i, 64);
	for (unsigned i = 0; i < 100; i++) must_be(((char *)object[i])[63], (int)i);
	struct hp_holder holder;
	must_be(hp_pool_holders(pool, &holder, 1), 1);
	must_be(holder.pid, 0);
	must_be(holder.blocks, 100);
	must_be(hp_cache_put_bulk(cache, 100, object), 0);
	must_be(hp_pool_debug_findings(pool), 0);
	must_be(hp_cache_destroy(cache), 0);
}

/* ---- the environment, and what else ends or fails ---- */

static void the_environment_sets_modes(void **state)
{
	(void)state;
	setenv("HUGEPOOL_DEBUG", "canary,nonsense,,fail=7,fail=x,cold,track", 1);
	hp_pool *made = NULL, *attached;
	struct hp_pool_options options = {.struct_size = sizeof options, .size = 4 * MIB, .rung = HP_RUNG_4K, .log = note};
	int error = hp_pool_create(&options, &made), fds[3];
	must_be(error, 0);
	must_be(debug_flags(made), HP_DEBUG_CANARY | HP_DEBUG_COLD);
	must_be(made->debug->fail, 7);
	must(was_said("'nonsense' is no mode") && was_said("'fail=x' is no mode") && was_said("track is not possible"));
	must_be(hp_pool_fds(made, fds), 0);
	setenv("HUGEPOOL_DEBUG", "poison", 1);
	must_be(hp_pool_attach(fds, NULL, &attached), 0);
	must_be(debug_flags(attached), HP_DEBUG_POISON);
	must_be(hp_pool_detach(attached), 0);
	options.flags = HP_POOL_PRIVATE;
	options.rung = HP_RUNG_BEST;
	setenv("HUGEPOOL_DEBUG", "track", 1);
	must_be(hp_pool_create(&options, &attached), 0);
	must_be(debug_flags(attached), HP_DEBUG_TRACK);
	must_be(hp_pool_detach(attached), 0);
	unsetenv("HUGEPOOL_DEBUG");
	must_be(hp_pool_attach(fds, NULL, &attached), 0);
	must(!attached->debug && !attached->slow);
	must_be(hp_pool_detach(attached), 0);
	must_be(hp_pool_detach(made), 0);
}

static int run_short(void *aborts)
{
	if (hp_malloc_abort_on_shortage(pool, aborts != NULL) < 0) return 1;
	if (hp_calloc(pool, SIZE_MAX / 2, 4)) return 2; /* no shortage */
	while (hp_malloc(pool, 100000)) {}
	return errno == ENOMEM ? 3 : 4;
}

static void shortage_aborts_when_told_so(void **state)
{
	(void)state;
	must_be(hp_test_child(run_short, NULL), 3);
	hp_pool_detach(pool);
	pool = make(0);
	must_be(hp_test_child(run_short, pool), 128 + SIGABRT);
}

/* In a private pool a forked child may free its copies. */
static int free_in_the_child(void *block)
{
	int error = hp_free(pool, block);
	return error ? -error : hp_pool_debug_findings(pool) != 0;
}

static void private_pools_and_fork(void **state)
{
	(void)state;
	hp_pool *shared = pool;
	pool = make(HP_POOL_PRIVATE);
	must_be(hp_pool_debug(pool, HP_DEBUG_GUARD | HP_DEBUG_CANARY), 0);
	char *block = hp_malloc(pool, 100);
	must_be(hp_test_child(free_in_the_child, block), 0);
	must_be(hp_free(pool, block), 0);
	must_be(hp_pool_debug(pool, HP_DEBUG_TRACK | HP_DEBUG_POISON), 0);
	use_freely();
	must_be(hp_pool_debug_findings(pool), 0);
	void *pages;
	hp_purge(pool);
	must_be(hp_page_alloc(pool, 4 * MIB, 0, &pages), 0);
	memset(pages, 1, 4 * MIB); /* a sanitizer that takes them for freed objects would say so */
	must_be(hp_page_free(pool, pages), 0);
	hp_pool_detach(pool);
	pool = shared;
}

/* Only in a build with the address sanitizer: freed memory, and the room behind a block, are closed to it. */
static void the_address_sanitizer_is_told(void **state)
{
	(void)state;
#ifdef TRACK_ASAN
	hp_pool *shared = pool;
	pool = make(HP_POOL_PRIVATE);
	must_be(hp_pool_debug(pool, HP_DEBUG_TRACK), 0);
	char *block = hp_malloc(pool, 100);
	must(!__asan_region_is_poisoned(block, 100));
	must(__asan_address_is_poisoned(block + 100) && __asan_address_is_poisoned(block + 110));
	must_be(hp_free(pool, block), 0);
	must(__asan_address_is_poisoned(block) && __asan_address_is_poisoned(block + 99));
	hp_cache *cache = make_cache(100, 0, NULL);
	block = hp_cache_get(cache, 0);
	must(!__asan_region_is_poisoned(block, 100) && __asan_address_is_poisoned(block + 100));
	must_be(hp_cache_put(cache, block), 0);
	must(__asan_address_is_poisoned(block));
	must_be(hp_pool_debug(pool, 0), 0);
	must(!__asan_address_is_poisoned(block));
	must_be(hp_cache_destroy(cache), 0);
	hp_pool_detach(pool);
	pool = shared;
#else
	hp_test_skip_one("this build has no address sanitizer");
#endif
}

int main(void)
{
	unsetenv("HUGEPOOL_DEBUG");
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(nothing_is_said_without_a_fault),
		T(bad_flags_are_refused),
		T(poison_finds_what_is_written_after_free),
		T(poison_of_another_thread),
		T(poison_sees_no_ghosts),
		T(canary_finds_what_is_written_behind),
		T(canary_of_a_long_overrun),
		T(canary_in_bulk),
		T(wrong_frees_touch_nothing),
		T(cold_puts_off_reuse),
		T(holders_by_caller),
		T(one_in_n_fails),
		T(guard_page_behind_each_block),
		T(guard_pages_stay_with_their_process),
		T(guarded_blocks_of_others),
		T(handles_with_and_without_modes),
		T(caches_poison_and_canary),
		T(caches_poison_of_arrays),
		T(caches_put_off_reuse),
		T(caches_keep_their_promises),
		T(caches_from_before),
		T(the_environment_sets_modes),
		T(shortage_aborts_when_told_so),
		T(private_pools_and_fork),
		T(the_address_sanitizer_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
