// Forwarding frames of 64 bytes over a pair of veth interfaces: received by AF_XDP and sent on at once, with the objects of
// a cache, and beside it as one does without a pool: libxdp's rings on a plain area of anonymous memory, of which each chunk
// goes round from ring to ring. Timed is a frame's way from the one ring to the wire; frames are made between the timings,
// by a packet socket at the other end, where nobody receives what comes back.
#include "bench.h"

#if defined(HAVE_LIBXDP) && defined(HAVE_LIBBPF)
#include <hugepool/xdp.h>

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xdp/xsk.h>

namespace
{

constexpr unsigned burst = 64, ring = 2048, frame_bytes = 64;

// A network of its own, with interfaces hpa and hpb, and a program on hpb that leads its frames to what is in `map`. Of
// this thread while it lives.
class Network
{
  public:
	Network()
	{
		before_ = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
		if (before_ < 0 || unshare(CLONE_NEWNET) < 0) {
			why_ = "no network namespace of its own (needs root)";
			return;
		}
		inside_ = true;
		if (system(
				"echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/default/disable_ipv6; "
				"ip link add hpa type veth peer name hpb && ip link set hpa arp off up && ip link set hpb arp off up") !=
		    0) {
			why_ = "no pair of veth interfaces (needs iproute2)";
			return;
		}
		sockaddr_ll address{};
		address.sll_family = AF_PACKET;
		address.sll_ifindex = (int)if_nametoindex("hpa");
		far = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); // of no protocol: it receives nothing
		if (far < 0 || bind(far, (sockaddr *)&address, sizeof address) < 0 || !attach())
			why_ = "no packet socket, or no XDP";
	}
	~Network()
	{
		for (int fd : {far, map, link_})
			if (fd >= 0) close(fd);
		if (inside_ && setns(before_, CLONE_NEWNET) < 0) std::abort(); // the other benchmarks need theirs
		close(before_);
	}
	const char *why() const
	{
		return why_;
	}
	bool send(unsigned count)
	{
		unsigned char frame[frame_bytes] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 2, 2, 2, 2, 2, 0x88, 0xb5};
		while (count--)
			if (::send(far, frame, sizeof frame, 0) != sizeof frame) return false;
		return true;
	}

	int far = -1, map = -1;

  private:
	bool attach()
	{
		map = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "bench", 4, 4, 1, nullptr);
		if (map < 0) return false;
		bpf_insn code[6]{};
		code[0].code = BPF_LDX | BPF_MEM | BPF_W; // r2 = ctx->rx_queue_index
		code[0].dst_reg = 2;
		code[0].src_reg = 1;
		code[0].off = offsetof(xdp_md, rx_queue_index);
		code[1].code = BPF_LD | BPF_IMM | BPF_DW; // r1 = map
		code[1].dst_reg = 1;
		code[1].src_reg = BPF_PSEUDO_MAP_FD;
		code[1].imm = map;
		code[3].code = BPF_ALU64 | BPF_MOV | BPF_K; // r3 = XDP_PASS
		code[3].dst_reg = 3;
		code[3].imm = XDP_PASS;
		code[4].code = BPF_JMP | BPF_CALL;
		code[4].imm = BPF_FUNC_redirect_map;
		code[5].code = BPF_JMP | BPF_EXIT;
		int program = bpf_prog_load(BPF_PROG_TYPE_XDP, "bench", "GPL", code, 6, nullptr);
		if (program < 0) return false;
		link_ = bpf_link_create(program, (int)if_nametoindex("hpb"), BPF_XDP, nullptr);
		close(program);
		return link_ >= 0;
	}

	int before_, link_ = -1;
	bool inside_ = false;
	const char *why_ = nullptr;
};

// Bursts that are forwarded by forward(), which returns how many frames it has sent on, or below 0.
template <typename Forward> void measure(benchmark::State &state, Network &network, Forward forward)
{
	for (auto _ : state) {
		(void)_;
		state.PauseTiming();
		if (!network.send(burst)) return state.SkipWithError("frames cannot be sent");
		state.ResumeTiming();
		for (unsigned sent = 0, idle = 0; sent < burst;) {
			int n = forward(burst - sent);
			if (n < 0) return state.SkipWithError("a ring is full that cannot be");
			if ((idle = n ? 0 : idle + 1) > 1000000) return state.SkipWithError("frames are lost");
			sent += (unsigned)n;
		}
	}
	state.SetItemsProcessed((int64_t)state.iterations() * burst);
}

void pool(benchmark::State &state)
{
	Pool memory(64 * MiB, HP_RUNG_2M, HP_CHOICE_PREFER);
	Network network;
	if (!memory) return state.SkipWithError(kept(memory.why()));
	if (network.why()) return state.SkipWithError(network.why());
	hp_cache_options cut{};
	cut.struct_size = sizeof cut;
	cut.size = cut.align = 2048;
	hp_cache *cache;
	hp_xdp_options options{};
	options.struct_size = sizeof options;
	options.interface = "hpb";
	options.frames = options.sends = ring;
	options.xsk_map = network.map;
	hp_xdp *xdp;
	if (hp_cache_create(memory, "frames", &cut, &cache)) return state.SkipWithError("no cache");
	if (hp_xdp_open(cache, &options, &xdp)) return state.SkipWithError("no AF_XDP");
	hp_xdp_frame frames[burst];
	unsigned have = 0, at = 0; // received, and sent on
	measure(state, network, [&](unsigned n) {
		if (at == have) {
			int got = hp_xdp_receive(xdp, frames, n);
			if (got < 0) return got;
			have = (unsigned)got;
			at = 0;
		}
		int sent = hp_xdp_send(xdp, frames + at, have - at);
		if (sent > 0) at += (unsigned)sent;
		return sent;
	});
	if (hp_xdp_close(xdp)) std::abort();
}

void umem(benchmark::State &state)
{
	Network network;
	if (network.why()) return state.SkipWithError(network.why());
	constexpr size_t bytes = 64 * MiB; // as much as the pool, on pages as large
	void *area = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE,
	                  -1, 0);
	if (area == MAP_FAILED)
		area = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (area == MAP_FAILED) return state.SkipWithError("no memory");
	xsk_ring_prod fill, send;
	xsk_ring_cons done, receive;
	xsk_umem *umem = nullptr;
	xsk_socket *xsk = nullptr;
	xsk_umem_config memory_config{};
	memory_config.fill_size = 2 * ring; // the kernel says late what it has taken from it
	memory_config.comp_size = ring;
	memory_config.frame_size = 2048;
	xsk_socket_config config{};
	config.rx_size = config.tx_size = ring;
	config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
	config.bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP;
	if (xsk_umem__create(&umem, area, bytes, &fill, &done, &memory_config) ||
	    xsk_socket__create(&xsk, "hpb", 0, umem, &receive, &send, &config) ||
	    xsk_socket__update_xskmap(xsk, network.map))
		return state.SkipWithError("no AF_XDP");
	uint32_t at = 0, under_way = 0;
	xsk_ring_prod__reserve(&fill, ring, &at);
	for (unsigned i = 0; i < ring; i++) *xsk_ring_prod__fill_addr(&fill, at + i) = (uint64_t)i * 2048;
	xsk_ring_prod__submit(&fill, ring);
	measure(state, network, [&](unsigned n) {
		uint32_t from, to, sent = xsk_ring_cons__peek(&done, ring, &from);
		if (sent) { // what has been sent can be filled again
			if (xsk_ring_prod__reserve(&fill, sent, &to) != sent) return -1;
			for (uint32_t i = 0; i < sent; i++)
				*xsk_ring_prod__fill_addr(&fill, to + i) = *xsk_ring_cons__comp_addr(&done, from + i) & ~UINT64_C(2047);
			xsk_ring_prod__submit(&fill, sent);
			xsk_ring_cons__release(&done, sent);
			under_way -= sent;
		}
		uint32_t got = xsk_ring_cons__peek(&receive, n, &from);
		if (got) {
			if (xsk_ring_prod__reserve(&send, got, &to) != got) return -1;
			for (uint32_t i = 0; i < got; i++) {
				const xdp_desc *in = xsk_ring_cons__rx_desc(&receive, from + i);
				xdp_desc *out = xsk_ring_prod__tx_desc(&send, to + i);
				out->addr = in->addr;
				out->len = in->len;
			}
			xsk_ring_prod__submit(&send, got);
			xsk_ring_cons__release(&receive, got);
			under_way += got;
		}
		while (under_way && xsk_ring_prod__needs_wakeup(&send) &&
		       sendto(xsk_socket__fd(xsk), nullptr, 0, MSG_DONTWAIT, nullptr, 0) < 0 && errno == EAGAIN) {}
		return (int)got;
	});
	xsk_socket__delete(xsk);
	xsk_umem__delete(umem);
	munmap(area, bytes);
}

const Register ours("xdp_forward/hugepool/bytes:64", pool), plain("xdp_forward/umem/bytes:64", umem);

} // namespace
#else
const bool missing = (register_missing("xdp_forward/umem/bytes:64", "libxdp or libbpf is missing (tools/deps bench)"),
                      true);
#endif
