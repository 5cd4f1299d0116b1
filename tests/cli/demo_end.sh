# However a run ends before its time, no process and no memory is left behind: the terminal's Ctrl-C, SIGTERM, the
# supervisor killed, a stage that has a fault. A stage that is killed is replaced, whichever it is.
. "$(dirname "$0")/lib.bash"

# Waits until a condition holds; gives up after 20 seconds.
until_true() {
	local turn
	for turn in $(seq 400); do
		! "$@" || return 0
		sleep 0.05
	done
	return 1
}

running() { # all stages are there and named
	local child names=""
	for child in $(children_of "$demo"); do
		names="$names $(cat "/proc/$child/comm" 2>/dev/null)"
	done
	case $names in *reader*) ;; *) return 1 ;; esac
	case $names in *sender*) ;; *) return 1 ;; esac
	case $names in *"worker 0"*"worker 1"* | *"worker 1"*"worker 0"*) return 0 ;; esac
	return 1
}

gone() {
	local pid
	for pid in $stages; do
		[ ! -d "/proc/$pid" ] || return 1
	done
}

begin() {
	"$hugepool" demo -q --loop 100000 "$@" >"$scratch/out" 2>"$scratch/err" &
	demo=$!
	until_true running || fail "the stages did not start: $what; $(cat "$scratch/err")"
	stages=$(children_of $demo)
}

pid_of() {
	local child
	for child in $stages; do
		[ "$(cat "/proc/$child/comm" 2>/dev/null)" != "$1" ] || echo "$child"
	done
}

finish() { # exit status
	{ wait $demo; } 2>/dev/null
	status=$?
	expect_status "$1"
	until_true gone || fail "processes were left: $what"
}

# Ctrl-C reaches the whole group: the stages leave it to the supervisor to end them in order.
what="SIGINT"
begin
# shellcheck disable=SC2086
kill -INT $stages
kill -INT $demo
finish 130
grep -q interrupted "$scratch/err" || fail "nothing said of the interruption"

what="SIGTERM"
begin
kill -TERM $demo
finish 130

what="the supervisor killed"
begin
kill -KILL $demo
finish 137

# A stage that dies of anything but SIGKILL has a fault, and is not replaced.
ulimit -c 0
for stage in reader sender "worker 0"; do
	what="the $stage ended by a fault"
	begin
	kill -SEGV "$(pid_of "$stage")"
	finish 1
	grep -q "$stage" "$scratch/err" || fail "the cause is not told: $(cat "$scratch/err")"
done

another() { # stage: another process than $old, with all the others there
	running || return 1
	stages=$(children_of $demo)
	[ "$(pid_of "$stage")" != "$old" ]
}

for stage in reader sender "worker 1"; do
	what="the $stage killed and replaced"
	begin
	old=$(pid_of "$stage")
	kill -KILL "$old"
	until_true another || fail "no other $stage came: $(cat "$scratch/err")"
	kill -TERM $demo
	finish 130
done

# A stopped worker holds everything up, but only as long as it is stopped.
what="a worker stopped and continued"
"$hugepool" demo --json -q --frames 1000000 >"$scratch/out" 2>"$scratch/err" &
demo=$!
until_true running || fail "the stages did not start: $what"
stages=$(children_of $demo)
worker=$(pid_of "worker 0")
kill -STOP "$worker"
sleep 0.2
kill -CONT "$worker"
finish 0
expect_number frames 1000000
expect_number pages_leaked 0
echo passed
