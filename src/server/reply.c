/* An answer as three dialects write it, whole or as a stream.
 *
 *     chat         {"choices": [{"message": {...}, "logprobs": {"content": [entry ...]}, "finish_reason"}], "usage"}
 *     completion   {"choices": [{"text", "logprobs", "finish_reason"}], "usage"}
 *     llama's      {"content", "completion_probabilities": [entry ...], "stop_type", "timings" ...}
 *
 * An entry is {"id", "token", "logprob", "bytes", "top_logprobs"}: natural logarithms of the softmax before any
 * sampler. With post_sampling_probs it says "prob" and "top_probs" instead, of what the sampler drew from. Ids stand
 * beside texts because two tokens may have the same text.
 *
 * With tools the text is kept back to its end, because only then it is known whether it calls one: calls are JSON in
 * <tool_call> marks (Qwen, Hermes), or a text that is one JSON object with a name and its arguments (Llama). */
#include "base/alloc.h"
#include "base/fail.h"
#include "server/server_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- pieces */

static json_t *byte_list(const char *bytes, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    return list;
}

/* One token with its probability, before or after the sampler. */
static json_t *token_entry(const server_ask *ask, const kh_choice *choice)
{
    char piece[256];
    size_t n = kh_model_piece(ask->job->server->model, choice->id, piece, sizeof piece);
    if (n > sizeof piece) n = sizeof piece;
    double value = ask->after ? (double)choice->sampled : (double)choice->logprob;
    return json_pack("{s:i, s:o, s:o, s:o}", "id", (int)choice->id, "token", wire_text(piece, n),
                     ask->after ? "prob" : "logprob", wire_real(value), "bytes",
                     byte_list(piece, n));
}

static json_t *entry_of(const server_ask *ask, const kh_choice *chosen,
                        const kh_choice *alternatives, size_t count)
{
    json_t *entry = token_entry(ask, chosen), *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, token_entry(ask, &alternatives[i]));
    json_object_set_new(entry, ask->after ? "top_probs" : "top_logprobs", list);
    return entry;
}

/* The form of OpenAI's completions, made of entries. */
static json_t *old_logprobs(const json_t *entries)
{
    json_t *tokens = json_array(), *logprobs = json_array(), *tops = json_array();
    json_t *offsets = json_array();
    size_t at = 0;
    for (size_t i = 0; i < json_array_size(entries); i++) {
        const json_t *entry = json_array_get(entries, i),
                     *top = json_object_get(entry, "top_logprobs");
        json_t *map = json_object();
        for (size_t k = 0; k < json_array_size(top); k++) {
            const json_t *one = json_array_get(top, k);
            json_object_set(map, json_string_value(json_object_get(one, "token")),
                            json_object_get(one, "logprob"));
        }
        json_array_append(tokens, json_object_get(entry, "token"));
        json_array_append(logprobs, json_object_get(entry, "logprob"));
        json_array_append_new(tops, map);
        json_array_append_new(offsets, json_integer((json_int_t)at));
        at += json_array_size(json_object_get(entry, "bytes"));
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:O}", "tokens", tokens, "token_logprobs", logprobs,
                     "top_logprobs", tops, "text_offset", offsets, "content", entries);
}

static json_t *logprobs_of(const server_ask *ask, json_t *entries)
{
    if (!ask->logprobs || !entries) return json_null();
    return ask->kind == SERVER_TEXT && !ask->after ? old_logprobs(entries)
                                                   : json_pack("{s:O}", "content", entries);
}

static json_t *usage_of(const server_ask *ask)
{
    json_int_t in = (json_int_t)ask->count, out = (json_int_t)ask->result.tokens;
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", in, "completion_tokens", out,
                     "total_tokens", in + out, "prompt_tokens_details", "cached_tokens",
                     (json_int_t)ask->kept);
}

static json_t *timings_of(const server_ask *ask)
{
    double in = (double)(ask->count - ask->kept), out = (double)ask->result.tokens;
    double read = ask->prompt_seconds, wrote = ask->result.seconds;
    return json_pack("{s:I, s:I, s:f, s:f, s:I, s:f, s:f}", "cache_n", (json_int_t)ask->kept,
                     "prompt_n", (json_int_t)(ask->count - ask->kept), "prompt_ms", read * 1000,
                     "prompt_per_second", read > 0 ? in / read : 0.0, "predicted_n",
                     (json_int_t)ask->result.tokens, "predicted_ms", wrote * 1000,
                     "predicted_per_second", wrote > 0 ? out / wrote : 0.0);
}

/* ---- tools */

static json_t *call_of(const server_ask *ask, const json_t *call, size_t index)
{
    char id[64];
    const char *name = json_string_value(json_object_get(call, "name"));
    const json_t *arguments = json_object_get(call, "arguments");
    if (!arguments) arguments = json_object_get(call, "parameters");
    if (!name || !json_is_object(arguments)) return NULL;
    char *text = json_dumps(arguments, WIRE_FORM);
    snprintf(id, sizeof id, "call_%s_%zu", ask->id + strcspn(ask->id, "-") + 1, index);
    json_t *out = json_pack("{s:I, s:s, s:s, s:{s:s, s:s}}", "index", (json_int_t)index, "id", id,
                            "type", "function", "function", "name", name, "arguments",
                            text ? text : "{}");
    kh_free(text);
    return out;
}

static void add_call(const server_ask *ask, json_t *list, const char *text, size_t size)
{
    json_t *call = json_loadb(text, size, 0, NULL);
    json_t *one = call ? call_of(ask, call, json_array_size(list)) : NULL;
    if (one) json_array_append_new(list, one);
    json_decref(call);
}

/* The calls of a text; *before: bytes of what was said in front of them. NULL: none. */
static json_t *calls_of(const server_ask *ask, size_t *before)
{
    static const char open[] = "<tool_call>", close[] = "</tool_call>";
    const char *text = ask->text.data;
    size_t size = ask->text.size;
    json_t *list = json_array();
    const char *at = size ? strstr(text, open) : NULL;
    *before = at ? (size_t)(at - text) : 0;
    if (!at && size && text[strspn(text, " \n\t")] == '{') add_call(ask, list, text, size);
    while (at) {
        const char *first = at + sizeof open - 1, *end = strstr(first, close);
        add_call(ask, list, first, end ? (size_t)(end - first) : strlen(first));
        at = end ? strstr(end, open) : NULL;
    }
    if (json_array_size(list) > 0) return list;
    json_decref(list);
    return NULL;
}

/* ---- documents */

static const char *finish_of(const server_ask *ask)
{
    switch (ask->result.finish) {
    case KH_FINISH_END:
    case KH_FINISH_STOP: return "stop";
    default: return "length";
    }
}

static json_t *envelope(const server_ask *ask, const char *object, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", ask->id, "object", object, "created",
                     (json_int_t)ask->created, "model", ask->job->server->options.alias, "choices",
                     choices);
}

static kh_status send_piece(server_ask *ask, json_t *delta, json_t *logprobs, const char *finish)
{
    json_t *end = finish ? json_string(finish) : json_null();
    json_t *choice = ask->kind == SERVER_CHAT
                         ? json_pack("{s:i, s:o, s:o, s:o}", "index", 0, "delta", delta, "logprobs",
                                     logprobs, "finish_reason", end)
                         : json_pack("{s:i, s:o, s:o, s:o}", "index", 0, "text", delta, "logprobs",
                                     logprobs, "finish_reason", end);
    const char *object = ask->kind == SERVER_CHAT ? "chat.completion.chunk" : "text_completion";
    return server_send(ask->job, envelope(ask, object, json_pack("[o]", choice)));
}

kh_status server_reply_begin(server_ask *ask)
{
    if (!ask->stream) return KH_OK;
    KH_TRY(server_begin(ask->job, SERVER_EVENTS));
    if (ask->kind != SERVER_CHAT) return KH_OK;
    return send_piece(ask, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), json_null(),
                      NULL);
}

static kh_status stream_token(server_ask *ask, const char *text, size_t size,
                              const kh_choice *chosen, json_t *entry)
{
    json_t *words = wire_text(text, size), *entries = entry ? json_pack("[O]", entry) : NULL;
    kh_status status = KH_OK;
    if (ask->kind == SERVER_LLAMA) {
        json_t *line = json_pack("{s:i, s:o, s:o, s:b, s:i, s:I, s:I}", "index", 0, "content",
                                 words, "tokens", chosen ? wire_ids(&chosen->id, 1) : json_array(),
                                 "stop", 0, "id_slot", ask->slot, "tokens_predicted",
                                 (json_int_t)ask->result.tokens, "tokens_evaluated",
                                 (json_int_t)ask->count);
        if (entries) json_object_set(line, "completion_probabilities", entries);
        status = server_send(ask->job, line);
    } else {
        json_t *delta = ask->kind == SERVER_CHAT ? json_pack("{s:o}", "content", words) : words;
        status = send_piece(ask, delta, logprobs_of(ask, entries), NULL);
    }
    json_decref(entries);
    return status;
}

kh_status server_reply_token(void *context, const char *text, size_t size, const kh_choice *chosen,
                             const kh_choice *alternatives, size_t count)
{
    server_ask *ask = context;
    if (server_cancelled(ask->job)) KH_FAIL(KH_ERR_STOPPED, "cancelled");
    json_t *entry = NULL;
    if (chosen) ask->result.tokens++;
    if (chosen && ask->logprobs) {
        if (!(entry = entry_of(ask, chosen, alternatives, count)))
            KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
        if (!ask->entries) ask->entries = json_array();
        if (!ask->stream) json_array_append(ask->entries, entry);
    }
    if (chosen && ask->kind == SERVER_LLAMA && ask->tokens) {
        if (!ask->ids_out) ask->ids_out = json_array();
        json_array_append_new(ask->ids_out, json_integer(chosen->id));
    }
    kh_status status = KH_OK;
    if (!ask->stream || ask->tools)
        status = kh_buf_add(&ask->text, text, size);
    else if (size > 0 || entry || (chosen && ask->kind == SERVER_LLAMA))
        status = stream_token(ask, text, size, chosen, entry);
    json_decref(entry);
    return status;
}

static json_t *settings_of(const server_ask *ask)
{
    const kh_sampler_options *s = &ask->generate.sampler;
    return json_pack("{s:I, s:f, s:i, s:f, s:f, s:f, s:i, s:I, s:b, s:s, s:s}", "seed",
                     (json_int_t)s->seed, "temperature", (double)s->temperature, "top_k", s->top_k,
                     "top_p", (double)s->top_p, "min_p", (double)s->min_p, "repeat_penalty",
                     (double)s->repeat_penalty, "repeat_last_n", s->repeat_last, "n_predict",
                     (json_int_t)(ask->generate.max_tokens ? (long)ask->generate.max_tokens : -1),
                     "ignore_eos", ask->generate.ignore_end, "attn", ask->job->server->attn, "ff",
                     ask->job->server->ff);
}

static kh_status end_llama(server_ask *ask)
{
    static const char *const types[] = {"eos", "limit", "word", "limit", "none"};
    json_t *out =
        json_pack("{s:i, s:o, s:o, s:i, s:b, s:s, s:I, s:I, s:o, s:b, s:s, s:s, s:I, s:o}", "index",
                  0, "content", wire_text(ask->text.data, ask->text.size), "tokens",
                  ask->ids_out ? json_incref(ask->ids_out) : json_array(), "id_slot", ask->slot,
                  "stop", 1, "model", ask->job->server->options.alias, "tokens_predicted",
                  (json_int_t)ask->result.tokens, "tokens_evaluated", (json_int_t)ask->count,
                  "generation_settings", settings_of(ask), "truncated", 0, "stop_type",
                  types[ask->result.finish], "stopping_word", "", "tokens_cached",
                  (json_int_t)ask->kept, "timings", timings_of(ask));
    if (ask->entries && !ask->stream)
        json_object_set(out, "completion_probabilities", ask->entries);
    return server_send(ask->job, out);
}

static kh_status end_stream(server_ask *ask, json_t *calls, size_t before)
{
    const char *finish = calls ? "tool_calls" : finish_of(ask);
    size_t said = calls ? before : ask->text.size;
    kh_status status = KH_OK;
    if (said > 0)
        status = send_piece(ask, json_pack("{s:o}", "content", wire_text(ask->text.data, said)),
                            json_null(), NULL);
    if (status == KH_OK && calls)
        status = send_piece(ask, json_pack("{s:O}", "tool_calls", calls), json_null(), NULL);
    KH_TRY(status);
    KH_TRY(send_piece(ask, ask->kind == SERVER_CHAT ? json_object() : json_string(""), json_null(),
                      finish));
    if (!ask->usage) return KH_OK;
    json_t *last = envelope(
        ask, ask->kind == SERVER_CHAT ? "chat.completion.chunk" : "text_completion", json_array());
    json_object_set_new(last, "usage", usage_of(ask));
    json_object_set_new(last, "timings", timings_of(ask));
    return server_send(ask->job, last);
}

static json_t *whole(server_ask *ask, json_t *calls, size_t before)
{
    json_t *choice, *words = wire_text(ask->text.data, calls ? before : ask->text.size);
    json_t *logprobs = logprobs_of(ask, ask->entries);
    const char *finish = calls ? "tool_calls" : finish_of(ask);
    if (ask->kind == SERVER_TEXT) {
        choice = json_pack("{s:i, s:o, s:o, s:s}", "index", 0, "text", words, "logprobs", logprobs,
                           "finish_reason", finish);
    } else {
        json_t *message = json_pack("{s:s, s:o}", "role", "assistant", "content", words);
        if (calls) json_object_set(message, "tool_calls", calls);
        choice = json_pack("{s:i, s:o, s:o, s:s}", "index", 0, "message", message, "logprobs",
                           logprobs, "finish_reason", finish);
    }
    json_t *out = envelope(ask, ask->kind == SERVER_CHAT ? "chat.completion" : "text_completion",
                           json_pack("[o]", choice));
    json_object_set_new(out, "usage", usage_of(ask));
    json_object_set_new(out, "timings", timings_of(ask));
    return out;
}

kh_status server_reply_end(server_ask *ask)
{
    if (ask->logprobs && !ask->entries) ask->entries = json_array();
    if (ask->kind == SERVER_LLAMA) return end_llama(ask);
    size_t before = 0;
    json_t *calls = ask->tools ? calls_of(ask, &before) : NULL;
    kh_status status = ask->stream ? end_stream(ask, calls, before)
                                   : server_send(ask->job, whole(ask, calls, before));
    json_decref(calls);
    return status;
}
