/* Rubbish under caches, fifos, semaphores with their kin, and pins: in the pool's data and in its control file (hp_rubbish.h says
 * how; heap_hostile_test.c does the same for heaps, fuzz/ for pages and hp_malloc).
 *
 * Would catch a word of shared memory that is used as an index, an address or a count without being looked at, and a loop that
 * ends only when such a word lets it. */
#include "hp_cache.h"
#include "hp_rubbish.h"

#include <hugepool/fifo.h>
#include <hugepool/inspect.h>
#include <hugepool/sync.h>

#include "io/pin.h"

#define SEEDS (HP_TEST_SANITIZER ? 10 : 40)
#define CALLS 500
#define WAIT_NS 100000

static void quiet(void *arg, const char *line)
{
	(void)arg, (void)line;
}

static bool inside(const struct rubbish *r, const void *start, size_t bytes)
{
	hp_off off = (hp_off)((uintptr_t)start - (uintptr_t)r->pool->base);
	return off < RUBBISH_POOL && bytes <= RUBBISH_POOL - off;
}

/* What all of them do between. */
static void rubbish(struct rubbish *r, int call)
{
	if (call > 20 && rubbish_below(r, 3) == 0) rubbish_write(r);
	if (rubbish_below(r, 100) == 0) hp_pool_check(r->pool, quiet, NULL);
	if (rubbish_below(r, 100) == 0) hp_pool_recover(r->pool);
}

/* ---- caches ---- */

static int construct(void *arg, void *object, unsigned flags)
{
	(void)flags;
	must(inside(arg, object, 600));
	memset(object, 1, 600);
	return 0;
}

static void destroy(void *arg, void *object)
{
	must(inside(arg, object, 600));
	memset(object, 2, 600);
}

static void caches(struct rubbish *r)
{
	enum { MOST = 200 };
	struct hp_cache_options options[2] = {hp_cache_of(600, 0), hp_cache_of(3000, 0)};
	hp_cache *cache[2], *again;
	void *object[MOST], *many[8];
	unsigned objects = 0;
	options[0].ctor = construct;
	options[0].dtor = destroy;
	options[0].arg = r;
	for (unsigned c = 0; c < 2; c++) must_be(hp_cache_create(r->pool, c ? "b" : "a", &options[c], &cache[c]), 0);
	r->part = r->pool->caches;
	r->part_bytes = 4 * sizeof *r->pool->caches;
	for (int i = 0; i < CALLS; i++) {
		rubbish(r, i);
		unsigned c = (unsigned)rubbish_below(r, 2);
		size_t size = options[c].size;
		struct hp_cache_stats stats = {.struct_size = sizeof stats};
		switch (rubbish_below(r, 20)) {
		case 0: hp_cache_reclaim(cache[c]); break;
		case 1: hp_cache_invalidate(cache[c]); break;
		case 2: hp_cache_set_hard_limit(cache[c], rubbish_below(r, 2) ? 300 : SIZE_MAX, NULL, 0); break;
		case 3: hp_cache_set_high_watermark(cache[c], rubbish_below(r, 2) ? 10 : HP_CACHE_NO_MARK); break;
		case 4: hp_cache_prime(cache[c], rubbish_below(r, 50)); break;
		case 5: hp_cache_stats(cache[c], &stats); break;
		case 6:
			if (hp_cache_open(r->pool, c ? "b" : "a", &options[c], &again) == 0) hp_cache_close(again);
			break;
		case 7:
			if (hp_cache_get_bulk(cache[c], 0, 8, many) < 0) break;
			for (unsigned k = 0; k < 8; k++) {
				must(inside(r, many[k], size));
				memset(many[k], 3, size);
			}
			hp_cache_put_bulk(cache[c], 8, many);
			break;
		case 8:
			if (!(many[0] = hp_cache_get_array(cache[1], 0, 3))) break;
			must(inside(r, many[0], 3 * options[1].size));
			hp_cache_put_array(cache[1], many[0], 3);
			break;
		case 9: hp_cache_get_timed(cache[c], HP_CACHE_WAIT, WAIT_NS); break;
		case 10:
		case 11:
		case 12:
		case 13:
		case 14:
			if (objects == MOST || !(object[objects] = hp_cache_get(cache[c], 0))) break;
			must(inside(r, object[objects], size));
			memset(object[objects], 4, size);
			rubbish_know(r, (uint64_t)((char *)object[objects++] - r->pool->base));
			break;
		case 15: hp_cache_put(cache[c], r->pool->base + rubbish_below(r, RUBBISH_POOL)); break;
		default:
			if (objects) hp_cache_put(cache[rubbish_below(r, 2)], object[--objects]);
		}
	}
	for (unsigned c = 0; c < 2; c++) hp_cache_destroy(cache[c]);
}

/* ---- fifos ---- */

static void fifos(struct rubbish *r)
{
	uint64_t element[64];
	unsigned kind = (unsigned)rubbish_below(r, 4);
	struct hp_fifo_options options = {.struct_size = sizeof options, .capacity = 32, .handles = 4, .flags = kind};
	hp_fifo *fifo[3] = {NULL};
	if (hp_fifo_create(r->pool, &options, &fifo[0]) < 0) return;
	hp_off id = hp_fifo_id(fifo[0]);
	for (int i = 0; i < 32; i++) rubbish_know(r, id + rubbish_below(r, 4) * 512);
	for (int i = 0; i < CALLS; i++) {
		rubbish(r, i);
		unsigned k = (unsigned)rubbish_below(r, 3);
		size_t n = rubbish_below(r, 40);
		if (!fifo[k] && hp_fifo_open(r->pool, id, &fifo[k]) < 0) {
			fifo[k] = NULL;
			continue;
		}
		for (unsigned e = 0; e < 64; e++) element[e] = e;
		switch (rubbish_below(r, 14)) {
		case 0:
			hp_fifo_close(fifo[k]);
			fifo[k] = NULL;
			break;
		case 1: hp_fifo_count(fifo[k]); break;
		case 2: hp_fifo_room(fifo[k]); break;
		case 3: hp_fifo_pop(fifo[k], element); break;
		case 4: hp_fifo_pop_bulk(fifo[k], element, n); break;
		case 5: hp_fifo_pop_burst(fifo[k], element, n); break;
		case 6: hp_fifo_peek(fifo[k], element, n); break;
		case 7: must(hp_fifo_take(fifo[k], element, n) <= (int64_t)n); break;
		case 8: hp_fifo_ack(fifo[k], n); break;
		case 9: hp_fifo_nack(fifo[k]); break;
		case 10: must(hp_fifo_pop_timed(fifo[k], element, n, WAIT_NS) <= (int64_t)n); break;
		case 11: hp_fifo_push_timed(fifo[k], element, n, WAIT_NS); break;
		case 12: hp_fifo_push(fifo[k], element); break;
		default: hp_fifo_push_burst(fifo[k], element, n);
		}
	}
	for (unsigned k = 0; k < 3; k++)
		if (fifo[k] && hp_fifo_destroy(fifo[k], HP_FIFO_DISCARD) < 0) hp_fifo_close(fifo[k]);
}

/* ---- semaphores, mutexes, conditions ---- */

static void synchronisation(struct rubbish *r)
{
	static const char *const names[] = {"a", "b", "c", "d"};
	hp_container container, other;
	hp_mutex mutex;
	hp_sem sem;
	hp_cond cond;
	char name[HP_SYNC_NAME_MAX + 1];
	uint32_t cursor = 0;
	if (hp_container_create(r->pool, 8, 4, &container) < 0) return;
	hp_off id = hp_container_id(&container);
	for (int i = 0; i < 4; i++) rubbish_know(r, id + rubbish_below(r, 2) * 512);
	for (int i = 0; i < CALLS; i++) {
		rubbish(r, i);
		const char *of = names[rubbish_below(r, 4)];
		switch (rubbish_below(r, 5)) {
		case 0:
			if (hp_mutex_open(&container, of, rubbish_below(r, 2) ? HP_MUTEX_RECURSIVE : 0, &mutex) < 0) break;
			if (hp_mutex_lock_timed(&mutex, WAIT_NS) == -EOWNERDEAD) hp_mutex_consistent(&mutex);
			if (hp_cond_open(&container, "e", 0, &cond) == 0) {
				hp_cond_wait_timed(&cond, &mutex, WAIT_NS);
				hp_cond_signal(&cond);
				hp_cond_broadcast(&cond);
			}
			if (rubbish_below(r, 4)) hp_mutex_unlock(&mutex);
			break;
		case 1:
			if (hp_sem_open(&container, of, rubbish_below(r, 2) ? HP_SEM_UNDO : 0, 3, &sem) < 0) break;
			hp_sem_wait_timed(&sem, WAIT_NS);
			hp_sem_value(&sem);
			if (rubbish_below(r, 4)) hp_sem_post(&sem);
			break;
		case 2: hp_container_unlink(&container, of); break;
		case 3:
			if (hp_container_next(&container, &cursor, name) <= 0) cursor = 0;
			break;
		default:
			if (hp_container_open(r->pool, id, &other) == 0) container = other;
			if (hp_container_default(r->pool, &other) == 0) hp_mutex_open(&other, of, 0, &mutex);
		}
	}
	hp_container_destroy(&container);
}

/* ---- pins ---- */

static void pins(struct rubbish *r)
{
	enum { PINS = 16 };
	struct pin_table *table;
	void *block[PINS] = {0};
	bool pinned[PINS] = {0};
	hp_off off;
	int life;
	hp_cache *cache = hp_cache_make(r->pool, "owned", 500, 0);
	if (pin_open(r->pool, PINS, &table, &life) < 0) return;
	for (uint32_t i = 0; i < 16; i++) rubbish_know(r, (r->pool->rings[0].table - 1) * PAGE);
	r->part = r->pool->rings;
	r->part_bytes = 4 * sizeof *r->pool->rings;
	for (int i = 0; i < CALLS; i++) {
		rubbish(r, i);
		uint32_t k = (uint32_t)rubbish_below(r, PINS);
		switch (rubbish_below(r, 6)) {
		case 0:
		case 1:
			if (block[k] || !(block[k] = hp_malloc(r->pool, 1 + rubbish_below(r, 9000)))) break;
			must(inside(r, block[k], 1));
			rubbish_know(r, (uint64_t)((char *)block[k] - r->pool->base));
			break;
		case 2:
			if (block[k]) hp_free(r->pool, block[k]);
			block[k] = NULL;
			break;
		case 3:
			if (!pinned[k] && pin_add(table, k, rubbish_known(r), 1 + rubbish_below(r, 100)) == 0) pinned[k] = true;
			break;
		case 4:
			if (pinned[k]) pin_drop(table, k);
			pinned[k] = false;
			break;
		default:
			if (pinned[k] || pin_get(table, k, cache, &off) < 0) break;
			must(off < RUBBISH_POOL);
			pin_put(table, k);
		}
	}
	close(life);
	pin_close(table);
	hp_pool_recover(r->pool);
}

#define IN_BOTH(work) \
	static void work##_in_data(void **state) \
	{ \
		(void)state; \
		rubbish_does_no_harm(work, SEEDS, false); \
	} \
	static void work##_in_control(void **state) \
	{ \
		(void)state; \
		rubbish_does_no_harm(work, SEEDS, true); \
	}
IN_BOTH(caches)
IN_BOTH(fifos)
IN_BOTH(synchronisation)
IN_BOTH(pins)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(caches_in_data),
		cmocka_unit_test(caches_in_control),
		cmocka_unit_test(fifos_in_data),
		cmocka_unit_test(fifos_in_control),
		cmocka_unit_test(synchronisation_in_data),
		cmocka_unit_test(synchronisation_in_control),
		cmocka_unit_test(pins_in_data),
		cmocka_unit_test(pins_in_control),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
