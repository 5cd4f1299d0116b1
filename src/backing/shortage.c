/* Why memory is not to be had, in words, and the command that cures it.
 *
 * The kernel has one answer for every shortage of huge pages, and for a shortage of ordinary memory none at all but the
 * OOM killer. So the numbers are read: before anything is populated, to refuse at once what cannot work (and not to
 * drain the huge pages of others on the way), and again after a failure. What cannot be read is assumed to suffice. */
#include <backing/internal.h>
#include <os/host.h>
#include <os/os.h>
#include <stdio.h>
#include <string.h>

static uint64_t known(uint64_t number)
{
	return number == HOST_UNKNOWN ? 0 : number;
}

static bool exceeds(const struct host_limit *limit, uint64_t bytes)
{
	uint64_t left = limit->used < limit->limit ? limit->limit - limit->used : 0;
	return limit->found && bytes > left;
}

static void explain_limit(const struct host_limit *limit, uint64_t bytes, const char *what,
                          struct hp_report_rung *entry)
{
	char max[32], needed[32];
	put_cause(entry->cause, "the cgroup %.64s allows %s of %s (%s); %llu MiB of that are used, %s are needed",
	          limit->group, text_size(limit->limit, max), what, limit->file, (unsigned long long)(limit->used / MIB),
	          text_size(bytes, needed));
	put_cure(entry->cure, "echo %llu > %s/%s", (unsigned long long)round_up(limit->used + bytes, 2 * MIB), limit->group,
	         limit->file);
}

/* Huge pages of a set of nodes; false where that is hidden. */
static bool count_on(const struct host_pages *pages, uint64_t nodes, uint64_t *total, uint64_t *unused)
{
	bool seen = false;
	*total = *unused = 0;
	for (unsigned node = 0; node < HOST_MAX_NODES; node++) {
		if (pages->node[node].total == HOST_UNKNOWN) continue;
		seen = true;
		if (!(nodes >> node & 1)) continue;
		if (pages->node[node].free == HOST_UNKNOWN) return false;
		*total += pages->node[node].total;
		*unused += pages->node[node].free;
	}
	return seen;
}

bool shortage_of_huge_pages(uint64_t page_size, uint64_t bytes, uint64_t nodes, bool bound,
                            struct hp_report_rung *entry)
{
	struct host_limit limit;
	struct host_pages pages;
	char size[32], list[64];
	unsigned long long need = bytes / page_size, kilobytes = page_size / KIB;
	const char *page = text_size(page_size, size);

	host_hugetlb_limit(page_size, &limit);
	if (exceeds(&limit, bytes)) {
		char what[64];
		snprintf(what, sizeof what, "%s huge pages", page);
		explain_limit(&limit, bytes, what, entry);
		return true;
	}
	if (host_pages(page_size, &pages) < 0 || pages.free == HOST_UNKNOWN) return false;
	uint64_t overcommit = known(pages.overcommit), surplus = known(pages.surplus);
	uint64_t spare = overcommit > surplus ? overcommit - surplus : 0;
	uint64_t reserved = known(pages.reserved), unused = known(pages.free);
	uint64_t left = (unused > reserved ? unused - reserved : 0) + spare;
	const char *boot = page_size == GIB ? ". If the command gets fewer: boot with hugepagesz=1G hugepages=N" : "";
	if (need > left) {
		if (!pages.total && !spare)
			put_cause(entry->cause, "no huge pages of %s are set aside, %llu are needed%s", page, need, boot);
		else
			put_cause(entry->cause,
			          "%llu huge pages of %s are needed, %llu of %llu are free and %llu of those reserved by others%s",
			          need, page, (unsigned long long)unused, (unsigned long long)pages.total,
			          (unsigned long long)reserved, boot);
		put_cure(entry->cure, "echo %llu > /sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages",
		         (unsigned long long)(pages.total + need - left), kilobytes);
		return true;
	}
	/* Without a policy the cpuset decides. */
	if (!bound) nodes = os_nodes_with_memory();
	uint64_t there, there_total;
	if (!count_on(&pages, nodes, &there_total, &there) || need <= there + spare) return false;
	unsigned first = nodes ? __builtin_ctzll(nodes) : 0;
	put_cause(entry->cause,
	          "node %.40s: %llu huge pages of %s are needed there, %llu of %llu are free (%llu on all nodes together)",
	          text_nodes(nodes, list, sizeof list), need, page, (unsigned long long)there,
	          (unsigned long long)there_total, (unsigned long long)unused);
	put_cure(entry->cure, "echo %llu > /sys/devices/system/node/node%u/hugepages/hugepages-%llukB/nr_hugepages",
	         (unsigned long long)(known(pages.node[first].total) + need - there - spare), first, kilobytes);
	return true;
}

bool shortage_of_memory(uint64_t bytes, uint64_t nodes, bool bound, struct hp_report_rung *entry)
{
	struct host_limit limit;
	char needed[32], list[64];
	uint64_t with_tables = bytes + bytes / 256 + MIB; /* page tables, and a little for everybody else */

	host_memory_limit(&limit);
	if (exceeds(&limit, with_tables)) {
		explain_limit(&limit, with_tables, "memory", entry);
		return true;
	}
	text_size(bytes, needed);
	uint64_t available = host_memory_available();
	if (with_tables > available) {
		put_cause(entry->cause, "%s are needed, %llu MiB of memory are available on this machine", needed,
		          (unsigned long long)(available / MIB));
		return true;
	}
	uint64_t all = os_nodes_with_memory();
	if (!bound || !(all & (all - 1))) return false;
	available = 0;
	for (unsigned node = 0; node < HOST_MAX_NODES; node++) {
		if (!(nodes >> node & 1)) continue;
		uint64_t here = host_node_available(node);
		if (here == HOST_UNKNOWN) return false;
		available += here;
	}
	if (with_tables <= available) return false;
	put_cause(entry->cause, "node %.40s: %s are needed there, %llu MiB of memory are available",
	          text_nodes(nodes, list, sizeof list), needed, (unsigned long long)(available / MIB));
	return true;
}
