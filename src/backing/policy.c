/* NUMA policies of ranges, and where pages really are.
 *
 * Policies are set with explicit nodes before anything is populated, so that it does not matter which thread faults a
 * page: "local" becomes the node of the caller. A kernel without NUMA, or a container that may not use it, is no error
 * unless the caller was strict; it is always said. What the kernel made of a policy is looked up page by page
 * afterwards: PREFERRED and INTERLEAVE silently use other nodes when theirs are full. */
#include <backing/internal.h>
#include <errno.h>
#include <linux/mempolicy.h>
#include <os/os.h>
#include <stdio.h>
#include <string.h>

uint64_t backing_nodes(const struct hp_numa *numa)
{
	uint64_t nodes = numa->nodes;
	switch (numa->policy) {
	case HP_NUMA_LOCAL: return UINT64_C(1) << os_node();
	case HP_NUMA_BIND: return nodes ? nodes : UINT64_C(1) << os_node();
	case HP_NUMA_PREFERRED: return nodes ? nodes & -nodes : UINT64_C(1) << os_node();
	case HP_NUMA_INTERLEAVE: return nodes ? nodes : os_nodes_with_memory();
	default: return os_nodes_with_memory();
	}
}

bool policy_is_bound(const struct hp_numa *numa)
{
	return numa->policy == HP_NUMA_BIND || (numa->policy == HP_NUMA_LOCAL && numa->strict);
}

static void explain(int error, uint64_t nodes, struct hp_report *report)
{
	char asked[128], allowed[128];
	report->numa_error = error;
	switch (error) {
	case -EPERM:
		put_cause(
			report->numa_cause,
			"mbind is not permitted (a container's profile without CAP_SYS_NICE), so memory is not bound to nodes");
		put_cure(report->numa_cure, "docker run --cap-add SYS_NICE ...");
		break;
	case -ENOSYS: put_cause(report->numa_cause, "this kernel has no NUMA support"); break;
	case -EINVAL:
		put_cause(report->numa_cause,
		          "node %.60s is not there, has no memory or is not allowed here; this process may use node %.60s",
		          text_nodes(nodes, asked, sizeof asked), text_nodes(os_nodes_with_memory(), allowed, sizeof allowed));
		break;
	default: put_cause(report->numa_cause, "mbind failed: %s", text_error(error));
	}
}

int policy_set(void *start, uint64_t bytes, const struct hp_numa *numa, uint64_t nodes, struct hp_report *report)
{
	int mode;
	switch (numa->policy) {
	case HP_NUMA_DEFAULT: return 0;
	case HP_NUMA_INTERLEAVE: mode = MPOL_INTERLEAVE; break;
	default: mode = policy_is_bound(numa) ? MPOL_BIND : MPOL_PREFERRED;
	}
	int error = os_mbind(start, bytes, mode, nodes, false);
	if (!error) return 0;
	explain(error, nodes, report);
	bool no_numa = error == -EPERM || error == -ENOSYS || error == -EINVAL;
	return no_numa && !numa->strict ? 0 : error;
}

int policy_set_one(void *page, uint64_t page_size, uint64_t nodes, uint64_t index)
{
	for (index %= __builtin_popcountll(nodes); index; index--) nodes &= nodes - 1;
	return os_mbind(page, page_size, MPOL_PREFERRED, nodes & -nodes, false);
}

int policy_interleave(void *page, uint64_t page_size, uint64_t nodes)
{
	return os_mbind(page, page_size, MPOL_INTERLEAVE, nodes, false);
}

/* A policy stays with the range, so memory committed there later without one would still follow it. */
void policy_reset(void *start, uint64_t bytes)
{
	uint64_t nodes = os_nodes_with_memory();
	if (nodes & (nodes - 1)) os_mbind(start, bytes, MPOL_DEFAULT, 0, false);
}

static int query(char *start, uint64_t count, uint64_t step, int *status)
{
	void *pages[512];
	for (uint64_t at = 0; at < count;) {
		uint64_t batch = count - at < 512 ? count - at : 512;
		for (uint64_t i = 0; i < batch; i++) {
			pages[i] = start + (at + i) * step;
			status[at + i] = -ENOENT;
		}
		int error = os_move_pages(batch, pages, status + at);
		if (error) return error;
		at += batch;
	}
	return 0;
}

int policy_verify(const struct backing *backing, uint64_t from, uint64_t to, const struct hp_numa *numa, uint64_t nodes,
                  struct hp_report *report, uint64_t *misplaced, uint64_t *absent)
{
	uint64_t count[HP_MAX_NODES] = {0}, step = backing->page_size, total = (to - from) / step;
	int status[512];
	*misplaced = *absent = 0;
	report->nodes = 0;
	if (numa->policy == HP_NUMA_DEFAULT && backing->rung == HP_RUNG_4K && !(nodes & (nodes - 1))) {
		/* Nowhere else to be, and asking page by page costs a fourteenth of the time to populate. */
		report->node[report->nodes++] = (struct hp_report_node){.node = __builtin_ctzll(nodes), .pages = total};
		return 0;
	}
	for (uint64_t at = 0; at < total;) {
		uint64_t batch = total - at < 512 ? total - at : 512;
		int error = query(backing->base + from + at * step, batch, step, status);
		if (error) return error;
		for (uint64_t i = 0; i < batch; i++) {
			if (status[i] >= 0 && status[i] < HP_MAX_NODES)
				count[status[i]]++;
			else
				++*absent;
		}
		at += batch;
	}
	unsigned wanted = __builtin_popcountll(nodes);
	uint64_t share = wanted ? (total + wanted - 1) / wanted : total;
	for (unsigned node = 0; node < HP_MAX_NODES; node++) {
		if (!count[node]) continue;
		struct hp_report_node *entry = &report->node[report->nodes++];
		*entry = (struct hp_report_node){.node = node, .pages = count[node]};
		if (numa->policy == HP_NUMA_DEFAULT) continue;
		if (!(nodes >> node & 1))
			entry->misplaced = count[node];
		else if (numa->policy == HP_NUMA_INTERLEAVE && count[node] > share)
			entry->misplaced = count[node] - share;
		*misplaced += entry->misplaced;
	}
	return 0;
}

int backing_where(const struct backing *backing, uint64_t from, uint64_t to, uint64_t step, int *nodes, unsigned count)
{
	if (!step || from > to || to > backing->capacity || (to - from + step - 1) / step > count) return -EINVAL;
	uint64_t steps = (to - from + step - 1) / step;
	int error = query(backing->base + from, steps, step, nodes);
	for (uint64_t i = 0; i < steps; i++)
		if (error || nodes[i] < 0 || nodes[i] >= HP_MAX_NODES) nodes[i] = -1;
	return error;
}
