/* The handle, its geometry, and the small functions that only look at it. */
#include "pool/create.h"
#include "pool/layers.h"
#include "pool/record.h"
#include "slab/class.h"
#include "debug/debug.h"
#include "os/os.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t page_up(uint64_t bytes)
{
	return (bytes + HP_PAGE_SIZE - 1) & ~(uint64_t)(HP_PAGE_SIZE - 1);
}

void pool_geometry_place(struct pool_geometry *g)
{
	uint64_t at = page_up(sizeof(struct pool_header));
	g->records_at = at;
	at += page_up(g->records * sizeof(struct pool_record));
	g->slots_at = at;
	at += page_up(g->slots * sizeof(struct pool_slot));
	g->chunks_at = at;
	at += page_up(g->chunks * sizeof(struct pool_chunk));
	g->hints_at = at;
	at += page_up(g->chunks);
	g->nodes_at = at;
	at += page_up(g->chunks);
	g->units_at = at;
	at += page_up(g->chunks * sizeof(struct parity_unit));
	g->map_at = at;
	at += page_up((uint64_t)g->chunks * g->chunk_pages * sizeof(pool_map));
	g->summary_at = at;
	at += page_up(g->chunks * sizeof(pool_summary));
	g->caches_at = at;
	at += page_up(CACHES * sizeof(struct pool_cache));
	g->waits_at = at;
	at += page_up(g->slots * sizeof(struct pool_wait));
	/* most of what follows is never touched */
	g->heaps_at = at;
	at += page_up(HEAPS * sizeof(struct heap_entry));
	g->guards_at = at;
	at += page_up(g->slots * HEAP_GUARDS * sizeof(uint64_t));
	g->rings_at = at;
	at += page_up(POOL_RINGS * sizeof(struct pool_ring));
	g->lent_at = at;
	if (!(g->flags & HP_POOL_PRIVATE)) at += page_up((uint64_t)g->chunks * g->chunk_pages * sizeof(struct pool_lent));
	g->places_at = at;
	at += page_up(CACHES * CACHE_PLACES * sizeof(uint64_t));
	g->slabs_at = at;
	at += page_up(((uint64_t)g->chunks * g->chunk_pages + SLAB_GUARD + SLAB_BEHIND) * sizeof(struct slab));
	g->control_size = at;
}

uint64_t pool_geometry_checksum(const struct pool_geometry *g)
{
	const unsigned char *byte = (const unsigned char *)g;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < offsetof(struct pool_geometry, checksum); i++)
		hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
	return hash;
}

int pool_geometry_bind(struct pool_geometry *g, int lives, int data)
{
	struct stat st;
	int error = os_fstat(lives, &st);
	if (error < 0) return error;
	g->lives_file[0] = st.st_dev;
	g->lives_file[1] = st.st_ino;
	if ((error = os_fstat(data, &st)) < 0) return error;
	g->data_file[0] = st.st_dev;
	g->data_file[1] = st.st_ino;
	g->checksum = pool_geometry_checksum(g);
	return 0;
}

static void handle_give(hp_pool *pool)
{
	if (pool->private)
		os_unmap(pool, sizeof *pool);
	else
		free(pool);
}

hp_pool *pool_handle_new(const struct pool_geometry *g, char *control)
{
	bool private = g->flags & HP_POOL_PRIVATE;
	hp_pool *pool = private ? private_handle() : calloc(1, sizeof *pool);
	if (!pool) return NULL;
	pool->private = private;
	pool->geometry = *g;
	pool->capacity = g->capacity;
	pool->chunk_pages = g->chunk_pages;
	pool->page_shift_chunk = (uint32_t)__builtin_ctz(g->chunk_pages);
	pool->chunk_count = g->chunks;
	pool->slot_count = g->slots;
	pool->record_count = g->records;
	pool->fenced = g->flags & HP_POOL_FENCED;
	pool->numa = (struct hp_numa){(hp_numa_policy)g->numa_policy, (int)g->numa_strict, g->numa_nodes};
	/* memory that comes at the first touch is near whoever touched it first, and nobody knows where */
	pool->single_node = private || os_nodes_with_memory() == 1;
	pool->control = control;
	pool->control_size = g->control_size;
	pool->header = (struct pool_header *)(void *)control;
	pool->records = (struct pool_record *)(void *)(control + g->records_at);
	pool->slots = (struct pool_slot *)(void *)(control + g->slots_at);
	pool->chunks = (struct pool_chunk *)(void *)(control + g->chunks_at);
	pool->hints = (pool_hint *)(control + g->hints_at);
	pool->nodes = (_Atomic uint8_t *)(control + g->nodes_at);
	pool->units = (struct parity_unit *)(void *)(control + g->units_at);
	pool->map = (pool_map *)(void *)(control + g->map_at);
	pool->summary = (pool_summary *)(void *)(control + g->summary_at);
	pool->caches = (struct pool_cache *)(void *)(control + g->caches_at);
	pool->waits = (struct pool_wait *)(void *)(control + g->waits_at);
	pool->heaps = (struct heap_entry *)(void *)(control + g->heaps_at);
	pool->guards = (_Atomic uint64_t *)(void *)(control + g->guards_at);
	pool->rings = (struct pool_ring *)(void *)(control + g->rings_at);
	pool->lent = (struct pool_lent *)(void *)(control + g->lent_at);
	pool->places = (_Atomic uint64_t *)(void *)(control + g->places_at);
	pool->slabs = (struct slab *)(void *)(control + g->slabs_at) + SLAB_GUARD;
	void *tables;
	uint64_t class_bytes = page_up(SLAB_CLASSES * sizeof(struct slab_class)),
			 slabs_bytes = page_up(g->chunks * sizeof(uint16_t)),
			 table_bytes = class_bytes + slabs_bytes + page_up(g->chunks * sizeof(uint64_t));
	if (os_map(NULL, table_bytes, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON, -1, 0, &tables) < 0) {
		handle_give(pool);
		return NULL;
	}
	pool->classes = tables;
	pool->table_bytes = table_bytes;
	pool->slabs_populated = (_Atomic uint16_t *)(void *)((char *)tables + class_bytes);
	pool->lent_populated = (_Atomic uint64_t *)(void *)((char *)tables + class_bytes + slabs_bytes);
	slab_classes_init(pool);
	pool->lives.fd = pool->control_fd.fd = pool->data_fd.fd = -1;
	pool->exported[0] = pool->exported[1] = pool->exported[2] = -1;
	return pool;
}

void pool_handle_free(hp_pool *pool)
{
	os_unmap(pool->classes, pool->table_bytes);
	handle_give(pool);
}

/* MADV_POPULATE_WRITE, so that a shortage is an error; kernels before 5.14 have only touching. */
static int populate(char *control, uint64_t from, uint64_t bytes)
{
	uint64_t start = from & ~(uint64_t)(HP_PAGE_SIZE - 1), end = page_up(from + bytes);
	int error = os_advise(control + start, end - start, 23 /* MADV_POPULATE_WRITE */);
	if (error != -EINVAL) return error == -EFAULT ? -ENOMEM : error;
	for (uint64_t at = start; at < end; at += HP_PAGE_SIZE)
		atomic_fetch_or_explicit((_Atomic uint8_t *)(control + at), 0, memory_order_relaxed);
	return 0;
}

int pool_control_populate_fixed(char *control, const struct pool_geometry *g)
{
	return populate(control, 0, g->chunks_at);
}

int pool_control_populate(char *control, const struct pool_geometry *g, uint32_t from, uint32_t to)
{
	const struct {
		uint64_t at, size;
	} part[] = {{g->chunks_at, sizeof(struct pool_chunk)},
	            {g->hints_at, 1},
	            {g->nodes_at, 1},
	            {g->units_at, sizeof(struct parity_unit)},
	            {g->map_at, g->chunk_pages * sizeof(pool_map)},
	            {g->summary_at, sizeof(pool_summary)}};
	/* hints, nodes and chunks are scanned as a whole, so all of what lies below is there too */
	for (unsigned i = 0; i < sizeof part / sizeof *part; i++) {
		int error = populate(control, part[i].at + from * part[i].size, (to - from) * part[i].size);
		if (error < 0) return error;
	}
	return 0;
}

int pool_control_populate_at(hp_pool *pool, const void *start, uint64_t bytes)
{
	return populate(pool->control, (uint64_t)((const char *)start - pool->control), bytes);
}

int pool_control_populate_slabs(hp_pool *pool, uint64_t page, uint32_t count)
{
	if (pool->private) return 0; /* anonymous memory is there when it is touched */
	const uint32_t each = HP_PAGE_SIZE / sizeof(struct slab);
	int error = 0;
	for (uint64_t at = page / each * each; at < page + count && error == 0; at += each) {
		_Atomic uint16_t *done = &pool->slabs_populated[at >> pool->page_shift_chunk];
		uint16_t bit = (uint16_t)(1u << ((at & (pool->chunk_pages - 1)) / each));
		if (atomic_load_explicit(done, memory_order_relaxed) & bit) continue;
		error = populate(pool->control, (uint64_t)((char *)&pool->slabs[at] - pool->control),
		                 each * sizeof(struct slab));
		if (error == 0) atomic_fetch_or_explicit(done, bit, memory_order_relaxed);
	}
	return error;
}

int pool_control_populate_lent_of(hp_pool *pool, uint64_t page, _Atomic uint64_t *done, uint64_t bit)
{
	int error = pool_control_populate_at(pool, &pool->lent[page / LENT_PAGES * LENT_PAGES], HP_PAGE_SIZE);
	if (error == 0) atomic_fetch_or_explicit(done, bit, memory_order_relaxed);
	return error;
}

void pool_log(const hp_pool *pool, const char *format, ...)
{
	if (!pool || !pool->log) return;
	char line[512];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	pool->log(pool->log_arg, line);
}

void pool_close(hp_pool *pool)
{
	debug_end(pool);
	backing_unmap(&pool->data);
	os_unmap(pool->control, pool->control_size);
	const struct pool_fd *fd[] = {&pool->lives, &pool->control_fd, &pool->data_fd};
	for (int i = 0; i < 3; i++) { /* a number that was reused is not ours to close */
		struct pool_fd exported = {.fd = pool->exported[i], .dev = fd[i]->dev, .ino = fd[i]->ino};
		if (pool_fd_intact(&exported)) os_close(exported.fd);
		if (pool_fd_intact(fd[i])) os_close(fd[i]->fd);
	}
	pool_handle_free(pool);
}

int pool_join(hp_pool *pool)
{
	if (!pool->fenced && os_membarrier_register() < 0) return -ENOTSUP;
	struct participant_guard guard;
	int error = participant_lock(&guard);
	if (error < 0) return error;
	error = participant_reserve(pool->private);
	if (error == 0) error = record_join(pool);
	if (error == 0) {
		atomic_store(&pool->joined, participant_fork_generation());
		participant_add_pool(pool);
	}
	participant_unlock(&guard);
	return error;
}

int hp_pool_detach(hp_pool *pool)
{
	if (!pool) return 0;
	background_stop(pool);
	for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
		if ((*layer)->detach) (*layer)->detach(pool);
	struct participant_guard guard;
	if (!pool->observer) {
		/* no memory even for that, in a forked child: better left than freed while the fork handlers know it */
		if (participant_lock(&guard) < 0) return 0;
		/* first: what recovery gives back is not to be freed by what our threads believed to own */
		participant_forget(pool);
		if (pool->joined && pool->joined == participant_fork_generation()) record_leave(pool);
		participant_remove_pool(pool);
		participant_unlock(&guard);
	}
	pool_close(pool);
	return 0;
}

int hp_pool_fds(const hp_pool *pool, int fds[3])
{
	if (!pool || !fds) return -EINVAL;
	if (pool->private) return -ENOTSUP;
	fds[0] = pool->lives.fd;
	fds[1] = pool->control_fd.fd;
	fds[2] = pool->data_fd.fd;
	return 0;
}

const char *hp_pool_name(const hp_pool *pool)
{
	return pool->geometry.name;
}

int hp_pool_trace(hp_pool *pool, unsigned trace)
{
	if (!pool || trace & ~(HP_TRACE_ALLOC | HP_TRACE_ALL)) return -EINVAL;
	struct participant_guard guard;
	int error = participant_lock(&guard);
	if (error < 0) return error;
	pool->trace = trace;
	pool->slow = trace || pool->observer || pool->debug;
	participant_set_fast(pool);
	participant_unlock(&guard);
	return 0;
}

void *hp_pool_base(const hp_pool *pool)
{
	return pool->base;
}

uint64_t hp_pool_capacity(const hp_pool *pool)
{
	return pool->capacity;
}

uint64_t hp_pool_page_size(const hp_pool *pool)
{
	return pool->geometry.page_size;
}

hp_off hp_pool_offset(const hp_pool *pool, const void *ptr)
{
	uint64_t off = (uint64_t)((uintptr_t)ptr - (uintptr_t)pool->base);
	return off < pool->capacity && pool->base ? off : HP_OFF_NONE;
}

void *hp_pool_pointer(const hp_pool *pool, hp_off off)
{
	return off < pool->capacity && pool->base ? pool->base + off : NULL;
}
