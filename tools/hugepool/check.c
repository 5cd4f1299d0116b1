/* hugepool check: every invariant of a live pool, verified without disturbing it. */
#include "cli.h"
#include "find.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
	struct find_target target;
	bool json, audit;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	if (key == 'j') {
		options->json = true;
		return 0;
	}
	if (key == 'a') {
		options->audit = true;
		return 0;
	}
	return find_option(key, arg, state, &options->target);
}

static const struct argp_option options_known[] = {
	{"env", FIND_KEY_ENV, "VAR", OPTION_ARG_OPTIONAL, "The pool that VAR (HUGEPOOL_POOL) names", 0},
	{"name", FIND_KEY_NAME, "NAME", 0, "The pool that the keeper has under NAME", 0},
	{"json", 'j', NULL, 0, "Print one JSON object", 0},
	{"audit", 'a', NULL, 0,
     "In shared heaps also what breaks no rule: words that look like references and are not declared, and values that "
     "nothing reaches",
     0},
	{0},
};
static const struct argp argp = {
	options_known,
	parse,
	"PID|FD\n--env[=VAR]\n--name NAME",
	"Verify every invariant of a live pool, its slabs and its shared heaps, and print what is wrong, one finding a line."
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

struct audit {
	hp_pool *pool;
	struct findings *findings;
	uint64_t heap;
	int found;
};

/* Only what the check of the pool has not told already. */
static void audited(void *arg, const struct hp_heap_finding *found)
{
	struct audit *audit = arg;
	char line[320];
	if (found->code != HP_HEAP_UNLISTED && found->code != HP_HEAP_UNREACHED) return;
	audit->found++;
	snprintf(line, sizeof(line), "heap %" PRIu64 ": %s", audit->heap, found->text);
	finding(audit->findings, line);
}

static int audit_heap(void *arg, const struct hp_heap_seen *heap)
{
	struct audit *audit = arg;
	audit->heap = heap->id;
	int error = hp_pool_heap_check(audit->pool, heap->id, HP_HEAP_AUDIT | HP_HEAP_LEAKS, audited, audit);
	return error < 0 && error != -ESTALE ? error : 0;
}

static int check_pool(hp_pool *pool, json_t *list, bool audited_too)
{
	struct findings findings = {.pool = hp_pool_name(pool), .list = list ? json_array() : NULL};
	struct audit audit = {.pool = pool, .findings = &findings};
	int found = hp_pool_check(pool, finding, &findings);
	int error = audited_too && found >= 0 ? hp_pool_heaps(pool, audit_heap, &audit) : 0;
	found = error < 0 ? error : found + audit.found;
	if (list) {
		json_array_append_new(list, json_pack("{s:s, s:i, s:o}", "name", findings.pool, "findings",
		                                      found < 0 ? 0 : found, "messages", findings.list));
	} else if (found >= 0) {
		struct hp_pool_stats stats = {.struct_size = sizeof(stats)};
		hp_pool_stats(pool, &stats);
		printf("%s: %d finding%s; %s committed, %" PRIu64 " live block%s, %" PRIu64 " heap%s, %u process%s\n",
		       findings.pool, found, found == 1 ? "" : "s", cli_size(stats.committed), stats.live_blocks,
		       stats.live_blocks == 1 ? "" : "s", stats.heaps, stats.heaps == 1 ? "" : "s", stats.processes,
		       stats.processes == 1 ? "" : "es");
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
		int findings = check_pool(found.pool[i], list, options.audit);
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
