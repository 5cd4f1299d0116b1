/* hugepool show --holders: who holds what of a live pool, named by functions, also static ones of a program that knows of
 * nothing; processes that are gone; and pools without tags. */
#include <hugepool/hugepool.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hp_test.h"

static char command[4096];
static char output[1 << 16];
static hp_pool *pool;

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

static __attribute__((noinline)) void *a_leaking_function(size_t size)
{
	void *block = hp_malloc(pool, size);
	__asm__ volatile("" ::: "memory"); /* no tail call: this function is the caller */
	return block;
}

static __attribute__((noinline)) void *a_hoarding_function(hp_cache *cache)
{
	void *object = hp_cache_get(cache, 0);
	__asm__ volatile("" ::: "memory");
	return object;
}

static int setup(void **state)
{
	(void)state;
	struct hp_pool_options options = {.struct_size = sizeof(options),
	                                  .name = "held",
	                                  .size = 8 << 20,
	                                  .rung = HP_RUNG_4K,
	                                  .choice = HP_CHOICE_REQUIRE};
	assert_int_equal(hp_pool_create(&options, &pool), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return hp_pool_detach(pool);
}

static void names_functions(void **state)
{
	(void)state;
	struct hp_cache_options options = {.struct_size = sizeof(options), .size = 200};
	hp_cache *cache;
	char line[100];
	assert_int_equal(hp_pool_debug(pool, HP_DEBUG_CALLER), 0);
	assert_int_equal(hp_cache_create(pool, "cache", &options, &cache), 0);
	for (int i = 0; i < 5; i++) assert_non_null(a_leaking_function(1000));
	assert_non_null(a_leaking_function(70000));
	for (int i = 0; i < 3; i++) assert_non_null(a_hoarding_function(cache));
	assert_int_equal(run("show --holders %d", (int)getpid()), 0);
	assert_says("holders        2");
	assert_says("6 blocks          75000 bytes");
	assert_says("3 blocks            600 bytes");
	assert_says("a_leaking_function+0x");
	assert_says("a_hoarding_function+0x");
	snprintf(line, sizeof(line), "process %d thread %d", (int)getpid(), (int)getpid());
	assert_says(line);
	assert_int_equal(run("show --json --holders %d", (int)getpid()), 0);
	assert_says("\"blocks\": 6");
	assert_says("\"bytes\": 600");
	assert_says("a_leaking_function+0x");
	assert_int_equal(run("show %d", (int)getpid()), 0);
	assert_null(strstr(output, "holders"));
}

static int leave_one(void *unused)
{
	(void)unused;
	return a_leaking_function(300) ? 0 : 1;
}

/* What a process has left behind is listed, by address: whose function that was cannot be told any more. */
static void lists_processes_that_are_gone(void **state)
{
	(void)state;
	char address[40];
	assert_int_equal(hp_pool_debug(pool, HP_DEBUG_CALLER | HP_DEBUG_GUARD), 0);
	assert_int_equal(hp_test_child(leave_one, NULL), 0);
	struct hp_holder holder;
	assert_int_equal(hp_pool_holders(pool, &holder, 1), 1);
	assert_int_not_equal(holder.pid, getpid());
	assert_int_equal(run("show --holders %d", (int)getpid()), 0);
	assert_says("1 blocks            300 bytes");
	snprintf(address, sizeof(address), "0x%llx", (unsigned long long)holder.caller);
	assert_says(address);
	assert_null(strstr(output, "a_leaking_function"));
}

static void says_how_to_get_tags(void **state)
{
	(void)state;
	assert_int_equal(run("show --holders %d", (int)getpid()), 0);
	assert_says("HUGEPOOL_DEBUG=caller");
	assert_non_null(a_leaking_function(16));
	assert_int_equal(run("show --holders %d", (int)getpid()), 0);
	assert_says("(no tag)");
}

int main(void)
{
	const char *folder = getenv("HUGEPOOL_BUILD_DIR");
	unsetenv("HUGEPOOL_DEBUG");
	snprintf(command, sizeof(command), "%s/hugepool", folder ? folder : "build");
	if (access(command, X_OK) != 0) hp_test_skip("the hugepool command was not built (libpcap and jansson are needed)");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_functions, setup, teardown),
		cmocka_unit_test_setup_teardown(lists_processes_that_are_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(says_how_to_get_tags, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
