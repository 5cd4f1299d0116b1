/* Deaths and failures around the keeper: clients killed before each of their calls of the kernel, every call of both ends made
 * to fail, keepers that are killed and followed, and races for a name and for a path. Would catch what is half done, a
 * descriptor that stays, and two keepers on one path. */
#include "hp_keep.h"

static void (*doomed)(void);
static unsigned doomed_at, doomed_calls;

static bool killed_there(enum os_call call, int64_t *result)
{
	(void)call;
	(void)result;
	if (++doomed_calls == doomed_at) kill(getpid(), SIGKILL);
	return false;
}

static void dying(const struct child *me, void *arg)
{
	(void)me;
	(void)arg;
	doomed_calls = 0;
	os_hook = killed_there;
	doomed();
	os_hook = NULL;
}

static void publish_new(void)
{
	must_be(hp_pool_publish(pool, "new", 0600, NULL), 0);
}
static void open_it(void)
{
	hp_pool *got;
	must_be(hp_pool_open("it", NULL, &got), 0);
	must_be(hp_pool_detach(got), 0);
}
static void observe_it(void)
{
	hp_pool *got;
	must_be(open_for("it", true, &got), 0);
	must_be(hp_pool_detach(got), 0);
}
static void unlink_gone(void)
{
	must_be(hp_pool_unlink("gone", NULL), 0);
}
static void list_all(void)
{
	must(kept_now() >= 1);
}

/* A client dies before each of its calls of the kernel: what it asked for is done or not. */
static void clients_die_everywhere(void **state)
{
	(void)state;
	void (*const operations[])(void) = {publish_new, open_it, observe_it, unlink_gone, list_all};
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	for (unsigned o = 0; o < sizeof operations / sizeof *operations; o++) {
		bool done = false, undone = false;
		doomed = operations[o];
		for (doomed_at = 1;; doomed_at++) {
			assert_int_equal(hp_pool_publish(pool, "gone", 0600, NULL), 0);
			struct child child = child_start(dying, NULL);
			int status = child_end(&child);
			int error = hp_pool_unlink("new", NULL);
			assert_true(error == 0 || error == -ENOENT);
			done |= error == 0;
			undone |= error != 0;
			error = hp_pool_unlink("gone", NULL);
			assert_true(error == 0 || (error == -ENOENT && doomed == unlink_gone));
			assert_int_equal(kept_now(), 1);
			keeper_settles(3);
			if (status == 0) break;
			assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		}
		assert_true(doomed_at > 5);
		if (doomed == publish_new) assert_true(done && undone);
		assert_true(hp_pool_recover(pool) >= 0);
		hp_must_be_empty(pool);
	}
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

static bool one_call_fails(enum os_call call, int64_t *result)
{
	if (call == OS_CLOSE || !control->victim || ++control->calls != control->victim) return false;
	*result = call == OS_POLL ? -ENOMEM : control->failure;
	return true;
}

static int all_operations(void)
{
	hp_pool *got;
	int error = hp_pool_publish(pool, "new", 0600, NULL), worst = error;
	if ((error = hp_pool_open("new", NULL, &got)) < 0) worst = error;
	hp_pool_detach(got);
	if ((error = open_for("new", true, &got)) < 0) worst = error;
	hp_pool_detach(got);
	if ((error = hp_pool_list(NULL, count_kept, &(int){0})) < 0) worst = error;
	if ((error = hp_pool_unlink("new", NULL)) < 0) worst = error;
	return worst;
}

/* Whatever the kernel refuses to the keeper: a client hears of it, and that is all. */
static void every_call_of_the_keeper_fails(void **state)
{
	(void)state;
	keeper_again(&(struct keeper_wish){.hook = one_call_fails, .idle_ns = SECOND});
	const int failures[] = {-ENOMEM, -EMFILE};
	for (int f = 0; f < 2; f++) {
		unsigned failed = 0;
		bool met = true;
		for (unsigned victim = 1; met; victim++) {
			control->failure = failures[f];
			control->calls = 0;
			control->victim = victim;
			failed += all_operations() < 0;
			met = control->calls >= victim;
			control->victim = 0;
			hp_pool_unlink("new", NULL);
			keeper_settles(0);
		}
		assert_true(failed > 5);
	}
	assert_int_equal(all_operations(), 0);
}

static unsigned calls_made, call_to_fail;

static bool own_call_fails(enum os_call call, int64_t *result)
{
	if (call == OS_CLOSE || call == OS_UNMAP || ++calls_made != call_to_fail) return false;
	*result = -ENOMEM;
	return true;
}

static void every_call_of_a_client_fails(void **state)
{
	(void)state;
	void (*const operations[])(void) = {publish_new, open_it, observe_it, unlink_gone, list_all};
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_publish(pool, "gone", 0600, NULL), 0);
	for (unsigned o = 0; o < sizeof operations / sizeof *operations; o++) {
		for (call_to_fail = 1;; call_to_fail++) {
			struct held before = held_now();
			hp_pool *got = NULL;
			int error;
			calls_made = 0;
			os_hook = own_call_fails;
			if (o == 0) error = hp_pool_publish(pool, "new", 0600, NULL);
			if (o == 1 || o == 2) error = open_for("it", o == 2, &got);
			if (o == 3) error = hp_pool_unlink("gone", NULL);
			if (o == 4) error = hp_pool_list(NULL, count_kept, &(int){0});
			os_hook = NULL;
			if (got) hp_pool_detach(got);
			if (error < 0) must_hold_no_more(before);
			if (o == 0) hp_pool_unlink("new", NULL);
			if (o == 3) hp_pool_publish(pool, "gone", 0600, NULL);
			if (calls_made < call_to_fail) {
				assert_int_equal(error, 0);
				break;
			}
		}
		assert_true(call_to_fail > 5);
	}
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	assert_int_equal(hp_pool_unlink("gone", NULL), 0);
	keeper_settles(0);
}

static void the_keeper_dies(void **state)
{
	(void)state;
	hp_pool *got, *none;
	void *block;
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_open("it", NULL, &got), 0);
	child_kill(&keeper);
	/* who is attached goes on */
	assert_int_equal(hp_page_alloc(got, 5 * PAGE, 0, &block), 0);
	assert_int_equal(hp_page_free_at(pool, hp_pool_offset(got, block)), 0);
	struct said said = {0};
	struct hp_keep_options options = {.struct_size = sizeof options, .log = said_log, .log_arg = &said};
	struct held before = held_now();
	assert_int_equal(hp_pool_open("it", &options, &none), -ECONNREFUSED);
	assert_non_null(strstr(said.text, "start `hugepool keep`"));
	assert_non_null(strstr(said.text, path));
	assert_int_equal(said.lines, 1);
	assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), -ECONNREFUSED);
	assert_int_equal(hp_pool_unlink("it", NULL), -ECONNREFUSED);
	assert_int_equal(hp_pool_list(NULL, count_kept, NULL), -ECONNREFUSED);
	must_hold_no_more(before);
	/* its successor takes the path, and begins with nothing */
	keeper_start(NULL);
	assert_int_equal(kept_now(), 0);
	assert_int_equal(hp_pool_publish(got, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_detach(got), 0);
	assert_int_equal(hp_pool_open("it", NULL, &got), 0);
	assert_int_equal(hp_pool_detach(got), 0);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

static void competing(const struct child *me, void *arg)
{
	const struct keep_server_options options = {.socket = arg};
	struct keep_server *server;
	child_here(me);
	int error = keep_server_open(&options, &server);
	if (error == -EADDRINUSE) _exit(42);
	must_be(error, 0);
	child_say(me);
	must_be(keep_server_run(server, me->hears), 0);
	keep_server_close(server);
}

static bool another_takes_its_place(enum os_call call, int64_t *result)
{
	(void)result;
	if (call != OS_BYTE_LOCK) return false;
	os_hook = NULL;
	keeper_again(NULL);
	return false;
}

/* Many begin at once where a dead one has left its path: one has it. */
static void one_keeper_a_path(void **state)
{
	(void)state;
	struct keep_server_options options = {.socket = path};
	struct keep_server *server = (void *)1;
	struct said said = {0};
	options.log = said_log;
	options.log_arg = &said;
	assert_int_equal(keep_server_open(&options, &server), -EADDRINUSE);
	assert_null(server);
	assert_int_equal(kept_now(), 0); /* the first one is as well as before */
	/* one goes and the next comes, between this one's opening of the lock file and its locking it */
	os_hook = another_takes_its_place;
	assert_int_equal(keep_server_open(&options, &server), -EADDRINUSE);
	os_hook = NULL;
	assert_int_equal(kept_now(), 0);
	assert_int_equal(said.lines, 2);
	char other[160];
	snprintf(other, sizeof other, "%s/other", folder);
	must_be(setenv("HUGEPOOL_KEEPER", other, 1), 0);
	for (int turn = 0; turn < (HP_TEST_SANITIZER ? 5 : 25); turn++) {
		struct child children[6];
		for (int i = 0; i < 6; i++) children[i] = child_start(competing, other);
		for (int i = 0; i < 6; i++) assert_true(child_hear(&children[i]));
		for (int i = 0; i < 6; i++) child_say(&children[i]);
		int winner = -1;
		for (int i = 0; i < 6; i++) {
			if (child_hear(&children[i])) {
				assert_int_equal(winner, -1);
				winner = i;
			} else {
				int status = child_end(&children[i]);
				assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
			}
		}
		assert_true(winner >= 0);
		assert_int_equal(hp_pool_publish(pool, "it", 0600, NULL), 0);
		assert_int_equal(kept_now(), 1);
		if (turn % 2)
			child_finish(&children[winner]);
		else
			child_kill(&children[winner]);
		assert_int_equal(hp_pool_list(NULL, count_kept, NULL), -ECONNREFUSED);
	}
	/* what is no socket stays */
	options.socket = other;
	unlink(other);
	snprintf(said.text, sizeof said.text, "%s.lock", other);
	unlink(said.text);
	int file = open(other, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(file >= 0);
	said.text[0] = 0;
	struct held before = held_now();
	assert_int_equal(keep_server_open(&options, &server), -ENOTSOCK);
	must_hold_no_more(before);
	assert_int_equal(hp_pool_list(NULL, count_kept, NULL), -ECONNREFUSED);
	assert_int_equal(unlink(other), 0);
	close(file);
	options.socket = "/nonexistent/folder/socket";
	assert_int_equal(keep_server_open(&options, &server), -ENOENT);
	must_be(setenv("HUGEPOOL_KEEPER", path, 1), 0);
}

static void racing(const struct child *me, void *arg)
{
	(void)arg;
	hp_pool *mine = hp_plain_pool(MIB, 0);
	child_here(me);
	int error = hp_pool_publish(mine, "one", 0600, NULL);
	must(error == 0 || error == -EEXIST);
	hp_pool_detach(mine);
	_exit(error == 0 ? 1 : 2);
}

static void two_publish_one_name(void **state)
{
	(void)state;
	for (int turn = 0; turn < (HP_TEST_SANITIZER ? 10 : 50); turn++) {
		struct child two[2];
		int sum = 0;
		for (int i = 0; i < 2; i++) two[i] = child_start(racing, NULL);
		for (int i = 0; i < 2; i++) assert_true(child_hear(&two[i]));
		for (int i = 0; i < 2; i++) child_say(&two[i]);
		for (int i = 0; i < 2; i++) sum += WEXITSTATUS(child_end(&two[i]));
		assert_int_equal(sum, 3);
		keeper_settles(3);
		hp_pool *got;
		assert_int_equal(hp_pool_open("one", NULL, &got), 0);
		hp_must_be_empty(got);
		hp_pool_detach(got);
		assert_int_equal(hp_pool_unlink("one", NULL), 0);
	}
	keeper_settles(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KEEP_CASE(clients_die_everywhere),
		KEEP_CASE(every_call_of_the_keeper_fails),
		KEEP_CASE(every_call_of_a_client_fails),
		KEEP_CASE(the_keeper_dies),
		KEEP_CASE(one_keeper_a_path),
		KEEP_CASE(two_publish_one_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
