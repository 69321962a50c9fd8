/* The routes of OpenAI's API: models, chat, completions, embeddings; and llama-server's /apply-template, which is the
 * first half of chat.
 *
 * A conversation becomes text by the model's own template, or by the one the server was started with. Tools are given to
 * the template. Whether it has a place for them is seen by doing it: a template that writes the same text with and
 * without tools ignores them, and then the request is refused, because a model that never saw its tools cannot call
 * one. */
#include "base/alloc.h"
#include "base/fail.h"
#include "server/server_impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

kh_status server_ask_open(server_ask **out, server_job *job, enum server_kind kind)
{
    static const char *const heads[] = {"chatcmpl", "cmpl", "cmpl"};
    server *s = job->server;
    *out = NULL;
    if (kh_model_get_kind(s->model) == KH_MODEL_ENCODER)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s is an encoder: it predicts no next token (POST /v1/embeddings is what it does)",
                s->options.alias);
    KH_TRY(kh_new(&job->ask, 1, sizeof *job->ask, "a request"));
    server_ask *ask = job->ask;
    ask->job = job;
    ask->kind = kind;
    ask->created = (int64_t)time(NULL);
    snprintf(ask->id, sizeof ask->id, "%s-%08llx%08llx", heads[kind],
             (unsigned long long)kh_random_seed(), (unsigned long long)kh_random_seed());
    KH_TRY(server_ask_parse(ask, job->body, s->model));
    *out = ask;
    return KH_OK;
}

kh_status server_ask_submit(server_ask *ask)
{
    server *s = ask->job->server;
    int source = kh_model_get_kind(s->model) == KH_MODEL_ENCODER_DECODER;
    if (ask->count == 0) KH_FAIL(KH_ERR_ARGUMENT, "the prompt is empty: nothing can follow it");
    if (ask->count >= s->context && !source)
        KH_FAIL(KH_ERR_CONTEXT, "the prompt has %zu tokens, and the context holds %zu (-c N)",
                ask->count, s->context);
    return server_enqueue(ask->job);
}

static kh_status models(server_job *job)
{
    server *s = job->server;
    const kh_model_info *info = kh_model_get_info(s->model);
    json_t *meta = json_pack("{s:I, s:I, s:i, s:I, s:I, s:s}", "n_vocab",
                             (json_int_t)info->vocabulary, "n_ctx_train", (json_int_t)info->context,
                             "n_embd", info->width, "n_params", (json_int_t)info->parameters,
                             "size", (json_int_t)info->file_bytes, "identity", info->identity);
    return server_send(job, json_pack("{s:s, s:[{s:s, s:s, s:i, s:s, s:o}]}", "object", "list",
                                      "data", "id", s->options.alias, "object", "model", "created",
                                      0, "owned_by", "keyhole", "meta", meta));
}

/* ---- conversations */

typedef struct talk {
    kh_chat_options options;
    char *messages, *tools, *kwargs; /* JSON */
    kh_chat_message *list;           /* [count] for a named format */
    json_t *plain;                   /* the messages with contents that are texts */
    size_t count;
    int has_tools;
} talk;

static void close_talk(talk *t)
{
    kh_free(t->messages);
    kh_free(t->tools);
    kh_free(t->kwargs);
    kh_free(t->list);
    json_decref(t->plain);
}

/* [{"type": "text", "text": ...} ...] as one text. */
static json_t *join_parts(const json_t *parts, size_t index, kh_status *status)
{
    kh_buf text = {0};
    json_t *out = NULL;
    for (size_t i = 0; i < json_array_size(parts) && *status == KH_OK; i++) {
        const json_t *part = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const char *words = json_string_value(json_object_get(part, "text"));
        if (!type || strcmp(type, "text") != 0 || !words)
            *status = kh_fail(KH_ERR_ARGUMENT,
                              "messages: entry %zu: parts of type \"text\" are read, and no others",
                              index);
        else
            *status = kh_buf_text(&text, words);
    }
    if (*status == KH_OK) out = json_stringn(text.data ? text.data : "", text.size);
    kh_buf_free(&text);
    return out;
}

static kh_status plain_messages(talk *t, const json_t *messages)
{
    kh_status status = KH_OK;
    t->count = json_array_size(messages);
    t->plain = json_array();
    for (size_t i = 0; i < t->count; i++) {
        const json_t *message = json_array_get(messages, i);
        const json_t *content = json_object_get(message, "content");
        if (!json_is_object(message) || !json_is_string(json_object_get(message, "role")))
            KH_FAIL(KH_ERR_ARGUMENT, "messages: entry %zu: an object with a role is expected", i);
        json_t *copy = json_copy((json_t *)(uintptr_t)message);
        if (json_is_array(content)) {
            json_object_set_new(copy, "content", join_parts(content, i, &status));
        } else if (content && !json_is_string(content) && !json_is_null(content)) {
            status = kh_fail(KH_ERR_ARGUMENT, "messages: entry %zu: its content must be a text", i);
        }
        json_array_append_new(t->plain, copy);
        KH_TRY(status);
    }
    return KH_OK;
}

static char *dump(const json_t *value)
{
    return value ? json_dumps(value, JSON_COMPACT) : NULL;
}

/* A named format takes roles and texts alone. */
static kh_status list_messages(talk *t, size_t count)
{
    KH_TRY(kh_new(&t->list, count, sizeof *t->list, "the messages"));
    t->count = count;
    for (size_t i = 0; i < count; i++) {
        const json_t *message = json_array_get(t->plain, i);
        const char *text = json_string_value(json_object_get(message, "content"));
        t->list[i] = (kh_chat_message){json_string_value(json_object_get(message, "role")),
                                       text ? text : ""};
    }
    return KH_OK;
}

static kh_status open_talk(talk *t, const server_job *job)
{
    const json_t *body = job->body, *messages = NULL, *tools = NULL, *kwargs = NULL;
    const json_t *choice = wire_member(body, "tool_choice");
    const server_options *o = &job->server->options;
    const char *word = json_string_value(choice);
    KH_TRY(wire_get_array(body, "messages", &messages));
    KH_TRY(wire_get_array(body, "tools", &tools));
    KH_TRY(wire_get_object(body, "chat_template_kwargs", &kwargs));
    if (json_array_size(messages) == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "messages: an array of at least one message is expected");
    KH_TRY(plain_messages(t, messages));
    size_t count = t->count;
    t->count = 0; /* of the array, which a template does without */
    t->has_tools = json_array_size(tools) > 0 && !(word && strcmp(word, "none") == 0);
    if (t->has_tools && choice && !(word && strcmp(word, "auto") == 0))
        KH_FAIL(KH_ERR_ARGUMENT,
                "tool_choice: \"auto\" and \"none\" are supported; a call cannot be forced");
    t->options.format = o->chat_format;
    if (o->chat_format) {
        if (t->has_tools)
            KH_FAIL(KH_ERR_ARGUMENT, "tools: the chat format %s has no place for them",
                    o->chat_format);
        return list_messages(t, count);
    }
    t->options.template_text = o->chat_template;
    t->options.messages_json = t->messages = dump(t->plain);
    t->options.tools_json = t->tools = t->has_tools ? dump(tools) : NULL;
    t->kwargs = dump(kwargs);
    t->options.kwargs_json = t->kwargs ? t->kwargs : o->chat_kwargs;
    return t->messages ? KH_OK : kh_fail(KH_ERR_MEMORY, "no memory for the messages");
}

static kh_status check_tools(const talk *t, const kh_model *model)
{
    char *with = NULL, *without = NULL;
    size_t n = 0, m = 0;
    if (!t->has_tools) return KH_OK;
    kh_chat_options bare = t->options;
    bare.tools_json = NULL;
    kh_status status = kh_model_chat_text(model, &t->options, t->list, t->count, &with, &n);
    if (status == KH_OK) status = kh_model_chat_text(model, &bare, t->list, t->count, &without, &m);
    if (status == KH_OK && n == m && memcmp(with, without, n) == 0)
        status = kh_fail(KH_ERR_ARGUMENT,
                         "tools: the chat template of this model has no place for them");
    kh_free_text(with);
    kh_free_text(without);
    return status;
}

static kh_status chat_ids(server_ask *ask, const talk *t)
{
    const kh_model *model = ask->job->server->model;
    int32_t *ids = NULL;
    KH_TRY(check_tools(t, model));
    KH_TRY(kh_model_chat_with(model, &t->options, t->list, t->count, &ids, &ask->count));
    kh_status status = kh_new(&ask->ids, ask->count + 1, sizeof *ids, "a prompt");
    if (status == KH_OK && ask->count > 0) memcpy(ask->ids, ids, ask->count * sizeof *ids);
    kh_free_ids(ids);
    ask->tools = t->has_tools;
    return status;
}

/* What a template refuses is the request's fault, and so is a file without one. */
static kh_status as_request(server_job *job, kh_status status)
{
    if (status == KH_ERR_UNSUPPORTED) return server_refuse(job, 400, "%s", kh_last_error());
    return status;
}

static kh_status chat(server_job *job)
{
    server_ask *ask = NULL;
    talk t = {.count = 0};
    KH_TRY(server_ask_open(&ask, job, SERVER_CHAT));
    kh_status status = open_talk(&t, job);
    if (status == KH_OK) status = as_request(job, chat_ids(ask, &t));
    close_talk(&t);
    return status == KH_OK ? server_ask_submit(ask) : status;
}

static kh_status apply_template(server_job *job)
{
    talk t = {.count = 0};
    char *text = NULL;
    size_t size = 0;
    kh_status status = open_talk(&t, job);
    if (status == KH_OK) status = check_tools(&t, job->server->model);
    if (status == KH_OK)
        status = kh_model_chat_text(job->server->model, &t.options, t.list, t.count, &text, &size);
    status = as_request(job, status);
    close_talk(&t);
    KH_TRY(status);
    json_t *out = json_pack("{s:o}", "prompt", wire_text(text, size));
    kh_free_text(text);
    return server_send(job, out);
}

/* ---- completions */

/* The only one of a list of one prompt, else the prompt itself. */
static const json_t *single(const json_t *prompt)
{
    if (!json_is_array(prompt) || json_array_size(prompt) != 1) return prompt;
    const json_t *one = json_array_get(prompt, 0);
    return json_is_integer(one) ? prompt : one;
}

static kh_status completions(server_job *job)
{
    const kh_model *model = job->server->model;
    const json_t *prompt = single(wire_member(job->body, "prompt"));
    server_ask *ask = NULL;
    int32_t *ids = NULL;
    KH_TRY(server_ask_open(&ask, job, SERVER_TEXT));
    if (json_is_array(prompt)) {
        if (json_is_string(json_array_get(prompt, 0)) || json_is_array(json_array_get(prompt, 0)))
            KH_FAIL(KH_ERR_ARGUMENT, "prompt: one prompt is answered by a request, found %zu",
                    json_array_size(prompt));
        KH_TRY(wire_read_ids(prompt, "prompt", kh_model_get_info(model)->vocabulary, &ask->ids,
                             &ask->count));
        return server_ask_submit(ask);
    }
    if (!json_is_string(prompt)) KH_FAIL(KH_ERR_ARGUMENT, "prompt: a text is expected");
    KH_TRY(kh_model_tokenize(model, json_string_value(prompt), json_string_length(prompt),
                             KH_TEXT_SPECIAL | KH_TEXT_EDGES, &ids, &ask->count));
    kh_status status = kh_new(&ask->ids, ask->count + 1, sizeof *ids, "a prompt");
    if (status == KH_OK && ask->count > 0) memcpy(ask->ids, ids, ask->count * sizeof *ids);
    kh_free_ids(ids);
    return status == KH_OK ? server_ask_submit(ask) : status;
}

/* ---- embeddings */

static void close_encoder(void *encoder)
{
    kh_encoder_close(encoder);
}

static void stop_encoder(void *encoder)
{
    kh_encoder_stop(encoder);
}

typedef struct texts {
    kh_encoder_text *items; /* [count] */
    int32_t **ids;          /* [count] */
    size_t count, tokens;
} texts;

static void close_texts(texts *t)
{
    for (size_t i = 0; t->ids && i < t->count; i++) kh_free(t->ids[i]);
    kh_free(t->ids);
    kh_free(t->items);
}

static kh_status add_text(texts *t, size_t at, const kh_model *model, const json_t *one)
{
    int vocabulary = kh_model_get_info(model)->vocabulary;
    int32_t *ids = NULL;
    size_t count = 0;
    if (json_is_array(one)) {
        KH_TRY(wire_read_ids(one, "input", vocabulary, &t->ids[at], &count));
    } else if (json_is_string(one)) {
        KH_TRY(kh_model_tokenize(model, json_string_value(one), json_string_length(one),
                                 KH_TEXT_EDGES, &ids, &count));
        kh_status status = kh_new(&t->ids[at], count + 1, sizeof *ids, "a text");
        if (status == KH_OK && count > 0) memcpy(t->ids[at], ids, count * sizeof *ids);
        kh_free_ids(ids);
        KH_TRY(status);
    } else {
        KH_FAIL(KH_ERR_ARGUMENT, "input: a text, ids, or an array of either is expected");
    }
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "input: entry %zu is empty", at);
    t->items[at] = (kh_encoder_text){.ids = t->ids[at], .count = count};
    t->tokens += count;
    return KH_OK;
}

static kh_status open_texts(texts *t, const kh_model *model, const json_t *input)
{
    enum { MOST = 2048 };
    if (!input) KH_FAIL(KH_ERR_ARGUMENT, "input: it is missing");
    int many = json_is_array(input) && !json_is_integer(json_array_get(input, 0));
    t->count = many ? json_array_size(input) : 1;
    if (t->count == 0 || t->count > MOST)
        KH_FAIL(KH_ERR_ARGUMENT, "input: 1 to %d texts are expected", MOST);
    KH_TRY(kh_new(&t->items, t->count, sizeof *t->items, "the texts"));
    KH_TRY(kh_new(&t->ids, t->count, sizeof *t->ids, "the texts"));
    for (size_t i = 0; i < t->count; i++)
        KH_TRY(add_text(t, i, model, many ? json_array_get(input, i) : input));
    return KH_OK;
}

/* OpenAI's client asks for the floats in base 64. */
static json_t *base64(const float *row, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = (const unsigned char *)row;
    size_t size = n * sizeof *row, at = 0;
    char *out = kh_alloc((size + 2) / 3 * 4 + 1);
    for (size_t i = 0; out && i < size; i += 3) {
        unsigned left = (unsigned)(size - i), word = (unsigned)in[i] << 16;
        if (left > 1) word |= (unsigned)in[i + 1] << 8;
        if (left > 2) word |= in[i + 2];
        out[at++] = digits[word >> 18];
        out[at++] = digits[word >> 12 & 63];
        out[at++] = left > 1 ? digits[word >> 6 & 63] : '=';
        out[at++] = left > 2 ? digits[word & 63] : '=';
    }
    json_t *text = out ? json_stringn(out, at) : NULL;
    kh_free(out);
    return text;
}

static json_t *row_of(const float *row, size_t n, int packed)
{
    if (packed) return base64(row, n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, wire_real((double)row[i]));
    return list;
}

static kh_status embed(server_job *job, kh_encoder *encoder, const texts *t, int packed)
{
    size_t D = (size_t)kh_model_get_info(job->server->model)->width;
    float *rows = NULL;
    KH_TRY(kh_new(&rows, t->count * D, sizeof *rows, "the embeddings"));
    server_on_cancel(job, stop_encoder, encoder);
    kh_status status = kh_encoder_embed(encoder, rows, t->items, t->count, KH_POOLING_MODEL, 1);
    server_on_cancel(job, NULL, NULL);
    json_t *list = json_array();
    for (size_t i = 0; status == KH_OK && i < t->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:o}", "object", "embedding", "index",
                                              (json_int_t)i, "embedding",
                                              row_of(rows + i * D, D, packed)));
    kh_free(rows);
    if (status != KH_OK) {
        json_decref(list);
        return status;
    }
    json_int_t n = (json_int_t)t->tokens;
    return server_send(job, json_pack("{s:s, s:o, s:s, s:{s:I, s:I}}", "object", "list", "data",
                                      list, "model", job->server->options.alias, "usage",
                                      "prompt_tokens", n, "total_tokens", n));
}

static kh_status open_encoder(server_job *job, kh_encoder **out)
{
    const server *s = job->server;
    const kh_session_options *o = &s->options.session;
    void **room = server_room(job, close_encoder);
    if (!room) KH_FAIL(KH_ERR_MEMORY, "no memory for an encoder");
    kh_encoder_options options = {.longest = o->context,
                                  .longer = o->longer,
                                  .threads = o->threads,
                                  .attn = o->attn,
                                  .ff = o->ff,
                                  .precision = o->precision};
    kh_encoder *encoder = *room;
    if (!encoder) KH_TRY(kh_encoder_open(&encoder, s->model, &options));
    *room = *out = encoder;
    return KH_OK;
}

static kh_status embeddings(server_job *job)
{
    const kh_model *model = job->server->model;
    const char *format = "float";
    int64_t width = kh_model_get_info(model)->width;
    kh_encoder *encoder = NULL;
    texts t = {0};
    if (kh_model_get_kind(model) == KH_MODEL_DECODER)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s is a decoder: embeddings are made by encoders",
                job->server->options.alias);
    KH_TRY(wire_get_text(job->body, "encoding_format", &format, NULL));
    if (strcmp(format, "float") != 0 && strcmp(format, "base64") != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "encoding_format: float or base64 is expected");
    KH_TRY(wire_get_int(job->body, "dimensions", &width, width, width));
    KH_TRY(open_encoder(job, &encoder));
    kh_status status = open_texts(&t, model, wire_member(job->body, "input"));
    if (status == KH_OK) status = embed(job, encoder, &t, strcmp(format, "base64") == 0);
    close_texts(&t);
    return status;
}

#define SAMPLING                                                                                   \
    "max_tokens:int temperature:real top_k:int top_p:real min_p:real repeat_penalty:real "         \
    "repeat_last_n:int seed:int logit_bias:any stop:any ignore_eos:flag stream:flag "              \
    "stream_options:object cache_prompt:flag post_sampling_probs:flag n:int "                      \
    "response_format:object"
#define CHAT                                                                                       \
    "messages:array tools:array tool_choice:any chat_template_kwargs:object "                      \
    "max_completion_tokens:int logprobs:flag top_logprobs:int " SAMPLING
#define EMBEDDINGS "input:any encoding_format:text dimensions:int"

const server_route server_routes_openai[] = {
    {"GET", "/v1/models", SERVER_HERE, models, "The model that is served.", 0, NULL},
    {"GET", "/models", SERVER_HERE, models, "The same.", 0, NULL},
    {"POST", "/v1/chat/completions", SERVER_HERE, chat, "Answers a conversation.", 0, CHAT},
    {"POST", "/chat/completions", SERVER_HERE, chat, "The same.", 0, CHAT},
    {"POST", "/v1/completions", SERVER_HERE, completions, "Goes on with a prompt.", 0,
     "prompt:any logprobs:any " SAMPLING},
    {"POST", "/v1/embeddings", SERVER_WORKER, embeddings, "Texts as vectors, by an encoder.", 0,
     EMBEDDINGS},
    {"POST", "/embeddings", SERVER_WORKER, embeddings, "The same.", 0, EMBEDDINGS},
    {"POST", "/apply-template", SERVER_HERE, apply_template,
     "A conversation as the text that the model would read.", 0,
     "messages:array tools:array tool_choice:any chat_template_kwargs:object"},
    {0},
};
