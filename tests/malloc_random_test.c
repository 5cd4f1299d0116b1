/* Random use by several threads of several processes, each block with contents to its last byte.
 *
 * Every thread has blocks of its own, whose size and stamp it knows, and hands some of them to others through a board that
 * all processes share; so a block is resized, looked at and freed by whoever has it. Sizes go from 0 to 300 KiB; the pool
 * is so small that memory runs out now and then, and threads end, and others begin. Half of the processes use a handle at
 * another address. Would catch: two blocks that overlap, contents that an allocation or a free of others changes, a realloc
 * that loses bytes, alignments, objects lost on their way from owner to owner; at the end nothing may be left, and the
 * checker must have nothing to say. */
#include "hp_malloc.h"

#include <pthread.h>

#define PROCESSES 3
#define THREADS 3
#define LIVES 3 /* of each thread, one after the other */
#define BOARD 256
#define MINE 80

struct notice {
	_Atomic uint32_t state; /* 0 nothing, 1 somebody is at it, 2 a block */
	uint64_t off, size, stamp;
};

struct shared {
	struct notice board[BOARD];
	_Atomic uint64_t stamps, allocated, refused, freed, resized, moved, handed, aligned;
	uint64_t operations;
};

struct block {
	char *at;
	uint64_t size, stamp; /* size: what was asked for */
};

static struct shared *shared;
static hp_pool *pool;

static uint64_t random_size(uint64_t *random)
{
	static const unsigned most[] = {16, 128, 128, 512, 512, 2048, 2048, 8192, 33000, 300 * 1024};
	return hp_below(random, most[hp_below(random, 10)] + 1);
}

static void must_be_whole(const struct block *block)
{
	must(hp_usable_size(pool, block->at) >= block->size);
	must(hp_filled(block->at, block->size, block->stamp));
}

static void stamp(struct block *block)
{
	block->stamp = atomic_fetch_add(&shared->stamps, 1);
	hp_fill(block->at, block->size, block->stamp);
}

static void get(struct block *block, uint64_t *random)
{
	uint64_t size = random_size(random), align = 1;
	char *at;
	switch (hp_below(random, 8)) {
	case 0:
		at = hp_calloc(pool, 1 + hp_below(random, 3), size);
		if (at)
			for (uint64_t i = 0; i < size; i++) must_be(at[i], 0);
		break;
	case 1:
		align = 1ull << hp_below(random, 14);
		at = hp_aligned_alloc(pool, align, size);
		must((uintptr_t)at % align == 0);
		shared->aligned++;
		break;
	case 2: at = hp_realloc(pool, NULL, size); break;
	case 3: {
		void *two[2];
		at = hp_malloc_bulk(pool, size, 2, two) == 0 ? two[0] : NULL;
		if (at) must_be(hp_free(pool, two[1]), 0);
		break;
	}
	default: at = hp_malloc(pool, size);
	}
	if (!at) {
		must_be(errno, ENOMEM);
		shared->refused++;
		return;
	}
	must((uintptr_t)at % 16 == 0);
	*block = (struct block){.at = at, .size = size};
	must(hp_usable_size(pool, at) >= size);
	block->size = hp_usable_size(pool, at); /* all of it is ours */
	stamp(block);
	shared->allocated++;
}

static void put(struct block *block)
{
	must_be_whole(block);
	must_be(hp_free(pool, block->at), 0);
	block->at = NULL;
	shared->freed++;
}

static void resize(struct block *block, uint64_t *random)
{
	uint64_t size = random_size(random), kept = size < block->size ? size : block->size;
	must_be_whole(block);
	char *at = hp_realloc(pool, block->at, size);
	if (!at) {
		must_be(errno, ENOMEM);
		must(size > block->size);
		must_be_whole(block);
		return;
	}
	must(hp_filled(at, kept, block->stamp));
	shared->resized++;
	shared->moved += at != block->at;
	block->at = at;
	block->size = hp_usable_size(pool, at);
	must(block->size >= size);
	stamp(block);
}

static void hand_over(struct block *block, uint64_t *random)
{
	struct notice *notice = &shared->board[hp_below(random, BOARD)];
	uint32_t nothing = 0;
	if (!atomic_compare_exchange_strong(&notice->state, &nothing, 1)) return;
	notice->off = hp_pool_offset(pool, block->at);
	notice->size = block->size;
	notice->stamp = block->stamp;
	atomic_store(&notice->state, 2);
	block->at = NULL;
	shared->handed++;
}

static bool take_over(struct block *block, uint64_t where)
{
	struct notice *notice = &shared->board[where];
	uint32_t full = 2;
	if (!atomic_compare_exchange_strong(&notice->state, &full, 1)) return false;
	*block = (struct block){hp_pool_pointer(pool, notice->off), notice->size, notice->stamp};
	atomic_store(&notice->state, 0);
	must_be_whole(block);
	return true;
}

static void *live(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	struct block mine[MINE] = {0};
	for (uint64_t n = 0; n < shared->operations; n++) {
		struct block *block = &mine[hp_below(&random, MINE)];
		unsigned what = (unsigned)hp_below(&random, 16);
		if (!block->at) {
			if (what >= 10 || !take_over(block, hp_below(&random, BOARD))) get(block, &random);
		} else if (what < 8) {
			put(block);
		} else if (what < 10) {
			resize(block, &random);
		} else if (what < 14) {
			hand_over(block, &random);
		} else {
			must_be_whole(block);
		}
	}
	for (unsigned i = 0; i < MINE; i++) {
		if (!mine[i].at) continue;
		hand_over(&mine[i], &random);
		if (mine[i].at) put(&mine[i]);
	}
	return NULL;
}

static void process(uint64_t seed)
{
	for (unsigned k = 0; k < LIVES; k++) {
		pthread_t thread[THREADS];
		for (unsigned i = 0; i < THREADS; i++)
			must_be(pthread_create(&thread[i], NULL, live, (void *)(uintptr_t)hp_random(&seed)), 0);
		for (unsigned i = 0; i < THREADS; i++) must_be(pthread_join(thread[i], NULL), 0);
	}
}

static void play(unsigned processes, uint64_t size, unsigned flags, uint64_t operations)
{
	uint64_t seed = hp_seed("malloc_random");
	shared = hp_shared(sizeof *shared);
	shared->operations = HP_TEST_SANITIZER ? operations / 10 : operations;
	pool = hp_plain_pool(size, flags);
	pid_t pid[PROCESSES];
	for (unsigned i = 0; i < processes; i++) {
		uint64_t own = hp_random(&seed);
		if ((pid[i] = hp_fork()) != 0) continue;
		struct hp_attach_options elsewhere = {.struct_size = sizeof elsewhere, .elsewhere = true};
		int fds[3];
		must_be(hp_pool_fds(pool, fds), 0);
		if (i & 1) must_be(hp_pool_attach(fds, &elsewhere, &pool), 0);
		process(own);
		must_be(hp_pool_detach(pool), 0);
		_exit(0);
	}
	process(hp_random(&seed));
	for (unsigned i = 0; i < processes; i++) must_be(hp_wait_for(pid[i]), 0);
	hp_must_be_sound(pool);
	for (unsigned i = 0; i < BOARD; i++) {
		struct block block;
		if (take_over(&block, i)) put(&block);
	}
	must(hp_pool_recover(pool) >= 0);
	must_be(hp_count_slabs(pool).objects, 0);
	hp_must_be_had_whole(pool);
	print_message(
		"%llu allocated, %llu refused, %llu aligned, %llu freed, %llu resized (%llu moved), %llu handed over\n",
		(unsigned long long)shared->allocated, (unsigned long long)shared->refused, (unsigned long long)shared->aligned,
		(unsigned long long)shared->freed, (unsigned long long)shared->resized, (unsigned long long)shared->moved,
		(unsigned long long)shared->handed);
	must_be(hp_pool_detach(pool), 0);
	munmap(shared, sizeof *shared);
}

static void threads_of_several_processes(void **state)
{
	(void)state;
	play(PROCESSES, 64 * MIB, 0, 30000);
}

static void while_memory_is_short(void **state)
{
	(void)state;
	play(PROCESSES, 8 * MIB, 0, 3000);
}

static void threads_of_one_process(void **state)
{
	(void)state;
	play(0, 32 * MIB, 0, 60000);
}

static void in_a_fenced_pool(void **state)
{
	(void)state;
	play(1, 32 * MIB, HP_POOL_FENCED, 20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_of_several_processes),
		cmocka_unit_test(while_memory_is_short),
		cmocka_unit_test(threads_of_one_process),
		cmocka_unit_test(in_a_fenced_pool),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
