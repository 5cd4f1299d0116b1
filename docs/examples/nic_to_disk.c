/* From the network to the disk without a copy: three processes and one pool.
 *
 *     nic_to_disk INTERFACE FILE COUNT
 *
 * The first receives frames from an interface by AF_XDP: each lands in an object of a cache. The second looks at them, and
 * counts them by protocol. The third writes them to a file, as tcpdump and its relatives read it, by io_uring: the header of
 * a frame's record goes into the room that the object has before the frame, so that one write from the object is all. When a
 * write has ended its object goes back to the cache, and the first process has it filled again. What goes from process to process
 * are the 16 bytes that say where a frame is, through fifos. It ends after COUNT frames.
 *
 * Root, or CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and CAP_IPC_LOCK. */
#include <hugepool/fifo.h>
#include <hugepool/ring.h>
#include <hugepool/xdp.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OBJECT 2048
#define BURST 32
#define WAIT UINT64_C(100000000) /* ns */

static const struct hp_xdp_frame no_more = {.object = HP_OFF_NONE};

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("nic_to_disk: ", stderr);
	vfprintf(stderr, format, args);
	fputs("\n", stderr);
	va_end(args);
	exit(1);
}

static void must(int error, const char *what)
{
	if (error < 0) die("%s: %s", what, strerror(-error));
}

static void log_line(void *arg, const char *message)
{
	(void)arg;
	fprintf(stderr, "%s\n", message);
}

static void child_has_died(int number)
{
	static const char text[] = "nic_to_disk: a process of ours has failed\n";
	(void)number;
	if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {}
	_exit(1); /* and the pool, the interface and the other process go with this one */
}

static hp_fifo *fifo_make(hp_pool *pool)
{
	const struct hp_fifo_options options = {
		.struct_size = sizeof options, .capacity = 4096, .element = sizeof(struct hp_xdp_frame)};
	hp_fifo *fifo;
	must(hp_fifo_create(pool, &options, &fifo), "a fifo");
	return fifo;
}

static hp_fifo *fifo_open(hp_pool *pool, hp_off id)
{
	hp_fifo *fifo;
	must(hp_fifo_open(pool, id, &fifo), "a fifo");
	return fifo;
}

/* Waits while the fifo is full: the cache then runs empty, and the kernel drops frames, which its counters say. */
static void hand_on(hp_fifo *fifo, const struct hp_xdp_frame *frames, size_t n)
{
	if (n) must(hp_fifo_push_timed(fifo, frames, n, UINT64_MAX), "handing frames on");
}

static int take(hp_fifo *fifo, struct hp_xdp_frame *frames, uint64_t ns)
{
	int64_t n = hp_fifo_pop_timed(fifo, frames, BURST, ns);
	if (n != -ETIMEDOUT) must((int)n, "taking frames");
	return n < 0 ? 0 : (int)n;
}

static bool is_last(const struct hp_xdp_frame *frames, int n)
{
	return n && frames[n - 1].object == HP_OFF_NONE;
}

/* ---- the second process: looks ---- */

enum { TCP, UDP, ICMP, IPV4, IPV6, ARP, OTHER, KINDS };
static const char *const kind_name[KINDS] = {"tcp", "udp", "icmp", "other ipv4", "ipv6", "arp", "other"};

static int kind_of(const unsigned char *bytes, uint32_t length)
{
	unsigned type = length < 14 ? 0 : (unsigned)bytes[12] << 8 | bytes[13];
	if (type == 0x86dd) return IPV6;
	if (type == 0x0806) return ARP;
	if (type != 0x0800 || length < 34) return OTHER;
	return bytes[23] == 6 ? TCP : bytes[23] == 17 ? UDP : bytes[23] == 1 ? ICMP : IPV4;
}

static void inspect(hp_pool *pool, hp_off from, hp_off to)
{
	hp_fifo *in = fifo_open(pool, from), *out = fifo_open(pool, to);
	struct hp_xdp_frame frames[BURST];
	uint64_t count[KINDS] = {0};
	for (bool last = false; !last;) {
		int n = take(in, frames, UINT64_MAX);
		last = is_last(frames, n);
		for (int i = 0; i < n - last; i++) {
			const char *object = hp_pool_pointer(pool, frames[i].object);
			count[kind_of((const unsigned char *)object + frames[i].offset, frames[i].length)]++;
		}
		hand_on(out, frames, (size_t)n);
	}
	printf("inspected:");
	for (int i = 0; i < KINDS; i++)
		if (count[i]) printf(" %s %llu", kind_name[i], (unsigned long long)count[i]);
	printf("\n");
	hp_fifo_close(in);
	hp_fifo_close(out);
}

/* ---- the third: writes ---- */

struct file_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, accuracy, longest, network;
};

struct record_header {
	uint32_t seconds, microseconds, length, on_the_wire;
};

struct writer {
	hp_pool *pool;
	hp_cache *cache;
	uint64_t written, bytes;
};

/* The word of a request: where its object is, and how long the write (both fit: objects begin at multiples of 2048). */
static void has_been_written(void *arg, const struct hp_ring_completion *completion)
{
	struct writer *writer = arg;
	uint64_t length = completion->user % OBJECT;
	must(completion->result, "writing to the file");
	if ((uint64_t)completion->result != length) die("writing to the file: no room");
	must(hp_cache_put(writer->cache, hp_pool_pointer(writer->pool, completion->user - length)),
	     "putting an object back");
	writer->written++;
	writer->bytes += length;
}

static void write_file(hp_pool *pool, hp_cache *cache, hp_off from, const char *path)
{
	static const struct file_header start = {
		.magic = 0xa1b2c3d4, .major = 2, .minor = 4, .longest = 65535, .network = 1 /* Ethernet */};
	struct writer writer = {.pool = pool, .cache = cache};
	struct hp_xdp_frame frames[BURST];
	hp_fifo *in = fifo_open(pool, from);
	hp_ring *ring;
	uint64_t at = sizeof start;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, &start, sizeof start) != sizeof start) die("%s: %s", path, strerror(errno));
	must(hp_ring_create(pool, NULL, &ring), "a ring");
	for (bool last = false; !last;) {
		struct timespec now;
		int n = take(in, frames, hp_ring_pending(ring) ? 0 : UINT64_MAX);
		last = is_last(frames, n);
		clock_gettime(CLOCK_REALTIME, &now);
		for (int i = 0; i < n - last; i++) {
			const struct hp_xdp_frame *frame = &frames[i];
			const struct record_header header = {(uint32_t)now.tv_sec, (uint32_t)now.tv_nsec / 1000, frame->length,
			                                     frame->length};
			char *object = hp_pool_pointer(pool, frame->object), *record = object + frame->offset - sizeof header;
			size_t length = sizeof header + frame->length;
			int error;
			memcpy(record, &header, sizeof header);
			while ((error = hp_ring_write(ring, fd, record, length, at, 0, frame->object + length)) == -EAGAIN)
				must(hp_ring_run(ring, has_been_written, &writer, 1, UINT64_MAX), "waiting for the file");
			must(error, "writing to the file");
			at += length;
		}
		int done = hp_ring_run(ring, has_been_written, &writer, n ? 0 : 1, n ? 0 : WAIT);
		if (done != -ETIME && done != -EINTR) must(done, "waiting for the file");
	}
	while (hp_ring_pending(ring)) {
		int done = hp_ring_run(ring, has_been_written, &writer, 1, UINT64_MAX);
		if (done != -EINTR) must(done, "waiting for the file");
	}
	must(hp_ring_destroy(ring), "ending the ring");
	hp_fifo_close(in);
	if (close(fd) < 0) die("%s: %s", path, strerror(errno));
	printf("written: %llu frames, %llu bytes\n", (unsigned long long)writer.written, (unsigned long long)at);
}

/* ---- the first: receives ---- */

static void receive(hp_cache *cache, const char *interface, hp_fifo *out, uint64_t wanted)
{
	const struct hp_xdp_options options = {.struct_size = sizeof options, .interface = interface, .frames = 4096};
	struct hp_xdp_frame frames[BURST];
	hp_xdp *xdp;
	if (hp_xdp_open(cache, &options, &xdp) < 0) exit(1); /* why is in the log */
	printf("ready\n");
	fflush(stdout);
	struct pollfd socket = {.fd = hp_xdp_fd(xdp), .events = POLLIN};
	for (uint64_t came = 0; came < wanted;) {
		int n = hp_xdp_receive(xdp, frames, wanted - came < BURST ? (unsigned)(wanted - came) : BURST);
		if (n == 0) poll(&socket, 1, -1);
		if (n == -ENOBUFS) { /* all objects are with the others: wait until there is one */
			void *object = hp_cache_get(cache, HP_CACHE_WAIT);
			if (object) hp_cache_put(cache, object);
			continue;
		}
		must(n, "receiving");
		hand_on(out, frames, (size_t)n);
		came += (uint64_t)n;
	}
	struct hp_xdp_stats stats = {.struct_size = sizeof stats};
	must(hp_xdp_stats(xdp, &stats), "counting");
	must(hp_xdp_close(xdp), "closing the interface");
	printf("received: %llu frames, lost %llu\n", (unsigned long long)stats.received,
	       (unsigned long long)(stats.dropped + stats.ring_full + stats.none_to_fill));
	signal(SIGCHLD, SIG_DFL);
	hand_on(out, &no_more, 1);
}

int main(int argc, char **argv)
{
	uint64_t wanted = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;
	if (!wanted) {
		fprintf(stderr, "usage: nic_to_disk INTERFACE FILE COUNT\n");
		return 2;
	}
	const struct hp_pool_options size = {.struct_size = sizeof size, .size = UINT64_C(64) << 20, .log = log_line};
	const struct hp_cache_options cut = {.struct_size = sizeof cut, .size = OBJECT, .align = OBJECT};
	hp_pool *pool;
	hp_cache *cache;
	must(hp_pool_create(&size, &pool), "the pool");
	must(hp_cache_create(pool, "frames", &cut, &cache), "the cache");
	must(hp_cache_set_hard_limit(cache, 16384, NULL, 0), "the limit");
	hp_fifo *to_inspector = fifo_make(pool), *to_writer = fifo_make(pool);
	hp_off first = hp_fifo_id(to_inspector), second = hp_fifo_id(to_writer);
	pid_t me = getpid(), child[2];
	signal(SIGCHLD, child_has_died);
	for (int i = 0; i < 2; i++) {
		child[i] = fork(); /* before there is a socket, which they are not to have */
		if (child[i] < 0) die("fork: %s", strerror(errno));
		if (child[i] > 0) continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != me) return 1;
		if (i == 0)
			inspect(pool, first, second);
		else
			write_file(pool, cache, second, argv[2]);
		hp_fifo_close(to_inspector); /* the handles that it was born with */
		hp_fifo_close(to_writer);
		return hp_pool_detach(pool);
	}
	receive(cache, argv[1], to_inspector, wanted);
	fflush(stdout);
	for (int i = 0; i < 2; i++) {
		int status;
		if (waitpid(child[i], &status, 0) < 0 || status != 0) die("a process of ours has failed");
	}
	must(hp_fifo_destroy(to_inspector, 0), "ending a fifo");
	must(hp_fifo_destroy(to_writer, 0), "ending a fifo");
	must(hp_cache_destroy(cache), "ending the cache: an object is missing");
	return hp_pool_detach(pool);
}
