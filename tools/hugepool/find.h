/* Finding a live pool to look at: in another process, among one's own descriptors, through the environment, or by the name
 * that the keeper has for it.
 *
 * The three memfds of a pool are called hugepool-lives:NAME, hugepool-control:NAME and hugepool-data:NAME, which the
 * links in /proc/PID/fd show. They are opened through those links, read-only, so nothing here can change a pool. */
#ifndef HUGEPOOL_TOOL_FIND_H
#define HUGEPOOL_TOOL_FIND_H

#include <argp.h>
#include <hugepool/hugepool.h>
#include <stdbool.h>

/* What the command line names. */
struct find_target {
	const char *text; /* PID or FD */
	bool from_env;
	const char *variable; /* of --env, NULL for the library's own */
	const char *name;     /* of --name */
};

struct find_result {
	hp_pool **pool; /* observed, to be detached */
	unsigned pools;
	char error[512]; /* why there is none, or why not all could be looked at; else empty */
};

/* --env, --name and the argument PID|FD, for show and check. */
enum { FIND_KEY_ENV = 0x100, FIND_KEY_NAME };
error_t find_option(int key, char *arg, struct argp_state *state, struct find_target *target);

/* 0 with at least one pool, or -1. */
int find_pools(const struct find_target *target, struct find_result *result);
void find_release(struct find_result *result);

#define FIND_DOC \
	"PID is a process that uses the pool; each pool it has is taken. FD is a descriptor of the pool that this command " \
	"inherited: a number from 3 that is open here and is one of a pool's three files is an FD, any other number a PID."

#endif
