# Captures of real traffic, where they are beside the source folder: what an independent reader counted in each.
. "$(dirname "$0")/lib.bash"

captures=$source_dir/../shared/data
[ -f "$captures/README.md" ] || skip "there are no captures of real traffic in $captures"
rows=$(sed -n 's/^| *\([^ |]*\.pcap\) *|\(.*\)|$/\1 \2/p' "$captures/README.md" | tr -d ',|')
[ "$(printf '%s\n' "$rows" | wc -l)" -ge 5 ] || fail "the table of the captures could not be read"
while read -r file frames bytes flows other largest; do
	for workers in 1 2 5; do
		for kill in "" --kill; do
			demo_counts "$frames $bytes $flows $other $largest" --pcap "$captures/$file" --workers $workers \
				${kill:+$kill}
			[ -z "$kill" ] || [ "$(number taken_over)" -ge 1 ] || fail "nothing was taken over: $what"
			expect_number in_dead_hands 0
		done
	done
	demo_counts "$((frames * 3)) $((bytes * 3)) $flows $((other * 3)) $((largest * 3))" --pcap "$captures/$file" \
		--loop 3 --kill
done <<<"$rows"
echo passed
