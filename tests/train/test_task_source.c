/* Tasks as documents: the examples themselves, and behind a token that begins every text. */
#include "train/task_source.h"

#include "base/alloc.h"
#include "support/golden_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { CLS = 1000, SEED = 3 };

static void check_text(const kh_train_example *got, size_t at, const kh_task_example *want,
                       size_t first, size_t end)
{
    assert_int_equal(got->tokens[at], CLS);
    assert_int_equal(got->targets[at], -1);
    size_t bytes = (end - first) * sizeof *want->tokens;
    assert_memory_equal(got->tokens + at + 1, want->tokens + first, bytes);
    assert_memory_equal(got->targets + at + 1, want->targets + first, bytes);
}

static void examples_and_prefixes(void **state)
{
    kh_task *task = NULL;
    kh_task_source s;
    kh_task_example want;
    kh_train_example got;
    GOOD(kh_task_open(&task, *state));
    GOOD(kh_task_source_open(&s, task, SEED, KH_TASK_TRAIN, 50));
    GOOD(kh_task_example_open(&want, task));
    for (uint64_t i = 0; i < 20; i++) {
        GOOD(kh_task_generate(task, SEED, KH_TASK_TRAIN, i, &want));
        GOOD(kh_source_get(s.source, i, &got));
        assert_int_equal(got.n, want.n);
        assert_int_equal(got.second, want.second);
        assert_int_equal(got.label, want.label);
        assert_memory_equal(got.tokens, want.tokens, want.n * sizeof *want.tokens);
        assert_memory_equal(got.targets, want.targets, want.n * sizeof *want.targets);
    }
    kh_source_close(s.source);
    s.source = NULL;
    kh_task_source_close(&s);
    GOOD(kh_task_source_open(&s, task, SEED, KH_TASK_TRAIN, 50));
    GOOD(kh_task_source_prefix(&s, CLS));
    for (uint64_t i = 0; i < 20; i++) {
        GOOD(kh_task_generate(task, SEED, KH_TASK_TRAIN, i, &want));
        GOOD(kh_source_get(s.source, i, &got));
        size_t second = want.second;
        assert_int_equal(got.n, want.n + (second ? 2 : 1));
        assert_int_equal(got.label, want.label);
        assert_int_equal(got.second, second ? second + 1 : 0);
        check_text(&got, 0, &want, 0, second ? second : want.n);
        if (second) check_text(&got, got.second, &want, second, want.n);
    }
    kh_task_example_close(&want);
    kh_task_source_close(&s);
    kh_task_close(task);
}

int main(void)
{
    static char listops[] = "listops", mqar[] = "mqar:L=32,pairs=4",
                bytes[] = "bytes:files=tests/golden/README.md+tests/golden/bpe.jsonl,length=40";
    const struct CMUnitTest tests[] = {
        {"listops", examples_and_prefixes, NULL, NULL, listops},
        {"mqar", examples_and_prefixes, NULL, NULL, mqar},
        {"two windows of bytes", examples_and_prefixes, NULL, NULL, bytes},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
