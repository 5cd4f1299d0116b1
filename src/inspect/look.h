/* A shared heap as it reads from outside: private copies of its entry, types and slabs, taken once. What is walked later is
 * bounded by these copies, whatever the memory says meanwhile. */
#ifndef HUGEPOOL_INSPECT_LOOK_H
#define HUGEPOOL_INSPECT_LOOK_H

#include "heap/heap.h"
#include "heap/layout.h"
#include "inspect/inspect.h"
#include <string.h>

#define LOOK_BUFFER 65536u

struct look_type {
	struct heap_type_shape shape;
	uint32_t list[HEAP_CLASSES];
	uint32_t name; /* its hash */
	bool sound;
	uint64_t values, bytes, reached; /* of slabs in the table */
};

struct look_slab {
	uint64_t page, size;
	uint64_t first; /* its bit 0 in `reached` */
	uint32_t pages, objects, reciprocal;
	uint16_t type, class;
	uint8_t colour; /* where its descriptor lies */
};

struct look {
	const hp_pool *pool;
	struct heap_entry *entry;
	uint32_t index;
	uint64_t id, tag; /* the upper 16 bits of references */
	uint32_t writer;  /* the lock is ours, and this its word; 0: it is not */
	bool readable;    /* the data file */
	/* the entry */
	uint64_t word, root, phase, log_n, version, number, run, cycle, pages;
	uint32_t lock, types;
	/* types, slabs by place, and a bit for every object */
	struct look_type *type;
	struct look_slab *slab;
	size_t slabs, room;
	uint64_t *reached, objects;
	uint64_t *runs; /* a bit for each page at which a run of the heap begins */
	unsigned char *buffer;
	/* Hears what is wrong; may be NULL. word: what names it. */
	void (*wrong)(struct look *look, enum hp_heap_wrong code, uint64_t page, uint64_t word, const char *format, ...)
		__attribute__((format(printf, 5, 6)));
	int error; /* -EIO, -ENOMEM: nothing that was seen counts */
};

/* Its values can be looked at: for readers ENDING is LIVE. */
static inline bool look_is_there(uint64_t word)
{
	return heap_state(word) == HEAP_LIVE || heap_state(word) == HEAP_ENDING;
}

/* Fills it in from what is set: pool, index, writer, wrong. False: there is no heap that could be looked at, or error. */
bool look_begin(struct look *look);
void look_end(struct look *look);

/* The entry has not changed since, and nobody wrote: what was seen was of one moment. */
bool look_is_calm(const struct look *look);
static inline bool look_is_free(const struct look *look)
{
	return look->lock == 0 || look->lock == look->writer;
}

/* Bytes of the data at an offset: where they are mapped and nobody gives them back, otherwise a copy of them in `buffer`, up
 * to LOOK_BUFFER. NULL: error is set. */
const void *look_at(struct look *look, uint64_t off, size_t bytes, void *buffer);

/* The slab whose live value a reference names, and which it is; NULL, and why not in *why. */
struct look_slab *look_find(const struct look *look, uint64_t word, uint32_t *object, const char **why);
/* The slab that an offset lies in, or NULL. */
struct look_slab *look_slab_of(const struct look *look, uint64_t off);

static inline struct heap_slab *look_descriptor(const struct look *look, const struct look_slab *slab)
{
	return heap_slab_coloured(look->pool, slab->page, slab->colour);
}
static inline uint64_t look_offset(const struct look_slab *slab, uint32_t object)
{
	return slab->page * HP_PAGE_SIZE + object * slab->size;
}
static inline bool look_lives(const struct look *look, const struct look_slab *slab, uint32_t object)
{
	return heap_load_a(&look_descriptor(look, slab)->bits[object / 64]) >> (object % 64) & 1;
}
static inline bool look_is_string(const struct look_type *type)
{
	return type->shape.element == 1 && !strcmp(type->shape.name, "hp_string_type");
}

/* Why the run at a page, named by `page + 1`, is not the heap's; NULL: it is, and it has *pages. */
const char *look_run(const struct look *look, uint64_t page1, uint8_t kind, uint64_t *pages);

/* The descriptor of the slab at a page that has so many, and its colour; NULL: it would lie beyond those pages' places. */
struct heap_slab *look_descriptor_at(const hp_pool *pool, uint64_t page, uint64_t pages, uint8_t *colour);

/* Calls `each` for every reference member of a value, with where it stands in the value, what it says, what its target is
 * called (hash; 0: anything), and which element it is of (-1: none). Each word is read once. Ends at a value other than 0. */
typedef int look_member_fn(void *arg, uint64_t offset, uint64_t word, uint32_t target, int64_t element);
int look_members(struct look *look, const struct look_slab *slab, uint32_t object, look_member_fn *each, void *arg);
/* How many elements the value says that it has; 0 for types without. */
uint32_t look_count(struct look *look, const struct look_slab *slab, uint32_t object);

/* A run of type HEAP that no heap names, and none has in hand: why; otherwise NULL. `named`: a hint, pages ascending. */
struct look_names {
	uint64_t *page;
	size_t count;
};
int look_names(const hp_pool *pool, struct look_names *names);
const char *look_lost(const hp_pool *pool, const struct look_names *names, uint64_t page, uint64_t pages);

/* ---- heap_check.c ---- */

#define HEAP_FINDINGS 1000u

struct heap_kept {
	struct hp_heap_finding finding;
	char text[192];
	bool still; /* counts only if nobody wrote meanwhile */
};

struct heap_check {
	struct look look; /* first: what hears of it is found by it */
	unsigned flags;
	bool structure; /* only the heap's own bookkeeping */
	bool still;     /* what is found from here on */
	bool broken;    /* the heap's own bookkeeping is wrong */
	struct heap_kept *kept;
	unsigned count;
	uint64_t *stack, top; /* {slab:32, object:32} of what is reached and not looked at yet */
	struct heap_audit *audit;
};

/* What an index of the table of heaps has, looked at up to some times until nothing stays wrong: how many findings are in
 * kept, or -errno. writer: the lock's word, when it is ours. */
int heap_check_run(struct heap_check *check, const hp_pool *pool, uint32_t index, uint32_t writer);
void heap_check_end(struct heap_check *check);

__attribute__((format(printf, 7, 8))) void heap_check_value(struct heap_check *check, enum hp_heap_wrong code,
                                                            const struct look_slab *slab, uint32_t object,
                                                            uint64_t offset, uint64_t word, const char *format, ...);

/* ---- heap_audit.c ---- */

/* One value's words that are no members; then all that was counted. */
void heap_audit_value(struct heap_check *check, const struct look_slab *slab, uint32_t object);
void heap_audit_report(struct heap_check *check);
void heap_audit_free(struct heap_check *check);
/* Values that exist, and were not reached. */
void heap_audit_leaks(struct heap_check *check);

#endif
