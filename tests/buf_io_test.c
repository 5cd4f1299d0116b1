/* Reading, writing, receiving and sending on buffers.
 *
 * Catches: a bad range that reaches the kernel, a short count that is hidden or made whole, an interrupted call that says so
 * instead of going on, a peer that is gone and takes the process along, data that lands somewhere else in a pool than other
 * processes look for it, an error that is swallowed. */
#include <hugepool/buf.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <os/os.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "hp_cache.h"

static void close_both(const int fds[2])
{
	must_be(close(fds[0]), 0);
	must_be(close(fds[1]), 0);
}

static unsigned calls;

static bool counts_calls(enum os_call call, int64_t *result)
{
	(void)call;
	calls++;
	*result = 0;
	return true;
}

static void a_bad_range_never_reaches_the_kernel(void **state)
{
	(void)state;
	static const struct {
		size_t off, len;
	} bad[] = {{0, 101},          {1, 100}, {101, 0}, {100, 1}, {SIZE_MAX, 1}, {1, SIZE_MAX}, {SIZE_MAX, SIZE_MAX},
	           {SIZE_MAX - 9, 20}};
	char memory[100];
	hp_buf buf = hp_buf_of(memory, sizeof memory);
	os_hook = counts_calls;
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		must_be(hp_buf_read(0, buf, bad[i].off, bad[i].len), -EINVAL);
		must_be(hp_buf_write(1, buf, bad[i].off, bad[i].len), -EINVAL);
		must_be(hp_buf_recv(0, buf, bad[i].off, bad[i].len, 0), -EINVAL);
		must_be(hp_buf_send(0, buf, bad[i].off, bad[i].len, 0), -EINVAL);
	}
	must_be(calls, 0);
	must_be(hp_buf_read(0, buf, 0, 100), 0);
	must_be(hp_buf_write(1, buf, 99, 1), 0);
	must_be(hp_buf_recv(0, buf, 100, 0, 0), 0);
	must_be(hp_buf_send(0, buf, 50, 50, 0), 0);
	must_be(calls, 4);
	os_hook = NULL;
}

static bool says_eio(enum os_call call, int64_t *result)
{
	*result = call == OS_READ || call == OS_WRITE || call == OS_RECV || call == OS_SEND ? -EIO : -ENOSYS;
	return true;
}

static void errors_are_the_kernel_s(void **state)
{
	(void)state;
	char memory[100];
	hp_buf buf = hp_buf_of(memory, sizeof memory);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC), folder = open("/", O_RDONLY | O_CLOEXEC);
	must(null >= 0 && folder >= 0);
	must_be(hp_buf_read(-1, buf, 0, 1), -EBADF);
	must_be(hp_buf_write(-1, buf, 0, 1), -EBADF);
	must_be(hp_buf_recv(-1, buf, 0, 1, 0), -EBADF);
	must_be(hp_buf_send(-1, buf, 0, 1, 0), -EBADF);
	must_be(hp_buf_recv(null, buf, 0, 1, 0), -ENOTSOCK);
	must_be(hp_buf_send(null, buf, 0, 1, 0), -ENOTSOCK);
	must_be(hp_buf_write(null, buf, 0, 1), -EBADF);
	must_be(hp_buf_read(folder, buf, 0, 1), -EISDIR);
	must_be(hp_buf_read(null, buf, 0, 100), 0);
	must_be(close(null), 0);
	must_be(close(folder), 0);
	must_be(hp_buf_read(null, buf, 0, 1), -EBADF);
	os_hook = says_eio;
	must_be(hp_buf_read(0, buf, 0, 1), -EIO);
	must_be(hp_buf_write(0, buf, 0, 1), -EIO);
	must_be(hp_buf_recv(0, buf, 0, 1, 0), -EIO);
	must_be(hp_buf_send(0, buf, 0, 1, 0), -EIO);
	os_hook = NULL;
}

static void counts_are_as_short_as_the_kernel_makes_them(void **state)
{
	(void)state;
	int fd = memfd_create("buf_io_test", MFD_CLOEXEC), pipes[2];
	must(fd >= 0);
	hp_buf buf;
	must_be(hp_buf_alloc_pages(NULL, MIB, 0, &buf), 0);
	for (size_t i = 0; i < buf.len; i++) buf.start[i] = (char)(i * 7 + i / 256);
	must_be(hp_buf_write(fd, buf, 10, 100), 100);
	must_be(lseek(fd, 0, SEEK_SET), 0);
	must_be(hp_buf_read(fd, buf, 1000, 60), 60);
	must_be(hp_buf_read(fd, buf, 1060, 1000), 40);
	must_be(hp_buf_read(fd, buf, 1100, 1000), 0);
	must_be(hp_buf_compare(hp_buf_sub_unchecked(buf, 10, 100), hp_buf_sub_unchecked(buf, 1000, 100)), 0);
	must_be((unsigned char)buf.start[1100], (unsigned char)(1100 * 7 + 1100 / 256));
	must_be(close(fd), 0);

	must_be(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	must_be(hp_buf_read(pipes[0], buf, 0, 10), -EAGAIN);
	int64_t room = hp_buf_write(pipes[1], buf, 0, buf.len);
	must(room > 0 && room < (int64_t)buf.len);
	must_be(hp_buf_write(pipes[1], buf, 0, 1), -EAGAIN);
	hp_buf other;
	must_be(hp_buf_alloc_pages(NULL, MIB, 0, &other), 0);
	int64_t came = 0, more;
	while ((more = hp_buf_read(pipes[0], other, (size_t)came, other.len - (size_t)came)) > 0) came += more;
	must_be(more, -EAGAIN);
	must_be(came, room);
	must_be(memcmp(other.start, buf.start, (size_t)room), 0);
	must_be(other.start[room], 0);
	must_be(hp_buf_write(pipes[1], buf, buf.len, 0), 0);
	close_both(pipes);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(hp_buf_unmap(&other), 0);
}

#define MOST 0x7ffff000 /* that the kernel writes at once */

static void more_than_two_gigabytes(void **state)
{
	(void)state;
	if (HP_TEST_SANITIZER) hp_test_skip_one("a sanitizer would look at every byte");
	hp_buf buf;
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	must(null >= 0);
	size_t size = (size_t)5 << 30;
	if (hp_buf_alloc_pages(NULL, size, HP_BUF_LAZY, &buf) == -ENOMEM) hp_test_skip_one("no address space for 5 GiB");
	must_be(hp_buf_write(null, buf, 0, size), MOST);
	must_be(hp_buf_write(null, buf, size - 10, 10), 10);
	must_be(hp_buf_write(null, buf, size - 10, 11), -EINVAL);
	must_be(hp_buf_unmap(&buf), 0);
	must_be(close(null), 0);
}

/* ---- sockets ---- */

static void sockets_of_a_kind(int domain, int type, int sockets[2])
{
	if (domain == AF_UNIX) {
		must_be(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sockets), 0);
		return;
	}
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof at;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(listener >= 0);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0)
		hp_test_skip("no loopback interface: %s", strerror(errno));
	must_be(listen(listener, 1), 0);
	must_be(getsockname(listener, (struct sockaddr *)&at, &length), 0);
	sockets[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must_be(connect(sockets[0], (struct sockaddr *)&at, sizeof at), 0);
	sockets[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	must(sockets[1] >= 0);
	must_be(close(listener), 0);
}

static void sending_and_receiving(void **state)
{
	(void)state;
	char memory[200];
	hp_buf buf = hp_buf_of(memory, sizeof memory);
	for (unsigned kind = 0; kind < 3; kind++) {
		int s[2];
		sockets_of_a_kind(kind == 2 ? AF_INET : AF_UNIX, kind == 1 ? SOCK_SEQPACKET : SOCK_STREAM, s);
		memset(memory, 0, sizeof memory);
		must_be(hp_buf_recv(s[1], buf, 0, 10, MSG_DONTWAIT), -EAGAIN);
		must_be(hp_buf_blit_from_string(buf, 5, "hello, peer"), 11);
		must_be(hp_buf_send(s[0], buf, 5, 11, 0), 11);
		must_be(hp_buf_recv(s[1], buf, 100, 100, MSG_PEEK), 11);
		must_be(hp_buf_recv(s[1], buf, 150, 5, 0), 5);
		must_be(memcmp(memory + 100, "hello, peer", 11), 0);
		must_be(memcmp(memory + 150, "hello", 6), 0);
		if (kind != 1) must_be(hp_buf_recv(s[1], buf, 150, 50, MSG_DONTWAIT), 6); /* of packets the rest is gone */
		must_be(hp_buf_recv(s[1], buf, 150, 50, MSG_DONTWAIT), -EAGAIN);
		must_be(hp_buf_write(s[1], buf, 5, 5), 5);
		must_be(hp_buf_read(s[0], buf, 190, 10), 5);
		must_be(memcmp(memory + 190, "hello", 6), 0);
		must_be(hp_buf_send(s[0], buf, 0, 0, 0), 0);

		/* the peer vanishes: an error, and no SIGPIPE, whose default it would be to end us */
		must_be(close(s[1]), 0);
		must(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
		int64_t sent;
		while ((sent = hp_buf_send(s[0], buf, 0, 10, 0)) >= 0) {} /* of TCP the first may go out */
		must(sent == -EPIPE || sent == -ECONNRESET);
		if (sent == -ECONNRESET) must_be(hp_buf_send(s[0], buf, 0, 10, 0), -EPIPE);
		must_be(hp_buf_recv(s[0], buf, 0, 10, 0), 0);
		must(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
		must_be(hp_buf_write(s[0], buf, 0, 10), -EPIPE);
		must(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
		must_be(close(s[0]), 0);
	}
}

/* ---- EINTR ---- */

static _Atomic unsigned handled;

static void handler(int signal_number)
{
	(void)signal_number;
	atomic_fetch_add(&handled, 1);
}

struct blocked {
	int64_t (*run)(struct blocked *blocked);
	int fd;
	hp_buf buf;
	_Atomic int tid;
	int64_t result;
};

static int64_t reads(struct blocked *blocked)
{
	return hp_buf_read(blocked->fd, blocked->buf, 0, 10);
}

static int64_t receives(struct blocked *blocked)
{
	return hp_buf_recv(blocked->fd, blocked->buf, 0, 10, 0);
}

static int64_t writes(struct blocked *blocked)
{
	return hp_buf_write(blocked->fd, blocked->buf, 0, 1);
}

static int64_t sends(struct blocked *blocked)
{
	return hp_buf_send(blocked->fd, blocked->buf, 0, 1, 0);
}

static void *runs(void *arg)
{
	struct blocked *blocked = arg;
	atomic_store(&blocked->tid, (int)syscall(SYS_gettid));
	blocked->result = blocked->run(blocked);
	return NULL;
}

/* Waits until the thread is asleep in the system call; false where the kernel does not tell. */
static bool await_call(const struct blocked *blocked, long wanted)
{
	char path[64], text[64];
	int tid;
	while (!(tid = atomic_load(&blocked->tid))) sched_yield();
	snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
	for (;;) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) return false;
		ssize_t got = read(fd, text, sizeof text - 1);
		must_be(close(fd), 0);
		if (got <= 0) return false;
		text[got] = 0;
		char *end;
		long call = strtol(text, &end, 10);
		if (end != text && call == wanted) return true;
		sched_yield();
	}
}

static void an_interrupted_call_goes_on(void **state)
{
	(void)state;
	struct sigaction action = {.sa_handler = handler}, old; /* without SA_RESTART */
	must_be(sigaction(SIGUSR1, &action, &old), 0);
	static char memory[MIB];
	for (unsigned kind = 0; kind < 4; kind++) {
		int fds[2];
		bool socket = kind & 1, out = kind >= 2;
		if (socket)
			must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		else
			must_be(pipe2(fds, O_CLOEXEC), 0);
		struct blocked blocked = {.run = (int64_t(*[])(struct blocked *)){reads, receives, writes, sends}[kind],
		                          .fd = fds[out],
		                          .buf = hp_buf_of(memory, sizeof memory)};
		if (out) { /* it is full */
			int flags = fcntl(fds[1], F_GETFL);
			must_be(fcntl(fds[1], F_SETFL, flags | O_NONBLOCK), 0);
			while (write(fds[1], memory, 4096) > 0) {}
			while (write(fds[1], memory, 1) > 0) {}
			must_be(errno, EAGAIN);
			must_be(fcntl(fds[1], F_SETFL, flags), 0);
		}
		pthread_t thread;
		must_be(pthread_create(&thread, NULL, runs, &blocked), 0);
		bool told = await_call(&blocked, (long[]){SYS_read, SYS_recvfrom, SYS_write, SYS_sendto}[kind]);
		unsigned before = atomic_load(&handled);
		must_be(pthread_kill(thread, SIGUSR1), 0);
		while (atomic_load(&handled) == before) sched_yield();
		if (out)
			must(read(fds[0], memory + 4096, sizeof memory - 4096) > 0);
		else
			must_be(write(fds[1], "data", 4), 4);
		must_be(pthread_join(thread, NULL), 0);
		must_be(blocked.result, out ? 1 : 4);
		if (!out) must_be(memcmp(memory, "data", 4), 0);
		close_both(fds);
		if (!told) hp_test_skip_one("the kernel does not tell in which call a thread is");
	}
	must_be(sigaction(SIGUSR1, &old, NULL), 0);
}

/* ---- memory of a pool ---- */

struct shared_place {
	hp_pool *pool;
	hp_off off;
	int fd;
};

static void looks_and_answers(const struct child *me, void *arg)
{
	struct shared_place *place = arg;
	child_here(me);
	hp_buf buf;
	must_be(hp_buf_grab_block(place->pool, hp_pool_pointer(place->pool, place->off), &buf), 0);
	must_be(buf.len, 2048);
	must_be(memcmp(buf.start + 100, "from the file", 13), 0);
	must_be(hp_buf_write(place->fd, buf, 105, 8), 8);
}

static void data_lands_where_other_processes_find_it(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(16 * MIB, 0);
	hp_cache *cache = hp_cache_make(pool, "packets", 2048, 0);
	int fd = memfd_create("buf_io_test", MFD_CLOEXEC), pipes[2];
	must_be(pipe2(pipes, O_CLOEXEC), 0);
	must_be(write(fd, "from the file", 13), 13);
	must_be(lseek(fd, 0, SEEK_SET), 0);
	char *object = hp_cache_get(cache, 0);
	must(object);
	struct shared_place place = {.pool = pool, .off = hp_pool_offset(pool, object), .fd = pipes[1]};
	struct child child = child_start(looks_and_answers, &place);
	hp_buf buf, small;
	must_be(hp_buf_grab_block(pool, object, &buf), 0);
	must_be(hp_buf_read(fd, buf, 100, buf.len - 99), -EINVAL);
	must_be(hp_buf_read(fd, buf, 100, buf.len - 100), 13);
	must(child_hear(&child));
	child_finish(&child);
	must_be(hp_buf_read(pipes[0], buf, 0, 100), 8);
	must_be(memcmp(object, "the file", 8), 0);
	must_be(hp_buf_sub(buf, 0, 3, &small), 0);
	must_be(hp_buf_read(fd, small, 0, 4), -EINVAL); /* a sub-view has bounds of its own */
	must_be(hp_cache_put(cache, object), 0);
	must_be(hp_cache_destroy(cache), 0);
	close_both(pipes);
	must_be(close(fd), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bad_range_never_reaches_the_kernel),
		cmocka_unit_test(errors_are_the_kernel_s),
		cmocka_unit_test(counts_are_as_short_as_the_kernel_makes_them),
		cmocka_unit_test(more_than_two_gigabytes),
		cmocka_unit_test(sending_and_receiving),
		cmocka_unit_test(an_interrupted_call_goes_on),
		cmocka_unit_test(data_lands_where_other_processes_find_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
