/* Kills processes at random while others go on; see storm.h.
 *
 * Catches: pages that are lost with a process, blocks with two owners, blocks that a recovery frees although somebody
 * holds them, survivors that wait for the dead.
 *
 * Usage: storm_test [KILLS]. The ordinary run makes 2,000. */
#include "storm.h"

static uint64_t kills = HP_TEST_SANITIZER ? 100 : 2000;

static void two_thousand_kills_lose_no_page(void **state)
{
	(void)state;
	storm_run(kills - kills / 5, 0, hp_seed("with barriers"));
}

static void kills_in_fenced_mode_lose_no_page(void **state)
{
	(void)state;
	storm_run(kills / 5, HP_POOL_FENCED, hp_seed("fenced"));
}

int main(int argc, char **argv)
{
	if (argc > 2 || (argc == 2 && (kills = strtoull(argv[1], NULL, 10)) == 0)) {
		fprintf(stderr, "usage: storm_test [KILLS]\n");
		return 2;
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_thousand_kills_lose_no_page),
		cmocka_unit_test(kills_in_fenced_mode_lose_no_page),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
