/* One keeper a path. The lock file beside the socket decides: its byte is locked as long as the keeper lives, however it ends,
 * so whoever gets the lock may take away the socket that a dead one has left. Connecting to find out would leave a moment
 * in which two take away each other's.
 *
 * Who leaves removes the lock file under the lock; therefore who gets the lock of a file looks whether the path still names
 * that file, and otherwise begins anew. */
#include "keep/server.h"
#include "os/os.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static int lock_take(struct place *place)
{
	for (;;) {
		int fd = os_open(place->lock_path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0) return fd;
		struct stat ours, there;
		int error = os_byte_lock(fd, 0);
		if (error == 0) error = os_fstat(fd, &ours);
		if (error == 0 && (error = os_lstat(place->lock_path, &there)) == 0 && ours.st_ino == there.st_ino &&
		    ours.st_dev == there.st_dev) {
			place->lock = fd;
			return 0;
		}
		os_close(fd);
		if (error < 0 && error != -ENOENT) return error == -EAGAIN ? -EADDRINUSE : error;
	}
}

int place_take(struct place *place)
{
	struct stat there;
	place->socket = place->lock = -1;
	snprintf(place->lock_path, sizeof place->lock_path, "%s.lock", place->path);
	int error = lock_take(place);
	if (error < 0) return error;
	error = os_lstat(place->path, &there);
	if (error == 0) error = S_ISSOCK(there.st_mode) ? os_unlink(place->path) : -ENOTSOCK;
	if (error == 0 || error == -ENOENT) {
		place->socket = os_unix_socket();
		/* commit: bind. A keeper that dies after it leaves a path that the next one takes over */
		error = place->socket < 0 ? place->socket : os_unix_listen(place->socket, place->path);
	}
	if (error == 0) return 0;
	if (place->socket >= 0) os_close(place->socket);
	os_unlink(place->lock_path);
	os_close(place->lock);
	return error;
}

void place_leave(struct place *place)
{
	os_unlink(place->path);
	os_close(place->socket);
	os_unlink(place->lock_path);
	os_close(place->lock);
}
