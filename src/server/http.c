/* HTTP over libmicrohttpd: one thread for each connection, which parses, checks, waits and writes.
 *
 *     request --guard, route--> body (bounded) --jansson--> job --route, or worker--> wait --> response
 *
 * A thread waits for its job by a condition and looks, ten times a second, whether its client is still there: one that
 * left cancels its job. A response is either whole, and then the job's buffer becomes the response's, or a stream
 * whose reader takes what the job has and waits for more.
 *
 * Bodies of refused requests are read and forgotten, because a connection that is closed with bytes unread is reset,
 * and the client would never see why; one that sends many times what is allowed is cut off. A connection that stands
 * still for the time-out is closed by the library; one that drips is closed when its head or its body takes too long.
 *
 * The library allocates its own memory, a bounded pool for each connection; ours comes from base/alloc.h. */
#include "server/server_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 512, STACK = 2 << 20, POOL = 64 << 10, PIECE = 32 << 10, EXCESS = 8 };

/* What belongs to one request of a connection. */
typedef struct exchange {
    server *server;
    const server_route *route;
    server_job *job;
    kh_buf body;
    size_t received;
    double started;
    int refused; /* status of HTTP; 0: not */
    const char *sentence, *allow;
    const char *origin; /* the one that is allowed, where the request came from it */
    char part[512];
} exchange;

static const char policy[] =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/* ---- answering */

static void header(struct MHD_Response *response, const char *name, const char *value)
{
    MHD_add_response_header(response, name, value);
}

static enum MHD_Result queue(struct MHD_Connection *connection, const exchange *x, int status,
                             const char *type, struct MHD_Response *response)
{
    if (!response) return MHD_NO;
    header(response, "Content-Type", type);
    header(response, "X-Content-Type-Options", "nosniff");
    header(response, "Cache-Control", "no-store");
    if (strncmp(type, "text/html", 9) == 0) {
        header(response, "Content-Security-Policy", policy);
        header(response, "Referrer-Policy", "no-referrer");
    }
    if (status == 401) header(response, "WWW-Authenticate", "Bearer");
    if (status == 405 && x->allow) header(response, "Allow", x->allow);
    if (status == 429 || status == 503) header(response, "Retry-After", "2");
    if (x->server->options.cors_origin) header(response, "Vary", "Origin");
    if (x->origin) {
        header(response, "Access-Control-Allow-Origin", x->origin);
        header(response, "Access-Control-Allow-Methods", "GET, POST, PUT, DELETE");
        header(response, "Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key");
    }
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

static int append(const char *bytes, size_t n, void *context)
{
    return kh_buf_add(context, bytes, n) == KH_OK ? 0 : -1;
}

/* A response takes the buffer. */
static enum MHD_Result queue_buffer(struct MHD_Connection *connection, const exchange *x,
                                    int status, const char *type, kh_buf *bytes)
{
    static char nothing[1];
    struct MHD_Response *response =
        bytes->data
            ? MHD_create_response_from_buffer_with_free_callback(bytes->size, bytes->data, kh_free)
            : MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
    if (response)
        *bytes = (kh_buf){0};
    else
        kh_buf_free(bytes);
    return queue(connection, x, status, type, response);
}

static enum MHD_Result refuse(struct MHD_Connection *connection, const exchange *x, int status,
                              const char *sentence)
{
    kh_buf text = {0};
    json_t *error = server_error(status, sentence);
    if (error) json_dump_callback(error, append, &text, WIRE_FORM);
    json_decref(error);
    return queue_buffer(connection, x, status, "application/json", &text);
}

/* ---- waiting */

static int is_gone(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct pollfd fd = {.fd = info ? info->connect_fd : -1, .events = POLLRDHUP};
    return poll(&fd, 1, 0) > 0 && (fd.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* With the job's lock held: waits a moment for a change. */
static void wait_a_moment(server_job *job)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 100000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&job->changed, &job->lock, &until);
}

typedef struct stream {
    struct MHD_Connection *connection;
    server_job *job;
    unsigned timeout;
} stream;

/* With the job's lock held: 1 when `ready` came true, 0 when the client left. */
static int wait_for(struct MHD_Connection *connection, server_job *job,
                    int (*ready)(const server_job *job))
{
    while (!ready(job)) {
        wait_a_moment(job);
        if (ready(job)) break;
        pthread_mutex_unlock(&job->lock);
        int gone = is_gone(connection);
        if (gone) server_job_cancel(job);
        pthread_mutex_lock(&job->lock);
        if (gone) return 0;
    }
    return 1;
}

static int has_more(const server_job *job)
{
    return job->finished || job->out.size > job->taken;
}

static int has_begun(const server_job *job)
{
    return job->finished || job->begun;
}

/* The library counts the time since it last wrote; what was spent waiting for the model is not the client's. */
static void restart_clock(struct MHD_Connection *connection, unsigned timeout)
{
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, timeout);
}

static ssize_t read_stream(void *context, uint64_t at, char *out, size_t most)
{
    stream *s = context;
    server_job *job = s->job;
    ssize_t n = MHD_CONTENT_READER_END_WITH_ERROR;
    (void)at;
    pthread_mutex_lock(&job->lock);
    if (wait_for(s->connection, job, has_more)) {
        size_t left = job->out.size - job->taken;
        if (left > most) left = most;
        n = left > 0 ? (ssize_t)left : MHD_CONTENT_READER_END_OF_STREAM;
        if (left > 0) memcpy(out, job->out.data + job->taken, left);
        job->taken += left;
    }
    pthread_mutex_unlock(&job->lock);
    restart_clock(s->connection, s->timeout);
    return n;
}

static void free_stream(void *context)
{
    stream *s = context;
    server_job_cancel(s->job);
    server_job_drop(s->job);
    kh_free(s);
}

static enum MHD_Result queue_stream(struct MHD_Connection *connection, exchange *x)
{
    stream *s = kh_calloc(1, sizeof *s);
    if (!s) return refuse(connection, x, 503, "out of memory");
    *s = (stream){connection, x->job, (unsigned)x->server->options.timeout};
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PIECE,
                                                                      read_stream, s, free_stream);
    if (!response) {
        kh_free(s);
        return MHD_NO;
    }
    server_job_keep(x->job);
    return queue(connection, x, 200, x->job->type, response);
}

/* ---- those who drip

   The library's time-out is of a connection that stands still; a byte now and then would keep one for ever before its
   request is whole, and 512 of them all there are. So the time from a connection's begin, or its last answer, to the end
   of the next head has a limit too. */

struct server_caller {
    int fd;
    double since; /* 0: its request has come */
    struct server_caller *next;
};

static void on_connection(void *context, struct MHD_Connection *connection, void **kept,
                          enum MHD_ConnectionNotificationCode code)
{
    server *s = context;
    struct server_caller *one = *kept, **at = &s->callers;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        if (!info || !(one = kh_calloc(1, sizeof *one))) return;
        one->fd = info->connect_fd;
        one->since = server_seconds();
        pthread_mutex_lock(&s->lock);
        one->next = s->callers;
        s->callers = one;
        pthread_mutex_unlock(&s->lock);
        *kept = one;
    } else if (one) {
        pthread_mutex_lock(&s->lock);
        while (*at != one) at = &(*at)->next;
        *at = one->next;
        pthread_mutex_unlock(&s->lock);
        kh_free(one);
        *kept = NULL;
    }
}

static void mark_caller(server *s, struct MHD_Connection *connection, double since)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct server_caller *one = info ? info->socket_context : NULL;
    if (!one) return;
    pthread_mutex_lock(&s->lock);
    one->since = since;
    pthread_mutex_unlock(&s->lock);
}

/* The library closes what was shut down, behind on_connection: a file in the list is open. */
void server_http_sweep(server *s)
{
    double now = server_seconds();
    pthread_mutex_lock(&s->lock);
    for (struct server_caller *one = s->callers; one; one = one->next)
        if (one->since > 0 && now - one->since > 2.0 * s->options.timeout)
            shutdown(one->fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
}

/* ---- a request */

static enum MHD_Result add_query(void *context, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    server_job *job = context;
    (void)kind;
    if (job->query_count == 64) return MHD_NO;
    server_pair *list = kh_realloc(job->query, (job->query_count + 1) * sizeof *list);
    if (!list) return MHD_NO;
    job->query = list;
    server_pair pair = {kh_strdup(name), kh_strdup(value ? value : "")};
    if (!pair.name || !pair.value) {
        kh_free(pair.name);
        kh_free(pair.value);
        return MHD_NO;
    }
    job->query[job->query_count++] = pair;
    return MHD_YES;
}

static kh_status parse_body(exchange *x)
{
    json_error_t error;
    if (x->route->flags & SERVER_PLAIN) {
        x->job->body = json_pack("{s:o}", "text",
                                 wire_text(x->body.data ? x->body.data : "", x->body.size));
    } else if (x->body.size == 0) {
        x->job->body = json_object();
    } else {
        wire_begin();
        x->job->body = json_loadb(x->body.data, x->body.size, 0, &error);
        if (!x->job->body && wire_is_short())
            KH_FAIL(KH_ERR_MEMORY, "no memory for the body of a request");
        if (!x->job->body)
            KH_FAIL(KH_ERR_ARGUMENT, "the body is no JSON: line %d, column %d: %s", error.line,
                    error.column, error.text);
    }
    kh_buf_free(&x->body);
    if (json_is_array(x->job->body) && x->route->flags & SERVER_LIST)
        x->job->body = json_pack("{s:o}", "list", x->job->body);
    if (!json_is_object(x->job->body)) KH_FAIL(KH_ERR_ARGUMENT, "the body must be a JSON object");
    return KH_OK;
}

static kh_status start_job(exchange *x, struct MHD_Connection *connection)
{
    KH_TRY(server_job_open(&x->job, x->server, x->route));
    server_job *job = x->job;
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, add_query, job);
    if (*x->part && !(job->part = kh_strdup(x->part)))
        KH_FAIL(KH_ERR_MEMORY, "no memory for a request");
    KH_TRY(parse_body(x));
    if (x->route->place == SERVER_WORKER) return server_enqueue(job);
    KH_TRY(x->route->run(job));
    if (!job->ask) server_job_finish(job, KH_OK);
    return KH_OK;
}

/* The whole request is here. */
static enum MHD_Result answer(exchange *x, struct MHD_Connection *connection)
{
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    kh_status status = start_job(x, connection);
    if (!x->job) return refuse(connection, x, 503, kh_last_error());
    if (status != KH_OK) server_job_finish(x->job, status);
    server_job *job = x->job;
    pthread_mutex_lock(&job->lock);
    int here = wait_for(connection, job, has_begun), streams = here && job->begun;
    kh_buf whole = {0};
    int http = job->http ? job->http : 500;
    const char *type = job->type ? job->type : "application/json";
    if (here && !streams) {
        whole = job->out;
        job->out = (kh_buf){0};
        job->taken = 0;
    }
    pthread_mutex_unlock(&job->lock);
    restart_clock(connection, (unsigned)x->server->options.timeout);
    if (!here) return MHD_NO;
    return streams ? queue_stream(connection, x) : queue_buffer(connection, x, http, type, &whole);
}

static const char *value_of(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static void refuse_later(exchange *x, int status, const char *sentence)
{
    if (x->refused) return;
    x->refused = status;
    x->sentence = sentence;
    kh_buf_free(&x->body);
}

static kh_status open_exchange(exchange **out, server *s, struct MHD_Connection *connection,
                               const char *url, const char *method)
{
    static const server_route preflight = {.method = "OPTIONS", .flags = SERVER_OPEN};
    exchange *x = NULL;
    KH_TRY(kh_new(out, 1, sizeof **out, "a request"));
    x = *out;
    x->server = s;
    x->started = server_seconds();
    const char *named = s->options.cors_origin, *sentence = NULL;
    int http = 0, options = strcmp(method, "OPTIONS") == 0, head = strcmp(method, "HEAD") == 0;
    server_headers headers = {.host = value_of(connection, "Host"),
                              .origin = value_of(connection, "Origin"),
                              .authorization = value_of(connection, "Authorization"),
                              .key = value_of(connection, "X-Api-Key")};
    if (named && headers.origin && strcmp(named, headers.origin) == 0) x->origin = named;
    x->route = options && x->origin ? &preflight
                                    : server_route_find(head ? "GET" : method, url, x->part,
                                                        sizeof x->part, &http, &x->allow);
    static const server_route unknown = {.method = "POST"};
    int guarded = server_guard(s, x->route ? x->route : &unknown, &headers, &sentence);
    if (guarded)
        refuse_later(x, guarded, sentence);
    else if (!x->route)
        refuse_later(x, http,
                     http == 405 ? "the path takes another method"
                                 : "there is no such path; GET /openapi.json lists them");
    return KH_OK;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **kept)
{
    server *s = context;
    exchange *x = *kept;
    (void)version;
    if (!x) {
        mark_caller(s, connection, 0);
        if (open_exchange(&x, s, connection, url, method) != KH_OK) return MHD_NO;
        *kept = x;
        return MHD_YES;
    }
    if (*upload_size > 0) {
        size_t n = *upload_size;
        *upload_size = 0;
        x->received += n;
        double patience = 2.0 * s->options.timeout + (double)x->received / 65536;
        if (server_seconds() - x->started > patience) return MHD_NO;
        if (x->received > EXCESS * s->options.body) return MHD_NO;
        if (x->received > s->options.body)
            refuse_later(x, 413, "the body is larger than the server takes");
        if (!x->refused && kh_buf_add(&x->body, upload, n) != KH_OK)
            refuse_later(x, 503, "out of memory");
        return MHD_YES;
    }
    if (x->refused) return refuse(connection, x, x->refused, x->sentence);
    if (strcmp(x->route->method, "OPTIONS") == 0) {
        kh_buf none = {0};
        return queue_buffer(connection, x, 204, "text/plain", &none);
    }
    return answer(x, connection);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **kept,
                         enum MHD_RequestTerminationCode code)
{
    exchange *x = *kept;
    (void)code;
    mark_caller(context, connection, server_seconds());
    if (!x) return;
    if (x->job) server_job_cancel(x->job);
    server_job_drop(x->job);
    kh_buf_free(&x->body);
    kh_free(x);
    *kept = NULL;
}

/* ---- the daemon */

/* A zero byte would end a path early, and make it another one. */
static size_t unescape(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context;
    (void)connection;
    size_t n = MHD_http_unescape(text);
    for (size_t i = 0; i < n; i++)
        if (!text[i]) text[i] = 1;
    return n;
}

static kh_status bind_to(server *s, int *out)
{
    const char *host = s->options.host ? s->options.host : "127.0.0.1";
    char port[16];
    struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    snprintf(port, sizeof port, "%d", s->options.port);
    int failed = getaddrinfo(host, port, &want, &found);
    if (failed) KH_FAIL(KH_ERR_ARGUMENT, "--host %s: %s", host, gai_strerror(failed));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    failed = fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 256) != 0;
    int why = errno;
    freeaddrinfo(found);
    if (failed) {
        if (fd >= 0) close(fd);
        KH_FAIL(KH_ERR_IO, "%s port %d: %s%s", host, s->options.port, strerror(why),
                why == EADDRINUSE ? " (--port names another)" : "");
    }
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    getsockname(fd, (struct sockaddr *)&bound, &size);
    getnameinfo((struct sockaddr *)&bound, size, NULL, 0, port, sizeof port, NI_NUMERICSERV);
    int six = strchr(host, ':') != NULL;
    snprintf(s->address, sizeof s->address, "http://%s%.100s%s:%s", six ? "[" : "", host,
             six ? "]" : "", port);
    *out = fd;
    return KH_OK;
}

kh_status server_http_open(server *s)
{
    int fd = -1;
    KH_TRY(bind_to(s, &fd));
    s->http = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL |
            MHD_USE_ITC,
        0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)s->options.timeout, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK, MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
        MHD_OPTION_END);
    if (s->http) return KH_OK;
    close(fd);
    KH_FAIL(KH_ERR_IO, "%s: the HTTP server could not be started", s->address);
}

void server_http_quiet(server *s)
{
    int fd = s->http ? MHD_quiesce_daemon(s->http) : -1;
    if (fd >= 0) close(fd);
}

void server_http_close(server *s)
{
    if (s->http) MHD_stop_daemon(s->http);
    s->http = NULL;
}
