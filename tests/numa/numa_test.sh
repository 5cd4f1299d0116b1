#!/usr/bin/env bash
# Placement on machines of two and of four nodes: boots them with numa-vm.sh, runs numa_guest inside, and returns its
# status. 77 with the reason where QEMU or a kernel cannot be had.
set -u
source=$2 build=$3
here=$source/tests/numa
guest=$build/tests/numa_guest

skip() {
	echo "skipped: $*"
	exit 77
}

[ "$(uname -m)" = x86_64 ] || skip "the virtual machine is an x86_64 one"
[ -x "$guest" ] || skip "$guest was not built (cmocka is missing: tools/deps test)"
for tool in qemu-system-x86_64 busybox cpio od xz; do
	command -v $tool >/dev/null || skip "$tool is missing: tools/deps numa installs it"
done

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
boot() {
	bash "$here/numa-vm.sh" -t 140 "$@" 2>"$errors"
	local status=$?
	cat "$errors" >&2
	if [ $status = 125 ] && grep -qE 'no kernel:|apt-get download|cannot be read|is missing' "$errors"; then
		skip "$(grep -m1 '^numa-vm:' "$errors")"
	fi
	return $status
}

echo "two nodes"
boot -n 2 -m 640 -H 64 "$guest" || exit
echo "four nodes, some nearer than others"
boot -n 4 -m 256 -H 16 -D "0,3=12 1,2=12 0,1=20 2,3=20 0,2=30 1,3=25" "$guest" far
