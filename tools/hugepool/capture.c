/* Reading a capture file; capture.h has the design. */
#include "capture.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t *capture_add(struct capture *capture, uint32_t length)
{
	if (capture->frames == capture->frame_room) {
		size_t room = capture->frame_room ? capture->frame_room * 2 : 1024;
		struct capture_frame *frame = realloc(capture->frame, room * sizeof(*frame));
		if (!frame) return NULL;
		capture->frame = frame;
		capture->frame_room = room;
	}
	if (!capture->bytes || capture->room - capture->used < length) {
		size_t room = capture->room ? capture->room * 2 : 1 << 20;
		while (room - capture->used < length) room *= 2;
		uint8_t *bytes = realloc(capture->bytes, room);
		if (!bytes) return NULL;
		capture->bytes = bytes;
		capture->room = room;
	}
	uint8_t *place = capture->bytes + capture->used;
	capture->frame[capture->frames++] = (struct capture_frame){.at = capture->used, .length = length};
	capture->used += length;
	if (length > capture->longest) capture->longest = length;
	return place;
}

static int check_link_type(pcap_t *pcap, const char *path, char *error, size_t size)
{
	int type = pcap_datalink(pcap);
	if (type == DLT_EN10MB) return 0;
	const char *name = pcap_datalink_val_to_name(type);
	snprintf(error, size, "%s: link type %s (%d); only captures of Ethernet can be read", path, name ? name : "unknown",
	         type);
	return -1;
}

int capture_read(const char *path, struct capture *capture, char *error, size_t size)
{
	char cause[PCAP_ERRBUF_SIZE] = "";
	*capture = (struct capture){0};
	FILE *file = fopen(path, "rbe");
	if (!file) {
		snprintf(error, size, "%s: %s", path, strerror(errno));
		return -1;
	}
	pcap_t *pcap = pcap_fopen_offline(file, cause);
	if (!pcap) {
		fclose(file);
		snprintf(error, size, "%s: not a capture file that can be read: %s", path, cause);
		return -1;
	}
	int result = check_link_type(pcap, path, error, size);
	while (result == 0) {
		struct pcap_pkthdr *header;
		const u_char *bytes;
		int next = pcap_next_ex(pcap, &header, &bytes);
		if (next == PCAP_ERROR_BREAK) break;
		if (next != 1) {
			snprintf(capture->damage, sizeof(capture->damage), "%s: damaged after %zu frames: %s", path,
			         capture->frames, pcap_geterr(pcap));
			break;
		}
		uint8_t *place = capture_add(capture, header->caplen);
		if (!place) {
			snprintf(error, size, "%s: no memory to hold it after %zu frames", path, capture->frames);
			result = -1;
			break;
		}
		memcpy(place, bytes, header->caplen);
	}
	pcap_close(pcap);
	if (result < 0) capture_free(capture);
	return result;
}

void capture_free(struct capture *capture)
{
	free(capture->bytes);
	free(capture->frame);
	*capture = (struct capture){0};
}
