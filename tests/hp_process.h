/* What the tests of participants share: children that take part in a pool and wait for the test's word, deaths that are
 * waited for and not slept for, and what a process holds (descriptors, mappings, memory of a file) before and after.
 *
 * A child tells by a byte in a pipe that it is where the test wants it, and goes on when it gets one; a pipe that ends
 * says that it died. */
#ifndef HP_PROCESS_TEST_H
#define HP_PROCESS_TEST_H

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "hp_page.h"

struct child {
	pid_t pid;
	int says, hears; /* the test's ends, or, in the child, its own */
};

static inline void child_say(const struct child *child)
{
	must_be(write(child->says, "x", 1), 1);
}

/* Whether a byte came; false: the other side is gone. */
static inline bool child_hear(const struct child *child)
{
	char byte;
	ssize_t got;
	while ((got = read(child->hears, &byte, 1)) < 0 && errno == EINTR) {}
	return got == 1;
}

/* In the child: here I am; what next? A test that is gone takes its children along. */
static inline void child_here(const struct child *me)
{
	child_say(me);
	if (!child_hear(me)) _exit(0);
}

static inline struct child child_start(void (*run)(const struct child *me, void *arg), void *arg)
{
	int up[2], down[2];
	must_be(pipe2(up, O_CLOEXEC), 0);
	must_be(pipe2(down, O_CLOEXEC), 0);
	fflush(NULL);
	pid_t pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		close(up[0]);
		close(down[1]);
		struct child me = {.pid = getppid(), .says = up[1], .hears = down[0]};
		run(&me, arg);
		_exit(0);
	}
	close(up[1]);
	close(down[0]);
	return (struct child){.pid = pid, .says = down[1], .hears = up[0]};
}

/* The status of waitpid. */
static inline int child_end(struct child *child)
{
	close(child->says);
	close(child->hears);
	int status = -1;
	pid_t got;
	while ((got = waitpid(child->pid, &status, 0)) < 0 && errno == EINTR) {}
	must_be(got, child->pid);
	child->pid = 0;
	return status;
}

/* Dead, and not reaped. */
static inline void child_await_zombie(const struct child *child)
{
	siginfo_t info;
	int result;
	while ((result = waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOWAIT)) < 0 && errno == EINTR) {}
	must_be(result, 0);
}

static inline void child_kill(struct child *child)
{
	must_be(kill(child->pid, SIGKILL), 0);
	int status = child_end(child);
	must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* It goes on, and ends well. */
static inline void child_finish(struct child *child)
{
	child_say(child);
	must_be(child_end(child), 0);
}

/* Stopped, for certain. */
static inline void child_await_stop(const struct child *child)
{
	int status;
	pid_t got;
	while ((got = waitpid(child->pid, &status, WUNTRACED)) < 0 && errno == EINTR) {}
	must_be(got, child->pid);
	must(WIFSTOPPED(status));
}

/* ---- what a process holds ---- */

struct held {
	int files, maps; /* open descriptors; mappings of files of pools */
	uint64_t address_space;
};

static inline struct held held_now(void)
{
	struct held held = {0};
	DIR *dir = opendir("/proc/self/fd");
	must(dir);
	while (readdir(dir)) held.files++;
	closedir(dir);
	FILE *maps = fopen("/proc/self/maps", "re");
	must(maps);
	char line[4096 + 256];
	while (fgets(line, sizeof line, maps)) {
		unsigned long from, to;
		must_be(sscanf(line, "%lx-%lx", &from, &to), 2);
		held.maps += strstr(line, "hugepool-") != NULL;
		held.address_space += to - from;
	}
	fclose(maps);
	return held;
}

/* The heap may have grown a little, sanitizers' memory much. */
#define HELD_SLACK (HP_TEST_SANITIZER ? UINT64_C(1) << 40 : MIB)

#define must_hold_no_more(before) \
	do { \
		struct held before_ = (before), after_ = held_now(); \
		must_be(after_.files, before_.files); \
		must_be(after_.maps, before_.maps); \
		must(after_.address_space <= before_.address_space + HELD_SLACK); \
	} while (0)

/* Bytes of memory that the data file holds. */
static inline uint64_t data_held(hp_pool *pool)
{
	int fds[3];
	struct stat st;
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(fstat(fds[2], &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* The file holds what is committed, not a page more or less (4 KiB and 2 MiB pages; nothing of it lazy). */
static inline void data_must_be_exact(hp_pool *pool)
{
	must_be(data_held(pool), hp_stats(pool).committed);
}

/* All of the pool, page by page, freed again: it is whole and in working order. */
static inline void pool_must_work(hp_pool *pool, uint64_t bytes)
{
	size_t pages = bytes / PAGE;
	void **block = calloc(pages + 1, sizeof *block);
	must(block);
	for (size_t i = 0; i < pages; i++) {
		must_be(hp_page_alloc(pool, PAGE, 0, &block[i]), 0);
		hp_mark(block[i], 1, i);
	}
	for (size_t i = 0; i < pages; i++) {
		must(hp_marked(block[i], 1, i));
		must_be(hp_page_free(pool, block[i]), 0);
	}
	free(block);
	hp_must_be_sound(pool);
}

/* Messages of the library, kept. */
struct said {
	char text[8192];
	unsigned lines;
};

static inline void said_log(void *arg, const char *message)
{
	struct said *said = arg;
	must(!strchr(message, '\n'));
	size_t length = strlen(said->text);
	snprintf(said->text + length, sizeof said->text - length, "%s\n", message);
	said->lines++;
}

#endif
