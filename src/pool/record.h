/* Process records, and who of them lives. */
#ifndef HUGEPOOL_RECORD_H
#define HUGEPOOL_RECORD_H

#include "pool/pool.h"

/* Takes a record and the lock of its byte for this process; called inside participant_lock. -EUSERS: none is free. */
int record_join(hp_pool *pool);
/* Gives record and lock back, after everything it owned. */
void record_leave(hp_pool *pool);

/* Before a pass that may declare somebody dead: 0 when our own byte reads as held through the same descriptor, so that
 * the answers can be believed; otherwise -errno, and nobody is dead. */
int record_trust(const hp_pool *pool);
/* 1: its process lives, 0: it is dead, -errno: cannot be told. */
int record_alive(const hp_pool *pool, uint32_t record);
/* That generation of the record is dead and recovered, for certain. Says nothing about an undetected death. */
bool record_is_over(const hp_pool *pool, uint32_t record, uint32_t generation);

#endif
