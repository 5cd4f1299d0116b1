/* Putting a stopped process back to where it was. */
#ifndef HUGEPOOL_STEP_IMAGE_H
#define HUGEPOOL_STEP_IMAGE_H

#include "harness.h"

struct step_image;

/* The private writable memory of an actor, and with `registers` those of a traced one that stands still. What lies in the
 * kernel is not kept: descriptors, mappings, locks must be the same when it is put back. */
struct step_image *image_take(struct step_world *world, int actor, bool registers, struct step_image *reuse);
void image_put(struct step_world *world, int actor, const struct step_image *image);
void image_free(struct step_image *image);

#endif
