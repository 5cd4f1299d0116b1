/* The fuzz target of malloc on random streams, for a bounded time; HUGEPOOL_SEED repeats a run. */
#include "fuzz/malloc_fuzz.c"

#undef PAGE
#undef must
#include "hp_page.h"

static void streams(uint64_t what, unsigned count)
{
	uint64_t random = hp_seed(what ? "damage" : "calls");
	static uint8_t data[4096];
	if (HP_TEST_SANITIZER) count /= 10;
	for (unsigned n = 0; n < count; n++) {
		size_t size = 64 + hp_below(&random, sizeof data - 64);
		for (size_t i = 0; i < size; i++) data[i] = (uint8_t)hp_random(&random);
		data[0] = (uint8_t)what;
		LLVMFuzzerTestOneInput(data, size);
	}
}

static void calls_are_right(void **state)
{
	(void)state;
	streams(0, 200);
}

static void damage_is_survived(void **state)
{
	(void)state;
	streams(1, 150);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_are_right),
		cmocka_unit_test(damage_is_survived),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
