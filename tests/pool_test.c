/* Making a pool: what the options mean, which are refused and with what words, the report, and that nothing is left
 * behind, whether creation fails or everybody is killed. Would catch an option that is ignored, a message that leaves the
 * reader guessing, a descriptor that a failure forgets, and a pool whose creator cannot use it. */
#include "hp_process.h"

#include <os/os.h>
#include <sys/resource.h>

static hp_pool *created(const struct hp_pool_options *options)
{
	hp_pool *pool = NULL;
	assert_int_equal(hp_pool_create(options, &pool), 0);
	assert_non_null(pool);
	return pool;
}

static void no_options_give_64_mib_on_the_best_pages(void **state)
{
	(void)state;
	struct hp_pool_options none = {0};
	const struct hp_pool_options *given[] = {NULL, &none};
	for (int i = 0; i < 2; i++) {
		hp_pool *pool = created(given[i]);
		struct hp_pool_stats stats = hp_stats(pool);
		assert_int_equal(hp_pool_capacity(pool), 64 * MIB);
		assert_int_equal(stats.capacity, 64 * MIB);
		assert_int_equal(stats.committed, 64 * MIB);
		assert_int_equal(stats.free, 64 * MIB);
		assert_int_equal(stats.largest, 64 * MIB);
		assert_int_equal(stats.processes, 1);
		assert_true(hp_pool_page_size(pool) == PAGE || hp_pool_page_size(pool) == 2 * MIB);
		assert_int_equal(stats.page_size, hp_pool_page_size(pool));
		assert_true(strlen(hp_pool_name(pool)) > 0);
		pool_must_work(pool, 2 * MIB);
		hp_must_be_empty(pool);
		assert_int_equal(hp_pool_detach(pool), 0);
	}
	assert_int_equal(hp_pool_detach(NULL), 0);
	assert_int_equal(hp_pool_create(NULL, NULL), -EINVAL);
}

static void wrong_options_are_refused_by_name(void **state)
{
	(void)state;
	char long_name[65];
	memset(long_name, 'n', 64);
	long_name[64] = 0;
	const struct {
		struct hp_pool_options options;
		const char *word;
	} wrong[] = {
		{{.name = ""}, "name"},
		{{.name = long_name}, "name"},
		{{.name = "a/b"}, "name"},
		{{.size = 2 * MIB, .capacity = MIB}, "capacity"},
		{{.size = UINT64_MAX}, "size"},
		{{.size = UINT64_MAX - 4095}, "size"},
		{{.capacity = UINT64_C(1) << 47}, "capacity"},
		{{.choice = (hp_rung_choice)3}, "choice"},
		{{.choice = (hp_rung_choice)-1}, "choice"},
		{{.rung = (hp_rung)5}, "rung"},
		{{.choice = HP_CHOICE_REQUIRE}, "rung"},
		{{.numa = {.policy = (hp_numa_policy)5}}, "NUMA"},
		{{.prefault = (hp_prefault)4}, "prefault"},
		{{.choice = HP_CHOICE_REQUIRE, .rung = HP_RUNG_2M, .prefault = HP_PREFAULT_LAZY}, "LAZY"},
		{{.choice = HP_CHOICE_PREFER, .rung = HP_RUNG_THP, .prefault = HP_PREFAULT_LAZY}, "LAZY"},
		{{.max_threads = 16385}, "max_threads"},
		{{.max_processes = 4097}, "max_processes"},
		{{.flags = 8}, "flag"},
		{{.trace = 4}, "trace"},
	};
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct held before = held_now();
		struct said said = {0};
		struct hp_report report;
		memset(&report, 0x5a, sizeof report);
		struct hp_pool_options options = wrong[i].options;
		options.log = said_log;
		options.log_arg = &said;
		options.report = &report;
		hp_pool *pool = (hp_pool *)&options;
		int error = hp_pool_create(&options, &pool);
		if (error != -EINVAL || !strstr(said.text, wrong[i].word) || pool || said.lines != 1)
			fail_msg("row %u: %d, said \"%s\" where \"%s\" belongs", i, error, said.text, wrong[i].word);
		/* filled on failure too: what it says must not be whatever was there before */
		assert_int_equal(report.rung_got, HP_RUNG_BEST);
		assert_int_equal(report.bytes_got, 0);
		assert_int_equal(report.rungs, 0);
		must_hold_no_more(before);
		options.log = NULL;
		assert_int_equal(hp_pool_create(&options, &pool), -EINVAL);
	}
}

/* An options struct of an earlier version is shorter, of a later one longer. */
static void options_carry_their_own_size(void **state)
{
	(void)state;
	struct {
		struct hp_pool_options options;
		unsigned char later[24];
	} longer = {.options = hp_plain_options(2 * MIB)};
	longer.options.struct_size = sizeof longer;
	hp_pool *pool = created(&longer.options);
	assert_int_equal(hp_pool_detach(pool), 0);

	struct said said = {0};
	longer.later[23] = 1;
	longer.options.log = said_log;
	longer.options.log_arg = &said;
	pool = (hp_pool *)&longer;
	assert_int_equal(hp_pool_create(&longer.options, &pool), -EINVAL);
	assert_null(pool);
	assert_non_null(strstr(said.text, "later version"));

	/* Only what lies within struct_size is read: here not the rung, nor what would be an error. */
	struct hp_pool_options shorter = {.struct_size = offsetof(struct hp_pool_options, choice),
	                                  .name = "short",
	                                  .size = 2 * MIB,
	                                  .choice = (hp_rung_choice)77,
	                                  .flags = ~0u};
	pool = created(&shorter);
	assert_string_equal(hp_pool_name(pool), "short");
	assert_int_equal(hp_pool_capacity(pool), 2 * MIB);
	assert_int_equal(hp_pool_detach(pool), 0);

	/* A size that no version ever had is an error, not a walk through memory. */
	struct hp_pool_options rubbish = hp_plain_options(2 * MIB);
	rubbish.struct_size = SIZE_MAX;
	assert_int_equal(hp_pool_create(&rubbish, &pool), -EINVAL);
}

static void names_are_kept_or_made_up(void **state)
{
	(void)state;
	char name[64];
	memset(name, 'n', 63);
	name[63] = 0;
	struct hp_pool_options options = hp_plain_options(MIB);
	options.name = name;
	hp_pool *longest = created(&options);
	assert_string_equal(hp_pool_name(longest), name);
	options.name = NULL;
	hp_pool *one = created(&options), *two = created(&options);
	assert_true(strlen(hp_pool_name(one)) > 0 && !strchr(hp_pool_name(one), '/'));
	assert_string_not_equal(hp_pool_name(one), hp_pool_name(two));
	hp_pool *attached = hp_attach_again(one);
	assert_string_equal(hp_pool_name(attached), hp_pool_name(one));
	hp_pool_detach(attached);
	hp_pool_detach(one);
	hp_pool_detach(two);
	hp_pool_detach(longest);
}

static void sizes_are_rounded_up(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(1);
	hp_pool *pool = created(&options);
	assert_true(hp_pool_capacity(pool) >= PAGE && hp_pool_capacity(pool) <= 2 * MIB);
	void *block;
	assert_int_equal(hp_page_alloc(pool, hp_pool_capacity(pool), 0, &block), 0);
	assert_int_equal(hp_page_free(pool, block), 0);
	hp_pool_detach(pool);

	options.size = 3 * MIB + 1;
	options.capacity = 9 * MIB + 1;
	pool = created(&options);
	struct hp_pool_stats stats = hp_stats(pool);
	assert_true(stats.committed > 3 * MIB && stats.committed <= 5 * MIB);
	assert_true(stats.capacity > 9 * MIB && stats.capacity <= 11 * MIB);
	hp_pool_detach(pool);

	/* a capacity below the default size is the size */
	options.size = 0;
	options.capacity = 4 * MIB;
	pool = created(&options);
	assert_int_equal(hp_stats(pool).committed, 4 * MIB);
	assert_int_equal(hp_pool_capacity(pool), 4 * MIB);
	hp_pool_detach(pool);
}

/* Every rung gives its pages or a reason; falling down the ladder is told. */
static void every_rung_holds_or_says_why(void **state)
{
	(void)state;
	const uint64_t sizes[] = {0, UINT64_C(1) << 30, 2 * MIB, 2 * MIB, PAGE};
	for (hp_rung rung = HP_RUNG_1G; rung <= HP_RUNG_4K; rung++) {
		for (hp_rung_choice choice = HP_CHOICE_PREFER; choice <= HP_CHOICE_REQUIRE; choice++) {
			struct held before = held_now();
			struct said said = {0};
			struct hp_report report;
			struct hp_pool_options options = {
				.size = 4 * MIB, .rung = rung, .choice = choice, .report = &report, .log = said_log, .log_arg = &said};
			hp_pool *pool;
			int error = hp_pool_create(&options, &pool);
			assert_int_equal(report.rung_asked, rung);
			assert_int_equal(report.choice, choice);
			if (error) {
				assert_int_equal(choice, HP_CHOICE_REQUIRE);
				assert_int_not_equal(rung, HP_RUNG_4K);
				assert_int_equal(report.rung_got, HP_RUNG_BEST);
				assert_int_equal(report.bytes_got, 0);
				assert_true(said.lines > 0);
				must_hold_no_more(before);
			} else {
				assert_int_equal(hp_pool_page_size(pool), sizes[report.rung_got]);
				assert_true(report.rung_got >= rung);
				if (choice == HP_CHOICE_REQUIRE) assert_int_equal(report.rung_got, rung);
				assert_int_equal(report.bytes_got, hp_stats(pool).committed);
				assert_int_equal(hp_pool_detach(pool), 0);
			}
			for (unsigned i = 0; i < report.rungs; i++) {
				const struct hp_report_rung *tried = &report.rung[i];
				bool held = report.rung_got == tried->rung;
				if (held ? tried->error != 0 : !tried->cause[0] || (tried->tried && !tried->error))
					fail_msg("%s: error %d, cause \"%s\"", hp_rung_name(tried->rung), tried->error, tried->cause);
			}
		}
	}
}

static int cancel_at_half(void *arg, uint64_t done, uint64_t todo, int node)
{
	(void)node;
	*(uint64_t *)arg = done;
	return done * 2 >= todo;
}

static void a_cancelled_creation_leaves_nothing(void **state)
{
	(void)state;
	struct held before = held_now();
	uint64_t done = UINT64_MAX;
	struct hp_pool_options options = hp_plain_options(64 * MIB);
	options.progress = cancel_at_half;
	options.progress_arg = &done;
	hp_pool *pool = (hp_pool *)&options;
	assert_int_equal(hp_pool_create(&options, &pool), -ECANCELED);
	assert_null(pool);
	assert_true(done >= 32 * MIB && done < 64 * MIB + 1);
	must_hold_no_more(before);
}

static void too_few_descriptors_are_an_error(void **state)
{
	(void)state;
	struct rlimit old, few;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	struct held before = held_now();
	int first = dup(0);
	close(first);
	struct hp_pool_options options = hp_plain_options(MIB);
	hp_pool *pool;
	for (int free = 0; free < 3; free++) {
		few = old;
		few.rlim_cur = (rlim_t)(first + free);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		int error = hp_pool_create(&options, &pool);
		setrlimit(RLIMIT_NOFILE, &old);
		assert_int_equal(error, -EMFILE);
		must_hold_no_more(before);
	}
}

static bool no_membarrier(enum os_call call, int64_t *result)
{
	*result = -ENOSYS;
	return call == OS_MEMBARRIER;
}

/* Without membarrier the pool is made fenced; one that relies on it refuses who cannot. */
static void without_membarrier_pools_are_fenced(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(4 * MIB);
	hp_pool *with = created(&options), *pool = NULL;
	struct said said = {0};
	struct hp_attach_options loud = {.struct_size = sizeof loud, .log = said_log, .log_arg = &said};
	int fds[3];
	assert_int_equal(hp_pool_fds(with, fds), 0);
	os_hook = no_membarrier;
	assert_int_equal(hp_pool_attach(fds, &loud, &pool), -ENOTSUP);
	assert_non_null(strstr(said.text, "HP_POOL_FENCED"));
	pool = created(&options);
	hp_pool *again = hp_attach_again(pool);
	pool_must_work(pool, 4 * MIB);
	pool_must_work(again, 4 * MIB); /* takes what the other owns and does not use */
	os_hook = NULL;
	assert_true(hp_stats(pool).taken > 0);
	hp_pool_detach(again);
	hp_pool_detach(pool);
	hp_pool_detach(with);
}

static void pointers_and_offsets_agree(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	char *base = hp_pool_base(pool);
	uint64_t capacity = hp_pool_capacity(pool);
	assert_int_equal(hp_pool_offset(pool, base), 0);
	assert_int_equal(hp_pool_offset(pool, base + capacity - 1), capacity - 1);
	assert_int_equal(hp_pool_offset(pool, base + capacity), HP_OFF_NONE);
	assert_int_equal(hp_pool_offset(pool, base - 1), HP_OFF_NONE);
	assert_int_equal(hp_pool_offset(pool, NULL), HP_OFF_NONE);
	assert_ptr_equal(hp_pool_pointer(pool, 5), base + 5);
	assert_null(hp_pool_pointer(pool, capacity));
	assert_null(hp_pool_pointer(pool, HP_OFF_NONE));
	hp_pool_detach(pool);
}

static void traces_go_to_the_log(void **state)
{
	(void)state;
	struct said said = {0};
	struct hp_pool_options options = hp_plain_options(MIB);
	options.log = said_log;
	options.log_arg = &said;
	options.trace = HP_TRACE_ALLOC;
	hp_pool *pool = created(&options);
	void *block;
	assert_int_equal(hp_page_alloc(pool, PAGE, 0, &block), 0);
	assert_non_null(strstr(said.text, "alloc"));
	assert_int_equal(hp_page_free(pool, block), 0);
	assert_non_null(strstr(said.text, "free"));
	assert_int_equal(hp_pool_trace(pool, 0), 0);
	unsigned lines = said.lines;
	assert_int_equal(hp_page_alloc(pool, PAGE, 0, &block), 0);
	assert_int_equal(hp_page_free(pool, block), 0);
	assert_int_equal(said.lines, lines);
	assert_int_equal(hp_pool_trace(pool, 4), -EINVAL);
	assert_int_equal(hp_pool_trace(NULL, 0), -EINVAL);
	hp_pool_detach(pool);
}

/* ---- nothing is left behind ---- */

static int names_in_dev_shm(void)
{
	int count = 0;
	DIR *dir = opendir("/dev/shm");
	if (!dir) return 0;
	while (readdir(dir)) count++;
	closedir(dir);
	return count;
}

static bool huge_pages;

static void make_and_fork(const struct child *me, void *arg)
{
	pid_t *pid = arg; /* shared with the test */
	struct hp_pool_options options = {.size = 2 * MIB};
	if (huge_pages)
		options = (struct hp_pool_options){.size = 4 * MIB, .choice = HP_CHOICE_REQUIRE, .rung = HP_RUNG_2M};
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	for (int i = 0; i < 2; i++) {
		pid_t child = fork();
		must(child >= 0);
		if (child == 0) {
			void *block;
			must_be(hp_page_alloc(pool, 3 * PAGE, i ? HP_PAGE_PROCESS : 0, &block), 0);
			child_say(me);
			for (;;) pause();
		}
		pid[i] = child;
	}
	child_say(me);
	for (;;) pause();
}

static void all_killed_leave_nothing(void **state)
{
	(void)state;
	int names = names_in_dev_shm();
	pid_t *pid = hp_shared(2 * sizeof *pid);
	long free_pages = huge_pages ? hp_huge_read(HP_HUGE_2M, "free_hugepages") : 0;
	for (int round = 0; round < (HP_TEST_SANITIZER ? 10 : 100); round++) {
		struct child child = child_start(make_and_fork, pid);
		for (int i = 0; i < 3; i++) assert_true(child_hear(&child));
		kill(child.pid, SIGKILL);
		kill(pid[0], SIGKILL);
		kill(pid[1], SIGKILL);
		assert_false(child_hear(&child)); /* the last of them is gone */
		child_end(&child);
	}
	munmap(pid, 2 * sizeof *pid);
	assert_int_equal(names_in_dev_shm(), names);
	if (huge_pages) {
		/* nobody reaps the orphans here, and the pipe ended before their memory did */
		for (int look = 0; look < 10000 && hp_huge_read(HP_HUGE_2M, "free_hugepages") != free_pages; look++)
			usleep(1000);
		assert_int_equal(hp_huge_read(HP_HUGE_2M, "free_hugepages"), free_pages);
	}
}

int main(void)
{
	huge_pages = hp_test_has_huge(HP_HUGE_2M, 8);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_options_give_64_mib_on_the_best_pages),
		cmocka_unit_test(wrong_options_are_refused_by_name),
		cmocka_unit_test(options_carry_their_own_size),
		cmocka_unit_test(names_are_kept_or_made_up),
		cmocka_unit_test(sizes_are_rounded_up),
		cmocka_unit_test(every_rung_holds_or_says_why),
		cmocka_unit_test(a_cancelled_creation_leaves_nothing),
		cmocka_unit_test(too_few_descriptors_are_an_error),
		cmocka_unit_test(without_membarrier_pools_are_fenced),
		cmocka_unit_test(pointers_and_offsets_agree),
		cmocka_unit_test(traces_go_to_the_log),
		cmocka_unit_test(all_killed_leave_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
