/* Rings: files, memory of all kinds, many requests at once, order, errors, forks, ends. On both engines.
 *
 * Catches: bytes at the wrong place; completions that are lost, come twice, or with somebody else's word; a full ring that
 * forgets a request; memory taken for registered that is not; bad input that is accepted, or leaves something behind; a chain
 * that goes on after a failure; a child that uses its parent's ring; a ring whose descriptor somebody closed. */
#include "hp_uring.h"
#include "os/os.h"
#include "ring/ring.h"

#define BLOCK 4096u

static void files_and_memory(void **state)
{
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	hp_ring *ring = hp_ring_on(pool, state, 0);
	hp_cache *cache = hp_cache_make(pool, "objects", 1500, 0);
	int fd = hp_ring_file(0);
	static char own[10000];
	char *block = hp_pages(pool, 10000), *object = hp_cache_get(cache, 0);
	must(object);

	for (unsigned i = 0; i < 3; i++) {
		char *from[] = {block, own, object}, *to[] = {own, block, object};
		size_t bytes = i == 2 ? 1500 : 10000;
		hp_cache_fill(from[i], bytes, i + 1);
		must_be(hp_ring_write(ring, fd, from[i], bytes, 20000 * i, 0, 100 + i), 0);
		must_be(hp_ring_pending(ring), 1);
		must_be(hp_ring_result(ring, 100 + i), bytes);
		memset(from[i], 0, bytes);
		must_be(hp_ring_read(ring, fd, to[i], bytes, 20000 * i, 0, 200 + i), 0);
		must_be(hp_ring_result(ring, 200 + i), bytes);
		must(hp_cache_filled(to[i], bytes, i + 1));
	}
	/* what lies in the file, seen otherwise */
	must_be(pread(fd, own, 1500, 40000), 1500);
	must(hp_cache_filled(own, 1500, 3));
	/* inside of a block; at the end of the file; beyond it */
	must_be(hp_ring_read(ring, fd, block + 5000, 1000, 41000, 0, 1), 0);
	must_be(hp_ring_result(ring, 1), 500);
	must_be(memcmp(block + 5000, own + 1000, 500), 0);
	must_be(hp_ring_read(ring, fd, block, 1, 41500, 0, 2), 0);
	must_be(hp_ring_result(ring, 2), 0);
	/* the file's own position */
	must_be(lseek(fd, 20000, SEEK_SET), 20000);
	for (unsigned i = 0; i < 2; i++) {
		must_be(hp_ring_read(ring, fd, own, 5000, HP_RING_CURRENT, 0, 3), 0);
		must_be(hp_ring_result(ring, 3), 5000);
	}
	must_be(lseek(fd, 0, SEEK_CUR), 30000);
	must_be(hp_ring_fsync(ring, fd, 0, 4), 0);
	must_be(hp_ring_result(ring, 4), 0);
	must_be(hp_ring_fsync(ring, fd, HP_RING_DATA, 4), 0);
	must_be(hp_ring_result(ring, 4), 0);

	hp_ring_must_be_idle(ring);
	close(fd);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_cache_put(cache, object), 0);
	must_be(hp_ring_destroy(ring), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* The flags that a ring can have make no difference to what it does. */
static void every_kind_of_ring(void **state)
{
	const unsigned flags[] = {0, HP_RING_UNREGISTERED, HP_RING_ONE_THREAD, HP_RING_UNREGISTERED | HP_RING_ONE_THREAD};
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	struct held before = held_now();
	for (unsigned i = 0; i < 4; i++) {
		hp_ring *ring = hp_ring_on(pool, state, flags[i]);
		struct hp_ring_report report = {.struct_size = sizeof report};
		must_be(hp_ring_report(ring, &report), 0);
		must_be(report.io_uring, !hp_ring_is_plain(state));
		must_be(report.error, 0);
		must_be(report.registered, hp_ring_is_plain(state) || flags[i] & HP_RING_UNREGISTERED ? 0 : 8 * MIB);
		int fd = hp_ring_file(BLOCK);
		char *block = hp_pages(pool, BLOCK);
		hp_mark(block, 1, 77);
		must_be(hp_ring_write(ring, fd, block, BLOCK, 0, 0, 1), 0);
		must_be(hp_ring_result(ring, 1), BLOCK);
		memset(block, 0, BLOCK);
		must_be(hp_ring_read(ring, fd, block, BLOCK, 0, 0, 2), 0);
		must_be(hp_ring_result(ring, 2), BLOCK);
		must(hp_marked(block, 1, 77));
		must_be(hp_page_free(pool, block), 0);
		close(fd);
		must_be(hp_ring_destroy(ring), 0);
		must_hold_no_more(before);
	}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	/* without a pool */
	hp_ring *ring = hp_ring_on(NULL, state, 0);
	int ends[2];
	char byte = 0;
	must_be(pipe(ends), 0);
	must_be(hp_ring_read(ring, ends[0], &byte, 1, 0, 0, 1), 0);
	must_be(hp_ring_write(ring, ends[1], "x", 1, 0, 0, 2), 0);
	uint64_t seen = 0;
	for (unsigned i = 0; i < 2; i++) {
		struct hp_ring_completion completion = hp_ring_next(ring);
		must_be(completion.result, 1);
		seen += completion.user;
	}
	must_be(seen, 3);
	must_be(byte, 'x');
	close(ends[0]);
	close(ends[1]);
	must_be(hp_ring_register(ring), -ENOTSUP);
	must_be(hp_ring_destroy(ring), 0);
	must_be(hp_ring_destroy(NULL), 0);
}

/* ---- many at once ---- */

static void full_rings_say_so(void **state)
{
	struct hp_ring_options options = hp_ring_options_of(state, 0);
	options.depth = 8;
	options.requests = 32;
	hp_ring *ring = hp_ring_made(NULL, &options);
	int ends[2];
	char bytes[64];
	bool seen[64] = {false};
	must_be(pipe(ends), 0);
	unsigned prepared = 0;
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 8; i++, prepared++)
			must_be(hp_ring_read(ring, ends[0], &bytes[prepared], 1, 0, 0, prepared), 0);
		must_be(hp_ring_read(ring, ends[0], &bytes[63], 1, 0, 0, 99), -EAGAIN);
		must_be(hp_ring_submit(ring), 8);
	}
	must_be(hp_ring_pending(ring), 32);
	must_be(hp_ring_read(ring, ends[0], &bytes[63], 1, 0, 0, 99), -EAGAIN); /* now for want of requests */
	must_be(hp_ring_submit(ring), 0);
	must_be(write(ends[1], "0123456789abcdefghijklmnopqrstuv", 32), 32);
	/* none is lost, though nobody takes them for a while; and there is no place for more until some are taken */
	must(hp_ring_submit_and_wait(ring, 32, FOREVER) >= 0);
	must_be(hp_ring_read(ring, ends[0], &bytes[63], 1, 0, 0, 99), -EAGAIN);
	unsigned told = 0;
	while (told < 32) {
		struct hp_ring_completion completion[5];
		int got = hp_ring_poll(ring, completion, 5);
		must(got >= 0 && got <= 5);
		if (!got) must(hp_ring_submit_and_wait(ring, 1, FOREVER) >= 0);
		for (int i = 0; i < got; i++, told++) {
			must(completion[i].user < 32 && !seen[completion[i].user]);
			seen[completion[i].user] = true;
			must_be(completion[i].result, 1);
		}
	}
	for (unsigned i = 0; i < 32; i++) { /* each byte once */
		must(memchr(bytes, "0123456789abcdefghijklmnopqrstuv"[i], 32));
	}
	hp_ring_must_be_idle(ring);
	must_be(hp_ring_destroy(ring), 0);
	close(ends[0]);
	close(ends[1]);
}

/* Reads and writes in random order over a file, many under way at once, none of them overlapping, and a copy of what it holds. */
static void random_reads_and_writes(void **state)
{
	enum { PLACES = 64, DEPTH = 32 };
	uint64_t seed = hp_seed("random"), content[PLACES] = {0};
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	struct hp_ring_options options = hp_ring_options_of(state, 0);
	options.depth = DEPTH;
	hp_ring *ring = hp_ring_made(pool, &options);
	int fd = hp_ring_file(PLACES * BLOCK), file = hp_ring_register_file(ring, fd);
	must(file >= 0);
	struct {
		char *block;
		unsigned place;
		bool writes, busy;
		uint64_t mark;
	} job[DEPTH] = {0};
	bool busy[PLACES] = {false};
	for (unsigned i = 0; i < DEPTH; i++) job[i].block = hp_pages(pool, BLOCK);
	/* what nobody has written yet reads as marked with 0 */
	for (unsigned i = 0; i < PLACES; i++) {
		hp_mark(job[0].block, 1, 0);
		must_be(pwrite(fd, job[0].block, BLOCK, (off_t)(i * BLOCK)), BLOCK);
	}
	unsigned under_way = 0, rounds = HP_TEST_SANITIZER ? 3000 : 20000;
	for (unsigned round = 0; round < rounds || under_way; round++) {
		for (unsigned i = 0; i < DEPTH && round < rounds; i++) {
			unsigned place = (unsigned)hp_below(&seed, PLACES);
			if (job[i].busy || busy[place] || hp_below(&seed, 3)) continue;
			job[i].place = place;
			job[i].writes = hp_below(&seed, 2);
			job[i].mark = hp_random(&seed) >> 1;
			job[i].busy = busy[place] = true;
			under_way++;
			bool registered = hp_below(&seed, 2);
			hp_mark(job[i].block, 1, job[i].writes ? job[i].mark : ~UINT64_C(0));
			must_be((job[i].writes ? hp_ring_write(ring, registered ? file : fd, job[i].block, BLOCK, place * BLOCK,
			                                       registered ? HP_RING_FILE : 0, i)
			                       : hp_ring_read(ring, registered ? file : fd, job[i].block, BLOCK, place * BLOCK,
			                                      registered ? HP_RING_FILE : 0, i)),
			        0);
		}
		if (under_way) must(hp_ring_submit_and_wait(ring, 1, FOREVER) >= 0);
		struct hp_ring_completion completion[DEPTH];
		int got = hp_ring_poll(ring, completion, 1 + (unsigned)hp_below(&seed, DEPTH));
		for (int k = 0; k < got; k++) {
			unsigned i = (unsigned)completion[k].user;
			must(i < DEPTH && job[i].busy);
			must_be(completion[k].result, BLOCK);
			if (job[i].writes)
				content[job[i].place] = job[i].mark;
			else
				must(hp_marked(job[i].block, 1, content[job[i].place]));
			job[i].busy = busy[job[i].place] = false;
			under_way--;
		}
	}
	must_be(hp_ring_unregister_file(ring, file), 0);
	for (unsigned i = 0; i < DEPTH; i++) must_be(hp_page_free(pool, job[i].block), 0);
	must_be(hp_ring_destroy(ring), 0);
	close(fd);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

struct calls {
	hp_ring *ring;
	int fd;
	unsigned left, seen;
	char byte;
};

static void call(void *arg, const struct hp_ring_completion *completion)
{
	struct calls *calls = arg;
	must_be(completion->user, calls->seen);
	must_be(completion->result, 1);
	calls->seen++;
	must_be(hp_ring_destroy(calls->ring), -EBUSY);
	if (--calls->left) must_be(hp_ring_read(calls->ring, calls->fd, &calls->byte, 1, calls->seen, 0, calls->seen), 0);
}

static void callbacks_that_go_on(void **state)
{
	struct calls calls = {.ring = hp_ring_on(NULL, state, 0), .fd = hp_ring_file(1000), .left = 50};
	must_be(hp_ring_read(calls.ring, calls.fd, &calls.byte, 1, 0, 0, 0), 0);
	must_be(hp_ring_run(calls.ring, call, &calls, 50, FOREVER), 50);
	must_be(calls.seen, 50);
	/* nothing under way: nothing is waited for */
	must_be(hp_ring_run(calls.ring, call, &calls, 0, 0), 0);
	must_be(hp_ring_submit_and_wait(calls.ring, 1, FOREVER), 0);
	must_be(hp_ring_run(calls.ring, NULL, &calls, 0, 0), -EINVAL);
	must_be(hp_ring_destroy(calls.ring), 0);
	close(calls.fd);
}

/* ---- time, cancelling, order ---- */

static void timeouts_and_waits_that_end(void **state)
{
	hp_ring *ring = hp_ring_on(NULL, state, 0);
	int ends[2];
	char byte;
	must_be(pipe(ends), 0);
	uint64_t began = os_now_ns();
	must_be(hp_ring_timeout(ring, 3000000, 0, 7), 0);
	must_be(hp_ring_result(ring, 7), 0);
	must(os_now_ns() - began >= 3000000);
	/* whoever waits for something else does so for as long as he said */
	must_be(hp_ring_read(ring, ends[0], &byte, 1, 0, 0, 1), 0);
	must_be(hp_ring_submit(ring), 1);
	began = os_now_ns();
	must_be(hp_ring_submit_and_wait(ring, 1, 2000000), -ETIME);
	must(os_now_ns() - began >= 2000000);
	struct calls none = {.ring = ring};
	must_be(hp_ring_run(ring, call, &none, 1, 2000000), -ETIME);
	must_be(none.seen, 0);
	/* in order of time, not of submission */
	must_be(hp_ring_timeout(ring, 20000000, 0, 3), 0);
	must_be(hp_ring_timeout(ring, 1000000, 0, 2), 0);
	must_be(hp_ring_result(ring, 2), 0);
	must_be(hp_ring_result(ring, 3), 0);
	must_be(write(ends[1], "x", 1), 1);
	must_be(hp_ring_result(ring, 1), 1);
	must_be(hp_ring_timeout(ring, UINT64_MAX, 0, 3), -EINVAL);
	hp_ring_must_be_idle(ring);
	must_be(hp_ring_destroy(ring), 0);
	close(ends[0]);
	close(ends[1]);
}

static void cancelled(void **state)
{
	hp_ring *ring = hp_ring_on(NULL, state, 0);
	int ends[2];
	char byte;
	must_be(pipe(ends), 0);
	for (unsigned round = 0; round < 3; round++) {
		const bool submitted = round > 0;
		must_be(round < 2 ? hp_ring_read(ring, ends[0], &byte, 1, 0, 0, 5) : hp_ring_timeout(ring, 1000 * SECOND, 0, 5),
		        0);
		if (submitted) must_be(hp_ring_submit(ring), 1);
		must_be(hp_ring_cancel(ring, 5, 0, 6), 0);
		int64_t result[2] = {1, 1};
		for (unsigned i = 0; i < 2; i++) {
			struct hp_ring_completion completion = hp_ring_next(ring);
			must(completion.user == 5 || completion.user == 6);
			result[completion.user - 5] = completion.result;
		}
		must_be(result[0], -ECANCELED);
		must_be(result[1], 0);
		must_be(hp_ring_cancel(ring, 5, 0, 6), 0);
		must_be(hp_ring_result(ring, 6), -ENOENT);
	}
	/* the pipe's byte is still there */
	must_be(write(ends[1], "x", 1), 1);
	must_be(hp_ring_read(ring, ends[0], &byte, 1, 0, 0, 5), 0);
	must_be(hp_ring_result(ring, 5), 1);
	hp_ring_must_be_idle(ring);
	/* a ring that ends with everything under way */
	for (unsigned i = 0; i < 20; i++) must_be(hp_ring_read(ring, ends[0], &byte, 1, 0, 0, i), 0);
	must_be(hp_ring_timeout(ring, 1000 * SECOND, 0, 5), 0);
	must_be(hp_ring_submit(ring), 21);
	for (unsigned i = 0; i < 20; i++) must_be(hp_ring_read(ring, ends[0], &byte, 1, 0, 0, i), 0);
	must_be(hp_ring_destroy(ring), 0);
	close(ends[0]);
	close(ends[1]);
}

static void linked(void **state)
{
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_ring *ring = hp_ring_on(pool, state, 0);
	int fd = hp_ring_file(0), ends[2];
	char *block = hp_pages(pool, 2 * BLOCK), sent[BLOCK];
	must_be(pipe(ends), 0);
	hp_mark(sent, 1, 5);
	/* a read from a pipe that waits, written to the file, and read back */
	must_be(hp_ring_read(ring, ends[0], block, BLOCK, 0, HP_RING_LINK, 1), 0);
	must_be(hp_ring_write(ring, fd, block, BLOCK, 0, HP_RING_LINK, 2), 0);
	must_be(hp_ring_fsync(ring, fd, HP_RING_LINK, 3), 0);
	must_be(hp_ring_read(ring, fd, block + BLOCK, BLOCK, 0, 0, 4), 0);
	must_be(hp_ring_submit(ring), 4);
	struct hp_ring_completion completion;
	must_be(hp_ring_poll(ring, &completion, 1), 0);
	must_be(write(ends[1], sent, BLOCK), BLOCK);
	for (unsigned i = 1; i <= 4; i++) must_be(hp_ring_result(ring, i), i == 3 ? 0 : BLOCK);
	must(hp_marked(block + BLOCK, 1, 5));
	/* it ends where one fails, or reads less than asked */
	must_be(hp_ring_read(ring, fd, block, BLOCK, BLOCK / 2, HP_RING_LINK, 1), 0);
	must_be(hp_ring_write(ring, fd, block, BLOCK, 0, HP_RING_LINK, 2), 0);
	must_be(hp_ring_fsync(ring, fd, 0, 3), 0);
	must_be(hp_ring_fsync(ring, fd, 0, 4), 0); /* not linked */
	int64_t result[5];
	for (unsigned i = 1; i <= 4; i++) {
		completion = hp_ring_next(ring);
		must(completion.user >= 1 && completion.user <= 4);
		result[completion.user] = completion.result;
	}
	must_be(result[1], BLOCK / 2);
	must_be(result[2], -ECANCELED);
	must_be(result[3], -ECANCELED);
	must_be(result[4], 0);
	must_be(hp_ring_read(ring, fd, block, BLOCK, 0, 0, 9), 0);
	must_be(hp_ring_result(ring, 9), BLOCK);
	must(hp_marked(block, 1, 5));
	close(ends[0]);
	close(ends[1]);
	close(fd);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_ring_destroy(ring), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void readiness(void **state)
{
	hp_ring *ring = hp_ring_on(NULL, state, 0);
	int ends[2];
	must_be(pipe(ends), 0);
	must_be(hp_ring_poll_add(ring, ends[1], POLLOUT, 0, 1), 0);
	must_be(hp_ring_result(ring, 1), POLLOUT);
	must_be(hp_ring_poll_add(ring, ends[0], POLLIN, 0, 2), 0);
	must_be(hp_ring_submit(ring), 1);
	struct hp_ring_completion completion;
	must_be(hp_ring_poll(ring, &completion, 1), 0);
	must_be(write(ends[1], "x", 1), 1);
	must_be(hp_ring_result(ring, 2), POLLIN);
	must_be(hp_ring_poll_add(ring, ends[0], 0, 0, 2), -EINVAL);
	close(ends[1]);
	close(ends[0]);
	must_be(hp_ring_destroy(ring), 0);
}

/* ---- errors ---- */

static void bad_input(void **state)
{
	hp_pool *pool = hp_plain_pool(4 * MIB, 0), *other = hp_plain_pool(4 * MIB, 0);
	struct hp_ring_options options = hp_ring_options_of(state, 0);
	options.files = 2;
	hp_ring *ring = hp_ring_made(pool, &options), *wrong;
	hp_cache *cache = hp_cache_make(pool, "objects", 1024, 0);
	int fd = hp_ring_file(100000), closed = fcntl(fd, F_DUPFD, 900);
	close(closed);
	char own[64], *block = hp_pages(pool, 2 * BLOCK), *foreign = hp_pages(other, BLOCK),
				  *object = hp_cache_get(cache, 0);
	char *free_block = hp_pages(pool, BLOCK), *base = hp_pool_base(pool);
	must_be(hp_page_free(pool, free_block), 0);

	/* nothing of this is prepared */
	must_be(hp_ring_read(NULL, fd, own, 1, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, NULL, 1, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, own, 0, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, own, UINT64_C(1) << 31, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, own, SIZE_MAX, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, -1, own, 1, 0, 0, 0), -EBADF);
	must_be(hp_ring_read(ring, fd, own, 1, 0, 0x80, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, own, 1, 0, HP_RING_ZEROCOPY, 0), -EINVAL);
	must_be(hp_ring_send(ring, fd, own, 1, HP_RING_MULTI, 0), -EINVAL);
	must_be(hp_ring_accept(ring, fd, HP_RING_MULTI | HP_RING_LINK, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, block, 2 * BLOCK + 1, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, block + BLOCK, BLOCK + 1, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, free_block, 1, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, object, 1024 * 500, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, base + 4 * MIB - 1, 2, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, base - 1, 2, 0, 0, 0), -EINVAL);
	must_be(hp_ring_read(ring, fd, foreign, 1, 0, 0, 0), -EXDEV);
	must_be(hp_ring_recv(ring, fd, foreign + BLOCK - 1, 1, 0, 0), -EXDEV);
	must_be(hp_ring_recv_object(ring, fd, 0, 0), -ENOBUFS);
	must_be(hp_ring_read(ring, 0, own, 1, 0, HP_RING_FILE, 0), -EBADF);
	must_be(hp_ring_read(ring, 5, own, 1, 0, HP_RING_FILE, 0), -EBADF);
	must_be(hp_ring_unregister_file(ring, 0), -EBADF);
	must_be(hp_ring_register_file(ring, -1), -EBADF);
	must_be(hp_ring_register_file(ring, closed), -EBADF);
	must_be(hp_ring_register_file(ring, fd), 0);
	must_be(hp_ring_register_file(ring, fd), 1);
	must_be(hp_ring_register_file(ring, fd), -ENFILE);
	must_be(hp_ring_unregister_file(ring, 0), 0);
	must_be(hp_ring_read(ring, 0, own, 1, 0, HP_RING_FILE, 0), -EBADF);
	must_be(hp_ring_unregister_file(ring, 0), -EBADF);
	must_be(hp_ring_register_file(ring, fd), 0);
	must_be(hp_ring_connect(ring, fd, NULL, 16, 0, 0), -EINVAL);
	must_be(hp_ring_poll(ring, NULL, 1), -EINVAL);
	must_be(hp_ring_poll(NULL, NULL, 0), -EINVAL);
	must_be(hp_ring_submit(NULL), -EINVAL);
	hp_ring_must_be_idle(ring);

	/* this only the kernel can see */
	must_be(hp_ring_read(ring, closed, own, 1, 0, 0, 1), 0);
	must_be(hp_ring_result(ring, 1), -EBADF);
	must_be(hp_ring_write(ring, closed, block, BLOCK, 0, 0, 1), 0);
	must_be(hp_ring_result(ring, 1), -EBADF);
	must_be(hp_ring_recv(ring, fd, block, BLOCK, 0, 2), 0);
	must_be(hp_ring_result(ring, 2), -ENOTSOCK);
	must_be(hp_ring_fsync(ring, closed, 0, 3), 0);
	must_be(hp_ring_result(ring, 3), -EBADF);
	hp_ring_must_be_idle(ring);

	/* a pool that came after the ring, and goes before it */
	hp_pool_detach(other);
	other = hp_plain_pool(4 * MIB, 0);
	foreign = hp_pages(other, BLOCK);
	must_be(hp_ring_read(ring, fd, foreign, 1, 0, 0, 0), -EXDEV);
	must_be(hp_page_free(other, foreign), 0);
	hp_pool_detach(other);
	void *there = mmap(foreign, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
	                   0);
	if (there == foreign) {
		must_be(hp_ring_read(ring, fd, there, BLOCK, 0, 0, 4), 0);
		must_be(hp_ring_result(ring, 4), BLOCK);
	}
	if (there != MAP_FAILED) munmap(there, BLOCK);

	/* options */
	struct hp_ring_options bad = hp_ring_options_of(state, 0x1000);
	must_be(hp_ring_create(pool, &bad, &wrong), -EINVAL);
	must(!wrong);
	bad = hp_ring_options_of(state, HP_RING_PLAIN | HP_RING_REQUIRE);
	must_be(hp_ring_create(pool, &bad, &wrong), -EINVAL);
	bad = hp_ring_options_of(state, 0);
	bad.struct_size = 3;
	must_be(hp_ring_create(pool, &bad, &wrong), -EINVAL);
	bad = hp_ring_options_of(state, 0);
	bad.depth = 40000;
	must_be(hp_ring_create(pool, &bad, &wrong), -EINVAL);
	must_be(hp_ring_create(pool, NULL, NULL), -EINVAL);

	must_be(hp_cache_put(cache, object), 0);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_ring_destroy(ring), 0);
	must_be(hp_cache_destroy(cache), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	close(fd);
}

/* ---- forks, ends ---- */

static struct {
	hp_ring *ring;
	hp_pool *pool;
	char *block;
	int fd;
} inherited;

static void use_inherited(const struct child *me, void *arg)
{
	struct hp_ring_completion completion;
	char byte;
	(void)me;
	(void)arg;
	must_be(hp_ring_read(inherited.ring, inherited.fd, &byte, 1, 0, 0, 1), -ESRCH);
	must_be(hp_ring_timeout(inherited.ring, 1, 0, 1), -ESRCH);
	must_be(hp_ring_submit(inherited.ring), -ESRCH);
	must_be(hp_ring_submit_and_wait(inherited.ring, 1, FOREVER), -ESRCH);
	must_be(hp_ring_poll(inherited.ring, &completion, 1), -ESRCH);
	must_be(hp_ring_register_file(inherited.ring, 0), -ESRCH);
	must_be(hp_ring_register(inherited.ring), -ESRCH);
	must_be(hp_ring_destroy(inherited.ring), 0);
	/* one of its own */
	hp_ring *ring;
	struct hp_ring_options options = {.struct_size = sizeof options, .flags = inherited.ring ? HP_RING_PLAIN : 0};
	must_be(hp_ring_create(inherited.pool, &options, &ring), 0);
	must_be(hp_ring_write(ring, inherited.fd, inherited.block, BLOCK, BLOCK, 0, 1), 0);
	must_be(hp_ring_result(ring, 1), BLOCK);
	must_be(hp_ring_destroy(ring), 0);
}

static void children_have_no_part(void **state)
{
	hp_pool *pool = inherited.pool = hp_plain_pool(4 * MIB, 0);
	hp_ring *ring = inherited.ring = hp_ring_on(pool, state, 0);
	int fd = inherited.fd = hp_ring_file(4 * BLOCK), ends[2];
	char *block = inherited.block = hp_pages(pool, BLOCK);
	must_be(pipe(ends), 0);
	must_be(hp_ring_read(ring, ends[0], block, BLOCK, 0, 0, 1), 0);
	must_be(hp_ring_submit(ring), 1);
	struct child child = child_start(use_inherited, NULL);
	must_be(child_end(&child), 0);
	/* the parent's goes on as if nothing had been */
	must_be(write(ends[1], "hello", 5), 5);
	must_be(hp_ring_result(ring, 1), 5);
	must_be(memcmp(block, "hello", 5), 0);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_ring_destroy(ring), 0);
	hp_pool_recover(pool);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
	close(fd);
	close(ends[0]);
	close(ends[1]);
}

static void closed_behind_its_back(void **state)
{
	if (hp_ring_is_plain(state)) hp_test_skip_one("plain system calls have no descriptor of their own");
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_ring *ring = hp_ring_on(pool, state, 0);
	int ends[2];
	char *block = hp_pages(pool, BLOCK);
	struct hp_ring_completion completion;
	must_be(pipe(ends), 0);
	must_be(hp_ring_read(ring, ends[0], block, BLOCK, 0, 0, 1), 0);
	must_be(hp_ring_submit(ring), 1);
	must_be(close(ring->kernel.ring_fd), 0);
	must_be(hp_ring_read(ring, ends[0], block, BLOCK, 0, 0, 1), 0);
	must_be(hp_ring_submit(ring), -EBADF);
	must_be(hp_ring_read(ring, ends[0], block, BLOCK, 0, 0, 1), -EBADF);
	must_be(hp_ring_submit_and_wait(ring, 1, FOREVER), -EBADF);
	must_be(hp_ring_poll(ring, &completion, 1), 0);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_ring_destroy(ring), 0);
	close(ends[0]);
	close(ends[1]);
	hp_pool_recover(pool);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_both_engines(files_and_memory),
		on_both_engines(every_kind_of_ring),
		on_both_engines(full_rings_say_so),
		on_both_engines(random_reads_and_writes),
		on_both_engines(callbacks_that_go_on),
		on_both_engines(timeouts_and_waits_that_end),
		on_both_engines(cancelled),
		on_both_engines(linked),
		on_both_engines(readiness),
		on_both_engines(bad_input),
		on_both_engines(children_have_no_part),
		on_both_engines(closed_behind_its_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
