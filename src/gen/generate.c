/* Answering: draw, show, read, again.
 *
 *     logits --sampler--> id --detokenizer--> whole characters --stop strings--> the caller
 *        ^                 |
 *        +---- one step ---+
 *
 * Text is held back while it may still become a stop string, and while a character is unfinished. All
 * memory is taken before the loop (candidates, text buffers, alternatives), so a token costs no
 * allocation. The token that ends an answer is drawn but not read: the session then holds exactly what
 * was said, and a chat goes on from there. */
#include "base/alloc.h"
#include "base/fail.h"
#include "gen/engine.h"
#include "gen/sampler.h"

#include <string.h>

enum { MOST_ALTERNATIVES = 100, TEXT_ROOM = 4096 };

typedef struct answer {
    kh_session *session;
    const kh_generate_options *options;
    kh_sampler sampler;
    kh_detokenizer detokenizer;
    kh_buf text;             /* known characters that were not yet handed over */
    kh_candidate *largest;   /* [alternatives] */
    kh_choice *alternatives; /* [alternatives] */
    size_t alternative_count;
} answer;

static kh_status open_answer(answer *a)
{
    const kh_engine *e = a->session->engine;
    /* an embedding may be padded, a tokenizer may know more: only ids with both are drawn */
    size_t V = (size_t)kh_tokenizer_size(e->model->tokenizer);
    if (V > (size_t)e->model->d.V) V = (size_t)e->model->d.V;
    size_t n = (size_t)(a->options->top_logprobs > 0 ? a->options->top_logprobs : 0);
    if (n > MOST_ALTERNATIVES) n = MOST_ALTERNATIVES;
    a->alternative_count = n < V ? n : V;
    KH_TRY(kh_sampler_open(&a->sampler, &a->options->sampler, e->kern, V));
    KH_TRY(kh_new(&a->largest, a->alternative_count, sizeof *a->largest, "alternatives"));
    KH_TRY(kh_new(&a->alternatives, a->alternative_count, sizeof *a->alternatives, "alternatives"));
    KH_TRY(kh_buf_reserve(&a->text, TEXT_ROOM));
    return kh_buf_reserve(&a->detokenizer.held, 64);
}

static void close_answer(answer *a)
{
    kh_detokenizer_free(&a->detokenizer);
    kh_buf_free(&a->text);
    kh_free(a->alternatives);
    kh_free(a->largest);
    kh_sampler_close(&a->sampler);
}

static void choose(answer *a, kh_choice *chosen)
{
    kh_session *s = a->session;
    size_t V = a->sampler.V;
    chosen->id = kh_sampler_draw(&a->sampler, s->logits, s->tokens, kh_session_length(s));
    double norm = kh_log_sum_exp(a->sampler.kern, a->sampler.scratch, s->logits, V);
    chosen->logprob = (float)((double)s->logits[chosen->id] - norm);
    if (a->alternative_count == 0) return;
    kh_largest(a->largest, a->alternative_count, s->logits, V);
    for (size_t i = 0; i < a->alternative_count; i++)
        a->alternatives[i] = (kh_choice){a->largest[i].id,
                                         (float)((double)a->largest[i].logit - norm)};
}

/* Bytes of the text that can be handed over: all before the first complete stop string (*found), else
 * all but the longest end that may still become one. */
static size_t certain(const answer *a, int *found)
{
    size_t size = a->text.size, first = size;
    const char *text = a->text.data;
    *found = 0;
    for (size_t i = 0; i < a->options->stop_count; i++) {
        const char *stop = a->options->stop[i];
        const char *hit = stop[0] ? memmem(text, size, stop, strlen(stop)) : NULL;
        if (!hit || (size_t)(hit - text) > first) continue;
        first = (size_t)(hit - text);
        *found = 1;
    }
    for (size_t i = 0; i < a->options->stop_count && !*found; i++) {
        size_t n = strlen(a->options->stop[i]);
        size_t at = size >= n ? size - n + (n > 0) : 0;
        while (at < first && memcmp(text + at, a->options->stop[i], size - at) != 0) at++;
        if (at < first) first = at;
    }
    return first;
}

static kh_status hand_over(answer *a, const kh_choice *chosen, size_t size)
{
    kh_status status = KH_OK;
    if (a->options->token)
        status = a->options->token(a->options->context, a->text.data, size, chosen, a->alternatives,
                                   chosen ? a->alternative_count : 0);
    memmove(a->text.data, a->text.data + size, a->text.size - size);
    a->text.size -= size;
    a->text.data[a->text.size] = 0;
    return status;
}

/* Makes room for one more position; KH_FINISH_CONTEXT in *finish when there is none. */
static kh_status make_room(answer *a, int *full)
{
    kh_session *s = a->session;
    size_t length = kh_session_length(s), context = s->engine->context;
    *full = 0;
    if (length < context) return KH_OK;
    size_t keep = a->options->keep < length / 2 ? a->options->keep : length / 2;
    size_t drop = (length - keep) / 2;
    *full = !a->options->context_shift || drop == 0;
    return *full ? KH_OK : kh_session_drop(s, keep, drop);
}

static kh_status answer_loop(answer *a, kh_generate_result *out)
{
    kh_session *s = a->session;
    const kh_generate_options *o = a->options;
    const kh_model *model = s->engine->model;
    unsigned flags = o->special ? KH_TOKENIZE_SPECIAL : 0;
    for (;;) {
        if (o->max_tokens && out->tokens == o->max_tokens) {
            out->finish = KH_FINISH_LENGTH;
            return KH_OK;
        }
        kh_choice chosen;
        choose(a, &chosen);
        if (!o->ignore_end && kh_token_ends(model->tokenizer, chosen.id)) {
            out->finish = KH_FINISH_END;
            return KH_OK;
        }
        int found = 0, full = 0;
        KH_TRY(kh_detokenize(model->tokenizer, &a->detokenizer, &a->text, chosen.id, flags));
        size_t size = certain(a, &found);
        out->tokens++;
        KH_TRY(hand_over(a, &chosen, size));
        if (found) {
            kh_buf_clear(&a->text);
            out->finish = KH_FINISH_STOP;
            return KH_OK;
        }
        KH_TRY(make_room(a, &full));
        if (full) {
            out->finish = KH_FINISH_CONTEXT;
            return KH_OK;
        }
        KH_TRY(kh_session_step(s, &chosen.id, 1, KH_PHASE_DECODE, KH_WANT_LAST, NULL));
    }
}

kh_status kh_generate(kh_session *session, const kh_generate_options *options,
                      kh_generate_result *out)
{
    *out = (kh_generate_result){0};
    if (!session->has_logits)
        KH_FAIL(KH_ERR_STATE, "nothing to answer: the session has not read anything");
    atomic_store(&session->stop, 0);
    double start = kh_cpu_seconds();
    answer a = {.session = session, .options = options};
    kh_status status = open_answer(&a);
    if (status == KH_OK) {
        /* a text that goes on keeps its leading space */
        a.detokenizer.started = 1;
        status = answer_loop(&a, out);
    }
    if (status == KH_ERR_STOPPED) {
        out->finish = KH_FINISH_STOPPED;
        status = KH_OK;
    }
    if (status == KH_OK) status = kh_detokenize_end(&a.detokenizer, &a.text);
    if (status == KH_OK && a.text.size > 0) status = hand_over(&a, NULL, a.text.size);
    close_answer(&a);
    out->seconds = kh_cpu_seconds() - start;
    return status;
}
