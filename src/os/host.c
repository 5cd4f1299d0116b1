/* Facts about the host, read from sysfs and proc or found out by trying. See host.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/mempolicy.h>
#include <os/host.h>
#include <os/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE "/sys/kernel/mm/hugepages"
#define NODES "/sys/devices/system/node"

unsigned host_parse_list(const char *text, void (*set)(void *arg, unsigned bit), void *arg, unsigned max)
{
	unsigned count = 0;
	while (*text) {
		char *end;
		unsigned long from = strtoul(text, &end, 10);
		if (end == text) break;
		unsigned long to = from;
		if (*end == '-') {
			text = end + 1;
			to = strtoul(text, &end, 10);
			if (end == text) break;
		}
		for (unsigned long bit = from; bit <= to && bit < max; bit++) {
			set(arg, bit);
			count++;
		}
		if (*end != ',') break;
		text = end + 1;
	}
	return count;
}

static void add_cpu(void *arg, unsigned cpu)
{
	CPU_SET(cpu, (cpu_set_t *)arg);
}

static void add_node(void *arg, unsigned node)
{
	*(uint64_t *)arg |= UINT64_C(1) << node;
}

int host_choice(const char *path, char *word, unsigned size)
{
	char text[256];
	if (size) word[0] = 0;
	int64_t length = os_read_file(path, text, sizeof text);
	if (length < 0) return length;
	char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;
	if (!close) return -ENODATA;
	snprintf(word, size, "%.*s", (int)(close - open - 1), open + 1);
	return 0;
}

static uint64_t number_in(const char *directory, const char *file)
{
	char path[256], text[64], *end;
	snprintf(path, sizeof path, "%s/%s", directory, file);
	if (os_read_file(path, text, sizeof text) < 0) return HOST_UNKNOWN;
	uint64_t number = strtoull(text, &end, 10);
	return end == text ? HOST_UNKNOWN : number;
}

/* The value of a line such as "MemTotal:   1024 kB", in bytes. */
static uint64_t kilobytes(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	if (!at) return HOST_UNKNOWN;
	return strtoull(at + strlen(key), NULL, 10) * 1024;
}

int host_pages(uint64_t size, struct host_pages *pages)
{
	char directory[128];
	*pages = (struct host_pages){.size = size};
	snprintf(directory, sizeof directory, HUGE "/hugepages-%llukB", (unsigned long long)(size >> 10));
	pages->total = number_in(directory, "nr_hugepages");
	if (pages->total == HOST_UNKNOWN) return -ENOENT;
	pages->free = number_in(directory, "free_hugepages");
	pages->reserved = number_in(directory, "resv_hugepages");
	pages->surplus = number_in(directory, "surplus_hugepages");
	pages->overcommit = number_in(directory, "nr_overcommit_hugepages");
	uint64_t online = 0;
	char list[1024];
	if (os_read_file(NODES "/online", list, sizeof list) >= 0) host_parse_list(list, add_node, &online, HOST_MAX_NODES);
	for (unsigned node = 0; node < HOST_MAX_NODES; node++) {
		pages->node[node].total = pages->node[node].free = pages->node[node].surplus = HOST_UNKNOWN;
		if (!(online >> node & 1)) continue;
		snprintf(directory, sizeof directory, NODES "/node%u/hugepages/hugepages-%llukB", node,
		         (unsigned long long)(size >> 10));
		pages->node[node].total = number_in(directory, "nr_hugepages");
		pages->node[node].free = number_in(directory, "free_hugepages");
		pages->node[node].surplus = number_in(directory, "surplus_hugepages");
	}
	return 0;
}

uint64_t host_memory_available(void)
{
	char text[8192];
	if (os_read_file("/proc/meminfo", text, sizeof text) < 0) return HOST_UNKNOWN;
	return kilobytes(text, "MemAvailable:");
}

uint64_t host_node_available(int node)
{
	char path[64], text[8192];
	snprintf(path, sizeof path, NODES "/node%d/meminfo", node);
	if (os_read_file(path, text, sizeof text) < 0) return HOST_UNKNOWN;
	uint64_t unused = kilobytes(text, "MemFree:"), sum = unused;
	if (unused == HOST_UNKNOWN) return HOST_UNKNOWN;
	const char *const droppable[] = {" Active(file):", " Inactive(file):", " SReclaimable:"};
	for (unsigned i = 0; i < 3; i++) {
		uint64_t bytes = kilobytes(text, droppable[i]);
		if (bytes != HOST_UNKNOWN) sum += bytes;
	}
	return sum;
}

static void read_nodes(struct host *host)
{
	uint64_t online = 0;
	char path[128], text[8192];
	host->nodes_allowed = os_nodes_with_memory();
	if (os_read_file(NODES "/online", text, sizeof text) >= 0) host_parse_list(text, add_node, &online, HOST_MAX_NODES);
	host->numa_known = online != 0;
	if (!online) {
		struct host_node *node = &host->node[0];
		host->nodes = 1;
		node->memory_total = host->memory_total;
		node->memory_free = host->memory_available;
		for (unsigned i = 0; i < HOST_MAX_NODES; i++) node->distance[i] = i ? -1 : 10;
		if (os_read_file("/sys/devices/system/cpu/online", text, sizeof text) >= 0) {
			snprintf(node->cpus, sizeof node->cpus, "%.255s", text);
			host_parse_list(text, add_cpu, &node->cpu_set, CPU_SETSIZE);
		}
		return;
	}
	for (unsigned id = 0; id < HOST_MAX_NODES; id++) {
		if (!(online >> id & 1)) continue;
		struct host_node *node = &host->node[host->nodes++];
		node->id = id;
		snprintf(path, sizeof path, NODES "/node%u/cpulist", id);
		if (os_read_file(path, text, sizeof text) >= 0) {
			snprintf(node->cpus, sizeof node->cpus, "%.255s", text);
			host_parse_list(text, add_cpu, &node->cpu_set, CPU_SETSIZE);
		}
		node->memory_total = node->memory_free = HOST_UNKNOWN;
		snprintf(path, sizeof path, NODES "/node%u/meminfo", id);
		if (os_read_file(path, text, sizeof text) >= 0) {
			node->memory_total = kilobytes(text, "MemTotal:");
			node->memory_free = kilobytes(text, "MemFree:");
		}
		for (unsigned other = 0; other < HOST_MAX_NODES; other++)
			node->distance[other] = online >> other & 1 ? os_node_distance(id, other) : -1;
	}
}

/* Sizes are powers of two from 64 KiB to 16 GiB on every architecture; asking for each spares reading a directory. */
static void read_huge_pages(struct host *host)
{
	for (unsigned shift = 16; shift <= 34 && host->sizes < HOST_MAX_SIZES; shift++) {
		uint64_t size = UINT64_C(1) << shift;
		if (host_pages(size, &host->pages[host->sizes]) < 0) continue;
		host_hugetlb_limit(size, &host->hugetlb_limit[host->sizes]);
		host->sizes++;
	}
}

static void read_thp(struct host *host)
{
	host_choice("/sys/kernel/mm/transparent_hugepage/enabled", host->thp_enabled, sizeof host->thp_enabled);
	host_choice("/sys/kernel/mm/transparent_hugepage/shmem_enabled", host->thp_shmem_enabled,
	            sizeof host->thp_shmem_enabled);
	int fd, error = os_memfd_create("hugepool-trial", 0, &fd);
	if (!error) {
		void *room, *at;
		error = os_ftruncate(fd, 2 * MIB);
		if (!error) error = os_map(NULL, 4 * MIB, PROT_NONE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &room);
		if (!error) {
			char *aligned = (char *)(((uintptr_t)room + 2 * MIB - 1) & ~(uintptr_t)(2 * MIB - 1));
			error = os_map(aligned, 2 * MIB, PROT_READ | PROT_WRITE, OS_MAP_FIXED, fd, 0, &at);
			if (!error) error = os_advise(aligned, 2 * MIB, MADV_POPULATE_WRITE);
			if (!error) error = os_advise(aligned, 2 * MIB, MADV_COLLAPSE);
			os_unmap(room, 4 * MIB);
		}
		os_close(fd);
	}
	host->thp_collapse_error = error;
	host->thp_collapse = !error;
}

static uint64_t limit_value(rlim_t limit)
{
	return limit == RLIM_INFINITY ? HOST_NO_LIMIT : limit;
}

void host_memlock(uint64_t *soft, uint64_t *hard, bool *exempt)
{
	struct rlimit limit;
	*soft = *hard = HOST_UNKNOWN;
	*exempt = false;
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
		*soft = limit_value(limit.rlim_cur);
		*hard = limit_value(limit.rlim_max);
	}
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2] = {0};
	if (syscall(SYS_capget, &header, caps) == 0) *exempt = caps[CAP_IPC_LOCK / 32].effective >> (CAP_IPC_LOCK % 32) & 1;
}

static void read_limits(struct host *host)
{
	host_memlock(&host->memlock_soft, &host->memlock_hard, &host->memlock_exempt);
	host_memory_limit(&host->memory_limit);
}

static void try_calls(struct host *host)
{
	struct io_uring_params params = {0};
	long fd = syscall(SYS_io_uring_setup, 1, &params);
	host->io_uring_error = fd < 0 ? -errno : 0;
	if (fd >= 0) os_close(fd);
	uint64_t disabled = number_in("/proc/sys/kernel", "io_uring_disabled");
	host->io_uring_disabled = disabled == HOST_UNKNOWN ? -1 : (int)disabled;

	int memfd;
	host->memfd_error = os_memfd_create("hugepool-trial", 0, &memfd);
	if (!host->memfd_error) {
		host->memfd_error = os_seal(memfd, F_SEAL_GROW | F_SEAL_SHRINK);
		os_close(memfd);
	}
	host->membarrier_error = os_membarrier_register();
	if (!host->membarrier_error) host->membarrier_error = os_membarrier();

	void *page;
	host->mbind_error = os_map(NULL, host->base_page, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON, -1, 0, &page);
	if (!host->mbind_error) {
		uint64_t lowest = host->nodes_allowed & -host->nodes_allowed;
		host->mbind_error = os_mbind(page, host->base_page, MPOL_PREFERRED, lowest, false);
		os_unmap(page, host->base_page);
	}
}

void host_read(struct host *host)
{
	struct utsname names;
	char text[8192];
	memset(host, 0, sizeof *host);
	if (uname(&names) == 0) {
		unsigned major = 0, minor = 0, patch = 0;
		snprintf(host->release, sizeof host->release, "%s", names.release);
		sscanf(names.release, "%u.%u.%u", &major, &minor, &patch);
		host->version = major << 16 | (minor & 255) << 8 | (patch > 255 ? 255 : patch);
	}
	host->base_page = sysconf(_SC_PAGESIZE);
	host->memory_total = host->memory_available = HOST_UNKNOWN;
	if (os_read_file("/proc/meminfo", text, sizeof text) >= 0) {
		host->memory_total = kilobytes(text, "MemTotal:");
		host->memory_available = kilobytes(text, "MemAvailable:");
	}
	read_nodes(host);
	read_huge_pages(host);
	read_thp(host);
	read_limits(host);
	try_calls(host);
}
