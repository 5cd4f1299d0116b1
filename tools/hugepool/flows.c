/* Open addressing by steps of one; flows.h has the design. */
#include "flows.h"

#include <string.h>

uint64_t flow_find(const struct flow_table *table, const struct flow_key *key, uint64_t hash)
{
	uint64_t mask = table->slots - 1;
	for (uint64_t step = 0; step <= mask; step++) {
		uint64_t at = (hash + step) & mask;
		const struct flow_slot *slot = &table->slot[at];
		if (atomic_load_explicit(&slot->frames, memory_order_relaxed) == 0) return at;
		if (slot->hash == hash && flow_key_same(&slot->key, key)) return at;
	}
	return FLOWS_NO_SLOT;
}

bool flow_rehash(const struct flow_table *from, const struct flow_table *to)
{
	memset(to->slot, 0, to->slots * sizeof(*to->slot));
	for (uint64_t i = 0; i < from->slots; i++) {
		const struct flow_slot *old = &from->slot[i];
		uint64_t frames = atomic_load_explicit(&old->frames, memory_order_relaxed);
		if (frames == 0) continue;
		uint64_t at = flow_find(to, &old->key, old->hash);
		if (at == FLOWS_NO_SLOT) return false;
		struct flow_slot *slot = &to->slot[at];
		slot->key = old->key;
		slot->hash = old->hash;
		atomic_store_explicit(&slot->bytes, atomic_load_explicit(&old->bytes, memory_order_relaxed),
		                      memory_order_relaxed);
		atomic_store_explicit(&slot->frames, frames, memory_order_relaxed);
	}
	return true;
}

void flow_add_up(const struct flow_table *table, struct flow_sum *sum)
{
	for (uint64_t i = 0; i < table->slots; i++) {
		uint64_t frames = atomic_load_explicit(&table->slot[i].frames, memory_order_relaxed);
		uint64_t bytes = atomic_load_explicit(&table->slot[i].bytes, memory_order_relaxed);
		if (frames == 0) continue;
		sum->flows++;
		sum->frames += frames;
		sum->bytes += bytes;
		if (bytes > sum->largest_bytes) sum->largest_bytes = bytes;
	}
}
