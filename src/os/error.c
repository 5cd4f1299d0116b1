/* Standard error: for the explicit debug modes only, when nobody has given a log. */
#include "os/os.h"
#include <errno.h>
#include <unistd.h>

void os_write_error(const char *text, size_t bytes)
{
	int before = errno;
	while (bytes) {
		ssize_t done = write(STDERR_FILENO, text, bytes);
		if (done < 0 && errno == EINTR) continue;
		if (done <= 0) break; /* nobody to tell */
		text += done;
		bytes -= (size_t)done;
	}
	errno = before;
}
