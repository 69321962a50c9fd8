/* How right an answer is, by the rules of SQuAD's evaluation script (Rajpurkar et al., 2016): both texts in
 * small letters, without punctuation (ASCII's), without the words a, an, the, with single blanks. Exact: they are
 * equal then. F1: harmonic mean of the shares of common words, counted with their repetitions. The best over
 * all right answers counts. Two texts without words are equal; one without is not like one with.
 *
 * Letters outside ASCII are made small by utf8proc, as the script's language does. */
#include "base/alloc.h"

#include <keyhole/eval.h>

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct words {
    char *text; /* normalised, words ended by zero bytes */
    const char **at;
    size_t count;
} words;

static int is_blank(utf8proc_int32_t c)
{
    if (c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85) return 1;
    utf8proc_category_t kind = utf8proc_category(c);
    return kind == UTF8PROC_CATEGORY_ZS || kind == UTF8PROC_CATEGORY_ZL ||
           kind == UTF8PROC_CATEGORY_ZP;
}

static int is_punctuation(utf8proc_int32_t c)
{
    return c < 0x80 && c > 0x20 && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", (int)c) != NULL;
}

/* What stands between word boundaries: letters and digits. */
static int is_letter(utf8proc_int32_t c)
{
    utf8proc_category_t kind = utf8proc_category(c);
    return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
           (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
}

static int is_article(const char *run, const char *end)
{
    size_t n = (size_t)(end - run);
    return (n == 1 && *run == 'a') || (n == 2 && memcmp(run, "an", 2) == 0) ||
           (n == 3 && memcmp(run, "the", 3) == 0);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

typedef struct splitter {
    words *out;
    char *to, *word,
        *run; /* where to write; where the word and the run of letters began, run may be NULL */
} splitter;

static void end_word(splitter *s)
{
    if (s->to > s->word) {
        *s->to++ = 0;
        s->out->at[s->out->count++] = s->word;
    }
    s->word = s->to;
}

static void put(splitter *s, utf8proc_int32_t c)
{
    int letter = is_letter(c);
    if (!letter && s->run && is_article(s->run, s->to)) {
        s->to = s->run;
        end_word(s);
    }
    if (!letter) s->run = NULL;
    if (letter && !s->run) s->run = s->to;
    if (is_blank(c))
        end_word(s);
    else
        s->to += utf8proc_encode_char(c, (utf8proc_uint8_t *)s->to);
}

/* Words in their order; 0 without memory. */
static int split(words *out, const char *text)
{
    size_t size = strlen(text);
    *out = (words){.text = kh_alloc(5 * size + 8), .at = kh_alloc((size + 1) * sizeof *out->at)};
    if (!out->text || !out->at) return 0;
    splitter s = {.out = out, .to = out->text, .word = out->text};
    for (size_t i = 0; i < size;) {
        utf8proc_int32_t c = 0xFFFD;
        utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text + i,
                                                 (utf8proc_ssize_t)(size - i), &c);
        if (step < 1) c = 0xFFFD;
        i += step < 1 ? 1 : (size_t)step;
        if (!is_punctuation(c)) put(&s, utf8proc_tolower(c));
    }
    put(&s, ' ');
    return 1;
}

static void free_words(words *w)
{
    kh_free(w->at);
    kh_free(w->text);
}

static double same(const words *a, const words *b)
{
    if (a->count != b->count) return 0;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->at[i], b->at[i]) != 0) return 0;
    return 1;
}

/* Sorts both. */
static double overlap(words *a, words *b)
{
    size_t common = 0;
    if (a->count == 0 || b->count == 0) return a->count == b->count;
    qsort(a->at, a->count, sizeof *a->at, compare);
    qsort(b->at, b->count, sizeof *b->at, compare);
    for (size_t i = 0, j = 0; i < a->count && j < b->count;) {
        int order = strcmp(a->at[i], b->at[j]);
        common += order == 0;
        i += order <= 0;
        j += order >= 0;
    }
    double precision = (double)common / (double)a->count,
           recall = (double)common / (double)b->count;
    return common ? 2 * precision * recall / (precision + recall) : 0;
}

void kh_score_answer(const char *text, const char *const *answers, size_t count, double *exact,
                     double *f1)
{
    *exact = *f1 = 0;
    for (size_t i = 0; i < count; i++) {
        words said, right;
        int good = split(&said, text);
        good &= split(&right, answers[i]);
        double equal = good ? same(&said, &right) : 0, shared = good ? overlap(&said, &right) : 0;
        if (equal > *exact) *exact = equal;
        if (shared > *f1) *f1 = shared;
        free_words(&right);
        free_words(&said);
    }
}
