/* What a frame carries: enough of Ethernet, VLAN tags, IPv4, IPv6, TCP and UDP to say which conversation it belongs to.
 *
 * Pure functions over captured bytes. Everything is checked against the captured length, and against the length that
 * the IP header states where that is shorter (short frames are padded on the wire; the padding is no header). A length
 * of 0 in an IP header is what a capture of segmentation offload shows, and means "as captured". */
#ifndef HUGEPOOL_TOOL_FRAME_H
#define HUGEPOOL_TOOL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Both ends of a conversation, the lower one first, so that both directions give the same key. An IPv4 address takes
 * the first four bytes, the rest is zero. No padding: keys are compared and hashed as bytes. */
struct flow_key {
	uint8_t address[2][16];
	uint16_t port[2]; /* in the order of the host */
	uint8_t family;   /* 4 or 6 */
	uint8_t protocol; /* 6 TCP, 17 UDP */
	uint8_t zero[2];
};
_Static_assert(sizeof(struct flow_key) == 40, "keys have no padding");

/* True and the key for a frame of a TCP or UDP conversation, taken from the outermost IP header; false for all else:
 * other protocols, fragments but the first, headers cut short or senseless. */
bool frame_parse(const uint8_t *bytes, size_t length, struct flow_key *key);

/* The same for both directions of a conversation. */
uint64_t flow_hash(const struct flow_key *key);

bool flow_key_same(const struct flow_key *a, const struct flow_key *b);

#endif
