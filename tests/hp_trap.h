/* An interruption after the n-th instruction of an operation: the processor's trap flag brings a signal after each, and
 * the n-th runs what the test gives. Only on x86-64, and not under sanitizers, whose own code would be stepped as well:
 * HP_TRAP says whether. */
#ifndef HP_TRAP_TEST_H
#define HP_TRAP_TEST_H

#include "hp_page.h"

#include <ucontext.h>

#if defined(__x86_64__) && !HP_TEST_SANITIZER
#define HP_TRAP 1

static void (*interruption)(void);
static unsigned long steps, interrupt_at;
static bool interrupted;

static inline void on_trap(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	ucontext_t *at = context;
	if (++steps < interrupt_at) return;
	at->uc_mcontext.gregs[REG_EFL] &= ~0x100ll; /* no further steps */
	interrupted = true;
	interruption();
}

#define TRAP_FLAG(change) \
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\t" change "\n\tpopfq\n\tlea 128(%%rsp), %%rsp" :: \
	                     : "memory", "cc")

/* Runs the operation with an interruption after its n-th instruction; false: it has fewer. */
static inline bool interrupted_at(unsigned long n, void (*operation)(void))
{
	steps = 0;
	interrupt_at = n;
	interrupted = false;
	TRAP_FLAG("orq $0x100, (%%rsp)");
	operation();
	TRAP_FLAG("andq $~0x100, (%%rsp)");
	return interrupted;
}

#else
#define HP_TRAP 0
#endif

#endif
