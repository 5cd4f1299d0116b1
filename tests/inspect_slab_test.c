/* What the checker, the statistics and the dump know of slabs: each way in which one can be wrong is a finding, and none
 * that is right. */
#include "hp_page.h"
#include "slab/slab.h"
#include <hugepool/malloc.h>

#define OBJECTS 20

struct scene {
	hp_pool *pool;
	void *object[OBJECTS];
	struct slab *slab; /* of object 0 */
	uint64_t page;
};

static int setup(void **state)
{
	struct scene *s = test_calloc(1, sizeof *s);
	struct hp_pool_options options = hp_plain_options(4 * MIB);
	assert_int_equal(hp_pool_create(&options, &s->pool), 0);
	for (int i = 0; i < OBJECTS; i++) assert_non_null(s->object[i] = hp_malloc(s->pool, 1000));
	unsigned index, class;
	assert_int_equal(slab_find(s->pool, hp_pool_offset(s->pool, s->object[0]), &s->slab, &index, &class), SLAB_OBJECT);
	s->page = (uint64_t)(s->slab - s->pool->slabs);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct scene *s = *state;
	hp_pool_detach(s->pool);
	test_free(s);
	return 0;
}

static void keep_line(void *arg, const char *line)
{
	snprintf(arg, 256, "%s", line);
}

static void assert_found(struct scene *s, const char *text)
{
	char line[256] = "";
	assert_int_equal(hp_pool_check(s->pool, keep_line, line), 1);
	if (!strstr(line, text)) fail_msg("'%s' is not in the finding: %s", text, line);
}

static void assert_sound(struct scene *s)
{
	assert_int_equal(hp_pool_check(s->pool, NULL, NULL), 0);
}

static void an_owner_that_is_gone_is_found(void **state)
{
	struct scene *s = *state;
	uint64_t right = atomic_load(&s->slab->ctl);
	assert_sound(s);
	atomic_store(&s->slab->ctl, ctl_make(CTL_OWNED, 7, 3, right));
	assert_found(s, "lost, its owner slot 6 generation 3 is gone");
	atomic_store(&s->slab->ctl, ctl_make(CTL_UNOWNED, 0, 0, right));
	assert_sound(s);
	atomic_store(&s->slab->ctl, right);
}

static void what_a_record_has_in_hand_is_found_when_the_record_is_gone(void **state)
{
	struct scene *s = *state;
	uint64_t right = atomic_load(&s->slab->ctl);
	uint32_t record = s->pool->record, generation = s->pool->record_generation;
	atomic_store(&s->slab->ctl, ctl_make(CTL_RECOVERING, (record + 1) | 0x8000, generation, right));
	assert_sound(s); /* in motion */
	atomic_store(&s->pool->map[s->page], 0);
	assert_sound(s);
	atomic_store(&s->slab->ctl, ctl_make(CTL_RECOVERING, (record + 1) | 0x8000, generation + 1, right));
	assert_found(s, "half made or half ended by a process that is gone");
	atomic_store(&s->slab->ctl, ctl_make(CTL_RECOVERING, record + 1, generation, right)); /* says a slot's number */
	assert_found(s, "half made or half ended by a process that is gone");
	atomic_store(&s->slab->ctl, 0);
	assert_found(s, "in no known state");
	atomic_store(&s->slab->ctl, right);
}

static void a_map_that_says_something_else_is_found(void **state)
{
	struct scene *s = *state;
	pool_map *map = &s->pool->map[s->page];
	uint64_t right = atomic_load(map);
	const uint64_t wrong[] = {0, right ^ 1, right ^ 1u << 9, right ^ 1u << 20, right ^ UINT64_C(1) << 40};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		atomic_store(map, wrong[i]);
		assert_found(s, "the map says something else of its page 0");
	}
	atomic_store(map, right);
	assert_sound(s);
	atomic_store(&s->pool->map[500], right);
	assert_found(s, "page 500: the map says that a slab is there");
	atomic_store(&s->pool->map[500], 0);
}

static void objects_that_cannot_be_are_found(void **state)
{
	struct scene *s = *state;
	uint16_t objects = atomic_load(&s->slab->objects);
	uint8_t class = atomic_load(&s->slab->class);
	atomic_fetch_xor(&s->slab->r[SLAB_WORDS - 1], UINT64_C(1) << 63);
	assert_found(s, "a live object behind its last one");
	atomic_fetch_xor(&s->slab->r[SLAB_WORDS - 1], UINT64_C(1) << 63);
	atomic_store(&s->slab->objects, 300);
	assert_found(s, "not cut as its class");
	atomic_store(&s->slab->objects, objects);
	atomic_store(&s->slab->class, 0);
	assert_found(s, "slab at page");
	atomic_store(&s->slab->class, class);
	assert_sound(s);
}

static void numbers_are_those_of_the_objects(void **state)
{
	struct scene *s = *state;
	struct hp_pool_stats stats = hp_stats(s->pool);
	struct hp_class_stats class[4];
	assert_int_equal(stats.objects, OBJECTS);
	assert_int_equal(stats.object_bytes, OBJECTS * 1024);
	assert_int_equal(stats.live_blocks, 0);
	assert_int_equal(stats.free + stats.slab_bytes, stats.committed);
	void *other = hp_malloc(s->pool, 16), *large = hp_malloc(s->pool, 100000);
	assert_int_equal(hp_pool_class_stats(s->pool, NULL, 0), 2);
	assert_int_equal(hp_pool_class_stats(s->pool, class, 4), 2);
	assert_int_equal(class[0].size, 16);
	assert_int_equal(class[0].live, 1);
	assert_int_equal(class[1].size, 1024);
	assert_int_equal(class[1].live, OBJECTS);
	assert_true(class[1].objects >= OBJECTS && class[1].bytes >= class[1].objects * 1024);
	assert_int_equal(class[0].cache | class[1].cache, 0);
	assert_int_equal(class[0].bytes + class[1].bytes, hp_stats(s->pool).slab_bytes);
	assert_int_equal(hp_stats(s->pool).live_blocks, 1);
	assert_int_equal(hp_pool_class_stats(NULL, class, 4), -EINVAL);
	hp_free(s->pool, other);
	hp_free(s->pool, large);
}

static int keep_text(void *arg, const char *text, size_t length)
{
	char *all = arg;
	size_t at = strlen(all);
	if (at + length < 16384) memcpy(all + at, text, length);
	return 0;
}

static void the_dump_tells_of_slabs(void **state)
{
	struct scene *s = *state;
	static char text[16384];
	memset(text, 0, sizeof text);
	assert_int_equal(hp_pool_dump(s->pool, keep_text, text), 0);
	assert_non_null(strstr(text, "malloc's objects of 1024 bytes: "));
	assert_non_null(strstr(text, "slab of malloc, "));
	assert_non_null(strstr(text, "owned by slot 0"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_owner_that_is_gone_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_record_has_in_hand_is_found_when_the_record_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(a_map_that_says_something_else_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(objects_that_cannot_be_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(numbers_are_those_of_the_objects, setup, teardown),
		cmocka_unit_test_setup_teardown(the_dump_tells_of_slabs, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
