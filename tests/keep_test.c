/* The keeper: names that outlive their users, and who may do what with them. Would catch a right that is not looked at, a
 * descriptor for looking that can be written, a name that is lost, and an argument that is believed. */
#include "hp_keep.h"

/* ---- names ---- */

static int see_sorted(void *arg, const struct hp_kept *kept)
{
	char *last = arg;
	must(strcmp(last, kept->name) < 0);
	must_be(kept->struct_size, sizeof *kept);
	must_be(kept->owner, geteuid());
	must_be(kept->group, getegid());
	must_be(kept->mode, 0640);
	must_be(kept->capacity, hp_pool_capacity(pool));
	must_be(kept->page_size, PAGE);
	must_be(kept->rung, HP_RUNG_4K);
	strcpy(last, kept->name);
	return 0;
}

static void as_many_names_as_one_likes(void **state)
{
	(void)state;
	const int names = geteuid() == 0 ? 150 : 60; /* more than a page of the list */
	char name[64];
	for (int i = 0; i < names; i++) {
		snprintf(name, sizeof name, "name %d", i * 89 % names);
		assert_int_equal(hp_pool_publish(pool, name, 0640, NULL), 0);
		assert_int_equal(hp_pool_publish(pool, name, 0640, NULL), -EEXIST);
	}
	keeper_settles(3 * names);
	char last[64] = "";
	assert_int_equal(hp_pool_list(NULL, see_sorted, last), 0);
	assert_int_equal(kept_now(), names);
	for (int i = 0; i < names; i++) {
		snprintf(name, sizeof name, "name %d", i);
		hp_pool *got;
		struct held before = held_now();
		if (i % 10 == 0) {
			assert_int_equal(hp_pool_open(name, NULL, &got), 0);
			hp_pool_detach(got);
			must_hold_no_more(before);
		}
		assert_int_equal(hp_pool_unlink(name, NULL), 0);
		assert_int_equal(hp_pool_unlink(name, NULL), -ENOENT);
		assert_int_equal(hp_pool_open(name, NULL, &got), -ENOENT);
		assert_null(got);
		assert_int_equal(kept_now(), names - 1 - i);
	}
	keeper_settles(0);
}

static void opening(const struct child *me, void *arg)
{
	hp_pool *got;
	hp_off off = *(hp_off *)arg;
	must_be(hp_pool_open("it", NULL, &got), 0);
	must(hp_marked(hp_pool_pointer(got, off), 3, 77));
	child_here(me);
	must_be(hp_page_free_at(got, off), 0);
	void *block;
	must_be(hp_page_alloc(got, PAGE, 0, &block), 0); /* unlinked by now, and of use as before */
	must_be(hp_page_free(got, block), 0);
	hp_must_be_empty(got);
	must_be(hp_pool_detach(got), 0);
}

static void a_pool_outlives_its_users(void **state)
{
	(void)state;
	hp_pool *mine = hp_plain_pool(MIB, 0), *got;
	void *block;
	assert_int_equal(hp_page_alloc(mine, 3 * PAGE, 0, &block), 0);
	hp_mark(block, 3, 77);
	hp_off off = hp_pool_offset(mine, block);
	assert_int_equal(hp_pool_publish(mine, "it", 0600, NULL), 0);
	assert_int_equal(hp_pool_detach(mine), 0);
	for (int i = 0; i < 2; i++) { /* nobody has it but the keeper; killed users leave it as well */
		struct child child = child_start(opening, &off);
		assert_true(child_hear(&child));
		child_kill(&child);
	}
	assert_int_equal(open_for("it", true, &got), 0);
	assert_int_equal(hp_stats(got).live_blocks, 1);
	hp_must_be_sound(got);
	hp_pool_detach(got);
	struct child child = child_start(opening, &off);
	assert_true(child_hear(&child));
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	assert_int_equal(hp_pool_open("it", NULL, &got), -ENOENT);
	child_finish(&child);
	keeper_settles(0);
}

/* ---- who may do what ---- */

static void publishing_all_modes(const struct child *me, void *arg)
{
	(void)arg;
	become(OWNER, OWNER, 0);
	hp_pool *mine = hp_plain_pool(MIB, 0);
	for (unsigned i = 0; i < 64; i++) {
		char name[16];
		snprintf(name, sizeof name, "%02u", i);
		must_be(hp_pool_publish(mine, name, (i >> 4 & 3) << 7 | (i >> 2 & 3) << 4 | (i & 3) << 1, NULL), 0);
	}
	must_be(hp_pool_publish(mine, "one too many", 0600, NULL), -EDQUOT);
	must_be(hp_pool_unlink("63", NULL), 0);
	must_be(hp_pool_publish(mine, "63", 0666, NULL), 0);
	child_here(me);
	must_be(hp_pool_detach(mine), 0);
}

/* What an observer has can be written in no way. */
static void must_be_read_only(hp_pool *watcher, bool maker)
{
	int fds[3];
	must_be(hp_pool_fds(watcher, fds), 0);
	must_be(fds[0], -1);
	for (int i = 1; i < 3; i++) {
		char name[64];
		must_be(fcntl(fds[i], F_GETFL) & O_ACCMODE, O_RDONLY);
		must(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0) == MAP_FAILED && errno == EACCES);
		void *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fds[i], 0);
		must(map != MAP_FAILED);
		must(mprotect(map, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
		munmap(map, PAGE);
		must(pwrite(fds[i], "x", 1, 0) == -1 && errno == EBADF);
		snprintf(name, sizeof name, "/proc/self/fd/%d", fds[i]);
		int again = open(name, O_RDWR | O_CLOEXEC);
		if (!maker) must(again == -1 && errno == EACCES);
		if (again >= 0) close(again);
	}
}

struct one_asker {
	unsigned uid, gid, further;
	unsigned shift; /* of his bits in i above */
};

static void asking(const struct child *me, void *arg)
{
	(void)me;
	const struct one_asker *asker = arg;
	become(asker->uid, asker->gid, asker->further);
	for (unsigned i = 0; i < 64; i++) {
		char name[16];
		unsigned bits = asker->uid ? i >> asker->shift & 3 : 3;
		snprintf(name, sizeof name, "%02u", i);
		hp_pool *got;
		must_be(open_for(name, false, &got), bits & 1 ? 0 : -EACCES);
		must(!got == !(bits & 1));
		must_be(hp_pool_detach(got), 0);
		must_be(open_for(name, true, &got), bits & 2 ? 0 : -EACCES);
		if (got) {
			must_be(hp_stats(got).processes, 1);
			hp_must_be_sound(got);
			if (asker->uid) must_be_read_only(got, asker->uid == OWNER);
			must_be(hp_pool_publish(got, "mine", 0666, NULL), -EROFS);
		}
		must_be(hp_pool_detach(got), 0);
		if (asker->uid && asker->uid != OWNER) must_be(hp_pool_unlink(name, NULL), -EACCES);
	}
	must_be(kept_now(), 64);
	struct hp_keep_options options = {.struct_size = sizeof options, .owned = true, .owner = OWNER + 7};
	hp_pool *got;
	must_be(hp_pool_open("63", &options, &got), -EPERM);
	options.owner = OWNER;
	must_be(hp_pool_open("63", &options, &got), 0);
	must_be(hp_pool_detach(got), 0);
}

static void modes_are_those_of_files(void **state)
{
	(void)state;
	need_root();
	struct child owner = child_start(publishing_all_modes, NULL);
	assert_true(child_hear(&owner));
	struct one_asker askers[] = {{OWNER, OTHER, 0, 4},      {MEMBER, OWNER, 0, 2}, {MEMBER, MEMBER, OWNER, 2},
	                             {OTHER, OTHER, MEMBER, 0}, {OWNER, OWNER, 0, 4},  {0, 0, 0, 0}};
	for (unsigned i = 0; i < sizeof askers / sizeof *askers; i++) {
		struct child child = child_start(asking, &askers[i]);
		assert_int_equal(child_end(&child), 0);
	}
	child_finish(&owner);
	for (unsigned i = 0; i < 64; i++) { /* root may */
		char name[16];
		snprintf(name, sizeof name, "%02u", i);
		assert_int_equal(hp_pool_unlink(name, NULL), 0);
	}
	keeper_settles(0);
}

/* What was got for looking is not made into more by publishing it. */
static void publishing_what_is_for_looking(const struct child *me, void *arg)
{
	(void)me;
	(void)arg;
	become(OTHER, OTHER, 0);
	hp_pool *watcher;
	must_be(open_for("looked at", true, &watcher), 0);
	int fds[3];
	must_be(hp_pool_fds(watcher, fds), 0);
	fds[0] = fds[1];
	struct keep_request request = {KEEP_MAGIC, KEEP_VERSION, KEEP_PUBLISH, 0666, 0, "stolen"};
	for (int i = 0; i < 2; i++) {
		if (i) { /* with a lives file of the right kind, too */
			hp_pool *mine = hp_plain_pool(MIB, 0);
			int own[3];
			must_be(hp_pool_fds(mine, own), 0);
			must((fds[0] = dup(own[0])) >= 0);
			must_be(hp_pool_detach(mine), 0);
		}
		int status = said_to_keeper(&request, sizeof request, fds, 3);
		must(status == -EINVAL || status == -EACCES);
	}
	must_be(hp_pool_detach(watcher), 0);
}

static void looking_cannot_be_made_into_writing(void **state)
{
	(void)state;
	need_root();
	assert_int_equal(hp_pool_publish(pool, "looked at", 0604, NULL), 0);
	struct child child = child_start(publishing_what_is_for_looking, NULL);
	assert_int_equal(child_end(&child), 0);
	/* with all three descriptors, but not for writing: whoever asks, root too */
	int fds[3], weak[3];
	hp_pool_fds(pool, fds);
	for (int which = 0; which < 3; which++) {
		for (int i = 0; i < 3; i++) {
			weak[i] = i == which ? os_reopen(fds[i], O_RDONLY) : dup(fds[i]);
			assert_true(weak[i] >= 0);
		}
		struct keep_request request = {KEEP_MAGIC, KEEP_VERSION, KEEP_PUBLISH, 0666, 0, "weak"};
		assert_int_equal(said_to_keeper(&request, sizeof request, weak, 3), -EACCES);
		for (int i = 0; i < 3; i++) close(weak[i]);
	}
	assert_int_equal(kept_now(), 1);
	assert_int_equal(hp_pool_unlink("looked at", NULL), 0);
	keeper_settles(0);
}

static void publishing_for_all(const struct child *me, void *arg)
{
	(void)me;
	(void)arg;
	become(OWNER, OWNER, 0);
	hp_pool *mine = hp_plain_pool(MIB, 0);
	must_be(hp_pool_publish(mine, "it", 0666, NULL), 0);
	must_be(hp_pool_detach(mine), 0);
}

/* A keeper without rights passes on what it has, and says so where that is not enough. */
static void a_keeper_that_is_not_root(void **state)
{
	(void)state;
	need_root();
	keeper_again(&(struct keeper_wish){.uid = MEMBER});
	struct child child = child_start(publishing_for_all, NULL);
	assert_int_equal(child_end(&child), 0);
	hp_pool *got;
	assert_int_equal(open_for("it", true, &got), -ENOTSUP);
	assert_null(got);
	assert_int_equal(open_for("it", false, &got), 0);
	hp_must_be_empty(got);
	hp_pool_detach(got);
	assert_int_equal(hp_pool_unlink("it", NULL), 0);
	keeper_settles(0);
}

/* ---- arguments ---- */

static void arguments(void **state)
{
	(void)state;
	hp_pool *got = pool, *observer, *own;
	char longest[65];
	memset(longest, 'n', sizeof longest);
	longest[63] = 0;
	assert_int_equal(hp_pool_publish(pool, longest, 0600, NULL), 0);
	assert_int_equal(hp_pool_unlink(longest, NULL), 0);
	longest[63] = 'n';
	longest[64] = 0;
	const char *const bad[] = {"", "/", "a/b", "a\nb", "\x7f", longest};
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(hp_pool_publish(pool, bad[i], 0600, NULL), -EINVAL);
		assert_int_equal(hp_pool_open(bad[i], NULL, &got), -EINVAL);
		assert_null(got);
		assert_int_equal(hp_pool_unlink(bad[i], NULL), -EINVAL);
	}
	assert_int_equal(hp_pool_open(NULL, NULL, &got), -EINVAL);
	assert_int_equal(hp_pool_open("it", NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_unlink(NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_list(NULL, NULL, NULL), -EINVAL);
	assert_int_equal(hp_pool_publish(NULL, "it", 0600, NULL), -EINVAL);
	assert_int_equal(hp_pool_publish(pool, "it", 0700, NULL), -EINVAL);
	assert_int_equal(hp_pool_publish(pool, "it", 01600, NULL), -EINVAL);
	struct {
		struct hp_keep_options options;
		uint64_t later;
	} newer = {.options = {.struct_size = sizeof newer}, .later = 0};
	assert_int_equal(hp_pool_list(&newer.options, count_kept, &(int){0}), 0);
	newer.later = 1;
	assert_int_equal(hp_pool_list(&newer.options, count_kept, &(int){0}), -EINVAL);
	char far[200];
	memset(far, 'f', sizeof far - 1);
	far[0] = '/';
	far[199] = 0;
	struct said said = {0};
	struct hp_keep_options options = {.struct_size = sizeof options, .socket = far, .log = said_log, .log_arg = &said};
	assert_int_equal(hp_pool_list(&options, count_kept, NULL), -ENAMETOOLONG);
	assert_int_equal(said.lines, 1);
	options.socket = "";
	assert_int_equal(hp_pool_list(&options, count_kept, NULL), -ECONNREFUSED);
	options.socket = path; /* and not what the environment says */
	setenv("HUGEPOOL_KEEPER", "/nonexistent", 1);
	assert_int_equal(hp_pool_publish(pool, NULL, 0600, &options), 0);
	assert_int_equal(hp_pool_unlink(hp_pool_name(pool), &options), 0);
	setenv("HUGEPOOL_KEEPER", path, 1);
	/* pools that cannot be published */
	struct hp_pool_options private = {.struct_size = sizeof private, .size = MIB, .flags = HP_POOL_PRIVATE};
	must_be(hp_pool_create(&private, &own), 0);
	assert_int_equal(hp_pool_publish(own, "it", 0600, NULL), -ENOTSUP);
	hp_pool_detach(own);
	int fds[3];
	hp_pool_fds(pool, fds);
	must_be(hp_pool_observe(fds, &observer), 0);
	assert_int_equal(hp_pool_publish(observer, "it", 0600, NULL), -EROFS);
	hp_pool_detach(observer);
	own = hp_plain_pool(MIB, 0);
	hp_pool_fds(own, fds);
	close(fds[1]);
	assert_int_equal(hp_pool_publish(own, "it", 0600, NULL), -EBADF);
	hp_pool_detach(own);
	assert_int_equal(kept_now(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KEEP_CASE(as_many_names_as_one_likes), KEEP_CASE(a_pool_outlives_its_users),
		KEEP_CASE(modes_are_those_of_files),   KEEP_CASE(looking_cannot_be_made_into_writing),
		KEEP_CASE(a_keeper_that_is_not_root),  KEEP_CASE(arguments),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
