#ifndef HUGEPOOL_EXPORT_H
#define HUGEPOOL_EXPORT_H
/* Everything else in the library is hidden. */
#define HP_API __attribute__((visibility("default")))
#endif
