/* Passing a pool on: over sockets to processes that share nothing else, across exec, and to observers. Would catch a
 * message of the wrong shape that is believed, descriptors of a hostile message that stay open, an environment that is
 * trusted, and an observer that changes anything. */
#include "hp_process.h"

#include <os/os.h>
#include <sys/socket.h>

static hp_pool *pool;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(4 * MIB, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	must(hp_pool_recover(pool) >= 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
	return 0;
}

static void pair_of_sockets(int type, int sockets[2])
{
	must_be(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sockets), 0);
}

/* ---- to processes started before the pool was ---- */

static void receiving(const struct child *me, void *arg)
{
	int socket = *(int *)arg;
	struct held before = held_now();
	hp_pool *got;
	must_be(hp_pool_receive(socket, NULL, &got), 0);
	hp_off off[2];
	must_be(read(socket, off, sizeof off), sizeof off);
	must(hp_marked(hp_pool_pointer(got, off[0]), 2, 42));
	must_be(hp_page_free_at(got, off[0]), 0);
	must_be(hp_page_free_at(got, off[1]), -EPERM);
	void *block;
	must_be(hp_page_alloc(got, 3 * PAGE, 0, &block), 0);
	hp_mark(block, 3, 43);
	off[0] = hp_pool_offset(got, block);
	must_be(write(socket, off, sizeof off[0]), sizeof off[0]);
	child_here(me);
	must_be(hp_pool_detach(got), 0);
	struct held after = held_now(); /* memory of the process for its threads' states stays */
	must_be(after.files, before.files);
	must_be(after.maps, before.maps);
}

static void over_a_socket(void **state)
{
	(void)state;
	const int types[] = {SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM};
	for (int i = 0; i < 3; i++) {
		int sockets[2];
		pair_of_sockets(types[i], sockets);
		struct child child = child_start(receiving, &sockets[1]);
		hp_pool *mine = hp_plain_pool(2 * MIB, 0); /* the child knows nothing of it */
		struct held before = held_now();
		assert_int_equal(hp_pool_send(mine, sockets[0]), 0);
		must_hold_no_more(before);
		void *block[2];
		hp_off off[2];
		assert_int_equal(hp_page_alloc(mine, 2 * PAGE, 0, &block[0]), 0);
		assert_int_equal(hp_page_alloc(mine, PAGE, HP_PAGE_PROCESS, &block[1]), 0);
		hp_mark(block[0], 2, 42);
		off[0] = hp_pool_offset(mine, block[0]);
		off[1] = hp_pool_offset(mine, block[1]);
		assert_int_equal(write(sockets[0], off, sizeof off), sizeof off);
		assert_int_equal(read(sockets[0], off, sizeof off[0]), sizeof off[0]);
		assert_true(child_hear(&child));
		assert_true(hp_marked(hp_pool_pointer(mine, off[0]), 3, 43));
		assert_int_equal(hp_stats(mine).processes, 2);
		child_finish(&child);
		assert_int_equal(hp_page_free_at(mine, off[0]), 0);
		assert_int_equal(hp_page_free(mine, block[1]), 0);
		assert_int_equal(hp_pool_recover(mine), 0);
		hp_must_be_empty(mine);
		hp_pool_detach(mine);
		close(sockets[0]);
		close(sockets[1]);
	}
}

/* The pool lives on with whoever has it. */
static void beyond_its_creator(void **state)
{
	(void)state;
	int sockets[2];
	pair_of_sockets(SOCK_STREAM, sockets);
	hp_pool *mine = hp_plain_pool(2 * MIB, 0), *got;
	void *block;
	assert_int_equal(hp_page_alloc(mine, PAGE, 0, &block), 0);
	hp_mark(block, 1, 7);
	hp_off off = hp_pool_offset(mine, block);
	assert_int_equal(hp_pool_send(mine, sockets[0]), 0);
	assert_int_equal(hp_pool_detach(mine), 0); /* in transit nobody has it but the socket */
	assert_int_equal(hp_pool_receive(sockets[1], NULL, &got), 0);
	assert_true(hp_marked(hp_pool_pointer(got, off), 1, 7));
	assert_int_equal(hp_page_free_at(got, off), 0);
	hp_must_be_empty(got);
	assert_int_equal(hp_pool_detach(got), 0);
	close(sockets[0]);
	close(sockets[1]);
}

/* ---- hostile messages ---- */

/* What hp_pool_send sends, taken from a socket. */
static void genuine_message(unsigned char *message, size_t *size, int fds[3])
{
	int sockets[2];
	unsigned count;
	pair_of_sockets(SOCK_SEQPACKET, sockets);
	must_be(hp_pool_send(pool, sockets[0]), 0);
	int64_t got = os_recv_fds(sockets[1], message, 256, fds, 3, &count);
	must(got > 0 && count == 3);
	*size = (size_t)got;
	close(sockets[0]);
	close(sockets[1]);
}

static void receive_refuses(const void *message, size_t size, const int *fds, unsigned count, int error)
{
	const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
	for (int i = 0; i < 2; i++) {
		int sockets[2];
		pair_of_sockets(types[i], sockets);
		struct held before = held_now();
		if (size) must_be(os_send_fds(sockets[0], message, size, fds, count), (int64_t)size);
		shutdown(sockets[0], SHUT_WR);
		hp_pool *got = pool;
		int result = hp_pool_receive(sockets[1], NULL, &got);
		if (result != error) fail_msg("%zu bytes, %u descriptors: %d instead of %d", size, count, result, error);
		assert_null(got);
		must_hold_no_more(before);
		close(sockets[0]);
		close(sockets[1]);
	}
}

static void messages_of_strangers(void **state)
{
	(void)state;
	unsigned char good[256], bad[512];
	int fds[16];
	size_t size;
	genuine_message(good, &size, fds);
	receive_refuses(NULL, 0, NULL, 0, -EPIPE);
	receive_refuses("hello", 5, NULL, 0, -EPROTO);
	receive_refuses("hello", 5, fds, 3, -EPROTO);
	receive_refuses(good, size, NULL, 0, -EPROTO);
	receive_refuses(good, size, fds, 1, -EPROTO);
	receive_refuses(good, size, fds, 2, -EPROTO);
	for (int i = 3; i < 16; i++) fds[i] = fds[0];
	receive_refuses(good, size, fds, 4, -EPROTO);
	receive_refuses(good, size, fds, 16, -EPROTO);
	receive_refuses(good, size - 1, fds, 3, -EPROTO);
	memset(bad, 0, sizeof bad);
	receive_refuses(bad, size, fds, 3, -EPROTO);
	/* any bit of magic, version and identity */
	for (size_t i = 0; i < size; i++) {
		memcpy(bad, good, size);
		bad[i] ^= 0x40;
		if (i >= 12 && i < 16) continue; /* reserved */
		receive_refuses(bad, size, fds, 3, -EPROTO);
	}
	/* the right words with the wrong descriptors */
	int pipes[2], swapped[3] = {fds[1], fds[0], fds[2]}, same[3] = {fds[1], fds[1], fds[1]};
	must_be(pipe(pipes), 0);
	int mixed[3] = {fds[0], fds[1], pipes[0]};
	receive_refuses(good, size, mixed, 3, -EINVAL);
	receive_refuses(good, size, same, 3, -EINVAL);
	struct held before = held_now();
	int sockets[2];
	pair_of_sockets(SOCK_STREAM, sockets);
	must_be(os_send_fds(sockets[0], good, size, swapped, 3), (int64_t)size);
	hp_pool *got;
	assert_true(hp_pool_receive(sockets[1], NULL, &got) < 0);
	close(sockets[0]);
	close(sockets[1]);
	must_hold_no_more(before);
	for (int i = 0; i < 3; i++) close(fds[i]);
	close(pipes[0]);
	close(pipes[1]);
}

static void sockets_that_are_none(void **state)
{
	(void)state;
	hp_pool *got;
	int pipes[2];
	must_be(pipe(pipes), 0);
	assert_int_equal(hp_pool_send(pool, -1), -EBADF);
	assert_int_equal(hp_pool_send(pool, pipes[1]), -ENOTSOCK);
	assert_int_equal(hp_pool_send(NULL, pipes[1]), -EINVAL);
	assert_int_equal(hp_pool_receive(-1, NULL, &got), -EBADF);
	assert_int_equal(hp_pool_receive(pipes[0], NULL, &got), -ENOTSOCK);
	assert_int_equal(hp_pool_receive(pipes[0], NULL, NULL), -EINVAL);
	close(pipes[0]);
	close(pipes[1]);
	int sockets[2];
	pair_of_sockets(SOCK_STREAM, sockets);
	assert_int_equal(fcntl(sockets[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(hp_pool_receive(sockets[0], NULL, &got), -EAGAIN);
	close(sockets[1]);
	assert_int_equal(hp_pool_send(pool, sockets[0]), -EPIPE); /* and no signal */
	assert_int_equal(hp_pool_receive(sockets[0], NULL, &got), -EPIPE);
	close(sockets[0]);
}

/* ---- across exec ---- */

static int after_exec(char **argument)
{
	hp_pool *got;
	struct child me = {.says = atoi(argument[3]), .hears = atoi(argument[4])};
	must_be(hp_pool_from_env(argument[2][0] ? argument[2] : NULL, NULL, &got), 0);
	void *block;
	must_be(hp_page_alloc(got, 2 * PAGE, HP_PAGE_PROCESS, &block), 0);
	/* what it inherited is not inherited further */
	int fds[3];
	must_be(sscanf(getenv(argument[2][0] ? argument[2] : "HUGEPOOL_POOL"), "%d,%d,%d", &fds[0], &fds[1], &fds[2]), 3);
	for (int i = 0; i < 3; i++) must_be(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
	child_here(&me);
	must_be(hp_page_free(got, block), 0);
	must_be(hp_pool_detach(got), 0);
	return 0;
}

static void executing(const struct child *me, void *arg)
{
	char says[16], hears[16];
	snprintf(says, sizeof says, "%d", me->says);
	snprintf(hears, sizeof hears, "%d", me->hears);
	fcntl(me->says, F_SETFD, 0);
	fcntl(me->hears, F_SETFD, 0);
	execl("/proc/self/exe", "pass", "after-exec", arg ? (char *)arg : "", says, hears, (char *)NULL);
	_exit(1);
}

static void through_the_environment(void **state)
{
	(void)state;
	char *variables[] = {NULL, "MY_POOL"};
	struct held before = held_now();
	for (int i = 0; i < 2; i++) {
		assert_int_equal(hp_pool_export_env(pool, variables[i]), 0);
		assert_int_equal(hp_pool_export_env(pool, variables[i]), 0); /* the same descriptors again */
		assert_int_equal(held_now().files, before.files + 3);
		struct child child = child_start(executing, variables[i]);
		assert_true(child_hear(&child));
		assert_int_equal(hp_stats(pool).processes, 2);
		assert_int_equal(hp_stats(pool).live_blocks, 1);
		child_finish(&child);
		child = child_start(executing, variables[i]);
		assert_true(child_hear(&child));
		child_kill(&child);
		assert_int_equal(hp_pool_recover(pool), 1);
		unsetenv(variables[i] ? variables[i] : "HUGEPOOL_POOL");
	}
}

static void environments_of_strangers(void **state)
{
	(void)state;
	hp_pool *got = pool;
	unsetenv("HUGEPOOL_POOL");
	assert_int_equal(hp_pool_from_env(NULL, NULL, &got), -ENOENT);
	assert_null(got);
	const struct {
		const char *value;
		int error;
	} wrong[] = {{"", -EINVAL},           {"rubbish", -EINVAL},
	             {"1,2", -EINVAL},        {"1,2,3x", -EINVAL},
	             {"1,2,3,4", -EINVAL},    {"-1,-1,-1", -EBADF},
	             {"900,901,902", -EBADF}, {"0,1,2", -EINVAL},
	             {"0,0,0", -EINVAL},      {"99999999999999999999,1,2", -EBADF}};
	int flags[3];
	for (int i = 0; i < 3; i++) flags[i] = fcntl(i, F_GETFD);
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		setenv("HUGEPOOL_POOL", wrong[i].value, 1);
		struct held before = held_now();
		int error = hp_pool_from_env(NULL, NULL, &got);
		if (error != wrong[i].error && !(error == -EINVAL || error == -EBADF))
			fail_msg("\"%s\": %d", wrong[i].value, error);
		assert_null(got);
		must_hold_no_more(before);
	}
	for (int i = 0; i < 3; i++) fcntl(i, F_SETFD, flags[i]);
	unsetenv("HUGEPOOL_POOL");
	assert_int_equal(hp_pool_from_env(NULL, NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_export_env(NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_export_env(pool, "A=B"), -EINVAL);
	assert_int_equal(hp_pool_export_env(pool, ""), -EINVAL);
}

/* Descriptors that the application closed are not exported under their numbers. */
static void exported_after_a_close(void **state)
{
	(void)state;
	hp_pool *mine = hp_plain_pool(MIB, 0);
	int fds[3];
	assert_int_equal(hp_pool_export_env(mine, "CLOSED"), 0);
	assert_int_equal(sscanf(getenv("CLOSED"), "%d,%d,%d", &fds[0], &fds[1], &fds[2]), 3);
	close(fds[1]);
	assert_int_equal(hp_pool_export_env(mine, "CLOSED"), 0);
	hp_pool *got;
	assert_int_equal(hp_pool_from_env("CLOSED", NULL, &got), 0);
	hp_pool_detach(got);
	hp_pool_fds(mine, fds);
	assert_int_equal(dup2(0, fds[2]), fds[2]);
	assert_int_equal(hp_pool_send(mine, 0), -EBADF);
	hp_pool_detach(mine);
	assert_true(fcntl(fds[2], F_GETFD) >= 0); /* not its to close */
	close(fds[2]);
	unsetenv("CLOSED");
}

/* ---- observers ---- */

static void observers_look_and_change_nothing(void **state)
{
	(void)state;
	struct held before = held_now();
	int fds[3];
	hp_pool_fds(pool, fds);
	for (int without = 0; without < 2; without++) {
		int given[3] = {without ? -1 : fds[0], fds[1], fds[2]};
		hp_pool *watcher, *other = pool;
		void *block, *more;
		assert_int_equal(hp_pool_observe(given, &watcher), 0);
		struct hp_pool_stats stats = hp_stats(watcher);
		assert_int_equal(stats.processes, 1); /* it is none */
		assert_int_equal(stats.committed, 4 * MIB);
		assert_int_equal(hp_page_alloc(pool, 5 * PAGE, 0, &block), 0);
		hp_off off = hp_pool_offset(pool, block);
		/* live numbers, without help of the application */
		assert_int_equal(hp_stats(watcher).live_blocks, 1);
		assert_int_equal(hp_stats(watcher).free, 4 * MIB - 5 * PAGE);
		hp_must_be_sound(watcher);
		assert_string_equal(hp_pool_name(watcher), hp_pool_name(pool));
		assert_int_equal(hp_pool_capacity(watcher), hp_pool_capacity(pool));
		assert_int_equal(hp_pool_page_size(watcher), hp_pool_page_size(pool));
		assert_int_equal(hp_page_alloc(watcher, PAGE, 0, &more), -EROFS);
		assert_null(more);
		assert_int_equal(hp_page_alloc_on(watcher, 0, PAGE, 0, &more), -EROFS);
		assert_int_equal(hp_page_free_at(watcher, off), -EROFS);
		assert_int_equal(hp_page_free(watcher, block), -EROFS);
		assert_int_equal(hp_page_size_at(watcher, off), -EROFS);
		assert_int_equal(hp_page_zero(watcher, block, PAGE), -EROFS);
		assert_int_equal(hp_pool_grow(watcher, MIB, NULL, NULL), -EROFS);
		assert_int_equal(hp_pool_trim(watcher, 0), -EROFS);
		assert_int_equal(hp_pool_recover(watcher), -EROFS);
		assert_int_equal(hp_pool_send(watcher, 0), -EROFS);
		assert_int_equal(hp_pool_export_env(watcher, NULL), -EROFS);
		assert_null(hp_pool_pointer(watcher, off));
		assert_int_equal(hp_pool_offset(watcher, block), HP_OFF_NONE);
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) { /* in a child too */
			must_be(hp_stats(watcher).live_blocks, 1);
			must_be(hp_pool_detach(watcher), 0);
			_exit(0);
		}
		assert_int_equal(hp_wait_for(pid), 0);
		assert_int_equal(hp_page_free(pool, block), 0);
		assert_int_equal(hp_stats(watcher).live_blocks, 0);
		assert_int_equal(hp_pool_detach(watcher), 0);
		assert_int_equal(hp_pool_observe(NULL, &other), -EINVAL);
		assert_int_equal(hp_pool_observe(given, NULL), -EINVAL);
	}
	must_hold_no_more(before);
}

/* All that an observer needs is to be able to read. */
static void observing_without_the_right_to_write(void **state)
{
	(void)state;
	int fds[3], readable[3] = {-1, -1, -1};
	hp_pool_fds(pool, fds);
	for (int i = 1; i < 3; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/self/fd/%d", fds[i]);
		readable[i] = open(path, O_RDONLY | O_CLOEXEC);
		assert_true(readable[i] >= 0);
	}
	hp_pool *watcher;
	assert_int_equal(hp_pool_observe(readable, &watcher), 0);
	pool_must_work(pool, MIB);
	hp_must_be_sound(watcher);
	assert_true(hp_stats(watcher).allocs >= MIB / PAGE);
	hp_pool_detach(watcher);
	close(readable[1]);
	close(readable[2]);
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "after-exec") == 0) return after_exec(argv);
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(over_a_socket),
		CASE(beyond_its_creator),
		CASE(messages_of_strangers),
		CASE(sockets_that_are_none),
		CASE(through_the_environment),
		CASE(environments_of_strangers),
		CASE(exported_after_a_close),
		CASE(observers_look_and_change_nothing),
		CASE(observing_without_the_right_to_write),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
