/* AF_XDP on the pool: objects of a cache in the kernel's rings.
 *
 * The pool, from its start to the end of what is committed, is the UMEM, so an offset in the pool is an address there. Every
 * object in a ring has a pin (io/pin.h), whose number is found by the object's chunk: for receiving it is got with the pin
 * in one step, so that it is never in nobody's hands, and pin_release gives it to the application; for sending the pin is put
 * on it first, then it is put back into the cache, which frees it when the pin is dropped, whoever drops it. So the order in
 * the rings does not matter to anybody but the kernel, and recovery needs nothing of this layer.
 *
 * Receiving and sending share nothing that is written, so that each may have a thread of its own. */
#include <hugepool/xdp.h>
#include "cache/cache.h"
#include "io/pin.h"
#include "os/packet.h"
#include "xdp/program.h"
#include "xdp/socket.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MOST 65536u
#define USUAL 2048u
#define KERNEL_HEADROOM 256u
#define DRAIN UINT64_C(200000000)   /* ns that a close waits for what is being sent */
#define LET_GO UINT64_C(1000000000) /* and for the queue, in zero-copy mode */

struct hp_xdp {
	hp_pool *pool;
	hp_cache *cache;
	struct pin_table *pins;
	struct xdp_socket socket;
	struct xdp_program program;
	struct xdp_setup setup;
	uint32_t *pin_of; /* by chunk: the pin of what lies there + 1; 0: nothing of ours */
	size_t pin_of_bytes;
	uint32_t shift; /* log2 of a chunk */
	unsigned flags;
	bool led, ended;
	/* receiving: pins [0, setup.frames) */
	_Alignas(64) uint32_t *empty; /* pins without an object */
	uint32_t empties;
	_Atomic uint64_t received, no_object, outside, wakeups_receive, held;
	/* sending: pins [setup.frames, + setup.sends) */
	_Alignas(64) uint32_t *unused;
	uint32_t unuseds;
	hp_off *given; /* by pin: the object as the application named it */
	_Atomic uint64_t sent, done, wakeups_send;
};

/* Counted by one thread, read by any. */
static inline void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static uint32_t power_of_two(uint32_t n)
{
	return n < 2 ? 1 : UINT32_C(1) << (32 - __builtin_clz(n - 1));
}

/* ---- receiving ---- */

/* Gives the kernel objects for all pins that have none: 0, or why it got fewer. */
static int fill(hp_xdp *xdp)
{
	struct xdp_ring *ring = &xdp->socket.fill;
	uint32_t begun = ring->mine;
	int error = 0;
	while (xdp->empties) {
		hp_off off;
		uint32_t pin = xdp->empty[xdp->empties - 1];
		if ((error = pin_get(xdp->pins, pin, xdp->cache, &off)) < 0) {
			count(&xdp->no_object, 1);
			break;
		}
		if (off >= xdp->setup.bytes) {
			pin_put(xdp->pins, pin);
			count(&xdp->outside, 1);
			error = -ENOMEM;
			break;
		}
		xdp->empties--;
		xdp->pin_of[off >> xdp->shift] = pin + 1;
		((uint64_t *)ring->entries)[ring->mine++ & ring->mask] = off; /* room: the ring has one for every pin */
	}
	if (ring->mine != begun) xdp_publish(ring->producer, ring->mine);
	if (xdp_load(ring->flags) & XDP_RING_NEED_WAKEUP) {
		os_recv(xdp->socket.fd, NULL, 0, MSG_DONTWAIT);
		count(&xdp->wakeups_receive, 1);
	}
	return error;
}

int hp_xdp_receive(hp_xdp *xdp, struct hp_xdp_frame *frames, unsigned n)
{
	struct xdp_ring *ring = &xdp->socket.receive;
	uint32_t there = xdp_load(ring->producer) - ring->mine, got = 0;
	if (xdp->ended) return -EBADF;
	if (there > n) there = n;
	for (uint32_t i = 0; i < there; i++) {
		struct xdp_desc entry = ((struct xdp_desc *)ring->entries)[ring->mine++ & ring->mask];
		hp_off object = entry.addr >> xdp->shift << xdp->shift;
		uint32_t *number = &xdp->pin_of[entry.addr >> xdp->shift], pin = *number - 1;
		frames[got++] = (struct hp_xdp_frame){object, (uint32_t)(entry.addr - object), entry.len};
		*number = 0;
		/* commit: the object is the application's. Before, a death puts it back; the entry of `frames` is there. */
		pin_release(xdp->pins, pin);
		xdp->empty[xdp->empties++] = pin;
	}
	if (there) {
		xdp_publish(ring->consumer, ring->mine);
		count(&xdp->received, got);
	}
	fill(xdp);
	atomic_store_explicit(&xdp->held, xdp->setup.frames - xdp->empties, memory_order_relaxed);
	return got == 0 && xdp->empties == xdp->setup.frames ? -ENOBUFS : (int)got;
}

/* ---- sending ---- */

/* Takes note of what has been sent, of up to `n` frames; their objects to `objects`, unless it is NULL. */
static unsigned reap(hp_xdp *xdp, hp_off *objects, uint32_t n)
{
	struct xdp_ring *ring = &xdp->socket.done;
	uint32_t there = xdp_load(ring->producer) - ring->mine;
	if (there > n) there = n;
	for (uint32_t i = 0; i < there; i++) {
		uint64_t at = ((uint64_t *)ring->entries)[ring->mine++ & ring->mask];
		uint32_t *number = &xdp->pin_of[at >> xdp->shift], pin = *number - 1;
		*number = 0;
		if (objects) objects[i] = xdp->given[pin - xdp->setup.frames];
		/* commit: with the pin the object goes back to its cache, where it was put when it was taken; without HP_XDP_KEEP */
		pin_drop(xdp->pins, pin);
		xdp->unused[xdp->unuseds++] = pin;
	}
	if (there) {
		xdp_publish(ring->consumer, ring->mine);
		count(&xdp->done, there);
	}
	return there;
}

/* Copy mode sends in this call, some 32 frames at a time: -EAGAIN says that there are more. */
static int kick(hp_xdp *xdp)
{
	struct xdp_ring *ring = &xdp->socket.send;
	for (uint32_t before = xdp_load(ring->consumer);;) {
		if (before == ring->mine || !(xdp_load(ring->flags) & XDP_RING_NEED_WAKEUP)) return 0;
		int error = (int)os_send(xdp->socket.fd, "", 0, MSG_DONTWAIT);
		uint32_t now = xdp_load(ring->consumer);
		count(&xdp->wakeups_send, 1);
		if (now == before) /* no room, for now */
			return error == -EAGAIN || error == -ENOBUFS || error == -EBUSY ? 0 : error < 0 ? error : 0;
		before = now;
	}
}

/* Can it be sent? 0, and the address of its first byte in *at. */
static int look(const hp_xdp *xdp, const struct hp_xdp_frame *frame, uint64_t *at)
{
	uint64_t chunk = xdp->setup.chunk, first = frame->object + frame->offset;
	*at = first;
	if (frame->object >= xdp->pool->capacity || !frame->length || frame->length > chunk) return -EINVAL;
	if (first >= xdp->pool->capacity || (first & (chunk - 1)) + frame->length > chunk) return -EINVAL;
	if (!(xdp->flags & HP_XDP_KEEP) && (frame->offset >= chunk || frame->object & (chunk - 1))) return -EINVAL;
	if (first + frame->length > xdp->setup.bytes) return -ERANGE;
	return xdp->pin_of[first >> xdp->shift] ? -EBUSY : 0;
}

int hp_xdp_send(hp_xdp *xdp, const struct hp_xdp_frame *frames, unsigned n)
{
	struct xdp_ring *ring = &xdp->socket.send;
	unsigned taken = 0;
	int error = 0;
	if (xdp->ended) return -EBADF;
	if (!(xdp->flags & HP_XDP_KEEP)) reap(xdp, NULL, UINT32_MAX);
	while (taken < n && xdp->unuseds) {
		uint64_t at;
		const struct hp_xdp_frame frame = frames[taken]; /* perhaps in shared memory */
		uint32_t pin = xdp->unused[xdp->unuseds - 1];
		if ((error = look(xdp, &frame, &at)) < 0) break;
		if ((error = pin_add(xdp->pins, pin, at, frame.length)) < 0) break;
		if (!(xdp->flags & HP_XDP_KEEP)) {
			/* commit: the object is the library's, free as soon as its pin is dropped. Before, it is the application's. */
			if ((error = hp_cache_put(xdp->cache, xdp->pool->base + frame.object)) < 0) {
				pin_drop(xdp->pins, pin);
				break;
			}
		}
		xdp->unuseds--;
		xdp->given[pin - xdp->setup.frames] = frame.object;
		xdp->pin_of[at >> xdp->shift] = pin + 1;
		/* room: the ring has one for every pin, and so has that of completions */
		((struct xdp_desc *)ring->entries)[ring->mine++ & ring->mask] = (struct xdp_desc){.addr = at,
		                                                                                  .len = frame.length};
		taken++;
	}
	if (taken) {
		xdp_publish(ring->producer, ring->mine);
		count(&xdp->sent, taken);
	}
	int kicked = kick(xdp);
	if (taken) return (int)taken;
	return error < 0 ? error : kicked;
}

int hp_xdp_completed(hp_xdp *xdp, hp_off *objects, unsigned n)
{
	if (xdp->ended) return -EBADF;
	if (!(xdp->flags & HP_XDP_KEEP)) return -EINVAL;
	kick(xdp);
	return (int)reap(xdp, objects, n);
}

/* ---- opening and closing ---- */

int hp_xdp_fd(const hp_xdp *xdp)
{
	return xdp->socket.fd;
}

int hp_xdp_stats(hp_xdp *xdp, struct hp_xdp_stats *stats)
{
	if (!stats || stats->struct_size != sizeof *stats) return -EINVAL;
	struct xdp_statistics kernel;
	memset(&kernel, 0, sizeof kernel);
	unsigned bytes = sizeof kernel;
	if (!xdp->ended) os_socket_ask(xdp->socket.fd, SOL_XDP, XDP_STATISTICS, &kernel, &bytes);
	*stats = (struct hp_xdp_stats){
		.struct_size = sizeof *stats,
		.received = atomic_load_explicit(&xdp->received, memory_order_relaxed),
		.sent = atomic_load_explicit(&xdp->sent, memory_order_relaxed),
		.done = atomic_load_explicit(&xdp->done, memory_order_relaxed),
		.waiting = atomic_load_explicit(&xdp->held, memory_order_relaxed),
		.no_object = atomic_load_explicit(&xdp->no_object, memory_order_relaxed),
		.outside = atomic_load_explicit(&xdp->outside, memory_order_relaxed),
		.wakeups = atomic_load_explicit(&xdp->wakeups_receive, memory_order_relaxed) +
	               atomic_load_explicit(&xdp->wakeups_send, memory_order_relaxed),
		.bytes = xdp->setup.bytes,
		.dropped = kernel.rx_dropped + kernel.rx_invalid_descs,
		.ring_full = kernel.rx_ring_full,
		.none_to_fill = kernel.rx_fill_ring_empty_descs,
		.bad_to_send = kernel.tx_invalid_descs,
		.zero_copy = xdp->socket.zero_copy,
	};
	return 0;
}

static void discard(hp_xdp *xdp)
{
	if (xdp->pin_of) os_unmap(xdp->pin_of, xdp->pin_of_bytes);
	free(xdp->empty);
	free(xdp->unused);
	free(xdp->given);
	free(xdp);
}

/* Private tables: of pins, and by chunk, of which only what is touched takes memory. */
static int furnish(hp_xdp *xdp)
{
	void *at;
	xdp->pin_of_bytes = (xdp->setup.bytes >> xdp->shift) * sizeof *xdp->pin_of;
	int error = os_map(NULL, xdp->pin_of_bytes, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0,
	                   &at);
	if (error < 0) return error;
	xdp->pin_of = at;
	xdp->empty = calloc(xdp->setup.frames, sizeof *xdp->empty);
	xdp->unused = calloc(xdp->setup.sends, sizeof *xdp->unused);
	xdp->given = calloc(xdp->setup.sends, sizeof *xdp->given);
	if (!xdp->empty || !xdp->unused || !xdp->given) return -ENOMEM;
	while (xdp->empties < xdp->setup.frames) {
		xdp->empty[xdp->empties] = xdp->setup.frames - 1 - xdp->empties;
		xdp->empties++;
	}
	while (xdp->unuseds < xdp->setup.sends) {
		xdp->unused[xdp->unuseds] = xdp->setup.frames + xdp->setup.sends - 1 - xdp->unuseds;
		xdp->unuseds++;
	}
	return 0;
}

/* Bytes from the pool's start that are committed. */
static uint64_t committed(hp_pool *pool)
{
	uint32_t top = pool_top(pool), chunk = 0;
	while (chunk < top &&
	       ctl_state(atomic_load_explicit(&pool->chunks[chunk].ctl, memory_order_acquire)) != CTL_UNCOMMITTED)
		chunk++;
	return chunk * pool_chunk_bytes(pool);
}

static int check(hp_cache *cache, const struct hp_xdp_options *options, struct xdp_setup *setup)
{
	static const uint16_t flags[] = {XDP_COPY, XDP_ZEROCOPY, 0};
	hp_pool *pool = cache->pool;
	struct hp_cache_stats stats = {.struct_size = sizeof stats};
	const char *wrong = NULL;
	if (pool->private || cache->regions) {
		pool_log(pool, "xdp: a private cache cannot be used: take one of a pool that is shared");
		return -ENOTSUP;
	}
	if (pool->observer) return -EROFS;
	int error = hp_cache_stats(cache, &stats);
	if (error < 0) return error;
	if (cache->ctor || cache->shared->constructed) {
		pool_log(pool, "xdp: the cache has a constructor, which knows nothing of frames: make one without");
		return -ENOTSUP;
	}
	if ((stats.stride != 2048 && stats.stride != 4096) || cache->shared->align != stats.stride ||
	    cache->shared->align_offset)
		wrong = "the cache's objects must be 2048 or 4096 bytes, with an align of as much and no align_offset";
	else if (options->struct_size != sizeof *options)
		wrong = "struct_size is not the size of the options";
	else if (!options->interface || !*options->interface)
		wrong = "no interface is named";
	else if (options->frames > MOST || options->sends > MOST)
		wrong = "frames and sends are 65536 at most";
	else if ((unsigned)options->mode > HP_XDP_ANY || options->flags & ~HP_XDP_KEEP || options->xsk_map < 0)
		wrong = "mode, flags or xsk_map make no sense";
	else if (options->headroom >= stats.stride - KERNEL_HEADROOM)
		wrong = "headroom leaves no room for a frame";
	if (wrong) {
		pool_log(pool, "xdp: %s", wrong);
		return -EINVAL;
	}
	*setup = (struct xdp_setup){
		.name = options->interface,
		.interface = os_interface(options->interface),
		.queue = options->queue,
		.chunk = (uint32_t)stats.stride,
		.headroom = options->headroom,
		.frames = power_of_two(options->frames ? options->frames : USUAL),
		.sends = power_of_two(options->sends ? options->sends : USUAL),
		.flags = (uint16_t)(flags[options->mode] | XDP_USE_NEED_WAKEUP),
	};
	if (setup->interface < 0)
		pool_log(pool, "xdp: there is no interface called %s in this network namespace (ip link shows what there is)",
		         options->interface);
	return setup->interface < 0 ? setup->interface : 0;
}

/* With a socket, and a table of pins. */
static int join(hp_xdp *xdp, const struct hp_xdp_options *options, int life)
{
	pin_registered(xdp->pins); /* before it is known what is committed: none of that is trimmed then */
	xdp->setup.bytes = committed(xdp->pool);
	int error = furnish(xdp);
	if (error < 0) os_close(life);
	if (error == 0) error = xdp_socket_bind(xdp->pool, &xdp->setup, life, &xdp->socket);
	if (error < 0) return error;
	error = xdp_program_open(xdp->pool, xdp->setup.name, xdp->setup.interface, xdp->socket.fd, options->xsk_map,
	                         &xdp->program);
	if (error < 0) return error;
	error = xdp_program_lead(xdp->pool, &xdp->program, xdp->setup.queue, xdp->socket.fd);
	if (error < 0) {
		xdp_program_close(&xdp->program, false);
		return error;
	}
	xdp->led = true;
	fill(xdp); /* the last, so that a failure leaves nothing with the kernel */
	xdp->held = xdp->setup.frames - xdp->empties;
	return 0;
}

int hp_xdp_open(hp_cache *cache, const struct hp_xdp_options *options, hp_xdp **result)
{
	struct xdp_setup setup;
	int life;
	if (!result) return -EINVAL;
	*result = NULL;
	if (!cache || !options) return -EINVAL;
	int error = check(cache, options, &setup);
	if (error < 0) return error;
	hp_xdp *xdp = aligned_alloc(_Alignof(hp_xdp), sizeof *xdp);
	if (!xdp) return -ENOMEM;
	memset(xdp, 0, sizeof *xdp);
	xdp->pool = cache->pool;
	xdp->cache = cache;
	xdp->setup = setup;
	xdp->shift = (uint32_t)__builtin_ctz(setup.chunk);
	xdp->flags = options->flags;
	error = xdp_socket_make(xdp->pool, &xdp->socket);
	if (error == 0) {
		error = pin_open(xdp->pool, setup.frames + setup.sends, &xdp->pins, &life);
		if (error < 0)
			pool_log(xdp->pool, "xdp: no room in the pool for %u pins: error %d%s", setup.frames + setup.sends, -error,
			         error == -ENOSPC ? " (256 rings a pool: close some)" : "");
	}
	if (error == 0 && (error = join(xdp, options, life)) < 0) {
		xdp_socket_close(&xdp->socket);
		pin_close(xdp->pins);
	}
	if (error < 0) {
		xdp_socket_close(&xdp->socket);
		discard(xdp);
		return error;
	}
	*result = xdp;
	return 0;
}

/* Waits until all that was taken has been sent, as long as there is hope. */
static void drain(hp_xdp *xdp)
{
	uint64_t deadline = os_now_ns() + DRAIN;
	while (xdp->unuseds < xdp->setup.sends && kick(xdp) == 0 && os_now_ns() < deadline) {
		_Atomic uint32_t nothing = 0;
		if (!reap(xdp, NULL, UINT32_MAX)) os_futex_wait(&nothing, 0, 1000000);
	}
}

int hp_xdp_close(hp_xdp *xdp)
{
	if (!xdp) return 0;
	if (!xdp->ended) {
		drain(xdp);
		xdp_program_close(&xdp->program, xdp->led);
		xdp_socket_end(&xdp->socket);
		xdp->ended = true;
	}
	int error = 0;
	for (uint64_t deadline = os_now_ns() + LET_GO; xdp->socket.zero_copy;) {
		_Atomic uint32_t nothing = 0;
		error = xdp_queue_free(xdp->setup.interface, xdp->setup.queue);
		if (error != -EBUSY || os_now_ns() >= deadline) break;
		os_futex_wait(&nothing, 0, 1000000);
	}
	/* An interface that is gone, or down, has given up all its queues. */
	if (error < 0 && error != -ENODEV && error != -ENETDOWN) return error;
	xdp_socket_close(&xdp->socket);
	pin_close(xdp->pins);
	discard(xdp);
	return 0;
}
