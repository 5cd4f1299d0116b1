/* Slots for threads: registration, thread exit, fork, signal handlers.
 *
 * The private states of all participants of a process are entries of one arena, in MADV_WIPEONFORK memory: in the region of
 * their thread, or, those of signal handlers and of pools beyond the places that a region has, each in memory of its own.
 * A child finds the arena's `live` word 0 and maps a new one; of what the old one names it uses only the region of the
 * thread that forked, which it finds full of zeros. The arena's lock is in it too, hence free in every child.
 *
 * Those of private pools are of a second arena, of ordinary memory: the thread that forked goes on with them in the child.
 * The child notices by the first arena that it is one, at the fork handler or else at the first slow path of that
 * thread, and stamps what came along with it (private.c says why that is enough). Entries of other threads are told by
 * their older stamp, and used again. */
#include "pool/participant.h"
#include "pool/create.h"
#include "debug/debug.h"
#include "os/os.h"
#include "pool/layers.h"
#include "pool/record.h"
#include "pool/recover.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#define ARENA_ENTRIES 16384u

struct arena {
	_Atomic uint32_t lock; /* 0 free, 1 held */
	_Atomic uint32_t live;
	uint32_t generation;
	uint32_t top;     /* entries at and above were never used */
	uint32_t regions; /* that threads have left */
	struct participant *entry[ARENA_ENTRIES];
	char *region[ARENA_ENTRIES];
};

/* What a participant that is not for fast paths has in place of its pool; not NULL, which hp_malloc and its like take for
 * the default pool. */
static char not_a_pool;
#define NOT_FAST ((hp_pool *)(void *)&not_a_pool)
static struct participant nobody = {.fast = NOT_FAST}; /* so that the fast path has something to look at */
_Thread_local struct participant_thread hp_thread __attribute__((tls_model("initial-exec"))) = {&nobody, 0};
_Thread_local unsigned participant_busy __attribute__((tls_model("initial-exec")));
static _Thread_local struct participant *thread_list __attribute__((tls_model("initial-exec")));
static _Thread_local struct participant *thread_private __attribute__((tls_model("initial-exec")));
static _Thread_local uint32_t thread_generation __attribute__((tls_model("initial-exec")));

static _Thread_local char *thread_region __attribute__((tls_model("initial-exec")));
static char *nobodys_region;

static _Atomic(struct arena *) arena_current;
static struct arena *arena_private; /* only its entries and top are in use */
static _Atomic uint32_t arena_generations;
static bool fork_unlocked;
static hp_pool *all_pools;
_Atomic uint32_t participant_pool_changes;
static pthread_key_t exit_key;
static pthread_once_t exit_once = PTHREAD_ONCE_INIT;
static struct participant_guard fork_guard;
static bool fork_guarded;

/* Zero, and small pages, of which few are touched. NULL: there is none. */
static void *map_memory(size_t bytes, int protection, int advice)
{
	void *memory;
	if (os_map(NULL, bytes, protection, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &memory) < 0) return NULL;
	if (os_advise(memory, bytes, MADV_NOHUGEPAGE) < 0) {} /* a kernel without huge pages */
	if (!advice || os_advise(memory, bytes, advice) == 0) return memory;
	os_unmap(memory, bytes);
	return NULL;
}

static struct arena *arena_get(void)
{
	struct arena *old = atomic_load_explicit(&arena_current, memory_order_acquire);
	if (likely(old && atomic_load_explicit(&old->live, memory_order_acquire))) return old;
	struct arena *arena = map_memory(sizeof(struct arena), PROT_READ | PROT_WRITE, MADV_WIPEONFORK);
	if (!arena) return NULL;
	arena->generation = atomic_fetch_add(&arena_generations, 1) + 1;
	atomic_store_explicit(&arena->live, 1, memory_order_relaxed);
	if (atomic_compare_exchange_strong_explicit(&arena_current, &old, arena, memory_order_acq_rel,
	                                            memory_order_acquire))
		return arena;
	os_unmap(arena, sizeof(struct arena)); /* another thread of this process was quicker */
	return old;
}

uint32_t participant_fork_generation(void)
{
	struct arena *arena = arena_get();
	return arena ? arena->generation : 0;
}

const _Atomic uint32_t *participant_fork_word(void)
{
	struct arena *arena = arena_get();
	return arena ? &arena->live : NULL;
}

int participant_lock(struct participant_guard *guard)
{
	_Static_assert(sizeof(sigset_t) <= sizeof guard->saved_signals, "room for the signal mask");
	struct arena *arena = arena_get();
	if (!arena) return -ENOMEM;
	os_signals_block(guard->saved_signals);
	uint32_t expected = 0;
	while (!atomic_compare_exchange_strong_explicit(&arena->lock, &expected, 1, memory_order_acquire,
	                                                memory_order_relaxed)) {
		os_futex_wait(&arena->lock, 1, 1000000);
		expected = 0;
	}
	return 0;
}

void participant_unlock(struct participant_guard *guard)
{
	struct arena *arena = atomic_load_explicit(&arena_current, memory_order_acquire);
	atomic_store_explicit(&arena->lock, 0, memory_order_release);
	os_futex_wake(&arena->lock, 1);
	os_signals_restore(guard->saved_signals);
}

static struct arena *arena_of(const hp_pool *pool)
{
	return pool->private ? arena_private : arena_get();
}

/* ---- fork ---- */

/* Makes a private pool this process' own, if it is a forked child's that nobody has seen to. False: it is, and the thread
 * that forked, which alone can tell what is its own, has not come by yet. */
static bool follow_fork(hp_pool *pool)
{
	if (likely(pool->joined == participant_fork_generation())) return true;
	if (os_tid() != os_pid()) return false;
	struct participant_guard guard;
	if (participant_lock(&guard) < 0) return false;
	uint32_t generation = arena_get()->generation;
	if (pool->joined != generation) {
		private_follow_fork(pool);
		for (struct participant *p = thread_private; p; p = p->next) {
			p->generation = generation;
			if (p->pool != pool) continue;
			uint64_t word = atomic_load_explicit(&p->slot->word, memory_order_relaxed);
			atomic_store_explicit(&p->slot->tid, (uint32_t)os_tid(), memory_order_relaxed);
			atomic_store_explicit(
				&p->slot->word,
				slot_make(slot_state(word), slot_generation(word), pool->record, pool->record_generation),
				memory_order_relaxed);
		}
		atomic_store_explicit(&pool->joined, generation, memory_order_release);
	}
	participant_unlock(&guard);
	return true;
}

/* The thread's participants in pools of that kind. */
static struct participant *list_of(hp_pool *pool)
{
	if (pool->private) return follow_fork(pool) ? thread_private : NULL;
	return thread_generation == participant_fork_generation() ? thread_list : NULL;
}

void participant_fork_unlocked(void)
{
	fork_unlocked = true;
}

static bool thread_inside(const hp_pool *pool)
{
	if (participant_busy) return true;
	for (struct participant *p = thread_list; p; p = p->next)
		if (p->pool == pool && atomic_load_explicit(&p->slot->in_op, memory_order_relaxed)) return true;
	return false;
}

static void fork_prepare(void)
{
	struct participant_guard guard; /* of this thread: fork_guard belongs to who holds the lock */
	fork_guarded = !fork_unlocked && participant_lock(&guard) == 0;
	if (fork_guarded) fork_guard = guard;
	for (hp_pool *pool = all_pools; pool; pool = pool->next)
		if (!pool->private) pool->forked_in_op = thread_inside(pool);
}

static void fork_parent(void)
{
	struct participant_guard guard = fork_guard;
	if (fork_guarded) participant_unlock(&guard);
}

/* A child forked by a signal handler in the middle of an operation would, once the handler returns, go on writing as if
 * it were its parent: it loses the pool instead. */
static void fork_child(void)
{
	for (hp_pool *pool = all_pools; pool; pool = pool->next) {
		if (pool->private) follow_fork(pool);
		if (debug_on(pool)) debug_follow_fork(pool);
		if (!pool->forked_in_op) continue;
		if (pool->base) os_protect(pool->base, pool->capacity, PROT_NONE);
		os_protect(pool->control, pool->control_size, PROT_NONE);
	}
	if (!hp_thread_current->pool) hp_thread_current = &nobody;      /* it was wiped, its `fast` too */
	if (fork_guarded) os_signals_restore(fork_guard.saved_signals); /* the lock was wiped with its arena */
}

/* ---- the end of a thread ---- */

/* Lets fast paths use it, or not. */
static void set_fast(struct participant *me, bool fast)
{
	atomic_store_explicit(&me->fast, fast ? me->pool : NOT_FAST, memory_order_relaxed);
	for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
		if ((*layer)->fast) (*layer)->fast(me, fast ? me->slot : NULL);
}

static bool may_be_fast(const hp_pool *pool)
{
	return !pool->slow && !pool->fenced;
}

static void participant_drop(struct participant *me)
{
	set_fast(me, false);
	me->pool = NULL;
	me->slot = NULL;
	me->used = false;
}

/* The slot goes back as if its thread had died. Called inside participant_lock. */
static void participant_leave(struct participant *me)
{
	hp_pool *pool = me->pool;
	struct pool_slot *slot = me->slot;
	uint32_t who = me->who;
	/* first: what recovery gives back is not to be freed by what this thread believed to own */
	participant_drop(me);
	if (!pool || pool->joined != participant_fork_generation()) return;
	uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
	uint64_t claim = slot_make(SLOT_RECOVERING, slot_generation(word), slot_record(word), slot_record_generation(word));
	uint32_t index = (uint32_t)(slot - pool->slots);
	if (slot_state(word) == SLOT_LIVE && who_make(index, slot_generation(word)) == who &&
	    atomic_compare_exchange_strong_explicit(&slot->word, &word, claim, memory_order_acq_rel, memory_order_relaxed))
		recover_slot(pool, index, claim);
}

static void thread_exit(void *unused)
{
	(void)unused;
	struct participant_guard guard;
	for (struct participant *p = thread_private; p; p = p->next)
		if (p->pool) follow_fork(p->pool);
	if (participant_lock(&guard) < 0) return;
	if (thread_generation == participant_fork_generation())
		for (struct participant *p = thread_list, *next; p; p = next) {
			next = p->next;
			participant_leave(p);
		}
	for (struct participant *p = thread_private, *next; p; p = next) {
		next = p->next;
		participant_leave(p);
	}
	thread_list = thread_private = NULL;
	hp_thread = (struct participant_thread){&nobody, 0};
	struct arena *arena = arena_get();
	if (thread_region && arena->regions < ARENA_ENTRIES) arena->region[arena->regions++] = thread_region;
	thread_region = NULL;
	participant_unlock(&guard);
}

static void process_once(void)
{
	pthread_key_create(&exit_key, thread_exit);
	os_atfork(fork_prepare, fork_parent, fork_child);
}

/* ---- registration ---- */

/* A slot of this process whose thread ended without running destructors, met again by a new thread with its number. */
static void recover_namesake(hp_pool *pool, uint32_t tid)
{
	uint32_t top = pool_slots_top(pool);
	for (uint32_t i = 0; i < top; i++) {
		struct pool_slot *slot = &pool->slots[i];
		uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
		if (slot_state(word) != SLOT_LIVE || slot_record(word) != pool->record ||
		    slot_record_generation(word) != pool->record_generation ||
		    atomic_load_explicit(&slot->tid, memory_order_relaxed) != tid)
			continue;
		bool mine = false;
		for (struct participant *p = pool->private ? thread_private : thread_list; p; p = p->next)
			mine |= p->pool == pool && p->slot == slot;
		if (mine) continue;
		uint64_t claim = slot_make(SLOT_RECOVERING, slot_generation(word), slot_record(word),
		                           slot_record_generation(word));
		if (atomic_compare_exchange_strong(&slot->word, &word, claim)) recover_slot(pool, i, claim);
	}
}

static int slot_take(hp_pool *pool, struct participant *me)
{
	uint32_t tid = (uint32_t)os_tid();
	for (uint32_t k = 0; k < pool->slot_count; k++) {
		struct pool_slot *slot = &pool->slots[k];
		uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
		if (slot_state(word) != SLOT_FREE) continue;
		uint32_t top = atomic_load_explicit(&pool->header->slots_top, memory_order_relaxed);
		while (top <= k && !atomic_compare_exchange_weak(&pool->header->slots_top, &top, k + 1)) {}
		uint64_t live = slot_make(SLOT_LIVE, slot_generation(word), pool->record, pool->record_generation);
		/* commit: the slot is this process'; a death after it is recovered with the record */
		if (!atomic_compare_exchange_strong_explicit(&slot->word, &word, live, memory_order_acq_rel,
		                                             memory_order_relaxed))
			continue;
		atomic_store_explicit(&slot->tid, tid, memory_order_relaxed);
		atomic_store_explicit(&slot->node, (uint32_t)os_node(), memory_order_relaxed);
		atomic_store_explicit(&slot->in_op, 0, memory_order_relaxed);
		me->slot = slot;
		me->who = who_make(k, slot_generation(word));
		return 0;
	}
	return -EUSERS;
}

/* ---- regions ---- */

/* Left over from a pool that was detached. */
static void delist(struct participant **list, const struct participant *me)
{
	while (*list && *list != me) list = &(*list)->next;
	if (*list) *list = me->next;
}

/* A participant each, of which the first page is for its shift. */
#define PLACE_BYTES ((sizeof(struct participant) + 2 * HP_PAGE_SIZE - 1) & ~((size_t)HP_PAGE_SIZE - 1))
#define REGION_BYTES ((PARTICIPANT_PLACES + 1) * PLACE_BYTES) /* the last one is of no pool */

/* Participants are shifted within their pages. The first line, which fast paths only read, has the place in its page that
 * the thread-local pointer to it has, which they read, too: a processor that takes a store for one to what it loads, by
 * the last twelve bits of their addresses, makes the load wait, and what else is in here is stored to all the time. */
static char *shifted(char *memory)
{
	return memory + ((uintptr_t)&hp_thread & (HP_PAGE_SIZE - 64));
}

char *participant_nobodys(const hp_pool *pool, size_t offset)
{
	unsigned place = pool ? pool->place : PARTICIPANT_PLACES;
	return nobodys_region + place * PLACE_BYTES + (place < PARTICIPANT_PLACES ? offset : 0);
}

/* The thread's in the place of the pool, in memory that can be written to; NULL: there is none to be had. */
static struct participant *place_get(hp_pool *pool, int *error)
{
	struct arena *arena = arena_get(), *of = arena_of(pool);
	*error = -ENOMEM;
	if (!thread_region && arena->regions) thread_region = arena->region[--arena->regions];
	if (!thread_region) {
		/* where no participant is, it is only read */
		char *memory = map_memory(REGION_BYTES, PROT_READ, MADV_WIPEONFORK);
		if (!memory) return NULL;
		thread_region = shifted(memory);
	}
	hp_thread.distance = (uintptr_t)thread_region - (uintptr_t)nobodys_region;
	char *memory = thread_region + pool->place * PLACE_BYTES;
	struct participant *me = (void *)memory;
	if (!me->placed || me->kept != pool->private) {
		void *pages = memory - ((uintptr_t)memory & (HP_PAGE_SIZE - 1));
		if (os_advise(pages, PLACE_BYTES, pool->private ? MADV_KEEPONFORK : MADV_WIPEONFORK) < 0) return NULL;
		if (os_protect(pages, PLACE_BYTES, PROT_READ | PROT_WRITE) < 0) return NULL;
		me->placed = true;
		me->kept = pool->private;
	}
	uint32_t generation = pool->private ? 1 : arena->generation, *listed = &me->listed[pool->private];
	if (*listed != generation) {
		*error = -EUSERS;
		if (of->top == ARENA_ENTRIES) return NULL;
		of->entry[of->top++] = me;
		*listed = generation;
	}
	delist(&thread_list, me);
	delist(&thread_private, me);
	*error = 0;
	return me;
}

/* An entry that is nobody's, or a new one. NULL and *error: no more are to be had. */
static struct participant *entry_get(hp_pool *pool, uint32_t generation, int *error)
{
	struct arena *arena = arena_of(pool);
	for (uint32_t i = 0; i < arena->top; i++) {
		struct participant *me = arena->entry[i];
		if (me->placed || (me->used && me->generation == generation)) continue;
		me->used = false;
		return me;
	}
	bool room = arena->top < ARENA_ENTRIES;
	char *memory = room ? map_memory(sizeof(struct participant) + HP_PAGE_SIZE, PROT_READ | PROT_WRITE,
	                                 pool->private ? 0 : MADV_WIPEONFORK)
	                    : NULL;
	if (!memory) {
		*error = room ? -ENOMEM : -EUSERS;
		return NULL;
	}
	struct participant *me = (void *)shifted(memory);
	arena->entry[arena->top++] = me;
	return me;
}

static int participant_register(hp_pool *pool, bool nested, struct participant **out)
{
	pthread_once(&exit_once, process_once);
	struct participant_guard guard;
	int error = participant_lock(&guard);
	if (error < 0) return error;
	struct arena *arena = arena_get();
	if (thread_generation != arena->generation) { /* first use in this thread, or a child's */
		thread_generation = arena->generation;
		thread_list = NULL;
		hp_thread_current = &nobody;
	}
	struct participant *me = NULL, **list = pool->private ? &thread_private : &thread_list;
	if (pool->joined != arena->generation) {
		if (pool->private)
			error = -EAGAIN;
		else if ((error = record_join(pool)) == 0) {
			pool->joined = arena->generation;
			for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
				if ((*layer)->joined) (*layer)->joined(pool);
		}
	}
	if (error == 0) {
		bool placed = !nested && pool->place < PARTICIPANT_PLACES;
		for (struct participant *p = placed ? NULL : *list; p && !me; p = p->next)
			if (!p->pool && !p->placed) me = p; /* left over from a pool that was detached */
		bool listed = me != NULL;
		if (!me) me = placed ? place_get(pool, &error) : entry_get(pool, arena->generation, &error);
		if (me) {
			/* what is behind stays: also that one that is in the list is ours, if there is no slot for it */
			memset(me, 0, offsetof(struct participant, next));
			memset(me->page_state, 0, sizeof me->page_state);
			for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
				if ((*layer)->begin) (*layer)->begin(me);
			me->generation = arena->generation;
			recover_namesake(pool, (uint32_t)os_tid());
			error = slot_take(pool, me);
			if (error == -EUSERS && recover_dead(pool) > 0) error = slot_take(pool, me);
		}
		if (error == 0) {
			me->seen = atomic_load_explicit(&me->slot->taker, memory_order_acquire);
			me->epoch = &pool->header->epoch;
			me->fenced = pool->fenced;
			me->nested = nested;
			me->node = (uint8_t)atomic_load_explicit(&me->slot->node, memory_order_relaxed);
			me->cursor = (uint32_t)(((uint64_t)(me->slot - pool->slots) * 0x9e3779b1u) %
			                        (pool->chunk_count ? pool->chunk_count : 1));
			me->used = true;
			if (!listed) {
				me->next = *list;
				*list = me;
			}
			me->pool = pool;
			set_fast(me, may_be_fast(pool));
			*out = me;
		}
	}
	participant_unlock(&guard);
	if (error == 0) pthread_setspecific(exit_key, *out); /* may allocate: the slot is ready by now */
	if (error == -EUSERS)
		pool_log(pool,
		         "hugepool: no slot is left for this thread; make the pool with more max_threads (%u) or "
		         "max_processes (%u)",
		         pool->slot_count, pool->record_count);
	return error;
}

struct participant *participant_peek(hp_pool *pool)
{
	for (struct participant *p = list_of(pool); p; p = p->next)
		if (p->pool == pool && !p->busy && !atomic_load_explicit(&p->slot->in_op, memory_order_relaxed)) return p;
	return NULL;
}

struct participant *participant_first(hp_pool *pool)
{
	for (struct participant *p = list_of(pool); p; p = p->next)
		if (p->pool == pool && !p->nested) return p;
	return NULL;
}

struct participant *participant_get(hp_pool *pool, int *error)
{
	if (pool->observer) {
		*error = -EROFS;
		return NULL;
	}
	struct participant *me = participant_peek(pool);
	bool nested = false;
	if (!me) {
		for (struct participant *p = list_of(pool); p; p = p->next) nested |= p->pool == pool;
		if ((*error = participant_register(pool, nested, &me)) < 0) return NULL;
	}
	if (!nested) hp_thread_current = me;
	return me;
}

bool participant_switch(const hp_pool *pool)
{
	if (atomic_load_explicit(&hp_thread_current->fast, memory_order_relaxed) == pool) return false;
	/* after a fork those of the parent are zero, or their pool has been followed */
	for (struct participant *p = pool->private ? thread_private : thread_list; p; p = p->next) {
		if (atomic_load_explicit(&p->fast, memory_order_relaxed) != pool || p->nested) continue;
		hp_thread_current = p;
		return true;
	}
	return false;
}

void participant_reread(struct participant *me)
{
	/* before the look: of a mark that comes after it there is news again */
	atomic_exchange_explicit(&me->slot->news, 0, memory_order_seq_cst);
	uint64_t word = atomic_load_explicit(&me->slot->taker, memory_order_seq_cst);
	me->rereads++;
	if (word == me->seen) return;
	for (const struct pool_layer *const *layer = pool_layers; *layer; layer++)
		if ((*layer)->reread) (*layer)->reread(me, word >> 32 != 0);
	/* Remembering a mark is safe: a taker moves only what was owned before it marked, that has now been given back, and
	 * every end of a mark counts the sequence up, so the same word does not come again. */
	me->seen = word;
}

void participant_set_fast(hp_pool *pool)
{
	struct arena *arena = arena_of(pool);
	for (uint32_t i = 0; arena && i < arena->top; i++)
		if (arena->entry[i]->pool == pool) set_fast(arena->entry[i], may_be_fast(pool));
}

void participant_forget(hp_pool *pool)
{
	struct arena *arena = arena_of(pool);
	for (uint32_t i = 0; arena && i < arena->top; i++)
		if (arena->entry[i]->pool == pool) {
			set_fast(arena->entry[i], false);
			arena->entry[i]->pool = NULL; /* stays with its thread, which uses it for its next pool */
			arena->entry[i]->slot = NULL;
		}
}

int participant_reserve(bool private)
{
	if (!nobodys_region) nobodys_region = map_memory(REGION_BYTES, PROT_READ, 0);
	if (!nobodys_region) return -ENOMEM;
	if (!private) return 0;
	if (!arena_private) arena_private = map_memory(sizeof(struct arena), PROT_READ | PROT_WRITE, 0);
	return arena_private ? 0 : -ENOMEM;
}

void participant_add_pool(hp_pool *pool)
{
	pthread_once(&exit_once, process_once);
	uint32_t taken = 0;
	for (const hp_pool *other = all_pools; other; other = other->next) taken |= UINT32_C(1) << other->place;
	pool->place = (unsigned)__builtin_ctz(~(taken & ((UINT32_C(1) << PARTICIPANT_PLACES) - 1)));
	pool->next = all_pools;
	all_pools = pool;
	atomic_fetch_add_explicit(&participant_pool_changes, 1, memory_order_release);
}

hp_pool *participant_pools(void)
{
	return all_pools;
}

void participant_remove_pool(hp_pool *pool)
{
	for (hp_pool **link = &all_pools; *link; link = &(*link)->next)
		if (*link == pool) {
			*link = pool->next;
			atomic_fetch_add_explicit(&participant_pool_changes, 1, memory_order_release);
			break;
		}
}
