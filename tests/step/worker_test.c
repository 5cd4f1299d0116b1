/* A worker of the demonstration, killed at every instruction of its work: at a sample of them, or, with HP_STEP_FULL=1, at all.
 *
 * The victim runs to one of its bursts of frames, is single-stepped through it, with new flows and known ones and a frame of
 * no flow, to the instruction where it is killed; then it is recovered, and a successor goes on in the same pool. Every frame
 * must have been counted once and passed on once, in order, whole. The worker, the pool and the heap are the real ones. First
 * each burst is stepped through without a death, to see how many instructions it has, and which of them changed a position or
 * the totals: right behind those it is always killed, and right before a position moves, when what it shows has been committed. */
#include "../../tools/hugepool/bell.c"
#include "../../tools/hugepool/flows.c"
#include "../../tools/hugepool/frame.c"
#include "../../tools/hugepool/worker.c"

#include <sys/ptrace.h>

#include "hp_page.h"

#define FRAMES 12u
#define FLOWS 7u
#define CAPACITY 16u
#define OTHER_FRAME 5u /* of no flow */
#define BURST 5u       /* frames that the reader shows at a time */
#define BURSTS ((FRAMES + BURST - 1) / BURST)
#define SAMPLES 5u /* of each burst */

static struct demo demo;
static struct demo_entry given[FRAMES];
static int failures;    /* calls of demo_fail in this process */
static unsigned bursts; /* that the reader shows before the worker stops, to be stepped; 0: it does not */

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

/* Called at every look for work, and so the place for the reader's part: a burst at a time. */
bool demo_stopped(const struct demo *of)
{
	hp_fifo *in = of->in[0];
	uint64_t shown = hp_fifo_pushed(in);
	if (hp_fifo_popped(in) == shown && shown < FRAMES) {
		must_be(hp_fifo_publish(in, shown + BURST < FRAMES ? BURST : FRAMES - shown), 0);
		if (bursts && --bursts == 0) raise(SIGSTOP);
	} else if (shown == FRAMES) {
		of->shared->read_all = 1;
	}
	return failures != 0;
}

void demo_wake_supervisor(const struct demo *of)
{
	(void)of;
}

void *demo_own_memory(const struct demo *of, size_t bytes)
{
	(void)of;
	(void)bytes;
	return NULL;
}

static uint32_t length_of(uint64_t frame)
{
	return 60 + (uint32_t)frame * 3;
}

static unsigned flow_of(uint64_t frame)
{
	return (unsigned)(frame * 5) % FLOWS;
}

/* UDP over IPv4, a flow for each source port. */
static void write_packet(uint8_t *bytes, uint64_t frame)
{
	static const uint8_t head[42] = {2, 0, 0, 0,  0,  1, 2, 0,  0, 0, 0, 2,  8, 0, 0x45, 0, 0, 0, 0,
	                                 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,    0, 0, 0, 80};
	memcpy(bytes, head, sizeof(head));
	bytes[35] = (uint8_t)(1 + flow_of(frame));
	if (frame == OTHER_FRAME) bytes[13] = 6;
}

static void *page(size_t bytes)
{
	void *block;
	must_be(hp_page_alloc(demo.pool, bytes, HP_PAGE_ZERO, &block), 0);
	return block;
}

static void make_pool(void)
{
	demo.pool = hp_plain_pool(MIB, HP_POOL_NO_AUTOGROW);
	demo.shared = page(sizeof(*demo.shared) + sizeof(demo.shared->worker[0]));
}

/* Everything as at the beginning. */
static void begin(uint8_t *packets)
{
	struct demo_shared *shared = demo.shared;
	memset(shared, 0, sizeof(*shared) + sizeof(shared->worker[0]));
	shared->workers = 1;
	const struct hp_fifo_options fifo = {
		.struct_size = sizeof(fifo), .capacity = CAPACITY, .element = sizeof(struct demo_entry)};
	must_be(hp_fifo_create(demo.pool, &fifo, &demo.in[0]), 0);
	must_be(hp_fifo_create(demo.pool, &fifo, &demo.out[0]), 0);
	for (uint64_t frame = 1; frame <= FRAMES; frame++) {
		uint8_t *bytes = packets + (frame - 1) * 256;
		struct flow_key key;
		write_packet(bytes, frame);
		bool flow = frame_parse(bytes, length_of(frame), &key);
		must_be(flow, frame != OTHER_FRAME);
		given[frame - 1] = (struct demo_entry){.frame = frame,
		                                       .offset = hp_pool_offset(demo.pool, bytes),
		                                       .hash = flow ? flow_hash(&key) : 0,
		                                       .length = length_of(frame)};
	}
	must_be(hp_fifo_stage(demo.in[0], 0, given, FRAMES), 0);
	must_be(flow_heap_create(demo.pool, &demo.heap[0]), 0);
}

/* What the sender may take is whole. */
static bool shown_entries_are_right(void)
{
	struct demo_entry shown[CAPACITY];
	int64_t count = hp_fifo_peek(demo.out[0], shown, CAPACITY);
	return count <= FRAMES && memcmp(shown, given, (size_t)count * sizeof(shown[0])) == 0;
}

/* Every frame once: in the totals, in the flows, in the fifo. NULL, or what is wrong. */
static const char *wrong_at_the_end(void)
{
	struct flow_sum sum = {0};
	uint64_t bytes = 0, of_flows = 0, bytes_of[FLOWS] = {0}, largest = 0;
	for (uint64_t frame = 1; frame <= FRAMES; frame++) {
		bytes += length_of(frame);
		if (frame == OTHER_FRAME) continue;
		of_flows += length_of(frame);
		bytes_of[flow_of(frame)] += length_of(frame);
		if (bytes_of[flow_of(frame)] > largest) largest = bytes_of[flow_of(frame)];
	}
	if (!demo.shared->worker[0].finished) return "it did not finish";
	if (hp_fifo_popped(demo.in[0]) != FRAMES || hp_fifo_pushed(demo.out[0]) != FRAMES || !shown_entries_are_right())
		return "the fifos";
	const struct flow_table *table = flow_table_of(demo.heap[0]);
	if (!table) return "no table";
	const struct flow_totals *totals = &table->totals;
	if (totals->frames != FRAMES || totals->flows != FLOWS || totals->other != 1 || totals->bytes != bytes)
		return "the totals";
	if (flow_add_up(demo.heap[0], &sum) != 0) return "the table cannot be read";
	if (sum.flows != FLOWS || sum.frames != FRAMES - 1 || sum.bytes != of_flows || sum.largest_bytes != largest)
		return "the flows";
	return NULL;
}

/* A worker process, stopped where it has been shown a burst. */
static pid_t start_victim(unsigned burst)
{
	int status;
	bursts = burst + 1;
	pid_t victim = fork();
	must(victim >= 0);
	if (victim == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
		worker_run(&demo, 0, false);
		_exit(failures != 0);
	}
	bursts = 0;
	must_be(waitpid(victim, &status, 0), victim);
	if (!WIFSTOPPED(status)) hp_test_skip("processes may not be traced here");
	return victim;
}

/* Instructions after which a position or the totals were others than before; and those before which a position was. */
#define CHANGES 64
static uint64_t change[CHANGES];
static unsigned changes;

static void note_changes(uint64_t steps)
{
	static struct {
		struct flow_totals totals;
		uint64_t shown, taken;
	} last;
	const struct flow_table *table = flow_table_of(demo.heap[0]);
	must(table);
	uint64_t shown = hp_fifo_pushed(demo.out[0]), taken = hp_fifo_popped(demo.in[0]);
	bool moved = last.shown != shown || last.taken != taken;
	if (changes + 2 <= CHANGES && moved) change[changes++] = steps - 1;
	if (changes + 1 <= CHANGES && (moved || memcmp(&last.totals, &table->totals, sizeof(last.totals)) != 0))
		change[changes++] = steps;
	last.totals = table->totals;
	last.shown = shown;
	last.taken = taken;
}

/* Up to `most` instructions of it, or until the burst has been passed on; returns how many. */
static uint64_t step_victim(pid_t victim, uint64_t most, bool look)
{
	uint64_t steps = 0;
	if (look) {
		note_changes(0);
		changes = 0;
	}
	for (uint64_t end = hp_fifo_pushed(demo.in[0]); steps < most && hp_fifo_popped(demo.in[0]) < end; steps++) {
		int status;
		if (ptrace(PTRACE_SINGLESTEP, victim, NULL, NULL) != 0) hp_test_skip("processes cannot be stepped here");
		must_be(waitpid(victim, &status, 0), victim);
		must(WIFSTOPPED(status));
		if (look) note_changes(steps + 1);
	}
	return steps;
}

static int succeed(void *arg)
{
	(void)arg;
	worker_run(&demo, 0, true);
	return failures != 0;
}

static void end(void)
{
	must_be(hp_heap_destroy(demo.heap[0], 0, 5000), 0);
	must_be(hp_fifo_destroy(demo.in[0], 0), 0);
	must_be(hp_fifo_destroy(demo.out[0], HP_FIFO_DISCARD), 0);
	hp_must_be_sound(demo.pool);
}

static uint64_t instructions_of(unsigned burst, uint8_t *packets)
{
	int status;
	begin(packets);
	pid_t victim = start_victim(burst);
	uint64_t steps = step_victim(victim, UINT64_MAX, true);
	must_be(ptrace(PTRACE_CONT, victim, NULL, NULL), 0);
	must_be(waitpid(victim, &status, 0), victim);
	must(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_null(wrong_at_the_end()); /* undisturbed, it is right */
	end();
	return steps;
}

static void dies_after(unsigned burst, uint64_t instructions, uint8_t *packets)
{
	int status;
	begin(packets);
	pid_t victim = start_victim(burst);
	step_victim(victim, instructions, false);
	must_be(kill(victim, SIGKILL), 0);
	must_be(waitpid(victim, &status, 0), victim);
	must(WIFSIGNALED(status));
	bool whole = shown_entries_are_right();
	must(hp_pool_recover(demo.pool) >= 0);
	must_be(hp_test_child(succeed, NULL), 0);
	const char *wrong = whole ? wrong_at_the_end() : "a torn entry was shown";
	if (wrong) fail_msg("dead after %llu instructions of burst %u: %s", (unsigned long long)instructions, burst, wrong);
	end();
}

static void goes_on_after_death_at_every_instruction(void **state)
{
	(void)state;
	uint64_t random = hp_seed("worker");
	make_pool();
	uint8_t *packets = page(FRAMES * 256);
	uint64_t free_before = hp_stats(demo.pool).free;
	for (unsigned burst = 0; burst < BURSTS; burst++) {
		uint64_t all = instructions_of(burst, packets),
				 samples = getenv("HP_STEP_FULL") || all < SAMPLES ? all : SAMPLES;
		print_message("burst %u: %llu instructions, killed at %llu of them, and %u\n", burst, (unsigned long long)all,
		              (unsigned long long)samples, changes);
		assert_true(all > BURST * 10);
		for (uint64_t i = 0; i < samples; i++) {
			uint64_t from = all * i / samples, to = all * (i + 1) / samples;
			dies_after(burst, from + hp_below(&random, to - from), packets);
		}
		assert_true(changes >= 3); /* counted, shown, taken */
		for (unsigned i = 0; i < changes; i++) dies_after(burst, change[i], packets);
	}
	assert_int_equal(hp_stats(demo.pool).free, free_before);
	must_be(hp_pool_detach(demo.pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(goes_on_after_death_at_every_instruction)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
