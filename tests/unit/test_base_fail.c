/* Status codes and the error sentence of a thread. */
#include "base/fail.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static kh_status inner(int n)
{
    if (n > 3) KH_FAIL(KH_ERR_ARGUMENT, "n is %d, at most %d is expected", n, 3);
    return KH_OK;
}

static kh_status outer(int n, int *reached)
{
    KH_TRY(inner(n));
    *reached = 1;
    return KH_OK;
}

static void fails_and_forwards(void **state)
{
    (void)state;
    int reached = 0;
    errno = ENOSPC;
    assert_int_equal(outer(4, &reached), KH_ERR_ARGUMENT);
    assert_int_equal(reached, 0);
    assert_int_equal(errno, ENOSPC);
    assert_string_equal(kh_last_error(), "n is 4, at most 3 is expected");
    assert_int_equal(outer(3, &reached), KH_OK);
    assert_int_equal(reached, 1);
    assert_string_equal(kh_last_error(), "n is 4, at most 3 is expected");
}

static void adds_context(void **state)
{
    (void)state;
    kh_fail(KH_ERR_FORMAT, "bad %s", "byte");
    errno = EPERM;
    assert_int_equal(kh_fail_context(KH_ERR_FORMAT, "%s", "model.gguf"), KH_ERR_FORMAT);
    assert_string_equal(kh_last_error(), "model.gguf: bad byte");
    assert_int_equal(errno, EPERM);
}

static void cuts_long_sentences(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    kh_fail(KH_ERR_IO, "%s", text);
    size_t full = strlen(kh_last_error());
    assert_int_equal(full, 1023);
    kh_fail_context(KH_ERR_IO, "%s", "where");
    assert_true(strlen(kh_last_error()) <= 1023);
    assert_memory_equal(kh_last_error(), "where: xxx", 10);
    kh_fail(KH_ERR_IO, "short");
    kh_fail_context(KH_ERR_IO, "%s", text);
    assert_int_equal(strlen(kh_last_error()), 1023);
}

static void *other_thread(void *seen)
{
    snprintf(seen, 1024, "%s", kh_last_error());
    kh_fail(KH_ERR_IO, "of the other thread");
    return NULL;
}

static void sentence_belongs_to_thread(void **state)
{
    (void)state;
    char seen[1024] = "untouched";
    pthread_t thread;
    kh_fail(KH_ERR_IO, "of this thread");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, seen), 0);
    pthread_join(thread, NULL);
    assert_string_equal(seen, "");
    assert_string_equal(kh_last_error(), "of this thread");
}

static void tables_are_whole(void **state)
{
    (void)state;
#define CHECK(name, value, text, http, code)                                                       \
    assert_int_equal(KH_##name, value);                                                            \
    assert_string_equal(kh_status_text(KH_##name), text);                                          \
    assert_string_equal(kh_status_name(KH_##name), "KH_" #name);                                   \
    assert_int_equal(kh_status_http(KH_##name), http);                                             \
    assert_int_equal(kh_status_exit(KH_##name), code);
    KH_STATUS_LIST(CHECK)
    assert_int_equal(KH_OK, 0);
    assert_non_null(kh_status_text((kh_status)-1000));
    assert_string_equal(kh_status_name((kh_status)-1000), "KH_?");
    assert_int_equal(kh_status_http((kh_status)-1000), 500);
    assert_int_equal(kh_status_exit((kh_status)-1000), 1);
    assert_int_equal(kh_status_exit(KH_ERR_ARGUMENT), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fails_and_forwards),         cmocka_unit_test(adds_context),
        cmocka_unit_test(cuts_long_sentences),        cmocka_unit_test(tables_are_whole),
        cmocka_unit_test(sentence_belongs_to_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
