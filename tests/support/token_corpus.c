/* Strings that tokenizers get wrong: text as it is, or hexadecimal where it is no text. */
#include "support/token_corpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_LINES = 4096 };

static kh_corpus_line corpus[MOST_LINES];
static size_t lines;

json_t *kh_corpus_json_line(FILE *file)
{
    static char *text;
    static size_t room;
    ssize_t n = getline(&text, &room, file);
    if (n < 0) {
        free(text);
        text = NULL;
        room = 0;
        return NULL;
    }
    json_t *value = json_loadb(text, (size_t)n, JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    return value;
}

static int nibble(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

const kh_corpus_line *kh_corpus(size_t *count)
{
    *count = lines;
    if (lines) return corpus;
    FILE *file = fopen("tests/golden/tokens/corpus.jsonl", "r");
    assert_non_null(file);
    for (json_t *value; (value = kh_corpus_json_line(file)) != NULL; json_decref(value)) {
        assert_true(lines < MOST_LINES);
        kh_corpus_line *l = &corpus[lines++];
        const json_t *text = json_object_get(value, "text"), *hex = json_object_get(value, "hex");
        size_t n = json_string_length(text ? text : hex);
        const char *from = json_string_value(text ? text : hex);
        l->size = text ? n : n / 2;
        l->data = malloc(n + 1);
        assert_non_null(l->data);
        if (text) memcpy(l->data, from, n);
        for (size_t i = 0; hex && i < l->size; ++i)
            l->data[i] = (char)(nibble(from[2 * i]) << 4 | nibble(from[2 * i + 1]));
    }
    fclose(file);
    *count = lines;
    return corpus;
}

void kh_corpus_free(void)
{
    for (size_t i = 0; i < lines; ++i) free(corpus[i].data);
    lines = 0;
}
