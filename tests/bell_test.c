/* The bells of the demonstration: two processes that both sleep most of the time miss no turn; nobody sleeps whose bell has been
 * rung since he listened. */
#include "../tools/hugepool/bell.c"

#include <sys/mman.h>

#include "hp_process.h"

#define TURNS 20000u
#define LONG_NS (UINT64_C(60) * 1000000000u)

/* Whose turn it is, and a bell for each of the two. */
struct table {
	_Atomic uint32_t turn;
	struct bell bell[2];
};

static void play(struct table *table, unsigned who)
{
	for (uint32_t turn = who; turn < TURNS; turn += 2) {
		while (table->turn != turn) {
			uint32_t heard = bell_listen(&table->bell[who]);
			if (table->turn == turn)
				bell_cancel(&table->bell[who]);
			else
				bell_sleep(&table->bell[who], heard, LONG_NS);
		}
		table->turn = turn + 1;
		bell_ring(&table->bell[!who]);
	}
}

static void second_player(const struct child *me, void *arg)
{
	(void)me;
	play(arg, 1);
}

static void two_take_turns(void **state)
{
	(void)state;
	struct table *table = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(table != MAP_FAILED);
	struct child second = child_start(second_player, table);
	play(table, 0);
	must_be(child_end(&second), 0);
	must_be(table->turn, TURNS);
	must_be(munmap(table, PAGE), 0);
}

static void rung_after_listening_is_heard(void **state)
{
	(void)state;
	struct bell bell = {0};
	uint32_t heard = bell_listen(&bell);
	bell_ring(&bell);
	bell_sleep(&bell, heard, LONG_NS); /* or it would never come back */
	must_be(bell.sleeping, 0);
	bell_ring(&bell); /* for nobody */
	heard = bell_listen(&bell);
	bell_sleep(&bell, heard, 1000000);
	must_be(bell.sleeping, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_take_turns),
		cmocka_unit_test(rung_after_listening_is_heard),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
