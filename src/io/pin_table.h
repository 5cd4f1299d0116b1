/* Inside pins: pin.c puts them on and takes them off, pin_ring.c has the rings whose tables they are in. */
#ifndef HUGEPOOL_PIN_TABLE_H
#define HUGEPOOL_PIN_TABLE_H

#include "io/pin.h"

struct pin_table {
	hp_pool *pool;
	struct pool_ring *ring;
	uint32_t number, pins;
	struct pin_entry *entry;
};

/* Nobody uses it any more, and the kernel has let go: what is half done is ended, all that is in it goes. */
void pin_empty(struct pin_table *table);

#endif
