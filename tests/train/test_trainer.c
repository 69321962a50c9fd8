/* The trainer as a C program uses it: gradients by hand are those of a run and of the loss, a stop costs nothing, k
 * moves for both ways, texts of the options may go. */
#include <keyhole/keyhole.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 12, V = 32 };

#define GOOD(call)                                                                                 \
    do {                                                                                           \
        if ((call) != KH_OK) fail_msg("%s", kh_last_error());                                      \
    } while (0)

static int32_t tokens[ROWS], targets[ROWS];
static const size_t lengths[] = {5, 7};
static const kh_train_batch batch = {
    .tokens = tokens, .targets = targets, .lengths = lengths, .rows = ROWS, .sequences = 2};

static kh_train_options options(void)
{
    return (kh_train_options){
        .arch = "llama:layers=2,width=16,heads=2,ff=32,vocabulary=32,context=32",
        .length = 8,
        .batch = 2,
        .steps = 50,
        .rate = 0.01,
        .threads = 1};
}

static kh_trainer *opened(const kh_train_options *o)
{
    kh_trainer *t = NULL;
    GOOD(kh_trainer_open(&t, o));
    return t;
}

static void refused(kh_status got, kh_status want, const char *part)
{
    assert_int_equal(got, want);
    if (!strstr(kh_last_error(), part)) fail_msg("'%s' has no '%s'", kh_last_error(), part);
}

static double moved(kh_trainer *t, double by)
{
    double nats = 0;
    for (size_t i = 0; i < kh_trainer_tensor_count(t); i++) {
        kh_train_tensor w;
        kh_trainer_get_tensor(t, i, &w);
        assert_non_null(w.gradient);
        for (int j = 0; j < w.rows * w.cols; j++) w.data[j] += (float)(by * (double)w.gradient[j]);
    }
    GOOD(kh_trainer_gradient(t, &batch, 0, &nats));
    return nats;
}

/* Along itself a gradient's slope is its square. */
static void gradients_are_slopes(void **state)
{
    (void)state;
    kh_train_options o = options();
    kh_trainer *t = opened(&o);
    double nats = 0, square = 0;
    GOOD(kh_trainer_gradient(t, &batch, 1, &nats));
    assert_true(nats > 9 * 3 && nats < 9 * 4);
    for (size_t i = 0; i < kh_trainer_tensor_count(t); i++) {
        kh_train_tensor w;
        kh_trainer_get_tensor(t, i, &w);
        for (int j = 0; j < w.rows * w.cols; j++) square += pow((double)w.gradient[j], 2);
    }
    double step = 1e-3 / sqrt(square), more = moved(t, step), less = moved(t, -2 * step);
    assert_true(square > 1);
    assert_true(fabs((more - less) / (2 * step) / square - 1) < 3e-3);
    kh_trainer_close(t);
}

/* Two halves with half the weight are one whole; an update sets gradients to zero and counts. */
static void gradients_add_up(void **state)
{
    (void)state;
    kh_train_options o = options();
    kh_trainer *t = opened(&o);
    kh_train_tensor w;
    double nats = 0, norm = 0;
    float once[16];
    kh_trainer_get_tensor(t, 0, &w);
    GOOD(kh_trainer_gradient(t, &batch, 1, &nats));
    memcpy(once, w.gradient, sizeof once);
    GOOD(kh_trainer_gradient(t, &batch, 1, &nats));
    for (int i = 0; i < 16; i++) assert_true(fabsf(w.gradient[i] - 2 * once[i]) < 1e-6f);
    GOOD(kh_trainer_update(t, 0, &norm));
    assert_true(norm > 0);
    for (int i = 0; i < w.rows * w.cols; i++) assert_true(w.gradient[i] == 0);
    kh_train_info info;
    kh_trainer_get_info(t, &info);
    assert_int_equal(info.step, 1);
    kh_trainer_close(t);
}

static void batches_are_checked(void **state)
{
    (void)state;
    static const size_t wrong[] = {5, 6}, none[] = {12, 0};
    kh_train_options o = options();
    kh_trainer *t = opened(&o);
    double nats;
    kh_train_report report;
    kh_train_batch b = batch;
    b.lengths = wrong;
    refused(kh_trainer_gradient(t, &b, 1, &nats), KH_ERR_ARGUMENT, "its sequences have 11 rows");
    b.lengths = none;
    refused(kh_trainer_gradient(t, &b, 1, &nats), KH_ERR_ARGUMENT, "sequence 1 has 0 rows");
    b = batch;
    b.rows = 17;
    refused(kh_trainer_gradient(t, &b, 1, &nats), KH_ERR_ARGUMENT, "has room for 16");
    b.rows = 0;
    refused(kh_trainer_gradient(t, &b, 1, &nats), KH_ERR_ARGUMENT, "a batch of 0 rows");
    tokens[3] = V;
    refused(kh_trainer_gradient(t, &batch, 1, &nats), KH_ERR_ARGUMENT, "row 3");
    tokens[3] = 3;
    refused(kh_trainer_step(t, &report), KH_ERR_STATE, "no training data");
    refused(kh_trainer_evaluate(t, 0, &report), KH_ERR_STATE, "nothing is held out");
    refused(kh_trainer_checkpoint(t), KH_ERR_STATE, "no folder");
    kh_trainer_close(t);
}

/* A stop ends one step; the next one is that which it would have been. */
static void a_stop_costs_nothing(void **state)
{
    (void)state;
    kh_train_options o = options();
    o.arch = "llama:layers=2,width=16,heads=2,ff=32";
    o.task = "mqar:L=16,pairs=2,vocab=32";
    o.length = 0;
    kh_trainer *a = opened(&o), *b = opened(&o);
    kh_train_report x, y;
    for (int i = 0; i < 4; i++) {
        kh_trainer_stop(b);
        assert_int_equal(kh_trainer_step(b, &y), KH_ERR_STOPPED);
        GOOD(kh_trainer_step(a, &x));
        GOOD(kh_trainer_step(b, &y));
        assert_int_equal(y.step, i + 1);
        assert_true(x.loss == y.loss && x.norm == y.norm);
    }
    kh_trainer_stop(b);
    assert_int_equal(kh_trainer_evaluate(b, 0, &y), KH_ERR_STOPPED);
    GOOD(kh_trainer_evaluate(a, 0, &x));
    GOOD(kh_trainer_evaluate(b, 0, &y));
    assert_true(x.loss == y.loss && x.rows == y.rows);
    GOOD(kh_trainer_step(a, &x));
    GOOD(kh_trainer_step(b, &y));
    assert_true(x.loss == y.loss);
    kh_trainer_close(a);
    kh_trainer_close(b);
}

/* k moves by the steps that were done, and the option's text is no longer needed. */
static void k_moves_by_hand(void **state)
{
    (void)state;
    char text[] = "topk:k=1..3/3";
    kh_train_options o = options();
    o.attn = text;
    kh_trainer *moving = opened(&o);
    memset(text, 'x', sizeof text - 1);
    for (int k = 1; k <= 4; k++) {
        char still[32];
        double nats = 0, want = 0;
        snprintf(still, sizeof still, "topk:k=%d", k < 3 ? k : 3);
        o.attn = still;
        kh_trainer *fixed = opened(&o);
        kh_train_tensor from, to;
        for (size_t i = 0; i < kh_trainer_tensor_count(fixed); i++) {
            kh_trainer_get_tensor(moving, i, &from);
            kh_trainer_get_tensor(fixed, i, &to);
            memcpy(to.data, from.data, (size_t)from.rows * (size_t)from.cols * sizeof(float));
        }
        GOOD(kh_trainer_gradient(fixed, &batch, 0, &want));
        GOOD(kh_trainer_gradient(moving, &batch, 1, &nats));
        assert_true(nats == want);
        GOOD(kh_trainer_update(moving, 0, NULL));
        kh_trainer_close(fixed);
    }
    kh_train_info info;
    kh_trainer_get_info(moving, &info);
    assert_string_equal(info.attn, "topk:k=1..3/3");
    kh_trainer_close(moving);
}

static int make_batch(void **state)
{
    (void)state;
    for (int i = 0; i < ROWS; i++) tokens[i] = i * 7 % V, targets[i] = i % 4 == 3 ? -1 : i * 5 % V;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_slopes), cmocka_unit_test(gradients_add_up),
        cmocka_unit_test(batches_are_checked),  cmocka_unit_test(a_stop_costs_nothing),
        cmocka_unit_test(k_moves_by_hand),
    };
    return cmocka_run_group_tests(tests, make_batch, NULL);
}
