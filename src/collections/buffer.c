/* A byte buffer: a state {list of chunks, length}, replaced as a whole by whoever changes it.
 *
 * What a state that was ever seen says is in the buffer is never stored to again: not when it is truncated and another text
 * follows, and not when it was undone. So a reader that has loaded a state has all of it as of one moment. To that end each
 * chunk, and the list, counts how much of it was ever written; the count is stored first and undone by nobody. An append goes
 * on in place where the count is its own beginning, and otherwise copies the chunk, or the list, first. */
#include <hugepool/collections.h>
#include <errno.h>
#include <string.h>

#define CHUNK 4080u

struct buffer_chunk {
	uint64_t written;
	unsigned char data[CHUNK];
};
struct buffer_list {
	uint32_t room, written;
	hp_ref chunk[];
};
struct buffer_state {
	HP_REF(struct buffer_list) list;
	uint64_t length;
};
struct buffer {
	HP_REF(struct buffer_state) state; /* none: it is empty */
};

HP_TYPE_LEAF(hp_buffer_chunk, struct buffer_chunk);
HP_TYPE_VECTOR(hp_buffer_list, struct buffer_list, room, chunk, hp_buffer_chunk);
HP_TYPE(hp_buffer_state, struct buffer_state, (list, hp_buffer_list));
HP_TYPE(hp_buffer_type, struct buffer, (state, hp_buffer_state));

static struct buffer *buffer_of(hp_tx *tx, hp_ref ref, int *error)
{
	if ((*error = hp_heap_error(tx)) < 0) return NULL;
	struct buffer *buffer = hp_heap_deref_checked(hp_heap_of(tx), ref, &hp_buffer_type, NULL);
	if (!buffer) *error = -EINVAL;
	return buffer;
}

static const struct buffer_state *state_of(const hp_heap *heap, hp_ref ref)
{
	static const struct buffer_state empty;
	const struct buffer *buffer = hp_heap_deref(heap, ref);
	hp_ref state = hp_heap_load(&buffer->state.ref);
	return state.word ? hp_heap_deref(heap, state) : &empty;
}

/* Another list with the first `keep` chunks. */
static hp_ref list_copy(hp_tx *tx, hp_ref old, uint32_t keep, uint32_t room)
{
	hp_ref ref = hp_heap_new(tx, &hp_buffer_list, room);
	if (!ref.word) return ref;
	struct buffer_list *list = hp_heap_deref(hp_heap_of(tx), ref);
	for (uint32_t i = 0; i < keep; i++)
		list->chunk[i] = ((struct buffer_list *)hp_heap_deref(hp_heap_of(tx), old))->chunk[i];
	list->written = keep;
	return ref;
}

/* Chunk i of the list, i of them in use, becomes one with the first `keep` bytes of `old`. Another list where this one had a
 * chunk i already. */
static struct buffer_chunk *chunk_add(hp_tx *tx, hp_ref *list_ref, uint32_t i, const struct buffer_chunk *old,
                                      uint64_t keep)
{
	hp_heap *heap = hp_heap_of(tx);
	struct buffer_list *list = list_ref->word ? hp_heap_deref(heap, *list_ref) : NULL;
	if (!list || list->written != i || list->room == i) {
		uint32_t room = list && i < list->room ? list->room : i ? 2 * i : 1;
		*list_ref = list_copy(tx, *list_ref, i, room);
		if (!list_ref->word) return NULL;
		list = hp_heap_deref(heap, *list_ref);
	}
	hp_ref ref = hp_heap_new(tx, &hp_buffer_chunk, 0);
	if (!ref.word) return NULL;
	struct buffer_chunk *chunk = hp_heap_deref(heap, ref);
	if (keep) memcpy(chunk->data, old->data, keep);
	list->written = i + 1;
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* a death in between: it counts as written */
	return hp_heap_set(tx, &list->chunk[i], ref) < 0 ? NULL : chunk;
}

/* The state with that list becomes the buffer's. */
static int state_set(hp_tx *tx, struct buffer *buffer, hp_ref list, uint64_t length)
{
	hp_ref ref = hp_heap_new(tx, &hp_buffer_state, 0);
	if (!ref.word) return hp_heap_error(tx);
	struct buffer_state *state = hp_heap_deref(hp_heap_of(tx), ref);
	state->list.ref = list;
	state->length = length;
	return hp_heap_set(tx, &buffer->state.ref, ref);
}

hp_ref hp_buffer_new(hp_tx *tx)
{
	return hp_heap_new(tx, &hp_buffer_type, 0);
}

int hp_buffer_append(hp_tx *tx, hp_ref ref, const void *bytes, size_t count)
{
	int error;
	hp_heap *heap = hp_heap_of(tx);
	struct buffer *buffer = buffer_of(tx, ref, &error);
	if (!buffer) return error;
	uint64_t length = state_of(heap, ref)->length;
	hp_ref list = state_of(heap, ref)->list.ref;
	const unsigned char *from = bytes;
	if (count > (uint64_t)UINT32_MAX / 2 * CHUNK - length) return -EOVERFLOW;
	if (count == 0) return 0;
	while (count) {
		uint32_t i = (uint32_t)(length / CHUNK);
		uint64_t at = length % CHUNK, n = CHUNK - at < count ? CHUNK - at : count;
		struct buffer_chunk *chunk = NULL;
		if (at) chunk = hp_heap_deref(heap, ((struct buffer_list *)hp_heap_deref(heap, list))->chunk[i]);
		if (!chunk || chunk->written != at) chunk = chunk_add(tx, &list, i, chunk, at);
		if (!chunk) return hp_heap_error(tx);
		chunk->written = at + n;
		__atomic_signal_fence(__ATOMIC_SEQ_CST); /* as in chunk_add */
		memcpy(chunk->data + at, from, n);
		from += n;
		length += n;
		count -= n;
	}
	return state_set(tx, buffer, list, length);
}

int hp_buffer_truncate(hp_tx *tx, hp_ref ref, uint64_t length)
{
	int error;
	struct buffer *buffer = buffer_of(tx, ref, &error);
	if (!buffer) return error;
	const struct buffer_state *state = state_of(hp_heap_of(tx), ref);
	if (length > state->length) return -ERANGE;
	if (length == state->length) return 0;
	if (length == 0) return hp_heap_set(tx, &buffer->state.ref, HP_NONE);
	uint32_t keep = (uint32_t)((length + CHUNK - 1) / CHUNK);
	hp_ref list = list_copy(tx, state->list.ref, keep, keep);
	return list.word ? state_set(tx, buffer, list, length) : hp_heap_error(tx);
}

uint64_t hp_buffer_length(const hp_heap *heap, hp_ref buffer)
{
	return state_of(heap, buffer)->length;
}

/* False: the state has been undone meanwhile, and there is another. */
static bool copy_out(const hp_heap *heap, const struct buffer_state *state, uint64_t offset, char *to, size_t count)
{
	const struct buffer_list *list = count ? hp_heap_deref(heap, state->list.ref) : NULL;
	while (count) {
		hp_ref ref = hp_heap_load(&list->chunk[offset / CHUNK]);
		if (!ref.word) return false;
		const struct buffer_chunk *chunk = hp_heap_deref(heap, ref);
		uint64_t at = offset % CHUNK, n = CHUNK - at < count ? CHUNK - at : count;
		memcpy(to, chunk->data + at, n);
		to += n;
		offset += n;
		count -= n;
	}
	return true;
}

size_t hp_buffer_read(const hp_heap *heap, hp_ref buffer, uint64_t offset, void *to, size_t count)
{
	for (;;) {
		const struct buffer_state *state = state_of(heap, buffer);
		uint64_t there = offset < state->length ? state->length - offset : 0;
		size_t n = there < count ? (size_t)there : count;
		if (copy_out(heap, state, offset, to, n)) return n;
	}
}
