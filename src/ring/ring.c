/* A ring's life.
 *
 * The rings of a process are in a list, under the lock that keeps fork and registration apart: a child is to let go of the kernel's
 * side of all of them, since a ring lives as long as anybody has it open, and so would its I/O and its pins. The mappings are not
 * inherited (MADV_DONTFORK), the descriptors are closed by the child's fork handler. The list also tells which ring's
 * registration a new one can share.
 *
 * A ring ends in this order: all I/O, which is waited for; the buffers and the memory that the kernel has registered; the
 * kernel's ring; the pins. Whoever dies on the way leaves the rest to the kernel, and the pins to whoever recovers the dead. */
#include "ring/ring.h"
#include "pool/participant.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static hp_ring *all_rings;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

hp_ring *ring_first(void)
{
	return all_rings;
}

static void fork_child(void)
{
	for (hp_ring *ring = all_rings; ring; ring = ring->next) {
		if (!ring->plain && ring->kernel.ring_fd >= 0) os_close(ring->kernel.ring_fd);
		if (ring->life >= 0) os_close(ring->life);
		ring->kernel.ring_fd = ring->life = -1;
	}
}

static void register_fork(void)
{
	os_atfork(NULL, NULL, fork_child);
}

static void unlist(hp_ring *ring)
{
	struct participant_guard guard;
	if (participant_lock(&guard) < 0) return; /* a child without memory: its list is looked at by nobody */
	for (hp_ring **link = &all_rings; *link; link = &(*link)->next)
		if (*link == ring) {
			*link = ring->next;
			break;
		}
	participant_unlock(&guard);
}

static void free_ring(hp_ring *ring)
{
	free(ring->requests);
	free(ring->free);
	free(ring->files);
	free(ring->registered);
	free(ring->others);
	free(ring->polls);
	free(ring->polled);
	free(ring->buffers.object);
	free(ring->buffers.empty);
	free(ring->buffers.laid);
	free(ring);
}

/* 0: more than `most`. */
static unsigned power_of_2(unsigned n, unsigned most)
{
	unsigned power = 1;
	if (n > most) return 0;
	while (power < n) power *= 2;
	return power;
}

static int options_read(const struct hp_ring_options *given, struct hp_ring_options *options)
{
	const unsigned known = HP_RING_PLAIN | HP_RING_REQUIRE | HP_RING_UNREGISTERED | HP_RING_ONE_THREAD |
	                       HP_RING_REPORT_EMPTY;
	*options = (struct hp_ring_options){0};
	if (given) {
		if (given->struct_size != sizeof *given) return -EINVAL;
		*options = *given;
	}
	if (options->report && options->report->struct_size != sizeof *options->report) return -EINVAL;
	if (options->flags & ~known || (options->flags & HP_RING_PLAIN && options->flags & HP_RING_REQUIRE)) return -EINVAL;
	options->depth = power_of_2(options->depth ? options->depth : 128, 32768);
	options->requests = power_of_2(
		options->requests > options->depth || !options->depth ? options->requests : 2 * options->depth, 65536);
	options->buffers = power_of_2(options->buffers ? options->buffers : options->requests,
	                              options->buffers ? 32768 : 65536);
	if (options->buffers > 32768) options->buffers = 32768;
	if (!options->files) options->files = 64;
	return options->depth && options->requests && options->buffers && options->files <= 16384 ? 0 : -EINVAL;
}

static hp_ring *allocate(hp_pool *pool, const struct hp_ring_options *options)
{
	hp_ring *ring = calloc(1, sizeof *ring);
	if (!ring) return NULL;
	uint64_t capacity = pool ? pool->capacity : 0;
	ring->slices = (uint32_t)((capacity + RING_SLICE - 1) >> RING_SLICE_SHIFT);
	ring->requests = aligned_alloc(64, options->requests * sizeof *ring->requests);
	ring->free = calloc(options->requests, sizeof *ring->free);
	ring->files = calloc(options->files, sizeof *ring->files);
	ring->registered = calloc(ring->slices + 1, sizeof *ring->registered);
	if (!ring->requests || !ring->free || !ring->files || !ring->registered) {
		free_ring(ring);
		return NULL;
	}
	memset(ring->requests, 0, options->requests * sizeof *ring->requests);
	for (uint32_t i = 0; i < options->requests; i++) ring->free[i] = options->requests - 1 - i;
	for (uint32_t i = 0; i < options->files; i++) ring->files[i] = -1;
	ring->request_count = ring->free_count = options->requests;
	ring->file_count = options->files;
	ring->depth = options->depth;
	ring->buffer_most = options->buffers;
	ring->flags = options->flags;
	ring->kernel.ring_fd = ring->life = -1;
	ring->pool = pool;
	ring->base = pool ? pool->base : NULL;
	ring->capacity = capacity;
	ring->log = options->log ? options->log : pool ? pool->log : NULL;
	ring->log_arg = options->log ? options->log_arg : pool ? pool->log_arg : NULL;
	return ring;
}

/* Both engines; the pins are open, and `life` goes to where the kernel's I/O ends. */
static int begin(hp_ring *ring, const struct hp_ring_options *options, int life)
{
	struct participant_guard guard;
	int error = 0;
	ring->plain = options->flags & HP_RING_PLAIN;
	if (!ring->plain) {
		if ((error = participant_lock(&guard)) < 0) return error;
		if ((error = ring_setup(ring, options)) == 0) {
			ring->next = all_rings;
			all_rings = ring;
		}
		participant_unlock(&guard);
		if (error < 0 && (options->flags & HP_RING_REQUIRE || error == -EMFILE || error == -ENFILE)) return error;
		ring->plain = error < 0;
	}
	if (!ring->plain) {
		if (life >= 0 && (error = ring_register_life(ring, life)) < 0) {
			unlist(ring);
			io_uring_queue_exit(&ring->kernel);
			return error;
		}
		if (life >= 0) os_close(life);
		ring->report.io_uring = true;
		ring->report.zero_copy = ring->zero_copy;
		if (ring->pool && !(options->flags & HP_RING_UNREGISTERED)) {
			error = ring_register_memory(ring);
			if (error < 0) ring_explain_memory(ring, error);
		}
		if (options->flags & HP_RING_ONE_THREAD) ring_register_self(ring);
		return 0;
	}
	ring->polls = calloc(ring->request_count, sizeof *ring->polls);
	ring->polled = calloc(ring->request_count, sizeof *ring->polled);
	if (!ring->polls || !ring->polled || participant_lock(&guard) < 0) return -ENOMEM;
	ring->life = life;
	ring->next = all_rings;
	all_rings = ring;
	participant_unlock(&guard);
	return 0;
}

int hp_ring_create(hp_pool *pool, const struct hp_ring_options *given, hp_ring **out)
{
	struct hp_ring_options options;
	int life = -1, error = options_read(given, &options);
	if (!out) return -EINVAL;
	*out = NULL;
	if (error < 0) return error;
	if (pool && pool->observer) return -EROFS;
	if (pool && pool->private) return -ENOTSUP;
	pthread_once(&fork_once, register_fork);
	const _Atomic uint32_t *live = participant_fork_word();
	hp_ring *ring = live ? allocate(pool, &options) : NULL;
	if (!ring) return -ENOMEM;
	ring->live = live;
	ring->pools_seen = atomic_load(&participant_pool_changes) - 1;
	ring->tid = os_tid();
	ring->report.struct_size = sizeof ring->report;
	if (pool) error = pin_open(pool, options.requests + options.buffers, &ring->pins, &life);
	if (error == 0 && (error = begin(ring, &options, life)) < 0) {
		if (life >= 0) os_close(life); /* first, or its byte is waited for */
		if (ring->pins) pin_close(ring->pins);
	}
	if (options.report) *options.report = ring->report;
	if (error == 0 && ring->report.error && ring->log) {
		char line[480];
		snprintf(line, sizeof line, "ring: %s; cure: %s", ring->report.cause, ring->report.cure);
		ring->log(ring->log_arg, line);
	}
	if (error < 0) {
		free_ring(ring);
		return error;
	}
	*out = ring;
	return 0;
}

int hp_ring_destroy(hp_ring *ring)
{
	if (!ring) return 0;
	if (ring->calling) return -EBUSY;
	bool inherited = ring_is_inherited(ring);
	if (!inherited && ring->flags & HP_RING_ONE_THREAD && ring->tid != os_tid()) return -EPERM;
	unlist(ring);
	if (ring->plain) {
		plain_end(ring);
	} else if (!inherited) {
		ring_unregister_self(ring);
		ring_drain(ring);
		ring_buffers_end(ring);
		ring_unregister(ring);
		if (ring->error < 0) ring->kernel.ring_fd = -1; /* a number that is somebody else's by now */
		io_uring_queue_exit(&ring->kernel);
	}
	if (ring->life >= 0) os_close(ring->life);
	if (ring->pins) pin_close(ring->pins);
	free_ring(ring);
	return 0;
}

int hp_ring_report(const hp_ring *ring, struct hp_ring_report *report)
{
	if (!ring || !report || report->struct_size != sizeof *report) return -EINVAL;
	*report = ring->report;
	return 0;
}

static void say_nothing(void *arg, const char *message)
{
	(void)arg;
	(void)message;
}

int hp_ring_preflight(hp_pool *pool, struct hp_ring_report *report)
{
	if (!report || report->struct_size != sizeof *report) return -EINVAL;
	struct hp_ring_options options = {
		.struct_size = sizeof options, .depth = 1, .requests = 2, .files = 1, .report = report};
	hp_ring *ring;
	options.log = say_nothing;
	int error = hp_ring_create(pool, &options, &ring);
	if (error < 0) return error;
	hp_ring_destroy(ring);
	return report->error;
}

unsigned hp_ring_pending(const hp_ring *ring)
{
	return ring ? ring->request_count - ring->free_count : 0;
}
