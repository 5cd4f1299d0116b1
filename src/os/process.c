/* Signals, yielding, fork handlers: what cannot fail in a way that the library would have to answer. */
#include "os/os.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>

void os_signals_block(void *saved)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

void os_signals_restore(const void *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

void os_yield(void)
{
	sched_yield();
}

int os_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return -pthread_atfork(prepare, parent, child);
}
