/* AF_XDP on the pool: objects of a cache in the kernel's rings.
 *
 * The pool, from its start to the end of what is committed, is the UMEM, so an offset in the pool is an address there. Every
 * object in a ring has a pin (io/pin.h), whose number is found by the object's chunk, and belongs to the pin: it is got with
 * it in one step, and given to the application, or taken from it, by one store, so that it is never in nobody's hands. The
 * order in the rings matters to the kernel alone, and recovery needs nothing of this layer. What has been sent is given to the
 * kernel to be filled, pin and all, if it wants for objects; that makes forwarding cheap. With HP_XDP_KEEP what is sent stays
 * the application's, and is only pinned. */
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
	uint32_t *unused;            /* pins without an object: a stack */
	hp_off *object;              /* by pin; when it is sent: as the application named it */
	uint32_t unuseds, receiving; /* objects that the kernel has for receiving, or that were received */
	uint32_t sending;            /* and for sending */
	struct hp_xdp_stats stats;
};

static uint32_t power_of_two(uint32_t n)
{
	return n < 2 ? 1 : UINT32_C(1) << (32 - __builtin_clz(n - 1));
}

/* ---- what the kernel has ---- */

/* To be filled. The ring has room for all. */
static void give(hp_xdp *xdp, uint32_t pin, hp_off off)
{
	struct xdp_ring *ring = &xdp->socket.fill;
	xdp->object[pin] = off;
	xdp->pin_of[off >> xdp->shift] = pin + 1;
	((uint64_t *)ring->entries)[ring->mine++ & ring->mask] = off;
	xdp->receiving++;
}

static void give_done(hp_xdp *xdp)
{
	struct xdp_ring *ring = &xdp->socket.fill;
	xdp_publish(ring->producer, ring->mine);
	if (xdp_load(ring->flags) & XDP_RING_NEED_WAKEUP) {
		os_recv(xdp->socket.fd, NULL, 0, MSG_DONTWAIT);
		xdp->stats.wakeups++;
	}
}

/* Takes note of what has been sent, of up to `n` frames; their objects to `objects`, unless it is NULL. */
static uint32_t reap(hp_xdp *xdp, hp_off *objects, uint32_t n)
{
	struct xdp_ring *ring = &xdp->socket.done;
	uint32_t there = xdp_load(ring->producer) - ring->mine;
	if (there > n) there = n;
	for (uint32_t i = 0; i < there; i++) {
		uint64_t at = ((uint64_t *)ring->entries)[ring->mine++ & ring->mask];
		uint32_t *number = &xdp->pin_of[at >> xdp->shift], pin = *number - 1;
		*number = 0;
		if (!(xdp->flags & HP_XDP_KEEP) && xdp->receiving < xdp->setup.frames) {
			give(xdp, pin, xdp->object[pin]);
			continue;
		}
		if (objects) objects[i] = xdp->object[pin];
		if (xdp->flags & HP_XDP_KEEP)
			pin_drop(xdp->pins, pin);
		else
			pin_put(xdp->pins, pin);
		xdp->unused[xdp->unuseds++] = pin;
	}
	if (there) xdp_publish(ring->consumer, ring->mine);
	xdp->sending -= there;
	xdp->stats.done += there;
	return there;
}

/* ---- receiving ---- */

/* Gives the kernel as many objects as it is to have, or as there are. */
static void fill(hp_xdp *xdp)
{
	uint32_t begun = xdp->socket.fill.mine;
	if (xdp->receiving < xdp->setup.frames && !(xdp->flags & HP_XDP_KEEP)) reap(xdp, NULL, UINT32_MAX);
	while (xdp->receiving < xdp->setup.frames) {
		hp_off off;
		uint32_t pin = xdp->unused[xdp->unuseds - 1];
		if (pin_get(xdp->pins, pin, xdp->cache, &off) < 0) {
			xdp->stats.no_object++;
			break;
		}
		if (off >= xdp->setup.bytes) {
			pin_put(xdp->pins, pin);
			xdp->stats.outside++;
			break;
		}
		xdp->unuseds--;
		give(xdp, pin, off);
	}
	if (xdp->socket.fill.mine != begun) give_done(xdp);
}

int hp_xdp_receive(hp_xdp *xdp, struct hp_xdp_frame *frames, unsigned n)
{
	struct xdp_ring *ring = &xdp->socket.receive;
	if (xdp->ended) return -EBADF;
	uint32_t there = xdp_load(ring->producer) - ring->mine;
	if (there > n) there = n;
	for (uint32_t i = 0; i < there; i++) {
		struct xdp_desc entry = ((struct xdp_desc *)ring->entries)[ring->mine++ & ring->mask];
		uint32_t *number = &xdp->pin_of[entry.addr >> xdp->shift], pin = *number - 1;
		hp_off object = xdp->object[pin];
		frames[i] = (struct hp_xdp_frame){object, (uint32_t)(entry.addr - object), entry.len};
		*number = 0;
		/* commit: the object is the application's. Before, a death puts it back; the entry of `frames` is there. */
		pin_release(xdp->pins, pin);
		xdp->unused[xdp->unuseds++] = pin;
	}
	if (there) xdp_publish(ring->consumer, ring->mine);
	xdp->receiving -= there;
	xdp->stats.received += there;
	fill(xdp);
	return there == 0 && xdp->receiving == 0 ? -ENOBUFS : (int)there;
}

/* ---- sending ---- */

/* Copy mode sends in this call, some 32 frames at a time: -EAGAIN says that there are more. */
static int kick(hp_xdp *xdp)
{
	struct xdp_ring *ring = &xdp->socket.send;
	for (uint32_t before = xdp_load(ring->consumer);;) {
		if (before == ring->mine || !(xdp_load(ring->flags) & XDP_RING_NEED_WAKEUP)) return 0;
		int error = (int)os_send(xdp->socket.fd, "", 0, MSG_DONTWAIT);
		uint32_t now = xdp_load(ring->consumer);
		xdp->stats.wakeups++;
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
	uint32_t taken = 0, begun = xdp->socket.fill.mine;
	int error = 0;
	if (xdp->ended) return -EBADF;
	/* Not each time: what is sent by now may be wanted by the next hp_xdp_receive. */
	if (!(xdp->flags & HP_XDP_KEEP) && (n == 0 || xdp->sending > xdp->setup.sends / 2)) reap(xdp, NULL, UINT32_MAX);
	while (taken < n && xdp->sending < xdp->setup.sends) {
		uint64_t at;
		const struct hp_xdp_frame frame = frames[taken]; /* perhaps in shared memory */
		uint32_t pin = xdp->unused[xdp->unuseds - 1];
		if ((error = look(xdp, &frame, &at)) < 0) break;
		if (xdp->flags & HP_XDP_KEEP)
			error = pin_add(xdp->pins, pin, at, frame.length);
		else
			error = pin_own(xdp->pins, pin, xdp->cache, frame.object); /* commit: it is the ring's */
		if (error < 0) break;
		xdp->unuseds--;
		xdp->sending++;
		xdp->object[pin] = frame.object;
		xdp->pin_of[at >> xdp->shift] = pin + 1;
		((struct xdp_desc *)ring->entries)[ring->mine++ & ring->mask] = (struct xdp_desc){.addr = at,
		                                                                                  .len = frame.length};
		taken++;
	}
	if (taken) xdp_publish(ring->producer, ring->mine);
	xdp->stats.sent += taken;
	if (xdp->socket.fill.mine != begun) give_done(xdp);
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
	*stats = xdp->stats;
	stats->struct_size = sizeof *stats;
	stats->waiting = xdp->receiving;
	stats->bytes = xdp->setup.bytes;
	stats->dropped = kernel.rx_dropped + kernel.rx_invalid_descs;
	stats->ring_full = kernel.rx_ring_full;
	stats->none_to_fill = kernel.rx_fill_ring_empty_descs;
	stats->bad_to_send = kernel.tx_invalid_descs;
	stats->zero_copy = xdp->socket.zero_copy;
	return 0;
}

static void discard(hp_xdp *xdp)
{
	if (xdp->pin_of) os_unmap(xdp->pin_of, xdp->pin_of_bytes);
	free(xdp->unused);
	free(xdp->object);
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
	uint32_t pins = xdp->setup.frames + xdp->setup.sends;
	xdp->unused = calloc(pins, sizeof *xdp->unused);
	xdp->object = calloc(pins, sizeof *xdp->object);
	if (!xdp->unused || !xdp->object) return -ENOMEM;
	while (xdp->unuseds < pins) {
		xdp->unused[xdp->unuseds] = pins - 1 - xdp->unuseds;
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
	hp_xdp *xdp = calloc(1, sizeof *xdp);
	if (!xdp) return -ENOMEM;
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
	while (xdp->sending && kick(xdp) == 0 && os_now_ns() < deadline) {
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
