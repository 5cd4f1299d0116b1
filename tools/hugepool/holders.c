/* hugepool show --holders: blocks and bytes by process and caller, as the debug mode "caller" has noted them. */
#include "holders.h"
#include "symbol.h"

#include <errno.h>
#include <hugepool/debug.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* The holders, to be freed, and how many, or -errno. A pool at work may have more the next time. */
static int holders(hp_pool *pool, struct hp_holder **list)
{
	int room = 0, count;
	*list = NULL;
	for (;;) {
		count = hp_pool_holders(pool, *list, (unsigned)room);
		if (count <= room) return count;
		free(*list);
		room = count + count / 4 + 16;
		*list = calloc((size_t)room, sizeof(**list));
		if (!*list) return -ENOMEM;
	}
}

static void name(const struct hp_holder *holder, char *text, size_t size)
{
	if (holder->pid)
		symbol_name(holder->pid, holder->caller, text, size);
	else
		snprintf(text, size, "(no tag)");
}

int holders_text(hp_pool *pool)
{
	struct hp_holder *list;
	char text[256];
	int count = holders(pool, &list);
	if (count >= 0)
		printf("  holders        %d%s\n", count,
		       count ? "" : "; blocks are tagged in processes with HUGEPOOL_DEBUG=caller");
	for (int i = 0; i < count; i++) {
		name(&list[i], text, sizeof(text));
		printf("    %10" PRIu64 " blocks %14" PRIu64 " bytes", list[i].blocks, list[i].bytes);
		if (list[i].pid) printf("  process %d", list[i].pid);
		if (list[i].tid) printf(" thread %d", list[i].tid);
		printf("  %s\n", text);
	}
	free(list);
	return count < 0 ? count : 0;
}

json_t *holders_json(hp_pool *pool)
{
	struct hp_holder *list;
	char text[256];
	int count = holders(pool, &list);
	json_t *array = count < 0 ? NULL : json_array();
	for (int i = 0; i < count; i++) {
		name(&list[i], text, sizeof(text));
		json_array_append_new(array, json_pack("{s:i, s:i, s:I, s:s, s:I, s:I}", "pid", list[i].pid, "tid", list[i].tid,
		                                       "address", (json_int_t)list[i].caller, "caller", text, "blocks",
		                                       (json_int_t)list[i].blocks, "bytes", (json_int_t)list[i].bytes));
	}
	free(list);
	return array;
}
