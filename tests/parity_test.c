/* The unit against a reference that knows one granule at a time.
 *
 * Catches: a bit operation that is wrong at a word's border, at bit 63, for a whole word or a whole unit; a search that
 * misses a run or finds one that is not free; lengths from shared memory that are believed; a free that changes more
 * than one bit, or that two callers both win. */
#include "parity/parity.h"
#include "hp_page.h"
#include <pthread.h>

#define ROUNDS (HP_TEST_SANITIZER ? 300 : 3000)

static const unsigned sizes[] = {64, 128, 192, 256, 320, 384, 448, 512};
#define SIZES (sizeof sizes / sizeof *sizes)

struct naive {
	bool free[PARITY_GRANULES];
	unsigned granules;
};

static void same_view(const struct parity_view *view, const struct naive *naive)
{
	for (unsigned i = 0; i < PARITY_GRANULES; i++) {
		bool free = view->free[i / 64] >> (i % 64) & 1;
		must_be(free, i < naive->granules && naive->free[i]);
	}
}

static int naive_run(const struct naive *naive, unsigned n)
{
	for (unsigned i = 0; i + n <= naive->granules; i++) {
		unsigned k = 0;
		while (k < n && naive->free[i + k]) k++;
		if (k == n) return (int)i;
	}
	return -1;
}

/* Runs of random length, so that every density and every border comes up. */
static void random_view(uint64_t *seed, struct parity_view *view, struct naive *naive, unsigned granules)
{
	*view = (struct parity_view){.granules = granules};
	*naive = (struct naive){.granules = granules};
	unsigned longest = 1 + (unsigned)hp_below(seed, hp_below(seed, 2) ? 8 : granules);
	for (unsigned i = 0; i < granules;) {
		unsigned n = 1 + (unsigned)hp_below(seed, longest);
		bool free = hp_below(seed, 2);
		for (; n && i < granules; n--, i++) naive->free[i] = free;
	}
	for (unsigned i = 0; i < granules; i++)
		if (naive->free[i]) view->free[i / 64] |= UINT64_C(1) << (i % 64);
}

static void views_are_taken_and_given_as_bit_by_bit(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct parity_view view;
		struct naive naive;
		random_view(&seed, &view, &naive, sizes[round % SIZES]);
		for (unsigned k = 0; k < 20; k++) {
			unsigned i = (unsigned)hp_below(&seed, naive.granules);
			unsigned n = 1 + (unsigned)hp_below(&seed, naive.granules - i);
			if (k % 5 == 0) i = 0, n = naive.granules;
			if (k % 5 == 1) n = naive.granules - i;
			bool give = hp_below(&seed, 2);
			if (give)
				parity_view_give(&view, i, n);
			else
				parity_view_take(&view, i, n);
			for (unsigned j = i; j < i + n; j++) naive.free[j] = give;
			same_view(&view, &naive);
		}
	}
}

/* The fast path: n granules of the current word, 1 to 64. */
static void short_runs_are_taken_from_the_current_word(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	for (unsigned round = 0; round < ROUNDS * 4; round++) {
		struct parity_view view;
		struct naive naive, word = {.granules = 64};
		random_view(&seed, &view, &naive, sizes[round % SIZES]);
		for (unsigned k = 0; k < 30; k++) {
			unsigned n = hp_below(&seed, 2) ? 1 : 1 + (unsigned)hp_below(&seed, hp_below(&seed, 2) ? 8 : 64);
			if (n == 1 || hp_below(&seed, 4) == 0) { /* found anywhere, and then it is the current word's */
				int one = parity_view_find(&view, 1);
				must_be(one < 0, naive_run(&naive, 1) < 0);
				if (one >= 0) must(naive.free[one] && (unsigned)one / 64 == view.word);
			} else {
				view.word = (uint32_t)hp_below(&seed, naive.granules / 64);
			}
			memcpy(word.free, naive.free + view.word * 64, 64);
			int want = naive_run(&word, n), first = naive_run(&word, 1);
			if (want != first) want = -1; /* only the first free run is looked at */
			struct parity_unit unit, was;
			memset(&unit, 0, sizeof unit);
			was = unit;
			int got = (int)(n == 1 ? parity_allocate_near(&unit, &view) : parity_allocate_run_near(&unit, &view, n));
			must_be(got, want < 0 ? -1 : (int)view.word * 64 + want);
			if (got >= 0) {
				must_be(unit.len[got], n);
				was.len[got] = (uint16_t)n;
				was.a[got / 64] = parity_bit((unsigned)got);
			}
			must(memcmp(&unit, &was, sizeof unit) == 0);
			for (unsigned i = 0; got >= 0 && i < n; i++) naive.free[(unsigned)got + i] = false;
			same_view(&view, &naive);
			/* and one given back, anywhere */
			unsigned at = (unsigned)hp_below(&seed, naive.granules);
			parity_view_give(&view, at, 1);
			naive.free[at] = true;
			same_view(&view, &naive);
		}
	}
}

static void runs_within_a_word_are_marked_where_they_begin(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	for (unsigned round = 0; round < ROUNDS * 20; round++) {
		uint64_t free = hp_random(&seed) | hp_random(&seed) |
		                (hp_below(&seed, 2) ? hp_random(&seed) | hp_random(&seed) : 0);
		if (round % 100 == 0) free = UINT64_MAX;
		unsigned n = 1 + (unsigned)hp_below(&seed, 64);
		uint64_t want = 0;
		for (unsigned i = 0; i + n <= 64; i++)
			if (!(~(free >> i) & parity_mask(0, n))) want |= UINT64_C(1) << i;
		must(parity_runs(free, n) == want);
	}
}

static void runs_are_found_wherever_they_are(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct parity_view view;
		struct naive naive;
		random_view(&seed, &view, &naive, sizes[round % SIZES]);
		for (unsigned k = 0; k < 40; k++) {
			unsigned n = 1 + (unsigned)hp_below(&seed, k % 2 ? naive.granules : 70);
			if (n > naive.granules) n = naive.granules;
			must_be(parity_view_find_run(&view, n), naive_run(&naive, n));
			if (n > 1) must_be(parity_view_find(&view, n), naive_run(&naive, n));
		}
	}
	/* one run of each length at each place, and nothing else */
	for (unsigned s = 0; s < SIZES; s += HP_TEST_SANITIZER ? 7 : 1)
		for (unsigned i = 0; i < sizes[s]; i++)
			for (unsigned n = 1; n <= sizes[s] - i; n++) {
				struct parity_view view = {.granules = sizes[s]};
				parity_view_give(&view, i, n);
				must_be(parity_view_find_run(&view, n), i);
				if (n < sizes[s]) must_be(parity_view_find_run(&view, n + 1), -1);
			}
}

static void ends_and_longest_runs_are_measured(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct parity_view view;
		struct naive naive;
		random_view(&seed, &view, &naive, sizes[round % SIZES]);
		if (round % 50 == 0) {
			memset(naive.free, 1, naive.granules);
			for (unsigned w = 0; w < naive.granules / 64; w++) view.free[w] = UINT64_MAX;
		}
		unsigned prefix = 0, suffix = 0, longest = 0, run = 0, count = 0;
		while (prefix < naive.granules && naive.free[prefix]) prefix++;
		while (suffix < naive.granules && naive.free[naive.granules - 1 - suffix]) suffix++;
		for (unsigned i = 0; i < naive.granules; i++) {
			run = naive.free[i] ? run + 1 : 0;
			count += naive.free[i];
			if (run > longest) longest = run;
		}
		must_be(parity_view_prefix(&view), prefix);
		must_be(parity_view_suffix(&view), suffix);
		must_be(parity_view_longest(&view), longest);
		must_be(parity_view_count(&view), count);
	}
}

/* The shared words, bit by bit. */
struct shadow {
	bool a[PARITY_GRANULES], r[PARITY_GRANULES];
	uint16_t len[PARITY_GRANULES];
};

static void same_unit(const struct parity_unit *unit, const struct shadow *shadow)
{
	for (unsigned i = 0; i < PARITY_GRANULES; i++) {
		must_be(unit->a[i / 64] >> (i % 64) & 1, shadow->a[i]);
		must_be(unit->r[i / 64] >> (i % 64) & 1, shadow->r[i]);
		must_be(unit->len[i], shadow->len[i]);
		must_be(parity_live(unit, i), shadow->a[i] != shadow->r[i]);
	}
}

static void every_operation_changes_one_bit(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	struct parity_unit *unit = aligned_alloc(64, sizeof *unit);
	struct shadow *shadow = calloc(1, sizeof *shadow);
	assert_non_null(unit);
	assert_non_null(shadow);
	memset(unit, 0, sizeof *unit);
	for (unsigned step = 0; step < ROUNDS * 3; step++) {
		unsigned i = (unsigned)hp_below(&seed, PARITY_GRANULES);
		if (hp_below(&seed, 4) == 0) i = (unsigned)hp_below(&seed, 8) * 64 + (hp_below(&seed, 2) ? 63 : 0);
		bool live = shadow->a[i] != shadow->r[i];
		switch (hp_below(&seed, 3)) {
		case 0:
			if (!live) {
				unsigned len = 1 + (unsigned)hp_below(&seed, UINT16_MAX);
				parity_allocate_local(unit, i, len);
				shadow->len[i] = (uint16_t)len;
				shadow->a[i] = !shadow->a[i];
			}
			break;
		case 1:
			must_be(parity_free_local(unit, i), live ? shadow->len[i] : 0);
			if (live) shadow->a[i] = !shadow->a[i];
			break;
		default:
			must_be(parity_free_remote(unit, i), live ? shadow->len[i] : 0);
			if (live) shadow->r[i] = !shadow->r[i];
		}
		if (step % 16 == 0) same_unit(unit, shadow);
		if (step % 64 == 0)
			for (unsigned s = 0; s < SIZES; s++) {
				unsigned heads = 0;
				for (unsigned k = 0; k < sizes[s]; k++) heads += shadow->a[k] != shadow->r[k];
				must_be(parity_count_heads(unit, sizes[s]), heads);
				must_be(parity_no_heads(unit, sizes[s]), heads == 0);
			}
	}
	parity_free_all(unit);
	memcpy(shadow->a, shadow->r, sizeof shadow->a);
	same_unit(unit, shadow);
	must(parity_no_heads(unit, PARITY_GRANULES));
	free(shadow);
	free(unit);
}

static void a_length_from_shared_memory_is_never_too_long(void **state)
{
	(void)state;
	for (unsigned s = 0; s < SIZES; s++)
		for (unsigned i = 0; i < sizes[s]; i += 1 + (i > 2 && i + 3 < sizes[s]) * 12)
			for (unsigned len = 0; len <= UINT16_MAX; len += HP_TEST_SANITIZER ? 7 : 1) {
				unsigned n = parity_len(len, i, sizes[s]), asked = len & PARITY_LEN_MASK, room = sizes[s] - i;
				unsigned want = len & PARITY_LEN_SPANS || asked > room ? room : asked ? asked : 1;
				if (n != want) must_be(n, want);
			}
}

/* What a rebuilt view must be: all free, less the prefix, less every live run as long as it can be. */
static void naive_rebuild(const struct parity_unit *unit, unsigned granules, unsigned prefix, struct naive *naive)
{
	*naive = (struct naive){.granules = granules};
	for (unsigned i = 0; i < granules; i++) naive->free[i] = i >= prefix;
	for (unsigned i = 0; i < granules; i++)
		if (parity_live(unit, i))
			for (unsigned k = 0; k < parity_len(unit->len[i], i, granules); k++) naive->free[i + k] = false;
}

static int naive_head(const struct parity_unit *unit, unsigned granules, unsigned i)
{
	for (int k = (int)i; k >= 0; k--)
		if (parity_live(unit, (unsigned)k))
			return i - (unsigned)k < parity_len(unit->len[k], (unsigned)k, granules) ? k : -1;
	return -1;
}

static void a_view_is_rebuilt_from_the_unit(bool rubbish)
{
	uint64_t seed = hp_seed(rubbish ? "from rubbish" : "from order");
	struct parity_unit *unit = aligned_alloc(64, sizeof *unit);
	assert_non_null(unit);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned granules = sizes[round % SIZES],
				 prefix = (unsigned)hp_below(&seed, 3) ? 0 : (unsigned)hp_below(&seed, granules + 40);
		for (unsigned w = 0; w < PARITY_WORDS; w++) {
			unit->a[w] = hp_random(&seed);
			unit->r[w] = rubbish ? hp_random(&seed) : unit->a[w];
			if (rubbish && round % 3)
				unit->r[w] = unit->a[w] ^ (hp_random(&seed) & hp_random(&seed) & hp_random(&seed));
		}
		for (unsigned i = 0; i < PARITY_GRANULES; i++) unit->len[i] = (uint16_t)hp_random(&seed);
		if (!rubbish)
			for (unsigned i = prefix; i < granules;) {
				unsigned n = 1 + (unsigned)hp_below(&seed, hp_below(&seed, 4) ? 5 : granules);
				if (n > granules - i) n = granules - i;
				if (hp_below(&seed, 2)) parity_allocate_local(unit, i, n);
				i += n;
			}
		struct parity_view view;
		struct naive naive;
		memset(&view, 0xaa, sizeof view);
		parity_view_rebuild(unit, granules, prefix, &view);
		naive_rebuild(unit, granules, prefix, &naive);
		must_be(view.granules, granules);
		must(view.word < granules / 64);
		same_view(&view, &naive);
		for (unsigned i = 0; i < granules; i++)
			must_be(parity_head_of(unit, granules, i), naive_head(unit, granules, i));
	}
	free(unit);
}

static void views_are_rebuilt(void **state)
{
	(void)state;
	a_view_is_rebuilt_from_the_unit(false);
}

static void rubbish_is_rebuilt_within_bounds(void **state)
{
	(void)state;
	a_view_is_rebuilt_from_the_unit(true);
}

static void control_words_say_who_and_count_versions(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__), old = 0;
	for (unsigned i = 0; i < ROUNDS; i++) {
		enum ctl_state is = (enum ctl_state)hp_below(&seed, CTL_QUARANTINED + 1);
		uint32_t owner = (uint32_t)hp_below(&seed, 1u << 16), generation = (uint32_t)hp_below(&seed, 1u << 16);
		if (i == 5) old |= UINT64_C(0xfffffff) << 4; /* the version wraps into nothing else */
		uint64_t word = ctl_make(is, owner, generation, old);
		must_be(ctl_state(word), is);
		must_be(ctl_owner(word), owner);
		must_be(ctl_generation(word), generation);
		must_be(ctl_who(word), owner << 16 | generation);
		must_be(word >> 4 & 0xfffffff, ((old >> 4) + 1) & 0xfffffff);
		must(word != old);
		old = word;
	}
}

#define FREERS 4

struct race {
	struct parity_unit *unit;
	pthread_barrier_t *barrier;
	_Atomic unsigned *won; /* of each granule */
	unsigned first;
};

static void *free_all_granules(void *arg)
{
	struct race *race = arg;
	pthread_barrier_wait(race->barrier);
	for (unsigned k = 0; k < PARITY_GRANULES; k++) {
		unsigned i = (k + race->first) % PARITY_GRANULES;
		if (parity_free_remote(race->unit, i)) atomic_fetch_add(&race->won[i], 1);
	}
	return NULL;
}

static void of_many_who_free_one_wins(void **state)
{
	(void)state;
	struct parity_unit *unit = aligned_alloc(64, sizeof *unit);
	_Atomic unsigned *won = calloc(PARITY_GRANULES, sizeof *won);
	pthread_barrier_t barrier;
	assert_non_null(unit);
	assert_non_null(won);
	memset(unit, 0, sizeof *unit);
	pthread_barrier_init(&barrier, NULL, FREERS);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 20 : 200); round++) {
		struct race race[FREERS];
		pthread_t thread[FREERS];
		for (unsigned i = 0; i < PARITY_GRANULES; i++) {
			parity_allocate_local(unit, i, 1);
			won[i] = 0;
		}
		for (unsigned t = 0; t < FREERS; t++) {
			race[t] = (struct race){unit, &barrier, won, t * (round % 2 ? 0 : 7)};
			must_be(pthread_create(&thread[t], NULL, free_all_granules, &race[t]), 0);
		}
		for (unsigned t = 0; t < FREERS; t++) pthread_join(thread[t], NULL);
		for (unsigned i = 0; i < PARITY_GRANULES; i++) must_be(won[i], 1);
		must(parity_no_heads(unit, PARITY_GRANULES));
	}
	pthread_barrier_destroy(&barrier);
	free((void *)won);
	free(unit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(views_are_taken_and_given_as_bit_by_bit),
		cmocka_unit_test(short_runs_are_taken_from_the_current_word),
		cmocka_unit_test(runs_within_a_word_are_marked_where_they_begin),
		cmocka_unit_test(runs_are_found_wherever_they_are),
		cmocka_unit_test(ends_and_longest_runs_are_measured),
		cmocka_unit_test(every_operation_changes_one_bit),
		cmocka_unit_test(a_length_from_shared_memory_is_never_too_long),
		cmocka_unit_test(views_are_rebuilt),
		cmocka_unit_test(rubbish_is_rebuilt_within_bounds),
		cmocka_unit_test(control_words_say_who_and_count_versions),
		cmocka_unit_test(of_many_who_free_one_wins),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
