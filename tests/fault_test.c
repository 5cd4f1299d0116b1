/* Every system call of every operation of the pool, made to fail in turn: the operation says so (or does without), leaves
 * no descriptor, no mapping and no page behind, and the pool is as sound and as useful as before. Would catch an error path
 * that forgets something, and a call whose failure is not looked at. */
#include "hp_process.h"

#include "os/os.h"
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>

static unsigned calls, victim; /* the number of the call that fails; 0: none */
static int failure;
static const int errors[] = {-ENOMEM, -EPERM, -EINVAL, -ENOSYS};

/* Calls whose failure the kernel cannot really answer with, or that have to leak when they fail. */
static bool may_fail(enum os_call call)
{
	return call != OS_CLOSE && call != OS_UNMAP && call != OS_THREAD_EXISTS && call != OS_FUTEX_WAKE &&
	       call != OS_CPU && call != OS_PROTECT;
}

static bool fail_one(enum os_call call, int64_t *result)
{
	if (!may_fail(call) || ++calls != victim) return false;
	*result = failure;
	return true;
}

static struct hp_pool_options small(void)
{
	return (struct hp_pool_options){.size = 2 << 20,
	                                .capacity = 8 << 20,
	                                .choice = HP_CHOICE_REQUIRE,
	                                .rung = HP_RUNG_4K,
	                                .max_threads = 8,
	                                .max_processes = 8};
}

static hp_pool *pool;

static int begin(void **state)
{
	(void)state;
	struct hp_pool_options options = small();
	return hp_pool_create(&options, &pool);
}

static int end(void **state)
{
	(void)state;
	os_hook = NULL;
	hp_pool_detach(pool);
	pool = NULL;
	return 0;
}

/* One try of the operation: its result; what it made it takes back. */
typedef int operation_fn(void);

static void each_call_fails_in_turn(operation_fn *operation, bool on_pool)
{
	for (unsigned e = 0; e < sizeof errors / sizeof *errors; e++) {
		failure = errors[e];
		must_be(operation(), 0); /* what is allocated once for good is allocated now */
		unsigned failed = 0;
		for (victim = 1;; victim++) {
			struct held before = held_now();
			calls = 0;
			os_hook = fail_one;
			int result = operation();
			os_hook = NULL;
			bool met = calls >= victim;
			if (!met) {
				must_be(result, 0);
				break;
			}
			failed += result < 0;
			must_hold_no_more(before);
			if (on_pool) hp_must_be_sound(pool);
			must_be(operation(), 0);
		}
		if (!on_pool && failure == -ENOMEM) must(failed > 0); /* others may get by with one failure */
		victim = 0;
	}
}

static int create(void)
{
	struct hp_pool_options options = small();
	hp_pool *made;
	int result = hp_pool_create(&options, &made);
	if (result < 0) return result;
	os_hook = NULL;
	hp_must_be_sound(made);
	hp_pool_detach(made);
	return 0;
}

static int attach(void)
{
	int fds[3];
	hp_pool *other;
	must_be(hp_pool_fds(pool, fds), 0);
	int result = hp_pool_attach(fds, NULL, &other);
	if (result < 0) return result;
	os_hook = NULL;
	hp_must_be_sound(other);
	hp_pool_detach(other);
	return 0;
}

static int pass(void)
{
	int pair[2];
	must_be(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	hp_pool *other = NULL;
	int result = hp_pool_send(pool, pair[0]);
	if (result == 0) result = hp_pool_receive(pair[1], NULL, &other);
	os_hook = NULL;
	if (result == 0) hp_pool_detach(other);
	close(pair[0]);
	close(pair[1]);
	return result;
}

static int grow_and_trim(void)
{
	uint64_t before = hp_stats(pool).committed;
	int result = hp_pool_grow(pool, 1 << 20, NULL, NULL);
	if (result < 0) {
		os_hook = NULL;
		must_be(hp_stats(pool).committed, before);
	}
	os_hook = NULL;
	must(hp_pool_trim(pool, before) >= 0);
	must_be(hp_stats(pool).committed, before);
	data_must_be_exact(pool);
	return result;
}

static int trim(void)
{
	uint64_t before = hp_stats(pool).committed;
	int64_t given = hp_pool_trim(pool, 0);
	os_hook = NULL;
	uint64_t left = hp_stats(pool).committed;
	must(left <= before);
	if (left < before) must_be(hp_pool_grow(pool, before - left, NULL, NULL), 0);
	must_be(hp_stats(pool).committed, before);
	return given < 0 ? (int)given : 0;
}

static int grow_by_allocating(void)
{
	void *block;
	int result = hp_page_alloc(pool, 3 << 20, 0, &block);
	os_hook = NULL;
	if (result == 0) must_be(hp_page_free(pool, block), 0);
	must(hp_pool_trim(pool, 2 << 20) >= 0);
	return result;
}

static void *first_call(void *result)
{
	void *block;
	*(int *)result = hp_page_alloc(pool, PAGE, 0, &block);
	os_hook = NULL;
	if (*(int *)result == 0) must_be(hp_page_free(pool, block), 0);
	return NULL;
}

static int first_call_of_a_thread(void)
{
	int result = -1;
	pthread_t thread;
	must_be(pthread_create(&thread, NULL, first_call, &result), 0);
	must_be(pthread_join(thread, NULL), 0);
	return result;
}

static void creating(void **state)
{
	(void)state;
	each_call_fails_in_turn(create, false);
}

static void attaching(void **state)
{
	(void)state;
	each_call_fails_in_turn(attach, true);
}

static void passing(void **state)
{
	(void)state;
	each_call_fails_in_turn(pass, true);
}

static void growing(void **state)
{
	(void)state;
	each_call_fails_in_turn(grow_and_trim, true);
}

static void trimming(void **state)
{
	(void)state;
	each_call_fails_in_turn(trim, true);
}

static void growing_by_allocating(void **state)
{
	(void)state;
	each_call_fails_in_turn(grow_by_allocating, true);
}

static void registering_a_thread(void **state)
{
	(void)state;
	each_call_fails_in_turn(first_call_of_a_thread, true);
}

/* Detaching does what it can. A descriptor that cannot be told to be ours is not closed: at most that stays. */
static void detaching(void **state)
{
	(void)state;
	for (unsigned from = 1; from < 40; from++) {
		struct hp_pool_options options = small();
		hp_pool *made;
		struct held before = held_now();
		must_be(hp_pool_create(&options, &made), 0);
		calls = 0;
		victim = from;
		failure = -ENOMEM;
		os_hook = fail_one;
		must_be(hp_pool_detach(made), 0);
		os_hook = NULL;
		must_be(held_now().maps, before.maps);
		must(held_now().files <= before.files + 1);
	}
	victim = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(creating),
		cmocka_unit_test_setup_teardown(attaching, begin, end),
		cmocka_unit_test_setup_teardown(passing, begin, end),
		cmocka_unit_test_setup_teardown(growing, begin, end),
		cmocka_unit_test_setup_teardown(trimming, begin, end),
		cmocka_unit_test_setup_teardown(growing_by_allocating, begin, end),
		cmocka_unit_test_setup_teardown(registering_a_thread, begin, end),
		cmocka_unit_test(detaching),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
