/* Clients of the keeper that send rubbish, flood it, or never ask, and keepers that stand still or are none. Would catch a
 * client that makes the keeper wait, leak or end, and a call that waits for ever, leaks, or believes a stranger. */
#include "hp_keep.h"

#include <sys/resource.h>

/* ---- hostile clients ---- */

static void rubbish(void **state)
{
	(void)state;
	uint64_t seed = hp_seed("keep");
	const struct keep_request good = {KEEP_MAGIC, KEEP_VERSION, KEEP_ATTACH, 0, 0, "it"};
	struct keep_request r;
	static unsigned char bytes[100000];
	int fds[3];
	hp_pool_fds(pool, fds);
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	keeper_settles(3);
	assert_int_equal(said_to_keeper(&good, sizeof good, NULL, 0), 0);
	/* sizes */
	for (size_t size = 1; size < 200; size++) {
		memset(bytes, 0, sizeof bytes);
		memcpy(bytes, &good, sizeof good);
		assert_int_equal(said_to_keeper(bytes, size, fds, size % 4), size == sizeof good ? 0 : -EPROTO);
	}
	assert_int_equal(said_to_keeper(bytes, sizeof bytes, fds, 3), -EPROTO);
	int socket = connected();
	assert_int_equal(send(socket, "", 0, 0), 0); /* a message of no bytes, which reads like an end */
	assert_int_equal(status_of(socket, NULL, 0, NULL, 0), 1);
	close(socket);
	/* every field */
#define WRONG(error, change) \
	do { \
		r = good; \
		change; \
		assert_int_equal(said_to_keeper(&r, sizeof r, NULL, 0), error); \
	} while (0)
	WRONG(-EPROTO, r.magic++);
	WRONG(-EPROTO, r.version++);
	WRONG(-EPROTO, r.reserved = 1);
	WRONG(-EPROTO, r.what = 0);
	WRONG(-EPROTO, r.what = KEEP_LIST + 1);
	WRONG(-EPROTO, r.what = UINT32_MAX);
	WRONG(-EPROTO, memset(r.name, 'x', sizeof r.name));
	WRONG(-EPROTO, r.what = KEEP_LIST; memset(r.name, 'x', sizeof r.name));
	WRONG(-EPROTO, r.name[0] = 0);
	WRONG(-EPROTO, r.name[1] = '/');
	WRONG(-EPROTO, r.name[1] = '\n');
	WRONG(-ENOENT, r.name[1] = 'x');
	WRONG(-EPROTO, r.what = KEEP_PUBLISH; r.name[0] = 'x'); /* without descriptors */
	for (int i = 0; i < (HP_TEST_SANITIZER ? 200 : 2000); i++) {
		r = good;
		for (uint64_t n = hp_below(&seed, 4) + 1; n; n--)
			((unsigned char *)&r)[hp_below(&seed, sizeof r)] ^= (unsigned char)(1u << hp_below(&seed, 8));
		int status = said_to_keeper(&r, sizeof r, fds, (unsigned)hp_below(&seed, 4));
		if (status == 0 && r.what == KEEP_PUBLISH) hp_pool_unlink(r.name, NULL);
		if (status == 0 && r.what == KEEP_UNLINK) hp_pool_publish(pool, "it", 0600, NULL);
		for (unsigned k = 0; k < 2 * sizeof r; k++) bytes[k] = (unsigned char)hp_random(&seed);
		assert_int_equal(said_to_keeper(bytes, 1 + hp_below(&seed, 2 * sizeof r), NULL, 0), -EPROTO);
	}
	keeper_settles(3);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

static void wrong_descriptors(void **state)
{
	(void)state;
	hp_pool *other = hp_plain_pool(MIB, 0);
	int a[3], b[3], pipes[2], many[16];
	hp_pool_fds(pool, a);
	hp_pool_fds(other, b);
	must_be(pipe(pipes), 0);
	struct keep_request r = {KEEP_MAGIC, KEEP_VERSION, KEEP_PUBLISH, 0600, 0, "it"};
	for (unsigned count = 0; count <= 16; count++) {
		for (unsigned i = 0; i < count; i++) many[i] = a[i % 3];
		if (count != 3) assert_int_equal(said_to_keeper(&r, sizeof r, many, count), -EPROTO);
	}
	int unsealed = memfd_create("hp-keep-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int passing = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	const int wrong[] = {pipes[0], pipes[1], unsealed, file, passing, b[0], b[1], b[2]};
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		for (int place = 0; place < 3; place++) {
			int fds[3] = {a[0], a[1], a[2]};
			fds[place] = wrong[i];
			int status; /* busy: what was sent before is being closed by a thread */
			while ((status = said_to_keeper(&r, sizeof r, fds, 3)) == -EBUSY) sched_yield();
			assert_true(status == -EINVAL || status == -EBADMSG || status == -ENODATA || status == -EBADF);
		}
	}
	const int orders[][3] = {{a[0], a[2], a[1]}, {a[1], a[0], a[2]}, {a[2], a[1], a[0]}, {a[1], a[1], a[2]}};
	for (unsigned i = 0; i < 4; i++) {
		int status;
		while ((status = said_to_keeper(&r, sizeof r, orders[i], 3)) == -EBUSY) sched_yield();
		assert_true(status < 0);
	}
	r.mode = 0700;
	assert_int_equal(said_to_keeper(&r, sizeof r, a, 3), -EINVAL);
	r.mode = 0600;
	keeper_settles(0);
	assert_int_equal(said_to_keeper(&r, sizeof r, a, 3), 0);
	assert_int_equal(said_to_keeper(&r, sizeof r, a, 3), -EEXIST);
	keeper_settles(3);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	for (int i = 0; i < 2; i++) close(pipes[i]);
	close(unsealed);
	close(file);
	close(passing);
	hp_pool_detach(other);
	keeper_settles(0);
}

/* Who opens a file that somebody has a lease on waits for that one, for 45 seconds: neither the keeper nor who attaches. */
static void a_lease_on_the_files(void **state)
{
	(void)state;
	signal(SIGIO, SIG_IGN);
	struct keep_request r = {KEEP_MAGIC, KEEP_VERSION, KEEP_PUBLISH, 0600, 0, "it"};
	hp_pool *mine = hp_plain_pool(MIB, 0), *got;
	int fds[3], own[3];
	hp_pool_fds(mine, fds);
	for (int i = 0; i < 3; i++) must((own[i] = dup(fds[i])) >= 0);
	hp_pool_detach(mine);
	assert_int_equal(said_to_keeper(&r, sizeof r, own, 3), 0);
	bool possible = true;
	for (int which = 0; which < 3; which++) {
		int lease = os_reopen(own[which], O_RDWR);
		assert_true(lease >= 0);
		possible &= fcntl(lease, F_SETLEASE, F_WRLCK) == 0;
		int error = open_for("it", which > 0, &got);
		if (possible) assert_int_equal(error, -EAGAIN);
		assert_int_equal(kept_now(), 1);
		close(lease);
		assert_int_equal(open_for("it", which > 0, &got), 0);
		hp_pool_detach(got);
	}
	for (int i = 0; i < 3; i++) close(own[i]);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
	if (!possible) hp_test_skip_one("this kernel gives no leases on memfds");
}

/* Waits in who closes a foreign descriptor: in a thread of its own, or (what must not be) before the answer is sent. */
static bool closing_waits(enum os_call call, int64_t *result)
{
	(void)result;
	if (call == OS_RECV) control->asked = true;
	if (call == OS_SEND) control->asked = false;
	if (call == OS_CLOSE && control->holding && (control->asked || os_tid() != os_pid())) {
		char byte;
		while (read(control->gate[0], &byte, 1) < 0 && errno == EINTR) {}
	}
	return false;
}

/* A file whose server never answers keeps who closes it waiting; and nobody else. */
static void a_descriptor_that_cannot_be_closed(void **state)
{
	(void)state;
	must_be(pipe2(control->gate, O_CLOEXEC), 0);
	keeper_again(&(struct keeper_wish){.hook = closing_waits});
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fds[3] = {null, null, null};
	struct keep_request r = {KEEP_MAGIC, KEEP_VERSION, KEEP_PUBLISH, 0600, 0, "it"};
	control->holding = true;
	assert_int_equal(said_to_keeper(&r, sizeof r, fds, 3), -EINVAL);
	assert_int_equal(kept_now(), 0);
	for (int i = 0; i < 100; i++) /* of one user one at a time: no more threads than that */
		assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), -EBUSY);
	assert_int_equal(kept_now(), 0);
	keeper_settles(3); /* the connection is over, and they are still there */
	control->holding = false;
	must_be(write(control->gate[1], "x", 1), 1);
	keeper_settles(0);
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
	for (int i = 0; i < 2; i++) close(control->gate[i]);
	close(null);
}

/* One after another until it is enough, by another user than the test's; they stay open. */
static void flooding(const struct child *me, void *arg)
{
	(void)arg;
	become(OTHER, OTHER, 0);
	struct rlimit limit = {.rlim_cur = 4096, .rlim_max = 4096};
	setrlimit(RLIMIT_NOFILE, &limit);
	const struct keep_request list = {KEEP_MAGIC, KEEP_VERSION, KEEP_LIST, 0, 0, ""};
	int open_ones = 0, refused = 0;
	for (; refused < 200 && open_ones < 600; open_ones++) {
		int socket = os_unix_socket();
		if (socket < 0) break;
		must_be(os_unix_connect(socket, path, 10 * SECOND), 0);
		struct pollfd answer = {.fd = socket, .events = POLLIN};
		if (open_ones % 3 == 0) /* some ask, and do not read */
			for (int i = 0; i < 50 && send(socket, &list, sizeof list, MSG_DONTWAIT | MSG_NOSIGNAL) > 0; i++) {}
		if (open_ones >= 64 && poll(&answer, 1, open_ones % 3 ? 0 : 1000) == 1) refused++;
	}
	child_here(me);
}

static void one_user_floods(void **state)
{
	(void)state;
	need_root();
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	for (int turn = 0; turn < 2; turn++) {
		struct child child = child_start(flooding, NULL);
		for (int i = 0; i < 100; i++) { /* meanwhile */
			hp_pool *got;
			assert_int_equal(open_for("it", i % 2, &got), 0);
			hp_pool_detach(got);
		}
		assert_true(child_hear(&child));
		while (files_of_keeper() > idle_files + 3 + 64) sched_yield(); /* it notices who has gone, and has no more */
		for (int i = 0; i < 100; i++) assert_int_equal(kept_now(), 1);
		turn ? child_kill(&child) : child_finish(&child);
		keeper_settles(3);
	}
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

static bool goes_on_when_asked(enum os_call call, int64_t *result)
{
	(void)result;
	if (call != OS_POLL) return false;
	os_hook = NULL;
	must_be(kill(keeper.pid, SIGCONT), 0);
	return false;
}

/* As many as one user may have; then it is said, and over when one goes. */
static void too_many_of_ones_own(void **state)
{
	(void)state;
	int sockets[600], n = 0, refused = 0;
	struct rlimit before, more;
	must_be(getrlimit(RLIMIT_NOFILE, &before), 0);
	more = (struct rlimit){before.rlim_max, before.rlim_max};
	setrlimit(RLIMIT_NOFILE, &more);
	while (n < 600 && !refused) {
		sockets[n++] = connected();
		int error = n < 16 ? 0 : hp_pool_list(NULL, count_kept, &(int){0});
		assert_true(error == 0 || error == -EBUSY);
		refused = error;
	}
	assert_true(refused);
	/* the request is there before it is refused, unread */
	must_be(kill(keeper.pid, SIGSTOP), 0);
	child_await_stop(&keeper);
	os_hook = goes_on_when_asked;
	assert_int_equal(hp_pool_list(NULL, count_kept, &(int){0}), -EBUSY);
	close(sockets[--n]);
	while (hp_pool_list(NULL, count_kept, &(int){0}) == -EBUSY) sched_yield();
	while (n) close(sockets[--n]);
	setrlimit(RLIMIT_NOFILE, &before);
	keeper_settles(0);
}

static void who_never_asks_is_dropped(void **state)
{
	(void)state;
	keeper_again(&(struct keeper_wish){.idle_ns = SECOND / 50});
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	keeper_settles(3);
	const struct keep_request open_it = {KEEP_MAGIC, KEEP_VERSION, KEEP_ATTACH, 0, 0, "it"};
	int unread = connected(), shut = connected(), read_it = connected();
	assert_int_equal(send(unread, &open_it, sizeof open_it, 0), sizeof open_it);
	assert_int_equal(send(shut, &open_it, sizeof open_it, 0), sizeof open_it);
	struct pollfd answered = {.fd = shut, .events = POLLIN};
	assert_int_equal(poll(&answered, 1, -1), 1);
	assert_int_equal(shutdown(shut, SHUT_RDWR), 0);
	assert_int_equal(status_of(read_it, &open_it, sizeof open_it, NULL, 0), 0);
	assert_int_equal(status_of(read_it, NULL, 0, NULL, 0), 1); /* closed by the keeper, some time after it was read */
	for (int i = 0; i < 3; i++) {
		int silent = connected();
		assert_int_equal(status_of(silent, NULL, 0, NULL, 0), 1);
		close(silent);
	}
	/* descriptors in flight are on the keeper's account, so it keeps those in mind */
	keeper_settles(3 + 2);
	assert_int_equal(status_of(unread, NULL, 0, NULL, 0), 0);
	assert_int_equal(status_of(shut, NULL, 0, NULL, 0), 0);
	keeper_settles(3);
	close(unread);
	close(shut);
	close(read_it);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

/* ---- keepers that do not answer, or answer wrongly ---- */

static void the_keeper_stands_still(void **state)
{
	(void)state;
	hp_pool *got;
	struct hp_keep_options options = {.struct_size = sizeof options, .timeout_ns = SECOND / 50};
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	keeper_settles(3);
	must_be(kill(keeper.pid, SIGSTOP), 0);
	child_await_stop(&keeper);
	struct held before = held_now();
	assert_int_equal(hp_pool_publish(pool, "late", 0600, &options), -ETIMEDOUT);
	assert_int_equal(hp_pool_unlink("it", &options), -ETIMEDOUT);
	assert_int_equal(hp_pool_open("it", &options, &got), -ETIMEDOUT);
	assert_int_equal(hp_pool_list(&options, count_kept, NULL), -ETIMEDOUT);
	must_hold_no_more(before);
	must_be(kill(keeper.pid, SIGCONT), 0);
	assert_int_equal(kept_now(), 1); /* whose time was up has not got it later */
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

/* Answers each of `n` connections with the same bytes and descriptors; 0 bytes: closes it. */
struct false_answer {
	int listener;
	const void *bytes;
	size_t size;
	const int *fds;
	unsigned count;
};

static void answering(const struct child *me, void *arg)
{
	(void)me;
	const struct false_answer *a = arg;
	int one = accept(a->listener, NULL, NULL);
	must(one >= 0);
	char request[256];
	must(read(one, request, sizeof request) > 0);
	if (a->size) must_be(os_send_fds(one, a->bytes, a->size, a->fds, a->count), a->size);
}

static void answers_of_strangers(void **state)
{
	(void)state;
	char other[160];
	snprintf(other, sizeof other, "%s/other", folder);
	int listener = os_unix_socket(), fds[3], no_fds[4];
	hp_pool_fds(pool, fds);
	assert_int_equal(os_unix_listen(listener, other), 0);
	fcntl(listener, F_SETFL, 0);
	must_be(setenv("HUGEPOOL_KEEPER", other, 1), 0);
	for (int i = 0; i < 4; i++) no_fds[i] = listener;
	const struct keep_answer good = {KEEP_MAGIC, KEEP_VERSION, 0, {0}, 0, 0};
	struct keep_answer magic = good, version = good, above = good, below = good, more = good;
	magic.magic++;
	version.version++;
	above.status = 1;
	below.status = -5000;
	more.entries = KEEP_PAGE + 1;
	struct keep_page page = {.answer = good};
	page.answer.entries = KEEP_PAGE;
	for (unsigned i = 0; i < KEEP_PAGE; i++) strcpy(page.entry[i].name, "again and again");
	const struct {
		struct false_answer answer;
		int error, list_error;
	} cases[] = {
		{{listener, NULL, 0, NULL, 0}, -ECONNRESET, -ECONNRESET},
		{{listener, "x", 1, NULL, 0}, -EPROTO, -EPROTO},
		{{listener, "x", 1, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &magic, sizeof magic, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &version, sizeof version, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &above, sizeof above, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &below, sizeof below, fds, 3}, -EPROTO, -EPROTO},
		{{listener, &good, sizeof good, NULL, 0}, -EPROTO, 0},
		{{listener, &good, sizeof good, fds, 2}, -EPROTO, 0},
		{{listener, &good, sizeof good, no_fds, 4}, -EPROTO, -EPROTO},
		{{listener, &good, sizeof good, no_fds, 3}, -EINVAL, 0},
		{{listener, &good, sizeof good, fds, 3}, -EPROTO, 0}, /* another pool's id */
		{{listener, &more, sizeof more, NULL, 0}, -EPROTO, -EPROTO},
		{{listener, &page, sizeof page, NULL, 0}, -EPROTO, -EPROTO},
		{{listener, &page, sizeof page - 1, NULL, 0}, -EPROTO, -EPROTO},
	};
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		for (int what = 0; what < 2; what++) {
			struct child child = child_start(answering, (void *)&cases[i].answer);
			struct held before = held_now();
			hp_pool *got = NULL;
			int error = what ? hp_pool_list(NULL, count_kept, &(int){0}) : hp_pool_open("it", NULL, &got);
			int wanted = what ? cases[i].list_error : cases[i].error;
			if (error != wanted) fail_msg("case %u, call %d: %d and not %d", i, what, error, wanted);
			assert_null(got);
			must_hold_no_more(before);
			assert_int_equal(child_end(&child), 0);
		}
	}
	/* nobody takes from the queue, and it is full */
	must_be(listen(listener, 0), 0);
	int waiting[4], n = 0, error;
	do {
		waiting[n] = os_unix_socket();
		error = os_unix_connect(waiting[n++], other, SECOND / 100);
	} while (error == 0 && n < 4);
	assert_int_equal(error, -EAGAIN);
	struct hp_keep_options options = {.struct_size = sizeof options, .timeout_ns = SECOND / 50};
	assert_int_equal(hp_pool_list(&options, count_kept, NULL), -ETIMEDOUT);
	while (n) close(waiting[--n]);
	close(listener);
	unlink(other);
	/* a socket of another kind */
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	strcpy(to.sun_path, other);
	int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must_be(bind(stream, (struct sockaddr *)&to, sizeof to), 0);
	must_be(listen(stream, 1), 0);
	assert_int_equal(hp_pool_list(NULL, count_kept, NULL), -EPROTO);
	close(stream);
	unlink(other);
	must_be(setenv("HUGEPOOL_KEEPER", path, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KEEP_CASE(rubbish),
		KEEP_CASE(wrong_descriptors),
		KEEP_CASE(a_lease_on_the_files),
		KEEP_CASE(a_descriptor_that_cannot_be_closed),
		KEEP_CASE(one_user_floods),
		KEEP_CASE(too_many_of_ones_own),
		KEEP_CASE(who_never_asks_is_dropped),
		KEEP_CASE(the_keeper_stands_still),
		KEEP_CASE(answers_of_strangers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
