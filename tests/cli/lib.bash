# What the tests of the command share. Arguments of each test: the command, the source folder, the build folder.
set -u
hugepool=$1
source_dir=$2
data=$source_dir/tests/data
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
	echo "FAILED: $*"
	exit 1
}

skip() {
	echo "skipped: $*"
	exit 77
}

[ -x "$hugepool" ] || skip "the hugepool command was not built (libpcap and jansson are needed)"

# Runs the command; its output is in $scratch/out and $scratch/err. Never longer than a minute.
run() {
	timeout -k 5 60 "$hugepool" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
	status=$?
}

expect_status() {
	[ "$status" -eq "$1" ] || fail "exit status $status, expected $1: $what; $(head -c 600 "$scratch/err" "$scratch/out")"
}

# The number under a key of the flat object in $scratch/out.
number() {
	sed -n "s/^ *\"$1\": *\(-\{0,1\}[0-9][0-9.e+-]*\),\{0,1\}$/\1/p" "$scratch/out" | head -n 1
}

expect_number() {
	[ "$(number "$1")" = "$2" ] || fail "$1 is '$(number "$1")', expected $2: $what"
}

# frames bytes flows other largest_flow_bytes, and nothing lost.
expect_counts() {
	expect_number frames "$1"
	expect_number bytes "$2"
	expect_number flows "$3"
	expect_number other "$4"
	expect_number largest_flow_bytes "$5"
	expect_number pages_leaked 0
	expect_number findings 0
}

# One demonstration on a capture, which must come out with these counts.
demo_counts() {
	local counts=$1
	shift
	what="demo $*"
	run demo --json -q "$@"
	expect_status 0
	# shellcheck disable=SC2086
	expect_counts $counts
}

children_of() {
	cat "/proc/$1/task/$1/children" 2>/dev/null
}
