/* From facts to findings; doctor.h says why apart. Each function looks at one subject. */
#include "doctor.h"

#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define POOL ((uint64_t)64 << 20) /* of the default pool */
#define SIZE_2M ((uint64_t)2 << 20)
#define KERNEL(major, minor) ((unsigned)(major) << 16 | (unsigned)(minor) << 8)

__attribute__((format(printf, 3, 4))) static void problem(struct diagnosis *diagnosis, const char *cure,
                                                          const char *format, ...)
{
	if (diagnosis->problems == DIAGNOSIS_MOST) return;
	va_list args;
	va_start(args, format);
	vsnprintf(diagnosis->problem[diagnosis->problems].text, sizeof(diagnosis->problem[0].text), format, args);
	va_end(args);
	snprintf(diagnosis->problem[diagnosis->problems].cure, sizeof(diagnosis->problem[0].cure), "%s", cure);
	diagnosis->problems++;
}

/* Pages that a new pool can have: free ones that nobody has reserved, and surplus ones that may yet be made. */
static uint64_t obtainable(const struct host_pages *pages)
{
	if (pages->free == HOST_UNKNOWN) return 0;
	uint64_t reserved = pages->reserved == HOST_UNKNOWN ? 0 : pages->reserved;
	uint64_t free = pages->free > reserved ? pages->free - reserved : 0;
	if (pages->overcommit != HOST_UNKNOWN && pages->surplus != HOST_UNKNOWN && pages->overcommit > pages->surplus)
		free += pages->overcommit - pages->surplus;
	return free;
}

static uint64_t left(const struct host_limit *limit)
{
	if (!limit->found || limit->limit == HOST_NO_LIMIT || limit->limit == HOST_UNKNOWN) return UINT64_MAX;
	uint64_t used = limit->used == HOST_UNKNOWN ? 0 : limit->used;
	return limit->limit > used ? limit->limit - used : 0;
}

/* The command that writes a word into a file of the kernel, for who runs this. */
__attribute__((format(printf, 4, 5))) static void writing(char *cure, size_t room, const char *word, const char *format,
                                                          ...)
{
	char path[640];
	va_list args;
	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	snprintf(cure, room, geteuid() == 0 ? "echo %s > %s" : "echo %s | sudo tee %s", word, path);
}

static const char *decimal(uint64_t value)
{
	static char text[24];
	snprintf(text, sizeof(text), "%" PRIu64, value);
	return text;
}

static void huge_pages(const struct host *host, struct diagnosis *diagnosis)
{
	char cure[700];
	if (host->sizes == 0) {
		problem(diagnosis, "",
		        "There are no huge pages: this kernel has no hugetlb, or a container hides its files; "
		        "pools fall to smaller pages");
		return;
	}
	for (unsigned i = 0; i < host->sizes; i++) {
		const struct host_pages *pages = &host->pages[i];
		uint64_t need = POOL / pages->size + (POOL % pages->size != 0);
		if (pages->size == SIZE_2M && obtainable(pages) < need) {
			uint64_t total = pages->total == HOST_UNKNOWN ? 0 : pages->total;
			writing(cure, sizeof(cure), decimal(total + need - obtainable(pages)),
			        "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB/nr_hugepages", pages->size >> 10);
			problem(diagnosis, cure, "%" PRIu64 " free huge pages of %s; the default pool of %s wants %" PRIu64,
			        obtainable(pages), cli_size(pages->size), cli_size(POOL), need);
		}
		if (left(&host->hugetlb_limit[i]) < POOL) {
			writing(cure, sizeof(cure), "max", "%s/%s", host->hugetlb_limit[i].group, host->hugetlb_limit[i].file);
			problem(diagnosis, cure, "The cgroup leaves %s in huge pages of %s (%s/%s)",
			        cli_size(left(&host->hugetlb_limit[i])), cli_size(pages->size), host->hugetlb_limit[i].group,
			        host->hugetlb_limit[i].file);
		}
	}
}

/* Free pages that all lie on one node cannot serve a pool bound to another. */
static void huge_pages_of_nodes(const struct host *host, struct diagnosis *diagnosis)
{
	for (unsigned i = 0; host->nodes > 1 && i < host->sizes; i++) {
		const struct host_pages *pages = &host->pages[i];
		if (pages->size != SIZE_2M || obtainable(pages) == 0) continue;
		for (unsigned n = 0; n < host->nodes; n++) {
			int id = host->node[n].id;
			char cure[700];
			if (id < 0 || id >= HOST_MAX_NODES || pages->node[id].free != 0) continue;
			if (host->node[n].memory_total == 0) continue;
			uint64_t total = pages->node[id].total == HOST_UNKNOWN ? 0 : pages->node[id].total;
			writing(cure, sizeof(cure), decimal(total + POOL / pages->size),
			        "/sys/devices/system/node/node%d/hugepages/hugepages-%" PRIu64 "kB/nr_hugepages", id,
			        pages->size >> 10);
			problem(diagnosis, cure,
			        "Node %d has no free huge page of %s, though others have: a pool bound to it "
			        "falls to smaller pages",
			        id, cli_size(pages->size));
		}
	}
}

static void transparent(const struct host *host, struct diagnosis *diagnosis)
{
	const char *shmem = host->thp_shmem_enabled;
	bool off = strcmp(shmem, "never") == 0 || strcmp(shmem, "deny") == 0;
	if (host->thp_collapse || !off) return;
	char cure[700];
	writing(cure, sizeof(cure), "advise", "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
	problem(
		diagnosis, cure,
		"Transparent huge pages of shared memory are off (%s) and collapsing does not work (%s): below hugetlb, pools "
		"fall to 4 KiB pages",
		shmem, host->thp_collapse_error ? strerror(-host->thp_collapse_error) : "not tried");
}

static void limits(const struct host *host, struct diagnosis *diagnosis)
{
	char cure[700];
	if (!host->memlock_exempt && host->memlock_soft < POOL) {
		if (host->memlock_hard == HOST_NO_LIMIT || (host->memlock_hard != HOST_UNKNOWN && host->memlock_hard >= POOL))
			snprintf(cure, sizeof(cure), "ulimit -l %s",
			         host->memlock_hard == HOST_NO_LIMIT ? "unlimited" : "$(ulimit -H -l)");
		else
			snprintf(cure, sizeof(cure), "sudo prlimit --pid $$ --memlock=unlimited");
		problem(diagnosis, cure,
		        "RLIMIT_MEMLOCK is %s: a pool of 4 KiB pages cannot be locked in memory, and "
		        "registered I/O buffers count against it",
		        cli_size(host->memlock_soft));
	}
	if (left(&host->memory_limit) < 2 * POOL) {
		writing(cure, sizeof(cure), "max", "%s/%s", host->memory_limit.group, host->memory_limit.file);
		problem(diagnosis, cure,
		        "The cgroup leaves %s of memory (%s/%s): a pool of 4 KiB pages may meet the OOM killer",
		        cli_size(left(&host->memory_limit)), host->memory_limit.group, host->memory_limit.file);
	}
	if (host->memory_available != HOST_UNKNOWN && host->memory_available < 2 * POOL)
		problem(diagnosis, "", "Only %s of memory are available", cli_size(host->memory_available));
}

static void interfaces(const struct host *host, struct diagnosis *diagnosis)
{
	if (host->memfd_error)
		problem(diagnosis, "", "memfd_create fails (%s): no pool can be made; a container's profile may forbid it",
		        strerror(-host->memfd_error));
	if (host->membarrier_error)
		problem(diagnosis, "",
		        "membarrier fails (%s): pools are made fenced, and each operation pays a locked "
		        "instruction; a container's profile may forbid the call",
		        strerror(-host->membarrier_error));
	if (host->mbind_error == -EPERM && host->nodes > 1)
		problem(diagnosis, "docker run --cap-add SYS_NICE ...",
		        "mbind is forbidden here, as in containers without "
		        "CAP_SYS_NICE: memory cannot be bound to nodes");
	else if (host->mbind_error && host->nodes > 1)
		problem(diagnosis, "", "mbind fails (%s): memory cannot be bound to nodes", strerror(-host->mbind_error));
	if (host->io_uring_disabled > 0 && host->io_uring_error)
		problem(diagnosis, "sudo sysctl kernel.io_uring_disabled=0",
		        "io_uring is switched off "
		        "(kernel.io_uring_disabled = %d): no I/O straight into pool memory",
		        host->io_uring_disabled);
	else if (host->io_uring_error)
		problem(diagnosis, host->io_uring_error == -EPERM ? "docker run --security-opt seccomp=unconfined ..." : "",
		        "io_uring fails (%s): no I/O straight into pool memory; a container's profile may forbid it",
		        strerror(-host->io_uring_error));
	if (host->version != 0 && host->version < KERNEL(5, 14))
		problem(diagnosis, "",
		        "Linux %s has no MADV_POPULATE_WRITE (5.14): pools are populated by touching, and "
		        "shortage of huge pages cannot be told in advance",
		        host->release);
}

/* What the ladder would give, by the facts; only making the pool tells for certain. */
static void best(const struct host *host, struct diagnosis *diagnosis)
{
	const char *shmem = host->thp_shmem_enabled;
	const char *what = "4 KiB pages";
	if (host->thp_collapse || strcmp(shmem, "always") == 0 || strcmp(shmem, "advise") == 0 ||
	    strcmp(shmem, "within_size") == 0 || strcmp(shmem, "force") == 0)
		what = "transparent huge pages of 2 MiB, as far as memory is not fragmented";
	for (unsigned i = 0; i < host->sizes; i++)
		if (host->pages[i].size == SIZE_2M && obtainable(&host->pages[i]) >= POOL / SIZE_2M &&
		    left(&host->hugetlb_limit[i]) >= POOL)
			what = "huge pages of 2 MiB";
	snprintf(diagnosis->best, sizeof(diagnosis->best), "%s", host->memfd_error ? "nothing" : what);
}

void diagnose(const struct host *host, struct diagnosis *diagnosis)
{
	*diagnosis = (struct diagnosis){0};
	huge_pages(host, diagnosis);
	huge_pages_of_nodes(host, diagnosis);
	transparent(host, diagnosis);
	limits(host, diagnosis);
	interfaces(host, diagnosis);
	best(host, diagnosis);
}
