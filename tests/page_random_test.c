/* Random operations against a model that knows the owner of every page.
 *
 * Several threads on two handles of one pool (so the same memory at two addresses, and two processes as far as class
 * PROCESS is concerned) take turns; whose turn it is, is random too, and nobody acts out of turn. So every answer has exactly one
 * right value: an allocation fails if and only if the model has no run for it, every wrong free has its errno, and free,
 * largest and the number of blocks are what the model counts. Every allocated page carries its owner's mark.
 *
 * Catches: lost pages, blocks with two owners, runs that are there and are not found, wrong errors, statistics that
 * drift, chunks that change their class while they hold blocks. */
#include "hp_page.h"
#include "page/page.h"
#include <pthread.h>

#define MAX_PAGES 65536
#define HANDLES 2
#define THREADS 6
#define TURN 6 /* operations at most in a row */

struct owner {
	uint32_t pages; /* 0: no block */
	uint32_t page;
	int process; /* handle that it is private to, or -1 */
	uint64_t mark;
};

struct model {
	uint32_t pages, unit;
	uint32_t of[MAX_PAGES];   /* index into block + 1, 0: free */
	bool was_head[MAX_PAGES]; /* a block began here at any time: a second free can be told */
	struct owner block[MAX_PAGES];
	uint32_t live[MAX_PAGES], lives; /* indexes of live blocks, in no order */
	uint32_t spare[MAX_PAGES], spares;
	uint64_t marks;
};

struct play {
	hp_pool *pool[HANDLES];
	struct model *m;
	uint64_t seed, done, todo;
	unsigned turn; /* whose */
	pthread_mutex_t lock;
	pthread_cond_t changed[THREADS], over;
	pthread_t thread[THREADS];
	unsigned check_every;
	bool stop;
	uint64_t allocs, refused, frees, wrong, zeroed, reattached;
};

struct seat {
	struct play *play;
	unsigned index;
};

/* ---- the model ---- */

/* Whose class the chunk is bound to by the blocks that begin in it: -1 none, -2 class POOL, else a handle. */
static int chunk_class(const struct model *m, uint32_t chunk)
{
	for (uint32_t i = chunk * m->unit; i < (chunk + 1) * m->unit; i++) {
		if (!m->of[i]) continue;
		const struct owner *o = &m->block[m->of[i] - 1];
		if (o->page == i) return o->process < 0 ? -2 : o->process;
	}
	return -1;
}

/* The longest run that an allocation of this class may get; `anyhow`: whatever the class. */
static uint32_t longest(const struct model *m, int process, bool anyhow)
{
	uint32_t best = 0, run = 0;
	int want = process < 0 ? -2 : process;
	for (uint32_t c = 0; c < m->pages / m->unit; c++) {
		int class = anyhow ? -1 : chunk_class(m, c);
		if (class != -1 && class != want) {
			run = 0;
			continue;
		}
		for (uint32_t i = c * m->unit; i < (c + 1) * m->unit; i++) {
			run = m->of[i] ? 0 : run + 1;
			if (run > best) best = run;
		}
	}
	return best;
}

static void model_add(struct model *m, uint32_t page, uint32_t pages, int process, uint64_t mark)
{
	must(m->spares > 0 && page + pages <= m->pages);
	uint32_t k = m->spare[--m->spares];
	m->block[k] = (struct owner){pages, page, process, mark};
	for (uint32_t i = page; i < page + pages; i++) {
		must_be(m->of[i], 0); /* or it has two owners */
		m->of[i] = k + 1;
	}
	if (process >= 0) /* the class of a chunk follows the blocks that begin in it */
		must(chunk_class(m, page / m->unit) == process);
	m->was_head[page] = true;
	m->live[m->lives++] = k;
}

static void model_remove(struct model *m, uint32_t at)
{
	uint32_t k = m->live[at];
	for (uint32_t i = m->block[k].page; i < m->block[k].page + m->block[k].pages; i++) m->of[i] = 0;
	m->block[k].pages = 0;
	m->live[at] = m->live[--m->lives];
	m->spare[m->spares++] = k;
}

/* ---- operations ---- */

static uint32_t random_pages(struct play *p)
{
	uint64_t kind = hp_below(&p->seed, 100);
	uint32_t most = kind < 60 ? 4 : kind < 85 ? p->m->unit : kind < 97 ? 4 * p->m->unit : p->m->pages;
	return 1 + (uint32_t)hp_below(&p->seed, most < p->m->pages ? most : p->m->pages);
}

static void op_alloc(struct play *p, unsigned handle)
{
	struct model *m = p->m;
	uint32_t pages = random_pages(p);
	unsigned flags = hp_below(&p->seed, 5) == 0 ? HP_PAGE_PROCESS : 0;
	if (pages <= 8 && hp_below(&p->seed, 8) == 0) flags |= HP_PAGE_ZERO;
	int process = flags & HP_PAGE_PROCESS ? (int)handle : -1;
	void *block;
	size_t bytes = pages * PAGE - hp_below(&p->seed, PAGE);
	int error = hp_below(&p->seed, 10) ? hp_page_alloc(p->pool[handle], bytes, flags, &block)
	                                   : hp_page_alloc_on(p->pool[handle], 0, bytes, flags, &block);
	bool fits = longest(m, process, false) >= pages;
	if (error == 0 && !fits) fprintf(stderr, "%u pages of class %d came from nowhere\n", pages, process);
	must_be(error, fits ? 0 : -ENOMEM);
	if (error) {
		must(!block);
		p->refused++;
		return;
	}
	hp_off off = hp_pool_offset(p->pool[handle], block);
	must(off != HP_OFF_NONE && off % PAGE == 0);
	if (flags & HP_PAGE_ZERO)
		for (size_t i = 0; i < pages * PAGE / 8; i++) must_be(((uint64_t *)block)[i], 0);
	m->marks += UINT64_C(1) << 20;
	model_add(m, (uint32_t)(off / PAGE), pages, process, m->marks);
	hp_mark(block, pages, m->marks);
	must_be(hp_page_size(p->pool[handle], block), pages * PAGE);
	p->allocs++;
}

static void op_free(struct play *p, unsigned handle)
{
	struct model *m = p->m;
	if (!m->lives) return;
	uint32_t at = (uint32_t)hp_below(&p->seed, m->lives);
	struct owner o = m->block[m->live[at]];
	hp_pool *pool = p->pool[handle];
	void *block = hp_pool_pointer(pool, o.page * PAGE);
	must_be(hp_page_size(pool, block), o.pages * PAGE);
	must(hp_marked(block, o.pages, o.mark));
	bool denied = o.process >= 0 && o.process != (int)handle;
	int error = hp_below(&p->seed, 2) ? hp_page_free(pool, block) : hp_page_free_at(pool, o.page * PAGE);
	must_be(error, denied ? -EPERM : 0);
	if (denied) return;
	model_remove(m, at);
	p->frees++;
	if (hp_below(&p->seed, 8) == 0) must_be(hp_page_free(pool, block), -EALREADY);
}

static void op_free_wrong(struct play *p, unsigned handle)
{
	struct model *m = p->m;
	hp_pool *pool = p->pool[handle];
	uint32_t page = (uint32_t)hp_below(&p->seed, m->pages);
	hp_off off = page * PAGE;
	int want;
	if (hp_below(&p->seed, 4) == 0) {
		off += 1 + hp_below(&p->seed, PAGE - 1);
		want = -EINVAL;
	} else if (hp_below(&p->seed, 8) == 0) {
		off = m->pages * PAGE + hp_below(&p->seed, 1 << 20) * PAGE;
		want = -EINVAL;
	} else if (m->of[page]) {
		struct owner *o = &m->block[m->of[page] - 1];
		if (o->page == page) return;
		want = -ENOENT;
	} else {
		want = m->was_head[page] ? -EALREADY : -ENOENT;
	}
	must_be(hp_below(&p->seed, 2) ? hp_page_free_at(pool, off) : hp_page_free(pool, (char *)hp_pool_base(pool) + off),
	        want);
	must_be(hp_page_size_at(pool, off), want);
	p->wrong++;
}

static void op_zero(struct play *p, unsigned handle)
{
	struct model *m = p->m;
	if (!m->lives) return;
	struct owner *o = &m->block[m->live[hp_below(&p->seed, m->lives)]];
	hp_pool *pool = p->pool[handle];
	char *block = hp_pool_pointer(pool, o->page * PAGE);
	uint32_t from = (uint32_t)hp_below(&p->seed, o->pages), n = 1 + (uint32_t)hp_below(&p->seed, o->pages - from);
	must(hp_marked(block, o->pages, o->mark));
	must_be(hp_page_zero(pool, block + from * PAGE, n * PAGE), 0);
	for (uint32_t i = from; i < from + n; i++) must_be(*(uint64_t *)(void *)(block + i * PAGE), 0);
	must_be(hp_page_zero(pool, block + from * PAGE, (o->pages - from + 1) * PAGE), -ENOENT);
	hp_mark(block + from * PAGE, n, o->mark + from);
	must(hp_marked(block, o->pages, o->mark));
	p->zeroed++;
}

/* The second handle leaves and comes back: its memory of class PROCESS is free, all other stays. Its threads notice by
 * finding another handle. */
static void op_reattach(struct play *p)
{
	struct model *m = p->m;
	hp_pool_detach(p->pool[1]);
	for (uint32_t at = 0; at < m->lives;)
		if (m->block[m->live[at]].process == 1)
			model_remove(m, at);
		else
			at++;
	p->pool[1] = hp_attach_again(p->pool[0]);
	p->reattached++;
}

/* At rest a thread owns an active, a spare and a private chunk, and nothing else is anybody's. */
static void nobody_hoards(hp_pool *pool)
{
	for (uint32_t i = 0; i < pool->slot_count; i++) {
		unsigned owned = 0;
		for (uint32_t c = 0; c < pool->chunk_count; c++) {
			uint64_t ctl = atomic_load(&pool->chunks[c].ctl);
			owned += ctl_state(ctl) == CTL_OWNED && ctl_owner(ctl) == i + 1;
		}
		must(owned <= PAGE_OWNED);
		if (i > 4 * THREADS) break; /* no slot above was ever used */
	}
}

static void check(struct play *p)
{
	struct model *m = p->m;
	hp_pool *pool = p->pool[hp_below(&p->seed, HANDLES)];
	hp_must_be_sound(pool);
	struct hp_pool_stats stats = hp_stats(pool);
	uint32_t used = 0;
	for (uint32_t i = 0; i < m->lives; i++) used += m->block[m->live[i]].pages;
	must_be(stats.live_blocks, m->lives);
	must_be(stats.committed, m->pages * PAGE);
	must_be(stats.free, (m->pages - used) * PAGE);
	must_be(stats.largest, longest(m, -1, true) * PAGE);
	must_be(stats.quarantined, 0);
	nobody_hoards(pool);
}

static void operate(struct play *p, unsigned index)
{
	unsigned handle = index % HANDLES;
	switch (hp_below(&p->seed, 16)) {
	case 0 ... 5: op_alloc(p, handle); break;
	case 6 ... 12: op_free(p, handle); break;
	case 13 ... 14: op_free_wrong(p, handle); break;
	default:
		if (hp_below(&p->seed, 8) == 0) op_zero(p, handle);
		if (hp_below(&p->seed, 500) == 0) op_reattach(p);
	}
	if (p->done++ % p->check_every == 0) check(p);
	/* now and then everything is freed, and a run of the whole pool is to be had at once */
	if (hp_below(&p->seed, 5000) == 0) {
		struct model *m = p->m;
		while (m->lives) {
			struct owner o = m->block[m->live[0]];
			must_be(hp_page_free_at(p->pool[o.process < 0 ? handle : (unsigned)o.process], o.page * PAGE), 0);
			model_remove(m, 0);
		}
		void *whole;
		must_be(hp_page_alloc(p->pool[handle], m->pages * PAGE, 0, &whole), 0);
		must_be(hp_pool_offset(p->pool[handle], whole), 0);
		must_be(hp_page_free(p->pool[handle], whole), 0);
		m->was_head[0] = true;
		check(p);
	}
}

/* ---- taking turns ---- */

static void *sit(void *arg)
{
	struct seat seat = *(struct seat *)arg;
	struct play *p = seat.play;
	free(arg);
	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (!p->stop && p->turn != seat.index) pthread_cond_wait(&p->changed[seat.index], &p->lock);
		if (p->stop) break;
		for (uint64_t n = 1 + hp_below(&p->seed, TURN); n && p->done < p->todo; n--) operate(p, seat.index);
		/* a thread ends now and then, with all that it owned, and another takes its seat */
		bool leave = hp_below(&p->seed, 300) == 0;
		p->turn = p->done < p->todo ? (unsigned)hp_below(&p->seed, THREADS) : THREADS;
		if (p->turn < THREADS && !leave) pthread_cond_signal(&p->changed[p->turn]);
		if (p->turn == THREADS) {
			p->stop = true;
			pthread_cond_signal(&p->over);
			for (unsigned i = 0; i < THREADS; i++) pthread_cond_signal(&p->changed[i]);
			break;
		}
		if (leave) {
			struct seat *next = malloc(sizeof *next);
			*next = seat;
			pthread_detach(p->thread[seat.index]);
			must_be(pthread_create(&p->thread[seat.index], NULL, sit, next), 0);
			pthread_cond_signal(&p->changed[p->turn]);
			break;
		}
		if (p->turn == seat.index) continue;
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void play(uint64_t size, unsigned flags, uint64_t operations, unsigned check_every)
{
	struct hp_pool_options options = hp_plain_options(size);
	struct play p = {.todo = HP_TEST_SANITIZER ? operations / 20 : operations, .check_every = check_every};
	p.seed = hp_seed(flags & HP_POOL_FENCED ? "fenced" : "with barriers");
	options.flags = flags;
	if (size > 16 * MIB) options.prefault = HP_PREFAULT_LAZY;
	must_be(hp_pool_create(&options, &p.pool[0]), 0);
	p.pool[1] = hp_attach_again(p.pool[0]);
	must(hp_pool_base(p.pool[0]) != hp_pool_base(p.pool[1]));
	struct model *m = p.m = calloc(1, sizeof *m);
	struct hp_pool_stats stats = hp_stats(p.pool[0]);
	m->pages = (uint32_t)(stats.committed / PAGE);
	m->unit = (uint32_t)(stats.unit_size / PAGE);
	must(m->pages <= MAX_PAGES);
	for (uint32_t i = 0; i < m->pages; i++) m->spare[m->spares++] = i;
	pthread_mutex_init(&p.lock, NULL);
	pthread_cond_init(&p.over, NULL);
	for (unsigned i = 0; i < THREADS; i++) pthread_cond_init(&p.changed[i], NULL);
	pthread_mutex_lock(&p.lock);
	for (unsigned i = 0; i < THREADS; i++) {
		struct seat seat = {&p, i};
		must_be(pthread_create(&p.thread[i], NULL, sit, memcpy(malloc(sizeof seat), &seat, sizeof seat)), 0);
	}
	pthread_mutex_unlock(&p.lock);
	/* the threads of the seats change, so wait for the end of the play before joining the last ones */
	pthread_mutex_lock(&p.lock);
	while (!p.stop) pthread_cond_wait(&p.over, &p.lock);
	pthread_mutex_unlock(&p.lock);
	for (unsigned i = 0; i < THREADS; i++) pthread_join(p.thread[i], NULL);
	check(&p);
	while (m->lives) {
		struct owner o = m->block[m->live[0]];
		must(hp_marked(hp_pool_pointer(p.pool[0], o.page * PAGE), o.pages, o.mark));
		must_be(hp_page_free_at(p.pool[o.process < 0 ? 0 : o.process], o.page * PAGE), 0);
		model_remove(m, 0);
	}
	hp_must_be_empty(p.pool[0]);
	print_message(
		"%llu MiB: %llu allocated, %llu refused, %llu freed, %llu wrong frees, %llu zeroed, %llu reattached\n",
		(unsigned long long)(size / MIB), (unsigned long long)p.allocs, (unsigned long long)p.refused,
		(unsigned long long)p.frees, (unsigned long long)p.wrong, (unsigned long long)p.zeroed,
		(unsigned long long)p.reattached);
	hp_pool_detach(p.pool[1]);
	hp_pool_detach(p.pool[0]);
	free(m);
}

static void a_small_pool_does_what_the_model_says(void **state)
{
	(void)state;
	play(MIB, 0, 200000, 4);
}

static void a_pool_of_small_chunks_does_what_the_model_says(void **state)
{
	(void)state;
	play(8 * MIB, 0, 50000, 16);
}

static void a_pool_of_large_chunks_does_what_the_model_says(void **state)
{
	(void)state;
	play(128 * MIB, 0, 10000, 64);
}

static void a_fenced_pool_does_what_the_model_says(void **state)
{
	(void)state;
	play(2 * MIB, HP_POOL_FENCED, 30000, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_small_pool_does_what_the_model_says),
		cmocka_unit_test(a_pool_of_small_chunks_does_what_the_model_says),
		cmocka_unit_test(a_pool_of_large_chunks_does_what_the_model_says),
		cmocka_unit_test(a_fenced_pool_does_what_the_model_says),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
