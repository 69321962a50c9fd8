/* The passages of a document that an answer was read from.
 *
 * While the answer is generated, every attention row (one query, one head of one layer) passes by.
 * Most heads spend their weight on sinks: the first positions, markers, line ends. What names a
 * source is the other kind of row, a head that looks hard at few tokens. So a row counts with the
 * document tokens to which it gives at least LOOKS = 0.1 of its softmax, and with those weights;
 * everything else, and everything outside the document, is dropped. Sinks inside the document remain:
 * a token that rows look at whatever is being written. They are told apart by constancy: per token
 * the sum over rows is kept for each written token, and what it receives from every written token
 * alike (its smallest sum over the written tokens after the first) is subtracted at the end.
 *
 * Tokens become bytes through their pieces: the pieces of all ids are joined, and the document is
 * looked for in the joined text. Sums are added up per sentence (an end mark and white space, or a
 * line end, closes one; a sentence is cut where it grows past MOST bytes).
 *
 * Memory: three floats and two small integers per token of the document. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

#define LOOKS 0.1f
enum { MOST = 400 };

struct cli_sources {
    kh_probe probe;
    kh_session *session;
    const char *document; /* [size] the caller's */
    size_t size;
    size_t first, tokens;  /* positions [first, first + tokens) are the document */
    uint32_t *start;       /* [tokens + 1] byte offsets in the document */
    float *sum;            /* [tokens] over everything written */
    float *now;            /* [tokens] of the token that is being written */
    float *least;          /* [tokens] smallest `now` so far */
    float *top;            /* [tokens] largest weight */
    int16_t *layer, *head; /* [tokens] that gave it */
    int32_t position;      /* of the query in `now` */
    size_t written;
};

static void close_position(cli_sources *s)
{
    for (size_t i = 0; i < s->tokens; i++) {
        if (s->written == 0 || s->now[i] < s->least[i]) s->least[i] = s->now[i];
        s->sum[i] += s->now[i];
        s->now[i] = 0;
    }
    s->written++;
}

static void on_row(void *context, const kh_attn_row *row)
{
    cli_sources *s = context;
    if (row->position != s->position) {
        if (s->position >= 0) close_position(s);
        s->position = row->position;
    }
    for (size_t i = 0; i < row->count; i++) {
        size_t key = row->keys[i];
        float weight = row->weights[i];
        if (weight < LOOKS || key < s->first || key - s->first >= s->tokens) continue;
        size_t at = key - s->first;
        s->now[at] += weight;
        if (weight > s->top[at]) {
            s->top[at] = weight;
            s->layer[at] = (int16_t)row->layer;
            s->head[at] = (int16_t)row->head;
        }
    }
}

/* Joins the pieces of all ids; starts[i] is where the i-th begins. */
static kh_status join(const kh_model *model, const int32_t *ids, size_t count, kh_buf *text,
                      kh_buf *starts)
{
    for (size_t i = 0; i < count; i++) {
        char piece[256];
        KH_TRY(kh_buf_add(starts, &text->size, sizeof text->size));
        size_t n = kh_model_piece(model, ids[i], piece, sizeof piece);
        KH_TRY(kh_buf_add(text, piece, n < sizeof piece ? n : sizeof piece));
    }
    return KH_OK;
}

static kh_status locate(cli_sources *s, const size_t *starts, size_t count, const kh_buf *text)
{
    const char *found = memmem(text->data, text->size, s->document, s->size);
    if (!found) KH_FAIL(KH_ERR_NOT_FOUND, "the document's tokens do not spell it byte for byte");
    size_t begin = (size_t)(found - text->data), end = begin + s->size, last = 0;
    for (s->first = 0; s->first + 1 < count && starts[s->first + 1] <= begin;) s->first++;
    for (last = s->first; last < count && starts[last] < end;) last++;
    s->tokens = last - s->first;
    KH_TRY(kh_new(&s->start, s->tokens + 1, sizeof *s->start, "the sources"));
    KH_TRY(kh_new(&s->sum, s->tokens, sizeof *s->sum, "the sources"));
    KH_TRY(kh_new(&s->now, s->tokens, sizeof *s->now, "the sources"));
    KH_TRY(kh_new(&s->least, s->tokens, sizeof *s->least, "the sources"));
    KH_TRY(kh_new(&s->top, s->tokens, sizeof *s->top, "the sources"));
    KH_TRY(kh_new(&s->layer, s->tokens, sizeof *s->layer, "the sources"));
    KH_TRY(kh_new(&s->head, s->tokens, sizeof *s->head, "the sources"));
    for (size_t i = 0; i < s->tokens; i++) {
        size_t at = starts[s->first + i];
        s->start[i] = (uint32_t)(at > begin ? at - begin : 0);
    }
    s->start[s->tokens] = (uint32_t)s->size;
    return KH_OK;
}

kh_status cli_sources_open(cli_sources **out, const kh_model *model, const int32_t *ids,
                           size_t count, const char *document, size_t size)
{
    *out = NULL;
    cli_sources *s = NULL;
    kh_buf text = {0}, starts = {0};
    KH_TRY(kh_new(&s, 1, sizeof *s, "the sources"));
    s->document = document;
    s->size = size;
    s->position = -1;
    kh_status status = join(model, ids, count, &text, &starts);
    if (status == KH_OK) status = locate(s, (const size_t *)(void *)starts.data, count, &text);
    kh_buf_free(&text);
    kh_buf_free(&starts);
    if (status != KH_OK) {
        cli_sources_close(s);
        return status;
    }
    *out = s;
    return KH_OK;
}

void cli_sources_close(cli_sources *s)
{
    if (!s) return;
    kh_free(s->start);
    kh_free(s->sum);
    kh_free(s->now);
    kh_free(s->least);
    kh_free(s->top);
    kh_free(s->layer);
    kh_free(s->head);
    kh_free(s);
}

void cli_sources_attach(cli_sources *s, kh_session *session)
{
    s->probe =
        (kh_probe){.context = s, .points = UINT64_C(1) << KH_POINT_ATTN_ROWS, .rows = on_row};
    s->session = session;
    kh_session_observe(session, &s->probe);
}

/* The end of the sentence that begins at `start`. */
static size_t sentence_end(const char *text, size_t size, size_t start)
{
    for (size_t i = start; i < size; i++) {
        int space = i + 1 == size || strchr(" \t\r\n", text[i + 1]) != NULL;
        if (i > start && text[i] == '\n' && (i + 1 == size || text[i + 1] == '\n')) return i + 1;
        if (strchr("\"')]", text[i]) && i > start && strchr(".!?", text[i - 1]) && space)
            return i + 1;
        if (strchr(".!?", text[i]) && space && i + 1 - start > 3) return i + 1;
        if (i - start >= MOST && space) return i + 1;
    }
    return size;
}

static void insert(cli_source *best, size_t *count, size_t most, cli_source one)
{
    size_t at = *count;
    while (at > 0 && best[at - 1].weight < one.weight) at--;
    if (at >= most) return;
    if (*count < most) ++*count;
    memmove(best + at + 1, best + at, (*count - at - 1) * sizeof *best);
    best[at] = one;
}

size_t cli_sources_best(const cli_sources *s, cli_source *out, size_t most)
{
    size_t count = 0, token = 0;
    double all = 0;
    /* The row of the last written token is still in `now`. */
    double written = (double)s->written + 1;
    for (size_t start = 0; start < s->size;) {
        while (start < s->size && strchr(" \t\r\n", s->document[start])) start++;
        size_t end = sentence_end(s->document, s->size, start);
        cli_source one = {.start = start, .end = end, .layer = -1, .head = -1};
        for (; token < s->tokens && s->start[token] < end; token++) {
            double least = (double)(s->now[token] < s->least[token] || s->written == 0
                                        ? s->now[token]
                                        : s->least[token]);
            double sum = (double)s->sum[token] + (double)s->now[token];
            if (s->written > 2) sum -= least * written;
            one.weight += sum;
            if (sum > 0 && s->top[token] > one.head_weight) {
                one.head_weight = s->top[token];
                one.layer = s->layer[token];
                one.head = s->head[token];
            }
        }
        all += one.weight;
        if (one.weight > 0 && one.layer >= 0) insert(out, &count, most, one);
        start = end;
    }
    for (size_t i = 0; i < count; i++) {
        out[i].weight = all > 0 ? out[i].weight / all : 0;
        while (out[i].end > out[i].start && strchr(" \t\r\n", s->document[out[i].end - 1]))
            out[i].end--;
    }
    return count;
}
