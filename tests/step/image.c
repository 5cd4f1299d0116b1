/* See image.h. The memory that counts is small: data, heap, stack, and the beginning of the library's arena. */
#include "image.h"
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define RANGES 64
#define LARGE (1u << 20)        /* a mapping of more than this ... */
#define LARGE_START (64u << 10) /* ... counts with its beginning: the arena of participants */

struct step_image {
	struct iovec there[RANGES], here[RANGES];
	unsigned ranges;
	size_t bytes, room;
	char *memory;
	bool registers;
	struct user_regs_struct regs;
	unsigned char xstate[16384];
	size_t xstate_size;
};

static void list_ranges(struct step_world *w, pid_t pid, struct step_image *image)
{
	char path[64], line[512], perms[8], name[256];
	snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
	FILE *file = fopen(path, "re");
	STEP_NEED(w, file);
	image->ranges = 0;
	image->bytes = 0;
	while (fgets(line, sizeof line, file)) {
		unsigned long from, to;
		name[0] = 0;
		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &from, &to, perms, name) < 3) continue;
		if (strncmp(perms, "rw-p", 4) != 0) continue;
		size_t size = to - from;
		if (size > LARGE && name[0] != '[') size = LARGE_START;
		STEP_NEED(w, image->ranges < RANGES);
		image->there[image->ranges++] = (struct iovec){(void *)from, size};
		image->bytes += size;
	}
	fclose(file);
	if (image->bytes > image->room) {
		free(image->memory);
		STEP_NEED(w, image->memory = malloc(image->room = image->bytes));
	}
	size_t at = 0;
	for (unsigned i = 0; i < image->ranges; i++) {
		image->here[i] = (struct iovec){image->memory + at, image->there[i].iov_len};
		at += image->there[i].iov_len;
	}
}

/* It has answered, and waits for its next command, always at the same place. */
static void at_rest(struct step_world *w, pid_t pid)
{
	char path[64], line[64] = "";
	snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	STEP_NEED(w, fd >= 0);
	for (unsigned tries = 0; tries < 1000000; tries++) {
		ssize_t length = pread(fd, line, sizeof line - 1, 0);
		if (length > 2 && line[0] == '0' && line[1] == ' ') break; /* read */
		sched_yield();
	}
	STEP_NEED(w, line[0] == '0' && line[1] == ' ');
	close(fd);
}

struct step_image *image_take(struct step_world *w, int a, bool registers, struct step_image *image)
{
	pid_t pid = w->actor[a].pid;
	if (!image) {
		STEP_NEED(w, image = calloc(1, sizeof *image));
		list_ranges(w, pid, image);
	}
	if (!registers) at_rest(w, pid);
	STEP_NEED(w, process_vm_readv(pid, image->here, image->ranges, image->there, image->ranges, 0) ==
	                 (ssize_t)image->bytes);
	image->registers = registers;
	if (!registers) return image;
	image->regs = w->regs;
	struct iovec xstate = {image->xstate, sizeof image->xstate};
	STEP_NEED(w, ptrace(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &xstate) == 0);
	image->xstate_size = xstate.iov_len;
	return image;
}

void image_put(struct step_world *w, int a, const struct step_image *image)
{
	pid_t pid = w->actor[a].pid;
	if (image->registers) { /* it waits for its next command: out of that, and back into the middle of the last */
		int status;
		STEP_NEED(w, ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0);
		while (waitpid(pid, &status, __WALL) < 0) STEP_NEED(w, errno == EINTR);
		STEP_NEED(w, WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP);
	}
	if (!image->registers) at_rest(w, pid);
	STEP_NEED(w, process_vm_writev(pid, image->here, image->ranges, image->there, image->ranges, 0) ==
	                 (ssize_t)image->bytes);
	if (!image->registers) return;
	struct iovec xstate = {(void *)(uintptr_t)image->xstate, image->xstate_size};
	w->regs = image->regs;
#ifdef __x86_64__
	w->regs.orig_rax = ~0ul; /* no system call to go on with */
#endif
	struct iovec regs = {&w->regs, sizeof w->regs};
	STEP_NEED(w, ptrace(PTRACE_SETREGSET, pid, (void *)NT_PRSTATUS, &regs) == 0);
	STEP_NEED(w, ptrace(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &xstate) == 0);
}

void image_free(struct step_image *image)
{
	if (!image) return;
	free(image->memory);
	free(image);
}
