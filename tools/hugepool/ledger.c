/* Loading and saving; ledger.h has the design. */
#include "ledger.h"

#include <errno.h>

static HP_TYPE_LEAF(ledger_type, struct ledger);

static int make(hp_tx *tx, void *arg)
{
	(void)arg;
	hp_heap_set_root(tx, hp_heap_new(tx, &ledger_type, 0));
	return hp_heap_error(tx);
}

int ledger_create(hp_pool *pool, hp_heap **heap)
{
	int error = hp_heap_create(pool, NULL, NULL, NULL, heap);
	if (error == 0 && (error = hp_heap_modify(*heap, LEDGER_LOCK_MS, make, NULL)) < 0) {
		hp_heap_destroy(*heap, 0, LEDGER_LOCK_MS);
		*heap = NULL;
	}
	return error;
}

static struct ledger *root_of(const hp_heap *heap)
{
	return hp_heap_deref_checked(heap, hp_heap_root(heap), &ledger_type, NULL);
}

int ledger_load(hp_heap *heap, struct ledger *ledger)
{
	hp_tx *tx;
	int error = hp_heap_begin(heap, LEDGER_LOCK_MS, &tx);
	if (error < 0) return error;
	const struct ledger *root = root_of(heap);
	if (root) *ledger = *root;
	hp_heap_abort(tx);
	return root ? 0 : -EUCLEAN;
}

int ledger_save(hp_heap *heap, const struct ledger *ledger, const bool *which, unsigned only)
{
	hp_tx *tx;
	int error = hp_heap_begin(heap, LEDGER_LOCK_MS, &tx);
	if (error < 0) return error;
	struct ledger *root = root_of(heap);
	if (!root) {
		hp_heap_abort(tx);
		return -EUCLEAN;
	}
	hp_heap_write(tx, &root->totals, &ledger->totals, sizeof(root->totals));
	for (unsigned i = which ? 0 : only; i < (which ? LEDGER_FIFOS : only + 1); i++)
		if (!which || which[i]) hp_heap_write(tx, &root->fifo[i], &ledger->fifo[i], sizeof(root->fifo[i]));
	return hp_heap_commit(tx); /* or what went wrong */
}
