/* keyhole/status.h: how every call answers.
 *
 * A call returns 0 (KH_OK) or a negative kh_status. The sentence that belongs to the last failure
 * of the calling thread is read with kh_last_error(); it names what, where, what was expected and
 * what was found. Nothing in the library prints, exits or aborts. */
#ifndef KEYHOLE_STATUS_H
#define KEYHOLE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KH_API __attribute__((visibility("default")))
#else
#define KH_API
#endif

/* The one list of errors: name, value, general sentence, HTTP status, process exit code. */
#define KH_STATUS_LIST(X)                                                                          \
    X(OK, 0, "success", 200, 0)                                                                    \
    X(ERR_MEMORY, -1, "out of memory", 503, 1)                                                     \
    X(ERR_ARGUMENT, -2, "an argument is outside its range", 400, 2)                                \
    X(ERR_IO, -3, "a file could not be read or written", 500, 1)                                   \
    X(ERR_FORMAT, -4, "a file is damaged or not in the expected format", 422, 1)                   \
    X(ERR_UNSUPPORTED, -5, "the file or request needs something that is not supported", 501, 1)    \
    X(ERR_CONTEXT, -6, "the context is too small for the request", 400, 1)                         \
    X(ERR_STOPPED, -7, "stopped on request", 499, 130)                                             \
    X(ERR_NOT_FOUND, -8, "not found", 404, 1)                                                      \
    X(ERR_STATE, -9, "the object is not in a state that allows this call", 409, 1)                 \
    X(ERR_CHECK, -10, "a check failed", 500, 1)

typedef enum kh_status {
#define KH_STATUS_ENUM(name, value, sentence, http, code) KH_##name = value,
    KH_STATUS_LIST(KH_STATUS_ENUM)
#undef KH_STATUS_ENUM
} kh_status;

/* The general sentence of a status ("out of memory"); never NULL. */
KH_API const char *kh_status_text(kh_status status);
/* The name of a status as it is written in C ("KH_ERR_MEMORY"); never NULL. */
KH_API const char *kh_status_name(kh_status status);
/* HTTP status and process exit code that fit a status. */
KH_API int kh_status_http(kh_status status);
KH_API int kh_status_exit(kh_status status);

/* The sentence of this thread's last failure; "" if there was none. Valid until this thread's next
 * failing call. */
KH_API const char *kh_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
