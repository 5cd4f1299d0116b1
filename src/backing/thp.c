/* Transparent huge pages of shared memory: did we get them?
 *
 * MADV_HUGEPAGE on a memfd returns 0 and does nothing where shmem_enabled is "never", which is the default. So nothing
 * counts but what the kernel says about the pages themselves: the range is mapped a second time, whole, and smaps says
 * how much of exactly that mapping consists of huge pages. (The mapping in use will not do: it spans more than the
 * range, and its numbers could be those of a neighbour.) */
#include <backing/internal.h>
#include <errno.h>
#include <fcntl.h>
#include <os/host.h>
#include <os/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Sums a field, given as for sscanf, over the mappings that lie in [start, end). */
static int sum_smaps(uintptr_t start, uintptr_t end, const char *field, uint64_t *bytes)
{
	char buf[8192];
	size_t kept = 0;
	uint64_t at = 0;
	bool inside = false;
	*bytes = 0;
	int fd = os_open("/proc/self/smaps", O_RDONLY);
	if (fd < 0) return fd;
	int64_t got;
	while ((got = os_pread(fd, buf + kept, sizeof buf - 1 - kept, at)) > 0) {
		at += got;
		kept += got;
		buf[kept] = 0;
		char *line = buf, *newline;
		while ((newline = strchr(line, '\n'))) {
			unsigned long from, to;
			unsigned long long kilobytes;
			if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
				inside = from >= start && to <= end;
				if (from >= end) goto done; /* they are in order of address */
			} else if (inside && sscanf(line, field, &kilobytes) == 1) {
				*bytes += kilobytes * 1024;
			}
			line = newline + 1;
		}
		kept = buf + kept - line;
		memmove(buf, line, kept);
		if (kept == sizeof buf - 1) kept = 0; /* a path longer than a page: no line of ours */
	}
done:
	os_close(fd);
	return got < 0 ? got : 0;
}

int thp_huge_bytes(const struct backing *backing, uint64_t from, uint64_t to, uint64_t *bytes)
{
	uint64_t size = to - from;
	void *room, *view;
	*bytes = 0;
	/* Reserved with slack, so that the view can be aligned and has no neighbour to merge with. */
	int error = os_map(NULL, size + 4 * MIB, PROT_NONE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &room);
	if (error) return error;
	char *aligned = (char *)(uintptr_t)round_up((uintptr_t)room + 4096, 2 * MIB);
	error = os_map(aligned, size, PROT_READ, OS_MAP_FIXED | OS_MAP_NORESERVE, backing->fd, from, &view);
	if (!error) {
		error = os_advise(view, size, MADV_POPULATE_READ);
		if (error == -EINVAL) {
			for (uint64_t at = 0; at < size; at += 4096) (void)*(volatile char *)((char *)view + at);
			error = 0;
		}
		if (!error) error = sum_smaps((uintptr_t)view, (uintptr_t)view + size, "ShmemPmdMapped: %llu", bytes);
	}
	os_unmap(room, size + 4 * MIB);
	return error;
}

int thp_private_bytes(const struct backing *backing, uint64_t *bytes)
{
	uintptr_t start = (uintptr_t)backing->base;
	return sum_smaps(start, start + backing->capacity, "AnonHugePages: %llu", bytes);
}

void thp_explain(int collapse_error, struct hp_report_rung *entry)
{
	char word[32], why[96] = "";
	host_choice("/sys/kernel/mm/transparent_hugepage/shmem_enabled", word, sizeof word);
	if (collapse_error) snprintf(why, sizeof why, ", and MADV_COLLAPSE fails: %.40s", text_error(collapse_error));
	if (!word[0]) {
		put_cause(entry->cause, "this kernel has no transparent huge pages for shared memory");
	} else if (!strcmp(word, "never") || !strcmp(word, "deny")) {
		put_cause(entry->cause, "transparent huge pages of shared memory are set to \"%.8s\"%s", word, why);
		put_cure(entry->cure, "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled");
	} else {
		put_cause(entry->cause,
		          "the kernel found no free blocks of 2 MiB for all of it (memory is fragmented or short)%s", why);
		put_cure(entry->cure, "echo 1 > /proc/sys/vm/compact_memory");
	}
}
