/* What the tests of pools and pages share: pools of plain memory, numbers, random numbers, the checker as an assertion.
 *
 * must() is the assertion of threads and children, where cmocka's cannot be used: it prints the place and aborts, which
 * ends a child with a signal, and a test program with a failure. */
#ifndef HP_PAGE_TEST_H
#define HP_PAGE_TEST_H

#include <hugepool/hugepool.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hp_test.h"

#define PAGE ((size_t)HP_PAGE_SIZE)
#define MIB (UINT64_C(1) << 20)

#define must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #condition); \
			abort(); \
		} \
	} while (0)

#define must_be(got, want) \
	do { \
		long long got_ = (long long)(got), want_ = (long long)(want); \
		if (got_ != want_) { \
			fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, __func__, #got, got_, want_); \
			abort(); \
		} \
	} while (0)

static inline uint64_t hp_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static inline uint64_t hp_below(uint64_t *state, uint64_t n)
{
	return hp_random(state) % n;
}

/* HUGEPOOL_SEED repeats a run; otherwise every run is another one. The seed is printed. */
static inline uint64_t hp_seed(const char *what)
{
	const char *given = getenv("HUGEPOOL_SEED");
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec;
	print_message("%s: HUGEPOOL_SEED=%llu\n", what, (unsigned long long)seed);
	return seed;
}

static inline struct hp_pool_options hp_plain_options(uint64_t size)
{
	return (struct hp_pool_options){
		.struct_size = sizeof(struct hp_pool_options), .size = size, .choice = HP_CHOICE_REQUIRE, .rung = HP_RUNG_4K};
}

static inline hp_pool *hp_plain_pool(uint64_t size, unsigned flags)
{
	struct hp_pool_options options = hp_plain_options(size);
	options.flags = flags;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	return pool;
}

static inline hp_pool *hp_attach_again(hp_pool *pool)
{
	int fds[3];
	hp_pool *again;
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_attach(fds, NULL, &again), 0);
	return again;
}

static inline struct hp_pool_stats hp_stats(hp_pool *pool)
{
	struct hp_pool_stats stats = {.struct_size = sizeof stats};
	must_be(hp_pool_stats(pool, &stats), 0);
	return stats;
}

static inline void hp_print_finding(void *arg, const char *message)
{
	(void)arg;
	fprintf(stderr, "finding: %s\n", message);
}

static inline void hp_must_be_sound(hp_pool *pool)
{
	must_be(hp_pool_check(pool, hp_print_finding, NULL), 0);
}

/* Everything is free, in one run. */
static inline void hp_must_be_empty(hp_pool *pool)
{
	struct hp_pool_stats stats = hp_stats(pool);
	must_be(stats.live_blocks, 0);
	must_be(stats.free, stats.committed);
	must_be(stats.largest, stats.committed);
	hp_must_be_sound(pool);
}

/* A word in every page of a block that says whose it is. */
static inline void hp_mark(void *block, size_t pages, uint64_t whose)
{
	for (size_t i = 0; i < pages; i++) {
		*(volatile uint64_t *)((char *)block + i * PAGE) = whose + i;
		*(volatile uint64_t *)((char *)block + i * PAGE + PAGE - 8) = whose + i;
	}
}

static inline bool hp_marked(const void *block, size_t pages, uint64_t whose)
{
	for (size_t i = 0; i < pages; i++)
		if (*(const volatile uint64_t *)((const char *)block + i * PAGE) != whose + i ||
		    *(const volatile uint64_t *)((const char *)block + i * PAGE + PAGE - 8) != whose + i)
			return false;
	return true;
}

/* Memory that forked children share with the test. */
static inline void *hp_shared(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED);
	return memory;
}

/* A child that does not outlive a test that failed. */
static inline pid_t hp_fork(void)
{
	fflush(NULL);
	pid_t parent = getpid(), pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) _exit(1);
	}
	return pid;
}

static inline int hp_wait_for(pid_t pid)
{
	int status;
	pid_t got;
	while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR) {}
	must_be(got, pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#endif
