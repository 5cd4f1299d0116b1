/* Takes huge pages from the machine for a test or a benchmark, and gives them back whatever happens.
 *
 * The number of reserved huge pages is a setting of the whole machine. hp_huge_take raises it by what is missing and
 * starts a guardian process that sleeps until this process is gone (by exit, signal or SIGKILL alike), then lowers it
 * by the same number. Call it before threads and pools exist: the guardian is forked. */
#ifndef HP_HUGE_H
#define HP_HUGE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define HP_HUGE_2M 2048ul /* page sizes in KiB, as sysfs names them */
#define HP_HUGE_1G 1048576ul

struct hp_huge_taken {
	pid_t owner, guardian;
	unsigned long page_kib[4];
	long added[4];
	unsigned count;
};
static struct hp_huge_taken hp_huge_taken;

static inline void hp_huge_path(char path[128], unsigned long page_kib, const char *file)
{
	snprintf(path, 128, "/sys/kernel/mm/hugepages/hugepages-%lukB/%s", page_kib, file);
}

static inline long hp_huge_read(unsigned long page_kib, const char *file)
{
	char path[128], text[32] = {0};
	hp_huge_path(path, page_kib, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return -errno;
	ssize_t got = read(fd, text, sizeof text - 1);
	int error = errno;
	close(fd);
	return got < 0 ? -error : strtol(text, NULL, 10);
}

static inline int hp_huge_write(unsigned long page_kib, long pages)
{
	char path[128], text[32];
	hp_huge_path(path, page_kib, "nr_hugepages");
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) return -errno;
	int len = snprintf(text, sizeof text, "%ld", pages);
	int result = write(fd, text, (size_t)len) == len ? 0 : -errno;
	close(fd);
	return result;
}

/* Relative, so that others who changed the setting meanwhile keep their change. */
static inline void hp_huge_lower(void)
{
	for (unsigned i = 0; i < hp_huge_taken.count; i++) {
		long now = hp_huge_read(hp_huge_taken.page_kib[i], "nr_hugepages");
		if (now > 0)
			hp_huge_write(hp_huge_taken.page_kib[i], now > hp_huge_taken.added[i] ? now - hp_huge_taken.added[i] : 0);
	}
	hp_huge_taken.count = 0;
}

static inline void hp_huge_guard(pid_t owner)
{
	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	/* Nothing inherited stays open: whoever reads our standard output must not wait for the guardian. */
	if (syscall(SYS_close_range, 0, ~0u, 0) != 0)
		for (int fd = 0; fd < 1024; fd++) close(fd);
	int pidfd = (int)syscall(SYS_pidfd_open, owner, 0);
	while (getppid() == owner) {
		struct pollfd wait_for = {pidfd, POLLIN, 0};
		poll(&wait_for, pidfd < 0 ? 0 : 1, pidfd < 0 ? 50 : -1);
	}
	hp_huge_lower();
	_exit(0);
}

/* The ordinary way out: lower at once, so that the next program finds the machine as it was. */
static inline void hp_huge_give_back(void)
{
	if (hp_huge_taken.owner != getpid()) return;
	if (hp_huge_taken.guardian > 0) {
		kill(hp_huge_taken.guardian, SIGKILL);
		waitpid(hp_huge_taken.guardian, NULL, 0);
		hp_huge_taken.guardian = 0;
	}
	hp_huge_lower();
}

/* Sees to it that `pages` huge pages of `page_kib` KiB are free. 0; -ENOENT: no such page size here; -EACCES, -EROFS:
 * the setting cannot be changed; -ENOMEM: too few to be had (the setting is as before). */
static inline int hp_huge_take(unsigned long page_kib, long pages)
{
	long total = hp_huge_read(page_kib, "nr_hugepages");
	long avail = hp_huge_read(page_kib, "free_hugepages") - hp_huge_read(page_kib, "resv_hugepages");
	if (total < 0) return (int)total;
	if (avail >= pages) return 0;
	if (hp_huge_taken.count == sizeof hp_huge_taken.added / sizeof *hp_huge_taken.added) return -ENOMEM;
	int error = hp_huge_write(page_kib, total + pages - avail);
	if (error) return error;
	long got = hp_huge_read(page_kib, "nr_hugepages") - total;
	if (got < pages - avail) {
		hp_huge_write(page_kib, total);
		return -ENOMEM;
	}
	if (hp_huge_taken.owner != getpid())
		atexit(hp_huge_give_back);
	else if (hp_huge_taken.guardian > 0) { /* it knows too little: replaced below */
		kill(hp_huge_taken.guardian, SIGKILL);
		waitpid(hp_huge_taken.guardian, NULL, 0);
	}
	hp_huge_taken.owner = getpid();
	hp_huge_taken.page_kib[hp_huge_taken.count] = page_kib;
	hp_huge_taken.added[hp_huge_taken.count++] = got;
	hp_huge_taken.guardian = fork();
	if (hp_huge_taken.guardian == 0) hp_huge_guard(hp_huge_taken.owner);
	return 0;
}

/* Why hp_huge_take failed, with the cure. */
static inline const char *hp_huge_why(unsigned long page_kib, long pages, int error)
{
	static char text[256];
	const char *reason = error == -ENOENT   ? "the kernel has no huge pages of that size"
	                     : error == -ENOMEM ? "the machine's memory is too small or too fragmented"
	                                        : "changing the machine's setting is not allowed";
	snprintf(text, sizeof text, "%ld free huge pages of %lu KiB are not to be had: %s%s", pages, page_kib, reason,
	         error == -EACCES || error == -EROFS ? " (run as root, or have nr_hugepages raised)" : "");
	return text;
}

#endif
