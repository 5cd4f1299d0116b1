/* What the sub-commands share: complaints about wrong usage, numbers on the command line, output.
 *
 * Exit status: 0 done; 1 done, and something is wrong (the command's own help says what); 2 wrong usage, with one line
 * on standard error; 3 the thing to be looked at could not be looked at. */
#ifndef HUGEPOOL_TOOL_CLI_H
#define HUGEPOOL_TOOL_CLI_H

#include <argp.h>
#include <hugepool/backing.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { EXIT_FOUND = 1, EXIT_USAGE = 2, EXIT_BLIND = 3 };

/* The commands: argv[0] is "hugepool COMMAND"; the value is the exit status. */
int doctor_main(int argc, char **argv);
int show_main(int argc, char **argv);
int check_main(int argc, char **argv);
int demo_main(int argc, char **argv);
int run_main(int argc, char **argv);
int keep_main(int argc, char **argv);

/* argp_parse that says in one line what is wrong, and then ends with EXIT_USAGE. */
void cli_parse(const struct argp *argp, int argc, char **argv, void *input);

/* For the keys that a parser does not know. */
error_t cli_unknown(int key, char *arg, struct argp_state *state);

/* One line on standard error, and the end. */
_Noreturn void cli_wrong(const struct argp_state *state, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A whole number from `least` to `most`; anything else ends the program by cli_wrong, naming `option`. */
uint64_t cli_number(const struct argp_state *state, const char *option, const char *text, uint64_t least,
                    uint64_t most);

/* Bytes, with K, M, G or T (powers of 1,024) behind the number. */
uint64_t cli_bytes(const struct argp_state *state, const char *option, const char *text);

/* 1G, 2M, thp, 4K or best, in any case. */
hp_rung cli_rung(const struct argp_state *state, const char *option, const char *text);

/* "64 MiB", "1.5 GiB", "4096 bytes". The text is one of eight buffers, taken in turn. */
const char *cli_size(uint64_t bytes);

/* Prints and drops the value. */
void cli_print_json(json_t *value);

#endif
