/* io_uring's three system calls: liburing's own cannot be made to fail by a test. */
#include <os/hook.h>
#include <os/io.h>
#include <sys/syscall.h>
#include <unistd.h>

int os_uring_setup(unsigned entries, struct io_uring_params *params)
{
	OS_ASK(OS_URING_SETUP);
	return os_result(syscall(SYS_io_uring_setup, entries, params));
}

int os_uring_register(int fd, unsigned op, const void *arg, unsigned count)
{
	OS_ASK(OS_URING_REGISTER);
	return os_result(syscall(SYS_io_uring_register, fd, op, arg, count));
}

/* Behind the kernel's deep calls the processor has forgotten where ours return to, so each that is spared counts. */
static inline int enter(long fd, long submit, long wait, long flags, const void *arg, size_t bytes)
{
#ifdef __x86_64__
	long result;
	register long r10 __asm__("r10") = flags;
	register const void *r8 __asm__("r8") = arg;
	register size_t r9 __asm__("r9") = bytes;
	__asm__ volatile("syscall"
	                 : "=a"(result)
	                 : "a"((long)SYS_io_uring_enter), "D"(fd), "S"(submit), "d"(wait), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	return (int)result;
#else
	return os_result(syscall(SYS_io_uring_enter, fd, submit, wait, flags, arg, bytes));
#endif
}

int os_uring_enter(int fd, unsigned submit, unsigned wait, unsigned flags, const void *arg, size_t bytes)
{
	OS_ASK(OS_URING_ENTER);
	return enter(fd, submit, wait, flags, arg, bytes);
}
