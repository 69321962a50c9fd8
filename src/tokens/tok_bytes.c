/* From bytes to whole characters.
 *
 * A token stands for bytes, not for characters: an emoji is often three tokens, none of which is
 * valid UTF-8. So kh_token_bytes (tok_decode.c) gives bytes, and the stream above it holds back
 * what may still become a character:
 *
 *     token   bytes      held        out
 *     3064    F0 9F      F0 9F       -
 *     8012    98 80      -           U+1F600
 *     17      C3         C3          -
 *     65      41         -           U+FFFD, A        (C3 can no longer become a character)
 *
 * Held bytes are at most three between calls, so streaming costs one small buffer per stream. A
 * blank that the end of a word stands for (</w>) waits too: the last word of a text has none. */
#include "base/fail.h"
#include "format/utf8.h"
#include "tokens/tok_impl.h"

#include <string.h>

/* Moves what is complete from the held bytes to `out`. */
static kh_status release(kh_detokenizer *state, kh_buf *out)
{
    size_t taken;
    kh_status status = kh_utf8_stream(out, state->held.data, state->held.size, &taken);
    if (taken) memmove(state->held.data, state->held.data + taken, state->held.size - taken);
    state->held.size -= taken;
    return status;
}

/* Whether the token ends a word whose blank is to wait. */
static int ends_word(const kh_tokenizer *t, int32_t id)
{
    kh_slice piece = t->vocab.pieces[id];
    for (int i = 0; i < t->decoder.count; ++i) {
        kh_slice suffix = t->decoder.steps[i].from;
        if (t->decoder.steps[i].kind == KH_DECODE_SUFFIX && piece.size >= suffix.size &&
            !memcmp(piece.data + piece.size - suffix.size, suffix.data, suffix.size))
            return 1;
    }
    return 0;
}

static kh_status hold(const kh_tokenizer *t, kh_detokenizer *state, int32_t id, unsigned flags)
{
    size_t held = state->held.size;
    if (state->blank) KH_TRY(kh_buf_add(&state->held, " ", 1));
    kh_status status = kh_token_bytes(t, &state->held, id, flags, !state->started);
    int nothing = state->held.size == held + (state->blank != 0);
    if (status != KH_OK || nothing) {
        state->held.size = held; /* a waiting blank waits on */
        return status;
    }
    state->blank = ends_word(t, id) && state->held.data[state->held.size - 1] == ' ';
    if (state->blank) --state->held.size;
    return KH_OK;
}

kh_status kh_detokenize(const kh_tokenizer *tokenizer, kh_detokenizer *state, kh_buf *out,
                        int32_t id, unsigned flags)
{
    size_t held = state->held.size, had = out->size;
    int blank = state->blank;
    kh_status status = hold(tokenizer, state, id, flags);
    if (status == KH_OK) status = release(state, out);
    if (status != KH_OK) {
        /* as if the token had not come, so that the caller may try again */
        if (state->held.size > held && out->size == had) {
            state->held.size = held;
            state->blank = blank;
        }
        return status;
    }
    unsigned kind = tokenizer->vocab.kinds[id];
    int marker = kind == KH_TOKEN_CONTROL ||
                 (kind == KH_TOKEN_UNKNOWN && tokenizer->decoder.plain_markers);
    if (!marker || (flags & KH_TOKENIZE_SPECIAL && !tokenizer->decoder.plain_markers))
        state->started = 1;
    return KH_OK;
}

kh_status kh_detokenize_end(kh_detokenizer *state, kh_buf *out)
{
    if (state->held.size) KH_TRY(kh_buf_add(out, "\xEF\xBF\xBD", 3));
    kh_buf_clear(&state->held);
    state->blank = 0;
    return KH_OK;
}

void kh_detokenizer_free(kh_detokenizer *state)
{
    kh_buf_free(&state->held);
    state->started = state->blank = 0;
}
