/* Creating a pool: data first (the ladder decides the page size), then control, then the header, and last of all
 * `ready`. A creator that dies on the way leaves memfds that nobody else has, or that an attacher refuses at once. */
#include "pool/create.h"
#include "pool/record.h"
#include "debug/debug.h"
#include "os/os.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <fcntl.h>

#define DEFAULT_SIZE (UINT64_C(64) << 20)
#define MAX_CAPACITY (UINT64_C(1) << 46)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PREFER_ADDRESS 0 /* their shadow memory lies where the addresses below do */
#else
#define PREFER_ADDRESS (UINTPTR_MAX > UINT32_MAX)
#endif

static uint64_t round_up(uint64_t bytes, uint64_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

/* Chunks of 2 MiB, but in small pools smaller ones, so that there are more of them than threads. */
static uint32_t chunk_pages_for(uint64_t capacity)
{
	uint32_t pages = PARITY_GRANULES;
	while (pages > 64 && capacity / (pages * (uint64_t)HP_PAGE_SIZE) < 64) pages /= 2;
	return pages;
}

/* An address that attachers have a good chance to find free too: 1 GiB aligned, between 32 TiB and 64 TiB. */
static void *choose_base(void)
{
	uint32_t random = 0;
	if (!PREFER_ADDRESS || os_random(&random, sizeof random) < 0) return NULL;
	return (void *)(uintptr_t)((UINT64_C(0x2000) << 32) + ((uint64_t)(random & 0x7fff) << 30));
}

static int options_read(const struct hp_pool_options *given, struct hp_pool_options *o)
{
	memset(o, 0, sizeof *o);
	if (!given) return 0;
	size_t size = given->struct_size ? given->struct_size : sizeof *o;
	if (size > HP_PAGE_SIZE) return -EINVAL; /* rubbish: not to be read */
	memcpy(o, given, size < sizeof *o ? size : sizeof *o);
	for (size_t i = sizeof *o; i < size; i++) /* of a later version: fine as long as it asks for nothing */
		if (((const unsigned char *)given)[i]) return -EINVAL;
	return 0;
}

static const char *options_fault(const struct hp_pool_options *o)
{
	if (o->name && (!*o->name || strlen(o->name) >= POOL_NAME_MAX || strchr(o->name, '/')))
		return "name must have 1 to 63 bytes and no '/'";
	if (o->capacity && o->capacity < o->size) return "capacity is less than size";
	if (o->size > MAX_CAPACITY || o->capacity > MAX_CAPACITY) return "size or capacity is over 64 TiB";
	if ((unsigned)o->choice > HP_CHOICE_REQUIRE || (unsigned)o->rung > HP_RUNG_4K) return "unknown rung or choice";
	if (o->choice == HP_CHOICE_REQUIRE && o->rung == HP_RUNG_BEST) return "HP_CHOICE_REQUIRE needs a rung";
	if ((unsigned)o->numa.policy > HP_NUMA_INTERLEAVE) return "unknown NUMA policy";
	if ((unsigned)o->prefault > HP_PREFAULT_LAZY) return "unknown prefault mode";
	bool private = o->flags & HP_POOL_PRIVATE;
	if (o->prefault == HP_PREFAULT_LAZY && o->choice != HP_CHOICE_ANY && o->rung != HP_RUNG_BEST &&
	    o->rung != HP_RUNG_4K && !(private && (o->rung == HP_RUNG_THP || o->choice == HP_CHOICE_PREFER)))
		return "HP_PREFAULT_LAZY is for 4 KiB pages only: touching a huge page that is not there is SIGBUS";
	if (o->max_threads > POOL_MAX_SLOTS) return "max_threads is over 16384";
	if (o->max_processes > POOL_MAX_RECORDS) return "max_processes is over 4096";
	if (o->flags & ~(HP_POOL_FENCED | HP_POOL_NO_AUTOGROW | HP_POOL_PRIVATE)) return "unknown flag";
	if (o->trace & ~(HP_TRACE_ALLOC | HP_TRACE_ALL)) return "unknown trace bit";
	return NULL;
}

struct files {
	int lives, control;
	struct backing data;
};

static int make_memfd(const char *kind, const char *name, uint64_t size, mode_t mode, int *fd)
{
	char label[POOL_NAME_MAX + 32];
	snprintf(label, sizeof label, "hugepool-%s:%s", kind, name);
	int error = os_memfd_create(label, 0, fd);
	if (error < 0) return error;
	if (size && (error = os_ftruncate(*fd, size)) < 0) goto fail;
	if ((error = os_fchmod(*fd, mode)) < 0) goto fail;
	if ((error = os_seal(*fd, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)) < 0) goto fail;
	return 0;
fail:
	os_close(*fd);
	*fd = -1;
	return error;
}

static int create_control(struct files *files, struct pool_geometry *g, uint64_t committed, char **control)
{
	/* mode 0666: a process that changed its uid must still be able to take its byte */
	int error = make_memfd("lives", g->name, 0, 0666, &files->lives);
	if (error < 0) return error;
	if ((error = make_memfd("control", g->name, g->control_size, 0600, &files->control)) < 0) return error;
	void *map;
	error = os_map(NULL, g->control_size, PROT_READ | PROT_WRITE, OS_MAP_NORESERVE, files->control, 0, &map);
	if (error < 0) return error;
	*control = map;
	os_advise(map, g->control_size, MADV_DONTDUMP);
	if ((error = pool_control_populate_fixed(*control, g)) < 0) return error;
	return pool_control_populate(*control, g, 0, (uint32_t)(committed / (g->chunk_pages * (uint64_t)HP_PAGE_SIZE)));
}

int create_geometry(const struct hp_pool_options *o, struct pool_geometry *g, uint64_t *size, uint64_t *capacity)
{
	*g = (struct pool_geometry){.magic = POOL_MAGIC,
	                            .version = POOL_LAYOUT_VERSION,
	                            .page_granule = HP_PAGE_SIZE,
	                            .layout_hash = pool_layout_hash(),
	                            .slots = o->max_threads ? o->max_threads : 1024,
	                            .records = o->max_processes ? o->max_processes : 256,
	                            .flags = o->flags | (o->prefault == HP_PREFAULT_LAZY ? POOL_LAZY : 0),
	                            .numa_policy = o->numa.policy,
	                            .numa_strict = o->numa.strict != 0,
	                            .numa_nodes = o->numa.nodes};
	*size = o->size ? o->size : o->capacity && o->capacity < DEFAULT_SIZE ? o->capacity : DEFAULT_SIZE;
	*capacity = o->capacity > *size ? o->capacity : *size;
	g->chunk_pages = chunk_pages_for(*capacity);
	uint64_t chunk = g->chunk_pages * (uint64_t)HP_PAGE_SIZE;
	*size = round_up(*size, chunk);
	*capacity = round_up(*capacity, chunk);
	int error = os_random(g->id, sizeof g->id);
	if (error < 0) return error;
	if (o->name)
		snprintf(g->name, sizeof g->name, "%s", o->name);
	else
		snprintf(g->name, sizeof g->name, "pool-%d-%08x", os_pid(), (unsigned)g->id[0]);
	return 0;
}

void create_say(const struct hp_pool_options *o, const struct hp_report *report)
{
	if (!o->log || !report->rungs) return;
	char text[4096];
	hp_report_text(report, text, sizeof text);
	for (char *line = text, *end; *line; line = end) { /* a message is one line */
		end = line + strcspn(line, "\n");
		if (*end) *end++ = 0;
		o->log(o->log_arg, line);
	}
}

int hp_pool_create(const struct hp_pool_options *given, hp_pool **out)
{
	struct hp_pool_options o;
	if (!out) return -EINVAL;
	*out = NULL;
	int error = options_read(given, &o);
	const char *fault = error < 0 ? "the options struct is of a later version and asks for something unknown"
	                              : options_fault(&o);
	if (fault) {
		char line[200];
		snprintf(line, sizeof line, "hugepool: bad options: %s", fault);
		if (o.log) o.log(o.log_arg, line);
		if (o.report) memset(o.report, 0, sizeof *o.report);
		return -EINVAL;
	}
	if (o.flags & HP_POOL_PRIVATE) return private_create(&o, out);
	struct hp_report *report = o.report ? o.report : calloc(1, sizeof *report);
	if (!report) return -ENOMEM;

	struct pool_geometry g;
	uint64_t size, capacity;
	if ((error = create_geometry(&o, &g, &size, &capacity)) < 0) goto no_data;
	uint64_t chunk = g.chunk_pages * (uint64_t)HP_PAGE_SIZE;
	char label[POOL_NAME_MAX + 32];
	snprintf(label, sizeof label, "hugepool-data:%s", g.name);

	struct files files = {.lives = -1, .control = -1, .data = {.fd = -1}};
	struct backing_want want = {.name = label,
	                            .size = size,
	                            .capacity = capacity,
	                            .hint = choose_base(),
	                            .choice = o.choice,
	                            .rung = o.rung,
	                            .numa = o.numa,
	                            .prefault = o.prefault,
	                            .threads = o.prefault_threads,
	                            .progress = o.progress,
	                            .progress_arg = o.progress_arg};
	uint64_t committed = 0;
	error = backing_create(&want, &files.data, &committed, report);
	if (error < 0) goto no_data;
	os_advise(files.data.base, files.data.capacity, MADV_DONTDUMP);

	g.page_size = files.data.page_size;
	g.rung = files.data.rung;
	g.capacity = files.data.capacity;
	g.base = (uintptr_t)files.data.base;
	g.chunks = (uint32_t)(g.capacity / chunk);
	if (!(g.flags & HP_POOL_FENCED) && os_membarrier_register() < 0) g.flags |= HP_POOL_FENCED;
	committed -= committed % chunk; /* of a single 4 KiB page in the background mode nothing can be used yet */
	pool_geometry_place(&g);

	char *control = NULL;
	hp_pool *pool = NULL;
	if ((error = create_control(&files, &g, committed, &control)) < 0) goto fail;
	if ((error = pool_geometry_bind(&g, files.lives, files.data.fd)) < 0) goto fail;
	error = -ENOMEM;
	if (!(pool = pool_handle_new(&g, control))) goto fail;
	pool->data = files.data;
	pool->base = files.data.base;
	pool->log = o.log;
	pool->log_arg = o.log_arg;
	pool->trace = o.trace;
	pool->slow = o.trace != 0;
	if ((error = pool_fd_note(&pool->lives, files.lives)) < 0) goto fail;
	if ((error = pool_fd_note(&pool->control_fd, files.control)) < 0) goto fail;
	if ((error = pool_fd_note(&pool->data_fd, files.data.fd)) < 0) goto fail;
	/* the magic comes last: what a dead creator left is a pool that was never finished, not one of another version */
	struct pool_geometry nameless = g;
	nameless.magic = 0;
	pool->header->geometry = nameless;
	growth_publish_first(pool, (uint32_t)(committed / chunk));
	if ((error = pool_join(pool)) < 0) goto fail;
	debug_begin(pool);
	atomic_signal_fence(memory_order_release);
	pool->header->geometry.magic = POOL_MAGIC;
	/* commit: from here on others may attach. Release: all of the above is there for whoever sees it. */
	atomic_store_explicit(&pool->header->ready, POOL_READY, memory_order_release);
	if (o.prefault == HP_PREFAULT_BACKGROUND && committed < size &&
	    (error = background_start(pool, size - committed, o.prefault_threads)) < 0) {
		if (!o.report) free(report);
		hp_pool_detach(pool);
		return error;
	}
	if (!o.report) free(report);
	*out = pool;
	return 0;

fail:
	if (pool) pool_handle_free(pool);
	if (control) os_unmap(control, g.control_size);
	if (files.lives >= 0) os_close(files.lives);
	if (files.control >= 0) os_close(files.control);
	backing_unmap(&files.data);
	os_close(files.data.fd);
no_data:
	if (error < 0) create_say(&o, report);
	if (!o.report) free(report);
	return error;
}
