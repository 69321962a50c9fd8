/* Where two readings part, in JSON: a frame "meta", a frame "row" for every position, "done" with the parts. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <math.h>
#include <string.h>

static json_t *best_json(const kh_model *model, const kh_lens_token *t)
{
    return json_pack("{s:i, s:o, s:o}", "id", (int)t->id, "text", wire_token_text(model, t->id),
                     "probability", wire_real((double)t->probability));
}

static kh_status send_row(void *context, const kh_diff_row *r)
{
    const wire_ask *ask = context;
    return ask->sink.send(ask->sink.context,
                          json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "type", "row",
                                    "position", (json_int_t)r->position, "part",
                                    r->parted ? wire_part_text(&r->part) : json_null(), "distance",
                                    r->parted ? wire_real(r->distance) : json_null(), "last",
                                    wire_real(r->last), "kl", wire_real(r->kl), "a_top",
                                    best_json(ask->model, &r->a), "b_top",
                                    best_json(ask->model, &r->b)));
}

static kh_status send_meta(const wire_ask *ask, kh_inspector *other, const char *files[2],
                           double threshold)
{
    return ask->sink.send(
        ask->sink.context,
        json_pack(
            "{s:s, s:{s:s, s:s, s:o}, s:{s:s, s:s, s:o}, s:f}", "type", "meta", "a", "file",
            files[0], "attn", kh_inspector_attn(ask->inspector), "tokens",
            wire_text_tokens(ask->model, kh_inspector_tokens(ask->inspector),
                             kh_inspector_length(ask->inspector)),
            "b", "file", files[1], "attn", kh_inspector_attn(other), "tokens",
            wire_text_tokens(ask->model, kh_inspector_tokens(other), kh_inspector_length(other)),
            "threshold", threshold));
}

static kh_status send_done(const wire_ask *ask, const kh_diff *d, double start)
{
    json_t *parts = json_array();
    for (size_t i = 0; i < d->count; i++)
        json_array_append_new(
            parts, json_pack("{s:o, s:o, s:o}", "part", wire_part_text(&d->parts[i].part), "apart",
                             wire_real(d->parts[i].apart), "own", wire_real(d->parts[i].own)));
    json_t *first = d->parted
                        ? json_pack("{s:I, s:o, s:o}", "position", (json_int_t)d->first.position,
                                    "part", wire_part_text(&d->first.part), "distance",
                                    wire_real(d->first.distance))
                        : json_null();
    return ask->sink.send(ask->sink.context,
                          json_pack("{s:s, s:o, s:o, s:o, s:I, s:o, s:o}", "type", "done", "first",
                                    first, "mean_kl", wire_real(d->mean_kl), "most_kl",
                                    wire_real(d->most_kl), "most_position",
                                    (json_int_t)d->most_position, "parts", parts, "seconds",
                                    wire_real(wire_seconds() - start)));
}

kh_status wire_diff(const wire_ask *ask, kh_inspector *other, const char *a, const char *b)
{
    double start = wire_seconds(), threshold = 0.05;
    const char *files[] = {a, b};
    wire_subject s, second = {0};
    kh_diff diff;
    KH_TRY(wire_get_real(ask->body, "threshold", &threshold, 1e-9, 1e9));
    kh_diff_options o = {
        .threshold = threshold, .row = send_row, .context = (void *)(uintptr_t)ask};
    KH_TRY(wire_get_flag(ask->body, "no_own", &o.no_own));
    KH_TRY(wire_subject_read(&s, ask->model, ask->body));
    kh_status status = KH_OK;
    int prompts = wire_member(ask->body, "other") != NULL;
    if (prompts) status = wire_named_subject(&second, ask, "other");
    const wire_subject *of_b = prompts ? &second : &s;
    if (status == KH_OK)
        status = kh_inspector_set(ask->inspector, s.ids, s.count, s.prompt, s.edits, s.edit_count);
    if (status == KH_OK)
        status = kh_inspector_set(other, of_b->ids, of_b->count, of_b->prompt, s.edits,
                                  s.edit_count);
    wire_subject_free(&s);
    wire_subject_free(&second);
    KH_TRY(status);
    KH_TRY(send_meta(ask, other, files, threshold));
    KH_TRY(kh_diff_open(&diff, ask->inspector, other, &o));
    status = send_done(ask, &diff, start);
    kh_diff_free(&diff);
    return status;
}
