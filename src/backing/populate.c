/* Populating: several threads take slices of a range and have the kernel allocate them.
 *
 * MADV_POPULATE_WRITE reports a shortage of huge pages as an error (-EFAULT) where a touch would be SIGBUS. Kernels
 * before 5.14 do not have it (-EINVAL): there huge pages are allocated with fallocate, which reports a shortage too, and
 * then touched to fill the page tables; small pages are just touched, since their shortage is never SIGBUS.
 *
 * The threads run on the CPUs of the nodes concerned, as far as the caller may use them, because clearing memory of
 * another node is slow. The caller is one of them and calls the progress function between its slices, so it is called
 * by one thread only. */
#include <backing/internal.h>
#include <errno.h>
#include <os/os.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define SLICE (16 * MIB)
#define BYTES_PER_THREAD (64 * MIB)
#define MAX_THREADS 256u

struct job {
	const struct backing *backing;
	uint64_t from, to, slice;
	int node;            /* for the progress function */
	uint64_t interleave; /* not 0: place transparent huge pages on these nodes in turn */
	bool pin;
	cpu_set_t cpus;
	_Atomic uint64_t next, done; /* offsets from `from`: the next slice; bytes finished */
	_Atomic int error;           /* the first; not 0 stops everybody */
	_Atomic int collapse_error;
	_Atomic bool old_kernel;
};

static void fail(_Atomic int *place, int error)
{
	int none = 0;
	atomic_compare_exchange_strong(place, &none, error);
}

void populate_touch(char *start, uint64_t bytes, uint64_t step)
{
	/* Adding nothing, atomically, is a write that changes nothing, whoever else writes there. */
	for (uint64_t at = 0; at < bytes; at += step) __atomic_fetch_add(start + at, 0, __ATOMIC_RELAXED);
}

static int fill(struct job *job, uint64_t at, uint64_t bytes)
{
	const struct backing *backing = job->backing;
	char *start = backing->base + at;
	if (!atomic_load_explicit(&job->old_kernel, memory_order_relaxed)) {
		int error = os_advise(start, bytes, MADV_POPULATE_WRITE);
		if (error != -EINVAL) return error;
		atomic_store_explicit(&job->old_kernel, true, memory_order_relaxed);
	}
	if (rung_is_hugetlb(backing->rung)) {
		int error = os_allocate(backing->fd, at, bytes);
		if (error) return error == -ENOSPC ? -EFAULT : error; /* one code for a shortage */
	}
	populate_touch(start, bytes, rung_is_hugetlb(backing->rung) ? backing->page_size : 4 * KIB);
	return 0;
}

/* One small page in each huge one, collapsed: the kernel then clears a huge page at once, three times as fast as
 * populating it in small pages first. (Where shmem_enabled allows it the first touch brings the whole huge page.) */
static int fill_huge_page(struct job *job, uint64_t at)
{
	int error = fill(job, at, 4 * KIB), collapsed = 0;
	if (error) return error;
	for (unsigned tries = 0; tries < 8; tries++) { /* a page may be busy for a moment */
		collapsed = os_advise(job->backing->base + at, 2 * MIB, MADV_COLLAPSE);
		if (collapsed != -EAGAIN && collapsed != -EBUSY) break;
	}
	error = fill(job, at, 2 * MIB);
	if (error) return error;
	if (collapsed) { /* no harm if it is huge all the same; otherwise the whole rung fails, so at once */
		uint64_t huge;
		fail(&job->collapse_error, collapsed);
		if (thp_huge_bytes(job->backing, at, at + 2 * MIB, &huge) < 0 || !huge) return -ENODATA;
	}
	return 0;
}

static int fill_huge(struct job *job, uint64_t at, uint64_t bytes)
{
	for (uint64_t end = at + bytes; at < end; at += 2 * MIB) {
		char *page = job->backing->base + at;
		/* A collapsed page goes where its small page is, and every 512th is on the same node: so each is told. */
		int error = job->interleave ? policy_set_one(page, 2 * MIB, job->interleave, at / (2 * MIB)) : 0;
		if (!error) error = fill_huge_page(job, at);
		if (job->interleave) policy_interleave(page, 2 * MIB, job->interleave); /* lets the mappings merge again */
		if (error) return error;
	}
	return 0;
}

/* Returns false when there is nothing left to do. */
static bool take_slice(struct job *job)
{
	if (atomic_load(&job->error)) return false;
	uint64_t at = atomic_fetch_add(&job->next, job->slice), size = job->to - job->from;
	if (at >= size) return false;
	uint64_t bytes = size - at < job->slice ? size - at : job->slice;
	int error = job->backing->rung == HP_RUNG_THP ? fill_huge(job, job->from + at, bytes)
	                                              : fill(job, job->from + at, bytes);
	if (error) {
		fail(&job->error, error);
		return false;
	}
	atomic_fetch_add(&job->done, bytes);
	return true;
}

static void *worker(void *arg)
{
	struct job *job = arg;
	if (job->pin) os_set_affinity(&job->cpus);
	while (take_slice(job))
		;
	return NULL;
}

static void tell(struct job *job, const struct range_order *order, uint64_t *told)
{
	*told = atomic_load(&job->done);
	if (order->progress && order->progress(order->progress_arg, *told, job->to - job->from, job->node))
		fail(&job->error, -ECANCELED);
}

/* Decides where the threads run, and returns how many there may be. */
static unsigned choose_cpus(struct job *job, uint64_t nodes, const struct hp_numa *numa, cpu_set_t *own)
{
	cpu_set_t node_cpus;
	job->pin = false;
	if (os_affinity(own) < 0) return 1;
	/* By default memory comes from the node of whoever faults it, which should be the caller's. */
	if (numa->policy == HP_NUMA_DEFAULT && nodes & (nodes - 1)) nodes = UINT64_C(1) << os_node();
	CPU_ZERO(&job->cpus);
	for (unsigned node = 0; node < HP_MAX_NODES; node++) {
		if (nodes >> node & 1 && os_node_cpus(node, &node_cpus) == 0) CPU_OR(&job->cpus, &job->cpus, &node_cpus);
	}
	CPU_AND(&job->cpus, &job->cpus, own);
	if (!CPU_COUNT(&job->cpus)) return CPU_COUNT(own);
	job->pin = !CPU_EQUAL(&job->cpus, own);
	return CPU_COUNT(&job->cpus);
}

int populate(const struct backing *backing, uint64_t from, uint64_t to, uint64_t nodes, const struct range_order *order,
             struct hp_report *report, int *collapse_error)
{
	uint64_t size = to - from, begin = os_now_ns(), told = 0;
	struct job job = {
		.backing = backing,
		.from = from,
		.to = to,
		.slice = backing->page_size > SLICE ? backing->page_size : SLICE,
		.node = nodes && !(nodes & (nodes - 1)) ? __builtin_ctzll(nodes) : -1,
	};
	if (backing->rung == HP_RUNG_THP && order->numa.policy == HP_NUMA_INTERLEAVE && job.node < 0 && !report->numa_error)
		job.interleave = nodes & os_nodes_with_memory();
	*collapse_error = 0;
	cpu_set_t own;
	unsigned threads = choose_cpus(&job, nodes, &order->numa, &own);
	uint64_t worth = order->threads ? (size + job.slice - 1) / job.slice : size / BYTES_PER_THREAD;
	if (order->threads) threads = order->threads;
	if (threads > worth) threads = worth;
	if (threads > MAX_THREADS) threads = MAX_THREADS;
	if (!threads) threads = 1;

	tell(&job, order, &told);
	unsigned long id[MAX_THREADS];
	unsigned started = 0;
	/* Fewer threads than wished for are only slower. */
	while (started + 1 < threads && !atomic_load(&job.error) && os_thread(worker, &job, &id[started]) == 0) started++;
	bool pinned = job.pin && os_set_affinity(&job.cpus) == 0;
	while (take_slice(&job))
		if (atomic_load(&job.done) < size) tell(&job, order, &told);
	if (pinned) os_set_affinity(&own);
	for (unsigned i = 0; i < started; i++) os_join(id[i]);
	if (!atomic_load(&job.error)) tell(&job, order, &told);

	report->threads = started + 1;
	report->prefault_ns += os_now_ns() - begin;
	*collapse_error = atomic_load(&job.collapse_error);
	return atomic_load(&job.error);
}
