/* The worker: the one thread that runs the model.
 *
 *     loop:  a job from the queue (a route of the worker whole; an ask into a slot, when one is idle)
 *            one round of the slots: a part of one prompt, a token for every answer
 *            nothing to do: wait
 *
 * The queue is first come, first served, with one exception: while all slots are taken, what needs none goes past
 * those that wait for one. Its length is bounded; beyond that a client is told 429 and when to come back, at
 * once. Sessions are opened by this thread too, so the threads of the model's products are its alone.
 *
 * A route of the worker runs between two rounds; it lets rounds happen inside itself with server_check, so that long
 * work for one client delays the answers of others by what it does between two checks. */
#include "server/server_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <time.h>

kh_status server_enqueue(server_job *job)
{
    server *s = job->server;
    kh_status status = KH_OK;
    pthread_mutex_lock(&s->lock);
    if (atomic_load(&s->draining))
        status = server_refuse(job, 503, "the server is about to end");
    else if (s->waiting >= s->options.queue)
        status = server_refuse(
            job, 429, "%zu requests are waiting, which is all that may: try again", s->waiting);
    if (status == KH_OK) {
        server_job_keep(job);
        job->next = NULL;
        if (s->last)
            s->last->next = job;
        else
            s->first = job;
        s->last = job;
        s->waiting++;
        pthread_cond_broadcast(&s->changed);
    } else {
        s->counts.refused++;
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* Takes a job out of the queue; the lock is held. */
static void take_out(server *s, server_job *before, server_job *job)
{
    if (before)
        before->next = job->next;
    else
        s->first = job->next;
    if (s->last == job) s->last = before;
    job->next = NULL;
    s->waiting--;
}

/* The first job that can begin: one with an ask only when `slots` is set. */
static server_job *next_job(server *s, int slots)
{
    server_job *before = NULL, *job;
    pthread_mutex_lock(&s->lock);
    for (job = s->first; job; before = job, job = job->next)
        if (!job->ask || slots || server_cancelled(job)) break;
    if (job) {
        take_out(s, before, job);
        s->running++;
        if (!job->ask) s->current = job;
    }
    pthread_mutex_unlock(&s->lock);
    return job;
}

static int any_busy(const server *s)
{
    for (size_t i = 0; i < s->options.slots; i++)
        if (s->slots[i].job) return 1;
    return 0;
}

/* Without slots an ask is taken too, and refused. */
static int may_take(const server *s)
{
    for (size_t i = 0; i < s->options.slots; i++)
        if (s->slots[i].session && !s->slots[i].job) return 1;
    return !any_busy(s);
}

static void done(server *s, server_job *job)
{
    pthread_mutex_lock(&s->lock);
    s->running--;
    s->current = NULL;
    if (server_cancelled(job)) s->counts.cancelled++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    server_job_drop(job);
}

/* Begins one job; 0: there is none. */
static int begin(server *s)
{
    server_job *job = next_job(s, may_take(s));
    if (!job) return 0;
    if (server_cancelled(job)) {
        kh_fail(KH_ERR_STOPPED, "the client left");
        server_job_finish(job, KH_ERR_STOPPED);
    } else if (job->ask) {
        if (server_slots_take(s, job)) return 1; /* which counts it as done in the end */
        kh_fail(KH_ERR_STATE, "no slot is open");
        server_job_finish(job, KH_ERR_STATE);
    } else {
        kh_status status = job->route->run(job);
        server_on_cancel(job, NULL, NULL);
        server_job_finish(job, status);
    }
    done(s, job);
    return 1;
}

/* With answers that stand still because their clients do not read, the wait is short. */
static void wait_for_work(server *s)
{
    if (any_busy(s)) {
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        return;
    }
    pthread_mutex_lock(&s->lock);
    while (!s->first && !s->quit) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static int must_quit(server *s)
{
    pthread_mutex_lock(&s->lock);
    int quit = s->quit && !s->first;
    pthread_mutex_unlock(&s->lock);
    return quit && !any_busy(s);
}

static void *work(void *context)
{
    server *s = context;
    kh_status status = server_slots_open(s);
    pthread_mutex_lock(&s->lock);
    s->started = 1;
    s->start_status = status;
    if (status != KH_OK)
        snprintf(s->start_sentence, sizeof s->start_sentence, "%s", kh_last_error());
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    while (status == KH_OK) {
        int began = begin(s), moved = server_slots_round(s);
        if (began || moved) continue;
        if (must_quit(s)) break;
        wait_for_work(s);
    }
    for (server_resting *room = s->rooms, *next; room; room = next) {
        next = room->next;
        if (room->value) room->close(room->value);
        kh_free(room);
    }
    server_slots_close(s);
    return NULL;
}

void **server_room(server_job *job, void (*close)(void *value))
{
    server *s = job->server;
    server_resting *room = s->rooms;
    while (room && room->close != close) room = room->next;
    if (!room && (room = kh_calloc(1, sizeof *room))) {
        room->close = close;
        room->next = s->rooms;
        s->rooms = room;
    }
    return room ? &room->value : NULL;
}

kh_status server_worker_open(server *s)
{
    if (pthread_create(&s->worker, NULL, work, s) != 0)
        KH_FAIL(KH_ERR_MEMORY, "the worker's thread could not be started");
    s->has_worker = 1;
    pthread_mutex_lock(&s->lock);
    while (!s->started) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return s->start_status == KH_OK ? KH_OK : kh_fail(s->start_status, "%s", s->start_sentence);
}

int server_worker_idle(server *s, double seconds)
{
    double until = server_seconds() + seconds;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        int idle = !s->first && s->running == 0;
        pthread_mutex_unlock(&s->lock);
        if (idle || server_seconds() > until) return idle;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

void server_worker_close(server *s)
{
    if (!s->has_worker) return;
    atomic_store(&s->draining, 1);
    atomic_store(&s->ending, 1);
    pthread_mutex_lock(&s->lock);
    s->quit = 1;
    if (s->current) server_job_cancel(s->current);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->worker, NULL);
    s->has_worker = 0;
}
