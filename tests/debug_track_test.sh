#!/usr/bin/env bash
# The debug mode "track" under Valgrind: memcheck sees an overrun, a use after free and what was never written, in blocks of
# a private pool; and nothing in a program without fault, or without the mode.
# Arguments: the command, the source folder, the build folder.
set -euo pipefail
source=$2 build=$3

if grep -q '^HUGEPOOL_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then
	echo "skipped: Valgrind and sanitizers exclude each other"
	exit 77
fi
for program in cc valgrind; do
	command -v $program >/dev/null || { echo "skipped: there is no $program"; exit 77; }
done
if ! echo '#include <valgrind/memcheck.h>' | cc -E - >/dev/null 2>&1; then
	echo "skipped: the library was built without valgrind/memcheck.h"
	exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
	echo "FAILED: $*"
	cat "$work/said"
	exit 1
}

cat >"$work/program.c" <<'END'
#include <hugepool/hugepool.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	hp_pool *pool;
	hp_cache *cache;
	struct hp_pool_options options = {
		.struct_size = sizeof options, .size = 8 << 20, .prefault = HP_PREFAULT_LAZY, .flags = HP_POOL_PRIVATE};
	struct hp_cache_options of_cache = {.struct_size = sizeof of_cache, .size = 100};
	int fault = argc > 1 ? atoi(argv[1]) : 0;
	if (hp_pool_create(&options, &pool) || hp_cache_create(pool, "cache", &of_cache, &cache)) return 2;
	volatile char *block = hp_malloc(pool, 100), *object = hp_cache_get(cache, 0);
	if (!block || !object) return 2;
	block[99] = object[99] = 1;
	if (fault == 1) block[100] = 1;
	if (fault == 2 && block[50]) return 3;
	if (fault == 3) object[100] = 1;
	hp_free(pool, (void *)block);
	hp_cache_put(cache, (void *)object);
	if (fault == 4) block[5] = 1;
	if (fault == 5) object[5] = 1;
	for (int i = 0; i < 500; i++) {
		char *some = hp_malloc(pool, (size_t)i * 100);
		for (int k = 0; k < i * 100; k++) some[k] = 1;
		some = hp_realloc(pool, some, (size_t)i * 90);
		if (!some || hp_free(pool, some)) return 2;
	}
	void *pages;
	if (hp_page_alloc(pool, 4 << 20, HP_PAGE_ZERO, &pages) || *(char *)pages || hp_page_free(pool, pages)) return 2;
	return hp_pool_detach(pool);
}
END
cc -g -O1 -Wall -Wextra -Werror -I"$source/include" -o "$work/program" "$work/program.c" "$build/libhugepool.a" -lnuma -pthread

check() { # fault, then what memcheck says
	HUGEPOOL_DEBUG=$1 valgrind --error-exitcode=9 "$work/program" "$2" >"$work/said" 2>&1 && status=0 || status=$?
	if [ -z "$3" ]; then
		[ $status = 0 ] || fail "status $status without a fault ($1 $2)"
	else
		[ $status = 9 ] && grep -q "$3" "$work/said" || fail "fault $2: status $status, and no '$3'"
	fi
}
check track 0 ""
check track,poison,canary,caller 0 ""
check track 1 "Invalid write"
check track 2 "uninitialised"
check track 3 "0 bytes after a block of size 100"
check track 4 "5 bytes inside a block of size 100 free'd"
check track 5 "5 bytes inside a block of size 100 free'd"
check "" 4 ""
echo passed
