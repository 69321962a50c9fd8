/* A growable byte buffer.
 *
 * Grows by doubling, keeps a zero byte behind its content so that text needs no copy, and leaves the
 * content as it was when there is no memory. Sessions reserve their buffers for a whole answer, so
 * that decoding never grows one. */
#include "base/buf.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

kh_status kh_buf_reserve(kh_buf *buf, size_t capacity)
{
    if (buf->data && capacity <= buf->capacity) return KH_OK;
    size_t grown = buf->capacity < 60 ? 60 : buf->capacity * 2;
    if (grown < capacity) grown = capacity;
    char *data = grown < SIZE_MAX / 2 ? kh_realloc(buf->data, grown + 1) : NULL;
    if (!data) KH_FAIL(KH_ERR_MEMORY, "no memory for a buffer of %zu bytes", capacity);
    data[buf->size] = 0;
    buf->data = data;
    buf->capacity = grown;
    return KH_OK;
}

kh_status kh_buf_add(kh_buf *buf, const void *bytes, size_t n)
{
    if (n > SIZE_MAX / 4 - buf->size) KH_FAIL(KH_ERR_MEMORY, "a buffer would exceed memory");
    KH_TRY(kh_buf_reserve(buf, buf->size + n));
    if (n) memcpy(buf->data + buf->size, bytes, n);
    buf->size += n;
    buf->data[buf->size] = 0;
    return KH_OK;
}

kh_status kh_buf_text(kh_buf *buf, const char *text)
{
    return kh_buf_add(buf, text, strlen(text));
}

kh_status kh_buf_format(kh_buf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    kh_status status = n < 0 ? kh_fail(KH_ERR_ARGUMENT, "a text could not be formatted")
                             : kh_buf_reserve(buf, buf->size + (size_t)n);
    if (status == KH_OK) {
        vsnprintf(buf->data + buf->size, (size_t)n + 1, format, again);
        buf->size += (size_t)n;
    }
    va_end(again);
    return status;
}

void kh_buf_clear(kh_buf *buf)
{
    buf->size = 0;
    if (buf->data) buf->data[0] = 0;
}

void kh_buf_free(kh_buf *buf)
{
    kh_free(buf->data);
    *buf = (kh_buf){0};
}
