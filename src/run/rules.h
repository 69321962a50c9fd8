/* run/rules.h: settings that are given layer by layer, in one line of text: what --attn and --ff have in common.
 *
 *     TEXT    := RULES | PHASED | STACK TEXT { ";" STACK TEXT }
 *     STACK   := "encoder=" | "decoder=" | "cross="     of a model that has them
 *     PHASED  := "prefill=" RULES ";" "decode=" RULES   where phases are told apart; either may be absent
 *     RULES   := SETTING | (RANGE "=" SETTING) { ";" RANGE "=" SETTING }
 *     RANGE   := LAYERS [ "." HEADS ],  each "3", "0-1", "2-" or "*"; HEADS where heads are told apart
 *
 * Layers and heads count from 0, layers in each stack; later rules win. What a SETTING is the caller says. */
#ifndef KH_RUN_RULES_H
#define KH_RUN_RULES_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KH_RULES_STACKS = 3, /* encoder, decoder, the decoder's attention to its source */
    KH_RULES_TEXT = 4096 /* most characters */
};

typedef struct kh_rules {
    const char *what; /* "attention": begins sentences about mistakes */
    const char *setting,
        *rules; /* examples for these sentences: "full, topk:k=64", "0-1=full;2-=topk:k=64" */
    int stacks; /* 1: the model has no encoder, and STACK is refused */
    int layers[KH_RULES_STACKS]; /* of each stack; they lie behind one another in `at` */
    int phases;                  /* 1: not told apart */
    int heads;                   /* 0: not told apart */
    /* Parses a setting, which may be cut up, and gives it a number; a sentence quotes `piece`. */
    kh_status (*parse)(void *context, uint16_t *index, char *setting, const char *piece);
    void *context;
} kh_rules;

/* How many numbers `at` has; 0 for a shape that no model has. */
size_t kh_rules_size(const kh_rules *rules);
/* at [phases][layers of all stacks][heads, at least 1]: the numbers of the settings; what no rule names is not
 * written. A mistake is KH_ERR_ARGUMENT with a sentence that names the part of the text and what is allowed. */
kh_status kh_rules_parse(uint16_t *at, const kh_rules *rules, const char *text);

/* Whether text is a whole number from `least` to 2^24, and nothing else. */
int kh_rules_count(int *out, const char *text, int least);

#endif
