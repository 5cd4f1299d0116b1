# Wrong usage: exit status 2, nothing on standard output, one line on standard error that names what was wrong. Help and
# version: status 0, on standard output.
. "$(dirname "$0")/lib.bash"

wrong() { # a word that the line must have, then the arguments
	local word=$1
	shift
	what="hugepool $*"
	run "$@"
	expect_status 2
	[ ! -s "$scratch/out" ] || fail "output of wrong usage: $what"
	[ "$(wc -l <"$scratch/err")" -eq 1 ] || fail "not one line: $what; $(cat "$scratch/err")"
	grep -qF -- "$word" "$scratch/err" || fail "the line does not say '$word': $what; $(cat "$scratch/err")"
}

right() {
	local word=$1
	shift
	what="hugepool $*"
	run "$@"
	expect_status 0
	[ ! -s "$scratch/err" ] || fail "complaint: $what; $(cat "$scratch/err")"
	grep -qF -- "$word" "$scratch/out" || fail "no '$word' in the output: $what"
}

wrong "no command"
wrong "frobnicate" frobnicate
wrong "--frobnicate" --frobnicate
for command in doctor show check demo; do
	wrong "--frobnicate" $command --frobnicate
	right "Usage: hugepool $command" $command --help
	right "--json" $command --help
done
right doctor --help
right hugepool --version

wrong "extra" doctor extra
wrong "which pool" show
wrong "which pool" check
wrong "PID or FD" show abc
wrong "PID or FD" check 12x
wrong "-1" show -- -1
wrong "not both" show --env 12
wrong "not both" check --env=X 12
wrong "one PID or FD only" show 12 13
wrong "--watch" show --watch 0 12
wrong "--dump" show --dump --json 12
wrong "--heap" show --heap 1 --json 12
wrong "--heap" show --heap x 12
wrong "extra" demo extra
wrong "--workers" demo --workers 0
wrong "--workers" demo --workers 65
wrong "--workers" demo --workers two
wrong "workers" demo --workers
wrong "--loop" demo --loop 0
wrong "--loop" demo --loop -1
wrong "--frames" demo --frames 0
wrong "--frames" demo --frames 10 --pcap "$data/forms.pcap"
wrong "--size" demo --size 12Q
wrong "--size" demo --size 99999999999T
wrong "--pages" demo --pages 3M
wrong "--strict" demo --strict
wrong "--kill" demo --kill=0
wrong "--kill" demo --kill=200 --pcap "$data/forms.pcap"
wrong "--frobnicate" keep --frobnicate
right "Usage: hugepool keep" keep --help
wrong "extra" keep extra
wrong "not more" keep --list --unlink x
wrong "--size" keep --size 1M
wrong "--size" keep --create x --size 1Q
wrong "--rung" keep --create x --rung 3M
wrong "--mode" keep --create x --mode 0700
wrong "--mode" keep --create x --mode rw
wrong "--json" keep --json
wrong "--foreground" keep --foreground --list
wrong "no program" keep --attach x
wrong "a/b" keep --create a/b
wrong "name" keep --unlink ""
wrong "not both" show --name x 12
wrong "not both" check --env --name x
echo passed
