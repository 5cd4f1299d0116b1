/* What the pool asks of the layers above it. It calls upwards only through this table (src/layers.c), so that a process
 * that uses one layer recovers for all of them. */
#ifndef HUGEPOOL_LAYERS_H
#define HUGEPOOL_LAYERS_H

#include "pool/participant.h"

struct pool_layer {
	/* The process has a record now; called inside participant_lock. */
	void (*joined)(hp_pool *pool);
	/* The participant begins, with nothing; its memory is zero, or what a thread before it has left. */
	void (*begin)(struct participant *me);
	/* Fast paths may use the participant, by that slot; NULL: they may not. Inside participant_lock, by any thread. */
	void (*fast)(struct participant *me, struct pool_slot *slot);
	/* Inside an operation whose thread found another taker word than it remembered. `marked`: a taker is at work; give
	 * back what this participant owns. Otherwise look again at what it owns and drop what was moved. */
	void (*reread)(struct participant *me, bool marked);
	/* Everything that slot {index, generation} owned goes back. Idempotent; may run several times. */
	void (*recover_slot)(hp_pool *pool, uint32_t who);
	/* Everything of class PROCESS of a dead record goes back. Idempotent. */
	void (*recover_record)(hp_pool *pool, uint32_t record, uint32_t generation);
	/* The dead have been recovered: what else may come to an end now. Idempotent; may run at any time. */
	void (*recover_rest)(hp_pool *pool);
	/* Outside of operations, held: no pages are left, so what is kept without being used goes back, also what owners keep
	 * that do not run. True: something did. *skipped counts owners that are inside an operation right now. */
	bool (*reclaim)(struct participant *me, unsigned *skipped);
	/* The process detaches from the pool: nothing of it is to be used any more. Nothing is held. */
	void (*detach)(hp_pool *pool);
};

extern const struct pool_layer *const pool_layers[]; /* ends with NULL */

#endif
