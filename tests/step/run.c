/* See run.h. A tracer and its tracee take turns, so one CPU serves both best. */
#include "run.h"
#include "harness.h"
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_WORKERS 4
#define LIMIT_SECONDS 240 /* for one entry; something hangs */

static struct timespec began;

static double since(const struct timespec *then)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

void run_report(const char *format, ...)
{
	char line[300];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	printf("  %s, %.2f s\n", line, since(&began));
	fflush(stdout);
}

bool run_wanted(const char *name)
{
	const char *only = getenv("HP_STEP_ONLY");
	return !only || strstr(name, only);
}

static void too_long(int signal)
{
	static const char message[] = "  FAILED: an operation does not come to an end\n";
	(void)signal;
	if (write(1, message, sizeof message - 1) < 0) _exit(4);
	_exit(3);
}

/* For mutants.sh: the first failure is enough. */
static bool impatient(void)
{
	return getenv("HP_STEP_IMPATIENT") != NULL;
}

static pid_t worker(run_one_fn *one, const void *table, unsigned index, int cpu)
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid) return pid;
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGALRM, too_long);
	alarm(step_full() ? 3600 : impatient() ? 60 : LIMIT_SECONDS);
	clock_gettime(CLOCK_MONOTONIC, &began);
	int failures = one(table, index);
	fflush(stdout);
	_exit(failures != 0);
}

int run_all(run_one_fn *one, const void *table, unsigned count)
{
	cpu_set_t set;
	int cpu[MOST_WORKERS], failed = 0, status;
	unsigned cpus = 0;
	pid_t pid[MOST_WORKERS] = {0};
	sched_getaffinity(0, sizeof set, &set);
	for (int i = 0; i < CPU_SETSIZE && cpus < MOST_WORKERS; i++)
		if (CPU_ISSET(i, &set)) cpu[cpus++] = i;
	unsigned running = 0;
	for (unsigned next = 0; next < count || running;) {
		if (failed && impatient()) next = count;
		unsigned k = 0;
		while (k < cpus && pid[k]) k++;
		if (k < cpus && next < count) {
			pid[k] = worker(one, table, next++, cpu[k]);
			if (pid[k] < 0) return -1;
			running++;
			continue;
		}
		pid_t ended = wait(&status);
		for (k = 0; k < cpus; k++) {
			if (pid[k] != ended) continue;
			pid[k] = 0;
			running--;
			if (status) {
				printf("  an entry failed (status 0x%x)\n", (unsigned)status);
				failed++;
			}
		}
	}
	return failed;
}
