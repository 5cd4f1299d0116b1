/* The ladder: 1 GiB pages, 2 MiB pages, transparent huge pages, 4 KiB pages.
 *
 * Every rung is tried in full, down to populated and verified memory, before it counts; one that fails leaves nothing
 * behind but its line in the report, and the next is tried. What is not tried has a line that says why. */
#include <backing/internal.h>
#include <errno.h>
#include <fcntl.h>
#include <os/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static int failed(struct hp_report_rung *entry, int error, const char *what)
{
	entry->error = error;
	put_cause(entry->cause, "%s: %s", what, text_error(error));
	return error;
}

static int make_file(const struct backing_want *want, struct backing *backing, struct hp_report_rung *entry)
{
	char name[201], size[32];
	unsigned shift = rung_is_hugetlb(backing->rung) ? __builtin_ctzll(backing->page_size) : 0;
	snprintf(name, sizeof name, "%s", want->name ? want->name : "hugepool");
	int error = os_memfd_create(name, shift, &backing->fd);
	if (error) {
		failed(entry, error, "memfd_create");
		if (shift && (error == -ENODEV || error == -EINVAL)) {
			put_cause(entry->cause, "this kernel or processor has no huge pages of %s",
			          text_size(backing->page_size, size));
			return -ENOMEM;
		}
		if (error == -EMFILE) put_cure(entry->cure, "ulimit -n 4096");
		return error;
	}
	error = os_ftruncate(backing->fd, backing->capacity);
	if (error) return failed(entry, error, "sizing the file");
	/* Other users who get hold of a descriptor must not reopen it through /proc with more rights. */
	error = os_fchmod(backing->fd, 0600);
	if (error) return failed(entry, error, "fchmod");
	error = os_seal(backing->fd, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	if (error) return failed(entry, error, "sealing the file");
	return 0;
}

static int try_rung(const struct backing_want *want, hp_rung rung, struct backing *backing, uint64_t *committed,
                    struct hp_report *report, struct hp_report_rung *entry)
{
	uint64_t page = rung_page_size(rung), size = round_up(want->size, page);
	uint64_t capacity = round_up(want->capacity > want->size ? want->capacity : want->size, page);
	*backing = (struct backing){.fd = -1, .rung = rung, .page_size = page, .capacity = capacity};
	*committed = size;
	entry->tried = 1;

	int error = make_file(want, backing, entry);
	if (error) goto out;
	error = backing_map(backing, want->hint, PROT_READ | PROT_WRITE);
	if (error) {
		failed(entry, error, "mapping the file");
		if (error == -ENOMEM) put_cure(entry->cure, "ulimit -v unlimited");
		goto out;
	}
	if (want->prefault == HP_PREFAULT_BACKGROUND) {
		uint64_t first = page > 2 * MIB ? page : 2 * MIB;
		if (*committed > first) *committed = first;
	}
	struct range_order order = {
		.numa = want->numa,
		.threads = want->threads,
		.progress = want->progress,
		.progress_arg = want->progress_arg,
		.lazy = want->prefault == HP_PREFAULT_LAZY,
	};
	error = range_commit(backing, 0, *committed, &order, report, entry);
out:
	if (error) {
		backing_unmap(backing);
		if (backing->fd >= 0) os_close(backing->fd);
		*backing = (struct backing){.fd = -1};
		*committed = 0;
	}
	return error;
}

/* Why a rung is not tried, or NULL. */
static const char *skipped(const struct backing_want *want, hp_rung rung)
{
	if (want->prefault == HP_PREFAULT_LAZY && rung != HP_RUNG_4K)
		return "memory that is populated lazily is on 4 KiB pages only";
	if (want->choice == HP_CHOICE_ANY || want->rung == HP_RUNG_BEST)
		return rung == HP_RUNG_1G && want->size < GIB ? "the size asked for is below 1 GiB" : NULL;
	if (want->choice == HP_CHOICE_REQUIRE && rung != want->rung) return "other pages are required";
	return rung < want->rung ? "smaller pages are preferred" : NULL;
}

static bool makes_sense(const struct backing_want *want)
{
	const uint64_t most = UINT64_C(1) << 56;
	if (!want->size || want->size > most || want->capacity > most) return false;
	if ((unsigned)want->choice > HP_CHOICE_REQUIRE || (unsigned)want->rung > HP_RUNG_4K ||
	    (unsigned)want->prefault > HP_PREFAULT_LAZY || (unsigned)want->numa.policy > HP_NUMA_INTERLEAVE)
		return false;
	if (want->choice == HP_CHOICE_REQUIRE && want->rung == HP_RUNG_BEST) return false;
	/* Touching huge pages that are not there is SIGBUS. */
	return want->prefault != HP_PREFAULT_LAZY || want->choice == HP_CHOICE_ANY || want->rung == HP_RUNG_BEST ||
	       want->rung == HP_RUNG_4K;
}

void ladder_begin(const struct backing_want *want, struct backing *backing, uint64_t *committed,
                  struct hp_report *report)
{
	memset(report, 0, sizeof *report);
	*backing = (struct backing){.fd = -1};
	*committed = 0;
	report->bytes_asked = want->size;
	report->rung_asked = want->choice == HP_CHOICE_ANY ? HP_RUNG_BEST : want->rung;
	report->choice = want->choice;
	report->numa = want->numa;
}

int ladder_climb(const struct backing_want *want, struct backing *backing, uint64_t *committed,
                 struct hp_report *report, ladder_skipped *why, ladder_try *try)
{
	int error = -EINVAL;
	for (hp_rung rung = HP_RUNG_1G; rung <= HP_RUNG_4K; rung++) {
		struct hp_report_rung *entry = &report->rung[report->rungs++];
		*entry = (struct hp_report_rung){.rung = rung, .page_size = rung_page_size(rung)};
		const char *why_not = why(want, rung);
		if (why_not) {
			put_cause(entry->cause, "%s", why_not);
			continue;
		}
		error = try(want, rung, backing, committed, report, entry);
		if (!error) {
			report->rung_got = rung;
			report->page_size = backing->page_size;
			report->bytes_got = *committed;
			return 0;
		}
		if (error == -ECANCELED) break;
	}
	return error;
}

int backing_create(const struct backing_want *want, struct backing *backing, uint64_t *committed,
                   struct hp_report *report)
{
	ladder_begin(want, backing, committed, report);
	return makes_sense(want) ? ladder_climb(want, backing, committed, report, skipped, try_rung) : -EINVAL;
}
