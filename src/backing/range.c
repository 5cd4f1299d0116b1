/* Making a range real: bind, lock, populate, verify; or give everything back and say why.
 *
 * Whatever fails, and at whatever point, nothing of the range stays: the pages are punched out of the file, so that the
 * huge pages are free again for others before the call returns. */
#include <backing/internal.h>
#include <errno.h>
#include <os/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* Fills in the first of cause and error; what is known already is not overwritten. */
static int because(struct hp_report_rung *entry, int error, int result, const char *what)
{
	entry->error = error;
	if (!entry->cause[0]) put_cause(entry->cause, "%s: %s", what, text_error(error));
	return result;
}

static bool shortage(const struct backing *backing, uint64_t bytes, uint64_t nodes, bool bound,
                     struct hp_report_rung *entry)
{
	return rung_is_hugetlb(backing->rung) ? shortage_of_huge_pages(backing->page_size, bytes, nodes, bound, entry)
	                                      : shortage_of_memory(bytes, nodes, bound, entry);
}

static int check_thp(const struct backing *backing, uint64_t from, uint64_t to, int collapse_error,
                     struct hp_report_rung *entry)
{
	uint64_t huge;
	int error = thp_huge_bytes(backing, from, to, &huge);
	if (error) return because(entry, error, -ENOMEM, "it cannot be told whether the pages are huge");
	if (huge == to - from) return 0;
	thp_explain(collapse_error, entry);
	entry->error = collapse_error ? collapse_error : -ENOMEM;
	return -ENOMEM;
}

static int check_nodes(const struct backing *backing, uint64_t from, uint64_t to, const struct hp_numa *numa,
                       uint64_t nodes, struct hp_report *report, struct hp_report_rung *entry, uint64_t *misplaced)
{
	uint64_t absent;
	bool strict = numa->strict && numa->policy != HP_NUMA_DEFAULT;
	int error = policy_verify(backing, from, to, numa, nodes, report, misplaced, &absent);
	if (error)
		return strict
		           ? because(entry, error, error, "the kernel does not say where pages are, and the policy is strict")
		           : 0;
	if (absent && rung_is_hugetlb(backing->rung))
		return because(entry, -EFAULT, -ENOMEM, "pages are missing after they were populated");
	if (*misplaced && strict) {
		entry->error = -ENOMEM;
		return -ENOMEM;
	}
	return 0;
}

/* The steps in order. On failure the caller gives back; *misplaced is not 0 when pages on wrong nodes are the reason. */
static int commit(const struct backing *backing, uint64_t from, uint64_t to, const struct range_order *order,
                  uint64_t nodes, struct hp_report *report, struct hp_report_rung *entry, uint64_t *misplaced)
{
	char *start = backing->base + from;
	uint64_t bytes = to - from;
	const struct hp_numa *numa = &order->numa;
	int collapse_error = 0;

	*misplaced = 0;
	if (!order->lazy && shortage(backing, bytes, nodes, policy_is_bound(numa), entry))
		return because(entry, -ENOMEM, -ENOMEM, "");
	int error = policy_set(start, bytes, numa, nodes, report);
	if (error) {
		put_cause(entry->cause, "%s", report->numa_cause);
		put_cure(entry->cure, "%s", report->numa_cure);
		return because(entry, error, error, "");
	}
	if (order->lazy) {
		report->lock_error = -ENODATA;
		return 0;
	}
	if (backing->rung == HP_RUNG_THP) {
		error = os_advise(start, bytes, MADV_HUGEPAGE);
		if (error == -EINVAL) {
			thp_explain(0, entry);
			return because(entry, error, -ENOMEM, "");
		}
		if (error) return because(entry, error, error, "MADV_HUGEPAGE");
	}
	/* Before populating: so it costs nothing, while locking 4 KiB pages afterwards takes a tenth of the time. */
	if (!rung_is_hugetlb(backing->rung)) report->lock_error = os_lock_on_fault(start, bytes);
	error = populate(backing, from, to, nodes, order, report, &collapse_error);
	if (error == -ENODATA) { /* small pages where they should be huge */
		thp_explain(collapse_error, entry);
		return because(entry, collapse_error, -ENOMEM, "");
	}
	if (error == -ECANCELED) return because(entry, error, error, "cancelled by the progress function");
	if (error == -EFAULT || error == -ENOMEM || error == -ENOSPC) {
		entry->error = -ENOMEM; /* explained once everything is given back */
		return -ENOMEM;
	}
	if (error) return because(entry, error, error, "populating failed");
	if (backing->rung == HP_RUNG_THP) {
		error = check_thp(backing, from, to, collapse_error, entry);
		if (error) return error;
	}
	error = check_nodes(backing, from, to, numa, nodes, report, entry, misplaced);
	if (error) return error;
	return 0;
}

int range_commit(const struct backing *backing, uint64_t from, uint64_t to, const struct range_order *order,
                 struct hp_report *report, struct hp_report_rung *entry)
{
	if (backing->private) return private_commit(backing, from, to, order, report, entry);
	uint64_t nodes = backing_nodes(&order->numa), misplaced;
	bool bound = policy_is_bound(&order->numa);

	report->numa = order->numa;
	report->numa_error = report->lock_error = 0;
	report->numa_cause[0] = report->numa_cure[0] = 0;
	report->nodes = report->threads = 0;
	report->prefault_ns = 0;
	int error = commit(backing, from, to, order, nodes, report, entry, &misplaced);
	if (!error) return 0;
	backing_punch(backing, from, to);
	if (error == -ENOMEM && !entry->cause[0]) {
		/* The numbers that matter are those without what we had taken. */
		if (misplaced) bound = true;
		if (!shortage(backing, to - from, nodes, bound, entry)) {
			if (misplaced)
				put_cause(entry->cause, "%llu of %llu pages came from other nodes than asked for",
				          (unsigned long long)misplaced, (unsigned long long)((to - from) / backing->page_size));
			else
				put_cause(
					entry->cause,
					"the kernel ran short while populating, though enough is free now: others took memory at the same "
					"time; try again");
		}
	}
	return error;
}
