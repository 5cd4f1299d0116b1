/* Threads, CPUs, nodes, time, and the means of waiting and of ordering between processes.
 *
 * Futexes are the shared kind: the words lie in memory of several processes. Topology is read from sysfs; where it is
 * hidden everything is on node 0 and nothing is pinned. */
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <os/hook.h>
#include <os/host.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int os_cpu(void)
{
	OS_ASK(OS_CPU);
	return os_result(sched_getcpu());
}

int os_node(void)
{
	int64_t answer;
	if (os_answered(OS_CPU, &answer)) return answer > 0 && answer < HOST_MAX_NODES ? answer : 0;
	unsigned cpu, node;
	if (getcpu(&cpu, &node) < 0 || node >= HOST_MAX_NODES) return 0;
	return node;
}

int os_affinity(cpu_set_t *set)
{
	OS_ASK(OS_AFFINITY_GET);
	return os_result(sched_getaffinity(0, sizeof *set, set));
}

int os_set_affinity(const cpu_set_t *set)
{
	OS_ASK(OS_AFFINITY_SET);
	return os_result(sched_setaffinity(0, sizeof *set, set));
}

static void add_cpu(void *arg, unsigned cpu)
{
	CPU_SET(cpu, (cpu_set_t *)arg);
}

int os_node_cpus(int node, cpu_set_t *set)
{
	char path[64], list[4096];
	CPU_ZERO(set);
	snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
	int64_t length = os_read_file(path, list, sizeof list);
	if (length < 0) return length;
	host_parse_list(list, add_cpu, set, CPU_SETSIZE);
	return 0;
}

int os_node_of_cpu(int cpu)
{
	if (cpu < 0 || cpu >= CPU_SETSIZE) return -1;
	uint64_t left = UINT64_MAX;
	int missing = 0;
	for (int node = 0; node < HOST_MAX_NODES && left; node++) {
		cpu_set_t set;
		left &= ~(UINT64_C(1) << node);
		if (os_node_cpus(node, &set) < 0) {
			/* Numbers may have gaps, but not many: without sysfs this must not cost 64 failed opens. */
			if (++missing > 8) break;
			continue;
		}
		if (CPU_ISSET(cpu, &set)) return node;
	}
	return -1;
}

int os_node_distance(int a, int b)
{
	char path[64], text[1024];
	if (a == b) return 10;
	if (a < 0 || b < 0) return 20;
	/* The file lists distances to the nodes that are online, in order. */
	cpu_set_t online;
	CPU_ZERO(&online);
	if (os_read_file("/sys/devices/system/node/online", text, sizeof text) < 0) return 20;
	host_parse_list(text, add_cpu, &online, CPU_SETSIZE);
	if (b >= CPU_SETSIZE || !CPU_ISSET(b, &online)) return 20;
	snprintf(path, sizeof path, "/sys/devices/system/node/node%d/distance", a);
	if (os_read_file(path, text, sizeof text) < 0) return 20;
	char *at = text;
	for (int node = 0; node <= b; node++) {
		if (!CPU_ISSET(node, &online)) continue;
		char *end;
		long distance = strtol(at, &end, 10);
		if (end == at) return 20;
		if (node == b) return distance > 0 && distance < 256 ? distance : 20;
		at = end;
	}
	return 20;
}

int os_membarrier_register(void)
{
	OS_ASK(OS_MEMBARRIER);
	return os_result(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0));
}

int os_membarrier(void)
{
	OS_ASK(OS_MEMBARRIER);
	return os_result(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0));
}

int os_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t ns)
{
	OS_ASK(OS_FUTEX_WAIT);
	struct timespec timeout = {.tv_sec = ns / 1000000000u, .tv_nsec = ns % 1000000000u};
	return os_result(syscall(SYS_futex, word, FUTEX_WAIT, value, ns == UINT64_MAX ? NULL : &timeout, NULL, 0));
}

int os_futex_wake(_Atomic uint32_t *word, int count)
{
	OS_ASK(OS_FUTEX_WAKE);
	return os_result(syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0));
}

int os_thread(void *(*run)(void *), void *arg, unsigned long *thread)
{
	OS_ASK(OS_THREAD);
	/* The application's handlers never run on threads of the library. */
	sigset_t all, old;
	pthread_t id;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int error = pthread_create(&id, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!error) *thread = id;
	return -error;
}

int os_join(unsigned long thread)
{
	return -pthread_join(thread, NULL);
}

uint64_t os_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
}

int os_tid(void)
{
	return syscall(SYS_gettid);
}

int os_pid(void)
{
	return getpid();
}

bool os_thread_exists(int pid, int tid)
{
	OS_ASK(OS_THREAD_EXISTS);
	return syscall(SYS_tgkill, pid, tid, 0) == 0 || errno != ESRCH;
}

int os_random(void *buf, size_t bytes)
{
	OS_ASK(OS_RANDOM);
	for (size_t done = 0; done < bytes;) {
		int64_t got = os_result(getrandom((char *)buf + done, bytes - done, 0));
		if (got == -EINTR) continue;
		if (got < 0) return got;
		done += got;
	}
	return 0;
}
