/* server/job.h: what a route is: a function that is given a job and answers it.
 *
 *     static kh_status count(server_job *job)
 *     {
 *         int64_t to = 10;
 *         KH_TRY(wire_get_int(server_job_body(job), "to", &to, 1, 1000));
 *         KH_TRY(server_begin(job, SERVER_LINES));
 *         for (int64_t i = 0; i < to; i++) {
 *             KH_TRY(server_check(job));
 *             KH_TRY(server_send(job, json_pack("{s:I}", "number", (json_int_t)i)));
 *         }
 *         return KH_OK;
 *     }
 *
 * What it returns is the end of the answer. A failure before anything was sent becomes the HTTP status of the
 * kh_status and {"error": {"code", "message", "type"}} with kh_last_error(); behind a first line or event it becomes
 * a last one: {"type": "error", "error": {...}}. */
#ifndef KH_SERVER_JOB_H
#define KH_SERVER_JOB_H

#include "server/server.h"
#include "wire/fields.h"
#include "wire/json_value.h"

typedef struct server_job server_job;

enum server_place {
    SERVER_HERE, /* on the thread of the connection: may read the model and its tokenizer, and must be quick */
    SERVER_WORKER /* on the worker's, between two passes of the slots, one at a time */
};

enum {
    SERVER_OPEN = 1, /* needs no key */
    SERVER_LIST = 2, /* the body may be a list: it is the member "list" of what the route sees */
    SERVER_PLAIN = 4 /* the body is no JSON: it is the member "text" of what the route sees */
};

typedef struct server_route {
    const char *method; /* "GET", "POST", "PUT", "DELETE" */
    const char *path;   /* "/slots/{id}": a part in braces stands for any one part */
    enum server_place place;
    kh_status (*run)(server_job *job);
    const char *summary; /* a sentence for GET /openapi.json */
    unsigned flags;
    const char
        *fields; /* of the body, for the same: "prompt:text tokens:ids n_predict:int"; NULL: none */
} server_route;

/* ---- what was asked ---- */

const json_t *server_job_body(const server_job *job); /* an object; empty where there was none */
const char *server_job_query(const server_job *job, const char *name); /* NULL: absent */
/* What the braces of the path stand for, of several joined by '/'; or "". */
const char *server_job_part(const server_job *job);
const kh_model *server_job_model(const server_job *job);
const server_options *server_job_options(const server_job *job);

/* ---- the answer ---- */

enum server_form {
    SERVER_JSON,  /* one document */
    SERVER_LINES, /* NDJSON, a document a line, as they come */
    SERVER_EVENTS /* server-sent events, a document each */
};
/* Before the first server_send, with which a stream begins: what fails before it still has its status of HTTP. Without
 * it the answer is SERVER_JSON. */
kh_status server_begin(server_job *job, enum server_form form);
/* Takes the value (NULL: no memory). Does not wait for the client, unless it is far behind; fails with
 * KH_ERR_STOPPED when it is gone. */
kh_status server_send(server_job *job, json_t *value);
/* An answer that is not JSON, whole. `type` must be static. */
kh_status server_answer(server_job *job, int http, const char *type, const void *bytes, size_t n);
/* A failure with a status of HTTP that no kh_status has: returns what the route returns. */
kh_status server_refuse(server_job *job, int http, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* 1: the client left, or the server ends. */
int server_cancelled(const server_job *job);
/* To be called now and then by long work on the worker: lets the running answers grow a token, and is KH_ERR_STOPPED
 * when the job is cancelled. */
kh_status server_check(server_job *job);
/* Is called with `object`, from another thread, when the job is cancelled; NULL: nothing any more. */
void server_on_cancel(server_job *job, void (*stop)(void *object), void *object);

/* A pointer that lives as long as the server, for routes of the worker (an inspector): NULL at first. `close` frees
 * it in the end, and tells rooms apart: one function, one room. NULL: no
 * memory. */
void **server_room(server_job *job, void (*close)(void *value));

#endif
