# A worker dies, at every frame of a capture and so at every step of its work on a frame; workers die at moments that
# nobody chose, many times in one run. The counts stay the same, and no page is missing.
. "$(dirname "$0")/lib.bash"

# of frames, kills and so on: fewer where every instruction costs ten times as much
fewer=1
grep -q '^HUGEPOOL_SANITIZE:[A-Z]*=..*' "$3/CMakeCache.txt" && fewer=8

counts="119 21970 34 62 9014"
for frame in $(seq 1 $fewer 119); do
	demo_counts "$counts" --pcap "$data/forms.pcap" --kill="$frame" --workers $((frame % 3 + 1))
	expect_number deaths 1
	[ "$(number taken_over)" -ge 1 ] || fail "nothing was taken over: $what"
	expect_number in_dead_hands 0
done
demo_counts "$counts" --pcap "$data/forms.pcap" --kill
expect_number deaths 1
for workers in 1 2 9; do
	demo_counts "23800 4394000 34 12400 1802800" --pcap "$data/forms.pcap" --loop 200 --kill --workers $workers
	expect_number deaths 1
done
demo_counts "0 0 0 0 0" --pcap "$data/empty.pcap" --kill
expect_number deaths 0

# The successors die, too: whoever there is of some kinds of stages, as often as can be, until the run is over.
storm() { # kinds, frames, then more arguments
	local killed=0 kinds=$1 frames=$(($2 / (fewer > 1 ? 5 : 1)))
	shift 2
	what="demo --frames $frames $* under SIGKILL"
	run demo --json -q --frames "$frames" "$@"
	expect_status 0
	local expected
	expected="$frames $(number bytes) $(number flows) $(number other) $(number largest_flow_bytes)"
	timeout -k 5 100 "$hugepool" demo --json -q --frames "$frames" "$@" >"$scratch/out" 2>"$scratch/err" &
	local guard=$! demo="" child
	while kill -0 $guard 2>/dev/null; do
		[ -n "$demo" ] || demo=$(children_of $guard)
		[ "$killed" -lt 100 ] || break
		for child in $(children_of "${demo% }"); do
			[[ $(cat "/proc/$child/comm" 2>/dev/null) =~ ^($kinds) ]] || continue
			kill -KILL "$child" 2>/dev/null && killed=$((killed + 1))
		done
	done
	wait $guard
	status=$?
	expect_status 0
	# shellcheck disable=SC2086
	expect_counts $expected
	expect_number in_dead_hands 0
	echo "$kinds: $killed signals, $(number deaths) deaths, $(number taken_over) frames taken over, $(number swept) swept"
	[ "$(number deaths)" -gt 0 ] || fail "nobody died: $what"
}
storm worker 1000000
storm worker 1000000 --workers 5
storm worker 500000 --workers 3 --pages 4K --size 2M
storm reader 1000000
storm sender 1000000
storm "worker|reader|sender" 1000000
storm "worker|reader|sender" 1000000 --workers 5
storm "worker|reader|sender" 500000 --workers 3 --pages 4K --size 2M
echo passed
