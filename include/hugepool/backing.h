/* What memory a pool asks for, and what it got.
 *
 * The page-size ladder has four rungs: 1 GiB and 2 MiB huge pages (hugetlb), transparent huge pages of shared memory,
 * and 4 KiB pages. A pool stands on one rung. A rung that fails is never skipped in silence: struct hp_report says for
 * each rung what was tried, the errno, the cause in words and the command that cures it.
 *
 * Origin: `alloc_really` of Ocamlnet's Netmcore_mempool (touching all pages at creation), with the page sizes and NUMA
 * nodes it never knew. */
#ifndef HUGEPOOL_BACKING_H
#define HUGEPOOL_BACKING_H

#include <hugepool/export.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HP_MAX_NODES 64 /* NUMA nodes are numbers 0 to 63, and sets of them are bit masks */
#define HP_RUNGS 4

/* The page size of a pool. */
typedef enum hp_rung {
	HP_RUNG_BEST = 0, /* the highest rung that holds */
	HP_RUNG_1G,       /* hugetlb pages of 1 GiB */
	HP_RUNG_2M,       /* hugetlb pages of 2 MiB */
	HP_RUNG_THP,      /* shared memory in transparent huge pages of 2 MiB */
	HP_RUNG_4K        /* ordinary shared memory */
} hp_rung;

/* How strictly the rung is meant. */
typedef enum hp_rung_choice {
	HP_CHOICE_ANY = 0, /* start at the top (1 GiB only for pools of at least 1 GiB), fall to whatever holds */
	HP_CHOICE_PREFER,  /* start at `rung`, fall */
	HP_CHOICE_REQUIRE  /* `rung` or -ENOMEM */
} hp_rung_choice;

/* Where the pages of one committed range lie. */
typedef enum hp_numa_policy {
	HP_NUMA_DEFAULT = 0, /* the calling thread's memory policy, nothing is bound */
	HP_NUMA_LOCAL,       /* the node of the CPU that the caller runs on */
	HP_NUMA_BIND,        /* only `nodes` */
	HP_NUMA_PREFERRED,   /* the lowest node of `nodes`, others when it is full */
	HP_NUMA_INTERLEAVE   /* page by page over `nodes` */
} hp_numa_policy;

struct hp_numa {
	hp_numa_policy policy;
	int strict;     /* not 0: a page on a wrong node, or a kernel that refuses the policy, is -ENOMEM / the errno */
	uint64_t nodes; /* bit n: node n; 0: the node of the calling CPU for BIND and PREFERRED, all nodes for INTERLEAVE */
};

/* When memory is really allocated. */
typedef enum hp_prefault {
	HP_PREFAULT_DEFAULT = 0, /* NOW */
	HP_PREFAULT_NOW,         /* before the call returns; nothing faults late */
	HP_PREFAULT_BACKGROUND,  /* the first 2 MiB (or one page, if larger) now, the rest by a thread of this process */
	HP_PREFAULT_LAZY         /* at the first touch; 4 KiB pages only: with huge pages it would be SIGBUS, so -EINVAL
	                            (private pools: on transparent huge pages as well) */
} hp_prefault;

/* Called while memory is populated, from one thread at a time: bytes done, bytes to do, the node being filled or -1.
 * A value other than 0 cancels: everything populated so far is given back and the call returns -ECANCELED. */
typedef int hp_progress_fn(void *arg, uint64_t done, uint64_t todo, int node);

struct hp_report_rung {
	hp_rung rung;
	uint64_t page_size; /* bytes */
	int tried;          /* 0: not tried; cause says why */
	int error;          /* 0, or the negative errno */
	char cause[192];    /* in words, empty when all went well */
	char cure[192];     /* a command, empty when there is none */
};

struct hp_report_node {
	int node;
	uint64_t pages;     /* pages of page_size bytes that lie there */
	uint64_t misplaced; /* how many of them the policy wanted elsewhere */
};

/* What was asked and what was got. Filled on success and on failure. */
struct hp_report {
	uint64_t bytes_asked, bytes_got;
	hp_rung rung_asked, rung_got; /* rung_got is HP_RUNG_BEST when none held */
	hp_rung_choice choice;
	uint64_t page_size; /* of rung_got, bytes */
	unsigned rungs;     /* entries of rung[], in the order of the ladder */
	struct hp_report_rung rung[HP_RUNGS];
	struct hp_numa numa; /* as asked */
	int numa_error;      /* 0, or why the policy could not be set: a negative errno */
	char numa_cause[192];
	char numa_cure[192];
	unsigned nodes; /* entries of node[]; 0 where the kernel could not say */
	struct hp_report_node node[HP_MAX_NODES];
	int lock_error;       /* 4 KiB pages: 0 when locked in memory, else the negative errno */
	unsigned threads;     /* that populated */
	uint64_t prefault_ns; /* how long they took */
};

/* The report as text, lines ended by \n. Writes at most `size` bytes, the closing 0 included, and returns the length
 * that the whole text has, as snprintf does. Any thread; blocks never. */
HP_API int hp_report_text(const struct hp_report *report, char *text, size_t size);

/* "1 GiB", "2 MiB", "2 MiB (THP)", "4 KiB". */
HP_API const char *hp_rung_name(hp_rung rung);

#ifdef __cplusplus
}
#endif
#endif
