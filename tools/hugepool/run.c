/* hugepool run: a program whose malloc is this library's.
 *
 * Puts the malloc library in front of what LD_PRELOAD holds, says by the environment how its pool shall be, and becomes
 * the program: no process stays behind, and the exit status is the program's. What cannot work is told before that: the
 * program, or what it starts, would otherwise find out one by one. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <elf.h>
#include <fcntl.h>
#include <hugepool/backing.h>
#include "os/host.h"
#include "os/os.h"

#define LIBRARY "libhugepool_malloc.so"
#ifndef HUGEPOOL_LIBDIR
#define HUGEPOOL_LIBDIR "lib"
#endif

enum { PAGES = 256, NODE, SIZE };

static const struct argp_option options[] = {
	{"pages", PAGES, "1g|2m|thp|4k", 0, "pages that its memory stands on; by default transparent huge pages, else 4k",
     0},
	{"node", NODE, "N", 0, "NUMA node to take memory from", 0},
	{"size", SIZE, "BYTES", 0, "the most memory that malloc may hand out (K, M, G, T); default 4 times the machine's",
     0},
	{0}};

struct order {
	const char *pages;
	char node[8], size[32];
	char **program;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct order *order = state->input;
	switch (key) {
	case PAGES:
		if (strcasecmp(arg, "1g") && strcasecmp(arg, "2m") && strcasecmp(arg, "thp") && strcasecmp(arg, "4k"))
			cli_wrong(state, "--pages wants 1g, 2m, thp or 4k, not '%s'", arg);
		order->pages = arg;
		return 0;
	case NODE:
		snprintf(order->node, sizeof(order->node), "%u",
		         (unsigned)cli_number(state, "--node", arg, 0, HP_MAX_NODES - 1));
		return 0;
	case SIZE: {
		uint64_t size = cli_bytes(state, "--size", arg);
		if (size < (uint64_t)2 << 20 || size > (uint64_t)32 << 40)
			cli_wrong(state, "--size wants 2M to 32T, not '%s'", arg);
		snprintf(order->size, sizeof(order->size), "%llu", (unsigned long long)size);
		return 0;
	}
	case ARGP_KEY_ARG: /* the program: what follows is its own */
		order->program = state->argv + state->next - 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_END:
		if (!order->program) cli_wrong(state, "no program given: hugepool run [OPTION...] -- PROGRAM [ARGUMENT...]");
		return 0;
	default: return cli_unknown(key, arg, state);
	}
}

/* Beside this program, in the library folder that belongs to where it is installed, or where it was to be installed. */
static const char *find_library(char path[PATH_MAX])
{
	static const char *const places[] = {"", "../" HUGEPOOL_LIBDIR "/", "../lib/", "../lib64/"};
	char self[PATH_MAX], joined[PATH_MAX + 64];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (length > 0) {
		self[length] = 0;
		char *slash = strrchr(self, '/');
		if (slash) slash[1] = 0;
		for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
			if (places[i][0] == '/') continue;
			snprintf(joined, sizeof(joined), "%s%s" LIBRARY, self, places[i]);
			if (access(joined, R_OK) == 0 && realpath(joined, path)) return path;
		}
	}
	if (HUGEPOOL_LIBDIR[0] != '/') return NULL;
	snprintf(joined, sizeof(joined), "%s/" LIBRARY, HUGEPOOL_LIBDIR);
	return access(joined, R_OK) == 0 && realpath(joined, path) ? path : NULL;
}

/* Where execvp will find it; false where it will not, which execvp then says better. */
static int open_program(const char *name)
{
	if (strchr(name, '/')) return open(name, O_RDONLY | O_CLOEXEC);
	const char *path = getenv("PATH");
	char file[PATH_MAX];
	for (path = path ? path : "/bin:/usr/bin"; *path; path += *path == ':') {
		int length = (int)strcspn(path, ":");
		snprintf(file, sizeof(file), "%.*s%s%s", length, path, length ? "/" : "", name);
		path += length;
		if (access(file, X_OK) == 0) return open(file, O_RDONLY | O_CLOEXEC);
	}
	return -1;
}

/* Programs that never load a library, or not for us, would silently run with their own malloc. */
static void warn_of(const char *title, const char *name)
{
	int fd = open_program(name);
	if (fd < 0) return;
	struct stat st;
	Elf64_Ehdr elf;
	if (fstat(fd, &st) == 0 && st.st_mode & (S_ISUID | S_ISGID) && geteuid() != 0)
		fprintf(stderr, "%s: %s runs with other rights, so the system ignores LD_PRELOAD: it keeps its own malloc\n",
		        title, name);
	if (pread(fd, &elf, sizeof(elf), 0) == (ssize_t)sizeof(elf) && !memcmp(elf.e_ident, ELFMAG, SELFMAG) &&
	    elf.e_ident[EI_CLASS] == ELFCLASS64) {
		bool interpreted = false;
		for (unsigned i = 0; i < elf.e_phnum; i++) {
			Elf64_Phdr part;
			if (pread(fd, &part, sizeof(part), (off_t)(elf.e_phoff + i * sizeof(part))) != (ssize_t)sizeof(part)) break;
			interpreted |= part.p_type == PT_INTERP;
		}
		if (!interpreted)
			fprintf(stderr, "%s: %s is linked statically and keeps its own malloc; link it with libhugepool instead\n",
			        title, name);
	}
	close(fd);
}

/* Hugetlb pages must be there beforehand. */
static bool pages_there(const char *title, const char *pages)
{
	uint64_t size = !strcasecmp(pages, "1g") ? (uint64_t)1 << 30 : !strcasecmp(pages, "2m") ? (uint64_t)2 << 20 : 0;
	struct host_pages there;
	if (!size) return true;
	int error = host_pages(size, &there);
	if (error == 0 && (there.free == HOST_UNKNOWN || there.free > 0)) return true;
	if (error)
		fprintf(stderr, "%s: this machine has no huge pages of %s; take --pages thp\n", title, cli_size(size));
	else
		fprintf(
			stderr,
			"%s: no huge page of %s is free; cure: echo %llu > /sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages\n",
			title, cli_size(size), (unsigned long long)(there.total + (size >> 30 ? 1 : 64)),
			(unsigned long long)(size >> 10));
	return false;
}

static bool node_there(const char *title, const char *node)
{
	char list[64 * 4] = "";
	size_t length = 0;
	uint64_t nodes = os_nodes_with_memory();
	if (!node[0] || nodes >> atoi(node) & 1) return true;
	for (unsigned i = 0; i < HP_MAX_NODES; i++)
		if (nodes >> i & 1)
			length += (size_t)snprintf(list + length, sizeof(list) - length, "%s%u", length ? ", " : "", i);
	fprintf(stderr, "%s: node %s is not there or has no memory for this process; nodes that have: %s\n", title, node,
	        list);
	return false;
}

static bool put(const char *title, const char *variable, const char *value)
{
	if (!value[0] || setenv(variable, value, 1) == 0) return true;
	fprintf(stderr, "%s: %s cannot be set: %s\n", title, variable, strerror(errno));
	return false;
}

int run_main(int argc, char **argv)
{
	static const struct argp argp = {
		options,
		parse,
		"-- PROGRAM [ARGUMENT...]",
		"Runs a program with malloc from hugepool: transparent huge pages, and no libc heap.\v"
		"The exit status is the program's; 2: wrong usage, 3: the library or the pages are not there, 126 and 127: the "
		"program could not be started. What it starts inherits the malloc.",
		NULL,
		NULL,
		NULL};
	struct order order = {.pages = ""};
	char path[PATH_MAX];
	const char *title = argv[0];
	/* the program's options are not ours, also where "--" is left out */
	argp_err_exit_status = EXIT_USAGE;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &order) != 0) return EXIT_USAGE;
	if (!find_library(path)) {
		fprintf(stderr,
		        "%s: " LIBRARY " is neither beside this program nor in %s; build it (it is not built with a "
		        "sanitizer), or install both with cmake --install\n",
		        title, HUGEPOOL_LIBDIR);
		return EXIT_BLIND;
	}
	if (strpbrk(path, " :")) {
		fprintf(stderr, "%s: %s has a space or a colon in it, which LD_PRELOAD takes for an end; move it\n", title,
		        path);
		return EXIT_BLIND;
	}
	if (!pages_there(title, order.pages) || !node_there(title, order.node)) return EXIT_BLIND;
	const char *before = getenv("LD_PRELOAD");
	char *preload = NULL;
	if (asprintf(&preload, "%s%s%s", path, before && *before ? ":" : "", before ? before : "") < 0) return EXIT_BLIND;
	if (!put(title, "LD_PRELOAD", preload) || !put(title, "HUGEPOOL_PAGES", order.pages) ||
	    !put(title, "HUGEPOOL_NODE", order.node) || !put(title, "HUGEPOOL_SIZE", order.size))
		return EXIT_BLIND;
	warn_of(title, order.program[0]);
	execvp(order.program[0], order.program);
	int error = errno;
	fprintf(stderr, "%s: %s cannot be started: %s%s\n", title, order.program[0], strerror(error),
	        error == ENOENT ? "; give its path, or see that PATH leads to it" : "");
	return error == ENOENT ? 127 : 126;
}
