/* Objects of a cache that are received into. On both engines.
 *
 * Catches: an object that is given to the application and to the kernel at once; one that is lost where nothing arrived, an error
 * came, or the ring ended; a receive that does not go on when objects come back, whoever puts them back; data out of order;
 * an empty cache that is not reported where that was asked for. */
#include "hp_uring.h"
#include "ring/ring.h"
#include <pthread.h>

static struct {
	hp_pool *pool;
	hp_cache *cache;
	hp_ring *ring;
	int pair[2];
	bool linux_5_19; /* no multishot receive, no zero-copy send */
} with;

static void begin(void **state, unsigned flags, unsigned limit, unsigned count)
{
	with.pool = hp_plain_pool(8 * MIB, 0);
	with.cache = hp_cache_make(with.pool, "packets", 1024, 0);
	if (limit) must_be(hp_cache_set_hard_limit(with.cache, limit, NULL, 0), 0);
	with.ring = hp_ring_on(with.pool, state, flags);
	if (with.linux_5_19) with.ring->zero_copy = false;
	must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, with.pair), 0);
	if (count) must_be(hp_ring_buffers(with.ring, with.cache, count), 0);
}

/* Nothing is out but what the ring has laid out, and with it that is back, too. */
static void end(void)
{
	close(with.pair[0]);
	close(with.pair[1]);
	must_be(hp_ring_destroy(with.ring), 0);
	must_be(hp_cache_numbers(with.cache).in_use, 0);
	must_be(hp_cache_destroy(with.cache), 0);
	hp_must_be_empty(with.pool);
	hp_pool_detach(with.pool);
}

static void one_after_the_other(void **state)
{
	begin(state, 0, 0, 16);
	must_be(hp_cache_numbers(with.cache).in_use, 16);
	void *object[40];
	char bytes[1024];
	for (unsigned i = 0; i < 40; i++) {
		hp_cache_fill(bytes, 1024, i);
		must_be(write(with.pair[1], bytes, 1024), 1024);
		must_be(hp_ring_recv_object(with.ring, with.pair[0], 0, i), 0);
		struct hp_ring_completion completion = hp_ring_next(with.ring);
		must_be(completion.user, i);
		must_be(completion.result, 1024);
		must_be(completion.flags, 0);
		must(object[i] = completion.object);
		for (unsigned k = 0; k < i; k++) must(object[k] != object[i]);
	}
	for (unsigned i = 0; i < 40; i++) {
		must(hp_cache_filled(object[i], 1024, i)); /* nobody has written to it since */
		must_be(hp_cache_put(with.cache, object[i]), 0);
	}
	/* no object comes with the end */
	close(with.pair[1]);
	must_be(hp_ring_recv_object(with.ring, with.pair[0], 0, 50), 0);
	struct hp_ring_completion completion = hp_ring_next(with.ring);
	must_be(completion.result, 0);
	must(!completion.object);
	/* nor with an error */
	must_be(hp_ring_recv_object(with.ring, 1000, 0, 51), 0);
	completion = hp_ring_next(with.ring);
	must_be(completion.result, -EBADF);
	must(!completion.object);
	with.pair[1] = dup(0);
	end();
}

/* A stream through few objects: what one thread sends arrives whole and in order, in objects that are put back in random order. */
static void *send_stream(void *arg)
{
	const size_t total = *(size_t *)arg;
	unsigned char bytes[3000];
	uint64_t seed = 7;
	for (size_t sent = 0; sent < total;) {
		size_t bytes_now = 1 + hp_below(&seed, sizeof bytes);
		if (bytes_now > total - sent) bytes_now = total - sent;
		for (size_t i = 0; i < bytes_now; i++) bytes[i] = (unsigned char)((sent + i) * 2654435761u >> 13);
		must_be(write(with.pair[1], bytes, bytes_now), bytes_now);
		sent += bytes_now;
	}
	must_be(shutdown(with.pair[1], SHUT_WR), 0);
	return NULL;
}

static void a_stream(void **state, unsigned limit, unsigned count, unsigned held)
{
	size_t total = HP_TEST_SANITIZER ? 1 << 20 : 8 << 20, got = 0;
	uint64_t seed = hp_seed("stream");
	void *object[64];
	unsigned have = 0;
	pthread_t sender;
	begin(state, 0, limit, count);
	must_be(pthread_create(&sender, NULL, send_stream, &total), 0);
	must_be(hp_ring_recv_object(with.ring, with.pair[0], HP_RING_MULTI, 9), 0);
	for (bool ended = false; !ended;) {
		struct hp_ring_completion completion[8];
		int told = hp_ring_poll(with.ring, completion, 8);
		must(told >= 0);
		for (int i = 0; i < told; i++) {
			must_be(completion[i].user, 9);
			must(completion[i].result >= 0);
			const unsigned char *bytes = completion[i].object;
			for (int k = 0; k < completion[i].result; k++, got++)
				must(bytes[k] == (unsigned char)(got * 2654435761u >> 13));
			if (bytes) object[have++] = completion[i].object;
			ended = completion[i].result == 0;
			must_be(completion[i].flags, ended ? 0 : HP_RING_MORE);
		}
		while (have > (told ? held : 0)) {
			unsigned k = (unsigned)hp_below(&seed, have);
			must_be(hp_cache_put(with.cache, object[k]), 0);
			object[k] = object[--have];
		}
		if (!told && !ended) must(hp_ring_submit_and_wait(with.ring, 1, FOREVER) >= 0);
	}
	must_be(got, total);
	while (have) must_be(hp_cache_put(with.cache, object[--have]), 0);
	pthread_join(sender, NULL);
	hp_ring_must_be_idle(with.ring);
	end();
}

static void many_in_one_request(void **state)
{
	a_stream(state, 0, 32, 10);
}

/* Again and again there is no object left; those that come back are used at once. */
static void few_objects(void **state)
{
	a_stream(state, 8, 8, 8);
}

static void one_object(void **state)
{
	a_stream(state, 1, 1, 1);
}

/* Where the kernel ends each receive, the ring begins the next. */
static void many_in_one_request_on_an_older_kernel(void **state)
{
	with.linux_5_19 = true;
	a_stream(state, 0, 32, 10);
	a_stream(state, 8, 8, 8);
	with.linux_5_19 = false;
}

/* The objects are with another process, which puts one back when it is told to. */
static void put_back(const struct child *me, void *arg)
{
	hp_cache *cache = hp_cache_opened(with.pool, "packets");
	void **object = arg;
	for (unsigned i = 0; i < 4; i++) {
		child_here(me);
		must_be(hp_cache_put(cache, object[i]), 0);
	}
}

static void an_empty_cache_is_waited_for(void **state)
{
	begin(state, 0, 4, 0);
	void *object[4];
	must_be(hp_cache_get_bulk(with.cache, 0, 4, object), 0);
	must_be(hp_ring_buffers(with.ring, with.cache, 4), 0);
	struct child child = child_start(put_back, object);
	struct hp_ring_completion completion;
	must_be(hp_ring_recv_object(with.ring, with.pair[0], HP_RING_MULTI, 1), 0);
	must_be(write(with.pair[1], "abcd", 4), 4);
	for (unsigned i = 0; i < 4; i++) {
		must(child_hear(&child));
		hp_ring_submit_and_wait(with.ring, 1, 20000000); /* in vain */
		must_be(hp_ring_poll(with.ring, &completion, 1), 0);
		child_say(&child);
		completion = hp_ring_next(with.ring);
		must_be(completion.result, i ? 1 : 4);
		must_be(completion.flags, HP_RING_MORE);
		object[i] = completion.object;
		must_be(write(with.pair[1], "e", 1), 1);
	}
	must_be(child_end(&child), 0);
	/* one that waits for an object can be cancelled */
	hp_ring_submit_and_wait(with.ring, 1, 10000000);
	must_be(hp_ring_poll(with.ring, &completion, 1), 0);
	must_be(hp_ring_cancel(with.ring, 1, 0, 2), 0);
	int64_t result[2] = {1, 1};
	for (unsigned i = 0; i < 2; i++) {
		completion = hp_ring_next(with.ring);
		must(completion.user == 1 || completion.user == 2);
		must_be(completion.flags, 0);
		result[completion.user - 1] = completion.result;
	}
	must_be(result[0], -ECANCELED);
	must_be(result[1], 0);
	must_be(hp_cache_put_bulk(with.cache, 4, object), 0);
	hp_ring_must_be_idle(with.ring);
	/* and one that ends with the ring */
	must_be(hp_ring_recv_object(with.ring, with.pair[0], HP_RING_MULTI, 1), 0);
	completion = hp_ring_next(with.ring);
	must_be(completion.result, 1);
	must_be(hp_cache_put(with.cache, completion.object), 0);
	must_be(hp_ring_submit(with.ring) >= 0, 1);
	end();
}

static void an_empty_cache_is_reported(void **state)
{
	begin(state, HP_RING_REPORT_EMPTY, 2, 0);
	void *object[2];
	must_be(hp_cache_get_bulk(with.cache, 0, 2, object), 0);
	must_be(hp_ring_buffers(with.ring, with.cache, 4), 0);
	for (unsigned flags = 0; flags <= HP_RING_MULTI; flags += HP_RING_MULTI) {
		must_be(hp_ring_recv_object(with.ring, with.pair[0], flags, 1), 0);
		if (!flags) must_be(write(with.pair[1], "abcd", 4), 4);
		must_be(hp_ring_result(with.ring, 1), -ENOBUFS);
	}
	must_be(hp_cache_put(with.cache, object[0]), 0);
	must_be(hp_ring_recv_object(with.ring, with.pair[0], 0, 2), 0);
	struct hp_ring_completion completion = hp_ring_next(with.ring);
	must_be(completion.result, 4);
	must_be(memcmp(completion.object, "abcd", 4), 0);
	must_be(hp_cache_put(with.cache, completion.object), 0);
	must_be(hp_cache_put(with.cache, object[1]), 0);
	end();
}

/* Filled, and nobody has asked for it. */
static void what_nobody_took_goes_back(void **state)
{
	begin(state, 0, 0, 8);
	must_be(hp_ring_recv_object(with.ring, with.pair[0], HP_RING_MULTI, 1), 0);
	must_be(hp_ring_submit(with.ring), 1);
	for (unsigned i = 0; i < 5; i++) must_be(write(with.pair[1], "abcd", 4), 4);
	must(hp_ring_submit_and_wait(with.ring, 1, FOREVER) >= 0);
	end();
}

static int build(void *arg, void *object, unsigned flags)
{
	(void)arg;
	(void)object;
	(void)flags;
	return 0;
}

static void bad_buffers(void **state)
{
	begin(state, 0, 0, 0);
	hp_pool *other = hp_plain_pool(4 * MIB, 0);
	hp_cache *foreign = hp_cache_make(other, "foreign", 100, 0), *private, *built;
	struct hp_cache_options options = hp_cache_of(100, 0);
	must_be(hp_cache_create_private("private", &options, NULL, &private), 0);
	options.ctor = build;
	must_be(hp_cache_create(with.pool, "built", &options, &built), 0);
	must_be(hp_ring_buffers(NULL, with.cache, 4), -EINVAL);
	must_be(hp_ring_buffers(with.ring, NULL, 4), -EINVAL);
	must_be(hp_ring_buffers(with.ring, with.cache, 0), -EINVAL);
	must_be(hp_ring_buffers(with.ring, with.cache, 40000), -EINVAL);
	must_be(hp_ring_buffers(with.ring, with.cache, 300), -EINVAL); /* more than options.buffers */
	must_be(hp_ring_buffers(with.ring, foreign, 4), -EXDEV);
	must_be(hp_ring_buffers(with.ring, private, 4), -EXDEV);
	must_be(hp_ring_buffers(with.ring, built, 4), -ENOTSUP);
	must_be(hp_ring_recv_object(with.ring, with.pair[0], 0, 1), -ENOBUFS);
	must_be(hp_ring_buffers(with.ring, with.cache, 3), 0);
	must_be(hp_cache_numbers(with.cache).in_use, 4);
	must_be(hp_ring_buffers(with.ring, with.cache, 4), -EEXIST);
	must_be(hp_ring_recv_object(with.ring, with.pair[0], HP_RING_LINK, 1), -EINVAL);
	/* it is in use */
	must_be(hp_cache_destroy(with.cache), -EBUSY);
	must_be(hp_cache_destroy(built), 0);
	must_be(hp_cache_destroy(private), 0);
	must_be(hp_cache_destroy(foreign), 0);
	hp_pool_detach(other);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_both_engines(one_after_the_other),
		on_both_engines(many_in_one_request),
		on_both_engines(few_objects),
		on_both_engines(one_object),
		on_both_engines(many_in_one_request_on_an_older_kernel),
		on_both_engines(an_empty_cache_is_waited_for),
		on_both_engines(an_empty_cache_is_reported),
		on_both_engines(what_nobody_took_goes_back),
		on_both_engines(bad_buffers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
