// DPDK, for those benchmarks that measure it.
#ifndef HUGEPOOL_RTE_H
#define HUGEPOOL_RTE_H

// Null, or why DPDK does not run here. Sets it up at the first call, in the main thread: its caches serve that thread.
const char *rte_ready();

#endif
