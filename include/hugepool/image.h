/* Images: graphs of typed values in raw memory, as one block of bytes that means the same wherever it lies.
 *
 * An image is written into any memory at any address (a file, a ring of messages, a block of a pool, a socket's buffer), moved
 * and copied as bytes, and read in place by whoever has it, at whatever address, without being unpacked. Its size is known
 * before. Types are those of heap.h; values come from private memory (HP_REF members are private pointers), from a heap, or
 * from both; what is shared in the graph is shared in the image, and cycles are kept.
 *
 * Layout: struct hp_image, then the values, the root first, each behind a word {hash of its type, elements of its tail} and at a
 * multiple of its type's alignment (of 8 at least); between them zeros. A reference in an image is {0, 1, offset from the start of
 * the image:62}; 0 is none. So it is never taken for a reference of a heap, and used as a pointer it faults (x86-64). The same
 * graph gives the same bytes each time, whatever stands in the padding of its structs apart. Byte order and types are the machine's:
 * an image is for programs on one kind of machine that agree on what is called by the same name; -EPROTO where they do not.
 *
 * Trust. hp_image_deref and hp_image_root check nothing: they are for images that this program wrote, or has verified. What comes
 * from elsewhere is verified first; then its references lead to values of the right type, counts are true, strings end in 0, and
 * hp_image_deref is enough. That holds as long as nobody changes the image: if its sender still can (shared memory that it has
 * mapped, a file that it may write), verify a private copy, which is hp_image_read, or memory that is sealed against writing
 * (F_SEAL_WRITE with no writable mapping left). Never verify and then read what the other side can still change.
 *
 * Functions allocate from libc where it is said; any thread may call them, several at a time for the same image, none from
 * signal handlers but the inline ones and hp_image_deref_checked. Nothing is shared but the caller's memory: whoever dies while
 * writing leaves it half written, and as hp_image_write writes the header last, not verifiable. Errors are negative errno values:
 *   -EINVAL   a type or an argument makes no sense, a value refers to what has no said type (hp_any), or its count exceeds its
 *             place; or an image does not lie at a multiple of its alignment: hp_image_read copies
 *   -EPROTO   the image, or the heap, has values of types other than the caller's, or one address is met as two types
 *   -EBADMSG  the bytes are no image: cut off, overwritten, or made to mislead
 *   -ENOMEM   libc has none
 *   -EXDEV, -ESTALE  a reference to another heap, or any at all where no heap was given; to a value or a heap that is gone
 *   -EOVERFLOW  2^48 bytes, or 2^32 values
 *
 * Origin: values in raw memory of Netsys_mem: init_header, init_string, init_array, init_float_array, init_value, copy_value.
 * Unlike there an image does not belong to one address, can be checked, needs no area registered, and has sizes told before. */
#ifndef HUGEPOOL_IMAGE_H
#define HUGEPOOL_IMAGE_H

#include <hugepool/heap.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hp_image {
	uint64_t magic; /* HP_IMAGE_MAGIC */
	uint64_t bytes; /* of all of it, a multiple of 8 */
	uint64_t root;  /* its offset */
	uint64_t values;
	uint32_t align, reserved; /* of the image, to be read in place: the greatest of its types' */
};

#define HP_IMAGE_MAGIC UINT64_C(0x316567616d697068)
#define HP_IMAGE_REF (UINT64_C(1) << 62)

/* An array of numbers, also for heaps. */
struct hp_doubles {
	uint32_t len, reserved;
	double item[];
};
HP_API_DATA extern const struct hp_type hp_doubles_type;

/* ---- writing ---- */

/* Bytes that the image of the graph has, exactly: what hp_image_write returns. `heap` may be NULL for private graphs. `value` is
 * private, or the address of a value of `heap`; then call in a section, in a transaction, or with the value guarded, and mind
 * that the graph may change until it is written. Or -EINVAL, -EPROTO, -EXDEV, -ESTALE, -ENOMEM, -EOVERFLOW. Allocates for the
 * time of the call, about 40 bytes for each value; takes no lock, and its use of the stack does not depend on the graph.
 * Origin: init_value with Copy_simulate. */
HP_API int64_t hp_image_need(const hp_heap *heap, const struct hp_type *type, const void *value);

/* Writes it to any address. Returns its bytes; -ENOSPC: `room` is less than that; and as hp_image_need. Not more than `room`
 * bytes are touched, on errors with anything. Each word of a heap is read once, so changes at the same time give one or the
 * other. Origin: init_value; what is to be mapped elsewhere (targetaddr) needs no word here. */
HP_API int64_t hp_image_write(void *to, size_t room, const hp_heap *heap, const struct hp_type *type,
                              const void *value);

/* ---- reading ---- */

static inline void *hp_image_deref(const struct hp_image *image, hp_ref ref)
{
	return (void *)((uintptr_t)image - (uintptr_t)HP_IMAGE_REF + (uintptr_t)ref.word);
}

static inline void *hp_image_root(const struct hp_image *image)
{
	return (void *)((uintptr_t)image + (uintptr_t)image->root);
}

/* NULL unless within the `bytes` of the image a value begins that is marked as of that type, is aligned, and lies within them with
 * all the elements that its count tells. Safe for images that are not verified, each time it is called; but there what looks like a
 * value may be part of another, and strings may not end. Hashes the type's description, which takes a quarter of a microsecond:
 * for more than a few values verify. No allocation. */
HP_API void *hp_image_deref_checked(const struct hp_image *image, size_t bytes, hp_ref ref, const struct hp_type *type);

/* 0: an image of a value of that type begins there and ends within `bytes`, and all is as said above. `type` and what it refers to
 * are the types that it may have; where they refer to hp_any, also the ready-made ones. -EINVAL, -EPROTO, -EBADMSG, -ENOMEM.
 * Takes time in proportion to the bytes, 1/64 of them in memory, and follows nothing; not even an image that changes meanwhile
 * makes it read outside of it. */
HP_API int hp_image_verify(const void *image, size_t bytes, const struct hp_type *type);

/* Copies an image out of memory of any alignment that may change meanwhile, and verifies the copy. free() it.
 * Errors as hp_image_verify. */
HP_API int hp_image_read(const void *from, size_t bytes, const struct hp_type *type, struct hp_image **image);

/* A private graph in one block of malloc, whose members are private pointers; free() it. *size may be NULL. Verifies first;
 * errors as there. Origin: copy_value. */
HP_API int hp_image_copy(const void *image, size_t bytes, const struct hp_type *type, void **value, size_t *size);

/* New values in a heap. Verifies first. None on failure, with the error in the transaction: as hp_image_verify, hp_heap_new. */
HP_API hp_ref hp_image_import(hp_tx *tx, const void *image, size_t bytes, const struct hp_type *type);

/* ---- making one by hand ---- */

/* The image is complete after each call, apart from the words that its maker stores to its values. Members are set by plain
 * stores: `root->name.ref = hp_image_new_string(&builder, ...)`. Nothing moves. No allocation but in hp_image_begin and
 * hp_image_new_value, and there for the time of the call. */
struct hp_image_builder {
	struct hp_image *image;
	size_t room;
	int error; /* the first */
};

/* Bytes of the image of one value: what hp_image_begin needs. Origin: init_string_bytelen and its like. */
HP_API int64_t hp_image_size(const struct hp_type *type, uint32_t elements);

/* Starts an image of `room` bytes at most, and the root with `elements` in its tail (for strings without the closing 0): zeros.
 * -EINVAL: also if `to` is no multiple of the alignment of the types. -ENOSPC, -ENOMEM. */
HP_API int hp_image_begin(struct hp_image_builder *builder, void *to, size_t room, const struct hp_type *type,
                          uint32_t elements);

/* One more value: zeros. None on failure, kept in the builder: -ENOSPC, -EINVAL (also: an alignment that the root's types do not
 * have). Types that the root's do not lead to are refused by those who verify. Origin: init_header. */
HP_API hp_ref hp_image_new(struct hp_image_builder *builder, const struct hp_type *type, uint32_t elements);

/* As hp_image_new, and filled. Origin: init_string, init_array, init_float_array. */
HP_API hp_ref hp_image_new_string(struct hp_image_builder *builder, const char *s, size_t len); /* s NULL: zeros */
HP_API hp_ref hp_image_new_vector(struct hp_image_builder *builder, uint32_t n, hp_ref uniform);
HP_API hp_ref hp_image_new_doubles(struct hp_image_builder *builder, uint32_t n, const double *item); /* NULL: zeros */

/* A graph, as hp_image_write. Members that are references of this very image stay as they are: parts that it has already are not
 * copied. On errors nothing is added. Origin: init_value with Copy_conditionally. */
HP_API hp_ref hp_image_new_value(struct hp_image_builder *builder, const hp_heap *heap, const struct hp_type *type,
                                 const void *value);

#ifdef __cplusplus
}
#endif
#endif
