/* Runs inside a machine of several NUMA nodes (numa_test.sh boots one): is every page where the policy says?
 *
 * The answer comes from the kernel, not from the library: move_pages for every page, and the counters of each node, read
 * before and after. A machine of two nodes, or of four with distances between them (argument "far").
 *
 * Catches: pages on a wrong node; a shortage on one node that is not seen in time, or drains the other; a report that
 * does not name the node; allocation that ignores the node asked for, or that takes from a far one while a near one has
 * memory; pages that a killed grower leaves behind on its node. */
#include "hp_page.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

#define PAGE_2M (2 * MIB)

static const hp_rung rungs[] = {HP_RUNG_4K, HP_RUNG_2M};

static size_t rung_size(hp_rung rung)
{
	return rung == HP_RUNG_2M ? PAGE_2M : PAGE;
}

/* ---- what the kernel says ---- */

static int node_of(void *page)
{
	int status = -1;
	must_be(syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0), 0);
	return status;
}

/* How many of the pages of a range lie on each node; each must be on one. */
static void count_nodes(char *start, uint64_t bytes, size_t step, uint64_t count[4])
{
	void *page[512];
	int status[512];
	memset(count, 0, 4 * sizeof *count);
	for (uint64_t at = 0; at < bytes;) {
		unsigned long n = 0;
		for (; n < 512 && at < bytes; at += step) page[n++] = start + at;
		must_be(syscall(SYS_move_pages, 0, n, page, NULL, status, 0), 0);
		for (unsigned long i = 0; i < n; i++) {
			must(status[i] >= 0 && status[i] < 4);
			count[status[i]]++;
		}
	}
}

static long long number_in(const char *path, const char *key)
{
	char text[8192];
	FILE *file = fopen(path, "r");
	must(file);
	size_t length = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[length] = 0;
	char *at = key ? strstr(text, key) : text;
	must(at);
	return strtoll(at + (key ? strlen(key) : 0), NULL, 10);
}

/* Pages of the rung that are used, of shared memory, on a node. */
static long long used_on(int node, hp_rung rung)
{
	char path[128];
	if (rung == HP_RUNG_2M) {
		char total[128];
		snprintf(path, sizeof path, "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/free_hugepages", node);
		snprintf(total, sizeof total, "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages", node);
		return number_in(total, NULL) - number_in(path, NULL);
	}
	snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", node);
	return number_in(path, " Shmem:") / 4;
}

static long long free_huge_on(int node)
{
	char path[128];
	snprintf(path, sizeof path, "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/free_hugepages", node);
	return number_in(path, NULL);
}

/* The kernel counts ordinary pages in batches a CPU. */
static bool about(long long got, long long want, hp_rung rung)
{
	long long slack = rung == HP_RUNG_2M ? 0 : 400;
	return got >= want - slack && got <= want + slack;
}

static void run_on(int node)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(node, &set); /* one CPU a node */
	must_be(sched_setaffinity(0, sizeof set, &set), 0);
	unsigned cpu, at;
	must_be(syscall(SYS_getcpu, &cpu, &at, NULL), 0);
	must_be(at, node);
}

/* ---- pools ---- */

static int try_pool(hp_rung rung, uint64_t size, uint64_t capacity, struct hp_numa numa, struct hp_report *report,
                    hp_pool **pool)
{
	struct hp_pool_options options = {.struct_size = sizeof options,
	                                  .size = size,
	                                  .capacity = capacity,
	                                  .choice = HP_CHOICE_REQUIRE,
	                                  .rung = rung,
	                                  .numa = numa,
	                                  .report = report,
	                                  .flags = HP_POOL_NO_AUTOGROW};
	memset(report, 0, sizeof *report);
	return hp_pool_create(&options, pool);
}

static hp_pool *must_pool(hp_rung rung, uint64_t size, uint64_t capacity, struct hp_numa numa)
{
	static struct hp_report report;
	hp_pool *pool;
	int error = try_pool(rung, size, capacity, numa, &report, &pool);
	if (error) {
		char text[4096];
		hp_report_text(&report, text, sizeof text);
		fprintf(stderr, "%s\n", text);
	}
	must_be(error, 0);
	return pool;
}

static uint64_t stats_on(hp_pool *pool, int node, bool only_free)
{
	struct hp_pool_stats stats = hp_stats(pool);
	for (unsigned i = 0; i < stats.nodes; i++)
		if (stats.node[i].node == node) return only_free ? stats.node[i].free : stats.node[i].committed;
	return 0;
}

/* ---- policies ---- */

static void policy_places_every_page(hp_rung rung, hp_numa_policy policy, int strict, uint64_t nodes, int from,
                                     uint64_t expected)
{
	static struct hp_report report;
	uint64_t size = 16 * MIB, step = rung_size(rung), total = size / step, count[4];
	long long before[2] = {used_on(0, rung), used_on(1, rung)};
	hp_pool *pool;
	run_on(from);
	must_be(try_pool(rung, size, 0, (struct hp_numa){policy, strict, nodes}, &report, &pool), 0);
	count_nodes(hp_pool_base(pool), size, step, count);
	uint64_t wanted = (uint64_t)__builtin_popcountll(expected), got = 0;
	for (int n = 0; n < 2; n++) {
		bool in = expected >> n & 1;
		if (!in) must_be(count[n], 0);
		if (in && policy == HP_NUMA_INTERLEAVE) must(count[n] >= total / wanted && count[n] <= total / wanted + 1);
		got += count[n];
		if (!about(used_on(n, rung) - before[n], (long long)count[n], rung))
			must_be(used_on(n, rung) - before[n], count[n]);
		/* and the report says the same */
		uint64_t said = 0;
		for (unsigned i = 0; i < report.nodes; i++)
			if (report.node[i].node == n) said = report.node[i].pages;
		must_be(said, count[n]);
		if (wanted == 1 || rung == HP_RUNG_2M) must_be(stats_on(pool, n, false), count[n] * step);
	}
	must_be(got, total);
	for (unsigned i = 0; i < report.nodes; i++) must_be(report.node[i].misplaced, 0);
	must_be(report.numa_error, 0);
	must_be(report.rung_got, rung);
	/* what it is used for later moves nothing */
	void *block;
	must_be(hp_page_alloc(pool, size, 0, &block), 0);
	must_be(hp_page_zero(pool, block, 4 * MIB), 0);
	uint64_t again[4];
	count_nodes(block, size, step, again);
	must_be(memcmp(count, again, sizeof count), 0);
	must_be(hp_page_free(pool, block), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	for (int n = 0; n < 2; n++) must(about(used_on(n, rung), before[n], rung));
}

static void every_policy_places_every_page(void **state)
{
	(void)state;
	for (unsigned r = 0; r < 2; r++)
		for (int strict = 0; strict < 2; strict++)
			for (int from = 0; from < 2; from++) {
				hp_rung rung = rungs[r];
				if (rung == HP_RUNG_4K && strict != from) continue; /* half of them: emulation is slow */
				uint64_t here = UINT64_C(1) << from, there = here ^ 3;
				policy_places_every_page(rung, HP_NUMA_BIND, strict, there, from, there);
				policy_places_every_page(rung, HP_NUMA_BIND, strict, here, from, here);
				policy_places_every_page(rung, HP_NUMA_BIND, strict, 0, from, here);
				policy_places_every_page(rung, HP_NUMA_BIND, strict, 3, from, 3);
				policy_places_every_page(rung, HP_NUMA_PREFERRED, strict, there, from, there);
				policy_places_every_page(rung, HP_NUMA_PREFERRED, strict, 0, from, here);
				policy_places_every_page(rung, HP_NUMA_PREFERRED, strict, 3, from, 1); /* the lowest */
				policy_places_every_page(rung, HP_NUMA_INTERLEAVE, strict, 3, from, 3);
				policy_places_every_page(rung, HP_NUMA_INTERLEAVE, strict, 0, from, 3);
				policy_places_every_page(rung, HP_NUMA_INTERLEAVE, strict, there, from, there);
				policy_places_every_page(rung, HP_NUMA_LOCAL, strict, 0, from, here);
			}
}

/* ---- shortage on one node ---- */

/* Carries out a cure of the form "echo NUMBER > PATH". */
static void carry_out(const char *cure)
{
	long long number;
	char path[256], text[32];
	must_be(sscanf(cure, "echo %lld > %255s", &number, path), 2);
	int fd = open(path, O_WRONLY), length = snprintf(text, sizeof text, "%lld", number);
	must(fd >= 0);
	must_be(write(fd, text, (size_t)length), length);
	close(fd);
}

static void a_node_short_of_huge_pages_fails_cleanly(void **state)
{
	(void)state;
	static struct hp_report report;
	long long before[2] = {free_huge_on(0), free_huge_on(1)};
	uint64_t size = (uint64_t)(before[1] + 10) * PAGE_2M;
	hp_pool *pool = NULL;
	run_on(0);
	must(before[0] + before[1] >= before[1] + 20); /* the total would do */
	for (int strict = 0; strict < 2; strict++) {
		struct hp_numa bind = {HP_NUMA_BIND, strict, 2};
		must_be(try_pool(HP_RUNG_2M, size, 0, bind, &report, &pool), -ENOMEM);
		must(!pool);
		bool named = false;
		for (unsigned i = 0; i < report.rungs; i++)
			if (report.rung[i].rung == HP_RUNG_2M) {
				must_be(report.rung[i].error, -ENOMEM);
				must(strstr(report.rung[i].cause, "node 1"));
				must(strstr(report.rung[i].cure,
				            "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"));
				named = true;
			}
		must(named);
		char text[4096];
		must(hp_report_text(&report, text, sizeof text) > 0);
		must(strstr(text, "node 1") && strstr(text, "node1/hugepages"));
		for (int n = 0; n < 2; n++) must_be(free_huge_on(n), before[n]); /* nothing was taken, or it was given back */
	}
	/* preferred: the rest comes from the other node, and is said; strictly it is refused */
	struct hp_numa prefer = {HP_NUMA_PREFERRED, 0, 2};
	must_be(try_pool(HP_RUNG_2M, size, 0, prefer, &report, &pool), 0);
	uint64_t count[4], misplaced = 0;
	count_nodes(hp_pool_base(pool), size, PAGE_2M, count);
	must_be(count[1], before[1]);
	must_be(count[0], 10);
	for (unsigned i = 0; i < report.nodes; i++) misplaced += report.node[i].misplaced;
	must_be(misplaced, 10);
	must_be(stats_on(pool, 0, false), 10 * PAGE_2M);
	hp_pool_detach(pool);
	prefer.strict = 1;
	must_be(try_pool(HP_RUNG_2M, size, 0, prefer, &report, &pool), -ENOMEM);
	struct hp_numa spread = {HP_NUMA_INTERLEAVE, 1, 3};
	must_be(try_pool(HP_RUNG_2M, (uint64_t)(before[1] * 2 + 8) * PAGE_2M, 0, spread, &report, &pool), -ENOMEM);
	for (int n = 0; n < 2; n++) must_be(free_huge_on(n), before[n]);
	/* the ladder goes down instead, if it may, and stays on the node */
	struct hp_pool_options options = {.struct_size = sizeof options,
	                                  .size = size,
	                                  .choice = HP_CHOICE_PREFER,
	                                  .rung = HP_RUNG_2M,
	                                  .numa = {HP_NUMA_BIND, 1, 2},
	                                  .report = &report};
	must_be(hp_pool_create(&options, &pool), 0);
	must(report.rung_got > HP_RUNG_2M);
	count_nodes(hp_pool_base(pool), size, PAGE_2M / 8, count);
	must_be(count[0], 0);
	hp_pool_detach(pool);
	/* growth is refused in the same way, and leaves the pool as it was */
	pool = must_pool(HP_RUNG_2M, 8 * MIB, size + 8 * MIB, (struct hp_numa){HP_NUMA_BIND, 1, 1});
	struct hp_numa bind = {HP_NUMA_BIND, 1, 2};
	memset(&report, 0, sizeof report);
	must_be(hp_pool_grow(pool, size, &bind, &report), -ENOMEM);
	char text[4096];
	hp_report_text(&report, text, sizeof text);
	must(strstr(text, "node 1"));
	must_be(hp_stats(pool).committed, 8 * MIB);
	must_be(free_huge_on(1), before[1]);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	/* and the cure cures */
	must_be(try_pool(HP_RUNG_2M, size, 0, bind, &report, &pool), -ENOMEM);
	for (unsigned i = 0; i < report.rungs; i++)
		if (report.rung[i].rung == HP_RUNG_2M) carry_out(report.rung[i].cure);
	must_be(try_pool(HP_RUNG_2M, size, 0, bind, &report, &pool), 0);
	count_nodes(hp_pool_base(pool), size, PAGE_2M, count);
	must_be(count[1], size / PAGE_2M);
	hp_pool_detach(pool);
	char undo[256];
	snprintf(undo, sizeof undo, "echo %lld > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages",
	         before[1]);
	carry_out(undo);
}

static void a_node_short_of_memory_fails_cleanly(void **state)
{
	(void)state;
	static struct hp_report report;
	long long there = number_in("/sys/devices/system/node/node1/meminfo", " MemFree:") / 1024;
	long long here = number_in("/sys/devices/system/node/node0/meminfo", " MemFree:") / 1024;
	uint64_t size = (uint64_t)(there + here / 3) * MIB;
	hp_pool *pool = NULL;
	for (int strict = 0; strict < 2; strict++) {
		must_be(try_pool(HP_RUNG_4K, size, 0, (struct hp_numa){HP_NUMA_BIND, strict, 2}, &report, &pool), -ENOMEM);
		must(!pool);
		char text[4096];
		hp_report_text(&report, text, sizeof text);
		if (!strstr(text, "node 1")) fprintf(stderr, "%s\n", text);
		must(strstr(text, "node 1"));
	}
	long long after = number_in("/sys/devices/system/node/node1/meminfo", " MemFree:") / 1024;
	must(after > there - 20);
}

/* ---- allocation ---- */

/* Chunks that lie on several nodes serve nobody who insists on one. */
static void strict_requests_get_no_mixed_memory(void **state)
{
	(void)state;
	static const struct hp_numa mixed[] = {{HP_NUMA_INTERLEAVE, 0, 3}, {HP_NUMA_BIND, 0, 3}, {HP_NUMA_PREFERRED, 0, 2}};
	for (unsigned r = 0; r < 2; r++)
		for (unsigned m = 0; m < 3; m++) {
			/* more than node 1 has, where the policy spills over */
			long long there = rungs[r] == HP_RUNG_2M
			                      ? free_huge_on(1) * 2
			                      : number_in("/sys/devices/system/node/node1/meminfo", " MemFree:") / 1024;
			uint64_t size = m ? (uint64_t)(there + 16) * MIB : 32 * MIB;
			if (m == 1 && rungs[r] == HP_RUNG_4K) continue; /* takes seconds here, and is as the next */
			run_on(1);
			hp_pool *pool = must_pool(rungs[r], size, 0, mixed[m]);
			uint64_t got[2] = {0, 0};
			for (int node = 0; node < 2; node++) {
				void *block;
				while (hp_page_alloc_on(pool, node, 16 * PAGE, HP_PAGE_STRICT_NODE, &block) == 0) {
					for (unsigned i = 0; i < 16; i++) must_be(node_of((char *)block + i * PAGE), node);
					got[node] += 16 * PAGE;
				}
				must_be(got[node], stats_on(pool, node, false));
			}
			if (m == 0) must_be(got[0] + got[1], rungs[r] == HP_RUNG_2M ? size : 0);
			if (m != 0) must(got[1] > 0 && got[0] > 0);
			hp_must_be_sound(pool);
			hp_pool_detach(pool);
		}
}

static hp_pool *half_and_half(hp_rung rung, uint64_t each)
{
	hp_pool *pool = must_pool(rung, each, 2 * each, (struct hp_numa){HP_NUMA_BIND, 1, 1});
	struct hp_numa there = {HP_NUMA_BIND, 1, 2};
	struct hp_report *report = calloc(1, sizeof *report);
	must_be(hp_pool_grow(pool, each, &there, report), 0);
	must_be(report->nodes, 1);
	must_be(report->node[0].node, 1);
	must_be(report->node[0].misplaced, 0);
	free(report);
	must_be(stats_on(pool, 0, false), each);
	must_be(stats_on(pool, 1, false), each);
	uint64_t count[4];
	count_nodes(hp_pool_base(pool), each, rung_size(rung), count);
	must_be(count[1], 0);
	count_nodes((char *)hp_pool_base(pool) + each, each, rung_size(rung), count);
	must_be(count[0], 0);
	return pool;
}

static void blocks_come_from_the_node_asked_for(void **state)
{
	(void)state;
	for (unsigned r = 0; r < 2; r++)
		for (int node = 0; node < 2; node++)
			for (unsigned class = 0; class <= HP_PAGE_PROCESS; class ++) {
				hp_pool *pool = half_and_half(rungs[r], 8 * MIB);
				unsigned n = 0;
				void *block[4096];
				static const size_t pages[] = {1, 3, 70, 1, 300};
				size_t got = 0, half = 8 * MIB / PAGE;
				run_on(!node);
				/* strictly: all of that node, then no more */
				for (;; n++) {
					size_t want = pages[n % 5];
					int error = hp_page_alloc_on(pool, node, want * PAGE, HP_PAGE_STRICT_NODE | class, &block[n]);
					if (error) must_be(error, -ENOMEM);
					if (error) break;
					got += want;
					for (size_t i = 0; i < want; i++) must_be(node_of((char *)block[n] + i * PAGE), node);
				}
				while (hp_page_alloc_on(pool, node, PAGE, HP_PAGE_STRICT_NODE | class, &block[n]) == 0) {
					must_be(node_of(block[n++]), node);
					got++;
				}
				must_be(got, half);
				must_be(stats_on(pool, node, true), 0);
				must_be(stats_on(pool, !node, true), 8 * MIB);
				/* not strictly: from the other */
				must_be(hp_page_alloc_on(pool, node, 5 * PAGE, class, &block[n]), 0);
				must_be(node_of(block[n++]), !node);
				must_be(hp_page_alloc_on(pool, 3, PAGE, HP_PAGE_STRICT_NODE | class, &block[n]), -EINVAL);
				must_be(hp_page_alloc_on(pool, 3, PAGE, class, &block[n]), 0);
				must_be(node_of(block[n++]), !node);
				hp_must_be_sound(pool);
				while (n) must_be(hp_page_free(pool, block[--n]), 0);
				/* a run over the whole pool lies on both, and so is for those who are not strict */
				must_be(hp_page_alloc_on(pool, node, 16 * MIB, HP_PAGE_STRICT_NODE | class, &block[0]), -ENOMEM);
				must_be(hp_page_alloc_on(pool, node, 16 * MIB, class, &block[0]), 0);
				must_be(hp_page_free(pool, block[0]), 0);
				hp_must_be_empty(pool);
				hp_pool_detach(pool);
			}
}

struct local {
	hp_pool *pool;
	int node;
	unsigned flags;
};

static void *allocates_near(void *arg)
{
	struct local *local = arg;
	run_on(local->node); /* before its first call, which is when a thread's node is looked up */
	void *block[64];
	for (unsigned i = 0; i < 64; i++) {
		must_be(hp_page_alloc(local->pool, (1 + i % 9) * PAGE, local->flags, &block[i]), 0);
		for (unsigned k = 0; k < 1 + i % 9; k++) must_be(node_of((char *)block[i] + k * PAGE), local->node);
	}
	for (unsigned i = 0; i < 64; i++) must_be(hp_page_free(local->pool, block[i]), 0);
	return NULL;
}

static void blocks_come_from_the_own_node(void **state)
{
	(void)state;
	for (unsigned r = 0; r < 2; r++) {
		hp_pool *pool = half_and_half(rungs[r], 8 * MIB);
		for (unsigned round = 0; round < 8; round++) {
			struct local local = {pool, (int)round % 2, round & 2 ? HP_PAGE_PROCESS : 0};
			if (round & 4) local.flags |= HP_PAGE_STRICT_NODE;
			pthread_t thread;
			must_be(pthread_create(&thread, NULL, allocates_near, &local), 0);
			pthread_join(thread, NULL);
		}
		hp_must_be_empty(pool);
		hp_pool_detach(pool);
	}
}

/* Distances as numa_test.sh sets them: 0-3 and 1-2 12, 0-1 and 2-3 20, 1-3 25, 0-2 30. */
static void *allocates_nearest(void *arg)
{
	struct local *local = arg;
	static const int order[4][4] = {{0, 3, 1, 2}, {1, 2, 0, 3}, {2, 1, 3, 0}, {3, 0, 2, 1}};
	size_t each = 2 * MIB / PAGE, n = 0;
	void **block = calloc(4 * each, sizeof *block);
	run_on(local->node);
	while (hp_page_alloc(local->pool, PAGE, local->flags, &block[n]) == 0) {
		int want = order[local->node][n / each];
		must_be(node_of(block[n]), want);
		n++;
	}
	must_be(n, 4 * each);
	while (n) must_be(hp_page_free(local->pool, block[--n]), 0);
	free(block);
	return NULL;
}

static void blocks_come_from_the_nearest_node_that_has_any(void **state)
{
	(void)state;
	for (unsigned class = 0; class <= HP_PAGE_PROCESS; class ++) {
		hp_pool *pool = must_pool(HP_RUNG_2M, 2 * MIB, 8 * MIB, (struct hp_numa){HP_NUMA_BIND, 1, 1});
		for (unsigned n = 1; n < 4; n++) {
			struct hp_numa numa = {HP_NUMA_BIND, 1, UINT64_C(1) << n};
			must_be(hp_pool_grow(pool, 2 * MIB, &numa, NULL), 0);
		}
		for (int node = 0; node < 4; node++) {
			struct local local = {pool, node, class};
			pthread_t thread;
			must_be(pthread_create(&thread, NULL, allocates_nearest, &local), 0);
			pthread_join(thread, NULL);
		}
		hp_must_be_empty(pool);
		hp_pool_detach(pool);
	}
}

/* ---- growth ---- */

static void growth_goes_where_it_is_told(void **state)
{
	(void)state;
	for (unsigned r = 0; r < 2; r++) {
		hp_pool *pool = must_pool(rungs[r], 8 * MIB, 40 * MIB, (struct hp_numa){HP_NUMA_BIND, 1, 2});
		char *base = hp_pool_base(pool);
		uint64_t count[4], step = rung_size(rungs[r]);
		run_on(0);
		must_be(hp_pool_grow(pool, 8 * MIB, NULL, NULL), 0); /* as the pool was made */
		count_nodes(base + 8 * MIB, 8 * MIB, step, count);
		must_be(count[1], 8 * MIB / step);
		struct hp_numa local = {HP_NUMA_LOCAL, 1, 0}, both = {HP_NUMA_INTERLEAVE, 1, 3};
		must_be(hp_pool_grow(pool, 8 * MIB, &local, NULL), 0);
		count_nodes(base + 16 * MIB, 8 * MIB, step, count);
		must_be(count[0], 8 * MIB / step);
		must_be(hp_pool_grow(pool, 8 * MIB, &both, NULL), 0);
		count_nodes(base + 24 * MIB, 8 * MIB, step, count);
		must_be(count[0], count[1]);
		/* interleaved by huge pages every chunk is on one node, by small ones on both */
		bool huge = rungs[r] == HP_RUNG_2M;
		must_be(stats_on(pool, 0, false), 8 * MIB + huge * 4 * MIB);
		must_be(stats_on(pool, 1, false), 16 * MIB + huge * 4 * MIB);
		must_be(stats_on(pool, -1, false), huge ? 0 : 8 * MIB);
		/* what was given back comes back on another node */
		must_be(hp_pool_trim(pool, 0) > 0, 1);
		struct hp_numa there = {HP_NUMA_BIND, 1, 2};
		uint64_t left = hp_stats(pool).committed;
		must_be(hp_pool_grow(pool, 40 * MIB - left, &there, NULL), 0);
		count_nodes(base + left, 40 * MIB - left, step, count);
		must_be(count[0], 0);
		must_be(hp_stats(pool).committed, 40 * MIB);
		hp_must_be_empty(pool);
		hp_pool_detach(pool);
	}
}

static int child_with_other_policy(void *arg)
{
	hp_pool *pool = arg, *mine;
	unsigned long nodes = 1;
	int fds[3];
	must_be(syscall(SYS_set_mempolicy, 2 /* MPOL_BIND */, &nodes, 64ul), 0);
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_attach(fds, NULL, &mine), 0);
	void *block;
	must_be(hp_page_alloc(mine, 8 * MIB, HP_PAGE_ZERO, &block), 0);
	must_be(hp_page_zero(mine, block, 8 * MIB), 0);
	must_be(hp_page_free(mine, block), 0);
	must_be(hp_pool_grow(mine, 8 * MIB, NULL, NULL), 0);
	return 0;
}

static void the_policy_of_an_attacher_moves_nothing(void **state)
{
	(void)state;
	for (unsigned r = 0; r < 2; r++) {
		hp_pool *pool = must_pool(rungs[r], 8 * MIB, 16 * MIB, (struct hp_numa){HP_NUMA_BIND, 1, 2});
		uint64_t count[4];
		must_be(hp_test_child(child_with_other_policy, pool), 0);
		void *block; /* so that they are in our page tables, too */
		must_be(hp_page_alloc(pool, 16 * MIB, HP_PAGE_ZERO, &block), 0);
		must_be(hp_page_free(pool, block), 0);
		count_nodes(hp_pool_base(pool), 16 * MIB, rung_size(rungs[r]), count);
		must_be(count[0], 0);
		hp_must_be_empty(pool);
		hp_pool_detach(pool);
	}
}

/* A grower is killed when it has populated some pages of node 1; whoever comes next gives them back, and the same range
 * can be had on node 0. */
static void a_killed_grower_leaves_no_page_on_its_node(void **state)
{
	(void)state;
	uint64_t more = 48 * PAGE_2M;
	unsigned half_way = 0;
	for (int stop = 1; stop < 48; stop += 11) {
		long long before[2] = {free_huge_on(0), free_huge_on(1)};
		hp_pool *pool = must_pool(HP_RUNG_2M, 4 * MIB, 4 * MIB + more, (struct hp_numa){HP_NUMA_BIND, 1, 1});
		struct hp_numa there = {HP_NUMA_BIND, 1, 2}, here = {HP_NUMA_BIND, 1, 1};
		pid_t pid = hp_fork();
		if (pid == 0) {
			hp_pool_grow(pool, more, &there, NULL);
			raise(SIGKILL); /* it was quicker */
		}
		int status = 0;
		while (free_huge_on(1) > before[1] - stop && waitpid(pid, &status, WNOHANG) == 0) {}
		if (!status) {
			kill(pid, SIGKILL);
			must_be(hp_wait_for(pid), 128 + SIGKILL);
		}
		half_way += hp_stats(pool).committed == 4 * MIB && free_huge_on(1) < before[1];
		must(hp_pool_recover(pool) >= 0);
		hp_must_be_empty(pool);
		if (hp_stats(pool).committed > 4 * MIB) { /* published already: finished, not undone */
			must_be(hp_stats(pool).committed, 4 * MIB + more);
			must_be(stats_on(pool, 1, false), more);
			must_be(hp_pool_trim(pool, 4 * MIB) > 0, 1);
		}
		must_be(free_huge_on(1), before[1]);
		must_be(hp_pool_grow(pool, more, &here, NULL), 0);
		uint64_t count[4];
		count_nodes(hp_pool_base(pool), 4 * MIB + more, PAGE_2M, count);
		must_be(count[1], 0);
		must_be(free_huge_on(1), before[1]);
		hp_pool_detach(pool);
		must_be(free_huge_on(0), before[0]);
	}
	print_message("%u growers were killed half-way\n", half_way);
	must(half_way > 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest two[] = {
		cmocka_unit_test(every_policy_places_every_page),
		cmocka_unit_test(a_node_short_of_huge_pages_fails_cleanly),
		cmocka_unit_test(a_node_short_of_memory_fails_cleanly),
		cmocka_unit_test(strict_requests_get_no_mixed_memory),
		cmocka_unit_test(blocks_come_from_the_node_asked_for),
		cmocka_unit_test(blocks_come_from_the_own_node),
		cmocka_unit_test(growth_goes_where_it_is_told),
		cmocka_unit_test(the_policy_of_an_attacher_moves_nothing),
		cmocka_unit_test(a_killed_grower_leaves_no_page_on_its_node),
	};
	const struct CMUnitTest four[] = {
		cmocka_unit_test(blocks_come_from_the_nearest_node_that_has_any),
	};
	const char *nodes = argc > 1 && !strcmp(argv[1], "far") ? "/sys/devices/system/node/node3"
	                                                        : "/sys/devices/system/node/node1";
	if (access(nodes, F_OK)) hp_test_skip("this machine has no %s", nodes);
	if (argc > 1 && !strcmp(argv[1], "far")) return cmocka_run_group_tests(four, NULL, NULL);
	return cmocka_run_group_tests(two, NULL, NULL);
}
