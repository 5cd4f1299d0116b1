/* Statistics, dump and checker, on pools that work and on pools that are damaged.
 *
 * Catches: numbers that do not add up; blocks that the dump leaves out; damage that the checker does not see, and, as
 * bad, findings on a pool that is only busy; and, since shared memory may hold anything, a crash, a hang or an access
 * outside of the pool when it holds rubbish. */
#include "hp_page.h"
#include "pool/participant.h"
#include "page/page.h"
#include <pthread.h>
#include <sched.h>

static void statistics_add_up(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	struct hp_pool_options options = hp_plain_options(2 * MIB);
	options.capacity = 6 * MIB;
	hp_pool *pool, *again;
	must_be(hp_pool_create(&options, &pool), 0);
	again = hp_attach_again(pool);
	void *block[200];
	uint64_t used = 0, live = 0, allocs = 0, frees = 0;
	memset(block, 0, sizeof block);
	for (unsigned round = 0; round < 3000; round++) {
		unsigned i = (unsigned)hp_below(&seed, 200);
		if (!block[i]) {
			if (hp_page_alloc(pool, (1 + hp_below(&seed, 20)) * PAGE, 0, &block[i]) == 0) {
				used += (uint64_t)hp_page_size(pool, block[i]);
				live++;
				allocs++;
			}
		} else {
			used -= (uint64_t)hp_page_size(pool, block[i]);
			must_be(hp_page_free_at(hp_below(&seed, 2) ? pool : again, hp_pool_offset(pool, block[i])), 0);
			block[i] = NULL;
			live--;
			frees++;
		}
		struct hp_pool_stats stats = hp_stats(pool), same = hp_stats(again);
		must_be(memcmp(&stats, &same, sizeof stats), 0);
		must_be(stats.free, stats.committed - used);
		must_be(stats.live_blocks, live);
		must_be(stats.allocs, allocs);
		/* a handle that owns nothing has no slot, and is not counted until it has one */
		must(stats.frees + stats.remote_frees <= frees);
		must(stats.largest <= stats.free);
		must_be(stats.capacity, 6 * MIB);
		must_be(stats.page_size, PAGE);
		must_be(stats.processes, 2);
		uint64_t committed = 0, node_free = 0;
		for (unsigned n = 0; n < stats.nodes; n++) {
			committed += stats.node[n].committed;
			node_free += stats.node[n].free;
			must(stats.node[n].free <= stats.node[n].committed);
			for (unsigned k = 0; k < n; k++) must(stats.node[k].node != stats.node[n].node);
		}
		must_be(committed, stats.committed);
		must_be(node_free, stats.free);
	}
	/* callers of earlier and later versions */
	struct hp_pool_stats *part = calloc(1, 2 * sizeof *part);
	part->struct_size = offsetof(struct hp_pool_stats, largest);
	must_be(hp_pool_stats(pool, part), 0);
	must_be(part->committed, hp_stats(pool).committed);
	must_be(part->largest, 0);
	must_be(part->struct_size, offsetof(struct hp_pool_stats, largest));
	must_be(hp_pool_stats(NULL, part), -EINVAL);
	must_be(hp_pool_stats(pool, NULL), -EINVAL);
	free(part);
	hp_pool_detach(again);
	hp_pool_detach(pool);
}

struct text {
	char *text;
	size_t length, stop_after;
};

static int keep_text(void *arg, const char *text, size_t length)
{
	struct text *kept = arg;
	kept->text = realloc(kept->text, kept->length + length + 1);
	memcpy(kept->text + kept->length, text, length);
	kept->length += length;
	kept->text[kept->length] = 0;
	return kept->stop_after && kept->length >= kept->stop_after ? 42 : 0;
}

static void the_dump_names_every_block(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(2 * MIB, 0);
	size_t pages[60], total = 0;
	void *block[60];
	for (unsigned i = 0; i < 60; i++) {
		pages[i] = i == 30 ? 150 : 1 + i % 5;
		total += pages[i];
		must_be(hp_page_alloc(pool, pages[i] * PAGE, i % 7 == 0 ? HP_PAGE_PROCESS : 0, &block[i]), 0);
	}
	for (unsigned i = 0; i < 60; i += 3) {
		must_be(hp_page_free(pool, block[i]), 0);
		total -= pages[i];
		block[i] = NULL;
	}
	struct text dump = {0};
	must_be(hp_pool_dump(pool, keep_text, &dump), 0);
	must(strstr(dump.text, hp_pool_name(pool)));
	char pid[32];
	snprintf(pid, sizeof pid, "pid %d", getpid());
	must(strstr(dump.text, pid));
	for (unsigned i = 0; i < 60; i++) {
		if (!block[i]) continue;
		char line[64];
		snprintf(line, sizeof line, "  0x%llx: %llu bytes\n", (unsigned long long)hp_pool_offset(pool, block[i]),
		         (unsigned long long)(pages[i] * PAGE));
		must(strstr(dump.text, line));
	}
	size_t lines = 0;
	for (char *at = dump.text; (at = strstr(at, "  0x")); at++) lines++;
	must_be(lines, 40);
	/* the reader may stop it anywhere */
	for (size_t stop = 1; stop < dump.length; stop += 37) {
		struct text part = {.stop_after = stop};
		must_be(hp_pool_dump(pool, keep_text, &part), 42);
		must(part.length <= dump.length);
		free(part.text);
	}
	must_be(hp_pool_dump(NULL, keep_text, &dump), -EINVAL);
	must_be(hp_pool_dump(pool, NULL, NULL), -EINVAL);
	must_be(hp_pool_check(NULL, NULL, NULL), -EINVAL);
	for (unsigned i = 0; i < 60; i++) must_be(hp_page_free(pool, block[i]), 0);
	hp_must_be_empty(pool);
	free(dump.text);
	hp_pool_detach(pool);
}

/* ---- damage, one word at a time ---- */

struct scene {
	hp_pool *pool, *other;
	struct pool_header *header;
	uint32_t cp;               /* pages of a chunk */
	uint32_t small, pair;      /* page numbers of blocks: 5 pages; two of 2 pages side by side */
	uint32_t single;           /* 1 page, in a chunk owned by us */
	uint32_t wide;             /* runs over 4 chunks */
	uint32_t own_process;      /* 3 pages of class PROCESS */
	uint32_t fresh;            /* a page that never was allocated */
	uint32_t us, they, nobody; /* slots: ours, the other handle's, one that was never used */
	uint32_t slot_gone;        /* used once, free now */
};

static unsigned findings;
static char last_finding[256];

static void count_finding(void *arg, const char *message)
{
	(void)arg;
	findings++;
	snprintf(last_finding, sizeof last_finding, "%s", message);
}

static uint32_t scene_alloc(hp_pool *pool, size_t pages, unsigned flags)
{
	void *block;
	must_be(hp_page_alloc(pool, pages * PAGE, flags, &block), 0);
	return (uint32_t)(hp_pool_offset(pool, block) / PAGE);
}

static void *take_a_slot(void *arg)
{
	void *block;
	must_be(hp_page_alloc(arg, PAGE, 0, &block), 0);
	must_be(hp_page_free(arg, block), 0);
	return NULL;
}

static struct scene scene_new(void)
{
	struct hp_pool_options options = hp_plain_options(4 * MIB);
	struct scene s = {0};
	pthread_t thread;
	int error;
	options.capacity = 8 * MIB;
	options.flags = HP_POOL_NO_AUTOGROW;
	must_be(hp_pool_create(&options, &s.pool), 0);
	s.other = hp_attach_again(s.pool);
	s.header = s.pool->header;
	s.cp = s.pool->chunk_pages;
	s.us = (uint32_t)(participant_get(s.pool, &error)->slot - s.pool->slots);
	s.they = (uint32_t)(participant_get(s.other, &error)->slot - s.other->slots);
	must_be(pthread_create(&thread, NULL, take_a_slot, s.pool), 0);
	pthread_join(thread, NULL);
	s.slot_gone = pool_slots_top(s.pool) - 1;
	s.nobody = pool_slots_top(s.pool) + 3;
	must(s.slot_gone != s.us && s.slot_gone != s.they);
	s.wide = scene_alloc(s.pool, 3 * s.cp + 5, 0);
	s.small = scene_alloc(s.pool, 5, 0);
	s.pair = scene_alloc(s.pool, 2, 0);
	must_be(scene_alloc(s.pool, 2, 0), s.pair + 2);
	s.single = scene_alloc(s.pool, 1, 0);
	s.own_process = scene_alloc(s.pool, 3, HP_PAGE_PROCESS);
	s.fresh = pool_top(s.pool) * s.cp;
	while (atomic_load(&s.pool->units[(s.fresh - 1) / s.cp].len[(s.fresh - 1) % s.cp])) s.fresh--;
	s.fresh--;
	must_be(hp_page_size_at(s.pool, s.fresh * PAGE), -ENOENT);
	hp_must_be_sound(s.pool);
	return s;
}

/* Writes one word of the control memory, expects a finding, puts the old one back, expects none. */
static unsigned damages;

#define damage(place, value) \
	do { \
		typeof(*(place)) *at_ = (place); \
		typeof(*(place)) old_ = *at_; \
		*at_ = (value); \
		must(*at_ != old_); \
		found_by_the_checker(&s, #place " := " #value); \
		*at_ = old_; \
		must_be(hp_pool_check(s.pool, hp_print_finding, NULL), 0); \
	} while (0)

static void found_by_the_checker(struct scene *s, const char *what)
{
	findings = 0;
	int found = hp_pool_check(s->pool, count_finding, NULL);
	if (found == 0) fprintf(stderr, "not found: %s\n", what);
	must(found > 0);
	must_be(found, (int)findings);
	must(last_finding[0] && !strchr(last_finding, '\n'));
	must(hp_pool_check(s->other, NULL, NULL) > 0); /* by anybody, and without a callback */
	/* and nobody falls over it */
	struct text dump = {0};
	must_be(hp_pool_dump(s->other, keep_text, &dump), 0);
	free(dump.text);
	hp_stats(s->other);
	damages++;
}

static _Atomic uint64_t *bit_word(struct scene *s, uint32_t page, bool r)
{
	struct parity_unit *unit = &s->pool->units[page / s->cp];
	return r ? &unit->r[page % s->cp / 64] : &unit->a[page % s->cp / 64];
}

static _Atomic uint16_t *len_word(struct scene *s, uint32_t page)
{
	return &s->pool->units[page / s->cp].len[page % s->cp];
}

#define flip(page, r) damage(bit_word(&s, page, r), *bit_word(&s, page, r) ^ parity_bit((page) % s.cp))

static void every_damaged_word_is_found(void **state)
{
	(void)state;
	struct scene s = scene_new();
	struct pool_geometry *g = &s.header->geometry;
	struct pool_chunk *chunks = s.pool->chunks;
	struct pool_slot *slots = s.pool->slots;
	struct pool_record *records = s.pool->records;
	uint32_t wide = s.wide / s.cp, single = s.single / s.cp, private = s.own_process / s.cp, top = pool_top(s.pool);
	uint32_t we = s.pool->record, they = s.other->record;
	damages = 0;

	/* the geometry: all that attachers believe */
	damage(&g->magic, 1);
	damage(&g->version, g->version + 1);
	damage(&g->page_granule, 8192);
	damage(&g->layout_hash, ~g->layout_hash);
	damage(&g->id[1], 0);
	damage(&g->capacity, g->capacity * 2);
	damage(&g->control_size, g->control_size + 4096);
	damage(&g->page_size, 2 * MIB);
	damage(&g->base, g->base + 4096);
	damage(&g->rung, g->rung - 1);
	damage(&g->flags, g->flags ^ HP_POOL_FENCED);
	damage(&g->chunk_pages, 512);
	damage(&g->chunks, g->chunks + 1);
	damage(&g->slots, UINT32_MAX);
	damage(&g->records, 0);
	damage(&g->units_at, 0);
	damage(&g->name[0], '/');
	damage(&g->checksum, g->checksum + 1);
	damage(&s.header->ready, 0);

	/* growth */
	damage(&s.header->growth_lock, UINT64_MAX);
	damage(&s.header->plan_phase, PLAN_TRIMMING);
	damage(&s.header->plan_phase, 77);
	damage(&s.header->committed_top, UINT32_MAX);
	damage(&s.header->committed_top, top - 1);
	damage(&s.header->committed_top, 0);
	if (s.header->committed_nodes) damage(&s.header->committed_nodes, 0);
	damage(&s.header->quarantined, 4096);
	damage(&s.header->slots_top, UINT32_MAX);
	damage(&s.header->slots_top, 0);

	/* process records */
	damage(&records[we].word, 7);
	damage(&records[we].word, record_make(RECORD_FREE, s.pool->record_generation, 0, 0));
	damage(&records[they].word, record_make(RECORD_LIVE, s.other->record_generation + 1, 0, 0));
	damage(&records[they].word, record_make(RECORD_RECOVERING, s.other->record_generation, 0x1fff, 0));
	damage(&records[(they + 7) % s.pool->record_count].word, UINT64_MAX);

	/* slots */
	damage(&slots[s.us].word, slots[s.us].word | 7);
	damage(&slots[s.us].word, slot_make(SLOT_FREE, slot_generation(slots[s.us].word), we, s.pool->record_generation));
	damage(&slots[s.us].word,
	       slot_make(SLOT_LIVE, slot_generation(slots[s.us].word) + 1, we, s.pool->record_generation));
	damage(&slots[s.they].word, slot_make(SLOT_LIVE, slot_generation(slots[s.they].word), 0x1fff, 0));
	damage(&slots[s.they].word,
	       slot_make(SLOT_LIVE, slot_generation(slots[s.they].word), they, s.other->record_generation + 5));
	damage(&slots[s.slot_gone].word, slot_make(SLOT_LIVE, 3, we, s.pool->record_generation + 1));
	damage(&slots[s.nobody].word, slot_make(SLOT_LIVE, 0, we, s.pool->record_generation));
	damage(&slots[s.they].taker, UINT64_MAX);
	damage(&slots[s.us].taker, (uint64_t)who_make(s.slot_gone, 0) << 32);
	damage(&slots[s.they].taker, (uint64_t)who_make(s.us, 999) << 32);
	damage(&slots[s.us].in_op, 2);
	damage(&slots[s.slot_gone].in_op, SLOT_IN_OP);

	/* chunks */
	damage(&chunks[single].ctl, chunks[single].ctl | 0xf);
	damage(&chunks[single].ctl, ctl_make(CTL_OWNED, 0xffff, 0, chunks[single].ctl));
	damage(&chunks[single].ctl, ctl_make(CTL_OWNED, 0, 0, chunks[single].ctl));
	damage(&chunks[single].ctl, ctl_make(CTL_OWNED, s.slot_gone + 1, 0, chunks[single].ctl));
	damage(&chunks[single].ctl, ctl_make(CTL_OWNED, s.us + 1, 77, chunks[single].ctl));
	damage(&chunks[single].ctl, ctl_make(CTL_RECOVERING, 0xffff, 0, chunks[single].ctl));
	damage(&chunks[single].ctl, ctl_make(CTL_RECOVERING, we + 1, s.pool->record_generation + 3, chunks[single].ctl));
	damage(&chunks[single].ctl, ctl_make(CTL_UNCOMMITTED, 0, 0, chunks[single].ctl));
	damage(&chunks[single].ctl, ctl_make(CTL_QUARANTINED, 0, 0, chunks[single].ctl));
	damage(&chunks[wide + 1].ctl, 0);
	damage(&chunks[top].ctl, ctl_make(CTL_UNOWNED, 0, 0, 0));
	damage(&chunks[s.pool->chunk_count - 1].ctl, ctl_make(CTL_OWNED, s.us + 1, 0, 0));
	damage(&chunks[wide + 1].cover, 0);
	damage(&chunks[wide + 2].cover, chunks[wide + 2].cover + 1);
	damage(&chunks[wide + 3].cover, UINT64_MAX);
	damage(&chunks[wide].span, 0);
	damage(&chunks[wide].span, s.cp - s.wide % s.cp);
	damage(&chunks[wide].span, UINT64_MAX);
	damage(&chunks[wide].span, chunks[wide].span + 4 * s.cp);
	damage(&chunks[private].tag, (uint64_t)0xffff << 32);
	damage(&chunks[private].tag, chunks[private].tag + 1);
	damage(&chunks[single].tag, (uint64_t)(they + 1) << 32 | (s.other->record_generation + 9));
	damage(&s.pool->nodes[single], 200);
	damage(&s.pool->hints[single], 33);

	/* bits: blocks inside blocks, blocks of no length */
	flip(s.small + 1, false);
	flip(s.small + 4, true);
	flip(s.pair + 1, false);
	flip(s.pair + 3, true);
	flip(s.wide + 1, false);
	flip(s.wide + s.cp, false);
	flip(s.wide + 2 * s.cp + 17, true);
	flip(s.wide + 3 * s.cp + 4, true);
	flip(s.fresh, false);
	flip(s.fresh, true);
	flip(s.own_process + 2, true);

	/* lengths */
	damage(len_word(&s, s.small), 0);
	damage(len_word(&s, s.pair), 3);
	damage(len_word(&s, s.pair), 4);
	damage(len_word(&s, s.single), s.cp + 1);
	damage(len_word(&s, s.single), PARITY_LEN_MASK);
	damage(len_word(&s, s.single), 1 | PARITY_LEN_SPANS);
	damage(len_word(&s, s.small), (s.cp - s.small % s.cp) | PARITY_LEN_SPANS);
	damage(len_word(&s, s.wide), 1 | PARITY_LEN_SPANS);

	print_message("%u single words damaged, each found\n", damages);
	must(damages >= 80);
	hp_must_be_sound(s.pool);
	hp_pool_detach(s.other);
	hp_pool_detach(s.pool);
}

/* ---- a pool at work is not damaged ---- */

struct busy {
	hp_pool *pool;
	_Atomic bool stop;
	_Atomic unsigned next;
	_Atomic uint64_t turns;
};

static void *work(void *arg)
{
	struct busy *busy = arg;
	unsigned me = atomic_fetch_add(&busy->next, 1);
	uint64_t seed = me;
	void *block[16] = {0};
	while (!atomic_load(&busy->stop)) {
		unsigned i = (unsigned)hp_below(&seed, 16);
		if (block[i]) must_be(hp_page_free(busy->pool, block[i]), 0);
		size_t pages = 1 + hp_below(&seed, hp_below(&seed, 10) ? 8 : 200);
		int error = hp_page_alloc(busy->pool, pages * PAGE, me % 2 ? HP_PAGE_PROCESS : 0, &block[i]);
		must(error == 0 || error == -ENOMEM);
		atomic_fetch_add(&busy->turns, 1);
	}
	for (unsigned i = 0; i < 16; i++) must_be(hp_page_free(busy->pool, block[i]), 0);
	return NULL;
}

static void a_busy_pool_has_no_findings(void **state)
{
	(void)state;
	enum { WORKERS = 4 };
	struct busy *busy = hp_shared(sizeof *busy);
	pthread_t thread[WORKERS];
	busy->pool = hp_plain_pool(4 * MIB, 0);
	hp_pool *other = hp_attach_again(busy->pool);
	int fds[3];
	hp_pool *observer;
	must_be(hp_pool_fds(busy->pool, fds), 0);
	must_be(hp_pool_observe(fds, &observer), 0);
	pid_t pid = hp_fork();
	if (pid == 0) {
		work(busy);
		_exit(0);
	}
	for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_create(&thread[i], NULL, work, busy), 0);
	while (atomic_load(&busy->turns) < 1000) sched_yield();
	unsigned checks = 0;
	for (; checks < (HP_TEST_SANITIZER ? 100 : 1500) || atomic_load(&busy->turns) < 20000; checks++) {
		hp_must_be_sound(checks % 3 == 0 ? observer : checks % 3 == 1 ? busy->pool : other);
		struct hp_pool_stats stats = hp_stats(observer);
		must(stats.free <= stats.committed && stats.largest <= stats.committed);
		if (checks % 50 == 0) {
			struct text dump = {0};
			must_be(hp_pool_dump(observer, keep_text, &dump), 0);
			free(dump.text);
		}
	}
	busy->stop = true;
	for (unsigned i = 0; i < WORKERS; i++) pthread_join(thread[i], NULL);
	must_be(hp_wait_for(pid), 0);
	hp_must_be_empty(other);
	print_message("%u checks, %llu operations meanwhile\n", checks, (unsigned long long)busy->turns);
	hp_pool_detach(observer);
	hp_pool_detach(other);
	hp_pool_detach(busy->pool);
	munmap(busy, sizeof *busy);
}

/* ---- shared memory may hold anything ---- */

struct siege {
	hp_pool *pool;
	uint64_t seed;
	_Atomic bool stop;
	_Atomic unsigned next;
};

/* Every answer is allowed, but it is an answer, and blocks lie inside the pool. */
static void turn_under_siege(hp_pool *pool, uint64_t *state)
{
	uint64_t seed = hp_random(state), capacity = hp_pool_capacity(pool);
	void *block = NULL;
	size_t pages = 1 + hp_below(&seed, hp_below(&seed, 10) ? 4 : 300);
	int error = hp_page_alloc(pool, pages * PAGE, hp_below(&seed, 4) ? 0 : HP_PAGE_PROCESS, &block);
	must(error <= 0 && error > -4096);
	if (error == 0) {
		hp_off off = hp_pool_offset(pool, block);
		must(off != HP_OFF_NONE && off % PAGE == 0 && pages * PAGE <= capacity - off);
	}
	hp_off off = hp_below(&seed, 2) && block ? hp_pool_offset(pool, block)
	                                         : hp_below(&seed, capacity / PAGE + 2) * PAGE;
	int64_t size = hp_page_size_at(pool, off);
	must(size < 0 || (size > 0 && (uint64_t)size <= capacity - off));
	if (!HP_TEST_SANITIZER && hp_below(&seed, 16) == 0) /* a block may have two owners here */
		hp_page_zero(pool, (char *)hp_pool_base(pool) + off, PAGE);
	hp_page_free_at(pool, off);
	if (hp_below(&seed, 300) == 0) hp_pool_check(pool, NULL, NULL);
	if (hp_below(&seed, 300) == 0) hp_stats(pool);
	if (hp_below(&seed, 300) == 0) {
		struct text dump = {0};
		hp_pool_dump(pool, keep_text, &dump);
		free(dump.text);
	}
	if (hp_below(&seed, 400) == 0) hp_pool_recover(pool);
	if (hp_below(&seed, 2000) == 0) hp_pool_trim(pool, hp_below(&seed, capacity));
	if (hp_below(&seed, 2000) == 0) hp_pool_grow(pool, 1 + hp_below(&seed, MIB), NULL, NULL);
}

static void *work_under_siege(void *arg)
{
	struct siege *siege = arg;
	uint64_t seed = siege->seed + atomic_fetch_add(&siege->next, 1) * 1000;
	while (!atomic_load(&siege->stop)) turn_under_siege(siege->pool, &seed);
	return NULL;
}

static uint64_t nasty(uint64_t *seed, const hp_pool *pool)
{
	switch (hp_below(seed, 9)) {
	case 0: return hp_random(seed);
	case 1: return UINT64_MAX;
	case 2: return 0;
	case 3: return hp_below(seed, 8);
	case 4: return UINT64_C(1) << hp_below(seed, 64);
	case 5: return hp_random(seed) & hp_random(seed) & hp_random(seed);
	case 6:
		return ctl_make((enum ctl_state)hp_below(seed, 5), (uint32_t)hp_below(seed, 5), (uint32_t)hp_below(seed, 3),
		                hp_random(seed));
	case 7: return hp_below(seed, pool->chunk_count + 1) << 32 | hp_below(seed, pool->chunk_pages + 1);
	default:
		return atomic_load_explicit((_Atomic uint64_t *)(void *)pool->control + hp_below(seed, pool->control_size / 8),
		                            memory_order_relaxed);
	}
}

static void attack(struct siege *siege, unsigned words, uint64_t *seed)
{
	hp_pool *pool = siege->pool;
	const struct {
		uint64_t at, end;
	} part[] = {
		{0, pool->geometry.records_at},
		{pool->geometry.records_at, pool->geometry.slots_at},
		{pool->geometry.slots_at, pool->geometry.slots_at + 16 * sizeof(struct pool_slot)},
		{pool->geometry.chunks_at, pool->geometry.chunks_at + pool->chunk_count * sizeof(struct pool_chunk)},
		{pool->geometry.hints_at, pool->geometry.units_at},
		{pool->geometry.units_at, pool->control_size},
		{pool->geometry.chunks_at, pool->geometry.chunks_at + pool->chunk_count * sizeof(struct pool_chunk)},
		{sizeof(struct pool_geometry), sizeof(struct pool_header)},
	};
	for (unsigned i = 0; i < words; i++) {
		unsigned p = (unsigned)hp_below(seed, sizeof part / sizeof *part);
		uint64_t at = (part[p].at + hp_below(seed, part[p].end - part[p].at)) & ~UINT64_C(7);
		atomic_store_explicit((_Atomic uint64_t *)(void *)(pool->control + at), nasty(seed, pool),
		                      memory_order_relaxed);
	}
}

static int siege_in_a_child(void *arg)
{
	enum { WORKERS = 2 };
	struct siege *siege = arg;
	uint64_t seed = siege->seed;
	pthread_t thread[WORKERS];
	alarm(HP_TEST_SANITIZER ? 240 : 60); /* a hang is a finding */
	struct hp_pool_options options = hp_plain_options(2 * MIB);
	options.capacity = 4 * MIB;
	must_be(hp_pool_create(&options, &siege->pool), 0);
	int fds[3];
	must_be(hp_pool_fds(siege->pool, fds), 0);
	for (unsigned i = 0; i < WORKERS; i++) must_be(pthread_create(&thread[i], NULL, work_under_siege, siege), 0);
	for (unsigned round = 0; round < 25; round++) {
		attack(siege, round % 4 ? 1 + (unsigned)hp_below(&seed, 20) : 400, &seed);
		/* few: with rubbish they may wait a second for a grower that never was, or for a recovery that nobody makes */
		for (unsigned k = 0; k < 10; k++) turn_under_siege(siege->pool, &seed);
		hp_pool *guest;
		if (round % 5 == 0 && hp_pool_attach(fds, NULL, &guest) == 0) {
			void *block;
			if (hp_page_alloc(guest, PAGE, 0, &block) == 0) hp_page_free(guest, block);
			hp_pool_detach(guest);
		}
		if (round % 5 == 1 && hp_pool_observe(fds, &guest) == 0) {
			hp_pool_check(guest, NULL, NULL);
			hp_pool_detach(guest);
		}
	}
	siege->stop = true;
	for (unsigned i = 0; i < WORKERS; i++) pthread_join(thread[i], NULL);
	hp_pool_detach(siege->pool);
	return 0;
}

static void rubbish_in_shared_memory_harms_nobody(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	for (unsigned round = 0; round < (HP_TEST_SANITIZER ? 5 : 40); round++) {
		struct siege *siege = hp_shared(sizeof *siege);
		siege->seed = seed + round;
		int status = hp_test_child(siege_in_a_child, siege);
		if (status)
			fprintf(stderr, "the child with seed %llu ended with %d\n", (unsigned long long)siege->seed, status);
		must_be(status, 0);
		munmap(siege, sizeof *siege);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(statistics_add_up),
		cmocka_unit_test(the_dump_names_every_block),
		cmocka_unit_test(every_damaged_word_is_found),
		cmocka_unit_test(a_busy_pool_has_no_findings),
		cmocka_unit_test(rubbish_in_shared_memory_harms_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
