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

/* Finishes a handle whose control and data are mapped: joins as a process. Frees nothing on failure. */
int pool_join(hp_pool *pool);
void pool_close(hp_pool *pool);

#endif
