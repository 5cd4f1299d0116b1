/* hugepool show: the numbers of a live pool, read without its processes noticing. */
#include "cli.h"
#include "find.h"
#include "holders.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HEAP_LINES 1000u

struct options {
	struct find_target target;
	bool json, dump, holders;
	uint64_t heap;  /* 0: none */
	unsigned watch; /* seconds; 0: once */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	switch (key) {
	case 'j': options->json = true; return 0;
	case 'd': options->dump = true; return 0;
	case 'o': options->holders = true; return 0;
	case 'e': options->heap = cli_number(state, "--heap", arg, 1, UINT64_C(0xffffffffffff)); return 0;
	case 'w': options->watch = (unsigned)cli_number(state, "--watch", arg, 1, 86400); return 0;
	case ARGP_KEY_END:
		if (options->heap && options->json) cli_wrong(state, "--heap is text; it does not go with --json");
		if (options->dump && options->json) cli_wrong(state, "--dump is text; it does not go with --json");
		return find_option(key, arg, state, &options->target);
	default: return find_option(key, arg, state, &options->target);
	}
}

static const struct argp_option options_known[] = {
	{"env", FIND_KEY_ENV, "VAR", OPTION_ARG_OPTIONAL, "The pool that VAR (HUGEPOOL_POOL) names", 0},
	{"name", FIND_KEY_NAME, "NAME", 0, "The pool that the keeper has under NAME", 0},
	{"json", 'j', NULL, 0, "Print one JSON object (with --watch, one a time)", 0},
	{"dump", 'd', NULL, 0, "Everything allocated, and who takes part, too", 0},
	{"heap", 'e', "ID", 0, "The types of that shared heap, too, and its values, in 1,000 lines at most", 0},
	{"holders", 'o', NULL, 0, "Who holds what, too: blocks by caller, as HUGEPOOL_DEBUG=caller notes them", 0},
	{"watch", 'w', "SECONDS", 0, "Again and again, until the pool is gone", 0},
	{0},
};
static const struct argp argp = {
	options_known,
	parse,
	"PID|FD\n--env[=VAR]\n--name NAME",
	"Show the numbers of a live pool. It is opened read-only, and nobody who uses it notices.\v" FIND_DOC
	"\n\nExit status: 0 shown, 2 wrong usage, 3 the pool could not be looked at.",
	NULL,
	NULL,
	NULL};

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static int cache_json(void *arg, const struct hp_cache_seen *cache)
{
	json_t *object = json_object();
	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {
		{"size", cache->size},       {"in_use", cache->in_use},         {"cached", cache->cached},
		{"slabs", cache->slabs},     {"bytes", cache->bytes},           {"limit", cache->limit},
		{"fails", cache->fails},     {"waits", cache->waits},           {"waiting", cache->waiting},
		{"retries", cache->retries}, {"most_bytes", cache->most_bytes}, {"gets", cache->gets},
		{"puts", cache->puts},
	};
	json_object_set_new(object, "name", json_string(cache->name));
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		json_object_set_new(object, numbers[i].key, number(numbers[i].value));
	return json_array_append_new(arg, object);
}

static int waiter_json(void *arg, const struct hp_waiter_seen *waiter)
{
	return json_array_append_new(
		arg, json_pack("{s:s, s:i, s:i}", "cache", waiter->cache, "pid", waiter->pid, "tid", waiter->tid));
}

static int heap_json(void *arg, const struct hp_heap_seen *heap)
{
	json_t *object = json_object();
	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {
		{"id", heap->id},
		{"live", heap->live},
		{"held", heap->held},
		{"limit", heap->limit},
		{"log", heap->log},
		{"values", heap->values},
		{"slabs", heap->slabs},
		{"types", heap->types},
		{"collections", heap->collections},
		{"recoveries", heap->recoveries},
		{"pause_ns", heap->pause_ns},
		{"pause_max_ns", heap->pause_max_ns},
		{"guards", heap->guards},
	};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		json_object_set_new(object, numbers[i].key, number(numbers[i].value));
	char root[32];
	snprintf(root, sizeof(root), "0x%" PRIx64, heap->root.word);
	json_object_set_new(object, "root", json_string(root));
	json_object_set_new(object, "pending", json_boolean(heap->pending));
	json_object_set_new(object, "writer_pid", json_integer(heap->writer_pid));
	json_object_set_new(object, "blocked_pid", json_integer(heap->blocked_pid));
	return json_array_append_new(arg, object);
}

static json_t *as_json(hp_pool *pool, const struct hp_pool_stats *stats)
{
	json_t *object = json_object(), *nodes = json_array(), *caches = json_array(), *waiters = json_array();
	json_t *heaps = json_array();
	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {
		{"capacity", stats->capacity},   {"committed", stats->committed},         {"free", stats->free},
		{"largest", stats->largest},     {"live_blocks", stats->live_blocks},     {"allocs", stats->allocs},
		{"frees", stats->frees},         {"remote_frees", stats->remote_frees},   {"taken", stats->taken},
		{"recovered", stats->recovered}, {"quarantined", stats->quarantined},     {"page_size", stats->page_size},
		{"unit_size", stats->unit_size}, {"processes", stats->processes},         {"threads", stats->threads},
		{"rings", stats->rings},         {"pinned_blocks", stats->pinned_blocks}, {"pinned_bytes", stats->pinned_bytes},
	};
	json_object_set_new(object, "name", json_string(hp_pool_name(pool)));
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		json_object_set_new(object, numbers[i].key, number(numbers[i].value));
	for (unsigned i = 0; i < stats->nodes && i < HP_MAX_NODES + 1; i++)
		json_array_append_new(nodes, json_pack("{s:i, s:o, s:o}", "node", stats->node[i].node, "committed",
		                                       number(stats->node[i].committed), "free", number(stats->node[i].free)));
	json_object_set_new(object, "nodes", nodes);
	hp_pool_caches(pool, cache_json, caches);
	json_object_set_new(object, "caches", caches);
	hp_pool_waiters(pool, waiter_json, waiters);
	json_object_set_new(object, "waiters", waiters);
	json_object_set_new(object, "heap_bytes", number(stats->heap_bytes));
	hp_pool_heaps(pool, heap_json, heaps);
	json_object_set_new(object, "heaps", heaps);
	return object;
}

static int cache_text(void *arg, const struct hp_cache_seen *cache)
{
	(void)arg;
	printf("  cache %s: objects of %" PRIu64 " bytes, %" PRIu64 " in use, %" PRIu64 " cached, %" PRIu64
	       " slabs of %s in all\n",
	       cache->name, cache->size, cache->in_use, cache->cached, cache->slabs, cli_size(cache->bytes));
	if (cache->most_bytes > cache->bytes) printf("    at most it held %s\n", cli_size(cache->most_bytes));
	if (cache->limit || cache->fails || cache->waits) {
		if (cache->limit)
			printf("    limit %" PRIu64 ", ", cache->limit);
		else
			printf("    no limit, ");
		printf("%" PRIu64 " fails, %" PRIu64 " waits, %" PRIu64 " waiting, %" PRIu64 " looks repeated\n", cache->fails,
		       cache->waits, cache->waiting, cache->retries);
	}
	return 0;
}

static int waiter_text(void *arg, const struct hp_waiter_seen *waiter)
{
	(void)arg;
	printf("  process %d, thread %d, waits for an object of cache %s\n", waiter->pid, waiter->tid, waiter->cache);
	return 0;
}

static int heap_text(void *arg, const struct hp_heap_seen *heap)
{
	(void)arg;
	printf("  heap %" PRIu64 ": %" PRIu64 " values of %" PRIu64 " types, %s, in %" PRIu64 " slabs of %s in all",
	       heap->id, heap->values, heap->types, cli_size(heap->live), heap->slabs, cli_size(heap->held));
	printf("; root 0x%" PRIx64 "\n", heap->root.word & UINT64_C(0xffffffffffff));
	printf("    limit %s, undo log %s, %" PRIu64 " guards, %" PRIu64 " collections, %" PRIu64
	       " recoveries, pause %.1f us"
	       " (at most %.1f)\n",
	       cli_size(heap->limit), cli_size(heap->log), heap->guards, heap->collections, heap->recoveries,
	       (double)heap->pause_ns / 1e3, (double)heap->pause_max_ns / 1e3);
	if (heap->writer_pid > 0) printf("    process %d writes\n", heap->writer_pid);
	if (heap->writer_pid < 0) printf("    its writer has died; the next one undoes what it had begun\n");
	if (heap->pending) {
		printf("    garbage waits for readers");
		if (heap->blocked_pid) printf(", when last looked for process %d", heap->blocked_pid);
		printf("\n");
	}
	return 0;
}

static void as_text(hp_pool *pool, const struct hp_pool_stats *stats)
{
	uint64_t used = stats->committed > stats->free ? stats->committed - stats->free : 0;
	printf("pool %s\n", hp_pool_name(pool));
	printf("  stands on      pages of %s, cut in units of %s\n", cli_size(stats->page_size),
	       cli_size(stats->unit_size));
	printf("  committed      %s of a capacity of %s\n", cli_size(stats->committed), cli_size(stats->capacity));
	printf("  used           %s in %" PRIu64 " blocks\n", cli_size(used), stats->live_blocks);
	printf("  free           %s, of that in one run %s\n", cli_size(stats->free), cli_size(stats->largest));
	for (unsigned i = 0; i < stats->nodes && i < HP_MAX_NODES + 1; i++) {
		if (stats->node[i].node < 0)
			printf("  on no one node %s, free %s\n", cli_size(stats->node[i].committed), cli_size(stats->node[i].free));
		else
			printf("  on node %-3d    %s, free %s\n", stats->node[i].node, cli_size(stats->node[i].committed),
			       cli_size(stats->node[i].free));
	}
	printf("  so far         %" PRIu64 " allocated, %" PRIu64 " freed by who owned the chunk, %" PRIu64 " by others\n",
	       stats->allocs, stats->frees, stats->remote_frees);
	printf("  taking part    %u processes, %u threads; %" PRIu64 " recovered after their death\n", stats->processes,
	       stats->threads, stats->recovered);
	printf("  chunks taken   %" PRIu64 " from owners that did not use them\n", stats->taken);
	if (stats->rings)
		printf("  I/O            %" PRIu64 " rings; %s in %" PRIu64 " blocks are under I/O\n", stats->rings,
		       cli_size(stats->pinned_bytes), stats->pinned_blocks);
	if (stats->quarantined)
		printf("  QUARANTINED    %s, whose bookkeeping made no sense: see hugepool check\n",
		       cli_size(stats->quarantined));
	hp_pool_caches(pool, cache_text, NULL);
	hp_pool_waiters(pool, waiter_text, NULL);
	hp_pool_heaps(pool, heap_text, NULL);
}

static int write_out(void *arg, const char *text, size_t length)
{
	return fwrite(text, 1, length, arg) == length ? 0 : -1;
}

static int show(const struct options *options)
{
	struct find_result found;
	int status = EXIT_SUCCESS;
	bool heap_there = options->heap == 0;
	find_pools(&options->target, &found);
	if (found.error[0]) {
		fprintf(stderr, "hugepool show: %s\n", found.error);
		status = EXIT_BLIND;
	}
	json_t *list = json_array();
	for (unsigned i = 0; i < found.pools; i++) {
		struct hp_pool_stats stats = {.struct_size = sizeof(stats)};
		int error = hp_pool_stats(found.pool[i], &stats);
		if (error < 0) {
			fprintf(stderr, "hugepool show: %s: %s\n", hp_pool_name(found.pool[i]), strerror(-error));
			status = EXIT_BLIND;
			continue;
		}
		if (options->json) {
			json_t *object = as_json(found.pool[i], &stats);
			if (options->holders) json_object_set_new(object, "holders", holders_json(found.pool[i]));
			json_array_append_new(list, object);
		} else {
			as_text(found.pool[i], &stats);
			if (options->holders && (error = holders_text(found.pool[i])) < 0) {
				fprintf(stderr, "hugepool show: %s: holders: %s\n", hp_pool_name(found.pool[i]), strerror(-error));
				status = EXIT_BLIND;
			}
		}
		if (options->dump) hp_pool_dump(found.pool[i], write_out, stdout);
		if (options->heap) {
			error = hp_heap_dump(found.pool[i], options->heap, HEAP_LINES, write_out, stdout);
			if (error == 0) heap_there = true;
			if (error < 0 && error != -ESTALE) {
				fprintf(stderr, "hugepool show: %s: heap %" PRIu64 ": %s\n", hp_pool_name(found.pool[i]), options->heap,
				        strerror(-error));
				heap_there = true;
				status = EXIT_BLIND;
			}
		}
	}
	if (!heap_there && found.pools) {
		fprintf(stderr, "hugepool show: there is no heap %" PRIu64 "\n", options->heap);
		status = EXIT_BLIND;
	}
	if (options->json && found.pools) cli_print_json(json_pack("{s:O}", "pools", list));
	json_decref(list);
	find_release(&found);
	return status;
}

int show_main(int argc, char **argv)
{
	struct options options = {0};
	cli_parse(&argp, argc, argv, &options);
	int status = show(&options);
	bool shown = status == EXIT_SUCCESS;
	while (options.watch && status == EXIT_SUCCESS) {
		fflush(stdout);
		nanosleep(&(struct timespec){.tv_sec = options.watch}, NULL);
		status = show(&options);
	}
	return shown ? EXIT_SUCCESS : status;
}
