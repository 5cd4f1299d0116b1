/* Buffers: memory as a view with bounds.
 *
 * A view is a small struct that is passed by value: an address, a length, and what the memory belongs to: a pool, an
 * owner (pages, aligned memory or a mapped file that came from here), or nobody that we know of. Every range of a view is
 * given by offset and length, is checked without overflow, and is -EINVAL before anything is touched or the kernel is
 * called. The functions named ..._unchecked do not look.
 *
 * A view does not keep its memory: one of a pool's block is good as long as the block is live, and the pool attached. But
 * what came from here is not unmapped while sub-views of it are alive: hp_buf_sub counts them, hp_buf_drop counts down, and
 * hp_buf_unmap says -EBUSY until all are dropped. Copying the struct counts nothing, as copying a pointer does: hand out
 * copies to callees, sub-views to whoever outlives the call. Counts are the process' own; a forked child has a copy.
 *
 * Blits and comparison cost what memmove and memcmp cost, and may be called from anywhere, signal handlers too. They are
 * inline, and exported under the same names for other languages. What others write meanwhile is seen in part, and who dies
 * inside one has written a part. All else may be called by any thread, from signal handlers only where it says so. Views by
 * themselves are of one process: others get an offset and a length.
 *
 * A mapped file that somebody truncates is the one case left in which memory goes away under its user: touching what lies
 * behind the new end is SIGBUS (hp_buf_read and the like: -EFAULT). A memfd sealed with F_SEAL_SHRINK cannot be truncated.
 *
 * Origin: Netsys_mem. Unlike there lengths are not cut to 31 bits, unmapping never pretends, zeroing leaves shared memory
 * shared and executable memory executable, files are never cut by growing them, EINTR is retried, and blocks of pools know
 * their length. Its pools of blocks are hugepool/block.h. */
#ifndef HUGEPOOL_BUF_H
#define HUGEPOOL_BUF_H

#include <hugepool/pool.h>
#include <errno.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hp_buf_owner;

typedef struct hp_buf {
	char *start;
	size_t len;                 /* bytes */
	hp_pool *pool;              /* that the memory belongs to, or NULL */
	struct hp_buf_owner *owner; /* of what came from here, else NULL */
	uint32_t generation;        /* of the owner */
	uint32_t whole;             /* 1: the view that hp_buf_unmap takes */
} hp_buf;

/* ---- views ---- */

/* Any memory, as it is; NULL with 0 bytes is a view as well. */
HP_API hp_buf hp_buf_of(const void *start, size_t len);

/* Does the view have bytes [off, off + len)? */
HP_API bool hp_buf_holds(hp_buf buf, size_t off, size_t len);

/* A range of addresses: inside the pool (its data; whether it is allocated or committed is not looked at), or, where
 * `pool` is NULL, any that does not go over the end of the address space. -EINVAL, and *buf is empty then. Also from signal
 * handlers.
 * Origin: grab. */
HP_API int hp_buf_grab(hp_pool *pool, const void *start, size_t len, hp_buf *buf);

/* The live block that begins there, with its length looked up: a run of pages (hp_page_size), a block of hp_malloc
 * (hp_usable_size; asked of libc where the library was built to use its malloc, which is -EINVAL here), an object of a cache
 * (the size its cache was made with; of an array the one object). -EINVAL: no live block begins there; not of this pool.
 * Not detected: a block that was freed and handed out again. Also from signal handlers. */
HP_API int hp_buf_grab_block(hp_pool *pool, const void *block, hp_buf *buf);

/* Bytes [off, off + len) of a view. When there is an owner it is counted, until hp_buf_drop.
 * -EINVAL: range. -ESTALE: the memory was unmapped. -EOVERFLOW: 2^32 - 2 sub-views. *sub is empty on an error; it may be the
 * view it comes from only where that is not to be unmapped. Also from signal handlers. */
HP_API int hp_buf_sub(hp_buf buf, size_t off, size_t len, hp_buf *sub);

/* The same neither checked nor counted: for use while something else keeps the memory. It has no owner to drop or unmap. */
HP_API hp_buf hp_buf_sub_unchecked(hp_buf buf, size_t off, size_t len);

/* A sub-view's end: once for each hp_buf_sub, with it or a copy of it. *sub is empty then. Nothing where there is no owner.
 * -EINVAL: the view is no sub-view, but what hp_buf_unmap takes. -ESTALE: dropped too often. Also from signal handlers. */
HP_API int hp_buf_drop(hp_buf *sub);

/* ---- blits ---- */

/* Copies `len` bytes from one view to another, or to other places of the same: they may overlap. -EINVAL: a range is
 * outside of its view; nothing is written then.
 * Origin: blit_memory_to_bytes and its relatives; as their memmove. */
HP_API int hp_buf_blit(hp_buf src, size_t src_off, hp_buf dst, size_t dst_off, size_t len);
HP_API void hp_buf_blit_unchecked(hp_buf src, size_t src_off, hp_buf dst, size_t dst_off, size_t len);

/* The same to and from `len` bytes of the caller's. */
HP_API int hp_buf_blit_to_bytes(hp_buf src, size_t off, void *bytes, size_t len);
HP_API void hp_buf_blit_to_bytes_unchecked(hp_buf src, size_t off, void *bytes, size_t len);
HP_API int hp_buf_blit_from_bytes(hp_buf dst, size_t off, const void *bytes, size_t len);
HP_API void hp_buf_blit_from_bytes_unchecked(hp_buf dst, size_t off, const void *bytes, size_t len);

/* Bytes of the view as a string with a closing 0, for which `room` bytes are there: -EINVAL unless len < room. */
HP_API int hp_buf_blit_to_string(hp_buf src, size_t off, size_t len, char *string, size_t room);
HP_API void hp_buf_blit_to_string_unchecked(hp_buf src, size_t off, size_t len, char *string);

/* A string without its closing 0: how many bytes were written. */
HP_API int64_t hp_buf_blit_from_string(hp_buf dst, size_t off, const char *string);
HP_API int64_t hp_buf_blit_from_string_unchecked(hp_buf dst, size_t off, const char *string);

/* Less than, equal to or greater than 0: by the first unsigned byte that differs, then by length. */
HP_API int hp_buf_compare(hp_buf a, hp_buf b);

/* ---- memory of our own ---- */

/* Bytes of a page of the kernel's, to which addresses and lengths below are rounded. Pools: HP_PAGE_SIZE. */
HP_API size_t hp_buf_page_size(void);

#define HP_BUF_EXEC 1u   /* may be executed, too */
#define HP_BUF_LAZY 2u   /* nothing is set aside for it: for very large memory of which little is used */
#define HP_BUF_SHARED 4u /* what is written goes to the file, and to all who map it; else it is this process' copy */
#define HP_BUF_SPARSE 8u /* the file keeps its holes, and grows by one */

/* `bytes` of private memory, rounded up to pages, all zeros. `hint` is where it is wished for, or NULL: see buf->start for
 * where it is. Flags: HP_BUF_EXEC, HP_BUF_LAZY. -EINVAL: 0 bytes, flags. -ENOMEM: also without HP_BUF_LAZY more than the
 * kernel wants to promise. -EACCES, -EPERM: this system has no memory that may be both written and executed. *buf is empty on
 * an error. The process' death ends it. */
HP_API int hp_buf_alloc_pages(void *hint, size_t bytes, unsigned flags, hp_buf *buf);

/* `bytes` of libc's, of undefined content, at a multiple of `align`, a power of two, at least 8. -EINVAL, -ENOMEM. */
HP_API int hp_buf_alloc_aligned(size_t align, size_t bytes, hp_buf *buf);

#define HP_BUF_TO_END UINT64_MAX /* -1 */

/* Maps `len` bytes of a file from `pos` on, to be read and written, whether `pos` is at a page or not; HP_BUF_TO_END: to
 * the file's end as it is now. Flags: HP_BUF_SHARED, HP_BUF_SPARSE. A file that is too short grows to pos + len (on huge pages:
 * to the page's end), and never becomes shorter. With HP_BUF_SHARED the range gets its place on the disk (in a memfd: in
 * memory) here, so that writing to it does not fail later with SIGBUS; HP_BUF_SPARSE leaves that out, for large files of
 * which little is written. `hint` is where the page is wished for that `pos` lies in, or NULL. The descriptor is not needed
 * afterwards.
 * -EINVAL: 0 bytes, flags, pos + len above INT64_MAX. -ENODATA: to the end, and nothing is behind `pos`. -ENODEV: not a regular
 * file. -EACCES: it has to be open for reading, and for writing as well where it is shared or has to grow. -EPERM: sealed.
 * -ENOSPC, -EFBIG: no place for it; the file may have become longer. -ENOMEM, -EBADF. *buf is empty on an error.
 * A death leaves a file that may have grown. On file systems without fallocate, growing may cut what another process
 * appends at the same moment. May block for the disk. */
HP_API int hp_buf_map_file(int fd, uint64_t pos, uint64_t len, void *hint, unsigned flags, hp_buf *buf);

/* Ends what hp_buf_alloc_pages, hp_buf_alloc_aligned or hp_buf_map_file gave, all of it, and makes *buf empty. -EBUSY: that
 * many sub-views are alive, and nothing has happened. -EINVAL: another view (a sub-view, a pool's). -ESTALE: it was unmapped
 * already, by a copy of the view. -ENOMEM: the kernel cannot (the process has too many mappings): it is mapped as before. */
HP_API int hp_buf_unmap(hp_buf *buf);

/* Makes bytes [off, off + len) zero, both ends at pages. In a pool it is hp_page_zero: the memory stays shared, in place and
 * populated. Pages of hp_buf_alloc_pages go back to the kernel, and are zeros when they are touched again. A mapped file, or
 * other memory, is written to. -EINVAL: range, or not at pages; -ESTALE; -ENOENT as hp_page_zero. */
HP_API int hp_buf_zero_pages(hp_buf buf, size_t off, size_t len);

/* ---- input and output ---- */

/* One read, write, recv or send of [off, off + len), which goes directly to or from the memory. What the kernel returns:
 * the bytes, which may be fewer; 0 at the end of a file or stream; or -errno. EINTR is retried, -EAGAIN is not. -EINVAL: the
 * range, without a call of the kernel. Block as the descriptor does; may be called from signal handlers. hp_buf_send gives
 * -EPIPE where the peer is gone; hp_buf_write raises SIGPIPE first, as write does. A death on the way leaves what the kernel
 * has done until then.
 * Origin: mem_read, mem_write, mem_recv, mem_send. */
HP_API int64_t hp_buf_read(int fd, hp_buf buf, size_t off, size_t len);
HP_API int64_t hp_buf_write(int fd, hp_buf buf, size_t off, size_t len);
HP_API int64_t hp_buf_recv(int socket, hp_buf buf, size_t off, size_t len, int flags);
HP_API int64_t hp_buf_send(int socket, hp_buf buf, size_t off, size_t len, int flags);

/* ---- the inline forms ---- */

/* Compiled into the caller; where they cannot be, the exported functions are called, which the library makes of these. */
#ifndef HP_BUF_INLINE
#define HP_BUF_INLINE extern inline __attribute__((gnu_inline, always_inline))
#endif

HP_BUF_INLINE hp_buf hp_buf_of(const void *start, size_t len)
{
	hp_buf buf;
	buf.start = (char *)start;
	buf.len = len;
	buf.pool = NULL;
	buf.owner = NULL;
	buf.generation = buf.whole = 0;
	return buf;
}

HP_BUF_INLINE bool hp_buf_holds(hp_buf buf, size_t off, size_t len)
{
	return off <= buf.len && len <= buf.len - off;
}

HP_BUF_INLINE hp_buf hp_buf_sub_unchecked(hp_buf buf, size_t off, size_t len)
{
	hp_buf sub = hp_buf_of(buf.start + off, len);
	sub.pool = buf.pool;
	return sub;
}

HP_BUF_INLINE void hp_buf_blit_unchecked(hp_buf src, size_t src_off, hp_buf dst, size_t dst_off, size_t len)
{
	if (len) memmove(dst.start + dst_off, src.start + src_off, len); /* not with NULL */
}

HP_BUF_INLINE int hp_buf_blit(hp_buf src, size_t src_off, hp_buf dst, size_t dst_off, size_t len)
{
	if (!hp_buf_holds(src, src_off, len) || !hp_buf_holds(dst, dst_off, len)) return -EINVAL;
	hp_buf_blit_unchecked(src, src_off, dst, dst_off, len);
	return 0;
}

HP_BUF_INLINE void hp_buf_blit_to_bytes_unchecked(hp_buf src, size_t off, void *bytes, size_t len)
{
	hp_buf_blit_unchecked(src, off, hp_buf_of(bytes, len), 0, len);
}

HP_BUF_INLINE int hp_buf_blit_to_bytes(hp_buf src, size_t off, void *bytes, size_t len)
{
	return hp_buf_blit(src, off, hp_buf_of(bytes, len), 0, len);
}

HP_BUF_INLINE void hp_buf_blit_from_bytes_unchecked(hp_buf dst, size_t off, const void *bytes, size_t len)
{
	hp_buf_blit_unchecked(hp_buf_of(bytes, len), 0, dst, off, len);
}

HP_BUF_INLINE int hp_buf_blit_from_bytes(hp_buf dst, size_t off, const void *bytes, size_t len)
{
	return hp_buf_blit(hp_buf_of(bytes, len), 0, dst, off, len);
}

HP_BUF_INLINE void hp_buf_blit_to_string_unchecked(hp_buf src, size_t off, size_t len, char *string)
{
	hp_buf_blit_to_bytes_unchecked(src, off, string, len);
	string[len] = 0;
}

HP_BUF_INLINE int hp_buf_blit_to_string(hp_buf src, size_t off, size_t len, char *string, size_t room)
{
	if (len >= room || !hp_buf_holds(src, off, len)) return -EINVAL;
	hp_buf_blit_to_string_unchecked(src, off, len, string);
	return 0;
}

HP_BUF_INLINE int64_t hp_buf_blit_from_string_unchecked(hp_buf dst, size_t off, const char *string)
{
	size_t len = strlen(string);
	hp_buf_blit_from_bytes_unchecked(dst, off, string, len);
	return (int64_t)len;
}

HP_BUF_INLINE int64_t hp_buf_blit_from_string(hp_buf dst, size_t off, const char *string)
{
	size_t len = strlen(string);
	int error = hp_buf_blit_from_bytes(dst, off, string, len);
	return error < 0 ? error : (int64_t)len;
}

HP_BUF_INLINE int hp_buf_compare(hp_buf a, hp_buf b)
{
	size_t len = a.len < b.len ? a.len : b.len;
	int order = len ? memcmp(a.start, b.start, len) : 0;
	return order ? order : (a.len > b.len) - (a.len < b.len);
}

#ifdef __cplusplus
}
#endif
#endif
