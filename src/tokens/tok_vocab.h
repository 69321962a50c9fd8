/* tokens/tok_vocab.h: the pieces of a vocabulary and how they are found; private to format/tok*. */
#ifndef KH_TOKENS_TOK_VOCAB_H
#define KH_TOKENS_TOK_VOCAB_H

#include "tokens/tokenizer.h"

typedef struct kh_vocab_slot {
    uint32_t hash;
    int32_t id; /* -1: empty */
} kh_vocab_slot;

typedef struct kh_vocab {
    const kh_slice *pieces; /* [V], of the file or the tokenizer's store */
    uint8_t *kinds;         /* [V], kh_token_kind */
    float *scores;          /* [V]; NULL unless asked for */
    kh_vocab_slot *slots;   /* [mask + 1] */
    uint64_t seed;          /* the same for all tables of one vocabulary */
    size_t longest;         /* bytes of the longest piece */
    uint32_t mask;
    int32_t size; /* V */
} kh_vocab;

/* Reads tokens, token_type and (for `scored` != 0) scores. On failure the caller still frees. */
kh_status kh_vocab_init(kh_vocab *vocab, const kh_gguf *file, int scored);
/* The same over pieces that the caller keeps; all are of kind KH_TOKEN_NORMAL, those of no size
 * KH_TOKEN_UNUSED. */
kh_status kh_vocab_build(kh_vocab *vocab, const kh_slice *pieces, size_t count);
void kh_vocab_free(kh_vocab *vocab);
/* Id of the exact piece, the last one when several tokens share it; -1 if there is none. */
int32_t kh_vocab_find(const kh_vocab *vocab, const char *text, size_t size);
/* Whether text may become this token without being asked to: all but markers and bytes. */
int kh_vocab_is_text(const kh_vocab *vocab, int32_t id);

/* Sound against vocabularies that were built to collide: the seed is random. */
uint64_t kh_vocab_hash(const char *text, size_t size, uint64_t seed);

/* Markers and user-defined pieces, found in running text. */
enum {
    KH_MARKER_SPECIAL = 1, /* only where the caller allows it */
    KH_MARKER_WORD = 2,    /* only as a word of its own */
    KH_MARKER_LEFT = 4,    /* takes the white space in front of it along */
    KH_MARKER_RIGHT = 8,   /* and behind it */
    KH_MARKER_TURN = 16 /* user-defined, but spelled like a control token: not in a guarded range */
};

typedef struct kh_marker {
    kh_slice text;
    int32_t id;
    unsigned flags;
} kh_marker;

typedef struct kh_markers {
    kh_marker *list; /* [count], ordered by the bytes of their texts */
    uint32_t count;
    uint32_t first[257]; /* those that begin with byte b are [first[b], first[b + 1]) */
} kh_markers;

/* Those of a GGUF file's vocabulary: control, unknown and user-defined pieces. */
kh_status kh_markers_init(kh_markers *markers, const kh_vocab *vocab);
/* A list of the caller's, which is copied; the texts are not. Empty texts are left out. */
kh_status kh_markers_build(kh_markers *markers, const kh_marker *list, size_t count);
void kh_markers_free(kh_markers *markers);
/* The longest marker at the start of `text`, or NULL. Special markers count only within the first
 * `open` bytes, those of turns within the first `unguarded`, others within all of `size`. */
const kh_marker *kh_markers_match(const kh_markers *markers, const char *text, size_t size,
                                  size_t open, size_t unguarded);

#endif
