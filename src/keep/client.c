/* Asking the keeper: connect, one request, one answer, all within one time limit.
 *
 * What comes back is not trusted either: another process may listen at that path. Descriptors are those of a pool or nothing
 * (pool/attach.c sees to that), and of the pool that the answer names. */
#include "keep/wire.h"
#include "os/os.h"
#include "pool/pass.h"
#include <hugepool/keep.h>
#include <errno.h>
#include <string.h>

#define TIMEOUT_NS UINT64_C(5000000000)

struct call {
	struct hp_keep_options o;
	char path[OS_PATH_MAX];
	uint64_t until;
};

#define say(call, ...) keep_say((call)->o.log, (call)->o.log_arg, __VA_ARGS__)

static int call_begin(const struct hp_keep_options *given, const hp_pool *pool, struct call *call)
{
	struct hp_keep_options *o = &call->o;
	memset(call, 0, sizeof *call);
	size_t size = given && given->struct_size ? given->struct_size : sizeof *o;
	if (size > HP_PAGE_SIZE) return -EINVAL;
	if (given) memcpy(o, given, size < sizeof *o ? size : sizeof *o);
	for (size_t i = sizeof *o; i < size; i++) /* as hp_pool_create does */
		if (((const unsigned char *)given)[i]) return -EINVAL;
	if (!o->log && pool) {
		o->log = pool->log;
		o->log_arg = pool->log_arg;
	}
	int error = keep_path(o->socket, call->path);
	if (error < 0) say(call, "hugepool: the path of the keeper's socket has more than %zu bytes", OS_PATH_MAX - 1);
	uint64_t now = os_now_ns(), ns = o->timeout_ns ? o->timeout_ns : TIMEOUT_NS;
	call->until = now + ns < now ? UINT64_MAX : now + ns;
	return error;
}

static int request_for(const struct call *call, enum keep_what what, const char *name, struct keep_request *request)
{
	*request = (struct keep_request){.magic = KEEP_MAGIC, .version = KEEP_VERSION, .what = what};
	if (!name || !keep_name_ok(name, POOL_NAME_MAX)) {
		say(call, "hugepool: the name of a pool has 1 to %d bytes, no '/' and no control characters",
		    POOL_NAME_MAX - 1);
		return -EINVAL;
	}
	memcpy(request->name, name, strlen(name));
	return 0;
}

/* Nanoseconds that are left; 0: none. */
static uint64_t left(const struct call *call)
{
	uint64_t now = os_now_ns();
	return now < call->until ? call->until - now : 0;
}

static int reach(const struct call *call, int socket)
{
	int error;
	do {
		uint64_t ns = left(call);
		error = ns ? os_unix_connect(socket, call->path, ns) : -EAGAIN;
	} while (error == -EINTR);
	if (error == -EAGAIN) return -ETIMEDOUT;
	return error == -ENOENT ? -ECONNREFUSED : error == -EPROTOTYPE ? -EPROTO : error;
}

static int await(const struct call *call, int socket)
{
	struct pollfd answer = {.fd = socket, .events = POLLIN};
	int ready;
	do {
		ready = os_poll(&answer, 1, left(call));
	} while (ready == -EINTR);
	return ready < 0 ? ready : ready == 0 ? -ETIMEDOUT : 0;
}

/* Bytes of the answer. A keeper that refuses us at once resets what it has not read, and its answer lies behind that. */
static int64_t exchange(const struct call *call, int socket, const struct keep_request *request, const int *out,
                        void *answer, size_t room, int fds[3], unsigned *count)
{
	int64_t result = reach(call, socket);
	if (result < 0) return result;
	result = os_send_fds(socket, request, sizeof *request, out, out ? 3 : 0);
	if (result < 0 && result != -EPIPE && result != -ECONNRESET) return result == -EAGAIN ? -ETIMEDOUT : result;
	for (int reset = 0; reset < 2; reset++) {
		if ((result = await(call, socket)) < 0) return result;
		result = os_recv_fds(socket, answer, room, fds, 3, count);
		if (result != -ECONNRESET) break;
	}
	return result == 0 ? -ECONNRESET : result;
}

static void tell(const struct call *call, int error, const char *name)
{
	const char *path = call->path;
	switch (error) {
	case -ECONNREFUSED:
		say(call,
		    "hugepool: no keeper at %s: start `hugepool keep`, or have HUGEPOOL_KEEPER name the socket of one that runs",
		    path);
		break;
	case -ECONNRESET: say(call, "hugepool: the keeper at %s ended while it was asked: try again", path); break;
	case -ETIMEDOUT: say(call, "hugepool: the keeper at %s does not answer: is it stopped?", path); break;
	case -EPROTO:
		say(call,
		    "hugepool: what listens at %s is no keeper, or the keeper, or who made the pool, is of another version",
		    path);
		break;
	case -EBUSY: say(call, "hugepool: the keeper at %s has too many calls of this user: try again", path); break;
	case -ENOENT:
		say(call, "hugepool: the keeper at %s has no pool '%s': `hugepool keep --list` shows what it has", path, name);
		break;
	case -EEXIST: say(call, "hugepool: the keeper at %s has a pool '%s' already: unlink it first", path, name); break;
	case -EACCES:
		say(call,
		    "hugepool: the keeper at %s: this user may not do that with pool '%s': its owner and mode decide "
		    "(`hugepool keep --list`)",
		    path, name);
		break;
	case -ENOTSUP:
		say(call, "hugepool: the keeper at %s may not open pool '%s' for reading: only root's, or its maker's, can",
		    path, name);
		break;
	case -EDQUOT:
	case -ENOSPC: say(call, "hugepool: the keeper at %s holds as many pools as it may: unlink some", path); break;
	default: say(call, "hugepool: the keeper at %s: %s", path, strerror(-error)); break;
	}
}

/* An answer of at least `least` bytes with status 0, or the error. What is sent is never kept on failure. */
static int64_t ask(const struct call *call, const struct keep_request *request, const int *out,
                   struct keep_answer *answer, size_t room, int fds[3], unsigned *count)
{
	*count = 0;
	int socket = os_unix_socket();
	int64_t got = socket < 0 ? socket : exchange(call, socket, request, out, answer, room, fds, count);
	if (got >= 0 && (got < (int64_t)sizeof *answer || answer->magic != KEEP_MAGIC || answer->version != KEEP_VERSION ||
	                 answer->status > 0 || answer->status < -4095))
		got = -EPROTO;
	if (got >= 0 && answer->status < 0) got = answer->status;
	if (socket >= 0) os_close(socket);
	if (got < 0) {
		for (; *count; --*count) os_close(fds[*count - 1]);
		tell(call, (int)got, request->name);
	}
	return got;
}

int hp_pool_open(const char *name, const struct hp_keep_options *options, hp_pool **out)
{
	struct call call;
	struct keep_request request;
	struct keep_answer answer;
	if (!out) return -EINVAL;
	*out = NULL;
	int error = call_begin(options, NULL, &call);
	if (error == 0) error = request_for(&call, call.o.observe ? KEEP_OBSERVE : KEEP_ATTACH, name, &request);
	if (error < 0) return error;
	/* an observer gets no lives: whoever can open that can have the dead taken for living */
	int fds[4] = {-1, -1, -1, -1}, *all = call.o.observe ? fds : fds + 1;
	unsigned count;
	int64_t got = ask(&call, &request, NULL, &answer, sizeof answer, fds + 1, &count);
	if (got < 0) return (int)got;
	const struct hp_attach_options plain = {.struct_size = sizeof plain, .log = call.o.log, .log_arg = call.o.log_arg};
	if (call.o.owned && answer.owner != call.o.owner && answer.owner != 0) {
		say(&call, "hugepool: pool '%s' was published by user %u, not by %u", name, answer.owner, call.o.owner);
		error = -EPERM;
	} else if (count != (call.o.observe ? 2 : 3)) {
		error = -EPROTO;
		tell(&call, error, name);
	} else {
		error = pool_adopt(all, answer.id, call.o.attach ? call.o.attach : &plain, call.o.observe, out);
	}
	for (unsigned i = 0; i < count; i++) os_close(fds[1 + i]);
	return error;
}

int hp_pool_publish(const hp_pool *pool, const char *name, unsigned mode, const struct hp_keep_options *options)
{
	struct call call;
	struct keep_request request;
	struct keep_answer answer;
	int fds[3], none[3], error = pool_passable(pool, fds);
	if (error == 0) error = call_begin(options, pool, &call);
	if (error == 0) error = request_for(&call, KEEP_PUBLISH, name ? name : hp_pool_name(pool), &request);
	if (error < 0) return error;
	if (mode & ~KEEP_MODES) {
		say(&call, "hugepool: a mode of %#o: only bits of %#o mean anything for pools", mode, KEEP_MODES);
		return -EINVAL;
	}
	request.mode = mode;
	unsigned count;
	int64_t got = ask(&call, &request, fds, &answer, sizeof answer, none, &count);
	for (unsigned i = 0; i < count; i++) os_close(none[i]);
	return got < 0 ? (int)got : 0;
}

int hp_pool_unlink(const char *name, const struct hp_keep_options *options)
{
	struct call call;
	struct keep_request request;
	struct keep_answer answer;
	int none[3], error = call_begin(options, NULL, &call);
	if (error == 0) error = request_for(&call, KEEP_UNLINK, name, &request);
	if (error < 0) return error;
	unsigned count;
	int64_t got = ask(&call, &request, NULL, &answer, sizeof answer, none, &count);
	for (unsigned i = 0; i < count; i++) os_close(none[i]);
	return got < 0 ? (int)got : 0;
}

/* Page by page, each asked for by the last name of the one before, so that the keeper remembers nothing. */
int hp_pool_list(const struct hp_keep_options *options, hp_kept_fn *each, void *arg)
{
	struct call call;
	struct keep_page page;
	struct keep_request request = {.magic = KEEP_MAGIC, .version = KEEP_VERSION, .what = KEEP_LIST};
	int none[3], error = each ? call_begin(options, NULL, &call) : -EINVAL;
	if (error < 0) return error;
	do {
		unsigned count;
		int64_t got = ask(&call, &request, NULL, &page.answer, sizeof page, none, &count);
		for (unsigned i = 0; i < count; i++) os_close(none[i]);
		if (got < 0) return (int)got;
		bool whole = page.answer.entries <= KEEP_PAGE &&
		             (uint64_t)got == sizeof page.answer + page.answer.entries * sizeof page.entry[0];
		for (uint32_t i = 0; i < page.answer.entries && whole; i++) {
			const struct keep_entry *entry = &page.entry[i];
			whole = keep_name_ok(entry->name, sizeof entry->name) && strcmp(entry->name, request.name) > 0;
			if (!whole) break; /* a list that does not go on would never end */
			memcpy(request.name, entry->name, sizeof request.name);
			struct hp_kept kept = {.struct_size = sizeof kept,
			                       .owner = entry->owner,
			                       .group = entry->group,
			                       .mode = entry->mode,
			                       .capacity = entry->capacity,
			                       .page_size = entry->page_size,
			                       .rung = (hp_rung)entry->rung};
			memcpy(kept.name, entry->name, sizeof kept.name);
			if ((error = each(arg, &kept)) != 0) return error;
		}
		if (!whole) {
			tell(&call, -EPROTO, "");
			return -EPROTO;
		}
	} while (page.answer.entries == KEEP_PAGE);
	return 0;
}
