/* Programs that share a heap, each with a result that is known: workers and a sum, n queens, a pipeline, chameneos, and a list
 * of which somebody holds a part. To be read as examples, too. They are those that Ocamlnet's Netmcore came with.
 *
 * Would catch: a transaction of several processes that is lost or done twice, a value that is reclaimed while it is guarded or
 * queued, or never. */
#include "hp_page.h"
#include <hugepool/collections.h>
#include <semaphore.h>

#define WORKERS 3

static hp_pool *pool;
static hp_heap *heap;

static void heap_is_new(uint64_t bytes, uint64_t limit)
{
	/* patience, because a reader may lose its processor in a section */
	struct hp_heap_options options = {.struct_size = sizeof options, .limit = limit, .grace_ms = 10000};
	pool = hp_plain_pool(bytes, 0);
	must_be(hp_heap_create(pool, &options, NULL, NULL, &heap), 0);
}

static void heap_is_over(void)
{
	must_be(hp_heap_destroy(heap, 0, 10000), 0);
	hp_must_be_empty(pool);
	must_be(hp_pool_detach(pool), 0);
}

static hp_tx *begin(void)
{
	hp_tx *tx;
	must_be(hp_heap_begin(heap, -1, &tx), 0);
	return tx;
}

/* So many processes, each with its number; until all have ended well. */
static void run_processes(unsigned count, void (*work)(unsigned who, void *arg), void *arg)
{
	pid_t pid[32];
	for (unsigned who = 0; who < count; who++)
		if ((pid[who] = hp_fork()) == 0) {
			work(who, arg);
			_exit(0);
		}
	for (unsigned who = 0; who < count; who++) must_be(hp_wait_for(pid[who]), 0);
}

static uint64_t values_after_collecting(void)
{
	struct hp_heap_stat stat;
	must_be(hp_heap_gc(heap, HP_GC_WAIT | HP_GC_TRIM, 10000), 0);
	must_be(hp_heap_stat(heap, &stat), 0);
	return stat.values;
}

/* ---- create and join: ten workers, each squares a number ---- */

static void square(unsigned who, void *arg)
{
	(void)arg;
	hp_tx *tx = begin();
	must_be(hp_table_put(tx, hp_heap_root(heap), who + 1, (uint64_t)(who + 1) * (who + 1)), 0);
	must_be(hp_heap_commit(tx), 0);
}

static int add(const hp_heap *of, const struct hp_table_item *item, void *arg)
{
	(void)of;
	*(uint64_t *)arg += item->number;
	return 0;
}

static void ten_workers_square(void **state)
{
	(void)state;
	heap_is_new(8 * MIB, 0);
	hp_tx *tx = begin();
	must_be(hp_heap_set_root(tx, hp_table_new(tx, HP_TABLE_NUMBERS, 0)), 0);
	must_be(hp_heap_commit(tx), 0);
	run_processes(10, square, NULL);
	uint64_t sum = 0;
	must_be(hp_heap_read_enter(pool), 0);
	must_be(hp_table_each(heap, hp_heap_root(heap), add, &sum), 0);
	hp_heap_read_exit(pool);
	must_be(sum, 385);
	heap_is_over();
}

/* ---- n queens: a queue of first rows to work on, and a table of solutions, those that turning and mirroring make of each other
 * counted under the least of them ---- */

#define MOST 12

struct queens {
	HP_REF(void) todo; /* queue of cells with boards of one row */
	HP_REF(void) found;
};
HP_TYPE(queens_type, struct queens, (todo, hp_queue_type), (found, hp_table_type));

struct board {
	uint32_t n;
	unsigned char column[MOST]; /* of each row's queen */
};
HP_TYPE_LEAF(board_type, struct board);

static void turned(const struct board *b, struct board *to)
{
	to->n = b->n;
	for (unsigned row = 0; row < b->n; row++) to->column[b->column[row]] = (unsigned char)(b->n - 1 - row);
}

static void mirrored(const struct board *b, struct board *to)
{
	to->n = b->n;
	for (unsigned row = 0; row < b->n; row++) to->column[row] = (unsigned char)(b->n - 1 - b->column[row]);
}

static struct board least_of_eight(const struct board *b)
{
	struct board least = *b, form = *b, next;
	for (unsigned i = 0; i < 8; i++) {
		if (i == 4)
			mirrored(&form, &next);
		else
			turned(&form, &next);
		form = next;
		if (memcmp(form.column, least.column, b->n) < 0) least = form;
	}
	return least;
}

static struct queens *queens(void)
{
	return hp_heap_deref(heap, hp_heap_root(heap));
}

static void found(const struct board *b)
{
	struct board key = least_of_eight(b);
	hp_tx *tx = begin();
	hp_ref table = queens()->found.ref;
	const struct hp_table_entry *entry = hp_table_find_bytes(heap, table, key.column, key.n);
	must_be(hp_table_put_bytes(tx, table, key.column, key.n, HP_NONE, entry ? entry->number + 1 : 1), 0);
	must_be(hp_heap_commit(tx), 0);
}

static void place(struct board *b, unsigned row)
{
	if (row == b->n) found(b);
	for (unsigned column = 0; row < b->n && column < b->n; column++) {
		bool safe = true;
		for (unsigned r = 0; r < row && safe; r++) {
			unsigned c = b->column[r];
			safe = c != column && c + row - r != column && column + row - r != c;
		}
		b->column[row] = (unsigned char)column;
		if (safe) place(b, row + 1);
	}
}

static bool next_board(struct board *b)
{
	hp_ref first;
	hp_tx *tx = begin();
	bool some = hp_queue_pop(tx, queens()->todo.ref, &first) == 0;
	if (some) *b = *(struct board *)hp_heap_deref(heap, first); /* what was popped stays until the transaction ends */
	must_be(hp_heap_commit(tx), 0);
	return some;
}

static void work_on_queens(unsigned who, void *arg)
{
	struct board b;
	(void)who, (void)arg;
	while (next_board(&b)) place(&b, 1);
}

static void queens_are_placed(unsigned n, uint64_t distinct, uint64_t all)
{
	heap_is_new(16 * MIB, 0);
	hp_tx *tx = begin();
	hp_ref root = hp_heap_new(tx, &queens_type, 0);
	must_be(hp_heap_set_root(tx, root), 0);
	must_be(hp_heap_set(tx, &queens()->todo.ref, hp_queue_new(tx)), 0);
	must_be(hp_heap_set(tx, &queens()->found.ref, hp_table_new(tx, HP_TABLE_BYTES, 0)), 0);
	for (unsigned column = 0; column < n; column++) {
		hp_ref ref = hp_heap_new(tx, &board_type, 0);
		*(struct board *)hp_heap_deref(heap, ref) = (struct board){.n = n, .column = {(unsigned char)column}};
		must_be(hp_queue_push(tx, queens()->todo.ref, ref), 0);
	}
	must_be(hp_heap_commit(tx), 0);
	run_processes(WORKERS, work_on_queens, NULL);
	uint64_t sum = 0;
	must_be(hp_heap_read_enter(pool), 0);
	must_be(hp_table_each(heap, queens()->found.ref, add, &sum), 0);
	must_be(hp_table_count(heap, queens()->found.ref), distinct);
	must_be(sum, all);
	hp_heap_read_exit(pool);
	heap_is_over();
}

static void n_queens(void **state)
{
	(void)state;
	queens_are_placed(4, 1, 2);
	queens_are_placed(6, 1, 4);
	queens_are_placed(8, 12, 92);
	queens_are_placed(9, 46, 352);
	queens_are_placed(10, 92, 724);
}

/* ---- pipeline: far more goes through a queue than the heap could hold ---- */

#define BLOCK 16384u
#define BLOCKS (HP_TEST_SANITIZER ? 256u : 4096u) /* 64 MiB */
#define IN_QUEUE 16

struct pipeline {
	sem_t room, filled; /* the heap does not wait for events: semaphores do */
	_Atomic uint64_t sum;
};

static uint64_t block_fill(uint64_t number, unsigned char data[BLOCK])
{
	uint64_t sum = 0, state = number, word;
	for (unsigned i = 0; i < BLOCK; i += 8) {
		word = hp_random(&state);
		memcpy(data + i, &word, 8);
		sum += word;
	}
	return sum;
}

static void produce(struct pipeline *line)
{
	for (uint64_t i = 0; i < BLOCKS; i++) {
		while (sem_wait(&line->room) != 0) {}
		hp_tx *tx = begin();
		hp_ref block = hp_heap_new(tx, &hp_bytes_type, BLOCK);
		block_fill(i, ((struct hp_bytes *)hp_heap_deref(heap, block))->data);
		must_be(hp_queue_push(tx, hp_heap_root(heap), block), 0);
		must_be(hp_heap_commit(tx), 0);
		sem_post(&line->filled);
	}
	for (unsigned i = 1; i < WORKERS; i++) sem_post(&line->filled); /* an empty queue: the end */
}

static void consume(struct pipeline *line)
{
	for (unsigned taken = 0;;) {
		hp_ref block;
		hp_guard guard;
		while (sem_wait(&line->filled) != 0) {}
		hp_tx *tx = begin();
		int error = hp_queue_pop(tx, hp_heap_root(heap), &block);
		/* kept for the time after the transaction, while others go on */
		if (error == 0) must_be(hp_heap_guard(heap, &block, 1, &guard), 0);
		must_be(hp_heap_commit(tx), 0);
		if (error == -ENOENT) return;
		must_be(error, 0);
		sem_post(&line->room);
		if (++taken % 64 == 0)
			must_be(hp_heap_gc(heap, HP_GC_WAIT, 10000), 0); /* nobody refers to it any more: it stays */
		const struct hp_bytes *bytes = hp_heap_deref_checked(heap, block, &hp_bytes_type, NULL);
		must(bytes && bytes->len == BLOCK);
		uint64_t sum = 0, word;
		for (unsigned i = 0; i < BLOCK; i += 8) {
			memcpy(&word, bytes->data + i, 8);
			sum += word;
		}
		atomic_fetch_add(&line->sum, sum);
		must_be(hp_heap_unguard(&guard), 0);
	}
}

static void work_on_pipeline(unsigned who, void *arg)
{
	if (who == 0)
		produce(arg);
	else
		consume(arg);
}

static void pipeline(void **state)
{
	(void)state;
	static unsigned char data[BLOCK];
	struct pipeline *line = hp_shared(sizeof *line);
	uint64_t sum = 0;
	for (uint64_t i = 0; i < BLOCKS; i++) sum += block_fill(i, data);
	must_be(sem_init(&line->room, 1, IN_QUEUE), 0);
	must_be(sem_init(&line->filled, 1, 0), 0);
	heap_is_new(8 * MIB, 2 * MIB);
	hp_tx *tx = begin();
	must_be(hp_heap_set_root(tx, hp_queue_new(tx)), 0);
	must_be(hp_heap_commit(tx), 0);
	run_processes(WORKERS, work_on_pipeline, line);
	must_be(atomic_load(&line->sum), sum);
	must_be(values_after_collecting(), 1); /* the queue */
	heap_is_over();
	munmap(line, sizeof *line);
}

/* ---- chameneos: two at a time meet and both change their colours ---- */

#define CREATURES 4u
#define MEETINGS (HP_TEST_SANITIZER ? 500u : 5000u)

struct creature {
	uint32_t colour, number;
	uint64_t met;
};
struct mall {
	HP_REF(struct creature) waiting;
	HP_REF(void) creatures; /* array */
	uint64_t meetings;
};
HP_TYPE_LEAF(creature_type, struct creature);
HP_TYPE(mall_type, struct mall, (waiting, creature_type), (creatures, hp_array_type));

static struct mall *mall(void)
{
	return hp_heap_deref(heap, hp_heap_root(heap));
}

/* The third one, if they differ. */
static uint32_t blend(uint32_t a, uint32_t b)
{
	return a == b ? a : 3 - a - b;
}

static void change(hp_tx *tx, struct creature *c, uint32_t colour)
{
	struct creature changed = {.colour = colour, .number = c->number, .met = c->met + 1};
	must_be(hp_heap_write(tx, c, &changed, sizeof changed), 0);
}

/* One meeting, or a wait for one; false: the mall is closed. */
static bool go_to_mall(unsigned who, sem_t turn[CREATURES])
{
	hp_tx *tx = begin();
	hp_ref me = hp_array_get(heap, mall()->creatures.ref, who), other = mall()->waiting.ref;
	uint64_t left = mall()->meetings;
	if (left == 0) {
		must_be(hp_heap_commit(tx), 0);
		if (other.word) sem_post(&turn[((struct creature *)hp_heap_deref(heap, other))->number]);
		return false;
	}
	if (!other.word) {
		must_be(hp_heap_set(tx, &mall()->waiting.ref, me), 0);
		must_be(hp_heap_commit(tx), 0);
		while (sem_wait(&turn[who]) != 0) {}
		return true;
	}
	struct creature *a = hp_heap_deref(heap, me), *b = hp_heap_deref(heap, other);
	uint32_t colour = blend(a->colour, b->colour), partner = b->number;
	change(tx, a, colour);
	change(tx, b, colour);
	left--;
	must_be(hp_heap_write(tx, &mall()->meetings, &left, sizeof left), 0);
	must_be(hp_heap_set(tx, &mall()->waiting.ref, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	sem_post(&turn[partner]);
	return true;
}

static void live(unsigned who, void *arg)
{
	while (go_to_mall(who, arg)) {}
}

static void chameneos(void **state)
{
	(void)state;
	sem_t *turn = hp_shared(CREATURES * sizeof *turn);
	heap_is_new(8 * MIB, 0);
	hp_tx *tx = begin();
	must_be(hp_heap_set_root(tx, hp_heap_new(tx, &mall_type, 0)), 0);
	must_be(hp_heap_set(tx, &mall()->creatures.ref, hp_array_new(tx, CREATURES)), 0);
	mall()->meetings = MEETINGS;
	for (uint32_t i = 0; i < CREATURES; i++) {
		hp_ref ref = hp_heap_new(tx, &creature_type, 0);
		*(struct creature *)hp_heap_deref(heap, ref) = (struct creature){.colour = i % 3, .number = i};
		must_be(hp_array_push(tx, mall()->creatures.ref, ref), 0);
		must_be(sem_init(&turn[i], 1, 0), 0);
	}
	must_be(hp_heap_commit(tx), 0);
	run_processes(CREATURES, live, turn);
	uint64_t sum = 0;
	must_be(hp_heap_read_enter(pool), 0);
	for (uint32_t i = 0; i < CREATURES; i++) {
		const struct creature *c = hp_heap_deref(heap, hp_array_get(heap, mall()->creatures.ref, i));
		must(c->colour < 3 && c->number == i);
		sum += c->met;
	}
	hp_heap_read_exit(pool);
	must_be(sum, 2 * MEETINGS);
	heap_is_over();
	munmap(turn, CREATURES * sizeof *turn);
}

/* ---- a list of which somebody holds the tail, while it is taken out of the root ---- */

#define LENGTH 10u

struct element {
	HP_REF(struct element) next;
	uint64_t number;
	char text[16];
};
HP_TYPE_DECLARE(element_type);
HP_TYPE(element_type, struct element, (next, element_type));

static int find_tail(hp_heap *of, hp_ref out[], unsigned max, void *arg)
{
	(void)max, (void)arg;
	const struct element *first = hp_heap_deref(of, hp_heap_root(of));
	out[0] = hp_heap_load(&first->next.ref);
	return 1;
}

static void must_be_tail(hp_ref at)
{
	for (uint64_t i = 1; i < LENGTH; i++) {
		const struct element *element = hp_heap_deref_checked(heap, at, &element_type, NULL);
		must(element);
		must_be(element->number, i);
		at = element->next.ref;
	}
	must_be(at.word, 0);
}

/* Another process empties the heap, and collects. */
static void empty_it(unsigned who, void *arg)
{
	(void)who, (void)arg;
	hp_tx *tx = begin();
	must_be(hp_heap_set_root(tx, HP_NONE), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(values_after_collecting(), LENGTH - 1);
}

static int use_tail(hp_heap *of, const hp_ref value[], unsigned count, void *arg)
{
	must_be(count, 1);
	must_be_tail(value[0]);
	/* the tail becomes the root: only the first element goes */
	hp_tx *tx = begin();
	must_be(hp_heap_set_root(tx, value[0]), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(values_after_collecting(), LENGTH - 1);
	run_processes(1, empty_it, NULL);
	must_be(hp_heap_root(of).word, 0);
	must_be_tail(value[0]);
	*(hp_ref *)arg = value[0];
	return 7;
}

static void list_with_guard(void **state)
{
	(void)state;
	hp_ref held;
	heap_is_new(2 * MIB, 5000);
	hp_tx *tx = begin();
	hp_ref list = HP_NONE;
	for (uint64_t i = LENGTH; i-- > 0;) {
		hp_ref ref = hp_heap_new(tx, &element_type, 0);
		struct element *element = hp_heap_deref(heap, ref);
		element->number = i;
		element->next.ref = list;
		list = ref;
	}
	must_be(hp_heap_set_root(tx, list), 0);
	must_be(hp_heap_commit(tx), 0);
	must_be(hp_heap_with_value(heap, find_tail, use_tail, &held, 0), 7);
	must_be(values_after_collecting(), 0);
	must(!hp_heap_deref_checked(heap, held, NULL, NULL));
	heap_is_over();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ten_workers_square), cmocka_unit_test(n_queens),        cmocka_unit_test(pipeline),
		cmocka_unit_test(chameneos),          cmocka_unit_test(list_with_guard),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
