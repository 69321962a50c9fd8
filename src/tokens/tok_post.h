/* tokens/tok_post.h: what is put around one text or two; private to format/tok*. */
#ifndef KH_TOKENS_TOK_POST_H
#define KH_TOKENS_TOK_POST_H

#include <stdint.h>

enum { KH_POST_MOST = 32 };
enum { KH_POST_A = -1, KH_POST_B = -2 };

typedef struct kh_post_item {
    int32_t id;   /* of a token, or KH_POST_A, KH_POST_B: all of a text's */
    int32_t type; /* type id */
} kh_post_item;

typedef struct kh_post_template {
    kh_post_item items[KH_POST_MOST];
    int count;
} kh_post_template;

typedef struct kh_post {
    kh_post_template one, two;
} kh_post;

/* The templates of a tokenizer that adds `before` and `after` (-1: nothing): one text between
 * them; of two, the second has type `second` and ends with `after` again. */
void kh_post_edges(kh_post *post, int32_t before, int32_t after, int32_t second);
void kh_post_add(kh_post_template *list, int32_t id, int32_t type);

#endif
