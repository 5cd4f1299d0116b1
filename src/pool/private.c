/* Private pools: anonymous memory of one process, control too, for a malloc that belongs to nobody else.
 *
 * No descriptors and no lives file: the process itself is the only one there is, and its record is always the first. A
 * forked child has a copy of everything, which is consistent: while fork copies page tables a store either reaches the
 * page that parent and child share or waits, so that the child sees what each thread had stored up to one moment, in
 * order. For the child it is therefore as if all threads but the one that forked had been killed, and that is what
 * recovery is for.
 *
 * The forking thread goes on where it was, with its slot, its magazines, and, in a child forked by a signal handler, in
 * the middle of whatever the handler interrupted. Participants of private pools lie in ordinary memory for that, not in
 * the memory that fork wipes. What tells threads that came along from those that did not is the record's generation,
 * which counts forks: the child raises it, and stamps its own slots with the new one (participant.c). Every slot with an
 * older one is recovered like that of a dead thread, by whoever runs short next; a growth lock with an older one is taken
 * over; a unit that was claimed for recovery with an older one is claimed anew (private_settle). Nothing of that is done
 * at the fork itself, for most children only exec.
 *
 * Creating a pool, and everything else that happens inside of hp_malloc, calls no malloc of libc's: handles come from
 * mmap, and reports lie on the stack. */
#include "pool/create.h"
#include "parity/parity.h"
#include "pool/recover.h"
#include "debug/debug.h"
#include "pool/record.h"
#include "os/os.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

hp_pool *private_handle(void)
{
	void *memory;
	return os_map(NULL, sizeof(hp_pool), PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON, -1, 0, &memory) < 0 ? NULL
	                                                                                                      : memory;
}

/* The pool around its data, of which `pages` are there: given back when that fails. */
static int establish(const struct hp_pool_options *o, struct pool_geometry *g, const struct backing *data,
                     uint64_t pages, hp_pool **out)
{
	g->records = 1;
	g->page_size = data->page_size;
	g->rung = data->rung;
	g->capacity = data->capacity;
	g->base = (uintptr_t)data->base;
	g->chunks = (uint32_t)(g->capacity / (g->chunk_pages * (uint64_t)HP_PAGE_SIZE));
	if (!(g->flags & HP_POOL_FENCED) && os_membarrier_register() < 0) g->flags |= HP_POOL_FENCED;
	pool_geometry_place(g);
	g->checksum = pool_geometry_checksum(g);

	void *control;
	hp_pool *pool = NULL;
	int error = os_map(NULL, g->control_size, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0,
	                   &control);
	if (error < 0) goto fail;
	os_advise(control, g->control_size, MADV_NOHUGEPAGE); /* sparse: a huge page would be mostly wasted */
	error = -ENOMEM;
	if (!(pool = pool_handle_new(g, control))) goto fail;
	pool->data = *data;
	pool->base = data->base;
	pool->log = o->log;
	pool->log_arg = o->log_arg;
	pool->trace = o->trace;
	pool->slow = o->trace != 0;
	pool->header->geometry = *g;
	growth_publish_first(pool, (uint32_t)((pages + g->chunk_pages - 1) / g->chunk_pages));
	unsigned beyond = (unsigned)(-pages & (g->chunk_pages - 1));
	if (data->lent && beyond) { /* what the last chunk lacks is never free */
		pool->capacity = pages * HP_PAGE_SIZE;
		parity_allocate_local(&pool->units[g->chunks - 1], g->chunk_pages - beyond, beyond);
	}
	if ((error = pool_join(pool)) < 0) goto fail;
	debug_begin(pool);
	atomic_store_explicit(&pool->header->ready, POOL_READY, memory_order_release);
	*out = pool;
	return 0;

fail:
	if (pool) pool_handle_free(pool);
	if (control) os_unmap(control, g->control_size);
	struct backing unused = *data;
	backing_unmap(&unused);
	return error;
}

static int create(const struct hp_pool_options *o, struct hp_report *report, hp_pool **out)
{
	struct pool_geometry g;
	struct backing data;
	uint64_t size, capacity, committed;
	int error = create_geometry(o, &g, &size, &capacity);
	if (error < 0) return error;
	struct backing_want want = {.size = size,
	                            .capacity = capacity,
	                            .choice = o->choice,
	                            .rung = o->rung,
	                            .numa = o->numa,
	                            .prefault = o->prefault,
	                            .progress = o->progress,
	                            .progress_arg = o->progress_arg};
	if ((error = backing_create_private(&want, &data, &committed, report)) < 0) return error;
	committed -= committed % (g.chunk_pages * (uint64_t)HP_PAGE_SIZE);
	if ((error = establish(o, &g, &data, committed / HP_PAGE_SIZE, out)) < 0) return error;
	if (o->prefault == HP_PREFAULT_BACKGROUND && committed < size &&
	    (error = background_start(*out, size - committed, 1)) < 0) {
		hp_pool_detach(*out);
		*out = NULL;
	}
	return error;
}

int private_create(const struct hp_pool_options *o, hp_pool **out)
{
	struct hp_report unwanted, *report = o->report ? o->report : &unwanted;
	memset(report, 0, sizeof *report);
	int error = create(o, report, out);
	if (error < 0) create_say(o, report);
	return error;
}

int private_create_lent(const struct hp_pool_options *given, void *start, uint64_t pages, uint32_t least, hp_pool **out)
{
	struct hp_pool_options o = *given;
	struct pool_geometry g;
	struct backing data;
	uint64_t size, capacity;
	o.size = o.capacity = pages * HP_PAGE_SIZE;
	o.flags = HP_POOL_PRIVATE | HP_POOL_NO_AUTOGROW;
	int error = create_geometry(&o, &g, &size, &capacity);
	if (error < 0) return error;
	while (g.chunk_pages < least) g.chunk_pages *= 2;
	uint64_t chunks = (pages + g.chunk_pages - 1) / g.chunk_pages;
	backing_lend(&data, start, chunks * g.chunk_pages * HP_PAGE_SIZE);
	return establish(&o, &g, &data, pages, out);
}

void private_move_lent(hp_pool *pool, void *start)
{
	debug_end(pool); /* what is left of it is the caller's, with nothing marked */
	pool->base = pool->data.base = start;
	if (start) debug_begin(pool);
}

/* Called where the process is known to be a forked child, on the thread that forked, inside participant_lock. */
void private_follow_fork(hp_pool *pool)
{
	uint64_t chunk = pool_chunk_bytes(pool);
	uint32_t top = pool_top(pool), group = growth_group(pool);
	pool->record_generation = (pool->record_generation + 1) & RECORD_GENERATIONS;
	record_join(pool);
	atomic_store(&pool->settling, 0);
	growth_follow_fork(pool);
	if (pool->data.rung > HP_RUNG_2M || pool->data.copied) return;
	/* Neighbouring pages at once. What cannot be copied for want of memory stays shared: the best that is left. */
	for (uint32_t from = 0, to; from < top; from = to + group) {
		for (to = from; to < top; to += group)
			if (ctl_state(atomic_load_explicit(&pool->chunks[to].ctl, memory_order_relaxed)) == CTL_UNCOMMITTED) break;
		if (to > from) backing_copy_private(&pool->data, from * chunk, to * chunk);
	}
	pool->data.copied = true;
}

void private_settle(hp_pool *pool)
{
	if (pool->settled == pool->record_generation || atomic_exchange(&pool->settling, 1)) return;
	while (pool->settled != pool->record_generation) {
		recover_leftovers(pool, pool->record, pool->settled);
		pool->settled = (pool->settled + 1) & RECORD_GENERATIONS;
	}
	atomic_store(&pool->settling, 0);
}
