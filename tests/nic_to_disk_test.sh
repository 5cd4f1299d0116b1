#!/usr/bin/env bash
# Catches: frames that are lost, doubled or changed on their way from an interface through three processes to a file; an
# example that has rotted. docs/examples/nic_to_disk in a network namespace of its own, with a pair of veth interfaces; what it
# has written is counted by tcpdump, and compared with what was sent, byte by byte.
# Arguments: the command, the source folder, the build folder.
set -euo pipefail
build=$3
count=4000 # fewer than the rings hold: however late the program comes, it loses none
grep -q '^HUGEPOOL_SANITIZE:STRING=.' "$build/CMakeCache.txt" && count=500

skip() {
	echo "skipped: $*"
	exit 77
}
fail() {
	echo "FAILED: $*"
	exit 1
}
for program in ip tcpdump python3 unshare; do
	command -v $program >/dev/null || skip "there is no $program (tools/deps test)"
done
if [ "${1:-}" != inside ]; then
	unshare -n true 2>/dev/null || skip "no network namespace of its own (needs root)"
	exec unshare -n "$BASH" "$0" inside "$2" "$3"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null || true # it would send frames of its own
ip link add hpa type veth peer name hpb || skip "no veth interfaces"
ip link set hpa arp off up
ip link set hpb arp off up
python3 -c 'import socket; socket.socket(44, socket.SOCK_RAW)' 2>/dev/null || skip "no AF_XDP sockets"

mkfifo "$work/says"
"$build/examples/nic_to_disk" hpb "$work/frames.pcap" $count >"$work/says" 2>"$work/errors" &
program=$!
exec 3<"$work/says"
read -r first <&3 || { cat "$work/errors"; fail "it did not start"; }
[ "$first" = ready ] || fail "it said: $first"

# UDP and TCP, of lengths from 60 to 1514.
cat >"$work/frames.py" <<'END'
import socket, struct, sys

def frame(i):
    length = 60 + i * 37 % 1455
    udp = i % 3 != 0
    rest = length - 14 - 20 - (8 if udp else 20)
    data = bytes((i + j) & 255 for j in range(rest))
    if udp:
        inner = struct.pack('>HHHH', 1000 + i % 7, 2000, 8 + rest, 0) + data
    else:
        inner = struct.pack('>HHIIBBHHH', 1000 + i % 7, 2000, i, 0, 5 << 4, 16, 512, 0, 0) + data
    ip = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 20 + len(inner), i & 0xffff, 0, 64, 17 if udp else 6, 0,
                     bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))
    total = sum(struct.unpack('>10H', ip))
    total = ~((total & 0xffff) + (total >> 16)) & 0xffff
    ip = ip[:10] + struct.pack('>H', total) + ip[12:]
    return b'\xff' * 6 + b'\x02' * 6 + b'\x08\x00' + ip + inner

count = int(sys.argv[2])
if sys.argv[1] == 'send':
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(('hpa', 0))
    for i in range(count):
        s.send(frame(i))
else:
    with open(sys.argv[3], 'rb') as file:
        file.seek(24)
        for i in range(count):
            seconds, micro, length, wire = struct.unpack('<IIII', file.read(16))
            if length != wire or micro >= 1000000 or file.read(length) != frame(i):
                sys.exit(f'record {i} is not the frame that was sent')
        if file.read(1):
            sys.exit('there is something behind the last record')
END
python3 "$work/frames.py" send $count
cat <&3 >"$work/said"
wait $program || { cat "$work/said" "$work/errors"; fail "it ended badly"; }
cat "$work/said"

read_back() {
	tcpdump -nn -r "$work/frames.pcap" "$@" 2>/dev/null | wc -l
}
[ "$(read_back)" = $count ] || fail "tcpdump reads $(read_back) frames"
[ "$(read_back udp)" = $((count - (count + 2) / 3)) ] || fail "tcpdump reads $(read_back udp) of UDP"
grep -q "^inspected: tcp $(((count + 2) / 3)) udp $((count - (count + 2) / 3))\$" "$work/said" || fail "another count by protocol"
grep -q "^received: $count frames, lost 0\$" "$work/said" || fail "frames were lost"
python3 "$work/frames.py" compare $count "$work/frames.pcap" || fail "the file is another"
[ ! -s "$work/errors" ] || { cat "$work/errors"; fail "it complained"; }
echo "$count frames, from the interface to the file"
