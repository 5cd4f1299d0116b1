# The demonstration on captures whose contents are known by construction, with every number of workers, in large and in
# very small pools, repeated; and files that cannot be used.
. "$(dirname "$0")/lib.bash"

while read -r file counts; do
	[ "$file" != "#" ] || continue
	demo_counts "$counts" --pcap "$data/$file"
	demo_counts "$counts" --pcap "$data/$file" --workers 1
	demo_counts "$counts" --pcap "$data/$file" --workers 7 --pages 4K
done <"$data/expected.txt"

# 119 frames, 21,970 bytes, 34 flows, 62 other, the largest 9,014: repeated, all but the flows multiply.
demo_counts "59500 10985000 34 31000 4507000" --pcap "$data/forms.pcap" --loop 500
demo_counts "59500 10985000 34 31000 4507000" --pcap "$data/forms.pcap" --loop 500 --pages 4K --size 1M
demo_counts "59500 10985000 34 31000 4507000" --pcap "$data/forms.pcap" --loop 500 --workers 64

# The generated mix is the same in every run, and whoever counts it.
what="demo --frames 30000"
run demo --json -q --frames 30000
expect_status 0
expect_number frames 30000
mix="30000 $(number bytes) $(number flows) $(number other) $(number largest_flow_bytes)"
[ "$(number flows)" -gt 1000 ] && [ "$(number other)" -gt 100 ] || fail "a poor mix: $mix"
demo_counts "$mix" --frames 30000 --workers 5
demo_counts "$mix" --frames 30000 --workers 3 --pages 4K --size 2M
awk "BEGIN { exit !($(number seconds) > 0 && $(number page_size) >= 4096) }" || fail "no time, or no page size"
for key in got_ns filled_ns passed_ns put_ns packet_ns; do
	awk "BEGIN { exit !($(number $key) >= 0) }" && [ -n "$(number $key)" ] || fail "no $key: $what"
done
awk "BEGIN { exit !($(number packet_ns) > 0) }" || fail "a packet costs nothing: $what"
run demo -q --frames 30000
grep -q "^cost  *[0-9.]* ns a packet: " "$scratch/out" || fail "the cost of a packet is not told: $what"

# More flows than the first tables hold, so that they grow under way.
if command -v python3 >/dev/null; then
	read -r file counts < <(python3 "$data/make_captures.py" "$scratch" flows 40000)
	demo_counts "$counts" --pcap "$scratch/$file"
	demo_counts "$counts" --pcap "$scratch/$file" --kill=60000
	demo_counts "$counts" --pcap "$scratch/$file" --kill=20000 --workers 5 --size 32M
	# The captures that are checked in are what the program makes.
	python3 "$data/make_captures.py" "$scratch"
	for file in "$data"/*.pcap* "$data"/expected.txt; do
		cmp -s "$file" "$scratch/${file##*/}" || fail "${file##*/} is not what make_captures.py makes"
	done
fi

refused() { # a word that the message must have, then the file
	what="demo --pcap $2"
	for kill in "" --kill; do
		run demo -q --pcap "$2" ${kill:+$kill}
		expect_status 1
		[ "$(wc -l <"$scratch/err")" -eq 1 ] || fail "not one line: $what; $(cat "$scratch/err")"
		grep -q -- "$1" "$scratch/err" || fail "the message has no '$1': $what; $(cat "$scratch/err")"
	done
}
refused "RAW" "$data/raw-link.pcap"
refused "not a capture" "$data/no-capture.pcap"
refused "not a capture" "$data/cut-in-file-header.pcap"
refused "truncated" "$data/cut-in-frame.pcap"
refused "truncated" "$data/cut-in-header.pcap"
refused "No such file" "$data/there-is-none.pcap"
refused "irectory" "$data"
: >"$scratch/nothing.pcap"
refused "not a capture" "$scratch/nothing.pcap"

# What was read before the damage is counted all the same.
what="demo --json on a file that is cut off"
run demo --json -q --pcap "$data/cut-in-frame.pcap"
expect_status 1
expect_number frames 11
expect_number pages_leaked 0

# Too small: said, not hung. A page size that is not there: an error with --strict only.
what="demo in a pool too small"
run demo -q --pages 4K --size 64K --workers 16
expect_status 1
grep -q -- --size "$scratch/err" || fail "no advice: $(cat "$scratch/err")"
if [ "$(cat /sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages 2>/dev/null || echo 0)" = 0 ]; then
	what="demo --pages 1G"
	run demo -q --pages 1G --frames 1000
	expect_status 0
	grep -q "1 GiB" "$scratch/out" || fail "the fall from 1 GiB is not told"
	run demo -q --pages 1G --strict --frames 1000
	expect_status 1
	[ "$(wc -l <"$scratch/err")" -eq 1 ] || fail "not one line: $(cat "$scratch/err")"
fi
echo passed
