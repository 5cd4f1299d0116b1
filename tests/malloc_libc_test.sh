#!/usr/bin/env bash
# The build option HUGEPOOL_MALLOC_LIBC: a library built with it, in a folder of its own, and a program that uses it.
# Catches: an option that does not build, a function it forgets, and blocks that are the pool's after all.
# Arguments: the command, the source folder, the build folder.
set -euo pipefail
source=$2 build=$3

if grep -q '^HUGEPOOL_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then
	echo "skipped: once without a sanitizer is enough"
	exit 77
fi
for program in cc cmake; do
	command -v $program >/dev/null || { echo "skipped: there is no $program"; exit 77; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if command -v ninja >/dev/null; then
	export CMAKE_GENERATOR=Ninja # there may be no make
fi
cmake -S "$source" -B "$work/build" -DHUGEPOOL_MALLOC_LIBC=ON -DHUGEPOOL_TOOLS=OFF -DHUGEPOOL_TESTS=OFF -DHUGEPOOL_BENCH=OFF \
	-DCMAKE_BUILD_TYPE=Debug >"$work/log" 2>&1 && cmake --build "$work/build" -j 2 >>"$work/log" 2>&1 ||
	{ cat "$work/log"; echo "FAILED: does not build with HUGEPOOL_MALLOC_LIBC"; exit 1; }

cat >"$work/program.c" <<'END'
#include <errno.h>
#include <hugepool/hugepool.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define must(x) \
	do { \
		if (!(x)) { \
			printf("FAILED: line %d: %s\n", __LINE__, #x); \
			return 1; \
		} \
	} while (0)

int main(void)
{
	hp_pool *pool;
	struct hp_pool_options options = {.struct_size = sizeof options, .size = 4 << 20, .rung = HP_RUNG_4K, .choice = HP_CHOICE_REQUIRE};
	must(hp_pool_create(&options, &pool) == 0);
	struct hp_pool_stats before = {.struct_size = sizeof before}, after = before;
	must(hp_pool_stats(pool, &before) == 0);
	char *a = hp_malloc(pool, 100), *b = hp_calloc(pool, 10, 100), *c = hp_aligned_alloc(pool, 512, 100);
	must(a && b && c && (size_t)c % 512 == 0 && b[999] == 0);
	must(hp_pool_offset(pool, a) == HP_OFF_NONE && hp_usable_size(pool, a) == malloc_usable_size(a));
	memset(a, 7, 100);
	must((a = hp_realloc(pool, a, 100000)) && a[99] == 7);
	void *many[20];
	must(hp_malloc_bulk(NULL, 64, 20, many) == 0 && hp_free_bulk(NULL, 20, many) == 0);
	must(hp_malloc(pool, (size_t)1 << 62) == NULL && errno == ENOMEM);
	must(hp_calloc(pool, (size_t)1 << 62, 8) == NULL && errno == ENOMEM);
	must(hp_aligned_alloc(pool, 3, 8) == NULL && errno == EINVAL);
	must(hp_pool_stats(pool, &after) == 0 && before.free == after.free && after.slabs == 0);
	free(a); /* it is libc's */
	must(hp_free(pool, b) == 0 && hp_free(pool, c) == 0 && hp_free(pool, NULL) == 0);
	void *page; /* and the rest is the pool's */
	must(hp_page_alloc(pool, 4096, 0, &page) == 0 && hp_free(pool, page) == -EINVAL && hp_page_free(pool, page) == 0);
	must(hp_pool_detach(pool) == 0);
	puts("passed");
	return 0;
}
END
cc -Wall -Wextra -Werror -I"$source/include" -o "$work/program" "$work/program.c" "$work/build/libhugepool.a" -lnuma -pthread
[ "$("$work/program" | tee "$work/said")" = passed ] || { cat "$work/said"; exit 1; }
[ ! -e "$work/build/libhugepool_malloc.so" ] || { echo "FAILED: a malloc replacement on top of libc's malloc"; exit 1; }
echo "built with HUGEPOOL_MALLOC_LIBC, and libc's it is"
