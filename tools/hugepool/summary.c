/* What the demonstration tells at its end, for people and as JSON. */
#include "demo.h"

#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double per_second(const struct demo_result *result, uint64_t what)
{
	return result->run_ns ? (double)what * 1e9 / (double)result->run_ns : 0;
}

/* "12.3 million", "4.56 thousand" */
static const char *rate(double value)
{
	static char texts[4][32];
	static unsigned turn;
	char *text = texts[turn++ % 4];
	if (value >= 1e9)
		snprintf(text, sizeof(texts[0]), "%.2f billion", value / 1e9);
	else if (value >= 1e6)
		snprintf(text, sizeof(texts[0]), "%.2f million", value / 1e6);
	else if (value >= 1e3)
		snprintf(text, sizeof(texts[0]), "%.1f thousand", value / 1e3);
	else
		snprintf(text, sizeof(texts[0]), "%.0f", value);
	return text;
}

/* Which pages were wanted, and which there are; the whole report where the ladder was stepped down. */
static void pages_text(const struct demo_result *result)
{
	const struct hp_report *report = &result->report;
	bool fell = report->numa_error != 0;
	for (unsigned i = 0; i < report->rungs; i++) fell |= report->rung[i].tried && report->rung[i].error != 0;
	printf("pages       asked for %s of %s, got %s of %s\n", cli_size(report->bytes_asked),
	       report->rung_asked == HP_RUNG_BEST ? "the best pages there are" : hp_rung_name(report->rung_asked),
	       cli_size(report->bytes_got), report->rung_got == HP_RUNG_BEST ? "nothing" : hp_rung_name(report->rung_got));
	if (!fell) return;
	int length = hp_report_text(report, NULL, 0);
	char *text = length > 0 ? malloc((size_t)length + 1) : NULL;
	if (!text) return;
	hp_report_text(report, text, (size_t)length + 1);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) printf("            %s\n", line);
	free(text);
}

static void death_text(const struct demo *demo, const struct demo_result *result)
{
	if (result->deaths == 0) {
		if (demo->options->kill) printf("kill        nobody was killed: no frame to be killed at\n");
		return;
	}
	printf("killed      %" PRIu64 " process%s by SIGKILL", result->deaths, result->deaths == 1 ? "" : "es");
	if (demo->options->kill) printf(", at frame %" PRIu64, demo->options->kill_frame);
	printf("; %" PRIu64 " frame%s taken over by successors, %" PRIu64 " left in dead hands\n", result->taken_over,
	       result->taken_over == 1 ? " was" : "s were", result->in_dead_hands);
	if (result->swept)
		printf("swept       %" PRIu64 " buffer%s that the dead held\n", result->swept, result->swept == 1 ? "" : "s");
	printf("recovery    %.1f us for the pool, %.1f us until the successor was started%s\n",
	       (double)result->recovery_worst_ns / 1e3, (double)result->outage_ns / 1e3,
	       result->deaths > 1 ? " (the slowest)" : "");
}

void summary_text(const struct demo *demo, const struct demo_result *result)
{
	if (!result->report.bytes_asked) return;
	pages_text(result);
	if (result->interrupted || (result->error[0] && result->frames == 0 && demo->frames)) return;
	printf("frames      %" PRIu64 ", %" PRIu64 " bytes; %" PRIu64 " flows, the largest of %" PRIu64 " bytes; %" PRIu64
	       " other frames\n",
	       result->frames, result->bytes, result->flows, result->largest_flow_bytes, result->other);
	printf("speed       %s packets a second, %s bits a second, %s allocations a second (%.3f s, %u worker%s)\n",
	       rate(per_second(result, result->frames)), rate(8 * per_second(result, result->bytes)),
	       rate(per_second(result, result->allocs)), (double)result->run_ns / 1e9, demo->options->workers,
	       demo->options->workers == 1 ? "" : "s");
	if (result->got_ns + result->put_ns > 0)
		printf(
			"cost        %.1f ns a packet: a buffer got in %.1f, filled in %.1f, passed on by the reader in %.1f, put "
			"back by the sender in %.1f; a worker counts it in %.1f\n",
			result->got_ns + result->filled_ns + result->passed_ns + result->put_ns, result->got_ns, result->filled_ns,
			result->passed_ns, result->put_ns, result->counted_ns);
	death_text(demo, result);
	printf("leaked      %" PRId64 " pages\n", result->pages_leaked);
}

json_t *summary_json(const struct demo *demo, const struct demo_result *result)
{
	const struct hp_report *report = &result->report;
	json_t *object = json_object(), *rungs = json_array();
	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {
		{"frames", result->frames},
		{"bytes", result->bytes},
		{"flows", result->flows},
		{"other", result->other},
		{"largest_flow_bytes", result->largest_flow_bytes},
		{"in_dead_hands", result->in_dead_hands},
		{"taken_over", result->taken_over},
		{"swept", result->swept},
		{"deaths", result->deaths},
		{"page_size", report->page_size},
		{"bytes_asked", report->bytes_asked},
		{"bytes_got", report->bytes_got},
		{"allocations", result->allocs},
		{"workers", demo->options->workers},
		{"loop", demo->options->loop},
		{"findings", result->findings},
		{"recovered", result->recovered},
	};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		json_object_set_new(object, numbers[i].key, json_integer((json_int_t)numbers[i].value));
	json_object_set_new(object, "pages_leaked", json_integer(result->pages_leaked));
	json_object_set_new(object, "seconds", json_real((double)result->run_ns / 1e9));
	json_object_set_new(object, "packets_per_second", json_real(per_second(result, result->frames)));
	json_object_set_new(object, "bits_per_second", json_real(8 * per_second(result, result->bytes)));
	json_object_set_new(object, "allocations_per_second", json_real(per_second(result, result->allocs)));
	json_object_set_new(object, "got_ns", json_real(result->got_ns));
	json_object_set_new(object, "filled_ns", json_real(result->filled_ns));
	json_object_set_new(object, "passed_ns", json_real(result->passed_ns));
	json_object_set_new(object, "put_ns", json_real(result->put_ns));
	json_object_set_new(object, "counted_ns", json_real(result->counted_ns));
	json_object_set_new(object, "packet_ns",
	                    json_real(result->got_ns + result->filled_ns + result->passed_ns + result->put_ns));
	json_object_set_new(object, "recovery_us", json_real((double)result->recovery_worst_ns / 1e3));
	json_object_set_new(object, "outage_us", json_real((double)result->outage_ns / 1e3));
	if (demo->options->kill)
		json_object_set_new(object, "kill_frame", json_integer((json_int_t)demo->options->kill_frame));
	json_object_set_new(object, "pages",
	                    json_string(report->rung_got == HP_RUNG_BEST ? "none" : hp_rung_name(report->rung_got)));
	for (unsigned i = 0; i < report->rungs; i++) {
		const struct hp_report_rung *rung = &report->rung[i];
		if (rung->tried && rung->error)
			json_array_append_new(rungs, json_pack("{s:s, s:i, s:s, s:s}", "pages", hp_rung_name(rung->rung), "error",
			                                       rung->error, "cause", rung->cause, "cure", rung->cure));
	}
	json_object_set_new(object, "rungs_failed", rungs);
	if (result->error[0]) json_object_set_new(object, "error", json_string(result->error));
	return object;
}
