/* Heaps as a whole: making, opening, ending; sections, guards, and what bad use gets.
 *
 * Would catch a heap that is ended under somebody who has it open, or that cannot be ended because of somebody who has not; a
 * stale handle or id that reaches another heap; a value that is reclaimed under a section or a guard, or never; a child of
 * fork that writes as if it were its parent; an error that is another, or changes something. */
#include "hp_heap.h"
#include "hp_process.h"

#include <sys/mman.h>

static hp_pool *pool;

static unsigned pool_flags;

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(16 * MIB, pool_flags);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hp_must_be_empty(pool);
	hp_must_be_sound(pool);
	return hp_pool_detach(pool);
}

/* ---- life ---- */

static void heaps_come_and_go(void **state)
{
	(void)state;
	uint64_t before = 0;
	for (int i = 0; i < 300; i++) { /* more often than a tag has generations */
		hp_heap *heap = hp_heap_make(pool, 0), *again, *none;
		uint64_t id = hp_heap_id(heap);
		must(id != 0 && id != before);
		if (before) must_be(hp_heap_open(pool, before, &none), -ESTALE);
		list_make(heap, 1, 100);
		must_be(hp_heap_open(pool, id, &again), 0);
		must_be(list_length(again, hp_heap_root(again)), 100);
		must_be(hp_heap_destroy(heap, 0, 100), -EBUSY); /* open twice */
		must_be(list_length(heap, hp_heap_root(heap)), 100);
		must_be(hp_heap_close(again), 0);
		must_be(hp_heap_destroy(heap, 0, 100), 0);
		hp_must_be_empty(pool);
		before = id;
	}
	must_be(hp_heap_open(pool, 0, &(hp_heap *){NULL}), -EINVAL);
	must_be(hp_heap_open(pool, UINT64_MAX, &(hp_heap *){NULL}), -EINVAL);
	must_be(hp_heap_open(pool, 77, &(hp_heap *){NULL}), -ESTALE);
}

static void as_many_as_there_is_room_for(void **state)
{
	(void)state;
	hp_pool *wide = hp_plain_pool(64 * MIB, 0);
	hp_heap *heap[256], *more;
	for (int i = 0; i < 255; i++) heap[i] = hp_heap_make(wide, 0);
	must_be(hp_heap_create(wide, NULL, NULL, NULL, &more), -ENOSPC);
	must_be(hp_heap_destroy(heap[100], 0, 0), 0);
	heap[100] = hp_heap_make(wide, 0);
	for (int i = 0; i < 255; i++) {
		list_make(heap[i], (uint64_t)i, 3);
		must_be(list_length(heap[i], hp_heap_root(heap[i])), 3);
	}
	for (int i = 0; i < 255; i++) must_be(hp_heap_destroy(heap[i], 0, 0), 0);
	hp_must_be_empty(wide);
	must_be(hp_pool_detach(wide), 0);
}

static uint64_t shared_id;

static void open_it(const struct child *me, void *arg)
{
	(void)arg;
	hp_heap *heap;
	must_be(hp_heap_open(pool, shared_id, &heap), 0);
	child_here(me);
	must_be(hp_heap_close(heap), 0);
	child_here(me);
}

static void not_ended_while_open_elsewhere(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	shared_id = hp_heap_id(heap);
	struct child child = child_start(open_it, NULL);
	must(child_hear(&child));
	must_be(hp_heap_destroy(heap, 0, 10), -EBUSY);
	list_make(heap, 1, 5);
	child_say(&child);
	must(child_hear(&child));
	/* it inherited this handle, too, and has joined: so it is open there */
	must_be(hp_heap_destroy(heap, 0, 10), -EBUSY);
	child_kill(&child);
	must_be(hp_heap_destroy(heap, 0, 10), 0);
}

static void use_after_force(const struct child *me, void *arg)
{
	hp_heap *heap = arg;
	hp_tx *tx;
	hp_guard guard;
	hp_ref root = HP_NONE;
	must_be(hp_heap_read_enter(pool), 0);
	root = hp_heap_root(heap);
	must(node_is_whole(heap, root));
	hp_heap_read_exit(pool);
	child_here(me);
	must_be(hp_heap_begin(heap, 10, &tx), -ESTALE);
	must_be(hp_heap_root(heap).word, 0);
	must_be(hp_heap_guard(heap, &root, 1, &guard), -ESTALE);
	must_be(hp_heap_stat(heap, &(struct hp_heap_stat){0}), -ESTALE);
	must_be(hp_heap_close(heap), 0);
	_exit(0);
}

static void force_makes_others_stale(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 5);
	struct child child = child_start(use_after_force, heap);
	must(child_hear(&child));
	must_be(hp_heap_destroy(heap, 0, 10), -EBUSY);
	must_be(hp_heap_destroy(heap, HP_HEAP_FORCE, 10), 0);
	heap = hp_heap_make(pool, 0); /* in its place */
	child_say(&child);
	must_be(child_end(&child), 0);
	must_be(hp_heap_destroy(heap, 0, 10), 0);
}

static void stay_in_section(const struct child *me, void *arg)
{
	hp_heap *heap = arg;
	must_be(hp_heap_read_enter(pool), 0);
	must(node_is_whole(heap, hp_heap_root(heap)));
	child_here(me);
	_exit(0);
}

static void not_ended_under_a_reader(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 5);
	struct child child = child_start(stay_in_section, heap);
	must(child_hear(&child));
	must_be(hp_heap_destroy(heap, HP_HEAP_FORCE, 5), -EBUSY);
	must_be(list_length(heap, hp_heap_root(heap)), 5);
	must_be(hp_heap_numbers(heap).blocked_pid, child.pid);
	child_kill(&child);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

/* ---- sections and guards ---- */

static void sections_nest(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++) must_be(hp_heap_read_enter(pool), 0);
	hp_heap *heap = hp_heap_make(pool, 0); /* making one is no transaction of somebody else's */
	hp_tx *tx;
	for (int i = 0; i < 100; i++) {
		must_be(hp_heap_begin(heap, 0, &tx), -EDEADLK);
		hp_heap_read_exit(pool);
	}
	must_be(hp_heap_begin(heap, 0, &tx), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

/* The root's second node is unlinked while a section that found it goes on in another process. */
static void keep_second(const struct child *me, void *arg)
{
	hp_heap *heap = arg;
	must_be(hp_heap_read_enter(pool), 0);
	hp_ref second = hp_heap_load(&node_at(heap, hp_heap_root(heap))->a.ref);
	child_here(me);
	for (int i = 0; i < 1000; i++) must_be(list_length(heap, second), 9);
	hp_heap_read_exit(pool);
	child_here(me);
	_exit(0);
}

static void cut_behind_root(hp_heap *heap)
{
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set(tx, &node_at(heap, hp_heap_root(heap))->a.ref, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
}

static void sections_keep_what_was_there(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 10);
	struct child child = child_start(keep_second, heap);
	must(child_hear(&child));
	cut_behind_root(heap);
	must_be(hp_heap_gc(heap, HP_GC_WAIT, 5), -EAGAIN);
	struct hp_heap_stat stat = hp_heap_numbers(heap);
	must(stat.pending && stat.values == 10 && stat.blocked_pid == child.pid);
	/* what comes to be meanwhile goes elsewhere */
	hp_tx *tx = hp_heap_start(heap);
	for (int i = 0; i < 1000; i++) must(node_make(tx, 1000).word);
	must_be(hp_heap_commit(tx), 0);
	child_say(&child);
	must(child_hear(&child));
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, 1);
	child_finish(&child);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

static void guards_keep_what_they_reach(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 10);
	hp_guard guard, copy;
	must_be(hp_heap_read_enter(pool), 0);
	hp_ref second = hp_heap_load(&node_at(heap, hp_heap_root(heap))->a.ref);
	must_be(hp_heap_guard(heap, &second, 1, &guard), 0);
	hp_heap_read_exit(pool);
	cut_behind_root(heap);
	for (int i = 0; i < 3; i++) {
		hp_heap_clean(heap);
		must_be(list_length(heap, second), 9);
		must_be(hp_heap_numbers(heap).values, 10);
	}
	/* from one guard to the next, without a section */
	must_be(hp_heap_guard(heap, &second, 1, &copy), 0);
	must_be(hp_heap_unguard(&guard), 0);
	must_be(hp_heap_unguard(&guard), 0); /* again is nothing */
	hp_heap_clean(heap);
	must_be(list_length(heap, second), 9);
	must_be(hp_heap_numbers(heap).guards, 1);
	/* linked again, it needs no guard */
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set(tx, &node_at(heap, hp_heap_root(heap))->b.ref, second), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_unguard(&copy), 0);
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, 10);
	cut_behind_root(heap);
	tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, 0);
	must_be(hp_heap_numbers(heap).guards, 0);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

static void *unguard_elsewhere(void *arg)
{
	must_be(hp_heap_unguard(arg), -EPERM);
	return NULL;
}

static void guards_are_a_thread_s(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 200);
	hp_guard guard, more;
	hp_ref value[HP_GUARDS + 1];
	must_be(hp_heap_read_enter(pool), 0);
	value[0] = hp_heap_root(heap);
	for (int i = 1; i <= HP_GUARDS; i++) value[i] = hp_heap_load(&node_at(heap, value[i - 1])->a.ref);
	must_be(hp_heap_guard(heap, value, HP_GUARDS + 1, &guard), -ENOSPC);
	must_be(hp_heap_numbers(heap).guards, 0);
	must_be(hp_heap_guard(heap, value, HP_GUARDS, &guard), 0);
	must_be(hp_heap_guard(heap, value, 1, &more), -ENOSPC);
	hp_heap_read_exit(pool);
	must_be(hp_heap_numbers(heap).guards, HP_GUARDS);
	run_thread(unguard_elsewhere, &guard);
	must_be(hp_heap_unguard(&guard), 0);
	must_be(hp_heap_guard(heap, value, 1, &more), 0);
	must_be(hp_heap_unguard(&more), 0);
	/* what cannot be guarded */
	must_be(hp_heap_guard(heap, &(hp_ref){4096}, 1, &more), -EINVAL);
	hp_heap *other = hp_heap_make(pool, 0);
	must_be(hp_heap_guard(other, value, 1, &more), -EXDEV);
	must_be(hp_heap_guard(heap, &HP_NONE, 1, &more), 0); /* none is nothing */
	must_be(hp_heap_unguard(&more), 0);
	must_be(hp_heap_destroy(other, 0, 0), 0);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

static void guard_and_die(const struct child *me, void *arg)
{
	hp_heap *heap = arg;
	hp_guard guard;
	must_be(hp_heap_read_enter(pool), 0);
	hp_ref root = hp_heap_root(heap);
	must_be(hp_heap_guard(heap, &root, 1, &guard), 0);
	child_here(me);
	_exit(0);
}

static void guards_die_with_their_process(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 10);
	struct child child = child_start(guard_and_die, heap);
	must(child_hear(&child));
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_gc(heap, HP_GC_WAIT, 5), -EAGAIN);
	child_kill(&child);
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, 0);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

static int find_two(hp_heap *heap, hp_ref out[], unsigned max, void *arg)
{
	must(max >= 2);
	if (arg) return -ENODATA;
	out[0] = hp_heap_root(heap);
	out[1] = hp_heap_load(&node_at(heap, out[0])->a.ref);
	return 2;
}

static int use_two(hp_heap *heap, const hp_ref value[], unsigned count, void *arg)
{
	must_be(count, 2);
	must(arg == NULL);
	hp_tx *tx = hp_heap_start(heap); /* no section, no lock is held */
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	hp_heap_clean(heap);
	must_be(list_length(heap, value[0]), 10);
	must_be(list_length(heap, value[1]), 9);
	return 42;
}

static void with_values(void **state)
{
	(void)state;
	for (unsigned locked = 0; locked < 2; locked++) {
		hp_heap *heap = hp_heap_make(pool, 0);
		list_make(heap, 1, 10);
		unsigned flags = locked ? HP_HEAP_LOCKED : 0;
		must_be(hp_heap_with_value(heap, find_two, use_two, &shared_id, flags), -ENODATA);
		must_be(hp_heap_with_value(heap, find_two, use_two, NULL, flags), 42);
		hp_heap_clean(heap);
		must_be(hp_heap_numbers(heap).values, 0);
		must_be(hp_heap_numbers(heap).guards, 0);
		must_be(hp_heap_destroy(heap, 0, 1000), 0);
	}
}

/* ---- bad use ---- */

static void bad_stores(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0), *other = hp_heap_make(pool, 0);
	list_make(heap, 1, 3);
	list_make(other, 1, 3);
	hp_ref root = hp_heap_root(heap), foreign = hp_heap_root(other), gone;
	hp_ref *member = &node_at(heap, root)->b.ref, outside;
	hp_tx *tx = hp_heap_start(heap);
	gone = node_make(tx, 9);
	must_be(hp_heap_commit(tx), 0);
	hp_heap_clean(heap);
	const struct {
		hp_ref *member, value;
		int error;
	} bad[] = {
		{member, {(uint64_t)(uintptr_t)&outside}, -EINVAL}, /* a private pointer */
		{member, {4096}, -EINVAL},
		{member, foreign, -EXDEV},
		{member, {root.word ^ UINT64_C(1) << 56}, -EXDEV}, /* of an earlier generation */
		{member, gone, -ESTALE},
		{member, {root.word + 8}, -ESTALE}, /* into the middle */
		{member, {root.word + (UINT64_C(1) << 40)}, -ESTALE},
		{&outside, root, -EINVAL},
		{(hp_ref *)((char *)member + 4), root, -EINVAL},
		{(hp_ref *)hp_pool_base(pool), root, -EINVAL},
		{&node_at(other, foreign)->a.ref, root, -EINVAL},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		tx = hp_heap_start(heap);
		must_be(hp_heap_set(tx, &node_at(heap, root)->b.ref, root), 0);
		must_be(hp_heap_set(tx, bad[i].member, bad[i].value), bad[i].error);
		/* it sticks, and nothing happens any more */
		must_be(hp_heap_error(tx), bad[i].error);
		must_be(hp_heap_set(tx, member, root), bad[i].error);
		must_be(hp_heap_new(tx, &node_type, 0).word, 0);
		must_be(hp_heap_write(tx, &node_at(heap, root)->id, "12345678", 8), bad[i].error);
		must_be(hp_heap_commit(tx), bad[i].error);
		must_be(member->word, 0);
		must_be(list_length(heap, hp_heap_root(heap)), 3);
	}
	tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, foreign), -EXDEV);
	hp_heap_abort(tx);
	tx = hp_heap_start(heap);
	must_be(hp_heap_write(tx, &node_at(heap, root)->b, "12345678", 8), -EINVAL); /* over a reference */
	hp_heap_abort(tx);
	tx = hp_heap_start(heap);
	must_be(hp_heap_write(tx, &outside, "12345678", 8), -EINVAL);
	must_be(hp_heap_commit(tx), -EINVAL);
	/* a transaction that is over does nothing */
	must_be(hp_heap_set(tx, member, root), -EBADF);
	must_be(hp_heap_write(tx, &node_at(heap, root)->id, "12345678", 8), -EBADF);
	must_be(hp_heap_new(tx, &node_type, 0).word, 0);
	must_be(hp_heap_commit(tx), -EBADF);
	must_be(hp_heap_checkpoint(tx), -EBADF);
	hp_heap_abort(tx);
	must_be(member->word, 0);
	must_be(hp_heap_destroy(other, 0, 0), 0);
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

static void checked_reading(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 3);
	hp_tx *tx = hp_heap_start(heap);
	hp_ref string = hp_heap_new_string(tx, "hello", 5), root = hp_heap_root(heap);
	must_be(hp_heap_set_root(tx, hp_heap_box(tx, string)), 0);
	must_be(hp_heap_commit(tx), 0);
	size_t bytes;
	const struct hp_string *s = hp_heap_deref_checked(heap, string, &hp_string_type, &bytes);
	must(s && s->len == 5 && strcmp(s->s, "hello") == 0 && bytes >= sizeof *s + 6);
	must(hp_heap_deref_checked(heap, string, NULL, NULL) == s);
	must(!hp_heap_deref_checked(heap, string, &node_type, NULL));
	must(!hp_heap_deref_checked(heap, string, &hp_vector_type, NULL)); /* a type that nobody has used here */
	must(!hp_heap_deref_checked(heap, HP_NONE, NULL, NULL));
	must(!hp_heap_deref_checked(heap, (hp_ref){string.word + 16}, NULL, NULL));
	must(!hp_heap_deref_checked(heap, (hp_ref){(uint64_t)(uintptr_t)s}, NULL, NULL));
	must(hp_heap_deref_checked(heap, root, &node_type, NULL));
	hp_heap_clean(heap);
	must(!hp_heap_deref_checked(heap, root, &node_type, NULL)); /* the list is gone */
	must_be(hp_heap_destroy(heap, 0, 0), 0);
}

/* ---- fork ---- */

static void write_as_parent(const struct child *me, void *arg)
{
	hp_tx *tx = arg;
	hp_heap *heap;
	must_be(hp_heap_new(tx, &node_type, 0).word, 0);
	must_be(hp_heap_set_root(tx, HP_NONE), -EBADF);
	must_be(hp_heap_commit(tx), -EBADF);
	must_be(hp_heap_open(pool, shared_id, &heap), 0);
	must_be(hp_heap_begin(heap, 0, &tx), -ETIMEDOUT); /* its parent is the writer */
	child_here(me);
	tx = hp_heap_start(heap);
	must_be(list_length(heap, hp_heap_root(heap)), 4);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	_exit(0);
}

static void a_child_has_no_transaction(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 3);
	shared_id = hp_heap_id(heap);
	hp_tx *tx = hp_heap_start(heap);
	hp_ref node = node_make(tx, 0);
	must_be(hp_heap_set(tx, &node_at(heap, node)->a.ref, hp_heap_root(heap)), 0);
	must_be(hp_heap_set_root(tx, node), 0);
	struct child child = child_start(write_as_parent, tx);
	must(child_hear(&child));
	must_be(hp_heap_commit(tx), 0);
	child_finish(&child);
	must_be(hp_heap_root(heap).word, 0);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

static void versions(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 3);
	uint64_t version;
	must_be(hp_heap_read_begin_version(heap, &version), 0);
	must(hp_heap_read_valid(heap, version));
	hp_tx *tx = hp_heap_start(heap);
	must(hp_heap_read_valid(heap, version)); /* nothing has been stored */
	must(node_make(tx, 9).word);
	must(hp_heap_read_valid(heap, version)); /* nothing that others can see */
	must_be(hp_heap_set(tx, &node_at(heap, hp_heap_root(heap))->b.ref, HP_NONE), 0);
	must(!hp_heap_read_valid(heap, version));
	must_be(hp_heap_read_begin_version(heap, &version), -EAGAIN);
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_read_begin_version(heap, &version), 0);
	must(hp_heap_read_valid(heap, version));
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

static void die_writing(const struct child *me, void *arg)
{
	hp_heap *heap = arg;
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, node_make(tx, 7)), 0);
	child_here(me);
	_exit(0);
}

static void who_only_reads_undoes_the_dead(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 3);
	struct child child = child_start(die_writing, heap);
	uint64_t version;
	must(child_hear(&child));
	must_be(hp_heap_read_begin_version(heap, &version), -EAGAIN);
	must_be(hp_heap_numbers(heap).writer_pid, child.pid);
	child_kill(&child);
	must_be(hp_heap_read_begin_version(heap, &version), 0);
	must_be(list_length(heap, hp_heap_root(heap)), 3);
	must_be(hp_heap_numbers(heap).recoveries, 1);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

static int count_node(hp_heap *heap, hp_ref value, void *arg)
{
	must(node_is_whole(heap, value));
	return ++*(int *)arg == 7 ? 77 : 0;
}

static void each_value(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 5);
	hp_tx *tx = hp_heap_start(heap);
	must(hp_heap_new_string(tx, "x", 1).word);
	must_be(hp_heap_commit(tx), 0);
	int n = 0;
	must_be(hp_heap_foreach(heap, &node_type, count_node, &n), 0);
	must_be(n, 5);
	must_be(hp_heap_foreach(heap, &hp_vector_type, count_node, &n), 0);
	must_be(n, 5);
	must_be(hp_heap_foreach(heap, &node_type, count_node, &n), 77);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

static void private_pools_have_heaps_too(void **state)
{
	(void)state;
	hp_pool *mine = NULL;
	must_be(hp_pool_create(&(struct hp_pool_options){.size = 4 * MIB, .flags = HP_POOL_PRIVATE}, &mine), 0);
	hp_heap *heap = hp_heap_make(mine, 0);
	list_make(heap, 1, 100);
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	pid_t pid = fork();
	if (pid == 0) { /* a copy of all, in which the transaction was never finished */
		must_be(hp_heap_commit(tx), -EBADF);
		tx = hp_heap_start(heap);
		must_be(list_length(heap, hp_heap_root(heap)), 100);
		must_be(hp_heap_commit(tx), 0);
		hp_heap_clean(heap);
		must_be(list_length(heap, hp_heap_root(heap)), 100);
		_exit(0);
	}
	must(pid > 0);
	must_be(hp_heap_commit(tx), 0);
	int status;
	must_be(waitpid(pid, &status, 0), pid);
	must_be(status, 0);
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, 0);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
	must_be(hp_pool_detach(mine), 0);
}

/* Sections and guards are in the control file, so that the values themselves need not be writable to who reads them. */
static void read_only(const struct child *me, void *arg)
{
	hp_heap *heap = arg;
	hp_guard guard;
	must_be(hp_heap_read_enter(pool), 0); /* the slot is taken with the data writable */
	hp_heap_read_exit(pool);
	must_be(mprotect(hp_pool_base(pool), hp_pool_capacity(pool), PROT_READ), 0);
	must_be(hp_heap_read_enter(pool), 0);
	hp_ref root = hp_heap_root(heap);
	must_be(list_length(heap, root), 10);
	must_be(hp_heap_guard(heap, &root, 1, &guard), 0);
	hp_heap_read_exit(pool);
	child_here(me);
	must_be(list_length(heap, root), 10);
	void *copy;
	must_be(hp_value_export(heap, root, &copy, NULL), 0);
	free(copy);
	must_be(hp_heap_unguard(&guard), 0);
	child_here(me);
	_exit(0);
}

static void readers_need_no_writable_data(void **state)
{
	(void)state;
	hp_heap *heap = hp_heap_make(pool, 0);
	list_make(heap, 1, 10);
	struct child child = child_start(read_only, heap);
	must(child_hear(&child));
	hp_tx *tx = hp_heap_start(heap);
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, 10);
	child_say(&child);
	must(child_hear(&child));
	hp_heap_clean(heap);
	must_be(hp_heap_numbers(heap).values, 0);
	child_kill(&child);
	must_be(hp_heap_destroy(heap, 0, 1000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(heaps_come_and_go),
		cmocka_unit_test(as_many_as_there_is_room_for),
		cmocka_unit_test(not_ended_while_open_elsewhere),
		cmocka_unit_test(force_makes_others_stale),
		cmocka_unit_test(not_ended_under_a_reader),
		cmocka_unit_test(sections_nest),
		cmocka_unit_test(sections_keep_what_was_there),
		cmocka_unit_test(guards_keep_what_they_reach),
		cmocka_unit_test(guards_are_a_thread_s),
		cmocka_unit_test(guards_die_with_their_process),
		cmocka_unit_test(with_values),
		cmocka_unit_test(bad_stores),
		cmocka_unit_test(checked_reading),
		cmocka_unit_test(a_child_has_no_transaction),
		cmocka_unit_test(versions),
		cmocka_unit_test(who_only_reads_undoes_the_dead),
		cmocka_unit_test(each_value),
		cmocka_unit_test(private_pools_have_heaps_too),
		cmocka_unit_test(readers_need_no_writable_data),
	};
	int failed = cmocka_run_group_tests_name("heaps", tests, set_up, tear_down);
	pool_flags = HP_POOL_FENCED; /* the same where there is no membarrier */
	return failed + cmocka_run_group_tests_name("fenced", tests, set_up, tear_down);
}
