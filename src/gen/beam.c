/* Beam search: the most probable answer among those that stay within the best few at every step.
 *
 *     step   every living beam's log-probabilities + its sum  ->  the 2 B best continuations, best first
 *            an end among the first B           a finished answer, worth sum / length ^ penalty
 *            others, until there are B          the beams of the next step
 *     stop   B answers are finished, and no living beam can still be worth more than the least of them
 *            (its own worth at its present length bounds it, as the reference supposes)
 *
 * Length counts generated tokens, the end included. A beam is a fork of the session: its prefix, and a source's
 * keys and values, are shared. A parent's session goes on as its first child; further children are forked
 * before any of them reads its token.
 *
 * Reference: transformers' beam search with early_stopping = False. Ties go to the better beam, then to the
 * lower id. */
#include "gen/engine.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "gen/sampler.h"

#include <math.h>
#include <string.h>

enum { MOST_BEAMS = 64 };

typedef struct beam {
    kh_session *session;
    int32_t *ids; /* [length] generated */
    double sum;   /* of log-probabilities */
} beam;

typedef struct candidate {
    size_t parent;
    int32_t id;
    double sum;
} candidate;

typedef struct search {
    const kh_beam_options *options;
    const kh_model *model;
    const kh_kern *kern;
    float *scratch; /* [V] */
    size_t B, V, length, most;
    beam living[MOST_BEAMS];
    size_t living_count;
    candidate best[2 * MOST_BEAMS];
    size_t best_count;
    struct {
        int32_t *ids;
        size_t length;
        double worth;
    } finished[MOST_BEAMS];
    size_t finished_count;
} search;

static double worth(const search *s, double sum, size_t length)
{
    return sum / pow((double)length, (double)s->options->length_penalty);
}

/* Into the list of the 2 B best, behind its equals. */
static void offer(search *s, candidate c)
{
    size_t room = 2 * s->B, at = s->best_count;
    if (at == room && !(c.sum > s->best[at - 1].sum)) return;
    if (at < room)
        s->best_count++;
    else
        at--;
    while (at > 0 && c.sum > s->best[at - 1].sum) {
        s->best[at] = s->best[at - 1];
        at--;
    }
    s->best[at] = c;
}

static void rank(search *s)
{
    s->best_count = 0;
    for (size_t b = 0; b < s->living_count; b++) {
        const float *x = kh_session_logits(s->living[b].session);
        double all = kh_log_sum_exp(s->kern, s->scratch, x, s->V);
        for (size_t v = 0; v < s->V; v++)
            offer(s, (candidate){b, (int32_t)v, s->living[b].sum + (double)x[v] - all});
    }
}

static kh_status copy_ids(int32_t **out, const int32_t *ids, size_t n, int32_t last)
{
    KH_TRY(kh_new(out, n + 1, sizeof **out, "a beam"));
    if (n > 0) memcpy(*out, ids, n * sizeof *ids);
    (*out)[n] = last;
    return KH_OK;
}

static size_t least_finished(const search *s)
{
    size_t least = 0;
    for (size_t i = 1; i < s->finished_count; i++)
        if (s->finished[i].worth < s->finished[least].worth) least = i;
    return least;
}

/* Keeps the B best answers; the first of equals stays. */
static kh_status finish(search *s, const int32_t *ids, size_t n, int32_t last, double sum)
{
    double value = worth(s, sum, n + 1);
    size_t at = s->finished_count;
    if (at == s->B) {
        at = least_finished(s);
        if (!(value > s->finished[at].worth)) return KH_OK;
        kh_free(s->finished[at].ids);
    } else {
        s->finished_count++;
    }
    s->finished[at].ids = NULL;
    s->finished[at].length = n + 1;
    s->finished[at].worth = value;
    return copy_ids(&s->finished[at].ids, ids, n, last);
}

static int is_done(const search *s)
{
    if (s->finished_count < s->B) return 0;
    double hope = s->living_count ? worth(s, s->living[0].sum, s->length) : (double)-INFINITY;
    return s->finished[least_finished(s)].worth >= hope;
}

static void close_beams(beam *beams, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        kh_session_close(beams[i].session);
        kh_free(beams[i].ids);
    }
}

/* The chosen continuations become the living beams. */
static kh_status go_on(search *s, const candidate *chosen, size_t n)
{
    beam next[MOST_BEAMS] = {{0}};
    kh_session *parents[MOST_BEAMS];
    kh_status status = KH_OK;
    for (size_t b = 0; b < s->living_count; b++) parents[b] = s->living[b].session;
    for (size_t i = 0; i < n && status == KH_OK; i++) {
        beam *from = &s->living[chosen[i].parent];
        next[i].sum = chosen[i].sum;
        if (from->session) {
            next[i].session = from->session;
            from->session = NULL;
        } else {
            status = kh_session_fork(&next[i].session, parents[chosen[i].parent]);
        }
        if (status == KH_OK) status = copy_ids(&next[i].ids, from->ids, s->length, chosen[i].id);
    }
    close_beams(s->living, s->living_count);
    memcpy(s->living, next, sizeof next);
    s->living_count = n;
    s->length++;
    return status;
}

static kh_status read_all(search *s)
{
    for (size_t b = 0; b < s->living_count; b++)
        KH_TRY(kh_session_read(s->living[b].session, &s->living[b].ids[s->length - 1], 1, NULL));
    return KH_OK;
}

static kh_status step(search *s)
{
    candidate chosen[MOST_BEAMS];
    size_t n = 0;
    rank(s);
    for (size_t i = 0; i < s->best_count && n < s->B; i++) {
        const candidate *c = &s->best[i];
        if (!kh_model_ends(s->model, c->id))
            chosen[n++] = *c;
        else if (i < s->B)
            KH_TRY(finish(s, s->living[c->parent].ids, s->length, c->id, c->sum));
    }
    return go_on(s, chosen, n);
}

static kh_status search_all(search *s)
{
    for (;;) {
        KH_TRY(step(s));
        if (is_done(s) || s->living_count == 0) break;
        if (s->length == s->most) {
            for (size_t b = 0; b < s->living_count; b++)
                KH_TRY(finish(s, s->living[b].ids, s->length - 1, s->living[b].ids[s->length - 1],
                              s->living[b].sum));
            break;
        }
        KH_TRY(read_all(s));
    }
    return KH_OK;
}

kh_status kh_generate_beam(kh_session *session, const kh_beam_options *options, int32_t **ids,
                           size_t *count, double *score)
{
    *ids = NULL;
    *count = 0;
    size_t left = kh_session_context(session) - kh_session_length(session);
    if (options->beams < 1 || options->beams > MOST_BEAMS)
        KH_FAIL(KH_ERR_ARGUMENT, "%zu beams: 1 to %d are expected", options->beams, MOST_BEAMS);
    if (!kh_session_logits(session)) KH_FAIL(KH_ERR_STATE, "nothing was read yet");
    search *s = NULL;
    KH_TRY(kh_new(&s, 1, sizeof *s, "a beam search"));
    s->options = options;
    s->model = session->engine->model;
    s->kern = session->engine->kern;
    s->B = options->beams;
    s->V = (size_t)s->model->d.V;
    s->most = options->max_tokens && options->max_tokens < left ? options->max_tokens : left;
    s->living_count = 1;
    kh_status status = s->most > 0 ? kh_session_fork(&s->living[0].session, session)
                                   : kh_fail(KH_ERR_CONTEXT, "the context is full");
    if (status == KH_OK) status = kh_new(&s->scratch, s->V, sizeof *s->scratch, "a beam search");
    if (status == KH_OK) status = search_all(s);
    close_beams(s->living, s->living_count);
    size_t best = 0;
    for (size_t i = 1; i < s->finished_count; i++)
        if (s->finished[i].worth > s->finished[best].worth) best = i;
    for (size_t i = 0; i < s->finished_count; i++)
        if (i != best || status != KH_OK) kh_free(s->finished[i].ids);
    if (status == KH_OK) {
        *ids = s->finished[best].ids;
        *count = s->finished[best].length;
        if (score) *score = s->finished[best].worth;
    }
    kh_free(s->scratch);
    kh_free(s);
    return status;
}
