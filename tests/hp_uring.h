/* What the tests of rings share: every test runs on both engines, the kernel's and plain system calls. */
#ifndef HP_URING_TEST_H
#define HP_URING_TEST_H

#include <hugepool/ring.h>
#include <sys/socket.h>

#include "hp_cache.h"

#define FOREVER UINT64_MAX
#define SECOND UINT64_C(1000000000)

/* Entries of a test list; *state is the flags that force the engine. */
static unsigned hp_ring_kernel = HP_RING_REQUIRE, hp_ring_plain = HP_RING_PLAIN;
#define on_both_engines(test) \
	{#test " (io_uring)", test, NULL, NULL, &hp_ring_kernel}, \
	{ \
#test " (plain)", test, NULL, NULL, &hp_ring_plain \
	}

static inline bool hp_ring_is_plain(void **state)
{
	return *(unsigned *)*state == HP_RING_PLAIN;
}

static inline struct hp_ring_options hp_ring_options_of(void **state, unsigned flags)
{
	return (struct hp_ring_options){.struct_size = sizeof(struct hp_ring_options),
	                                .flags = *(unsigned *)*state | flags};
}

static inline hp_ring *hp_ring_made(hp_pool *pool, const struct hp_ring_options *options)
{
	hp_ring *ring;
	int error = hp_ring_create(pool, options, &ring);
	if (error == -EPERM || error == -ENOSYS) hp_test_skip_one("no io_uring here (%s)", strerror(-error));
	must_be(error, 0);
	return ring;
}

static inline hp_ring *hp_ring_on(hp_pool *pool, void **state, unsigned flags)
{
	struct hp_ring_options options = hp_ring_options_of(state, flags);
	return hp_ring_made(pool, &options);
}

/* Submits, and the next completion. */
static inline struct hp_ring_completion hp_ring_next(hp_ring *ring)
{
	struct hp_ring_completion completion;
	int got;
	must(hp_ring_submit(ring) >= 0);
	while ((got = hp_ring_poll(ring, &completion, 1)) == 0) {
		int error = hp_ring_submit_and_wait(ring, 1, FOREVER);
		must(error >= 0 || error == -EINTR);
	}
	must_be(got, 1);
	return completion;
}

/* The same, which is to be of that request. */
static inline int64_t hp_ring_result(hp_ring *ring, uint64_t user)
{
	struct hp_ring_completion completion = hp_ring_next(ring);
	must_be(completion.user, user);
	must_be(completion.flags, 0);
	return completion.result;
}

static inline void hp_ring_must_be_idle(hp_ring *ring)
{
	struct hp_ring_completion completion;
	must_be(hp_ring_pending(ring), 0);
	must_be(hp_ring_poll(ring, &completion, 1), 0);
}

/* A file without a name. */
static inline int hp_ring_file(size_t bytes)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0) {
		char name[] = "/tmp/hugepool-uring-XXXXXX";
		must((fd = mkostemp(name, O_CLOEXEC)) >= 0);
		unlink(name);
	}
	must_be(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static inline char *hp_pages(hp_pool *pool, size_t bytes)
{
	void *block;
	must_be(hp_page_alloc(pool, bytes, HP_PAGE_ZERO, &block), 0);
	return block;
}

#endif
