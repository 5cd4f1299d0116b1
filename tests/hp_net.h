/* A network of a test's own: a namespace with a pair of interfaces, frames sent
 * from one end and taken at the other.
 *
 * The pair is hpa and hpb; hpa is the far end, to which packet sockets are
 * bound. Nobody else sends anything there: there is no IPv6, no address, and no
 * ARP. All of it ends with the process. */
#ifndef HP_NET_TEST_H
#define HP_NET_TEST_H

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include "hp_process.h"

#define NET_TYPE 0x88b5 /* Ethernet frames for experiments */
#define NET_HEADER 14

/* With `queues` queues at hpb, to the first of which all frames come. Skips the
 * program where the machine does not let it have one. Before threads and pools.
 */
static inline void net_own(unsigned queues)
{
	char command[256];
	if (unshare(CLONE_NEWNET) < 0) hp_test_skip("no network namespace of its own: %s (needs root)", strerror(errno));
	for (unsigned i = 0; i < 2; i++) {
		FILE *file = fopen(
			i ? "/proc/sys/net/ipv6/conf/default/disable_ipv6" : "/proc/sys/net/ipv6/conf/all/disable_ipv6", "we");
		if (file && (fputs("1\n", file), fclose(file) < 0)) hp_test_skip("IPv6 cannot be turned off in the namespace");
	}
	if (system("ip -V >/dev/null 2>&1") != 0) hp_test_skip("there is no ip (package iproute2)");
	snprintf(command, sizeof command,
	         "ip link add hpa numtxqueues 1 type veth peer name hpb numtxqueues "
	         "%u numrxqueues %u 2>&1 && "
	         "ip link set hpa arp off up && ip link set hpb arp off up",
	         queues, queues);
	if (system(command) != 0) hp_test_skip("no pair of veth interfaces to be had");
	int xdp = socket(44 /* AF_XDP */, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (xdp < 0) hp_test_skip("no AF_XDP sockets: %s", strerror(errno));
	close(xdp);
}

/* A packet socket at the far end. */
static inline int net_far(void)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(NET_TYPE)), big = 8 << 20;
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET, .sll_protocol = htons(NET_TYPE), .sll_ifindex = (int)if_nametoindex("hpa")};
	must(fd >= 0);
	must_be(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	must_be(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big), 0);
	return fd;
}

/* A frame that knows its number: header, number, and bytes that follow from it.
 */
static inline void net_make(unsigned char *frame, size_t length, uint32_t number)
{
	memset(frame, 0xff, 6);
	memset(frame + 6, 0x02, 6);
	frame[12] = NET_TYPE >> 8;
	frame[13] = NET_TYPE & 0xff;
	memcpy(frame + NET_HEADER, &number, sizeof number);
	for (size_t i = NET_HEADER + sizeof number; i < length; i++) frame[i] = (unsigned char)(number * 7 + i);
}

static inline bool net_made(const unsigned char *frame, size_t length, uint32_t number)
{
	unsigned char want[4096];
	must(length <= sizeof want);
	net_make(want, length, number);
	return memcmp(frame, want, length) == 0;
}

static inline uint32_t net_number(const unsigned char *frame)
{
	uint32_t number;
	memcpy(&number, frame + NET_HEADER, sizeof number);
	return number;
}

/* Between 60 bytes and 1514. */
static inline size_t net_length(uint32_t number)
{
	return 60 + number * 37 % 1455;
}

static inline void net_send(int far, uint32_t from, uint32_t to)
{
	unsigned char frame[2048];
	for (uint32_t i = from; i < to; i++) {
		net_make(frame, net_length(i), i);
		ssize_t sent;
		while ((sent = send(far, frame, net_length(i), 0)) < 0 && (errno == ENOBUFS || errno == EINTR)) {}
		must_be(sent, net_length(i));
	}
}

/* Until there is something to be read, or, false, nothing for a long time. */
static inline bool net_wait(int fd)
{
	struct pollfd poll_for = {.fd = fd, .events = POLLIN};
	return poll(&poll_for, 1, 20000) == 1;
}

#endif
