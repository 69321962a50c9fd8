/* UTF-8 against the Unicode standard: every code point there and back, the examples of section 3.9,
 * and every string of up to three chosen bytes against a decoder written from the other side: it
 * tries each length and accepts what an encoder would have produced. */
#include "base/alloc.h"
#include "format/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int is_scalar(uint32_t c)
{
    return c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
}

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
        if (!is_scalar(c)) continue;
        char text[4];
        size_t n = kh_utf8_put(text, c);
        kh_utf8_step step = kh_utf8_next(text, n);
        assert_int_equal(step.kind, KH_UTF8_WHOLE);
        assert_int_equal(step.code, c);
        assert_int_equal(step.size, n);
        for (size_t cut = 1; cut < n; ++cut) {
            step = kh_utf8_next(text, cut);
            assert_int_equal(step.kind, KH_UTF8_CUT);
            assert_int_equal(step.size, cut);
        }
    }
}

static void check_clean(const char *bytes, size_t size, const char *want)
{
    kh_buf out = {0};
    assert_int_equal(kh_utf8_clean(&out, bytes, size), KH_OK);
    assert_int_equal(out.size, strlen(want));
    assert_memory_equal(out.data, want, out.size);
    kh_buf_free(&out);
}

#define R "\xEF\xBF\xBD"

static void test_standard_examples(void **state)
{
    (void)state;
    /* tables 3-8 to 3-11 of the standard: overlong, surrogates, other, truncated */
    check_clean("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", 9, R R R R R R R R "A");
    check_clean("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", 9, R R R R R R R R "A");
    check_clean("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", 9, R R R R R "A" R R "B");
    check_clean("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", 9, R R R R "A");
    check_clean("abcdefghijklmnop\xF0\x9F\x98\x80 end\xE2\x82", 26,
                "abcdefghijklmnop\xF0\x9F\x98\x80 end" R);
}

/* Length of the well-formed character at the front, 0 if there is none. */
static size_t whole_length(const unsigned char *s, size_t n)
{
    for (size_t length = 1; length <= 4 && length <= n; ++length) {
        uint32_t c = length == 1   ? s[0]
                     : length == 2 ? (s[0] & 0x1Fu) << 6 | (s[1] & 0x3Fu)
                     : length == 3 ? (s[0] & 0xFu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu)
                                   : (s[0] & 7u) << 18 | (s[1] & 0x3Fu) << 12 |
                                         (s[2] & 0x3Fu) << 6 | (s[3] & 0x3Fu);
        char back[4];
        if (is_scalar(c) && kh_utf8_put(back, c) == length && !memcmp(back, s, length))
            return length;
    }
    return 0;
}

/* Whether some continuation makes the bytes a character: tried with both ends of each range. */
static int is_prefix(const unsigned char *s, size_t n)
{
    static const unsigned char tail[] = {0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF};
    unsigned char t[4] = {0};
    memcpy(t, s, n);
    for (size_t i = 0; i < 216; ++i) {
        unsigned char more[3] = {tail[i % 6], tail[i / 6 % 6], tail[i / 36]};
        memcpy(t + n, more, 4 - n);
        for (size_t length = n + 1; length <= 4; ++length)
            if (whole_length(t, length) == length) return 1;
    }
    return 0;
}

static void test_against_the_definition(void **state)
{
    (void)state;
    static const unsigned char pick[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0,
                                         0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED,
                                         0xEE, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF};
    enum { P = sizeof pick };
    for (size_t i = 0; i < (size_t)P * P * P; ++i) {
        unsigned char s[3] = {pick[i % P], pick[i / P % P], pick[i / P / P]};
        for (size_t n = 1; n <= 3; ++n) {
            kh_utf8_step step = kh_utf8_next((const char *)s, n);
            size_t whole = whole_length(s, n);
            if (whole) {
                assert_int_equal(step.kind, KH_UTF8_WHOLE);
                assert_int_equal(step.size, whole);
                continue;
            }
            size_t part = 1;
            while (part < n && is_prefix(s, part + 1)) ++part;
            assert_int_equal(step.size, part);
            int cut = part == n && is_prefix(s, n);
            assert_int_equal(step.kind, cut ? KH_UTF8_CUT : KH_UTF8_BAD);
        }
    }
}

static void test_valid_prefix(void **state)
{
    (void)state;
    assert_int_equal(kh_utf8_valid("", 0), 0);
    assert_int_equal(kh_utf8_valid("0123456789abcdef\xC3\xA9", 18), 18);
    assert_int_equal(kh_utf8_valid("0123456789abcdef\xC3\xA9", 17), 16);
    assert_int_equal(kh_utf8_valid("0123456\xFF"
                                   "89abcdef",
                                   16),
                     7);
}

static void test_stream_holds_back(void **state)
{
    (void)state;
    kh_buf out = {0};
    size_t taken;
    assert_int_equal(kh_utf8_stream(&out, "a\xE2\x82", 3, &taken), KH_OK);
    assert_int_equal(taken, 1);
    assert_string_equal(out.data, "a");
    kh_buf_free(&out);
    assert_int_equal(kh_alloc_get_stats().live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),       cmocka_unit_test(test_standard_examples),
        cmocka_unit_test(test_against_the_definition), cmocka_unit_test(test_valid_prefix),
        cmocka_unit_test(test_stream_holds_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
