/* Guarded blocks: a run of pages of their own. The first page says what it is, the block ends where the last page begins,
 * and that one this process cannot touch. A guarded block never begins where a run begins, so a process without modes,
 * which knows nothing of the page that another cannot touch, cannot free it.
 *
 * The bytes before the block, and the few between its end and the end of its page, are of one value, and looked at when the
 * block is freed. */
#include "debug/debug.h"
#include "debug/track.h"
#include "page/page.h"
#include "pool/record.h"
#include "os/os.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define MAGIC UINT64_C(0xa24baed4963ee407)
#define FILL 0xcb

bool debug_guard_possible(const hp_pool *pool)
{
	return pool->data.rung > HP_RUNG_2M;
}

static uint64_t sum_of(const struct debug_guard *guard)
{
	uint64_t sum = MAGIC, word;
	for (size_t i = 0; i < offsetof(struct debug_guard, sum); i += 8) {
		memcpy(&word, (const char *)guard + i, 8);
		sum = (sum ^ word) * UINT64_C(0x9fb21c651e98df25);
		sum ^= sum >> 29;
	}
	return sum;
}

bool debug_guard_read(const struct debug_guard *guard, hp_off run)
{
	return guard->magic == (MAGIC ^ run) && guard->sum == sum_of(guard) && guard->block > run &&
	       guard->size <= guard->pages * HP_PAGE_SIZE;
}

/* Where the run of a guarded block begins: its header is in the page before that in which the block begins. */
static bool find(const hp_pool *pool, const void *block, struct debug_guard *guard, hp_off *run)
{
	hp_off off = (hp_off)((uintptr_t)block - (uintptr_t)pool->base);
	if (off >= pool->capacity || off < HP_PAGE_SIZE) return false;
	*run = (off & ~(hp_off)(HP_PAGE_SIZE - 1)) - HP_PAGE_SIZE;
	if (hp_page_size_at((hp_pool *)pool, *run) < 3 * (int64_t)HP_PAGE_SIZE) return false;
	track_peek(guard, pool->base + *run, sizeof *guard);
	return debug_guard_read(guard, *run) && guard->block == off;
}

void *debug_guard_alloc(hp_pool *pool, size_t align, size_t size, const void *caller)
{
	size_t step = align > 16 ? align : 16, bytes = (size + step - 1) & ~(step - 1);
	uint64_t pages = (bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE + 2;
	if (pages * HP_PAGE_SIZE > pool->capacity) return NULL;
	intptr_t at = hp_page_alloc_address(pool, pages * HP_PAGE_SIZE, 0);
	if (at < 0) return NULL;
	char *run = (char *)at, *end = run + (pages - 1) * HP_PAGE_SIZE, *block = end - bytes;
	if (os_protect(end, HP_PAGE_SIZE, PROT_NONE) < 0) {
		hp_page_free(pool, run);
		return NULL;
	}
	struct debug_guard guard = {.magic = MAGIC ^ (hp_off)(run - pool->base),
	                            .block = (hp_off)(block - pool->base),
	                            .size = size,
	                            .pages = pages,
	                            .caller = (uintptr_t)caller,
	                            .pid = (uint32_t)os_pid(),
	                            .tid = (uint32_t)os_tid(),
	                            .record = pool->record,
	                            .record_generation = pool->record_generation};
	guard.sum = sum_of(&guard);
	memset(run + HP_PAGE_SIZE, FILL, (size_t)(block - run) - HP_PAGE_SIZE);
	memset(block, 0xa5, size);
	memset(block + size, FILL, bytes - size);
	memcpy(run, &guard, sizeof guard);
	return block;
}

/* The child has its parent's closed pages, and would not learn when the parent opens them. In a private pool they are its own
 * from now on. */
void debug_follow_fork(hp_pool *pool)
{
	if (!pool->private && debug_guard_possible(pool)) os_protect(pool->base, pool->capacity, PROT_READ | PROT_WRITE);
}

bool debug_guard_heads(const hp_pool *pool, const void *block)
{
	struct debug_guard guard;
	track_peek(&guard, block, sizeof guard);
	return debug_guard_read(&guard, (hp_off)((const char *)block - pool->base));
}

size_t debug_guard_size(const hp_pool *pool, const void *block)
{
	struct debug_guard guard;
	hp_off run;
	return find(pool, block, &guard, &run) ? guard.size : 0;
}

/* The bytes [from, to) are as they were written. */
static bool intact(const char *from, const char *to)
{
	while (from < to && (unsigned char)*from == FILL) from++;
	return from == to;
}

int debug_guard_free(hp_pool *pool, void *block)
{
	struct debug_guard guard;
	hp_off run;
	if (!find(pool, block, &guard, &run)) return -ENOENT;
	/* In a private pool all is ours. Elsewhere the page is closed in its process, unless that is over. */
	bool over = guard.record < pool->record_count && record_is_over(pool, guard.record, guard.record_generation);
	if (!pool->private && guard.pid != (uint32_t)os_pid() && !over) return -EPERM;
	char *start = pool->base + run, *at = block, *end = start + (guard.pages - 1) * HP_PAGE_SIZE;
	if (hp_page_size_at(pool, run) != (int64_t)(guard.pages * HP_PAGE_SIZE)) return -ENOENT;
	int damage = intact(start + HP_PAGE_SIZE, at) && intact(at + guard.size, end) ? 0 : -EFAULT;
	if (damage)
		debug_report(pool,
		             "hugepool: guard: bytes %s the block of %llu bytes at offset 0x%llx were overwritten; it was "
		             "allocated by thread %u of process %u at 0x%llx",
		             intact(at + guard.size, end) ? "before" : "right behind", (unsigned long long)guard.size,
		             (unsigned long long)guard.block, guard.tid, guard.pid, (unsigned long long)guard.caller);
	int error = os_protect(end, HP_PAGE_SIZE, PROT_READ | PROT_WRITE);
	if (error < 0) return error; /* too many mappings: nothing has changed */
	memset(start, 0, sizeof guard);
	error = hp_page_free_at(pool, run);
	return error < 0 ? error : damage;
}
