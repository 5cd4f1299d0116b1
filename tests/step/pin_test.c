/* A process that has I/O, killed at every instruction of pinning and letting go, freeing meanwhile, and of getting objects for
 * a ring and giving them back: at all instructions behind which something that is shared was another, and at a sample of the
 * rest, or, with HP_STEP_FULL=1, at all.
 *
 * Afterwards, recovered, every block is live or free as far as the victim had come; another ring's pins on the same blocks
 * count as before; nothing is lost, and the pool is empty at the end. */
#include "hp_malloc.h"
#include "hp_page.h"
#include "hp_cache.h"
#include "io/pin.h"
#include "pool/lent.h"
#include "slab/slab.h"
#include <hugepool/malloc.h>
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <unistd.h>

#define SAMPLES 10u /* of each part */
#define PARTS 5u
#define CHANGES 1024u

/* How far the victim has come; what it does between two of these may have been done or not. */
enum phase { BEGUN, FREES_OWN, FREED_OWN, FREES_RUN, FREED_RUN, GETS, RELEASES, PUTS, PUT };

struct told {
	_Atomic int phase;
	_Atomic unsigned part;      /* of its work; it is stepped through one of them */
	hp_off own, kept, released; /* the victim's object; a ring's, and one that becomes the application's */
	hp_off second; /* the victim's, in a slab of which one is lent already: that is another way through the code */
};

static hp_pool *pool;
static hp_cache *cache;
static struct told *told;
static struct pin_table *others; /* pins on the same blocks */
static hp_off object, run;
static bool shared_pins; /* others has some */
static unsigned stepped; /* the part to be stepped */

static void part(unsigned which)
{
	told->part = which;
	if (which == stepped) raise(SIGSTOP);
}

static void begin(void)
{
	void *pages;
	pool = hp_plain_pool(MIB, HP_POOL_NO_AUTOGROW);
	cache = hp_cache_make(pool, "buffers", 2048, 0);
	told = hp_shared(sizeof *told);
	object = hp_pool_offset(pool, hp_malloc(pool, 3000));
	must_be(hp_page_alloc(pool, 3 * PAGE, 0, &pages), 0);
	run = hp_pool_offset(pool, pages);
	int life;
	must_be(pin_open(pool, 4, &others, &life), 0);
	close(life);
	if (!shared_pins) return;
	must_be(pin_add(others, 0, object, 3000), 0);
	must_be(pin_add(others, 1, run + PAGE, 100), 0);
}

static int victim(void *arg)
{
	struct pin_table *table;
	int life;
	hp_off off;
	(void)arg;
	told->own = hp_pool_offset(pool, hp_malloc(pool, 700));
	told->second = hp_pool_offset(pool, hp_malloc(pool, 700));
	part(0);
	must_be(pin_open(pool, 8, &table, &life), 0);
	part(1);
	must_be(pin_add(table, 0, object + 10, 10), 0);
	must_be(pin_add(table, 1, told->own, 700), 0);
	must_be(pin_add(table, 2, run, 3 * PAGE), 0);
	must_be(pin_add(table, 3, object, 10), 0);
	must_be(pin_add(table, 6, told->second, 700), 0);
	part(2);
	pin_drop(table, 6);
	told->phase = FREES_OWN;
	must_be(hp_free(pool, hp_pool_pointer(pool, told->own)), 0);
	told->phase = FREED_OWN;
	pin_drop(table, 0);
	pin_drop(table, 1);
	told->phase = FREES_RUN;
	must_be(hp_page_free_at(pool, run), 0);
	told->phase = FREED_RUN;
	pin_drop(table, 3);
	pin_drop(table, 2);
	part(3);
	told->phase = GETS;
	must_be(pin_get(table, 4, cache, &told->kept), 0);
	must_be(pin_get(table, 5, cache, &off), 0);
	told->released = off;
	told->phase = RELEASES;
	pin_release(table, 5);
	pin_put(table, 4);
	told->phase = PUTS;
	must_be(hp_cache_put(cache, hp_pool_pointer(pool, off)), 0);
	told->phase = PUT;
	part(4);
	close(life);
	pin_close(table);
	part(PARTS);
	return 0;
}

/* What freeing a block must say: 0 where it is still somebody's, -EALREADY where it is not, either in between. */
static void is_freed(int error, int frees, int freed)
{
	int phase = told->phase;
	if (phase < frees || (phase == frees && error == 0)) must_be(error, 0);
	if (phase >= freed || (phase == frees && error != 0)) must_be(error, -EALREADY);
}

static void end(void)
{
	must(hp_pool_recover(pool) >= 0);
	hp_must_be_sound(pool);
	if (shared_pins) { /* still under another's I/O */
		must(lent_state(lent_place(pool, run / PAGE, 0)) % LENT_FREED == 1);
		pin_drop(others, 0);
		pin_drop(others, 1);
	}
	must_be(lent_state(lent_place(pool, run / PAGE, 0)), 0);
	must_be(hp_free(pool, hp_pool_pointer(pool, object)), 0);
	must_be(hp_free(pool, hp_pool_pointer(pool, told->second)), 0);
	is_freed(hp_free(pool, hp_pool_pointer(pool, told->own)), FREES_OWN, FREED_OWN);
	is_freed(hp_page_free_at(pool, run), FREES_RUN, FREED_RUN);
	if (told->kept) must_be(hp_cache_put(cache, hp_pool_pointer(pool, told->kept)) == 0, false);
	if (told->released) {
		int error = hp_cache_put(cache,
		                         hp_pool_pointer(pool, told->released)); /* the ring's, the application's, or free */
		if (told->phase < RELEASES || told->phase >= PUT) must(error != 0);
	}
	pin_close(others);
	must(!pin_any(pool));
	must_be(hp_cache_destroy(cache), 0);
	hp_purge(pool);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
	munmap(told, sizeof *told);
}

static uint64_t what_is_shared(void)
{
	uint64_t hash = 0;
	const struct {
		const void *at;
		size_t bytes;
	} part[] = {{pool->rings, 4 * sizeof *pool->rings},
	            {pool->slabs, 256 * sizeof *pool->slabs},
	            {pool->lent, 256 * sizeof *pool->lent},
	            {pool->units, 4 * sizeof *pool->units},
	            {told, sizeof *told}};
	for (unsigned k = 0; k < 5; k++)
		for (const uint64_t *word = part[k].at, *last = word + part[k].bytes / 8; word < last; word++)
			hash = (hash ^ *word) * UINT64_C(0x100000001b3);
	for (unsigned i = 0; i < 4; i++) { /* and the tables */
		uint64_t page1 = atomic_load(&pool->rings[i].table);
		const uint64_t *word = page1 ? (void *)(pool->base + (page1 - 1) * PAGE) : NULL;
		for (unsigned k = 0; word && k < 8 * sizeof(struct pin_entry) / 8; k++)
			hash = (hash ^ word[k]) * UINT64_C(0x100000001b3);
	}
	return hash;
}

static uint64_t change[CHANGES];
static unsigned changes;

/* The victim does `most` instructions of the part and is killed, or, UINT64_MAX, all of them: how many. */
static uint64_t dies(uint64_t most)
{
	int status;
	uint64_t steps = 0, last = 0;
	begin();
	fflush(NULL);
	pid_t pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
		_exit(victim(NULL));
	}
	must_be(waitpid(pid, &status, 0), pid);
	if (!WIFSTOPPED(status)) hp_test_skip("processes may not be traced here");
	if (most == UINT64_MAX) changes = 0;
	for (; steps < most && told->part == stepped; steps++) {
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0) hp_test_skip("processes cannot be stepped here");
		must_be(waitpid(pid, &status, 0), pid);
		if (!WIFSTOPPED(status)) break;
		if (most != UINT64_MAX) continue;
		uint64_t now = what_is_shared();
		if (now != last && changes < CHANGES) change[changes++] = steps + 1;
		last = now;
	}
	if (WIFSTOPPED(status)) {
		must_be(kill(pid, SIGKILL), 0);
		must_be(waitpid(pid, &status, 0), pid);
	}
	must(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
	end();
	return steps;
}

static void dies_everywhere(const char *name)
{
	uint64_t random = hp_seed(name);
	for (stepped = 0; stepped < PARTS; stepped++) {
		uint64_t all = dies(UINT64_MAX), samples = getenv("HP_STEP_FULL") ? all : SAMPLES;
		print_message("%s, part %u: %llu instructions, killed at %llu of them, and behind %u\n", name, stepped,
		              (unsigned long long)all, (unsigned long long)samples, changes);
		must(changes > 3 && changes < CHANGES);
		for (unsigned i = 0; i < changes; i++) dies(change[i]);
		for (uint64_t i = 0; i < samples; i++) {
			uint64_t from = all * i / samples, to = all * (i + 1) / samples;
			dies(samples == all ? i : from + hp_below(&random, to - from));
		}
	}
}

static void alone(void **state)
{
	(void)state;
	shared_pins = false;
	dies_everywhere("alone");
}

static void beside_another_ring(void **state)
{
	(void)state;
	shared_pins = true;
	dies_everywhere("beside another ring");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(alone), cmocka_unit_test(beside_another_ring)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
