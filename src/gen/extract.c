/* Answers as stretches of a text: an encoder says for every token how much it speaks for being the first and
 * the last of the answer (Devlin et al., BERT, section 4.2); the best pair is looked for.
 *
 *     text      |piece|piece|...        a piece: blanks, then a word or a run of punctuation
 *     windows   [cls] question [sep] pieces a .. b [sep]      as many as fit, the next begins STRIDE tokens on
 *     pairs     the BEST starts x the BEST ends of a window, first <= last, at most LONGEST tokens
 *
 * Tokenizers split at blanks and between words and punctuation, so the tokens of a window are those of its
 * pieces one behind the other, and a token's place in the text is that of its piece: that is counted and, where
 * it is not so, refused, because an answer at the wrong place looks like one at the right place. Pieces that
 * share a pair with another window count with the better one.
 *
 * A probability is the softmax of a pair's score over the pairs that were kept, as the SQuAD scripts of the
 * paper's models print it; "no answer" is the score of the first token for both ends, least over the windows. */
#include "base/alloc.h"
#include "base/fail.h"
#include "gen/encoder.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { STRIDE = 128, BEST = 20, LONGEST = 30 };

typedef struct piece {
    size_t begin, start, end; /* bytes: with its blanks; of the word alone */
    size_t tokens;
} piece;

typedef struct extraction {
    kh_encoder *encoder;
    const kh_tokenizer *tokenizer;
    kh_slice question, text;
    piece *pieces;
    size_t piece_count, longest;
    kh_tokens ids, types;
    kh_pair_ranges at;
    size_t *owner; /* [second_count] piece of each token of the text */
    float *start, *end;
    kh_span_answer *best; /* [most] */
    size_t most, count;
    double none;
} extraction;

/* ---- pieces */

/* Bytes of words: letters, digits, everything outside ASCII, and an apostrophe between two of them. */
static int is_word(const char *text, size_t i, size_t size)
{
    unsigned char c = (unsigned char)text[i];
    if (isalnum(c) || c >= 0x80) return 1;
    return c == '\'' && i > 0 && i + 1 < size && isalpha((unsigned char)text[i - 1]) &&
           isalpha((unsigned char)text[i + 1]);
}

static size_t next_piece(const char *text, size_t size, size_t at, piece *out)
{
    out->begin = at;
    while (at < size && isspace((unsigned char)text[at])) at++;
    out->start = at;
    int word = at < size && is_word(text, at, size);
    while (at < size && !isspace((unsigned char)text[at]) && is_word(text, at, size) == word) at++;
    out->end = at;
    return at;
}

static kh_status count_tokens(extraction *x, piece *p)
{
    x->ids.count = 0;
    KH_TRY(kh_tokenize(x->tokenizer, &x->ids, x->text.data + p->begin, p->end - p->begin, 0));
    p->tokens = x->ids.count;
    return KH_OK;
}

static kh_status find_pieces(extraction *x)
{
    size_t room = 0;
    for (size_t at = 0; at < x->text.size;) {
        KH_TRY(kh_grow(&x->pieces, x->piece_count, &room, sizeof *x->pieces, "the words"));
        piece *p = &x->pieces[x->piece_count];
        at = next_piece(x->text.data, x->text.size, at, p);
        if (p->start == p->end) break; /* blanks at the end */
        KH_TRY(count_tokens(x, p));
        x->piece_count++;
    }
    if (x->piece_count == 0) KH_FAIL(KH_ERR_ARGUMENT, "the text is empty");
    return KH_OK;
}

/* ---- windows */

static kh_status tokenize_window(extraction *x, size_t a, size_t b)
{
    kh_slice part = {x->text.data + x->pieces[a].begin, x->pieces[b - 1].end - x->pieces[a].begin};
    x->ids.count = x->types.count = 0;
    KH_TRY(kh_tokenize_pair(x->tokenizer, &x->ids, &x->types, &x->at, x->question, part,
                            KH_TOKENIZE_EDGES));
    size_t n = 0;
    for (size_t p = a; p < b; p++)
        for (size_t i = 0; i < x->pieces[p].tokens; i++)
            if (n < x->longest) x->owner[n++] = p;
    if (n != x->at.second_count)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "this tokenizer joins words: %zu tokens were found where the words have %zu, so an "
                "answer's place in the text is not known",
                x->at.second_count, n);
    return KH_OK;
}

/* Pieces [a, *b) that fit behind the question; *next begins the following window. */
static kh_status cut_window(const extraction *x, size_t room, size_t a, size_t *b, size_t *next)
{
    size_t n = 0, skipped = 0;
    for (*b = a; *b < x->piece_count && n + x->pieces[*b].tokens <= room; ++*b)
        n += x->pieces[*b].tokens;
    if (*b == a)
        KH_FAIL(KH_ERR_CONTEXT, "the question leaves room for %zu tokens, a word has %zu", room,
                x->pieces[a].tokens);
    for (*next = a; *next < *b && skipped < STRIDE; ++*next) skipped += x->pieces[*next].tokens;
    if (*b == x->piece_count) *next = x->piece_count;
    return KH_OK;
}

/* ---- pairs */

static void keep(extraction *x, kh_span_answer found)
{
    size_t at = 0;
    for (; at < x->count; at++)
        if (x->best[at].start == found.start && x->best[at].size == found.size) break;
    if (at < x->count && x->best[at].score >= found.score) return;
    if (at == x->count && at < x->most) x->count++;
    if (at == x->most) {
        if (!(found.score > x->best[at - 1].score)) return;
        at--;
    }
    for (; at > 0 && found.score > x->best[at - 1].score; at--) x->best[at] = x->best[at - 1];
    x->best[at] = found;
}

/* Indices of the BEST largest of x [n], best first. */
static size_t largest(size_t out[BEST], const float *x, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = count < BEST ? count++ : BEST;
        if (at == BEST) {
            if (!(x[i] > x[out[BEST - 1]])) continue;
            at--;
        }
        for (; at > 0 && x[i] > x[out[at - 1]]; at--) out[at] = out[at - 1];
        out[at] = i;
    }
    return count;
}

static void pair_up(extraction *x)
{
    size_t starts[BEST], ends[BEST], n = x->at.second_count;
    const float *start = x->start + x->at.second, *end = x->end + x->at.second;
    size_t n_starts = largest(starts, start, n), n_ends = largest(ends, end, n);
    for (size_t i = 0; i < n_starts; i++)
        for (size_t j = 0; j < n_ends; j++) {
            size_t s = starts[i], e = ends[j];
            if (e < s || e - s >= LONGEST) continue;
            const piece *first = &x->pieces[x->owner[s]], *last = &x->pieces[x->owner[e]];
            keep(x, (kh_span_answer){.start = first->start,
                                     .size = last->end - first->start,
                                     .score = (double)start[s] + (double)end[e]});
        }
    double none = (double)x->start[0] + (double)x->end[0];
    if (none < x->none) x->none = none;
}

static kh_status read_window(extraction *x, size_t a, size_t b)
{
    KH_TRY(tokenize_window(x, a, b));
    kh_encoder_text text = {.ids = x->ids.ids, .types = x->types.ids, .count = x->ids.count};
    KH_TRY(kh_encoder_spans(x->encoder, x->start, x->end, &text));
    pair_up(x);
    return KH_OK;
}

static kh_status search(extraction *x)
{
    kh_slice nothing = {"", 0};
    KH_TRY(find_pieces(x));
    x->ids.count = x->types.count = 0;
    KH_TRY(kh_tokenize_pair(x->tokenizer, &x->ids, &x->types, &x->at, x->question, nothing,
                            KH_TOKENIZE_EDGES));
    if (x->ids.count >= x->longest)
        KH_FAIL(KH_ERR_CONTEXT, "the question has %zu tokens, the model reads %zu", x->ids.count,
                x->longest);
    size_t room = x->longest - x->ids.count;
    KH_TRY(kh_new(&x->owner, x->longest, sizeof *x->owner, "a window"));
    KH_TRY(kh_new(&x->start, x->longest, sizeof *x->start, "a window"));
    KH_TRY(kh_new(&x->end, x->longest, sizeof *x->end, "a window"));
    for (size_t a = 0, b = 0, next = 0; a < x->piece_count; a = next) {
        KH_TRY(cut_window(x, room, a, &b, &next));
        KH_TRY(read_window(x, a, b));
    }
    return KH_OK;
}

kh_status kh_encoder_answers(kh_encoder *encoder, kh_span_answer *out, size_t most, size_t *count,
                             double *none, const char *question, const char *text, size_t size)
{
    extraction x = {.encoder = encoder,
                    .tokenizer = kh_encoder_tokenizer(encoder),
                    .question = {question, strlen(question)},
                    .text = {text, size},
                    .longest = kh_encoder_longest(encoder),
                    .best = out,
                    .most = most,
                    .none = (double)INFINITY};
    *count = 0;
    if (most == 0) return KH_OK;
    kh_status status = search(&x);
    double sum = 0;
    for (size_t i = 0; i < x.count; i++) sum += exp(out[i].score - out[0].score);
    for (size_t i = 0; i < x.count; i++)
        out[i].probability = exp(out[i].score - out[0].score) / sum;
    *count = status == KH_OK ? x.count : 0;
    if (none) *none = x.none;
    kh_free(x.end);
    kh_free(x.start);
    kh_free(x.owner);
    kh_tokens_free(&x.types);
    kh_tokens_free(&x.ids);
    kh_free(x.pieces);
    return status;
}
