/* The layer of system calls: each can be made to fail, and each does what os.h says. Would catch a call that ignores the
 * hook, a lock that belongs to the process instead of the description, and descriptors that a hostile message leaves. */
#include "hp_test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <os/host.h>
#include <os/os.h>
#include <os/packet.h>
#include <os/socket.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_files(void)
{
	int count = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	while (readdir(dir)) count++;
	closedir(dir);
	return count;
}

static int memfd(uint64_t size)
{
	int fd;
	assert_int_equal(os_memfd_create("os_test", 0, &fd), 0);
	assert_int_equal(os_ftruncate(fd, size), 0);
	return fd;
}

/* The hook. */

static enum os_call seen;
static int64_t answer;

static bool answering(enum os_call call, int64_t *result)
{
	seen = call;
	*result = answer;
	return true;
}

static void *idle(void *arg)
{
	return arg;
}

static void every_call_asks_the_hook(void **state)
{
	(void)state;
	char buf[16];
	int fd, fds[4], status;
	unsigned count;
	void *addr;
	struct stat st;
	cpu_set_t set;
	unsigned long thread;
	_Atomic uint32_t word = 0;
	struct ucred peer;
	int spare = dup(0);
	os_hook = answering;
	answer = -EIO;
#define ASKS(id, call) \
	do { \
		seen = OS_CALLS; \
		assert_int_equal((int64_t)(call), -EIO); \
		assert_int_equal(seen, id); \
	} while (0)
	ASKS(OS_MEMFD_CREATE, os_memfd_create("x", 0, &fd));
	ASKS(OS_FTRUNCATE, os_ftruncate(-1, 1));
	ASKS(OS_PUNCH, os_punch(-1, 0, 1));
	ASKS(OS_ALLOCATE, os_allocate(-1, 0, 1));
	ASKS(OS_SEAL, os_seal(-1, 0));
	ASKS(OS_SEALS, os_seals(-1));
	ASKS(OS_FCHMOD, os_fchmod(-1, 0));
	ASKS(OS_FSTAT, os_fstat(-1, &st));
	ASKS(OS_BLOCK_SIZE, os_block_size(-1));
	ASKS(OS_OPEN, os_open("/", O_RDONLY));
	ASKS(OS_OPEN, os_reopen(0, O_RDONLY));
	ASKS(OS_CLOSE, os_close(spare));
	assert_int_equal(fcntl(spare, F_GETFD), -1); /* closed all the same */
	ASKS(OS_DUP, os_dup(0));
	ASKS(OS_CLOEXEC, os_cloexec(-1, true));
	ASKS(OS_PREAD, os_pread(-1, buf, 1, 0));
	ASKS(OS_READ, os_read(-1, buf, 1));
	ASKS(OS_WRITE, os_write(-1, buf, 1));
	ASKS(OS_READ_FILE, os_read_file("/proc/version", buf, sizeof buf));
	ASKS(OS_BYTE_LOCK, os_byte_lock(-1, 0));
	ASKS(OS_BYTE_LOCK, os_byte_unlock(-1, 0));
	ASKS(OS_BYTE_HELD, os_byte_held(-1, 0));
	ASKS(OS_MAP, os_map(NULL, 4096, PROT_READ, OS_MAP_PRIVATE_ANON, -1, 0, &addr));
	ASKS(OS_UNMAP, os_unmap(NULL, 4096));
	ASKS(OS_PROTECT, os_protect(NULL, 4096, PROT_READ));
	ASKS(OS_ADVISE, os_advise(NULL, 4096, MADV_NORMAL));
	ASKS(OS_LOCK_MEMORY, os_lock_memory(NULL, 4096));
	ASKS(OS_LOCK_MEMORY, os_lock_on_fault(NULL, 4096));
	ASKS(OS_LOCK_MEMORY, os_unlock_memory(NULL, 4096));
	ASKS(OS_MBIND, os_mbind(NULL, 4096, 0, 0, false));
	ASKS(OS_MOVE_PAGES, os_move_pages(0, NULL, &status));
	ASKS(OS_CPU, os_cpu());
	ASKS(OS_AFFINITY_GET, os_affinity(&set));
	CPU_ZERO(&set);
	ASKS(OS_AFFINITY_SET, os_set_affinity(&set));
	ASKS(OS_MEMBARRIER, os_membarrier_register());
	ASKS(OS_MEMBARRIER, os_membarrier());
	ASKS(OS_FUTEX_WAIT, os_futex_wait(&word, 1, 0));
	ASKS(OS_FUTEX_WAKE, os_futex_wake(&word, 1));
	ASKS(OS_THREAD, os_thread(idle, NULL, &thread));
	ASKS(OS_RANDOM, os_random(buf, sizeof buf));
	ASKS(OS_SEND, os_send(-1, buf, 1, 0));
	ASKS(OS_RECV, os_recv(-1, buf, 1, 0));
	ASKS(OS_SEND, os_send_fds(-1, buf, 1, NULL, 0));
	ASKS(OS_RECV, os_recv_fds(-1, buf, 1, fds, 4, &count));
	ASKS(OS_SOCKET, os_unix_socket());
	ASKS(OS_SOCKET, os_unix_listen(-1, "/"));
	ASKS(OS_SOCKET, os_unix_connect(-1, "/", 1));
	ASKS(OS_SOCKET, os_unix_accept(-1));
	ASKS(OS_SOCKET, os_peer(-1, &peer));
	ASKS(OS_SOCKET, os_peer_groups(-1, NULL, 0));
	ASKS(OS_SOCKET, os_unread(-1));
	ASKS(OS_POLL, os_poll(NULL, 0, 1));
	ASKS(OS_FSTAT, os_lstat("/", &st));
	ASKS(OS_UNLINK, os_unlink("/"));
	ASKS(OS_CLOEXEC, os_access_mode(-1));
	ASKS(OS_SOCKET, os_socket(-1, 0));
	ASKS(OS_SOCKET, os_socket_pair(fds));
	ASKS(OS_SOCKET_OPTION, os_socket_option(-1, 0, 0, NULL, 0));
	ASKS(OS_SOCKET_OPTION, os_socket_ask(-1, 0, 0, NULL, &count));
	ASKS(OS_BIND, os_bind(-1, NULL, 0));
	ASKS(OS_INTERFACE, os_interface("x"));
	ASKS(OS_BPF, os_bpf(0, NULL, 0));
	ASKS(OS_MEMBARRIER, os_membarrier_all());
	ASKS(OS_READ_FILE, os_node_cpus(0, &set));
	/* These have no way to say that they failed, and err on the safe side. */
	assert_int_equal(os_nodes_with_memory(), 1);
	assert_int_equal(seen, OS_MEMPOLICY);
	assert_int_equal(os_node(), 0);
	assert_true(os_thread_exists(1, 1));
	assert_int_equal(seen, OS_THREAD_EXISTS);
	assert_int_equal(os_node_distance(0, 1), 20);
	assert_int_equal(os_node_of_cpu(0), -1);
	os_hook = NULL;
	for (int call = 0; call < OS_CALLS; call++) assert_string_not_equal(os_call_name(call), "?");
	assert_string_equal(os_call_name(OS_CALLS), "?");
}

/* Files. */

static void memfd_can_be_sealed_and_is_close_on_exec(void **state)
{
	(void)state;
	int fd = memfd(8192), other;
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(os_seals(fd) & (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
	assert_int_equal(os_seal(fd, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
	assert_int_equal(os_ftruncate(fd, 4096), -EPERM);
	assert_int_equal(os_ftruncate(fd, 16384), -EPERM);
	assert_int_equal(os_seal(fd, F_SEAL_WRITE), -EPERM);
	assert_int_equal(os_ftruncate(fd, UINT64_MAX), -EFBIG);
	assert_int_equal(os_block_size(fd), 4096);
	assert_int_equal(os_block_size(0x7ffffff), -EBADF);
	int proc = os_open("/proc/self/status", O_RDONLY);
	assert_true(proc >= 0);
	assert_int_equal(os_block_size(proc), -EINVAL);
	os_close(proc);
	int huge = os_memfd_create("os_test", 21, &other);
	if (!huge) {
		assert_int_equal(os_block_size(other), 2 << 20);
		os_close(other);
	}
	assert_int_equal(os_memfd_create("os_test", 13, &other), -ENODEV); /* no processor has huge pages of 8 KiB */
	assert_int_equal(other, -1);
	os_close(fd);
}

static void punch_gives_pages_back(void **state)
{
	(void)state;
	int fd = memfd(65536);
	struct stat st;
	assert_int_equal(os_allocate(fd, 0, 65536), 0);
	assert_int_equal(os_fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 128);
	assert_int_equal(os_punch(fd, 4096, 8192), 0);
	assert_int_equal(os_fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 112);
	assert_int_equal(st.st_size, 65536);
	os_close(fd);
}

static void small_files_are_read_whole(void **state)
{
	(void)state;
	char path[] = "/tmp/os_test.XXXXXX", buf[16];
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "one\ntwo\n", 8), 8);
	assert_int_equal(os_read_file(path, buf, sizeof buf), 7);
	assert_string_equal(buf, "one\ntwo");
	assert_int_equal(os_read_file(path, buf, 8), -EFBIG);
	assert_string_equal(buf, "");
	assert_int_equal(os_read_file(path, buf, 9), 7);
	assert_int_equal(os_pread(fd, buf, 3, 4), 3);
	assert_memory_equal(buf, "two", 3);
	unlink(path);
	assert_int_equal(os_read_file(path, buf, sizeof buf), -ENOENT);
	os_close(fd);
}

static void duplicates_are_close_on_exec(void **state)
{
	(void)state;
	int fd = memfd(4096), copy = os_dup(fd), again = os_reopen(fd, O_RDWR);
	assert_true(copy >= 3);
	assert_int_equal(fcntl(copy, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(again, F_GETFD), FD_CLOEXEC);
	assert_int_equal(os_cloexec(copy, false), 0);
	assert_int_equal(fcntl(copy, F_GETFD), 0);
	os_close(fd);
	os_close(copy);
	os_close(again);
}

static void byte_locks_belong_to_the_description(void **state)
{
	(void)state;
	int a = memfd(0), b = os_reopen(a, O_RDWR), copy = os_dup(a);
	assert_true(b >= 0 && copy >= 0);
	assert_int_equal(os_byte_lock(a, 7), 0);
	assert_int_equal(os_byte_lock(a, 7), 0);       /* again by itself */
	assert_int_equal(os_byte_lock(b, 7), -EAGAIN); /* another description of the same process */
	assert_int_equal(os_byte_lock(b, 8), 0);
	assert_int_equal(os_byte_held(b, 7), 1);
	assert_int_equal(os_byte_held(a, 7), 0); /* its own does not count */
	assert_int_equal(os_byte_held(b, 9), 0);
	os_close(copy);
	assert_int_equal(os_byte_held(b, 7), 1); /* unlike a POSIX lock it outlives close(dup) */
	pid_t child = fork();
	if (!child) {
		pause();
		_exit(0);
	}
	os_close(a);
	assert_int_equal(os_byte_held(b, 7), 1); /* the child holds the description */
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_int_equal(os_byte_held(b, 7), 0);
	assert_int_equal(os_byte_lock(b, 7), 0);
	assert_int_equal(os_byte_unlock(b, 7), 0);
	assert_int_equal(os_byte_lock(b, UINT64_MAX), -EINVAL);
	os_close(b);
	assert_int_equal(os_byte_held(b, 7), -EBADF);
}

/* Memory. */

static void map_at_never_replaces(void **state)
{
	(void)state;
	int fd = memfd(8192);
	void *a, *b;
	assert_int_equal(os_map(NULL, 8192, PROT_READ | PROT_WRITE, OS_MAP_NORESERVE, fd, 0, &a), 0);
	strcpy(a, "kept");
	assert_int_equal(os_map(a, 8192, PROT_READ, OS_MAP_AT, fd, 0, &b), -EEXIST);
	assert_null(b);
	assert_string_equal(a, "kept");
	assert_int_equal(os_unmap(a, 8192), 0);
	int error = os_map(a, 8192, PROT_READ, OS_MAP_AT, fd, 0, &b);
	if (error && HP_TEST_SANITIZER) {
		os_close(fd);
		hp_test_skip_one("the sanitizer keeps the address for itself");
	}
	assert_int_equal(error, 0);
	assert_ptr_equal(a, b);
	assert_int_equal(os_map(a, 4096, PROT_READ, OS_MAP_FIXED, fd, 4096, &b), 0);
	assert_string_equal(b, ""); /* the second page now */
	assert_int_equal(os_map(NULL, 4096, PROT_READ, OS_MAP_FIXED, fd, 0, &b), -EINVAL);
	assert_int_equal(os_protect(a, 8192, PROT_NONE), 0);
	assert_int_equal(os_unmap(a, 8192), 0);
	assert_int_equal(os_advise(a, 8192, MADV_WILLNEED), -ENOMEM);
	os_close(fd);
}

static void pages_can_be_found(void **state)
{
	(void)state;
	char *at;
	void *addr, *pages[2];
	int status[2];
	uint64_t nodes = os_nodes_with_memory();
	assert_true(nodes != 0);
	assert_int_equal(os_map(NULL, 8192, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON, -1, 0, &addr), 0);
	at = addr;
	at[0] = 1;
	pages[0] = at;
	pages[1] = at + 4096;
	int error = os_move_pages(2, pages, status);
	if (error == -EPERM || error == -ENOSYS) {
		os_unmap(addr, 8192);
		hp_test_skip_one("move_pages is refused here");
	}
	assert_int_equal(error, 0);
	assert_true(status[0] >= 0 && nodes >> status[0] & 1);
	assert_true(status[1] < 0); /* not there yet */
	uint64_t lowest = nodes & -nodes;
	assert_int_equal(os_mbind(addr, 8192, 2 /* MPOL_BIND */, lowest, true), 0);
	assert_int_equal(os_mbind(addr, 8192, 0, 0, false), 0);
	if (!(nodes >> 63)) assert_int_equal(os_mbind(addr, 8192, 2, UINT64_C(1) << 63, false), -EINVAL);
	os_unmap(addr, 8192);
}

static void topology_has_an_answer(void **state)
{
	(void)state;
	cpu_set_t set, cpus;
	int cpu = os_cpu(), node = os_node();
	assert_true(cpu >= 0);
	assert_true(node >= 0 && node < 64);
	assert_int_equal(os_node_distance(node, node), 10);
	assert_int_equal(os_node_distance(node, 5000), 20);
	assert_int_equal(os_node_distance(0, 63) >= 10, 1);
	assert_int_equal(os_node_of_cpu(-1), -1);
	assert_int_equal(os_affinity(&set), 0);
	assert_true(CPU_COUNT(&set) > 0);
	assert_int_equal(os_set_affinity(&set), 0);
	if (os_node_cpus(node, &cpus) == 0 && CPU_COUNT(&cpus))
		for (int i = 0; i < CPU_SETSIZE; i++)
			if (CPU_ISSET(i, &cpus)) assert_int_equal(os_node_of_cpu(i), node);
	assert_true(os_node_cpus(4000, &cpus) < 0);
}

/* Waiting, threads, time. */

static _Atomic uint32_t word;

static void *waker(void *arg)
{
	sigset_t *mask = arg;
	pthread_sigmask(SIG_SETMASK, NULL, mask);
	atomic_store(&word, 1);
	os_futex_wake(&word, 1);
	return NULL;
}

static void futexes_wait_and_wake(void **state)
{
	(void)state;
	sigset_t mask, own;
	unsigned long thread;
	atomic_store(&word, 0);
	assert_int_equal(os_futex_wait(&word, 1, UINT64_MAX), -EAGAIN);
	uint64_t begin = os_now_ns();
	assert_int_equal(os_futex_wait(&word, 0, 1000000), -ETIMEDOUT);
	assert_true(os_now_ns() - begin >= 1000000);
	assert_int_equal(os_thread(waker, &mask, &thread), 0);
	while (!atomic_load(&word)) {
		int error = os_futex_wait(&word, 0, UINT64_MAX);
		assert_true(!error || error == -EAGAIN || error == -EINTR);
	}
	assert_int_equal(os_join(thread), 0);
	assert_int_equal(sigismember(&mask, SIGTERM), 1); /* threads of the library take no signals */
	pthread_sigmask(SIG_SETMASK, NULL, &own);
	assert_int_equal(sigismember(&own, SIGTERM), 0);
}

static void *own_tid(void *arg)
{
	*(int *)arg = os_tid();
	return NULL;
}

static void threads_can_be_told_alive(void **state)
{
	(void)state;
	int tid = 0;
	unsigned long thread;
	assert_true(os_thread_exists(os_pid(), os_tid()));
	assert_int_equal(os_thread(own_tid, &tid, &thread), 0);
	os_join(thread);
	assert_true(tid > 0);
	while (os_thread_exists(os_pid(), tid)) /* join returns a moment before the kernel forgets the thread */
		sched_yield();
	pid_t child = fork();
	if (!child) _exit(0);
	waitpid(child, NULL, 0);
	assert_false(os_thread_exists(child, child));
	assert_true(os_thread_exists(-1, -1)); /* nonsense: not known to be gone */
	if (os_membarrier_register() == 0) assert_int_equal(os_membarrier(), 0);
}

static void random_bytes_differ(void **state)
{
	(void)state;
	char a[32] = "", b[32] = "";
	assert_int_equal(os_random(a, sizeof a), 0);
	assert_int_equal(os_random(b, sizeof b), 0);
	assert_memory_not_equal(a, b, sizeof a);
}

/* Messages. */

static int pair[2];

static void connect_pair(int type)
{
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair), 0);
}

static void close_pair(void)
{
	close(pair[0]);
	close(pair[1]);
}

/* What a peer that does not use our function can send. */
static void send_raw(const void *msg, size_t bytes, unsigned count)
{
	int fds[253];
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof fds)];
	} control;
	struct iovec iov = {.iov_base = (void *)msg, .iov_len = bytes};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	memset(&control, 0, sizeof control);
	for (unsigned i = 0; i < count; i++) fds[i] = 0;
	header.msg_control = &control;
	header.msg_controllen = CMSG_SPACE(count * sizeof(int));
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
	assert_int_equal(sendmsg(pair[0], &header, 0), bytes);
}

static void descriptors_travel(void **state)
{
	(void)state;
	char msg[8];
	int fds[3] = {memfd(4096), memfd(8192), memfd(12288)}, got[3];
	unsigned count;
	connect_pair(SOCK_STREAM);
	assert_int_equal(os_send_fds(pair[0], "hello", 5, fds, 3), 5);
	assert_int_equal(os_recv_fds(pair[1], msg, sizeof msg, got, 3, &count), 5);
	assert_memory_equal(msg, "hello", 5);
	assert_int_equal(count, 3);
	for (int i = 0; i < 3; i++) {
		struct stat a, b;
		assert_int_equal(fcntl(got[i], F_GETFD), FD_CLOEXEC);
		assert_int_equal(os_fstat(fds[i], &a), 0);
		assert_int_equal(os_fstat(got[i], &b), 0);
		assert_int_equal(a.st_ino, b.st_ino);
		os_close(got[i]);
		os_close(fds[i]);
	}
	assert_int_equal(os_send_fds(pair[0], "none", 4, NULL, 0), 4);
	assert_int_equal(os_recv_fds(pair[1], msg, sizeof msg, got, 3, &count), 4);
	assert_int_equal(count, 0);
	assert_int_equal(os_send_fds(pair[0], "", 0, fds, 0), -EINVAL);
	assert_int_equal(os_send_fds(pair[0], "x", 1, fds, 17), -EINVAL);
	assert_int_equal(os_send_fds(pair[0], "x", 1, (int[]){-1}, 1), -EBADF);
	close(pair[0]);
	assert_int_equal(os_recv_fds(pair[1], msg, sizeof msg, got, 3, &count), 0); /* the peer is gone */
	assert_int_equal(os_send_fds(pair[1], "x", 1, NULL, 0), -EPIPE);            /* and no SIGPIPE */
	close(pair[1]);
	assert_int_equal(os_recv_fds(pair[1], msg, sizeof msg, got, 3, &count), -EBADF);
}

static void hostile_messages_leave_nothing(void **state)
{
	(void)state;
	static const unsigned counts[] = {4, 5, 64, 253};
	char msg[8];
	int got[3];
	unsigned count;
	for (unsigned type = 0; type < 2; type++) {
		connect_pair(type ? SOCK_SEQPACKET : SOCK_STREAM);
		int before = open_files();
		for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
			send_raw("hello", 5, counts[i]);
			count = 99;
			assert_int_equal(os_recv_fds(pair[1], msg, sizeof msg, got, 3, &count), -EPROTO);
			assert_int_equal(count, 0);
			assert_int_equal(open_files(), before);
		}
		send_raw("hello", 5, 1); /* none wanted */
		assert_int_equal(os_recv_fds(pair[1], msg, sizeof msg, got, 0, &count), -EPROTO);
		assert_int_equal(open_files(), before);
		/* The next message is not harmed. */
		assert_int_equal(os_send_fds(pair[0], "fine", 4, NULL, 0), 4);
		assert_int_equal(os_recv_fds(pair[1], msg, sizeof msg, got, 3, &count), 4);
		if (type) { /* longer than there is room for */
			send_raw("much longer than eight", 22, 3);
			assert_int_equal(os_recv_fds(pair[1], msg, sizeof msg, got, 3, &count), -EPROTO);
			assert_int_equal(open_files(), before);
		}
		close_pair();
	}
}

static void credentials_do_not_disturb(void **state)
{
	(void)state;
	char msg[8];
	int got[3], on = 1;
	unsigned count;
	connect_pair(SOCK_STREAM);
	assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
	int before = open_files();
	send_raw("hello", 5, 3);
	assert_int_equal(os_recv_fds(pair[1], msg, sizeof msg, got, 3, &count), 5);
	assert_int_equal(count, 3);
	for (int i = 0; i < 3; i++) os_close(got[i]);
	assert_int_equal(open_files(), before);
	close_pair();
}

/* The host. */

static void add_bit(void *arg, unsigned bit)
{
	*(uint64_t *)arg |= UINT64_C(1) << bit;
}

static void lists_are_parsed(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint64_t bits;
	} cases[] = {{"", 0},  {"0", 1},   {"0-3", 15}, {"0-1,4,6-7", 0xd3}, {"62-9999", UINT64_C(3) << 62}, {"3-1", 0},
	             {"x", 0}, {"1,x", 2}, {"-", 0},    {"5-", 0},           {"99999999999999999999999", 0}};
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint64_t bits = 0;
		unsigned set = host_parse_list(cases[i].text, add_bit, &bits, 64);
		assert_int_equal(bits, cases[i].bits);
		assert_int_equal(set, __builtin_popcountll(bits));
	}
}

static void host_facts_make_sense(void **state)
{
	(void)state;
	struct host *host = malloc(sizeof *host);
	assert_non_null(host);
	int before = open_files();
	host_read(host);
	assert_int_equal(open_files(), before);
	assert_true(host->version >= 4 << 16);
	assert_int_equal(host->base_page, sysconf(_SC_PAGESIZE));
	assert_true(host->nodes >= 1);
	assert_true(host->nodes_allowed != 0);
	assert_int_equal(host->node[0].distance[host->node[0].id], 10);
	assert_true(host->memory_available <= host->memory_total);
	for (unsigned i = 0; i < host->sizes; i++) {
		assert_true(host->pages[i].free <= host->pages[i].total);
		assert_true(!i || host->pages[i].size > host->pages[i - 1].size);
	}
	free(host);
}

static bool blind(enum os_call call, int64_t *result)
{
	*result = -EACCES;
	return call == OS_READ_FILE;
}

static void a_host_that_hides_everything_is_no_error(void **state)
{
	(void)state;
	struct host *host = malloc(sizeof *host);
	struct host_limit limit;
	assert_non_null(host);
	os_hook = blind;
	host_read(host);
	host_memory_limit(&limit);
	uint64_t available = host_memory_available();
	os_hook = NULL;
	assert_int_equal(host->sizes, 0);
	assert_int_equal(host->nodes, 1);
	assert_false(host->numa_known);
	assert_false(limit.found);
	assert_true(available == HOST_UNKNOWN);
	free(host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call_asks_the_hook),     cmocka_unit_test(memfd_can_be_sealed_and_is_close_on_exec),
		cmocka_unit_test(punch_gives_pages_back),       cmocka_unit_test(small_files_are_read_whole),
		cmocka_unit_test(duplicates_are_close_on_exec), cmocka_unit_test(byte_locks_belong_to_the_description),
		cmocka_unit_test(map_at_never_replaces),        cmocka_unit_test(pages_can_be_found),
		cmocka_unit_test(topology_has_an_answer),       cmocka_unit_test(futexes_wait_and_wake),
		cmocka_unit_test(threads_can_be_told_alive),    cmocka_unit_test(random_bytes_differ),
		cmocka_unit_test(descriptors_travel),           cmocka_unit_test(hostile_messages_leave_nothing),
		cmocka_unit_test(credentials_do_not_disturb),   cmocka_unit_test(lists_are_parsed),
		cmocka_unit_test(host_facts_make_sense),        cmocka_unit_test(a_host_that_hides_everything_is_no_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
