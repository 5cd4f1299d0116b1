/* What the supervisor does with the pool: it makes the pool and the structures of the pipeline in it, holds the reader while
 * a worker is short of memory, and at the end counts, frees everything it knows and looks what is left. */
#include "demo.h"

#include "cli.h"
#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_SIZE ((uint64_t)64 << 20)
#define END_MS 5000 /* for a heap whose users have all ended */

void *demo_at(const struct demo *demo, uint64_t offset, uint64_t bytes)
{
	uint64_t capacity = hp_pool_capacity(demo->pool);
	if (bytes > capacity || offset > capacity - bytes) return NULL;
	return hp_pool_pointer(demo->pool, offset);
}

uint64_t demo_clock_ns(void)
{
	uint64_t least = UINT64_MAX;
	for (unsigned i = 0; i < 64; i++) {
		uint64_t from = os_now_ns(), took = os_now_ns() - from;
		if (took < least) least = took;
	}
	return least;
}

void *demo_own_memory(const struct demo *demo, size_t bytes)
{
	void *block = NULL;
	if (demo->shared->own_memory) hp_page_alloc(demo->pool, bytes, HP_PAGE_PROCESS, &block);
	return block;
}

void demo_fail(struct demo *demo, const char *format, ...)
{
	struct demo_shared *shared = demo->shared;
	uint32_t none = 0;
	if (!atomic_compare_exchange_strong(&shared->failed, &none, 1)) return;
	va_list args;
	va_start(args, format);
	vsnprintf(shared->failure, sizeof(shared->failure), format, args);
	va_end(args);
	atomic_store_explicit(&shared->failed, 2, memory_order_release);
	demo_wake_supervisor(demo);
}

bool demo_stopped(const struct demo *demo)
{
	return atomic_load_explicit(&demo->shared->stop, memory_order_relaxed) != 0 ||
	       atomic_load_explicit(&demo->shared->failed, memory_order_relaxed) != 0;
}

void demo_stand(struct demo *demo, unsigned who, struct bell *bell)
{
	struct demo_shared *shared = demo->shared;
	for (uint32_t hold; (hold = atomic_load_explicit(&shared->hold, memory_order_acquire)) != 0;) {
		/* release: what was done before is there for the supervisor to see */
		if (atomic_exchange_explicit(&shared->standing[who], hold, memory_order_release) != hold)
			demo_wake_supervisor(demo);
		uint32_t heard = bell_listen(bell);
		if (demo_stopped(demo)) break;
		if (atomic_load_explicit(&shared->hold, memory_order_acquire) == hold) bell_sleep(bell, heard, DEMO_SLICE_NS);
	}
	bell_cancel(bell);
}

void demo_wake_supervisor(const struct demo *demo)
{
	uint64_t one = 1;
	if (write(demo->bell_fd, &one, sizeof(one)) < 0) return; /* full: it is awake */
}

__attribute__((format(printf, 2, 3))) static int fail(struct demo_result *result, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	if (!result->error[0]) vsnprintf(result->error, sizeof(result->error), format, args);
	va_end(args);
	return -1;
}

/* The library's messages: the last one is the cause when something fails. */
static void keep_message(void *arg, const char *message)
{
	snprintf(arg, 256, "%s", message);
}

static int make_pool(struct demo *demo, struct demo_result *result)
{
	const struct demo_options *options = demo->options;
	static char message[256];
	snprintf(result->pool_name, sizeof(result->pool_name), "demo.%d", (int)getpid());
	struct hp_pool_options pool = {.struct_size = sizeof(pool),
	                               .name = result->pool_name,
	                               .size = options->size ? options->size : DEFAULT_SIZE,
	                               .rung = options->rung,
	                               .choice = options->rung == HP_RUNG_BEST ? HP_CHOICE_ANY
	                                         : options->strict             ? HP_CHOICE_REQUIRE
	                                                                       : HP_CHOICE_PREFER,
	                               .log = keep_message,
	                               .log_arg = message,
	                               .report = &result->report};
	int error = hp_pool_create(&pool, &demo->pool);
	if (error == 0) return 0;
	for (unsigned i = result->report.rungs; message[0] == 0 && i-- > 0;) {
		const struct hp_report_rung *rung = &result->report.rung[i];
		if (rung->tried && rung->error)
			snprintf(message, sizeof(message), "%s: %s%s%s", hp_rung_name(rung->rung), rung->cause,
			         rung->cure[0] ? "; cure: " : "", rung->cure);
	}
	return fail(result, "no pool of %s: %s%s%s", cli_size(pool.size), strerror(-error), message[0] ? "; " : "",
	            message);
}

static int too_small(const struct demo *demo, struct demo_result *result, int error)
{
	return fail(result, "a pool of %s is too small for %u workers (%s); give more with --size",
	            cli_size(result->report.bytes_got), demo->options->workers, strerror(-error));
}

static int take(struct demo *demo, struct demo_result *result, size_t bytes, void **block)
{
	int error = hp_page_alloc(demo->pool, bytes, HP_PAGE_ZERO, block);
	return error < 0 ? too_small(demo, result, error) : 0;
}

static int make_worker(struct demo *demo, unsigned number, uint64_t capacity, struct demo_result *result)
{
	/* open once: stages go on with the supervisor's handles */
	const struct hp_fifo_options fifo = {
		.struct_size = sizeof(fifo), .capacity = capacity, .element = sizeof(struct demo_entry), .handles = 1};
	int error = hp_fifo_create(demo->pool, &fifo, &demo->in[number]);
	if (error == 0) error = hp_fifo_create(demo->pool, &fifo, &demo->out[number]);
	if (error == 0) error = flow_heap_create(demo->pool, &demo->heap[number]);
	return error < 0 ? too_small(demo, result, error) : 0;
}

/* All fifos together take an eighth of the pool at most. */
static uint64_t choose_capacity(uint64_t committed, unsigned workers)
{
	uint64_t capacity = 1024;
	while (capacity > 16 && capacity * sizeof(struct demo_entry) * 2 * workers > committed / 8) capacity /= 2;
	return capacity;
}

int plant_make(struct demo *demo, struct demo_result *result)
{
	unsigned workers = demo->options->workers;
	if (make_pool(demo, result) < 0) return -1;
	struct hp_pool_stats stats = {.struct_size = sizeof(stats)};
	int error = hp_pool_stats(demo->pool, &stats);
	if (error < 0) return fail(result, "no statistics of the pool: %s", strerror(-error));
	void *shared;
	if (take(demo, result, sizeof(*demo->shared) + workers * sizeof(struct demo_worker), &shared) < 0) return -1;
	demo->shared = shared;
	demo->shared->workers = workers;
	demo->shared->free_at_start = stats.free;
	demo->shared->committed_at_start = stats.committed;
	demo->shared->own_memory = stats.committed / stats.unit_size >= 4 * (workers + 2);
	uint64_t capacity = choose_capacity(stats.committed, workers);
	for (unsigned i = 0; i < workers; i++)
		if (make_worker(demo, i, capacity, result) < 0) return -1;
	const struct hp_cache_options buffers = {
		.struct_size = sizeof(buffers), .size = DEMO_BUFFER, .align = DEMO_ALIGN, .flags = HP_CACHE_LARGE_MAGAZINES};
	error = hp_cache_create(demo->pool, "packets", &buffers, &demo->buffers);
	if (error < 0) return fail(result, "no cache for packets: %s", strerror(-error));
	if ((error = ledger_create(demo->pool, &demo->reader_heap)) < 0 ||
	    (error = ledger_create(demo->pool, &demo->sender_heap)) < 0)
		return too_small(demo, result, error);
	hp_pool_stats(demo->pool, &stats);
	uint64_t longest = ((uint64_t)demo->capture->longest + HP_PAGE_SIZE - 1) / HP_PAGE_SIZE;
	demo->shared->budget = stats.free / DEMO_BUFFER / 2;
	if (demo->shared->budget < 4 || stats.largest / HP_PAGE_SIZE < longest || hp_cache_prime(demo->buffers, 1) < 0)
		return fail(result, "a pool of %s is too small for frames of %u bytes and %u workers; give more with --size",
		            cli_size(stats.committed), demo->capture->longest, workers);
	error = sweep_know(demo);
	return error < 0 ? fail(result, "more blocks than there should be: %s", strerror(-error)) : 0;
}

void plant_ring_bells(struct demo *demo)
{
	bell_ring(&demo->shared->reader_bell);
	bell_ring(&demo->shared->sender_bell);
	for (unsigned i = 0; i < demo->shared->workers; i++) bell_ring(&demo->shared->worker[i].bell);
}

bool plant_mail(struct demo *demo)
{
	bool starving = false;
	for (unsigned i = 0; i < demo->shared->workers; i++)
		starving |= atomic_load_explicit(&demo->shared->worker[i].starving, memory_order_acquire) != 0;
	/* With the reader at rest the frames drain, and their memory comes free. */
	if ((atomic_load(&demo->shared->pause) != 0) != starving) {
		atomic_store(&demo->shared->pause, starving);
		bell_ring(&demo->shared->reader_bell);
	}
	return starving;
}

uint64_t plant_in_hands(struct demo *demo, unsigned number)
{
	uint64_t shown = hp_fifo_pushed(demo->out[number]); /* first: it is never beyond what came in */
	return hp_fifo_pushed(demo->in[number]) - shown;
}

/* What one worker's place has counted, by its totals and by its flows, which have to agree. */
static void count_worker(struct demo *demo, unsigned number, struct demo_result *result)
{
	struct flow_sum sum = {0};
	const struct flow_table *table = flow_table_of(demo->heap[number]);
	int error = table ? flow_add_up(demo->heap[number], &sum) : -EUCLEAN;
	if (error < 0) {
		fail(result, "the flows of worker %u cannot be read: %s", number, strerror(-error));
		return;
	}
	const struct flow_totals *totals = &table->totals;
	result->frames += totals->frames;
	result->bytes += totals->bytes;
	result->other += totals->other;
	result->flows += totals->flows;
	if (sum.largest_bytes > result->largest_flow_bytes) result->largest_flow_bytes = sum.largest_bytes;
	if (sum.flows != totals->flows || sum.frames + totals->other != totals->frames || sum.bytes > totals->bytes)
		fail(result,
		     "worker %u counted %" PRIu64 " frames in %" PRIu64 " flows, but its table says %" PRIu64 " in %" PRIu64,
		     number, totals->frames - totals->other, totals->flows, sum.frames, sum.flows);
}

/* Adds up what the workers counted, and compares it with what the reader and the sender say. */
static void count(struct demo *demo, struct demo_result *result)
{
	struct demo_shared *shared = demo->shared;
	for (unsigned i = 0; i < shared->workers; i++) {
		count_worker(demo, i, result);
		if (result->deaths) result->in_dead_hands += plant_in_hands(demo, i);
	}
	uint64_t done = result->frames;
	uint64_t read = demo_get(&shared->read), sent = demo_get(&shared->sent), disorder = demo_get(&shared->disorder);
	if (read != demo->frames || done != read || sent != read)
		fail(result,
		     "the counts disagree: %" PRIu64 " frames to send, %" PRIu64 " read, %" PRIu64 " counted, %" PRIu64 " sent",
		     demo->frames, read, done, sent);
	if (demo_get(&shared->read_bytes) != result->bytes || demo_get(&shared->sent_bytes) != result->bytes)
		fail(result, "the bytes disagree: %" PRIu64 " read, %" PRIu64 " counted, %" PRIu64 " sent",
		     demo_get(&shared->read_bytes), result->bytes, demo_get(&shared->sent_bytes));
	if (disorder) fail(result, "%" PRIu64 " frames were sent twice or out of order", disorder);
}

static void free_everything(struct demo *demo, struct demo_result *result)
{
	struct demo_shared *shared = demo->shared;
	int error = 0;
	for (unsigned i = 0; i < shared->workers; i++) {
		hp_fifo **fifos[] = {&demo->in[i], &demo->out[i]};
		for (size_t f = 0; f < sizeof(fifos) / sizeof(fifos[0]); f++) {
			int ended = hp_fifo_destroy(*fifos[f], 0);
			if (ended == 0) *fifos[f] = NULL;
			error = error ? error : ended;
		}
	}
	for (size_t i = 0; i < sizeof(demo->heaps) / sizeof(demo->heaps[0]); i++) {
		if (!demo->heaps[i]) continue;
		int ended = hp_heap_destroy(demo->heaps[i], 0, END_MS);
		if (ended == 0 || ended == -ESTALE) demo->heaps[i] = NULL; /* the handle is closed */
		error = error ? error : ended;
	}
	demo->shared = NULL;
	int freed = hp_cache_destroy(demo->buffers);
	if (freed == 0) demo->buffers = NULL;
	error = error ? error : freed;
	freed = hp_page_free(demo->pool, shared);
	error = error ? error : freed;
	if (error) fail(result, "a block of the pipeline could not be freed: %s", strerror(-error));
}

void plant_leave(struct demo *demo)
{
	for (unsigned i = 0; i < DEMO_MAX_WORKERS; i++) {
		hp_fifo_close(demo->in[i]);
		hp_fifo_close(demo->out[i]);
	}
	for (size_t i = 0; i < sizeof(demo->heaps) / sizeof(demo->heaps[0]); i++) hp_heap_close(demo->heaps[i]);
	hp_pool_detach(demo->pool);
}

static void first_finding(void *arg, const char *message)
{
	char *text = arg;
	if (!text[0]) snprintf(text, 256, "%s", message);
}

void plant_clear(struct demo *demo, struct demo_result *result)
{
	struct demo_shared *shared = demo->shared;
	uint64_t free_at_start = shared->free_at_start, committed_at_start = shared->committed_at_start;
	uint64_t start = demo_get(&shared->start_ns), end = demo_get(&shared->end_ns);
	if (atomic_load_explicit(&shared->failed, memory_order_acquire) == 2)
		fail(result, "%.*s", (int)sizeof(shared->failure), shared->failure);
	result->run_ns = end > start ? end - start : 0;
	result->allocs = demo_get(&shared->read);
	uint64_t samples = demo_get(&shared->samples), frames = demo_get(&shared->sent);
	if (samples && frames) {
		result->got_ns = (double)demo_get(&shared->get_ns) / (double)samples;
		result->filled_ns = (double)demo_get(&shared->fill_ns) / (double)samples;
		result->passed_ns = (double)demo_get(&shared->pass_ns) / (double)samples +
		                    (double)demo_get(&shared->publish_ns) / (double)frames;
		result->put_ns = (double)demo_get(&shared->put_ns) / (double)frames;
		for (unsigned i = 0; i < shared->workers; i++)
			result->counted_ns += (double)demo_get(&shared->worker[i].count_ns) / (double)frames;
	}
	if (result->error[0] || result->interrupted) return;
	count(demo, result);
	hp_pool_recover(demo->pool);
	free_everything(demo, result);
	struct hp_pool_stats stats = {.struct_size = sizeof(stats)};
	int error = hp_pool_stats(demo->pool, &stats);
	if (error < 0) {
		fail(result, "no statistics of the pool: %s", strerror(-error));
		return;
	}
	result->recovered = stats.recovered;
	result->pages_leaked = (int64_t)(stats.committed - stats.free - (committed_at_start - free_at_start)) /
	                       (int64_t)HP_PAGE_SIZE;
	if (result->pages_leaked || stats.live_blocks)
		fail(result, "%" PRId64 " pages in %" PRIu64 " blocks are still allocated at the end", result->pages_leaked,
		     stats.live_blocks);
	char finding[256] = "";
	int findings = hp_pool_check(demo->pool, first_finding, finding);
	if (findings > 0) {
		result->findings = (uint64_t)findings;
		fail(result, "the checker has %d findings at the end, the first: %s", findings, finding);
	} else if (findings < 0) {
		fail(result, "the checker could not look: %s", strerror(-findings));
	}
}
