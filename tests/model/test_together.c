/* Answers that grow together: every token, logit and observed row is what it is alone, whatever the others are. The
 * truth is each session on its own. */
#include "base/alloc.h"
#include "support/golden_run.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { LANES = 5, T = 200, STEPS = 70 };

static int32_t ids[T];

typedef struct lane {
    kh_session *session;
    kh_generator *generator;
    kh_probe probe;
    int32_t tokens[STEPS];
    float logprobs[STEPS];
    size_t count, rows, attention, calls;
    double seen; /* a sum over observed rows */
    size_t fail_at;
} lane;

static kh_status on_token(void *context, const char *text, size_t size, const kh_choice *chosen,
                          const kh_choice *alternatives, size_t count)
{
    lane *l = context;
    (void)text;
    (void)size;
    if (!chosen) return KH_OK;
    assert_int_equal(count, 3);
    assert_int_equal(alternatives[0].id, chosen->id);
    assert_true(fabsf(chosen->sampled - 1.0f) < 1e-6f && alternatives[1].sampled == 0.0f);
    l->logprobs[l->count] = chosen->logprob;
    l->tokens[l->count++] = chosen->id;
    return l->fail_at && l->count == l->fail_at ? KH_ERR_IO : KH_OK;
}

static void on_point(void *context, kh_point point, int layer, float *data, size_t rows,
                     size_t width)
{
    lane *l = context;
    (void)layer;
    assert_int_equal(rows, 1);
    l->rows += rows;
    l->calls++;
    for (size_t i = 0; i < width; i++) l->seen += fabs((double)data[i]);
    assert_true(point == KH_POINT_RESID_POST || point == KH_POINT_LOGITS || point == KH_POINT_Z);
}

static void on_row(void *context, const kh_attn_row *row)
{
    lane *l = context;
    assert_int_equal(row->row, 0);
    assert_int_equal(row->position, (int32_t)kh_session_length(l->session));
    l->attention++;
}

static void observe(lane *l)
{
    l->probe = (kh_probe){.context = l,
                          .points = UINT64_C(1) << KH_POINT_RESID_POST | UINT64_C(1) << KH_POINT_Z |
                                    UINT64_C(1) << KH_POINT_LOGITS |
                                    UINT64_C(1) << KH_POINT_ATTN_ROWS,
                          .point = on_point,
                          .rows = on_row};
    kh_session_observe(l->session, &l->probe);
}

static size_t start_of(size_t i)
{
    static const size_t lengths[LANES] = {3, 130, 17, 64, 1};
    return lengths[i];
}

static void open_lane(lane *l, kh_session *session, size_t i)
{
    kh_generate_options g = {.max_tokens = STEPS - 7 * i,
                             .ignore_end = 1,
                             .top_logprobs = 3,
                             .token = on_token,
                             .context = l};
    *l = (lane){.session = session};
    GOOD(kh_session_read(session, ids + 5 * i, start_of(i), NULL));
    if (i % 2) observe(l);
    GOOD(kh_generator_open(&l->generator, session, &g));
}

static void same(const lane *a, const lane *b, size_t V, const char *what)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        if (a->tokens[i] != b->tokens[i] ||
            !(fabs((double)a->logprobs[i] - (double)b->logprobs[i]) < 1e-4))
            fail_msg("%s: token %zu is %d (%g) alone, %d (%g) together", what, i, a->tokens[i],
                     (double)a->logprobs[i], b->tokens[i], (double)b->logprobs[i]);
    }
    assert_int_equal(kh_session_length(a->session), kh_session_length(b->session));
    assert_memory_equal(kh_session_tokens(a->session), kh_session_tokens(b->session),
                        kh_session_length(a->session) * sizeof(int32_t));
    double gap = relative_distance(kh_session_logits(a->session), kh_session_logits(b->session), V);
    if (!(gap <= 1e-5)) fail_msg("%s: logits differ by %g", what, gap);
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->calls, b->calls);
    assert_int_equal(a->attention, b->attention);
    assert_true(fabs(a->seen - b->seen) <= 1e-5 * fabs(a->seen));
}

static void answers_are_what_they_are_alone(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "qwen3", "gemma3"};
    static const char *const attns[] = {"full", "topk:k=5", "prefill=full;decode=topk:k=9"};
    for (size_t m = 0; m < 9; m++) {
        kh_model *model = open_tiny(names[m / 3], ids, T, 77);
        size_t V = (size_t)kh_model_get_info(model)->vocabulary;
        kh_session_options so = {.precision = KH_PRECISION_F32,
                                 .k_type = KH_CACHE_F32,
                                 .v_type = KH_CACHE_F32,
                                 .threads = 2,
                                 .context = 256,
                                 .longer = 1,
                                 .attn = attns[m % 3],
                                 .forks = LANES};
        kh_session *root = open_session(model, &so), *fork = NULL;
        lane alone[LANES], with[LANES];
        kh_generator *all[LANES];
        for (size_t i = 0; i < LANES; i++) {
            open_lane(&alone[i], open_session(model, &so), i);
            while (!kh_generator_done(alone[i].generator))
                GOOD(kh_generators_advance(&alone[i].generator, 1));
            GOOD(kh_session_fork(&fork, root));
            open_lane(&with[i], fork, i);
            all[i] = with[i].generator;
        }
        for (size_t step = 0; step < STEPS + 1; step++) GOOD(kh_generators_advance(all, LANES));
        for (size_t i = 0; i < LANES; i++) {
            kh_generate_result result;
            assert_true(kh_generator_done(with[i].generator));
            GOOD(kh_generator_finish(with[i].generator, &result));
            assert_int_equal(result.finish, KH_FINISH_LENGTH);
            assert_int_equal(result.tokens, STEPS - 7 * i);
            same(&alone[i], &with[i], V, names[m / 3]);
            kh_generator_close(with[i].generator);
            kh_generator_close(alone[i].generator);
            kh_session_close(with[i].session);
            kh_session_close(alone[i].session);
        }
        kh_session_close(root);
        kh_model_close(model);
    }
}

static void one_that_ends_leaves_the_others(void **state)
{
    (void)state;
    kh_model *model = open_tiny("llama", ids, T, 77);
    kh_session_options so = {.threads = 1, .context = 256, .longer = 1, .forks = LANES};
    kh_session *root = open_session(model, &so), *fork = NULL;
    lane with[3];
    kh_generator *all[3];
    kh_generate_result result;
    for (size_t i = 0; i < 3; i++) {
        GOOD(kh_session_fork(&fork, root));
        open_lane(&with[i], fork, i);
        all[i] = with[i].generator;
    }
    with[0].fail_at = 4;
    for (int step = 0; step < 10; step++) {
        if (step == 6) kh_session_stop(with[1].session);
        GOOD(kh_generators_advance(all, 3));
    }
    assert_true(kh_generator_done(all[0]) && kh_generator_done(all[1]));
    assert_false(kh_generator_done(all[2]));
    assert_int_equal(kh_generator_finish(all[0], &result), KH_ERR_IO);
    assert_int_equal(with[0].count, 4);
    GOOD(kh_generator_finish(all[1], &result));
    assert_int_equal(result.finish, KH_FINISH_STOPPED);
    assert_int_equal(result.tokens, 6);
    GOOD(kh_generator_finish(all[2], &result)); /* not complete: it ends here */
    assert_int_equal(result.finish, KH_FINISH_STOPPED);
    assert_int_equal(result.tokens, 10);
    for (size_t i = 0; i < 3; i++) {
        kh_generator_close(with[i].generator);
        kh_session_close(with[i].session);
    }
    kh_session_close(root);
    kh_model_close(model);
}

static void strangers_are_refused(void **state)
{
    (void)state;
    kh_model *model = open_tiny("llama", ids, T, 77);
    kh_session_options so = {.threads = 1, .context = 256, .longer = 1};
    lane a, b;
    kh_generate_result result;
    open_lane(&a, open_session(model, &so), 0);
    open_lane(&b, open_session(model, &so), 2);
    kh_generator *all[] = {a.generator, b.generator};
    assert_int_equal(kh_generators_advance(all, 2), KH_ERR_ARGUMENT);
    assert_int_equal(kh_generator_finish(all[0], &result), KH_ERR_ARGUMENT);
    kh_generator_close(a.generator);
    kh_generator_close(b.generator);
    kh_session_close(a.session);
    kh_session_close(b.session);
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_what_they_are_alone),
        cmocka_unit_test(one_that_ends_leaves_the_others),
        cmocka_unit_test(strangers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
