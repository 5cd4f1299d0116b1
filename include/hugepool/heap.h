/* The shared heap: a graph of typed values under a root, in a pool, shared by all its processes.
 *
 * Values are plain C structs of registered types; what they refer to is named by hp_ref, which means the same in every
 * process. What the root no longer reaches is collected; nothing is ever moved. One transaction at a time changes a heap, and
 * a writer killed at any instruction leaves the heap as it was before its transaction, or, once committed, after it. Readers
 * take no lock, wait for nobody, and are waited for by nobody: one that does not go on only delays the reuse of memory.
 *
 * Four rules:
 * 1. Reference members of visible values change only by hp_heap_set, in a transaction. All other words are the application's,
 *    who may store to them at any time (by atomics where several do), or in a transaction with hp_heap_write, which undoes.
 * 2. A reference that was read in a section may be used until the section ends, or is guarded before.
 * 3. Members of a guarded value that others may change are read in a section.
 * 4. In a transaction, whatever was read in it, was replaced in it, or is new in it stays until it ends.
 *
 * A thread needs no registration. Any process of the pool may open any heap and write; forked children use their parent's
 * handle, but neither its transaction nor its guards. Calls that take a transaction belong to the thread that began it; reading
 * calls may come from any thread, sections also from signal handlers. Errors are negative errno values.
 *
 * Origin: Netmcore_heap of Ocamlnet. Unlike there a dead writer is undone instead of leaving a lock for ever, guards die with
 * their process, nothing need be attached at once, readers take no lock, and values are C structs. */
#ifndef HUGEPOOL_HEAP_H
#define HUGEPOOL_HEAP_H

#include <hugepool/pool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_heap hp_heap; /* this process' handle */
typedef struct hp_tx hp_tx;     /* a running transaction */

/* ---- references and types ---- */

/* {1, generation of the heap:7, heap:8, offset in the pool:48}; 0 is none. */
typedef struct hp_ref {
	uint64_t word;
} hp_ref;
#define HP_NONE ((hp_ref){0})

/* A reference member: `ref` in a heap, `priv` in private memory; the highest bit tells which. */
#define HP_REF(T) \
	union { \
		hp_ref ref; \
		T *priv; \
	}

struct hp_type;
struct hp_member {
	uint32_t offset; /* of a reference, in bytes */
	const struct hp_type
		*type; /* of what it refers to; &hp_any: not said, such values cannot be imported or exported */
};

/* What a struct looks like to the heap. Made by the macros below; programs that share a heap must agree on what is called by
 * the same name. At most 48 references in the fixed part, and 16 in an element of the tail. */
struct hp_type {
	const char *name; /* up to 47 bytes */
	uint32_t size;    /* of the fixed part, up to 32 KiB */
	uint32_t align;   /* power of two, up to 4096 */
	uint32_t element; /* bytes of an element of the flexible array at the end; 0: there is none */
	uint32_t tail;    /* where that begins */
	uint32_t count;   /* offset of the uint32_t that tells how many elements there are */
	uint32_t members, tail_members;
	const struct hp_member *member, *tail_member; /* the latter relative to an element */
};

/* HP_TYPE_LEAF(id, T)                               no references
 * HP_TYPE(id, T, (member, type), ...)               each member an HP_REF; type: the id of another type, or hp_any
 * HP_TYPE_ARRAY_LEAF(id, T, count, tail)            T ends in tail[], whose length is in its uint32_t member `count`
 * HP_TYPE_ARRAY(id, T, count, tail, (member, type), ...)  members of an element of the tail
 * HP_TYPE_VECTOR(id, T, count, tail, type)          the elements are references themselves
 * HP_TYPE_FULL(id, T, count, tail, ((member, type), ...), ((member, type), ...))  in the fixed part, and in an element
 * HP_TYPE_LEAF_TAIL(id, T, count, tail, (member, type), ...)  members of the fixed part; none in an element
 * define `const struct hp_type id`; at most 16 members each. A type named before it is defined: HP_TYPE_DECLARE(id). */
#define HP_TYPE_DECLARE(id) extern const struct hp_type id
HP_API_DATA extern const struct hp_type hp_any;

/* Ready-made types. A place for a string, and for nothing else, has room for a zero behind the elements that are counted. */
struct hp_string { /* s[len] is 0 */
	uint32_t len;
	char s[];
};
struct hp_bytes {
	uint32_t len;
	unsigned char data[];
};
struct hp_vector {
	uint32_t len, reserved;
	hp_ref item[];
};
struct hp_cell {
	HP_REF(void) value;
};
HP_API_DATA extern const struct hp_type hp_string_type, hp_bytes_type, hp_vector_type, hp_cell_type;

/* ---- heaps ---- */

struct hp_heap_options {
	size_t struct_size;
	uint64_t
		limit; /* bytes of pages that values may take; 0: what the pool has. The undo log, the types (16 KiB each) and
	                        bookkeeping (1/32) are beside it. */
	unsigned gc_percent; /* garbage tolerated before a collection, in percent of what lives; 0: 100 */
	unsigned grace_ms;   /* how long a shortage waits for readers before it is -ENOMEM; 0: 10 */
};

/* Makes a heap whose root is a deep copy of `root` (hp_value_import), or none when `type` is NULL. `options` may be NULL.
 * -ENOMEM: the root does not fit. -ENOSPC: the pool has 255 heaps. -EINVAL, -EUSERS, -EROFS. A death on the way leaves
 * nothing. */
HP_API int hp_heap_create(hp_pool *pool, const struct hp_heap_options *options, const struct hp_type *type,
                          const void *root, hp_heap **heap);

/* Names the heap; for any process of the pool, while the heap exists. Never 0. */
HP_API uint64_t hp_heap_id(const hp_heap *heap);

/* -ESTALE: there is no such heap any more. -EAGAIN: it is being ended. -EINVAL: no id. */
HP_API int hp_heap_open(hp_pool *pool, uint64_t id, hp_heap **heap);

/* The handle only. -EBUSY: a transaction runs on it. */
HP_API int hp_heap_close(hp_heap *heap);

#define HP_HEAP_FORCE 1u
/* Ends the heap, gives back all its memory, and closes the handle. -EBUSY: another live process has it open, or guards values
 * of it (not with HP_HEAP_FORCE: their next calls say -ESTALE); or a reader does not leave its section within timeout_ms
 * (with HP_HEAP_FORCE, too). -ETIMEDOUT, -EDEADLK as hp_heap_begin. -ESTALE: it is gone already; the handle is closed then. */
HP_API int hp_heap_destroy(hp_heap *heap, unsigned flags, int timeout_ms);

/* The root, or none; in a section or a transaction. */
HP_API hp_ref hp_heap_root(const hp_heap *heap);

HP_API hp_pool *hp_heap_pool(const hp_heap *heap);

/* ---- transactions ---- */

/* Becomes the writer. timeout_ms: 0 tries, -1 waits for ever. A dead writer is undone and replaced.
 * -EDEADLK: this thread is the writer already, or inside a section, or waits in a ring of writers. -ETIMEDOUT: a live writer
 * goes on. -ESTALE: the heap is gone. -EUSERS, -EROFS. */
HP_API int hp_heap_begin(hp_heap *heap, int timeout_ms, hp_tx **tx);

/* Ends it. 0, or the first error of the transaction: then everything has been undone. */
HP_API int hp_heap_commit(hp_tx *tx);
HP_API void hp_heap_abort(hp_tx *tx);

/* Commits what was done and goes on with a new transaction under the same lock. What is new and has been linked nowhere, and
 * what was unlinked, is garbage from now on unless pinned. Errors as commit; the lock is kept then, too. */
HP_API int hp_heap_checkpoint(hp_tx *tx);

/* begin; fn; commit, or abort when fn returns less than 0, which is returned. */
HP_API int hp_heap_modify(hp_heap *heap, int timeout_ms, int (*fn)(hp_tx *tx, void *arg), void *arg);

/* The first error so far, or 0. After an error calls do nothing, those that return references return none. */
HP_API int hp_heap_error(const hp_tx *tx);
HP_API hp_heap *hp_heap_of(const hp_tx *tx);

/* Room for `stores` words and for `n` values of `type` (with `elements` each), so that neither fails in this transaction. */
HP_API int hp_heap_reserve(hp_tx *tx, size_t stores, const struct hp_type *type, size_t n, uint32_t elements);

/* A new value, zeros, with `elements` in its tail (0 for types without). It is seen by others once something refers to it;
 * until then its members may be stored to freely, references included. None on failure: -ENOMEM at the limit, with the
 * process that keeps garbage from being reused in hp_heap_stat; -EINVAL (also a value of more than 4 GiB), -EPROTO (types).
 * They are kept in the transaction. */
HP_API hp_ref hp_heap_new(hp_tx *tx, const struct hp_type *type, uint32_t elements);
HP_API hp_ref hp_heap_new_string(hp_tx *tx, const char *s, size_t len); /* s NULL: zeros */
/* A vector of n references: to `uniform`, or to what fn gives for each index (a reference of 0 is fine; fn < 0: error). */
HP_API hp_ref hp_heap_new_vector(hp_tx *tx, uint32_t n, hp_ref uniform);
HP_API hp_ref hp_heap_new_vector_by(hp_tx *tx, uint32_t n, int (*fn)(hp_tx *tx, uint32_t i, hp_ref *item, void *arg),
                                    void *arg);
HP_API hp_ref hp_heap_box(hp_tx *tx, hp_ref value); /* a cell that holds it */

/* Stores a reference into a member of a value of this heap. Readers see the new one at once; an abort brings back the old one.
 * -EINVAL: a private pointer, or `member` does not lie in a live value. -EXDEV: a reference of another heap.
 * -ESTALE: its value is gone. -ENOMEM. */
HP_API int hp_heap_set(hp_tx *tx, hp_ref *member, hp_ref value);
HP_API int hp_heap_set_root(hp_tx *tx, hp_ref value);

/* Stores plain data that an abort undoes. Words at multiples of their size are stored whole, as by a release.
 * -EINVAL: a range outside of values, or over a reference. */
HP_API int hp_heap_write(hp_tx *tx, void *to, const void *from, size_t bytes);

/* Keeps a value over checkpoints, to the end. */
HP_API int hp_heap_pin(hp_tx *tx, hp_ref value);

/* ---- reading ---- */

/* A section: until its end everything that was reachable when it began, or is met on the way, stays. They nest. Keep them
 * short. Errors, to be checked: -EUSERS, -EROFS: there is no slot for this thread; then there is no section. */
HP_API int hp_heap_read_enter(hp_pool *pool);
HP_API void hp_heap_read_exit(hp_pool *pool);

static inline hp_ref hp_heap_load(const hp_ref *member)
{
	hp_ref ref;
	ref.word = __atomic_load_n(&member->word, __ATOMIC_ACQUIRE);
	return ref;
}

/* The address of a value. Unchecked: one addition; none, or a reference of another heap, gives an address that faults. */
static inline void *hp_heap_deref(const hp_heap *heap, hp_ref ref)
{
	return (void *)(*(const uintptr_t *)(const void *)heap + (uintptr_t)ref.word);
}

/* NULL unless it is a live value of that type (NULL: of any) in this heap. *bytes, if wanted: from there to the end of its
 * place, whatever its count says. */
HP_API void *hp_heap_deref_checked(const hp_heap *heap, hp_ref ref, const struct hp_type *type, size_t *bytes);

/* For reading several words as of one moment: *version, then read, then valid. -EAGAIN: a transaction is under way. */
HP_API int hp_heap_read_begin_version(hp_heap *heap, uint64_t *version);
HP_API bool hp_heap_read_valid(const hp_heap *heap, uint64_t version);

/* Guards keep values, and what they reach, until unguarded by the same thread or until it dies. */
#define HP_GUARDS 128
typedef struct hp_guard {
	hp_heap *heap;
	uint32_t who, count;
	uint8_t cell[HP_GUARDS];
} hp_guard;

/* In a section, or a transaction, or for what is guarded already; no lock, no waiting. -ENOSPC: a thread may have HP_GUARDS
 * cells in all; what was garbage when it was unguarded keeps its cell until it is reclaimed. -EXDEV, -EINVAL. */
HP_API int hp_heap_guard(hp_heap *heap, const hp_ref *value, unsigned count, hp_guard *guard);
/* -EPERM: another thread's, or from before a fork. */
HP_API int hp_heap_unguard(hp_guard *guard);

#define HP_HEAP_LOCKED 2u
/* find in a section (with HP_HEAP_LOCKED as the writer, so that nothing changes): it returns how many values it stored to
 * `out`, or an error. They are guarded, and then use runs outside of sections and locks: it may take its time, and begin
 * transactions. Returns what use returns. Origin: with_value and its forms for several values. */
HP_API int hp_heap_with_value(hp_heap *heap, int (*find)(hp_heap *heap, hp_ref out[], unsigned max, void *arg),
                              int (*use)(hp_heap *heap, const hp_ref value[], unsigned count, void *arg), void *arg,
                              unsigned flags);

/* ---- values ---- */

#define HP_VALUE_SHARE 1u /* parts that are in this heap already are referred to, not copied */
/* A deep copy of a private or mixed graph; sharing and cycles are kept. Of a tail as many elements are copied as its count
 * says. A private struct is what the member that leads to it says, and its whole graph stays as it is meanwhile. None on
 * failure, kept in the transaction: -EXDEV: a reference of another heap. -ESTALE: its value is gone. -EPROTO: a type that
 * this heap knows otherwise, a reference to a value of another type than the member says, or one address as two types.
 * -EINVAL: a private pointer in a member of type hp_any (a reference of this heap is fine there), or a count beyond its
 * place. -ENOMEM, -ENOSPC. */
HP_API hp_ref hp_value_import(hp_tx *tx, const struct hp_type *type, const void *value, unsigned flags);

/* A deep copy into one block of malloc, whose members are private pointers; *bytes may be NULL. Called in a section, or with
 * the value guarded. The value comes first. Others may go on storing meanwhile: every word is read once, so the copy is whole,
 * but not of one moment (see hp_heap_read_begin_version). -ENOMEM. -EINVAL: no reference, a member of type hp_any that is not
 * none, or a count beyond its place. -EXDEV. -ESTALE: not live. -EPROTO: a value of another type than the member says. */
HP_API int hp_value_export(hp_heap *heap, hp_ref value, void **copy, size_t *bytes);

/* Bytes of pages that a heap needs to hold the private graph and nothing else: the least `limit` with which hp_heap_create
 * makes it, and every larger one will do. -EXDEV: the graph has references. -EPROTO, -EINVAL, -ENOMEM as importing. */
HP_API int64_t hp_value_need(const struct hp_type *type, const void *value);

/* Elements that fit into the place of a value, whatever its count says; the zero behind a string is not one. 0: it has no tail,
 * or is not live. */
HP_API uint32_t hp_value_capacity(const hp_heap *heap, hp_ref ref);

/* ---- care ---- */

#define HP_GC_WAIT 1u /* waits, up to timeout_ms, until what was found is reclaimed */
#define HP_GC_TRIM 2u /* gives all empty slabs back */
/* Collects. Meanwhile, as in every collection, it uses private memory, up to a quarter of what the heap holds, and is slower
 * where there is none. -EAGAIN: found, but a reader (hp_heap_stat) keeps it from being reclaimed yet. Otherwise as
 * hp_heap_begin. */
HP_API int hp_heap_gc(hp_heap *heap, unsigned flags, int timeout_ms);

struct hp_heap_stat {
	uint64_t live;        /* bytes in use by values, garbage included until it is reclaimed */
	uint64_t held, limit; /* bytes of slabs, and how many there may be */
	uint64_t log;         /* bytes of the undo log */
	uint64_t values, slabs, types;
	uint64_t collections, recoveries, pause_ns, pause_max_ns; /* the writer's, of the last collection and the longest */
	bool pending;                                             /* found garbage waits for readers */
	int writer_pid;                                           /* 0: nobody writes */
	int blocked_pid;                                          /* whose section keeps it waiting; 0: nobody's */
	uint64_t guards;                                          /* cells in use */
};
HP_API int hp_heap_stat(hp_heap *heap, struct hp_heap_stat *stat);

/* All live values of a type (NULL: of all types) as the writer sees them; ends when fn returns other than 0, which is returned.
 * Otherwise as hp_heap_begin. fn may not begin transactions. */
HP_API int hp_heap_foreach(hp_heap *heap, const struct hp_type *type, int (*fn)(hp_heap *heap, hp_ref value, void *arg),
                           void *arg);

/* ---- the macros' insides ---- */
#define HP_STRIP_(...) __VA_ARGS__
#define HP_CALL_(macro, args) macro args
#define HP_APPLY_(macro, args) macro args
#define HP_OFFSET_(T, base, member, target) \
	{ \
		(uint32_t)(offsetof(T, member) - (base)), &target \
	}
#define HP_FIXED_(T, tail, pair) HP_CALL_(HP_OFFSET_, (T, 0, HP_STRIP_ pair))
#define HP_IN_TAIL_MEMBER_(T, tail, member, target) \
	{ \
		(uint32_t)(offsetof(T, tail[0].member) - offsetof(T, tail)), &target \
	}
#define HP_IN_TAIL_(T, tail, pair) HP_CALL_(HP_IN_TAIL_MEMBER_, (T, tail, HP_STRIP_ pair))
#define HP_EACH_1_(m, T, t, a) m(T, t, a)
#define HP_EACH_2_(m, T, t, a, ...) m(T, t, a), HP_EACH_1_(m, T, t, __VA_ARGS__)
#define HP_EACH_3_(m, T, t, a, ...) m(T, t, a), HP_EACH_2_(m, T, t, __VA_ARGS__)
#define HP_EACH_4_(m, T, t, a, ...) m(T, t, a), HP_EACH_3_(m, T, t, __VA_ARGS__)
#define HP_EACH_5_(m, T, t, a, ...) m(T, t, a), HP_EACH_4_(m, T, t, __VA_ARGS__)
#define HP_EACH_6_(m, T, t, a, ...) m(T, t, a), HP_EACH_5_(m, T, t, __VA_ARGS__)
#define HP_EACH_7_(m, T, t, a, ...) m(T, t, a), HP_EACH_6_(m, T, t, __VA_ARGS__)
#define HP_EACH_8_(m, T, t, a, ...) m(T, t, a), HP_EACH_7_(m, T, t, __VA_ARGS__)
#define HP_EACH_9_(m, T, t, a, ...) m(T, t, a), HP_EACH_8_(m, T, t, __VA_ARGS__)
#define HP_EACH_10_(m, T, t, a, ...) m(T, t, a), HP_EACH_9_(m, T, t, __VA_ARGS__)
#define HP_EACH_11_(m, T, t, a, ...) m(T, t, a), HP_EACH_10_(m, T, t, __VA_ARGS__)
#define HP_EACH_12_(m, T, t, a, ...) m(T, t, a), HP_EACH_11_(m, T, t, __VA_ARGS__)
#define HP_EACH_13_(m, T, t, a, ...) m(T, t, a), HP_EACH_12_(m, T, t, __VA_ARGS__)
#define HP_EACH_14_(m, T, t, a, ...) m(T, t, a), HP_EACH_13_(m, T, t, __VA_ARGS__)
#define HP_EACH_15_(m, T, t, a, ...) m(T, t, a), HP_EACH_14_(m, T, t, __VA_ARGS__)
#define HP_EACH_16_(m, T, t, a, ...) m(T, t, a), HP_EACH_15_(m, T, t, __VA_ARGS__)
#define HP_PICK_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, n, ...) HP_EACH_##n##_
#define HP_EACH_(m, T, t, ...) \
	HP_PICK_(__VA_ARGS__, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)(m, T, t, __VA_ARGS__)
#define HP_MEMBERS_(id) (uint32_t)(sizeof id##_members / sizeof *id##_members)
#define HP_TAIL_MEMBERS_(id) (uint32_t)(sizeof id##_tail_members / sizeof *id##_tail_members)
#define HP_FIXED_PART_(T) (uint32_t)sizeof(T), (uint32_t) __alignof__(T)
#define HP_TAIL_PART_(T, count, tail) \
	(uint32_t)sizeof(((T *)0)->tail[0]), (uint32_t)offsetof(T, tail), (uint32_t)offsetof(T, count)
#define HP_TYPE_LEAF(id, T) const struct hp_type id = {#id, HP_FIXED_PART_(T), 0, 0, 0, 0, 0, NULL, NULL}
#define HP_TYPE(id, T, ...) \
	static const struct hp_member id##_members[] = {HP_EACH_(HP_FIXED_, T, , __VA_ARGS__)}; \
	const struct hp_type id = {#id, HP_FIXED_PART_(T), 0, 0, 0, HP_MEMBERS_(id), 0, id##_members, NULL}
#define HP_TYPE_ARRAY_LEAF(id, T, count, tail) \
	const struct hp_type id = {#id, HP_FIXED_PART_(T), HP_TAIL_PART_(T, count, tail), 0, 0, NULL, NULL}
#define HP_TYPE_ARRAY(id, T, count, tail, ...) \
	static const struct hp_member id##_tail_members[] = {HP_EACH_(HP_IN_TAIL_, T, tail, __VA_ARGS__)}; \
	const struct hp_type id = {#id,  HP_FIXED_PART_(T), HP_TAIL_PART_(T, count, tail), 0, HP_TAIL_MEMBERS_(id), \
	                           NULL, id##_tail_members}
#define HP_TYPE_VECTOR(id, T, count, tail, target) \
	static const struct hp_member id##_tail_members[] = {{0, &target}}; \
	const struct hp_type id = {#id, HP_FIXED_PART_(T), HP_TAIL_PART_(T, count, tail), 0, 1, NULL, id##_tail_members}
#define HP_TYPE_LEAF_TAIL(id, T, count, tail, ...) \
	static const struct hp_member id##_members[] = {HP_EACH_(HP_FIXED_, T, , __VA_ARGS__)}; \
	const struct hp_type id = { \
		#id, HP_FIXED_PART_(T), HP_TAIL_PART_(T, count, tail), HP_MEMBERS_(id), 0, id##_members, NULL}
#define HP_TYPE_FULL(id, T, count, tail, fixed, elements) \
	static const struct hp_member id##_members[] = {HP_APPLY_(HP_EACH_, (HP_FIXED_, T, , HP_STRIP_ fixed))}; \
	static const struct hp_member id##_tail_members[] = { \
		HP_APPLY_(HP_EACH_, (HP_IN_TAIL_, T, tail, HP_STRIP_ elements))}; \
	const struct hp_type id = { \
		#id,          HP_FIXED_PART_(T), HP_TAIL_PART_(T, count, tail), HP_MEMBERS_(id), HP_TAIL_MEMBERS_(id), \
		id##_members, id##_tail_members}

#ifdef __cplusplus
}
#endif
#endif
