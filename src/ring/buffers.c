/* Provided buffers: objects of a cache that the kernel fills in the order in which they were laid out.
 *
 * An object is the ring's from the moment it is got (pin_get: got and noted in one step) until it is delivered, and then the
 * application's. So whoever dies loses none: those laid out, and those filled that nobody has asked for, go back to the cache
 * when the kernel has let go of the ring. Buffer number i is pin number requests + i.
 *
 * With plain system calls there is no kernel to lay them out for; the first that is there is received into. */
#include "ring/ring.h"
#include "cache/cache.h"
#include "pool/participant.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

int hp_ring_buffers(hp_ring *ring, hp_cache *cache, unsigned count)
{
	int error = ring && cache ? ring_usable(ring) : -EINVAL;
	if (error < 0) return error;
	struct ring_buffers *buffers = &ring->buffers;
	if (!count || count > 32768) return -EINVAL;
	uint32_t power = 1;
	while (power < count) power *= 2;
	if (power > ring->buffer_most) return -EINVAL;
	if (!ring->pool || cache->pool != ring->pool) return -EXDEV;
	if (!cache_is_live(cache)) return -ESTALE;
	if (cache->ctor) return -ENOTSUP;
	if (buffers->cache) return -EEXIST;

	void *memory = NULL;
	size_t bytes = (power * sizeof(struct io_uring_buf) + 4095) & ~(size_t)4095;
	buffers->object = calloc(power, sizeof *buffers->object);
	buffers->empty = calloc(power, sizeof *buffers->empty);
	buffers->laid = calloc(power, sizeof *buffers->laid);
	if (!buffers->object || !buffers->empty || !buffers->laid) error = -ENOMEM;
	if (error == 0 && !ring->plain &&
	    (error = os_map(NULL, bytes, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON, -1, 0, &memory)) == 0 &&
	    (error = os_advise(memory, bytes, MADV_DONTFORK)) == 0) {
		struct io_uring_buf_reg group = {.ring_addr = (uintptr_t)memory, .ring_entries = power, .bgid = 0};
		error = os_uring_register(ring->kernel.ring_fd, IORING_REGISTER_PBUF_RING, &group, 1);
	}
	if (error < 0) {
		if (memory) os_unmap(memory, bytes);
		free(buffers->object);
		free(buffers->empty);
		free(buffers->laid);
		*buffers = (struct ring_buffers){0};
		return error;
	}
	buffers->ring = memory;
	buffers->ring_bytes = bytes;
	buffers->count = buffers->missing = power;
	buffers->size = (uint32_t)cache->size;
	for (uint32_t i = 0; i < power; i++) buffers->empty[i] = power - 1 - i;
	buffers->cache = cache;
	ring_refill(ring);
	return 0;
}

static void lay_out(struct ring_buffers *buffers, uint32_t id, int place)
{
	io_uring_buf_ring_add(buffers->ring, buffers->object[id], buffers->size, (unsigned short)id,
	                      io_uring_buf_ring_mask(buffers->count), place);
}

uint32_t ring_refill(hp_ring *ring)
{
	struct ring_buffers *buffers = &ring->buffers;
	int laid = 0;
	while (buffers->missing) {
		uint32_t id = buffers->empty[buffers->missing - 1];
		hp_off off;
		if (pin_get(ring->pins, ring->request_count + id, buffers->cache, &off) < 0) break; /* none now: asked again */
		buffers->missing--;
		buffers->object[id] = ring->base + off;
		if (buffers->ring)
			lay_out(buffers, id, laid++);
		else
			buffers->laid[buffers->laid_count++] = id;
	}
	if (laid) io_uring_buf_ring_advance(buffers->ring, laid);
	return buffers->count - buffers->missing;
}

uint32_t ring_buffer_pick(hp_ring *ring)
{
	struct ring_buffers *buffers = &ring->buffers;
	if (!buffers->laid_count) ring_refill(ring);
	return buffers->laid_count ? buffers->laid[buffers->laid_count - 1] : RING_NONE;
}

void *ring_buffer_take(hp_ring *ring, uint32_t id)
{
	struct ring_buffers *buffers = &ring->buffers;
	if (id >= buffers->count || !buffers->object[id]) return NULL;
	void *object = buffers->object[id];
	buffers->object[id] = NULL;
	buffers->empty[buffers->missing++] = id;
	/* commit (in it): before it the object goes back with the ring, after it it is the application's */
	pin_release(ring->pins, ring->request_count + id);
	return object;
}

void ring_buffer_return(hp_ring *ring, uint32_t id)
{
	struct ring_buffers *buffers = &ring->buffers;
	if (id >= buffers->count || !buffers->object[id]) return;
	lay_out(buffers, id, 0);
	io_uring_buf_ring_advance(buffers->ring, 1);
}

/* The objects go back when the pins are closed. */
void ring_buffers_end(hp_ring *ring)
{
	struct ring_buffers *buffers = &ring->buffers;
	if (!buffers->ring) return;
	struct io_uring_buf_reg group = {.bgid = 0};
	if (ring->error == 0) os_uring_register(ring->kernel.ring_fd, IORING_UNREGISTER_PBUF_RING, &group, 1);
	os_unmap(buffers->ring, buffers->ring_bytes);
}
