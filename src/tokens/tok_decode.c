/* Decoders.
 *
 * A decoder of tokenizer.json maps the list of a text's pieces to another list, and the ends are
 * joined. All of them work piece by piece, knowing only whether a piece is the first; so a stream
 * can decode as tokens come:
 *
 *     WordPiece   hello | ##s | ,        ->  hello | s | ","      (a blank in front, which tidying takes)
 *     Metaspace   U+2581 He | llo        ->  He | llo
 *     Llama       U+2581 a | <0xC3> | <0xA9>   ->  a | C3 | A9       (replace, bytes, fuse, strip)
 *
 * A step rewrites the tail of the output buffer in place: what it makes is written behind the old
 * bytes and moved down, in room that was reserved before, so decoding allocates nothing once the
 * buffer is large enough.
 *
 * Three things differ from the library, all of them because a stream cannot see its end. Byte
 * tokens that never become a character come out as U+FFFD for each maximal ill-formed part, where
 * the library writes one for each byte of the whole run, the good ones too. A suffix's blank is
 * held back until the next piece comes. What would rewrite the whole text (Replace behind Fuse,
 * Strip at its end) is refused when the file is read. */
#include "tokens/tok_decode.h"

#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_impl.h"

#include <string.h>

kh_status kh_decode_add(kh_decoder *decoder, kh_decode_kind kind, kh_decode_step **out)
{
    if (decoder->count == KH_DECODE_MOST)
        KH_FAIL(KH_ERR_UNSUPPORTED, "the decoder has more than %d steps", KH_DECODE_MOST);
    kh_decode_step *step = &decoder->steps[decoder->count++];
    *step = (kh_decode_step){.kind = kind};
    if (out) *out = step;
    return KH_OK;
}

void kh_decoder_free(kh_decoder *decoder)
{
    for (int i = 0; i < decoder->count; ++i) kh_regex_close(decoder->steps[i].regex);
    decoder->count = 0;
}

/* The piece that is being decoded: the bytes of `out` from `from` on. */
typedef struct tail {
    kh_buf *out;
    size_t from;
} tail;

static kh_slice piece_of(const tail *t)
{
    return (kh_slice){t->out->data + t->from, t->out->size - t->from};
}

/* Drops the piece's first `n` bytes. */
static void drop_front(tail *t, size_t n)
{
    kh_buf *out = t->out;
    memmove(out->data + t->from, out->data + t->from + n, out->size - t->from - n);
    out->size -= n;
    out->data[out->size] = 0;
}

static void cut_to(tail *t, size_t size)
{
    t->out->size = t->from + size;
    if (t->out->data) t->out->data[t->out->size] = 0;
}

static kh_status put_front(tail *t, const char *text, size_t size)
{
    KH_TRY(kh_buf_add(t->out, text, size));
    char *piece = t->out->data + t->from;
    memmove(piece + size, piece, t->out->size - t->from - size);
    memcpy(piece, text, size);
    return KH_OK;
}

static kh_status replace(tail *t, kh_slice from, kh_slice to)
{
    kh_slice piece = piece_of(t);
    size_t found = 0, n = piece.size, more;
    if (n < from.size || !from.size) return KH_OK;
    for (const char *at = piece.data;
         (at = memmem(at, (size_t)(piece.data + n - at), from.data, from.size)); at += from.size)
        ++found;
    if (!found) return KH_OK;
    if (__builtin_mul_overflow(found, to.size, &more) || more > SIZE_MAX / 4)
        KH_FAIL(KH_ERR_MEMORY, "no memory for the text of a token");
    KH_TRY(kh_buf_reserve(t->out, t->out->size + n + more));
    piece = piece_of(t); /* it may have moved; from here on nothing does */
    KH_TRY(kh_replace_add(t->out, piece, from, to));
    drop_front(t, n);
    return KH_OK;
}

static kh_status replace_matches(tail *t, const kh_decode_step *s)
{
    kh_regex_scratch match = {0};
    kh_buf made = {0};
    kh_status status = kh_replace_matches_add(&made, piece_of(t), s->regex, &match, s->to);
    cut_to(t, 0);
    if (status == KH_OK) status = kh_buf_add(t->out, made.data, made.size);
    kh_buf_free(&made);
    kh_regex_scratch_free(&match);
    return status;
}

static void letters(tail *t)
{
    kh_slice piece = piece_of(t);
    for (size_t at = 0; at < piece.size;) {
        kh_utf8_step step = kh_utf8_next(piece.data + at, piece.size - at);
        if (step.kind != KH_UTF8_WHOLE || kh_letter_byte(step.code) < 0) return;
        at += step.size;
    }
    char *bytes = t->out->data + t->from;
    size_t n = 0;
    for (size_t at = 0; at < piece.size;) {
        kh_utf8_step step = kh_utf8_next(bytes + at, piece.size - at);
        at += step.size;
        bytes[n++] = (char)kh_letter_byte(step.code);
    }
    cut_to(t, n);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void byte(tail *t)
{
    kh_slice piece = piece_of(t);
    if (piece.size != 6 || memcmp(piece.data, "<0x", 3) || piece.data[5] != '>') return;
    int high = hex(piece.data[3]), low = hex(piece.data[4]);
    if (high < 0 || low < 0) return;
    t->out->data[t->from] = (char)(high * 16 + low);
    cut_to(t, 1);
}

static kh_status tidy(tail *t)
{
    static const char *const rules[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    kh_slice piece = piece_of(t);
    if (!piece.size || !memchr(piece.data, ' ', piece.size)) return KH_OK;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; ++i)
        KH_TRY(replace(t, (kh_slice){rules[i][0], strlen(rules[i][0])},
                       (kh_slice){rules[i][1], strlen(rules[i][1])}));
    return KH_OK;
}

static int begins(kh_slice text, kh_slice with)
{
    return text.size >= with.size && !memcmp(text.data, with.data, with.size);
}

static void strip(tail *t, const kh_decode_step *s)
{
    kh_slice piece = piece_of(t);
    size_t front = 0, size = piece.size;
    for (size_t i = 0;
         i < s->start && begins((kh_slice){piece.data + front, size - front}, s->from); ++i)
        front += s->from.size;
    for (size_t i = 0; i < s->stop && size - front >= s->from.size &&
                       !memcmp(piece.data + size - s->from.size, s->from.data, s->from.size);
         ++i)
        size -= s->from.size;
    cut_to(t, size);
    if (front) drop_front(t, front);
}

static kh_status run_step(tail *t, const kh_decode_step *s, int first, int may_be_byte)
{
    const kh_slice blank = {" ", 1}, nothing = {"", 0};
    switch (s->kind) {
    case KH_DECODE_LETTERS: letters(t); return KH_OK;
    case KH_DECODE_BYTES:
        if (may_be_byte) byte(t);
        return KH_OK;
    case KH_DECODE_WORDS:
        if (first) return KH_OK;
        if (!begins(piece_of(t), s->from)) return put_front(t, " ", 1);
        drop_front(t, s->from.size);
        return KH_OK;
    case KH_DECODE_TIDY: return tidy(t);
    case KH_DECODE_METASPACE: return replace(t, s->from, first && s->start ? nothing : blank);
    case KH_DECODE_SUFFIX: return replace(t, s->from, blank);
    case KH_DECODE_REPLACE: return replace(t, s->from, s->to);
    case KH_DECODE_PATTERN: return replace_matches(t, s);
    case KH_DECODE_STRIP: strip(t, s); return KH_OK;
    case KH_DECODE_STRIP_TEXT:
        if (first) strip(t, s);
        return KH_OK;
    case KH_DECODE_JOIN: return first ? KH_OK : put_front(t, " ", 1);
    }
    return KH_OK;
}

kh_status kh_token_bytes(const kh_tokenizer *tokenizer, kh_buf *out, int32_t id, unsigned flags,
                         int first)
{
    if (id < 0 || id >= tokenizer->vocab.size)
        KH_FAIL(KH_ERR_ARGUMENT, "token %d is not in the vocabulary of %d", id,
                tokenizer->vocab.size);
    const kh_decoder *d = &tokenizer->decoder;
    kh_slice piece = tokenizer->vocab.pieces[id];
    unsigned kind = tokenizer->vocab.kinds[id];
    int hidden = kind == KH_TOKEN_CONTROL || (kind == KH_TOKEN_UNKNOWN && d->plain_markers);
    if (hidden && !(flags & KH_TOKENIZE_SPECIAL)) return KH_OK;
    if (tokenizer->shown && tokenizer->shown[id].data) piece = tokenizer->shown[id];
    tail t = {out, out->size};
    KH_TRY(kh_buf_add(out, piece.data, piece.size));
    if (d->plain_markers && (hidden || kind == KH_TOKEN_USER)) return KH_OK;
    int may_be_byte = !d->plain_markers || kind == KH_TOKEN_BYTE;
    for (int i = 0; i < d->count; ++i) {
        kh_status status = run_step(&t, &d->steps[i], first, may_be_byte);
        if (status != KH_OK) {
            cut_to(&t, 0);
            return status;
        }
        if (kind == KH_TOKEN_BYTE && out->size - t.from == 1) break; /* a byte is no text */
    }
    return KH_OK;
}
