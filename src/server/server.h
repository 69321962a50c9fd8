/* server/server.h: a model behind HTTP.
 *
 *     connection threads        parse, check, wait, write          one for each connection
 *     the worker                owns the model's sessions          one; answers share its passes
 *
 * server/job.h is what routes are written against. */
#ifndef KH_SERVER_SERVER_H
#define KH_SERVER_SERVER_H

#include <keyhole/keyhole.h>
#include <stddef.h>
#include <stdint.h>

typedef struct server server;

/* A control vector that is there from the start (keyhole/steer.h). */
typedef struct server_vector {
    const char *path;
    double scale;
    int first, last; /* layers; 0 and 0: all */
} server_vector;

/* Zeros: defaults. Everything pointed to must outlive the server. */
typedef struct server_options {
    const char *host; /* an address or a name of this machine; NULL: 127.0.0.1 */
    int port;         /* 0: any free one */
    const char *const
        *keys; /* [key_count] one of which a request must bring; none: no key is needed */
    size_t key_count;
    const char *cors_origin; /* the one other origin whose pages may ask; NULL: none */
    const char *slot_folder; /* where saved sessions are; NULL: none are */
    const char *labels;      /* the file of labels and views (wire/labels.h); NULL: none */
    const char *alias;       /* what the model is called; NULL: the name of its file */
    size_t slots;            /* answers that grow together; 0: 4 */
    size_t queue;            /* requests that wait for the worker; 0: 64 */
    size_t body;             /* most bytes of a request; 0: 16 MiB */
    int timeout;             /* seconds for which a connection may stand still; 0: 60 */
    int grace;               /* seconds that running answers have left after server_stop; 0: 5 */
    int no_page;             /* 1: GET / is no page */
    const server_vector *vectors; /* [vector_count] */
    size_t vector_count;
    kh_session_options session;
    /* How conversations become text: as kh_chat_options. */
    const char *chat_format, *chat_template, *chat_kwargs;
} server_options;

/* Binds the address and opens the slots: from here on it answers. KH_ERR_UNSUPPORTED where the program was built
 * without libmicrohttpd. */
kh_status server_open(server **out, const kh_model *model, const server_options *options);
/* Waits for server_stop; then takes no more requests, and returns when the running answers are done or were cancelled. */
kh_status server_run(server *server);
/* From any thread or signal handler. */
void server_stop(server *server);
void server_close(server *server); /* takes NULL */
/* "http://127.0.0.1:8080" */
const char *server_address(const server *server);

/* What the page is, with a zero byte behind; written by the build. */
extern const unsigned char server_page[];
extern const size_t server_page_size;

#endif
