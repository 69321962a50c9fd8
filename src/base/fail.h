/* base/fail.h: an error is named where it is born and forwarded on the way up. */
#ifndef KH_BASE_FAIL_H
#define KH_BASE_FAIL_H

#include <keyhole/status.h>

/* Stores the sentence for kh_last_error() and returns `status`. Formats like printf; a sentence
 * longer than the thread's buffer (1 KiB) is cut. `errno` is left as it was. */
kh_status kh_fail(kh_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "context: " in front of this thread's sentence, for a caller that knows the file or the
 * option that the callee did not; returns `status` unchanged. */
kh_status kh_fail_context(kh_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define KH_FAIL(code, ...) return kh_fail((code), __VA_ARGS__)

#define KH_TRY(expr)                                                                               \
    do {                                                                                           \
        kh_status kh_try_status = (expr);                                                          \
        if (kh_try_status != KH_OK) return kh_try_status;                                          \
    } while (0)

#endif
