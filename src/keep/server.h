/* The keeper's side. One thread does everything; nothing it is asked can make it wait. */
#ifndef HUGEPOOL_KEEP_SERVER_H
#define HUGEPOOL_KEEP_SERVER_H

#include "keep/wire.h"
#include <hugepool/pool.h>

struct keep_server;

struct keep_server_options {
	const char *socket; /* as in hp_keep_options */
	uint64_t idle_ns;   /* how long who has connected may take to ask; 0: 5 seconds */
	hp_log_fn *log;     /* what was published and unlinked, and why there is no keeper */
	void *log_arg;
};

/* Takes the socket's path, over from a dead keeper too, and listens. -EADDRINUSE: a keeper lives there; -ENOTSOCK: something
 * else is there, and stays; -EMFILE: 512 descriptors are not allowed; -ENAMETOOLONG, -EACCES, -ENOENT (the folder), -ENOMEM. */
int keep_server_open(const struct keep_server_options *options, struct keep_server **server);
const char *keep_server_path(const struct keep_server *server);

/* Serves until `stop` becomes readable: 0; or -errno when it cannot go on. */
int keep_server_run(struct keep_server *server, int stop);

/* Gives the path back, and lets go of all pools. */
void keep_server_close(struct keep_server *server);

/* ---- place.c: a path that one keeper has ---- */

struct place {
	char path[OS_PATH_MAX], lock_path[OS_PATH_MAX + 8];
	int socket, lock;
};

int place_take(struct place *place);
void place_leave(struct place *place);

/* ---- names.c: what is kept under which name, and who may have it ---- */

struct kept {
	struct keep_entry entry;
	uint64_t id[2];
	int fds[3];
};

struct names {
	struct kept *kept; /* by name */
	unsigned count, room;
};

/* Who asks. Groups are looked at only where they decide. */
struct asker {
	struct ucred peer;
	int socket;
	gid_t *groups; /* room for KEEP_GROUPS */
};

#define KEEP_GROUPS 65536u
#define KEEP_POOLS_EACH 64u /* of a user */

/* 0: the descriptors are the table's. Otherwise they are the caller's still. */
int names_publish(struct names *names, const struct asker *asker, const struct keep_request *request, const int fds[3]);
/* What may be passed on; NULL: *error. */
const struct kept *names_find(const struct names *names, const struct asker *asker, const struct keep_request *request,
                              int *error);
int names_unlink(struct names *names, const struct asker *asker, const struct keep_request *request);
/* Up to KEEP_PAGE entries behind a name. */
unsigned names_list(const struct names *names, const char *behind, struct keep_entry *entry);
void names_end(struct names *names);

/* ---- foreign.c: descriptors that are better closed by somebody else ---- */

#define KEEP_FOREIGN 253u /* SCM_MAX_FD: more do not come with one message */

struct foreign {
	int fds[KEEP_FOREIGN];
	unsigned count;
	int event; /* signalled when it is over */
	_Atomic bool over;
	bool started;
	unsigned long thread;
};

/* Closes the memfds among them, and has a thread close the rest. False: that is going on. Call again. */
bool foreign_close(struct foreign *foreign);

#endif
