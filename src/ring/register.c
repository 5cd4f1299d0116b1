/* Memory and files that the kernel has registered, and the ring itself: with the thread that alone uses it, so that entering the
 * kernel takes no look into the process' table of descriptors either.
 *
 * Buffer number i of the table is what is committed of the pool's slice i of 1 GiB, from the slice's start to the first hole: what was
 * trimmed is not registered, since looking at it would bring it back. The table has a place for each slice of the capacity from
 * the start, so that what grows is put in without disturbing I/O that is under way. While memory is registered the pool is not
 * trimmed (pin_registered), so what was committed once stays so. */
#include "ring/ring.h"
#include "os/host.h"
#include "pool/participant.h"
#include <errno.h>
#include <string.h>

#ifndef IORING_REGISTER_CLONE_BUFFERS
#define IORING_REGISTER_CLONE_BUFFERS 30 /* Linux 6.12, liburing 2.8 */
#endif
#define USE_REGISTERED_RING (1u << 31) /* Linux 6.3, liburing 2.4 */
struct clone_buffers {
	uint32_t source, flags, source_first, first, count, pad[3];
};

/* Bytes from the start of a slice. */
static uint64_t committed_from(const hp_pool *pool, uint32_t slice)
{
	uint64_t chunk_bytes = pool_chunk_bytes(pool);
	uint32_t per_slice = (uint32_t)(RING_SLICE / chunk_bytes), first = slice * per_slice, top = pool_top(pool), n = 0;
	while (n < per_slice && first + n < top &&
	       ctl_state(atomic_load_explicit(&pool->chunks[first + n].ctl, memory_order_acquire)) != CTL_UNCOMMITTED)
		n++;
	uint64_t bytes = n * chunk_bytes, most = pool->capacity - slice * RING_SLICE;
	return bytes < most ? bytes : most;
}

static void count_memory(hp_ring *ring)
{
	struct hp_ring_report *report = &ring->report;
	report->registered = report->committed = 0;
	for (uint32_t i = 0; i < ring->slices; i++) {
		report->registered += ring->registered[i];
		report->committed += committed_from(ring->pool, i);
	}
	report->memlock_needed = report->committed;
	uint64_t soft, hard;
	bool exempt;
	host_memlock(&soft, &hard, &exempt);
	report->memlock_limit = exempt || soft >= HOST_NO_LIMIT ? UINT64_MAX : soft;
}

static int update(hp_ring *ring)
{
	int fd = ring->kernel.ring_fd, error = 0;
	for (uint32_t i = 0; i < ring->slices && error >= 0; i++) {
		uint64_t bytes = committed_from(ring->pool, i);
		if (bytes <= ring->registered[i]) continue;
		struct iovec memory = {.iov_base = ring->base + i * RING_SLICE, .iov_len = bytes};
		struct io_uring_rsrc_update2 change = {.offset = i, .data = (uintptr_t)&memory, .nr = 1};
		error = os_uring_register(fd, IORING_REGISTER_BUFFERS_UPDATE, &change, sizeof change);
		if (error >= 0) ring->registered[i] = bytes;
	}
	count_memory(ring);
	return error < 0 ? error : 0;
}

/* From another ring on the same handle; inside participant_lock, so that it does not end meanwhile. */
static bool share(hp_ring *ring)
{
	for (const hp_ring *from = ring_first(); from; from = from->next) {
		if (from == ring || from->pool != ring->pool || !from->report.registered || from->kernel.ring_fd < 0) continue;
		struct clone_buffers wish = {.source = (uint32_t)from->kernel.ring_fd};
		if (os_uring_register(ring->kernel.ring_fd, IORING_REGISTER_CLONE_BUFFERS, &wish, 1) < 0) continue;
		memcpy(ring->registered, from->registered, ring->slices * sizeof *ring->registered);
		return true;
	}
	return false;
}

int ring_register_memory(hp_ring *ring)
{
	struct participant_guard guard;
	pin_registered(ring->pins);
	int error = participant_lock(&guard);
	if (error < 0) return error;
	ring->report.cloned = share(ring);
	if (!ring->report.cloned) {
		struct io_uring_rsrc_register table = {.nr = ring->slices, .flags = IORING_RSRC_REGISTER_SPARSE};
		error = os_uring_register(ring->kernel.ring_fd, IORING_REGISTER_BUFFERS2, &table, sizeof table);
	}
	if (error >= 0)
		error = update(ring);
	else
		count_memory(ring);
	participant_unlock(&guard);
	return error;
}

int hp_ring_register(hp_ring *ring)
{
	struct participant_guard guard;
	int error = ring ? ring_usable(ring) : -EINVAL;
	if (error < 0) return error;
	if (ring->plain || !ring->pool || ring->flags & HP_RING_UNREGISTERED) return -ENOTSUP;
	if ((error = participant_lock(&guard)) < 0) return error;
	error = update(ring);
	participant_unlock(&guard);
	ring->report.error = 0;
	if (error < 0) ring_explain_memory(ring, error);
	return error;
}

/* ---- files ---- */

static int put_file(hp_ring *ring, uint32_t place, int fd)
{
	struct io_uring_files_update change = {.offset = place, .fds = (uintptr_t)&fd};
	int error = os_uring_register(ring->kernel.ring_fd, IORING_REGISTER_FILES_UPDATE, &change, 1);
	return error < 0 ? error : 0;
}

int ring_register_life(hp_ring *ring, int life)
{
	return put_file(ring, ring->file_count, life); /* behind the application's */
}

int hp_ring_register_file(hp_ring *ring, int fd)
{
	int error = ring ? ring_usable(ring) : -EINVAL;
	if (error < 0) return error;
	if (fd < 0) return -EBADF;
	uint32_t place = 0;
	while (place < ring->file_count && ring->files[place] >= 0) place++;
	if (place == ring->file_count) return -ENFILE;
	int file = ring->plain ? os_dup(fd) : put_file(ring, place, fd);
	if (file < 0) return file;
	ring->files[place] = file;
	return (int)place;
}

int hp_ring_unregister_file(hp_ring *ring, int place)
{
	int error = ring ? ring_usable(ring) : -EINVAL;
	if (error < 0) return error;
	if (place < 0 || (uint32_t)place >= ring->file_count || ring->files[place] < 0) return -EBADF;
	if (ring->plain) {
		for (uint32_t i = 0; i < ring->request_count; i++) {
			const struct ring_request *request = &ring->requests[i];
			if (request->state != REQUEST_FREE && request->flags & HP_RING_FILE && request->fd == place) return -EBUSY;
		}
		os_close(ring->files[place]);
	} else if ((error = put_file(ring, (uint32_t)place, -1)) < 0) {
		return error;
	}
	ring->files[place] = -1;
	return 0;
}

void ring_forget_files(hp_ring *ring)
{
	for (uint32_t i = 0; i < ring->file_count; i++)
		if (ring->files[i] >= 0) os_close(ring->files[i]);
}

/* ---- the ring itself ---- */

void ring_register_self(hp_ring *ring)
{
	struct io_uring_rsrc_update self = {.offset = UINT32_MAX, .data = (uint64_t)ring->kernel.ring_fd};
	if (os_uring_register(ring->kernel.ring_fd, IORING_REGISTER_RING_FDS, &self, 1) != 1)
		return; /* 5.18, 16 a thread */
	ring->enter_fd = (int)self.offset;
	ring->enter_flags = IORING_ENTER_REGISTERED_RING;
	ring->thread = &hp_thread;
}

void ring_unregister_self(hp_ring *ring)
{
	struct io_uring_rsrc_update self = {.offset = (uint32_t)ring->enter_fd};
	if (!ring->enter_flags) return;
	if (os_uring_register(ring->kernel.ring_fd, IORING_UNREGISTER_RING_FDS, &self, 1) != 1) {
		ring->error = -EBADF; /* closed by somebody, which entering has not told */
		os_uring_register(ring->enter_fd, IORING_UNREGISTER_RING_FDS | USE_REGISTERED_RING, &self, 1);
	}
	ring->enter_fd = ring->kernel.ring_fd;
	ring->enter_flags = 0;
}

void ring_unregister(hp_ring *ring)
{
	if (ring->error < 0) return;
	os_uring_register(ring->kernel.ring_fd, IORING_UNREGISTER_BUFFERS, NULL, 0);
	/* there are files as long as there is the ring, so this tells whether the number is still its own */
	if (os_uring_register(ring->kernel.ring_fd, IORING_UNREGISTER_FILES, NULL, 0) < 0) ring->error = -EBADF;
}
