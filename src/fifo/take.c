/* Taking: elements that are a consumer's until it acknowledges them.
 *
 * One consumer: what is taken lies where it was, behind the tail, and only the handle knows how much it is; acknowledging
 * moves the tail. Who comes after a dead one finds all of it.
 *
 * Many: a hold has a word {sequence, holder, count, first, state} and room for the elements. A taker claims a free hold, fills
 * it, and moves the tail by a compare-and-swap that also names the hold in it. Whoever takes next has first turned the
 * hold that is named there from tentative to taken; who pops leaves the name there. So of a tentative hold of a dead one: the tail names it, and it is
 * taken; or not, and it never was. Holds whose holder is dead, by his cell, are nobody's; who is looking for elements makes
 * them his own by one compare-and-swap. The hold is looked at before the cell, and a cell changes hands only when nothing is
 * held by it any more. Model: tests/models/fifo_model.py. */
#include "fifo/fifo.h"
#include <errno.h>

static char *held_at(const hp_fifo *fifo, uint32_t hold, unsigned element)
{
	return (char *)(fifo->held + ((uint64_t)hold * HP_FIFO_TAKE_MAX + element) * fifo->words);
}

static unsigned hold_rest(uint64_t word)
{
	unsigned count = hold_count(word), first = hold_first(word);
	return count <= HP_FIFO_TAKE_MAX && first <= count ? count - first : 0;
}

static uint64_t with_state(uint64_t word, enum hold_state state)
{
	return (word & ~UINT64_C(3)) | state;
}

/* The same elements, or fewer, of another; or nobody's and free where there are none. */
static uint64_t handed(uint64_t word, uint32_t holder, unsigned first)
{
	unsigned count = hold_count(word);
	if (first >= count) return hold_make(hold_sequence(word) + 1, HOLD_NOBODY, 0, 0, HOLD_FREE);
	return hold_make(hold_sequence(word) + 1, holder, count, first, HOLD_TAKEN);
}

/* The hold that the tail names is taken, and no longer tentative; before the tail names another. */
static void confirm(const hp_fifo *fifo, uint64_t mover)
{
	uint64_t hold = (mover & 0xfffffff) - 1;
	if (hold >= fifo->handles) return;
	uint64_t word = atomic_load_explicit(&fifo->holds[hold], memory_order_acquire);
	if (hold_state(word) == HOLD_TENTATIVE && hold_sequence(word) == mover >> 28)
		atomic_compare_exchange_strong(&fifo->holds[hold], &word, with_state(word, HOLD_TAKEN));
}

/* A tentative hold whose holder is dead: true, and *word says so, where it turns out to be taken. */
static bool settle(const hp_fifo *fifo, uint32_t hold, uint64_t *word)
{
	/* after the word: where it is committed, and another has moved the tail since, it has been confirmed */
	bool committed = atomic_load(&fifo->shared->tail.b) == hold_name(hold, *word);
	uint64_t is = committed ? with_state(*word, HOLD_TAKEN) : handed(*word, HOLD_NOBODY, HP_FIFO_TAKE_MAX);
	bool swapped = atomic_compare_exchange_strong(&fifo->holds[hold], word, is);
	if (swapped) *word = is;
	return swapped && committed;
}

/* Is the hold a dead one's, or nobody's? */
static bool is_orphan(const hp_fifo *fifo, uint32_t hold, uint64_t *word)
{
	*word = atomic_load(&fifo->holds[hold]);
	uint32_t holder = hold_holder(*word);
	if (hold_state(*word) == HOLD_FREE || holder == fifo->cell) return false;
	if (holder < fifo->handles && !fifo_is_over(fifo->pool, atomic_load(&fifo->shared->cell[holder]))) return false;
	return hold_state(*word) == HOLD_TAKEN || settle(fifo, hold, word);
}

void fifo_let_go(hp_fifo *fifo, uint32_t cell, uint64_t owner)
{
	for (uint32_t i = 0; fifo->holds && i < fifo->handles; i++)
		for (;;) {
			uint64_t word = atomic_load(&fifo->holds[i]);
			if (hold_state(word) == HOLD_FREE || hold_holder(word) != cell) break;
			if (atomic_load(&fifo->shared->cell[cell]) != owner) return;
			if (hold_state(word) == HOLD_TAKEN)
				atomic_compare_exchange_strong(&fifo->holds[i], &word, handed(word, HOLD_NOBODY, hold_first(word)));
			else
				settle(fifo, i, &word);
		}
}

static bool may_hold(const hp_fifo *fifo)
{
	return fifo->holds && fifo_is_ours(fifo);
}

/* Makes a dead one's hold with at least so many elements ours. */
static bool adopt(hp_fifo *fifo, unsigned least, uint32_t *hold, uint64_t *word)
{
	for (uint32_t i = 0; i < fifo->handles; i++) {
		if (!is_orphan(fifo, i, word) || hold_rest(*word) < least) continue;
		uint64_t ours = handed(*word, fifo->cell, hold_first(*word));
		/* commit: what the dead one had taken is ours */
		if (!atomic_compare_exchange_strong(&fifo->holds[i], word, ours)) continue;
		*hold = i;
		*word = ours;
		return true;
	}
	return false;
}

uint64_t fifo_pop_orphan(hp_fifo *fifo, void *elements, uint64_t n, uint64_t least)
{
	uint32_t hold;
	uint64_t word;
	if (!may_hold(fifo) || least > HP_FIFO_TAKE_MAX || !adopt(fifo, (unsigned)least, &hold, &word)) return 0;
	unsigned first = hold_first(word), some = hold_rest(word);
	if (some > n) some = (unsigned)n;
	memcpy(elements, held_at(fifo, hold, first), (size_t)some * fifo->words * 8);
	/* commit: they are the caller's, and the rest is anybody's */
	atomic_compare_exchange_strong(&fifo->holds[hold], &word, handed(word, HOLD_NOBODY, first + some));
	return some;
}

uint64_t fifo_orphans(hp_fifo *fifo)
{
	uint64_t sum = 0, word;
	if (!may_hold(fifo) || !atomic_load_explicit(&fifo->shared->takes, memory_order_acquire)) return 0;
	for (uint32_t i = 0; i < fifo->handles; i++)
		if (is_orphan(fifo, i, &word)) sum += hold_rest(word);
	return sum;
}

/* A free hold, tentative and ours; its own first. */
static bool claim(hp_fifo *fifo, uint32_t *hold, uint64_t *word)
{
	for (uint32_t k = 0; k < fifo->handles; k++) {
		uint32_t i = (fifo->cell + k) % fifo->handles;
		uint64_t was = atomic_load_explicit(&fifo->holds[i], memory_order_acquire);
		if (hold_state(was) != HOLD_FREE) continue;
		*word = hold_make(hold_sequence(was) + 1, fifo->cell, 0, 0, HOLD_TENTATIVE);
		*hold = i;
		if (atomic_compare_exchange_strong(&fifo->holds[i], &was, *word)) return true;
	}
	return false;
}

/* From the tail into a hold of ours. */
static bool take_new(hp_fifo *fifo, size_t n, uint32_t *hold, uint64_t *word)
{
	struct fifo_pair *tail = &fifo->shared->tail;
	if (!fifo_ready(fifo, atomic_load_explicit(&tail->a, memory_order_acquire), 1) || !claim(fifo, hold, word))
		return false;
	for (;;) {
		uint64_t at = atomic_load_explicit(&tail->a, memory_order_acquire);
		uint64_t mover = atomic_load_explicit(&tail->b, memory_order_acquire);
		uint64_t some = fifo_ready(fifo, at, n);
		if (some > n) some = n;
		if (some == 0) {
			atomic_store_explicit(&fifo->holds[*hold], handed(*word, HOLD_NOBODY, HP_FIFO_TAKE_MAX),
			                      memory_order_release);
			return false;
		}
		fifo_read(fifo, at, held_at(fifo, *hold, 0), some);
		*word = hold_make(hold_sequence(*word), fifo->cell, (unsigned)some, 0, HOLD_TENTATIVE);
		atomic_store_explicit(&fifo->holds[*hold], *word, memory_order_release);
		if (mover) confirm(fifo, mover);
		/* commit: they are taken. Before it the hold means nothing. */
		if (!pair_swap(tail, at, mover, at + some, hold_name(*hold, *word))) continue;
		uint64_t was = *word;
		*word = with_state(was, HOLD_TAKEN);
		atomic_compare_exchange_strong(&fifo->holds[*hold], &was, *word); /* or another has done that for us */
		fifo_wake(fifo, false);
		return true;
	}
}

int64_t hp_fifo_take(hp_fifo *fifo, void *elements, size_t n)
{
	if (!fifo_many_consumers(fifo)) {
		uint64_t at = atomic_load_explicit(&fifo->shared->tail.a, memory_order_relaxed) + fifo->taken;
		uint64_t ready = fifo_ready(fifo, at, n);
		if (n > ready) n = ready;
		fifo_read(fifo, at, elements, n);
		fifo->taken += n;
		return (int64_t)n;
	}
	if (!may_hold(fifo)) return -ESTALE;
	if (fifo->taken) return -EBUSY;
	if (n == 0) return 0;
	if (n > HP_FIFO_TAKE_MAX) n = HP_FIFO_TAKE_MAX;
	uint32_t hold;
	uint64_t word;
	if (!atomic_load_explicit(&fifo->shared->takes, memory_order_relaxed)) atomic_store(&fifo->shared->takes, 1);
	if (!adopt(fifo, 1, &hold, &word) && !take_new(fifo, n, &hold, &word)) return 0;
	uint64_t rest = hold_rest(word);
	fifo->hold = hold;
	fifo->hold_word = word;
	fifo->taken = n < rest ? n : rest;
	memcpy(elements, held_at(fifo, hold, hold_first(word)), fifo->taken * fifo->words * 8);
	return (int64_t)fifo->taken;
}

/* The first n are dealt with; `back`: others may have the rest. */
static int move_hold(hp_fifo *fifo, size_t n, bool back)
{
	if (!may_hold(fifo)) return -ESTALE;
	uint64_t word = fifo->hold_word;
	unsigned first = hold_first(word) + (unsigned)n;
	/* what was adopted may be more than was asked for */
	bool over = back || n == fifo->taken;
	uint64_t is = handed(word, over ? HOLD_NOBODY : fifo->cell, first);
	/* commit: what is acknowledged is gone, what is handed back is anybody's */
	bool ours = atomic_compare_exchange_strong(&fifo->holds[fifo->hold], &word, is);
	fifo->taken = over || !ours ? 0 : fifo->taken - n;
	fifo->hold_word = is;
	if (ours && over && hold_state(is) == HOLD_TAKEN) fifo_wake(fifo, true);
	return ours ? 0 : -ESTALE;
}

int hp_fifo_ack(hp_fifo *fifo, size_t n)
{
	if (n > fifo->taken) return -EINVAL;
	if (n == 0) return 0;
	if (fifo_many_consumers(fifo)) return move_hold(fifo, n, false);
	_Atomic uint64_t *tail = &fifo->shared->tail.a;
	fifo->taken -= n;
	/* commit: they are dealt with. Release: they were read before they are written over. */
	atomic_store_explicit(tail, atomic_load_explicit(tail, memory_order_relaxed) + n, memory_order_release);
	fifo_wake(fifo, false);
	return 0;
}

int hp_fifo_nack(hp_fifo *fifo)
{
	if (fifo->taken == 0) return 0;
	if (fifo_many_consumers(fifo)) return move_hold(fifo, 0, true);
	fifo->taken = 0;
	return 0;
}
