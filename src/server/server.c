/* The server's life.
 *
 *     open    slots, the worker, the address       a port that is taken is known before the model is made ready
 *     run     waits, and each second closes connections that drip
 *     stop    no more connections, no more work; what runs has `grace` seconds, then it is cancelled
 *     close   connections, then memory
 *
 * server_stop only posts a semaphore, so that a signal handler may call it. */
#include "server/server_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { SLOTS = 4, MOST_SLOTS = 64, QUEUE = 64, BODY = 16 << 20, TIMEOUT = 60, GRACE = 5 };

static void set_defaults(server_options *o, const kh_model *model)
{
    if (o->slots == 0) o->slots = SLOTS;
    /* the pages for sources are those of one */
    if (kh_model_get_kind(model) == KH_MODEL_ENCODER_DECODER) o->slots = 1;
    if (o->queue == 0) o->queue = QUEUE;
    if (o->body == 0) o->body = BODY;
    if (o->timeout == 0) o->timeout = TIMEOUT;
    if (o->grace == 0) o->grace = GRACE;
    if (!o->alias) {
        const kh_model_info *info = kh_model_get_info(model);
        const char *slash = strrchr(info->path, '/');
        o->alias = slash && slash[1] ? slash + 1 : info->path;
    }
}

static kh_status open_all(server *s)
{
    if (s->options.slots > MOST_SLOTS)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu slots: at most %d are allowed", s->options.slots, MOST_SLOTS);
    KH_TRY(kh_new(&s->slots, s->options.slots, sizeof *s->slots, "slots"));
    KH_TRY(kh_new(&s->states, s->options.slots, sizeof *s->states, "slots"));
    KH_TRY(server_worker_open(s));
    return server_http_open(s);
}

kh_status server_open(server **out, const kh_model *model, const server_options *options)
{
    server *s = NULL;
    *out = NULL;
    KH_TRY(kh_new(&s, 1, sizeof *s, "the server"));
    s->model = model;
    s->options = *options;
    set_defaults(&s->options, model);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    sem_init(&s->stop, 0, 0);
    json_object_seed(0);
    kh_status status = open_all(s);
    if (status != KH_OK) {
        server_close(s);
        return status;
    }
    *out = s;
    return KH_OK;
}

kh_status server_run(server *s)
{
    for (struct timespec until;;) {
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        if (sem_timedwait(&s->stop, &until) == 0) break;
        if (errno == ETIMEDOUT) server_http_sweep(s);
    }
    atomic_store(&s->draining, 1);
    server_http_quiet(s);
    server_worker_idle(s, s->options.grace);
    server_worker_close(s);
    return KH_OK;
}

void server_stop(server *s)
{
    sem_post(&s->stop);
}

void server_close(server *s)
{
    if (!s) return;
    server_worker_close(s);
    server_http_close(s);
    sem_destroy(&s->stop);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    kh_free(s->states);
    kh_free(s->slots);
    kh_free(s);
}

const char *server_address(const server *s)
{
    return s->address;
}
