/* Backing: populated ranges of pages of one size on the right node, and a report of what could be had.
 *
 * A backing is one memfd, sized to the whole capacity and sealed against resizing, mapped once without reservation.
 * `backing_commit` makes a range of it real: bind, populate, verify where the pages are; on failure it gives back what
 * it took, so that a shortage is an error here and never SIGBUS later. Nothing is published here; who may use which
 * range is the pool's business. Policies of hugetlb mappings belong to one mapping, so only the committing process ever
 * instantiates a page. */
#ifndef HUGEPOOL_BACKING_INTERNAL_H
#define HUGEPOOL_BACKING_INTERNAL_H

#include <hugepool/backing.h>
#include <stdbool.h>

struct backing {
	int fd;
	hp_rung rung;
	uint64_t page_size; /* bytes; of the rung: 4 KiB for HP_RUNG_4K, 2 MiB for HP_RUNG_THP */
	uint64_t capacity;  /* bytes, a multiple of page_size: the size of the file and of the mapping */
	char *base;
	bool private; /* anonymous memory of this process alone (private.c): fd is -1 */
	bool lazy;    /* private only: committing populates nothing */
	bool lent;    /* private only: the caller's memory, of which nothing is given to the kernel */
	bool copied;  /* private, on hugetlb pages once: a forked child holds a copy on ordinary ones */
};

struct backing_want {
	const char *name;  /* for /proc/PID/maps */
	uint64_t size;     /* bytes to commit at once */
	uint64_t capacity; /* bytes of address space; 0 or less than size: size */
	void *hint;        /* preferred address, or NULL */
	hp_rung_choice choice;
	hp_rung rung;
	struct hp_numa numa;
	hp_prefault prefault;
	unsigned threads;
	hp_progress_fn *progress;
	void *progress_arg;
};

/* Goes down the ladder until a rung holds: memfd, size, seal, map, commit [0, *committed). With prefault BACKGROUND
 * *committed is the part populated at once (at least one page); otherwise it is size rounded up to the rung's pages. LAZY:
 * 4 KiB only, nothing is populated and all of it counts as committed. `report` may not be NULL. -EINVAL for nonsense. */
int backing_create(const struct backing_want *want, struct backing *backing, uint64_t *committed,
                   struct hp_report *report);

/* The same as anonymous memory of this process alone: transparent huge pages where the kernel has them, else 4 KiB;
 * hugetlb pages only where they are required. LAZY is for all but hugetlb. The mapping starts at a multiple of 2 MiB, or of
 * the page. */
int backing_create_private(const struct backing_want *want, struct backing *backing, uint64_t *committed,
                           struct hp_report *report);

/* The same on memory of the caller's, which is there already and stays when the backing goes. Both a multiple of 4 KiB;
 * `capacity` may be more than there is, whose use is the pool's to prevent. */
void backing_lend(struct backing *backing, void *start, uint64_t capacity);

/* In a forked child: puts a copy of [from, to) on ordinary pages in the place of hugetlb pages that it shares with its
 * parent, which could be taken from it. Nothing to do on other rungs. */
int backing_copy_private(const struct backing *backing, uint64_t from, uint64_t to);

/* Makes [from, to) real, both multiples of page_size. numa NULL: default. On failure nothing stays of it. */
int backing_commit(const struct backing *backing, uint64_t from, uint64_t to, const struct hp_numa *numa,
                   unsigned threads, hp_progress_fn *progress, void *progress_arg, struct hp_report *report);

/* Gives the pages of [from, to) back to the kernel. */
int backing_punch(const struct backing *backing, uint64_t from, uint64_t to);

/* Maps an existing file (attach): size and page size already checked by the caller. hint as above, `at_hint_only`
 * false: elsewhere when the hint is taken. prot PROT_*. The start is aligned to the larger of page_size and 2 MiB. */
int backing_map(struct backing *backing, void *hint, int prot);
void backing_unmap(struct backing *backing); /* unmaps, does not close */

/* Fills this process' page tables for [from, to), whose pages exist. */
int backing_populate_tables(const struct backing *backing, uint64_t from, uint64_t to);

/* The set of nodes a policy stands for (resolving the zero defaults), and the node of page `index` counted from the
 * start of the range: -1 where any is right. */
uint64_t backing_nodes(const struct hp_numa *numa);

/* Which node each page of [from, to) lies on, at granularity `step` bytes: nodes[i] or -1 where it cannot be told. */
int backing_where(const struct backing *backing, uint64_t from, uint64_t to, uint64_t step, int *nodes, unsigned count);

/* memset to zero, past the caches when that is quicker. */
void backing_zero(void *start, size_t bytes);

#endif
