/* hugepool show and check on a live pool that this program holds: by process, by descriptor, through the environment;
 * what they say, their exit status with and without findings, and that they leave the pool as it was. */
#include "page/page.h"
#include "pool/pool.h"
#include <hugepool/hugepool.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hp_test.h"

static char command[4096];
static char output[1 << 16]; /* of the latest run, both streams */

/* Runs "hugepool ARGUMENTS" through the shell, which inherits what is not close-on-exec. Returns the exit status. */
__attribute__((format(printf, 1, 2))) static int run(const char *format, ...)
{
	char line[sizeof(command) + 512], arguments[256];
	va_list args;
	va_start(args, format);
	vsnprintf(arguments, sizeof(arguments), format, args);
	va_end(args);
	snprintf(line, sizeof(line), "exec %s %s 2>&1", command, arguments);
	FILE *pipe = popen(line, "r");
	assert_non_null(pipe);
	size_t length = fread(output, 1, sizeof(output) - 1, pipe);
	output[length] = 0;
	int status = pclose(pipe);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void assert_says(const char *text)
{
	if (!strstr(output, text)) fail_msg("'%s' is not in the output: %s", text, output);
}

static hp_pool *make_pool(const char *name)
{
	struct hp_pool_options options = {
		.struct_size = sizeof(options), .name = name, .size = 4 << 20, .rung = HP_RUNG_4K, .choice = HP_CHOICE_REQUIRE};
	hp_pool *pool;
	assert_int_equal(hp_pool_create(&options, &pool), 0);
	return pool;
}

static int setup(void **state)
{
	hp_pool *pool = make_pool("looked at");
	void *block;
	for (int i = 0; i < 5; i++) assert_int_equal(hp_page_alloc(pool, 3 * 4096, 0, &block), 0);
	*state = pool;
	return 0;
}

static int teardown(void **state)
{
	return hp_pool_detach(*state);
}

static void shows_the_pools_of_a_process(void **state)
{
	(void)state;
	assert_int_equal(run("show %d", (int)getpid()), 0);
	assert_says("pool looked at");
	assert_says("in 5 blocks");
	assert_says("1 processes, 1 threads");
	assert_int_equal(run("show --json %d", (int)getpid()), 0);
	assert_says("\"name\": \"looked at\"");
	assert_says("\"live_blocks\": 5");
	assert_says("\"committed\": 4194304");
	assert_says("\"page_size\": 4096");
	assert_int_equal(run("show --dump %d", (int)getpid()), 0);
	assert_says("12288 bytes");
}

static void shows_all_of_several_pools(void **state)
{
	(void)state;
	hp_pool *second = make_pool("second"), *twin = make_pool("second");
	assert_int_equal(run("show %d", (int)getpid()), 0);
	assert_says("pool looked at");
	char *first = strstr(output, "pool second");
	assert_non_null(first);
	assert_non_null(strstr(first + 1, "pool second")); /* two of one name are two */
	hp_pool_detach(second);
	hp_pool_detach(twin);
}

static void *wait_for_one(void *cache)
{
	void *object = hp_cache_get(cache, HP_CACHE_WAIT);
	if (object) hp_cache_put(cache, object);
	return NULL;
}

/* Caches, and who waits for what; and the same through an observer's handle. */
static void shows_caches_and_who_waits(void **state)
{
	const struct hp_cache_options options = {.struct_size = sizeof(options), .size = 300};
	struct hp_cache_stats stats = {.struct_size = sizeof(stats)};
	char expected[128];
	hp_cache *cache;
	void *object[4];
	pthread_t thread;
	assert_int_equal(run("show %d", (int)getpid()), 0);
	assert_null(strstr(output, "cache "));
	assert_int_equal(hp_cache_create(*state, "packets", &options, &cache), 0);
	assert_int_equal(hp_cache_set_hard_limit(cache, 4, NULL, 0), 0);
	assert_int_equal(hp_cache_get_bulk(cache, 0, 3, object), 0);
	assert_int_equal(run("show %d", (int)getpid()), 0);
	assert_says("cache packets: objects of 300 bytes, 3 in use, 1 cached, 1 slabs");
	assert_says("limit 4, 0 fails, 0 waits, 0 waiting");
	object[3] = hp_cache_get(cache, 0);
	assert_non_null(object[3]);
	assert_int_equal(pthread_create(&thread, NULL, wait_for_one, cache), 0);
	do assert_int_equal(hp_cache_stats(cache, &stats), 0);
	while (stats.waiting != 1);
	assert_int_equal(run("show %d", (int)getpid()), 0);
	assert_says("limit 4, 1 fails, 1 waits, 1 waiting");
	snprintf(expected, sizeof(expected), "process %d, thread ", (int)getpid());
	assert_says(expected);
	assert_says("waits for an object of cache packets");
	assert_int_equal(run("show --json %d", (int)getpid()), 0);
	assert_says("\"name\": \"packets\"");
	assert_says("\"in_use\": 4");
	assert_says("\"waiting\": 1");
	snprintf(expected, sizeof(expected), "\"pid\": %d", (int)getpid());
	assert_says(expected);
	assert_int_equal(run("check %d", (int)getpid()), 0);
	assert_int_equal(hp_cache_put_bulk(cache, 4, object), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(hp_cache_destroy(cache), 0);
	assert_int_equal(run("show %d", (int)getpid()), 0);
	assert_null(strstr(output, "cache "));
}

struct person {
	HP_REF(struct person) friend;
	HP_REF(struct hp_string) name;
	uint64_t forgotten;
};
HP_TYPE_DECLARE(person_type);
HP_TYPE(person_type, struct person, (friend, person_type), (name, hp_string_type));

static int befriend(hp_tx *tx, void *arg)
{
	hp_ref *person = arg;
	person[0] = hp_heap_new(tx, &person_type, 0);
	person[1] = hp_heap_new(tx, &person_type, 0);
	if (!person[1].word) return hp_heap_error(tx);
	for (int i = 0; i < 2; i++) {
		struct person *one = hp_heap_deref(hp_heap_of(tx), person[i]);
		one->friend.ref = person[1 - i];
		one->name.ref = hp_heap_new_string(tx, i ? "Ada" : "Grace", i ? 3 : 5);
	}
	return hp_heap_set_root(tx, person[0]);
}

static int unfriend(hp_tx *tx, void *arg)
{
	struct person *grace = hp_heap_deref(hp_heap_of(tx), *(hp_ref *)arg);
	return hp_heap_set(tx, &grace->friend.ref, HP_NONE);
}

/* Shared heaps: their numbers, their graph, what is wrong in them and what is suspicious; who writes, who is waited for. */
static void shows_and_checks_heaps(void **state)
{
	char expected[128];
	hp_heap *heap;
	hp_ref person[2];
	hp_guard guard;
	hp_tx *tx;
	int me = (int)getpid();
	assert_int_equal(hp_heap_create(*state, NULL, NULL, NULL, &heap), 0);
	assert_int_equal(hp_heap_modify(heap, -1, befriend, person), 0);
	assert_int_equal(hp_heap_guard(heap, person, 2, &guard), 0);
	assert_int_equal(run("show --heap 1 %d", me), 0);
	assert_says("in 5 blocks"); /* a heap's runs are none */
	assert_says("heap 1: 4 values of 2 types, ");
	assert_says("2 guards, 0 collections, 0 recoveries");
	assert_null(strstr(output, "writes"));
	assert_says("type person_type: 24 bytes, 2 values\n  +0 -> person_type\n  +8 -> hp_string_type\n");
	assert_says("5 long: \"Grace\"\n");
	assert_says("3 long: \"Ada\"\n");
	assert_int_equal(run("show --heap 2 %d", me), 3);
	assert_says("no heap 2");
	assert_int_equal(run("show --dump %d", me), 0);
	assert_says("slab of heap 1, 2 of ");
	assert_int_equal(run("check %d", me), 0);
	assert_says("0 findings");
	assert_says("1 heap,");

	assert_int_equal(hp_heap_begin(heap, -1, &tx), 0);
	assert_int_equal(run("show %d", me), 0);
	snprintf(expected, sizeof(expected), "process %d writes", me);
	assert_says(expected);
	hp_heap_abort(tx);
	assert_int_equal(run("show --json %d", me), 0);
	assert_says("\"values\": 4");
	assert_says("\"guards\": 2");
	assert_says("\"writer_pid\": 0");

	struct person *grace = hp_heap_deref(heap, person[0]);
	hp_ref was = grace->name.ref;
	grace->forgotten = was.word;
	assert_int_equal(run("check %d", me), 0);
	assert_int_equal(run("check --audit %d", me), 1);
	assert_says("heap 1: offset 16 of person_type looks like an unlisted reference in 50 %");
	assert_says("1 finding;");
	grace->forgotten = 0;
	grace->name.ref.word += 8;
	assert_int_equal(run("check --json %d", me), 1);
	assert_says("heap 1: person_type at 0x");
	assert_says("\"findings\": 1");
	grace->name.ref = was;
	assert_int_equal(run("check --audit %d", me), 0);
	assert_int_equal(hp_heap_unguard(&guard), 0);
	assert_int_equal(hp_heap_modify(heap, -1, unfriend, person), 0);
	assert_int_equal(run("check --audit %d", me), 1);
	assert_says("1 values of person_type, 32 bytes, that nothing reaches");
	assert_int_equal(run("check %d", me), 0);
	assert_int_equal(hp_heap_destroy(heap, 0, 100), 0);
	assert_int_equal(run("show %d", me), 0);
	assert_null(strstr(output, "heap 1"));
}

/* Inherited descriptors: one of the pool's three names it, if the others are there, too. */
static void finds_a_pool_by_descriptor(void **state)
{
	int fds[3], copies[3];
	assert_int_equal(hp_pool_fds(*state, fds), 0);
	for (int i = 0; i < 3; i++) {
		copies[i] = fcntl(fds[i], F_DUPFD, 300);
		assert_true(copies[i] >= 300);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(run("show %d", copies[i]), 0);
		assert_says("in 5 blocks");
		assert_int_equal(run("check %d", copies[i]), 0);
	}
	close(copies[2]);
	assert_int_equal(run("show %d", copies[1]), 3);
	assert_says("data file");
	close(copies[1]);
	assert_int_equal(run("show %d", copies[0]), 3);
	assert_says("control file");
	close(copies[0]);
}

static void finds_a_pool_through_the_environment(void **state)
{
	assert_int_equal(run("show --env"), 3);
	assert_says("HUGEPOOL_POOL");
	assert_int_equal(hp_pool_export_env(*state, NULL), 0);
	assert_int_equal(hp_pool_export_env(*state, "ANOTHER"), 0);
	assert_int_equal(run("show --env"), 0);
	assert_says("pool looked at");
	assert_int_equal(run("check --env=ANOTHER"), 0);
	assert_says("looked at: 0 findings");
	setenv("ANOTHER", "900,901,902", 1);
	assert_int_equal(run("show --env=ANOTHER"), 3);
	setenv("ANOTHER", "nonsense", 1);
	assert_int_equal(run("check --env=ANOTHER"), 3);
	unsetenv("ANOTHER");
	unsetenv("HUGEPOOL_POOL");
}

static void says_when_there_is_nothing_to_look_at(void **state)
{
	(void)state;
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) _exit(0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(run("show %d", (int)child), 3);
	assert_says("no process");
	assert_int_equal(run("check %d", (int)child), 3);
	assert_int_equal(run("show 1"), 3); /* init has none, or may not be looked at */
}

/* A live block whose length is gone: found, told in a line, exit status 1; and nothing is changed by looking. */
static void check_ends_with_1_on_findings(void **state)
{
	hp_pool *pool = *state;
	void *block;
	assert_int_equal(hp_page_alloc(pool, 2 * 4096, 0, &block), 0);
	uint64_t page = hp_pool_offset(pool, block) / 4096;
	struct parity_unit *unit = &pool->units[page / pool->chunk_pages];
	_Atomic uint16_t *length = &unit->len[page % pool->chunk_pages];
	assert_int_equal(run("check %d", (int)getpid()), 0);
	assert_says("looked at: 0 findings");
	uint16_t right = atomic_load(length);
	atomic_store(length, 0x3ff);
	assert_int_equal(run("check %d", (int)getpid()), 1);
	assert_says("looked at: ");
	assert_int_equal(run("check --json %d", (int)getpid()), 1);
	assert_says("\"findings\": 1");
	assert_int_equal(atomic_load(length), 0x3ff);
	atomic_store(length, right);
	assert_int_equal(run("check %d", (int)getpid()), 0);
	assert_int_equal(hp_page_free(pool, block), 0);
}

static void looking_takes_no_part(void **state)
{
	struct hp_pool_stats before = {.struct_size = sizeof(before)}, after = {.struct_size = sizeof(after)};
	assert_int_equal(hp_pool_stats(*state, &before), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(run("show %d", (int)getpid()), 0);
		assert_int_equal(run("check %d", (int)getpid()), 0);
	}
	assert_int_equal(hp_pool_stats(*state, &after), 0);
	assert_memory_equal(&before, &after, sizeof(before));
}

int main(void)
{
	const char *folder = getenv("HUGEPOOL_BUILD_DIR");
	snprintf(command, sizeof(command), "%s/hugepool", folder ? folder : "build");
	if (access(command, X_OK) != 0) hp_test_skip("the hugepool command was not built (libpcap and jansson are needed)");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(shows_the_pools_of_a_process, setup, teardown),
		cmocka_unit_test_setup_teardown(shows_all_of_several_pools, setup, teardown),
		cmocka_unit_test_setup_teardown(shows_caches_and_who_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(shows_and_checks_heaps, setup, teardown),
		cmocka_unit_test_setup_teardown(finds_a_pool_by_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(finds_a_pool_through_the_environment, setup, teardown),
		cmocka_unit_test_setup_teardown(says_when_there_is_nothing_to_look_at, setup, teardown),
		cmocka_unit_test_setup_teardown(check_ends_with_1_on_findings, setup, teardown),
		cmocka_unit_test_setup_teardown(looking_takes_no_part, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
