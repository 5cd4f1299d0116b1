/* Naming addresses of other processes: /proc/PID/maps says which file and where in it; the file's own symbol table, or the
 * one for the dynamic linker, says which function begins before that. Files are read through /proc/PID/root, where the
 * process sees them, and nothing in them is believed. */
#include "symbol.h"

#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct image {
	const unsigned char *at;
	uint64_t size;
};

/* `bytes` of the file from there, or NULL. */
static const void *part(const struct image *image, uint64_t from, uint64_t bytes)
{
	return from <= image->size && bytes <= image->size - from ? image->at + from : NULL;
}

/* Where the file's byte lies by its own count of addresses. */
static bool address_of(const struct image *image, const Elf64_Ehdr *header, uint64_t offset, uint64_t *address)
{
	for (unsigned i = 0; i < header->e_phnum; i++) {
		const Elf64_Phdr *segment = part(image, header->e_phoff + i * sizeof(*segment), sizeof(*segment));
		if (!segment || segment->p_type != PT_LOAD || offset < segment->p_offset ||
		    offset - segment->p_offset >= segment->p_filesz)
			continue;
		*address = segment->p_vaddr + (offset - segment->p_offset);
		return true;
	}
	return false;
}

/* The function of that table that begins last at or before the address; NULL: none. */
static const char *in_table(const struct image *image, const Elf64_Ehdr *header, const Elf64_Shdr *table,
                            uint64_t address, uint64_t *begin)
{
	const Elf64_Shdr *names = part(image, header->e_shoff + table->sh_link * sizeof(*names), sizeof(*names));
	if (!names || table->sh_link >= header->e_shnum) return NULL;
	const char *text = part(image, names->sh_offset, names->sh_size), *found = NULL;
	uint64_t count = table->sh_size / sizeof(Elf64_Sym);
	const Elf64_Sym *symbol = part(image, table->sh_offset, count * sizeof(*symbol));
	if (!text || !symbol || names->sh_size == 0 || text[names->sh_size - 1]) return NULL;
	for (uint64_t i = 0; i < count; i++) {
		if (ELF64_ST_TYPE(symbol[i].st_info) != STT_FUNC || !symbol[i].st_shndx || symbol[i].st_name >= names->sh_size)
			continue;
		uint64_t from = symbol[i].st_value;
		if (from > address || (symbol[i].st_size && address - from > symbol[i].st_size) || (found && from < *begin))
			continue;
		found = text + symbol[i].st_name;
		*begin = from;
	}
	return found;
}

static bool in_image(const struct image *image, uint64_t offset, const char *file, char *text, size_t size)
{
	const Elf64_Ehdr *header = part(image, 0, sizeof(*header));
	uint64_t address, begin = 0;
	if (!header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64 ||
	    header->e_shentsize != sizeof(Elf64_Shdr) || header->e_shoff % 8 || header->e_phoff % 8 ||
	    !address_of(image, header, offset, &address))
		return false;
	for (unsigned type = SHT_SYMTAB;; type = SHT_DYNSYM) {
		for (unsigned i = 0; i < header->e_shnum; i++) {
			const Elf64_Shdr *section = part(image, header->e_shoff + i * sizeof(*section), sizeof(*section));
			if (!section || section->sh_type != type || section->sh_offset % 8) continue;
			const char *name = in_table(image, header, section, address - 1, &begin); /* the call lies before it */
			if (!name) continue;
			snprintf(text, size, "%s+0x%" PRIx64 " (%s)", name, address - begin, file);
			return true;
		}
		if (type == SHT_DYNSYM) return false;
	}
}

static bool in_file(int pid, const char *path, uint64_t offset, char *text, size_t size)
{
	char through[PATH_MAX + 64];
	const char *slash = strrchr(path, '/');
	struct stat st;
	snprintf(through, sizeof(through), "/proc/%d/root%s", pid, path);
	int fd = open(through, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool named = false;
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
		void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (map != MAP_FAILED) {
			named = in_image(&(struct image){map, (uint64_t)st.st_size}, offset, slash ? slash + 1 : path, text, size);
			munmap(map, (size_t)st.st_size);
		}
	}
	if (fd >= 0) close(fd);
	if (!named) snprintf(text, size, "%s+0x%" PRIx64, slash ? slash + 1 : path, offset);
	return true;
}

void symbol_name(int pid, uint64_t address, char *text, size_t size)
{
	char path[64], line[PATH_MAX + 256], file[PATH_MAX];
	bool named = false;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	FILE *maps = fopen(path, "re");
	while (maps && !named && fgets(line, sizeof(line), maps)) {
		uint64_t from, to, offset;
		file[0] = 0;
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %*s %4095[^\n]", &from, &to, &offset, file) < 3)
			continue;
		if (address < from || address >= to || file[0] != '/') continue;
		named = in_file(pid, file, address - from + offset, text, size);
	}
	if (maps) fclose(maps);
	if (!named) snprintf(text, size, "0x%" PRIx64, address);
	for (char *at = text; *at; at++)
		if (*at < ' ' || *at > '~') *at = '?'; /* it goes to terminals */
}
