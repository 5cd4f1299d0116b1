/* The backing: what was asked is what was got, or an error that says why and nothing left behind. Would catch a silent
 * fallback to smaller pages, pages that stay after a failure, SIGBUS where huge pages are short, and a system call whose
 * failure was not thought of: every one of them is made to fail in turn.
 *
 * No test needs huge pages; those that want them ask for a few, give them back, and otherwise say why they skip. */
#include "hp_test.h"

#include <backing/internal.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <os/host.h>
#include <os/os.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct hp_report report;
static char text[8192];

/* What a leak would show in. */

static int open_files(void)
{
	int count = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	while (readdir(dir)) count++;
	closedir(dir);
	return count;
}

static int mappings(bool all)
{
	int count = 0;
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");
	assert_non_null(maps);
	while (fgets(line, sizeof line, maps)) count += all || strstr(line, "memfd:backing_test") != NULL;
	fclose(maps);
	return count;
}

static uint64_t taken(const struct backing *backing)
{
	struct stat st;
	assert_int_equal(os_fstat(backing->fd, &st), 0);
	return st.st_blocks * UINT64_C(512);
}

/* Given back after each test, so that those for machines without huge pages see what they are for. */
#define NEED_HUGE_PAGES(pages) \
	do { \
		if (!hp_test_has_huge(HP_HUGE_2M, pages)) hp_test_skip_one("%d huge pages of 2 MiB are not to be had", pages); \
	} while (0)

static int huge_teardown(void **state)
{
	(void)state;
	os_hook = NULL;
	hp_huge_give_back();
	return 0;
}

/* Shorthands. */

static struct backing_want wanting(uint64_t size, hp_rung_choice choice, hp_rung rung)
{
	return (struct backing_want){.name = "backing_test", .size = size, .choice = choice, .rung = rung, .threads = 1};
}

static void close_backing(struct backing *backing)
{
	backing_unmap(backing);
	assert_int_equal(os_close(backing->fd), 0);
}

static const struct hp_report_rung *entry_of(hp_rung rung)
{
	for (unsigned i = 0; i < report.rungs; i++)
		if (report.rung[i].rung == rung) return &report.rung[i];
	fail_msg("no entry for %s", hp_rung_name(rung));
	return NULL;
}

static bool has_thp(void)
{
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(2 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_THP);
	if (backing_create(&want, &backing, &committed, &report)) return false;
	close_backing(&backing);
	return true;
}

/* Answers for one kind of call. */

static enum os_call answered_call;
static int64_t answer;
static _Atomic int answers_left;

static bool answer_one_kind(enum os_call call, int64_t *result)
{
	if (call != answered_call || atomic_fetch_sub(&answers_left, 1) <= 0) return false;
	*result = answer;
	return true;
}

static void answer_calls(enum os_call call, int64_t result, int times)
{
	answered_call = call;
	answer = result;
	atomic_store(&answers_left, times);
	os_hook = answer_one_kind;
}

/* What is got. */

static void small_pages_are_what_was_asked(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct stat st;
	struct backing_want want = wanting(5 * MIB + 1, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	want.capacity = 64 * MIB;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_int_equal(committed, 5 * MIB + 4 * KIB);
	assert_int_equal(backing.page_size, 4 * KIB);
	assert_int_equal(backing.capacity, 64 * MIB);
	assert_int_equal((uintptr_t)backing.base % (2 * MIB), 0);
	assert_int_equal(taken(&backing), committed);
	assert_int_equal(os_fstat(backing.fd, &st), 0);
	assert_int_equal(st.st_size, 64 * MIB);
	assert_int_equal(st.st_mode & 0777, 0600);
	int seals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
	assert_int_equal(os_seals(backing.fd) & seals, seals);
	assert_int_equal(report.rung_got, HP_RUNG_4K);
	assert_int_equal(report.rung_asked, HP_RUNG_4K);
	assert_int_equal(report.bytes_got, committed);
	assert_int_equal(report.rungs, 4);
	assert_int_equal(report.rung[0].tried, 0);
	assert_true(report.rung[0].cause[0]);
	assert_int_equal(entry_of(HP_RUNG_4K)->tried, 1);
	assert_int_equal(entry_of(HP_RUNG_4K)->error, 0);
	assert_int_equal(report.threads, 1);
	assert_true(report.prefault_ns > 0);
	uint64_t pages = 0;
	for (unsigned i = 0; i < report.nodes; i++) pages += report.node[i].pages;
	assert_true(!report.nodes || pages == committed / (4 * KIB));
	memset(backing.base, 1, committed);
	close_backing(&backing);
}

static void huge_pages_are_what_was_asked(void **state)
{
	(void)state;
	NEED_HUGE_PAGES(8);
	struct backing backing;
	uint64_t committed, pages = 0;
	struct backing_want want = wanting(15 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_2M);
	want.capacity = UINT64_C(1) << 40; /* costs nothing */
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_int_equal(committed, 16 * MIB);
	assert_int_equal(os_block_size(backing.fd), 2 * MIB);
	assert_int_equal(taken(&backing), 16 * MIB);
	assert_int_equal(report.page_size, 2 * MIB);
	assert_int_equal(report.lock_error, 0);
	for (unsigned i = 0; i < report.nodes; i++) pages += report.node[i].pages;
	assert_true(!report.nodes || pages == 8);
	memset(backing.base, 1, committed);
	close_backing(&backing);
}

static void transparent_huge_pages_are_huge(void **state)
{
	(void)state;
	if (!has_thp()) {
		hp_report_text(&report, text, sizeof text);
		print_message("skipped: no transparent huge pages here\n%s", text);
		assert_true(entry_of(HP_RUNG_THP)->cause[0]);
		skip();
	}
	struct backing backing, view;
	uint64_t committed, huge;
	struct backing_want want = wanting(40 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_THP);
	want.capacity = 64 * MIB;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_int_equal(thp_huge_bytes(&backing, 0, committed, &huge), 0);
	assert_int_equal(huge, committed);
	/* Growth beside it is judged by itself. */
	assert_int_equal(backing_commit(&backing, 48 * MIB, 64 * MIB, NULL, 2, NULL, NULL, &report), 0);
	assert_int_equal(thp_huge_bytes(&backing, 48 * MIB, 64 * MIB, &huge), 0);
	assert_int_equal(huge, 16 * MIB);
	/* And small pages are seen. */
	assert_int_equal(os_punch(backing.fd, 2 * MIB, 4 * KIB), 0);
	assert_int_equal(thp_huge_bytes(&backing, 0, committed, &huge), 0);
	assert_true(huge < committed);
	view = backing;
	assert_int_equal(backing_map(&view, NULL, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(backing_populate_tables(&view, 0, committed), 0);
	backing_unmap(&view);
	close_backing(&backing);
}

static void lazy_memory_is_not_there_yet(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(8 * MIB, HP_CHOICE_ANY, HP_RUNG_BEST);
	want.prefault = HP_PREFAULT_LAZY;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_int_equal(backing.rung, HP_RUNG_4K);
	assert_int_equal(committed, 8 * MIB);
	assert_int_equal(taken(&backing), 0);
	assert_true(report.lock_error < 0);
	assert_true(entry_of(HP_RUNG_2M)->cause[0]);
	backing.base[5 * MIB] = 1;
	assert_int_equal(taken(&backing), 4 * KIB);
	close_backing(&backing);
	/* On huge pages it would be SIGBUS. */
	want.choice = HP_CHOICE_REQUIRE;
	want.rung = HP_RUNG_2M;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), -EINVAL);
	want.choice = HP_CHOICE_PREFER;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), -EINVAL);
}

static void background_begins_with_2_mib(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(8 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	want.prefault = HP_PREFAULT_BACKGROUND;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_int_equal(committed, 2 * MIB);
	assert_int_equal(taken(&backing), 2 * MIB);
	assert_int_equal(backing_commit(&backing, 2 * MIB, 8 * MIB, NULL, 0, NULL, NULL, NULL), 0);
	assert_int_equal(taken(&backing), 8 * MIB);
	close_backing(&backing);
	want.size = 12 * KIB;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_int_equal(committed, 12 * KIB);
	close_backing(&backing);
}

static void nonsense_is_refused(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct backing_want good = wanting(MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K), want;
#define REFUSED(change) \
	do { \
		want = good; \
		change; \
		assert_int_equal(backing_create(&want, &backing, &committed, &report), -EINVAL); \
		assert_int_equal(backing.fd, -1); \
		assert_int_equal(committed, 0); \
	} while (0)
	REFUSED(want.size = 0);
	REFUSED(want.size = UINT64_MAX);
	REFUSED(want.capacity = UINT64_MAX - 5);
	REFUSED(want.choice = 7);
	REFUSED(want.rung = 9);
	REFUSED(want.rung = HP_RUNG_BEST);
	REFUSED(want.prefault = 9);
	REFUSED(want.numa.policy = 9);
	assert_int_equal(backing_create(&good, &backing, &committed, &report), 0);
	assert_int_equal(backing_commit(&backing, 0, 100, NULL, 0, NULL, NULL, &report), -EINVAL);
	assert_int_equal(backing_commit(&backing, 0, 2 * MIB, NULL, 0, NULL, NULL, &report), -EINVAL);
	assert_int_equal(backing_commit(&backing, 4096, 4096, NULL, 0, NULL, NULL, &report), -EINVAL);
	assert_int_equal(backing_punch(&backing, 1, 4096), -EINVAL);
	assert_int_equal(backing_populate_tables(&backing, 8192, 4096), -EINVAL);
	close_backing(&backing);
}

static void the_hint_is_tried(void **state)
{
	(void)state;
	struct backing backing, other;
	uint64_t committed;
	void *place = (void *)(UINT64_C(0x2f) << 40);
	struct backing_want want = wanting(4 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	want.hint = place;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
#if !HP_TEST_SANITIZER
	assert_ptr_equal(backing.base, place);
#endif
	other = backing;
	strcpy(backing.base, "shared");
	assert_int_equal(backing_map(&other, backing.base, PROT_READ | PROT_WRITE), 0); /* taken: elsewhere */
	assert_ptr_not_equal(other.base, backing.base);
	assert_int_equal((uintptr_t)other.base % (2 * MIB), 0);
	assert_string_equal(other.base, "shared");
	assert_int_equal(backing_populate_tables(&other, 0, 4 * MIB), 0);
	backing_unmap(&other);
	backing_unmap(&other);
	close_backing(&backing);
}

static void punch_and_commit_again(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	int nodes[8];
	struct backing_want want = wanting(8 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	memset(backing.base, 7, 8 * MIB);
	assert_int_equal(backing_punch(&backing, 2 * MIB, 4 * MIB), 0);
	assert_int_equal(taken(&backing), 6 * MIB);
	if (backing_where(&backing, 0, 8 * MIB, MIB, nodes, 8) == 0) {
		assert_true(nodes[0] >= 0 && nodes[4] >= 0);
		assert_int_equal(nodes[2], -1);
		assert_int_equal(nodes[3], -1);
	}
	assert_int_equal(backing_where(&backing, 0, 8 * MIB, MIB, nodes, 7), -EINVAL);
	assert_int_equal(backing_commit(&backing, 2 * MIB, 4 * MIB, NULL, 1, NULL, NULL, &report), 0);
	assert_int_equal(report.bytes_got, 2 * MIB);
	assert_int_equal(taken(&backing), 8 * MIB);
	assert_int_equal(backing.base[2 * MIB], 0);
	assert_int_equal(backing.base[2 * MIB - 1], 7);
	assert_int_equal(backing.base[4 * MIB], 7);
	backing_zero(backing.base + 4 * MIB + 1, MIB);
	assert_int_equal(backing.base[4 * MIB], 7);
	assert_int_equal(backing.base[4 * MIB + 1], 0);
	assert_int_equal(backing.base[5 * MIB], 0);
	assert_int_equal(backing.base[5 * MIB + 1], 7);
	close_backing(&backing);
}

/* Failing down the ladder. */

static void the_ladder_ends_at_4_kib(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	/* No huge pages, and no file for the rung of transparent ones. */
	answer_calls(OS_MEMFD_CREATE, -ENODEV, 2);
	struct backing_want want = wanting(4 * MIB, HP_CHOICE_ANY, HP_RUNG_BEST);
	int error = backing_create(&want, &backing, &committed, &report);
	os_hook = NULL;
	assert_int_equal(error, 0);
	assert_int_equal(backing.rung, HP_RUNG_4K);
	assert_int_equal(report.rungs, 4);
	assert_int_equal(entry_of(HP_RUNG_1G)->tried, 0);
	assert_non_null(strstr(entry_of(HP_RUNG_1G)->cause, "1 GiB"));
	assert_int_equal(entry_of(HP_RUNG_2M)->tried, 1);
	assert_int_equal(entry_of(HP_RUNG_2M)->error, -ENODEV);
	assert_non_null(strstr(entry_of(HP_RUNG_2M)->cause, "no huge pages of 2 MiB"));
	assert_int_equal(entry_of(HP_RUNG_THP)->error, -ENODEV);
	assert_int_equal(entry_of(HP_RUNG_4K)->error, 0);
	close_backing(&backing);
}

static bool no_advice(enum os_call call, int64_t *result)
{
	*result = -EINVAL;
	return call == OS_ADVISE;
}

static void transparent_pages_that_stay_small_do_not_count(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(4 * MIB, HP_CHOICE_PREFER, HP_RUNG_THP);
	answer_calls(OS_PREAD, 0, 1000); /* smaps says nothing of huge pages */
	int error = backing_create(&want, &backing, &committed, &report);
	os_hook = NULL;
	assert_int_equal(error, 0);
	assert_int_equal(backing.rung, HP_RUNG_4K);
	assert_true(entry_of(HP_RUNG_THP)->error < 0);
	assert_true(entry_of(HP_RUNG_THP)->cause[0]);
	assert_int_equal(entry_of(HP_RUNG_2M)->tried, 0);
	close_backing(&backing);
	want.choice = HP_CHOICE_REQUIRE;
	os_hook = no_advice;
	error = backing_create(&want, &backing, &committed, &report);
	os_hook = NULL;
	assert_int_equal(error, -ENOMEM);
	assert_int_equal(report.rung_got, HP_RUNG_BEST);
}

static bool blind(enum os_call call, int64_t *result)
{
	*result = -EACCES;
	return call == OS_READ_FILE;
}

static bool blind_on_an_old_kernel(enum os_call call, int64_t *result)
{
	*result = call == OS_READ_FILE ? -EACCES : -EINVAL;
	return call == OS_READ_FILE || call == OS_ADVISE;
}

static void shortage_is_an_error_with_a_cure(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	if (os_memfd_create("backing_test", 21, &backing.fd) < 0) {
		hp_test_skip_one("this kernel has no huge pages of 2 MiB");
	}
	os_close(backing.fd);
	int files = open_files(), maps = mappings(false);
	uint64_t too_much = UINT64_C(1) << 40;
	struct backing_want want = wanting(too_much, HP_CHOICE_REQUIRE, HP_RUNG_2M);
	assert_int_equal(backing_create(&want, &backing, &committed, &report), -ENOMEM);
	const struct hp_report_rung *entry = entry_of(HP_RUNG_2M);
	assert_int_equal(entry->error, -ENOMEM);
	assert_non_null(strstr(entry->cause, "524288"));
	assert_non_null(strstr(entry->cure, "echo "));
	assert_non_null(strstr(entry->cure, "nr_hugepages"));
	assert_int_equal(report.bytes_got, 0);
	assert_true(hp_report_text(&report, text, sizeof text) > 0);
	assert_non_null(strstr(text, entry->cause));
	assert_non_null(strstr(text, entry->cure));

	/* The same when the numbers cannot be read beforehand and only the kernel's answer tells. */
	struct host_pages pages;
	uint64_t half_memory = host_memory_available() / 2;
	assert_int_equal(host_pages(2 * MIB, &pages), 0);
	if (pages.free * 2 * MIB < half_memory && !pages.overcommit) {
		want.size = (pages.free + 4096) * 2 * MIB;
		want.threads = 2;
		bool (*hooks[])(enum os_call, int64_t *) = {blind, blind_on_an_old_kernel};
		for (unsigned i = 0; i < 2; i++) {
			os_hook = hooks[i];
			int error = backing_create(&want, &backing, &committed, &report);
			os_hook = NULL;
			assert_int_equal(error, -ENOMEM);
			assert_true(entry_of(HP_RUNG_2M)->cause[0]);
		}
	}
	assert_int_equal(open_files(), files);
	assert_int_equal(mappings(false), maps);
}

static void commit_that_is_short_keeps_nothing(void **state)
{
	(void)state;
	NEED_HUGE_PAGES(4);
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(2 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_2M);
	want.capacity = UINT64_C(1) << 40;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	struct host_pages pages;
	assert_int_equal(host_pages(2 * MIB, &pages), 0);
	uint64_t to = (pages.free + 1024) * 2 * MIB;
	os_hook = blind;
	int error = backing_commit(&backing, 2 * MIB, to, NULL, 1, NULL, NULL, &report);
	os_hook = NULL;
	assert_int_equal(error, -ENOMEM);
	assert_true(report.rung[0].cause[0]);
	assert_int_equal(taken(&backing), 2 * MIB); /* what it had before stays, and nothing else */
	memset(backing.base, 1, 2 * MIB);
	assert_int_equal(backing_commit(&backing, 2 * MIB, 4 * MIB, NULL, 1, NULL, NULL, &report), 0);
	assert_int_equal(taken(&backing), 4 * MIB);
	close_backing(&backing);
}

static void small_pages_beyond_memory_are_refused(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(UINT64_C(1) << 46, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	assert_int_equal(backing_create(&want, &backing, &committed, &report), -ENOMEM);
	assert_true(entry_of(HP_RUNG_4K)->cause[0]);
}

static void an_old_kernel_is_touched(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(4 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	os_hook = no_advice;
	int error = backing_create(&want, &backing, &committed, &report);
	os_hook = NULL;
	assert_int_equal(error, 0);
	assert_int_equal(taken(&backing), 4 * MIB);
	memset(backing.base, 9, 4 * MIB);
	os_hook = no_advice;
	error = backing_populate_tables(&backing, 0, 4 * MIB);
	os_hook = NULL;
	assert_int_equal(error, 0);
	for (uint64_t at = 0; at < 4 * MIB; at += KIB) assert_int_equal(backing.base[at], 9); /* touching changes nothing */
	close_backing(&backing);
}

static void an_old_kernel_allocates_huge_pages(void **state)
{
	(void)state;
	NEED_HUGE_PAGES(4);
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(8 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_2M);
	os_hook = no_advice;
	int error = backing_create(&want, &backing, &committed, &report);
	os_hook = NULL;
	assert_int_equal(error, 0);
	assert_int_equal(taken(&backing), 8 * MIB);
	close_backing(&backing);
}

/* Progress. */

struct progress {
	int calls, cancel_at, tid;
	uint64_t last;
	bool wrong;
};

static int count_progress(void *arg, uint64_t done, uint64_t todo, int node)
{
	struct progress *progress = arg;
	progress->wrong |= os_tid() != progress->tid || done < progress->last || done > todo || node < -1 || node > 63;
	progress->last = done;
	return ++progress->calls == progress->cancel_at;
}

static void progress_is_told_and_can_cancel(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	cpu_set_t before, after;
	struct backing_want want = wanting(96 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	struct progress progress = {.tid = os_tid()};
	want.progress = count_progress;
	want.progress_arg = &progress;
	want.threads = 2;
	assert_int_equal(os_affinity(&before), 0);
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_int_equal(os_affinity(&after), 0);
	assert_true(CPU_EQUAL(&before, &after));
	assert_false(progress.wrong);
	assert_int_equal(progress.last, 96 * MIB);
	assert_true(progress.calls >= 2);
	assert_int_equal(report.threads, 2);
	close_backing(&backing);

	want.threads = 1;
	want.choice = HP_CHOICE_PREFER; /* cancelling ends the ladder too */
	for (int at = 1;; at++) {
		int files = open_files(), maps = mappings(false);
		progress = (struct progress){.tid = os_tid(), .cancel_at = at};
		int error = backing_create(&want, &backing, &committed, &report);
		assert_false(progress.wrong);
		if (!error) {
			assert_true(at > 3); /* at the beginning, after a slice, at the end */
			close_backing(&backing);
			break;
		}
		assert_int_equal(error, -ECANCELED);
		assert_int_equal(progress.calls, at);
		assert_int_equal(open_files(), files);
		assert_int_equal(mappings(false), maps);
	}

	want = wanting(4 * KIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	want.capacity = 64 * MIB;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	progress = (struct progress){.tid = os_tid(), .cancel_at = 2};
	assert_int_equal(backing_commit(&backing, 4 * KIB, 64 * MIB, NULL, 2, count_progress, &progress, &report),
	                 -ECANCELED);
	assert_int_equal(taken(&backing), 4 * KIB);
	close_backing(&backing);
}

/* Nodes. */

static void no_numa_is_said_not_hidden(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	want.numa = (struct hp_numa){.policy = HP_NUMA_BIND, .nodes = 1};
	answer_calls(OS_MBIND, -EPERM, 1000);
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_int_equal(report.numa_error, -EPERM);
	assert_non_null(strstr(report.numa_cure, "--cap-add SYS_NICE"));
	hp_report_text(&report, text, sizeof text);
	assert_non_null(strstr(text, report.numa_cause));
	assert_non_null(strstr(text, report.numa_cure));
	close_backing(&backing);
	answer_calls(OS_MBIND, -ENOSYS, 1000);
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_int_equal(report.numa_error, -ENOSYS);
	close_backing(&backing);
	want.numa.strict = 1;
	answer_calls(OS_MBIND, -EPERM, 1000);
	int error = backing_create(&want, &backing, &committed, &report);
	os_hook = NULL;
	assert_int_equal(error, -EPERM);
	assert_non_null(strstr(entry_of(HP_RUNG_4K)->cure, "--cap-add SYS_NICE"));
}

static void misplaced_pages_are_counted(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	if (os_nodes_with_memory() >> 63) {
		hp_test_skip_one("this machine has a node 63");
	}
	want.numa = (struct hp_numa){.policy = HP_NUMA_PREFERRED, .nodes = UINT64_C(1) << 63};
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	assert_true(report.numa_error < 0); /* there is no such node */
	uint64_t misplaced = 0;
	bool known = report.nodes;
	for (unsigned i = 0; i < report.nodes; i++) misplaced += report.node[i].misplaced;
	assert_true(!known || misplaced == 256);
	close_backing(&backing);

	want.numa.strict = 1;
	assert_true(backing_create(&want, &backing, &committed, &report) < 0);
	answer_calls(OS_MBIND, 0, 1000); /* a kernel that accepts the policy and does not follow it */
	int error = backing_create(&want, &backing, &committed, &report);
	os_hook = NULL;
	if (known) {
		assert_int_equal(error, -ENOMEM);
		assert_non_null(strstr(entry_of(HP_RUNG_4K)->cause, "node"));
	}
	answer_calls(OS_MOVE_PAGES, -EPERM, 1000);
	want.numa = (struct hp_numa){.policy = HP_NUMA_LOCAL};
	error = backing_create(&want, &backing, &committed, &report);
	os_hook = NULL;
	assert_int_equal(error, 0);
	assert_int_equal(report.nodes, 0); /* the kernel did not say */
	close_backing(&backing);
}

static void policies_name_their_nodes(void **state)
{
	(void)state;
	uint64_t here = UINT64_C(1) << os_node();
	struct hp_numa numa = {.policy = HP_NUMA_BIND, .nodes = 0xc};
	assert_int_equal(backing_nodes(&numa), 0xc);
	numa.policy = HP_NUMA_PREFERRED;
	assert_int_equal(backing_nodes(&numa), 4);
	numa.policy = HP_NUMA_INTERLEAVE;
	assert_int_equal(backing_nodes(&numa), 0xc);
	numa.nodes = 0;
	assert_int_equal(backing_nodes(&numa), os_nodes_with_memory());
	numa.policy = HP_NUMA_DEFAULT;
	assert_int_equal(backing_nodes(&numa), os_nodes_with_memory());
	if (__builtin_popcountll(os_nodes_with_memory()) == 1) {
		numa.policy = HP_NUMA_BIND;
		assert_int_equal(backing_nodes(&numa), here);
		numa.policy = HP_NUMA_PREFERRED;
		assert_int_equal(backing_nodes(&numa), here);
		numa.policy = HP_NUMA_LOCAL;
		assert_int_equal(backing_nodes(&numa), here);
	}
}

static void place_pages(hp_rung rung)
{
	struct backing backing;
	uint64_t committed;
	for (int policy = HP_NUMA_LOCAL; policy <= HP_NUMA_INTERLEAVE; policy++) {
		struct backing_want want = wanting(20 * MIB, HP_CHOICE_REQUIRE, rung);
		want.numa = (struct hp_numa){.policy = policy, .strict = 1};
		want.threads = 2;
		int error = backing_create(&want, &backing, &committed, &report);
		if (error == -EPERM || error == -ENOSYS) hp_test_skip_one("%s", report.numa_cause);
		assert_int_equal(error, 0);
		uint64_t pages = 0;
		for (unsigned i = 0; i < report.nodes; i++) {
			assert_int_equal(report.node[i].misplaced, 0);
			pages += report.node[i].pages;
		}
		assert_int_equal(pages, committed / backing.page_size);
		if (policy == HP_NUMA_INTERLEAVE) assert_int_equal(report.nodes, __builtin_popcountll(os_nodes_with_memory()));
		close_backing(&backing);
	}
}

static void every_policy_places_pages(void **state)
{
	(void)state;
	place_pages(HP_RUNG_4K);
	if (has_thp()) place_pages(HP_RUNG_THP);
}

static void every_policy_places_huge_pages(void **state)
{
	(void)state;
	NEED_HUGE_PAGES(10);
	place_pages(HP_RUNG_2M);
}

/* Every failure at every call. */

static _Atomic long calls;
static long failing_call;
static bool and_all_after;
static int failure;
static _Atomic int failed_call; /* which kind it was, or -1 */

static bool fail_nth(enum os_call call, int64_t *result)
{
	/* A mapping that cannot be removed stays, whatever the caller does. A close that fails closes all the same. */
	if (call == OS_UNMAP) return false;
	long n = atomic_fetch_add(&calls, 1);
	if (and_all_after ? n < failing_call : n != failing_call) return false;
	atomic_store(&failed_call, call);
	*result = failure;
	return true;
}

static void start_failing(long n, int error, bool all_after)
{
	atomic_store(&calls, 0);
	atomic_store(&failed_call, -1);
	failing_call = n;
	failure = error;
	and_all_after = all_after;
	os_hook = fail_nth;
}

static const int failures[] = {-ENOMEM, -EPERM, -EINVAL, -EFAULT, -EAGAIN};

static void fail_creation(struct backing_want want)
{
	/* The first time may leave caches of the C library behind: thread stacks, directories. */
	struct backing backing;
	uint64_t committed;
	int files = 0, maps = 0;
	for (unsigned kind = 0; kind < 2 * sizeof failures / sizeof *failures; kind++) {
		for (long n = 0;; n++) {
			bool all_after = kind & 1;
			if (n < 2) {
				files = open_files();
				maps = mappings(want.threads == 1 && !HP_TEST_SANITIZER);
			}
			start_failing(n, failures[kind / 2], all_after);
			int error = backing_create(&want, &backing, &committed, &report);
			os_hook = NULL;
			int failed = atomic_load(&failed_call);
			if (!error) {
				assert_true(backing.fd >= 0);
				assert_int_equal(report.rung_got, backing.rung);
				assert_int_equal(taken(&backing), committed);
				memset(backing.base, 1, committed);
				close_backing(&backing);
			} else {
				assert_int_not_equal(failed, -1);
				assert_int_equal(backing.fd, -1);
				assert_null(backing.base);
				assert_int_equal(committed, 0);
				assert_int_equal(report.rung_got, HP_RUNG_BEST);
				for (unsigned i = 0; i < report.rungs; i++) {
					assert_true(report.rung[i].cause[0]);
					assert_true(!report.rung[i].tried || report.rung[i].error < 0);
				}
			}
			if (open_files() != files || mappings(want.threads == 1 && !HP_TEST_SANITIZER) != maps)
				fail_msg("call %ld (%s) failed with %d: %d files instead of %d, %d mappings instead of %d", n,
				         os_call_name(failed), failures[kind / 2], open_files(), files,
				         mappings(want.threads == 1 && !HP_TEST_SANITIZER), maps);
			if (failed == -1) {
				assert_int_equal(error, 0);
				break;
			}
		}
	}
}

static void every_failure_of_creation(void **state)
{
	(void)state;
	struct backing_want want = wanting(3 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	fail_creation(want);
	want.numa = (struct hp_numa){.policy = HP_NUMA_BIND, .strict = 1};
	fail_creation(want);
	want.numa = (struct hp_numa){.policy = HP_NUMA_INTERLEAVE};
	want.hint = (void *)(UINT64_C(0x2e) << 40);
	fail_creation(want);
	want.choice = HP_CHOICE_ANY;
	fail_creation(want);
	want.choice = HP_CHOICE_REQUIRE;
	want.size = 18 * MIB; /* more than a slice */
	want.threads = 2;
	fail_creation(want);
}

static void every_failure_of_creation_on_huge_pages(void **state)
{
	(void)state;
	NEED_HUGE_PAGES(4);
	struct backing_want want = wanting(4 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_2M);
	fail_creation(want);
	want.numa = (struct hp_numa){.policy = HP_NUMA_LOCAL, .strict = 1};
	fail_creation(want);
}

static void every_failure_of_creation_on_transparent_huge_pages(void **state)
{
	(void)state;
	if (!has_thp()) {
		hp_test_skip_one("no transparent huge pages here");
	}
	fail_creation(wanting(4 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_THP));
}

static void fail_commit(hp_rung rung, struct hp_numa numa, unsigned threads)
{
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(2 * MIB, HP_CHOICE_REQUIRE, rung);
	want.capacity = 8 * MIB;
	assert_int_equal(backing_create(&want, &backing, &committed, &report), 0);
	memset(backing.base, 3, committed);
	int files = open_files();
	for (unsigned kind = 0; kind < sizeof failures / sizeof *failures; kind++) {
		for (long n = 0;; n++) {
			start_failing(n, failures[kind], false);
			int error = backing_commit(&backing, 4 * MIB, 8 * MIB, &numa, threads, NULL, NULL, &report);
			os_hook = NULL;
			int failed = atomic_load(&failed_call);
			uint64_t expected = error ? committed : committed + 4 * MIB;
			if (taken(&backing) != expected)
				fail_msg("call %ld (%s) failed with %d, the commit returned %d: %llu bytes instead of %llu", n,
				         os_call_name(failed), failures[kind], error, (unsigned long long)taken(&backing),
				         (unsigned long long)expected);
			assert_int_equal(open_files(), files);
			if (error)
				assert_true(report.rung[0].error < 0 && report.rung[0].cause[0]);
			else
				assert_int_equal(backing_punch(&backing, 4 * MIB, 8 * MIB), 0);
			if (failed == -1) {
				assert_int_equal(error, 0);
				break;
			}
		}
	}
	for (uint64_t at = 0; at < committed; at++) assert_true(backing.base[at] == 3);
	close_backing(&backing);
}

static void every_failure_of_commit(void **state)
{
	(void)state;
	fail_commit(HP_RUNG_4K, (struct hp_numa){0}, 1);
	fail_commit(HP_RUNG_4K, (struct hp_numa){.policy = HP_NUMA_PREFERRED, .strict = 1}, 2);
	if (has_thp()) fail_commit(HP_RUNG_THP, (struct hp_numa){0}, 1);
}

static void every_failure_of_commit_on_huge_pages(void **state)
{
	(void)state;
	NEED_HUGE_PAGES(6);
	fail_commit(HP_RUNG_2M, (struct hp_numa){0}, 1);
	fail_commit(HP_RUNG_2M, (struct hp_numa){.policy = HP_NUMA_BIND, .strict = 1}, 2);
}

/* Cgroups: a child in a group of its own, which is removed afterwards. */

static bool write_file(const char *group, const char *file, const char *what)
{
	char path[1024];
	snprintf(path, sizeof path, "%s/%s", group, file);
	int fd = os_open(path, O_WRONLY);
	if (fd < 0) return false;
	bool written = write(fd, what, strlen(what)) == (ssize_t)strlen(what);
	os_close(fd);
	return written;
}

struct place {
	const char *parent, *file;
	const char *controller; /* of the second hierarchy: to be enabled for children; NULL: first hierarchy */
};

/* Makes a group there with a limit, and runs the function in it; its exit status, or -1: no such group can be made. */
static int run_in_group(const struct place *place, const char *limit, int (*run)(const char *group))
{
	char path[600], group[512], controllers[256];
	bool enabled = false;
	if (place->controller) {
		snprintf(path, sizeof path, "%s/cgroup.subtree_control", place->parent);
		if (os_read_file(path, controllers, sizeof controllers) < 0) return -1;
		snprintf(path, sizeof path, "+%s", place->controller);
		if (!strstr(controllers, place->controller))
			enabled = write_file(place->parent, "cgroup.subtree_control", path);
	}
	int status = -1;
	snprintf(group, sizeof group, "%.400s/hugepool-test-%d", place->parent, getpid());
	if (mkdir(group, 0755) == 0) {
		if (write_file(group, place->file, limit)) {
			pid_t child = fork();
			if (!child) _exit(write_file(group, "cgroup.procs", "0") ? run(group) : 99);
			waitpid(child, &status, 0);
			if (WIFEXITED(status) && WEXITSTATUS(status) == 99) status = -1;
		}
		while (rmdir(group) < 0 && errno == EBUSY) /* the child leaves the group a moment after its end */
			sched_yield();
	}
	if (enabled) {
		path[0] = '-';
		write_file(place->parent, "cgroup.subtree_control", path);
	}
	return status;
}

/* In the child, where nothing may be asserted: each return value is a reason. */
static int exceed_hugetlb_limit(const char *group)
{
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(8 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_2M);
	if (backing_create(&want, &backing, &committed, &report) != -ENOMEM) return 1;
	const struct hp_report_rung *entry = &report.rung[1];
	if (!strstr(entry->cause, "cgroup") || !strstr(entry->cause, group)) return 2;
	if (!strstr(entry->cure, "hugetlb.2MB") || !strstr(entry->cure, group)) return 3;
	/* The kernel's own answer, a SIGBUS for whoever just touches. */
	os_hook = blind;
	int error = backing_create(&want, &backing, &committed, &report);
	os_hook = NULL;
	if (error != -ENOMEM) return 4;
	want.size = 4 * MIB;
	want.capacity = 16 * MIB;
	if (backing_create(&want, &backing, &committed, &report) != 0)
		return 5; /* what had been taken was not given back */
	memset(backing.base, 1, committed);
	os_hook = blind;
	error = backing_commit(&backing, 4 * MIB, 8 * MIB, NULL, 1, NULL, NULL, &report);
	os_hook = NULL;
	return error == -ENOMEM ? 0 : 6;
}

static void a_hugetlb_cgroup_limit_is_no_sigbus(void **state)
{
	(void)state;
	static const struct place places[] = {{"/sys/fs/cgroup/unified", "hugetlb.2MB.max", "hugetlb"},
	                                      {"/sys/fs/cgroup", "hugetlb.2MB.max", "hugetlb"},
	                                      {"/sys/fs/cgroup/hugetlb", "hugetlb.2MB.limit_in_bytes", NULL}};
	NEED_HUGE_PAGES(8);
	for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
		int status = run_in_group(&places[i], "4194304", exceed_hugetlb_limit);
		if (status == -1) continue;
		assert_int_equal(status, 0);
		return;
	}
	hp_test_skip_one("no cgroup with a hugetlb limit can be made here");
}

static int exceed_memory_limit(const char *group)
{
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(256 * MIB, HP_CHOICE_REQUIRE, HP_RUNG_4K);
	if (backing_create(&want, &backing, &committed, &report) != -ENOMEM) return 1;
	const struct hp_report_rung *entry = &report.rung[3];
	if (!strstr(entry->cause, "cgroup")) return 2;
	if (!strstr(entry->cure, group) || !strstr(entry->cure, "memory.")) return 3;
	want.size = 16 * MIB;
	return backing_create(&want, &backing, &committed, &report) == 0 ? 0 : 4;
}

static void a_memory_cgroup_limit_is_no_oom_kill(void **state)
{
	(void)state;
	char cgroups[4096], parent[1024] = "/sys/fs/cgroup/memory";
	assert_true(os_read_file("/proc/self/cgroup", cgroups, sizeof cgroups) > 0);
	char *own = strstr(cgroups, ":memory:");
	if (own) snprintf(parent, sizeof parent, "/sys/fs/cgroup/memory%.400s", strtok(own + 8, "\n"));
	const struct place places[] = {{parent, "memory.limit_in_bytes", NULL}, {"/sys/fs/cgroup", "memory.max", "memory"}};
	for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
		int status = run_in_group(&places[i], "167772160", exceed_memory_limit);
		if (status == -1) continue;
		assert_int_equal(status, 0);
		return;
	}
	hp_test_skip_one("no cgroup with a memory limit can be made here");
}

/* Text. */

static void the_text_is_bounded(void **state)
{
	(void)state;
	struct backing backing;
	uint64_t committed;
	struct backing_want want = wanting(UINT64_C(1) << 40, HP_CHOICE_PREFER, HP_RUNG_1G);
	want.numa = (struct hp_numa){.policy = HP_NUMA_INTERLEAVE, .nodes = 0x1003, .strict = 1};
	assert_true(backing_create(&want, &backing, &committed, &report) < 0);
	char small[64];
	int length = hp_report_text(&report, text, sizeof text);
	assert_int_equal(length, strlen(text));
	assert_int_equal(text[length - 1], '\n');
	assert_non_null(strstr(text, "1 TiB"));
	assert_non_null(strstr(text, "0-1,12"));
	assert_non_null(strstr(text, "got: nothing"));
	for (size_t size = 1; size <= sizeof small; size++) {
		memset(small, '#', sizeof small);
		assert_int_equal(hp_report_text(&report, small, size), length);
		assert_int_equal(strlen(small), size - 1);
		assert_memory_equal(small, text, size - 1);
		assert_true(size == sizeof small || small[size] == '#');
	}
	assert_int_equal(hp_report_text(&report, NULL, 0), length);
	assert_string_equal(hp_rung_name(HP_RUNG_1G), "1 GiB");
	assert_string_equal(hp_rung_name(HP_RUNG_2M), "2 MiB");
	assert_string_equal(hp_rung_name(HP_RUNG_THP), "2 MiB (THP)");
	assert_string_equal(hp_rung_name(HP_RUNG_4K), "4 KiB");
	assert_non_null(hp_rung_name(99));
}

int main(void)
{
#define HUGE(test) cmocka_unit_test_teardown(test, huge_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_pages_are_what_was_asked),
		HUGE(huge_pages_are_what_was_asked),
		cmocka_unit_test(transparent_huge_pages_are_huge),
		cmocka_unit_test(lazy_memory_is_not_there_yet),
		cmocka_unit_test(background_begins_with_2_mib),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(the_hint_is_tried),
		cmocka_unit_test(punch_and_commit_again),
		cmocka_unit_test(the_ladder_ends_at_4_kib),
		cmocka_unit_test(transparent_pages_that_stay_small_do_not_count),
		cmocka_unit_test(shortage_is_an_error_with_a_cure),
		HUGE(commit_that_is_short_keeps_nothing),
		cmocka_unit_test(small_pages_beyond_memory_are_refused),
		cmocka_unit_test(an_old_kernel_is_touched),
		HUGE(an_old_kernel_allocates_huge_pages),
		cmocka_unit_test(progress_is_told_and_can_cancel),
		cmocka_unit_test(no_numa_is_said_not_hidden),
		cmocka_unit_test(misplaced_pages_are_counted),
		cmocka_unit_test(policies_name_their_nodes),
		cmocka_unit_test(every_policy_places_pages),
		HUGE(every_policy_places_huge_pages),
		cmocka_unit_test(every_failure_of_creation),
		HUGE(every_failure_of_creation_on_huge_pages),
		cmocka_unit_test(every_failure_of_creation_on_transparent_huge_pages),
		cmocka_unit_test(every_failure_of_commit),
		HUGE(every_failure_of_commit_on_huge_pages),
		HUGE(a_hugetlb_cgroup_limit_is_no_sigbus),
		cmocka_unit_test(a_memory_cgroup_limit_is_no_oom_kill),
		cmocka_unit_test(the_text_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
