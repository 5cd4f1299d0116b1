/* What the files of this folder share. */
#ifndef HUGEPOOL_BACKING_PRIVATE_H
#define HUGEPOOL_BACKING_PRIVATE_H

#include <backing/backing.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

static inline bool rung_is_hugetlb(hp_rung rung)
{
	return rung == HP_RUNG_1G || rung == HP_RUNG_2M;
}

static inline uint64_t round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/* ladder.c: from the top down, until a rung holds. The two functions say why a rung is not tried (NULL: it is), and try. */
typedef const char *ladder_skipped(const struct backing_want *want, hp_rung rung);
typedef int ladder_try(const struct backing_want *want, hp_rung rung, struct backing *backing, uint64_t *committed,
                       struct hp_report *report, struct hp_report_rung *entry);
void ladder_begin(const struct backing_want *want, struct backing *backing, uint64_t *committed,
                  struct hp_report *report);
int ladder_climb(const struct backing_want *want, struct backing *backing, uint64_t *committed,
                 struct hp_report *report, ladder_skipped *why, ladder_try *try);

/* range.c: the whole of making a range real. */
struct range_order {
	struct hp_numa numa;
	unsigned threads;
	hp_progress_fn *progress;
	void *progress_arg;
	bool lazy;
};
int range_commit(const struct backing *backing, uint64_t from, uint64_t to, const struct range_order *order,
                 struct hp_report *report, struct hp_report_rung *entry);

/* private.c: the same for anonymous memory. */
int private_commit(const struct backing *backing, uint64_t from, uint64_t to, const struct range_order *order,
                   struct hp_report *report, struct hp_report_rung *entry);
int private_punch(const struct backing *backing, uint64_t from, uint64_t to);

/* policy.c: `nodes` is what backing_nodes said, asked once so that a migrating thread changes nothing half-way. */
bool policy_is_bound(const struct hp_numa *numa); /* the kernel takes memory of these nodes or none */
int policy_set(void *start, uint64_t bytes, const struct hp_numa *numa, uint64_t nodes, struct hp_report *report);
void policy_reset(void *start, uint64_t bytes);
/* For pages that the kernel does not interleave by itself: the page's own node, until interleaved again. */
int policy_set_one(void *page, uint64_t page_size, uint64_t nodes, uint64_t index);
int policy_interleave(void *page, uint64_t page_size, uint64_t nodes);
/* Fills report->node[]. Returns -errno where the kernel cannot say; *misplaced and *absent count pages. */
int policy_verify(const struct backing *backing, uint64_t from, uint64_t to, const struct hp_numa *numa, uint64_t nodes,
                  struct hp_report *report, uint64_t *misplaced, uint64_t *absent);

/* populate.c: 0 or -errno; what was taken stays. THP rung: -ENODATA when the kernel gives small pages; *collapse_error
 * is what MADV_COLLAPSE said first. */
int populate(const struct backing *backing, uint64_t from, uint64_t to, uint64_t nodes, const struct range_order *order,
             struct hp_report *report, int *collapse_error);
/* Populates without MADV_POPULATE_*, for kernels before 5.14. Only where pages exist or cannot end in SIGBUS. */
void populate_touch(char *start, uint64_t bytes, uint64_t step);

/* thp.c: bytes of [from, to) that lie on huge pages; -errno where that cannot be told. */
int thp_huge_bytes(const struct backing *backing, uint64_t from, uint64_t to, uint64_t *bytes);
int thp_private_bytes(const struct backing *backing, uint64_t *bytes); /* of the whole mapping of a private backing */
void thp_explain(int collapse_error, struct hp_report_rung *entry);

/* shortage.c: true when it can be told that `bytes` are not to be had; then cause and cure are written. `bound`: only
 * memory of `nodes` counts. */
bool shortage_of_huge_pages(uint64_t page_size, uint64_t bytes, uint64_t nodes, bool bound,
                            struct hp_report_rung *entry);
bool shortage_of_memory(uint64_t bytes, uint64_t nodes, bool bound, struct hp_report_rung *entry);

/* report.c */
uint64_t rung_page_size(hp_rung rung);
const char *text_size(uint64_t bytes, char text[32]);            /* "64 MiB", exact */
const char *text_nodes(uint64_t nodes, char *text, size_t size); /* "0-1,3" */
const char *text_error(int error);                               /* "Cannot allocate memory" for -ENOMEM */
/* Into the reports' fields. A cause is cut where it is too long; a cure is left out, since a command cut off in the
 * middle is worse than none. */
__attribute__((format(printf, 2, 3))) void put_cause(char cause[192], const char *format, ...);
__attribute__((format(printf, 2, 3))) void put_cure(char cure[192], const char *format, ...);

#endif
