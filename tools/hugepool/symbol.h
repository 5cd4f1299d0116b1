/* The name of an address in another process, from the maps that it has and the symbol tables of the files mapped. */
#ifndef HUGEPOOL_TOOL_SYMBOL_H
#define HUGEPOOL_TOOL_SYMBOL_H

#include <stddef.h>
#include <stdint.h>

/* "symbol+0x12 (program)", "program+0x1234" without symbols, "0x..." where the process is gone. */
void symbol_name(int pid, uint64_t address, char *text, size_t size);

#endif
