/* Growth, and the settling of growth (or trimming) that a dead process left unfinished.
 *
 * Under the growth lock, which is a word with the holder's record in it and is taken over from the dead: the range is
 * written down as a plan, then populated (control first, then data), verified, and only then published chunk by chunk.
 * Until the phase PUBLISHING is stored nothing of the range is anybody's, and whoever finds the holder dead punches it, so
 * that no page of a dead grower stays on a wrong node; after it, whoever comes finishes publishing. */
#include "pool/create.h"
#include "pool/recover.h"
#include "pool/record.h"
#include "os/os.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GROWTH_SLICE_NS UINT64_C(5000000)
#define GROWTH_STEP (UINT64_C(64) << 20)
#define GROWTH_PATIENCE_NS UINT64_C(1000000000) /* without progress of a living holder */

static _Thread_local const hp_pool *growing; /* whose lock this thread holds */

static uint64_t lock_make(uint32_t holder, uint32_t generation, uint64_t old)
{
	return (uint64_t)holder << 48 | (uint64_t)(generation & RECORD_GENERATIONS) << 24 | ((old + 1) & 0xffffff);
}

static bool lock_holder_dead(hp_pool *pool, uint64_t word)
{
	uint32_t record = (uint32_t)(word >> 48) - 1, generation = (uint32_t)(word >> 24) & RECORD_GENERATIONS;
	return record >= pool->record_count || record_is_over(pool, record, generation) || record_alive(pool, record) == 0;
}

static bool lock_try(hp_pool *pool, uint64_t word)
{
	if (!atomic_compare_exchange_strong_explicit(&pool->header->growth_lock, &word,
	                                             lock_make(pool->record + 1, pool->record_generation, word),
	                                             memory_order_acq_rel, memory_order_relaxed))
		return false;
	/* closed behind our back, and its number perhaps a file of the application by now: no hole is to be punched there.
	 * The mapping does as well. */
	int fd = pool_fd_intact(&pool->data_fd) ? pool->data_fd.fd : -1;
	if (pool->data.fd != fd) pool->data.fd = fd; /* a lock word that a peer wrote may let two threads in */
	growing = pool;
	return true;
}

int growth_lock(hp_pool *pool)
{
	struct pool_header *header = pool->header;
	uint64_t progress = atomic_load(&header->plan_progress), since = os_now_ns();
	if (growing == pool) return -EBUSY; /* a signal handler on the thread that holds it */
	if (!participant_enter(pool)) return -EBUSY;
	for (;;) {
		uint32_t turn = atomic_load_explicit(&header->growth_futex, memory_order_acquire);
		uint64_t word = atomic_load_explicit(&header->growth_lock, memory_order_acquire);
		if (word >> 48 == 0 || lock_holder_dead(pool, word)) {
			if (!lock_try(pool, word)) continue;
			growth_settle(pool);
			return 0;
		}
		os_futex_wait(&header->growth_futex, turn, GROWTH_SLICE_NS);
		uint64_t now = os_now_ns(), moved = atomic_load(&header->plan_progress);
		if (moved != progress || turn != atomic_load(&header->growth_futex)) {
			progress = moved;
			since = now;
		} else if (now - since > GROWTH_PATIENCE_NS) {
			participant_exit();
			return -EBUSY;
		}
	}
}

void growth_unlock(hp_pool *pool)
{
	struct pool_header *header = pool->header;
	uint64_t word = atomic_load_explicit(&header->growth_lock, memory_order_relaxed);
	atomic_store_explicit(&header->growth_lock, lock_make(0, 0, word), memory_order_release);
	atomic_fetch_add_explicit(&header->growth_futex, 1, memory_order_release);
	os_futex_wake(&header->growth_futex, 1 << 20);
	growing = NULL;
	participant_exit();
}

void growth_follow_fork(hp_pool *pool)
{
	_Atomic uint64_t *lock = &pool->header->growth_lock;
	uint64_t word = atomic_load_explicit(lock, memory_order_relaxed);
	if (growing == pool)
		atomic_store_explicit(lock, lock_make(pool->record + 1, pool->record_generation, word), memory_order_relaxed);
}

uint32_t growth_group(const hp_pool *pool)
{
	uint64_t chunk = pool_chunk_bytes(pool);
	return pool->data.page_size > chunk ? (uint32_t)(pool->data.page_size / chunk) : 1;
}

static bool group_is(const hp_pool *pool, uint32_t from, uint32_t count, enum ctl_state state)
{
	for (uint32_t i = from; i < from + count; i++)
		if (ctl_state(atomic_load_explicit(&pool->chunks[i].ctl, memory_order_acquire)) != state) return false;
	return true;
}

static void plan_write(hp_pool *pool, enum plan_phase phase, uint32_t from, uint32_t to)
{
	struct pool_header *header = pool->header;
	atomic_store_explicit(&header->plan_from, from, memory_order_relaxed);
	atomic_store_explicit(&header->plan_to, to, memory_order_relaxed);
	/* commit: from here on the next holder of the lock deals with the range */
	atomic_store_explicit(&header->plan_phase, phase, memory_order_release);
}

void growth_plan_trim(hp_pool *pool, uint32_t from, uint32_t to)
{
	plan_write(pool, PLAN_TRIMMING, from, to);
}

void growth_plan_clear(hp_pool *pool)
{
	atomic_store_explicit(&pool->header->plan_phase, PLAN_NONE, memory_order_release);
}

/* Chunks [from, to), populated and verified, become anybody's. Absolute, so it can be repeated. */
static void publish(hp_pool *pool, uint32_t from, uint32_t to)
{
	uint32_t top = atomic_load_explicit(&pool->header->committed_top, memory_order_relaxed);
	for (uint32_t i = from; i < to; i++) {
		uint64_t ctl = atomic_load_explicit(&pool->chunks[i].ctl, memory_order_relaxed);
		if (ctl_state(ctl) != CTL_UNCOMMITTED) continue;
		atomic_store_explicit(&pool->hints[i], (uint8_t)(32 - __builtin_clz(pool->chunk_pages)), memory_order_relaxed);
		/* commit: the chunk can be owned */
		atomic_compare_exchange_strong_explicit(&pool->chunks[i].ctl, &ctl, ctl_make(CTL_UNOWNED, 0, 0, ctl),
		                                        memory_order_release, memory_order_relaxed);
	}
	if (to > top) atomic_store_explicit(&pool->header->committed_top, to, memory_order_release);
}

static void punch_uncommitted(hp_pool *pool, uint32_t from, uint32_t to)
{
	uint32_t group = growth_group(pool);
	for (uint32_t i = from - from % group; i + group <= pool->chunk_count && i < to; i += group)
		if (group_is(pool, i, group, CTL_UNCOMMITTED))
			backing_punch(&pool->data, i * pool_chunk_bytes(pool), (i + group) * pool_chunk_bytes(pool));
}

void growth_settle(hp_pool *pool)
{
	struct pool_header *header = pool->header;
	uint32_t phase = atomic_load_explicit(&header->plan_phase, memory_order_acquire);
	uint32_t from = atomic_load(&header->plan_from), to = atomic_load(&header->plan_to);
	uint32_t group = growth_group(pool);
	from -= from % group; /* as it was written, unless somebody has tampered with it */
	if (to > pool->chunk_count) to = pool->chunk_count;
	if (phase == PLAN_NONE) return;
	if (from < to && phase == PLAN_PUBLISHING) {
		publish(pool, from, to);
	} else if (from < to) {
		/* a huge page of which only some chunks were trimmed is still there: those go back to use */
		for (uint32_t i = from; phase == PLAN_TRIMMING && i < to; i += group)
			if (!group_is(pool, i, group, CTL_UNCOMMITTED)) publish(pool, i, i + group);
		punch_uncommitted(pool, from, to);
	}
	growth_plan_clear(pool);
}

void growth_recover(hp_pool *pool)
{
	uint64_t word = atomic_load_explicit(&pool->header->growth_lock, memory_order_acquire);
	if (word >> 48 == 0 || !lock_holder_dead(pool, word) || !participant_enter(pool)) return;
	if (!lock_try(pool, word)) {
		participant_exit();
		return;
	}
	growth_settle(pool);
	growth_unlock(pool);
}

struct grow_progress {
	hp_pool *pool;
	hp_progress_fn *call;
	void *arg;
};

static int on_progress(void *arg, uint64_t done, uint64_t todo, int node)
{
	struct grow_progress *progress = arg;
	/* those who wait for the lock see that the holder is alive and at work */
	atomic_fetch_add_explicit(&progress->pool->header->plan_progress, 1, memory_order_relaxed);
	return progress->call ? progress->call(progress->arg, done, todo, node) : 0;
}

/* The node that the whole chunk lies on, or -1: none, several, or it cannot be told. Policies that spill over (PREFERRED,
 * BIND of several nodes) and INTERLEAVE of small pages mix nodes inside a chunk, which must not serve a strict request. */
static int node_of_chunk(const hp_pool *pool, uint32_t chunk)
{
	int node[256], one = -1;
	uint64_t bytes = pool_chunk_bytes(pool), at = chunk * bytes, end = at + bytes;
	uint64_t step = pool->data.page_size < bytes ? pool->data.page_size : bytes;
	uint64_t nodes = os_nodes_with_memory();
	if (!(nodes & (nodes - 1))) step = bytes; /* nowhere else to be */
	for (uint64_t count; at < end; at += count * step) {
		count = (end - at) / step < 256 ? (end - at) / step : 256;
		if (backing_where(&pool->data, at, at + count * step, step, node, (unsigned)count) < 0) return -1;
		if (at == chunk * bytes) one = node[0];
		for (uint64_t i = 0; i < count; i++)
			if (node[i] != one) return -1;
	}
	return one;
}

/* Which node each chunk lies on, for the allocator's preferences. */
static void note_nodes(hp_pool *pool, uint32_t from, uint32_t to, const struct hp_numa *numa)
{
	if (pool->private) { /* told by what was asked for; most of it is not there yet */
		uint64_t nodes = numa->policy == HP_NUMA_BIND ? backing_nodes(numa) : os_nodes_with_memory();
		bool one = !(nodes & (nodes - 1));
		memset((void *)(pool->nodes + from), one ? __builtin_ctzll(nodes) : POOL_NODE_ANY, to - from);
		if (one) atomic_fetch_or_explicit(&pool->header->committed_nodes, nodes, memory_order_relaxed);
		return;
	}
	uint64_t seen = numa->policy == HP_NUMA_INTERLEAVE ? backing_nodes(numa) : 0;
	for (uint32_t i = from; i < to; i++) {
		int node = node_of_chunk(pool, i);
		if (node < 0 && pool->single_node) node = __builtin_ctzll(os_nodes_with_memory()); /* where else */
		bool one = node >= 0 && node < HP_MAX_NODES;
		atomic_store_explicit(&pool->nodes[i], one ? (uint8_t)node : POOL_NODE_ANY, memory_order_relaxed);
		if (one) seen |= UINT64_C(1) << node;
	}
	atomic_fetch_or_explicit(&pool->header->committed_nodes, seen, memory_order_relaxed);
}

void growth_publish_first(hp_pool *pool, uint32_t to)
{
	note_nodes(pool, 0, to, &pool->numa);
	publish(pool, 0, to);
}

/* With the lock held: commits `chunks` more, a multiple of the group, in as many pieces as there are holes. */
static int grow_locked(hp_pool *pool, uint32_t chunks, const struct hp_numa *numa, unsigned threads,
                       struct grow_progress *progress, struct hp_report *report)
{
	uint32_t group = growth_group(pool), at = 0;
	while (chunks) {
		while (at + group <= pool->chunk_count && !group_is(pool, at, group, CTL_UNCOMMITTED)) at += group;
		if (at + group > pool->chunk_count) return -ENOSPC;
		uint32_t to = at;
		while (to + group <= pool->chunk_count && to - at < chunks && group_is(pool, to, group, CTL_UNCOMMITTED))
			to += group;
		plan_write(pool, PLAN_POPULATING, at, to);
		int error = pool->private ? 0 : pool_control_populate(pool->control, &pool->geometry, at, to);
		if (error == 0)
			error = backing_commit(&pool->data, at * pool_chunk_bytes(pool), to * pool_chunk_bytes(pool), numa, threads,
			                       on_progress, progress, report);
		if (error < 0) {
			growth_plan_clear(pool); /* backing_commit gave back what it took */
			return error;
		}
		note_nodes(pool, at, to, numa);
		/* commit: the range is real; a death from here on finishes instead of undoing */
		atomic_store_explicit(&pool->header->plan_phase, PLAN_PUBLISHING, memory_order_release);
		publish(pool, at, to);
		growth_plan_clear(pool);
		chunks -= to - at < chunks ? to - at : chunks;
		at = to;
	}
	return 0;
}

static uint32_t chunks_for(const hp_pool *pool, uint64_t bytes)
{
	uint64_t unit = growth_group(pool) * pool_chunk_bytes(pool);
	uint64_t units = bytes / unit + (bytes % unit != 0);
	uint64_t chunks = units * growth_group(pool);
	return chunks > pool->chunk_count ? pool->chunk_count + 1 : (uint32_t)chunks;
}

uint32_t growth_left(const hp_pool *pool)
{
	uint32_t top = pool_top(pool), left = pool->chunk_count - top; /* what lies above is not even looked at */
	for (uint32_t i = 0; i < top; i++)
		left += ctl_state(atomic_load_explicit(&pool->chunks[i].ctl, memory_order_relaxed)) == CTL_UNCOMMITTED;
	return left;
}

static int grow(hp_pool *pool, uint64_t bytes, const struct hp_numa *numa, unsigned threads,
                struct grow_progress *progress, struct hp_report *report)
{
	uint32_t chunks = chunks_for(pool, bytes);
	if (chunks > growth_left(pool)) return -ENOSPC;
	return grow_locked(pool, chunks, numa ? numa : &pool->numa, threads, progress, report);
}

int hp_pool_grow(hp_pool *pool, uint64_t bytes, const struct hp_numa *numa, struct hp_report *report)
{
	if (!pool || bytes == 0) return -EINVAL;
	int error;
	if (!participant_get(pool, &error)) return error;
	struct hp_report unwanted; /* no malloc: this may be in the middle of one */
	struct hp_report *own = report ? report : &unwanted;
	struct grow_progress progress = {.pool = pool};
	error = growth_lock(pool);
	if (error == 0) {
		error = grow(pool, bytes, numa, 0, &progress, own);
		growth_unlock(pool);
	}
	return error == -EBUSY ? -ENOMEM : error;
}

/* An allocation may be made by a signal handler, and so may this: no malloc, hence one thread and small steps. */
int grow_for(hp_pool *pool, uint64_t bytes, const struct hp_numa *numa)
{
	if (pool->geometry.flags & HP_POOL_NO_AUTOGROW || growth_left(pool) == 0) return -ENOSPC;
	uint32_t turn = atomic_load_explicit(&pool->header->growth_futex, memory_order_acquire);
	int error = growth_lock(pool);
	if (error < 0) return -ENOMEM;
	/* somebody else has grown the pool while we waited: look again before taking more */
	if (atomic_load_explicit(&pool->header->growth_futex, memory_order_acquire) == turn) {
		struct hp_report report = {0};
		struct grow_progress progress = {.pool = pool};
		uint64_t left = growth_left(pool) * pool_chunk_bytes(pool), step = GROWTH_STEP;
		/* of private memory no more is populated than an eighth of what is there; lazily it costs nothing */
		uint64_t eighth = (pool->capacity - left) / 8;
		if (pool->private && !(pool->geometry.flags & POOL_LAZY) && step > eighth) step = eighth;
		if (step < bytes) step = bytes;
		if (step > left) step = left;
		error = grow(pool, step, numa, 1, &progress, &report);
		if (error < 0 && bytes < step) error = grow(pool, bytes, numa, 1, &progress, &report);
	}
	growth_unlock(pool);
	return error;
}

/* ---- populating in the background ---- */

struct background {
	hp_pool *pool;
	_Atomic uint32_t stop;
	uint32_t generation; /* the process that runs it */
	uint64_t bytes;
	unsigned threads;
	unsigned long thread;
};

static void *background_run(void *arg)
{
	struct background *background = arg;
	hp_pool *pool = background->pool;
	uint64_t step = growth_group(pool) * pool_chunk_bytes(pool);
	if (step < UINT64_C(64) << 20) step = UINT64_C(64) << 20;
	struct hp_report *report = calloc(1, sizeof *report);
	struct grow_progress progress = {.pool = pool};
	while (report && background->bytes && !atomic_load(&background->stop)) {
		uint64_t bytes = background->bytes < step ? background->bytes : step;
		int error = growth_lock(pool);
		if (error == 0) {
			error = grow(pool, bytes, NULL, background->threads, &progress, report);
			growth_unlock(pool);
		}
		if (error < 0) {
			pool_log(pool, "hugepool: populating in the background ended early: %s", strerror(-error));
			break;
		}
		background->bytes -= bytes;
	}
	free(report);
	return NULL;
}

int background_start(hp_pool *pool, uint64_t bytes, unsigned threads)
{
	struct background *background = calloc(1, sizeof *background);
	if (!background) return -ENOMEM;
	*background = (struct background){
		.pool = pool, .generation = participant_fork_generation(), .bytes = bytes, .threads = threads};
	int error = os_thread(background_run, background, &background->thread);
	if (error < 0)
		free(background);
	else
		pool->background = background;
	return error;
}

void background_stop(hp_pool *pool)
{
	struct background *background = pool->background;
	if (!background) return;
	pool->background = NULL;
	if (background->generation == participant_fork_generation()) { /* else it stayed with the parent */
		atomic_store(&background->stop, 1);
		os_join(background->thread);
	}
	free(background);
}
