/* The default pool, as the malloc replacement needs it: without waiting, and with a voice. */
#ifndef HUGEPOOL_DEFAULT_H
#define HUGEPOOL_DEFAULT_H

#include <hugepool/malloc.h>

/* The default pool, made when it is not there yet. NULL with errno: EAGAIN while another thread, or what this call
 * interrupted, is making it. `say` NULL: what the environment asks for and cannot be had is an error; otherwise it is said
 * in one line, and the pool is made without it. */
hp_pool *default_pool_try(void (*say)(const char *line));

#endif
