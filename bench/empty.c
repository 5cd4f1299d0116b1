/* Two functions that do nothing, in a shared library as the measured ones are: what calling there costs (floor.cc). */
#include <stddef.h>

void *bench_empty_alloc(size_t size);
void bench_empty_free(void *block);

void *bench_empty_alloc(size_t size)
{
	return (void *)size;
}

void bench_empty_free(void *block)
{
	(void)block;
}
