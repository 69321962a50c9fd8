/* The routes of the debugger: questions of inspection over HTTP.
 *
 * One inspector answers them all, on the worker, one question at a time; between two pieces of an answer the slots
 * grow a token, so a conversation goes on while somebody looks. A question whose client left is stopped inside its
 * pass. What questions and answers are is wire/questions.h; texts are tokenised on the connection's thread. */
#include "base/fail.h"
#include "server/server_impl.h"
#include "wire/labels.h"
#include "wire/questions.h"

#include <string.h>

static void close_inspector(void *value)
{
    kh_inspector_close(value);
}

static void close_checks(void *value)
{
    json_decref(value);
}

static void close_kept(void *value)
{
    json_decref(value);
}

static void stop_inspector(void *object)
{
    kh_inspector_stop(object);
}

/* The server's inspector, opened when it is first needed. */
static kh_status inspector_of(server_job *job, kh_inspector **out)
{
    void **room = server_room(job, close_inspector);
    if (!room) KH_FAIL(KH_ERR_MEMORY, "no memory for an inspector");
    if (!*room) {
        kh_session_options options = server_job_options(job)->session;
        kh_inspector *inspector = NULL;
        KH_TRY(kh_inspector_open(&inspector, server_job_model(job), &options));
        *room = inspector;
    }
    *out = *room;
    return KH_OK;
}

static kh_status send_on(void *context, json_t *value)
{
    server_job *job = context;
    KH_TRY(server_send(job, value));
    return server_check(job);
}

kh_status server_inspect(server_job *job, kh_status (*question)(const wire_ask *),
                         enum server_form form)
{
    kh_inspector *inspector = NULL;
    KH_TRY(inspector_of(job, &inspector));
    void **kept = server_room(job, close_kept);
    const wire_ask ask = {server_job_model(job),          inspector,
                          server_job_body(job),           {send_on, job},
                          (json_t **)(void *)kept,        &job->server->vectors,
                          server_job_options(job)->labels};
    KH_TRY(server_begin(job, form));
    server_on_cancel(job, stop_inspector, inspector);
    wire_begin();
    kh_status status = question(&ask);
    server_on_cancel(job, NULL, NULL);
    return status;
}

/* Routes that are one question each. */
#define QUESTION(name, form)                                                                       \
    static kh_status name(server_job *job)                                                         \
    {                                                                                              \
        return server_inspect(job, wire_##name, form);                                             \
    }
QUESTION(lens, SERVER_LINES)
QUESTION(edit, SERVER_LINES)
QUESTION(patch, SERVER_LINES)
QUESTION(steer, SERVER_JSON)
QUESTION(next, SERVER_JSON)
QUESTION(why, SERVER_JSON)
QUESTION(head, SERVER_JSON)
QUESTION(neurons, SERVER_JSON)
QUESTION(neuron, SERVER_JSON)
QUESTION(search, SERVER_JSON)
QUESTION(search_table, SERVER_LINES)
QUESTION(clusters, SERVER_LINES)
QUESTION(find_heads, SERVER_JSON)
QUESTION(activations, SERVER_JSON)
#undef QUESTION

/* The served model read with another setting of attention, or another prompt. */
static kh_status diff(server_job *job)
{
    kh_session_options options = server_job_options(job)->session;
    kh_inspector *inspector = NULL, *other = NULL;
    const char *name = server_job_options(job)->alias;
    KH_TRY(wire_get_text(server_job_body(job), "attn", &options.attn, NULL));
    KH_TRY(inspector_of(job, &inspector));
    const wire_ask ask = {.model = server_job_model(job),
                          .inspector = inspector,
                          .body = server_job_body(job),
                          .sink = {send_on, job}};
    KH_TRY(kh_inspector_open(&other, server_job_model(job), &options));
    kh_status status = server_begin(job, SERVER_LINES);
    server_on_cancel(job, stop_inspector, inspector);
    if (status == KH_OK) status = wire_diff(&ask, other, name, name);
    server_on_cancel(job, NULL, NULL);
    kh_inspector_close(other);
    return status;
}

static kh_status learn(server_job *job)
{
    kh_inspector *inspector = NULL;
    KH_TRY(inspector_of(job, &inspector));
    const wire_ask ask = {.model = server_job_model(job),
                          .inspector = inspector,
                          .body = server_job_body(job),
                          .sink = {send_on, job}};
    server_on_cancel(job, stop_inspector, inspector);
    kh_status status = server_steering_learn(job, &ask);
    server_on_cancel(job, NULL, NULL);
    return status;
}

static kh_status send_here(void *context, json_t *value)
{
    return server_send(context, value);
}

/* Needs no pass: the table is a file. */
static kh_status search_text(server_job *job)
{
    const wire_ask ask = {.model = server_job_model(job),
                          .body = server_job_body(job),
                          .sink = {send_here, job},
                          .labels = server_job_options(job)->labels};
    return wire_search_text(&ask);
}

/* What a text is made of; needs no pass. */
static kh_status text(server_job *job)
{
    const kh_model *model = server_job_model(job);
    wire_subject s;
    KH_TRY(wire_subject_read(&s, model, server_job_body(job)));
    json_t *tokens = wire_text_tokens(model, s.ids, s.count);
    size_t prompt = s.prompt;
    wire_subject_free(&s);
    return server_send(
        job, json_pack("{s:o, s:I}", "tokens", tokens, "prompt_tokens", (json_int_t)prompt));
}

/* ---- identities ---- */

typedef struct proof {
    server_job *job;
    json_t *list;
} proof;

static void take_check(void *context, const char *name, int passed, const char *detail)
{
    proof *p = context;
    json_t *good = passed < 0 ? json_null() : json_boolean(passed);
    json_array_append_new(
        p->list, json_pack("{s:s, s:o, s:s}", "name", name, "passed", good, "detail", detail));
}

/* Proved once for the model and its settings, which do not change while it is served. */
static kh_status checks(server_job *job)
{
    void **room = server_room(job, close_checks);
    kh_inspector *inspector = NULL;
    if (!room) KH_FAIL(KH_ERR_MEMORY, "no memory for the checks");
    if (!*room) {
        proof p = {job, json_array()};
        KH_TRY(inspector_of(job, &inspector));
        server_on_cancel(job, stop_inspector, inspector);
        kh_status status = kh_inspector_check(inspector, take_check, &p);
        server_on_cancel(job, NULL, NULL);
        if (status != KH_OK && status != KH_ERR_CHECK) {
            json_decref(p.list);
            return status;
        }
        *room = p.list;
    }
    return server_send(job, json_pack("{s:O}", "checks", (json_t *)*room));
}

/* ---- what can be asked ---- */

static json_t *model_json(const kh_model *model)
{
    const kh_model_info *i = kh_model_get_info(model);
    const char *name = strrchr(i->path, '/') ? strrchr(i->path, '/') + 1 : i->path;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, "
                     "s:b, s:b, s:b}",
                     "name", i->name, "file", name, "architecture", i->architecture, "quantisation",
                     i->quantisation, "identity", i->identity, "bytes", (json_int_t)i->file_bytes,
                     "parameters", (json_int_t)i->parameters, "layers", i->layers, "heads",
                     i->heads, "key_heads", i->key_heads, "head_width", i->head_width, "width",
                     i->width, "ff_width", i->ff_width, "vocabulary", i->vocabulary, "context",
                     i->context, "parallel", i->parallel, "gated", i->gated, "experts",
                     i->experts > 0);
}

static json_t *points_json(void)
{
    json_t *list = json_array();
    for (int p = 0; p < KH_POINT_COUNT; p++)
        json_array_append_new(list, json_string(kh_point_name((kh_point)p)));
    return list;
}

/* All routes answer; these say which of them answer with more than a refusal. */
static json_t *features_json(const server_job *job, int inspect)
{
    const server_options *o = server_job_options(job);
    const wire_labels at = {o->labels, server_job_model(job)};
    json_t *labels = NULL;
    int has_labels = wire_labels_list(&at, &labels) == KH_OK;
    json_decref(labels);
    return json_pack("{s:b, s:b, s:b, s:b, s:b, s:b, s:b}", "generate",
                     job->server->root.session != NULL, "embeddings",
                     kh_model_get_kind(server_job_model(job)) == KH_MODEL_ENCODER, "inspect",
                     inspect, "steer", job->server->steering != NULL, "labels", has_labels,
                     "sessions", o->slot_folder != NULL, "page", !o->no_page);
}

static kh_status capabilities(server_job *job)
{
    const kh_model *model = server_job_model(job);
    kh_inspector *inspector = NULL;
    kh_status opened = inspector_of(job, &inspector);
    json_t *why_not = json_string(opened == KH_OK ? "" : kh_last_error());
    json_t *out = json_pack(
        "{s:s, s:o, s:s, s:s, s:i, s:[s,s,s], s:o, s:o, s:o, s:b, s:o, s:n, s:b, s:{s:s}}",
        "keyhole", kh_version(), "model", model_json(model), "attn",
        inspector ? kh_inspector_attn(inspector) : "", "ff",
        server_job_options(job)->session.ff ? server_job_options(job)->session.ff : "dense",
        "threads", server_job_options(job)->session.threads, "taps", "before", "between", "after",
        "points", points_json(), "routes", server_routes_json(), "features",
        features_json(job, inspector != NULL), "inspect", inspector != NULL, "why_not", why_not,
        "checks", "template", strcmp(kh_model_chat_format(model), "") != 0, "example", "prompt",
        "The capital of France is");
    return server_send(job, out);
}

#define SUBJECT "prompt:text template:flag tokens:ids prompt_tokens:int edits:array "
#define STEERED SUBJECT "control_vectors:array vectors:array features:array "

const server_route server_routes_debug[] = {
    {"GET", "/v1/capabilities", SERVER_WORKER, capabilities,
     "what the model is, and what can be asked about it", 0, NULL},
    {"GET", "/v1/checks", SERVER_WORKER, checks,
     "the identities that inspection stands on, proved for this model", 0, NULL},
    {"POST", "/v1/text", SERVER_HERE, text, "the tokens of a text", 0,
     "prompt:text template:flag tokens:ids prompt_tokens:int"},
    {"POST", "/v1/lens/prompt", SERVER_WORKER, lens,
     "what each layer would predict at each position, as NDJSON frames", 0,
     STEERED "layers:ids taps:array first:int count:int top_n:int bottom_n:int tracked:ids "
             "num_completion_tokens:int cost_only:flag progress:flag"},
    {"POST", "/v1/next", SERVER_WORKER, next, "the model's own distributions at some positions", 0,
     STEERED "first:int count:int top_n:int"},
    {"POST", "/v1/why", SERVER_WORKER, why,
     "a logit, or the difference of two, as the sum of what every part gave", 0,
     STEERED "position:int a:any b:any alone:flag most:int kinds:array"},
    {"POST", "/v1/head", SERVER_WORKER, head, "a row of attention, and what the head writes", 0,
     STEERED "part:text position:int a:any b:any"},
    {"POST", "/v1/neurons", SERVER_WORKER, neurons, "the dominant neurons at a position", 0,
     STEERED "position:int layer:int a:any b:any most:int by:text promotes:flag"},
    {"POST", "/v1/neuron", SERVER_WORKER, neuron, "the card of a neuron", 0,
     STEERED "part:text position:int a:any b:any top_n:int neighbours:int"},
    {"POST", "/v1/search", SERVER_WORKER, search,
     "the neurons, or heads, that write a token, over all layers", 0,
     "words:array by:text ends:text most:int heads:flag"},
    {"POST", "/v1/search/text", SERVER_HERE, search_text,
     "the labels, and the neurons by the table of top tokens, that hold words", 0,
     "text:text ends:text most:int"},
    {"POST", "/v1/search/table", SERVER_WORKER, search_table,
     "makes the table of top tokens, layer by layer, as NDJSON frames", 0, "layers:int"},
    {"POST", "/v1/clusters", SERVER_WORKER, clusters,
     "value vectors in groups that point the same way, as NDJSON frames", 0,
     "clusters:int first_layer:int layers:int rounds:int seed:int members:int top_n:int"},
    {"POST", "/v1/find-heads", SERVER_WORKER, find_heads, "heads by what they do on a text", 0,
     STEERED "by:text most:int random:int query:int key:int keys:int"},
    {"POST", "/v1/activation/raw", SERVER_WORKER, activations,
     "activations at chosen points, by default the stream at the last token, as Neuronpedia's", 0,
     STEERED "prompts:array hook_point:text type:text layers:ids first:int count:int limit:int "
             "cost_only:flag model:any"},
    {"POST", "/v1/edit", SERVER_WORKER, edit,
     "the prompt continued without and under edits, as NDJSON frames", 0,
     STEERED "max_tokens:int temperature:real top_k:int top_p:real min_p:real seed:int"},
    {"POST", "/v1/steer/completion", SERVER_WORKER, steer,
     "a prompt continued with and without directions that are added to the stream", 0,
     STEERED "types:array "
             "n_completion_tokens:int max_tokens:int temperature:real seed:int"},
    {"POST", "/v1/steer/vector", SERVER_WORKER, learn,
     "a control vector from pairs of texts, texts, a token or a neuron; with id: what one writes",
     0,
     "pairs:array prompts:array method:text template:flag from:any minus:any name:text "
     "scale:real id:int"},
    {"GET", "/control-vectors", SERVER_WORKER, server_steering_list, "The control vectors.", 0,
     NULL},
    {"POST", "/control-vectors", SERVER_WORKER, server_steering_set,
     "What answers are steered by from now on: [{id, scale}]; those not named: 0.", SERVER_LIST,
     "list:array"},
    {"GET", "/cvectors", SERVER_WORKER, server_steering_list, "The same as /control-vectors.", 0,
     NULL},
    {"POST", "/cvectors", SERVER_WORKER, server_steering_set, "The same as /control-vectors.",
     SERVER_LIST, "list:array"},
    {"POST", "/v1/diff", SERVER_WORKER, diff,
     "where two settings of attention, or two prompts, part, as NDJSON frames", 0,
     SUBJECT "attn:text other:any threshold:real no_own:flag"},
    {"POST", "/v1/patch", SERVER_WORKER, patch,
     "activations of a clean prompt written into a corrupted one, as NDJSON frames", 0,
     "clean:any corrupted:any template:flag edits:array a:any b:any alone:flag kinds:array "
     "position:int first_layer:int layers:int to:text input:text cost_only:flag "
     "attribution:flag check:flag"},
    {NULL, NULL, SERVER_HERE, NULL, NULL, 0, NULL}};
