/* Taking a heap's private copies. The lists of slabs are followed once, and no run twice, so that they end however they
 * lead; a slab is taken into the table only if it is cut as its type says, and its bits lie in the descriptors of its own
 * pages: from then on nothing reads beyond them. Data is read by pread where its pages may go at any time. */
#include "inspect/look.h"
#include "os/os.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SAY(look, ...) \
	do { \
		if ((look)->wrong) (look)->wrong(look, __VA_ARGS__); \
	} while (0)

static uint64_t pool_pages(const struct look *look)
{
	return look->pool->capacity / HP_PAGE_SIZE;
}

/* Zeros that cost nothing until they are touched. */
static void *zeros(struct look *look, uint64_t bytes)
{
	void *memory = NULL;
	if (os_map(NULL, bytes, PROT_READ | PROT_WRITE, OS_MAP_PRIVATE_ANON | OS_MAP_NORESERVE, -1, 0, &memory) < 0) {
		look->error = -ENOMEM;
		return NULL;
	}
	return memory;
}

static uint64_t bitmap_bytes(uint64_t bits)
{
	return (bits / 64 + 1) * sizeof(uint64_t);
}

const void *look_at(struct look *look, uint64_t off, size_t bytes, void *buffer)
{
	const hp_pool *pool = look->pool;
	if (off > pool->capacity || bytes > pool->capacity - off) {
		look->error = -EIO;
		return NULL;
	}
	if (pool->base && (look->writer || !look->readable)) return pool->base + off;
	if (look->readable && os_pread(pool->data_fd.fd, buffer, bytes, off) == (int64_t)bytes) return buffer;
	look->error = -EIO;
	return NULL;
}

/* ---- runs ---- */

const char *look_run(const struct look *look, uint64_t page1, uint8_t kind, uint64_t *pages)
{
	const hp_pool *pool = look->pool;
	uint64_t page = page1 - 1;
	if (!page1 || page >= pool_pages(look)) return "lies outside of the pool";
	uint32_t chunk = (uint32_t)(page >> pool->page_shift_chunk);
	unsigned i = (unsigned)page & (pool->chunk_pages - 1);
	if (chunk >= pool_top(pool) || !parity_live(&pool->units[chunk], i)) return "is free";
	unsigned len = atomic_load_explicit(&pool->units[chunk].len[i], memory_order_acquire);
	const struct heap_slab *mark = heap_mark_at(pool, page);
	if ((len & PARITY_TYPE_MASK) != PAGE_TYPE_HEAP) return "is no heap's";
	if (atomic_load_explicit(&mark->tag, memory_order_acquire) != look->tag) return "is another heap's";
	if (atomic_load_explicit(&mark->kind, memory_order_relaxed) != kind) return "is of another kind";
	*pages = page_run(pool, chunk, i);
	if (*pages == 0 || *pages > pool_pages(look) - page) return "has a length that cannot be";
	return NULL;
}

struct heap_slab *look_descriptor_at(const hp_pool *pool, uint64_t page, uint64_t pages, uint8_t *colour)
{
	uint64_t map = atomic_load_explicit(&pool->map[page], memory_order_acquire);
	*colour = map >> HEAP_COLOUR_SHIFT & 31;
	bool fits = *colour * UINT64_C(64) + sizeof(struct heap_slab) <= pages * sizeof(struct slab);
	return fits ? heap_slab_coloured(pool, page, *colour) : NULL;
}

/* The first time that this run is met? */
static bool is_new(struct look *look, uint64_t page)
{
	uint64_t bit = UINT64_C(1) << (page % 64), *word = &look->runs[page / 64];
	bool new = !(*word & bit);
	*word |= bit;
	return new;
}

/* ---- types ---- */

static bool unique(const struct look *look, uint32_t id)
{
	for (uint32_t other = 0; other < id; other++)
		if (look->type[other].name == look->type[id].name &&
		    !strcmp(look->type[other].shape.name, look->type[id].shape.name))
			return false;
	return true;
}

static bool take_type(struct look *look, uint32_t id)
{
	struct look_type *type = &look->type[id];
	struct heap_type_entry copy;
	uint64_t page1 = atomic_load_explicit(&look->entry->type_run[id / 16], memory_order_acquire), pages;
	const char *why = look_run(look, page1, HEAP_TABLE, &pages);
	if (!why && pages != HEAP_TYPE_PAGES) why = "is not as long as it should be";
	if (why) {
		SAY(look, HP_HEAP_BAD_RUN, 0, page1, "the table of types %u to %u %s", id / 16 * 16, id / 16 * 16 + 15, why);
		return false;
	}
	if (id % 16 == 0 && !is_new(look, page1 - 1)) {
		SAY(look, HP_HEAP_BAD_RUN, page1 - 1, page1, "the table of types from %u on is another one, too", id);
		return false;
	}
	uint64_t at = (page1 - 1) * HP_PAGE_SIZE + id % 16 * sizeof copy;
	const struct heap_type_entry *there = look_at(look, at, sizeof copy, &copy);
	if (!there) return false;
	memcpy(&type->shape, &there->shape, sizeof type->shape);
	for (unsigned class = 0; class < HEAP_CLASSES; class ++)
		type->list[class] = atomic_load_explicit(&there->list[class], memory_order_acquire);
	if (!heap_shape_sensible(&type->shape)) {
		type->shape.name[0] = 0;
		SAY(look, HP_HEAP_BAD_TYPE, page1 - 1, id, "type %u is not as it was made", id);
		return true;
	}
	for (char *c = type->shape.name; *c; c++)
		if (*c < ' ' || *c > '~') *c = '?'; /* it goes to terminals */
	type->sound = true;
	type->name = heap_name_hash(type->shape.name);
	if (!unique(look, id))
		SAY(look, HP_HEAP_BAD_TYPE, page1 - 1, id, "type %u is called %s, and another one is, too", id,
		    type->shape.name);
	return true;
}

static void take_types(struct look *look)
{
	uint32_t id = 0;
	while (id < look->types && !look->error)
		if (take_type(look, id))
			id++;
		else
			id = id / 16 * 16 + 16;
	/* one table more may be there: a type was about to be entered */
	for (uint32_t k = (look->types + 15) / 16 + (look->types % 16 == 0); k < HEAP_TYPES / 16; k++) {
		uint64_t page1 = atomic_load_explicit(&look->entry->type_run[k], memory_order_acquire);
		if (page1)
			SAY(look, HP_HEAP_BAD_TYPE, 0, page1, "a table of types from %u on, of %u types", k * 16, look->types);
	}
	if (look->types % 16 == 0 && look->types < HEAP_TYPES) {
		uint64_t pages, page1 = atomic_load_explicit(&look->entry->type_run[look->types / 16], memory_order_acquire);
		const char *why = page1 ? look_run(look, page1, HEAP_TABLE, &pages) : NULL;
		if (why) SAY(look, HP_HEAP_BAD_RUN, 0, page1, "the table of types from %u on %s", look->types, why);
	}
}

/* ---- slabs ---- */

/* Is it cut as its type and class want, and does its descriptor lie where it should? */
static bool cut_right(const struct look *look, const struct look_slab *slab)
{
	const struct look_type *type = &look->type[slab->type];
	struct heap_type like = {.align = type->shape.align < 16 ? 16 : type->shape.align, .element = type->shape.element};
	uint32_t objects, reciprocal;
	uint64_t size, bytes = like.element ? slab->size : type->shape.size;
	bool alone = slab->class == HEAP_ALONE;
	if (slab->class >= HEAP_CLASSES || !slab->size || slab->size > look->pool->capacity ||
	    slab->size < type->shape.size || heap_class(&like, bytes, &size) != slab->class || size != slab->size)
		return false;
	if (!alone && slab->pages > 2 * HEAP_SLAB_PAGES) return false;
	if (heap_slab_shape(size, alone, slab->pages, &objects, &reciprocal) != slab->pages || objects != slab->objects ||
	    reciprocal != slab->reciprocal)
		return false;
	const struct heap_run run = {.pages = slab->pages, .objects = objects, .kind = HEAP_SLAB};
	return heap_run_colour(&run, slab->page) == slab->colour;
}

static bool add(struct look *look, const struct look_slab *slab)
{
	if (look->slabs == look->room) {
		size_t room = look->room ? look->room * 2 : 64;
		struct look_slab *more = realloc(look->slab, room * sizeof *more);
		if (!more) {
			look->error = -ENOMEM;
			return false;
		}
		look->slab = more;
		look->room = room;
	}
	look->slab[look->slabs++] = *slab;
	return true;
}

static void take_list(struct look *look, uint32_t id, unsigned class)
{
	struct look_type *type = &look->type[id];
	uint64_t from = 0; /* the slab before */
	for (uint32_t page1 = type->list[class]; page1;) {
		uint64_t pages = 0, page = page1 - 1;
		const char *why = look_run(look, page1, HEAP_SLAB, &pages);
		if (why) {
			SAY(look, HP_HEAP_BAD_RUN, from, page1, "slabs of %s, class %u: the next one, at page %llu, %s",
			    type->shape.name, class, (unsigned long long)page, why);
			return;
		}
		if (!is_new(look, page)) {
			SAY(look, HP_HEAP_BAD_RUN, from, page1, "slabs of %s, class %u: the one at page %llu is named twice",
			    type->shape.name, class, (unsigned long long)page);
			return;
		}
		uint8_t colour;
		struct heap_slab *there = look_descriptor_at(look->pool, page, pages, &colour);
		if (!there) {
			SAY(look, HP_HEAP_BAD_MAP, page, colour, "slab at page %llu: the map says that it is nowhere",
			    (unsigned long long)page);
			return;
		}
		struct look_slab slab = {.page = page,
		                         .pages = atomic_load_explicit(&there->pages, memory_order_relaxed),
		                         .size = atomic_load_explicit(&there->size, memory_order_relaxed),
		                         .objects = atomic_load_explicit(&there->objects, memory_order_relaxed),
		                         .reciprocal = atomic_load_explicit(&there->reciprocal, memory_order_relaxed),
		                         .type = (uint16_t)id,
		                         .class = (uint16_t) class,
		                         .colour = colour};
		page1 = atomic_load_explicit(&there->next, memory_order_acquire);
		if (atomic_load_explicit(&there->type, memory_order_relaxed) != id ||
		    atomic_load_explicit(&there->class, memory_order_relaxed) != class) {
			SAY(look, HP_HEAP_BAD_SLAB, page, id, "slab at page %llu: in the list of %s, class %u, and not of it",
			    (unsigned long long)page, type->shape.name, class);
			return;
		}
		if (slab.pages != pages)
			SAY(look, HP_HEAP_BAD_RUN, page, slab.pages, "slab at page %llu: says it has %u pages, and has %llu",
			    (unsigned long long)page, slab.pages, (unsigned long long)pages);
		else if (atomic_load_explicit(&there->tag, memory_order_relaxed) != look->tag ||
		         atomic_load_explicit(&there->kind, memory_order_relaxed) != HEAP_SLAB)
			SAY(look, HP_HEAP_BAD_SLAB, page, colour, "slab at page %llu: its descriptor is none of the heap's",
			    (unsigned long long)page);
		else if (!type->sound || !cut_right(look, &slab))
			SAY(look, HP_HEAP_BAD_SLAB, page, slab.size,
			    "slab at page %llu: not cut as %s, class %u, is: %u values of %llu bytes", (unsigned long long)page,
			    type->shape.name, class, slab.objects, (unsigned long long)slab.size);
		else if (!add(look, &slab))
			return;
		from = page;
	}
}

static int by_page(const void *a, const void *b)
{
	const struct look_slab *x = a, *y = b;
	return x->page < y->page ? -1 : x->page > y->page;
}

static void take_slabs(struct look *look)
{
	for (uint32_t id = 0; id < look->types && !look->error; id++)
		for (unsigned class = 0; class < HEAP_CLASSES && !look->error; class ++) {
			if (class && look->type[id].list[class] && look->type[id].sound && !look->type[id].shape.element)
				SAY(look, HP_HEAP_BAD_SLAB, 0, look->type[id].list[class], "%s has no class %u",
				    look->type[id].shape.name, class);
			else
				take_list(look, id, class);
		}
	if (look->error || !look->slabs) return;
	qsort(look->slab, look->slabs, sizeof *look->slab, by_page);
	size_t kept = 0;
	for (size_t i = 0; i < look->slabs; i++) {
		struct look_slab *slab = &look->slab[kept], *before = kept ? slab - 1 : NULL;
		*slab = look->slab[i];
		if (before && before->page + before->pages > slab->page) {
			SAY(look, HP_HEAP_BAD_RUN, slab->page, slab->page + 1, "slab at page %llu: lies in another",
			    (unsigned long long)slab->page);
			continue;
		}
		slab->first = look->objects;
		look->objects += slab->objects;
		kept++;
	}
	look->slabs = kept;
}

/* ---- the whole ---- */

bool look_begin(struct look *look)
{
	struct heap_entry *entry = look->entry = &look->pool->heaps[look->index];
	look->error = 0;
	look->readable = look->pool->data_fd.fd >= 0 && pool_fd_intact(&look->pool->data_fd);
	look->lock = atomic_load_explicit(&entry->lock, memory_order_acquire);
	look->number = atomic_load_explicit(&entry->number, memory_order_acquire);
	look->word = atomic_load_explicit(&entry->word, memory_order_acquire);
	uint32_t generation = heap_generation(look->word);
	look->id = (uint64_t)generation << 16 | look->index;
	look->tag = heap_tag(look->index, generation);
	if (!look_is_there(look->word)) return false;
	look->root = atomic_load_explicit(&entry->root, memory_order_acquire);
	look->phase = atomic_load_explicit(&entry->phase, memory_order_acquire);
	look->cycle = atomic_load_explicit(&entry->cycle, memory_order_relaxed);
	look->log_n = atomic_load_explicit(&entry->log_n, memory_order_acquire);
	look->version = atomic_load_explicit(&entry->version, memory_order_relaxed);
	look->run = atomic_load_explicit(&entry->run, memory_order_acquire);
	look->pages = atomic_load_explicit(&entry->pages, memory_order_relaxed);
	look->types = atomic_load_explicit(&entry->types, memory_order_acquire);
	if (look->types > HEAP_TYPES) {
		SAY(look, HP_HEAP_BAD_ENTRY, 0, look->types, "%u types, more than there can be", look->types);
		look->types = HEAP_TYPES;
	}
	look->runs = zeros(look, bitmap_bytes(pool_pages(look)));
	look->type = calloc(look->types + 1, sizeof *look->type);
	look->buffer = malloc(LOOK_BUFFER);
	if (!look->type || !look->buffer) look->error = -ENOMEM;
	if (!look->error) take_types(look);
	if (!look->error) take_slabs(look);
	if (!look->error) look->reached = zeros(look, bitmap_bytes(look->objects));
	return !look->error;
}

void look_end(struct look *look)
{
	if (look->runs) os_unmap(look->runs, bitmap_bytes(pool_pages(look)));
	if (look->reached) os_unmap(look->reached, bitmap_bytes(look->objects));
	free(look->type);
	free(look->slab);
	free(look->buffer);
	look->runs = look->reached = NULL;
	look->type = NULL;
	look->slab = NULL;
	look->buffer = NULL;
	look->slabs = look->room = 0;
	look->objects = 0;
}

bool look_is_calm(const struct look *look)
{
	const struct heap_entry *entry = look->entry;
	atomic_thread_fence(memory_order_acquire); /* what was looked at was looked at before */
	return look_is_free(look) && atomic_load_explicit(&entry->number, memory_order_relaxed) == look->number &&
	       atomic_load_explicit(&entry->word, memory_order_relaxed) == look->word &&
	       atomic_load_explicit(&entry->lock, memory_order_relaxed) == look->lock;
}

/* ---- values ---- */

struct look_slab *look_slab_of(const struct look *look, uint64_t off)
{
	uint64_t page = off / HP_PAGE_SIZE;
	size_t from = 0, to = look->slabs;
	while (from < to) {
		size_t middle = (from + to) / 2;
		if (look->slab[middle].page <= page)
			from = middle + 1;
		else
			to = middle;
	}
	struct look_slab *slab = from ? &look->slab[from - 1] : NULL;
	return slab && page < slab->page + slab->pages ? slab : NULL;
}

struct look_slab *look_find(const struct look *look, uint64_t word, uint32_t *object, const char **why)
{
	uint64_t off = heap_ref_offset(word);
	*why = "is a private pointer";
	if (!(word & HEAP_REFERENCE)) return NULL;
	*why = "names a value of another heap";
	if (word >> HEAP_OFFSET_BITS != look->tag) return NULL;
	*why = "leads out of the pool";
	if (off >= look->pool->capacity) return NULL;
	struct look_slab *slab = look_slab_of(look, off);
	*why = "names what is no slab of the heap";
	if (!slab) return NULL;
	uint64_t in = off - slab->page * HP_PAGE_SIZE;
	*why = "names no beginning of a value";
	if (in % slab->size || in / slab->size >= slab->objects) return NULL;
	*object = (uint32_t)(in / slab->size);
	*why = "names a value that is not there";
	return look_lives(look, slab, *object) ? slab : NULL;
}

static uint64_t word_at(const void *at)
{
	return __atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED);
}

uint32_t look_count(struct look *look, const struct look_slab *slab, uint32_t object)
{
	const struct heap_type_shape *shape = &look->type[slab->type].shape;
	uint32_t there;
	if (!shape->element) return 0;
	const void *at = look_at(look, look_offset(slab, object) + shape->count, sizeof there, &there);
	return at ? __atomic_load_n((const uint32_t *)at, __ATOMIC_RELAXED) : 0;
}

static int tail_members(struct look *look, const struct look_slab *slab, uint32_t object, look_member_fn *each,
                        void *arg)
{
	const struct heap_type_shape *shape = &look->type[slab->type].shape;
	uint64_t start = look_offset(slab, object), elements = (slab->size - shape->tail) / shape->element;
	uint64_t many = LOOK_BUFFER / shape->element; /* at a time; 0: not even one */
	for (uint64_t from = 0; from < elements; from += many ? many : 1) {
		uint64_t n = !many ? 1 : elements - from < many ? elements - from : many;
		uint64_t at = shape->tail + from * shape->element;
		const char *block = many ? look_at(look, start + at, n * shape->element, look->buffer) : NULL;
		if (many && !block) return 0;
		for (uint64_t e = 0; e < n; e++)
			for (uint32_t k = 0; k < shape->tail_members; k++) {
				uint64_t in = e * shape->element + shape->tail_member[k].offset, alone;
				const char *word = many ? block + in : look_at(look, start + at + in, 8, &alone);
				if (!word) return 0;
				int stop = each(arg, at + in, word_at(word), shape->tail_member[k].target, (int64_t)(from + e));
				if (stop) return stop;
			}
	}
	return 0;
}

int look_members(struct look *look, const struct look_slab *slab, uint32_t object, look_member_fn *each, void *arg)
{
	const struct heap_type_shape *shape = &look->type[slab->type].shape;
	if (shape->members) {
		const char *fixed = look_at(look, look_offset(slab, object), shape->size, look->buffer);
		for (uint32_t k = 0; fixed && k < shape->members; k++) {
			uint32_t offset = shape->member[k].offset;
			int stop = each(arg, offset, word_at(fixed + offset), shape->member[k].target, -1);
			if (stop) return stop;
		}
	}
	return shape->tail_members && !look->error ? tail_members(look, slab, object, each, arg) : 0;
}

/* ---- runs that nobody names ---- */

static int ascending(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

static int keep_name(struct look_names *names, size_t *room, uint64_t page)
{
	if (names->count == *room) {
		size_t more = *room ? *room * 2 : 256;
		uint64_t *new = realloc(names->page, more * sizeof *new);
		if (!new) return -ENOMEM;
		names->page = new;
		*room = more;
	}
	names->page[names->count++] = page;
	return 0;
}

int look_names(const hp_pool *pool, struct look_names *names)
{
	size_t room = 0;
	int error = 0;
	*names = (struct look_names){0};
	for (uint32_t index = 1; index < heap_top(pool) && error == 0; index++) {
		struct look look = {.pool = pool, .index = index};
		if (look_begin(&look)) {
			for (uint64_t w = 0; w <= pool->capacity / HP_PAGE_SIZE / 64 && error == 0; w++)
				for (uint64_t bits = look.runs[w]; bits && error == 0; bits &= bits - 1)
					error = keep_name(names, &room, w * 64 + (uint64_t)__builtin_ctzll(bits));
		}
		if (look.error == -ENOMEM) error = look.error;
		look_end(&look);
	}
	if (error == 0 && names->count) qsort(names->page, names->count, sizeof *names->page, ascending);
	return error;
}

/* Is it in the list of the type and class that its descriptor says? A list that runs in a ring ends, too (Brent's way). */
static bool is_listed(const hp_pool *pool, struct look *look, uint64_t page, uint64_t run)
{
	uint8_t colour;
	const struct heap_slab *slab = look_descriptor_at(pool, page, run, &colour);
	if (!slab) return false;
	uint32_t id = atomic_load_explicit(&slab->type, memory_order_relaxed), head;
	uint32_t class = atomic_load_explicit(&slab->class, memory_order_relaxed);
	if (id >= HEAP_TYPES || class >= HEAP_CLASSES) return false;
	uint64_t table1 = atomic_load_explicit(&look->entry->type_run[id / 16], memory_order_acquire), pages;
	if (look_run(look, table1, HEAP_TABLE, &pages)) return false;
	uint64_t at = (table1 - 1) * HP_PAGE_SIZE + id % 16 * sizeof(struct heap_type_entry) +
	              offsetof(struct heap_type_entry, list) + class * sizeof head;
	const uint32_t *cell = look_at(look, at, sizeof head, &head);
	uint64_t page1 = cell ? __atomic_load_n(cell, __ATOMIC_ACQUIRE) : 0, met = 0, steps = 0, power = 1;
	while (page1 && page1 != page + 1 && page1 != met) {
		if (++steps == power) {
			met = page1;
			power *= 2;
			steps = 0;
		}
		if (look_run(look, page1, HEAP_SLAB, &pages)) return false;
		if (!(slab = look_descriptor_at(pool, page1 - 1, pages, &colour))) return false;
		page1 = atomic_load_explicit(&slab->next, memory_order_acquire);
	}
	return page1 == page + 1;
}

const char *look_lost(const hp_pool *pool, const struct look_names *names, uint64_t page, uint64_t pages)
{
	const struct heap_slab *mark = heap_mark_at(pool, page);
	uint32_t tag = atomic_load_explicit(&mark->tag, memory_order_acquire), index = heap_tag_index(tag);
	if (index == 0 || index >= heap_top(pool)) return "of a heap that never was";
	struct look look = {.pool = pool, .entry = &pool->heaps[index], .index = index, .tag = tag};
	uint64_t word = atomic_load_explicit(&look.entry->word, memory_order_acquire);
	if (heap_tag(index, heap_generation(word)) != tag || heap_state(word) == HEAP_FREE)
		return "of a heap that is there no more";
	if (!look_is_there(word)) return NULL; /* being made or ended, or that is a finding elsewhere */
	if (atomic_load_explicit(&look.entry->run, memory_order_acquire) == page + 1) return NULL;
	if (names->count && bsearch(&page, names->page, names->count, sizeof page, ascending)) return NULL;
	look.readable = pool->data_fd.fd >= 0 && pool_fd_intact(&pool->data_fd);
	switch (atomic_load_explicit(&mark->kind, memory_order_relaxed)) {
	case HEAP_SLAB:
		if (is_listed(pool, &look, page, pages)) return NULL;
		break;
	case HEAP_LOG:
		for (unsigned k = 0; k < HEAP_EXTENTS; k++)
			if (atomic_load_explicit(&look.entry->log[k], memory_order_acquire) == page + 1) return NULL;
		break;
	case HEAP_TABLE:
		for (unsigned k = 0; k < HEAP_TYPES / 16; k++)
			if (atomic_load_explicit(&look.entry->type_run[k], memory_order_acquire) == page + 1) return NULL;
		break;
	default: return "of a heap, and of no known kind";
	}
	return "of a heap that does not name it";
}
