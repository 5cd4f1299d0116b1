/* hp_alloc_into and hp_free_from: what they promise without deaths (those are the stepping harness' matter). Would catch a
 * block that is published twice, freed twice, or lost when several threads of several owners work on the same words. */
#include "hp_process.h"

#include <hugepool/malloc.h>
#include <pthread.h>

#define WORDS 64
#define ROUNDS 20000

static hp_pool *pool;
static uint64_t *words;

static void into_and_from(void **state)
{
	(void)state;
	uint64_t *word = &words[0];
	must(hp_published(word) == HP_OFF_NONE);
	must_be(hp_free_from(pool, word), -ENOENT);
	must_be(hp_alloc_into(pool, 100, word), 0);
	hp_off off = hp_published(word);
	must(off != HP_OFF_NONE && hp_usable_size(pool, hp_pool_pointer(pool, off)) >= 100);
	must_be(hp_alloc_into(pool, 100, word), -EBUSY);
	must_be(hp_free_from(pool, word), 0);
	must_be(hp_free_from(pool, word), -ENOENT);
	must_be(hp_free(pool, hp_pool_pointer(pool, off)), -EALREADY);
}

static void what_makes_no_sense(void **state)
{
	(void)state;
	uint64_t outside = 0;
	must_be(hp_alloc_into(pool, 100, &outside), -EINVAL);
	must_be(hp_alloc_into(pool, 32769, &words[0]), -EINVAL);
	must_be(hp_alloc_into(pool, 8, (uint64_t *)(void *)((char *)words + 4)), -EINVAL);
	must_be(hp_free_from(pool, &outside), -EINVAL);
	must_be(outside, 0);
}

static void *work(void *arg)
{
	uint64_t seed = hp_seed(__func__) + (uintptr_t)arg, made = 0, ended = 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t *word = &words[hp_below(&seed, WORDS)];
		if (hp_below(&seed, 2)) {
			int error = hp_alloc_into(pool, hp_below(&seed, 2000), word);
			must(error == 0 || error == -EBUSY);
			made += error == 0;
		} else {
			int error = hp_free_from(pool, word);
			must(error == 0 || error == -ENOENT || error == -EAGAIN);
			ended += error == 0;
		}
	}
	return (void *)(uintptr_t)(made - ended);
}

static void several_threads_on_the_same_words(void **state)
{
	(void)state;
	enum { THREADS = 4 };
	pthread_t thread[THREADS];
	uint64_t balance = 0, named = 0;
	for (uintptr_t i = 0; i < THREADS; i++) must_be(pthread_create(&thread[i], NULL, work, (void *)i), 0);
	for (int i = 0; i < THREADS; i++) {
		void *more;
		must_be(pthread_join(thread[i], &more), 0);
		balance += (uint64_t)(uintptr_t)more;
	}
	for (int i = 0; i < WORDS; i++) {
		if (hp_published(&words[i]) == HP_OFF_NONE) continue;
		named++;
		must_be(hp_free_from(pool, &words[i]), 0);
	}
	must_be(balance, named);
	hp_must_be_sound(pool);
}

static int set_up(void **state)
{
	(void)state;
	pool = hp_plain_pool(16 << 20, 0);
	words = hp_calloc(pool, WORDS, sizeof *words);
	return words ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(into_and_from),
		cmocka_unit_test(what_makes_no_sense),
		cmocka_unit_test(several_threads_on_the_same_words),
	};
	return cmocka_run_group_tests(tests, set_up, NULL);
}
