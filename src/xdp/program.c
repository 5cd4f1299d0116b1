/* The program on the interface: six instructions that look the frame's queue up in a map of sockets, and let it pass to the
 * kernel where there is none.
 *
 * It is attached by a link, which lives as long as a descriptor of it, so that the death of the last process that uses it
 * leaves nothing on the interface. A second queue of the same interface, in this process or another, finds program, map and
 * link by their numbers, and holds the link too. System calls alone: the usual libraries attach in a way that outlives the
 * process, and print. */
#include "xdp/program.h"
#include "os/packet.h"
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif

#define NAME_BYTES 16 /* BPF_OBJ_NAME_LEN */
#define QUEUES 1024u
#define LOOKS 100000u /* links of the machine that are looked at */

/* Program and map are named by the network namespace, for interfaces of different ones may have the same number. */
static void name_it(int socket, char name[NAME_BYTES])
{
	uint64_t cookie = 0;
	unsigned bytes = sizeof cookie;
	if (os_socket_ask(socket, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &bytes) < 0) cookie = 0;
	snprintf(name, NAME_BYTES, "hpxdp_%08x", (unsigned)cookie);
}

static int create_map(const char *name)
{
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.map_type = BPF_MAP_TYPE_XSKMAP;
	attr.key_size = attr.value_size = 4;
	attr.max_entries = QUEUES;
	memcpy(attr.map_name, name, NAME_BYTES);
	return os_bpf(BPF_MAP_CREATE, &attr, sizeof attr);
}

static int load(int map, const char *name)
{
	const struct bpf_insn code[] = {
		/* r2 = ctx->rx_queue_index */
		{.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 2, .src_reg = 1, .off = offsetof(struct xdp_md, rx_queue_index)},
		/* return bpf_redirect_map(map, r2, XDP_PASS): the last, in its low bits, is for a queue without a socket */
		{.code = BPF_LD | BPF_IMM | BPF_DW, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map},
		{0},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.prog_type = BPF_PROG_TYPE_XDP;
	attr.insns = (uintptr_t)code;
	attr.insn_cnt = sizeof code / sizeof *code;
	attr.license = (uintptr_t) "Dual MIT/GPL";
	attr.expected_attach_type = BPF_XDP;
	memcpy(attr.prog_name, name, NAME_BYTES);
	return os_bpf(BPF_PROG_LOAD, &attr, sizeof attr);
}

static int attach(int program, int interface)
{
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.link_create.prog_fd = program;
	attr.link_create.target_ifindex = interface;
	attr.link_create.attach_type = BPF_XDP; /* by the driver where it can, else by the kernel for it */
	return os_bpf(BPF_LINK_CREATE, &attr, sizeof attr);
}

static int open_by_number(int command, uint32_t number)
{
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.link_id = number; /* one word for all kinds */
	return os_bpf(command, &attr, sizeof attr);
}

static int ask(int fd, void *info, unsigned bytes)
{
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.info.bpf_fd = fd;
	attr.info.info_len = bytes;
	attr.info.info = (uintptr_t)info;
	return os_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof attr);
}

/* The map of a program of ours, or -ENOENT: it is somebody else's. */
static int map_of(uint32_t program, const char *name)
{
	struct bpf_prog_info info;
	struct bpf_map_info map_info;
	uint32_t number = 0;
	int fd = open_by_number(BPF_PROG_GET_FD_BY_ID, program);
	if (fd < 0) return fd;
	memset(&info, 0, sizeof info);
	info.nr_map_ids = 1;
	info.map_ids = (uintptr_t)&number;
	int error = ask(fd, &info, sizeof info);
	os_close(fd);
	if (error < 0) return error;
	if (strncmp(info.name, name, sizeof info.name) || info.nr_map_ids != 1) return -ENOENT;
	fd = open_by_number(BPF_MAP_GET_FD_BY_ID, number);
	if (fd < 0) return fd;
	memset(&map_info, 0, sizeof map_info);
	error = ask(fd, &map_info, sizeof map_info);
	if (error == 0 && map_info.type == BPF_MAP_TYPE_XSKMAP) return fd;
	os_close(fd);
	return error < 0 ? error : -ENOENT;
}

/* A program of ours that is on the interface already: its link and its map. -ENOENT: there is none, or another. */
static int find(int interface, const char *name, struct xdp_program *program)
{
	int error = -ENOENT;
	uint32_t number = 0;
	for (unsigned i = 0; i < LOOKS; i++) {
		union bpf_attr attr;
		memset(&attr, 0, sizeof attr);
		attr.start_id = number;
		int got = os_bpf(BPF_LINK_GET_NEXT_ID, &attr, sizeof attr);
		if (got < 0) return got == -ENOENT ? error : got;
		number = attr.next_id;
		int link = open_by_number(BPF_LINK_GET_FD_BY_ID, number);
		if (link < 0) continue; /* gone meanwhile */
		struct bpf_link_info info;
		memset(&info, 0, sizeof info);
		if (ask(link, &info, sizeof info) == 0 && info.type == BPF_LINK_TYPE_XDP &&
		    info.xdp.ifindex == (uint32_t)interface && (program->map = map_of(info.prog_id, name)) >= 0) {
			program->link = link;
			return 0;
		}
		os_close(link);
	}
	return error;
}

static int make(int interface, const char *name, struct xdp_program *program)
{
	int map = create_map(name), code, link = -1;
	if (map < 0) return map;
	code = load(map, name);
	if (code >= 0) {
		link = attach(code, interface);
		os_close(code); /* the link holds it */
	}
	if (code < 0 || link < 0) {
		os_close(map);
		return code < 0 ? code : link;
	}
	program->map = map;
	program->link = link;
	return 0;
}

int xdp_program_open(hp_pool *pool, const char *interface, int index, int socket, int map, struct xdp_program *program)
{
	char name[NAME_BYTES];
	*program = (struct xdp_program){.map = map, .link = -1, .own_map = map <= 0};
	if (map > 0) return 0;
	name_it(socket, name);
	int error = make(index, name, program);
	if (error == -EBUSY || error == -EEXIST) {
		int found = find(index, name, program);
		if (found == 0) return 0;
		if (found == -EPERM) {
			pool_log(
				pool,
				"xdp: %s has an XDP program already, and whose it is may not be looked up: opening a second queue in "
				"another process needs CAP_SYS_ADMIN",
				interface);
			return found;
		}
		error = -EBUSY;
	}
	switch (error) {
	case 0: break;
	case -EBUSY:
		pool_log(
			pool,
			"xdp: another XDP program is on %s: take it off (ip link set dev %s xdp off), or pass the map in which it "
			"looks for sockets as xsk_map",
			interface, interface);
		break;
	case -EPERM:
		pool_log(
			pool,
			"xdp: an XDP program may not be put on %s: run as root or with CAP_NET_ADMIN and CAP_BPF (setcap "
			"cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep PROGRAM), or attach one otherwise and pass its xsk_map",
			interface);
		break;
	case -EOPNOTSUPP:
		pool_log(pool, "xdp: the driver of %s takes no XDP programs: use another interface", interface);
		break;
	default:
		pool_log(pool,
		         "xdp: an XDP program cannot be put on %s: error %d (kernel 5.9 and later, with CONFIG_BPF_SYSCALL)",
		         interface, -error);
	}
	return error;
}

static int change(int command, int map, uint32_t queue, int socket)
{
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.map_fd = map;
	attr.key = (uintptr_t)&queue;
	if (command == BPF_MAP_UPDATE_ELEM) attr.value = (uintptr_t)&socket;
	return os_bpf(command, &attr, sizeof attr);
}

int xdp_program_lead(hp_pool *pool, struct xdp_program *program, uint32_t queue, int socket)
{
	program->queue = queue;
	int error = change(BPF_MAP_UPDATE_ELEM, program->map, queue, socket);
	if (error < 0)
		pool_log(pool, "xdp: the socket of queue %u cannot be put into the program's map: error %d%s", queue, -error,
		         program->own_map ? "" : " (xsk_map has to be a map of type XSKMAP with room for that queue)");
	return error;
}

void xdp_program_close(struct xdp_program *program, bool led)
{
	if (led) {
		/* A forked child may hold the socket, so that closing it does not end it: frames end here. */
		change(BPF_MAP_DELETE_ELEM, program->map, program->queue, -1);
		os_membarrier_all();
	}
	if (program->link >= 0) os_close(program->link);
	if (program->own_map && program->map >= 0) os_close(program->map);
}
