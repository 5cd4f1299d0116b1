/* hugepool doctor: what this host gives a pool. Reads facts (src/os/host.h), changes nothing; every trial it makes is
 * of memory of its own and is given back. The output is made here; what is wrong is decided in diagnose.c. */
#include "doctor.h"

#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
	bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	if (key == 'j') {
		options->json = true;
		return 0;
	}
	return cli_unknown(key, arg, state);
}

static const struct argp_option options_known[] = {
	{"json", 'j', NULL, 0, "Print one JSON object", 0},
	{0},
};
static const struct argp argp = {
	options_known,
	parse,
	"",
	"Say what this host gives a pool: huge pages, NUMA nodes, limits, what the kernel permits; what is wrong, and the "
	"commands that cure it. Changes nothing."
	"\vExit status: 0, also with problems (they are in the text and in the JSON), 2 wrong usage.",
	NULL,
	NULL,
	NULL};

/* A number, null where it is not known. */
static json_t *number(uint64_t value)
{
	return value == HOST_UNKNOWN ? json_null() : json_integer((json_int_t)value);
}

/* "unlimited" where there is no limit. */
static json_t *limit_number(uint64_t value)
{
	return value == HOST_NO_LIMIT ? json_string("unlimited") : number(value);
}

static json_t *trial(int error)
{
	return json_pack("{s:b, s:i, s:s}", "works", error == 0, "error", error, "message", error ? strerror(-error) : "");
}

static json_t *limit_json(const struct host_limit *limit)
{
	if (!limit->found) return json_null();
	return json_pack("{s:o, s:o, s:s, s:s}", "limit", limit_number(limit->limit), "used", number(limit->used), "group",
	                 limit->group, "file", limit->file);
}

static json_t *page_sizes_json(const struct host *host)
{
	json_t *sizes = json_array();
	for (unsigned i = 0; i < host->sizes; i++) {
		const struct host_pages *pages = &host->pages[i];
		json_t *nodes = json_array();
		for (unsigned n = 0; n < host->nodes; n++) {
			int id = host->node[n].id;
			if (id < 0 || id >= HOST_MAX_NODES || pages->node[id].total == HOST_UNKNOWN) continue;
			json_array_append_new(nodes, json_pack("{s:i, s:o, s:o, s:o}", "node", id, "total",
			                                       number(pages->node[id].total), "free", number(pages->node[id].free),
			                                       "surplus", number(pages->node[id].surplus)));
		}
		json_array_append_new(sizes, json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "size", number(pages->size),
		                                       "total", number(pages->total), "free", number(pages->free), "reserved",
		                                       number(pages->reserved), "surplus", number(pages->surplus), "overcommit",
		                                       number(pages->overcommit), "nodes", nodes, "cgroup_limit",
		                                       limit_json(&host->hugetlb_limit[i])));
	}
	return sizes;
}

static json_t *nodes_json(const struct host *host)
{
	json_t *nodes = json_array();
	for (unsigned i = 0; i < host->nodes; i++) {
		const struct host_node *node = &host->node[i];
		json_t *distances = json_object();
		for (unsigned n = 0; n < host->nodes; n++) {
			int id = host->node[n].id;
			char key[16];
			snprintf(key, sizeof(key), "%d", id);
			if (id >= 0 && id < HOST_MAX_NODES && node->distance[id] >= 0)
				json_object_set_new(distances, key, json_integer(node->distance[id]));
		}
		json_array_append_new(nodes, json_pack("{s:i, s:s, s:o, s:o, s:o, s:b}", "node", node->id, "cpus", node->cpus,
		                                       "memory_total", number(node->memory_total), "memory_free",
		                                       number(node->memory_free), "distances", distances, "allowed",
		                                       (int)(host->nodes_allowed >> (node->id & 63) & 1)));
	}
	return nodes;
}

static json_t *as_json(const struct host *host, const struct diagnosis *diagnosis)
{
	json_t *object = json_object(), *problems = json_array();
	json_object_set_new(object, "kernel",
	                    json_pack("{s:s, s:o, s:o, s:o}", "release", host->release, "base_page",
	                              number(host->base_page), "memory_total", number(host->memory_total),
	                              "memory_available", number(host->memory_available)));
	json_object_set_new(object, "page_sizes", page_sizes_json(host));
	json_object_set_new(object, "nodes", nodes_json(host));
	json_object_set_new(object, "numa",
	                    json_pack("{s:b, s:i, s:o}", "known", host->numa_known, "nodes", (int)host->nodes, "mbind",
	                              trial(host->mbind_error)));
	json_object_set_new(object, "limits",
	                    json_pack("{s:{s:o, s:o, s:b}}", "memlock", "soft", limit_number(host->memlock_soft), "hard",
	                              limit_number(host->memlock_hard), "exempt", host->memlock_exempt));
	json_object_set_new(object, "cgroup", json_pack("{s:o}", "memory", limit_json(&host->memory_limit)));
	json_object_set_new(object, "thp",
	                    json_pack("{s:s, s:s, s:o}", "enabled", host->thp_enabled, "shmem_enabled",
	                              host->thp_shmem_enabled, "collapse", trial(host->thp_collapse_error)));
	json_t *io_uring = trial(host->io_uring_error);
	json_object_set_new(io_uring, "disabled",
	                    host->io_uring_disabled < 0 ? json_null() : json_integer(host->io_uring_disabled));
	json_object_set_new(object, "io_uring", io_uring);
	json_object_set_new(object, "memfd", trial(host->memfd_error));
	json_object_set_new(object, "membarrier", trial(host->membarrier_error));
	for (unsigned i = 0; i < diagnosis->problems; i++)
		json_array_append_new(problems, json_pack("{s:s, s:s}", "problem", diagnosis->problem[i].text, "cure",
		                                          diagnosis->problem[i].cure));
	json_object_set_new(object, "problems", problems);
	json_object_set_new(object, "best", json_string(diagnosis->best));
	return object;
}

/* A number, "?" where it is not known. */
static const char *count(uint64_t value)
{
	static char texts[8][24];
	static unsigned turn;
	char *text = texts[turn++ % 8];
	if (value == HOST_UNKNOWN) return "?";
	snprintf(text, sizeof(texts[0]), "%" PRIu64, value);
	return text;
}

static const char *amount(uint64_t bytes)
{
	return bytes == HOST_UNKNOWN ? "unknown" : bytes == HOST_NO_LIMIT ? "unlimited" : cli_size(bytes);
}

static void limit_text(const char *what, const struct host_limit *limit)
{
	if (limit->found)
		printf("  %-12s %s, used %s (%s/%s)\n", what, amount(limit->limit), amount(limit->used), limit->group,
		       limit->file);
}

static const char *worked(int error)
{
	return error ? strerror(-error) : "works";
}

static void pages_text(const struct host *host)
{
	printf("\nhuge pages\n");
	if (host->sizes == 0)
		printf("  none: the kernel has no hugetlb, or its files are hidden\n");
	else
		printf("  %-10s %-8s %8s %8s %8s %8s\n", "size", "where", "total", "free", "reserved", "surplus");
	for (unsigned i = 0; i < host->sizes; i++) {
		const struct host_pages *pages = &host->pages[i];
		printf("  %-10s %-8s %8s %8s %8s %8s\n", cli_size(pages->size), "all", count(pages->total), count(pages->free),
		       count(pages->reserved), count(pages->surplus));
		for (unsigned n = 0; n < host->nodes; n++) {
			int id = host->node[n].id;
			char where[16];
			if (id < 0 || id >= HOST_MAX_NODES || pages->node[id].total == HOST_UNKNOWN) continue;
			snprintf(where, sizeof(where), "node %d", id);
			/* the kernel counts reservations for the machine only */
			printf("  %-10s %-8s %8s %8s %8s %8s\n", "", where, count(pages->node[id].total),
			       count(pages->node[id].free), "-", count(pages->node[id].surplus));
		}
	}
	printf("  THP          enabled: %s, for shared memory: %s; collapsing shared memory: %s\n",
	       host->thp_enabled[0] ? host->thp_enabled : "unknown",
	       host->thp_shmem_enabled[0] ? host->thp_shmem_enabled : "unknown", worked(host->thp_collapse_error));
}

static void nodes_text(const struct host *host)
{
	printf("\nNUMA\n");
	for (unsigned i = 0; i < host->nodes; i++) {
		const struct host_node *node = &host->node[i];
		printf("  node %-7d CPUs %s; memory %s, free %s%s\n", node->id, node->cpus[0] ? node->cpus : "none",
		       amount(node->memory_total), amount(node->memory_free),
		       host->nodes_allowed >> (node->id & 63) & 1 ? "" : "; not allowed for this process");
	}
	if (!host->numa_known) printf("  the kernel shows no nodes: the machine counts as one\n");
	printf("  mbind        %s\n", worked(host->mbind_error));
}

static void as_text(const struct host *host, const struct diagnosis *diagnosis)
{
	printf("host\n  kernel       Linux %s, pages of %s\n  memory       %s, available %s\n", host->release,
	       cli_size(host->base_page), amount(host->memory_total), amount(host->memory_available));
	pages_text(host);
	nodes_text(host);
	printf("\nlimits\n  memlock      %s (hard: %s)%s\n", amount(host->memlock_soft), amount(host->memlock_hard),
	       host->memlock_exempt ? "; this process is exempt" : "");
	limit_text("memory", &host->memory_limit);
	for (unsigned i = 0; i < host->sizes; i++) limit_text(cli_size(host->pages[i].size), &host->hugetlb_limit[i]);
	printf("\nkernel interfaces\n  memfd        %s\n  membarrier   %s\n  io_uring     %s\n", worked(host->memfd_error),
	       worked(host->membarrier_error), worked(host->io_uring_error));
	printf("\nA pool of 64 MiB would stand on: %s\n", diagnosis->best);
	if (diagnosis->problems == 0) printf("Nothing is wrong.\n");
	for (unsigned i = 0; i < diagnosis->problems; i++) {
		printf("\n%u. %s\n", i + 1, diagnosis->problem[i].text);
		if (diagnosis->problem[i].cure[0]) printf("   cure: %s\n", diagnosis->problem[i].cure);
	}
}

int doctor_main(int argc, char **argv)
{
	struct options options = {0};
	cli_parse(&argp, argc, argv, &options);
	struct host *host = calloc(1, sizeof(*host));
	struct diagnosis *diagnosis = calloc(1, sizeof(*diagnosis));
	if (!host || !diagnosis) {
		fprintf(stderr, "hugepool doctor: no memory\n");
		return EXIT_BLIND;
	}
	host_read(host);
	diagnose(host, diagnosis);
	if (options.json)
		cli_print_json(as_json(host, diagnosis));
	else
		as_text(host, diagnosis);
	free(host);
	free(diagnosis);
	return EXIT_SUCCESS;
}
