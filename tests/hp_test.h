/* What tests share: skipping with a reason, huge pages, children.
 *
 * A test program that cannot run on this machine ends with status 77 and one line that says why. A single test inside
 * a program that can run is left out by hp_test_skip_one. */
#ifndef HP_TEST_H
#define HP_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hp_huge.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define HP_TEST_SANITIZER 1
#else
#define HP_TEST_SANITIZER 0
#endif

/* Ends the whole program: this machine cannot. */
__attribute__((format(printf, 1, 2), noreturn)) static inline void hp_test_skip(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("skipped: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
	exit(77);
}

/* Leaves out one cmocka test. */
#define hp_test_skip_one(...) \
	do { \
		print_message("skipped: " __VA_ARGS__); \
		print_message("\n"); \
		skip(); \
	} while (0)

/* Whether `pages` free huge pages of `page_kib` KiB (HP_HUGE_2M, HP_HUGE_1G) are there now; the machine's setting is
 * raised when it has to be, and restored however this process ends. Call before threads or pools exist. */
static inline bool hp_test_has_huge(unsigned long page_kib, long pages)
{
	return hp_huge_take(page_kib, pages) == 0;
}

/* The same, or the program is skipped. */
static inline void hp_test_need_huge(unsigned long page_kib, long pages)
{
	int error = hp_huge_take(page_kib, pages);
	if (error) hp_test_skip("%s", hp_huge_why(page_kib, pages, error));
}

/* Runs `run` in a child and waits: its exit status, or 128 + the signal that ended it. */
static inline int hp_test_child(int (*run)(void *arg), void *arg)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) _exit(run(arg));
	int status;
	if (pid < 0 || waitpid(pid, &status, 0) != pid) return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#endif
