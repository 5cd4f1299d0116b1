/* libFuzzer: streams of malloc, free, realloc and their kin on two handles of one pool.
 *
 * Built by `ninja fuzz` (needs clang), run by hand: build/tests/malloc_fuzz -max_total_time=600; malloc_fuzz_test runs it
 * on random streams. The first byte of an input chooses what it is:
 *   calls     against a model of all blocks and their contents; every answer has to be a right one
 *   damage    the same calls while the input overwrites words of the control memory; nothing may crash or hang, nor may
 *             a block lie outside of the pool's data */
#include "pool/pool.h"
#include <hugepool/hugepool.h>
#include <hugepool/malloc.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE ((size_t)HP_PAGE_SIZE)
#define PAGES 512u
#define BLOCKS 256u

#define must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

struct input {
	const uint8_t *at, *end;
};

static unsigned byte(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static uint64_t number(struct input *in, unsigned bytes)
{
	uint64_t n = 0;
	while (bytes--) n = n << 8 | byte(in);
	return n;
}

struct block {
	hp_off off;
	size_t size; /* usable; 0: none */
	uint8_t stamp;
};

struct play {
	hp_pool *pool[2];
	struct block block[BLOCKS];
	unsigned live;
	uint8_t stamps;
	bool damage;
};

static void fill(struct play *p, unsigned who, struct block *b)
{
	b->stamp = ++p->stamps;
	memset(hp_pool_pointer(p->pool[who], b->off), b->stamp, b->size);
}

static void must_be_whole(struct play *p, unsigned who, const struct block *b, size_t size)
{
	const uint8_t *at = hp_pool_pointer(p->pool[who], b->off);
	for (size_t i = 0; i < size; i++) must(at[i] == b->stamp);
}

static bool inside(struct play *p, unsigned who, const void *at, size_t size)
{
	hp_off off = hp_pool_offset(p->pool[who], at);
	return off != HP_OFF_NONE && size <= PAGES * PAGE && off <= PAGES * PAGE - size;
}

/* A block that somebody has just got. */
static void add(struct play *p, unsigned who, void *at, size_t size, size_t align, unsigned place)
{
	if (!at) {
		must(errno == ENOMEM || p->damage);
		return;
	}
	/* in damaged control memory a slab may say that its objects lie anywhere, but not outside */
	must(inside(p, who, at, p->damage ? 1 : size));
	if (p->damage) return;
	struct block b = {.off = hp_pool_offset(p->pool[who], at), .size = hp_usable_size(p->pool[who], at)};
	must(b.size >= size && inside(p, who, at, b.size));
	must((uintptr_t)at % align == 0 && (uintptr_t)at % 16 == 0);
	for (unsigned i = 0; i < BLOCKS; i++) {
		struct block *o = &p->block[i];
		must(!o->size || o->off + o->size <= b.off || b.off + b.size <= o->off);
	}
	fill(p, who, &b);
	if (p->block[place].size) {
		must(hp_free(p->pool[who], at) == 0);
		return;
	}
	p->block[place] = b;
	p->live++;
}

static size_t any_size(struct input *in)
{
	unsigned k = byte(in);
	switch (k >> 5) {
	case 0: return k & 31;
	case 1:
	case 2:
	case 3: return (size_t)k * 8;
	case 4:
	case 5: return (size_t)(k & 63) * 100;
	case 6: return (size_t)(k & 31) * 1100;
	default: return (size_t)(k & 31) * 9000;
	}
}

static void free_one(struct play *p, unsigned who, struct block *b)
{
	void *at = hp_pool_pointer(p->pool[who], b->off);
	must_be_whole(p, who, b, b->size);
	must(hp_usable_size(p->pool[who], at) == b->size);
	must(hp_free(p->pool[who], at) == 0);
	b->size = 0;
	p->live--;
}

static void resize(struct play *p, unsigned who, struct block *b, size_t size)
{
	void *at = hp_realloc(p->pool[who], hp_pool_pointer(p->pool[who], b->off), size);
	if (!at) {
		must(errno == ENOMEM && size > b->size);
		must_be_whole(p, who, b, b->size);
		return;
	}
	struct block moved = {hp_pool_offset(p->pool[who], at), hp_usable_size(p->pool[who], at), b->stamp};
	must(moved.size >= size && inside(p, who, at, moved.size));
	must_be_whole(p, who, &moved, size < b->size ? size : b->size);
	*b = moved;
	fill(p, who, b);
}

static void free_anything(struct play *p, unsigned who, hp_off off)
{
	void *at = (char *)hp_pool_base(p->pool[who]) + off;
	size_t size = hp_usable_size(p->pool[who], at);
	if (p->damage) {
		hp_free(p->pool[who], at);
		return;
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		if (p->block[i].size && p->block[i].off == off) {
			must(size == p->block[i].size);
			free_one(p, who, &p->block[i]);
			return;
		}
	must(size == 0);
	must(hp_free(p->pool[who], at) < 0);
	must(hp_page_free(p->pool[who], at) < 0);
	must(!hp_realloc(p->pool[who], at, 10) && errno == EINVAL);
}

static void damage_word(struct play *p, struct input *in, unsigned op)
{
	hp_pool *pool = p->pool[0];
	uint64_t at = number(in, 3) * 8 % pool->control_size;
	/* mostly where slabs are described */
	if (op & 16) at = (uint64_t)((char *)pool->slabs - pool->control) + at % (PAGES * sizeof(struct slab));
	if (op & 32) at = (uint64_t)((char *)pool->map - pool->control) + at % (PAGES * sizeof(uint64_t));
	atomic_store((_Atomic uint64_t *)(void *)(pool->control + at / 8 * 8), number(in, op & 8 ? 8 : 1));
}

static void play(struct input *in, bool damage)
{
	struct hp_pool_options options = {.struct_size = sizeof options,
	                                  .size = PAGES * PAGE,
	                                  .choice = HP_CHOICE_REQUIRE,
	                                  .rung = HP_RUNG_4K,
	                                  .max_threads = 8,
	                                  .max_processes = 4};
	struct play *p = calloc(1, sizeof *p);
	int fds[3];
	must(hp_pool_create(&options, &p->pool[0]) == 0);
	hp_pool_fds(p->pool[0], fds);
	must(hp_pool_attach(fds, NULL, &p->pool[1]) == 0);
	p->damage = damage;
	while (in->at < in->end) {
		unsigned op = byte(in), who = op >> 7, k = byte(in);
		hp_pool *pool = p->pool[who];
		struct block *b = &p->block[k];
		switch (op & 7) {
		case 0:
		case 1: {
			size_t size = any_size(in);
			add(p, who, op & 8 ? hp_malloc(pool, size) : hp_calloc(pool, 1, size), size, 16, k);
			break;
		}
		case 2: {
			size_t size = any_size(in), align = (size_t)1 << ((op >> 3 & 15) % 14);
			add(p, who, hp_aligned_alloc(pool, align, size), size, align, k);
			break;
		}
		case 3:
			if (damage)
				free_anything(p, who, number(in, 3) % (PAGES * PAGE));
			else if (b->size)
				free_one(p, who, b);
			break;
		case 4: {
			size_t size = any_size(in);
			if (damage) {
				void *at = hp_realloc(pool, (char *)hp_pool_base(pool) + number(in, 3) % (PAGES * PAGE), size);
				must(!at || inside(p, who, at, 1));
			} else if (b->size) {
				resize(p, who, b, size);
			}
			break;
		}
		case 5:
			if (damage && op & 64)
				damage_word(p, in, op);
			else
				free_anything(p, who, number(in, 3) % (PAGES * PAGE) / (op & 8 ? 1 : 16) * (op & 8 ? 1 : 16));
			break;
		case 6: { /* many at once */
			void *many[64];
			size_t size = any_size(in), count = k % 64 + 1;
			if (hp_malloc_bulk(pool, size, count, many) == 0) {
				for (unsigned i = 0; i < count; i++) must(inside(p, who, many[i], damage ? 1 : size));
				if (op & 8) { /* freed by the other */
					for (unsigned i = 0; i < count; i++)
						many[i] = hp_pool_pointer(p->pool[!who], hp_pool_offset(pool, many[i]));
					pool = p->pool[!who];
				}
				must(hp_free_bulk(pool, count, many) == 0 || damage);
			}
			break;
		}
		default:
			if (op & 8 && k < 8 && !damage) {
				hp_pool_detach(p->pool[1]);
				must(hp_pool_attach(fds, NULL, &p->pool[1]) == 0);
			} else if (op & 16) {
				void *run;
				if (hp_page_alloc(pool, (k + 1) * PAGE, 0, &run) == 0) hp_page_free(pool, run);
			} else {
				int found = hp_pool_check(pool, NULL, NULL);
				must(found == 0 || damage);
				if (damage) hp_pool_recover(pool);
			}
		}
	}
	if (!damage) {
		for (unsigned i = 0; i < BLOCKS; i++)
			if (p->block[i].size) free_one(p, i & 1, &p->block[i]);
		must(p->live == 0);
		void *whole; /* nothing is lost, and what is kept unused can be had */
		must(hp_page_alloc(p->pool[1], PAGES * PAGE, 0, &whole) == 0);
	}
	hp_pool_detach(p->pool[1]);
	hp_pool_detach(p->pool[0]);
	free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	play(&in, byte(&in) & 1);
	return 0;
}
