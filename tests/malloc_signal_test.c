/* Signal handlers that malloc and free while their thread is inside malloc or free: at every instruction, and at a high
 * rate by chance (signal_test.c does the same for pages).
 *
 * Would catch a magazine whose top is read, changed by the handler, and written back; an object that two have; one that is
 * freed and lost, or in a magazine twice; a slab that is ended while the handler puts it to use; a slot entered twice. */
#include "hp_malloc.h"
#include "hp_trap.h"

#include <limits.h>
#include <pthread.h>

static hp_pool *pool;

#if HP_TRAP

static hp_pool *other; /* the same one; its slabs are foreign to pool's participant */

#define BLOCKS 8192

/* What should be live; the handler's changes are part of it. Nothing here is touched by both sides at once: an
 * operation's own block is added after it, and a victim removed before it. */
static struct {
	char *block[BLOCKS];
	size_t size[BLOCKS];
	unsigned count;
} live;

#define CONTENT(size) ((size) < 256 ? (size) : 256)

static void live_add(void *block)
{
	size_t size = hp_usable_size(pool, block);
	must(size > 0 && live.count < BLOCKS);
	hp_fill(block, CONTENT(size), (uintptr_t)block);
	live.block[live.count] = block;
	live.size[live.count++] = size;
}

static void *live_remove(unsigned i)
{
	char *block = live.block[i];
	must(hp_filled(block, CONTENT(live.size[i]), (uintptr_t)block));
	live.count--;
	live.block[i] = live.block[live.count];
	live.size[i] = live.size[live.count];
	return block;
}

static void get(size_t size)
{
	void *block = hp_malloc(pool, size);
	must(block);
	live_add(block);
}

static void put(unsigned i)
{
	must_be(hp_free(pool, live_remove(i)), 0);
}

static void live_is_all_there_is(const char *name, unsigned long n)
{
	unsigned objects = 0;
	for (unsigned i = 0; i < live.count; i++) {
		if (hp_usable_size(pool, live.block[i]) != live.size[i] ||
		    !hp_filled(live.block[i], CONTENT(live.size[i]), (uintptr_t)live.block[i]))
			fail_msg("%s, instruction %lu: block %u of %zu bytes is not what it was", name, n, i, live.size[i]);
		objects += atomic_load(&pool->map[hp_pool_offset(pool, live.block[i]) / PAGE]) != 0;
	}
	if (hp_count_slabs(pool).objects != objects)
		fail_msg("%s, instruction %lu: %u objects, not %u", name, n, hp_count_slabs(pool).objects, objects);
	must_be(hp_stats(pool).live_blocks, live.count - objects);
}

/* ---- what is interrupted ---- */

#define SIZE 64u
static char *victim, *result;
static void *victims[8];

/* Objects at hand. */
static unsigned magazine(void)
{
	int error;
	struct slab_state *state = slab_state(participant_get(pool, &error));
	struct slab_mag *mag = &state->mag[slab_malloc_class(SIZE)];
	return (unsigned)(mag->top - mag->base) + (unsigned)__builtin_popcountll(state->word[slab_malloc_class(SIZE)].free);
}

static void nothing_special(void)
{
	for (unsigned i = 0; i < 20 || magazine() == 0; i++) get(SIZE);
}

static void a_block(void)
{
	nothing_special();
	victim = live_remove(3);
}

static void empty_magazine(void)
{
	nothing_special();
	while (magazine()) get(SIZE);
}

static void full_magazine(void)
{
	nothing_special();
	for (unsigned i = 0; i < 100; i++) get(SIZE);
	for (unsigned i = 0; i < 90; i++) put(live.count - 1);
	victim = live_remove(3);
}

/* Nothing is free, but one object that another has freed. */
static void full_slabs(void)
{
	get(SIZE);
	for (struct hp_slabs all = hp_count_slabs(pool); all.objects < all.room; all.objects++) get(SIZE);
	char *one = live_remove(0);
	must_be(hp_free(other, one - pool->base + other->base), 0);
}

static void a_foreign_one(void)
{
	nothing_special();
	for (unsigned i = 0; i < 8; i++) {
		char *there = hp_malloc(other, SIZE);
		must(there);
		victims[i] = there - other->base + pool->base;
	}
	victim = victims[7];
}

static void free_foreign_rest(void)
{
	for (unsigned i = 0; i < 7; i++) live_add(victims[i]);
}

static void a_foreign_one_among_others(void)
{
	a_foreign_one();
	free_foreign_rest();
}

/* Many empty slabs, of which the next free makes one more. */
static void untidy(void)
{
	int error;
	for (unsigned i = 0; i < 160; i++) get(20000);
	struct slab_state *state = slab_state(participant_get(pool, &error));
	state->keep = UINT32_MAX / 2;
	while (live.count > 1) put(live.count - 1);
	victim = live_remove(0);
	state->keep = 0;
}

static void a_run_of_pages(void)
{
	nothing_special();
	must(victim = hp_malloc(pool, 50000));
}

static void get_one(void)
{
	result = hp_malloc(pool, SIZE);
}

static void get_large(void)
{
	result = hp_malloc(pool, 40000);
}

static void get_aligned(void)
{
	result = hp_aligned_alloc(pool, 512, 300);
}

static void get_pages_aligned(void)
{
	result = hp_aligned_alloc(pool, 16384, 300);
}

static void get_zeros(void)
{
	result = hp_calloc(pool, 1, SIZE);
}

static void free_victim(void)
{
	must_be(hp_free(pool, victim), 0);
}

static void free_eight(void)
{
	must_be(hp_free_bulk(pool, 8, victims), 0);
}

static void grow_victim(void)
{
	result = hp_realloc(pool, victim, 4 * SIZE);
}

static void grow_pages(void)
{
	result = hp_realloc(pool, victim, 70000);
}

static void shrink_pages(void)
{
	result = hp_realloc(pool, victim, 100);
}

/* ---- what the handler does ---- */

static void one_in_one_out(void)
{
	get(SIZE);
	if (live.count > 2) put(live.count / 2);
}

static void many(void)
{
	for (unsigned i = 0; i < 150; i++) get(SIZE);
}

static void all_out(void)
{
	while (live.count) put(live.count - 1);
}

static void many_in_all_out(void)
{
	for (unsigned i = 0; i < 100; i++) get(SIZE);
	while (live.count) put(0);
}

static void all_sizes(void)
{
	static const size_t sizes[] = {0, SIZE, 100, 300, 1000, 5000, 20000, 32768, 50000};
	for (unsigned i = 0; i < 9; i++) get(sizes[i]);
	for (unsigned i = 0; i < 4; i++) put(live.count - 2);
	must(hp_pool_recover(pool) >= 0);
}

/* Until there is no more: what others, and the interrupted one, keep unused is taken. */
static void all_of_memory(void)
{
	void *block[64];
	unsigned count = 0;
	while (count < 64 && (block[count] = hp_malloc(pool, 256 * 1024))) count++;
	while (count < 64 && (block[count] = hp_malloc(pool, 33000))) count++;
	while (count) must_be(hp_free(pool, block[--count]), 0);
	get(SIZE);
}

static void start_afresh(void)
{
	pool = hp_plain_pool(4 * MIB, 0);
	other = hp_attach_again(pool);
	live.count = 0;
}

static void end(void)
{
	hp_purge(pool);
	hp_must_be_had_whole(pool);
	must_be(hp_pool_detach(other), 0);
	must_be(hp_pool_detach(pool), 0);
}

/* Steps for each pair, at 20 us: a long operation is interrupted at each so many-th instruction, from a random one on, and
 * however long it is at a few; HUGEPOOL_THOROUGH=1 has them all, which takes long. */
#define STEPS 10000u
#define POINTS_AT_LEAST 3u

static void at_every_instruction(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		void (*prepare)(void), (*operation)(void);
	} scenes[] = {
		{"malloc", nothing_special, get_one},
		{"malloc, magazine empty", empty_magazine, get_one},
		{"malloc, slabs full", full_slabs, get_one},
		{"malloc of pages", nothing_special, get_large},
		{"calloc", nothing_special, get_zeros},
		{"aligned_alloc", nothing_special, get_aligned},
		{"aligned_alloc of pages", nothing_special, get_pages_aligned},
		{"free", a_block, free_victim},
		{"free, magazine full", full_magazine, free_victim},
		{"free of a foreign one", a_foreign_one_among_others, free_victim},
		{"free of eight foreign ones", a_foreign_one, free_eight},
		{"free of one too many", untidy, free_victim},
		{"realloc", a_block, grow_victim},
		{"realloc of pages", a_run_of_pages, grow_pages},
		{"realloc of pages to an object", a_run_of_pages, shrink_pages},
	};
	static const struct {
		const char *name;
		void (*interruption)(void);
	} handlers[] = {
		{"one in, one out", one_in_one_out},
		{"many", many},
		{"all out", all_out},
		{"many in, all out", many_in_all_out},
		{"all sizes, and recovery", all_sizes},
		{"all of memory", all_of_memory},
	};
	struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO}, old;
	sigaction(SIGTRAP, &trap, &old);
	uint64_t random = hp_seed("at_every_instruction");
	bool all = getenv("HUGEPOOL_THOROUGH");
	for (unsigned s = 0; s < sizeof scenes / sizeof *scenes; s++)
		for (unsigned h = 0; h < sizeof handlers / sizeof *handlers; h++) {
			char name[128];
			unsigned long points = 0, length = 0, stride = 0, rounds = 0, n = ULONG_MAX;
			snprintf(name, sizeof name, "%s, and %s", scenes[s].name, handlers[h].name);
			start_afresh();
			bool afresh = false;
			for (bool was = true; was || n <= length; n += stride) {
				if (was) {
					afresh = false;
				} else { /* what the handlers left may have made the operation short: once more, as it was at first */
					if (!afresh) n -= stride;
					afresh = true;
					end();
					start_afresh();
				}
				interruption = handlers[h].interruption;
				result = NULL;
				scenes[s].prepare();
				was = interrupted_at(n, scenes[s].operation) || !length;
				if (result) {
					for (unsigned i = 0; i < live.count; i++)
						if (live.block[i] == result) fail_msg("%s, instruction %lu: two owners", name, n);
					live_add(result);
				}
				live_is_all_there_is(name, n);
				while (live.count) put(live.count - 1);
				if (hp_count_slabs(pool).room > BLOCKS / 2) hp_purge(pool);
				if (hp_count_slabs(pool).room > BLOCKS / 2) hp_must_be_had_whole(pool);
				points += interrupted;
				if (length || ++rounds < 3) continue; /* a few times without, to count them */
				length = steps;
				stride = 1 + length * length / 2 / STEPS;
				if (stride > 1 + length / (POINTS_AT_LEAST + 1)) stride = 1 + length / (POINTS_AT_LEAST + 1);
				if (all) stride = 1;
				n = 1 + hp_below(&random, stride) - stride;
			}
			print_message("%s: at %lu of %lu instructions\n", name, points, length);
			must(points >= POINTS_AT_LEAST);
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

#define WANTED (HP_TEST_SANITIZER ? 500u : 6000u)

static _Atomic unsigned deliveries, failures;
static _Thread_local void *of_handler[16];
static _Thread_local unsigned handled;

static size_t of_handler_size(unsigned k)
{
	return k * k * 40;
}

static void on_alarm(int signal)
{
	(void)signal;
	int saved = errno;
	for (unsigned times = 0; times < 5; times++) {
		unsigned k = handled++ % 16;
		if (of_handler[k]) {
			if (!hp_filled(of_handler[k], of_handler_size(k), k)) failures++;
			if (hp_free(pool, of_handler[k]) != 0) failures++;
			of_handler[k] = NULL;
		} else if ((of_handler[k] = hp_malloc(pool, of_handler_size(k)))) {
			hp_fill(of_handler[k], of_handler_size(k), k);
		}
	}
	deliveries++;
	errno = saved;
}

static void *busy(void *arg)
{
	enum { BLOCKS_HERE = 100 };
	uint64_t random = (uintptr_t)arg;
	char *block[BLOCKS_HERE] = {0};
	size_t size[BLOCKS_HERE];
	while (deliveries < WANTED) {
		unsigned k = (unsigned)hp_below(&random, BLOCKS_HERE);
		if (block[k]) {
			must(hp_filled(block[k], size[k], k));
			must_be(hp_free(pool, block[k]), 0);
			block[k] = NULL;
			continue;
		}
		size[k] = hp_below(&random, 8) ? hp_below(&random, 500) : hp_below(&random, 40000);
		if ((block[k] = hp_malloc(pool, size[k]))) hp_fill(block[k], size[k], k);
	}
	sigset_t alarms;
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarms, NULL);
	for (unsigned k = 0; k < BLOCKS_HERE; k++) {
		if (!block[k]) continue;
		must(hp_filled(block[k], size[k], k));
		must_be(hp_free(pool, block[k]), 0);
	}
	for (unsigned k = 0; k < 16; k++) {
		if (of_handler[k]) must_be(hp_free(pool, of_handler[k]), 0);
		of_handler[k] = NULL;
	}
	return NULL;
}

static void thousands_of_times(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags <= HP_POOL_FENCED; flags += HP_POOL_FENCED) {
		pool = hp_plain_pool(64 * MIB, flags);
		deliveries = failures = 0;
		struct sigaction alarm = {.sa_handler = on_alarm, .sa_flags = SA_RESTART}, old;
		sigaction(SIGALRM, &alarm, &old);
		pthread_t thread[2];
		for (uintptr_t i = 0; i < 2; i++) must_be(pthread_create(&thread[i], NULL, busy, (void *)(i + 1)), 0);
		while (deliveries < WANTED) {
			pthread_kill(thread[0], SIGALRM);
			pthread_kill(thread[1], SIGALRM);
			usleep(20);
		}
		for (int i = 0; i < 2; i++) must_be(pthread_join(thread[i], NULL), 0);
		sigaction(SIGALRM, &old, NULL);
		assert_int_equal(failures, 0);
		assert_int_equal(hp_count_slabs(pool).objects, 0);
		hp_must_be_had_whole(pool);
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
