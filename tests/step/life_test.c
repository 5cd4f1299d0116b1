/* Creating, attaching, detaching, growing and trimming, killed at every instruction. */
#include "harness.h"
#include "run.h"
#include "hp_test.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static const struct step_pool fixed = {.pages = 768, .capacity = 768, .flags = HP_POOL_NO_AUTOGROW};
static const struct step_pool growing = {.pages = 512, .capacity = 1024, .flags = HP_POOL_NO_AUTOGROW};
static const struct step_pool autogrow = {.pages = 512, .capacity = 1024};

#define COUNT(table) (sizeof(table) / sizeof *(table))

static void others(struct step_world *w)
{
	step_join(w, 1);
	step_block(w, 1, 3, 0);
	step_block(w, 1, 2, HP_PAGE_PROCESS);
}

static void stranger(struct step_world *w)
{
	others(w);
	step_start(w, 0);
}

/* With something to recover when it attaches. */
static void heir(struct step_world *w)
{
	others(w);
	step_join(w, 2);
	step_block(w, 2, 70, 0);
	step_block(w, 2, 5, HP_PAGE_PROCESS);
	step_block(w, 2, 1, 0);
	step_kill(w, 2);
	step_start(w, 0);
}

static void member(struct step_world *w)
{
	others(w);
	step_join(w, 0);
	step_block(w, 0, 4, 0);
	step_block(w, 0, 66, 0);
	step_block(w, 0, 6, HP_PAGE_PROCESS);
}

static void idle_member(struct step_world *w)
{
	others(w);
	step_join(w, 0);
}

/* There are holes to fill: what was trimmed before. */
static void holed(struct step_world *w)
{
	idle_member(w);
	int64_t given = step_call(w, 1, step_trim, (512 - 128) * HP_PAGE_SIZE, 0);
	STEP_NEED(w, given == 128 * HP_PAGE_SIZE);
	w->shape.pages -= 128;
}

/* All that is committed is in use. */
static void full(struct step_world *w)
{
	step_join(w, 1);
	for (int i = 0; i < 8; i++) step_block(w, 1, 64, 0);
	step_join(w, 0);
}

/* Blocks in chunks that have no owner any more. */
static void abandoned(struct step_world *w)
{
	idle_member(w);
	step_join(w, 2);
	for (int i = 0; i < 6; i++) step_block(w, 2, 60, 0);
	step_kill(w, 2);
	STEP_NEED(w, step_call(w, 1, step_recover, 0, 0) == 1);
}

static const struct step_case cases[] = {
	{"attach", &fixed, stranger, step_attach, .flags = STEP_FILES},
	{"attach, recovering a dead process", &fixed, heir, step_attach, .flags = STEP_FILES},
	{"detach", &fixed, member, step_detach, .flags = STEP_LEAVES},
	{"grow by 2 chunks", &growing, idle_member, step_grow, .x = 128 * HP_PAGE_SIZE, .effect = STEP_GROWS, .pages = 128,
     .flags = STEP_FILES},
	{"grow into holes", &growing, holed, step_grow, .x = 64 * HP_PAGE_SIZE, .effect = STEP_GROWS, .pages = 64,
     .flags = STEP_FILES | STEP_NO_KILLS},
	{"alloc 40, growing", &autogrow, full, step_alloc, .x = 40, .effect = STEP_ALLOCATES, .flags = STEP_NO_KILLS},
	{"trim around blocks", &fixed, abandoned, step_trim, .x = HP_PAGE_SIZE, .effect = STEP_TRIMS, .pages = 256,
     .flags = STEP_FILES | STEP_TAKES},
	{"trim by 3 chunks", &fixed, member, step_trim, .x = (768 - 192) * HP_PAGE_SIZE, .effect = STEP_TRIMS, .pages = 192,
     .flags = STEP_FILES | STEP_TAKES},
};

static void pools_grow_shrink_and_gain_members(void **state)
{
	(void)state;
	assert_int_equal(step_run_cases(cases, COUNT(cases)), 0);
}

/* ---- create ---- */

static int64_t create(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	struct hp_pool_options options = {.size = fixed.pages * HP_PAGE_SIZE,
	                                  .name = "made",
	                                  .choice = HP_CHOICE_REQUIRE,
	                                  .rung = HP_RUNG_4K,
	                                  .max_threads = 10,
	                                  .max_processes = 10,
	                                  .flags = HP_POOL_NO_AUTOGROW};
	return hp_pool_create(&options, &env->pool);
}

/* The creator's descriptor of that kind, opened anew, or -1. */
static int its_file(pid_t pid, const char *kind)
{
	char path[64], want[64], link[320], target[128];
	snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
	snprintf(want, sizeof want, "/memfd:hugepool-%s:made", kind);
	DIR *dir = opendir(path);
	int fd = -1;
	for (struct dirent *entry; dir && fd < 0 && (entry = readdir(dir));) {
		snprintf(link, sizeof link, "%s/%s", path, entry->d_name);
		ssize_t length = readlink(link, target, sizeof target - 1);
		if (length <= 0) continue;
		target[length] = 0;
		if (strncmp(target, want, strlen(want)) == 0) fd = open(link, O_RDWR | O_CLOEXEC);
	}
	if (dir) closedir(dir);
	return fd;
}

/* A copy of a file as a dead creator leaves it: its size, its seals, its bytes; control names the other two. */
static int like(struct step_world *w, int fd, int lives, int data)
{
	struct stat st;
	int copy = memfd_create("step-like", MFD_CLOEXEC | MFD_ALLOW_SEALING), seals = fcntl(fd, F_GET_SEALS);
	STEP_NEED(w, copy >= 0 && fstat(fd, &st) == 0 && ftruncate(copy, st.st_size) == 0);
	char *bytes = malloc((size_t)st.st_size + 1);
	STEP_NEED(w, bytes && pread(fd, bytes, (size_t)st.st_size, 0) == st.st_size);
	struct pool_geometry *geometry = (struct pool_geometry *)(void *)bytes;
	if (lives >= 0 && (size_t)st.st_size > sizeof *geometry && geometry->magic)
		step_rename_files(w, geometry, lives, data);
	STEP_NEED(w, pwrite(copy, bytes, (size_t)st.st_size, 0) == st.st_size);
	free(bytes);
	STEP_NEED(w, fchmod(copy, st.st_mode & 0777) == 0); /* sealing an executable file would seal its contents too */
	if (seals > 0) STEP_NEED(w, fcntl(copy, F_ADD_SEALS, seals) == 0);
	return copy;
}

static void keep_message(void *arg, const char *message)
{
	static char line[300];
	snprintf(line, sizeof line, "%s", message);
	*(const char **)arg = line;
}

/* The state that a dead creator leaves is refused at once, or is a whole pool. */
static void creator_dies(struct step_world *w, const int fds[3], bool sealed)
{
	int lives = like(w, fds[0], -1, -1), data = like(w, fds[2], -1, -1);
	const int copy[3] = {lives, like(w, fds[1], lives, data), data};
	hp_pool *pool = NULL;
	const char *message = "";
	struct hp_attach_options options = {.struct_size = sizeof options, .log = keep_message, .log_arg = &message};
	int error = hp_pool_attach(copy, &options, &pool);
	w->states++;
	if (error == 0) {
		struct hp_pool_stats stats = {.struct_size = sizeof stats};
		hp_pool_stats(pool, &stats);
		if (stats.free != fixed.pages * HP_PAGE_SIZE || hp_pool_check(pool, NULL, NULL) != 0)
			step_fail(w, "a half-made pool can be attached to");
		w->effect = 1;
		hp_pool_detach(pool);
	} else if (w->effect == 1) {
		step_fail(w, "the pool was ready, and is not any more (%d)", error);
	} else if (sealed ? error != -ENODATA : error != -ENODATA && error != -EINVAL && error != -EBADMSG) {
		step_fail(w, "attaching to what a dead creator left gives %d (%s)", error, message);
	}
	for (int i = 0; i < 3; i++) close(copy[i]);
}

static int step_create(const void *unused, unsigned index)
{
	(void)unused, (void)index;
	if (!run_wanted("create")) return 0;
	struct step_world *w = step_open("create", &fixed);
	int fds[3] = {-1, -1, -1};
	uint64_t hash = 0;
	struct stat st = {0};
	char *control = NULL;
	step_start(w, 0);
	step_begin(w, 0, create, 0, 0);
	for (bool called = true, more = true; more && !w->failures; more = step_one(w, 0)) {
		static const char *const kind[] = {"lives", "control", "data"};
		if (called) {
			for (int i = 0; i < 3; i++)
				if (fds[i] < 0) fds[i] = its_file(w->actor[0].pid, kind[i]);
			if (!control && fds[1] >= 0 && fstat(fds[1], &st) == 0 && st.st_size) {
				control = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fds[1], 0);
				STEP_NEED(w, control != MAP_FAILED);
			}
		}
		bool there = fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0;
		/* what the world watches; behind it lies what a creator does not touch */
		size_t watched = (uint64_t)st.st_size < w->control_size ? (size_t)st.st_size : w->control_size;
		if (there && (called || !control || memcmp(control, w->last, watched))) {
			uint64_t now = control ? step_hash(control, watched, 0) : 1;
			if (control) memcpy(w->last, control, watched);
			int seals = fcntl(fds[1], F_GET_SEALS);
			now = step_hash(&(uint64_t){(uint64_t)seals}, 8, now);
			if (now != hash && !step_seen(w, now)) creator_dies(w, fds, seals & F_SEAL_SHRINK);
			hash = now;
		}
		called = step_at_syscall(w);
	}
	uint64_t instructions = w->instructions;
	int64_t error = step_finish(w, 0);
	memset(&w->regs, 0, sizeof w->regs);
	if (error < 0) step_fail(w, "creating fails with %lld", (long long)error);
	if (w->states < 10) step_fail(w, "the creator's files were not found");
	if (!w->effect) step_fail(w, "the pool was never ready");
	run_report("create: %llu instructions, %llu states", (unsigned long long)instructions,
	           (unsigned long long)w->states);
	int failures = (int)w->failures;
	step_close(w);
	return failures;
}

static void creators_leave_a_pool_or_none(void **state)
{
	(void)state;
	assert_int_equal(run_all(step_create, NULL, 1), 0);
}

int main(void)
{
	step_need_ptrace();
	const struct CMUnitTest tests[] = {cmocka_unit_test(creators_leave_a_pool_or_none),
	                                   cmocka_unit_test(pools_grow_shrink_and_gain_members)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
