/* Connections, and the loop that serves them.
 *
 * A connection asks once and is answered once; then nothing more is read from it. It ends when the client has closed it, or
 * when its time is over and the answer has been read. An answer that nobody reads stays in flight with its descriptors, and
 * the kernel bounds those for all of us together; so its connection stays too, and counts. What one user can have at a
 * time is bounded, and so is the time that a client may take to ask. Every call on a socket returns at once, so that nobody
 * is waited for. A request whose asker has gone meanwhile (its time was up, say) is not carried out.
 *
 * Descriptors come in only with requests to publish that are well-formed: messages are looked at before they are received, and
 * of others the kernel drops the descriptors before they are ours. */
#include "keep/server.h"
#include "os/os.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define IDLE_NS UINT64_C(5000000000)
#define RETRY_NS UINT64_C(100000000) /* after a shortage of descriptors, or of threads */
#define LEAST_DESCRIPTORS 512u
#define OTHER_DESCRIPTORS 32u
#define ACCEPTED_AT_ONCE 16u

enum { STOP, LISTENER, EVENT, FIRST }; /* in polled */

struct connection {
	int fd;              /* -1: gone, but for its foreign descriptors */
	bool answered, deaf; /* deaf: its state is looked at now and then only */
	struct ucred peer;
	uint64_t until;
	struct foreign *foreign;
};

struct keep_server {
	struct place place;
	struct names names;
	struct connection *connection;
	struct pollfd *polled;
	unsigned connections, room, each;
	uint64_t idle_ns, accept_after;
	int event; /* a thread of foreign.c has done its work */
	gid_t *groups;
	struct keep_page page;
	hp_log_fn *log;
	void *log_arg;
};

/* ---- one connection ---- */

static void drop(struct keep_server *s, struct connection *c)
{
	if (c->fd >= 0) os_close(c->fd);
	c->fd = -1;
	if (c->foreign && !foreign_close(c->foreign)) return;
	free(c->foreign);
	*c = s->connection[--s->connections];
}

static bool waits_for_foreign(const struct keep_server *s, uid_t uid)
{
	for (unsigned i = 0; i < s->connections; i++)
		if (s->connection[i].foreign && s->connection[i].peer.uid == uid) return true;
	return false;
}

/* Receives the request for good, and the descriptors that come with it. */
static int publish(struct keep_server *s, struct connection *c, const struct asker *asker, struct keep_request *request)
{
	if (waits_for_foreign(s, c->peer.uid)) return -EBUSY;
	struct foreign *came = calloc(1, sizeof *came); /* before they come */
	if (!came) return -ENOMEM;
	int64_t got = os_recv_fds(c->fd, request, sizeof *request, came->fds, KEEP_FOREIGN, &came->count);
	int error = got < 0 ? (int)got : got != sizeof *request || came->count != 3 ? -EPROTO : 0;
	if (error == 0) error = names_publish(&s->names, asker, request, came->fds);
	if (error == 0) {
		keep_say(s->log, s->log_arg, "hugepool: pool '%s' published by user %u (process %d)", request->name,
		         c->peer.uid, c->peer.pid);
		came->count = 0;
	}
	came->event = s->event;
	if (foreign_close(came))
		free(came);
	else
		c->foreign = came;
	return error;
}

/* Descriptors of a pool, as its asker may have them. Their number, or -errno. */
static int hand_out(const struct kept *kept, enum keep_what what, int fds[3])
{
	if (what == KEEP_ATTACH) {
		memcpy(fds, kept->fds, sizeof kept->fds);
		return 3;
	}
	for (int i = 0; i < 2; i++) { /* non-blocking: who has a lease on it is not waited for */
		fds[i] = os_reopen(kept->fds[i + 1], O_RDONLY | O_NONBLOCK);
		if (fds[i] >= 0) continue;
		int error = fds[i];
		if (i) os_close(fds[0]);
		return error == -EACCES || error == -EPERM || error == -ENOENT ? -ENOTSUP : error;
	}
	return 2;
}

static bool well_formed(const struct keep_request *request)
{
	return request->magic == KEEP_MAGIC && request->version == KEEP_VERSION && request->what >= KEEP_PUBLISH &&
	       request->what <= KEEP_LIST && request->reserved == 0 &&
	       (request->what == KEEP_LIST || keep_name_ok(request->name, sizeof request->name)) &&
	       memchr(request->name, 0, sizeof request->name);
}

/* False: it could not be answered. */
static bool answer(struct keep_server *s, struct connection *c, int64_t length, struct keep_request *request)
{
	struct keep_answer *a = &s->page.answer;
	struct asker asker = {.peer = c->peer, .socket = c->fd, .groups = s->groups};
	int fds[3], count = 0, error = -EPROTO;
	const struct kept *kept;
	memset(a, 0, sizeof *a);
	if (length == sizeof *request && well_formed(request)) {
		switch (request->what) {
		case KEEP_PUBLISH: error = publish(s, c, &asker, request); break;
		case KEEP_ATTACH:
		case KEEP_OBSERVE:
			if (!(kept = names_find(&s->names, &asker, request, &error))) break;
			a->id[0] = kept->id[0];
			a->id[1] = kept->id[1];
			a->owner = kept->entry.owner;
			count = hand_out(kept, request->what, fds);
			if (count < 0) error = count;
			break;
		case KEEP_UNLINK:
			error = names_unlink(&s->names, &asker, request);
			if (error == 0)
				keep_say(s->log, s->log_arg, "hugepool: pool '%s' unlinked by user %u (process %d)", request->name,
				         c->peer.uid, c->peer.pid);
			break;
		case KEEP_LIST:
			a->entries = names_list(&s->names, request->name, s->page.entry);
			error = 0;
			break;
		}
	}
	a->magic = KEEP_MAGIC;
	a->version = KEEP_VERSION;
	a->status = error;
	size_t bytes = sizeof *a + a->entries * sizeof s->page.entry[0];
	int64_t sent = os_send_fds(c->fd, a, bytes, fds, count > 0 ? (unsigned)count : 0);
	if (sent == -ETOOMANYREFS) { /* of all that we have in flight: this one is told so without any */
		a->status = -EBUSY;
		sent = os_send_fds(c->fd, a, sizeof *a, NULL, 0);
	}
	if (request->what == KEEP_OBSERVE)
		for (int i = 0; i < count; i++) os_close(fds[i]);
	return c->answered = sent > 0;
}

/* What has happened on a connection. `c` may be another one afterwards. */
static void serve(struct keep_server *s, struct connection *c, int events, uint64_t now)
{
	bool gone = events & (POLLHUP | POLLERR | POLLNVAL);
	if (events & POLLIN && !gone && !c->answered) {
		struct keep_request request = {0};
		int64_t length = os_recv(c->fd, &request, sizeof request, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
		if (length == -EAGAIN) return;
		gone = length <= 0 || !answer(s, c, length, &request);
		c->until = now + s->idle_ns;
	}
	if (c->fd >= 0 && !gone && now < c->until) return;
	if (c->fd < 0 || !c->answered || os_unread(c->fd) <= 0) {
		drop(s, c);
	} else { /* gone without reading would be possible, too: shutdown(2) leaves the queue as it is */
		c->deaf = gone;
		c->until = now + s->idle_ns;
	}
}

/* ---- all of them ---- */

static void welcome(struct keep_server *s, int fd, uint64_t now)
{
	struct connection c = {.fd = fd, .until = now + s->idle_ns};
	unsigned same = 0;
	if (os_peer(fd, &c.peer) < 0) {
		os_close(fd);
		return;
	}
	for (unsigned i = 0; i < s->connections; i++) same += s->connection[i].peer.uid == c.peer.uid;
	if (same >= s->each) {
		const struct keep_answer busy = {.magic = KEEP_MAGIC, .version = KEEP_VERSION, .status = -EBUSY};
		os_send_fds(fd, &busy, sizeof busy, NULL, 0);
		os_close(fd);
		return;
	}
	s->connection[s->connections++] = c;
}

static void accept_some(struct keep_server *s, uint64_t now)
{
	for (unsigned i = 0; i < ACCEPTED_AT_ONCE && s->connections < s->room; i++) {
		int fd = os_unix_accept(s->place.socket);
		if (fd == -EAGAIN) return;
		if (fd >= 0)
			welcome(s, fd, now);
		else if (fd != -ECONNABORTED)
			s->accept_after = now + RETRY_NS; /* it stays readable: not to be asked all the time */
	}
}

/* Fills `polled`; how long to wait. */
static uint64_t prepare(struct keep_server *s, int stop, uint64_t now)
{
	uint64_t until = UINT64_MAX;
	bool accepting = s->connections < s->room && now >= s->accept_after;
	if (!accepting && s->connections < s->room) until = s->accept_after;
	s->polled[STOP] = (struct pollfd){.fd = stop, .events = POLLIN};
	s->polled[LISTENER] = (struct pollfd){.fd = accepting ? s->place.socket : -1, .events = POLLIN};
	s->polled[EVENT] = (struct pollfd){.fd = s->event, .events = POLLIN};
	for (unsigned i = 0; i < s->connections; i++) {
		const struct connection *c = &s->connection[i];
		s->polled[FIRST + i] = (struct pollfd){.fd = c->deaf ? -1 : c->fd, .events = c->answered ? 0 : POLLIN};
		uint64_t own = c->fd >= 0 ? c->until : c->foreign->started ? UINT64_MAX : now + RETRY_NS;
		if (own < until) until = own;
	}
	return until == UINT64_MAX ? IDLE_NS : until > now ? until - now : 0;
}

int keep_server_run(struct keep_server *s, int stop)
{
	for (;;) {
		int ready = os_poll(s->polled, FIRST + s->connections, prepare(s, stop, os_now_ns()));
		if (ready == -EINTR || ready == -ENOMEM) continue; /* the kernel has no room for the list: again */
		if (ready < 0) return ready;
		if (s->polled[STOP].revents) return 0;
		uint64_t now = os_now_ns(), count;
		if (s->polled[EVENT].revents) os_read(s->event, &count, sizeof count);
		/* the last first: who is dropped is replaced by one that has been served */
		for (unsigned i = s->connections; i-- > 0;) serve(s, &s->connection[i], s->polled[FIRST + i].revents, now);
		if (s->polled[LISTENER].revents) accept_some(s, now);
	}
}

/* ---- beginning and end ---- */

static void server_free(struct keep_server *s)
{
	if (s->event >= 0) os_close(s->event);
	free(s->names.kept);
	free(s->connection);
	free(s->polled);
	free(s->groups);
	free(s);
}

static const char *cure(int error)
{
	switch (error) {
	case -EADDRINUSE: return "a keeper runs there already";
	case -ENOTSOCK: return "that is something else than a socket; it stays";
	case -ENAMETOOLONG: return "the path is too long";
	case -ENOENT: return "the folder is not there";
	case -EMFILE: return "fewer than 512 descriptors are allowed: raise `ulimit -n`";
	default: return strerror(-error);
	}
}

int keep_server_open(const struct keep_server_options *o, struct keep_server **out)
{
	*out = NULL;
	struct keep_server *s = calloc(1, sizeof *s);
	if (!s) return -ENOMEM;
	s->log = o->log;
	s->log_arg = o->log_arg;
	s->idle_ns = o->idle_ns ? o->idle_ns : IDLE_NS;
	uint64_t limit = os_raise_descriptors();
	s->room = limit / 4 < 512 ? (unsigned)(limit / 4) : 512;
	s->each = s->room / 8;
	uint64_t pools = limit < LEAST_DESCRIPTORS ? 0 : (limit - s->room - KEEP_FOREIGN - OTHER_DESCRIPTORS) / 3;
	s->names.room = pools < 1024 ? (unsigned)pools : 1024;
	s->names.kept = calloc(s->names.room + 1, sizeof *s->names.kept);
	s->connection = calloc(s->room + 1, sizeof *s->connection);
	s->polled = calloc(FIRST + s->room, sizeof *s->polled);
	s->groups = calloc(KEEP_GROUPS, sizeof *s->groups);
	s->event = os_event();
	int error = keep_path(o->socket, s->place.path);
	if (error == 0 && (!s->names.kept || !s->connection || !s->polled || !s->groups)) error = -ENOMEM;
	if (error == 0 && s->event < 0) error = s->event;
	if (error == 0 && limit < LEAST_DESCRIPTORS) error = -EMFILE;
	if (error == 0) error = place_take(&s->place);
	if (error < 0) {
		keep_say(o->log, o->log_arg, "hugepool: no keeper at %s: %s", s->place.path, cure(error));
		server_free(s);
		return error;
	}
	*out = s;
	return 0;
}

const char *keep_server_path(const struct keep_server *s)
{
	return s->place.path;
}

void keep_server_close(struct keep_server *s)
{
	if (!s) return;
	place_leave(&s->place);
	names_end(&s->names);
	bool waits = false;
	while (s->connections) {
		unsigned before = s->connections;
		drop(s, &s->connection[before - 1]);
		if (s->connections < before) continue;
		waits = true; /* for what may never come: that thread ends with the process, and so does its memory */
		s->connections--;
	}
	if (!waits) server_free(s);
}
