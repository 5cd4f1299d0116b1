/* Wrong frees, a million of each kind: each is an error, and none changes anything.
 *
 * Every block carries its contents to the last byte, and all of them are compared, with the number of objects and pages,
 * again and again. Would catch a wrong free that is taken for a right one, and one that is refused but has already
 * flipped a bit, put an object into a magazine, or ended a slab. */
#include "hp_malloc.h"

#include <pthread.h>

#define BLOCKS 1500
#define TIMES (HP_TEST_SANITIZER ? 100000u : 1000000u)
#define LOOKS 20u /* at everything, for each kind */

static struct {
	hp_pool *pool, *again, *foreign; /* again: the same one, another participant to whom all slabs are foreign */
	char *block[BLOCKS];
	size_t size[BLOCKS]; /* usable */
	bool pages[BLOCKS];  /* a run of pages */
	unsigned objects;
	uint64_t live, free;
	uint64_t random;
} all;

static unsigned below(uint64_t n)
{
	return (unsigned)hp_below(&all.random, n);
}

static int set_up(void **state)
{
	(void)state;
	all.random = hp_seed("wrong frees");
	all.pool = hp_plain_pool(24 * MIB, 0);
	all.foreign = hp_plain_pool(4 * MIB, 0);
	all.again = hp_attach_again(all.pool);
	for (unsigned i = 0; i < BLOCKS; i++) {
		static const size_t most[] = {32, 200, 2000, 10000, 40000};
		size_t size = i % 50 == 0 ? 33000 + below(80000) : below(most[below(5)]);
		must(all.block[i] = hp_malloc(all.pool, size));
		all.size[i] = hp_usable_size(all.pool, all.block[i]);
		all.pages[i] = size > SLAB_MALLOC_MAX;
		hp_fill(all.block[i], all.size[i], i);
	}
	all.objects = hp_count_slabs(all.pool).objects;
	all.live = hp_stats(all.pool).live_blocks;
	all.free = hp_stats(all.pool).free;
	return 0;
}

static void nothing_has_changed(void)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		must_be(hp_usable_size(all.pool, all.block[i]), all.size[i]);
		must(hp_filled(all.block[i], all.size[i], i));
	}
	must_be(hp_count_slabs(all.pool).objects, all.objects);
	must_be(hp_stats(all.pool).live_blocks, all.live);
	must_be(hp_stats(all.pool).free, all.free);
	hp_must_be_sound(all.pool);
}

/* Each is right at the end: what is allocated is no wrong free's. */
static int tear_down(void **state)
{
	(void)state;
	nothing_has_changed();
	for (unsigned i = 0; i < BLOCKS; i++)
		must_be(hp_free(i & 1 ? all.pool : all.again,
		                i & 1 ? all.block[i] : hp_pool_pointer(all.again, hp_pool_offset(all.pool, all.block[i]))),
		        0);
	hp_purge(all.pool);
	hp_must_be_had_whole(all.pool);
	must_be(hp_pool_detach(all.again), 0);
	must_be(hp_pool_detach(all.foreign), 0);
	must_be(hp_pool_detach(all.pool), 0);
	return 0;
}

/* One wrong address; and the error it must give, or 0 where more than one is right. */
typedef char *wrong_fn(int *error);

static void try_them(wrong_fn *wrong, const char *kind)
{
	unsigned errors[200] = {0};
	for (unsigned n = 0; n < TIMES; n++) {
		int want = 0, error;
		char *address = wrong(&want);
		bool elsewhere = below(2);
		char *there = (char *)((uintptr_t)address - (uintptr_t)all.pool->base +
		                       (uintptr_t)all.again->base); /* outside of the pool that is some address, too */
		error = elsewhere ? hp_free(all.again, there) : hp_free(all.pool, address);
		if (error >= 0 || (want && error != want))
			fail_msg("%s: free of offset %lld (%s) says %d, not %d", kind, (long long)(address - all.pool->base),
			         elsewhere ? "by another" : "by its thread", error, want);
		if (n % 4 == 0) must_be(hp_usable_size(elsewhere ? all.again : all.pool, elsewhere ? there : address), 0);
		if (n % 8 == 0) {
			void *one[1] = {elsewhere ? there : address};
			must(hp_free_bulk(elsewhere ? all.again : all.pool, 1, one) < 0);
		}
		errors[-error < 200 ? -error : 0]++;
		if (n % (TIMES / LOOKS) == 0) nothing_has_changed();
	}
	print_message("%s: %u EINVAL, %u ENOENT, %u EALREADY\n", kind, errors[EINVAL], errors[ENOENT], errors[EALREADY]);
	nothing_has_changed();
}

static unsigned an_object(void)
{
	unsigned i = below(BLOCKS);
	while (all.pages[i]) i = below(BLOCKS);
	return i;
}

static unsigned a_run(void)
{
	return below(BLOCKS / 50) * 50;
}

static char *aligned_interior(int *error)
{
	unsigned i = an_object();
	while (all.size[i] <= 16) i = an_object();
	*error = -EINVAL;
	return all.block[i] + 16 + below((all.size[i] - 1) / 16) * 16;
}

static char *unaligned(int *error)
{
	unsigned i = below(BLOCKS);
	char *at = all.block[i] + 1 + below(all.size[i] - 1);
	*error = -EINVAL;
	return (uintptr_t)at % 16 ? at : at - 1;
}

static char *interior_of_pages(int *error)
{
	unsigned i = a_run();
	*error = -ENOENT;
	return all.block[i] + PAGE + below((all.size[i] - 1) / PAGE) * PAGE;
}

static char *interior_of_a_page(int *error)
{
	unsigned i = a_run();
	*error = -EINVAL;
	return all.block[i] + below(all.size[i] / PAGE) * PAGE + 16 + below(PAGE / 16 - 1) * 16;
}

static char *page_inside_a_slab(int *error)
{
	for (;;) {
		uint64_t page = below(all.pool->capacity / PAGE), map = atomic_load(&all.pool->map[page]);
		char *at = all.pool->base + page * PAGE;
		struct slab *slab;
		unsigned index, class;
		if (!map || slab_find(all.pool, page * PAGE, &slab, &index, &class) != SLAB_WRONG) continue;
		*error = -EINVAL;
		return at;
	}
}

static char *out_of_range(int *error)
{
	static char here[4096];
	static char *heap;
	if (!heap) must(heap = malloc(4096));
	*error = -EINVAL;
	switch (below(6)) {
	case 0: return here + below(sizeof here);
	case 1: return heap + below(4096);
	case 2: return (char *)error; /* on the stack */
	case 3: return all.pool->base - 1 - below(PAGE);
	case 4: return all.pool->base + all.pool->capacity + below(PAGE);
	default: {
		uint64_t any = hp_random(&all.random);
		char *at = (char *)(uintptr_t)any;
		bool in = (uint64_t)(at - all.pool->base) < all.pool->capacity ||
		          (uint64_t)(at - all.again->base) < all.pool->capacity || !any;
		return in ? here : at;
	}
	}
}

static char *never_allocated(int *error)
{
	*error = 0; /* ENOENT, or EALREADY where it cannot be told from a double one */
	for (;;) {
		uint64_t off = hp_below(&all.random, all.pool->capacity / 16) * 16;
		struct slab *slab;
		unsigned index, class;
		if (!atomic_load(&all.pool->map[off / PAGE])) off = off / PAGE * PAGE;
		enum slab_found found = slab_find(all.pool, off, &slab, &index, &class);
		if (found == SLAB_OBJECT && !slab_live(slab, index)) return all.pool->base + off;
		if (found == SLAB_NONE && hp_page_size_at(all.pool, off / PAGE * PAGE) < 0) return all.pool->base + off;
	}
}

static void a_million_inside_objects(void **state)
{
	(void)state;
	try_them(aligned_interior, "inside objects");
}

static void a_million_unaligned(void **state)
{
	(void)state;
	try_them(unaligned, "unaligned");
}

static void a_million_inside_runs_of_pages(void **state)
{
	(void)state;
	try_them(interior_of_pages, "pages inside a run");
	try_them(interior_of_a_page, "inside a page of a run");
}

static void a_million_pages_of_slabs(void **state)
{
	(void)state;
	try_them(page_inside_a_slab, "pages inside a slab");
}

static void a_million_out_of_range(void **state)
{
	(void)state;
	try_them(out_of_range, "out of range");
}

static void a_million_never_allocated(void **state)
{
	(void)state;
	try_them(never_allocated, "never allocated");
}

/* A block of one pool, freed in another. */
static void a_million_of_a_foreign_pool(void **state)
{
	(void)state;
	void *theirs = hp_malloc(all.foreign, 100);
	must(theirs);
	for (unsigned n = 0; n < TIMES; n++) {
		must_be(hp_free(all.foreign, all.block[below(BLOCKS)]), -EINVAL);
		must_be(hp_free(all.pool, theirs), -EINVAL);
	}
	must_be(hp_free(all.foreign, theirs), 0);
	nothing_has_changed();
}

/* Freed twice, by its thread, by another participant, and in both orders. */
static void a_million_doubles(void **state)
{
	(void)state;
	unsigned ended = 0;
	for (unsigned n = 0; n < TIMES; n++) {
		size_t size = n % 64 ? below(3000) : below(60000);
		char *block = hp_malloc(all.pool, size);
		must(block);
		char *there = hp_pool_pointer(all.again, hp_pool_offset(all.pool, block));
		unsigned how = below(4);
		must_be(how & 1 ? hp_free(all.pool, block) : hp_free(all.again, there), 0);
		for (unsigned k = 1 + below(3); k; k--) {
			int error = how & 2 ? hp_free(all.pool, block) : hp_free(all.again, there);
			/* EINVAL and ENOENT: its slab has gone as well, and what lies there is another or none */
			if (error != -EALREADY && error != -EINVAL && error != -ENOENT)
				fail_msg("the second free of %zu bytes at offset %llu says %d", size,
				         (unsigned long long)hp_pool_offset(all.pool, block), error);
			ended += error != -EALREADY;
		}
		must_be(hp_usable_size(all.pool, block), 0);
		if (n % (TIMES / LOOKS) == 0) {
			must_be(hp_count_slabs(all.pool).objects, all.objects);
			for (unsigned i = 0; i < BLOCKS; i++) must(hp_filled(all.block[i], all.size[i], i));
		}
	}
	print_message("%u of them in slabs that had gone\n", ended);
	must(ended < TIMES / 100);
	must_be(hp_count_slabs(all.pool).objects, all.objects);
	hp_purge(all.pool);
	hp_purge(all.again);
	all.live = hp_stats(all.pool).live_blocks; /* slabs without objects came and went */
	all.free = hp_stats(all.pool).free;
	nothing_has_changed();
}

/* The page layer's functions on what is malloc's. */
static void a_million_page_frees_of_slabs(void **state)
{
	(void)state;
	unsigned errors[200] = {0};
	for (unsigned n = 0; n < TIMES; n++) {
		uint64_t page = below(all.pool->capacity / PAGE);
		while (!atomic_load(&all.pool->map[page])) page = below(all.pool->capacity / PAGE);
		hp_pool *by = below(2) ? all.pool : all.again;
		void *at = by->base + page * PAGE;
		int error = n & 1 ? hp_page_free(by, at) : hp_page_free_at(by, page * PAGE);
		if (error != -ENOENT && error != -EALREADY) fail_msg("page %llu: %d", (unsigned long long)page, error);
		if (n % 4 == 0) must(hp_page_size(by, at) < 0);
		errors[-error]++;
		if (n % (TIMES / LOOKS) == 0) nothing_has_changed();
	}
	print_message("%u ENOENT, %u EALREADY\n", errors[ENOENT], errors[EALREADY]);
}

/* By a thread that has never used the pool, and by one that is at work in it. */
static void *wrong_ones(void *arg)
{
	uint64_t random = (uintptr_t)arg;
	void *mine = random & 1 ? hp_malloc(all.pool, 10) : NULL;
	for (unsigned n = 0; n < TIMES / 4; n++) {
		unsigned i = (unsigned)hp_below(&random, BLOCKS);
		must_be(hp_free(all.pool, all.block[i] + 1 + hp_below(&random, 15)), -EINVAL);
		must(!hp_realloc(all.pool, all.block[i] + 8, 5));
		must(hp_free(all.pool, all.block[i] + all.size[i] / 2 / 16 * 16 + (all.size[i] <= 32 ? 8 : 0)) < 0);
	}
	must_be(hp_free(all.pool, mine), 0);
	return NULL;
}

static void by_several_threads(void **state)
{
	(void)state;
	pthread_t thread[4];
	for (uintptr_t i = 0; i < 4; i++) must_be(pthread_create(&thread[i], NULL, wrong_ones, (void *)i), 0);
	for (unsigned i = 0; i < 4; i++) must_be(pthread_join(thread[i], NULL), 0);
	must_be(hp_count_slabs(all.pool).objects, all.objects);
	hp_purge(all.pool);
	all.live = hp_stats(all.pool).live_blocks; /* a thread that ended has given back its slab, or had none */
	all.free = hp_stats(all.pool).free;
	nothing_has_changed();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_million_inside_objects),
		cmocka_unit_test(a_million_unaligned),
		cmocka_unit_test(a_million_inside_runs_of_pages),
		cmocka_unit_test(a_million_pages_of_slabs),
		cmocka_unit_test(a_million_out_of_range),
		cmocka_unit_test(a_million_never_allocated),
		cmocka_unit_test(a_million_of_a_foreign_pool),
		cmocka_unit_test(a_million_page_frees_of_slabs),
		cmocka_unit_test(by_several_threads),
		cmocka_unit_test(a_million_doubles),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
