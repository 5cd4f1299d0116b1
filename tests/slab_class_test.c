/* Classes and how slabs are cut: pure arithmetic, tried for every size, colour, page and offset there is.
 *
 * Would catch a size that is put into too small a class, a reciprocal that is off by one for some offset (an address in
 * the middle of an object taken for a start, or a start refused), objects that reach over the end of their run, a colour
 * that breaks an alignment. */
#include "hp_malloc.h"

static struct slab_class class[SLAB_CLASSES];

static int set_up(void **state)
{
	(void)state;
	hp_pool fake = {.classes = class};
	slab_classes_init(&fake);
	return 0;
}

static void every_size_goes_to_the_smallest_class_that_holds_it(void **state)
{
	(void)state;
	unsigned smallest = 0;
	for (unsigned c = 1; c < SLAB_MALLOC_CLASSES; c++) assert_true(class[c].size > class[c - 1].size);
	assert_int_equal(class[SLAB_MALLOC_CLASSES - 1].size, SLAB_MALLOC_MAX);
	for (size_t size = 0; size <= SLAB_MALLOC_MAX; size++) {
		while (class[smallest].size < size) smallest++;
		if (slab_malloc_class(size) != smallest)
			fail_msg("%zu bytes: class %u, not %u", size, slab_malloc_class(size), smallest);
		assert_int_equal(slab_malloc_size(smallest), class[smallest].size);
	}
}

static void under_an_eighth_is_wasted(void **state)
{
	(void)state;
	double worst = 0;
	for (size_t size = 1; size <= SLAB_MALLOC_MAX; size++) {
		size_t room = class[slab_malloc_class(size)].size, waste = room - size;
		assert_int_equal(room % 16, 0);
		if (size <= 128)
			assert_true(waste < 16);
		else
			assert_true(waste * 8 < room);
		if (size > 128 && (double)waste / (double)room > worst) worst = (double)waste / (double)room;
	}
	print_message("at most %.2f %% of a block of more than 128 bytes\n", 100 * worst);
}

static void objects_fit_into_their_run(void **state)
{
	(void)state;
	double worst = 0;
	for (unsigned c = 0; c < SLAB_MALLOC_CLASSES; c++) {
		const struct slab_class *k = &class[c];
		uint32_t run = k->pages * HP_PAGE_SIZE;
		assert_in_range(k->pages, 1, SLAB_PAGES);
		assert_in_range(k->objects, 1, SLAB_OBJECTS);
		assert_true(k->colours >= 1 && k->step >= 1);
		uint32_t first = (k->colours - 1u) * k->step;
		assert_true(first <= UINT16_MAX);
		assert_true(first + k->objects * k->size <= run);
		double slack = (double)(run - k->objects * k->size) / run;
		if (slack > worst) worst = slack;
	}
	print_message("at most %.2f %% of a slab is no object\n", 100 * worst);
	assert_true(worst < 0.125);
}

static void colours_keep_the_alignment_of_the_size(void **state)
{
	(void)state;
	for (unsigned c = 0; c < SLAB_MALLOC_CLASSES; c++) {
		uint32_t align = class[c].size & (~class[c].size + 1);
		for (unsigned colour = 0; colour < class[c].colours; colour++) {
			uint32_t first = colour * class[c].step;
			assert_int_equal(first % (align < HP_PAGE_SIZE ? align : HP_PAGE_SIZE), 0);
		}
	}
}

/* What slab_find must say of an offset in a slab of that class whose object 0 lies at `first`. */
static void look_everywhere(hp_pool *pool, uint64_t page, unsigned c, uint32_t first, unsigned pages, unsigned objects)
{
	const struct slab_class *k = &class[c];
	for (uint32_t off = 0; off < pages * HP_PAGE_SIZE; off++) {
		struct slab *slab = NULL;
		unsigned index = UINT32_MAX, found_class = UINT32_MAX;
		enum slab_found found = slab_find(pool, page * HP_PAGE_SIZE + off, &slab, &index, &found_class);
		bool begins = off >= first && (off - first) % k->size == 0;
		uint32_t object = (off - first) / k->size;
		/* what is left over behind the last object is less than one: its start may be taken for one that never lives */
		if (begins && object == objects && found == SLAB_OBJECT && index == object) continue;
		if (found != (begins && object < objects ? SLAB_OBJECT : SLAB_WRONG))
			fail_msg("class %u, object 0 at %u, offset %u: %d", c, first, off, found);
		if (found != SLAB_OBJECT) continue;
		if (slab != &pool->slabs[page] || index != object || found_class != c)
			fail_msg("class %u, object 0 at %u, offset %u: object %u of class %u", c, first, off, index, found_class);
	}
}

static void every_offset_of_every_slab_is_found_out(void **state)
{
	(void)state;
	enum { PLACE = 7 };
	static pool_map map[PLACE + SLAB_PAGES + 1];
	static struct slab slabs[PLACE + SLAB_PAGES + 1];
	hp_pool pool = {.map = map, .slabs = slabs, .classes = class};
	unsigned long cut = 0;
	for (unsigned c = 0; c < SLAB_MALLOC_CLASSES; c++)
		for (unsigned colour = 0; colour < class[c].colours; colour++, cut++) {
			int first = (int)(colour * class[c].step);
			memset(map, 0, sizeof map);
			for (unsigned i = 0; i < class[c].pages; i++)
				atomic_store(&map[PLACE + i],
				             map_make(class[c].reciprocal, ((int)(i * HP_PAGE_SIZE) - first) / 16, c, i));
			look_everywhere(&pool, PLACE, c, (uint32_t)first, class[c].pages, class[c].objects);
			/* the neighbours are no slab's */
			struct slab *slab;
			unsigned index, other;
			assert_int_equal(slab_find(&pool, PLACE * PAGE - 16, &slab, &index, &other), SLAB_NONE);
			assert_int_equal(slab_find(&pool, (PLACE + class[c].pages) * PAGE, &slab, &index, &other), SLAB_NONE);
		}
	print_message("%lu slabs, cut in every way there is\n", cut);
}

/* The same for slabs as they are really made, and what malloc says of every address in them. */
static void every_offset_of_slabs_in_use(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(8 * MIB, 0);
	for (unsigned c = 0; c < SLAB_MALLOC_CLASSES; c++) {
		enum { SLABS = 3 };
		unsigned count = SLABS * class[c].objects, colours = 0;
		void **block = calloc(count, sizeof *block);
		uint32_t last = UINT32_MAX;
		for (unsigned i = 0; i < count; i++) assert_non_null(block[i] = hp_malloc(pool, class[c].size));
		for (uint64_t page = 0; page < pool->capacity / PAGE; page++) {
			if ((atomic_load(&pool->map[page]) & 0xffff) != (c << 8 | 1)) continue;
			struct slab *slab = &pool->slabs[page];
			uint32_t first = atomic_load(&slab->first);
			/* a thread's first slabs of a class are smaller */
			unsigned objects = atomic_load(&slab->objects), pages = 1;
			while ((atomic_load(&pool->map[page + pages]) & 0xffff) == (c << 8 | (pages + 1))) pages++;
			assert_in_range(objects, 1, class[c].objects);
			assert_in_range(pages, 1, class[c].pages);
			assert_true(first + objects * class[c].size <= pages * HP_PAGE_SIZE);
			look_everywhere(pool, page, c, first, pages, objects);
			char *base = pool->base + page * PAGE;
			for (uint32_t off = 0; off < pages * HP_PAGE_SIZE; off++) {
				if (hp_usable_size(pool, base + off) == 0 && off >= first && (off - first) % class[c].size == 0 &&
				    (off - first) / class[c].size < objects)
					continue; /* free */
				bool begins = off >= first && (off - first) % class[c].size == 0 &&
				              (off - first) / class[c].size < objects;
				if (hp_usable_size(pool, base + off) != (begins ? class[c].size : 0))
					fail_msg("class %u, offset %u: %zu usable", c, off, hp_usable_size(pool, base + off));
				if (begins) continue;
				int error = hp_free(pool, base + off);
				if (error != -EINVAL) fail_msg("class %u, offset %u: free says %d", c, off, error);
			}
			colours += first != last;
			last = first;
		}
		assert_true(colours > 0);
		for (unsigned i = 0; i < count; i++) assert_int_equal(hp_free(pool, block[i]), 0);
		free(block);
		hp_purge(pool);
	}
	hp_must_be_empty(pool);
	assert_int_equal(hp_pool_detach(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_size_goes_to_the_smallest_class_that_holds_it),
		cmocka_unit_test(under_an_eighth_is_wasted),
		cmocka_unit_test(objects_fit_into_their_run),
		cmocka_unit_test(colours_keep_the_alignment_of_the_size),
		cmocka_unit_test(every_offset_of_every_slab_is_found_out),
		cmocka_unit_test(every_offset_of_slabs_in_use),
	};
	return cmocka_run_group_tests(tests, set_up, NULL);
}
