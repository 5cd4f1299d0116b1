/* Memory: mappings, advice, NUMA policies and where pages are.
 *
 * File mappings are MAP_SHARED unless asked for otherwise, anonymous ones always MAP_PRIVATE. The NUMA calls are plain
 * system calls, without libnuma: its numa_available() says yes in containers that then refuse mbind, so support is found
 * out by doing; and it reads sysfs when it is loaded, which a malloc's library should not make every program do. */
#include <linux/mempolicy.h>
#include <os/hook.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

int os_map(void *hint, size_t bytes, int prot, unsigned os_map_flags, int fd, uint64_t at, void **addr)
{
	int64_t result;
	*addr = NULL;
	if (os_answered(OS_MAP, &result)) {
		if (result < 0) return result;
		*addr = (void *)(uintptr_t)result;
		return 0;
	}
	int flags = os_map_flags & OS_MAP_PRIVATE ? MAP_PRIVATE : MAP_SHARED;
	if (os_map_flags & OS_MAP_PRIVATE_ANON) {
		flags = MAP_PRIVATE | MAP_ANONYMOUS;
		fd = -1;
		at = 0;
	}
	if (os_map_flags & OS_MAP_NORESERVE) flags |= MAP_NORESERVE;
	if (os_map_flags & (OS_MAP_HUGE_2M | OS_MAP_HUGE_1G))
		flags |= MAP_HUGETLB | (os_map_flags & OS_MAP_HUGE_2M ? 21 : 30) << MAP_HUGE_SHIFT;
	if (os_map_flags & OS_MAP_FIXED)
		flags |= MAP_FIXED;
	else if (os_map_flags & OS_MAP_AT)
		flags |= MAP_FIXED_NOREPLACE;
	if ((os_map_flags & (OS_MAP_FIXED | OS_MAP_AT)) && !hint) return -EINVAL;
#ifdef __SANITIZE_THREAD__
	/* It keeps most addresses for itself and turns a hint there into NULL, which must not be taken for exact. */
	flags &= ~MAP_FIXED_NOREPLACE;
#endif
	void *got = mmap(hint, bytes, prot, flags, fd, at);
	if (got == MAP_FAILED) return -errno;
	if ((os_map_flags & OS_MAP_AT) && got != hint) { /* before Linux 4.17 it is only a hint */
		munmap(got, bytes);
		return -EEXIST;
	}
	*addr = got;
	return 0;
}

int os_remap(void *from, size_t bytes, void *to)
{
	OS_ASK(OS_MAP);
	return mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED ? -errno : 0;
}

int os_unmap(void *addr, size_t bytes)
{
	OS_ASK(OS_UNMAP);
	return os_result(munmap(addr, bytes));
}

int os_protect(void *addr, size_t bytes, int prot)
{
	OS_ASK(OS_PROTECT);
	return os_result(mprotect(addr, bytes, prot));
}

int os_advise(void *addr, size_t bytes, int advice)
{
	OS_ASK(OS_ADVISE);
	int64_t result;
	do {
		result = os_result(madvise(addr, bytes, advice));
	} while (result == -EINTR);
	return result;
}

int os_lock_memory(void *addr, size_t bytes)
{
	OS_ASK(OS_LOCK_MEMORY);
	return os_result(mlock(addr, bytes));
}

int os_lock_on_fault(void *addr, size_t bytes)
{
	OS_ASK(OS_LOCK_MEMORY);
	return os_result(mlock2(addr, bytes, MLOCK_ONFAULT));
}

int os_unlock_memory(void *addr, size_t bytes)
{
	OS_ASK(OS_LOCK_MEMORY);
	return os_result(munlock(addr, bytes));
}

int os_mbind(void *addr, size_t bytes, int mode, uint64_t nodes, bool move)
{
	OS_ASK(OS_MBIND);
	unsigned long mask[2] = {nodes, 0};
	_Static_assert(sizeof mask[0] == 8, "64-bit targets only");
	/* The kernel takes one off the number of bits. */
	return os_result(
		syscall(SYS_mbind, addr, bytes, mode, nodes ? mask : NULL, nodes ? 65 : 0, move ? MPOL_MF_MOVE : 0));
}

int os_move_pages(unsigned long count, void **pages, int *status)
{
	OS_ASK(OS_MOVE_PAGES);
	int64_t result = os_result(syscall(SYS_move_pages, 0, count, pages, NULL, status, 0));
	return result > 0 ? 0 : result;
}

uint64_t os_nodes_with_memory(void)
{
	int64_t answer;
	if (os_answered(OS_MEMPOLICY, &answer)) return answer > 0 ? answer : 1;
	/* Refused with a mask shorter than the number of possible nodes, which is 1024 on common kernels. */
	unsigned long mask[4096 / 64] = {0};
	if (syscall(SYS_get_mempolicy, NULL, mask, 4096, NULL, MPOL_F_MEMS_ALLOWED) < 0 || !mask[0]) return 1;
	return mask[0];
}

size_t os_page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

uint64_t os_memory_total(void)
{
	struct sysinfo info;
	return sysinfo(&info) < 0 ? 0 : (uint64_t)info.totalram * info.mem_unit;
}

uint64_t os_address_space_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_AS, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
	return limit.rlim_cur;
}
