/* Answering: draw, show, read, again; one answer, or several whose tokens are read in one pass.
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

enum { MOST_ALTERNATIVES = 100, TEXT_ROOM = 4096, TOGETHER = 64 /* answers of a pass */ };

struct kh_generator {
    kh_session *session;
    kh_generate_options options;
    kh_sampler sampler;
    kh_detokenizer detokenizer;
    kh_buf text;             /* known characters that were not yet handed over */
    kh_candidate *largest;   /* [alternatives] */
    kh_choice *alternatives; /* [alternatives] */
    size_t alternative_count;
    kh_generate_result result;
    double started;
    int done;
    kh_status status; /* of its callback, or of the pass that failed */
};

static kh_status open_answer(kh_generator *a)
{
    const kh_engine *e = a->session->engine;
    /* an embedding may be padded, a tokenizer may know more: only ids with both are drawn */
    size_t V = (size_t)kh_tokenizer_size(e->model->tokenizer);
    if (V > (size_t)e->model->d.V) V = (size_t)e->model->d.V;
    size_t n = (size_t)(a->options.top_logprobs > 0 ? a->options.top_logprobs : 0);
    if (n > MOST_ALTERNATIVES) n = MOST_ALTERNATIVES;
    a->alternative_count = n < V ? n : V;
    KH_TRY(kh_sampler_open(&a->sampler, &a->options.sampler, e->kern, V));
    KH_TRY(kh_new(&a->largest, a->alternative_count, sizeof *a->largest, "alternatives"));
    KH_TRY(kh_new(&a->alternatives, a->alternative_count, sizeof *a->alternatives, "alternatives"));
    KH_TRY(kh_buf_reserve(&a->text, TEXT_ROOM));
    return kh_buf_reserve(&a->detokenizer.held, 64);
}

void kh_generator_close(kh_generator *a)
{
    if (!a) return;
    kh_detokenizer_free(&a->detokenizer);
    kh_buf_free(&a->text);
    kh_free(a->alternatives);
    kh_free(a->largest);
    kh_sampler_close(&a->sampler);
    kh_free(a);
}

static void choose(kh_generator *a, kh_choice *chosen)
{
    kh_session *s = a->session;
    size_t V = a->sampler.V;
    chosen->id = kh_sampler_draw(&a->sampler, s->logits, s->tokens, kh_session_length(s));
    double norm = kh_log_sum_exp(a->sampler.kern, a->sampler.scratch, s->logits, V);
    chosen->logprob = (float)((double)s->logits[chosen->id] - norm);
    chosen->sampled = 0;
    if (a->alternative_count == 0) return;
    chosen->sampled = (float)kh_sampler_share(&a->sampler, chosen->id);
    kh_largest(a->largest, a->alternative_count, s->logits, V);
    for (size_t i = 0; i < a->alternative_count; i++)
        a->alternatives[i] =
            (kh_choice){.id = a->largest[i].id,
                        .logprob = (float)((double)a->largest[i].logit - norm),
                        .sampled = (float)kh_sampler_share(&a->sampler, a->largest[i].id)};
}

/* Bytes of the text that can be handed over: all before the first complete stop string (*found), else
 * all but the longest end that may still become one. */
static size_t certain(const kh_generator *a, int *found)
{
    size_t size = a->text.size, first = size;
    const char *text = a->text.data;
    *found = 0;
    for (size_t i = 0; i < a->options.stop_count; i++) {
        const char *stop = a->options.stop[i];
        const char *hit = stop[0] ? memmem(text, size, stop, strlen(stop)) : NULL;
        if (!hit || (size_t)(hit - text) > first) continue;
        first = (size_t)(hit - text);
        *found = 1;
    }
    for (size_t i = 0; i < a->options.stop_count && !*found; i++) {
        size_t n = strlen(a->options.stop[i]);
        size_t at = size >= n ? size - n + (n > 0) : 0;
        while (at < first && memcmp(text + at, a->options.stop[i], size - at) != 0) at++;
        if (at < first) first = at;
    }
    return first;
}

static kh_status hand_over(kh_generator *a, const kh_choice *chosen, size_t size)
{
    kh_status status = KH_OK;
    if (a->options.token)
        status = a->options.token(a->options.context, a->text.data, size, chosen, a->alternatives,
                                  chosen ? a->alternative_count : 0);
    memmove(a->text.data, a->text.data + size, a->text.size - size);
    a->text.size -= size;
    a->text.data[a->text.size] = 0;
    return status;
}

/* Makes room for one more position; KH_FINISH_CONTEXT in *finish when there is none. */
static kh_status make_room(kh_generator *a, int *full)
{
    kh_session *s = a->session;
    size_t length = kh_session_length(s), context = s->engine->context;
    *full = 0;
    if (length < context) return KH_OK;
    size_t keep = a->options.keep < length / 2 ? a->options.keep : length / 2;
    size_t drop = (length - keep) / 2;
    *full = !a->options.context_shift || drop == 0;
    return *full ? KH_OK : kh_session_drop(s, keep, drop);
}

static kh_status end(kh_generator *a, kh_finish finish)
{
    a->result.finish = finish;
    a->done = 1;
    return KH_OK;
}

/* Draws and shows the next token; the answer is done, or *id is to be read. */
static kh_status draw(kh_generator *a, int32_t *id)
{
    const kh_generate_options *o = &a->options;
    const kh_tokenizer *tokenizer = a->session->engine->model->tokenizer;
    int found = 0, full = 0;
    kh_choice chosen;
    if (o->max_tokens && a->result.tokens == o->max_tokens) return end(a, KH_FINISH_LENGTH);
    choose(a, &chosen);
    if (!o->ignore_end && kh_token_ends(tokenizer, chosen.id)) return end(a, KH_FINISH_END);
    KH_TRY(kh_detokenize(tokenizer, &a->detokenizer, &a->text, chosen.id,
                         o->special ? KH_TOKENIZE_SPECIAL : 0));
    size_t size = certain(a, &found);
    a->result.tokens++;
    KH_TRY(hand_over(a, &chosen, size));
    if (found) {
        kh_buf_clear(&a->text);
        return end(a, KH_FINISH_STOP);
    }
    KH_TRY(make_room(a, &full));
    if (full) return end(a, KH_FINISH_CONTEXT);
    *id = chosen.id;
    return KH_OK;
}

/* An answer that cannot go on keeps its status until it is asked for. */
static void fail(kh_generator *a, kh_status status)
{
    a->done = 1;
    a->status = status == KH_ERR_STOPPED ? KH_OK : status;
    if (status == KH_ERR_STOPPED) a->result.finish = KH_FINISH_STOPPED;
}

static kh_status advance(kh_generator *const *all, size_t count)
{
    kh_generator *going[TOGETHER];
    kh_session *sessions[TOGETHER];
    int32_t ids[TOGETHER];
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (all[i]->done) continue;
        kh_status status = atomic_load(&all[i]->session->stop) ? KH_ERR_STOPPED
                                                               : draw(all[i], &ids[n]);
        if (status != KH_OK) fail(all[i], status);
        if (all[i]->done) continue;
        going[n] = all[i];
        sessions[n++] = all[i]->session;
    }
    kh_status status = n > 0 ? kh_sessions_step(sessions, ids, n) : KH_OK;
    for (size_t i = 0; i < n && status != KH_OK; i++) fail(going[i], status);
    return status == KH_ERR_STOPPED ? KH_OK : status;
}

kh_status kh_generators_advance(kh_generator *const *all, size_t count)
{
    for (size_t done = 0; done < count; done += TOGETHER)
        KH_TRY(advance(all + done, count - done < TOGETHER ? count - done : TOGETHER));
    return KH_OK;
}

kh_status kh_generator_open(kh_generator **out, kh_session *session,
                            const kh_generate_options *options)
{
    kh_generator *a = NULL;
    *out = NULL;
    if (!session->has_logits)
        KH_FAIL(KH_ERR_STATE, "nothing to answer: the session has not read anything");
    atomic_store(&session->stop, 0);
    KH_TRY(kh_new(&a, 1, sizeof *a, "an answer"));
    a->session = session;
    a->options = *options;
    a->started = kh_cpu_seconds();
    kh_status status = open_answer(a);
    if (status != KH_OK) {
        kh_generator_close(a);
        return status;
    }
    a->detokenizer.started = 1; /* a text that goes on keeps its leading space */
    *out = a;
    return KH_OK;
}

int kh_generator_done(const kh_generator *a)
{
    return a->done;
}

kh_status kh_generator_finish(kh_generator *a, kh_generate_result *out)
{
    if (!a->done) fail(a, KH_ERR_STOPPED);
    kh_status status = a->status;
    if (status == KH_OK) status = kh_detokenize_end(&a->detokenizer, &a->text);
    if (status == KH_OK && a->text.size > 0) status = hand_over(a, NULL, a->text.size);
    a->result.seconds = kh_cpu_seconds() - a->started;
    *out = a->result;
    return status;
}

kh_status kh_generate(kh_session *session, const kh_generate_options *options,
                      kh_generate_result *out)
{
    kh_generator *a = NULL;
    *out = (kh_generate_result){0};
    KH_TRY(kh_generator_open(&a, session, options));
    kh_status status = KH_OK;
    while (!a->done && status == KH_OK) status = kh_generators_advance(&a, 1);
    kh_status end_status = kh_generator_finish(a, out);
    kh_generator_close(a);
    return status != KH_OK ? status : end_status;
}
