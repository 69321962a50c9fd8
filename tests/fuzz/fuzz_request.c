/* Fuzz target of requests, from the path to the last byte of the answer, without a socket.
 *
 *     POST /completion?a=b\n
 *     {"prompt": "x"}
 *
 * An input is a line and a body. The server is a whole one but for its threads: this thread is the connection and the
 * worker. Whatever comes in, an answer is finished, with a status of HTTP that exists, and what says that it is JSON is
 * JSON. Answers are cut to three tokens, or they would be most of the time. */
#include "base/alloc.h"
#include "server/server_impl.h"
#include "support/golden_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SLOTS = 2, MOST_TOKENS = 3, ROUNDS = 200 };

static struct server s;

static char folder[] = "/tmp/keyhole-fuzz-XXXXXX", labels[64];

static void sweep(void)
{
    unlink(labels);
    rmdir(folder);
}

static void must(int good, const char *what)
{
    if (good) return;
    fprintf(stderr, "%s: %s\n", what, kh_last_error());
    abort();
}

static void start(void)
{
    static server_slot slots[SLOTS];
    static server_slot_state states[SLOTS];
    kh_model *model = NULL;
    wire_setup();
    json_object_seed(1);
    must(mkdtemp(folder) != NULL, "a folder");
    snprintf(labels, sizeof labels, "%s/labels", folder);
    atexit(sweep);
    must(kh_model_open(&model, golden_path("tiny/llama.gguf")) == KH_OK, "the model");
    s.model = model;
    s.options = (server_options){.alias = "tiny",
                                 .chat_format = "chatml",
                                 .slots = SLOTS,
                                 .queue = 4,
                                 .body = 1 << 20,
                                 .timeout = 1,
                                 .slot_folder = "/nowhere",
                                 .labels = labels,
                                 .session = {.threads = 1}};
    s.slots = slots;
    s.states = states;
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.changed, NULL);
    must(server_slots_open(&s) == KH_OK, "the slots");
}

/* What the worker does with an ask. */
static void answer(server_job *job)
{
    if (job->ask->generate.max_tokens == 0 || job->ask->generate.max_tokens > MOST_TOKENS)
        job->ask->generate.max_tokens = MOST_TOKENS;
    must(s.first == job && s.waiting == 1, "one job waits");
    s.first = s.last = NULL;
    s.waiting = 0;
    s.running++;
    must(server_slots_take(&s, job), "a slot is idle");
    for (int i = 0; i < ROUNDS && !job->finished; i++) server_slots_round(&s);
    must(job->finished && s.running == 0, "the answer ends");
}

static void add_query(server_job *job, char *query)
{
    for (char *next = NULL; query && *query && job->query_count < 8; query = next) {
        next = strchr(query, '&');
        if (next) *next++ = 0;
        char *equals = strchr(query, '=');
        if (equals) *equals++ = 0;
        if (!job->query) job->query = kh_calloc(8, sizeof *job->query);
        must(job->query != NULL, "memory");
        job->query[job->query_count++] = (server_pair){kh_strdup(query),
                                                       kh_strdup(equals ? equals : "")};
    }
}

static void check(const server_job *job)
{
    must(job->finished, "finished");
    must(job->http >= 200 && job->http < 600 && job->type, "a status");
    if (job->begun || strcmp(job->type, "application/json") != 0) return;
    json_t *value = json_loadb(job->out.data, job->out.size, JSON_ALLOW_NUL, NULL);
    must(value != NULL, "the answer is JSON");
    if (job->http >= 400)
        must(json_string_value(json_object_get(json_object_get(value, "error"), "message")) != NULL,
             "a failure has a sentence");
    json_decref(value);
}

static void run(const server_route *route, const char *part, char *query, json_t *body)
{
    server_job *job = NULL;
    must(server_job_open(&job, &s, route) == KH_OK, "a job");
    job->body = body;
    if (*part) job->part = kh_strdup(part);
    add_query(job, query);
    kh_status status = route->run(job);
    if (status != KH_OK || !job->ask)
        server_job_finish(job, status);
    else
        answer(job);
    check(job);
    server_job_drop(job);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int ready;
    if (!ready++) start();
    const uint8_t *end = memchr(data, '\n', size);
    char line[256], part[128];
    size_t n = end ? (size_t)(end - data) : size;
    if (n >= sizeof line) return 0;
    memcpy(line, data, n);
    line[n] = 0;
    char *path = strchr(line, ' '), *query = NULL;
    if (!path) return 0;
    *path++ = 0;
    if ((query = strchr(path, '?'))) *query++ = 0;
    int http = 0;
    const char *allow = NULL;
    const server_route *route = server_route_find(line, path, part, sizeof part, &http, &allow);
    if (!route) {
        must(http == 404 || (http == 405 && allow), "a status for what is not there");
        return 0;
    }
    size_t rest = size - n - (end != NULL);
    json_t *body = !rest ? json_object()
                   : route->flags & SERVER_PLAIN
                       ? json_pack("{s:o}", "text", wire_text((const char *)end + 1, rest))
                       : json_loadb((const char *)end + 1, rest, 0, NULL);
    if (json_is_array(body) && route->flags & SERVER_LIST) body = json_pack("{s:o}", "list", body);
    if (json_is_object(body))
        run(route, part, query, body);
    else
        json_decref(body);
    return 0;
}
