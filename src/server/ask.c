/* What a request wants of the sampler and of an answer's length and form.
 *
 * Three dialects, one reader: OpenAI's chat and completions, and llama-server's completion. Names that a dialect does not
 * have are not looked at; names that mean something which is not done here are refused in a sentence, because an
 * answer that silently ignores "response_format" is a wrong answer. Defaults are those of the program
 * (kh_sampler_defaults), as llama-server's are its own.
 *
 * Nothing of a model but its vocabulary is needed, so a fuzzer runs this alone. */
#include "base/alloc.h"
#include "base/fail.h"
#include "server/server_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STOPS = 32, MOST_BIAS = 4096, MOST_LOGPROBS = 100, MOST_TOKENS = 1 << 24 };

void server_ask_free(server_ask *ask)
{
    if (!ask) return;
    kh_free(ask->ids);
    kh_free(ask->bias);
    kh_free(ask->stops);
    kh_buf_free(&ask->text);
    json_decref(ask->entries);
    json_decref(ask->ids_out);
    kh_free(ask);
}

static kh_status parse_sampler(kh_sampler_options *s, const json_t *body)
{
    double temperature = (double)s->temperature, top_p = (double)s->top_p, min_p = (double)s->min_p;
    double penalty = (double)s->repeat_penalty;
    int64_t top_k = s->top_k, last = s->repeat_last, seed = -1;
    KH_TRY(wire_get_real(body, "temperature", &temperature, 0, 100));
    KH_TRY(wire_get_real(body, "top_p", &top_p, 0, 1));
    KH_TRY(wire_get_real(body, "min_p", &min_p, 0, 1));
    KH_TRY(wire_get_int(body, "top_k", &top_k, -1, 1 << 30));
    KH_TRY(wire_get_real(body, "repeat_penalty", &penalty, 0, 100));
    KH_TRY(wire_get_int(body, "repeat_last_n", &last, -1, MOST_TOKENS));
    KH_TRY(wire_get_int(body, "seed", &seed, INT64_MIN, INT64_MAX));
    s->temperature = (float)temperature;
    s->top_p = (float)top_p;
    s->min_p = (float)min_p;
    s->top_k = top_k < 0 ? 0 : (int)top_k;
    s->repeat_penalty = last == 0 ? 1.0f : (float)penalty;
    s->repeat_last = (int)last;
    s->seed = seed == -1 ? kh_random_seed() : (uint64_t)seed;
    return KH_OK;
}

static kh_status add_bias(server_ask *ask, int64_t id, const json_t *value, int vocabulary)
{
    char text[80];
    float bias = (float)json_number_value(value);
    if (json_is_false(value)) bias = -INFINITY;
    if ((!json_is_number(value) && !json_is_false(value)) || isnan(bias))
        KH_FAIL(KH_ERR_ARGUMENT, "logit_bias: a number is expected, found %s",
                wire_show(value, text, sizeof text));
    if (id < 0 || id >= vocabulary)
        KH_FAIL(KH_ERR_ARGUMENT, "logit_bias: %lld is no token of this model (0 to %d)",
                (long long)id, vocabulary - 1);
    size_t at = ask->generate.sampler.bias_count++;
    ask->bias[at] = (kh_logit_bias){(int32_t)id, bias};
    return KH_OK;
}

/* {"15043": 1.5}, or [[15043, 1.5], [42, false]] */
static kh_status parse_bias(server_ask *ask, const json_t *body, int vocabulary)
{
    const json_t *given = wire_member(body, "logit_bias"), *value;
    size_t n = json_is_array(given) ? json_array_size(given) : json_object_size(given);
    const char *key;
    if (!given || n == 0) return KH_OK;
    if (n > MOST_BIAS) KH_FAIL(KH_ERR_ARGUMENT, "logit_bias: at most %d entries", MOST_BIAS);
    KH_TRY(kh_new(&ask->bias, n, sizeof *ask->bias, "the logit biases"));
    ask->generate.sampler.bias = ask->bias;
    for (size_t i = 0; json_is_array(given) && i < n; i++) {
        const json_t *pair = json_array_get(given, i), *id = json_array_get(pair, 0);
        if (json_array_size(pair) != 2 || !json_is_integer(id))
            KH_FAIL(KH_ERR_ARGUMENT, "logit_bias: entry %zu: [id, bias] is expected", i);
        KH_TRY(add_bias(ask, json_integer_value(id), json_array_get(pair, 1), vocabulary));
    }
    /* the cast is jansson's: its iterators take no const */
    json_object_foreach((json_t *)(uintptr_t)given, key, value)
    {
        char *end = NULL;
        long id = strtol(key, &end, 10);
        if (!*key || *end) KH_FAIL(KH_ERR_ARGUMENT, "logit_bias: '%.40s' is no token id", key);
        KH_TRY(add_bias(ask, id, value, vocabulary));
    }
    return KH_OK;
}

static kh_status parse_stops(server_ask *ask, const json_t *body)
{
    const json_t *given = wire_member(body, "stop");
    if (!given) return KH_OK;
    size_t n = json_is_array(given) ? json_array_size(given) : 1;
    if (n > MOST_STOPS) KH_FAIL(KH_ERR_ARGUMENT, "stop: at most %d texts", MOST_STOPS);
    KH_TRY(kh_new(&ask->stops, n + 1, sizeof *ask->stops, "the stop texts"));
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(given) ? json_array_get(given, i) : given;
        if (!json_is_string(one) || json_string_length(one) > 1024)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "stop: a text of at most 1,024 bytes, or an array of them, is expected");
        if (json_string_length(one) > 0)
            ask->stops[ask->generate.stop_count++] = json_string_value(one);
    }
    ask->generate.stop = ask->stops;
    return KH_OK;
}

static kh_status refuse_what_is_not_done(const json_t *body)
{
    static const char *const numbers[] = {"frequency_penalty", "presence_penalty"};
    static const char *const others[] = {"grammar", "json_schema", "suffix", "input_extra"};
    const json_t *format = wire_member(body, "response_format");
    if (wire_member(body, "debug"))
        KH_FAIL(KH_ERR_ARGUMENT,
                "debug: answers are not looked into on the way; /v1/lens/prompt and /v1/edit take "
                "their "
                "tokens (return_tokens, or the ids of logprobs), or generate them");
    const char *type = json_string_value(json_object_get(format, "type"));
    int64_t n = 1, best = 1;
    int echo = 0;
    if (format && (!type || strcmp(type, "text") != 0))
        KH_FAIL(
            KH_ERR_ARGUMENT,
            "response_format: only \"text\" is answered; output is not constrained to a schema");
    KH_TRY(wire_get_int(body, "n", &n, 1, 1 << 20));
    KH_TRY(wire_get_int(body, "best_of", &best, 1, 1 << 20));
    if (n > 1 || best > 1)
        KH_FAIL(KH_ERR_ARGUMENT, "n: one answer is given to a request; send several requests");
    KH_TRY(wire_get_flag(body, "echo", &echo));
    if (echo) KH_FAIL(KH_ERR_ARGUMENT, "echo: the prompt is not part of an answer");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        double value = 0;
        KH_TRY(wire_get_real(body, numbers[i], &value, -HUGE_VAL, HUGE_VAL));
        if (value != 0)
            KH_FAIL(KH_ERR_ARGUMENT, "%s: only 0 is supported; repeat_penalty is", numbers[i]);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (wire_member(body, others[i]))
            KH_FAIL(KH_ERR_ARGUMENT, "%s: this is not supported", others[i]);
    return KH_OK;
}

/* Alternatives: chat asks with logprobs: true and top_logprobs, completions with logprobs: n, llama-server's
 * with n_probs. */
static kh_status parse_logprobs(server_ask *ask, const json_t *body)
{
    int64_t n = 0;
    if (ask->kind == SERVER_CHAT) {
        KH_TRY(wire_get_flag(body, "logprobs", &ask->logprobs));
        KH_TRY(wire_get_int(body, "top_logprobs", &n, 0, MOST_LOGPROBS));
        if (n > 0 && !ask->logprobs)
            KH_FAIL(KH_ERR_ARGUMENT, "top_logprobs: it needs logprobs to be true");
    } else if (ask->kind == SERVER_TEXT) {
        ask->logprobs = wire_member(body, "logprobs") != NULL;
        if (json_is_boolean(wire_member(body, "logprobs")))
            KH_TRY(wire_get_flag(body, "logprobs", &ask->logprobs));
        else
            KH_TRY(wire_get_int(body, "logprobs", &n, 0, MOST_LOGPROBS));
    } else {
        KH_TRY(wire_get_int(body, "n_probs", &n, 0, MOST_LOGPROBS));
        ask->logprobs = n > 0;
        KH_TRY(wire_get_flag(body, "return_tokens", &ask->tokens));
    }
    KH_TRY(wire_get_flag(body, "post_sampling_probs", &ask->after));
    ask->generate.top_logprobs = (int)n;
    return KH_OK;
}

kh_status server_ask_parse(server_ask *ask, const json_t *body, const kh_model *model)
{
    int64_t most = -1, again = -1;
    const json_t *stream = NULL;
    ask->generate.sampler = kh_sampler_defaults();
    ask->cache = 1;
    KH_TRY(refuse_what_is_not_done(body));
    KH_TRY(parse_sampler(&ask->generate.sampler, body));
    KH_TRY(parse_bias(ask, body, kh_model_get_info(model)->vocabulary));
    KH_TRY(parse_stops(ask, body));
    KH_TRY(parse_logprobs(ask, body));
    KH_TRY(wire_get_flag(body, "ignore_eos", &ask->generate.ignore_end));
    KH_TRY(wire_get_flag(body, "stream", &ask->stream));
    KH_TRY(wire_get_flag(body, "cache_prompt", &ask->cache));
    KH_TRY(wire_get_object(body, "stream_options", &stream));
    if (stream) KH_TRY(wire_get_flag(stream, "include_usage", &ask->usage));
    KH_TRY(wire_get_int(body, "max_tokens", &most, -1, MOST_TOKENS));
    KH_TRY(wire_get_int(body, "n_predict", &most, -2, MOST_TOKENS));
    KH_TRY(wire_get_int(body, "max_completion_tokens", &again, -1, MOST_TOKENS));
    if (again >= 0) most = again;
    if (most == 0) KH_FAIL(KH_ERR_ARGUMENT, "max_tokens: at least 1 is expected");
    ask->generate.max_tokens = most > 0 ? (size_t)most : 0;
    ask->generate.token = server_reply_token;
    ask->generate.context = ask;
    return KH_OK;
}
