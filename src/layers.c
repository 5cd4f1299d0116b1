/* The layers that the pool knows of, from the bottom up. */
#include "pool/layers.h"

extern const struct pool_layer page_layer, slab_layer, cache_layer;

const struct pool_layer *const pool_layers[] = {&page_layer, &slab_layer, &cache_layer, NULL};
