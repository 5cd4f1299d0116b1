/* Attaching: everything is checked before anything is mapped, against files and headers that may be anything.
 *
 * The header is read with pread into private memory, so that nothing can change between check and use. What follows
 * from the geometry is computed again and compared. Nothing is waited for: a pool whose `ready` is not there was made
 * by a process that died (its descriptors are handed out only after hp_pool_create returned). */
#include "pool/create.h"
#include "pool/pass.h"
#include "pool/record.h"
#include "debug/debug.h"
#include "pool/recover.h"
#include "os/os.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void say(const struct hp_attach_options *o, const char *message)
{
	if (o->log) o->log(o->log_arg, message);
}

/* A memfd that cannot be resized under us. Seals first: nothing else has them, and of any other file fstat may wait for a
 * server that does not answer. */
static int check_file(int fd, struct stat *st)
{
	int seals = os_seals(fd);
	if (seals < 0) return seals;
	if ((seals & (F_SEAL_GROW | F_SEAL_SHRINK)) != (F_SEAL_GROW | F_SEAL_SHRINK)) return -EINVAL;
	int error = os_fstat(fd, st);
	if (error < 0) return error;
	return S_ISREG(st->st_mode) && os_block_size(fd) >= 0 ? 0 : -EINVAL;
}

static bool is_file(const struct stat *st, const uint64_t file[2])
{
	return st->st_dev == file[0] && st->st_ino == file[1];
}

static bool geometry_sane(const struct pool_geometry *g, const struct stat *control, const struct stat *data,
                          int64_t page_size)
{
	struct pool_geometry again = *g;
	if (g->chunk_pages < 64 || g->chunk_pages > PARITY_GRANULES || g->chunk_pages & (g->chunk_pages - 1)) return false;
	if (g->slots == 0 || g->slots > POOL_MAX_SLOTS || g->records == 0 || g->records > POOL_MAX_RECORDS) return false;
	if (g->capacity == 0 || g->capacity % (g->chunk_pages * (uint64_t)HP_PAGE_SIZE)) return false;
	if (g->capacity / (g->chunk_pages * (uint64_t)HP_PAGE_SIZE) != g->chunks) return false;
	if (g->rung < HP_RUNG_1G || g->rung > HP_RUNG_4K) return false;
	if (g->flags & ~(HP_POOL_FENCED | HP_POOL_NO_AUTOGROW | POOL_LAZY)) return false; /* above all not a private one */
	if (g->page_size < HP_PAGE_SIZE || g->page_size & (g->page_size - 1) || g->capacity % g->page_size) return false;
	if (g->rung <= HP_RUNG_2M && g->page_size != (uint64_t)page_size) return false;
	pool_geometry_place(&again);
	return memcmp(&again, g, sizeof again) == 0 && (uint64_t)control->st_size == g->control_size &&
	       (uint64_t)data->st_size == g->capacity && memchr(g->name, 0, sizeof g->name) != NULL;
}

static int header_read(const int fds[3], const struct hp_attach_options *o, bool lives_needed, struct pool_geometry *g)
{
	struct stat lives = {0}, control, data;
	int error;
	if ((fds[0] >= 0 || lives_needed) && (error = check_file(fds[0], &lives)) < 0) goto foreign;
	if ((error = check_file(fds[1], &control)) < 0 || (error = check_file(fds[2], &data)) < 0) goto foreign;
	if (control.st_ino == data.st_ino && control.st_dev == data.st_dev) goto foreign;
	struct pool_header header;
	int64_t got = os_pread(fds[1], &header, sizeof header, 0);
	if (got < 0) return (int)got;
	if (got < (int64_t)sizeof header) {
		say(o, "hugepool: the control file is shorter than a pool's header: not a pool, or truncated");
		return -EBADMSG;
	}
	*g = header.geometry;
	if (g->magic == 0) {
		say(o, "hugepool: the pool was never finished: its creator died while making it");
		return -ENODATA;
	}
	if (g->magic != POOL_MAGIC) goto foreign;
	if (g->version != POOL_LAYOUT_VERSION || g->layout_hash != pool_layout_hash() || g->page_granule != HP_PAGE_SIZE) {
		say(o, "hugepool: the pool was made by another version of the library; use the same in all processes");
		return -EPROTO;
	}
	if (atomic_load(&header.ready) != POOL_READY) {
		say(o, "hugepool: the pool was never finished: its creator died while making it");
		return -ENODATA;
	}
	if (g->checksum != pool_geometry_checksum(g) || !geometry_sane(g, &control, &data, os_block_size(fds[2]))) {
		say(o, "hugepool: the pool's header is damaged, or the descriptors are of different pools");
		return -EBADMSG;
	}
	/* above all the lives file: by that of another pool everybody would be dead */
	if (!is_file(&data, g->data_file) || (fds[0] >= 0 && !is_file(&lives, g->lives_file))) goto foreign;
	return 0;
foreign:
	say(o, "hugepool: these are not the descriptors of a pool (lives, control, data: sealed memfds)");
	return error < 0 && error != -EINVAL ? error : -EINVAL;
}

int pool_verify(const int fds[3], const struct hp_attach_options *options, struct pool_geometry *geometry)
{
	return header_read(fds, options, true, geometry);
}

/* Fills page tables for what is committed, with growth kept out so that no hole is touched. */
static void populate_tables(hp_pool *pool)
{
	if (pool->geometry.flags & POOL_LAZY) return; /* that would be the first touch of everything */
	if (growth_lock(pool) < 0) return;            /* a grower that stands still: the tables fill as memory is touched */
	uint32_t top = pool_top(pool), group = growth_group(pool);
	uint64_t chunk = pool_chunk_bytes(pool);
	for (uint32_t from = 0, to; from < top; from = to + group) {
		for (to = from; to < top; to += group)
			if (ctl_state(atomic_load_explicit(&pool->chunks[to].ctl, memory_order_acquire)) == CTL_UNCOMMITTED) break;
		uint32_t end = to < top ? to : top;
		if (end > from) {
			pool_control_populate(pool->control, &pool->geometry, from, end);
			backing_populate_tables(&pool->data, from * chunk, end * chunk);
		}
	}
	growth_unlock(pool);
}

static int attach_options_read(const struct hp_attach_options *given, struct hp_attach_options *o)
{
	memset(o, 0, sizeof *o);
	size_t size = given && given->struct_size ? given->struct_size : sizeof *o;
	if (size > HP_PAGE_SIZE) return -EINVAL;
	if (given) memcpy(o, given, size < sizeof *o ? size : sizeof *o);
	for (size_t i = sizeof *o; i < size; i++) /* as hp_pool_create does */
		if (((const unsigned char *)given)[i]) return -EINVAL;
	return o->trace & ~(HP_TRACE_ALLOC | HP_TRACE_ALL) ? -EINVAL : 0;
}

/* Maps control and makes a handle that owns duplicates of the descriptors. */
static int handle_open(const int fds[3], const struct pool_geometry *g, int prot, hp_pool **out)
{
	void *control;
	int error = os_map(NULL, g->control_size, prot, OS_MAP_NORESERVE, fds[1], 0, &control);
	if (error < 0) return error;
	os_advise(control, g->control_size, MADV_DONTDUMP);
	hp_pool *pool = pool_handle_new(g, control);
	if (!pool) {
		os_unmap(control, g->control_size);
		return -ENOMEM;
	}
	struct pool_fd *note[] = {&pool->lives, &pool->control_fd, &pool->data_fd};
	for (int i = 0; i < 3; i++) {
		if (fds[i] < 0) continue;
		int fd = os_dup(fds[i]);
		if (fd < 0 || (error = pool_fd_note(note[i], fd)) < 0) {
			if (fd < 0)
				error = fd;
			else
				os_close(fd);
			pool_close(pool);
			return error;
		}
	}
	pool->data = (struct backing){
		.fd = pool->data_fd.fd, .rung = (hp_rung)g->rung, .page_size = g->page_size, .capacity = g->capacity};
	*out = pool;
	return 0;
}

int hp_pool_attach(const int fds[3], const struct hp_attach_options *given, hp_pool **out)
{
	struct hp_attach_options o;
	struct pool_geometry g;
	if (!fds || !out) return -EINVAL;
	*out = NULL;
	int error = attach_options_read(given, &o);
	if (error < 0 || (error = header_read(fds, &o, true, &g)) < 0) return error;
	hp_pool *pool;
	if ((error = handle_open(fds, &g, PROT_READ | PROT_WRITE, &pool)) < 0) return error;
	pool->log = o.log;
	pool->log_arg = o.log_arg;
	pool->trace = o.trace;
	pool->slow = o.trace != 0;
	error = backing_map(&pool->data, o.elsewhere ? NULL : (void *)(uintptr_t)g.base, PROT_READ | PROT_WRITE);
	if (error < 0) goto fail;
	pool->base = pool->data.base;
	os_advise(pool->base, pool->capacity, MADV_DONTDUMP);
	if ((error = pool_control_populate_fixed(pool->control, &g)) < 0) goto fail;
	if ((error = pool_join(pool)) < 0) {
		if (error == -ENOTSUP)
			say(&o, "hugepool: the pool relies on membarrier, which this kernel refuses; make it with HP_POOL_FENCED");
		goto fail;
	}
	debug_begin(pool);
	recover_dead(pool);
	populate_tables(pool);
	*out = pool;
	return 0;
fail:
	pool_close(pool);
	return error;
}

int hp_pool_observe(const int fds[3], hp_pool **out)
{
	struct hp_attach_options none = {0};
	struct pool_geometry g;
	if (!fds || !out) return -EINVAL;
	*out = NULL;
	int error = header_read(fds, &none, false, &g);
	if (error < 0) return error;
	hp_pool *pool;
	if ((error = handle_open(fds, &g, PROT_READ, &pool)) < 0) return error;
	pool->observer = true;
	pool->slow = 1;
	*out = pool;
	return 0;
}
