/* Recovery: what a dead participant held goes back, by whoever needs it.
 *
 * The claim is a compare-and-swap of the record's word from LIVE to RECOVERING{recoverer}; a recoverer that dies is
 * found dead by the next, who takes the claim over and repeats everything. Order: marks of the dead, units, slot; when all
 * slots are done, memory of class PROCESS; then the record. Every step stores absolute values or compares and swaps, so
 * that repeating it is harmless. Nothing here asserts: what makes no sense is left alone or quarantined. */
#include "pool/recover.h"
#include "os/os.h"
#include "pool/layers.h"
#include "pool/record.h"
#include <errno.h>

/* Marks that a dead taker left on others would keep them from being taken from. */
static void displace_marks(hp_pool *pool, uint32_t who)
{
	uint32_t top = pool_slots_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		_Atomic uint64_t *taker = &pool->slots[i].taker;
		uint64_t word = atomic_load_explicit(taker, memory_order_acquire);
		if (word >> 32 == who)
			atomic_compare_exchange_strong_explicit(taker, &word, (uint32_t)(word + 1), memory_order_acq_rel,
			                                        memory_order_relaxed);
	}
}

void recover_slot(hp_pool *pool, uint32_t index, uint64_t word)
{
	struct pool_slot *slot = &pool->slots[index];
	uint32_t who = who_make(index, slot_generation(word));
	displace_marks(pool, who);
	for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
		if ((*layer)->recover_slot) (*layer)->recover_slot(pool, who);
	atomic_store_explicit(&slot->in_op, 0, memory_order_relaxed);
	/* or who looks between the next user's claim and its tid would find a thread that is gone, and recover the living */
	atomic_store_explicit(&slot->tid, 0, memory_order_relaxed);
	/* commit: the slot is free for the next thread; nothing names its old generation any more */
	atomic_compare_exchange_strong_explicit(&slot->word, &word, slot_make(SLOT_FREE, slot_generation(word) + 1, 0, 0),
	                                        memory_order_acq_rel, memory_order_relaxed);
}

void recover_record(hp_pool *pool, uint32_t record, uint32_t generation)
{
	uint32_t top = pool_slots_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		uint64_t word = atomic_load_explicit(&pool->slots[i].word, memory_order_acquire);
		if (slot_state(word) != SLOT_FREE && slot_record(word) == record &&
		    slot_record_generation(word) == (generation & RECORD_GENERATIONS))
			recover_slot(pool, i, word);
	}
	for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
		if ((*layer)->recover_record) (*layer)->recover_record(pool, record, generation);
}

void recover_leftovers(hp_pool *pool, uint32_t record, uint32_t generation)
{
	for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
		if ((*layer)->recover_record) (*layer)->recover_record(pool, record, generation);
}

bool slot_lives(hp_pool *pool, const struct pool_slot *slot, uint64_t word)
{
	if (slot_state(word) != SLOT_LIVE) return false;
	bool ours = slot_record(word) == pool->record && slot_record_generation(word) == pool->record_generation;
	if (!ours) return !pool->private && record_alive(pool, slot_record(word)) != 0;
	uint32_t tid = atomic_load_explicit(&slot->tid, memory_order_acquire);
	return tid == 0 || os_thread_exists(pool->pid, (int)tid);
}

/* Takes the claim on a record whose process, or whose recoverer, is dead. */
static bool claim_dead(hp_pool *pool, uint32_t i, uint32_t *generation)
{
	_Atomic uint64_t *record = &pool->records[i].word;
	/* the word is read before the lock is asked, and the claim is on that very word: a record that was recovered and
	 * taken anew in between is not the one that was found dead */
	uint64_t word = atomic_load_explicit(record, memory_order_acquire);
	uint32_t holder = i;
	if (record_state(word) == RECORD_FREE) return false;
	if (record_state(word) == RECORD_RECOVERING) {
		holder = record_recoverer(word) - 1;
		if (holder >= pool->record_count) holder = i;
		/* a recoverer whose record went on to another generation is dead as well */
		if (holder != i && record_is_over(pool, holder, record_recoverer_generation(word))) goto claim;
	}
	if (record_alive(pool, holder) != 0) return false;
claim:
	*generation = record_generation(word);
	return atomic_compare_exchange_strong(
		record, &word, record_make(RECORD_RECOVERING, *generation, pool->record + 1, pool->record_generation));
}

/* Threads of this process that ended without running destructors, or, in a private pool, did not come along when it was
 * forked: their slots carry an older generation of the record. */
static int recover_own_threads(hp_pool *pool)
{
	int found = 0;
	uint32_t top = pool_slots_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		struct pool_slot *slot = &pool->slots[i];
		uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
		bool ours = slot_record(word) == pool->record && slot_record_generation(word) == pool->record_generation;
		if (!ours && pool->private) {
			if (slot_state(word) == SLOT_FREE) continue; /* and who was recovering it did not come along either */
		} else {
			if (slot_state(word) != SLOT_LIVE || !ours || slot_lives(pool, slot, word)) continue;
		}
		uint64_t claim = slot_make(SLOT_RECOVERING, slot_generation(word), pool->record, pool->record_generation);
		if (!atomic_compare_exchange_strong(&slot->word, &word, claim)) continue;
		recover_slot(pool, i, claim);
		found++;
	}
	return found;
}

int recover_dead(hp_pool *pool)
{
	if (!participant_enter(pool)) return -ESRCH;
	int error = record_trust(pool), found = 0;
	if (error < 0) {
		participant_exit();
		return error;
	}
	for (uint32_t i = 0; i < pool->record_count; i++) {
		uint32_t generation;
		if (i == pool->record || !claim_dead(pool, i, &generation)) continue;
		recover_record(pool, i, generation);
		uint64_t mine = record_make(RECORD_RECOVERING, generation, pool->record + 1, pool->record_generation);
		/* commit: the record is free for the next process */
		if (atomic_compare_exchange_strong(&pool->records[i].word, &mine,
		                                   record_make(RECORD_FREE, generation + 1, 0, 0))) {
			atomic_fetch_add_explicit(&pool->header->recovered, 1, memory_order_relaxed);
			recover_leftovers(pool, i, generation);
			found++;
		}
	}
	found += recover_own_threads(pool);
	if (pool->private) private_settle(pool);
	growth_recover(pool);
	for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
		if ((*layer)->recover_rest) (*layer)->recover_rest(pool);
	participant_exit();
	if (found && pool->trace & HP_TRACE_ALL) pool_log(pool, "hugepool: recovered %d dead participants", found);
	return found;
}

bool recover_pending(hp_pool *pool)
{
	for (uint32_t i = 0; i < pool->record_count; i++)
		if (record_state(atomic_load_explicit(&pool->records[i].word, memory_order_acquire)) == RECORD_RECOVERING)
			return true;
	uint32_t top = pool_slots_top(pool);
	for (uint32_t i = 0; i < top; i++)
		if (slot_state(atomic_load_explicit(&pool->slots[i].word, memory_order_acquire)) == SLOT_RECOVERING)
			return true;
	return false;
}

int hp_pool_recover(hp_pool *pool)
{
	if (!pool) return -EINVAL;
	int error;
	if (!participant_get(pool, &error)) return error;
	return recover_dead(pool);
}
