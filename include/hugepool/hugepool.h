/* hugepool: memory that processes share, on huge pages, with nothing lost when one of them is killed. */
#ifndef HUGEPOOL_H
#define HUGEPOOL_H

#include <hugepool/backing.h>
#include <hugepool/block.h>
#include <hugepool/buf.h>
#include <hugepool/cache.h>
#include <hugepool/collections.h>
#include <hugepool/debug.h>
#include <hugepool/fifo.h>
#include <hugepool/heap.h>
#include <hugepool/image.h>
#include <hugepool/inspect.h>
#include <hugepool/keep.h>
#include <hugepool/malloc.h>
#include <hugepool/page.h>
#include <hugepool/pool.h>
#include <hugepool/ring.h>
#include <hugepool/sync.h>

#endif
