/* Command lines: argp, made to complain in one line. cli.h has the rules.
 *
 * glibc's getopt says what is wrong with an option in one line, and argp then adds a second one ("Try ..."), which goes
 * to the parser's error stream: that stream leads nowhere here. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
	argp_err_exit_status = EXIT_USAGE;
	if (argp_parse(argp, argc, argv, 0, NULL, input) != 0) exit(EXIT_USAGE);
}

error_t cli_unknown(int key, char *arg, struct argp_state *state)
{
	if (key == ARGP_KEY_INIT) {
		FILE *nowhere = fopen("/dev/null", "we");
		if (nowhere) state->err_stream = nowhere;
		return 0;
	}
	if (key == ARGP_KEY_ARG) cli_wrong(state, "'%s' is one argument too many", arg);
	return ARGP_ERR_UNKNOWN;
}

void cli_wrong(const struct argp_state *state, const char *format, ...)
{
	char line[512];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "%s: %s\n", state->argv[0], line);
	exit(EXIT_USAGE);
}

uint64_t cli_number(const struct argp_state *state, const char *option, const char *text, uint64_t least, uint64_t most)
{
	char *end;
	errno = 0;
	uint64_t value = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || value < least || value > most) {
		if (most == UINT64_MAX)
			cli_wrong(state, "%s wants a whole number of at least %" PRIu64 ", not '%s'", option, least, text);
		cli_wrong(state, "%s wants a whole number from %" PRIu64 " to %" PRIu64 ", not '%s'", option, least, most,
		          text);
	}
	return value;
}

uint64_t cli_bytes(const struct argp_state *state, const char *option, const char *text)
{
	static const char units[] = "KMGT";
	char *end;
	errno = 0;
	uint64_t value = strtoull(text, &end, 10);
	bool good = text[0] >= '0' && text[0] <= '9' && errno == 0 && value != 0;
	if (good && *end) {
		const char *unit = strchr(units, *end & ~0x20);
		unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
		const char *rest = end + 1;
		good = unit && *unit && (!*rest || !strcasecmp(rest, "B") || !strcasecmp(rest, "iB")) &&
		       value <= UINT64_MAX >> shift;
		if (good) value <<= shift;
	}
	if (!good) cli_wrong(state, "%s wants a size such as 64M or 1G, not '%s'", option, text);
	return value;
}

hp_rung cli_rung(const struct argp_state *state, const char *option, const char *text)
{
	static const struct {
		const char *name;
		hp_rung rung;
	} rungs[] = {
		{"best", HP_RUNG_BEST}, {"1G", HP_RUNG_1G}, {"2M", HP_RUNG_2M}, {"thp", HP_RUNG_THP}, {"4K", HP_RUNG_4K}};
	for (size_t i = 0; i < sizeof(rungs) / sizeof(rungs[0]); i++)
		if (strcasecmp(text, rungs[i].name) == 0) return rungs[i].rung;
	cli_wrong(state, "%s wants 1G, 2M, thp, 4K or best, not '%s'", option, text);
}

const char *cli_size(uint64_t bytes)
{
	static const char *const names[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	static char texts[8][32];
	static unsigned turn;
	char *text = texts[turn++ % 8];
	unsigned unit = 0;
	while (unit < 4 && bytes >= (uint64_t)1 << (10 * (unit + 1))) unit++;
	double value = (double)bytes / (double)((uint64_t)1 << (10 * unit));
	if (value == (double)(uint64_t)value)
		snprintf(text, sizeof(texts[0]), "%.0f %s", value, names[unit]);
	else
		snprintf(text, sizeof(texts[0]), "%.1f %s", value, names[unit]);
	return text;
}

void cli_print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(value);
}
