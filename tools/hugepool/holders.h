/* hugepool show --holders: who holds what. */
#ifndef HUGEPOOL_TOOL_HOLDERS_H
#define HUGEPOOL_TOOL_HOLDERS_H

#include <hugepool/hugepool.h>
#include <jansson.h>

int holders_text(hp_pool *pool);     /* 0 or -errno */
json_t *holders_json(hp_pool *pool); /* an array; NULL: short of memory */

#endif
