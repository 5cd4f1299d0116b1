# hugepool keep, end to end: a keeper in the background, pools made, listed, attached, looked at and unlinked by name, its death
# and its successor. Catches: a command that comes back before the keeper listens, a keeper that holds on to its starter's
# descriptors, an exit status that does not say what happened, and files left behind.
. "$(dirname "$0")/lib.bash"
chmod 755 "$scratch"
export HUGEPOOL_KEEPER=$scratch/socket
unset HUGEPOOL_POOL

# One call of `hugepool keep`, its status, and a word of what it says.
keep() {
	local expected=$1 word=$2
	shift 2
	what="keep $*"
	run keep "$@"
	expect_status "$expected"
	[ -z "$word" ] || grep -qF -- "$word" "$scratch/out" "$scratch/err" ||
		fail "'$word' is not said: $what; $(cat "$scratch/out" "$scratch/err")"
}

# The process that has the lock file open.
keeper_pid() {
	find /proc/[0-9]*/fd -lname "$HUGEPOOL_KEEPER.lock" -print -quit 2>/dev/null | cut -d / -f 3
}

end_keeper() { # a signal
	local pid
	pid=$(keeper_pid)
	[ -n "$pid" ] || fail "there is no keeper"
	kill "-$1" "$pid"
	for _ in $(seq 3000); do # not our child, and perhaps never reaped
		[ -e "/proc/$pid/fd/0" ] || return 0
		sleep 0.02
	done
	fail "the keeper does not end on SIG$1"
}
trap 'pid=$(keeper_pid 2>/dev/null); [ -z "$pid" ] || kill -KILL "$pid"; rm -rf "$scratch"' EXIT

keep 3 "start \`hugepool keep\`" --list
keep 3 "start \`hugepool keep\`" --create one
keep 3 "" --unlink one
keep 3 "" --attach one -- true

# The background: it listens when the command is back, and nobody waits for a pipe that it holds.
what="keep"
said=$(timeout -k 5 60 "$hugepool" keep 2>&1 9>&1 </dev/null) || fail "the keeper does not begin: $said"
[ -z "$said" ] || fail "the keeper says: $said"
keep 3 "runs there already"
keep 0 "" --list
[ ! -s "$scratch/out" ] || fail "a new keeper has pools"

keep 0 "" --create one --size 8M --rung 4k
keep 0 "" --create two --size 2M --capacity 16M --rung 4K --mode 0664
keep 1 "already" --create one --size 8M --rung 4k
keep 1 "" --create no --size 64T --rung 4K
keep 0 "rw----" --list
grep -q "^rw----.* 8 MiB .* one$" "$scratch/out" || fail "one is not listed: $(cat "$scratch/out")"
grep -q "^rwrwr-.* 16 MiB .* two$" "$scratch/out" || fail "two is not listed: $(cat "$scratch/out")"
keep 0 '"name": "two"' --list --json
expect_number owner "$(id -u)"

# By name, for looking; through the environment, for use.
what="show --name one"
run show --name one
expect_status 0
grep -q "committed *8 MiB" "$scratch/out" || fail "not the pool: $(cat "$scratch/out")"
for command in show check; do
	what="$command --name three"
	run $command --name three
	expect_status 3
	grep -q "no pool 'three'" "$scratch/err" || fail "$what: $(cat "$scratch/err")"
done
what="check --name two"
run check --name two
expect_status 0
keep 0 "two: 0 findings; 2 MiB committed, 0 live blocks, 0 heaps, 1 process" --attach two -- "$hugepool" check --env
keep 7 "" --attach two -- sh -c 'exit 7'
keep 1 "no pool 'three'" --attach three -- true
keep 1 "" --attach two -- "$scratch/nothing"

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	as() { # a user and group, then arguments of `hugepool keep`
		local user=$1
		shift
		setpriv --reuid "$user" --regid "$user" --clear-groups "$hugepool" "$@" >"$scratch/out" 2>"$scratch/err"
		status=$?
	}
	# where others can run it
	cp "$hugepool" "$scratch/hugepool" && chmod 755 "$scratch/hugepool"
	was=$hugepool hugepool=$scratch/hugepool
	as 40001 check --name two
	expect_status 0
	as 40001 check --name one
	expect_status 3
	as 40001 keep --attach two -- true
	expect_status 1
	as 40001 keep --unlink two
	expect_status 1
	as 40001 keep --create theirs --size 1M --rung 4k
	expect_status 0
	as 40002 keep --unlink theirs
	expect_status 1
	keep 0 "40001" --list
	keep 0 "" --unlink theirs
	hugepool=$was
else
	echo "left out: other users (needs root, and setpriv of package util-linux)"
fi

keep 0 "" --unlink one
keep 1 "no pool 'one'" --unlink one

# Killed, it leaves its path to the next one, which has nothing; asked to end, it leaves nothing.
end_keeper KILL
keep 3 "start \`hugepool keep\`" --list
mkfifo "$scratch/says"
"$hugepool" keep --foreground 2>"$scratch/says" &
pid=$!
exec 8<"$scratch/says"
read -r -t 60 line <&8
[[ $line == *"listens at $HUGEPOOL_KEEPER" ]] || fail "the keeper says '$line'"
keep 0 "" --list
[ ! -s "$scratch/out" ] || fail "the successor has pools"
keep 0 "" --create again --size 1M --rung 4k
keep 0 "" --unlink again
kill -TERM $pid
wait $pid
status=$?
what="the keeper's end"
expect_status 0
said=$(cat <&8)
[[ $said == *"'again' published"*"'again' unlinked"* ]] || fail "the keeper said: $said"
[ ! -e "$scratch/socket" ] && [ ! -e "$scratch/socket.lock" ] || fail "files are left behind"
echo "passed"
