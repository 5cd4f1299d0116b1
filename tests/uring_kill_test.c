/* Processes with I/O in flight, killed, many times: the kernel ends their I/O later than it ends them, and what it may still
 * write to is nobody else's until then.
 *
 * Catches: memory handed out while a dead process' request may write to it (the survivor takes all there is, fills it, feeds
 * every request, and looks at its bytes); objects that waited to be filled and are lost; pins that stay; a pool that is not
 * empty at the end. On both engines. */
#include "hp_uring.h"
#include "hp_malloc.h"
#include "io/pin.h"
#include <hugepool/malloc.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#define LINES 12 /* sockets, each with a request */
#define SIZE 2048
#define ROUNDS (HP_TEST_SANITIZER ? 8u : 60u)
#define MOST 4096

struct told {
	_Atomic unsigned ready; /* requests are under way */
	hp_off object[LINES];   /* what they write to and the application holds; 0: something else */
};

/* A third of the requests write to objects that are everybody's, a third to pages of the process, the rest to objects of the
 * ring's own. */
static void work(hp_pool *pool, hp_cache *cache, void **state, unsigned flags, const int fd[LINES], struct told *told)
{
	hp_ring *ring = hp_ring_on(pool, state, flags);
	must_be(hp_ring_buffers(ring, cache, 8), 0);
	for (unsigned i = 0; i < LINES; i++) {
		void *pages;
		if (i % 3 == 0) {
			void *object = hp_cache_get(cache, 0);
			must(object);
			told->object[i] = hp_pool_offset(pool, object);
			must_be(hp_ring_recv(ring, fd[i], object, SIZE, 0, i), 0);
		} else if (i % 3 == 1) {
			must_be(hp_page_alloc(pool, SIZE, HP_PAGE_PROCESS, &pages), 0);
			must_be(hp_ring_recv(ring, fd[i], pages, SIZE, 0, i), 0);
		} else {
			must_be(hp_ring_recv_object(ring, fd[i], i & 1 ? HP_RING_MULTI : 0, i), 0);
		}
	}
	must_be(hp_ring_submit(ring), LINES);
	told->ready = 1;
	for (;;) hp_ring_submit_and_wait(ring, LINES + 1, FOREVER);
}

static void a_round(void **state, unsigned round)
{
	static void *block[MOST];
	char bytes[SIZE];
	hp_pool *pool = hp_plain_pool(2 * MIB, HP_POOL_NO_AUTOGROW);
	hp_cache *cache = hp_cache_make(pool, "received", SIZE, 0);
	struct told *told = hp_shared(sizeof *told);
	int theirs[LINES], ours[LINES];
	for (unsigned i = 0; i < LINES; i++) {
		int pair[2];
		must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		theirs[i] = pair[0];
		ours[i] = pair[1];
	}
	pid_t pid = hp_fork();
	if (pid == 0) work(pool, cache, state, round & 4 ? HP_RING_ONE_THREAD : 0, theirs, told);
	/* half of the rounds as soon as it lives, or a little later, and half with all of it under way */
	while (round & 1 ? !told->ready : round & 2 && !told->object[0]) {
		int status;
		if (waitpid(pid, &status, WNOHANG) == pid) { /* there is no io_uring, say */
			must(WIFEXITED(status));
			exit(WEXITSTATUS(status));
		}
		sched_yield();
	}
	must_be(kill(pid, SIGKILL), 0);
	/* all there is, while the dead one is perhaps not even a corpse yet */
	unsigned blocks = 0;
	memset(bytes, 'x', sizeof bytes);
	for (unsigned turn = 0; turn < 2; turn++) {
		while (blocks < MOST && (block[blocks] = hp_malloc(pool, SIZE))) hp_fill(block[blocks], SIZE, blocks), blocks++;
		must(blocks < MOST);
		for (unsigned i = 0; i < LINES; i++) must(send(ours[i], bytes, 64, MSG_NOSIGNAL | MSG_DONTWAIT) != 0);
		if (turn == 0) must_be(hp_wait_for(pid), 128 + SIGKILL);
		must(hp_pool_recover(pool) >= 0);
		hp_must_be_sound(pool);
	}
	while (pin_any(pool)) {
		must(hp_pool_recover(pool) >= 0);
		sched_yield();
	}
	for (unsigned i = 0; i < LINES; i++) send(ours[i], bytes, 64, MSG_NOSIGNAL | MSG_DONTWAIT);
	for (unsigned i = 0; i < blocks; i++) must(hp_filled(block[i], SIZE, i));
	while (blocks) must_be(hp_free(pool, block[--blocks]), 0);
	/* what the application had of the dead one, as far as it says so */
	for (unsigned i = 0; i < LINES; i++)
		if (told->object[i]) must_be(hp_cache_put(cache, hp_pool_pointer(pool, told->object[i])), 0);
	struct hp_cache_stats stats = hp_cache_numbers(cache);
	must(stats.in_use <= 1); /* one that it had got, and had not said so yet */
	for (unsigned i = 0; i < LINES; i++) close(theirs[i]), close(ours[i]);
	if (stats.in_use == 0) {
		must_be(hp_cache_destroy(cache), 0);
		hp_purge(pool);
		hp_must_be_empty(pool);
	}
	must_be(hp_pool_detach(pool), 0);
	munmap(told, sizeof *told);
}

static void killed_with_io_in_flight(void **state)
{
	hp_ring *ring = hp_ring_on(NULL, state, 0); /* or it is skipped */
	must_be(hp_ring_destroy(ring), 0);
	for (unsigned round = 0; round < ROUNDS; round++) a_round(state, round);
}

int main(void)
{
	const struct CMUnitTest tests[] = {on_both_engines(killed_with_io_in_flight)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
