/* The reader and the sender of the demonstration, killed at every instruction of their work: at a sample of them, or, with
 * HP_STEP_FULL=1, at all.
 *
 * The victim is single-stepped to the instruction where it is killed, recovered, and what it held is swept; a successor goes on.
 * Every frame must have been read once, or sent once, and of all buffers and runs of pages exactly those must be out that
 * frames in the fifos have. Stages, fifos, sweep, pool, cache and heaps are the real ones. First each stage is stepped through
 * without a death, to see how many instructions it has, and which of them changed a position or the ledger: right behind those
 * it is always killed, and right before a position moves, when what it shows has been committed. */
#include "../../tools/hugepool/bell.c"
#include "../../tools/hugepool/frame.c"
#include "../../tools/hugepool/ledger.c"
#define publish reader_publish
#define stand reader_stand
#define take_over reader_take_over
#include "../../tools/hugepool/reader.c"
#undef BATCH
#undef publish
#undef stand
#undef take_over
#define publish sender_publish
#include "../../tools/hugepool/sender.c"
#undef publish
static int64_t look(hp_fifo *fifo, void *elements, size_t n);
#define hp_fifo_peek look
#include "../../tools/hugepool/sweep.c"
#undef hp_fifo_peek

#include <sys/ptrace.h>

#include "hp_page.h"

#define FRAMES 36u      /* more than a batch of the reader */
#define READ_BEFORE 30u /* by a reader that nobody looks at */
#define LONG_FRAMES 3u
#define CAPACITY 64u
#define SAMPLES 3u /* of each stage */

static struct demo demo;
static struct demo_options options = {.workers = 1};
static struct capture capture;
static int failures; /* calls of demo_fail in this process */
static bool stops;   /* the stage stops where its work begins, to be stepped */
static uint64_t known_runs;
static bool passes; /* the worker goes on while the sweep looks */

static void stop_here(void)
{
	if (!stops) return;
	stops = false;
	raise(SIGSTOP);
}

void *demo_at(const struct demo *of, uint64_t offset, uint64_t bytes)
{
	(void)bytes;
	return hp_pool_pointer(of->pool, offset);
}

void demo_fail(struct demo *of, const char *format, ...)
{
	va_list args;
	(void)of;
	va_start(args, format);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	failures++;
}

bool demo_stopped(const struct demo *of)
{
	(void)of;
	stop_here();
	return failures != 0;
}

uint64_t demo_clock_ns(void)
{
	stop_here();
	return 0;
}

void demo_stand(struct demo *of, unsigned who, struct bell *bell)
{
	(void)of, (void)who, (void)bell;
}

void *demo_own_memory(const struct demo *of, size_t bytes)
{
	(void)of, (void)bytes;
	return NULL;
}

static uint32_t length_of(uint64_t frame)
{
	return frame % 12 == 10 ? DEMO_BUFFER + 52 : 60 + (uint32_t)frame;
}

static uint64_t bytes_of_all(void)
{
	uint64_t bytes = 0;
	for (uint64_t frame = 1; frame <= FRAMES; frame++) bytes += length_of(frame);
	return bytes;
}

static void make_capture(void)
{
	static struct capture_frame frame[FRAMES];
	static uint8_t bytes[FRAMES * 2100];
	capture = (struct capture){.bytes = bytes, .frame = frame, .frames = FRAMES, .longest = 2100};
	for (uint64_t number = 1; number <= FRAMES; number++) {
		frame[number - 1] = (struct capture_frame){.at = capture.used, .length = length_of(number)};
		memset(bytes + capture.used, (int)number, length_of(number));
		capture.used += length_of(number);
	}
}

static void *page(size_t bytes)
{
	void *block;
	must_be(hp_page_alloc(demo.pool, bytes, HP_PAGE_ZERO, &block), 0);
	return block;
}

static uint64_t live_runs(void)
{
	uint64_t runs = 0;
	for (uint64_t offset = 0; offset < hp_pool_capacity(demo.pool); offset += PAGE)
		runs += hp_page_size_at(demo.pool, offset) > 0;
	return runs;
}

static uint64_t buffers_out(void)
{
	struct hp_cache_stats stats = {.struct_size = sizeof(stats)};
	must_be(hp_cache_stats(demo.buffers, &stats), 0);
	return stats.in_use;
}

static void begin(void)
{
	const struct hp_cache_options buffers = {.struct_size = sizeof(buffers), .size = DEMO_BUFFER, .align = DEMO_ALIGN};
	demo = (struct demo){.capture = &capture, .options = &options, .frames = FRAMES};
	demo.pool = hp_plain_pool(MIB, HP_POOL_NO_AUTOGROW);
	struct demo_shared *shared = demo.shared = page(sizeof(*demo.shared) + sizeof(demo.shared->worker[0]));
	const struct hp_fifo_options fifo = {
		.struct_size = sizeof(fifo), .capacity = CAPACITY, .element = sizeof(struct demo_entry)};
	must_be(hp_fifo_create(demo.pool, &fifo, &demo.in[0]), 0);
	must_be(hp_fifo_create(demo.pool, &fifo, &demo.out[0]), 0);
	shared->workers = 1;
	shared->budget = 1000;
	must_be(hp_cache_create(demo.pool, "packets", &buffers, &demo.buffers), 0);
	must_be(ledger_create(demo.pool, &demo.reader_heap), 0);
	must_be(ledger_create(demo.pool, &demo.sender_heap), 0);
	must_be(sweep_know(&demo), 0);
	known_runs = live_runs();
}

static void end(void)
{
	must_be(buffers_out(), 0);
	must_be(live_runs(), known_runs);
	must_be(hp_fifo_destroy(demo.in[0], 0), 0);
	must_be(hp_fifo_destroy(demo.out[0], 0), 0);
	must_be(hp_cache_destroy(demo.buffers), 0);
	must_be(hp_heap_destroy(demo.reader_heap, 0, 5000), 0);
	must_be(hp_heap_destroy(demo.sender_heap, 0, 5000), 0);
	for (size_t i = 0; i < demo.known_count; i++) must_be(hp_page_free_at(demo.pool, demo.known[i]), 0);
	hp_must_be_empty(demo.pool);
	must_be(hp_pool_detach(demo.pool), 0);
}

static int run_reader(void *arg)
{
	(void)arg;
	reader_run(&demo);
	return failures != 0;
}

static int run_sender(void *arg)
{
	(void)arg;
	sender_run(&demo);
	return failures != 0;
}

static bool reader_is_done(void)
{
	return demo.shared->read_all != 0;
}

static bool sender_is_done(void)
{
	return demo.shared->end_ns != 0;
}

/* The worker's part: up to so many frames that were read go on. */
static void pass(size_t most)
{
	struct demo_entry entry[CAPACITY];
	size_t count = (size_t)hp_fifo_take(demo.in[0], entry, most);
	must_be(hp_fifo_push_bulk(demo.out[0], entry, count), 0);
	must_be(hp_fifo_ack(demo.in[0], count), 0);
}

static void pass_all(void)
{
	pass(CAPACITY);
	demo.shared->worker[0].finished = 1;
}

static int64_t look(hp_fifo *fifo, void *elements, size_t n)
{
	int64_t count = hp_fifo_peek(fifo, elements, n);
	if (passes) pass(5);
	return count;
}

static void all_is_read(void)
{
	struct demo_shared *shared = demo.shared;
	must(shared->read_all);
	must_be(shared->read, FRAMES);
	must_be(shared->read_bytes, bytes_of_all());
	struct demo_entry shown[CAPACITY];
	must_be(hp_fifo_peek(demo.in[0], shown, CAPACITY), FRAMES);
	for (uint64_t i = 0; i < FRAMES; i++) {
		const struct demo_entry *entry = &shown[i];
		must_be(entry->frame, i + 1);
		must_be(entry->length, length_of(i + 1));
		must_be(memcmp(hp_pool_pointer(demo.pool, entry->offset), capture.bytes + capture.frame[i].at, entry->length),
		        0);
	}
	must_be(buffers_out(), FRAMES - LONG_FRAMES);
	must_be(live_runs(), known_runs + LONG_FRAMES);
}

static void all_is_sent(void)
{
	struct demo_shared *shared = demo.shared;
	must_be(shared->sent, FRAMES);
	must_be(shared->sent_bytes, bytes_of_all());
	must_be(shared->given, shared->taken);
	must_be(shared->disorder, 0);
	must_be(hp_fifo_popped(demo.out[0]), FRAMES);
}

/* Instructions after which a position or a ledger was another than before, but for every word of one; and those before which a
 * position was. */
#define CHANGES 64
static uint64_t change[CHANGES];
static unsigned changes;

static void note_changes(uint64_t steps)
{
	static uint64_t last[6];
	const struct ledger *read = root_of(demo.reader_heap), *sent = root_of(demo.sender_heap);
	const uint64_t now[6] = {read->totals.frames, read->fifo[0].at,           sent->totals.frames,
	                         sent->fifo[0].at,    hp_fifo_pushed(demo.in[0]), hp_fifo_popped(demo.out[0])};
	if (changes + 2 <= CHANGES && memcmp(last + 4, now + 4, 2 * sizeof(now[0])) != 0) change[changes++] = steps - 1;
	if (changes + 1 <= CHANGES && memcmp(last, now, sizeof(now)) != 0) change[changes++] = steps;
	memcpy(last, now, sizeof(now));
}

/* Up to `most` instructions of a stage from where its work begins; then it is killed, unless it is done. Returns how many. */
static uint64_t step(int (*run)(void *arg), bool (*done)(void), uint64_t most)
{
	int status;
	uint64_t steps = 0;
	stops = true;
	pid_t victim = fork();
	must(victim >= 0);
	if (victim == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
		_exit(run(NULL));
	}
	stops = false;
	must_be(waitpid(victim, &status, 0), victim);
	if (!WIFSTOPPED(status)) hp_test_skip("processes may not be traced here");
	bool look = most == UINT64_MAX;
	if (look) {
		note_changes(0);
		changes = 0;
	}
	for (; steps < most && !done(); steps++) {
		if (ptrace(PTRACE_SINGLESTEP, victim, NULL, NULL) != 0) hp_test_skip("processes cannot be stepped here");
		must_be(waitpid(victim, &status, 0), victim);
		must(WIFSTOPPED(status));
		if (look) note_changes(steps + 1);
	}
	must_be(kill(victim, SIGKILL), 0);
	must_be(waitpid(victim, &status, 0), victim);
	must(hp_pool_recover(demo.pool) >= 0);
	must(sweep_dead(&demo) >= 0);
	return steps;
}

static uint64_t reader_dies(uint64_t after)
{
	begin();
	demo.frames = READ_BEFORE;
	must_be(hp_test_child(run_reader, NULL), 0);
	demo.frames = FRAMES;
	demo.shared->read_all = 0;
	uint64_t steps = step(run_reader, reader_is_done, after);
	must_be(hp_test_child(run_reader, NULL), 0);
	all_is_read();
	pass_all();
	must_be(hp_test_child(run_sender, NULL), 0);
	all_is_sent();
	end();
	return steps;
}

static uint64_t sender_dies(uint64_t after)
{
	begin();
	must_be(hp_test_child(run_reader, NULL), 0);
	all_is_read();
	pass_all();
	uint64_t steps = step(run_sender, sender_is_done, after);
	must_be(hp_test_child(run_sender, NULL), 0);
	all_is_sent();
	end();
	return steps;
}

static void dies_everywhere(const char *name, uint64_t (*dies)(uint64_t after))
{
	uint64_t random = hp_seed(name), all = dies(UINT64_MAX), samples = getenv("HP_STEP_FULL") ? all : SAMPLES;
	print_message("%s: %llu instructions, killed at %llu of them, and %u\n", name, (unsigned long long)all,
	              (unsigned long long)samples, changes);
	must(all > samples);
	for (uint64_t i = 0; i < samples; i++) {
		uint64_t from = all * i / samples, to = all * (i + 1) / samples;
		dies(from + hp_below(&random, to - from));
	}
	must(changes >= 3); /* totals, position, what others see */
	for (unsigned i = 0; i < changes; i++) dies(change[i]);
}

static void a_reader_that_dies_leaves_nothing(void **state)
{
	(void)state;
	dies_everywhere("reader", reader_dies);
}

static void a_sender_that_dies_leaves_nothing(void **state)
{
	(void)state;
	dies_everywhere("sender", sender_dies);
}

static void a_worker_goes_on_meanwhile(void **state)
{
	(void)state;
	begin();
	must_be(hp_test_child(run_reader, NULL), 0);
	all_is_read();
	passes = true;
	for (unsigned turn = 0; turn < 3; turn++) must_be(sweep_dead(&demo), 0);
	passes = false;
	must_be(hp_fifo_popped(demo.in[0]), 30);
	pass_all();
	must_be(hp_test_child(run_sender, NULL), 0);
	all_is_sent();
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reader_that_dies_leaves_nothing),
		cmocka_unit_test(a_sender_that_dies_leaves_nothing),
		cmocka_unit_test(a_worker_goes_on_meanwhile),
	};
	make_capture();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
