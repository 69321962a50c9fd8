/* The error sentence of a thread.
 *
 * A failing call leaves one sentence for the human and one code for the program. The sentence lives
 * in a thread-local buffer of fixed size, so that reporting "out of memory" needs no memory and two
 * threads never read each other's failure. Success does not clear it: callers look only after a
 * non-zero status, and clearing would cost every good call a store.
 *
 * Rejected: an error object passed through every signature (noise on the good path), and a stack of
 * sentences (nobody reads the second). kh_fail_context() covers the one useful case, a caller that
 * knows a file name. */
#include "base/fail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char sentence[1024];

kh_status kh_fail(kh_status status, const char *format, ...)
{
    int saved = errno;
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    errno = saved;
    return status;
}

kh_status kh_fail_context(kh_status status, const char *format, ...)
{
    int saved = errno;
    char old[sizeof sentence];
    memcpy(old, sentence, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n + 3 < sizeof sentence) {
        size_t room = sizeof sentence - (size_t)n - 3, keep = strnlen(old, room);
        memcpy(sentence + n, ": ", 2);
        memcpy(sentence + n + 2, old, keep);
        sentence[(size_t)n + 2 + keep] = 0;
    }
    errno = saved;
    return status;
}

const char *kh_last_error(void)
{
    return sentence;
}

const char *kh_status_text(kh_status status)
{
    switch (status) {
#define KH_CASE(name, value, text, http, code)                                                     \
    case KH_##name: return text;
        KH_STATUS_LIST(KH_CASE)
#undef KH_CASE
    }
    return "unknown status";
}

const char *kh_status_name(kh_status status)
{
    switch (status) {
#define KH_CASE(name, value, text, http, code)                                                     \
    case KH_##name: return "KH_" #name;
        KH_STATUS_LIST(KH_CASE)
#undef KH_CASE
    }
    return "KH_?";
}

int kh_status_http(kh_status status)
{
    switch (status) {
#define KH_CASE(name, value, text, http, code)                                                     \
    case KH_##name: return http;
        KH_STATUS_LIST(KH_CASE)
#undef KH_CASE
    }
    return 500;
}

int kh_status_exit(kh_status status)
{
    switch (status) {
#define KH_CASE(name, value, text, http, code)                                                     \
    case KH_##name: return code;
        KH_STATUS_LIST(KH_CASE)
#undef KH_CASE
    }
    return 1;
}
