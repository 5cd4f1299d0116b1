/* Frames to send through the demonstration: a capture file, read through libpcap, or a generated mix.
 *
 * All frames are read into private memory before the pipeline starts, so that a file that cannot be used is refused
 * before anything runs, the middle of the run is known, and repetition costs no reading. */
#ifndef HUGEPOOL_TOOL_CAPTURE_H
#define HUGEPOOL_TOOL_CAPTURE_H

#include <stddef.h>
#include <stdint.h>

struct capture_frame {
	uint64_t at;     /* in `bytes` */
	uint32_t length; /* as captured */
};

struct capture {
	uint8_t *bytes;
	size_t used, room;
	struct capture_frame *frame;
	size_t frames, frame_room;
	uint32_t longest;
	char damage[256]; /* empty, or why the file ends before its end: what was read up to there is good */
};

/* 0, or -1 with the cause in error. A file that is cut off is no failure: see `damage`. */
int capture_read(const char *path, struct capture *capture, char *error, size_t size);

/* A deterministic mix of at most `frames` frames: 64 to 9,018 bytes, TCP and UDP over IPv4 and IPv6, tagged and not, a
 * few thousand conversations, and some frames that belong to none. 0 or -1, as capture_read. */
int capture_generate(size_t frames, struct capture *capture, char *error, size_t size);

/* Room for one frame more, in which the caller writes; NULL: no memory. */
uint8_t *capture_add(struct capture *capture, uint32_t length);

void capture_free(struct capture *capture);

#endif
