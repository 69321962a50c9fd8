/* One request and its answer, between two threads.
 *
 *     worker        server_send -> | out ........ | -> reader        connection
 *                                    taken   size
 *
 * The worker never waits for a client. Who makes an answer token by token asks server_job_behind first and leaves out
 * those whose client does not read; who sends in one go (a grid of a lens) waits when LARGE is exceeded, growing the
 * running answers meanwhile. A client that stays behind for PATIENCE is cancelled, and so is one that was waited for longer
 * than SLOW bytes a second explain, since other questions wait with it; a buffer never grows beyond LARGE and one document.
 *
 * A cancelled job goes on existing until both sides let it go; what is sent to it fails with KH_ERR_STOPPED, which is
 * how its route learns of it. */
#include "server/server_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { BEHIND = 256 << 10, LARGE = 8 << 20 /* bytes */, SLOW = 256 << 10 /* bytes/s */ };
static const double PATIENCE = 10; /* seconds */

static const struct {
    const char *type, *before, *after;
} forms[] = {{"application/json", "", ""},
             {"application/x-ndjson", "", "\n"},
             {"text/event-stream", "data: ", "\n\n"}};

double server_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

kh_status server_job_open(server_job **out, server *s, const server_route *route)
{
    server_job *job = NULL;
    pthread_condattr_t clock;
    *out = NULL;
    KH_TRY(kh_new(&job, 1, sizeof *job, "a request"));
    job->server = s;
    job->route = route;
    job->refs = 1;
    pthread_mutex_init(&job->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&job->changed, &clock);
    pthread_condattr_destroy(&clock);
    *out = job;
    return KH_OK;
}

void server_job_keep(server_job *job)
{
    pthread_mutex_lock(&job->lock);
    job->refs++;
    pthread_mutex_unlock(&job->lock);
}

void server_job_drop(server_job *job)
{
    if (!job) return;
    pthread_mutex_lock(&job->lock);
    int left = --job->refs;
    pthread_mutex_unlock(&job->lock);
    if (left > 0) return;
    server_ask_free(job->ask);
    for (size_t i = 0; i < job->query_count; i++) {
        kh_free(job->query[i].name);
        kh_free(job->query[i].value);
    }
    kh_free(job->query);
    kh_free(job->part);
    json_decref(job->body);
    kh_buf_free(&job->out);
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
    kh_free(job);
}

const json_t *server_job_body(const server_job *job)
{
    return job->body;
}

const char *server_job_query(const server_job *job, const char *name)
{
    for (size_t i = 0; i < job->query_count; i++)
        if (strcmp(job->query[i].name, name) == 0) return job->query[i].value;
    return NULL;
}

const char *server_job_part(const server_job *job)
{
    return job->part ? job->part : "";
}

const kh_model *server_job_model(const server_job *job)
{
    return job->server->model;
}

const server_options *server_job_options(const server_job *job)
{
    return &job->server->options;
}

int server_cancelled(const server_job *job)
{
    return atomic_load(&job->cancelled) || atomic_load(&job->server->ending);
}

void server_on_cancel(server_job *job, void (*stop)(void *object), void *object)
{
    pthread_mutex_lock(&job->lock);
    job->stop = stop;
    job->stop_object = object;
    if (stop && server_cancelled(job)) stop(object);
    pthread_mutex_unlock(&job->lock);
}

void server_job_cancel(server_job *job)
{
    pthread_mutex_lock(&job->lock);
    if (!job->finished && !atomic_exchange(&job->cancelled, 1) && job->stop)
        job->stop(job->stop_object);
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

int server_job_behind(server_job *job)
{
    pthread_mutex_lock(&job->lock);
    int behind = job->out.size - job->taken > BEHIND;
    if (!behind) job->full_since = 0;
    if (behind && job->full_since == 0) job->full_since = server_seconds();
    int late = behind && server_seconds() - job->full_since > PATIENCE;
    pthread_mutex_unlock(&job->lock);
    if (late) server_job_cancel(job);
    return behind && !late;
}

kh_status server_check(server_job *job)
{
    if (job->route->place == SERVER_WORKER) server_slots_round(job->server);
    if (server_cancelled(job)) KH_FAIL(KH_ERR_STOPPED, "the client left");
    return KH_OK;
}

/* Waits while the client is far behind; the lock is not held. */
static kh_status wait_for_room(server_job *job)
{
    for (double last = server_seconds(), now;; last = now) {
        KH_TRY(server_check(job));
        pthread_mutex_lock(&job->lock);
        int full = job->out.size - job->taken > LARGE;
        pthread_mutex_unlock(&job->lock);
        if (!full) return KH_OK;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        now = server_seconds();
        job->waited += now - last;
        if (job->waited > PATIENCE + (double)job->made / SLOW) server_job_cancel(job);
    }
}

kh_status server_begin(server_job *job, enum server_form form)
{
    pthread_mutex_lock(&job->lock);
    job->form = form;
    pthread_mutex_unlock(&job->lock);
    return KH_OK;
}

/* With the lock held: from here on it is a stream, and its status is said. */
static void begin_stream(server_job *job)
{
    if (job->form == SERVER_JSON || job->begun) return;
    job->begun = 1;
    job->http = 200;
    job->type = forms[job->form].type;
}

static int append(const char *bytes, size_t n, void *context)
{
    return kh_buf_add(context, bytes, n) == KH_OK ? 0 : -1;
}

/* With the lock held. */
static kh_status add(server_job *job, const json_t *value)
{
    enum server_form form = job->begun ? job->form : SERVER_JSON;
    if (job->taken > 0 && job->taken == job->out.size) {
        kh_buf_clear(&job->out);
        job->taken = 0;
    }
    size_t size = job->out.size;
    kh_status status = kh_buf_text(&job->out, forms[form].before);
    if (status == KH_OK && json_dump_callback(value, append, &job->out, WIRE_FORM) != 0)
        status = kh_fail(KH_ERR_MEMORY, "no memory for the answer");
    if (status == KH_OK) status = kh_buf_text(&job->out, forms[form].after);
    if (status != KH_OK) job->out.size = size;
    job->made += job->out.size - size;
    job->sent = 1;
    return status;
}

kh_status server_send(server_job *job, json_t *value)
{
    if (!value) KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
    kh_status status = job->begun && !job->ask ? wait_for_room(job) : KH_OK;
    pthread_mutex_lock(&job->lock);
    if (status == KH_OK && server_cancelled(job))
        status = kh_fail(KH_ERR_STOPPED, "the client left");
    if (status == KH_OK) begin_stream(job);
    if (status == KH_OK) status = add(job, value);
    if (!job->begun && status == KH_OK) {
        job->http = 200;
        job->type = forms[SERVER_JSON].type;
    }
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
    json_decref(value);
    return status;
}

kh_status server_answer(server_job *job, int http, const char *type, const void *bytes, size_t n)
{
    pthread_mutex_lock(&job->lock);
    kh_status status = kh_buf_add(&job->out, bytes, n);
    job->http = http;
    job->type = type;
    job->sent = 1;
    pthread_mutex_unlock(&job->lock);
    return status;
}

json_t *server_error(int http, const char *sentence)
{
    const char *type = http == 401 || http == 403  ? "authentication_error"
                       : http == 404               ? "not_found_error"
                       : http == 501               ? "not_supported_error"
                       : http == 429               ? "rate_limit_error"
                       : http >= 400 && http < 500 ? "invalid_request_error"
                       : http == 503               ? "unavailable_error"
                                                   : "server_error";
    return json_pack("{s:{s:i, s:o, s:s}}", "error", "code", http, "message",
                     wire_text(sentence, strlen(sentence)), "type", type);
}

kh_status server_refuse(server_job *job, int http, const char *format, ...)
{
    char sentence[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    pthread_mutex_lock(&job->lock);
    job->http = http;
    pthread_mutex_unlock(&job->lock);
    return kh_fail(KH_ERR_STATE, "%s", sentence);
}

/* With the lock held: the end of an answer that failed. */
static void add_failure(server_job *job, kh_status status)
{
    int http = !job->begun && job->http >= 400 ? job->http : kh_status_http(status);
    int ending = status == KH_ERR_STOPPED && atomic_load(&job->server->draining);
    if (ending) http = 503;
    json_t *error = server_error(http, ending ? "the server is about to end" : kh_last_error());
    if (job->begun && error) json_object_set_new(error, "type", json_string("error"));
    if (!job->begun) {
        kh_buf_clear(&job->out);
        job->taken = 0;
        job->http = http;
        job->type = forms[SERVER_JSON].type;
    }
    if (error) add(job, error);
    json_decref(error);
}

void server_job_finish(server_job *job, kh_status status)
{
    pthread_mutex_lock(&job->lock);
    if (status == KH_OK && !job->sent) begin_stream(job);
    if (status == KH_OK && !job->sent && !job->begun)
        status = kh_fail(KH_ERR_STATE, "the route gave no answer");
    if (status != KH_OK) add_failure(job, status);
    if (job->begun && job->form == SERVER_EVENTS) kh_buf_text(&job->out, "data: [DONE]\n\n");
    job->stop = NULL;
    job->finished = 1;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}
