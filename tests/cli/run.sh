# hugepool run: programs print the same with this library's malloc as with libc's; and what cannot work is said.
# Catches: a malloc that loses or mixes up anybody's bytes, hangs a program with threads or children, or is not used at
# all. What is not installed is left out, with the reason.
. "$(dirname "$0")/lib.bash"
build=${3:-$(dirname "$hugepool")}
library=$build/libhugepool_malloc.so
[ -e "$library" ] || skip "libhugepool_malloc.so was not built (a sanitizer has a malloc of its own)"
cd "$scratch" || exit 1
export TZ=UTC LC_ALL=C GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null

have() { # a program, and the package it is in
	command -v "$1" >/dev/null && return 0
	echo "left out: $1 is not installed (package $2)"
	return 1
}

# The same output and status, on every kind of pages that needs no setting. Argument: a shell command.
same() {
	local options
	timeout -k 5 120 bash -c "$1" >plain.out 2>plain.err </dev/null
	local plain=$?
	for options in "" "--pages thp" "--pages 4k --size 16G"; do
		# shellcheck disable=SC2086
		timeout -k 5 120 "$hugepool" run $options -- bash -c "$1" >ours.out 2>ours.err </dev/null
		status=$?
		[ $status = $plain ] || fail "status $status, not $plain: run $options: $1; $(head -c 400 ours.err)"
		cmp -s plain.out ours.out || fail "another output: run $options: $1"
		cmp -s plain.err ours.err || fail "another complaint: run $options: $1; $(head -c 400 ours.err)"
	done
}

# It is really used.
what="run cat /proc/self/maps"
run run -- cat /proc/self/maps
expect_status 0
grep -q libhugepool_malloc "$scratch/out" || fail "the library is not loaded"

same 'echo plain; exit 7'
if have gcc gcc; then
	cat >prog.c <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct node { struct node *left, *right; char *key; };
static struct node *insert(struct node *n, const char *key)
{
	if (!n) { n = calloc(1, sizeof *n); n->key = strdup(key); return n; }
	int c = strcmp(key, n->key);
	if (c < 0) n->left = insert(n->left, key);
	else if (c > 0) n->right = insert(n->right, key);
	return n;
}
static unsigned long walk(struct node *n)
{
	if (!n) return 0;
	unsigned long sum = walk(n->left) * 31 + strlen(n->key) + walk(n->right);
	free(n->key);
	free(n);
	return sum;
}
int main(void)
{
	struct node *root = NULL;
	char key[32];
	for (unsigned i = 0; i < 50000; i++) { snprintf(key, sizeof key, "%u", i * 2654435761u); root = insert(root, key); }
	printf("%lu\n", walk(root));
	return 0;
}
C
	same 'gcc -O2 -g -c prog.c -o prog.o && md5sum <prog.o && gcc prog.o -o prog && ./prog'
fi
if have sqlite3 sqlite3; then
	same 'sqlite3 :memory: "create table t(a integer primary key, b text, c real);
		with recursive n(x) as (select 1 union all select x + 1 from n where x < 100000)
		insert into t select x, printf(\"%d-%x\", x * 7919, x), x / 3.0 from n;
		create index i on t(b); select count(*), sum(a), min(b), max(b), total(c) from t;
		select a from t where b like \"7%9\" order by b limit 20; delete from t where a % 3 = 0; vacuum;
		select count(*), group_concat(a % 10, \"\") from t where a < 500;"'
fi
if have python3 python3; then
	cat >script.py <<'P'
import collections, json, multiprocessing, re, subprocess, sys, threading

def work(n):
    words = ["%x" % (i * 2654435761 % 2**32) for i in range(n)]
    counts = collections.Counter(w[:2] for w in words)
    return json.dumps(sorted(counts.items())[:5]) + str(len(re.findall("a+", " ".join(words))))

results = []
threads = [threading.Thread(target=lambda: results.append(work(20000))) for _ in range(4)]
for t in threads: t.start()
with multiprocessing.get_context("fork").Pool(2) as pool: print(pool.map(work, [1000, 20000, 30000]))
for t in threads: t.join()
print(sorted(results))
print(subprocess.run(["echo", "child"], stdout=subprocess.PIPE).stdout)
print(sum(len(str(2**i)) for i in range(3000)))
P
	same 'python3 script.py'
fi
if have perl perl; then
	# shellcheck disable=SC2016
	same 'perl -e '\''my %h; for my $i (1..200000) { $h{$i * 7 % 99991} .= "x$i" } my $n = 0; $n += length for values %h;
		print scalar(keys %h), " $n\n"; my @s = sort { $b cmp $a } keys %h; print "@s[0..9]\n";
		if (my $p = fork) { waitpid $p, 0; print "status $?\n" } else { my @x = map { "y$_" } 1..100000; exit scalar(@x) % 7 }'\'''
fi
if have git git; then
	same 'rm -rf repo; git init -q repo && cd repo && for i in $(seq 40); do seq $i $((i * 50)) >file$((i % 7)); git add . &&
		GIT_AUTHOR_DATE="2020-01-01 00:00:$i" GIT_COMMITTER_DATE="2020-01-01 00:00:$i" \
		git -c user.name=a -c user.email=a@b commit -q -m "number $i"; done
		git log --stat --oneline | md5sum; git gc -q; git fsck 2>&1; git log -p | md5sum; git blame -s file3 | tail -3'
fi
if have xz xz-utils; then
	same 'seq 400000 | xz -T2 -2 --block-size=512KiB | tee packed | xz -dc -T2 | md5sum; xz -t packed && md5sum <packed'
fi
if have redis-server redis-tools && have redis-cli redis-tools; then
	# shellcheck disable=SC2016
	same 'dir=$(mktemp -d); trap "rm -rf $dir" EXIT; redis-server --port 0 --unixsocket $dir/s --dir $dir --daemonize yes \
		--save "" --logfile $dir/log --pidfile $dir/pid >/dev/null
		r="redis-cli -s $dir/s"; for i in $(seq 100); do $r ping >/dev/null 2>&1 && break; done
		seq 5000 | sed "s/.*/set key:& value:&:&/" | $r | sort | uniq -c; $r get key:77; $r dbsize; $r bgrewriteaof >/dev/null
		$r flushall; $r shutdown nosave'
fi

# Wrong usage, and what cannot work.
wrong() { # status, a word of the one line, then the arguments
	local want=$1 word=$2
	shift 2
	what="run $*"
	run run "$@"
	expect_status "$want"
	[ "$(wc -l <"$scratch/err")" -eq 1 ] || fail "not one line: $what; $(cat "$scratch/err")"
	grep -qF -- "$word" "$scratch/err" || fail "the line does not say '$word': $what; $(cat "$scratch/err")"
}
wrong 2 "no program given"
wrong 2 "no program given" --
wrong 2 "--pages wants" --pages 3m -- true
wrong 2 "--node" --node x -- true
wrong 2 "--size" --size 1 -- true
wrong 2 "--frobnicate" --frobnicate -- true
wrong 127 "cannot be started" -- ./not-there
wrong 126 "cannot be started" -- "$scratch"
wrong 3 "nodes that have" --node 63 -- true
what="run without --"
run run echo --pages
expect_status 0
[ "$(cat "$scratch/out")" = --pages ] || fail "the program's options are not its own"
what="run with less memory than the program wants"
# shellcheck disable=SC2016
run run --size 64M -- perl -e 'my $x = "x" x (200 << 20); print "had\n"'
[ "$status" -ne 0 ] || fail "--size is not kept to"
echo "passed"
