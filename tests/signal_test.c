/* Signal handlers that allocate and free while their thread is inside an operation. First at every instruction: the
 * processor's trap flag brings a signal after each, and at the n-th the handler calls the library; then by chance, at a
 * high rate. Would catch an operation that looks at something, is interrupted, and acts on what it saw: a page handed out
 * twice, a free that hits another chunk, a slot that is entered twice. */
#include "hp_process.h"
#include "hp_trap.h"

#include <pthread.h>
#include <sys/time.h>

#define BLOCKS 4096

static hp_pool *pool;

#if HP_TRAP

/* What should be live; the handler's changes are part of it. Nothing here is touched by both sides at once: an
 * operation's own block is added after it, and a victim removed before it. */
static struct {
	void *block[BLOCKS];
	size_t pages[BLOCKS];
	unsigned count;
} live;

static void live_add(void *block, size_t pages)
{
	must(live.count < BLOCKS);
	hp_mark(block, pages, (uintptr_t)block);
	live.block[live.count] = block;
	live.pages[live.count++] = pages;
}

static void *live_remove(unsigned i)
{
	void *block = live.block[i];
	must(hp_marked(block, live.pages[i], (uintptr_t)block));
	live.count--;
	live.block[i] = live.block[live.count];
	live.pages[i] = live.pages[live.count];
	return block;
}

static void live_is_all_there_is(void)
{
	uint64_t pages = 0;
	for (unsigned i = 0; i < live.count; i++) {
		must_be(hp_page_size(pool, live.block[i]), live.pages[i] * PAGE);
		must(hp_marked(live.block[i], live.pages[i], (uintptr_t)live.block[i]));
		pages += live.pages[i];
	}
	struct hp_pool_stats stats = hp_stats(pool);
	must_be(stats.live_blocks, live.count);
	must_be(stats.free, stats.committed - pages * PAGE);
	hp_must_be_sound(pool);
}

static void allocate(size_t pages, unsigned flags)
{
	void *block;
	must_be(hp_page_alloc(pool, pages * PAGE, flags, &block), 0);
	live_add(block, pages);
}

/* ---- at every instruction ---- */

/* Each scene starts from the same state: a pool in which the thread's active chunk is nearly full. */
struct scene {
	const char *name;
	void (*prepare)(void);
	void (*operation)(void);
	void (*interruption)(void);
	unsigned long stride; /* a long operation is interrupted at each so many-th instruction, from a random one on */
};

static uint64_t chunk_pages;

static void *victim; /* what the operation frees */

static void one_page_left(void)
{
	/* fills a chunk but for one page, so that the next single page comes from there */
	allocate(chunk_pages - 1, 0);
}

static void one_word_left(void)
{
	allocate(chunk_pages - 2, 0);
	allocate(1, 0);
}

static void a_block_of_the_active_chunk(void)
{
	allocate(3, 0);
	allocate(1, 0);
	victim = live_remove(live.count - 1);
}

static void a_run_of_the_active_chunk(void)
{
	allocate(1, 0);
	allocate(3, 0);
	victim = live_remove(live.count - 1);
}

static void a_long_run(void)
{
	allocate(1, 0);
	allocate(chunk_pages * 2 + 3, 0);
	victim = live_remove(live.count - 1);
}

static void a_block_of_the_process(void)
{
	allocate(1, HP_PAGE_PROCESS);
	allocate(2, HP_PAGE_PROCESS);
	victim = live_remove(live.count - 1);
}

static void *result;
static int outcome;

static void alloc_one(void)
{
	outcome = hp_page_alloc(pool, PAGE, 0, &result);
}

static void alloc_three(void)
{
	outcome = hp_page_alloc(pool, 3 * PAGE, 0, &result);
}

static void alloc_for_process(void)
{
	outcome = hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &result);
}

static void alloc_long(void)
{
	outcome = hp_page_alloc(pool, (chunk_pages * 2 + 5) * PAGE, 0, &result);
}

static void free_victim(void)
{
	outcome = hp_page_free(pool, victim);
	result = NULL;
}

static void take_the_last_page(void)
{
	allocate(1, 0);
}

static void take_pages_of_all_sizes(void)
{
	allocate(2, 0);
	allocate(1, 0);
	allocate(chunk_pages, 0);
	allocate(1, HP_PAGE_PROCESS);
	allocate(chunk_pages + 1, 0);
	allocate(1, 0);
}

/* Makes another chunk the active one, and frees into the one before. */
static void change_chunks(void)
{
	allocate(chunk_pages - 1, 0);
	allocate(2, 0);
	allocate(chunk_pages / 2, 0);
	for (unsigned i = 0; i < live.count; i++) {
		if (live.pages[i] != 1) continue;
		must_be(hp_page_free(pool, live_remove(i)), 0);
		break;
	}
	allocate(1, 0);
}

static void recover_and_look(void)
{
	must_be(hp_pool_recover(pool), 0);
	allocate(1, 0);
	must_be(hp_page_free(pool, live_remove(live.count - 1)), 0);
}

static void start_afresh(void)
{
	pool = hp_plain_pool(4 * MIB, 0); /* so many chunks that what the interrupted one holds is not missed */
	live.count = 0;
	chunk_pages = hp_stats(pool).unit_size / PAGE;
}

static void end(void)
{
	while (live.count) must_be(hp_page_free(pool, live_remove(live.count - 1)), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static void at_every_instruction(void **state)
{
	(void)state;
	const struct scene scenes[] = {
		{"the last page, and the last page", one_page_left, alloc_one, take_the_last_page, 1},
		{"the last page of a word", one_word_left, alloc_one, take_the_last_page, 1},
		{"a page, and all sizes", one_word_left, alloc_one, take_pages_of_all_sizes, 1},
		{"a page, and another chunk", one_word_left, alloc_one, change_chunks, 1},
		{"three pages, and the last page", one_word_left, alloc_three, take_the_last_page, 5},
		{"three pages, and all sizes", one_page_left, alloc_three, take_pages_of_all_sizes, 5},
		{"a page of the process", one_page_left, alloc_for_process, take_pages_of_all_sizes, 3},
		{"a free, and another chunk", a_block_of_the_active_chunk, free_victim, change_chunks, 1},
		{"a run freed, and another chunk", a_run_of_the_active_chunk, free_victim, change_chunks, 1},
		{"a long run freed", a_long_run, free_victim, take_pages_of_all_sizes, 1},
		{"a block of the process freed", a_block_of_the_process, free_victim, take_pages_of_all_sizes, 1},
		{"a page, and recovery", one_page_left, alloc_one, recover_and_look, 1},
		{"a long run, and the last page", one_page_left, alloc_long, take_the_last_page, 199},
		{"a long run, and all sizes", one_page_left, alloc_long, take_pages_of_all_sizes, 199},
	};
	struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO}, old;
	sigaction(SIGTRAP, &trap, &old);
	uint64_t random = hp_seed("at_every_instruction");
	for (unsigned k = 0; k < sizeof scenes / sizeof *scenes; k++) {
		const struct scene *scene = &scenes[k];
		unsigned long points = 0;
		/* A pool is made once in a while; in between everything is freed, so that states vary a little. */
		start_afresh();
		for (unsigned long n = 1 + hp_below(&random, scene->stride);; n += scene->stride) {
			interruption = scene->interruption;
			scene->prepare();
			bool was = interrupted_at(n, scene->operation);
			if (outcome != 0) fail_msg("%s: %d at instruction %lu", scene->name, outcome, n);
			if (result) {
				size_t pages = (size_t)hp_page_size(pool, result) / PAGE;
				for (unsigned i = 0; i < live.count; i++)
					if (live.block[i] == result) fail_msg("%s: two owners, at instruction %lu", scene->name, n);
				live_add(result, pages);
				result = NULL;
			}
			live_is_all_there_is();
			while (live.count) must_be(hp_page_free(pool, live_remove(live.count - 1)), 0);
			if (!was) break;
			points++;
		}
		print_message("%s: at %lu instructions\n", scene->name, points);
		assert_true(points > 10);
		end();
	}
	sigaction(SIGTRAP, &old, NULL);
}

#else
static void at_every_instruction(void **state)
{
	(void)state;
	hp_test_skip_one("single steps are for x86-64 without sanitizers");
}
#endif

/* ---- at random ---- */

static _Atomic unsigned deliveries, failures;
static _Thread_local void *of_handler[8];
static _Thread_local unsigned handled;

static void on_alarm(int signal)
{
	(void)signal;
	int saved = errno;
	unsigned k = handled++ % 8;
	if (of_handler[k]) {
		if (!hp_marked(of_handler[k], 1 + k % 3, k)) failures++;
		if (hp_page_free(pool, of_handler[k]) != 0) failures++;
		of_handler[k] = NULL;
	} else if (hp_page_alloc(pool, (1 + k % 3) * PAGE, k & 4 ? HP_PAGE_PROCESS : 0, &of_handler[k]) == 0) {
		hp_mark(of_handler[k], 1 + k % 3, k);
	}
	deliveries++;
	errno = saved;
}

static void *busy(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *block[24] = {0};
	size_t pages[24];
	unsigned wanted = HP_TEST_SANITIZER ? 500 : 6000;
	while (deliveries < wanted) {
		unsigned k = (unsigned)hp_below(&random, 24);
		if (block[k]) {
			must(hp_marked(block[k], pages[k], (uintptr_t)block[k]));
			must_be(hp_page_free(pool, block[k]), 0);
			block[k] = NULL;
			continue;
		}
		pages[k] = hp_below(&random, 8) ? 1 : 1 + hp_below(&random, 70);
		int error = hp_page_alloc(pool, pages[k] * PAGE, random & 64 ? HP_PAGE_PROCESS : 0, &block[k]);
		must(error == 0 || error == -ENOMEM);
		if (error == 0) hp_mark(block[k], pages[k], (uintptr_t)block[k]);
	}
	sigset_t alarms;
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarms, NULL);
	for (int k = 0; k < 24; k++) {
		if (!block[k]) continue;
		must(hp_marked(block[k], pages[k], (uintptr_t)block[k]));
		must_be(hp_page_free(pool, block[k]), 0);
	}
	for (int k = 0; k < 8; k++) {
		if (of_handler[k]) must_be(hp_page_free(pool, of_handler[k]), 0);
		of_handler[k] = NULL;
	}
	return NULL;
}

static void thousands_of_times(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags <= HP_POOL_FENCED; flags += HP_POOL_FENCED) {
		pool = hp_plain_pool(4 * MIB, flags);
		deliveries = failures = 0;
		struct sigaction alarm = {.sa_handler = on_alarm, .sa_flags = SA_RESTART}, old;
		sigaction(SIGALRM, &alarm, &old);
		struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
		pthread_t thread[2];
		for (uintptr_t i = 0; i < 2; i++) must_be(pthread_create(&thread[i], NULL, busy, (void *)(i + 1)), 0);
		sigset_t alarms, before;
		sigemptyset(&alarms);
		sigaddset(&alarms, SIGALRM);
		pthread_sigmask(SIG_BLOCK, &alarms, &before);
		setitimer(ITIMER_REAL, &often, NULL);
		/* the kernel gives a process' signal to whom it likes: both get theirs */
		while (deliveries < (HP_TEST_SANITIZER ? 500u : 6000u)) {
			pthread_kill(thread[0], SIGALRM);
			pthread_kill(thread[1], SIGALRM);
			usleep(20);
		}
		setitimer(ITIMER_REAL, &never, NULL);
		for (int i = 0; i < 2; i++) must_be(pthread_join(thread[i], NULL), 0);
		signal(SIGALRM, SIG_IGN); /* forgets one that is still pending, which this thread would get and keep a block */
		signal(SIGALRM, SIG_IGN); /* and with it one that is pending */
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		sigaction(SIGALRM, &old, NULL);
		assert_int_equal(failures, 0);
		hp_must_be_empty(pool);
		pool_must_work(pool, 4 * MIB);
		assert_int_equal(hp_pool_detach(pool), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(at_every_instruction),
		cmocka_unit_test(thousands_of_times),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
