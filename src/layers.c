/* The layers that the pool knows of, from the bottom up; the first has to recover before slabs change hands. */
#include "pool/layers.h"

extern const struct pool_layer publish_layer, page_layer, slab_layer, cache_layer, watch_layer, heap_layer, pin_layer;

const struct pool_layer *const pool_layers[] = {&publish_layer, &page_layer, &slab_layer, &cache_layer,
                                                &watch_layer,   &heap_layer, &pin_layer,  NULL};
