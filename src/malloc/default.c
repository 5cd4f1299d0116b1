/* The default pool of the process, for hp_malloc and for the malloc replacement.
 *
 * It is private (pool/private.c): a malloc's memory is the process' own, and a forked child has a copy. Its capacity is
 * address space only, so there is plenty of it, four times the machine's memory, as far as the limit on address space
 * allows; memory comes at the first touch.
 *
 * Who finds no pool makes it, by a swap of a word from 0 to its process' id, so that a child forked while another thread
 * was at it finds a word that is not its own, and begins anew. */
#include "malloc/default.h"
#include "os/os.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MIB (UINT64_C(1) << 20)
#define FIRST (64 * MIB)
#define MOST (UINT64_C(1) << 45)
#define THREADS 16384u /* a thread without a slot gets no memory; slots that nobody uses cost none */

static _Atomic(hp_pool *) the_pool;
static _Atomic int maker;

struct wish {
	uint64_t size; /* 0: not said */
	hp_rung rung;  /* BEST: not said */
	int node;      /* -1: not said */
};

static const struct wish no_wish = {.node = -1};

/* "64M", "2GiB"; 0 where it is none. */
static uint64_t read_size(const char *text)
{
	static const char units[] = "KMGT";
	char *end;
	errno = 0;
	uint64_t value = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || errno) return 0;
	if (!*end) return value;
	const char *unit = strchr(units, *end & ~0x20);
	if (!unit || !*unit || (end[1] && strcasecmp(end + 1, "B") && strcasecmp(end + 1, "iB"))) return 0;
	unsigned shift = 10 * (unsigned)(unit - units + 1);
	return value <= UINT64_MAX >> shift ? value << shift : 0;
}

static bool read_rung(const char *text, hp_rung *rung)
{
	static const char *const names[] = {
		[HP_RUNG_1G] = "1g", [HP_RUNG_2M] = "2m", [HP_RUNG_THP] = "thp", [HP_RUNG_4K] = "4k"};
	for (int i = HP_RUNG_1G; i <= HP_RUNG_4K; i++)
		if (!strcasecmp(text, names[i])) {
			*rung = (hp_rung)i;
			return true;
		}
	return false;
}

/* What of the environment makes no sense is said in `fault`, and left out. */
static bool read_environment(struct wish *wish, char *fault, size_t room)
{
	const char *size = secure_getenv("HUGEPOOL_SIZE"), *pages = secure_getenv("HUGEPOOL_PAGES");
	const char *node = secure_getenv("HUGEPOOL_NODE");
	bool good = true;
	*wish = no_wish;
	if (size && *size && !((wish->size = read_size(size)) >= 2 * MIB && wish->size <= MOST)) {
		snprintf(fault, room, "HUGEPOOL_SIZE is %.40s; set it to a size from 2M to 32T, such as 4G", size);
		wish->size = 0;
		good = false;
	}
	if (pages && *pages && !read_rung(pages, &wish->rung)) {
		snprintf(fault, room, "HUGEPOOL_PAGES is %.40s; set it to 1g, 2m, thp or 4k", pages);
		good = false;
	}
	if (node && *node) {
		char *end;
		long number = strtol(node, &end, 10);
		if (*end || number < 0 || number >= HP_MAX_NODES) {
			snprintf(fault, room, "HUGEPOOL_NODE is %.40s; set it to the number of a node, 0 to 63", node);
			good = false;
		} else {
			wish->node = (int)number;
		}
	}
	return good;
}

static int make(const struct wish *wish, hp_pool **pool, struct hp_report *report)
{
	bool huge = wish->rung == HP_RUNG_1G || wish->rung == HP_RUNG_2M;
	struct hp_pool_options options = {
		.struct_size = sizeof options,
		.name = "malloc",
		.size = wish->rung == HP_RUNG_1G ? 1024 * MIB
	            : huge                   ? 2 * MIB
	                                     : FIRST,
		.capacity = wish->size,
		.choice = wish->rung == HP_RUNG_BEST ? HP_CHOICE_ANY : HP_CHOICE_REQUIRE,
		.rung = wish->rung,
		.prefault = huge ? HP_PREFAULT_NOW : HP_PREFAULT_LAZY,
		.max_threads = THREADS,
		.flags = HP_POOL_PRIVATE,
		.report = report,
	};
	if (wish->node >= 0) options.numa = (struct hp_numa){HP_NUMA_BIND, 0, UINT64_C(1) << wish->node};
	if (!options.capacity) {
		uint64_t limit = os_address_space_limit();
		options.capacity = os_memory_total() / (1024 * MIB) * 4096 * MIB;
		if (options.capacity < 4096 * MIB) options.capacity = 4096 * MIB;
		if (options.capacity > MOST) options.capacity = MOST;
		if (limit != UINT64_MAX && options.capacity > limit / 2) options.capacity = limit / 2;
	}
	if (options.size > options.capacity) options.size = options.capacity;
	int error;
	/* address space is short where it is counted like memory (vm.overcommit_memory is 2) */
	while ((error = hp_pool_create(&options, pool)) == -ENOMEM && !wish->size && options.capacity / 2 >= options.size)
		options.capacity /= 2;
	return error;
}

/* The first rung that was tried and failed. */
static void explain(const struct hp_report *report, int error, char *line, size_t room)
{
	for (unsigned i = 0; i < report->rungs && i < HP_RUNGS; i++) {
		const struct hp_report_rung *rung = &report->rung[i];
		if (!rung->tried || !rung->error) continue;
		snprintf(line, room, "no malloc pool on %s pages: %s%s%s", hp_rung_name(rung->rung), rung->cause,
		         rung->cure[0] ? "; cure: " : "", rung->cure);
		return;
	}
	snprintf(line, room, "no malloc pool: error %d", -error);
}

static int make_as_told(void (*say)(const char *line), hp_pool **pool)
{
	struct wish wish;
	struct hp_report report = {0};
	char line[512];
	if (!read_environment(&wish, line, sizeof line)) {
		if (!say) return -EINVAL;
		say(line);
	}
	int error = make(&wish, pool, &report);
	if (error < 0 && say) {
		explain(&report, error, line, sizeof line);
		say(line);
		if (memcmp(&wish, &no_wish, sizeof wish)) error = make(&no_wish, pool, &report);
	}
	return error;
}

hp_pool *default_pool_try(void (*say)(const char *line))
{
	hp_pool *pool = atomic_load_explicit(&the_pool, memory_order_acquire);
	if (pool) return pool;
	unsigned char signals[128]; /* a handler that allocates would find itself in the way */
	int pid = os_pid(), holder = 0, error = 0;
	os_signals_block(signals);
	if (!atomic_compare_exchange_strong(&maker, &holder, pid) &&
	    (holder == pid || !atomic_compare_exchange_strong(&maker, &holder, pid))) {
		error = -EAGAIN;
	} else {
		pool = atomic_load(&the_pool);
		if (!pool && (error = make_as_told(say, &pool)) == 0) atomic_store(&the_pool, pool);
		atomic_store(&maker, 0);
	}
	os_signals_restore(signals);
	if (error < 0) {
		errno = -error;
		return NULL;
	}
	return pool;
}

hp_pool *hp_pool_default(void)
{
	for (;;) {
		hp_pool *pool = default_pool_try(NULL);
		if (pool || errno != EAGAIN) return pool;
		os_yield();
	}
}
