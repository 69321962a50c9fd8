/* From ids back to bytes, and from bytes to whole characters.
 *
 * A token stands for bytes, not for characters: an emoji is often three tokens, none of which is
 * valid UTF-8. So kh_token_bytes gives bytes, and the stream above it holds back what may still
 * become a character:
 *
 *     token   bytes      held        out
 *     3064    F0 9F      F0 9F       -
 *     8012    98 80      -           U+1F600
 *     17      C3         C3          -
 *     65      41         -           U+FFFD, A        (C3 can no longer become a character)
 *
 * Held bytes are at most three between calls, so streaming costs one small buffer per stream. */
#include "base/fail.h"
#include "format/tok_impl.h"
#include "format/utf8.h"

#include <string.h>

static kh_status add_letters(kh_buf *out, kh_slice piece)
{
    for (size_t at = 0; at < piece.size;) {
        kh_utf8_step step = kh_utf8_next(piece.data + at, piece.size - at);
        int byte = step.kind == KH_UTF8_WHOLE ? kh_letter_byte(step.code) : -1;
        char one = (char)byte;
        KH_TRY(byte >= 0 ? kh_buf_add(out, &one, 1) : kh_buf_add(out, piece.data + at, step.size));
        at += step.size;
    }
    return KH_OK;
}

static kh_status add_unblanked(kh_buf *out, kh_slice piece, int drop)
{
    for (size_t at = 0; at < piece.size; drop = 0) {
        const char *found = memmem(piece.data + at, piece.size - at, KH_TOKENIZER_BLANK, 3);
        size_t run = found ? (size_t)(found - piece.data) - at : piece.size - at;
        KH_TRY(kh_buf_add(out, piece.data + at, run));
        at += run;
        if (found && !(drop && run == 0)) KH_TRY(kh_buf_add(out, " ", 1));
        if (found) at += 3;
    }
    return KH_OK;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of a piece <0x41>, or -1. */
static int byte_of(kh_slice piece)
{
    if (piece.size != 6 || memcmp(piece.data, "<0x", 3) || piece.data[5] != '>') return -1;
    int high = hex(piece.data[3]), low = hex(piece.data[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

kh_status kh_token_bytes(const kh_tokenizer *tokenizer, kh_buf *out, int32_t id, unsigned flags,
                         int first)
{
    if (id < 0 || id >= tokenizer->vocab.size)
        KH_FAIL(KH_ERR_ARGUMENT, "token %d is not in the vocabulary of %d", id,
                tokenizer->vocab.size);
    kh_slice piece = tokenizer->vocab.pieces[id];
    unsigned kind = tokenizer->vocab.kinds[id];
    if (kind == KH_TOKEN_CONTROL || kind == KH_TOKEN_UNKNOWN)
        return flags & KH_TOKENIZE_SPECIAL ? kh_buf_add(out, piece.data, piece.size) : KH_OK;
    if (kind == KH_TOKEN_USER) return kh_buf_add(out, piece.data, piece.size);
    int byte = kind == KH_TOKEN_BYTE ? byte_of(piece) : -1;
    char one = (char)byte;
    if (byte >= 0) return kh_buf_add(out, &one, 1);
    if (tokenizer->model == KH_TOKENIZER_BYTES) return add_letters(out, piece);
    return add_unblanked(out, piece, first && tokenizer->space_prefix);
}

/* Moves what is complete from the held bytes to `out`. */
static kh_status release(kh_detokenizer *state, kh_buf *out)
{
    size_t taken;
    kh_status status = kh_utf8_stream(out, state->held.data, state->held.size, &taken);
    if (taken) memmove(state->held.data, state->held.data + taken, state->held.size - taken);
    state->held.size -= taken;
    return status;
}

kh_status kh_detokenize(const kh_tokenizer *tokenizer, kh_detokenizer *state, kh_buf *out,
                        int32_t id, unsigned flags)
{
    size_t held = state->held.size, had = out->size;
    kh_status status = kh_token_bytes(tokenizer, &state->held, id, flags, !state->started);
    if (status == KH_OK) status = release(state, out);
    if (status != KH_OK) {
        /* as if the token had not come, so that the caller may try again */
        if (state->held.size > held && out->size == had) state->held.size = held;
        return status;
    }
    unsigned kind = tokenizer->vocab.kinds[id];
    if (kind != KH_TOKEN_CONTROL && kind != KH_TOKEN_UNKNOWN) state->started = 1;
    return KH_OK;
}

kh_status kh_detokenize_end(kh_detokenizer *state, kh_buf *out)
{
    if (state->held.size) KH_TRY(kh_buf_add(out, "\xEF\xBF\xBD", 3));
    kh_buf_clear(&state->held);
    return KH_OK;
}

void kh_detokenizer_free(kh_detokenizer *state)
{
    kh_buf_free(&state->held);
    state->started = 0;
}
