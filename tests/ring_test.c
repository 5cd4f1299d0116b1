/* The rings of the demonstration: order and number of what comes out, what a ring shows before and after publication, an end
 * that another process opens again, and shared words that make no sense. */
#include "../tools/hugepool/ring.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CAPACITY 8

static struct ring *make_ring(uint64_t capacity)
{
	struct ring *ring = mmap(NULL, ring_bytes(capacity), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(ring != MAP_FAILED);
	ring_init(ring, capacity);
	return ring;
}

static void put(struct ring_producer *producer, uint64_t frame)
{
	*ring_slot(producer) = (struct ring_entry){.frame = frame};
	producer->head++;
}

static void shows_only_what_is_published(void **state)
{
	(void)state;
	struct ring *ring = make_ring(CAPACITY);
	struct ring_producer producer;
	struct ring_consumer consumer;
	ring_open_producer(ring, CAPACITY, 0, &producer);
	ring_open_consumer(ring, CAPACITY, 0, &consumer);
	put(&producer, 1);
	assert_int_equal(ring_ready(&consumer), 0);
	ring_publish(&producer);
	assert_int_equal(ring_ready(&consumer), 1);
	assert_int_equal(ring_entry_at(&consumer, 0)->frame, 1);
	assert_int_equal(ring_held(ring), 1);
	ring_release(&consumer, 1);
	assert_int_equal(ring_held(ring), 0);
	munmap(ring, ring_bytes(CAPACITY));
}

static void is_full_at_its_capacity(void **state)
{
	(void)state;
	struct ring *ring = make_ring(CAPACITY);
	struct ring_producer producer;
	struct ring_consumer consumer;
	ring_open_producer(ring, CAPACITY, 0, &producer);
	ring_open_consumer(ring, CAPACITY, 0, &consumer);
	for (uint64_t lap = 0, frame = 1; lap < 5; lap++) {
		for (unsigned i = 0; i < CAPACITY; i++) {
			assert_int_equal(ring_room(&producer) > 0, 1);
			put(&producer, frame + i);
		}
		assert_int_equal(ring_room(&producer), 0);
		ring_publish(&producer);
		assert_int_equal(ring_ready(&consumer), CAPACITY);
		for (unsigned i = 0; i < CAPACITY; i++)
			assert_int_equal(ring_entry_at(&consumer, consumer.tail + i)->frame, frame + i);
		frame += CAPACITY;
		ring_release(&consumer, consumer.tail + 3);
		assert_int_equal(ring_room(&producer), 3);
		ring_release(&consumer, consumer.tail + CAPACITY - 3);
	}
	munmap(ring, ring_bytes(CAPACITY));
}

/* A successor begins where the dead one's committed position is, ahead of what was published. */
static void an_end_can_be_opened_again(void **state)
{
	(void)state;
	struct ring *in = make_ring(CAPACITY), *out = make_ring(CAPACITY);
	struct ring_producer source, forward;
	struct ring_consumer dead, successor, sink;
	ring_open_producer(in, CAPACITY, 0, &source);
	for (uint64_t frame = 1; frame <= CAPACITY; frame++) put(&source, frame);
	ring_publish(&source);
	ring_open_consumer(in, CAPACITY, 0, &dead);
	ring_open_producer(out, CAPACITY, 0, &forward);
	for (unsigned i = 0; i < 3; i++) put(&forward, ring_entry_at(&dead, i)->frame);
	/* dies here: three are committed, none is published or released */
	ring_open_consumer(in, CAPACITY, 3, &successor);
	ring_open_producer(out, CAPACITY, 3, &forward);
	ring_publish(&forward);
	ring_release(&successor, 3);
	ring_open_consumer(out, CAPACITY, 0, &sink);
	assert_int_equal(ring_ready(&sink), 3);
	assert_int_equal(ring_entry_at(&sink, 2)->frame, 3);
	assert_int_equal(ring_ready(&successor), CAPACITY - 3);
	assert_int_equal(ring_entry_at(&successor, successor.tail)->frame, 4);
	assert_int_equal(ring_room(&source), 3);
	munmap(in, ring_bytes(CAPACITY));
	munmap(out, ring_bytes(CAPACITY));
}

/* Positions that cannot be are not believed. */
static void senseless_positions_are_ignored(void **state)
{
	(void)state;
	struct ring *ring = make_ring(CAPACITY);
	struct ring_producer producer;
	struct ring_consumer consumer;
	ring_open_producer(ring, CAPACITY, 0, &producer);
	ring_open_consumer(ring, CAPACITY, 0, &consumer);
	atomic_store(&ring->head, CAPACITY + 1);
	assert_int_equal(ring_ready(&consumer), 0);
	atomic_store(&ring->head, UINT64_MAX);
	assert_int_equal(ring_ready(&consumer), 0);
	for (unsigned i = 0; i < CAPACITY; i++) put(&producer, i);
	atomic_store(&ring->tail, CAPACITY + 1); /* more taken than put */
	assert_int_equal(ring_room(&producer), 0);
	munmap(ring, ring_bytes(CAPACITY));
}

/* Two processes, a small ring, both asleep most of the time: everything comes, in order. */
static void carries_everything_between_processes(void **state)
{
	(void)state;
	enum { FRAMES = 50000 };
	struct ring *ring = make_ring(CAPACITY);
	struct bell *bells = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(bells != MAP_FAILED);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct ring_producer producer;
		ring_open_producer(ring, CAPACITY, 0, &producer);
		for (uint64_t frame = 1; frame <= FRAMES; frame++) {
			while (ring_room(&producer) == 0) {
				uint32_t heard = bell_listen(&bells[0]);
				if (ring_room(&producer) == 0)
					bell_sleep(&bells[0], heard, 20000000);
				else
					bell_cancel(&bells[0]);
			}
			put(&producer, frame);
			ring_publish(&producer);
			bell_ring(&bells[1]);
		}
		_exit(0);
	}
	struct ring_consumer consumer;
	ring_open_consumer(ring, CAPACITY, 0, &consumer);
	for (uint64_t next = 1; next <= FRAMES;) {
		uint64_t ready = ring_ready(&consumer);
		if (ready == 0) {
			uint32_t heard = bell_listen(&bells[1]);
			if (ring_ready(&consumer) == 0)
				bell_sleep(&bells[1], heard, 20000000);
			else
				bell_cancel(&bells[1]);
			continue;
		}
		assert_int_equal(ring_entry_at(&consumer, consumer.tail)->frame, next);
		next++;
		ring_release(&consumer, consumer.tail + 1);
		bell_ring(&bells[0]);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	munmap(bells, 4096);
	munmap(ring, ring_bytes(CAPACITY));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shows_only_what_is_published),         cmocka_unit_test(is_full_at_its_capacity),
		cmocka_unit_test(an_end_can_be_opened_again),           cmocka_unit_test(senseless_positions_are_ignored),
		cmocka_unit_test(carries_everything_between_processes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
