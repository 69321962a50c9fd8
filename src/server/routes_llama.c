/* The routes of llama-server, and the page.
 *
 * Shapes are those that its clients read: names of members, not all of them. Whatever needs only the file (texts, ids,
 * templates) is answered by the connection's own thread, so it does not wait behind an answer. */
#include "base/alloc.h"
#include "base/fail.h"
#include "server/server_impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static kh_status page(server_job *job)
{
    if (server_job_options(job)->no_page)
        return server_refuse(job, 404, "the page is switched off (--no-webui)");
    return server_answer(job, 200, "text/html; charset=utf-8", server_page, server_page_size);
}

static kh_status health(server_job *job)
{
    if (atomic_load(&job->server->draining))
        return server_refuse(job, 503, "the server is about to end");
    return server_send(job, json_pack("{s:s}", "status", "ok"));
}

/* ---- what is served */

/* The template of the file, or "". Free with kh_free. */
static char *template_of(const kh_model *model)
{
    enum { KEY = 128, TEXT = 256 << 10 };
    char key[KEY], *text = kh_alloc(TEXT);
    for (size_t i = 0; text && i < kh_model_metadata_count(model); i++) {
        char none[8];
        if (kh_model_metadata(model, i, key, sizeof key, none, sizeof none) != KH_OK ||
            strcmp(key, "tokenizer.chat_template") != 0)
            continue;
        if (kh_model_metadata(model, i, key, sizeof key, text, TEXT) == KH_OK) return text;
    }
    if (text) *text = 0;
    return text;
}

static json_t *marker(const kh_model *model, int32_t id)
{
    char bytes[128];
    size_t n = id >= 0 ? kh_model_marker(model, id, bytes, sizeof bytes) : 0;
    return wire_text(bytes, n < sizeof bytes ? n : sizeof bytes);
}

static kh_status props(server_job *job)
{
    server *s = job->server;
    const kh_sampler_options d = kh_sampler_defaults();
    char *template = template_of(s->model);
    json_t *settings = json_pack("{s:I, s:{s:f, s:i, s:f, s:f, s:f, s:i}}", "n_ctx",
                                 (json_int_t)s->context, "params", "temperature",
                                 (double)d.temperature, "top_k", d.top_k, "top_p", (double)d.top_p,
                                 "min_p", (double)d.min_p, "repeat_penalty",
                                 (double)d.repeat_penalty, "repeat_last_n", d.repeat_last);
    const char *text = template ? template : "";
    json_t *out = json_pack(
        "{s:o, s:I, s:s, s:s, s:o, s:o, s:s, s:s, s:s}", "default_generation_settings", settings,
        "total_slots", (json_int_t)s->options.slots, "model_alias", s->options.alias, "model_path",
        kh_model_get_info(s->model)->path, "chat_template", wire_text(text, strlen(text)),
        "bos_token", marker(s->model, kh_model_bos(s->model)), "attn", s->attn, "ff", s->ff,
        "build_info", kh_version());
    kh_free(template);
    return server_send(job, out);
}

static kh_status slots(server_job *job)
{
    server *s = job->server;
    json_t *list = json_array();
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->options.slots; i++)
        json_array_append_new(list, json_pack("{s:i, s:I, s:I, s:b}", "id", (int)i, "n_ctx",
                                              (json_int_t)s->context, "n_past",
                                              (json_int_t)s->states[i].length, "is_processing",
                                              s->states[i].busy));
    pthread_mutex_unlock(&s->lock);
    /* a list is the answer, as llama-server has it */
    return server_send(job, list);
}

static kh_status lora_adapters(server_job *job)
{
    const kh_model *model = server_job_model(job);
    json_t *list = json_array();
    for (size_t i = 0; i < kh_model_lora_count(model); i++) {
        const kh_lora_info *lora = kh_model_get_lora(model, i);
        json_array_append_new(list, json_pack("{s:I, s:s, s:f}", "id", (json_int_t)i, "path",
                                              lora->path, "scale", (double)lora->strength));
    }
    return server_send(job, list);
}

static kh_status metrics(server_job *job)
{
    server *s = job->server;
    kh_buf out = {0};
    pthread_mutex_lock(&s->lock);
    server_counts c = s->counts;
    size_t waiting = s->waiting, running = s->running;
    pthread_mutex_unlock(&s->lock);
    const struct {
        const char *name, *type, *help;
        double value;
    } all[] = {
        {"prompt_tokens_total", "counter", "Tokens of prompts that were read.",
         (double)c.prompt_tokens},
        {"prompt_tokens_cached_total", "counter", "Tokens of prompts that a slot had read already.",
         (double)c.cached_tokens},
        {"prompt_seconds_total", "counter", "Time from a slot to the first token.",
         c.prompt_seconds},
        {"tokens_predicted_total", "counter", "Tokens of answers.", (double)c.predicted_tokens},
        {"tokens_predicted_seconds_total", "counter", "Time of answers, added up over slots.",
         c.predicted_seconds},
        {"n_decode_total", "counter", "Passes that gave every running answer a token.",
         (double)c.passes},
        {"requests_total", "counter", "Answers of slots.", (double)c.answers},
        {"requests_refused_total", "counter", "Requests that found the queue full.",
         (double)c.refused},
        {"requests_cancelled_total", "counter", "Requests whose client left.", (double)c.cancelled},
        {"requests_processing", "gauge", "Requests at work.", (double)running},
        {"requests_deferred", "gauge", "Requests that wait.", (double)waiting},
    };
    kh_status status = KH_OK;
    for (size_t i = 0; i < sizeof all / sizeof *all && status == KH_OK; i++)
        status = kh_buf_format(
            &out, "# HELP llamacpp:%s %s\n# TYPE llamacpp:%s %s\nllamacpp:%s %.12g\n", all[i].name,
            all[i].help, all[i].name, all[i].type, all[i].name, all[i].value);
    if (status == KH_OK)
        status = server_answer(job, 200, "text/plain; version=0.0.4", out.data, out.size);
    kh_buf_free(&out);
    return status;
}

/* ---- texts and ids */

static int is_utf8(const char *bytes, size_t n)
{
    json_t *text = json_stringn(bytes, n); /* which refuses others */
    json_decref(text);
    return text != NULL;
}

static json_t *piece_of(const kh_model *model, int32_t id)
{
    char bytes[256];
    size_t n = kh_model_piece(model, id, bytes, sizeof bytes);
    if (n > sizeof bytes) n = sizeof bytes;
    if (is_utf8(bytes, n)) return json_pack("{s:i, s:s%}", "id", (int)id, "piece", bytes, n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    return json_pack("{s:i, s:o}", "id", (int)id, "piece", list);
}

static kh_status tokenize(server_job *job)
{
    const json_t *body = server_job_body(job);
    const kh_model *model = server_job_model(job);
    const char *text = "";
    size_t size = 0, count = 0;
    int edges = 0, special = 1, pieces = 0;
    int32_t *ids = NULL;
    KH_TRY(wire_get_text(body, "content", &text, &size));
    KH_TRY(wire_get_flag(body, "add_special", &edges));
    KH_TRY(wire_get_flag(body, "parse_special", &special));
    KH_TRY(wire_get_flag(body, "with_pieces", &pieces));
    unsigned flags = (edges ? KH_TEXT_EDGES : 0u) | (special ? KH_TEXT_SPECIAL : 0u);
    KH_TRY(kh_model_tokenize(model, text, size, flags, &ids, &count));
    json_t *list = pieces ? json_array() : wire_ids(ids, count);
    for (size_t i = 0; pieces && i < count; i++)
        json_array_append_new(list, piece_of(model, ids[i]));
    kh_free_ids(ids);
    return server_send(job, json_pack("{s:o}", "tokens", list));
}

static kh_status detokenize(server_job *job)
{
    const kh_model *model = server_job_model(job);
    int32_t *ids = NULL;
    size_t count = 0, size = 0;
    char *text = NULL;
    KH_TRY(wire_get_ids(server_job_body(job), "tokens", kh_model_get_info(model)->vocabulary, &ids,
                        &count));
    if (!ids) KH_FAIL(KH_ERR_ARGUMENT, "tokens: an array of ids is expected");
    kh_status status = kh_model_detokenize(model, ids, count, KH_TEXT_SPECIAL, &text, &size);
    kh_free(ids);
    KH_TRY(status);
    json_t *out = json_pack("{s:o}", "content", wire_text(text, size));
    kh_free_text(text);
    return server_send(job, out);
}

/* ---- completion */

/* A text, ids, or a list of both: [1, " and", 42]. */
static kh_status read_prompt(server_ask *ask, const kh_model *model, const json_t *prompt)
{
    int vocabulary = kh_model_get_info(model)->vocabulary;
    kh_buf all = {0};
    kh_status status = KH_OK;
    size_t n = json_is_array(prompt) ? json_array_size(prompt) : 1;
    for (size_t i = 0; i < n && status == KH_OK; i++) {
        const json_t *one = json_is_array(prompt) ? json_array_get(prompt, i) : prompt;
        int32_t *ids = NULL;
        size_t count = 0;
        unsigned flags = KH_TEXT_SPECIAL | (i == 0 ? KH_TEXT_EDGES : 0u);
        if (json_is_string(one)) {
            status = kh_model_tokenize(model, json_string_value(one), json_string_length(one),
                                       flags, &ids, &count);
            if (status == KH_OK) status = kh_buf_add(&all, ids, count * sizeof *ids);
            kh_free_ids(ids);
        } else if (json_is_integer(one) && json_integer_value(one) >= 0 &&
                   json_integer_value(one) < vocabulary) {
            int32_t id = (int32_t)json_integer_value(one);
            status = kh_buf_add(&all, &id, sizeof id);
        } else {
            status =
                kh_fail(KH_ERR_ARGUMENT,
                        "prompt: a text, or an array of texts and ids from 0 to %d, is expected",
                        vocabulary - 1);
        }
    }
    ask->count = all.size / sizeof *ask->ids;
    if (status == KH_OK) status = kh_new(&ask->ids, ask->count + 1, sizeof *ask->ids, "a prompt");
    if (status == KH_OK && ask->count > 0) memcpy(ask->ids, all.data, all.size);
    kh_buf_free(&all);
    return status;
}

static kh_status completion(server_job *job)
{
    const json_t *prompt = wire_member(server_job_body(job), "prompt");
    server_ask *ask = NULL;
    KH_TRY(server_ask_open(&ask, job, SERVER_LLAMA));
    if (!prompt) KH_FAIL(KH_ERR_ARGUMENT, "prompt: it is missing");
    KH_TRY(read_prompt(ask, job->server->model, prompt));
    return server_ask_submit(ask);
}

#define SAMPLING                                                                                   \
    "temperature:real top_k:int top_p:real min_p:real repeat_penalty:real repeat_last_n:int "      \
    "seed:int logit_bias:any stop:any ignore_eos:flag stream:flag cache_prompt:flag "

const server_route server_routes_llama[] = {
    {"GET", "/", SERVER_HERE, page, "The page.", SERVER_OPEN, NULL},
    {"GET", "/index.html", SERVER_HERE, page, "The page.", SERVER_OPEN, NULL},
    {"GET", "/health", SERVER_HERE, health, "Whether the server answers.", SERVER_OPEN, NULL},
    {"GET", "/v1/health", SERVER_HERE, health, "Whether the server answers.", SERVER_OPEN, NULL},
    {"GET", "/openapi.json", SERVER_HERE, server_route_openapi, "This document.", SERVER_OPEN,
     NULL},
    {"GET", "/props", SERVER_HERE, props, "The model, its template and the defaults.", 0, NULL},
    {"GET", "/slots", SERVER_HERE, slots, "What every slot does.", 0, NULL},
    {"POST", "/slots/{id}", SERVER_WORKER, server_slots_action,
     "Saves, restores or erases what a slot has read (?action=save, restore, erase).", 0,
     "filename:text"},
    {"GET", "/metrics", SERVER_HERE, metrics, "Counters, as Prometheus reads them.", 0, NULL},
    {"GET", "/lora-adapters", SERVER_HERE, lora_adapters, "The adapters in use.", 0, NULL},
    {"POST", "/completion", SERVER_HERE, completion, "Goes on with a prompt.", 0,
     "prompt:any n_predict:int n_probs:int post_sampling_probs:flag return_tokens:flag " SAMPLING},
    {"POST", "/completions", SERVER_HERE, completion, "The same.", 0,
     "prompt:any n_predict:int n_probs:int post_sampling_probs:flag return_tokens:flag " SAMPLING},
    {"POST", "/tokenize", SERVER_HERE, tokenize, "A text as ids.", 0,
     "content:text add_special:flag parse_special:flag with_pieces:flag"},
    {"POST", "/detokenize", SERVER_HERE, detokenize, "Ids as a text.", 0, "tokens:ids"},
    {0},
};
