/* Owners: who has the memory that views of hp_buf_alloc_pages and the like show.
 *
 * word = {generation:32, sub-views alive:32}. An owner is never given back to malloc, but kept for the next mapping with its
 * generation counted up, so whatever a stale copy of a view asks is -ESTALE and never touches another's mapping. */
#ifndef HUGEPOOL_BUF_INTERNAL_H
#define HUGEPOOL_BUF_INTERNAL_H

#include <stdatomic.h>
#include <hugepool/buf.h>

enum buf_kind {
	BUF_PAGES,   /* private, anonymous */
	BUF_FILE,    /* mapped */
	BUF_ALIGNED, /* libc's */
};

#define BUF_CLOSING UINT32_MAX /* for the count: being unmapped */

struct hp_buf_owner {
	_Atomic uint64_t word;
	enum buf_kind kind;
	char *start; /* to be given back: whole pages */
	size_t bytes;
	struct hp_buf_owner *next; /* of those without memory */
};

/* An owner for the memory, and a view of `len` bytes of it from `lead` on. -ENOMEM. */
int buf_own(enum buf_kind kind, char *start, size_t bytes, size_t lead, size_t len, hp_buf *buf);

#endif
