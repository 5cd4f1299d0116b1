/* Plain system calls on buffers: the range is checked, and the kernel does the rest. */
#include "io/buf.h"
#include "os/os.h"

int64_t hp_buf_read(int fd, hp_buf buf, size_t off, size_t len)
{
	return hp_buf_holds(buf, off, len) ? os_read(fd, buf.start + off, len) : -EINVAL;
}

int64_t hp_buf_write(int fd, hp_buf buf, size_t off, size_t len)
{
	return hp_buf_holds(buf, off, len) ? os_write(fd, buf.start + off, len) : -EINVAL;
}

int64_t hp_buf_recv(int socket, hp_buf buf, size_t off, size_t len, int flags)
{
	return hp_buf_holds(buf, off, len) ? os_recv(socket, buf.start + off, len, flags) : -EINVAL;
}

int64_t hp_buf_send(int socket, hp_buf buf, size_t off, size_t len, int flags)
{
	return hp_buf_holds(buf, off, len) ? os_send(socket, buf.start + off, len, flags) : -EINVAL;
}
