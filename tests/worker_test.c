/* A worker of the demonstration, killed at every instruction of its work.
 *
 * The victim is single-stepped through a few frames: new flows and known ones, a frame of no flow, a flow table that
 * grows on the way. After each instruction what it shares is copied, as a death there would leave it, a successor goes
 * on in the copy, and every count and every forwarded frame must come out once. The worker is the real one; only the
 * pool under it is plain memory, which its offsets do not notice. */
#include "../tools/hugepool/flows.c"
#include "../tools/hugepool/frame.c"
#include "../tools/hugepool/ring.c"
#include "../tools/hugepool/worker.c"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "hp_test.h"

#define PAGE 4096u
#define FRAMES 12u
#define FLOWS 7u
#define CAPACITY 16u
#define OTHER_FRAME 5u /* of no flow */

/* What all processes of the pipeline share, page by page: the worker's state, its two rings, two tables, the frames. */
enum { STATE, IN = 2, OUT = 4, TABLE = 6, LARGER = 7, PACKETS = 8, PAGES = PACKETS + FRAMES };
#define AREA ((size_t)PAGES * PAGE)
#define TABLE_LOG2 3
#define LARGER_LOG2 5

static char *base;   /* of the area in use */
static int failures; /* calls of demo_fail in this process */

void *demo_at(const struct demo *demo, uint64_t offset, uint64_t bytes)
{
	(void)demo;
	return bytes <= AREA && offset <= AREA - bytes ? base + offset : NULL;
}

void demo_fail(struct demo *demo, const char *format, ...)
{
	(void)demo;
	(void)format;
	failures++;
}

bool demo_stopped(const struct demo *demo)
{
	(void)demo;
	return failures != 0;
}

void demo_wake_supervisor(const struct demo *demo)
{
	(void)demo;
}

void *demo_own_memory(const struct demo *demo, size_t bytes)
{
	(void)demo;
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

static struct demo_shared *make_area(struct demo *demo, char *area)
{
	struct demo_shared *shared = (void *)(area + STATE * PAGE);
	_Static_assert(sizeof(*shared) + sizeof(shared->worker[0]) <= (IN - STATE) * PAGE, "the state fits");
	memset(area, 0, AREA);
	base = area;
	*demo = (struct demo){.shared = shared};
	shared->workers = 1;
	shared->ring_capacity = CAPACITY;
	shared->read_all = 1;
	struct demo_worker *worker = &shared->worker[0];
	worker->in = IN * PAGE;
	worker->out = OUT * PAGE;
	worker->table = flow_place_make(TABLE * PAGE, TABLE_LOG2);
	memset(area + LARGER * PAGE, 0x5a, PAGE);
	struct ring *in = (void *)(area + IN * PAGE), *out = (void *)(area + OUT * PAGE);
	ring_init(in, CAPACITY);
	ring_init(out, CAPACITY);
	for (uint64_t frame = 1; frame <= FRAMES; frame++) {
		uint8_t *bytes = (void *)(area + (PACKETS + frame - 1) * PAGE);
		struct flow_key key;
		write_packet(bytes, frame);
		bool flow = frame_parse(bytes, length_of(frame), &key);
		assert_int_equal(flow, frame != OTHER_FRAME);
		in->entry[frame - 1] = (struct ring_entry){.frame = frame,
		                                           .offset = (PACKETS + frame - 1) * PAGE,
		                                           .hash = flow ? flow_hash(&key) : 0,
		                                           .length = length_of(frame)};
	}
	in->head = FRAMES;
	return shared;
}

/* What the sender may take is whole. */
static bool shown_entries_are_right(void)
{
	const struct ring *out = (void *)(base + OUT * PAGE), *in = (void *)(base + IN * PAGE);
	uint64_t head = out->head;
	return head <= FRAMES && memcmp(out->entry, in->entry, head * sizeof(out->entry[0])) == 0;
}

/* Every frame once: in the totals, in the table, in the ring. NULL, or what is wrong. */
static const char *wrong_at_the_end(const struct demo_shared *shared)
{
	const struct demo_worker *worker = &shared->worker[0];
	const struct ring *in = (void *)(base + IN * PAGE), *out = (void *)(base + OUT * PAGE);
	uint64_t bytes = 0, frames_of[FLOWS] = {0}, bytes_of[FLOWS] = {0};
	for (uint64_t frame = 1; frame <= FRAMES; frame++) {
		bytes += length_of(frame);
		if (frame == OTHER_FRAME) continue;
		frames_of[flow_of(frame)]++;
		bytes_of[flow_of(frame)] += length_of(frame);
	}
	if (failures) return "it failed";
	if (!worker->finished || worker->done != FRAMES) return "it did not finish";
	if (worker->flows != FLOWS || worker->other != 1 || worker->bytes != bytes) return "the totals";
	if (out->head != FRAMES || in->tail != FRAMES || !shown_entries_are_right()) return "the rings";
	if (worker->table != flow_place_make(LARGER * PAGE, LARGER_LOG2) || worker->spare || worker->want ||
	    worker->retired != flow_place_make(TABLE * PAGE, TABLE_LOG2))
		return "the growth of the table";
	const struct flow_slot *slot = (void *)(base + LARGER * PAGE);
	unsigned used = 0;
	for (unsigned i = 0; i < 1u << LARGER_LOG2; i++) {
		if (slot[i].frames == 0) continue;
		unsigned flow = slot[i].key.port[0] == 80 ? slot[i].key.port[1] - 1u : slot[i].key.port[0] - 1u;
		if (flow >= FLOWS || slot[i].frames != frames_of[flow] || slot[i].bytes != bytes_of[flow])
			return "a flow's numbers";
		used++;
	}
	return used == FLOWS ? NULL : "the number of flows in the table";
}

/* The supervisor's part: the larger table, for a worker that has none yet. */
static void give_table(struct demo_worker *worker)
{
	if (worker->spare == 0 && worker->table == flow_place_make(TABLE * PAGE, TABLE_LOG2))
		worker->spare = flow_place_make(LARGER * PAGE, LARGER_LOG2);
}

static void goes_on_after_death_at_every_instruction(void **state)
{
	(void)state;
	char *area = mmap(NULL, 2 * AREA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(area != MAP_FAILED);
	char *copy = area + AREA;
	struct demo demo, demo_copy = {.shared = (void *)(copy + STATE * PAGE)};
	struct demo_shared *shared = make_area(&demo, area);
	pid_t victim = fork();
	assert_true(victim >= 0);
	if (victim == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
		raise(SIGSTOP);
		worker_run(&demo, 0, false);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(victim, &status, 0), victim);
	if (WIFEXITED(status)) hp_test_skip("processes may not be traced here");
	/* Steps that change nothing leave what the step before them left. */
	char *last = malloc(AREA);
	assert_non_null(last);
	unsigned long steps = 0, states = 0;
	while (WIFSTOPPED(status)) {
		if (steps == 0 || memcmp(last, area, AREA) != 0) {
			memcpy(last, area, AREA);
			memcpy(copy, area, AREA);
			base = copy;
			if (!shown_entries_are_right()) fail_msg("after %lu instructions: a torn entry is shown", steps);
			give_table(&demo_copy.shared->worker[0]);
			worker_run(&demo_copy, 0, true);
			const char *wrong = wrong_at_the_end(demo_copy.shared);
			if (wrong) fail_msg("dead after %lu instructions, a successor leaves wrong: %s", steps, wrong);
			states++;
		}
		if (shared->worker[0].want) give_table(&shared->worker[0]);
		if (ptrace(PTRACE_SINGLESTEP, victim, NULL, NULL) != 0) hp_test_skip("processes cannot be stepped here");
		assert_int_equal(waitpid(victim, &status, 0), victim);
		steps++;
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	base = area;
	assert_null(wrong_at_the_end(shared)); /* undisturbed, it is right, too */
	print_message("%lu instructions, %lu states\n", steps, states);
	assert_true(states > FRAMES * 5);
	free(last);
	munmap(area, 2 * AREA);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(goes_on_after_death_at_every_instruction)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
