/* hub/hub_http.h: one request to a hub, with its redirects; and how long to wait before the next. The
 * only interface to libcurl. */
#ifndef KH_HUB_HUB_HTTP_H
#define KH_HUB_HUB_HTTP_H

#include "hub/hub_impl.h"

typedef struct kh_http_answer {
    int status;    /* of the last response; 0: there was none */
    int ours;      /* that response was the endpoint's, not that of a store behind it */
    int may_pass;  /* the fault may be gone at the next try */
    double wait;   /* seconds that the server asks for */
    int64_t total; /* bytes of the whole file as Content-Length or Content-Range say; -1 */
    int64_t from;  /* first byte of a 206; -1: no Content-Range that can be read */
    /* From the endpoint itself, not from whom it redirects to; "" or -1 where they are missing. */
    char etag[KH_HUB_MOST_ETAG + 1]; /* X-Linked-Etag or ETag, without W/ and quotes */
    char commit[KH_HUB_COMMIT + 1];  /* X-Repo-Commit */
    char error[32];                  /* X-Error-Code */
    int64_t linked_size;             /* X-Linked-Size */
    char next[1024];                 /* Link: <...>; rel="next" */
} kh_http_answer;

typedef struct kh_http_request {
    const char *path;     /* behind the endpoint, begins with "/"; or a whole URL of the endpoint */
    int head;             /* no body is asked for */
    uint64_t from;        /* asks for what is behind that many bytes */
    const char *if_range; /* the etag of what is there, where `from` is set; "": no condition */
    double most_seconds;  /* for all of it; 0: no limit */
    /* Before the first byte of a 200 or 206, and for the bytes. What they return ends the transfer. */
    kh_status (*begin)(void *context, const kh_http_answer *answer);
    kh_status (*take)(void *context, const char *bytes, size_t n);
    void *context;
} kh_http_request;

/* KH_OK: a 200 or 206 arrived whole. Otherwise a sentence that names the address without its query. */
kh_status kh_http_send(kh_http *http, const kh_http_request *request, kh_http_answer *answer);
/* Waits before try `tried` + 1, with this thread's sentence as the reason; or returns `status` where
 * the fault will not pass or there were tries enough. */
kh_status kh_http_again(kh_http *http, kh_status status, const kh_http_answer *answer, int tried);
const char *kh_http_endpoint(const kh_http *http);
/* Appends text with what has a meaning in addresses escaped, "/" too if `slash`. */
kh_status kh_http_escape(kh_buf *out, const char *text, int slash);
/* The sentence for a refusal (401, 403, 404), in terms of the model; `status` where it is none. */
kh_status kh_http_refusal(const kh_http *http, kh_status status, const kh_http_answer *answer,
                          const char *file);

#endif
