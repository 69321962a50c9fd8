/* Numbers that move with the steps of a run.
 *
 * Steps count from 1, as updates do. The warm-up reaches its peak at the step that it is named after, which makes
 * the square-root schedule Long Range Arena's formula as it is written,
 *
 *     base * min(1, step / warmup) / sqrt(max(step, warmup))
 *
 * and its peak base / sqrt(warmup). Schedules that fall reach their floor one step behind the last: a last step
 * with rate 0 would be computed for nothing. Without warm-up they are those of the transformers library, whose
 * steps count from 0.
 *
 * A moving k is part of a plan's text (attn/plan.c, ff): the text of a step is made here by putting the number in its
 * place, and the plan is parsed again when the text changed. So every plan that has a number has a schedule for
 * it, and the grammar of plans knows nothing of steps. */
#include "train/schedule.h"

#include "base/fail.h"
#include "base/named.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WARMUP                                                                                     \
    {                                                                                              \
        "warmup", KH_NAMED_WHOLE, offsetof(kh_schedule, warmup), 0, 0, 1e15, NULL                  \
    }
static const kh_named_value level[] = {WARMUP, {.name = NULL}};
static const kh_named_value falling[] = {
    WARMUP,
    {"floor", KH_NAMED_REAL, offsetof(kh_schedule, floor), 0, 0, 1, NULL},
    {"steps", KH_NAMED_WHOLE, offsetof(kh_schedule, steps), 0, 0, 1e15, NULL},
    {.name = NULL}};
static const kh_named_form forms[] = {[KH_SCHEDULE_CONSTANT] = {"constant", level},
                                      [KH_SCHEDULE_LINEAR] = {"linear", falling},
                                      [KH_SCHEDULE_COSINE] = {"cosine", falling},
                                      [KH_SCHEDULE_RSQRT] = {"rsqrt", level},
                                      {.name = NULL}};

kh_status kh_schedule_parse(kh_schedule *out, const char *text, double base, uint64_t steps)
{
    int form = 0;
    *out = (kh_schedule){.base = base};
    if (!(isfinite(base) && base >= 0))
        KH_FAIL(KH_ERR_ARGUMENT, "schedule '%s': the learning rate is %g, expected a number from 0",
                text, base);
    KH_TRY(kh_named_parse(&form, out, text, "schedule", forms));
    out->kind = (enum kh_schedule_kind)form;
    if (out->steps <= 0) out->steps = (double)steps;
    if (forms[form].values == falling && out->steps < 1)
        KH_FAIL(KH_ERR_ARGUMENT, "schedule '%s': the run has no number of steps; give steps=N",
                text);
    return KH_OK;
}

double kh_schedule_rate(const kh_schedule *s, uint64_t step)
{
    double t = (double)step, peak = s->warmup > 1 ? s->warmup : 1;
    double up = t < peak ? t / peak : 1;
    if (s->kind == KH_SCHEDULE_CONSTANT) return s->base * up;
    if (s->kind == KH_SCHEDULE_RSQRT) return s->base * up / sqrt(t > peak ? t : peak);
    if (t <= peak) return s->base * up;
    double p = t > s->steps ? 1 : (t - peak) / (s->steps + 1 - peak);
    double left = s->kind == KH_SCHEDULE_LINEAR ? 1 - p
                                                : 0.5 * (1 + cos(3.14159265358979323846 * p));
    return s->base * (s->floor + (1 - s->floor) * left);
}

/* ---- whole numbers that move ---- */

static const char *skip_spaces(const char *text)
{
    return text + strspn(text, " ");
}

/* A whole number from 1, at most a billion; NULL where there is none. */
static const char *count(int64_t *out, const char *text)
{
    char *end;
    if (!isdigit((unsigned char)*text)) return NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || value < 1 || value > 1000000000) return NULL;
    *out = value;
    return end;
}

static const char *parse_steps(int64_t *steps, const char *at)
{
    static const char over[] = "over ", word[] = "steps";
    const char *words = skip_spaces(at);
    if (*at == '/') return count(steps, at + 1);
    if (strncmp(words, over, sizeof over - 1) != 0) return NULL;
    const char *end = count(steps, skip_spaces(words + sizeof over - 1));
    if (!end) return NULL;
    end = skip_spaces(end);
    return strncmp(end, word, sizeof word - 1) == 0 ? end + sizeof word - 1 : NULL;
}

kh_status kh_moving_parse(kh_moving *out, const char *text, const char **end)
{
    int64_t from = 0, to = 0, steps = 0;
    const char *at = text + strspn(text, "0123456789");
    *end = text;
    *out = (kh_moving){0};
    if (at == text) return KH_OK;
    if (strncmp(at, "x2..", 4) == 0) {
        out->kind = KH_MOVING_DOUBLE;
        at += 2;
    }
    if (strncmp(at, "..", 2) != 0) return KH_OK;
    at = count(&from, text) ? count(&to, at + 2) : NULL;
    if (at) at = parse_steps(&steps, at);
    if (!at)
        KH_FAIL(KH_ERR_ARGUMENT,
                "'%s': a number that moves is written 16..128/1000 (in even steps), "
                "16x2..128/1000 (doubled) or '16..128 over 1000 steps', whole numbers from 1",
                text);
    out->from = from;
    out->to = to;
    out->steps = (uint64_t)steps;
    *end = at;
    return KH_OK;
}

/* How often `least` is doubled until it is no less than `most`. */
static uint64_t doublings(int64_t least, int64_t most)
{
    uint64_t n = 0;
    while (least << n < most) n++;
    return n;
}

int64_t kh_moving_at(const kh_moving *m, uint64_t step)
{
    if (step >= m->steps) return m->to;
    uint64_t before = step > 1 ? step - 1 : 0;
    if (m->kind == KH_MOVING_DOUBLE) {
        int up = m->to > m->from;
        uint64_t n = up ? doublings(m->from, m->to) : doublings(m->to, m->from);
        uint64_t done = before * n / m->steps;
        return up ? m->from << done : m->from >> done;
    }
    return m->from + (m->to - m->from) * (int64_t)before / (int64_t)(m->steps - 1);
}

kh_status kh_moving_expand(kh_buf *out, const char *text, uint64_t step)
{
    for (const char *at = text; *at;) {
        kh_moving m;
        const char *end = at;
        int starts = at == text || !(isalnum((unsigned char)at[-1]) || at[-1] == '.');
        if (starts) KH_TRY(kh_moving_parse(&m, at, &end));
        if (end > at) {
            KH_TRY(kh_buf_format(out, "%" PRId64, kh_moving_at(&m, step)));
            at = end;
        } else {
            KH_TRY(kh_buf_add(out, at++, 1));
        }
    }
    return kh_buf_add(out, "", 0);
}
