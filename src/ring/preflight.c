/* What the kernel lets us have, found by doing, and the one message when it is less.
 *
 * Required is what Linux 5.19 has: tables of files with free places, rings of provided buffers. Beyond that a flag that the
 * kernel does not know is left out, and zero-copy sends are ordinary ones. Memory that cannot be registered is no reason to do
 * without the kernel's ring: it is used by address. */
#include "os/host.h"
#include "parity/layout.h"
#include "ring/ring.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CLONE_KERNEL "6.12"

__attribute__((format(printf, 2, 3))) static void say(char text[192], const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(text, 192, format, args);
	va_end(args);
}

static const char *error_text(int error)
{
	const char *text = strerrordesc_np(-error);
	return text ? text : "unknown error";
}

static int explain(hp_ring *ring, int error, const char *what)
{
	struct hp_ring_report *report = &ring->report;
	char value[16] = "";
	report->error = error;
	if (error == -EPERM) {
		os_read_file("/proc/sys/kernel/io_uring_disabled", value, sizeof value);
		if (value[0] == '1' || value[0] == '2') {
			say(report->cause, "io_uring is switched off (kernel.io_uring_disabled = %c): plain system calls instead",
			    value[0]);
			say(report->cure, "sudo sysctl kernel.io_uring_disabled=0");
		} else {
			say(report->cause,
			    "io_uring is forbidden to this process, as container profiles do: plain system calls instead");
			say(report->cure, "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile "
			                  "(docker: --security-opt seccomp=FILE)");
		}
	} else if (error == -ENOSYS) {
		say(report->cause, "%s: plain system calls instead", what);
		say(report->cure, "Linux 5.19 or newer, with CONFIG_IO_URING");
	} else {
		say(report->cause, "%s: %s: plain system calls instead", what, error_text(error));
		say(report->cure,
		    error == -ENOMEM   ? "more memory (cgroup), or ulimit -l unlimited on kernels before 5.12"
		    : error == -EMFILE ? "ulimit -n %u"
		                       : "Linux 5.19 or newer",
		    65536u);
	}
	return error;
}

void ring_explain_memory(hp_ring *ring, int error)
{
	struct hp_ring_report *report = &ring->report;
	char limit[32];
	report->error = error;
	if (report->memlock_limit == UINT64_MAX)
		snprintf(limit, sizeof limit, "none");
	else
		snprintf(limit, sizeof limit, "%llu KiB", (unsigned long long)report->memlock_limit / 1024);
	say(report->cause,
	    "%llu of %llu bytes are registered with io_uring (%s; RLIMIT_MEMLOCK: needed %llu KiB, is %s): the rest is used by "
	    "address",
	    (unsigned long long)report->registered, (unsigned long long)report->committed, error_text(error),
	    (unsigned long long)report->memlock_needed / 1024, limit);
	say(report->cure, "ulimit -l %llu (systemd: LimitMEMLOCK=, docker: --ulimit memlock=-1), or CAP_IPC_LOCK",
	    (unsigned long long)report->memlock_needed / 1024);
}

static int setup(const struct hp_ring_options *options, struct io_uring_params *params)
{
	const unsigned least = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
	const unsigned usual = least | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
	const unsigned alone = least | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
	                       IORING_SETUP_TASKRUN_FLAG;
	const unsigned tries[] = {options->flags & HP_RING_ONE_THREAD ? alone : usual, usual, least};
	int fd = -EINVAL;
	for (unsigned i = 0; i < 3 && fd == -EINVAL; i++) {
		*params = (struct io_uring_params){.flags = tries[i], .cq_entries = options->requests};
		fd = os_uring_setup(options->depth, params);
	}
	return fd;
}

static bool knows(int fd, unsigned op)
{
	struct {
		struct io_uring_probe probe;
		struct io_uring_probe_op ops[64];
	} all = {0};
	if (os_uring_register(fd, IORING_REGISTER_PROBE, &all, 64) < 0) return false;
	return op <= all.probe.last_op && all.ops[op].flags & IO_URING_OP_SUPPORTED;
}

int ring_setup(hp_ring *ring, const struct hp_ring_options *options)
{
	struct io_uring_params params;
	int fd = setup(options, &params);
	if (fd < 0) return explain(ring, fd, fd == -ENOSYS ? "the kernel has no io_uring" : "io_uring_setup failed");
	int error = io_uring_queue_mmap(fd, &params, &ring->kernel);
	if (error == 0) {
		ring->kernel.features = params.features;
		error = io_uring_ring_dontfork(&ring->kernel);
	} else {
		os_close(fd);
		ring->kernel.ring_fd = -1;
		return explain(ring, error, "the ring could not be mapped");
	}
	const char *what = "the ring could not be kept from forked children";
	if (error == 0) {
		/* a place more than was asked for: for the pins' life */
		struct io_uring_rsrc_register files = {.nr = ring->file_count + 1, .flags = IORING_RSRC_REGISTER_SPARSE};
		error = os_uring_register(fd, IORING_REGISTER_FILES2, &files, sizeof files);
		what = "files could not be registered with io_uring";
	}
	const unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_RW_CUR_POS |
	                        IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP | IORING_FEAT_LINKED_FILE;
	if (error == -EINVAL || (error == 0 && (params.features & needed) != needed)) {
		error = -ENOSYS;
		what = "the kernel's io_uring is too old";
	}
	if (error < 0) {
		io_uring_queue_exit(&ring->kernel);
		ring->kernel.ring_fd = -1;
		return explain(ring, error, what);
	}
	ring->enter_fd = fd;
	ring->zero_copy = knows(fd, IORING_OP_SEND_ZC); /* 6.0, as is the multishot receive */
	/* requests go to the kernel in the order in which their entries are filled */
	for (unsigned i = 0; i < ring->kernel.sq.ring_entries; i++) ring->kernel.sq.array[i] = i;
	return 0;
}
