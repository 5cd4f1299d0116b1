#!/usr/bin/env bash
# Catches: an installed hugepool that cannot be used, and a README whose example has rotted. Installs to a folder of
# its own, takes the example out of README.md, builds it with pkg-config and with CMake, and runs both.
# Arguments: the command, the source folder, the build folder.
set -euo pipefail
source=$2 build=$3

if grep -q '^HUGEPOOL_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then
	echo "skipped: a library built with sanitizers is not for installing"
	exit 77
fi
for program in cc pkg-config cmake; do
	command -v $program >/dev/null || { echo "skipped: there is no $program"; exit 77; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
	echo "FAILED: $*"
	exit 1
}

cmake --install "$build" --prefix "$work/to" >/dev/null
export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$(find "$work/to" -name hugepool.pc)")
libraries=$(dirname "$PKG_CONFIG_PATH")
[ -e "$libraries/libhugepool.so" ] && [ -e "$libraries/libhugepool.a" ] || fail "a library is not installed"

mkdir "$work/example"
sed -n '/^```c$/,/^```$/{/^```/d;p}' "$source/README.md" >"$work/example/example.c"
[ "$(grep -c . "$work/example/example.c")" -ge 10 ] || fail "README.md has no example in C"

[ "$(pkg-config --modversion hugepool)" = "$(sed -n 's/^project(hugepool VERSION \([0-9.]*\).*/\1/p' "$source/CMakeLists.txt")" ] ||
	fail "pkg-config names another version than CMakeLists.txt"
# Word splitting is wanted: the flags are several words.
cc -Wall -Wextra -Werror -o "$work/with-pkg-config" "$work/example/example.c" $(pkg-config --cflags --libs hugepool)
cc -Wall -Wextra -Werror -o "$work/static" "$work/example/example.c" $(pkg-config --cflags hugepool) \
	"$libraries/libhugepool.a" -lnuma -luring -pthread

cat >"$work/example/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.20)
project(example C)
find_package(hugepool 0.1 REQUIRED)
add_executable(with_cmake example.c)
target_link_libraries(with_cmake PRIVATE hugepool::hugepool)
END
if command -v ninja >/dev/null; then
	export CMAKE_GENERATOR=Ninja # there may be no make
fi
cmake -S "$work/example" -B "$work/out" -DCMAKE_PREFIX_PATH="$work/to" >"$work/log" 2>&1 &&
	cmake --build "$work/out" >>"$work/log" 2>&1 || { cat "$work/log"; fail "the example does not build with CMake"; }

export LD_LIBRARY_PATH=$libraries
for program in "$work/with-pkg-config" "$work/static" "$work/out/with_cmake"; do
	said=$("$program") || fail "$(basename "$program") ended with status $?"
	[ "$said" = "still here" ] || fail "$(basename "$program") said: $said"
done

# What others can see is the API, under its version, and nothing else.
alien=$(nm -D --defined-only "$libraries/libhugepool.so" | awk '$2 != "A" {print $3}' | grep -v '^hp_.*@@HUGEPOOL_0\.1$') || true
[ -z "$alien" ] || fail "the library exports $alien"
for header in "$source"/include/hugepool/*.h; do
	[ -e "$work/to/include/hugepool/$(basename "$header")" ] || fail "$(basename "$header") is not installed"
done
echo "installed, and usable with pkg-config, CMake and statically"
