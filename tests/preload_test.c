/* libhugepool_malloc.so, seen by a program that only calls malloc.
 *
 * The program starts itself again with LD_PRELOAD, so that it is such a program from its first instruction: what its
 * constructors and a thread before main do is looked at in main. Catches: a call before there is a pool that gets nothing
 * or is lost, wrong alignment and errno, a realloc that loses bytes, a child or a handler that hangs, memory that threads
 * leave behind. */
#include "hp_test.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

#define must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #condition); \
			abort(); \
		} \
	} while (0)

/* Not to be seen through by the compiler, which knows what malloc is. */
static void *(*volatile get)(size_t) = malloc;
static void (*volatile give)(void *) = free;
static void *(*volatile resize)(void *, size_t) = realloc;
static void *(*volatile resize_array)(void *, size_t, size_t) = reallocarray;

static bool preloaded(void)
{
	Dl_info info;
	return dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) && strstr(info.dli_fname, "libhugepool_malloc");
}

/* ---- before main ---- */

static struct {
	char *block, *moved;
	bool thread_ran;
} before_main;

static void *thread_before_main(void *arg)
{
	for (unsigned i = 1; i < 1000; i++) {
		char *block = get(i * 10);
		must(block);
		memset(block, 1, i * 10);
		give(block);
	}
	return arg;
}

static void *atfork_block;

static void atfork_handler(void)
{
	void *block = get(100);
	must(block);
	give(atfork_block);
	atfork_block = resize(block, 5000);
	must(atfork_block);
}

__attribute__((constructor)) static void constructor(void)
{
	pthread_t thread;
	if (HP_TEST_SANITIZER) return; /* main has nothing to test then */
	before_main.block = get(1000);
	must(before_main.block);
	strcpy(before_main.block, "constructed");
	before_main.moved = get(10);
	strcpy(before_main.moved, "moved");
	before_main.moved = resize(before_main.moved, 100000);
	must(before_main.moved);
	before_main.thread_ran = pthread_create(&thread, NULL, thread_before_main, NULL) == 0 &&
	                         pthread_join(thread, NULL) == 0;
	pthread_atfork(atfork_handler, atfork_handler, atfork_handler);
}

static void constructors_allocate(void **state)
{
	(void)state;
	assert_string_equal(before_main.block, "constructed");
	assert_string_equal(before_main.moved, "moved");
	assert_true(before_main.thread_ran);
	give(before_main.block);
	give(before_main.moved);
}

/* ---- what POSIX says ---- */

static void blocks_are_aligned(void **state)
{
	(void)state;
	for (size_t size = 0; size < 100000; size = size * 5 / 4 + 1) {
		void *block = get(size);
		assert_non_null(block);
		assert_int_equal((uintptr_t)block % 16, 0);
		assert_true(malloc_usable_size(block) >= size);
		memset(block, 7, malloc_usable_size(block));
		give(block);
	}
	for (size_t align = 8; align <= MIB; align *= 2) {
		for (size_t size = 0; size < 3 * MIB; size = size * 7 + 1) {
			void *block[4] = {memalign(align, size), aligned_alloc(align, size), NULL, NULL};
			assert_int_equal(posix_memalign(&block[2], align, size), 0);
			assert_int_equal(posix_memalign(&block[3], align, size), 0);
			for (unsigned i = 0; i < 4; i++) {
				assert_non_null(block[i]);
				assert_int_equal((uintptr_t)block[i] % align, 0);
				assert_true(malloc_usable_size(block[i]) >= size);
				memset(block[i], (int)i, size);
			}
			for (unsigned i = 0; i < 4; i++) {
				assert_true(size == 0 || ((char *)block[i])[size - 1] == (char)i);
				give(block[i]);
			}
		}
	}
	for (size_t align = 2 * MIB; align <= 64 * MIB;
	     align *= 2) { /* over any number of chunks, at any of their borders */
		char *block[3] = {aligned_alloc(align, 1), aligned_alloc(align, 10 * MIB), aligned_alloc(8192, align + 1)};
		for (unsigned i = 0; i < 3; i++) assert_non_null(block[i]);
		assert_int_equal((uintptr_t)block[0] % align | (uintptr_t)block[1] % align | (uintptr_t)block[2] % 8192, 0);
		block[0][0] = block[1][0] = block[1][10 * MIB - 1] = block[2][0] = block[2][align] = 1;
		for (unsigned i = 0; i < 3; i++) give(block[i]);
	}
	void *page = valloc(1), *pages = pvalloc(4097);
	assert_int_equal((uintptr_t)page % 4096, 0);
	assert_int_equal((uintptr_t)pages % 4096, 0);
	assert_true(malloc_usable_size(pages) >= 8192);
	give(page);
	give(pages);
	void *odd = memalign(48, 100); /* glibc takes the next power of two */
	assert_int_equal((uintptr_t)odd % 64, 0);
	give(odd);
}

static void errors_are_those_of_posix(void **state)
{
	(void)state;
	volatile size_t most = SIZE_MAX, half = SIZE_MAX / 2 + 1;
	char nothing;
	void *block = &nothing;
	const size_t sizes[] = {most, most - 15, half, half - 1, most / 4, (size_t)1 << 47};
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		errno = 0;
		assert_null(get(sizes[i]));
		assert_int_equal(errno, ENOMEM);
		errno = 0;
		assert_null(calloc(1, sizes[i]));
		assert_int_equal(errno, ENOMEM);
		errno = 0;
		assert_null(memalign(64, sizes[i]));
		assert_int_equal(errno, ENOMEM);
		errno = 0;
		assert_null(memalign(8192, sizes[i]));
		assert_int_equal(errno, ENOMEM);
		errno = 5;
		assert_int_equal(posix_memalign(&block, 64, sizes[i]), ENOMEM);
		assert_int_equal(errno, 5);
		assert_ptr_equal(block, &nothing);
	}
	errno = 0;
	assert_null(calloc(half, 2));
	assert_int_equal(errno, ENOMEM);
	errno = 0;
	assert_null(pvalloc(most));
	assert_int_equal(errno, ENOMEM);
	errno = 0;
	assert_null(aligned_alloc(3, 100));
	assert_int_equal(errno, EINVAL);
	errno = 5;
	assert_int_equal(posix_memalign(&block, 3, 100), EINVAL);
	assert_int_equal(posix_memalign(&block, 4, 100), EINVAL);
	assert_int_equal(posix_memalign(&block, 0, 100), EINVAL);
	assert_int_equal(errno, 5);
	char *kept = get(100);
	strcpy(kept, "kept");
	errno = 0;
	assert_null(resize_array(kept, half, 3));
	assert_int_equal(errno, ENOMEM);
	errno = 0;
	assert_null(resize(kept, half));
	assert_int_equal(errno, ENOMEM);
	assert_string_equal(kept, "kept");
	errno = 5;
	give(kept);
	give(NULL);
	assert_int_equal(errno, 5);
	assert_int_equal(malloc_usable_size(NULL), 0);
}

static void realloc_keeps_what_both_sizes_hold(void **state)
{
	(void)state;
	unsigned char *block = NULL;
	size_t old = 0;
	for (unsigned i = 0; i < 400; i++) {
		size_t size = 1 + (size_t)i * i * (i % 7 ? 5 : 97) % 700000;
		block = resize(block, size);
		assert_non_null(block);
		for (size_t k = 0; k < old && k < size; k++)
			if (block[k] != (unsigned char)(k * 31)) fail_msg("byte %zu of %zu, now %zu", k, old, size);
		for (size_t k = 0; k < size; k++) block[k] = (unsigned char)(k * 31);
		old = size;
	}
	assert_null(resize(block, 0)); /* freed, as with glibc */
	block = reallocarray(NULL, 10, 20);
	assert_non_null(block);
	give(block);
}

static void calloc_gives_zeros(void **state)
{
	(void)state;
	for (size_t size = 1; size < 8 * MIB; size = size * 3 + 1) {
		void *dirty = get(size);
		assert_non_null(dirty);
		memset(dirty, 0xff, size);
		give(dirty);
		unsigned char *clean = calloc(size, 1);
		assert_non_null(clean);
		for (size_t k = 0; k < size; k++)
			if (clean[k]) fail_msg("byte %zu of %zu", k, size);
		give(clean);
	}
}

/* Undefined elsewhere; here it harms nothing. */
static void wrong_frees_harm_nothing(void **state)
{
	(void)state;
	char here[64] = "stack", *block = get(100), *other = get(100);
	void (*volatile wrong)(void *) = give;
	strcpy(other, "other");
	wrong(here);
	wrong((void *)(uintptr_t)wrong_frees_harm_nothing);
	wrong(block + 8);
	wrong(block);
	wrong(block);
	assert_string_equal(other, "other");
	assert_string_equal(here, "stack");
	wrong(other);
}

/* ---- threads, forks, signals ---- */

#define THREADS 4
static _Atomic bool stop;
static _Atomic unsigned ready;

static void *churn(void *arg)
{
	enum { MANY = 256 };
	unsigned char *block[MANY] = {0};
	size_t size[MANY] = {0};
	uint64_t seed = (uintptr_t)arg * 77 + 1;
	for (unsigned turn = 0; !atomic_load(&stop); turn++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		unsigned i = (unsigned)(seed >> 33) % MANY;
		if (block[i]) must(block[i][0] == (i & 0xff) && block[i][size[i] - 1] == (i & 0xff));
		size_t want = 1 + (size_t)(seed >> 40) % (seed >> 20 & 15 ? 600 : 100000);
		if (seed >> 50 & 1) {
			give(block[i]);
			block[i] = get(want);
		} else {
			block[i] = resize(block[i], want);
		}
		must(block[i]);
		size[i] = want;
		block[i][0] = block[i][want - 1] = (unsigned char)i;
		if (turn == 1000) atomic_fetch_add(&ready, 1);
	}
	for (unsigned i = 0; i < MANY; i++) give(block[i]);
	return arg;
}

static void start(pthread_t thread[THREADS])
{
	atomic_store(&stop, false);
	atomic_store(&ready, 0);
	for (uintptr_t i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, churn, (void *)i), 0);
	while (atomic_load(&ready) < THREADS) sched_yield();
}

static void end(pthread_t thread[THREADS])
{
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
}

static void some(unsigned count)
{
	enum { MANY = 300 };
	char *block[MANY];
	for (unsigned turn = 0; turn < count; turn++) {
		for (unsigned i = 0; i < MANY; i++) {
			must(block[i] = get(1 + i * turn));
			block[i][0] = (char)i;
		}
		for (unsigned i = 0; i < MANY; i++) {
			must(block[i][0] == (char)i);
			give(block[i]);
		}
	}
}

static int wait_for(pid_t pid)
{
	int status;
	pid_t got;
	while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR) {}
	must(got == pid);
	return status;
}

/* Children of a program with busy threads, with handlers that allocate: they allocate, free what they inherited, start
 * threads, fork again, and end by exit, which runs all there is. */
static void children_of_threads_allocate(void **state)
{
	(void)state;
	pthread_t thread[THREADS];
	char *inherited = get(3000);
	strcpy(inherited, "inherited");
	start(thread);
	for (unsigned i = 0; i < 60; i++) {
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) {
			must(!strcmp(inherited, "inherited"));
			give(inherited);
			some(20);
			if (i % 4 == 0) {
				pthread_t own;
				must(pthread_create(&own, NULL, thread_before_main, NULL) == 0);
				pid_t grandchild = fork();
				if (grandchild == 0) {
					some(5);
					_exit(0);
				}
				must(wait_for(grandchild) == 0);
				must(pthread_join(own, NULL) == 0);
			}
			if (i % 3) _exit(0);
			char *args[] = {(char *)"true", NULL};
			execvp("true", args);
			_exit(1);
		}
		assert_int_equal(wait_for(pid), 0);
	}
	end(thread);
	give(inherited);
	assert_int_equal(system("exit 7") >> 8, 7);
	FILE *pipe = popen("echo popen", "r");
	char line[16] = "";
	assert_true(pipe && fgets(line, sizeof line, pipe));
	assert_string_equal(line, "popen\n");
	pclose(pipe);
}

static _Atomic unsigned handled;

static void allocate_here(int signal)
{
	(void)signal;
	int before = errno;
	void *block[3] = {get(40), get(4000), get(400000)};
	for (unsigned i = 0; i < 3; i++) {
		must(block[i]);
		*(char *)block[i] = 1;
		give(block[i]);
	}
	atomic_fetch_add(&handled, 1);
	errno = before;
}

static void handlers_allocate(void **state)
{
	(void)state;
	struct sigaction action = {.sa_handler = allocate_here, .sa_flags = SA_RESTART}, before;
	struct itimerval often = {.it_interval = {.tv_usec = 200}, .it_value = {.tv_usec = 200}}, never = {0};
	pthread_t thread[THREADS];
	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	setitimer(ITIMER_REAL, &often, NULL);
	start(thread);
	while (atomic_load(&handled) < 500) some(1);
	end(thread);
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &before, NULL);
}

/* Thread-specific data that allocates when its thread ends, in more keys than the first level holds. */
static pthread_key_t keys[64];

static void at_the_end(void *value)
{
	give(value);
	void *more = get(200);
	must(more);
	give(more);
}

static void *with_keys(void *arg)
{
	for (unsigned i = 0; i < 64; i++) must(pthread_setspecific(keys[i], get(50 + i)) == 0);
	*(void **)arg = get(123);
	must(*(void **)arg);
	return arg;
}

static size_t resident(void)
{
	unsigned long size, pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	must(file && fscanf(file, "%lu %lu", &size, &pages) == 2);
	fclose(file);
	return pages * 4096;
}

static void threads_come_and_go(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 64; i++) assert_int_equal(pthread_key_create(&keys[i], at_the_end), 0);
	size_t after_some = 0;
	for (unsigned round = 0; round < 300; round++) {
		pthread_t thread[8];
		void *left[8];
		for (unsigned i = 0; i < 8; i++) assert_int_equal(pthread_create(&thread[i], NULL, with_keys, &left[i]), 0);
		for (unsigned i = 0; i < 8; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
		for (unsigned i = 0; i < 8; i++) give(left[i]);
		if (round == 50) after_some = resident();
	}
	assert_true(resident() < after_some + 32 * MIB);
	for (unsigned i = 0; i < 64; i++) pthread_key_delete(keys[i]);
}

static void trim_gives_memory_back(void **state)
{
	(void)state;
	enum { MANY = 200 };
	char *block[MANY];
	size_t before = resident();
	for (unsigned i = 0; i < MANY; i++) {
		must(block[i] = get(MIB));
		memset(block[i], 1, MIB);
	}
	assert_true(resident() > before + MANY * MIB / 2);
	for (unsigned i = 0; i < MANY; i++) give(block[i]);
	assert_int_equal(malloc_trim(0), 1);
	assert_true(resident() < before + 20 * MIB);
	some(10);
}

/* ---- the environment ---- */

/* The program once more, as itself or as `mode`; its standard error in `said`. */
static int again(const char *variable, const char *value, rlim_t address_space, const char *mode, char said[400])
{
	int pipes[2];
	must(pipe(pipes) == 0);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		struct rlimit limit = {address_space, address_space};
		dup2(pipes[1], 2);
		setenv(variable, value, 1);
		setenv("HP_PRELOAD_TEST", mode, 1);
		if (address_space) setrlimit(RLIMIT_AS, &limit);
		execl("/proc/self/exe", "preload_test", (char *)NULL);
		_exit(126);
	}
	close(pipes[1]);
	size_t length = 0;
	ssize_t got;
	while (length < 399 && (got = read(pipes[0], said + length, 399 - length)) > 0) length += (size_t)got;
	said[length] = 0;
	close(pipes[0]);
	return wait_for(pid);
}

/* What the program does when HP_PRELOAD_TEST says so: blocks of a MiB until there are no more, or 300. */
static int greedy(void)
{
	unsigned count = 0;
	while (count < 300 && get(MIB)) count++;
	return count == 300 ? 100 : count >= 40 ? 40 : 1;
}

static void the_environment_decides(void **state)
{
	(void)state;
	char said[400];
	assert_int_equal(again("HUGEPOOL_SIZE", "64M", 0, "greedy", said) >> 8, 40);
	assert_string_equal(said, "");
	assert_int_equal(again("HUGEPOOL_SIZE", "1GiB", 0, "greedy", said) >> 8, 100);
	assert_string_equal(said, "");
	assert_int_equal(again("HUGEPOOL_SIZE", "much", 0, "greedy", said) >> 8, 100);
	assert_non_null(strstr(said, "HUGEPOOL_SIZE is much; set it to"));
	assert_int_equal(again("HUGEPOOL_PAGES", "4k", 0, "greedy", said) >> 8, 100);
	assert_string_equal(said, "");
	assert_int_equal(again("HUGEPOOL_PAGES", "3m", 0, "greedy", said) >> 8, 100);
	assert_non_null(strstr(said, "HUGEPOOL_PAGES is 3m; set it to 1g, 2m, thp or 4k"));
	assert_int_equal(again("HUGEPOOL_NODE", "0", 0, "greedy", said) >> 8, 100);
	assert_int_equal(again("HUGEPOOL_NODE", "x", 0, "greedy", said) >> 8, 100);
	assert_non_null(strstr(said, "HUGEPOOL_NODE is x; set it to"));
	/* a limit on address space is kept to */
	assert_int_equal(again("HUGEPOOL_SIZE", "", (rlim_t)2048 * MIB, "greedy", said) >> 8, 100);
	assert_string_equal(said, "");
}

static void hugetlb_pages_by_request(void **state)
{
	(void)state;
	char said[400];
	if (!hp_test_has_huge(HP_HUGE_2M, 8)) hp_test_skip_one("8 huge pages of 2 MiB are not to be had");
	int status = again("HUGEPOOL_PAGES", "2m", 0, "greedy", said) >> 8;
	assert_true(status == 100 || status == 40 || status == 1); /* as many as there are */
	assert_string_equal(said, "");
}

int main(int argc, char **argv)
{
	const char *build = getenv("HUGEPOOL_BUILD_DIR"), *mode = getenv("HP_PRELOAD_TEST");
	(void)argc;
	if (HP_TEST_SANITIZER) hp_test_skip("a sanitizer has a malloc of its own");
	if (!preloaded()) {
		char path[4096];
		if (mode) hp_test_skip("LD_PRELOAD has no effect here");
		if (build)
			snprintf(path, sizeof path, "%s/libhugepool_malloc.so", build);
		else
			snprintf(path, sizeof path, "libhugepool_malloc.so");
		if (build && access(path, R_OK) < 0) hp_test_skip("%s was not built", path);
		setenv("LD_PRELOAD", path, 1);
		setenv("HP_PRELOAD_TEST", "tests", 1);
		execv("/proc/self/exe", argv);
		hp_test_skip("the program cannot start itself: %s", strerror(errno));
	}
	if (mode && !strcmp(mode, "greedy")) return greedy();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(constructors_allocate),        cmocka_unit_test(blocks_are_aligned),
		cmocka_unit_test(errors_are_those_of_posix),    cmocka_unit_test(realloc_keeps_what_both_sizes_hold),
		cmocka_unit_test(calloc_gives_zeros),           cmocka_unit_test(wrong_frees_harm_nothing),
		cmocka_unit_test(children_of_threads_allocate), cmocka_unit_test(handlers_allocate),
		cmocka_unit_test(threads_come_and_go),          cmocka_unit_test(trim_gives_memory_back),
		cmocka_unit_test(the_environment_decides),      cmocka_unit_test(hugetlb_pages_by_request),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
