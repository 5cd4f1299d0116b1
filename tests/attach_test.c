/* Attaching to what may be anything: files of the wrong kind, pools cut short, headers of other versions or of random
 * bytes, files of several pools mixed, pools whose creator died half-way. Each is refused with its error, at once, and
 * nothing stays mapped or open. Would catch a check that is missing (the file's liveness is somebody else's, a length from
 * the header is believed), a leak on any way out, and a wait for somebody dead. */
#include "hp_process.h"

#include <os/os.h>
#include <pool/pool.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { LIVES, CONTROL, DATA };

static void refused(const int fds[3], int error)
{
	struct held before = held_now();
	struct said said = {0};
	struct hp_attach_options options = {.struct_size = sizeof options, .log = said_log, .log_arg = &said};
	hp_pool *pool = (hp_pool *)&said;
	assert_int_equal(hp_pool_attach(fds, &options, &pool), error);
	assert_null(pool);
	if (error != -EBADF && error != -EACCES && error != -EPERM) assert_true(said.lines > 0);
	must_hold_no_more(before);
}

static void observer_refused(const int fds[3], int error)
{
	struct held before = held_now();
	hp_pool *pool = (hp_pool *)&before;
	assert_int_equal(hp_pool_observe(fds, &pool), error);
	assert_null(pool);
	must_hold_no_more(before);
}

static int memfd(uint64_t size, int seals)
{
	int fd = memfd_create("hp-attach-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	if (seals) assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

#define SEALED (F_SEAL_GROW | F_SEAL_SHRINK)

/* The control file of a pool in a fresh, sealed file, with a header of the test's making. */
static int control_copy(hp_pool *pool, const struct pool_header *header, uint64_t size)
{
	int fds[3], fd = memfd(size, 0);
	hp_pool_fds(pool, fds);
	char buf[65536];
	ssize_t got;
	for (off_t at = 0; (uint64_t)at < size && (got = pread(fds[CONTROL], buf, sizeof buf, at)) > 0; at += got) {
		if ((uint64_t)got > size - (uint64_t)at) got = (ssize_t)(size - (uint64_t)at);
		assert_int_equal(pwrite(fd, buf, (size_t)got, at), got);
	}
	if (header) assert_int_equal(pwrite(fd, header, sizeof *header, 0), sizeof *header);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALED), 0);
	return fd;
}

static void files_of_the_wrong_kind(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	int good[3], pipes[2], sockets[2];
	hp_pool_fds(pool, good);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	char path[] = "/tmp/hp-attach-test-XXXXXX";
	int file = mkstemp(path);
	assert_true(file >= 0);
	unlink(path);
	struct stat st;
	assert_int_equal(fstat(good[CONTROL], &st), 0);
	assert_int_equal(ftruncate(file, st.st_size), 0);
	int unsealed = control_copy(pool, NULL, (uint64_t)st.st_size), shrinks, grows;
	shrinks = memfd((uint64_t)st.st_size, F_SEAL_GROW);
	grows = memfd((uint64_t)st.st_size, F_SEAL_SHRINK);
	close(unsealed);
	unsealed = memfd((uint64_t)st.st_size, 0);
	int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const int wrong[] = {pipes[0], pipes[1], sockets[0], file, null, directory, unsealed, shrinks, grows};
	for (int place = LIVES; place <= DATA; place++) {
		for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
			int fds[3] = {good[0], good[1], good[2]};
			fds[place] = wrong[i];
			refused(fds, -EINVAL);
			observer_refused(fds, -EINVAL);
		}
		int fds[3] = {good[0], good[1], good[2]};
		fds[place] = -1;
		refused(fds, -EBADF);
		if (place != LIVES) observer_refused(fds, -EBADF);
		fds[place] = 1000000;
		refused(fds, -EBADF);
	}
	hp_pool *again;
	assert_int_equal(hp_pool_attach(NULL, NULL, &again), -EINVAL);
	assert_int_equal(hp_pool_attach(good, NULL, NULL), -EINVAL);
	/* all that was well: the same files in their places */
	assert_int_equal(hp_pool_attach(good, NULL, &again), 0);
	hp_pool_detach(again);
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) close(wrong[i]);
	close(sockets[1]);
	hp_pool_detach(pool);
}

/* Each place of each order, and the files of two pools of one shape mixed. The lives file of another pool would be the
 * worst: everybody would take everybody for dead. */
static void files_of_several_pools(void **state)
{
	(void)state;
	hp_pool *one = hp_plain_pool(MIB, 0), *two = hp_plain_pool(MIB, 0);
	int a[3], b[3];
	hp_pool_fds(one, a);
	hp_pool_fds(two, b);
	for (int mix = 1; mix < 7; mix++) {
		int fds[3] = {mix & 1 ? b[0] : a[0], mix & 2 ? b[1] : a[1], mix & 4 ? b[2] : a[2]};
		refused(fds, -EINVAL);
		observer_refused(fds, -EINVAL);
	}
	for (int x = 0; x < 27; x++) {
		int fds[3] = {a[x % 3], a[x / 3 % 3], a[x / 9]};
		if (fds[0] == a[0] && fds[1] == a[1] && fds[2] == a[2]) continue;
		struct held before = held_now();
		hp_pool *pool;
		int error = hp_pool_attach(fds, NULL, &pool);
		assert_true(error == -EINVAL || error == -EBADMSG || error == -ENODATA);
		must_hold_no_more(before);
	}
	hp_must_be_sound(one);
	hp_pool_detach(one);
	hp_pool_detach(two);
}

static struct pool_header header_of(hp_pool *pool)
{
	struct pool_header header;
	int fds[3];
	hp_pool_fds(pool, fds);
	assert_int_equal(pread(fds[CONTROL], &header, sizeof header, 0), sizeof header);
	return header;
}

/* Attaches to the pool with a control file of this header and size. */
static void header_refused(hp_pool *pool, struct pool_header *header, bool checksum, int error)
{
	int fds[3];
	hp_pool_fds(pool, fds);
	if (checksum) header->geometry.checksum = pool_geometry_checksum(&header->geometry);
	fds[CONTROL] = control_copy(pool, header, header_of(pool).geometry.control_size);
	refused(fds, error);
	observer_refused(fds, error);
	close(fds[CONTROL]);
}

static void headers_that_are_wrong(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	const struct pool_header good = header_of(pool);
	struct pool_header h;
#define WRONG(error, checksum, ...) \
	do { \
		h = good; \
		__VA_ARGS__; \
		header_refused(pool, &h, checksum, error); \
	} while (0)
	/* made by somebody else */
	WRONG(-EINVAL, true, h.geometry.magic ^= 1);
	WRONG(-EPROTO, true, h.geometry.version++);
	WRONG(-EPROTO, true, h.geometry.layout_hash ^= 1);
	WRONG(-EPROTO, true, h.geometry.page_granule = 16384);
	/* never finished */
	WRONG(-ENODATA, false, memset(&h, 0, sizeof h));
	WRONG(-ENODATA, false, h.ready = 0);
	WRONG(-ENODATA, false, h.ready ^= 1);
	/* damaged: every byte of the geometry counts */
	for (size_t i = offsetof(struct pool_geometry, id); i < sizeof h.geometry; i += 3)
		WRONG(-EBADMSG, false, ((unsigned char *)&h)[i] ^= 0x10);
	/* made to look right: the checksum is true, what it says is not */
	const uint64_t sizes[] = {0, 1, 4095, 2 * MIB, UINT64_C(1) << 47, UINT64_MAX, UINT64_MAX - 4095};
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		WRONG(-EBADMSG, true, h.geometry.capacity = sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.control_size = sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.units_at = sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.records_at = sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.slots_at = sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.chunks_at = sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.hints_at = sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.nodes_at = sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.slots = (uint32_t)sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.records = (uint32_t)sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.chunks = (uint32_t)sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.chunk_pages = (uint32_t)sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.page_size = i == 3 ? 3 * PAGE : sizes[i]);
		WRONG(-EBADMSG, true, h.geometry.rung = i == 1 ? 5 : (uint32_t)sizes[i]);
	}
	WRONG(-EBADMSG, true, h.geometry.chunk_pages = 32);
	WRONG(-EBADMSG, true, h.geometry.chunk_pages = 96);
	WRONG(-EBADMSG, true, h.geometry.chunk_pages = 1024);
	WRONG(-EBADMSG, true, h.geometry.rung = HP_RUNG_2M; h.geometry.page_size = 2 * MIB); /* the file says otherwise */
	WRONG(-EBADMSG, true, memset(h.geometry.name, 'x', sizeof h.geometry.name));
	hp_must_be_sound(pool);
	hp_pool_detach(pool);
}

static void files_cut_short(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	uint64_t size = header_of(pool).geometry.control_size;
	const uint64_t cut[] = {
		0,        1,        64,         sizeof(struct pool_header) - 1, sizeof(struct pool_header), PAGE, size - PAGE,
		size - 1, size + 1, size + PAGE};
	for (unsigned i = 0; i < sizeof cut / sizeof *cut; i++) {
		int fds[3];
		hp_pool_fds(pool, fds);
		fds[CONTROL] = control_copy(pool, NULL, cut[i]);
		refused(fds, -EBADMSG);
		observer_refused(fds, -EBADMSG);
		close(fds[CONTROL]);
	}
	hp_pool_detach(pool);
}

static int reopened(int fd, int flags)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int again = open(path, flags | O_CLOEXEC);
	assert_true(again >= 0);
	return again;
}

static void descriptors_that_cannot_be_written(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	for (int place = CONTROL; place <= DATA; place++) {
		int fds[3];
		hp_pool_fds(pool, fds);
		fds[place] = reopened(fds[place], O_RDONLY);
		refused(fds, -EACCES);
		hp_pool *watcher; /* for looking it is enough */
		assert_int_equal(hp_pool_observe(fds, &watcher), 0);
		assert_int_equal(hp_stats(watcher).committed, hp_stats(pool).committed);
		hp_pool_detach(watcher);
		close(fds[place]);
	}
	hp_pool_detach(pool);
}

static void options_are_checked(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0), *again;
	int fds[3];
	hp_pool_fds(pool, fds);
	struct {
		struct hp_attach_options options;
		unsigned char later[16];
	} longer = {.options = {.struct_size = sizeof longer}};
	assert_int_equal(hp_pool_attach(fds, &longer.options, &again), 0);
	hp_pool_detach(again);
	longer.later[15] = 1; /* asks for something that this version does not know */
	assert_int_equal(hp_pool_attach(fds, &longer.options, &again), -EINVAL);
	struct hp_attach_options rubbish = {.struct_size = SIZE_MAX}; /* an error, not a walk through memory */
	assert_int_equal(hp_pool_attach(fds, &rubbish, &again), -EINVAL);
	struct hp_attach_options traced = {.trace = 4};
	assert_int_equal(hp_pool_attach(fds, &traced, &again), -EINVAL);
	struct hp_attach_options none = {0};
	assert_int_equal(hp_pool_attach(fds, &none, &again), 0);
	hp_pool_detach(again);
	hp_pool_detach(pool);
}

static void twice_in_one_process(void **state)
{
	(void)state;
	hp_pool *one = hp_plain_pool(4 * MIB, 0), *two = hp_attach_again(one), *three;
	int fds[3];
	hp_pool_fds(one, fds);
	struct hp_attach_options elsewhere = {.struct_size = sizeof elsewhere, .elsewhere = true};
	assert_int_equal(hp_pool_attach(fds, &elsewhere, &three), 0);
	hp_pool *pool[] = {one, two, three};
	for (int i = 0; i < 3; i++)
		for (int k = 0; k < i; k++) assert_ptr_not_equal(hp_pool_base(pool[i]), hp_pool_base(pool[k]));
	assert_int_equal(hp_stats(one).processes, 3);
	for (int i = 0; i < 3; i++) {
		void *block;
		assert_int_equal(hp_page_alloc(pool[i], 3 * PAGE, 0, &block), 0);
		hp_mark(block, 3, 77u + (unsigned)i);
		hp_off off = hp_pool_offset(pool[i], block);
		for (int k = 0; k < 3; k++) assert_true(hp_marked(hp_pool_pointer(pool[k], off), 3, 77u + (unsigned)i));
		assert_int_equal(hp_pool_offset(pool[(i + 1) % 3], block), HP_OFF_NONE);
		assert_int_equal(hp_page_free(pool[(i + 1) % 3], block), -EINVAL);
		assert_int_equal(hp_page_free_at(pool[(i + 1) % 3], off), 0);
	}
	hp_must_be_empty(two);
	hp_pool_detach(one);
	pool_must_work(two, 4 * MIB);
	hp_pool_detach(two);
	pool_must_work(three, 4 * MIB);
	hp_must_be_empty(three);
	hp_pool_detach(three);
}

static void as_many_processes_as_there_is_room_for(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(MIB);
	options.max_processes = 3;
	hp_pool *pool[3], *more;
	assert_int_equal(hp_pool_create(&options, &pool[0]), 0);
	pool[1] = hp_attach_again(pool[0]);
	pool[2] = hp_attach_again(pool[0]);
	int fds[3];
	hp_pool_fds(pool[0], fds);
	struct held before = held_now();
	assert_int_equal(hp_pool_attach(fds, NULL, &more), -EUSERS);
	must_hold_no_more(before);
	hp_pool_detach(pool[1]);
	assert_int_equal(hp_pool_attach(fds, NULL, &pool[1]), 0);
	for (int i = 0; i < 3; i++) hp_pool_detach(pool[i]);
}

/* ---- creators that die ---- */

static int creator_socket;
static int creator_calls, creator_last;

/* At the last call that it lives to make, the creator hands on what it has of a pool, and dies. */
static bool dying(enum os_call call, int64_t *result)
{
	(void)call;
	(void)result;
	if (++creator_calls < creator_last) return false;
	int fds[3] = {-1, -1, -1};
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	must(dir);
	while ((entry = readdir(dir))) {
		char path[300], target[300];
		snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
		ssize_t length = readlink(path, target, sizeof target - 1);
		if (length < 0) continue;
		target[length] = 0;
		const char *kind[] = {"hugepool-lives:half-made", "hugepool-control:half-made", "hugepool-data:half-made"};
		for (int i = 0; i < 3; i++)
			if (strstr(target, kind[i])) fds[i] = atoi(entry->d_name);
	}
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof fds)];
	} control = {0};
	unsigned count = 0;
	int sent[3];
	char which = 0;
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0) {
			sent[count++] = fds[i];
			which |= (char)(1 << i);
		}
	struct iovec iov = {&which, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	if (count) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), sent, count * sizeof(int));
	}
	must_be(sendmsg(creator_socket, &message, 0), 1);
	raise(SIGKILL);
	return false;
}

static void creating(const struct child *me, void *arg)
{
	(void)me;
	creator_socket = *(int *)arg;
	os_hook = dying;
	struct hp_pool_options options = hp_plain_options(MIB);
	options.name = "half-made";
	options.prefault_threads = 1;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	os_hook = NULL;
}

static void creators_that_died_are_not_waited_for(void **state)
{
	(void)state;
	unsigned dead = 0, unfinished = 0;
	for (creator_last = 1;; creator_last++) {
		int sockets[2];
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
		creator_calls = 0;
		struct child child = child_start(creating, &sockets[1]);
		int status = child_end(&child);
		close(sockets[1]);
		char which = 0;
		int fds[3] = {-1, -1, -1}, came[3];
		unsigned count = 0;
		int64_t got = os_recv_fds(sockets[0], &which, 1, came, 3, &count);
		close(sockets[0]);
		if (status == 0) break; /* more calls than it makes */
		dead++;
		assert_int_equal(got, 1);
		for (unsigned i = 0, k = 0; i < 3; i++)
			if (which >> i & 1) fds[i] = came[k++];
		struct held before = held_now();
		hp_pool *pool;
		int error = hp_pool_attach(fds, NULL, &pool);
		/* the pool is ready after the last call */
		if (error != -EBADF && error != -EINVAL && error != -EBADMSG && error != -ENODATA)
			fail_msg("killed at call %d: %d", creator_last, error);
		unfinished += error == -ENODATA;
		must_hold_no_more(before);
		for (unsigned i = 0; i < count; i++) close(came[i]);
	}
	print_message("creators killed: %u, %u of them with all three files there\n", dead, unfinished);
	assert_true(dead > 20 && unfinished > 5);
}

/* ---- anything at all ---- */

static void use_what_was_attached(hp_pool *pool)
{
	void *block[8];
	unsigned count = 0;
	const size_t bytes[] = {1, 3 * PAGE, 300 * 1024, PAGE, MIB, 2 * PAGE, PAGE, 5 * PAGE};
	for (unsigned i = 0; i < 8; i++) {
		if (hp_page_alloc(pool, bytes[i], i & 1 ? HP_PAGE_PROCESS : 0, &block[count]) < 0) continue;
		must(hp_pool_offset(pool, block[count]) != HP_OFF_NONE);
		must(hp_pool_offset(pool, (char *)block[count] + bytes[i] - 1) != HP_OFF_NONE);
		*(volatile char *)block[count] = 1;
		((volatile char *)block[count])[bytes[i] - 1] = 1;
		count++;
	}
	hp_pool_check(pool, NULL, NULL);
	struct hp_pool_stats stats = {.struct_size = sizeof stats};
	hp_pool_stats(pool, &stats);
	for (hp_off off = 0; off < MIB; off += 37 * PAGE) {
		hp_page_size_at(pool, off);
		hp_page_free_at(pool, off);
	}
	for (unsigned i = 0; i < count; i++) hp_page_free(pool, block[i]);
	hp_pool_recover(pool);
	hp_pool_check(pool, NULL, NULL);
}

/* Random changes of a valid control file. A crash, a hang or a leak fails the test; a wrong answer cannot. */
static void control_files_of_random_bytes(void **state)
{
	(void)state;
	uint64_t random = hp_seed("control_files_of_random_bytes");
	struct hp_pool_options options = hp_plain_options(MIB);
	options.max_threads = 16;
	options.max_processes = 8;
	hp_pool *pool;
	assert_int_equal(hp_pool_create(&options, &pool), 0);
	void *block;
	assert_int_equal(hp_page_alloc(pool, 70 * PAGE, 0, &block), 0);
	assert_int_equal(hp_page_alloc(pool, 3 * PAGE, HP_PAGE_PROCESS, &block), 0);
	int fds[3];
	hp_pool_fds(pool, fds);
	struct pool_header header = header_of(pool);
	/* the directories of caches and the slabs' descriptors behind it are large, and nothing in this pool */
	uint64_t size = header.geometry.places_at, whole = header.geometry.control_size;
	unsigned char *good = malloc(size), *bad = malloc(size);
	must(good && bad);
	assert_int_equal(pread(fds[CONTROL], good, size, 0), (ssize_t)size);
	struct held before = held_now();
	unsigned attached = 0, rounds = HP_TEST_SANITIZER ? 1000 : 10000;
	for (unsigned round = 0; round < rounds; round++) {
		memcpy(bad, good, size);
		unsigned changes = 1 + (unsigned)hp_below(&random, 12);
		for (unsigned i = 0; i < changes; i++) {
			/* half of them in the header, where each byte has a meaning, half anywhere */
			uint64_t at = hp_below(&random, i & 1 ? sizeof header : size);
			if (round & 1 && at < sizeof header.geometry) at += sizeof header.geometry; /* those may be attached */
			unsigned char value[8];
			uint64_t word = hp_random(&random);
			memcpy(value, &word, 8);
			if (word % 3 == 0)
				bad[at] ^= (unsigned char)(1u << (word >> 8 & 7));
			else if (word % 3 == 1)
				bad[at] = value[0];
			else
				memcpy(bad + (at > size - 8 ? size - 8 : at), value, 8);
		}
		/* a growth lock that the living seem to hold is waited for, a second: not in every round */
		if (hp_below(&random, 64)) memset(bad + offsetof(struct pool_header, growth_lock), 0, 8);
		if (!(round & 1) && hp_below(&random, 2)) {
			struct pool_geometry geometry;
			memcpy(&geometry, bad, sizeof geometry);
			geometry.checksum = pool_geometry_checksum(&geometry);
			memcpy(bad, &geometry, sizeof geometry);
		}
		int fd = memfd(whole, 0);
		assert_int_equal(pwrite(fd, bad, size, 0), (ssize_t)size);
		assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALED), 0);
		int mixed[3] = {fds[LIVES], fd, fds[DATA]};
		hp_pool *other;
		if (hp_pool_observe(mixed, &other) == 0) {
			hp_pool_check(other, NULL, NULL);
			struct hp_pool_stats stats = {.struct_size = sizeof stats};
			hp_pool_stats(other, &stats);
			hp_pool_detach(other);
		}
		if (hp_pool_attach(mixed, NULL, &other) == 0) {
			use_what_was_attached(other);
			hp_pool_detach(other);
			attached++;
		}
		close(fd);
	}
	must_hold_no_more(before);
	print_message("%u of %u could be attached to\n", attached, rounds);
	assert_true(attached > rounds / 4);
	free(good);
	free(bad);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_of_the_wrong_kind),
		cmocka_unit_test(files_of_several_pools),
		cmocka_unit_test(headers_that_are_wrong),
		cmocka_unit_test(files_cut_short),
		cmocka_unit_test(descriptors_that_cannot_be_written),
		cmocka_unit_test(options_are_checked),
		cmocka_unit_test(twice_in_one_process),
		cmocka_unit_test(as_many_processes_as_there_is_room_for),
		cmocka_unit_test(creators_that_died_are_not_waited_for),
		cmocka_unit_test(control_files_of_random_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
