#include "storm.h"
#include "inspect/inspect.h"
#include <hugepool/malloc.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

#define SIZE (8 * MIB)
#define CAPACITY (16 * MIB)
#define PATIENCE_S 60 /* for a survivor that does not move: a hang, on the slowest of machines */

_Static_assert(CAPACITY / PAGE <= STORM_PAGES, "every page has a word in the books");
_Static_assert(CAPACITY / STORM_CELL <= STORM_CELLS, "every cell has a word in the books");

/* The word of a page: {serial:40, pages:15, process:1, holder:8}. holder: 1 + 2 * worker + thread, or IN_BOX: whoever
 * wants it takes it. 0: no block that anybody knows of. */
#define IN_BOX 255u

static uint64_t word_make(uint64_t serial, size_t pages, bool process, unsigned holder)
{
	return serial << 24 | (uint64_t)pages << 9 | (uint64_t)process << 8 | holder;
}
static unsigned word_holder(uint64_t word)
{
	return word & 0xff;
}
static bool word_process(uint64_t word)
{
	return word >> 8 & 1;
}
static size_t word_pages(uint64_t word)
{
	return word >> 9 & 0x7fff;
}
static uint64_t word_mark(uint64_t word)
{
	return word >> 24 << 16;
}

/* The word of an object: the same, with its size in 16 bytes for the pages, and where in its cell it begins for the rest of
 * the serial. */
static uint64_t object_word(uint64_t serial, size_t bytes, hp_off off, unsigned holder)
{
	return word_make(serial << 5 | off % STORM_CELL / 16, bytes / 16, false, holder);
}
static hp_off object_at(uint64_t word, size_t cell)
{
	return cell * STORM_CELL + (word >> 24 & 31) * 16;
}
static size_t object_bytes(uint64_t word)
{
	return word_pages(word) * 16;
}

static uint64_t *last_of(void *object, size_t bytes)
{
	return (uint64_t *)object + bytes / 8 - 1;
}

static uint64_t now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

/* ---- the workers ---- */

struct worker {
	struct storm *storm;
	unsigned index, thread;
	uint64_t seed;
};

static void pause_here(struct storm *storm, struct storm_thread *my)
{
	while (atomic_load(&storm->pause)) {
		atomic_store(&my->paused, 1);
		syscall(SYS_futex, &storm->pause, FUTEX_WAIT, 1, NULL, NULL, 0);
	}
	atomic_store(&my->paused, 0);
}

static void intend(struct storm_thread *my, enum storm_intent intent, hp_off off)
{
	atomic_store(&my->intent, off << 4 | intent);
}

static void do_alloc(struct worker *w, struct storm_thread *my, unsigned holder)
{
	struct storm *storm = w->storm;
	bool process = hp_below(&w->seed, 4) == 0;
	size_t pages = 1 + hp_below(&w->seed, hp_below(&w->seed, 8) ? 6 : hp_below(&w->seed, 16) ? 64 : 600);
	void *block;
	intend(my, STORM_ALLOC, 0);
	int error = hp_page_alloc(storm->pool, pages * PAGE, process ? HP_PAGE_PROCESS : 0, &block);
	must(error == 0 || error == -ENOMEM);
	if (error == 0) {
		uint64_t word = word_make(atomic_load(&my->turns) << 3 | holder, pages, process, holder);
		hp_mark(block, pages, word_mark(word));
		atomic_store(&storm->owner[hp_pool_offset(storm->pool, block) / PAGE], word);
		my->allocs++;
	} else {
		my->refused++;
	}
	intend(my, STORM_NONE, 0);
}

/* Frees a block that is ours by the books. */
static void do_free(struct worker *w, struct storm_thread *my, size_t page, uint64_t word)
{
	struct storm *storm = w->storm;
	must(hp_marked(hp_pool_pointer(storm->pool, page * PAGE), word_pages(word), word_mark(word)));
	must_be(hp_page_size_at(storm->pool, page * PAGE), word_pages(word) * PAGE);
	intend(my, STORM_FREE, page * PAGE);
	atomic_store(&storm->owner[page], 0); /* before the page can be another's */
	must_be(hp_page_free_at(storm->pool, page * PAGE), 0);
	intend(my, STORM_NONE, 0);
	my->frees++;
}

static void do_malloc(struct worker *w, struct storm_thread *my, unsigned holder)
{
	struct storm *storm = w->storm;
	size_t size = STORM_CELL + hp_below(&w->seed, hp_below(&w->seed, 4) ? 1000 : 9000);
	intend(my, STORM_MALLOC, 0);
	uint64_t *object = hp_malloc(storm->pool, size);
	must(object || errno == ENOMEM);
	if (object) {
		hp_off off = hp_pool_offset(storm->pool, object);
		size_t bytes = hp_usable_size(storm->pool, object);
		must(bytes >= size);
		uint64_t word = object_word(atomic_load(&my->turns) << 3 | holder, bytes, off, holder);
		object[0] = *last_of(object, bytes) = word_mark(word);
		must_be(atomic_exchange(&storm->object[off / STORM_CELL], word), 0);
		my->mallocs++;
	} else {
		my->refused++;
	}
	intend(my, STORM_NONE, 0);
}

static bool object_marked(const struct storm *storm, uint64_t word, size_t cell)
{
	uint64_t *object = hp_pool_pointer(storm->pool, object_at(word, cell));
	return object[0] == word_mark(word) && *last_of(object, object_bytes(word)) == word_mark(word);
}

static void do_mfree(struct worker *w, struct storm_thread *my, size_t cell, uint64_t word)
{
	struct storm *storm = w->storm;
	hp_off off = object_at(word, cell);
	void *object = hp_pool_pointer(storm->pool, off);
	must(object_marked(storm, word, cell));
	must_be(hp_usable_size(storm->pool, object), object_bytes(word));
	intend(my, STORM_MFREE, off);
	atomic_store(&storm->object[cell], 0);
	must_be(hp_free(storm->pool, object), 0);
	intend(my, STORM_NONE, 0);
	my->mfrees++;
}

/* An object: allocated, taken from a box, freed, or put into one. */
static void turn_object(struct worker *w, struct storm_thread *my, unsigned holder, uint64_t kind)
{
	struct storm *storm = w->storm;
	if (hp_below(&w->seed, 5) < 2) {
		do_malloc(w, my, holder);
		return;
	}
	size_t at = hp_below(&w->seed, STORM_CELLS);
	for (unsigned k = 0; k < 1024; k++, at = (at + 1) % STORM_CELLS) {
		uint64_t word = atomic_load(&storm->object[at]);
		if (!word) continue;
		if (word_holder(word) == IN_BOX) {
			uint64_t mine = (word & ~UINT64_C(0xff)) | holder;
			if (!atomic_compare_exchange_strong(&storm->object[at], &word, mine)) continue;
			my->taken_over++;
			if (kind & 1) do_mfree(w, my, at, mine);
			return;
		}
		if (word_holder(word) != holder) continue;
		if (kind & 1)
			do_mfree(w, my, at, word);
		else
			must(atomic_compare_exchange_strong(&storm->object[at], &word, word | IN_BOX));
		return;
	}
}

static void turn(struct worker *w, struct storm_thread *my)
{
	struct storm *storm = w->storm;
	unsigned holder = 1 + w->index * STORM_THREADS + w->thread;
	uint64_t kind = hp_below(&w->seed, 400);
	if (kind == 0) {
		int error = hp_pool_grow(storm->pool, MIB, NULL, NULL);
		must(error == 0 || error == -ENOSPC || error == -ENOMEM);
	} else if (kind == 1) {
		must(hp_pool_trim(storm->pool, SIZE) >= 0);
	} else if (hp_below(&w->seed, 2)) {
		turn_object(w, my, holder, kind);
	} else if (kind < 130) {
		do_alloc(w, my, holder);
	} else {
		/* look at some pages: take over what lies in a box, and free, or hand over, what is ours */
		size_t at = hp_below(&w->seed, STORM_PAGES);
		for (unsigned k = 0; k < 256; k++, at = (at + 1) % STORM_PAGES) {
			uint64_t word = atomic_load(&storm->owner[at]);
			if (!word) continue;
			if (word_holder(word) == IN_BOX) {
				uint64_t mine = (word & ~UINT64_C(0xff)) | holder;
				if (atomic_compare_exchange_strong(&storm->owner[at], &word, mine)) {
					my->taken_over++;
					if (kind & 1) do_free(w, my, at, mine);
					break;
				}
			} else if (word_holder(word) == holder) {
				if (kind & 1 || word_process(word))
					do_free(w, my, at, word);
				else
					must(atomic_compare_exchange_strong(&storm->owner[at], &word, word | IN_BOX));
				break;
			}
		}
	}
}

static void *work(void *arg)
{
	struct worker w = *(struct worker *)arg;
	struct storm_thread *my = &w.storm->thread[w.index][w.thread];
	for (;;) {
		pause_here(w.storm, my);
		turn(&w, my);
		atomic_fetch_add(&my->turns, 1);
		if (hp_below(&w.seed, 4) == 0) sched_yield(); /* on few CPUs: short turns, more kills a second */
	}
	return NULL;
}

static void spawn(struct storm *storm, unsigned index)
{
	struct worker w[STORM_THREADS];
	storm->threads[index] = index < STORM_WORKERS / 2 ? 1 : STORM_THREADS;
	for (unsigned t = 0; t < STORM_THREADS; t++) {
		storm->thread[index][t].intent = STORM_NONE;
		storm->thread[index][t].paused = 0;
		w[t] = (struct worker){storm, index, t, hp_random(&storm->seed)};
	}
	pid_t pid = hp_fork();
	if (pid == 0) {
		pthread_t thread;
		if (storm->threads[index] > 1) must_be(pthread_create(&thread, NULL, work, &w[1]), 0);
		work(&w[0]);
	}
	storm->pid[index] = pid;
}

/* ---- the controller ---- */

/* Each thread of those alive goes on: it does `turns` operations, though somebody is dead and nobody has recovered it. */
static void survivors_go_on(struct storm *storm, uint64_t turns)
{
	uint64_t before[STORM_WORKERS][STORM_THREADS], since = now_s();
	for (unsigned i = 0; i < STORM_WORKERS; i++)
		for (unsigned t = 0; t < STORM_THREADS; t++) before[i][t] = atomic_load(&storm->thread[i][t].turns);
	for (unsigned i = 0; i < STORM_WORKERS; i++)
		for (unsigned t = 0; storm->pid[i] && t < storm->threads[i]; t++)
			while (atomic_load(&storm->thread[i][t].turns) < before[i][t] + turns) {
				if (now_s() - since > PATIENCE_S) fprintf(stderr, "worker %u thread %u stands still\n", i, t);
				must(now_s() - since <= PATIENCE_S);
				sched_yield();
			}
}

static void pause_all(struct storm *storm)
{
	uint64_t since = now_s();
	atomic_store(&storm->pause, 1);
	for (unsigned i = 0; i < STORM_WORKERS; i++)
		for (unsigned t = 0; storm->pid[i] && t < storm->threads[i]; t++)
			while (!atomic_load(&storm->thread[i][t].paused)) {
				must(now_s() - since <= PATIENCE_S);
				sched_yield();
			}
}

static void go_on(struct storm *storm)
{
	for (unsigned i = 0; i < STORM_WORKERS; i++)
		for (unsigned t = 0; t < STORM_THREADS; t++) atomic_store(&storm->thread[i][t].paused, 0);
	atomic_store(&storm->pause, 0);
	syscall(SYS_futex, &storm->pause, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static bool explains(struct storm *storm, uint64_t intent, const bool dead[STORM_WORKERS], unsigned except)
{
	for (unsigned i = 0; i < STORM_WORKERS; i++)
		for (unsigned t = 0; dead[i] && i != except && t < storm->threads[i]; t++) {
			uint64_t expected = intent;
			/* it explains one block, no more */
			if (atomic_compare_exchange_strong(&storm->thread[i][t].intent, &expected, STORM_NONE)) return true;
		}
	return false;
}

/* A live block that is not in the books: the application's, if a dead thread (of a worker but `except`) had it in hand.
 * Frees it. Who was freeing it is asked first: who was allocating may have had another one. */
static void block_in_hand(struct storm *storm, hp_off off, bool object, const bool dead[STORM_WORKERS], unsigned except)
{
	if (explains(storm, off << 4 | (object ? STORM_MFREE : STORM_FREE), dead, except) ||
	    explains(storm, object ? STORM_MALLOC : STORM_ALLOC, dead, except)) {
		must_be(object ? hp_free(storm->pool, hp_pool_pointer(storm->pool, off)) : hp_page_free_at(storm->pool, off),
		        0);
		storm->in_hand++;
		return;
	}
	fprintf(stderr, "the %s at %llu is nobody's\n", object ? "object" : "block", (unsigned long long)off);
	for (unsigned i = 0; i < STORM_WORKERS; i++)
		for (unsigned t = 0; dead[i] && t < storm->threads[i]; t++)
			fprintf(stderr, "  worker %u, thread %u died with intent %llx\n", i, t,
			        (unsigned long long)atomic_load(&storm->thread[i][t].intent));
	abort();
}

struct audit {
	struct storm *storm;
	const bool *dead;
	uint64_t objects;
};

/* Every live object is in the books, or was in dead hands. */
static int audit_slab(void *arg, uint32_t chunk, unsigned page, unsigned len, uint64_t pages)
{
	struct audit *audit = arg;
	struct inspect_slab slab;
	if (!inspect_is_slab(len)) return 0;
	inspect_slab(audit->storm->pool, chunk, page, len, &slab);
	must_be(slab.pages, pages);
	for (unsigned i = 0; i < slab.objects; i++) {
		if (!(slab.bits[i >> 6] >> (i & 63) & 1)) continue;
		hp_off off = slab.page * PAGE + slab.first + (hp_off)i * slab.size;
		uint64_t word = atomic_load(&audit->storm->object[off / STORM_CELL]);
		if (word && object_at(word, off / STORM_CELL) == off)
			audit->objects++;
		else
			block_in_hand(audit->storm, off, true, audit->dead, STORM_WORKERS);
	}
	return 0;
}

static void audit_objects(struct storm *storm, const bool dead[STORM_WORKERS])
{
	struct audit audit = {.storm = storm, .dead = dead};
	uint64_t words = 0;
	for (uint32_t i = 0; i < pool_top(storm->pool); i++) inspect_runs(storm->pool, i, audit_slab, &audit);
	for (size_t cell = 0; cell < STORM_CELLS; cell++) {
		uint64_t word = atomic_load(&storm->object[cell]);
		unsigned holder = word_holder(word);
		if (!word) continue;
		words++;
		must_be(hp_usable_size(storm->pool, hp_pool_pointer(storm->pool, object_at(word, cell))), object_bytes(word));
		must(object_marked(storm, word, cell));
		if (holder != IN_BOX && dead[(holder - 1) / STORM_THREADS]) atomic_store(&storm->object[cell], word | IN_BOX);
	}
	must_be(audit.objects, words); /* none lost */
	must_be(hp_stats(storm->pool).objects, words);
	storm->objects_seen += words;
}

/* With everybody alive paused and the dead recovered: the books and the pool say the same. */
static void audit(struct storm *storm, const bool dead[STORM_WORKERS])
{
	hp_pool *pool = storm->pool;
	uint64_t used = 0, blocks = 0;
	must(hp_pool_recover(pool) >= 0);
	hp_must_be_sound(pool);
	for (size_t page = 0; page < STORM_PAGES; page++) {
		uint64_t word = atomic_load(&storm->owner[page]);
		unsigned holder = word_holder(word), worker = (holder - 1) / STORM_THREADS;
		int64_t size = hp_page_size_at(pool, page * PAGE);
		bool of_dead = word && holder != IN_BOX && dead[worker];
		if (of_dead && word_process(word)) { /* given back with its process */
			/* of two that died: the second may have recovered the first, and been given this very page, and not
			 * have written it down */
			if (size >= 0) block_in_hand(storm, page * PAGE, false, dead, worker);
			atomic_store(&storm->owner[page], 0);
			continue;
		}
		if (!word && size < 0) continue;
		if (!word) {
			block_in_hand(storm, page * PAGE, false, dead, STORM_WORKERS);
			continue;
		}
		must_be(size, word_pages(word) * PAGE);
		must(hp_marked(hp_pool_pointer(pool, page * PAGE), word_pages(word), word_mark(word)));
		if (of_dead) atomic_store(&storm->owner[page], word | IN_BOX);
		used += (uint64_t)size;
		blocks++;
	}
	audit_objects(storm, dead);
	struct hp_pool_stats stats = hp_stats(pool);
	must_be(stats.free + used + stats.slab_bytes, stats.committed); /* zero pages lost */
	must_be(stats.live_blocks, blocks);
	must_be(stats.quarantined, 0);
	must(stats.committed >= SIZE);
	storm->audits++;
	storm->blocks_seen += blocks;
}

/* Everything is freed, except what is private to those alive; then all the rest is to be had. */
static void empty(struct storm *storm)
{
	hp_pool *pool = storm->pool;
	uint64_t used = 0;
	for (size_t page = 0; page < STORM_PAGES; page++) {
		uint64_t word = atomic_load(&storm->owner[page]);
		if (!word) continue;
		if (word_process(word)) {
			must_be(hp_page_free_at(pool, page * PAGE), -EPERM);
			used += word_pages(word) * PAGE;
		} else {
			must_be(hp_page_free_at(pool, page * PAGE), 0);
			atomic_store(&storm->owner[page], 0);
		}
	}
	for (size_t cell = 0; cell < STORM_CELLS; cell++) {
		uint64_t word = atomic_load(&storm->object[cell]);
		if (!word) continue;
		must_be(hp_free(pool, hp_pool_pointer(pool, object_at(word, cell))), 0);
		atomic_store(&storm->object[cell], 0);
	}
	struct hp_pool_stats stats = hp_stats(pool);
	must_be(stats.free + used + stats.slab_bytes, stats.committed);
	must_be(stats.objects, 0);
	if (used + stats.slab_bytes == 0 && stats.committed == CAPACITY) /* trimming leaves holes */
		must_be(stats.largest, stats.committed);
	hp_must_be_sound(pool);
}

static void kill_some(struct storm *storm)
{
	bool dead[STORM_WORKERS] = {false};
	unsigned count = hp_below(&storm->seed, 4) ? 1 : 2;
	for (unsigned k = 0; k < count; k++) {
		unsigned i = (unsigned)hp_below(&storm->seed, STORM_WORKERS);
		if (dead[i]) continue;
		/* now and then as soon as it lives, so while it takes part for the first time */
		uint64_t turns = hp_below(&storm->seed, 4) ? hp_below(&storm->seed, 50) : 0;
		uint64_t until = atomic_load(&storm->thread[i][0].turns) + turns, since = now_s();
		while (atomic_load(&storm->thread[i][0].turns) < until) {
			must(now_s() - since <= PATIENCE_S);
			sched_yield();
		}
		/* half of them with something in hand, as far as that can be seen from here */
		if (hp_below(&storm->seed, 2))
			for (unsigned look = 0; look < 100000 && !atomic_load(&storm->thread[i][0].intent); look++) {}
		for (uint64_t spin = hp_below(&storm->seed, hp_below(&storm->seed, 2) ? 100 : 4000); spin; spin--)
			atomic_signal_fence(memory_order_seq_cst);
		must_be(kill(storm->pid[i], SIGKILL), 0);
		dead[i] = true;
	}
	for (unsigned i = 0; i < STORM_WORKERS; i++) {
		if (!dead[i]) continue;
		must_be(hp_wait_for(storm->pid[i]), 128 + SIGKILL);
		storm->pid[i] = 0;
		storm->kills++;
	}
	survivors_go_on(storm, 2);
	pause_all(storm);
	audit(storm, dead);
	if (storm->audits % 50 == 0) empty(storm);
	for (unsigned i = 0; i < STORM_WORKERS; i++)
		if (dead[i]) spawn(storm, i); /* finds the pause, and waits like the others */
	go_on(storm);
}

void storm_run(uint64_t kills, unsigned flags, uint64_t seed)
{
	struct storm *storm = hp_shared(sizeof *storm);
	struct hp_pool_options options = hp_plain_options(SIZE);
	bool all[STORM_WORKERS];
	options.capacity = CAPACITY;
	options.flags = flags;
	storm->seed = seed;
	must_be(hp_pool_create(&options, &storm->pool), 0);
	fflush(NULL);
	for (unsigned i = 0; i < STORM_WORKERS; i++) spawn(storm, i);
	while (storm->kills < kills) kill_some(storm);
	uint64_t allocs = 0, frees = 0, mallocs = 0, mfrees = 0, taken_over = 0, refused = 0;
	for (unsigned i = 0; i < STORM_WORKERS; i++) {
		kill(storm->pid[i], SIGKILL);
		must_be(hp_wait_for(storm->pid[i]), 128 + SIGKILL);
		all[i] = true;
		for (unsigned t = 0; t < STORM_THREADS; t++) {
			allocs += storm->thread[i][t].allocs;
			frees += storm->thread[i][t].frees;
			mallocs += storm->thread[i][t].mallocs;
			mfrees += storm->thread[i][t].mfrees;
			taken_over += storm->thread[i][t].taken_over;
			refused += storm->thread[i][t].refused;
		}
	}
	audit(storm, all);
	empty(storm);
	struct hp_pool_stats stats = hp_stats(storm->pool);
	void *whole;
	must_be(hp_page_alloc(storm->pool, CAPACITY, 0, &whole), 0); /* growth still works, too */
	must_be(hp_page_free(storm->pool, whole), 0);
	hp_must_be_empty(storm->pool);
	printf(
		"%llu killed, %llu recovered; %llu blocks allocated, %llu freed; %llu objects allocated, %llu freed; %llu changed "
		"hands, %llu refused; %llu were in dead hands; %llu chunks and slabs taken; no page lost\n",
		(unsigned long long)storm->kills, (unsigned long long)stats.recovered, (unsigned long long)allocs,
		(unsigned long long)frees, (unsigned long long)mallocs, (unsigned long long)mfrees,
		(unsigned long long)taken_over, (unsigned long long)refused, (unsigned long long)storm->in_hand,
		(unsigned long long)stats.taken);
	hp_pool_detach(storm->pool);
	munmap(storm, sizeof *storm);
}
