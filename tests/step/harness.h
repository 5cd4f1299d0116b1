/* The stepping harness: what operations of the library leave when their process is stopped, or killed, at any
 * instruction.
 *
 * A *world* is one pool, a few *actors* (processes attached to it that run functions on request), and a *model*: the
 * blocks that should be live, filled with a pattern. The harness itself is no participant: it looks at the shared memory
 * through mappings of its own. One function of one actor, the victim, is run instruction by instruction under ptrace:
 *
 *   deaths (step_case)   after every instruction that changed shared memory, control and data are copied, the copy is
 *                        attached to as if the victim had been killed there, and everything is verified (verify.c). A
 *                        sample of the points is repeated with a real SIGKILL and the real pool.
 *   pairs (step_pair)    at every instruction of A, B's whole function runs, then A goes on to its end, and both results,
 *                        the pool and the private views of both are verified (pair.c). All of it is then put back to
 *                        where it was (private memory, registers, shared memory), and A does its next instruction.
 *
 * A new operation is one step_fn and one line in a table; see README.md. */
#ifndef HUGEPOOL_STEP_HARNESS_H
#define HUGEPOOL_STEP_HARNESS_H

#include <hugepool/cache.h>
#include <hugepool/heap.h>
#include <hugepool/hugepool.h>
#include "pool/pool.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#define STEP_ACTORS 6
#define STEP_BLOCKS 512
#define STEP_LIST 8192 /* blocks that step_exhaust can hold */

/* Runs in an actor. `pool` is the actor's handle, NULL while it is not attached. Returns 0 or more, or -errno. */
struct step_env {
	hp_pool *pool;
	const int *fds;  /* of the world's pool */
	uint64_t *list;  /* STEP_LIST words, shared with the harness, an own list for every actor */
	hp_cache *cache; /* the actor's handle of the world's cache */
	hp_heap *heap;   /* the same of its heap; and what the actor has begun there */
	hp_tx *tx;
	hp_guard guard;
	hp_ref kept;
};
typedef int64_t step_fn(struct step_env *env, uint64_t x, uint64_t y);

/* Functions of actors. x, y as said. */
step_fn step_attach, step_detach;           /* - */
step_fn step_alloc;                         /* bytes / 4096 pages, flags: the block's offset */
step_fn step_free;                          /* offset */
step_fn step_touch;                         /* registers the thread: a slot, nothing owned */
step_fn step_recover, step_grow, step_trim; /* -; bytes; keep */
step_fn step_exhaust;     /* allocates blocks of x pages until nothing is left, into env->list: how many */
step_fn step_free_list;   /* frees y blocks of the list, from the x-th */
step_fn step_churn;       /* x pairs of alloc and free of y pages, 0 or the first error */
step_fn step_malloc;      /* bytes, alignment or 0: the block's offset */
step_fn step_mfree;       /* offset */
step_fn step_realloc;     /* offset, bytes: the block's new offset */
step_fn step_malloc_bulk; /* y blocks of x bytes, into env->list: 0 */
step_fn step_at_hand;     /* objects of x bytes that the thread has at hand, or (y) room for them in its magazine */
step_fn step_room;        /* objects of the world's cache in the magazine: how many more it can take */
step_fn step_malloc_all;  /* hp_malloc of x bytes until there is no more, into env->list: how many */
step_fn step_mfree_list;  /* hp_free of y blocks of the list, from the x-th */
/* The world's cache (cache.c), which has the name "objects". */
#define STEP_BUILT UINT64_C(1) << 32 /* with constructor and destructor, which mark and check the object's first word */
step_fn step_cache_create;           /* size, flags: makes it */
step_fn step_cache_make;             /* size: makes another, "made", and closes it */
step_fn step_cache_open;             /* x: 0 or STEP_BUILT */
step_fn step_cache_reopen;           /* opens it again, and closes that */
step_fn step_cache_destroy;          /* - */
step_fn step_cache_remake;           /* pages to free or 0, size + STEP_BUILT: ends it, makes it anew, with a slab */
step_fn step_cache_limit;            /* n */
step_fn step_cache_get;              /* -, nanoseconds to wait at most: the object's offset */
step_fn step_cache_get_anew;         /* the same; with no memory left opens the cache that has been made anew, too */
step_fn step_cache_put;              /* offset */
step_fn step_cache_get_bulk, step_cache_put_bulk;   /* x objects, into env->list; y of the list, from the x-th */
step_fn step_cache_get_array, step_cache_put_array; /* x objects, into env->list; y objects from offset x on */
step_fn step_cache_prime, step_cache_reclaim, step_cache_invalidate; /* n; -; - */
step_fn step_cache_get_all;                                          /* until it is refused, into env->list: how many */
step_fn step_cache_put_list;                                         /* one by one, y of the list, from the x-th */
/* Publication. */
step_fn step_into; /* offset of the word, bytes */
step_fn step_from; /* offset of the word */

struct step_actor {
	pid_t pid; /* 0: none */
	int to, from;
	bool alive, traced;
	uint64_t *list;
	struct step_env *env; /* at the same address in the actor */
};

struct step_block {
	hp_off off;
	uint64_t pages; /* 0: an object in a slab */
	uint64_t bytes;
	int owner;     /* class PROCESS: the actor, otherwise -1 */
	unsigned skip; /* bytes at the start that are no part of the pattern */
	bool cached;   /* an object of the world's cache */
};

struct step_pool {
	uint64_t pages, capacity; /* of 4 KiB; chunks have 64 pages, or 512 where capacity is 32768 or more */
	unsigned flags;
	bool slabs;  /* operations use slabs: their descriptors are compared too, and every actor has magazines */
	bool caches; /* with slabs; and caches, or the cells of slots: entries, cells, the first directory, and all data */
	bool heaps;  /* with slabs; and heaps: the first entries, guard cells, and all data that is in use */
};

#define STEP_SKIP \
	16 /* of objects of caches, and of blocks that hold a published word: the mark; the word is the second */
#define STEP_WATCHED_CACHES 4
#define STEP_WATCHED_HEAPS 4
#define STEP_MARKS 128 /* pages at most where objects are constructed, which have a page each */

/* The world's cache, as it should be. */
struct step_cache {
	bool there, built;
	unsigned stale; /* bit a: actor a's handle is one of a cache that was here before */
	uint64_t stride, limit;
};

struct step_world {
	const char *name;
	struct step_pool shape;
	int fds[3];
	char *control, *data;             /* the harness' own mappings */
	uint64_t control_size, data_size; /* of control, what is compared and copied */
	uint64_t slabs_at;                /* in the file; in `geometry`: in these mappings */
	uint64_t front;                   /* of control, up to slabs */
	struct pool_geometry geometry;
	struct step_actor actor[STEP_ACTORS];
	struct step_block block[STEP_BLOCKS];
	unsigned blocks;
	uint64_t object; /* size of the latest object in the model: what survivors allocate until there is no more */
	struct step_cache cache;
	hp_off giving; /* object that A is putting back: until A says so nobody knows whether it has */
	hp_off word;   /* a word that blocks are published in; 0: none */
	uint64_t last_word;
	uint64_t last_mark[STEP_MARKS]; /* the first word of each page, where objects are constructed */
	char *last_data;                /* of heaps: data as last seen, so many bytes of it */
	uint64_t last_bytes;
	hp_off may_go[STEP_BLOCKS]; /* STEP_PUTS: what the operation puts back */
	unsigned going;
	uint64_t x, y; /* arguments of the operation: set by the table, or by the set-up */
	/* where the victim is */
	uint64_t instructions, states;
	struct user_regs_struct regs;
	int effect;         /* seen so far: 0 none, 1 complete */
	char *last, *first; /* control as last seen, and as it was at the beginning */
	struct step_seen *seen;
	struct step_copy *copy;
	unsigned failures;
	unsigned kills;      /* real ones */
	unsigned look_alive; /* actors that live in the copy looked at */
};

/* Worlds. step_open makes pool and no actors. */
struct step_world *step_open(const char *name, const struct step_pool *shape);
void step_close(struct step_world *world);
char *step_map_control(struct step_world *world, int fd);
void step_start(struct step_world *world, int actor); /* forks it; not attached */
void step_join(struct step_world *world, int actor);  /* forks it, attaches, takes a slot */
int64_t step_call(struct step_world *world, int actor, step_fn *fn, uint64_t x, uint64_t y);
void step_send(struct step_world *world, int actor, step_fn *fn, uint64_t x, uint64_t y);
int64_t step_receive(struct step_world *world, int actor); /* of what was sent; INT64_MIN: not within 20 s */
void step_kill(struct step_world *world, int actor);
/* The actor allocates; the block goes into the model and gets its pattern. Ends the case when it fails. */
hp_off step_block(struct step_world *world, int actor, uint64_t pages, unsigned flags);
void step_unblock(struct step_world *world, int actor, hp_off off); /* frees, and out of the model */
/* The same by hp_malloc: an object, or a block of whole pages where it is large. */
hp_off step_object(struct step_world *world, int actor, uint64_t bytes);
void step_fill(struct step_world *world, int actor, uint64_t bytes);   /* until there is no more */
void step_use_up(struct step_world *world, int actor, uint64_t bytes); /* until its magazine is empty */
void step_unobject(struct step_world *world, int actor, hp_off off);
/* Caches: the actor makes the world's (`flags` of the cache, and STEP_BUILT), opens it, gets one object, or n by one call. */
void step_cache(struct step_world *world, int actor, uint64_t size, uint64_t flags);
void step_opens(struct step_world *world, int actor);
void step_limit(struct step_world *world, int actor, uint64_t n);
hp_off step_get(struct step_world *world, int actor);
void step_put(struct step_world *world, int actor, hp_off off);
void step_get_all(struct step_world *world, int actor); /* until it is refused */
void step_model_add_cached(struct step_world *world, hp_off off);
/* A word of the actor's, empty. */
void step_word(struct step_world *world, int actor);
uint64_t step_word_value(const struct step_world *world);
uint64_t step_size(uint64_t bytes); /* what hp_malloc gives for so many */
void step_model_add(struct step_world *world, hp_off off, uint64_t pages, int owner);
void step_model_add_object(struct step_world *world, hp_off off, uint64_t bytes);
void step_model_add_block(struct step_world *world, const struct step_block *block);
/* The bytes that lie at an offset are the beginning of the pattern of the block that was at `of`. */
bool step_pattern_at(struct step_world *world, hp_off at, hp_off of, uint64_t bytes);
bool step_model_remove(struct step_world *world, hp_off off);

/* Running one function of an actor instruction by instruction. */
void step_begin(struct step_world *world, int actor, step_fn *fn, uint64_t x, uint64_t y); /* stops before its first */
bool step_one(struct step_world *world,
              int actor); /* one instruction; false: the function is over, and where it stands */
/* To the first instruction where `there` holds; it must come. */
void step_until(struct step_world *world, int actor, bool (*there)(struct step_world *world, int actor));
/* The same at full speed: looks when one of up to 4 words of control is written, or (words 0) after each system call. */
void step_until_written(struct step_world *world, int actor, bool (*there)(struct step_world *world, int actor),
                        const void *const *word, unsigned words);
int64_t step_finish(struct step_world *world, int actor); /* lets it run to the end, and gives its result */
bool step_inside(struct step_world *world, int actor);    /* its slot says that it is inside an operation */
bool step_at_syscall(const struct step_world *world);

__attribute__((format(printf, 2, 3))) void step_fail(struct step_world *world, const char *format, ...);
#define STEP_NEED(world, what) \
	do { \
		if (!(what)) step_broken(world, __FILE__, __LINE__, #what); \
	} while (0)
__attribute__((noreturn)) void step_broken(struct step_world *world, const char *file, int line, const char *what);

/* ---- verification ---- */

enum step_effect {
	STEP_NONE = 0,  /* nothing in the model may change */
	STEP_ALLOCATES, /* a block of `pages` pages is there or not */
	STEP_FREES,     /* the block at world->x is there or not */
	STEP_GROWS,     /* `pages` pages more are committed, or not */
	STEP_TRIMS,     /* up to `pages` pages less */
	STEP_MALLOCS,   /* a block of `bytes` is there or not */
	STEP_MOVES,     /* the block at world->x is there, or one of `bytes` beside it, or that one alone */
	STEP_RESIZES,   /* the block at world->x has its length, or `bytes` */
	STEP_GETS,      /* `count` objects of the cache are there, or some of them, or none */
	STEP_PUTS,      /* the objects in world->may_go, or the one at world->x, are there, or some of them, or none */
	STEP_MAKES,     /* the cache "made" is there or not */
	STEP_ENDS,      /* the world's cache is there or not */
	STEP_REMAKES,   /* the same, or there is another of that name, of which an object may be out */
	STEP_RENEWS,    /* what was constructed in the world's cache is nothing to be given out any more, or is */
	STEP_LIMITS,    /* its limit is what it was, or `bytes` */
	STEP_PUBLISHES, /* a block of `bytes` is there and the world's word names it, or neither */
	STEP_CHANGES, /* the heaps' graphs are as before, as after, or as some of the states in between: `count` of them in all */
	STEP_EMPTIES /* the block at world->y is there and the word names it, or neither */
};

struct step_expect {
	enum step_effect effect;
	uint64_t pages, bytes;
	hp_off off;     /* STEP_FREES */
	int must;       /* -1: either, 0: not done, otherwise how much of it */
	unsigned count; /* of what it does; 0: 1 */
	bool whole;     /* of STEP_GETS and STEP_PUTS: all or none */
	bool over;      /* nobody died: nothing is left behind, constructed objects neither */
	unsigned alive; /* bit a: actor a lives (in a copy: gets its lock) */
	bool files;     /* the data file holds exactly the committed pages */
	bool takes;     /* what living actors own may be taken from them */
};

/* Verifies the pool as it is now, in a copy. Returns how much of the effect is there (0 none, 1 done or half of two, 2),
 * or -1. */
int step_verify_copy(struct step_world *world, const struct step_expect *expect);
/* The same on the pool itself, which is not the same afterwards. */
int step_verify_real(struct step_world *world, const struct step_expect *expect);
bool step_patterns_intact(struct step_world *world);
bool step_marks_intact(
	struct step_world *world); /* objects of the cache that are out are constructed, where they should be */
void step_copy_free(struct step_world *world);
/* cache.c: the world's cache, and others, as seen by who attaches: how much of a cache's effect is there. `object`: those that
 * are live. step_cache_over: with nothing out any more. */
int step_verify_cache(struct step_world *world, const struct step_expect *expect, hp_pool *pool, hp_cache **cache,
                      const hp_off *object, unsigned objects);
void step_cache_over(struct step_world *world, const struct step_expect *expect, hp_pool *pool, hp_cache *cache);
/* heap.c: what the graphs of all heaps are, as seen by who attaches, who then writes, collects, and ends them: how much of
 * the effect is there. step_heap_goals finds out, in a world of its own, what they are before and after. */
int step_verify_heaps(struct step_world *world, const struct step_expect *expect, hp_pool *pool);
bool step_changed(const struct step_world *world); /* control, and the word, since `last` */
uint64_t step_state(const struct step_world *world);
void step_remember(struct step_world *world);
/* A pool knows its files: a copy's header must name the copy's. */
void step_rename_files(struct step_world *world, struct pool_geometry *geometry, int lives, int data);
int step_record(const struct step_world *world, const char *control, int actor); /* -1: none */
/* Nobody but the owner writes A. `busy`: an actor of which nothing may be taken, or -1. */
void step_owners_alone(struct step_world *world, int victim, int busy);
/* Pages that can be allocated for class POOL, by what the control structures say. */
uint64_t step_free_pages(struct step_world *world);
/* Objects of hp_malloc for so many bytes that can be had at least, by the same. */
uint64_t step_free_objects(struct step_world *world, uint64_t bytes);
uint64_t step_free_objects_of(hp_pool *pool, uint64_t bytes);
uint64_t step_hash(const void *bytes, size_t count, uint64_t hash);
bool step_seen(struct step_world *world, uint64_t hash); /* true when it was there; adds it */
void step_seen_free(struct step_world *world);

/* ---- deaths ---- */

typedef void step_setup_fn(struct step_world *world);

struct step_case {
	const char *name;
	const struct step_pool *pool;
	step_setup_fn *setup; /* actor 0 is the victim: started by it, attached or not */
	step_fn *run;
	uint64_t x, y; /* 0: as the set-up says */
	enum step_effect effect;
	uint64_t pages; /* of the effect; 0: x */
	unsigned flags;
	uint64_t bytes;  /* of STEP_MALLOCS; 0: as hp_malloc gives for x. Of STEP_MOVES and STEP_RESIZES; 0: for y */
	unsigned count;  /* of STEP_GETS, STEP_PUTS, STEP_MALLOCS: how many; 0: one, which is the result */
	int error;       /* the operation must fail with this, and do nothing */
	step_fn *middle; /* of STEP_CHANGES: leaves what is there half way; may be NULL */
};
#define STEP_FILES 1u   /* verify which pages the data file holds */
#define STEP_TAKES 2u   /* may take from living owners */
#define STEP_FAILS 4u   /* the operation must fail with -ENOMEM, and do nothing */
#define STEP_DEPTH2 16u /* a recoverer: points are repeated with it killed, and actor 1, which recovers both, stepped */
#define STEP_LEAVES 32u /* afterwards the victim is no participant any more */
#define STEP_NO_KILLS 64u
#define STEP_ALONE 128u   /* before the real pool is verified the other actors are killed too */
#define STEP_WHOLE 512u   /* all or none */
#define STEP_UNDOES 2048u /* it fails, and takes back what it had done */
#define STEP_FEWER 1024u  /* fewer real kills */
#define STEP_WITHIN 4096u /* the victim is in the middle of a transaction when it begins */
#define STEP_BUSY 256u    /* actor 1 is stopped inside an operation: what it owns stays; in copies it is dead */

void step_heap_goals(const struct step_case *entry);

/* A value of heaps. `seal` tells whether it is whole. */
#define STEP_SEAL UINT64_C(0x5ea1ed0b1ec70f57)
struct step_part {
	HP_REF(struct step_part) a;
	HP_REF(struct step_part) b;
	HP_REF(void) more;
	uint64_t id, seal, fill[59];
};
HP_TYPE_DECLARE(step_part_type);
hp_ref step_part(hp_tx *tx, uint64_t id, hp_ref a, hp_ref b);
bool step_part_whole(const hp_heap *heap, hp_ref ref);

/* ---- pairs ---- */

struct step_side {
	step_fn *run;
	uint64_t x, y;
	enum step_effect effect;
	uint64_t pages;
	unsigned count; /* of STEP_GETS: into env->list; 0: one, which is the result */
};

struct step_pair {
	const char *name;
	const struct step_pool *pool;
	step_setup_fn *setup; /* actors 0 and 1 are A and B; world->x, world->y: their arguments where the table has 0 */
	struct step_side a, b;
	unsigned flags;
};
#define STEP_MAY_FAIL 1u  /* one of the two may find nothing: -ENOMEM, -EAGAIN, -ESTALE, -EBUSY, -ENOENT */
#define STEP_SAME_FREE 2u /* both free one block: one gets 0, the other -EALREADY or -ENOENT */
#define STEP_STOPS 4u /* B is all of actors 1 to 3 at once, each of them doing much; nothing else is verified of them */
#define STEP_RACES 16u /* with STEP_SAME_FREE, by the owner and another: both may get 0, and nothing is verified then */
#define STEP_SLOW 32u  /* fewer points */
#define STEP_EITHER 128u /* one of the two must succeed */
#define STEP_ONE 256u    /* and only one of them */
#define STEP_RARE 64u    /* hardly more than those that change something */
#define STEP_FRESH 8u    /* what A does in the kernel cannot be put back: a sample of points, each from a fresh start */

void step_heap_pair_goals(const struct step_pair *entry);
struct pool_header *step_header(struct step_world *world);
struct pool_chunk *step_chunks(struct step_world *world);
struct pool_slot *step_slots(struct step_world *world);
struct pool_record *step_records(struct step_world *world);
struct slab *step_slabs(struct step_world *world); /* descriptors, of page 0 on */
/* Somewhere a slab is made, ended, or held while what is in it is destroyed. */
bool step_slab_held(struct step_world *world, int actor);

/* Runs all entries in processes of their own, two at a time, and prints a line for each. Returns how many failed. */
int step_run_cases(const struct step_case *cases, unsigned count);
int step_run_pairs(const struct step_pair *pairs, unsigned count);

/* Ends the program with 77 where stepping is not possible. */
void step_need_ptrace(void);
bool step_full(void); /* HP_STEP_FULL=1: every point where otherwise a sample is taken */

#endif
