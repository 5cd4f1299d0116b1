/* AF_XDP: frames are objects of the pool, whatever happens to those who receive
 * and send them.
 *
 * Catches: frames lost, doubled or changed on the way; objects that stay behind
 * in rings; objects of a dead process that are handed out while the kernel
 * still writes to them, or never; errors without cause and cure. A network
 * namespace and a pair of veth interfaces of its own; every frame has a number,
 * and counts are exact. */
#include <hugepool/xdp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <os/packet.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "hp_cache.h"
#include "hp_net.h"

#define POOL_BYTES (16 * MIB)
#define BURST 64u

struct scene {
	hp_pool *pool;
	hp_cache *cache;
	hp_xdp *xdp;
	int far;
	size_t size;
	struct said said;
};

static struct hp_xdp_options near_end(void)
{
	return (struct hp_xdp_options){
		.struct_size = sizeof(struct hp_xdp_options), .interface = "hpb", .frames = 256, .sends = 256};
}

static hp_cache *cache_of(hp_pool *pool, const char *name, size_t size)
{
	hp_cache *cache;
	struct hp_cache_options options = hp_cache_of(size, 0);
	options.align = size;
	must_be(hp_cache_create(pool, name, &options, &cache), 0);
	return cache;
}

static void scene_begin(struct scene *s, size_t size)
{
	struct hp_pool_options options = hp_plain_options(POOL_BYTES);
	*s = (struct scene){.size = size};
	options.log = said_log;
	options.log_arg = &s->said;
	must_be(hp_pool_create(&options, &s->pool), 0);
	s->cache = cache_of(s->pool, "frames", size);
	s->far = net_far();
}

/* The kernel lets go of the queue of one who has died when it comes to it; on a busy machine that is later than an opener waits. */
static int open_when_free(hp_cache *cache, const struct hp_xdp_options *options, hp_xdp **xdp)
{
	int error;
	for (unsigned tries = 0; (error = hp_xdp_open(cache, options, xdp)) == -EBUSY && tries < 100; tries++) {}
	return error;
}

static void scene_open(struct scene *s, unsigned flags)
{
	struct hp_xdp_options options = near_end();
	options.flags = flags;
	int error = open_when_free(s->cache, &options, &s->xdp);
	if (error) fprintf(stderr, "%s", s->said.text);
	must_be(error, 0);
}

static uint64_t out(const struct scene *s)
{
	return hp_cache_numbers(s->cache).in_use;
}

static void scene_end(struct scene *s)
{
	must_be(hp_xdp_close(s->xdp), 0);
	must_be(out(s), 0);
	must_be(hp_cache_destroy(s->cache), 0);
	hp_must_be_empty(s->pool);
	must_be(hp_pool_detach(s->pool), 0);
	close(s->far);
}

static struct hp_xdp_stats numbers(hp_xdp *xdp)
{
	struct hp_xdp_stats stats = {.struct_size = sizeof stats};
	must_be(hp_xdp_stats(xdp, &stats), 0);
	return stats;
}

static unsigned char *bytes_of(const struct scene *s, const struct hp_xdp_frame *frame)
{
	must_be(frame->object % s->size, 0);
	must(frame->offset >= 256 && frame->offset + frame->length <= s->size);
	return (unsigned char *)hp_pool_base(s->pool) + frame->object + frame->offset;
}

/* Exactly the frames from `from` to `to`, in order, to a place of the caller's.
 */
static void take(struct scene *s, uint32_t from, uint32_t to, struct hp_xdp_frame *frames)
{
	for (uint32_t next = from; next < to;) {
		int got = hp_xdp_receive(s->xdp, frames, to - next < BURST ? to - next : BURST);
		must(got >= 0);
		if (!got) must(net_wait(hp_xdp_fd(s->xdp)));
		for (int i = 0; i < got; i++, next++) {
			must_be(frames[i].length, net_length(next));
			must(net_made(bytes_of(s, &frames[i]), frames[i].length, next));
		}
		frames += got;
	}
}

static void put_all(struct scene *s, const struct hp_xdp_frame *frames, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) must_be(hp_cache_put(s->cache, hp_pool_pointer(s->pool, frames[i].object)), 0);
}

/* The far end has got the frames from `from` to `to`. */
static void far_has(int far, uint32_t from, uint32_t to)
{
	unsigned char frame[4096];
	for (; from < to; from++) {
		must(net_wait(far));
		must_be(recv(far, frame, sizeof frame, 0), net_length(from));
		must(net_made(frame, net_length(from), from));
	}
	must(recv(far, frame, sizeof frame, MSG_DONTWAIT) < 0);
}

/* An object with frame number `number` in it. */
static struct hp_xdp_frame make(struct scene *s, uint32_t number)
{
	unsigned char *object = hp_cache_get(s->cache, 0);
	must(object);
	net_make(object + 64, net_length(number), number);
	return (struct hp_xdp_frame){hp_pool_offset(s->pool, object), 64, (uint32_t)net_length(number)};
}

static void send_all(struct scene *s, const struct hp_xdp_frame *frames, uint32_t n)
{
	for (uint32_t i = 0; i < n;) {
		int sent = hp_xdp_send(s->xdp, frames + i, n - i);
		must(sent >= 0);
		i += (uint32_t)sent;
	}
}

/* ---- receiving and sending ---- */

static void frames_land_in_objects_that_any_process_uses(void **state)
{
	(void)state;
	for (size_t size = 2048; size <= 4096; size *= 2) {
		struct scene s;
		enum { FRAMES = 200, ROUNDS = HP_TEST_SANITIZER ? 3 : 20 };
		struct hp_xdp_frame *frames = hp_shared(FRAMES * sizeof *frames);
		scene_begin(&s, size);
		scene_open(&s, 0);
		must_be(out(&s), 256);
		for (uint32_t round = 0; round < ROUNDS; round++) {
			net_send(s.far, round * FRAMES, (round + 1) * FRAMES);
			take(&s, round * FRAMES, (round + 1) * FRAMES, frames);
			must_be(out(&s), 256 + FRAMES); /* the kernel has got as many as it had */
			pid_t other = hp_fork();        /* sees them, and puts half of them back */
			if (other == 0) {
				for (uint32_t i = 0; i < FRAMES; i++)
					must(net_made(bytes_of(&s, &frames[i]), frames[i].length, round * FRAMES + i));
				put_all(&s, frames, FRAMES / 2);
				_exit(0);
			}
			must_be(hp_wait_for(other), 0);
			put_all(&s, frames + FRAMES / 2, FRAMES / 2);
		}
		must_be(hp_xdp_receive(s.xdp, frames, FRAMES), 0);
		struct hp_xdp_stats stats = numbers(s.xdp);
		must_be(stats.received, FRAMES * ROUNDS);
		must_be(stats.waiting, 256);
		must_be(stats.dropped + stats.ring_full + stats.none_to_fill + stats.outside + stats.no_object, 0);
		must_be(stats.bytes, POOL_BYTES);
		must(!stats.zero_copy);
		scene_end(&s);
		munmap(frames, FRAMES * sizeof *frames);
	}
}

static void what_is_sent_goes_back_to_its_cache(void **state)
{
	(void)state;
	struct scene s;
	enum { FRAMES = 1000 };
	static struct hp_xdp_frame frames[FRAMES];
	scene_begin(&s, 2048);
	scene_open(&s, 0);
	for (uint32_t i = 0; i < FRAMES; i++) frames[i] = make(&s, i);
	must_be(out(&s), 256 + FRAMES);
	send_all(&s, frames, FRAMES);
	far_has(s.far, 0, FRAMES);
	while (numbers(s.xdp).done < FRAMES) must_be(hp_xdp_send(s.xdp, NULL, 0), 0);
	must_be(out(&s), 256);
	/* taken and not waited for */
	for (uint32_t i = 0; i < 100; i++) frames[i] = make(&s, FRAMES + i);
	send_all(&s, frames, 100);
	scene_end(&s);
}

static void what_was_received_can_be_sent_on(void **state)
{
	(void)state;
	struct scene s;
	enum { FRAMES = 128, ROUNDS = HP_TEST_SANITIZER ? 3 : 20 };
	struct hp_xdp_frame frames[FRAMES];
	scene_begin(&s, 2048);
	scene_open(&s, 0);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		net_send(s.far, round * FRAMES, (round + 1) * FRAMES);
		take(&s, round * FRAMES, (round + 1) * FRAMES, frames);
		send_all(&s, frames, FRAMES);
		far_has(s.far, round * FRAMES, (round + 1) * FRAMES);
	}
	scene_end(&s);
}

static void what_is_kept_comes_back_to_who_sent_it(void **state)
{
	(void)state;
	struct scene s;
	enum { FRAMES = 300 };
	static struct hp_xdp_frame frames[FRAMES];
	static hp_off back[FRAMES];
	scene_begin(&s, 2048);
	scene_open(&s, HP_XDP_KEEP);
	for (uint32_t i = 0; i < FRAMES; i++) frames[i] = make(&s, i);
	uint32_t sent = 0, came = 0;
	while (came < FRAMES) {
		if (sent < FRAMES) {
			int n = hp_xdp_send(s.xdp, frames + sent, FRAMES - sent);
			must(n >= 0);
			sent += (uint32_t)n;
			must(sent - came <= 256);
		}
		int n = hp_xdp_completed(s.xdp, back + came, FRAMES - came);
		must(n >= 0);
		came += (uint32_t)n;
	}
	far_has(s.far, 0, FRAMES);
	must_be(out(&s), 256 + FRAMES);
	for (uint32_t i = 0; i < FRAMES; i++) must_be(back[i], frames[i].object);
	/* again, and freed by the application before it is sent: free when it is done
   * with */
	must_be(hp_xdp_send(s.xdp, frames, 1), 1);
	must_be(hp_cache_put(s.cache, hp_pool_pointer(s.pool, frames[0].object)), 0);
	while (!(came = (uint32_t)hp_xdp_completed(s.xdp, back, 1))) {}
	must_be(came, 1);
	must_be(back[0], frames[0].object);
	must_be(out(&s), 256 + FRAMES - 1);
	put_all(&s, frames + 1, FRAMES - 1);
	scene_end(&s);
}

static void an_empty_cache_is_said_and_gone_on_from(void **state)
{
	(void)state;
	struct scene s;
	struct hp_xdp_frame frames[BURST];
	scene_begin(&s, 2048);
	must_be(hp_cache_set_hard_limit(s.cache, 16, NULL, 0), 0);
	scene_open(&s, 0);
	must_be(numbers(s.xdp).waiting, 16);
	net_send(s.far, 0, 16);
	take(&s, 0, 16, frames);
	must_be(hp_xdp_receive(s.xdp, frames + 16, 1), -ENOBUFS);
	net_send(s.far, 16, 20); /* nowhere to put them */
	must_be(hp_xdp_receive(s.xdp, frames + 16, 1), -ENOBUFS);
	must_be(numbers(s.xdp).none_to_fill, 4);
	put_all(&s, frames, 8);
	must_be(hp_xdp_receive(s.xdp, frames + 16, 1), 0);
	must_be(numbers(s.xdp).waiting, 8);
	net_send(s.far, 20, 28);
	take(&s, 20, 28, frames);
	put_all(&s, frames, 16);
	must_be(hp_xdp_receive(s.xdp, frames, BURST), 0);
	must_be(numbers(s.xdp).waiting, 16);
	scene_end(&s);
}

static void memory_that_came_later_is_not_used(void **state)
{
	(void)state;
	enum { MOST = 4 * MIB / 2048 };
	static void *all[MOST];
	struct hp_pool_options options = hp_plain_options(2 * MIB);
	struct scene s = {.size = 2048, .far = net_far()};
	struct hp_xdp_frame frame = {.length = 60};
	options.capacity = 4 * MIB;
	must_be(hp_pool_create(&options, &s.pool), 0);
	s.cache = cache_of(s.pool, "frames", 2048);
	scene_open(&s, 0);
	must_be(numbers(s.xdp).bytes, 2 * MIB);
	unsigned n = 0, waiting = 256;
	while (n < MOST && (all[n] = hp_cache_get(s.cache, 0))) {
		hp_off off = hp_pool_offset(s.pool, all[n++]);
		if (off > frame.object) frame.object = off;
	}
	must(frame.object > 2 * MIB);
	must_be(hp_xdp_send(s.xdp, &frame, 1), -ERANGE);
	must_be(hp_cache_put(s.cache, hp_pool_pointer(s.pool, frame.object)), 0); /* all that there is */
	net_send(s.far, 0, waiting);
	for (uint32_t i = 0; i < waiting; i++) {
		struct hp_xdp_frame got;
		take(&s, i, i + 1, &got);
		all[n++] = hp_pool_pointer(s.pool, got.object);
	}
	struct hp_xdp_frame none;
	must_be(hp_xdp_receive(s.xdp, &none, 1), -ENOBUFS);
	must(numbers(s.xdp).outside > 0);
	for (unsigned i = 0; i < n; i++)
		if (hp_pool_offset(s.pool, all[i]) != frame.object) must_be(hp_cache_put(s.cache, all[i]), 0);
	scene_end(&s);
}

static bool has_huge;

static void it_works_on_huge_pages(void **state)
{
	(void)state;
	if (!has_huge) hp_test_skip_one("no huge pages of 2 MiB");
	struct hp_pool_options options = hp_plain_options(POOL_BYTES);
	struct scene s = {.size = 4096, .far = net_far()};
	struct hp_xdp_frame frames[200];
	options.rung = HP_RUNG_2M;
	must_be(hp_pool_create(&options, &s.pool), 0);
	s.cache = cache_of(s.pool, "frames", 4096);
	scene_open(&s, 0);
	net_send(s.far, 0, 200);
	take(&s, 0, 200, frames);
	send_all(&s, frames, 200);
	far_has(s.far, 0, 200);
	scene_end(&s);
}

static void a_frame_that_is_too_long_is_dropped_and_counted(void **state)
{
	(void)state;
	struct scene s;
	struct hp_xdp_frame frame;
	struct hp_xdp_options options = near_end();
	scene_begin(&s, 2048);
	options.headroom = 1000;
	must_be(open_when_free(s.cache, &options, &s.xdp), 0);
	unsigned char bytes[1514];
	net_make(bytes, sizeof bytes, 1);
	must_be(send(s.far, bytes, sizeof bytes, 0), sizeof bytes);
	net_make(bytes, 2048 - 1256, 2);
	must_be(send(s.far, bytes, 2048 - 1256, 0), 2048 - 1256);
	must(net_wait(hp_xdp_fd(s.xdp)));
	must_be(hp_xdp_receive(s.xdp, &frame, 1), 1);
	must_be(frame.offset, 1256);
	must(net_made(bytes_of(&s, &frame), frame.length, 2));
	must_be(numbers(s.xdp).dropped, 1);
	put_all(&s, &frame, 1);
	scene_end(&s);
}

/* ---- what is refused ---- */

static void must_say(struct scene *s, const char *cause, const char *cure)
{
	if (!strstr(s->said.text, cause) || !strstr(s->said.text, cure)) {
		fprintf(stderr, "said: %s", s->said.text);
		must(!"the message names cause and cure");
	}
	must_be(s->said.lines, 1);
	s->said = (struct said){.lines = 0};
}

static void wrong_options_are_refused(void **state)
{
	(void)state;
	struct scene s;
	scene_begin(&s, 2048);
	struct held before = held_now();
	hp_xdp *xdp;
#define REFUSED(error, cause, cure, ...) \
	do { \
		struct hp_xdp_options o = near_end(); \
		__VA_ARGS__; \
		must_be(hp_xdp_open(s.cache, &o, &xdp), error); \
		must(!xdp); \
		must_say(&s, cause, cure); \
		must_be(out(&s), 0); \
	} while (0)
	REFUSED(-EINVAL, "struct_size", "", o.struct_size = 3);
	REFUSED(-EINVAL, "interface", "", o.interface = NULL);
	REFUSED(-EINVAL, "interface", "", o.interface = "");
	REFUSED(-EINVAL, "frames", "65536", o.frames = 65537);
	REFUSED(-EINVAL, "sends", "65536", o.sends = UINT32_MAX);
	REFUSED(-EINVAL, "headroom", "", o.headroom = 1792);
	REFUSED(-EINVAL, "flags", "", o.flags = 2);
	REFUSED(-EINVAL, "mode", "", o.mode = (hp_xdp_mode)3);
	REFUSED(-EINVAL, "xsk_map", "", o.xsk_map = -1);
	REFUSED(-ENODEV, "no interface called hpc", "ip link", o.interface = "hpc");
	REFUSED(-EINVAL, "no queue 7", "ethtool -l hpb", o.queue = 7);
	REFUSED(-EOPNOTSUPP, "zero-copy", "HP_XDP_COPY", o.mode = HP_XDP_ZERO_COPY);
	REFUSED(-EINVAL, "xsk_map", "XSKMAP", o.xsk_map = s.far);
	must_be(hp_xdp_open(NULL, NULL, &xdp), -EINVAL);
	must_be(hp_xdp_close(NULL), 0);

	hp_cache *right = s.cache;
	s.cache = hp_cache_make(s.pool, "unaligned", 2048, 0);
	REFUSED(-EINVAL, "2048 or 4096", "align");
	must_be(hp_cache_destroy(s.cache), 0);
	s.cache = cache_of(s.pool, "small", 1024);
	REFUSED(-EINVAL, "2048 or 4096", "align");
	must_be(hp_cache_destroy(s.cache), 0);
	s.cache = right;
	must_hold_no_more(before);

	/* two at once */
	scene_open(&s, 0);
	struct hp_xdp_options o = near_end();
	must_be(hp_xdp_open(s.cache, &o, &xdp), -EBUSY);
	must_say(&s, "queue 0 of hpb has another AF_XDP socket", "end that one");
	scene_end(&s);
}

static void what_cannot_be_sent_is_refused(void **state)
{
	(void)state;
	struct scene s;
	scene_begin(&s, 2048);
	scene_open(&s, 0);
	struct hp_xdp_frame good = make(&s, 1), bad;
#define UNSENT(error, ...) \
	do { \
		bad = good; \
		__VA_ARGS__; \
		must_be(hp_xdp_send(s.xdp, &bad, 1), error); \
		must_be(out(&s), 257); \
	} while (0)
	UNSENT(-EINVAL, bad.length = 0);
	UNSENT(-EINVAL, bad.length = 2048);
	UNSENT(-EINVAL, bad.length = UINT32_MAX);
	UNSENT(-EINVAL, bad.offset = 2048);
	UNSENT(-EINVAL, bad.offset = UINT32_MAX);
	UNSENT(-EINVAL, bad.object += 1);
	UNSENT(-EINVAL, bad.object = HP_OFF_NONE);
	UNSENT(-EINVAL, bad.object = POOL_BYTES);
	UNSENT(-ENOENT, bad.object = POOL_BYTES - 2048); /* no live block */
	hp_off none;
	must_be(hp_xdp_completed(s.xdp, &none, 1), -EINVAL);
	hp_cache *other = cache_of(s.pool, "other", 2048);
	void *alien = hp_cache_get(other, 0);
	UNSENT(-ENOENT, bad.object = hp_pool_offset(s.pool, alien));
	must_be(hp_cache_put(other, alien), 0);
	must_be(hp_cache_destroy(other), 0);
	/* the good one goes, once, and those behind a bad one do not */
	struct hp_xdp_frame three[3] = {good, {HP_OFF_NONE, 0, 64}, make(&s, 2)};
	must_be(hp_xdp_send(s.xdp, three, 3), 1);
	must_be(hp_xdp_send(s.xdp, &good, 1), -EBUSY); /* it is being sent */
	far_has(s.far, 1, 2);
	while (numbers(s.xdp).done < 1) must_be(hp_xdp_send(s.xdp, NULL, 0), 0);
	int again = hp_xdp_send(s.xdp, &good, 1); /* free */
	must(again == -EINVAL || again == -EALREADY || again == -ENOENT);
	must_be(hp_xdp_send(s.xdp, three + 2, 1), 1);
	far_has(s.far, 2, 3);
	/* what was taken stays so while the interface is down */
	must_be(system("ip link set hpb down"), 0);
	good = make(&s, 3);
	must_be(hp_xdp_send(s.xdp, &good, 1), 1);
	must_be(hp_xdp_send(s.xdp, NULL, 0), -ENETDOWN);
	must_be(system("ip link set hpb up"), 0);
	must_be(hp_xdp_send(s.xdp, NULL, 0), 0);
	far_has(s.far, 3, 4);
	struct hp_xdp_stats stats = {.struct_size = 8};
	must_be(hp_xdp_stats(s.xdp, &stats), -EINVAL);
	scene_end(&s);
}

static void drop_capability(int capability)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	must_be(syscall(SYS_capget, &header, data), 0);
	for (unsigned i = 0; i < 2; i++) data[i].inheritable = 0;
	data[capability / 32].effective &= ~(1u << capability % 32);
	data[capability / 32].permitted &= ~(1u << capability % 32);
	must_be(syscall(SYS_capset, &header, data), 0);
}

static int open_without(struct scene *s, int capability)
{
	pid_t child = hp_fork();
	if (child == 0) {
		hp_xdp *xdp;
		struct hp_xdp_options options = near_end();
		struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
		must_be(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
		drop_capability(capability);
		if (capability == CAP_SYS_ADMIN) drop_capability(CAP_NET_ADMIN); /* the former does for the latter */
		int error = hp_xdp_open(s->cache, &options, &xdp);
		switch (capability) {
		case CAP_NET_RAW: must_say(s, "AF_XDP sockets are not allowed", "CAP_NET_RAW"); break;
		case CAP_IPC_LOCK: must_say(s, "RLIMIT_MEMLOCK", "16384 KiB"); break;
		default: must_say(s, "may not be put on hpb", "CAP_NET_ADMIN and CAP_BPF");
		}
		must_be(out(s), 0);
		_exit(-error);
	}
	return -hp_wait_for(child);
}

static void what_a_process_may_not_do_is_said(void **state)
{
	(void)state;
	struct scene s;
	scene_begin(&s, 2048);
	must_be(open_without(&s, CAP_NET_RAW), -EPERM);
	must_be(open_without(&s, CAP_IPC_LOCK), -ENOBUFS);
	must_be(open_without(&s, CAP_SYS_ADMIN), -EPERM);
	scene_end(&s);
}

/* Every call to the kernel fails once, but those that give back; a bind is tried again and again, which is one. */
static unsigned calls, fail_at;
static enum os_call last_call;

static bool fails_at(enum os_call call, int64_t *result)
{
	if (call == OS_CLOSE || call == OS_UNMAP || call == OS_FUTEX_WAIT) return false;
	bool again = call == OS_BIND && last_call == OS_BIND;
	last_call = call;
	if (again || calls++ != fail_at) return false;
	*result = -EIO;
	return true;
}

static void a_failure_on_the_way_leaves_nothing(void **state)
{
	(void)state;
	struct scene s;
	hp_xdp *xdp;
	unsigned failed = 0;
	struct hp_xdp_options options = near_end();
	options.frames = options.sends = 16;
	scene_begin(&s, 2048);
	must_be(open_when_free(s.cache, &options, &xdp), 0); /* all that is made once is made */
	must_be(hp_xdp_close(xdp), 0);
	struct held before = held_now();
	for (fail_at = 0;; fail_at++) {
		calls = 0;
		os_hook = fails_at;
		int error = hp_xdp_open(s.cache, &options, &xdp);
		os_hook = NULL;
		if (calls <= fail_at && !error) break;
		if (error) {
			must(!xdp);
			failed++;
		} else {
			must_be(hp_xdp_close(xdp), 0);
		}
		must_be(out(&s), 0);
		must_hold_no_more(before);
	}
	must(failed >= 15);
	must_be(hp_xdp_close(xdp), 0);
	scene_end(&s);
}

static int foreign_program(void)
{
	const struct bpf_insn pass[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = XDP_PASS},
	                                {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.prog_type = BPF_PROG_TYPE_XDP;
	attr.insns = (uintptr_t)pass;
	attr.insn_cnt = 2;
	attr.license = (uintptr_t) "MIT";
	int program = os_bpf(BPF_PROG_LOAD, &attr, sizeof attr);
	must(program >= 0);
	memset(&attr, 0, sizeof attr);
	attr.link_create.prog_fd = (uint32_t)program;
	attr.link_create.target_ifindex = if_nametoindex("hpb");
	attr.link_create.attach_type = BPF_XDP;
	int link = os_bpf(BPF_LINK_CREATE, &attr, sizeof attr);
	must(link >= 0);
	close(program);
	return link;
}

static void a_foreign_program_stays(void **state)
{
	(void)state;
	struct scene s;
	hp_xdp *xdp;
	struct hp_xdp_options options = near_end();
	scene_begin(&s, 2048);
	int link = foreign_program();
	must_be(hp_xdp_open(s.cache, &options, &xdp), -EBUSY);
	must_say(&s, "another XDP program is on hpb", "xsk_map");
	close(link);
	scene_open(&s, 0);
	scene_end(&s);
}

/* ---- several processes, and their deaths ---- */

static void open_other_queue(const struct child *me, void *arg)
{
	struct scene *s = arg;
	struct hp_xdp_options options = near_end();
	options.queue = 1;
	must_be(open_when_free(s->cache, &options, &s->xdp), 0);
	child_here(me);
	must_be(hp_xdp_close(s->xdp), 0);
}

static void the_program_is_shared_and_goes_with_the_last(void **state)
{
	(void)state;
	struct scene s;
	struct hp_xdp_frame frames[20];
	scene_begin(&s, 2048);
	for (unsigned round = 0; round < 2; round++) {
		struct child other = child_start(open_other_queue, &s);
		must(child_hear(&other)); /* it has made the program */
		scene_open(&s, 0);
		net_send(s.far, 0, 10);
		take(&s, 0, 10, frames);
		if (round == 0)
			child_finish(&other);
		else
			child_kill(&other);
		net_send(s.far, 10, 20);
		take(&s, 10, 20, frames + 10);
		put_all(&s, frames, 20);
		must_be(hp_xdp_close(s.xdp), 0);
		s.xdp = NULL;
		hp_pool_recover(s.pool);
		must_be(out(&s), 0);
		int link = foreign_program(); /* there is none of ours any more */
		close(link);
	}
	scene_end(&s);
}

struct victim {
	struct scene *scene;
	struct hp_xdp_frame *frames; /* what is in its hands, in memory that outlives it; or a process */
};

static void open_deep(struct scene *s)
{
	struct hp_xdp_options options = near_end();
	options.frames = 4096;
	must_be(open_when_free(s->cache, &options, &s->xdp), 0);
}

/* For ever: of what comes it sends on every second frame, and puts back the others. */
static void receive_until_killed(const struct child *me, void *arg)
{
	struct victim *victim = arg;
	struct scene *s = victim->scene;
	struct hp_xdp_frame *frames = victim->frames;
	open_deep(s);
	child_say(me);
	for (;;) {
		int got = hp_xdp_receive(s->xdp, frames, BURST);
		must(got >= 0);
		if (!got) net_wait(hp_xdp_fd(s->xdp));
		for (int i = 0; i < got; i++)
			if (i & 1)
				while (hp_xdp_send(s->xdp, &frames[i], 1) == 0) {}
			else
				must_be(hp_cache_put(s->cache, hp_pool_pointer(s->pool, frames[i].object)), 0);
	}
}

/* At a pace at which what lies in the rings lasts until the kernel has torn them down. */
static void send_until_killed(const struct child *me, void *arg)
{
	struct scene *s = arg;
	unsigned char frame[64];
	net_make(frame, sizeof frame, 7);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test fail */
	child_say(me);
	for (unsigned i = 1;; i++) {
		send(s->far, frame, sizeof frame, 0);
		if (i % 8 == 0) nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
	}
}

static void spin(uint64_t ns)
{
	for (uint64_t until = os_now_ns() + ns; os_now_ns() < until;) {}
}

/* Everything that is free, marked where frames land, and looked at while they keep coming: nobody writes there. */
static void free_memory_must_be_ours(struct scene *s, uint64_t ns)
{
	enum { MOST = POOL_BYTES / 2048, MARK = 64 };
	static char *all[MOST], mark[MARK];
	unsigned n = 0;
	memset(mark, 0xa5, MARK);
	while (n < MOST && (all[n] = hp_cache_get(s->cache, 0))) memcpy(all[n++] + 256, mark, MARK);
	must(n > MOST - 512);
	uint64_t until = os_now_ns() + ns;
	do
		for (unsigned i = 0; i < n; i++) must_be(memcmp(all[i] + 256, mark, MARK), 0);
	while (os_now_ns() < until);
	must_be(hp_cache_put_bulk(s->cache, n, (void *const *)all), 0);
}

static void what_lay_in_the_rings_of_the_dead_comes_back_unharmed(void **state)
{
	(void)state;
	struct scene s;
	uint64_t seed = hp_seed("killed");
	scene_begin(&s, 2048);
	struct victim victim = {.scene = &s, .frames = hp_shared(BURST * sizeof *victim.frames)};
	struct child sender = child_start(send_until_killed, &s);
	must(child_hear(&sender));
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 4 : 12); round++) {
		struct child child = child_start(receive_until_killed, &victim);
		must(child_hear(&child));
		spin(hp_below(&seed, 4000000));
		must_be(kill(child.pid, SIGKILL), 0);
		while (hp_pool_recover(s.pool) >= 0 && out(&s) > BURST) {
		} /* at the first moment, not when it is known to be dead */
		free_memory_must_be_ours(&s, 20000000);
		must(WIFSIGNALED(child_end(&child)));
		/* The rest is what its hands held, and where they had it written down. */
		for (unsigned i = 0; i < BURST && out(&s); i++)
			hp_cache_put(s.cache, hp_pool_pointer(s.pool, victim.frames[i].object));
		must_be(out(&s), 0);
	}
	child_kill(&sender);
	munmap(victim.frames, BURST * sizeof *victim.frames);
	scene_end(&s);
}

/* A forked child keeps the socket, and the kernel goes on writing: nothing comes back before that one has ended, too. */
static void leave_a_child(const struct child *me, void *arg)
{
	struct victim *victim = arg;
	struct scene *s = victim->scene;
	scene_open(s, 0);
	pid_t child = fork();
	if (child == 0) {
		child_say(me);
		child_hear(me); /* until the test says so, by closing its end */
		_exit(0);
	}
	pause();
}

static void what_the_kernel_still_writes_to_stays_where_it_is(void **state)
{
	(void)state;
	struct scene s;
	scene_begin(&s, 2048);
	struct victim victim = {.scene = &s};
	struct child child = child_start(leave_a_child, &victim);
	must(child_hear(&child));
	must_be(kill(child.pid, SIGKILL), 0);
	must_be(hp_wait_for(child.pid), 128 + SIGKILL);
	must(hp_pool_recover(s.pool) >= 0);
	must_be(out(&s), 256);
	net_send(s.far, 0, 200); /* they are received, by nobody */
	free_memory_must_be_ours(&s, 1000000);
	must(hp_pool_recover(s.pool) >= 0);
	must_be(out(&s), 256);
	close(child.says);
	unsigned char byte;
	must_be(read(child.hears, &byte, 1), 0); /* it has ended, or is about to */
	close(child.hears);
	/* no child of ours, so there is nothing that tells when it has */
	while (hp_pool_recover(s.pool) >= 0 && out(&s)) sched_yield();
	free_memory_must_be_ours(&s, 1000000);
	scene_open(&s, 0);
	scene_end(&s);
}

/* The address space outlives the descriptors: somebody shares it, and has closed them. */
static int hold_memory(void *arg)
{
	(void)arg;
	syscall(SYS_close_range, 0, ~0u, 0);
	while (pause()) {}
	return 0;
}

static void leave_the_memory(const struct child *me, void *arg)
{
	static _Alignas(64) char stack[65536];
	struct victim *victim = arg;
	open_deep(victim->scene);
	pid_t holder = clone(hold_memory, stack + sizeof stack, CLONE_VM, NULL);
	must(holder > 0);
	victim->frames[0].object = (hp_off)holder;
	child_say(me);
	pause();
}

static void rings_that_are_still_mapped_are_open(void **state)
{
	(void)state;
	struct scene s;
	scene_begin(&s, 2048);
	struct victim victim = {.scene = &s, .frames = hp_shared(BURST * sizeof *victim.frames)};
	struct child sender = child_start(send_until_killed, &s);
	must(child_hear(&sender));
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 2 : 6); round++) {
		struct child child = child_start(leave_the_memory, &victim);
		must(child_hear(&child));
		child_kill(&child);
		must(hp_pool_recover(s.pool) >= 0);
		must_be(out(&s), 4096);
		must_be(kill((pid_t)victim.frames[0].object, SIGKILL), 0);
		while (hp_pool_recover(s.pool) >= 0 && out(&s)) {}
		free_memory_must_be_ours(&s, 20000000);
	}
	child_kill(&sender);
	munmap(victim.frames, BURST * sizeof *victim.frames);
	scene_end(&s);
}

/* A process that waits, asleep, when it is killed; and one that had closed all it could before. */
static void sleep_until_killed(const struct child *me, void *arg)
{
	struct scene *s = ((struct victim *)arg)->scene;
	struct hp_xdp_frame frames[BURST];
	scene_open(s, 0);
	for (uint32_t i = 0; i < BURST; i++) frames[i] = make(s, i);
	must_be(hp_xdp_send(s->xdp, frames, BURST), BURST);
	child_say(me);
	pause();
}

static void what_was_being_sent_comes_back(void **state)
{
	(void)state;
	struct scene s;
	scene_begin(&s, 2048);
	struct victim victim = {.scene = &s};
	for (unsigned round = 0; round < 5; round++) {
		struct child child = child_start(sleep_until_killed, &victim);
		must(child_hear(&child));
		must_be(out(&s), 256 + BURST);
		child_kill(&child);
		far_has(s.far, 0, BURST);
		must(hp_pool_recover(s.pool) >= 0);
		must_be(out(&s), 0);
	}
	scene_end(&s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(frames_land_in_objects_that_any_process_uses),
	cmocka_unit_test(what_is_sent_goes_back_to_its_cache),
	cmocka_unit_test(what_was_received_can_be_sent_on),
	cmocka_unit_test(what_is_kept_comes_back_to_who_sent_it),
	cmocka_unit_test(an_empty_cache_is_said_and_gone_on_from),
	cmocka_unit_test(memory_that_came_later_is_not_used),
	cmocka_unit_test(it_works_on_huge_pages),
	cmocka_unit_test(a_frame_that_is_too_long_is_dropped_and_counted),
	cmocka_unit_test(wrong_options_are_refused),
	cmocka_unit_test(what_cannot_be_sent_is_refused),
	cmocka_unit_test(what_a_process_may_not_do_is_said),
	cmocka_unit_test(a_failure_on_the_way_leaves_nothing),
	cmocka_unit_test(a_foreign_program_stays),
	cmocka_unit_test(the_program_is_shared_and_goes_with_the_last),
	cmocka_unit_test(what_lay_in_the_rings_of_the_dead_comes_back_unharmed),
	cmocka_unit_test(what_the_kernel_still_writes_to_stays_where_it_is),
	cmocka_unit_test(rings_that_are_still_mapped_are_open),
	cmocka_unit_test(what_was_being_sent_comes_back),
};

int main(void)
{
	has_huge = hp_test_has_huge(HP_HUGE_2M, POOL_BYTES / (2 * MIB) + 2);
	net_own(2);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
