# A worker dies, at every frame of a capture and so at every step of its work on a frame; workers die at moments that
# nobody chose, many times in one run. The counts stay the same, and no page is missing.
. "$(dirname "$0")/lib.bash"

counts="119 21970 34 62 9014"
for frame in $(seq 1 119); do
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

# The successors die, too: whatever worker there is, as often as can be, until the run is over.
storm() { # frames, then more arguments
	local killed=0 frames=$1
	shift
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
			case $(cat "/proc/$child/comm" 2>/dev/null) in
			worker*) kill -KILL "$child" 2>/dev/null && killed=$((killed + 1)) ;;
			esac
		done
	done
	wait $guard
	status=$?
	expect_status 0
	# shellcheck disable=SC2086
	expect_counts $expected
	expect_number in_dead_hands 0
	echo "$killed signals, $(number deaths) deaths, $(number taken_over) frames taken over"
	[ "$(number deaths)" -gt 0 ] || fail "nobody died: $what"
}
storm 2000000
storm 1000000 --workers 5
storm 1000000 --workers 3 --pages 4K --size 2M
echo passed
