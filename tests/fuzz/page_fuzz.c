/* libFuzzer: sequences of calls, and pools whose control memory or header says anything.
 *
 * Built by `ninja fuzz` (needs clang), run by hand: build/tests/page_fuzz -max_total_time=600. The first byte of an
 * input chooses what it is:
 *   calls     on two handles of one pool, against a model of who owns each page; every answer has to be the right one
 *   damage    the same calls while the input overwrites words of the control memory; nothing may crash or hang
 *   header    the input overwrites bytes of a pool's header, its checksum put right or not, and it is attached to */
#include "page/page.h"
#include "pool/pool.h"
#include <hugepool/hugepool.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE ((size_t)HP_PAGE_SIZE)
#define PAGES 256u

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

static hp_pool *make_pool(void)
{
	struct hp_pool_options options = {.struct_size = sizeof options,
	                                  .size = PAGES * PAGE,
	                                  .capacity = 2 * PAGES * PAGE,
	                                  .choice = HP_CHOICE_REQUIRE,
	                                  .rung = HP_RUNG_4K,
	                                  .max_threads = 8,
	                                  .max_processes = 4,
	                                  .flags = HP_POOL_NO_AUTOGROW};
	hp_pool *pool;
	must(hp_pool_create(&options, &pool) == 0);
	return pool;
}

struct block {
	unsigned page, pages; /* pages 0: none */
	int process;
};

static bool overlaps(const struct block *block, unsigned page, unsigned pages)
{
	for (unsigned i = 0; i < PAGES; i++)
		if (block[i].pages && block[i].page < page + pages && page < block[i].page + block[i].pages) return true;
	return false;
}

static int drop_text(void *arg, const char *text, size_t length)
{
	(void)text;
	*(size_t *)arg += length;
	return 0;
}

static void calls(struct input *in, bool damage)
{
	struct block block[PAGES] = {0};
	hp_pool *pool[2] = {make_pool(), NULL};
	int fds[3];
	hp_pool_fds(pool[0], fds);
	must(hp_pool_attach(fds, NULL, &pool[1]) == 0);
	bool grown = false;
	while (in->at < in->end) {
		unsigned op = byte(in), who = op >> 7, k = byte(in);
		hp_pool *p = pool[who];
		switch (op & 7) {
		case 0:
		case 1: {
			void *at;
			unsigned pages = 1 + (op & 8 ? k : k % 8), flags = op & 16 ? HP_PAGE_PROCESS : 0;
			int error = hp_page_alloc(p, pages * PAGE, flags, &at);
			must(error == 0 || error == -ENOMEM || damage);
			if (error) break;
			unsigned page = (unsigned)(hp_pool_offset(p, at) / PAGE), i = 0;
			must(hp_pool_offset(p, at) + pages * PAGE <= hp_pool_capacity(p));
			if (damage) break;
			must(!overlaps(block, page, pages));
			while (i < PAGES && block[i].pages) i++;
			if (i < PAGES)
				block[i] = (struct block){page, pages, flags ? (int)who : -1};
			else
				must(hp_page_free(p, at) == 0);
			break;
		}
		case 2:
		case 3: {
			struct block *b = &block[k];
			hp_off off = damage ? k * PAGE : b->page * PAGE;
			if (!b->pages && !damage) break;
			int error = hp_page_free_at(p, off);
			if (damage) break;
			must(error == (b->process >= 0 && b->process != (int)who ? -EPERM : 0));
			if (error == 0) b->pages = 0;
			break;
		}
		case 4: { /* any address at all */
			hp_off off = number(in, 3) * (op & 8 ? PAGE : 1);
			int64_t size = hp_page_size_at(p, off);
			if (damage) break;
			bool live = false;
			for (unsigned i = 0; i < PAGES; i++)
				live |= block[i].pages && block[i].page * PAGE == off && (int64_t)(block[i].pages * PAGE) == size;
			must(live == (size > 0));
			if (!live) must(hp_page_free_at(p, off) < 0);
			break;
		}
		case 5:
			if (damage) {
				uint64_t at = number(in, 3) * 8 % p->control_size;
				atomic_store((_Atomic uint64_t *)(void *)(p->control + at), number(in, op & 8 ? 8 : 1));
			} else if (block[k].pages) {
				must(hp_page_zero(p, (char *)hp_pool_base(p) + block[k].page * PAGE, block[k].pages * PAGE) == 0);
			}
			break;
		case 6:
			if (op & 8 && !damage) {
				hp_pool_detach(pool[1]);
				for (unsigned i = 0; i < PAGES; i++)
					if (block[i].process == 1) block[i] = (struct block){.process = -1};
				must(hp_pool_attach(fds, NULL, &pool[1]) == 0);
			} else if (op & 16) {
				grown |= hp_pool_grow(p, 1 + k * PAGE, NULL, NULL) == 0;
			} else {
				hp_pool_trim(p, k * PAGE);
			}
			break;
		default: {
			int found = hp_pool_check(p, NULL, NULL);
			struct hp_pool_stats stats = {.struct_size = sizeof stats};
			size_t length = 0;
			must(hp_pool_stats(p, &stats) == 0);
			must(hp_pool_dump(p, drop_text, &length) == 0);
			if (damage) {
				hp_pool_recover(p);
				break;
			}
			uint64_t used = 0;
			for (unsigned i = 0; i < PAGES; i++) used += block[i].pages * PAGE;
			must(found == 0);
			must(stats.free + used == stats.committed);
		}
		}
	}
	(void)grown;
	hp_pool_detach(pool[1]);
	hp_pool_detach(pool[0]);
}

static int sealed_file(uint64_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	must(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0);
	return fd;
}

static void header(struct input *in)
{
	hp_pool *pool = make_pool(), *guest;
	struct pool_header *copy = malloc(sizeof *copy);
	memcpy(copy, pool->header, sizeof *copy);
	unsigned how = byte(in);
	/* all four sizes honest, or one file too short or too long */
	int fds[3] = {sealed_file(0), sealed_file(how & 4 ? number(in, 2) : pool->control_size),
	              sealed_file(how & 8 ? number(in, 3) : pool->capacity)};
	while (in->end - in->at >= 3) {
		uint64_t at = number(in, 2) % sizeof *copy;
		((uint8_t *)copy)[at] = (uint8_t)byte(in);
	}
	if (how & 1) copy->geometry.checksum = pool_geometry_checksum(&copy->geometry);
	if (pwrite(fds[1], copy, sizeof *copy, 0) < 0) must(how & 4);
	if (hp_pool_attach(fds, NULL, &guest) == 0) {
		void *at;
		if (hp_page_alloc(guest, PAGE, 0, &at) == 0) hp_page_free(guest, at);
		hp_pool_check(guest, NULL, NULL);
		hp_pool_detach(guest);
	}
	if (hp_pool_observe(fds, &guest) == 0) {
		hp_pool_check(guest, NULL, NULL);
		hp_pool_detach(guest);
	}
	for (int i = 0; i < 3; i++) close(fds[i]);
	free(copy);
	hp_pool_detach(pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	switch (byte(&in) % 3) {
	case 0: calls(&in, false); break;
	case 1: calls(&in, true); break;
	default: header(&in);
	}
	return 0;
}
