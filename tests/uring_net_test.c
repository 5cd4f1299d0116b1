/* Rings on sockets: Unix and TCP over loopback, connections, bytes that go around, peers that vanish. On both engines.
 *
 * Catches: bytes lost, doubled or swapped on their way through many sends and receives; a zero-copy send that completes while its
 * memory is still in use, or fails where a socket has none; an accept of many that stops; a peer's end that is not told. */
#include "hp_uring.h"
#include "ring/ring.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

static int listen_tcp(struct sockaddr_in *address)
{
	socklen_t bytes = sizeof *address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	must(fd >= 0);
	if (bind(fd, (struct sockaddr *)address, bytes) < 0) hp_test_skip("no loopback interface (%s)", strerror(errno));
	must_be(listen(fd, 64), 0);
	must_be(getsockname(fd, (struct sockaddr *)address, &bytes), 0);
	return fd;
}

static void tcp_pair(int pair[2])
{
	struct sockaddr_in address;
	int fd = listen_tcp(&address);
	must((pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
	must_be(connect(pair[0], (struct sockaddr *)&address, sizeof address), 0);
	must((pair[1] = accept(fd, NULL, NULL)) >= 0);
	close(fd);
}

static void unix_pair(int pair[2])
{
	must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

/* Whether a request is under way is told by its memory: it is freed at once, and a byte of it that arrives changed was given
 * to somebody else too early. So here blocks are only freed when all has arrived. */
static void bytes_go_around(hp_ring *ring, hp_pool *pool, const int pair[2], unsigned flags)
{
	enum { SIZE = 20000, ROUNDS = 40 };
	char *out = hp_pages(pool, SIZE), *in = hp_pages(pool, SIZE);
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t sent = 0, got = 0;
		bool sending = false, receiving = false;
		hp_cache_fill(out, SIZE, round);
		memset(in, 0, SIZE);
		while (got < SIZE) {
			if (!sending && sent < SIZE) {
				must_be(hp_ring_send(ring, pair[round & 1], out + sent, SIZE - sent, flags, 1), 0);
				sending = true;
			}
			if (!receiving) {
				must_be(hp_ring_recv(ring, pair[!(round & 1)], in + got, SIZE - got, 0, 2), 0);
				receiving = true;
			}
			struct hp_ring_completion completion = hp_ring_next(ring);
			must(completion.result > 0);
			if (completion.user == 1) {
				sending = false;
				sent += (size_t)completion.result;
			} else {
				receiving = false;
				got += (size_t)completion.result;
			}
		}
		while (sending) { /* a zero-copy send may end after its bytes have arrived */
			struct hp_ring_completion completion = hp_ring_next(ring);
			must_be(completion.user, 1);
			sent += (size_t)completion.result;
			sending = false;
		}
		must_be(sent, SIZE);
		must_be(memcmp(in, out, SIZE), 0);
	}
	hp_ring_must_be_idle(ring);
	must_be(hp_page_free(pool, in), 0);
	must_be(hp_page_free(pool, out), 0);
}

static void to_and_fro(void **state)
{
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	for (unsigned i = 0; i < 8; i++) {
		hp_ring *ring = hp_ring_on(pool, state, i & 4 ? HP_RING_UNREGISTERED : 0);
		int pair[2];
		if (i & 1)
			tcp_pair(pair);
		else
			unix_pair(pair);
		bytes_go_around(ring, pool, pair, i & 2 ? HP_RING_ZEROCOPY : 0);
		close(pair[0]);
		close(pair[1]);
		must_be(hp_ring_destroy(ring), 0);
	}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void connections(void **state)
{
	enum { MANY = 20 };
	hp_ring *ring = hp_ring_on(NULL, state, 0);
	struct sockaddr_in address;
	int fd = listen_tcp(&address), client[MANY], server[MANY];
	unsigned accepted = 0, connected = 0;
	must_be(hp_ring_accept(ring, fd, HP_RING_MULTI, 100), 0);
	for (unsigned i = 0; i < MANY; i++) {
		client[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		must_be(hp_ring_connect(ring, client[i], (struct sockaddr *)&address, sizeof address, 0, i), 0);
	}
	while (accepted < MANY || connected < MANY) {
		struct hp_ring_completion completion = hp_ring_next(ring);
		if (completion.user == 100) {
			must(completion.result >= 0);
			must_be(completion.flags, HP_RING_MORE);
			must(fcntl(completion.result, F_GETFD) & FD_CLOEXEC);
			server[accepted++] = completion.result;
		} else {
			must_be(completion.result, 0);
			must(completion.user < MANY);
			connected++;
		}
	}
	/* they lead to each other, and are as blocking as they were */
	for (unsigned i = 0; i < MANY; i++) {
		must_be(fcntl(client[i], F_GETFL) & O_NONBLOCK, 0);
		must_be(write(client[i], &i, sizeof i), sizeof i);
	}
	uint32_t seen = 0;
	for (unsigned i = 0; i < MANY; i++) {
		unsigned number;
		must_be(hp_ring_recv(ring, server[i], &number, sizeof number, 0, 7), 0);
		must_be(hp_ring_result(ring, 7), sizeof number);
		seen |= 1u << number;
		close(server[i]);
		close(client[i]);
	}
	must_be(seen, (1u << MANY) - 1);
	/* one at a time; and no more when it is cancelled */
	must_be(hp_ring_cancel(ring, 100, 0, 101), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct hp_ring_completion completion = hp_ring_next(ring);
		must_be(completion.result, completion.user == 100 ? -ECANCELED : 0);
		must_be(completion.flags, 0);
	}
	must_be(hp_ring_accept(ring, fd, 0, 102), 0);
	must_be(hp_ring_submit(ring), 1);
	client[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must_be(connect(client[0], (struct sockaddr *)&address, sizeof address), 0);
	server[0] = (int)hp_ring_result(ring, 102);
	must(server[0] >= 0);
	close(client[0]);
	close(server[0]);
	/* nobody listens */
	close(fd);
	client[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must_be(hp_ring_connect(ring, client[0], (struct sockaddr *)&address, sizeof address, 0, 103), 0);
	must_be(hp_ring_result(ring, 103), -ECONNREFUSED);
	close(client[0]);
	/* connections that nobody has asked for are closed with the ring */
	struct held before = held_now();
	fd = listen_tcp(&address);
	must_be(hp_ring_accept(ring, fd, HP_RING_MULTI, 104), 0);
	must_be(hp_ring_submit(ring), 1);
	client[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must_be(connect(client[0], (struct sockaddr *)&address, sizeof address), 0);
	must(hp_ring_submit_and_wait(ring, 1, FOREVER) >= 0);
	must_be(hp_ring_destroy(ring), 0);
	close(client[0]);
	close(fd);
	must(held_now().files <= before.files);
}

static void peers_that_vanish(void **state)
{
	hp_pool *pool = hp_plain_pool(4 * MIB, 0);
	hp_ring *ring = hp_ring_on(pool, state, 0);
	char *block = hp_pages(pool, MIB);
	for (unsigned tcp = 0; tcp < 2; tcp++) {
		int pair[2];
		tcp ? tcp_pair(pair) : unix_pair(pair);
		/* while we receive */
		must_be(hp_ring_recv(ring, pair[0], block, 100, 0, 1), 0);
		must_be(hp_ring_submit(ring), 1);
		close(pair[1]);
		must_be(hp_ring_result(ring, 1), 0);
		/* and when we send: no signal comes */
		int64_t result = 0;
		while (result >= 0) {
			must_be(hp_ring_send(ring, pair[0], block, 100, tcp ? HP_RING_ZEROCOPY : 0, 2), 0);
			result = hp_ring_result(ring, 2);
		}
		must(result == -EPIPE || result == -ECONNRESET);
		close(pair[0]);
		/* with more under way than the socket holds */
		tcp ? tcp_pair(pair) : unix_pair(pair);
		for (unsigned i = 0; i < 6; i++)
			must_be(hp_ring_send(ring, pair[0], block, MIB, i & 1 ? HP_RING_ZEROCOPY : 0, i), 0);
		must_be(hp_ring_submit(ring), 6);
		close(pair[1]);
		for (unsigned i = 0; i < 6; i++) {
			struct hp_ring_completion completion = hp_ring_next(ring);
			must(completion.user < 6);
			must(completion.result > 0 || completion.result == -EPIPE || completion.result == -ECONNRESET);
		}
		close(pair[0]);
		hp_ring_must_be_idle(ring);
	}
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_ring_destroy(ring), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_both_engines(to_and_fro),
		on_both_engines(connections),
		on_both_engines(peers_that_vanish),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
