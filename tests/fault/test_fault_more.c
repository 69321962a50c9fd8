/* The n-th allocation fails, for every n, of what a program does with an open model beside reading and
 * answering: measuring, verifying, saving, conversing, asking. Each answers KH_ERR_MEMORY and a
 * sentence, leaks nothing, and works as before once there is memory again. */
#include "base/alloc.h"
#include "support/fault_case.h"
#include "support/golden_run.h"

#include <keyhole/keyhole.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { T = 40 };

static kh_model *model;
static kh_session_options so = {
    .attn = "0=full;1-=topk:k=4,tail=mean", .context = 64, .longer = 1, .forks = 1, .threads = 1};
static int32_t ids[T];
static char path[] = "/tmp/keyhole-test-XXXXXX";

static kh_status perplexity(void)
{
    static const char *const attns[] = {"full", "topk:k=3"};
    kh_ppl_result results[2];
    kh_ppl_options o = {.session = so, .attns = attns, .attn_count = 2, .context = 16, .stride = 8};
    return kh_ppl(model, ids, T, &o, results);
}

static kh_status recall(void)
{
    static const char text[] = "The lake was still. A bird sang in the tree! Who heard it? Nobody "
                               "did. The day went on. Rain fell on the roof. It was late. ";
    static const kh_fact facts[] = {{"The key is red.", "The key is", "red"},
                                    {"The door is low.", "The door is", "low"}};
    static const char *const attns[] = {"full", "topk:k=4", "none"};
    static kh_recall_result results[3];
    char book[9 * (sizeof text - 1) + 1];
    for (size_t i = 0; i < sizeof book; i++) book[i] = text[i % (sizeof text - 1)];
    book[sizeof book - 1] = 0;
    kh_recall_options o = {.session = so,
                           .attns = attns,
                           .attn_count = 3,
                           .tokens = 120,
                           .facts = facts,
                           .fact_count = 2,
                           .answer_tokens = 2};
    return kh_recall(model, book, strlen(book), &o, results);
}

static kh_status verify(void)
{
    kh_verify_options o = {.session.threads = 1};
    return kh_verify(model, &o);
}

static kh_status save_and_load(void)
{
    kh_session *a = NULL, *b = NULL;
    kh_status status = kh_session_open(&a, model, &so);
    if (status == KH_OK) status = kh_session_open(&b, model, &so);
    if (status == KH_OK) status = kh_session_read(a, ids, 20, NULL);
    if (status == KH_OK) status = kh_session_read(b, ids + 5, 7, NULL);
    if (status == KH_OK) status = kh_session_save(a, path);
    if (status == KH_OK) status = kh_session_load(b, path);
    if (status == KH_OK) status = kh_session_shift(b, 3, 4);
    kh_session_close(a);
    kh_session_close(b);
    return status;
}

static kh_status chat(void)
{
    static const kh_chat_message messages[] = {{"system", "Be \xC3\xA9 brief."},
                                               {"user", "What <|im_end|> is \xFF it?"}};
    int32_t *out = NULL;
    size_t n = 0;
    kh_status status = kh_model_chat(model, "chatml", messages, 2, &out, &n);
    if (status != KH_OK && out) return KH_ERR_CHECK;
    char *text = NULL;
    size_t size = 0;
    if (status == KH_OK) status = kh_model_detokenize(model, out, n, 0, &text, &size);
    kh_free_text(text);
    kh_free_ids(out);
    return status;
}

static kh_status metadata(void)
{
    char key[64], value[256];
    kh_status status = KH_OK;
    for (size_t i = 0; status == KH_OK && i < kh_model_metadata_count(model); i++)
        status = kh_model_metadata(model, i, key, sizeof key, value, sizeof value);
    return status;
}

static kh_status memory(void)
{
    kh_memory_need need;
    return kh_model_memory(model, &so, &need);
}

static kh_status ignore_row(void *context, const kh_bench_result *result)
{
    (void)context;
    (void)result;
    return KH_OK;
}

static kh_status speed(void)
{
    static const char *const attns[] = {"full"};
    static const size_t n[] = {5};
    kh_bench_options o = {.session = so,
                          .attns = attns,
                          .attn_count = 1,
                          .prompts = n,
                          .prompt_count = 1,
                          .generate = n,
                          .generate_count = 1,
                          .repeat = 1};
    return kh_bench_speed(model, &o, ignore_row, NULL);
}

static kh_status generate(void)
{
    static const char *const stops[] = {"never", "said"};
    kh_session *s = NULL;
    kh_generate_result made;
    kh_generate_options g = {.sampler = kh_sampler_defaults(),
                             .stop = stops,
                             .stop_count = 2,
                             .max_tokens = 60,
                             .ignore_end = 1,
                             .context_shift = 1,
                             .top_logprobs = 9};
    kh_status status = kh_session_open(&s, model, &so);
    if (status == KH_OK) status = kh_session_read(s, ids, 30, NULL);
    if (status == KH_OK) status = kh_generate(s, &g, &made);
    kh_session_close(s);
    return status;
}

FAULT_TEST(perplexity, 2)
FAULT_TEST(recall, 2)
FAULT_TEST(verify, 2)
FAULT_TEST(save_and_load, 2)
FAULT_TEST(chat, 2)
FAULT_TEST(metadata, 2)
FAULT_TEST(memory, 2)
FAULT_TEST(speed, 2)
FAULT_TEST(generate, 2)

static int open_all(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    if (fd < 0 || kh_model_open(&model, golden_path("tiny/llama.gguf")) != KH_OK) return 1;
    close(fd);
    for (int i = 0; i < T; i++) ids[i] = i * 11 % kh_model_get_info(model)->vocabulary;
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    unlink(path);
    kh_model_close(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_perplexity), cmocka_unit_test(failing_recall),
        cmocka_unit_test(failing_verify),     cmocka_unit_test(failing_save_and_load),
        cmocka_unit_test(failing_chat),       cmocka_unit_test(failing_metadata),
        cmocka_unit_test(failing_memory),     cmocka_unit_test(failing_speed),
        cmocka_unit_test(failing_generate),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
