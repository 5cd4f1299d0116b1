/* Process records and liveness.
 *
 * A process opens a description of the lives file of its own, locks the byte of its record, maps one page through it
 * (MADV_DONTFORK) and closes the descriptor: the lock now lives exactly as long as the mapping, that is until the process
 * dies, execs, exits or detaches; not with its forked children, and untouched by any close(). Whoever wants to know
 * asks F_OFD_GETLK through a descriptor of another description.
 *
 * Both errors would be fatal in their way: a false "dead" makes two owners, a false "alive" loses memory. So the
 * descriptor asked is checked to be the file it was, and to say "held" about our own byte, before "free" is believed. */
#include "pool/record.h"
#include "os/os.h"
#include "pool/participant.h"
#include "pool/recover.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int pool_fd_note(struct pool_fd *note, int fd)
{
	struct stat st;
	int error = os_fstat(fd, &st);
	if (error < 0) return error;
	*note = (struct pool_fd){.fd = fd, .dev = st.st_dev, .ino = st.st_ino};
	return 0;
}

bool pool_fd_intact(const struct pool_fd *note)
{
	struct stat st;
	return note->fd >= 0 && os_fstat(note->fd, &st) == 0 && st.st_dev == note->dev && st.st_ino == note->ino;
}

static void record_describe(struct pool_record *record)
{
	atomic_store_explicit(&record->pid, (uint32_t)os_pid(), memory_order_relaxed);
	atomic_store_explicit(&record->uid, (uint32_t)geteuid(), memory_order_relaxed);
	atomic_store_explicit(&record->since, os_now_ns(), memory_order_relaxed);
	char comm[sizeof record->comm + 1] = "";
	if (os_read_file("/proc/self/comm", comm, sizeof comm) < 0) comm[0] = 0;
	comm[sizeof record->comm - 1] = 0;
	for (unsigned i = 0; i < sizeof record->comm; i++)
		atomic_store_explicit(&record->comm[i], comm[i], memory_order_relaxed);
}

/* With the byte locked: makes the record ours if it is free, or if its process is dead (the byte was free, and now
 * nobody else can have it) after giving back what that process left. */
static bool record_claim(hp_pool *pool, uint32_t i, int fd, bool dead_too)
{
	struct pool_record *record = &pool->records[i];
	uint64_t word = atomic_load_explicit(&record->word, memory_order_acquire);
	/* one that was its own recoverer, as those who leave are, ends with the holder of its byte too */
	bool ends = record_state(word) == RECORD_LIVE ||
	            (record_state(word) == RECORD_RECOVERING && record_recoverer(word) == i + 1);
	if (record_state(word) != RECORD_FREE && !(dead_too && ends)) return false;
	if (os_byte_lock(fd, i) < 0) return false;
	/* read again: while we waited for the byte the record may have been taken and given back */
	if (atomic_load_explicit(&record->word, memory_order_acquire) == word) {
		uint32_t generation = record_generation(word);
		if (record_state(word) == RECORD_FREE) {
			/* commit: from here on everything tagged with this generation is ours */
			if (atomic_compare_exchange_strong(&record->word, &word, record_make(RECORD_LIVE, generation, 0, 0))) {
				pool->record = i;
				pool->record_generation = generation;
				return true;
			}
		} else {
			/* its own recoverer: if we die, the byte is free again and so is the claim */
			/* and never the same word again: somebody else may be about to swap the very word that we saw */
			uint64_t claim = record_make(RECORD_RECOVERING, generation, i + 1, record_recoverer_generation(word) + 1);
			if (atomic_compare_exchange_strong(&record->word, &word, claim)) {
				pool->record = i;
				pool->record_generation = generation;
				recover_record(pool, i, generation);
				uint64_t live = record_make(RECORD_LIVE, generation + 1, 0, 0);
				if (atomic_compare_exchange_strong(&record->word, &claim, live)) {
					atomic_fetch_add_explicit(&pool->header->recovered, 1, memory_order_relaxed);
					pool->record_generation = (generation + 1) & RECORD_GENERATIONS;
					recover_leftovers(pool, i, generation);
					return true;
				}
			}
		}
	}
	os_byte_unlock(fd, i);
	return false;
}

int record_join(hp_pool *pool)
{
	pool->pid = os_pid();
	if (pool->private) {
		/* The only one; its generation counts the forks that led to this process. */
		atomic_store(&pool->records[0].word, record_make(RECORD_LIVE, pool->record_generation, 0, 0));
		atomic_store_explicit(&pool->records[0].pid, (uint32_t)pool->pid, memory_order_relaxed);
		return 0;
	}
	if (!pool_fd_intact(&pool->lives)) {
		pool_log(pool,
		         "hugepool: the descriptor of the pool's lives file was closed; a forked process needs it to "
		         "join: keep descriptors %d, %d, %d open, or attach before closing",
		         pool->lives.fd, pool->control_fd.fd, pool->data_fd.fd);
		return -EBADF;
	}
	int fd = os_reopen(pool->lives.fd, O_RDWR | O_NONBLOCK); /* who has a lease on it is not waited for, either */
	if (fd < 0) return fd;
	void *life;
	int error = os_map(NULL, HP_PAGE_SIZE, PROT_NONE, 0, fd, 0, &life);
	if (error == 0 && (error = os_advise(life, HP_PAGE_SIZE, MADV_DONTFORK)) < 0) os_unmap(life, HP_PAGE_SIZE);
	if (error == 0) {
		error = -EUSERS;
		uint32_t first = (uint32_t)os_pid() % pool->record_count;
		for (int dead_too = 0; dead_too <= 1 && error; dead_too++)
			for (uint32_t k = 0; k < pool->record_count && error; k++)
				if (record_claim(pool, (first + k) % pool->record_count, fd, dead_too)) error = 0;
		if (error == 0) {
			pool->life = life;
			record_describe(&pool->records[pool->record]);
		} else {
			os_unmap(life, HP_PAGE_SIZE);
		}
	}
	os_close(fd); /* the mapping keeps the description, and with it the lock */
	return error;
}

void record_leave(hp_pool *pool)
{
	if (pool->private) return; /* it all ends with the handle */
	struct pool_record *record = &pool->records[pool->record];
	uint64_t word = record_make(RECORD_LIVE, pool->record_generation, 0, 0);
	uint64_t claim = record_make(RECORD_RECOVERING, pool->record_generation, pool->record + 1, pool->record_generation);
	if (atomic_compare_exchange_strong(&record->word, &word, claim)) {
		recover_record(pool, pool->record, pool->record_generation);
		atomic_store_explicit(&record->word, record_make(RECORD_FREE, pool->record_generation + 1, 0, 0),
		                      memory_order_release);
	}
	if (pool->life) os_unmap(pool->life, HP_PAGE_SIZE);
	pool->life = NULL;
}

int record_trust(const hp_pool *pool)
{
	if (pool->joined != participant_fork_generation()) return -ESRCH;
	if (pool->private) return 0;
	if (!pool_fd_intact(&pool->lives)) return -EBADF;
	int held = os_byte_held(pool->lives.fd, pool->record);
	return held < 0 ? held : held ? 0 : -EBADF;
}

int record_alive(const hp_pool *pool, uint32_t record)
{
	if (pool->private) return record == pool->record;
	int held = os_byte_held(pool->lives.fd, record);
	if (held == 0 && record_trust(pool) < 0) return -EBADF;
	return held;
}

bool record_is_over(const hp_pool *pool, uint32_t record, uint32_t generation)
{
	if (record >= pool->record_count) return true;
	uint64_t word = atomic_load_explicit(&pool->records[record].word, memory_order_acquire);
	return record_generation(word) != (generation & RECORD_GENERATIONS);
}
