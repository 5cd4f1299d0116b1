#ifndef HUGEPOOL_EXPORT_H
#define HUGEPOOL_EXPORT_H
/* Everything else in the library is hidden. Functions are called through the table of addresses, not by way of a stub that
 * jumps there: each stub costs about a nanosecond, which is a third of the shortest calls. */
#define HP_API_DATA __attribute__((visibility("default")))
#if defined(__has_attribute)
#if __has_attribute(noplt)
#define HP_API __attribute__((visibility("default"), noplt))
#endif
#endif
#ifndef HP_API
#define HP_API HP_API_DATA
#endif
#endif
