/* Passing a pool on: over a unix socket, and across exec through the environment. */
#include "pool/pass.h"
#include "os/os.h"
#include <hugepool/inspect.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_VARIABLE "HUGEPOOL_POOL"

struct pass_message {
	uint64_t magic;
	uint32_t version, reserved;
	uint64_t id[2];
};

int pool_passable(const hp_pool *pool, int fds[3])
{
	if (!pool) return -EINVAL;
	if (pool->private) return -ENOTSUP;
	if (pool->observer) return -EROFS;
	if (!pool_fd_intact(&pool->lives) || !pool_fd_intact(&pool->control_fd) || !pool_fd_intact(&pool->data_fd))
		return -EBADF;
	return hp_pool_fds(pool, fds);
}

int pool_adopt(const int fds[3], const uint64_t id[2], const struct hp_attach_options *options, bool observe,
               hp_pool **out)
{
	int error = observe ? hp_pool_observe(fds, out) : hp_pool_attach(fds, options, out);
	if (error == 0 && memcmp(id, (*out)->geometry.id, sizeof(*out)->geometry.id)) {
		hp_pool_detach(*out);
		*out = NULL;
		error = -EPROTO;
	}
	return error;
}

int hp_pool_send(const hp_pool *pool, int socket)
{
	int fds[3], error = pool_passable(pool, fds);
	if (error < 0) return error;
	struct pass_message message = {
		.magic = POOL_MAGIC, .version = POOL_LAYOUT_VERSION, .id = {pool->geometry.id[0], pool->geometry.id[1]}};
	int64_t sent = os_send_fds(socket, &message, sizeof message, fds, 3);
	return sent < 0 ? (int)sent : sent == sizeof message ? 0 : -EMSGSIZE;
}

int hp_pool_receive(int socket, const struct hp_attach_options *options, hp_pool **out)
{
	if (!out) return -EINVAL;
	*out = NULL;
	struct pass_message message = {0};
	int fds[3] = {-1, -1, -1};
	unsigned count = 0;
	int64_t got = os_recv_fds(socket, &message, sizeof message, fds, 3, &count);
	int error = got < 0 ? (int)got : got == 0 && count == 0 ? -EPIPE : -EPROTO;
	if (got == sizeof message && message.magic == POOL_MAGIC && message.version == POOL_LAYOUT_VERSION && count == 3)
		error = pool_adopt(fds, message.id, options, false, out);
	for (unsigned i = 0; i < count && i < 3; i++) os_close(fds[i]);
	return error;
}

int hp_pool_export_env(hp_pool *pool, const char *variable)
{
	if (!pool) return -EINVAL;
	if (pool->private) return -ENOTSUP;
	if (pool->observer) return -EROFS;
	const struct pool_fd *note[] = {&pool->lives, &pool->control_fd, &pool->data_fd};
	for (int i = 0; i < 3; i++) {
		struct pool_fd before = {.fd = pool->exported[i], .dev = note[i]->dev, .ino = note[i]->ino};
		if (pool_fd_intact(&before)) continue;
		if (!pool_fd_intact(note[i])) return -EBADF;
		int fd = os_dup(note[i]->fd);
		if (fd < 0) return fd;
		int error = os_cloexec(fd, false);
		if (error < 0) {
			os_close(fd);
			return error;
		}
		pool->exported[i] = fd;
	}
	char value[64];
	snprintf(value, sizeof value, "%d,%d,%d", pool->exported[0], pool->exported[1], pool->exported[2]);
	return setenv(variable ? variable : DEFAULT_VARIABLE, value, 1) ? -errno : 0;
}

int hp_pool_from_env(const char *variable, const struct hp_attach_options *options, hp_pool **out)
{
	if (!out) return -EINVAL;
	*out = NULL;
	const char *value = getenv(variable ? variable : DEFAULT_VARIABLE);
	if (!value) return -ENOENT;
	int fds[3], end = 0;
	if (sscanf(value, "%d,%d,%d%n", &fds[0], &fds[1], &fds[2], &end) != 3 || value[end]) return -EINVAL;
	for (int i = 0; i < 3; i++) {
		int error = fds[i] < 0 ? -EBADF : os_cloexec(fds[i], true);
		if (error < 0) return error;
	}
	return hp_pool_attach(fds, options, out);
}
