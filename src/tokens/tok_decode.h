/* tokens/tok_decode.h: decoders, a list of steps from a piece to the bytes it stands for;
 * private. */
#ifndef KH_TOKENS_TOK_DECODE_H
#define KH_TOKENS_TOK_DECODE_H

#include "tokens/tok_regex.h"

typedef enum kh_decode_kind {
    KH_DECODE_LETTERS,   /* the letters of byte-level BPE become bytes */
    KH_DECODE_BYTES,     /* <0x41> becomes its byte */
    KH_DECODE_WORDS,     /* `from` in front (##) goes on with a word; others get a blank in front */
    KH_DECODE_TIDY,      /* no blank before punctuation and short forms */
    KH_DECODE_METASPACE, /* `from` becomes a blank; in the first piece, if `start`, nothing */
    KH_DECODE_SUFFIX,    /* `from` (</w>) becomes a blank, which the last piece of a text lacks */
    KH_DECODE_REPLACE,   /* `from` becomes `to` */
    KH_DECODE_PATTERN,   /* matches of `regex` become `to` */
    KH_DECODE_STRIP, /* up to `start` times `from` in front of a piece, `stop` times behind it */
    KH_DECODE_STRIP_TEXT, /* up to `start` times `from` in front of the text */
    KH_DECODE_JOIN        /* a blank between pieces */
} kh_decode_kind;

typedef struct kh_decode_step {
    kh_decode_kind kind;
    kh_slice from, to;
    size_t start, stop;
    kh_regex *regex; /* owned */
} kh_decode_step;

enum { KH_DECODE_MOST = 16 };

typedef struct kh_decoder {
    kh_decode_step steps[KH_DECODE_MOST];
    int count;
    int plain_markers; /* control, unknown and user-defined pieces pass by all steps */
    int fused;         /* while the list is read: behind Fuse there is one piece, the text */
} kh_decoder;

kh_status kh_decode_add(kh_decoder *decoder, kh_decode_kind kind, kh_decode_step **out);
void kh_decoder_free(kh_decoder *decoder);

#endif
