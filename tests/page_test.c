/* The contract of the page functions, call by call.
 *
 * Catches: an error that is not the one the header names, or that changes something; a size or a run that cannot be
 * had although it is free; blocks that overlap; memory that is not zero when it was asked to be; memory of class PROCESS
 * that outlives its process or is freed by another. */
#include "hp_page.h"
#include "pool/pool.h"

static size_t pages_of(hp_pool *pool)
{
	return hp_stats(pool).committed / PAGE;
}

static void *must_alloc(hp_pool *pool, size_t bytes, unsigned flags)
{
	void *block = NULL;
	must_be(hp_page_alloc(pool, bytes, flags, &block), 0);
	must(block);
	return block;
}

/* Sizes and offsets agree, and the refusal changed nothing. */
static void refuses_free(hp_pool *pool, void *block, int error)
{
	struct hp_pool_stats before = hp_stats(pool);
	hp_off off = (hp_off)((uintptr_t)block - (uintptr_t)hp_pool_base(pool));
	must_be(hp_page_free(pool, block), error);
	must_be(hp_page_free_at(pool, off), error);
	if (error != -EPERM) {
		must_be(hp_page_size(pool, block), error);
		must_be(hp_page_size_at(pool, off), error);
	}
	struct hp_pool_stats after = hp_stats(pool);
	must_be(after.free, before.free);
	must_be(after.live_blocks, before.live_blocks);
	must_be(after.frees + after.remote_frees, before.frees + before.remote_frees);
	hp_must_be_sound(pool);
}

static void refuses_alloc(hp_pool *pool, size_t bytes, unsigned flags, int error)
{
	void *block = pool;
	must_be(hp_page_alloc(pool, bytes, flags, &block), error);
	must(!block);
}

static void wrong_arguments_are_refused(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	for (int warm = 0; warm < 2; warm++) { /* before the thread has a slot, and with one */
		refuses_alloc(pool, 0, 0, -EINVAL);
		refuses_alloc(pool, SIZE_MAX, 0, -EINVAL);
		for (size_t k = 0; k < PAGE; k += 511) {
			void *block = pool;
			must(hp_page_alloc(pool, SIZE_MAX - k, 0, &block) < 0);
			must(!block);
		}
		refuses_alloc(pool, MIB + 1, 0, -ENOMEM);
		refuses_alloc(pool, SIZE_MAX / 2, 0, -ENOMEM);
		for (unsigned bit = 8; bit; bit <<= 1) refuses_alloc(pool, PAGE, bit, -EINVAL);
		refuses_alloc(pool, PAGE, UINT32_MAX, -EINVAL);
		void *block = pool;
		must_be(hp_page_alloc_on(pool, -1, PAGE, 0, &block), -EINVAL);
		must(!block);
		must_be(hp_page_alloc_on(pool, HP_MAX_NODES, PAGE, 0, &block), -EINVAL);
		must_be(hp_page_alloc_on(pool, INT32_MAX, PAGE, 0, &block), -EINVAL);
		must_be(hp_page_alloc_on(pool, HP_MAX_NODES - 1, PAGE, HP_PAGE_STRICT_NODE, &block), -EINVAL);
		must(!block);
		must_be(hp_page_alloc_on(pool, HP_MAX_NODES - 1, PAGE, 0, &block), 0); /* no more than a preference */
		must_be(hp_page_free(pool, block), 0);
		must_be(hp_page_free(pool, NULL), 0);
		hp_must_be_empty(pool);
		must_be(hp_page_free(pool, must_alloc(pool, PAGE, 0)), 0);
	}
	hp_pool_detach(pool);
}

static void every_wrong_free_is_told_apart(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0), *other = hp_plain_pool(MIB, 0);
	char *base = hp_pool_base(pool), *block = must_alloc(pool, 5 * PAGE, 0), *one = must_alloc(pool, 1, 0);
	char *foreign = must_alloc(other, PAGE, 0);
	int local;
	/* not of this pool */
	refuses_free(pool, &local, -EINVAL);
	refuses_free(pool, foreign, -EINVAL);
	refuses_free(pool, base - PAGE, -EINVAL);
	refuses_free(pool, base + MIB, -EINVAL);
	refuses_free(pool, (void *)(UINTPTR_MAX & ~(PAGE - 1)), -EINVAL);
	must_be(hp_page_free_at(pool, HP_OFF_NONE), -EINVAL);
	must_be(hp_page_size_at(pool, HP_OFF_NONE), -EINVAL);
	must_be(hp_page_size_at(pool, UINT64_MAX << 12), -EINVAL);
	/* misaligned */
	for (size_t k = 1; k < PAGE; k += 97) refuses_free(pool, block + k, -EINVAL);
	refuses_free(pool, block + PAGE - 1, -EINVAL);
	/* interior */
	for (size_t k = 1; k < 5; k++) refuses_free(pool, block + k * PAGE, -ENOENT);
	/* never allocated */
	refuses_free(pool, base + MIB - PAGE, -ENOENT);
	/* double */
	must_be(hp_page_size(pool, block), 5 * PAGE);
	must_be(hp_page_size(pool, one), PAGE);
	must_be(hp_page_free(pool, block), 0);
	refuses_free(pool, block, -EALREADY);
	refuses_free(pool, block + PAGE, -ENOENT);
	must_be(hp_page_free_at(pool, hp_pool_offset(pool, one)), 0);
	refuses_free(pool, one, -EALREADY);
	hp_must_be_empty(pool);
	/* the same by a handle that owns nothing */
	hp_pool *again = hp_attach_again(pool);
	char *there = hp_pool_base(again);
	refuses_free(again, there + (one - base), -EALREADY);
	refuses_free(again, there + MIB - PAGE, -ENOENT);
	refuses_free(again, there + 5, -EINVAL);
	block = must_alloc(pool, 3 * PAGE, 0);
	refuses_free(again, there + (block - base) + PAGE, -ENOENT);
	must_be(hp_page_size(again, there + (block - base)), 3 * PAGE);
	must_be(hp_page_free(again, there + (block - base)), 0);
	refuses_free(pool, block, -EALREADY);
	hp_pool_detach(again);
	must_be(hp_page_free(other, foreign), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(other);
	hp_pool_detach(pool);
}

/* A long block: its later chunks, its head, its double free. */
static void wrong_frees_inside_long_blocks_are_refused(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(2 * MIB, 0);
	size_t unit = hp_stats(pool).unit_size / PAGE, all = pages_of(pool);
	char *first = must_alloc(pool, 3 * PAGE, 0), *block = must_alloc(pool, 3 * unit * PAGE, 0);
	must_be(hp_page_size(pool, block), 3 * unit * PAGE);
	for (size_t k = 1; k < 3 * unit; k += k % unit < 2 || k % unit > unit - 3 ? 1 : 5)
		refuses_free(pool, block + k * PAGE, -ENOENT);
	hp_pool *again = hp_attach_again(pool);
	char *there = (char *)hp_pool_base(again) + (block - (char *)hp_pool_base(pool));
	for (size_t k = 1; k < 3 * unit; k += 7) refuses_free(again, there + k * PAGE, -ENOENT);
	must_be(hp_page_free(again, there), 0);
	refuses_free(pool, block, -EALREADY);
	refuses_free(pool, block + unit * PAGE, -ENOENT);
	must_be(hp_page_free(pool, first), 0);
	hp_must_be_empty(pool);
	must_be(hp_page_free(pool, must_alloc(pool, all * PAGE, 0)), 0);
	hp_pool_detach(again);
	hp_pool_detach(pool);
}

static void not_yet_committed_memory_is_no_block(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(MIB);
	options.capacity = 4 * MIB;
	options.flags = HP_POOL_NO_AUTOGROW;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	size_t committed = pages_of(pool);
	char *base = hp_pool_base(pool);
	refuses_free(pool, base + committed * PAGE, -ENOENT);
	refuses_free(pool, base + hp_pool_capacity(pool) - PAGE, -ENOENT);
	refuses_free(pool, base + hp_pool_capacity(pool), -EINVAL);
	must_be(hp_page_zero(pool, base + committed * PAGE, PAGE), -ENOENT);
	refuses_alloc(pool, (committed + 1) * PAGE, 0, -ENOMEM);
	hp_must_be_empty(pool);
	must_be(hp_pool_grow(pool, MIB, NULL, NULL), 0);
	must_be(hp_page_free(pool, must_alloc(pool, committed * PAGE + PAGE, 0)), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void an_allocation_grows_the_pool_up_to_its_capacity(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(MIB);
	options.capacity = 8 * MIB;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	void *small = must_alloc(pool, PAGE, 0), *big = must_alloc(pool, 3 * MIB, 0);
	must_be(hp_page_size(pool, big), 3 * MIB);
	must_be(hp_page_free(pool, small), 0);
	must_be(hp_page_free(pool, big), 0);
	void *whole = must_alloc(pool, 8 * MIB, 0);
	refuses_alloc(pool, PAGE, 0, -ENOMEM);
	must_be(hp_page_free(pool, whole), 0);
	must_be(pages_of(pool), 8 * MIB / PAGE);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void every_size_from_a_page_to_the_whole_pool(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	size_t all = pages_of(pool);
	for (unsigned flags = 0; flags <= HP_PAGE_PROCESS; flags += HP_PAGE_PROCESS)
		for (size_t n = 1; n <= all; n++) {
			void *block = must_alloc(pool, n * PAGE - n % PAGE, flags);
			must_be((uintptr_t)block % PAGE, 0);
			must_be(hp_page_size(pool, block), n * PAGE);
			must_be(hp_page_size_at(pool, hp_pool_offset(pool, block)), n * PAGE);
			hp_mark(block, n, n << 32);
			must_be(hp_stats(pool).free, (all - n) * PAGE);
			if (n % 16 == 0) hp_must_be_sound(pool);
			must(hp_marked(block, n, n << 32));
			must_be(hp_page_free(pool, block), 0);
			must_be(hp_stats(pool).largest, all * PAGE);
		}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* Exactly one run is free, at every place and of every length: it is what the pool must find, and all that it may give. */
static void the_only_free_run_is_found_wherever_it_is(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	size_t all = pages_of(pool), unit = hp_stats(pool).unit_size / PAGE;
	char *base = hp_pool_base(pool);
	for (size_t i = 0; i < all; i++) must_alloc(pool, PAGE, 0);
	refuses_alloc(pool, PAGE, 0, -ENOMEM);
	for (size_t k = 0; k < all; k += HP_TEST_SANITIZER ? 11 : k % unit > 2 && k % unit < unit - 2 ? 3 : 1) {
		for (size_t n = 1; n + k <= all; n += n > 3 && (n + k) % unit > 2 && (n + k) % unit < unit - 2 ? 13 : 1) {
			for (size_t i = 0; i < n; i++) must_be(hp_page_free(pool, base + (k + i) * PAGE), 0);
			must_be(hp_stats(pool).largest, n * PAGE);
			refuses_alloc(pool, (n + 1) * PAGE, 0, -ENOMEM);
			void *block = must_alloc(pool, n * PAGE, 0);
			must_be(hp_pool_offset(pool, block), k * PAGE);
			must_be(hp_page_size(pool, block), n * PAGE);
			refuses_alloc(pool, PAGE, 0, -ENOMEM);
			must_be(hp_page_free(pool, block), 0);
			for (size_t i = 0; i < n; i++) must_alloc(pool, PAGE, 0);
		}
		hp_must_be_sound(pool);
	}
	for (size_t i = 0; i < all; i++) must_be(hp_page_free(pool, base + i * PAGE), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

/* Chunks of 512 pages: the borders at 511, 512, 513, and runs over several. Lazily populated: it costs no memory. */
static void sizes_around_the_border_of_large_chunks(void **state)
{
	(void)state;
	struct hp_pool_options options = hp_plain_options(256 * MIB);
	options.prefault = HP_PREFAULT_LAZY;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	size_t all = pages_of(pool);
	must_be(hp_stats(pool).unit_size / PAGE, 512);
	static const size_t sizes[] = {1,   2,   63,  64,  65,   127,  128,  129,  510,
	                               511, 512, 513, 514, 1023, 1024, 1025, 1500, 5000};
	enum { COUNT = sizeof sizes / sizeof *sizes };
	for (unsigned first = 0; first < COUNT; first++) {
		void *block[COUNT];
		for (unsigned i = 0; i < COUNT; i++) {
			unsigned k = (first + i) % COUNT;
			block[k] = must_alloc(pool, sizes[k] * PAGE, 0);
			((uint64_t *)block[k])[0] = k;
			((uint64_t *)((char *)block[k] + sizes[k] * PAGE))[-1] = ~(uint64_t)k;
		}
		hp_must_be_sound(pool);
		for (unsigned k = 0; k < COUNT; k++) {
			must_be(((uint64_t *)block[k])[0], k);
			must_be(((uint64_t *)((char *)block[k] + sizes[k] * PAGE))[-1], ~(uint64_t)k);
			must_be(hp_page_size(pool, block[k]), sizes[k] * PAGE);
			must_be(hp_page_free(pool, block[k]), 0);
		}
		must_be(hp_stats(pool).largest, all * PAGE);
	}
	must_be(hp_page_free(pool, must_alloc(pool, all * PAGE, 0)), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static bool all_zero(const void *block, size_t bytes)
{
	const uint64_t *word = block;
	for (size_t i = 0; i < bytes / 8; i++)
		if (word[i]) return false;
	return true;
}

static void zeroed_blocks_are_zero(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	size_t all = pages_of(pool);
	for (size_t n = 1; n <= all; n = n * 2 + 1) {
		void *dirt = must_alloc(pool, all * PAGE, 0);
		memset(dirt, 0xa5, all * PAGE);
		must_be(hp_page_free(pool, dirt), 0);
		for (unsigned class = 0; class <= HP_PAGE_PROCESS; class ++) {
			void *block = must_alloc(pool, n * PAGE - 1, HP_PAGE_ZERO | class);
			must(all_zero(block, n * PAGE));
			memset(block, 0x5a, n * PAGE);
			must_be(hp_page_free(pool, block), 0);
		}
		void *other = NULL;
		must_be(hp_page_alloc_on(pool, 0, n * PAGE, HP_PAGE_ZERO, &other), 0);
		must(all_zero(other, n * PAGE));
		must_be(hp_page_free(pool, other), 0);
	}
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void a_part_of_a_block_is_made_zero(void **state)
{
	(void)state;
	uint64_t seed = hp_seed(__func__);
	hp_pool *pool = hp_plain_pool(MIB, 0), *again = hp_attach_again(pool);
	size_t all = pages_of(pool), unit = hp_stats(pool).unit_size / PAGE;
	char *before = must_alloc(pool, 3 * PAGE, 0), *block = must_alloc(pool, (2 * unit + 5) * PAGE, 0);
	char *after = must_alloc(pool, PAGE, 0), *base = hp_pool_base(pool), *there = hp_pool_base(again);
	size_t n = 2 * unit + 5;
	memset(before, 0x11, 3 * PAGE);
	memset(after, 0x22, PAGE);
	for (unsigned round = 0; round < 200; round++) {
		memset(block, 0x33, n * PAGE);
		size_t from = hp_below(&seed, n), count = 1 + hp_below(&seed, n - from);
		if (round == 0) from = 0, count = n;
		bool elsewhere = round % 2;
		must_be(hp_page_zero(elsewhere ? again : pool, (elsewhere ? there + (block - base) : block) + from * PAGE,
		                     count * PAGE),
		        0);
		must(all_zero(block + from * PAGE, count * PAGE));
		must(all_zero(there + (block - base) + from * PAGE, count * PAGE)); /* still shared */
		if (from) must_be(block[from * PAGE - 1], 0x33);
		if (from + count < n) must_be(block[(from + count) * PAGE], 0x33);
		block[from * PAGE] = 7;
		must_be(there[block - base + (ptrdiff_t)(from * PAGE)], 7);
	}
	for (size_t i = 0; i < 3 * PAGE; i++) must_be(before[i], 0x11);
	for (size_t i = 0; i < PAGE; i++) must_be(after[i], 0x22);
	memset(block, 0x33, n * PAGE);
	must_be(hp_page_zero(pool, block + 1, PAGE), -EINVAL);
	must_be(hp_page_zero(pool, block, PAGE - 1), -EINVAL);
	must_be(hp_page_zero(pool, &seed, PAGE), -EINVAL);
	must_be(hp_page_zero(pool, block, (n + 1) * PAGE), -ENOENT);
	must_be(hp_page_zero(pool, block + (n - 1) * PAGE, 2 * PAGE), -ENOENT);
	must_be(hp_page_zero(pool, block + unit * PAGE, SIZE_MAX & ~(PAGE - 1)), -ENOENT);
	must_be(hp_page_zero(pool, base + all * PAGE - PAGE, PAGE), -ENOENT);
	must_be(block[0], 0x33);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_page_zero(pool, block, PAGE), -ENOENT);
	must_be(hp_page_zero(pool, block + unit * PAGE, PAGE), -ENOENT);
	must_be(hp_page_free(pool, before), 0);
	must_be(hp_page_free(pool, after), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(again);
	hp_pool_detach(pool);
}

static void pointers_and_offsets_convert(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0), *again = hp_attach_again(pool);
	char *base = hp_pool_base(pool), *there = hp_pool_base(again);
	uint64_t capacity = hp_pool_capacity(pool);
	must(base != there);
	for (hp_off off = 0; off < capacity; off += 4093) {
		must(hp_pool_pointer(pool, off) == base + off);
		must_be(hp_pool_offset(pool, base + off), off);
		must(hp_pool_pointer(again, hp_pool_offset(pool, base + off)) == there + off);
	}
	must(!hp_pool_pointer(pool, capacity));
	must(!hp_pool_pointer(pool, HP_OFF_NONE));
	must_be(hp_pool_offset(pool, base + capacity), HP_OFF_NONE);
	must_be(hp_pool_offset(pool, base - 1), HP_OFF_NONE);
	must_be(hp_pool_offset(pool, NULL), HP_OFF_NONE);
	must_be(hp_pool_offset(pool, &pool), HP_OFF_NONE);
	must_be(hp_pool_offset(pool, base + capacity - 1), capacity - 1);
	/* what one handle wrote, the other reads */
	void *block = must_alloc(pool, 3 * PAGE, 0);
	hp_mark(block, 3, 77);
	must(hp_marked(hp_pool_pointer(again, hp_pool_offset(pool, block)), 3, 77));
	must_be(hp_page_free_at(again, hp_pool_offset(pool, block)), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(again);
	hp_pool_detach(pool);
}

struct log {
	unsigned allocs, frees, others;
	char last[512];
};

static void count_line(void *arg, const char *message)
{
	struct log *log = arg;
	must(!strchr(message, '\n'));
	if (strstr(message, "alloc"))
		log->allocs++;
	else if (strstr(message, "free"))
		log->frees++;
	else
		log->others++;
	snprintf(log->last, sizeof log->last, "%s", message);
}

static void every_operation_is_traced_when_asked(void **state)
{
	(void)state;
	struct log log = {0};
	struct hp_pool_options options = hp_plain_options(MIB);
	options.log = count_line;
	options.log_arg = &log;
	options.trace = HP_TRACE_ALLOC;
	hp_pool *pool;
	must_be(hp_pool_create(&options, &pool), 0);
	log = (struct log){0};
	void *block[10];
	for (unsigned i = 0; i < 10; i++) block[i] = must_alloc(pool, (i + 1) * PAGE, i % 2 ? HP_PAGE_PROCESS : 0);
	must_be(log.allocs, 10);
	refuses_alloc(pool, 0, 0, -EINVAL);
	must_be(log.allocs, 11);
	for (unsigned i = 0; i < 9; i++) must_be(hp_page_free(pool, block[i]), 0);
	must_be(log.frees, 9);
	must_be(hp_page_free(pool, block[0]), -EALREADY);
	must_be(log.frees, 10);
	must_be(hp_page_free_at(pool, hp_pool_offset(pool, block[9])), 0);
	must_be(log.frees, 11);
	must_be(hp_pool_trace(pool, 0), 0);
	must_be(hp_page_free(pool, must_alloc(pool, PAGE, 0)), 0);
	must_be(log.allocs + log.frees, 22);
	must_be(hp_pool_trace(pool, HP_TRACE_ALLOC | HP_TRACE_ALL), 0);
	must_be(hp_page_free(pool, must_alloc(pool, PAGE, 0)), 0);
	must_be(log.allocs, 12);
	must_be(log.frees, 12);
	must_be(hp_pool_trace(pool, 4), -EINVAL);
	hp_pool_detach(pool);
}

/* ---- class PROCESS ---- */

struct family {
	hp_pool *pool;
	int to_child, to_parent;
	bool detach;
};

static void tell(int fd)
{
	must_be(write(fd, "x", 1), 1);
}

static void listen_to(int fd)
{
	char c;
	ssize_t got;
	while ((got = read(fd, &c, 1)) < 0 && errno == EINTR) {}
	must_be(got, 1);
}

static hp_off *handed; /* shared: what the child allocated */

static void child_holds(struct family *family)
{
	for (unsigned i = 0; i < 8; i++) {
		void *block = must_alloc(family->pool, (i == 7 ? 100 : i + 1) * PAGE, HP_PAGE_PROCESS);
		handed[i] = hp_pool_offset(family->pool, block);
	}
	void *common = must_alloc(family->pool, 2 * PAGE, 0);
	handed[8] = hp_pool_offset(family->pool, common);
	must_be(hp_page_free_at(family->pool, handed[1]), 0); /* its own it may free */
	tell(family->to_parent);
	listen_to(family->to_child);
	if (family->detach) hp_pool_detach(family->pool);
	tell(family->to_parent);
	listen_to(family->to_child);
	_exit(0);
}

static void process_memory_ends_with_its_process(bool detach)
{
	hp_pool *pool = hp_plain_pool(2 * MIB, 0);
	handed = hp_shared(PAGE);
	int down[2], up[2];
	must_be(pipe(down), 0);
	must_be(pipe(up), 0);
	pid_t pid = hp_fork();
	if (pid == 0) {
		struct family family = {pool, down[0], up[1], detach};
		child_holds(&family);
	}
	listen_to(up[0]);
	size_t used = 1 + 3 + 4 + 5 + 6 + 7 + 100 + 2;
	must_be(hp_stats(pool).free, hp_stats(pool).committed - used * PAGE);
	for (unsigned i = 0; i < 8; i++) {
		void *block = hp_pool_pointer(pool, handed[i]);
		if (i == 1) {
			refuses_free(pool, block, -EALREADY);
		} else {
			must_be(hp_page_size(pool, block), (i == 7 ? 100 : i + 1) * PAGE);
			refuses_free(pool, block, -EPERM);
			must_be(hp_page_free(pool, (char *)block + 1), -EINVAL);
			if (i > 1) must_be(hp_page_free(pool, (char *)block + PAGE), -ENOENT);
		}
	}
	void *mine = must_alloc(pool, PAGE, HP_PAGE_PROCESS);
	if (detach) {
		tell(down[1]);
		listen_to(up[0]);
	} else {
		kill(pid, SIGKILL);
		must_be(hp_wait_for(pid), 128 + SIGKILL);
		must_be(hp_pool_recover(pool), 1);
	}
	/* class POOL outlives it, class PROCESS does not; ours stays */
	must_be(hp_stats(pool).free, hp_stats(pool).committed - 3 * PAGE);
	hp_must_be_sound(pool);
	for (unsigned i = 0; i < 8; i++) refuses_free(pool, hp_pool_pointer(pool, handed[i]), -EALREADY);
	must_be(hp_page_free_at(pool, handed[8]), 0);
	must_be(hp_page_free(pool, mine), 0);
	hp_must_be_empty(pool);
	if (detach) {
		tell(down[1]);
		must_be(hp_wait_for(pid), 0);
	}
	for (int i = 0; i < 2; i++) {
		close(down[i]);
		close(up[i]);
	}
	munmap(handed, PAGE);
	hp_pool_detach(pool);
}

static void process_memory_is_freed_at_detach(void **state)
{
	(void)state;
	process_memory_ends_with_its_process(true);
}

static void process_memory_is_freed_at_death(void **state)
{
	(void)state;
	process_memory_ends_with_its_process(false);
}

static void a_second_handle_is_another_process_for_class_process(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0), *again = hp_attach_again(pool);
	size_t all = pages_of(pool);
	void *block = must_alloc(pool, all * PAGE, HP_PAGE_PROCESS);
	refuses_free(again, hp_pool_pointer(again, hp_pool_offset(pool, block)), -EPERM);
	refuses_alloc(again, PAGE, 0, -ENOMEM);
	refuses_alloc(again, PAGE, HP_PAGE_PROCESS, -ENOMEM);
	hp_pool_detach(pool);
	hp_must_be_empty(again);
	must_be(hp_page_free(again, must_alloc(again, all * PAGE, HP_PAGE_PROCESS)), 0);
	hp_must_be_empty(again);
	hp_pool_detach(again);
}

static int child_frees_its_parents(void *arg)
{
	struct family *family = arg;
	return hp_page_free_at(family->pool, handed[0]) == -EPERM && hp_page_free_at(family->pool, handed[1]) == 0 ? 0 : 1;
}

static void a_forked_child_is_another_process(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	handed = hp_shared(PAGE);
	handed[0] = hp_pool_offset(pool, must_alloc(pool, PAGE, HP_PAGE_PROCESS));
	handed[1] = hp_pool_offset(pool, must_alloc(pool, PAGE, 0));
	struct family family = {.pool = pool};
	must_be(hp_test_child(child_frees_its_parents, &family), 0);
	must_be(hp_page_free_at(pool, handed[0]), 0);
	hp_must_be_empty(pool);
	munmap(handed, PAGE);
	hp_pool_detach(pool);
}

static void both_classes_serve_from_one_pool_to_the_last_page(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	size_t all = pages_of(pool), unit = hp_stats(pool).unit_size / PAGE, got = 0;
	void **block = calloc(all, sizeof *block);
	/* a page of class PROCESS keeps its chunk; the rest of the pool is for anything */
	must_be(hp_page_free(pool, must_alloc(pool, PAGE, HP_PAGE_PROCESS)), 0);
	void *private = must_alloc(pool, PAGE, HP_PAGE_PROCESS);
	while (hp_page_alloc(pool, PAGE, 0, &block[got]) == 0) got++;
	must_be(got, all - unit);
	for (size_t i = 0; i < unit - 1; i++) must_be(hp_page_alloc(pool, PAGE, HP_PAGE_PROCESS, &block[got++]), 0);
	refuses_alloc(pool, PAGE, HP_PAGE_PROCESS, -ENOMEM);
	must_be(hp_stats(pool).free, 0);
	hp_must_be_sound(pool);
	while (got) must_be(hp_page_free(pool, block[--got]), 0);
	must_be(hp_page_free(pool, private), 0);
	hp_must_be_empty(pool);
	void *whole = must_alloc(pool, all * PAGE, 0);
	must_be(hp_page_free(pool, whole), 0);
	free(block);
	hp_pool_detach(pool);
}

static void nodes_are_obeyed_where_there_is_one(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0);
	struct hp_pool_stats stats = hp_stats(pool);
	if (stats.nodes != 1 || stats.node[0].node != 0) {
		hp_pool_detach(pool);
		hp_test_skip_one("the pool's memory is not all on node 0");
	}
	void *block;
	must_be(hp_page_alloc_on(pool, 0, 200 * PAGE, HP_PAGE_STRICT_NODE, &block), 0);
	refuses_alloc(pool, 100 * PAGE, HP_PAGE_STRICT_NODE, -ENOMEM);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_page_alloc(pool, stats.committed, HP_PAGE_STRICT_NODE, &block), 0);
	must_be(hp_page_free(pool, block), 0);
	must_be(hp_page_alloc_on(pool, 1, PAGE, HP_PAGE_STRICT_NODE, &block), -EINVAL);
	must_be(hp_page_alloc_on(pool, 1, PAGE, 0, &block), 0);
	must_be(hp_page_free(pool, block), 0);
	hp_must_be_empty(pool);
	hp_pool_detach(pool);
}

static void observers_change_nothing(void **state)
{
	(void)state;
	hp_pool *pool = hp_plain_pool(MIB, 0), *observer;
	int fds[3];
	must_be(hp_pool_fds(pool, fds), 0);
	must_be(hp_pool_observe(fds, &observer), 0);
	void *block = must_alloc(pool, PAGE, 0), *none = pool;
	must_be(hp_page_alloc(observer, PAGE, 0, &none), -EROFS);
	must(!none);
	must_be(hp_page_alloc_on(observer, 0, PAGE, 0, &none), -EROFS);
	must_be(hp_page_free(observer, block), -EROFS);
	must_be(hp_page_free_at(observer, hp_pool_offset(pool, block)), -EROFS);
	must_be(hp_page_zero(observer, block, PAGE), -EROFS);
	must_be(hp_stats(observer).live_blocks, 1);
	hp_must_be_sound(observer);
	must_be(hp_page_free(pool, block), 0);
	hp_pool_detach(observer);
	hp_pool_detach(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wrong_arguments_are_refused),
		cmocka_unit_test(every_wrong_free_is_told_apart),
		cmocka_unit_test(wrong_frees_inside_long_blocks_are_refused),
		cmocka_unit_test(not_yet_committed_memory_is_no_block),
		cmocka_unit_test(an_allocation_grows_the_pool_up_to_its_capacity),
		cmocka_unit_test(every_size_from_a_page_to_the_whole_pool),
		cmocka_unit_test(the_only_free_run_is_found_wherever_it_is),
		cmocka_unit_test(sizes_around_the_border_of_large_chunks),
		cmocka_unit_test(zeroed_blocks_are_zero),
		cmocka_unit_test(a_part_of_a_block_is_made_zero),
		cmocka_unit_test(pointers_and_offsets_convert),
		cmocka_unit_test(every_operation_is_traced_when_asked),
		cmocka_unit_test(process_memory_is_freed_at_detach),
		cmocka_unit_test(process_memory_is_freed_at_death),
		cmocka_unit_test(a_second_handle_is_another_process_for_class_process),
		cmocka_unit_test(a_forked_child_is_another_process),
		cmocka_unit_test(both_classes_serve_from_one_pool_to_the_last_page),
		cmocka_unit_test(nodes_are_obeyed_where_there_is_one),
		cmocka_unit_test(observers_change_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
