/* Stopping from another thread: a read or an answer ends soon with KH_ERR_STOPPED, keeps whole batches,
 * and the session goes on as if nothing had happened. Run under the thread sanitizer, too. */
#include "base/alloc.h"
#include "support/golden_run.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { T = 1024, BATCH = 16, ROUNDS = 8 };

static kh_model *model;
static int32_t ids[T];
static kh_session_options so = {.context = T + 64,
                                .longer = 1,
                                .batch = BATCH,
                                .threads = 2,
                                .forks = 1,
                                .attn = "0=full;1-=topk:k=9"};

typedef struct stopper {
    kh_session *session;
    sem_t go;
    useconds_t wait;
} stopper;

static void *stop_later(void *context)
{
    stopper *s = context;
    while (sem_wait(&s->go) != 0) {
    }
    usleep(s->wait);
    kh_session_stop(s->session);
    return NULL;
}

/* Lets the stopper go when a few batches are done. */
static void progress(void *context, size_t done, size_t all)
{
    (void)all;
    if (done == 3 * BATCH) sem_post(&((stopper *)context)->go);
}

static double distance(const float *a, const float *b)
{
    double gap = 0, size = 1e-30;
    for (int i = 0; i < kh_model_get_info(model)->vocabulary; i++) {
        gap = fmax(gap, fabs((double)a[i] - (double)b[i]));
        size = fmax(size, fabs((double)b[i]));
    }
    return gap / size;
}

static void a_read_stops_and_goes_on(void **state)
{
    (void)state;
    kh_session *s = open_session(model, &so), *whole = open_session(model, &so);
    GOOD(kh_session_read(whole, ids, T, NULL));
    int stopped = 0;
    for (useconds_t round = 0; round < ROUNDS; round++) {
        stopper st = {.session = s, .wait = round * 300};
        kh_read_options read = {.progress = progress, .progress_context = &st};
        pthread_t thread;
        GOOD(kh_session_rewind(s, 0));
        assert_int_equal(sem_init(&st.go, 0, 0), 0);
        assert_int_equal(pthread_create(&thread, NULL, stop_later, &st), 0);
        kh_status status = kh_session_read(s, ids, T, &read);
        pthread_join(thread, NULL);
        sem_destroy(&st.go);
        size_t done = kh_session_length(s);
        assert_true(status == KH_OK || status == KH_ERR_STOPPED);
        if (status == KH_ERR_STOPPED) {
            stopped++;
            assert_string_equal(kh_last_error(), "stopped");
            assert_true(done >= 3 * BATCH && done < T && done % BATCH == 0);
            assert_null(kh_session_logits(s));
        }
        assert_memory_equal(kh_session_tokens(s), ids, done * sizeof *ids);
        /* a stop that came too late is forgotten by the next call */
        if (done < T) GOOD(kh_session_read(s, ids + done, T - done, NULL));
        assert_int_equal(kh_session_length(s), T);
        assert_true(distance(kh_session_logits(s), kh_session_logits(whole)) < 1e-5);
    }
    assert_true(stopped > 0);
    kh_session_close(s);
    kh_session_close(whole);
}

static kh_status count_token(void *context, const char *text, size_t size, const kh_choice *chosen,
                             const kh_choice *alternatives, size_t count)
{
    (void)text;
    (void)size;
    (void)chosen;
    (void)alternatives;
    (void)count;
    sem_post(&((stopper *)context)->go);
    return KH_OK;
}

static void an_answer_stops_and_goes_on(void **state)
{
    (void)state;
    kh_session *s = open_session(model, &so), *fork = NULL;
    GOOD(kh_session_read(s, ids, 40, NULL));
    for (int shift = 0; shift < 2; shift++) {
        GOOD(kh_session_fork(&fork, s));
        stopper st = {.session = fork, .wait = 2000};
        kh_generate_options g = {.sampler = kh_sampler_defaults(),
                                 .ignore_end = 1,
                                 .context_shift = shift,
                                 .token = count_token,
                                 .context = &st};
        kh_generate_result made;
        pthread_t thread;
        assert_int_equal(sem_init(&st.go, 0, 0), 0);
        assert_int_equal(pthread_create(&thread, NULL, stop_later, &st), 0);
        GOOD(kh_generate(fork, &g, &made));
        pthread_join(thread, NULL);
        sem_destroy(&st.go);
        assert_true(made.finish == KH_FINISH_STOPPED ||
                    (!shift && made.finish == KH_FINISH_CONTEXT));
        assert_true(made.tokens > 0);
        GOOD(kh_session_rewind(fork, 40));
        GOOD(kh_session_read(fork, ids + 40, 5, NULL));
        kh_session_close(fork);
    }
    assert_int_equal(kh_session_length(s), 40);
    GOOD(kh_session_shift(s, 8, 8));
    kh_session_close(s);
}

static int open_all(void **state)
{
    (void)state;
    if (kh_model_open(&model, golden_path("tiny/qwen3.gguf")) != KH_OK) return 1;
    for (int i = 0; i < T; i++) ids[i] = i * 31 % kh_model_get_info(model)->vocabulary;
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    kh_model_close(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_stops_and_goes_on),
        cmocka_unit_test(an_answer_stops_and_goes_on),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
