/* Fifos: rings of elements in the pool, between processes, for one or many producers and one or many consumers.
 *
 * An element is a word of 64 bits, an offset or anything else, or up to eight of them. A fifo lies in pages of the pool and
 * is named by its offset, which any process of the pool may open. It is memory of the pool like any other: it stays, with
 * what is in it, until hp_fifo_destroy, whoever has made it and whoever dies.
 *
 * A process killed inside any call, or between taking and acknowledging, loses no element and blocks nobody: what it was
 * pushing is in, all of that call, or not at all; what it was popping is out or still there; what it had taken and not
 * acknowledged goes to another consumer. A process that is stopped keeps only what it has taken. Order: what one call, or one
 * producer, pushes comes out in that order; with several producers, in the order in which their pushes became effective.
 * What is handed on from a dead taker comes late.
 *
 * A handle serves one producing and one consuming thread at a time; in a fifo of many producers (consumers), each of
 * them opens a handle of its own. A fifo of one producer (consumer) has one at a time, of whatever process: a successor goes on
 * where the one before has stopped. Nothing here is for signal handlers, but on a handle of their own. A forked child may go
 * on with its parent's handles for pushing and popping, and for taking where there is one consumer; where there are many, and
 * in order to be counted (hp_fifo_destroy), it opens its own. Handles are closed before the pool is detached.
 *
 * Nothing waits, but for the calls with a time. All errors are negative errno values; -EINVAL where a number makes no sense.
 *
 * Origin: rings of DPDK (rte_ring) and of Concurrency Kit, whose producers and consumers wait for each other between a
 * reservation and its publication, for ever if one of them is killed there. */
#ifndef HUGEPOOL_FIFO_H
#define HUGEPOOL_FIFO_H

#include <hugepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_fifo hp_fifo; /* one process' handle */

#define HP_FIFO_MP 1u /* many producers: each element takes twice its size */
#define HP_FIFO_MC 2u /* many consumers */

#define HP_FIFO_TAKE_MAX 64u /* elements taken at once, where there are many consumers */

struct hp_fifo_options {
	size_t struct_size; /* sizeof this struct */
	uint64_t capacity;  /* elements: a power of two, 1 to 2^32 */
	unsigned element;   /* bytes: a multiple of 8 up to 64; 0: 8 */
	unsigned handles;   /* that may be open at a time, in all processes; 0: 32; at most 1024 */
	unsigned flags;     /* HP_FIFO_MP, HP_FIFO_MC */
};

/* Makes a fifo, empty, and opens it. -EINVAL: options make no sense; -ENOTSUP: many producers or consumers on a processor without
 * a compare-and-swap of 16 bytes; -ENOMEM, -EUSERS, -EROFS as hp_page_alloc. A caller that dies in it leaves nothing, or a fifo
 * whose offset nobody has been told. */
HP_API int hp_fifo_create(hp_pool *pool, const struct hp_fifo_options *options, hp_fifo **fifo);

/* The offset by which others open it. */
HP_API hp_off hp_fifo_id(const hp_fifo *fifo);

/* -EINVAL: no offset at which a fifo can begin, or what is there makes no sense. -ESTALE: there is none, or none any more. -EBUSY:
 * another is just destroying it, or finding out that he cannot. -EUSERS: as many handles as it has room for. -ENOMEM. Who opens
 * it at the very moment at which another destroys it has to be kept from that by the application, as with any memory. */
HP_API int hp_fifo_open(hp_pool *pool, hp_off id, hp_fifo **fifo);

/* Forgets the handle; what was taken through it and not acknowledged goes back. NULL is nothing. */
HP_API void hp_fifo_close(hp_fifo *fifo);

/* Ends the fifo and closes the handle. -EBUSY: another living process, or another handle of this one, has it open; -ENOTEMPTY: elements
 * are in it, or taken, and HP_FIFO_DISCARD is not given: then nothing has happened. A caller that dies leaves it as it was, or
 * gone. */
#define HP_FIFO_DISCARD 1u
HP_API int hp_fifo_destroy(hp_fifo *fifo, unsigned flags);

HP_API uint64_t hp_fifo_capacity(const hp_fifo *fifo);
/* Elements that can be popped, those of the dead included, and how many fit; exact while nobody else is at work. */
HP_API uint64_t hp_fifo_count(hp_fifo *fifo);
HP_API uint64_t hp_fifo_room(hp_fifo *fifo);

/* Elements that were ever pushed, or published; and popped, or acknowledged (with many consumers: taken). These numbers only
 * grow. Who notes, in a transaction of its own, how many it has staged or dealt with in all, tells its successor by that how many
 * it still has to publish or to acknowledge: then what is done with an element is done once, whenever one of them dies. */
HP_API uint64_t hp_fifo_pushed(const hp_fifo *fifo);
HP_API uint64_t hp_fifo_popped(const hp_fifo *fifo);

/* ---- pushing and popping ---- */

/* One element; -EAGAIN: the fifo is full, or empty. -EBUSY: popping through a handle that holds what it has taken. */
HP_API int hp_fifo_push(hp_fifo *fifo, const void *element);
HP_API int hp_fifo_pop(hp_fifo *fifo, void *element);

/* `n` elements, all (0) or none (-EAGAIN). -EINVAL: more than the capacity. All of them become effective in one instant,
 * also where many produce or consume, and also when the caller is killed. What is handed on from the dead counts only where n or more
 * of one taker are there. */
HP_API int hp_fifo_push_bulk(hp_fifo *fifo, const void *elements, size_t n);
HP_API int hp_fifo_pop_bulk(hp_fifo *fifo, void *elements, size_t n);

/* Up to `n` elements: how many, 0 included, or -errno. The same instant for all of them. */
HP_API int64_t hp_fifo_push_burst(hp_fifo *fifo, const void *elements, size_t n);
HP_API int64_t hp_fifo_pop_burst(hp_fifo *fifo, void *elements, size_t n);

/* Copies up to `n` elements that would be popped next, and leaves them; how many, 0 included. Not what is handed on from the
 * dead. With one consumer, another may look only while nothing is pushed, or nothing popped: else the one may have been
 * written over by the other meanwhile. */
HP_API int64_t hp_fifo_peek(hp_fifo *fifo, void *elements, size_t n);

/* ---- consuming in two steps ---- */

/* Copies up to `n` elements (HP_FIFO_TAKE_MAX at most with many consumers), which are this handle's until they are
 * acknowledged, handed back, or its process is dead; then they are to be had by others again, so what was done with them may be done
 * twice, and never not at all. With one consumer it may be called again for what comes after, and what is taken keeps its room;
 * with many, -EBUSY: what was taken before comes first. Returns how many, 0 included, or -errno. */
HP_API int64_t hp_fifo_take(hp_fifo *fifo, void *elements, size_t n);

/* The first `n` of what is taken have been dealt with. -EINVAL: fewer are taken. -ESTALE: this is a forked child's copy of the
 * handle that took them. */
HP_API int hp_fifo_ack(hp_fifo *fifo, size_t n);

/* Hands back all that is taken. As hp_fifo_ack. */
HP_API int hp_fifo_nack(hp_fifo *fifo);

/* ---- producing in two steps ---- */

/* With one producer: writes `n` elements behind what is in, leaving out `skip`, where nobody sees them until they are published.
 * -EAGAIN: there is no room; -EINVAL: more than the capacity; -ENOTSUP: many producers. What was staged stays when its
 * producer dies: a successor who knows from elsewhere how much it was (hp_fifo_pushed) may publish it, or stage anew. */
HP_API int hp_fifo_stage(hp_fifo *fifo, uint64_t skip, const void *elements, size_t n);

/* The first `n` that are staged are in, in one instant. That they have been staged is the caller's word. -EINVAL: there is no room
 * for so many; -ENOTSUP. */
HP_API int hp_fifo_publish(hp_fifo *fifo, size_t n);

/* ---- waiting ---- */

/* The same as push_bulk, and as pop_burst for one element at least, waiting for at most `ns` nanoseconds: then -ETIMEDOUT.
 * UINT64_MAX: for ever. Who waits sleeps, and is woken by whoever pushes or pops; in slices of 5 ms, since the one who should have
 * woken it may have been killed before he did. Several who wait have no order among themselves. */
HP_API int hp_fifo_push_timed(hp_fifo *fifo, const void *elements, size_t n, uint64_t ns);
HP_API int64_t hp_fifo_pop_timed(hp_fifo *fifo, void *elements, size_t n, uint64_t ns);

/* Until there is something to pop or to take: 0, or -ETIMEDOUT. */
HP_API int hp_fifo_wait(hp_fifo *fifo, uint64_t ns);

/* For poll, epoll, io_uring. An eventfd is a descriptor, and every process has its own numbers: the consumer makes one
 * (eventfd, EFD_NONBLOCK), hands it to each producer by fork or SCM_RIGHTS, and each producer tells its own handle about it with
 * hp_fifo_set_eventfd (-1: none any more; -EBADF). It stays the caller's, and open as long as the handle has it.
 *
 * The consumer calls hp_fifo_arm before it sleeps: 1, there is something to pop already; 0, the next push by a handle with an
 * eventfd adds 1 to it, and disarms. So pushes pay for a write only when somebody sleeps. To be polled with a timeout: a
 * producer that is killed after a push became effective and before it has signalled is followed by the signal of the next
 * push only, if one comes. With several consumers each arms for itself, and the first push serves them all: as many eventfds as
 * there are producing handles. */
HP_API int hp_fifo_set_eventfd(hp_fifo *fifo, int fd);
HP_API int hp_fifo_arm(hp_fifo *fifo);

#ifdef __cplusplus
}
#endif
#endif
