/* Bells: how a stage of the demonstration waits for several things at once, for frames, for room, for being stopped.
 *
 * A bell is a futex word and a mark that somebody sleeps, one for each process that waits. Sleeps are in slices, so a
 * bell that was never rung (its ringer died) costs a slice and no more. */
#ifndef HUGEPOOL_TOOL_BELL_H
#define HUGEPOOL_TOOL_BELL_H

#include <stdatomic.h>
#include <stdint.h>

#define BELL_LINE 128 /* two cache lines: the neighbour is fetched along with the one that is asked for */

struct bell {
	_Alignas(BELL_LINE) _Atomic uint32_t count;
	_Atomic uint32_t sleeping;
};

/* Rings for whoever sleeps; costs a fence and a load when nobody does. */
void bell_ring(struct bell *bell);

/* To wait: listen, look whether there is anything to do, and sleep only if not. */
uint32_t bell_listen(struct bell *bell);
void bell_sleep(struct bell *bell, uint32_t heard, uint64_t ns);
void bell_cancel(struct bell *bell);

/* Between two looks of a short spin. */
static inline void bell_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
