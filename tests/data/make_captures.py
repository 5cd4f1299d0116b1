#!/usr/bin/env python3
"""Makes the captures beside it, and expected.txt with what is in them.

    make_captures.py FOLDER           the captures of this folder
    make_captures.py FOLDER flows N   many.pcap: N flows of three frames each

The counts come from what was put in, not from reading the frames again: every frame is added together with the flow it
belongs to (or None), so they can prove a parser wrong.
"""
import struct
import sys

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58


def ethernet(payload, kind, tags=()):
    head = bytes.fromhex("020000000001020000000002")
    for tag_kind, number in tags:
        head += struct.pack("!HH", tag_kind, number)
    return head + struct.pack("!H", kind) + payload


def v4(number):
    return bytes([10, 0, number >> 8 & 255, number & 255])


def v6(number):
    return bytes.fromhex("20010db8") + bytes(10) + struct.pack("!H", number)


def ip4(protocol, source, target, payload, fragment=0, options=b"", total=None):
    size = 20 + len(options)
    total = size + len(payload) if total is None else total
    return struct.pack("!BBHHHBBH4s4s", 0x40 | size // 4, 0, total, 7, fragment, 64, protocol, 0, v4(source),
                       v4(target)) + options + payload


def ip6(first, source, target, payload, length=None):
    length = len(payload) if length is None else length
    return struct.pack("!IHBB16s16s", 6 << 28, length, first, 64, v6(source), v6(target)) + payload


def extension(following, words=0):
    return bytes([following, words]) + bytes(6 + 8 * words)


def fragment6(following, offset):
    return struct.pack("!BBHI", following, 0, offset << 3 | 1, 99)


def authentication(following):
    return bytes([following, 4]) + bytes(22)


def tcp(source, target, data=b""):
    return struct.pack("!HHIIBBHHH", source, target, 1, 2, 0x50, 0x10, 1000, 0, 0) + data


def udp(source, target, data=b""):
    return struct.pack("!HHHH", source, target, 8 + len(data), 0) + data


class Capture:
    def __init__(self):
        self.frames, self.flows, self.other = [], {}, 0

    def add(self, frame, flow=None):
        self.frames.append(frame)
        if flow is None:
            self.other += 1
        else:
            self.flows[flow] = self.flows.get(flow, 0) + len(frame)

    def expected(self):
        return (len(self.frames), sum(map(len, self.frames)), len(self.flows), self.other,
                max(self.flows.values(), default=0))

    def pcap(self, link=1, big=False, nano=False):
        order = ">" if big else "<"
        data = [struct.pack(order + "IHHIIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)]
        for number, frame in enumerate(self.frames):
            data += struct.pack(order + "IIII", 1700000000, number, len(frame), len(frame)), frame
        return b"".join(data)

    def pcapng(self):
        def block(kind, body):
            body += bytes(-len(body) % 4)
            return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)
        data = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        data += block(1, struct.pack("<HHI", 1, 0, 262144))
        for number, frame in enumerate(self.frames):
            data += block(6, struct.pack("<IIIII", 0, 0, number, len(frame), len(frame)) + frame)
        return data


def forms():
    """One or more frames of every form the parser knows, each flow in both directions."""
    c = Capture()
    q, ad, old = 0x8100, 0x88A8, 0x9100
    for n, tags in enumerate([(), [(q, 5)], [(ad, 1), (q, 2)], [(old, 1), (q, 2)], [(q, 1), (q, 2), (q, 3)]]):
        a, b, p = 1 + n, 100 + n, 4000 + n
        for protocol, make in ((TCP, tcp), (UDP, udp)):
            c.add(ethernet(ip4(protocol, a, b, make(p, 80, b"x" * 11)), 0x800, tags), (4, protocol, n))
            c.add(ethernet(ip4(protocol, b, a, make(80, p, b"y" * (100 + n))), 0x800, tags), (4, protocol, n))
            c.add(ethernet(ip6(protocol, a, b, make(p, 80)), 0x86DD, tags), (6, protocol, n))
            c.add(ethernet(ip6(protocol, b, a, make(80, p, b"z" * 300)), 0x86DD, tags), (6, protocol, n))
    # The tag is not part of a flow: the first conversation again, inside a VLAN.
    c.add(ethernet(ip4(TCP, 1, 100, tcp(4000, 80)), 0x800, [(q, 77)]), (4, TCP, 0))
    # Same ports and addresses the other way round are another flow only if the ends differ.
    c.add(ethernet(ip4(UDP, 1, 100, udp(80, 4000)), 0x800), "turned")
    c.add(ethernet(ip4(UDP, 100, 1, udp(4000, 80)), 0x800), "turned")
    # Both ends the same address.
    c.add(ethernet(ip4(UDP, 9, 9, udp(1, 2)), 0x800), "self")
    c.add(ethernet(ip4(UDP, 9, 9, udp(2, 1)), 0x800), "self")
    # IPv4: options, first and later fragments, padding behind the packet, no length (segmentation offload).
    c.add(ethernet(ip4(TCP, 1, 2, tcp(5, 6), options=bytes([1] * 40)), 0x800), "options")
    c.add(ethernet(ip4(UDP, 1, 2, udp(7, 8, b"q" * 64), fragment=0x2000), 0x800), "fragmented")
    c.add(ethernet(ip4(UDP, 1, 2, b"q" * 64, fragment=0x2009), 0x800))
    c.add(ethernet(ip4(UDP, 1, 2, b"q" * 8, fragment=0x0011), 0x800))
    c.add(ethernet(ip4(TCP, 1, 2, tcp(9, 10)) + bytes(6), 0x800), "padded")
    c.add(ethernet(ip4(TCP, 1, 2, tcp(11, 12, b"o" * 500), total=0), 0x800), "offload")
    c.add(ethernet(ip4(UDP, 1, 2, b"\x00\x07\x00\x08", total=24) + bytes(22), 0x800))  # the header ends in the padding
    # IPv6: each extension header, a chain, fragments, headers that lead nowhere.
    for n, kind in enumerate((0, 43, 60)):
        c.add(ethernet(ip6(kind, 20, 21, extension(TCP, n) + tcp(30 + n, 443)), 0x86DD), "extension %d" % kind)
    c.add(ethernet(ip6(51, 20, 21, authentication(UDP) + udp(40, 41)), 0x86DD), "authentication")
    chain = extension(43) + extension(44, 1) + fragment6(60, 0) + extension(51) + authentication(TCP) + tcp(50, 51)
    c.add(ethernet(ip6(0, 20, 21, chain), 0x86DD, [(ad, 1), (q, 2)]), "chain")
    c.add(ethernet(ip6(44, 20, 21, fragment6(UDP, 0) + udp(60, 61, b"f" * 40)), 0x86DD), "first fragment")
    c.add(ethernet(ip6(44, 20, 21, fragment6(UDP, 6) + udp(60, 61)), 0x86DD))
    c.add(ethernet(ip6(59, 20, 21, b""), 0x86DD))
    c.add(ethernet(ip6(50, 20, 21, bytes(40)), 0x86DD))
    c.add(ethernet(ip6(0, 20, 21, extension(TCP, 200)), 0x86DD))
    c.add(ethernet(ip6(60, 20, 21, extension(60) * 40 + extension(TCP) + tcp(1, 2)), 0x86DD), "long chain")
    c.add(ethernet(ip6(ICMP6, 20, 21, bytes(32)), 0x86DD))
    # Headers cut short, at every place, and headers without sense.
    for whole in (ethernet(ip4(TCP, 70, 71, tcp(1, 2)), 0x800, [(q, 1)]),
                  ethernet(ip6(0, 70, 71, extension(UDP) + udp(1, 2)), 0x86DD)):
        for size in range(0, len(whole), 3):
            c.add(whole[:size])
        c.add(whole[:-1])
    c.add(ethernet(b"\x35" + ip4(TCP, 1, 2, tcp(1, 2))[1:], 0x800))
    c.add(ethernet(b"\x44" + ip4(TCP, 1, 2, tcp(1, 2))[1:], 0x800))
    c.add(ethernet(b"\x45" + ip6(TCP, 1, 2, tcp(1, 2))[1:], 0x86DD))
    c.add(ethernet(bytes(28), 0x806))
    c.add(ethernet(ip4(ICMP, 1, 2, bytes(16)), 0x800))
    c.add(ethernet(ip4(47, 1, 2, bytes(4) + ip4(TCP, 1, 2, tcp(1, 2))), 0x800))  # a tunnel: the outermost header counts
    c.add(ethernet(bytes(46), 0x26))  # a length, as in IEEE 802.3
    c.add(ethernet(b"", q, [(q, n) for n in range(20)]))
    # Long frames: several pages of a pool.
    c.add(ethernet(ip4(UDP, 80, 81, udp(1, 2, b"j" * 8972)), 0x800), "jumbo")
    return c


def many(flows):
    c = Capture()
    for turn in range(3):
        for n in range(flows):
            frame = ip4(TCP, n >> 14, 3, tcp(1024 + (n & 0x3FFF), 80, bytes(n % 7 + turn)))
            c.add(ethernet(frame, 0x800), n)
    return c


def main():
    folder = sys.argv[1]

    def write(name, data):
        with open(folder + "/" + name, "wb") as file:
            file.write(data)

    if sys.argv[2:]:
        capture = many(int(sys.argv[3]))
        write("many.pcap", capture.pcap())
        print("many.pcap", *capture.expected())
        return
    capture, empty = forms(), Capture()
    whole = capture.pcap()
    write("forms.pcap", whole)
    write("forms-big-endian-nanoseconds.pcap", capture.pcap(big=True, nano=True))
    write("forms.pcapng", capture.pcapng())
    write("empty.pcap", empty.pcap())
    write("raw-link.pcap", capture.pcap(link=101))
    write("cut-in-frame.pcap", whole[:2000])
    write("cut-in-header.pcap", whole[:24 + 16 + len(capture.frames[0]) + 9])
    write("cut-in-file-header.pcap", whole[:17])
    write("no-capture.pcap", b"This is a text and no capture.\n" * 4)
    with open(folder + "/expected.txt", "w", encoding="ascii") as file:
        print("# file frames bytes flows other largest_flow_bytes", file=file)
        for name in ("forms.pcap", "forms-big-endian-nanoseconds.pcap", "forms.pcapng"):
            print(name, *capture.expected(), file=file)
        print("empty.pcap", *empty.expected(), file=file)


main()
