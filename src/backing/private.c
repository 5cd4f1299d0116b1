/* Private backing: anonymous memory of one process, for a malloc that belongs to nobody else.
 *
 * Address space for the whole capacity is mapped once, without reservation, and ordinary pages come at the first touch:
 * committing lazily is nothing at all, committing at once is populating, giving back is MADV_DONTNEED. A shortage of
 * ordinary memory is no signal but the OOM killer, as with any malloc, so laziness is safe here on transparent huge pages
 * as well.
 *
 * Hugetlb pages are another matter, and only taken where they are required. They are mapped and populated apart, with
 * the kernel's reservation, so that a shortage is an error, and then moved into their place. After a fork parent and
 * child share them until one writes; when no free page is left for the copy the kernel takes the child's, and touching
 * it is SIGBUS. Hence a child copies everything to ordinary pages before it goes on (backing_copy_private).
 *
 * Whether transparent huge pages really came is looked up once, at creation, and only where they are populated then. */
#include <backing/internal.h>
#include <errno.h>
#include <os/host.h>
#include <os/os.h>
#include <string.h>
#include <sys/mman.h>

#define SLICE (64 * MIB) /* between two calls of the progress function */
#define ORDINARY (OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE)

static int because(struct hp_report_rung *entry, int error, const char *what)
{
	entry->error = error;
	if (!entry->cause[0]) put_cause(entry->cause, "%s: %s", what, text_error(error));
	return error;
}

/* Address space for the capacity, aligned, readable and writable, with nothing behind it. */
static int reserve(struct backing *backing)
{
	uint64_t align = backing->page_size > 2 * MIB ? backing->page_size : 2 * MIB;
	uint64_t span = backing->capacity + align;
	void *room;
	int error = os_map(NULL, span, PROT_READ | PROT_WRITE, ORDINARY, -1, 0, &room);
	if (error) return error;
	char *start = (char *)(uintptr_t)round_up((uintptr_t)room, align), *end = (char *)room + span;
	char *behind = start + round_up(backing->capacity, 4 * KIB);
	if (start > (char *)room) os_unmap(room, start - (char *)room);
	if (end > behind) os_unmap(behind, end - behind);
	backing->base = start;
	return 0;
}

/* Not populate(): that cares for files and for placing page by page, with threads. */
static int fill(char *start, uint64_t bytes, const struct range_order *order, uint64_t page_size)
{
	for (uint64_t at = 0; at < bytes; at += SLICE) {
		uint64_t slice = bytes - at < SLICE ? bytes - at : SLICE;
		if (order->progress && order->progress(order->progress_arg, at, bytes, -1)) return -ECANCELED;
		int error = os_advise(start + at, slice, MADV_POPULATE_WRITE);
		if (error == -EINVAL) { /* before Linux 5.14 */
			populate_touch(start + at, slice, page_size);
			error = 0;
		}
		if (error) return error == -EFAULT ? -ENOMEM : error;
	}
	return order->progress && order->progress(order->progress_arg, bytes, bytes, -1) ? -ECANCELED : 0;
}

static int commit_huge(const struct backing *backing, uint64_t from, uint64_t to, const struct range_order *order,
                       uint64_t nodes, struct hp_report *report, struct hp_report_rung *entry)
{
	uint64_t bytes = to - from;
	unsigned huge = backing->rung == HP_RUNG_1G ? OS_MAP_HUGE_1G : OS_MAP_HUGE_2M;
	void *room;
	if (shortage_of_huge_pages(backing->page_size, bytes, nodes, policy_is_bound(&order->numa), entry)) {
		entry->error = -ENOMEM;
		return -ENOMEM;
	}
	int error = os_map(NULL, bytes, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | huge, -1, 0, &room);
	if (error) return because(entry, error, "mapping huge pages") == -EINVAL ? -ENOMEM : error;
	error = policy_set(room, bytes, &order->numa, nodes, report);
	if (!error) error = fill(room, bytes, order, backing->page_size);
	if (error) {
		because(entry, error, "populating huge pages");
	} else {
		error = os_remap(room, bytes, backing->base + from);
		if (!error) return 0;
		because(entry, error, "moving huge pages into their place (Linux 5.16 is needed)");
	}
	os_unmap(room, bytes);
	return error;
}

int private_commit(const struct backing *backing, uint64_t from, uint64_t to, const struct range_order *order,
                   struct hp_report *report, struct hp_report_rung *entry)
{
	char *start = backing->base + from;
	uint64_t bytes = to - from, nodes = 0, begin = os_now_ns();

	report->numa = order->numa;
	report->numa_error = report->lock_error = 0;
	report->numa_cause[0] = report->numa_cure[0] = 0;
	report->nodes = report->threads = 0;
	report->prefault_ns = 0;
	if (order->numa.policy != HP_NUMA_DEFAULT) nodes = backing_nodes(&order->numa);
	if (rung_is_hugetlb(backing->rung) && !backing->copied) {
		int error = commit_huge(backing, from, to, order, nodes ? nodes : os_nodes_with_memory(), report, entry);
		report->threads = 1;
		report->prefault_ns = os_now_ns() - begin;
		return error;
	}
	int error = policy_set(start, bytes, &order->numa, nodes, report);
	if (error) {
		put_cause(entry->cause, "%s", report->numa_cause);
		put_cure(entry->cure, "%s", report->numa_cure);
		return because(entry, error, "");
	}
	if (backing->lazy) {
		report->lock_error = -ENODATA;
		return 0;
	}
	if (shortage_of_memory(bytes, nodes, policy_is_bound(&order->numa), entry)) {
		entry->error = -ENOMEM;
		return -ENOMEM;
	}
	report->lock_error = os_lock_on_fault(start, bytes);
	error = fill(start, bytes, order, 4 * KIB);
	report->threads = 1;
	report->prefault_ns = os_now_ns() - begin;
	if (!error && backing->rung == HP_RUNG_THP && from == 0) {
		uint64_t huge;
		error = thp_private_bytes(backing, &huge);
		if (error)
			because(entry, error, "it cannot be told whether the pages are huge");
		else if (huge < bytes) {
			put_cause(entry->cause,
			          "the kernel found no free blocks of 2 MiB for all of it (memory is fragmented or short)");
			put_cure(entry->cure, "echo 1 > /proc/sys/vm/compact_memory");
			entry->error = -ENOMEM;
		}
		if (entry->error) error = -ENOMEM;
	}
	if (error) {
		private_punch(backing, from, to);
		because(entry, error, error == -ECANCELED ? "cancelled by the progress function" : "populating failed");
	}
	return error;
}

int private_punch(const struct backing *backing, uint64_t from, uint64_t to)
{
	char *start = backing->base + from;
	void *at;
	if (backing->lent) return 0;
	if (rung_is_hugetlb(backing->rung)) /* ordinary memory takes the place, and the pages are free at once */
		return os_map(start, to - from, PROT_READ | PROT_WRITE, ORDINARY | OS_MAP_FIXED, -1, 0, &at);
	if (!backing->lazy) os_unlock_memory(start, to - from);
	return os_advise(start, to - from, MADV_DONTNEED);
}

void backing_lend(struct backing *backing, void *start, uint64_t capacity)
{
	*backing = (struct backing){.fd = -1,
	                            .rung = HP_RUNG_4K,
	                            .page_size = 4 * KIB,
	                            .capacity = capacity,
	                            .base = start,
	                            .private = true,
	                            .lazy = true,
	                            .lent = true};
}

int backing_copy_private(const struct backing *backing, uint64_t from, uint64_t to)
{
	if (!backing->private || !rung_is_hugetlb(backing->rung) || backing->copied) return 0;
	void *room;
	uint64_t bytes = to - from;
	int error = os_map(NULL, bytes, PROT_READ | PROT_WRITE, ORDINARY, -1, 0, &room);
	if (error) return error;
	memcpy(room, backing->base + from, bytes);
	error = os_remap(room, bytes, backing->base + from);
	if (error) os_unmap(room, bytes);
	return error;
}

/* ---- the ladder ---- */

/* Why a rung is not tried, or NULL. */
static const char *skipped(const struct backing_want *want, hp_rung rung)
{
	if (want->choice == HP_CHOICE_REQUIRE) return rung == want->rung ? NULL : "other pages are required";
	if (rung_is_hugetlb(rung)) return "private memory is on hugetlb pages only where they are required";
	return want->choice == HP_CHOICE_PREFER && rung < want->rung ? "smaller pages are preferred" : NULL;
}

/* Says of the mapping what its pages shall be. */
static int advise(const struct backing *backing, struct hp_report_rung *entry)
{
	char word[32];
	if (rung_is_hugetlb(backing->rung)) return 0;
	if (backing->rung == HP_RUNG_4K) {
		os_advise(backing->base, backing->capacity, MADV_NOHUGEPAGE); /* fails where there are none to avoid */
		return 0;
	}
	host_choice("/sys/kernel/mm/transparent_hugepage/enabled", word, sizeof word);
	if (!strcmp(word, "never")) {
		put_cause(entry->cause, "transparent huge pages are set to \"never\"");
		put_cure(entry->cure, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
		return because(entry, -ENOMEM, "");
	}
	int error = os_advise(backing->base, backing->capacity, MADV_HUGEPAGE);
	return error ? because(entry, error, "this kernel has no transparent huge pages") : 0;
}

static int try_rung(const struct backing_want *want, hp_rung rung, struct backing *backing, uint64_t *committed,
                    struct hp_report *report, struct hp_report_rung *entry)
{
	uint64_t page = rung_page_size(rung), size = round_up(want->size, page);
	uint64_t capacity = round_up(want->capacity > want->size ? want->capacity : want->size, page);
	*backing = (struct backing){.fd = -1,
	                            .rung = rung,
	                            .page_size = page,
	                            .capacity = capacity,
	                            .private = true,
	                            .lazy = want->prefault == HP_PREFAULT_LAZY};
	*committed = size;
	entry->tried = 1;
	int error = reserve(backing);
	if (error) {
		because(entry, error, "reserving address space");
		if (error == -ENOMEM) put_cure(entry->cure, "ulimit -v unlimited");
		return error;
	}
	error = advise(backing, entry);
	if (want->prefault == HP_PREFAULT_BACKGROUND && *committed > (page > 2 * MIB ? page : 2 * MIB))
		*committed = page > 2 * MIB ? page : 2 * MIB;
	struct range_order order = {.numa = want->numa, .progress = want->progress, .progress_arg = want->progress_arg};
	if (!error) error = private_commit(backing, 0, *committed, &order, report, entry);
	if (error) {
		backing_unmap(backing);
		*committed = 0;
	}
	return error;
}

int backing_create_private(const struct backing_want *want, struct backing *backing, uint64_t *committed,
                           struct hp_report *report)
{
	ladder_begin(want, backing, committed, report);
	return ladder_climb(want, backing, committed, report, skipped, try_rung);
}
