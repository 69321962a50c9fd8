/* tests/support/token_corpus.h: the hard strings of tests/golden/tokens/corpus.jsonl. */
#ifndef KH_TESTS_SUPPORT_TOKEN_CORPUS_H
#define KH_TESTS_SUPPORT_TOKEN_CORPUS_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

typedef struct kh_corpus_line {
    char *data;
    size_t size;
} kh_corpus_line;

/* All lines; loaded by the first call (inside a cmocka test or setup), kept until kh_corpus_free. */
const kh_corpus_line *kh_corpus(size_t *count);
void kh_corpus_free(void);

/* The next line of a JSONL file, NULL at its end; fails the test where it is no JSON. */
json_t *kh_corpus_json_line(FILE *file);

#endif
