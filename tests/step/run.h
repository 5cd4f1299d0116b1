/* Entries of a table, each in a process of its own on one CPU, as many at a time as there are CPUs. */
#ifndef HUGEPOOL_STEP_RUN_H
#define HUGEPOOL_STEP_RUN_H

#include <stdbool.h>

/* Returns how many failures. */
typedef int run_one_fn(const void *table, unsigned index);
int run_all(run_one_fn *one, const void *table, unsigned count);

/* HP_STEP_ONLY is not set, or is a part of the name. */
bool run_wanted(const char *name);

/* One line, with the time since the entry began. */
__attribute__((format(printf, 1, 2))) void run_report(const char *format, ...);

#endif
