/* What both ends have to agree on: names, and where the socket is; and how they tell what is wrong. */
#include "keep/wire.h"
#include "os/os.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VARIABLE "HUGEPOOL_KEEPER"

bool keep_name_ok(const char *name, size_t room)
{
	size_t length = strnlen(name, room < POOL_NAME_MAX ? room : POOL_NAME_MAX);
	if (length == 0 || length == room || length == POOL_NAME_MAX) return false;
	for (size_t i = 0; i < length; i++) /* a list goes to terminals */
		if ((unsigned char)name[i] < ' ' || name[i] == 0x7f || name[i] == '/') return false;
	return true;
}

/* The environment is not for programs that run with more rights than their caller has. */
int keep_path(const char *given, char path[OS_PATH_MAX])
{
	if (!given) given = secure_getenv(VARIABLE);
	const char *home = given || os_uid() == 0 ? NULL : secure_getenv("XDG_RUNTIME_DIR");
	int length = given ? snprintf(path, OS_PATH_MAX, "%s", given)
	                   : snprintf(path, OS_PATH_MAX, "%s/hugepool.sock", home ? home : "/run");
	return length < 0 || (size_t)length >= OS_PATH_MAX ? -ENAMETOOLONG : 0;
}

void keep_say(hp_log_fn *log, void *arg, const char *format, ...)
{
	if (!log) return;
	char line[512];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	log(arg, line);
}
