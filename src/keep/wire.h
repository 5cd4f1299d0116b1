/* What the keeper and its clients say to each other: one request and one answer a connection, each one message of fixed-width
 * fields (SOCK_SEQPACKET, so a message is whole or not there).
 *
 * One answer a connection is what bounds things: what a client has not read stays in flight, with its descriptors, at the
 * keeper's expense, and so its connection counts against its user until it reads, or closes, or ends. */
#ifndef HUGEPOOL_KEEP_WIRE_H
#define HUGEPOOL_KEEP_WIRE_H

#include "os/socket.h"
#include "pool/layout.h"
#include <hugepool/pool.h>
#include <stdbool.h>

#define KEEP_MAGIC UINT64_C(0x3170656568706568) /* "hepheep1" */
#define KEEP_VERSION 1u
#define KEEP_MODES 0666u
#define KEEP_PAGE 128u /* entries of an answer to KEEP_LIST */

enum keep_what {
	KEEP_PUBLISH = 1, /* with lives, control, data */
	KEEP_ATTACH = 2,  /* the answer has these three */
	KEEP_OBSERVE = 3, /* the answer has control and data, which cannot be written */
	KEEP_UNLINK = 4,
	KEEP_LIST = 5 /* the names behind `name` */
};

struct keep_request {
	uint64_t magic;
	uint32_t version, what;
	uint32_t mode, reserved;
	char name[POOL_NAME_MAX];
};

struct keep_answer {
	uint64_t magic;
	uint32_t version;
	int32_t status; /* 0 or -errno */
	uint64_t id[2]; /* of the pool */
	uint32_t owner, entries;
};

struct keep_entry {
	char name[POOL_NAME_MAX];
	uint32_t owner, group, mode, rung;
	uint64_t capacity, page_size;
};

struct keep_page {
	struct keep_answer answer;
	struct keep_entry entry[KEEP_PAGE]; /* fewer: there are no more */
};

_Static_assert(sizeof(struct keep_request) == 88, "no holes");
_Static_assert(sizeof(struct keep_answer) == 40, "no holes");
_Static_assert(sizeof(struct keep_entry) == 96, "no holes");

/* 1 to 63 bytes that can be printed on a line, no '/'. `name` has `room` bytes, or a 0 before. */
bool keep_name_ok(const char *name, size_t room);

/* Where the keeper is: `given`, or what environment and user say. -ENAMETOOLONG. */
int keep_path(const char *given, char path[OS_PATH_MAX]);

__attribute__((format(printf, 3, 4))) void keep_say(hp_log_fn *log, void *arg, const char *format, ...);

#endif
