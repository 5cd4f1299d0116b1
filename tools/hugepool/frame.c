/* The parser; frame.h says what counts as a conversation. Each header moves `at` behind itself and may only shorten
 * `end`, so no read passes the captured bytes whatever the headers claim, and no chain of headers outlasts it. */
#include "frame.h"

#include <string.h>

#define ETHERNET_HEADER 14
#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd
#define TYPE_VLAN 0x8100         /* 802.1Q */
#define TYPE_SERVICE_VLAN 0x88a8 /* 802.1ad, the outer tag */
#define TYPE_OLD_QINQ 0x9100     /* outer tag before 802.1ad */

enum { HOP_BY_HOP = 0, TCP = 6, UDP = 17, ROUTING = 43, FRAGMENT = 44, AUTHENTICATION = 51, DESTINATION = 60 };

struct cursor {
	const uint8_t *bytes;
	size_t at, end;
};

static uint16_t be16(const uint8_t *bytes)
{
	return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static bool has(const struct cursor *cursor, size_t bytes)
{
	return cursor->end - cursor->at >= bytes;
}

/* The packet ends where its header says, if that is before the captured end. */
static void limit(struct cursor *cursor, size_t from, size_t stated)
{
	if (stated < cursor->end - from) cursor->end = from + stated;
}

static bool ethernet(struct cursor *cursor, uint16_t *type)
{
	if (!has(cursor, ETHERNET_HEADER)) return false;
	*type = be16(cursor->bytes + 12);
	cursor->at = ETHERNET_HEADER;
	while (*type == TYPE_VLAN || *type == TYPE_SERVICE_VLAN || *type == TYPE_OLD_QINQ) {
		if (!has(cursor, 4)) return false;
		*type = be16(cursor->bytes + cursor->at + 2);
		cursor->at += 4;
	}
	return true;
}

static bool ipv4(struct cursor *cursor, struct flow_key *key, uint8_t *protocol)
{
	const uint8_t *header = cursor->bytes + cursor->at;
	if (!has(cursor, 20) || header[0] >> 4 != 4) return false;
	size_t length = (size_t)(header[0] & 15) * 4;
	uint16_t total = be16(header + 2);
	if (length < 20 || (total != 0 && total < length)) return false;
	if (total != 0) limit(cursor, cursor->at, total);
	if (!has(cursor, length) || (be16(header + 6) & 0x1fff) != 0) return false;
	key->family = 4;
	memcpy(key->address[0], header + 12, 4);
	memcpy(key->address[1], header + 16, 4);
	*protocol = header[9];
	cursor->at += length;
	return true;
}

static bool ipv6_extensions(struct cursor *cursor, uint8_t *next)
{
	for (;;) {
		const uint8_t *header = cursor->bytes + cursor->at;
		size_t length;
		switch (*next) {
		case HOP_BY_HOP:
		case ROUTING:
		case DESTINATION:
			if (!has(cursor, 8)) return false;
			length = ((size_t)header[1] + 1) * 8;
			break;
		case FRAGMENT:
			if (!has(cursor, 8) || (be16(header + 2) & 0xfff8) != 0) return false;
			length = 8;
			break;
		case AUTHENTICATION:
			if (!has(cursor, 8)) return false;
			length = ((size_t)header[1] + 2) * 4;
			break;
		default: return true;
		}
		if (!has(cursor, length)) return false;
		*next = header[0];
		cursor->at += length;
	}
}

static bool ipv6(struct cursor *cursor, struct flow_key *key, uint8_t *protocol)
{
	const uint8_t *header = cursor->bytes + cursor->at;
	if (!has(cursor, 40) || header[0] >> 4 != 6) return false;
	uint16_t payload = be16(header + 4);
	if (payload != 0) limit(cursor, cursor->at, 40 + (size_t)payload);
	key->family = 6;
	memcpy(key->address[0], header + 8, 16);
	memcpy(key->address[1], header + 24, 16);
	*protocol = header[6];
	cursor->at += 40;
	return ipv6_extensions(cursor, protocol);
}

/* Puts the lower end first. */
static void sort_ends(struct flow_key *key)
{
	int order = memcmp(key->address[0], key->address[1], sizeof(key->address[0]));
	if (order < 0 || (order == 0 && key->port[0] <= key->port[1])) return;
	uint8_t address[16];
	memcpy(address, key->address[0], sizeof(address));
	memcpy(key->address[0], key->address[1], sizeof(address));
	memcpy(key->address[1], address, sizeof(address));
	uint16_t port = key->port[0];
	key->port[0] = key->port[1];
	key->port[1] = port;
}

bool frame_parse(const uint8_t *bytes, size_t length, struct flow_key *key)
{
	struct cursor cursor = {.bytes = bytes, .end = length};
	uint16_t type;
	uint8_t protocol;
	memset(key, 0, sizeof(*key));
	if (!ethernet(&cursor, &type)) return false;
	if (type == TYPE_IPV4) {
		if (!ipv4(&cursor, key, &protocol)) return false;
	} else if (type == TYPE_IPV6) {
		if (!ipv6(&cursor, key, &protocol)) return false;
	} else {
		return false;
	}
	if (protocol == TCP ? !has(&cursor, 20) : protocol == UDP ? !has(&cursor, 8) : true) return false;
	key->protocol = protocol;
	key->port[0] = be16(cursor.bytes + cursor.at);
	key->port[1] = be16(cursor.bytes + cursor.at + 2);
	sort_ends(key);
	return true;
}

uint64_t flow_hash(const struct flow_key *key)
{
	uint64_t words[sizeof(*key) / 8], hash = 0x2545f4914f6cdd1d;
	memcpy(words, key, sizeof(words));
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15;
		hash ^= hash >> 29;
	}
	return hash ^ hash >> 32;
}

bool flow_key_same(const struct flow_key *a, const struct flow_key *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}
