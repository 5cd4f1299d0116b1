/* hugepool check: every invariant of a live pool, verified without disturbing it. */
#include "cli.h"
#include "find.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
	struct find_target target;
	bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	if (key == 'j') {
		options->json = true;
		return 0;
	}
	return find_option(key, arg, state, &options->target);
}

static const struct argp_option options_known[] = {
	{"env", FIND_KEY_ENV, "VAR", OPTION_ARG_OPTIONAL, "The pool that VAR (HUGEPOOL_POOL) names", 0},
	{"json", 'j', NULL, 0, "Print one JSON object", 0},
	{0},
};
static const struct argp argp = {
	options_known,
	parse,
	"PID|FD\n--env[=VAR]",
	"Verify every invariant of the pool and page layers on a live pool, and print what is wrong, one finding a line."
	"\v" FIND_DOC "\n\nExit status: 0 nothing found, 1 findings, 2 wrong usage, 3 the pool could not be looked at.",
	NULL,
	NULL,
	NULL};

struct findings {
	const char *pool;
	json_t *list; /* NULL: print */
};

static void finding(void *arg, const char *message)
{
	struct findings *findings = arg;
	if (findings->list)
		json_array_append_new(findings->list, json_string(message));
	else
		printf("%s: %s\n", findings->pool, message);
}

static int check_pool(hp_pool *pool, json_t *list)
{
	struct findings findings = {.pool = hp_pool_name(pool), .list = list ? json_array() : NULL};
	int found = hp_pool_check(pool, finding, &findings);
	if (list) {
		json_array_append_new(list, json_pack("{s:s, s:i, s:o}", "name", findings.pool, "findings",
		                                      found < 0 ? 0 : found, "messages", findings.list));
	} else if (found >= 0) {
		struct hp_pool_stats stats = {.struct_size = sizeof(stats)};
		hp_pool_stats(pool, &stats);
		printf("%s: %d finding%s; %s committed, %" PRIu64 " live block%s, %u process%s\n", findings.pool, found,
		       found == 1 ? "" : "s", cli_size(stats.committed), stats.live_blocks, stats.live_blocks == 1 ? "" : "s",
		       stats.processes, stats.processes == 1 ? "" : "es");
	}
	return found;
}

int check_main(int argc, char **argv)
{
	struct options options = {0};
	struct find_result found;
	cli_parse(&argp, argc, argv, &options);
	int status = EXIT_SUCCESS;
	find_pools(&options.target, &found);
	if (found.error[0]) {
		fprintf(stderr, "hugepool check: %s\n", found.error);
		status = EXIT_BLIND;
	}
	json_t *list = options.json ? json_array() : NULL;
	for (unsigned i = 0; i < found.pools; i++) {
		int findings = check_pool(found.pool[i], list);
		if (findings < 0) {
			fprintf(stderr, "hugepool check: %s: %s\n", hp_pool_name(found.pool[i]), strerror(-findings));
			status = EXIT_BLIND;
		} else if (findings > 0 && status == EXIT_SUCCESS) {
			status = EXIT_FOUND;
		}
	}
	if (list) cli_print_json(json_pack("{s:o}", "pools", list));
	find_release(&found);
	return status;
}
