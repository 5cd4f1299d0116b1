/* The mapping, and what is done with ranges of it.
 *
 * The file is mapped once, whole and without reservation, so growth maps nothing. The start is aligned to 2 MiB at
 * least, on every rung: the page layer cuts chunks of 2 MiB, and small pages may become huge.
 *
 * backing_zero clears in place. Giving the pages back and populating anew was measured against it (one thread, Zen 5,
 * Linux 6.18, median of 21, microseconds, clear / give back and populate): on 4 KiB pages 64 KiB 0.6 / 47, 2 MiB
 * 21 / 1,400, 64 MiB 1,200 / 51,000; on 2 MiB pages 0.6 / 1.8 (the kernel clears it), 24 / 38, 1,200 / 6,200. It is never
 * cheaper, it breaks up transparent huge pages, and a page given back may be gone: so it is not done. */
#include <backing/internal.h>
#include <errno.h>
#include <os/os.h>
#include <string.h>
#include <sys/mman.h>

static bool is_range(const struct backing *backing, uint64_t from, uint64_t to)
{
	return backing->page_size && from < to && to <= backing->capacity && from % backing->page_size == 0 &&
	       to % backing->page_size == 0;
}

int backing_map(struct backing *backing, void *hint, int prot)
{
	uint64_t align = backing->page_size > 2 * MIB ? backing->page_size : 2 * MIB, size = backing->capacity;
	void *room, *at;
	int error;

	backing->base = NULL;
	if (!size || size > UINT64_MAX / 2) return -EINVAL;
	if (hint && (uintptr_t)hint % align == 0) {
		error = os_map(hint, size, prot, OS_MAP_AT | OS_MAP_NORESERVE, backing->fd, 0, &at);
		if (!error) goto done;
	}
	/* Reserve with slack, map over the aligned part, give the slack back. */
	uint64_t span = round_up(size, 2 * MIB) + align;
	error = os_map(NULL, span, PROT_NONE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &room);
	if (error) return error;
	char *start = (char *)(uintptr_t)round_up((uintptr_t)room, align), *end = (char *)room + span;
	error = os_map(start, size, prot, OS_MAP_FIXED | OS_MAP_NORESERVE, backing->fd, 0, &at);
	if (error) {
		os_unmap(room, span);
		return error;
	}
	if (start > (char *)room) os_unmap(room, start - (char *)room);
	char *behind = start + round_up(size, 4 * KIB);
	if (end > behind) os_unmap(behind, end - behind);
done:
	backing->base = at;
	if (backing->rung == HP_RUNG_THP)
		os_advise(at, size, MADV_HUGEPAGE); /* lets page tables of attachers be short; no harm where it fails */
	return 0;
}

void backing_unmap(struct backing *backing)
{
	if (backing->base && !backing->lent) os_unmap(backing->base, backing->capacity);
	backing->base = NULL;
}

int backing_commit(const struct backing *backing, uint64_t from, uint64_t to, const struct hp_numa *numa,
                   unsigned threads, hp_progress_fn *progress, void *progress_arg, struct hp_report *report)
{
	struct hp_report unwanted;
	if (!report) report = &unwanted;
	memset(report, 0, sizeof *report);
	if (!is_range(backing, from, to)) return -EINVAL;
	struct range_order order = {
		.numa = numa ? *numa : (struct hp_numa){0},
		.threads = threads,
		.progress = progress,
		.progress_arg = progress_arg,
	};
	report->bytes_asked = to - from;
	report->rung_asked = backing->rung;
	report->choice = HP_CHOICE_REQUIRE;
	report->rungs = 1;
	report->rung[0] = (struct hp_report_rung){.rung = backing->rung, .page_size = backing->page_size, .tried = 1};
	int error = range_commit(backing, from, to, &order, report, &report->rung[0]);
	if (error) return error;
	report->rung_got = backing->rung;
	report->page_size = backing->page_size;
	report->bytes_got = to - from;
	return 0;
}

int backing_punch(const struct backing *backing, uint64_t from, uint64_t to)
{
	if (!is_range(backing, from, to)) return -EINVAL;
	if (backing->private) return private_punch(backing, from, to);
	if (!rung_is_hugetlb(backing->rung)) os_unlock_memory(backing->base + from, to - from);
	int error = os_punch(backing->fd, from, to - from);
	if (error) error = os_advise(backing->base + from, to - from, MADV_REMOVE); /* refused for locked memory */
	policy_reset(backing->base + from, to - from);
	return error;
}

int backing_populate_tables(const struct backing *backing, uint64_t from, uint64_t to)
{
	if (!is_range(backing, from, to)) return -EINVAL;
	int error = os_advise(backing->base + from, to - from, MADV_POPULATE_WRITE);
	if (error == -EINVAL) { /* before Linux 5.14 */
		populate_touch(backing->base + from, to - from, rung_is_hugetlb(backing->rung) ? backing->page_size : 4 * KIB);
		error = 0;
	}
	return error == -EFAULT ? -ENOMEM : error;
}

void backing_zero(void *start, size_t bytes)
{
	memset(start, 0, bytes);
}
