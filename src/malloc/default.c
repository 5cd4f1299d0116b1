/* The default pool of the process. */
#include <hugepool/malloc.h>
#include <errno.h>

hp_pool *hp_pool_default(void)
{
	errno = ENOSYS;
	return NULL;
}
