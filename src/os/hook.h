/* How every function of this layer asks os_hook first. Internal to src/os. */
#ifndef HUGEPOOL_OS_HOOK_H
#define HUGEPOOL_OS_HOOK_H

#include <errno.h>
#include <os/os.h>

static inline bool os_answered(enum os_call call, int64_t *result)
{
	os_hook_fn *hook = os_hook;
	return __builtin_expect(hook != NULL, 0) && hook(call, result);
}

/* Returns the hook's answer from the calling function, whatever integer it returns. */
#define OS_ASK(call) \
	do { \
		int64_t answer_; \
		if (os_answered(call, &answer_)) return answer_; \
	} while (0)

/* The kernel's convention: -1 and errno become -errno. */
static inline int64_t os_result(int64_t result)
{
	return result == -1 ? -(int64_t)errno : result;
}

#endif
