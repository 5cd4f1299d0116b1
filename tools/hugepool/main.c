/* The hugepool command: one program, six sub-commands, each in a file of its own. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef HUGEPOOL_VERSION
#define HUGEPOOL_VERSION "unknown"
#endif

static const struct {
	const char *name, *what;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"doctor", "what this host gives a pool, what is wrong, and the commands that cure it", doctor_main},
	{"show", "the numbers of a live pool", show_main},
	{"check", "verify every invariant of a live pool", check_main},
	{"demo", "pass packets between processes through a pool, and kill one of them", demo_main},
	{"run", "run a program with malloc from hugepool", run_main},
	{"keep", "hold named pools, so that they outlive their users; make, list and unlink them", keep_main},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void help(void)
{
	printf("Usage: hugepool COMMAND [OPTION...]\n"
	       "Memory that processes share, on huge pages, with nothing lost when one of them is killed.\n\n");
	for (size_t i = 0; i < COMMANDS; i++) printf("  %-8s %s\n", commands[i].name, commands[i].what);
	printf("\n  --help     this text; hugepool COMMAND --help tells more\n"
	       "  --version  the version\n");
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;
	if (!name) {
		fprintf(stderr, "hugepool: no command given; doctor, show, check, demo, run and keep are there, and --help\n");
		return EXIT_USAGE;
	}
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "-?") == 0) {
		help();
		return EXIT_SUCCESS;
	}
	if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
		printf("hugepool %s\n", HUGEPOOL_VERSION);
		return EXIT_SUCCESS;
	}
	for (size_t i = 0; i < COMMANDS; i++) {
		if (strcmp(name, commands[i].name) != 0) continue;
		static char title[32];
		snprintf(title, sizeof(title), "hugepool %s", name);
		argv[1] = title;
		int status = commands[i].run(argc - 1, argv + 1);
		if (fflush(stdout) != 0 || ferror(stdout)) {
			fprintf(stderr, "%s: standard output could not be written\n", title);
			return EXIT_FOUND;
		}
		return status;
	}
	fprintf(stderr, "hugepool: %s '%s'; doctor, show, check, demo, run and keep are there, and --help\n",
	        name[0] == '-' ? "unknown option" : "unknown command", name);
	return EXIT_USAGE;
}
