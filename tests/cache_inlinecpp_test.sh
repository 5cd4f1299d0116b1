# The inline forms, compiled as C++ and linked with the shared library, as a C++ program would be.
set -u
source_dir=$2
build=$3
compiler=$(command -v c++ || command -v g++ || command -v clang++) || {
	echo "skipped: there is no C++ compiler"
	exit 77
}
if grep -q '^HUGEPOOL_SANITIZE:[A-Z]*=..*' "$build/CMakeCache.txt"; then
	echo "skipped: the library is built for a sanitizer"
	exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for level in -O0 -O2; do
	"$compiler" -std=c++17 $level -Wall -Wextra -Werror -pthread -I"$source_dir/include" -x c++ \
		"$source_dir/tests/cache_inline_test.c" -x none -L"$build" -lhugepool -Wl,-rpath,"$build" -o "$scratch/test" || exit 1
	timeout 120 "$scratch/test" || exit 1
done
