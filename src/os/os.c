/* The hook that stands between the library and the kernel, and the names of the calls for messages and tests. */
#include <os/os.h>

os_hook_fn *os_hook;

static const char *const names[OS_CALLS] = {
	[OS_MEMFD_CREATE] = "memfd_create",
	[OS_FTRUNCATE] = "ftruncate",
	[OS_PUNCH] = "punch",
	[OS_SEAL] = "seal",
	[OS_SEALS] = "seals",
	[OS_FCHMOD] = "fchmod",
	[OS_FSTAT] = "fstat",
	[OS_BLOCK_SIZE] = "block_size",
	[OS_MAP] = "map",
	[OS_UNMAP] = "unmap",
	[OS_PROTECT] = "protect",
	[OS_ADVISE] = "advise",
	[OS_LOCK_MEMORY] = "lock_memory",
	[OS_MBIND] = "mbind",
	[OS_MOVE_PAGES] = "move_pages",
	[OS_MEMPOLICY] = "mempolicy",
	[OS_AFFINITY_GET] = "affinity",
	[OS_AFFINITY_SET] = "set_affinity",
	[OS_OPEN] = "open",
	[OS_CLOSE] = "close",
	[OS_DUP] = "dup",
	[OS_CLOEXEC] = "cloexec",
	[OS_PREAD] = "pread",
	[OS_BYTE_LOCK] = "byte_lock",
	[OS_BYTE_HELD] = "byte_held",
	[OS_MEMBARRIER] = "membarrier",
	[OS_FUTEX_WAIT] = "futex_wait",
	[OS_FUTEX_WAKE] = "futex_wake",
	[OS_SEND] = "send_fds",
	[OS_RECV] = "recv_fds",
	[OS_THREAD] = "thread",
	[OS_READ_FILE] = "read_file",
	[OS_RANDOM] = "random",
	[OS_ALLOCATE] = "allocate",
	[OS_CPU] = "cpu",
	[OS_THREAD_EXISTS] = "thread_exists",
	[OS_EVENT] = "event",
	[OS_READ] = "read",
	[OS_WRITE] = "write",
	[OS_SOCKET] = "socket",
	[OS_POLL] = "poll",
	[OS_UNLINK] = "unlink",
	[OS_SOCKET_OPTION] = "socket_option",
	[OS_BIND] = "bind",
	[OS_INTERFACE] = "interface",
	[OS_BPF] = "bpf",
	[OS_READ_AT] = "read_at",
	[OS_WRITE_AT] = "write_at",
	[OS_FSYNC] = "fsync",
	[OS_URING_SETUP] = "uring_setup",
	[OS_URING_REGISTER] = "uring_register",
	[OS_URING_ENTER] = "uring_enter",
};

const char *os_call_name(enum os_call call)
{
	return (unsigned)call < OS_CALLS && names[call] ? names[call] : "?";
}
