/* What a ring says of itself where the kernel lets it have less, and that the same calls do the same there.
 *
 * Catches: a ring that fails where it could do without, or does without where io_uring was required; a message without the
 * number needed, the cause or the cure; a registration that counts what is not registered; an error on the way that leaves
 * descriptors, mappings, pins or objects behind, or I/O that goes wrong after it. What a kernel may refuse is refused by a filter
 * of system calls, by limits, and by answers in the kernel's stead. */
#include "hp_uring.h"
#include "os/os.h"
#include "ring/ring.h"
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define BLOCK 4096u

/* As much as a ring can do with memory of the pool and a cache: to a file and back, and through a socket into an object. */
static void does_its_work(hp_ring *ring, hp_pool *pool, hp_cache *cache)
{
	int fd = hp_ring_file(0), pair[2];
	char *block = hp_pages(pool, BLOCK);
	must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	hp_mark(block, 1, 7);
	must_be(hp_ring_write(ring, fd, block, BLOCK, 0, 0, 1), 0);
	must_be(hp_ring_result(ring, 1), BLOCK);
	memset(block, 0, BLOCK);
	must_be(hp_ring_read(ring, fd, block, BLOCK, 0, 0, 2), 0);
	must_be(hp_ring_result(ring, 2), BLOCK);
	must(hp_marked(block, 1, 7));
	must_be(hp_ring_send(ring, pair[0], block, 100, HP_RING_ZEROCOPY, 3), 0);
	must_be(hp_ring_result(ring, 3), 100);
	must_be(hp_ring_recv_object(ring, pair[1], 0, 4), 0);
	struct hp_ring_completion completion = hp_ring_next(ring);
	must_be(completion.result, 100);
	must(completion.object && memcmp(completion.object, block, 100) == 0);
	must_be(hp_cache_put(cache, completion.object), 0);
	hp_ring_must_be_idle(ring);
	must_be(hp_page_free(pool, block), 0);
	close(fd);
	close(pair[0]);
	close(pair[1]);
}

static struct {
	hp_pool *pool;
	hp_cache *cache;
	struct said said;
} with;

static void begin(void)
{
	with.pool = hp_plain_pool(8 * MIB, HP_POOL_NO_AUTOGROW);
	with.cache = hp_cache_make(with.pool, "received", 256, 0);
	with.said = (struct said){0};
}

static void end(void)
{
	must_be(hp_cache_numbers(with.cache).in_use, 0);
	must_be(hp_cache_destroy(with.cache), 0);
	hp_must_be_empty(with.pool);
	hp_pool_detach(with.pool);
}

static void must_say(const char *cause, const char *cure)
{
	if (!strstr(with.said.text, cause) || !strstr(with.said.text, cure)) {
		fprintf(stderr, "said: %s", with.said.text);
		must(false);
	}
	with.said = (struct said){0};
}

/* A ring is made, of which `flags` and the report are given back; it works, says `lines` lines, and preflight says the same and
 * nothing to the log. */
static struct hp_ring_report made(unsigned flags, unsigned lines)
{
	struct hp_ring_report report = {.struct_size = sizeof report}, before = report;
	struct hp_ring_options options = {
		.struct_size = sizeof options, .flags = flags, .log = said_log, .log_arg = &with.said, .report = &report};
	hp_ring *ring;
	int preflight = hp_ring_preflight(with.pool, &before);
	must_be(hp_ring_create(with.pool, &options, &ring), 0);
	must_be(with.said.lines, lines);
	if (!flags) {
		must_be(preflight, report.error);
		must_be(before.io_uring, report.io_uring);
		must_be(before.registered, report.registered);
	}
	must_be(hp_ring_buffers(ring, with.cache, 4), 0);
	does_its_work(ring, with.pool, with.cache);
	must_be(hp_ring_destroy(ring), 0);
	return report;
}

static bool has_io_uring(void)
{
	struct hp_ring_report report = {.struct_size = sizeof report};
	hp_ring_preflight(NULL, &report);
	return report.io_uring;
}

#define need_io_uring() \
	do { \
		if (!has_io_uring()) hp_test_skip_one("no io_uring here"); \
	} while (0)

/* ---- all is well ---- */

static void what_is_there_is_told(void **state)
{
	(void)state;
	need_io_uring();
	begin();
	struct hp_ring_report report = made(0, 0);
	must(report.io_uring && !report.error && !report.cause[0] && !report.cure[0]);
	must_be(report.registered, 8 * MIB);
	must_be(report.committed, 8 * MIB);
	must_be(report.memlock_needed, 8 * MIB);
	report = made(HP_RING_UNREGISTERED, 0);
	must(report.io_uring && !report.registered);
	report = made(HP_RING_PLAIN, 0);
	must(!report.io_uring && !report.zero_copy && !report.registered && !report.error);
	struct hp_ring_report wrong = {.struct_size = 8};
	must_be(hp_ring_preflight(with.pool, &wrong), -EINVAL);
	must_be(hp_ring_preflight(with.pool, NULL), -EINVAL);
	must_be(hp_ring_report(NULL, &report), -EINVAL);
	end();
}

/* What grows is registered when it is said, and rings on one handle have one registration, where the kernel can do that. */
static void what_grows_is_registered_later(void **state)
{
	(void)state;
	need_io_uring();
	struct hp_pool_options options = hp_plain_options(4 * MIB);
	options.capacity = 32 * MIB;
	options.flags = HP_POOL_NO_AUTOGROW;
	struct hp_ring_report report = {.struct_size = sizeof report};
	hp_pool *pool;
	hp_ring *ring, *second;
	must_be(hp_pool_create(&options, &pool), 0);
	must_be(hp_ring_create(pool, NULL, &ring), 0);
	must_be(hp_ring_report(ring, &report), 0);
	must_be(report.registered, 4 * MIB);
	must_be(hp_pool_grow(pool, 8 * MIB, NULL, NULL), 0);
	/* of what is not registered yet I/O goes by address */
	char *most = hp_pages(pool, 8 * MIB);
	int fd = hp_ring_file(0);
	for (unsigned i = 0; i < 2; i++) {
		hp_mark(most, 8 * MIB / PAGE, 3 + i);
		must_be(hp_ring_write(ring, fd, most, 8 * MIB, 0, 0, 1), 0);
		must_be(hp_ring_result(ring, 1), 8 * MIB);
		memset(most, 0, 8 * MIB);
		must_be(hp_ring_read(ring, fd, most, 8 * MIB, 0, 0, 1), 0);
		must_be(hp_ring_result(ring, 1), 8 * MIB);
		must(hp_marked(most, 8 * MIB / PAGE, 3 + i));
		must_be(hp_ring_register(ring), 0);
		must_be(hp_ring_report(ring, &report), 0);
		must_be(report.registered, 12 * MIB);
	}
	must_be(hp_ring_create(pool, NULL, &second), 0);
	must_be(hp_ring_report(second, &report), 0);
	must_be(report.registered, 12 * MIB);
	/* the first goes, the second keeps what it has */
	must_be(hp_ring_destroy(ring), 0);
	must_be(hp_ring_read(second, fd, most, 8 * MIB, 0, 0, 1), 0);
	must_be(hp_ring_result(second, 1), 8 * MIB);
	must_be(hp_page_free(pool, most), 0);
	must_be(hp_ring_destroy(second), 0);
	close(fd);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* ---- less ---- */

static void forbid_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(77);
}

static int without_io_uring(void *arg)
{
	(void)arg;
	hp_ring *ring;
	struct hp_ring_options options = {.struct_size = sizeof options, .flags = HP_RING_REQUIRE};
	begin();
	forbid_io_uring();
	struct held before = held_now();
	struct hp_ring_report report = made(0, 1);
	must_be(report.error, -EPERM);
	must(!report.io_uring && !report.registered);
	/* by a profile; or by the machine's setting, when that is another */
	if (strstr(report.cause, "io_uring_disabled"))
		must_say("switched off", "sysctl kernel.io_uring_disabled=0");
	else
		must_say("forbidden to this process", "seccomp");
	must_be(hp_ring_create(with.pool, &options, &ring), -EPERM);
	must(!ring);
	must_hold_no_more(before);
	end();
	return 0;
}

static void where_it_is_forbidden_plain_calls_do(void **state)
{
	(void)state;
	int status = hp_test_child(without_io_uring, NULL);
	if (status == 77) hp_test_skip_one("no filters of system calls here");
	must_be(status, 0);
}

/* Answers in the kernel's stead. */
static enum os_call refused;
static int refusal;

static bool refuse(enum os_call call, int64_t *result)
{
	if (call != refused) return false;
	*result = refusal;
	return true;
}

static void what_a_kernel_lacks_is_said(void **state)
{
	(void)state;
	need_io_uring();
	static const struct {
		enum os_call call;
		int error, reported;
		const char *cause, *cure;
	} cases[] = {
		{OS_URING_SETUP, -ENOSYS, -ENOSYS, "the kernel has no io_uring", "Linux 5.19"},
		{OS_URING_SETUP, -EPERM, -EPERM, "plain system calls instead", "io_uring"},
		{OS_URING_SETUP, -ENOMEM, -ENOMEM, "plain system calls instead", "ulimit -l"},
		{OS_URING_REGISTER, -EINVAL, -ENOSYS, "too old", "Linux 5.19"}, /* tables with free places: 5.19 */
		{OS_URING_REGISTER, -ENOMEM, -ENOMEM, "files could not be registered", "memory"},
	};
	begin();
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct held before = held_now();
		refused = cases[i].call;
		refusal = cases[i].error;
		os_hook = refuse;
		struct hp_ring_report report = made(0, 1);
		must_be(report.error, cases[i].reported);
		must(!report.io_uring && !report.registered);
		must_say(cases[i].cause, cases[i].cure);
		hp_ring *ring;
		struct hp_ring_options options = {.struct_size = sizeof options, .flags = HP_RING_REQUIRE};
		must_be(hp_ring_create(with.pool, &options, &ring), cases[i].reported);
		os_hook = NULL;
		must_hold_no_more(before);
	}
	end();
}

/* Flags of the setup that came with later kernels are left out, one set after the other. */
static unsigned setups, unknown;

static bool knows_few_flags(enum os_call call, int64_t *result)
{
	*result = -EINVAL;
	return call == OS_URING_SETUP && setups++ < unknown;
}

static void an_older_kernel_is_asked_for_less(void **state)
{
	(void)state;
	need_io_uring();
	for (unsigned flags = 0; flags <= HP_RING_ONE_THREAD; flags += HP_RING_ONE_THREAD)
		for (unknown = 0; unknown <= 3; unknown++) {
			struct hp_ring_report report = {.struct_size = sizeof report};
			struct hp_ring_options options = {.struct_size = sizeof options, .flags = flags, .report = &report};
			hp_ring *ring;
			begin();
			setups = 0;
			os_hook = knows_few_flags;
			must_be(hp_ring_create(with.pool, &options, &ring), 0);
			os_hook = NULL;
			must_be(report.io_uring, unknown < 3);
			must_be(report.error, unknown < 3 ? 0 : -EINVAL);
			must_be(hp_ring_buffers(ring, with.cache, 4), 0);
			does_its_work(ring, with.pool, with.cache);
			must_be(hp_ring_destroy(ring), 0);
			end();
		}
}

/* The user may lock 1 MiB, and the pool has 8 MiB: what cannot be registered is used by address. */
static int with_little_memlock(void *arg)
{
	(void)arg;
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	struct rlimit limit = {.rlim_cur = MIB, .rlim_max = MIB};
	begin();
	must_be(syscall(SYS_capget, &header, data), 0);
	for (unsigned i = 0; i < 2; i++) {
		data[i].inheritable = 0;
		if (i == CAP_IPC_LOCK / 32)
			data[i].effective &= ~(1u << CAP_IPC_LOCK % 32), data[i].permitted = data[i].effective;
	}
	must_be(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	must_be(syscall(SYS_capset, &header, data), 0);
	struct hp_ring_report report = made(0, 1);
	must(report.io_uring);
	must_be(report.error, -ENOMEM);
	must_be(report.registered, 0);
	must_be(report.committed, 8 * MIB);
	must_be(report.memlock_needed, 8 * MIB);
	must_be(report.memlock_limit, MIB);
	must_say("RLIMIT_MEMLOCK: needed 8192 KiB, is 1024 KiB", "ulimit -l 8192");
	/* nothing is charged for what is not registered; and io_uring is there all the same */
	report = made(HP_RING_REQUIRE, 1);
	must(report.io_uring);
	with.said = (struct said){0};
	report = made(HP_RING_UNREGISTERED, 0);
	must(report.io_uring && !report.error);
	end();
	return 0;
}

static void too_small_a_memlock_is_said(void **state)
{
	(void)state;
	need_io_uring();
	must_be(hp_test_child(with_little_memlock, NULL), 0);
}

/* No descriptor is left: then nothing is done by other means, which would need them as well. */
static int without_descriptors(void *arg)
{
	(void)arg;
	begin();
	struct hp_ring_report report = {.struct_size = sizeof report};
	/* the kernel has no larger tables of files either than a process may have open */
	struct hp_ring_options options = {.struct_size = sizeof options, .files = 1, .report = &report};
	struct rlimit before, limit;
	hp_ring *ring;
	must_be(getrlimit(RLIMIT_NOFILE, &before), 0);
	int next = dup(0); /* the lowest that is free */
	close(next);
	for (rlim_t more = 0;; more++) {
		limit = (struct rlimit){.rlim_cur = (rlim_t)next + more, .rlim_max = before.rlim_max};
		must_be(setrlimit(RLIMIT_NOFILE, &limit), 0);
		int error = hp_ring_create(with.pool, &options, &ring);
		must_be(setrlimit(RLIMIT_NOFILE, &before), 0);
		int free = dup(0);
		close(free);
		if (error == 0) break;
		must_be(error, -EMFILE);
		must(!ring && more < 8);
		must_be(free, next);
		must(!pin_any(with.pool));
	}
	must_be(hp_ring_destroy(ring), 0);
	end();
	return 0;
}

static void without_descriptors_there_is_no_ring(void **state)
{
	(void)state;
	must_be(hp_test_child(without_descriptors, NULL), 0);
}

/* ---- every call fails once ---- */

static unsigned calls, fail_at;

static bool fails_at(enum os_call call, int64_t *result)
{
	if (call == OS_CLOSE || call == OS_UNMAP || call == OS_FUTEX_WAIT || call == OS_URING_ENTER || call == OS_BYTE_HELD)
		return false;
	if (calls++ != fail_at) return false;
	*result = refusal;
	return true;
}

static void an_error_on_the_way_leaves_nothing(void **state)
{
	static const int errors[] = {-ENOMEM, -EPERM, -EINVAL};
	for (unsigned e = 0; e < 3; e++) {
		bool failed = true;
		begin();
		made(hp_ring_is_plain(state) ? HP_RING_PLAIN : 0, 0); /* what is made once for good */
		for (fail_at = 0; failed; fail_at++) {
			struct hp_ring_options options = {.struct_size = sizeof options,
			                                  .flags = hp_ring_is_plain(state) ? HP_RING_PLAIN : 0,
			                                  .log = said_log,
			                                  .log_arg = &with.said};
			struct held before = held_now();
			hp_ring *ring;
			calls = 0;
			refusal = errors[e];
			os_hook = fails_at;
			int error = hp_ring_create(with.pool, &options, &ring), more = error;
			if (error == 0) more = hp_ring_buffers(ring, with.cache, 4);
			os_hook = NULL;
			failed = calls > fail_at;
			if (error == 0) {
				if (more < 0) must_be(hp_ring_buffers(ring, with.cache, 4), 0); /* then it is possible later */
				does_its_work(ring, with.pool, with.cache);
				must_be(hp_ring_destroy(ring), 0);
			}
			must(failed || error == 0);
			with.said = (struct said){0};
			hp_pool_recover(with.pool);
			must(!pin_any(with.pool));
			must_be(hp_cache_numbers(with.cache).in_use, 0);
			must_hold_no_more(before);
		}
		end();
	}
}

/* So often that a page lost each time would be seen. */
static void buffers_that_are_refused_leave_nothing(void **state)
{
	(void)state;
	need_io_uring();
	begin();
	hp_ring *ring;
	must_be(hp_ring_create(with.pool, NULL, &ring), 0);
	refused = OS_URING_REGISTER;
	refusal = -ENOMEM;
	struct held before = held_now();
	os_hook = refuse;
	for (unsigned i = 0; i < 400; i++) must_be(hp_ring_buffers(ring, with.cache, 4), -ENOMEM);
	os_hook = NULL;
	must_hold_no_more(before);
	must_be(hp_ring_buffers(ring, with.cache, 4), 0);
	does_its_work(ring, with.pool, with.cache);
	must_be(hp_ring_destroy(ring), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_there_is_told),
		cmocka_unit_test(what_grows_is_registered_later),
		cmocka_unit_test(where_it_is_forbidden_plain_calls_do),
		cmocka_unit_test(what_a_kernel_lacks_is_said),
		cmocka_unit_test(an_older_kernel_is_asked_for_less),
		cmocka_unit_test(too_small_a_memlock_is_said),
		cmocka_unit_test(without_descriptors_there_is_no_ring),
		on_both_engines(an_error_on_the_way_leaves_nothing),
		cmocka_unit_test(buffers_that_are_refused_leave_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
