/* Descriptors of strangers. To close a file of a user's own file system (FUSE) means to ask that system's server, which may
 * not answer, and then the caller waits where no signal reaches it. So a thread does it. Memfds, which is
 * all that honest clients send, are closed on the spot.
 *
 * How many threads that can be is bounded by who sends: until it is over, its user publishes nothing else (server.c). */
#include "keep/server.h"
#include "os/os.h"

static void *close_all(void *arg)
{
	struct foreign *foreign = arg;
	for (unsigned i = 0; i < foreign->count; i++) os_close(foreign->fds[i]);
	int event = foreign->event;
	atomic_store(&foreign->over, true); /* freed from here on */
	os_event_signal(event);
	return NULL;
}

bool foreign_close(struct foreign *foreign)
{
	if (foreign->started) {
		if (!atomic_load(&foreign->over)) return false;
		os_join(foreign->thread);
		return true;
	}
	unsigned count = 0;
	for (unsigned i = 0; i < foreign->count; i++) {
		if (os_seals(foreign->fds[i]) >= 0)
			os_close(foreign->fds[i]);
		else
			foreign->fds[count++] = foreign->fds[i];
	}
	foreign->count = count;
	if (count == 0) return true;
	foreign->started = os_thread(close_all, foreign, &foreign->thread) == 0; /* else tried again */
	return false;
}
