/* server/server_impl.h: what the files of server/ share. */
#ifndef KH_SERVER_SERVER_IMPL_H
#define KH_SERVER_SERVER_IMPL_H

#include "base/buf.h"
#include "server/job.h"
#include "wire/vectors.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

struct server_ask;
struct wire_ask;

/* ---- jobs (job.c) ---- */

typedef struct server_pair {
    char *name, *value;
} server_pair;

/* One request and its answer. Two hold it: the connection, and who works on it. */
struct server_job {
    server *server;
    const server_route *route;
    json_t *body;
    char *part;
    server_pair *query; /* [query_count] */
    size_t query_count;
    struct server_ask *ask; /* NULL, or an answer that a slot gives; freed with the job */
    server_job *next;       /* in the queue */
    int refs;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    kh_buf out; /* what the connection has not taken yet, from `taken` on */
    size_t taken;
    enum server_form form;
    int http;         /* status; 0: not known yet */
    const char *type; /* of the content */
    int begun, finished, sent;
    size_t made;       /* bytes of the answer so far */
    double waited;     /* the worker's: seconds for which it waited for room */
    double full_since; /* when the client fell behind; 0: it has not */
    void (*stop)(void *object);
    void *stop_object;
    atomic_int cancelled;
};

kh_status server_job_open(server_job **out, server *server, const server_route *route);
void server_job_drop(server_job *job);
void server_job_keep(server_job *job);
/* The route returned: whatever is missing of the answer is added. */
void server_job_finish(server_job *job, kh_status status);
void server_job_cancel(server_job *job);
/* 1: the client is so far behind that no more should be made for it; one that stays so is cancelled. */
int server_job_behind(server_job *job);
/* {"error": ...} with this thread's sentence. */
json_t *server_error(int http, const char *sentence);

/* ---- the worker and its slots (worker.c, server_slots.c) ---- */

typedef struct server_slot {
    int id;
    kh_session *session;
    kh_generator *generator;
    server_job *job; /* NULL: idle */
    size_t read;     /* of the ask's ids */
    double started;  /* the ask, then its answer */
    uint64_t used;   /* the order of last uses */
    int stale; /* 1: what it read is forgotten when its answer ends: it is steered otherwise now */
} server_slot;

/* What other threads may see of a slot; under the server's lock. */
typedef struct server_slot_state {
    int busy;
    size_t length; /* positions that are read */
    size_t decoded;
} server_slot_state;

typedef struct server_counts {
    uint64_t prompt_tokens, cached_tokens, predicted_tokens, passes, answers, refused, cancelled;
    double prompt_seconds, predicted_seconds;
} server_counts;

typedef struct server_resting {
    void (*close)(void *value);
    void *value;
    struct server_resting *next;
} server_resting;

struct server {
    const kh_model *model;
    server_options options;
    char address[160];
    struct MHD_Daemon *http;
    struct server_caller *callers; /* open connections (http.c); under the lock */
    sem_t stop;
    atomic_int draining; /* no new work is taken */
    atomic_int ending;   /* all jobs count as cancelled */

    pthread_t worker;
    int has_worker;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    server_job *first, *last;
    size_t waiting, running; /* jobs in the queue, and at the worker */
    int started, quit;
    server_job *current; /* the worker's route, while it runs */
    kh_status start_status;
    char start_sentence[512];
    server_slot_state *states; /* [slots] */
    server_counts counts;
    size_t context;
    char attn[256], ff[256];

    /* the worker's */
    server_slot *slots; /* [options.slots] */
    server_slot root;   /* the session that the slots are forks of */
    size_t turn;        /* whose prompt is read next */
    uint64_t uses;
    server_resting *rooms;
    wire_vectors vectors;
    kh_steering *steering; /* what they add to the answers of slots */
};

double server_seconds(void);
kh_status server_worker_open(server *server);
/* Waits for `seconds` until nothing is at work or in the queue; 0: something still is. */
int server_worker_idle(server *server, double seconds);
void server_worker_close(server *server);
/* Queues a job for the worker; a full queue is refused with 429. */
kh_status server_enqueue(server_job *job);

kh_status server_slots_open(server *server);
void server_slots_close(server *server);
/* Gives an idle slot to the job's ask; 0: none is idle. */
int server_slots_take(server *server, server_job *job);
/* One part of a prompt, and a token for every answer; 0: nothing to do. */
int server_slots_round(server *server);
/* POST /slots/{id}?action=save|restore|erase */
kh_status server_slots_action(server_job *job);

/* ---- steering (slot_steering.c) ---- */

/* Loads the control vectors of the options; behind the slots. */
kh_status server_steering_open(server *server);
void server_steering_close(server *server);
kh_status server_steering_list(server_job *job); /* GET /control-vectors */
kh_status server_steering_set(server_job *job);  /* POST /control-vectors [{id, scale}] */
kh_status server_steering_learn(server_job *job, const struct wire_ask *ask);

/* ---- what is asked of a slot (ask.c, reply.c) ---- */

enum server_kind { SERVER_CHAT, SERVER_TEXT, SERVER_LLAMA };

typedef struct server_ask {
    server_job *job;
    enum server_kind kind;
    int32_t *ids; /* [count] the prompt */
    size_t count;
    kh_generate_options generate; /* its arrays are the ask's */
    kh_logit_bias *bias;
    const char **stops; /* of the job's body */
    int stream, usage, logprobs, after /* probabilities after sampling */, cache, tokens, tools;
    /* the answer so far */
    kh_buf text;
    json_t *entries, *ids_out; /* logprobs, ids; NULL unless asked for */
    size_t kept;               /* tokens of the prompt that were read already */
    int slot;
    double prompt_seconds;
    kh_generate_result result;
    char id[40];
    int64_t created;
} server_ask;

/* The ask of a job, which it belongs to, with what its body says. */
kh_status server_ask_open(server_ask **out, server_job *job, enum server_kind kind);
/* With its ids: into the queue. */
kh_status server_ask_submit(server_ask *ask);
void server_ask_free(server_ask *ask);
/* Reads sampling and length from a body: bounds and types are checked, nothing else happens. */
kh_status server_ask_parse(server_ask *ask, const json_t *body, const kh_model *model);
/* The head of a stream, and the last words; fail where the client is gone. */
kh_status server_reply_begin(server_ask *ask);
kh_status server_reply_end(server_ask *ask);
/* kh_generate_options.token of an ask. */
kh_status server_reply_token(void *ask, const char *text, size_t size, const kh_choice *chosen,
                             const kh_choice *alternatives, size_t count);

/* ---- inspection (routes_debug.c) ---- */

/* Asks the server's one inspector a question (wire/questions.h) about the job's body, and answers with it; on the worker. */
kh_status server_inspect(server_job *job, kh_status (*question)(const struct wire_ask *),
                         enum server_form form);

/* ---- routes (routes.c) ---- */

/* Tables end with a route without a path. */
extern const server_route server_routes_llama[], server_routes_openai[], server_routes_debug[],
    server_routes_lmdebugger[], server_routes_labels[];
/* The route of a request. NULL: *http is 404, or 405 and *allow names the methods (static). *part [size] receives
 * what the braces stand for, of several joined by '/'. */
const server_route *server_route_find(const char *method, const char *path, char *part, size_t size,
                                      int *http, const char **allow);
kh_status server_route_openapi(server_job *job);
json_t *server_routes_json(void); /* all paths, each once */

/* ---- who may ask (guard.c) ---- */

typedef struct server_headers {
    const char *host, *origin, *authorization, *key; /* NULL: absent */
} server_headers;
/* 0, or the status to refuse with and its sentence. */
int server_guard(const server *server, const server_route *route, const server_headers *headers,
                 const char **sentence);

/* ---- HTTP (http.c) ---- */

kh_status server_http_open(server *server);
void server_http_quiet(server *server); /* takes no more connections */
void server_http_sweep(server *server); /* now and then: closes connections that drip */
void server_http_close(server *server);

#endif
