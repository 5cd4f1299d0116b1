/* The only caller of the kernel.
 *
 * Every system call of the library is one of these functions. They return -errno, never set errno on purpose, retry
 * EINTR where nothing else makes sense, and can each be made to fail: `os_hook`, when set, is asked before every call
 * and may answer instead of the kernel. Tests use it to inject every failure at every call (os_hook is process-wide
 * and not thread-safe to change). */
#ifndef HUGEPOOL_OS_H
#define HUGEPOOL_OS_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

enum os_call {
	OS_MEMFD_CREATE,
	OS_FTRUNCATE,
	OS_PUNCH,
	OS_SEAL,
	OS_SEALS,
	OS_FCHMOD,
	OS_FSTAT,
	OS_BLOCK_SIZE,
	OS_MAP,
	OS_UNMAP,
	OS_PROTECT,
	OS_ADVISE,
	OS_LOCK_MEMORY,
	OS_MBIND,
	OS_MOVE_PAGES,
	OS_MEMPOLICY,
	OS_AFFINITY_GET,
	OS_AFFINITY_SET,
	OS_OPEN,
	OS_CLOSE,
	OS_DUP,
	OS_CLOEXEC,
	OS_PREAD,
	OS_BYTE_LOCK,
	OS_BYTE_HELD,
	OS_MEMBARRIER,
	OS_FUTEX_WAIT,
	OS_FUTEX_WAKE,
	OS_SEND,
	OS_RECV,
	OS_THREAD,
	OS_READ_FILE,
	OS_RANDOM,
	OS_ALLOCATE,
	OS_CPU,
	OS_THREAD_EXISTS,
	OS_EVENT,
	OS_READ,
	OS_WRITE,
	OS_SOCKET,
	OS_POLL,
	OS_UNLINK,
	OS_SOCKET_OPTION,
	OS_BIND,
	OS_INTERFACE,
	OS_BPF,
	OS_READ_AT,
	OS_WRITE_AT,
	OS_FSYNC,
	OS_URING_SETUP,
	OS_URING_REGISTER,
	OS_URING_ENTER,
	OS_CALLS
};

/* Answers a call instead of the kernel when it returns true, with *result (0 or more, or -errno). A descriptor that
 * os_close is told to fail on is closed all the same, as the kernel does. */
typedef bool os_hook_fn(enum os_call call, int64_t *result);
extern os_hook_fn *os_hook;
const char *os_call_name(enum os_call call);

/* Files. */
int os_memfd_create(const char *name, unsigned huge_shift, int *fd); /* sealable, cloexec, noexec where the kernel can;
                                                                         huge_shift 0 or log2 of the huge page size */
int os_ftruncate(int fd, uint64_t size);
int os_punch(int fd, uint64_t from, uint64_t bytes);    /* gives pages back: FALLOC_FL_PUNCH_HOLE|KEEP_SIZE */
int os_allocate(int fd, uint64_t from, uint64_t bytes); /* fallocate; on -ENOSPC it keeps what it took */
int os_seal(int fd, int seals);
int os_seals(int fd); /* F_GET_SEALS, or -errno */
int os_fchmod(int fd, mode_t mode);
int os_fstat(int fd, struct stat *st);
int64_t os_block_size(int fd);            /* fstatfs f_bsize, only for tmpfs and hugetlbfs; others -EINVAL */
int os_open(const char *path, int flags); /* close-on-exec */
int os_reopen(int fd, int flags);         /* a fresh description of the same file, through /proc */
int os_close(int fd);
int os_dup(int fd); /* close-on-exec, at 3 or above */
int os_cloexec(int fd, bool on);
int os_event(void);          /* an eventfd, close-on-exec and non-blocking, or -errno */
int os_event_signal(int fd); /* adds 1; same hook id */
int64_t os_pread(int fd, void *buf, size_t bytes, uint64_t at);
int64_t os_read(int fd, void *buf, size_t bytes);
int64_t os_write(int fd, const void *buf, size_t bytes);        /* SIGPIPE as the system call gives it */
int64_t os_read_file(const char *path, char *buf, size_t size); /* whole small file, 0-terminated,
                                                                 trailing \n cut; -EFBIG if it does not fit */

/* Byte locks of open file descriptions (write locks). */
int os_byte_lock(int fd, uint64_t byte);   /* 0, -EAGAIN when another description holds it */
int os_byte_unlock(int fd, uint64_t byte); /* same hook id as os_byte_lock */
int os_byte_held(int fd, uint64_t byte);   /* 1, 0 or -errno */

/* Memory. */
#define OS_MAP_NORESERVE 1u
#define OS_MAP_PRIVATE_ANON 2u /* fd is ignored */
#define OS_MAP_FIXED 4u        /* over our own reservation */
#define OS_MAP_AT 8u           /* exactly at hint or -EEXIST (MAP_FIXED_NOREPLACE, checked on kernels without it) */
#define OS_MAP_HUGE_2M 16u /* private anonymous memory on huge pages; reserved, so that a shortage is -ENOMEM here */
#define OS_MAP_HUGE_1G 32u
#define OS_MAP_PRIVATE 64u /* of a file: copied when it is written to */
int os_map(void *hint, size_t bytes, int prot, unsigned os_map_flags, int fd, uint64_t at, void **addr);
int os_unmap(void *addr, size_t bytes);
int os_remap(void *from, size_t bytes, void *to); /* moves a mapping over another one of ours; hook id OS_MAP */
int os_protect(void *addr, size_t bytes, int prot);
int os_advise(void *addr, size_t bytes, int advice);
int os_lock_memory(void *addr, size_t bytes);
int os_lock_on_fault(void *addr, size_t bytes); /* pages are locked as they come; same hook id */
int os_unlock_memory(void *addr, size_t bytes); /* same hook id */
int os_mbind(void *addr, size_t bytes, int mode, uint64_t nodes, bool move);
int os_move_pages(unsigned long count, void **pages, int *status); /* query: status[i] node or -errno */
size_t os_page_size(void);
uint64_t os_memory_total(void);        /* of this machine, bytes; 0 where the kernel does not say */
uint64_t os_address_space_limit(void); /* RLIMIT_AS in bytes, or UINT64_MAX */

/* CPUs and nodes. */
int os_cpu(void);                /* current, or -errno */
int os_node(void);               /* of the current CPU; 0 where the kernel cannot say */
int os_affinity(cpu_set_t *set); /* of the calling thread */
int os_set_affinity(const cpu_set_t *set);
int os_node_of_cpu(int cpu);                /* -1: unknown */
int os_node_cpus(int node, cpu_set_t *set); /* may be empty; -errno where the kernel does not say */
uint64_t os_nodes_with_memory(void);        /* bit mask, at least 1 */
int os_node_distance(int a, int b);         /* 10: same; 20 when unknown */

/* Waiting, order, threads, time. */
int os_membarrier_register(void); /* GLOBAL_EXPEDITED */
int os_membarrier(void);          /* makes every registered process pass a full barrier */
int os_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t ns); /* 0, -EAGAIN, -ETIMEDOUT, -EINTR; shared */
int os_futex_wake(_Atomic uint32_t *word, int count);
int os_thread(void *(*run)(void *), void *arg, unsigned long *thread); /* pthread_create, all signals blocked in
                                                                            the new thread */
int os_join(unsigned long thread);
uint64_t os_now_ns(void); /* monotonic */
int os_tid(void);
int os_pid(void);
bool os_thread_exists(int pid, int tid); /* tgkill 0; errs on the side of true */
int os_random(void *buf, size_t bytes);

/* Signals of the calling thread; `saved` is a sigset_t in room enough. */
void os_signals_block(void *saved);
void os_signals_restore(const void *saved);
void os_yield(void);
void os_write_error(const char *text, size_t bytes); /* to standard error; errno stays */
int os_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

/* Sockets. The kernel's return value, or -errno. */
int64_t os_send(int socket, const void *buf, size_t bytes, int flags); /* never SIGPIPE, but -EPIPE */
int64_t os_recv(int socket, void *buf, size_t bytes, int flags);
/* The same with descriptors; same hook ids. */
int64_t os_send_fds(int socket, const void *msg, size_t bytes, const int *fds, unsigned count);
int64_t os_recv_fds(int socket, void *msg, size_t bytes, int *fds, unsigned max, unsigned *count); /* cloexec; a message
                                      with more descriptors, or truncated, closes what came and gives -EPROTO */
#endif
