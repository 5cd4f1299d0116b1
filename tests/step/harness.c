/* Worlds, actors and stepping. See harness.h.
 *
 * An actor is a forked child that reads {function, arguments} from a pipe and writes the result to another; it has the
 * same addresses as the harness, so functions are passed as they are and code can be read at the victim's instruction
 * pointer. A function that is to be stepped is enclosed by two breakpoint instructions. */
#include "harness.h"
#include "pool/participant.h"
#include "heap/layout.h"
#include "slab/slab.h"
#include <hugepool/malloc.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
#define BREAKPOINT "int3"
#define INSTRUCTION rip
#else
#define BREAKPOINT "nop"
#define INSTRUCTION regs[0] /* never reached: step_need_ptrace skips */
#endif

#define PATIENCE_MS 20000

struct command {
	step_fn *fn;
	uint64_t x, y;
	uint64_t stepped;
};

extern const char step_mark_end[];

bool step_full(void)
{
	const char *full = getenv("HP_STEP_FULL");
	return full && *full && strcmp(full, "0") != 0;
}

void step_fail(struct step_world *w, const char *format, ...)
{
	va_list args;
	if (w->failures++ >= 5) return;
	va_start(args, format);
	printf("  FAILED: %s, instruction %llu", w->name, (unsigned long long)w->instructions);
	if (w->regs.INSTRUCTION)
		printf(", before 0x%llx (step_fail is at 0x%llx)", (unsigned long long)w->regs.INSTRUCTION,
		       (unsigned long long)(uintptr_t)step_fail);
	printf(": ");
	vprintf(format, args);
	printf("\n");
	fflush(stdout);
	va_end(args);
}

void step_broken(struct step_world *w, const char *file, int line, const char *what)
{
	printf("  BROKEN: %s: %s:%d: %s\n", w ? w->name : "?", file, line, what);
	fflush(stdout);
	_exit(2);
}

/* ---- functions of actors ---- */

int64_t step_attach(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	return hp_pool_attach(env->fds, NULL, &env->pool);
}

int64_t step_detach(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	hp_pool *pool = env->pool;
	env->pool = NULL;
	return hp_pool_detach(pool);
}

int64_t step_alloc(struct step_env *env, uint64_t x, uint64_t y)
{
	void *block;
	int error = hp_page_alloc(env->pool, x * HP_PAGE_SIZE, (unsigned)y, &block);
	return error < 0 ? error : (int64_t)hp_pool_offset(env->pool, block);
}

int64_t step_free(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_page_free(env->pool, hp_pool_pointer(env->pool, x));
}

int64_t step_touch(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	int error;
	return participant_get(env->pool, &error) ? 0 : error;
}

int64_t step_recover(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)x, (void)y;
	return hp_pool_recover(env->pool);
}

int64_t step_grow(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_pool_grow(env->pool, x, NULL, NULL);
}

int64_t step_trim(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_pool_trim(env->pool, x);
}

/* As often as it goes: how often. */
static int64_t exhaust(struct step_env *env, int64_t (*one)(struct step_env *, uint64_t, uint64_t), uint64_t x)
{
	for (int64_t count = 0; count < STEP_LIST; count++) {
		int64_t off = one(env, x, 0);
		if (off == -ENOMEM) return count;
		if (off < 0) return off;
		env->list[count] = (uint64_t)off;
	}
	return -E2BIG;
}

int64_t step_exhaust(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return exhaust(env, step_alloc, x);
}

int64_t step_free_list(struct step_env *env, uint64_t x, uint64_t y)
{
	for (uint64_t i = x; i < x + y; i++) {
		int64_t error = step_free(env, env->list[i], 0);
		if (error < 0) return error;
	}
	return 0;
}

int64_t step_churn(struct step_env *env, uint64_t x, uint64_t y)
{
	for (uint64_t i = 0; i < x; i++) {
		int64_t off = step_alloc(env, y, 0);
		if (off < 0) return off;
		int64_t error = step_free(env, (uint64_t)off, 0);
		if (error < 0) return error;
	}
	return 0;
}

int64_t step_malloc(struct step_env *env, uint64_t x, uint64_t y)
{
	void *block = y ? hp_aligned_alloc(env->pool, y, x) : hp_malloc(env->pool, x);
	return block ? (int64_t)hp_pool_offset(env->pool, block) : -errno;
}

int64_t step_mfree(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return hp_free(env->pool, hp_pool_pointer(env->pool, x));
}

int64_t step_realloc(struct step_env *env, uint64_t x, uint64_t y)
{
	void *block = hp_realloc(env->pool, hp_pool_pointer(env->pool, x), y);
	return block ? (int64_t)hp_pool_offset(env->pool, block) : -errno;
}

int64_t step_malloc_all(struct step_env *env, uint64_t x, uint64_t y)
{
	(void)y;
	return exhaust(env, step_malloc, x);
}

int64_t step_malloc_bulk(struct step_env *env, uint64_t x, uint64_t y)
{
	void *block[64];
	if (y > 64) return -EINVAL;
	int error = hp_malloc_bulk(env->pool, x, y, block);
	for (uint64_t i = 0; i < y && error == 0; i++) env->list[i] = hp_pool_offset(env->pool, block[i]);
	return error;
}

int64_t step_at_hand(struct step_env *env, uint64_t x, uint64_t y)
{
	int error;
	struct participant *me = participant_get(env->pool, &error);
	if (!me) return error;
	unsigned class = slab_malloc_class(x);
	const struct slab_mag *mag = &slab_state(me)->mag[class];
	return y ? mag->limit - mag->top : mag->top - mag->base + __builtin_popcountll(slab_state(me)->word[class].free);
}

int64_t step_mfree_list(struct step_env *env, uint64_t x, uint64_t y)
{
	for (uint64_t i = x; i < x + y; i++) {
		int64_t error = step_mfree(env, env->list[i], 0);
		if (error < 0) return error;
	}
	return 0;
}

/* ---- actors ---- */

__attribute__((noinline, noclone)) static int64_t bracket(struct step_env *env, const struct command *command)
{
	__asm__ volatile(BREAKPOINT ::: "memory");
	int64_t result = command->fn(env, command->x, command->y);
	__asm__ volatile(BREAKPOINT "\n.globl step_mark_end\nstep_mark_end:\n\tnop" ::: "memory");
	return result;
}

static void actor_main(struct step_world *w, int a, int from, int to)
{
	struct step_env *env = w->actor[a].env;
	struct command command;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(from, &command, sizeof command) == sizeof command) {
		int64_t result = command.stepped ? bracket(env, &command) : command.fn(env, command.x, command.y);
		if (write(to, &result, sizeof result) != sizeof result) break;
	}
	_exit(0);
}

void step_start(struct step_world *w, int a)
{
	struct step_actor *actor = &w->actor[a];
	int to[2], from[2];
	STEP_NEED(w, !actor->alive && pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
	fflush(stdout);
	if (!actor->env) STEP_NEED(w, actor->env = malloc(sizeof *actor->env));
	*actor->env = (struct step_env){.fds = w->fds, .list = actor->list};
	pid_t pid = fork();
	STEP_NEED(w, pid >= 0);
	if (pid == 0) {
		close(to[1]);
		close(from[0]);
		for (int i = 0; i < STEP_ACTORS; i++) /* so that the end of the harness is the end of the pipe */
			if (w->actor[i].alive) close(w->actor[i].to), close(w->actor[i].from);
		actor_main(w, a, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	actor->pid = pid;
	actor->to = to[1];
	actor->from = from[0];
	actor->alive = true;
	actor->traced = false;
}

void step_send(struct step_world *w, int a, step_fn *fn, uint64_t x, uint64_t y)
{
	struct command command = {.fn = fn, .x = x, .y = y};
	STEP_NEED(w, w->actor[a].alive && write(w->actor[a].to, &command, sizeof command) == sizeof command);
}

int64_t step_receive(struct step_world *w, int a)
{
	struct pollfd wait = {.fd = w->actor[a].from, .events = POLLIN};
	int64_t result;
	int ready;
	while ((ready = poll(&wait, 1, PATIENCE_MS)) < 0 && errno == EINTR) {}
	if (ready != 1 || read(w->actor[a].from, &result, sizeof result) != sizeof result) return INT64_MIN;
	return result;
}

int64_t step_call(struct step_world *w, int a, step_fn *fn, uint64_t x, uint64_t y)
{
	step_send(w, a, fn, x, y);
	int64_t result = step_receive(w, a);
	if (result == INT64_MIN) step_fail(w, "actor %d did not come back: it waits for somebody, loops, or crashed", a);
	return result;
}

void step_join(struct step_world *w, int a)
{
	step_start(w, a);
	STEP_NEED(w, step_call(w, a, step_attach, 0, 0) == 0);
	STEP_NEED(w, step_call(w, a, step_touch, 0, 0) == 0);
}

void step_kill(struct step_world *w, int a)
{
	struct step_actor *actor = &w->actor[a];
	if (!actor->alive) return;
	kill(actor->pid, SIGKILL);
	int status;
	while (waitpid(actor->pid, &status, __WALL) >= 0 && !WIFSIGNALED(status) && !WIFEXITED(status)) {}
	close(actor->to);
	close(actor->from);
	actor->alive = false;
}

/* ---- worlds ---- */

static void *harness_memory(struct step_world *w, size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	STEP_NEED(w, memory != MAP_FAILED && madvise(memory, bytes, MADV_DONTFORK) == 0);
	return memory;
}

static void quiet(void *arg, const char *message)
{
	(void)arg;
	printf("  %s\n", message);
}

/* Of control only what is watched: what caches have there (of which the beginning is, where there are any) is large, and
 * so are the descriptors of slabs, which come, where there are slabs, right behind the rest. In the world's geometry they
 * are where they are mapped here. */
char *step_map_control(struct step_world *w, int fd)
{
	uint64_t rest = w->shape.caches  ? w->geometry.places_at + HP_PAGE_SIZE
	                : w->shape.heaps ? w->geometry.places_at
	                                 : w->geometry.caches_at;
	uint64_t slabs = w->control_size - rest;
	if (!w->control_size) {
		slabs = w->shape.slabs ? w->geometry.control_size - w->geometry.slabs_at : 0;
		w->control_size = rest + slabs;
		w->front = rest;
		w->slabs_at = w->geometry.slabs_at;
		w->geometry.slabs_at = rest;
	}
	char *at = mmap(NULL, w->control_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	STEP_NEED(w, at != MAP_FAILED);
	STEP_NEED(w, mmap(at, rest, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at);
	if (slabs)
		STEP_NEED(w, mmap(at + rest, slabs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)w->slabs_at) ==
		                 at + rest);
	return at;
}

struct step_world *step_open(const char *name, const struct step_pool *shape)
{
	struct step_world *w = calloc(1, sizeof *w);
	STEP_NEED(w, w);
	w->name = name;
	w->shape = *shape;
	w->effect = 0;
	w->giving = HP_OFF_NONE;
	for (int a = 0; a < STEP_ACTORS; a++) {
		w->actor[a].list = mmap(NULL, STEP_LIST * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		STEP_NEED(w, w->actor[a].list != MAP_FAILED);
	}
	struct hp_pool_options options = {.size = shape->pages * HP_PAGE_SIZE,
	                                  .capacity = shape->capacity * HP_PAGE_SIZE,
	                                  .choice = HP_CHOICE_REQUIRE,
	                                  .rung = HP_RUNG_4K,
	                                  .max_threads = 10,
	                                  .max_processes = 10,
	                                  .flags = shape->flags,
	                                  .log = quiet};
	hp_pool *pool;
	int fds[3];
	STEP_NEED(w, hp_pool_create(&options, &pool) == 0 && hp_pool_fds(pool, fds) == 0);
	w->geometry = pool->geometry;
	for (int i = 0; i < 3; i++) STEP_NEED(w, (w->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3)) >= 0);
	hp_pool_detach(pool);
	w->control = step_map_control(w, w->fds[1]);
	w->data_size = w->geometry.capacity;
	w->data = mmap(NULL, w->data_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, w->fds[2], 0);
	STEP_NEED(w, w->data != MAP_FAILED);
	madvise(w->data, w->data_size, MADV_DONTFORK);
	w->last = harness_memory(w, w->control_size);
	w->first = harness_memory(w, w->control_size);
	if (shape->heaps) w->last_data = harness_memory(w, w->data_size);
	return w;
}

void step_close(struct step_world *w)
{
	for (int a = 0; a < STEP_ACTORS; a++) {
		step_kill(w, a);
		munmap(w->actor[a].list, STEP_LIST * 8);
		free(w->actor[a].env);
	}
	step_copy_free(w);
	step_seen_free(w);
	munmap(w->last, w->control_size);
	munmap(w->first, w->control_size);
	if (w->last_data) munmap(w->last_data, w->data_size);
	munmap(w->control, w->control_size);
	munmap(w->data, w->data_size);
	for (int i = 0; i < 3; i++) close(w->fds[i]);
	free(w);
}

struct pool_header *step_header(struct step_world *w)
{
	return (struct pool_header *)(void *)w->control;
}

struct pool_chunk *step_chunks(struct step_world *w)
{
	return (struct pool_chunk *)(void *)(w->control + w->geometry.chunks_at);
}

struct pool_slot *step_slots(struct step_world *w)
{
	return (struct pool_slot *)(void *)(w->control + w->geometry.slots_at);
}

struct pool_record *step_records(struct step_world *w)
{
	return (struct pool_record *)(void *)(w->control + w->geometry.records_at);
}

struct slab *step_slabs(struct step_world *w)
{
	return (struct slab *)(void *)(w->control + w->geometry.slabs_at) + SLAB_GUARD;
}

bool step_slab_held(struct step_world *w, int actor)
{
	const struct parity_unit *units = (const struct parity_unit *)(const void *)(w->control + w->geometry.units_at);
	unsigned each = w->geometry.chunk_pages;
	(void)actor;
	for (uint64_t i = 0; i < (uint64_t)w->geometry.chunks * each; i++) {
		const struct parity_unit *unit = &units[i / each];
		uint64_t live = atomic_load(&unit->a[i % each / 64]) ^ atomic_load(&unit->r[i % each / 64]);
		if (live >> (i % 64) & 1 && ctl_state(atomic_load(&step_slabs(w)[i].ctl)) == CTL_RECOVERING) return true;
	}
	return false;
}

/* ---- the model ---- */

static uint64_t pattern(hp_off off, uint64_t i)
{
	return (off + i * 8 + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

void step_model_add_block(struct step_world *w, const struct step_block *block)
{
	unsigned i = w->blocks;
	STEP_NEED(w, w->blocks < STEP_BLOCKS);
	for (; i > 0 && w->block[i - 1].off > block->off; i--) w->block[i] = w->block[i - 1];
	w->block[i] = *block;
	w->blocks++;
	for (uint64_t k = block->skip / 8; k < block->bytes / 8; k++)
		((uint64_t *)(void *)(w->data + block->off))[k] = pattern(block->off, k);
}

void step_model_add(struct step_world *w, hp_off off, uint64_t pages, int owner)
{
	step_model_add_block(w, &(struct step_block){off, pages, pages * HP_PAGE_SIZE, owner, 0, false});
}

void step_model_add_object(struct step_world *w, hp_off off, uint64_t bytes)
{
	uint64_t size = step_size(bytes), pages = size > SLAB_MALLOC_MAX ? size / HP_PAGE_SIZE : 0;
	if (!pages) w->object = size;
	step_model_add_block(w, &(struct step_block){off, pages, size, -1, 0, false});
}

bool step_model_remove(struct step_world *w, hp_off off)
{
	for (unsigned i = 0; i < w->blocks; i++) {
		if (w->block[i].off != off) continue;
		for (w->blocks--; i < w->blocks; i++) w->block[i] = w->block[i + 1];
		return true;
	}
	return false;
}

static bool pattern_from(struct step_world *w, hp_off at, hp_off of, uint64_t from, uint64_t bytes)
{
	const uint64_t *word = (const uint64_t *)(const void *)(w->data + at);
	for (uint64_t k = from / 8; k < bytes / 8; k++)
		if (word[k] != pattern(of, k)) return false;
	return true;
}

bool step_pattern_at(struct step_world *w, hp_off at, hp_off of, uint64_t bytes)
{
	return pattern_from(w, at, of, 0, bytes);
}

uint64_t step_size(uint64_t bytes)
{
	return bytes > SLAB_MALLOC_MAX ? (bytes + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE * HP_PAGE_SIZE
	                               : slab_malloc_size(slab_malloc_class(bytes));
}

bool step_patterns_intact(struct step_world *w)
{
	for (unsigned i = 0; i < w->blocks; i++) {
		const struct step_block *block = &w->block[i];
		if (!pattern_from(w, block->off, block->off, block->skip, block->bytes)) {
			step_fail(w, "the bytes of the block at 0x%llx changed", (unsigned long long)block->off);
			return false;
		}
	}
	return step_marks_intact(w);
}

hp_off step_block(struct step_world *w, int a, uint64_t pages, unsigned flags)
{
	int64_t off = step_call(w, a, step_alloc, pages, flags);
	STEP_NEED(w, off >= 0);
	step_model_add(w, (hp_off)off, pages, flags & HP_PAGE_PROCESS ? a : -1);
	return (hp_off)off;
}

void step_unblock(struct step_world *w, int a, hp_off off)
{
	STEP_NEED(w, step_call(w, a, step_free, off, 0) == 0 && step_model_remove(w, off));
}

hp_off step_object(struct step_world *w, int a, uint64_t bytes)
{
	int64_t off = step_call(w, a, step_malloc, bytes, 0);
	STEP_NEED(w, off >= 0);
	step_model_add_object(w, (hp_off)off, bytes);
	return (hp_off)off;
}

void step_fill(struct step_world *w, int a, uint64_t bytes)
{
	for (int64_t off; (off = step_call(w, a, step_malloc, bytes, 0)) != -ENOMEM;) {
		STEP_NEED(w, off >= 0);
		step_model_add_object(w, (hp_off)off, bytes);
	}
}

void step_use_up(struct step_world *w, int a, uint64_t bytes)
{
	do step_object(w, a, bytes);
	while (step_call(w, a, step_at_hand, bytes, 0) > 0);
}

void step_unobject(struct step_world *w, int a, hp_off off)
{
	STEP_NEED(w, step_call(w, a, step_mfree, off, 0) == 0 && step_model_remove(w, off));
}

uint64_t step_word_value(const struct step_world *w)
{
	return w->word ? atomic_load((const _Atomic uint64_t *)(const void *)(w->data + w->word)) : 0;
}

/* The caches that are watched come first, and of the others nothing changes. */
static uint64_t watched(const struct step_world *w)
{
	return w->geometry.caches_at + (w->shape.caches ? STEP_WATCHED_CACHES * sizeof(struct pool_cache) : 0);
}

/* Constructors and destructors change nothing else. */
static unsigned marks(const struct step_world *w)
{
	uint64_t pages = w->geometry.capacity / HP_PAGE_SIZE;
	return !w->cache.built ? 0 : pages < STEP_MARKS ? (unsigned)pages : STEP_MARKS;
}

static uint64_t mark_at(const struct step_world *w, unsigned page)
{
	return *(const uint64_t *)(const void *)(w->data + (uint64_t)page * HP_PAGE_SIZE);
}

/* Parts of control that are watched; the rest of what is mapped does not change. */
static unsigned parts(const struct step_world *w, struct iovec part[4])
{
	const struct pool_geometry *g = &w->geometry;
	uint64_t to = watched(w), from = w->shape.caches ? g->waits_at : to;
	part[0] = (struct iovec){w->control, to};
	part[1] = (struct iovec){w->control + from, w->control_size - from};
	if (!w->shape.heaps) return 2;
	part[1] = (struct iovec){w->control + g->heaps_at, STEP_WATCHED_HEAPS * sizeof(struct heap_entry)};
	part[2] = (struct iovec){w->control + g->guards_at, g->places_at - g->guards_at};
	part[3] = (struct iovec){w->control + g->slabs_at, w->control_size - g->slabs_at};
	return 4;
}

/* Up to the last page that is in use. */
static uint64_t data_in_use(const struct step_world *w)
{
	const struct parity_unit *units = (const struct parity_unit *)(const void *)(w->control + w->geometry.units_at);
	const pool_map *map = (const pool_map *)(const void *)(w->control + w->geometry.map_at);
	uint64_t i = w->geometry.capacity / HP_PAGE_SIZE, each = w->geometry.chunk_pages;
	while (i > 0 && !atomic_load(&map[i - 1]) && !parity_live(&units[(i - 1) / each], (unsigned)((i - 1) % each))) i--;
	return i * HP_PAGE_SIZE;
}

bool step_changed(const struct step_world *w)
{
	struct iovec part[4];
	for (unsigned i = 0; i < marks(w); i++)
		if (mark_at(w, i) != w->last_mark[i]) return true;
	for (unsigned i = 0, n = parts(w, part); i < n; i++)
		if (memcmp(part[i].iov_base, w->last + ((char *)part[i].iov_base - w->control), part[i].iov_len)) return true;
	if (w->shape.heaps && memcmp(w->data, w->last_data, w->last_bytes)) return true;
	return step_word_value(w) != w->last_word;
}

void step_remember(struct step_world *w)
{
	struct iovec part[4];
	for (unsigned i = 0, n = parts(w, part); i < n; i++)
		memcpy(w->last + ((char *)part[i].iov_base - w->control), part[i].iov_base, part[i].iov_len);
	if (w->shape.heaps) memcpy(w->last_data, w->data, w->last_bytes = data_in_use(w));
	w->last_word = step_word_value(w);
	for (unsigned i = 0; i < marks(w); i++) w->last_mark[i] = mark_at(w, i);
}

/* Of what is remembered. */
uint64_t step_state(const struct step_world *w)
{
	uint64_t hash = step_hash(w->last_mark, marks(w) * sizeof *w->last_mark, 0);
	hash = step_hash(&w->last_word, sizeof w->last_word, hash);
	if (w->shape.heaps) hash = step_hash(w->last_data, w->last_bytes, hash);
	struct iovec part[4];
	for (unsigned i = 0, n = parts(w, part); i < n; i++)
		hash = step_hash(w->last + ((char *)part[i].iov_base - w->control), part[i].iov_len, hash);
	return hash;
}

/* ---- stepping ---- */

static void traced_registers(struct step_world *w, int a)
{
	struct iovec regs = {&w->regs, sizeof w->regs};
	STEP_NEED(w, ptrace(PTRACE_GETREGSET, w->actor[a].pid, (void *)NT_PRSTATUS, &regs) == 0);
}

/* Waits for the next stop; anything but a trap is a failure of what is stepped. */
static bool traced_wait(struct step_world *w, int a)
{
	int status;
	while (waitpid(w->actor[a].pid, &status, __WALL) < 0) STEP_NEED(w, errno == EINTR);
	if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP) return true;
	if (WIFSTOPPED(status))
		step_fail(w, "stopped by signal %d (%s)", WSTOPSIG(status), strsignal(WSTOPSIG(status)));
	else
		step_fail(w, "ended with status 0x%x", (unsigned)status);
	if (!WIFSTOPPED(status)) w->actor[a].alive = false;
	step_broken(w, __FILE__, __LINE__, "the victim is gone");
}

void step_begin(struct step_world *w, int a, step_fn *fn, uint64_t x, uint64_t y)
{
	struct step_actor *actor = &w->actor[a];
	struct command command = {.fn = fn, .x = x, .y = y, .stepped = 1};
	if (!actor->traced) {
		STEP_NEED(w, ptrace(PTRACE_SEIZE, actor->pid, NULL, PTRACE_O_EXITKILL) == 0);
		actor->traced = true;
	}
	STEP_NEED(w, write(actor->to, &command, sizeof command) == sizeof command);
	traced_wait(w, a);
	traced_registers(w, a);
	w->instructions = 0;
}

bool step_one(struct step_world *w, int a)
{
	STEP_NEED(w, ptrace(PTRACE_SINGLESTEP, w->actor[a].pid, NULL, NULL) == 0);
	traced_wait(w, a);
	traced_registers(w, a);
	if (w->regs.INSTRUCTION == (uintptr_t)step_mark_end) return false;
	w->instructions++;
	return true;
}

void step_until(struct step_world *w, int a, bool (*there)(struct step_world *world, int actor))
{
	while (!there(w, a)) STEP_NEED(w, step_one(w, a));
}

#ifdef __x86_64__
static bool watch_word(struct step_world *w, pid_t pid, unsigned k, uint64_t address)
{
	(void)w;
	return ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg) + k * 8, address) == 0;
}

void step_until_written(struct step_world *w, int a, bool (*there)(struct step_world *world, int actor),
                        const void *const *word, unsigned words)
{
	pid_t pid = w->actor[a].pid;
	uint64_t control = 0;
	unsigned long switches = 0;
	/* the handle lies at an address of the actor's own */
	struct step_env *env = w->actor[a].env;
	struct iovec to = {0}, from = {0};
	hp_pool *handle = NULL;
	to = (struct iovec){&handle, sizeof handle};
	from = (struct iovec){&env->pool, sizeof handle};
	STEP_NEED(w, process_vm_readv(pid, &to, 1, &from, 1, 0) == sizeof handle && handle);
	to = (struct iovec){&control, sizeof control};
	from = (struct iovec){&handle->control, sizeof control};
	STEP_NEED(w, process_vm_readv(pid, &to, 1, &from, 1, 0) == sizeof control);
	bool set = words > 0;
	for (unsigned k = 0; k < words && set; k++) {
		set = watch_word(w, pid, k, control + (uint64_t)((const char *)word[k] - w->control));
		switches |= 1ul << (2 * k) | 9ul << (16 + 4 * k); /* writes, 8 bytes */
	}
	set = set && watch_word(w, pid, 7, switches);
	while (!there(w, a)) {
		if (words && !set) { /* no debug registers here */
			STEP_NEED(w, step_one(w, a));
			continue;
		}
		STEP_NEED(w, ptrace(words ? PTRACE_CONT : PTRACE_SYSCALL, pid, NULL, NULL) == 0);
		traced_wait(w, a);
		traced_registers(w, a);
		STEP_NEED(w, w->regs.INSTRUCTION != (uintptr_t)step_mark_end);
	}
	if (words) watch_word(w, pid, 7, 0);
}
#else
void step_until_written(struct step_world *w, int a, bool (*there)(struct step_world *world, int actor),
                        const void *const *word, unsigned words)
{
	(void)word, (void)words;
	step_until(w, a, there);
}
#endif

int64_t step_finish(struct step_world *w, int a)
{
	while (w->regs.INSTRUCTION != (uintptr_t)step_mark_end) {
		STEP_NEED(w, ptrace(PTRACE_CONT, w->actor[a].pid, NULL, NULL) == 0);
		/* an operation that waits for somebody would wait for ever here: the runner's time limit finds it */
		traced_wait(w, a);
		traced_registers(w, a);
	}
	STEP_NEED(w, ptrace(PTRACE_CONT, w->actor[a].pid, NULL, NULL) == 0);
	int64_t result = step_receive(w, a);
	if (result == INT64_MIN) step_broken(w, __FILE__, __LINE__, "the victim did not answer");
	return result;
}

bool step_inside(struct step_world *w, int a)
{
	const struct pool_slot *slot = (const struct pool_slot *)(const void *)(w->control + w->geometry.slots_at);
	int record = step_record(w, w->control, a);
	for (uint32_t i = 0; i < w->geometry.slots; i++) {
		uint64_t word = atomic_load(&slot[i].word);
		if (slot_state(word) == SLOT_LIVE && (int)slot_record(word) == record && atomic_load(&slot[i].in_op))
			return true;
	}
	return false;
}

bool step_at_syscall(const struct step_world *w)
{
	const unsigned char *code = (const unsigned char *)(uintptr_t)w->regs.INSTRUCTION;
	return code[0] == 0x0f && code[1] == 0x05;
}

void step_need_ptrace(void)
{
#ifndef __x86_64__
	printf("skipped: the stepping harness knows x86-64 only\n");
	exit(77);
#endif
	pid_t pid = fork();
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) _exit(1);
		raise(SIGSTOP);
		_exit(0);
	}
	int status = 0;
	bool good = pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) &&
	            ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid &&
	            WIFSTOPPED(status);
	if (pid > 0 && WIFSTOPPED(status)) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	if (good) return;
	printf("skipped: ptrace is not permitted here (seccomp, or kernel.yama.ptrace_scope = 3)\n");
	exit(77);
}
