/* base/buf.h: a growable byte buffer that is always followed by a zero byte. */
#ifndef KH_BASE_BUF_H
#define KH_BASE_BUF_H

#include <keyhole/status.h>
#include <stddef.h>

typedef struct kh_buf {
    char *data; /* NULL while empty; data[size] is 0 otherwise */
    size_t size, capacity;
} kh_buf;

kh_status kh_buf_reserve(kh_buf *buf, size_t capacity); /* room for that many bytes in all */
kh_status kh_buf_add(kh_buf *buf, const void *bytes, size_t n);
kh_status kh_buf_text(kh_buf *buf, const char *text);
kh_status kh_buf_format(kh_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void kh_buf_clear(kh_buf *buf); /* keeps the memory */
void kh_buf_free(kh_buf *buf);

#endif
