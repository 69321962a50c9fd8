/* Base beside edited: the same prompt continued twice, without edits and under them, and how far the edited text's
 * tokens were from what the unedited model would have said.
 *
 * Frames: meta, "base" for each token, "edited" for each token, "compared" for each position from the prompt's last
 * on, done. Both runs have the same sampler and the same seed.
 *
 * Whoever switches one part after the other asks for the same base run each time: where the caller keeps it, it is told
 * again instead of computed again. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <string.h>

enum { MOST_NEW = 4096 };

typedef struct run {
    const wire_ask *ask;
    const char *name;
    int32_t *ids; /* [room] */
    size_t count, room;
    kh_buf text;
    json_t *frames; /* NULL: they are not kept */
} run;

static kh_status take_token(void *context, const char *text, size_t size, const kh_choice *chosen,
                            const kh_choice *alternatives, size_t count)
{
    run *r = context;
    (void)alternatives;
    (void)count;
    KH_TRY(kh_buf_add(&r->text, text, size));
    if (!chosen) return KH_OK;
    json_t *frame = json_pack("{s:s, s:I, s:i, s:o, s:o}", "type", r->name, "index",
                              (json_int_t)r->count, "id", (int)chosen->id, "text",
                              wire_token_text(r->ask->model, chosen->id), "logprob",
                              wire_real((double)chosen->logprob));
    if (r->count < r->room) r->ids[r->count++] = chosen->id;
    if (r->frames) json_array_append(r->frames, frame);
    return wire_send(r->ask, frame);
}

static kh_status read_sampler(kh_generate_options *o, const json_t *body, int64_t *most)
{
    double temperature = 0, top_p = 0.95, min_p = 0.05;
    int64_t seed = 1, top_k = 40;
    *most = 20;
    KH_TRY(wire_get_int(body, "max_tokens", most, 1, MOST_NEW));
    KH_TRY(wire_get_real(body, "temperature", &temperature, 0, 100));
    KH_TRY(wire_get_real(body, "top_p", &top_p, 0, 1));
    KH_TRY(wire_get_real(body, "min_p", &min_p, 0, 1));
    KH_TRY(wire_get_int(body, "seed", &seed, 0, INT64_MAX));
    KH_TRY(wire_get_int(body, "top_k", &top_k, 0, 1 << 20));
    o->max_tokens = (size_t)*most;
    o->sampler.temperature = (float)temperature;
    o->sampler.top_p = (float)top_p;
    o->sampler.min_p = (float)min_p;
    o->sampler.top_k = (int)top_k;
    o->sampler.seed = (uint64_t)seed;
    return KH_OK;
}

/* Continues the prompt under the edits; afterwards the inspector's text is prompt and answer. */
static kh_status answer(run *r, const wire_subject *s, const kh_edit *edits, size_t edit_count,
                        const kh_generate_options *options, double *seconds)
{
    kh_generate_options o = *options;
    kh_generate_result result;
    o.token = take_token;
    o.context = r;
    KH_TRY(kh_new(&r->ids, o.max_tokens, sizeof *r->ids, "tokens"));
    r->room = o.max_tokens;
    KH_TRY(kh_inspector_set(r->ask->inspector, s->ids, s->prompt, s->prompt, edits, edit_count));
    kh_status status = kh_inspector_generate(r->ask->inspector, &o, &result);
    if (status == KH_OK && result.finish == KH_FINISH_STOPPED)
        status = kh_fail(KH_ERR_STOPPED, "stopped");
    *seconds = result.seconds;
    return status;
}

/* ---- a base run that is kept: {"for", "frames", "text", "tokens", "seconds"} ---- */

/* What the run depends on. */
static json_t *key_of(const wire_subject *s, const kh_generate_options *o)
{
    const kh_sampler_options *p = &o->sampler;
    return json_pack("{s:o, s:I, s:f, s:f, s:f, s:i, s:I}", "tokens", wire_ids(s->ids, s->prompt),
                     "max", (json_int_t)o->max_tokens, "temperature", (double)p->temperature,
                     "top_p", (double)p->top_p, "min_p", (double)p->min_p, "top_k", p->top_k,
                     "seed", (json_int_t)p->seed);
}

static kh_status tell_again(run *r, const json_t *kept, const kh_generate_options *o,
                            double *seconds)
{
    const json_t *text = json_object_get(kept, "text"), *frame;
    size_t i;
    KH_TRY(kh_new(&r->ids, o->max_tokens, sizeof *r->ids, "tokens"));
    KH_TRY(kh_buf_add(&r->text, json_string_value(text), json_string_length(text)));
    json_array_foreach(json_object_get(kept, "frames"), i, frame)
    {
        r->ids[r->count++] = (int32_t)json_integer_value(json_object_get(frame, "id"));
        KH_TRY(wire_send(r->ask, json_deep_copy(frame)));
    }
    *seconds = json_number_value(json_object_get(kept, "seconds"));
    return KH_OK;
}

static void keep(const run *r, json_t *key, double seconds)
{
    json_decref(*r->ask->kept);
    *r->ask->kept = json_pack("{s:O, s:O, s:o, s:f}", "for", key, "frames", r->frames, "text",
                              wire_text(r->text.data ? r->text.data : "", r->text.size), "seconds",
                              seconds);
}

static kh_status base_answer(run *r, const wire_subject *s, const kh_generate_options *o,
                             double *seconds)
{
    if (!r->ask->kept) return answer(r, s, NULL, 0, o, seconds);
    json_t *key = key_of(s, o);
    kh_status status;
    if (key && json_equal(json_object_get(*r->ask->kept, "for"), key)) {
        status = tell_again(r, *r->ask->kept, o, seconds);
    } else {
        r->frames = json_array();
        status = answer(r, s, NULL, 0, o, seconds);
        if (status == KH_OK && key && r->frames) keep(r, key, *seconds);
        json_decref(r->frames);
        r->frames = NULL;
    }
    json_decref(key);
    return status;
}

/* ---- what is sent around it ---- */

static kh_status quote(kh_buf *out, const char *text, size_t size)
{
    KH_TRY(kh_buf_text(out, "'"));
    for (size_t i = 0; i < size; i++)
        KH_TRY(text[i] == '\'' ? kh_buf_text(out, "'\\''") : kh_buf_add(out, text + i, 1));
    return kh_buf_text(out, "'");
}

/* The same on the command line. */
static kh_status command(kh_buf *out, const wire_ask *ask, const json_t *edits, int64_t most)
{
    const char *path = kh_model_get_info(ask->model)->path, *prompt = NULL;
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t size = 0;
    int template = 0;
    KH_TRY(kh_buf_text(out, "keyhole edit -m "));
    KH_TRY(quote(out, name, strlen(name)));
    KH_TRY(wire_get_text(ask->body, "prompt", &prompt, &size));
    KH_TRY(wire_get_flag(ask->body, "template", &template));
    if (prompt) {
        KH_TRY(kh_buf_text(out, template ? " --template -p " : " -p "));
        KH_TRY(quote(out, prompt, size));
    }
    for (size_t i = 0; i < json_array_size(edits); i++) {
        const json_t *text = json_array_get(edits, i);
        KH_TRY(kh_buf_text(out, " --edit "));
        KH_TRY(quote(out, json_string_value(text), json_string_length(text)));
    }
    return kh_buf_format(out, " -n %lld", (long long)most);
}

static kh_status edit_texts(json_t **out, const wire_ask *ask, const wire_subject *s)
{
    *out = json_array();
    for (size_t i = 0; i < s->edit_count; i++) {
        char *text = NULL;
        if (s->edits[i].direction.kind == KH_DIRECTION_VECTOR) continue; /* a request's numbers */
        KH_TRY(kh_edit_text(&s->edits[i], ask->model, &text));
        json_array_append_new(*out, wire_text(text, strlen(text)));
        kh_free_text(text);
    }
    return KH_OK;
}

static kh_status send_meta(const wire_ask *ask, const wire_subject *s, int64_t most)
{
    json_t *edits = NULL;
    kh_buf line = {0};
    kh_status status = edit_texts(&edits, ask, s);
    if (status == KH_OK) status = command(&line, ask, edits, most);
    if (status == KH_OK)
        status = wire_send(ask, json_pack("{s:s, s:I, s:O, s:o}", "type", "meta", "prompt_tokens",
                                          (json_int_t)s->prompt, "edits", edits, "command",
                                          wire_text(line.data, line.size)));
    kh_buf_free(&line);
    json_decref(edits);
    return status;
}

static json_t *top_json(const kh_model *model, const kh_lens_token *t)
{
    return json_pack("{s:i, s:o, s:o}", "id", (int)t->id, "text", wire_token_text(model, t->id),
                     "probability", wire_real((double)t->probability));
}

static kh_status send_compared(void *context, const kh_compared *c)
{
    const wire_ask *ask = context;
    return wire_send(ask, json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "type", "compared",
                                    "position", (json_int_t)c->position, "kl", wire_real(c->kl),
                                    "base_top", top_json(ask->model, &c->base_top), "edited_top",
                                    top_json(ask->model, &c->edited_top), "base_next",
                                    wire_real((double)c->base_next), "edited_next",
                                    wire_real((double)c->edited_next)));
}

static json_t *run_json(const run *r)
{
    return json_pack("{s:o, s:o}", "text",
                     wire_text(r->text.data ? r->text.data : "", r->text.size), "tokens",
                     wire_ids(r->ids, r->count));
}

static json_t *divergence(const run *base, const run *edited)
{
    size_t n = 0, least = base->count < edited->count ? base->count : edited->count;
    while (n < least && base->ids[n] == edited->ids[n]) n++;
    return n == base->count && n == edited->count ? json_null() : json_integer((json_int_t)n);
}

static kh_status both(const wire_ask *ask, const wire_subject *s, run *base, run *edited)
{
    double start = wire_seconds(), first = 0, second = 0;
    kh_generate_options o = {0};
    int64_t most;
    KH_TRY(read_sampler(&o, ask->body, &most));
    KH_TRY(send_meta(ask, s, most));
    KH_TRY(base_answer(base, s, &o, &first));
    KH_TRY(answer(edited, s, s->edits, s->edit_count, &o, &second));
    KH_TRY(kh_compare(ask->inspector, s->prompt - 1, send_compared, (void *)(uintptr_t)ask));
    double spent = first + second;
    return wire_send(
        ask,
        json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:I}", "type", "done", "base", run_json(base),
                  "edited", run_json(edited), "divergence", divergence(base, edited), "seconds",
                  wire_real(wire_seconds() - start), "tokens_per_second",
                  wire_real(spent > 0 ? (double)(base->count + edited->count) / spent : 0),
                  "peak_bytes", (json_int_t)kh_peak_memory()));
}

kh_status wire_edit(const wire_ask *ask)
{
    wire_subject s;
    run base = {.ask = ask, .name = "base"}, edited = {.ask = ask, .name = "edited"};
    kh_steering *steering = NULL;
    KH_TRY(wire_subject_read(&s, ask->model, ask->body));
    kh_status status = wire_steer_subject(&s, ask, &steering);
    if (status == KH_OK) status = both(ask, &s, &base, &edited);
    kh_buf_free(&base.text);
    kh_buf_free(&edited.text);
    kh_free(base.ids);
    kh_free(edited.ids);
    wire_subject_free(&s);
    kh_steering_close(steering);
    return status;
}
