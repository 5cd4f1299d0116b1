/* What creating, growing and trimming share. */
#ifndef HUGEPOOL_CREATE_H
#define HUGEPOOL_CREATE_H

#include "pool/participant.h"

uint32_t growth_group(const hp_pool *pool); /* chunks a page of the backing holds, at least 1 */
uint32_t growth_left(const hp_pool *pool);  /* chunks that are not committed */
void growth_publish_first(hp_pool *pool, uint32_t to);
void growth_plan_trim(hp_pool *pool, uint32_t from, uint32_t to);
void growth_plan_clear(hp_pool *pool);

int background_start(hp_pool *pool, uint64_t bytes, unsigned threads);
void background_stop(hp_pool *pool);

/* create.c, for both kinds of pools: what does not depend on the memory; and the report's lines to the log. */
int create_geometry(const struct hp_pool_options *o, struct pool_geometry *g, uint64_t *size, uint64_t *capacity);
void create_say(const struct hp_pool_options *o, const struct hp_report *report);

/* private.c */
int private_create(const struct hp_pool_options *o, hp_pool **out);
/* A private pool on `pages` of the caller's memory, whose chunks have at least `least` pages. Of the options only the name,
 * the log and max_threads count. */
int private_create_lent(const struct hp_pool_options *o, void *start, uint64_t pages, uint32_t least, hp_pool **out);
/* The same pool on other memory, or (NULL) on none: nothing may be allocated, and no call may be going on. */
void private_move_lent(hp_pool *pool, void *start);
hp_pool *private_handle(void); /* zeroed memory for one, not from malloc */
void private_follow_fork(hp_pool *pool);

/* Finishes a handle whose control and data are mapped: joins as a process. Frees nothing on failure. */
int pool_join(hp_pool *pool);
void pool_close(hp_pool *pool);

#endif
