/* Facts about the host: huge pages, nodes, limits, and what the kernel lets this process do.
 *
 * Two users: `hugepool doctor`, which shows all of it (host_read), and the backing, which asks single questions to say
 * why memory was not to be had. Nothing here changes the host. What cannot be read is "unknown" (each field says how),
 * never an error: a container may hide any of these files. */
#ifndef HUGEPOOL_OS_HOST_H
#define HUGEPOOL_OS_HOST_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#define HOST_MAX_NODES 64
#define HOST_MAX_SIZES 8
#define HOST_UNKNOWN UINT64_MAX        /* a number that could not be read */
#define HOST_NO_LIMIT (UINT64_MAX - 1) /* a limit that is not set */

/* Huge pages of one size. All counts in pages. */
struct host_pages {
	uint64_t size; /* bytes of one page */
	uint64_t total, free, reserved, surplus, overcommit;
	struct {
		uint64_t total, free, surplus; /* HOST_UNKNOWN where there is no such node, or its files are hidden */
	} node[HOST_MAX_NODES];
};

struct host_node {
	int id;
	char cpus[256]; /* as the kernel writes it: "0-3,8-11"; "" for a node without CPUs */
	cpu_set_t cpu_set;
	uint64_t memory_total, memory_free; /* bytes, or HOST_UNKNOWN */
	int distance[HOST_MAX_NODES];       /* by node id; 10: itself, -1: no such node */
};

/* The tightest of the cgroup limits that hold for this process, from its own group upwards. */
struct host_limit {
	bool found;           /* false: no such controller, or nothing on the way up sets a limit */
	uint64_t limit, used; /* bytes; what is left is limit - used, or nothing when used is larger. Of memory, file
	                         cache does not count as used */
	char group[512];      /* the directory in the cgroup file system */
	char file[64];        /* the file there that sets it, e.g. "hugetlb.2MB.max" */
};

struct host {
	char release[128];                       /* of the kernel: "6.18.44" */
	unsigned version;                        /* major << 16 | minor << 8 | patch (255 at most) */
	uint64_t base_page;                      /* bytes */
	uint64_t memory_total, memory_available; /* bytes, or HOST_UNKNOWN */

	unsigned
		sizes; /* entries of pages[] and hugetlb_limit[], ascending by size; 0: kernel without hugetlb, or hidden */
	struct host_pages pages[HOST_MAX_SIZES];
	struct host_limit hugetlb_limit[HOST_MAX_SIZES];
	struct host_limit memory_limit;

	unsigned nodes; /* entries of node[], at least 1 */
	struct host_node node[HOST_MAX_NODES];
	uint64_t nodes_allowed; /* bit mask: where this process may allocate (cpuset) */
	bool numa_known;        /* false: no node files; node[0] then stands for the whole machine */

	char thp_enabled[32];       /* the word in brackets: "always", "madvise", "never"; "" unknown */
	char thp_shmem_enabled[32]; /* "always", "within_size", "advise", "never", "deny", "force"; "" unknown */
	bool thp_collapse;          /* MADV_COLLAPSE works on shared memory here (tried on 2 MiB, which are given back) */
	int thp_collapse_error;     /* 0, or -errno of the trial */

	uint64_t memlock_soft, memlock_hard; /* RLIMIT_MEMLOCK in bytes, HOST_NO_LIMIT, or HOST_UNKNOWN */
	bool memlock_exempt;                 /* CAP_IPC_LOCK is effective: the limit does not count */

	int io_uring_error;    /* 0: a ring could be made; else -errno */
	int io_uring_disabled; /* /proc/sys/kernel/io_uring_disabled: 0, 1, 2; -1 unknown */
	int memfd_error;       /* memfd_create with seals: 0 or -errno */
	int membarrier_error;  /* membarrier GLOBAL_EXPEDITED: 0 or -errno */
	int mbind_error;       /* mbind of one private page: 0 or -errno; -EPERM: a container's profile, -ENOSYS: no NUMA */
};

/* Reads everything. The struct is large (some 80 KiB): not for small stacks. */
void host_read(struct host *host);

/* Huge pages of one size in bytes. 0, or -ENOENT: the kernel does not know the size (or hides it). */
int host_pages(uint64_t size, struct host_pages *pages);

/* Limits of the groups this process is in. Both hierarchies, v1 and v2, are looked at. */
void host_hugetlb_limit(uint64_t page_size, struct host_limit *limit);
void host_memory_limit(struct host_limit *limit);

/* RLIMIT_MEMLOCK in bytes (HOST_NO_LIMIT, HOST_UNKNOWN), and whether it counts for this process (CAP_IPC_LOCK). */
void host_memlock(uint64_t *soft, uint64_t *hard, bool *exempt);

/* Bytes that may be allocated without swapping (MemAvailable), or HOST_UNKNOWN. */
uint64_t host_memory_available(void);

/* The same of one node: free, file cache and reclaimable slabs. An estimate. */
uint64_t host_node_available(int node);

/* The bracketed word of a file such as "always [madvise] never"; -errno or -ENODATA. */
int host_choice(const char *path, char *word, unsigned size);

/* A CPU or node list ("0-3,8") as a mask; bits past `max` are ignored. Returns how many bits were set. */
unsigned host_parse_list(const char *text, void (*set)(void *arg, unsigned bit), void *arg, unsigned max);

#endif
