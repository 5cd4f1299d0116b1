/* The program that leads an interface's frames to sockets, and the map in which it finds them. */
#ifndef HUGEPOOL_XDP_PROGRAM_H
#define HUGEPOOL_XDP_PROGRAM_H

#include "pool/pool.h"

struct xdp_program {
	int map,
		link; /* descriptors, or -1; the link keeps the program attached, and is not there where the caller has one */
	bool own_map;
	uint32_t queue;
};

/* Makes or finds the program of the interface, in the network namespace of the socket; or takes a map of the caller's (> 0).
 * -errno, with a message. */
int xdp_program_open(hp_pool *pool, const char *interface, int index, int socket, int map, struct xdp_program *program);
/* From here on frames of the queue go to the socket. */
int xdp_program_lead(hp_pool *pool, struct xdp_program *program, uint32_t queue, int socket);
/* From its return on none does. */
void xdp_program_close(struct xdp_program *program, bool led);

#endif
