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

int os_uring_enter(int fd, unsigned submit, unsigned wait, unsigned flags, const void *arg, size_t bytes)
{
	OS_ASK(OS_URING_ENTER);
	return os_result(syscall(SYS_io_uring_enter, fd, submit, wait, flags, arg, bytes));
}
